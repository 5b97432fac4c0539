//! Whose the other end of a TCP connection is, where that end is on this machine too. The kernel is asked for the socket
//! that has the connection's two addresses the other way round: through sock_diag (one question, one answer), or, where
//! its modules are missing as on OpenWrt, through the tables of procfs.
//!
//! It says nothing where it is not certain. A socket that its owner has closed is shown with the user 0 and the inode 0,
//! and tells of no user.

#[cfg(target_os = "linux")]
mod diag;
#[cfg(target_os = "linux")]
mod table;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What the kernel shows in place of a user that this user namespace does not know, unless it was told another number.
const UNKNOWN: u32 = 65534;

/// Those whose requests are as good as ours.
#[derive(Clone, Copy, Debug)]
pub struct Trusted {
    own: u32,
    unknown: u32,
}

impl Trusted {
    pub fn of_this_process() -> Trusted {
        let told = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
        let unknown = told.and_then(|text| text.trim().parse().ok()).unwrap_or(UNKNOWN);
        Trusted { own: nix::unistd::geteuid().as_raw(), unknown }
    }

    /// Root and the user that this process runs as. The user 65534 is many: every service that was given no user of its
    /// own, and everybody whom this user namespace does not know.
    pub fn has(self, user: u32) -> bool {
        (user == 0 || user == self.own) && user != UNKNOWN && user != self.unknown
    }
}

/// One end of a connection, and what the kernel says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    established: bool,
    user: u32,
    /// 0: no process has this socket open.
    inode: u32,
}

impl Entry {
    fn holder(self) -> Option<u32> {
        (self.established && self.inode != 0).then_some(self.user)
    }
}

/// The addresses of a socket, as it sees them.
#[derive(Clone, Copy, Debug)]
struct Ends {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Ends {
    /// IPv4 in the form of IPv6 is IPv4: the kernel keeps both kinds of sockets together.
    fn new(local: SocketAddr, remote: SocketAddr) -> Ends {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Ends { local: plain(local), remote: plain(remote) }
    }

    fn swapped(self) -> Ends {
        Ends { local: self.remote, remote: self.local }
    }
}

/// A way to ask. `None`: there is no such socket, or this way does not see it.
type Way = fn(&Ends) -> io::Result<Option<Entry>>;

/// The user who holds the other end of `stream` open; `None` where that end is closed, half closed, or not here. Fails
/// where the kernel cannot be asked.
pub fn user(stream: &TcpStream) -> io::Result<Option<u32>> {
    // What has no peer any more was reset.
    let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else { return Ok(None) };
    let found = ask(&ways(), Ends::new(local, remote));
    // Looked at last: as long as our end is as it was, no other connection can have had the same two addresses. Without
    // this, a request whose sender has reset the connection could be taken for that of the next one, of another user.
    if !is_whole(stream) {
        return Ok(None);
    }
    found
}

/// Our own end is there in any case: a way that does not show it shows nothing, whatever it says. So it is with
/// sock_diag where its modules are missing, which is an ENOENT like that for a socket that is not there.
fn ask(ways: &[Way], own: Ends) -> io::Result<Option<u32>> {
    let mut fault = io::Error::from(io::ErrorKind::Unsupported);
    for way in ways {
        match way(&own.swapped()) {
            Ok(Some(entry)) => return Ok(entry.holder()),
            Ok(None) => match way(&own) {
                Ok(Some(_)) => return Ok(None),
                Ok(None) => fault = io::Error::other("the kernel shows no connections"),
                Err(error) => fault = error,
            },
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

#[cfg(target_os = "linux")]
fn ways() -> [Way; 2] {
    [diag::find, table::find]
}

#[cfg(not(target_os = "linux"))]
fn ways() -> [Way; 0] {
    []
}

/// Our end was neither reset nor closed in both directions. Both are told whatever is asked for.
fn is_whole(stream: &TcpStream) -> bool {
    let over = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents().is_some_and(|events| !events.intersects(over))
}

/// The byte order of this machine, or of the one in a test.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

#[cfg(target_os = "linux")]
impl Order {
    const NATIVE: Order = if cfg!(target_endian = "big") { Order::Big } else { Order::Little };

    fn number(self, bytes: [u8; 4]) -> u32 {
        if self == Order::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn bytes(self, number: u32) -> [u8; 4] {
        if self == Order::Big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn short_number(self, bytes: [u8; 2]) -> u16 {
        if self == Order::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn short_bytes(self, number: u16) -> [u8; 2] {
        if self == Order::Big { number.to_be_bytes() } else { number.to_le_bytes() }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
