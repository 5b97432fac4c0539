//! POSIX time zones: parses TZ strings and converts between UTC and local time. The C library cannot do it here: a
//! static musl binary ignores `/etc/TZ`, and routers have no zoneinfo files. Only the current rule of a zone is known,
//! not earlier rules of a country; for that reason a stored local day keeps its bounds. Pure: callers read the files.
//! It does not panic, whatever the text, the bytes or the `i64`.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::text::printable;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
/// Weekday of 1 January 1970, a Thursday. Monday is 0.
const EPOCH_WEEKDAY: i64 = 3;

/// The first second of the year -9999 and the last one of 9999, in UTC. Times outside are clamped to this range.
const FIRST: i64 = days(-9999, 1, 1) * DAY;
const LAST: i64 = days(10_000, 1, 1) * DAY - 1;

/// Computed years are from -`MAX_YEAR` to `MAX_YEAR`. The limit is above 9999, because the last local day, month or
/// year of the range ends after 9999.
const MAX_YEAR: i32 = 10_010;

const ZONEINFO: &str = "/usr/share/zoneinfo";

/// Names of UTC that need no zoneinfo file. `/etc/TZ` of a fresh OpenWrt contains `UTC` without an offset, which is no
/// valid POSIX string.
const UTC_NAMES: [&str; 6] = ["UTC", "GMT", "Etc/UTC", "Etc/GMT", "UCT", "Zulu"];

/// Rules for a TZ string that names summer time without rules. POSIX does not define this; glibc uses the rules of the
/// United States.
const DEFAULT_RULES: (Transition, Transition) = (
    Transition { day: RuleDay::Weekday { month: 3, week: 2, weekday: 0 }, at: 7200 },
    Transition { day: RuleDay::Weekday { month: 11, week: 1, weekday: 0 }, at: 7200 },
);

/// A time zone: offset from UTC, and the rule for summer time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The TZ string, or the name of the zoneinfo file; `None` for `Zone::UTC`.
    name: Option<Arc<str>>,
    /// Offset in standard time: seconds to add to UTC. (The sign in a POSIX string is the opposite.)
    standard: i32,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    /// Offset in summer time: seconds to add to UTC.
    offset: i32,
    begins: Transition,
    ends: Transition,
}

/// A yearly change of the local clock: `at` seconds after midnight of a day, in the local time before the change. RFC
/// 8536, section 3.3.1, extends POSIX: `at` may be up to a week before or after that midnight, so that a transition can
/// fall into a neighbouring year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transition {
    day: RuleDay,
    at: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RuleDay {
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

/// Result of `Zone::find`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundZone {
    pub zone: Zone,
    /// Where the zone was found: `--timezone`, `TZ`, `/etc/TZ`, `/etc/localtime`, or `default`.
    pub source: &'static str,
    /// One line for the log for each source that could not be used.
    pub warnings: Vec<String>,
}

impl Zone {
    pub const UTC: Zone = Zone { name: None, standard: 0, summer: None };

    /// Parses a POSIX TZ string (`CET-1CEST,M3.5.0,M10.5.0/3`, `<+03>-3`) or a name of UTC. Ignores surrounding white
    /// space.
    pub fn parse(text: &str) -> Result<Zone> {
        let text = text.trim();
        if UTC_NAMES.iter().any(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(Zone { name: Some(text.into()), ..Zone::UTC });
        }
        Scan(text.as_bytes()).zone(text).ok_or_else(|| {
            Error::usage(format!(
                "{} is not a POSIX time zone, write one like CET-1CEST,M3.5.0,M10.5.0/3 or UTC0",
                quoted(text)
            ))
        })
    }

    /// Finds the time zone: `argument` (`--timezone`), else `tz` (environment variable `TZ`), else `/etc/TZ`, else the
    /// footer of `/etc/localtime`, else UTC. An empty value counts as missing: an init script with
    /// `TZ="$(cat /etc/TZ)"` sets one if the file does not exist. Only an invalid argument is an error; other invalid
    /// values give a warning, because a router that counts in UTC is better than one that does not count.
    pub fn find(
        argument: Option<&str>,
        tz: Option<&str>,
        read_file: impl Fn(&Path) -> Option<Vec<u8>>,
    ) -> Result<FoundZone> {
        let nonempty = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(String::from);
        if let Some(text) = nonempty(argument) {
            let zone = parse_or_read(&text, &read_file)?;
            return Ok(FoundZone { zone, source: "--timezone", warnings: Vec::new() });
        }

        let mut warnings = Vec::new();
        let file = read_file(Path::new("/etc/TZ"));
        let file = file.as_deref().map(String::from_utf8_lossy);
        for (source, text) in [("TZ", nonempty(tz)), ("/etc/TZ", nonempty(file.as_deref()))] {
            match text.map(|text| parse_or_read(&text, &read_file)) {
                Some(Ok(zone)) => return Ok(FoundZone { zone, source, warnings }),
                Some(Err(error)) => warnings.push(format!("{source} ignored: {error}")),
                None => {}
            }
        }
        if let Some(bytes) = read_file(Path::new("/etc/localtime")) {
            match tzif_footer(&bytes).map(Zone::parse) {
                Some(Ok(zone)) => return Ok(FoundZone { zone, source: "/etc/localtime", warnings }),
                _ => warnings.push("/etc/localtime ignored: it has no POSIX rule at its end, use --timezone".into()),
            }
        }
        Ok(FoundZone { zone: Zone::UTC, source: "default", warnings })
    }

    /// The TZ string that the zone was parsed from, or the name of its zoneinfo file (`Europe/Berlin`).
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("UTC")
    }

    /// Seconds to add to UTC at this time.
    pub fn offset_at(&self, unix: i64) -> i32 {
        let unix = unix.clamp(FIRST, LAST);
        let Some(summer) = &self.summer else { return self.standard };
        match self.transitions(summer, unix).into_iter().filter(|(at, _)| *at <= unix).max() {
            Some((_, true)) => summer.offset,
            _ => self.standard,
        }
    }

    /// The first transition with `from < transition < to`, in UTC seconds. The range must be shorter than a year.
    pub fn transition_within(&self, from: i64, to: i64) -> Option<i64> {
        let transitions = self.transitions(self.summer.as_ref()?, from.clamp(FIRST, LAST));
        transitions.into_iter().map(|(at, _)| at).filter(|at| from < *at && *at < to).min()
    }

    /// Clamps a time to the years -9999 to 9999, as all methods do with their arguments.
    pub fn clamp(unix: i64) -> i64 {
        unix.clamp(FIRST, LAST)
    }

    /// The transitions around a time: UTC seconds, and whether summer time begins. If summer time ends in one year at
    /// the moment when it begins in the next (permanent summer time in POSIX), the beginning sorts last and takes
    /// effect. Includes two years on either side, because a rule may place a transition up to a week outside its own
    /// year.
    fn transitions(&self, summer: &Summer, unix: i64) -> [(i64, bool); 10] {
        let (year, ..) = date(unix.div_euclid(DAY));
        std::array::from_fn(|index| {
            let year = year + index as i32 / 2 - 2;
            if index % 2 == 0 {
                (summer.begins.local_seconds(year) - i64::from(self.standard), true)
            } else {
                (summer.ends.local_seconds(year) - i64::from(summer.offset), false)
            }
        })
    }

    /// Converts UTC seconds to local time.
    pub fn civil(&self, unix: i64) -> Civil {
        Civil::from_seconds(unix.clamp(FIRST, LAST) + i64::from(self.offset_at(unix)))
    }

    /// Converts local time to UTC seconds. If the local time occurs twice, returns the first; if a transition skips it,
    /// returns the time of the transition.
    pub fn unix(&self, civil: Civil) -> i64 {
        let local = civil.seconds();
        let Some(summer) = &self.summer else { return local - i64::from(self.standard) };
        let early = local - i64::from(self.standard.max(summer.offset));
        let late = local - i64::from(self.standard.min(summer.offset));
        let happens = |unix: &i64| *unix + i64::from(self.offset_at(*unix)) == local;
        [early, late].into_iter().find(happens).unwrap_or_else(|| {
            // Neither offset fits: a transition between the two candidates skips this local time.
            let transitions = self.transitions(summer, late).into_iter().map(|(at, _)| at);
            transitions.filter(|at| *at <= late).max().unwrap_or(late)
        })
    }

    /// Start of the local day around `unix`, and of the next day, in UTC seconds.
    pub fn day(&self, unix: i64) -> (i64, i64) {
        self.days(unix, 1)
    }

    /// Like `day`, for groups of `count` days. The groups are counted from Monday, 29 December 1969.
    pub fn days(&self, unix: i64, count: i64) -> (i64, i64) {
        let unix = unix.clamp(FIRST, LAST);
        let today = self.civil(unix).midnight();
        let first = today.plus_days(-(today.days() + EPOCH_WEEKDAY).rem_euclid(count));
        let (mut from, mut to) = (self.unix(first), self.unix(first.plus_days(count)));
        // When clocks are set back from shortly after midnight, they show the old date again. That time belongs to the
        // new day, so that days neither overlap nor leave a gap.
        let mut ahead = 2 * count;
        while to <= unix {
            (from, to) = (to, self.unix(first.plus_days(ahead)));
            ahead += count;
        }
        (from, to)
    }
}

impl Civil {
    /// Midnight of a date. A transition may skip this local time.
    pub const fn date(year: i32, month: u8, day: u8) -> Civil {
        Civil { year, month, day, hour: 0, minute: 0, second: 0 }
    }

    pub fn midnight(self) -> Civil {
        Civil::date(self.year, self.month, self.day)
    }

    /// The same time of day, `count` days later.
    pub fn plus_days(self, count: i64) -> Civil {
        Civil::from_seconds(self.seconds().saturating_add(count.saturating_mul(DAY)))
    }

    /// The first day of the month that is `count` months later.
    pub fn plus_months(self, count: i64) -> Civil {
        let months = (i64::from(self.year) * 12 + i64::from(self.month) - 1).saturating_add(count);
        let last = i64::from(MAX_YEAR);
        let year = months.div_euclid(12).clamp(-last, last) as i32;
        Civil::date(year, months.rem_euclid(12) as u8 + 1, 1)
    }

    /// Days since 1 January 1970.
    pub fn days(self) -> i64 {
        self.seconds().div_euclid(DAY)
    }

    /// Monday is 0.
    pub fn weekday(self) -> u8 {
        (self.days() + EPOCH_WEEKDAY).rem_euclid(7) as u8
    }

    /// Seconds since 1970 if this were UTC. The year and the month are clamped; any other field above its range carries
    /// over into the next larger unit.
    pub(super) fn seconds(self) -> i64 {
        let month = self.month.clamp(1, 12);
        days(self.year.clamp(-MAX_YEAR, MAX_YEAR), month, 1) * DAY
            + (i64::from(self.day) - 1) * DAY
            + i64::from(self.hour) * HOUR
            + i64::from(self.minute) * MINUTE
            + i64::from(self.second)
    }

    pub(super) fn from_seconds(seconds: i64) -> Civil {
        let seconds = seconds.clamp(days(-MAX_YEAR, 1, 1) * DAY, days(MAX_YEAR, 12, 31) * DAY);
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

impl Transition {
    /// Seconds since 1970 in the local time before the transition.
    fn local_seconds(self, year: i32) -> i64 {
        let day = match self.day {
            RuleDay::Weekday { month, week, weekday } => {
                let first = days(year, month, 1);
                // 1 January 1970 was a Thursday, day 4 of a week that begins with Sunday.
                let ahead = (i64::from(weekday) - (first + 4)).rem_euclid(7);
                let day = first + ahead + 7 * (i64::from(week) - 1);
                let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
                if day < next { day } else { day - 7 }
            }
            // From 1 March on, days are counted from 1 March, so that 29 February never counts.
            RuleDay::Julian(count) if count > 59 => days(year, 3, 1) + i64::from(count) - 60,
            RuleDay::Julian(count) => days(year, 1, 1) + i64::from(count) - 1,
            RuleDay::Count(count) => days(year, 1, 1) + i64::from(count),
        };
        day * DAY + i64::from(self.at)
    }
}

/// Days from 1 January 1970 in the Gregorian calendar. Internally a year starts in March, so that the leap day is its
/// last.
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
    // 400 years have 146,097 days. The estimate is off by at most one year.
    if march_first(year + 1) <= day {
        year += 1;
    }
    if march_first(year) > day {
        year -= 1;
    }
    let year_day = day - march_first(year);
    let month = (year_day * 5 + 2) / 153;
    let day = (year_day - (month * 153 + 2) / 5 + 1) as u8;
    if month < 10 { (year as i32, month as u8 + 3, day) } else { (year as i32 + 1, month as u8 - 9, day) }
}

/// Parses a POSIX string, or reads the zoneinfo file of a named zone (`Europe/Berlin`, `:Europe/Berlin`,
/// `:/etc/localtime`).
fn parse_or_read(text: &str, read_file: &impl Fn(&Path) -> Option<Vec<u8>>) -> Result<Zone> {
    let name = text.strip_prefix(':').unwrap_or(text);
    if name.len() == text.len() {
        if let Ok(zone) = Zone::parse(text) {
            return Ok(zone);
        }
    }
    if UTC_NAMES.contains(&name) {
        return Zone::parse(name);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-.".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) || name.split('/').any(|part| part == "..") {
        return Zone::parse(text);
    }
    // `join` with an absolute path replaces the directory, so `:/etc/localtime` works. It is common because it saves
    // libc some system calls.
    let path = Path::new(ZONEINFO).join(name);
    let Some(bytes) = read_file(&path) else {
        return Err(Error::usage(format!(
            "time zone {} is not known here: there is no file {}; write it as POSIX does, like CET-1CEST,M3.5.0,M10.5.0/3, \
             or install the zones (tzdata, on OpenWrt zoneinfo-*), or in a container mount {ZONEINFO}",
            quoted(text),
            printable(&path.to_string_lossy(), 100)
        )));
    };
    let rule = tzif_footer(&bytes).ok_or_else(|| {
        Error::usage(format!("{} has no POSIX rule at its end, use a POSIX time zone instead", path.display()))
    })?;
    Ok(Zone { name: Some(name.into()), ..Zone::parse(rule)? })
}

/// The POSIX string at the end of a TZif file (RFC 8536, section 3.3). `None` for version 1, and for a zone whose
/// future rule has no POSIX form.
pub fn tzif_footer(file: &[u8]) -> Option<&str> {
    // The file has two data blocks, with 4-byte and with 8-byte times. The footer follows the second one.
    let rest = skip_block(skip_block(file, 4)?, 8)?;
    let line = rest.strip_prefix(b"\n")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok().filter(|text| !text.is_empty())
}

/// The rest of a TZif file after one header and its data block. Lengths are computed in 64 bits, because the sum of six
/// 32-bit counts overflows `usize` on 32-bit routers.
fn skip_block(file: &[u8], time_bytes: u64) -> Option<&[u8]> {
    let (header, data) = file.split_at_checked(44)?;
    if !header.starts_with(b"TZif") || header[4] < b'2' {
        return None;
    }
    let mut counts = [0u64; 6];
    for (count, bytes) in counts.iter_mut().zip(header[20..].chunks_exact(4)) {
        *count = u64::from(u32::from_be_bytes(bytes.try_into().ok()?));
    }
    let [utc_flags, standard_flags, leaps, times, types, name_bytes] = counts;
    let length =
        times * (time_bytes + 1) + types * 6 + name_bytes + leaps * (time_bytes + 4) + standard_flags + utc_flags;
    data.get(usize::try_from(length).ok()?..)
}

/// Text from outside, quoted for a message: escaped, on one line, at most 40 characters.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    out.extend(text.chars().take(40).flat_map(char::escape_debug));
    out.push_str(if text.chars().nth(40).is_some() { "...'" } else { "'" });
    out
}

/// The rest of a TZ string while it is parsed from left to right.
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
        let (begins, ends) = if self.0.is_empty() { DEFAULT_RULES } else { (self.transition()?, self.transition()?) };
        zone.summer = Some(Summer { offset, begins, ends });
        self.0.is_empty().then_some(zone)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        self.0 = &self.0[usize::from(found)..];
        found
    }

    /// Skips a name: at least three letters, in angle brackets also digits and signs.
    fn name(&mut self) -> Option<()> {
        let bracketed = self.skip(b'<');
        let part = |byte: &u8| {
            byte.is_ascii_alphabetic() || bracketed && (byte.is_ascii_digit() || matches!(byte, b'+' | b'-'))
        };
        let length = self.0.iter().take_while(|byte| part(byte)).count();
        self.0 = &self.0[length..];
        (length >= 3 && (!bracketed || self.skip(b'>'))).then_some(())
    }

    /// A number of one to three digits.
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
    fn time(&mut self, max_hours: u16) -> Option<i32> {
        let negative = self.skip(b'-');
        if !negative {
            self.skip(b'+');
        }
        let mut seconds = i32::from(self.number(0..=max_hours)?) * 3600;
        for unit in [60, 1] {
            if !self.skip(b':') {
                break;
            }
            seconds += i32::from(self.number(0..=59)?) * unit;
        }
        Some(if negative { -seconds } else { seconds })
    }

    /// A rule `,date[/time]`. The default time is 02:00.
    fn transition(&mut self) -> Option<Transition> {
        if !self.skip(b',') {
            return None;
        }
        let day = if self.skip(b'M') {
            let month = self.number(1..=12)? as u8;
            let week = self.skip(b'.').then(|| self.number(1..=5))?? as u8;
            let weekday = self.skip(b'.').then(|| self.number(0..=6))?? as u8;
            RuleDay::Weekday { month, week, weekday }
        } else if self.skip(b'J') {
            RuleDay::Julian(self.number(1..=365)?)
        } else {
            RuleDay::Count(self.number(0..=365)?)
        };
        let at = if self.skip(b'/') { self.time(167)? } else { 2 * HOUR as i32 };
        Some(Transition { day, at })
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
    fn calendar_conversions_are_inverse_on_every_day() {
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
    fn valid_tz_strings() {
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
    fn invalid_tz_strings() {
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

    /// Compares with GNU `date`, which uses the C library's parser. One process per zone converts thousands of times.
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
                let summer = zone.summer.as_ref().map(|summer| zone.transitions(summer, at(&format!("{year}-07-01"))));
                for (transition, _) in summer.into_iter().flatten().skip(2).take(2) {
                    instants.extend([transition - 3601, transition - 1, transition, transition + 1, transition + 3600]);
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
            // BusyBox and the BSDs have another `date` without these options.
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
    fn e25_local_times_that_occur_twice_or_never() {
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
    fn e25_days_with_a_transition_have_other_lengths() {
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
        // Chile: the transition is at midnight, so the day starts at 01:00.
        check("<-04>4<-03>,M9.1.6/24,M4.1.6/24", "2026-09-06T12:00:00Z", ("2026-09-06T04:00:00Z", 1380));
        check("<-04>4<-03>,M9.1.6/24,M4.1.6/24", "2026-04-04T12:00:00Z", ("2026-04-04T03:00:00Z", 1500));
        // Cuba: midnight occurs twice.
        check("CST5CDT,M3.2.0/0,M11.1.0/1", "2026-11-01T17:00:00Z", ("2026-11-01T04:00:00Z", 1500));
        // Newfoundland until 2011: one minute after midnight the clocks return to the old date, which stays in the new
        // day.
        check("NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01", "2026-11-01T03:00:00Z", ("2026-11-01T02:30:00Z", 1500));
    }

    #[test]
    fn days_neither_overlap_nor_leave_gaps() {
        for text in [
            BERLIN,
            "NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01",
            "AAA-24BBB24,J60,300",
            "AAA24BBB-24,J1/167,J2/-167",
            // Summer time ends after the next one began. Here the fuzzer found a day as long as a year.
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
    fn extreme_times_do_not_panic() {
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

    /// A TZif file of version 2 with data in both blocks and this footer.
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
    fn footer_of_a_tzif_file() {
        let good = tzif(BERLIN);
        assert_eq!(tzif_footer(&good), Some(BERLIN));
        assert_eq!(tzif_footer(&tzif("")), None);
        assert_eq!(tzif_footer(&tzif("\u{fffd}")), Some("\u{fffd}"));
        assert_eq!(tzif_footer(b""), None);
        for cut in 0..good.len() - BERLIN.len() - 1 {
            assert_eq!(tzif_footer(&good[..cut]), None, "{cut}");
        }
        let mut version_1 = good.clone();
        version_1[4] = 0;
        assert_eq!(tzif_footer(&version_1), None);
        // The largest counts, and any single wrong byte: no panic.
        let mut huge = good.clone();
        huge[20..44].fill(0xff);
        assert_eq!(tzif_footer(&huge), None);
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = tzif_footer(&bad).map(Zone::parse);
            }
        }
    }

    #[test]
    fn e26_finds_the_time_zone_of_a_router() {
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
    fn errors_tell_how_to_write_a_zone() {
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
