//! A simulated year of a router with 24 interfaces: real sampler, writer and store, simulated clock and kernel. The
//! sums of every resolution must equal the input to the byte, and the database must stay small.

use std::sync::{Arc, Mutex};

use crate::simulated::{Kernel, ManualClock, SharedCounters, memory_dir};
use net_pulse::clock::{BUILD_FLOOR, Clock, Now, Zone};
use net_pulse::config::Config;
use net_pulse::history::{DiskThread, History, Snapshot};
use net_pulse::http::{self, Context, HttpRequest};
use net_pulse::live::{Live, StoredHistory};
use net_pulse::model::{Bucket, Counters, NetworkStack};
use net_pulse::resolution::Resolution;
use net_pulse::sampler::Sampler;
use net_pulse::source::Woken;
use net_pulse::store::{Options, Reader, Store};
use net_pulse::writer::Writer;

const DAY_S: i64 = 86_400;
const TICK_S: u64 = 30;
const FLUSH_S: u64 = 300;

/// 24 interfaces: 2 at 1 MB/s with noise, 4 at 20 kB/s, 6 at 200 B/s at times, 12 that carried traffic once and are
/// idle.
struct Router {
    counters: SharedCounters,
    random: Mutex<u64>,
}

impl Router {
    fn new() -> Router {
        // A link without any traffic is not monitored.
        let counters = vec![Counters::of([1000, 1000, 10, 10, 0, 0, 0, 0]); 24];
        Router { counters: Arc::new(Mutex::new(counters)), random: Mutex::new(1) }
    }

    fn below(&self, bound: u64) -> u64 {
        let mut state = self.random.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % bound
    }

    fn pass(&self, seconds: u64) {
        for (at, counters) in self.counters.lock().unwrap().iter_mut().enumerate() {
            let (rx, tx, packet) = match at {
                0..2 => (seconds * (700_000 + self.below(600_000)), seconds * (70_000 + self.below(60_000)), 1100),
                2..6 => (seconds * (14_000 + self.below(12_000)), seconds * (1400 + self.below(1200)), 600),
                6..12 if self.below(10) == 0 => (seconds * self.below(400), seconds * self.below(400), 150),
                _ => continue,
            };
            let errors = u64::from(self.below(1000) == 0);
            let delta = [rx, tx, rx / packet + 1, tx / packet + 1, errors, 0, errors, 0];
            counters.add(&Counters::of(delta));
        }
    }
}

fn sum(buckets: &[Bucket]) -> Counters {
    let mut sum = Counters::ZERO;
    buckets.iter().for_each(|bucket| sum.add(&bucket.cell.sum));
    sum
}

/// A directory that is deleted when the test ends.
struct TempDir(std::path::PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_year_of_24_interfaces() {
    let days: i64 = std::env::var("NETPULSE_TEST_DAYS").ok().and_then(|days| days.parse().ok()).unwrap_or(365);
    let folder = TempDir(memory_dir().join(format!("net-pulse-year-{}", std::process::id())));
    // A zone with summer time, so that the year has both transitions.
    let zone = Zone::parse("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let start_unix = BUILD_FLOOR + 5 * DAY_S;
    let path = folder.0.join("year.db");
    let opened = Store::open(&path, &Options { max_bytes: 32 << 20 }).unwrap();
    let clock = Arc::new(ManualClock(Mutex::new(Now { mono_ms: 50_000, unix_ms: start_unix * 1000 + 400 })));
    let (interval, flush) = (TICK_S.to_string(), FLUSH_S.to_string());
    let config = Config::with_saved(&[("interval", &interval), ("flush", &flush)]);
    let live = Arc::new(Live::new(config, zone.clone()));
    let router = Arc::new(Router::new());
    let first: Vec<Counters> = router.counters.lock().unwrap().clone();
    let stack = NetworkStack { boot: "boot".to_string(), ..NetworkStack::default() };
    live.lock().apply_stored_history(StoredHistory {
        records: opened.records,
        next_seq: opened.next_seq,
        newest: opened.newest_unix,
        ..StoredHistory::default()
    });
    let reopen = Box::new(|| unreachable!("the simulated kernel never breaks"));
    let mut sampler =
        Sampler::new(Box::new(Kernel(router.counters.clone())), reopen, live.clone(), clock.clone(), stack);
    let reader = opened.store.reader().unwrap();
    let mut writer = Writer::new(live.clone(), opened.store, clock.clone());

    let ticks = days * DAY_S / TICK_S as i64;
    let (mut passed_s, mut saved_s) = (0u64, 0u64);
    sampler.step(Woken::default());
    writer.save().unwrap();
    while passed_s < ticks as u64 * TICK_S {
        // The sleep is not always one interval: the search for the primary interface adds a reading after ten seconds.
        let sleep = sampler.step(Woken::default()).as_millis() as u64;
        let mut now = clock.0.lock().unwrap();
        now.mono_ms += sleep;
        now.unix_ms += sleep as i64;
        drop(now);
        router.pass(sleep / 1000);
        passed_s += sleep / 1000;
        if passed_s - saved_s >= FLUSH_S {
            writer.save().unwrap();
            saved_s = passed_s;
        }
    }
    sampler.step(Woken::default());
    writer.save().unwrap();

    let end_unix = start_unix + passed_s as i64 + 1;
    let last: Vec<Counters> = router.counters.lock().unwrap().clone();
    let state = live.lock();
    assert_eq!(state.inventory.interfaces.len(), 24);
    for iface in &state.inventory.interfaces {
        let id = iface.id.unwrap();
        let at: usize = iface.name["eth".len()..].parse().unwrap();
        let input = Counters(std::array::from_fn(|field| last[at].0[field] - first[at].0[field]));
        assert_eq!(iface.lifetime, input, "lifetime of {}", iface.name);
        let of = |resolution, from, to| {
            Snapshot::of(&reader, &zone, &[]).unwrap().buckets(resolution, id, from, to).unwrap()
        };
        for resolution in [Resolution::Hour, Resolution::Day] {
            assert_eq!(sum(&of(resolution, 0, end_unix + DAY_S)), input, "{resolution:?} of {}", iface.name);
        }
        check_resolutions(&of, end_unix);
        let days = of(Resolution::Day, 0, end_unix + DAY_S);
        let lengths: Vec<i64> = days.iter().map(|day| (day.to - day.from) / 3600).collect();
        if days.len() > 300 {
            assert_eq!(
                (
                    lengths.iter().filter(|hours| **hours == 23).count(),
                    lengths.iter().filter(|hours| **hours == 25).count()
                ),
                (1, 1)
            );
        }
        assert!(
            days.iter().all(|day| day.cell.rx_peak * ((day.to - day.from) as u64) >= day.cell.sum.rx_bytes()),
            "a peak is at least the average"
        );
    }
    drop(state);
    let size = reader.view().unwrap().stats().unwrap().size_bytes;
    println!("{days} days: {size} bytes on disk");
    assert!(size <= 8_000_000, "{size} bytes");
    print_chart_times(reader, live, clock, &folder.0);
}

/// Checks that the sums of a finer resolution equal those of the coarser one, in whole buckets of the coarser one, over
/// a time for which the finer one is still stored.
fn check_resolutions(of: &dyn Fn(Resolution, i64, i64) -> Vec<Bucket>, end: i64) {
    for (fine, coarse, kept_days) in
        [(Resolution::FiveMinutes, Resolution::Hour, 89), (Resolution::Hour, Resolution::Day, 360)]
    {
        let all = of(coarse, end - kept_days * DAY_S, end + DAY_S);
        let whole = &all[usize::from(all.len() > 1)..];
        let (from, to) = (whole[0].from, whole[whole.len() - 1].to);
        let fine_sum = of(fine, from, to).into_iter().filter(|bucket| bucket.from >= from).collect::<Vec<_>>();
        assert_eq!(sum(&fine_sum), sum(whole), "{fine:?} against {coarse:?}");
    }
    // Five-minute cells split a sample at their border, so the sums may differ by one sample.
    let samples = of(Resolution::Sample, end - 6 * DAY_S, end + DAY_S);
    assert!(samples.len() as i64 >= 2 * 60 * 24 * 5, "{}", samples.len());
    let cells = of(Resolution::FiveMinutes, samples[0].to, end + DAY_S);
    let inner: Vec<Bucket> = cells.into_iter().filter(|cell| cell.from >= samples[0].to).collect();
    let tail: Vec<Bucket> = samples.iter().copied().filter(|sample| sample.from >= inner[0].from).collect();
    let (cells, samples) = (sum(&inner), sum(&tail));
    let one = tail.iter().map(|sample| sample.cell.sum.rx_bytes()).max().unwrap_or(0);
    assert!(cells.rx_bytes().abs_diff(samples.rx_bytes()) <= one, "{cells:?} {samples:?}");
}

/// Prints the time of chart requests: `cargo test --release --test it year -- --nocapture`.
fn print_chart_times(reader: Reader, live: Arc<Live>, clock: Arc<ManualClock>, folder: &std::path::Path) {
    let context = Context {
        live: live.clone(),
        history: History::new(live, Some(reader)),
        backup_thread: DiskThread::named("copy"),
        clock: clock.clone(),
        database: folder.join("year.db"),
        machine: Arc::new(net_pulse::model::Machine::default),
        find_zone: Arc::new(|name| Ok(Zone::find(Some(name), None, |_| None)?.zone)),
        listen_addresses: Vec::new(),
        auth: http::Auth::new(folder.to_path_buf(), None, false, false),
        server_state: http::ServerState::default(),
    };
    let now = clock.now().unix_ms / 1000;
    for (name, seconds) in [("1 h", 3600), ("24 h", DAY_S), ("30 d", 30 * DAY_S), ("1 y", 365 * DAY_S)] {
        let target = format!("/api/traffic/series?interface=eth0&from={}&to={now}", now - seconds);
        let request = HttpRequest { method: "GET", target: &target, ..HttpRequest::default() };
        let mut micros: Vec<u128> = Vec::new();
        let mut bytes = 0;
        for _ in 0..21 {
            let begin = std::time::Instant::now();
            let answer = http::answer(&context, &request);
            assert_eq!(answer.status, 200);
            let body = answer.body.into_bytes(&context).unwrap();
            micros.push(begin.elapsed().as_micros());
            bytes = body.len();
        }
        micros.sort_unstable();
        println!("series over {name}: {} us, {bytes} bytes", micros[micros.len() / 2]);
    }
}
