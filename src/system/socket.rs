//! Options of sockets that not every system has.

use std::io;
use std::os::fd::AsFd;

/// Lets a socket be bound to an address that this machine does not have yet, or that is still being checked for
/// duplicates (`tentative`). What listens there is reached from the moment when the address can be used. One option is
/// for both families: an IPv6 socket takes that of IPv4 as well, and kernels before 4.15 know no other. Tried on Linux 6.18 with addresses that came,
/// went and came back.
#[cfg(target_os = "linux")]
pub fn bind_before_address(socket: &impl AsFd) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::IpFreebind, &true).map_err(io::Error::from)
}

#[cfg(not(target_os = "linux"))]
pub fn bind_before_address(_socket: &impl AsFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
