//! A disk that does not answer at all: saves hang, or reads of the history, or reads of other files. The daemon reports
//! it, and everything that does not need the disk continues.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::disk::*;
use crate::common::*;
use crate::stored_history;
use nix::sys::signal::Signal;
use serde_json::Value;

const ONE_MINUTE: &str = "delay_enter=60000000";
const WRITES: &str = "pwrite64,fdatasync,fsync,ftruncate";
/// Longest time for an answer that needs only memory, on a busy machine too.
const MEMORY_ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Longest time from the signal to the exit.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

/// Starts a daemon that saves every two seconds, and waits until it has saved something.
fn start_saving(dir: &Dir) -> Daemon {
    cable("wan0", "lan0");
    let daemon = Daemon::start(dir, &["--interval", "1", "--flush", "2"]);
    // The daemon answers after its first reading.
    daemon.get("/health");
    send("wan0", 1000, 1);
    daemon.collect();
    wait_until("the daemon saves", || stored_samples(&daemon) > 0);
    daemon
}

fn get_quickly(daemon: &Daemon, path: &str) -> Answer {
    let asked = Instant::now();
    let answer = daemon.request("GET", path, None);
    assert!(asked.elapsed() < MEMORY_ANSWER_LIMIT, "{path}: {:?}", asked.elapsed());
    answer
}

/// Checks everything that does not need the disk.
fn assert_responsive(daemon: &Daemon) {
    const PATHS: [&str; 9] = [
        "/health",
        "/collector/status",
        "/api/interfaces",
        "/api/interfaces/wan0",
        "/api/interfaces/wan0/stats",
        "/api/traffic/live",
        "/api/traffic/summary",
        "/api/system/health",
        "/app.js",
    ];
    for path in PATHS {
        assert_eq!(get_quickly(daemon, path).status, 200, "{path}");
    }
    let before = daemon.polls();
    daemon.collect();
    assert!(daemon.polls() > before);
    for path in ["/collector/stop", "/collector/start"] {
        let asked = Instant::now();
        assert_eq!(daemon.request("POST", path, None).status, 200, "{path}");
        assert!(asked.elapsed() < MEMORY_ANSWER_LIMIT, "{path}: {:?}", asked.elapsed());
    }
}

fn health(daemon: &Daemon) -> (String, String) {
    let health: Value = get_quickly(daemon, "/health").json();
    let word = |key: &str| health[key].as_str().unwrap_or_default().to_string();
    (word("status"), word("reason"))
}

fn has_storage_event(daemon: &Daemon, part: &str) -> bool {
    let events = daemon.get("/api/events?kind=storage");
    let mut details = events.as_array().expect("a list").iter().map(|event| event["detail"].to_string());
    details.any(|detail| detail.contains(part))
}

/// Sends SIGTERM and checks that all threads end in time. A traced thread is the exception: it ends only when strace
/// has seen it, and strace waits for the injected delay first.
fn end_in_time(daemon: Daemon, fault: InjectedFault) -> (Option<i32>, Vec<String>) {
    signal(daemon.pid(), Signal::SIGTERM);
    let tasks = format!("/proc/{}/task", daemon.pid());
    wait_until_within("all threads end, but for the traced one", SHUTDOWN_LIMIT, || {
        let mut tasks = fs::read_dir(&tasks).expect("a child of the test").flatten();
        tasks.all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("gone");
            ["zombie", "dead", "tracing stop", "gone"].iter().any(|over| state.contains(over))
        })
    });
    drop(fault);
    daemon.ended_within(TIMEOUT)
}

#[test]
fn a_save_that_hangs_is_reported_and_delays_nothing() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = start_saving(&dir);
        let fault = InjectedFault::of_writer(&daemon, WRITES, ONE_MINUTE);
        send("wan0", 1000, 5);
        daemon.collect();
        wait_until_within("health reports the hang", Duration::from_secs(40), || {
            assert_responsive(&daemon);
            health(&daemon).0 == "degraded"
        });
        let (_, reason) = health(&daemon);
        for part in ["nothing could be saved for ", "the disk does not answer", "a power cut now would lose the last "]
        {
            assert!(reason.contains(part), "{reason}");
        }
        let details = daemon.get("/api/system/health");
        assert_eq!(details["database_status"], "degraded");
        assert!(details["details"]["database"]["unsaved_seconds"].as_u64() >= Some(8), "{details}");
        wait_until_within("the log and the events report the hang", Duration::from_secs(20), || {
            let log = daemon.log().iter().any(|line| line.contains("a power cut now would lose"));
            log && has_storage_event(&daemon, "nothing could be saved for")
        });
        drop(fault);
        wait_until("saving works again", || health(&daemon).0 == "healthy");
        assert!(daemon.log().iter().any(|line| line.contains("saving works again; nothing was lost")));
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        daemon.stop();
    });
}

#[test]
fn shutdown_does_not_wait_for_a_save_that_hangs() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = start_saving(&dir);
        let fault = InjectedFault::of_writer(&daemon, WRITES, ONE_MINUTE);
        send("wan0", 1000, 5);
        daemon.collect();
        daemon.wait_for_ticks(3);
        let (code, log) = end_in_time(daemon, fault);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(log.iter().any(|line| line.contains("stay unsaved (the disk takes too long)")), "{log:#?}");
        let daemon = Daemon::start(&dir, &["--interval", "1"]);
        assert_eq!(
            daemon.exported_sum("wan0"),
            kernel_counters("wan0"),
            "the next start counts the traffic that was not saved"
        );
        daemon.stop();
    });
}

/// The main thread ends the program, and it also reads the time zone again from files that may hang.
#[test]
fn shutdown_does_not_wait_for_a_system_file() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "3600"]);
        daemon.get("/health");
        let fault = InjectedFault::of_main(&daemon, "openat,open,statx,stat,newfstatat,readlink", ONE_MINUTE);
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the main thread hangs", || in_ptrace_stop(&daemon, daemon.pid()));
        send("wan0", 1000, 5);
        daemon.collect();
        let (code, log) = end_in_time(daemon, fault);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("unsaved")), "everything is saved first: {log:#?}");
        let daemon = Daemon::start(&dir, &["--interval", "3600"]);
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        daemon.stop();
    });
}

/// Shutdown also works while the start still hangs in a read of the time zone.
#[test]
fn shutdown_during_the_start_does_not_wait() {
    let dir = Dir::new();
    let zone = dir.join("zone");
    fs::write(&zone, "CET-1CEST,M3.5.0,M10.5.0/3").expect("a file of the test");
    let mut command = net_pulse("strace");
    command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=openat,open", "-P", &zone]);
    command.args(["-e", &format!("inject=openat,open:{ONE_MINUTE}"), env!("CARGO_BIN_EXE_net-pulse")]);
    command.args(["--timezone", &format!(":{zone}"), "--port", "0", "--database", &dir.join("net-pulse.db")]);
    let mut strace = command.spawn().expect("strace starts");
    // strace first starts test children of its own.
    let mut daemon = 0;
    wait_until("the program runs", || {
        daemon = child_of(strace.id());
        fs::read_to_string(format!("/proc/{daemon}/comm")).is_ok_and(|comm| comm.trim() == "net-pulse")
    });
    let state = || fs::read_to_string(format!("/proc/{daemon}/status")).unwrap_or_default();
    wait_until("the start hangs", || {
        state().contains("tracing stop")
            && fs::read_dir(format!("/proc/{daemon}/task")).expect("the daemon runs").count() > 1
    });
    signal(daemon, Signal::SIGTERM);
    wait_until_within("no thread but the traced one is left", SHUTDOWN_LIMIT, || {
        fs::read_dir(format!("/proc/{daemon}/task")).map_or(0, Iterator::count) <= 1
    });
    strace.kill().expect("strace runs");
    strace.wait().expect("a child of the test");
}

/// Even after many charts took too long, the daemon must try to answer the next one.
#[test]
fn a_slow_disk_is_reported_and_recovers() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = start_saving(&dir);
        assert_eq!(daemon.interface("wan0")["today_tx_bytes"], 1000);
        let fault = InjectedFault::of_reader(&daemon, "pread64,fstat,fcntl", "delay_enter=600000");
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    while began.elapsed() < Duration::from_secs(15) {
                        let _ = try_request(&daemon, "GET", "/api/traffic/series");
                    }
                });
            }
            wait_until("health reports the slow disk", || {
                health(&daemon).1.contains("the history cannot be read: the disk")
            });
            while began.elapsed() < Duration::from_secs(15) {
                assert_responsive(&daemon);
                // Today's figure still contains what was saved meanwhile.
                let wan0 = daemon.interface("wan0");
                assert_eq!(wan0["today_tx_bytes"], wan0["lifetime_tx_bytes"]);
                send("wan0", 1000, 1);
                sleep_ms(500);
            }
        });
        drop(fault);
        wait_until("a single chart works again", || daemon.request("GET", "/api/traffic/series", None).status == 200);
        wait_until("health is healthy again", || health(&daemon).0 == "healthy");
        daemon.stop();
    });
}

/// Six requests that need the history wait at the same time: more than there are workers.
#[test]
fn a_read_that_hangs_delays_only_requests_for_history() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = start_saving(&dir);
        let fault = InjectedFault::of_reader(&daemon, "pread64,fstat,fcntl", ONE_MINUTE);
        thread::scope(|scope| {
            let daemon = &daemon;
            let start =
                |what: &'static str| scope.spawn(move || daemon.request("GET", &format!("/api/traffic/{what}"), None));
            let hangs = || daemon.thread("reader").is_some_and(|reader| in_ptrace_stop(daemon, reader));
            // strace attaches to a thread shortly before it delays its calls: a request in between gets its answer.
            wait_until("the reader hangs", || {
                hangs() || {
                    start("series");
                    sleep_ms(50);
                    hangs()
                }
            });
            let began = Instant::now();
            let requests = ["series", "totals", "history", "latest", "series", "totals"].map(start);
            while began.elapsed() < Duration::from_secs(14) {
                assert_responsive(daemon);
                sleep_ms(200);
            }
            for answer in requests {
                let answer = answer.join().expect("an answer");
                assert_eq!(answer.status, 503, "{}", answer.text());
                assert!(answer.text().contains("the disk has not answered for"), "{}", answer.text());
            }
        });
        let (status, reason) = health(&daemon);
        assert_eq!(status, "degraded");
        assert!(reason.contains("the history cannot be read: the disk has not answered for "), "{reason}");
        assert_eq!(get_quickly(&daemon, "/api/traffic/series").status, 503, "later requests do not wait");
        // Today's figure still grows, though the part on disk cannot be read.
        let today = || daemon.interface("wan0")["today_tx_bytes"].as_u64().expect("a number");
        let before = today();
        send("wan0", 1000, 5);
        daemon.collect();
        assert_eq!(today(), before + 5000);
        let (code, log) = end_in_time(daemon, fault);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("unsaved")), "the last save needs no reader: {log:#?}");
        let daemon = Daemon::start(&dir, &["--interval", "1"]);
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        daemon.stop();
    });
}

fn in_ptrace_stop(daemon: &Daemon, thread: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/task/{thread}/status", daemon.pid())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && line.contains("tracing stop"))
}

/// With --private the daemon checks the token file for each request that reads.
#[test]
fn a_token_is_still_known_when_its_file_hangs() {
    let dir = Dir::new();
    let daemon = Daemon::start(&dir, &["--private"]);
    let token = fs::read_to_string(dir.join("net-pulse.db.token")).expect("the daemon made it at the start");
    let bearer = format!("Bearer {}", token.trim());
    // Requests from this machine need no token, unless a header shows that a proxy forwarded them.
    let request_with = |token: &str| {
        let headers = [("Via", "1.1 test"), ("Authorization", token)];
        let asked = Instant::now();
        let answer = ask_with(([127, 0, 0, 1], daemon.port()).into(), "GET", "/api/interfaces", &headers, None);
        (answer.expect("an answer").status, asked.elapsed())
    };
    assert_eq!(request_with(&bearer).0, 200);
    let fault = InjectedFault::of_reader(&daemon, "statx,stat,lstat,newfstatat,openat,open,read", ONE_MINUTE);
    for _ in 0..6 {
        let (status, took) = request_with(&bearer);
        assert_eq!(status, 200);
        assert!(took < MEMORY_ANSWER_LIMIT, "{took:?}");
        let (status, took) = request_with("Bearer wrong-wrong-wrong-wrong-wrong");
        assert!([401, 429].contains(&status) && took < MEMORY_ANSWER_LIMIT, "{status}, {took:?}");
    }
    drop(fault);
    daemon.stop();
}

/// The time limit applies to each read of an interface by the daemon, and not to the time in which the client reads the
/// chart.
#[test]
fn a_slow_client_receives_its_whole_chart() {
    use std::io::{Read, Write};
    let dir = Dir::new();
    stored_history::write_history(&dir.join("net-pulse.db"), stored_history::HistoryLength::Weeks);
    let daemon = Daemon::start(&dir, &["--interval", "3600"]);
    let known = daemon.get("/api/interfaces");
    let mut names: Vec<&String> = known.as_object().expect("an object").keys().collect();
    names.truncate(32);
    let query: String = names.iter().map(|name| format!("&interface={name}")).collect();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
    let from = crate::common::stored_history::unix_now() - 80 * 86_400;
    let head = format!("GET /api/traffic/series?points=720&from={from}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // With a larger buffer the kernel would hold the whole answer.
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::RcvBuf, &8192).expect("a socket");
    stream.write_all(head.as_bytes()).expect("the daemon listens");
    sleep_ms(9_500);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the whole answer");
    let answer = parse_answer(&bytes, false).unwrap_or_else(|| panic!("{} bytes of an incomplete answer", bytes.len()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let columns = answer.json()["interfaces"].as_object().expect("an object").len();
    assert!(columns == names.len() && bytes.len() > 256 << 10, "{columns} of {}, {} bytes", names.len(), bytes.len());
    daemon.stop();
}
