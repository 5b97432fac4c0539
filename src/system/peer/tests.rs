//! Tests of both lookups with the real kernel, on connections of this process.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket, sockopt,
};

use super::*;

fn pair(address: &str) -> Option<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(address).ok()?;
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    Some((client, server))
}

fn ends_of(stream: &TcpStream) -> Endpoints {
    Endpoints::new(stream.local_addr().unwrap(), stream.peer_addr().unwrap())
}

fn own_user() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

fn works(lookup: Lookup, ends: &Endpoints) -> bool {
    let works = matches!(lookup(ends), Ok(Some(_)));
    if !works {
        println!("skipped: this kernel supports only one of the two lookups");
    }
    works
}

#[test]
fn both_lookups_find_the_same_user() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Some((client, server)) = pair(address) else { continue };
        let mut working = 0;
        for lookup in lookups() {
            if !works(lookup, &ends_of(&server)) {
                continue;
            }
            working += 1;
            let entry = lookup(&ends_of(&client)).unwrap().expect("a connection that is there");
            assert_eq!(entry.owner(), Some(own_user()), "{address}");
            // Connections that do not exist, one of them at a port on which something listens.
            let listener = TcpListener::bind(address).unwrap();
            let ends = Endpoints::new(listener.local_addr().unwrap(), server.local_addr().unwrap());
            assert_eq!(lookup(&ends).unwrap(), None, "{address}");
        }
        assert!(working > 0, "no lookup works here");
        assert_eq!(user(&server).unwrap(), Some(own_user()));
        assert_eq!(user(&client).unwrap(), Some(own_user()));
    }
}

#[test]
fn an_ipv6_socket_with_ipv4_mapped_addresses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let Ok(client) = TcpStream::connect(format!("[::ffff:127.0.0.1]:{port}")) else { return };
    let (server, _) = listener.accept().unwrap();
    for lookup in lookups().into_iter().filter(|lookup| works(*lookup, &ends_of(&server))) {
        assert_eq!(lookup(&ends_of(&client)).unwrap().and_then(Entry::owner), Some(own_user()));
    }
    assert_eq!(user(&server).unwrap(), Some(own_user()));
}

#[test]
fn a_closed_or_half_closed_socket_has_no_owner() {
    let (client, server) = pair("127.0.0.1:0").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(user(&server).unwrap(), None, "half closed");
    let (client, server) = pair("127.0.0.1:0").unwrap();
    let ends = ends_of(&client);
    drop(client);
    assert_eq!(user(&server).unwrap(), None, "closed");
    for lookup in lookups().into_iter().filter(|lookup| works(*lookup, &ends_of(&server))) {
        assert_eq!(lookup(&ends).unwrap().and_then(Entry::owner), None);
    }
    // Our own end is closed.
    let (_client, server) = pair("127.0.0.1:0").unwrap();
    server.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(user(&server).unwrap(), None);
}

/// After a reset the next connection may have the same two addresses. The kernel shows its user, but our end is closed.
#[test]
fn the_next_connection_with_the_same_addresses_is_not_the_reset_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (source, ends) = (client.local_addr().unwrap(), ends_of(&server));
    let mut linger = getsockopt(&client, sockopt::Linger).unwrap();
    (linger.l_onoff, linger.l_linger) = (1, 0);
    setsockopt(&client, sockopt::Linger, &linger).unwrap();
    drop(client);

    let next = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&next, sockopt::ReuseAddr, &true).unwrap();
    bind(next.as_raw_fd(), &SockaddrStorage::from(source)).unwrap();
    connect(next.as_raw_fd(), &SockaddrStorage::from(listener.local_addr().unwrap())).unwrap();
    assert_eq!(look_up(&lookups(), ends).unwrap(), Some(own_user()), "the kernel shows the next connection");
    assert!(!is_open(&server));
    assert_eq!(user(&server).unwrap(), None);
}

#[test]
fn a_lookup_that_does_not_find_our_own_end_is_skipped() {
    let own = Endpoints::new("127.0.0.1:8000".parse().unwrap(), "127.0.0.1:9000".parse().unwrap());
    fn finds_nothing(_: &Endpoints) -> io::Result<Option<Entry>> {
        Ok(None)
    }
    fn fails(_: &Endpoints) -> io::Result<Option<Entry>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn finds_all(_: &Endpoints) -> io::Result<Option<Entry>> {
        Ok(Some(Entry { established: true, user: 7, inode: 1 }))
    }
    fn finds_ours(ends: &Endpoints) -> io::Result<Option<Entry>> {
        Ok((ends.local.port() == 8000).then_some(Entry { established: true, user: 7, inode: 1 }))
    }
    let check = |lookups: &[Lookup], expect: Result<Option<u32>, io::ErrorKind>| {
        assert_eq!(look_up(lookups, own).map_err(|error| error.kind()), expect);
    };
    check(&[finds_all], Ok(Some(7)));
    check(&[finds_nothing, finds_all], Ok(Some(7)));
    check(&[fails, finds_all], Ok(Some(7)));
    check(&[finds_ours, finds_all], Ok(None));
    check(&[finds_nothing], Err(io::ErrorKind::Other));
    check(&[finds_nothing, fails], Err(io::ErrorKind::PermissionDenied));
    check(&[], Err(io::ErrorKind::Unsupported));
}

#[test]
fn trusted_users_are_root_and_our_own() {
    let check =
        |own, overflow, user, expect| assert_eq!(TrustedUsers { own, overflow }.contains(user), expect, "{user}");
    check(0, OVERFLOW_UID, 0, true);
    check(0, OVERFLOW_UID, 1000, false);
    check(1000, OVERFLOW_UID, 1000, true);
    check(1000, OVERFLOW_UID, 0, true);
    check(1000, OVERFLOW_UID, 1001, false);
    check(OVERFLOW_UID, OVERFLOW_UID, OVERFLOW_UID, false);
    check(OVERFLOW_UID, OVERFLOW_UID, 0, true);
    check(OVERFLOW_UID, 1, OVERFLOW_UID, false);
    // The overflow UID can be set to any number, even to 0 or our own.
    check(1000, 1000, 1000, false);
    check(1000, 0, 0, false);
}
