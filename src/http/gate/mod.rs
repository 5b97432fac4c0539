//! The gate: a reverse proxy in the same process, in front of tiny_http. One thread owns every TCP connection and
//! waits in a single poll(2); it never blocks for a client. It sends upstream only complete requests that passed the
//! checks of `head` and `access`, and copies each answer to its client through a small buffer.
//!
//! Two policies keep the gate fair among address groups; a group is one IPv4 address or one IPv6 /64. A worker slot
//! goes to the group that has used the least worker time lately (`slots`). If the gate must close a connection to make
//! room for another one, it prefers the group that has the most connections (`eviction`).
//!
//! Each connection carries only one request, so the limit on connections also limits requests.

pub mod access;
mod client;
mod eviction;
pub mod head;
mod slots;
mod trust;
pub mod upstream;

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
use access::HostNames;
use client::{Client, OccupiedSlot, UpstreamConnection};
use head::RequestRefusal;
use slots::{FairQueue, Slots};
use trust::Trust;

const STACK_BYTES: usize = 128 * 1024;
/// Most bytes that one read returns, and so the most of an answer that a connection holds.
const RELAY_BUFFER_BYTES: usize = 16 * 1024;
/// Socket buffers in the kernel, per connection. The kernel doubles these figures (socket(7)). Without a limit they
/// grow to megabytes.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;
/// Connections accepted from one listener before the existing connections have their turn.
const ACCEPTS_PER_TURN: usize = 32;
/// Limit on the requests in memory that are larger than HEAD_LIMIT. If there are more, the gate refuses some of them.
const MAX_LARGE_REQUESTS: usize = 8;
/// Interval of the check for clients that read too slowly.
const SLOW_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Pause in accepting connections after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The gate evicts a connection with an incomplete request only after this time: the first segment of the request may
/// still be on its way.
const EVICTION_GRACE: Duration = Duration::from_millis(2);
/// Pause before the next attempt to connect to tiny_http.
const CONNECT_RETRY: Duration = Duration::from_millis(20);
/// Descriptors that the gate leaves to the rest of this process: SQLite and sysfs open files at any time.
const RESERVED_DESCRIPTORS: usize = 20;
/// One for the gate's end of the upstream connection, two for tiny_http's end.
const DESCRIPTORS_PER_REQUEST: usize = 3;

const BUSY: RequestRefusal = RequestRefusal { status: 503, detail: "net-pulse is busy: try again in a moment" };
/// Every status that the gate itself answers with.
pub const STATUSES: [u16; 11] = [400, 403, 408, 413, 414, 417, 421, 431, 502, 503, 504];

/// Opens connections to the upstream. Each carries one complete request and its complete answer.
pub trait UpstreamConnector: Send {
    /// Does not block. The stream does not block either.
    fn connect(&mut self) -> io::Result<UnixStream>;
    /// Tells the worker of this slot whether the client has left: it then aborts the answer.
    fn set_client_left(&mut self, slot: usize, left: bool);
}

/// Limits of a gate. The number of free descriptors may lower them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// TCP connections at a time.
    pub clients: usize,
    /// Worker slots, as many as there are workers. More requests would wait in tiny_http, where the gate cannot
    /// choose which one goes first. A slot is free only when tiny_http has closed its end, even if the client has
    /// left: otherwise clients that leave at once could start any number of requests.
    pub slots: usize,
    /// Slots that requests with long answers may use: fewer than there are workers.
    pub long_answers: usize,
    /// Time limit from the start of a connection to the end of the request's head, even if the client keeps sending.
    pub head: Duration,
    /// Time limit from the end of the head to the end of the body.
    pub body: Duration,
    /// Time limit for a complete request to get a slot.
    pub queue: Duration,
    /// Time limit from the start of a request in its slot to the first byte of its answer.
    pub answer: Duration,
    /// Time for which a client may leave its answer unread while others wait.
    pub stall: Duration,
    /// Time for which an answer that has begun may make no progress: the client does not read it, or the worker sends
    /// nothing.
    pub idle: Duration,
    /// Time limit for a client to read a refusal, and to close the connection after any answer.
    pub linger: Duration,
    /// Time limit for unfinished answers after `Gate::stop`.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            clients: 64,
            slots: 4,
            long_answers: 2,
            head: Duration::from_secs(5),
            body: Duration::from_secs(5),
            queue: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_millis(500),
            idle: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            stop: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// Lowers the limits so that `free` descriptors are enough.
    fn within_descriptors(mut self, free: usize) -> Limits {
        let free = free.saturating_sub(RESERVED_DESCRIPTORS);
        self.slots = self.slots.min(free / (2 * DESCRIPTORS_PER_REQUEST)).max(2);
        self.long_answers = self.long_answers.min(self.slots - 1);
        self.clients = self.clients.min(free.saturating_sub(self.slots * DESCRIPTORS_PER_REQUEST)).max(4);
        self
    }
}

/// Number of descriptors that the process may still open, as far as it is known.
fn free_descriptors() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((256, 256));
    let open = fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd")).map_or(32, Iterator::count);
    usize::try_from(soft).unwrap_or(usize::MAX).saturating_sub(open)
}

/// Handle of the running gate thread. Without `stop`, the thread runs until the process ends.
pub struct Gate {
    stopping: Arc<AtomicBool>,
    wake_sender: UnixStream,
    thread: JoinHandle<()>,
    names: Arc<HostNames>,
    new_listeners: Arc<Mutex<Vec<TcpListener>>>,
}

/// Sets the buffer sizes of a listener. Accepted connections inherit them; setting the sizes after accept(2) would be
/// too late for the first segments. If the sizes cannot be set, the kernel's defaults stay.
fn prepare(listener: &TcpListener) -> io::Result<()> {
    let _ = setsockopt(listener, sockopt::SndBuf, &SEND_BUFFER_BYTES);
    let _ = setsockopt(listener, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES);
    listener.set_nonblocking(true)
}

impl Gate {
    /// Starts the gate thread.
    pub fn open(
        listeners: Vec<TcpListener>,
        connector: Box<dyn UpstreamConnector>,
        config: GateConfig,
    ) -> Result<Gate> {
        let GateConfig { names, private, limits, weigh } = config;
        let failed = |error: io::Error| Error::system("cannot start the web server", error);
        listeners.iter().try_for_each(prepare).map_err(failed)?;
        let (wake_sender, wake_receiver) = UnixStream::pair().map_err(failed)?;
        wake_sender.set_nonblocking(true).map_err(failed)?;
        wake_receiver.set_nonblocking(true).map_err(failed)?;
        let limits = limits.within_descriptors(free_descriptors());
        log::debug!("at most {} connections, {} requests at a time", limits.clients, limits.slots);
        let stopping = Arc::new(AtomicBool::new(false));
        let names = Arc::new(HostNames::new(names));
        let new_listeners = Arc::new(Mutex::new(Vec::new()));
        let event_loop = EventLoop {
            listeners,
            new_listeners: new_listeners.clone(),
            wake_receiver,
            stopping: stopping.clone(),
            rules: Rules { names: names.clone(), trust: Trust::new(private), limits, weigh },
            connector,
            clients: Vec::with_capacity(limits.clients),
            detached: Vec::with_capacity(limits.slots),
            fair_queue: FairQueue::default(),
            accept_paused_until: None,
            connect_retry_at: None,
            last_warning: None,
            scratch: vec![0; RELAY_BUFFER_BYTES].into_boxed_slice(),
        };
        let thread = spawn("gate", STACK_BYTES, Box::new(move || event_loop.run()))?;
        Ok(Gate { stopping, wake_sender, thread, names, new_listeners })
    }

    /// Replaces the accepted host names.
    pub fn set_host_names(&self, names: Vec<String>) {
        self.names.set(names);
    }

    /// Accepts connections on these listeners too.
    pub fn add_listeners(&self, mut listeners: Vec<TcpListener>) {
        listeners.retain(|listener| prepare(listener).is_ok());
        self.new_listeners.lock().unwrap_or_else(PoisonError::into_inner).append(&mut listeners);
        let _ = (&self.wake_sender).write(b"!");
    }

    /// Stops accepting, lets unfinished answers end within `Limits::stop`, and ends the thread.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.wake_sender.write(b"!");
        let _ = self.thread.join();
    }
}

/// Configuration of a gate, see `Gate::open`.
pub struct GateConfig {
    /// Host names that requests may use, as `access::own_host_names` returns them.
    pub names: Vec<String>,
    /// Reading needs the token too.
    pub private: bool,
    pub limits: Limits,
    /// Weight of a request by its method and target.
    pub weigh: fn(&str, &str) -> Weight,
}

/// The part of the configuration that each connection needs.
struct Rules {
    names: Arc<HostNames>,
    trust: Trust,
    limits: Limits,
    weigh: fn(&str, &str) -> Weight,
}

/// State of the gate thread.
struct EventLoop {
    listeners: Vec<TcpListener>,
    /// Listeners that `Gate::add_listeners` added.
    new_listeners: Arc<Mutex<Vec<TcpListener>>>,
    /// Other threads write to its other end to wake the gate thread.
    wake_receiver: UnixStream,
    stopping: Arc<AtomicBool>,
    rules: Rules,
    connector: Box<dyn UpstreamConnector>,
    clients: Vec<Client>,
    /// Upstream connections that no client needs any more. Their slots stay in use until tiny_http closes its end.
    detached: Vec<UpstreamConnection>,
    fair_queue: FairQueue,
    /// The gate accepts no connection before this time.
    accept_paused_until: Option<Instant>,
    /// The gate starts no request before this time.
    connect_retry_at: Option<Instant>,
    /// Time of the last warning that accept(2) or the connection to tiny_http failed.
    last_warning: Option<Instant>,
    /// Buffer for reads, shared by all connections.
    scratch: Box<[u8]>,
}

impl EventLoop {
    fn run(mut self) {
        let mut stop_at: Option<Instant> = None;
        loop {
            let now = Instant::now();
            self.listeners.append(&mut self.new_listeners.lock().unwrap_or_else(PoisonError::into_inner));
            if stop_at.is_none() && self.stopping.load(Ordering::Relaxed) {
                stop_at = Some(now + self.rules.limits.stop);
                self.listeners.clear();
                // Complete requests still get their answer.
                self.clients.retain(|client| !client.incomplete());
            }
            if stop_at.is_some_and(|end| now >= end || self.clients.iter().all(Client::lingering)) {
                return;
            }
            self.expire(now);
            self.start_requests(now);
            self.limit_waiting(now);
            self.collect_detached(now);
            self.clients.retain(|client| !client.closed());

            let wake_at = self.next_wake_up(now).into_iter().chain(stop_at).min();
            let Some(ready) = self.wait(now, wake_at) else { continue };
            let now = Instant::now();
            for (client, events) in self.clients.iter_mut().zip(&ready.clients) {
                if !events.is_empty() {
                    client.handle_events(*events, &self.rules, &mut self.scratch, now);
                }
            }
            for (detached, is_ready) in self.detached.iter_mut().zip(&ready.detached) {
                if *is_ready {
                    detached.discard(&mut self.scratch);
                }
            }
            for index in 0..self.listeners.len() {
                if ready.listeners.get(index).is_some_and(|is_ready| *is_ready) {
                    self.accept(index, now);
                }
            }
        }
    }

    /// Waits in poll(2) until a socket is ready or the time `wake_at` has come. `None` if poll(2) was interrupted or
    /// failed.
    fn wait(&mut self, now: Instant, wake_at: Option<Instant>) -> Option<Ready> {
        let timeout = wake_at.map_or(PollTimeout::NONE, |wake_at| {
            // Rounded up: otherwise poll(2) would return just before the deadline.
            let wait = wake_at.saturating_duration_since(now) + Duration::from_micros(999);
            PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
        });
        let accepting = self.accept_paused_until.is_none() && (!self.full() || self.victim(now).is_some());

        let mut poll_fds = Vec::with_capacity(1 + self.listeners.len() + 2 * self.clients.len());
        poll_fds.push(PollFd::new(self.wake_receiver.as_fd(), PollFlags::POLLIN));
        if accepting {
            poll_fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        }
        let first_client = poll_fds.len();
        for client in &self.clients {
            poll_fds.push(PollFd::new(client.stream.as_fd(), client.interest()));
            // Only while this connection waits for the upstream: otherwise poll(2) would report the end of the upstream
            // again and again.
            if let Some((upstream, events)) = client.upstream_interest() {
                poll_fds.push(PollFd::new(upstream, events));
            }
        }
        poll_fds.extend(self.detached.iter().map(|detached| PollFd::new(detached.stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut poll_fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return None,
            Err(errno) => {
                // Out of memory, or the limit on descriptors is now below the number of sockets.
                log::error!("poll(2) failed: {}", io::Error::from(errno));
                thread::sleep(CONNECT_RETRY);
                return None;
            }
        }

        let (woken, ready) = self.collect_ready(&poll_fds, first_client);
        drop(poll_fds);
        if woken {
            let _ = self.wake_receiver.read(&mut [0; 8]);
        }
        Some(ready)
    }

    /// Evaluates the result of poll(2): whether another thread woke this one, and the sockets that are ready.
    fn collect_ready(&self, poll_fds: &[PollFd], first_client: usize) -> (bool, Ready) {
        let events = |fd: &PollFd| fd.revents().unwrap_or(PollFlags::POLLERR);
        let mut remaining = poll_fds.iter();
        let woken = remaining.next().is_some_and(|fd| !events(fd).is_empty());
        let listeners = remaining.by_ref().take(first_client - 1).map(|fd| !events(fd).is_empty()).collect();
        let clients = self
            .clients
            .iter()
            .map(|client| {
                let client_events = remaining.next().map_or(PollFlags::empty(), events);
                let upstream =
                    client.upstream_interest().and_then(|_| remaining.next()).map_or(PollFlags::empty(), events);
                // Any event of the upstream connection becomes POLLIN: the next read or write finds its errors. Errors
                // of the client's socket end the client.
                client_events | if upstream.is_empty() { PollFlags::empty() } else { PollFlags::POLLIN }
            })
            .collect();
        let detached = remaining.map(|fd| !events(fd).is_empty()).collect();
        (woken, Ready { listeners, clients, detached })
    }

    /// The earliest deadline; `None` if there is none.
    fn next_wake_up(&self, now: Instant) -> Option<Instant> {
        let waiting = self.clients.iter().any(Client::waiting);
        let blocked = self.full() && self.victim(now).is_none();
        let slow_check = (waiting || blocked).then_some(now + SLOW_CHECK_INTERVAL);
        let grace_end = (blocked && self.clients.iter().any(Client::incomplete)).then_some(now + EVICTION_GRACE);
        let connect_retry_at = self.connect_retry_at.filter(|_| waiting);
        let deadlines = self.clients.iter().map(|client| client.deadline);
        deadlines.chain(slow_check).chain(grace_end).chain(self.accept_paused_until).chain(connect_retry_at).min()
    }

    fn expire(&mut self, now: Instant) {
        if self.accept_paused_until.is_some_and(|until| now >= until) {
            self.accept_paused_until = None;
        }
        for client in &mut self.clients {
            if now >= client.deadline {
                client.expire(&self.rules, now);
            }
        }
    }

    /// Gives free slots to waiting requests.
    fn start_requests(&mut self, now: Instant) {
        if self.connect_retry_at.is_some_and(|until| now < until) {
            return;
        }
        self.connect_retry_at = None;
        loop {
            self.collect_detached(now);
            let waiting = self.clients.iter().filter(|client| client.waiting()).count();
            if waiting == 0 {
                return;
            }
            let slots = self.slots(now);
            let Some((next, number)) = slots.next(&self.clients) else {
                // Each detached connection frees its slot when tiny_http closes its end. The gate takes the slot of a
                // client that reads its answer only if there are fewer detached connections than waiting requests.
                let Some(reader) = slots.reader_to_evict(&self.clients).filter(|_| self.detached.len() < waiting)
                else {
                    return;
                };
                self.clients[reader].abort("the client did not read its answer while others waited");
                continue;
            };
            match self.connector.connect() {
                Ok(stream) => {
                    self.connector.set_client_left(number, false);
                    let client = &mut self.clients[next];
                    let slot =
                        OccupiedSlot { number, group: client.address_group(), weight: client.weight, since: now };
                    client.forward(
                        UpstreamConnection { stream, slot, ended: false },
                        &self.rules,
                        &mut self.scratch,
                        now,
                    );
                }
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        self.warn_once_a_minute(now, "cannot pass a request to tiny_http", &error);
                    }
                    self.connect_retry_at = Some(now + CONNECT_RETRY);
                    return;
                }
            }
        }
    }

    /// Takes over the upstream connections that clients no longer need. Charges the worker time of those that have
    /// ended to their address groups.
    fn collect_detached(&mut self, now: Instant) {
        self.detached.extend(self.clients.iter_mut().filter_map(Client::take_detached));
        let (fair_queue, connector) = (&mut self.fair_queue, &mut self.connector);
        self.detached.retain(|UpstreamConnection { slot, ended, .. }| {
            match ended {
                true => fair_queue.charge(slot.group, now.saturating_duration_since(slot.since), now),
                false => connector.set_client_left(slot.number, true),
            }
            !ended
        });
    }

    fn slots(&self, now: Instant) -> Slots<'_> {
        let occupied =
            self.clients.iter().filter_map(Client::slot).chain(self.detached.iter().map(|detached| &detached.slot));
        Slots { limits: &self.rules.limits, fair_queue: &self.fair_queue, occupied: occupied.copied().collect(), now }
    }

    /// Limits large requests, because of memory, and waiting requests, so that there is room for new heads.
    fn limit_waiting(&mut self, now: Instant) {
        let Limits { clients, slots, .. } = self.rules.limits;
        self.evict_down_to(MAX_LARGE_REQUESTS, Client::has_large_request, now);
        self.evict_down_to((clients / 2).min(clients.saturating_sub(slots + 1)).max(1), Client::waiting, now);
    }

    /// Refuses requests until at most `max` of those that `is_counted` accepts are left.
    fn evict_down_to(&mut self, max: usize, is_counted: impl Fn(&Client) -> bool, now: Instant) {
        while self.clients.iter().filter(|client| is_counted(client)).count() > max {
            // Not a request that has started: it may already have changed something, and `BUSY` asks the client to send
            // it again.
            let may_close = |client: &Client| is_counted(client) && client.slot().is_none();
            let Some(victim) = eviction::victim(&self.clients, may_close, now) else { return };
            self.clients[victim].refuse(BUSY, &self.rules, &mut self.scratch, now);
        }
    }

    fn accept(&mut self, listener_index: usize, now: Instant) {
        for accepted in 0..ACCEPTS_PER_TURN {
            if self.full() {
                // The connections accepted just now may be complete requests, and leave no room for the heads of
                // other clients.
                self.limit_waiting(now);
                let Some(victim) = self.victim(now) else { return };
                self.evict(victim, now);
            }
            let Some(listener) = self.listeners.get(listener_index) else { return };
            match listener.accept() {
                Ok((stream, address)) => {
                    let Ok(mut client) = Client::new(stream, address.ip(), &self.rules.limits, now) else { continue };
                    // Most clients have sent their request by now.
                    client.handle_events(PollFlags::POLLIN, &self.rules, &mut self.scratch, now);
                    self.clients.push(client);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    // The kernel checks for a free descriptor before it checks for a waiting connection, so perhaps no
                    // connection waits.
                    Some(Errno::EMFILE | Errno::ENFILE) if accepted > 0 => return,
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        // The new connections stay in the kernel's queue. Closing an accepted one may free the missing
                        // descriptor.
                        if let Some(victim) = self.victim(now) {
                            self.evict(victim, now);
                        }
                        self.accept_paused_until = Some(now + ACCEPT_PAUSE);
                        self.warn_once_a_minute(now, "cannot accept connections", &error);
                        return;
                    }
                    // The connection failed before it was accepted (accept(2) lists the errors). The next one may be
                    // good.
                    _ => log::debug!("accept: {error}"),
                },
            }
        }
    }

    fn evict(&mut self, victim: usize, now: Instant) {
        // A client with a whole answer is not reset, because the answer may still be on its way.
        if let Some(client) = self.clients.get_mut(victim).filter(|client| !client.lingering()) {
            client.abort("closed to make room for another connection");
        }
        self.collect_detached(now);
        self.clients.swap_remove(victim);
    }

    fn full(&self) -> bool {
        self.clients.len() >= self.rules.limits.clients
    }

    /// Index of the connection to close for a new one. `None` if the gate may not close any of them yet.
    fn victim(&self, now: Instant) -> Option<usize> {
        let stall = self.rules.limits.stall;
        let may_close = |client: &Client| client.lingering() || client.incomplete() || client.stalled(now, stall);
        let victim = eviction::victim(&self.clients, may_close, now)?;
        let client = &self.clients[victim];
        (!client.incomplete() || now.saturating_duration_since(client.since) >= EVICTION_GRACE).then_some(victim)
    }

    /// Logs a warning, at most one a minute.
    fn warn_once_a_minute(&mut self, now: Instant, action: &str, error: &io::Error) {
        if self.last_warning.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(60)) {
            self.last_warning = Some(now);
            log::warn!("{action}: {error}; trying again");
        }
    }
}

/// Sockets that poll(2) reported, in the order of the event loop's vectors.
struct Ready {
    listeners: Vec<bool>,
    clients: Vec<PollFlags>,
    detached: Vec<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_free_descriptors() {
        let check = |free: usize, clients: usize, slots: usize, long_answers: usize| {
            let limits = Limits::default().within_descriptors(free);
            assert_eq!(
                (limits.clients, limits.slots, limits.long_answers),
                (clients, slots, long_answers),
                "{free} free"
            );
            assert!(limits.long_answers < limits.slots);
        };
        check(1000, 64, 4, 2);
        check(64 - 20, 12, 4, 2);
        check(20, 4, 2, 1);
        check(0, 4, 2, 1);
        check(usize::MAX, 64, 4, 2);
    }

    #[test]
    fn refusals_are_complete_http_answers() {
        use crate::http::status::reason;
        use client::{ANSWER_TIMED_OUT, INCOMPLETE_REQUEST, REQUEST_TIMED_OUT, UPSTREAM_FAILED, refusal_answer};
        use head::*;
        let all = [
            BARE_CR,
            BARE_LF,
            CONTROL,
            FOLDED_LINE,
            NOT_HTTP,
            TARGET,
            VERSION,
            HEADER_LINE,
            HOST,
            DUPLICATE_HEADER,
            CONTENT_LENGTH,
            BODY_TOO_LARGE,
            TRANSFER_ENCODING,
            EXPECT,
            LONG_TARGET,
            LONG_HEAD,
            BUSY,
            REQUEST_TIMED_OUT,
            INCOMPLETE_REQUEST,
            ANSWER_TIMED_OUT,
            UPSTREAM_FAILED,
            access::UNKNOWN_HOST,
            access::FOREIGN_ORIGIN,
        ];
        for refusal in all {
            assert!(STATUSES.contains(&refusal.status) && !reason(refusal.status).is_empty(), "{}", refusal.status);
            let text = String::from_utf8(refusal_answer(refusal, false)).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(json, serde_json::json!({ "detail": refusal.detail }));
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert_eq!(refusal_answer(refusal, true), format!("{head}\r\n\r\n").into_bytes());
        }
    }
}
