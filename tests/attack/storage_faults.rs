//! A full disk, a slow disk and other disk errors: sampling and answers continue, and the daemon saves later what it
//! could not save. The real binary gets real errors: strace injects them into its system calls.

use std::time::{Duration, Instant};

use crate::common::disk::*;
use crate::common::*;
use nix::sys::signal::Signal;

const FAST: [&str; 4] = ["--interval", "1", "--flush", "1"];

/// Starts a daemon and waits until the beginning of its history is on disk.
fn daemon_with_history(dir: &Dir) -> Daemon {
    let daemon = Daemon::start(dir, &FAST);
    daemon.wait_for_ticks(1);
    send("wan0", 1000, 1);
    wait_until("the first samples are on disk", || stored_samples(&daemon) >= 2);
    daemon
}

#[test]
fn e39_a_full_disk_loses_nothing() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        assert_eq!(database_status(&daemon), "healthy");
        {
            let _full = InjectedFault::on_sqlite_writes(&daemon, "error=ENOSPC");
            for frames in 1..4 {
                send("wan0", 1000, frames);
                daemon.wait_for_ticks(1);
            }
            wait_until("health reports the fault", || database_status(&daemon) == "degraded");
            daemon.collect();
            assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "while the disk is full");
            assert_eq!(daemon.request("GET", "/health", None).status, 200, "degraded, but it answers");
        }
        wait_until("the writer saves again", || database_status(&daemon) == "healthy");
        daemon.collect();
        let rows = daemon.export("wan0");
        daemon.stop();

        let daemon = Daemon::start(&dir, &FAST);
        let after = daemon.export("wan0");
        assert_eq!(after[..rows.len().min(after.len())], rows, "every single row is on disk");
        daemon.wait_for_ticks(1);
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
    });
}

#[test]
fn e38_counting_does_not_wait_for_a_slow_disk() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = daemon_with_history(&dir);
        // Each single write takes longer than any wait of this test.
        let slow = InjectedFault::on_sqlite_writes(&daemon, &format!("delay_enter={}", 2 * TIMEOUT.as_micros()));
        for frames in 1..5 {
            send("wan0", 1000, frames);
            daemon.wait_for_ticks(1);
        }
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "while the disk is slow");
        // Killed in the middle of a write. The process ends only when strace detaches.
        signal(daemon.pid(), Signal::SIGKILL);
        drop(slow);
        daemon.kill();
        send("wan0", 1000, 7);
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "after the kill");
    });
}

/// Checks after a fault that the history is complete: in memory, on disk, and after a restart.
fn assert_recovered(daemon: Daemon, dir: &Dir) {
    wait_until("the writer saves again", || database_status(&daemon) == "healthy");
    assert_eq!(database_error(&daemon), "");
    daemon.collect();
    assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "after the fault");
    let (rows, events) = (daemon.export("wan0"), daemon.get("/api/events?limit=1000"));
    daemon.stop();
    let (verdict, samples) = check_with_sqlite(&dir.join("net-pulse.db"));
    assert_eq!(verdict, "ok");
    // The daemon takes one more sample when it ends.
    assert!(samples >= 2 * rows.len() as u64, "{samples} samples on disk, {} rows an interface", rows.len());
    send("wan0", 1000, 1);
    let daemon = Daemon::start(dir, &FAST);
    daemon.wait_for_ticks(1);
    assert_eq!(daemon.export("wan0")[..rows.len()], rows, "every row is on disk");
    assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "after a restart");
    let after = daemon.get("/api/events?limit=1000");
    for event in events.as_array().expect("a list") {
        assert!(after.as_array().expect("a list").contains(event), "{event} is not on disk: {after}");
    }
    daemon.stop();
}

#[test]
fn e39_a_disk_that_fills_up_and_is_freed() {
    in_namespace(|| {
        let outside = Dir::new();
        let _disk = small_disk(&outside.join("disk"), 1 << 20);
        let (database, filler) = (outside.join("disk/net-pulse.db"), outside.join("disk/filler"));
        let start = || {
            let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &database]).args(FAST);
            Daemon::spawn(command)
        };
        cable("wan0", "lan0");
        let daemon = start();
        daemon.wait_for_ticks(1);
        send("wan0", 1000, 1);
        wait_until("the first samples are on disk", || stored_samples(&daemon) >= 2);
        fill(&filler);
        for frames in 1..4 {
            send("wan0", 1000, frames);
            daemon.wait_for_ticks(1);
        }
        wait_until("health reports the fault", || database_status(&daemon) == "degraded");
        assert!(database_error(&daemon).contains("full"), "{}", database_error(&daemon));
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "while the disk is full");
        assert_eq!(daemon.request("GET", "/health", None).status, 200, "degraded, but it answers");
        std::fs::remove_file(&filler).expect("a file of the test");
        // SIGHUP makes the writer try at once.
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the ticks are saved", || database_status(&daemon) == "healthy" && unsaved_samples(&daemon) <= 4);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "once it is freed");

        // The daemon ends while the disk is full: the kernel counters still contain the bytes that were in memory.
        fill(&filler);
        send("wan0", 1000, 50);
        daemon.wait_for_ticks(2);
        wait_until("health reports the full disk again", || database_status(&daemon) == "degraded");
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, log) = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(log.iter().any(|line| line.contains("stay unsaved") && line.contains("full")), "{log:#?}");
        assert_eq!(check_with_sqlite(&database).0, "ok");
        // The daemon also starts on a full disk.
        let daemon = start();
        daemon.wait_for_ticks(1);
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "started on a full disk");
        std::fs::remove_file(&filler).expect("a file of the test");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the ticks are saved", || database_status(&daemon) == "healthy");
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "freed again");
        daemon.stop();
        assert_eq!(check_with_sqlite(&database).0, "ok");
    });
}

/// System calls, the injected error, and whether saving fails because of it. A failing fsync fails only a checkpoint:
/// what was committed stays in the write-ahead log, and saving continues.
const ERRORS: [(&str, &str, bool); 5] = [
    ("pwrite64", "error=EIO", true),
    ("pwrite64", "error=EROFS", true),
    ("pwrite64", "error=EDQUOT", true),
    ("fsync,fdatasync", "error=EIO", false),
    ("fsync,fdatasync", "error=ENOSPC", false),
];

#[test]
fn e39_no_disk_error_loses_data() {
    if !strace_or_skip() {
        return;
    }
    std::thread::scope(|scope| {
        for (calls, what, fails) in ERRORS {
            scope.spawn(move || in_namespace(|| survives(calls, what, fails)));
        }
    });
}

fn survives(calls: &str, what: &str, fails: bool) {
    let dir = Dir::new();
    cable("wan0", "lan0");
    let daemon = Daemon::start(&dir, &FAST);
    daemon.wait_for_ticks(1);
    send("wan0", 1000, 1);
    wait_until("the first samples are on disk", || stored_samples(&daemon) >= 2);
    let fault = InjectedFault::of(&daemon, calls, what);
    // Many saves, so that SQLite checkpoints the log more than once.
    for frames in 1..30 {
        send("wan0", 1000, frames);
        daemon.collect();
        signal(daemon.pid(), Signal::SIGHUP);
        sleep_ms(20);
    }
    if fails {
        wait_until("health reports the fault", || database_status(&daemon) == "degraded");
        assert_ne!(database_error(&daemon), "");
    }
    assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "{calls} {what}");
    assert_eq!(daemon.request("GET", "/health", None).status, 200);
    drop(fault);
    signal(daemon.pid(), Signal::SIGHUP);
    assert_recovered(daemon, &dir);
}

/// A commit that hangs in fsync delays neither sampling nor answers nor the shutdown.
#[test]
fn e38_a_commit_of_twenty_seconds_delays_nothing_else() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = daemon_with_history(&dir);
        let slow = InjectedFault::of(&daemon, "fsync,fdatasync", "delay_enter=20000000");
        // Save until one save checkpoints the log.
        let mut frames = 0;
        wait_until("a commit hangs", || {
            frames += 1;
            send("wan0", 1000, frames);
            let before = unsaved_samples(&daemon);
            daemon.collect();
            signal(daemon.pid(), Signal::SIGHUP);
            sleep_ms(100);
            before > 0 && unsaved_samples(&daemon) > before
        });
        let started = Instant::now();
        for frames in 1..4 {
            send("wan0", 1000, frames);
            daemon.wait_for_ticks(1);
            let asked = Instant::now();
            for path in ["/health", "/api/system/health", "/api/traffic/latest", "/api/interfaces", "/api/events"] {
                daemon.get(path);
            }
            assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        }
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "while a commit hangs");
        assert!(unsaved_samples(&daemon) > 0 && started.elapsed() < Duration::from_secs(15), "the commit still hangs");
        let asked = Instant::now();
        signal(daemon.pid(), Signal::SIGTERM);
        // The parent can wait for a traced process only after strace has seen it end.
        wait_until("the daemon ends", || daemon.has_ended());
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        drop(slow);
        let (code, log) = daemon.ended_within(TIMEOUT);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(log.iter().any(|line| line.contains("stay unsaved") && line.contains("too long")), "{log:#?}");
        send("wan0", 1000, 7);
        assert_eq!(check_with_sqlite(&dir.join("net-pulse.db")).0, "ok");
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "after the end");
    });
}

/// 300 interfaces fill the memory for unsaved ticks in about 20 ticks. Then the daemon coarsens old ticks: this memory
/// does not grow, and the sums stay.
#[test]
fn e39_a_long_fault_is_held_in_bounded_memory() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        const CABLES: usize = 150;
        let dir = Dir::new();
        let names: Vec<String> = (0..CABLES).map(|at| format!("wan{at}")).collect();
        let mut batch = String::new();
        for at in 0..CABLES {
            batch += &format!("link add wan{at} type veth peer name lan{at}\n");
            batch += &format!("link set lan{at} up\nlink set wan{at} up\n");
        }
        let script = dir.join("links");
        std::fs::write(&script, batch).expect("a file of the test");
        ip(&format!("-batch {script}"));
        let wires: Vec<RawSocket> = names.iter().map(|name| RawSocket::of(name)).collect();
        let traffic = |frames| wires.iter().for_each(|wire| wire.send(BROADCAST, INVALID_IPV4, 100, frames));
        wait_until("all links are up", || {
            traffic(1);
            names.iter().all(|name| kernel_counters(name)[1] > 0)
        });
        let base: Vec<Counters> = names.iter().map(|name| kernel_counters(name)).collect();
        let daemon = Daemon::start(&dir, &["--interval", "3600", "--flush", "1"]);
        daemon.get("/health");
        traffic(1);
        daemon.collect();
        wait_until("the first samples are on disk", || stored_samples(&daemon) >= 2 * CABLES as u64);
        let fault = InjectedFault::on_sqlite_writes(&daemon, "error=EIO");
        let mut highest = 0;
        let before = daemon.resident();
        for _ in 0..120 {
            traffic(1);
            daemon.collect();
            highest = highest.max(unsaved_samples(&daemon));
        }
        // Nothing is lost, but older samples are coarser now.
        wait_until("health reports the fault", || database_status(&daemon) == "unhealthy");
        // 80 bytes per sample: half a mebibyte in the writer, and half a mebibyte that waits for it.
        assert!(highest > 6_000, "the memory for unsaved ticks was not filled: {highest} samples");
        assert!(highest * 80 <= 1 << 20, "{highest} samples in memory");
        let grown = daemon.resident().saturating_sub(before);
        assert!(grown < 6 << 20, "{grown} bytes more than before the fault");
        drop(fault);
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("all ticks are saved", || database_status(&daemon) == "healthy" && unsaved_samples(&daemon) == 0);
        assert!(daemon.log().iter().any(|line| line.contains("coarser")), "{:#?}", daemon.log());
        let check = |daemon: &Daemon, when: &str| {
            for (name, base) in names.iter().zip(&base).step_by(10) {
                assert_eq!(daemon.exported_sum(name), minus(kernel_counters(name), *base), "{name} {when}");
            }
        };
        check(&daemon, "after the fault");
        daemon.stop();
        assert_eq!(check_with_sqlite(&dir.join("net-pulse.db")).0, "ok");
        check(&Daemon::start(&dir, &["--interval", "3600"]), "after a restart");
    });
}

/// Pages that are overwritten under the running daemon, as on a failing SD card.
#[test]
fn e40_a_database_damaged_while_running_is_reported() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = daemon_with_history(&dir);
        // The test is another process: closing its descriptors releases no lock of the daemon.
        let file = dir.join("net-pulse.db");
        let damage = || {
            for part in ["", "-wal"] {
                let path = format!("{file}{part}");
                let length = std::fs::metadata(&path).map_or(0, |facts| facts.len() as usize);
                let opened = std::fs::OpenOptions::new().write(true).open(&path).expect("the file exists");
                std::os::unix::fs::FileExt::write_all_at(&opened, &vec![0x5a; length], 0).expect("a file of the test");
            }
        };
        wait_until("health reports the damage", || {
            damage();
            send("wan0", 1000, 1);
            daemon.collect();
            signal(daemon.pid(), Signal::SIGHUP);
            sleep_ms(100);
            database_status(&daemon) == "degraded"
        });
        assert_ne!(database_error(&daemon), "");
        assert_eq!(daemon.request("GET", "/health", None).status, 200, "degraded, but it answers");
        let polls = daemon.polls();
        daemon.wait_for_ticks(2);
        assert!(daemon.polls() > polls);
        send("wan0", 12_345 / 9, 9);
        daemon.collect();
        let newest = daemon.get("/api/traffic/history?interface_name=wan0&limit=1");
        assert_eq!(newest[0]["tx_bytes"], 12_339, "from memory: {newest}");
        for path in ["/api/interfaces", "/api/traffic/summary", "/api/events", "/api/traffic/series?interface=wan0"] {
            daemon.get(path);
        }
        // An incomplete export must not look complete.
        let answer = daemon.request("GET", "/api/export/traffic", None);
        assert!([200, 503].contains(&answer.status), "{} {}", answer.status, answer.text());
        assert_eq!(daemon.interface("wan0")["lifetime_tx_bytes"], kernel_counters("wan0")[1]);
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, log) = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(code, Some(0), "{log:#?}");

        // The next start sets the file aside and works.
        let daemon = Daemon::start(&dir, &FAST);
        assert!(
            daemon.log().iter().any(|line| line.contains("set aside as")) || {
                daemon.wait_for_ticks(1);
                daemon.log().iter().any(|line| line.contains("set aside as"))
            }
        );
        wait_until("the daemon saves again", || stored_samples(&daemon) > 0 && database_status(&daemon) == "healthy");
        daemon.stop();
        assert_eq!(check_with_sqlite(&file).0, "ok");
    });
}
