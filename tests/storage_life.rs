//! Signals and life: the end saves everything and takes no longer than it may, as PID 1 too; a hangup has things read
//! again and saved; nothing of it needs root.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::disk::*;
use common::*;
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
