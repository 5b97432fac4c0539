//! Attacks on the gate with a real tiny_http behind it, over the loopback. Both ends are in this process, so that every
//! descriptor and thread can be counted; for the same reason each test has a process to itself.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::alone::{is_alone, room_for_attackers};
use crate::common::reset;
use net_pulse::http::gate::inner::Inner;
use net_pulse::http::gate::{Gate, Limits, Terms, access};
use net_pulse::http::route::Weight;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};

const WORKERS: usize = 4;
/// Whatever takes longer does not come at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than any answer takes on the slowest machine, and much shorter than any limit that could have caused it.
const SOON: Duration = Duration::from_secs(1);
/// When the kernel's queue of new connections is full, it asks to come again after a second.
const FLOODED: Duration = Duration::from_secs(3);

/// The handlers here have answers of any length behind one path.
fn weigh(_method: &str, target: &str) -> Weight {
    if target.starts_with("/api/export/") { Weight::Long } else { Weight::Light }
}

/// A gate, tiny_http and four workers with handlers that take a path's word for what they do.
struct Bed {
    address: SocketAddr,
    gate: Option<Gate>,
    inner: Option<Arc<Inner>>,
    workers: Vec<JoinHandle<()>>,
    descriptors_before: usize,
    /// Once everything runs.
    at_rest: (usize, usize),
}

impl Bed {
    /// None where the test is not alone in its process: it has been run in another one then.
    fn of(test: impl Fn(), limits: Limits) -> Option<Bed> {
        is_alone(test).then(|| Bed::new(limits))
    }

    fn new(limits: Limits) -> Bed {
        room_for_attackers();
        let descriptors_before = descriptors();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (inner, road) = Inner::open(vec!["/run".into(), std::env::temp_dir()], WORKERS).unwrap();
        let work = |inner: Arc<Inner>| {
            move || {
                while let Some(request) = inner.next() {
                    handle(request)
                }
            }
        };
        let workers = (0..WORKERS).map(|_| thread::spawn(work(inner.clone()))).collect();
        let names = access::own_names("router", &[]);
        let terms = Terms { names, private: false, limits, weigh };
        let gate = Gate::open(vec![listener], Box::new(road), terms).unwrap();
        let at_rest = (0, 0);
        let (gate, inner) = (Some(gate), Some(inner));
        let mut bed = Bed { address, gate, inner, workers, descriptors_before, at_rest };
        bed.well("before anything else");
        thread::sleep(Duration::from_millis(100));
        bed.at_rest = (descriptors(), threads());
        bed
    }

    fn usual(test: impl Fn()) -> Option<Bed> {
        Bed::of(test, Limits::default())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// From another address of this machine, with a small client's room for what comes back.
    fn connect_from(&self, number: u8) -> TcpStream {
        let SocketAddr::V4(to) = self.address else { unreachable!("bound to IPv4") };
        let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&stream, sockopt::RcvBuf, &16384).unwrap();
        bind(stream.as_raw_fd(), &SockaddrIn::new(127, 0, 0, number, 0)).unwrap();
        connect(stream.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
        let stream = TcpStream::from(stream);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream
    }

    fn ask(&self, bytes: &[u8]) -> Answer {
        read_answer(self.send(bytes))
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
    }

    /// A well-behaved client is answered, and soon.
    fn well(&self, while_what: &str) {
        self.well_within(SOON, while_what);
    }

    fn well_within(&self, longest: Duration, while_what: &str) {
        let start = Instant::now();
        let answer = self.get("/hello");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]), "{while_what}");
        assert!(start.elapsed() < longest, "{while_what}: {:?}", start.elapsed());
    }

    fn well_for(&self, time: Duration, while_what: &str) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.well(while_what);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Finds nothing left of whatever was done, and then ends.
    fn close(mut self) {
        self.well("at the end");
        let (descriptors_then, threads_then) = self.at_rest;
        // tiny_http's idle threads leave after five seconds.
        wait_until("threads are as before", || threads() <= threads_then);
        wait_until("descriptors are as before", || descriptors() <= descriptors_then);
        self.end();
        wait_until("all descriptors are closed", || descriptors() <= self.descriptors_before);
    }

    fn end(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.stop();
        }
        if let Some(inner) = self.inner.take() {
            inner.close();
        }
        self.workers.drain(..).for_each(|worker| worker.join().unwrap());
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
    }
}

fn handle(mut request: tiny_http::Request) {
    let target = request.url().split('?').next().unwrap().to_string();
    let number = |start: &str| target.strip_prefix(start).and_then(|rest| rest.parse::<usize>().ok());
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body).unwrap();
    if target == "/panic" {
        drop(request.into_writer());
        return;
    }
    if let Some(bytes) = number("/big/").or(number("/api/export/")) {
        // By hand: what is written is then what somebody reads, and not what tiny_http has collected.
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
        // tiny_http would send it in chunks.
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

/// To its clean end: a reset is a failure.
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
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 4096]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn requests_arrive_and_answers_come_back() {
    let Some(bed) = Bed::usual(requests_arrive_and_answers_come_back) else { return };
    bed.well("alone");
    let head = bed.ask(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.to_ascii_lowercase().contains("content-length: 5"), "{}", head.head);
    for status in [204, 304] {
        let answer = bed.get(&format!("/status/{status}"));
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    let absolute = bed.ask(b"GET http://localhost/hello?x HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!((absolute.status, absolute.body.as_slice()), (200, &b"hello"[..]));
    let old = bed.ask(b"GET / HTTP/1.0\r\nHost: router.lan:80\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((old.status, old.body.as_slice()), (200, &b"hello"[..]));

    for length in [0, 1, 1024, 1025, 8192, 16384] {
        let mut request =
            format!("POST /echo HTTP/1.1\r\nHost: [::1]\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        request.extend((0..length).map(|at| at as u8));
        let sent = request[request.len() - length..].to_vec();
        assert!(bed.ask(&request).body == sent, "a body of {length}");
    }

    for thousands in 0..200 {
        let bytes = thousands * 1000;
        assert_eq!(bed.get(&format!("/big/{bytes}")).body.len(), bytes);
    }
    let big = bed.get("/big/5000000");
    assert_eq!(big.body.len(), 5_000_000);
    for pieces in 0..20 {
        assert_eq!(bed.get(&format!("/pieces/{pieces}")).body.len(), pieces);
    }
    let headers = bed.ask(
        b"GET /headers HTTP/1.1\r\nHost: router\r\nX-Real-IP: 10.9.9.9\r\nConnection: keep-alive, Host\r\nCookie: \xff\r\n\r\n",
    );
    let text = String::from_utf8(headers.body).unwrap();
    let (place, text) = text.split_once('\n').unwrap();
    assert!(
        place
            .strip_prefix("x-place: ")
            .and_then(|place| place.parse().ok())
            .is_some_and(|place: usize| place < WORKERS)
    );
    assert_eq!(text, "host: router\nforwarded: for=unknown\nx-real-ip: 127.0.0.1\nconnection: close\n");
    bed.close();
}

#[test]
fn requests_in_pieces_and_half_closed() {
    let Some(bed) = Bed::usual(requests_in_pieces_and_half_closed) else { return };
    let mut stream = bed.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc" {
        stream.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(read_answer(stream).body, b"abc");
    let stream = bed.send(b"GET /slow/200 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_answer(stream).body, b"hello");
    let stream = bed.send(b"GET / HTTP/1.1\r\nHost: lo");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_answer(stream).status, 400);
    bed.close();
}

#[test]
fn whatever_is_malformed_is_told_so() {
    let Some(bed) = Bed::usual(whatever_is_malformed_is_told_so) else { return };
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
        let answer = bed.ask(&request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(100)]).into_owned();
        assert_eq!(answer.status, status, "{shown}");
        assert!(answer.body.starts_with(b"{\"detail\":\"") && answer.body.ends_with(b"\"}\n"), "{shown}");
        assert!(start.elapsed() < SOON, "{shown}: not at once");
    }
    let answer = bed.ask(b"HEAD / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!((answer.status, answer.body.len()), (421, 0));
    let answer = bed.get("/panic");
    assert_eq!(answer.status, 502);
    bed.close();
}

#[test]
fn e45_two_thousand_idle_connections() {
    let Some(bed) = Bed::usual(e45_two_thousand_idle_connections) else { return };
    bed.well("before");
    let before = (resident_kb(), threads());
    let mut idle = Vec::new();
    for number in 0..2000 {
        idle.push(bed.connect());
        if number % 200 == 0 {
            bed.well_within(FLOODED, "while the flood comes in");
        }
    }
    bed.well_within(FLOODED, "under the flood");
    let grown = resident_kb().saturating_sub(before.0);
    assert!(grown < 1024, "{grown} kB");
    assert!(threads() <= before.1 + 4, "{} threads", threads());
    let open = idle.iter().filter(|stream| !closed(stream)).count();
    assert!(open <= 64, "{open} are still open");
    drop(idle);
    bed.close();
}

#[test]
fn e45_slow_writers_lose_their_place_in_time() {
    let limit = Duration::from_secs(2);
    let Some(bed) = Bed::of(e45_slow_writers_lose_their_place_in_time, Limits { head: limit, ..Limits::default() })
    else {
        return;
    };
    let mut slow: Vec<TcpStream> = (0..300).map(|_| bed.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")).collect();
    let start = Instant::now();
    while start.elapsed() < limit * 2 {
        slow.retain_mut(|stream| stream.write_all(b"x").is_ok() && !closed(stream));
        bed.well("among slow writers");
    }
    assert_eq!(slow.len(), 0, "all are gone, however busily they wrote");
    bed.close();
}

#[test]
fn a_flood_from_one_address_costs_its_own() {
    let Some(bed) = Bed::usual(a_flood_from_one_address_costs_its_own) else { return };
    let mut slow = bed.send(b"GET /hello HTTP/1.1\r\nHost: loc");
    let flood: Vec<_> = (0..300).map(|_| bed.connect_from(2)).collect();
    bed.well("among others' connections");
    slow.write_all(b"alhost\r\n\r\n").unwrap();
    assert_eq!(read_answer(slow).status, 200, "the oldest connection of all");
    drop(flood);

    // The same with whole requests, for which there is a waiting room.
    for addresses in [1, 8] {
        let start = Instant::now();
        thread::scope(|scope| {
            for number in 0..60 {
                let bed = &bed;
                scope.spawn(move || {
                    while start.elapsed() < Duration::from_secs(3) {
                        let mut stream = bed.connect_from(2 + number % addresses);
                        let _ = stream.write_all(b"GET /slow/200 HTTP/1.1\r\nHost: localhost\r\n\r\n");
                        let _ = stream.read_to_end(&mut Vec::new());
                        thread::sleep(Duration::from_millis(10));
                    }
                });
            }
            thread::sleep(Duration::from_millis(100));
            bed.well_for(Duration::from_secs(2), "beside a waiting room that others fill");
        });
    }
    bed.close();
}

/// A head in two parts is no whole request, and whole requests are not sent away for it: there has to be room all the same.
#[test]
fn whole_requests_of_one_address_leave_room_for_heads_in_parts() {
    let Some(bed) = Bed::usual(whole_requests_of_one_address_leave_room_for_heads_in_parts) else { return };
    let ended = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        for _ in 0..80 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let mut stream = bed.connect_from(2);
                    let _ = stream.write_all(b"GET /slow/100 HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    let _ = stream.read_to_end(&mut Vec::new());
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
        thread::sleep(Duration::from_millis(300));
        let ask = |_| {
            let start = Instant::now();
            let mut stream = bed.send(b"GET /hello HTTP/1.1\r\nHost: loc");
            thread::sleep(Duration::from_millis(50));
            let sent = stream.write_all(b"alhost\r\n\r\n");
            (sent.and_then(|()| read_to_end(stream)), start.elapsed())
        };
        let answers: Vec<_> = (0..20).map(ask).collect();
        ended.store(true, Ordering::Relaxed);
        for (answer, _) in &answers {
            let status = answer.as_ref().ok().and_then(|bytes| Some(split(bytes)?.status));
            assert_eq!(status, Some(200), "{answer:?}");
        }
        answers.iter().map(|(_, time)| *time).max().unwrap()
    });
    eprintln!("the slowest took {} ms", slowest.as_millis());
    assert!(slowest < SOON, "{slowest:?}");
    bed.close();
}

#[test]
fn bodies_that_never_come() {
    let Some(bed) = Bed::of(bodies_that_never_come, Limits { body: Duration::from_secs(2), ..Limits::default() })
    else {
        return;
    };
    let with = |length: usize| format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nx");
    let huge: Vec<_> = (0..8).map(|_| bed.send(with(1 << 30).as_bytes())).collect();
    let large: Vec<_> = (0..12).map(|_| bed.send(with(16384).as_bytes())).collect();
    bed.well_for(Duration::from_millis(500), "among unsent bodies");
    assert!(huge.into_iter().all(|stream| read_answer(stream).status == 413));
    let mut statuses: Vec<u16> = large.into_iter().map(|stream| read_answer(stream).status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [408, 408, 408, 408, 408, 408, 408, 408, 503, 503, 503, 503]);
    bed.close();
}

#[test]
fn a_header_without_an_end() {
    let Some(bed) = Bed::usual(a_header_without_an_end) else { return };
    let before = resident_kb();
    let mut stream = bed.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
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
    bed.close();
}

#[test]
fn pipelined_requests_that_nobody_reads() {
    let Some(bed) = Bed::usual(pipelined_requests_that_nobody_reads) else { return };
    let mut stream = bed.connect();
    stream.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let many = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200_000);
    let result = stream.write_all(&many);
    assert!(result.is_err(), "eight megabytes were taken");
    bed.well("after the pipe");

    // Few enough are no reason for a reset: the first answer is read whole.
    let few = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let answer = bed.ask(&few);
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]));
    drop(stream);
    bed.close();
}

#[test]
fn clients_that_never_read_long_answers() {
    let Some(bed) = Bed::usual(clients_that_never_read_long_answers) else { return };
    let request = b"GET /api/export/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let before = resident_kb();
    let mute: Vec<_> = (0..12).map(|_| bed.send(request)).collect();
    bed.well_for(Duration::from_secs(2), "while nobody reads");
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 1024, "{grown} kB");
    // Somebody who wants the same and reads it comes through as well.
    assert_eq!(bed.get("/api/export/1000000").body.len(), 1_000_000);
    drop(mute);
    bed.close();
}

#[test]
fn clients_that_never_read_answers_nobody_expected_to_be_long() {
    let Some(bed) = Bed::usual(clients_that_never_read_answers_nobody_expected_to_be_long) else { return };
    let mute: Vec<_> = (0..30).map(|_| bed.send(b"GET /big/5000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    // They hold every place that one address can have. Each round of three loses its places after half a second, and
    // whoever comes from the same address has to wait for all of them.
    let start = Instant::now();
    assert_eq!(bed.get("/hello").status, 200);
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    drop(mute);
    bed.close();
}

#[test]
fn steady_slow_readers_do_not_keep_places_that_others_want() {
    let Some(bed) = Bed::usual(steady_slow_readers_do_not_keep_places_that_others_want) else { return };
    let request = b"GET /api/export/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // 64 bytes, and 4 kB, at a time: in the one case no buffer is ever passed on, in the other they are all the time.
    for bite in [64, 4096] {
        let ended = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = [2, 3]
            .map(|number| {
                let ended = ended.clone();
                let mut stream = bed.connect_from(number);
                stream.write_all(request).unwrap();
                thread::spawn(move || {
                    let mut block = vec![0; bite];
                    while !ended.load(Ordering::Relaxed) && stream.read(&mut block).is_ok_and(|count| count > 0) {
                        thread::sleep(Duration::from_millis(20));
                    }
                })
            })
            .into();
        // Nobody else wants their places.
        thread::sleep(Duration::from_secs(2));
        assert!(readers.iter().all(|reader| !reader.is_finished()));
        let start = Instant::now();
        assert_eq!(bed.get("/api/export/1000").body.len(), 1000);
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        wait_until("one of them knows that it has lost its place", || readers.iter().any(JoinHandle::is_finished));
        bed.well("beside the other");
        assert!(!readers.iter().all(JoinHandle::is_finished), "one was enough");
        ended.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    }
    bed.close();
}

#[test]
fn a_silent_reader_is_dropped_though_nobody_waits() {
    let Some(bed) = Bed::of(
        a_silent_reader_is_dropped_though_nobody_waits,
        Limits { idle: Duration::from_millis(700), ..Limits::default() },
    ) else {
        return;
    };
    let mute = bed.send(b"GET /big/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    thread::sleep(Duration::from_secs(2));
    let bytes = read_to_end(mute);
    assert!(bytes.is_err() || bytes.is_ok_and(|bytes| bytes.len() < 5_000_000), "it got the whole answer");
    bed.close();
}

#[test]
fn resets_before_and_in_the_middle() {
    let Some(bed) = Bed::usual(resets_before_and_in_the_middle) else { return };
    for _ in 0..400 {
        reset(bed.connect());
    }
    bed.well("after resets");
    for _ in 0..100 {
        reset(bed.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        reset(bed.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"));
    }
    for _ in 0..50 {
        let mut stream = bed.send(b"GET /big/5000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.read_exact(&mut [0; 100]).unwrap();
        reset(stream);
    }
    bed.well("after resets in mid-answer");
    for _ in 0..4 {
        reset(bed.send(b"GET /slow/100 HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    bed.close();
}

#[test]
fn mutations_are_answered_or_closed() {
    let Some(bed) = Bed::usual(mutations_are_answered_or_closed) else { return };
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
        let stream = bed.send(&bytes);
        stream.shutdown(Shutdown::Write).unwrap();
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let answer = split(&read_to_end(stream).unwrap_or_else(|error| panic!("{error}: {shown}")));
        let status = answer.unwrap_or_else(|| panic!("no answer: {shown}")).status;
        assert!(matches!(status, 200 | 400..=499), "{status}: {shown}");
        statuses[usize::from(status / 100)] += 1;
    }
    assert!(statuses[2] > 100 && statuses[4] > 100, "{statuses:?}");
    bed.close();
}

/// While it lives, this process can open `spare` more descriptors.
struct Scarce((u64, u64));

impl Scarce {
    fn new(spare: usize) -> Scarce {
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // The lowest free numbers are handed out first: what counts is the number below which `spare` are free.
        let used: Vec<usize> = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .collect();
        // The listing itself had the lowest free number, and has given it back.
        let listing = (0..).find(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_err()).unwrap();
        let free = (0..).filter(|number| *number == listing || !used.contains(number));
        let limit = free.take(spare + 1).last().unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, limit as u64, before.1).unwrap();
        Scarce(before)
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.0.0, self.0.1).unwrap();
    }
}

#[test]
fn e46_out_of_descriptors() {
    let Some(bed) = Bed::usual(e46_out_of_descriptors) else { return };
    // Spare descriptors, and how far one request comes with them: not accepted; not passed on; tiny_http's accept()
    // fails; its thread panics.
    for spare in 0..=3 {
        bed.well("before");
        wait_until("the last connection is gone", || descriptors() <= bed.at_rest.0);
        let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let to = match bed.address {
            SocketAddr::V4(address) => SockaddrIn::from(address),
            SocketAddr::V6(_) => unreachable!("bound to IPv4"),
        };
        let scarce = Scarce::new(spare);
        connect(stream.as_raw_fd(), &to).unwrap();
        let mut stream = TcpStream::from(stream);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        thread::sleep(Duration::from_millis(300));
        drop(scarce);
        let answer = read_answer(stream);
        assert!([200, 502].contains(&answer.status), "{spare} spare: {}", answer.status);
        // Whatever broke is whole again.
        thread::sleep(Duration::from_millis(600));
        bed.well("afterwards");
    }
    bed.close();
}

#[test]
fn it_stops_in_time_and_lets_answers_end() {
    let Some(mut bed) = Bed::usual(it_stops_in_time_and_lets_answers_end) else { return };
    let slow = bed.send(b"GET /slow/300 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mute = bed.send(b"GET /big/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let idle = bed.connect();
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    let reader = thread::spawn(move || read_answer(slow));
    bed.end();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(reader.join().unwrap().body, b"hello");
    assert!(TcpStream::connect(bed.address).is_err());
    assert_eq!(read_to_end(idle).unwrap_or_default(), b"");
    drop(mute);
}
