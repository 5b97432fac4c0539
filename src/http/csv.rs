//! The export as a table for spreadsheets (RFC 4180). All figures are whole numbers: no cell depends on whether a
//! country writes decimals with a comma.

use std::io;
use std::sync::Arc;

use super::Call;
use super::json::{BucketRecord, FIRST_COUNTERS, Flaw, Out, Record};
use crate::clock::{Zone, local_time, rfc3339};
use crate::model::{COUNTER_NAMES, COUNTERS, Counters};

/// Excel takes a file without it for one in the code page of its country.
const BYTE_ORDER_MARK: &str = "\u{feff}";

// What may be asked for, the default first.
pub const MARKS: &[&str] = &["0", "1"];
pub const SEPARATORS: &[&str] = &[",", ";"];
pub const TIMES: &[&str] = &["utc", "local"];

/// How the table is wanted.
pub struct Csv {
    mark: bool,
    separator: &'static str,
    /// Times are those of this zone, and further columns say how far it is ahead of UTC: an hour that the clocks show
    /// twice would be one hour otherwise.
    local: Option<Arc<Zone>>,
}

enum Cell<'a> {
    Number(u64),
    Time(i64),
    Text(&'a str),
}
use Cell::{Number, Text, Time};

impl Csv {
    pub fn of(call: &Call, zone: impl FnOnce() -> Arc<Zone>) -> Csv {
        let has = |name: &str, word: &str| call.values.text(name) == Some(word);
        let separator = SEPARATORS.iter().find(|it| has("separator", it)).unwrap_or(&SEPARATORS[0]);
        Csv { mark: has("bom", MARKS[1]), separator, local: has("time", TIMES[1]).then(zone) }
    }

    /// What was asked for that only a table has.
    pub fn misplaced(call: &Call) -> Vec<Flaw> {
        let asked = [("bom", MARKS), ("separator", SEPARATORS), ("time", TIMES)]
            .map(|(name, words)| (name, call.values.text(name).filter(|word| *word != words[0])));
        let flaw = |(name, word): (&str, Option<&str>)| {
            let loc = vec!["query".to_string(), name.to_string()];
            Some(Flaw {
                loc,
                msg: "is for CSV alone: add format=csv, or leave it out".to_string(),
                input: word?.to_string(),
            })
        };
        asked.into_iter().filter_map(flaw).collect()
    }

    pub fn sample_head(&self, out: Out) -> io::Result<()> {
        let (first, others) = COUNTER_NAMES.split_at(FIRST_COUNTERS);
        let names = format!("id,timestamp,interface_name,{},created_at,{}", first.join(","), others.join(","));
        self.head(out, &names, &["utc_offset_seconds"])
    }

    pub fn sample(&self, out: Out, record: &Record) -> io::Result<()> {
        let in_front = [Number(record.id), Time(record.timestamp.0), Text(&record.interface_name.0)];
        let counters = numbers(&record.counters.0).into_iter().take(FIRST_COUNTERS);
        let others = numbers(&record.others.0).into_iter().skip(FIRST_COUNTERS);
        let cells = in_front.into_iter().chain(counters).chain([Time(record.created_at.0)]).chain(others);
        self.row(out, cells, &[record.timestamp.0])
    }

    pub fn bucket_head(&self, out: Out) -> io::Result<()> {
        let names = format!("from,to,interface_name,{},rx_peak,tx_peak,observed", COUNTER_NAMES.join(","));
        self.head(out, &names, &["from_utc_offset_seconds", "to_utc_offset_seconds"])
    }

    pub fn bucket(&self, out: Out, bucket: &BucketRecord) -> io::Result<()> {
        let in_front = [Time(bucket.from.0), Time(bucket.to.0), Text(&bucket.interface_name.0)];
        let behind = [bucket.rx_peak, bucket.tx_peak, bucket.observed].map(Number);
        let cells = in_front.into_iter().chain(numbers(&bucket.counters.0)).chain(behind);
        self.row(out, cells, &[bucket.from.0, bucket.to.0])
    }

    fn head(&self, out: Out, names: &str, offsets: &[&str]) -> io::Result<()> {
        let offsets = if self.local.is_some() { offsets } else { &[] };
        let names = names.split(',').chain(offsets.iter().copied()).collect::<Vec<_>>().join(self.separator);
        write!(out, "{}{names}\r\n", if self.mark { BYTE_ORDER_MARK } else { "" })
    }

    /// `times` are those whose offsets follow.
    fn row<'a>(&self, out: Out, cells: impl Iterator<Item = Cell<'a>>, times: &[i64]) -> io::Result<()> {
        for (at, each) in cells.enumerate() {
            let separator = if at == 0 { "" } else { self.separator };
            match (each, &self.local) {
                (Number(number), _) => write!(out, "{separator}{number}")?,
                (Text(text), _) => write!(out, "{separator}{}", cell(text))?,
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

fn numbers<'a>(counters: &Counters) -> [Cell<'a>; COUNTERS] {
    counters.0.map(Number)
}

/// A text as a cell. Spreadsheets run what begins like a formula, and an interface may be named `=cmd`: an apostrophe in
/// front makes it text there (owasp.org/www-community/attacks/CSV_Injection). Every separator that there is has the text
/// quoted, so that a name is one cell whichever a reader takes.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    let plain = guard.is_empty() && !text.contains(['"', '\n', '\r']) && !SEPARATORS.iter().any(|it| text.contains(it));
    if plain {
        return text.to_string();
    }
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_text_and_nothing_else() {
        let check = |text, expect| assert_eq!(cell(text), expect);
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
    fn an_hour_that_is_there_twice_is_two_rows() {
        let zone = Arc::new(Zone::parse("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        let csv = Csv { mark: true, separator: ";", local: Some(zone) };
        let mut out = Vec::new();
        csv.head(&mut out, "from,to", &["from_utc_offset_seconds", "to_utc_offset_seconds"]).unwrap();
        for from in [1_792_886_400, 1_792_890_000] {
            csv.row(&mut out, [Time(from), Time(from + 3600)].into_iter(), &[from, from + 3600]).unwrap();
        }
        let expect = "\u{feff}from;to;from_utc_offset_seconds;to_utc_offset_seconds\r\n\
                      2026-10-25 02:00:00;2026-10-25 02:00:00;7200;3600\r\n\
                      2026-10-25 02:00:00;2026-10-25 03:00:00;3600;3600\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }
}
