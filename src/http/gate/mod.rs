//! The bounded front door. One thread owns every TCP connection and waits in one place, poll(2); nothing it does waits
//! for a client. What goes inward is a whole request that passed `head`, and what comes back passes through one buffer.
//!
//! Two policies make it fair. A place inside goes to the address that had least of the time inside lately, also from a
//! reader that keeps it waiting, and what takes long never has all of them (`places`). Where there is no room, the address
//! with the most connections loses one, first what makes no progress (`room`).
//!
//! It refuses to keep connections open for a second request: a bound on requests is then a bound on connections.

pub mod access;
mod client;
pub mod head;
pub mod inner;
mod places;
mod room;
mod trust;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{setsockopt, sockopt};

use super::route::Weight;
use crate::error::{Error, Result};
use crate::thread::spawn;
use access::Names;
use client::{Client, Held, Inside};
use head::Refusal;
use places::{Places, Shares};
use trust::Trust;

const STACK: usize = 128 * 1024;
/// What of an answer is in our memory at a time, per connection.
const RELAY: usize = 16 * 1024;
/// The kernel's own buffers, per connection; it doubles the figures. Left alone they grow to megabytes.
const SEND_BUFFER: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 32 * 1024;
/// Connections that are taken before those that are here have their turn.
const ACCEPTS: usize = 32;
/// Bodies that do not fit where a head fits; more of them at a time are refused.
const LARGE_BODIES: usize = 8;
/// Between two looks at who reads too slowly.
const LOOK: Duration = Duration::from_millis(100);
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
    /// What still goes on inside for clients that have left.
    left: Vec<Inside>,
    shares: Shares,
    /// Nothing is accepted until then.
    pause: Option<Instant>,
    /// No request is let in until then.
    retry: Option<Instant>,
    /// When it was last said in the log that descriptors ran out.
    complained: Option<Instant>,
    scratch: Box<[u8]>,
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
            self.clients.retain(|client| !client.gone());

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
                    left.discard(&mut self.scratch);
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
        let accepting = self.pause.is_none() && (!self.full() || self.victim(now).is_some());

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
        waiting.extend(self.left.iter().map(|left| PollFd::new(left.stream.as_fd(), PollFlags::POLLIN)));
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

        let (bell, ready) = self.ready(&waiting, first_client);
        drop(waiting);
        if bell {
            let _ = self.bell.read(&mut [0; 8]);
        }
        Some(ready)
    }

    /// What `poll` has found: whether the bell rang, and all else.
    fn ready(&self, waiting: &[PollFd], first_client: usize) -> (bool, Ready) {
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
        (bell, Ready { listeners, clients, left })
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        let waiting = self.clients.iter().any(Client::waiting);
        let shut = self.full() && self.victim(now).is_none();
        let look = (waiting || shut).then_some(now + LOOK);
        let grace = (shut && self.clients.iter().any(Client::incomplete)).then_some(now + GRACE);
        let retry = self.retry.filter(|_| waiting);
        let deadlines = self.clients.iter().map(|client| client.deadline);
        deadlines.chain(look).chain(grace).chain(self.pause).chain(retry).min()
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

    /// Gives the places inside to those who wait for them.
    fn let_in(&mut self, now: Instant) {
        if self.retry.is_some_and(|until| now < until) {
            return;
        }
        self.retry = None;
        loop {
            self.see_off(now);
            let waiting = self.clients.iter().filter(|client| client.waiting()).count();
            if waiting == 0 {
                return;
            }
            let places = self.places(now);
            let Some((next, place)) = places.next(&self.clients) else {
                // What was given up is free when the inside has noticed.
                let Some(reader) = places.given_up(&self.clients).filter(|_| self.left.len() < waiting) else { return };
                self.clients[reader].throw_out("did not read in time while others waited");
                continue;
            };
            match self.inward.connect() {
                Ok(stream) => {
                    self.inward.leave(place, false);
                    let client = &mut self.clients[next];
                    let held = Held { place, kin: client.kin(), weight: client.weight, since: now };
                    client.ask(Inside { stream, held, ended: false }, &self.rules, &mut self.scratch, now);
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
        self.left.extend(self.clients.iter_mut().filter_map(Client::left));
        let (shares, inward) = (&mut self.shares, &mut self.inward);
        self.left.retain(|Inside { held, ended, .. }| {
            match ended {
                true => shares.charge(held.kin, now.saturating_duration_since(held.since), now),
                false => inward.leave(held.place, true),
            }
            !ended
        });
    }

    fn places(&self, now: Instant) -> Places<'_> {
        let held = self.clients.iter().filter_map(Client::held).chain(self.left.iter().map(|left| &left.held));
        Places { limits: &self.rules.limits, shares: &self.shares, held: held.copied().collect(), now }
    }

    /// Large bodies are a matter of memory; and requests that wait leave room for heads.
    fn bound_waiting(&mut self, now: Instant) {
        let Limits { clients, active, .. } = self.rules.limits;
        self.keep_to(LARGE_BODIES, Client::large, now);
        self.keep_to((clients / 2).min(clients.saturating_sub(active + 1)).max(1), Client::waiting, now);
    }

    fn keep_to(&mut self, most: usize, counts: impl Fn(&Client) -> bool, now: Instant) {
        while self.clients.iter().filter(|client| counts(client)).count() > most {
            // A request on its way inward is past being refused.
            let may = |client: &Client| counts(client) && client.held().is_none();
            let Some(victim) = room::victim(&self.clients, may, now) else { return };
            self.clients[victim].refuse(BUSY, &self.rules, &mut self.scratch, now);
        }
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for taken in 0..ACCEPTS {
            if self.full() {
                // Those that have just come may be whole requests, and leave no room for others' heads.
                self.bound_waiting(now);
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

    fn full(&self) -> bool {
        self.clients.len() >= self.rules.limits.clients
    }

    /// The connection that is closed when another one is to be taken.
    fn victim(&self, now: Instant) -> Option<usize> {
        let stall = self.rules.limits.stall;
        let may = |client: &Client| client.parting() || client.incomplete() || client.stalled(now, stall);
        let victim = room::victim(&self.clients, may, now)?;
        let client = &self.clients[victim];
        (!client.incomplete() || now.saturating_duration_since(client.since) >= GRACE).then_some(victim)
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
        use crate::http::status::reason;
        use client::{CUT_SHORT, NO_ANSWER, SLOW, UNANSWERED, answer};
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
