//! Finds the user who owns the other end of a TCP connection, if that end is on this machine too. The other end is the
//! socket with the same two addresses, swapped. This module looks it up with sock_diag(7) (one request, one reply) or,
//! where the kernel modules for that are missing as on OpenWrt, in /proc/net/tcp and tcp6.
//!
//! The result is `None` unless the user is certain. For a socket that its owner has closed, the kernel shows user 0 and
//! inode 0; that does not count as root.

#[cfg(target_os = "linux")]
mod diag;
#[cfg(target_os = "linux")]
mod table;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Default of /proc/sys/kernel/overflowuid: the number that the kernel shows for a user who has no number in this user
/// namespace.
const OVERFLOW_UID: u32 = 65534;

/// The users whose requests from this machine need no access token.
#[derive(Clone, Copy, Debug)]
pub struct TrustedUsers {
    own: u32,
    overflow: u32,
}

impl TrustedUsers {
    /// Trusts root and the effective user of this process.
    pub fn of_this_process() -> TrustedUsers {
        let text = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
        let overflow = text.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW_UID);
        TrustedUsers { own: nix::unistd::geteuid().as_raw(), overflow }
    }

    /// Whether this is root or the user that this process runs as. Users 65534 and overflowuid are never trusted: many
    /// services share user 65534, and overflowuid stands for every user outside this user namespace.
    pub fn contains(self, user: u32) -> bool {
        (user == 0 || user == self.own) && user != OVERFLOW_UID && user != self.overflow
    }
}

/// State and owner of one end of a connection, as the kernel reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    established: bool,
    user: u32,
    /// 0: no process has the socket open any more.
    inode: u32,
}

impl Entry {
    /// The user of an established socket that a process has open.
    fn owner(self) -> Option<u32> {
        (self.established && self.inode != 0).then_some(self.user)
    }
}

/// The two addresses of a socket, from its own point of view.
#[derive(Clone, Copy, Debug)]
struct Endpoints {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Endpoints {
    /// IPv4-mapped IPv6 addresses become IPv4: an IPv6 socket with such an address may be connected to an IPv4 socket.
    fn new(local: SocketAddr, remote: SocketAddr) -> Endpoints {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Endpoints { local: plain(local), remote: plain(remote) }
    }

    fn swapped(self) -> Endpoints {
        Endpoints { local: self.remote, remote: self.local }
    }
}

/// A function that looks up a socket. `None`: there is no such socket, or this kernel does not show it in this way.
type Lookup = fn(&Endpoints) -> io::Result<Option<Entry>>;

/// The user who has the other end of `stream` open. `None` where that end is closed, half closed, or on another
/// machine. Fails where no lookup works.
pub fn user(stream: &TcpStream) -> io::Result<Option<u32>> {
    // A connection without peer address was reset.
    let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else { return Ok(None) };
    let found = look_up(&lookups(), Endpoints::new(local, remote));
    // This check must come last. While our end is open, no other connection can have the same two addresses. Without
    // the check: a client resets the connection, another user connects with the same addresses, and the request of the
    // first would count as that of the second.
    if !is_open(stream) {
        return Ok(None);
    }
    found
}

/// Tries the lookups in turn. Where a lookup does not find the other end, it must find our own end, which exists for
/// certain. If it does not, the lookup does not work: sock_diag without its modules fails with ENOENT, as for a missing
/// socket.
fn look_up(lookups: &[Lookup], own: Endpoints) -> io::Result<Option<u32>> {
    let mut last_error = io::Error::from(io::ErrorKind::Unsupported);
    for lookup in lookups {
        match lookup(&own.swapped()) {
            Ok(Some(entry)) => return Ok(entry.owner()),
            Ok(None) => match lookup(&own) {
                Ok(Some(_)) => return Ok(None),
                Ok(None) => last_error = io::Error::other("the kernel shows no connections"),
                Err(error) => last_error = error,
            },
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

#[cfg(target_os = "linux")]
fn lookups() -> [Lookup; 2] {
    [diag::find, table::find]
}

#[cfg(not(target_os = "linux"))]
fn lookups() -> [Lookup; 0] {
    []
}

/// Whether our end was neither reset nor closed in both directions. poll(2) reports both without being asked for
/// events.
fn is_open(stream: &TcpStream) -> bool {
    let closed = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents().is_some_and(|events| !events.intersects(closed))
}

/// Byte order of this machine, or of another one in a test.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

#[cfg(target_os = "linux")]
impl ByteOrder {
    const NATIVE: ByteOrder = if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };

    fn u32_from(self, bytes: [u8; 4]) -> u32 {
        if self == ByteOrder::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u32_bytes(self, value: u32) -> [u8; 4] {
        if self == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u16_from(self, bytes: [u8; 2]) -> u16 {
        if self == ByteOrder::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u16_bytes(self, value: u16) -> [u8; 2] {
        if self == ByteOrder::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
