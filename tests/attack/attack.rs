//! Attacks on the real binary over the loopback, as strangers on the LAN could send them. During each attack a
//! well-behaved client gets its answers in time. Afterwards the program uses no more resources than before. Memory
//! limits are checked only if a release binary exists.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::stored_history::{Random, unix_now};
use crate::common::*;
use crate::isolation::{one_at_a_time, raise_descriptor_limit};
use crate::stored_history::{HistoryLength, write_history};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
use serde_json::Value;

const PEAK_BYTES: u64 = 12 << 20;
/// Growth of the resident memory that is no leak.
const LEAK_BYTES: u64 = 1 << 20;
/// Time in which a well-behaved client must have its answer.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// The same during a flood of connections.
const ANSWER_TIME_IN_FLOOD: Duration = Duration::from_secs(3);

/// The program under attack. Its history is so long that an export takes a while.
struct Target {
    daemon: Daemon,
    dir: Dir,
    is_release: bool,
    before_attack: Resources,
    _alone: MutexGuard<'static, ()>,
}

#[derive(Clone, Copy, Debug)]
struct Resources {
    descriptors: usize,
    threads: usize,
    resident: u64,
}

impl Target {
    fn new() -> Target {
        Target::start_with(net_pulse, HistoryLength::Days)
    }

    fn start_with(command: impl FnOnce(&str) -> std::process::Command, past: HistoryLength) -> Target {
        let alone = one_at_a_time();
        raise_descriptor_limit();
        let dir = Dir::new();
        write_history(&dir.join("net-pulse.db"), past);
        let release = release_binary();
        let is_release = release.is_some();
        if !is_release {
            skip("no target/release/net-pulse newer than the source: memory under attack is not measured");
        }
        let binary = release.unwrap_or_else(|| env!("CARGO_BIN_EXE_net-pulse").into());
        let mut command = command(binary.to_str().expect("a plain path"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]);
        let daemon = Daemon::spawn(command);
        // First uses everything once that the program then keeps: the connection to the history, and buffers and an
        // arena of the allocator for each worker.
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let paths = ["/health", "/api/interfaces", "/api/traffic/history?limit=1000", "/api/system/health"];
                    for path in paths.into_iter().cycle().take(20) {
                        daemon.get(path);
                    }
                    let names: Vec<String> = (0..1000).map(|at| format!("nowhere{at}")).collect();
                    let answer = daemon.put("/api/config/interfaces", serde_json::json!({ "interfaces": names }));
                    assert_eq!(answer.status, 400);
                    // Because of its file locks, SQLite keeps the descriptor of a closed connection for the next one.
                    assert_eq!(daemon.request("POST", "/api/backup", None).status, 200);
                    let rows = daemon.get("/api/export/traffic?limit=2000");
                    assert_eq!(rows.as_array().map(Vec::len), Some(2000), "the history is there");
                });
            }
        });
        sleep_ms(200);
        let before_attack = resources(&daemon);
        // Resets the peak of the resident memory (VmHWM).
        fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").expect("our own child");
        Target { daemon, dir, is_release, before_attack, _alone: alone }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.daemon.port()))
    }

    /// Sends from another loopback address, with a receive buffer as small as that of a small client.
    fn send_from(&self, number: u8, bytes: &[u8]) -> TcpStream {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        setsockopt(&socket, sockopt::RcvBuf, &16384).expect("a socket");
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, number, 0)).expect("an address of the loopback");
        connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, self.daemon.port())).expect("it listens");
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        let _ = stream.write_all(bytes);
        stream
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address(), TIMEOUT).expect("it listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a socket");
        stream
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        stream
    }

    /// The status of the answer, if there is one.
    fn status(&self, bytes: &[u8]) -> Option<u16> {
        let mut stream = self.send(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        // A reset is a valid way to close.
        let _ = stream.read_to_end(&mut answer);
        status_of(&answer)
    }

    fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Checks that the attack left nothing behind and that the program still stops normally.
    fn check_and_stop(self) {
        let before_attack = self.before_attack;
        let now = || resources(&self.daemon);
        wait_until("descriptors are as before", || now().descriptors <= before_attack.descriptors);
        // tiny_http's idle threads end after five seconds.
        wait_until("threads are as before", || now().threads <= before_attack.threads);
        let health = self.daemon.get("/api/system/health");
        assert_eq!(health["details"]["http"]["panics"], 0, "{health}");
        let panics = self.daemon.log().into_iter().filter(|line| line.contains("panicked")).count();
        assert_eq!(panics, 0, "{:?}", self.daemon.log());
        let (peak, resident) = (status_bytes(&self.daemon, "VmHWM:"), now().resident);
        eprintln!("peak {} kB, {} kB before, {} kB after", peak >> 10, before_attack.resident >> 10, resident >> 10);
        if self.is_release {
            assert!(peak <= PEAK_BYTES, "{peak} bytes at the peak");
            assert!(
                resident <= before_attack.resident + LEAK_BYTES,
                "{resident} bytes after {}",
                before_attack.resident
            );
        }
        self.daemon.stop();
        assert!(self.dir.path().exists());
    }
}

fn status_of(answer: &[u8]) -> Option<u16> {
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

fn resources(daemon: &Daemon) -> Resources {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).expect("it runs").count();
    Resources { descriptors: count("fd"), threads: count("task"), resident: daemon.resident() }
}

fn status_bytes(daemon: &Daemon, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

/// Sends requests all the time, as the page does, and keeps the longest answer time.
struct Client {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Duration, Vec<String>)>,
}

impl Client {
    fn new(to: SocketAddr) -> Client {
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let thread = thread::spawn(move || {
            let (mut count, mut slowest, mut failures) = (0, Duration::ZERO, Vec::new());
            while !end.load(Ordering::Relaxed) {
                let start = Instant::now();
                match ask(to, "GET", "/api/traffic/summary", "application/json", None) {
                    Ok(answer) if answer.status == 200 => {}
                    Ok(answer) => failures.push(answer.status.to_string()),
                    Err(error) => failures.push(error.to_string()),
                }
                slowest = slowest.max(start.elapsed());
                count += 1;
                thread::sleep(Duration::from_millis(20));
            }
            (count, slowest, failures)
        });
        Client { ended, thread }
    }

    #[track_caller]
    fn check_answered_within(self, max_time: Duration) {
        // The client sends at least one request after the attack.
        sleep_ms(100);
        self.ended.store(true, Ordering::Relaxed);
        let (count, slowest, failures) = self.thread.join().expect("it does not panic");
        eprintln!("{count} requests of a well-behaved client, the slowest took {} ms", slowest.as_millis());
        assert!(count > 0 && failures.is_empty(), "{failures:?} of {count}");
        assert!(slowest <= max_time, "{slowest:?}");
    }
}

fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    !matches!(stream.read(&mut [0; 4096]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn e45_two_thousand_idle_connections() {
    let target = Target::new();
    let client = target.client();
    let idle: Vec<_> = (0..2000).map(|_| target.connect()).collect();
    sleep_ms(1000);
    client.check_answered_within(ANSWER_TIME_IN_FLOOD);
    let open = idle.iter().filter(|stream| !is_closed(stream)).count();
    assert!(open <= 64, "{open} are still open");
    drop(idle);
    target.check_and_stop();
}

#[test]
fn e45_a_flood_of_connections() {
    const TIME: Duration = Duration::from_secs(4);
    let target = Target::new();
    let client = target.client();
    let start = Instant::now();
    let count: u32 = thread::scope(|scope| {
        let target = &target;
        let flood = move |seed: u8| {
            let mut random = Random(0x9e37_79b9 ^ u32::from(seed));
            let mut count = 0;
            while start.elapsed() < TIME {
                drop(target.send_from(2 + random.below(250) as u8, b""));
                count += 1;
            }
            count
        };
        let floods = [1, 2].map(|seed| scope.spawn(move || flood(seed)));
        floods.into_iter().map(|flood| flood.join().expect("no panic")).sum()
    });
    eprintln!("{} connections a second", count / TIME.as_secs() as u32);
    client.check_answered_within(ANSWER_TIME_IN_FLOOD);
    target.check_and_stop();
}

#[test]
fn e45_three_hundred_slow_writers() {
    let target = Target::new();
    let client = target.client();
    let mut slow: Vec<_> = (0..300).map(|_| target.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")).collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(7) {
        slow.retain_mut(|stream| !is_closed(stream) && stream.write_all(b"x").is_ok());
        sleep_ms(100);
    }
    assert_eq!(slow.len(), 0, "all are gone after five seconds, however busily they wrote");
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
}

#[test]
fn a_header_of_a_gigabyte() {
    let target = Target::new();
    let client = target.client();
    let mut stream = target.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    let block = vec![b'x'; 1 << 20];
    let taken = (0..1024).take_while(|_| stream.write_all(&block).is_ok()).count();
    assert!(taken < 16, "{taken} MB were taken");
    client.check_answered_within(ANSWER_TIME);
    drop(stream);
    target.check_and_stop();
}

#[test]
fn bodies_that_are_never_sent() {
    let target = Target::new();
    let client = target.client();
    let put = |length: &str| {
        format!("PUT /api/config/interfaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{")
    };
    let huge: Vec<_> = (0..8).map(|_| target.send(put("1073741824").as_bytes())).collect();
    let large: Vec<_> = (0..60).map(|_| target.send(put("16384").as_bytes())).collect();
    for mut stream in huge {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        assert_eq!(status_of(&answer), Some(413));
    }
    wait_until("no connection waits for the rest of its body", || large.iter().all(is_closed));
    client.check_answered_within(ANSWER_TIME);
    drop(large);
    target.check_and_stop();
}

#[test]
fn malformed_requests_are_refused() {
    let target = Target::new();
    let client = target.client();
    let put = |lines: &str| format!("PUT /api/config/max-retries HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n12345");
    let mut cases: Vec<Vec<u8>> = [
        "Content-Length: 9000000000000000000",
        "Content-Length: 18446744073709551615",
        "Content-Length: 18446744073709551616",
        "Content-Length: +5",
        "Content-Length: 5x",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 50",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Content-Length : 5",
        "Content-Length: 5\r\nExpect: 100-continue",
        "Content-Length: 5\r\nHost: localhost",
        "Content-Length: 5\r\n folded: x",
        "Content-Length: 5\r\nX: \0",
        "Content-Length: 5\nX: y",
        "Content-Length: 5\rX: y",
    ]
    .map(|lines| put(lines).into_bytes())
    .to_vec();
    cases.extend([
        b"GET /\xc3\x28 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n".to_vec(),
        b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: loc".to_vec(),
    ]);
    for case in cases {
        let status = target.status(&case).unwrap_or(0);
        assert!((400..500).contains(&status), "{status}: {:?}", String::from_utf8_lossy(&case));
    }
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
}

#[test]
fn two_hundred_thousand_pipelined_requests_without_a_reader() {
    let target = Target::new();
    let client = target.client();
    let mut stream = target.connect();
    let many = b"GET /api/interfaces HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200_000);
    assert!(stream.write_all(&many).is_err(), "the gate accepted all requests");
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
}

#[test]
fn clients_that_request_the_export_and_never_read() {
    let target = Target::new();
    let client = target.client();
    let silent: Vec<_> =
        (0..12).map(|_| target.send(b"GET /api/export/traffic HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    sleep_ms(3000);
    // A client that reads gets its whole export among them.
    let export = target.daemon.get("/api/export/traffic?format=json&limit=20000");
    assert_eq!(export.as_array().map(Vec::len), Some(20_000));
    client.check_answered_within(ANSWER_TIME);
    drop(silent);
    target.check_and_stop();
}

#[test]
fn resets_at_every_stage() {
    let target = Target::new();
    let client = target.client();
    for _ in 0..400 {
        reset(target.connect());
    }
    for _ in 0..100 {
        reset(target.send(b"GET /api/interfaces HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        reset(target.send(b"PUT /api/config/max-retries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"));
    }
    for _ in 0..50 {
        let mut stream = target.send(b"GET /api/export/traffic HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.read_exact(&mut [0; 10_000]).expect("the beginning of an answer");
        reset(stream);
    }
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
}

#[test]
fn resets_while_answers_are_computed() {
    let target = Target::start_with(net_pulse, HistoryLength::Weeks);
    let client = target.client();
    // Eight addresses at a time reset their connections: before the answer starts, while it is computed, or in its
    // middle. Three quarters of the requests are the first of these four.
    let requests = [
        chart(24, 80),
        get("/api/export/traffic"),
        get("/api/traffic/history?limit=1000"),
        "PUT /api/config/interfaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n[".to_string(),
    ];
    check_limits_during(&target, 8, |number| {
        let mut random = Random(0x9e37_79b9 ^ u32::from(number));
        for _ in 0..300 {
            let request = &requests[random.below(12).saturating_sub(8)];
            let mut stream = target.send_from(number, request.as_bytes());
            match random.below(30) {
                0 => {
                    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
                    let _ = stream.read(&mut vec![0; 1 + random.below(10_000)]);
                }
                1 => sleep_ms(random.below(30) as u64),
                _ => sleep_ms(random.below(4) as u64),
            }
            reset(stream);
        }
        300
    });
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
}

fn with_few_descriptors(binary: &str) -> std::process::Command {
    let mut command = net_pulse("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", binary]);
    command
}

#[test]
fn e46_sixty_four_descriptors() {
    let target = Target::start_with(with_few_descriptors, HistoryLength::Days);
    let client = target.client();
    let idle: Vec<_> = (0..200).map(|_| target.connect()).collect();
    let silent: Vec<_> =
        (0..30).map(|_| target.send(b"GET /api/export/traffic HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    sleep_ms(2000);
    client.check_answered_within(ANSWER_TIME_IN_FLOOD);
    drop((idle, silent));
    target.check_and_stop();
}

/// The most expensive request of the page.
fn chart(interfaces: u32, days: i64) -> String {
    let names: Vec<String> = (1..=interfaces).map(|id| format!("interface=lan{id}")).collect();
    get(&format!("/api/traffic/series?{}&from={}&points=720", names.join("&"), unix_now() - days * 86_400))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// For `time`, each of `addresses` addresses sends requests and resets each connection before the answer.
fn abandon_requests(target: &Target, addresses: u8, request: &str, time: Duration) {
    let client = target.client();
    let start = Instant::now();
    let total = check_limits_during(target, addresses, |number| {
        let mut count = 0;
        while start.elapsed() < time {
            let stream = target.send_from(number, request.as_bytes());
            sleep_ms(count % 4);
            reset(stream);
            count += 1;
        }
        count
    });
    eprintln!("{total} requests abandoned");
    assert!(total > 300, "{total}");
    client.check_answered_within(ANSWER_TIME);
    let log = target.daemon.log();
    assert!(!log.iter().any(|line| line.contains("tiny_http") || line.contains("os error 24")), "{log:?}");
}

/// Runs `attack` for `addresses` addresses in parallel, with one connection at a time for each. Its argument is the
/// last byte of the address. Checks by the numbers of descriptors and threads that the program never works on more than
/// four requests. Returns the sum of the results.
fn check_limits_during(target: &Target, addresses: u8, attack: impl Fn(u8) -> u64 + Sync) -> u64 {
    let attack = &attack;
    let (sum, max) = thread::scope(|scope| {
        let attackers: Vec<_> = (2..2 + addresses).map(|number| scope.spawn(move || attack(number))).collect();
        let mut max = target.before_attack;
        while !attackers.iter().all(|attacker| attacker.is_finished()) {
            let now = resources(&target.daemon);
            max.descriptors = max.descriptors.max(now.descriptors);
            max.threads = max.threads.max(now.threads);
            sleep_ms(5);
        }
        (attackers.into_iter().map(|attacker| attacker.join().expect("no panic")).sum(), max)
    });
    // Three descriptors for each slot, some for connections that are accepted or closed at the moment, and some for
    // files that SQLite opens.
    let room = 4 * 3 + 2 * usize::from(addresses) + 8;
    eprintln!("{} descriptors and {} threads at most", max.descriptors, max.threads);
    assert!(max.descriptors <= target.before_attack.descriptors + room, "{max:?} after {:?}", target.before_attack);
    assert!(max.threads <= target.before_attack.threads + 8, "{max:?} after {:?}", target.before_attack);
    sum
}

#[test]
fn abandoned_requests_from_one_address() {
    let target = Target::start_with(net_pulse, HistoryLength::Weeks);
    abandon_requests(&target, 1, &chart(24, 80), Duration::from_secs(5));
    target.check_and_stop();
}

#[test]
fn abandoned_requests_from_two_addresses() {
    let target = Target::start_with(net_pulse, HistoryLength::Weeks);
    abandon_requests(&target, 2, &chart(24, 80), Duration::from_secs(5));
    target.check_and_stop();
}

#[test]
fn e46_abandoned_requests_with_sixty_four_descriptors() {
    let target = Target::start_with(with_few_descriptors, HistoryLength::Weeks);
    abandon_requests(&target, 2, &chart(24, 80), Duration::from_secs(5));
    target.check_and_stop();
}

#[test]
fn abandoned_light_requests() {
    let target = Target::new();
    for path in ["/api/traffic/history?limit=1000", "/api/export/traffic", "/api/interfaces"] {
        abandon_requests(&target, 2, &get(path), Duration::from_secs(2));
    }
    target.check_and_stop();
}

/// Keeps `count` requests open for 8 s, from `addresses` addresses.
fn keep_requests_open(addresses: u8, count: u8, request: &str) {
    let target = Target::start_with(net_pulse, HistoryLength::Weeks);
    let start = Instant::now();
    let client = thread::scope(|scope| {
        for number in 0..count {
            let target = &target;
            scope.spawn(move || {
                while start.elapsed() < Duration::from_secs(8) {
                    let mut stream = target.send_from(2 + number % addresses, request.as_bytes());
                    let _ = stream.read_to_end(&mut Vec::new());
                    // A refused client tries again soon, but leaves the processor to others for a moment.
                    sleep_ms(20);
                }
            });
        }
        sleep_ms(500);
        target.client()
    });
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
}

#[test]
fn sixty_charts_at_a_time_for_one_address() {
    keep_requests_open(1, 60, &chart(24, 80));
}

#[test]
fn sixty_charts_at_a_time_for_eight_addresses() {
    keep_requests_open(8, 60, &chart(24, 80));
}

#[test]
fn sixty_requests_at_a_time_for_one_address() {
    keep_requests_open(1, 60, &get("/health"));
}

/// Reads exports at 200 kB/s for a few seconds. Returns the last bytes read from each connection.
fn read_slowly(target: &Target, number: u8) -> Vec<Vec<u8>> {
    let start = Instant::now();
    let ended = || start.elapsed() > Duration::from_secs(6);
    let mut ends = Vec::new();
    while !ended() {
        let mut stream = target.send_from(number, get("/api/export/traffic").as_bytes());
        let mut last = Vec::new();
        let mut block = [0; 8192];
        while let Ok(count @ 1..) = stream.read(&mut block) {
            if ended() {
                break;
            }
            last = block[..count].to_vec();
            sleep_ms(40);
        }
        ends.push(last);
    }
    ends
}

fn exports_beside_slow_readers(addresses: [u8; 2]) -> Vec<Vec<u8>> {
    let target = Target::new();
    let client = target.client();
    let ends = thread::scope(|scope| {
        let target = &target;
        let readers = addresses.map(|number| scope.spawn(move || read_slowly(target, number)));
        sleep_ms(1000);
        for _ in 0..4 {
            let start = Instant::now();
            let export = target.daemon.get("/api/export/traffic?format=json&limit=2000");
            assert_eq!(export.as_array().map(Vec::len), Some(2000));
            assert!(start.elapsed() < ANSWER_TIME_IN_FLOOD, "{:?}", start.elapsed());
            sleep_ms(500);
        }
        readers.into_iter().flat_map(|reader| reader.join().expect("no panic")).collect()
    });
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
    ends
}

#[test]
fn one_address_that_reads_two_exports_slowly() {
    let ends = exports_beside_slow_readers([2, 2]);
    assert_eq!(ends.len(), 2, "a slow reader lost its slot, though another client could always get one");
}

#[test]
fn two_addresses_that_read_an_export_slowly() {
    let ends = exports_beside_slow_readers([2, 3]);
    assert!(ends.len() > 2, "no slow reader lost its slot");
    // A client can see that an export was cut off.
    assert!(ends.iter().all(|end| !end.ends_with(b"\r\n0\r\n\r\n")), "{ends:?}");
}

#[test]
fn large_bodies_of_others_do_not_block_a_client() {
    let target = Target::new();
    let put = "PUT /api/config/interfaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16384\r\n\r\n{";
    let names: Vec<String> = (0..1000).map(|at| format!("nowhere{at}")).collect();
    // Twelve from one address, then one each from twelve addresses.
    for addresses in [1, 12] {
        let unsent: Vec<_> = (0..12).map(|at| target.send_from(2 + at % addresses, put.as_bytes())).collect();
        sleep_ms(100);
        for _ in 0..5 {
            let answer = target.daemon.put("/api/config/interfaces", serde_json::json!({ "interfaces": names }));
            assert_eq!(answer.status, 400, "{}", answer.text());
        }
        drop(unsent);
    }
    target.check_and_stop();
}

/// tiny_http fails if descriptors run out. The limits of the gate prevent this, so the test lowers the limit of the
/// process at run time.
#[test]
fn e46_failures_of_tiny_http_are_counted_and_logged_once() {
    let target = Target::new();
    let limit = |soft: &str| {
        let pid = target.daemon.pid().to_string();
        let status = std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status();
        assert!(status.expect("util-linux").success());
    };
    let nth_free = || {
        let entries = fs::read_dir(format!("/proc/{}/fd", target.daemon.pid())).expect("it runs");
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<usize>().ok());
        let numbers: std::collections::BTreeSet<usize> = numbers.collect();
        move |spare: usize| (0..).filter(|number| !numbers.contains(number)).nth(spare).expect("a free number")
    };
    for spare in (0..5).cycle().take(30) {
        limit(&nth_free()(spare).to_string());
        let stream = target.send_from(2, get("/health").as_bytes());
        sleep_ms(50);
        limit("1024");
        drop(stream);
        sleep_ms(50);
    }
    wait_until("it serves again", || {
        ask(target.address(), "GET", "/health", "*/*", None).is_ok_and(|it| it.status == 200)
    });
    let log = target.daemon.log();
    let count = |what: &str| log.iter().filter(|line| line.contains(what)).count();
    let panics = target.daemon.get("/api/system/health")["details"]["http"]["panics"].as_u64();
    assert!(count("panicked") > 0, "{log:?}");
    assert_eq!(panics, Some(count("panicked") as u64), "{log:?}");
    assert_eq!(count("restarting it"), 1, "{log:?}");
    target.daemon.stop();
}

#[test]
fn ten_thousand_mutations() {
    const SEEDS: [&[u8]; 4] = [
        b"GET /api/traffic/history?limit=3&start_time=2026-01-15T10:30:00Z&interface_name=lan1 HTTP/1.1\r\nHost: localhost:8000\r\nAccept: */*\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nIf-None-Match: \"x\"\r\nConnection: keep-alive\r\n\r\n",
        b"PUT /api/config/retry-delay HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 19\r\n\r\n{\"retry_delay\": 1.5}",
        b"GET /api/export/traffic?format=csv&limit=10&resolution=hour HTTP/1.0\r\nHost: [::1]\r\n\r\n",
    ];
    let target = Target::new();
    let client = target.client();
    let answered: Vec<BTreeMap<u16, usize>> = thread::scope(|scope| {
        let workers: Vec<_> = (1..=4)
            .map(|worker| {
                let target = &target;
                scope.spawn(move || {
                    let mut random = Random(0x9e37_79b9 ^ worker);
                    let mut statuses = BTreeMap::new();
                    for _ in 0..2500 {
                        let mut bytes = SEEDS[random.below(SEEDS.len())].to_vec();
                        for _ in 0..1 + random.below(4) {
                            let at = random.below(bytes.len().max(1));
                            match random.below(4) {
                                _ if bytes.is_empty() => {}
                                0 => bytes[at] = random.below(256) as u8,
                                1 => drop(bytes.remove(at)),
                                2 => bytes.insert(at, b"\r\n\0 :\t/5+%&=\xff"[random.below(13)]),
                                _ => bytes.truncate(at + 1),
                            }
                        }
                        let status = target.status(&bytes);
                        let shown = String::from_utf8_lossy(&bytes).into_owned();
                        let closed = status.is_none() && bytes.is_empty();
                        assert!(closed || matches!(status, Some(200..=499)), "{status:?}: {shown}");
                        *statuses.entry(status.unwrap_or(0)).or_insert(0) += 1;
                    }
                    statuses
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no assertion failed")).collect()
    });
    let sum = |status: u16| answered.iter().filter_map(|statuses| statuses.get(&status)).sum::<usize>();
    assert!(sum(200) > 500 && sum(400) > 500 && sum(422) > 50, "{answered:?}");
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
}

/// Values for paths and query parameters, mostly percent-encoded. None of them may cause a server error.
const UNUSUAL_VALUES: [&str; 22] = [
    "",
    "0",
    "-1",
    "1.5",
    "99999999999999999999999999",
    "-9223372036854775808",
    "9223372036854775807",
    "18446744073709551615",
    "1e400",
    "NaN",
    "null",
    "true",
    "%27%20OR%201%3D1%20--",
    "%27%3B%20DROP%20TABLE%20samples%3B%20--",
    "..%2F..%2F..%2Fetc%2Fpasswd",
    "../../etc/passwd",
    "x%0d%0aSet-Cookie:%20a=b",
    "%00",
    "%ff%fe",
    "%F0%9F%98%80",
    "2026-02-30T25:61:61Z",
    "%",
];

#[test]
fn every_parameter_of_every_route_with_wrong_values() {
    let mut target = Target::new();
    let client = target.client();
    // Code that no request has used yet is not in memory, and each worker has its own arenas of the allocator. So
    // only the growth in the last round counts.
    for _ in 0..4 {
        target.before_attack = resources(&target.daemon);
        let total = request_everything(&target);
        assert!(total > 1000, "{total} requests");
    }
    client.check_answered_within(ANSWER_TIME);
    target.check_and_stop();
}

/// Returns the number of requests.
fn request_everything(target: &Target) -> u32 {
    let document = target.daemon.get("/openapi.json");
    let mut total = 0;
    let mut check = |method: &str, path: &str, body: Option<&str>| {
        let answer = ask(target.address(), method, path, "*/*", body.map(str::to_string));
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path} {body:?}: {error}"));
        // 503: the sampler, the disk or another backup may be busy.
        assert!(matches!(answer.status, 200..=499 | 503), "{method} {path} {body:?}: {}", answer.text());
        assert_eq!(answer.header("set-cookie"), None, "{method} {path}");
        total += 1;
    };
    let long = "x".repeat(4000);
    let unusual: Vec<&str> = UNUSUAL_VALUES.into_iter().chain([long.as_str()]).collect();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let method = method.to_uppercase();
            // This request would end the sampling.
            if path == "/collector/stop" {
                continue;
            }
            let none = Vec::new();
            let parameters = operation["parameters"].as_array().unwrap_or(&none);
            for value in &unusual {
                let filled = path.replace("{name}", value);
                for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
                    let name = parameter["name"].as_str().expect("a name");
                    check(&method, &format!("{filled}?{name}={value}"), None);
                    check(&method, &format!("{filled}?{name}={value}&{name}={value}"), None);
                }
                if filled != *path || parameters.is_empty() {
                    check(&method, &format!("{filled}?{value}"), None);
                }
            }
            let Some(schema) = operation["requestBody"].as_object() else { continue };
            for body in bodies(&document, &Value::Object(schema.clone())) {
                check(&method, &path.replace("{name}", "lan1"), Some(&body));
            }
        }
    }
    total
}

/// Bodies with wrong values, for each member that the schema names.
fn bodies(document: &Value, request: &Value) -> Vec<String> {
    const VALUES: [&str; 14] = [
        "null",
        "true",
        "-1",
        "0",
        "1.5",
        "1e400",
        "99999999999999999999",
        "\"\"",
        "\"x\"",
        "\"\\u0000\\r\\n\"",
        "[]",
        "[null]",
        "[[\"x\"]]",
        "{\"x\":{}}",
    ];
    let mut bodies: Vec<String> = VALUES.iter().map(|value| value.to_string()).collect();
    bodies.extend(["", "{", "{}", "{\"", "\u{feff}{}", "{\"x\":1}{\"x\":1}"].map(str::to_string));
    bodies.push("[".repeat(16_000));
    bodies.push(format!("{{{}\"z\":1}}", "\"a\":1,".repeat(2000)));
    let mut schema = &request["content"]["application/json"]["schema"];
    if let Some(reference) = schema["$ref"].as_str() {
        schema = document.pointer(&reference[1..]).expect("it leads somewhere");
    }
    for name in schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name) {
        bodies.extend(VALUES.iter().map(|value| format!("{{\"{name}\":{value}}}")));
        bodies.push(format!("{{\"{name}\":1,\"{name}\":2}}"));
        bodies.push(format!("{{\"{name}\":[{}\"x\"]}}", "\"y\",".repeat(4000)));
    }
    bodies
}
