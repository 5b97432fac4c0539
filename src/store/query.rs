//! The readers' side. Every query is one short read transaction, so that a slow client never keeps the write-ahead
//! log from being taken in, and each merges what is stored with what is in memory: a tick is on disk with all that
//! went before it, or not at all, so that the newest number on disk parts the two.

use crate::sorted::{Map, Set};
use std::ops::Range;

use rusqlite::{Connection, OptionalExtension};

use super::block::{Columns, Packed};
use super::fold::{self, CELL_S, Cell, WINDOW_S};
use super::levels::{Days, FIVE_MINUTES, HOURS, Level, each_cell, open_day};
use super::rows::{LAST_UNIX, Moment, Samples, count_samples, unpack_cells};
use super::samples::{BLOCK_S, each_block};
use super::state::State;
use super::{Cursor, EventFilter, Facts, Filter, Point, Reader, Unsaved};
use crate::clock::Zone;
use crate::error::Result;
use crate::model::{Bucket, Counters, Event, EventKind, IfaceId, Resolution, Sample};

/// Seconds beyond the end of a range in which a sample is still looked for that began inside it: the longest interval.
const LOOK_AHEAD_S: i64 = 3_600;
/// About so many points of a block are unpacked at once: whole blocks of a busy machine are a megabyte of them.
const STRETCH: usize = 1_024;

impl Filter {
    fn from(&self) -> i64 {
        self.from.unwrap_or(0)
    }

    fn to(&self) -> i64 {
        self.to.unwrap_or(i64::MAX)
    }

    pub(super) fn takes(&self, point: &Point) -> bool {
        let wanted = self.iface.is_none_or(|iface| iface == point.sample.iface);
        wanted && point.unix >= self.from() && point.unix < self.to()
    }
}

impl Point {
    fn order(&self) -> (i64, u64, IfaceId) {
        (self.unix, self.seq, self.sample.iface)
    }
}

/// `first` of blocks that may reach up to `unix` or beyond.
fn key_reaching(unix: i64) -> i64 {
    unix.saturating_sub(BLOCK_S)
}

impl Reader {
    pub(super) fn newest_points(
        &self,
        filter: &Filter,
        offset: u64,
        limit: usize,
        unsaved: &Unsaved,
    ) -> Result<Vec<Point>> {
        let tx = self.conn.unchecked_transaction()?;
        let mut pending = pending(&tx, filter, unsaved)?;
        let mut taken = Taken { skip: offset, limit, points: Vec::new() };
        let mut samples = Samples::default();
        let mut points = Vec::new();
        let mut statement = tx.prepare_cached(
            "SELECT first, last, n, data FROM sample WHERE first >= ?1 AND first < ?2 ORDER BY first DESC",
        )?;
        let mut blocks = statement.query([key_reaching(filter.from()), filter.to()])?;
        while let Some(block) = blocks.next()? {
            let (first, last, n): (i64, i64, u32) = (block.get(0)?, block.get(1)?, block.get(2)?);
            let newer = pending.partition_point(|pending| pending.unix <= last);
            taken.take(pending.drain(newer..).map(Pending::point));
            if taken.points.len() >= limit {
                return Ok(taken.points);
            }
            let alone = pending.last().is_none_or(|pending| pending.unix < first)
                && first >= filter.from()
                && last < filter.to();
            if alone && filter.iface.is_none() && u64::from(n) <= taken.skip {
                taken.skip -= u64::from(n);
                continue;
            }
            let bytes = block.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
            let mut read = || -> Result<()> {
                let packed = Packed::open(bytes)?;
                if alone && taken.skip > 0 {
                    let count = count_samples(&packed, filter.iface)? as u64;
                    if count <= taken.skip {
                        taken.skip -= count;
                        return Ok(());
                    }
                }
                let moments = samples.open(&packed)?;
                let least = moments.partition_point(|moment| moment.unix < filter.from());
                let mut end = moments.partition_point(|moment| moment.unix < filter.to());
                while end > least && taken.points.len() < limit {
                    let start = stretch_before(samples.moments(), end, &packed, filter);
                    unpack(&mut samples, &packed, start..end, filter, &mut points)?;
                    let among = pending.partition_point(|pending| pending.unix < samples.moments()[start].unix);
                    points.extend(pending.drain(among..).map(Pending::point));
                    points.sort_unstable_by_key(Point::order);
                    taken.take(points.drain(..));
                    end = start;
                }
                Ok(())
            };
            if let Err(error) = read() {
                points.clear();
                log::error!("samples around {first} are passed over: {error}");
            }
        }
        taken.take(pending.drain(..).map(Pending::point));
        Ok(taken.points)
    }

    pub(super) fn oldest_points(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
        unsaved: &Unsaved,
    ) -> Result<(Vec<Point>, Option<Cursor>)> {
        let tx = self.conn.unchecked_transaction()?;
        let mut pending = pending(&tx, filter, unsaved)?;
        let mut samples = Samples::default();
        let mut points = Vec::new();
        let mut walk = Walk { after, limit, points: Vec::new(), next: None };
        let from = after.map_or(filter.from(), |after| after.unix.max(filter.from()));
        let mut statement = tx.prepare_cached(
            "SELECT first, last, data FROM sample WHERE first >= ?1 AND first < ?2 AND last >= ?3 ORDER BY first",
        )?;
        let mut blocks = statement.query([key_reaching(from), filter.to(), from])?;
        while let Some(block) = blocks.next()? {
            let first: i64 = block.get(0)?;
            let bytes = block.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let mut read = || -> Result<()> {
                let packed = Packed::open(bytes)?;
                let moments = samples.open(&packed)?;
                let mut start = moments.partition_point(|moment| moment.unix < from);
                let most = moments.partition_point(|moment| moment.unix < filter.to());
                while start < most && walk.next.is_none() {
                    let end = stretch_from(samples.moments(), start, &packed, filter);
                    unpack(&mut samples, &packed, start..end, filter, &mut points)?;
                    let among = pending.partition_point(|pending| pending.unix <= samples.moments()[end - 1].unix);
                    points.extend(pending.drain(..among).map(Pending::point));
                    points.sort_unstable_by_key(Point::order);
                    walk.take(points.drain(..));
                    start = end;
                }
                Ok(())
            };
            if let Err(error) = read() {
                points.clear();
                log::error!("samples around {first} are passed over: {error}");
            }
            if walk.next.is_some() {
                return Ok((walk.points, walk.next));
            }
        }
        walk.take(pending.drain(..).map(Pending::point));
        Ok((walk.points, walk.next))
    }

    pub(super) fn level(
        &self,
        asked: Resolution,
        iface: IfaceId,
        range: (i64, i64),
        zone: &Zone,
        unsaved: &Unsaved,
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        let tx = self.conn.unchecked_transaction()?;
        level(Some(&tx), asked, iface, range, zone, unsaved, each)
    }

    pub(super) fn following(&self, asked: Resolution, from: i64, unsaved: &Unsaved) -> Result<Option<i64>> {
        let tx = self.conn.unchecked_transaction()?;
        following(Some(&tx), asked, from, unsaved)
    }

    pub(super) fn day_of_all(&self, unix: i64, zone: &Zone, unsaved: &Unsaved) -> Result<Map<IfaceId, Counters>> {
        let tx = self.conn.unchecked_transaction()?;
        day_of_all(Some(&tx), unix, zone, unsaved)
    }

    /// There are a thousand at the most: they are looked at one by one.
    pub(super) fn newest_events(
        &self,
        filter: &EventFilter,
        in_memory: &[Event],
        limit: usize,
        offset: u64,
    ) -> Result<Vec<Event>> {
        let mut statement =
            self.conn.prepare_cached("SELECT unix, kind, interface, detail FROM event ORDER BY id DESC")?;
        let mut rows = statement.query([])?;
        let (mut events, mut skip) = (Vec::new(), offset);
        let mut in_memory: Vec<&Event> = in_memory.iter().collect();
        while events.len() < limit {
            let Some(row) = rows.next()? else { break };
            let name: String = row.get(1)?;
            let kind = EventKind::NAMES.iter().find(|(_, known)| *known == name);
            let event = Event {
                unix: row.get(0)?,
                mono_ms: 0,
                kind: kind.map_or(EventKind::Storage, |(kind, _)| *kind),
                interface: row.get(2)?,
                detail: row.get(3)?,
            };
            if !filter.takes(&event) {
                continue;
            }
            // Each hides one only: the same may happen twice within a second.
            if let Some(at) = in_memory.iter().position(|known| same(known, &event)) {
                in_memory.swap_remove(at);
                continue;
            }
            match skip {
                0 => events.push(event),
                _ => skip -= 1,
            }
        }
        Ok(events)
    }

    pub(super) fn beginning(&self, asked: Resolution) -> Result<Option<i64>> {
        let tx = self.conn.unchecked_transaction()?;
        if asked == Resolution::Day {
            if let Some(start) = tx.query_row("SELECT min(start) FROM day", [], |row| row.get(0))? {
                return Ok(Some(start));
            }
        }
        for (resolution, level, sql) in [
            (Resolution::FiveMinutes, &FIVE_MINUTES, "SELECT start, data FROM five_minutes ORDER BY start LIMIT 1"),
            (Resolution::Hour, &HOURS, "SELECT start, data FROM hour ORDER BY start LIMIT 1"),
        ] {
            if resolution != asked {
                continue;
            }
            let row = tx.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).optional()?;
            if let Some((start, bytes)) = row {
                let mut first = (level.row_s / level.cell_s) as u16;
                unpack_cells(&bytes, level.cell_s, None, &mut Columns::default(), &mut |_, at, _| {
                    first = first.min(at)
                })?;
                return Ok(Some(start + i64::from(first) * level.cell_s));
            }
        }
        let first: Option<i64> = tx.query_row("SELECT min(first) FROM sample", [], |row| row.get(0))?;
        let Some(first) = first else { return Ok(None) };
        let bytes: Vec<u8> = tx.query_row("SELECT data FROM sample WHERE first = ?1", [first], |row| row.get(0))?;
        let packed = Packed::open(&bytes)?;
        let mut samples = Samples::default();
        samples.open(&packed)?;
        let closed: bool = tx.query_row("SELECT EXISTS (SELECT 1 FROM five_minutes)", [], |row| row.get(0))?;
        if asked == Resolution::Sample && closed {
            // Older ones may have been thrown away: that one interface's sample goes far back says nothing of the others.
            let mut begin = None;
            samples.some(&packed, None, 0..1, &mut |moment, sample| {
                begin = begin.max(Some(fold::range(moment.unix, sample).0));
            })?;
            return Ok(Some(begin.unwrap_or(first).max(first - LOOK_AHEAD_S)));
        }
        // Nothing but the open window yet: its first sample began before its tick.
        let mut begin = first;
        samples.some(&packed, None, 0..packed.rows, &mut |moment, sample| {
            begin = begin.min(fold::range(moment.unix, sample).0);
        })?;
        Ok(Some(match asked {
            Resolution::FiveMinutes => fold::floor(begin, CELL_S),
            Resolution::Hour => fold::floor(begin, HOURS.cell_s),
            _ => begin,
        }))
    }

    pub(super) fn count_facts(&self) -> Result<Facts> {
        let tx = self.conn.unchecked_transaction()?;
        let one = |sql: &str| -> Result<u64> { Ok(tx.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64) };
        Ok(Facts {
            samples: one("SELECT coalesce(sum(n), 0) FROM sample")?,
            settings: one("SELECT count(*) FROM setting")?,
            size_bytes: one("PRAGMA page_count")? * one("PRAGMA page_size")?,
        })
    }
}

// What follows tells of buckets, with a transaction or of memory alone. It is the same code for both, so that a history
// that is not on disk yet is told as it will be later.

/// The file does not know the monotonic clock; and what had no time in memory yet has been given one there.
fn same(in_memory: &Event, stored: &Event) -> bool {
    let when = in_memory.unix.is_none() || in_memory.unix == stored.unix;
    when && in_memory.kind == stored.kind
        && in_memory.interface == stored.interface
        && in_memory.detail == stored.detail
}

fn marks(conn: Option<&Connection>) -> Result<State> {
    conn.map_or_else(|| Ok(State::default()), State::marks)
}

pub(super) fn level(
    conn: Option<&Connection>,
    level: Resolution,
    iface: IfaceId,
    (from, to): (i64, i64),
    zone: &Zone,
    unsaved: &Unsaved,
    each: &mut dyn FnMut(&Bucket),
) -> Result<()> {
    // Far enough from the ends of i64 for everything that is added below.
    let (from, to) = (from.max(0), to.min(i64::MAX / 4));
    if from >= to {
        return Ok(());
    }
    match level {
        Resolution::Sample => each_sample(conn, iface, from, to, unsaved, each),
        Resolution::FiveMinutes => each_of_rows(conn, &FIVE_MINUTES, iface, from, to, unsaved, each),
        Resolution::Hour => each_of_rows(conn, &HOURS, iface, from, to, unsaved, each),
        Resolution::Day => each_day(conn, iface, from, to, zone, unsaved, each),
    }
}

/// Not after the first bucket of a level that ends behind `from`, and not long before it.
pub(super) fn following(
    conn: Option<&Connection>,
    asked: Resolution,
    from: i64,
    unsaved: &Unsaved,
) -> Result<Option<i64>> {
    let mut first = None;
    let mut find = |start: i64| first = Some(first.map_or(start, |first: i64| first.min(start)));
    if let Some(conn) = conn {
        let (sql, edge) = match asked {
            Resolution::Hour => ("SELECT min(start) FROM hour WHERE start > ?1", from - HOURS.row_s),
            Resolution::Day => ("SELECT min(start) FROM day WHERE until > ?1", from),
            _ => ("SELECT min(start) FROM five_minutes WHERE start > ?1", from - FIVE_MINUTES.row_s),
        };
        let stored: Option<i64> = conn.query_row(sql, [edge], |row| row.get(0))?;
        stored.into_iter().for_each(&mut find);
    }
    // What its samples have put before it is in rows already.
    marks(conn)?.window.into_iter().filter(|window| window + WINDOW_S > from).for_each(&mut find);
    each_unsaved(unsaved, 0, &mut |_, unix, sample| {
        let (start, end) = fold::range(unix, sample);
        if end > from {
            find(start);
        }
    });
    // Local days begin before what they hold.
    Ok(first.map(|first| first - Days::AROUND_S))
}

/// All interfaces in one walk: each by itself would unpack the open window as many times.
pub(super) fn day_of_all(
    conn: Option<&Connection>,
    unix: i64,
    zone: &Zone,
    unsaved: &Unsaved,
) -> Result<Map<IfaceId, Counters>> {
    let marks = marks(conn)?;
    let mut days = Days::load(conn, unix, unix)?;
    // As in `each_day`: the zone was changed a moment ago.
    let mut again = None;
    if let Some(conn) = conn.filter(|_| marks.zone.as_deref() != Some(zone.name())) {
        if let Some((start, until, _)) = open_day(conn, newest_time(conn, &marks)?)? {
            days.forget(start);
            again = Some((start, until));
        }
    }
    let (start, until) = days.of(unix, zone);
    let mut sums: Map<IfaceId, Counters> = Map::new();
    let mut add = |iface: IfaceId, at: i64, cell: &Cell| {
        if at >= start && at < until {
            sums.entry(iface).or_default().add(&cell.sum);
        }
    };
    let range = (fold::floor(start, CELL_S), fold::floor(until + CELL_S - 1, CELL_S));
    if let Some(conn) = conn {
        let row: Option<Vec<u8>> = conn
            .prepare_cached("SELECT data FROM day WHERE start = ?1 AND until = ?2")?
            .query_row([start, until], |row| row.get(0))
            .optional()?;
        if let Some((from, to)) = again {
            each_cell(conn, None, from, to, &mut add)?;
        }
        if let Some(bytes) = row.filter(|_| again != Some((start, until))) {
            unpack_cells(&bytes, until - start, None, &mut Columns::default(), &mut |iface, _, cell| {
                add(iface, start, cell)
            })?;
        }
        if let Some(window) = marks.window {
            let (from, to) = (range.0.max(window), range.1.min(window + WINDOW_S));
            each_block(conn, window, &mut |_, packed, samples| {
                samples.open(packed)?;
                samples.some(packed, None, 0..packed.rows, &mut |moment, sample| {
                    if moment.seq >= marks.since {
                        fold::pieces(moment.unix, sample, from, to, &mut |at, cell| add(sample.iface, at, cell));
                    }
                })
            })?;
        }
    }
    each_unsaved(unsaved, newest_seq(conn)?, &mut |_, unix, sample| {
        fold::pieces(unix, sample, range.0, range.1, &mut |at, cell| add(sample.iface, at, cell));
    });
    Ok(sums)
}

/// Points in descending order, with the first ones left out.
struct Taken {
    skip: u64,
    limit: usize,
    points: Vec<Point>,
}

impl Taken {
    /// `points` ascend.
    fn take(&mut self, points: impl DoubleEndedIterator<Item = Point>) {
        for point in points.rev() {
            if self.skip > 0 {
                self.skip -= 1;
            } else if self.points.len() < self.limit {
                self.points.push(point);
            } else {
                return;
            }
        }
    }
}

/// Points in ascending order, in whole ticks, so that the cursor says where to go on.
struct Walk {
    after: Option<Cursor>,
    limit: usize,
    points: Vec<Point>,
    /// There were more.
    next: Option<Cursor>,
}

impl Walk {
    /// `points` ascend.
    fn take(&mut self, points: impl Iterator<Item = Point>) {
        for point in points {
            if self.after.is_some_and(|after| (point.unix, point.seq) <= (after.unix, after.seq)) {
                continue;
            }
            match self.points.last() {
                Some(last) if self.points.len() >= self.limit && (last.unix, last.seq) != (point.unix, point.seq) => {
                    self.next = Some(Cursor { unix: last.unix, seq: last.seq });
                    return;
                }
                _ => self.points.push(point),
            }
        }
    }
}

/// How many ticks make a stretch.
fn stretch(packed: &Packed, filter: &Filter) -> usize {
    let groups = if filter.iface.is_some() { 1 } else { packed.groups().count() };
    (STRETCH / groups.max(1)).max(1)
}

/// Where the stretch begins that ends before `end`. Ticks of one second stay together, for what is unsaved may lie
/// among them.
fn stretch_before(moments: &[Moment], end: usize, packed: &Packed, filter: &Filter) -> usize {
    let mut start = end.saturating_sub(stretch(packed, filter));
    while start > 0 && moments[start - 1].unix == moments[start].unix {
        start -= 1;
    }
    start
}

fn stretch_from(moments: &[Moment], start: usize, packed: &Packed, filter: &Filter) -> usize {
    let mut end = (start + stretch(packed, filter)).min(moments.len());
    while end < moments.len() && moments[end].unix == moments[end - 1].unix {
        end += 1;
    }
    end
}

/// The points of some ticks of the block that was opened.
fn unpack(
    samples: &mut Samples,
    packed: &Packed,
    rows: Range<usize>,
    filter: &Filter,
    out: &mut Vec<Point>,
) -> Result<()> {
    samples.some(packed, filter.iface, rows, &mut |moment, sample| {
        let point = Point { seq: moment.seq, unix: moment.unix, sample: *sample };
        if filter.takes(&point) {
            out.push(point);
        }
    })
}

/// The number of the newest tick on disk.
fn newest_seq(conn: Option<&Connection>) -> Result<u64> {
    let marks = marks(conn)?;
    let (Some(conn), Some(window)) = (conn, marks.window) else { return Ok(0) };
    let newest: Option<i64> = conn
        .prepare_cached("SELECT max(seq) FROM sample WHERE first > ?1 AND first <= ?2")?
        .query_row([window, window + WINDOW_S], |row| row.get(0))?;
    Ok(newest.map_or(0, |seq| seq as u64).max(marks.since.saturating_sub(1)))
}

/// The time of the newest tick of the open window.
fn newest_time(conn: &Connection, marks: &State) -> Result<Option<i64>> {
    let Some(window) = marks.window else { return Ok(None) };
    let mut newest = (0, None);
    each_block(conn, window, &mut |seq, packed, samples| {
        let moments = samples.open(packed)?;
        if seq as u64 > newest.0 {
            newest = (seq as u64, moments.iter().max_by_key(|moment| moment.seq).map(|moment| moment.unix));
        }
        Ok(())
    })?;
    Ok(newest.1)
}

/// Hands over the samples that are in memory only; those without a time have no place yet.
fn each_unsaved<'a>(unsaved: &'a Unsaved, stored: u64, each: &mut dyn FnMut(u64, i64, &'a Sample)) {
    for batch in unsaved {
        for (tick, samples) in batch.iter() {
            let Some(unix) = tick.unix.filter(|_| tick.seq > stored) else { continue };
            let unix = unix.clamp(1, LAST_UNIX);
            samples.iter().for_each(|sample| each(tick.seq, unix, sample));
        }
    }
}

/// A point that is in memory anyway.
struct Pending<'a> {
    unix: i64,
    seq: u64,
    sample: &'a Sample,
}

impl Pending<'_> {
    fn point(self) -> Point {
        Point { seq: self.seq, unix: self.unix, sample: *self.sample }
    }
}

/// The unsaved points that a filter takes, ascending.
fn pending<'a>(conn: &Connection, filter: &Filter, unsaved: &'a Unsaved) -> Result<Vec<Pending<'a>>> {
    let mut all = Vec::new();
    if unsaved.iter().all(|batch| batch.is_empty()) {
        return Ok(all);
    }
    each_unsaved(unsaved, newest_seq(Some(conn))?, &mut |seq, unix, sample| {
        let pending = Pending { unix, seq, sample };
        if filter.takes(&Point { seq, unix, sample: *sample }) {
            all.push(pending);
        }
    });
    all.sort_unstable_by_key(|pending| (pending.unix, pending.seq, pending.sample.iface));
    Ok(all)
}

/// Samples as buckets, in order but for a clock that was set back.
fn each_sample(
    conn: Option<&Connection>,
    iface: IfaceId,
    from: i64,
    to: i64,
    unsaved: &Unsaved,
    each: &mut dyn FnMut(&Bucket),
) -> Result<()> {
    // One that ends after the range is the last that begins in it: the next one begins there.
    let mut past_end = false;
    let mut add = |unix: i64, sample: &Sample| {
        let (start, end) = fold::range(unix, sample);
        past_end |= end >= to;
        if start < to && end > from {
            each(&fold::whole(sample).bucket(start, end));
        }
        past_end
    };
    if let Some(conn) = conn {
        let near = to + LOOK_AHEAD_S;
        let mut over = each_block_between(conn, iface, (key_reaching(from), near), from, &mut add)?;
        if !over {
            // A gap is as long as it likes. Without one, the interface was not there any more.
            let cell = fold::floor(to, CELL_S);
            each_of_rows(Some(conn), &FIVE_MINUTES, iface, cell, cell + CELL_S, &[], &mut |_| over = true)?;
            if over {
                each_block_between(conn, iface, (near, i64::MAX), from, &mut add)?;
            }
        }
    }
    each_unsaved(unsaved, newest_seq(conn)?, &mut |_, unix, sample| {
        if sample.iface == iface {
            add(unix, sample);
        }
    });
    Ok(())
}

/// Hands over the samples of one interface in blocks whose keys lie in `(after, up_to]`, until `add` says that it has
/// enough. Says whether it did.
fn each_block_between(
    conn: &Connection,
    iface: IfaceId,
    (after, up_to): (i64, i64),
    from: i64,
    add: &mut dyn FnMut(i64, &Sample) -> bool,
) -> Result<bool> {
    let mut samples = Samples::default();
    let mut statement = conn.prepare_cached(
        "SELECT first, data FROM sample WHERE first > ?1 AND first <= ?2 AND last > ?3 ORDER BY first",
    )?;
    let mut blocks = statement.query([after, up_to, from])?;
    let mut enough = false;
    while let Some(block) = blocks.next()? {
        let bytes = block.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let read = Packed::open(bytes).and_then(|packed| {
            samples.open(&packed)?;
            samples.some(&packed, Some(iface), 0..packed.rows, &mut |moment, sample| {
                enough = add(moment.unix, sample);
            })
        });
        if let Err(error) = read {
            log::error!("samples around {} are passed over: {error}", block.get::<_, i64>(0)?);
        }
        if enough {
            break;
        }
    }
    Ok(enough)
}

/// What no row of a coarser level has yet of one interface.
struct Recent<'a> {
    iface: IfaceId,
    unsaved: &'a Unsaved,
    /// The newest number on disk: what is unsaved begins behind it.
    seq: u64,
    /// The time of the newest stored tick, where the open window was looked at.
    newest: Option<i64>,
    /// Five-minute cells of the open window, as far as it is stored.
    open: Map<i64, Cell>,
}

impl<'a> Recent<'a> {
    /// `from` and `to` must be borders of cells.
    fn read(
        conn: Option<&Connection>,
        marks: &State,
        iface: IfaceId,
        (from, to): (i64, i64),
        unsaved: &'a Unsaved,
    ) -> Result<Recent<'a>> {
        let seq = marks.since.saturating_sub(1);
        let mut recent = Recent { iface, unsaved, seq, newest: None, open: Map::new() };
        let (Some(conn), Some(window)) = (conn, marks.window) else { return Ok(recent) };
        let (from, to) = (from.max(window), to.min(window + WINDOW_S));
        if from >= to {
            recent.seq = newest_seq(Some(conn))?;
            return Ok(recent);
        }
        each_block(conn, window, &mut |seq, packed, samples| {
            let moments = samples.open(packed)?;
            if seq as u64 > recent.seq {
                recent.seq = seq as u64;
                recent.newest = moments.iter().max_by_key(|moment| moment.seq).map(|moment| moment.unix);
            }
            if moments.last().is_none_or(|moment| moment.unix <= from) {
                return Ok(());
            }
            samples.some(packed, Some(iface), 0..packed.rows, &mut |moment, sample| {
                if moment.seq >= marks.since {
                    fold::pieces(moment.unix, sample, from, to, &mut |at, cell| {
                        recent.open.entry(at).or_default().add(cell);
                    });
                }
            })
        })?;
        Ok(recent)
    }

    /// The time that it reaches over, piece by piece, in no order.
    fn each_range(&self, each: &mut dyn FnMut(i64, i64)) {
        self.open.keys().for_each(|at| each(*at, at + CELL_S));
        each_unsaved(self.unsaved, self.seq, &mut |_, unix, sample| {
            if sample.iface == self.iface {
                let (start, end) = fold::range(unix, sample);
                each(start, end);
            }
        });
    }

    /// Its cells in `[from, to)`, which must be borders of cells, in no order. Never kept: an unsaved gap of months is
    /// tens of thousands of them.
    fn each_cell(&self, from: i64, to: i64, each: &mut dyn FnMut(i64, &Cell)) {
        self.open.range(from..to).for_each(|(at, cell)| each(*at, cell));
        each_unsaved(self.unsaved, self.seq, &mut |_, unix, sample| {
            if sample.iface == self.iface {
                fold::pieces(unix, sample, from, to, each);
            }
        });
    }
}

/// Buckets of a level whose rows and cells have one length each, row by row.
fn each_of_rows(
    conn: Option<&Connection>,
    level: &Level,
    iface: IfaceId,
    from: i64,
    to: i64,
    unsaved: &Unsaved,
    each: &mut dyn FnMut(&Bucket),
) -> Result<()> {
    let from = fold::floor(from, level.cell_s);
    let to = fold::floor(to + level.cell_s - 1, level.cell_s);
    let recent = Recent::read(conn, &marks(conn)?, iface, (from, to), unsaved)?;
    let mut fresh = Set::new();
    recent.each_range(&mut |start, end| {
        let mut at = fold::floor(start.max(from), level.row_s);
        while at < end.min(to) {
            fresh.insert(at);
            at += level.row_s;
        }
    });

    let mut row: Vec<(u16, Cell)> = Vec::new();
    let mut tell = |start: i64, row: &mut Vec<(u16, Cell)>, fresh: bool| {
        if fresh {
            recent.each_cell(start.max(from), (start + level.row_s).min(to), &mut |at, cell| {
                let at = ((at - start) / level.cell_s) as u16;
                match row.binary_search_by_key(&at, |(at, _)| *at) {
                    Ok(found) => row[found].1.add(cell),
                    Err(place) => row.insert(place, (at, *cell)),
                }
            });
        }
        for (at, cell) in row.drain(..) {
            let at = start + i64::from(at) * level.cell_s;
            if at >= from && at < to {
                each(&cell.bucket(at, at + level.cell_s));
            }
        }
    };
    if let Some(conn) = conn {
        let mut columns = Columns::default();
        let mut statement = conn.prepare_cached(level.range)?;
        let mut rows = statement.query([fold::floor(from, level.row_s), to])?;
        while let Some(stored) = rows.next()? {
            let start: i64 = stored.get(0)?;
            fresh.drain_below(&start).for_each(|first| tell(first, &mut row, true));
            let bytes = stored.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let read = unpack_cells(bytes, level.cell_s, Some(iface), &mut columns, &mut |_, at, cell| {
                row.push((at, *cell));
            });
            if let Err(error) = read {
                log::error!("history around {start} is passed over: {error}");
            }
            tell(start, &mut row, fresh.remove(&start));
        }
    }
    for start in fresh {
        tell(start, &mut row, true);
    }
    Ok(())
}

fn each_day(
    conn: Option<&Connection>,
    iface: IfaceId,
    from: i64,
    to: i64,
    zone: &Zone,
    unsaved: &Unsaved,
    each: &mut dyn FnMut(&Bucket),
) -> Result<()> {
    let marks = marks(conn)?;
    // The days at the ends of the range reach beyond it.
    let range = (fold::floor(from - Days::AROUND_S, CELL_S), fold::floor(to + Days::AROUND_S, CELL_S));
    let recent = Recent::read(conn, &marks, iface, range, unsaved)?;
    let mut reach: Option<(i64, i64)> = None;
    recent.each_range(&mut |start, end| {
        let (start, end) = (start.max(range.0), end.min(range.1));
        if start < end {
            let (first, last) = reach.unwrap_or((start, end));
            reach = Some((first.min(start), last.max(end)));
        }
    });

    // The zone was changed a moment ago: the writer will cut the day anew with its next flush, readers do so now.
    let mut again = None;
    if let Some(conn) = conn.filter(|_| marks.zone.as_deref() != Some(zone.name())) {
        if let Some((start, until, _)) = open_day(conn, recent.newest)? {
            again = Some((start, until));
            let (first, last) = reach.unwrap_or((start, until));
            reach = Some((first.min(start), last.max(until)));
        }
    }

    let mut sums: Map<(i64, i64), Cell> = Map::new();
    if let Some((first, last)) = reach {
        let mut days = Days::load(conn, first, last)?;
        if let Some((start, _)) = again {
            days.forget(start);
        }
        let mut add = |at: i64, cell: &Cell| sums.entry(days.of(at, zone)).or_default().add(cell);
        recent.each_cell(range.0, range.1, &mut add);
        if let (Some(conn), Some((start, until))) = (conn, again) {
            each_cell(conn, Some(iface), start, until, &mut |_, at, cell| add(at, cell))?;
        }
    }

    let mut tell = |(start, until): (i64, i64), cell: &Cell| {
        if start < to && until > from {
            each(&cell.bucket(start, until));
        }
    };
    if let Some(conn) = conn {
        let mut columns = Columns::default();
        let mut statement =
            conn.prepare_cached("SELECT start, until, data FROM day WHERE start > ?1 AND start < ?2 ORDER BY start")?;
        let mut rows = statement.query([range.0, range.1])?;
        while let Some(row) = rows.next()? {
            let day: (i64, i64) = (row.get(0)?, row.get(1)?);
            if again == Some(day) {
                continue;
            }
            sums.drain_below(&day).for_each(|(day, cell)| tell(day, &cell));
            let mut sum = sums.remove(&day);
            let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let read = unpack_cells(bytes, day.1 - day.0, Some(iface), &mut columns, &mut |_, _, cell| {
                sum.get_or_insert_default().add(cell);
            });
            if let Err(error) = read {
                log::error!("the day from {} is passed over: {error}", day.0);
            }
            if let Some(cell) = sum {
                tell(day, &cell);
            }
        }
    }
    sums.iter().for_each(|(day, cell)| tell(*day, cell));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Batch;
    use crate::store::testing::{KEEP, LOAD_IFACES, Load, OPTIONS, Place, T, record};
    use crate::store::{Flush, Store};

    #[test]
    fn unsaved_samples_are_merged_once_and_those_without_a_time_are_left_out() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        let saving = Arc::new(Batch::steady(1, T + 30, 10));
        let mut next = Batch::steady(11, T + 330, 5);
        next.ticks[4].unix = None;
        let unsaved = [saving.clone(), Arc::new(next)];
        let check = |reader: &Reader| {
            let points = reader.newest(&Filter::default(), 0, 99, &unsaved).unwrap();
            assert_eq!(points.iter().map(|point| point.seq).collect::<Vec<_>>(), (1..15).rev().collect::<Vec<_>>());
            let cells = reader.buckets(Resolution::FiveMinutes, 1, T, T + 900, &Zone::UTC, &unsaved).unwrap();
            let got: Vec<_> = cells.iter().map(|cell| (cell.from - T, cell.sum.rx_bytes(), cell.covered)).collect();
            assert_eq!(got, [(0, 3_000, 300), (300, 1_200, 120)]);
            let samples = reader.buckets(Resolution::Sample, 1, T, T + 900, &Zone::UTC, &unsaved).unwrap();
            assert_eq!((samples.len(), samples[0].from, samples[0].rx_peak), (14, T, 10));
        };
        check(&reader);
        // The same batch is still in memory while it is on disk already.
        opened.save(&saving).unwrap();
        check(&reader);
    }

    #[test]
    fn a_walk_meets_every_point_once_though_the_batch_is_saved_meanwhile() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        let batches = [Arc::new(Batch::steady(1, T + 30, 100)), Arc::new(Batch::steady(101, T + 3_030, 100))];
        let (mut seqs, mut cursor) = (Vec::new(), None);
        for round in 0.. {
            let (points, next) = reader.oldest(&Filter::default(), cursor, 7, &batches).unwrap();
            seqs.extend(points.iter().map(|point| point.seq));
            cursor = next;
            if cursor.is_none() {
                break;
            }
            if round == 5 || round == 20 {
                opened.save(&batches[round / 20]).unwrap();
            }
        }
        assert_eq!(seqs, (1..201).collect::<Vec<_>>());
    }

    #[test]
    fn large_blocks_are_walked_in_stretches() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        let mut load = Load::new();
        // Blocks of 2,880 points; and set back by half an hour in the middle of the last one, nothing of it saved.
        let batches = [120, 120, 40].map(|ticks| load.batch(ticks));
        batches[..2].iter().for_each(|batch| opened.save(batch).unwrap());
        let mut last = batches[2].clone();
        last.ticks.iter_mut().for_each(|tick| tick.unix = tick.unix.map(|unix| unix - 1_800));
        let unsaved = [Arc::new(Batch::default()), Arc::new(last)];

        for iface in [None, Some(5)] {
            let within = Filter { iface, from: Some(T + 1_000), to: Some(T + 6_500) };
            for filter in [Filter { iface, ..Filter::default() }, within] {
                let mut expect = Vec::new();
                let ticks = batches[..2].iter().chain([&*unsaved[1]]).flat_map(|batch| batch.iter());
                for (tick, samples) in ticks {
                    let point = |sample: &Sample| Point { seq: tick.seq, unix: tick.unix.unwrap(), sample: *sample };
                    expect.extend(samples.iter().map(point).filter(|point| filter.takes(point)));
                }
                expect.sort_by_key(Point::order);
                let (mut walked, mut after) = (Vec::new(), None);
                loop {
                    let (mut points, next) = reader.oldest(&filter, after, 500, &unsaved).unwrap();
                    assert!(points.len() < 500 + LOAD_IFACES as usize);
                    walked.append(&mut points);
                    after = next;
                    if after.is_none() {
                        break;
                    }
                }
                assert!(walked == expect);
                expect.reverse();
                for (offset, limit) in [(0, 1), (0, 1_000), (7, 1_000), (1_030, 50), (3_000, 2_000), (0, 99_999)] {
                    let got = reader.newest(&filter, offset as u64, limit, &unsaved).unwrap();
                    let rest = expect.iter().skip(offset).take(limit);
                    assert!(got.iter().eq(rest), "{offset} {limit} {filter:?}");
                }
            }
        }
    }

    /// What is unsaved may reach over rows that are stored and over months that are not.
    #[test]
    fn e12_an_unsaved_gap_is_in_every_level() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        let days = 50;
        opened.save(&Batch::steady(1, T + 30, 100)).unwrap();
        let mut gap = Batch::default();
        gap.tick(101, T + days * 86_400, (days * 86_400 - 3_000) as u64 * 1_000, &[(1, 7_000_000)]);
        let check = |unsaved: &Unsaved| -> Vec<Vec<Bucket>> {
            let levels = [Resolution::FiveMinutes, Resolution::Hour, Resolution::Day];
            let all = levels.map(|level| reader.buckets(level, 1, 0, i64::MAX, &Zone::UTC, unsaved).unwrap());
            for (buckets, a_day) in all.iter().zip([288, 24, 1]) {
                assert_eq!(buckets.len() as i64, days * a_day);
                assert_eq!(buckets.iter().map(|bucket| bucket.sum.rx_bytes()).sum::<u64>(), 7_030_000);
                assert!(buckets.windows(2).all(|pair| pair[0].to == pair[1].from));
            }
            all.into()
        };
        let unsaved = check(&[Arc::new(gap.clone())]);
        opened.save(&gap).unwrap();
        assert!(check(&[]) == unsaved);
    }

    /// What could not be saved for long was made one sample; it is found from anywhere in its time.
    #[test]
    fn a_range_within_one_long_sample_has_it() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        let hours = 20;
        opened.save(&Batch::steady(1, T + 30, 120)).unwrap();
        let mut long = Batch::default();
        long.tick(121, T + 3_600 * (hours + 1), 3_600_000 * hours as u64, &[(1, 72_000), (2, 5)]);
        opened.save(&long).unwrap();
        // The other one is gone from here on.
        opened.save(&Batch::steady(122, T + 3_600 * (hours + 1) + 30, 500)).unwrap();
        for hour in 0..hours + 3 {
            let at = T + 3_600 * hour + 600;
            let spans = |iface: IfaceId| -> Vec<i64> {
                let buckets = reader.buckets(Resolution::Sample, iface, at, at + 60, &Zone::UTC, &[]).unwrap();
                buckets.iter().map(|bucket| bucket.to - bucket.from).collect()
            };
            let within = (1..=hours).contains(&hour);
            assert_eq!(spans(1), if within { vec![3_600 * hours] } else { vec![30, 30] }, "hour {hour}");
            assert_eq!(spans(2), if within { vec![3_600 * hours] } else { vec![] }, "hour {hour}");
        }
    }

    #[test]
    fn e43_events_are_bounded_and_newest_first() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let batch = Batch::default();
        for at in 0..13 {
            let events: Vec<Event> = (0..100)
                .map(|more| Event {
                    unix: (more > 0).then_some(T + more),
                    mono_ms: 5,
                    kind: EventKind::Reset,
                    interface: "eth0".into(),
                    detail: format!("{}", at * 100 + more),
                })
                .collect();
            let flush = Flush {
                batch: &batch,
                anchors: &[],
                records: &[],
                events: &events,
                settings: &[],
                keep: KEEP,
                zone: &Zone::UTC,
            };
            opened.store.flush(&flush).unwrap();
        }
        let reader = opened.store.reader().unwrap();
        let events = reader.events(&EventFilter::default(), &[], 2_000, 0).unwrap();
        assert_eq!((events.len(), events[0].detail.as_str(), events[999].detail.as_str()), (1_000, "1299", "300"));
        assert_eq!((events[0].unix, events[0].kind, events[999].unix), (Some(T + 99), EventKind::Reset, None));
        assert_eq!(reader.events(&EventFilter::default(), &[], 5, 10).unwrap()[0].detail, "1289");
    }

    #[test]
    fn e25_days_have_their_local_length_and_closed_ones_keep_it() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        // 28 to 31 March 2026 around the beginning of summer time in Europe, from midnight to midnight there.
        let cet = Zone::parse("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let start = 1_774_652_400;
        let mut seq = 0;
        let mut save = |hours: i64, zone: &Zone| {
            let mut batch = Batch::default();
            for _ in 0..hours {
                seq += 1;
                batch.tick(seq, start + 3_600 * seq as i64, 3_600_000, &[(1, 3_600)]);
            }
            let records = [record(1)];
            let flush =
                Flush { batch: &batch, anchors: &[], records: &records, events: &[], settings: &[], keep: KEEP, zone };
            opened.store.flush(&flush).unwrap();
            let days = opened.store.reader().unwrap().buckets(Resolution::Day, 1, 0, i64::MAX, zone, &[]).unwrap();
            days.iter().map(|day| ((day.to - day.from) / 3_600, day.sum.rx_bytes() / 3_600)).collect::<Vec<_>>()
        };
        assert_eq!(save(57, &cet), [(24, 24), (23, 23), (24, 10)]);
        // Two hours to the west: the day at hand begins where the last closed one ended, and ends at the new midnight.
        let azores = Zone::parse("<-01>1").unwrap();
        assert_eq!(save(0, &azores), [(24, 24), (23, 23), (3, 3), (24, 7)]);
        assert_eq!(save(24, &azores), [(24, 24), (23, 23), (3, 3), (24, 24), (24, 7)]);
    }

    #[test]
    fn the_oldest_moments() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        let levels = [Resolution::Sample, Resolution::FiveMinutes, Resolution::Hour, Resolution::Day];
        assert_eq!(levels.map(|level| reader.oldest_of(level).unwrap()), [None; 4]);
        opened.save(&Batch::steady(1, T + 4_000, 3)).unwrap();
        let expect = [T + 3_970, T + 3_900, T + 3_600, T + 3_970].map(Some);
        assert_eq!(levels.map(|level| reader.oldest_of(level).unwrap()), expect);
        opened.save(&Batch::steady(4, T + 40_000, 3)).unwrap();
        let expect = [T + 3_970, T + 3_900, T + 3_600, T].map(Some);
        assert_eq!(levels.map(|level| reader.oldest_of(level).unwrap()), expect);
    }

    #[test]
    fn facts_count_what_is_stored() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        opened.save(&Batch::steady(1, T + 30, 30)).unwrap();
        let facts = opened.store.reader().unwrap().facts().unwrap();
        assert_eq!((facts.samples, facts.settings), (30, 0));
        assert!(facts.size_bytes > 0 && facts.size_bytes % 4_096 == 0);
    }
}
