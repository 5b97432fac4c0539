//! Looks up one socket by its two addresses with sock_diag(7). The caller needs no privileges, and the reply is ready
//! when `send` returns. Building requests and parsing replies is pure.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::{ByteOrder, Endpoints, Entry};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;
const ENOENT: i32 = 2;

/// Bytes of `struct nlmsghdr`, linux/netlink.h.
const HEADER_BYTES: usize = 16;
/// Bytes of `struct inet_diag_msg`, linux/inet_diag.h. Attributes may follow, although the request asks for none.
const MESSAGE_BYTES: usize = 72;
const SEQUENCE: u32 = 1;

/// Looks up the socket with these two addresses.
pub fn find(ends: &Endpoints) -> io::Result<Option<Entry>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
    send(socket.as_raw_fd(), &request(ByteOrder::NATIVE, ends), MsgFlags::empty())?;
    let mut buffer = [0; 512];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    parse_reply(ByteOrder::NATIVE, buffer.get(..length).unwrap_or_default(), ends)
}

/// Builds a request (`struct inet_diag_req_v2`) for exactly one socket, in any state, on any interface, with any
/// cookie.
fn request(order: ByteOrder, ends: &Endpoints) -> Vec<u8> {
    let family = if ends.local.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut body = vec![family, IPPROTO_TCP, 0, 0];
    body.extend(order.u32_bytes(u32::MAX));
    body.extend(ends.local.port().to_be_bytes());
    body.extend(ends.remote.port().to_be_bytes());
    body.extend(address_bytes(ends.local));
    body.extend(address_bytes(ends.remote));
    body.extend(order.u32_bytes(0));
    body.extend([0xff; 8]);

    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(order.u32_bytes((HEADER_BYTES + body.len()) as u32));
    message.extend(order.u16_bytes(SOCK_DIAG_BY_FAMILY));
    message.extend(order.u16_bytes(NLM_F_REQUEST));
    message.extend(order.u32_bytes(SEQUENCE));
    message.extend(order.u32_bytes(0));
    message.extend(body);
    message
}

/// The address as in `struct inet_diag_sockid`: network byte order, 16 bytes, the first 4 of them for IPv4.
fn address_bytes(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
    }
}

/// Parses a reply. `None` where there is no such socket. For a closed socket the kernel may return the listening socket
/// of the same port, so the addresses are compared.
fn parse_reply(order: ByteOrder, bytes: &[u8], ends: &Endpoints) -> io::Result<Option<Entry>> {
    let malformed = || io::Error::other("sock_diag sent an invalid reply");
    let message = Fields { order, bytes };
    let length = message.u32(0).ok_or_else(malformed)? as usize;
    if message.u32(8) != Some(SEQUENCE) {
        return Err(malformed());
    }
    let body = Fields { order, bytes: bytes.get(HEADER_BYTES..length).ok_or_else(malformed)? };
    match message.u16(4) {
        Some(NLMSG_ERROR) => {
            let code = body.u32(0).ok_or_else(malformed)? as i32;
            match code.checked_neg() {
                Some(ENOENT) => Ok(None),
                Some(code) if code > 0 => Err(Errno::from_raw(code).into()),
                _ => Err(malformed()),
            }
        }
        Some(SOCK_DIAG_BY_FAMILY) if body.bytes.len() >= MESSAGE_BYTES => {
            let (Some(found), Some(user), Some(inode)) = (body.ends(), body.u32(64), body.u32(68)) else {
                return Err(malformed());
            };
            let same = found.local == ends.local && found.remote == ends.remote;
            let established = body.bytes.get(1) == Some(&TCP_ESTABLISHED);
            Ok(same.then_some(Entry { established, user, inode }))
        }
        _ => Err(malformed()),
    }
}

struct Fields<'a> {
    order: ByteOrder,
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(|bytes| self.order.u16_from(bytes))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(|bytes| self.order.u32_from(bytes))
    }

    /// The two addresses of an `inet_diag_msg`. IPv6 sockets with IPv4-mapped addresses become IPv4.
    fn ends(&self) -> Option<Endpoints> {
        let family = *self.bytes.first()?;
        let address = |at: usize, port: usize| {
            let ip: IpAddr = match family {
                AF_INET => self.array::<4>(at)?.into(),
                AF_INET6 => self.array::<16>(at)?.into(),
                _ => return None,
            };
            Some(SocketAddr::new(ip, u16::from_be_bytes(self.array(port)?)))
        };
        Some(Endpoints::new(address(8, 4)?, address(24, 6)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(local: &str, remote: &str) -> Endpoints {
        Endpoints::new(local.parse().unwrap(), remote.parse().unwrap())
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    /// A reply of Linux 6.18 on x86-64 with its attributes: 127.0.0.1:48172 -> 127.0.0.1:8000, user 1000.
    const LITTLE: &str = "7c000000 14000000 01000000 533e0000
        02010000 bc2c1f40 7f000001 00000000 00000000 00000000 7f000001 00000000 00000000 00000000
        00000000 69020000 00000000 00000000 00000000 00000000 e8030000 866c0b01
        05000800 00000000 08000f00 00000000 0c001500 01000000 00000000 06001600 52000000";
    /// The same reply on a big-endian machine.
    const BIG: &str = "0000007c 00140000 00000001 00003e53
        02010000 bc2c1f40 7f000001 00000000 00000000 00000000 7f000001 00000000 00000000 00000000
        00000000 00000269 00000000 00000000 00000000 00000000 000003e8 010b6c86
        00050008 00000000 0008000f 00000000 000c0015 00000001 00000000 00060016 52000000";
    const EXPECTED: Entry = Entry { established: true, user: 1000, inode: 0x010b_6c86 };

    #[test]
    fn requests_in_both_byte_orders() {
        let v4 = ends("127.0.0.1:48172", "127.0.0.1:8000");
        let body = "bc2c 1f40 7f000001 00000000 00000000 00000000 7f000001 00000000 00000000 00000000";
        let expect = bytes(&format!(
            "48000000 1400 0100 01000000 00000000 02 06 00 00 ffffffff {body} 00000000 ffffffff ffffffff"
        ));
        assert_eq!(request(ByteOrder::Little, &v4), expect);
        let expect = bytes(&format!(
            "00000048 0014 0001 00000001 00000000 02 06 00 00 ffffffff {body} 00000000 ffffffff ffffffff"
        ));
        assert_eq!(request(ByteOrder::Big, &v4), expect);
        let v6 = request(ByteOrder::Little, &ends("[::1]:1", "[fd00::2]:2"));
        let expect =
            bytes("0a 06 00 00 ffffffff 0001 0002 00000000000000000000000000000001 fd000000000000000000000000000002");
        assert_eq!(v6[16..60], expect);
        let mapped = request(ByteOrder::Little, &ends("[::ffff:127.0.0.1]:48172", "127.0.0.1:8000"));
        assert_eq!(mapped, request(ByteOrder::Little, &v4));
    }

    #[test]
    fn replies_in_both_byte_orders() {
        let wanted = ends("127.0.0.1:48172", "127.0.0.1:8000");
        for (order, hex) in [(ByteOrder::Little, LITTLE), (ByteOrder::Big, BIG)] {
            let reply = bytes(hex);
            assert_eq!(parse_reply(order, &reply, &wanted).unwrap(), Some(EXPECTED));
            let mut closing = reply.clone();
            for state in [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 255] {
                closing[17] = state;
                assert!(!parse_reply(order, &closing, &wanted).unwrap().unwrap().established, "{state}");
            }
            // Without attributes.
            let mut shorter = reply[..HEADER_BYTES + MESSAGE_BYTES].to_vec();
            shorter[..4].copy_from_slice(&order.u32_bytes((HEADER_BYTES + MESSAGE_BYTES) as u32));
            assert_eq!(parse_reply(order, &shorter, &wanted).unwrap(), Some(EXPECTED));
        }
    }

    #[test]
    fn an_ipv6_socket_with_ipv4_mapped_addresses() {
        let hex = "58000000 1400 0000 01000000 00000000 0a 01 00 00 bc2c 1f40
            00000000 00000000 0000ffff 7f000001 00000000 00000000 0000ffff 7f000001
            00000000 01020304 05060708 00000000 00000000 00000000 e8030000 39300000";
        let wanted = ends("127.0.0.1:48172", "127.0.0.1:8000");
        assert_eq!(parse_reply(ByteOrder::Little, &bytes(hex), &wanted).unwrap().map(|entry| entry.user), Some(1000));
    }

    #[test]
    fn a_reply_about_another_socket_is_none() {
        for (local, remote) in [
            ("127.0.0.1:48173", "127.0.0.1:8000"),
            ("127.0.0.1:48172", "127.0.0.1:8001"),
            ("127.0.0.2:48172", "127.0.0.1:8000"),
            ("127.0.0.1:48172", "127.0.0.2:8000"),
            ("127.0.0.1:8000", "127.0.0.1:48172"),
            ("[::1]:48172", "[::1]:8000"),
        ] {
            assert_eq!(
                parse_reply(ByteOrder::Little, &bytes(LITTLE), &ends(local, remote)).unwrap(),
                None,
                "{local} {remote}"
            );
        }
    }

    #[test]
    fn errors_of_the_kernel() {
        let wanted = ends("127.0.0.1:1", "127.0.0.1:2");
        let reply = |code: i32| {
            let mut message = bytes("24000000 0200 0000 01000000 00000000");
            message.extend(code.to_le_bytes());
            message.extend([0; 16]);
            parse_reply(ByteOrder::Little, &message, &wanted)
        };
        assert_eq!(reply(-2).unwrap(), None);
        assert_eq!(reply(-1).unwrap_err().raw_os_error(), Some(1));
        for strange in [0, 2, i32::MAX, i32::MIN] {
            assert!(reply(strange).is_err(), "{strange}");
        }
    }

    /// A reply that is cut anywhere is refused. A reply with a changed byte causes no panic, and gives another entry
    /// only if the byte belongs to the state, the user or the inode.
    #[test]
    fn damaged_replies_are_refused() {
        let wanted = ends("127.0.0.1:48172", "127.0.0.1:8000");
        let reply = bytes(LITTLE);
        for end in 0..reply.len() {
            assert!(parse_reply(ByteOrder::Little, &reply[..end], &wanted).is_err(), "{end}");
        }
        for at in 0..reply.len() {
            for change in [1, 0x10, 0x80, 0xff] {
                let mut damaged = reply.clone();
                damaged[at] ^= change;
                let in_entry = at == 17 || (80..88).contains(&at);
                if let Ok(Some(entry)) = parse_reply(ByteOrder::Little, &damaged, &wanted) {
                    assert!(in_entry || entry == EXPECTED, "{at}");
                }
            }
        }
        for length in [0_u32, 15, 16, 87, 125, 0x7fff_ffff, u32::MAX] {
            let mut damaged = reply.clone();
            damaged[..4].copy_from_slice(&length.to_le_bytes());
            assert!(parse_reply(ByteOrder::Little, &damaged, &wanted).is_err(), "{length}");
        }
    }
}
