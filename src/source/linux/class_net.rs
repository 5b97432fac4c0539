//! Reads `/sys/class/net`: the directory of each link, all attributes of one link, and the attributes that no netlink
//! message has.
//!
//! A mounted sysfs shows the network namespace in which it was mounted, even to a process in another one. So files
//! found under the name of a netlink link count only if the ifindex there is that of the link.
//!
//! Source: `Documentation/ABI/testing/sysfs-class-net`.

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

/// Adds to these links the attributes that only sysfs has. `named`: each link, and its name as raw bytes.
pub fn add_sysfs_attributes_to_all(root: &Path, named: Vec<(Link, Vec<u8>)>) -> Vec<Link> {
    let mut address_matches = Vec::new();
    let with_attributes = |(mut link, name): (Link, Vec<u8>)| {
        if add_sysfs_attributes(root, &name, &mut link) && !link.mac.is_empty() {
            let dir = root.join(OsStr::from_bytes(&name));
            let address = fs::read(dir.join("address")).map_or(String::new(), |text| text::mac_text(&text));
            address_matches.push(address == link.mac);
        }
        link
    };
    let mut links: Vec<Link> = named.into_iter().map(with_attributes).collect();
    // This sysfs may show another namespace. Its links may have the same names and numbers, but not the same hardware
    // addresses; then their inodes belong to other links.
    if address_matches.is_empty() || address_matches.contains(&false) {
        links.iter_mut().for_each(|link| link.inode = 0);
    }
    links
}

/// Adds to one link the attributes that only sysfs has. False, without a change, if sysfs shows another link of this
/// name or none.
pub(super) fn add_sysfs_attributes(root: &Path, name: &[u8], link: &mut Link) -> bool {
    let Some(name) = path_component(name) else { return false };
    let dir = root.join(OsStr::from_bytes(name));
    if read_number_at(&dir.join("ifindex")) != Some(link.ifindex) {
        return false;
    }
    link.speed = fs::read(dir.join("speed")).ok().and_then(|text| text::speed(&text));
    link.wireless = dir.join("phy80211").exists() || dir.join("wireless").exists();
    link.physical = dir.join("device").exists();
    link.devtype = fs::read(dir.join("uevent")).map_or(String::new(), |text| text::devtype(&text));
    link.inode = fs::metadata(dir).map_or(0, |dir| dir.ino());
    true
}

/// Driver of a link, as far as files in its directory show it. Netlink names the driver in IFLA_INFO_KIND.
fn driver(dir: &Path) -> Option<&'static str> {
    const DRIVERS: [(&str, &str); 5] =
        [("bridge", "bridge"), ("bonding", "bond"), ("tun_flags", "tun"), ("macvtap", "macvtap"), ("ipvtap", "ipvtap")];
    DRIVERS.iter().find(|(entry, _)| dir.join(entry).exists()).map(|(_, driver)| *driver)
}

/// Driver of the master of a port. The ports of all Open vSwitch bridges have one master with a fixed name; no file
/// shows its driver.
fn master_driver(dir: &Path) -> Option<&'static str> {
    let master = dir.join("master");
    let is_open_vswitch = || fs::read_link(&master).is_ok_and(|path| path.ends_with("ovs-system"));
    driver(&master).or_else(|| is_open_vswitch().then_some("openvswitch"))
}

/// Reads all attributes of a link from its files. `None` if this is not a link, or no longer one.
pub(super) fn read_link(root: &Path, name: &[u8]) -> Option<Link> {
    let dir = root.join(OsStr::from_bytes(path_component(name)?));
    let file = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
    let small_number =
        |name: &str| text::number(&file(name)).and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let ifindex = read_number_at(&dir.join("ifindex"))?;
    // The file `flags` lacks IFF_RUNNING, the state of the carrier.
    let running = if small_number("carrier") == 1 { text::IFF_RUNNING } else { 0 };
    let flags = text::hex(&file("flags")).unwrap_or(0) as u32 | running;
    let mut link = Link {
        ifindex,
        name: text::lossy(name),
        hardware_type: small_number("type") as u16,
        mtu: small_number("mtu"),
        mac: text::mac_text(&file("address")),
        alias: text::lossy(text::trim(&file("ifalias"))),
        up: text::is_up(text::operstate(&file("operstate")), flags),
        master: read_number_at(&dir.join("master/ifindex")).unwrap_or(0),
        master_driver: master_driver(&dir).unwrap_or("").to_string(),
        lower: lower_link(&dir, ifindex, small_number("iflink")),
        ..Link::default()
    };
    add_sysfs_attributes(root, name, &mut link);
    // For most links DEVTYPE is the name of the driver. These values are not.
    const NOT_DRIVERS: [&str; 2] = ["wlan", "wwan"];
    let devtype = Some(link.devtype.as_str()).filter(|devtype| !NOT_DRIVERS.contains(devtype));
    link.driver = driver(&dir).or(devtype).unwrap_or("").to_string();
    Some(link)
}

/// The ifindex of the link below, or 0. `iflink` may also name the other end of a cable (veth), in this namespace or
/// another, so a `lower_*` entry must confirm it.
fn lower_link(dir: &Path, ifindex: u32, iflink: u32) -> u32 {
    let confirmed = || {
        fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
            entry.file_name().as_bytes().starts_with(b"lower_")
                && read_number_at(&entry.path().join("ifindex")) == Some(iflink)
        })
    };
    if iflink != ifindex && iflink != 0 && confirmed() { iflink } else { 0 }
}

/// The name, if it is one component of a path. The kernel allows no other names.
fn path_component(name: &[u8]) -> Option<&[u8]> {
    (!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)).then_some(name)
}

/// ifindex of the link with this name.
pub(super) fn ifindex_by_name(root: &Path, name: &[u8]) -> Option<u32> {
    read_number_at(&root.join(OsStr::from_bytes(path_component(name)?)).join("ifindex"))
}

fn read_number_at(path: &Path) -> Option<u32> {
    text::number(&fs::read(path).ok()?)?.try_into().ok()
}

pub(super) fn unreadable(root: &Path, cause: io::Error) -> Error {
    Error::caused(ErrorKind::Unsupported, cause).context(format_args!("{} cannot be read", root.display()))
}

/// Calls `visit` with the name and the open directory of each link. The files of an open directory stay those of one
/// link, even if another link takes its name meanwhile.
pub(super) fn for_each_link(root: &Path, visit: &mut dyn FnMut(&OsStr, &OwnedFd) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(root).map_err(|cause| unreadable(root, cause))? {
        let entry = entry.map_err(|cause| unreadable(root, cause))?;
        match open(&entry.path(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(link_dir) => visit(&entry.file_name(), &link_dir)?,
            // `bonding_masters` is a file. A link may be gone by the time it is opened.
            Err(Errno::ENOTDIR | Errno::ENOENT) => {}
            Err(errno) => return Err(transient_error(&entry.file_name(), errno)),
        }
    }
    Ok(())
}

pub(super) fn transient_error(name: &OsStr, errno: Errno) -> Error {
    let message = format!("the counters of {} cannot be read", name.to_string_lossy());
    Error::caused(ErrorKind::Transient, io::Error::from(errno)).context(message)
}

/// The inode number of the link's directory. The type of `st_ino` differs between targets.
#[allow(clippy::unnecessary_cast)]
pub(super) fn inode(link_dir: &OwnedFd) -> u64 {
    fstat(link_dir).map_or(0, |found| found.st_ino as u64)
}

pub(super) fn read_ifindex(link_dir: &OwnedFd) -> nix::Result<u32> {
    read_number(link_dir, c"ifindex")?.try_into().map_err(|_| Errno::EINVAL)
}

/// Reads the number in one file of a link. Allocates nothing.
pub(super) fn read_number(link_dir: &OwnedFd, file: &CStr) -> nix::Result<u64> {
    let fd = openat(link_dir, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut buffer = [0u8; 32];
    let length = nix::unistd::read(&fd, &mut buffer)?;
    text::number(&buffer[..length]).ok_or(Errno::EINVAL)
}
