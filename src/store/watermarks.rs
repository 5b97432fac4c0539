//! The watermarks: how far the history is saved, and the totals of each interface. The writer keeps them in memory, so
//! that a save needs no query. A start restores them from the database.

use crate::sorted::{Map, Set};
use std::ops::ControlFlow;

use rusqlite::Connection;

use super::codec::block::{ByteReader, column_count, damaged, first_byte, put_leb, unzigzag, zigzag};
use super::codec::{TickRow, TickTime};
use super::samples::{BlockRange, Order, each_block};
use crate::error::Result;
use crate::model::{Anchor, COUNTERS, Counters, IfaceId, Sample};

/// A start skips this many tick numbers. Clients may have seen ticks of the previous run that were never saved, and no
/// number is used twice.
pub(super) const SEQ_MARGIN: u64 = 100_000;

/// Raw counters and totals of one interface as of some tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub raw: Counters,
    pub lifetime: Counters,
    pub mono_ms: u64,
    pub last_seen: Option<i64>,
    /// Numbers of the latest ticks that `raw` (`raw_seq`) and `lifetime` (`seq`) include.
    raw_seq: u64,
    seq: u64,
}

impl Tally {
    fn add_sample(&mut self, tick_time: &TickTime, sample: &Sample) {
        if tick_time.seq > self.raw_seq {
            for (raw, delta) in self.raw.0.iter_mut().zip(sample.delta.0) {
                *raw = raw.wrapping_add(delta);
            }
            self.raw_seq = tick_time.seq;
        }
        self.lifetime.add(&sample.delta);
        self.seq = tick_time.seq;
        self.set_time(tick_time);
    }

    fn set_time(&mut self, tick_time: &TickTime) {
        self.mono_ms = tick_time.mono_ms;
        self.last_seen = Some(tick_time.unix);
    }

    /// Layout: the number of counters, `raw`, `lifetime`, then the other fields.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = vec![first_byte(COUNTERS)];
        self.raw.0.iter().chain(&self.lifetime.0).for_each(|value| put_leb(&mut out, *value));
        for value in [self.raw_seq, self.seq, self.mono_ms, zigzag(self.last_seen.unwrap_or(-1))] {
            put_leb(&mut out, value);
        }
        out
    }

    pub fn unpack(bytes: &[u8]) -> Result<Tally> {
        let mut bytes = ByteReader(bytes);
        let count = column_count(bytes.take(1)?[0])?;
        if !(MIN_COUNTERS..=COUNTERS).contains(&count) {
            return Err(damaged("a tally has an unknown number of counters"));
        }
        let mut tally = Tally::default();
        for counters in [&mut tally.raw, &mut tally.lifetime] {
            for value in &mut counters.0[..count] {
                *value = bytes.leb()?;
            }
        }
        for value in [&mut tally.raw_seq, &mut tally.seq, &mut tally.mono_ms] {
            *value = bytes.leb()?;
        }
        tally.last_seen = Some(unzigzag(bytes.leb()?)).filter(|unix| *unix >= 0);
        if bytes.0.is_empty() { Ok(tally) } else { Err(damaged("a tally is too long")) }
    }
}

/// No version has had fewer counters: a smaller number is the first byte of a tally that the migration did not convert.
const MIN_COUNTERS: usize = 8;

/// The writer's knowledge of the database, as of the latest save.
#[derive(Clone, Debug, Default)]
pub(super) struct Watermarks {
    /// Start of the open block (UTC seconds), and its first tick whose samples are in no roll-up.
    pub open_block: Option<i64>,
    pub first_open_seq: u64,
    /// Name of the time zone that the latest day was cut in.
    pub zone: Option<String>,
    /// Number and time (UTC seconds) of the newest tick.
    pub seq: u64,
    pub newest: Option<i64>,
    pub tallies: Map<IfaceId, Tally>,
    /// Interfaces whose stored tally lacks samples of the open block. The save that closes the block writes the tally.
    pub stale_tallies: Set<IfaceId>,
}

impl Watermarks {
    pub fn load(conn: &Connection) -> Result<Watermarks> {
        let mut watermarks = Watermarks::load_meta(conn)?;
        let mut statement = conn.prepare("SELECT id, tally FROM interface")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let tally = match row.get_ref(1)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
                None => Tally::default(),
                Some(bytes) => Tally::unpack(bytes).unwrap_or_else(|error| {
                    log::error!("the totals of interface {id} are lost: {error}");
                    Tally::default()
                }),
            };
            watermarks.tallies.insert(id, tally);
        }
        watermarks.catch_up(conn)?;
        Ok(watermarks)
    }

    /// Reads only what `meta` has: the open block and the time zone.
    pub fn load_meta(conn: &Connection) -> Result<Watermarks> {
        let mut watermarks = Watermarks::default();
        let mut statement = conn.prepare_cached("SELECT key, value FROM meta")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)? {
                "window" => watermarks.open_block = Some(row.get(1)?),
                "since" => watermarks.first_open_seq = row.get::<_, i64>(1)? as u64,
                "zone" => watermarks.zone = Some(row.get(1)?),
                _ => {}
            }
        }
        Ok(watermarks)
    }

    pub fn tally(&self, iface: IfaceId) -> Tally {
        self.tallies.get(&iface).copied().unwrap_or_default()
    }

    pub fn next_seq(&self) -> u64 {
        if self.seq == 0 { 1 } else { self.seq + 1 + SEQ_MARGIN }
    }

    /// Adds the samples of the open block that the stored tallies lack. The blocks are in the order of time, which is
    /// not the order of the ticks after a step of the clock.
    fn catch_up(&mut self, conn: &Connection) -> Result<()> {
        self.seq = self.first_open_seq.saturating_sub(1);
        let stored = self.tallies.clone();
        let Some(open_block) = self.open_block else { return Ok(()) };
        each_block(conn, BlockRange::six_hours(open_block), Order::Ascending, &mut |block, decoder| {
            let packed = block.packed()?;
            let last = decoder.decode_ticks(&packed)?.iter().max_by_key(|tick_time| tick_time.seq);
            if let Some(last) = last.filter(|last| last.seq > self.seq || self.newest.is_none()) {
                self.seq = last.seq.max(self.seq);
                self.newest = Some(last.unix);
            }
            decoder.each_sample(&packed, None, 0..packed.rows, &mut |tick_time, sample| {
                let base = stored.get(&sample.iface).copied().unwrap_or_default();
                let tally = self.tallies.entry(sample.iface).or_default();
                if tick_time.seq > base.raw_seq {
                    for (raw, delta) in tally.raw.0.iter_mut().zip(sample.delta.0) {
                        *raw = raw.wrapping_add(delta);
                    }
                    tally.raw_seq = tally.raw_seq.max(tick_time.seq);
                }
                if tick_time.seq > base.seq {
                    tally.lifetime.add(&sample.delta);
                    self.stale_tallies.insert(sample.iface);
                    if tick_time.seq > tally.seq {
                        tally.seq = tick_time.seq;
                        tally.set_time(tick_time);
                    }
                }
            })?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Adds the totals of one interface to another's, and returns the new tally packed. All samples stored so far
    /// count as included: from now on they carry the other interface's id.
    pub fn merge(&mut self, id: IfaceId, into: IfaceId) -> Vec<u8> {
        let merged = self.tally(id);
        let seq = self.seq;
        let tally = self.tallies.entry(into).or_default();
        tally.lifetime.add(&merged.lifetime);
        tally.last_seen = tally.last_seen.max(merged.last_seen);
        (tally.raw_seq, tally.seq) = (seq, seq);
        let packed = tally.pack();
        self.stale_tallies.remove(&into);
        packed
    }

    /// Updates the tallies to the end of a save. Returns the interfaces with an anchor: their tally must be written,
    /// because it does not follow from the samples alone.
    pub fn apply(&mut self, rows: &[TickRow], anchors: &[Anchor]) -> Set<IfaceId> {
        let mut anchors: Vec<&Anchor> = anchors.iter().collect();
        anchors.sort_by_key(|anchor| anchor.seq);
        let mut anchors = anchors.into_iter().peekable();
        let mut anchored = Set::new();
        for row in rows {
            // An anchor holds at the end of its tick: after the samples of that tick, before those of the next.
            while let Some(anchor) = anchors.next_if(|anchor| anchor.seq < row.time.seq) {
                self.apply_anchor(anchor, None, &mut anchored);
            }
            for sample in &row.samples {
                self.tallies.entry(sample.iface).or_default().add_sample(&row.time, sample);
                self.stale_tallies.insert(sample.iface);
            }
            while let Some(anchor) = anchors.next_if(|anchor| anchor.seq == row.time.seq) {
                self.apply_anchor(anchor, Some(&row.time), &mut anchored);
            }
        }
        anchors.for_each(|anchor| self.apply_anchor(anchor, None, &mut anchored));
        if let Some(row) = rows.last() {
            self.seq = row.time.seq;
            self.newest = Some(row.time.unix);
        }
        anchored
    }

    fn apply_anchor(&mut self, anchor: &Anchor, tick_time: Option<&TickTime>, anchored: &mut Set<IfaceId>) {
        let tally = self.tallies.entry(anchor.iface).or_default();
        if anchor.seq >= tally.raw_seq {
            tally.raw = anchor.raw;
            tally.raw_seq = anchor.seq;
            if let Some(tick_time) = tick_time {
                tally.set_time(tick_time);
            }
            anchored.insert(anchor.iface);
        }
    }
}
