//! The kernel itself is asked, in both ways, about connections of this process.

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

fn ends_of(stream: &TcpStream) -> Ends {
    Ends::new(stream.local_addr().unwrap(), stream.peer_addr().unwrap())
}

fn own_user() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

fn works(way: Way, ends: &Ends) -> bool {
    let works = matches!(way(ends), Ok(Some(_)));
    if !works {
        println!("skipped: this kernel has one of the two ways alone");
    }
    works
}

#[test]
fn both_ways_tell_the_same() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Some((client, server)) = pair(address) else { continue };
        let mut seen = 0;
        for way in ways() {
            if !works(way, &ends_of(&server)) {
                continue;
            }
            seen += 1;
            let entry = way(&ends_of(&client)).unwrap().expect("a connection that is there");
            assert_eq!(entry.holder(), Some(own_user()), "{address}");
            // A port that nothing has, and one that something listens on.
            let listener = TcpListener::bind(address).unwrap();
            let ends = Ends::new(listener.local_addr().unwrap(), server.local_addr().unwrap());
            assert_eq!(way(&ends).unwrap(), None, "{address}");
        }
        assert!(seen > 0, "no way works here");
        assert_eq!(user(&server).unwrap(), Some(own_user()));
        assert_eq!(user(&client).unwrap(), Some(own_user()));
    }
}

#[test]
fn a_socket_of_ipv6_may_speak_ipv4() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let Ok(client) = TcpStream::connect(format!("[::ffff:127.0.0.1]:{port}")) else { return };
    let (server, _) = listener.accept().unwrap();
    for way in ways().into_iter().filter(|way| works(*way, &ends_of(&server))) {
        assert_eq!(way(&ends_of(&client)).unwrap().and_then(Entry::holder), Some(own_user()));
    }
    assert_eq!(user(&server).unwrap(), Some(own_user()));
}

#[test]
fn what_is_closed_or_half_closed_is_not_held() {
    let (client, server) = pair("127.0.0.1:0").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(user(&server).unwrap(), None, "half closed");
    let (client, server) = pair("127.0.0.1:0").unwrap();
    let ends = ends_of(&client);
    drop(client);
    assert_eq!(user(&server).unwrap(), None, "closed");
    for way in ways().into_iter().filter(|way| works(*way, &ends_of(&server))) {
        assert_eq!(way(&ends).unwrap().and_then(Entry::holder), None);
    }
    // Our own end is closed for writing.
    let (_client, server) = pair("127.0.0.1:0").unwrap();
    server.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(user(&server).unwrap(), None);
}

/// After a reset the next connection may have the same two addresses: the kernel shows it, and our end is not one of it.
#[test]
fn a_connection_that_was_reset_is_not_the_one_that_followed() {
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
    assert_eq!(ask(&ways(), ends).unwrap(), Some(own_user()), "what the kernel shows");
    assert!(!is_whole(&server));
    assert_eq!(user(&server).unwrap(), None);
}

#[test]
fn a_way_that_shows_not_even_our_end_is_passed_over() {
    let own = Ends::new("127.0.0.1:8000".parse().unwrap(), "127.0.0.1:9000".parse().unwrap());
    fn blind(_: &Ends) -> io::Result<Option<Entry>> {
        Ok(None)
    }
    fn broken(_: &Ends) -> io::Result<Option<Entry>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn shows_all(_: &Ends) -> io::Result<Option<Entry>> {
        Ok(Some(Entry { established: true, user: 7, inode: 1 }))
    }
    fn shows_ours(ends: &Ends) -> io::Result<Option<Entry>> {
        Ok((ends.local.port() == 8000).then_some(Entry { established: true, user: 7, inode: 1 }))
    }
    let check = |ways: &[Way], expect: Result<Option<u32>, io::ErrorKind>| {
        assert_eq!(ask(ways, own).map_err(|error| error.kind()), expect);
    };
    check(&[shows_all], Ok(Some(7)));
    check(&[blind, shows_all], Ok(Some(7)));
    check(&[broken, shows_all], Ok(Some(7)));
    check(&[shows_ours, shows_all], Ok(None));
    check(&[blind], Err(io::ErrorKind::Other));
    check(&[blind, broken], Err(io::ErrorKind::PermissionDenied));
    check(&[], Err(io::ErrorKind::Unsupported));
}

#[test]
fn who_is_trusted() {
    let check = |own, unknown, user, expect| assert_eq!(Trusted { own, unknown }.has(user), expect, "{user}");
    check(0, UNKNOWN, 0, true);
    check(0, UNKNOWN, 1000, false);
    check(1000, UNKNOWN, 1000, true);
    check(1000, UNKNOWN, 0, true);
    check(1000, UNKNOWN, 1001, false);
    check(UNKNOWN, UNKNOWN, UNKNOWN, false);
    check(UNKNOWN, UNKNOWN, 0, true);
    check(UNKNOWN, 1, UNKNOWN, false);
    // Whom this namespace does not know may be told as any number.
    check(1000, 1000, 1000, false);
    check(1000, 0, 0, false);
}
