//! Which history do counters belong to? Machines, boots, network namespaces and links that come, go, swap their names
//! and look like each other, with a daemon whose database is carried between them. The real sampler, writer and store
//! run against a model that knows the true traffic. Whatever happens, the bytes of a link are counted in one history:
//! all of them if there was a reading before and after, never more than the true traffic, and the same at every
//! resolution.
//!
//! `NETPULSE_TEST_SEEDS=first..last` runs other seeds than the default ones, `NETPULSE_TEST_SECONDS=600` runs random
//! seeds for that long.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::simulated::{memory_dir, read};
use net_pulse::clock::{BUILD_FLOOR, Clock, Now, Zone};
use net_pulse::config::Config;
use net_pulse::error::Result;
use net_pulse::history::{DiskThread, History, Snapshot};
use net_pulse::http::{self, Context, HttpRequest};
use net_pulse::live::{Live, StoredHistory};
use net_pulse::model::{Address, COUNTERS, Counters, IfaceId, Link, NetworkStack, Reading, Width};
use net_pulse::resolution::Resolution;
use net_pulse::sampler::Sampler;
use net_pulse::source::{LinkNotification, Source, Wake, Woken};
use net_pulse::store::{Opened, Options, Reader, Store};
use net_pulse::writer::Writer;
use serde_json::Value;

const NOON: i64 = BUILD_FLOOR + 100 * 86_400;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const NAMES: [&str; 5] = ["eth0", "eth1", "wan", "ppp0", "lan1"];

/// Number of a simulated device. It is never used again.
type DeviceUid = u32;

/// A simulated device and its true traffic since it was created.
#[derive(Clone, Debug)]
struct Device {
    uid: DeviceUid,
    link: Link,
    actual: Counters,
    /// By how much each counter shows less than the true traffic, because of its start value or a fall.
    deficit: [i128; COUNTERS],
    /// The driver has 32-bit counters.
    narrow: bool,
}

impl Device {
    fn shown(&self) -> Counters {
        Counters(std::array::from_fn(|at| {
            let whole = (i128::from(self.actual.0[at]) - self.deficit[at]) as u64;
            if self.narrow { whole & u64::from(u32::MAX) } else { whole }
        }))
    }
}

#[derive(Debug, Default)]
struct Namespace {
    cookie: u64,
    /// Older than all other links; not checked.
    loopback: Link,
    devices: Vec<Device>,
    next_ifindex: u32,
}

impl Namespace {
    fn new_ifindex(&mut self) -> u32 {
        loop {
            let ifindex = self.next_ifindex;
            self.next_ifindex += 1;
            if !self.devices.iter().any(|device| device.link.ifindex == ifindex) {
                return ifindex;
            }
        }
    }
}

#[derive(Debug)]
struct Machine {
    id: String,
    boot: String,
    boot_ms: i64,
    /// How much the wall clock is ahead of the true time.
    ahead_ms: i64,
    namespaces: Vec<Namespace>,
    next_inode: u64,
    next_cookie: u64,
    /// Name and address of the devices that are present after each boot.
    hardware: Vec<(String, String)>,
}

#[derive(Debug)]
struct World {
    truth_ms: i64,
    machines: Vec<Machine>,
    next_uid: DeviceUid,
    next_boot: u32,
    random: u64,
    /// Machine and namespace that the daemon runs in.
    at: (usize, usize),
    /// Waiting link notifications, if the daemon's source has any.
    notifications: Vec<LinkNotification>,
    has_notifications: bool,
    boot_is_readable: bool,
    inodes_are_readable: bool,
}

impl World {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % bound
    }

    fn namespace(&mut self) -> &mut Namespace {
        let (machine, namespace) = self.at;
        &mut self.machines[machine].namespaces[namespace]
    }

    fn now(&self) -> Now {
        let machine = &self.machines[self.at.0];
        let mono_ms = (self.truth_ms - machine.boot_ms) as u64;
        Now { mono_ms, unix_ms: (self.truth_ms + machine.ahead_ms).max(mono_ms as i64) }
    }

    fn stack(&self) -> NetworkStack {
        let (machine, namespace) = self.at;
        let Machine { id, boot, namespaces, .. } = &self.machines[machine];
        let boot = if self.boot_is_readable { boot.clone() } else { String::new() };
        NetworkStack { machine: id.clone(), boot, namespace: namespaces[namespace].cookie }
    }

    fn add_machine(&mut self) {
        let number = self.machines.len();
        let hardware = (0..2).map(|at| (NAMES[at].to_string(), format!("00:16:3e:00:{number:02x}:{at:02x}"))).collect();
        // Every second machine has no id.
        let id = if number % 2 == 0 { format!("{number:016x}") } else { String::new() };
        let (boot, boot_ms) = (String::new(), self.truth_ms);
        self.machines.push(Machine {
            id,
            boot,
            boot_ms,
            ahead_ms: 0,
            namespaces: Vec::new(),
            next_inode: 0,
            next_cookie: 0,
            hardware,
        });
        self.boot(number);
    }

    fn boot(&mut self, number: usize) {
        self.next_boot += 1;
        let machine = &mut self.machines[number];
        machine.boot = format!("boot-{}", self.next_boot);
        machine.boot_ms = self.truth_ms - 15_000;
        (machine.next_inode, machine.next_cookie) = (100, 0);
        machine.namespaces = Vec::new();
        for _ in 0..2 {
            self.add_namespace(number);
        }
        for (name, mac) in self.machines[number].hardware.clone() {
            self.create((number, 0), &name, &mac, false);
        }
    }

    fn add_namespace(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.next_cookie += 1;
        machine.next_inode += 1;
        let (cookie, inode) = (machine.next_cookie, machine.next_inode);
        let inode = if self.inodes_are_readable { inode } else { 0 };
        let loopback = Link { ifindex: 1, name: "lo".to_string(), hardware_type: 772, inode, ..Link::default() };
        // All namespaces start with the same numbers.
        machine.namespaces.push(Namespace { cookie, loopback, devices: Vec::new(), next_ifindex: 2 });
    }

    fn create(&mut self, at: (usize, usize), name: &str, mac: &str, has_prior_counters: bool) {
        let uid = self.next_uid;
        self.next_uid += 1;
        // A link from another namespace already has counters. Every third such link has a driver with 32-bit counters
        // that are close to their maximum.
        let narrow = has_prior_counters && self.below(3) == 0;
        let [rx, tx] = [self.below(2_000_000), self.below(2_000_000)]
            .map(|random| if narrow { (1 << 32) - 1 - i128::from(random) } else { 7_000_000_000 + i128::from(random) });
        let mut deficit = [0; COUNTERS];
        if has_prior_counters {
            deficit[..7].copy_from_slice(&[-rx, -tx, -9, -9, 0, 0, -3]);
        }
        let machine = &mut self.machines[at.0];
        machine.next_inode += 1;
        let inode = if self.inodes_are_readable { machine.next_inode } else { 0 };
        let namespace = &mut machine.namespaces[at.1];
        let ifindex = namespace.new_ifindex();
        let link = Link {
            ifindex,
            name: name.to_string(),
            hardware_type: 1,
            up: true,
            mac: mac.to_string(),
            inode,
            ..Link::default()
        };
        let device = Device { uid, link, actual: Counters::ZERO, deficit, narrow };
        self.add_device(at, device);
    }

    /// Adds the device to a namespace and notifies the daemon if it runs there.
    fn add_device(&mut self, at: (usize, usize), device: Device) {
        if self.at == at && self.has_notifications {
            self.notifications.push(LinkNotification::Added { ifindex: device.link.ifindex, counters: device.shown() });
        }
        self.machines[at.0].namespaces[at.1].devices.push(device);
    }

    fn remove_device(&mut self, at: (usize, usize), index: usize) -> Device {
        let device = self.machines[at.0].namespaces[at.1].devices.remove(index);
        if self.at == at && self.has_notifications {
            self.notifications
                .push(LinkNotification::Gone { ifindex: device.link.ifindex, last: Some(device.shown()) });
        }
        device
    }

    /// Lets time pass, with traffic on every link of every machine.
    fn pass(&mut self, ms: i64) {
        self.truth_ms += ms;
        let seeds: Vec<u64> = (0..64).map(|_| self.below(1 << 30)).collect();
        let devices = self.machines.iter_mut().flat_map(|machine| &mut machine.namespaces);
        for (at, device) in devices.flat_map(|namespace| &mut namespace.devices).enumerate() {
            let seed = seeds[at % seeds.len()].wrapping_add(at as u64 * 7919);
            let (packets, frame) = (seed % 40 * (ms as u64 / 1000).min(20), 60 + seed / 64 % 1400);
            let back = packets / 3;
            device.actual.add(&Counters::of([
                packets * frame,
                back * 70,
                packets,
                back,
                seed % 50 / 49,
                0,
                seed % 60 / 59,
                0,
            ]));
        }
    }

    fn free_name(&mut self, at: (usize, usize)) -> Option<&'static str> {
        let first = self.below(NAMES.len() as u64) as usize;
        let devices = &self.machines[at.0].namespaces[at.1].devices;
        let free = |name: &&&str| !devices.iter().any(|device| device.link.name == **name);
        NAMES.iter().cycle().skip(first).take(NAMES.len()).find(free).copied()
    }
}

struct Kernel(Arc<Mutex<World>>);

impl Source for Kernel {
    fn name(&self) -> &'static str {
        "simulated"
    }
    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        out.clear();
        let mut world = self.0.lock().unwrap();
        out.extend(world.namespace().devices.iter().map(|device| Reading {
            ifindex: device.link.ifindex,
            counters: device.shown(),
            width: Width::Bits64,
        }));
        out.sort_unstable_by_key(|reading| reading.ifindex);
        Ok(())
    }
    fn links(&mut self) -> Result<Vec<Link>> {
        let mut world = self.0.lock().unwrap();
        let namespace = world.namespace();
        let mut links: Vec<Link> = namespace.devices.iter().map(|device| device.link.clone()).collect();
        links.push(namespace.loopback.clone());
        links.sort_unstable_by_key(|link| link.ifindex);
        Ok(links)
    }
    fn addresses(&mut self) -> Result<Vec<Address>> {
        Ok(Vec::new())
    }
    fn default_route(&mut self) -> Result<Option<u32>> {
        Ok(None)
    }
    fn wait(&mut self, _: Duration, _: &Wake) -> Woken {
        Woken::default()
    }
    fn notifications(&mut self, out: &mut Vec<LinkNotification>) -> Result<()> {
        let mut world = self.0.lock().unwrap();
        out.append(&mut world.notifications);
        if !world.has_notifications {
            out.push(LinkNotification::Lost);
        }
        Ok(())
    }
}

impl Clock for Kernel {
    fn now(&self) -> Now {
        self.0.lock().unwrap().now()
    }
}

struct Daemon {
    live: Arc<Live>,
    sampler: Sampler,
    context: Context,
    writer: Option<Writer>,
}

/// The last reading of a device, and where it was taken.
#[derive(Clone, Debug)]
struct Seen {
    actual: Counters,
    id: IfaceId,
    machine: usize,
    stack: NetworkStack,
    name: String,
    mac: String,
    /// The true traffic of every device at that time.
    carried: Arc<BTreeMap<DeviceUid, Counters>>,
    /// The device was present at the latest sample, so no other device can have its history.
    is_latest: bool,
}

/// What the model knows at one time: now, or at the last save.
#[derive(Clone, Debug, Default)]
struct ModelState {
    seen: BTreeMap<DeviceUid, Seen>,
    lifetimes: BTreeMap<IfaceId, Counters>,
    /// The latest reading counted in each history.
    latest: BTreeMap<IfaceId, Seen>,
    /// The true traffic of every device at that time, whether it was read or not.
    carried: Arc<BTreeMap<DeviceUid, Counters>>,
}

fn carried(world: &World) -> Arc<BTreeMap<DeviceUid, Counters>> {
    let all = world.machines.iter().flat_map(|machine| &machine.namespaces).flat_map(|it| &it.devices);
    Arc::new(all.map(|device| (device.uid, device.actual)).collect())
}

struct Rig {
    world: Arc<Mutex<World>>,
    folder: PathBuf,
    daemon: Option<Daemon>,
    /// The model at the latest sample.
    model: ModelState,
    /// The model at the latest sample on disk.
    saved: ModelState,
    /// Devices with a reading in this run, and their histories.
    read: BTreeMap<DeviceUid, IfaceId>,
    /// Devices that arrived in this run, with their true traffic at the arrival.
    arrived: BTreeMap<DeviceUid, Counters>,
    /// True traffic of every device at the start of this run.
    first: Arc<BTreeMap<DeviceUid, Counters>>,
    /// Devices that are gone since the latest sample, with their true traffic at the end.
    gone: Vec<(DeviceUid, Counters)>,
    /// A wrong clock was trusted, so times are uncertain from now on.
    trusted_wrong_clock: bool,
    /// First readings that wait for a trusted clock: their possible deltas, and whether one of these must be counted.
    undecided: BTreeMap<IfaceId, (Vec<Counters>, bool)>,
    steps: Vec<String>,
}

fn minus(after: Counters, before: Counters) -> Counters {
    Counters(std::array::from_fn(|at| after.0[at].checked_sub(before.0[at]).expect("counted traffic never decreases")))
}

fn plus(mut one: Counters, other: Counters) -> Counters {
    one.add(&other);
    one
}

impl Rig {
    fn new(seed: u64) -> Rig {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = memory_dir().join(format!("net-pulse-identity-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut world = World {
            truth_ms: NOON * 1000,
            machines: Vec::new(),
            next_uid: 1,
            next_boot: 0,
            random: 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed),
            at: (0, 0),
            notifications: Vec::new(),
            has_notifications: seed % 3 != 0,
            boot_is_readable: true,
            inodes_are_readable: seed % 4 != 0,
        };
        world.below(1);
        for _ in 0..3 {
            world.add_machine();
            world.pass(HOUR_MS);
        }
        // A link that counted before the daemon runs.
        world.create((0, 0), "wan", "00:16:3e:99:00:01", true);
        world.pass(HOUR_MS);
        let model = ModelState { carried: carried(&world), ..ModelState::default() };
        Rig {
            world: Arc::new(Mutex::new(world)),
            folder,
            daemon: None,
            model: model.clone(),
            saved: model,
            read: BTreeMap::new(),
            arrived: BTreeMap::new(),
            first: Arc::default(),
            gone: Vec::new(),
            trusted_wrong_clock: false,
            undecided: BTreeMap::new(),
            steps: vec![format!("seed {seed}")],
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn below(&self, bound: u64) -> u64 {
        self.world().below(bound)
    }

    fn start(&mut self, opened_late: bool) {
        assert!(self.daemon.is_none());
        let stack = self.world().stack();
        self.steps.push(format!("start on {stack:?}, opened late: {opened_late}, clock {} s ahead", {
            let world = self.world();
            world.machines[world.at.0].ahead_ms / 1000
        }));
        self.world().notifications.clear();
        (self.read, self.arrived, self.undecided) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let first = carried(&self.world());
        self.first = first;
        self.gone.clear();
        let path = self.folder.join("history.db");
        let opened = Store::open(&path, &Options { max_bytes: 32 << 20 }).unwrap();
        assert!(opened.events.is_empty(), "{:?}", opened.events);
        let config = Config::with_saved(&[
            ("interval", "3600"),
            ("flush", "3600"),
            ("interfaces", &NAMES.join(",")),
            ("primary", "eth0"),
        ]);
        let live = Arc::new(Live::new(config, Zone::UTC));
        let clock = Arc::new(Kernel(self.world.clone()));
        let Opened { store, records, settings, next_seq, newest_unix: newest, .. } = opened;
        let stored = StoredHistory { records, settings, next_seq, newest };
        let reader = store.reader().unwrap();
        if !opened_late {
            live.lock().apply_stored_history(stored.clone());
        }
        let reopen = Box::new(|| unreachable!("the simulated kernel never fails"));
        let source = Box::new(Kernel(self.world.clone()));
        let sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), stack);
        let context = Context {
            live: live.clone(),
            history: History::new(live.clone(), Some(reader)),
            backup_thread: DiskThread::named("copy"),
            clock: clock.clone(),
            database: path,
            machine: Arc::new(net_pulse::model::Machine::default),
            find_zone: Arc::new(|name| Ok(Zone::find(Some(name), None, |_| None)?.zone)),
            listen_addresses: Vec::new(),
            auth: http::Auth::new(self.folder.clone(), None, false, false),
            server_state: http::ServerState::default(),
        };
        let writer = Writer::new(live.clone(), store, clock);
        self.daemon = Some(Daemon { live, sampler, context, writer: Some(writer) });
        match opened_late {
            // Ids are valid only after the rejoin, so everything counted before is checked together.
            true => {
                self.turn();
                for _ in 0..self.below(3) {
                    self.world().pass(20_000);
                    self.turn();
                }
                self.daemon.as_ref().unwrap().live.lock().apply_stored_history(stored);
                self.sample(None);
            }
            false => self.sample(None),
        }
    }

    /// Handles notifications and lists the links, at once or a second after the latest listing. Then takes one sample.
    fn turn(&mut self) {
        let daemon = self.daemon.as_mut().unwrap();
        daemon.sampler.step(Woken { wake_called: false, changed: true });
        self.world.lock().unwrap().truth_ms += 1000;
        assert!(daemon.live.collect(Duration::ZERO).is_none());
        daemon.sampler.step(Woken::default());
    }

    /// `dipped`: a device, one of its counters, and the delta of that counter that is expected after a fall.
    fn sample(&mut self, dipped: Option<(DeviceUid, usize, u64)>) {
        self.turn();
        self.check(dipped);
        if self.daemon.as_ref().unwrap().live.lock().pending.save_now {
            self.save();
        }
    }

    fn save(&mut self) {
        let daemon = self.daemon.as_mut().unwrap();
        daemon.writer.as_mut().unwrap().save().unwrap();
        if daemon.live.lock().unsaved.batch.is_empty() {
            self.saved = self.model.clone();
        }
    }

    /// Ends like after SIGTERM.
    fn stop(&mut self) {
        self.steps.push("stop".to_string());
        self.world().pass(20_000);
        let Daemon { live, sampler, context, writer, .. } = self.daemon.take().unwrap();
        live.lock().pending.stopping = true;
        sampler.run(&Wake::new().unwrap());
        self.check_state(&live, None);
        writer.unwrap().finish();
        if live.lock().unsaved.batch.is_empty() {
            self.saved = self.model.clone();
        }
        drop(context);
        self.model = self.saved.clone();
    }

    fn kill(&mut self) {
        self.steps.push("kill".to_string());
        self.daemon = None;
        self.model = self.saved.clone();
    }

    fn check(&mut self, dipped: Option<(DeviceUid, usize, u64)>) {
        let live = self.daemon.as_ref().unwrap().live.clone();
        self.check_state(&live, dipped);
    }

    /// Compares the sampler's lifetimes with the true traffic since the latest sample of each device.
    fn check_state(&mut self, live: &Live, dipped: Option<(DeviceUid, usize, u64)>) {
        let (devices, stack, machine, clock_is_right) = {
            let mut world = self.world();
            let (stack, machine) = (world.stack(), world.at.0);
            (world.namespace().devices.clone(), stack, machine, world.machines[machine].ahead_ms == 0)
        };
        let story = format!("{:#?}", self.steps);
        let state = live.lock();
        let lifetimes: BTreeMap<IfaceId, Counters> =
            state.inventory.interfaces.iter().filter_map(|iface| Some((iface.id?, iface.lifetime))).collect();
        let clock_trusted = state.health.clock_trusted;
        self.trusted_wrong_clock |= clock_trusted && !clock_is_right;
        let carried = carried(&self.world());
        let mut ids = BTreeSet::new();
        let mut absent = self.model.lifetimes.clone();
        let (mut seen, mut latest) = (self.model.seen.clone(), self.model.latest.clone());
        seen.values_mut().for_each(|seen| seen.is_latest = false);
        for device in &devices {
            let subject = || format!("{} (uid {}) in {story}", device.link.name, device.uid);
            let Device { uid, link, actual, .. } = device;
            let mut shown = state.inventory.interfaces.iter().filter(|iface| iface.ifindex == link.ifindex);
            let iface = shown.next().unwrap_or_else(|| panic!("not shown: {}", subject()));
            assert!(shown.next().is_none(), "shown twice: {}", subject());
            // A link without an id never had traffic.
            let Some(id) = iface.id else { continue };
            let before = self.model.lifetimes.get(&id).copied().unwrap_or_default();
            let delta = minus(iface.lifetime, before);
            let mut expected = self.expected_deltas(device, &stack, id, clock_trusted);
            if let Some((_, at, expect)) = dipped.filter(|(of, ..)| of == uid) {
                expected.iter_mut().for_each(|choice| choice.0[at] = expect);
            }
            // An undecided first reading is counted now, or not at all.
            if let Some((undecided, must_count)) = if clock_trusted { self.undecided.remove(&id) } else { None } {
                let with = expected
                    .iter()
                    .flat_map(|choice| undecided.iter().map(|undecided| plus(*choice, *undecided)))
                    .collect();
                expected = if must_count && !self.trusted_wrong_clock { with } else { [expected, with].concat() };
            }
            let final_traffic = self.final_traffic(id);
            let expected: Vec<Counters> = expected.into_iter().map(|choice| plus(choice, final_traffic)).collect();
            let least = Counters(std::array::from_fn(|at| expected.iter().map(|it| it.0[at]).min().unwrap_or(0)));
            let most = Counters(std::array::from_fn(|at| expected.iter().map(|it| it.0[at]).max().unwrap_or(0)));
            // Without a boot id, the difference to a history of an unknown boot is the least possible traffic.
            let unknown_boot =
                |seen: &Seen| seen.stack.boot.is_empty() && (seen.name == link.name || seen.mac == link.mac);
            // Without its inode, a link looks like any other link with its name and ifindex. Then some of its counters
            // may have fallen and others not.
            let uncertain = !self.read.contains_key(uid)
                && (stack.boot.is_empty() || link.inode == 0 || self.model.latest.values().any(unknown_boot))
                && (0..COUNTERS).all(|at| (least.0[at]..=most.0[at]).contains(&delta.0[at]));
            assert!(
                uncertain || expected.contains(&delta),
                "counted {delta:?}, expected one of {expected:?}: {}",
                subject()
            );
            absent.remove(&id);
            assert!(ids.insert(id), "two links with one history: {}", subject());
            self.read.insert(*uid, id);
            let Link { name, mac, .. } = link.clone();
            let (actual, stack, carried) = (*actual, stack.clone(), carried.clone());
            let now = Seen { actual, id, machine, stack, name, mac, carried, is_latest: true };
            latest.insert(id, now.clone());
            seen.insert(*uid, now);
        }
        // For absent interfaces only the final traffic of gone links may be counted.
        for (id, before) in absent {
            let after = lifetimes.get(&id).copied().unwrap_or(before);
            let undecided =
                self.undecided.get(&id).filter(|_| clock_trusted).map_or(&[][..], |(undecided, _)| undecided);
            let (delta, final_traffic) = (minus(after, before), self.final_traffic(id));
            let expected =
                delta == final_traffic || undecided.iter().any(|undecided| delta == plus(final_traffic, *undecided));
            assert!(expected, "absent {id}: {delta:?} of {final_traffic:?} and {undecided:?}: {story}");
        }
        self.gone.clear();
        drop(state);
        self.model = ModelState { seen, lifetimes, latest, carried };
    }

    /// The possible deltas of a device: one of them must match in all counters.
    fn expected_deltas(
        &mut self,
        device: &Device,
        stack: &NetworkStack,
        id: IfaceId,
        clock_trusted: bool,
    ) -> Vec<Counters> {
        let Device { uid, link, actual, .. } = device;
        let since = |before: Option<&Counters>| minus(*actual, before.copied().unwrap_or_default());
        let carried = self.model.carried.get(uid);
        let seen = self.model.seen.get(uid);
        if self.read.contains_key(uid) {
            return vec![since(seen.map(|seen| &seen.actual))];
        }
        let has_notifications = self.world().has_notifications;
        if let Some(arrived) = self.arrived.get(uid) {
            // Without notifications, an arrived link counts as new, or as one that was counted before, or it starts
            // with its first reading.
            return match (has_notifications, seen) {
                (true, _) => vec![since(Some(arrived))],
                (false, None) => vec![Counters::ZERO, since(carried)],
                (false, Some(seen)) => vec![Counters::ZERO, since(Some(&seen.actual))],
            };
        }
        let first = since(self.first.get(uid));
        if let Some(seen) = seen {
            let exact = since(Some(&seen.actual));
            let same_boot = !stack.boot.is_empty() && stack.boot == seen.stack.boot;
            let named = seen.name == link.name || seen.mac.is_empty() || link.mac.is_empty() || seen.mac == link.mac;
            let known = link.inode != 0 || (seen.stack.namespace == stack.namespace && named);
            return if same_boot && seen.is_latest && known { vec![exact] } else { vec![first, exact] };
        }
        // All traffic since the latest sample, or since the latest sample of a history that the link may continue.
        let alike = |latest: &&Seen| latest.id == id || latest.name == link.name || latest.mac == link.mac;
        let latest = self.model.latest.values().filter(alike).map(|latest| latest.carried.get(uid));
        let whole: Vec<Counters> = [carried].into_iter().chain(latest).map(since).collect();
        let must_count = self.is_after_a_reboot(device, stack, id);
        if stack.boot.is_empty() || !clock_trusted {
            let undecided = whole.iter().map(|whole| minus(*whole, first)).collect();
            self.undecided.insert(id, (undecided, must_count));
        }
        // Even before the clock is trusted, the sampler counts a link from zero at once if its ifindex and inode show
        // that it is new. So `whole` is always possible.
        let since_start = (!must_count || self.trusted_wrong_clock || !clock_trusted).then_some(first);
        since_start.into_iter().chain(whole).collect()
    }

    /// Whether the device was present before a reboot of this machine, and no other device can claim its history.
    fn is_after_a_reboot(&self, device: &Device, stack: &NetworkStack, id: IfaceId) -> bool {
        let machine = self.world().at.0;
        let Link { name, mac, .. } = &device.link;
        let mut alike = self.model.seen.values().filter(|seen| seen.name == *name || seen.mac == *mac || seen.id == id);
        let before = alike.next();
        let same = |seen: &&Seen| {
            (&seen.name, &seen.mac, seen.machine, seen.is_latest, seen.id) == (name, mac, machine, true, id)
                && ![&String::new(), &stack.boot].contains(&&seen.stack.boot)
        };
        !stack.boot.is_empty() && before.filter(same).is_some() && alike.next().is_none()
    }

    /// Traffic of gone links between their latest sample and their end, if a notification reported it.
    fn final_traffic(&self, id: IfaceId) -> Counters {
        let has_notifications = self.world().has_notifications;
        let of_history = self.gone.iter().filter(|(uid, _)| has_notifications && self.read.get(uid) == Some(&id));
        of_history.fold(Counters::ZERO, |sum, (uid, actual)| plus(sum, minus(*actual, self.model.seen[uid].actual)))
    }

    fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    /// Changes the links at random, whether a daemon runs or not.
    fn change_links(&mut self) {
        let running = self.is_running();
        let mut guard = self.world();
        let world = &mut *guard;
        let here = world.at;
        let notified = running && world.has_notifications;
        let count = world.namespace().devices.len() as u64;
        let index = if count == 0 { 0 } else { world.below(count) as usize };
        let what = world.below(8);
        let (mut step, mut gone, mut arrived) = (String::new(), None, None);
        match what {
            0 | 1 => {
                let Some(name) = world.free_name(here) else { return };
                let number = world.next_uid;
                let mac = match world.below(3) {
                    0 => String::new(),
                    1 => format!("00:16:3e:77:{:02x}:{:02x}", number / 256, number % 256),
                    _ => format!("02:00:00:00:{:02x}:{:02x}", number / 256, number % 256),
                };
                let has_prior_counters = notified && world.below(2) == 0;
                world.create(here, name, &mac, has_prior_counters);
                arrived = world.namespace().devices.last().cloned();
                step = format!("{name} created, {mac}, prior counters: {has_prior_counters}");
            }
            2 if count > 0 => {
                let device = world.remove_device(here, index);
                step = format!("{} of uid {} removed", device.link.name, device.uid);
                gone = Some(device);
            }
            3 if count > 0 => {
                let Some(name) = world.free_name(here) else { return };
                let before = std::mem::replace(&mut world.namespace().devices[index].link.name, name.to_string());
                step = format!("{before} renamed to {name}");
            }
            4 | 5 if count > 1 => {
                // Two devices swap their names, or all of them rotate.
                let devices = &mut world.namespace().devices;
                let length = devices.len().min(if what == 4 { 2 } else { devices.len() });
                let names: Vec<String> = devices.iter().map(|device| device.link.name.clone()).collect();
                for at in 0..length {
                    devices[at].link.name.clone_from(&names[(at + 1) % length]);
                }
                step = format!("names swapped: {:?}", &names[..length]);
            }
            6 if count > 0 => {
                let number = world.next_uid;
                world.next_uid += 1;
                let device = &mut world.namespace().devices[index];
                device.link.mac = format!("02:11:00:00:{:02x}:{:02x}", number / 256, number % 256);
                step = format!("{} has another address", device.link.name);
            }
            7 => {
                // Moves a device out of the daemon's namespace or into it. It comes in only if it was there before or
                // if the daemon gets its counters in a notification.
                let there = (here.0, 1 - here.1);
                let inwards = count == 0 || world.below(2) == 0;
                let (from, to) = if inwards { (there, here) } else { (here, there) };
                // Without notifications, the daemon can distinguish a link that was moved here from a new one only by
                // its inode, which must be lower than that of another device at the latest sample.
                let sampled = |device: &&Device| self.model.seen.get(&device.uid).is_some_and(|seen| seen.is_latest);
                let here = world.namespace().devices.iter().filter(sampled);
                let newest = here.map(|device| device.link.inode).max().unwrap_or(0);
                let movable = |device: &Device| !inwards || notified || device.link.inode < newest;
                let devices = &world.machines[from.0].namespaces[from.1].devices;
                let Some(index) = devices.iter().position(movable) else { return };
                let taken =
                    |taken: &dyn Fn(&Device) -> bool| world.machines[to.0].namespaces[to.1].devices.iter().any(taken);
                let Device { link, .. } = &devices[index];
                let number_taken = taken(&|other| other.link.ifindex == link.ifindex);
                if taken(&|other| other.link.name == link.name) || (number_taken && inwards && !notified) {
                    return;
                }
                let mut device = world.remove_device(from, index);
                if number_taken {
                    device.link.ifindex = world.machines[to.0].namespaces[to.1].new_ifindex();
                }
                step = format!("{} of uid {} moved, inwards {inwards}", device.link.name, device.uid);
                if inwards {
                    arrived = Some(device.clone());
                } else {
                    gone = Some(device.clone());
                }
                world.add_device(to, device);
            }
            _ => {}
        }
        drop(guard);
        if running {
            if let Some(device) = gone {
                self.gone.push((device.uid, device.actual));
                // If it comes back, it has counted elsewhere in between.
                self.arrived.remove(&device.uid);
            }
            if let Some(device) = arrived {
                self.read.remove(&device.uid);
                self.arrived.insert(device.uid, device.actual);
            }
        }
        self.steps.push(step);
    }

    /// One counter falls while the others rise, for one reading or for good.
    fn dip(&mut self) {
        let (choice, amount, for_good) = (self.below(64), self.below(1 << 40), self.below(2) == 0);
        let place = {
            let mut world = self.world();
            let devices = &mut world.namespace().devices;
            let wide = devices.iter().position(|device| !device.narrow && device.deficit[0] < -1_000_000_000);
            wide.map(|index| (index, devices[index].uid, devices[index].shown()))
        };
        let at = choice as usize % 8;
        let clock_trusted = self.daemon.as_ref().unwrap().live.lock().health.clock_trusted;
        let Some((index, uid, shown)) =
            place.filter(|_| clock_trusted).filter(|(_, uid, shown)| self.read.contains_key(uid) && shown.0[at] > 0)
        else {
            return;
        };
        let amount = 1 + amount % shown.0[at];
        self.steps.push(format!("counter {at} of uid {uid} falls by {amount}, for good: {for_good}"));
        let old = shown.0[at];
        self.world().namespace().devices[index].deficit[at] += i128::from(amount);
        self.world().pass(20_000);
        let low = self.world().namespace().devices[index].shown().0[at];
        self.sample(Some((uid, at, low.saturating_sub(old))));
        if !for_good {
            self.world().namespace().devices[index].deficit[at] -= i128::from(amount);
        }
        self.world().pass(20_000);
        let now = self.world().namespace().devices[index].shown().0[at];
        let base = if low < old && now >= old { old } else { low };
        self.sample(Some((uid, at, now - base)));
        // If the daemon were killed before the next save, the next run would see only less traffic, not the fall.
        self.save();
    }

    fn random_step(&mut self) {
        match self.below(12) {
            0..=3 => {
                self.world().pass(20_000);
                self.change_links();
                self.sample(None);
            }
            4 => self.dip(),
            5 => self.save(),
            what => {
                if self.below(2) == 0 {
                    self.stop();
                } else {
                    self.kill();
                }
                for _ in 0..self.below(4) {
                    let ms = self.below(HOUR_MS as u64) as i64;
                    self.world().pass(ms);
                    self.change_links();
                }
                let mut wrong = false;
                {
                    let mut guard = self.world();
                    let world = &mut *guard;
                    world.boot_is_readable = world.below(8) > 0;
                    match what {
                        6 | 7 => {
                            let ms = world.below(6 * HOUR_MS as u64) as i64;
                            world.pass(ms);
                            let machine = world.at.0;
                            world.boot(machine);
                            world.at.1 = 0;
                            let choice = world.below(4) as usize;
                            world.machines[machine].ahead_ms = [0, 0, -9 * HOUR_MS, 20_000 - world.truth_ms][choice];
                            wrong = choice > 1;
                            // With a battery the clock is right at once, with a network some minutes later.
                            world.pass(MINUTE_MS);
                        }
                        8 => {
                            // A database is not carried to another machine within two minutes.
                            world.pass(3 * MINUTE_MS);
                            world.at.0 = world.below(3) as usize;
                        }
                        9 => world.at.1 = world.below(2) as usize,
                        10 => {
                            // The namespace is recreated, like that of a container at each start.
                            let (machine, namespace) = world.at;
                            world.add_namespace(machine);
                            world.machines[machine].namespaces.swap_remove(namespace);
                        }
                        _ => {}
                    }
                    let step = format!("at {:?}, boot id readable: {}", world.at, world.boot_is_readable);
                    drop(guard);
                    self.steps.push(step);
                }
                let opened_late = self.below(4) == 0;
                self.start(opened_late);
                if wrong {
                    for _ in 0..self.below(4) {
                        self.world().pass(5 * MINUTE_MS);
                        self.sample(None);
                    }
                    let mut world = self.world();
                    let machine = world.at.0;
                    world.machines[machine].ahead_ms = 0;
                    drop(world);
                    self.steps.push("the clock is right now".to_string());
                    self.world().pass(20_000);
                    self.sample(None);
                }
            }
        }
    }

    /// Every resolution, and the export, must have the same sums.
    fn check_resolutions(&mut self) {
        // Long enough that the clock is trusted in any case.
        for _ in 0..15 {
            self.world().pass(5 * MINUTE_MS);
            self.sample(None);
        }
        self.save();
        let daemon = self.daemon.as_ref().unwrap();
        let state = daemon.live.lock();
        assert!(state.unsaved.batch.is_empty(), "{:#?}", self.steps);
        let ifaces: Vec<(IfaceId, Counters)> =
            state.inventory.interfaces.iter().filter_map(|iface| Some((iface.id?, iface.lifetime))).collect();
        drop(state);
        for (id, lifetime) in ifaces.clone() {
            for resolution in [Resolution::Sample, Resolution::FiveMinutes, Resolution::Hour, Resolution::Day] {
                let query = move |reader: &Reader| {
                    Snapshot::of(reader, &Zone::UTC, &[]).unwrap().buckets(resolution, id, 0, i64::MAX).unwrap()
                };
                let buckets = read(&daemon.context, query);
                let sum = buckets.iter().fold(Counters::ZERO, |sum, bucket| plus(sum, bucket.cell.sum));
                assert_eq!(sum, lifetime, "{resolution:?} of {id}: {:#?}", self.steps);
            }
        }
        let all = ifaces.iter().fold(Counters::ZERO, |sum, (_, lifetime)| plus(sum, *lifetime));
        for resolution in ["sample", "5min", "hour", "day"] {
            let target = format!("/api/export/traffic?resolution={resolution}");
            let answer = http::answer(
                &daemon.context,
                &HttpRequest { method: "GET", target: &target, ..HttpRequest::default() },
            );
            let rows: Value = serde_json::from_slice(&answer.body.into_bytes(&daemon.context).unwrap()).unwrap();
            let sum: u64 = rows.as_array().unwrap().iter().map(|row| row["rx_bytes"].as_u64().unwrap()).sum();
            assert_eq!(sum, all.rx_bytes(), "export by {resolution}: {:#?}", self.steps);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.daemon = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn run(seed: u64) {
    let mut rig = Rig::new(seed);
    rig.start(false);
    for _ in 0..40 {
        rig.random_step();
    }
    rig.check_resolutions();
}

#[test]
fn random_changes_of_links_and_machines_count_all_traffic_once() {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let variable = |name: &str| std::env::var(name).ok();
    if let Some(seconds) = variable("NETPULSE_TEST_SECONDS") {
        let (begin, first) =
            (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() << 20);
        let seeds = (first..).take_while(|_| begin.elapsed().as_secs() < number(&seconds)).inspect(|seed| run(*seed));
        return println!("{} seeds from {first} on", seeds.count());
    }
    let (first, last) = match variable("NETPULSE_TEST_SEEDS") {
        None => (1, 60),
        Some(range) => range.split_once("..").map(|(first, last)| (number(first), number(last))).expect("first..last"),
    };
    (first..=last).for_each(run);
}
