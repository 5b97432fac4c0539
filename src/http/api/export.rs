//! Export of the history as JSON or CSV, in constant memory: each piece is sent before the next one is read. A client
//! that reads slowly occupies a worker but no read transaction: while one is open, the write-ahead log cannot be
//! checkpointed and grows.

use std::io;

use super::record;
use super::traffic::filter;
use crate::error::Error;
use crate::history::{BucketExport, InterfaceNames, SampleExport};
use crate::http::csv::Csv;
use crate::http::json::{BucketRecord, FlatCounters, Name, Out, Time, write};
use crate::http::{Answer, Call, Context, HttpError, JSON};
use crate::model::{Bucket, IfaceId};
use crate::resolution::{self, Bucketing, Resolution};

/// The first one is the default.
pub const FORMATS: &[&str] = &["json", "csv"];

pub fn traffic(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let format = call.values.text("format").unwrap_or_default();
    let csv = format == FORMATS[1];
    let csv_options = csv.then(|| Csv::from_call(call, || context.live.lock().zone.clone()));
    let csv_only = if csv { Vec::new() } else { Csv::csv_only_params(call) };
    if !csv_only.is_empty() {
        return Err(HttpError::flaws(csv_only));
    }
    let name = call.values.text("resolution").unwrap_or_default();
    let spec = resolution::by_name(name).unwrap_or(Resolution::Sample.spec());
    let limit = call.values.integer("limit").and_then(|limit| u64::try_from(limit).ok()).unwrap_or(u64::MAX);

    let filter = filter(context, call, &context.history.start_query());
    let mut rows = RowWriter { csv_options, limit, written: 0 };
    let media_type = if csv { "text/csv; charset=utf-8" } else { JSON };
    let mut answer = match spec.bucketing {
        Bucketing::Ticks => {
            // Read the first piece before the answer begins, so that a database error becomes a status and not half a
            // file.
            let mut export = SampleExport::new(filter);
            let first = export.next(&context.history)?;
            Answer::stream(media_type, move |context, out| {
                rows.start(out, Csv::sample_header)?;
                let mut piece = first;
                while let Some((points, names)) = piece {
                    for point in &points {
                        let record = record(point, &names);
                        if !rows.row(out, |csv, out| csv.sample(out, &record), |out| write(out, &record))? {
                            return rows.end(out);
                        }
                    }
                    piece = export.next(&context.history).map_err(io_error)?;
                }
                rows.end(out)
            })
        }
        _ => {
            let mut export = BucketExport::new(&context.history, spec.resolution, filter, call.unix())?;
            Answer::stream(media_type, move |context, out| {
                rows.start(out, Csv::bucket_header)?;
                while let Some((buckets, names)) = export.next(&context.history).map_err(io_error)? {
                    for (iface, bucket) in &buckets {
                        let bucket = describe(bucket, *iface, &names);
                        if !rows.row(out, |csv, out| csv.bucket(out, &bucket), |out| write(out, &bucket))? {
                            return rows.end(out);
                        }
                    }
                }
                rows.end(out)
            })
        }
    };
    if csv {
        answer.header("Content-Disposition", "attachment; filename=traffic_data.csv");
    }
    Ok(answer)
}

/// Writes rows as JSON or CSV.
struct RowWriter {
    /// CSV options; `None` for JSON.
    csv_options: Option<Csv>,
    limit: u64,
    written: u64,
}

impl RowWriter {
    fn start(&self, out: Out, csv: impl FnOnce(&Csv, Out) -> io::Result<()>) -> io::Result<()> {
        match &self.csv_options {
            Some(csv_options) => csv(csv_options, out),
            None => out.write_all(b"["),
        }
    }

    /// Writes a row, or returns `false` if the limit was reached before it.
    fn row(
        &mut self,
        out: Out,
        csv: impl FnOnce(&Csv, Out) -> io::Result<()>,
        json: impl FnOnce(Out) -> io::Result<()>,
    ) -> io::Result<bool> {
        if self.written == self.limit {
            return Ok(false);
        }
        match (&self.csv_options, self.written) {
            (Some(csv_options), _) => csv(csv_options, out)?,
            (None, 0) => json(out)?,
            (None, _) => {
                out.write_all(b",")?;
                json(out)?;
            }
        }
        self.written += 1;
        Ok(true)
    }

    fn end(&self, out: Out) -> io::Result<()> {
        out.write_all(if self.csv_options.is_some() { b"" } else { b"]" })
    }
}

/// An error while the body is written. If nothing is sent yet, `server` answers with status 500; else it logs the
/// error.
fn io_error(error: Error) -> io::Error {
    io::Error::other(HttpError::from(error))
}

fn describe(bucket: &Bucket, iface: IfaceId, names: &InterfaceNames) -> BucketRecord {
    BucketRecord {
        from: Time(bucket.from),
        to: Time(bucket.to),
        interface_name: Name(names.name(iface)),
        counters: FlatCounters(bucket.cell.sum),
        rx_peak: bucket.cell.rx_peak,
        tx_peak: bucket.cell.tx_peak,
        observed: bucket.cell.observed(),
    }
}
