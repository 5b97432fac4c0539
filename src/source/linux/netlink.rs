//! Counters and links over a route netlink socket: one question, one dump. A dump that the kernel calls interrupted (links
//! came or went meanwhile) is asked for again, and when that does not help, all that these dumps have shown is the answer:
//! each link in it has been there, and of one that is missing nothing is known.
//!
//! Two sockets. One asks. The other, not blocking, listens to link and address notifications; when the kernel had to
//! drop some (ENOBUFS), everything is looked at again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::parse::{self, Dump, Malformed, Messages, Order, Parsed, Progress};
use super::{NO_REPORTS, SYS_CLASS_NET, Wake, class_net};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Address, Link, Reading};
use crate::source::{EVENTS_AT_ONCE, LinkEvent, Source, Woken};

/// The kernel fills at most this much into one datagram of a dump, however much room it is given
/// (`netlink_recvmsg` in net/netlink/af_netlink.c): 140 interfaces' counters.
const BUFFER_BYTES: usize = 32 * 1024;
/// One message can be larger than that, with many virtual functions on a card; nothing is larger than this.
const BUFFER_MAX: usize = 1024 * 1024;
/// So many dumps that change under way have to do. Each costs as much as a tick.
const TRIES: u32 = 3;
/// Dumps that fail otherwise, for want of room.
const ATTEMPTS: u32 = 8;
/// The kernel answers from within `recv`: silence means that the answer got lost.
const PATIENCE_S: i64 = 2;
/// What may queue up between two looks: some 400 reports, the time of a look at a thousand links in a flood. Without
/// CAP_NET_ADMIN the kernel caps it at `net.core.rmem_max`, which is no error.
const EVENT_BYTES: usize = 1024 * 1024;
/// Notifications taken in one go, so that a storm of them cannot hold up a tick for ever, and its reports take little memory.
const NOTIFICATIONS_AT_ONCE: usize = EVENTS_AT_ONCE;

const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;

/// A question and the kind of its answers. The body is a fixed header of zeros and what follows it.
struct Ask {
    name: &'static str,
    request: u16,
    reply: u16,
    header: &'static [u8],
    tail: &'static [u8],
    /// A dump that is longer is left behind at this point, and what has come is the answer.
    enough_bytes: usize,
    /// What interrupted dumps have shown counts all together, and not the latest one alone: kernels before 6.9 can pass over
    /// a link when another one goes.
    together: bool,
}

/// The last field of `if_stats_msg`: IFLA_STATS_LINK_64 only.
const STATS_FILTER: [u8; 4] = 1u32.to_ne_bytes();
/// Leaves the statistics of IPv6 and of virtual functions out of a dump of links: a third of it. The counters of the links
/// come all the same, and kernels that do not know this send everything.
const SKIP_STATS: [u8; 8] = {
    const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
    let ([a, b], [c, d]) = (8u16.to_ne_bytes(), parse::IFLA_EXT_MASK.to_ne_bytes());
    let [e, f, g, h] = RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
    [a, b, c, d, e, f, g, h]
};

const STATS: Ask = Ask {
    name: "RTM_GETSTATS",
    request: parse::RTM_GETSTATS,
    reply: parse::RTM_NEWSTATS,
    header: &[0; 8],
    tail: &STATS_FILTER,
    enough_bytes: usize::MAX,
    together: true,
};
const LINKS: Ask = Ask {
    name: "RTM_GETLINK",
    request: parse::RTM_GETLINK,
    reply: parse::RTM_NEWLINK,
    header: &[0; 16],
    tail: &SKIP_STATS,
    enough_bytes: usize::MAX,
    together: true,
};
const ADDRESSES: Ask = Ask {
    name: "RTM_GETADDR",
    request: parse::RTM_GETADDR,
    reply: parse::RTM_NEWADDR,
    header: &[0; 8],
    tail: &[],
    enough_bytes: usize::MAX,
    together: false,
};
/// A router may have the whole Internet's routes, a million of them. The default routes come first: the kernel walks
/// each table in order of destination, and the main table stands last but one.
const ROUTES_V4: Ask = Ask {
    name: "RTM_GETROUTE",
    request: parse::RTM_GETROUTE,
    reply: parse::RTM_NEWROUTE,
    header: &[parse::AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    tail: &[],
    enough_bytes: 1024 * 1024,
    together: false,
};
const ROUTES_V6: Ask = Ask { header: &[parse::AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], ..ROUTES_V4 };

/// Which of the two dumps the counters come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    GetStats,
    GetLink,
}

pub struct Netlink {
    how: How,
    wire: Wire,
    /// `None` where notifications cannot be had: `census` then tells whether the links have changed.
    events: Option<Socket>,
    census: u64,
    marks: Vec<u64>,
    /// The links have changed, or reports of it were lost: `events` has to say so.
    lost: bool,
    /// The latest look at the links was a whole one.
    whole: bool,
    sys: PathBuf,
}

impl Netlink {
    pub fn open(how: How) -> Result<Netlink> {
        Netlink::with(how, BUFFER_BYTES, SYS_CLASS_NET.into())
    }

    pub fn with(how: How, buffer_bytes: usize, sys: PathBuf) -> Result<Netlink> {
        // Listening begins before anything is asked, so that no change falls between the two.
        let events = Socket::listen().ok();
        let wire = Wire::open(buffer_bytes)?;
        let mut source = Netlink { how, wire, events, census: 0, marks: Vec::new(), lost: false, whole: true, sys };
        if source.events.is_none() {
            source.changed();
        }
        Ok(source)
    }

    /// Whether the set of links is another than at the previous call. When it cannot be asked, it has not changed: the
    /// next reading of the counters will tell why.
    fn changed(&mut self) -> bool {
        match self.wire.collect(&LINKS, &mut self.marks, parse::link_mark) {
            Ok(true) => {}
            Ok(false) => return true,
            Err(_) => return false,
        }
        let census = self.marks.iter().fold(0u64, |sum, mark| sum.wrapping_add(*mark));
        std::mem::replace(&mut self.census, census) != census
    }
}

impl Source for Netlink {
    fn name(&self) -> &'static str {
        match self.how {
            How::GetStats => "getstats",
            How::GetLink => "getlink",
        }
    }

    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        let whole = match self.how {
            How::GetStats => self.wire.collect(&STATS, out, parse::stats),
            How::GetLink => self.wire.collect(&LINKS, out, parse::link_counters),
        }?;
        if whole {
            out.sort_unstable_by_key(|reading| reading.ifindex);
        } else {
            latest(out, |reading| reading.ifindex);
        }
        Ok(())
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        let mut named = Vec::new();
        self.whole = self.wire.collect(&LINKS, &mut named, parse::link)?;
        latest(&mut named, |(link, _)| link.ifindex);
        Ok(class_net::decorate_all(&self.sys, named))
    }

    fn is_whole(&self) -> bool {
        self.whole
    }

    fn addresses(&mut self) -> Result<Vec<Address>> {
        self.wire.addresses()
    }

    fn default_route(&mut self) -> Result<Option<u32>> {
        let mut routes = Vec::new();
        for ask in [&ROUTES_V4, &ROUTES_V6] {
            self.wire.collect(ask, &mut routes, parse::default_route)?;
            if let Some(route) = routes.iter().min_by_key(|route| route.metric) {
                return Ok(Some(route.ifindex));
            }
        }
        Ok(None)
    }

    fn wait(&mut self, timeout: Duration, wake: &Wake) -> Woken {
        let mut woken = super::sleep(timeout, wake, self.events.as_ref().map(|socket| socket.fd.as_fd()));
        if self.events.is_none() && !woken.called {
            self.lost |= self.changed();
            woken.changed = self.lost;
        }
        woken
    }

    fn limits(&self) -> Option<&'static str> {
        self.events.is_none().then_some(NO_REPORTS)
    }

    fn events(&mut self, out: &mut Vec<LinkEvent>) -> Result<()> {
        let drained = self.events.as_ref().map(|socket| drain(socket, &mut self.wire.buffer, out));
        if let Some(Err(errno)) = drained {
            // Whatever is wrong with the socket: what was sent to it is lost, and a new one may do better.
            log::warn!("link notifications failed ({}), listening anew", io::Error::from(errno));
            self.events = Socket::listen().ok();
            self.changed();
            self.lost = true;
        }
        if std::mem::take(&mut self.lost) {
            lost(out);
        }
        Ok(())
    }
}

/// Of several dumps, one behind another, what the latest has to say of each link.
fn latest<T>(out: &mut Vec<T>, ifindex: impl Fn(&T) -> u32) {
    out.reverse();
    out.sort_by_key(&ifindex);
    out.dedup_by_key(|one| ifindex(one));
}

fn drain(socket: &Socket, buffer: &mut Vec<u8>, out: &mut Vec<LinkEvent>) -> nix::Result<()> {
    for _ in 0..NOTIFICATIONS_AT_ONCE {
        match socket.receive(buffer) {
            Ok(length) if length > buffer.len() => {
                grow(buffer, length);
                lost(out);
            }
            Ok(length) => notifications(&buffer[..length], out),
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => lost(out),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn notifications(datagram: &[u8], out: &mut Vec<LinkEvent>) {
    for message in Messages::new(Order::NATIVE, datagram) {
        let Ok(message) = message else {
            lost(out);
            continue;
        };
        match parse::event(Order::NATIVE, &message) {
            // A link that comes up brings several addresses at once.
            Ok(Some(LinkEvent::Addresses)) if out.last() == Some(&LinkEvent::Addresses) => {}
            Ok(Some(event)) => {
                out.extend(parse::described(Order::NATIVE, &message).map(|link| LinkEvent::Described(Box::new(link))));
                out.push(event);
            }
            Ok(None) => {}
            Err(Malformed) => lost(out),
        }
    }
}

fn lost(out: &mut Vec<LinkEvent>) {
    if out.last() != Some(&LinkEvent::Lost) {
        out.push(LinkEvent::Lost);
    }
}

/// False when it is longer than anything that the kernel sends.
fn grow(buffer: &mut Vec<u8>, length: usize) -> bool {
    if length <= BUFFER_MAX {
        buffer.resize(length.next_power_of_two(), 0);
    }
    length <= buffer.len()
}

/// Why a dump did not come about.
#[derive(Debug)]
enum Failure {
    Refused(Errno),
    Socket(&'static str, Errno),
    Malformed,
    Silent,
    TooLong(usize),
}

impl Failure {
    fn into_error(self, ask: &Ask) -> Error {
        let name = ask.name;
        let by = |errno| Error::caused(kind_of(errno), io::Error::from(errno));
        let unusable = |message| Error::new(ErrorKind::Unsupported, message);
        match self {
            Failure::Refused(errno) => by(errno).context(format_args!("the kernel refuses {name}")),
            Failure::Socket(call, errno) => by(errno).context(format_args!("netlink {call} for {name} failed")),
            Failure::Malformed => unusable(format!("the answer to {name} cannot be understood")),
            Failure::Silent => unusable(format!("no answer to {name} within {PATIENCE_S} s")),
            Failure::TooLong(bytes) => unusable(format!("an answer to {name} has {bytes} bytes")),
        }
    }
}

/// Some refusals another moment may cure. The others are a reason to try another source.
fn kind_of(errno: Errno) -> ErrorKind {
    const PASSING: [Errno; 7] =
        [Errno::EAGAIN, Errno::EBUSY, Errno::EINTR, Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    if PASSING.contains(&errno) { ErrorKind::Transient } else { ErrorKind::Unsupported }
}

/// How one attempt at a dump ended, short of failing.
enum Outcome {
    Complete,
    Interrupted,
    Truncated(usize),
}

/// The asking side: a socket and the buffers that are used again for every question.
pub struct Wire {
    socket: Socket,
    buffer: Vec<u8>,
    request: Vec<u8>,
    seq: u32,
}

impl Wire {
    pub fn open(buffer_bytes: usize) -> Result<Wire> {
        let socket = Socket::ask().map_err(|errno| {
            Error::caused(kind_of(errno), io::Error::from(errno)).context("a route netlink socket cannot be had")
        })?;
        Ok(Wire { socket, buffer: vec![0; buffer_bytes], request: Vec::with_capacity(64), seq: 0 })
    }

    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        self.collect(&ADDRESSES, &mut addresses, parse::address)?;
        addresses.sort_by_key(|address| address.ifindex);
        Ok(addresses)
    }

    /// Replaces `out` by a dump, and says whether it was a whole one; else it is all of several dumps, one behind another.
    /// A socket that fails is replaced once; `out` is empty after an error.
    fn collect<T>(&mut self, ask: &Ask, out: &mut Vec<T>, parse: fn(Order, &[u8]) -> Parsed<T>) -> Result<bool> {
        let answer = self.patiently(ask, out, parse).or_else(|_| {
            self.socket = Socket::ask().map_err(|errno| Failure::Socket("socket", errno))?;
            self.patiently(ask, out, parse)
        });
        answer.map_err(|failure| {
            out.clear();
            failure.into_error(ask)
        })
    }

    fn patiently<T>(
        &mut self,
        ask: &Ask,
        out: &mut Vec<T>,
        parse: fn(Order, &[u8]) -> Parsed<T>,
    ) -> std::result::Result<bool, Failure> {
        out.clear();
        let (mut interrupted, mut longest) = (0, 0);
        for _ in 0..ATTEMPTS {
            if !ask.together {
                out.clear();
            }
            let before = out.len();
            let outcome = self.once(ask, &mut |body| {
                out.extend(parse(Order::NATIVE, body)?);
                Ok(())
            })?;
            match outcome {
                Outcome::Complete => {
                    // What the interrupted ones had is in it, or gone.
                    out.drain(..before);
                    return Ok(true);
                }
                Outcome::Interrupted => {
                    interrupted += 1;
                    if interrupted == TRIES {
                        return Ok(false);
                    }
                }
                Outcome::Truncated(length) => {
                    out.truncate(before);
                    longest = length;
                    if !grow(&mut self.buffer, length) {
                        break;
                    }
                    // The end of the dump may have been in what was cut off: waiting for it is no use.
                    self.socket = Socket::ask().map_err(|errno| Failure::Socket("socket", errno))?;
                }
            }
        }
        Err(Failure::TooLong(longest))
    }

    fn once(
        &mut self,
        ask: &Ask,
        each: &mut dyn FnMut(&[u8]) -> std::result::Result<(), Malformed>,
    ) -> std::result::Result<Outcome, Failure> {
        self.seq = self.seq.wrapping_add(1);
        parse::request(&mut self.request, ask.request, self.seq, ask.header, ask.tail);
        self.socket.send(&self.request).map_err(|errno| Failure::Socket("send", errno))?;
        let mut dump = Dump::new(Order::NATIVE, self.seq, self.socket.port, ask.reply);
        let mut received = 0usize;
        loop {
            let length = match self.socket.receive(&mut self.buffer) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(Failure::Silent),
                Err(errno) => return Err(Failure::Socket("recv", errno)),
            };
            let Some(datagram) = self.buffer.get(..length) else { return Ok(Outcome::Truncated(length)) };
            match dump.feed(datagram, each) {
                Ok(Progress::More) if length == 0 => return Err(Failure::Silent),
                Ok(Progress::More) => {
                    received = received.saturating_add(length);
                    if received > ask.enough_bytes {
                        self.socket = Socket::ask().map_err(|errno| Failure::Socket("socket", errno))?;
                        return Ok(if dump.interrupted() { Outcome::Interrupted } else { Outcome::Complete });
                    }
                }
                Ok(Progress::Complete) => return Ok(Outcome::Complete),
                Ok(Progress::Interrupted) => return Ok(Outcome::Interrupted),
                Err(parse::Fault::Malformed) => return Err(Failure::Malformed),
                Err(parse::Fault::Refused(code)) => return Err(Failure::Refused(Errno::from_raw(code))),
            }
        }
    }
}

struct Socket {
    fd: OwnedFd,
    port: u32,
}

impl Socket {
    fn ask() -> nix::Result<Socket> {
        let socket = Socket::open(0, SockFlag::empty())?;
        socket::setsockopt(&socket.fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
        Ok(socket)
    }

    fn listen() -> nix::Result<Socket> {
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        let socket = Socket::open(groups, SockFlag::SOCK_NONBLOCK)?;
        if socket::setsockopt(&socket.fd, sockopt::RcvBufForce, &EVENT_BYTES).is_err() {
            let _ = socket::setsockopt(&socket.fd, sockopt::RcvBuf, &EVENT_BYTES);
        }
        Ok(socket)
    }

    fn open(groups: u32, flags: SockFlag) -> nix::Result<Socket> {
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, protocol)?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // Keeps messages of other processes out. Without it only root's can come, and they would have to guess the
        // port and the sequence.
        let _ = socket::connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0));
        let port = socket::getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        Ok(Socket { fd, port })
    }

    fn send(&self, request: &[u8]) -> nix::Result<usize> {
        socket::send(self.fd.as_raw_fd(), request, MsgFlags::empty())
    }

    /// The length of the datagram, even where that is more than there was room for.
    fn receive(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        socket::recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that is no socket takes the place of the descriptor.
    fn broken() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    impl Netlink {
        /// As where notifications are forbidden.
        pub fn stop_listening(&mut self) {
            self.events = None;
            self.changed();
        }
    }

    /// Plays the kernel on the other end of an asking socket: the n-th question gets the n-th answer, written for its
    /// sequence number, and each datagram of an answer is received as one. Ends with the socket, and says how many
    /// questions came.
    fn kernel(wire: &mut Wire, answers: Vec<Vec<Vec<Said>>>) -> std::thread::JoinHandle<usize> {
        let (ours, theirs) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        // A question too many gets no answer, and the test an error in place of an endless wait.
        socket::setsockopt(&ours, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).unwrap();
        wire.socket = Socket { fd: ours, port: PORT };
        std::thread::spawn(move || {
            let theirs = Socket { fd: theirs, port: 0 };
            let mut question = [0; 64];
            let mut asked = 0;
            while theirs.receive(&mut question).is_ok_and(|length| length > 0) {
                let seq = question[8..12].try_into().unwrap();
                for datagram in answers.get(asked).into_iter().flatten() {
                    let bytes: Vec<u8> = datagram.iter().flat_map(|said| said.message(seq)).collect();
                    // Whoever asked may have gone for another socket.
                    let _ = socket::send(theirs.fd.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL);
                }
                asked += 1;
            }
            asked
        })
    }

    const PORT: u32 = 12016;
    const MULTI: u16 = 0x2;
    const MULTI_INTERRUPTED: u16 = 0x12;

    /// What the kernel says, with the flags of the message.
    #[derive(Clone, Copy)]
    enum Said {
        Counters(u32, u16),
        End(u16),
    }

    impl Said {
        fn message(self, seq: [u8; 4]) -> Vec<u8> {
            let (kind, flags, body) = match self {
                // An `if_stats_msg`, and IFLA_STATS_LINK_64 in full length.
                Said::Counters(ifindex, flags) => {
                    let start = [[0; 4], ifindex.to_ne_bytes(), 1u32.to_ne_bytes()].concat();
                    let attribute = [204u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat();
                    (parse::RTM_NEWSTATS, flags, [start, attribute, vec![1; 200]].concat())
                }
                Said::End(flags) => (3, flags, vec![0; 4]),
            };
            let numbers = [u16::to_ne_bytes(kind), flags.to_ne_bytes()].concat();
            let length = (16 + body.len() as u32).to_ne_bytes();
            [&length[..], &numbers, &seq, &PORT.to_ne_bytes(), &body].concat()
        }
    }

    fn interrupted() -> Vec<Vec<Said>> {
        // Said of one message, and not of its end.
        vec![vec![Said::Counters(1, MULTI), Said::Counters(2, MULTI_INTERRUPTED)], vec![Said::End(MULTI)]]
    }

    fn whole() -> Vec<Vec<Said>> {
        vec![vec![Said::Counters(1, MULTI), Said::Counters(2, MULTI)], vec![Said::Counters(3, MULTI), Said::End(MULTI)]]
    }

    fn indices(out: &[Reading]) -> Vec<u32> {
        out.iter().map(|reading| reading.ifindex).collect()
    }

    #[test]
    fn e17_an_interrupted_dump_is_asked_for_again() {
        let mut wire = Wire::open(BUFFER_BYTES).unwrap();
        let kernel = kernel(&mut wire, vec![interrupted(), interrupted(), whole()]);
        let mut out = Vec::new();
        wire.collect(&STATS, &mut out, parse::stats).unwrap();
        assert_eq!(indices(&out), [1, 2, 3]);
        drop(wire);
        assert_eq!(kernel.join().unwrap(), 3);
    }

    #[test]
    fn e17_dumps_that_are_never_whole_are_an_answer_together() {
        let wire = Wire::open(BUFFER_BYTES).unwrap();
        let (marks, sys) = (Vec::new(), PathBuf::new());
        let mut source =
            Netlink { how: How::GetStats, wire, events: None, census: 0, marks, lost: false, whole: true, sys };
        // The second passes one over that is there before and behind it.
        let short = vec![vec![Said::Counters(2, MULTI_INTERRUPTED)], vec![Said::End(MULTI)]];
        let kernel = kernel(&mut source.wire, vec![interrupted(), short, interrupted(), whole()]);
        let mut out = Vec::new();
        source.read(&mut out).unwrap();
        assert_eq!(indices(&out), [1, 2]);
        // The same socket is good for the next tick.
        source.read(&mut out).unwrap();
        assert_eq!(indices(&out), [1, 2, 3]);
        drop(source);
        assert_eq!(kernel.join().unwrap(), TRIES as usize + 1);
    }

    #[test]
    fn e17_a_truncated_datagram_is_no_answer_and_the_buffer_grows() {
        // Room for the first message and a part of the second.
        let mut wire = Wire::open(300).unwrap();
        let kernel = kernel(&mut wire, vec![whole()]);
        let mut out = Vec::new();
        wire.collect(&LINKS, &mut Vec::new(), parse::link_mark).unwrap();
        assert!(wire.buffer.len() >= 464, "{}", wire.buffer.len());
        // The real kernel was asked instead: none of the other's figures are there.
        wire.collect(&LINKS, &mut out, parse::link_counters).unwrap();
        assert!(!out.is_empty() && out.iter().all(|reading| reading.counters.0[0] != 0x0101_0101_0101_0101));
        drop(wire);
        assert_eq!(kernel.join().unwrap(), 1);
    }

    #[test]
    fn e17_a_dump_that_ends_without_its_end_is_no_answer() {
        let mut wire = Wire::open(BUFFER_BYTES).unwrap();
        let kernel = kernel(&mut wire, vec![vec![vec![Said::Counters(1, MULTI)], vec![]]]);
        let mut out = Vec::new();
        // As a socket that was closed under us would say it: nothing, and nothing again.
        let outcome = wire.once(&STATS, &mut |body| {
            out.extend(parse::stats(Order::NATIVE, body)?);
            Ok(())
        });
        assert!(matches!(outcome, Err(Failure::Silent)));
        drop(wire);
        assert_eq!(kernel.join().unwrap(), 1);
    }

    #[test]
    fn e16_a_broken_socket_is_replaced() {
        for how in [How::GetStats, How::GetLink] {
            let Ok(mut source) = Netlink::open(how) else { continue };
            let mut out = Vec::new();
            source.wire.socket.fd = broken();
            source.read(&mut out).unwrap();
            assert!(!out.is_empty());
        }
    }

    #[test]
    fn e16_what_the_kernel_does_not_know_is_unsupported_and_leaves_nothing_behind() {
        const NO_SUCH_REQUEST: Ask = Ask { request: 0xfff0, ..STATS };
        let mut wire = Wire::open(BUFFER_BYTES).unwrap();
        let mut out = vec![1u64];
        let error = wire.collect(&NO_SUCH_REQUEST, &mut out, parse::link_mark).unwrap_err();
        assert_eq!((error.kind, out.len()), (ErrorKind::Unsupported, 0));
        assert!(error.to_string().contains("Operation not supported"), "{error}");
        // And the next question is answered.
        wire.collect(&LINKS, &mut out, parse::link_mark).unwrap();
        assert!(!out.is_empty());
    }

    #[test]
    fn e16_answers_that_cannot_be_understood_are_a_reason_to_go_elsewhere() {
        let mut wire = Wire::open(BUFFER_BYTES).unwrap();
        let mut out: Vec<u64> = Vec::new();
        let error = wire.collect(&LINKS, &mut out, |_, _| Err(Malformed)).unwrap_err();
        assert_eq!((error.kind, out.len()), (ErrorKind::Unsupported, 0));
    }

    #[test]
    fn e16_a_broken_listener_is_replaced_and_what_it_missed_is_told() {
        let mut source = Netlink::open(How::GetLink).unwrap();
        source.events.as_mut().unwrap().fd = broken();
        let mut out = Vec::new();
        source.events(&mut out).unwrap();
        assert_eq!(out, [LinkEvent::Lost]);
        assert!(source.events.is_some());
        out.clear();
        source.events(&mut out).unwrap();
        assert!(!out.contains(&LinkEvent::Lost));
    }

    #[test]
    fn what_passes_and_what_does_not() {
        #[track_caller]
        fn check(failure: Failure, expect: ErrorKind) {
            assert_eq!(failure.into_error(&STATS).kind, expect);
        }
        check(Failure::Socket("recv", Errno::ENOBUFS), ErrorKind::Transient);
        check(Failure::Socket("socket", Errno::EMFILE), ErrorKind::Transient);
        check(Failure::Refused(Errno::EBUSY), ErrorKind::Transient);
        check(Failure::Refused(Errno::EOPNOTSUPP), ErrorKind::Unsupported);
        check(Failure::Refused(Errno::EINVAL), ErrorKind::Unsupported);
        check(Failure::Socket("socket", Errno::EAFNOSUPPORT), ErrorKind::Unsupported);
        check(Failure::Socket("send", Errno::EPERM), ErrorKind::Unsupported);
        check(Failure::Malformed, ErrorKind::Unsupported);
        check(Failure::Silent, ErrorKind::Unsupported);
        check(Failure::TooLong(1 << 30), ErrorKind::Unsupported);
    }

    #[test]
    fn buffers_grow_to_a_limit() {
        #[track_caller]
        fn check(length: usize, expect: bool, size: usize) {
            let mut buffer = vec![0; 64];
            assert_eq!((grow(&mut buffer, length), buffer.len()), (expect, size));
        }
        check(65, true, 128);
        check(40_000, true, 65_536);
        check(BUFFER_MAX, true, BUFFER_MAX);
        check(BUFFER_MAX + 1, false, 64);
        check(usize::MAX, false, 64);
    }

    #[test]
    fn a_burst_of_addresses_is_one_event() {
        let message = |kind: u16, body: &[u8]| {
            let length = 16 + body.len() as u32;
            let numbers = [kind.to_ne_bytes(), [0; 2]].concat();
            [&length.to_ne_bytes()[..], &numbers, &[0; 8], body].concat()
        };
        let address = message(parse::RTM_NEWADDR, &[0; 8]);
        let gone = message(parse::RTM_DELLINK, &[[0; 4], 7u32.to_ne_bytes()].concat());
        let mut out = Vec::new();
        notifications(&[address.clone(), address.clone(), gone, address.clone(), address].concat(), &mut out);
        let gone = LinkEvent::Gone { ifindex: 7, last: None };
        assert_eq!(out, [LinkEvent::Addresses, gone, LinkEvent::Addresses]);
        out.clear();
        notifications(&[1, 2, 3], &mut out);
        assert_eq!(out, [LinkEvent::Lost]);
    }
}
