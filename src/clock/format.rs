//! Formats and parses times. Pure. The error for an invalid time lists the accepted forms.

use super::zone::quoted;
use super::{Civil, Zone};
use crate::error::{Error, Result};

/// The last second of the year 9999: RFC 3339 has four digits for the year.
const LAST: i64 = 253_402_300_799;
/// Numbers from this one on are read as milliseconds: as milliseconds it is March 1973, as seconds the year 5138.
const FIRST_MILLISECONDS: i64 = 100_000_000_000;
/// The first second of the year 0.
const FIRST: i64 = -62_167_219_200;

/// UTC seconds as `2026-01-15T10:30:00Z`; clamped to the years 0 to 9999.
pub fn rfc3339(unix: i64) -> String {
    date_time(Civil::from_seconds(unix.clamp(FIRST, LAST)), "T") + "Z"
}

/// `2026-01-15`
pub fn date(civil: Civil) -> String {
    format!("{:04}-{:02}-{:02}", civil.year, civil.month, civil.day)
}

/// Local time in `zone` as `2026-01-15 11:30:00`, and its offset: seconds ahead of UTC.
pub fn local_time(unix: i64, zone: &Zone) -> (String, i64) {
    let unix = unix.clamp(FIRST, LAST);
    let civil = zone.civil(unix);
    (date_time(civil, " "), civil.seconds() - unix)
}

fn date_time(civil: Civil, separator: &str) -> String {
    let Civil { year, month, day, hour, minute, second } = civil;
    format!("{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}")
}

/// Parses a time from 1970 to 9999 into UTC seconds. Accepts RFC 3339 with `Z` or an offset, a local time in `zone`
/// without either, a date (local midnight), Unix seconds, or Unix milliseconds as JavaScript and Grafana send them.
pub fn parse_time(text: &str, zone: &Zone) -> Result<i64> {
    let text = text.trim();
    parse(text, zone).ok_or_else(|| {
        Error::usage(format!(
            "{} is not a time from 1970 to 9999, write 2026-01-15T10:30:00Z, a local 2026-01-15T10:30 or 2026-01-15, or \
             Unix seconds or milliseconds",
            quoted(text)
        ))
    })
}

fn parse(text: &str, zone: &Zone) -> Option<i64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        let unix = if number < FIRST_MILLISECONDS { number } else { number / 1000 };
        return (unix <= LAST).then_some(unix);
    }
    let mut scan = Scan(text.as_bytes());
    let year = scan.digits(4, 1970..=9999)?;
    let month = scan.field(b"-", 1..=12)? as u8;
    let day = scan.field(b"-", 1..=31)? as u8;
    let mut civil = Civil::date(i32::from(year), month, day);
    if civil.plus_days(0) != civil {
        // The date does not exist, for example 30 February: `plus_days` gave a day of the next month.
        return None;
    }

    let mut offset = None;
    if !scan.0.is_empty() {
        civil.hour = scan.field(b"Tt ", 0..=23)? as u8;
        civil.minute = scan.field(b":", 0..=59)? as u8;
        if scan.0.first() == Some(&b':') {
            // A leap second counts as the first second of the next minute, like in the kernel.
            civil.second = scan.field(b":", 0..=60)? as u8;
            scan.fraction()?;
        }
        offset = scan.offset()?;
    }
    let unix = match offset {
        Some(offset) => civil.seconds() - offset,
        None => zone.unix(civil),
    };
    // East of Greenwich, local midnight of 1 January 1970 is before Unix second 0. It is accepted as 0.
    Some(unix.clamp(0, LAST))
}

/// The rest of a time while it is parsed from left to right.
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

    /// A field of two digits after one of these separators.
    fn field(&mut self, bytes: &[u8], range: std::ops::RangeInclusive<u16>) -> Option<u16> {
        self.one_of(bytes)?;
        self.digits(2, range)
    }

    /// Skips an optional fraction of a second.
    fn fraction(&mut self) -> Option<()> {
        if self.one_of(b".,").is_some() {
            let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
            self.0 = &self.0[length..];
            return (length > 0).then_some(());
        }
        Some(())
    }

    /// Parses the rest as an offset: `Z`, `+02:00`, `+0200` or `+02`, in seconds ahead of UTC; `Some(None)` if there
    /// is none. A space counts as a plus, because an unencoded plus in a query string is decoded to a space.
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
    fn rfc3339_text() {
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
    fn local_times_and_their_offsets() {
        let check = |zone: &Zone, unix, expect: &str, offset| {
            assert_eq!(local_time(unix, zone), (expect.to_string(), offset));
        };
        check(&Zone::UTC, 1_768_473_000, "2026-01-15 10:30:00", 0);
        check(&berlin(), 1_768_473_000, "2026-01-15 11:30:00", 3600);
        // This hour occurs twice; only the offset distinguishes the two.
        check(&berlin(), 1_792_888_200, "2026-10-25 02:30:00", 7200);
        check(&berlin(), 1_792_891_800, "2026-10-25 02:30:00", 3600);
        check(&Zone::parse("<-0930>9:30").unwrap(), 0, "1969-12-31 14:30:00", -34_200);
    }

    #[test]
    fn valid_times() {
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
    fn invalid_times() {
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
    fn truncated_or_changed_times_do_not_panic() {
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
