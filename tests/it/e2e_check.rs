//! `net-pulse check --health` as a supervisor meets it: the exit code for a daemon that is well, ill, gone, frozen or
//! somebody else, within the time that it promises. And `net-pulse check` as a person does, who looks for what is wrong.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::disk::{Fault, signal};
use crate::common::*;
use nix::sys::signal::Signal;

const NOBODY: u32 = 65_534;
const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");
/// What it promises, and a busy machine.
const BOUND: Duration = Duration::from_secs(8);

/// By the settings given, which are those that the daemon was started with.
fn check(settings: &[&str]) -> Ended {
    check_in(settings, &[])
}

fn check_in(settings: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = net_pulse(BINARY);
    command.args(settings).args(["check", "--health"]).envs(environment.iter().copied());
    let started = Instant::now();
    let ended = finish(command);
    assert!(started.elapsed() < BOUND, "{settings:?} took {:?}", started.elapsed());
    ended
}

#[track_caller]
fn well(ended: &Ended) {
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "healthy\n", ""));
}

/// One sentence with all of `words`, on standard error.
#[track_caller]
fn ill(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!((ended.code, ended.out.as_str(), ended.err.lines().count()), (Some(code), "", 1), "{}", ended.err);
    for word in words {
        assert!(ended.err.contains(word), "'{word}' is missing in: {}", ended.err);
    }
}

fn daemon(dir: &Dir, settings: &[&str]) -> Daemon {
    let mut command = net_pulse(BINARY);
    // What is typed beats it.
    command.env("NETPULSE_DATABASE", dir.join("net-pulse.db")).args(["--port", "0"]).args(settings);
    Daemon::spawn(command)
}

#[test]
fn a_daemon_that_is_well_and_then_gone() {
    // A port that was given back stays free, for no other test is in this namespace.
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = daemon(&dir, &["--host", "127.0.0.1"]);
        let port = daemon.port().to_string();
        well(&check(&["--host", "127.0.0.1", "--port", &port]));
        // As in a unit or a container: there is no terminal.
        well(&check_in(&[], &[("NETPULSE_HOST", "127.0.0.1"), ("NETPULSE_PORT", &port)]));
        // No further setting, and the name stands for both families.
        well(&check(&["--port", &port]));
        well(&check(&["--host", "localhost", "--port", &port]));
        daemon.stop();
        let gone = format!("127.0.0.1:{port}: ");
        for settings in [&["--port", port.as_str()][..], &["--host", "127.0.0.1", "--port", &port]] {
            ill(&check(settings), 1, &[&gone, "refused", "start net-pulse", "--host", "--port"]);
        }
    });
}

#[test]
fn a_daemon_that_goes_on_without_its_disk_is_left_alone() {
    let dir = Dir::new();
    let file = dir.join("a-file");
    fs::write(&file, "").expect("it is ours");
    let daemon = daemon(&dir, &["--host", "127.0.0.1", "--database", &format!("{file}/net-pulse.db")]);
    let ended = check(&["--port", &daemon.port().to_string()]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert!(ended.out.starts_with("degraded: ") && ended.out.contains("a-file"), "{}", ended.out);
    assert_eq!(ended.out.lines().count(), 1);
}

/// Nothing of such a run is ever kept, and only a person can change that. As soon as one has, all is well, without a restart.
#[test]
fn a_history_that_may_not_be_written_is_an_illness() {
    in_namespace(|| {
        let dir = Dir::new();
        let open = |mode| fs::set_permissions(dir.path(), Permissions::from_mode(mode)).expect("it is ours");
        open(0o755);
        let binary = dir.join("net-pulse");
        fs::copy(BINARY, &binary).expect("a copy");
        let mut command = net_pulse(&binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        let daemon = Daemon::spawn(command);
        let port = daemon.port().to_string();
        wait_until("it is ill", || check(&["--port", &port]).code == Some(1));
        let whose = format!(
            "{} belongs to user 0, and net-pulse runs as user {NOBODY}; let user {NOBODY} write there",
            dir.path().display()
        );
        ill(&check(&["--port", &port]), 1, &["unhealthy: the newest figures are in memory only", "denied", &whose]);
        open(0o777);
        // It tries again by itself too, at growing distances.
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("it is well", || check(&["--port", &port]).code == Some(0));
        well(&check(&["--port", &port]));
        daemon.stop();
    });
}

#[test]
fn a_daemon_that_cannot_read_its_counters_is_ill_until_it_can() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = daemon(&dir, &["--host", "127.0.0.1", "--interval", "1"]);
        let port = daemon.port().to_string();
        daemon.ticks(1);
        well(&check(&["--port", &port]));
        {
            let _fault = Fault::of_sampler(&daemon, "recvfrom,sendto,socket,open,openat", "error=EIO");
            wait_until("it is ill", || check(&["--port", &port]).code == Some(1));
            let address = format!("127.0.0.1:{port}: ");
            ill(&check(&["--port", &port]), 1, &[&address, "unhealthy: the counters could not be read for"]);
        }
        wait_until("it is well again", || check(&["--port", &port]).code == Some(0));
        daemon.stop();
    });
}

#[test]
fn a_frozen_daemon_is_not_waited_for() {
    let dir = Dir::new();
    let daemon = daemon(&dir, &["--host", "127.0.0.1"]);
    daemon.get("/health");
    daemon.freeze();
    let port = daemon.port().to_string();
    let (ended, looked) = thread::scope(|scope| {
        let looked = scope.spawn(|| look(&["--port", &port]));
        (check(&["--port", &port]), looked.join().expect("it ends"))
    });
    signal(daemon.pid(), Signal::SIGCONT);
    ill(&ended, 1, &[&port, "no answer within 5 s"]);
    let last = looked.out.lines().last().unwrap_or_default();
    assert!(looked.code == Some(1) && last.starts_with("fault net-pulse: no answer within 5 s"), "{}", looked.out);
    // What came before it is told.
    assert!(looked.out.contains("interfaces, read by"), "{}", looked.out);
    daemon.stop();
}

#[test]
fn a_private_daemon_asks_for_the_token_where_it_has_to() {
    in_namespace(|| {
        let dir = Dir::new();
        let database = dir.join("net-pulse.db");
        ip("address add 10.7.0.1/24 dev lo");

        // Everywhere: the loopback needs no token, nor a setting that tells of it.
        let open = daemon(&dir, &["--private"]);
        let port = open.port().to_string();
        well(&check(&["--private", "--database", "/nonexistent/net-pulse.db", "--port", &port]));
        well(&check(&["--port", &port]));
        // Among several the loopback comes first, however they are ordered.
        well(&check(&["--private", "--port", &port, "--host", "10.7.0.1", "--host", "127.0.0.1"]));
        open.stop();

        let daemon = daemon(&dir, &["--private", "--host", "10.7.0.1"]);
        let port = daemon.port().to_string();
        let at = ["--host", "10.7.0.1", "--port", &port];
        let with = |more: &[&str]| check(&[&at[..], more].concat());
        well(&with(&["--private", "--database", &database]));
        well(&check_in(&at, &[("NETPULSE_PRIVATE", "1"), ("NETPULSE_DATABASE", &database)]));
        ill(&with(&["--database", &database]), 1, &["10.7.0.1", "access token", "--private", "--database"]);
        let other = dir.join("other.db");
        ill(&with(&["--private", "--database", &other]), 1, &["other.db.token", "no access token", "--database"]);
        assert!(!fs::exists(format!("{other}.token")).expect("it is ours"), "it made a token");
        fs::write(format!("{other}.token"), "0123456789abcdefghjkmnpq\n").expect("it is ours");
        ill(&with(&["--private", "--database", &other]), 1, &["10.7.0.1", "access token", "--database"]);
        let log = daemon.stop().join("\n");
        let token = fs::read_to_string(format!("{database}.token")).expect("it was made");
        assert!(!log.contains(token.trim()), "the token is in the log: {log}");
    });
}

#[test]
fn each_family_alone() {
    in_namespace(|| {
        let dir = Dir::new();
        // Routers without IPv6: the daemon goes without, and so does the check.
        let four = daemon(&dir, &[]);
        well(&check(&["--port", &four.port().to_string()]));
        four.stop();
        ill(&check(&["--host", "::1"]), 1, &["[::1]:8000: ", "--host"]);

        fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").expect("a namespace of our own");
        for host in ["::1", "[::1]", "::"] {
            let six = daemon(&dir, &["--host", host]);
            let port = six.port().to_string();
            well(&check(&["--host", host, "--port", &port]));
            // Nothing was said about the family: the other one is tried.
            well(&check(&["--port", &port]));
            six.stop();
        }
    });
}

/// Somebody else's address may have got the packets, and the token: it is neither waited for nor asked.
#[test]
fn an_address_that_is_gone() {
    let started = Instant::now();
    ill(&check(&["--private", "--host", "192.0.2.7"]), 1, &["192.0.2.7:8000: ", "--host"]);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

/// Answers every connection that way; the thread ends with the test's process.
fn somebody_else(answers: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = answers(&mut stream);
        }
    });
    address
}

#[test]
fn what_is_not_net_pulse_is_told_so_and_not_waited_for() {
    const HEALTHY: &str = "{\"status\":\"healthy\"}";
    let said = |answer: String, words: &[&str]| {
        let address = somebody_else(move |stream| {
            // All of the question, or the end of the connection would be a reset.
            let _ = stream.read(&mut [0; 1024])?;
            stream.write_all(answer.as_bytes())
        });
        ill(&check(&["--port", &address.port().to_string()]), 1, &[&[&*address.to_string()], words].concat());
    };
    said(String::new(), &["the answer is not from net-pulse"]);
    said("SSH-2.0-dropbear\r\n".to_string(), &["the answer is not from net-pulse"]);
    said(format!("HTTP/1.1 404 Not Found\r\n\r\n{HEALTHY}"), &["the answer is not from net-pulse"]);
    said("HTTP/1.1 200 OK\r\n\r\n<html>It works!</html>".to_string(), &["the answer is not from net-pulse", "--port"]);
    said("HTTP/1.1 503 x\r\n\r\n{\"detail\":\"a\\u001b[2Jb\\n\"}".to_string(), &["503", "a?[2Jb?"]);
    said(format!("HTTP/1.1 200 OK\r\n\r\n{HEALTHY}{}", "x".repeat(1 << 20)), &["the answer is not from net-pulse"]);
}

#[test]
fn a_server_without_an_end_is_not_waited_for() {
    let endless = somebody_else(|stream| {
        loop {
            stream.write_all(b"X-More: and more\r\n")?;
        }
    });
    let dripping = somebody_else(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"healthy\"}")?;
        loop {
            stream.write_all(b" ")?;
            rest(100);
        }
    });
    ill(&check(&["--port", &endless.port().to_string()]), 1, &[&endless.to_string()]);
    ill(&check(&["--port", &dripping.port().to_string()]), 1, &["no answer within 5 s"]);
}

#[test]
fn what_was_typed_wrong_is_exit_2() {
    ill(&check(&["--port", "0"]), 2, &["--port", "log"]);
    ill(&check_in(&[], &[("NETPULSE_PORT", "0")]), 2, &["NETPULSE_PORT"]);
    ill(&check(&["--port", "http"]), 2, &["--port"]);
    ill(&check(&["--host", "300.1.1.1"]), 2, &["--host"]);
    let run = |arguments: &[&str]| {
        let mut command: Command = net_pulse(BINARY);
        command.args(arguments);
        finish(command)
    };
    for command in [&["check"][..], &["check", "--health"]] {
        ill(&run(&[command, &["--port", "0"]].concat()), 2, &["--port", "log"]);
        ill(&run(&[command, &["--port=http"]].concat()), 2, &["--port"]);
        ill(&run(&[command, &["--wealth"]].concat()), 2, &["--wealth", "did you mean check --health?"]);
    }
    let help = run(&["check", "--help"]);
    assert!(help.code == Some(0) && help.out.contains("--health"), "{}", help.out);
}

/// `net-pulse check`, its options behind it.
fn look(settings: &[&str]) -> Ended {
    let mut command = net_pulse(BINARY);
    command.arg("check").args(settings);
    let started = Instant::now();
    let ended = finish(command);
    assert!(started.elapsed() < BOUND, "{settings:?} took {:?}", started.elapsed());
    ended
}

/// A line for each part, in their order, each with its word and its text.
#[track_caller]
fn found(ended: &Ended, code: i32, expect: [(&str, &str); 6]) {
    const PARTS: [&str; 6] = ["settings", "time zone", "interfaces", "history", "access token", "net-pulse"];
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!((ended.code, lines.len()), (Some(code), 6), "{}{}", ended.out, ended.err);
    for ((line, part), (word, text)) in lines.iter().zip(PARTS).zip(expect) {
        assert!(line.starts_with(&format!("{word:5} {part}: ")) && line.contains(text), "not {word} '{text}': {line}");
    }
    let faults = expect.iter().filter(|(word, _)| *word == "fault").count();
    let told = ["", "net-pulse: check: 1 fault found\n", "net-pulse: check: 2 faults found\n"];
    assert_eq!(ended.err, told[faults]);
}

#[test]
fn everything_is_looked_at_and_nothing_is_touched() {
    in_namespace(|| {
        cable("wan0", "far0");
        let dir = Dir::new();
        let database = dir.join("net-pulse.db");
        let files = || {
            let facts = |entry: fs::DirEntry| {
                let facts = entry.metadata().expect("it is ours");
                (entry.file_name(), facts.len(), facts.modified().expect("a time"))
            };
            let mut files: Vec<_> = fs::read_dir(dir.path()).expect("it is ours").flatten().map(facts).collect();
            files.sort();
            files
        };
        let zone = "--timezone=Europe/Nowhere";
        let settings = |port: &str| ["--port".to_string(), port.to_string(), format!("--database={database}")];
        let look = |port: &str, more: &[&str]| {
            let settings = settings(port);
            look(&[&settings.each_ref().map(String::as_str)[..], more].concat())
        };
        let missing = ["--interface", "wan0", "--interface=ppp*", "--timezone", "UTC0"];
        let wait = [
            ("note", "net-pulse.db does not exist yet"),
            ("note", "net-pulse.db.token does not exist yet"),
            ("fault", "start net-pulse"),
        ];
        let [nowhere, nothing, silent] = wait;
        let given = ("ok", "--port, --database, --timezone, --interface");
        let unmatched = ("note", "3 interfaces, read by getstats; no interface matches --interface ppp*");
        found(&look("8000", &missing), 1, [given, ("ok", "UTC0"), unmatched, nowhere, nothing, silent]);
        assert_eq!(files(), []);
        let unknown = ("fault", "--timezone: ");
        let seen = ("ok", "3 interfaces, read by getstats");
        found(&look("8000", &[zone]), 1, [("ok", "--timezone"), unknown, seen, nowhere, nothing, silent]);

        let daemon = Daemon::start(&dir, &["--interface", "wan0", "--flush", "1", "--interval", "1"]);
        daemon.ticks(1);
        daemon.post("/collector/stop");
        let saved = || daemon.get("/api/system/health")["details"]["database"]["unsaved_records"] == 0;
        wait_until("all is saved", saved);
        let (port, before) = (daemon.port().to_string(), files());
        let ours = [("ok", "--database"), ("ok", ""), seen, ("ok", &database), ("ok", "net-pulse.db.token")];
        let [given, utc, links, there, token] = ours;
        // Stopped on purpose is a note.
        found(&look(&port, &[]), 0, [given, utc, links, there, token, ("note", "degraded: ")]);
        assert_eq!(files(), before);
        daemon.post("/collector/start");
        found(&look(&port, &[]), 0, [given, utc, links, there, token, ("ok", "healthy")]);
        // Whatever was looked at, the daemon has its locks still.
        let mut second = net_pulse(BINARY);
        second.args(["--port", "0", "--host", "127.0.0.1", "--database", &database]);
        let refused = finish(second);
        assert!(refused.code == Some(1) && refused.err.contains("another net-pulse uses"), "{}", refused.err);
        daemon.ticks(2);
        let log = daemon.stop();
        assert!(!log.iter().any(|line| line.contains("error")), "{log:?}");

        fs::write(&database, "a letter to the editor").expect("it is ours");
        fs::remove_file(format!("{database}.guard")).expect("it is ours");
        let foreign = ("fault", "is not a database of net-pulse; name another file with --database");
        found(&look(&port, &[]), 1, [given, utc, links, foreign, token, silent]);
        assert_eq!(fs::read(&database).expect("it is ours"), b"a letter to the editor");
    });
}

#[test]
fn a_history_is_the_daemons_or_another() {
    let dir = Dir::new();
    let mut command = net_pulse(BINARY);
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", "own.db"]).current_dir(dir.path());
    let relative = Daemon::spawn(command);
    let absolute = Daemon::start(&dir, &[]);
    let says = |daemon: &Daemon, database: &str| {
        let mut command = net_pulse(BINARY);
        let port = daemon.port().to_string();
        command.args(["check", "--port", &port, "--database", database]).current_dir(dir.path());
        finish(command).out.contains("uses another database")
    };
    assert!(!says(&relative, "own.db") && !says(&relative, &dir.join("own.db")));
    assert!(!says(&absolute, "net-pulse.db") && !says(&absolute, &dir.join("net-pulse.db")));
    assert!(says(&absolute, "own.db"));
}

#[test]
fn a_history_of_another_user_and_of_a_newer_version() {
    if !nix::unistd::geteuid().is_root() {
        return skip("not root: no history of another user can be made");
    }
    let dir = Dir::new();
    let database = dir.join("net-pulse.db");
    let mut head = vec![0; 4096];
    head[..16].copy_from_slice(b"SQLite format 3\0");
    head[60..64].copy_from_slice(&999_i32.to_be_bytes());
    head[68..72].copy_from_slice(b"NPls");
    head[100] = 13;
    let says = |head: &[u8], words: &str| {
        fs::write(&database, head).expect("it is ours");
        let ended = look(&["--database", &database, "--port", "1"]);
        assert!(ended.code == Some(1) && ended.out.contains("fault history: "), "{}", ended.out);
        assert!(ended.out.contains(words), "{}", ended.out);
    };
    says(&head, "schema 999");
    // Another program's, by its id, or by a table without one.
    let foreign = "is not a database of net-pulse; name another file with --database";
    head[60..64].copy_from_slice(&0_i32.to_be_bytes());
    head[68..72].copy_from_slice(b"GPKG");
    says(&head, foreign);
    head[68..72].copy_from_slice(&[0; 4]);
    head[104] = 1;
    says(&head, foreign);
    head[104] = 0;
    fs::write(&database, &head).expect("it is ours");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o444)).expect("it is ours");
    let mut command = net_pulse(BINARY);
    command.args(["check", "--port", "1", "--database", &database]).uid(65534);
    let ended = finish(command);
    for said in [
        "net-pulse.db: Permission denied (os error 13); ",
        "belongs to user 0",
        "or run this as the user that net-pulse runs as",
    ] {
        assert!(ended.code == Some(1) && ended.out.contains(said), "{}{}", ended.out, ended.err);
    }
}
