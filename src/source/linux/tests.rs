//! Against the real kernel: every test has a network namespace of its own, and a sysfs that shows it. They need root and
//! ip(8); a line that begins with `skipped:` says when they did not run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::model::{Counters, Link, Reading, Width};
use crate::source::{EVENTS_AT_ONCE, LinkEvent};

/// A directory of one test, gone with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("net-pulse-source-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, with the directories above it.
    pub fn file(&self, name: impl AsRef<Path>, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A namespace of the calling thread.
struct Rig {
    sys: PathBuf,
}

impl Rig {
    fn netlink(&self, how: How) -> Netlink {
        Netlink::with(how, 32 * 1024, self.sys.clone()).unwrap()
    }

    fn sysfs(&self) -> Sysfs {
        Sysfs::open(&self.sys, proc_net()).unwrap()
    }

    fn all(&self) -> [Box<dyn Source>; 3] {
        [Box::new(self.netlink(How::GetStats)), Box::new(self.netlink(How::GetLink)), Box::new(self.sysfs())]
    }

    /// The kernel's own table, by name.
    fn proc_net_dev(&self) -> BTreeMap<String, Counters> {
        let text = fs::read_to_string(proc_net().join("dev")).unwrap();
        let lines = text.lines().skip(2).map(|line| {
            let (name, rest) = line.split_once(':').unwrap();
            let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap()).collect();
            (name.trim().to_string(), Counters::of([0, 8, 1, 9, 2, 10, 3, 11].map(|at| fields[at])))
        });
        lines.collect()
    }
}

#[track_caller]
fn ip(arguments: &str) {
    ip_bytes(&arguments.split_whitespace().map(str::as_bytes).collect::<Vec<_>>());
}

#[track_caller]
fn ip_bytes(arguments: &[&[u8]]) {
    let output = Command::new("ip").args(arguments.iter().map(|one| OsStr::from_bytes(one))).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ip_batch(lines: &str) {
    use std::io::Write;
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn pairs(from: usize, count: usize) -> String {
    (from..from + count).map(|at| format!("link add a{at} type veth peer name b{at}\n")).collect()
}

/// Runs a test on a thread of its own in a fresh namespace.
fn in_namespace(test: impl FnOnce(&Rig) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: needs root and ip(8)");
        return;
    }
    let ended = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
            println!("skipped: needs namespaces: {errno}");
            return;
        }
        let scratch = Scratch::new();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("sysfs"), scratch.path(), Some("sysfs"), MsFlags::empty(), none).unwrap();
        // Nothing of its own accord: neighbour discovery and the like would come in between.
        for conf in ["all", "default"] {
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{conf}/disable_ipv6"), "1");
        }
        let rig = Rig { sys: scratch.path().join("class/net") };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&rig)));
        umount2(scratch.path(), MntFlags::MNT_DETACH).unwrap();
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    if let Err(panic) = ended.join() {
        std::panic::resume_unwind(panic);
    }
}

/// va and vb, connected; what is broadcast from 10.77.0.1 leaves by va.
fn cable() {
    ip("link add va type veth peer name vb");
    ip("addr add 10.77.0.1/24 brd + dev va");
    ip("link set va up");
    ip("link set vb up");
    // A link that is up a moment before its queue is drops what it is given.
    let up = |name: &str| {
        let told = Command::new("ip").args(["-o", "link", "show", "dev", name]).output().unwrap();
        String::from_utf8_lossy(&told.stdout).contains("state UP")
    };
    for _ in 0..500 {
        if up("va") && up("vb") {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the cable has no carrier");
}

/// Bytes on the wire of each datagram: Ethernet, IPv4 and UDP headers and the payload.
fn broadcast(count: u64, payload: usize) -> u64 {
    let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    for _ in 0..count {
        socket.send_to(&vec![0; payload], "10.77.0.255:9").unwrap();
    }
    count * (14 + 20 + 8 + payload as u64)
}

fn read(source: &mut dyn Source) -> Vec<Reading> {
    let mut out = vec![Reading { ifindex: 1, counters: Counters::ZERO, width: Width::Bits32 }];
    source.read(&mut out).unwrap();
    out
}

fn named(source: &mut dyn Source) -> BTreeMap<String, Link> {
    source.links().unwrap().into_iter().map(|link| (link.name.clone(), link)).collect()
}

/// What is reported until `enough` says so, for at most five seconds.
fn events_until(source: &mut dyn Source, enough: impl Fn(&[LinkEvent]) -> bool) -> Vec<LinkEvent> {
    let wake = Wake::new().unwrap();
    let mut out = Vec::new();
    for _ in 0..50 {
        source.events(&mut out).unwrap();
        if enough(&out) {
            break;
        }
        source.wait(Duration::from_millis(100), &wake);
    }
    out
}

fn first_seen(events: &[LinkEvent], wanted: u32) -> Option<Counters> {
    events.iter().find_map(|event| match event {
        LinkEvent::Seen { ifindex, counters } if *ifindex == wanted => Some(*counters),
        _ => None,
    })
}

fn changed(events: &[LinkEvent], ifindex: u32) -> bool {
    events.contains(&LinkEvent::Changed { ifindex })
}

/// How often the end of this link was reported.
fn gone(events: &[LinkEvent], wanted: u32) -> usize {
    events.iter().filter(|event| matches!(event, LinkEvent::Gone { ifindex, .. } if *ifindex == wanted)).count()
}

#[test]
fn all_sources_agree_with_the_kernel_to_the_byte() {
    in_namespace(|rig| {
        cable();
        // What does not fit through is dropped at both ends.
        ip("link set vb mtu 600");
        let bytes = broadcast(50, 400);
        broadcast(7, 1000);
        let table = rig.proc_net_dev();
        assert_eq!(table["va"], Counters::of([0, bytes, 0, 50, 0, 0, 0, 7]));
        assert_eq!(table["vb"], Counters::of([bytes, 0, 50, 0, 0, 0, 7, 0]));
        for mut source in rig.all() {
            let names: BTreeMap<u32, String> =
                source.links().unwrap().into_iter().map(|link| (link.ifindex, link.name)).collect();
            let readings = read(source.as_mut());
            assert!(readings.is_sorted_by_key(|reading| reading.ifindex));
            assert!(readings.iter().all(|reading| reading.width == Width::Bits64));
            let got: BTreeMap<String, Counters> =
                readings.iter().map(|reading| (names[&reading.ifindex].clone(), reading.counters)).collect();
            assert_eq!(got, table, "{}", source.name());
        }
    });
}

#[test]
fn links_by_netlink_and_by_sysfs_are_the_same() {
    in_namespace(|rig| {
        cable();
        ip("link add br0 type bridge");
        ip("link set vb master br0");
        ip("link set br0 up");
        ip("link set va alias wan-side mtu 1400");
        ip("link set lo up");
        // The kernel follows the state of a link with a delay of up to a second.
        let mut source = rig.netlink(How::GetStats);
        let settled = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let links = named(&mut source);
            ["lo", "va", "vb", "br0"].iter().all(|name| links[*name].up)
        });
        assert!(settled);
        let by_netlink = named(&mut source);
        assert_eq!(by_netlink, named(&mut rig.netlink(How::GetLink)));
        let mut by_sysfs = named(&mut rig.sysfs());
        assert_eq!(by_netlink["va"].driver, "veth");
        // sysfs has no name for it.
        for name in ["va", "vb"] {
            by_sysfs.get_mut(name).unwrap().driver = "veth".into();
        }
        assert_eq!(by_netlink, by_sysfs);
        let (va, vb, br0, lo) = (&by_netlink["va"], &by_netlink["vb"], &by_netlink["br0"], &by_netlink["lo"]);
        assert_eq!((va.alias.as_str(), va.mtu, va.up, va.mac.len(), va.hardware), ("wan-side", 1400, true, 17, 1));
        assert_eq!((va.master, va.lower, vb.master, vb.lower), (0, 0, br0.ifindex, 0));
        assert_eq!((br0.driver.as_str(), br0.devtype.as_str()), ("bridge", "bridge"));
        assert_eq!((lo.hardware, lo.up, lo.mac.as_str()), (772, true, ""));
        assert_eq!((va.speed, lo.speed), (Some(10_000), None));
        // Each device has a number of its own, and the later the higher.
        assert!(0 < lo.node && lo.node < va.node.min(vb.node) && va.node.max(vb.node) < br0.node);
    });
}

#[test]
fn altnames_are_known_by_netlink_and_their_changes_are_reported() {
    in_namespace(|rig| {
        cable();
        // As long as they may be, and of bytes that a name may not have.
        let longest = "enx".repeat(42) + "0";
        ip_bytes(&[
            b"link",
            b"property",
            b"add",
            b"dev",
            b"va",
            b"altname",
            b"\xffup,*1",
            b"altname",
            longest.as_bytes(),
        ]);
        for how in [How::GetStats, How::GetLink] {
            let links = named(&mut rig.netlink(how));
            assert_eq!(links["va"].altnames, ["\u{fffd}up,*1", &longest]);
            assert_eq!(links["vb"].altnames, [""; 0]);
        }
        assert_eq!(named(&mut rig.sysfs())["va"].altnames, [""; 0]);
        let mut source = rig.netlink(How::GetStats);
        let index = named(&mut source)["va"].ifindex;
        events_until(&mut source, |events| events.is_empty());
        ip_bytes(&[b"link", b"property", b"del", b"dev", b"va", b"altname", b"\xffup,*1"]);
        assert!(changed(&events_until(&mut source, |events| changed(events, index)), index));
        assert_eq!(named(&mut source)["va"].altnames, [longest]);
    });
}

#[test]
fn a_virtual_machines_cables_are_told_apart_by_every_source() {
    in_namespace(|rig| {
        cable();
        ip("link add br0 type bridge");
        ip("link add guest0 link va type macvtap");
        let mut expect = vec![("br0", "bridge", ""), ("guest0", "macvtap", "")];
        if Path::new("/dev/net/tun").exists() {
            ip("tuntap add vnet0 mode tap");
            ip("link set vnet0 master br0");
            ip("tuntap add tap0 mode tap");
            expect.extend([("vnet0", "tun", "bridge"), ("tap0", "tun", "")]);
        } else {
            println!("skipped: needs /dev/net/tun");
        }
        for mut source in rig.all() {
            let links = named(source.as_mut());
            for (name, driver, master) in &expect {
                let link = &links[*name];
                let said = (link.driver.as_str(), link.master_driver.as_str());
                assert_eq!(said, (*driver, *master), "{name} by {}", source.name());
            }
        }
    });
}

#[test]
fn a_sysfs_of_another_namespace_adds_nothing() {
    in_namespace(|rig| {
        cable();
        let elsewhere = Scratch::new();
        elsewhere.file("va/ifindex", "77\n");
        elsewhere.file("va/speed", "100\n");
        let mut source = Netlink::with(How::GetStats, 32 * 1024, elsewhere.path().into()).unwrap();
        assert_eq!(named(&mut source)["va"].speed, None);
        // The same name and number by chance: its device is another all the same.
        elsewhere.file("va/ifindex", &named(&mut source)["va"].ifindex.to_string());
        elsewhere.file("va/address", "02:00:00:00:00:01\n");
        assert_eq!(named(&mut source)["va"].node, 0);
        assert_eq!(named(&mut rig.netlink(How::GetStats))["va"].speed, Some(10_000));
    });
}

#[test]
fn addresses_and_the_default_route() {
    in_namespace(|rig| {
        cable();
        ip("link add vc type veth peer name vd");
        for mut source in rig.all() {
            assert_eq!(source.default_route().unwrap(), None, "{}", source.name());
        }
        ip("link set vc up");
        ip("link set vd up");
        ip("addr add 10.88.0.1/30 dev vc");
        let index = |name: &str| named(&mut rig.netlink(How::GetStats))[name].ifindex;
        ip("route add default via 10.77.0.9 dev va metric 50");
        ip("route add default via 10.88.0.2 dev vc metric 20");
        ip("route add 0.0.0.0/1 via 10.77.0.9 dev va");
        ip("route add default via 10.77.0.9 dev va table 7");
        for mut source in rig.all() {
            assert_eq!(source.default_route().unwrap(), Some(index("vc")), "{}", source.name());
            let got = source.addresses().unwrap();
            let va = got.iter().find(|address| address.ifindex == index("va")).unwrap();
            assert_eq!((va.ip, va.prefix), ("10.77.0.1".parse().unwrap(), 24));
            assert_eq!(va.broadcast, Some("10.77.0.255".parse().unwrap()));
        }
        ip("route del default dev vc");
        for mut source in rig.all() {
            assert_eq!(source.default_route().unwrap(), Some(index("va")), "{}", source.name());
        }
    });
}

#[test]
fn default_routes_are_found_before_the_whole_internet_is_read() {
    in_namespace(|rig| {
        cable();
        let routes = (0..25_000u32).map(|at| format!("route add 20.{}.{}.0/24 dev vb\n", at >> 8, at & 0xff));
        ip_batch(&routes.collect::<String>());
        for expect in [None, Some("va")] {
            if expect.is_some() {
                ip("route add default via 10.77.0.9 dev va metric 50");
            }
            let expect = expect.map(|name| named(&mut rig.netlink(How::GetStats))[name].ifindex);
            for mut source in rig.all() {
                assert_eq!(source.default_route().unwrap(), expect, "{}", source.name());
                assert_eq!(read(source.as_mut()).len(), 3, "{}", source.name());
            }
        }
    });
}

#[test]
fn the_default_route_of_ipv6_counts_where_ipv4_has_none() {
    in_namespace(|rig| {
        if !Path::new("/proc/sys/net/ipv6").exists() {
            println!("skipped: needs IPv6");
            return;
        }
        cable();
        fs::write("/proc/sys/net/ipv6/conf/va/disable_ipv6", "0").unwrap();
        ip("-6 addr add 2001:db8::2/64 dev va nodad");
        ip("-6 route add default via 2001:db8::1 dev va");
        let index = named(&mut rig.netlink(How::GetStats))["va"].ifindex;
        for mut source in rig.all() {
            assert_eq!(source.default_route().unwrap(), Some(index), "{}", source.name());
            let got = source.addresses().unwrap();
            assert!(got.iter().any(|one| one.ip == "2001:db8::2".parse::<std::net::IpAddr>().unwrap()));
        }
    });
}

#[test]
fn e11_creation_rename_and_end_of_a_link_are_reported() {
    in_namespace(|rig| {
        let mut source = rig.netlink(How::GetStats);
        ip("link add va type veth peer name vb");
        let index = named(&mut source)["va"].ifindex;
        let events = events_until(&mut source, |events| first_seen(events, index).is_some());
        assert_eq!(first_seen(&events, index), Some(Counters::ZERO));

        ip("link set va name wan");
        let events = events_until(&mut source, |events| changed(events, index));
        assert!(changed(&events, index), "{events:?}");
        assert_eq!(named(&mut source)["wan"].ifindex, index);

        ip("addr add 10.77.0.1/24 dev wan");
        let events = events_until(&mut source, |events| events.contains(&LinkEvent::Addresses));
        assert!(events.contains(&LinkEvent::Addresses));

        ip("link del wan");
        let events = events_until(&mut source, |events| gone(events, index) > 0);
        assert_eq!(gone(&events, index), 1);
        assert!(!events.contains(&LinkEvent::Lost));
    });
}

#[test]
fn e11_a_link_made_anew_between_two_looks_is_told_from_its_predecessor() {
    in_namespace(|rig| {
        let mut source = rig.netlink(How::GetStats);
        cable();
        let before = named(&mut source)["va"].ifindex;
        broadcast(3, 100);
        ip("link del va");
        cable();
        let after = named(&mut source)["va"].ifindex;
        assert_ne!(before, after);
        let events = events_until(&mut source, |events| first_seen(events, after).is_some());
        assert_eq!(gone(&events, before), 1);
        assert_eq!(first_seen(&events, after), Some(Counters::ZERO));
    });
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_gone() {
    in_namespace(|rig| {
        cable();
        ip("link add br0 type bridge");
        let mut source = rig.netlink(How::GetStats);
        let (vb, br0) = (named(&mut source)["vb"].ifindex, named(&mut source)["br0"].ifindex);
        ip("link set vb master br0");
        assert_eq!(named(&mut source)["vb"].master, br0);
        ip("link set vb nomaster");
        assert_eq!(named(&mut source)["vb"].master, 0);
        // The end of another link comes last: everything before it has been reported by then.
        ip("link del br0");
        let events = events_until(&mut source, |events| gone(events, br0) > 0);
        assert!(gone(&events, br0) == 1 && changed(&events, vb) && first_seen(&events, vb).is_none());
        assert_eq!(gone(&events, vb), 0, "{events:?}");
    });
}

#[test]
fn a_link_that_moves_in_brings_its_counters_along() {
    in_namespace(|rig| {
        cable();
        let bytes = broadcast(5, 300);
        let mut here = rig.netlink(How::GetStats);
        let old = named(&mut here)["va"].ifindex;
        let (ready, wait_ready) = mpsc::channel();
        let (moved, wait_moved) = mpsc::channel();
        let there = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut source = Netlink::with(How::GetStats, 32 * 1024, "/nonexistent".into()).unwrap();
            ready.send(nix::unistd::gettid()).unwrap();
            wait_moved.recv().unwrap();
            let index = named(&mut source)["va"].ifindex;
            first_seen(&events_until(&mut source, |events| first_seen(events, index).is_some()), index)
        });
        ip(&format!("link set va netns {}", wait_ready.recv().unwrap()));
        moved.send(()).unwrap();
        let brought = there.join().unwrap().unwrap();
        assert_eq!((brought.tx_bytes(), brought.0[crate::model::TX_PACKETS]), (bytes, 5));
        assert_eq!(gone(&events_until(&mut here, |events| gone(events, old) > 0), old), 1);
    });
}

#[test]
fn e17_a_thousand_interfaces_are_read_whole_and_buffers_grow() {
    in_namespace(|rig| {
        ip_batch(&pairs(0, 500));
        let expect: Vec<u32> = rig.netlink(How::GetStats).links().unwrap().iter().map(|link| link.ifindex).collect();
        assert_eq!(expect.len(), 1001);
        for mut source in rig.all() {
            let got: Vec<u32> = read(source.as_mut()).iter().map(|reading| reading.ifindex).collect();
            assert_eq!(got, expect, "{}", source.name());
        }
        assert_eq!(named(&mut rig.sysfs()).len(), 1001);
        for how in [How::GetStats, How::GetLink] {
            let mut small = Netlink::with(how, 64, rig.sys.clone()).unwrap();
            assert_eq!(read(&mut small).len(), 1001);
            assert_eq!(small.links().unwrap().len(), 1001);
        }
    });
}

#[test]
fn e17_links_that_come_and_go_during_dumps_cost_no_other_its_reading() {
    in_namespace(|rig| {
        ip_batch(&pairs(0, 200));
        let stable: Vec<u32> = read(&mut rig.netlink(How::GetStats)).iter().map(|reading| reading.ifindex).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let churn = std::thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    ip_batch(&pairs(1000, 5));
                    ip_batch(&(1000..1005).map(|at| format!("link del a{at}\n")).collect::<String>());
                }
            }
        });
        let mut sources = rig.all();
        let mut complete = 0;
        for _ in 0..40 {
            for source in &mut sources {
                let mut out = Vec::new();
                match source.read(&mut out) {
                    Ok(()) => {
                        complete += 1;
                        let all = |ifindex| out.iter().any(|reading| reading.ifindex == ifindex);
                        assert!(stable.iter().copied().all(all), "{}", source.name());
                    }
                    Err(error) => assert_eq!((error.kind, out.len()), (ErrorKind::Transient, 0), "{error}"),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        churn.join().unwrap();
        assert!(complete > 0);
    });
}

#[test]
fn e17_lost_reports_are_told_and_later_ones_come_again() {
    in_namespace(|rig| {
        let mut source = rig.netlink(How::GetStats);
        ip_batch(&pairs(0, 500));
        let lost = |events: &[LinkEvent]| events.contains(&LinkEvent::Lost);
        assert!(lost(&events_until(&mut source, lost)));
        // A storm is not taken in all at once.
        let mut most = 0;
        loop {
            let mut out = Vec::new();
            source.events(&mut out).unwrap();
            if out.is_empty() {
                break;
            }
            most = most.max(out.len());
        }
        assert!((1..=2 * EVENTS_AT_ONCE + 1).contains(&most), "{most}");
        ip("link del a0");
        let gone = |events: &[LinkEvent]| events.iter().any(|event| matches!(event, LinkEvent::Gone { .. }));
        let events = events_until(&mut source, gone);
        assert!(gone(&events) && !lost(&events));
    });
}

#[test]
fn e14_names_of_fifteen_odd_bytes() {
    in_namespace(|rig| {
        let odd: &[u8] = b"\xff~p\xc3\xa4ck.chen+=#";
        assert_eq!(odd.len(), 15);
        ip_bytes(&[b"link", b"add", odd, b"type", b"veth", b"peer", b"name", b"vb"]);
        ip_bytes(&[b"link", b"set", odd, b"up"]);
        ip("link set vb up");
        let expect = String::from_utf8_lossy(odd);
        for mut source in rig.all() {
            let links = named(source.as_mut());
            // The speed is a file below the name's true bytes.
            assert_eq!(links[expect.as_ref()].speed, Some(10_000), "{}", source.name());
            let index = links[expect.as_ref()].ifindex;
            assert!(read(source.as_mut()).iter().any(|reading| reading.ifindex == index));
        }
    });
}

#[test]
fn e18_an_empty_namespace_is_no_error() {
    in_namespace(|rig| {
        for mut source in rig.all() {
            let readings = read(source.as_mut());
            // Loopback cannot be removed.
            assert_eq!(readings.iter().map(|reading| reading.ifindex).collect::<Vec<_>>(), [1]);
            assert_eq!(source.addresses().unwrap(), []);
        }
    });
}

#[test]
fn the_change_of_a_set_of_links_is_seen_without_notifications() {
    in_namespace(|rig| {
        let wake = Wake::new().unwrap();
        let mut deaf = rig.netlink(How::GetStats);
        deaf.stop_listening();
        let mut sources: [Box<dyn Source>; 2] = [Box::new(deaf), Box::new(rig.sysfs())];
        for source in &mut sources {
            let mut look = |change: &str, expect: bool| {
                if !change.is_empty() {
                    ip(change);
                }
                // No file has them.
                let expect = expect && !(change.contains("altname") && source.name() == "sysfs");
                // What netlink is asked for here is names only.
                let expect = expect && !(change.contains("master") && source.name() != "sysfs");
                let woken = source.wait(Duration::ZERO, &wake);
                assert_eq!(woken, Woken { called: false, changed: expect }, "{change}");
                let mut events = Vec::new();
                source.events(&mut events).unwrap();
                assert_eq!(events, if expect { vec![LinkEvent::Lost] } else { vec![] }, "{change}");
            };
            look("", false);
            look("link add va type veth peer name vb", true);
            look("", false);
            look("link set va name vc", true);
            look("link add br9 type bridge", true);
            look("link set vc master br9", true);
            look("link set vc nomaster", true);
            look("link del br9", true);
            look("link set vc up", false);
            look("link property add dev vc altname uplink", true);
            look("link property add dev vc altname enp3s0", true);
            look("link property del dev vc altname uplink", true);
            look("link del vc", true);
            look("", false);
        }
    });
}

#[test]
fn open_takes_the_best_and_what_was_asked_for() {
    #[track_caller]
    fn check(choice: Choice, expect: &str, expect_note: Option<&str>) {
        let (source, note) = open(choice).unwrap();
        assert_eq!((source.name(), note.as_deref()), (expect, expect_note));
    }
    check(Choice::GetLink, "getlink", None);
    check(Choice::Sysfs, "sysfs", Some(NO_REPORTS));
    let (mut source, note) = open(Choice::Auto).unwrap();
    assert_eq!(source.name() == "getstats", note.is_none(), "{note:?}");
    assert!(!read(source.as_mut()).is_empty());
}

#[test]
fn wake_ends_a_wait_once() {
    let wake = Wake::new().unwrap();
    let mut source = Netlink::open(How::GetLink).unwrap();
    let mut wait = |timeout| source.wait(timeout, &wake).called;
    assert!(!wait(Duration::ZERO));
    wake.call();
    wake.clone().call();
    assert!(wait(Duration::from_secs(60)));
    assert!(!wait(Duration::ZERO));
    let other = wake.clone();
    let caller = std::thread::spawn(move || other.call());
    assert!((0..600).any(|_| wait(Duration::from_millis(100))));
    caller.join().unwrap();
}

#[test]
fn waits_are_rounded_up_and_never_overflow() {
    #[track_caller]
    fn check(timeout: Duration, expect_ms: i32) {
        assert_eq!(i32::from(poll_timeout(timeout)), expect_ms);
    }
    check(Duration::ZERO, 0);
    check(Duration::from_nanos(1), 1);
    check(Duration::from_millis(5), 5);
    check(Duration::from_micros(5001), 6);
    check(Duration::from_nanos(1_999_999_999), 2000);
    check(Duration::MAX, 1_000_001_000);
}
