//! Where the lines of the log go, and whether their levels arrive: the system's log by its socket, the journal by the
//! beginning of each line.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::*;

const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");

/// SIGHUP makes a line.
fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("it runs");
}

/// In place of /dev/log.
struct Log(UnixDatagram);

impl Log {
    fn at(path: &str) -> Log {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Log(socket)
    }

    /// The next line: its number, and what follows the name of the program.
    fn line(&self) -> (u32, String) {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("a line in time");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let (number, rest) = text.strip_prefix('<').and_then(|rest| rest.split_once('>')).expect("a number");
        let (name, said) = rest.split_once("]: ").expect("a name");
        let (name, process) = name.split_once('[').expect("a process");
        assert!(name == "net-pulse" && process.parse::<u32>().is_ok(), "{text}");
        (number.parse().expect("a number"), said.to_string())
    }

    /// The next line that says this.
    fn until(&self, what: &str) -> (u32, String) {
        loop {
            let line = self.line();
            if line.1.contains(what) {
                return line;
            }
        }
    }
}

fn daemon(dir: &Dir, socket: &str, more: &[&str]) -> Command {
    let mut command = net_pulse(BINARY);
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(more);
    command.env("NETPULSE_SYSLOG", socket);
    command
}

/// The address that the welcome names.
fn address(welcome: &str) -> std::net::SocketAddr {
    let (_, rest) = welcome.split_once("http://").expect("an address");
    rest.split('/').next().and_then(|address| address.parse().ok()).expect("an address")
}

#[test]
fn the_systems_log_is_told_each_level() {
    let dir = Dir::new();
    let socket = dir.join("log");
    let log = Log::at(&socket);
    // What is not there is warned of, and a database that cannot be is an error.
    let mut command = daemon(&dir, &socket, &["--interface", "nosuchlink", "--log-level", "debug"]);
    let mut child = command.spawn().expect("the binary starts");
    assert_eq!(log.until(" is the page of net-pulse ").0, 30, "info of a daemon");
    let (number, said) = log.until("nosuchlink");
    assert_eq!((number, said.starts_with("warning")), (28, false), "{said}");
    signal(&child, Signal::SIGTERM);
    assert!(wait(&mut child, PATIENCE).is_some_and(|status| status.success()));
    let mut heard = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut heard).expect("text");
    assert_eq!(heard, "", "nothing is told twice");

    let mut command = daemon(&dir, &socket, &[]);
    command.args(["--host", "192.0.2.300"]);
    let ended = finish(command);
    assert!(ended.code != Some(0) && ended.err.is_empty(), "{}", ended.err);
    let (number, said) = log.until("192.0.2.300");
    assert_eq!((number, said.starts_with("net-pulse")), (27, false), "why it ended: {said}");
}

#[test]
fn without_a_systems_log_standard_error_has_the_lines() {
    let dir = Dir::new();
    let socket = dir.join("log");
    let running = Daemon::spawn(daemon(&dir, &socket, &[]));
    let again = || kill(Pid::from_raw(running.pid() as i32), Signal::SIGHUP).expect("it runs");
    assert_eq!(running.first_line, format!("warning: {socket} is not a log socket; the log goes to standard error"));
    assert!(running.log()[1].contains(" is the page of net-pulse "), "{:?}", running.log());
    // Once one is there, it has them; and so has the next one, which takes its place.
    for _ in 0..2 {
        let log = Log::at(&socket);
        again();
        assert_eq!(log.until("read the time zone").0, 30);
    }
    // The socket is left behind by the one that has ended.
    let lines = running.log().len();
    again();
    wait_until("standard error has it again", || running.log().len() > lines);
    running.stop();
}

#[test]
fn a_systems_log_that_takes_nothing_costs_lines_and_no_time() {
    let dir = Dir::new();
    let socket = dir.join("log");
    let log = Log::at(&socket);
    let mut child = daemon(&dir, &socket, &["--log-level", "debug"]).spawn().expect("the binary starts");
    let at = address(&log.until(" is the page of net-pulse ").1);
    // Each refusal is a line. Ten lines or so fill the socket, and 64 more wait.
    let fill = || {
        for _ in 0..100 {
            let answer = ask_with(at, "GET", "/health", &[("Host", "stranger.example")], None).expect("an answer");
            assert_eq!(answer.status, 421, "it goes on");
        }
    };
    fill();
    let (number, said) = log.until(" lines were lost: the system log did not accept them");
    assert_eq!(number, 28, "{said}");
    assert!(said.split(' ').next().is_some_and(|lost| lost.parse::<u32>().is_ok_and(|lost| lost > 0)), "{said}");
    // Full once more, it does not hold up the end.
    fill();
    signal(&child, Signal::SIGTERM);
    assert!(wait(&mut child, PATIENCE).is_some_and(|status| status.success()));
    drop(log);
}

#[test]
fn the_journal_alone_is_told_each_level_in_front_of_the_line() {
    let dir = Dir::new();
    // Standard error, its other end, and what systemd would tell of it.
    let stream = || {
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        ours.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let theirs = OwnedFd::from(theirs);
        let end = fs::metadata(format!("/proc/self/fd/{}", theirs.as_raw_fd())).expect("it is open");
        (BufReader::new(ours), theirs, format!("{}:{}", end.dev(), end.ino()))
    };
    let begin = |told: &str, stderr: OwnedFd, arguments: &[&str]| {
        let mut command = net_pulse(BINARY);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(arguments);
        command.env("JOURNAL_STREAM", told).stdout(Stdio::null()).stderr(stderr).spawn().expect("the binary starts")
    };
    // All that is said up to the end, which comes once everything is up.
    let whole = |mut child: Child, mut lines: BufReader<UnixStream>| {
        let mut text = String::new();
        while !text.contains("history in ") {
            assert_ne!(lines.read_line(&mut text).expect("a line in time"), 0, "it ended: {text}");
        }
        signal(&child, Signal::SIGTERM);
        lines.read_to_string(&mut text).expect("text");
        assert!(wait(&mut child, PATIENCE).is_some_and(|status| status.success()), "{text}");
        text
    };

    let (lines, stderr, told) = stream();
    let text = whole(begin(&told, stderr, &["--interface", "nosuchlink"]), lines);
    assert!(text.starts_with("<6>http://"), "{text}");
    assert!(text.contains("\n<4>warning: ") && text.lines().all(|line| line.starts_with('<')), "{text}");
    // What was told of another stream is not true of this one.
    let (lines, stderr, told) = stream();
    let text = whole(begin(&format!("{told}0"), stderr, &[]), lines);
    assert!(text.starts_with("http://") && !text.contains("\n<"), "{text}");
    // One ends before it has a log, the other with one.
    for wrong in [["--interval", "0"], ["--host", "192.0.2.300"]] {
        let (mut lines, stderr, told) = stream();
        let mut child = begin(&told, stderr, &wrong);
        let mut text = String::new();
        lines.read_to_string(&mut text).expect("text");
        assert!(wait(&mut child, PATIENCE).is_some_and(|status| !status.success()));
        assert!(text.starts_with("<3>net-pulse: ") && text.lines().count() == 1, "{text}");
    }
}
