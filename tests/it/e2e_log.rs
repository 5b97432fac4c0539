//! Where log lines go, and how each destination gets their levels: the system's log as the priority of a message to its
//! socket, the journal as a prefix of each line.

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

/// Sends a signal. SIGHUP makes the daemon log a line.
fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("the daemon runs");
}

/// A socket in place of /dev/log.
struct SyslogSocket(UnixDatagram);

impl SyslogSocket {
    fn at(path: &str) -> SyslogSocket {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        SyslogSocket(socket)
    }

    /// The next line: its priority, and the text after the name of the program.
    fn line(&self) -> (u32, String) {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("a line in time");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let (number, rest) = text.strip_prefix('<').and_then(|rest| rest.split_once('>')).expect("a number");
        let (name, message) = rest.split_once("]: ").expect("a name");
        let (name, process) = name.split_once('[').expect("a process");
        assert!(name == "net-pulse" && process.parse::<u32>().is_ok(), "{text}");
        (number.parse().expect("a number"), message.to_string())
    }

    /// The next line that contains `what`.
    fn line_with(&self, what: &str) -> (u32, String) {
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

/// The address in the first line of the log.
fn address(first_line: &str) -> std::net::SocketAddr {
    let (_, rest) = first_line.split_once("http://").expect("an address");
    rest.split('/').next().and_then(|address| address.parse().ok()).expect("an address")
}

#[test]
fn the_system_log_receives_each_level() {
    let dir = Dir::new();
    let socket = dir.join("log");
    let log = SyslogSocket::at(&socket);
    // A missing interface is a warning.
    let mut command = daemon(&dir, &socket, &["--interface", "nosuchlink", "--log-level", "debug"]);
    let mut child = command.spawn().expect("the binary starts");
    assert_eq!(log.line_with(" is the page of net-pulse ").0, 30, "facility daemon (3 * 8), severity info (6)");
    let (number, message) = log.line_with("nosuchlink");
    assert_eq!((number, message.starts_with("warning")), (28, false), "{message}");
    signal(&child, Signal::SIGTERM);
    assert!(wait(&mut child, TIMEOUT).is_some_and(|status| status.success()));
    let mut stderr_text = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr_text).expect("text");
    assert_eq!(stderr_text, "", "no line goes to both");

    let mut command = daemon(&dir, &socket, &[]);
    command.args(["--host", "192.0.2.300"]);
    let ended = finish(command);
    assert!(ended.code != Some(0) && ended.err.is_empty(), "{}", ended.err);
    let (number, message) = log.line_with("192.0.2.300");
    assert_eq!((number, message.starts_with("net-pulse")), (27, false), "the reason for the end: {message}");
}

#[test]
fn without_a_system_log_lines_go_to_standard_error() {
    let dir = Dir::new();
    let socket = dir.join("log");
    let running = Daemon::spawn(daemon(&dir, &socket, &[]));
    let hangup = || kill(Pid::from_raw(running.pid() as i32), Signal::SIGHUP).expect("the daemon runs");
    assert_eq!(running.first_line, format!("warning: {socket} is not a log socket; the log goes to standard error"));
    assert!(running.log()[1].contains(" is the page of net-pulse "), "{:?}", running.log());
    // As soon as a socket exists it gets the lines, and so does a new socket in its place.
    for _ in 0..2 {
        let log = SyslogSocket::at(&socket);
        hangup();
        assert_eq!(log.line_with("read the time zone").0, 30);
    }
    // The program that receives the log has ended and left its socket file behind.
    let lines = running.log().len();
    hangup();
    wait_until("lines go to standard error again", || running.log().len() > lines);
    running.stop();
}

#[test]
fn a_blocked_system_log_loses_lines_and_delays_nothing() {
    let dir = Dir::new();
    let socket = dir.join("log");
    let log = SyslogSocket::at(&socket);
    let mut child = daemon(&dir, &socket, &["--log-level", "debug"]).spawn().expect("the binary starts");
    let at = address(&log.line_with(" is the page of net-pulse ").1);
    // Each refused request makes the daemon log a line. About ten lines fill the socket, and 64 more wait in the queue.
    let fill = || {
        for _ in 0..100 {
            let answer = ask_with(at, "GET", "/health", &[("Host", "stranger.example")], None).expect("an answer");
            assert_eq!(answer.status, 421, "the daemon still answers");
        }
    };
    fill();
    let (number, message) = log.line_with(" lines were lost: the system log did not accept them");
    assert_eq!(number, 28, "{message}");
    assert!(message.split(' ').next().is_some_and(|lost| lost.parse::<u32>().is_ok_and(|lost| lost > 0)), "{message}");
    // A full socket does not delay the shutdown.
    fill();
    signal(&child, Signal::SIGTERM);
    assert!(wait(&mut child, TIMEOUT).is_some_and(|status| status.success()));
    drop(log);
}

#[test]
fn only_the_journal_gets_level_prefixes() {
    let dir = Dir::new();
    // The test's end of standard error, the daemon's end, and its name as systemd puts it into JOURNAL_STREAM.
    let stream = || {
        let (test_end, daemon_end) = UnixStream::pair().expect("a socket");
        test_end.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        let daemon_end = OwnedFd::from(daemon_end);
        let end = fs::metadata(format!("/proc/self/fd/{}", daemon_end.as_raw_fd())).expect("an open file");
        (BufReader::new(test_end), daemon_end, format!("{}:{}", end.dev(), end.ino()))
    };
    let start = |journal_stream: &str, stderr: OwnedFd, arguments: &[&str]| {
        let mut command = net_pulse(BINARY);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(arguments);
        command
            .env("JOURNAL_STREAM", journal_stream)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts")
    };
    // The whole log of a daemon. The test ends the daemon when it has started completely.
    let read_whole_log = |mut child: Child, mut lines: BufReader<UnixStream>| {
        let mut text = String::new();
        while !text.contains("history in ") {
            assert_ne!(lines.read_line(&mut text).expect("a line in time"), 0, "the daemon ended: {text}");
        }
        signal(&child, Signal::SIGTERM);
        lines.read_to_string(&mut text).expect("text");
        assert!(wait(&mut child, TIMEOUT).is_some_and(|status| status.success()), "{text}");
        text
    };

    let (lines, stderr, journal_stream) = stream();
    let text = read_whole_log(start(&journal_stream, stderr, &["--interface", "nosuchlink"]), lines);
    assert!(text.starts_with("<6>http://"), "{text}");
    assert!(text.contains("\n<4>warning: ") && text.lines().all(|line| line.starts_with('<')), "{text}");
    // JOURNAL_STREAM names another stream, so the lines have no prefix.
    let (lines, stderr, journal_stream) = stream();
    let text = read_whole_log(start(&format!("{journal_stream}0"), stderr, &[]), lines);
    assert!(text.starts_with("http://") && !text.contains("\n<"), "{text}");
    // The first command line is refused before the log is set up, the second one after that.
    for wrong in [["--interval", "0"], ["--host", "192.0.2.300"]] {
        let (mut lines, stderr, journal_stream) = stream();
        let mut child = start(&journal_stream, stderr, &wrong);
        let mut text = String::new();
        lines.read_to_string(&mut text).expect("text");
        assert!(wait(&mut child, TIMEOUT).is_some_and(|status| !status.success()));
        assert!(text.starts_with("<3>net-pulse: ") && text.lines().count() == 1, "{text}");
    }
}
