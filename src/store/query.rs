//! The readers' side. Every query is one short read transaction, so that a slow client never keeps the write-ahead
//! log from being taken in, and each merges what is stored with what is in memory: a tick is on disk with all that
//! went before it, or not at all, so that the newest number on disk parts the two.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::block::{Columns, Packed};
use super::fold::{self, CELL_S, Cell, WINDOW_S};
use super::levels::{Days, FIVE_MINUTES, HOURS, Level, each_cell, open_day};
use super::rows::{LAST_UNIX, Samples, count_samples, unpack_cells};
use super::samples::{BLOCK_S, each_block};
use super::state::State;
use super::{Cursor, EventFilter, Facts, Filter, Point, Reader, Unsaved};
use crate::clock::Zone;
use crate::error::Result;
use crate::model::{Bucket, Counters, Event, EventKind, IfaceId, Resolution, Sample};

/// Seconds beyond the end of a range in which a sample is still looked for that began inside it: the longest interval.
const LOOK_AHEAD_S: i64 = 3_600;

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
        let mut statement = tx.prepare_cached(
            "SELECT first, last, n, data FROM sample WHERE first >= ?1 AND first < ?2 ORDER BY first DESC",
        )?;
        let mut blocks = statement.query([key_reaching(filter.from()), filter.to()])?;
        while let Some(block) = blocks.next()? {
            if taken.points.len() >= limit {
                return Ok(taken.points);
            }
            let (first, last, n): (i64, i64, u32) = (block.get(0)?, block.get(1)?, block.get(2)?);
            let mut points = pending.split_off(pending.partition_point(|point| point.unix < first));
            let alone = points.is_empty() && first >= filter.from() && last < filter.to();
            if alone && filter.iface.is_none() && u64::from(n) <= taken.skip {
                taken.skip -= u64::from(n);
                continue;
            }
            let bytes = block.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
            let count = || Packed::open(bytes).and_then(|packed| count_samples(&packed, filter.iface));
            if alone
                && taken.skip > 0
                && let Ok(count) = count()
                && count as u64 <= taken.skip
            {
                taken.skip -= count as u64;
                continue;
            }
            unpack(&mut samples, first, bytes, filter, &mut points);
            points.sort_unstable_by_key(Point::order);
            taken.take(points);
        }
        taken.take(pending);
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
        let mut out: Vec<Point> = Vec::new();
        // Whole ticks, so that the cursor says where to go on.
        let mut take = |points: Vec<Point>| -> Option<Cursor> {
            for point in points {
                let here = Cursor { unix: point.unix, seq: point.seq };
                if after.is_some_and(|after| (here.unix, here.seq) <= (after.unix, after.seq)) {
                    continue;
                }
                if let Some(last) = out.last()
                    && out.len() >= limit
                    && (last.unix, last.seq) != (here.unix, here.seq)
                {
                    return Some(Cursor { unix: last.unix, seq: last.seq });
                }
                out.push(point);
            }
            None
        };
        let from = after.map_or(filter.from(), |after| after.unix.max(filter.from()));
        let mut statement = tx.prepare_cached(
            "SELECT first, last, data FROM sample WHERE first >= ?1 AND first < ?2 AND last >= ?3 ORDER BY first",
        )?;
        let mut blocks = statement.query([key_reaching(from), filter.to(), from])?;
        while let Some(block) = blocks.next()? {
            let (first, last): (i64, i64) = (block.get(0)?, block.get(1)?);
            let later = pending.split_off(pending.partition_point(|point| point.unix <= last));
            let mut points = std::mem::replace(&mut pending, later);
            unpack(
                &mut samples,
                first,
                block.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?,
                filter,
                &mut points,
            );
            points.sort_unstable_by_key(Point::order);
            if let Some(cursor) = take(points) {
                return Ok((out, Some(cursor)));
            }
        }
        let cursor = take(pending);
        Ok((out, cursor))
    }

    pub(super) fn level(
        &self,
        level: Resolution,
        iface: IfaceId,
        from: i64,
        to: i64,
        zone: &Zone,
        unsaved: &Unsaved,
    ) -> Result<Vec<Bucket>> {
        // Far enough from the ends of i64 for everything that is added below.
        let (from, to) = (from.max(0), to.min(i64::MAX / 4));
        if from >= to {
            return Ok(Vec::new());
        }
        let tx = self.conn.unchecked_transaction()?;
        match level {
            Resolution::Sample => sample_buckets(&tx, iface, from, to, unsaved),
            Resolution::FiveMinutes => row_buckets(&tx, &FIVE_MINUTES, iface, from, to, unsaved),
            Resolution::Hour => row_buckets(&tx, &HOURS, iface, from, to, unsaved),
            Resolution::Day => day_buckets(&tx, iface, from, to, zone, unsaved),
        }
    }

    /// There are a thousand at the most: they are looked at one by one.
    pub(super) fn newest_events(&self, filter: &EventFilter, limit: usize, offset: u64) -> Result<Vec<Event>> {
        let mut statement =
            self.conn.prepare_cached("SELECT unix, kind, interface, detail FROM event ORDER BY id DESC")?;
        let mut rows = statement.query([])?;
        let (mut events, mut skip) = (Vec::new(), offset);
        while events.len() < limit
            && let Some(row) = rows.next()?
        {
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
            match skip {
                0 => events.push(event),
                _ => skip -= 1,
            }
        }
        Ok(events)
    }

    pub(super) fn beginning(&self, asked: Resolution) -> Result<Option<i64>> {
        let tx = self.conn.unchecked_transaction()?;
        if asked == Resolution::Day
            && let Some(start) = tx.query_row("SELECT min(start) FROM day", [], |row| row.get(0))?
        {
            return Ok(Some(start));
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
        // Nothing but the open window yet: its first sample began before its tick.
        let bytes: Vec<u8> = tx.query_row("SELECT data FROM sample WHERE first = ?1", [first], |row| row.get(0))?;
        let packed = Packed::open(&bytes)?;
        let mut samples = Samples::default();
        samples.open(&packed)?;
        let mut begin = first;
        samples.some(&packed, None, &mut |moment, sample| {
            begin = begin.min(fold::range(moment.unix, sample).0);
        })?;
        Ok(Some(match asked {
            Resolution::FiveMinutes => fold::floor(begin, CELL_S),
            Resolution::Hour => fold::floor(begin, HOURS.cell_s),
            _ => begin,
        }))
    }

    /// Not after the first bucket of a level that ends behind `from`, and not long before it.
    pub(super) fn following(&self, asked: Resolution, from: i64, unsaved: &Unsaved) -> Result<Option<i64>> {
        let tx = self.conn.unchecked_transaction()?;
        let (sql, edge) = match asked {
            Resolution::Hour => ("SELECT min(start) FROM hour WHERE start > ?1", from - HOURS.row_s),
            Resolution::Day => ("SELECT min(start) FROM day WHERE until > ?1", from),
            _ => ("SELECT min(start) FROM five_minutes WHERE start > ?1", from - FIVE_MINUTES.row_s),
        };
        let stored: Option<i64> = tx.query_row(sql, [edge], |row| row.get(0))?;
        let open = State::marks(&tx)?.window.filter(|window| window + WINDOW_S > from);
        let mut first = stored.into_iter().chain(open).min();
        each_unsaved(unsaved, 0, &mut |_, unix, sample| {
            let (start, end) = fold::range(unix, sample);
            if end > from {
                first = Some(first.map_or(start, |first| first.min(start)));
            }
        });
        // Local days begin before what they hold.
        Ok(first.map(|first| first - Days::AROUND_S))
    }

    pub(super) fn day_of_all(&self, unix: i64, zone: &Zone, unsaved: &Unsaved) -> Result<BTreeMap<IfaceId, Counters>> {
        let tx = self.conn.unchecked_transaction()?;
        let days = days(&tx, None, unix, unix + 1, zone, unsaved)?;
        Ok(days.into_iter().map(|((_, _, iface), cell)| (iface, cell.sum)).collect())
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

/// Points in descending order, with the first ones left out.
struct Taken {
    skip: u64,
    limit: usize,
    points: Vec<Point>,
}

impl Taken {
    /// `points` ascend.
    fn take(&mut self, points: Vec<Point>) {
        for point in points.into_iter().rev() {
            if self.skip > 0 {
                self.skip -= 1;
            } else if self.points.len() < self.limit {
                self.points.push(point);
            }
        }
    }
}

fn unpack(samples: &mut Samples, first: i64, bytes: &[u8], filter: &Filter, out: &mut Vec<Point>) {
    let mut read = || -> Result<()> {
        let packed = Packed::open(bytes)?;
        samples.open(&packed)?;
        samples.some(&packed, filter.iface, &mut |moment, sample| {
            let point = Point { seq: moment.seq, unix: moment.unix, sample: *sample };
            if filter.takes(&point) {
                out.push(point);
            }
        })
    };
    if let Err(error) = read() {
        log::error!("samples around {first} are passed over: {error}");
    }
}

/// The number of the newest tick on disk.
fn newest_seq(conn: &Connection) -> Result<u64> {
    let marks = State::marks(conn)?;
    let Some(window) = marks.window else { return Ok(0) };
    let newest: Option<i64> = conn
        .prepare_cached("SELECT max(seq) FROM sample WHERE first > ?1 AND first <= ?2")?
        .query_row([window, window + WINDOW_S], |row| row.get(0))?;
    Ok(newest.map_or(0, |seq| seq as u64).max(marks.since.saturating_sub(1)))
}

/// Hands over the samples that are in memory only; those without a time have no place yet.
fn each_unsaved(unsaved: &Unsaved, stored: u64, each: &mut dyn FnMut(u64, i64, &Sample)) {
    for batch in unsaved {
        for (tick, samples) in batch.iter() {
            if let Some(unix) = tick.unix
                && tick.seq > stored
            {
                let unix = unix.clamp(1, LAST_UNIX);
                samples.iter().for_each(|sample| each(tick.seq, unix, sample));
            }
        }
    }
}

/// The unsaved points that a filter takes, ascending.
fn pending(conn: &Connection, filter: &Filter, unsaved: &Unsaved) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    if unsaved.iter().all(|batch| batch.is_empty()) {
        return Ok(points);
    }
    each_unsaved(unsaved, newest_seq(conn)?, &mut |seq, unix, sample| {
        let point = Point { seq, unix, sample: *sample };
        if filter.takes(&point) {
            points.push(point);
        }
    });
    points.sort_unstable_by_key(Point::order);
    Ok(points)
}

fn sample_buckets(conn: &Connection, iface: IfaceId, from: i64, to: i64, unsaved: &Unsaved) -> Result<Vec<Bucket>> {
    let mut out = Vec::new();
    let mut past_end = false;
    let mut add = |unix: i64, sample: &Sample| {
        let (start, end) = fold::range(unix, sample);
        past_end |= end >= to;
        if start < to && end > from {
            out.push(fold::whole(sample).bucket(start, end));
        }
        past_end
    };
    let mut samples = Samples::default();
    let mut statement = conn.prepare_cached(
        "SELECT first, data FROM sample WHERE first > ?1 AND first <= ?2 AND last > ?3 ORDER BY first",
    )?;
    let mut blocks = statement.query([key_reaching(from), to + LOOK_AHEAD_S, from])?;
    while let Some(block) = blocks.next()? {
        let bytes = block.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let mut past_end = false;
        let read = Packed::open(bytes).and_then(|packed| {
            samples.open(&packed)?;
            samples.one(&packed, iface, &mut |moment, sample| past_end = add(moment.unix, sample))
        });
        if let Err(error) = read {
            log::error!("samples around {} are passed over: {error}", block.get::<_, i64>(0)?);
        }
        if past_end {
            break;
        }
    }
    each_unsaved(unsaved, newest_seq(conn)?, &mut |_, unix, sample| {
        if sample.iface == iface {
            add(unix, sample);
        }
    });
    // In order already, but for a clock that was set back.
    out.sort_by_key(|bucket| (bucket.to, bucket.from));
    Ok(out)
}

/// What no row of a coarser level has yet, as five-minute cells that start in `[from, to)`, which must be borders of
/// cells. Also the time of the newest stored tick.
fn recent(
    conn: &Connection,
    marks: &State,
    only: Option<IfaceId>,
    (from, to): (i64, i64),
    unsaved: &Unsaved,
    each: &mut dyn FnMut(IfaceId, i64, &Cell),
) -> Result<Option<i64>> {
    let mut newest = (marks.since.saturating_sub(1), None);
    if let Some(window) = marks.window {
        let (from, to) = (from.max(window), to.min(window + WINDOW_S));
        each_block(conn, window, &mut |seq, packed, samples| {
            let moments = samples.open(packed)?;
            if seq as u64 > newest.0 {
                newest.0 = seq as u64;
                newest.1 = moments.iter().max_by_key(|moment| moment.seq).map(|moment| moment.unix);
            }
            if moments.last().is_none_or(|moment| moment.unix <= from) {
                return Ok(());
            }
            samples.some(packed, only, &mut |moment, sample| {
                if moment.seq >= marks.since {
                    fold::pieces(moment.unix, sample, from, to, &mut |at, cell| each(sample.iface, at, cell));
                }
            })
        })?;
    }
    each_unsaved(unsaved, newest.0, &mut |_, unix, sample| {
        if only.is_none_or(|only| only == sample.iface) {
            fold::pieces(unix, sample, from, to, &mut |at, cell| each(sample.iface, at, cell));
        }
    });
    Ok(newest.1)
}

/// Buckets of a level whose rows and cells have one length each.
fn row_buckets(
    conn: &Connection,
    level: &Level,
    iface: IfaceId,
    from: i64,
    to: i64,
    unsaved: &Unsaved,
) -> Result<Vec<Bucket>> {
    let from = fold::floor(from, level.cell_s);
    let to = fold::floor(to + level.cell_s - 1, level.cell_s);
    let mut out: Vec<(i64, Cell)> = Vec::new();
    let mut columns = Columns::default();
    let mut statement = conn.prepare_cached(level.range)?;
    let mut rows = statement.query([fold::floor(from, level.row_s), to])?;
    while let Some(row) = rows.next()? {
        let start: i64 = row.get(0)?;
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let read = unpack_cells(bytes, level.cell_s, Some(iface), &mut columns, &mut |_, at, cell| {
            let at = start + i64::from(at) * level.cell_s;
            if at >= from && at < to {
                out.push((at, *cell));
            }
        });
        if let Err(error) = read {
            log::error!("history around {start} is passed over: {error}");
        }
    }
    let mut more: BTreeMap<i64, Cell> = BTreeMap::new();
    recent(conn, &State::marks(conn)?, Some(iface), (from, to), unsaved, &mut |_, at, cell| {
        more.entry(fold::floor(at, level.cell_s)).or_default().add(cell);
    })?;
    for (at, cell) in more {
        match out.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(found) => out[found].1.add(&cell),
            Err(place) => out.insert(place, (at, cell)),
        }
    }
    Ok(out.into_iter().map(|(at, cell)| cell.bucket(at, at + level.cell_s)).collect())
}

fn day_buckets(
    conn: &Connection,
    iface: IfaceId,
    from: i64,
    to: i64,
    zone: &Zone,
    unsaved: &Unsaved,
) -> Result<Vec<Bucket>> {
    let days = days(conn, Some(iface), from, to, zone, unsaved)?;
    Ok(days.iter().map(|((start, until, _), cell)| cell.bucket(*start, *until)).collect())
}

/// A local day with its bounds, and whose it is.
type DayOf = (i64, i64, IfaceId);

/// Of one interface or of all, in the order of time.
fn days(
    conn: &Connection,
    only: Option<IfaceId>,
    from: i64,
    to: i64,
    zone: &Zone,
    unsaved: &Unsaved,
) -> Result<Vec<(DayOf, Cell)>> {
    let marks = State::marks(conn)?;
    // The days at the ends of the range reach beyond it.
    let range = (fold::floor(from - Days::AROUND_S, CELL_S), fold::floor(to + Days::AROUND_S, CELL_S));
    let mut cells: Vec<(IfaceId, i64, Cell)> = Vec::new();
    let newest = recent(conn, &marks, only, range, unsaved, &mut |iface, at, cell| cells.push((iface, at, *cell)))?;

    // The zone was changed a moment ago: the writer will cut the day anew with its next flush, readers do so now.
    let mut again = None;
    if marks.zone.as_deref() != Some(zone.name())
        && let Some((start, until, _)) = open_day(conn, newest)?
    {
        again = Some(start);
        each_cell(conn, only, start, until, &mut |iface, at, cell| cells.push((iface, at, *cell)))?;
    }

    let mut sums: BTreeMap<DayOf, Cell> = BTreeMap::new();
    let mut borders = Vec::new();
    let mut columns = Columns::default();
    let mut statement =
        conn.prepare_cached("SELECT start, until, data FROM day WHERE start > ?1 AND start < ?2 ORDER BY start")?;
    let mut rows = statement.query([range.0, range.1])?;
    while let Some(row) = rows.next()? {
        let (start, until) = (row.get(0)?, row.get(1)?);
        if again == Some(start) {
            continue;
        }
        borders.push((start, until));
        let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let read = unpack_cells(bytes, until - start, only, &mut columns, &mut |iface, _, cell| {
            sums.insert((start, until, iface), *cell);
        });
        if let Err(error) = read {
            log::error!("the day from {start} is passed over: {error}");
        }
    }
    let mut days = Days::new(borders);
    for (iface, at, cell) in &cells {
        let (start, until) = days.of(*at, zone);
        sums.entry((start, until, *iface)).or_default().add(cell);
    }
    let overlap = |((start, until, _), _): &(DayOf, Cell)| *start < to && *until > from;
    Ok(sums.into_iter().filter(overlap).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Batch;
    use crate::store::testing::{KEEP, OPTIONS, Place, T, record};
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
        let events = reader.events(&EventFilter::default(), 2_000, 0).unwrap();
        assert_eq!((events.len(), events[0].detail.as_str(), events[999].detail.as_str()), (1_000, "1299", "300"));
        assert_eq!((events[0].unix, events[0].kind, events[999].unix), (Some(T + 99), EventKind::Reset, None));
        assert_eq!(reader.events(&EventFilter::default(), 5, 10).unwrap()[0].detail, "1289");
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
        assert!(facts.size_bytes > 0 && facts.size_bytes.is_multiple_of(4_096));
    }
}
