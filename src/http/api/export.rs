//! History as a file of any length, in constant memory: read in short pieces, each of which is a transaction of its own
//! and written before the next one is read. A client that stalls holds a worker, and nothing else: the write-ahead log
//! would grow without end behind a read transaction that waits for it.

use std::io;
use std::sync::Arc;

use super::traffic::filter;
use super::{Memory, Names, record};
use crate::clock::Zone;
use crate::http::csv::Csv;
use crate::http::json::{BucketRecord, Counted, Out, Time, write};
use crate::http::{Answer, Call, Context, Fault, JSON};
use crate::model::{Bucket, IfaceId, Resolution};
use crate::store::{Cursor, Filter, Point, Unstored};

pub const FORMATS: &[&str] = &["json", "csv"];
/// Samples of one piece.
const PIECE: usize = 500;
/// Buckets of one piece, of all interfaces together.
const BUCKETS: usize = 900;

pub fn traffic(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let format = call.values.text("format").unwrap_or_default();
    let csv = format == FORMATS[1];
    let table = csv.then(|| Csv::of(call, || context.live.lock().zone.clone()));
    let misplaced = if csv { Vec::new() } else { Csv::misplaced(call) };
    if !misplaced.is_empty() {
        return Err(Fault::flaws(misplaced));
    }
    let word = call.values.text("resolution").unwrap_or_default();
    let level =
        Resolution::NAMES.iter().find(|(_, name)| *name == word).map_or(Resolution::Sample, |(level, _)| *level);
    let limit = call.values.integer("limit").and_then(|limit| u64::try_from(limit).ok()).unwrap_or(u64::MAX);

    let memory = Memory::of(context);
    let filter = filter(context, call, &memory);
    let mut rows = Rows { table, limit, written: 0 };
    let media = if csv { "text/csv; charset=utf-8" } else { JSON };
    let mut answer = match level {
        Resolution::Sample => {
            // The first piece is read here: a history that cannot be read is a status, not half a file.
            let mut walk = Walk { filter, after: None, over: false };
            let first = walk.next(context)?;
            Answer::stream(media, move |context, out| {
                rows.head(out, Csv::sample_head)?;
                let mut piece = first;
                while let Some((points, names)) = piece {
                    for point in &points {
                        let record = record(point, &names);
                        if !rows.row(out, |csv, out| csv.sample(out, &record), |out| write(out, &record))? {
                            return rows.tail(out);
                        }
                    }
                    piece = walk.next(context).map_err(io::Error::other)?;
                }
                rows.tail(out)
            })
        }
        _ => {
            let mut steps = Steps::new(context, level, filter, call.unix())?;
            Answer::stream(media, move |context, out| {
                rows.head(out, Csv::bucket_head)?;
                while let Some((buckets, names)) = steps.next(context).map_err(io::Error::other)? {
                    for (iface, bucket) in &buckets {
                        let bucket = describe(bucket, *iface, &names);
                        if !rows.row(out, |csv, out| csv.bucket(out, &bucket), |out| write(out, &bucket))? {
                            return rows.tail(out);
                        }
                    }
                }
                rows.tail(out)
            })
        }
    };
    if csv {
        answer.header("Content-Disposition", "attachment; filename=traffic_data.csv");
    }
    Ok(answer)
}

/// The rows that both formats have in common.
struct Rows {
    /// `None` for JSON.
    table: Option<Csv>,
    limit: u64,
    written: u64,
}

impl Rows {
    fn head(&self, out: Out, csv: impl FnOnce(&Csv, Out) -> io::Result<()>) -> io::Result<()> {
        match &self.table {
            Some(table) => csv(table, out),
            None => out.write_all(b"["),
        }
    }

    /// `false` when there were enough.
    fn row(
        &mut self,
        out: Out,
        csv: impl FnOnce(&Csv, Out) -> io::Result<()>,
        json: impl FnOnce(Out) -> io::Result<()>,
    ) -> io::Result<bool> {
        if self.written == self.limit {
            return Ok(false);
        }
        match (&self.table, self.written) {
            (Some(table), _) => csv(table, out)?,
            (None, 0) => json(out)?,
            (None, _) => {
                out.write_all(b",")?;
                json(out)?;
            }
        }
        self.written += 1;
        Ok(true)
    }

    fn tail(&self, out: Out) -> io::Result<()> {
        out.write_all(if self.table.is_some() { b"" } else { b"]" })
    }
}

/// A walk through the samples.
struct Walk {
    /// `None` for an interface that nothing is known of.
    filter: Option<Filter>,
    after: Option<Cursor>,
    over: bool,
}

impl Walk {
    fn next(&mut self, context: &Context) -> Result<Option<(Vec<Point>, Names)>, Fault> {
        let Some(filter) = self.filter.clone().filter(|_| !self.over) else { return Ok(None) };
        // Anew for each piece: what was unsaved may have been saved meanwhile.
        let memory = Memory::of(context);
        let (asked, after) = (filter.clone(), self.after);
        let read = memory.ask_strictly(context, move |reader, unsaved| reader.oldest(&asked, after, PIECE, unsaved))?;
        let (points, after) = read.unwrap_or_else(|| (memory.points(filter).collect(), None));
        self.over = after.is_none();
        self.after = after;
        Ok(Some((points, memory.names)))
    }
}

type Stretch = (Vec<(IfaceId, Bucket)>, Names);

/// A walk through the buckets of a level: stretches of time, each for all interfaces.
struct Steps {
    level: Resolution,
    zone: Arc<Zone>,
    ifaces: Vec<IfaceId>,
    from: i64,
    to: i64,
    at: i64,
    /// The latest stretch had nothing to tell.
    barren: bool,
}

impl Steps {
    fn new(context: &Context, level: Resolution, filter: Option<Filter>, now: i64) -> Result<Steps, Fault> {
        let (zone, ifaces) = {
            let state = context.live.lock();
            let ifaces: Vec<IfaceId> = Names::of(&state).0.keys().copied().collect();
            (state.zone.clone(), ifaces)
        };
        let Some(filter) = filter else {
            return Ok(Steps { level, zone, ifaces: Vec::new(), from: 0, to: 0, at: 0, barren: false });
        };
        let beginning = next_of(context, &Memory::of(context), level, 0)?;
        let from = filter.from.unwrap_or(i64::MIN).max(beginning.unwrap_or(i64::MAX));
        // What lies in the future was written while the clock was wrong; a year of it is looked at.
        let to = filter.to.unwrap_or(i64::MAX).min(now.saturating_add(366 * 86_400));
        let ifaces = filter.iface.map_or(ifaces, |iface| vec![iface]);
        Ok(Steps { level, zone, ifaces, from, to, at: from, barren: false })
    }

    /// Buckets in the order of time, then of interfaces; `None` at the end.
    fn next(&mut self, context: &Context) -> Result<Option<Stretch>, Fault> {
        if self.at >= self.to || self.ifaces.is_empty() {
            return Ok(None);
        }
        const LENGTHS: [(Resolution, i64); 3] =
            [(Resolution::FiveMinutes, 300), (Resolution::Hour, 3600), (Resolution::Day, 86_400)];
        let length = LENGTHS.iter().find(|(level, _)| *level == self.level).map_or(300, |(_, length)| *length);
        let memory = Memory::of(context);
        if self.barren {
            // A clock that was in 1970 for an hour has left a row there, and half a century of nothing behind it.
            match next_of(context, &memory, self.level, self.at)? {
                Some(next) => self.at = self.at.max(next - next.rem_euclid(length)),
                None => self.at = self.to,
            }
        }
        let stride = (BUCKETS / self.ifaces.len()).max(1) as i64;
        let (from, to) = (self.at, self.to.min(self.at.saturating_add(stride * length)));
        self.at = to;
        if from >= to {
            return Ok(None);
        }

        let (level, zone, beginning) = (self.level, self.zone.clone(), self.from);
        // A bucket that began in the stretch before was told of there.
        let wanted = move |bucket: &Bucket| bucket.from >= from || from == beginning;
        let mut rows = Vec::new();
        for iface in &self.ifaces {
            let (iface, zone) = (*iface, zone.clone());
            let stored = memory.ask_strictly(context, {
                let zone = zone.clone();
                move |reader, unsaved| {
                    let mut rows = Vec::new();
                    let add = &mut |bucket: &Bucket| rows.extend(wanted(bucket).then_some((iface, *bucket)));
                    reader.each_bucket(level, iface, (from, to), &zone, unsaved, add)?;
                    Ok(rows)
                }
            })?;
            match stored {
                Some(stored) => rows.extend(stored),
                None => {
                    let add = &mut |bucket: &Bucket| rows.extend(wanted(bucket).then_some((iface, *bucket)));
                    Unstored(&memory.unsaved).each_bucket(level, iface, (from, to), &zone, add)?;
                }
            }
        }
        self.barren = rows.is_empty();
        rows.sort_unstable_by_key(|(iface, bucket)| (bucket.from, *iface));
        Ok(Some((rows, memory.names)))
    }
}

/// Where buckets may follow that end after `from`.
fn next_of(context: &Context, memory: &Memory, level: Resolution, from: i64) -> Result<Option<i64>, Fault> {
    match memory.ask_strictly(context, move |reader, unsaved| reader.next_of(level, from, unsaved))? {
        Some(next) => Ok(next),
        None => Ok(Unstored(&memory.unsaved).next_of(level, from)?),
    }
}

fn describe(bucket: &Bucket, iface: IfaceId, names: &Names) -> BucketRecord {
    BucketRecord {
        from: Time(bucket.from),
        to: Time(bucket.to),
        interface_name: names.name(iface),
        counters: Counted(bucket.sum),
        rx_peak: bucket.rx_peak,
        tx_peak: bucket.tx_peak,
        observed: u64::from(bucket.covered) + u64::from(bucket.blind),
    }
}
