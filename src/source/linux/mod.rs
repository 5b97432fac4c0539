//! The Linux backends, best first: netlink RTM_GETSTATS, netlink RTM_GETLINK, sysfs. `open` tries them in this order.

mod class_net;
mod counters;
mod machine;
mod netlink;
pub mod parse;
mod sysfs;
#[cfg(test)]
mod tests;
pub mod text;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Source, SourceChoice, Woken};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Machine, NetworkStack};
use netlink::{DumpKind, Netlink};
use sysfs::Sysfs;

const SYS_CLASS_NET: &str = "/sys/class/net";
const PROC: &str = "/proc";
/// Directories with the tables of the network namespace, the better path first: it leads to the namespace of the
/// calling thread, and exists even where procfs is mounted with `subset=pid` (`ProcSubset=pid` of systemd). Kernels
/// before 3.17 have only the second.
const PROC_NET: [&str; 2] = ["/proc/thread-self/net", "/proc/net"];

const PREFERENCE: [SourceChoice; 3] = [SourceChoice::GetStats, SourceChoice::GetLink, SourceChoice::Sysfs];

pub fn open(choice: SourceChoice) -> Result<(Box<dyn Source>, Option<String>)> {
    let mut notes: Vec<String> = Vec::new();
    for candidate in PREFERENCE.into_iter().filter(|candidate| choice == SourceChoice::Auto || *candidate == choice) {
        match try_source(candidate) {
            Ok(source) => {
                notes.extend(source.limitations().map(str::to_string));
                return Ok((source, Some(notes.join("; ")).filter(|note| !note.is_empty())));
            }
            Err(error) => {
                let why = error.to_string();
                if !notes.contains(&why) {
                    notes.push(why);
                }
            }
        }
    }
    let why = notes.join("; ");
    let message = match choice {
        SourceChoice::Auto => format!("no source of interface counters works here: {why}"),
        _ => format!("this source does not work here, try --source auto: {why}"),
    };
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// Opens a backend and reads once: a backend works if it answers. After a transient error the next attempt may
/// succeed, so that counts as working.
fn try_source(choice: SourceChoice) -> Result<Box<dyn Source>> {
    let mut source: Box<dyn Source> = match choice {
        SourceChoice::Auto | SourceChoice::GetStats => Box::new(Netlink::open(DumpKind::GetStats)?),
        SourceChoice::GetLink => Box::new(Netlink::open(DumpKind::GetLink)?),
        SourceChoice::Sysfs => Box::new(Sysfs::open(Path::new(SYS_CLASS_NET), proc_net())?),
    };
    match source.read(&mut Vec::new()) {
        Err(error) if error.kind != ErrorKind::Transient => Err(error),
        _ => Ok(source),
    }
}

fn proc_net() -> &'static Path {
    let [of_thread, of_process] = PROC_NET.map(Path::new);
    if of_thread.exists() { of_thread } else { of_process }
}

pub fn stack() -> NetworkStack {
    machine::stack(Path::new(PROC), Path::new("/"))
}

pub fn bytes_written() -> Option<u64> {
    machine::bytes_written(Path::new(PROC))
}

pub fn machine(path: &Path) -> Machine {
    machine::machine(Path::new(PROC), path)
}

/// Ends a `Source::wait` from another thread.
#[derive(Clone)]
pub struct Wake(Arc<EventFd>);

impl Wake {
    pub fn new() -> Result<Wake> {
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(|fd| Wake(Arc::new(fd)))
            .map_err(|errno| Error::system("cannot create an eventfd", io::Error::from(errno)))
    }

    /// Never blocks. The write fails only if the counter is full, and then an earlier call is still pending.
    pub fn call(&self) {
        let _ = self.0.write(1);
    }

    /// Discards the calls so far.
    fn reset(&self) {
        let _ = self.0.read();
    }
}

/// Limitations of a backend without notifications: it sees a change only by comparing two lists of links.
const NO_NOTIFICATIONS: &str = "no link notifications: traffic of a removed link after its last sample is lost, and \
                                a link that is moved in from another namespace may be taken for a new one";

/// Waits in one poll(2) for `Wake::call` and, if there is a socket for them, for notifications. A second system call
/// follows only if another thread called `Wake::call`.
fn poll_for_changes(timeout: Duration, wake: &Wake, socket: Option<BorrowedFd<'_>>) -> Woken {
    let wake_fd = wake.0.as_fd();
    let mut fds = [PollFd::new(wake_fd, PollFlags::POLLIN), PollFd::new(socket.unwrap_or(wake_fd), PollFlags::POLLIN)];
    let polled = if socket.is_some() { 2 } else { 1 };
    match poll(&mut fds[..polled], poll_timeout(timeout)) {
        Ok(0) | Err(Errno::EINTR) => Woken::default(),
        Ok(_) => {
            // An error makes a socket ready too: the next read of the socket then returns ENOBUFS.
            let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
            let woken = Woken { wake_called: ready(&fds[0]), changed: polled == 2 && ready(&fds[1]) };
            if woken.wake_called {
                wake.reset();
            }
            woken
        }
        // poll(2) fails only if the kernel is out of memory. Without this pause the caller would loop.
        Err(_) => {
            std::thread::sleep(timeout.min(Duration::from_secs(1)));
            Woken::default()
        }
    }
}

/// The timeout for poll(2), rounded up to milliseconds: otherwise the caller would wait again and again in the last
/// millisecond before its deadline.
fn poll_timeout(timeout: Duration) -> PollTimeout {
    const MAX_TIMEOUT_S: u64 = 1_000_000;
    let seconds = timeout.as_secs().min(MAX_TIMEOUT_S) as i32;
    let ms = seconds * 1000 + timeout.subsec_nanos().div_ceil(1_000_000) as i32;
    PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
}
