//! `net-pulse check --health` as a supervisor uses it: the exit code for a daemon that is healthy, unhealthy, gone or
//! frozen, and for another program on the port, within the promised time. And `net-pulse check` as a person uses it to
//! find faults.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::disk::{InjectedFault, signal};
use crate::common::*;
use nix::sys::signal::Signal;

const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");
/// The time limit that the check promises, with a margin for a busy machine.
const CHECK_LIMIT: Duration = Duration::from_secs(8);

/// Runs `check --health` with the settings that the daemon was started with.
fn check(settings: &[&str]) -> FinishedRun {
    check_in(settings, &[])
}

fn check_in(settings: &[&str], environment: &[(&str, &str)]) -> FinishedRun {
    let mut command = net_pulse(BINARY);
    command.args(settings).args(["check", "--health"]).envs(environment.iter().copied());
    let started = Instant::now();
    let ended = finish(command);
    assert!(started.elapsed() < CHECK_LIMIT, "{settings:?} took {:?}", started.elapsed());
    ended
}

#[track_caller]
fn assert_healthy(ended: &FinishedRun) {
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "healthy\n", ""));
}

/// Checks that standard error is one line with all `words`.
#[track_caller]
fn assert_fails(ended: &FinishedRun, code: i32, words: &[&str]) {
    assert_eq!((ended.code, ended.out.as_str(), ended.err.lines().count()), (Some(code), "", 1), "{}", ended.err);
    for word in words {
        assert!(ended.err.contains(word), "'{word}' is missing in: {}", ended.err);
    }
}

fn daemon(dir: &Dir, settings: &[&str]) -> Daemon {
    let mut command = net_pulse(BINARY);
    // A --database on the command line overrides this one.
    command.env("NETPULSE_DATABASE", dir.join("net-pulse.db")).args(["--port", "0"]).args(settings);
    Daemon::spawn(command)
}

#[test]
fn the_check_succeeds_while_a_daemon_runs_and_fails_after_its_end() {
    // Other tests run in other namespaces, so no other program gets the port after the daemon has ended.
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = daemon(&dir, &["--host", "127.0.0.1"]);
        let port = daemon.port().to_string();
        assert_healthy(&check(&["--host", "127.0.0.1", "--port", &port]));
        // Settings from the environment, as in a systemd unit or a container.
        assert_healthy(&check_in(&[], &[("NETPULSE_HOST", "127.0.0.1"), ("NETPULSE_PORT", &port)]));
        // Without --host, and with a host name that stands for both address families.
        assert_healthy(&check(&["--port", &port]));
        assert_healthy(&check(&["--host", "localhost", "--port", &port]));
        daemon.stop();
        let gone = format!("127.0.0.1:{port}: ");
        for settings in [&["--port", port.as_str()][..], &["--host", "127.0.0.1", "--port", &port]] {
            assert_fails(&check(settings), 1, &[&gone, "refused", "start net-pulse", "--host", "--port"]);
        }
    });
}

#[test]
fn a_daemon_without_its_disk_passes_the_check() {
    let dir = Dir::new();
    let file = dir.join("a-file");
    fs::write(&file, "").expect("a file of the test");
    let daemon = daemon(&dir, &["--host", "127.0.0.1", "--database", &format!("{file}/net-pulse.db")]);
    let ended = check(&["--port", &daemon.port().to_string()]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert!(ended.out.starts_with("degraded: ") && ended.out.contains("a-file"), "{}", ended.out);
    assert_eq!(ended.out.lines().count(), 1);
}

/// Such a daemon saves nothing until a person changes the permissions. Then it recovers without a restart.
#[test]
fn a_history_without_write_permission_is_unhealthy() {
    in_namespace(|| {
        let dir = Dir::new();
        let set_mode =
            |mode| fs::set_permissions(dir.path(), Permissions::from_mode(mode)).expect("a file of the test");
        set_mode(0o755);
        let binary = dir.join("net-pulse");
        fs::copy(BINARY, &binary).expect("a copy");
        let mut command = net_pulse(&binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]);
        command.uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID).current_dir("/");
        let daemon = Daemon::spawn(command);
        let port = daemon.port().to_string();
        wait_until("the check fails", || check(&["--port", &port]).code == Some(1));
        let reason = format!(
            "{} belongs to user 0, and this program runs as user {UNPRIVILEGED_UID}; \
             let user {UNPRIVILEGED_UID} write there",
            dir.path().display()
        );
        assert_fails(
            &check(&["--port", &port]),
            1,
            &["unhealthy: the newest figures are in memory only", "denied", &reason],
        );
        set_mode(0o777);
        // The daemon also retries by itself, at growing intervals.
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the check succeeds", || check(&["--port", &port]).code == Some(0));
        assert_healthy(&check(&["--port", &port]));
        daemon.stop();
    });
}

#[test]
fn a_daemon_that_cannot_read_its_counters_is_unhealthy_until_it_can() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = daemon(&dir, &["--host", "127.0.0.1", "--interval", "1"]);
        let port = daemon.port().to_string();
        daemon.wait_for_ticks(1);
        assert_healthy(&check(&["--port", &port]));
        {
            let _fault = InjectedFault::of_sampler(&daemon, "recvfrom,sendto,socket,open,openat", "error=EIO");
            wait_until("the check fails", || check(&["--port", &port]).code == Some(1));
            let address = format!("127.0.0.1:{port}: ");
            assert_fails(&check(&["--port", &port]), 1, &[&address, "unhealthy: the counters could not be read for"]);
        }
        wait_until("the check succeeds again", || check(&["--port", &port]).code == Some(0));
        daemon.stop();
    });
}

#[test]
fn the_check_does_not_wait_for_a_frozen_daemon() {
    let dir = Dir::new();
    let daemon = daemon(&dir, &["--host", "127.0.0.1"]);
    daemon.get("/health");
    daemon.freeze();
    let port = daemon.port().to_string();
    let (ended, full_check) = thread::scope(|scope| {
        let full_check = scope.spawn(|| run_check(&["--port", &port]));
        (check(&["--port", &port]), full_check.join().expect("the thread ends"))
    });
    signal(daemon.pid(), Signal::SIGCONT);
    assert_fails(&ended, 1, &[&port, "no answer within 5 s"]);
    let last = full_check.out.lines().last().unwrap_or_default();
    assert!(
        full_check.code == Some(1) && last.starts_with("fault net-pulse: no answer within 5 s"),
        "{}",
        full_check.out
    );
    // The check still prints the parts before this one.
    assert!(full_check.out.contains("interfaces, read by"), "{}", full_check.out);
    daemon.stop();
}

#[test]
fn a_private_daemon_requires_the_token_except_from_loopback() {
    in_namespace(|| {
        let dir = Dir::new();
        let database = dir.join("net-pulse.db");
        ip("address add 10.7.0.1/24 dev lo");

        // A daemon on all addresses: a check from the loopback needs neither the token nor --private.
        let on_all_addresses = daemon(&dir, &["--private"]);
        let port = on_all_addresses.port().to_string();
        assert_healthy(&check(&["--private", "--database", "/nonexistent/net-pulse.db", "--port", &port]));
        assert_healthy(&check(&["--port", &port]));
        // The check tries the loopback first, whatever the order of the hosts.
        assert_healthy(&check(&["--private", "--port", &port, "--host", "10.7.0.1", "--host", "127.0.0.1"]));
        on_all_addresses.stop();

        let daemon = daemon(&dir, &["--private", "--host", "10.7.0.1"]);
        let port = daemon.port().to_string();
        let at = ["--host", "10.7.0.1", "--port", &port];
        let with = |more: &[&str]| check(&[&at[..], more].concat());
        assert_healthy(&with(&["--private", "--database", &database]));
        assert_healthy(&check_in(&at, &[("NETPULSE_PRIVATE", "1"), ("NETPULSE_DATABASE", &database)]));
        assert_fails(&with(&["--database", &database]), 1, &["10.7.0.1", "access token", "--private", "--database"]);
        let other = dir.join("other.db");
        assert_fails(
            &with(&["--private", "--database", &other]),
            1,
            &["other.db.token", "no access token", "--database"],
        );
        assert!(!fs::exists(format!("{other}.token")).expect("a file of the test"), "the check made a token");
        fs::write(format!("{other}.token"), "0123456789abcdefghjkmnpq\n").expect("a file of the test");
        assert_fails(&with(&["--private", "--database", &other]), 1, &["10.7.0.1", "access token", "--database"]);
        let log = daemon.stop().join("\n");
        let token = fs::read_to_string(format!("{database}.token")).expect("a token file");
        assert!(!log.contains(token.trim()), "the token is in the log: {log}");
    });
}

#[test]
fn the_check_works_with_either_address_family_alone() {
    in_namespace(|| {
        let dir = Dir::new();
        // Routers without IPv6: the daemon and the check use only IPv4.
        let ipv4 = daemon(&dir, &[]);
        assert_healthy(&check(&["--port", &ipv4.port().to_string()]));
        ipv4.stop();
        assert_fails(&check(&["--host", "::1"]), 1, &["[::1]:8000: ", "--host"]);

        fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").expect("a namespace of the test");
        for host in ["::1", "[::1]", "::"] {
            let ipv6 = daemon(&dir, &["--host", host]);
            let port = ipv6.port().to_string();
            assert_healthy(&check(&["--host", host, "--port", &port]));
            // Without --host the check also tries the other family.
            assert_healthy(&check(&["--port", &port]));
            ipv6.stop();
        }
    });
}

/// Another machine may have the address by now, and would receive the token. So the check neither sends a request nor
/// waits.
#[test]
fn the_check_sends_nothing_to_a_host_address_that_is_gone() {
    let started = Instant::now();
    assert_fails(&check(&["--private", "--host", "192.0.2.7"]), 1, &["192.0.2.7:8000: ", "--host"]);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

/// A server that calls `answer` for every connection. The thread ends with the test process.
fn fake_server(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = answer(&mut stream);
        }
    });
    address
}

#[test]
fn another_program_on_the_port_is_recognised_in_time() {
    const HEALTHY: &str = "{\"status\":\"healthy\"}";
    let check_answer = |answer: String, words: &[&str]| {
        let address = fake_server(move |stream| {
            // Read the whole request first, or closing the connection would send a reset.
            let _ = stream.read(&mut [0; 1024])?;
            stream.write_all(answer.as_bytes())
        });
        assert_fails(&check(&["--port", &address.port().to_string()]), 1, &[&[&*address.to_string()], words].concat());
    };
    check_answer(String::new(), &["the answer is not from net-pulse"]);
    check_answer("SSH-2.0-dropbear\r\n".to_string(), &["the answer is not from net-pulse"]);
    check_answer(format!("HTTP/1.1 404 Not Found\r\n\r\n{HEALTHY}"), &["the answer is not from net-pulse"]);
    check_answer(
        "HTTP/1.1 200 OK\r\n\r\n<html>It works!</html>".to_string(),
        &["the answer is not from net-pulse", "--port"],
    );
    check_answer("HTTP/1.1 503 x\r\n\r\n{\"detail\":\"a\\u001b[2Jb\\n\"}".to_string(), &["503", "a?[2Jb?"]);
    check_answer(
        format!("HTTP/1.1 200 OK\r\n\r\n{HEALTHY}{}", "x".repeat(1 << 20)),
        &["the answer is not from net-pulse"],
    );
}

#[test]
fn an_endless_answer_does_not_delay_the_check() {
    let endless = fake_server(|stream| {
        loop {
            stream.write_all(b"X-More: and more\r\n")?;
        }
    });
    let dripping = fake_server(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"healthy\"}")?;
        loop {
            stream.write_all(b" ")?;
            sleep_ms(100);
        }
    });
    assert_fails(&check(&["--port", &endless.port().to_string()]), 1, &[&endless.to_string()]);
    assert_fails(&check(&["--port", &dripping.port().to_string()]), 1, &["no answer within 5 s"]);
}

#[test]
fn wrong_arguments_end_with_exit_2() {
    assert_fails(&check(&["--port", "0"]), 2, &["--port", "log"]);
    assert_fails(&check_in(&[], &[("NETPULSE_PORT", "0")]), 2, &["NETPULSE_PORT"]);
    assert_fails(&check(&["--port", "http"]), 2, &["--port"]);
    assert_fails(&check(&["--host", "300.1.1.1"]), 2, &["--host"]);
    let run = |arguments: &[&str]| {
        let mut command: Command = net_pulse(BINARY);
        command.args(arguments);
        finish(command)
    };
    for command in [&["check"][..], &["check", "--health"]] {
        assert_fails(&run(&[command, &["--port", "0"]].concat()), 2, &["--port", "log"]);
        assert_fails(&run(&[command, &["--port=http"]].concat()), 2, &["--port"]);
        assert_fails(&run(&[command, &["--wealth"]].concat()), 2, &["--wealth", "did you mean check --health?"]);
    }
    let help = run(&["check", "--help"]);
    assert!(help.code == Some(0) && help.out.contains("--health"), "{}", help.out);
}

/// Runs `net-pulse check` with the options after the subcommand.
fn run_check(settings: &[&str]) -> FinishedRun {
    let mut command = net_pulse(BINARY);
    command.arg("check").args(settings);
    let started = Instant::now();
    let ended = finish(command);
    assert!(started.elapsed() < CHECK_LIMIT, "{settings:?} took {:?}", started.elapsed());
    ended
}

/// Checks the report: a line for each part in this order, each with its word and its text.
#[track_caller]
fn assert_report(ended: &FinishedRun, code: i32, expect: [(&str, &str); 6]) {
    const PARTS: [&str; 6] = ["settings", "time zone", "interfaces", "history", "access token", "net-pulse"];
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!((ended.code, lines.len()), (Some(code), 6), "{}{}", ended.out, ended.err);
    for ((line, part), (word, text)) in lines.iter().zip(PARTS).zip(expect) {
        assert!(line.starts_with(&format!("{word:5} {part}: ")) && line.contains(text), "not {word} '{text}': {line}");
    }
    let faults = expect.iter().filter(|(word, _)| *word == "fault").count();
    let summaries = ["", "net-pulse: check: 1 fault found\n", "net-pulse: check: 2 faults found\n"];
    assert_eq!(ended.err, summaries[faults]);
}

#[test]
fn check_looks_at_everything_and_changes_nothing() {
    in_namespace(|| {
        cable("wan0", "far0");
        let dir = Dir::new();
        let database = dir.join("net-pulse.db");
        let files = || {
            let facts = |entry: fs::DirEntry| {
                let metadata = entry.metadata().expect("a file of the test");
                (entry.file_name(), metadata.len(), metadata.modified().expect("a time"))
            };
            let mut files: Vec<_> =
                fs::read_dir(dir.path()).expect("a file of the test").flatten().map(facts).collect();
            files.sort();
            files
        };
        let zone = "--timezone=Europe/Nowhere";
        let settings = |port: &str| ["--port".to_string(), port.to_string(), format!("--database={database}")];
        let run_check = |port: &str, more: &[&str]| {
            let settings = settings(port);
            run_check(&[&settings.each_ref().map(String::as_str)[..], more].concat())
        };
        let missing = ["--interface", "wan0", "--interface=ppp*", "--timezone", "UTC0"];
        let absent = [
            ("note", "net-pulse.db does not exist yet"),
            ("note", "net-pulse.db.token does not exist yet"),
            ("fault", "start net-pulse"),
        ];
        let [no_history, no_token, no_daemon] = absent;
        let given = ("ok", "--port, --database, --timezone, --interface");
        let unmatched = ("note", "3 interfaces, read by getstats; no interface matches --interface ppp*");
        assert_report(
            &run_check("8000", &missing),
            1,
            [given, ("ok", "UTC0"), unmatched, no_history, no_token, no_daemon],
        );
        assert_eq!(files(), []);
        let unknown = ("fault", "--timezone: ");
        let seen = ("ok", "3 interfaces, read by getstats");
        assert_report(
            &run_check("8000", &[zone]),
            1,
            [("ok", "--timezone"), unknown, seen, no_history, no_token, no_daemon],
        );

        let daemon = Daemon::start(&dir, &["--interface", "wan0", "--flush", "1", "--interval", "1"]);
        daemon.wait_for_ticks(1);
        daemon.post("/collector/stop");
        let saved = || daemon.get("/api/system/health")["details"]["database"]["unsaved_records"] == 0;
        wait_until("everything is saved", saved);
        let (port, before) = (daemon.port().to_string(), files());
        let present = [("ok", "--database"), ("ok", ""), seen, ("ok", &database), ("ok", "net-pulse.db.token")];
        let [given, utc, links, history, token] = present;
        // A collector that was stopped on purpose is a note.
        assert_report(&run_check(&port, &[]), 0, [given, utc, links, history, token, ("note", "degraded: ")]);
        assert_eq!(files(), before);
        daemon.post("/collector/start");
        assert_report(&run_check(&port, &[]), 0, [given, utc, links, history, token, ("ok", "healthy")]);
        // The daemon still has its locks after the check.
        let mut second = net_pulse(BINARY);
        second.args(["--port", "0", "--host", "127.0.0.1", "--database", &database]);
        let refused = finish(second);
        assert!(refused.code == Some(1) && refused.err.contains("another net-pulse uses"), "{}", refused.err);
        daemon.wait_for_ticks(2);
        let log = daemon.stop();
        assert!(!log.iter().any(|line| line.contains("error")), "{log:?}");

        fs::write(&database, "a letter to the editor").expect("a file of the test");
        fs::remove_file(format!("{database}.guard")).expect("a file of the test");
        let foreign = ("fault", "is not a database of net-pulse; name another file with --database");
        assert_report(&run_check(&port, &[]), 1, [given, utc, links, foreign, token, no_daemon]);
        assert_eq!(fs::read(&database).expect("a file of the test"), b"a letter to the editor");
    });
}

#[test]
fn check_reports_whether_the_daemon_has_another_history() {
    let dir = Dir::new();
    let mut command = net_pulse(BINARY);
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", "own.db"]).current_dir(dir.path());
    let relative = Daemon::spawn(command);
    let absolute = Daemon::start(&dir, &[]);
    let reports_other_history = |daemon: &Daemon, database: &str| {
        let mut command = net_pulse(BINARY);
        let port = daemon.port().to_string();
        command.args(["check", "--port", &port, "--database", database]).current_dir(dir.path());
        finish(command).out.contains("uses another database")
    };
    assert!(!reports_other_history(&relative, "own.db") && !reports_other_history(&relative, &dir.join("own.db")));
    assert!(
        !reports_other_history(&absolute, "net-pulse.db")
            && !reports_other_history(&absolute, &dir.join("net-pulse.db"))
    );
    assert!(reports_other_history(&absolute, "own.db"));
}

#[test]
fn check_reports_a_history_that_is_newer_foreign_or_unreadable() {
    if !nix::unistd::geteuid().is_root() {
        return skip("not root: no history of another user can be made");
    }
    let dir = Dir::new();
    let database = dir.join("net-pulse.db");
    let mut header = vec![0; 4096];
    header[..16].copy_from_slice(b"SQLite format 3\0");
    header[60..64].copy_from_slice(&999_i32.to_be_bytes());
    header[68..72].copy_from_slice(b"NPls");
    header[100] = 13;
    let assert_reports = |header: &[u8], words: &str| {
        fs::write(&database, header).expect("a file of the test");
        let ended = run_check(&["--database", &database, "--port", "1"]);
        assert!(ended.code == Some(1) && ended.out.contains("fault history: "), "{}", ended.out);
        assert!(ended.out.contains(words), "{}", ended.out);
    };
    assert_reports(&header, "schema 999");
    // A file of another program: recognised by its application id, or by a table and no id.
    let foreign = "is not a database of net-pulse; name another file with --database";
    header[60..64].copy_from_slice(&0_i32.to_be_bytes());
    header[68..72].copy_from_slice(b"GPKG");
    assert_reports(&header, foreign);
    header[68..72].copy_from_slice(&[0; 4]);
    header[104] = 1;
    assert_reports(&header, foreign);
    header[104] = 0;
    fs::write(&database, &header).expect("a file of the test");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a file of the test");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o444)).expect("a file of the test");
    let mut command = net_pulse(BINARY);
    command.args(["check", "--port", "1", "--database", &database]).uid(65534);
    let ended = finish(command);
    for text in [
        "net-pulse.db: Permission denied (os error 13); ",
        "belongs to user 0",
        "or run this as the user that net-pulse runs as",
    ] {
        assert!(ended.code == Some(1) && ended.out.contains(text), "{}{}", ended.out, ended.err);
    }
}
