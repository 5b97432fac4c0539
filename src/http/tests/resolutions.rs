//! All resolutions agree: hours, days, five minutes, samples and the buckets of a chart add up to the same bytes. That
//! holds at each step on the way from memory to disk, without a database, and for samples that begin far in the past.
//! The expected figures are computed from the samples alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::{directory, idle_context, iface};
use crate::clock::{Clock, Now, Zone, parse_time};
use crate::history::READ_TIMEOUT;
use crate::http::{Context, HttpRequest, answer};
use crate::live::Database;
use crate::model::{Batch, Counters, IfaceId, Sample, SampleQuality, Tick};
use crate::resolution::{Resolution, Retention};
use crate::store::{Options, SaveRequest, Store};
use crate::totals::Period;

/// Time at which each test begins: 2026-01-15T10:30:00Z.
const START: i64 = 1_768_473_000;
const IFACES: [(IfaceId, &str); 2] = [(2, "eth0"), (3, "lan0")];
const ZONES: [&str; 4] = ["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "IST-5:30", "<+1030>-10:30<+11>-11,M10.1.0,M1.3.6"];
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// Maximum number of rows in one answer of `/api/traffic/totals`.
const MAX_ROWS: i64 = 1_000;

struct MovingClock(Mutex<i64>);

impl Clock for MovingClock {
    fn now(&self) -> Now {
        let unix = *self.0.lock().unwrap();
        Now { mono_ms: (unix - START + 100 * DAY) as u64 * 1_000, unix_ms: unix * 1_000 }
    }
}

/// Repeatable random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % limit as u64) as i64
    }

    fn one_in(&mut self, count: i64) -> bool {
        self.below(count) == 0
    }

    fn pick(&mut self, from: &[i64]) -> i64 {
        from[self.below(from.len() as i64) as usize]
    }
}

/// Bytes received, bytes sent, seconds of plain samples, seconds of gaps and resets.
type Figures = [u64; 4];

fn add(to: &mut Figures, more: Figures) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

/// The part of a sample at `unix` between `from` and `to`.
fn part_of_sample(unix: i64, sample: &Sample, from: i64, to: i64) -> Figures {
    let length = sample.span_ms as i64 / 1_000;
    let start = unix - length;
    let (first, last) = ((from - start).clamp(0, length), (to - start).clamp(0, length));
    let share = |value: u64| {
        let until = |seconds: i64| (u128::from(value) * seconds as u128 / length as u128) as u64;
        until(last) - until(first)
    };
    let seconds = (last - first) as u64;
    let plain = sample.quality == SampleQuality::Plain;
    let [rx, tx] = [0, 1].map(|counter| share(sample.delta.0[counter]));
    [rx, tx, if plain { seconds } else { 0 }, if plain { 0 } else { seconds }]
}

struct HistoryRig {
    context: Context,
    clock: Arc<MovingClock>,
    directory: PathBuf,
    store: Option<Store>,
    zone: Zone,
    retention: Retention,
    seq: u64,
    samples_so_far: Vec<(i64, Sample)>,
}

impl Drop for HistoryRig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl HistoryRig {
    fn new(zone: &str, samples_days: u32) -> HistoryRig {
        let clock = Arc::new(MovingClock(Mutex::new(START)));
        let context = Context { clock: clock.clone(), ..idle_context() };
        let zone = Zone::parse(zone).unwrap();
        {
            let mut state = context.live.lock();
            state.zone = Arc::new(zone.clone());
            state.inventory.interfaces = IFACES.map(|(id, name)| iface(name, id)).into();
            state.inventory.primary = Some("eth0".to_string());
            // As before the database is opened.
            state.health.database = Database::NotRejoined;
        }
        let retention = Retention::FOREVER
            .with(Resolution::Sample, samples_days)
            .with(Resolution::FiveMinutes, 90)
            .with(Resolution::Hour, 1_826);
        let (directory, samples_so_far) = (directory(), Vec::new());
        HistoryRig { context, clock, directory, store: None, zone, retention, seq: 0, samples_so_far }
    }

    fn now(&self) -> i64 {
        *self.clock.0.lock().unwrap()
    }

    fn open(&mut self) {
        assert!(self.context.history.set_reader(None, READ_TIMEOUT));
        self.store = None;
        let opened = Store::open(&self.directory.join("net-pulse.db"), &Options { max_bytes: 32 << 20 }).unwrap();
        self.seq = self.seq.max(opened.next_seq);
        assert!(self.context.history.set_reader(Some(opened.store.reader().unwrap()), READ_TIMEOUT));
        self.store = Some(opened.store);
        self.context.live.lock().health.database = Database::Rejoined;
    }

    /// Adds a tick at the current time.
    fn tick(&mut self, samples: &[Sample]) {
        self.seq += 1;
        let now = self.clock.now();
        let unix = now.unix_ms / 1_000;
        self.samples_so_far.extend(samples.iter().map(|sample| (unix, *sample)));
        let mut state = self.context.live.lock();
        let batch = &mut state.unsaved.batch;
        batch.samples.extend(samples);
        let end = batch.samples.len();
        batch.ticks.push(Tick { seq: self.seq, mono_ms: now.mono_ms, unix: Some(unix), end });
    }

    /// Saves the unsaved ticks, and checks in each state that readers may find.
    fn save(&mut self, check: impl Fn(&HistoryRig, &str)) {
        let batch = {
            let mut state = self.context.live.lock();
            state.unsaved.saving_batch = Arc::new(std::mem::take(&mut state.unsaved.batch));
            state.unsaved.saving_batch.clone()
        };
        check(self, "taken by the writer");
        let (zone, retention) = (&self.zone, self.retention);
        let request =
            SaveRequest { batch: &batch, anchors: &[], records: &[], events: &[], settings: &[], retention, zone };
        self.store.as_mut().unwrap().save(&request).unwrap();
        check(self, "saved and still in memory");
        self.context.live.lock().unsaved.saving_batch = Arc::new(Batch::default());
        check(self, "saved");
    }

    fn ask(&self, target: &str) -> Value {
        let client_ip = Some(IpAddr::from([127, 0, 0, 1]));
        let answer = answer(&self.context, &HttpRequest { method: "GET", target, client_ip, ..HttpRequest::default() });
        assert_eq!(answer.status, 200, "{target}");
        serde_json::from_slice(&answer.body.into_bytes(&self.context).unwrap()).unwrap()
    }

    /// The rows of an answer, by their start.
    fn rows(&self, target: &str) -> BTreeMap<i64, [u64; 2]> {
        let list = self.ask(target);
        let row = |row: &Value| {
            let from = parse_time(row["from"].as_str().unwrap(), &Zone::UTC).unwrap();
            (from, ["rx_bytes", "tx_bytes"].map(|name| row[name].as_u64().unwrap()))
        };
        let rows: BTreeMap<i64, [u64; 2]> = list.as_array().unwrap().iter().map(row).collect();
        assert_eq!(rows.len(), list.as_array().unwrap().len(), "{target}: {list}");
        rows
    }

    fn samples(&self, id: IfaceId) -> impl Iterator<Item = &(i64, Sample)> {
        self.samples_so_far.iter().filter(move |(_, sample)| sample.iface == id)
    }

    /// The expected five-minute cells of an interface.
    fn cells(&self, id: IfaceId) -> BTreeMap<i64, Figures> {
        let mut cells = BTreeMap::new();
        for (unix, sample) in self.samples(id) {
            let start = unix - sample.span_ms as i64 / 1_000;
            let mut at = start - start % 300;
            while at < *unix {
                add(cells.entry(at).or_default(), part_of_sample(*unix, sample, at, at + 300));
                at += 300;
            }
        }
        cells
    }

    /// Checks all queries, for both interfaces.
    fn check(&self, random: &mut Random, contiguous: bool, when: &str) {
        for (id, name) in IFACES {
            let cells = self.cells(id);
            self.check_totals(random, name, &cells, when);
            self.check_exports(random, id, name, &cells, when);
            // Where samples overlap, the expected chart is not defined.
            if contiguous {
                self.check_series(random, id, name, when);
            }
            self.check_today(name, &cells, when);
        }
    }

    /// A random range between an hour before the data and an hour after it, or a range that contains all data.
    fn range(&self, random: &mut Random, cells: &BTreeMap<i64, Figures>) -> (i64, i64) {
        let first = cells.keys().next().copied().unwrap_or(START);
        let mut moment = || first - HOUR + random.below(self.now() - first + 2 * HOUR);
        let (one, other) = (moment(), moment());
        if random.one_in(3) { (0, self.now() + 2 * DAY) } else { (one.min(other), one.max(other) + 1) }
    }

    fn check_totals(&self, random: &mut Random, name: &str, cells: &BTreeMap<i64, Figures>, when: &str) {
        for (period, by) in Period::NAMES {
            let mut expect: BTreeMap<(i64, i64), [u64; 2]> = BTreeMap::new();
            for (at, figures) in cells {
                let row = expect.entry(period.around(at + 150, &self.zone)).or_default();
                (row[0], row[1]) = (row[0] + figures[0], row[1] + figures[1]);
            }
            let (from, to) = self.range(random, cells);
            let limit = random.pick(&[1, 2, 10, MAX_ROWS]);
            let earliest = |to: i64| period.step(to - 1, 1 - limit, &self.zone);
            for (query, from, to, limit) in [
                (format!("&limit={MAX_ROWS}&from=0&to={to}"), 0, to, MAX_ROWS),
                (format!("&limit={MAX_ROWS}&from={from}&to={to}"), from, to, MAX_ROWS),
                (format!("&limit={limit}"), earliest(self.now()), self.now(), limit),
                (format!("&limit={limit}&to={to}"), earliest(to), to, limit),
            ] {
                if random.one_in(2) {
                    continue;
                }
                let expect: BTreeMap<i64, [u64; 2]> = expect
                    .iter()
                    .rev()
                    .filter(|(row, _)| row.0 < to && row.1 > from)
                    .take(limit as usize)
                    .map(|(row, sums)| (row.0, *sums))
                    .collect();
                let target = format!("/api/traffic/totals?interface={name}&by={by}{query}");
                assert_eq!(self.rows(&target), expect, "{when}: {target}");
            }
        }
    }

    fn check_exports(&self, random: &mut Random, id: IfaceId, name: &str, cells: &BTreeMap<i64, Figures>, when: &str) {
        let (from, to) = self.range(random, cells);
        for (resolution, bucket) in [
            ("5min", &(|at: i64| (at, at + 300)) as &dyn Fn(i64) -> (i64, i64)),
            ("hour", &|at| (at - at % HOUR, at - at % HOUR + HOUR)),
            ("day", &|at| self.zone.day(at)),
        ] {
            for (query, from, to) in [
                (String::new(), i64::MIN, i64::MAX),
                (format!("&start_time={from}&end_time={}", to - 1), from, to),
                (format!("&end_time={}", to - 1), i64::MIN, to),
            ] {
                if random.one_in(2) {
                    continue;
                }
                let mut expect: BTreeMap<i64, [u64; 2]> = BTreeMap::new();
                for (at, figures) in cells {
                    let bucket = bucket(*at);
                    if bucket.0 < to && bucket.1 > from {
                        let row = expect.entry(bucket.0).or_default();
                        (row[0], row[1]) = (row[0] + figures[0], row[1] + figures[1]);
                    }
                }
                let target = format!("/api/export/traffic?resolution={resolution}&interface_name={name}{query}");
                assert_eq!(self.rows(&target), expect, "{when}: {target}");
            }
        }
        if self.retention.days(Resolution::Sample) > 30 {
            let rows = self.ask(&format!("/api/export/traffic?interface_name={name}"));
            let got: u64 = rows.as_array().unwrap().iter().map(|row| row["rx_bytes"].as_u64().unwrap()).sum();
            let expect: u64 = self.samples(id).map(|(_, sample)| sample.delta.rx_bytes()).sum();
            assert_eq!(got, expect, "{when}: samples of {name}");
        }
    }

    fn check_series(&self, random: &mut Random, id: IfaceId, name: &str, when: &str) {
        let first = self.samples(id).map(|(unix, sample)| unix - sample.span_ms as i64 / 1_000).min().unwrap_or(START);
        for length in [600, HOUR, 5 * HOUR, DAY, 8 * DAY, self.now() - first + DAY] {
            let to = [self.now(), first + random.below(self.now() - first + length)][random.below(2) as usize];
            let points = random.pick(&[1, 2, 7, 25, 300, 720]);
            self.check_chart(id, name, (to - length, to), points, when);
        }
    }

    fn check_chart(&self, id: IfaceId, name: &str, (from, to): (i64, i64), points: i64, when: &str) {
        let target = format!("/api/traffic/series?interface={name}&points={points}&from={from}&to={to}");
        let body = self.ask(&target);
        let mut edges: Vec<i64> = body["t"].as_array().unwrap().iter().map(|edge| edge.as_i64().unwrap()).collect();
        edges.push(parse_time(body["to"].as_str().unwrap(), &Zone::UTC).unwrap());
        for (counter, column) in ["rx", "tx"].into_iter().enumerate() {
            let got: Vec<Option<u64>> =
                body["interfaces"][name][column].as_array().unwrap().iter().map(Value::as_u64).collect();
            let expect: Vec<Option<u64>> = edges
                .windows(2)
                .map(|edges| {
                    let mut sum = Figures::default();
                    self.samples(id)
                        .for_each(|(unix, sample)| add(&mut sum, part_of_sample(*unix, sample, edges[0], edges[1])));
                    let seconds = sum[2] + sum[3];
                    (sum[2] > 0).then(|| (2 * sum[counter] + seconds) / (2 * seconds))
                })
                .collect();
            assert_eq!(got, expect, "{when}: {column} of {target} at {edges:?}");
        }
    }

    fn check_today(&self, name: &str, cells: &BTreeMap<i64, Figures>, when: &str) {
        let (from, to) = self.zone.day(self.now());
        let mut expect = Figures::default();
        cells.range(from..to).for_each(|(_, figures)| add(&mut expect, *figures));
        // The sums of today are cached until the next tick, so pretend that there was one.
        self.context.live.lock().health.polls.total += 1;
        let iface = self.ask(&format!("/api/interfaces/{name}"));
        assert_eq!(iface["today_rx_bytes"], expect[0], "{when}: today of {name}");
    }
}

fn sample(random: &mut Random, iface: IfaceId, span_s: i64) -> Sample {
    let bits = 1 + random.below(30);
    let rx = random.below(1 << bits) as u64;
    let quality = match span_s {
        ..=60 => SampleQuality::Plain,
        // A plain sample can be this long, too: coarsening merges old unsaved ticks.
        _ => [SampleQuality::Reset, SampleQuality::Gap, SampleQuality::Plain][random.below(3) as usize],
    };
    Sample { iface, quality, span_ms: span_s as u64 * 1_000, delta: Counters::of([rx, rx / 3, 1, 1, 0, 0, 0, 0]) }
}

/// Builds one random history and checks it after each step.
fn run_random_history(seed: u64, stored: bool) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed << 20);
    let contiguous = random.one_in(2);
    let samples_days = random.pick(&[1, 60]) as u32;
    let zone = ZONES[random.below(ZONES.len() as i64) as usize];
    let mut history = HistoryRig::new(zone, samples_days);
    if stored {
        history.open();
    }
    let mut latest: BTreeMap<IfaceId, i64> = BTreeMap::new();
    for step in 0..16 {
        let elapsed = random.pick(&[30, 30, 30, 300, 1_000, 2 * HOUR, 7 * HOUR, DAY]);
        *history.clock.0.lock().unwrap() += elapsed;
        let now = history.now();
        let mut samples = Vec::new();
        for (id, _) in IFACES {
            let before = latest.get(&id).copied();
            let longest = 30 + random.pick(&[0, HOUR / 2, 4 * HOUR, 9 * HOUR, DAY, 5 * DAY]);
            let span = match before {
                Some(before) if contiguous => now - before,
                Some(_) if !random.one_in(4) => elapsed.min(longest),
                _ => longest + random.below(longest),
            };
            if !random.one_in(5) {
                samples.push(sample(&mut random, id, span));
                latest.insert(id, now);
            }
        }
        history.tick(&samples);
        let context = format!("seed {seed}, step {step}, {zone}");
        history.check(&mut random, contiguous, &format!("{context}, in memory"));
        if stored && random.one_in(2) {
            let random_for_checks = Mutex::new(Random(random.0));
            history.save(|history, when| {
                history.check(&mut random_for_checks.lock().unwrap(), contiguous, &format!("{context}, {when}"));
            });
        }
        if stored && random.one_in(6) && history.context.live.lock().unsaved.batch.is_empty() {
            history.open();
            history.check(&mut random, contiguous, &format!("{context}, opened again"));
        }
    }
}

#[test]
fn all_resolutions_add_up_to_the_same_bytes() {
    (0..12).for_each(|seed| run_random_history(seed, true));
}

#[test]
fn all_resolutions_add_up_without_a_database() {
    (0..12).for_each(|seed| run_random_history(seed, false));
}

/// Five-minute cells may be kept longer than hours, or shorter, and unsaved samples may begin before either.
#[test]
fn hour_totals_are_complete_for_any_retention() {
    for (five_minutes_days, hours_days) in [(90, 1826), (1, 1826), (90, 1), (3, 2), (2, 3)] {
        for zone in ZONES {
            let mut history = HistoryRig::new(zone, 1);
            history.retention =
                history.retention.with(Resolution::FiveMinutes, five_minutes_days).with(Resolution::Hour, hours_days);
            history.open();
            let check = |history: &HistoryRig, when: &str| {
                let cells = history.cells(2);
                let rows = history.rows(&format!("/api/traffic/totals?by=hour&limit={MAX_ROWS}&from=0"));
                // From here on, at least one of the two resolutions is still stored.
                let kept_from = history.now() - i64::from(five_minutes_days.max(hours_days) - 1) * DAY;
                for (row, figures) in &rows {
                    let (from, to) = Period::Hour.around(*row, &history.zone);
                    let mut expect = Figures::default();
                    cells.range(from..to).for_each(|(_, cell)| add(&mut expect, *cell));
                    // Stored hours are hours of UTC. Where no five-minute cells are left, a local hour that is not also
                    // an hour of UTC cannot be computed.
                    let is_utc_hour = from % HOUR == 0 && to - from == HOUR;
                    let known = is_utc_hour || from > history.now() - i64::from(five_minutes_days - 1) * DAY;
                    let context = format!("{five_minutes_days} {hours_days} {zone} {when} {row}");
                    assert!(!known || from < kept_from || *figures == [expect[0], expect[1]], "{context}: {figures:?}");
                }
                if hours_days > 1000 || five_minutes_days > 10 {
                    let mut expect = Figures::default();
                    cells.values().for_each(|cell| add(&mut expect, *cell));
                    assert_eq!(
                        rows.values().map(|row| row[0]).sum::<u64>(),
                        expect[0],
                        "{five_minutes_days} {zone} {when}"
                    );
                }
            };
            let mut random = Random(11);
            for step in 1..=120 {
                *history.clock.0.lock().unwrap() += HOUR;
                let span = if step % 50 == 0 { 4 * DAY } else { HOUR };
                history.tick(&[sample(&mut random, 2, span)]);
                if step % 10 == 0 {
                    check(&history, "in memory");
                    history.save(check);
                }
            }
        }
    }
}

/// A long gap of one interface begins before the oldest stored sample of the others. A chart of that time must use a
/// resolution that has the data of all interfaces.
#[test]
fn a_long_gap_of_one_interface_does_not_hide_older_history_of_another() {
    let mut history = HistoryRig::new("UTC0", 1);
    history.open();
    let mut random = Random(3);
    for step in 1..=80 {
        *history.clock.0.lock().unwrap() += HOUR;
        let mut samples = vec![Sample { quality: SampleQuality::Plain, ..sample(&mut random, 2, HOUR) }];
        // The first tick of its six-hour block: once retention has deleted the older blocks, no older samples are
        // stored.
        if step == 38 {
            samples.push(Sample { quality: SampleQuality::Gap, ..sample(&mut random, 3, 5 * DAY) });
        }
        history.tick(&samples);
        history.save(|_, _| {});
        for points in [300, 720] {
            history.check_chart(2, "eth0", (history.now() - 4 * DAY, history.now()), points, &format!("step {step}"));
        }
    }
}

/// The database comes from another machine. The first sample of this machine is spread over its uptime, which began
/// before the first tick on disk.
#[test]
fn resolutions_add_up_when_a_sample_begins_before_the_first_tick() {
    for back in [HOUR, 3 * HOUR + HOUR / 2, 9 * HOUR, 3 * DAY, 60 * DAY] {
        for zone in ZONES {
            let mut history = HistoryRig::new(zone, 7);
            history.open();
            let check = |history: &HistoryRig, when: &str| {
                let sum = |by: &str| -> u64 {
                    let rows = history.rows(&format!("/api/traffic/totals?by={by}&limit={MAX_ROWS}&from=0"));
                    rows.values().rev().map(|row| row[0]).sum()
                };
                let expect: u64 = history.samples_so_far.iter().map(|(_, sample)| sample.delta.rx_bytes()).sum();
                for by in ["day", "week", "month", "year"] {
                    assert_eq!(sum(by), expect, "{back} {zone} {when} by {by}");
                }
                // An answer has at most `MAX_ROWS` rows, and 60 days have more hours.
                if back < 30 * DAY {
                    assert_eq!(sum("hour"), expect, "{back} {zone} {when} by hour");
                }
            };
            let mut random = Random(7);
            for span in [30, back, 30, 30] {
                *history.clock.0.lock().unwrap() += 30;
                history.tick(&[sample(&mut random, 2, span)]);
                check(&history, "in memory");
                history.save(check);
            }
            *history.clock.0.lock().unwrap() += 7 * HOUR;
            history.tick(&[sample(&mut random, 2, 30)]);
            check(&history, "the next open block in memory");
            history.save(check);
            history.open();
            check(&history, "opened again");
        }
    }
}
