//! A disk that answers nothing, neither well nor badly: saving hangs, reading hangs, and the file that the log goes to. It
//! is told of, and whatever does not need the disk goes on as if nothing were.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::disk::*;
use crate::common::*;
use crate::past;
use nix::sys::signal::Signal;
use serde_json::Value;

const FOR_EVER: &str = "delay_enter=60000000";
const WRITES: &str = "pwrite64,fdatasync,fsync,ftruncate";
/// What memory alone can answer is there within this, on a busy machine too.
const SOON: Duration = Duration::from_secs(1);
/// After a signal to end.
const LONGEST: Duration = Duration::from_secs(3);

/// It has saved something, and does so every two seconds.
fn begun(dir: &Dir) -> Daemon {
    cable("wan0", "lan0");
    let daemon = Daemon::start(dir, &["--interval", "1", "--flush", "2"]);
    // It has looked at the counters once.
    daemon.get("/health");
    send("wan0", 1000, 1);
    daemon.collect();
    wait_until("it saves", || stored(&daemon) > 0);
    daemon
}

fn soon(daemon: &Daemon, path: &str) -> Answer {
    let asked = Instant::now();
    let answer = daemon.request("GET", path, None);
    assert!(asked.elapsed() < SOON, "{path}: {:?}", asked.elapsed());
    answer
}

/// Everything that has no business with the disk.
fn goes_on(daemon: &Daemon) {
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
        assert_eq!(soon(daemon, path).status, 200, "{path}");
    }
    let before = daemon.polls();
    daemon.collect();
    assert!(daemon.polls() > before);
    for path in ["/collector/stop", "/collector/start"] {
        let asked = Instant::now();
        assert_eq!(daemon.request("POST", path, None).status, 200, "{path}");
        assert!(asked.elapsed() < SOON, "{path}: {:?}", asked.elapsed());
    }
}

fn health(daemon: &Daemon) -> (String, String) {
    let health: Value = soon(daemon, "/health").json();
    let word = |key: &str| health[key].as_str().unwrap_or_default().to_string();
    (word("status"), word("reason"))
}

fn told(daemon: &Daemon, part: &str) -> bool {
    let events = daemon.get("/api/events?kind=storage");
    let mut details = events.as_array().expect("a list").iter().map(|event| event["detail"].to_string());
    details.any(|detail| detail.contains(part))
}

/// A thread that is traced is not gone before its tracer has taken note of it, which sits out its delay.
fn ended_in_time(daemon: Daemon, fault: Fault) -> (Option<i32>, Vec<String>) {
    signal(daemon.pid(), Signal::SIGTERM);
    let tasks = format!("/proc/{}/task", daemon.pid());
    wait_until_within("all threads end, but for the traced one", LONGEST, || {
        let mut tasks = fs::read_dir(&tasks).expect("it is a child of ours").flatten();
        tasks.all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("gone");
            ["zombie", "dead", "tracing stop", "gone"].iter().any(|over| state.contains(over))
        })
    });
    drop(fault);
    daemon.ended_within(PATIENCE)
}

#[test]
fn a_save_that_hangs_is_told_and_holds_up_nothing() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = begun(&dir);
        let fault = Fault::of_writer(&daemon, WRITES, FOR_EVER);
        send("wan0", 1000, 5);
        daemon.collect();
        wait_until_within("it is told", Duration::from_secs(40), || {
            goes_on(&daemon);
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
        wait_until_within("the log and the events have it", Duration::from_secs(20), || {
            let log = daemon.log().iter().any(|line| line.contains("a power cut now would lose"));
            log && told(&daemon, "nothing could be saved for")
        });
        drop(fault);
        wait_until("saving works again", || health(&daemon).0 == "healthy");
        assert!(daemon.log().iter().any(|line| line.contains("saving works again; nothing was lost")));
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        daemon.stop();
    });
}

#[test]
fn the_end_waits_for_no_save_that_hangs() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = begun(&dir);
        let fault = Fault::of_writer(&daemon, WRITES, FOR_EVER);
        send("wan0", 1000, 5);
        daemon.collect();
        daemon.ticks(3);
        let (code, log) = ended_in_time(daemon, fault);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(log.iter().any(|line| line.contains("stay unsaved (the disk takes too long)")), "{log:#?}");
        let daemon = Daemon::start(&dir, &["--interval", "1"]);
        assert_eq!(daemon.booked("wan0"), kernel("wan0"), "the next start books what was lost of memory");
        daemon.stop();
    });
}

/// The time zone is read again by the thread that ends the program, from files that may hang.
#[test]
fn the_end_waits_for_no_file_of_the_system() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "3600"]);
        daemon.get("/health");
        let fault = Fault::of_main(&daemon, "openat,open,statx,stat,newfstatat,readlink", FOR_EVER);
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("it hangs", || in_ptrace_stop(&daemon, daemon.pid()));
        send("wan0", 1000, 5);
        daemon.collect();
        let (code, log) = ended_in_time(daemon, fault);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("unsaved")), "it is saved first: {log:#?}");
        let daemon = Daemon::start(&dir, &["--interval", "3600"]);
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        daemon.stop();
    });
}

/// Before anything is counted too.
#[test]
fn the_end_of_a_start_waits_for_nothing() {
    let dir = Dir::new();
    let zone = dir.join("zone");
    fs::write(&zone, "CET-1CEST,M3.5.0,M10.5.0/3").expect("it is ours");
    let mut command = net_pulse("strace");
    command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=openat,open", "-P", &zone]);
    command.args(["-e", &format!("inject=openat,open:{FOR_EVER}"), env!("CARGO_BIN_EXE_net-pulse")]);
    command.args(["--timezone", &format!(":{zone}"), "--port", "0", "--database", &dir.join("net-pulse.db")]);
    let mut strace = command.spawn().expect("strace starts");
    // Its first children are trials of its own.
    let mut daemon = 0;
    wait_until("the program runs", || {
        daemon = child_of(strace.id());
        fs::read_to_string(format!("/proc/{daemon}/comm")).is_ok_and(|comm| comm.trim() == "net-pulse")
    });
    let state = || fs::read_to_string(format!("/proc/{daemon}/status")).unwrap_or_default();
    wait_until("it hangs", || {
        state().contains("tracing stop") && fs::read_dir(format!("/proc/{daemon}/task")).expect("it runs").count() > 1
    });
    signal(daemon, Signal::SIGTERM);
    wait_until_within("no thread but the traced one is left", LONGEST, || {
        fs::read_dir(format!("/proc/{daemon}/task")).map_or(0, Iterator::count) <= 1
    });
    strace.kill().expect("it runs");
    strace.wait().expect("a child of ours");
}

/// Charts that take too long one by one do not keep those after them from being tried.
#[test]
fn a_slow_disk_is_told_of_and_recovers() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = begun(&dir);
        assert_eq!(daemon.interface("wan0")["today_tx_bytes"], 1000);
        let fault = Fault::of_reader(&daemon, "pread64,fstat,fcntl", "delay_enter=600000");
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    while began.elapsed() < Duration::from_secs(15) {
                        let _ = ask_quietly(&daemon, "GET", "/api/traffic/series");
                    }
                });
            }
            wait_until("it is told", || health(&daemon).1.contains("the history cannot be read: the disk"));
            while began.elapsed() < Duration::from_secs(15) {
                goes_on(&daemon);
                // What is saved meanwhile is not forgotten of the day.
                let wan0 = daemon.interface("wan0");
                assert_eq!(wan0["today_tx_bytes"], wan0["lifetime_tx_bytes"]);
                send("wan0", 1000, 1);
                rest(500);
            }
        });
        drop(fault);
        wait_until("one chart is enough", || daemon.request("GET", "/api/traffic/series", None).status == 200);
        wait_until("all is well", || health(&daemon).0 == "healthy");
        daemon.stop();
    });
}

/// All that ask the history wait at the same time, more of them than there are threads that answer.
#[test]
fn a_read_that_hangs_holds_up_who_asked_for_it() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = begun(&dir);
        let fault = Fault::of_reader(&daemon, "pread64,fstat,fcntl", FOR_EVER);
        let began = Instant::now();
        thread::scope(|scope| {
            let daemon = &daemon;
            let asked: Vec<_> = ["series", "totals", "history", "latest", "series", "totals"]
                .map(|what| scope.spawn(move || daemon.request("GET", &format!("/api/traffic/{what}"), None)))
                .into_iter()
                .collect();
            wait_until("it hangs", || daemon.thread("reader").is_some_and(|reader| in_ptrace_stop(daemon, reader)));
            while began.elapsed() < Duration::from_secs(14) {
                goes_on(daemon);
                rest(200);
            }
            for answer in asked {
                let answer = answer.join().expect("an answer");
                assert_eq!(answer.status, 503, "{}", answer.text());
                assert!(answer.text().contains("the disk has not answered for"), "{}", answer.text());
            }
        });
        let (status, reason) = health(&daemon);
        assert_eq!(status, "degraded");
        assert!(reason.contains("the history cannot be read: the disk has not answered for "), "{reason}");
        assert_eq!(soon(&daemon, "/api/traffic/series").status, 503, "no one waits for it a second time");
        // What passed today goes on, though what is on disk of it cannot be read.
        let today = || daemon.interface("wan0")["today_tx_bytes"].as_u64().expect("a number");
        let before = today();
        send("wan0", 1000, 5);
        daemon.collect();
        assert_eq!(today(), before + 5000);
        let (code, log) = ended_in_time(daemon, fault);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("unsaved")), "the last save needs no reader: {log:#?}");
        let daemon = Daemon::start(&dir, &["--interval", "1"]);
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        daemon.stop();
    });
}

fn in_ptrace_stop(daemon: &Daemon, thread: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/task/{thread}/status", daemon.pid())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && line.contains("tracing stop"))
}

/// Where reading needs the token too, its file is looked at for each request.
#[test]
fn a_token_that_cannot_be_read_is_known_still() {
    let dir = Dir::new();
    let daemon = Daemon::start(&dir, &["--private"]);
    let token = fs::read_to_string(dir.join("net-pulse.db.token")).expect("it is made at the start");
    let bearer = format!("Bearer {}", token.trim());
    // From this machine no token is needed, unless something says that a proxy passed it on.
    let by = |token: &str| {
        let headers = [("Via", "1.1 test"), ("Authorization", token)];
        let asked = Instant::now();
        let answer = ask_with(([127, 0, 0, 1], daemon.port()).into(), "GET", "/api/interfaces", &headers, None);
        (answer.expect("an answer").status, asked.elapsed())
    };
    assert_eq!(by(&bearer).0, 200);
    let fault = Fault::of_reader(&daemon, "statx,stat,lstat,newfstatat,openat,open,read", FOR_EVER);
    for _ in 0..6 {
        let (status, took) = by(&bearer);
        assert_eq!(status, 200);
        assert!(took < SOON, "{took:?}");
        let (status, took) = by("Bearer wrong-wrong-wrong-wrong-wrong");
        assert!([401, 429].contains(&status) && took < SOON, "{status}, {took:?}");
    }
    drop(fault);
    daemon.stop();
}

/// What each interface of a chart takes is bounded, and not what the client takes to read them all.
#[test]
fn a_client_that_reads_slowly_has_all_of_its_chart() {
    use std::io::{Read, Write};
    let dir = Dir::new();
    past::fill(&dir.join("net-pulse.db"), past::Past::Weeks);
    let daemon = Daemon::start(&dir, &["--interval", "3600"]);
    let known = daemon.get("/api/interfaces");
    let mut names: Vec<&String> = known.as_object().expect("an object").keys().collect();
    names.truncate(32);
    let query: String = names.iter().map(|name| format!("&interface={name}")).collect();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", daemon.port())).expect("it listens");
    let from = crate::common::past::unix() - 80 * 86_400;
    let head = format!("GET /api/traffic/series?points=720&from={from}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // So that the kernel does not hold all of it.
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::RcvBuf, &8192).expect("a socket");
    stream.write_all(head.as_bytes()).expect("it listens");
    rest(9_500);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("all of it");
    let answer = parse_answer(&bytes, false).unwrap_or_else(|| panic!("{} bytes that break off", bytes.len()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let columns = answer.json()["interfaces"].as_object().expect("an object").len();
    assert!(columns == names.len() && bytes.len() > 256 << 10, "{columns} of {}, {} bytes", names.len(), bytes.len());
    daemon.stop();
}
