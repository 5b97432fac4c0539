//! Linux: netlink where it works, sysfs where it does not, and which of them it is to be.

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

use super::{Choice, Source, Woken};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Machine, Stack};
use netlink::{How, Netlink};
use sysfs::Sysfs;

const SYS_CLASS_NET: &str = "/sys/class/net";
const PROC: &str = "/proc";
/// Both name the same tables. The first is that of the thread that asks, and is there under `ProcSubset=pid` as well;
/// kernels before 3.17 have only the second.
const PROC_NET: [&str; 2] = ["/proc/thread-self/net", "/proc/net"];

/// Best first.
const PREFERENCE: [Choice; 3] = [Choice::GetStats, Choice::GetLink, Choice::Sysfs];

pub fn open(choice: Choice) -> Result<(Box<dyn Source>, Option<String>)> {
    let mut passed_over: Vec<String> = Vec::new();
    for one in PREFERENCE.into_iter().filter(|one| choice == Choice::Auto || *one == choice) {
        match try_one(one) {
            Ok(source) => {
                passed_over.extend(source.limits().map(str::to_string));
                return Ok((source, Some(passed_over.join("; ")).filter(|note| !note.is_empty())));
            }
            Err(error) => {
                let why = error.to_string();
                if !passed_over.contains(&why) {
                    passed_over.push(why);
                }
            }
        }
    }
    let why = passed_over.join("; ");
    let message = match choice {
        Choice::Auto => format!("no source of interface counters works here: {why}"),
        _ => format!("the source asked for does not work here, try --source auto: {why}"),
    };
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// A source counts as working once it has answered. One that was merely disturbed will answer the next time.
fn try_one(choice: Choice) -> Result<Box<dyn Source>> {
    let mut source: Box<dyn Source> = match choice {
        Choice::Auto | Choice::GetStats => Box::new(Netlink::open(How::GetStats)?),
        Choice::GetLink => Box::new(Netlink::open(How::GetLink)?),
        Choice::Sysfs => Box::new(Sysfs::open(Path::new(SYS_CLASS_NET), proc_net())?),
    };
    match source.read(&mut Vec::new()) {
        Err(error) if error.kind != ErrorKind::Transient => Err(error),
        _ => Ok(source),
    }
}

fn proc_net() -> &'static Path {
    let [first, second] = PROC_NET.map(Path::new);
    if first.exists() { first } else { second }
}

pub fn stack() -> Stack {
    machine::stack(Path::new(PROC), Path::new("/"))
}

pub fn written() -> Option<u64> {
    machine::written(Path::new(PROC))
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
            .map_err(|errno| Error::system("cannot make an eventfd", io::Error::from(errno)))
    }

    /// Never blocks: that the counter is full means that a call is already waiting.
    pub fn call(&self) {
        let _ = self.0.write(1);
    }

    fn take_back(&self) {
        let _ = self.0.read();
    }
}

/// Of a source that hears of no link: it sees them come and go between two looks.
const NO_REPORTS: &str = "no reports of links: what one carries after its last sample goes with it, and one that is moved in \
                          from another namespace may be taken for one that was made";

/// One poll(2), and a second system call only when somebody called.
fn sleep(timeout: Duration, wake: &Wake, events: Option<BorrowedFd<'_>>) -> Woken {
    let caller = wake.0.as_fd();
    let mut fds = [PollFd::new(caller, PollFlags::POLLIN), PollFd::new(events.unwrap_or(caller), PollFlags::POLLIN)];
    let watched = if events.is_some() { 2 } else { 1 };
    match poll(&mut fds[..watched], poll_timeout(timeout)) {
        Ok(0) | Err(Errno::EINTR) => Woken::default(),
        Ok(_) => {
            // Errors show as readiness too: ENOBUFS on the socket is told by the read that follows.
            let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
            let woken = Woken { called: ready(&fds[0]), changed: watched == 2 && ready(&fds[1]) };
            if woken.called {
                wake.take_back();
            }
            woken
        }
        // Out of memory, at most. Whoever waits must not spin.
        Err(_) => {
            std::thread::sleep(timeout.min(Duration::from_secs(1)));
            Woken::default()
        }
    }
}

/// Rounded up: a wait that ends within the last millisecond before its deadline would be repeated until it has passed.
fn poll_timeout(timeout: Duration) -> PollTimeout {
    const LONGEST_S: u64 = 1_000_000;
    let seconds = timeout.as_secs().min(LONGEST_S) as i32;
    let ms = seconds * 1000 + timeout.subsec_nanos().div_ceil(1_000_000) as i32;
    PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
}
