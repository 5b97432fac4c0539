//! The writer's transaction.
//!
//! One window of six hours is *open*: the one that the latest tick lies in. What passed in it since tick number `since` is in
//! the blocks of samples only; everything else is in all coarser levels too. When a tick comes that lies in another window,
//! the open one is closed: its samples are added to the rows of the coarser levels, in the same transaction. A piece
//! of a sample that lies outside the open window (a gap reaches back over days) is added there at once.
//! So at each commit every level is exact, and it does not matter which way the clock goes: a step back into a closed
//! window opens that one again, and a clock that was in the year 2033 for a while leaves one odd row behind, nothing more.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::block::{Bytes, Columns, Packed, put_leb, unzigzag, zigzag};
use super::fold::{self, CELL_S, Cell, DAY_S, HOUR_S, WINDOW_S, window_of};
use super::rows::{Cells, LAST_UNIX, Moment, Row, Samples, pack_cells, pack_samples, unpack_cells, unpack_samples};
use super::{Flush, Store};
use crate::clock::Zone;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Anchor, Batch, Counters, Event, IfaceId, Record, Sample};

/// Ticks that were shown to somebody but never saved have numbers too: after a restart none is given again.
const SEQ_MARGIN: u64 = 10_000;
/// A block spans no more than this, so that a reader knows how far back from its key one can begin...
pub(super) const BLOCK_S: i64 = 3_600;
/// ... and holds about so many samples at most, to be unpacked at once on a small machine.
const BLOCK_SAMPLES: usize = 8_192;
const EVENTS_KEPT: i64 = 1_000;
/// Pages that a flush may need beside those of its samples: rows of the coarser levels, their parents, the interfaces.
const SPARE_PAGES: i64 = 24;

/// How much is kept of each level, counted in rows and not in time: where a clock was ahead for a while, or the machine off
/// for a month, nothing real is thrown away for it.
const KEPT: [(&str, i64); 2] = [
    // 90 days.
    (
        "DELETE FROM five_minutes WHERE start <= (SELECT start FROM five_minutes ORDER BY start DESC LIMIT 1 OFFSET ?1)",
        360,
    ),
    // 5 years.
    ("DELETE FROM hour WHERE start <= (SELECT start FROM hour ORDER BY start DESC LIMIT 1 OFFSET ?1)", 1_827),
];
/// 7 days, beside the open window.
const WINDOWS_OF_SAMPLES: usize = 28;

/// A level whose rows have one length.
pub(super) struct Level {
    pub row_s: i64,
    pub cell_s: i64,
    pub range: &'static str,
    one: &'static str,
    put: &'static str,
}

pub(super) const FIVE_MINUTES: Level = Level {
    row_s: WINDOW_S,
    cell_s: CELL_S,
    range: "SELECT start, data FROM five_minutes WHERE start >= ?1 AND start < ?2 ORDER BY start",
    one: "SELECT data FROM five_minutes WHERE start = ?1",
    put: "INSERT OR REPLACE INTO five_minutes VALUES (?1, ?2)",
};

pub(super) const HOURS: Level = Level {
    row_s: DAY_S,
    cell_s: HOUR_S,
    range: "SELECT start, data FROM hour WHERE start >= ?1 AND start < ?2 ORDER BY start",
    one: "SELECT data FROM hour WHERE start = ?1",
    put: "INSERT OR REPLACE INTO hour VALUES (?1, ?2)",
};

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

    fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.raw.0.iter().chain(&self.lifetime.0).for_each(|value| put_leb(&mut out, *value));
        for value in [self.raw_seq, self.seq, self.mono_ms, zigzag(self.last_seen.unwrap_or(-1))] {
            put_leb(&mut out, value);
        }
        out
    }

    fn unpack(bytes: &[u8]) -> Result<Tally> {
        let mut bytes = Bytes(bytes);
        let mut values = [0; 20];
        for value in &mut values {
            *value = bytes.leb()?;
        }
        let counters = |from: usize| Counters(std::array::from_fn(|at| values[from + at]));
        Ok(Tally {
            raw: counters(0),
            lifetime: counters(8),
            raw_seq: values[16],
            seq: values[17],
            mono_ms: values[18],
            last_seen: Some(unzigzag(values[19])).filter(|unix| *unix >= 0),
        })
    }
}

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
    tallies: BTreeMap<IfaceId, Tally>,
    /// Those whose stored tally is older than the open window: they are written when it closes.
    changed: BTreeSet<IfaceId>,
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

    /// Adds to the tallies what the blocks of the open window hold beyond them. The blocks are in the order of time, and after
    /// a step of the clock that is not the order of the ticks.
    fn catch_up(&mut self, conn: &Connection) -> Result<()> {
        self.seq = self.since.saturating_sub(1);
        let stored = self.tallies.clone();
        let Some(window) = self.window else { return Ok(()) };
        each_block(conn, window, &mut |_, packed, samples| {
            if let Some(last) = samples.open(packed)?.iter().max_by_key(|moment| moment.seq)
                && (last.seq > self.seq || self.newest.is_none())
            {
                self.seq = last.seq.max(self.seq);
                self.newest = Some(last.unix);
            }
            samples.some(packed, None, &mut |moment, sample| {
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
            })
        })
    }

    /// Tallies as of the end of the flush. Gives the interfaces whose tally the blocks alone no longer tell.
    fn count(&mut self, rows: &[Row], anchors: &[Anchor]) -> BTreeSet<IfaceId> {
        let mut anchors: Vec<&Anchor> = anchors.iter().collect();
        anchors.sort_by_key(|anchor| anchor.seq);
        let mut anchors = anchors.into_iter().peekable();
        let mut anchored = BTreeSet::new();
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

    fn anchor(&mut self, anchor: &Anchor, moment: Option<&Moment>, anchored: &mut BTreeSet<IfaceId>) {
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

impl Store {
    pub(super) fn write(&mut self, flush: &Flush) -> Result<()> {
        if self.doubtful {
            // A COMMIT that failed may have happened all the same: the file knows.
            self.state = State::load(&self.conn)?;
            self.doubtful = false;
        }
        match self.transact(flush) {
            Ok(state) => {
                self.state = state;
                self.room = 1;
                Ok(())
            }
            Err(error) => {
                self.doubtful = true;
                if error.kind == ErrorKind::Full {
                    self.room = (self.room * 2).min(64);
                }
                Err(error)
            }
        }
    }

    fn transact(&mut self, flush: &Flush) -> Result<State> {
        let mut state = self.state.clone();
        let rows = placed(flush.batch, state.seq)?;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        make_room(&tx, &state, self.pages, SPARE_PAGES * self.room + flush.batch.samples.len() as i64 / 200)?;
        put_settings(&tx, flush.settings)?;
        put_events(&tx, flush.events)?;
        put_records(&tx, flush.records, &mut state)?;
        adopt(&tx, &rows, &mut state)?;
        if state.zone.as_deref() != Some(flush.zone.name()) {
            cut_again(&tx, &state, flush.zone)?;
            state.zone = Some(flush.zone.name().to_string());
            put_mark(&tx, "zone", flush.zone.name())?;
        }
        for run in rows.chunk_by(|one, next| {
            one.moment.unix <= next.moment.unix && window_of(one.moment.unix) == window_of(next.moment.unix)
        }) {
            put_run(&tx, run)?;
        }
        let mut outdated = state.count(&rows, flush.anchors);
        if advance(&tx, &rows, &mut state, flush.zone)? {
            outdated.append(&mut state.changed);
            prune(&tx, &state)?;
        }
        for iface in outdated {
            tx.prepare_cached("UPDATE interface SET tally = ?2 WHERE id = ?1")?
                .execute(params![iface, state.tally(iface).pack()])?;
            state.changed.remove(&iface);
        }
        tx.commit()?;
        Ok(state)
    }
}

/// The batch without what is on disk already, each tick's samples in the order of their interfaces and one for each.
fn placed(batch: &Batch, seq: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::with_capacity(batch.ticks.len());
    for (tick, samples) in batch.iter().filter(|(tick, _)| tick.seq > seq) {
        let Some(unix) = tick.unix else {
            return Err(Error::new(
                ErrorKind::System,
                format!("tick {} has no time yet: it cannot be saved", tick.seq),
            ));
        };
        let moment = Moment { seq: tick.seq, unix: unix.clamp(1, LAST_UNIX), mono_ms: tick.mono_ms };
        let mut samples = samples.to_vec();
        samples.sort_by_key(|sample| sample.iface);
        samples.dedup_by(|again, first| {
            let same = again.iface == first.iface;
            if same {
                first.delta.add(&again.delta);
                first.mark = if first.mark == again.mark { first.mark } else { crate::model::Mark::Gap };
                first.span_ms = first.span_ms.max(again.span_ms);
            }
            same
        });
        rows.push(Row { moment, samples });
    }
    Ok(rows)
}

fn put_settings(conn: &Connection, settings: &[(String, Option<String>)]) -> Result<()> {
    for (key, value) in settings {
        match value {
            Some(value) => conn.execute("INSERT OR REPLACE INTO setting VALUES (?1, ?2)", params![key, value])?,
            None => conn.execute("DELETE FROM setting WHERE key = ?1", [key])?,
        };
    }
    Ok(())
}

fn put_events(conn: &Connection, events: &[Event]) -> Result<()> {
    for event in events {
        conn.prepare_cached("INSERT INTO event (unix, kind, interface, detail) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![event.unix, event.kind.name(), event.interface, event.detail])?;
    }
    if !events.is_empty() {
        conn.execute("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?1", [EVENTS_KEPT])?;
    }
    Ok(())
}

fn put_records(conn: &Connection, records: &[Record], state: &mut State) -> Result<()> {
    for record in records {
        conn.prepare_cached(
            "INSERT INTO interface (id, name, kind, alias, ifindex, boot, first_seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, alias = excluded.alias,
             ifindex = excluded.ifindex, boot = excluded.boot, first_seen = excluded.first_seen",
        )?
        .execute(params![
            record.id,
            record.name,
            record.kind.name(),
            record.alias,
            record.ifindex,
            record.boot,
            record.first_seen
        ])?;
        state.tallies.entry(record.id).or_default();
    }
    Ok(())
}

/// Samples of an interface that nobody introduced: it gets a row, so that its tally has a place.
fn adopt(conn: &Connection, rows: &[Row], state: &mut State) -> Result<()> {
    for row in rows {
        for sample in row.samples.iter() {
            if state.tallies.contains_key(&sample.iface) {
                continue;
            }
            let name = format!("unknown-{}", sample.iface);
            log::warn!("samples of an unknown interface are kept as {name}");
            conn.execute(
                "INSERT OR IGNORE INTO interface (id, name, kind, alias, ifindex, boot, first_seen)
                 VALUES (?1, ?2, 'other', '', 0, '', ?3)",
                params![sample.iface, name, row.moment.unix],
            )?;
            state.tallies.insert(sample.iface, Tally::default());
        }
    }
    Ok(())
}

fn put_mark(conn: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<()> {
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![key, value])?;
    Ok(())
}

/// Stores ticks of one window that are in the order of time. Where they lie among ticks that are stored already (the clock was
/// set back), those blocks are made anew, so that blocks never overlap and readers can walk them in order.
fn put_run(conn: &Connection, run: &[Row]) -> Result<()> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
    let (from, to) = (first.moment.unix, last.moment.unix);
    let mut rows = run.to_vec();
    let mut met = Vec::new();
    {
        let mut statement =
            conn.prepare_cached("SELECT first, last, data FROM sample WHERE first <= ?1 ORDER BY first DESC")?;
        let mut blocks = statement.query([to])?;
        while let Some(block) = blocks.next()? {
            if block.get::<_, i64>(1)? < from {
                break;
            }
            met.push(block.get::<_, i64>(0)?);
            match unpack_samples(block.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?) {
                Ok(mut older) => rows.append(&mut older),
                Err(error) => log::error!("samples are lost: {error}"),
            }
        }
    }
    if !met.is_empty() {
        rows.sort_by_key(|row| (row.moment.unix, row.moment.seq));
    }
    for key in met {
        conn.prepare_cached("DELETE FROM sample WHERE first = ?1")?.execute([key])?;
    }
    let mut start = 0;
    let mut held = 0;
    for at in 0..rows.len() {
        held += rows[at].samples.len();
        let full = rows.get(at + 1).is_none_or(|next| {
            let next = next.moment.unix;
            // Ticks of the same second stay together: the second is the key.
            next > rows[at].moment.unix && (held >= BLOCK_SAMPLES || next - rows[start].moment.unix > BLOCK_S)
        });
        if full {
            put_block(conn, &rows[start..=at], held)?;
            (start, held) = (at + 1, 0);
        }
    }
    Ok(())
}

fn put_block(conn: &Connection, rows: &[Row], n: usize) -> Result<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let seq = rows.iter().map(|row| row.moment.seq).max().unwrap_or(0);
    conn.prepare_cached("INSERT INTO sample VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        first.moment.unix,
        last.moment.unix,
        seq as i64,
        n as i64,
        pack_samples(rows)
    ])?;
    Ok(())
}

/// Hands over the blocks of one window, in the order of time. A damaged one is passed over, loudly.
pub(super) fn each_block(
    conn: &Connection,
    window: i64,
    each: &mut dyn FnMut(i64, &Packed, &mut Samples) -> Result<()>,
) -> Result<()> {
    let mut samples = Samples::default();
    let mut statement =
        conn.prepare_cached("SELECT first, seq, data FROM sample WHERE first > ?1 AND first <= ?2 ORDER BY first")?;
    let mut blocks = statement.query([window, window + WINDOW_S])?;
    while let Some(block) = blocks.next()? {
        let bytes = block.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let seq = block.get(1)?;
        if let Err(error) = Packed::open(bytes).and_then(|packed| each(seq, &packed, &mut samples)) {
            log::error!("samples around {} are passed over: {error}", block.get::<_, i64>(0)?);
        }
    }
    Ok(())
}

/// Moves the open window to where the newest tick is, and adds to the coarser levels what lies outside it. Says whether
/// it has moved.
fn advance(conn: &Connection, rows: &[Row], state: &mut State, zone: &Zone) -> Result<bool> {
    let Some(last) = rows.last() else { return Ok(false) };
    let window = window_of(last.moment.unix);
    let stays = rows.iter().rev().take_while(|row| window_of(row.moment.unix) == window).count();
    let moved = stays < rows.len() || state.window != Some(window);
    // The samples of these rows go wherever they belong; of the others only what lies outside the window.
    let (gone, open) = rows.split_at(rows.len() - stays);
    let closed = state.window.filter(|_| moved);

    let mut touched: BTreeSet<i64> = closed.into_iter().collect();
    for (rows, skip) in [(gone, None), (open, Some(window))] {
        for row in rows {
            for sample in &row.samples {
                let (from, to) = fold::range(row.moment.unix, sample);
                let mut at = fold::floor(from, WINDOW_S);
                while at < to {
                    if Some(at) != skip {
                        touched.insert(at);
                    }
                    at += WINDOW_S;
                }
            }
        }
    }
    // One window at a time: a gap of months would not fit into a small machine's memory at once.
    for at in touched {
        let mut cells = Cells::new();
        let mut add = |unix: i64, sample: &Sample| {
            fold::pieces(unix, sample, at, at + WINDOW_S, &mut |start, cell| {
                cells.entry((sample.iface, ((start - at) / CELL_S) as u16)).or_default().add(cell);
            });
        };
        if closed == Some(at) {
            let (since, before) = (state.since, rows[0].moment.seq);
            each_block(conn, at, &mut |_, packed, samples| {
                samples.open(packed)?;
                samples.some(packed, None, &mut |moment, sample| {
                    if moment.seq >= since && moment.seq < before {
                        add(moment.unix, sample);
                    }
                })
            })?;
        }
        let open = if at == window { &[] } else { open };
        for row in gone.iter().chain(open) {
            row.samples.iter().for_each(|sample| add(row.moment.unix, sample));
        }
        put_window(conn, at, &cells, zone)?;
    }
    if moved {
        state.window = Some(window);
        state.since = open.first().map_or(last.moment.seq, |row| row.moment.seq);
        put_mark(conn, "window", window)?;
        put_mark(conn, "since", state.since as i64)?;
    }
    Ok(moved)
}

/// Adds five-minute cells of one window to every coarser level.
fn put_window(conn: &Connection, window: i64, cells: &Cells, zone: &Zone) -> Result<()> {
    if cells.is_empty() {
        return Ok(());
    }
    add_to(conn, &FIVE_MINUTES, window, cells)?;
    let day = fold::floor(window, DAY_S);
    let mut hours = Cells::new();
    for ((iface, at), cell) in cells {
        let hour = (window - day + i64::from(*at) * CELL_S) / HOUR_S;
        hours.entry((*iface, hour as u16)).or_default().add(cell);
    }
    add_to(conn, &HOURS, day, &hours)?;
    add_days(conn, zone, cells.iter().map(|((iface, at), cell)| (*iface, window + i64::from(*at) * CELL_S, cell)))
}

fn add_to(conn: &Connection, level: &Level, start: i64, more: &Cells) -> Result<()> {
    let mut cells = more.clone();
    if let Some(bytes) = conn.prepare_cached(level.one)?.query_row([start], |row| row.get(0)).optional()? {
        add_stored(&mut cells, bytes, level.cell_s);
    }
    let packed = pack_cells(&cells, (level.row_s / level.cell_s) as usize, level.cell_s);
    conn.prepare_cached(level.put)?.execute(params![start, packed])?;
    Ok(())
}

/// What of a stored row can be read is added.
fn add_stored(cells: &mut Cells, bytes: Vec<u8>, cell_s: i64) {
    let mut columns = Columns::default();
    let read = unpack_cells(&bytes, cell_s, None, &mut columns, &mut |iface, at, cell| {
        cells.entry((iface, at)).or_default().add(cell);
    });
    if let Err(error) = read {
        log::error!("history is lost: {error}");
    }
}

/// Adds five-minute cells to the rows of their local days.
fn add_days<'a>(
    conn: &Connection,
    zone: &Zone,
    cells: impl Iterator<Item = (IfaceId, i64, &'a Cell)> + Clone,
) -> Result<()> {
    let starts = cells.clone().map(|(_, start, _)| start);
    let (Some(from), Some(to)) = (starts.clone().min(), starts.max()) else { return Ok(()) };
    let mut days = Days::load(conn, from, to)?;
    let mut sums: BTreeMap<(i64, i64), Cells> = BTreeMap::new();
    for (iface, start, cell) in cells {
        let day = days.of(start, zone);
        sums.entry(day).or_default().entry((iface, 0)).or_default().add(cell);
    }
    for ((start, until), mut cells) in sums {
        let stored = conn.prepare_cached("SELECT data FROM day WHERE start = ?1")?.query_row([start], |row| row.get(0));
        if let Some(bytes) = stored.optional()? {
            add_stored(&mut cells, bytes, until - start);
        }
        conn.prepare_cached("INSERT OR REPLACE INTO day VALUES (?1, ?2, ?3)")?.execute(params![
            start,
            until,
            pack_cells(&cells, 1, until - start)
        ])?;
    }
    Ok(())
}

/// The local days around some time: those that have a row keep the borders they were cut with, and the others are cut in the
/// zone, within what those leave.
pub(super) struct Days {
    rows: Vec<(i64, i64)>,
    latest: usize,
}

impl Days {
    /// Far enough around for the neighbours, whatever the zone.
    pub const AROUND_S: i64 = 3 * DAY_S;

    pub fn new(rows: Vec<(i64, i64)>) -> Days {
        Days { rows, latest: 0 }
    }

    fn load(conn: &Connection, from: i64, to: i64) -> Result<Days> {
        let mut statement =
            conn.prepare_cached("SELECT start, until FROM day WHERE start > ?1 AND start < ?2 ORDER BY start")?;
        let rows = statement
            .query_map([from - Days::AROUND_S, to + Days::AROUND_S], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Days::new(rows))
    }

    pub fn of(&mut self, unix: i64, zone: &Zone) -> (i64, i64) {
        if let Some(&(start, until)) = self.rows.get(self.latest)
            && start <= unix
            && unix < until
        {
            return (start, until);
        }
        let next = self.rows.partition_point(|(start, _)| *start <= unix);
        self.latest = next;
        let mut day = zone.day(unix);
        if let Some(before) = next.checked_sub(1) {
            if unix < self.rows[before].1 {
                self.latest = before;
                return self.rows[before];
            }
            day.0 = day.0.max(self.rows[before].1);
        }
        if let Some((start, _)) = self.rows.get(next) {
            day.1 = day.1.min(*start);
        }
        // Whatever a zone says, a moment lies in its own day.
        let day = (day.0.min(unix), day.1.max(unix + 1));
        self.rows.insert(next, day);
        day
    }
}

/// The zone has changed: the day that is not over yet is cut anew, from its five-minute cells. Closed days stay.
fn cut_again(conn: &Connection, state: &State, zone: &Zone) -> Result<()> {
    let Some((start, until, mut stored)) = open_day(conn, state.newest)? else { return Ok(()) };
    let mut cells = BTreeMap::new();
    each_cell(conn, None, start, until, &mut |iface, at, cell| {
        cells.insert((iface, at), *cell);
    })?;
    for ((iface, _), cell) in &cells {
        let left = stored.entry((*iface, 0)).or_default();
        for (left, part) in left.sum.0.iter_mut().zip(cell.sum.0) {
            *left = left.wrapping_sub(part);
        }
    }
    if !stored.values().all(|cell| cell.sum.is_zero()) {
        // The cells are gone already (a very small --max-size): the day keeps its borders.
        return Ok(());
    }
    conn.execute("DELETE FROM day WHERE start = ?1", [start])?;
    add_days(conn, zone, cells.iter().map(|((iface, at), cell)| (*iface, *at, cell)))
}

/// The row of the day that the newest tick lies in.
pub(super) fn open_day(conn: &Connection, newest: Option<i64>) -> Result<Option<(i64, i64, Cells)>> {
    let Some(newest) = newest else { return Ok(None) };
    let row = conn
        .prepare_cached("SELECT start, until, data FROM day WHERE start < ?1 ORDER BY start DESC LIMIT 1")?
        .query_row([newest], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(row.filter(|(_, until, _)| newest < *until).map(|(start, until, bytes)| {
        let mut cells = Cells::new();
        add_stored(&mut cells, bytes, until - start);
        (start, until, cells)
    }))
}

/// The stored five-minute cells that start in `[from, to)`.
pub(super) fn each_cell(
    conn: &Connection,
    iface: Option<IfaceId>,
    from: i64,
    to: i64,
    each: &mut dyn FnMut(IfaceId, i64, &Cell),
) -> Result<()> {
    let level = &FIVE_MINUTES;
    let mut columns = Columns::default();
    let mut statement = conn.prepare_cached(level.range)?;
    let mut rows = statement.query([fold::floor(from, level.row_s), to])?;
    while let Some(row) = rows.next()? {
        let start: i64 = row.get(0)?;
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let read = unpack_cells(bytes, level.cell_s, iface, &mut columns, &mut |iface, at, cell| {
            let at = start + i64::from(at) * level.cell_s;
            if at >= from && at < to {
                each(iface, at, cell);
            }
        });
        if let Err(error) = read {
            log::error!("history around {start} is passed over: {error}");
        }
    }
    Ok(())
}

/// Throws away what is older than each level is kept. Runs when a window closes: each step writes a few pages.
fn prune(conn: &Connection, state: &State) -> Result<()> {
    for (sql, rows) in KEPT {
        conn.execute(sql, [rows])?;
    }
    let mut edge = i64::MAX;
    for _ in 0..=WINDOWS_OF_SAMPLES {
        match newest_before(conn, edge)? {
            Some(first) => edge = window_of(first),
            None => return Ok(()),
        }
    }
    // The open window's samples are nowhere else.
    let edge = edge.min(state.window.unwrap_or(edge));
    conn.execute("DELETE FROM sample WHERE first <= ?1", [edge])?;
    Ok(())
}

fn newest_before(conn: &Connection, edge: i64) -> Result<Option<i64>> {
    Ok(conn.prepare_cached("SELECT max(first) FROM sample WHERE first <= ?1")?.query_row([edge], |row| row.get(0))?)
}

/// Frees pages for a flush when the file is near its largest size: samples first, then five-minute cells. Pages are used again;
/// the file does not shrink.
fn make_room(conn: &Connection, state: &State, pages: u64, needed: i64) -> Result<()> {
    const OLDEST: [&str; 2] = [
        "DELETE FROM sample WHERE first <= ?1 AND first <= (SELECT min(first) FROM sample) + ?2",
        "DELETE FROM five_minutes WHERE start < ?1 AND start <= (SELECT min(start) FROM five_minutes) + ?2",
    ];
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let free = || -> Result<i64> { Ok(pages as i64 - pragma("page_count")? + pragma("freelist_count")?) };
    if free()? >= needed {
        return Ok(());
    }
    let Some(window) = state.window else { return Ok(()) };
    for sql in OLDEST {
        loop {
            // Some more than needed, so that not every flush has to do it.
            if free()? >= needed + SPARE_PAGES {
                return Ok(());
            }
            if conn.execute(sql, [window, WINDOW_S - 1])? == 0 {
                break;
            }
        }
    }
    log::warn!("the database is at its largest size and holds nothing more that can be thrown away");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Bucket, EventKind, Mark, Resolution, Tick};
    use crate::store::testing::{OPTIONS, Place, Random, T, record};
    use crate::store::{Filter, Opened, Options, Point, Reader};

    const ALL: (i64, i64) = (0, i64::MAX);
    const ZONES: [&str; 4] =
        ["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "<+0530>-5:30", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"];

    fn sums(buckets: &[Bucket]) -> [u128; 8] {
        let mut sums = [0; 8];
        for bucket in buckets {
            sums.iter_mut().zip(bucket.sum.0).for_each(|(sum, value)| *sum += u128::from(value));
        }
        sums
    }

    /// Everything that was ever flushed, kept the simple way.
    #[derive(Default)]
    struct Model {
        points: Vec<Point>,
        cells: BTreeMap<(IfaceId, i64), Cell>,
        tallies: BTreeMap<IfaceId, Tally>,
        zone_changed: bool,
    }

    impl Model {
        /// Cuts a sample second by second.
        fn push(&mut self, point: Point) {
            self.points.push(point);
            let length = fold::seconds(point.sample.span_ms).max(1);
            let looked = point.sample.span_ms > 0;
            let plain = point.sample.mark == Mark::Plain;
            let mut given = [0; 8];
            for passed in 1..=length {
                let second = point.unix - length + passed - 1;
                let cell = self.cells.entry((point.sample.iface, second - second % 300)).or_default();
                *if plain { &mut cell.covered } else { &mut cell.blind } += u32::from(looked);
                if passed < length && (second + 1) % 300 != 0 {
                    continue;
                }
                for (at, given) in given.iter_mut().enumerate() {
                    let due = (u128::from(point.sample.delta.0[at]) * passed as u128 / length as u128) as u64;
                    cell.sum.0[at] += due - *given;
                    *given = due;
                }
                if plain && looked {
                    let rate = |at: usize| {
                        (u128::from(point.sample.delta.0[at]) * 1000 / u128::from(point.sample.span_ms)) as u64
                    };
                    cell.rx_peak = cell.rx_peak.max(rate(0));
                    cell.tx_peak = cell.tx_peak.max(rate(1));
                }
            }
        }

        /// Five-minute cells of one interface.
        fn cells(&self, iface: IfaceId) -> BTreeMap<i64, Cell> {
            self.cells.range((iface, 0)..(iface + 1, 0)).map(|((_, at), cell)| (*at, *cell)).collect()
        }

        fn check(&self, reader: &Reader, zone: &Zone, ifaces: u32, unsaved: &[Arc<Batch>]) {
            let mut points = self.points.clone();
            points.sort_by_key(|point| (point.unix, point.seq, point.sample.iface));
            let all = Filter::default();
            let mut walked = Vec::new();
            let mut cursor = None;
            loop {
                let (mut some, next) = reader.oldest(&all, cursor, 700, unsaved).unwrap();
                walked.append(&mut some);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(walked, points);
            points.reverse();
            assert_eq!(reader.newest(&all, 0, usize::MAX, unsaved).unwrap(), points);
            for iface in 0..ifaces {
                let filter = Filter { iface: Some(iface), ..all };
                points.retain(|point| point.sample.iface >= iface);
                let ones = points.iter().filter(|point| point.sample.iface == iface).copied();
                let ones: Vec<Point> = ones.skip(77).take(99).collect();
                assert_eq!(reader.newest(&filter, 77, 99, unsaved).unwrap(), ones);

                let mut cells = self.cells(iface);
                for (level, length) in [(Resolution::FiveMinutes, 300), (Resolution::Hour, 3600)] {
                    let mut coarser: BTreeMap<i64, Cell> = BTreeMap::new();
                    cells.iter().for_each(|(at, cell)| coarser.entry(at - at % length).or_default().add(cell));
                    cells = coarser;
                    let expect: Vec<Bucket> = cells.iter().map(|(at, cell)| cell.bucket(*at, at + length)).collect();
                    let got = reader.buckets(level, iface, ALL.0, ALL.1, zone, unsaved).unwrap();
                    assert_eq!(got, expect, "{level:?} of {iface}");
                }
                let days = reader.buckets(Resolution::Day, iface, ALL.0, ALL.1, zone, unsaved).unwrap();
                assert!(days.is_sorted_by(|one, next| one.from < one.to && one.to <= next.from), "{days:?}");
                if self.zone_changed {
                    let hours = reader.buckets(Resolution::Hour, iface, ALL.0, ALL.1, zone, unsaved).unwrap();
                    assert_eq!(sums(&days), sums(&hours));
                } else {
                    let mut expect: BTreeMap<(i64, i64), Cell> = BTreeMap::new();
                    for (at, cell) in self.cells(iface) {
                        expect.entry(zone.day(at)).or_default().add(&cell);
                    }
                    let expect: Vec<Bucket> = expect.iter().map(|(day, cell)| cell.bucket(day.0, day.1)).collect();
                    assert_eq!(days, expect, "days of {iface}");
                }
                let samples = reader.buckets(Resolution::Sample, iface, ALL.0, ALL.1, zone, unsaved).unwrap();
                assert_eq!(sums(&samples), sums(&days));
            }
        }

        fn check_records(&self, opened: &Opened) {
            for record in &opened.records {
                let tally = self.tallies[&record.id];
                assert_eq!((record.raw, record.lifetime), (tally.raw, tally.lifetime), "{}", record.name);
                assert_eq!((record.mono_ms, Some(record.last_seen)), (tally.mono_ms, tally.last_seen));
            }
            if let Some(newest) = self.points.iter().max_by_key(|point| point.seq) {
                assert!(opened.next_seq > newest.seq + SEQ_MARGIN);
            }
        }
    }

    /// Random histories: clocks that step to and fro, gaps, resets, interfaces that come and go, restarts, changes of zone. After each few
    /// flushes every level must be what the simple model says, with what is still in memory and without.
    #[test]
    fn every_level_is_exact_at_every_commit() {
        for round in 0..16 {
            history(&mut Random(0x9e37_79b9_7f4a_7c15 ^ (round * 77 + 1)), round);
        }
    }

    fn history(random: &mut Random, round: u64) {
        // Around the ends of summer time in Europe and at Lord Howe Island, and an ordinary day.
        let start = [1_774_746_000, 1_792_890_000, 1_775_314_800, T][round as usize % 4];
        let mut zone = Zone::parse(ZONES[round as usize / 4 % 4]).unwrap();
        let ifaces = 1 + random.below(5) as u32;
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let mut reader = opened.store.reader().unwrap();
        let mut model = Model::default();
        let (mut seq, mut mono_ms, mut offset) = (1, random.below(1 << 40), start);
        let began = mono_ms;
        let mut raws = vec![Counters::ZERO; ifaces as usize];
        let mut seen = vec![mono_ms; ifaces as usize];
        let interval = [1, 30, 30, 300][random.below(4) as usize];
        let mut windows = BTreeSet::new();
        for flush in 0..60 {
            let mut batch = Batch::default();
            let mut anchors = Vec::new();
            if random.below(12) == 0 {
                let far = [60, 4_000, 30_000, 100_000][random.below(4) as usize];
                offset += random.below(2 * far) as i64 - far as i64;
            }
            for _ in 0..random.below(25) {
                mono_ms += match random.below(40) {
                    0 => random.below(40_000_000),
                    1 => random.below(900),
                    _ => interval * 1000 + random.below(5),
                };
                let unix = offset + ((mono_ms - began) / 1000) as i64;
                windows.insert(window_of(unix));
                for iface in 0..ifaces {
                    if random.below(20) == 0 {
                        continue;
                    }
                    let at = iface as usize;
                    let kind = random.below(30);
                    let delta =
                        Counters(std::array::from_fn(|_| if random.below(3) == 0 { random.small() } else { 0 }));
                    let mark = [Mark::Reset, Mark::Gap, Mark::Plain][kind.min(2) as usize];
                    let span_ms = if kind == 3 { random.below(3_000_000) } else { mono_ms - seen[at] };
                    seen[at] = mono_ms;
                    let sample = Sample { iface, mark, span_ms, delta };
                    batch.samples.push(sample);
                    model.push(Point { seq, unix, sample });
                    let tally = model.tallies.entry(iface).or_default();
                    tally.lifetime.add(&delta);
                    (tally.mono_ms, tally.last_seen) = (mono_ms, Some(unix));
                    for (raw, delta) in raws[at].0.iter_mut().zip(delta.0) {
                        *raw = raw.wrapping_add(delta);
                    }
                    if mark == Mark::Reset {
                        raws[at] = Counters(std::array::from_fn(|_| random.small()));
                        anchors.push(Anchor { seq, iface, raw: raws[at] });
                    }
                    tally.raw = raws[at];
                }
                batch.ticks.push(Tick { seq, mono_ms, unix: Some(unix), end: batch.samples.len() });
                seq += 1;
            }
            if windows.len() > WINDOWS_OF_SAMPLES {
                return;
            }
            if random.below(25) == 0 {
                zone = Zone::parse(ZONES[random.below(4) as usize]).unwrap();
                model.zone_changed = true;
            }
            let records: Vec<Record> = (0..ifaces).map(record).collect();
            let unsaved = [Arc::new(batch), Arc::default()];
            let check = flush % 7 == 6;
            if check {
                model.check(&reader, &zone, ifaces, &unsaved);
            }
            let records = if flush == 0 { &records[..] } else { &[] };
            let flush =
                Flush { batch: &unsaved[0], anchors: &anchors, records, events: &[], settings: &[], zone: &zone };
            opened.store.flush(&flush).unwrap();
            if random.below(10) == 0 {
                // Its outcome was unclear: once more.
                opened.store.doubtful = true;
                opened.store.flush(&flush).unwrap();
            }
            if check {
                model.check(&reader, &zone, ifaces, &[]);
                model.check(&reader, &zone, ifaces, &unsaved);
            }
            if random.below(6) == 0 {
                drop((opened, reader));
                opened = Store::open(&place.file(), &OPTIONS).unwrap();
                assert!(opened.events.is_empty());
                reader = opened.store.reader().unwrap();
                model.check_records(&opened);
                if opened.newest.is_some() {
                    seq = opened.next_seq;
                }
            }
        }
    }
}
