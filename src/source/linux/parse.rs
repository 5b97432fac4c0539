//! Netlink messages taken apart: pure functions over bytes that read no socket, no file and no clock, and that answer
//! to hostile input with `Malformed` or with less, never with a panic.
//!
//! The kernel writes in its own byte order, so production always says `Order::NATIVE`; the order is an argument for the
//! sake of the tests, which read literal messages of both. The structures have the same layout on 32- and 64-bit kernels
//! but for one thing: where unaligned access is expensive, the kernel puts an empty padding attribute before
//! 64-bit payloads. Numbers are read byte by byte here, so that alignment never matters.
//!
//! Layouts: <https://docs.kernel.org/userspace-api/netlink/intro.html> and `include/uapi/linux/{netlink,rtnetlink,if_link}.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::text;
use crate::model::{Address, Counters, Link, Reading, Width};
use crate::source::LinkEvent;

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

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

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
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS_LINK_64: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_MAIN: u32 = 254;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 0x1;

pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;

/// Links whose IFLA_LINK names the other end of a cable, not something below them.
const PAIRS: [&str; 3] = ["veth", "vxcan", "netkit"];

const HEADER: usize = 16;
const STATS_HEADER: usize = 12;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

/// Where the eight counters of the model stand in the kernel's `rtnl_link_stats`, in the model's order.
const FIELDS: [usize; 8] = [2, 3, 0, 1, 4, 5, 6, 7];
/// No kernel ever sent fewer fields than it takes for the eight counters. `rx_missed_errors` stands further back: 0
/// where the structure ends before it.
const FIELDS_NEEDED: usize = 8;
const RX_MISSED: usize = 15;
const RX_DROPS: usize = 6;

/// Not what the kernel writes: cut short, or with a length that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// `Ok(None)`: well formed, and of no interest.
pub type Parsed<T> = std::result::Result<Option<T>, Malformed>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

impl Order {
    pub const NATIVE: Order = if cfg!(target_endian = "big") { Order::Big } else { Order::Little };

    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self == Order::Big { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self == Order::Big { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) })
    }

    fn u64(self, bytes: &[u8], at: usize) -> Option<u64> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self == Order::Big { u64::from_be_bytes(raw) } else { u64::from_le_bytes(raw) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// In a reply the port of the socket that asked, in a notification that of whoever caused it.
    pub port: u32,
    pub body: &'a [u8],
}

/// The messages of one datagram. Ends after the first `Malformed`: nothing behind a wrong length can be found.
pub struct Messages<'a> {
    order: Order,
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub fn new(order: Order, bytes: &'a [u8]) -> Messages<'a> {
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
            body: bytes.get(HEADER..length)?,
        };
        self.rest = after(bytes, length);
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

/// Attributes: (type, payload). A wrong length ends them silently, so that what stands before it is still found: an
/// emulator is known to hand nested attributes through unswapped. Whoever needs an attribute and misses it says
/// `Malformed`.
pub struct Attributes<'a> {
    order: Order,
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Those behind a fixed header of `header` bytes.
    fn behind(order: Order, body: &'a [u8], header: usize) -> Attributes<'a> {
        Attributes { order, rest: body.get(header..).unwrap_or(&[]) }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // The two highest bits of the type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        const TYPE: u16 = 0x3fff;
        let length = usize::from(self.order.u16(self.rest, 0)?);
        let kind = self.order.u16(self.rest, 2)? & TYPE;
        let payload = self.rest.get(4..length)?;
        self.rest = after(self.rest, length);
        Some((kind, payload))
    }
}

/// What follows something `length` bytes long, at the next multiple of four. The last one may lack its padding.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    length.checked_next_multiple_of(4).and_then(|end| bytes.get(end..)).unwrap_or(&[])
}

/// How a dump goes on after one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    Complete,
    /// It has ended, and the kernel says that it changed under way: some of it is missing or stands there twice.
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Malformed,
    /// The kernel's error number, positive.
    Refused(i32),
}

/// One dump, datagram by datagram. Messages that answer another question or another socket are passed over.
pub struct Dump {
    pub order: Order,
    pub seq: u32,
    pub port: u32,
    /// The kind of message that carries the answers.
    pub kind: u16,
    interrupted: bool,
}

impl Dump {
    pub fn new(order: Order, seq: u32, port: u32, kind: u16) -> Dump {
        Dump { order, seq, port, kind, interrupted: false }
    }

    /// What has come so far is not to be relied on.
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    pub fn feed(
        &mut self,
        datagram: &[u8],
        each: &mut dyn FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<Progress, Fault> {
        for message in Messages::new(self.order, datagram) {
            let message = message.map_err(|_| Fault::Malformed)?;
            if message.seq != self.seq || message.port != self.port {
                continue;
            }
            self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0 || message.kind == NLMSG_OVERRUN;
            match message.kind {
                NLMSG_ERROR => self.refusal(message.body.get(..4).ok_or(Fault::Malformed)?)?,
                // The payload of DONE is how the dump ended; very old kernels leave it out.
                NLMSG_DONE => {
                    self.refusal(message.body.get(..4).unwrap_or(&[0; 4]))?;
                    return Ok(if self.interrupted { Progress::Interrupted } else { Progress::Complete });
                }
                kind if kind == self.kind && !self.interrupted => each(message.body).map_err(|_| Fault::Malformed)?,
                _ => {}
            }
        }
        Ok(Progress::More)
    }

    /// Zero is an acknowledgement.
    fn refusal(&self, code: &[u8]) -> Result<(), Fault> {
        match self.order.u32(code, 0).unwrap_or(0).cast_signed() {
            0 => Ok(()),
            code => Err(Fault::Refused(code.saturating_neg())),
        }
    }
}

/// A request for a dump, in the machine's own byte order.
pub fn request(out: &mut Vec<u8>, kind: u16, seq: u32, header: &[u8], tail: &[u8]) {
    let length = (HEADER + header.len() + tail.len()) as u32;
    out.clear();
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(tail);
}

/// An answer to RTM_GETSTATS (`if_stats_msg`).
pub fn stats(order: Order, body: &[u8]) -> Parsed<Reading> {
    let ifindex = order.u32(body, 4).ok_or(Malformed)?;
    let counters = Attributes::behind(order, body, STATS_HEADER)
        .find(|(kind, _)| *kind == IFLA_STATS_LINK_64)
        .and_then(|(_, payload)| counters64(order, payload))
        .ok_or(Malformed)?;
    Ok(Some(Reading { ifindex, counters, width: Width::Bits64 }))
}

/// The counters in an RTM_NEWLINK (`ifinfomsg`): of 64 bits where the kernel has them, else of 32.
pub fn link_counters(order: Order, body: &[u8]) -> Parsed<Reading> {
    let Some(ifindex) = link_index(order, body)? else { return Ok(None) };
    let mut narrow = None;
    for (kind, payload) in Attributes::behind(order, body, LINK_HEADER) {
        match kind {
            IFLA_STATS64 => {
                let counters = counters64(order, payload).ok_or(Malformed)?;
                return Ok(Some(Reading { ifindex, counters, width: Width::Bits64 }));
            }
            IFLA_STATS => narrow = counters32(order, payload),
            _ => {}
        }
    }
    let counters = narrow.ok_or(Malformed)?;
    Ok(Some(Reading { ifindex, counters, width: Width::Bits32 }))
}

/// What an RTM_NEWLINK says of the link itself, with its name as the kernel has it: up to 15 bytes of any encoding.
pub fn link(order: Order, body: &[u8]) -> Parsed<(Link, Vec<u8>)> {
    const IFF_LOWER: usize = 8;
    let Some(ifindex) = link_index(order, body)? else { return Ok(None) };
    let hardware = order.u16(body, 2).ok_or(Malformed)?;
    let flags = order.u32(body, IFF_LOWER).ok_or(Malformed)?;
    let mut link = Link { ifindex, hardware, ..Link::default() };
    let mut raw_name: &[u8] = &[];
    let mut operstate = text::OPERSTATE_UNKNOWN;
    let mut elsewhere = false;
    for (kind, payload) in Attributes::behind(order, body, LINK_HEADER) {
        let number = order.u32(payload, 0).unwrap_or(0);
        match kind {
            IFLA_IFNAME => raw_name = string(payload),
            IFLA_ADDRESS => link.mac = text::mac(payload),
            IFLA_MTU => link.mtu = number,
            IFLA_MASTER => link.master = number,
            IFLA_LINK => link.lower = number,
            // The number in IFLA_LINK then belongs to another namespace's interfaces.
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_OPERSTATE => operstate = payload.first().copied().unwrap_or(text::OPERSTATE_UNKNOWN),
            IFLA_IFALIAS => link.alias = text::lossy(string(payload)),
            IFLA_LINKINFO => {
                if let Some((_, name)) = (Attributes { order, rest: payload }).find(|(kind, _)| *kind == IFLA_INFO_KIND)
                {
                    link.driver = text::lossy(string(name));
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
    if elsewhere || link.lower == ifindex || PAIRS.contains(&link.driver.as_str()) {
        link.lower = 0;
    }
    Ok(Some((link, raw_name.to_vec())))
}

/// A number that changes when a link is renamed, comes or goes: the sum of these over all links tells two sets apart.
pub fn link_mark(order: Order, body: &[u8]) -> Parsed<u64> {
    let Some(ifindex) = link_index(order, body)? else { return Ok(None) };
    let name = Attributes::behind(order, body, LINK_HEADER).find(|(kind, _)| *kind == IFLA_IFNAME);
    Ok(Some(text::mark(ifindex, string(name.ok_or(Malformed)?.1))))
}

/// An RTM_NEWADDR (`ifaddrmsg`) of IPv4 or IPv6.
pub fn address(order: Order, body: &[u8]) -> Parsed<Address> {
    let &[family, prefix, ..] = body else { return Err(Malformed) };
    let ifindex = order.u32(body, 4).ok_or(Malformed)?;
    if family != AF_INET && family != AF_INET6 {
        return Ok(None);
    }
    let (mut local, mut peer, mut broadcast) = (None, None, None);
    for (kind, payload) in Attributes::behind(order, body, ADDRESS_HEADER) {
        match kind {
            IFA_LOCAL => local = ip(family, payload),
            IFA_ADDRESS => peer = ip(family, payload),
            IFA_BROADCAST => broadcast = payload.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets)),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other side; without IFA_LOCAL it is ours.
    let ip = local.or(peer).ok_or(Malformed)?;
    Ok(Some(Address { ifindex, ip, prefix, broadcast }))
}

/// A default route: its metric and the link it leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub metric: u32,
    pub ifindex: u32,
}

/// An RTM_NEWROUTE (`rtmsg`), if it is a default route of the main table. OpenWrt's IPv6 default routes hold for one
/// source prefix only, so the source does not matter here.
pub fn default_route(order: Order, body: &[u8]) -> Parsed<Route> {
    let &[family, prefix, _, _, table, _, _, kind, ..] = body else { return Err(Malformed) };
    let flags = order.u32(body, 8).ok_or(Malformed)?;
    let wanted = (family == AF_INET || family == AF_INET6)
        && prefix == 0
        && kind == RTN_UNICAST
        && flags & (RTM_F_CLONED | RTNH_F_DEAD) == 0;
    if !wanted {
        return Ok(None);
    }
    let mut table = u32::from(table);
    let mut metric = 0;
    let mut ifindex = 0;
    for (kind, payload) in Attributes::behind(order, body, ROUTE_HEADER) {
        let number = order.u32(payload, 0).unwrap_or(0);
        match kind {
            RTA_TABLE => table = number,
            RTA_PRIORITY => metric = number,
            RTA_OIF => ifindex = number,
            // Several ways at once (`rtnexthop`): the first stands for all.
            RTA_MULTIPATH if ifindex == 0 => ifindex = order.u32(payload, 4).unwrap_or(0),
            _ => {}
        }
    }
    let route = Route { metric, ifindex };
    Ok((table == RT_TABLE_MAIN && ifindex != 0).then_some(route))
}

/// A notification. Nothing for kinds of message that concern neither links nor addresses.
pub fn event(order: Order, message: &Message<'_>) -> Parsed<LinkEvent> {
    match message.kind {
        RTM_NEWLINK => {
            let wireless = |(kind, _): (u16, &[u8])| kind == IFLA_WIRELESS;
            match link_counters(order, message.body) {
                Ok(reading) => {
                    Ok(reading.map(|reading| LinkEvent::Seen { ifindex: reading.ifindex, counters: reading.counters }))
                }
                // A wireless driver's own notices (a scan has ended, a station has gone) come as links without counters.
                Err(Malformed) if Attributes::behind(order, message.body, LINK_HEADER).any(wireless) => Ok(None),
                Err(Malformed) => Err(Malformed),
            }
        }
        RTM_DELLINK => Ok(link_index(order, message.body)?.map(|ifindex| LinkEvent::Gone { ifindex })),
        RTM_NEWADDR | RTM_DELADDR => Ok(Some(LinkEvent::Addresses)),
        _ => Ok(None),
    }
}

/// `None` for a message of a family of its own: a port that leaves its bridge is reported by an RTM_DELLINK of family
/// AF_BRIDGE while the link itself stays.
fn link_index(order: Order, body: &[u8]) -> Parsed<u32> {
    const AF_UNSPEC: u8 = 0;
    let ifindex = order.u32(body, 4).ok_or(Malformed)?;
    Ok((body.first() == Some(&AF_UNSPEC) && ifindex != 0).then_some(ifindex))
}

fn counters64(order: Order, fields: &[u8]) -> Option<Counters> {
    if fields.len() < FIELDS_NEEDED * 8 {
        return None;
    }
    let mut counters = Counters(FIELDS.map(|field| order.u64(fields, field * 8).unwrap_or(0)));
    let missed = order.u64(fields, RX_MISSED * 8).unwrap_or(0);
    // Both wrap, and so does the kernel's own sum in /proc/net/dev.
    counters.0[RX_DROPS] = counters.0[RX_DROPS].wrapping_add(missed);
    Some(counters)
}

fn counters32(order: Order, fields: &[u8]) -> Option<Counters> {
    if fields.len() < FIELDS_NEEDED * 4 {
        return None;
    }
    let mut narrow = FIELDS.map(|field| order.u32(fields, field * 4).unwrap_or(0));
    // The sum has to wrap where its parts do, or the difference of two readings would be off by 2^32.
    narrow[RX_DROPS] = narrow[RX_DROPS].wrapping_add(order.u32(fields, RX_MISSED * 4).unwrap_or(0));
    Some(Counters(narrow.map(u64::from)))
}

fn ip(family: u8, payload: &[u8]) -> Option<IpAddr> {
    if family == AF_INET {
        payload.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)))
    } else {
        payload.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets)))
    }
}

/// Up to the terminating zero, which need not be there.
fn string(payload: &[u8]) -> &[u8] {
    payload.split(|byte| *byte == 0).next().unwrap_or(&[])
}
