//! Locks on the database: a second net-pulse is refused, and the daemon waits for other programs. File systems of
//! routers: an overlay over jffs2 has refused locks, so there the daemon locks in another way and logs that. jffs2
//! cannot share memory, so the daemon never shares memory through the file system. On both it protects and saves the
//! history as elsewhere.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::disk::*;
use crate::common::*;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;
use rusqlite::Connection;

#[test]
fn e37_history_is_saved_on_a_file_system_that_refuses_locks() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let file = dir.join("net-pulse.db");
        // The daemon is the child, strace a process beside it. Locks are the only fcntl(2) on the database's
        // descriptors.
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
        daemon.wait_for_ticks(1);
        let base = minus(kernel_counters("wan0"), daemon.exported_sum("wan0"));
        for frames in 1..4 {
            send("wan0", 1000, frames);
            daemon.wait_for_ticks(1);
        }
        wait_until("the samples are on disk", || stored_samples(&daemon) >= 4);
        assert_eq!((database_status(&daemon), database_error(&daemon)), ("healthy".to_string(), String::new()));
        assert!(daemon.log().iter().any(|line| line.contains("unix-dotfile")), "{:#?}", daemon.log());
        // A second net-pulse is still refused.
        let mut second = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        second.args(["--host", "127.0.0.1", "--port", "0", "--database", &file]);
        let second = finish(second);
        assert_eq!(second.code, Some(1), "{}", second.err);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), minus(kernel_counters("wan0"), base));
        // A killed daemon leaves its lock file, which does not stop the next start.
        daemon.kill();
        send("wan0", 1000, 7);
        let daemon = start();
        daemon.wait_for_ticks(1);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), minus(kernel_counters("wan0"), base), "{:#?}", daemon.log());
        daemon.stop();
        assert_eq!(check_with_sqlite(&file).0, "ok");
    });
}

/// A second net-pulse ends at once, not after SQLite's timeout, whichever name of the database it gets.
#[test]
fn other_names_of_a_database_in_use_are_refused() {
    use std::os::unix::fs::symlink;
    let dir = Dir::new();
    let file = dir.join("net-pulse.db");
    let daemon = Daemon::start(&dir, &FLAGS);
    daemon.wait_for_ticks(1);
    fs::create_dir(dir.join("other")).expect("a file of the test");
    fs::create_dir(dir.join("deep")).expect("a file of the test");
    let names =
        ["soft.db", "other/soft.db", "hard.db", "other/hard.db", "other/soft-to-hard.db"].map(|name| dir.join(name));
    symlink("net-pulse.db", &names[0]).expect("a file of the test");
    symlink("../net-pulse.db", &names[1]).expect("a file of the test");
    fs::hard_link(&file, &names[2]).expect("a file of the test");
    fs::hard_link(&file, &names[3]).expect("a file of the test");
    symlink("hard.db", &names[4]).expect("a file of the test");
    for name in names.iter().chain([&dir.join("deep/../net-pulse.db")]) {
        let started = std::time::Instant::now();
        let second = finish(command(name));
        let last = second.err.lines().last().unwrap_or_default();
        assert_eq!(second.code, Some(1), "{name}: {}", second.err);
        assert!(last.contains("another net-pulse uses") && last.contains("--database"), "{name}: {}", second.err);
        assert!(started.elapsed().as_secs() < 4, "{name}: {:?}", started.elapsed());
    }
    daemon.wait_for_ticks(1);
    assert_eq!(database_status(&daemon), "healthy");
    let guard_files = |at: &str| {
        fs::read_dir(at)
            .expect("a directory of the test")
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|end| end == "guard"))
            .count()
    };
    assert_eq!(
        (guard_files(&dir.join("")), guard_files(&dir.join("other"))),
        (1, 0),
        "a refused start leaves no guard file"
    );
    daemon.stop();
    // Without a running daemon, each name works.
    for name in &names {
        let daemon = Daemon::spawn(command(name));
        daemon.wait_for_ticks(1);
        daemon.stop();
    }
    assert_eq!(check_with_sqlite(&file).0, "ok");
}

#[test]
fn e36_no_memory_is_shared_through_the_file_system() {
    let dir = Dir::new();
    let file = dir.join("net-pulse.db");
    let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "1"]);
    daemon.wait_for_ticks(2);
    daemon.get("/api/traffic/history");
    assert!(Path::new(&format!("{file}-wal")).exists(), "the write-ahead log is in use");
    assert!(!Path::new(&format!("{file}-shm")).exists());
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).expect("the daemon runs");
    assert!(maps.contains("net-pulse") && !maps.contains("net-pulse.db"), "{maps}");
    daemon.stop();
}

const FLAGS: [&str; 4] = ["--interval", "1", "--flush", "1"];

fn command(database: &str) -> Command {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", database]).args(FLAGS);
    command
}

/// Replaces flock(2) with a lock on all bytes of the file, which conflicts with SQLite's locks. flock(2) does that on
/// NFS and SMB, and on BSD everywhere. Preloaded before the C library; the program under test is linked dynamically.
const FLOCK: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

int flock(int fd, int how)
{
    struct flock all = { .l_type = how & LOCK_UN ? F_UNLCK : how & LOCK_SH ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };
    int of_process = getenv("FLOCK_OF_PROCESS") != NULL, waits = !(how & LOCK_NB);
    int command = of_process ? (waits ? F_SETLKW : F_SETLK) : (waits ? F_OFD_SETLKW : F_OFD_SETLK);
    int outcome = fcntl(fd, command, &all);
    if (outcome < 0 && errno == EACCES)
        errno = EWOULDBLOCK;
    return outcome;
}
"#;

/// Depending on the system, such a lock belongs to the process or to one opening of the file. In the second case, two
/// openings in one process conflict.
#[test]
fn the_daemon_restarts_where_flock_locks_bytes() {
    let dir = Dir::new();
    let (source, library) = (dir.join("flock.c"), dir.join("flock.so"));
    fs::write(&source, FLOCK).expect("a file of the test");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o", &library, &source]).status();
    if !built.is_ok_and(|status| status.success()) {
        return skip("no C compiler: flock(2) is not replaced");
    }
    for of_process in [false, true] {
        let at = dir.join(if of_process { "process" } else { "opening" });
        let file = format!("{at}/net-pulse.db");
        let preloaded = |database: &str| {
            let mut command = command(database);
            command.env("LD_PRELOAD", &library);
            if of_process {
                command.env("FLOCK_OF_PROCESS", "1");
            }
            command
        };
        // At the first start there is no database, at the second there is one, and at the third a kill has left one.
        for round in 0..3 {
            let daemon = Daemon::spawn(preloaded(&file));
            let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).expect("the daemon runs");
            assert!(maps.contains("flock.so"), "the library is not in use");
            let before = stored_samples(&daemon);
            wait_until("samples are saved", || stored_samples(&daemon) > before);
            assert_eq!(database_error(&daemon), "", "round {round}: {:#?}", daemon.log());
            assert_eq!(database_status(&daemon), "healthy");
            if round == 0 {
                fs::create_dir(format!("{at}/deep")).expect("a file of the test");
                let [hard, soft] = ["hard.db", "soft.db"].map(|name| format!("{at}/deep/{name}"));
                fs::hard_link(&file, &hard).expect("a file of the test");
                std::os::unix::fs::symlink("../net-pulse.db", &soft).expect("a file of the test");
                for name in [&file, &hard, &soft] {
                    let second = finish(preloaded(name));
                    assert_eq!(second.code, Some(1), "{name}: {}", second.err);
                    assert!(second.err.contains("another net-pulse uses"), "{name}: {}", second.err);
                }
            }
            if round == 1 { daemon.kill() } else { drop(daemon.stop()) }
        }
        assert_eq!(check_with_sqlite(&file).0, "ok");
    }
}

/// Checks that the daemon keeps the history in memory, reports these words, and saves everything once `release` has
/// been called.
fn waits_for(file: &str, words: &str, release: impl FnOnce()) {
    let daemon = Daemon::spawn(command(file));
    wait_until("the lock is reported", || database_status(&daemon) == "degraded");
    let error = database_error(&daemon);
    assert!(error.contains(words), "{error}");
    daemon.wait_for_ticks(2);
    assert_eq!((stored_samples(&daemon), unsaved_samples(&daemon) > 0), (0, true));
    let rows = daemon.export("lo").len();
    release();
    signal(daemon.pid(), nix::sys::signal::Signal::SIGHUP);
    wait_until("samples are saved", || unsaved_samples(&daemon) == 0 && stored_samples(&daemon) > 0);
    assert!(daemon.export("lo").len() >= rows);
    assert_eq!(database_error(&daemon), "");
    daemon.stop();
    assert_eq!(check_with_sqlite(file).0, "ok");
}

/// The daemon monitors the machine's own interfaces, so the test creates no link.
#[test]
fn another_programs_lock_is_waited_for() {
    let dir = Dir::new();
    let file = dir.join("net-pulse.db");
    Daemon::spawn(command(&file)).stop();

    let other = Connection::open(&file).expect("a database");
    other.execute_batch("BEGIN EXCLUSIVE").expect("no other lock on the file");
    waits_for(&file, "database is locked", || drop(other));

    // A read lock on all bytes, like that of a program that copies the file. It also covers the byte that
    // the daemon locks.
    let open = || fs::File::options().read(true).write(true).open(&file).expect("the file exists");
    let all = |kind: i32| libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let reader = open();
    fcntl(&reader, FcntlArg::F_OFD_SETLK(&all(libc::F_RDLCK))).expect("no other lock on the file");
    waits_for(&file, "another program has locked", || drop(reader));

    // A lock by flock(2) does not conflict.
    let other = Flock::lock(open(), FlockArg::LockExclusiveNonblock).expect("no other lock on the file");
    let daemon = Daemon::spawn(command(&file));
    wait_until("samples are saved", || stored_samples(&daemon) > 0);
    assert_eq!(database_error(&daemon), "");
    drop(other);

    // No other program gets a lock while the daemon runs, and the daemon is not disturbed.
    let other = Connection::open(&file).expect("the file exists");
    other.busy_timeout(std::time::Duration::ZERO).expect("a number");
    let refused = other.execute_batch("BEGIN EXCLUSIVE").expect_err("the daemon has a lock");
    assert!(refused.to_string().contains("locked"), "{refused}");
    daemon.wait_for_ticks(2);
    assert_eq!(database_error(&daemon), "");
    daemon.stop();
    assert_eq!(check_with_sqlite(&file).0, "ok");
}
