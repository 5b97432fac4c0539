//! Listening sockets. A configured address may not exist yet, or may still be in duplicate address detection: the
//! program starts anyway. Where the system allows it, a socket is bound before its address exists; elsewhere binding is
//! tried again later.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, listen, setsockopt, socket, sockopt,
};

use super::client;
use super::server::printable_short;
use crate::error::{Error, Result};
use crate::live::{Iface, State};
use crate::system::socket::bind_before_address;

/// Length of the accept queue. Clients that find it full try again after a second, so it must hold all connections of
/// a flood until the gate accepts them.
const BACKLOG: i32 = 512;

/// Result of binding.
#[derive(Default)]
pub struct Bound {
    pub listeners: Vec<TcpListener>,
    /// All requested addresses that this system supports, bound or not.
    pub addresses: Vec<SocketAddr>,
    pub unbound: Vec<UnboundAddress>,
}

/// An address that is not bound yet, and the error of the last attempt.
pub struct UnboundAddress {
    pub address: SocketAddr,
    errno: Errno,
}

/// Listens on `hosts`; on all addresses if it is empty. IPv4 and IPv6 get a socket each, so that the system's default
/// for IPV6_V6ONLY does not matter. Port 0 picks one that is free on all addresses.
///
/// Fails if the port is taken or not permitted. A missing address is no error.
pub fn bind(hosts: &[String], port: u16) -> Result<Bound> {
    let everywhere = hosts.is_empty();
    let addresses = resolve(hosts)?;
    // With port 0, the port that the first address got may be taken on the next one: try again.
    for is_last_try in (0..if port == 0 { 16 } else { 1 }).rev().map(|left| left == 0) {
        match bind_all(&addresses, port, everywhere) {
            Err((_, Errno::EADDRINUSE)) if !is_last_try => {}
            Err((address, errno)) => return Err(bind_error(address, errno)),
            Ok(bound) => return Ok(bound),
        }
    }
    Err(Error::system("cannot listen", "no port is free on all addresses"))
}

/// The addresses of `hosts`, each once.
pub fn resolve(hosts: &[String]) -> Result<Vec<IpAddr>> {
    if hosts.is_empty() {
        return Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    }
    let hosts_file = std::fs::read("/etc/hosts").unwrap_or_default();
    let hosts_file = String::from_utf8_lossy(&hosts_file);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for host in hosts {
        let found = look_up(host, &hosts_file);
        if found.is_empty() {
            return Err(Error::usage(format!(
                "{}: no such address; give an IP address, or a name from /etc/hosts",
                printable_short(host)
            )));
        }
        for ip in found {
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
    Ok(addresses)
}

/// Looks up one host; `hosts_file` is the text of /etc/hosts. DNS is not used: listening cannot wait for a name
/// server, least of all on the machine that is one, and the C library's resolver is 20 KB.
fn look_up(host: &str, hosts_file: &str) -> Vec<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse() {
        return vec![ip];
    }
    let ip_of_line = |line: &str| {
        let mut fields = line.split('#').next()?.split_ascii_whitespace();
        let ip = fields.next()?.parse().ok()?;
        fields.any(|name| name.eq_ignore_ascii_case(host)).then_some(ip)
    };
    let found: Vec<IpAddr> = hosts_file.lines().filter_map(ip_of_line).collect();
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    found
}

fn bind_all(addresses: &[IpAddr], mut port: u16, everywhere: bool) -> std::result::Result<Bound, (SocketAddr, Errno)> {
    let mut bound = Bound::default();
    for ip in addresses {
        let mut address = SocketAddr::new(*ip, port);
        let optional = everywhere || *ip == Ipv6Addr::LOCALHOST && addresses.contains(&Ipv4Addr::LOCALHOST.into());
        match bind_one(address, !optional) {
            Ok(listener) => {
                port = listener.local_addr().map_or(port, |address| address.port());
                address.set_port(port);
                bound.listeners.push(listener);
            }
            // On many routers, the kernel has no IPv6, or IPv6 is disabled.
            Err(errno @ (Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EINVAL)) if optional && ip.is_ipv6() => {
                log::info!("no IPv6 here ({}): listening on IPv4 only", io::Error::from(errno));
                continue;
            }
            Err(errno @ (Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)) => {
                bound.unbound.push(UnboundAddress { address, errno })
            }
            Err(errno) => return Err((address, errno)),
        }
        bound.addresses.push(address);
    }
    Ok(bound)
}

/// Tries to bind the remaining addresses. Those that fail stay, with the new error.
pub fn bind_again(unbound: &mut Vec<UnboundAddress>) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    unbound.retain_mut(|UnboundAddress { address, errno }| match bind_one(*address, true) {
        Ok(listener) => {
            log::info!("listening on {address} too");
            listeners.push(listener);
            false
        }
        Err(now) => {
            *errno = now;
            true
        }
    });
    listeners
}

/// An address at which no client can reach the server now.
pub struct Unreachable {
    pub address: SocketAddr,
    /// The reason, a sentence for the log and for `/api/system/health`.
    pub why: String,
    /// One of this machine's links has the address, so it may become usable without action.
    pub on_link: bool,
}

/// Which of `addresses` are unreachable now.
pub fn unreachable(addresses: &[SocketAddr], unbound: &[UnboundAddress], state: &State) -> Vec<Unreachable> {
    let describe = |address: &SocketAddr| {
        let ip = address.ip();
        let has_address = |iface: &Iface| iface.addresses.iter().any(|own| own.ip == ip);
        let errno_of_unbound = unbound.iter().find(|unbound| unbound.address == *address).map(|unbound| unbound.errno);
        let is_on_link = state.inventory.interfaces.iter().any(has_address);
        let why = match errno_of_unbound {
            Some(errno) if errno != Errno::EADDRNOTAVAIL => {
                format!("cannot listen on {address} yet ({})", io::Error::from(errno))
            }
            None if is_usable(ip) => return None,
            // Duplicate address detection lasts as long as the link has no carrier.
            _ if is_on_link => {
                format!("{ip} cannot be used yet: its link is down, or another machine may have the same address")
            }
            _ => format!("{ip} is not an address of this machine: net-pulse cannot be reached there until it is"),
        };
        Some(Unreachable { address: *address, why, on_link: is_on_link })
    };
    addresses.iter().filter_map(describe).collect()
}

/// Whether this machine receives packets to `ip`: only then can a socket be bound to it without a special option.
fn is_usable(ip: IpAddr) -> bool {
    // A UDP socket can be bound to a group address too, but no TCP connection can be made to one.
    let is_group_address = ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    !is_group_address && UdpSocket::bind((ip, 0)).is_ok()
}

/// Like `TcpListener::bind`, which sets SO_REUSEADDR but cannot set IPV6_V6ONLY before binding. `before_address`: bind
/// also when the address does not exist yet.
fn bind_one(address: SocketAddr, before_address: bool) -> std::result::Result<TcpListener, Errno> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket: OwnedFd = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if before_address {
        // If the system does not support it, binding fails and is tried again later.
        let _ = bind_before_address(&socket);
    }
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    // nix refuses a backlog above the C library's SOMAXCONN, which is only 128 in musl. But it accepts -1, the kernel's
    // maximum.
    let backlog = Backlog::new(BACKLOG).or_else(|_| Backlog::new(-1)).unwrap_or(Backlog::MAXCONN);
    listen(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

fn bind_error(address: SocketAddr, errno: Errno) -> Error {
    let port = address.port();
    match errno {
        Errno::EADDRINUSE => {
            let next = match client::identify_server(address) {
                Some(server) => format!("{server} is running there already; stop it, or choose another with --port"),
                None => format!("choose another with --port, or stop what listens on port {port}"),
            };
            Error::system(format!("port {port} is in use"), next)
        }
        Errno::EACCES => Error::system(
            format!("port {port} needs more rights than this user has"),
            "choose one above 1023 with --port",
        ),
        other => Error::system(format!("cannot listen on {address}"), io::Error::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{idle_live, iface};
    use crate::model::Address;

    #[test]
    fn e48_both_families_have_one_port() {
        let listeners = bind(&[], 0).unwrap().listeners;
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert_ne!(addresses[0].port(), 0);
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port()), "{addresses:?}");
        assert!(addresses[0].is_ipv4());
        // Without IPv6 there is only the first.
        assert!(addresses.len() == 1 || addresses[1].is_ipv6());
    }

    #[test]
    fn hosts_are_addresses_with_or_without_brackets() {
        let check = |hosts: &[&str], expect: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
            let listeners = bind(&hosts, 0).unwrap().listeners;
            let ips: Vec<String> = listeners.iter().map(|it| it.local_addr().unwrap().ip().to_string()).collect();
            assert_eq!(ips, expect);
        };
        check(&["127.0.0.1"], &["127.0.0.1"]);
        check(&["127.0.0.1", "127.0.0.1"], &["127.0.0.1"]);
        check(&["127.0.0.1", "127.0.0.2"], &["127.0.0.1", "127.0.0.2"]);
        if TcpListener::bind("[::1]:0").is_ok() {
            check(&["[::1]"], &["::1"]);
            check(&["::1", "127.0.0.1"], &["::1", "127.0.0.1"]);
            check(&["0.0.0.0", "::"], &["0.0.0.0", "::"]);
        }
    }

    #[test]
    fn a_name_is_looked_up_in_the_hosts_file() {
        let hosts_file =
            "127.0.0.1 localhost\n192.168.1.1\tRouter.lan router # the box\nfd00::1 router\n# 10.0.0.1 gone\nwrong x\n";
        let check = |host, expect: &[&str]| {
            let got: Vec<String> = look_up(host, hosts_file).iter().map(IpAddr::to_string).collect();
            assert_eq!(got, expect, "{host}");
        };
        check("192.0.2.7", &["192.0.2.7"]);
        check("[::1]", &["::1"]);
        check("::", &["::"]);
        check("LocalHost", &["127.0.0.1"]);
        assert_eq!(look_up("localhost", "").len(), 2);
        check("router", &["192.168.1.1", "fd00::1"]);
        check("router.LAN", &["192.168.1.1"]);
        check("box", &[]);
        check("gone", &[]);
        check("x", &[]);
        check("", &[]);
        check("300.1.1.1", &[]);
    }

    #[test]
    fn errors_name_the_cause_and_the_next_step() {
        let taken = bind(&["127.0.0.1".to_string()], 0).unwrap().listeners;
        let port = taken[0].local_addr().unwrap().port();
        let check = |host: &str, port, parts: &[&str]| {
            let error = bind(&[host.to_string()], port).err().unwrap().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        };
        check("127.0.0.1", port, &[&format!("port {port} is in use"), "--port"]);
        check("no such\u{1b}[2J host", 0, &["no such?[2J host: no such address"]);
    }

    #[test]
    fn missing_addresses_are_reported_as_unreachable() {
        let check = |hosts: &[&str], on_a_link: &[&str], expect: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
            let bound = bind(&hosts, 0).unwrap();
            let live = idle_live();
            let mut state = live.lock();
            let mut link = iface("lan0", 2);
            let address = |ip: &&str| Address { ifindex: 2, ip: ip.parse().unwrap(), prefix: 24, broadcast: None };
            link.addresses = on_a_link.iter().map(address).collect();
            state.inventory.interfaces = vec![link];
            assert!(bound.addresses.iter().all(|address| address.port() == bound.addresses[0].port()));
            let got = unreachable(&bound.addresses, &bound.unbound, &state);
            assert_eq!(got.len(), expect.len());
            for (Unreachable { address, why, on_link: is_on_link }, expect) in got.iter().zip(expect) {
                assert!(why.contains(expect) && why.contains(&address.ip().to_string()), "{why}");
                assert_eq!(*is_on_link, expect.contains("yet"));
            }
        };
        check(&[], &[], &[]);
        check(&["127.0.0.1", "127.3.4.5"], &[], &[]);
        check(&["127.0.0.1", "192.0.2.7"], &[], &["192.0.2.7 is not an address of this machine"]);
        check(&["192.0.2.7"], &["192.0.2.7"], &["192.0.2.7 cannot be used yet"]);
        check(&["192.0.2.7", "192.0.2.8"], &["192.0.2.8"], &["not an address of this machine", "cannot be used yet"]);
        check(&["224.0.0.1"], &[], &["not an address of this machine"]);
    }

    /// Simulates a system that cannot bind a socket before its address exists.
    #[test]
    fn unbound_addresses_are_tried_again() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let failed = |address| UnboundAddress { address, errno: Errno::EADDRNOTAVAIL };
        let mut unbound = vec![failed(free), failed(taken.local_addr().unwrap())];
        let listeners = bind_again(&mut unbound);
        assert_eq!(listeners.iter().map(|it| it.local_addr().unwrap()).collect::<Vec<_>>(), [free]);
        assert_eq!(unbound.len(), 1);
        let addresses = [free, taken.local_addr().unwrap()];
        let found = unreachable(&addresses, &unbound, &idle_live().lock());
        assert_eq!(found.len(), 1);
        assert!(found[0].why.contains("Address already in use"), "{}", found[0].why);
        drop(taken);
        assert_eq!((bind_again(&mut unbound).len(), unbound.len()), (1, 0));
    }
}
