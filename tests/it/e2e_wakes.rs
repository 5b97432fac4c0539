//! Threads that sleep are woken by the changes that concern them. Otherwise the sampler wakes only for its ticks, the
//! writer and the main thread once a minute. Counted and measured from outside.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::*;
use net_pulse::clock::{Clock, SystemClock, Zone};
use net_pulse::config::Config;
use net_pulse::history::{DiskThread, History};
use net_pulse::http::{self, Context, HttpRequest};
use net_pulse::live::{Database, Live};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Much shorter than any sleep here, and much longer than a busy machine needs.
const SOON: Duration = Duration::from_secs(20);
const HOURLY: [&str; 6] = ["--interval", "3600", "--flush", "3600", "--primary", "lan0"];

/// How often a thread has gone to sleep.
fn sleeps(daemon: &Daemon, thread: u32) -> u64 {
    let path = format!("/proc/{}/task/{thread}/status", daemon.pid());
    let text = fs::read_to_string(&path).expect("the daemon runs");
    let count =
        text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("a line with this key");
    count.trim().parse().expect("a number")
}

/// Waits until a thread has slept for the given time without a break.
fn wait_for_long_sleep(daemon: &Daemon, thread: u32, milliseconds: u64) {
    wait_until("the thread sleeps", || {
        let before = sleeps(daemon, thread);
        sleep_ms(milliseconds);
        sleeps(daemon, thread) == before
    });
}

fn last_saved(daemon: &Daemon) -> Value {
    daemon.get("/api/system/health")["details"]["database"]["last_saved"].clone()
}

#[test]
fn a_tick_wakes_the_sampler_once_and_no_other_thread() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("lan0", "far0");
        send("lan0", 300, 3);
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "3600", "--primary", "lan0"]);
        daemon.wait_for_ticks(3);
        wait_until("the first save is done", || !last_saved(&daemon).is_null());
        let thread = |name: &str| daemon.thread(name).unwrap_or_else(|| panic!("a thread named {name}"));
        let (sampler, writer) = (thread("sampler"), thread("writer"));
        wait_for_long_sleep(&daemon, writer, 1_500);
        let others = || [writer, daemon.pid()].map(|thread| sleeps(&daemon, thread));
        let (before, ticks, slept) = (others(), daemon.polls(), sleeps(&daemon, sampler));
        // The test sends no requests meanwhile: a thread that waits for the lock would count as asleep.
        wait_until("the sampler sleeps", || sleeps(&daemon, sampler) >= slept + 8);
        let ticks = daemon.polls() - ticks;
        // A request for the live rates, as the page sends each second, concerns only the sampler.
        for _ in 0..3 {
            daemon.get("/api/traffic/live");
        }
        let [writer_sleeps, main_sleeps] = [0, 1].map(|at| others()[at] - before[at]);
        println!(
            "sleeps of the sampler 8 ({ticks} ticks), of the writer {writer_sleeps}, of the main thread {main_sleeps}"
        );
        assert!(ticks >= 6, "{ticks} ticks in 8 sleeps");
        // Both wake once a minute by themselves.
        assert!(writer_sleeps <= 1 && main_sleeps <= 1, "{writer_sleeps} and {main_sleeps} sleeps in {ticks} ticks");
        daemon.stop();
    });
}

#[test]
fn a_change_wakes_a_sleeping_thread() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("lan0", "far0");
        send("lan0", 300, 3);
        let daemon = Daemon::start(&dir, &[]);
        daemon.stop();

        let daemon = Daemon::start(&dir, &HOURLY[..2]);
        let begun = Instant::now();
        let polls = daemon.polls();
        let patch = |body: Value| {
            let answer = daemon.request("PATCH", "/api/config", Some(body.to_string()));
            assert_eq!((answer.status, answer.json()["saved"].as_bool()), (200, Some(true)), "{}", answer.text());
        };
        // The writer: when a change is answered, it is on disk.
        patch(json!({"flush": 3600}));
        // The sampler: a requested sample, an interface command, and one-second rates.
        daemon.collect();
        assert!(daemon.polls() > polls);
        let answer = daemon.request("PATCH", "/api/interfaces/lan0", Some(json!({"alias": "the wall"}).to_string()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        // The kernel sends notifications of new links and addresses for a while, and the first observation of the
        // traffic ends after 10 s.
        wait_for_long_sleep(&daemon, daemon.thread("sampler").expect("a thread named sampler"), 10_500);
        let next = || daemon.get("/api/traffic/live")["next"].as_u64().expect("a number");
        let first = next();
        wait_until("the ring of rates gets new entries", || next() > first + 1);
        // The writer, woken by a signal.
        let saved = last_saved(&daemon);
        sleep_ms(1_100);
        kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGHUP).expect("the daemon runs");
        wait_until("everything is saved", || last_saved(&daemon) != saved);
        // Shutdown wakes all of them.
        let signalled = Instant::now();
        daemon.stop();
        assert!(
            signalled.elapsed() < SOON && begun.elapsed() < 3 * SOON,
            "{:?} of {:?}",
            signalled.elapsed(),
            begun.elapsed()
        );
    });
}

/// If the database opens at once, neither the log nor the events mention the rejoin.
#[test]
fn a_start_with_an_open_database_reports_no_rejoin() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("lan0", "far0");
        send("lan0", 300, 3);
        let mut id = Value::Null;
        for run in 0..3 {
            let daemon = Daemon::start(&dir, &HOURLY);
            let first = daemon.interface("lan0");
            assert!(run == 0 || first["id"] == id, "{first}");
            id = first["id"].clone();
            // Each frame is counted once, in this run or in the next one.
            send("lan0", 300, 2);
            daemon.collect();
            let events = daemon.get("/api/events?limit=1000");
            let events = events.as_array().expect("a list");
            let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
            assert_eq!((count("start"), count("storage")), (run + 1, 0), "{events:#?}");
            // Only the first run may report the link as new.
            assert!(count("appeared") <= 1 && count("gap") + count("reset") == 0, "{events:#?}");
            // `/api/events` shows two starts in the same second as one.
            sleep_ms(1_100);
            let log = daemon.stop();
            let found: Vec<bool> = ["is the page of net-pulse", "history in "]
                .iter()
                .zip(&log)
                .map(|(words, line)| line.contains(words))
                .collect();
            assert_eq!(found, [true, true], "{log:#?}");
            assert!(!log.iter().any(|line| line.contains("history is open now")), "{log:#?}");
        }
        let daemon = Daemon::start(&dir, &HOURLY);
        daemon.collect();
        let lifetime = daemon.interface("lan0")["lifetime_tx_bytes"].as_u64();
        assert_eq!(lifetime, Some(6 * 300), "traffic before the first start is not counted");
        daemon.stop();
    });
}

/// No request makes the writer panic, so the test runs a writer that panics.
#[test]
fn the_api_reports_a_writer_that_has_ended() {
    let live = Arc::new(Live::new(Config::default(), Zone::UTC));
    live.lock().health.database = Database::Rejoined;
    let dir = Dir::new();
    let context = Context {
        live: live.clone(),
        history: History::new(live.clone(), None),
        backup_thread: DiskThread::named("copy"),
        clock: Arc::new(SystemClock),
        database: dir.path().join("history.db"),
        machine: Arc::new(net_pulse::model::Machine::default),
        find_zone: Arc::new(|_| Ok(Zone::UTC)),
        listen_addresses: Vec::new(),
        auth: http::Auth::new(dir.path().to_path_buf(), None, false, false),
        server_state: http::ServerState::default(),
    };
    let get = |target: &str| {
        let answer = http::answer(&context, &HttpRequest { method: "GET", target, ..HttpRequest::default() });
        let status = answer.status;
        (status, String::from_utf8(answer.body.into_bytes(&context).expect("memory does not fail")).expect("text"))
    };
    assert!(!get("/health").1.contains("has ended"));
    let ended = std::thread::spawn({
        let live = live.clone();
        move || net_pulse::writer::run_reporting_panic(&live, &SystemClock, || panic!("on purpose"))
    });
    assert!(ended.join().is_err(), "the thread that joins the writer sees the panic");
    for target in ["/health", "/api/system/health"] {
        let (status, text) = get(target);
        let expect = if target == "/health" { 503 } else { 200 };
        assert_eq!(status, expect, "{target}: {text}");
        assert!(text.contains("unhealthy") && text.contains("the writer thread has ended"), "{target}: {text}");
    }
    let (_, events) = get("/api/events");
    assert!(events.contains("nothing is saved any more"), "{events}");
    // No request waits for a save that never comes.
    let begun = Instant::now();
    assert!(live.lock().check_saving(Clock::now(&SystemClock).mono_ms).is_some());
    assert!(!live.save(Duration::from_secs(60)));
    assert!(begun.elapsed() < SOON);
}
