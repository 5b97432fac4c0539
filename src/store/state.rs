//! What the writer knows of the database without asking it, and how it is known again after a restart.

use crate::sorted::{Map, Set};
use std::ops::ControlFlow;

use rusqlite::Connection;

use super::block::{Bytes, columns_by, damaged, first_byte, put_leb, unzigzag, zigzag};
use super::rows::{Moment, Row};
use super::samples::{Order, Span, each_block};
use crate::error::Result;
use crate::model::{Anchor, COUNTERS, Counters, IfaceId, Sample};

/// Ticks that were shown to somebody but never saved have numbers too: after a restart none is given again.
pub(super) const SEQ_MARGIN: u64 = 100_000;

/// An interface's counters as of the newest tick on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub raw: Counters,
    pub lifetime: Counters,
    pub mono_ms: u64,
    pub last_seen: Option<i64>,
    /// The ticks up to which `raw` and `lifetime` are.
    raw_seq: u64,
    seq: u64,
}

impl Tally {
    fn take(&mut self, moment: &Moment, sample: &Sample) {
        if moment.seq > self.raw_seq {
            for (raw, delta) in self.raw.0.iter_mut().zip(sample.delta.0) {
                *raw = raw.wrapping_add(delta);
            }
            self.raw_seq = moment.seq;
        }
        self.lifetime.add(&sample.delta);
        self.seq = moment.seq;
        self.see(moment);
    }

    fn see(&mut self, moment: &Moment) {
        self.mono_ms = moment.mono_ms;
        self.last_seen = Some(moment.unix);
    }

    /// The number of counters, then all of them twice, then the others.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = vec![first_byte(COUNTERS)];
        self.raw.0.iter().chain(&self.lifetime.0).for_each(|value| put_leb(&mut out, *value));
        for value in [self.raw_seq, self.seq, self.mono_ms, zigzag(self.last_seen.unwrap_or(-1))] {
            put_leb(&mut out, value);
        }
        out
    }

    pub fn unpack(bytes: &[u8]) -> Result<Tally> {
        let mut bytes = Bytes(bytes);
        let count = columns_by(bytes.take(1)?[0])?;
        if !(LEAST_COUNTERS..=COUNTERS).contains(&count) {
            return Err(damaged("a tally of so many counters is unknown"));
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

/// No version has counted less: a tally that could not be made anew begins with what was a number.
const LEAST_COUNTERS: usize = 8;

/// What the writer knows of the database without asking it.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The open window, and the first tick whose samples are nowhere but in blocks.
    pub window: Option<i64>,
    pub since: u64,
    /// Name of the zone that the latest day was cut in.
    pub zone: Option<String>,
    /// Of the newest tick.
    pub seq: u64,
    pub newest: Option<i64>,
    pub tallies: Map<IfaceId, Tally>,
    /// Those whose stored tally is older than the open window: they are written when it closes.
    pub changed: Set<IfaceId>,
}

impl State {
    pub fn load(conn: &Connection) -> Result<State> {
        let mut state = State::marks(conn)?;
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
            state.tallies.insert(id, tally);
        }
        state.catch_up(conn)?;
        Ok(state)
    }

    /// What is noted of the open window.
    pub fn marks(conn: &Connection) -> Result<State> {
        let mut state = State::default();
        let mut statement = conn.prepare_cached("SELECT key, value FROM meta")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)? {
                "window" => state.window = Some(row.get(1)?),
                "since" => state.since = row.get::<_, i64>(1)? as u64,
                "zone" => state.zone = Some(row.get(1)?),
                _ => {}
            }
        }
        Ok(state)
    }

    pub fn tally(&self, iface: IfaceId) -> Tally {
        self.tallies.get(&iface).copied().unwrap_or_default()
    }

    pub fn next_seq(&self) -> u64 {
        if self.seq == 0 { 1 } else { self.seq + 1 + SEQ_MARGIN }
    }

    /// Adds to the tallies what the blocks of the open window hold beyond them. The blocks are in the order of time,
    /// and after a step of the clock that is not the order of the ticks.
    fn catch_up(&mut self, conn: &Connection) -> Result<()> {
        self.seq = self.since.saturating_sub(1);
        let stored = self.tallies.clone();
        let Some(window) = self.window else { return Ok(()) };
        each_block(conn, Span::window(window), Order::Ascending, &mut |block, samples| {
            let packed = block.packed()?;
            let last = samples.open(&packed)?.iter().max_by_key(|moment| moment.seq);
            if let Some(last) = last.filter(|last| last.seq > self.seq || self.newest.is_none()) {
                self.seq = last.seq.max(self.seq);
                self.newest = Some(last.unix);
            }
            samples.some(&packed, None, 0..packed.rows, &mut |moment, sample| {
                let base = stored.get(&sample.iface).copied().unwrap_or_default();
                let tally = self.tallies.entry(sample.iface).or_default();
                if moment.seq > base.raw_seq {
                    for (raw, delta) in tally.raw.0.iter_mut().zip(sample.delta.0) {
                        *raw = raw.wrapping_add(delta);
                    }
                    tally.raw_seq = tally.raw_seq.max(moment.seq);
                }
                if moment.seq > base.seq {
                    tally.lifetime.add(&sample.delta);
                    self.changed.insert(sample.iface);
                    if moment.seq > tally.seq {
                        tally.seq = moment.seq;
                        tally.see(moment);
                    }
                }
            })?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Adds one interface's totals to another's, and gives them packed. What is in blocks up to now counts as taken in:
    /// it bears the other's number from now on.
    pub fn merge(&mut self, id: IfaceId, into: IfaceId) -> Vec<u8> {
        let gone = self.tally(id);
        let seq = self.seq;
        let tally = self.tallies.entry(into).or_default();
        tally.lifetime.add(&gone.lifetime);
        tally.last_seen = tally.last_seen.max(gone.last_seen);
        (tally.raw_seq, tally.seq) = (seq, seq);
        let packed = tally.pack();
        self.changed.remove(&into);
        packed
    }

    /// Tallies as of the end of the flush. Gives the interfaces whose tally the blocks alone no longer tell.
    pub fn count(&mut self, rows: &[Row], anchors: &[Anchor]) -> Set<IfaceId> {
        let mut anchors: Vec<&Anchor> = anchors.iter().collect();
        anchors.sort_by_key(|anchor| anchor.seq);
        let mut anchors = anchors.into_iter().peekable();
        let mut anchored = Set::new();
        for row in rows {
            // An anchor holds as of the end of its tick: after the tick's own samples, before those of the next.
            while let Some(anchor) = anchors.next_if(|anchor| anchor.seq < row.moment.seq) {
                self.anchor(anchor, None, &mut anchored);
            }
            for sample in &row.samples {
                self.tallies.entry(sample.iface).or_default().take(&row.moment, sample);
                self.changed.insert(sample.iface);
            }
            while let Some(anchor) = anchors.next_if(|anchor| anchor.seq == row.moment.seq) {
                self.anchor(anchor, Some(&row.moment), &mut anchored);
            }
        }
        anchors.for_each(|anchor| self.anchor(anchor, None, &mut anchored));
        if let Some(row) = rows.last() {
            self.seq = row.moment.seq;
            self.newest = Some(row.moment.unix);
        }
        anchored
    }

    fn anchor(&mut self, anchor: &Anchor, moment: Option<&Moment>, anchored: &mut Set<IfaceId>) {
        let tally = self.tallies.entry(anchor.iface).or_default();
        if anchor.seq >= tally.raw_seq {
            tally.raw = anchor.raw;
            tally.raw_seq = anchor.seq;
            if let Some(moment) = moment {
                tally.see(moment);
            }
            anchored.insert(anchor.iface);
        }
    }
}
