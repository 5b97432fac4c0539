//! File systems of routers: an overlay over jffs2 was seen to refuse locks, and jffs2 cannot share memory. Other means are
//! found, said aloud where they cost something, and guard and keep the history as well.

use std::fs;
use std::path::Path;

use crate::common::disk::*;
use crate::common::*;

#[test]
fn e37_locks_that_the_file_system_refuses() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let file = dir.join("net-pulse.db");
        // The daemon is the child, strace a process beside it. Locks are the only fcntl(2) on the database's descriptors.
        let start = || {
            let mut strace = net_pulse("strace");
            strace.args(["-D", "-f", "-q", "-o", "/dev/null", "-P", &file, "-e", "trace=fcntl,?fcntl64"]);
            strace.args(["-e", "inject=fcntl,?fcntl64:error=EINVAL", env!("CARGO_BIN_EXE_net-pulse")]);
            strace.args(["--host", "127.0.0.1", "--port", "0", "--database", &file, "--interval", "1", "--flush", "1"]);
            Daemon::spawn(strace)
        };
        cable("wan0", "lan0");
        send("wan0", 1000, 1);
        let daemon = start();
        daemon.ticks(1);
        let base = minus(kernel("wan0"), daemon.booked("wan0"));
        for frames in 1..4 {
            send("wan0", 1000, frames);
            daemon.ticks(1);
        }
        wait_until("it is on disk", || stored(&daemon) >= 4);
        assert_eq!((database_status(&daemon), database_error(&daemon)), ("healthy".to_string(), String::new()));
        assert!(daemon.log().iter().any(|line| line.contains("unix-dotfile")), "{:#?}", daemon.log());
        // Nobody else gets in meanwhile.
        let mut second = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        second.args(["--host", "127.0.0.1", "--port", "0", "--database", &file]);
        let second = finish(second);
        assert_eq!(second.code, Some(1), "{}", second.err);
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), minus(kernel("wan0"), base));
        // What a kill leaves of such a lock stops nobody.
        daemon.kill();
        send("wan0", 1000, 7);
        let daemon = start();
        daemon.ticks(1);
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), minus(kernel("wan0"), base), "{:#?}", daemon.log());
        daemon.stop();
        assert_eq!(judge(&file).0, "ok");
    });
}

/// Whatever name it goes by, the file is one. At once: not when SQLite gives up.
#[test]
fn other_names_of_a_database_in_use_are_refused() {
    use std::os::unix::fs::symlink;
    let dir = Dir::new();
    let file = dir.join("net-pulse.db");
    let flags = ["--interval", "1", "--flush", "1"];
    let daemon = Daemon::start(&dir, &flags);
    daemon.ticks(1);
    fs::create_dir(dir.join("other")).expect("it is ours");
    fs::create_dir(dir.join("deep")).expect("it is ours");
    let names =
        ["soft.db", "other/soft.db", "hard.db", "other/hard.db", "other/soft-to-hard.db"].map(|name| dir.join(name));
    symlink("net-pulse.db", &names[0]).expect("it is ours");
    symlink("../net-pulse.db", &names[1]).expect("it is ours");
    fs::hard_link(&file, &names[2]).expect("it is ours");
    fs::hard_link(&file, &names[3]).expect("it is ours");
    symlink("hard.db", &names[4]).expect("it is ours");
    for name in names.iter().chain([&dir.join("deep/../net-pulse.db")]) {
        let mut second = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        second.args(["--host", "127.0.0.1", "--port", "0", "--database", name]);
        let started = std::time::Instant::now();
        let second = finish(second);
        let last = second.err.lines().last().unwrap_or_default();
        assert_eq!(second.code, Some(1), "{name}: {}", second.err);
        assert!(last.contains("another net-pulse uses") && last.contains("--database"), "{name}: {}", second.err);
        assert!(started.elapsed().as_secs() < 4, "{name}: {:?}", started.elapsed());
    }
    daemon.ticks(1);
    assert_eq!(database_status(&daemon), "healthy");
    let guards = |at: &str| {
        fs::read_dir(at)
            .expect("ours")
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|end| end == "guard"))
            .count()
    };
    assert_eq!((guards(&dir.join("")), guards(&dir.join("other"))), (1, 0), "what was refused leaves nothing behind");
    daemon.stop();
    // Alone, each of them will do.
    for name in &names {
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", name]).args(flags);
        let daemon = Daemon::spawn(command);
        daemon.ticks(1);
        daemon.stop();
    }
    assert_eq!(judge(&file).0, "ok");
}

#[test]
fn e36_no_memory_is_shared_through_the_file_system() {
    let dir = Dir::new();
    let file = dir.join("net-pulse.db");
    let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "1"]);
    daemon.ticks(2);
    daemon.get("/api/traffic/history");
    assert!(Path::new(&format!("{file}-wal")).exists(), "the write-ahead log is in use");
    assert!(!Path::new(&format!("{file}-shm")).exists());
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).expect("it runs");
    assert!(maps.contains("net-pulse") && !maps.contains("net-pulse.db"), "{maps}");
    daemon.stop();
}
