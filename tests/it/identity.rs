//! Whose counters? Machines, boots, network namespaces and links that come, go, exchange their names and look like each
//! other, with a daemon whose database is carried about between them: the real sampler, writer and store against a model
//! that knows what really passed. Whatever happens, a link's bytes are booked to one history, all of them where there was
//! a reading before and after, never more than passed, and every level tells the same.
//!
//! `NETPULSE_TEST_SEEDS=first..last` runs other seeds than those of every day, `NETPULSE_TEST_SECONDS=600` random ones for
//! so long.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::simulated::{memory, read};
use net_pulse::clock::{BUILD_FLOOR, Clock, Now, Zone};
use net_pulse::config::Config;
use net_pulse::error::Result;
use net_pulse::history::{Disk, History, Snapshot};
use net_pulse::http::{self, Ask, Context};
use net_pulse::level::Resolution;
use net_pulse::live::{Earlier, Live};
use net_pulse::model::{Address, COUNTERS, Counters, IfaceId, Link, Reading, Stack, Width};
use net_pulse::sampler::Sampler;
use net_pulse::source::{LinkEvent, Source, Wake, Woken};
use net_pulse::store::{Opened, Options, Reader, Store};
use net_pulse::writer::Writer;
use serde_json::Value;

const NOON: i64 = BUILD_FLOOR + 100 * 86_400;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const NAMES: [&str; 5] = ["eth0", "eth1", "wan", "ppp0", "lan1"];

type Uid = u32;

/// A device of some kernel, and what it has really carried since it was made.
#[derive(Clone, Debug)]
struct Device {
    uid: Uid,
    link: Link,
    passed: Counters,
    /// What each counter shows less than what passed: it stood somewhere at the beginning, or has fallen since.
    less: [i128; COUNTERS],
    narrow: bool,
}

impl Device {
    fn shown(&self) -> Counters {
        Counters(std::array::from_fn(|at| {
            let whole = (i128::from(self.passed.0[at]) - self.less[at]) as u64;
            if self.narrow { whole & u64::from(u32::MAX) } else { whole }
        }))
    }
}

#[derive(Debug, Default)]
struct Namespace {
    cookie: u64,
    /// Older than all others, and of no interest.
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
    /// How much its wall clock is ahead.
    ahead_ms: i64,
    namespaces: Vec<Namespace>,
    next_node: u64,
    next_cookie: u64,
    /// The hardware that is there after each boot.
    hardware: Vec<(String, String)>,
}

#[derive(Debug)]
struct World {
    truth_ms: i64,
    machines: Vec<Machine>,
    next_uid: Uid,
    next_boot: u32,
    random: u64,
    /// Where the daemon is: machine and namespace.
    at: (usize, usize),
    /// For the daemon, where its source has link events.
    reports: Vec<LinkEvent>,
    hears: bool,
    boot_is_readable: bool,
    nodes_are_readable: bool,
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

    fn stack(&self) -> Stack {
        let (machine, namespace) = self.at;
        let Machine { id, boot, namespaces, .. } = &self.machines[machine];
        let boot = if self.boot_is_readable { boot.clone() } else { String::new() };
        Stack { machine: id.clone(), boot, namespace: namespaces[namespace].cookie }
    }

    fn add_machine(&mut self) {
        let number = self.machines.len();
        let hardware = (0..2).map(|at| (NAMES[at].to_string(), format!("00:16:3e:00:{number:02x}:{at:02x}"))).collect();
        // Half of the world has no machine id.
        let id = if number % 2 == 0 { format!("{number:016x}") } else { String::new() };
        let (boot, boot_ms) = (String::new(), self.truth_ms);
        self.machines.push(Machine {
            id,
            boot,
            boot_ms,
            ahead_ms: 0,
            namespaces: Vec::new(),
            next_node: 0,
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
        (machine.next_node, machine.next_cookie) = (100, 0);
        machine.namespaces = Vec::new();
        for _ in 0..2 {
            self.add_namespace(number);
        }
        for (name, mac) in self.machines[number].hardware.clone() {
            self.make((number, 0), &name, &mac, false);
        }
    }

    fn add_namespace(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.next_cookie += 1;
        machine.next_node += 1;
        let (cookie, node) = (machine.next_cookie, machine.next_node);
        let node = if self.nodes_are_readable { node } else { 0 };
        let loopback = Link { ifindex: 1, name: "lo".to_string(), hardware: 772, node, ..Link::default() };
        // Each begins with the same numbers.
        machine.namespaces.push(Namespace { cookie, loopback, devices: Vec::new(), next_ifindex: 2 });
    }

    fn make(&mut self, at: (usize, usize), name: &str, mac: &str, brings: bool) {
        let uid = self.next_uid;
        self.next_uid += 1;
        // What was made elsewhere has counted there. One in three is of a driver that counts to 32 bits, and stands near
        // their top.
        let narrow = brings && self.below(3) == 0;
        let [rx, tx] = [self.below(2_000_000), self.below(2_000_000)]
            .map(|random| if narrow { (1 << 32) - 1 - i128::from(random) } else { 7_000_000_000 + i128::from(random) });
        let mut less = [0; COUNTERS];
        if brings {
            less[..7].copy_from_slice(&[-rx, -tx, -9, -9, 0, 0, -3]);
        }
        let machine = &mut self.machines[at.0];
        machine.next_node += 1;
        let node = if self.nodes_are_readable { machine.next_node } else { 0 };
        let namespace = &mut machine.namespaces[at.1];
        let ifindex = namespace.new_ifindex();
        let link = Link {
            ifindex,
            name: name.to_string(),
            hardware: 1,
            up: true,
            mac: mac.to_string(),
            node,
            ..Link::default()
        };
        let device = Device { uid, link, passed: Counters::ZERO, less, narrow };
        self.enter(at, device);
    }

    /// As the kernel reports it to those who listen in that namespace.
    fn enter(&mut self, at: (usize, usize), device: Device) {
        if self.at == at && self.hears {
            self.reports.push(LinkEvent::Seen { ifindex: device.link.ifindex, counters: device.shown() });
        }
        self.machines[at.0].namespaces[at.1].devices.push(device);
    }

    fn leave(&mut self, at: (usize, usize), index: usize) -> Device {
        let device = self.machines[at.0].namespaces[at.1].devices.remove(index);
        if self.at == at && self.hears {
            self.reports.push(LinkEvent::Gone { ifindex: device.link.ifindex, last: Some(device.shown()) });
        }
        device
    }

    /// Time and traffic, for every link of every machine.
    fn pass(&mut self, ms: i64) {
        self.truth_ms += ms;
        let seeds: Vec<u64> = (0..64).map(|_| self.below(1 << 30)).collect();
        let devices = self.machines.iter_mut().flat_map(|machine| &mut machine.namespaces);
        for (at, device) in devices.flat_map(|namespace| &mut namespace.devices).enumerate() {
            let seed = seeds[at % seeds.len()].wrapping_add(at as u64 * 7919);
            let (packets, frame) = (seed % 40 * (ms as u64 / 1000).min(20), 60 + seed / 64 % 1400);
            let back = packets / 3;
            device.passed.add(&Counters::of([
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
    fn events(&mut self, out: &mut Vec<LinkEvent>) -> Result<()> {
        let mut world = self.0.lock().unwrap();
        out.append(&mut world.reports);
        if !world.hears {
            out.push(LinkEvent::Lost);
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

/// What was last read of a device, and where.
#[derive(Clone, Debug)]
struct Seen {
    passed: Counters,
    id: IfaceId,
    machine: usize,
    stack: Stack,
    name: String,
    mac: String,
    /// What each device had carried then.
    carried: Arc<BTreeMap<Uid, Counters>>,
    /// It was there at the latest sample: nothing else can have taken over its history.
    sure: bool,
}

/// What the model knows at one moment: of the present, or of what is on disk.
#[derive(Clone, Debug, Default)]
struct Ledger {
    seen: BTreeMap<Uid, Seen>,
    lifetimes: BTreeMap<IfaceId, Counters>,
    /// What was counted last of each history.
    latest: BTreeMap<IfaceId, Seen>,
    /// Everything that each device had carried then, seen or not.
    carried: Arc<BTreeMap<Uid, Counters>>,
}

fn carried(world: &World) -> Arc<BTreeMap<Uid, Counters>> {
    let all = world.machines.iter().flat_map(|machine| &machine.namespaces).flat_map(|it| &it.devices);
    Arc::new(all.map(|device| (device.uid, device.passed)).collect())
}

struct Rig {
    world: Arc<Mutex<World>>,
    folder: PathBuf,
    daemon: Option<Daemon>,
    /// As of the latest sample, and as of the latest that is on disk.
    ledger: Ledger,
    saved: Ledger,
    /// Devices that had a reading in this run; what those that came during it, and those that were there at its start, had
    /// carried by then; and what those that have left since the latest sample had carried in the end.
    read: BTreeMap<Uid, IfaceId>,
    came: BTreeMap<Uid, Counters>,
    first: Arc<BTreeMap<Uid, Counters>>,
    left: Vec<(Uid, Counters)>,
    /// A clock that was wrong was believed: when something was is no longer known.
    misled: bool,
    /// First readings that wait for the clock: what they are worth, and whether it has to be booked.
    owed: BTreeMap<IfaceId, (Vec<Counters>, bool)>,
    told: Vec<String>,
}

fn minus(after: Counters, before: Counters) -> Counters {
    Counters(std::array::from_fn(|at| after.0[at].checked_sub(before.0[at]).expect("nothing that was booked goes")))
}

fn plus(mut one: Counters, other: Counters) -> Counters {
    one.add(&other);
    one
}

impl Rig {
    fn new(seed: u64) -> Rig {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = memory().join(format!("net-pulse-identity-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut world = World {
            truth_ms: NOON * 1000,
            machines: Vec::new(),
            next_uid: 1,
            next_boot: 0,
            random: 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed),
            at: (0, 0),
            reports: Vec::new(),
            hears: seed % 3 != 0,
            boot_is_readable: true,
            nodes_are_readable: seed % 4 != 0,
        };
        world.below(1);
        for _ in 0..3 {
            world.add_machine();
            world.pass(HOUR_MS);
        }
        // One with a long past.
        world.make((0, 0), "wan", "00:16:3e:99:00:01", true);
        world.pass(HOUR_MS);
        let ledger = Ledger { carried: carried(&world), ..Ledger::default() };
        Rig {
            world: Arc::new(Mutex::new(world)),
            folder,
            daemon: None,
            ledger: ledger.clone(),
            saved: ledger,
            read: BTreeMap::new(),
            came: BTreeMap::new(),
            first: Arc::default(),
            left: Vec::new(),
            misled: false,
            owed: BTreeMap::new(),
            told: vec![format!("seed {seed}")],
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn below(&self, bound: u64) -> u64 {
        self.world().below(bound)
    }

    fn start(&mut self, late: bool) {
        assert!(self.daemon.is_none());
        let stack = self.world().stack();
        self.told.push(format!("start on {stack:?}, late: {late}, clock {} s ahead", {
            let world = self.world();
            world.machines[world.at.0].ahead_ms / 1000
        }));
        self.world().reports.clear();
        (self.read, self.came, self.owed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let first = carried(&self.world());
        self.first = first;
        self.left.clear();
        let path = self.folder.join("history.db");
        let opened = Store::open(&path, &Options { max_bytes: 32 << 20 }).unwrap();
        assert!(opened.events.is_empty(), "{:?}", opened.events);
        let config = Config::saved(&[
            ("interval", "3600"),
            ("flush", "3600"),
            ("interfaces", &NAMES.join(",")),
            ("primary", "eth0"),
        ]);
        let live = Arc::new(Live::new(config, Zone::UTC));
        let clock = Arc::new(Kernel(self.world.clone()));
        let Opened { store, records, settings, next_seq, newest, .. } = opened;
        let earlier = Earlier { records, settings, next_seq, newest };
        let reader = store.reader().unwrap();
        if !late {
            live.lock().recall(earlier.clone());
        }
        let reopen = Box::new(|| unreachable!("the simulated kernel never breaks"));
        let source = Box::new(Kernel(self.world.clone()));
        let sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), stack);
        let context = Context {
            live: live.clone(),
            history: History::new(live.clone(), Some(reader)),
            copying: Disk::named("copy"),
            clock: clock.clone(),
            database: path,
            machine: Arc::new(net_pulse::model::Machine::default),
            find_zone: Arc::new(|name| Ok(Zone::find(Some(name), None, |_| None)?.zone)),
            listening: Vec::new(),
            guard: http::Guard::new(self.folder.clone(), None, false, false),
            notes: http::Notes::default(),
        };
        let writer = Writer::new(live.clone(), store, clock);
        self.daemon = Some(Daemon { live, sampler, context, writer: Some(writer) });
        match late {
            // Its numbers mean nothing until it has joined: what it has counted by then is judged as one.
            true => {
                self.turn();
                for _ in 0..self.below(3) {
                    self.world().pass(20_000);
                    self.turn();
                }
                self.daemon.as_ref().unwrap().live.lock().recall(earlier);
                self.sample(None);
            }
            false => self.sample(None),
        }
    }

    /// Hears of the links, and looks at them: at once, or a second after the look before. Then takes one sample.
    fn turn(&mut self) {
        let daemon = self.daemon.as_mut().unwrap();
        daemon.sampler.step(Woken { called: false, changed: true });
        self.world.lock().unwrap().truth_ms += 1000;
        assert!(daemon.live.collect(Duration::ZERO).is_none());
        daemon.sampler.step(Woken::default());
    }

    fn sample(&mut self, dipped: Option<(Uid, usize, u64)>) {
        self.turn();
        self.judge(dipped);
        if self.daemon.as_ref().unwrap().live.lock().wishes.save_now {
            self.save();
        }
    }

    fn save(&mut self) {
        let daemon = self.daemon.as_mut().unwrap();
        daemon.writer.as_mut().unwrap().save().unwrap();
        if daemon.live.lock().unsaved.batch.is_empty() {
            self.saved = self.ledger.clone();
        }
    }

    /// As SIGTERM does it.
    fn stop(&mut self) {
        self.told.push("stop".to_string());
        self.world().pass(20_000);
        let Daemon { live, sampler, context, writer, .. } = self.daemon.take().unwrap();
        live.lock().wishes.stopping = true;
        sampler.run(&Wake::new().unwrap());
        self.judge_state(&live, None);
        writer.unwrap().finish();
        if live.lock().unsaved.batch.is_empty() {
            self.saved = self.ledger.clone();
        }
        drop(context);
        self.ledger = self.saved.clone();
    }

    fn kill(&mut self) {
        self.told.push("kill".to_string());
        self.daemon = None;
        self.ledger = self.saved.clone();
    }

    fn judge(&mut self, dipped: Option<(Uid, usize, u64)>) {
        let live = self.daemon.as_ref().unwrap().live.clone();
        self.judge_state(&live, dipped);
    }

    /// Compares the sampler's figures with what has passed since the latest sample of each device.
    fn judge_state(&mut self, live: &Live, dipped: Option<(Uid, usize, u64)>) {
        let (devices, stack, machine, right) = {
            let mut world = self.world();
            let (stack, machine) = (world.stack(), world.at.0);
            (world.namespace().devices.clone(), stack, machine, world.machines[machine].ahead_ms == 0)
        };
        let story = format!("{:#?}", self.told);
        let state = live.lock();
        let lifetimes: BTreeMap<IfaceId, Counters> =
            state.inventory.interfaces.iter().filter_map(|iface| Some((iface.id?, iface.lifetime))).collect();
        let believed = state.health.clock_believed;
        self.misled |= believed && !right;
        let carried = carried(&self.world());
        let mut ids = BTreeSet::new();
        let mut others = self.ledger.lifetimes.clone();
        let (mut seen, mut latest) = (self.ledger.seen.clone(), self.ledger.latest.clone());
        seen.values_mut().for_each(|seen| seen.sure = false);
        for device in &devices {
            let told = || format!("{} (uid {}) in {story}", device.link.name, device.uid);
            let Device { uid, link, passed, .. } = device;
            let mut shown = state.inventory.interfaces.iter().filter(|iface| iface.ifindex == link.ifindex);
            let iface = shown.next().unwrap_or_else(|| panic!("not shown: {}", told()));
            assert!(shown.next().is_none(), "shown twice: {}", told());
            // Nothing has ever moved on it.
            let Some(id) = iface.id else { continue };
            let before = self.ledger.lifetimes.get(&id).copied().unwrap_or_default();
            let delta = minus(iface.lifetime, before);
            let mut choices = self.choices(device, &stack, id, believed);
            if let Some((_, at, expect)) = dipped.filter(|(of, ..)| of == uid) {
                choices.iter_mut().for_each(|choice| choice.0[at] = expect);
            }
            // A first reading that has waited for the clock is booked now, or not.
            if let Some((owed, strictly)) = if believed { self.owed.remove(&id) } else { None } {
                let with = choices.iter().flat_map(|choice| owed.iter().map(|owed| plus(*choice, *owed))).collect();
                choices = if strictly && !self.misled { with } else { [choices, with].concat() };
            }
            let tail = self.tail(id);
            let choices: Vec<Counters> = choices.into_iter().map(|choice| plus(choice, tail)).collect();
            let least = Counters(std::array::from_fn(|at| choices.iter().map(|it| it.0[at]).min().unwrap_or(0)));
            let most = Counters(std::array::from_fn(|at| choices.iter().map(|it| it.0[at]).max().unwrap_or(0)));
            // Without a boot id, the difference to a history of an unknown boot is the least that has passed.
            let nameless = |seen: &Seen| seen.stack.boot.is_empty() && (seen.name == link.name || seen.mac == link.mac);
            // Nor does anything tell, without its device, a link from one that had its name and number: then some of its counters
            // may have fallen, and others not.
            let loose = !self.read.contains_key(uid)
                && (stack.boot.is_empty() || link.node == 0 || self.ledger.latest.values().any(nameless))
                && (0..COUNTERS).all(|at| (least.0[at]..=most.0[at]).contains(&delta.0[at]));
            assert!(loose || choices.contains(&delta), "booked {delta:?}, passed {choices:?}: {}", told());
            others.remove(&id);
            assert!(ids.insert(id), "two with one history: {}", told());
            self.read.insert(*uid, id);
            let Link { name, mac, .. } = link.clone();
            let (passed, stack, carried) = (*passed, stack.clone(), carried.clone());
            let now = Seen { passed, id, machine, stack, name, mac, carried, sure: true };
            latest.insert(id, now.clone());
            seen.insert(*uid, now);
        }
        // Of the others nothing was counted, but for what links that have left told last.
        for (id, before) in others {
            let after = lifetimes.get(&id).copied().unwrap_or(before);
            let owed = self.owed.get(&id).filter(|_| believed).map_or(&[][..], |(owed, _)| owed);
            let (delta, tail) = (minus(after, before), self.tail(id));
            let right = delta == tail || owed.iter().any(|owed| delta == plus(tail, *owed));
            assert!(right, "absent {id}: {delta:?} of {tail:?} and {owed:?}: {story}");
        }
        self.left.clear();
        drop(state);
        self.ledger = Ledger { seen, lifetimes, latest, carried };
    }

    /// What may be booked for a device: one of these, whole.
    fn choices(&mut self, device: &Device, stack: &Stack, id: IfaceId, believed: bool) -> Vec<Counters> {
        let Device { uid, link, passed, .. } = device;
        let since = |before: Option<&Counters>| minus(*passed, before.copied().unwrap_or_default());
        let carried = self.ledger.carried.get(uid);
        let seen = self.ledger.seen.get(uid);
        if self.read.contains_key(uid) {
            return vec![since(seen.map(|seen| &seen.passed))];
        }
        let hears = self.world().hears;
        if let Some(came) = self.came.get(uid) {
            // Without reports of links, one that came is known to be new, or to be one that was counted before, or it begins
            // with its first reading.
            return match (hears, seen) {
                (true, _) => vec![since(Some(came))],
                (false, None) => vec![Counters::ZERO, since(carried)],
                (false, Some(seen)) => vec![Counters::ZERO, since(Some(&seen.passed))],
            };
        }
        let first = since(self.first.get(uid));
        if let Some(seen) = seen {
            let exact = since(Some(&seen.passed));
            let same_boot = !stack.boot.is_empty() && stack.boot == seen.stack.boot;
            let named = seen.name == link.name || seen.mac.is_empty() || link.mac.is_empty() || seen.mac == link.mac;
            let known = link.node != 0 || (seen.stack.namespace == stack.namespace && named);
            return if same_boot && seen.sure && known { vec![exact] } else { vec![first, exact] };
        }
        // Since the latest sample of all, or since that of a history that it may go on with.
        let alike = |latest: &&Seen| latest.id == id || latest.name == link.name || latest.mac == link.mac;
        let latest = self.ledger.latest.values().filter(alike).map(|latest| latest.carried.get(uid));
        let whole: Vec<Counters> = [carried].into_iter().chain(latest).map(since).collect();
        let strictly = self.is_after_a_reboot(device, stack, id);
        if stack.boot.is_empty() || !believed {
            let owed = whole.iter().map(|whole| minus(*whole, first)).collect();
            self.owed.insert(id, (owed, strictly));
        }
        // A smaller monotonic clock tells of a new boot, and so may the numbers of links: without waiting.
        let nothing = (!strictly || self.misled || !believed).then_some(first);
        nothing.into_iter().chain(whole).collect()
    }

    /// A piece of hardware that was there before the machine was started anew, and whose history no other can claim.
    fn is_after_a_reboot(&self, device: &Device, stack: &Stack, id: IfaceId) -> bool {
        let machine = self.world().at.0;
        let Link { name, mac, .. } = &device.link;
        let mut alike =
            self.ledger.seen.values().filter(|seen| seen.name == *name || seen.mac == *mac || seen.id == id);
        let before = alike.next();
        let same = |seen: &&Seen| {
            (&seen.name, &seen.mac, seen.machine, seen.sure, seen.id) == (name, mac, machine, true, id)
                && ![&String::new(), &stack.boot].contains(&&seen.stack.boot)
        };
        !stack.boot.is_empty() && before.filter(same).is_some() && alike.next().is_none()
    }

    /// What links that have left have carried since their latest sample, where they told of it.
    fn tail(&self, id: IfaceId) -> Counters {
        let hears = self.world().hears;
        let mine = self.left.iter().filter(|(uid, _)| hears && self.read.get(uid) == Some(&id));
        mine.fold(Counters::ZERO, |sum, (uid, passed)| plus(sum, minus(*passed, self.ledger.seen[uid].passed)))
    }

    fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    /// Something happens to the links, whether somebody looks or not.
    fn happen(&mut self) {
        let running = self.is_running();
        let mut guard = self.world();
        let world = &mut *guard;
        let here = world.at;
        let tells = running && world.hears;
        let count = world.namespace().devices.len() as u64;
        let index = if count == 0 { 0 } else { world.below(count) as usize };
        let what = world.below(8);
        let (mut told, mut left, mut came) = (String::new(), None, None);
        match what {
            0 | 1 => {
                let Some(name) = world.free_name(here) else { return };
                let number = world.next_uid;
                let mac = match world.below(3) {
                    0 => String::new(),
                    1 => format!("00:16:3e:77:{:02x}:{:02x}", number / 256, number % 256),
                    _ => format!("02:00:00:00:{:02x}:{:02x}", number / 256, number % 256),
                };
                let brings = tells && world.below(2) == 0;
                world.make(here, name, &mac, brings);
                came = world.namespace().devices.last().cloned();
                told = format!("{name} made, {mac}, brings {brings}");
            }
            2 if count > 0 => {
                let device = world.leave(here, index);
                told = format!("{} of uid {} removed", device.link.name, device.uid);
                left = Some(device);
            }
            3 if count > 0 => {
                let Some(name) = world.free_name(here) else { return };
                let before = std::mem::replace(&mut world.namespace().devices[index].link.name, name.to_string());
                told = format!("{before} renamed to {name}");
            }
            4 | 5 if count > 1 => {
                // All of them in a circle, or two.
                let devices = &mut world.namespace().devices;
                let length = devices.len().min(if what == 4 { 2 } else { devices.len() });
                let names: Vec<String> = devices.iter().map(|device| device.link.name.clone()).collect();
                for at in 0..length {
                    devices[at].link.name.clone_from(&names[(at + 1) % length]);
                }
                told = format!("names exchanged: {:?}", &names[..length]);
            }
            6 if count > 0 => {
                let number = world.next_uid;
                world.next_uid += 1;
                let device = &mut world.namespace().devices[index];
                device.link.mac = format!("02:11:00:00:{:02x}:{:02x}", number / 256, number % 256);
                told = format!("{} has another address", device.link.name);
            }
            7 => {
                // Out of here, or in: then it was here before, or the daemon is told what it brings along.
                let there = (here.0, 1 - here.1);
                let inwards = count == 0 || world.below(2) == 0;
                let (from, to) = if inwards { (there, here) } else { (here, there) };
                // Without reports, only its device tells a link that was moved here from one that was made: if that is older
                // than another one that was here at the latest sample.
                let sampled = |device: &&Device| self.ledger.seen.get(&device.uid).is_some_and(|seen| seen.sure);
                let here = world.namespace().devices.iter().filter(sampled);
                let newest = here.map(|device| device.link.node).max().unwrap_or(0);
                let movable = |device: &Device| !inwards || tells || device.link.node < newest;
                let devices = &world.machines[from.0].namespaces[from.1].devices;
                let Some(index) = devices.iter().position(movable) else { return };
                let taken =
                    |taken: &dyn Fn(&Device) -> bool| world.machines[to.0].namespaces[to.1].devices.iter().any(taken);
                let Device { link, .. } = &devices[index];
                let number_taken = taken(&|other| other.link.ifindex == link.ifindex);
                if taken(&|other| other.link.name == link.name) || (number_taken && inwards && !tells) {
                    return;
                }
                let mut device = world.leave(from, index);
                if number_taken {
                    device.link.ifindex = world.machines[to.0].namespaces[to.1].new_ifindex();
                }
                told = format!("{} of uid {} moved, inwards {inwards}", device.link.name, device.uid);
                if inwards {
                    came = Some(device.clone());
                } else {
                    left = Some(device.clone());
                }
                world.enter(to, device);
            }
            _ => {}
        }
        drop(guard);
        if running {
            if let Some(device) = left {
                self.left.push((device.uid, device.passed));
                // Should it come back, it has counted elsewhere meanwhile.
                self.came.remove(&device.uid);
            }
            if let Some(device) = came {
                self.read.remove(&device.uid);
                self.came.insert(device.uid, device.passed);
            }
        }
        self.told.push(told);
    }

    /// One counter falls while the others go on, for a reading or for good.
    fn dip(&mut self) {
        let (choice, amount, for_good) = (self.below(64), self.below(1 << 40), self.below(2) == 0);
        let place = {
            let mut world = self.world();
            let devices = &mut world.namespace().devices;
            let wide = devices.iter().position(|device| !device.narrow && device.less[0] < -1_000_000_000);
            wide.map(|index| (index, devices[index].uid, devices[index].shown()))
        };
        let at = choice as usize % 8;
        let believed = self.daemon.as_ref().unwrap().live.lock().health.clock_believed;
        let Some((index, uid, shown)) =
            place.filter(|_| believed).filter(|(_, uid, shown)| self.read.contains_key(uid) && shown.0[at] > 0)
        else {
            return;
        };
        let amount = 1 + amount % shown.0[at];
        self.told.push(format!("counter {at} of uid {uid} falls by {amount}, for good: {for_good}"));
        let old = shown.0[at];
        self.world().namespace().devices[index].less[at] += i128::from(amount);
        self.world().pass(20_000);
        let low = self.world().namespace().devices[index].shown().0[at];
        self.sample(Some((uid, at, low.saturating_sub(old))));
        if !for_good {
            self.world().namespace().devices[index].less[at] -= i128::from(amount);
        }
        self.world().pass(20_000);
        let now = self.world().namespace().devices[index].shown().0[at];
        let base = if low < old && now >= old { old } else { low };
        self.sample(Some((uid, at, now - base)));
        // A start after a cut would not see that it fell, only that less has passed.
        self.save();
    }

    fn act(&mut self) {
        match self.below(12) {
            0..=3 => {
                self.world().pass(20_000);
                self.happen();
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
                    self.happen();
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
                            // A battery says so at once, a network some minutes later.
                            world.pass(MINUTE_MS);
                        }
                        8 => {
                            // A database is not carried to another machine within two minutes.
                            world.pass(3 * MINUTE_MS);
                            world.at.0 = world.below(3) as usize;
                        }
                        9 => world.at.1 = world.below(2) as usize,
                        10 => {
                            // The namespace is made anew, as a container's is at each of its starts.
                            let (machine, namespace) = world.at;
                            world.add_namespace(machine);
                            world.machines[machine].namespaces.swap_remove(namespace);
                        }
                        _ => {}
                    }
                    let told = format!("at {:?}, boot id readable: {}", world.at, world.boot_is_readable);
                    drop(guard);
                    self.told.push(told);
                }
                let late = self.below(4) == 0;
                self.start(late);
                if wrong {
                    for _ in 0..self.below(4) {
                        self.world().pass(5 * MINUTE_MS);
                        self.sample(None);
                    }
                    let mut world = self.world();
                    let machine = world.at.0;
                    world.machines[machine].ahead_ms = 0;
                    drop(world);
                    self.told.push("the clock is right now".to_string());
                    self.world().pass(20_000);
                    self.sample(None);
                }
            }
        }
    }

    /// Whatever was booked stands in every level, and in the export.
    fn check_levels(&mut self) {
        // Until the clock has been believed for whatever reason.
        for _ in 0..15 {
            self.world().pass(5 * MINUTE_MS);
            self.sample(None);
        }
        self.save();
        let daemon = self.daemon.as_ref().unwrap();
        let state = daemon.live.lock();
        assert!(state.unsaved.batch.is_empty(), "{:#?}", self.told);
        let ifaces: Vec<(IfaceId, Counters)> =
            state.inventory.interfaces.iter().filter_map(|iface| Some((iface.id?, iface.lifetime))).collect();
        drop(state);
        for (id, lifetime) in ifaces.clone() {
            for level in [Resolution::Sample, Resolution::FiveMinutes, Resolution::Hour, Resolution::Day] {
                let question = move |reader: &Reader| {
                    Snapshot::of(reader, &Zone::UTC, &[]).unwrap().buckets(level, id, 0, i64::MAX).unwrap()
                };
                let buckets = read(&daemon.context, question);
                let sum = buckets.iter().fold(Counters::ZERO, |sum, bucket| plus(sum, bucket.cell.sum));
                assert_eq!(sum, lifetime, "{level:?} of {id}: {:#?}", self.told);
            }
        }
        let all = ifaces.iter().fold(Counters::ZERO, |sum, (_, lifetime)| plus(sum, *lifetime));
        for resolution in ["sample", "5min", "hour", "day"] {
            let target = format!("/api/export/traffic?resolution={resolution}");
            let answer = http::answer(&daemon.context, &Ask { method: "GET", target: &target, ..Ask::default() });
            let rows: Value = serde_json::from_slice(&answer.body.whole(&daemon.context).unwrap()).unwrap();
            let sum: u64 = rows.as_array().unwrap().iter().map(|row| row["rx_bytes"].as_u64().unwrap()).sum();
            assert_eq!(sum, all.rx_bytes(), "export by {resolution}: {:#?}", self.told);
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
        rig.act();
    }
    rig.check_levels();
}

#[test]
fn whatever_happens_to_links_and_machines_what_passed_is_booked_once() {
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
