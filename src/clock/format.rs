//! Times as text, and text as times. Pure, and never at a loss: what is no time is an error that says what would be.

use super::zone::quoted;
use super::{Civil, Zone};
use crate::error::{Error, Result};

/// The last second of the year 9999: four digits are all that RFC 3339 has.
const LAST: i64 = 253_402_300_799;
/// Numbers from here on are milliseconds: as seconds they would lie beyond the year 5138, as milliseconds this is March 1973.
const MILLISECONDS: i64 = 100_000_000_000;
/// The first second of the year 0.
const FIRST: i64 = -62_167_219_200;

/// `2026-01-15T10:30:00Z`
pub fn rfc3339(unix: i64) -> String {
    written(Civil::from_seconds(unix.clamp(FIRST, LAST)), "T") + "Z"
}

/// `2026-01-15`
pub fn date(civil: Civil) -> String {
    format!("{:04}-{:02}-{:02}", civil.year, civil.month, civil.day)
}

/// `2026-01-15 11:30:00`, as the clocks of `zone` show it, and how many seconds they are ahead of UTC.
pub fn local_time(unix: i64, zone: &Zone) -> (String, i64) {
    let unix = unix.clamp(FIRST, LAST);
    let civil = zone.civil(unix);
    (written(civil, " "), civil.seconds() - unix)
}

fn written(civil: Civil, between: &str) -> String {
    let Civil { year, month, day, hour, minute, second } = civil;
    format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}")
}

/// RFC 3339 with `Z` or an offset, a local date-time without one (read in `zone`), a bare date, integer Unix seconds, or
/// Unix milliseconds, which JavaScript counts in and Grafana sends. The years 1970 to 9999.
pub fn parse_time(text: &str, zone: &Zone) -> Result<i64> {
    let text = text.trim();
    read(text, zone).ok_or_else(|| {
        Error::usage(format!(
            "{} is not a time from 1970 to 9999, write 2026-01-15T10:30:00Z, a local 2026-01-15T10:30 or 2026-01-15, or \
             Unix seconds or milliseconds",
            quoted(text)
        ))
    })
}

fn read(text: &str, zone: &Zone) -> Option<i64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        let unix = if number < MILLISECONDS { number } else { number / 1000 };
        return (unix <= LAST).then_some(unix);
    }
    let mut scan = Scan(text.as_bytes());
    let year = scan.digits(4, 1970..=9999)?;
    let month = scan.after(b"-", 1..=12)? as u8;
    let day = scan.after(b"-", 1..=31)? as u8;
    let mut civil = Civil::date(i32::from(year), month, day);
    if civil.plus_days(0) != civil {
        // 30 February ran over into March.
        return None;
    }

    let mut offset = None;
    if !scan.0.is_empty() {
        civil.hour = scan.after(b"Tt ", 0..=23)? as u8;
        civil.minute = scan.after(b":", 0..=59)? as u8;
        if scan.0.first() == Some(&b':') {
            // A leap second counts as the first one of the next minute, as the kernel has it.
            civil.second = scan.after(b":", 0..=60)? as u8;
            scan.fraction()?;
        }
        offset = scan.offset()?;
    }
    let unix = match offset {
        Some(offset) => civil.seconds() - offset,
        None => zone.unix(civil),
    };
    // Midnight of 1 January 1970 lies before the first second east of Greenwich: it means "from the beginning".
    Some(unix.clamp(0, LAST))
}

struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn digits(&mut self, count: usize, range: std::ops::RangeInclusive<u16>) -> Option<u16> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        let value = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        range.contains(&value).then_some(value)
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        bytes.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// Two digits behind one of these.
    fn after(&mut self, bytes: &[u8], range: std::ops::RangeInclusive<u16>) -> Option<u16> {
        self.one_of(bytes)?;
        self.digits(2, range)
    }

    /// Nothing is kept finer than a second.
    fn fraction(&mut self) -> Option<()> {
        if self.one_of(b".,").is_some() {
            let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
            self.0 = &self.0[length..];
            return (length > 0).then_some(());
        }
        Some(())
    }

    /// The rest of the text: nothing, `Z`, `+02:00`, `+0200` or `+02`, as seconds to take off. A space counts as a plus,
    /// for that is what a plus in a query string turns into when the client forgot to encode it.
    fn offset(&mut self) -> Option<Option<i64>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let sign = self.one_of(b"Zz+- ")?;
        let mut seconds = 0;
        if matches!(sign, b'+' | b'-' | b' ') {
            seconds = i64::from(self.digits(2, 0..=23)?) * 3600;
            if !self.0.is_empty() {
                let _ = self.one_of(b":");
                seconds += i64::from(self.digits(2, 0..=59)?) * 60;
            }
        }
        self.0.is_empty().then_some(Some(if sign == b'-' { -seconds } else { seconds }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zone {
        Zone::parse("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn instants_as_text() {
        fn check(unix: i64, expect: &str) {
            assert_eq!(rfc3339(unix), expect);
        }
        check(0, "1970-01-01T00:00:00Z");
        check(1_768_473_000, "2026-01-15T10:30:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(4_294_967_296, "2106-02-07T06:28:16Z");
        check(-1, "1969-12-31T23:59:59Z");
        check(i64::MAX, "9999-12-31T23:59:59Z");
        check(i64::MIN, "0000-01-01T00:00:00Z");
    }

    #[test]
    fn local_times_and_how_far_they_are_ahead() {
        let check = |zone: &Zone, unix, expect: &str, ahead| {
            assert_eq!(local_time(unix, zone), (expect.to_string(), ahead));
        };
        check(&Zone::UTC, 1_768_473_000, "2026-01-15 10:30:00", 0);
        check(&berlin(), 1_768_473_000, "2026-01-15 11:30:00", 3600);
        // The hour that is there twice: only the second figure tells which it is.
        check(&berlin(), 1_792_888_200, "2026-10-25 02:30:00", 7200);
        check(&berlin(), 1_792_891_800, "2026-10-25 02:30:00", 3600);
        check(&Zone::parse("<-0930>9:30").unwrap(), 0, "1969-12-31 14:30:00", -34_200);
    }

    #[test]
    fn text_that_is_a_time() {
        fn check(text: &str, expect: &str) {
            assert_eq!(rfc3339(parse_time(text, &berlin()).unwrap()), expect, "{text}");
        }
        check("2026-01-15T10:30:00Z", "2026-01-15T10:30:00Z");
        check("2026-01-15t10:30:00z", "2026-01-15T10:30:00Z");
        check("2026-01-15 10:30:00Z", "2026-01-15T10:30:00Z");
        check(" 2026-01-15T10:30:00.999999999Z ", "2026-01-15T10:30:00Z");
        check("2026-01-15T10:30:00+02:00", "2026-01-15T08:30:00Z");
        check("2026-01-15T10:30:00 02:00", "2026-01-15T08:30:00Z");
        check("2026-01-15T10:30:00-0530", "2026-01-15T16:00:00Z");
        check("2026-01-15T10:30+01", "2026-01-15T09:30:00Z");
        check("2026-01-15T10:30:00-00:00", "2026-01-15T10:30:00Z");
        check("2026-01-15T10:30:00", "2026-01-15T09:30:00Z");
        check("2026-07-15T10:30", "2026-07-15T08:30:00Z");
        check("2026-03-29T02:30:00", "2026-03-29T01:00:00Z");
        check("2026-01-15", "2026-01-14T23:00:00Z");
        check("2024-02-29", "2024-02-28T23:00:00Z");
        check("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z");
        check("1768473000", "2026-01-15T10:30:00Z");
        check("0", "1970-01-01T00:00:00Z");
        check("1970-01-01", "1970-01-01T00:00:00Z");
        check("99999999999", "5138-11-16T09:46:39Z");
        check("100000000000", "1973-03-03T09:46:40Z");
        check("1768473000999", "2026-01-15T10:30:00Z");
        check("001768473000", "2026-01-15T10:30:00Z");
        check("253402300799999", "9999-12-31T23:59:59Z");
        check("9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59Z");
    }

    #[test]
    fn text_that_is_not() {
        for text in [
            "",
            " ",
            "-1",
            "+5",
            "1.5",
            "now",
            "-1768473000000",
            "1768473000000.5",
            "253402300800000",
            "99999999999999999999999",
            "1969-12-31",
            "10000-01-01",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "2026-02-29",
            "2026-04-31",
            "2026-1-5",
            "2026-01-15T",
            "2026-01-15T10",
            "2026-01-15T24:00:00Z",
            "2026-01-15T10:60:00Z",
            "2026-01-15T10:30:61Z",
            "2026-01-15T10:30:00.Z",
            "2026-01-15T10:30:00Z!",
            "2026-01-15T10:30:00+2",
            "2026-01-15T10:30:00+24:00",
            "2026-01-15T10:30:00+02:60",
            "2026-01-15T10:30:00+02:",
            "2026-01-15X10:30:00Z",
            "2026-01-15Z",
            "\u{ff12}026-01-15",
            "2026-01-15T10:30:00\u{e9}",
        ] {
            let error = parse_time(text, &berlin()).unwrap_err().to_string();
            assert!(error.starts_with('\'') && error.contains("is not a time from 1970 to 9999"), "{text}: {error}");
        }
    }

    #[test]
    fn every_cut_and_change_of_a_time_is_survived() {
        let good = "2026-01-15T10:30:00.25+02:00";
        for at in 0..good.len() {
            let _ = parse_time(&good[..at], &berlin());
            for byte in 0..128u8 {
                let mut bad = good.as_bytes().to_vec();
                bad[at] = byte;
                let _ = parse_time(std::str::from_utf8(&bad).unwrap(), &berlin());
            }
        }
    }
}
