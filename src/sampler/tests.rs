//! Runs turns of the real sampler on a simulated kernel and clock that the tests control.

mod links;

use std::sync::Mutex;

use super::*;
use crate::clock::{BUILD_FLOOR, Zone};
use crate::config::Config;
use crate::live::{CommandRefusal, InterfaceCommand, InterfaceEdit, StoredHistory, Unsaved};
use crate::model::{Address, Batch, Link, Width};

#[derive(Default)]
struct World {
    links: Vec<(Link, Counters)>,
    notifications: Vec<LinkNotification>,
    failures: usize,
    reads: usize,
    route: Option<u32>,
    addresses: Vec<Address>,
    partial: bool,
}

/// Simulated kernel with the same trait as the real sources.
struct Kernel(Arc<Mutex<World>>);

impl Source for Kernel {
    fn name(&self) -> &'static str {
        "test"
    }

    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        let mut world = self.0.lock().unwrap();
        world.reads += 1;
        if world.failures > 0 {
            world.failures -= 1;
            return Err(Error::new(ErrorKind::Transient, "no"));
        }
        out.clear();
        out.extend(world.links.iter().map(|(link, counters)| Reading {
            ifindex: link.ifindex,
            counters: *counters,
            width: Width::Bits64,
        }));
        Ok(())
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        Ok(self.0.lock().unwrap().links.iter().map(|(link, _)| link.clone()).collect())
    }

    fn is_complete(&self) -> bool {
        !self.0.lock().unwrap().partial
    }

    fn addresses(&mut self) -> Result<Vec<Address>> {
        Ok(self.0.lock().unwrap().addresses.clone())
    }

    fn default_route(&mut self) -> Result<Option<u32>> {
        Ok(self.0.lock().unwrap().route)
    }

    fn wait(&mut self, _timeout: Duration, _wake: &Wake) -> Woken {
        Woken::default()
    }

    fn notifications(&mut self, out: &mut Vec<LinkNotification>) -> Result<()> {
        out.append(&mut self.0.lock().unwrap().notifications);
        Ok(())
    }
}

struct TestClock(Mutex<Now>);

impl Clock for TestClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }
}

struct Bench {
    world: Arc<Mutex<World>>,
    clock: Arc<TestClock>,
    live: Arc<Live>,
    sampler: Sampler,
}

const BOOT: &str = "boot-a";
const START_MS: i64 = (BUILD_FLOOR + 1_000_000) * 1000;

fn link(ifindex: u32, name: &str) -> Link {
    Link { ifindex, name: name.to_string(), hardware_type: 1, up: true, ..Link::default() }
}

/// As many packets as bytes, so that no fall of a counter looks like a proven wrap.
fn rx_tx(rx: u64, tx: u64) -> Counters {
    Counters::of([rx, tx, rx, tx, 0, 0, 0, 0])
}

impl Bench {
    fn new(links: &[(Link, Counters)]) -> Bench {
        Bench::after(links, Vec::new(), 1_000_000)
    }

    /// Starts with the records of an earlier run.
    fn after(links: &[(Link, Counters)], records: Vec<Record>, mono_ms: u64) -> Bench {
        Bench::with_live(Live::new(Config::default(), Zone::UTC), links, records, mono_ms)
    }

    /// Starts before the database is open.
    fn without_history(links: &[(Link, Counters)], mono_ms: u64) -> Bench {
        Bench::begin(Live::new(Config::default(), Zone::UTC), links, &stack(BOOT), mono_ms)
    }

    fn with_live(live: Live, links: &[(Link, Counters)], records: Vec<Record>, mono_ms: u64) -> Bench {
        let newest = records.iter().map(|record| record.last_seen).max().filter(|newest| *newest > 0);
        live.lock().apply_stored_history(stored_history(records, 1, newest));
        Bench::begin(live, links, &stack(BOOT), mono_ms)
    }

    fn begin(live: Live, links: &[(Link, Counters)], stack: &NetworkStack, mono_ms: u64) -> Bench {
        let world = Arc::new(Mutex::new(World { links: links.to_vec(), ..World::default() }));
        let clock = Arc::new(TestClock(Mutex::new(Now { mono_ms, unix_ms: START_MS })));
        let live = Arc::new(live);
        let reopen: Reopen = Box::new(|| Err(Error::new(ErrorKind::Unsupported, "no other")));
        let source = Box::new(Kernel(world.clone()));
        let sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), stack.clone());
        let mut bench = Bench { world, clock, live, sampler };
        bench.turn(false);
        bench
    }

    /// Opens the database after the start.
    fn rejoin(&mut self, stored: StoredHistory) {
        let now = self.clock.now();
        self.sampler.rejoin(stored, now);
    }

    fn turn(&mut self, changed: bool) -> Duration {
        self.sampler.step(Woken { wake_called: false, changed })
    }

    fn advance(&mut self, ms: u64) {
        let mut now = self.clock.0.lock().unwrap();
        now.mono_ms += ms;
        now.unix_ms += ms as i64;
    }

    /// Lets time pass, with a turn whenever the sampler has to wake up.
    fn run(&mut self, ms: u64) {
        let end = self.clock.now().mono_ms + ms;
        loop {
            let sleep = self.turn(false).as_millis() as u64;
            let now = self.clock.now().mono_ms;
            if now + sleep > end {
                return self.advance(end - now);
            }
            self.advance(sleep);
        }
    }

    fn set(&self, ifindex: u32, counters: Counters) {
        let mut world = self.world.lock().unwrap();
        world.links.iter_mut().find(|(link, _)| link.ifindex == ifindex).unwrap().1 = counters;
    }

    fn batch(&self) -> Batch {
        self.live.lock().unsaved.batch.clone()
    }

    /// All samples of the interface that has this name now: (quality, rx bytes, span in seconds).
    fn samples(&self, name: &str) -> Vec<(SampleQuality, u64, u64)> {
        let state = self.live.lock();
        let Some(id) = state.inventory.interface(name).and_then(|iface| iface.id) else { return Vec::new() };
        let samples = state.unsaved.batch.samples.iter().filter(|sample| sample.iface == id);
        samples.map(|sample| (sample.quality, sample.delta.rx_bytes(), sample.span_ms / 1000)).collect()
    }

    fn kinds_of_events(&self) -> Vec<EventKind> {
        self.live.lock().unsaved.events.iter().map(|event| event.kind).collect()
    }
}

fn stored_history(records: Vec<Record>, next_seq: u64, newest: Option<i64>) -> StoredHistory {
    let newest_link = NewestLink { ifindex: 5, inode: 0 }.to_text(&stack(BOOT));
    StoredHistory {
        records,
        settings: [("newest_link".to_string(), newest_link)].into_iter().collect(),
        next_seq,
        newest,
    }
}

/// A stored history that ends at tick 100: a minute before the bench starts, or before this boot.
fn history_of_a_minute_ago(records: Vec<Record>) -> StoredHistory {
    let this_boot = records.iter().any(|record| record.stack.boot == BOOT);
    let newest = START_MS / 1000 - if this_boot { 60 } else { 1100 };
    stored_history(records, 101, Some(newest))
}

fn record(id: IfaceId, name: &str, ifindex: u32, boot: &str, raw: Counters, mono_ms: u64) -> Record {
    Record {
        id,
        name: name.to_string(),
        kind: crate::model::InterfaceKind::Ethernet,
        ifindex,
        stack: stack(boot),
        raw,
        lifetime: rx_tx(5_000_000, 5_000_000),
        mono_ms,
        ..Record::default()
    }
}

fn stack(boot: &str) -> NetworkStack {
    NetworkStack { machine: "machine".to_string(), boot: boot.to_string(), namespace: 9 }
}

#[test]
fn the_first_reading_is_a_baseline_and_samples_follow() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    assert_eq!(bench.samples("eth0"), []);
    assert_eq!(bench.live.lock().unsaved.anchors.len(), 1);
    bench.set(2, rx_tx(1500, 10));
    bench.run(60_001);
    assert_eq!(bench.samples("eth0"), [(SampleQuality::Plain, 500, 30), (SampleQuality::Plain, 0, 30)]);
    assert_eq!(bench.live.lock().inventory.interface("eth0").unwrap().lifetime, rx_tx(500, 0));
}

#[test]
fn deadlines_do_not_drift() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    for _ in 0..100 {
        let sleep = bench.turn(false);
        // Every wake-up is 7 ms late.
        bench.advance(sleep.as_millis() as u64 + 7);
    }
    bench.turn(false);
    let ticks: Vec<u64> = bench.batch().ticks.iter().map(|tick| tick.mono_ms).collect();
    let late: Vec<u64> = ticks.iter().map(|ms| (ms - ticks[0]) % 30_000).collect();
    assert!(ticks.len() > 90 && late.iter().all(|late| *late <= 7), "{late:?}");
}

#[test]
fn the_first_traffic_of_an_idle_link_is_counted() {
    let mut bench = Bench::new(&[(link(2, "eth0"), Counters::ZERO)]);
    bench.run(300_001);
    assert_eq!(bench.samples("eth0"), []);
    assert!(bench.live.lock().inventory.interface("eth0").unwrap().ignored_because.is_some());
    bench.set(2, rx_tx(77, 5));
    bench.run(30_000);
    assert_eq!(bench.samples("eth0"), [(SampleQuality::Plain, 77, 30)]);
    assert!(bench.live.lock().inventory.interface("eth0").unwrap().monitored);
}

#[test]
fn e6_a_zero_for_one_reading_is_no_reset() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.set(2, Counters::ZERO);
    bench.run(30_001);
    bench.set(2, rx_tx(1200, 10));
    bench.run(30_000);
    assert_eq!(bench.samples("eth0"), [(SampleQuality::Plain, 200, 60)]);
}

#[test]
fn e11_a_link_recreated_between_two_ticks_is_a_reset() {
    let mut bench = Bench::new(&[(link(2, "ppp0"), rx_tx(4_000_000_000, 10))]);
    bench.run(30_001);
    // The counters are higher than before, so only the identity shows that the link is new.
    {
        let mut world = bench.world.lock().unwrap();
        world.links = vec![(link(3, "ppp0"), rx_tx(4_000_000_100, 20))];
        world.notifications = vec![
            LinkNotification::Gone { ifindex: 2, last: None },
            LinkNotification::Added { ifindex: 3, counters: Counters::ZERO },
        ];
    }
    bench.turn(true);
    bench.run(30_000);
    let samples = bench.samples("ppp0");
    assert_eq!(
        samples.iter().map(|(quality, rx, _)| (*quality, *rx)).collect::<Vec<_>>(),
        [(SampleQuality::Plain, 0), (SampleQuality::Reset, 4_000_000_100)]
    );
    let kinds = bench.kinds_of_events();
    assert!(kinds.contains(&EventKind::Vanished) && kinds.contains(&EventKind::Reset), "{kinds:?}");
    assert_eq!(bench.live.lock().inventory.interfaces.len(), 1);
}

#[test]
fn e11_without_notifications_a_new_ifindex_is_a_reset_too() {
    let mut bench = Bench::new(&[(link(2, "ppp0"), rx_tx(4000, 10))]);
    bench.world.lock().unwrap().links = vec![(link(3, "ppp0"), rx_tx(500, 2))];
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(
        bench.samples("ppp0").iter().map(|(quality, rx, _)| (*quality, *rx)).collect::<Vec<_>>(),
        [(SampleQuality::Reset, 500)]
    );
}

#[test]
fn counters_from_another_namespace_are_not_counted() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1, 1))]);
    {
        let mut world = bench.world.lock().unwrap();
        world.links.push((link(9, "wan"), rx_tx(8_000_100, 5)));
        world.notifications = vec![LinkNotification::Added { ifindex: 9, counters: rx_tx(8_000_000, 5) }];
    }
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.samples("wan").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 100);
}

#[test]
fn a_link_created_while_running_is_counted_from_its_first_byte() {
    let mut bench = Bench::new(&[]);
    {
        let mut world = bench.world.lock().unwrap();
        world.links.push((link(9, "wg0"), rx_tx(300, 5)));
        world.notifications = vec![LinkNotification::Added { ifindex: 9, counters: Counters::ZERO }];
    }
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.samples("wg0").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 300);
}

#[test]
fn e13_on_the_same_boot_the_gap_is_counted() {
    let known = record(4, "eth0", 2, BOOT, rx_tx(1000, 10), 400_000);
    let mut bench = Bench::after(&[(link(2, "eth0"), rx_tx(1700, 10))], vec![known], 1_000_000);
    assert_eq!(bench.samples("eth0"), [(SampleQuality::Gap, 700, 600)]);
    assert_eq!(bench.live.lock().inventory.interface("eth0").unwrap().lifetime.rx_bytes(), 5_000_700);
    bench.run(1);
}

#[test]
fn e13_on_a_new_boot_counting_starts_from_zero() {
    // The counters are higher than before the boot, so only the boot id shows the reboot.
    let known = record(4, "eth0", 2, "boot-before", rx_tx(1000, 10), 900_000_000);
    let bench = Bench::after(&[(link(2, "eth0"), rx_tx(1700, 10))], vec![known], 1_000_000);
    assert_eq!(bench.samples("eth0"), [(SampleQuality::Reset, 1700, 1000)]);
}

#[test]
fn a_link_recreated_during_a_restart_is_a_reset() {
    let known = record(4, "ppp0", 2, BOOT, rx_tx(1000, 10), 400_000);
    let bench = Bench::after(&[(link(7, "ppp0"), rx_tx(1700, 10))], vec![known], 1_000_000);
    assert_eq!(bench.samples("ppp0"), [(SampleQuality::Reset, 1700, 600)]);
}

#[test]
fn e32_rename_keeps_the_history() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.world.lock().unwrap().links[0].0.name = "wan".to_string();
    bench.turn(true);
    bench.advance(2000);
    bench.turn(false);
    bench.set(2, rx_tx(1100, 10));
    bench.run(30_001);
    assert_eq!(bench.samples("wan").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 100);
    assert!(bench.kinds_of_events().contains(&EventKind::Renamed));
    let state = bench.live.lock();
    assert_eq!(state.inventory.interfaces.len(), 1);
    assert_eq!(state.unsaved.records.last().unwrap().name, "wan");
}

#[test]
fn a_rename_during_a_restart_keeps_the_history() {
    let known = record(4, "eth0", 2, BOOT, rx_tx(1000, 10), 400_000);
    let bench = Bench::after(&[(link(2, "wan"), rx_tx(1700, 10))], vec![known], 1_000_000);
    assert_eq!(bench.samples("wan").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 700);
    assert_eq!(bench.live.lock().inventory.interfaces.len(), 1);
}

/// The link that was called eth1 continues the history of wwan0. After a restart it must not continue eth1's counters,
/// which end earlier.
#[test]
fn the_identity_follows_a_rename_to_a_name_with_history() {
    let known = [
        record(1, "eth1", 5, BOOT, rx_tx(900, 10), 400_000),
        record(2, "wwan0", 3, "an earlier boot", rx_tx(70_000, 10), 90_000),
    ];
    let mut bench = Bench::after(&[(link(5, "eth1"), rx_tx(1000, 10))], known.to_vec(), 1_000_000);
    bench.world.lock().unwrap().links[0].0.name = "wwan0".to_string();
    bench.turn(true);
    bench.advance(2000);
    bench.turn(false);
    // Until the first sample under the new name, the counters on disk belong to the old name.
    assert!(bench.live.lock().unsaved.records.iter().all(|record| record.ifindex != 5 || record.id == 1));
    bench.set(5, rx_tx(1500, 10));
    bench.run(30_001);
    assert_eq!(bench.samples("wwan0").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 500);

    let mut saved: Vec<Record> = bench.live.lock().unsaved.records.clone();
    saved.sort_by_key(|record| record.id);
    let identities: Vec<(IfaceId, u32, &str)> =
        saved.iter().map(|record| (record.id, record.ifindex, record.stack.boot.as_str())).collect();
    assert_eq!(identities, [(1, 0, BOOT), (2, 5, BOOT)]);
    (saved[0].raw, saved[1].raw) = (rx_tx(1000, 10), rx_tx(1500, 10));
    let again = Bench::after(&[(link(5, "wwan0"), rx_tx(1501, 10))], saved, 2_000_000);
    assert_eq!(again.samples("wwan0").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 1);
}

#[test]
fn two_links_that_swap_names_keep_their_own_histories() {
    let mut bench = Bench::new(&[(link(2, "a"), rx_tx(1000, 10)), (link(3, "b"), rx_tx(50, 10))]);
    {
        let mut world = bench.world.lock().unwrap();
        world.links[0] = (link(2, "b"), rx_tx(1001, 10));
        world.links[1] = (link(3, "a"), rx_tx(70, 10));
    }
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.samples("b").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 1);
    assert_eq!(bench.samples("a").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 20);
}

#[test]
fn e12_a_suspend_is_a_gap_that_is_counted() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.run(30_001);
    bench.advance(8 * 3_600_000);
    bench.set(2, rx_tx(9000, 10));
    bench.run(1);
    let samples = bench.samples("eth0");
    let (quality, rx, span) = *samples.last().unwrap();
    assert_eq!((quality, rx), (SampleQuality::Gap, 8000));
    assert!(span >= 8 * 3600, "{span}");
}

#[test]
fn traffic_is_not_counted_while_collection_is_stopped() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.set(2, rx_tx(1100, 10));
    bench.advance(5000);
    bench.live.lock().active.running = false;
    bench.turn(false);
    bench.set(2, rx_tx(9_000_000, 10));
    bench.run(600_000);
    bench.live.lock().active.running = true;
    bench.turn(false);
    bench.set(2, rx_tx(9_000_500, 10));
    bench.run(30_001);
    assert_eq!(bench.samples("eth0").iter().map(|(_, rx, _)| *rx).collect::<Vec<_>>(), [100, 500]);
}

#[test]
fn a_changed_interval_applies_at_once_and_is_no_gap() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.live.lock().active.interval_s = 3600;
    bench.turn(false);
    bench.run(3_600_001);
    bench.advance(3_000_000);
    bench.live.lock().active.interval_s = 1;
    bench.run(5_000);
    let samples = bench.samples("eth0");
    assert!(samples.iter().all(|(quality, ..)| *quality == SampleQuality::Plain), "{samples:?}");
    assert!(samples.len() >= 6, "{samples:?}");
}

/// The interval is set to a minute by mistake and back within the minute. The timer followed the settings, so this is
/// no gap.
#[test]
fn an_interval_that_was_changed_and_changed_back_makes_no_gap() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10)), (link(3, "ppp0"), rx_tx(1000, 10))]);
    let set = |bench: &mut Bench, seconds| {
        bench.live.lock().active.interval_s = seconds;
        bench.turn(false);
    };
    set(&mut bench, 1);
    bench.run(3_000);
    for (interval, elapsed) in [(60, 9_000), (20, 9_000), (1, 0)] {
        set(&mut bench, interval);
        bench.advance(elapsed);
    }
    bench.run(3_000);
    let samples = bench.samples("eth0");
    assert!(samples.iter().all(|(quality, ..)| *quality == SampleQuality::Plain), "{samples:?}");
    assert_eq!(samples.iter().filter(|(.., span)| *span >= 18).count(), 1, "{samples:?}");
    assert!(!bench.kinds_of_events().contains(&EventKind::Gap));

    // A link disappears at such a moment, before the sample that is due.
    set(&mut bench, 60);
    bench.advance(20_000);
    bench.live.lock().active.interval_s = 3;
    bench.sampler.apply_settings(bench.clock.now());
    {
        let mut world = bench.world.lock().unwrap();
        world.links.pop();
        world.notifications = vec![LinkNotification::Gone { ifindex: 3, last: Some(rx_tx(1700, 10)) }];
    }
    bench.turn(true);
    let (quality, rx, _) = *bench.samples("ppp0").last().unwrap();
    assert_eq!((quality, rx), (SampleQuality::Plain, 700));

    // The long interval counts until the next sample only: this gap is longer than any interval.
    bench.run(10_000);
    bench.advance(30_000);
    bench.run(1);
    assert_eq!(bench.samples("eth0").last().unwrap().0, SampleQuality::Gap);
}

#[test]
fn failed_readings_are_retried_and_count_as_one_failure() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.world.lock().unwrap().failures = 3;
    let before = bench.world.lock().unwrap().reads;
    bench.run(33_100);
    {
        let state = bench.live.lock();
        assert_eq!((state.health.polls.failed, state.health.polls.errors), (0, 3));
    }
    assert_eq!(bench.samples("eth0").len(), 1);
    // These include a reading for the primary interface.
    assert!(bench.world.lock().unwrap().reads - before <= 5);
    bench.world.lock().unwrap().failures = 4;
    bench.run(30_000);
    assert_eq!(bench.live.lock().health.polls.failed, 1);
    bench.set(2, rx_tx(1900, 10));
    bench.run(60_000);
    let state = bench.live.lock();
    assert_eq!(
        (state.health.polls.consecutive_failures, state.inventory.interface("eth0").unwrap().lifetime.rx_bytes()),
        (0, 900)
    );
}

#[test]
fn a_failed_requested_sample_does_not_change_the_schedule() {
    let collect = |bench: &mut Bench, failures| {
        bench.world.lock().unwrap().failures = failures;
        assert!(bench.live.collect(Duration::ZERO).is_none(), "the sampler has not answered yet");
        bench.turn(false);
        bench.live.lock().pending.collected.errors.clone()
    };
    let ticks = |bench: &Bench| {
        let ticks = bench.batch().ticks;
        ticks.iter().map(|tick| tick.mono_ms - 1_000_000).collect::<Vec<u64>>()
    };
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.run(40_000);
    for _ in 0..9 {
        assert_eq!(collect(&mut bench, 1), ["no"]);
    }
    {
        let state = bench.live.lock();
        assert_eq!(
            (state.health.polls.failed, state.health.polls.errors, state.health.polls.consecutive_failures),
            (9, 9, 9)
        );
    }
    bench.run(60_000);
    assert_eq!(ticks(&bench), [0, 30_000, 60_000, 90_000]);

    // One request fails in the same turn as a scheduled sample, which keeps its attempts. Another fails between two of
    // these attempts.
    bench.advance(20_000);
    assert_eq!(collect(&mut bench, 1), ["no"]);
    bench.advance(500);
    assert_eq!(collect(&mut bench, 1), ["no"]);
    assert_eq!(bench.live.lock().health.polls.failed, 11);
    bench.run(700);
    assert_eq!(ticks(&bench).last(), Some(&121_000));
}

#[test]
fn e18_no_interface_at_all_is_no_failure() {
    let mut bench = Bench::new(&[]);
    bench.run(300_000);
    let state = bench.live.lock();
    assert!(state.health.polls.successful >= 10 && state.unsaved.batch.is_empty());
}

#[test]
fn e31_a_link_that_returns_continues_its_history() {
    let mut bench = Bench::new(&[(link(2, "usb0"), rx_tx(1000, 10))]);
    bench.set(2, rx_tx(1500, 10));
    bench.run(30_001);
    bench.world.lock().unwrap().links.clear();
    bench.turn(true);
    bench.advance(5000);
    bench.turn(false);
    {
        let state = bench.live.lock();
        let gone = state.inventory.interface("usb0").unwrap();
        assert!(!gone.present() && gone.lifetime.rx_bytes() == 500, "{gone:?}");
    }
    bench.world.lock().unwrap().links = vec![(link(5, "usb0"), rx_tx(30, 1))];
    bench.world.lock().unwrap().notifications = vec![LinkNotification::Added { ifindex: 5, counters: Counters::ZERO }];
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.live.lock().inventory.interface("usb0").unwrap().lifetime.rx_bytes(), 530);
}

#[test]
fn e29_a_flood_of_guest_links_leaves_no_records() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    for at in 0..300 {
        let cable = link(100 + at, &format!("veth{at:x}"));
        {
            let mut world = bench.world.lock().unwrap();
            world.links.push((cable, rx_tx(u64::from(at), 10)));
            world.notifications = vec![LinkNotification::Added { ifindex: 100 + at, counters: Counters::ZERO }];
        }
        bench.turn(true);
        bench.run(31_000);
        assert!(bench.live.lock().inventory.interface(&format!("veth{at:x}")).is_some(), "shown while it is there");
        {
            let mut world = bench.world.lock().unwrap();
            world.links.pop();
            world.notifications = vec![LinkNotification::Gone { ifindex: 100 + at, last: Some(rx_tx(9_000_000, 10)) }];
        }
        bench.turn(true);
        bench.run(2000);
    }
    let state = bench.live.lock();
    let names: Vec<&str> = state.inventory.interfaces.iter().map(|iface| iface.name.as_str()).collect();
    assert_eq!(names, ["eth0"]);
    let records: Vec<&str> = state.unsaved.records.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(records, ["eth0"]);
    assert!(state.unsaved.batch.samples.iter().all(|sample| state.unsaved.records[0].id == sample.iface));
    assert!(
        state.unsaved.events.iter().all(|event| !event.interface.starts_with("veth")),
        "{:?}",
        state.unsaved.events
    );
    drop(state);
    assert!(bench.sampler.new_links.is_empty());
}

#[test]
fn e30_a_chosen_primary_stays_chosen_while_absent() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    bench.sampler.primary = Primary::new("ppp0".to_string());
    bench.sampler.primary.begin(bench.clock.now());
    bench.set(2, rx_tx(9_000_000, 10));
    bench.run(60_001);
    // The busiest interface is not shown in its place.
    assert_eq!(bench.live.lock().inventory.primary.as_deref(), Some("ppp0"));
    assert!(bench.live.lock().inventory.interface("ppp0").is_none());
    {
        let mut world = bench.world.lock().unwrap();
        world.links.push((link(9, "ppp0"), rx_tx(300, 5)));
        world.notifications = vec![LinkNotification::Added { ifindex: 9, counters: Counters::ZERO }];
    }
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.live.lock().inventory.primary.as_deref(), Some("ppp0"));
    assert_eq!(bench.samples("ppp0").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 300);
}

#[test]
fn the_busiest_becomes_primary_after_ten_seconds() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10)), (link(3, "eth1"), rx_tx(1000, 10))]);
    assert_eq!(primary(&bench), "eth0", "of two with the same traffic, the first is shown until one is found");
    assert_eq!(saved_primary(&bench), None);
    bench.set(3, rx_tx(9000, 10));
    bench.run(9_000);
    assert_eq!((primary(&bench).as_str(), saved_primary(&bench)), ("eth0", None));
    bench.run(1_001);
    assert_eq!(bench.live.lock().inventory.primary.as_deref(), Some("eth1"));
    // It stays primary although the other interface is busier now.
    bench.set(2, rx_tx(90_000_000, 10));
    bench.run(600_000);
    assert_eq!(bench.live.lock().inventory.primary.as_deref(), Some("eth1"));
}

/// Runs a command on an absent interface `wan`, which the settings name, and a present interface `eth0`.
fn with_absent_wan(
    flags: &[(&'static str, String)],
    saved: &[(&'static str, &str)],
    command: InterfaceCommand,
) -> Bench {
    let mut config = Config::new(flags, |_| None).unwrap();
    let saved = saved.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
    assert_eq!(config.apply_saved(&saved), [""; 0]);
    let records = vec![record(1, "wan", 0, "boot-before", rx_tx(5, 5), 1)];
    let live = Live::new(config, Zone::UTC);
    let mut bench = Bench::with_live(live, &[(link(2, "eth0"), rx_tx(1000, 10))], records, 1_000_000);
    bench.run(60_001);
    assert_eq!(bench.live.submit_command(command, Duration::ZERO), None, "the sampler has not answered yet");
    bench.turn(false);
    bench
}

fn settings_and_primary(bench: &Bench) -> [String; 4] {
    let state = bench.live.lock();
    let text = |key| state.config.text(key).to_string();
    [text("primary"), text("interfaces"), text("ignore"), state.inventory.primary.clone().unwrap_or_default()]
}

const NAMING_WAN: [(&str, &str); 3] = [("primary", "wan"), ("interfaces", "lan*,wan"), ("ignore", "a*,!wan")];

fn merge_wan() -> InterfaceCommand {
    InterfaceCommand::Edit(InterfaceEdit {
        name: "eth0".to_string(),
        merge: Some("wan".to_string()),
        ..InterfaceEdit::default()
    })
}

fn forget_wan() -> InterfaceCommand {
    InterfaceCommand::Forget { name: "wan".to_string() }
}

#[test]
fn settings_that_name_a_merged_interface_name_its_successor() {
    let bench = with_absent_wan(&[], &NAMING_WAN, merge_wan());
    assert_eq!(settings_and_primary(&bench), ["eth0", "lan*,eth0", "a*,!eth0", "eth0"]);
    assert!(bench.live.lock().inventory.interface("eth0").is_some_and(|iface| iface.monitored));
    let saved = bench.live.lock().unsaved.settings.clone();
    for (key, text) in [("primary", "eth0"), ("interfaces", "lan*,eth0"), ("ignore", "a*,!eth0")] {
        assert!(saved.contains(&(key.to_string(), Some(text.to_string()))), "{key}: {saved:?}");
    }
    // An existing entry of the successor takes precedence.
    let bench = with_absent_wan(&[], &[("ignore", "wan,!eth0")], merge_wan());
    assert_eq!(settings_and_primary(&bench)[2], "!eth0");
    // If the merged interface was ignored, its successor is not.
    let bench = with_absent_wan(&[], &[("ignore", "a*,wan")], merge_wan());
    assert_eq!(settings_and_primary(&bench)[2], "a*");
    // A primary interface that was found by traffic moves with the history too.
    let bench = with_absent_wan(&[], &[], merge_wan());
    assert_eq!(settings_and_primary(&bench), ["", "", "", "eth0"], "the only watched interface");
}

/// Runs a command as `http` does. Returns why it was refused.
fn refused(bench: &mut Bench, command: InterfaceCommand) -> Option<CommandRefusal> {
    let live = bench.live.clone();
    let client = std::thread::spawn(move || live.submit_command(command, Duration::from_secs(10)));
    while !client.is_finished() {
        bench.turn(false);
    }
    client.join().unwrap().expect("an answer").err()
}

/// Merge, alias and monitoring are one command: if one part is refused, all parts are.
#[test]
fn a_refused_edit_changes_nothing() {
    let all = |monitored| {
        InterfaceCommand::Edit(InterfaceEdit {
            name: "eth0".to_string(),
            merge: Some("wan".to_string()),
            alias: Some("uplink".to_string()),
            monitored: Some(monitored),
            primary: None,
        })
    };
    let flags = [("ignore", "x*".to_string())];
    for (flags, saved) in
        [(&flags[..], &NAMING_WAN[1..2]), (&[], &[("primary", "eth0"), ("ignore", "wan")]), (&[], &NAMING_WAN)]
    {
        let mut bench = with_absent_wan(flags, saved, InterfaceCommand::Forget { name: "nope".to_string() });
        let before =
            (settings_and_primary(&bench), bench.live.lock().unsaved.records.clone(), bench.sampler.records.clone());
        let refusal = refused(&mut bench, all(Some(false)));
        let expect = if flags.is_empty() { "IsPrimary" } else { "Setting" };
        assert!(format!("{refusal:?}").contains(expect), "{refusal:?}");
        assert_eq!(
            (settings_and_primary(&bench), bench.live.lock().unsaved.records.clone(), bench.sampler.records.clone()),
            before
        );
        {
            let state = bench.live.lock();
            assert!(
                state.unsaved.edits.is_empty() && state.inventory.interface("wan").is_some(),
                "{:?}",
                state.unsaved.edits
            );
            assert_eq!(state.inventory.interface("eth0").map(|iface| iface.alias.as_str()), Some(""));
        }
        if flags.is_empty() {
            assert_eq!(refused(&mut bench, all(Some(true))), None);
            let state = bench.live.lock();
            assert_eq!((state.unsaved.edits.len(), state.inventory.interface("wan").is_some()), (1, false));
            assert_eq!(state.inventory.interface("eth0").map(|iface| iface.alias.as_str()), Some("uplink"));
            assert!(state.active.ignored.contains(&"!eth0".to_string()), "{:?}", state.active.ignored);
        }
    }
}

#[test]
fn a_forgotten_interface_is_removed_from_settings_and_primary() {
    let mut bench = with_absent_wan(&[], &NAMING_WAN, forget_wan());
    assert_eq!(settings_and_primary(&bench), ["", "lan*", "a*", ""]);
    let saved = bench.live.lock().unsaved.settings.clone();
    assert!(saved.contains(&("primary".to_string(), None)), "{saved:?}");

    // An empty list would mean all interfaces.
    bench = with_absent_wan(&[], &[("interfaces", "wan")], forget_wan());
    assert_eq!(settings_and_primary(&bench)[1], "wan");

    bench = with_absent_wan(&[], &[("primary", "wan")], forget_wan());
    bench.set(2, rx_tx(9_000_000, 10));
    bench.run(30_001);
    assert_eq!(settings_and_primary(&bench), ["", "", "", "eth0"]);
}

#[test]
fn a_flag_that_names_a_removed_interface_does_not_block_the_primary() {
    let flags = [("primary", "wan".to_string()), ("ignore", "wan".to_string())];
    for command in [merge_wan(), forget_wan()] {
        let mut bench = with_absent_wan(&flags, &[], command.clone());
        assert_eq!(settings_and_primary(&bench)[..3], ["wan", "", "wan"]);
        bench.set(2, rx_tx(9_000_000, 10));
        bench.run(60_001);
        assert_eq!(settings_and_primary(&bench)[3], "eth0", "{command:?}");
        // When it appears again, the flag applies again.
        bench.world.lock().unwrap().links.push((link(9, "wan"), rx_tx(300, 5)));
        bench.world.lock().unwrap().notifications =
            vec![LinkNotification::Added { ifindex: 9, counters: Counters::ZERO }];
        bench.turn(true);
        bench.run(30_001);
        assert_eq!(settings_and_primary(&bench)[3], "wan", "{command:?}");
    }
}

/// An altname can stay with a port while the kernel's name of the link changes.
#[test]
fn an_altname_that_comes_and_goes_is_followed() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10)), (link(3, "eth1"), rx_tx(1000, 10))]);
    {
        let mut state = bench.live.lock();
        state.active.interfaces = vec!["up*".to_string()];
        state.active.primary = "uplink".to_string();
    }
    bench.run(10_000);
    let watched = |bench: &Bench| {
        let state = bench.live.lock();
        let watched = |name| state.inventory.interface(name).is_some_and(|iface: &crate::live::Iface| iface.monitored);
        ([watched("eth0"), watched("eth1")], state.inventory.primary.clone().unwrap_or_default())
    };
    let set_altnames = |bench: &mut Bench, at: usize, altnames: &[&str]| {
        bench.world.lock().unwrap().links[at].0.altnames = altnames.iter().map(|name| name.to_string()).collect();
        bench.turn(true);
        bench.advance(1_000);
        bench.turn(false);
    };
    assert_eq!(watched(&bench), ([false, false], "uplink".to_string()));
    set_altnames(&mut bench, 1, &["dsl", "uplink"]);
    assert_eq!(watched(&bench), ([false, true], "eth1".to_string()));
    assert_eq!(bench.live.lock().inventory.interface("uplink").unwrap().name, "eth1");
    // Counting starts at once and not with the next sample.
    bench.set(3, rx_tx(1700, 10));
    bench.run(30_000);
    assert_eq!(bench.samples("eth1").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 700);

    set_altnames(&mut bench, 1, &[]);
    assert_eq!(watched(&bench), ([false, false], "uplink".to_string()));
    set_altnames(&mut bench, 0, &["uplink"]);
    assert_eq!(watched(&bench), ([true, false], "eth0".to_string()));
    // A link's own name takes precedence over another link's altname.
    bench.world.lock().unwrap().links[1].0.name = "uplink".to_string();
    set_altnames(&mut bench, 0, &["uplink"]);
    assert_eq!(watched(&bench).1, "uplink");
}

#[test]
fn a_link_renamed_to_a_watched_name_is_counted_at_once() {
    let live = Live::new(Config::with_saved(&[("interfaces", "wan"), ("interval", "3600")]), Zone::UTC);
    let mut bench = Bench::with_live(live, &[(link(2, "eth0"), rx_tx(1000, 10))], Vec::new(), 1_000_000);
    bench.run(60_000);
    bench.world.lock().unwrap().links[0].0.name = "wan".to_string();
    bench.turn(true);
    bench.run(2_000);
    bench.set(2, rx_tx(1600, 10));
    bench.run(3_600_000);
    assert_eq!(bench.samples("wan").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 600);
    // The schedule does not change.
    let ticks: Vec<u64> = bench.batch().ticks.iter().map(|tick| tick.mono_ms).collect();
    assert_eq!(ticks, [1_060_000, 4_600_000]);
}

#[test]
fn the_primary_interface_is_watched() {
    let links =
        [(2, "eth0"), (3, "eth1"), (4, "veth0"), (5, "eth2")].map(|(at, name)| (link(at, name), rx_tx(1000, 10)));
    let mut bench = Bench::new(&links);
    bench.set(3, rx_tx(90_000, 10));
    bench.run(11_000);
    assert_eq!(settings_and_primary(&bench)[3], "eth1");
    let change = |bench: &Bench, key, text: &str| {
        let text = Some(text.to_string()).filter(|text| !text.is_empty());
        bench.live.lock().change(vec![(key, text)]).unwrap();
    };
    change(&bench, "ignore", "eth1");
    bench.turn(false);
    assert_eq!(
        (settings_and_primary(&bench)[3].as_str(), saved_primary(&bench)),
        ("eth0", None),
        "eth1 is not counted any more"
    );
    bench.set(2, rx_tx(90_000, 10));
    bench.run(30_001);
    assert_eq!(settings_and_primary(&bench)[3], "eth0");
    // A chosen primary interface is watched, whatever the rules and lists say.
    for name in ["veth0", "eth1"] {
        change(&bench, "primary", name);
        bench.turn(false);
        bench.run(1_000);
        assert_eq!(settings_and_primary(&bench)[3], name);
        assert!(bench.live.lock().inventory.interface(name).is_some_and(|iface| iface.monitored), "{name}");
    }
    change(&bench, "primary", "");
    bench.run(60_001);
    assert_eq!(settings_and_primary(&bench)[3], "eth0");
    assert!(bench.live.lock().inventory.interface("eth1").is_some_and(|iface| !iface.monitored));
}

#[test]
fn without_traffic_the_observation_is_repeated() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10)), (link(3, "eth1"), rx_tx(1000, 10))]);
    bench.run(60_000);
    assert_eq!(saved_primary(&bench), None);
    bench.set(2, rx_tx(100_000, 10));
    bench.run(60_000);
    assert_eq!((primary(&bench).as_str(), saved_primary(&bench).as_deref()), ("eth0", Some("eth0")));
}

/// A provisional primary interface is shown from the first second, without an event.
#[test]
fn a_provisional_primary_is_shown_before_one_is_found() {
    let carried = |bytes: u64| Counters::of([bytes, 0, 0, 0, 0, 0, 0, 0]);
    let links = |bytes: [u64; 2]| [(link(2, "eth0"), carried(bytes[0])), (link(3, "eth1"), carried(bytes[1]))];
    let check = |bytes, route, expect: &str| {
        let mut bench = Bench::new(&links(bytes));
        bench.world.lock().unwrap().route = route;
        bench.world.lock().unwrap().notifications = vec![LinkNotification::Addresses];
        bench.turn(true);
        bench.run(1_000);
        assert_eq!((primary(&bench).as_str(), saved_primary(&bench)), (expect, None), "{bytes:?} {route:?}");
        let is_primary = |event: &Event| event.kind == EventKind::Primary;
        assert!(!bench.live.lock().unsaved.events.iter().any(is_primary));
    };
    check([0, 0], None, "");
    check([5, 9], None, "eth1");
    check([9, 9], None, "eth0");
    check([5, 9], Some(2), "eth0");
    check([0, 0], Some(3), "eth1");
    // The default route is on a link that is not watched or not known.
    check([5, 9], Some(77), "eth1");
}

fn primary(bench: &Bench) -> String {
    bench.live.lock().inventory.primary.clone().unwrap_or_default()
}

fn saved_primary(bench: &Bench) -> Option<String> {
    let state = bench.live.lock();
    state.unsaved.settings.iter().find(|(key, _)| key == "primary_found").and_then(|(_, name)| name.clone())
}

fn add_link(bench: &mut Bench, ifindex: u32, name: &str, counters: Counters) {
    {
        let mut world = bench.world.lock().unwrap();
        world.links.push((link(ifindex, name), counters));
        world.notifications = vec![LinkNotification::Added { ifindex, counters: Counters::ZERO }];
    }
    bench.turn(true);
}

fn remove_link(bench: &mut Bench, ifindex: u32) {
    {
        let mut world = bench.world.lock().unwrap();
        world.links.retain(|(link, _)| link.ifindex != ifindex);
        world.notifications = vec![LinkNotification::Gone { ifindex, last: None }];
    }
    bench.turn(true);
    bench.advance(1_000);
    bench.turn(false);
}

#[test]
fn the_only_watched_interface_is_primary_until_traffic_chooses_another() {
    let lo = || (Link { hardware_type: 772, ..link(1, "lo") }, rx_tx(50_000, 50_000));
    let mut bench = Bench::new(&[lo(), (link(2, "eth0"), Counters::ZERO)]);
    assert_eq!((primary(&bench).as_str(), saved_primary(&bench)), ("eth0", None));
    assert!(bench.kinds_of_events().contains(&EventKind::Primary));
    // Another interface appears and has traffic; the first one never had any.
    bench.run(60_000);
    add_link(&mut bench, 3, "eth1", Counters::ZERO);
    bench.run(60_000);
    assert_eq!(primary(&bench), "eth0", "the other has had no traffic so far");
    bench.set(3, rx_tx(5_000, 10));
    bench.run(60_001);
    assert_eq!((primary(&bench).as_str(), saved_primary(&bench).as_deref()), ("eth1", Some("eth1")));

    // If the only interface has traffic, it stays primary like any interface that was found by traffic.
    let mut bench = Bench::new(&[lo(), (link(2, "eth0"), rx_tx(1000, 10))]);
    bench.set(2, rx_tx(9_000, 10));
    bench.run(60_001);
    assert_eq!((primary(&bench).as_str(), saved_primary(&bench).as_deref()), ("eth0", Some("eth0")));
    add_link(&mut bench, 3, "eth1", Counters::ZERO);
    bench.set(3, rx_tx(90_000_000, 10));
    bench.run(60_001);
    assert_eq!(primary(&bench), "eth0");
    assert_eq!(bench.kinds_of_events().iter().filter(|kind| **kind == EventKind::Primary).count(), 1);

    // With two interfaces the ordinary rules apply, until one of them is ignored.
    let mut bench = Bench::new(&[(link(2, "eth0"), Counters::ZERO), (link(3, "eth1"), Counters::ZERO)]);
    bench.run(60_001);
    assert_eq!(primary(&bench), "");
    bench.live.lock().active.ignored = vec!["eth0".to_string()];
    bench.turn(false);
    assert_eq!(primary(&bench), "eth1");
    bench.live.lock().active.primary = "eth0".to_string();
    bench.turn(false);
    assert_eq!(primary(&bench), "eth0", "the user's choice takes precedence");
}

#[test]
fn the_only_watched_interface_is_not_primary_without_the_default_route() {
    let mut bench = Bench::new(&[]);
    bench.live.lock().active.interfaces = vec!["lan0".to_string()];
    bench.world.lock().unwrap().route = Some(7);
    add_link(&mut bench, 7, "wan0", rx_tx(9, 9));
    add_link(&mut bench, 2, "lan0", rx_tx(9, 9));
    bench.run(60_001);
    assert_eq!(primary(&bench), "");
    bench.world.lock().unwrap().route = Some(2);
    bench.turn(true);
    bench.run(1_001);
    assert_eq!(primary(&bench), "lan0");
}

#[test]
fn the_only_watched_interface_replaces_an_absent_primary_after_an_observation() {
    let links = [(link(2, "eth0"), Counters::ZERO), (link(5, "ppp0"), rx_tx(1000, 10))];
    let mut bench = Bench::new(&links);
    bench.set(5, rx_tx(90_000, 10));
    bench.run(30_001);
    assert_eq!(primary(&bench), "ppp0");
    // A connection that is dialled again comes back within seconds.
    remove_link(&mut bench, 5);
    assert_eq!(primary(&bench), "ppp0");
    add_link(&mut bench, 6, "ppp0", Counters::ZERO);
    bench.run(120_001);
    assert_eq!(primary(&bench), "ppp0");
    // A connection that does not come back.
    remove_link(&mut bench, 6);
    bench.run(5_000);
    assert_eq!(primary(&bench), "ppp0");
    bench.run(60_001);
    assert_eq!((primary(&bench).as_str(), saved_primary(&bench).as_deref()), ("eth0", Some("ppp0")));
    add_link(&mut bench, 7, "ppp0", Counters::ZERO);
    assert_eq!(primary(&bench), "ppp0", "it is present again");

    // The absent primary was found by a run long ago.
    let live = Live::new(Config::default(), Zone::UTC);
    let mut bench = Bench::with_live(live, &[], Vec::new(), 1_000_000);
    bench.sampler.primary = Primary::new(String::new());
    bench.sampler.primary.restore(String::new(), "wlan7".to_string());
    bench.sampler.primary.begin(bench.clock.now());
    add_link(&mut bench, 2, "eth0", Counters::ZERO);
    bench.run(11_000);
    assert_eq!(primary(&bench), "eth0");
}

/// Unmatched names and patterns: setting, pattern, and whether an absent interface with history has that name.
fn unmatched(bench: &Bench) -> Vec<String> {
    let state = bench.live.lock();
    state.inventory.unmatched.iter().map(|it| format!("{} {} {}", it.key, it.pattern, it.known)).collect()
}

#[test]
fn unmatched_names_are_shown_until_they_match() {
    let saved = [("interfaces", "eth*,nope*,ppp0,uplink,eth*"), ("primary", "wan")];
    let live = Live::new(Config::with_saved(&saved), Zone::UTC);
    let stored = record(1, "ppp0", 0, "boot-before", rx_tx(5, 5), 1);
    let mut bench = Bench::with_live(live, &[(link(2, "eth0"), rx_tx(1000, 10))], vec![stored], 1_000_000);
    let all = ["interfaces nope* false", "interfaces ppp0 true", "interfaces uplink false", "primary wan false"];
    assert_eq!(unmatched(&bench), all);
    bench.run(60_000);
    assert_eq!(unmatched(&bench), all);
    add_link(&mut bench, 5, "ppp0", Counters::ZERO);
    assert_eq!(unmatched(&bench), [all[0], all[2], all[3]]);
    bench.world.lock().unwrap().links[0].0.altnames = vec!["uplink".to_string(), "wan".to_string()];
    bench.turn(true);
    bench.advance(1_000);
    bench.turn(false);
    assert_eq!(unmatched(&bench), [all[0]]);
    remove_link(&mut bench, 5);
    assert_eq!(unmatched(&bench), [all[0], all[1]]);
    let change = |bench: &mut Bench, key, text: &str| {
        bench.live.lock().change(vec![(key, Some(text.to_string()))]).unwrap();
        bench.turn(false);
    };
    change(&mut bench, "interfaces", "e*");
    assert_eq!(unmatched(&bench), [""; 0]);
    // In a name, `*` has no special meaning.
    change(&mut bench, "primary", "e*");
    assert_eq!(unmatched(&bench), ["primary e* false"]);
}

#[test]
fn log_lines_about_one_pattern_are_limited() {
    let flags = [("interfaces", "ppp0,eth*".to_string())];
    let live = Live::new(Config::new(&flags, |_| None).unwrap(), Zone::UTC);
    let mut bench = Bench::with_live(live, &[(link(2, "eth0"), rx_tx(1000, 10))], Vec::new(), 1_000_000);
    let gone = "--interface ppp0 matches no interface now: counting starts when it appears";
    // Nothing has been logged so far.
    bench.sampler.configured_names = ConfiguredNames::default();
    let mut found = Vec::new();
    let mut check = |bench: &mut Bench, present: bool, ms: u64| {
        bench.world.lock().unwrap().links.truncate(1);
        if present {
            bench.world.lock().unwrap().links.push((link(5, "ppp0"), Counters::ZERO));
        }
        bench.advance(ms);
        let now = bench.clock.now();
        bench.sampler.list_links(now);
        let news = bench.sampler.unmatched_log_lines(now);
        found.extend(news.iter().map(|(level, line)| format!("{level} {line}")));
        (news.len(), bench.sampler.configured_names.next_ms().map(|due| due - now.mono_ms))
    };
    assert_eq!(check(&mut bench, false, 0), (1, None));
    assert_eq!(check(&mut bench, false, 50_000), (0, None), "logged once");
    for at in 0..5 {
        assert_eq!(check(&mut bench, at % 2 == 0, 10_000), (1, None), "{at}");
    }
    for at in 0..100 {
        // No line is due while the logged state is the present one.
        let due = Some(500_000 - 1_000 * (at + 1)).filter(|_| at % 2 == 0);
        assert_eq!(check(&mut bench, at % 2 != 0, 1_000), (0, due), "{at}");
    }
    assert_eq!(check(&mut bench, false, 1_000), (0, Some(399_000)));
    // After ten minutes the log has the state at that time.
    assert_eq!(check(&mut bench, false, 399_000), (1, None));
    assert_eq!(check(&mut bench, true, 1_000), (1, None));
    assert_eq!(found[0], format!("WARN {gone}"));
    assert_eq!(found[1], "INFO --interface ppp0 matches ppp0 now");
    assert_eq!(found.len(), 8);
}

#[test]
fn samples_wait_for_a_trusted_clock_and_none_is_lost() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    let mut untrusted = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    untrusted.clock.0.lock().unwrap().unix_ms = 0;
    // A machine whose clock shows 1970 after the boot.
    untrusted.sampler.wall_clock = WallClock::new(BUILD_FLOOR, None);
    untrusted.live.lock().unsaved.batch.clear();
    for one in [&mut bench, &mut untrusted] {
        one.set(2, rx_tx(1500, 10));
        one.run(90_001);
    }
    assert!(untrusted.batch().ticks.iter().all(|tick| tick.unix.is_none()));
    assert!(!untrusted.live.lock().health.clock_trusted);
    untrusted.clock.0.lock().unwrap().unix_ms = START_MS + 90_001;
    untrusted.run(30_000);
    let (expected, batch) = (bench.batch(), untrusted.batch());
    let times: Vec<i64> = batch.ticks.iter().filter_map(|tick| tick.unix).collect();
    assert_eq!(times.len(), batch.ticks.len());
    assert_eq!(times[0], expected.ticks[1].unix.unwrap());
}

#[test]
fn of_two_records_with_one_identity_the_name_decides() {
    // The link was renamed from x0 to x1, and the record of x0 kept the identity.
    let old = record(1, "x0", 2, BOOT, rx_tx(20_000, 1), 400_000);
    let current = record(2, "x1", 2, BOOT, rx_tx(27_000, 1), 400_000);
    let bench = Bench::after(&[(link(2, "x1"), rx_tx(27_100, 1))], vec![old, current], 1_000_000);
    assert_eq!(bench.samples("x1").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 100);
}

#[test]
fn a_rename_removes_the_identity_from_the_old_record() {
    let old = record(7, "wan", 9, "boot-before", rx_tx(5, 5), 1);
    let mut bench = Bench::after(&[(link(2, "eth0"), rx_tx(1000, 10))], vec![old], 1_000_000);
    bench.world.lock().unwrap().links[0].0.name = "wan".to_string();
    bench.turn(true);
    bench.advance(2000);
    bench.turn(false);
    bench.run(30_001);
    let state = bench.live.lock();
    let identities: Vec<(IfaceId, u32)> =
        state.unsaved.records.iter().map(|record| (record.id, record.ifindex)).collect();
    assert!(identities.contains(&(7, 2)) && identities.contains(&(8, 0)), "{identities:?}");
}

#[test]
fn a_notification_before_the_listing_is_kept() {
    let mut bench = Bench::new(&[]);
    bench.world.lock().unwrap().notifications = vec![LinkNotification::Added { ifindex: 9, counters: Counters::ZERO }];
    bench.turn(true);
    bench.world.lock().unwrap().links.push((link(9, "wg0"), rx_tx(300, 5)));
    bench.advance(1000);
    bench.turn(true);
    bench.run(30_001);
    assert_eq!(bench.samples("wg0").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 300);
}

#[test]
fn the_last_traffic_of_a_gone_link_is_counted() {
    let mut bench = Bench::new(&[(link(2, "ppp0"), rx_tx(1000, 10))]);
    {
        let mut world = bench.world.lock().unwrap();
        world.links.clear();
        world.notifications = vec![LinkNotification::Gone { ifindex: 2, last: Some(rx_tx(1700, 10)) }];
    }
    bench.advance(5000);
    bench.turn(true);
    assert_eq!(bench.live.lock().inventory.interface("ppp0").unwrap().lifetime.rx_bytes(), 700);
    assert_eq!(bench.samples("ppp0"), [(SampleQuality::Plain, 700, 5)]);
}

/// One end of a veth takes its received bytes from the counters of the other end, which the kernel removes first.
#[test]
fn a_counter_that_falls_in_the_final_reading_is_not_counted_twice() {
    let mut bench = Bench::new(&[(link(2, "ppp0"), rx_tx(1000, 10))]);
    bench.set(2, rx_tx(5000, 50));
    bench.advance(30_000);
    bench.turn(false);
    {
        let mut world = bench.world.lock().unwrap();
        world.links.clear();
        world.notifications = vec![LinkNotification::Gone { ifindex: 2, last: Some(rx_tx(0, 57)) }];
    }
    bench.advance(5000);
    bench.turn(true);
    let lifetime = bench.live.lock().inventory.interface("ppp0").unwrap().lifetime;
    assert_eq!((lifetime.rx_bytes(), lifetime.tx_bytes()), (4000, 47));
}

#[test]
fn a_changed_interfaces_list_loses_no_traffic() {
    let mut bench = Bench::new(&[(link(2, "w0"), rx_tx(1000, 10)), (link(3, "w1"), rx_tx(1000, 10))]);
    bench.set(2, rx_tx(101_000, 10));
    bench.advance(3000);
    bench.live.lock().active.interfaces = vec!["w1".to_string()];
    bench.turn(false);
    bench.set(2, rx_tx(900_000, 10));
    bench.advance(3000);
    bench.live.lock().active.interfaces = Vec::new();
    bench.turn(false);
    bench.set(2, rx_tx(950_000, 10));
    bench.run(30_001);
    assert_eq!(bench.samples("w0").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 150_000);
}

#[test]
fn every_first_baseline_is_saved_at_once() {
    let mut bench = Bench::new(&[(link(2, "eth0"), rx_tx(1000, 10))]);
    let save_requested = |bench: &Bench| std::mem::take(&mut bench.live.lock().pending.save_now);
    assert!(save_requested(&bench), "the first baseline");
    bench.run(60_001);
    assert!(!save_requested(&bench), "an ordinary tick");
    bench.live.lock().active.running = false;
    bench.turn(false);
    bench.live.lock().active.running = true;
    bench.turn(false);
    assert!(save_requested(&bench), "a baseline after a stop");
    {
        let mut world = bench.world.lock().unwrap();
        world.links.push((link(9, "wg0"), rx_tx(300, 5)));
        world.notifications = vec![LinkNotification::Added { ifindex: 9, counters: Counters::ZERO }];
    }
    bench.turn(true);
    bench.run(30_001);
    assert!(save_requested(&bench), "a new record");
}

#[test]
fn a_gone_link_without_samples_keeps_its_name() {
    let mut bench = Bench::new(&[(link(2, "w0"), rx_tx(1000, 10))]);
    bench.run(60_001);
    bench.world.lock().unwrap().links.clear();
    bench.turn(true);
    bench.advance(2000);
    bench.turn(false);
    assert!(bench.live.lock().inventory.interface("w0").is_some_and(|iface| !iface.present()));
}

/// Sum of all samples of an interface, and the raw counters that the writer computes from samples and anchors.
fn totals(bench: &Bench, id: IfaceId, stored: &[Record]) -> (Counters, Counters) {
    let state = bench.live.lock();
    let mut raw = stored.iter().find(|record| record.id == id).map_or(Counters::ZERO, |record| record.raw);
    let mut sum = Counters::ZERO;
    for (tick, samples) in state.unsaved.batch.iter() {
        for sample in samples.iter().filter(|sample| sample.iface == id) {
            sum.add(&sample.delta);
            raw = Counters(std::array::from_fn(|at| raw.0[at].wrapping_add(sample.delta.0[at])));
        }
        for anchor in state.unsaved.anchors.iter().filter(|anchor| (anchor.seq, anchor.iface) == (tick.seq, id)) {
            raw = anchor.raw;
        }
    }
    (sum, raw)
}

#[test]
fn a_restart_within_the_interval_makes_no_event() {
    for (ended_ms, is_event) in [(990_000, false), (960_000, true)] {
        let mut bench = Bench::without_history(&[(link(2, "eth0"), rx_tx(1700, 10))], 1_000_000);
        bench.rejoin(history_of_a_minute_ago(vec![record(4, "eth0", 2, BOOT, rx_tx(1000, 10), ended_ms)]));
        assert_eq!(bench.kinds_of_events().contains(&EventKind::Gap), is_event, "{ended_ms}");
        assert_eq!(bench.samples("eth0")[0].1, 700);
    }
}

#[test]
fn a_history_opened_late_gets_the_gap_as_after_a_restart() {
    let mut bench = Bench::without_history(&[(link(2, "eth0"), rx_tx(1700, 10))], 1_000_000);
    bench.set(2, rx_tx(1800, 10));
    bench.run(60_001);
    assert_eq!(bench.live.lock().inventory.interface("eth0").unwrap().lifetime.rx_bytes(), 100);
    bench.rejoin(history_of_a_minute_ago(vec![record(4, "eth0", 2, BOOT, rx_tx(1000, 10), 400_000)]));
    assert_eq!(
        bench.samples("eth0"),
        [(SampleQuality::Gap, 700, 600), (SampleQuality::Plain, 100, 30), (SampleQuality::Plain, 0, 30)]
    );
    {
        let state = bench.live.lock();
        assert_eq!(state.health.database, Database::Rejoined);
        assert!(state.pending.save_now);
        assert_eq!(state.inventory.interface("eth0").unwrap().lifetime.rx_bytes(), 5_000_800);
        assert_eq!(state.unsaved.batch.ticks.iter().map(|tick| tick.seq).collect::<Vec<_>>(), [101, 102, 103]);
        assert!(
            state.unsaved.anchors.iter().all(|anchor| anchor.iface == 4 && anchor.seq == 101),
            "{:?}",
            state.unsaved.anchors
        );
        let [record] = &state.unsaved.records[..] else { panic!("{:?}", state.unsaved.records) };
        assert_eq!((record.id, record.ifindex, record.stack.boot.as_str()), (4, 2, BOOT));
    }
    assert!(bench.kinds_of_events().contains(&EventKind::Gap));
    bench.set(2, rx_tx(1900, 10));
    bench.run(30_000);
    assert_eq!(bench.samples("eth0")[3], (SampleQuality::Plain, 100, 30));
    assert_eq!(bench.batch().ticks.last().unwrap().seq, 104);
}

#[test]
fn a_history_of_another_boot_opened_late_continues_from_zero() {
    let mut bench = Bench::without_history(&[(link(2, "eth0"), rx_tx(1700, 10))], 1_000_000);
    bench.run(1);
    bench.rejoin(history_of_a_minute_ago(vec![record(4, "eth0", 2, "boot-before", rx_tx(1000, 10), 900_000_000)]));
    assert_eq!(bench.samples("eth0"), [(SampleQuality::Reset, 1700, 1000)]);
}

/// With each of these histories, sums and ids are the same as if it had been known at the start.
#[test]
fn a_history_opened_late_gives_the_same_result_as_one_opened_at_the_start() {
    let links = [(link(2, "a"), rx_tx(1700, 10)), (link(3, "b"), rx_tx(50, 10)), (link(4, "c"), Counters::ZERO)];
    let other = "boot-before";
    let histories: [Vec<Record>; 8] = [
        vec![],
        vec![record(1, "b", 3, BOOT, rx_tx(20, 1), 900_000), record(2, "a", 2, BOOT, rx_tx(900, 1), 900_000)],
        // Renamed while net-pulse was not running.
        vec![record(1, "a", 3, BOOT, rx_tx(20, 1), 900_000), record(2, "b", 2, BOOT, rx_tx(900, 1), 900_000)],
        vec![record(1, "x", 2, BOOT, rx_tx(900, 1), 900_000), record(2, "y", 9, BOOT, rx_tx(1, 1), 900_000)],
        // Renamed to a name that already had a history.
        vec![record(1, "x", 2, BOOT, rx_tx(900, 1), 900_000), record(2, "a", 5, other, rx_tx(7, 7), 1)],
        vec![record(7, "a", 1, other, rx_tx(9, 9), 5), record(3, "c", 4, other, rx_tx(9, 9), 5)],
        vec![record(7, "a", 8, BOOT, rx_tx(90_000, 9), 500_000), record(8, "gone", 70, BOOT, rx_tx(9, 9), 5)],
        // The stored counters are higher than the present ones: they restarted from zero in between.
        vec![record(5, "a", 2, BOOT, rx_tx(90_000, 90), 500_000)],
    ];
    for stored in histories {
        for coarsened in [false, true] {
            let mut early = Bench::after(&links, stored.clone(), 1_000_000);
            let mut without_history = Bench::without_history(&links, 1_000_000);
            for bench in [&mut early, &mut without_history] {
                for at in 1..=6 {
                    bench.set(2, rx_tx(1700 + 100 * at, 10 + at));
                    bench.set(3, rx_tx(50 + at, 10));
                    bench.run(30_000);
                }
                bench.world.lock().unwrap().links.remove(1);
                bench.turn(true);
                bench.run(30_000);
            }
            if coarsened {
                let mut state = without_history.live.lock();
                let Unsaved { batch, anchors, .. } = &mut state.unsaved;
                crate::coarsen::coarsen(batch, anchors, 0);
                assert_eq!(batch.ticks.len(), 1);
            }
            without_history.rejoin(history_of_a_minute_ago(stored.clone()));
            for bench in [&mut early, &mut without_history] {
                bench.set(2, rx_tx(5_000, 30));
                bench.set(4, rx_tx(77, 7));
                bench.run(30_000);
            }
            let inventory = |bench: &Bench| -> Vec<(String, Option<IfaceId>, Counters)> {
                let state = bench.live.lock();
                state.inventory.interfaces.iter().map(|iface| (iface.name.clone(), iface.id, iface.lifetime)).collect()
            };
            let names = |rows: Vec<(String, Option<IfaceId>, Counters)>| -> Vec<(String, Counters)> {
                rows.into_iter().map(|(name, _, lifetime)| (name, lifetime)).collect()
            };
            assert_eq!(names(inventory(&without_history)), names(inventory(&early)), "{stored:#?}");
            for (name, id, lifetime) in inventory(&early) {
                let (Some(id), true) = (id, lifetime.rx_bytes() > 0) else { continue };
                let stored_id =
                    inventory(&without_history).iter().find(|(known, ..)| *known == name).unwrap().1.unwrap();
                if stored.iter().any(|record| record.id == id) {
                    assert_eq!(stored_id, id, "{name} of {stored:#?}");
                }
                assert_eq!(
                    totals(&without_history, stored_id, &stored),
                    totals(&early, id, &stored),
                    "{name} of {stored:#?}"
                );
            }
            // The identities that the writer will store.
            let identities = |bench: &Bench| {
                let mut kept = stored.clone();
                for record in &bench.live.lock().unsaved.records {
                    kept.retain(|known| known.id != record.id);
                    kept.push(record.clone());
                }
                kept.retain(|record| record.ifindex != 0);
                let mut found: Vec<_> =
                    kept.into_iter().map(|record| (record.name, record.ifindex, record.stack.boot)).collect();
                found.sort();
                found
            };
            assert_eq!(identities(&without_history), identities(&early), "{stored:#?}");
        }
    }
}

#[test]
fn a_link_announced_before_the_history_opens_is_counted_from_zero() {
    let mut bench = Bench::without_history(&[], 1_000_000);
    {
        let mut world = bench.world.lock().unwrap();
        world.links.push((link(9, "wg0"), rx_tx(300, 5)));
        world.notifications = vec![LinkNotification::Added { ifindex: 9, counters: Counters::ZERO }];
    }
    bench.turn(true);
    bench.run(30_001);
    bench.rejoin(history_of_a_minute_ago(vec![record(4, "wg0", 9, BOOT, rx_tx(100, 1), 400_000)]));
    assert_eq!(bench.samples("wg0").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 300);
    assert_eq!(bench.live.lock().inventory.interface("wg0").unwrap().id, Some(4));
}

#[test]
fn a_run_is_discarded_if_a_history_opened_late_says_that_collection_is_stopped() {
    let mut bench = Bench::without_history(&[(link(2, "eth0"), rx_tx(1700, 10))], 1_000_000);
    bench.set(2, rx_tx(1800, 10));
    bench.run(60_001);
    bench.live.lock().active.running = false;
    bench.rejoin(history_of_a_minute_ago(vec![record(4, "eth0", 2, BOOT, rx_tx(1000, 10), 400_000)]));
    bench.set(2, rx_tx(9000, 10));
    bench.run(60_001);
    assert_eq!(bench.samples("eth0"), []);
    assert_eq!(bench.live.lock().inventory.interface("eth0").unwrap().lifetime.rx_bytes(), 5_000_000);
    bench.live.lock().active.running = true;
    bench.turn(false);
    bench.set(2, rx_tx(9100, 10));
    bench.run(30_001);
    assert_eq!(bench.samples("eth0").iter().map(|(_, rx, _)| *rx).collect::<Vec<_>>(), [100]);
}

/// The stored history says "stopped", and the user started collection before the history was open.
#[test]
fn traffic_of_a_pause_that_ended_before_the_history_opens_is_not_counted() {
    let links = [(link(2, "eth0"), rx_tx(1700, 10)), (link(3, "eth1"), rx_tx(500, 1))];
    let mut bench = Bench::without_history(&links, 1_000_000);
    bench.set(2, rx_tx(1800, 10));
    bench.run(60_001);
    bench.live.lock().unsaved.queue_setting("running", Some("true".to_string()));
    let records =
        vec![record(4, "eth0", 2, BOOT, rx_tx(1000, 10), 400_000), record(5, "eth1", 3, BOOT, rx_tx(9, 1), 400_000)];
    let mut stored = stored_history(records, 101, None);
    stored.settings.insert("running".to_string(), "false".to_string());
    bench.rejoin(stored);
    bench.set(2, rx_tx(1850, 10));
    bench.set(3, rx_tx(530, 1));
    bench.run(60_001);
    assert_eq!(bench.samples("eth0").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 150);
    assert_eq!(bench.samples("eth1").iter().map(|(_, rx, _)| *rx).sum::<u64>(), 30);
    let found = details(&bench, EventKind::Gap);
    assert!(found.iter().any(|detail| detail.contains("collection was stopped, and started again")), "{found:?}");
}

/// The clock is nine hours slow, and only the stored history proves that.
#[test]
fn e20_a_history_opened_late_corrects_wrong_wall_times() {
    let mut bench = Bench::without_history(&[(link(2, "eth0"), rx_tx(1700, 10))], 1_000_000);
    bench.run(60_001);
    assert!(bench.batch().ticks.iter().all(|tick| tick.unix.is_some()));
    let newest = START_MS / 1000 + 9 * 3600;
    let records = vec![record(4, "eth0", 2, "boot-before", rx_tx(1000, 10), 5)];
    bench.rejoin(stored_history(records, 101, Some(newest)));
    assert!(bench.batch().ticks.iter().all(|tick| tick.unix.is_none()));
    bench.clock.0.lock().unwrap().unix_ms += 9 * 3_600_000 + 1_000_000;
    bench.run(30_000);
    let ticks = bench.batch().ticks;
    assert!(ticks.iter().all(|tick| tick.unix.is_some_and(|unix| unix > newest)), "{ticks:?}");
}

fn details(bench: &Bench, kind: EventKind) -> Vec<String> {
    let state = bench.live.lock();
    state.unsaved.events.iter().filter(|event| event.kind == kind).map(|event| event.detail.clone()).collect()
}

/// A record of another boot. Its latest sample is `last_seen_s` seconds after the present boot began (at monotonic
/// zero).
fn of_another_boot(machine: &str, last_seen_s: i64) -> Record {
    let booted = (START_MS - 1_000_000) / 1000;
    let known = record(4, "eth0", 2, "boot-before", rx_tx(1000, 10), 900_000_000);
    let stack = NetworkStack { machine: machine.to_string(), ..known.stack };
    Record { stack, last_seen: booted + last_seen_s, ..known }
}

#[test]
fn a_boot_that_began_before_the_latest_sample_is_not_counted() {
    let links = [(link(2, "eth0"), rx_tx(1_400_000, 10))];
    for (known, words) in [
        (of_another_boot("machine", 500), "began before the latest sample"),
        (of_another_boot("", 500), "began before the latest sample"),
        (of_another_boot("another", -500), "another machine"),
    ] {
        let mut bench = Bench::after(&links, vec![known], 1_000_000);
        let found = details(&bench, EventKind::Gap);
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
        bench.set(2, rx_tx(1_405_000, 10));
        bench.run(30_001);
        assert_eq!(bench.samples("eth0"), [(SampleQuality::Plain, 5000, 30)]);
        assert_eq!(bench.live.lock().inventory.interface("eth0").unwrap().lifetime.rx_bytes(), 5_005_000);
    }
    let bench = Bench::after(&links, vec![of_another_boot("", -500)], 1_000_000);
    assert_eq!(bench.samples("eth0"), [(SampleQuality::Reset, 1_400_000, 1000)]);
    assert_eq!(details(&bench, EventKind::Gap), [""; 0]);
}

#[test]
fn counting_from_the_boot_is_decided_when_the_clock_is_trusted() {
    for (last_seen_s, expect) in [(-500, 1_400_000), (500, 0)] {
        let known = of_another_boot("", last_seen_s);
        let newest = Some(known.last_seen);
        let live = Live::new(Config::default(), Zone::UTC);
        let world =
            Arc::new(Mutex::new(World { links: vec![(link(2, "eth0"), rx_tx(1_400_000, 10))], ..World::default() }));
        let clock = Arc::new(TestClock(Mutex::new(Now { mono_ms: 1_000_000, unix_ms: 1_000_000 })));
        let live = Arc::new(live);
        let reopen: Reopen = Box::new(|| Err(Error::new(ErrorKind::Unsupported, "no other")));
        let source = Box::new(Kernel(world.clone()));
        live.lock().apply_stored_history(stored_history(vec![known], 1, newest));
        let sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), stack(BOOT));
        let mut bench = Bench { world, clock, live, sampler };
        bench.set(2, rx_tx(1_400_000, 10));
        bench.run(30_001);
        bench.set(2, rx_tx(1_400_700, 10));
        bench.run(30_000);
        assert!(
            bench.samples("eth0").iter().all(|(quality, ..)| *quality == SampleQuality::Plain),
            "{:?}",
            bench.samples("eth0")
        );
        bench.clock.0.lock().unwrap().unix_ms = START_MS + 60_001;
        bench.run(1);
        let samples = bench.samples("eth0");
        let sum: u64 = samples.iter().map(|(_, rx, _)| *rx).sum();
        assert_eq!(sum, expect + 700, "{samples:?}");
        assert_eq!(
            samples.iter().filter(|(quality, ..)| *quality == SampleQuality::Reset).count(),
            usize::from(expect > 0)
        );
        let lifetime = bench.live.lock().inventory.interface("eth0").unwrap().lifetime.rx_bytes();
        assert_eq!(lifetime, 5_000_700 + expect);
        assert_eq!(details(&bench, EventKind::Gap).len(), usize::from(expect == 0));
        // The missed sample is in the tick of the first reading, which has the right time.
        let batch = bench.batch();
        assert_eq!(batch.ticks[0].unix, Some(START_MS / 1000));
        assert_eq!(batch.samples_of(0).len(), usize::from(expect > 0));
        // Samples and anchors give the present raw counters.
        let (_, raw) = totals(&bench, 4, &[]);
        assert_eq!(raw.rx_bytes(), 1_400_700);
    }
}

#[test]
fn links_that_swap_names_during_a_restart_keep_their_histories() {
    let names = ["a", "b", "c"];
    for count in [2, 3] {
        let records: Vec<Record> =
            (0..count).map(|at| record(at + 1, names[at as usize], at + 2, BOOT, rx_tx(1000, 10), 400_000)).collect();
        let links: Vec<(Link, Counters)> = (0..count)
            .map(|at| (link(at + 2, names[((at + 1) % count) as usize]), rx_tx(1100 + u64::from(at), 10)))
            .collect();
        let bench = Bench::after(&links, records.clone(), 1_000_000);
        let mut without_history = Bench::without_history(&links, 1_000_000);
        without_history.rejoin(history_of_a_minute_ago(records));
        for bench in [&bench, &without_history] {
            for at in 0..count {
                let name = names[((at + 1) % count) as usize];
                let (id, lifetime) =
                    bench.live.lock().inventory.interface(name).map(|it| (it.id, it.lifetime.rx_bytes())).unwrap();
                assert_eq!((id, lifetime), (Some(at + 1), 5_000_100 + u64::from(at)), "{name} of {count}");
            }
            assert_eq!(details(bench, EventKind::Renamed).len(), count as usize);
        }
    }
}

#[test]
fn a_falling_counter_makes_one_event_and_the_other_counters_are_counted() {
    let four = |rx, tx| Counters::of([rx, tx, 20, 20, 0, 0, 0, 0]);
    let mut bench = Bench::new(&[(link(2, "eth0"), four(1_000_000, 1000))]);
    for (rx, tx) in [(990_000, 1100), (991_000, 1300), (992_000, 1400)] {
        bench.set(2, four(rx, tx));
        bench.run(30_001);
    }
    bench.run(30_000);
    let found = details(&bench, EventKind::Dip);
    assert_eq!(found, ["rx_bytes fell although the link was not recreated: the fall is not counted"]);
    // The first two samples after the fall are uncertain; then counting continues from the lower value.
    let samples = bench.samples("eth0");
    assert_eq!(samples.iter().map(|(_, rx, _)| *rx).collect::<Vec<_>>(), [0, 1000, 1000, 0]);
    assert_eq!(
        samples.iter().map(|(quality, ..)| *quality).collect::<Vec<_>>()[..3],
        [SampleQuality::Gap, SampleQuality::Gap, SampleQuality::Plain]
    );
    assert_eq!(
        bench.live.lock().inventory.interface("eth0").unwrap().lifetime,
        Counters::of([2000, 400, 0, 0, 0, 0, 0, 0])
    );
    let id = bench.live.lock().inventory.interface("eth0").unwrap().id.unwrap();
    assert_eq!(totals(&bench, id, &[]).1, four(992_000, 1400));
    // A counter that jumps to and fro makes one event per hour.
    for at in 1..=360 {
        bench.set(2, four(992_000 - 1000 * (at % 2), 1400 + at));
        bench.run(30_000);
    }
    assert_eq!(details(&bench, EventKind::Dip).len(), 4);
    assert_eq!(bench.live.lock().inventory.interface("eth0").unwrap().lifetime.rx_bytes(), 2000);
}

#[test]
fn a_new_hardware_address_on_the_same_boot_makes_an_event_and_loses_nothing() {
    let known =
        Record { mac: "02:00:00:00:00:01".to_string(), ..record(4, "wlan0", 2, BOOT, rx_tx(1000, 10), 400_000) };
    let now = Link { mac: "02:00:00:00:00:02".to_string(), ..link(2, "wlan0") };
    let mut without_history = Bench::without_history(&[(now.clone(), rx_tx(1700, 10))], 1_000_000);
    without_history.rejoin(history_of_a_minute_ago(vec![known.clone()]));
    for bench in [Bench::after(&[(now, rx_tx(1700, 10))], vec![known], 1_000_000), without_history] {
        assert_eq!(bench.samples("wlan0"), [(SampleQuality::Gap, 700, 600)]);
        let found = details(&bench, EventKind::HardwareAddress);
        assert!(
            found.len() == 1 && found[0].contains("02:00:00:00:00:02") && found[0].contains("was 02:00:00:00:00:01")
        );
        assert_eq!(bench.live.lock().unsaved.records.last().unwrap().mac, "02:00:00:00:00:02");
    }
}

/// Without link notifications, as with the sysfs source.
#[test]
fn another_device_with_a_reused_ifindex_is_another_link() {
    let device = |node| Link { inode: node, ..link(2, "eth0") };
    let mut bench = Bench::new(&[(device(50), rx_tx(1000, 10))]);
    bench.set(2, rx_tx(1500, 10));
    bench.run(30_001);
    bench.world.lock().unwrap().links = vec![(device(40), rx_tx(9_000_000, 10))];
    bench.world.lock().unwrap().notifications = vec![LinkNotification::Lost];
    bench.turn(true);
    bench.advance(2000);
    bench.turn(false);
    bench.run(30_001);
    bench.set(2, rx_tx(9_000_700, 10));
    bench.run(30_000);
    assert_eq!(bench.live.lock().inventory.interface("eth0").unwrap().lifetime.rx_bytes(), 500 + 700);
    let kinds = bench.kinds_of_events();
    assert!(kinds.contains(&EventKind::Vanished) && kinds.contains(&EventKind::Gap), "{kinds:?}");
}

#[test]
fn without_a_boot_id_only_certain_traffic_is_counted() {
    let mac = "02:00:00:00:00:01".to_string();
    let known = Record {
        mac: mac.clone(),
        stack: stack(""),
        ..record(4, "eth0", 2, "", Counters::of([1000, 1000, 10, 10, 0, 0, 0, 0]), 400_000)
    };
    for (rx, expect, gap) in [(1700, 700, "no reading for"), (900, 0, "have fallen")] {
        let counters = Counters::of([rx, 2000, 20, 20, 0, 0, 0, 0]);
        let links = [(Link { mac: mac.clone(), ..link(2, "eth0") }, counters)];
        for opened_late in [false, true] {
            let live = Live::new(Config::default(), Zone::UTC);
            let stored = stored_history(vec![known.clone()], 101, None);
            if !opened_late {
                live.lock().apply_stored_history(stored.clone());
            }
            let mut bench = Bench::begin(live, &links, &stack(""), 1_000_000);
            let note = bench.live.lock().inventory.source_note.clone().unwrap_or_default();
            assert!(note.contains("boot id cannot be read"), "{note}");
            if opened_late {
                bench.rejoin(stored);
            }
            let rx_bytes: u64 = bench.samples("eth0").iter().map(|(_, rx, _)| *rx).sum();
            assert_eq!(rx_bytes, expect, "{opened_late}");
            let found = details(&bench, EventKind::Gap);
            assert!(found.len() == 1 && found[0].contains(gap), "{found:?}, {opened_late}");
            bench.set(2, Counters::of([rx + 5, 2000, 20, 20, 0, 0, 0, 0]));
            bench.run(30_001);
            let rx_bytes: u64 = bench.samples("eth0").iter().map(|(_, rx, _)| *rx).sum();
            assert_eq!(rx_bytes, expect + 5, "{opened_late}");
        }
    }
}
