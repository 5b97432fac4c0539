//! A disk that is full, and one that takes its time: sampling and answering go on as if nothing were, and what could
//! not be written is written later. The real binary meets real errors: strace answers its writes in the kernel's place.

mod common;

use std::fs;
use std::process::{Child, Command, Stdio};

use common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// While it lives, every write of SQLite (nothing else here writes at a position) is answered as it says.
struct Fault {
    strace: Child,
}

impl Fault {
    fn on(daemon: &Daemon, what: &str) -> Fault {
        let pid = daemon.pid();
        let inject = format!("inject=pwrite64:{what}");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", &inject, "-p", &pid.to_string()]);
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let strace = strace.spawn().expect("strace starts");
        let traced = |id: String| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{id}/status")).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|id| id.trim() != "0"))
        };
        let fault = Fault { strace };
        let writer = daemon.thread("writer").expect("a thread named writer");
        wait_until("strace has attached", || traced(writer.to_string()));
        fault
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets go of the program on the way out, so that a write in its hands ends as it should; but not while it
        // sits out a delay.
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        rest(300);
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

fn strace_is_there() -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        skip("strace is not installed: a bad disk cannot be played");
    }
    there
}

fn database_status(daemon: &Daemon) -> String {
    daemon.get("/api/system/health")["database_status"].as_str().unwrap_or_default().to_string()
}

/// Records in the file, whatever is in memory.
fn stored(daemon: &Daemon) -> u64 {
    let health = daemon.get("/api/system/health");
    health["details"]["database"]["traffic_data_records"].as_u64().expect("a number")
}

#[test]
fn e39_a_full_disk_loses_nothing() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let flags = ["--interval", "1", "--flush", "1"];
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &flags);
        daemon.ticks(1);
        assert_eq!(database_status(&daemon), "healthy");
        {
            let _full = Fault::on(&daemon, "error=ENOSPC");
            for frames in 1..4 {
                send("wan0", 1000, frames);
                daemon.ticks(1);
            }
            wait_until("it is said aloud", || database_status(&daemon) == "degraded");
            daemon.collect();
            assert_eq!(daemon.booked("wan0"), kernel("wan0"), "while the disk is full");
            assert_eq!(daemon.request("GET", "/health", None).status, 200, "degraded is not dead");
        }
        wait_until("it is tried again", || database_status(&daemon) == "healthy");
        daemon.collect();
        let rows = daemon.export("wan0");
        daemon.stop();

        let daemon = Daemon::start(&dir, &flags);
        let after = daemon.export("wan0");
        assert_eq!(after[..rows.len().min(after.len())], rows, "every single row came to disk");
        daemon.ticks(1);
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
    });
}

#[test]
fn e38_nobody_waits_for_a_slow_disk() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let flags = ["--interval", "1", "--flush", "1"];
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &flags);
        daemon.ticks(1);
        send("wan0", 1000, 1);
        wait_until("a base is on disk", || stored(&daemon) >= 2);
        // Each single write takes longer than this test waits for anything.
        let slow = Fault::on(&daemon, &format!("delay_enter={}", 2 * PATIENCE.as_micros()));
        for frames in 1..5 {
            send("wan0", 1000, frames);
            daemon.ticks(1);
        }
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), kernel("wan0"), "while the disk is slow");
        // Cut off in the middle of it. The program is gone only when strace has let go of it.
        kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGKILL).expect("it runs");
        drop(slow);
        daemon.kill();
        send("wan0", 1000, 7);
        let daemon = Daemon::start(&dir, &flags);
        daemon.ticks(1);
        assert_eq!(daemon.booked("wan0"), kernel("wan0"), "after the cut");
    });
}
