//! History as a file of any length, in constant memory: each piece is written before the next one is read. A client that
//! stalls holds a worker, and nothing else: the write-ahead log would grow without end behind a read transaction that waits
//! for it.

use std::io;

use super::record;
use super::traffic::filter;
use crate::error::Error;
use crate::history::{Names, Steps, Walk};
use crate::http::csv::Csv;
use crate::http::json::{BucketRecord, Counted, Name, Out, Time, write};
use crate::http::{Answer, Call, Context, Fault, JSON};
use crate::level::{self, Cut, Resolution};
use crate::model::{Bucket, IfaceId};

pub const FORMATS: &[&str] = &["json", "csv"];
pub fn traffic(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let format = call.values.text("format").unwrap_or_default();
    let csv = format == FORMATS[1];
    let table = csv.then(|| Csv::of(call, || context.live.lock().zone.clone()));
    let misplaced = if csv { Vec::new() } else { Csv::misplaced(call) };
    if !misplaced.is_empty() {
        return Err(Fault::flaws(misplaced));
    }
    let word = call.values.text("resolution").unwrap_or_default();
    let level = level::named(word).unwrap_or(Resolution::Sample.level());
    let limit = call.values.integer("limit").and_then(|limit| u64::try_from(limit).ok()).unwrap_or(u64::MAX);

    let filter = filter(context, call, &context.history.moment());
    let mut rows = Rows { table, limit, written: 0 };
    let media = if csv { "text/csv; charset=utf-8" } else { JSON };
    let mut answer = match level.cut {
        Cut::Ticks => {
            // The first piece is read here: a history that cannot be read is a status, not half a file.
            let mut walk = Walk::new(filter);
            let first = walk.next(&context.history)?;
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
                    piece = walk.next(&context.history).map_err(fault)?;
                }
                rows.tail(out)
            })
        }
        _ => {
            let mut steps = Steps::new(&context.history, level.resolution, filter, call.unix())?;
            Answer::stream(media, move |context, out| {
                rows.head(out, Csv::bucket_head)?;
                while let Some((buckets, names)) = steps.next(&context.history).map_err(fault)? {
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

/// In the middle of a file it is the log that is told.
fn fault(error: Error) -> io::Error {
    io::Error::other(Fault::from(error))
}

fn describe(bucket: &Bucket, iface: IfaceId, names: &Names) -> BucketRecord {
    BucketRecord {
        from: Time(bucket.from),
        to: Time(bucket.to),
        interface_name: Name(names.name(iface)),
        counters: Counted(bucket.cell.sum),
        rx_peak: bucket.cell.rx_peak,
        tx_peak: bucket.cell.tx_peak,
        observed: bucket.cell.observed(),
    }
}
