//! Reads interface counters, links, addresses, the default route and facts about the machine from the operating system.
//! `open` chooses the best backend that works.
//!
//! All code that reads counters and links of a certain operating system is in this directory, and so is the one chain
//! of `cfg(target_os)` that selects it. Parsing is separate from reading, and pure.

use std::time::Duration;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as os;
#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(not(target_os = "linux"))]
use unsupported as os;

use crate::error::Result;
use crate::model::{Address, Counters, Link, Machine, NetworkStack, Reading};

pub use os::Wake;
/// The pure parsers, public for fuzzing.
#[cfg(target_os = "linux")]
pub use os::{parse, text};

/// A backend that reads the kernel's counters and links.
pub trait Source: Send {
    /// `getstats`, `getlink` or `sysfs`, the values of the setting `source`.
    fn name(&self) -> &'static str;

    /// Replaces `out` with the counters of all links of this network namespace, sorted by ifindex. If links appear and
    /// disappear too fast for a complete list, a link may be missing: its next reading includes the traffic in
    /// between. Errors: `Transient` if the next attempt may succeed, `Unsupported` if the caller should call `open`
    /// again. After their buffers have grown, the netlink backends allocate no memory for a complete list.
    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()>;

    /// Names, kinds and other attributes of all links. The sampler calls this at the start and after link
    /// notifications, not at each tick. Only netlink has altnames; sysfs has none.
    fn links(&mut self) -> Result<Vec<Link>>;

    /// Whether the last list of `links` was complete. A link that is missing in an incomplete list may still exist.
    fn is_complete(&self) -> bool {
        true
    }

    /// The IP addresses of all links.
    fn addresses(&mut self) -> Result<Vec<Address>>;

    /// ifindex of the default route with the lowest metric, IPv4 before IPv6. `None` without a default route.
    fn default_route(&mut self) -> Result<Option<u32>>;

    /// Waits until `timeout` has passed, another thread calls `Wake::call`, or the kernel reports a change of links or
    /// addresses. If only the time has passed, a backend with notifications has made a single system call.
    fn wait(&mut self, timeout: Duration, wake: &Wake) -> Woken;

    /// Appends the notifications since the last call to `out`, in the order of the kernel. In a flood, one call returns
    /// only a part of them, see `NOTIFICATIONS_AT_ONCE`. `wait` returns at once while there are more.
    fn notifications(&mut self, out: &mut Vec<LinkNotification>) -> Result<()>;

    /// What this backend cannot know, as text for users. `None` if it knows everything.
    fn limitations(&self) -> Option<&'static str> {
        None
    }
}

/// Why `Source::wait` returned. Both are false if only the time has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// Another thread called `Wake::call`. `wait` has reset the call.
    pub wake_called: bool,
    /// `notifications` may have something to return. A backend without notifications sets this if the set of links has
    /// changed.
    pub changed: bool,
}

/// If one call of `Source::notifications` returns this number or more, the caller should call it again: more
/// notifications may wait.
pub const NOTIFICATIONS_AT_ONCE: usize = 256;

/// A change of links or addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNotification {
    /// The attributes of a link. The kernel sent them in the same message as the next item, which is about this link.
    /// Attributes that only sysfs has are missing.
    Described(Box<Link>),
    /// The kernel has added a link. `counters` are its counters at that moment: zero for a new link, the old counters
    /// for a link that was moved in from another namespace.
    Added { ifindex: u32, counters: Counters },
    /// An attribute of an existing link has changed.
    Changed { ifindex: u32 },
    /// A link was deleted or moved to another namespace. `last` are its counters at that moment, if the notification
    /// has them.
    Gone { ifindex: u32, last: Option<Counters> },
    /// An IP address was added or removed.
    Addresses,
    /// Notifications were lost (ENOBUFS) or this backend has none: list everything again.
    Lost,
}

/// Value of the setting `source`: the backend to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    Auto,
    GetStats,
    GetLink,
    Sysfs,
}

impl SourceChoice {
    pub const NAMES: [(SourceChoice, &'static str); 4] = [
        (SourceChoice::Auto, "auto"),
        (SourceChoice::GetStats, "getstats"),
        (SourceChoice::GetLink, "getlink"),
        (SourceChoice::Sysfs, "sysfs"),
    ];

    /// The choice of this name. `Auto` for an unknown name.
    pub fn by_name(word: &str) -> SourceChoice {
        SourceChoice::NAMES.iter().find(|(_, name)| *name == word).map_or(SourceChoice::Auto, |(choice, _)| *choice)
    }
}

/// Opens the best backend that works here (`Auto`), or the given one. The second value is a note for the user: why a
/// better backend does not work, and the limitations of this one.
pub fn open(choice: SourceChoice) -> Result<(Box<dyn Source>, Option<String>)> {
    os::open(choice)
}

/// The network stack that this process sees.
pub fn stack() -> NetworkStack {
    os::stack()
}

/// Bytes that the calling thread has passed to write system calls so far. `None` where the system does not count
/// them.
pub fn bytes_written() -> Option<u64> {
    os::bytes_written()
}

/// Facts about the machine. `path`: its file system is the one whose size and free space are returned.
pub fn machine(path: &std::path::Path) -> Machine {
    os::machine(path)
}
