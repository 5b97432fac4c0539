//! Time zones from untrusted files: as POSIX text, as TZif, and through `Zone::find`. In every zone that parses, days
//! follow one another without a gap, and converting to local time and back gives the first time with that local time.

use net_pulse::clock::{Civil, Zone, parse_time, rfc3339, tzif_footer};

const DAY: i64 = 86_400;
const YEAR: i64 = 365 * DAY;
/// No offset from UTC is larger: its hours are at most 24. (Up to 167 hours are valid only in the time of a change, RFC
/// 8536, section 3.3.1.)
const LONGEST_OFFSET_S: i32 = 25 * 3600;

fn check(zone: &Zone, unix: i64) {
    let offset = zone.offset_at(unix);
    assert!(offset.abs() <= LONGEST_OFFSET_S);
    let clamped = Zone::clamp(unix);

    let (from, to) = zone.day(unix);
    assert!(from <= clamped && clamped < to, "{from} {clamped} {to}");
    assert!(to - from <= 4 * DAY, "{from} {to}");
    // Days at the two ends of the calendar have no neighbour, so they are not checked.
    if (-300 * YEAR..8000 * YEAR).contains(&clamped) {
        assert_eq!(zone.day(from), (from, to));
        assert_eq!(zone.day(to - 1), (from, to));
        assert_eq!(zone.day(to).0, to);
        assert_eq!(zone.day(from - 1).1, from);
    }

    let civil = zone.civil(clamped);
    let again = zone.unix(civil);
    // A local time that occurs twice means the first occurrence.
    assert!(again <= clamped, "{civil:?} {again} {clamped}");
    assert_eq!(zone.civil(again), civil);
    assert!((clamped - again) <= 2 * i64::from(LONGEST_OFFSET_S));
    assert!(civil.weekday() < 7);
    assert_eq!(Civil::date(civil.year, civil.month, civil.day).days(), civil.days());

    if let Some(transition) = zone.transition_within(clamped, clamped + 300 * DAY) {
        assert!(clamped < transition && transition < clamped + 300 * DAY);
    }
}

pub fn zone(bytes: &[u8]) {
    let (numbers, file) = bytes.split_at(bytes.len().min(8));
    let mut eight = [0; 8];
    eight[..numbers.len()].copy_from_slice(numbers);
    let any = i64::from_le_bytes(eight);
    // Most 64-bit times are outside the calendar, so some checks use times between 1970 and 2070.
    let in_calendar = any.rem_euclid(100 * YEAR);

    let text = String::from_utf8_lossy(file);
    let (argument, tz) = text.split_once('\0').unwrap_or((&text, ""));
    let mut zones: Vec<Zone> = Vec::new();
    zones.extend(Zone::parse(&text));
    zones.extend(tzif_footer(file).and_then(|rule| Zone::parse(rule).ok()));
    for wanted in [None, Some(argument)] {
        zones.extend(Zone::find(wanted, Some(tz), |_| Some(file.to_vec())).map(|found| found.zone));
        let without_file = Zone::find(wanted, Some(argument), |_| None);
        assert!(wanted.is_some() || without_file.is_ok());
    }
    for zone in &zones {
        for unix in [any, in_calendar, in_calendar - 1, in_calendar + 1800] {
            check(zone, unix);
        }
        if let Ok(unix) = parse_time(&text, zone) {
            assert_eq!(parse_time(&rfc3339(unix), zone).ok(), Some(unix));
        }
    }
}
