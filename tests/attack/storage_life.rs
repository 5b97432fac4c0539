//! Signals and life: the end saves everything and takes no longer than it may, as PID 1 too; a hangup has things read
//! again and saved; nobody waits for whoever reads the log; nothing of it needs root.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::disk::*;
use crate::common::*;
use crate::past;
use nix::sys::signal::Signal;
use nix::unistd::chown;

const NOBODY: u32 = 65_534;
const LONGEST: Duration = Duration::from_secs(3);
/// So seldom that nothing is saved of its own accord.
const SELDOM: [&str; 4] = ["--interval", "3600", "--flush", "3600"];

#[test]
fn the_end_saves_what_came_since_the_last_save() {
    in_namespace(|| {
        for end in [Signal::SIGTERM, Signal::SIGINT] {
            let dir = Dir::new();
            let name = format!("wan{}", end as i32);
            cable(&name, &format!("lan{}", end as i32));
            let daemon = Daemon::start(&dir, &SELDOM);
            daemon.get("/health");
            send(&name, 1000, 5);
            daemon.collect();
            // Never looked at by the timer, and in the last sample all the same.
            send(&name, 1000, 70);
            let asked = Instant::now();
            signal(daemon.pid(), end);
            let (code, log) = daemon.ended_within(PATIENCE);
            assert_eq!(code, Some(0), "{log:#?}");
            assert!(asked.elapsed() < LONGEST, "{:?}", asked.elapsed());
            assert!(!log.iter().any(|line| line.contains("unsaved")), "{log:#?}");
            // Closed well: nothing is left to be taken in.
            assert!(!std::path::Path::new(&dir.join("net-pulse.db-wal")).exists());
            assert_eq!(judge(&dir.join("net-pulse.db")).0, "ok");
            let daemon = Daemon::start(&dir, &SELDOM);
            assert_eq!(daemon.booked(&name), kernel(&name));
            daemon.stop();
        }
    });
}

/// A client that never ends its request, one that never reads, and one that asks for a sample are no reason to stay.
#[test]
fn the_end_waits_for_no_client() {
    use std::io::Write;
    let dir = Dir::new();
    past::fill(&dir.join("net-pulse.db"), past::Past::Days);
    let daemon = Daemon::start(&dir, &SELDOM);
    daemon.get("/health");
    let clients: Vec<_> = (0..20)
        .map(|at| {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", daemon.port())).expect("it listens");
            let text: &[u8] = match at % 3 {
                0 => b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
                // Megabytes, of which the kernel holds a part: the rest waits for its reader.
                1 => b"GET /api/export/traffic HTTP/1.1\r\nHost: localhost\r\n\r\n",
                _ => b"PUT /api/config/interfaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
            };
            stream.write_all(text).expect("it listens");
            stream
        })
        .collect();
    rest(100);
    signal(daemon.pid(), Signal::SIGTERM);
    let (code, log) = daemon.ended_within(LONGEST);
    assert_eq!(code, Some(0), "{log:#?}");
    drop(clients);
}

/// A pipe to a logger that hangs: sampling, saving, answering and ending go on, and what was lost is told later.
#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    in_namespace(|| {
        let dir = Dir::new();
        let log = dir.join("log");
        nix::unistd::mkfifo(log.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        // Open both ways, so that it never lacks a reader; and a file of its own, so that only it does not block.
        let flags = nix::libc::O_NONBLOCK;
        let mut pipe = fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(&log).expect("ours");
        fn fill(mut pipe: &fs::File) {
            for size in [4096, 1] {
                while pipe.write(&[b'x'; 4096][..size]).is_ok() {}
            }
        }
        fill(&pipe);
        cable("wan0", "lan0");
        let mut command = net_pulse("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 2>\"$LOG\"", env!("CARGO_BIN_EXE_net-pulse")]).env("LOG", &log);
        command.args(["--host", "127.0.0.1", "--port", "8000", "--database", &dir.join("net-pulse.db")]);
        command.args(["--interval", "1", "--flush", "1", "--log-level", "trace"]);
        let daemon = Daemon::spawn_at(command, ([127, 0, 0, 1], 8000).into());
        let goes_on = |frames: usize| {
            let before = stored(&daemon);
            send("wan0", 1000, frames);
            // Each of these has something to say.
            signal(daemon.pid(), Signal::SIGHUP);
            let wrong = [("Via", "x"), ("Authorization", "Bearer wrong")];
            for _ in 0..8 {
                let asked = Instant::now();
                let to = ([127, 0, 0, 1], daemon.port()).into();
                let answer = ask_with(to, "POST", "/collector/collect", &wrong, None).expect("an answer");
                assert!([401, 429].contains(&answer.status), "{}", answer.status);
                assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
            }
            daemon.ticks(2);
            wait_until("it is saved", || stored(&daemon) > before);
            daemon.collect();
            assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        };
        goes_on(5);
        goes_on(7);

        // Somebody reads again.
        let mut text = Vec::new();
        let mut read = || {
            let outcome = pipe.read_to_end(&mut text);
            assert!(outcome.is_err_and(|cause| cause.kind() == ErrorKind::WouldBlock));
            String::from_utf8_lossy(&text).trim_start_matches('x').to_string()
        };
        assert_eq!(read(), "", "nothing of it came through");
        signal(daemon.pid(), Signal::SIGHUP);
        let mut said = String::new();
        wait_until("it tells of the loss", || {
            said = read();
            said.contains("saving now")
        });
        let first = said.lines().next().unwrap_or_default();
        assert!(first.starts_with("warning: ") && first.contains(" lines were lost"), "{said}");

        fill(&pipe);
        send("wan0", 1000, 11);
        let asked = Instant::now();
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, _) = daemon.ended_within(LONGEST);
        assert_eq!(code, Some(0), "after {:?}", asked.elapsed());
        let daemon = Daemon::start(&dir, &SELDOM);
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        daemon.stop();
    });
}

#[test]
fn a_hangup_saves_and_has_the_zone_read_again() {
    in_namespace(|| {
        let dir = Dir::new();
        // The file that routers keep their zone in, of this thread's own.
        let _disk = small_disk(&dir.join("etc"), 1 << 20);
        for entry in fs::read_dir("/etc").expect("a directory").flatten() {
            let name = entry.file_name();
            if entry.path().is_file() && name != "localtime" && name != "TZ" {
                let _ = fs::copy(entry.path(), format!("{}/{}", dir.join("etc"), name.to_string_lossy()));
            }
        }
        let bind = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(dir.join("etc").as_str()), "/etc", None::<&str>, bind, None::<&str>).expect("a mount");
        fs::write("/etc/TZ", "CET-1\n").expect("it is ours");
        cable("wan0", "lan0");
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(SELDOM);
        command.env_remove("TZ");
        let daemon = Daemon::spawn(command);
        let zone = || daemon.get("/api/system/health")["details"]["clock"]["timezone"].clone();
        assert_eq!(zone(), "CET-1");
        send("wan0", 1000, 5);
        daemon.collect();
        let before = stored(&daemon);
        fs::write("/etc/TZ", "<+0530>-5:30\n").expect("it is ours");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("it is read", || zone() == "<+0530>-5:30");
        wait_until("it is saved", || stored(&daemon) > before);
        // Nonsense is no reason to change anything, nor to end.
        fs::write("/etc/TZ", "\u{1b}[31m nonsense\n").expect("it is ours");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("it has looked", || daemon.log().iter().filter(|line| line.contains("saving now")).count() == 2);
        daemon.get("/health");
        assert!(["<+0530>-5:30", "UTC0", "UTC"].contains(&zone().as_str().expect("a zone")), "{}", zone());
        // Any number of them.
        (0..200).for_each(|_| signal(daemon.pid(), Signal::SIGHUP));
        daemon.get("/health");
        daemon.stop();
        assert_eq!(judge(&dir.join("net-pulse.db")).0, "ok");
    });
}

/// A machine that gets its name from the network is renamed after the start. The old name is somebody else's from then on.
#[test]
fn a_hangup_has_the_host_name_read_again() {
    in_namespace(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).expect("root may");
        nix::unistd::sethostname("oldname").expect("a name of this thread and its children");
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &["--allowed-host", "pulse.example.org"]);
        let status = |host: &str| {
            let to = ([127, 0, 0, 1], daemon.port()).into();
            ask_with(to, "GET", "/health", &[("Host", host)], None).expect("an answer").status
        };
        assert_eq!(["oldname", "newname.lan", "pulse.example.org"].map(status), [200, 421, 200]);
        nix::unistd::sethostname("newname").expect("ours");
        assert_eq!(status("newname"), 421, "not of its own accord");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("it is read", || status("newname") == 200);
        assert_eq!(["oldname", "newname.lan", "pulse.example.org"].map(status), [421, 200, 200]);
        daemon.stop();
    });
}

/// What is wrong with the zone of the machine is worth one line.
#[test]
fn a_zone_that_is_passed_over_is_told_of_once() {
    let dir = Dir::new();
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]);
    let daemon = Daemon::spawn({
        command.env("TZ", "garbage!!");
        command
    });
    daemon.get("/health");
    let log = daemon.stop();
    assert_eq!(log.iter().filter(|line| line.contains("passed over")).count(), 1, "{log:#?}");
}

/// In a container it is the first process: the kernel keeps from that what it has no handler for.
#[test]
fn it_ends_as_the_first_process_too() {
    in_namespace(|| {
        for end in [Signal::SIGTERM, Signal::SIGINT] {
            let dir = Dir::new();
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_net-pulse")]);
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(SELDOM);
            command.stdin(Stdio::null()).stderr(Stdio::piped());
            let daemon = Daemon::spawn(command);
            let program = child_of(daemon.pid());
            daemon.get("/health");
            let status = fs::read_to_string(format!("/proc/{program}/status")).expect("it runs");
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("a line NSpid");
            assert_eq!(ids.split_whitespace().last(), Some("1"), "{ids}");
            signal(program, Signal::SIGHUP);
            wait_until("it has heard", || daemon.log().iter().any(|line| line.contains("saving now")));
            signal(program, end);
            let (code, log) = daemon.ended_within(LONGEST);
            assert_eq!(code, Some(0), "{log:#?}");
            assert_eq!(judge(&dir.join("net-pulse.db")).0, "ok");
        }
    });
}

/// Sixty starts as the first process, each ended at another moment of its first 20 ms. What the kernel is told to keep
/// for later is kept; before the program itself runs, while it is being loaded, nobody can ask it to.
#[test]
fn an_early_signal_is_not_lost_on_the_first_process() {
    in_namespace(|| {
        let dir = Dir::new();
        let binary = fs::canonicalize(env!("CARGO_BIN_EXE_net-pulse")).expect("it is built");
        let mut heard = 0;
        for turn in 0..60 {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--mount-proc"]).arg(&binary);
            command.args(["--host", "127.0.0.1", "--port", "8000", "--database", &dir.join("net-pulse.db")]);
            let mut wrapper = command.args(SELDOM).stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("unshare");
            let program = child_of(wrapper.id());
            wait_until("it is the program", || {
                fs::read_link(format!("/proc/{program}/exe")).is_ok_and(|exe| exe == binary)
            });
            std::thread::sleep(Duration::from_micros(turn * 333));
            let kept = keeps(program, Signal::SIGTERM);
            signal(program, Signal::SIGTERM);
            let status = wait(&mut wrapper, LONGEST);
            if status.is_none() {
                signal(program, Signal::SIGKILL);
            }
            wrapper.wait().expect("a child of ours");
            assert!(status.is_some() || !kept, "turn {turn}: it runs on");
            assert!(status.is_none_or(|status| status.code() == Some(0)), "turn {turn}: {status:?}");
            heard += u64::from(status.is_some());
        }
        println!("{heard} of 60 came after the loader");
        assert!(heard >= 20, "only {heard} of the signals came after the loader's time");
    });
}

/// Whether the kernel keeps this signal for the process, or hands it to somebody who waits for it.
fn keeps(pid: u32, which: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let blocked = u64::from_str_radix(field("SigBlk:"), 16).is_ok_and(|mask| mask & 1 << (which as u32 - 1) != 0);
    // While they are waited for they are not blocked; by then there are other threads.
    blocked || field("Threads:").parse::<u32>().is_ok_and(|count| count > 1)
}

/// The order of its system calls: of all that it reads by itself, nothing comes before the signals are kept.
#[test]
fn signals_are_kept_before_anything_is_read() {
    if !strace_is_there() {
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
    // Refused soon after all that is read at the beginning.
    command.args(["--host", "300.1.1.1", "--database", &dir.join("net-pulse.db")]).env("TZ", "Europe/Berlin");
    assert_eq!(finish(command).code, Some(2));
    let text = fs::read_to_string(&trace).expect("strace writes it");
    let place = |what: &dyn Fn(&str) -> bool| text.lines().position(what);
    let kept = place(&|line| line.contains("rt_sigprocmask(SIG_BLOCK") && line.contains("TERM"));
    // The loader has libraries to open, and the runtime looks where the stack is.
    let loaders = |line: &str| [".so", "/proc/self/maps"].iter().any(|name| line.contains(name));
    let reads = place(&|line| line.starts_with("open") && !loaders(line));
    assert!(reads.is_some(), "nothing was read: {text}");
    assert!(kept.is_some() && kept < reads, "{text}");
}

/// No capability, no account of its own: counting, saving, serving and ending all work.
#[test]
fn root_is_never_needed() {
    in_namespace(|| {
        let dir = Dir::new();
        // The build directory may lie where this account cannot go.
        let (binary, home) = (dir.join("net-pulse"), dir.join("home"));
        fs::copy(env!("CARGO_BIN_EXE_net-pulse"), &binary).expect("a copy");
        fs::create_dir(&home).expect("it is ours");
        chown(home.as_str(), Some(NOBODY.into()), Some(NOBODY.into())).expect("root may");
        cable("wan0", "lan0");
        let database = format!("{home}/net-pulse.db");
        let start = || {
            let mut command = net_pulse(&binary);
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &database]).args(SELDOM);
            command.uid(NOBODY).gid(NOBODY).current_dir("/");
            Daemon::spawn(command)
        };
        let daemon = start();
        daemon.get("/health");
        send("wan0", 1000, 9);
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, log) = daemon.ended_within(LONGEST);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("error") || line.contains("warning")), "{log:#?}");
        let daemon = start();
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        daemon.stop();
        assert_eq!(judge(&database).0, "ok");
    });
}
