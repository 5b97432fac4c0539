//! A start without its database, whatever is in its way: counting and answering go on in memory, health says why, and when
//! the fault ends everything of it is on disk, joined to what was there before, to the byte.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::disk::*;
use crate::common::*;
use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::Value;

const NOBODY: u32 = 65_534;

/// Where one test keeps its database: a file system of its own.
struct Place {
    dir: Dir,
    disk: Option<Mounted>,
    /// Whoever keeps the database locked, until its input ends.
    locker: Option<Child>,
}

impl Place {
    fn new() -> Place {
        let dir = Dir::new();
        let disk = Some(small_disk(&dir.join("data"), 8 << 20));
        fs::set_permissions(dir.join("data"), Permissions::from_mode(0o777)).expect("it is ours");
        Place { dir, disk, locker: None }
    }

    fn data(&self) -> String {
        self.dir.join("data")
    }

    fn database(&self) -> String {
        self.dir.join("data/net-pulse.db")
    }

    fn is_there(&self) -> bool {
        Path::new(&self.database()).exists()
    }

    /// For an ordinary user, whom permissions stop.
    fn start(&self) -> Daemon {
        let binary = self.dir.join("net-pulse");
        if !Path::new(&binary).exists() {
            fs::copy(env!("CARGO_BIN_EXE_net-pulse"), &binary).expect("a copy");
            fs::set_permissions(self.dir.path(), Permissions::from_mode(0o755)).expect("it is ours");
        }
        let mut command = net_pulse(&binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &self.database()]);
        command.args(["--interval", "1", "--flush", "1"]).uid(NOBODY).gid(NOBODY).current_dir("/");
        Daemon::spawn(command)
    }

    /// The database and what belongs to it, under another name or back.
    fn rename(&self, from: &str, to: &str) {
        for part in ["", "-wal", "-journal"] {
            let _ = fs::rename(format!("{}{from}{part}", self.database()), format!("{}{to}{part}", self.database()));
        }
    }

    /// Further than any that is known, or back from there.
    fn shift_version(&self, by: i32) {
        let conn = Connection::open(self.database()).expect("it is ours");
        let version: i32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
        conn.pragma_update(None, "user_version", version + by).expect("no other program has it");
        drop(conn);
        nix::unistd::chown(Path::new(&self.database()), Some(NOBODY.into()), Some(NOBODY.into())).expect("root may");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut locker) = self.locker.take() {
            drop(locker.stdin.take());
            let _ = locker.wait();
        }
        self.disk.take();
    }
}

/// What stands in the way, how it goes away, and what is said of it.
struct Obstacle {
    name: &'static str,
    spoil: fn(&mut Place),
    mend: fn(&mut Place),
    words: &'static [&'static str],
    /// What health says: it waits for a person, or may pass by itself.
    health: (u16, &'static str),
    /// It makes sense where a history is.
    with_history: bool,
}

const LASTS: (u16, &str) = (503, "unhealthy");
const PASSES: (u16, &str) = (200, "degraded");

const OBSTACLES: [Obstacle; 7] = [
    Obstacle {
        name: "a directory",
        spoil: |place| {
            place.rename("", ".aside");
            fs::create_dir(place.database()).expect("it is ours");
        },
        mend: |place| {
            fs::remove_dir(place.database()).expect("nothing was put into it");
            place.rename(".aside", "");
        },
        words: &["is a directory", "--database"],
        health: LASTS,
        with_history: true,
    },
    Obstacle {
        name: "a newer schema",
        spoil: |place| place.shift_version(97),
        mend: |place| match Connection::open(place.database())
            .and_then(|conn| conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)))
        {
            Ok(0) => fs::remove_file(place.database()).expect("it is ours"),
            _ => place.shift_version(-97),
        },
        words: &["(schema ", "knows up to ", "--database"],
        health: LASTS,
        with_history: true,
    },
    Obstacle {
        name: "somebody else's file",
        spoil: |place| fs::write(place.database(), "Dear Ada,\n".repeat(500)).expect("it is ours"),
        mend: |place| {
            assert!(fs::read(place.database()).expect("it is there").starts_with(b"Dear Ada"), "it was touched");
            fs::remove_file(place.database()).expect("it is ours");
        },
        words: &["is not a database of net-pulse", "--database"],
        health: LASTS,
        // Where our own was before, this is taken for its remains.
        with_history: false,
    },
    Obstacle {
        name: "a read-only file system",
        spoil: |place| remount(&place.data(), true),
        mend: |place| remount(&place.data(), false),
        words: &[
            "ead-only",
            "lies on a file system that is mounted read-only; mount it read-write, or name another file",
        ],
        health: LASTS,
        with_history: true,
    },
    Obstacle {
        name: "a full file system",
        spoil: |place| fill(&place.dir.join("data/filler")),
        mend: |place| fs::remove_file(place.dir.join("data/filler")).expect("it is ours"),
        words: &["full"],
        health: PASSES,
        with_history: true,
    },
    Obstacle {
        name: "another program's lock",
        spoil: |place| {
            const LOCK: &str = "import sqlite3, sys\n\
                c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                c.execute('BEGIN EXCLUSIVE')\nprint('locked', flush=True)\nsys.stdin.read()\n";
            if !place.is_there() {
                fs::write(place.database(), "").expect("it is ours");
                let nobody = Some(NOBODY.into());
                nix::unistd::chown(Path::new(&place.database()), nobody, Some(NOBODY.into())).expect("root may");
            }
            let mut locker = Command::new("python3");
            locker.args(["-c", LOCK, &place.database()]).uid(NOBODY).gid(NOBODY).current_dir("/");
            let mut locker = locker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
            let mut line = String::new();
            BufReader::new(locker.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says so");
            assert_eq!(line, "locked\n");
            place.locker = Some(locker);
        },
        mend: |place| {
            let mut locker = place.locker.take().expect("it runs");
            locker.stdin.take().expect("a pipe").flush().expect("a pipe");
            locker.wait().expect("a child of ours");
        },
        words: &["locked", "end the program that has it open"],
        health: PASSES,
        with_history: true,
    },
    Obstacle {
        name: "a directory that is not ours",
        spoil: |place| fs::set_permissions(place.data(), Permissions::from_mode(0o700)).expect("it is ours"),
        mend: |place| fs::set_permissions(place.data(), Permissions::from_mode(0o777)).expect("it is ours"),
        words: &[
            "ermission denied",
            "data belongs to user 0, and net-pulse runs as user 65534; let user 65534 write there",
        ],
        health: LASTS,
        with_history: true,
    },
];

fn lifetime(daemon: &Daemon) -> u64 {
    daemon.interface("wan0")["lifetime_tx_bytes"].as_u64().expect("a number")
}

/// What somebody reads off a row, without the number that it has only later.
fn figures(rows: &[Value]) -> Vec<(String, Counters)> {
    rows.iter().map(|row| (row["timestamp"].to_string(), counters_of(row))).collect()
}

/// Told by health, in the log and among the events; answered from memory, to the byte.
fn counts_without(daemon: &Daemon, base: Counters, words: &[&str], (status, word): (u16, &str)) {
    wait_until("it is said aloud", || database_status(daemon) == word);
    let health = daemon.request("GET", "/health", None);
    assert_eq!((health.status, health.json()["status"].as_str()), (status, Some(word)), "{}", health.text());
    for word in words {
        let reason = health.text();
        assert!(reason.contains(word) && database_error(daemon).contains(word), "no {word} in {reason}");
        let told: Vec<String> = daemon.log().into_iter().filter(|line| line.starts_with("error: ")).collect();
        assert!(told.len() == 1 && told[0].contains(word), "{word}: {told:#?}");
        let events = daemon.get("/api/events");
        let found = |event: &Value| event["kind"] == "storage" && event["detail"].as_str().unwrap().contains(word);
        assert!(events.as_array().expect("a list").iter().any(found), "{events}");
    }
    for frames in 1..4 {
        send("wan0", 1000, frames);
        daemon.ticks(1);
    }
    daemon.collect();
    assert_eq!(daemon.booked("wan0"), minus(kernel("wan0"), base), "from memory");
    assert_eq!(lifetime(daemon), minus(kernel("wan0"), base)[1]);
    for path in ["/api/traffic/latest", "/api/traffic/summary", "/api/traffic/series?interface=wan0", "/metrics"] {
        assert_ne!(daemon.request("GET", path, None).status, 500, "{path}");
    }
}

/// Once the fault is over: everything is on disk, behind what was there.
fn goes_on(daemon: Daemon, place: &Place, base: Counters) {
    let memory = figures(&daemon.export("wan0"));
    let before = lifetime(&daemon);
    signal(daemon.pid(), Signal::SIGHUP);
    wait_until("it is saved", || {
        assert!(lifetime(&daemon) >= before, "a lifetime fell");
        database_status(&daemon) == "healthy" && stored(&daemon) > 0
    });
    send("wan0", 1000, 5);
    daemon.collect();
    let rows = figures(&daemon.export("wan0"));
    let mut later = rows.iter();
    assert!(memory.iter().all(|row| later.any(|known| known == row)), "{memory:#?} are not all in {rows:#?}");
    let expect = minus(kernel("wan0"), base);
    assert_eq!(daemon.booked("wan0"), expect, "joined: {:#?}", daemon.log());
    assert_eq!(lifetime(&daemon), expect[1]);
    assert!(daemon.log().iter().any(|line| line.contains("saving works again")), "{:#?}", daemon.log());
    let events = daemon.get("/api/events?limit=1000").to_string();
    assert_eq!(events.contains("goes on with it"), events.contains("cannot be opened"), "{events}");
    let log = daemon.stop();
    assert!(!log.iter().any(|line| line.contains("unsaved") || line.contains("panicked")), "{log:#?}");
    assert_eq!(judge(&place.database()).0, "ok");

    send("wan0", 1000, 7);
    let daemon = place.start();
    daemon.collect();
    let expect = minus(kernel("wan0"), base);
    assert_eq!(daemon.booked("wan0"), expect, "after a restart");
    assert_eq!(lifetime(&daemon), expect[1]);
    daemon.stop();
    let conn = Connection::open(place.database()).expect("nobody has it");
    let known: i64 =
        conn.query_row("SELECT count(*) FROM interface WHERE name = 'wan0'", [], |row| row.get(0)).expect("a number");
    assert_eq!(known, 1, "one identity");
}

/// A history of this boot, and traffic that nobody has seen behind it.
fn make_history(place: &Place) {
    let daemon = place.start();
    daemon.ticks(1);
    send("wan0", 1000, 11);
    daemon.collect();
    daemon.stop();
    send("wan0", 1000, 13);
}

fn overcomes(obstacle: &Obstacle, with_history: bool) {
    let mut place = Place::new();
    cable("wan0", "lan0");
    send("wan0", 1000, 3);
    let first = kernel("wan0");
    if with_history {
        make_history(&place);
    }
    let base = kernel("wan0");
    (obstacle.spoil)(&mut place);
    let daemon = place.start();
    if with_history && obstacle.name == "a full file system" {
        // Whole and readable: opened as it is, and written to once there is room.
        wait_until("it is said aloud", || database_status(&daemon) == "degraded");
    } else {
        counts_without(&daemon, base, obstacle.words, obstacle.health);
    }
    signal(daemon.pid(), Signal::SIGTERM);
    let (code, log) = daemon.ended_within(Duration::from_secs(3));
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("stay unsaved")), "{log:#?}");

    let base = if with_history { first } else { kernel("wan0") };
    let daemon = place.start();
    // Answered after the first reading.
    daemon.request("GET", "/health", None);
    send("wan0", 1000, 17);
    daemon.ticks(2);
    (obstacle.mend)(&mut place);
    goes_on(daemon, &place, base);
}

#[test]
fn whatever_is_in_the_way_of_a_new_history() {
    for obstacle in &OBSTACLES {
        eprintln!("{}", obstacle.name);
        in_namespace(|| overcomes(obstacle, false));
    }
}

#[test]
fn whatever_is_in_the_way_of_a_known_history() {
    for obstacle in OBSTACLES.iter().filter(|obstacle| obstacle.with_history) {
        eprintln!("{}", obstacle.name);
        in_namespace(|| overcomes(obstacle, true));
    }
}

/// The real program below strace, which lets its first write of the database take so long.
fn slow(place: &Place, seconds: u32) -> Daemon {
    let mut command = net_pulse("strace");
    let inject = format!("inject=pwrite64:delay_enter={}:when=1", seconds * 1_000_000);
    command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", &inject]);
    command.args([env!("CARGO_BIN_EXE_net-pulse"), "--host", "127.0.0.1", "--port", "0"]);
    command.args(["--database", &place.database(), "--interval", "1", "--flush", "1"]);
    Daemon::spawn(command)
}

/// The program below strace: it does not end with it.
struct Below(u32);

impl Drop for Below {
    fn drop(&mut self) {
        if is_running(self.0) {
            signal(self.0, Signal::SIGKILL);
        }
    }
}

fn is_running(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains("(zombie)"))
}

#[test]
fn e38_an_opening_of_twenty_seconds_holds_up_nobody() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let place = Place::new();
        cable("wan0", "lan0");
        send("wan0", 1000, 3);
        let first = kernel("wan0");
        make_history(&place);
        let base = kernel("wan0");
        let started = Instant::now();
        let daemon = slow(&place, 20);
        let program = Below(child_of(daemon.pid()));
        daemon.get("/health");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        counts_without(&daemon, base, &["takes more than 3 s"], PASSES);
        let memory = figures(&daemon.export("wan0"));
        assert!(started.elapsed() < Duration::from_secs(20), "it is still being opened");
        while started.elapsed() < Duration::from_secs(60) && database_status(&daemon) != "healthy" {
            rest(100);
        }
        wait_until("it is saved", || database_status(&daemon) == "healthy" && stored(&daemon) > 0);
        daemon.collect();
        let expect = minus(kernel("wan0"), first);
        assert_eq!((daemon.booked("wan0"), lifetime(&daemon)), (expect, expect[1]));
        let rows = figures(&daemon.export("wan0"));
        let mut later = rows.iter();
        assert!(memory.iter().all(|row| later.any(|known| known == row)), "{memory:#?} are not all in {rows:#?}");
        signal(program.0, Signal::SIGTERM);
        assert_eq!(daemon.ended_within(PATIENCE).0, Some(0));
        let daemon = place.start();
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), expect, "after a restart");
        daemon.stop();
    });
}

/// Before the start has given up waiting, and after.
#[test]
fn the_end_does_not_wait_for_an_opening() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        cable("wan0", "lan0");
        for waits in [false, true] {
            let place = Place::new();
            make_history(&place);
            let mut command = net_pulse("strace");
            command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=pwrite64"]);
            command.args(["-e", "inject=pwrite64:delay_enter=20000000:when=1", env!("CARGO_BIN_EXE_net-pulse")]);
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &place.database()]);
            let mut strace = command.stderr(Stdio::null()).spawn().expect("strace");
            // strace has had other children before.
            let threads = |pid: u32| {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count());
                if comm.trim() == "net-pulse" { tasks } else { 0 }
            };
            let mut pid = 0;
            wait_until("its threads are there", || {
                pid = child_of(strace.id());
                threads(pid) >= if waits { 6 } else { 3 }
            });
            let program = Below(pid);
            let asked = Instant::now();
            signal(program.0, Signal::SIGTERM);
            wait_until("it ends", || !is_running(program.0));
            assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
            // It sits out its delay otherwise.
            strace.kill().expect("a child of ours");
            strace.wait().expect("a child of ours");
        }
    });
}

/// Settings of the history take effect late, but for those that were changed meanwhile; and who ends the program right after
/// the fault has everything on disk.
#[test]
fn late_settings_and_a_last_attempt() {
    in_namespace(|| {
        let mut place = Place::new();
        let directory = &OBSTACLES[0];
        cable("wan0", "lan0");
        let daemon = place.start();
        let put = |daemon: &Daemon, path: &str, key: &str, value: Value| {
            assert_eq!(daemon.put(path, serde_json::json!({ key: value })).status, 200);
        };
        put(&daemon, "/api/config/max-retries", "max_retries", 7.into());
        put(&daemon, "/api/config/retry-delay", "retry_delay", 5.into());
        wait_until("they are saved", || database_status(&daemon) == "healthy" && unsaved(&daemon) <= 4);
        daemon.stop();
        let settings = |daemon: &Daemon| {
            let retries = daemon.get("/api/config/max-retries")["max_retries"].as_u64();
            (retries, daemon.get("/api/config/retry-delay")["retry_delay_seconds"].as_f64())
        };
        (directory.spoil)(&mut place);
        let daemon = place.start();
        assert_eq!(settings(&daemon), (Some(3), Some(1.0)), "nobody knows better");
        put(&daemon, "/api/config/retry-delay", "retry_delay", 2.into());
        (directory.mend)(&mut place);
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("they take effect", || settings(&daemon) == (Some(7), Some(2.0)));
        wait_until("it is saved", || database_status(&daemon) == "healthy");
        daemon.stop();

        (directory.spoil)(&mut place);
        let daemon = place.start();
        send("wan0", 1000, 9);
        daemon.ticks(2);
        let rows = figures(&daemon.export("wan0"));
        (directory.mend)(&mut place);
        let log = daemon.stop();
        assert!(!log.iter().any(|line| line.contains("unsaved")), "{log:#?}");
        let daemon = place.start();
        assert_eq!(settings(&daemon), (Some(7), Some(2.0)));
        let stored = figures(&daemon.export("wan0"));
        let mut later = stored.iter();
        assert!(rows.iter().all(|row| later.any(|known| known == row)), "{rows:#?} are not all in {stored:#?}");
        daemon.stop();
    });
}
