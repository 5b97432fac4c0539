//! Parses netlink messages: pure functions over bytes. Malformed input gives `Malformed` or a shorter result, never a
//! panic.
//!
//! The kernel writes in its own byte order, so the program always passes `ByteOrder::NATIVE`. The order is an
//! argument for the tests, which parse recorded messages of both orders. The layout of the structures is the same on
//! 32-bit and 64-bit kernels, with one exception: on architectures where unaligned access is expensive, the kernel
//! puts an empty padding attribute before 64-bit payloads. Numbers are read byte by byte here, so alignment does not
//! matter.
//!
//! Sources: <https://docs.kernel.org/userspace-api/netlink/intro.html> and
//! `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h`. They define the structures and constants below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::counters::{LOCATIONS, RX_MISSED};
use super::text;
use crate::model::{Address, Counters, Link, RX_DROPS, Reading, Width};
use crate::source::LinkNotification;

// Message types of route netlink (`rtnetlink.h`).
pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_DELADDR: u16 = 21;
pub const RTM_GETADDR: u16 = 22;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_GETROUTE: u16 = 26;
pub const RTM_NEWSTATS: u16 = 92;
pub const RTM_GETSTATS: u16 = 94;

// Flags and message types of netlink (`netlink.h`).
pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

// Attributes of links (`if_link.h`).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_STATS: u16 = 7;
const IFLA_MASTER: u16 = 10;
const IFLA_WIRELESS: u16 = 11;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
pub const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_STATS_LINK_64: u16 = 1;

// Attributes of addresses (`if_addr.h`).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

// Attributes, types, tables and flags of routes (`rtnetlink.h`).
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_MAIN: u32 = 254;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 0x1;

// Address families (`include/linux/socket.h`).
pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;

/// Drivers whose IFLA_LINK is the other end of a cable, not a link below.
const PAIRED_DRIVERS: [&str; 3] = ["veth", "vxcan", "netkit"];

// Sizes of `nlmsghdr`, `if_stats_msg`, `ifinfomsg`, `ifaddrmsg` and `rtmsg`.
const HEADER_BYTES: usize = 16;
const STATS_HEADER_BYTES: usize = 12;
const LINK_HEADER_BYTES: usize = 16;
const ADDRESS_HEADER_BYTES: usize = 8;
const ROUTE_HEADER_BYTES: usize = 12;

/// Every kernel sends at least this number of fields. Later fields, such as `rx_missed_errors`, count as 0 if the
/// structure ends before them.
const MIN_FIELDS: usize = 8;

/// The bytes are not what the kernel writes: they are truncated or have an impossible length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// `Ok(None)`: well formed, but not relevant here.
pub type Parsed<T> = std::result::Result<Option<T>, Malformed>;

/// Byte order of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub const NATIVE: ByteOrder = if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };

    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self == ByteOrder::Big { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self == ByteOrder::Big { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) })
    }

    fn u64(self, bytes: &[u8], at: usize) -> Option<u64> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self == ByteOrder::Big { u64::from_be_bytes(raw) } else { u64::from_le_bytes(raw) })
    }
}

/// A netlink message: the fields of its `nlmsghdr`, and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// In a reply the port of the requesting socket, in a notification the port of the process that caused it.
    pub port: u32,
    pub body: &'a [u8],
}

/// Iterates over the messages of one datagram. Ends after the first `Malformed`, because a wrong length hides where
/// the next message begins.
pub struct Messages<'a> {
    order: ByteOrder,
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub fn new(order: ByteOrder, bytes: &'a [u8]) -> Messages<'a> {
        Messages { order, rest: bytes }
    }

    fn split(&mut self) -> Option<Message<'a>> {
        let bytes = self.rest;
        let length = self.order.u32(bytes, 0)? as usize;
        let message = Message {
            kind: self.order.u16(bytes, 4)?,
            flags: self.order.u16(bytes, 6)?,
            seq: self.order.u32(bytes, 8)?,
            port: self.order.u32(bytes, 12)?,
            body: bytes.get(HEADER_BYTES..length)?,
        };
        self.rest = skip_padded(bytes, length);
        Some(message)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.split();
        if message.is_none() {
            self.rest = &[];
        }
        Some(message.ok_or(Malformed))
    }
}

/// Iterates over attributes: (type, payload). A wrong length ends the iteration without an error, so that earlier
/// attributes still count: one emulator is known to pass nested attributes in the wrong byte order. A function that
/// needs a missing attribute returns `Malformed`.
pub struct Attributes<'a> {
    order: ByteOrder,
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes after a fixed header of `header` bytes.
    fn after_header(order: ByteOrder, body: &'a [u8], header: usize) -> Attributes<'a> {
        Attributes { order, rest: body.get(header..).unwrap_or(&[]) }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // The two highest bits of the type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        const TYPE_MASK: u16 = 0x3fff;
        let length = usize::from(self.order.u16(self.rest, 0)?);
        let kind = self.order.u16(self.rest, 2)? & TYPE_MASK;
        let payload = self.rest.get(4..length)?;
        self.rest = skip_padded(self.rest, length);
        Some((kind, payload))
    }
}

/// Skips an item of `length` bytes and its padding to a multiple of four. The last item may lack its padding.
fn skip_padded(bytes: &[u8], length: usize) -> &[u8] {
    length.checked_next_multiple_of(4).and_then(|end| bytes.get(end..)).unwrap_or(&[])
}

/// State of a dump after one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpProgress {
    More,
    Complete,
    /// The dump has ended, and the kernel says that its data changed meanwhile: some items may be missing or appear
    /// twice.
    Interrupted,
}

/// Error in the messages of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpError {
    Malformed,
    /// The error number (errno) from the kernel, positive.
    Refused(i32),
}

/// Parses one dump, datagram by datagram. Ignores messages for another request or another socket.
pub struct Dump {
    pub order: ByteOrder,
    pub seq: u32,
    pub port: u32,
    /// Type of the messages that carry the answer.
    pub kind: u16,
    interrupted: bool,
}

impl Dump {
    pub fn new(order: ByteOrder, seq: u32, port: u32, kind: u16) -> Dump {
        Dump { order, seq, port, kind, interrupted: false }
    }

    /// Whether the kernel has marked the dump as interrupted, so that items may be missing.
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Parses the next datagram and calls `on_message` with the body of each message of type `kind`.
    pub fn feed(
        &mut self,
        datagram: &[u8],
        on_message: &mut dyn FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<DumpProgress, DumpError> {
        for message in Messages::new(self.order, datagram) {
            let message = message.map_err(|_| DumpError::Malformed)?;
            if message.seq != self.seq || message.port != self.port {
                continue;
            }
            self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0 || message.kind == NLMSG_OVERRUN;
            match message.kind {
                NLMSG_ERROR => self.check_error(message.body.get(..4).ok_or(DumpError::Malformed)?)?,
                // The payload of NLMSG_DONE is the error number of the dump. Kernels before 2.6.22 leave it out.
                NLMSG_DONE => {
                    self.check_error(message.body.get(..4).unwrap_or(&[0; 4]))?;
                    return Ok(if self.interrupted { DumpProgress::Interrupted } else { DumpProgress::Complete });
                }
                kind if kind == self.kind => on_message(message.body).map_err(|_| DumpError::Malformed)?,
                _ => {}
            }
        }
        Ok(DumpProgress::More)
    }

    /// `code`: the error number of NLMSG_ERROR or NLMSG_DONE, negative. Zero means success.
    fn check_error(&self, code: &[u8]) -> Result<(), DumpError> {
        match self.order.u32(code, 0).unwrap_or(0) as i32 {
            0 => Ok(()),
            code => Err(DumpError::Refused(code.saturating_neg())),
        }
    }
}

/// Writes a dump request to `out`, in the machine's byte order. Its body is `header` and `tail`.
pub fn request(out: &mut Vec<u8>, kind: u16, seq: u32, header: &[u8], tail: &[u8]) {
    let length = (HEADER_BYTES + header.len() + tail.len()) as u32;
    out.clear();
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(tail);
}

/// Parses an answer to RTM_GETSTATS (`if_stats_msg`).
pub fn stats(order: ByteOrder, body: &[u8]) -> Parsed<Reading> {
    let ifindex = order.u32(body, 4).ok_or(Malformed)?;
    let counters = Attributes::after_header(order, body, STATS_HEADER_BYTES)
        .find(|(kind, _)| *kind == IFLA_STATS_LINK_64)
        .and_then(|(_, payload)| counters64(order, payload))
        .ok_or(Malformed)?;
    Ok(Some(Reading { ifindex, counters, width: Width::Bits64 }))
}

/// Parses the counters in an RTM_NEWLINK (`ifinfomsg`): the 64-bit ones if the kernel has them, else the 32-bit ones.
pub fn link_counters(order: ByteOrder, body: &[u8]) -> Parsed<Reading> {
    let Some(ifindex) = link_index(order, body)? else { return Ok(None) };
    let mut fallback = None;
    for (kind, payload) in Attributes::after_header(order, body, LINK_HEADER_BYTES) {
        match kind {
            IFLA_STATS64 => {
                let counters = counters64(order, payload).ok_or(Malformed)?;
                return Ok(Some(Reading { ifindex, counters, width: Width::Bits64 }));
            }
            IFLA_STATS => fallback = counters32(order, payload),
            _ => {}
        }
    }
    let counters = fallback.ok_or(Malformed)?;
    Ok(Some(Reading { ifindex, counters, width: Width::Bits32 }))
}

/// Parses the attributes of a link in an RTM_NEWLINK. Also returns its name as the kernel has it: up to 15 bytes of
/// any encoding (IFNAMSIZ in `include/uapi/linux/if.h`).
pub fn link(order: ByteOrder, body: &[u8]) -> Parsed<(Link, Vec<u8>)> {
    const FLAGS_OFFSET: usize = 8;
    let Some(ifindex) = link_index(order, body)? else { return Ok(None) };
    let hardware = order.u16(body, 2).ok_or(Malformed)?;
    let flags = order.u32(body, FLAGS_OFFSET).ok_or(Malformed)?;
    let mut link = Link { ifindex, hardware_type: hardware, ..Link::default() };
    let mut raw_name: &[u8] = &[];
    let mut operstate = text::OPERSTATE_UNKNOWN;
    let mut other_namespace = false;
    for (kind, payload) in Attributes::after_header(order, body, LINK_HEADER_BYTES) {
        let number = order.u32(payload, 0).unwrap_or(0);
        match kind {
            IFLA_IFNAME => raw_name = string(payload),
            IFLA_ADDRESS => link.mac = text::mac(payload),
            IFLA_MTU => link.mtu = number,
            IFLA_MASTER => link.master = number,
            IFLA_LINK => link.lower = number,
            // IFLA_LINK is then an ifindex of another namespace.
            IFLA_LINK_NETNSID => other_namespace = true,
            IFLA_OPERSTATE => operstate = payload.first().copied().unwrap_or(text::OPERSTATE_UNKNOWN),
            IFLA_IFALIAS => link.alias = text::lossy(string(payload)),
            IFLA_PROP_LIST => link.altnames.extend(altnames(order, payload).map(text::lossy)),
            IFLA_LINKINFO => {
                for (kind, name) in (Attributes { order, rest: payload }) {
                    match kind {
                        IFLA_INFO_KIND => link.driver = text::lossy(string(name)),
                        IFLA_INFO_SLAVE_KIND => link.master_driver = text::lossy(string(name)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if raw_name.is_empty() {
        return Err(Malformed);
    }
    link.name = text::lossy(raw_name);
    link.up = text::is_up(operstate, flags);
    if other_namespace || link.lower == ifindex || PAIRED_DRIVERS.contains(&link.driver.as_str()) {
        link.lower = 0;
    }
    Ok(Some((link, raw_name.to_vec())))
}

/// Iterates over the alternative names of a link: up to 127 bytes each (ALTIFNAMSIZ in `include/uapi/linux/if.h`), of
/// any value.
fn altnames(order: ByteOrder, list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let altnames = (Attributes { order, rest: list }).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
    altnames.map(|(_, name)| string(name)).filter(|name| !name.is_empty())
}

/// Hash of a link. It changes if the link is renamed or its altnames change. Two different sets of links almost
/// certainly have different sums of these hashes.
pub fn link_hash(order: ByteOrder, body: &[u8]) -> Parsed<u64> {
    let Some(ifindex) = link_index(order, body)? else { return Ok(None) };
    let (mut name_hash, mut altname_hashes) = (None, 0u64);
    for (kind, payload) in Attributes::after_header(order, body, LINK_HEADER_BYTES) {
        match kind {
            IFLA_IFNAME => name_hash = Some(text::link_hash(ifindex, string(payload))),
            // `!ifindex` makes the hash change if a name and an altname are swapped.
            IFLA_PROP_LIST => {
                for altname in altnames(order, payload) {
                    altname_hashes = altname_hashes.wrapping_add(text::link_hash(!ifindex, altname));
                }
            }
            _ => {}
        }
    }
    Ok(Some(name_hash.ok_or(Malformed)?.wrapping_add(altname_hashes)))
}

/// Parses an RTM_NEWADDR (`ifaddrmsg`) of IPv4 or IPv6.
pub fn address(order: ByteOrder, body: &[u8]) -> Parsed<Address> {
    let &[family, prefix, ..] = body else { return Err(Malformed) };
    let ifindex = order.u32(body, 4).ok_or(Malformed)?;
    if family != AF_INET && family != AF_INET6 {
        return Ok(None);
    }
    let (mut local, mut peer, mut broadcast) = (None, None, None);
    for (kind, payload) in Attributes::after_header(order, body, ADDRESS_HEADER_BYTES) {
        match kind {
            IFA_LOCAL => local = ip(family, payload),
            IFA_ADDRESS => peer = ip(family, payload),
            IFA_BROADCAST => broadcast = payload.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets)),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the address of the peer. Without IFA_LOCAL it is our own.
    let ip = local.or(peer).ok_or(Malformed)?;
    Ok(Some(Address { ifindex, ip, prefix, broadcast }))
}

/// A default route: its metric and its outgoing link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub metric: u32,
    pub ifindex: u32,
}

/// Parses an RTM_NEWROUTE (`rtmsg`), if it is a default route of the main table. The source prefix does not matter:
/// IPv6 default routes of OpenWrt apply to one source prefix only.
pub fn default_route(order: ByteOrder, body: &[u8]) -> Parsed<DefaultRoute> {
    let &[family, prefix, _, _, table, _, _, kind, ..] = body else { return Err(Malformed) };
    let flags = order.u32(body, 8).ok_or(Malformed)?;
    let is_default_route = (family == AF_INET || family == AF_INET6)
        && prefix == 0
        && kind == RTN_UNICAST
        && flags & (RTM_F_CLONED | RTNH_F_DEAD) == 0;
    if !is_default_route {
        return Ok(None);
    }
    let mut table = u32::from(table);
    let mut metric = 0;
    let mut ifindex = 0;
    for (kind, payload) in Attributes::after_header(order, body, ROUTE_HEADER_BYTES) {
        let number = order.u32(payload, 0).unwrap_or(0);
        match kind {
            RTA_TABLE => table = number,
            RTA_PRIORITY => metric = number,
            RTA_OIF => ifindex = number,
            // A multipath route (`rtnexthop`): its first next hop counts.
            RTA_MULTIPATH if ifindex == 0 => ifindex = order.u32(payload, 4).unwrap_or(0),
            _ => {}
        }
    }
    let route = DefaultRoute { metric, ifindex };
    Ok((table == RT_TABLE_MAIN && ifindex != 0).then_some(route))
}

/// The link that a notification describes, with its attributes.
pub fn notified_link(order: ByteOrder, message: &Message<'_>) -> Option<Link> {
    let is_link_message = message.kind == RTM_NEWLINK || message.kind == RTM_DELLINK;
    let named_link = is_link_message.then(|| link(order, message.body).ok().flatten()).flatten();
    named_link.map(|(link, _)| link)
}

/// Parses a notification. `None` for a message that reports no change of a link or an address.
pub fn notification(order: ByteOrder, message: &Message<'_>) -> Parsed<LinkNotification> {
    match message.kind {
        RTM_NEWLINK => {
            let wireless = |(kind, _): (u16, &[u8])| kind == IFLA_WIRELESS;
            // The kernel sets all bits of `ifi_change` only for a link that was registered or moved in
            // (`rtnl_configure_link`, `register_netdevice`). Other changes, such as the first carrier of a link, are no
            // new link.
            let is_new = order.u32(message.body, 12) == Some(u32::MAX);
            match link_counters(order, message.body) {
                Ok(Some(reading)) if is_new => {
                    Ok(Some(LinkNotification::Added { ifindex: reading.ifindex, counters: reading.counters }))
                }
                Ok(reading) => Ok(reading.map(|reading| LinkNotification::Changed { ifindex: reading.ifindex })),
                // Wireless drivers send their own notices (the end of a scan, a station that left) as link messages
                // without counters.
                Err(Malformed) if Attributes::after_header(order, message.body, LINK_HEADER_BYTES).any(wireless) => {
                    Ok(None)
                }
                Err(Malformed) => Err(Malformed),
            }
        }
        RTM_DELLINK => Ok(link_index(order, message.body)?.map(|ifindex| {
            let reading = link_counters(order, message.body).ok().flatten();
            LinkNotification::Gone { ifindex, last: reading.map(|reading| reading.counters) }
        })),
        RTM_NEWADDR | RTM_DELADDR => Ok(Some(LinkNotification::Addresses)),
        _ => Ok(None),
    }
}

/// ifindex of a link message. `None` for a message of another address family: if a port leaves its bridge, the kernel
/// sends an RTM_DELLINK of family AF_BRIDGE although the link stays.
fn link_index(order: ByteOrder, body: &[u8]) -> Parsed<u32> {
    const AF_UNSPEC: u8 = 0;
    let ifindex = order.u32(body, 4).ok_or(Malformed)?;
    Ok((body.first() == Some(&AF_UNSPEC) && ifindex != 0).then_some(ifindex))
}

fn counters64(order: ByteOrder, fields: &[u8]) -> Option<Counters> {
    if fields.len() < MIN_FIELDS * 8 {
        return None;
    }
    let mut counters = Counters(LOCATIONS.map(|location| order.u64(fields, location.field * 8).unwrap_or(0)));
    let missed = order.u64(fields, RX_MISSED.field * 8).unwrap_or(0);
    // Both counters wrap, as does the kernel's own sum in /proc/net/dev.
    counters.0[RX_DROPS] = counters.0[RX_DROPS].wrapping_add(missed);
    Some(counters)
}

fn counters32(order: ByteOrder, fields: &[u8]) -> Option<Counters> {
    if fields.len() < MIN_FIELDS * 4 {
        return None;
    }
    let mut counters = LOCATIONS.map(|location| order.u32(fields, location.field * 4).unwrap_or(0));
    // The sum must wrap at 32 bits like its parts. Otherwise the difference of two readings could be wrong by 2^32.
    counters[RX_DROPS] = counters[RX_DROPS].wrapping_add(order.u32(fields, RX_MISSED.field * 4).unwrap_or(0));
    Some(Counters(counters.map(u64::from)))
}

fn ip(family: u8, payload: &[u8]) -> Option<IpAddr> {
    if family == AF_INET {
        payload.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)))
    } else {
        payload.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets)))
    }
}

/// A string up to its terminating zero, which may be missing.
fn string(payload: &[u8]) -> &[u8] {
    payload.split(|byte| *byte == 0).next().unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH_ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];
    const SEQ: u32 = 7;
    const PORT: u32 = 12016;

    fn u16_bytes(order: ByteOrder, number: u16) -> [u8; 2] {
        if order == ByteOrder::Big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32_bytes(order: ByteOrder, number: u32) -> [u8; 4] {
        if order == ByteOrder::Big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u64_bytes(order: ByteOrder, number: u64) -> [u8; 8] {
        if order == ByteOrder::Big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn attribute(order: ByteOrder, kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16_bytes(order, 4 + payload.len() as u16);
        padded([&length[..], &u16_bytes(order, kind), payload].concat())
    }

    fn message(order: ByteOrder, kind: u16, flags: u16, seq: u32, body: &[u8]) -> Vec<u8> {
        let length = u32_bytes(order, 16 + body.len() as u32);
        let numbers = [u16_bytes(order, kind), u16_bytes(order, flags)].concat();
        padded([&length[..], &numbers, &u32_bytes(order, seq), &u32_bytes(order, PORT), body].concat())
    }

    fn link_body(order: ByteOrder, family: u8, ifindex: u32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        changed_body(order, family, ifindex, flags, 0, attributes)
    }

    fn changed_body(
        order: ByteOrder,
        family: u8,
        ifindex: u32,
        flags: u32,
        change: u32,
        attributes: &[Vec<u8>],
    ) -> Vec<u8> {
        let numbers = [ifindex, flags, change].map(|number| u32_bytes(order, number)).concat();
        [&[family, 0][..], &u16_bytes(order, 1), &numbers, &attributes.concat()].concat()
    }

    fn stats_body(order: ByteOrder, ifindex: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        [[&[0; 4][..], &u32_bytes(order, ifindex), &u32_bytes(order, 1)].concat(), attributes.concat()].concat()
    }

    fn fields_64(order: ByteOrder, fields: &[u64]) -> Vec<u8> {
        fields.iter().flat_map(|field| u64_bytes(order, *field)).collect()
    }

    fn fields_32(order: ByteOrder, fields: &[u32]) -> Vec<u8> {
        fields.iter().flat_map(|field| u32_bytes(order, *field)).collect()
    }

    /// 1, 2, 3 ... in the order of the kernel: packets, bytes, errors, drops, ..., rx_missed_errors = 16.
    fn numbered_fields(length: usize) -> Vec<u64> {
        (1..=length as u64).collect()
    }

    /// The counters that the parser makes of the first `fields` of these numbers.
    fn expected_counters(fields: usize) -> Counters {
        let value = |field: usize| if field < fields { field as u64 + 1 } else { 0 };
        let mut counters = Counters(LOCATIONS.map(|location| value(location.field)));
        counters.0[RX_DROPS] += value(15);
        counters
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| text::hex(pair).unwrap() as u8).collect()
    }

    fn first_message(order: ByteOrder, datagram: &[u8]) -> Message<'_> {
        Messages::new(order, datagram).next().unwrap().unwrap()
    }

    fn feed(order: ByteOrder, datagrams: &[Vec<u8>]) -> (Vec<u32>, Result<DumpProgress, DumpError>) {
        let mut dump = Dump::new(order, SEQ, PORT, RTM_NEWSTATS);
        let mut seen = Vec::new();
        let mut last = Ok(DumpProgress::More);
        for datagram in datagrams {
            last = dump.feed(datagram, &mut |body| {
                seen.extend(stats(order, body)?.map(|reading| reading.ifindex));
                Ok(())
            });
        }
        (seen, last)
    }

    fn answer(order: ByteOrder, ifindex: u32) -> Vec<u8> {
        let attributes = [attribute(order, IFLA_STATS_LINK_64, &fields_64(order, &numbered_fields(25)))];
        message(order, RTM_NEWSTATS, 2, SEQ, &stats_body(order, ifindex, &attributes))
    }

    fn done(order: ByteOrder, flags: u16, code: i32) -> Vec<u8> {
        message(order, NLMSG_DONE, flags, SEQ, &u32_bytes(order, code as u32))
    }

    #[test]
    fn a_recorded_answer_of_a_64_bit_little_endian_kernel() {
        let mut recorded = bytes(
            "e8000000 5c00 0200 07000000 f02e0000 00000000 03000000 01000000 cc00 0100
             0200000000000000 0100000000000000 9000000000000000 5a00000000000000",
        );
        recorded.resize(0xe8, 0);
        let message = first_message(ByteOrder::Little, &recorded);
        assert_eq!((message.kind, message.seq, message.port), (RTM_NEWSTATS, SEQ, PORT));
        let counters = Counters::of([0x90, 0x5a, 2, 1, 0, 0, 0, 0]);
        let reading = Reading { ifindex: 3, counters, width: Width::Bits64 };
        assert_eq!(stats(ByteOrder::Little, message.body), Ok(Some(reading)));
    }

    #[test]
    fn a_recorded_answer_of_a_32_bit_big_endian_kernel_with_padding() {
        let mut recorded = bytes(
            "000000ec 005c 0002 00000007 00002ef0 00000000 00000003 00000001 0004 0000 00cc 0001
             0000000000000002 0000000000000001 0000000000000090 000000000000005a",
        );
        recorded.resize(0xec, 0);
        let message = first_message(ByteOrder::Big, &recorded);
        assert_eq!((message.kind, message.seq, message.port), (RTM_NEWSTATS, SEQ, PORT));
        let counters = Counters::of([0x90, 0x5a, 2, 1, 0, 0, 0, 0]);
        let reading = Reading { ifindex: 3, counters, width: Width::Bits64 };
        assert_eq!(stats(ByteOrder::Big, message.body), Ok(Some(reading)));
    }

    #[test]
    fn stats_of_each_length_that_kernels_have_sent() {
        #[track_caller]
        fn check(fields: usize, expect: Option<Counters>) {
            for order in BOTH_ORDERS {
                let attributes = [attribute(order, IFLA_STATS_LINK_64, &fields_64(order, &numbered_fields(fields)))];
                let got = stats(order, &stats_body(order, 9, &attributes));
                let reading = expect.map(|counters| Some(Reading { ifindex: 9, counters, width: Width::Bits64 }));
                assert_eq!(got, reading.ok_or(Malformed));
            }
        }
        assert_eq!(expected_counters(25).0[..8], [3, 4, 1, 2, 5, 6, 7 + 16, 8]);
        assert_eq!(expected_counters(8).0[..8], [3, 4, 1, 2, 5, 6, 7, 8]);
        for fields in [25, 23, 40, 16, 15, 8] {
            check(fields, Some(expected_counters(fields)));
        }
        check(7, None);
        check(0, None);
    }

    #[test]
    fn an_answer_without_its_counters_is_malformed() {
        for order in BOTH_ORDERS {
            assert_eq!(stats(order, &stats_body(order, 9, &[])), Err(Malformed));
            assert_eq!(stats(order, &[0; 7]), Err(Malformed));
            assert_eq!(link_counters(order, &link_body(order, 0, 9, 0, &[])), Err(Malformed));
        }
    }

    #[test]
    fn e3_64_bit_counters_are_preferred_in_any_order() {
        for order in BOTH_ORDERS {
            let old = attribute(order, IFLA_STATS, &fields_32(order, &[99; 23]));
            let new = attribute(order, IFLA_STATS64, &fields_64(order, &numbered_fields(24)));
            for attributes in [[old.clone(), new.clone()], [new, old]] {
                let reading = link_counters(order, &link_body(order, 0, 2, 0, &attributes)).unwrap().unwrap();
                assert_eq!((reading.counters, reading.width), (expected_counters(25), Width::Bits64));
            }
        }
    }

    #[test]
    fn e3_32_bit_counters_have_their_width_and_drops_wrap_at_32_bits() {
        for order in BOTH_ORDERS {
            let mut fields: Vec<u32> = (1..=23).collect();
            (fields[6], fields[15]) = (u32::MAX, 5);
            let old = attribute(order, IFLA_STATS, &fields_32(order, &fields));
            let reading = link_counters(order, &link_body(order, 0, 2, 0, &[old])).unwrap().unwrap();
            assert_eq!((reading.counters.0[RX_DROPS], reading.width), (4, Width::Bits32));
        }
    }

    #[test]
    fn a_link_with_all_attributes() {
        for order in BOTH_ORDERS {
            let info = [(IFLA_INFO_KIND, &b"vlan\0"[..]), (IFLA_INFO_SLAVE_KIND, b"bridge\0"), (3, b"else"), (5, b"")];
            let info = info.map(|(kind, name)| attribute(order, kind, name)).concat();
            let altnames = [&b"uplink\0"[..], b"enp3s0.7"].map(|name| attribute(order, IFLA_ALT_IFNAME, name)).concat();
            let attributes = [
                attribute(order, IFLA_IFNAME, b"eth0.7\0"),
                attribute(order, IFLA_MTU, &u32_bytes(order, 1400)),
                attribute(order, IFLA_ADDRESS, &[2, 0, 0, 0, 0, 0xb]),
                attribute(order, IFLA_IFALIAS, b"wan side\0"),
                attribute(order, IFLA_PROP_LIST | 0x8000, &altnames),
                attribute(order, IFLA_MASTER, &u32_bytes(order, 4)),
                attribute(order, IFLA_LINK, &u32_bytes(order, 2)),
                attribute(order, IFLA_OPERSTATE, &[6]),
                // NLA_F_NESTED, which only some kernels set.
                attribute(order, IFLA_LINKINFO | 0x8000, &info),
            ];
            let (got, name) = link(order, &link_body(order, 0, 3, 0x1043, &attributes)).unwrap().unwrap();
            let expect = Link {
                ifindex: 3,
                name: "eth0.7".into(),
                altnames: vec!["uplink".into(), "enp3s0.7".into()],
                hardware_type: 1,
                driver: "vlan".into(),
                master: 4,
                master_driver: "bridge".into(),
                lower: 2,
                mtu: 1400,
                mac: "02:00:00:00:00:0b".into(),
                alias: "wan side".into(),
                up: true,
                ..Link::default()
            };
            assert_eq!((got, name), (expect, b"eth0.7".to_vec()));
        }
    }

    #[test]
    fn altnames_may_be_any_bytes_and_other_properties_are_ignored() {
        #[track_caller]
        fn check(list: &[(u16, &[u8])], expect: &[&str]) {
            for order in BOTH_ORDERS {
                let list: Vec<u8> = list.iter().flat_map(|(kind, name)| attribute(order, *kind, name)).collect();
                let attributes = [attribute(order, IFLA_IFNAME, b"x\0"), attribute(order, IFLA_PROP_LIST, &list)];
                let body = link_body(order, 0, 3, 0, &attributes);
                assert_eq!(link(order, &body).unwrap().unwrap().0.altnames, expect);
                assert_eq!(
                    link_hash(order, &body).is_ok_and(|link_hash| link_hash == Some(text::link_hash(3, b"x"))),
                    expect.is_empty()
                );
            }
        }
        check(&[], &[]);
        check(&[(53, b"wan\0")], &["wan"]);
        check(&[(53, b"wan")], &["wan"]);
        check(&[(53, b"a\0"), (54, b"no\0"), (53, b"\0"), (53, b""), (53, b"b/ ,*\n\0")], &["a", "b/ ,*\n"]);
        check(&[(53, b"a\xffb\0")], &["a\u{fffd}b"]);
        let longest = "ü".repeat(63) + "x";
        check(&[(53, longest.as_bytes())], &[&longest]);
    }

    #[test]
    fn the_hash_changes_if_a_name_and_an_altname_are_swapped() {
        for order in BOTH_ORDERS {
            let link_hash = |name: &[u8], altnames: &[&[u8]]| {
                let list: Vec<u8> = altnames.iter().flat_map(|name| attribute(order, IFLA_ALT_IFNAME, name)).collect();
                let attributes = [attribute(order, IFLA_PROP_LIST, &list), attribute(order, IFLA_IFNAME, name)];
                link_hash(order, &link_body(order, 0, 3, 0, &attributes)).unwrap().unwrap()
            };
            let sets = [
                link_hash(b"a", &[]),
                link_hash(b"a", &[b"b"]),
                link_hash(b"b", &[b"a"]),
                link_hash(b"a", &[b"b", b"c"]),
            ];
            assert!((0..4).all(|at| !sets[at + 1..].contains(&sets[at])), "{sets:?}");
            assert_eq!(link_hash(b"a", &[b"b", b"c"]), link_hash(b"a", &[b"c", b"b"]));
        }
    }

    #[test]
    fn lower_links() {
        #[track_caller]
        fn check(lower: u32, kind: &[u8], netnsid: Option<i32>, expect: u32) {
            for order in BOTH_ORDERS {
                let mut attributes = vec![
                    attribute(order, IFLA_IFNAME, b"x\0"),
                    attribute(order, IFLA_LINK, &u32_bytes(order, lower)),
                    attribute(order, IFLA_LINKINFO, &attribute(order, IFLA_INFO_KIND, kind)),
                ];
                attributes.extend(netnsid.map(|id| attribute(order, IFLA_LINK_NETNSID, &u32_bytes(order, id as u32))));
                assert_eq!(link(order, &link_body(order, 0, 3, 0, &attributes)).unwrap().unwrap().0.lower, expect);
            }
        }
        check(2, b"vlan\0", None, 2);
        check(2, b"vlan", None, 2);
        check(2, b"vlan\0", Some(0), 0);
        check(2, b"vlan\0", Some(-1), 0);
        check(3, b"dummy\0", None, 0);
        check(2, b"veth\0", None, 0);
    }

    #[test]
    fn e33_an_unknown_state_is_up_if_the_flags_are_set() {
        #[track_caller]
        fn check(operstate: Option<u8>, flags: u32, expect: bool) {
            for order in BOTH_ORDERS {
                let mut attributes = vec![attribute(order, IFLA_IFNAME, b"wg0\0")];
                attributes.extend(operstate.map(|state| attribute(order, IFLA_OPERSTATE, &[state])));
                assert_eq!(link(order, &link_body(order, 0, 3, flags, &attributes)).unwrap().unwrap().0.up, expect);
            }
        }
        check(Some(0), 0x41, true);
        check(Some(0), 0x01, false);
        check(Some(0), 0x40, false);
        check(None, 0x41, true);
        check(Some(6), 0, true);
        check(Some(2), 0x41, false);
        check(Some(3), 0x41, false);
        check(Some(5), 0x41, false);
        check(Some(200), 0x41, false);
    }

    #[test]
    fn e14_names_may_be_any_fifteen_bytes() {
        #[track_caller]
        fn check(name: &[u8], expect: &str) {
            for order in BOTH_ORDERS {
                let body = link_body(order, 0, 3, 0, &[attribute(order, IFLA_IFNAME, name)]);
                let (link, raw) = link(order, &body).unwrap().unwrap();
                assert_eq!((link.name.as_str(), raw.as_slice()), (expect, name.strip_suffix(b"\0").unwrap_or(name)));
            }
        }
        check(b"fifteen.bytes-1\0", "fifteen.bytes-1");
        check(b"fifteen.bytes-1", "fifteen.bytes-1");
        check("päckchen~+=@#%\0".as_bytes(), "päckchen~+=@#%");
        check(b"a\xffb\0", "a\u{fffd}b");
        for order in BOTH_ORDERS {
            assert_eq!(link(order, &link_body(order, 0, 3, 0, &[])), Err(Malformed));
            let empty = attribute(order, IFLA_IFNAME, b"\0");
            assert_eq!(link(order, &link_body(order, 0, 3, 0, &[empty])), Err(Malformed));
        }
    }

    #[test]
    fn addresses() {
        #[track_caller]
        fn check(family: u8, prefix: u8, attributes: &[(u16, &[u8])], expect: Parsed<(&str, Option<&str>)>) {
            for order in BOTH_ORDERS {
                let start = [&[family, prefix, 0, 0][..], &u32_bytes(order, 3)].concat();
                let rest: Vec<u8> =
                    attributes.iter().flat_map(|(kind, payload)| attribute(order, *kind, payload)).collect();
                let expect = expect.map(|expect| {
                    expect.map(|(ip, broadcast)| Address {
                        ifindex: 3,
                        ip: ip.parse().unwrap(),
                        prefix,
                        broadcast: broadcast.map(|ip| ip.parse().unwrap()),
                    })
                });
                assert_eq!(address(order, &[start, rest].concat()), expect);
            }
        }
        let mut v6 = [0; 16];
        (v6[0], v6[1], v6[15]) = (0xfe, 0x80, 1);
        let v4 = [10, 1, 2, 3];
        check(2, 24, &[(1, &v4), (2, &v4), (4, &[10, 1, 2, 255])], Ok(Some(("10.1.2.3", Some("10.1.2.255")))));
        check(2, 32, &[(1, &[10, 9, 9, 9]), (2, &v4)], Ok(Some(("10.1.2.3", None))));
        check(10, 64, &[(1, &v6)], Ok(Some(("fe80::1", None))));
        check(7, 64, &[(1, &v6)], Ok(None));
        check(2, 24, &[], Err(Malformed));
        check(10, 64, &[(1, &v4)], Err(Malformed));
    }

    #[test]
    fn default_routes() {
        #[track_caller]
        fn check(header: [u8; 8], flags: u32, attributes: &[(u16, u32)], expect: Option<(u32, u32)>) {
            for order in BOTH_ORDERS {
                let start = [&header[..], &u32_bytes(order, flags)].concat();
                let rest: Vec<u8> = attributes
                    .iter()
                    .flat_map(|(kind, number)| match *kind {
                        // rtnexthop: length, flags, hops, then the ifindex.
                        RTA_MULTIPATH => attribute(
                            order,
                            RTA_MULTIPATH,
                            &[&u16_bytes(order, 8)[..], &[0; 2], &u32_bytes(order, *number)].concat(),
                        ),
                        kind => attribute(order, kind, &u32_bytes(order, *number)),
                    })
                    .collect();
                let expect = expect.map(|(metric, ifindex)| DefaultRoute { metric, ifindex });
                assert_eq!(default_route(order, &[start, rest].concat()), Ok(expect));
            }
        }
        const V4: [u8; 8] = [2, 0, 0, 0, 254, 3, 0, 1];
        const V6: [u8; 8] = [10, 0, 0, 0, 254, 3, 0, 1];
        check(V4, 0, &[(15, 254), (6, 50), (4, 3)], Some((50, 3)));
        check(V4, 0, &[(4, 3)], Some((0, 3)));
        check(V6, 0, &[(15, 254), (6, 1024), (4, 3)], Some((1024, 3)));
        // For one source prefix only, as on OpenWrt.
        check([10, 0, 56, 0, 254, 3, 0, 1], 0, &[(4, 3)], Some((0, 3)));
        check(V4, 0, &[(RTA_MULTIPATH, 5)], Some((0, 5)));
        // A network route, another table (twice), unreachable, dead, no link.
        check([2, 24, 0, 0, 254, 3, 0, 1], 0, &[(4, 3)], None);
        check([2, 0, 0, 0, 100, 3, 0, 1], 0, &[(4, 3)], None);
        check([2, 0, 0, 0, 252, 3, 0, 1], 0, &[(15, 1000), (4, 3)], None);
        check([10, 0, 0, 0, 254, 3, 0, 7], 0, &[(4, 3)], None);
        check(V4, 1, &[(4, 3)], None);
        check(V4, 0, &[], None);
        let recorded = bytes(
            "3c000000 1800 0200 07000000 f02e0000 02000000 fe030001 00000000 0800 0f00 fe000000 0800 0600 32000000
             0800 0500 0a010201 0800 0400 03000000",
        );
        let route = default_route(ByteOrder::Little, first_message(ByteOrder::Little, &recorded).body);
        assert_eq!(route, Ok(Some(DefaultRoute { metric: 50, ifindex: 3 })));
        assert_eq!(default_route(ByteOrder::Little, &[2, 0, 0]), Err(Malformed));
    }

    #[test]
    fn notifications_of_links_and_addresses() {
        #[track_caller]
        fn check(kind: u16, family: u8, attributes: fn(ByteOrder) -> Vec<Vec<u8>>, expect: Parsed<LinkNotification>) {
            for order in BOTH_ORDERS {
                let body = link_body(order, family, 3, 0, &attributes(order));
                let bytes = message(order, kind, 0, 0, &body);
                assert_eq!(notification(order, &first_message(order, &bytes)), expect);
            }
        }
        fn none(_: ByteOrder) -> Vec<Vec<u8>> {
            Vec::new()
        }
        fn with_counters(order: ByteOrder) -> Vec<Vec<u8>> {
            vec![attribute(order, IFLA_STATS64, &fields_64(order, &numbered_fields(25)))]
        }
        fn wireless(order: ByteOrder) -> Vec<Vec<u8>> {
            vec![attribute(order, IFLA_IFNAME, b"wlan0\0"), attribute(order, IFLA_WIRELESS, &[0; 8])]
        }
        check(RTM_NEWLINK, 0, with_counters, Ok(Some(LinkNotification::Changed { ifindex: 3 })));
        for order in BOTH_ORDERS {
            for (change, expect) in [
                (u32::MAX, LinkNotification::Added { ifindex: 3, counters: expected_counters(25) }),
                (u32::MAX >> 1, LinkNotification::Changed { ifindex: 3 }),
                (1, LinkNotification::Changed { ifindex: 3 }),
            ] {
                let body = changed_body(order, 0, 3, 0, change, &with_counters(order));
                let bytes = message(order, RTM_NEWLINK, 0, 0, &body);
                assert_eq!(notification(order, &first_message(order, &bytes)), Ok(Some(expect)), "{change:x}");
            }
        }
        check(RTM_NEWLINK, 0, none, Err(Malformed));
        check(RTM_NEWLINK, 0, wireless, Ok(None));
        check(RTM_DELLINK, 0, none, Ok(Some(LinkNotification::Gone { ifindex: 3, last: None })));
        // A port joins and leaves its bridge: the link stays.
        check(RTM_NEWLINK, 7, none, Ok(None));
        check(RTM_DELLINK, 7, none, Ok(None));
        check(RTM_NEWADDR, 2, none, Ok(Some(LinkNotification::Addresses)));
        check(RTM_DELADDR, 10, none, Ok(Some(LinkNotification::Addresses)));
        check(RTM_NEWROUTE, 2, none, Ok(None));
    }

    #[test]
    fn a_dump_is_complete_only_after_its_done_message() {
        for order in BOTH_ORDERS {
            let answers = [answer(order, 1), answer(order, 2)].concat();
            assert_eq!(feed(order, std::slice::from_ref(&answers)), (vec![1, 2], Ok(DumpProgress::More)));
            assert_eq!(feed(order, &[answers.clone(), done(order, 2, 0)]), (vec![1, 2], Ok(DumpProgress::Complete)));
            assert_eq!(feed(order, &[[answers, done(order, 2, 0)].concat()]), (vec![1, 2], Ok(DumpProgress::Complete)));
            assert_eq!(feed(order, &[done(order, 2, 0)]), (vec![], Ok(DumpProgress::Complete)));
            // Kernels before 2.6.22 send NLMSG_DONE without an error number.
            let bare = message(order, NLMSG_DONE, 2, SEQ, &[]);
            assert_eq!(feed(order, &[bare]), (vec![], Ok(DumpProgress::Complete)));
        }
    }

    #[test]
    fn e16_a_refusal_has_its_error_number() {
        for order in BOTH_ORDERS {
            let error = |code: i32| message(order, NLMSG_ERROR, 0, SEQ, &u32_bytes(order, code as u32));
            assert_eq!(feed(order, &[error(-95)]).1, Err(DumpError::Refused(95)));
            assert_eq!(feed(order, &[error(0)]).1, Ok(DumpProgress::More));
            assert_eq!(feed(order, &[error(i32::MIN)]).1, Err(DumpError::Refused(i32::MAX)));
            assert_eq!(feed(order, &[answer(order, 1), done(order, 2, -12)]).1, Err(DumpError::Refused(12)));
            assert_eq!(feed(order, &[message(order, NLMSG_ERROR, 0, SEQ, &[0; 3])]).1, Err(DumpError::Malformed));
        }
    }

    #[test]
    fn e17_an_interrupted_dump_is_reported_with_its_items() {
        for order in BOTH_ORDERS {
            let mut interrupted = answer(order, 2);
            interrupted[6..8].copy_from_slice(&u16_bytes(order, 2 | NLM_F_DUMP_INTR));
            let datagrams = [answer(order, 1), interrupted, answer(order, 3), done(order, 2, 0)];
            assert_eq!(feed(order, &datagrams), (vec![1, 2, 3], Ok(DumpProgress::Interrupted)));
            let datagrams = [answer(order, 1), done(order, 2 | NLM_F_DUMP_INTR, 0)];
            assert_eq!(feed(order, &datagrams), (vec![1], Ok(DumpProgress::Interrupted)));
            let overrun = message(order, NLMSG_OVERRUN, 0, SEQ, &[]);
            assert_eq!(feed(order, &[overrun, done(order, 2, 0)]).1, Ok(DumpProgress::Interrupted));
        }
    }

    #[test]
    fn replies_to_other_requests_are_ignored() {
        for order in BOTH_ORDERS {
            let old_reply = message(order, NLMSG_DONE, 2 | NLM_F_DUMP_INTR, SEQ - 1, &u32_bytes(order, 0));
            let mut other_port = answer(order, 1);
            other_port[12..16].copy_from_slice(&u32_bytes(order, PORT + 1));
            let other_kind = message(order, RTM_NEWLINK, 2, SEQ, &[]);
            let datagrams = [old_reply, other_port, other_kind, answer(order, 2), done(order, 2, 0)];
            assert_eq!(feed(order, &datagrams), (vec![2], Ok(DumpProgress::Complete)));
        }
    }

    #[test]
    fn impossible_lengths() {
        for order in BOTH_ORDERS {
            for length in [0, 1, 15, 41, u32::MAX, u32::MAX - 3] {
                let mut bytes = message(order, RTM_NEWSTATS, 0, SEQ, &[0; 24]);
                bytes[..4].copy_from_slice(&u32_bytes(order, length));
                assert_eq!(Messages::new(order, &bytes).collect::<Vec<_>>(), [Err(Malformed)]);
                assert_eq!(feed(order, &[bytes]).1, Err(DumpError::Malformed));
            }
            for short in 1..16 {
                assert_eq!(Messages::new(order, &[0; 16][..short]).next(), Some(Err(Malformed)));
            }
            // An attribute of length 0 must not cause an endless loop.
            for length in [0, 3, 13, u16::MAX] {
                let bytes =
                    [u16_bytes(order, length), u16_bytes(order, IFLA_IFNAME), [0; 2], [0; 2], [0; 2], [0; 2]].concat();
                assert_eq!((Attributes { order, rest: &bytes }).count(), 0);
            }
        }
    }

    #[test]
    fn a_request_has_the_length_in_its_header() {
        let mut out = vec![1, 2, 3];
        request(&mut out, RTM_GETSTATS, 5, &[0; 8], &1u32.to_ne_bytes());
        let message = first_message(ByteOrder::NATIVE, &out);
        assert_eq!((out.len(), message.kind, message.flags, message.seq), (28, RTM_GETSTATS, 0x301, 5));
        assert_eq!(message.body, [[0; 4], [0; 4], 1u32.to_ne_bytes()].concat());
    }

    /// Calls every parser with these bytes, and checks that the size of the input limits the size of the result.
    fn parse_everything(order: ByteOrder, bytes: &[u8]) {
        let mut messages = 0;
        for message in Messages::new(order, bytes) {
            messages += 1;
            let Ok(message) = message else { continue };
            assert!(message.body.len() + HEADER_BYTES <= bytes.len());
            let _ = notification(order, &message);
            parse_bodies(order, message.body);
        }
        assert!(messages <= bytes.len() / HEADER_BYTES + 1);
        parse_bodies(order, bytes);
        let mut answers = 0;
        let _ = Dump::new(order, SEQ, PORT, RTM_NEWSTATS).feed(bytes, &mut |_| {
            answers += 1;
            Ok(())
        });
        assert!(answers <= bytes.len() / HEADER_BYTES);
        let lines: Vec<&[u8]> = text::lines(bytes).collect();
        assert!(lines.len() <= bytes.len() + 1);
        for line in lines {
            for (_, name) in [text::ipv4_default(line), text::ipv6_default(line)].into_iter().flatten() {
                assert!(!name.is_empty() && name.len() < line.len());
            }
            let _ = (text::inet6_address(line), text::speed(line), text::operstate(line));
            assert!(text::mac_text(line).len() <= line.len().max(3 * 20));
        }
        let _ = (text::meminfo(bytes), text::cpu(bytes), text::uptime(bytes), text::resident(bytes));
        assert!(text::devtype(bytes).len() <= 3 * bytes.len());
    }

    fn parse_bodies(order: ByteOrder, body: &[u8]) {
        assert!(Attributes { order, rest: body }.count() <= body.len() / 4);
        let _ = (stats(order, body), link_counters(order, body), link_hash(order, body));
        let _ = (address(order, body), default_route(order, body));
        if let Ok(Some((link, raw))) = link(order, body) {
            assert!(!raw.is_empty() && raw.len() <= body.len());
            assert!(link.name.len() <= 3 * body.len() && link.alias.len() <= 3 * body.len());
            assert!(link.altnames.iter().map(String::len).sum::<usize>() <= 3 * body.len());
            assert!(link.mac.len() <= 3 * 20 && link.driver.len() + link.master_driver.len() <= 3 * body.len());
        }
    }

    #[test]
    fn mutated_buffers_never_panic() {
        let mut seeds: Vec<(ByteOrder, Vec<u8>)> = Vec::new();
        for order in BOTH_ORDERS {
            let kind = [IFLA_INFO_KIND, IFLA_INFO_SLAVE_KIND].map(|kind| attribute(order, kind, b"bridge\0")).concat();
            let attributes = [
                attribute(order, IFLA_IFNAME, b"br-lan\0"),
                attribute(order, IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]),
                attribute(order, IFLA_STATS, &fields_32(order, &[5; 23])),
                attribute(order, IFLA_STATS64, &fields_64(order, &numbered_fields(25))),
                attribute(order, IFLA_LINKINFO, &kind),
                attribute(order, IFLA_IFALIAS, b"home\0"),
                attribute(order, IFLA_PROP_LIST, &attribute(order, IFLA_ALT_IFNAME, b"the-lan\0")),
            ];
            let link = link_body(order, 0, 3, 0x41, &attributes);
            seeds.push((order, message(order, RTM_NEWLINK, 2, SEQ, &link)));
            seeds.push((order, message(order, RTM_DELLINK, 0, 0, &link[..16])));
            seeds.push((order, [answer(order, 1), answer(order, 2), done(order, 2, 0)].concat()));
            let local = [[2, 24, 0, 0], u32_bytes(order, 3)].concat();
            let local = [local, attribute(order, IFA_LOCAL, &[10, 0, 0, 1])].concat();
            seeds.push((order, message(order, RTM_NEWADDR, 2, SEQ, &local)));
            let hop =
                attribute(order, RTA_MULTIPATH, &[&u16_bytes(order, 8)[..], &[0; 2], &u32_bytes(order, 3)].concat());
            let route = [vec![2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0], hop].concat();
            seeds.push((order, message(order, RTM_NEWROUTE, 2, SEQ, &route)));
        }
        let texts = [
            "va\t00000000\t0102010A\t0003\t0\t0\t50\t00000000\t0\t0\t0\n",
            "fe80000000000000348993fffe777748 03 40 20 c0       va\n",
            "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3\nDEVTYPE=wlan\nMemTotal: 64 kB\nVmRSS: 3 kB\n12.5 3\n",
            "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
             00000000000000000000000000000000 ffffffff 00000001 00000000 00000001 lo\n02:00:00:00:00:0b\n",
        ];
        seeds.extend(texts.map(|text| (ByteOrder::NATIVE, text.as_bytes().to_vec())));

        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % below.max(1)
        };
        const EDGES: [u8; 8] = [0, 1, 3, 4, 0x7f, 0x80, 0xfe, 0xff];
        let mut buffer = Vec::new();
        for _ in 0..200_000 {
            let (order, seed) = &seeds[random(seeds.len())];
            buffer.clone_from(seed);
            for _ in 0..=random(4) {
                let at = random(buffer.len());
                match random(6) {
                    0 => buffer.truncate(at),
                    1 => buffer.extend_from_slice(&seed[at.min(seed.len())..]),
                    2 if !buffer.is_empty() => {
                        buffer.remove(at);
                    }
                    3 if !buffer.is_empty() => buffer[at] ^= 1 << random(8),
                    4 if !buffer.is_empty() => buffer[at] = random(256) as u8,
                    _ if !buffer.is_empty() => buffer[at] = EDGES[random(EDGES.len())],
                    _ => {}
                }
            }
            parse_everything(*order, &buffer);
        }
    }
}
