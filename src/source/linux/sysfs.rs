//! Counters and links out of /sys/class/net: slow (nine files for each interface and tick), and there where netlink is
//! forbidden or broken. Also the facts about a link that no netlink message has.
//!
//! A mounted sysfs shows the network namespace that it was mounted in, whatever the namespace of the reader: what is
//! found here under a link's name is believed only when the index is that link's.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::netlink::Wire;
use super::{Wake, text};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Address, Counters, Link, Reading, Width};
use crate::source::{LinkEvent, Source, Woken};

/// In the order of the model; the ninth is added to `rx_drops`.
const FILES: [&CStr; 8] = [
    c"statistics/rx_bytes",
    c"statistics/tx_bytes",
    c"statistics/rx_packets",
    c"statistics/tx_packets",
    c"statistics/rx_errors",
    c"statistics/tx_errors",
    c"statistics/rx_dropped",
    c"statistics/tx_dropped",
];
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
const MISSED: &CStr = c"statistics/rx_missed_errors";
const RX_DROPS: usize = 6;

/// A router with the whole Internet's routes has its default routes first: the kernel walks them in order of
/// destination. Behind this many bytes there is none.
const ROUTES_READ: u64 = 256 * 1024;

pub struct Sysfs {
    root: PathBuf,
    /// Where `route`, `ipv6_route` and `if_inet6` are.
    net: PathBuf,
    tree: Tree,
    census: u64,
    /// The links have changed, and `events` has to say so.
    lost: bool,
}

/// A line of one of /proc/net's tables to metric and name.
type ParseRoute = fn(&[u8]) -> Option<(u32, &[u8])>;

impl Sysfs {
    pub fn open(root: &Path, net: &Path) -> Result<Sysfs> {
        let tree = Tree::open(root)?;
        let mut source = Sysfs { root: root.into(), net: net.into(), tree, census: 0, lost: false };
        source.changed();
        Ok(source)
    }

    /// Whether the set of links is another than at the previous call.
    fn changed(&mut self) -> bool {
        let mut census = 0u64;
        let seen = self.tree.each(&mut |name, link| {
            if let Ok(ifindex) = index(link) {
                census = census.wrapping_add(text::mark(ifindex, name.to_bytes()));
            }
            Ok(())
        });
        seen.is_ok() && std::mem::replace(&mut self.census, census) != census
    }

    fn read_all(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        out.clear();
        self.tree.each(&mut |name, link| {
            let Ok(ifindex) = index(link) else { return Ok(()) };
            match counters(link) {
                Ok(counters) => {
                    out.push(Reading { ifindex, counters, width: Width::Bits64 });
                    Ok(())
                }
                // It went away between the two files: that must not cost the others their reading.
                Err(_) if index(link) != Ok(ifindex) => Ok(()),
                Err(errno) => Err(Error::new(
                    ErrorKind::Transient,
                    format!("the counters of {} cannot be read: {errno}", text::lossy(name.to_bytes())),
                )),
            }
        })?;
        out.sort_unstable_by_key(|reading| reading.ifindex);
        Ok(())
    }

    /// ifindex behind the best default route of one of /proc/net's tables.
    fn best(&self, table: &str, parse: ParseRoute) -> Option<u32> {
        use std::io::Read;
        let mut lines = Vec::new();
        // A table that is not there is a protocol that is not there.
        fs::File::open(self.net.join(table)).and_then(|file| file.take(ROUTES_READ).read_to_end(&mut lines)).ok()?;
        let (_, name) = text::lines(&lines).filter_map(parse).min_by_key(|(metric, _)| *metric)?;
        file_number(&self.root.join(OsStr::from_bytes(plain(name)?)).join("ifindex"))
    }
}

impl Source for Sysfs {
    fn name(&self) -> &'static str {
        "sysfs"
    }

    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        let answer = self.read_all(out).or_else(|error| match error.kind {
            ErrorKind::Transient => Err(error),
            _ => {
                self.tree = Tree::open(&self.root)?;
                self.read_all(out)
            }
        });
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

    fn events(&mut self, out: &mut Vec<LinkEvent>) -> Result<()> {
        if std::mem::take(&mut self.lost) {
            out.push(LinkEvent::Lost);
        }
        Ok(())
    }
}

/// Adds what only sysfs knows to a link of this name and index; nothing where sysfs shows another link, or none.
pub fn decorate(root: &Path, name: &[u8], link: &mut Link) {
    let Some(name) = plain(name) else { return };
    let dir = root.join(OsStr::from_bytes(name));
    if file_number(&dir.join("ifindex")) != Some(link.ifindex) {
        return;
    }
    link.speed = fs::read(dir.join("speed")).ok().and_then(|text| text::speed(&text));
    link.wireless = dir.join("phy80211").exists() || dir.join("wireless").exists();
    link.physical = dir.join("device").exists();
    link.devtype = fs::read(dir.join("uevent")).map_or(String::new(), |text| text::devtype(&text));
}

/// A whole link out of its files; `None` for what is no link, or no longer.
fn link(root: &Path, name: &[u8]) -> Option<Link> {
    // What a directory below says of the kind that netlink would have named.
    const DRIVERS: [(&str, &str); 3] = [("bridge", "bridge"), ("bonding", "bond"), ("tun_flags", "tun")];
    let dir = root.join(OsStr::from_bytes(plain(name)?));
    let file = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
    let small = |name: &str| text::number(&file(name)).and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let ifindex = file_number(&dir.join("ifindex"))?;
    let flags = text::hex(&file("flags")).unwrap_or(0) as u32;
    let mut link = Link {
        ifindex,
        name: text::lossy(name),
        hardware: small("type") as u16,
        mtu: small("mtu"),
        mac: text::mac_text(&file("address")),
        alias: text::lossy(text::trim(&file("ifalias"))),
        up: text::is_up(text::operstate(&file("operstate")), flags),
        master: file_number(&dir.join("master/ifindex")).unwrap_or(0),
        lower: below(&dir, ifindex, small("iflink")),
        ..Link::default()
    };
    decorate(root, name, &mut link);
    let driver = DRIVERS.iter().find(|(entry, _)| dir.join(entry).exists()).map(|(_, driver)| *driver);
    // The device types of wired links are the names of their drivers; "wlan" and "wwan" are none.
    const NO_DRIVERS: [&str; 2] = ["wlan", "wwan"];
    let devtype = Some(link.devtype.as_str()).filter(|devtype| !NO_DRIVERS.contains(devtype));
    link.driver = driver.or(devtype).unwrap_or("").to_string();
    Some(link)
}

/// `iflink` may be the other end of a cable, in this namespace or another: only what `lower_*` confirms is below.
fn below(dir: &Path, ifindex: u32, iflink: u32) -> u32 {
    let confirmed = || {
        fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
            entry.file_name().as_bytes().starts_with(b"lower_")
                && file_number(&entry.path().join("ifindex")) == Some(iflink)
        })
    };
    if iflink != ifindex && iflink != 0 && confirmed() { iflink } else { 0 }
}

/// A name that is one step of a path; the kernel gives no others.
fn plain(name: &[u8]) -> Option<&[u8]> {
    (!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)).then_some(name)
}

fn file_number(path: &Path) -> Option<u32> {
    text::number(&fs::read(path).ok()?)?.try_into().ok()
}

fn unreadable(root: &Path, cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{} cannot be read: {cause}", root.display()))
}

/// The directory of all links. It stays open: opening it anew would cost system calls and memory on every tick. Twice,
/// because the one that is being walked lends out no descriptor.
struct Tree {
    dir: Dir,
    fd: OwnedFd,
}

impl Tree {
    fn open(root: &Path) -> Result<Tree> {
        let fd = open(root, DIRECTORY, Mode::empty()).map_err(|errno| unreadable(root, errno))?;
        let dir = Dir::open(root, DIRECTORY, Mode::empty()).map_err(|errno| unreadable(root, errno))?;
        Ok(Tree { dir, fd })
    }

    /// Calls `found` with every link's name and directory. The files of an open directory are those of one link, even
    /// if another takes its name meanwhile.
    fn each(&mut self, found: &mut dyn FnMut(&CStr, &OwnedFd) -> Result<()>) -> Result<()> {
        for entry in self.dir.iter() {
            let entry = entry.map_err(|errno| Error::system("the list of links cannot be read", errno))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match openat(&self.fd, name, DIRECTORY, Mode::empty()) {
                Ok(link) => found(name, &link)?,
                // `bonding_masters` is a file, and links come and go.
                Err(Errno::ENOTDIR | Errno::ENOENT) => {}
                Err(errno) => {
                    let name = text::lossy(name.to_bytes());
                    return Err(Error::new(ErrorKind::Transient, format!("{name} cannot be opened: {errno}")));
                }
            }
        }
        Ok(())
    }
}

fn index(link: &OwnedFd) -> nix::Result<u32> {
    number(link, c"ifindex")?.try_into().map_err(|_| Errno::EINVAL)
}

fn counters(link: &OwnedFd) -> nix::Result<Counters> {
    let mut counters = Counters::ZERO;
    for (counter, file) in counters.0.iter_mut().zip(FILES) {
        *counter = number(link, file)?;
    }
    counters.0[RX_DROPS] = counters.0[RX_DROPS].wrapping_add(number(link, MISSED)?);
    Ok(counters)
}

/// A number of one file, without memory of its own.
fn number(link: &OwnedFd, file: &CStr) -> nix::Result<u64> {
    let fd = openat(link, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut buffer = [0u8; 32];
    let length = nix::unistd::read(&fd, &mut buffer)?;
    text::number(&buffer[..length]).ok_or(Errno::EINVAL)
}
