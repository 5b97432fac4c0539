//! The bounded front door. One thread owns every TCP connection and waits in one place, poll(2); nothing it does waits
//! for a client. What goes inward is a whole request that passed `head`, what comes back passes through one buffer, and
//! whoever is slow, silent or strange loses their place to whoever is not.
//!
//! It refuses to keep connections open for a second request: a bound on requests is then a bound on connections.

pub mod access;
pub mod head;
pub mod inner;
mod shares;
mod trust;

use crate::sorted::Map;
use std::cmp::Reverse;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::route::Weight;
use super::status::reason;
use crate::error::{Error, Result};
use crate::thread::spawn;
use access::Names;
use head::{BODY_LIMIT, HEAD_LIMIT, Head, Refusal, Scan};
use shares::{DEAREST, Shares};
use trust::Trust;

const STACK: usize = 128 * 1024;
/// What of an answer is in our memory at a time, per connection.
const RELAY: usize = 16 * 1024;
/// The kernel's own buffers, per connection; it doubles the figures. Left alone they grow to megabytes.
const SEND_BUFFER: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 32 * 1024;
/// Reads or writes on one connection before the next one has its turn.
const TURNS: usize = 4;
/// Connections that are taken before those that are here have their turn.
const ACCEPTS: usize = 32;
/// Bodies that do not fit where a head fits; more of them at a time are refused.
const LARGE_BODIES: usize = 8;
/// What is read and thrown away after an answer, so that the client finds the answer and not a reset.
const DRAIN_LIMIT: usize = 256 * 1024;
/// Whoever reads more slowly, in bytes per second, gives their place to others who wait for it.
const SLOWEST: u64 = 1 << 20;
/// Between two looks at who reads too slowly.
const LOOK: Duration = Duration::from_millis(100);
/// What a request that has just gone in counts in the choice of the next one: as long as most of them take.
const LEAST_TURN: Duration = Duration::from_millis(50);
/// How long nothing is accepted after descriptors ran out.
const PAUSE: Duration = Duration::from_millis(200);
/// Nobody is sent away for another before the segment that follows the handshake can have come.
const GRACE: Duration = Duration::from_millis(2);
/// Between attempts to reach the inside.
const RETRY: Duration = Duration::from_millis(20);
/// Left for everything else in this process when descriptors are scarce: SQLite and sysfs open files as they go.
const SPARE_DESCRIPTORS: usize = 20;
/// The gate's own end of a request and the two that tiny_http makes of the other.
const DESCRIPTORS_INSIDE: usize = 3;

const BUSY: Refusal = Refusal { status: 503, detail: "too much is going on here: try again in a moment" };
const SLOW: Refusal = Refusal { status: 408, detail: "the request did not come in time" };
const CUT_SHORT: Refusal = Refusal { status: 400, detail: "the request ended before it was whole" };
const UNANSWERED: Refusal = Refusal { status: 504, detail: "the answer was not ready in time" };
const NO_ANSWER: Refusal = Refusal { status: 502, detail: "the program is at fault: its log has more" };

/// Every status that is answered here.
pub const STATUSES: [u16; 11] = [400, 403, 408, 413, 414, 417, 421, 431, 502, 503, 504];

/// The inside. A connection takes one whole request and gives one whole answer.
pub trait Inward: Send {
    /// Without waiting, and the stream does not wait either.
    fn connect(&mut self) -> io::Result<UnixStream>;
    /// Whether whoever asked from this place has left: what is still being made for them need not be.
    fn leave(&mut self, place: usize, left: bool);
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub clients: usize,
    /// Requests that are inside at a time: as many as there are workers. With more of them some would wait where nobody
    /// can see whom they wait for. A place is free again when the inside has closed its end, whatever became of the
    /// client: whoever asks and leaves at once would otherwise fill the inside without bound.
    pub active: usize,
    /// How many of those may be ones whose answers are long: less than there are workers.
    pub heavy: usize,
    /// From the first moment of a connection to the end of its request's head, however busily it sends.
    pub head: Duration,
    /// From the end of the head to the end of the body.
    pub body: Duration,
    /// Until a whole request is let in.
    pub queue: Duration,
    /// Until the first byte of its answer.
    pub answer: Duration,
    /// How long a client may leave what it asked for unread while others wait.
    pub stall: Duration,
    /// And how long while nobody does.
    pub idle: Duration,
    /// How long a client that has its answer may take to say goodbye.
    pub parting: Duration,
    /// How long answers may take after the end was announced.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            clients: 64,
            active: 4,
            heavy: 2,
            head: Duration::from_secs(5),
            body: Duration::from_secs(5),
            queue: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_millis(500),
            idle: Duration::from_secs(30),
            parting: Duration::from_secs(1),
            stop: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// No more than `free` descriptors allow.
    fn within(mut self, free: usize) -> Limits {
        let free = free.saturating_sub(SPARE_DESCRIPTORS);
        self.active = self.active.min(free / (2 * DESCRIPTORS_INSIDE)).max(2);
        self.heavy = self.heavy.min(self.active - 1);
        self.clients = self.clients.min(free.saturating_sub(self.active * DESCRIPTORS_INSIDE)).max(4);
        self
    }
}

/// What may still be opened, as far as can be told.
fn free_descriptors() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    let open = fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd")).map_or(32, Iterator::count);
    usize::try_from(soft).unwrap_or(usize::MAX).saturating_sub(open)
}

/// The running thread. Dropping it without `stop` leaves it to the end of the process.
pub struct Gate {
    stopping: Arc<AtomicBool>,
    waker: UnixStream,
    thread: JoinHandle<()>,
    names: Arc<Names>,
    newcomers: Arc<Mutex<Vec<TcpListener>>>,
}

/// Connections inherit the buffers; set on them, they would come too late for the first segments. Where they cannot be set,
/// the kernel's own are as good as they ever were.
fn prepare(listener: &TcpListener) -> io::Result<()> {
    let _ = setsockopt(listener, sockopt::SndBuf, &SEND_BUFFER);
    let _ = setsockopt(listener, sockopt::RcvBuf, &RECEIVE_BUFFER);
    listener.set_nonblocking(true)
}

impl Gate {
    /// `names` are those of `access::own_names`; `private`: reading needs the token too.
    pub fn open(listeners: Vec<TcpListener>, inward: Box<dyn Inward>, terms: Terms) -> Result<Gate> {
        let Terms { names, private, limits, weigh } = terms;
        let failed = |error: io::Error| Error::system("cannot serve", error);
        listeners.iter().try_for_each(prepare).map_err(failed)?;
        let (waker, bell) = UnixStream::pair().map_err(failed)?;
        waker.set_nonblocking(true).map_err(failed)?;
        bell.set_nonblocking(true).map_err(failed)?;
        let limits = limits.within(free_descriptors());
        log::debug!("the gate takes {} connections, {} requests at a time", limits.clients, limits.active);
        let stopping = Arc::new(AtomicBool::new(false));
        let names = Arc::new(Names::new(names));
        let newcomers = Arc::new(Mutex::new(Vec::new()));
        let door = Door {
            listeners,
            newcomers: newcomers.clone(),
            bell,
            stopping: stopping.clone(),
            rules: Rules { names: names.clone(), trust: Trust::new(private), limits, weigh },
            inward,
            clients: Vec::with_capacity(limits.clients),
            left: Vec::with_capacity(limits.active),
            shares: Shares::default(),
            pause: None,
            retry: None,
            complained: None,
            scratch: vec![0; RELAY].into_boxed_slice(),
        };
        let thread = spawn("gate", STACK, Box::new(move || door.run()))?;
        Ok(Gate { stopping, waker, thread, names, newcomers })
    }

    /// In place of those that were known before.
    pub fn rename(&self, names: Vec<String>) {
        self.names.set(names);
    }

    /// Takes connections from these too.
    pub fn listen(&self, mut listeners: Vec<TcpListener>) {
        listeners.retain(|listener| prepare(listener).is_ok());
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner).append(&mut listeners);
        let _ = (&self.waker).write(b"!");
    }

    /// Accepts nothing more, lets answers under way end within their time, and ends.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.waker.write(b"!");
        let _ = self.thread.join();
    }
}

/// On what terms requests are let in.
pub struct Terms {
    /// By which this machine may be asked for.
    pub names: Vec<String>,
    /// Reading asks for the token too.
    pub private: bool,
    pub limits: Limits,
    /// What a method and a target ask of the inside.
    pub weigh: fn(&str, &str) -> Weight,
}

struct Rules {
    names: Arc<Names>,
    trust: Trust,
    limits: Limits,
    weigh: fn(&str, &str) -> Weight,
}

struct Door {
    listeners: Vec<TcpListener>,
    /// Listeners that came later.
    newcomers: Arc<Mutex<Vec<TcpListener>>>,
    bell: UnixStream,
    stopping: Arc<AtomicBool>,
    rules: Rules,
    inward: Box<dyn Inward>,
    clients: Vec<Client>,
    /// What still goes on inside for those who have left.
    left: Vec<Left>,
    shares: Shares,
    /// Nothing is accepted until then.
    pause: Option<Instant>,
    /// Nobody is let in until then.
    retry: Option<Instant>,
    /// When it was last said in the log that descriptors ran out.
    complained: Option<Instant>,
    scratch: Box<[u8]>,
}

struct Client {
    stream: TcpStream,
    address: IpAddr,
    /// In this phase.
    since: Instant,
    deadline: Instant,
    phase: Phase,
    /// From the moment when its request is let in until the end of the answer was seen.
    inside: Option<Inside>,
    /// The same when it is of no more use to the client, for the door to take care of.
    done: Option<Inside>,
    /// What has come and is not yet passed on, in the one direction or the other.
    buffer: Vec<u8>,
    /// How much of it was passed on.
    at: usize,
    weight: Weight,
    /// HEAD: a refusal has no body either.
    without_body: bool,
    /// It needs no token if its socket is of the right user.
    may_be_trusted: bool,
    /// Bytes of the answer that the client has taken, and the time that it kept them waiting before.
    passed: u64,
    waited: Duration,
}

/// One place inside.
struct Inside {
    stream: UnixStream,
    place: usize,
    since: Instant,
    /// The inside has closed its end: the place is free.
    ended: bool,
}

struct Left {
    inside: Inside,
    kin: u64,
    weight: Weight,
}

/// What one address has inside, and in its way to the next place.
#[derive(Clone, Copy, Default)]
struct Standing {
    inside: usize,
    heavy: usize,
    score: Duration,
}

/// Who is inside, counted.
struct Census {
    kin: Map<u64, Standing>,
    free: usize,
    heavy_free: usize,
    limits: Limits,
}

impl Census {
    fn of(&self, client: &Client) -> Standing {
        self.kin.get(&client.kin()).copied().unwrap_or_default()
    }

    /// No address ever has all places with what takes long, of any kind or of those for long answers; and the last free one
    /// is for what memory can answer, so that a disk that hangs keeps no such request waiting.
    fn admits(&self, client: &Client) -> bool {
        let own = self.of(client);
        let Limits { active, heavy, .. } = self.limits;
        let share = |own: usize, all: usize| own == 0 || own + 1 < all;
        match client.weight {
            Weight::Light => self.free > 0,
            Weight::Costly => self.free > 1 && share(own.inside, active),
            Weight::Long => {
                self.free > 1 && share(own.inside, active) && self.heavy_free > 0 && share(own.heavy, heavy)
            }
        }
    }

    /// Whether `waiting`, who was not admitted, could be if `holder` were not there.
    fn in_the_way(&self, holder: &Client, waiting: &Client) -> bool {
        self.free <= 1 || [waiting, holder].iter().all(|client| client.weight == Weight::Long) && self.heavy_free <= 1
    }
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

impl Door {
    fn run(mut self) {
        let mut stop_at: Option<Instant> = None;
        loop {
            let now = Instant::now();
            self.listeners.append(&mut self.newcomers.lock().unwrap_or_else(PoisonError::into_inner));
            if stop_at.is_none() && self.stopping.load(Ordering::Relaxed) {
                stop_at = Some(now + self.rules.limits.stop);
                self.listeners.clear();
                // Whatever is whole has a right to its answer.
                self.clients.retain(|client| !client.incomplete());
            }
            if stop_at.is_some_and(|end| now >= end || self.clients.iter().all(Client::parting)) {
                return;
            }
            self.expire(now);
            self.let_in(now);
            self.bound_waiting(now);
            self.see_off(now);
            self.clients.retain(|client| !matches!(client.phase, Phase::Gone));

            let wake = self.next_event(now).into_iter().chain(stop_at).min();
            let Some(ready) = self.wait(now, wake) else { continue };
            let now = Instant::now();
            for (client, events) in self.clients.iter_mut().zip(&ready.clients) {
                if !events.is_empty() {
                    client.turn(*events, &self.rules, &mut self.scratch, now);
                }
            }
            for (left, ready) in self.left.iter_mut().zip(&ready.left) {
                if *ready {
                    left.inside.discard(&mut self.scratch);
                }
            }
            for listener in 0..self.listeners.len() {
                if ready.listeners.get(listener).is_some_and(|ready| *ready) {
                    self.accept(listener, now);
                }
            }
        }
    }

    /// Sleeps until something can be done, or until `wake`.
    fn wait(&mut self, now: Instant, wake: Option<Instant>) -> Option<Ready> {
        let timeout = wake.map_or(PollTimeout::NONE, |wake| {
            // Rounded up: a wake-up before the time would be one for nothing.
            let wait = wake.saturating_duration_since(now) + Duration::from_micros(999);
            PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
        });
        let accepting =
            self.pause.is_none() && (self.clients.len() < self.rules.limits.clients || self.victim(now).is_some());

        let mut waiting = Vec::with_capacity(1 + self.listeners.len() + 2 * self.clients.len());
        waiting.push(PollFd::new(self.bell.as_fd(), PollFlags::POLLIN));
        if accepting {
            waiting.extend(self.listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        }
        let first_client = waiting.len();
        for client in &self.clients {
            waiting.push(PollFd::new(client.stream.as_fd(), client.interest()));
            // A stream that nobody listens to would still report its end, again and again.
            if let Some((inside, events)) = client.interest_inside() {
                waiting.push(PollFd::new(inside, events));
            }
        }
        waiting.extend(self.left.iter().map(|left| PollFd::new(left.inside.stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut waiting, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return None,
            Err(errno) => {
                // No memory, or more descriptors than a limit that was lowered since.
                log::error!("poll: {}", io::Error::from(errno));
                thread::sleep(RETRY);
                return None;
            }
        }

        let events = |fd: &PollFd| fd.revents().unwrap_or(PollFlags::POLLERR);
        let mut rest = waiting.iter();
        let bell = rest.next().is_some_and(|fd| !events(fd).is_empty());
        let listeners = rest.by_ref().take(first_client - 1).map(|fd| !events(fd).is_empty()).collect();
        let clients = self
            .clients
            .iter()
            .map(|client| {
                let own = rest.next().map_or(PollFlags::empty(), events);
                let inside = client.interest_inside().and_then(|_| rest.next()).map_or(PollFlags::empty(), events);
                // The inside's troubles are found out by reading; the client's are its end.
                own | if inside.is_empty() { PollFlags::empty() } else { PollFlags::POLLIN }
            })
            .collect();
        let left = rest.map(|fd| !events(fd).is_empty()).collect();
        drop(waiting);
        if bell {
            let _ = self.bell.read(&mut [0; 8]);
        }
        Some(Ready { listeners, clients, left })
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        let stall = self.rules.limits.stall;
        let full = self.clients.len() >= self.rules.limits.clients;
        let crowded = full || self.clients.iter().any(|client| matches!(client.phase, Phase::Waiting));
        // While others wait, stalled readers have less time. A moment that has passed has had its effect.
        let unread = self.clients.iter().filter(|client| crowded && client.unread());
        let stalls = unread.clone().map(|client| client.since + stall);
        // Whether a slow reader has to go depends on others too, and they change.
        let slow = unread.filter(|client| client.inside()).map(|client| (client.slow_at(stall)).max(now + LOOK));
        let graces =
            self.clients.iter().filter(|client| full && client.incomplete()).map(|client| client.since + GRACE);
        let stalls = stalls.chain(graces).chain(slow);
        let deadlines = self.clients.iter().map(|client| client.deadline);
        let retry = self.retry.filter(|_| self.clients.iter().any(|client| matches!(client.phase, Phase::Waiting)));
        deadlines.chain(stalls.filter(|at| *at > now)).chain(self.pause).chain(retry).min()
    }

    fn expire(&mut self, now: Instant) {
        if self.pause.is_some_and(|until| now >= until) {
            self.pause = None;
        }
        for client in &mut self.clients {
            if now >= client.deadline {
                client.expire(&self.rules, now);
            }
        }
    }

    /// Gives free places inside to those who wait, and makes those who do not read give theirs up.
    fn let_in(&mut self, now: Instant) {
        if self.retry.is_some_and(|until| now < until) {
            return;
        }
        self.retry = None;
        loop {
            self.see_off(now);
            if !self.clients.iter().any(Client::waiting) {
                return;
            }
            let census = self.census(now);
            let Some((next, place)) = self.next_in_line(&census).zip(self.free_place()) else {
                if let Some(holder) = self.unworthy(&census, now) {
                    self.clients[holder].throw_out("did not read in time while others waited");
                    // The place is free when the inside has noticed.
                    continue;
                }
                return;
            };
            match self.inward.connect() {
                Ok(stream) => {
                    self.inward.leave(place, false);
                    let inside = Inside { stream, place, since: now, ended: false };
                    self.clients[next].ask(inside, &self.rules, &mut self.scratch, now);
                }
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        self.complain(now, "a request cannot be passed on", &error);
                    }
                    self.retry = Some(now + RETRY);
                    return;
                }
            }
        }
    }

    /// Takes over what clients have no more use for.
    fn see_off(&mut self, now: Instant) {
        for client in &mut self.clients {
            if matches!(client.phase, Phase::Gone) {
                client.let_go();
            }
            if let Some(inside) = client.done.take() {
                self.left.push(Left { inside, kin: client.kin(), weight: client.weight });
            }
        }
        let (shares, inward) = (&mut self.shares, &mut self.inward);
        self.left.retain(|Left { inside, kin, .. }| {
            match inside.ended {
                true => shares.charge(*kin, now.saturating_duration_since(inside.since), now),
                false => inward.leave(inside.place, true),
            }
            !inside.ended
        });
    }

    fn census(&self, now: Instant) -> Census {
        let limits = self.rules.limits;
        let mut census = Census { kin: Map::new(), free: limits.active, heavy_free: limits.heavy, limits };
        for client in self.clients.iter().filter(|client| client.waiting()) {
            let score = self.shares.used(client.kin(), now);
            census.kin.insert(client.kin(), Standing { score, ..Standing::default() });
        }
        for (inside, kin, weight) in self.inside() {
            let score = self.shares.used(kin, now);
            let own = census.kin.entry(kin).or_insert(Standing { score, ..Standing::default() });
            own.inside += 1;
            own.score += now.saturating_duration_since(inside.since).clamp(LEAST_TURN, DEAREST);
            census.free = census.free.saturating_sub(1);
            if weight == Weight::Long {
                own.heavy += 1;
                census.heavy_free = census.heavy_free.saturating_sub(1);
            }
        }
        census
    }

    /// Whatever goes on inside, with whom it is counted.
    fn inside(&self) -> impl Iterator<Item = (&Inside, u64, Weight)> {
        let clients =
            self.clients.iter().filter_map(|client| Some((client.inside.as_ref()?, client.kin(), client.weight)));
        clients.chain(self.left.iter().map(|left| (&left.inside, left.kin, left.weight)))
    }

    fn free_place(&self) -> Option<usize> {
        (0..self.rules.limits.active).find(|place| self.inside().all(|(inside, ..)| inside.place != *place))
    }

    /// Of those who wait the one whose address had least lately, then the one who waited longest.
    fn next_in_line(&self, census: &Census) -> Option<usize> {
        let waiting = self.clients.iter().enumerate().filter(|(_, client)| client.waiting() && census.admits(client));
        waiting.min_by_key(|(_, client)| (census.of(client).score, client.since)).map(|(at, _)| at)
    }

    /// Who has to give up their place because somebody else waits for it: whoever reads nothing at all; and whoever
    /// reads, but slowly, to an address that had less.
    fn unworthy(&self, census: &Census, now: Instant) -> Option<usize> {
        let stall = self.rules.limits.stall;
        let waiting = || self.clients.iter().filter(|client| client.waiting());
        // Their places are on the way already.
        if self.left.len() >= waiting().count() {
            return None;
        }
        let holders = self.clients.iter().enumerate().filter(|(_, client)| client.inside() && client.unread());
        let unworthy = holders.filter(|(_, holder)| {
            let score = census.of(holder).score;
            let yields = |other: &Client| {
                holder.stalled(now, stall) || holder.slow_at(stall) <= now && census.of(other).score < score
            };
            waiting().any(|other| census.in_the_way(holder, other) && yields(other))
        });
        unworthy.max_by_key(|(_, holder)| (census.of(holder).score, now.duration_since(holder.since))).map(|(at, _)| at)
    }

    /// The waiting room has an end, and large bodies are a matter of memory.
    fn bound_waiting(&mut self, now: Instant) {
        let large = |client: &Client| match client.phase {
            Phase::Body(whole) => whole > HEAD_LIMIT,
            Phase::Waiting | Phase::Asking => client.buffer.len() > HEAD_LIMIT,
            _ => false,
        };
        self.keep_to(LARGE_BODIES, large, now);
        self.keep_to((self.rules.limits.clients / 2).max(2), Client::waiting, now);
    }

    /// Who finds it full is not the one who came last, but one of those who came with the most: of an address with one
    /// request nobody is sent away for another's second. Among them it is the one whose body is missing for longest, then
    /// what asks for most, then whoever came last.
    fn keep_to(&mut self, most: usize, counts: impl Fn(&Client) -> bool, now: Instant) {
        loop {
            let mut kin: Map<u64, usize> = Map::new();
            let counted = self.clients.iter().filter(|client| counts(client));
            counted.for_each(|client| *kin.entry(client.kin()).or_default() += 1);
            if kin.values().sum::<usize>() <= most {
                return;
            }
            self.inside().for_each(|(_, other, _)| {
                kin.get_mut(&other).into_iter().for_each(|count| *count += 1);
            });
            // A request on its way inward is past being refused.
            let clients = self.clients.iter_mut().filter(|client| counts(client) && client.inside.is_none());
            let of = |client: &Client| kin.get(&client.kin()).copied().unwrap_or_default();
            let victim = clients.max_by_key(|client| {
                let age = now.saturating_duration_since(client.since);
                let missing = client.incomplete().then_some(age);
                (of(client), missing, client.weight, Reverse(age))
            });
            let Some(victim) = victim else { return };
            victim.refuse(BUSY, &self.rules, &mut self.scratch, now);
        }
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for taken in 0..ACCEPTS {
            if self.clients.len() >= self.rules.limits.clients {
                let Some(victim) = self.victim(now) else { return };
                self.evict(victim, now);
            }
            let Some(listener) = self.listeners.get(listener) else { return };
            match listener.accept() {
                Ok((stream, address)) => {
                    let Ok(mut client) = Client::new(stream, address.ip(), &self.rules.limits, now) else { continue };
                    // Most requests are here already.
                    client.turn(PollFlags::POLLIN, &self.rules, &mut self.scratch, now);
                    self.clients.push(client);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    // Said before the kernel looks whether anybody is there at all.
                    Some(Errno::EMFILE | Errno::ENFILE) if taken > 0 => return,
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        // They stay in the kernel's queue. What we can give back may be what is missing.
                        if let Some(victim) = self.victim(now) {
                            self.evict(victim, now);
                        }
                        self.pause = Some(now + PAUSE);
                        self.complain(now, "connections cannot be accepted", &error);
                        return;
                    }
                    // One that was gone before it was here (accept(2) lists more of these): the next one may be well.
                    _ => log::debug!("accept: {error}"),
                },
            }
        }
    }

    fn evict(&mut self, victim: usize, now: Instant) {
        // An answer may still be on its way to whoever has got one.
        if let Some(client) = self.clients.get_mut(victim).filter(|client| !client.parting()) {
            client.throw_out("made way for another");
        }
        self.see_off(now);
        self.clients.swap_remove(victim);
    }

    /// Who is to go when somebody else wants to come.
    fn victim(&self, now: Instant) -> Option<usize> {
        let oldest = |wanted: &dyn Fn(&Client) -> bool| {
            let clients = self.clients.iter().enumerate().filter(|(_, client)| wanted(client));
            clients.min_by_key(|(_, client)| client.since).map(|(at, _)| at)
        };
        oldest(&|client| matches!(client.phase, Phase::Parting(_) | Phase::Gone))
            .or_else(|| self.horde())
            .or_else(|| self.crowd(now))
            .or_else(|| oldest(&|client| client.stalled(now, self.rules.limits.stall)))
    }

    /// The newest request in the waiting room of an address that has so many connections that it would push out others
    /// who have only just come.
    fn horde(&self) -> Option<usize> {
        let mut kin: Map<u64, usize> = Map::new();
        self.clients.iter().for_each(|client| *kin.entry(client.kin()).or_default() += 1);
        let (largest, count) = kin.into_iter().max_by_key(|(_, count)| *count)?;
        let own = self.clients.iter().enumerate().filter(|(_, client)| client.kin() == largest);
        let endangered = |client: &Client| client.incomplete() && client.kin() != largest;
        let own_to_go = own.clone().any(|(_, client)| client.incomplete());
        if count < self.rules.limits.clients / 2 || own_to_go || !self.clients.iter().any(endangered) {
            return None;
        }
        own.filter(|(_, client)| client.waiting())
            .max_by_key(|(_, client)| (client.weight, client.since))
            .map(|(at, _)| at)
    }

    /// Of those without a whole request the oldest one of the most numerous kin: a flood from one address costs its own.
    fn crowd(&self, now: Instant) -> Option<usize> {
        let mut kin: Map<u64, (usize, Instant, usize)> = Map::new();
        for (at, client) in self.clients.iter().enumerate().filter(|(_, client)| client.incomplete()) {
            let entry = kin.entry(client.kin()).or_insert((0, client.since, at));
            entry.0 += 1;
            if client.since < entry.1 {
                (entry.1, entry.2) = (client.since, at);
            }
        }
        let largest = kin.values().max_by_key(|(count, oldest, _)| (*count, Reverse(*oldest)));
        largest.filter(|(_, oldest, _)| now.saturating_duration_since(*oldest) >= GRACE).map(|(_, _, at)| *at)
    }

    /// Once a minute.
    fn complain(&mut self, now: Instant, what: &str, error: &io::Error) {
        if self.complained.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(60)) {
            self.complained = Some(now);
            log::warn!("{what}: {error}; trying again");
        }
    }
}

struct Ready {
    listeners: Vec<bool>,
    clients: Vec<PollFlags>,
    left: Vec<bool>,
}

impl Client {
    fn new(stream: TcpStream, address: IpAddr, limits: &Limits, now: Instant) -> io::Result<Client> {
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
    fn kin(&self) -> u64 {
        match self.address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        }
    }

    fn incomplete(&self) -> bool {
        matches!(self.phase, Phase::Head(_) | Phase::Body(_))
    }

    fn inside(&self) -> bool {
        self.inside.is_some()
    }

    fn waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    fn parting(&self) -> bool {
        matches!(self.phase, Phase::Parting(_) | Phase::Gone)
    }

    fn unread(&self) -> bool {
        matches!(self.phase, Phase::Answering { .. }) && self.at < self.buffer.len()
    }

    fn stalled(&self, now: Instant, stall: Duration) -> bool {
        self.unread() && now.saturating_duration_since(self.since) >= stall
    }

    /// When it will have kept the inside waiting for longer than its answer is worth, if it goes on like that.
    fn slow_at(&self, stall: Duration) -> Instant {
        // What fits the kernel's buffers was no work for the client.
        let read = self.passed.saturating_sub(2 * SEND_BUFFER as u64);
        let worth = Duration::from_millis(read.saturating_mul(1000) / SLOWEST);
        self.since + (stall + worth).saturating_sub(self.waited)
    }

    /// What goes on inside is not for this client any more.
    fn let_go(&mut self) {
        if let Some(inside) = self.inside.take() {
            // If something of the request is still missing, it will stay so.
            let _ = inside.stream.shutdown(Shutdown::Write);
            self.done = Some(inside);
        }
    }

    fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Head(_) | Phase::Body(_) | Phase::Parting(_) => PollFlags::POLLIN,
            _ if self.unread() => PollFlags::POLLOUT,
            // Still told of a reset, whatever is asked for.
            _ => PollFlags::empty(),
        }
    }

    fn interest_inside(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
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

    fn turn(&mut self, events: PollFlags, rules: &Rules, scratch: &mut [u8], now: Instant) {
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

    fn expire(&mut self, rules: &Rules, now: Instant) {
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

    fn ask(&mut self, inside: Inside, rules: &Rules, scratch: &mut [u8], now: Instant) {
        let trusted = self.may_be_trusted && rules.trust.holds(&self.stream);
        head::note(&mut self.buffer, inside.place, trusted);
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
            if self.unread() {
                match self.stream.write(&self.buffer[self.at..]) {
                    Ok(count) => self.at += count,
                    Err(error) if is_later(&error) => return,
                    Err(_) => return self.phase = Phase::Gone,
                }
                if self.unread() {
                    return;
                }
                // Only a whole buffer counts as progress, so that a trickle does not.
                self.passed += self.buffer.len() as u64;
                self.waited += now.saturating_duration_since(self.since);
                self.buffer = Vec::new();
                self.at = 0;
                self.since = now;
                self.deadline = now + rules.limits.idle;
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

    /// Answers instead of the program.
    fn refuse(&mut self, refusal: Refusal, rules: &Rules, scratch: &mut [u8], now: Instant) {
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
    fn throw_out(&mut self, why: &str) {
        log::debug!("{}: {why}", self.address);
        reset_on_close(&self.stream);
        self.phase = Phase::Gone;
    }
}

impl Inside {
    fn discard(&mut self, scratch: &mut [u8]) {
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

fn answer(refusal: Refusal, without_body: bool) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_descriptors() {
        let check = |free: usize, clients: usize, active: usize, heavy: usize| {
            let limits = Limits::default().within(free);
            assert_eq!((limits.clients, limits.active, limits.heavy), (clients, active, heavy), "{free} free");
            assert!(limits.heavy < limits.active);
        };
        check(1000, 64, 4, 2);
        check(64 - 20, 12, 4, 2);
        check(20, 4, 2, 1);
        check(0, 4, 2, 1);
        check(usize::MAX, 64, 4, 2);
    }

    #[test]
    fn refusals_are_whole_answers() {
        use head::*;
        let all = [
            BARE_CR,
            BARE_LF,
            CONTROL,
            FOLDED,
            NOT_HTTP,
            TARGET,
            VERSION,
            HEADER,
            HOST,
            TWICE,
            LENGTH,
            TOO_MUCH,
            TRANSFER,
            EXPECT,
            LONG_TARGET,
            LONG_HEAD,
            BUSY,
            SLOW,
            CUT_SHORT,
            UNANSWERED,
            NO_ANSWER,
            access::NOT_US,
            access::FOREIGN,
        ];
        for refusal in all {
            assert!(STATUSES.contains(&refusal.status) && !reason(refusal.status).is_empty(), "{}", refusal.status);
            let text = String::from_utf8(answer(refusal, false)).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(json, serde_json::json!({ "detail": refusal.detail }));
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert_eq!(answer(refusal, true), format!("{head}\r\n\r\n").into_bytes());
        }
    }
}
