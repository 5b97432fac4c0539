//! The daemon is killed at two hundred random moments, during traffic and saves. Each time the file is intact, saved
//! samples stay saved, and no total falls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::disk::*;
use crate::common::*;
use nix::sys::signal::Signal;

const LANES: u64 = 4;
const RUNS_PER_LANE: u64 = 50;

#[test]
fn e40_killed_two_hundred_times() {
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    println!("seed {seed}");
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || in_namespace(|| run_lane(seed ^ lane << 60)));
        }
    });
}

fn run_lane(seed: u64) {
    let mut noise = seed | 1;
    let mut random = |limit: u64| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        (noise >> 11) % limit
    };
    let dir = Dir::new();
    let file = dir.join("net-pulse.db");
    cable("wan0", "lan0");
    let flags = ["--interval", "1", "--flush", "2"];
    let daemon = Daemon::start(&dir, &flags);
    daemon.get("/health");
    send("wan0", 100, 1);
    daemon.collect();
    wait_until("the first samples are on disk", || stored_samples(&daemon) >= 2);
    daemon.kill();

    let (mut samples, mut lifetime) = (2, 0);
    // Number of runs that reported a save of their own, and of runs that left one on disk.
    let (mut reported_saves, mut saves_found) = (0, 0);
    for run in 0..RUNS_PER_LANE {
        let daemon = Daemon::start(&dir, &flags);
        let started = daemon.interface("wan0")["lifetime_tx_bytes"].as_u64().expect("a number");
        assert!(started >= lifetime, "run {run}: {started} bytes at the start, {lifetime} before, seed {seed}");
        let now = stored_samples(&daemon);
        assert!(now >= samples, "run {run}: {now} samples on disk, {samples} were there, seed {seed}");
        (samples, lifetime) = (now, started);
        // Every fourth run is long enough for a timed save. The other runs request one save after the other, so that
        // most of them are killed during a save.
        let timed = run % 4 == 0;
        let kill_after = Duration::from_millis(if timed { 2_000 + random(600) } else { random(700) });
        let over = Arc::new(AtomicBool::new(false));
        let pid = daemon.pid();
        let before = samples;
        std::thread::scope(|scope| {
            let done = over.clone();
            scope.spawn(move || {
                std::thread::sleep(kill_after);
                signal(pid, Signal::SIGKILL);
                done.store(true, Ordering::Relaxed);
            });
            let wire = RawSocket::of("wan0");
            while !over.load(Ordering::Relaxed) {
                wire.send(BROADCAST, INVALID_IPV4, 1000, 3);
                // The daemon may be gone at any moment, so a missing answer is no error.
                let collected = try_request(&daemon, "POST", "/collector/collect");
                if collected.is_ok_and(|answer| answer.status == 200) && !timed {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGHUP);
                }
                if let Ok(answer) = try_request(&daemon, "GET", "/api/system/health") {
                    let health = answer.json();
                    let count = |key: &str| health["details"]["database"][key].as_u64().expect("a number");
                    samples = samples.max(count("traffic_data_records") - count("unsaved_records"));
                    assert_eq!(health["details"]["database"]["error"].as_str().unwrap_or_default(), "", "run {run}");
                }
                if let Ok(answer) = try_request(&daemon, "GET", "/api/interfaces/wan0") {
                    lifetime = lifetime.max(answer.json()["lifetime_tx_bytes"].as_u64().expect("a number"));
                }
                sleep_ms(5);
            }
        });
        daemon.kill();
        let (verdict, found) = check_with_sqlite(&file);
        assert_eq!(verdict, "ok", "run {run}, seed {seed}");
        assert!(found >= samples, "run {run}: {found} samples on disk, {samples} were reported, seed {seed}");
        reported_saves += u64::from(samples > before);
        saves_found += u64::from(found > before);
        samples = found;
    }
    // If no run saved anything or reported a save, the test would have tried nothing.
    println!("{reported_saves} of {RUNS_PER_LANE} runs reported a save, {saves_found} left one, {samples} samples");
    assert!(
        reported_saves >= RUNS_PER_LANE / 2 && saves_found >= reported_saves,
        "{reported_saves} runs reported a save, {saves_found} left one, seed {seed}"
    );
    let daemon = Daemon::start(&dir, &flags);
    daemon.wait_for_ticks(1);
    daemon.collect();
    assert!(!daemon.log().iter().any(|line| line.contains("set aside")), "{:#?}", daemon.log());
    assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "after {RUNS_PER_LANE} runs, seed {seed}");
    assert_eq!(daemon.interface("wan0")["lifetime_tx_bytes"], kernel_counters("wan0")[1]);
    daemon.stop();
}
