//! Signals: SIGTERM and SIGINT save everything and end the daemon in time, also as process 1. SIGHUP reads the time
//! zone and the host name again, and saves. A log without a reader delays nothing, and nothing needs root.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::disk::*;
use crate::common::*;
use crate::stored_history;
use nix::sys::signal::Signal;
use nix::unistd::chown;

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);
/// Intervals of an hour, so that the daemon saves nothing by its timer.
const RARE_SAVES: [&str; 4] = ["--interval", "3600", "--flush", "3600"];

#[test]
fn shutdown_saves_everything_since_the_last_save() {
    in_namespace(|| {
        for end in [Signal::SIGTERM, Signal::SIGINT] {
            let dir = Dir::new();
            let name = format!("wan{}", end as i32);
            cable(&name, &format!("lan{}", end as i32));
            let daemon = Daemon::start(&dir, &RARE_SAVES);
            daemon.get("/health");
            send(&name, 1000, 5);
            daemon.collect();
            // The timer does not read these bytes, but the last sample contains them.
            send(&name, 1000, 70);
            let asked = Instant::now();
            signal(daemon.pid(), end);
            let (code, log) = daemon.ended_within(TIMEOUT);
            assert_eq!(code, Some(0), "{log:#?}");
            assert!(asked.elapsed() < SHUTDOWN_LIMIT, "{:?}", asked.elapsed());
            assert!(!log.iter().any(|line| line.contains("unsaved")), "{log:#?}");
            // Closed cleanly: no write-ahead log is left.
            assert!(!std::path::Path::new(&dir.join("net-pulse.db-wal")).exists());
            assert_eq!(check_with_sqlite(&dir.join("net-pulse.db")).0, "ok");
            let daemon = Daemon::start(&dir, &RARE_SAVES);
            assert_eq!(daemon.exported_sum(&name), kernel_counters(&name));
            daemon.stop();
        }
    });
}

/// A client that never completes its request head, one that never reads its answer, and one that never completes its
/// body do not delay the shutdown.
#[test]
fn shutdown_does_not_wait_for_clients() {
    use std::io::Write;
    let dir = Dir::new();
    stored_history::write_history(&dir.join("net-pulse.db"), stored_history::HistoryLength::Days);
    let daemon = Daemon::start(&dir, &RARE_SAVES);
    daemon.get("/health");
    let clients: Vec<_> = (0..20)
        .map(|at| {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
            let text: &[u8] = match at % 3 {
                0 => b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
                // Megabytes: the kernel holds a part, and the rest waits for the reader.
                1 => b"GET /api/export/traffic HTTP/1.1\r\nHost: localhost\r\n\r\n",
                _ => b"PUT /api/config/interfaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
            };
            stream.write_all(text).expect("the daemon listens");
            stream
        })
        .collect();
    sleep_ms(100);
    signal(daemon.pid(), Signal::SIGTERM);
    let (code, log) = daemon.ended_within(SHUTDOWN_LIMIT);
    assert_eq!(code, Some(0), "{log:#?}");
    drop(clients);
}

/// A pipe to a logger that hangs: sampling, saving, answers and shutdown continue, and the daemon logs the number of
/// lost lines later.
#[test]
fn a_log_without_a_reader_delays_nothing() {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    in_namespace(|| {
        let dir = Dir::new();
        let log = dir.join("log");
        nix::unistd::mkfifo(log.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        // Opened for reading and writing, so that the pipe always has a reader. The daemon opens it separately, so that
        // only this descriptor is non-blocking.
        let flags = nix::libc::O_NONBLOCK;
        let mut pipe = fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(&log).expect("a pipe");
        fn fill_pipe(mut pipe: &fs::File) {
            for size in [4096, 1] {
                while pipe.write(&[b'x'; 4096][..size]).is_ok() {}
            }
        }
        fill_pipe(&pipe);
        cable("wan0", "lan0");
        let mut command = net_pulse("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 2>\"$LOG\"", env!("CARGO_BIN_EXE_net-pulse")]).env("LOG", &log);
        command.args(["--host", "127.0.0.1", "--port", "8000", "--database", &dir.join("net-pulse.db")]);
        command.args(["--interval", "1", "--flush", "1", "--log-level", "trace"]);
        let daemon = Daemon::spawn_at(command, ([127, 0, 0, 1], 8000).into());
        let assert_works = |frames: usize| {
            let before = stored_samples(&daemon);
            send("wan0", 1000, frames);
            // The signal and each of the requests below make the daemon log a line.
            signal(daemon.pid(), Signal::SIGHUP);
            let wrong = [("Via", "x"), ("Authorization", "Bearer wrong")];
            for _ in 0..8 {
                let asked = Instant::now();
                let to = ([127, 0, 0, 1], daemon.port()).into();
                let answer = ask_with(to, "POST", "/collector/collect", &wrong, None).expect("an answer");
                assert!([401, 429].contains(&answer.status), "{}", answer.status);
                assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
            }
            daemon.wait_for_ticks(2);
            wait_until("the ticks are saved", || stored_samples(&daemon) > before);
            daemon.collect();
            assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        };
        assert_works(5);
        assert_works(7);

        // The test reads the pipe again.
        let mut text = Vec::new();
        let mut read = || {
            let outcome = pipe.read_to_end(&mut text);
            assert!(outcome.is_err_and(|cause| cause.kind() == ErrorKind::WouldBlock));
            String::from_utf8_lossy(&text).trim_start_matches('x').to_string()
        };
        assert_eq!(read(), "", "no line came through");
        signal(daemon.pid(), Signal::SIGHUP);
        let mut log_text = String::new();
        wait_until("the log reports the lost lines", || {
            log_text = read();
            log_text.contains("saving now")
        });
        let first = log_text.lines().next().unwrap_or_default();
        assert!(first.starts_with("warning: ") && first.contains(" lines were lost"), "{log_text}");

        fill_pipe(&pipe);
        send("wan0", 1000, 11);
        let asked = Instant::now();
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, _) = daemon.ended_within(SHUTDOWN_LIMIT);
        assert_eq!(code, Some(0), "after {:?}", asked.elapsed());
        let daemon = Daemon::start(&dir, &RARE_SAVES);
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        daemon.stop();
    });
}

#[test]
fn sighup_saves_and_reads_the_zone_again() {
    in_namespace(|| {
        let dir = Dir::new();
        // A private /etc, because routers keep their time zone in /etc/TZ.
        let _disk = small_disk(&dir.join("etc"), 1 << 20);
        for entry in fs::read_dir("/etc").expect("a directory").flatten() {
            let name = entry.file_name();
            if entry.path().is_file() && name != "localtime" && name != "TZ" {
                let _ = fs::copy(entry.path(), format!("{}/{}", dir.join("etc"), name.to_string_lossy()));
            }
        }
        let bind = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(dir.join("etc").as_str()), "/etc", None::<&str>, bind, None::<&str>).expect("a mount");
        fs::write("/etc/TZ", "CET-1\n").expect("a file of the test");
        cable("wan0", "lan0");
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(RARE_SAVES);
        command.env_remove("TZ");
        let daemon = Daemon::spawn(command);
        let zone = || daemon.get("/api/system/health")["details"]["clock"]["timezone"].clone();
        assert_eq!(zone(), "CET-1");
        send("wan0", 1000, 5);
        daemon.collect();
        let before = stored_samples(&daemon);
        fs::write("/etc/TZ", "<+0530>-5:30\n").expect("a file of the test");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the daemon has read the zone", || zone() == "<+0530>-5:30");
        wait_until("the ticks are saved", || stored_samples(&daemon) > before);
        // An invalid zone must not end the daemon.
        fs::write("/etc/TZ", "\u{1b}[31m nonsense\n").expect("a file of the test");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the daemon has handled the second SIGHUP", || {
            daemon.log().iter().filter(|line| line.contains("saving now")).count() == 2
        });
        daemon.get("/health");
        assert!(["<+0530>-5:30", "UTC0", "UTC"].contains(&zone().as_str().expect("a zone")), "{}", zone());
        // Many signals in a row do no harm.
        (0..200).for_each(|_| signal(daemon.pid(), Signal::SIGHUP));
        daemon.get("/health");
        daemon.stop();
        assert_eq!(check_with_sqlite(&dir.join("net-pulse.db")).0, "ok");
    });
}

/// A machine that gets its name from the network is renamed after the start. From then on the old name may belong to
/// another machine.
#[test]
fn sighup_reads_the_host_name_again() {
    in_namespace(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).expect("the test runs as root");
        nix::unistd::sethostname("oldname").expect("a name of this thread and its children");
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &["--allowed-host", "pulse.example.org"]);
        let status = |host: &str| {
            let to = ([127, 0, 0, 1], daemon.port()).into();
            ask_with(to, "GET", "/health", &[("Host", host)], None).expect("an answer").status
        };
        assert_eq!(["oldname", "newname.lan", "pulse.example.org"].map(status), [200, 421, 200]);
        nix::unistd::sethostname("newname").expect("a namespace of the test");
        assert_eq!(status("newname"), 421, "not before SIGHUP");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the daemon has read the host name", || status("newname") == 200);
        assert_eq!(["oldname", "newname.lan", "pulse.example.org"].map(status), [421, 200, 200]);
        daemon.stop();
    });
}

/// The daemon logs an invalid time zone of the machine once.
#[test]
fn an_ignored_time_zone_is_logged_once() {
    let dir = Dir::new();
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]);
    let daemon = Daemon::spawn({
        command.env("TZ", "garbage!!");
        command
    });
    daemon.get("/health");
    let log = daemon.stop();
    assert_eq!(log.iter().filter(|line| line.contains("TZ ignored: ")).count(), 1, "{log:#?}");
}

/// In a container the daemon is process 1, for which the kernel drops signals without a handler.
#[test]
fn signals_end_process_1_too() {
    in_namespace(|| {
        for end in [Signal::SIGTERM, Signal::SIGINT] {
            let dir = Dir::new();
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_net-pulse")]);
            command
                .args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")])
                .args(RARE_SAVES);
            command.stdin(Stdio::null()).stderr(Stdio::piped());
            let daemon = Daemon::spawn(command);
            let program = child_of(daemon.pid());
            daemon.get("/health");
            let status = fs::read_to_string(format!("/proc/{program}/status")).expect("the daemon runs");
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("a line NSpid");
            assert_eq!(ids.split_whitespace().last(), Some("1"), "{ids}");
            signal(program, Signal::SIGHUP);
            wait_until("the daemon has handled SIGHUP", || daemon.log().iter().any(|line| line.contains("saving now")));
            signal(program, end);
            let (code, log) = daemon.ended_within(SHUTDOWN_LIMIT);
            assert_eq!(code, Some(0), "{log:#?}");
            assert_eq!(check_with_sqlite(&dir.join("net-pulse.db")).0, "ok");
        }
    });
}

/// Sixty starts as process 1, each ended at another moment of its first 20 ms. A signal that the daemon blocks stays
/// pending. While the loader runs, before the program itself, nothing can block signals.
#[test]
fn an_early_signal_to_process_1_is_not_lost() {
    in_namespace(|| {
        let dir = Dir::new();
        let binary = fs::canonicalize(env!("CARGO_BIN_EXE_net-pulse")).expect("the binary is built");
        let mut delivered = 0;
        for turn in 0..60 {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--mount-proc"]).arg(&binary);
            command.args(["--host", "127.0.0.1", "--port", "8000", "--database", &dir.join("net-pulse.db")]);
            let mut wrapper =
                command.args(RARE_SAVES).stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("unshare");
            let program = child_of(wrapper.id());
            wait_until("the child is the program", || {
                fs::read_link(format!("/proc/{program}/exe")).is_ok_and(|exe| exe == binary)
            });
            std::thread::sleep(Duration::from_micros(turn * 333));
            let was_blocked = blocks_or_waits_for(program, Signal::SIGTERM);
            signal(program, Signal::SIGTERM);
            let status = wait(&mut wrapper, SHUTDOWN_LIMIT);
            if status.is_none() {
                signal(program, Signal::SIGKILL);
            }
            wrapper.wait().expect("a child of the test");
            assert!(status.is_some() || !was_blocked, "turn {turn}: the daemon still runs");
            assert!(status.is_none_or(|status| status.code() == Some(0)), "turn {turn}: {status:?}");
            delivered += u64::from(status.is_some());
        }
        println!("{delivered} of 60 signals came after the loader");
        assert!(delivered >= 20, "only {delivered} of the signals came after the loader's time");
    });
}

/// Whether the process blocks this signal, or one of its threads waits for it.
fn blocks_or_waits_for(pid: u32, which: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let blocked = u64::from_str_radix(field("SigBlk:"), 16).is_ok_and(|mask| mask & 1 << (which as u32 - 1) != 0);
    // Signals that a thread waits for are not shown as blocked. The daemon has other threads then.
    blocked || field("Threads:").parse::<u32>().is_ok_and(|count| count > 1)
}

/// The order of system calls: the program blocks the signals before it opens any file itself.
#[test]
fn signals_are_blocked_before_any_file_is_read() {
    if !strace_or_skip() {
        return;
    }
    let dir = Dir::new();
    let trace = dir.join("trace");
    let mut command = net_pulse("strace");
    command.args([
        "-o",
        &trace,
        "-e",
        "trace=openat,?open,rt_sigprocmask,connect,socket,uname",
        env!("CARGO_BIN_EXE_net-pulse"),
    ]);
    // The daemon rejects this host soon after it has read its files.
    command.args(["--host", "300.1.1.1", "--database", &dir.join("net-pulse.db")]).env("TZ", "Europe/Berlin");
    assert_eq!(finish(command).code, Some(2));
    let text = fs::read_to_string(&trace).expect("a trace");
    let first_line = |what: &dyn Fn(&str) -> bool| text.lines().position(what);
    let blocked = first_line(&|line| line.contains("rt_sigprocmask(SIG_BLOCK") && line.contains("TERM"));
    // The loader opens libraries, and the runtime looks up the stack.
    let is_loader = |line: &str| [".so", "/proc/self/maps"].iter().any(|name| line.contains(name));
    let reads = first_line(&|line| line.starts_with("open") && !is_loader(line));
    assert!(reads.is_some(), "nothing was read: {text}");
    assert!(blocked.is_some() && blocked < reads, "{text}");
}

/// Counting, saving, answering and shutdown all work without capabilities and without root.
#[test]
fn root_is_never_needed() {
    in_namespace(|| {
        let dir = Dir::new();
        // The build directory may be unreadable for this account.
        let (binary, home) = (dir.join("net-pulse"), dir.join("home"));
        fs::copy(env!("CARGO_BIN_EXE_net-pulse"), &binary).expect("a copy");
        fs::create_dir(&home).expect("a file of the test");
        chown(home.as_str(), Some(UNPRIVILEGED_UID.into()), Some(UNPRIVILEGED_UID.into()))
            .expect("the test runs as root");
        cable("wan0", "lan0");
        let database = format!("{home}/net-pulse.db");
        let start = || {
            let mut command = net_pulse(&binary);
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &database]).args(RARE_SAVES);
            command.uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID).current_dir("/");
            Daemon::spawn(command)
        };
        let daemon = start();
        daemon.get("/health");
        send("wan0", 1000, 9);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, log) = daemon.ended_within(SHUTDOWN_LIMIT);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("error") || line.contains("warning")), "{log:#?}");
        let daemon = start();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        daemon.stop();
        assert_eq!(check_with_sqlite(&database).0, "ok");
    });
}
