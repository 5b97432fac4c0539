//! A start whose database cannot be opened, for any reason. The daemon counts and answers from memory, and health names
//! the reason. When the fault ends, the daemon saves everything and rejoins it with the stored history, exact to the
//! byte.

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

/// A file system of its own for the database of one test.
struct TestDisk {
    dir: Dir,
    disk: Option<Mounted>,
    /// The process that keeps the database locked until its standard input ends.
    locker: Option<Child>,
}

impl TestDisk {
    fn new() -> TestDisk {
        let dir = Dir::new();
        let disk = Some(small_disk(&dir.join("data"), 8 << 20));
        fs::set_permissions(dir.join("data"), Permissions::from_mode(0o777)).expect("a file of the test");
        TestDisk { dir, disk, locker: None }
    }

    fn data(&self) -> String {
        self.dir.join("data")
    }

    fn database(&self) -> String {
        self.dir.join("data/net-pulse.db")
    }

    fn database_exists(&self) -> bool {
        Path::new(&self.database()).exists()
    }

    /// Starts the daemon as an unprivileged user, because root ignores permissions.
    fn start(&self) -> Daemon {
        let binary = self.dir.join("net-pulse");
        if !Path::new(&binary).exists() {
            fs::copy(env!("CARGO_BIN_EXE_net-pulse"), &binary).expect("a copy");
            fs::set_permissions(self.dir.path(), Permissions::from_mode(0o755)).expect("a file of the test");
        }
        let mut command = net_pulse(&binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &self.database()]);
        command.args(["--interval", "1", "--flush", "1"]).uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID).current_dir("/");
        Daemon::spawn(command)
    }

    /// Renames the database and the files that belong to it, from one suffix to another.
    fn rename(&self, from: &str, to: &str) {
        for part in ["", "-wal", "-journal"] {
            let _ = fs::rename(format!("{}{from}{part}", self.database()), format!("{}{to}{part}", self.database()));
        }
    }

    /// Changes the schema version: beyond every known version, or back.
    fn shift_version(&self, by: i32) {
        let conn = Connection::open(self.database()).expect("a file of the test");
        let version: i32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
        conn.pragma_update(None, "user_version", version + by).expect("an unlocked database");
        drop(conn);
        nix::unistd::chown(Path::new(&self.database()), Some(UNPRIVILEGED_UID.into()), Some(UNPRIVILEGED_UID.into()))
            .expect("the test runs as root");
    }
}

impl Drop for TestDisk {
    fn drop(&mut self) {
        if let Some(mut locker) = self.locker.take() {
            drop(locker.stdin.take());
            let _ = locker.wait();
        }
        self.disk.take();
    }
}

/// An obstacle to opening the database: how the test creates and removes it, and what the daemon reports.
struct Obstacle {
    name: &'static str,
    create: fn(&mut TestDisk),
    remove: fn(&mut TestDisk),
    words: &'static [&'static str],
    /// Status code and status of /health: unhealthy if a person must act, degraded if the fault may pass by itself.
    health: (u16, &'static str),
    /// Whether the obstacle can occur with a stored history.
    with_history: bool,
}

const NEEDS_A_PERSON: (u16, &str) = (503, "unhealthy");
const MAY_PASS: (u16, &str) = (200, "degraded");

const OBSTACLES: [Obstacle; 7] = [
    Obstacle {
        name: "a directory",
        create: |test_disk| {
            test_disk.rename("", ".aside");
            fs::create_dir(test_disk.database()).expect("a file of the test");
        },
        remove: |test_disk| {
            fs::remove_dir(test_disk.database()).expect("an empty directory");
            test_disk.rename(".aside", "");
        },
        words: &["is a directory", "--database"],
        health: NEEDS_A_PERSON,
        with_history: true,
    },
    Obstacle {
        name: "a newer schema",
        create: |test_disk| test_disk.shift_version(97),
        remove: |test_disk| match Connection::open(test_disk.database())
            .and_then(|conn| conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)))
        {
            Ok(0) => fs::remove_file(test_disk.database()).expect("a file of the test"),
            _ => test_disk.shift_version(-97),
        },
        words: &["(schema ", "knows up to ", "--database"],
        health: NEEDS_A_PERSON,
        with_history: true,
    },
    Obstacle {
        name: "another program's file",
        create: |test_disk| fs::write(test_disk.database(), "Dear Ada,\n".repeat(500)).expect("a file of the test"),
        remove: |test_disk| {
            assert!(
                fs::read(test_disk.database()).expect("the file exists").starts_with(b"Dear Ada"),
                "the file was changed"
            );
            fs::remove_file(test_disk.database()).expect("a file of the test");
        },
        words: &["is not a database of net-pulse", "--database"],
        health: NEEDS_A_PERSON,
        // With a stored history, the daemon takes such a file for the remains of its damaged database.
        with_history: false,
    },
    Obstacle {
        name: "a read-only file system",
        create: |test_disk| remount(&test_disk.data(), true),
        remove: |test_disk| remount(&test_disk.data(), false),
        words: &[
            "ead-only",
            "lies on a file system that is mounted read-only; mount it read-write, or name another file",
        ],
        health: NEEDS_A_PERSON,
        with_history: true,
    },
    Obstacle {
        name: "a full file system",
        create: |test_disk| fill(&test_disk.dir.join("data/filler")),
        remove: |test_disk| fs::remove_file(test_disk.dir.join("data/filler")).expect("a file of the test"),
        words: &["full"],
        health: MAY_PASS,
        with_history: true,
    },
    Obstacle {
        name: "another program's lock",
        create: |test_disk| {
            const LOCK: &str = "import sqlite3, sys\n\
                c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                c.execute('BEGIN EXCLUSIVE')\nprint('locked', flush=True)\nsys.stdin.read()\n";
            if !test_disk.database_exists() {
                fs::write(test_disk.database(), "").expect("a file of the test");
                let owner = Some(UNPRIVILEGED_UID.into());
                nix::unistd::chown(Path::new(&test_disk.database()), owner, Some(UNPRIVILEGED_UID.into()))
                    .expect("the test runs as root");
            }
            let mut locker = Command::new("python3");
            locker
                .args(["-c", LOCK, &test_disk.database()])
                .uid(UNPRIVILEGED_UID)
                .gid(UNPRIVILEGED_UID)
                .current_dir("/");
            let mut locker = locker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
            let mut line = String::new();
            BufReader::new(locker.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line from the locker");
            assert_eq!(line, "locked\n");
            test_disk.locker = Some(locker);
        },
        remove: |test_disk| {
            let mut locker = test_disk.locker.take().expect("a locker");
            locker.stdin.take().expect("a pipe").flush().expect("a pipe");
            locker.wait().expect("a child of the test");
        },
        words: &["locked", "end the program that has it open"],
        health: MAY_PASS,
        with_history: true,
    },
    Obstacle {
        name: "a directory of another user",
        create: |test_disk| {
            fs::set_permissions(test_disk.data(), Permissions::from_mode(0o700)).expect("a file of the test")
        },
        remove: |test_disk| {
            fs::set_permissions(test_disk.data(), Permissions::from_mode(0o777)).expect("a file of the test")
        },
        words: &[
            "ermission denied",
            "data belongs to user 0, and this program runs as user 65534; let user 65534 write there",
        ],
        health: NEEDS_A_PERSON,
        with_history: true,
    },
];

fn lifetime(daemon: &Daemon) -> u64 {
    daemon.interface("wan0")["lifetime_tx_bytes"].as_u64().expect("a number")
}

/// Time and counters of each row, without the id, which a row gets only when it is saved.
fn figures(rows: &[Value]) -> Vec<(String, Counters)> {
    rows.iter().map(|row| (row["timestamp"].to_string(), counters_of(row))).collect()
}

/// Checks that health, the log and the events report the fault, and that answers from memory are exact to the byte.
fn assert_counts_in_memory(daemon: &Daemon, base: Counters, words: &[&str], (status, word): (u16, &str)) {
    wait_until("health reports the fault", || database_status(daemon) == word);
    let health = daemon.request("GET", "/health", None);
    assert_eq!((health.status, health.json()["status"].as_str()), (status, Some(word)), "{}", health.text());
    for word in words {
        let reason = health.text();
        assert!(reason.contains(word) && database_error(daemon).contains(word), "no {word} in {reason}");
        let errors: Vec<String> = daemon.log().into_iter().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(word), "{word}: {errors:#?}");
        let events = daemon.get("/api/events");
        let found = |event: &Value| event["kind"] == "storage" && event["detail"].as_str().unwrap().contains(word);
        assert!(events.as_array().expect("a list").iter().any(found), "{events}");
    }
    for frames in 1..4 {
        send("wan0", 1000, frames);
        daemon.wait_for_ticks(1);
    }
    daemon.collect();
    assert_eq!(daemon.exported_sum("wan0"), minus(kernel_counters("wan0"), base), "from memory");
    assert_eq!(lifetime(daemon), minus(kernel_counters("wan0"), base)[1]);
    for path in ["/api/traffic/latest", "/api/traffic/summary", "/api/traffic/series?interface=wan0", "/metrics"] {
        assert_ne!(daemon.request("GET", path, None).status, 500, "{path}");
    }
}

/// Checks after the fault that everything is on disk, rejoined with the stored history.
fn assert_rejoined(daemon: Daemon, test_disk: &TestDisk, base: Counters) {
    let memory = figures(&daemon.export("wan0"));
    let before = lifetime(&daemon);
    signal(daemon.pid(), Signal::SIGHUP);
    wait_until("the ticks are saved", || {
        assert!(lifetime(&daemon) >= before, "a lifetime fell");
        database_status(&daemon) == "healthy" && stored_samples(&daemon) > 0
    });
    send("wan0", 1000, 5);
    daemon.collect();
    let rows = figures(&daemon.export("wan0"));
    let mut later = rows.iter();
    assert!(memory.iter().all(|row| later.any(|found| found == row)), "{memory:#?} are not all in {rows:#?}");
    let expect = minus(kernel_counters("wan0"), base);
    assert_eq!(daemon.exported_sum("wan0"), expect, "rejoined: {:#?}", daemon.log());
    assert_eq!(lifetime(&daemon), expect[1]);
    assert!(daemon.log().iter().any(|line| line.contains("saving works again")), "{:#?}", daemon.log());
    let events = daemon.get("/api/events?limit=1000").to_string();
    assert_eq!(events.contains("the history is open now"), events.contains("cannot be opened"), "{events}");
    let log = daemon.stop();
    assert!(!log.iter().any(|line| line.contains("unsaved") || line.contains("panicked")), "{log:#?}");
    assert_eq!(check_with_sqlite(&test_disk.database()).0, "ok");

    send("wan0", 1000, 7);
    let daemon = test_disk.start();
    daemon.collect();
    let expect = minus(kernel_counters("wan0"), base);
    assert_eq!(daemon.exported_sum("wan0"), expect, "after a restart");
    assert_eq!(lifetime(&daemon), expect[1]);
    daemon.stop();
    let conn = Connection::open(test_disk.database()).expect("a closed database");
    let identities: i64 =
        conn.query_row("SELECT count(*) FROM interface WHERE name = 'wan0'", [], |row| row.get(0)).expect("a number");
    assert_eq!(identities, 1, "one record");
}

/// Saves a history of this boot, then sends traffic while no daemon runs.
fn make_history(test_disk: &TestDisk) {
    let daemon = test_disk.start();
    daemon.wait_for_ticks(1);
    send("wan0", 1000, 11);
    daemon.collect();
    daemon.stop();
    send("wan0", 1000, 13);
}

fn recovers_from(obstacle: &Obstacle, with_history: bool) {
    let mut test_disk = TestDisk::new();
    cable("wan0", "lan0");
    send("wan0", 1000, 3);
    let first = kernel_counters("wan0");
    if with_history {
        make_history(&test_disk);
    }
    let base = kernel_counters("wan0");
    (obstacle.create)(&mut test_disk);
    let daemon = test_disk.start();
    if with_history && obstacle.name == "a full file system" {
        // The database is intact and readable: the daemon opens it, and saves once there is space.
        wait_until("health reports the fault", || database_status(&daemon) == "degraded");
    } else {
        assert_counts_in_memory(&daemon, base, obstacle.words, obstacle.health);
    }
    signal(daemon.pid(), Signal::SIGTERM);
    let (code, log) = daemon.ended_within(Duration::from_secs(3));
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("stay unsaved")), "{log:#?}");

    let base = if with_history { first } else { kernel_counters("wan0") };
    let daemon = test_disk.start();
    // The daemon answers after its first reading.
    daemon.request("GET", "/health", None);
    send("wan0", 1000, 17);
    daemon.wait_for_ticks(2);
    (obstacle.remove)(&mut test_disk);
    assert_rejoined(daemon, &test_disk, base);
}

#[test]
fn a_new_history_survives_every_obstacle() {
    for obstacle in &OBSTACLES {
        eprintln!("{}", obstacle.name);
        in_namespace(|| recovers_from(obstacle, false));
    }
}

#[test]
fn a_stored_history_survives_every_obstacle() {
    for obstacle in OBSTACLES.iter().filter(|obstacle| obstacle.with_history) {
        eprintln!("{}", obstacle.name);
        in_namespace(|| recovers_from(obstacle, true));
    }
}

/// Starts the real program under strace, which delays its first write to the database by `seconds`.
fn start_slow(test_disk: &TestDisk, seconds: u32) -> Daemon {
    let mut command = net_pulse("strace");
    let inject = format!("inject=pwrite64:delay_enter={}:when=1", seconds * 1_000_000);
    command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", &inject]);
    command.args([env!("CARGO_BIN_EXE_net-pulse"), "--host", "127.0.0.1", "--port", "0"]);
    command.args(["--database", &test_disk.database(), "--interval", "1", "--flush", "1"]);
    Daemon::spawn(command)
}

/// The program under strace. It does not end with strace, so dropping this value kills it.
struct Traced(u32);

impl Drop for Traced {
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
fn e38_an_opening_of_twenty_seconds_delays_nothing_else() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let test_disk = TestDisk::new();
        cable("wan0", "lan0");
        send("wan0", 1000, 3);
        let first = kernel_counters("wan0");
        make_history(&test_disk);
        let base = kernel_counters("wan0");
        let started = Instant::now();
        let daemon = start_slow(&test_disk, 20);
        let program = Traced(child_of(daemon.pid()));
        daemon.get("/health");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert_counts_in_memory(&daemon, base, &["takes more than 3 s"], MAY_PASS);
        let memory = figures(&daemon.export("wan0"));
        assert!(started.elapsed() < Duration::from_secs(20), "the database is still being opened");
        while started.elapsed() < Duration::from_secs(60) && database_status(&daemon) != "healthy" {
            sleep_ms(100);
        }
        wait_until("the ticks are saved", || database_status(&daemon) == "healthy" && stored_samples(&daemon) > 0);
        daemon.collect();
        let expect = minus(kernel_counters("wan0"), first);
        assert_eq!((daemon.exported_sum("wan0"), lifetime(&daemon)), (expect, expect[1]));
        let rows = figures(&daemon.export("wan0"));
        let mut later = rows.iter();
        assert!(memory.iter().all(|row| later.any(|found| found == row)), "{memory:#?} are not all in {rows:#?}");
        signal(program.0, Signal::SIGTERM);
        assert_eq!(daemon.ended_within(TIMEOUT).0, Some(0));
        let daemon = test_disk.start();
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), expect, "after a restart");
        daemon.stop();
    });
}

/// The signal comes once while the start waits for the database, and once after it has continued without the database.
#[test]
fn shutdown_does_not_wait_for_the_database_to_open() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        cable("wan0", "lan0");
        for continued in [false, true] {
            let test_disk = TestDisk::new();
            make_history(&test_disk);
            let mut command = net_pulse("strace");
            command.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=pwrite64"]);
            command.args(["-e", "inject=pwrite64:delay_enter=20000000:when=1", env!("CARGO_BIN_EXE_net-pulse")]);
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &test_disk.database()]);
            let mut strace = command.stderr(Stdio::null()).spawn().expect("strace");
            // strace first starts test children of its own.
            let threads = |pid: u32| {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count());
                if comm.trim() == "net-pulse" { tasks } else { 0 }
            };
            let mut pid = 0;
            wait_until("the daemon has its threads", || {
                pid = child_of(strace.id());
                threads(pid) >= if continued { 6 } else { 3 }
            });
            let program = Traced(pid);
            let asked = Instant::now();
            signal(program.0, Signal::SIGTERM);
            wait_until("the daemon ends", || !is_running(program.0));
            assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
            // Otherwise strace waits for the injected delay.
            strace.kill().expect("a child of the test");
            strace.wait().expect("a child of the test");
        }
    });
}

/// Saved settings take effect late, except those that were changed meanwhile. A shutdown right after the fault still
/// saves everything.
#[test]
fn saved_settings_apply_late_and_shutdown_saves() {
    in_namespace(|| {
        let mut test_disk = TestDisk::new();
        let directory = &OBSTACLES[0];
        cable("wan0", "lan0");
        let daemon = test_disk.start();
        let put = |daemon: &Daemon, path: &str, key: &str, value: Value| {
            assert_eq!(daemon.put(path, serde_json::json!({ key: value })).status, 200);
        };
        put(&daemon, "/api/config/max-retries", "max_retries", 7.into());
        put(&daemon, "/api/config/retry-delay", "retry_delay", 5.into());
        wait_until("the settings are saved", || database_status(&daemon) == "healthy" && unsaved_samples(&daemon) <= 4);
        daemon.stop();
        let settings = |daemon: &Daemon| {
            let retries = daemon.get("/api/config/max-retries")["max_retries"].as_u64();
            (retries, daemon.get("/api/config/retry-delay")["retry_delay_seconds"].as_f64())
        };
        (directory.create)(&mut test_disk);
        let daemon = test_disk.start();
        assert_eq!(settings(&daemon), (Some(3), Some(1.0)), "defaults, while the database is closed");
        put(&daemon, "/api/config/retry-delay", "retry_delay", 2.into());
        (directory.remove)(&mut test_disk);
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the saved settings take effect", || settings(&daemon) == (Some(7), Some(2.0)));
        wait_until("the ticks are saved", || database_status(&daemon) == "healthy");
        daemon.stop();

        (directory.create)(&mut test_disk);
        let daemon = test_disk.start();
        send("wan0", 1000, 9);
        daemon.wait_for_ticks(2);
        let rows = figures(&daemon.export("wan0"));
        (directory.remove)(&mut test_disk);
        let log = daemon.stop();
        assert!(!log.iter().any(|line| line.contains("unsaved")), "{log:#?}");
        let daemon = test_disk.start();
        assert_eq!(settings(&daemon), (Some(7), Some(2.0)));
        let stored = figures(&daemon.export("wan0"));
        let mut later = stored.iter();
        assert!(rows.iter().all(|row| later.any(|found| found == row)), "{rows:#?} are not all in {stored:#?}");
        daemon.stop();
    });
}
