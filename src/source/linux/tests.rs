//! Tests of the Linux backends with the real kernel. Most tests run in their own network namespace, with a sysfs of it.
//! These tests need root and ip(8); without them they print a line that begins with `skipped:`.

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
use crate::source::{LinkNotification, NOTIFICATIONS_AT_ONCE};

/// A temporary directory of one test, removed at the end.
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

    /// Writes a file and creates the directories above it.
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

/// The network namespace of the calling thread, with its sysfs.
struct TestNamespace {
    sys: PathBuf,
}

impl TestNamespace {
    fn netlink(&self, kind: DumpKind) -> Netlink {
        Netlink::with(kind, 32 * 1024, self.sys.clone()).unwrap()
    }

    fn sysfs(&self) -> Sysfs {
        Sysfs::open(&self.sys, proc_net()).unwrap()
    }

    fn all_sources(&self) -> [Box<dyn Source>; 3] {
        [Box::new(self.netlink(DumpKind::GetStats)), Box::new(self.netlink(DumpKind::GetLink)), Box::new(self.sysfs())]
    }

    /// The counters in /proc/net/dev, by name.
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
    let output =
        Command::new("ip").args(arguments.iter().map(|argument| OsStr::from_bytes(argument))).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ip_batch(lines: &str) {
    use std::io::Write;
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn veth_pairs(from: usize, count: usize) -> String {
    (from..from + count).map(|at| format!("link add a{at} type veth peer name b{at}\n")).collect()
}

/// Runs a test on a thread with a new network namespace.
fn in_namespace(test: impl FnOnce(&TestNamespace) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: needs root and ip(8)");
        return;
    }
    let result = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
            println!("skipped: needs namespaces: {errno}");
            return;
        }
        let scratch = Scratch::new();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("sysfs"), scratch.path(), Some("sysfs"), MsFlags::empty(), none).unwrap();
        // IPv6 would send packets of its own (neighbour discovery), and the tests count packets.
        for conf in ["all", "default"] {
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{conf}/disable_ipv6"), "1");
        }
        let namespace = TestNamespace { sys: scratch.path().join("class/net") };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&namespace)));
        umount2(scratch.path(), MntFlags::MNT_DETACH).unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    if let Err(panic) = result.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Creates the veth pair va and vb. Broadcasts from 10.77.0.1 leave through va.
fn create_cable() {
    ip("link add va type veth peer name vb");
    ip("addr add 10.77.0.1/24 brd + dev va");
    ip("link set va up");
    ip("link set vb up");
    // A link may be up a moment before its queue is, and drops packets in between.
    let up = |name: &str| {
        let output = Command::new("ip").args(["-o", "link", "show", "dev", name]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("state UP")
    };
    for _ in 0..500 {
        if up("va") && up("vb") {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the cable has no carrier");
}

/// Sends broadcasts and returns their bytes on the wire: Ethernet, IPv4 and UDP headers and payload.
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

fn links_by_name(source: &mut dyn Source) -> BTreeMap<String, Link> {
    source.links().unwrap().into_iter().map(|link| (link.name.clone(), link)).collect()
}

/// Collects notifications until `done` returns true, for at most five seconds.
fn notifications_until(source: &mut dyn Source, done: impl Fn(&[LinkNotification]) -> bool) -> Vec<LinkNotification> {
    let wake = Wake::new().unwrap();
    let mut out = Vec::new();
    for _ in 0..50 {
        source.notifications(&mut out).unwrap();
        if done(&out) {
            break;
        }
        source.wait(Duration::from_millis(100), &wake);
    }
    out
}

fn added_counters(notifications: &[LinkNotification], wanted: u32) -> Option<Counters> {
    notifications.iter().find_map(|notification| match notification {
        LinkNotification::Added { ifindex, counters } if *ifindex == wanted => Some(*counters),
        _ => None,
    })
}

fn changed(notifications: &[LinkNotification], ifindex: u32) -> bool {
    notifications.contains(&LinkNotification::Changed { ifindex })
}

/// How often the removal of this link was reported.
fn gone(notifications: &[LinkNotification], wanted: u32) -> usize {
    notifications
        .iter()
        .filter(|notification| matches!(notification, LinkNotification::Gone { ifindex, .. } if *ifindex == wanted))
        .count()
}

#[test]
fn all_sources_agree_with_the_kernel_to_the_byte() {
    in_namespace(|namespace| {
        create_cable();
        // Both ends count a packet larger than this as dropped.
        ip("link set vb mtu 600");
        let bytes = broadcast(50, 400);
        broadcast(7, 1000);
        let table = namespace.proc_net_dev();
        assert_eq!(table["va"], Counters::of([0, bytes, 0, 50, 0, 0, 0, 7]));
        assert_eq!(table["vb"], Counters::of([bytes, 0, 50, 0, 0, 0, 7, 0]));
        for mut source in namespace.all_sources() {
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
fn netlink_and_sysfs_return_the_same_links() {
    in_namespace(|namespace| {
        create_cable();
        ip("link add br0 type bridge");
        ip("link set vb master br0");
        ip("link set br0 up");
        ip("link set va alias wan-side mtu 1400");
        ip("link set lo up");
        // The kernel updates the state of a link with a delay of up to a second.
        let mut source = namespace.netlink(DumpKind::GetStats);
        let settled = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let links = links_by_name(&mut source);
            ["lo", "va", "vb", "br0"].iter().all(|name| links[*name].up)
        });
        assert!(settled);
        let by_netlink = links_by_name(&mut source);
        assert_eq!(by_netlink, links_by_name(&mut namespace.netlink(DumpKind::GetLink)));
        let mut by_sysfs = links_by_name(&mut namespace.sysfs());
        assert_eq!(by_netlink["va"].driver, "veth");
        // sysfs does not show this driver.
        for name in ["va", "vb"] {
            by_sysfs.get_mut(name).unwrap().driver = "veth".into();
        }
        assert_eq!(by_netlink, by_sysfs);
        let (va, vb, br0, lo) = (&by_netlink["va"], &by_netlink["vb"], &by_netlink["br0"], &by_netlink["lo"]);
        assert_eq!((va.alias.as_str(), va.mtu, va.up, va.mac.len(), va.hardware_type), ("wan-side", 1400, true, 17, 1));
        assert_eq!((va.master, va.lower, vb.master, vb.lower), (0, 0, br0.ifindex, 0));
        assert_eq!((br0.driver.as_str(), br0.devtype.as_str()), ("bridge", "bridge"));
        assert_eq!((lo.hardware_type, lo.up, lo.mac.as_str()), (772, true, ""));
        assert_eq!((va.speed, lo.speed), (Some(10_000), None));
        // Each device has its own inode, and a later device has a higher one.
        assert!(0 < lo.inode && lo.inode < va.inode.min(vb.inode) && va.inode.max(vb.inode) < br0.inode);
    });
}

#[test]
fn netlink_returns_altnames_and_reports_their_changes() {
    in_namespace(|namespace| {
        create_cable();
        // An altname of the maximum length, and one with bytes that a name may not have.
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
        for kind in [DumpKind::GetStats, DumpKind::GetLink] {
            let links = links_by_name(&mut namespace.netlink(kind));
            assert_eq!(links["va"].altnames, ["\u{fffd}up,*1", &longest]);
            assert_eq!(links["vb"].altnames, [""; 0]);
        }
        assert_eq!(links_by_name(&mut namespace.sysfs())["va"].altnames, [""; 0]);
        let mut source = namespace.netlink(DumpKind::GetStats);
        let index = links_by_name(&mut source)["va"].ifindex;
        notifications_until(&mut source, |notifications| notifications.is_empty());
        ip_bytes(&[b"link", b"property", b"del", b"dev", b"va", b"altname", b"\xffup,*1"]);
        assert!(changed(&notifications_until(&mut source, |notifications| changed(notifications, index)), index));
        assert_eq!(links_by_name(&mut source)["va"].altnames, [longest]);
    });
}

#[test]
fn every_source_returns_the_drivers_of_virtual_machine_links() {
    in_namespace(|namespace| {
        create_cable();
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
        for mut source in namespace.all_sources() {
            let links = links_by_name(source.as_mut());
            for (name, driver, master) in &expect {
                let link = &links[*name];
                let drivers = (link.driver.as_str(), link.master_driver.as_str());
                assert_eq!(drivers, (*driver, *master), "{name} by {}", source.name());
            }
        }
    });
}

#[test]
fn a_sysfs_of_another_namespace_is_ignored() {
    in_namespace(|namespace| {
        create_cable();
        let elsewhere = Scratch::new();
        elsewhere.file("va/ifindex", "77\n");
        elsewhere.file("va/speed", "100\n");
        let mut source = Netlink::with(DumpKind::GetStats, 32 * 1024, elsewhere.path().into()).unwrap();
        assert_eq!(links_by_name(&mut source)["va"].speed, None);
        // The same name and number by chance, but another device.
        elsewhere.file("va/ifindex", &links_by_name(&mut source)["va"].ifindex.to_string());
        elsewhere.file("va/address", "02:00:00:00:00:01\n");
        assert_eq!(links_by_name(&mut source)["va"].inode, 0);
        assert_eq!(links_by_name(&mut namespace.netlink(DumpKind::GetStats))["va"].speed, Some(10_000));
    });
}

#[test]
fn addresses_and_the_default_route() {
    in_namespace(|namespace| {
        create_cable();
        ip("link add vc type veth peer name vd");
        for mut source in namespace.all_sources() {
            assert_eq!(source.default_route().unwrap(), None, "{}", source.name());
        }
        ip("link set vc up");
        ip("link set vd up");
        ip("addr add 10.88.0.1/30 dev vc");
        let index = |name: &str| links_by_name(&mut namespace.netlink(DumpKind::GetStats))[name].ifindex;
        ip("route add default via 10.77.0.9 dev va metric 50");
        ip("route add default via 10.88.0.2 dev vc metric 20");
        ip("route add 0.0.0.0/1 via 10.77.0.9 dev va");
        ip("route add default via 10.77.0.9 dev va table 7");
        for mut source in namespace.all_sources() {
            assert_eq!(source.default_route().unwrap(), Some(index("vc")), "{}", source.name());
            let got = source.addresses().unwrap();
            let va = got.iter().find(|address| address.ifindex == index("va")).unwrap();
            assert_eq!((va.ip, va.prefix), ("10.77.0.1".parse().unwrap(), 24));
            assert_eq!(va.broadcast, Some("10.77.0.255".parse().unwrap()));
        }
        ip("route del default dev vc");
        for mut source in namespace.all_sources() {
            assert_eq!(source.default_route().unwrap(), Some(index("va")), "{}", source.name());
        }
    });
}

#[test]
fn default_routes_are_found_among_many_routes() {
    in_namespace(|namespace| {
        create_cable();
        let routes = (0..25_000u32).map(|at| format!("route add 20.{}.{}.0/24 dev vb\n", at >> 8, at & 0xff));
        ip_batch(&routes.collect::<String>());
        for expect in [None, Some("va")] {
            if expect.is_some() {
                ip("route add default via 10.77.0.9 dev va metric 50");
            }
            let expect = expect.map(|name| links_by_name(&mut namespace.netlink(DumpKind::GetStats))[name].ifindex);
            for mut source in namespace.all_sources() {
                assert_eq!(source.default_route().unwrap(), expect, "{}", source.name());
                assert_eq!(read(source.as_mut()).len(), 3, "{}", source.name());
            }
        }
    });
}

#[test]
fn the_ipv6_default_route_is_used_without_an_ipv4_one() {
    in_namespace(|namespace| {
        if !Path::new("/proc/sys/net/ipv6").exists() {
            println!("skipped: needs IPv6");
            return;
        }
        create_cable();
        fs::write("/proc/sys/net/ipv6/conf/va/disable_ipv6", "0").unwrap();
        ip("-6 addr add 2001:db8::2/64 dev va nodad");
        ip("-6 route add default via 2001:db8::1 dev va");
        let index = links_by_name(&mut namespace.netlink(DumpKind::GetStats))["va"].ifindex;
        for mut source in namespace.all_sources() {
            assert_eq!(source.default_route().unwrap(), Some(index), "{}", source.name());
            let got = source.addresses().unwrap();
            assert!(got.iter().any(|address| address.ip == "2001:db8::2".parse::<std::net::IpAddr>().unwrap()));
        }
    });
}

#[test]
fn e11_creation_rename_and_removal_of_a_link_are_reported() {
    in_namespace(|namespace| {
        let mut source = namespace.netlink(DumpKind::GetStats);
        ip("link add va type veth peer name vb");
        let index = links_by_name(&mut source)["va"].ifindex;
        let notifications =
            notifications_until(&mut source, |notifications| added_counters(notifications, index).is_some());
        assert_eq!(added_counters(&notifications, index), Some(Counters::ZERO));

        ip("link set va name wan");
        let notifications = notifications_until(&mut source, |notifications| changed(notifications, index));
        assert!(changed(&notifications, index), "{notifications:?}");
        assert_eq!(links_by_name(&mut source)["wan"].ifindex, index);

        ip("addr add 10.77.0.1/24 dev wan");
        let notifications =
            notifications_until(&mut source, |notifications| notifications.contains(&LinkNotification::Addresses));
        assert!(notifications.contains(&LinkNotification::Addresses));

        ip("link del wan");
        let notifications = notifications_until(&mut source, |notifications| gone(notifications, index) > 0);
        assert_eq!(gone(&notifications, index), 1);
        assert!(!notifications.contains(&LinkNotification::Lost));
    });
}

#[test]
fn e11_a_link_recreated_between_two_lists_is_reported_as_gone_and_added() {
    in_namespace(|namespace| {
        let mut source = namespace.netlink(DumpKind::GetStats);
        create_cable();
        let before = links_by_name(&mut source)["va"].ifindex;
        broadcast(3, 100);
        ip("link del va");
        create_cable();
        let after = links_by_name(&mut source)["va"].ifindex;
        assert_ne!(before, after);
        let notifications =
            notifications_until(&mut source, |notifications| added_counters(notifications, after).is_some());
        assert_eq!(gone(&notifications, before), 1);
        assert_eq!(added_counters(&notifications, after), Some(Counters::ZERO));
    });
}

#[test]
fn a_port_that_leaves_its_bridge_still_exists() {
    in_namespace(|namespace| {
        create_cable();
        ip("link add br0 type bridge");
        let mut source = namespace.netlink(DumpKind::GetStats);
        let (vb, br0) = (links_by_name(&mut source)["vb"].ifindex, links_by_name(&mut source)["br0"].ifindex);
        ip("link set vb master br0");
        assert_eq!(links_by_name(&mut source)["vb"].master, br0);
        ip("link set vb nomaster");
        assert_eq!(links_by_name(&mut source)["vb"].master, 0);
        // The removal of br0 comes last: all earlier notifications have arrived before it.
        ip("link del br0");
        let notifications = notifications_until(&mut source, |notifications| gone(notifications, br0) > 0);
        assert!(
            gone(&notifications, br0) == 1
                && changed(&notifications, vb)
                && added_counters(&notifications, vb).is_none()
        );
        assert_eq!(gone(&notifications, vb), 0, "{notifications:?}");
    });
}

#[test]
fn a_link_that_moves_in_keeps_its_counters() {
    in_namespace(|namespace| {
        create_cable();
        let bytes = broadcast(5, 300);
        let mut source_here = namespace.netlink(DumpKind::GetStats);
        let old = links_by_name(&mut source_here)["va"].ifindex;
        let (ready, wait_ready) = mpsc::channel();
        let (moved, wait_moved) = mpsc::channel();
        let mover = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut source = Netlink::with(DumpKind::GetStats, 32 * 1024, "/nonexistent".into()).unwrap();
            ready.send(nix::unistd::gettid()).unwrap();
            wait_moved.recv().unwrap();
            let index = links_by_name(&mut source)["va"].ifindex;
            added_counters(
                &notifications_until(&mut source, |notifications| added_counters(notifications, index).is_some()),
                index,
            )
        });
        ip(&format!("link set va netns {}", wait_ready.recv().unwrap()));
        moved.send(()).unwrap();
        let counters = mover.join().unwrap().unwrap();
        assert_eq!((counters.tx_bytes(), counters.0[crate::model::TX_PACKETS]), (bytes, 5));
        assert_eq!(gone(&notifications_until(&mut source_here, |notifications| gone(notifications, old) > 0), old), 1);
    });
}

#[test]
fn e17_a_thousand_links_are_read_completely_and_buffers_grow() {
    in_namespace(|namespace| {
        ip_batch(&veth_pairs(0, 500));
        let expect: Vec<u32> =
            namespace.netlink(DumpKind::GetStats).links().unwrap().iter().map(|link| link.ifindex).collect();
        assert_eq!(expect.len(), 1001);
        for mut source in namespace.all_sources() {
            let got: Vec<u32> = read(source.as_mut()).iter().map(|reading| reading.ifindex).collect();
            assert_eq!(got, expect, "{}", source.name());
        }
        assert_eq!(links_by_name(&mut namespace.sysfs()).len(), 1001);
        for kind in [DumpKind::GetStats, DumpKind::GetLink] {
            let mut small = Netlink::with(kind, 64, namespace.sys.clone()).unwrap();
            assert_eq!(read(&mut small).len(), 1001);
            assert_eq!(small.links().unwrap().len(), 1001);
        }
    });
}

#[test]
fn e17_links_that_appear_and_disappear_during_dumps_do_not_affect_others() {
    in_namespace(|namespace| {
        ip_batch(&veth_pairs(0, 200));
        let stable: Vec<u32> =
            read(&mut namespace.netlink(DumpKind::GetStats)).iter().map(|reading| reading.ifindex).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let churn = std::thread::spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    ip_batch(&veth_pairs(1000, 5));
                    ip_batch(&(1000..1005).map(|at| format!("link del a{at}\n")).collect::<String>());
                }
            }
        });
        let mut sources = namespace.all_sources();
        let mut complete = 0;
        for _ in 0..40 {
            for source in &mut sources {
                let mut out = Vec::new();
                match source.read(&mut out) {
                    Ok(()) => {
                        complete += 1;
                        let is_read = |ifindex| out.iter().any(|reading| reading.ifindex == ifindex);
                        assert!(stable.iter().copied().all(is_read), "{}", source.name());
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
fn e17_lost_notifications_are_reported_and_later_ones_arrive() {
    in_namespace(|namespace| {
        let mut source = namespace.netlink(DumpKind::GetStats);
        ip_batch(&veth_pairs(0, 500));
        let lost = |notifications: &[LinkNotification]| notifications.contains(&LinkNotification::Lost);
        assert!(lost(&notifications_until(&mut source, lost)));
        // One call does not return a whole flood.
        let mut max_notifications = 0;
        loop {
            let mut out = Vec::new();
            source.notifications(&mut out).unwrap();
            if out.is_empty() {
                break;
            }
            max_notifications = max_notifications.max(out.len());
        }
        assert!((1..=2 * NOTIFICATIONS_AT_ONCE + 1).contains(&max_notifications), "{max_notifications}");
        ip("link del a0");
        let gone = |notifications: &[LinkNotification]| {
            notifications.iter().any(|notification| matches!(notification, LinkNotification::Gone { .. }))
        };
        let notifications = notifications_until(&mut source, gone);
        assert!(gone(&notifications) && !lost(&notifications));
    });
}

#[test]
fn e14_names_of_fifteen_unusual_bytes() {
    in_namespace(|namespace| {
        let name: &[u8] = b"\xff~p\xc3\xa4ck.chen+=#";
        assert_eq!(name.len(), 15);
        ip_bytes(&[b"link", b"add", name, b"type", b"veth", b"peer", b"name", b"vb"]);
        ip_bytes(&[b"link", b"set", name, b"up"]);
        ip("link set vb up");
        let expect = String::from_utf8_lossy(name);
        for mut source in namespace.all_sources() {
            let links = links_by_name(source.as_mut());
            // The speed is read from a file whose path has the raw bytes of the name.
            assert_eq!(links[expect.as_ref()].speed, Some(10_000), "{}", source.name());
            let index = links[expect.as_ref()].ifindex;
            assert!(read(source.as_mut()).iter().any(|reading| reading.ifindex == index));
        }
    });
}

#[test]
fn e18_an_empty_namespace_is_no_error() {
    in_namespace(|namespace| {
        for mut source in namespace.all_sources() {
            let readings = read(source.as_mut());
            // Loopback cannot be removed.
            assert_eq!(readings.iter().map(|reading| reading.ifindex).collect::<Vec<_>>(), [1]);
            assert_eq!(source.addresses().unwrap(), []);
        }
    });
}

#[test]
fn changes_of_the_set_of_links_are_found_without_notifications() {
    in_namespace(|namespace| {
        let wake = Wake::new().unwrap();
        let mut without_notifications = namespace.netlink(DumpKind::GetStats);
        without_notifications.disable_notifications();
        let mut sources: [Box<dyn Source>; 2] = [Box::new(without_notifications), Box::new(namespace.sysfs())];
        for source in &mut sources {
            let mut check = |change: &str, expect: bool| {
                if !change.is_empty() {
                    ip(change);
                }
                // No file has altnames.
                let expect = expect && !(change.contains("altname") && source.name() == "sysfs");
                // Without notifications, netlink compares only names and altnames.
                let expect = expect && !(change.contains("master") && source.name() != "sysfs");
                let woken = source.wait(Duration::ZERO, &wake);
                assert_eq!(woken, Woken { wake_called: false, changed: expect }, "{change}");
                let mut notifications = Vec::new();
                source.notifications(&mut notifications).unwrap();
                assert_eq!(notifications, if expect { vec![LinkNotification::Lost] } else { vec![] }, "{change}");
            };
            check("", false);
            check("link add va type veth peer name vb", true);
            check("", false);
            check("link set va name vc", true);
            check("link add br9 type bridge", true);
            check("link set vc master br9", true);
            check("link set vc nomaster", true);
            check("link del br9", true);
            check("link set vc up", false);
            check("link property add dev vc altname uplink", true);
            check("link property add dev vc altname enp3s0", true);
            check("link property del dev vc altname uplink", true);
            check("link del vc", true);
            check("", false);
        }
    });
}

#[test]
fn open_chooses_the_best_source_or_the_given_one() {
    #[track_caller]
    fn check(choice: SourceChoice, expect: &str, expect_note: Option<&str>) {
        let (source, note) = open(choice).unwrap();
        assert_eq!((source.name(), note.as_deref()), (expect, expect_note));
    }
    check(SourceChoice::GetLink, "getlink", None);
    check(SourceChoice::Sysfs, "sysfs", Some(NO_NOTIFICATIONS));
    let (mut source, note) = open(SourceChoice::Auto).unwrap();
    assert_eq!(source.name() == "getstats", note.is_none(), "{note:?}");
    assert!(!read(source.as_mut()).is_empty());
}

#[test]
fn wake_ends_a_wait_once() {
    let wake = Wake::new().unwrap();
    let mut source = Netlink::open(DumpKind::GetLink).unwrap();
    let mut wait = |timeout| source.wait(timeout, &wake).wake_called;
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
fn timeouts_are_rounded_up_and_never_overflow() {
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
