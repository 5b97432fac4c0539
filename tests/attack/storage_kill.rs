//! Killed at two hundred random moments, in the middle of traffic and of saves: the file is whole each time, what was
//! saved stays saved, and no total ever falls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::disk::*;
use crate::common::*;
use nix::sys::signal::Signal;

const LANES: u64 = 4;
const LIVES: u64 = 50;

#[test]
fn e40_killed_two_hundred_times() {
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    println!("seed {seed}");
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || in_namespace(|| lane_of_lives(seed ^ lane << 60)));
        }
    });
}

fn lane_of_lives(seed: u64) {
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
    wait_until("a base is on disk", || stored(&daemon) >= 2);
    daemon.kill();

    let (mut samples, mut lifetime) = (2, 0);
    // Lives that have told of a save of their own, and lives that have left one.
    let (mut told, mut fruitful) = (0, 0);
    for life in 0..LIVES {
        let daemon = Daemon::start(&dir, &flags);
        let started = daemon.interface("wan0")["lifetime_tx_bytes"].as_u64().expect("a number");
        assert!(started >= lifetime, "life {life}: {started} bytes at the start, {lifetime} before, seed {seed}");
        let now = stored(&daemon);
        assert!(now >= samples, "life {life}: {now} samples on disk, {samples} were there, seed {seed}");
        (samples, lifetime) = (now, started);
        // One in four lives is long enough for the flush of its own accord; in the others saves are asked for in a
        // row, so that most of these are cut off within one.
        let calm = life % 4 == 0;
        let until = Duration::from_millis(if calm { 2_000 + random(600) } else { random(700) });
        let over = Arc::new(AtomicBool::new(false));
        let pid = daemon.pid();
        let before = samples;
        std::thread::scope(|scope| {
            let done = over.clone();
            scope.spawn(move || {
                std::thread::sleep(until);
                signal(pid, Signal::SIGKILL);
                done.store(true, Ordering::Relaxed);
            });
            let wire = Wire::of("wan0");
            while !over.load(Ordering::Relaxed) {
                wire.send(EVERYBODY, QUIET, 1000, 3);
                // It may be gone at any moment: no answer is no fault.
                let collected = ask_quietly(&daemon, "POST", "/collector/collect");
                if collected.is_ok_and(|answer| answer.status == 200) && !calm {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGHUP);
                }
                if let Ok(answer) = ask_quietly(&daemon, "GET", "/api/system/health") {
                    let health = answer.json();
                    let count = |key: &str| health["details"]["database"][key].as_u64().expect("a number");
                    samples = samples.max(count("traffic_data_records") - count("unsaved_records"));
                    assert_eq!(health["details"]["database"]["error"].as_str().unwrap_or_default(), "", "life {life}");
                }
                if let Ok(answer) = ask_quietly(&daemon, "GET", "/api/interfaces/wan0") {
                    lifetime = lifetime.max(answer.json()["lifetime_tx_bytes"].as_u64().expect("a number"));
                }
                rest(5);
            }
        });
        daemon.kill();
        let (verdict, found) = judge(&file);
        assert_eq!(verdict, "ok", "life {life}, seed {seed}");
        assert!(found >= samples, "life {life}: {found} samples on disk, {samples} were told of, seed {seed}");
        told += u64::from(samples > before);
        fruitful += u64::from(found > before);
        samples = found;
    }
    // Were nothing saved between two kills, or nothing told of, nothing would have been tried.
    println!("{told} of {LIVES} lives told of a save, {fruitful} left one, {samples} samples");
    assert!(told >= LIVES / 2 && fruitful >= told, "{told} lives told of a save, {fruitful} left one, seed {seed}");
    let daemon = Daemon::start(&dir, &flags);
    daemon.ticks(1);
    daemon.collect();
    assert!(!daemon.log().iter().any(|line| line.contains("set aside")), "{:#?}", daemon.log());
    assert_eq!(daemon.booked("wan0"), kernel("wan0"), "after {LIVES} lives, seed {seed}");
    assert_eq!(daemon.interface("wan0")["lifetime_tx_bytes"], kernel("wan0")[1]);
    daemon.stop();
}
