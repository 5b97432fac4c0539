//! Merging, forgetting and backing up while things fail: the daemon is killed in the middle, the disk is full or
//! returns errors, readers of a backup go away. Afterwards the history is as it was before the change or as it is after
//! it, at all resolutions, and no byte is lost or counted twice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::common::disk::*;
use crate::common::stored_history::Random;
use crate::common::*;
use crate::stored_history::{self, HistoryLength};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

/// An hour between timed saves: the daemon saves only what a test requests.
const RARE_SAVES: [&str; 4] = ["--interval", "1", "--flush", "3600"];

type Sum = [u64; 2];

fn add(one: Sum, other: Sum) -> Sum {
    [one[0] + other[0], one[1] + other[1]]
}

fn bytes(counters: Counters) -> Sum {
    [counters[0], counters[1]]
}

/// The sums of an interface: at each resolution, from the totals by day and by month, and last its lifetime. `None` if
/// the daemon does not know the interface.
fn sums_by_resolution(daemon: &Daemon, name: &str) -> Option<Vec<Sum>> {
    let iface = daemon.request("GET", &format!("/api/interfaces/{name}"), None);
    if iface.status == 404 {
        return None;
    }
    let number = |row: &Value, key: &str| row[key].as_u64().unwrap_or_else(|| panic!("no {key} in {row}"));
    let iface = iface.json();
    let lifetime = [number(&iface, "lifetime_rx_bytes"), number(&iface, "lifetime_tx_bytes")];
    let export = |resolution| format!("/api/export/traffic?resolution={resolution}&interface_name={name}");
    let totals = |by| format!("/api/traffic/totals?by={by}&interface={name}");
    let paths = [export("sample"), export("5min"), export("hour"), export("day"), totals("day"), totals("month")];
    let sums = paths.map(|path| {
        let rows = daemon.get(&path);
        let rows = rows.as_array().expect("a list").iter();
        rows.map(|row| [number(row, "rx_bytes"), number(row, "tx_bytes")]).fold([0; 2], add)
    });
    Some(sums.into_iter().chain([lifetime]).collect())
}

/// The one sum of an interface. All resolutions must agree, because nothing is older than its retention.
fn sum(daemon: &Daemon, name: &str) -> Option<Sum> {
    let sums = sums_by_resolution(daemon, name)?;
    assert!(sums.iter().all(|sum| *sum == sums[0]), "sums of {name} by resolution: {sums:?}");
    sums.first().copied()
}

/// Checks that every stored row belongs to an interface that the daemon knows.
fn no_orphans(daemon: &Daemon) {
    let known = daemon.get("/api/interfaces");
    for resolution in ["5min", "day"] {
        for row in daemon.get(&format!("/api/export/traffic?resolution={resolution}")).as_array().expect("a list") {
            let name = row["interface_name"].as_str().expect("a name");
            assert!(known.get(name).is_some(), "{name} has rows of {resolution}, but is unknown");
        }
    }
}

/// Saves everything so far: the daemon answers this request after the save.
fn save(daemon: &Daemon) {
    let answer = daemon.request("PATCH", "/api/config", Some(json!({"units": "bytes"}).to_string()));
    assert_eq!((answer.status, &answer.json()["saved"]), (200, &json!(true)), "{}", answer.text());
}

fn merge(daemon: &Daemon, from: &str, into: &str) -> Value {
    let body = json!({ "merge": from }).to_string();
    let answer = daemon.request("PATCH", &format!("/api/interfaces/{into}"), Some(body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["saved"].clone()
}

fn wait_until_absent(daemon: &Daemon, name: &str) {
    wait_until("the interface is absent", || daemon.interface(name)["present"] == false);
}

fn number_of_events(daemon: &Daemon, kind: &str) -> usize {
    daemon.get(&format!("/api/events?limit=1000&kind={kind}")).as_array().expect("a list").len()
}

fn backup_files(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a file of the test");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
    names.filter(|name| name.contains("backup")).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Merge,
    /// A merge that was requested while the disk was full and the writer held some of the ticks.
    LateMerge,
    Forget,
    Backup,
}

impl Change {
    fn request(self) -> (&'static str, &'static str, Option<String>) {
        match self {
            Change::Merge | Change::LateMerge => {
                ("PATCH", "/api/interfaces/wan0", Some(json!({"merge": "old0"}).to_string()))
            }
            Change::Forget => ("DELETE", "/api/interfaces/old0", None),
            Change::Backup => ("POST", "/api/backup", None),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum KillTime {
    /// This long after the request.
    After(Duration),
    /// Before the write with this number, counted for each thread.
    Write(u32),
}

/// The state of the history after the kill: before the change or after it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Before,
    After,
}

/// Repeated runs of the daemon on one database, each ended by a kill. One interface of the history is never changed.
struct CrashRuns {
    dir: Dir,
    daemon: Option<Daemon>,
    untouched: Option<Sum>,
    merges: usize,
    /// Number of kills that left an unfinished copy.
    unfinished_copies: usize,
}

impl CrashRuns {
    fn new() -> CrashRuns {
        let dir = Dir::new();
        stored_history::write_history(&dir.join("net-pulse.db"), HistoryLength::Days);
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &RARE_SAVES);
        daemon.wait_for_ticks(1);
        send("wan0", 1000, 1);
        daemon.collect();
        let untouched = sum(&daemon, "lan7");
        assert!(untouched.is_some());
        CrashRuns { dir, daemon: Some(daemon), untouched, merges: 0, unfinished_copies: 0 }
    }

    /// A link appears, carries traffic of which a part is saved, and disappears. Then the test changes its history and
    /// kills the daemon.
    fn run_once(&mut self, change: Change, kill_time: KillTime) -> Outcome {
        let daemon = self.daemon.take().expect("a daemon between two runs");
        cable("old0", "far0");
        wait_until("the daemon lists the link", || {
            let answer = daemon.request("GET", "/api/interfaces/old0", None);
            answer.status == 200 && answer.json()["present"] == true
        });
        send("old0", 700, 5);
        daemon.collect();
        save(&daemon);
        let saved = sum(&daemon, "old0").expect("a known interface");
        let mut full = None;
        let mut in_writer = saved;
        if change == Change::LateMerge {
            full = Some(InjectedFault::on_sqlite_writes(&daemon, "error=ENOSPC"));
            send("old0", 500, 3);
            daemon.collect();
            signal(daemon.pid(), Signal::SIGHUP);
            wait_until("the writer holds the ticks", || database_status(&daemon) == "degraded");
            in_writer = sum(&daemon, "old0").expect("a known interface");
        }
        send("old0", 600, 7);
        send("wan0", 1000, 3);
        daemon.collect();
        ip("link del old0");
        wait_until_absent(&daemon, "old0");
        let whole = sum(&daemon, "old0").expect("a known interface");
        assert_eq!(whole, add(in_writer, [0, 7 * 600]));
        let (target, counted) = (sum(&daemon, "wan0").expect("a known interface"), bytes(kernel_counters("wan0")));

        let (method, path, body) = change.request();
        let wire = RawSocket::of("wan0");
        if change == Change::LateMerge {
            assert_eq!(merge(&daemon, "old0", "wan0"), json!(false));
        }
        drop(full);
        let answered = thread::scope(|scope| {
            let fault = match kill_time {
                KillTime::Write(number) => {
                    Some(InjectedFault::of(&daemon, "pwrite64", &format!("signal=SIGKILL:when={number}")))
                }
                KillTime::After(_) => None,
            };
            let (address, pid) = (([127, 0, 0, 1], daemon.port()).into(), daemon.pid());
            // An incomplete answer counts as no answer.
            let requester = scope.spawn(move || match change {
                Change::LateMerge => {
                    signal(pid, Signal::SIGHUP);
                    sleep_ms(1_000);
                    None
                }
                _ => ask(address, method, path, "application/json", body).ok(),
            });
            wire.send(BROADCAST, INVALID_IPV4, 500, 2);
            match kill_time {
                KillTime::After(delay) => thread::sleep(delay),
                KillTime::Write(_) => wait_until("the daemon is killed or has answered", || requester.is_finished()),
            }
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.pid() as i32), Signal::SIGKILL);
            drop(fault);
            requester.join().expect("the thread does not panic")
        });
        daemon.kill();
        let what = format!("{change:?} {kill_time:?}");
        assert_eq!(check_with_sqlite(&self.dir.join("net-pulse.db")).0, "ok", "{what}");
        let unfinished = backup_files(self.dir.path());
        assert!(unfinished.is_empty() || change == Change::Backup, "{what}: {unfinished:?}");
        self.unfinished_copies += usize::from(!unfinished.is_empty());

        let daemon = Daemon::start(&self.dir, &RARE_SAVES);
        daemon.wait_for_ticks(1);
        assert_eq!(backup_files(self.dir.path()), [""; 0], "{what}: after the next start");
        send("wan0", 400, 1);
        daemon.collect();
        let kept = sum(&daemon, "old0");
        let passed = bytes(kernel_counters("wan0"));
        let mut expect = add(target, [passed[0] - counted[0], passed[1] - counted[1]]);
        let outcome = match kept {
            None => Outcome::After,
            Some(kept) => {
                assert!(
                    [saved, in_writer, whole].contains(&kept),
                    "{what}: {kept:?}, {saved:?} on disk, {whole:?} in all"
                );
                Outcome::Before
            }
        };
        if matches!(change, Change::Merge | Change::LateMerge) && outcome == Outcome::After {
            expect = add(expect, whole);
            self.merges += 1;
        }
        assert_eq!(sum(&daemon, "wan0"), Some(expect), "{what}: {outcome:?}, with {saved:?} of {whole:?} on disk");
        assert_eq!(sum(&daemon, "lan7"), self.untouched, "{what}");
        assert_eq!(number_of_events(&daemon, "merged"), self.merges, "{what}: {outcome:?}");
        no_orphans(&daemon);
        if let Some(answer) = answered.filter(|answer| answer.status == 200 && change != Change::Backup) {
            assert!(outcome == Outcome::After || answer.json()["saved"] == false, "{what}: {}", answer.text());
        }
        self.daemon = Some(daemon);
        if change == Change::Backup { Outcome::Before } else { outcome }
    }
}

/// Kills the daemon close to the moment of the commit: after a change that was made the next kill comes earlier, after
/// one that was not made it comes later.
#[test]
fn e40_killed_in_the_middle_of_a_change() {
    const LANES: [(&[Change], u64); 3] =
        [(&[Change::Merge], 16), (&[Change::Forget, Change::Merge], 14), (&[Change::Backup], 10)];
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.subsec_nanos());
    println!("seed {seed}");
    thread::scope(|scope| {
        for (lane, (changes, runs)) in LANES.iter().enumerate() {
            let run_lane = move || {
                let mut random = Random(seed | (1 + lane as u32));
                let mut crash_runs = CrashRuns::new();
                let (mut kill_after_us, mut befores, mut afters) = (3_000.0, 0, 0);
                for run in 0..*runs {
                    let change = changes[run as usize % changes.len()];
                    let delay_us = kill_after_us * (50 + random.below(100)) as f64 / 100.0;
                    let outcome = crash_runs.run_once(change, KillTime::After(Duration::from_micros(delay_us as u64)));
                    match (change, outcome) {
                        // A backup does not show how far it came, so any time will do.
                        (Change::Backup, _) => kill_after_us = random.below(60_000) as f64,
                        (_, Outcome::Before) => {
                            befores += 1;
                            kill_after_us *= 1.4;
                        }
                        (_, Outcome::After) => {
                            afters += 1;
                            kill_after_us /= 1.4;
                        }
                    }
                }
                println!(
                    "{changes:?}: {befores} before, {afters} after, {} unfinished copies",
                    crash_runs.unfinished_copies
                );
                // If all outcomes were the same, the test would have tried nothing.
                assert!(changes.contains(&Change::Backup) || befores > 1 && afters > 1, "{befores} {afters}");
            };
            scope.spawn(move || in_namespace(run_lane));
        }
    });
}

/// The same without chance: a kill before each of many writes of a change.
#[test]
fn e40_killed_before_a_write_of_a_change() {
    if !strace_or_skip() {
        return;
    }
    const LANES: [(Change, &[u32]); 4] = [
        (Change::LateMerge, &[1, 12, 18, 20, 22, 24, 27, 30, 40, 60]),
        (Change::Merge, &[1, 4, 8, 12, 16, 20, 24, 28, 32, 40, 50, 60, 80]),
        (Change::Forget, &[1, 6, 12, 18, 24, 30, 40, 60]),
        (Change::Backup, &[2, 9, 40, 200]),
    ];
    thread::scope(|scope| {
        for (change, writes) in LANES {
            let run_lane = move || {
                let mut crash_runs = CrashRuns::new();
                let outcomes: Vec<Outcome> =
                    writes.iter().map(|at| crash_runs.run_once(change, KillTime::Write(*at))).collect();
                println!("{change:?}: {outcomes:?}, {} unfinished copies", crash_runs.unfinished_copies);
                match change {
                    Change::Backup => assert!(crash_runs.unfinished_copies > 0, "no copy was cut off"),
                    _ => assert!(outcomes.contains(&Outcome::After), "{outcomes:?}"),
                }
                assert_eq!(outcomes[0], Outcome::Before);
            };
            scope.spawn(move || in_namespace(run_lane));
        }
    });
}

/// A file system of its own with twelve weeks of history, and a link that carries traffic.
struct TestDisk {
    /// Declared before the directory, because a directory cannot be removed while something is mounted in it.
    _disk: Mounted,
    dir: Dir,
}

impl TestDisk {
    fn new() -> TestDisk {
        let dir = Dir::new();
        let disk = small_disk(&dir.join("disk"), 32 << 20);
        stored_history::write_history(&dir.join("disk/net-pulse.db"), HistoryLength::Weeks);
        cable("wan0", "lan0");
        // With larger buffers the kernel takes the whole copy, and no reader is too slow.
        std::fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 65536").expect("a namespace of the test");
        TestDisk { _disk: disk, dir }
    }

    fn start(&self) -> Daemon {
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        let database = self.dir.join("disk/net-pulse.db");
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &database]).args(RARE_SAVES);
        let daemon = Daemon::spawn(command);
        daemon.wait_for_ticks(1);
        send("wan0", 1000, 1);
        save(&daemon);
        daemon
    }

    fn free(&self) -> u64 {
        let facts = statvfs(self.dir.join("disk").as_str()).expect("a mounted disk");
        facts.blocks_available() as u64 * facts.fragment_size() as u64
    }

    fn copies(&self) -> Vec<String> {
        backup_files(&self.dir.path().join("disk"))
    }

    /// After the end: no copy is left, the database is intact, and a new daemon counts.
    fn assert_intact(&self) {
        assert_eq!(self.copies(), [""; 0]);
        assert_eq!(check_with_sqlite(&self.dir.join("disk/net-pulse.db")).0, "ok");
        let daemon = self.start();
        assert_eq!(self.copies(), [""; 0]);
        assert_counting(&daemon);
        daemon.stop();
    }
}

/// Checks that the sampler still counts.
fn assert_counting(daemon: &Daemon) {
    send("wan0", 300, 2);
    daemon.wait_for_ticks(1);
    daemon.collect();
    assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("the daemon runs").count()
}

/// Requests a backup, reads the beginning of the answer, and leaves the rest unread.
fn begin_backup(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
    setsockopt(&stream, sockopt::RcvBuf, &16384).expect("a socket");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
    write!(stream, "POST /api/backup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .expect("the daemon listens");
    let mut beginning = [0; 15];
    stream.read_exact(&mut beginning).expect("an answer");
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    stream
}

#[test]
fn e39_a_backup_that_does_not_fit_leaves_nothing() {
    in_namespace(|| {
        let test_disk = TestDisk::new();
        let daemon = test_disk.start();
        let whole = daemon.request("POST", "/api/backup", None);
        assert_eq!(whole.status, 200);
        let (size, free) = (whole.body.len() as u64, test_disk.free());
        let refused = || {
            let answer = daemon.request("POST", "/api/backup", None);
            assert_eq!(answer.status, 507, "{}", answer.text());
            assert!(answer.text().contains("free some space there"), "{}", answer.text());
            assert_eq!(test_disk.copies(), [""; 0]);
            assert_counting(&daemon);
            assert_eq!(database_status(&daemon), "healthy");
        };
        let filler = test_disk.dir.join("disk/filler");
        std::fs::write(&filler, vec![1; (free - size) as usize]).expect("enough disk space");
        refused();
        std::fs::remove_file(&filler).expect("a file of the test");
        assert_eq!(daemon.request("POST", "/api/backup", None).status, 200);
        if strace_or_skip() {
            // The disk fills up while the daemon makes the backup.
            let fault = InjectedFault::of_workers(&daemon, "pwrite64", "error=ENOSPC:when=20+");
            refused();
            drop(fault);
            let fault = InjectedFault::of_workers(&daemon, "pwrite64", "error=EIO:when=20+");
            let answer = daemon.request("POST", "/api/backup", None);
            assert!(answer.status >= 500, "{} {}", answer.status, answer.text());
            assert_eq!(test_disk.copies(), [""; 0]);
            drop(fault);
            assert_eq!(daemon.request("POST", "/api/backup", None).status, 200);
        }
        wait_until("the disk space is free again", || test_disk.free() + (1 << 20) > free);
        daemon.stop();
        test_disk.assert_intact();
    });
}

#[test]
fn e39_readers_that_leave_a_backup_free_all_its_resources() {
    in_namespace(|| {
        let test_disk = TestDisk::new();
        let daemon = test_disk.start();
        let answer = |method: &str, path: &str| daemon.request(method, path, None).status;
        let size = daemon.request("POST", "/api/backup", None).body.len();
        let (before, free) = (descriptors(&daemon), test_disk.free());
        for round in 0..9 {
            let reader = begin_backup(&daemon);
            // The copy has no name, but it takes disk space.
            assert!(test_disk.free() + (1 << 20) < free, "{} of {free} bytes are free", test_disk.free());
            assert_eq!(test_disk.copies(), [""; 0]);
            assert_eq!(answer("GET", "/api/traffic/series?interface=lan1"), 200, "other clients get answers");
            assert_counting(&daemon);
            let mut stalled = None;
            match round % 3 {
                0 => drop(reader),
                1 => reset(reader),
                // This reader stops reading, and the next client waits for its turn.
                _ => stalled = Some(reader),
            }
            wait_until("the next backup gets its turn", || answer("POST", "/api/backup") == 200);
            if let Some(mut reader) = stalled {
                let mut rest = Vec::new();
                let _ = reader.read_to_end(&mut rest);
                assert!(!rest.ends_with(b"0\r\n\r\n"), "an incomplete backup must not look complete");
            }
        }
        // All at once: the daemon serves each reader or answers 503, and each backup that it serves is complete.
        thread::scope(|scope| {
            let readers = [(); 4].map(|()| scope.spawn(|| daemon.request("POST", "/api/backup", None)));
            let answers = readers.map(|reader| reader.join().expect("an answer"));
            let statuses = answers.each_ref().map(|answer| answer.status);
            assert!(statuses.contains(&200) && statuses.iter().all(|it| [200, 503].contains(it)), "{statuses:?}");
            println!("{statuses:?}");
            for copy in answers.iter().filter(|answer| answer.status == 200) {
                assert!(copy.body.len() >= size, "{} of {size} bytes", copy.body.len());
            }
        });
        wait_until("the descriptors are closed again", || descriptors(&daemon) <= before);
        wait_until("the disk space is free again", || test_disk.free() + (1 << 20) > free);
        daemon.stop();
        test_disk.assert_intact();
    });
}

#[test]
fn e39_shutdown_does_not_wait_for_a_reader_of_a_backup() {
    in_namespace(|| {
        let test_disk = TestDisk::new();
        let daemon = test_disk.start();
        let reader = begin_backup(&daemon);
        send("wan0", 900, 3);
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, log) = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("stay unsaved")), "{log:#?}");
        drop(reader);
        test_disk.assert_intact();
    });
}

#[test]
fn e39_shutdown_does_not_wait_for_an_unfinished_backup() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let test_disk = TestDisk::new();
        let daemon = test_disk.start();
        let slow = InjectedFault::of_workers(&daemon, "pwrite64", "delay_enter=100000");
        let address = ([127, 0, 0, 1], daemon.port()).into();
        thread::scope(|scope| {
            let requester = scope.spawn(move || ask(address, "POST", "/api/backup", "*/*", None));
            wait_until("the copy has begun", || !test_disk.copies().is_empty());
            send("wan0", 900, 3);
            signal(daemon.pid(), Signal::SIGTERM);
            let asked = std::time::Instant::now();
            // The parent can wait for a traced process only after strace has seen it end.
            wait_until("the daemon ends", || daemon.has_ended());
            assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
            drop(slow);
            assert!(requester.join().expect("the thread does not panic").is_err(), "an incomplete copy is an error");
        });
        let (code, log) = daemon.ended_within(TIMEOUT);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("stay unsaved")), "{log:#?}");
        test_disk.assert_intact();
    });
}

/// System calls, the injected error, and whether saving fails because of it.
const ERRORS: [(&str, &str, bool); 3] =
    [("pwrite64", "error=ENOSPC", true), ("pwrite64", "error=EIO", true), ("fsync,fdatasync", "error=EIO", false)];

#[test]
fn e39_a_change_while_saving_fails_is_made_later() {
    if !strace_or_skip() {
        return;
    }
    thread::scope(|scope| {
        for (calls, what, fails) in ERRORS {
            scope.spawn(move || in_namespace(|| change_during_a_fault(calls, what, fails)));
        }
    });
}

fn change_during_a_fault(calls: &str, what: &str, fails: bool) {
    let dir = Dir::new();
    for (one, other) in [("wan0", "lan0"), ("old0", "far0"), ("tmp0", "far1")] {
        cable(one, other);
    }
    let daemon = Daemon::start(&dir, &RARE_SAVES);
    daemon.wait_for_ticks(1);
    let traffic = |frames| ["wan0", "old0", "tmp0"].map(|name| send(name, 700, frames));
    traffic(1);
    let named = daemon.request("PATCH", "/api/interfaces/old0", Some(json!({"alias": "uplink"}).to_string()));
    assert_eq!(named.json()["saved"], true, "{}", named.text());
    daemon.stop();
    let daemon = Daemon::start(&dir, &RARE_SAVES);
    daemon.wait_for_ticks(1);
    let fault = InjectedFault::of(&daemon, calls, what);
    for frames in 1..4 {
        traffic(frames);
        daemon.collect();
        // A save that fails keeps its batch in memory.
        signal(daemon.pid(), Signal::SIGHUP);
        sleep_ms(50);
    }
    let present = daemon.request("DELETE", "/api/interfaces/tmp0", None);
    assert_eq!(present.status, 409, "the interface is present: {}", present.text());
    let old = sum(&daemon, "old0").expect("a known interface");
    assert_eq!(old, bytes(kernel_counters("old0")));
    ip("link del old0");
    ip("link del tmp0");
    wait_until_absent(&daemon, "old0");
    wait_until_absent(&daemon, "tmp0");
    let merged = merge(&daemon, "old0", "wan0");
    let forgotten = daemon.request("DELETE", "/api/interfaces/tmp0", None).json()["saved"].clone();
    if fails {
        assert_eq!((&merged, &forgotten), (&json!(false), &json!(false)), "{calls} {what}");
        assert_eq!(number_of_events(&daemon, "merged"), 0, "the event follows the merge");
        wait_until("health reports the fault", || database_status(&daemon) == "degraded");
    }
    let is_unknown =
        |daemon: &Daemon, name: &str| daemon.request("GET", &format!("/api/interfaces/{name}"), None).status == 404;
    assert!(is_unknown(&daemon, "old0") && is_unknown(&daemon, "tmp0"));
    // A new link with the forgotten name is a new interface.
    cable("tmp0", "far1");
    wait_until("the daemon lists the link", || !is_unknown(&daemon, "tmp0"));
    for name in ["wan0", "tmp0"] {
        send(name, 600, 5);
    }
    daemon.collect();
    let wan = daemon.interface("wan0");
    let both = add(bytes(kernel_counters("wan0")), old);
    assert_eq!([&wan["lifetime_rx_bytes"], &wan["lifetime_tx_bytes"]], [&json!(both[0]), &json!(both[1])]);
    drop(fault);
    signal(daemon.pid(), Signal::SIGHUP);
    wait_until("the writer saves again", || database_status(&daemon) == "healthy");
    save(&daemon);

    let check = |daemon: &Daemon, when: &str| {
        daemon.collect();
        let what = format!("{calls} {what} {when}");
        assert_eq!(sum(daemon, "wan0"), Some(add(bytes(kernel_counters("wan0")), old)), "{what}");
        assert_eq!(sum(daemon, "tmp0"), Some(bytes(kernel_counters("tmp0"))), "{what}");
        assert_eq!(daemon.interface("wan0")["alias"], "uplink", "{what}");
        assert!(is_unknown(daemon, "old0"), "{what}");
        assert_eq!((number_of_events(daemon, "merged"), number_of_events(daemon, "forgotten")), (1, 1), "{what}");
        no_orphans(daemon);
    };
    check(&daemon, "after the fault");
    daemon.kill();
    assert_eq!(check_with_sqlite(&dir.join("net-pulse.db")).0, "ok");
    let daemon = Daemon::start(&dir, &RARE_SAVES);
    daemon.wait_for_ticks(1);
    check(&daemon, "after a restart");
    daemon.stop();
}

/// Enough disk space for the ticks and too little for the change: counting and saving continue, and the writer tries
/// the change again.
#[test]
fn e39_a_change_that_does_not_fit_is_tried_again() {
    in_namespace(|| {
        let test_disk = TestDisk::new();
        let daemon = test_disk.start();
        let [from, into] = ["lan3", "lan7"].map(|name| sums_by_resolution(&daemon, name).expect("a known interface"));
        let both: Vec<Sum> = from.into_iter().zip(into).map(|(one, other)| add(one, other)).collect();
        let filler = test_disk.dir.join("disk/filler");
        // The write-ahead log of ordinary saves needs less than 400 KiB.
        std::fs::write(&filler, vec![1; test_disk.free() as usize - (400 << 10)]).expect("enough disk space");
        assert_eq!(merge(&daemon, "lan3", "lan7"), json!(false));
        assert!(database_error(&daemon).contains("cannot change the history"), "{}", database_error(&daemon));
        for frames in 1..11 {
            send("wan0", 1000, frames);
            daemon.collect();
            // SIGHUP makes the writer try at once.
            signal(daemon.pid(), Signal::SIGHUP);
            wait_until("the ticks are saved all the same", || unsaved_samples(&daemon) <= 2);
        }
        assert_eq!(database_status(&daemon), "degraded");
        assert!(!daemon.log().iter().any(|line| line.contains("works again")), "{:#?}", daemon.log());
        assert_counting(&daemon);
        std::fs::remove_file(&filler).expect("a file of the test");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the change is made", || database_status(&daemon) == "healthy");
        let check = |daemon: &Daemon| {
            assert_eq!(sums_by_resolution(daemon, "lan7"), Some(both.clone()));
            assert_eq!(sums_by_resolution(daemon, "lan3"), None);
            assert_eq!(number_of_events(daemon, "merged"), 1);
            assert_counting(daemon);
        };
        check(&daemon);
        daemon.kill();
        check(&test_disk.start());
    });
}

/// One request shortens the retention and changes another setting: all of it takes effect or nothing, and the sums of
/// the remaining history do not change.
#[test]
fn e40_killed_while_retention_is_shortened() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let origin = Dir::new();
        stored_history::write_history(&origin.join("net-pulse.db"), HistoryLength::Weeks);
        cable("wan0", "lan0");
        let mut changed = Vec::new();
        for at in [1, 20, 60, 80, 90, 100, 120, 200] {
            let dir = Dir::new();
            std::fs::copy(origin.join("net-pulse.db"), dir.join("net-pulse.db")).expect("a copy");
            let daemon = Daemon::start(&dir, &RARE_SAVES);
            daemon.wait_for_ticks(1);
            save(&daemon);
            let coarse_rows = |daemon: &Daemon| {
                ["hour", "day"].map(|resolution| {
                    daemon.get(&format!("/api/export/traffic?resolution={resolution}&interface_name=lan7")).to_string()
                })
            };
            let settings = |daemon: &Daemon| {
                let settings = daemon.get("/api/config")["settings"].clone();
                ["keep_samples_days", "keep_5min_days", "primary"].map(|key| settings[key]["value"].clone())
            };
            let rows = |daemon: &Daemon| {
                let cells = daemon.get("/api/export/traffic?resolution=5min&interface_name=lan7");
                cells.as_array().expect("a list").len()
            };
            let (kept, all, old) = (coarse_rows(&daemon), rows(&daemon), settings(&daemon));
            let new = [json!(1), json!(2), json!("wan0")];
            let body = json!({"keep_samples_days": 1, "keep_5min_days": 2, "primary": "wan0"}).to_string();
            let fault = InjectedFault::of(&daemon, "pwrite64", &format!("signal=SIGKILL:when={at}"));
            let address = ([127, 0, 0, 1], daemon.port()).into();
            let answer = ask(address, "PATCH", "/api/config", "application/json", Some(body)).ok();
            daemon.kill();
            drop(fault);
            assert_eq!(check_with_sqlite(&dir.join("net-pulse.db")).0, "ok", "{at}");
            let daemon = Daemon::start(&dir, &RARE_SAVES);
            daemon.wait_for_ticks(1);
            let found = settings(&daemon);
            assert!(found == old || found == new, "{at}: {found:?}");
            assert!(found == new || answer.is_none_or(|answer| answer.json()["saved"] == false), "{at}: {found:?}");
            assert_eq!(coarse_rows(&daemon), kept, "{at}");
            save(&daemon);
            assert_eq!(rows(&daemon) < all, found == new, "{at}");
            changed.push(found == new);
        }
        println!("{changed:?}");
        assert!(changed.contains(&true) && changed.contains(&false), "{changed:?}");
    });
}

#[test]
fn a_renamed_interface_is_merged_and_renamed_back() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("usb0", "far0");
        let daemon = Daemon::start(&dir, &RARE_SAVES);
        daemon.wait_for_ticks(1);
        send("usb0", 700, 3);
        daemon.collect();
        ip("link del usb0");
        wait_until_absent(&daemon, "usb0");
        let first = sum(&daemon, "usb0").expect("a known interface");
        cable("eth5", "far5");
        wait_until("the daemon lists the link", || daemon.request("GET", "/api/interfaces/eth5", None).status == 200);
        send("eth5", 800, 4);
        daemon.collect();
        let rename = |from: &str, to: &str| {
            ip(&format!("link set {from} down"));
            ip(&format!("link set {from} name {to}"));
            ip(&format!("link set {to} up"));
        };
        let wait_for_name = |daemon: &Daemon, name: &str| {
            wait_until("the new name is known", || {
                let answer = daemon.request("GET", &format!("/api/interfaces/{name}"), None);
                answer.status == 200 && answer.json()["present"] == true
            });
        };
        let expected = |name: &str| Some(add(first, bytes(kernel_counters(name))));
        // The link continues the history of its new name. The history under the old name stays.
        rename("eth5", "usb0");
        wait_for_name(&daemon, "usb0");
        send("usb0", 500, 2);
        daemon.collect();
        let (old_name, new_name) = (sum(&daemon, "eth5"), sum(&daemon, "usb0"));
        assert_eq!(
            add(old_name.expect("a history under the old name"), new_name.expect("a history under the new name")),
            expected("usb0").expect("a sum")
        );
        assert_eq!(merge(&daemon, "eth5", "usb0"), json!(true));
        assert_eq!((sum(&daemon, "eth5"), sum(&daemon, "usb0")), (None, expected("usb0")));
        send("usb0", 500, 2);
        rename("usb0", "eth5");
        wait_for_name(&daemon, "eth5");
        send("eth5", 400, 1);
        daemon.collect();
        assert_eq!((sum(&daemon, "usb0"), sum(&daemon, "eth5")), (None, expected("eth5")), "renamed back");
        daemon.kill();
        // Renamed while no daemon runs, and counted all the same.
        rename("eth5", "usb0");
        let daemon = Daemon::start(&dir, &RARE_SAVES);
        daemon.wait_for_ticks(1);
        send("usb0", 300, 3);
        daemon.collect();
        // The kill came before the daemon saved the new name.
        assert_eq!(sum(&daemon, "usb0"), expected("usb0"), "after a restart");
        assert_eq!(number_of_events(&daemon, "merged"), 1);
        daemon.stop();
        let daemon = Daemon::start(&dir, &RARE_SAVES);
        daemon.wait_for_ticks(1);
        assert_eq!(
            (sum(&daemon, "eth5"), sum(&daemon, "usb0")),
            (None, expected("usb0")),
            "after a restart without changes"
        );
    });
}
