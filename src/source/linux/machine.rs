//! Reads facts about the machine and this process. A fact that cannot be read stays zero or empty: a chroot may lack
//! any of these files.

use std::fs;
use std::path::Path;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::sys::time::TimeValLike;
use nix::{getsockopt_impl, libc, sockopt_impl};

use super::text;
use crate::model::{Machine, NetworkStack};
use crate::system::free_space;

/// Files with the machine id, the same for every program on the system (machine-id(5)). Older systems have only the
/// second.
const MACHINE_IDS: [&str; 2] = ["etc/machine-id", "var/lib/dbus/machine-id"];

/// `proc`: mount point of procfs. `root`: directory that stands for `/`.
pub fn stack(proc: &Path, root: &Path) -> NetworkStack {
    let ids = MACHINE_IDS.map(|name| fs::read(root.join(name)).unwrap_or_default());
    let boot = fs::read(proc.join("sys/kernel/random/boot_id")).unwrap_or_default();
    NetworkStack {
        machine: ids.iter().find_map(|id| text::machine_hash(id)).unwrap_or_default(),
        boot: text::lossy(text::trim(&boot)),
        namespace: namespace(proc),
    }
}

/// Number that identifies the network namespace. The kernel never reuses a cookie before the next boot, but has cookies
/// only from 5.14 on. Older kernels have only the inode, which may be reused.
fn namespace(proc: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let inode = || fs::metadata(proc.join("self/ns/net")).map(|file| file.ino());
    cookie().or_else(|| inode().ok()).unwrap_or(0)
}

fn cookie() -> Option<u64> {
    let unix_socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    getsockopt(&unix_socket, NetnsCookie).ok()
}

/// `include/uapi/asm-generic/socket.h`. Only parisc and sparc use other numbers.
const SO_NETNS_COOKIE: libc::c_int = 71;
sockopt_impl!(NetnsCookie, GetOnly, libc::SOL_SOCKET, SO_NETNS_COOKIE, u64);

/// Uses `wchar`, not `write_bytes`. On jffs2 `write_bytes` stays zero, because jffs2 writes through. Elsewhere
/// `write_bytes` counts a page once, even if it is written ten times before it goes to the disk
/// (<https://docs.kernel.org/filesystems/proc.html>, section 3.3).
pub fn bytes_written(proc: &Path) -> Option<u64> {
    text::wchar(&fs::read(proc.join("thread-self/io")).ok()?)
}

/// `proc`: mount point of procfs. `path` need not exist: its file system is that of the nearest existing directory
/// above it.
pub fn machine(proc: &Path, path: &Path) -> Machine {
    let file = |name: &str| fs::read(proc.join(name)).unwrap_or_default();
    let (memory_total, memory_available) = text::meminfo(&file("meminfo"));
    let (cpu_busy, cpu_total, cpu_count) = text::cpu(&file("stat"));
    let (disk_total, disk_free) = free_space::total_and_free(path).unwrap_or((0, 0));
    Machine {
        hostname: nix::unistd::gethostname().map_or(String::new(), |name| name.to_string_lossy().into_owned()),
        os: os(),
        uptime_s: text::uptime(&file("uptime")),
        cpu_count: cpu_count.max(1),
        memory_total,
        memory_available,
        cpu_busy,
        cpu_total,
        disk_total,
        disk_free,
        rss_bytes: text::resident(&file("self/status")),
        cpu_ms: cpu_ms(),
    }
}

fn os() -> String {
    let Ok(name) = nix::sys::utsname::uname() else { return String::new() };
    let parts = [name.sysname(), name.release(), name.machine()];
    parts.map(|part| part.to_string_lossy().into_owned()).join(" ")
}

/// CPU time of this process in user and system mode, of all its threads.
fn cpu_ms() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let sum = usage.user_time().num_milliseconds().saturating_add(usage.system_time().num_milliseconds());
    sum.try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn this_machine_has_all_facts() {
        let scratch = Scratch::new();
        let machine = machine(Path::new("/proc"), &scratch.path().join("not/there/yet"));
        assert!(machine.os.starts_with("Linux "), "{}", machine.os);
        assert!(!machine.hostname.is_empty() && machine.uptime_s > 0 && machine.cpu_count > 0);
        assert!(machine.memory_total >= machine.memory_available && machine.memory_available > 0);
        assert!(machine.cpu_total >= machine.cpu_busy && machine.cpu_busy > 0);
        assert!(machine.disk_total >= machine.disk_free && machine.disk_total > 0);
        assert!(machine.rss_bytes > 100_000 && machine.rss_bytes < machine.memory_total);
    }

    #[test]
    fn a_missing_procfs_is_not_an_error() {
        let scratch = Scratch::new();
        let machine = machine(scratch.path(), Path::new(""));
        assert_eq!((machine.uptime_s, machine.memory_total, machine.cpu_total, machine.rss_bytes), (0, 0, 0, 0));
        assert!(machine.cpu_count > 0 && machine.disk_total > 0);
        let stack = stack(scratch.path(), scratch.path());
        assert_eq!((stack.machine.as_str(), stack.boot.as_str()), ("", ""));
    }

    #[test]
    fn written_bytes_are_counted() {
        let scratch = Scratch::new();
        assert_eq!(bytes_written(scratch.path()), None);
        scratch.file("thread-self/io", "rchar: 1948\nwchar: 4096\nsyscr: 7\nwrite_bytes: 0\n");
        assert_eq!(bytes_written(scratch.path()), Some(4096));
        if let Some(before) = bytes_written(Path::new("/proc")) {
            scratch.file("more", &"x".repeat(10_000));
            assert!(bytes_written(Path::new("/proc")).is_some_and(|after| after >= before + 10_000));
        }
    }

    #[test]
    fn e13_the_boot_id_is_the_kernels() {
        let scratch = Scratch::new();
        scratch.file("sys/kernel/random/boot_id", "3f6e6a0c-8f3c-4f43-9c0e-0123456789ab\n");
        assert_eq!(stack(scratch.path(), scratch.path()).boot, "3f6e6a0c-8f3c-4f43-9c0e-0123456789ab");
        assert_eq!(stack(Path::new("/proc"), Path::new("/")).boot.len(), 36);
    }

    #[test]
    fn the_machine_id_is_stable_and_stays_secret() {
        let scratch = Scratch::new();
        let machine = || stack(scratch.path(), scratch.path()).machine;
        let id = "0123456789abcdef0123456789abcdef";
        scratch.file("var/lib/dbus/machine-id", &format!("{id}\n"));
        let first = machine();
        assert!(first.len() == 16 && !first.contains(&id[..8]), "{first}");
        // Before its first boot, an image has a word in this file.
        scratch.file("etc/machine-id", "uninitialized\n");
        assert_eq!(machine(), first);
        scratch.file("etc/machine-id", "fedcba9876543210fedcba9876543210\n");
        assert!(machine() != first && machine().len() == 16);
    }

    #[test]
    fn each_namespace_has_its_own_number() {
        let here = namespace(Path::new("/proc"));
        assert_eq!((here > 0, here), (true, namespace(Path::new("/proc"))));
        // Without permission to create a namespace, only this one is checked.
        let there = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok().and_then(|()| cookie())
        });
        assert_ne!(there.join().unwrap(), Some(here));
    }
}
