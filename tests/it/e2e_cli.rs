//! The command line as a user meets it: what it says, with which status it ends, and what it leaves alone.

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
/// An account without rights, on every Debian.
const NOBODY: u32 = 65534;

fn with(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = net_pulse(BINARY);
    command.args(arguments).envs(environment.iter().copied());
    command
}

/// One sentence for a person: one line, ending without noise, naming all of `words`.
fn one_sentence(ended: &Ended, words: &[&str]) {
    let lines: Vec<&str> = ended.err.lines().collect();
    assert_eq!(lines.len(), 1, "not one sentence: {}", ended.err);
    for word in words {
        assert!(lines[0].contains(word), "'{word}' is missing in: {}", lines[0]);
    }
    assert!(!lines[0].contains("panicked") && !lines[0].contains("Err("), "{}", lines[0]);
    assert_eq!(ended.out, "", "a complaint belongs on stderr");
}

/// The same, of a start that got further and may have said so.
fn last_sentence(ended: &Ended, word: &str) {
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
    one_sentence(&ended, &[&port, "--port"]);
}

/// Somebody who answers every connection like that; the thread ends with the test's process.
fn somebody(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

#[test]
fn a_second_start_is_told_who_has_the_port() {
    in_namespace(|| {
        let dir = Dir::new();
        let second = |hosts: &[&str], port: u16| {
            let started = Instant::now();
            let (port, other) = (port.to_string(), dir.join("other.db"));
            let ended = finish(with(&[hosts, &["--port", &port, "--database", &other]].concat(), &[]));
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
            assert_eq!(ended.code, Some(1), "{}", ended.err);
            assert!(!fs::exists(&other).expect("it is ours"));
            ended
        };
        let local = ["--host", "127.0.0.1"];
        let us = format!("net-pulse {} is running there already", env!("CARGO_PKG_VERSION"));
        // An address of the LAN alone: what a router's service has.
        ip("addr add 10.9.0.1/24 dev lo");
        let lan = ["--host", "10.9.0.1"];
        let pairs =
            [(&[][..], &[][..]), (&local, &local), (&[], &local), (&local, &["--private"]), (&[], &lan), (&lan, &[])];
        for (hosts, settings) in pairs {
            let mut command = with(settings, &[]);
            command.args(["--port", "0", "--database", &dir.join("net-pulse.db")]);
            let first = Daemon::spawn(command);
            let port = first.port();
            one_sentence(&second(hosts, port), &[&format!("port {port} is in use: {us}; stop it"), "--port"]);
            first.stop();
        }

        let unknown = |port: u16| {
            let ended = second(&local, port);
            one_sentence(&ended, &[&format!("port {port} is in use"), "stop what listens on port", "--port"]);
            assert!(!ended.err.contains("running there already"), "{}", ended.err);
        };
        // One that says nothing, one that says it for ever, one that is something else, and one that is at its end.
        unknown(somebody(|stream| drop(thread::spawn(move || (stream, thread::park())))));
        unknown(somebody(|mut stream| while stream.write_all(b"HTTP/1.1 200 OK\r\nX-More: and more\r\n").is_ok() {}));
        unknown(somebody(|mut stream| drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"name\":\"nginx\"}"))));
        unknown(somebody(drop));
    });
}

#[test]
fn options_stand_on_either_side_of_a_command() {
    let dir = Dir::new();
    let database = dir.join("net-pulse.db");
    let joined = format!("--database={database}");
    let run = |arguments: &[&str]| {
        let ended = finish(with(arguments, &[]));
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
        ended.out
    };
    let token = run(&["--database", &database, "token"]);
    assert!(token.trim().len() == 28 && fs::exists(format!("{database}.token")).expect("it is ours"), "{token}");
    assert_eq!(run(&["token", "--database", &database]), token);
    assert_eq!(run(&["token", &joined]), token);
    assert_eq!(run(&[&joined, "token"]), token);
}

#[test]
fn a_slip_of_the_pen_is_told_what_was_meant() {
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
        one_sentence(&ended, &[&format!("did you mean {meant}?"), "net-pulse --help"]);
    }
    let ended = finish(with(&["--frobnicate"], &[]));
    assert!(ended.code == Some(2) && !ended.err.contains("did you mean"), "{}", ended.err);
}

#[test]
fn bad_values_are_one_sentence_and_exit_2_and_touch_nothing() {
    let check = |arguments: &[&str], environment: &[(&str, &str)], words: &[&str]| {
        let dir = Dir::new();
        let file = dir.join("made/here/net-pulse.db");
        // No other flag: one that is right would hide what the environment says.
        let database = ["--database", &file];
        let arguments =
            if arguments.contains(&"--database") { arguments } else { &[&database[..], arguments].concat() };
        let ended = finish(with(arguments, environment));
        assert_eq!(ended.code, Some(2), "{arguments:?} {environment:?}: {}", ended.err);
        one_sentence(&ended, words);
        let left: Vec<_> = fs::read_dir(dir.path()).expect("it is ours").collect();
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
fn a_database_that_cannot_be_made_is_one_sentence_and_no_end() {
    let dir = Dir::new();
    let file = dir.join("a-file");
    fs::write(&file, "").expect("it is ours");
    let below = format!("{file}/net-pulse.db");
    let daemon = Daemon::spawn(with(&["--host", "127.0.0.1", "--port", "0", "--database", &below], &[]));
    assert_eq!(daemon.get("/health")["status"], "degraded");
    let log = daemon.stop();
    let said: Vec<&String> =
        log.iter().filter(|line| line.contains(&file) && line.contains("cannot be opened")).collect();
    assert!(said.len() == 1 && said[0].contains("--database"), "{log:#?}");
}

/// Two writers would spoil each other's figures.
#[test]
fn a_database_in_use_is_refused() {
    let dir = Dir::new();
    let daemon = Daemon::start(&dir, &[]);
    // Its first line comes before it has opened the history, which the second could otherwise be first to do.
    daemon.get("/health");
    let ended = finish(with(&["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")], &[]));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    last_sentence(&ended, "net-pulse.db");
    // And the first one never noticed.
    daemon.get("/health");
    daemon.stop();
}

#[test]
fn signals_end_it_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &[]);
        daemon.get("/health");
        daemon.end_by(signal);
        assert!(Path::new(&dir.join("net-pulse.db")).exists());
    }
    // Also when it has hardly begun.
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
    // Without --host it listens everywhere; 0.0.0.0 is no address to open.
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
        fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").expect("a namespace of our own");
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
    assert!(ask(to, "GET", "/health", "*/*", None).is_err(), "it listens where it was not asked to");
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
    assert_eq!(interval(&daemon), 11, "a refused change changed it");
    daemon.stop();

    let daemon = start(&[], &[]);
    assert_eq!(interval(&daemon), 7, "neither flag nor environment was ever saved");
}

/// The host, the port and the file too.
#[test]
fn the_environment_stands_in_for_flags() {
    let dir = Dir::new();
    let (here, there) = (dir.join("here.db"), dir.join("there.db"));
    let environment = [("NETPULSE_HOST", "127.0.0.1"), ("NETPULSE_PORT", "0"), ("NETPULSE_DATABASE", here.as_str())];
    let daemon = Daemon::spawn(with(&[], &environment));
    daemon.get("/health");
    daemon.stop();
    assert!(Path::new(&here).exists());
    fs::remove_file(&here).expect("it is there");

    let daemon = Daemon::spawn(with(&["--database", &there, "--host", "127.0.0.2"], &environment));
    assert!(daemon.first_line.contains("http://127.0.0.2:"), "{}", daemon.first_line);
    daemon.stop();
    assert!(Path::new(&there).exists() && !Path::new(&here).exists());
}

#[test]
fn the_log_level_is_taken_from_flag_environment_default() {
    // A port that was free a moment ago stays so where nobody else is.
    in_namespace(|| {
        let lines = |arguments: &[&str], environment: &[(&str, &str)]| {
            let dir = Dir::new();
            let (database, port) = (dir.join("net-pulse.db"), free_address().port().to_string());
            let always = ["--host", "127.0.0.1", "--port", &port, "--database", &database, "--interval", "1"];
            let command = with(&[&always[..], arguments].concat(), environment);
            // It may have nothing to say, so its address has to be known before.
            let daemon = Daemon::spawn_at(command, format!("127.0.0.1:{port}").parse().expect("an address"));
            wait_until("it takes a sample", || daemon.polls() > 0);
            // Not before the end: what was written may not have been read yet.
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
        let nothing = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), "/var/lib", Some("tmpfs"), nothing, Some("size=8m")).expect("a tmpfs");
        let daemon = Daemon::spawn(with(&["--host", "127.0.0.1", "--port", "0"], &[]));
        let path = daemon.get("/api/system/health")["details"]["database"]["database_path"].clone();
        daemon.stop();
        assert_eq!(path, "/var/lib/net-pulse/net-pulse.db");
        assert!(Path::new("/var/lib/net-pulse/net-pulse.db").exists());
        let mode = fs::metadata("/var/lib/net-pulse").expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode & 0o007, 0, "strangers can look into the directory: {mode:o}");
    });
}

#[test]
fn others_keep_it_in_their_state_directory() {
    in_namespace(|| {
        let dir = Dir::new();
        // The build directory may lie where this account cannot go.
        let binary = dir.join("net-pulse");
        fs::copy(BINARY, &binary).expect("a copy");
        let home = dir.join("home");
        fs::create_dir(&home).expect("it is ours");
        chown(&home, Some(NOBODY), Some(NOBODY)).expect("root may");
        let state = format!("{home}/elsewhere");
        let check = |state: Option<&str>, expect: &str| {
            let mut command = net_pulse(&binary);
            command.args(["--host", "127.0.0.1", "--port", "0"]).env("HOME", &home).env_remove("XDG_STATE_HOME");
            command.envs(state.map(|path| ("XDG_STATE_HOME", path))).uid(NOBODY).gid(NOBODY).current_dir("/");
            let daemon = Daemon::spawn(command);
            daemon.get("/api/interfaces/lo");
            daemon.stop();
            assert!(Path::new(expect).exists(), "no {expect}");
        };
        check(Some(&state), &format!("{state}/net-pulse/net-pulse.db"));
        check(None, &format!("{home}/.local/state/net-pulse/net-pulse.db"));
        // A relative path there is to be ignored, says the specification of these directories.
        fs::remove_dir_all(format!("{home}/.local")).expect("it was made");
        check(Some("relative"), &format!("{home}/.local/state/net-pulse/net-pulse.db"));
    });
}
