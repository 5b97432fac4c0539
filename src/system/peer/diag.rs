//! sock_diag(7): the one socket with these addresses. The kernel answers from within `send`, and needs no rights of who
//! asks. Building and reading messages is pure.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::{Ends, Entry, Order};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;
const ENOENT: i32 = 2;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_msg` of linux/inet_diag.h; attributes may follow, and none are asked for.
const MESSAGE: usize = 72;
const SEQUENCE: u32 = 1;

pub fn find(ends: &Ends) -> io::Result<Option<Entry>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
    send(socket.as_raw_fd(), &question(Order::NATIVE, ends), MsgFlags::empty())?;
    let mut buffer = [0; 512];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    answer(Order::NATIVE, buffer.get(..length).unwrap_or_default(), ends)
}

/// An `inet_diag_req_v2` for exactly one socket, of any state, on any interface and with any cookie.
fn question(order: Order, ends: &Ends) -> Vec<u8> {
    let family = if ends.local.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut body = vec![family, IPPROTO_TCP, 0, 0];
    body.extend(order.bytes(u32::MAX));
    body.extend(ends.local.port().to_be_bytes());
    body.extend(ends.remote.port().to_be_bytes());
    body.extend(words(ends.local));
    body.extend(words(ends.remote));
    body.extend(order.bytes(0));
    body.extend([0xff; 8]);

    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(order.bytes((HEADER + body.len()) as u32));
    message.extend(order.short_bytes(SOCK_DIAG_BY_FAMILY));
    message.extend(order.short_bytes(NLM_F_REQUEST));
    message.extend(order.bytes(SEQUENCE));
    message.extend(order.bytes(0));
    message.extend(body);
    message
}

/// As the kernel has addresses here: in network order, with room for IPv6.
fn words(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
    }
}

/// `None` where there is no such socket. For a socket that is gone the kernel may show the one that listens on its port.
fn answer(order: Order, bytes: &[u8], ends: &Ends) -> io::Result<Option<Entry>> {
    let unfit = || io::Error::other("the answer of sock_diag cannot be understood");
    let message = Fields { order, bytes };
    let length = message.u32(0).ok_or_else(unfit)? as usize;
    if message.u32(8) != Some(SEQUENCE) {
        return Err(unfit());
    }
    let body = Fields { order, bytes: bytes.get(HEADER..length).ok_or_else(unfit)? };
    match message.u16(4) {
        Some(NLMSG_ERROR) => {
            let code = body.u32(0).ok_or_else(unfit)? as i32;
            match code.checked_neg() {
                Some(ENOENT) => Ok(None),
                Some(code) if code > 0 => Err(Errno::from_raw(code).into()),
                _ => Err(unfit()),
            }
        }
        Some(SOCK_DIAG_BY_FAMILY) if body.bytes.len() >= MESSAGE => {
            let (Some(shown), Some(user), Some(inode)) = (body.ends(), body.u32(64), body.u32(68)) else {
                return Err(unfit());
            };
            let same = shown.local == ends.local && shown.remote == ends.remote;
            let established = body.bytes.get(1) == Some(&TCP_ESTABLISHED);
            Ok(same.then_some(Entry { established, user, inode }))
        }
        _ => Err(unfit()),
    }
}

struct Fields<'a> {
    order: Order,
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(|bytes| self.order.short_number(bytes))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(|bytes| self.order.number(bytes))
    }

    /// Of an `inet_diag_msg`. A socket of IPv6 that speaks IPv4 is shown as one of IPv6.
    fn ends(&self) -> Option<Ends> {
        let family = *self.bytes.first()?;
        let address = |at: usize, port: usize| {
            let ip: IpAddr = match family {
                AF_INET => self.array::<4>(at)?.into(),
                AF_INET6 => self.array::<16>(at)?.into(),
                _ => return None,
            };
            Some(SocketAddr::new(ip, u16::from_be_bytes(self.array(port)?)))
        };
        Some(Ends::new(address(8, 4)?, address(24, 6)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(local: &str, remote: &str) -> Ends {
        Ends::new(local.parse().unwrap(), remote.parse().unwrap())
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    /// As Linux 6.18 has sent it on x86-64, for 127.0.0.1:48172 -> 127.0.0.1:8000 of the user 1000, attributes and all.
    const LITTLE: &str = "7c000000 14000000 01000000 533e0000
        02010000 bc2c1f40 7f000001 00000000 00000000 00000000 7f000001 00000000 00000000 00000000
        00000000 69020000 00000000 00000000 00000000 00000000 e8030000 866c0b01
        05000800 00000000 08000f00 00000000 0c001500 01000000 00000000 06001600 52000000";
    /// The same as a machine with the other byte order has it.
    const BIG: &str = "0000007c 00140000 00000001 00003e53
        02010000 bc2c1f40 7f000001 00000000 00000000 00000000 7f000001 00000000 00000000 00000000
        00000000 00000269 00000000 00000000 00000000 00000000 000003e8 010b6c86
        00050008 00000000 0008000f 00000000 000c0015 00000001 00000000 00060016 52000000";
    const SENT: Entry = Entry { established: true, user: 1000, inode: 0x010b_6c86 };

    #[test]
    fn questions_in_both_byte_orders() {
        let v4 = ends("127.0.0.1:48172", "127.0.0.1:8000");
        let body = "bc2c 1f40 7f000001 00000000 00000000 00000000 7f000001 00000000 00000000 00000000";
        let expect = bytes(&format!(
            "48000000 1400 0100 01000000 00000000 02 06 00 00 ffffffff {body} 00000000 ffffffff ffffffff"
        ));
        assert_eq!(question(Order::Little, &v4), expect);
        let expect = bytes(&format!(
            "00000048 0014 0001 00000001 00000000 02 06 00 00 ffffffff {body} 00000000 ffffffff ffffffff"
        ));
        assert_eq!(question(Order::Big, &v4), expect);
        let v6 = question(Order::Little, &ends("[::1]:1", "[fd00::2]:2"));
        let expect =
            bytes("0a 06 00 00 ffffffff 0001 0002 00000000000000000000000000000001 fd000000000000000000000000000002");
        assert_eq!(v6[16..60], expect);
        let mapped = question(Order::Little, &ends("[::ffff:127.0.0.1]:48172", "127.0.0.1:8000"));
        assert_eq!(mapped, question(Order::Little, &v4));
    }

    #[test]
    fn answers_in_both_byte_orders() {
        let asked = ends("127.0.0.1:48172", "127.0.0.1:8000");
        for (order, hex) in [(Order::Little, LITTLE), (Order::Big, BIG)] {
            let good = bytes(hex);
            assert_eq!(answer(order, &good, &asked).unwrap(), Some(SENT));
            let mut closing = good.clone();
            for state in [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 255] {
                closing[17] = state;
                assert!(!answer(order, &closing, &asked).unwrap().unwrap().established, "{state}");
            }
            // Without attributes.
            let mut shorter = good[..HEADER + MESSAGE].to_vec();
            shorter[..4].copy_from_slice(&order.bytes((HEADER + MESSAGE) as u32));
            assert_eq!(answer(order, &shorter, &asked).unwrap(), Some(SENT));
        }
    }

    #[test]
    fn a_socket_of_ipv6_that_speaks_ipv4() {
        let hex = "58000000 1400 0000 01000000 00000000 0a 01 00 00 bc2c 1f40
            00000000 00000000 0000ffff 7f000001 00000000 00000000 0000ffff 7f000001
            00000000 01020304 05060708 00000000 00000000 00000000 e8030000 39300000";
        let asked = ends("127.0.0.1:48172", "127.0.0.1:8000");
        assert_eq!(answer(Order::Little, &bytes(hex), &asked).unwrap().map(|entry| entry.user), Some(1000));
    }

    #[test]
    fn another_socket_than_was_asked_for_is_none() {
        for (local, remote) in [
            ("127.0.0.1:48173", "127.0.0.1:8000"),
            ("127.0.0.1:48172", "127.0.0.1:8001"),
            ("127.0.0.2:48172", "127.0.0.1:8000"),
            ("127.0.0.1:48172", "127.0.0.2:8000"),
            ("127.0.0.1:8000", "127.0.0.1:48172"),
            ("[::1]:48172", "[::1]:8000"),
        ] {
            assert_eq!(answer(Order::Little, &bytes(LITTLE), &ends(local, remote)).unwrap(), None, "{local} {remote}");
        }
    }

    #[test]
    fn errors_of_the_kernel() {
        let asked = ends("127.0.0.1:1", "127.0.0.1:2");
        let say = |code: i32| {
            let mut message = bytes("24000000 0200 0000 01000000 00000000");
            message.extend(code.to_le_bytes());
            message.extend([0; 16]);
            answer(Order::Little, &message, &asked)
        };
        assert_eq!(say(-2).unwrap(), None);
        assert_eq!(say(-1).unwrap_err().raw_os_error(), Some(1));
        for strange in [0, 2, i32::MAX, i32::MIN] {
            assert!(say(strange).is_err(), "{strange}");
        }
    }

    /// Cut anywhere, or with any byte changed, it is the truth or nothing: never a panic, and never another user's.
    #[test]
    fn what_is_damaged_is_not_believed() {
        let asked = ends("127.0.0.1:48172", "127.0.0.1:8000");
        let good = bytes(LITTLE);
        for end in 0..good.len() {
            assert!(answer(Order::Little, &good[..end], &asked).is_err(), "{end}");
        }
        for at in 0..good.len() {
            for change in [1, 0x10, 0x80, 0xff] {
                let mut damaged = good.clone();
                damaged[at] ^= change;
                let of_the_socket = at == 17 || (80..88).contains(&at);
                if let Ok(Some(entry)) = answer(Order::Little, &damaged, &asked) {
                    assert!(of_the_socket || entry == SENT, "{at}");
                }
            }
        }
        for length in [0_u32, 15, 16, 87, 125, 0x7fff_ffff, u32::MAX] {
            let mut damaged = good.clone();
            damaged[..4].copy_from_slice(&length.to_le_bytes());
            assert!(answer(Order::Little, &damaged, &asked).is_err(), "{length}");
        }
    }
}
