//! The sysfs backend: reads counters and links from /sys/class/net. It is slow (ten files for each interface at each
//! tick, and it allocates memory for each name), but works where netlink is forbidden or broken.
//!
//! A mounted sysfs shows the network namespace in which it was mounted, even to a process in another one; this backend
//! then reads the links of that namespace.
//!
//! No file has altnames, so this backend knows a link only by its name.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::class_net::{
    for_each_link, ifindex_by_name, inode, read_ifindex, read_link, read_number, transient_error, unreadable,
};
use super::counters::{LOCATIONS, RX_MISSED};
use super::netlink::DumpClient;
use super::{NO_NOTIFICATIONS, Wake, text};
use crate::error::Result;
use crate::model::{Address, Counters, Link, RX_DROPS, Reading, Width};
use crate::source::{LinkNotification, Source, Woken};

/// Limit on the bytes that are read of a routing table in /proc/net. The kernel lists the routes in order of
/// destination, so the default routes come early: even on a router with the routes of the whole Internet, they are
/// within this limit.
const MAX_TABLE_BYTES: u64 = 256 * 1024;

pub struct Sysfs {
    root: PathBuf,
    /// The directory with `route`, `ipv6_route` and `if_inet6`.
    net: PathBuf,
    fingerprint: u64,
    /// The links have changed, and `notifications` must return `Lost`.
    lost: bool,
}

/// Parses a line of a routing table in /proc/net into metric and interface name.
type ParseRoute = fn(&[u8]) -> Option<(u32, &[u8])>;

impl Sysfs {
    pub fn open(root: &Path, net: &Path) -> Result<Sysfs> {
        fs::read_dir(root).map_err(|cause| unreadable(root, cause))?;
        let mut source = Sysfs { root: root.into(), net: net.into(), fingerprint: 0, lost: false };
        source.links_changed();
        Ok(source)
    }

    /// Whether the set of links differs from that of the previous call.
    fn links_changed(&mut self) -> bool {
        let mut fingerprint = 0u64;
        let visited = for_each_link(&self.root, &mut |name, link_dir| {
            if let Ok(ifindex) = read_ifindex(link_dir) {
                // A new device may have the name and number of a removed one: its inode differs. A link that joins or
                // leaves a bridge may change its kind, so `master` counts too.
                let port = u64::from(fstatat(link_dir, c"master", AtFlags::AT_SYMLINK_NOFOLLOW).is_ok());
                fingerprint =
                    fingerprint.wrapping_add(text::link_hash(ifindex, name.as_bytes()) ^ (inode(link_dir) << 1) ^ port);
            }
            Ok(())
        });
        visited.is_ok() && std::mem::replace(&mut self.fingerprint, fingerprint) != fingerprint
    }

    /// ifindex of the default route with the lowest metric in one routing table.
    fn best_default_route(&self, table: &str, parse: ParseRoute) -> Option<u32> {
        use std::io::Read;
        let mut lines = Vec::new();
        // A missing table means that the kernel lacks this protocol.
        fs::File::open(self.net.join(table))
            .and_then(|file| file.take(MAX_TABLE_BYTES).read_to_end(&mut lines))
            .ok()?;
        let (_, name) = text::lines(&lines).filter_map(parse).min_by_key(|(metric, _)| *metric)?;
        ifindex_by_name(&self.root, name)
    }
}

impl Source for Sysfs {
    fn name(&self) -> &'static str {
        "sysfs"
    }

    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        out.clear();
        let result = for_each_link(&self.root, &mut |name, link_dir| {
            let Ok(ifindex) = read_ifindex(link_dir) else { return Ok(()) };
            match counters(link_dir) {
                Ok(counters) => out.push(Reading { ifindex, counters, width: Width::Bits64 }),
                // The link disappeared between two files. The other links still get their reading.
                Err(_) if read_ifindex(link_dir) != Ok(ifindex) => {}
                Err(errno) => return Err(transient_error(name, errno)),
            }
            Ok(())
        });
        out.sort_unstable_by_key(|reading| reading.ifindex);
        result.inspect_err(|_| out.clear())
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        let entries = fs::read_dir(&self.root).map_err(|cause| unreadable(&self.root, cause))?;
        let mut links = Vec::new();
        for entry in entries {
            let name = entry.map_err(|cause| unreadable(&self.root, cause))?.file_name().into_vec();
            links.extend(read_link(&self.root, &name));
        }
        links.sort_unstable_by_key(|link| link.ifindex);
        Ok(links)
    }

    /// Tries netlink first: it often has the addresses even where it cannot give the counters. /proc has only IPv6
    /// addresses.
    fn addresses(&mut self) -> Result<Vec<Address>> {
        const BUFFER_BYTES: usize = 8 * 1024;
        DumpClient::open(BUFFER_BYTES).and_then(|mut client| client.addresses()).or_else(|_| {
            let lines = fs::read(self.net.join("if_inet6")).unwrap_or_default();
            Ok(text::lines(&lines).filter_map(text::inet6_address).collect())
        })
    }

    fn default_route(&mut self) -> Result<Option<u32>> {
        let v4 = self.best_default_route("route", text::ipv4_default);
        Ok(v4.or_else(|| self.best_default_route("ipv6_route", text::ipv6_default)))
    }

    fn wait(&mut self, timeout: Duration, wake: &Wake) -> Woken {
        let mut woken = super::poll_for_changes(timeout, wake, None);
        if !woken.wake_called {
            self.lost |= self.links_changed();
            woken.changed = self.lost;
        }
        woken
    }

    fn limitations(&self) -> Option<&'static str> {
        Some(NO_NOTIFICATIONS)
    }

    fn notifications(&mut self, out: &mut Vec<LinkNotification>) -> Result<()> {
        if std::mem::take(&mut self.lost) {
            out.push(LinkNotification::Lost);
        }
        Ok(())
    }
}

fn counters(link_dir: &OwnedFd) -> nix::Result<Counters> {
    let mut counters = Counters::ZERO;
    for (counter, location) in counters.0.iter_mut().zip(&LOCATIONS) {
        *counter = read_number(link_dir, location.file)?;
    }
    counters.0[RX_DROPS] = counters.0[RX_DROPS].wrapping_add(read_number(link_dir, RX_MISSED.file)?);
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::MetadataExt;

    use nix::sys::stat::Mode;

    use super::super::class_net::add_sysfs_attributes;
    use super::super::tests::Scratch;
    use super::*;
    use crate::error::ErrorKind;

    struct FakeSysfs(Scratch);

    impl FakeSysfs {
        /// The sysfs of a kernel without any link.
        fn new() -> FakeSysfs {
            let fake = FakeSysfs(Scratch::new());
            fake.0.file("class/bonding_masters", "\n");
            fake.0.file("net/route", "Iface\tDestination\n");
            fake
        }

        fn root(&self) -> PathBuf {
            self.0.path().join("class")
        }

        fn open(&self) -> Sysfs {
            Sysfs::open(&self.root(), &self.0.path().join("net")).unwrap()
        }

        fn file(&self, link: impl AsRef<OsStr>, file: &str, text: &str) {
            self.0.file(Path::new("class").join(Path::new(link.as_ref())).join(file), text);
        }

        /// The counters are `first`, `first` + 1, ... in the order of the model, with rx_missed_errors last.
        fn link(&self, name: impl AsRef<OsStr>, ifindex: u32, first: u64) {
            self.file(&name, "ifindex", &format!("{ifindex}\n"));
            for (at, location) in LOCATIONS.iter().chain([&RX_MISSED]).enumerate() {
                self.file(&name, location.file.to_str().unwrap(), &format!("{}\n", first + at as u64));
            }
        }
    }

    fn reading(ifindex: u32, first: u64) -> Reading {
        let mut counters = Counters(std::array::from_fn(|at| first + at as u64));
        counters.0[RX_DROPS] += first + LOCATIONS.len() as u64;
        Reading { ifindex, counters, width: Width::Bits64 }
    }

    #[test]
    fn counters_of_all_links_by_ifindex() {
        let fake = FakeSysfs::new();
        fake.link("wan", 9, 1000);
        fake.link("lo", 1, 0);
        fake.link("eth0", 2, 1 << 40);
        let mut out = vec![reading(99, 99)];
        let mut source = fake.open();
        for _ in 0..2 {
            source.read(&mut out).unwrap();
            assert_eq!(out, [reading(1, 0), reading(2, 1 << 40), reading(9, 1000)]);
        }
    }

    #[test]
    fn e14_names_of_fifteen_unusual_bytes() {
        let fake = FakeSysfs::new();
        let name = OsStr::from_bytes(b"\xffodd: name\t!#$%");
        fake.link(name, 3, 5);
        fake.file(name, "speed", "100\n");
        let mut out = Vec::new();
        let mut source = fake.open();
        source.read(&mut out).unwrap();
        assert_eq!(out, [reading(3, 5)]);
        let links = source.links().unwrap();
        assert_eq!((links[0].name.as_str(), links[0].speed), ("\u{fffd}odd: name\t!#$%", Some(100)));
    }

    #[test]
    fn e18_no_links_at_all_is_no_error() {
        let mut out = vec![reading(1, 1)];
        let fake = FakeSysfs::new();
        let mut source = fake.open();
        source.read(&mut out).unwrap();
        assert_eq!((out.len(), source.links().unwrap().len(), source.default_route().unwrap()), (0, 0, None));
    }

    #[test]
    fn e18_a_link_that_vanishes_during_the_read_does_not_affect_the_others() {
        let fake = FakeSysfs::new();
        fake.link("eth0", 2, 10);
        fake.link("wan", 3, 20);
        fake.link("ppp0", 4, 30);
        // A read of this file (a FIFO) blocks until the link is gone.
        let dir = fake.root().join("ppp0");
        let counter = dir.join("statistics/rx_packets");
        fs::remove_file(&counter).unwrap();
        nix::unistd::mkfifo(&counter, Mode::S_IRWXU).unwrap();
        let vanishing = std::thread::spawn(move || {
            let pipe = fs::OpenOptions::new().write(true).open(&counter).unwrap();
            fs::remove_dir_all(&dir).unwrap();
            drop(pipe);
        });
        let mut out = Vec::new();
        fake.open().read(&mut out).unwrap();
        vanishing.join().unwrap();
        assert_eq!(out, [reading(2, 10), reading(3, 20)]);
    }

    #[test]
    fn an_existing_link_that_cannot_be_read_fails_the_whole_read() {
        #[track_caller]
        fn check(break_link: fn(&FakeSysfs)) {
            let fake = FakeSysfs::new();
            fake.link("eth0", 2, 10);
            fake.link("wan", 3, 20);
            break_link(&fake);
            let mut out = vec![reading(1, 1)];
            let error = fake.open().read(&mut out).unwrap_err();
            assert_eq!((error.kind, out.len()), (ErrorKind::Transient, 0));
            assert!(error.to_string().contains("wan"), "{error}");
        }
        check(|fake| fake.file("wan", "statistics/tx_errors", "nonsense\n"));
        check(|fake| fake.file("wan", "statistics/tx_errors", ""));
        check(|fake| fake.file("wan", "statistics/rx_bytes", "18446744073709551616\n"));
        check(|fake| fs::remove_file(fake.root().join("wan/statistics/rx_missed_errors")).unwrap());
        check(|fake| fs::remove_dir_all(fake.root().join("wan/statistics")).unwrap());
    }

    #[test]
    fn no_sysfs_is_unsupported() {
        let scratch = Scratch::new();
        let error = Sysfs::open(&scratch.path().join("absent"), scratch.path()).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Unsupported);
    }

    #[test]
    fn links_are_read_from_their_files() {
        let fake = FakeSysfs::new();
        fake.link("eth0", 2, 0);
        fake.file("eth0", "device/vendor", "");
        fake.link("br-lan", 5, 0);
        fake.file("br-lan", "bridge/bridge_id", "");
        fake.link("eth0.7", 6, 0);
        let files = [
            ("type", "1\n"),
            ("flags", "0x1043\n"),
            ("operstate", "up\n"),
            ("mtu", "1496\n"),
            ("address", "02:00:00:00:00:0b\n"),
            ("ifalias", "the modem\n"),
            ("iflink", "2\n"),
            ("lower_eth0/ifindex", "2\n"),
            ("master/ifindex", "5\n"),
            ("speed", "1000\n"),
            ("uevent", "DEVTYPE=vlan\nINTERFACE=eth0.7\nIFINDEX=6\n"),
        ];
        for (file, text) in files {
            fake.file("eth0.7", file, text);
        }
        let links = fake.open().links().unwrap();
        assert_eq!(links.iter().map(|link| link.ifindex).collect::<Vec<_>>(), [2, 5, 6]);
        let expect = Link {
            ifindex: 6,
            name: "eth0.7".into(),
            hardware_type: 1,
            driver: "vlan".into(),
            devtype: "vlan".into(),
            master: 5,
            lower: 2,
            mtu: 1496,
            mac: "02:00:00:00:00:0b".into(),
            alias: "the modem".into(),
            up: true,
            speed: Some(1000),
            inode: fs::metadata(fake.root().join("eth0.7")).unwrap().ino(),
            ..Link::default()
        };
        assert_eq!(links[2], expect);
        assert_eq!((links[0].physical, links[0].driver.as_str()), (true, ""));
        assert_eq!((links[1].physical, links[1].driver.as_str()), (false, "bridge"));
    }

    #[test]
    fn drivers_of_ports_and_their_masters() {
        let fake = FakeSysfs::new();
        for (at, name) in ["tap0", "br0", "tap1", "ovs-system", "eth0", "bond0", "mv0"].into_iter().enumerate() {
            fake.link(name, at as u32 + 2, 0);
        }
        fake.file("br0", "bridge/bridge_id", "");
        fake.file("bond0", "bonding/mode", "");
        fake.file("tap0", "tun_flags", "0x1002\n");
        fake.file("mv0", "macvtap/tap8/dev", "");
        for (port, master) in [("tap0", "br0"), ("tap1", "ovs-system"), ("eth0", "bond0"), ("mv0", "mv0")] {
            std::os::unix::fs::symlink(format!("../{master}"), fake.root().join(port).join("master")).unwrap();
        }
        let links = fake.open().links().unwrap();
        let drivers: Vec<_> = links.iter().map(|link| (link.driver.as_str(), link.master_driver.as_str())).collect();
        let expect = [("tun", "bridge"), ("bridge", ""), ("", "openvswitch"), ("", ""), ("", "bond"), ("bond", "")];
        assert_eq!(drivers[..6], expect);
        assert_eq!((links[0].master, links[6].driver.as_str()), (3, "macvtap"));
    }

    #[test]
    fn e33_an_unknown_state_is_up_if_there_is_a_carrier() {
        #[track_caller]
        fn check(operstate: &str, flags: &str, carrier: Option<&str>, expect: bool) {
            let fake = FakeSysfs::new();
            fake.link("wg0", 3, 0);
            fake.file("wg0", "operstate", operstate);
            fake.file("wg0", "flags", flags);
            if let Some(carrier) = carrier {
                fake.file("wg0", "carrier", carrier);
            }
            assert_eq!(fake.open().links().unwrap()[0].up, expect);
        }
        check("unknown\n", "0x91\n", Some("1\n"), true);
        check("unknown\n", "0x91\n", Some("0\n"), false);
        check("unknown\n", "0x90\n", None, false);
        check("up\n", "0x1003\n", Some("1\n"), true);
        check("down\n", "0x1003\n", Some("1\n"), false);
    }

    #[test]
    fn wireless_links_have_no_driver_from_their_device_type() {
        #[track_caller]
        fn check(file: &str, wireless: bool) {
            let fake = FakeSysfs::new();
            fake.link("wlan0", 3, 0);
            fake.file("wlan0", "uevent", "DEVTYPE=wlan\n");
            fake.file("wlan0", file, "");
            let link = fake.open().links().unwrap().remove(0);
            assert_eq!((link.wireless, link.devtype.as_str(), link.driver.as_str()), (wireless, "wlan", ""));
        }
        check("phy80211/name", true);
        check("wireless/status", true);
        check("type", false);
    }

    #[test]
    fn the_other_end_of_a_cable_is_not_a_lower_link() {
        let fake = FakeSysfs::new();
        fake.link("veth0", 6, 0);
        fake.link("eth0", 2, 0);
        fake.file("veth0", "iflink", "2\n");
        assert_eq!(fake.open().links().unwrap()[1].lower, 0);
    }

    #[test]
    fn e9_speeds_that_drivers_do_not_report() {
        #[track_caller]
        fn check(text: Option<&str>, expect: Option<u32>) {
            let fake = FakeSysfs::new();
            fake.link("eth0", 2, 0);
            if let Some(text) = text {
                fake.file("eth0", "speed", text);
            }
            assert_eq!(fake.open().links().unwrap()[0].speed, expect);
        }
        check(Some("2500\n"), Some(2500));
        check(Some("-1\n"), None);
        check(Some("0\n"), None);
        check(Some("4294967295\n"), None);
        check(Some(""), None);
        check(None, None);
    }

    #[test]
    fn attributes_of_another_link_of_the_same_name_are_ignored() {
        let fake = FakeSysfs::new();
        fake.link("eth0", 2, 0);
        fake.file("eth0", "speed", "100\n");
        let speed = |name: &[u8], ifindex: u32| {
            let mut link = Link { ifindex, ..Link::default() };
            add_sysfs_attributes(&fake.root(), name, &mut link);
            link.speed
        };
        assert_eq!(speed(b"eth0", 2), Some(100));
        assert_eq!(speed(b"eth0", 3), None);
        // The kernel does not allow these names. As paths they would lead elsewhere.
        assert_eq!(speed(b"../class/eth0", 2), None);
        assert_eq!(speed(b"..", 2), None);
        assert_eq!(speed(b"", 2), None);
    }

    #[test]
    fn default_routes_are_read_from_their_tables() {
        let fake = FakeSysfs::new();
        fake.link("wan", 3, 0);
        fake.link("wan6", 4, 0);
        let mut source = fake.open();
        let zeros = "0".repeat(32);
        let v6 = format!("{zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 00000003     wan6\n");
        fake.0.file("net/ipv6_route", &v6);
        assert_eq!(source.default_route().unwrap(), Some(4));
        let v4 = "Iface\tDestination\nppp9\t00000000\t0\t0003\t0\t0\t9\t00000000\nwan\t00000000\t0\t0003\t0\t0\t5\t00000000\n";
        fake.0.file("net/route", v4);
        assert_eq!(source.default_route().unwrap(), Some(3));
    }
}
