//! Charts: chooses the buckets of a chart for a request, and sums history into them. Pure.

use crate::clock::{Civil, Zone};
use crate::model::{Bucket, Cell, Counters, RX_BYTES, TX_BYTES};
use crate::resolution::{Bucketing, DAY_S as DAY, Resolution, ResolutionSpec};

const EPOCH: Civil = Civil::date(1970, 1, 1);
/// The end of the year 9999 in UTC seconds. A request can only name earlier times.
const MAX_TO: i64 = 253_402_300_800;
/// Limit for the search of the smallest step, which can be long if a long range gets few points. Each attempt needs two
/// 64-bit divisions, which 32-bit CPUs do in software. The estimate that is used instead is at most a few percent
/// larger.
const MAX_ATTEMPTS: usize = 10_000;

/// One resolution, and the time of its oldest stored data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredResolution {
    pub spec: &'static ResolutionSpec,
    /// Seconds per bucket: the polling interval for samples.
    pub step: i64,
    /// UTC seconds; `None` if nothing is stored.
    pub oldest: Option<i64>,
}

/// The buckets of a chart, and the resolution to read for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The resolution to read, from the first edge to the last.
    pub resolution: Resolution,
    /// Seconds per bucket. If it is whole days, the buckets are local days and may be longer or shorter.
    pub step: i64,
    /// The local day on which the first bucket begins, if the step is whole days.
    pub first_day: Option<Civil>,
    /// Bounds of the buckets in UTC seconds, ascending: one more than there are buckets.
    pub edges: Vec<i64>,
}

impl Grid {
    /// One empty cell per bucket.
    pub fn empty(&self) -> Vec<Cell> {
        vec![Cell::default(); self.edges.len().saturating_sub(1)]
    }
}

/// Divides `[from, to)`, rounded outwards, into at most `points` buckets. The step is the smallest possible multiple of
/// the step of a resolution that has data for the range. Steps of whole days go from local midnight to local midnight.
/// The resolution to read is the coarsest whose bounds include all edges, because it has the same figures in fewer
/// rows.
///
/// `resolutions` has all resolutions from fine to coarse. If nothing is stored yet, any of them may be chosen.
pub fn choose(from: i64, to: i64, points: usize, zone: &Zone, resolutions: &[StoredResolution]) -> Grid {
    let from = from.clamp(0, MAX_TO - 1);
    let to = to.clamp(from + 1, MAX_TO);
    let points = i64::try_from(points).unwrap_or(i64::MAX).max(1);

    // The oldest bucket of a resolution begins before its first sample, for days by up to a day. So a finer resolution
    // that begins later than a coarser one may still have all samples; it lacks some only if it begins after the end of
    // the coarser one's first bucket. A `from` before all stored data excludes no resolution.
    let has_data = |at: usize| {
        let ends = resolutions[at..]
            .iter()
            .filter_map(|stored| stored.oldest.map(|oldest| oldest.saturating_add(stored.step)));
        let Some(first_end) = ends.min() else { return resolutions.iter().all(|stored| stored.oldest.is_none()) };
        resolutions[at].oldest.is_some_and(|oldest| oldest <= from.max(first_end))
    };
    let usable: Vec<&StoredResolution> =
        (0..resolutions.len()).filter(|at| has_data(*at)).map(|at| &resolutions[at]).collect();

    let days = (day_number(from, zone), day_number(to - 1, zone) + 1);
    let candidate = |stored: &&StoredResolution| {
        let local = stored.spec.bucketing == Bucketing::LocalDays;
        let unit = if local { DAY } else { stored.step.max(1) };
        let range = if local { days } else { (from / unit, (to - 1) / unit + 1) };
        (smallest_stride(range, points).saturating_mul(unit), unit, range)
    };
    let found = usable.iter().map(candidate).min_by_key(|(step, ..)| *step);
    let (mut step, mut unit, mut range) = found.unwrap_or((smallest_stride((from, to), points), 1, (from, to)));
    let whole_days = step % DAY == 0;
    if whole_days {
        (step, unit, range) = (smallest_stride(days, points).saturating_mul(DAY), DAY, days);
    }

    let stride = step / unit;
    let edge = |at: i64| if whole_days { midnight(at, zone) } else { at.saturating_mul(unit) };
    // Edges are multiples of the step since 1970, so that a chart that is updated keeps its buckets.
    let mut at = if points == 1 { range.0 } else { range.0.div_euclid(stride) * stride };
    let first_day = whole_days.then(|| EPOCH.plus_days(at));
    let mut edges = vec![edge(at)];
    while at < range.1 {
        at = at.saturating_add(stride);
        edges.push(edge(at));
    }
    edges.dedup();

    let fits = |stored: &&&StoredResolution| match stored.spec.bucketing {
        Bucketing::LocalDays => {
            whole_days
                && (stored.step == DAY || edges.iter().all(|edge| zone.days(*edge, stored.step / DAY).0 == *edge))
        }
        _ => edges.iter().all(|edge| edge % stored.step.max(1) == 0),
    };
    let finest = Resolution::Sample;
    let resolution = usable.iter().rev().find(fits).or(usable.first()).map_or(finest, |stored| stored.spec.resolution);
    Grid { resolution, step, first_day, edges }
}

/// The smallest stride that divides `[from, to)`, rounded outwards to its multiples, into at most `points` pieces.
fn smallest_stride((from, to): (i64, i64), points: i64) -> i64 {
    let length = to - from;
    if points == 1 {
        return length;
    }
    let ceil = |value: i64, by: i64| (value - 1).div_euclid(by) + 1;
    // Rounding outwards can add one piece, so a stride for one piece less always fits.
    let (low, high) = (ceil(length, points), ceil(length, points - 1));
    let fits = |stride: &i64| ceil(to, *stride) - from.div_euclid(*stride) <= points;
    (low..high).take(MAX_ATTEMPTS).find(fits).unwrap_or(high)
}

/// Number of the local day, counted from 1 January 1970.
fn day_number(unix: i64, zone: &Zone) -> i64 {
    zone.civil(zone.day(unix).0).days()
}

/// UTC seconds of local midnight of a day number.
fn midnight(day: i64, zone: &Zone) -> i64 {
    zone.unix(EPOCH.plus_days(day))
}

/// Sums buckets into the cells of a chart while they are read. It does not keep the buckets: a range may have half a
/// million.
pub struct ChartCells<'a> {
    edges: &'a [i64],
    cells: Vec<Cell>,
    /// Index of the cell in which the latest bucket began. The search for the next one starts there.
    latest: usize,
    /// For samples: end of the latest one. `None` for other resolutions.
    latest_sample_end: Option<i64>,
}

/// Adjusts the start of a sample to `before`, the end of the previous one, if they differ by one second. Ticks and
/// spans are both rounded to seconds, so two neighbours may have a gap or an overlap of one second.
fn join_previous(before: i64, sample: &Bucket) -> Bucket {
    let begin = if (sample.from - before).abs() <= 1 { before } else { sample.from };
    let seconds = u32::try_from(sample.to - begin).unwrap_or(0);
    let (plain_seconds, gap_seconds) = if sample.cell.gap_s > 0 { (0, seconds) } else { (seconds, 0) };
    Bucket {
        from: begin.min(sample.to - 1),
        to: sample.to,
        cell: Cell { plain_s: plain_seconds, gap_s: gap_seconds, ..sample.cell },
    }
}

impl<'a> ChartCells<'a> {
    /// Creates one empty cell for each pair of neighbouring edges.
    pub fn new(resolution: Resolution, edges: &'a [i64]) -> ChartCells<'a> {
        let cells = vec![Cell::default(); edges.len().saturating_sub(1)];
        ChartCells {
            edges,
            cells,
            latest: 0,
            latest_sample_end: (resolution == Resolution::Sample).then_some(i64::MIN / 2),
        }
    }

    /// Adds a bucket. If it crosses an edge, it is split in proportion to the time, exact to the byte. The part outside
    /// the edges is ignored.
    pub fn add(&mut self, bucket: &Bucket) {
        let bucket = self.latest_sample_end.map_or(*bucket, |before| join_previous(before, bucket));
        self.latest_sample_end = self.latest_sample_end.map(|_| bucket.to);
        // Buckets of the history are at least one second long. The bytes of a bucket of length zero would count too.
        let length = bucket.to.saturating_sub(bucket.from).max(1);
        let begins = |edge: &i64| *edge <= bucket.from;
        let is_near =
            self.edges.get(self.latest).is_some_and(begins) && !self.edges.get(self.latest + 1).is_some_and(begins);
        if !is_near {
            self.latest = self.edges.partition_point(begins).saturating_sub(1);
        }
        for (cell, range) in self.cells.iter_mut().zip(self.edges.windows(2)).skip(self.latest) {
            let start = range[0].saturating_sub(bucket.from).clamp(0, length);
            let end = range[1].saturating_sub(bucket.from).clamp(0, length);
            if start < end {
                add_part(cell, &bucket, |value| part(value, end, length) - part(value, start, length));
            }
            if end == length {
                break;
            }
        }
    }

    pub fn cells(self) -> Vec<Cell> {
        self.cells
    }
}

/// The part of `value` in the first `seconds`, if it is spread evenly over `length` seconds.
fn part(value: u64, seconds: i64, length: i64) -> u64 {
    let (seconds, length) = (seconds.unsigned_abs(), length.unsigned_abs());
    if seconds == 0 || seconds == length {
        return if seconds == 0 { 0 } else { value };
    }
    // The first product is at most `value`, the second one less than `length` squared, which fits into 64 bits for a
    // bucket of a century.
    value / length * seconds + (value % length).saturating_mul(seconds) / length
}

/// Adds a part of a bucket to a cell; `share` computes that part of each value.
fn add_part(cell: &mut Cell, bucket: &Bucket, share: impl Fn(u64) -> u64) {
    let Cell { sum, rx_peak, tx_peak, plain_s: plain_seconds, gap_s: gap_seconds } = bucket.cell;
    let [plain_seconds, gap_seconds] = [plain_seconds, gap_seconds].map(|seconds| share(seconds.into()) as u32);
    cell.add(&Cell { sum: Counters(sum.0.map(share)), rx_peak, tx_peak, plain_s: plain_seconds, gap_s: gap_seconds });
}

/// Seconds over which the rates of a cell are averaged; 0 if the cell has no rate.
pub fn rate_seconds(cell: &Cell) -> u64 {
    if cell.plain_s > 0 { cell.observed() } else { 0 }
}

/// Average rate in bytes per second over the time that the sum covers, rounded to the nearest. `None` if no plain
/// sample covers any of it: a line through a gap would be a guess.
fn rate(cell: &Cell, counter: usize) -> Option<u64> {
    let (seconds, bytes) = (cell.observed(), cell.sum.0[counter]);
    (cell.plain_s > 0).then(|| (bytes / seconds).saturating_add((bytes % seconds * 2 + seconds) / (seconds * 2)))
}

/// Average rates received and sent, and their peaks, in bytes per second. A peak is raised to the average if it is
/// lower: in a bucket with a gap, only the plain samples have a peak, but the average includes the traffic of the gap.
pub fn rates(cell: &Cell) -> [Option<u64>; 4] {
    let [rx, tx] = [RX_BYTES, TX_BYTES].map(|counter| rate(cell, counter));
    let peak = |rate: Option<u64>, peak: u64| rate.map(|rate| rate.max(peak));
    [rx, tx, peak(rx, cell.rx_peak), peak(tx, cell.tx_peak)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::parse_time;
    use crate::model::COUNTERS;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn zone(text: &str) -> Zone {
        Zone::parse(text).unwrap()
    }

    fn at(text: &str) -> i64 {
        parse_time(text, &Zone::UTC).unwrap()
    }

    const NOW: &str = "2026-11-22T17:46:43Z";

    /// A database that was created `days` days before `NOW`, with the default retention.
    fn resolutions(days: i64) -> [StoredResolution; 4] {
        let stored = |resolution: Resolution, step: i64, retention: i64| {
            let oldest = at(NOW) - days.min(retention) * DAY;
            StoredResolution { spec: resolution.spec(), step, oldest: Some(oldest / step * step) }
        };
        [
            stored(Resolution::Sample, 30, 7),
            stored(Resolution::FiveMinutes, 300, 90),
            stored(Resolution::Hour, 3600, 5 * 365),
            stored(Resolution::Day, DAY, i64::MAX),
        ]
    }

    #[test]
    fn steps_and_resolutions() {
        fn check(days: i64, range_s: i64, points: usize, expect: (Resolution, i64)) {
            let to = at(NOW);
            let grid = choose(to - range_s, to, points, &zone(BERLIN), &resolutions(days));
            assert_eq!((grid.resolution, grid.step), expect, "{days} days of history, {range_s} s in {points} points");
        }
        use Resolution::*;
        check(1000, 3600, 720, (Sample, 30));
        check(1000, 3600, 60, (Sample, 90));
        check(1000, 3600, 13, (FiveMinutes, 300));
        check(1000, DAY, 720, (Sample, 150));
        check(1000, DAY, 289, (FiveMinutes, 300));
        check(1000, DAY, 26, (Sample, 3390));
        check(1000, 6 * DAY, 720, (Sample, 750));
        check(1000, 8 * DAY, 720, (FiveMinutes, 1200));
        check(1000, 30 * DAY, 720, (FiveMinutes, 3900));
        check(1000, 30 * DAY, 31, (FiveMinutes, 84_600));
        check(1000, 365 * DAY, 720, (Hour, 13 * 3600));
        check(1000, 365 * DAY, 366, (Day, DAY));
        check(5000, 10 * 365 * DAY, 720, (Day, 6 * DAY));
        // In a young database, samples cover all the stored time.
        check(0, DAY, 720, (Sample, 150));
        check(3, 30 * DAY, 720, (Sample, 3630));
        check(3, 365 * DAY, 366, (Sample, 86_250));
        check(1000, 3600, 1, (Sample, 3630));
        check(1000, 400 * DAY, 1, (Hour, (400 * 24 + 1) * 3600));
    }

    #[test]
    fn with_nothing_stored_yet() {
        let none = resolutions(1).map(|stored| StoredResolution { oldest: None, ..stored });
        let grid = choose(at(NOW) - 3600, at(NOW), 720, &Zone::UTC, &none);
        assert_eq!((grid.resolution, grid.step), (Resolution::Sample, 30));
        let only = [StoredResolution { oldest: Some(at(NOW) - 60), ..none[0] }, none[1], none[2], none[3]];
        assert_eq!(choose(at(NOW) - DAY, at(NOW), 25, &Zone::UTC, &only).resolution, Resolution::Sample);
        let grid = choose(at(NOW) - 100, at(NOW), 10, &Zone::UTC, &[]);
        assert_eq!((grid.step, grid.edges.len()), (11, 11));
    }

    #[test]
    fn e25_steps_of_days_start_at_local_midnight() {
        // Only the resolution of days still has that time.
        let grid = choose(at("2020-10-24T12:00:00Z"), at("2020-10-26T12:00:00Z"), 3, &zone(BERLIN), &resolutions(5000));
        let edges = ["2020-10-23T22:00:00Z", "2020-10-24T22:00:00Z", "2020-10-25T23:00:00Z", "2020-10-26T23:00:00Z"];
        assert_eq!((grid.resolution, grid.step, grid.edges), (Resolution::Day, DAY, edges.map(at).to_vec()));
        assert_eq!(grid.first_day, Some(Civil::date(2020, 10, 24)));
        // Two days of UTC touch three local days in India. Without the resolution of days, hours do not fit: local
        // midnight is not a full hour of UTC.
        let no_days = &resolutions(80)[1..3];
        let grid = choose(at("2026-10-24"), at("2026-10-26"), 2, &zone("IST-5:30"), no_days);
        let edges = ["2026-10-23T18:30:00Z", "2026-10-25T18:30:00Z", "2026-10-27T18:30:00Z"];
        assert_eq!(
            (grid.resolution, grid.step, grid.edges),
            (Resolution::FiveMinutes, 2 * DAY, edges.map(at).to_vec())
        );
    }

    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 20
    }

    #[test]
    fn every_request_is_covered_within_the_allowed_points() {
        let mut state = 3;
        for turn in 0..20_000 {
            let days = [0, 3, 80, 1000, 4000][turn % 5];
            let tz = ["UTC0", BERLIN, "IST-5:30", "<-04>4<-03>,M9.1.6/24,M4.1.6/24"][turn / 5 % 4];
            let to = at(NOW) - (random(&mut state) % 100_000_000) as i64;
            let from = to - 1 - (random(&mut state) >> (random(&mut state) % 40)) as i64;
            let points = 1 + random(&mut state) as usize % [3, 30, 720][turn % 3];
            let grid = choose(from, to, points, &zone(tz), &resolutions(days));
            let context = format!("{from} {to} {points} {days} {tz} {grid:?}");
            let from = from.max(0);
            assert!(grid.edges.len() - 1 <= points, "{context}");
            assert!(grid.edges.windows(2).all(|pair| pair[0] < pair[1]), "{context}");
            assert!(grid.edges[0] <= from && *grid.edges.last().unwrap() >= to, "{context}");
            assert!(grid.edges[1] > from && grid.edges[grid.edges.len() - 2] < to, "{context}");
            if grid.resolution != Resolution::Day {
                let unit =
                    resolutions(days).iter().find(|stored| stored.spec.resolution == grid.resolution).unwrap().step;
                assert!(grid.edges.iter().all(|edge| edge % unit == 0), "{context}");
            }
        }
    }

    #[test]
    fn the_step_is_the_smallest() {
        let stored = [StoredResolution { spec: Resolution::Sample.spec(), step: 7, oldest: None }];
        let mut state = 5;
        for _ in 0..2000 {
            let from = (random(&mut state) % 100_000) as i64;
            let to = from + 1 + (random(&mut state) % 5000) as i64;
            let points = 2 + random(&mut state) as usize % 100;
            let count = |step: i64| (to + step - 1) / step - from / step;
            let expect = (1..).map(|k| 7 * k).find(|step| count(*step) <= points as i64).unwrap();
            assert_eq!(choose(from, to, points, &Zone::UTC, &stored).step, expect, "{from} {to} {points}");
        }
    }

    #[test]
    fn extreme_requests_do_not_panic() {
        for from in [i64::MIN, -1, 0, at(NOW), i64::MAX] {
            for to in [i64::MIN, 0, at(NOW), i64::MAX] {
                for points in [0, 1, 2, 720, usize::MAX] {
                    for step in [i64::MIN, 0, 1, 86_400, i64::MAX] {
                        if points == usize::MAX && to.saturating_sub(from) > 1_000_000 {
                            continue;
                        }
                        let strange =
                            StoredResolution { spec: Resolution::Sample.spec(), step, oldest: Some(i64::MAX) };
                        choose(from, to, points, &zone(BERLIN), &[strange, resolutions(1000)[3]]);
                        choose(from, to, points, &zone(BERLIN), &resolutions(1000));
                    }
                }
            }
        }
    }

    fn cells(buckets: &[Bucket], edges: &[i64]) -> Vec<Cell> {
        let mut chart_cells = ChartCells::new(Resolution::FiveMinutes, edges);
        buckets.iter().for_each(|bucket| chart_cells.add(bucket));
        chart_cells.cells()
    }

    fn bucket(from: i64, seconds: i64, bytes: u64) -> Bucket {
        let sum = Counters::of([bytes, bytes / 3, 1, 2, 0, 0, 0, 0]);
        let cell = Cell { sum, rx_peak: bytes, tx_peak: 0, plain_s: seconds as u32, gap_s: 0 };
        Bucket { from, to: from + seconds, cell }
    }

    fn with_seconds(bucket: Bucket, plain_seconds: u32, gap_seconds: u32) -> Bucket {
        Bucket { cell: Cell { plain_s: plain_seconds, gap_s: gap_seconds, ..bucket.cell }, ..bucket }
    }

    #[test]
    fn e12_a_gap_has_no_rate_and_keeps_its_bytes() {
        fn check(plain_seconds: u32, gap_seconds: u32, expect: (Option<u64>, Option<u64>)) {
            let mut bucket = with_seconds(bucket(0, 300, 3000), plain_seconds, gap_seconds);
            bucket.cell.rx_peak = 5;
            let [rx, _, rx_peak, _] = rates(&cells(&[bucket], &[0, 300])[0]);
            assert_eq!((rx, rx_peak), expect, "{plain_seconds} {gap_seconds}");
        }
        check(300, 0, (Some(10), Some(10)));
        check(100, 200, (Some(10), Some(10)));
        check(100, 0, (Some(30), Some(30)));
        check(0, 300, (None, None));
        check(0, 0, (None, None));
        for empty in cells(&[], &[0, 300, 600]) {
            assert_eq!((rates(&empty), rate_seconds(&empty)), ([None; 4], 0));
        }
        assert_eq!(cells(&[bucket(0, 300, 1)], &[]), []);
    }

    /// Simulates a timer of one second with any phase and with stalls of 2 to 20 seconds. Each second must be covered
    /// exactly once.
    #[test]
    fn neighbouring_samples_cover_each_second_exactly_once() {
        const SECONDS: i64 = 200;
        let mut state = 7_u64;
        for _ in 0..300 {
            let mut below = |most: i64| random(&mut state) as i64 % most;
            // Milliseconds: time of the next tick, and of the latest one.
            let (mut due, mut latest) = (1000 + below(1000), None);
            let (mut samples, mut bytes, mut plain) = (Vec::new(), 0, vec![false; SECONDS as usize]);
            loop {
                let stall = if below(15) == 0 { 2_000 + below(18_000) } else { below(30) };
                let now = due + stall;
                due = now - now.rem_euclid(1000) + due.rem_euclid(1000);
                due += if due > now { 0 } else { 1000 };
                if now / 1000 >= SECONDS - 1 {
                    break;
                }
                if let Some(before) = latest.replace(now) {
                    let seconds = ((now - before + 500) / 1000).max(1);
                    let is_plain = stall < 1000;
                    let (plain_seconds, gap_seconds) = if is_plain { (seconds, 0) } else { (0, seconds) };
                    let (from, to) = (now / 1000 - seconds, now / 1000);
                    bytes += 1000;
                    samples.push(with_seconds(bucket(from, to - from, 1000), plain_seconds as u32, gap_seconds as u32));
                    (before / 1000..now / 1000).for_each(|second| plain[second as usize] = is_plain);
                }
            }
            let edges: Vec<i64> = (0..=SECONDS).collect();
            let mut chart_cells = ChartCells::new(Resolution::Sample, &edges);
            samples.iter().for_each(|sample| chart_cells.add(sample));
            let cells = chart_cells.cells();
            // The first sample has no previous one to be joined to.
            for (second, cell) in cells.iter().enumerate().skip(samples[0].to as usize) {
                assert_eq!(cell.plain_s > 0, plain[second], "{second}: {cell:?}");
                assert!(cell.plain_s + cell.gap_s <= 1, "{second}: {cell:?}");
            }
            assert_eq!(cells.iter().map(|cell| cell.sum.rx_bytes()).sum::<u64>(), bytes);
        }
    }

    #[test]
    fn buckets_across_an_edge_are_split_by_time() {
        fn check(bucket: Bucket, expect: &[(u64, u32)]) {
            let cells = cells(&[bucket], &[0, 100, 200, 300]);
            assert_eq!(cells.iter().map(|cell| (cell.sum.rx_bytes(), cell.plain_s)).collect::<Vec<_>>(), expect);
        }
        check(bucket(90, 30, 300), &[(100, 10), (200, 20), (0, 0)]);
        check(bucket(50, 200, 1000), &[(250, 50), (500, 100), (250, 50)]);
        check(bucket(-100, 200, 1000), &[(500, 100), (0, 0), (0, 0)]);
        check(bucket(250, 100, 1000), &[(0, 0), (0, 0), (500, 50)]);
        check(bucket(-100, 100, 1000), &[(0, 0); 3]);
        check(bucket(300, 100, 1000), &[(0, 0); 3]);
        check(bucket(99, 2, 3), &[(1, 1), (2, 1), (0, 0)]);
        check(bucket(100, 0, 7), &[(0, 0), (7, 0), (0, 0)]);
        check(bucket(0, 300, u64::MAX), &[(u64::MAX / 3, 100); 3]);
        check(Bucket { from: i64::MIN, to: i64::MAX, ..bucket(0, 0, 9) }, &[(0, 0); 3]);
    }

    #[test]
    fn cells_have_the_bytes_of_the_buckets() {
        let mut state = 11;
        for _ in 0..300 {
            let mut buckets = Vec::new();
            let mut from = 0;
            for _ in 0..200 {
                from += [0, 0, 0, 17, 4000][random(&mut state) as usize % 5];
                let seconds = 1 + (random(&mut state) % 4000) as i64;
                let gap_seconds = if random(&mut state) >> 42 == 0 { seconds as u32 / 4 } else { 0 };
                let bytes = random(&mut state) >> (random(&mut state) % 44);
                buckets.push(with_seconds(bucket(from, seconds, bytes), seconds as u32 - gap_seconds, gap_seconds));
                from += seconds;
            }
            let points = 1 + random(&mut state) as usize % 300;
            let edges = choose(0, from, points, &Zone::UTC, &[]).edges;
            let cells = cells(&buckets, &edges);

            let sum = |values: &mut dyn Iterator<Item = u64>| values.sum::<u64>();
            for counter in 0..COUNTERS {
                let expect = sum(&mut buckets.iter().map(|bucket| bucket.cell.sum.0[counter]));
                assert_eq!(sum(&mut cells.iter().map(|cell| cell.sum.0[counter])), expect);
            }
            let expect = sum(&mut buckets.iter().map(|bucket| bucket.cell.observed()));
            assert_eq!(sum(&mut cells.iter().map(Cell::observed)), expect);

            // Only the rounding to whole bytes per second is lost.
            for cell in &cells {
                let ([rate, ..], seconds) = (rates(cell), rate_seconds(cell));
                assert_eq!(seconds, if rate.is_some() { cell.observed() } else { 0 });
                let bytes = rate.unwrap_or(0) * seconds;
                assert!(bytes.abs_diff(if rate.is_some() { cell.sum.rx_bytes() } else { 0 }) * 2 <= seconds);
            }
        }
    }
}
