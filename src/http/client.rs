//! Questions to a net-pulse that listens on this machine: how it is, and whether it is one. What answers need not be
//! net-pulse: only so much of it is read, and the caller waits no longer than it wants.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use serde_json::Value;

use super::guard::REALM;
use super::json::NAME;
use crate::text::printable;
use crate::thread::{Mailbox, spawn};

/// Several times what /api/system/health says at its longest.
const LONGEST_ANSWER: u64 = 64 * 1024;
const LONGEST_REASON: usize = 500;
/// A start that finds its port taken waits so long to be told by whom.
const PATIENCE: Duration = Duration::from_secs(1);

/// The name of what has this address, if that is net-pulse.
pub fn who_is_at(address: SocketAddr) -> Option<String> {
    // On a thread that ends with the process, so that no single wait needs a bound of its own.
    let answers = Mailbox::default();
    let there = answers.clone();
    let ask = move || {
        let asked = places(address.ip()).into_iter().map(|ip| SocketAddr::new(ip, address.port()));
        there.put(asked.filter_map(|at| name(&converse(connect(at).ok()?, at, "/", "").ok()?)).next());
    };
    spawn("who", 0, Box::new(ask)).ok()?;
    answers.take(PATIENCE)?
}

/// Where the port may be taken that this address needs: that one itself, or any of this machine's where it stands for all.
fn places(ip: IpAddr) -> Vec<IpAddr> {
    let loopback = reachable(vec![ip], 0).into_iter().map(|address| address.ip());
    let others = getifaddrs().into_iter().flatten().filter_map(|found| {
        let address = found.address?;
        let four = address.as_sockaddr_in().map(|four| IpAddr::from(four.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|six| six.ip().into()))
    });
    let others = others.filter(|other| ip.is_unspecified() && other.is_ipv4() == ip.is_ipv4());
    loopback.chain(others).collect()
}

fn name(answer: &[u8]) -> Option<String> {
    let Reply { status, head, body } = Reply::parse(answer)?;
    let word = |name| body.get(name).and_then(Value::as_str);
    match status.as_str() {
        "200" if word("name") == Some(NAME) => Some(format!("net-pulse {}", shown(word("version")?))),
        // A private one tells strangers no more than this.
        "401" if head.contains(REALM) => Some("net-pulse".to_string()),
        _ => None,
    }
}

/// Where the daemon listens, as seen from here; the loopback first, which is asked for no token.
pub fn reachable(found: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    let near = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let (mut addresses, mut others) = (Vec::new(), Vec::new());
    for ip in found.into_iter().map(near) {
        let to = if ip.is_loopback() { &mut addresses } else { &mut others };
        to.push(SocketAddr::new(ip, port));
    }
    addresses.append(&mut others);
    addresses
}

/// An address that this machine has lost may be somebody else's by now, who must not get the token. Only our own can be
/// bound.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    UdpSocket::bind((address.ip(), 0))?;
    TcpStream::connect(address)
}

/// In HTTP/1.1, because only there the daemon trusts the user of the socket. The answer ends with the connection.
pub fn converse(mut stream: TcpStream, address: SocketAddr, path: &str, credentials: &str) -> io::Result<Vec<u8>> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{credentials}\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// What a server says, if that is JSON in HTTP.
#[derive(Default)]
pub struct Reply {
    pub status: String,
    pub head: String,
    pub body: Value,
}

impl Reply {
    pub fn parse(answer: &[u8]) -> Option<Reply> {
        let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.")?.split_ascii_whitespace().nth(1)?.to_string();
        // From bytes, as everywhere in this program: from text would be the parser a second time.
        Some(Reply { status, head: head.to_string(), body: serde_json::from_slice(body.as_bytes()).ok()? })
    }
}

/// Enough of what a stranger says.
pub fn shown(text: &str) -> String {
    printable(text, LONGEST_REASON)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_it_is() {
        let check = |answer: &str, expect: Option<&str>| {
            assert_eq!(name(answer.replace('|', "\r\n").as_bytes()).as_deref(), expect, "{answer}");
        };
        check(r#"HTTP/1.1 200 OK||{"name":"Net-Pulse","version":"1.2.3"}"#, Some("net-pulse 1.2.3"));
        check(r#"HTTP/1.1 200 OK||{"name":"Net-Pulse","version":"\u001b[2J"}"#, Some("net-pulse ?[2J"));
        check(r#"HTTP/1.1 401 x|WWW-Authenticate: Bearer realm="net-pulse"||{"detail":"no"}"#, Some("net-pulse"));
        check(r#"HTTP/1.1 401 x|WWW-Authenticate: Bearer realm="other"||{"detail":"no"}"#, None);
        check(r#"HTTP/1.1 200 OK||{"name":"Other","version":"1.2.3"}"#, None);
        check(r#"HTTP/1.1 200 OK||{"name":"Net-Pulse"}"#, None);
        check(r#"HTTP/1.1 404 x||{"name":"Net-Pulse","version":"1.2.3"}"#, None);
        check("HTTP/1.1 200 OK||<html>Net-Pulse</html>", None);
        check("SSH-2.0-dropbear|", None);
        check("", None);
    }

    #[test]
    fn where_it_is_asked() {
        let check = |found: &[&str], expect: &[&str]| {
            let found = found.iter().map(|ip| ip.parse().unwrap()).collect();
            let got: Vec<String> = reachable(found, 80).iter().map(SocketAddr::to_string).collect();
            assert_eq!(got, expect);
        };
        check(&["0.0.0.0", "::"], &["127.0.0.1:80", "[::1]:80"]);
        check(&["::"], &["[::1]:80"]);
        check(&["192.168.1.1", "10.0.0.1"], &["192.168.1.1:80", "10.0.0.1:80"]);
        check(&["192.168.1.1", "::1", "127.0.0.2"], &["[::1]:80", "127.0.0.2:80", "192.168.1.1:80"]);
    }

    #[test]
    fn an_address_that_is_not_ours_is_not_even_tried() {
        let started = Instant::now();
        let error = connect("192.0.2.7:80".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn of_an_answer_without_an_end_the_beginning_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"HTTP/1.1 200 OK\r\nX-More: and more\r\n").is_ok() {}
        });
        let answer = converse(connect(address).unwrap(), address, "/health", "").unwrap();
        assert_eq!(answer.len() as u64, LONGEST_ANSWER);
        server.join().unwrap();
    }
}
