//! A small HTTP client for a net-pulse on this machine: for `net-pulse check`, with or without `--health`, and to name
//! the server that already uses a port. The server may be any program, so the answer is read up to a limit and within a
//! timeout.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use serde_json::Value;

use super::auth::REALM;
use super::json::SERVICE_NAME;
use crate::text::printable;
use crate::thread::{Queue, spawn};

/// Several times the longest answer of /api/system/health.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;
const MAX_TEXT_CHARS: usize = 500;
/// If the port is taken at the start: how long to wait for the name of the server that has it.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Name of the server at `address`, if it is net-pulse.
pub fn identify_server(address: SocketAddr) -> Option<String> {
    // On a thread of its own, so connecting and reading need no timeouts: if they hang, the thread ends with the
    // process.
    let results = Queue::default();
    let sender = results.clone();
    let probe = move || {
        let addresses = candidate_ips(address.ip()).into_iter().map(|ip| SocketAddr::new(ip, address.port()));
        sender.put(addresses.filter_map(|at| server_name(&http_get(connect(at).ok()?, at, "/", "").ok()?)).next());
    };
    spawn("identify", 0, Box::new(probe)).ok()?;
    results.take(IDENTIFY_TIMEOUT)?
}

/// Addresses at which another server may have the port: `ip` (loopback if it is `0.0.0.0` or `::`), and for `0.0.0.0`
/// or `::` also every address of this machine in the same family.
fn candidate_ips(ip: IpAddr) -> Vec<IpAddr> {
    let first = daemon_addresses(vec![ip], 0).into_iter().map(|address| address.ip());
    let others = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let ipv4 = address.as_sockaddr_in().map(|ipv4| IpAddr::from(ipv4.ip()));
        ipv4.or_else(|| address.as_sockaddr_in6().map(|ipv6| ipv6.ip().into()))
    });
    let others = others.filter(|other| ip.is_unspecified() && other.is_ipv4() == ip.is_ipv4());
    first.chain(others).collect()
}

fn server_name(answer: &[u8]) -> Option<String> {
    let Reply { status, head, body } = Reply::parse(answer)?;
    let text_member = |name| body.get(name).and_then(Value::as_str);
    match status.as_str() {
        "200" if text_member("name") == Some(SERVICE_NAME) => {
            Some(format!("net-pulse {}", printable_answer_text(text_member("version")?)))
        }
        // With `--private`, a client without the token gets 401; only its realm names net-pulse.
        "401" if head.contains(REALM) => Some("net-pulse".to_string()),
        _ => None,
    }
}

/// Addresses at which to reach the daemon from this machine. Loopback comes first: there, root and the user of
/// net-pulse need no token.
pub fn daemon_addresses(ips: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    let reachable_ip = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let (mut addresses, mut others) = (Vec::new(), Vec::new());
    for ip in ips.into_iter().map(reachable_ip) {
        let to = if ip.is_loopback() { &mut addresses } else { &mut others };
        to.push(SocketAddr::new(ip, port));
    }
    addresses.append(&mut others);
    addresses
}

/// Connects to an address of this machine. An address that it has lost may belong to another machine now, which must
/// not get the token. A socket can be bound only to this machine's own addresses, so `bind` fails for any other.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    UdpSocket::bind((address.ip(), 0))?;
    TcpStream::connect(address)
}

/// Sends a GET and reads until the server closes the connection. Uses HTTP/1.1, because the daemon trusts no local user
/// over HTTP/1.0.
pub fn http_get(mut stream: TcpStream, address: SocketAddr, path: &str, credentials: &str) -> io::Result<Vec<u8>> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{credentials}\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}

/// An HTTP answer with a JSON body.
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
        // `from_slice` as in the rest of the program: `from_str` would compile a second parser.
        Some(Reply { status, head: head.to_string(), body: serde_json::from_slice(body.as_bytes()).ok()? })
    }
}

/// Text from a server, printable and of limited length.
pub fn printable_answer_text(text: &str) -> String {
    printable(text, MAX_TEXT_CHARS)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn server_names() {
        let check = |answer: &str, expect: Option<&str>| {
            assert_eq!(server_name(answer.replace('|', "\r\n").as_bytes()).as_deref(), expect, "{answer}");
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
    fn daemon_addresses_loopback_first() {
        let check = |ips: &[&str], expect: &[&str]| {
            let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            let got: Vec<String> = daemon_addresses(ips, 80).iter().map(SocketAddr::to_string).collect();
            assert_eq!(got, expect);
        };
        check(&["0.0.0.0", "::"], &["127.0.0.1:80", "[::1]:80"]);
        check(&["::"], &["[::1]:80"]);
        check(&["192.168.1.1", "10.0.0.1"], &["192.168.1.1:80", "10.0.0.1:80"]);
        check(&["192.168.1.1", "::1", "127.0.0.2"], &["[::1]:80", "127.0.0.2:80", "192.168.1.1:80"]);
    }

    #[test]
    fn an_address_of_another_machine_is_not_tried() {
        let started = Instant::now();
        let error = connect("192.0.2.7:80".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn an_endless_answer_is_read_up_to_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"HTTP/1.1 200 OK\r\nX-More: and more\r\n").is_ok() {}
        });
        let answer = http_get(connect(address).unwrap(), address, "/health", "").unwrap();
        assert_eq!(answer.len() as u64, MAX_ANSWER_BYTES);
        server.join().unwrap();
    }
}
