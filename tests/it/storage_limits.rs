//! Limits that a supervisor or an administrator sets: on the size of files, on a user's disk space, on open files.

use std::process::Command;

use crate::common::disk::*;
use crate::common::*;

fn limited(limit: &str, dir: &Dir) -> Command {
    let mut command = net_pulse("prlimit");
    command.args([limit, env!("CARGO_BIN_EXE_net-pulse"), "--host", "127.0.0.1", "--port", "0"]);
    command.args(["--database", &dir.join("data/net-pulse.db"), "--interval", "1", "--flush", "1"]);
    command
}

/// Checks that saving fails with these words until `relieve` is called, and that afterwards all traffic is on disk.
fn assert_saves_recover(daemon: Daemon, words: &str, base: Counters, relieve: impl FnOnce(&Daemon)) {
    wait_until("saving fails", || {
        send("wan0", 1000, 1);
        daemon.collect();
        database_status(&daemon) == "degraded"
    });
    wait_until(&format!("{words} in: {}", database_error(&daemon)), || database_error(&daemon).contains(words));
    send("wan0", 1000, 3);
    daemon.wait_for_ticks(2);
    relieve(&daemon);
    signal(daemon.pid(), nix::sys::signal::Signal::SIGHUP);
    wait_until("all samples are saved", || database_error(&daemon).is_empty() && unsaved_samples(&daemon) == 0);
    daemon.collect();
    assert_eq!(daemon.exported_sum("wan0"), minus(kernel_counters("wan0"), base), "{:#?}", daemon.log());
    daemon.stop();
}

fn begin(command: Command) -> (Daemon, Counters) {
    cable("wan0", "lan0");
    send("wan0", 1000, 1);
    let daemon = Daemon::spawn(command);
    daemon.wait_for_ticks(1);
    let base = minus(kernel_counters("wan0"), daemon.exported_sum("wan0"));
    (daemon, base)
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk() {
    in_namespace(|| {
        // The write-ahead log reaches the first limit while the daemon runs. With the second limit, the daemon cannot
        // write to the first file that it creates.
        for limit in ["90000", "0"] {
            let dir = Dir::new();
            let (daemon, base) = begin(limited(&format!("--fsize={limit}:unlimited"), &dir));
            assert_saves_recover(daemon, "the limit on the size of a file is reached", base, |daemon| {
                run("prlimit", &format!("--fsize=unlimited --pid {}", daemon.pid()));
            });
            assert_eq!(check_with_sqlite(&dir.join("data/net-pulse.db")).0, "ok");
            ip("link del wan0");
        }
        // The limit does not kill a subcommand either.
        let dir = Dir::new();
        let mut token = limited("--fsize=0", &dir);
        token.arg("token");
        let token = finish(token);
        assert_eq!(token.code, Some(1), "{}", token.err);
        assert!(token.err.contains("too large"), "{}", token.err);
    });
}

/// Errors of a file system with a quota, and of an NFS server that no longer knows a file.
#[test]
fn a_quota_and_a_stale_handle_are_named() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        for (error, words) in [("EDQUOT", "the disk quota is used up"), ("ESTALE", "stale file handle")] {
            let dir = Dir::new();
            let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
            command.args(["--host", "127.0.0.1", "--port", "0", "--interval", "1", "--flush", "1"]);
            command.args(["--database", &dir.join("data/net-pulse.db")]);
            let (daemon, base) = begin(command);
            let fault = InjectedFault::on_sqlite_writes(&daemon, &format!("error={error}"));
            assert_saves_recover(daemon, words, base, |_| drop(fault));
            ip("link del wan0");
        }
    });
}

/// With too few descriptors, the daemon ends at the start with one line. With the number of descriptors that this line
/// names, it answers every request.
#[test]
fn too_few_descriptors_are_reported_at_the_start() {
    let dir = Dir::new();
    let ended = finish(limited("--nofile=20", &dir));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    let words: Vec<&str> = ended.err.split_whitespace().collect();
    let needed =
        words.windows(2).find(|pair| pair[1] == "are" && pair[0].parse::<u32>().is_ok_and(|number| number > 20));
    let needed: u32 =
        needed.unwrap_or_else(|| panic!("no number of descriptors in: {}", ended.err))[0].parse().expect("a number");
    assert!(
        ended.err.contains("too few open files: 20 are allowed") && ended.err.contains("ulimit -n"),
        "{}",
        ended.err
    );
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    for fewer in [6, 8, 14, needed - 2, needed - 1] {
        let ended = finish(limited(&format!("--nofile={fewer}"), &dir));
        assert_eq!(ended.code, Some(1), "{fewer}: {}", ended.err);
        assert!(!ended.err.contains("http://") && ended.err.lines().count() == 1, "{fewer}: {}", ended.err);
    }

    // A second listener takes one of the descriptors, so the daemon may refuse a backup with an error.
    for (hosts, has_backup) in [(&["--host", "127.0.0.2"][..], false), (&[], true)] {
        let mut command = limited(&format!("--nofile={needed}"), &dir);
        command.args(hosts);
        let daemon = Daemon::spawn(command);
        for _ in 0..3 {
            for (method, path) in [
                ("GET", "/api/system/health"),
                ("GET", "/api/export/traffic?format=json"),
                ("POST", "/api/backup"),
                ("GET", "/api/interfaces"),
                ("GET", "/api/traffic/series?interface_name=lo"),
            ] {
                let answer = daemon.request(method, path, None);
                let answered = answer.status < 500 || (method == "POST" && !has_backup && answer.status != 502);
                assert!(answered, "{method} {path}: {} {:#?}", answer.text(), daemon.log());
            }
            let before = stored_samples(&daemon);
            wait_until("samples are saved", || stored_samples(&daemon) > before);
        }
        assert_eq!((database_status(&daemon), database_error(&daemon)), ("healthy".to_string(), String::new()));
        let lines: Vec<String> = daemon.log().into_iter().filter(|line| line.contains("Too many open")).collect();
        assert!(lines.is_empty(), "{lines:#?}");
        daemon.stop();
    }
}
