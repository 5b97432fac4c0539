//! One connection, from its first byte to its end. It never waits: each turn does what can be done, and says what to wait
//! for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::access;
use super::head::{self, BODY_LIMIT, HEAD_LIMIT, Head, Refusal, Scan};
use super::{BUSY, Limits, Rules, SEND_BUFFER};
use crate::http::route::Weight;
use crate::http::status::reason;

/// Reads or writes on one connection before the next one has its turn.
const TURNS: usize = 4;
/// What is read and thrown away after an answer, so that the client finds the answer and not a reset.
const DRAIN_LIMIT: usize = 256 * 1024;
/// A reader that is slower, in bytes per second, gives its place to others that wait for it.
const SLOWEST: u64 = 1 << 20;
pub const SLOW: Refusal = Refusal { status: 408, detail: "the request did not come in time" };
pub const CUT_SHORT: Refusal = Refusal { status: 400, detail: "the request ended before it was whole" };
pub const UNANSWERED: Refusal = Refusal { status: 504, detail: "the answer was not ready in time" };
pub const NO_ANSWER: Refusal = Refusal { status: 502, detail: "the program is at fault: its log has more" };

pub struct Client {
    pub stream: TcpStream,
    address: IpAddr,
    /// In this phase.
    pub since: Instant,
    pub deadline: Instant,
    phase: Phase,
    /// From the moment when its request is let in until the end of the answer was seen.
    inside: Option<Inside>,
    /// The same when it is of no more use to the client, for the door to take care of.
    done: Option<Inside>,
    /// What has come and is not yet passed on, in the one direction or the other.
    buffer: Vec<u8>,
    /// How much of it was passed on.
    at: usize,
    pub weight: Weight,
    /// HEAD: a refusal has no body either.
    without_body: bool,
    /// It needs no token if its socket is of the right user.
    may_be_trusted: bool,
    /// Bytes of the answer that the client has taken, and the time that it kept them waiting before.
    passed: u64,
    waited: Duration,
}

/// A place that is taken: also by what was asked by a client that has left.
#[derive(Clone, Copy)]
pub struct Held {
    pub place: usize,
    pub kin: u64,
    pub weight: Weight,
    pub since: Instant,
}

/// One place inside.
pub struct Inside {
    pub stream: UnixStream,
    pub held: Held,
    /// The inside has closed its end: the place is free.
    pub ended: bool,
}

enum Phase {
    /// Its head is coming.
    Head(Scan),
    /// Its body is coming; so many bytes make the request whole.
    Body(usize),
    /// A whole request that waits for its turn.
    Waiting,
    /// The request is on its way inward.
    Asking,
    /// The answer is on its way out: from inside, or what is left of it.
    Answering {
        begun: bool,
    },
    /// It has its answer; so much was thrown away since.
    Parting(usize),
    Gone,
}

impl Client {
    pub fn new(stream: TcpStream, address: IpAddr, limits: &Limits, now: Instant) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        // The relay writes whole buffers: there is nothing to collect.
        let _ = stream.set_nodelay(true);
        Ok(Client {
            stream,
            address,
            since: now,
            deadline: now + limits.head,
            phase: Phase::Head(Scan::default()),
            inside: None,
            done: None,
            buffer: Vec::new(),
            at: 0,
            weight: Weight::Light,
            without_body: false,
            may_be_trusted: false,
            passed: 0,
            waited: Duration::ZERO,
        })
    }

    /// Whom it is counted with: an address, or the network that one subscriber has in IPv6.
    pub fn kin(&self) -> u64 {
        match self.address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        }
    }

    pub fn incomplete(&self) -> bool {
        matches!(self.phase, Phase::Head(_) | Phase::Body(_))
    }

    /// The place that its request has.
    pub fn held(&self) -> Option<&Held> {
        self.inside.as_ref().map(|inside| &inside.held)
    }

    pub fn waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// Its request does not fit where a head fits.
    pub fn large(&self) -> bool {
        match self.phase {
            Phase::Body(whole) => whole > HEAD_LIMIT,
            Phase::Waiting | Phase::Asking => self.buffer.len() > HEAD_LIMIT,
            _ => false,
        }
    }

    pub fn gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    pub fn parting(&self) -> bool {
        matches!(self.phase, Phase::Parting(_) | Phase::Gone)
    }

    pub fn unread(&self) -> bool {
        matches!(self.phase, Phase::Answering { .. }) && self.at < self.buffer.len()
    }

    pub fn stalled(&self, now: Instant, stall: Duration) -> bool {
        self.unread() && now.saturating_duration_since(self.since) >= stall
    }

    /// It has kept the inside waiting for longer than what it has read is worth.
    pub fn slow(&self, now: Instant, stall: Duration) -> bool {
        // What fits the kernel's buffers was no work for the client.
        let read = self.passed.saturating_sub(2 * SEND_BUFFER as u64);
        let worth = Duration::from_millis(read.saturating_mul(1000) / SLOWEST);
        self.waited + now.saturating_duration_since(self.since) >= stall + worth
    }

    /// What goes on inside and is of no more use to the client.
    pub fn left(&mut self) -> Option<Inside> {
        if self.gone() {
            self.let_go();
        }
        self.done.take()
    }

    /// What goes on inside is not for this client any more.
    fn let_go(&mut self) {
        if let Some(inside) = self.inside.take() {
            // If something of the request is still missing, it will stay so.
            let _ = inside.stream.shutdown(Shutdown::Write);
            self.done = Some(inside);
        }
    }

    pub fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Head(_) | Phase::Body(_) | Phase::Parting(_) => PollFlags::POLLIN,
            _ if self.unread() => PollFlags::POLLOUT,
            // Still told of a reset, whatever is asked for.
            _ => PollFlags::empty(),
        }
    }

    pub fn interest_inside(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let inside = self.inside.as_ref()?.stream.as_fd();
        match self.phase {
            Phase::Asking => Some((inside, PollFlags::POLLOUT)),
            Phase::Answering { .. } if !self.unread() => Some((inside, PollFlags::POLLIN)),
            _ => None,
        }
    }

    fn enter(&mut self, phase: Phase, time: Duration, now: Instant) {
        self.phase = phase;
        self.since = now;
        self.deadline = now + time;
    }

    pub fn turn(&mut self, events: PollFlags, rules: &Rules, scratch: &mut [u8], now: Instant) {
        // Both directions are shut: by a reset, as long as we have not said goodbye ourselves.
        let lost = if self.parting() { PollFlags::empty() } else { PollFlags::POLLHUP };
        if events.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL | lost) {
            self.phase = Phase::Gone;
            return;
        }
        match self.phase {
            Phase::Head(_) | Phase::Body(_) => self.read(rules, scratch, now),
            Phase::Asking => self.pass_on(rules, scratch, now),
            Phase::Answering { .. } => self.relay(rules, scratch, now),
            Phase::Parting(_) => self.drain(scratch),
            Phase::Waiting | Phase::Gone => {}
        }
    }

    pub fn expire(&mut self, rules: &Rules, now: Instant) {
        match self.phase {
            // Browsers open connections that they may need later.
            Phase::Head(_) if self.buffer.is_empty() => self.phase = Phase::Gone,
            Phase::Head(_) | Phase::Body(_) => self.refuse(SLOW, rules, &mut [], now),
            Phase::Waiting => self.refuse(BUSY, rules, &mut [], now),
            Phase::Asking | Phase::Answering { begun: false } => self.refuse(UNANSWERED, rules, &mut [], now),
            Phase::Answering { .. } => self.throw_out("did not read"),
            Phase::Parting(_) | Phase::Gone => self.phase = Phase::Gone,
        }
    }

    /// One read: others wait for their turn.
    fn read(&mut self, rules: &Rules, scratch: &mut [u8], now: Instant) {
        let room = match self.phase {
            Phase::Body(whole) => whole.saturating_sub(self.buffer.len()),
            _ => HEAD_LIMIT.saturating_sub(self.buffer.len()),
        };
        let room = room.min(scratch.len());
        let count = match self.stream.read(&mut scratch[..room]) {
            Ok(0) if self.buffer.is_empty() => return self.phase = Phase::Gone,
            Ok(0) => return self.refuse(CUT_SHORT, rules, scratch, now),
            Ok(count) => count,
            Err(error) if is_later(&error) => return,
            Err(_) => return self.phase = Phase::Gone,
        };
        self.buffer.extend_from_slice(&scratch[..count]);
        if let Phase::Head(scan) = &mut self.phase {
            match scan.end(&self.buffer) {
                Ok(None) => return,
                Err(refusal) => return self.refuse(refusal, rules, scratch, now),
                Ok(Some(end)) => {
                    if let Err(refusal) = self.take_head(end, rules, now) {
                        return self.refuse(refusal, rules, scratch, now);
                    }
                }
            }
        }
        if matches!(self.phase, Phase::Body(whole) if self.buffer.len() >= whole) {
            self.enter(Phase::Waiting, rules.limits.queue, now);
        }
    }

    fn take_head(&mut self, end: usize, rules: &Rules, now: Instant) -> std::result::Result<(), Refusal> {
        let received = std::mem::take(&mut self.buffer);
        let (head, rest) = received.split_at_checked(end).ok_or(head::NOT_HTTP)?;
        let head = Head::read(head)?;
        self.without_body = head.method == "HEAD";
        if let Some(refusal) = rules.names.wrong_host(&head) {
            return Err(refusal);
        }
        if access::changes_something(head.method) && access::foreign_origin(&head) {
            return Err(access::FOREIGN);
        }
        self.weight = (rules.weigh)(head.method, &head.target);
        self.may_be_trusted = access::may_be_trusted(&head, self.address, rules.trust.private);
        self.buffer = head.onward(self.address);
        let length = head.length.unwrap_or(0).min(BODY_LIMIT);
        // Whatever comes after the body is left where it is.
        self.buffer.extend(rest.iter().take(length));
        let whole = self.buffer.len() - rest.len().min(length) + length;
        self.enter(Phase::Body(whole), rules.limits.body, now);
        Ok(())
    }

    pub fn ask(&mut self, inside: Inside, rules: &Rules, scratch: &mut [u8], now: Instant) {
        let trusted = self.may_be_trusted && rules.trust.holds(&self.stream);
        head::note(&mut self.buffer, inside.held.place, trusted);
        self.at = 0;
        self.inside = Some(inside);
        self.enter(Phase::Asking, rules.limits.answer, now);
        self.pass_on(rules, scratch, now);
    }

    fn pass_on(&mut self, rules: &Rules, scratch: &mut [u8], now: Instant) {
        let Some(Inside { stream, .. }) = &mut self.inside else { return };
        while self.at < self.buffer.len() {
            match stream.write(&self.buffer[self.at..]) {
                Ok(count) if count > 0 => self.at += count,
                Err(error) if is_later(&error) => return,
                // It may have been answered before it was read to its end.
                _ => break,
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        self.buffer = Vec::new();
        self.at = 0;
        // With the time that is left.
        self.phase = Phase::Answering { begun: false };
        self.relay(rules, scratch, now);
    }

    fn relay(&mut self, rules: &Rules, scratch: &mut [u8], now: Instant) {
        for _ in 0..TURNS {
            if self.unread() && !self.hand_over(rules, now) {
                return;
            }
            let Phase::Answering { begun } = &mut self.phase else { return };
            let Some(inside) = &mut self.inside else { return self.part(rules, now) };
            let count = match inside.stream.read(scratch) {
                Ok(count) => count,
                Err(error) if is_later(&error) => return,
                // What closes with something unread is reported as a reset; what it wrote has been read by then.
                Err(_) => 0,
            };
            if count == 0 {
                inside.ended = true;
                let begun = *begun;
                self.let_go();
                return match begun {
                    true => self.part(rules, now),
                    false => self.refuse(NO_ANSWER, rules, scratch, now),
                };
            }
            *begun = true;
            let part = scratch.get(..count).unwrap_or_default();
            let written = match self.stream.write(part) {
                Ok(count) => count,
                Err(error) if is_later(&error) => 0,
                Err(_) => return self.phase = Phase::Gone,
            };
            self.since = now;
            self.deadline = now + rules.limits.idle;
            self.buffer = part.get(written..).unwrap_or_default().to_vec();
            self.passed += written as u64;
            self.at = 0;
        }
    }

    /// Whether the client has taken all that was there for it.
    fn hand_over(&mut self, rules: &Rules, now: Instant) -> bool {
        match self.stream.write(&self.buffer[self.at..]) {
            Ok(count) => self.at += count,
            Err(error) if is_later(&error) => {}
            Err(_) => self.phase = Phase::Gone,
        }
        if self.gone() || self.unread() {
            return false;
        }
        // Only a whole buffer counts as progress, so that a trickle does not.
        self.passed += self.buffer.len() as u64;
        self.waited += now.saturating_duration_since(self.since);
        self.buffer = Vec::new();
        self.at = 0;
        self.since = now;
        self.deadline = now + rules.limits.idle;
        true
    }

    /// Answers instead of the program.
    pub fn refuse(&mut self, refusal: Refusal, rules: &Rules, scratch: &mut [u8], now: Instant) {
        log::debug!("{}: {}: {}", self.address, refusal.status, refusal.detail);
        self.let_go();
        self.buffer = answer(refusal, self.without_body);
        self.at = 0;
        self.enter(Phase::Answering { begun: true }, rules.limits.parting, now);
        self.relay(rules, scratch, now);
    }

    fn part(&mut self, rules: &Rules, now: Instant) {
        self.buffer = Vec::new();
        self.at = 0;
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) => self.enter(Phase::Parting(0), rules.limits.parting, now),
            Err(_) => self.phase = Phase::Gone,
        }
    }

    fn drain(&mut self, scratch: &mut [u8]) {
        let Phase::Parting(drained) = &mut self.phase else { return };
        for _ in 0..TURNS {
            match self.stream.read(scratch) {
                Ok(count) if count > 0 && *drained <= DRAIN_LIMIT => *drained += count,
                Err(error) if is_later(&error) => return,
                _ => return self.phase = Phase::Gone,
            }
        }
    }

    /// Closes at once: what is still in the kernel's buffers goes with it.
    pub fn throw_out(&mut self, why: &str) {
        log::debug!("{}: {why}", self.address);
        reset_on_close(&self.stream);
        self.phase = Phase::Gone;
    }
}

impl Inside {
    /// Reads what nothing needs, up to its end.
    pub fn discard(&mut self, scratch: &mut [u8]) {
        for _ in 0..TURNS {
            match self.stream.read(scratch) {
                Ok(count) if count > 0 => {}
                Err(error) if is_later(&error) => return,
                _ => return self.ended = true,
            }
        }
    }
}

/// Without this the kernel keeps each closed connection for a minute or more, with all that was not read.
fn reset_on_close(stream: &TcpStream) {
    if let Ok(mut linger) = getsockopt(stream, sockopt::Linger) {
        (linger.l_onoff, linger.l_linger) = (1, 0);
        let _ = setsockopt(stream, sockopt::Linger, &linger);
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

pub fn answer(refusal: Refusal, without_body: bool) -> Vec<u8> {
    let Refusal { status, detail } = refusal;
    let reason = reason(status);
    let retry = if status == 503 { "Retry-After: 1\r\n" } else { "" };
    // No detail has anything in it that JSON would want escaped; a test looks.
    let body = format!("{{\"detail\":\"{detail}\"}}\n");
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{retry}Connection: close\r\n\r\n",
        body.len()
    );
    (if without_body { head } else { head + &body }).into_bytes()
}
