//! Totals per calendar period: local hours, days, weeks, months and years as ranges of UTC seconds, and sums over them.
//! Pure.
//!
//! A bucket is never split between two periods, so that totals are exact bytes that can be compared with a bill. It
//! counts for the period that contains its middle.

use crate::clock::{Civil, Zone};
use crate::model::{Bucket, Counters};
use crate::resolution::HOUR_S;

/// A calendar period in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// The total of one interface in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeriodTotal {
    /// UTC seconds.
    pub from: i64,
    /// UTC seconds, exclusive.
    pub to: i64,
    pub sum: Counters,
    /// Seconds of the period that the sum covers.
    pub observed: i64,
    /// The period is over, and the sum covers at least 99 % of it.
    pub complete: bool,
}

impl PeriodTotal {
    /// The first and the last local day of the period: those of two times up to 12 hours inside its bounds. The bounds
    /// themselves may not be midnights: a transition may skip the first hour of a day, and a day that was stored in
    /// another time zone has the midnights of that zone.
    pub fn days(&self, zone: &Zone) -> (Civil, Civil) {
        let inside = ((self.to - self.from) / 2).min(12 * HOUR_S);
        (zone.civil(self.from + inside).midnight(), zone.civil(self.to - inside).midnight())
    }
}

impl Period {
    /// The names in the API; the first one is the default.
    pub const NAMES: [(Period, &'static str); 5] = [
        (Period::Day, "day"),
        (Period::Hour, "hour"),
        (Period::Week, "week"),
        (Period::Month, "month"),
        (Period::Year, "year"),
    ];

    /// The period that contains `unix`, as `[from, to)`. Weeks begin on Monday. Periods neither overlap nor leave gaps.
    pub fn around(self, unix: i64, zone: &Zone) -> (i64, i64) {
        let unix = Zone::clamp(unix);
        if self == Period::Hour {
            return hour(unix, zone);
        }
        let mut first = self.first_day(zone.civil(unix));
        loop {
            let next = self.plus(first, 1);
            let (from, to) = (zone.unix(first), zone.unix(next));
            // When clocks are set back from shortly after midnight, they show the old date again. That time belongs to
            // the new period, like in `Zone::day`.
            if unix < to {
                return (from, to);
            }
            first = next;
        }
    }

    /// Start of the period that is `count` periods after the one that contains `unix`; before it if `count` is
    /// negative.
    pub fn step(self, unix: i64, count: i64, zone: &Zone) -> i64 {
        let (from, _) = self.around(unix, zone);
        if self == Period::Hour {
            return hour(Zone::clamp(from.saturating_add(count.saturating_mul(3600))), zone).0;
        }
        let first = self.first_day(zone.civil(from));
        zone.unix(self.plus(first, count))
    }

    /// `[from, to)` rounded outwards to whole periods.
    pub fn cover(self, from: i64, to: i64, zone: &Zone) -> (i64, i64) {
        (self.around(from, zone).0, self.around(to.saturating_sub(1).max(from), zone).1)
    }

    /// The first day of the period that contains this day.
    fn first_day(self, civil: Civil) -> Civil {
        match self {
            Period::Hour | Period::Day => civil.midnight(),
            Period::Week => civil.midnight().plus_days(-i64::from(civil.weekday())),
            Period::Month => Civil::date(civil.year, civil.month, 1),
            Period::Year => Civil::date(civil.year, 1, 1),
        }
    }

    /// The first day of the period that is `count` periods after the one that begins with `first`.
    fn plus(self, first: Civil, count: i64) -> Civil {
        match self {
            Period::Hour | Period::Day => first.plus_days(count),
            Period::Week => first.plus_days(count.saturating_mul(7)),
            Period::Month => first.plus_months(count),
            Period::Year => first.plus_months(count.saturating_mul(12)),
        }
    }
}

/// The local hour that contains `unix`. Hours begin where the local clock shows a full hour. A transition by a fraction
/// of an hour (30 minutes on Lord Howe Island) also begins an hour.
fn hour(unix: i64, zone: &Zone) -> (i64, i64) {
    let from = unix - (unix + i64::from(zone.offset_at(unix))).rem_euclid(3600);
    let mut range = (from, from + 3600);
    let uneven = |transition: &i64| (zone.offset_at(*transition) - zone.offset_at(transition - 1)) % 3600 != 0;
    if let Some(transition) = zone.transition_within(range.0, range.1).filter(uneven) {
        if transition <= unix {
            range.0 = transition;
        } else {
            range.1 = transition;
        }
    }
    range
}

/// Sums buckets of one interface per period while they are read. Buckets must be added in ascending order; they may
/// have different resolutions. A period without buckets has no row.
///
/// For rows of hours use `HourTotals`; for longer periods add buckets of days. A row has the bounds of its period. The
/// exceptions are rows of hours and of days, if a bucket as long as the period crosses its bounds: an hour of UTC in a
/// zone that differs by half an hour, or a day stored before a change of the time zone. The bucket cannot be divided
/// again, so its row has the bounds of the bucket.
pub struct PeriodTotals<'a> {
    period: Period,
    zone: &'a Zone,
    /// UTC seconds.
    now: i64,
    range: (i64, i64),
    rows: Vec<PeriodTotal>,
    /// Length of the last row's period. The row is complete if the sum covers 99 % of it.
    whole_s: i64,
    /// Bounds of the period of the last bucket.
    period_bounds: (i64, i64),
}

impl<'a> PeriodTotals<'a> {
    /// Ignores buckets whose middle is not in `range`, which is `[from, to)`.
    pub fn new(period: Period, zone: &'a Zone, now: i64, range: (i64, i64)) -> PeriodTotals<'a> {
        PeriodTotals { period, zone, now, range, rows: Vec::new(), whole_s: 0, period_bounds: (0, 0) }
    }

    pub fn add(&mut self, bucket: &Bucket) {
        let length = bucket.to.saturating_sub(bucket.from);
        let middle = bucket.from.saturating_add(length / 2);
        if !(self.range.0..self.range.1).contains(&middle) {
            return;
        }
        if !(self.period_bounds.0..self.period_bounds.1).contains(&middle) {
            self.period_bounds = self.period.around(middle, self.zone);
        }
        let around = self.period_bounds;
        let inside = around.0 <= bucket.from && bucket.to <= around.1;
        let is_long = length > (around.1 - around.0) / 2;
        let keeps_bounds = !inside && is_long && matches!(self.period, Period::Hour | Period::Day);
        let (from, to) = if keeps_bounds { (bucket.from, bucket.to) } else { around };
        match self.rows.last_mut() {
            Some(row) if row.to >= to => row.sum.add(&bucket.cell.sum),
            last => {
                let from = last.map_or(from, |row| from.max(row.to));
                self.rows.push(PeriodTotal { from, to, sum: bucket.cell.sum, observed: 0, complete: false });
                // A row that has only the rest of a period, after a bucket with other bounds, never counts as complete.
                self.whole_s = if keeps_bounds { to - from } else { around.1 - around.0 };
            }
        }
        if let Some(row) = self.rows.last_mut() {
            // After a clock was set back, buckets can cover the same time twice.
            let observed = row.observed + bucket.cell.observed() as i64;
            row.observed = observed.min(row.to - row.from);
            row.complete = row.to <= self.now && row.observed >= self.whole_s - self.whole_s / 100;
        }
    }

    /// Oldest first.
    pub fn rows(self) -> Vec<PeriodTotal> {
        self.rows
    }
}

/// Sums local hours from two resolutions: five minutes and hours. Five-minute buckets fit into the hours of any zone,
/// but the two have different retentions, and either may lack a part of an hour that the other one has. For each hour
/// of UTC, the five-minute buckets are used, unless a counter of the hour's bucket is higher than their sum.
pub struct HourTotals<'a> {
    rows: PeriodTotals<'a>,
    hours: Vec<Bucket>,
    /// Number of `hours` that are already summed or replaced by five-minute buckets.
    done: usize,
    /// Five-minute buckets of the current hour of UTC.
    cells: Vec<Bucket>,
}

impl<'a> HourTotals<'a> {
    pub fn new(rows: PeriodTotals<'a>) -> HourTotals<'a> {
        HourTotals { rows, hours: Vec::new(), done: 0, cells: Vec::new() }
    }

    /// Add all buckets of hours first, then all five-minute buckets, each in ascending order. If the range begins or
    /// ends within an hour of UTC, also add the buckets of that hour outside the range, because whole hours are
    /// compared.
    pub fn add(&mut self, bucket: &Bucket) {
        if bucket.to - bucket.from >= HOUR_S {
            return self.hours.push(*bucket);
        }
        let same_hour = |cell: &Bucket| cell.from.div_euclid(HOUR_S) == bucket.from.div_euclid(HOUR_S);
        if !self.cells.last().is_none_or(same_hour) {
            self.sum_hour();
        }
        self.cells.push(*bucket);
    }

    /// Takes the next bucket of `hours` if its start meets the condition.
    fn next_hour(&mut self, condition: impl Fn(i64) -> bool) -> Option<Bucket> {
        let hour = *self.hours.get(self.done).filter(|hour| condition(hour.from))?;
        self.done += 1;
        Some(hour)
    }

    /// Sums the hour of `cells` from the resolution with more traffic, after the earlier hours, which have no
    /// five-minute buckets.
    fn sum_hour(&mut self) {
        let Some(start) = self.cells.first().map(|cell| cell.from - cell.from.rem_euclid(HOUR_S)) else { return };
        while let Some(hour) = self.next_hour(|from| from < start) {
            self.rows.add(&hour);
        }
        let mut sum = Counters::ZERO;
        self.cells.iter().for_each(|cell| sum.add(&cell.cell.sum));
        let hour = self.next_hour(|from| from == start);
        match hour.filter(|hour| hour.cell.sum.0.iter().zip(sum.0).any(|(hour, cells)| *hour > cells)) {
            Some(hour) => self.rows.add(&hour),
            None => self.cells.iter().for_each(|cell| self.rows.add(cell)),
        }
        self.cells.clear();
    }

    /// Oldest first.
    pub fn rows(mut self) -> Vec<PeriodTotal> {
        self.sum_hour();
        self.hours[self.done..].iter().for_each(|hour| self.rows.add(hour));
        self.rows.rows()
    }
}

#[cfg(test)]
mod tests {
    use std::iter::successors;

    use super::*;
    use crate::clock::{parse_time, rfc3339};
    use crate::model::Cell;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    const HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";
    const NEWFOUNDLAND: &str = "NST3:30NDT,M3.2.0/0:01,M11.1.0/0:01";
    const CHILE: &str = "<-04>4<-03>,M9.1.6/24,M4.1.6/24";
    const EXTREME: &str = "AAA-24BBB24,J60,300";

    fn zone(text: &str) -> Zone {
        Zone::parse(text).unwrap()
    }

    fn at(text: &str) -> i64 {
        parse_time(text, &Zone::UTC).unwrap()
    }

    /// The periods that overlap `[from, to)`, oldest first.
    fn ascending(period: Period, from: i64, to: i64, zone: &Zone) -> impl Iterator<Item = (i64, i64)> {
        let (from, to) = (Zone::clamp(from), Zone::clamp(to));
        successors(Some(period.around(from, zone)), move |last| {
            // At the end of the calendar there is no next period.
            Some(period.around(last.1, zone)).filter(|next| next.0 > last.0)
        })
        .take_while(move |period| period.0 < to)
    }

    /// Like `ascending`, newest first.
    fn descending(period: Period, from: i64, to: i64, zone: &Zone) -> impl Iterator<Item = (i64, i64)> {
        let (from, to) = (Zone::clamp(from), Zone::clamp(to));
        successors(Some(period.around(to - 1, zone)), move |last| {
            Some(period.around(last.0 - 1, zone)).filter(|next| next.0 < last.0)
        })
        .take_while(move |period| period.1 > from)
    }

    #[test]
    fn periods_around_a_time() {
        fn check(period: Period, tz: &str, unix: &str, expect: (&str, &str)) {
            let (from, to) = period.around(at(unix), &zone(tz));
            assert_eq!((rfc3339(from).as_str(), rfc3339(to).as_str()), expect, "{period:?} {tz} {unix}");
        }
        use Period::*;
        check(Hour, "UTC0", "2026-01-15T10:59:59Z", ("2026-01-15T10:00:00Z", "2026-01-15T11:00:00Z"));
        check(Hour, "IST-5:30", "2026-01-15T10:29:59Z", ("2026-01-15T09:30:00Z", "2026-01-15T10:30:00Z"));
        check(Hour, BERLIN, "2026-03-29T00:30:00Z", ("2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"));
        check(Hour, BERLIN, "2026-10-25T01:30:00Z", ("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"));
        check(Hour, HOWE, "2026-10-03T15:40:00Z", ("2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z"));
        check(Hour, HOWE, "2026-04-04T15:20:00Z", ("2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"));
        check(Day, BERLIN, "2026-03-29T12:00:00Z", ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"));
        check(Day, BERLIN, "2026-10-25T22:59:59Z", ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"));
        check(Week, BERLIN, "2026-03-29T21:59:59Z", ("2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z"));
        check(Week, "UTC0", "2026-01-01", ("2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"));
        check(Month, BERLIN, "2026-03-15", ("2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"));
        check(Month, "UTC0", "2024-02-29", ("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"));
        check(Month, "UTC0", "2026-12-31", ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"));
        check(Year, "<+03>-3", "2026-06-01", ("2025-12-31T21:00:00Z", "2026-12-31T21:00:00Z"));
    }

    #[test]
    fn e25_periods_neither_overlap_nor_leave_gaps() {
        for tz in ["UTC0", BERLIN, HOWE, NEWFOUNDLAND, CHILE, EXTREME, "LMT-0:53:28"] {
            let zone = zone(tz);
            for (period, _) in Period::NAMES {
                let (from, to) =
                    (at("2023-11-01"), if period == Period::Hour { at("2024-11-20") } else { at("2031-01-01") });
                let mut expect = period.around(from, &zone).0;
                let up: Vec<_> = ascending(period, from, to, &zone).collect();
                for (start, end) in &up {
                    assert_eq!((*start, start < end), (expect, true), "{tz} {period:?}");
                    for unix in [*start, *end - 1, start + (end - start) / 3] {
                        assert_eq!(period.around(unix, &zone), (*start, *end), "{tz} {period:?} {unix}");
                    }
                    expect = *end;
                }
                assert!(expect >= to);
                let mut down: Vec<_> = descending(period, from, to, &zone).collect();
                down.reverse();
                assert_eq!(up, down, "{tz} {period:?}");
                assert_eq!(period.cover(from, to, &zone), (up[0].0, expect));
            }
        }
    }

    /// In zones far from UTC, in a zone where a day starts at 01:00, and for a day with the bounds of another zone.
    #[test]
    fn first_and_last_day_of_a_period() {
        const CHATHAM: &str = "<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45";
        for tz in ["SST11", "<-12>12", "<+14>-14", CHATHAM, CHILE, BERLIN, HOWE, "UTC0"] {
            let zone = zone(tz);
            let mut day = Civil::date(2026, 1, 1);
            for (from, to) in ascending(Period::Day, zone.unix(day), zone.unix(Civil::date(2027, 1, 1)), &zone) {
                assert_eq!(PeriodTotal { from, to, ..PeriodTotal::default() }.days(&zone), (day, day), "{tz} {from}");
                day = day.plus_days(1);
            }
            let days = |period: Period, unix: i64| {
                let (from, to) = period.around(unix, &zone);
                PeriodTotal { from, to, ..PeriodTotal::default() }.days(&zone)
            };
            let noon = zone.unix(Civil { hour: 12, ..Civil::date(2026, 9, 6) });
            let year = (Civil::date(2026, 1, 1), Civil::date(2026, 12, 31));
            assert_eq!(days(Period::Year, noon), year, "{tz}");
            assert_eq!(days(Period::Month, noon), (Civil::date(2026, 9, 1), Civil::date(2026, 9, 30)), "{tz}");
            assert_eq!(days(Period::Week, noon), (Civil::date(2026, 8, 31), Civil::date(2026, 9, 6)), "{tz}");
            let today = Civil::date(2026, 9, 6);
            assert_eq!(days(Period::Hour, noon - 11 * HOUR_S), (today, today), "{tz}");
        }
        // Stored in UTC, shown in Berlin.
        let (from, to) = (at("2026-01-15T00:00:00Z"), at("2026-01-16T00:00:00Z"));
        let day = Civil::date(2026, 1, 15);
        assert_eq!(PeriodTotal { from, to, ..PeriodTotal::default() }.days(&zone(BERLIN)), (day, day));
    }

    #[test]
    fn steps_match_a_walk_over_the_periods() {
        for tz in ["UTC0", BERLIN, CHILE, "IST-5:30"] {
            let zone = zone(tz);
            for (period, _) in Period::NAMES {
                let all: Vec<_> = ascending(period, at("2024-01-20"), at("2026-12-20"), &zone).take(9000).collect();
                let middle = all.len() / 2;
                for (index, (start, _)) in all.iter().enumerate() {
                    let count = index as i64 - middle as i64;
                    assert_eq!(period.step(all[middle].1 - 1, count, &zone), *start, "{tz} {period:?} {count}");
                }
            }
        }
    }

    #[test]
    fn extreme_times_do_not_panic() {
        for tz in ["UTC0", BERLIN, EXTREME] {
            let zone = zone(tz);
            for (period, _) in Period::NAMES {
                for unix in [i64::MIN, -1, 0, i64::MAX] {
                    let (from, to) = period.around(unix, &zone);
                    assert!(from < to);
                    for count in [i64::MIN, -1, 1, i64::MAX] {
                        period.step(unix, count, &zone);
                    }
                    assert!(ascending(period, unix, i64::MAX, &zone).take(3).count() <= 3);
                    assert!(descending(period, i64::MIN, unix, &zone).take(3).count() <= 3);
                    period.cover(i64::MAX, i64::MIN, &zone);
                }
            }
        }
    }

    #[test]
    fn a_walk_ends_at_the_last_year() {
        let zone = zone(BERLIN);
        assert_eq!(ascending(Period::Year, i64::MIN, i64::MAX, &zone).count(), 20_000);
        assert_eq!(descending(Period::Year, i64::MIN, i64::MAX, &zone).count(), 20_000);
    }

    fn bucket(from: i64, seconds: i64, bytes: u64) -> Bucket {
        let sum = Counters::of([bytes, 2 * bytes, 1, 1, 0, 0, 0, 0]);
        Bucket { from, to: from + seconds, cell: Cell { sum, plain_s: seconds as u32, ..Cell::default() } }
    }

    /// Contiguous buckets with one byte per second.
    fn contiguous(from: &str, to: &str, seconds: i64) -> Vec<Bucket> {
        (at(from)..at(to)).step_by(seconds as usize).map(|from| bucket(from, seconds, seconds as u64)).collect()
    }

    fn rows(period: Period, zone: &Zone, now: i64, buckets: &[Bucket]) -> Vec<PeriodTotal> {
        let mut rows = PeriodTotals::new(period, zone, now, (i64::MIN, i64::MAX));
        buckets.iter().for_each(|bucket| rows.add(bucket));
        rows.rows()
    }

    fn check(period: Period, tz: &str, now: &str, buckets: &[Bucket], expect: &[(&str, &str, u64, bool)]) {
        let rows = rows(period, &zone(tz), at(now), buckets);
        let rows: Vec<_> =
            rows.iter().map(|row| (rfc3339(row.from), rfc3339(row.to), row.sum.rx_bytes(), row.complete)).collect();
        let rows: Vec<_> = rows.iter().map(|row| (row.0.as_str(), row.1.as_str(), row.2, row.3)).collect();
        assert_eq!(rows, expect);
    }

    #[test]
    fn e25_hours_from_five_minute_cells() {
        check(
            Period::Hour,
            "IST-5:30",
            "2026-01-15T02:40:00Z",
            &contiguous("2026-01-15T00:30:00Z", "2026-01-15T02:40:00Z", 300),
            &[
                ("2026-01-15T00:30:00Z", "2026-01-15T01:30:00Z", 3600, true),
                ("2026-01-15T01:30:00Z", "2026-01-15T02:30:00Z", 3600, true),
                ("2026-01-15T02:30:00Z", "2026-01-15T03:30:00Z", 600, false),
            ],
        );
    }

    #[test]
    fn an_hour_uses_the_resolution_with_more_traffic() {
        let zone = zone("IST-5:30");
        let range = (at("2026-01-15T00:30:00Z"), at("2026-01-15T05:30:00Z"));
        let mut hours = HourTotals::new(PeriodTotals::new(Period::Hour, &zone, at("2026-02-01"), range));
        contiguous("2026-01-15T00:00:00Z", "2026-01-15T05:00:00Z", 3600).iter().for_each(|hour| hours.add(hour));
        // Five-minute buckets are missing for a part of the second hour and for the third one; only they have the last
        // hour.
        let mut cells = contiguous("2026-01-15T00:00:00Z", "2026-01-15T06:00:00Z", 300);
        cells.retain(|cell| !(at("2026-01-15T01:20:00Z")..at("2026-01-15T03:00:00Z")).contains(&cell.from));
        cells.iter().for_each(|cell| hours.add(cell));
        let rows = hours.rows();
        let rows: Vec<_> = rows.iter().map(|row| (rfc3339(row.from), row.sum.rx_bytes())).collect();
        let expect =
            [("00:30", 1800), ("01:30", 3600), ("02:00", 3600), ("03:00", 1800), ("03:30", 3600), ("04:30", 3600)];
        assert_eq!(rows, expect.map(|(from, sum)| (format!("2026-01-15T{from}:00Z"), sum)));
    }

    #[test]
    fn e25_old_hours_keep_their_utc_bounds() {
        let mut buckets = contiguous("2026-01-15T00:00:00Z", "2026-01-15T02:00:00Z", 3600);
        buckets.extend(contiguous("2026-01-15T02:00:00Z", "2026-01-15T03:30:00Z", 300));
        check(
            Period::Hour,
            "IST-5:30",
            "2026-02-01",
            &buckets,
            &[
                ("2026-01-15T00:00:00Z", "2026-01-15T01:00:00Z", 3600, true),
                ("2026-01-15T01:00:00Z", "2026-01-15T02:00:00Z", 3600, true),
                ("2026-01-15T02:00:00Z", "2026-01-15T02:30:00Z", 1800, false),
                ("2026-01-15T02:30:00Z", "2026-01-15T03:30:00Z", 3600, true),
            ],
        );
    }

    #[test]
    fn e25_a_day_of_23_hours_is_one_row() {
        let days = [("2026-03-27T23:00:00Z", 24), ("2026-03-28T23:00:00Z", 23), ("2026-03-29T22:00:00Z", 24)];
        let days: Vec<_> = days.map(|(from, hours)| bucket(at(from), hours * 3600, hours as u64)).into();
        check(
            Period::Day,
            BERLIN,
            "2026-03-30T21:59:59Z",
            &days,
            &[
                ("2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z", 24, true),
                ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23, true),
                ("2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z", 24, false),
            ],
        );
        check(
            Period::Month,
            BERLIN,
            "2027-01-01",
            &days,
            &[("2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z", 71, false)],
        );
    }

    #[test]
    fn e25_days_stored_in_another_zone_keep_their_bounds() {
        let mut days = contiguous("2026-01-10", "2026-01-12", 86_400);
        days.push(bucket(at("2026-01-12"), 82_800, 7));
        days.push(bucket(at("2026-01-12T23:00:00Z"), 86_400, 9));
        check(
            Period::Day,
            BERLIN,
            "2026-02-01",
            &days,
            &[
                ("2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z", 86_400, true),
                ("2026-01-11T00:00:00Z", "2026-01-12T00:00:00Z", 86_400, true),
                ("2026-01-12T00:00:00Z", "2026-01-12T23:00:00Z", 7, false),
                ("2026-01-12T23:00:00Z", "2026-01-13T23:00:00Z", 9, true),
            ],
        );
    }

    #[test]
    fn a_row_is_complete_if_it_is_over_and_99_percent_covered() {
        let whole = contiguous("2026-01-15T00:00:00Z", "2026-01-15T01:00:00Z", 300);
        let case = |now: &str, buckets: &[Bucket], complete: bool| {
            let rows = rows(Period::Hour, &Zone::UTC, at(now), buckets);
            assert_eq!((rows.len(), rows[0].complete), (1, complete));
        };
        case("2026-01-15T01:00:00Z", &whole, true);
        case("2026-01-15T00:59:59Z", &whole, false);
        case("2026-01-15T01:00:00Z", &whole[1..], false);
        let mut partial = whole.clone();
        for (seconds, complete) in [(300, true), (264, true), (263, false)] {
            (partial[3].cell.plain_s, partial[3].cell.gap_s) = (0, seconds);
            case("2026-01-15T01:00:00Z", &partial, complete);
        }
    }

    #[test]
    fn every_byte_is_in_exactly_one_row() {
        let mut random = 7u64;
        for tz in ["UTC0", BERLIN, HOWE, NEWFOUNDLAND, "LMT-0:53:28"] {
            for (period, _) in Period::NAMES {
                let mut buckets = Vec::new();
                let mut from = at("2026-03-20");
                for _ in 0..2000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let seconds = [300, 300, 3600, 86_400][(random >> 60) as usize % 4];
                    from += [0, 0, 0, 300, 7200, 100_000][(random >> 50) as usize % 6];
                    buckets.push(bucket(from, seconds, random >> 30));
                    from += seconds;
                }
                let rows = rows(period, &zone(tz), from, &buckets);
                let sum = |rows: &mut dyn Iterator<Item = u64>| rows.map(u128::from).sum::<u128>();
                assert_eq!(
                    sum(&mut rows.iter().map(|row| row.sum.rx_bytes())),
                    sum(&mut buckets.iter().map(|bucket| bucket.cell.sum.rx_bytes()))
                );
                assert!(rows.iter().all(|row| row.from < row.to), "{tz} {period:?}");
                assert!(rows.windows(2).all(|pair| pair[0].to <= pair[1].from), "{tz} {period:?}");
            }
        }
    }
}
