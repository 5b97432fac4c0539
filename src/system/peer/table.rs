//! `/proc/net/tcp` and `tcp6`: every TCP socket of this network namespace, a line each (proc_net_tcp in the kernel's
//! Documentation/networking). Read from the beginning to the line that is asked for. Reading a line is pure.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{Ends, Entry, Order};

/// The first is that of the thread that asks, and is there under `ProcSubset=pid` as well; kernels before 3.17 have only
/// the second.
const PROC_NET: [&str; 2] = ["/proc/thread-self/net", "/proc/net"];
/// Some 200,000 sockets: what is behind that is not looked for.
const LONGEST: u64 = 32 << 20;
const ESTABLISHED: &str = "01";

pub fn find(ends: &Ends) -> io::Result<Option<Entry>> {
    // A socket of IPv6 that speaks IPv4 stands among those of IPv6.
    let files: &[&str] = if ends.local.is_ipv4() { &["tcp", "tcp6"] } else { &["tcp6"] };
    let folder = PROC_NET.iter().map(Path::new).find(|path| path.exists()).unwrap_or(Path::new(PROC_NET[1]));
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for file in files {
        let found = File::open(folder.join(file)).and_then(|file| search(file, ends));
        match found {
            Ok(Some(entry)) => return Ok(Some(entry)),
            // A kernel without IPv6 has the first one alone.
            Err(error) if outcome.is_err() => outcome = Err(error),
            Err(_) => {}
            Ok(None) => outcome = Ok(None),
        }
    }
    outcome
}

fn search(table: impl Read, ends: &Ends) -> io::Result<Option<Entry>> {
    let mut lines = BufReader::new(table.take(LONGEST));
    let mut text = String::new();
    while lines.read_line(&mut text)? > 0 {
        if let Some((shown, entry)) = line(Order::NATIVE, &text) {
            if shown.local == ends.local && shown.remote == ends.remote {
                return Ok(Some(entry));
            }
        }
        text.clear();
    }
    Ok(None)
}

/// `None` for the headings.
fn line(order: Order, text: &str) -> Option<(Ends, Entry)> {
    let mut words = text.split_ascii_whitespace();
    // Its number.
    words.next()?;
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    // Queues, timer and retransmissions.
    let user = words.nth(3)?.parse().ok()?;
    // A timeout.
    let inode = words.nth(1)?.parse().ok()?;
    let ends = Ends::new(address(order, local)?, address(order, remote)?);
    Some((ends, Entry { established: state == ESTABLISHED, user, inode }))
}

/// Words of 32 bits in hexadecimal, each as this machine reads it from network order, and the port.
fn address(order: Order, text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let mut bytes = [0; 16];
    let (count, rest) = (words.len() / 8, words.len() % 8);
    if rest != 0 || !words.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for at in 0..count {
        let word = u32::from_str_radix(words.get(8 * at..8 * at + 8)?, 16).ok()?;
        bytes.get_mut(4 * at..4 * at + 4)?.copy_from_slice(&order.bytes(word));
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
    fn check(order: Order, text: &str, expect: Option<((SocketAddr, SocketAddr), Entry)>) {
        let got = line(order, text).map(|(ends, entry)| ((ends.local, ends.remote), entry));
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn lines_in_both_byte_orders() {
        let entry = Entry { established: true, user: 1000, inode: 12345 };
        let v4 = ends("127.0.0.1:48172", "127.0.0.1:8000");
        check(Order::Little, LITTLE, Some((v4, entry)));
        check(Order::Big, BIG, Some((v4, entry)));
        check(Order::Little, HEADINGS, None);

        let v6 = |words: &str| {
            format!(
                "0: {words}:BC2C {words}:1F40 01 00000000:00000000 00:00000000 00000000 1000 0 12345 1 x 20 4 30 10 -1"
            )
        };
        let one = ends("[::1]:48172", "[::1]:8000");
        check(Order::Little, &v6("00000000000000000000000001000000"), Some((one, entry)));
        check(Order::Big, &v6("00000000000000000000000000000001"), Some((one, entry)));
        check(Order::Little, &v6("0000000000000000FFFF00000100007F"), Some((v4, entry)));
        check(Order::Big, &v6("00000000000000000000FFFF7F000001"), Some((v4, entry)));
    }

    #[test]
    fn what_its_owner_has_closed_is_not_held() {
        for state in ["02", "04", "05", "06", "08", "0A", "1", "", "01x"] {
            let text = LITTLE.replace(" 01 ", &format!(" {state} "));
            let entry = line(Order::Little, &text).map(|(_, entry)| entry);
            assert_eq!(entry.and_then(Entry::holder), None, "{text}");
        }
        let closed = LITTLE.replace("1000        0 12345", "0        0 0");
        assert_eq!(line(Order::Little, &closed).expect("a line").1.holder(), None);
        assert_eq!(line(Order::Little, LITTLE).expect("a line").1.holder(), Some(1000));
    }

    #[test]
    fn what_is_damaged_is_not_believed() {
        for end in 0..LITTLE.find(" 12345").unwrap() {
            check(Order::Little, &LITTLE[..end], None);
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
            check(Order::Little, &LITTLE.replacen(from, to, 1), None);
        }
    }

    #[test]
    fn the_line_is_found_among_others() {
        let native = if Order::NATIVE == Order::Big { BIG } else { LITTLE };
        let others = native.replace("BC2C", "BC2D").repeat(5000);
        let (local, remote) = ends("127.0.0.1:48172", "127.0.0.1:8000");
        let table = format!("{HEADINGS}{others}{native}");
        let found = search(table.as_bytes(), &Ends::new(local, remote)).unwrap();
        assert_eq!(found.and_then(Entry::holder), Some(1000));
        assert_eq!(search(table.as_bytes(), &Ends::new(remote, local)).unwrap(), None);
        assert!(search(&b"\xff\xfe\n"[..], &Ends::new(local, remote)).is_err());
    }
}
