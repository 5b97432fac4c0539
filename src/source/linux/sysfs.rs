//! Counters and links out of /sys/class/net: slow (ten files for each interface and tick, and memory for its name), and
//! there where netlink is forbidden or broken. Also the facts about a link that no netlink message has.
//!
//! A mounted sysfs shows the network namespace that it was mounted in, whatever the namespace of the reader: what is
//! found here under a link's name is believed only when the index is that link's.
//!
//! Altnames are in no file: a link that is read from here alone goes by its own name.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::class_net::{disturbed, each, index, index_of, link, node, number, unreadable};
use super::counters::{PLACES, RX_MISSED};
use super::netlink::Wire;
use super::{NO_REPORTS, Wake, text};
use crate::error::Result;
use crate::model::{Address, Counters, Link, RX_DROPS, Reading, Width};
use crate::source::{LinkEvent, Source, Woken};

/// A router with the whole Internet's routes has its default routes first: the kernel walks them in order of
/// destination. Behind this many bytes there is none.
const ROUTES_READ: u64 = 256 * 1024;

pub struct Sysfs {
    root: PathBuf,
    /// Where `route`, `ipv6_route` and `if_inet6` are.
    net: PathBuf,
    census: u64,
    /// The links have changed, and `events` has to say so.
    lost: bool,
}

/// A line of one of /proc/net's tables to metric and name.
type ParseRoute = fn(&[u8]) -> Option<(u32, &[u8])>;

impl Sysfs {
    pub fn open(root: &Path, net: &Path) -> Result<Sysfs> {
        fs::read_dir(root).map_err(|cause| unreadable(root, cause))?;
        let mut source = Sysfs { root: root.into(), net: net.into(), census: 0, lost: false };
        source.changed();
        Ok(source)
    }

    /// Whether the set of links is another than at the previous call.
    fn changed(&mut self) -> bool {
        let mut census = 0u64;
        let seen = each(&self.root, &mut |name, link| {
            if let Ok(ifindex) = index(link) {
                // Another device may have come to the name and number of one that has gone, and a port is of another kind.
                let port = u64::from(fstatat(link, c"master", AtFlags::AT_SYMLINK_NOFOLLOW).is_ok());
                census = census.wrapping_add(text::mark(ifindex, name.as_bytes()) ^ (node(link) << 1) ^ port);
            }
            Ok(())
        });
        seen.is_ok() && std::mem::replace(&mut self.census, census) != census
    }

    /// ifindex behind the best default route of one of /proc/net's tables.
    fn best(&self, table: &str, parse: ParseRoute) -> Option<u32> {
        use std::io::Read;
        let mut lines = Vec::new();
        // A table that is not there is a protocol that is not there.
        fs::File::open(self.net.join(table)).and_then(|file| file.take(ROUTES_READ).read_to_end(&mut lines)).ok()?;
        let (_, name) = text::lines(&lines).filter_map(parse).min_by_key(|(metric, _)| *metric)?;
        index_of(&self.root, name)
    }
}

impl Source for Sysfs {
    fn name(&self) -> &'static str {
        "sysfs"
    }

    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        out.clear();
        let answer = each(&self.root, &mut |name, link| {
            let Ok(ifindex) = index(link) else { return Ok(()) };
            match counters(link) {
                Ok(counters) => out.push(Reading { ifindex, counters, width: Width::Bits64 }),
                // It went away between two files: that must not cost the others their reading.
                Err(_) if index(link) != Ok(ifindex) => {}
                Err(errno) => return Err(disturbed(name, errno)),
            }
            Ok(())
        });
        out.sort_unstable_by_key(|reading| reading.ifindex);
        answer.inspect_err(|_| out.clear())
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        let entries = fs::read_dir(&self.root).map_err(|cause| unreadable(&self.root, cause))?;
        let mut links = Vec::new();
        for entry in entries {
            let name = entry.map_err(|cause| unreadable(&self.root, cause))?.file_name().into_vec();
            links.extend(link(&self.root, &name));
        }
        links.sort_unstable_by_key(|link| link.ifindex);
        Ok(links)
    }

    /// Where counters are not to be had over netlink, addresses often are. /proc has those of IPv6 only.
    fn addresses(&mut self) -> Result<Vec<Address>> {
        const BUFFER_BYTES: usize = 8 * 1024;
        Wire::open(BUFFER_BYTES).and_then(|mut wire| wire.addresses()).or_else(|_| {
            let lines = fs::read(self.net.join("if_inet6")).unwrap_or_default();
            Ok(text::lines(&lines).filter_map(text::inet6_address).collect())
        })
    }

    fn default_route(&mut self) -> Result<Option<u32>> {
        let v4 = self.best("route", text::ipv4_default);
        Ok(v4.or_else(|| self.best("ipv6_route", text::ipv6_default)))
    }

    fn wait(&mut self, timeout: Duration, wake: &Wake) -> Woken {
        let mut woken = super::sleep(timeout, wake, None);
        if !woken.called {
            self.lost |= self.changed();
            woken.changed = self.lost;
        }
        woken
    }

    fn limits(&self) -> Option<&'static str> {
        Some(NO_REPORTS)
    }

    fn events(&mut self, out: &mut Vec<LinkEvent>) -> Result<()> {
        if std::mem::take(&mut self.lost) {
            out.push(LinkEvent::Lost);
        }
        Ok(())
    }
}

fn counters(link: &OwnedFd) -> nix::Result<Counters> {
    let mut counters = Counters::ZERO;
    for (counter, place) in counters.0.iter_mut().zip(&PLACES) {
        *counter = number(link, place.file)?;
    }
    counters.0[RX_DROPS] = counters.0[RX_DROPS].wrapping_add(number(link, RX_MISSED.file)?);
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::MetadataExt;

    use nix::sys::stat::Mode;

    use super::super::class_net::decorate;
    use super::super::tests::Scratch;
    use super::*;
    use crate::error::ErrorKind;

    struct Fake(Scratch);

    impl Fake {
        /// As a kernel without a single link has it.
        fn new() -> Fake {
            let fake = Fake(Scratch::new());
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

        /// Its counters are `first`, `first` + 1, ... in the order of the model, rx_missed_errors last.
        fn link(&self, name: impl AsRef<OsStr>, ifindex: u32, first: u64) {
            self.file(&name, "ifindex", &format!("{ifindex}\n"));
            for (at, place) in PLACES.iter().chain([&RX_MISSED]).enumerate() {
                self.file(&name, place.file.to_str().unwrap(), &format!("{}\n", first + at as u64));
            }
        }
    }

    fn reading(ifindex: u32, first: u64) -> Reading {
        let mut counters = Counters(std::array::from_fn(|at| first + at as u64));
        counters.0[RX_DROPS] += first + PLACES.len() as u64;
        Reading { ifindex, counters, width: Width::Bits64 }
    }

    #[test]
    fn counters_of_all_links_by_index() {
        let fake = Fake::new();
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
    fn e14_names_of_fifteen_odd_bytes() {
        let fake = Fake::new();
        let odd = OsStr::from_bytes(b"\xffodd: name\t!#$%");
        fake.link(odd, 3, 5);
        fake.file(odd, "speed", "100\n");
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
        let fake = Fake::new();
        let mut source = fake.open();
        source.read(&mut out).unwrap();
        assert_eq!((out.len(), source.links().unwrap().len(), source.default_route().unwrap()), (0, 0, None));
    }

    #[test]
    fn e18_a_link_that_vanishes_while_it_is_read_costs_no_other_its_reading() {
        let fake = Fake::new();
        fake.link("eth0", 2, 10);
        fake.link("wan", 3, 20);
        fake.link("ppp0", 4, 30);
        // Whoever reads this file waits until the link is gone.
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
    fn a_link_that_is_there_and_cannot_be_read_fails_the_whole_reading() {
        #[track_caller]
        fn check(spoil: fn(&Fake)) {
            let fake = Fake::new();
            fake.link("eth0", 2, 10);
            fake.link("wan", 3, 20);
            spoil(&fake);
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
    fn links_out_of_their_files() {
        let fake = Fake::new();
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
            hardware: 1,
            driver: "vlan".into(),
            devtype: "vlan".into(),
            master: 5,
            lower: 2,
            mtu: 1496,
            mac: "02:00:00:00:00:0b".into(),
            alias: "the modem".into(),
            up: true,
            speed: Some(1000),
            node: fs::metadata(fake.root().join("eth0.7")).unwrap().ino(),
            ..Link::default()
        };
        assert_eq!(links[2], expect);
        assert_eq!((links[0].physical, links[0].driver.as_str()), (true, ""));
        assert_eq!((links[1].physical, links[1].driver.as_str()), (false, "bridge"));
    }

    #[test]
    fn what_a_port_is_a_port_of() {
        let fake = Fake::new();
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
        let said: Vec<_> = links.iter().map(|link| (link.driver.as_str(), link.master_driver.as_str())).collect();
        let expect = [("tun", "bridge"), ("bridge", ""), ("", "openvswitch"), ("", ""), ("", "bond"), ("bond", "")];
        assert_eq!(said[..6], expect);
        assert_eq!((links[0].master, links[6].driver.as_str()), (3, "macvtap"));
    }

    #[test]
    fn e33_an_unknown_state_is_up_when_there_is_a_carrier() {
        #[track_caller]
        fn check(operstate: &str, flags: &str, carrier: Option<&str>, expect: bool) {
            let fake = Fake::new();
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
    fn wireless_links_have_no_driver_by_their_type() {
        #[track_caller]
        fn check(file: &str, wireless: bool) {
            let fake = Fake::new();
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
    fn the_other_end_of_a_cable_is_not_below() {
        let fake = Fake::new();
        fake.link("veth0", 6, 0);
        fake.link("eth0", 2, 0);
        fake.file("veth0", "iflink", "2\n");
        assert_eq!(fake.open().links().unwrap()[1].lower, 0);
    }

    #[test]
    fn e9_speeds_that_drivers_do_not_know() {
        #[track_caller]
        fn check(text: Option<&str>, expect: Option<u32>) {
            let fake = Fake::new();
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
    fn what_sysfs_says_of_another_link_of_that_name_is_not_believed() {
        let fake = Fake::new();
        fake.link("eth0", 2, 0);
        fake.file("eth0", "speed", "100\n");
        let facts = |name: &[u8], ifindex: u32| {
            let mut link = Link { ifindex, ..Link::default() };
            decorate(&fake.root(), name, &mut link);
            link.speed
        };
        assert_eq!(facts(b"eth0", 2), Some(100));
        assert_eq!(facts(b"eth0", 3), None);
        // Names that the kernel does not give, and that would lead elsewhere.
        assert_eq!(facts(b"../class/eth0", 2), None);
        assert_eq!(facts(b"..", 2), None);
        assert_eq!(facts(b"", 2), None);
    }

    #[test]
    fn default_routes_out_of_their_tables() {
        let fake = Fake::new();
        fake.link("wan", 3, 0);
        fake.link("wan6", 4, 0);
        let mut source = fake.open();
        let none = "0".repeat(32);
        let v6 = format!("{none} 00 {none} 00 {none} 00000400 00000001 00000000 00000003     wan6\n");
        fake.0.file("net/ipv6_route", &v6);
        assert_eq!(source.default_route().unwrap(), Some(4));
        let v4 = "Iface\tDestination\nppp9\t00000000\t0\t0003\t0\t0\t9\t00000000\nwan\t00000000\t0\t0003\t0\t0\t5\t00000000\n";
        fake.0.file("net/route", v4);
        assert_eq!(source.default_route().unwrap(), Some(3));
    }
}
