//! One client connection, from its first byte to its end. It never blocks: each turn does the work that is possible
//! now, and `interest` names the events to wait for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::access;
use super::head::{self, BODY_LIMIT, HEAD_LIMIT, Head, RequestRefusal, Scan};
use super::{BUSY, Limits, Rules, SEND_BUFFER_BYTES};
use crate::http::route::Weight;
use crate::http::status::reason;

/// Reads or writes on one connection before the next connection has its turn.
const IO_CALLS_PER_TURN: usize = 4;
/// The gate reads and drops at most this much after an answer. Closing a socket with unread data sends a reset, and the
/// client may then lose the answer.
const DRAIN_LIMIT_BYTES: usize = 256 * 1024;
/// A client that reads slower than this may lose its slot to a waiting request (`Slots::reader_to_evict`).
const MIN_READ_BYTES_PER_S: u64 = 1 << 20;
pub const REQUEST_TIMED_OUT: RequestRefusal =
    RequestRefusal { status: 408, detail: "the request was not complete in time" };
pub const INCOMPLETE_REQUEST: RequestRefusal =
    RequestRefusal { status: 400, detail: "the connection ended before the request was complete" };
pub const ANSWER_TIMED_OUT: RequestRefusal = RequestRefusal { status: 504, detail: "the answer was not ready in time" };
pub const UPSTREAM_FAILED: RequestRefusal =
    RequestRefusal { status: 502, detail: "net-pulse is at fault: its log says why" };

/// A client's TCP connection, with at most one request.
pub struct Client {
    pub stream: TcpStream,
    address: IpAddr,
    /// Start of this phase. While answering: the last time when a part of the answer arrived from tiny_http, or the
    /// client's socket had taken a whole part.
    pub since: Instant,
    pub deadline: Instant,
    phase: Phase,
    /// Set from the start of the request to the end of the answer.
    upstream: Option<UpstreamConnection>,
    /// The upstream connection that this client no longer needs. The event loop takes it over.
    detached: Option<UpstreamConnection>,
    /// Bytes of the request or of the answer that were received and are to be sent on.
    buffer: Vec<u8>,
    /// Number of bytes of `buffer` that are already sent.
    sent_bytes: usize,
    /// How much work the request is for a worker.
    pub weight: Weight,
    /// The method is HEAD: a refusal has no body either.
    without_body: bool,
    /// The request needs no token if a trusted user owns the client's socket.
    may_be_trusted: bool,
    /// Bytes of the answer that the client's socket has taken.
    taken_bytes: u64,
    /// Time for which the client left earlier buffers unread.
    unread_time: Duration,
}

/// A worker slot in use. It stays in use after its client has left, until the worker has finished.
#[derive(Clone, Copy)]
pub struct OccupiedSlot {
    pub number: usize,
    /// Address group of the client.
    pub group: u64,
    pub weight: Weight,
    /// Start of the request.
    pub since: Instant,
}

/// The connection to tiny_http for one request.
pub struct UpstreamConnection {
    pub stream: UnixStream,
    pub slot: OccupiedSlot,
    /// tiny_http has closed its end, so the slot is free.
    pub ended: bool,
}

enum Phase {
    /// Receiving the head.
    Head(Scan),
    /// Receiving the body. The number is the length of the complete request as the gate sends it upstream, in bytes.
    Body(usize),
    /// The request is complete and waits for a slot.
    Waiting,
    /// Sending the request to tiny_http.
    Forwarding,
    /// Sending the answer to the client: from tiny_http, or a refusal from `buffer`. `begun`: a part of the answer
    /// exists, so the gate can no longer refuse the request.
    Answering {
        begun: bool,
    },
    /// The client has its whole answer. The number counts the bytes that the gate has read and dropped since then.
    Lingering(usize),
    Closed,
}

impl Client {
    pub fn new(stream: TcpStream, address: IpAddr, limits: &Limits, now: Instant) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        // The gate writes whole buffers, so collecting small writes gains nothing.
        let _ = stream.set_nodelay(true);
        Ok(Client {
            stream,
            address,
            since: now,
            deadline: now + limits.head,
            phase: Phase::Head(Scan::default()),
            upstream: None,
            detached: None,
            buffer: Vec::new(),
            sent_bytes: 0,
            weight: Weight::Light,
            without_body: false,
            may_be_trusted: false,
            taken_bytes: 0,
            unread_time: Duration::ZERO,
        })
    }

    /// Address group for the fair queue and for eviction: an IPv4 address, or an IPv6 /64, which is what one
    /// subscriber gets.
    pub fn address_group(&self) -> u64 {
        match self.address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        }
    }

    /// The request has not arrived completely.
    pub fn incomplete(&self) -> bool {
        matches!(self.phase, Phase::Head(_) | Phase::Body(_))
    }

    /// The slot of its request.
    pub fn slot(&self) -> Option<&OccupiedSlot> {
        self.upstream.as_ref().map(|upstream| &upstream.slot)
    }

    /// The request is complete and waits for a slot.
    pub fn waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// The complete request is larger than a head may be.
    pub fn has_large_request(&self) -> bool {
        match self.phase {
            Phase::Body(request_bytes) => request_bytes > HEAD_LIMIT,
            Phase::Waiting | Phase::Forwarding => self.buffer.len() > HEAD_LIMIT,
            _ => false,
        }
    }

    /// The event loop may remove this connection.
    pub fn closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// The client has its whole answer, or the connection is closed.
    pub fn lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering(_) | Phase::Closed)
    }

    /// The client's socket does not take the rest of the buffer yet.
    pub fn unread(&self) -> bool {
        matches!(self.phase, Phase::Answering { .. }) && self.sent_bytes < self.buffer.len()
    }

    /// The client has not taken the current buffer completely within the time `stall`.
    pub fn stalled(&self, now: Instant, stall: Duration) -> bool {
        self.unread() && now.saturating_duration_since(self.since) >= stall
    }

    /// The client has left data unread for longer than `stall` plus the time that MIN_READ_BYTES_PER_S allows for the
    /// bytes taken so far.
    pub fn slow(&self, now: Instant, stall: Duration) -> bool {
        // The kernel takes this much even if the client reads nothing.
        let read = self.taken_bytes.saturating_sub(2 * SEND_BUFFER_BYTES as u64);
        let allowed = Duration::from_millis(read.saturating_mul(1000) / MIN_READ_BYTES_PER_S);
        self.unread_time + now.saturating_duration_since(self.since) >= stall + allowed
    }

    /// Takes the upstream connection that the client no longer needs.
    pub fn take_detached(&mut self) -> Option<UpstreamConnection> {
        if self.closed() {
            self.detach_upstream();
        }
        self.detached.take()
    }

    /// Ends the use of the upstream connection by this client.
    fn detach_upstream(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            // The rest of an incomplete request will not follow.
            let _ = upstream.stream.shutdown(Shutdown::Write);
            self.detached = Some(upstream);
        }
    }

    /// The poll(2) events that the client's socket waits for.
    pub fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Head(_) | Phase::Body(_) | Phase::Lingering(_) => PollFlags::POLLIN,
            _ if self.unread() => PollFlags::POLLOUT,
            // poll(2) reports a reset even without requested events.
            _ => PollFlags::empty(),
        }
    }

    /// The upstream socket, and the poll(2) events that it waits for.
    pub fn upstream_interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let upstream = self.upstream.as_ref()?.stream.as_fd();
        match self.phase {
            Phase::Forwarding => Some((upstream, PollFlags::POLLOUT)),
            Phase::Answering { .. } if !self.unread() => Some((upstream, PollFlags::POLLIN)),
            _ => None,
        }
    }

    fn enter(&mut self, phase: Phase, time: Duration, now: Instant) {
        self.phase = phase;
        self.since = now;
        self.deadline = now + time;
    }

    /// Does the work that `events` allow. `scratch`: a buffer that all connections share.
    pub fn handle_events(&mut self, events: PollFlags, rules: &Rules, scratch: &mut [u8], now: Instant) {
        // POLLHUP means that both directions are shut down: by a reset, unless the gate has shut down its own
        // direction.
        let hangup = if self.lingering() { PollFlags::empty() } else { PollFlags::POLLHUP };
        if events.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL | hangup) {
            self.phase = Phase::Closed;
            return;
        }
        match self.phase {
            Phase::Head(_) | Phase::Body(_) => self.read(rules, scratch, now),
            Phase::Forwarding => self.send_request(rules, scratch, now),
            Phase::Answering { .. } => self.relay(rules, scratch, now),
            Phase::Lingering(_) => self.drain(scratch),
            Phase::Waiting | Phase::Closed => {}
        }
    }

    /// Ends the phase whose deadline has passed.
    pub fn expire(&mut self, rules: &Rules, now: Instant) {
        match self.phase {
            // Browsers open connections that they may need later: no answer for those.
            Phase::Head(_) if self.buffer.is_empty() => self.phase = Phase::Closed,
            Phase::Head(_) | Phase::Body(_) => self.refuse(REQUEST_TIMED_OUT, rules, &mut [], now),
            Phase::Waiting => self.refuse(BUSY, rules, &mut [], now),
            Phase::Forwarding | Phase::Answering { begun: false } => self.refuse(ANSWER_TIMED_OUT, rules, &mut [], now),
            Phase::Answering { .. } => self.abort("the answer made no progress for too long"),
            Phase::Lingering(_) | Phase::Closed => self.phase = Phase::Closed,
        }
    }

    /// Reads once, so that the other connections have their turn.
    fn read(&mut self, rules: &Rules, scratch: &mut [u8], now: Instant) {
        let max_bytes = match self.phase {
            Phase::Body(request_bytes) => request_bytes.saturating_sub(self.buffer.len()),
            _ => HEAD_LIMIT.saturating_sub(self.buffer.len()),
        };
        let max_bytes = max_bytes.min(scratch.len());
        let count = match self.stream.read(&mut scratch[..max_bytes]) {
            Ok(0) if self.buffer.is_empty() => return self.phase = Phase::Closed,
            Ok(0) => return self.refuse(INCOMPLETE_REQUEST, rules, scratch, now),
            Ok(count) => count,
            Err(error) if would_block(&error) => return,
            Err(_) => return self.phase = Phase::Closed,
        };
        self.buffer.extend_from_slice(&scratch[..count]);
        if let Phase::Head(scan) = &mut self.phase {
            match scan.end(&self.buffer) {
                Ok(None) => return,
                Err(refusal) => return self.refuse(refusal, rules, scratch, now),
                Ok(Some(end)) => {
                    if let Err(refusal) = self.accept_head(end, rules, now) {
                        return self.refuse(refusal, rules, scratch, now);
                    }
                }
            }
        }
        if matches!(self.phase, Phase::Body(request_bytes) if self.buffer.len() >= request_bytes) {
            self.enter(Phase::Waiting, rules.limits.queue, now);
        }
    }

    /// Checks the head, which is `end` bytes long, and replaces it in the buffer with the head for tiny_http.
    fn accept_head(&mut self, end: usize, rules: &Rules, now: Instant) -> std::result::Result<(), RequestRefusal> {
        let received = std::mem::take(&mut self.buffer);
        let (head, rest) = received.split_at_checked(end).ok_or(head::NOT_HTTP)?;
        let head = Head::read(head)?;
        self.without_body = head.method == "HEAD";
        if let Some(refusal) = rules.names.wrong_host(&head) {
            return Err(refusal);
        }
        if access::changes_something(head.method) && access::foreign_origin(&head) {
            return Err(access::FOREIGN_ORIGIN);
        }
        self.weight = (rules.weigh)(head.method, &head.target);
        self.may_be_trusted = access::may_be_trusted(&head, self.address, rules.trust.private);
        self.buffer = head.to_upstream(self.address);
        let length = head.length.unwrap_or(0).min(BODY_LIMIT);
        // Bytes after the body are ignored: there is no second request.
        self.buffer.extend(rest.iter().take(length));
        let request_bytes = self.buffer.len() - rest.len().min(length) + length;
        self.enter(Phase::Body(request_bytes), rules.limits.body, now);
        Ok(())
    }

    /// Starts the request in its slot: sends it to tiny_http.
    pub fn forward(&mut self, upstream: UpstreamConnection, rules: &Rules, scratch: &mut [u8], now: Instant) {
        let trusted = self.may_be_trusted && rules.trust.trusts(&self.stream);
        head::add_gate_headers(&mut self.buffer, upstream.slot.number, trusted);
        self.sent_bytes = 0;
        self.upstream = Some(upstream);
        self.enter(Phase::Forwarding, rules.limits.answer, now);
        self.send_request(rules, scratch, now);
    }

    fn send_request(&mut self, rules: &Rules, scratch: &mut [u8], now: Instant) {
        let Some(UpstreamConnection { stream, .. }) = &mut self.upstream else { return };
        while self.sent_bytes < self.buffer.len() {
            match stream.write(&self.buffer[self.sent_bytes..]) {
                Ok(count) if count > 0 => self.sent_bytes += count,
                Err(error) if would_block(&error) => return,
                // tiny_http may answer before it has read the whole request.
                _ => break,
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        self.buffer = Vec::new();
        self.sent_bytes = 0;
        // The deadline stays the same.
        self.phase = Phase::Answering { begun: false };
        self.relay(rules, scratch, now);
    }

    /// Copies the answer from tiny_http to the client, one buffer at a time.
    fn relay(&mut self, rules: &Rules, scratch: &mut [u8], now: Instant) {
        for _ in 0..IO_CALLS_PER_TURN {
            if self.unread() && !self.send_buffer(rules, now) {
                return;
            }
            let Phase::Answering { begun } = &mut self.phase else { return };
            let Some(upstream) = &mut self.upstream else { return self.linger(rules, now) };
            let count = match upstream.stream.read(scratch) {
                Ok(count) => count,
                Err(error) if would_block(&error) => return,
                // If tiny_http closes its end with unread data, a read here fails with a reset, but only after
                // everything that tiny_http wrote was read.
                Err(_) => 0,
            };
            if count == 0 {
                upstream.ended = true;
                let begun = *begun;
                self.detach_upstream();
                return match begun {
                    true => self.linger(rules, now),
                    false => self.refuse(UPSTREAM_FAILED, rules, scratch, now),
                };
            }
            *begun = true;
            let part = scratch.get(..count).unwrap_or_default();
            let written = match self.stream.write(part) {
                Ok(count) => count,
                Err(error) if would_block(&error) => 0,
                Err(_) => return self.phase = Phase::Closed,
            };
            self.since = now;
            self.deadline = now + rules.limits.idle;
            self.buffer = part.get(written..).unwrap_or_default().to_vec();
            self.taken_bytes += written as u64;
            self.sent_bytes = 0;
        }
    }

    /// Sends the rest of the buffer. True if the client has taken all of it.
    fn send_buffer(&mut self, rules: &Rules, now: Instant) -> bool {
        match self.stream.write(&self.buffer[self.sent_bytes..]) {
            Ok(count) => self.sent_bytes += count,
            Err(error) if would_block(&error) => {}
            Err(_) => self.phase = Phase::Closed,
        }
        if self.closed() || self.unread() {
            return false;
        }
        // Only a complete buffer counts as progress. Otherwise a client could keep its slot by reading a few bytes at
        // a time.
        self.taken_bytes += self.buffer.len() as u64;
        self.unread_time += now.saturating_duration_since(self.since);
        self.buffer = Vec::new();
        self.sent_bytes = 0;
        self.since = now;
        self.deadline = now + rules.limits.idle;
        true
    }

    /// Answers the request with this refusal, and drops its upstream connection if it has one.
    pub fn refuse(&mut self, refusal: RequestRefusal, rules: &Rules, scratch: &mut [u8], now: Instant) {
        log::debug!("{}: {}: {}", self.address, refusal.status, refusal.detail);
        self.detach_upstream();
        self.buffer = refusal_answer(refusal, self.without_body);
        self.sent_bytes = 0;
        self.enter(Phase::Answering { begun: true }, rules.limits.linger, now);
        self.relay(rules, scratch, now);
    }

    /// Ends the answer, and from now on waits for the client to close its end.
    fn linger(&mut self, rules: &Rules, now: Instant) {
        self.buffer = Vec::new();
        self.sent_bytes = 0;
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) => self.enter(Phase::Lingering(0), rules.limits.linger, now),
            Err(_) => self.phase = Phase::Closed,
        }
    }

    fn drain(&mut self, scratch: &mut [u8]) {
        let Phase::Lingering(drained_bytes) = &mut self.phase else { return };
        for _ in 0..IO_CALLS_PER_TURN {
            match self.stream.read(scratch) {
                Ok(count) if count > 0 && *drained_bytes <= DRAIN_LIMIT_BYTES => *drained_bytes += count,
                Err(error) if would_block(&error) => return,
                _ => return self.phase = Phase::Closed,
            }
        }
    }

    /// Closes the connection with a reset, without sending what is left in the kernel's buffers.
    pub fn abort(&mut self, reason: &str) {
        log::debug!("{}: {reason}", self.address);
        reset_on_close(&self.stream);
        self.phase = Phase::Closed;
    }
}

impl UpstreamConnection {
    /// Reads and drops the rest of an answer.
    pub fn discard(&mut self, scratch: &mut [u8]) {
        for _ in 0..IO_CALLS_PER_TURN {
            match self.stream.read(scratch) {
                Ok(count) if count > 0 => {}
                Err(error) if would_block(&error) => return,
                _ => return self.ended = true,
            }
        }
    }
}

/// Makes close(2) send a reset. Without this the kernel keeps the closed connection and its unsent data for a minute or
/// more.
fn reset_on_close(stream: &TcpStream) {
    if let Ok(mut linger) = getsockopt(stream, sockopt::Linger) {
        (linger.l_onoff, linger.l_linger) = (1, 0);
        let _ = setsockopt(stream, sockopt::Linger, &linger);
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A refusal as a complete HTTP answer.
pub fn refusal_answer(refusal: RequestRefusal, without_body: bool) -> Vec<u8> {
    let RequestRefusal { status, detail } = refusal;
    let reason = reason(status);
    let retry_after = if status == 503 { "Retry-After: 1\r\n" } else { "" };
    // No detail needs JSON escaping; a test checks this.
    let body = format!("{{\"detail\":\"{detail}\"}}\n");
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{retry_after}Connection: close\r\n\r\n",
        body.len()
    );
    (if without_body { head } else { head + &body }).into_bytes()
}
