//! POSIX time zones, read by ourselves: a static musl binary ignores `/etc/TZ`, and routers have no zoneinfo. Knows the
//! rule in force now and nothing of how a country's rules changed: local days are cut when they close and kept as cut.
//! Parsing is pure; the files that `find` looks at are read by its caller. Any text, any bytes and any `i64` are survived.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::text::printable;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
/// Days from a Monday to 1 January 1970, which was a Thursday.
const MONDAY: i64 = 3;

/// Seconds of UTC at the ends of the years -9999 and 9999. Instants beyond are taken for the nearer end.
const FIRST: i64 = days(-9999, 1, 1) * DAY;
const LAST: i64 = days(10_000, 1, 1) * DAY - 1;

/// Dates reach a little farther: the local date at either end, and the period that it lies in, must have an end of their
/// own.
const LAST_YEAR: i32 = 10_010;

const ZONEINFO: &str = "/usr/share/zoneinfo";

/// Zones that need no file, because `/etc/TZ` of a fresh OpenWrt says `UTC` with no offset behind it.
const UNIVERSAL: [&str; 6] = ["UTC", "GMT", "Etc/UTC", "Etc/GMT", "UCT", "Zulu"];

/// POSIX leaves open what a summer name without rules means; glibc and musl agree on the rule of the United States.
const DEFAULT_RULES: (Turn, Turn) = (
    Turn { day: Yearday::Weekday { month: 3, week: 2, weekday: 0 }, at: 7200 },
    Turn { day: Yearday::Weekday { month: 11, week: 1, weekday: 0 }, at: 7200 },
);

/// A rule for local time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// `None` is UTC.
    name: Option<Arc<str>>,
    /// Seconds to add to UTC.
    standard: i32,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    offset: i32,
    begins: Turn,
    ends: Turn,
}

/// When the clocks change: `at` seconds after midnight of a day, by the clock that is in force before the change.
/// RFC 8536 lets `at` reach a week into either direction, so that a turn may fall into a neighbouring year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    day: Yearday,
    at: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Yearday {
    /// `Mm.w.d`: weekday 0 is Sunday, week 5 is the last one.
    Weekday { month: u8, week: u8, weekday: u8 },
    /// `Jn`, 1..=365: 29 February is never counted.
    Julian(u16),
    /// `n`, 0..=365: 29 February counts.
    Count(u16),
}

/// A local date and time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil {
    pub year: i32,
    /// 1..=12
    pub month: u8,
    /// 1..=31
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

/// What `Zone::find` came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub zone: Zone,
    /// `--timezone`, `TZ`, `/etc/TZ`, `/etc/localtime`, or `default`.
    pub source: &'static str,
    /// Candidates that said something unusable and were passed over; for the log.
    pub warnings: Vec<String>,
}

impl Zone {
    pub const UTC: Zone = Zone { name: None, standard: 0, summer: None };

    /// A POSIX TZ string (`CET-1CEST,M3.5.0,M10.5.0/3`, `<+03>-3`), or plain `UTC`. White space around it is ignored.
    pub fn parse(text: &str) -> Result<Zone> {
        let text = text.trim();
        if UNIVERSAL.iter().any(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(Zone { name: Some(text.into()), ..Zone::UTC });
        }
        Scan(text.as_bytes()).zone(text).ok_or_else(|| {
            Error::usage(format!(
                "{} is not a POSIX time zone, write one like CET-1CEST,M3.5.0,M10.5.0/3 or UTC0",
                quoted(text)
            ))
        })
    }

    /// The zone to go by: `argument` (`--timezone`), else `tz` (the environment's `TZ`), else `/etc/TZ`, else the footer
    /// of `/etc/localtime`, else UTC. An empty value counts as none: `TZ="$(cat /etc/TZ)"` in an init script gives one
    /// where that file is missing. Only a bad argument is an error; the others are passed over with a warning, because a
    /// router that counts in UTC is better than one that does not count.
    pub fn find(
        argument: Option<&str>,
        tz: Option<&str>,
        read_file: impl Fn(&Path) -> Option<Vec<u8>>,
    ) -> Result<Found> {
        let said = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(String::from);
        if let Some(text) = said(argument) {
            let zone = named(&text, &read_file)?;
            return Ok(Found { zone, source: "--timezone", warnings: Vec::new() });
        }

        let mut warnings = Vec::new();
        let file = read_file(Path::new("/etc/TZ"));
        let file = file.as_deref().map(String::from_utf8_lossy);
        for (source, text) in [("TZ", said(tz)), ("/etc/TZ", said(file.as_deref()))] {
            match text.map(|text| named(&text, &read_file)) {
                Some(Ok(zone)) => return Ok(Found { zone, source, warnings }),
                Some(Err(error)) => warnings.push(format!("{source} passed over: {error}")),
                None => {}
            }
        }
        if let Some(bytes) = read_file(Path::new("/etc/localtime")) {
            match footer(&bytes).map(Zone::parse) {
                Some(Ok(zone)) => return Ok(Found { zone, source: "/etc/localtime", warnings }),
                _ => {
                    warnings.push("/etc/localtime passed over: it has no POSIX rule at its end, use --timezone".into())
                }
            }
        }
        Ok(Found { zone: Zone::UTC, source: "default", warnings })
    }

    /// What it was made from, for people.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("UTC")
    }

    /// Seconds to add to UTC at that instant.
    pub fn offset_at(&self, unix: i64) -> i32 {
        let unix = unix.clamp(FIRST, LAST);
        let Some(summer) = &self.summer else { return self.standard };
        match self.turns(summer, unix).into_iter().filter(|(at, _)| *at <= unix).max() {
            Some((_, true)) => summer.offset,
            _ => self.standard,
        }
    }

    /// The first change of the clocks inside `(from, to)`, which is short of a year.
    pub fn turn_within(&self, from: i64, to: i64) -> Option<i64> {
        let turns = self.turns(self.summer.as_ref()?, from.clamp(FIRST, LAST));
        turns.into_iter().map(|(at, _)| at).filter(|at| from < *at && *at < to).min()
    }

    /// Brings an instant into the years -9999 to 9999, where all the others of these functions bring theirs.
    pub fn clamp(unix: i64) -> i64 {
        unix.clamp(FIRST, LAST)
    }

    /// The changes of the clocks around an instant, as their UTC seconds and whether summer time begins. Where one year's
    /// end of summer time is the next one's beginning (the way to write "always summer" in POSIX), the beginning sorts
    /// last and so holds. Two years to either side: a turn may be written a week beyond its own year, and then last
    /// year's latest turn is one of the year before.
    fn turns(&self, summer: &Summer, unix: i64) -> [(i64, bool); 10] {
        let (year, ..) = date(unix.div_euclid(DAY));
        std::array::from_fn(|at| {
            let year = year + at as i32 / 2 - 2;
            if at % 2 == 0 {
                (summer.begins.local(year) - i64::from(self.standard), true)
            } else {
                (summer.ends.local(year) - i64::from(summer.offset), false)
            }
        })
    }

    pub fn civil(&self, unix: i64) -> Civil {
        Civil::from_seconds(unix.clamp(FIRST, LAST) + i64::from(self.offset_at(unix)))
    }

    /// The instant of a local time: the first one where it happens twice, the end of the gap where it never happens.
    pub fn unix(&self, civil: Civil) -> i64 {
        let local = civil.seconds();
        let Some(summer) = &self.summer else { return local - i64::from(self.standard) };
        let early = local - i64::from(self.standard.max(summer.offset));
        let late = local - i64::from(self.standard.min(summer.offset));
        let happens = |unix: &i64| *unix + i64::from(self.offset_at(*unix)) == local;
        [early, late].into_iter().find(happens).unwrap_or_else(|| {
            // Both guesses miss, so the clocks were put forward over this time, somewhere between the two.
            let turns = self.turns(summer, late).into_iter().map(|(at, _)| at);
            turns.filter(|at| *at <= late).max().unwrap_or(late)
        })
    }

    /// The first instant of the local day that `unix` lies in, and of the next one.
    pub fn day(&self, unix: i64) -> (i64, i64) {
        self.days(unix, 1)
    }

    /// The same of so many days at a time, counted from a Monday.
    pub fn days(&self, unix: i64, count: i64) -> (i64, i64) {
        let unix = unix.clamp(FIRST, LAST);
        let today = self.civil(unix).midnight();
        let first = today.plus_days(-(today.days() + MONDAY).rem_euclid(count));
        let (mut from, mut to) = (self.unix(first), self.unix(first.plus_days(count)));
        // Clocks put back from just after midnight show the old date again. That stretch belongs to the new day, which
        // had begun: days follow one another without a hole or an overlap.
        let mut ahead = 2 * count;
        while to <= unix {
            (from, to) = (to, self.unix(first.plus_days(ahead)));
            ahead += count;
        }
        (from, to)
    }
}

impl Civil {
    /// The beginning of a date, by the calendar; a clock may never show it.
    pub const fn date(year: i32, month: u8, day: u8) -> Civil {
        Civil { year, month, day, hour: 0, minute: 0, second: 0 }
    }

    pub fn midnight(self) -> Civil {
        Civil::date(self.year, self.month, self.day)
    }

    /// The same time of day, so many days later or earlier.
    pub fn plus_days(self, count: i64) -> Civil {
        Civil::from_seconds(self.seconds().saturating_add(count.saturating_mul(DAY)))
    }

    /// The first day of the month that is so many months later or earlier.
    pub fn plus_months(self, count: i64) -> Civil {
        let months = (i64::from(self.year) * 12 + i64::from(self.month) - 1).saturating_add(count);
        let last = i64::from(LAST_YEAR);
        let year = months.div_euclid(12).clamp(-last, last) as i32;
        Civil::date(year, months.rem_euclid(12) as u8 + 1, 1)
    }

    /// Days since 1 January 1970.
    pub fn days(self) -> i64 {
        self.seconds().div_euclid(DAY)
    }

    /// Monday is 0.
    pub fn weekday(self) -> u8 {
        (self.days() + MONDAY).rem_euclid(7) as u8
    }

    /// Seconds since 1970 as though it were UTC. Fields beyond their range run over into the next greater one.
    pub(super) fn seconds(self) -> i64 {
        let month = self.month.clamp(1, 12);
        days(self.year.clamp(-LAST_YEAR, LAST_YEAR), month, 1) * DAY
            + (i64::from(self.day) - 1) * DAY
            + i64::from(self.hour) * HOUR
            + i64::from(self.minute) * MINUTE
            + i64::from(self.second)
    }

    pub(super) fn from_seconds(seconds: i64) -> Civil {
        let seconds = seconds.clamp(days(-LAST_YEAR, 1, 1) * DAY, days(LAST_YEAR, 12, 31) * DAY);
        let (year, month, day) = date(seconds.div_euclid(DAY));
        let time = seconds.rem_euclid(DAY);
        Civil {
            year,
            month,
            day,
            hour: (time / HOUR) as u8,
            minute: (time % HOUR / MINUTE) as u8,
            second: (time % MINUTE) as u8,
        }
    }
}

impl Turn {
    /// Seconds since 1970 on the local clock that is in force before it.
    fn local(self, year: i32) -> i64 {
        let day = match self.day {
            Yearday::Weekday { month, week, weekday } => {
                let first = days(year, month, 1);
                // 1 January 1970 was a Thursday, day 4 of a week that begins with Sunday.
                let ahead = (i64::from(weekday) - (first + 4)).rem_euclid(7);
                let day = first + ahead + 7 * (i64::from(week) - 1);
                let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
                if day < next { day } else { day - 7 }
            }
            // Counted from 1 March where that is later, which leaves 29 February out.
            Yearday::Julian(count) if count > 59 => days(year, 3, 1) + i64::from(count) - 60,
            Yearday::Julian(count) => days(year, 1, 1) + i64::from(count) - 1,
            Yearday::Count(count) => days(year, 1, 1) + i64::from(count),
        };
        day * DAY + i64::from(self.at)
    }
}

/// Days from 1 January 1970 in the Gregorian calendar. Years run from March here, so that the leap day comes last.
const fn days(year: i32, month: u8, day: u8) -> i64 {
    let (march_year, march_month) =
        if month > 2 { (year as i64, month as i64 - 3) } else { (year as i64 - 1, month as i64 + 9) };
    march_first(march_year) + (march_month * 153 + 2) / 5 + day as i64 - 1
}

/// Days from 1 January 1970 to 1 March of a year.
const fn march_first(year: i64) -> i64 {
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) - 719_468
}

/// Year, month and day of a day counted from 1 January 1970.
fn date(day: i64) -> (i32, u8, u8) {
    let mut year = ((day + 719_468) * 400).div_euclid(146_097);
    // 146,097 days make 400 years; within them the guess is at most one off.
    if march_first(year + 1) <= day {
        year += 1;
    }
    if march_first(year) > day {
        year -= 1;
    }
    let into = day - march_first(year);
    let month = (into * 5 + 2) / 153;
    let day = (into - (month * 153 + 2) / 5 + 1) as u8;
    if month < 10 { (year as i32, month as u8 + 3, day) } else { (year as i32 + 1, month as u8 - 9, day) }
}

/// A POSIX string, or the name of a zone that has a file (`Europe/Berlin`, `:Europe/Berlin`, `:/etc/localtime`).
fn named(text: &str, read_file: &impl Fn(&Path) -> Option<Vec<u8>>) -> Result<Zone> {
    let name = text.strip_prefix(':').unwrap_or(text);
    if name.len() == text.len() {
        if let Ok(zone) = Zone::parse(text) {
            return Ok(zone);
        }
    }
    if UNIVERSAL.contains(&name) {
        return Zone::parse(name);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-.".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) || name.split('/').any(|part| part == "..") {
        return Zone::parse(text);
    }
    // Joining an absolute path replaces the directory: `:/etc/localtime` is a common way to spare libc some calls.
    let path = Path::new(ZONEINFO).join(name);
    let Some(bytes) = read_file(&path) else {
        return Err(Error::usage(format!(
            "time zone {} is not known here: there is no file {}; write it as POSIX does, like CET-1CEST,M3.5.0,M10.5.0/3, \
             or install the zones (tzdata, on OpenWrt zoneinfo-*), or in a container mount {ZONEINFO}",
            quoted(text),
            printable(&path.to_string_lossy(), 100)
        )));
    };
    let rule = footer(&bytes).ok_or_else(|| {
        Error::usage(format!("{} has no POSIX rule at its end, use a POSIX time zone instead", path.display()))
    })?;
    Ok(Zone { name: Some(name.into()), ..Zone::parse(rule)? })
}

/// The POSIX string at the end of a TZif file of version 2 or later (RFC 8536), or nothing: version 1 has none, and
/// neither has a zone whose future cannot be written so.
pub fn footer(file: &[u8]) -> Option<&str> {
    // The data is there twice, with 4-byte and with 8-byte times; the footer follows the second.
    let rest = skip_block(skip_block(file, 4)?, 8)?;
    let line = rest.strip_prefix(b"\n")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok().filter(|text| !text.is_empty())
}

/// What follows one header and its data. Counts are checked in 64 bits: the sum of six 32-bit ones overflows `usize` on
/// most routers.
fn skip_block(file: &[u8], time_bytes: u64) -> Option<&[u8]> {
    let (header, data) = file.split_at_checked(44)?;
    if !header.starts_with(b"TZif") || header[4] < b'2' {
        return None;
    }
    let mut counts = [0u64; 6];
    for (count, bytes) in counts.iter_mut().zip(header[20..].chunks_exact(4)) {
        *count = u64::from(u32::from_be_bytes(bytes.try_into().ok()?));
    }
    let [utc_marks, standard_marks, leaps, times, types, letters] = counts;
    let length = times * (time_bytes + 1) + types * 6 + letters + leaps * (time_bytes + 4) + standard_marks + utc_marks;
    data.get(usize::try_from(length).ok()?..)
}

/// A piece of foreign text for a message: short, and on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    out.extend(text.chars().take(40).flat_map(char::escape_debug));
    out.push_str(if text.chars().nth(40).is_some() { "...'" } else { "'" });
    out
}

/// Reads a POSIX string from left to right.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn zone(&mut self, text: &str) -> Option<Zone> {
        self.name()?;
        let standard = -self.time(24)?;
        let mut zone = Zone { name: Some(text.into()), standard, summer: None };
        if self.0.is_empty() {
            return Some(zone);
        }
        self.name()?;
        let offset = match self.0.first() {
            None | Some(b',') => standard + HOUR as i32,
            Some(_) => -self.time(24)?,
        };
        let (begins, ends) = if self.0.is_empty() { DEFAULT_RULES } else { (self.turn()?, self.turn()?) };
        zone.summer = Some(Summer { offset, begins, ends });
        self.0.is_empty().then_some(zone)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        self.0 = &self.0[usize::from(found)..];
        found
    }

    /// Three letters or more, or in angle brackets also digits and signs. The name itself is of no use here.
    fn name(&mut self) -> Option<()> {
        let bracketed = self.skip(b'<');
        let part = |byte: &u8| {
            byte.is_ascii_alphabetic() || bracketed && (byte.is_ascii_digit() || matches!(byte, b'+' | b'-'))
        };
        let length = self.0.iter().take_while(|byte| part(byte)).count();
        self.0 = &self.0[length..];
        (length >= 3 && (!bracketed || self.skip(b'>'))).then_some(())
    }

    /// One to three digits.
    fn number(&mut self, range: std::ops::RangeInclusive<u16>) -> Option<u16> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 || length > 3 {
            return None;
        }
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let value = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        range.contains(&value).then_some(value)
    }

    /// `[+-]hh[:mm[:ss]]` in seconds.
    fn time(&mut self, most_hours: u16) -> Option<i32> {
        let negative = self.skip(b'-');
        if !negative {
            self.skip(b'+');
        }
        let mut seconds = i32::from(self.number(0..=most_hours)?) * 3600;
        for unit in [60, 1] {
            if !self.skip(b':') {
                break;
            }
            seconds += i32::from(self.number(0..=59)?) * unit;
        }
        Some(if negative { -seconds } else { seconds })
    }

    /// `,date[/time]`
    fn turn(&mut self) -> Option<Turn> {
        if !self.skip(b',') {
            return None;
        }
        let day = if self.skip(b'M') {
            let month = self.number(1..=12)? as u8;
            let week = self.skip(b'.').then(|| self.number(1..=5))?? as u8;
            let weekday = self.skip(b'.').then(|| self.number(0..=6))?? as u8;
            Yearday::Weekday { month, week, weekday }
        } else if self.skip(b'J') {
            Yearday::Julian(self.number(1..=365)?)
        } else {
            Yearday::Count(self.number(0..=365)?)
        };
        let at = if self.skip(b'/') { self.time(167)? } else { 2 * HOUR as i32 };
        Some(Turn { day, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn zone(text: &str) -> Zone {
        Zone::parse(text).unwrap()
    }

    fn at(text: &str) -> i64 {
        crate::clock::parse_time(text, &Zone::UTC).unwrap()
    }

    fn civil(text: &str) -> Civil {
        Civil::from_seconds(at(&format!("{text}Z")))
    }

    #[test]
    fn calendar_agrees_with_itself_on_every_day() {
        let mut expect = (-9999, 1, 1);
        for day in days(-9999, 1, 1)..days(10_000, 1, 1) {
            assert_eq!((date(day), days(expect.0, expect.1, expect.2)), (expect, day));
            let leap = expect.0 % 4 == 0 && (expect.0 % 100 != 0 || expect.0 % 400 == 0);
            let length = [31, 28 + u8::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][expect.1 as usize - 1];
            expect = match expect {
                (year, 12, 31) => (year + 1, 1, 1),
                (year, month, day) if day == length => (year, month + 1, 1),
                (year, month, day) => (year, month, day + 1),
            };
        }
        assert_eq!((days(1970, 1, 1), days(2000, 3, 1)), (0, 11_017));
        assert_eq!(Civil::date(2026, 11, 22).weekday(), 6);
        assert_eq!(Civil::date(2024, 2, 28).plus_days(2), Civil::date(2024, 3, 1));
    }

    #[test]
    fn strings_that_are_zones() {
        fn check(text: &str, winter: i32, summer: i32) {
            let zone = zone(text);
            let got = (zone.offset_at(at("2026-01-15")), zone.offset_at(at("2026-07-15")));
            assert_eq!(got, (winter, summer), "{text}");
        }
        check("UTC0", 0, 0);
        check("UTC", 0, 0);
        check(" GMT0\n", 0, 0);
        check(BERLIN, 3600, 7200);
        check("<+03>-3", 10_800, 10_800);
        check("<-03>3", -10_800, -10_800);
        check("EST5EDT", -18_000, -14_400);
        check("EST+5EDT4", -18_000, -14_400);
        check("EST5EDT,M3.2.0,M11.1.0", -18_000, -14_400);
        check("IST-5:30", 19_800, 19_800);
        check("LMT-0:53:28", 3208, 3208);
        check("AEST-10AEDT,M10.1.0,M4.1.0/3", 39_600, 36_000);
        check("IST-1GMT0,M10.5.0,M3.5.0/1", 0, 3600);
        check("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", 39_600, 37_800);
        check("XXX3EDT2,0/0,J365/25", -7200, -7200);
        check("AAA-24BBB24,J60,300", 86_400, -86_400);
        check("AAA0BBB,M2.1.0/-167,M12.1.6/167:59:59", 0, 3600);
    }

    #[test]
    fn strings_that_are_not() {
        for text in [
            "",
            ":",
            "CET",
            "CE-1",
            "CET-1CEST,",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M3.5.0,M10.5.0/3,",
            "CET-1 CEST",
            "CET-25",
            "CET-1:60",
            "CET-",
            "<+03",
            "<+03>",
            "<>3",
            "<+0\u{e9}>3",
            "CET-1CEST,M13.1.0,M1.1.0",
            "CET-1CEST,M3.6.0,M1.1.0",
            "CET-1CEST,M3.5.7,M1.1.0",
            "CET-1CEST,J0,J5",
            "CET-1CEST,J366,J5",
            "CET-1CEST,366,5",
            "CET-1CEST,M3.5,M1.1.0",
            "CET-1CEST,M3.5.0/168,M1.1.0",
            "CET-0001",
            "CET-99999999999999999999",
            "Europe/Berlin",
            "\0\0\0",
            "CET--1",
        ] {
            let error = Zone::parse(text).unwrap_err();
            assert!(error.to_string().contains("is not a POSIX time zone"), "{text}: {error}");
        }
        let long = "x".repeat(10_000) + "\n";
        assert!(Zone::parse(&long).unwrap_err().to_string().len() < 200);
    }

    /// One process per zone answers for thousands of instants: the C library's own reading of the same string.
    #[test]
    fn agrees_with_the_c_library() {
        let mut random = 1u64;
        for text in [
            BERLIN,
            "EST5EDT,M3.2.0,M11.1.0",
            "<+0330>-3:30",
            "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            "IST-1GMT0,M10.5.0,M3.5.0/1",
            "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
            "EET-2EEST,M3.4.4/50,M10.4.4/50",
            "CST5CDT,M3.2.0/0,M11.1.0/1",
            "AAA3BBB,J60/0,J300",
            "AAA-9BBB,59/23,364/1",
        ] {
            let zone = zone(text);
            let mut instants = Vec::new();
            for year in 1971..2100 {
                let summer = zone.summer.as_ref().map(|summer| zone.turns(summer, at(&format!("{year}-07-01"))));
                for (turn, _) in summer.into_iter().flatten().skip(2).take(2) {
                    instants.extend([turn - 3601, turn - 1, turn, turn + 1, turn + 3600]);
                }
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                instants.extend((0..30).map(|n| at(&format!("{year}-01-01")) + n * 1_050_000 + (random >> 45) as i64));
            }
            let mut child = Command::new("date")
                .args(["-f", "-", "+%s %Y %m %d %H %M %S %:::z"])
                .env("TZ", text)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines = instants.iter().map(|unix| format!("@{unix}\n")).collect::<String>();
            let mut input = child.stdin.take().unwrap();
            let feeder = std::thread::spawn(move || input.write_all(lines.as_bytes()));
            let output = child.wait_with_output().unwrap();
            // BusyBox and the BSDs have another `date`; they are not what is under test.
            if feeder.join().unwrap().is_err() || !output.status.success() {
                eprintln!("skipped: no GNU date");
                return;
            }
            let output = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.lines().count(), instants.len(), "{text}");
            for (unix, line) in instants.iter().zip(output.lines()) {
                let is = zone.civil(*unix);
                let (year, month, day) = (is.year, is.month, is.day);
                let got = format!("{unix} {year} {month:02} {day:02} {:02} {:02} {:02}", is.hour, is.minute, is.second);
                assert_eq!(got, line.rsplit_once(' ').unwrap().0, "{text}");
            }
        }
    }

    #[test]
    fn e25_local_times_that_happen_twice_or_never() {
        fn check(text: &str, local: &str, expect: &str) {
            assert_eq!(zone(text).unix(civil(local)), at(expect), "{text} {local}");
        }
        check(BERLIN, "2026-03-29T01:59:59", "2026-03-29T00:59:59Z");
        check(BERLIN, "2026-03-29T02:00:00", "2026-03-29T01:00:00Z");
        check(BERLIN, "2026-03-29T02:30:00", "2026-03-29T01:00:00Z");
        check(BERLIN, "2026-03-29T03:00:00", "2026-03-29T01:00:00Z");
        check(BERLIN, "2026-10-25T01:59:59", "2026-10-24T23:59:59Z");
        check(BERLIN, "2026-10-25T02:30:00", "2026-10-25T00:30:00Z");
        check(BERLIN, "2026-10-25T03:00:00", "2026-10-25T02:00:00Z");
        check("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2026-10-25T00:00:00", "2026-10-25T02:00:00Z");
    }

    #[test]
    fn e25_days_have_the_length_of_their_clock() {
        fn check(text: &str, noon: &str, expect: (&str, i64)) {
            let zone = zone(text);
            let (from, to) = zone.day(at(noon));
            assert_eq!((from, to - from), (at(expect.0), expect.1 * 60), "{text} {noon}");
            assert_eq!(zone.day(to).0, to, "{text} {noon}");
            assert_eq!(zone.day(from - 1).1, from, "{text} {noon}");
        }
        check("UTC0", "2026-03-29T12:00:00Z", ("2026-03-29T00:00:00Z", 1440));
        check(BERLIN, "2026-03-29T12:00:00Z", ("2026-03-28T23:00:00Z", 1380));
        check(BERLIN, "2026-10-25T12:00:00Z", ("2026-10-24T22:00:00Z", 1500));
        check("IST-5:30", "2026-10-25T12:00:00Z", ("2026-10-24T18:30:00Z", 1440));
        check("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2026-10-04T02:00:00Z", ("2026-10-03T13:30:00Z", 1410));
        // Chile: the clocks jump at midnight, the day begins at one.
        check("<-04>4<-03>,M9.1.6/24,M4.1.6/24", "2026-09-06T12:00:00Z", ("2026-09-06T04:00:00Z", 1380));
        check("<-04>4<-03>,M9.1.6/24,M4.1.6/24", "2026-04-04T12:00:00Z", ("2026-04-04T03:00:00Z", 1500));
        // Cuba: midnight happens twice.
        check("CST5CDT,M3.2.0/0,M11.1.0/1", "2026-11-01T17:00:00Z", ("2026-11-01T04:00:00Z", 1500));
        // Newfoundland until 2011: one minute after midnight the old date comes back, and stays with the new day.
        check("NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01", "2026-11-01T03:00:00Z", ("2026-11-01T02:30:00Z", 1500));
    }

    #[test]
    fn days_tile_any_zone() {
        for text in [
            BERLIN,
            "NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01",
            "AAA-24BBB24,J60,300",
            "AAA24BBB-24,J1/167,J2/-167",
            // Summer ends in the year after, when the next one has begun: the fuzzer found a day of a year's length.
            "AAA0BBB,0,J365/63",
        ] {
            let zone = zone(text);
            let mut unix = at("2023-01-01");
            while unix < at("2026-01-01") {
                let (from, to) = zone.day(unix);
                assert!(from <= unix && unix < to && to - from <= 4 * DAY, "{text} {unix}");
                assert_eq!(zone.day(to).0, to, "{text} {unix}");
                unix += 7919;
            }
        }
    }

    #[test]
    fn no_instant_is_too_far() {
        for text in ["UTC0", BERLIN, "AAA-24BBB24,M1.1.0/-167,M12.5.6/167"] {
            let zone = zone(text);
            for unix in [i64::MIN, i64::MIN + 1, FIRST - 1, FIRST, -1, 0, LAST, LAST + 1, i64::MAX] {
                zone.offset_at(unix);
                let (from, to) = zone.day(unix);
                assert!(from < to);
                let civil = zone.civil(unix);
                zone.unix(civil);
                civil.plus_days(i64::MAX).weekday();
                civil.plus_days(i64::MIN).weekday();
            }
            for year in [i32::MIN, i32::MAX] {
                let civil = Civil { year, month: 255, day: 255, hour: 255, minute: 255, second: 255 };
                zone.day(zone.unix(civil));
                zone.unix(Civil { month: 0, day: 0, ..civil });
            }
        }
    }

    /// A file of version 2 with some data in both blocks, and this footer.
    fn tzif(footer: &str) -> Vec<u8> {
        let mut file = Vec::new();
        for time_bytes in [4, 8] {
            file.extend(b"TZif2");
            file.extend([0; 15]);
            for count in [1u32, 1, 2, 3, 1, 4] {
                file.extend(count.to_be_bytes());
            }
            file.extend(vec![b'\n'; 3 * (time_bytes + 1) + 6 + 4 + 2 * (time_bytes + 4) + 2]);
        }
        file.extend(format!("\n{footer}\n").bytes());
        file
    }

    #[test]
    fn footers() {
        let good = tzif(BERLIN);
        assert_eq!(footer(&good), Some(BERLIN));
        assert_eq!(footer(&tzif("")), None);
        assert_eq!(footer(&tzif("\u{fffd}")), Some("\u{fffd}"));
        assert_eq!(footer(b""), None);
        for cut in 0..good.len() - BERLIN.len() - 1 {
            assert_eq!(footer(&good[..cut]), None, "{cut}");
        }
        let mut version_1 = good.clone();
        version_1[4] = 0;
        assert_eq!(footer(&version_1), None);
        // The greatest counts there are, and every single byte set wrong: an answer or none, but an end.
        let mut huge = good.clone();
        huge[20..44].fill(0xff);
        assert_eq!(footer(&huge), None);
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = footer(&bad).map(Zone::parse);
            }
        }
    }

    #[test]
    fn e26_finds_the_zone_of_a_router() {
        fn check(argument: Option<&str>, tz: Option<&str>, files: &[(&str, &[u8])], expect: (&str, &str, usize)) {
            let read =
                |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| text.to_vec());
            let found = Zone::find(argument, tz, read).unwrap();
            assert_eq!((found.source, found.zone.name(), found.warnings.len()), expect, "{:?}", found.warnings);
        }
        let berlin = tzif(BERLIN);
        let (etc_tz, localtime) = ("/etc/TZ", "/etc/localtime");
        let zoneinfo = "/usr/share/zoneinfo/Europe/Berlin";
        check(None, None, &[], ("default", "UTC", 0));
        check(None, None, &[(etc_tz, b"CET-1CEST,M3.5.0,M10.5.0/3\n")], ("/etc/TZ", BERLIN, 0));
        check(None, None, &[(etc_tz, b"<+03>-3\n")], ("/etc/TZ", "<+03>-3", 0));
        check(None, None, &[(etc_tz, b"UTC\n")], ("/etc/TZ", "UTC", 0));
        check(None, Some("EST5"), &[(etc_tz, b"UTC0\n")], ("TZ", "EST5", 0));
        check(None, Some(""), &[(etc_tz, b"UTC0\n")], ("/etc/TZ", "UTC0", 0));
        check(None, Some("nonsense"), &[(etc_tz, b"UTC0\n")], ("/etc/TZ", "UTC0", 1));
        check(None, None, &[(etc_tz, b"\xff\xfe"), (localtime, &berlin)], ("/etc/localtime", BERLIN, 1));
        check(None, None, &[(localtime, b"TZif")], ("default", "UTC", 1));
        check(Some("EST5"), Some("CET-1"), &[(etc_tz, b"UTC0\n")], ("--timezone", "EST5", 0));
        check(Some("Europe/Berlin"), None, &[(zoneinfo, &berlin)], ("--timezone", "Europe/Berlin", 0));
        check(None, Some(":Europe/Berlin"), &[(zoneinfo, &berlin)], ("TZ", "Europe/Berlin", 0));
        check(None, Some(":/etc/localtime"), &[(localtime, &berlin)], ("TZ", "/etc/localtime", 0));
        check(Some(":UTC"), None, &[], ("--timezone", "UTC", 0));
    }

    #[test]
    fn a_wrong_argument_says_what_to_do() {
        fn check(text: &str, expect: &str) {
            let error = Zone::find(Some(text), Some("UTC0"), |_| None).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
        let known = "'Europe/Berlin' is not known here: there is no file /usr/share/zoneinfo/Europe/Berlin; ";
        check("Europe/Berlin", known);
        check("Europe/Berlin", "write it as POSIX does, like CET-1CEST,M3.5.0,M10.5.0/3");
        check("Europe/Berlin", "zoneinfo-*), or in a container mount /usr/share/zoneinfo");
        check("CET-1CEST,M3", "'CET-1CEST,M3' is not a POSIX time zone");
        check("../../etc/passwd", "is not a POSIX time zone");
        check(":", "is not a POSIX time zone");
    }
}
