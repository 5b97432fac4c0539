//! Looks up a socket in `/proc/net/tcp` and `tcp6`, which list every TCP socket of this network namespace, one line
//! each (Documentation/networking/proc_net_tcp.rst). A lookup reads from the beginning to the line of the socket.
//! Parsing a line is pure.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{ByteOrder, Endpoints, Entry};

/// The first path shows the network namespace of this thread, and exists under systemd's `ProcSubset=pid` too. Kernels
/// before 3.17 have only the second.
const PROC_NET: [&str; 2] = ["/proc/thread-self/net", "/proc/net"];
/// Bytes to read at most: about 200,000 sockets.
const MAX_BYTES: u64 = 32 << 20;
const ESTABLISHED: &str = "01";

/// Looks up the socket with these two addresses.
pub fn find(ends: &Endpoints) -> io::Result<Option<Entry>> {
    // An IPv6 socket with IPv4-mapped addresses is listed in tcp6.
    let files: &[&str] = if ends.local.is_ipv4() { &["tcp", "tcp6"] } else { &["tcp6"] };
    let directory = PROC_NET.iter().map(Path::new).find(|path| path.exists()).unwrap_or(Path::new(PROC_NET[1]));
    let mut result = Err(io::ErrorKind::NotFound.into());
    for file in files {
        let found = File::open(directory.join(file)).and_then(|file| search(file, ends));
        match found {
            Ok(Some(entry)) => return Ok(Some(entry)),
            // A kernel without IPv6 has no tcp6; that is no error when tcp could be read.
            Err(error) if result.is_err() => result = Err(error),
            Err(_) => {}
            Ok(None) => result = Ok(None),
        }
    }
    result
}

fn search(table: impl Read, ends: &Endpoints) -> io::Result<Option<Entry>> {
    let mut lines = BufReader::new(table.take(MAX_BYTES));
    let mut text = String::new();
    while lines.read_line(&mut text)? > 0 {
        if let Some((found, entry)) = parse_line(ByteOrder::NATIVE, &text) {
            if found.local == ends.local && found.remote == ends.remote {
                return Ok(Some(entry));
            }
        }
        text.clear();
    }
    Ok(None)
}

/// Parses a line. `None` for the line of headings and for invalid lines.
fn parse_line(order: ByteOrder, text: &str) -> Option<(Endpoints, Entry)> {
    let mut words = text.split_ascii_whitespace();
    // Skips the number of the line (sl).
    words.next()?;
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    // Skips the queues, the timer and the retransmissions.
    let user = words.nth(3)?.parse().ok()?;
    // Skips the timeout.
    let inode = words.nth(1)?.parse().ok()?;
    let ends = Endpoints::new(parse_address(order, local)?, parse_address(order, remote)?);
    Some((ends, Entry { established: state == ESTABLISHED, user, inode }))
}

/// Parses an address such as `0100007F:1F40`: 32-bit words in hexadecimal, each one four bytes in network order read as
/// a number in the byte order of this machine, then the port.
fn parse_address(order: ByteOrder, text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let mut bytes = [0; 16];
    let (count, rest) = (words.len() / 8, words.len() % 8);
    if rest != 0 || !words.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for at in 0..count {
        let word = u32::from_str_radix(words.get(8 * at..8 * at + 8)?, 16).ok()?;
        bytes.get_mut(4 * at..4 * at + 4)?.copy_from_slice(&order.u32_bytes(word));
    }
    let ip: IpAddr = match count {
        1 => [bytes[0], bytes[1], bytes[2], bytes[3]].into(),
        4 => bytes.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    const LITTLE: &str = "   3: 0100007F:BC2C 0100007F:1F40 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 00000000a1b2c3d4 20 4 30 10 -1\n";
    const BIG: &str = "   3: 7F000001:BC2C 7F000001:1F40 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 00000000a1b2c3d4 20 4 30 10 -1\n";

    fn ends(local: &str, remote: &str) -> (SocketAddr, SocketAddr) {
        (local.parse().unwrap(), remote.parse().unwrap())
    }

    #[track_caller]
    fn check(order: ByteOrder, text: &str, expect: Option<((SocketAddr, SocketAddr), Entry)>) {
        let got = parse_line(order, text).map(|(ends, entry)| ((ends.local, ends.remote), entry));
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn lines_in_both_byte_orders() {
        let entry = Entry { established: true, user: 1000, inode: 12345 };
        let v4 = ends("127.0.0.1:48172", "127.0.0.1:8000");
        check(ByteOrder::Little, LITTLE, Some((v4, entry)));
        check(ByteOrder::Big, BIG, Some((v4, entry)));
        check(ByteOrder::Little, HEADINGS, None);

        let v6 = |words: &str| {
            format!(
                "0: {words}:BC2C {words}:1F40 01 00000000:00000000 00:00000000 00000000 1000 0 12345 1 x 20 4 30 10 -1"
            )
        };
        let one = ends("[::1]:48172", "[::1]:8000");
        check(ByteOrder::Little, &v6("00000000000000000000000001000000"), Some((one, entry)));
        check(ByteOrder::Big, &v6("00000000000000000000000000000001"), Some((one, entry)));
        check(ByteOrder::Little, &v6("0000000000000000FFFF00000100007F"), Some((v4, entry)));
        check(ByteOrder::Big, &v6("00000000000000000000FFFF7F000001"), Some((v4, entry)));
    }

    #[test]
    fn a_closed_socket_has_no_owner() {
        for state in ["02", "04", "05", "06", "08", "0A", "1", "", "01x"] {
            let text = LITTLE.replace(" 01 ", &format!(" {state} "));
            let entry = parse_line(ByteOrder::Little, &text).map(|(_, entry)| entry);
            assert_eq!(entry.and_then(Entry::owner), None, "{text}");
        }
        let closed = LITTLE.replace("1000        0 12345", "0        0 0");
        assert_eq!(parse_line(ByteOrder::Little, &closed).expect("a line").1.owner(), None);
        assert_eq!(parse_line(ByteOrder::Little, LITTLE).expect("a line").1.owner(), Some(1000));
    }

    #[test]
    fn damaged_lines_are_refused() {
        for end in 0..LITTLE.find(" 12345").unwrap() {
            check(ByteOrder::Little, &LITTLE[..end], None);
        }
        for (from, to) in [
            ("0100007F:BC2C", "0100007FBC2C"),
            ("0100007F:BC2C", "0100007:BC2C"),
            ("0100007F:BC2C", "+100007F:BC2C"),
            ("0100007F:BC2C", "0100007F0100007F:BC2C"),
            ("0100007F:BC2C", "0100007F:1BC2C"),
            ("0100007F:BC2C", ":BC2C"),
            ("0100007F:BC2C", "0100007F0100007F0100007F0100007F0100007F:BC2C"),
            ("  1000 ", "  -1 "),
            (" 12345 ", " 4294967296 "),
        ] {
            check(ByteOrder::Little, &LITTLE.replacen(from, to, 1), None);
        }
    }

    #[test]
    fn the_line_is_found_among_others() {
        let native = if ByteOrder::NATIVE == ByteOrder::Big { BIG } else { LITTLE };
        let others = native.replace("BC2C", "BC2D").repeat(5000);
        let (local, remote) = ends("127.0.0.1:48172", "127.0.0.1:8000");
        let table = format!("{HEADINGS}{others}{native}");
        let found = search(table.as_bytes(), &Endpoints::new(local, remote)).unwrap();
        assert_eq!(found.and_then(Entry::owner), Some(1000));
        assert_eq!(search(table.as_bytes(), &Endpoints::new(remote, local)).unwrap(), None);
        assert!(search(&b"\xff\xfe\n"[..], &Endpoints::new(local, remote)).is_err());
    }
}
