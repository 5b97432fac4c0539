//! Reads counters, links, addresses and routes over route netlink sockets (netlink(7), rtnetlink(7)). Each request
//! makes the kernel send one dump.
//!
//! The kernel marks a dump as interrupted if links appeared or disappeared meanwhile. `DumpClient` then repeats the
//! request. If all repetitions are interrupted too, the result for links and counters is everything that these dumps
//! contained: every link in it existed, and a missing link may exist or not.
//!
//! There are two sockets. One sends requests. The other is non-blocking and receives notifications of links and
//! addresses. If the kernel had to drop some of them (ENOBUFS), `notifications` returns `Lost`, and the sampler lists
//! everything again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::parse::{self, ByteOrder, Dump, DumpProgress, Malformed, Messages, Parsed};
use super::{NO_NOTIFICATIONS, SYS_CLASS_NET, Wake, class_net};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Address, Link, Reading};
use crate::source::{LinkNotification, NOTIFICATIONS_AT_ONCE, Source, Woken};

/// The kernel puts at most this much into one datagram of a dump, even if the buffer is larger (`netlink_recvmsg` in
/// net/netlink/af_netlink.c). One datagram then has the counters of 140 interfaces.
const BUFFER_BYTES: usize = 32 * 1024;
/// A single message can be larger, for a card with many virtual functions. No message is larger than this.
const MAX_BUFFER_BYTES: usize = 1024 * 1024;
/// After this number of interrupted dumps the program uses what it has. Each dump costs as much as a tick.
const MAX_INTERRUPTED: u32 = 3;
/// Attempts at one dump, including those that failed because the buffer was too small.
const MAX_ATTEMPTS: u32 = 8;
/// The kernel answers within the recv call, so silence means that the answer is lost.
const REPLY_TIMEOUT_S: i64 = 2;
/// Socket buffer for notifications that wait for the next read. It holds about 400 of them, as many as arrive in a
/// flood while the program lists a thousand links. Without CAP_NET_ADMIN the kernel lowers this to
/// `net.core.rmem_max`, which is not an error.
const NOTIFICATION_BUFFER_BYTES: usize = 1024 * 1024;

// `include/uapi/linux/rtnetlink.h`.
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;

/// A dump request and the type of its answers. The body is `header`, mostly zeros, and `tail`.
struct DumpRequest {
    name: &'static str,
    request_kind: u16,
    reply_kind: u16,
    header: &'static [u8],
    /// The end of the body: a filter mask or attributes.
    tail: &'static [u8],
    /// If a dump is longer than this, the rest is not read, and the part read so far is the result.
    stop_after_bytes: usize,
    /// If all dumps are interrupted, the result has the items of all of them, not only of the last one: kernels before
    /// 6.9 can skip a link when another one disappears.
    merge_interrupted: bool,
}

/// `filter_mask`, the last field of `if_stats_msg` (`include/uapi/linux/if_link.h`): only IFLA_STATS_LINK_64.
const STATS_FILTER: [u8; 4] = 1u32.to_ne_bytes();
/// IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS (`include/uapi/linux/rtnetlink.h`): leaves out the statistics of IPv6
/// and of virtual functions, a third of the dump. The counters of the links stay. Kernels that do not know the flag
/// send everything.
const SKIP_STATS: [u8; 8] = {
    const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
    let ([a, b], [c, d]) = (8u16.to_ne_bytes(), parse::IFLA_EXT_MASK.to_ne_bytes());
    let [e, f, g, h] = RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
    [a, b, c, d, e, f, g, h]
};

const STATS: DumpRequest = DumpRequest {
    name: "RTM_GETSTATS",
    request_kind: parse::RTM_GETSTATS,
    reply_kind: parse::RTM_NEWSTATS,
    header: &[0; 8],
    tail: &STATS_FILTER,
    stop_after_bytes: usize::MAX,
    merge_interrupted: true,
};
const LINKS: DumpRequest = DumpRequest {
    name: "RTM_GETLINK",
    request_kind: parse::RTM_GETLINK,
    reply_kind: parse::RTM_NEWLINK,
    header: &[0; 16],
    tail: &SKIP_STATS,
    stop_after_bytes: usize::MAX,
    merge_interrupted: true,
};
const ADDRESSES: DumpRequest = DumpRequest {
    name: "RTM_GETADDR",
    request_kind: parse::RTM_GETADDR,
    reply_kind: parse::RTM_NEWADDR,
    header: &[0; 8],
    tail: &[],
    stop_after_bytes: usize::MAX,
    merge_interrupted: false,
};
/// A router may have the routes of the whole Internet, about a million, in its main table. The kernel sends each table
/// in order of destination, so the default routes come first in it. It sends the main table after all other tables but
/// the local one (255).
const ROUTES_V4: DumpRequest = DumpRequest {
    name: "RTM_GETROUTE",
    request_kind: parse::RTM_GETROUTE,
    reply_kind: parse::RTM_NEWROUTE,
    header: &[parse::AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    tail: &[],
    stop_after_bytes: 1024 * 1024,
    merge_interrupted: false,
};
const ROUTES_V6: DumpRequest = DumpRequest { header: &[parse::AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], ..ROUTES_V4 };

/// The dump that the counters come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpKind {
    GetStats,
    GetLink,
}

/// The netlink backends: the counters come from the dump of `kind`.
pub struct Netlink {
    kind: DumpKind,
    client: DumpClient,
    /// `None` where notifications are not available. Then `fingerprint` shows whether the set of links has changed.
    notification_socket: Option<Socket>,
    fingerprint: u64,
    /// Buffer of `links_changed`.
    hashes: Vec<u64>,
    /// The links have changed or notifications were lost: `notifications` must return `Lost`.
    lost: bool,
    /// The last list of links was complete.
    complete: bool,
    /// The `class/net` directory of sysfs.
    sys: PathBuf,
}

impl Netlink {
    pub fn open(kind: DumpKind) -> Result<Netlink> {
        Netlink::with(kind, BUFFER_BYTES, SYS_CLASS_NET.into())
    }

    pub fn with(kind: DumpKind, buffer_bytes: usize, sys: PathBuf) -> Result<Netlink> {
        // The notification socket opens before the first request, so that no change is missed between the two.
        let notification_socket = Socket::for_notifications().ok();
        let client = DumpClient::open(buffer_bytes)?;
        let mut source = Netlink {
            kind,
            client,
            notification_socket,
            fingerprint: 0,
            hashes: Vec::new(),
            lost: false,
            complete: true,
            sys,
        };
        if source.notification_socket.is_none() {
            source.links_changed();
        }
        Ok(source)
    }

    /// Whether the set of links differs from that of the previous call. True also after an incomplete dump. False if
    /// the request fails: the next read of the counters returns the error.
    fn links_changed(&mut self) -> bool {
        match self.client.dump(&LINKS, &mut self.hashes, parse::link_hash) {
            Ok(true) => {}
            Ok(false) => return true,
            Err(_) => return false,
        }
        let fingerprint = self.hashes.iter().fold(0u64, |sum, hash| sum.wrapping_add(*hash));
        std::mem::replace(&mut self.fingerprint, fingerprint) != fingerprint
    }
}

impl Source for Netlink {
    fn name(&self) -> &'static str {
        match self.kind {
            DumpKind::GetStats => "getstats",
            DumpKind::GetLink => "getlink",
        }
    }

    fn read(&mut self, out: &mut Vec<Reading>) -> Result<()> {
        let complete = match self.kind {
            DumpKind::GetStats => self.client.dump(&STATS, out, parse::stats),
            DumpKind::GetLink => self.client.dump(&LINKS, out, parse::link_counters),
        }?;
        if complete {
            out.sort_unstable_by_key(|reading| reading.ifindex);
        } else {
            keep_latest(out, |reading| reading.ifindex);
        }
        Ok(())
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        let mut named_links = Vec::new();
        self.complete = self.client.dump(&LINKS, &mut named_links, parse::link)?;
        keep_latest(&mut named_links, |(link, _)| link.ifindex);
        Ok(class_net::add_sysfs_attributes_to_all(&self.sys, named_links))
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn addresses(&mut self) -> Result<Vec<Address>> {
        self.client.addresses()
    }

    fn default_route(&mut self) -> Result<Option<u32>> {
        let mut routes = Vec::new();
        for request in [&ROUTES_V4, &ROUTES_V6] {
            self.client.dump(request, &mut routes, parse::default_route)?;
            if let Some(route) = routes.iter().min_by_key(|route| route.metric) {
                return Ok(Some(route.ifindex));
            }
        }
        Ok(None)
    }

    fn wait(&mut self, timeout: Duration, wake: &Wake) -> Woken {
        let mut woken =
            super::poll_for_changes(timeout, wake, self.notification_socket.as_ref().map(|socket| socket.fd.as_fd()));
        if self.notification_socket.is_none() && !woken.wake_called {
            self.lost |= self.links_changed();
            woken.changed = self.lost;
        }
        woken
    }

    fn limitations(&self) -> Option<&'static str> {
        self.notification_socket.is_none().then_some(NO_NOTIFICATIONS)
    }

    fn notifications(&mut self, out: &mut Vec<LinkNotification>) -> Result<()> {
        let drained =
            self.notification_socket.as_ref().map(|socket| receive_notifications(socket, &mut self.client.buffer, out));
        if let Some(Err(errno)) = drained {
            // The notifications sent to this socket are lost. A new socket may work.
            log::warn!("link notifications failed ({}): opening a new socket", io::Error::from(errno));
            self.notification_socket = Socket::for_notifications().ok();
            self.links_changed();
            self.lost = true;
        }
        if std::mem::take(&mut self.lost) {
            append_lost(out);
        }
        Ok(())
    }
}

/// Keeps the last item of each link, from several dumps in a row.
fn keep_latest<T>(out: &mut Vec<T>, ifindex: impl Fn(&T) -> u32) {
    out.reverse();
    out.sort_by_key(&ifindex);
    out.dedup_by_key(|item| ifindex(item));
}

/// Reads the notifications that have arrived, up to the limit for one call.
fn receive_notifications(socket: &Socket, buffer: &mut Vec<u8>, out: &mut Vec<LinkNotification>) -> nix::Result<()> {
    for _ in 0..NOTIFICATIONS_AT_ONCE {
        match socket.receive(buffer) {
            Ok(length) if length > buffer.len() => {
                grow_buffer(buffer, length);
                append_lost(out);
            }
            Ok(length) => parse_notifications(&buffer[..length], out),
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => append_lost(out),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Parses the notifications in one datagram.
fn parse_notifications(datagram: &[u8], out: &mut Vec<LinkNotification>) {
    for message in Messages::new(ByteOrder::NATIVE, datagram) {
        let Ok(message) = message else {
            append_lost(out);
            continue;
        };
        match parse::notification(ByteOrder::NATIVE, &message) {
            // A link that goes up gets several addresses at once.
            Ok(Some(LinkNotification::Addresses)) if out.last() == Some(&LinkNotification::Addresses) => {}
            Ok(Some(notification)) => {
                out.extend(
                    parse::notified_link(ByteOrder::NATIVE, &message)
                        .map(|link| LinkNotification::Described(Box::new(link))),
                );
                out.push(notification);
            }
            Ok(None) => {}
            Err(Malformed) => append_lost(out),
        }
    }
}

/// Appends `Lost`, once in a row.
fn append_lost(out: &mut Vec<LinkNotification>) {
    if out.last() != Some(&LinkNotification::Lost) {
        out.push(LinkNotification::Lost);
    }
}

/// Grows the buffer to at least `length`. False if that is longer than any message of the kernel.
fn grow_buffer(buffer: &mut Vec<u8>, length: usize) -> bool {
    if length <= MAX_BUFFER_BYTES {
        buffer.resize(length.next_power_of_two(), 0);
    }
    length <= buffer.len()
}

/// Why a dump failed: errors of the socket, and those of `parse::DumpError`.
#[derive(Debug)]
enum DumpFailure {
    Refused(Errno),
    Socket(&'static str, Errno),
    Malformed,
    NoReply,
    TooLong(usize),
}

impl DumpFailure {
    fn into_error(self, request: &DumpRequest) -> Error {
        let name = request.name;
        let from_errno = |errno| Error::caused(error_kind(errno), io::Error::from(errno));
        let unsupported = |message| Error::new(ErrorKind::Unsupported, message);
        match self {
            DumpFailure::Refused(errno) => from_errno(errno).context(format_args!("the kernel refuses {name}")),
            DumpFailure::Socket(call, errno) => {
                from_errno(errno).context(format_args!("netlink {call} for {name} failed"))
            }
            DumpFailure::Malformed => unsupported(format!("cannot parse the answer to {name}")),
            DumpFailure::NoReply => unsupported(format!("no answer to {name} within {REPLY_TIMEOUT_S} s")),
            DumpFailure::TooLong(bytes) => {
                unsupported(format!("the answer to {name} is too long: it has {bytes} bytes"))
            }
        }
    }
}

/// These errors may be gone at the next attempt. All others are a reason to use another backend.
fn error_kind(errno: Errno) -> ErrorKind {
    const TRANSIENT: [Errno; 7] =
        [Errno::EAGAIN, Errno::EBUSY, Errno::EINTR, Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    if TRANSIENT.contains(&errno) { ErrorKind::Transient } else { ErrorKind::Unsupported }
}

/// Result of one attempt at a dump, if it did not fail.
enum DumpOutcome {
    Complete,
    Interrupted,
    /// A datagram of this length in bytes did not fit into the buffer.
    Truncated(usize),
}

/// The request socket and its buffers, which all requests reuse.
pub struct DumpClient {
    socket: Socket,
    buffer: Vec<u8>,
    /// The request being sent.
    message: Vec<u8>,
    seq: u32,
}

impl DumpClient {
    pub fn open(buffer_bytes: usize) -> Result<DumpClient> {
        let socket = Socket::for_requests().map_err(|errno| {
            Error::caused(error_kind(errno), io::Error::from(errno)).context("cannot open a route netlink socket")
        })?;
        Ok(DumpClient { socket, buffer: vec![0; buffer_bytes], message: Vec::with_capacity(64), seq: 0 })
    }

    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        self.dump(&ADDRESSES, &mut addresses, parse::address)?;
        addresses.sort_by_key(|address| address.ifindex);
        Ok(addresses)
    }

    /// Replaces `out` with the items of a dump. True if the dump was complete; false if all attempts were interrupted,
    /// see `merge_interrupted`. Replaces a failing socket once. After an error `out` is empty.
    fn dump<T>(
        &mut self,
        request: &DumpRequest,
        out: &mut Vec<T>,
        parse: fn(ByteOrder, &[u8]) -> Parsed<T>,
    ) -> Result<bool> {
        let result = self.dump_with_retries(request, out, parse).or_else(|_| {
            self.socket = Socket::for_requests().map_err(|errno| DumpFailure::Socket("socket", errno))?;
            self.dump_with_retries(request, out, parse)
        });
        result.map_err(|failure| {
            out.clear();
            failure.into_error(request)
        })
    }

    /// Repeats interrupted dumps, and dumps for which the buffer was too small. Returns as `dump` does.
    fn dump_with_retries<T>(
        &mut self,
        request: &DumpRequest,
        out: &mut Vec<T>,
        parse: fn(ByteOrder, &[u8]) -> Parsed<T>,
    ) -> std::result::Result<bool, DumpFailure> {
        out.clear();
        let (mut interrupted, mut longest) = (0, 0);
        for _ in 0..MAX_ATTEMPTS {
            if !request.merge_interrupted {
                out.clear();
            }
            let before = out.len();
            let outcome = self.dump_once(request, &mut |body| {
                out.extend(parse(ByteOrder::NATIVE, body)?);
                Ok(())
            })?;
            match outcome {
                DumpOutcome::Complete => {
                    // Items of the interrupted dumps are in this one too, or gone.
                    out.drain(..before);
                    return Ok(true);
                }
                DumpOutcome::Interrupted => {
                    interrupted += 1;
                    if interrupted == MAX_INTERRUPTED {
                        return Ok(false);
                    }
                }
                DumpOutcome::Truncated(length) => {
                    out.truncate(before);
                    longest = length;
                    if !grow_buffer(&mut self.buffer, length) {
                        break;
                    }
                    // The truncated part may have contained the end of the dump, which then never comes. A new socket
                    // has no rest of this dump in its queue.
                    self.socket = Socket::for_requests().map_err(|errno| DumpFailure::Socket("socket", errno))?;
                }
            }
        }
        Err(DumpFailure::TooLong(longest))
    }

    /// Sends the request and calls `on_message` with the body of each message of the dump.
    fn dump_once(
        &mut self,
        request: &DumpRequest,
        on_message: &mut dyn FnMut(&[u8]) -> std::result::Result<(), Malformed>,
    ) -> std::result::Result<DumpOutcome, DumpFailure> {
        self.seq = self.seq.wrapping_add(1);
        parse::request(&mut self.message, request.request_kind, self.seq, request.header, request.tail);
        self.socket.send(&self.message).map_err(|errno| DumpFailure::Socket("send", errno))?;
        let mut dump = Dump::new(ByteOrder::NATIVE, self.seq, self.socket.port, request.reply_kind);
        let mut received = 0usize;
        loop {
            let length = match self.socket.receive(&mut self.buffer) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(DumpFailure::NoReply),
                Err(errno) => return Err(DumpFailure::Socket("recv", errno)),
            };
            let Some(datagram) = self.buffer.get(..length) else { return Ok(DumpOutcome::Truncated(length)) };
            match dump.feed(datagram, on_message) {
                Ok(DumpProgress::More) if length == 0 => return Err(DumpFailure::NoReply),
                Ok(DumpProgress::More) => {
                    received = received.saturating_add(length);
                    if received > request.stop_after_bytes {
                        self.socket = Socket::for_requests().map_err(|errno| DumpFailure::Socket("socket", errno))?;
                        return Ok(if dump.interrupted() { DumpOutcome::Interrupted } else { DumpOutcome::Complete });
                    }
                }
                Ok(DumpProgress::Complete) => return Ok(DumpOutcome::Complete),
                Ok(DumpProgress::Interrupted) => return Ok(DumpOutcome::Interrupted),
                Err(parse::DumpError::Malformed) => return Err(DumpFailure::Malformed),
                Err(parse::DumpError::Refused(code)) => return Err(DumpFailure::Refused(Errno::from_raw(code))),
            }
        }
    }
}

/// A route netlink socket with the port that the kernel gave it (netlink(7), `nl_pid`).
struct Socket {
    fd: OwnedFd,
    port: u32,
}

impl Socket {
    fn for_requests() -> nix::Result<Socket> {
        let socket = Socket::open(0, SockFlag::empty())?;
        socket::setsockopt(&socket.fd, sockopt::ReceiveTimeout, &TimeVal::seconds(REPLY_TIMEOUT_S))?;
        Ok(socket)
    }

    fn for_notifications() -> nix::Result<Socket> {
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        let socket = Socket::open(groups, SockFlag::SOCK_NONBLOCK)?;
        if socket::setsockopt(&socket.fd, sockopt::RcvBufForce, &NOTIFICATION_BUFFER_BYTES).is_err() {
            let _ = socket::setsockopt(&socket.fd, sockopt::RcvBuf, &NOTIFICATION_BUFFER_BYTES);
        }
        Ok(socket)
    }

    fn open(groups: u32, flags: SockFlag) -> nix::Result<Socket> {
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, protocol)?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // After connect(2) the kernel rejects messages of other processes. If it fails, only root can send some, and
        // must guess the port and the sequence number.
        let _ = socket::connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0));
        let port = socket::getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        Ok(Socket { fd, port })
    }

    fn send(&self, message: &[u8]) -> nix::Result<usize> {
        socket::send(self.fd.as_raw_fd(), message, MsgFlags::empty())
    }

    /// Receives one datagram and returns its full length, even if the buffer is shorter (MSG_TRUNC).
    fn receive(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        socket::recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A descriptor that is not a socket.
    fn not_a_socket() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    impl Netlink {
        /// Makes the source behave as on a system without notifications.
        pub fn disable_notifications(&mut self) {
            self.notification_socket = None;
            self.links_changed();
        }
    }

    /// Plays the kernel at the other end of a request socket. The n-th request gets the n-th answer, with its
    /// sequence number, one datagram after another. Ends with the socket and returns the number of requests.
    fn fake_kernel(client: &mut DumpClient, answers: Vec<Vec<Vec<KernelMessage>>>) -> std::thread::JoinHandle<usize> {
        let (client_end, kernel_end) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        // A request without an answer makes the test fail, instead of blocking it.
        socket::setsockopt(&client_end, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).unwrap();
        client.socket = Socket { fd: client_end, port: PORT };
        std::thread::spawn(move || {
            let kernel_end = Socket { fd: kernel_end, port: 0 };
            let mut request_bytes = [0; 64];
            let mut requests = 0;
            while kernel_end.receive(&mut request_bytes).is_ok_and(|length| length > 0) {
                let seq = request_bytes[8..12].try_into().unwrap();
                for datagram in answers.get(requests).into_iter().flatten() {
                    let bytes: Vec<u8> = datagram.iter().flat_map(|reply| reply.message(seq)).collect();
                    // The client may have changed to another socket.
                    let _ = socket::send(kernel_end.fd.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL);
                }
                requests += 1;
            }
            requests
        })
    }

    const PORT: u32 = 12016;
    const MULTI: u16 = 0x2;
    const MULTI_INTERRUPTED: u16 = 0x12;

    /// A message of the kernel, with its flags.
    #[derive(Clone, Copy)]
    enum KernelMessage {
        Counters(u32, u16),
        End(u16),
    }

    impl KernelMessage {
        fn message(self, seq: [u8; 4]) -> Vec<u8> {
            let (kind, flags, body) = match self {
                // An `if_stats_msg` with a full IFLA_STATS_LINK_64.
                KernelMessage::Counters(ifindex, flags) => {
                    let header = [[0; 4], ifindex.to_ne_bytes(), 1u32.to_ne_bytes()].concat();
                    let attribute = [204u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat();
                    (parse::RTM_NEWSTATS, flags, [header, attribute, vec![1; 200]].concat())
                }
                KernelMessage::End(flags) => (3, flags, vec![0; 4]),
            };
            let kind_and_flags = [u16::to_ne_bytes(kind), flags.to_ne_bytes()].concat();
            let length = (16 + body.len() as u32).to_ne_bytes();
            [&length[..], &kind_and_flags, &seq, &PORT.to_ne_bytes(), &body].concat()
        }
    }

    fn interrupted() -> Vec<Vec<KernelMessage>> {
        // One message has the flag NLM_F_DUMP_INTR; the end of the dump does not.
        vec![
            vec![KernelMessage::Counters(1, MULTI), KernelMessage::Counters(2, MULTI_INTERRUPTED)],
            vec![KernelMessage::End(MULTI)],
        ]
    }

    fn complete() -> Vec<Vec<KernelMessage>> {
        vec![
            vec![KernelMessage::Counters(1, MULTI), KernelMessage::Counters(2, MULTI)],
            vec![KernelMessage::Counters(3, MULTI), KernelMessage::End(MULTI)],
        ]
    }

    fn ifindexes(out: &[Reading]) -> Vec<u32> {
        out.iter().map(|reading| reading.ifindex).collect()
    }

    #[test]
    fn e17_an_interrupted_dump_is_repeated() {
        let mut client = DumpClient::open(BUFFER_BYTES).unwrap();
        let fake_kernel = fake_kernel(&mut client, vec![interrupted(), interrupted(), complete()]);
        let mut out = Vec::new();
        client.dump(&STATS, &mut out, parse::stats).unwrap();
        assert_eq!(ifindexes(&out), [1, 2, 3]);
        drop(client);
        assert_eq!(fake_kernel.join().unwrap(), 3);
    }

    #[test]
    fn e17_dumps_that_are_always_interrupted_are_merged() {
        let client = DumpClient::open(BUFFER_BYTES).unwrap();
        let (hashes, sys) = (Vec::new(), PathBuf::new());
        let mut source = Netlink {
            kind: DumpKind::GetStats,
            client,
            notification_socket: None,
            fingerprint: 0,
            hashes,
            lost: false,
            complete: true,
            sys,
        };
        // The second dump skips a link that the first and the third have.
        let short = vec![vec![KernelMessage::Counters(2, MULTI_INTERRUPTED)], vec![KernelMessage::End(MULTI)]];
        let fake_kernel = fake_kernel(&mut source.client, vec![interrupted(), short, interrupted(), complete()]);
        let mut out = Vec::new();
        source.read(&mut out).unwrap();
        assert_eq!(ifindexes(&out), [1, 2]);
        // The socket still works at the next tick.
        source.read(&mut out).unwrap();
        assert_eq!(ifindexes(&out), [1, 2, 3]);
        drop(source);
        assert_eq!(fake_kernel.join().unwrap(), MAX_INTERRUPTED as usize + 1);
    }

    #[test]
    fn e17_a_truncated_datagram_is_discarded_and_the_buffer_grows() {
        // Space for the first message and a part of the second.
        let mut client = DumpClient::open(300).unwrap();
        let fake_kernel = fake_kernel(&mut client, vec![complete()]);
        let mut out = Vec::new();
        client.dump(&LINKS, &mut Vec::new(), parse::link_hash).unwrap();
        assert!(client.buffer.len() >= 464, "{}", client.buffer.len());
        // The real kernel answered instead: none of the fake counters are there.
        client.dump(&LINKS, &mut out, parse::link_counters).unwrap();
        assert!(!out.is_empty() && out.iter().all(|reading| reading.counters.0[0] != 0x0101_0101_0101_0101));
        drop(client);
        assert_eq!(fake_kernel.join().unwrap(), 1);
    }

    #[test]
    fn e17_a_dump_without_its_done_message_is_an_error() {
        let mut client = DumpClient::open(BUFFER_BYTES).unwrap();
        let fake_kernel = fake_kernel(&mut client, vec![vec![vec![KernelMessage::Counters(1, MULTI)], vec![]]]);
        let mut out = Vec::new();
        // Each receive call on a closed socket returns 0 bytes.
        let outcome = client.dump_once(&STATS, &mut |body| {
            out.extend(parse::stats(ByteOrder::NATIVE, body)?);
            Ok(())
        });
        assert!(matches!(outcome, Err(DumpFailure::NoReply)));
        drop(client);
        assert_eq!(fake_kernel.join().unwrap(), 1);
    }

    #[test]
    fn e16_a_broken_socket_is_replaced() {
        for kind in [DumpKind::GetStats, DumpKind::GetLink] {
            let Ok(mut source) = Netlink::open(kind) else { continue };
            let mut out = Vec::new();
            source.client.socket.fd = not_a_socket();
            source.read(&mut out).unwrap();
            assert!(!out.is_empty());
        }
    }

    #[test]
    fn e16_an_unknown_request_is_unsupported_and_returns_nothing() {
        const UNKNOWN_REQUEST: DumpRequest = DumpRequest { request_kind: 0xfff0, ..STATS };
        let mut client = DumpClient::open(BUFFER_BYTES).unwrap();
        let mut out = vec![1u64];
        let error = client.dump(&UNKNOWN_REQUEST, &mut out, parse::link_hash).unwrap_err();
        assert_eq!((error.kind, out.len()), (ErrorKind::Unsupported, 0));
        assert!(error.to_string().contains("Operation not supported"), "{error}");
        // The next request is answered.
        client.dump(&LINKS, &mut out, parse::link_hash).unwrap();
        assert!(!out.is_empty());
    }

    #[test]
    fn e16_malformed_answers_are_unsupported() {
        let mut client = DumpClient::open(BUFFER_BYTES).unwrap();
        let mut out: Vec<u64> = Vec::new();
        let error = client.dump(&LINKS, &mut out, |_, _| Err(Malformed)).unwrap_err();
        assert_eq!((error.kind, out.len()), (ErrorKind::Unsupported, 0));
    }

    #[test]
    fn e16_a_broken_notification_socket_is_replaced_and_reports_lost_notifications() {
        let mut source = Netlink::open(DumpKind::GetLink).unwrap();
        source.notification_socket.as_mut().unwrap().fd = not_a_socket();
        let mut out = Vec::new();
        source.notifications(&mut out).unwrap();
        assert_eq!(out, [LinkNotification::Lost]);
        assert!(source.notification_socket.is_some());
        out.clear();
        source.notifications(&mut out).unwrap();
        assert!(!out.contains(&LinkNotification::Lost));
    }

    #[test]
    fn which_failures_are_transient() {
        #[track_caller]
        fn check(failure: DumpFailure, expect: ErrorKind) {
            assert_eq!(failure.into_error(&STATS).kind, expect);
        }
        check(DumpFailure::Socket("recv", Errno::ENOBUFS), ErrorKind::Transient);
        check(DumpFailure::Socket("socket", Errno::EMFILE), ErrorKind::Transient);
        check(DumpFailure::Refused(Errno::EBUSY), ErrorKind::Transient);
        check(DumpFailure::Refused(Errno::EOPNOTSUPP), ErrorKind::Unsupported);
        check(DumpFailure::Refused(Errno::EINVAL), ErrorKind::Unsupported);
        check(DumpFailure::Socket("socket", Errno::EAFNOSUPPORT), ErrorKind::Unsupported);
        check(DumpFailure::Socket("send", Errno::EPERM), ErrorKind::Unsupported);
        check(DumpFailure::Malformed, ErrorKind::Unsupported);
        check(DumpFailure::NoReply, ErrorKind::Unsupported);
        check(DumpFailure::TooLong(1 << 30), ErrorKind::Unsupported);
    }

    #[test]
    fn buffers_grow_to_a_limit() {
        #[track_caller]
        fn check(length: usize, expect: bool, size: usize) {
            let mut buffer = vec![0; 64];
            assert_eq!((grow_buffer(&mut buffer, length), buffer.len()), (expect, size));
        }
        check(65, true, 128);
        check(40_000, true, 65_536);
        check(MAX_BUFFER_BYTES, true, MAX_BUFFER_BYTES);
        check(MAX_BUFFER_BYTES + 1, false, 64);
        check(usize::MAX, false, 64);
    }

    #[test]
    fn a_burst_of_addresses_is_one_notification() {
        let message = |kind: u16, body: &[u8]| {
            let length = 16 + body.len() as u32;
            let kind_and_flags = [kind.to_ne_bytes(), [0; 2]].concat();
            [&length.to_ne_bytes()[..], &kind_and_flags, &[0; 8], body].concat()
        };
        let address = message(parse::RTM_NEWADDR, &[0; 8]);
        let gone = message(parse::RTM_DELLINK, &[[0; 4], 7u32.to_ne_bytes()].concat());
        let mut out = Vec::new();
        parse_notifications(&[address.clone(), address.clone(), gone, address.clone(), address].concat(), &mut out);
        let gone = LinkNotification::Gone { ifindex: 7, last: None };
        assert_eq!(out, [LinkNotification::Addresses, gone, LinkNotification::Addresses]);
        out.clear();
        parse_notifications(&[1, 2, 3], &mut out);
        assert_eq!(out, [LinkNotification::Lost]);
    }
}
