//! Wrong clocks, clock steps, suspends and kills: real sampler, writer and store on a simulated machine. In all cases,
//! the history must contain exactly what the kernel counted, once, from the first run on that trusted its clock. If the
//! clock is corrected before it is trusted, all samples must have their true times.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::simulated::{Kernel, ManualClock, SharedCounters, read};
use net_pulse::clock::{BUILD_FLOOR, Clock, Now, Zone};
use net_pulse::config::Config;
use net_pulse::history::{DatedSample, DiskThread, History, SampleFilter, Snapshot};
use net_pulse::http::{self, Context, HttpRequest};
use net_pulse::live::{Live, StoredHistory};
use net_pulse::model::{Bucket, Counters, NetworkStack, SampleQuality};
use net_pulse::resolution::Resolution;
use net_pulse::sampler::Sampler;
use net_pulse::source::{Wake, Woken};
use net_pulse::store::{Opened, Options, Reader, Store};
use net_pulse::writer::Writer;
use serde_json::Value;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
const FLUSH_MS: u64 = 300_000;
const INTERVAL_S: i64 = 30;
/// The last second of the year 9999.
const END_OF_9999: i64 = 253_402_300_799;
/// A plausible time after the build.
const NOON: i64 = BUILD_FLOOR + 100 * DAY + 12 * HOUR;
const LORD_HOWE: &str = "LHST-10:30LHDT-11,M10.1.0,M4.1.0/2";
const ADELAIDE: &str = "ACST-9:30ACDT,M10.1.0,M4.1.0/3";

/// Counted per second by each interface: bytes received and sent, packets received and sent.
const SPEEDS: [[u64; 4]; 3] = [[1_000_003, 70_001, 900, 500], [999, 1, 3, 1], [7, 0, 1, 0]];

struct Daemon {
    live: Arc<Live>,
    sampler: Sampler,
    writer: Writer,
    context: Context,
    saved_ms: u64,
}

/// A simulated machine with a disk, two clocks and counters. The daemon can be started, stopped and killed.
struct Machine {
    folder: PathBuf,
    zone: Zone,
    clock: Arc<ManualClock>,
    /// The correct wall time.
    truth_ms: i64,
    boots: u32,
    kernel: SharedCounters,
    /// Kernel counters at the first start. Everything counted since must be in the history.
    first: Option<Vec<Counters>>,
    /// Sum of the counters of earlier boots.
    before: Vec<Counters>,
    daemon: Option<Daemon>,
}

impl Machine {
    /// A machine that has been running for a while, with some traffic. `truth`: UTC seconds.
    fn new(truth: i64, zone: &str) -> Machine {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("net-pulse-clock-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let counters = vec![Counters::of([5_000_000_000, 4_000_000_000, 30, 20, 1, 0, 2, 0]); SPEEDS.len()];
        Machine {
            folder,
            zone: Zone::parse(zone).unwrap(),
            clock: Arc::new(ManualClock(Mutex::new(Now { mono_ms: 20_000, unix_ms: truth * 1000 + 400 }))),
            truth_ms: truth * 1000 + 400,
            boots: 0,
            kernel: Arc::new(Mutex::new(counters)),
            first: None,
            before: vec![Counters::ZERO; SPEEDS.len()],
            daemon: None,
        }
    }

    fn truth(&self) -> i64 {
        self.truth_ms / 1000
    }

    fn start(&mut self) -> &mut Machine {
        assert!(self.daemon.is_none());
        let path = self.folder.join("history.db");
        let opened = Store::open(&path, &Options { max_bytes: 32 << 20 }).unwrap();
        assert!(opened.events.is_empty(), "{:?}", opened.events);
        let (interval, flush) = (INTERVAL_S.to_string(), (FLUSH_MS / 1000).to_string());
        let config = Config::with_saved(&[("interval", &interval), ("flush", &flush), ("primary", "eth0")]);
        let live = Arc::new(Live::new(config, self.zone.clone()));
        let boot = format!("boot-{}", self.boots);
        let stack = NetworkStack { machine: "the router".to_string(), boot, namespace: 1 };
        let Opened { store, records, settings, next_seq, newest_unix: newest, .. } = opened;
        let reader = store.reader().unwrap();
        live.lock().apply_stored_history(StoredHistory { records, settings, next_seq, newest });
        let reopen = Box::new(|| unreachable!("the simulated kernel never breaks"));
        let source = Box::new(Kernel(self.kernel.clone()));
        let sampler = Sampler::new(source, reopen, live.clone(), self.clock.clone(), stack);
        let context = Context {
            live: live.clone(),
            history: History::new(live.clone(), Some(reader)),
            backup_thread: DiskThread::named("copy"),
            clock: self.clock.clone(),
            database: path,
            machine: Arc::new(net_pulse::model::Machine::default),
            find_zone: Arc::new(|name| Ok(Zone::find(Some(name), None, |_| None)?.zone)),
            listen_addresses: Vec::new(),
            auth: http::Auth::new(self.folder.to_path_buf(), None, false, false),
            server_state: http::ServerState::default(),
        };
        let writer = Writer::new(live.clone(), store, self.clock.clone());
        let saved_ms = self.clock.now().mono_ms;
        self.first.get_or_insert_with(|| self.kernel.lock().unwrap().clone());
        self.daemon = Some(Daemon { live, sampler, writer, context, saved_ms });
        self.turn();
        self
    }

    /// One turn of the sampler, and a save if one is due. Returns the time in milliseconds until the next turn.
    fn turn(&mut self) -> u64 {
        let daemon = self.daemon.as_mut().unwrap();
        let sleep = daemon.sampler.step(Woken::default()).as_millis() as u64;
        let now_ms = self.clock.now().mono_ms;
        if daemon.live.lock().pending.save_now || now_ms - daemon.saved_ms >= FLUSH_MS {
            daemon.writer.save().unwrap();
            daemon.saved_ms = now_ms;
        }
        sleep
    }

    /// Lets time pass, with traffic but without a turn.
    fn pass(&mut self, ms: u64) {
        let mut now = self.clock.0.lock().unwrap();
        // The traffic of a second is counted at its end.
        let seconds = (now.mono_ms + ms) / 1000 - now.mono_ms / 1000;
        now.mono_ms += ms;
        now.unix_ms += ms as i64;
        self.truth_ms += ms as i64;
        for (counters, speed) in self.kernel.lock().unwrap().iter_mut().zip(SPEEDS) {
            let [rx, tx, rx_packets, tx_packets] = speed.map(|one| one * seconds);
            counters.add(&Counters::of([rx, tx, rx_packets, tx_packets, 0, 0, 0, 0]));
        }
    }

    fn run(&mut self, seconds: i64) -> &mut Machine {
        let end = self.clock.now().mono_ms + seconds as u64 * 1000;
        if self.daemon.is_none() {
            self.pass(seconds as u64 * 1000);
        }
        loop {
            let left = end - self.clock.now().mono_ms;
            if left == 0 {
                return self;
            }
            let sleep = self.turn();
            self.pass(sleep.clamp(1, left));
        }
    }

    /// Suspends the machine; both clocks and the counters continue.
    fn suspend(&mut self, seconds: i64) -> &mut Machine {
        self.pass(seconds as u64 * 1000);
        self
    }

    /// Sets the clock forward or back. Linux does not allow a wall time below the monotonic time.
    fn set_by(&mut self, seconds: i64) -> &mut Machine {
        let mut now = self.clock.0.lock().unwrap();
        now.unix_ms = (now.unix_ms + seconds * 1000).max(now.mono_ms as i64);
        drop(now);
        self
    }

    fn set_to(&mut self, unix: i64) -> &mut Machine {
        self.clock.0.lock().unwrap().unix_ms = unix * 1000;
        self.set_by(0)
    }

    fn set_right(&mut self) -> &mut Machine {
        self.clock.0.lock().unwrap().unix_ms = self.truth_ms;
        self
    }

    fn kill(&mut self) -> &mut Machine {
        self.daemon = None;
        self
    }

    /// Like SIGTERM: a last sample and a last save.
    fn stop(&mut self) -> &mut Machine {
        if let Some(Daemon { live, sampler, mut writer, .. }) = self.daemon.take() {
            live.lock().pending.stopping = true;
            sampler.run(&Wake::new().unwrap());
            writer.save().unwrap();
        }
        self
    }

    /// Boots again after `seconds` without power; the wall clock then shows `wall`.
    fn reboot(&mut self, seconds: i64, wall: i64) -> &mut Machine {
        assert!(self.daemon.is_none());
        self.boots += 1;
        self.truth_ms += seconds * 1000;
        *self.clock.0.lock().unwrap() = Now { mono_ms: 15_000, unix_ms: wall * 1000 };
        for (counters, before) in self.kernel.lock().unwrap().iter_mut().zip(&mut self.before) {
            before.add(counters);
            *counters = Counters::ZERO;
        }
        self
    }

    /// Counters of all boots since the first start.
    fn counted(&self) -> Vec<Counters> {
        let first = self.first.as_ref().unwrap();
        let kernel = self.kernel.lock().unwrap();
        (0..SPEEDS.len())
            .map(|at| {
                let mut sum = self.before[at];
                sum.add(&kernel[at]);
                Counters(std::array::from_fn(|field| sum.0[field] - first[at].0[field]))
            })
            .collect()
    }

    /// Takes a sample and saves. Returns whether everything counted until now is on disk; samples without a wall time
    /// stay in memory.
    fn catch_up(&mut self) -> bool {
        let live = self.daemon.as_ref().unwrap().live.clone();
        // With a timeout of zero this only leaves a request. The next turn serves it.
        assert!(live.collect(Duration::ZERO).is_none());
        self.turn();
        self.daemon.as_mut().unwrap().writer.save().unwrap();
        let state = live.lock();
        state.unsaved.batch.is_empty()
    }

    /// Checks that the sums of every resolution and the lifetime totals equal the kernel counters.
    fn check_sums(&mut self) -> &mut Machine {
        assert!(self.catch_up(), "some samples have no wall time yet");
        let counted = self.counted();
        let daemon = self.daemon.as_ref().unwrap();
        let state = daemon.live.lock();
        for (at, expect) in counted.iter().enumerate() {
            let iface = state.inventory.interface(&format!("eth{at}")).unwrap();
            assert_eq!(iface.lifetime, *expect, "lifetime of eth{at}");
            for resolution in [Resolution::FiveMinutes, Resolution::Hour, Resolution::Day] {
                let (id, zone) = (iface.id.unwrap(), self.zone.clone());
                let query = move |reader: &Reader| {
                    Snapshot::of(reader, &zone, &[]).unwrap().buckets(resolution, id, -DAY, END_OF_9999).unwrap()
                };
                let buckets = read(&daemon.context, query);
                assert_eq!(sum(&buckets), *expect, "{resolution:?} of eth{at}");
                assert!(buckets.is_sorted_by(|one, next| one.to <= next.from), "{resolution:?} of eth{at}");
            }
        }
        drop(state);
        self
    }

    fn samples(&self) -> Vec<DatedSample> {
        let daemon = self.daemon.as_ref().unwrap();
        let filter = SampleFilter { iface: Some(1), ..SampleFilter::default() };
        read(&daemon.context, move |reader| {
            Snapshot::of(reader, &Zone::UTC, &[]).unwrap().oldest(&filter, None, usize::MAX).unwrap().0
        })
    }

    /// Checks that all samples lie between these times, and that no tick occurs twice.
    fn check_times(&mut self, from: i64, to: i64) -> &mut Machine {
        let samples = self.samples();
        for dated in &samples {
            assert!((from..=to).contains(&dated.unix), "{} is not in {from}..={to}", dated.unix);
        }
        let mut ids: Vec<u64> = samples.iter().map(DatedSample::id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), samples.len(), "an id occurs twice");
        self
    }

    /// Checks that all samples have their true times: one per tick, 30 s apart, from `from` until now.
    fn check_steady(&mut self, from: i64) -> &mut Machine {
        let samples = self.samples();
        let plain: Vec<i64> = samples
            .iter()
            .filter(|dated| dated.sample.quality == SampleQuality::Plain)
            .map(|dated| dated.unix)
            .collect();
        let expect = (self.truth() - from) / INTERVAL_S;
        assert!((plain.len() as i64 - expect).abs() <= 2, "{} rows, {expect} ticks", plain.len());
        // The first and the last sample may cover less than an interval.
        for pair in plain.windows(2) {
            assert!(pair[0] < pair[1] && pair[1] - pair[0] <= INTERVAL_S + 1, "{pair:?}");
        }
        assert!((self.truth() - plain[plain.len() - 1]).abs() <= 1);
        self.check_times(from, self.truth() + 1)
    }

    fn events(&self, kind: &str) -> Vec<String> {
        let daemon = self.daemon.as_ref().unwrap();
        let request = HttpRequest { method: "GET", target: "/api/events?limit=1000", ..HttpRequest::default() };
        let answer = http::answer(&daemon.context, &request);
        assert_eq!(answer.status, 200);
        let events: Value = serde_json::from_slice(&answer.body.into_bytes(&daemon.context).unwrap()).unwrap();
        let of_kind = events.as_array().unwrap().iter().filter(|event| event["kind"] == kind);
        of_kind.map(|event| event["detail"].as_str().unwrap().to_string()).collect()
    }

    /// Local days from the API: length in minutes, and bytes received by eth0.
    fn days(&self, from: i64, to: i64) -> Vec<(i64, u64)> {
        let daemon = self.daemon.as_ref().unwrap();
        let target = format!("/api/traffic/totals?interface=eth0&by=day&from={from}&to={to}&limit=1000");
        let answer =
            http::answer(&daemon.context, &HttpRequest { method: "GET", target: &target, ..HttpRequest::default() });
        assert_eq!(answer.status, 200);
        let rows: Value = serde_json::from_slice(&answer.body.into_bytes(&daemon.context).unwrap()).unwrap();
        let time = |text: &Value| net_pulse::clock::parse_time(text.as_str().unwrap(), &Zone::UTC).unwrap();
        let row = |row: &Value| ((time(&row["to"]) - time(&row["from"])) / 60, row["rx_bytes"].as_u64().unwrap());
        rows.as_array().unwrap().iter().map(row).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.daemon = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn sum(buckets: &[Bucket]) -> Counters {
    let mut sum = Counters::ZERO;
    buckets.iter().for_each(|bucket| sum.add(&bucket.cell.sum));
    sum
}

/// Wrong clocks that machines boot with.
fn wrong_clocks(truth: i64) -> [(&'static str, i64); 4] {
    [
        ("1970", 20),
        ("2033", 1_996_000_000),
        ("9 hours behind", truth - 9 * HOUR),
        ("past 2038", i64::from(i32::MAX) + 100 * DAY),
    ]
}

#[test]
fn e20_a_boot_with_a_wrong_clock_that_is_corrected() {
    for (name, wall) in wrong_clocks(NOON) {
        for ntp_after in [1, 45, 5 * MINUTE, 50 * MINUTE] {
            println!("{name}, corrected after {ntp_after} s");
            let mut machine = Machine::new(NOON - 2 * HOUR, "UTC0");
            // An hour of history, then 55 minutes without power.
            machine.start().run(HOUR).stop().reboot(HOUR - 5 * MINUTE, wall);
            let from = machine.truth();
            machine
                .start()
                .run(ntp_after)
                .set_right()
                .run(2 * HOUR)
                .check_sums()
                .check_times(NOON - 2 * HOUR, NOON + 3 * HOUR);
            let rows = machine.samples().iter().filter(|dated| dated.unix > from).count() as i64;
            assert!((rows - (ntp_after + 2 * HOUR) / INTERVAL_S).abs() <= 2, "{rows}");
            assert_eq!(machine.events("clock_step").len(), 1);
        }
    }
}

#[test]
fn e20_a_first_start_with_a_wrong_clock() {
    for (name, wall) in wrong_clocks(NOON) {
        println!("{name}");
        let mut machine = Machine::new(NOON, "UTC0");
        machine.set_to(wall).start().run(20 * MINUTE).set_right().run(HOUR).check_sums();
        if name == "9 hours behind" {
            // This clock is plausible, so it was trusted.
            machine.check_times(NOON - 9 * HOUR, NOON + 2 * HOUR);
        } else {
            machine.check_steady(NOON);
        }
        assert_eq!(machine.events("clock_step").len(), 1);
    }
}

/// A wrong clock that stays is trusted in the end. No traffic is lost or counted twice.
#[test]
fn e20_a_clock_that_stays_wrong() {
    for (name, wall) in wrong_clocks(NOON) {
        println!("{name}");
        let mut machine = Machine::new(NOON - 2 * HOUR, "UTC0");
        machine.start().run(HOUR).stop().reboot(HOUR, wall).start().run(3 * HOUR).check_sums();
        assert_eq!(machine.events("clock_step").len(), 0);
        machine.set_right().run(HOUR).check_sums();
        assert_eq!(machine.events("clock_step").len(), 1);
    }
}

/// Samples without a wall time are only in memory. The record on disk has the counters of the last sample with a wall
/// time, so the next start counts the traffic of the lost samples.
#[test]
fn traffic_of_samples_without_a_wall_time_survives_a_restart() {
    for (name, wall) in wrong_clocks(NOON) {
        for orderly in [false, true] {
            for run in [10, 20 * MINUTE] {
                println!("{name}, orderly: {orderly}, after {run} s");
                let mut machine = Machine::new(NOON - 2 * HOUR, "UTC0");
                machine.start().run(HOUR).stop().reboot(HOUR, wall).start().run(run);
                // Twice, so that a start also follows a run that never trusted its clock.
                for _ in 0..2 {
                    machine = if orderly { end(machine, Machine::stop) } else { end(machine, Machine::kill) };
                    machine.run(40).start().run(7 * MINUTE);
                }
                machine.set_right().run(HOUR).check_sums().check_times(NOON - 2 * HOUR, NOON + 3 * HOUR);
                assert!(!machine.events("reset").is_empty(), "the reboot is reported");
            }
        }
    }
}

fn end(mut machine: Machine, how: fn(&mut Machine) -> &mut Machine) -> Machine {
    how(&mut machine);
    machine
}

/// Without history, counting begins with the run that first trusts its clock. Traffic before that run must not count.
#[test]
fn a_first_run_that_never_trusted_its_clock_leaves_no_history() {
    for orderly in [false, true] {
        let mut machine = Machine::new(NOON, "UTC0");
        machine.set_to(1000).start().run(20 * MINUTE);
        machine = if orderly { end(machine, Machine::stop) } else { end(machine, Machine::kill) };
        machine.first = None;
        machine.run(MINUTE).start().run(5 * MINUTE).set_right().run(HOUR).check_sums();
        machine.check_steady(NOON + 21 * MINUTE);
    }
}

#[test]
fn e21_steps_while_running() {
    let mut machine = Machine::new(NOON, "UTC0");
    machine.start().run(HOUR);
    for (step, stay) in [(-HOUR, 2 * HOUR), (HOUR, 2 * HOUR), (HOUR, 2 * HOUR), (-HOUR, 2 * HOUR)] {
        machine.set_by(step).run(stay).check_sums();
    }
    machine.check_times(NOON - HOUR, machine.truth() + HOUR + 1);
    assert_eq!(machine.events("clock_step").len(), 4);
    // Eight years forward, and back before the clock is trusted.
    let (rows, from) = (machine.samples().len() as i64, machine.truth());
    machine.set_by(8 * YEAR).run(9 * MINUTE).set_right().run(20 * MINUTE).check_sums();
    machine.check_times(NOON - HOUR, machine.truth() + HOUR + 1);
    let more = machine.samples().len() as i64 - rows;
    assert!((more - (machine.truth() - from) / INTERVAL_S).abs() <= 2, "{more} rows");
    assert_eq!(
        machine.events("clock_step")[..2],
        [format!("the clock was set back by {} s", 8 * YEAR), format!("the clock was set forward by {} s", 8 * YEAR),]
    );
}

/// The clock stays wrong until it is trusted, and is corrected a day later.
#[test]
fn e21_eight_years_ahead_for_a_day() {
    let mut machine = Machine::new(NOON, "UTC0");
    machine.start().run(DAY).set_by(8 * YEAR).run(DAY).check_sums();
    machine.set_right().run(DAY).check_sums();
    let now = machine.truth();
    let received: u64 = machine.days(now - 3 * DAY, now).iter().map(|(_, rx)| rx).sum();
    let counted = machine.counted()[0].rx_bytes();
    assert!(received > counted / 3 * 2 - 50 * 60 * SPEEDS[0][0] && received < counted / 3 * 2 + 50 * 60 * SPEEDS[0][0]);
    assert_eq!(machine.events("clock_step").len(), 2);
}

#[test]
fn e25_days_that_are_half_an_hour_longer_or_shorter() {
    #[track_caller]
    fn check(zone: &str, noon: &str, length: i64, restart: bool) {
        let noon = net_pulse::clock::parse_time(noon, &Zone::UTC).unwrap();
        let mut machine = Machine::new(noon - DAY, zone);
        let (from, to) = machine.zone.day(noon);
        assert_eq!((to - from) / 60, length, "{zone}");
        machine.start().run(from - noon + DAY + 2 * HOUR);
        if restart {
            machine.kill().run(HOUR).start();
        }
        machine.run(to + 30 * HOUR - machine.truth()).check_sums();
        let days = machine.days(from, to - 1);
        assert_eq!(days.len(), 1, "{days:?}");
        let expect = SPEEDS[0][0] * length as u64 * 60;
        assert_eq!(days[0].0, length);
        assert!(days[0].1.abs_diff(expect) <= SPEEDS[0][0], "{} is not {expect}", days[0].1);
        assert!(machine.events("clock_step").is_empty(), "summer time does not step the clock, which is UTC");
    }
    for restart in [false, true] {
        check(LORD_HOWE, "2027-04-04T01:00:00Z", 24 * 60 + 30, restart);
        check(LORD_HOWE, "2027-10-03T01:00:00Z", 24 * 60 - 30, restart);
        check(ADELAIDE, "2027-04-04T02:00:00Z", 25 * 60, restart);
        check(ADELAIDE, "2027-10-03T02:00:00Z", 23 * 60, restart);
    }
}

/// A suspend over midnight, then a clock that is set back over midnight and stays wrong until it is trusted.
#[test]
fn e24_no_day_occurs_twice_or_out_of_order() {
    for back in [0, HOUR, 5 * HOUR, 30 * HOUR] {
        let evening = net_pulse::clock::parse_time("2027-06-01T22:00:00Z", &Zone::UTC).unwrap();
        let mut machine = Machine::new(evening, "UTC0");
        machine.start().run(HOUR).suspend(4 * HOUR).run(HOUR).set_by(-back).run(DAY + 2 * HOUR).check_sums();
        machine.kill().run(MINUTE).start().set_right().run(2 * DAY).check_sums();
        let days = machine.days(evening - 3 * DAY, machine.truth());
        assert!(days.iter().all(|(minutes, _)| *minutes == 24 * 60), "{days:?}");
        assert_eq!(days.iter().map(|(_, rx)| rx).sum::<u64>(), machine.counted()[0].rx_bytes(), "back by {back} s");
        // From the evening of the first day to the fourth day, and earlier days if the clock was set back to them.
        assert!((4..=6).contains(&days.len()), "back by {back} s: {days:?}");
    }
}

#[test]
fn e22_a_suspend_of_eight_hours() {
    // Over the night when summer time ends on Lord Howe Island, and by day in another month.
    for begins in ["2027-04-03T10:00:00Z", "2027-06-01T00:00:00Z"] {
        let begins = net_pulse::clock::parse_time(begins, &Zone::UTC).unwrap();
        let mut machine = Machine::new(begins, LORD_HOWE);
        machine.start().run(HOUR).suspend(8 * HOUR).run(HOUR).check_sums();
        let gaps: Vec<DatedSample> =
            machine.samples().into_iter().filter(|dated| dated.sample.quality == SampleQuality::Gap).collect();
        assert_eq!(gaps.len(), 1);
        assert!(gaps[0].sample.span_ms.abs_diff(8 * 3_600_000) <= 31_000, "{gaps:?}");
        assert_eq!(machine.events("clock_step").len(), 0);
        assert!(machine.events("gap").iter().any(|detail| detail.contains("no reading for 288")));
        // The traffic of the gap is spread over the night, and no second counts as observed.
        let daemon = machine.daemon.as_ref().unwrap();
        let (from, to, zone) = (begins + 2 * HOUR, begins + 8 * HOUR, machine.zone.clone());
        let hours = read(&daemon.context, move |reader| {
            Snapshot::of(reader, &zone, &[]).unwrap().buckets(Resolution::Hour, 1, from, to).unwrap()
        });
        assert_eq!(hours.len(), 6);
        assert!(hours.iter().all(|hour| hour.cell.gap_s == 3600 && hour.cell.plain_s == 0), "{hours:?}");
        assert!(hours.iter().all(|hour| hour.cell.sum.rx_bytes().abs_diff(3600 * SPEEDS[0][0]) < 100_000));
    }
}

/// Random sequences of all of the above. The sums must be right after any of them.
#[test]
fn random_sequences_keep_the_sums() {
    for seed in 1..=60 {
        let mut random = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed);
        let mut below = move |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 20) % bound
        };
        let mut machine = Machine::new(NOON, [LORD_HOWE, ADELAIDE, "UTC0"][below(3) as usize]);
        let mut steps = vec![format!("seed {seed}")];
        machine.start().run(HOUR);
        for _ in 0..25 {
            let what = below(10);
            steps.push(format!("{what} at {}", machine.truth()));
            let log = PrintOnPanic(&steps);
            match what {
                0 => machine.set_by(-HOUR),
                1 => machine.set_by(HOUR),
                2 => machine.set_by(if below(2) == 0 { 3 * DAY } else { -3 * DAY }),
                3 => machine.set_to([20, 2_000_000_000, 2_300_000_000][below(3) as usize]),
                4 | 5 => machine.set_right(),
                6 => machine.kill().run(below(400) as i64).start(),
                7 => machine.stop().run(below(20_000) as i64).start(),
                8 => machine.suspend(below(30_000) as i64),
                _ => {
                    // A power cut loses what is only in memory, so everything is saved first.
                    assert!(machine.set_right().run(15 * MINUTE).catch_up());
                    let wall = if below(2) == 0 { machine.truth() } else { 20 };
                    machine.kill().reboot(below(100_000) as i64, wall).start()
                }
            };
            machine.run(below(3000) as i64);
            if machine.catch_up() {
                machine.check_sums();
            }
            drop(log);
        }
        let log = PrintOnPanic(&steps);
        machine.set_right().run(HOUR).check_sums();
        drop(log);
    }
}

/// Prints the steps of a test that panics.
struct PrintOnPanic<'a>(&'a [String]);

impl Drop for PrintOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{:#?}", self.0);
        }
    }
}

/// One sample in 1970 must not make an export iterate over all buckets of half a century.
#[test]
fn an_hour_in_1970_does_not_slow_down_an_export() {
    let mut machine = Machine::new(NOON - 2 * HOUR, ADELAIDE);
    machine.start().run(HOUR).stop().reboot(HOUR, 20).start().run(3 * HOUR).set_right().run(HOUR).check_sums();
    let counted: u64 = machine.counted().iter().map(Counters::rx_bytes).sum();
    let daemon = machine.daemon.as_ref().unwrap();
    for resolution in ["5min", "hour", "day"] {
        let target = format!("/api/export/traffic?resolution={resolution}");
        let begin = cpu_time();
        let answer =
            http::answer(&daemon.context, &HttpRequest { method: "GET", target: &target, ..HttpRequest::default() });
        let rows: Value = serde_json::from_slice(&answer.body.into_bytes(&daemon.context).unwrap()).unwrap();
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row["rx_bytes"].as_u64().unwrap()).sum::<u64>(), counted, "{resolution}");
        assert!(rows[0]["from"].as_str().unwrap() < "1971", "{resolution}");
        // Iterating over half a century of five-minute buckets would take a hundred times as long.
        let elapsed = cpu_time() - begin;
        assert!(elapsed < Duration::from_secs(2), "{resolution}: {elapsed:?}");
    }
}

/// CPU time of this thread, which does not depend on the load of the machine.
fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
