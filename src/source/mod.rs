//! The operating system: counters, links, addresses, the default route, facts about the machine. The one room that may
//! ask it, and the only ladder of `cfg(target_os)`. Reading and parsing are apart; parsing is pure.

use std::time::Duration;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(not(target_os = "linux"))]
use unsupported as system;

use crate::error::Result;
use crate::model::{Address, Counters, Link, Machine, Reading, Stack};

pub use system::Wake;
/// The pure parsers, for fuzzing.
#[cfg(target_os = "linux")]
pub use system::{parse, text};

/// A way to the kernel's counters.
pub trait Source: Send {
    /// `getstats`, `getlink` or `sysfs`.
    fn name(&self) -> &'static str;

    /// Replaces `out` by the counters of the interfaces of this namespace, sorted by ifindex. Where links come and go too
    /// fast for a whole list, an interface may be missing: its next reading tells what it has counted since. `Transient`
    /// where the next attempt may do better, `Unsupported` where `open` had better be called again. The netlink sources
    /// allocate nothing once their buffers have grown.
    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()>;

    /// Names, kinds and the rest; asked for at the start and after link events, never per tick. Altnames by netlink only:
    /// sysfs has none of them.
    fn links(&mut self) -> Result<Vec<Link>>;

    /// Whether the latest `links` was whole: that a link is not in another list does not mean that it is gone.
    fn is_whole(&self) -> bool {
        true
    }

    fn addresses(&mut self) -> Result<Vec<Address>>;

    /// ifindex of the default route with the lowest metric (IPv4 first, then IPv6), `None` without one.
    fn default_route(&mut self) -> Result<Option<u32>>;

    /// Sleeps until `timeout` has passed, `wake` was called, or the kernel reports a change of links or addresses.
    /// One system call when nothing but time passed.
    fn wait(&mut self, timeout: Duration, wake: &Wake) -> Woken;

    /// What the kernel reported since the last call; appended to `out` in its order. In a flood not all at once: more than
    /// `EVENTS_AT_ONCE` of them mean that there may be others.
    fn events(&mut self, out: &mut Vec<LinkEvent>) -> Result<()>;

    /// What this one cannot know, for people.
    fn limits(&self) -> Option<&'static str> {
        None
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// `Wake::call` was called (and is now taken back).
    pub called: bool,
    /// `events` has something to tell; a source without events says so when the set of links has changed.
    pub changed: bool,
}

/// What one call of `Source::events` may bring without there being more.
pub const EVENTS_AT_ONCE: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// What the report that follows says of its link. Facts that only sysfs has are not among them.
    Described(Box<Link>),
    /// A link has come, with its counters at that moment: zero for a link that was just made, what it brought along for
    /// one that was moved in from another namespace.
    Seen { ifindex: u32, counters: Counters },
    /// Something about a link that was there before.
    Changed { ifindex: u32 },
    /// A link was destroyed or left this namespace; with its counters at that moment, where they were told.
    Gone { ifindex: u32, last: Option<Counters> },
    /// Addresses changed.
    Addresses,
    /// Reports were lost (ENOBUFS), or there are none: look at everything again.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Auto,
    GetStats,
    GetLink,
    Sysfs,
}

impl Choice {
    pub const NAMES: [(Choice, &'static str); 4] = [
        (Choice::Auto, "auto"),
        (Choice::GetStats, "getstats"),
        (Choice::GetLink, "getlink"),
        (Choice::Sysfs, "sysfs"),
    ];

    pub fn named(word: &str) -> Choice {
        Choice::NAMES.iter().find(|(_, name)| *name == word).map_or(Choice::Auto, |(choice, _)| *choice)
    }
}

/// The best source that works here (`Auto`), or the one asked for. The second value says why a better one was passed over.
pub fn open(choice: Choice) -> Result<(Box<dyn Source>, Option<String>)> {
    system::open(choice)
}

/// Which network stack this process sees.
pub fn stack() -> Stack {
    system::stack()
}

/// Bytes that the calling thread has handed to the system's writing calls so far; `None` where nobody counts.
pub fn written() -> Option<u64> {
    system::written()
}

/// Facts about the machine, with the file system that holds `path`.
pub fn machine(path: &std::path::Path) -> Machine {
    system::machine(path)
}
