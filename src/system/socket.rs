//! Socket options that not every operating system has.

use std::io;
use std::os::fd::AsFd;

/// Allows binding to an address that this machine does not have yet, or that is still `tentative` (duplicate address
/// detection). Clients can connect as soon as the address is usable. IP_FREEBIND works for IPv6 sockets too;
/// IPV6_FREEBIND does not exist before Linux 4.15. Tested on Linux 6.18 with addresses that were added, removed and
/// added again.
#[cfg(target_os = "linux")]
pub fn bind_before_address(socket: &impl AsFd) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(socket, sockopt::IpFreebind, &true).map_err(io::Error::from)
}

/// Not supported on other systems.
#[cfg(not(target_os = "linux"))]
pub fn bind_before_address(_socket: &impl AsFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
