//! Attacks on the gate with a real tiny_http behind it, over the loopback. Both ends run in this process, so that the
//! tests can count every descriptor and thread. For the same reason each test runs alone in its process.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::reset;
use crate::isolation::{in_own_process, raise_descriptor_limit};
use net_pulse::http::gate::upstream::Upstream;
use net_pulse::http::gate::{Gate, GateConfig, Limits, access};
use net_pulse::http::route::Weight;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};

const WORKERS: usize = 4;
/// Time after which a test fails.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than any answer takes on the slowest machine, and much shorter than any time limit that could have caused
/// the delay.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// If the kernel's queue of new connections is full, TCP repeats the handshake after a second.
const ANSWER_TIME_IN_FLOOD: Duration = Duration::from_secs(3);

/// Only the answers below /api/export/ count as long here.
fn weigh(_method: &str, target: &str) -> Weight {
    if target.starts_with("/api/export/") { Weight::Long } else { Weight::Light }
}

/// A gate, tiny_http and four workers. Their handlers do what the path says.
struct GateUnderTest {
    address: SocketAddr,
    gate: Option<Gate>,
    upstream: Option<Arc<Upstream>>,
    workers: Vec<JoinHandle<()>>,
    descriptors_before: usize,
    /// Descriptors and threads before the attack, when everything runs.
    before_attack: (usize, usize),
}

impl GateUnderTest {
    /// `None` if the test is not alone in its process: then it has already run in a process of its own.
    fn with_limits(test: impl Fn(), limits: Limits) -> Option<GateUnderTest> {
        in_own_process(test).then(|| GateUnderTest::new(limits))
    }

    fn new(limits: Limits) -> GateUnderTest {
        raise_descriptor_limit();
        let descriptors_before = descriptors();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (upstream, connector) = Upstream::open(vec!["/run".into(), std::env::temp_dir()], WORKERS).unwrap();
        let work = |upstream: Arc<Upstream>| {
            move || {
                while let Some(request) = upstream.next() {
                    handle(request)
                }
            }
        };
        let workers = (0..WORKERS).map(|_| thread::spawn(work(upstream.clone()))).collect();
        let names = access::own_host_names("router", &[]);
        let config = GateConfig { names, private: false, limits, weigh };
        let gate = Gate::open(vec![listener], Box::new(connector), config).unwrap();
        let before_attack = (0, 0);
        let (gate, upstream) = (Some(gate), Some(upstream));
        let mut gate = GateUnderTest { address, gate, upstream, workers, descriptors_before, before_attack };
        gate.check_answers("before anything else");
        thread::sleep(Duration::from_millis(100));
        gate.before_attack = (descriptors(), threads());
        gate
    }

    fn with_default_limits(test: impl Fn()) -> Option<GateUnderTest> {
        GateUnderTest::with_limits(test, Limits::default())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, TIMEOUT).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Connects from another loopback address, with a receive buffer as small as that of a small client.
    fn connect_from(&self, number: u8) -> TcpStream {
        let SocketAddr::V4(to) = self.address else { unreachable!("bound to IPv4") };
        let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&stream, sockopt::RcvBuf, &16384).unwrap();
        bind(stream.as_raw_fd(), &SockaddrIn::new(127, 0, 0, number, 0)).unwrap();
        connect(stream.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
        let stream = TcpStream::from(stream);
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream
    }

    fn request(&self, bytes: &[u8]) -> Answer {
        read_answer(self.send(bytes))
    }

    fn get(&self, target: &str) -> Answer {
        self.request(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
    }

    /// A well-behaved client gets its answer in time.
    fn check_answers(&self, situation: &str) {
        self.check_answers_within(ANSWER_TIME, situation);
    }

    fn check_answers_within(&self, max_time: Duration, situation: &str) {
        let start = Instant::now();
        let answer = self.get("/hello");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]), "{situation}");
        assert!(start.elapsed() < max_time, "{situation}: {:?}", start.elapsed());
    }

    fn check_answers_for(&self, time: Duration, situation: &str) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.check_answers(situation);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Checks that the attack left nothing behind, and stops.
    fn check_and_stop(mut self) {
        self.check_answers("at the end");
        let (descriptors_then, threads_then) = self.before_attack;
        // tiny_http's idle threads end after five seconds.
        wait_until("threads are as before", || threads() <= threads_then);
        wait_until("descriptors are as before", || descriptors() <= descriptors_then);
        self.stop();
        wait_until("all descriptors are closed", || descriptors() <= self.descriptors_before);
    }

    fn stop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.stop();
        }
        if let Some(upstream) = self.upstream.take() {
            upstream.close();
        }
        self.workers.drain(..).for_each(|worker| worker.join().unwrap());
    }
}

impl Drop for GateUnderTest {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}

fn handle(mut request: tiny_http::Request) {
    let target = request.url().split('?').next().unwrap().to_string();
    let number = |start: &str| target.strip_prefix(start).and_then(|rest| rest.parse::<usize>().ok());
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body).unwrap();
    // Closes the connection without an answer.
    if target == "/no-answer" {
        drop(request.into_writer());
        return;
    }
    if let Some(bytes) = number("/big/").or(number("/api/export/")) {
        // Written by hand, because tiny_http would collect the answer in memory first.
        let mut writer = request.into_writer();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n");
        let mut written = writer.write_all(head.as_bytes());
        for _ in 0..bytes / 1000 {
            written = written.and_then(|()| writer.write_all(&[b'x'; 1000]));
        }
        return;
    }
    if let Some(milliseconds) = number("/slow/") {
        thread::sleep(Duration::from_millis(milliseconds as u64));
    }
    if let Some(pieces) = number("/pieces/") {
        let mut writer = request.into_writer();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {pieces}\r\n\r\n");
        let mut written = writer.write_all(head.as_bytes()).and_then(|()| writer.flush());
        for _ in 0..pieces {
            thread::sleep(Duration::from_millis(2));
            written = written.and_then(|()| writer.write_all(b"x")).and_then(|()| writer.flush());
        }
        return;
    }
    let text = match target.as_str() {
        "/headers" => request.headers().iter().map(|header| format!("{header}\n")).collect::<String>().into_bytes(),
        "/echo" => body,
        _ => b"hello".to_vec(),
    };
    if text.len() > 4096 {
        // tiny_http would send this in chunks.
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
        let mut writer = request.into_writer();
        let _ = writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&text));
        return;
    }
    let status = number("/status/").unwrap_or(200);
    let _ = request.respond(tiny_http::Response::from_data(text).with_status_code(status as u16));
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// Reads to the end of the stream. A reset fails the test.
fn read_answer(stream: TcpStream) -> Answer {
    let bytes = read_to_end(stream).unwrap();
    split(&bytes).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)))
}

fn read_to_end(mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn split(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_string();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head, body: bytes[end + 4..].to_vec() })
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn resident_kb() -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 4096]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn requests_arrive_and_answers_come_back() {
    let Some(gate) = GateUnderTest::with_default_limits(requests_arrive_and_answers_come_back) else { return };
    gate.check_answers("alone");
    let head = gate.request(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.to_ascii_lowercase().contains("content-length: 5"), "{}", head.head);
    for status in [204, 304] {
        let answer = gate.get(&format!("/status/{status}"));
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    let absolute = gate.request(b"GET http://localhost/hello?x HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!((absolute.status, absolute.body.as_slice()), (200, &b"hello"[..]));
    let old = gate.request(b"GET / HTTP/1.0\r\nHost: router.lan:80\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((old.status, old.body.as_slice()), (200, &b"hello"[..]));

    for length in [0, 1, 1024, 1025, 8192, 16384] {
        let mut request =
            format!("POST /echo HTTP/1.1\r\nHost: [::1]\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        request.extend((0..length).map(|at| at as u8));
        let sent = request[request.len() - length..].to_vec();
        assert!(gate.request(&request).body == sent, "a body of {length}");
    }

    for thousands in 0..200 {
        let bytes = thousands * 1000;
        assert_eq!(gate.get(&format!("/big/{bytes}")).body.len(), bytes);
    }
    let big = gate.get("/big/5000000");
    assert_eq!(big.body.len(), 5_000_000);
    for pieces in 0..20 {
        assert_eq!(gate.get(&format!("/pieces/{pieces}")).body.len(), pieces);
    }
    let headers = gate.request(
        b"GET /headers HTTP/1.1\r\nHost: router\r\nX-Real-IP: 10.9.9.9\r\nConnection: keep-alive, Host\r\nCookie: \xff\r\n\r\n",
    );
    let text = String::from_utf8(headers.body).unwrap();
    let (slot, text) = text.split_once('\n').unwrap();
    assert!(slot.strip_prefix("x-slot: ").and_then(|slot| slot.parse().ok()).is_some_and(|slot: usize| slot < WORKERS));
    assert_eq!(text, "host: router\nforwarded: for=unknown\nx-real-ip: 127.0.0.1\nconnection: close\n");
    gate.check_and_stop();
}

#[test]
fn requests_in_pieces_and_from_half_closed_connections() {
    let Some(gate) = GateUnderTest::with_default_limits(requests_in_pieces_and_from_half_closed_connections) else {
        return;
    };
    let mut stream = gate.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc" {
        stream.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(read_answer(stream).body, b"abc");
    let stream = gate.send(b"GET /slow/200 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_answer(stream).body, b"hello");
    let stream = gate.send(b"GET / HTTP/1.1\r\nHost: lo");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_answer(stream).status, 400);
    gate.check_and_stop();
}

#[test]
fn malformed_requests_get_a_refusal() {
    let Some(gate) = GateUnderTest::with_default_limits(malformed_requests_get_a_refusal) else { return };
    let post = |lines: &str| format!("POST /echo HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n12345");
    let cases: Vec<(Vec<u8>, u16)> = vec![
        (post("Content-Length: 9000000000000000000").into(), 413),
        (post("Content-Length: 18446744073709551615").into(), 413),
        (post("Content-Length: 18446744073709551616").into(), 413),
        (post("Content-Length: 1073741824").into(), 413),
        (post("Content-Length: +5").into(), 400),
        (post("Content-Length: -5").into(), 400),
        (post("Content-Length: 5x").into(), 400),
        (post("Content-Length:").into(), 400),
        (post("Content-Length: 5\r\nContent-Length: 5").into(), 400),
        (post("Content-Length: 5\r\nContent-Length: 6").into(), 400),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked").into(), 400),
        (post("Transfer-Encoding: chunked").into(), 400),
        (post("Expect: 100-continue\r\nContent-Length: 5").into(), 417),
        (post("Host: localhost").into(), 400),
        (post("Content-Length: 5\r\nOrigin: http://evil.example").into(), 403),
        (post("Content-Length: 5\r\nSec-Fetch-Site: cross-site").into(), 403),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(), 421),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 421),
        (b"GET https://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\0\0\0\0".to_vec(), 400),
        (b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: \0\r\n\r\n".to_vec(), 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\nHost: localhost\n\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n x\r\n\r\n".to_vec(), 400),
        (b"\r\n\r\n\r\n".to_vec(), 400),
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000)).into(), 414),
        (format!("GET / HTTP/1.1\r\nA: {}\r\n", "a".repeat(9000)).into(), 431),
    ];
    for (request, status) in cases {
        let start = Instant::now();
        let answer = gate.request(&request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(100)]).into_owned();
        assert_eq!(answer.status, status, "{shown}");
        assert!(answer.body.starts_with(b"{\"detail\":\"") && answer.body.ends_with(b"\"}\n"), "{shown}");
        assert!(start.elapsed() < ANSWER_TIME, "{shown}: not at once");
    }
    let answer = gate.request(b"HEAD / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!((answer.status, answer.body.len()), (421, 0));
    let answer = gate.get("/no-answer");
    assert_eq!(answer.status, 502);
    gate.check_and_stop();
}

#[test]
fn e45_two_thousand_idle_connections() {
    let Some(gate) = GateUnderTest::with_default_limits(e45_two_thousand_idle_connections) else { return };
    gate.check_answers("before");
    let before = (resident_kb(), threads());
    let mut idle = Vec::new();
    for number in 0..2000 {
        idle.push(gate.connect());
        if number % 200 == 0 {
            gate.check_answers_within(ANSWER_TIME_IN_FLOOD, "while the flood comes in");
        }
    }
    gate.check_answers_within(ANSWER_TIME_IN_FLOOD, "under the flood");
    let grown = resident_kb().saturating_sub(before.0);
    assert!(grown < 1024, "{grown} kB");
    assert!(threads() <= before.1 + 4, "{} threads", threads());
    let open = idle.iter().filter(|stream| !is_closed(stream)).count();
    assert!(open <= 64, "{open} are still open");
    drop(idle);
    gate.check_and_stop();
}

#[test]
fn e45_slow_writers_are_closed_in_time() {
    let limit = Duration::from_secs(2);
    let Some(gate) =
        GateUnderTest::with_limits(e45_slow_writers_are_closed_in_time, Limits { head: limit, ..Limits::default() })
    else {
        return;
    };
    let mut slow: Vec<TcpStream> = (0..300).map(|_| gate.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")).collect();
    let start = Instant::now();
    while start.elapsed() < limit * 2 {
        slow.retain_mut(|stream| stream.write_all(b"x").is_ok() && !is_closed(stream));
        gate.check_answers("among slow writers");
    }
    assert_eq!(slow.len(), 0, "all are gone, however busily they wrote");
    gate.check_and_stop();
}

#[test]
fn a_flood_from_one_address_does_not_affect_others() {
    let Some(gate) = GateUnderTest::with_default_limits(a_flood_from_one_address_does_not_affect_others) else {
        return;
    };
    let mut slow = gate.send(b"GET /hello HTTP/1.1\r\nHost: loc");
    let flood: Vec<_> = (0..300).map(|_| gate.connect_from(2)).collect();
    gate.check_answers("among connections of others");
    slow.write_all(b"alhost\r\n\r\n").unwrap();
    assert_eq!(read_answer(slow).status, 200, "the oldest connection of all");
    drop(flood);

    // The same with complete requests, which wait in a queue.
    for addresses in [1, 8] {
        let start = Instant::now();
        thread::scope(|scope| {
            for number in 0..60 {
                let gate = &gate;
                scope.spawn(move || {
                    while start.elapsed() < Duration::from_secs(3) {
                        let mut stream = gate.connect_from(2 + number % addresses);
                        let _ = stream.write_all(b"GET /slow/200 HTTP/1.1\r\nHost: localhost\r\n\r\n");
                        let _ = stream.read_to_end(&mut Vec::new());
                        thread::sleep(Duration::from_millis(10));
                    }
                });
            }
            thread::sleep(Duration::from_millis(100));
            gate.check_answers_for(Duration::from_secs(2), "while others fill the queue");
        });
    }
    gate.check_and_stop();
}

/// A head that arrives in two parts is not a complete request. The gate does not close complete requests for it, so
/// there must be room for it.
#[test]
fn complete_requests_of_one_address_leave_room_for_heads_in_parts() {
    let Some(gate) = GateUnderTest::with_default_limits(complete_requests_of_one_address_leave_room_for_heads_in_parts)
    else {
        return;
    };
    let ended = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        for _ in 0..80 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let mut stream = gate.connect_from(2);
                    let _ = stream.write_all(b"GET /slow/100 HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    let _ = stream.read_to_end(&mut Vec::new());
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
        thread::sleep(Duration::from_millis(300));
        let request = |_| {
            let start = Instant::now();
            let mut stream = gate.send(b"GET /hello HTTP/1.1\r\nHost: loc");
            thread::sleep(Duration::from_millis(50));
            let sent = stream.write_all(b"alhost\r\n\r\n");
            (sent.and_then(|()| read_to_end(stream)), start.elapsed())
        };
        let answers: Vec<_> = (0..20).map(request).collect();
        ended.store(true, Ordering::Relaxed);
        for (answer, _) in &answers {
            let status = answer.as_ref().ok().and_then(|bytes| Some(split(bytes)?.status));
            assert_eq!(status, Some(200), "{answer:?}");
        }
        answers.iter().map(|(_, time)| *time).max().unwrap()
    });
    eprintln!("the slowest took {} ms", slowest.as_millis());
    assert!(slowest < ANSWER_TIME, "{slowest:?}");
    gate.check_and_stop();
}

#[test]
fn bodies_that_are_never_sent() {
    let Some(gate) = GateUnderTest::with_limits(
        bodies_that_are_never_sent,
        Limits { body: Duration::from_secs(2), ..Limits::default() },
    ) else {
        return;
    };
    let post = |length: usize| format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nx");
    let huge: Vec<_> = (0..8).map(|_| gate.send(post(1 << 30).as_bytes())).collect();
    let large: Vec<_> = (0..12).map(|_| gate.send(post(16384).as_bytes())).collect();
    gate.check_answers_for(Duration::from_millis(500), "among unsent bodies");
    assert!(huge.into_iter().all(|stream| read_answer(stream).status == 413));
    let mut statuses: Vec<u16> = large.into_iter().map(|stream| read_answer(stream).status).collect();
    statuses.sort_unstable();
    // The gate keeps at most eight large requests, and refuses the others at once.
    assert_eq!(statuses, [408, 408, 408, 408, 408, 408, 408, 408, 503, 503, 503, 503]);
    gate.check_and_stop();
}

#[test]
fn a_header_that_never_ends() {
    let Some(gate) = GateUnderTest::with_default_limits(a_header_that_never_ends) else { return };
    let before = resident_kb();
    let mut stream = gate.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    let mut sent = 0;
    while sent < 1 << 30 {
        match stream.write(&[b'x'; 65536]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 1024, "{grown} kB");
    drop(stream);
    gate.check_and_stop();
}

#[test]
fn pipelined_requests_without_a_reader() {
    let Some(gate) = GateUnderTest::with_default_limits(pipelined_requests_without_a_reader) else { return };
    let mut stream = gate.connect();
    stream.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let many = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200_000);
    let result = stream.write_all(&many);
    assert!(result.is_err(), "eight megabytes were taken");
    gate.check_answers("after the pipelined requests");

    // A small number of them causes no reset: the client reads the first answer completely.
    let few = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let answer = gate.request(&few);
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]));
    drop(stream);
    gate.check_and_stop();
}

#[test]
fn clients_that_never_read_long_answers() {
    let Some(gate) = GateUnderTest::with_default_limits(clients_that_never_read_long_answers) else { return };
    let request = b"GET /api/export/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let before = resident_kb();
    let silent: Vec<_> = (0..12).map(|_| gate.send(request)).collect();
    gate.check_answers_for(Duration::from_secs(2), "while the others do not read");
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 1024, "{grown} kB");
    // Another client that requests the same and reads it gets its answer.
    assert_eq!(gate.get("/api/export/1000000").body.len(), 1_000_000);
    drop(silent);
    gate.check_and_stop();
}

#[test]
fn clients_that_never_read_answers_of_light_requests() {
    let Some(gate) = GateUnderTest::with_default_limits(clients_that_never_read_answers_of_light_requests) else {
        return;
    };
    let silent: Vec<_> = (0..30).map(|_| gate.send(b"GET /big/5000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    // They hold all four slots. Each group of four loses its slots after half a second, and a request from the same
    // address waits for all of them.
    let start = Instant::now();
    assert_eq!(gate.get("/hello").status, 200);
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    drop(silent);
    gate.check_and_stop();
}

#[test]
fn slow_readers_lose_their_slots_to_other_requests() {
    let Some(gate) = GateUnderTest::with_default_limits(slow_readers_lose_their_slots_to_other_requests) else {
        return;
    };
    let request = b"GET /api/export/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Bytes that the client reads at a time. With 64 the gate never sends on a complete buffer, with 4096 it does again
    // and again.
    for read_bytes in [64, 4096] {
        let ended = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = [2, 3]
            .map(|number| {
                let ended = ended.clone();
                let mut stream = gate.connect_from(number);
                stream.write_all(request).unwrap();
                thread::spawn(move || {
                    let mut block = vec![0; read_bytes];
                    while !ended.load(Ordering::Relaxed) && stream.read(&mut block).is_ok_and(|count| count > 0) {
                        thread::sleep(Duration::from_millis(20));
                    }
                })
            })
            .into();
        // No other request needs their slots.
        thread::sleep(Duration::from_secs(2));
        assert!(readers.iter().all(|reader| !reader.is_finished()));
        let start = Instant::now();
        assert_eq!(gate.get("/api/export/1000").body.len(), 1000);
        assert!(start.elapsed() < ANSWER_TIME, "{:?}", start.elapsed());
        wait_until("one reader has lost its slot", || readers.iter().any(JoinHandle::is_finished));
        gate.check_answers("beside the other");
        assert!(!readers.iter().all(JoinHandle::is_finished), "both readers lost their slots");
        ended.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    }
    gate.check_and_stop();
}

#[test]
fn a_silent_reader_is_closed_even_if_no_other_request_waits() {
    let Some(gate) = GateUnderTest::with_limits(
        a_silent_reader_is_closed_even_if_no_other_request_waits,
        Limits { idle: Duration::from_millis(700), ..Limits::default() },
    ) else {
        return;
    };
    let silent = gate.send(b"GET /big/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    thread::sleep(Duration::from_secs(2));
    let bytes = read_to_end(silent);
    assert!(bytes.is_err() || bytes.is_ok_and(|bytes| bytes.len() < 5_000_000), "it got the whole answer");
    gate.check_and_stop();
}

#[test]
fn resets_before_and_during_answers() {
    let Some(gate) = GateUnderTest::with_default_limits(resets_before_and_during_answers) else { return };
    for _ in 0..400 {
        reset(gate.connect());
    }
    gate.check_answers("after resets");
    for _ in 0..100 {
        reset(gate.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        reset(gate.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"));
    }
    for _ in 0..50 {
        let mut stream = gate.send(b"GET /big/5000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.read_exact(&mut [0; 100]).unwrap();
        reset(stream);
    }
    gate.check_answers("after resets in mid-answer");
    for _ in 0..4 {
        reset(gate.send(b"GET /slow/100 HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    gate.check_and_stop();
}

#[test]
fn mutations_are_answered_or_closed() {
    let Some(gate) = GateUnderTest::with_default_limits(mutations_are_answered_or_closed) else { return };
    let seed = b"POST /echo?a=1 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nContent-Length: 5\r\n\r\nabcde";
    let mut random = 0x1234_5678_u32;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random as usize % below
    };
    let mut statuses = [0; 6];
    for _ in 0..2000 {
        let mut bytes = seed.to_vec();
        for _ in 0..1 + next(4) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = next(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n\0 :\t/5+\xff"[next(10)]),
            }
        }
        let stream = gate.send(&bytes);
        stream.shutdown(Shutdown::Write).unwrap();
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let answer = split(&read_to_end(stream).unwrap_or_else(|error| panic!("{error}: {shown}")));
        let status = answer.unwrap_or_else(|| panic!("no answer: {shown}")).status;
        assert!(matches!(status, 200 | 400..=499), "{status}: {shown}");
        statuses[usize::from(status / 100)] += 1;
    }
    assert!(statuses[2] > 100 && statuses[4] > 100, "{statuses:?}");
    gate.check_and_stop();
}

/// While this exists, the process can open `spare` more descriptors.
struct FewDescriptors((u64, u64));

impl FewDescriptors {
    fn new(spare: usize) -> FewDescriptors {
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // The kernel assigns the lowest free number, so the limit is the number below which `spare` numbers are free.
        let used: Vec<usize> = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .collect();
        // The directory listing itself used the lowest free number and has closed it.
        let listing = (0..).find(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_err()).unwrap();
        let free = (0..).filter(|number| *number == listing || !used.contains(number));
        let limit = free.take(spare + 1).last().unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, limit as u64, before.1).unwrap();
        FewDescriptors(before)
    }
}

impl Drop for FewDescriptors {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.0.0, self.0.1).unwrap();
    }
}

#[test]
fn e46_out_of_descriptors() {
    let Some(gate) = GateUnderTest::with_default_limits(e46_out_of_descriptors) else { return };
    // How far one request gets with this number of spare descriptors: it is not accepted; it is not sent upstream;
    // accept() of tiny_http fails; its thread panics.
    for spare in 0..=3 {
        gate.check_answers("before");
        wait_until("the last connection is gone", || descriptors() <= gate.before_attack.0);
        let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let to = match gate.address {
            SocketAddr::V4(address) => SockaddrIn::from(address),
            SocketAddr::V6(_) => unreachable!("bound to IPv4"),
        };
        let few_descriptors = FewDescriptors::new(spare);
        connect(stream.as_raw_fd(), &to).unwrap();
        let mut stream = TcpStream::from(stream);
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        thread::sleep(Duration::from_millis(300));
        drop(few_descriptors);
        let answer = read_answer(stream);
        assert!([200, 502].contains(&answer.status), "{spare} spare: {}", answer.status);
        // By now the gate has restarted what failed.
        thread::sleep(Duration::from_millis(600));
        gate.check_answers("afterwards");
    }
    gate.check_and_stop();
}

#[test]
fn the_gate_stops_in_time_and_finishes_answers() {
    let Some(mut gate) = GateUnderTest::with_default_limits(the_gate_stops_in_time_and_finishes_answers) else {
        return;
    };
    let slow = gate.send(b"GET /slow/300 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let silent = gate.send(b"GET /big/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let idle = gate.connect();
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    let reader = thread::spawn(move || read_answer(slow));
    gate.stop();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(reader.join().unwrap().body, b"hello");
    assert!(TcpStream::connect(gate.address).is_err());
    assert_eq!(read_to_end(idle).unwrap_or_default(), b"");
    drop(silent);
}
