//! `/sys/class/net`: its links one by one, and what their files say of them that no netlink message does.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};

use super::text;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Link;

/// Adds what only sysfs knows to the links of these names.
pub fn decorate_all(root: &Path, named: Vec<(Link, Vec<u8>)>) -> Vec<Link> {
    let mut same_address = Vec::new();
    let decorated = |(mut link, name): (Link, Vec<u8>)| {
        if decorate(root, &name, &mut link) && !link.mac.is_empty() {
            let dir = root.join(OsStr::from_bytes(&name));
            let address = fs::read(dir.join("address")).map_or(String::new(), |text| text::mac_text(&text));
            same_address.push(address == link.mac);
        }
        link
    };
    let mut links: Vec<Link> = named.into_iter().map(decorated).collect();
    // Another namespace may have links of these names and numbers too, but not of these addresses.
    if same_address.is_empty() || same_address.contains(&false) {
        links.iter_mut().for_each(|link| link.node = 0);
    }
    links
}

/// Adds what only sysfs knows to a link of this name and index; nothing where sysfs shows another link, or none.
pub(super) fn decorate(root: &Path, name: &[u8], link: &mut Link) -> bool {
    let Some(name) = plain(name) else { return false };
    let dir = root.join(OsStr::from_bytes(name));
    if file_number(&dir.join("ifindex")) != Some(link.ifindex) {
        return false;
    }
    link.speed = fs::read(dir.join("speed")).ok().and_then(|text| text::speed(&text));
    link.wireless = dir.join("phy80211").exists() || dir.join("wireless").exists();
    link.physical = dir.join("device").exists();
    link.devtype = fs::read(dir.join("uevent")).map_or(String::new(), |text| text::devtype(&text));
    link.node = fs::metadata(dir).map_or(0, |dir| dir.ino());
    true
}

/// What a file or directory of a link's own says of the driver that netlink would have named.
fn driver(dir: &Path) -> Option<&'static str> {
    const DRIVERS: [(&str, &str); 5] =
        [("bridge", "bridge"), ("bonding", "bond"), ("tun_flags", "tun"), ("macvtap", "macvtap"), ("ipvtap", "ipvtap")];
    DRIVERS.iter().find(|(entry, _)| dir.join(entry).exists()).map(|(_, driver)| *driver)
}

/// The driver of a port's master. The ports of all bridges of Open vSwitch have one master, which has no file of its own
/// and always the same name.
fn master_driver(dir: &Path) -> Option<&'static str> {
    let master = dir.join("master");
    let is_switch = || fs::read_link(&master).is_ok_and(|path| path.ends_with("ovs-system"));
    driver(&master).or_else(|| is_switch().then_some("openvswitch"))
}

/// A whole link out of its files; `None` for what is no link, or no longer.
pub(super) fn link(root: &Path, name: &[u8]) -> Option<Link> {
    let dir = root.join(OsStr::from_bytes(plain(name)?));
    let file = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
    let small = |name: &str| text::number(&file(name)).and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let ifindex = file_number(&dir.join("ifindex"))?;
    // The file has the flags that were set, not the state of the carrier.
    let running = if small("carrier") == 1 { text::IFF_RUNNING } else { 0 };
    let flags = text::hex(&file("flags")).unwrap_or(0) as u32 | running;
    let mut link = Link {
        ifindex,
        name: text::lossy(name),
        hardware: small("type") as u16,
        mtu: small("mtu"),
        mac: text::mac_text(&file("address")),
        alias: text::lossy(text::trim(&file("ifalias"))),
        up: text::is_up(text::operstate(&file("operstate")), flags),
        master: file_number(&dir.join("master/ifindex")).unwrap_or(0),
        master_driver: master_driver(&dir).unwrap_or("").to_string(),
        lower: below(&dir, ifindex, small("iflink")),
        ..Link::default()
    };
    decorate(root, name, &mut link);
    // The device types of wired links are the names of their drivers; "wlan" and "wwan" are none.
    const NO_DRIVERS: [&str; 2] = ["wlan", "wwan"];
    let devtype = Some(link.devtype.as_str()).filter(|devtype| !NO_DRIVERS.contains(devtype));
    link.driver = driver(&dir).or(devtype).unwrap_or("").to_string();
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

/// By its name alone.
pub(super) fn index_of(root: &Path, name: &[u8]) -> Option<u32> {
    file_number(&root.join(OsStr::from_bytes(plain(name)?)).join("ifindex"))
}

fn file_number(path: &Path) -> Option<u32> {
    text::number(&fs::read(path).ok()?)?.try_into().ok()
}

pub(super) fn unreadable(root: &Path, cause: io::Error) -> Error {
    Error::caused(ErrorKind::Unsupported, cause).context(format_args!("{} cannot be read", root.display()))
}

/// Calls `found` with every link's name and directory. The files of an open directory are those of one link, even if
/// another takes its name meanwhile.
pub(super) fn each(root: &Path, found: &mut dyn FnMut(&OsStr, &OwnedFd) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(root).map_err(|cause| unreadable(root, cause))? {
        let entry = entry.map_err(|cause| unreadable(root, cause))?;
        match open(&entry.path(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(link) => found(&entry.file_name(), &link)?,
            // `bonding_masters` is a file, and links come and go.
            Err(Errno::ENOTDIR | Errno::ENOENT) => {}
            Err(errno) => return Err(disturbed(&entry.file_name(), errno)),
        }
    }
    Ok(())
}

pub(super) fn disturbed(name: &OsStr, errno: Errno) -> Error {
    let what = format!("the counters of {} cannot be read", name.to_string_lossy());
    Error::caused(ErrorKind::Transient, io::Error::from(errno)).context(what)
}

/// The type of inodes differs from target to target.
#[allow(clippy::unnecessary_cast)]
pub(super) fn node(link: &OwnedFd) -> u64 {
    fstat(link).map_or(0, |link| link.st_ino as u64)
}

pub(super) fn index(link: &OwnedFd) -> nix::Result<u32> {
    number(link, c"ifindex")?.try_into().map_err(|_| Errno::EINVAL)
}

/// A number of one file, without memory of its own.
pub(super) fn number(link: &OwnedFd, file: &CStr) -> nix::Result<u64> {
    let fd = openat(link, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut buffer = [0u8; 32];
    let length = nix::unistd::read(&fd, &mut buffer)?;
    text::number(&buffer[..length]).ok_or(Errno::EINVAL)
}
