//! Where the program listens. An address that is told to it need not be there yet, or may still be checked for
//! duplicates: counting does not wait for it, and no start ends because of it. Where the system lets a socket be bound
//! before its address is there, it is; elsewhere binding is tried again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, listen, setsockopt, socket, sockopt,
};

use super::client;
use super::server::shown;
use crate::error::{Error, Result};
use crate::live::{Iface, State};
use crate::system::socket::bind_before_address;

/// Who finds it full is asked to come again after a second: a flood should not fill it before the gate has had its turn.
const BACKLOG: i32 = 512;

/// What came of binding.
#[derive(Default)]
pub struct Bound {
    pub listeners: Vec<TcpListener>,
    /// All that was asked for and can be had, whether or not something listens there yet.
    pub addresses: Vec<SocketAddr>,
    pub waiting: Vec<Waiting>,
}

/// An address on which nothing listens yet, and why.
pub struct Waiting {
    pub address: SocketAddr,
    errno: Errno,
}

/// Listens on `hosts`, or on all addresses where none is named: IPv4 and IPv6 each on a socket of its own, so that
/// neither depends on how the system thinks of the other. Port 0 picks one that is free for all of them.
///
/// Fails where the port is taken or forbidden; an address that is missing only waits.
pub fn bind(hosts: &[String], port: u16) -> Result<Bound> {
    let everywhere = hosts.is_empty();
    let addresses = resolve(hosts)?;
    // With port 0, what is free for the first address may be taken for the next.
    for last_try in (0..if port == 0 { 16 } else { 1 }).rev().map(|left| left == 0) {
        match bind_all(&addresses, port, everywhere) {
            Err((_, Errno::EADDRINUSE)) if !last_try => {}
            Err((address, errno)) => return Err(refusal(address, errno)),
            Ok(bound) => return Ok(bound),
        }
    }
    Err(Error::system("cannot listen", "no port is free on all addresses"))
}

/// The addresses that `hosts` mean, each once.
pub fn resolve(hosts: &[String]) -> Result<Vec<IpAddr>> {
    if hosts.is_empty() {
        return Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    }
    let names = std::fs::read("/etc/hosts").unwrap_or_default();
    let names = String::from_utf8_lossy(&names);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for host in hosts {
        let found = look_up(host, &names);
        if found.is_empty() {
            return Err(Error::usage(format!(
                "{}: no such address; give an IP address, or a name that stands in /etc/hosts",
                shown(host)
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

/// `names` is as /etc/hosts. No name server is asked: where to listen cannot wait for one, least of all on the
/// machine that is one, and the C library's resolver is 20 KB.
fn look_up(host: &str, names: &str) -> Vec<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse() {
        return vec![ip];
    }
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(ip)
    };
    let found: Vec<IpAddr> = names.lines().filter_map(line).collect();
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    found
}

fn bind_all(addresses: &[IpAddr], mut port: u16, everywhere: bool) -> std::result::Result<Bound, (SocketAddr, Errno)> {
    let mut bound = Bound::default();
    for ip in addresses {
        let mut address = SocketAddr::new(*ip, port);
        let spare = everywhere || *ip == Ipv6Addr::LOCALHOST && addresses.contains(&Ipv4Addr::LOCALHOST.into());
        match bind_one(address, !spare) {
            Ok(listener) => {
                port = listener.local_addr().map_or(port, |address| address.port());
                address.set_port(port);
                bound.listeners.push(listener);
            }
            // Routers often have IPv6 compiled out or switched off.
            Err(errno @ (Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EINVAL)) if spare && ip.is_ipv6() => {
                log::info!("no IPv6 here ({}): listening on IPv4 only", io::Error::from(errno));
                continue;
            }
            Err(errno @ (Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)) => bound.waiting.push(Waiting { address, errno }),
            Err(errno) => return Err((address, errno)),
        }
        bound.addresses.push(address);
    }
    Ok(bound)
}

/// Tries once more what waits. What fails for another reason by now waits on, with that reason.
pub fn bind_again(waiting: &mut Vec<Waiting>) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    waiting.retain_mut(|Waiting { address, errno }| match bind_one(*address, true) {
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

/// An address at which no client can reach us now.
pub struct Unreachable {
    pub address: SocketAddr,
    /// A sentence.
    pub why: String,
    /// One of our links has it: it may come by itself.
    pub pending: bool,
}

/// Which of `addresses` are such.
pub fn unreachable(addresses: &[SocketAddr], waiting: &[Waiting], state: &State) -> Vec<Unreachable> {
    let with_reason = |address: &SocketAddr| {
        let ip = address.ip();
        let of_a_link = |iface: &Iface| iface.addresses.iter().any(|own| own.ip == ip);
        let waits = waiting.iter().find(|waiting| waiting.address == *address).map(|waiting| waiting.errno);
        let pending = state.inventory.interfaces.iter().any(of_a_link);
        let why = match waits {
            Some(errno) if errno != Errno::EADDRNOTAVAIL => {
                format!("nothing can listen on {address} so far ({})", io::Error::from(errno))
            }
            None if is_usable(ip) => return None,
            // Checking for duplicates goes on for as long as there is no carrier.
            _ if pending => {
                format!("{ip} cannot be used yet: its link is down, or another machine may have the same address")
            }
            _ => format!("{ip} is no address of this machine: net-pulse is not reached there until it is"),
        };
        Some(Unreachable { address: *address, why, pending })
    };
    addresses.iter().filter_map(with_reason).collect()
}

/// Whether packets to it come here: only such an address can be bound without further ado.
fn is_usable(ip: IpAddr) -> bool {
    let of_many = ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    !of_many && UdpSocket::bind((ip, 0)).is_ok()
}

/// The standard library sets SO_REUSEADDR, but gives no chance to set IPV6_V6ONLY before binding.
/// `early`: also where the address is not there yet.
fn bind_one(address: SocketAddr, early: bool) -> std::result::Result<TcpListener, Errno> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket: OwnedFd = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if early {
        // Where the system cannot, the address waits.
        let _ = bind_before_address(&socket);
    }
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    // nix allows no more than the C library's own constant, and musl's is 128: there -1 stands for what the kernel allows.
    let backlog = Backlog::new(BACKLOG).or_else(|_| Backlog::new(-1)).unwrap_or(Backlog::MAXCONN);
    listen(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

fn refusal(address: SocketAddr, errno: Errno) -> Error {
    let port = address.port();
    match errno {
        Errno::EADDRINUSE => {
            let next = match client::who_is_at(address) {
                Some(who) => format!("{who} is running there already; stop it, or choose another with --port"),
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
    use crate::http::tests::{iface, quiet};
    use crate::model::Address;

    #[test]
    fn e48_both_families_have_one_port() {
        let listeners = bind(&[], 0).unwrap().listeners;
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert_ne!(addresses[0].port(), 0);
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port()), "{addresses:?}");
        assert!(addresses[0].is_ipv4());
        // A machine without IPv6 has the one.
        assert!(addresses.len() == 1 || addresses[1].is_ipv6());
    }

    #[test]
    fn hosts_as_they_are_written() {
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
    fn a_name_is_one_of_the_hosts_file() {
        let names =
            "127.0.0.1 localhost\n192.168.1.1\tRouter.lan router # the box\nfd00::1 router\n# 10.0.0.1 gone\nwrong x\n";
        let check = |host, expect: &[&str]| {
            let got: Vec<String> = look_up(host, names).iter().map(IpAddr::to_string).collect();
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
    fn refusals_name_the_thing_and_the_next_step() {
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
    fn addresses_that_are_not_there() {
        let check = |hosts: &[&str], on_a_link: &[&str], expect: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
            let bound = bind(&hosts, 0).unwrap();
            let live = quiet();
            let mut state = live.lock();
            let mut link = iface("lan0", 2);
            let address = |ip: &&str| Address { ifindex: 2, ip: ip.parse().unwrap(), prefix: 24, broadcast: None };
            link.addresses = on_a_link.iter().map(address).collect();
            state.inventory.interfaces = vec![link];
            assert!(bound.addresses.iter().all(|address| address.port() == bound.addresses[0].port()));
            let got = unreachable(&bound.addresses, &bound.waiting, &state);
            assert_eq!(got.len(), expect.len());
            for (Unreachable { address, why, pending }, expect) in got.iter().zip(expect) {
                assert!(why.contains(expect) && why.contains(&address.ip().to_string()), "{why}");
                assert_eq!(*pending, expect.contains("yet"));
            }
        };
        check(&[], &[], &[]);
        check(&["127.0.0.1", "127.3.4.5"], &[], &[]);
        check(&["127.0.0.1", "192.0.2.7"], &[], &["192.0.2.7 is no address of this machine"]);
        check(&["192.0.2.7"], &["192.0.2.7"], &["192.0.2.7 cannot be used yet"]);
        check(&["192.0.2.7", "192.0.2.8"], &["192.0.2.8"], &["no address of this machine", "cannot be used yet"]);
        check(&["224.0.0.1"], &[], &["no address of this machine"]);
    }

    /// As where the system cannot bind before the address is there.
    #[test]
    fn what_waits_is_tried_again() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let wait = |address| Waiting { address, errno: Errno::EADDRNOTAVAIL };
        let mut waiting = vec![wait(free), wait(taken.local_addr().unwrap())];
        let listeners = bind_again(&mut waiting);
        assert_eq!(listeners.iter().map(|it| it.local_addr().unwrap()).collect::<Vec<_>>(), [free]);
        assert_eq!(waiting.len(), 1);
        let addresses = [free, taken.local_addr().unwrap()];
        let told = unreachable(&addresses, &waiting, &quiet().lock());
        assert_eq!(told.len(), 1);
        assert!(told[0].why.contains("Address already in use"), "{}", told[0].why);
        drop(taken);
        assert_eq!((bind_again(&mut waiting).len(), waiting.len()), (1, 0));
    }
}
