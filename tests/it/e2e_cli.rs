//! The command line as a user sees it: messages, exit codes, and files that a failed start leaves untouched.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");
/// An account without rights.
const UNPRIVILEGED_UID: u32 = 65534;

fn with(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = net_pulse(BINARY);
    command.args(arguments).envs(environment.iter().copied());
    command
}

/// Checks that standard error is one sentence for a person: one line without debug output, with all `words`.
fn assert_one_sentence(ended: &FinishedRun, words: &[&str]) {
    let lines: Vec<&str> = ended.err.lines().collect();
    assert_eq!(lines.len(), 1, "not one sentence: {}", ended.err);
    for word in words {
        assert!(lines[0].contains(word), "'{word}' is missing in: {}", lines[0]);
    }
    assert!(!lines[0].contains("panicked") && !lines[0].contains("Err("), "{}", lines[0]);
    assert_eq!(ended.out, "", "errors belong on standard error");
}

/// The same for the last line of a start that may have logged other lines before.
fn assert_last_line(ended: &FinishedRun, word: &str) {
    let last = ended.err.lines().last().unwrap_or_default();
    assert!(last.contains(word), "'{word}' is missing in the last line of: {}", ended.err);
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
}

#[test]
fn version_and_help() {
    let ended = finish(with(&["--version"], &[]));
    let expect = format!("net-pulse {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((ended.code, ended.out, ended.err), (Some(0), expect, String::new()));
    let short = finish(with(&["-h"], &[]));
    let ended = finish(with(&["--help"], &[]));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!((short.code, short.out, short.err.as_str()), (Some(0), ended.out.clone(), ""));
    for flag in ["--host", "--port", "--database", "--interval", "--flush", "--media", "--timezone", "--log-level"] {
        assert!(ended.out.contains(flag), "{flag} is not in the help");
    }
}

#[test]
fn a_port_in_use_is_one_sentence_and_exit_1() {
    let dir = Dir::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let ended = finish(with(&["--host", "127.0.0.1", "--port", &port, "--database", &dir.join("db")], &[]));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert_one_sentence(&ended, &[&port, "--port"]);
}

/// A server that calls `answer` for every connection. The thread ends with the test process. Returns the port.
fn fake_server(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

#[test]
fn a_second_start_names_the_program_that_has_the_port() {
    in_namespace(|| {
        let dir = Dir::new();
        let second = |hosts: &[&str], port: u16| {
            let started = Instant::now();
            let (port, other) = (port.to_string(), dir.join("other.db"));
            let ended = finish(with(&[hosts, &["--port", &port, "--database", &other]].concat(), &[]));
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
            assert_eq!(ended.code, Some(1), "{}", ended.err);
            assert!(!fs::exists(&other).expect("a file of the test"));
            ended
        };
        let local = ["--host", "127.0.0.1"];
        let running = format!("net-pulse {} is running there already", env!("CARGO_PKG_VERSION"));
        // Only an address of the LAN, as the service of a router has it.
        ip("addr add 10.9.0.1/24 dev lo");
        let lan = ["--host", "10.9.0.1"];
        let pairs =
            [(&[][..], &[][..]), (&local, &local), (&[], &local), (&local, &["--private"]), (&[], &lan), (&lan, &[])];
        for (hosts, settings) in pairs {
            let mut command = with(settings, &[]);
            command.args(["--port", "0", "--database", &dir.join("net-pulse.db")]);
            let first = Daemon::spawn(command);
            let port = first.port();
            assert_one_sentence(
                &second(hosts, port),
                &[&format!("port {port} is in use: {running}; stop it"), "--port"],
            );
            first.stop();
        }

        let unknown = |port: u16| {
            let ended = second(&local, port);
            assert_one_sentence(&ended, &[&format!("port {port} is in use"), "stop what listens on port", "--port"]);
            assert!(!ended.err.contains("running there already"), "{}", ended.err);
        };
        // A server that sends nothing, one that never stops, another program, and one that closes at once.
        unknown(fake_server(|stream| drop(thread::spawn(move || (stream, thread::park())))));
        unknown(fake_server(
            |mut stream| while stream.write_all(b"HTTP/1.1 200 OK\r\nX-More: and more\r\n").is_ok() {},
        ));
        unknown(fake_server(|mut stream| drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"name\":\"nginx\"}"))));
        unknown(fake_server(drop));
    });
}

#[test]
fn options_work_before_and_after_a_subcommand() {
    let dir = Dir::new();
    let database = dir.join("net-pulse.db");
    let joined = format!("--database={database}");
    let run = |arguments: &[&str]| {
        let ended = finish(with(arguments, &[]));
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
        ended.out
    };
    let token = run(&["--database", &database, "token"]);
    assert!(
        token.trim().len() == 28 && fs::exists(format!("{database}.token")).expect("a file of the test"),
        "{token}"
    );
    assert_eq!(run(&["token", "--database", &database]), token);
    assert_eq!(run(&["token", &joined]), token);
    assert_eq!(run(&[&joined, "token"]), token);
}

#[test]
fn a_typing_mistake_gets_a_suggestion() {
    for (typed, meant) in [
        (&["--prot", "80"][..], "--port"),
        (&["-port", "80"], "--port"),
        (&["--Port=80"], "--port"),
        (&["--ports", "80"], "--port"),
        (&["--max_size", "4M"], "--max-size"),
        (&["chekc"], "check"),
        (&["tokne"], "token"),
        (&["check", "--helth"], "check --health"),
        (&["--health"], "check --health"),
        (&["token", "--databsae", "x"], "--database"),
    ] {
        let ended = finish(with(typed, &[]));
        assert_eq!(ended.code, Some(2), "{typed:?}");
        assert_one_sentence(&ended, &[&format!("did you mean {meant}?"), "net-pulse --help"]);
    }
    let ended = finish(with(&["--frobnicate"], &[]));
    assert!(ended.code == Some(2) && !ended.err.contains("did you mean"), "{}", ended.err);
}

#[test]
fn bad_values_are_one_sentence_and_exit_2_and_touch_nothing() {
    let check = |arguments: &[&str], environment: &[(&str, &str)], words: &[&str]| {
        let dir = Dir::new();
        let file = dir.join("made/here/net-pulse.db");
        // No other flag: a flag for the setting under test would override its value from the environment.
        let database = ["--database", &file];
        let arguments =
            if arguments.contains(&"--database") { arguments } else { &[&database[..], arguments].concat() };
        let ended = finish(with(arguments, environment));
        assert_eq!(ended.code, Some(2), "{arguments:?} {environment:?}: {}", ended.err);
        assert_one_sentence(&ended, words);
        let left: Vec<_> = fs::read_dir(dir.path()).expect("a file of the test").collect();
        assert!(left.is_empty(), "{arguments:?} left {left:?}");
    };
    for (flag, value) in [
        ("--port", "65536"),
        ("--port", "-1"),
        ("--port", "http"),
        ("--interval", "0"),
        ("--interval", "3601"),
        ("--interval", "1.5"),
        ("--flush", "0"),
        ("--flush", "99999999999999999999"),
        ("--media", "paper"),
        ("--source", "procfs"),
        ("--log-level", "loud"),
        ("--timezone", "Nowhere/Atlantis"),
        ("--host", "not an address"),
        ("--host", "300.1.1.1"),
        ("--max-size", "12 apples"),
        ("--database", ""),
        ("--interface", ""),
    ] {
        check(&[flag, value], &[], &[flag]);
    }
    for (name, value) in [
        ("NETPULSE_PORT", "x"),
        ("NETPULSE_INTERVAL", "0"),
        ("NETPULSE_PRIVATE", "maybe"),
        ("NETPULSE_LOG_LEVEL", "loud"),
        ("NETPULSE_HOST", "300.1.1.1"),
        ("NETPULSE_TIMEZONE", "Nowhere/Atlantis"),
    ] {
        check(&[], &[(name, value)], &[name]);
    }
    check(&["--prot", "80"], &[], &["--prot"]);
    check(&["--port"], &[], &["--port"]);
    check(&["surplus"], &[], &["surplus"]);
}

#[test]
fn a_database_that_cannot_be_created_is_one_sentence_and_the_daemon_runs() {
    let dir = Dir::new();
    let file = dir.join("a-file");
    fs::write(&file, "").expect("a file of the test");
    let below = format!("{file}/net-pulse.db");
    let daemon = Daemon::spawn(with(&["--host", "127.0.0.1", "--port", "0", "--database", &below], &[]));
    assert_eq!(daemon.get("/health")["status"], "degraded");
    let log = daemon.stop();
    let lines: Vec<&String> =
        log.iter().filter(|line| line.contains(&file) && line.contains("cannot be opened")).collect();
    assert!(lines.len() == 1 && lines[0].contains("--database"), "{log:#?}");
}

/// Two writers would corrupt each other's figures.
#[test]
fn a_database_in_use_is_refused() {
    let dir = Dir::new();
    let daemon = Daemon::start(&dir, &[]);
    // The daemon logs its first line before it opens the history. Without this request the second one could be first.
    daemon.get("/health");
    let ended = finish(with(&["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")], &[]));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert_last_line(&ended, "net-pulse.db");
    // The first daemon is not disturbed.
    daemon.get("/health");
    daemon.stop();
}

#[test]
fn signals_end_the_daemon_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &[]);
        daemon.get("/health");
        daemon.end_by(signal);
        assert!(Path::new(&dir.join("net-pulse.db")).exists());
    }
    // Also right after the start.
    for _ in 0..3 {
        let dir = Dir::new();
        Daemon::start(&dir, &[]).stop();
    }
}

#[test]
fn e48_the_first_line_names_a_url_and_both_families_answer() {
    let dir = Dir::new();
    let daemon = Daemon::start(&dir, &[]);
    assert!(daemon.first_line.contains(&format!("http://127.0.0.1:{}/", daemon.port())), "{}", daemon.first_line);
    daemon.stop();
    // Without --host the daemon listens on all addresses. A browser cannot open 0.0.0.0.
    in_namespace(|| {
        let mut command = with(&["--port", "0", "--database", &dir.join("net-pulse.db")], &[]);
        command.env_remove("NETPULSE_HOST");
        let daemon = Daemon::spawn(command);
        assert!(!daemon.first_line.contains("0.0.0.0") && !daemon.first_line.contains("[::]"), "{}", daemon.first_line);
        daemon.get("/health");
        ip("address add 10.7.0.1/24 dev lo");
        for host in ["127.0.0.1", "10.7.0.1"] {
            let to = format!("{host}:{}", daemon.port()).parse().expect("an address");
            assert_eq!(ask(to, "GET", "/health", "*/*", None).expect("an answer").status, 200, "{host}");
        }
        fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").expect("a namespace of the test");
        let to = format!("[::1]:{}", daemon.port()).parse().expect("an address");
        assert_eq!(ask(to, "GET", "/health", "*/*", None).expect("an answer").status, 200, "IPv6");
        daemon.stop();
    });
}

#[test]
fn host_is_repeatable() {
    let dir = Dir::new();
    let daemon = Daemon::start(&dir, &["--host", "127.0.0.2"]);
    for host in ["127.0.0.1", "127.0.0.2"] {
        let to = format!("{host}:{}", daemon.port()).parse().expect("an address");
        assert_eq!(ask(to, "GET", "/health", "*/*", None).expect("an answer").status, 200, "{host}");
    }
    let to = format!("127.0.0.3:{}", daemon.port()).parse().expect("an address");
    assert!(ask(to, "GET", "/health", "*/*", None).is_err(), "the daemon listens on an address that was not given");
}

#[test]
fn flag_beats_environment_beats_saved_beats_default() {
    let dir = Dir::new();
    let start = |arguments: &[&str], environment: &[(&str, &str)]| {
        let database = dir.join("net-pulse.db");
        let always = ["--host", "127.0.0.1", "--port", "0", "--database", &database];
        Daemon::spawn(with(&[&always[..], arguments].concat(), environment))
    };
    let path = "/api/config/collection-interval";
    let interval = |daemon: &Daemon| daemon.get(path)["collection_interval_seconds"].clone();
    let change = |daemon: &Daemon| daemon.put(path, json!({"collection_interval": 7}));

    let daemon = start(&[], &[]);
    assert_eq!(interval(&daemon), 30);
    assert_eq!(change(&daemon).status, 200);
    daemon.stop();

    let daemon = start(&[], &[]);
    assert_eq!(interval(&daemon), 7, "saved");
    daemon.stop();

    let daemon = start(&[], &[("NETPULSE_INTERVAL", "9")]);
    assert_eq!(interval(&daemon), 9, "environment");
    let answer = change(&daemon);
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("NETPULSE_INTERVAL"), "{}", answer.text());
    daemon.stop();

    let daemon = start(&["--interval", "11"], &[("NETPULSE_INTERVAL", "9")]);
    assert_eq!(interval(&daemon), 11, "flag");
    let answer = change(&daemon);
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("--interval"), "{}", answer.text());
    assert_eq!(interval(&daemon), 11, "a refused change took effect");
    daemon.stop();

    let daemon = start(&[], &[]);
    assert_eq!(interval(&daemon), 7, "neither flag nor environment was ever saved");
}

/// The variables for the host, the port and the database work, too.
#[test]
fn environment_variables_replace_flags() {
    let dir = Dir::new();
    let (here, there) = (dir.join("here.db"), dir.join("there.db"));
    let environment = [("NETPULSE_HOST", "127.0.0.1"), ("NETPULSE_PORT", "0"), ("NETPULSE_DATABASE", here.as_str())];
    let daemon = Daemon::spawn(with(&[], &environment));
    daemon.get("/health");
    daemon.stop();
    assert!(Path::new(&here).exists());
    fs::remove_file(&here).expect("the file exists");

    let daemon = Daemon::spawn(with(&["--database", &there, "--host", "127.0.0.2"], &environment));
    assert!(daemon.first_line.contains("http://127.0.0.2:"), "{}", daemon.first_line);
    daemon.stop();
    assert!(Path::new(&there).exists() && !Path::new(&here).exists());
}

#[test]
fn the_log_level_comes_from_flag_environment_or_default() {
    // Other tests run in other namespaces, so a free port stays free.
    in_namespace(|| {
        let lines = |arguments: &[&str], environment: &[(&str, &str)]| {
            let dir = Dir::new();
            let (database, port) = (dir.join("net-pulse.db"), free_address().port().to_string());
            let always = ["--host", "127.0.0.1", "--port", &port, "--database", &database, "--interval", "1"];
            let command = with(&[&always[..], arguments].concat(), environment);
            // The daemon may log nothing, so the test must know the address beforehand.
            let daemon = Daemon::spawn_at(command, format!("127.0.0.1:{port}").parse().expect("an address"));
            wait_until("the daemon takes a sample", || daemon.polls() > 0);
            // Counted at the end: earlier, some lines may not have been read yet.
            daemon.stop().len()
        };
        let (quiet, loud) = (lines(&["--log-level", "error"], &[]), lines(&["--log-level", "trace"], &[]));
        let normal = lines(&[], &[]);
        assert!(quiet < normal && normal < loud, "lines at error, info, trace: {quiet}, {normal}, {loud}");
        assert_eq!(lines(&[], &[("NETPULSE_LOG_LEVEL", "error")]), quiet);
        assert_eq!(lines(&["--log-level", "error"], &[("NETPULSE_LOG_LEVEL", "trace")]), quiet);
    });
}

#[test]
fn root_keeps_its_history_in_var_lib() {
    in_namespace(|| {
        // An empty /var/lib that only this thread and its children see.
        let no_flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), "/var/lib", Some("tmpfs"), no_flags, Some("size=8m")).expect("a tmpfs");
        let daemon = Daemon::spawn(with(&["--host", "127.0.0.1", "--port", "0"], &[]));
        let path = daemon.get("/api/system/health")["details"]["database"]["database_path"].clone();
        daemon.stop();
        assert_eq!(path, "/var/lib/net-pulse/net-pulse.db");
        assert!(Path::new("/var/lib/net-pulse/net-pulse.db").exists());
        let mode = fs::metadata("/var/lib/net-pulse").expect("the file exists").permissions().mode() & 0o777;
        assert_eq!(mode & 0o007, 0, "other users can read the directory: {mode:o}");
    });
}

#[test]
fn other_users_keep_their_history_in_the_state_directory() {
    in_namespace(|| {
        let dir = Dir::new();
        // The build directory may be unreadable for this account.
        let binary = dir.join("net-pulse");
        fs::copy(BINARY, &binary).expect("a copy");
        let home = dir.join("home");
        fs::create_dir(&home).expect("a file of the test");
        chown(&home, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).expect("the test runs as root");
        let state = format!("{home}/elsewhere");
        let check = |state: Option<&str>, expect: &str| {
            let mut command = net_pulse(&binary);
            command.args(["--host", "127.0.0.1", "--port", "0"]).env("HOME", &home).env_remove("XDG_STATE_HOME");
            command
                .envs(state.map(|path| ("XDG_STATE_HOME", path)))
                .uid(UNPRIVILEGED_UID)
                .gid(UNPRIVILEGED_UID)
                .current_dir("/");
            let daemon = Daemon::spawn(command);
            daemon.get("/api/interfaces/lo");
            daemon.stop();
            assert!(Path::new(expect).exists(), "no {expect}");
        };
        check(Some(&state), &format!("{state}/net-pulse/net-pulse.db"));
        check(None, &format!("{home}/.local/state/net-pulse/net-pulse.db"));
        // The XDG Base Directory Specification says that relative paths in this variable are ignored.
        fs::remove_dir_all(format!("{home}/.local")).expect("the directory exists");
        check(Some("relative"), &format!("{home}/.local/state/net-pulse/net-pulse.db"));
    });
}
