//! Measures the daemon from outside: system calls per tick, and memory. The README gives figures for both.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// For comparison: vnStat makes 252 with 24 interfaces.
const MAX_CALLS_PER_TICK: usize = 4;
const MAX_RESIDENT_BYTES: u64 = 6 << 20;
const INTERFACES: usize = 24;

/// Creates `count` links with some traffic each; a link without traffic is not monitored.
fn create_links(count: usize) {
    for pair in 0..count / 2 {
        cable(&format!("lan{pair}"), &format!("far{pair}"));
    }
    traffic(count);
}

fn traffic(count: usize) {
    for pair in 0..count / 2 {
        send(&format!("lan{pair}"), 200, 3);
        send(&format!("far{pair}"), 300, 2);
    }
}

fn monitored(daemon: &Daemon) -> usize {
    let all = daemon.get("/api/interfaces");
    all.as_object().expect("an object").values().filter(|row| row["monitored"] == true).count()
}

#[test]
fn e15_a_tick_is_a_constant_number_of_system_calls() {
    if !Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skip("strace is not installed: system calls per tick are not counted");
    }
    let counted = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for count in [2, INTERFACES] {
            let counted = &counted;
            scope.spawn(move || {
                in_namespace(|| {
                    let calls = calls_per_tick(count);
                    counted.lock().expect("no panic").push(calls);
                });
            });
        }
    });
    let counted = counted.into_inner().expect("no panic");
    println!("system calls per tick at 2 and {INTERFACES} interfaces: {counted:?}");
    assert!(counted.windows(2).all(|pair| pair[0] == pair[1]), "calls per tick at 2 and at 24 interfaces: {counted:?}");
}

fn calls_per_tick(interfaces: usize) -> usize {
    let dir = Dir::new();
    create_links(interfaces);
    // Only one save during the measurement, and no search for the primary interface.
    let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "3600", "--primary", "lan0"]);
    daemon.wait_for_ticks(3);
    assert_eq!(monitored(&daemon), interfaces);
    let sampler = daemon.thread("sampler").expect("a thread named sampler");
    let file = dir.join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-q", "-s", "0", "-o", &file, "-p", &sampler.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut strace = strace.spawn().expect("strace starts");
    // Each tick ends exactly one wait, even on a busy machine, so the number of waits is the number of ticks.
    let waits = |text: &str| text.lines().filter(|line| is_wait(line)).count();
    wait_until("strace has seen six ticks", || waits(&fs::read_to_string(&file).unwrap_or_default()) >= 8);
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT).expect("strace runs");
    strace.wait().expect("a child of ours");

    let text = fs::read_to_string(&file).expect("strace wrote");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains('(')).collect();
    // Leave out the waits that the start and the end of strace interrupted.
    let turns: Vec<&[&str]> = lines.split_inclusive(|line| is_wait(line)).collect();
    let turns = &turns[2..turns.len() - 1];
    let most = turns.iter().map(|turn| turn.len()).max().unwrap_or(0);
    assert!(turns.len() >= 4, "too few ticks: {text}");
    assert!(turns.iter().all(|turn| turn.len() == most), "the number differs between ticks: {text}");
    assert!(most <= MAX_CALLS_PER_TICK, "{most} system calls a tick with {interfaces} interfaces: {text}");
    daemon.stop();
    most
}

/// Whether a line of strace is a call that waits.
fn is_wait(line: &str) -> bool {
    ["poll(", "ppoll(", "epoll_wait(", "epoll_pwait(", "select(", "pselect6(", "nanosleep(", "clock_nanosleep("]
        .iter()
        .any(|call| line.trim_start().starts_with(call))
}

#[test]
fn memory_stays_small_while_serving() {
    let Some(binary) = release_binary() else {
        return skip("no target/release/net-pulse newer than the source: memory is not measured");
    };
    in_namespace(|| {
        let dir = Dir::new();
        create_links(INTERFACES);
        let daemon =
            Daemon::start_binary(binary.to_str().expect("a plain path"), &dir, &["--interval", "1", "--flush", "2"]);
        for turn in 0..10 {
            daemon.wait_for_ticks(1);
            traffic(INTERFACES);
            let page = daemon.page("/");
            assert_eq!(page.status, 200);
            assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
            for path in [
                "/api/interfaces",
                "/api/traffic/summary",
                "/api/traffic/history?limit=1000",
                "/api/traffic/series",
                "/api/traffic/totals?by=day",
                "/api/traffic/live",
                "/api/system/health",
                "/api/export/traffic?format=json",
            ] {
                daemon.get(path);
            }
            let resident = daemon.resident();
            assert!(resident <= MAX_RESIDENT_BYTES, "{resident} bytes resident after {} ticks", turn + 1);
        }
        assert_eq!(monitored(&daemon), INTERFACES);
        println!("resident with {INTERFACES} interfaces: {} bytes", daemon.resident());
        daemon.stop();
    });
}
