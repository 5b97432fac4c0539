//! The export as CSV for spreadsheets (RFC 4180). All figures are whole numbers, so no field depends on the decimal
//! separator of a country.

use std::io;
use std::sync::Arc;

use super::Call;
use super::json::{BucketRecord, FIRST_COUNTERS, Flaw, Out, Record};
use crate::clock::{Zone, local_time, rfc3339};
use crate::model::{COUNTER_NAMES, COUNTERS, Counters};

/// Without a byte order mark, Excel reads the file in the code page of its country.
const BYTE_ORDER_MARK: &str = "\u{feff}";

// Allowed values; the first one is the default.
pub const BOM_VALUES: &[&str] = &["0", "1"];
pub const SEPARATORS: &[&str] = &[",", ";"];
pub const TIMES: &[&str] = &["utc", "local"];

/// Options of the CSV output.
pub struct Csv {
    byte_order_mark: bool,
    separator: &'static str,
    /// Write times in this time zone, with columns for the offset from UTC: without the offset, an hour that the clocks
    /// show twice would be ambiguous. `None`: write times in UTC.
    local: Option<Arc<Zone>>,
}

enum CsvField<'a> {
    Number(u64),
    Time(i64),
    Text(&'a str),
}
use CsvField::{Number, Text, Time};

impl Csv {
    pub fn from_call(call: &Call, zone: impl FnOnce() -> Arc<Zone>) -> Csv {
        let has = |name: &str, word: &str| call.values.text(name) == Some(word);
        let separator = SEPARATORS.iter().find(|it| has("separator", it)).unwrap_or(&SEPARATORS[0]);
        Csv { byte_order_mark: has("bom", BOM_VALUES[1]), separator, local: has("time", TIMES[1]).then(zone) }
    }

    /// Errors for a JSON request with parameters of CSV. Their default values are accepted.
    pub fn csv_only_params(call: &Call) -> Vec<Flaw> {
        let given = [("bom", BOM_VALUES), ("separator", SEPARATORS), ("time", TIMES)]
            .map(|(name, words)| (name, call.values.text(name).filter(|word| *word != words[0])));
        let flaw = |(name, word): (&str, Option<&str>)| {
            let loc = vec!["query".to_string(), name.to_string()];
            Some(Flaw {
                loc,
                msg: "is for CSV only: add format=csv, or leave this parameter out".to_string(),
                input: word?.to_string(),
            })
        };
        given.into_iter().filter_map(flaw).collect()
    }

    pub fn sample_header(&self, out: Out) -> io::Result<()> {
        let (first, others) = COUNTER_NAMES.split_at(FIRST_COUNTERS);
        let names = format!("id,timestamp,interface_name,{},created_at,{}", first.join(","), others.join(","));
        self.header_line(out, &names, &["utc_offset_seconds"])
    }

    pub fn sample(&self, out: Out, record: &Record) -> io::Result<()> {
        let leading = [Number(record.id), Time(record.timestamp.0), Text(&record.interface_name.0)];
        let counters = numbers(&record.counters.0).into_iter().take(FIRST_COUNTERS);
        let others = numbers(&record.others.0).into_iter().skip(FIRST_COUNTERS);
        let fields = leading.into_iter().chain(counters).chain([Time(record.created_at.0)]).chain(others);
        self.row(out, fields, &[record.timestamp.0])
    }

    pub fn bucket_header(&self, out: Out) -> io::Result<()> {
        let names = format!("from,to,interface_name,{},rx_peak,tx_peak,observed", COUNTER_NAMES.join(","));
        self.header_line(out, &names, &["from_utc_offset_seconds", "to_utc_offset_seconds"])
    }

    pub fn bucket(&self, out: Out, bucket: &BucketRecord) -> io::Result<()> {
        let leading = [Time(bucket.from.0), Time(bucket.to.0), Text(&bucket.interface_name.0)];
        let trailing = [bucket.rx_peak, bucket.tx_peak, bucket.observed].map(Number);
        let fields = leading.into_iter().chain(numbers(&bucket.counters.0)).chain(trailing);
        self.row(out, fields, &[bucket.from.0, bucket.to.0])
    }

    fn header_line(&self, out: Out, names: &str, offsets: &[&str]) -> io::Result<()> {
        let offsets = if self.local.is_some() { offsets } else { &[] };
        let names = names.split(',').chain(offsets.iter().copied()).collect::<Vec<_>>().join(self.separator);
        write!(out, "{}{names}\r\n", if self.byte_order_mark { BYTE_ORDER_MARK } else { "" })
    }

    /// `times`: the times whose UTC offsets end the row.
    fn row<'a>(&self, out: Out, fields: impl Iterator<Item = CsvField<'a>>, times: &[i64]) -> io::Result<()> {
        for (at, each) in fields.enumerate() {
            let separator = if at == 0 { "" } else { self.separator };
            match (each, &self.local) {
                (Number(number), _) => write!(out, "{separator}{number}")?,
                (Text(text), _) => write!(out, "{separator}{}", text_field(text))?,
                (Time(unix), None) => write!(out, "{separator}{}", rfc3339(unix))?,
                (Time(unix), Some(zone)) => write!(out, "{separator}{}", local_time(unix, zone).0)?,
            }
        }
        for (unix, zone) in times.iter().flat_map(|unix| self.local.as_ref().map(|zone| (*unix, zone))) {
            write!(out, "{}{}", self.separator, local_time(unix, zone).1)?;
        }
        out.write_all(b"\r\n")
    }
}

fn numbers<'a>(counters: &Counters) -> [CsvField<'a>; COUNTERS] {
    counters.0.map(Number)
}

/// A text field. Spreadsheets run text that begins like a formula, and an interface may be named `=cmd`: an apostrophe
/// in front prevents that (owasp.org/www-community/attacks/CSV_Injection). A text with any of the possible separators
/// is quoted, so that it is one field whichever separator a reader expects.
fn text_field(text: &str) -> String {
    let apostrophe = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    let plain =
        apostrophe.is_empty() && !text.contains(['"', '\n', '\r']) && !SEPARATORS.iter().any(|it| text.contains(it));
    if plain {
        return text.to_string();
    }
    format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fields_are_quoted_and_never_formulas() {
        let check = |text, expect| assert_eq!(text_field(text), expect);
        check("eth0", "eth0");
        check("", "");
        check("a,b", "\"a,b\"");
        check("a;b", "\"a;b\"");
        check("a\"b", "\"a\"\"b\"");
        check("a\nb", "\"a\nb\"");
        check("=cmd", "\"'=cmd\"");
        check("+1", "\"'+1\"");
        check("-1", "\"'-1\"");
        check("@x", "\"'@x\"");
        check("\tx", "\"'\tx\"");
        check("\rx", "\"'\rx\"");
        check("eth-1", "eth-1");
    }

    #[test]
    fn a_repeated_hour_is_two_rows() {
        let zone = Arc::new(Zone::parse("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        let csv = Csv { byte_order_mark: true, separator: ";", local: Some(zone) };
        let mut out = Vec::new();
        csv.header_line(&mut out, "from,to", &["from_utc_offset_seconds", "to_utc_offset_seconds"]).unwrap();
        for from in [1_792_886_400, 1_792_890_000] {
            csv.row(&mut out, [Time(from), Time(from + 3600)].into_iter(), &[from, from + 3600]).unwrap();
        }
        let expect = "\u{feff}from;to;from_utc_offset_seconds;to_utc_offset_seconds\r\n\
                      2026-10-25 02:00:00;2026-10-25 02:00:00;7200;3600\r\n\
                      2026-10-25 02:00:00;2026-10-25 03:00:00;3600;3600\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }
}
