//! The past is changed, and copied, on bad days: killed in the middle, on a disk that is full or fails, with readers that
//! go away. A history is as it was before or as it is after, on all levels, and no byte is lost or told twice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::common::disk::*;
use crate::common::past::Random;
use crate::common::*;
use crate::past::{self, Past};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

/// Nothing is saved but what has to be.
const CALM: [&str; 4] = ["--interval", "1", "--flush", "3600"];

type Sum = [u64; 2];

fn add(one: Sum, other: Sum) -> Sum {
    [one[0] + other[0], one[1] + other[1]]
}

fn bytes(counters: Counters) -> Sum {
    [counters[0], counters[1]]
}

/// What each level says of an interface, all told, and last what it has ever carried; `None` where nobody knows it.
fn levels(daemon: &Daemon, name: &str) -> Option<Vec<Sum>> {
    let iface = daemon.request("GET", &format!("/api/interfaces/{name}"), None);
    if iface.status == 404 {
        return None;
    }
    let of = |row: &Value, key: &str| row[key].as_u64().unwrap_or_else(|| panic!("no {key} in {row}"));
    let iface = iface.json();
    let lifetime = [of(&iface, "lifetime_rx_bytes"), of(&iface, "lifetime_tx_bytes")];
    let export = |level| format!("/api/export/traffic?resolution={level}&interface_name={name}");
    let totals = |by| format!("/api/traffic/totals?by={by}&interface={name}");
    let paths = [export("sample"), export("5min"), export("hour"), export("day"), totals("day"), totals("month")];
    let sums = paths.map(|path| {
        let rows = daemon.get(&path);
        let rows = rows.as_array().expect("a list").iter();
        rows.map(|row| [of(row, "rx_bytes"), of(row, "tx_bytes")]).fold([0; 2], add)
    });
    Some(sums.into_iter().chain([lifetime]).collect())
}

/// The same where everything is still kept on every level.
fn sum(daemon: &Daemon, name: &str) -> Option<Sum> {
    let levels = levels(daemon, name)?;
    assert!(levels.iter().all(|level| *level == levels[0]), "levels of {name}: {levels:?}");
    levels.first().copied()
}

/// Rows that belong to nobody any more, or to one who was never introduced.
fn no_orphans(daemon: &Daemon) {
    let known = daemon.get("/api/interfaces");
    for level in ["5min", "day"] {
        for row in daemon.get(&format!("/api/export/traffic?resolution={level}")).as_array().expect("a list") {
            let name = row["interface_name"].as_str().expect("a name");
            assert!(known.get(name).is_some(), "{name} has rows of {level}, and is not known");
        }
    }
}

/// Everything so far is on disk when this comes back.
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

fn absent(daemon: &Daemon, name: &str) {
    wait_until("it is gone", || daemon.interface(name)["present"] == false);
}

fn number_of_events(daemon: &Daemon, kind: &str) -> usize {
    daemon.get(&format!("/api/events?limit=1000&kind={kind}")).as_array().expect("a list").len()
}

fn copies_beside(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("it is ours");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
    names.filter(|name| name.contains("backup")).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Merge,
    /// While the disk was full, and a part of what was counted was in the writer's hand.
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
enum Cut {
    /// So long after the request.
    After(Duration),
    /// Before a thread's write of that number.
    Write(u32),
}

/// What came of a change: before or after it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Before,
    After,
}

/// One database, and a link beside it that is never changed.
struct Lives {
    dir: Dir,
    daemon: Option<Daemon>,
    bystander: Option<Sum>,
    merges: usize,
    /// Kills that left the beginning of a copy.
    begun_copies: usize,
}

impl Lives {
    fn new() -> Lives {
        let dir = Dir::new();
        past::fill(&dir.join("net-pulse.db"), Past::Days);
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &CALM);
        daemon.ticks(1);
        send("wan0", 1000, 1);
        daemon.collect();
        let bystander = sum(&daemon, "lan7");
        assert!(bystander.is_some());
        Lives { dir, daemon: Some(daemon), bystander, merges: 0, begun_copies: 0 }
    }

    /// A cable is plugged in, carries something, of which a part is on disk, and goes. Then its history is changed.
    fn life(&mut self, change: Change, cut: Cut) -> Outcome {
        let daemon = self.daemon.take().expect("it runs between two lives");
        cable("old0", "far0");
        wait_until("it is seen", || {
            let answer = daemon.request("GET", "/api/interfaces/old0", None);
            answer.status == 200 && answer.json()["present"] == true
        });
        send("old0", 700, 5);
        daemon.collect();
        save(&daemon);
        let saved = sum(&daemon, "old0").expect("it is there");
        let mut full = None;
        let mut partly = saved;
        if change == Change::LateMerge {
            full = Some(Fault::on(&daemon, "error=ENOSPC"));
            send("old0", 500, 3);
            daemon.collect();
            signal(daemon.pid(), Signal::SIGHUP);
            wait_until("it is in the writer's hand", || database_status(&daemon) == "degraded");
            partly = sum(&daemon, "old0").expect("it is there");
        }
        send("old0", 600, 7);
        send("wan0", 1000, 3);
        daemon.collect();
        ip("link del old0");
        absent(&daemon, "old0");
        let whole = sum(&daemon, "old0").expect("its history is");
        assert_eq!(whole, add(partly, [0, 7 * 600]));
        let (other, counted) = (sum(&daemon, "wan0").expect("it is there"), bytes(kernel("wan0")));

        let (method, path, body) = change.request();
        let wire = Wire::of("wan0");
        if change == Change::LateMerge {
            assert_eq!(merge(&daemon, "old0", "wan0"), json!(false));
        }
        drop(full);
        let answered = thread::scope(|scope| {
            let fault = match cut {
                Cut::Write(number) => Some(Fault::of(&daemon, "pwrite64", &format!("signal=SIGKILL:when={number}"))),
                Cut::After(_) => None,
            };
            let (address, pid) = (([127, 0, 0, 1], daemon.port()).into(), daemon.pid());
            // Half an answer is none.
            let asking = scope.spawn(move || match change {
                Change::LateMerge => {
                    signal(pid, Signal::SIGHUP);
                    rest(1_000);
                    None
                }
                _ => ask(address, method, path, "application/json", body).ok(),
            });
            wire.send(EVERYBODY, QUIET, 500, 2);
            match cut {
                Cut::After(delay) => thread::sleep(delay),
                Cut::Write(_) => wait_until("it is killed, or has answered", || asking.is_finished()),
            }
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.pid() as i32), Signal::SIGKILL);
            drop(fault);
            asking.join().expect("it does not panic")
        });
        daemon.kill();
        let what = format!("{change:?} {cut:?}");
        assert_eq!(judge(&self.dir.join("net-pulse.db")).0, "ok", "{what}");
        let begun = copies_beside(self.dir.path());
        assert!(begun.is_empty() || change == Change::Backup, "{what}: {begun:?}");
        self.begun_copies += usize::from(!begun.is_empty());

        let daemon = Daemon::start(&self.dir, &CALM);
        daemon.ticks(1);
        assert_eq!(copies_beside(self.dir.path()), [""; 0], "{what}: after the next start");
        send("wan0", 400, 1);
        daemon.collect();
        let kept = sum(&daemon, "old0");
        let passed = bytes(kernel("wan0"));
        let mut expect = add(other, [passed[0] - counted[0], passed[1] - counted[1]]);
        let outcome = match kept {
            None => Outcome::After,
            Some(kept) => {
                assert!(
                    [saved, partly, whole].contains(&kept),
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
        assert_eq!(sum(&daemon, "lan7"), self.bystander, "{what}");
        assert_eq!(number_of_events(&daemon, "merged"), self.merges, "{what}: {outcome:?}");
        no_orphans(&daemon);
        if let Some(answer) = answered.filter(|answer| answer.status == 200 && change != Change::Backup) {
            assert!(outcome == Outcome::After || answer.json()["saved"] == false, "{what}: {}", answer.text());
        }
        self.daemon = Some(daemon);
        if change == Change::Backup { Outcome::Before } else { outcome }
    }
}

/// At the moment that matters most: each kill comes the earlier after a change that was done, the later after one that
/// was not.
#[test]
fn e40_killed_in_the_middle_of_a_change() {
    const LANES: [(&[Change], u64); 3] =
        [(&[Change::Merge], 16), (&[Change::Forget, Change::Merge], 14), (&[Change::Backup], 10)];
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.subsec_nanos());
    println!("seed {seed}");
    thread::scope(|scope| {
        for (lane, (changes, lives)) in LANES.iter().enumerate() {
            let lane_of_lives = move || {
                let mut random = Random(seed | (1 + lane as u32));
                let mut bench = Lives::new();
                let (mut about_us, mut befores, mut afters) = (3_000.0, 0, 0);
                for life in 0..*lives {
                    let change = changes[life as usize % changes.len()];
                    let delay_us = about_us * (50 + random.below(100)) as f64 / 100.0;
                    let outcome = bench.life(change, Cut::After(Duration::from_micros(delay_us as u64)));
                    match (change, outcome) {
                        // How far it came nobody can see: any time will do.
                        (Change::Backup, _) => about_us = random.below(60_000) as f64,
                        (_, Outcome::Before) => {
                            befores += 1;
                            about_us *= 1.4;
                        }
                        (_, Outcome::After) => {
                            afters += 1;
                            about_us /= 1.4;
                        }
                    }
                }
                println!("{changes:?}: {befores} before, {afters} after, {} copies begun", bench.begun_copies);
                // Were all of them on one side, nothing would have been tried.
                assert!(changes.contains(&Change::Backup) || befores > 1 && afters > 1, "{befores} {afters}");
            };
            scope.spawn(move || in_namespace(lane_of_lives));
        }
    });
}

/// The same without chance: before each of the writes that a change consists of, or nearly each.
#[test]
fn e40_killed_before_a_write_of_a_change() {
    if !strace_is_there() {
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
            let lane_of_lives = move || {
                let mut bench = Lives::new();
                let outcomes: Vec<Outcome> = writes.iter().map(|at| bench.life(change, Cut::Write(*at))).collect();
                println!("{change:?}: {outcomes:?}, {} copies begun", bench.begun_copies);
                match change {
                    Change::Backup => assert!(bench.begun_copies > 0, "no copy was cut off"),
                    _ => assert!(outcomes.contains(&Outcome::After), "{outcomes:?}"),
                }
                assert_eq!(outcomes[0], Outcome::Before);
            };
            scope.spawn(move || in_namespace(lane_of_lives));
        }
    });
}

/// A disk of its own with twelve weeks of history, and a link that is counted while all that happens.
struct Place {
    /// Before the directory, which cannot go while something is mounted there.
    _disk: Mounted,
    dir: Dir,
}

impl Place {
    fn new() -> Place {
        let dir = Dir::new();
        let disk = small_disk(&dir.join("disk"), 32 << 20);
        past::fill(&dir.join("disk/net-pulse.db"), Past::Weeks);
        cable("wan0", "lan0");
        // Else the kernel takes the whole of a copy, and no reader is too slow.
        std::fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 65536").expect("the namespace is ours");
        Place { _disk: disk, dir }
    }

    fn start(&self) -> Daemon {
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        let database = self.dir.join("disk/net-pulse.db");
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &database]).args(CALM);
        let daemon = Daemon::spawn(command);
        daemon.ticks(1);
        send("wan0", 1000, 1);
        save(&daemon);
        daemon
    }

    fn free(&self) -> u64 {
        let facts = statvfs(self.dir.join("disk").as_str()).expect("it is mounted");
        facts.blocks_available() as u64 * facts.fragment_size() as u64
    }

    fn copies(&self) -> Vec<String> {
        copies_beside(&self.dir.path().join("disk"))
    }

    /// What is counted is on disk, and nothing else is.
    fn is_well(&self) {
        assert_eq!(self.copies(), [""; 0]);
        assert_eq!(judge(&self.dir.join("disk/net-pulse.db")).0, "ok");
        let daemon = self.start();
        assert_eq!(self.copies(), [""; 0]);
        counts(&daemon);
        daemon.stop();
    }
}

/// The sampler has not been waiting for anybody.
fn counts(daemon: &Daemon) {
    send("wan0", 300, 2);
    daemon.ticks(1);
    daemon.collect();
    assert_eq!(daemon.booked("wan0"), kernel("wan0"));
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count()
}

/// A reader that takes the beginning, and leaves the rest where it is.
fn begin_backup(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).expect("it listens");
    setsockopt(&stream, sockopt::RcvBuf, &16384).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "POST /api/backup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").expect("it listens");
    let mut beginning = [0; 15];
    stream.read_exact(&mut beginning).expect("an answer");
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    stream
}

#[test]
fn e39_a_backup_that_does_not_fit_leaves_nothing() {
    in_namespace(|| {
        let place = Place::new();
        let daemon = place.start();
        let whole = daemon.request("POST", "/api/backup", None);
        assert_eq!(whole.status, 200);
        let (size, free) = (whole.body.len() as u64, place.free());
        let refused = || {
            let answer = daemon.request("POST", "/api/backup", None);
            assert_eq!(answer.status, 507, "{}", answer.text());
            assert!(answer.text().contains("room"), "{}", answer.text());
            assert_eq!(place.copies(), [""; 0]);
            counts(&daemon);
            assert_eq!(database_status(&daemon), "healthy");
        };
        let filler = place.dir.join("disk/filler");
        std::fs::write(&filler, vec![1; (free - size) as usize]).expect("there is room");
        refused();
        std::fs::remove_file(&filler).expect("it is ours");
        assert_eq!(daemon.request("POST", "/api/backup", None).status, 200);
        if strace_is_there() {
            // Somebody else takes the room while it is made.
            let fault = Fault::of_workers(&daemon, "pwrite64", "error=ENOSPC:when=20+");
            refused();
            drop(fault);
            let fault = Fault::of_workers(&daemon, "pwrite64", "error=EIO:when=20+");
            let answer = daemon.request("POST", "/api/backup", None);
            assert!(answer.status >= 500, "{} {}", answer.status, answer.text());
            assert_eq!(place.copies(), [""; 0]);
            drop(fault);
            assert_eq!(daemon.request("POST", "/api/backup", None).status, 200);
        }
        wait_until("the room is free again", || place.free() + (1 << 20) > free);
        daemon.stop();
        place.is_well();
    });
}

#[test]
fn e39_readers_who_leave_a_backup_give_everything_back() {
    in_namespace(|| {
        let place = Place::new();
        let daemon = place.start();
        let answer = |method: &str, path: &str| daemon.request(method, path, None).status;
        let size = daemon.request("POST", "/api/backup", None).body.len();
        let (before, free) = (descriptors(&daemon), place.free());
        for round in 0..9 {
            let reader = begin_backup(&daemon);
            // It has no name, but it is there.
            assert!(place.free() + (1 << 20) < free, "{} of {free} bytes are free", place.free());
            assert_eq!(place.copies(), [""; 0]);
            assert_eq!(answer("GET", "/api/traffic/series?interface=lan1"), 200, "the others are answered");
            counts(&daemon);
            let mut stays = None;
            match round % 3 {
                0 => drop(reader),
                1 => reset(reader),
                // It reads no more, and others wait for their turn.
                _ => stays = Some(reader),
            }
            wait_until("there is a turn again", || answer("POST", "/api/backup") == 200);
            if let Some(mut reader) = stays {
                let mut rest = Vec::new();
                let _ = reader.read_to_end(&mut rest);
                assert!(!rest.ends_with(b"0\r\n\r\n"), "what was cut off does not look whole");
            }
        }
        // All at once: each has its turn or is told to come again, and whoever has it gets all of it.
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
        wait_until("the descriptors are back", || descriptors(&daemon) <= before);
        wait_until("the room is free again", || place.free() + (1 << 20) > free);
        daemon.stop();
        place.is_well();
    });
}

#[test]
fn e39_the_end_waits_for_no_reader_of_a_backup() {
    in_namespace(|| {
        let place = Place::new();
        let daemon = place.start();
        let reader = begin_backup(&daemon);
        send("wan0", 900, 3);
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, log) = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("stay unsaved")), "{log:#?}");
        drop(reader);
        place.is_well();
    });
}

#[test]
fn e39_the_end_waits_for_no_backup_that_is_made() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let place = Place::new();
        let daemon = place.start();
        let slow = Fault::of_workers(&daemon, "pwrite64", "delay_enter=100000");
        let address = ([127, 0, 0, 1], daemon.port()).into();
        thread::scope(|scope| {
            let asking = scope.spawn(move || ask(address, "POST", "/api/backup", "*/*", None));
            wait_until("it is begun", || !place.copies().is_empty());
            send("wan0", 900, 3);
            signal(daemon.pid(), Signal::SIGTERM);
            let asked = std::time::Instant::now();
            // Nobody can take note of its end before strace has.
            wait_until("it ends", || daemon.is_over());
            assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
            drop(slow);
            assert!(asking.join().expect("it does not panic").is_err(), "half a copy is none");
        });
        let (code, log) = daemon.ended_within(PATIENCE);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("stay unsaved")), "{log:#?}");
        place.is_well();
    });
}

/// (calls, what becomes of them, whether saving fails by it).
const ERRORS: [(&str, &str, bool); 3] =
    [("pwrite64", "error=ENOSPC", true), ("pwrite64", "error=EIO", true), ("fsync,fdatasync", "error=EIO", false)];

#[test]
fn e39_a_change_while_nothing_can_be_saved_is_made_later() {
    if !strace_is_there() {
        return;
    }
    thread::scope(|scope| {
        for (calls, what, fails) in ERRORS {
            scope.spawn(move || in_namespace(|| changed_during_a_fault(calls, what, fails)));
        }
    });
}

fn changed_during_a_fault(calls: &str, what: &str, fails: bool) {
    let dir = Dir::new();
    for (one, other) in [("wan0", "lan0"), ("old0", "far0"), ("tmp0", "far1")] {
        cable(one, other);
    }
    let daemon = Daemon::start(&dir, &CALM);
    daemon.ticks(1);
    let traffic = |frames| ["wan0", "old0", "tmp0"].map(|name| send(name, 700, frames));
    traffic(1);
    let named = daemon.request("PATCH", "/api/interfaces/old0", Some(json!({"alias": "uplink"}).to_string()));
    assert_eq!(named.json()["saved"], true, "{}", named.text());
    daemon.stop();
    let daemon = Daemon::start(&dir, &CALM);
    daemon.ticks(1);
    let fault = Fault::of(&daemon, calls, what);
    for frames in 1..4 {
        traffic(frames);
        daemon.collect();
        // One that fails keeps what it had in hand.
        signal(daemon.pid(), Signal::SIGHUP);
        rest(50);
    }
    let present = daemon.request("DELETE", "/api/interfaces/tmp0", None);
    assert_eq!(present.status, 409, "it is there, and counts: {}", present.text());
    let old = sum(&daemon, "old0").expect("it is there");
    assert_eq!(old, bytes(kernel("old0")));
    ip("link del old0");
    ip("link del tmp0");
    absent(&daemon, "old0");
    absent(&daemon, "tmp0");
    let merged = merge(&daemon, "old0", "wan0");
    let forgotten = daemon.request("DELETE", "/api/interfaces/tmp0", None).json()["saved"].clone();
    if fails {
        assert_eq!((&merged, &forgotten), (&json!(false), &json!(false)), "{calls} {what}");
        assert_eq!(number_of_events(&daemon, "merged"), 0, "it is told when it is done");
        wait_until("it is said aloud", || database_status(&daemon) == "degraded");
    }
    let none =
        |daemon: &Daemon, name: &str| daemon.request("GET", &format!("/api/interfaces/{name}"), None).status == 404;
    assert!(none(&daemon, "old0") && none(&daemon, "tmp0"));
    // A name that begins anew is not what was forgotten.
    cable("tmp0", "far1");
    wait_until("it is seen", || !none(&daemon, "tmp0"));
    for name in ["wan0", "tmp0"] {
        send(name, 600, 5);
    }
    daemon.collect();
    let wan = daemon.interface("wan0");
    let both = add(bytes(kernel("wan0")), old);
    assert_eq!([&wan["lifetime_rx_bytes"], &wan["lifetime_tx_bytes"]], [&json!(both[0]), &json!(both[1])]);
    drop(fault);
    signal(daemon.pid(), Signal::SIGHUP);
    wait_until("it is tried again", || database_status(&daemon) == "healthy");
    save(&daemon);

    let check = |daemon: &Daemon, when: &str| {
        daemon.collect();
        let what = format!("{calls} {what} {when}");
        assert_eq!(sum(daemon, "wan0"), Some(add(bytes(kernel("wan0")), old)), "{what}");
        assert_eq!(sum(daemon, "tmp0"), Some(bytes(kernel("tmp0"))), "{what}");
        assert_eq!(daemon.interface("wan0")["alias"], "uplink", "{what}");
        assert!(none(daemon, "old0"), "{what}");
        assert_eq!((number_of_events(daemon, "merged"), number_of_events(daemon, "forgotten")), (1, 1), "{what}");
        no_orphans(daemon);
    };
    check(&daemon, "after the fault");
    daemon.kill();
    assert_eq!(judge(&dir.join("net-pulse.db")).0, "ok");
    let daemon = Daemon::start(&dir, &CALM);
    daemon.ticks(1);
    check(&daemon, "after a restart");
    daemon.stop();
}

/// Room for what was counted, and none for the change: counting and saving go on, and the change is not given up.
#[test]
fn e39_a_change_that_does_not_fit_is_tried_again() {
    in_namespace(|| {
        let place = Place::new();
        let daemon = place.start();
        let [from, into] = ["lan3", "lan7"].map(|name| levels(&daemon, name).expect("it was there"));
        let both: Vec<Sum> = from.into_iter().zip(into).map(|(one, other)| add(one, other)).collect();
        let filler = place.dir.join("disk/filler");
        // The log of ordinary saves stays below that.
        std::fs::write(&filler, vec![1; place.free() as usize - (400 << 10)]).expect("there is room");
        assert_eq!(merge(&daemon, "lan3", "lan7"), json!(false));
        assert!(database_error(&daemon).contains("cannot change the history"), "{}", database_error(&daemon));
        for frames in 1..11 {
            send("wan0", 1000, frames);
            daemon.collect();
            // Asked to, it tries at once.
            signal(daemon.pid(), Signal::SIGHUP);
            wait_until("what was counted is saved all the same", || unsaved(&daemon) <= 2);
        }
        assert_eq!(database_status(&daemon), "degraded");
        assert!(!daemon.log().iter().any(|line| line.contains("works again")), "{:#?}", daemon.log());
        counts(&daemon);
        std::fs::remove_file(&filler).expect("it is ours");
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("it is made", || database_status(&daemon) == "healthy");
        let check = |daemon: &Daemon| {
            assert_eq!(levels(daemon, "lan7"), Some(both.clone()));
            assert_eq!(levels(daemon, "lan3"), None);
            assert_eq!(number_of_events(daemon, "merged"), 1);
            counts(daemon);
        };
        check(&daemon);
        daemon.kill();
        check(&place.start());
    });
}

/// Less is to be kept, and other settings with it: all of them or none, and no sum of what stays has changed.
#[test]
fn e40_killed_while_less_is_kept() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let origin = Dir::new();
        past::fill(&origin.join("net-pulse.db"), Past::Weeks);
        cable("wan0", "lan0");
        let mut changed = Vec::new();
        for at in [1, 20, 60, 80, 90, 100, 120, 200] {
            let dir = Dir::new();
            std::fs::copy(origin.join("net-pulse.db"), dir.join("net-pulse.db")).expect("a copy");
            let daemon = Daemon::start(&dir, &CALM);
            daemon.ticks(1);
            save(&daemon);
            let levels = |daemon: &Daemon| {
                ["hour", "day"].map(|level| {
                    daemon.get(&format!("/api/export/traffic?resolution={level}&interface_name=lan7")).to_string()
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
            let (kept, all, old) = (levels(&daemon), rows(&daemon), settings(&daemon));
            let new = [json!(1), json!(2), json!("wan0")];
            let body = json!({"keep_samples_days": 1, "keep_5min_days": 2, "primary": "wan0"}).to_string();
            let fault = Fault::of(&daemon, "pwrite64", &format!("signal=SIGKILL:when={at}"));
            let address = ([127, 0, 0, 1], daemon.port()).into();
            let answer = ask(address, "PATCH", "/api/config", "application/json", Some(body)).ok();
            daemon.kill();
            drop(fault);
            assert_eq!(judge(&dir.join("net-pulse.db")).0, "ok", "{at}");
            let daemon = Daemon::start(&dir, &CALM);
            daemon.ticks(1);
            let found = settings(&daemon);
            assert!(found == old || found == new, "{at}: {found:?}");
            assert!(found == new || answer.is_none_or(|answer| answer.json()["saved"] == false), "{at}: {found:?}");
            assert_eq!(levels(&daemon), kept, "{at}");
            save(&daemon);
            assert_eq!(rows(&daemon) < all, found == new, "{at}");
            changed.push(found == new);
        }
        println!("{changed:?}");
        assert!(changed.contains(&true) && changed.contains(&false), "{changed:?}");
    });
}

#[test]
fn a_renamed_one_is_merged_and_renamed_back() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("usb0", "far0");
        let daemon = Daemon::start(&dir, &CALM);
        daemon.ticks(1);
        send("usb0", 700, 3);
        daemon.collect();
        ip("link del usb0");
        absent(&daemon, "usb0");
        let first = sum(&daemon, "usb0").expect("its history is there");
        cable("eth5", "far5");
        wait_until("it is seen", || daemon.request("GET", "/api/interfaces/eth5", None).status == 200);
        send("eth5", 800, 4);
        daemon.collect();
        let rename = |from: &str, to: &str| {
            ip(&format!("link set {from} down"));
            ip(&format!("link set {from} name {to}"));
            ip(&format!("link set {to} up"));
        };
        let named = |daemon: &Daemon, name: &str| {
            wait_until("the new name is known", || {
                let answer = daemon.request("GET", &format!("/api/interfaces/{name}"), None);
                answer.status == 200 && answer.json()["present"] == true
            });
        };
        let all = |name: &str| Some(add(first, bytes(kernel(name))));
        // It goes on with the history that its name has; what it had under the other is left behind.
        rename("eth5", "usb0");
        named(&daemon, "usb0");
        send("usb0", 500, 2);
        daemon.collect();
        let (left, here) = (sum(&daemon, "eth5"), sum(&daemon, "usb0"));
        assert_eq!(add(left.expect("it stays"), here.expect("it goes on")), all("usb0").expect("both"));
        assert_eq!(merge(&daemon, "eth5", "usb0"), json!(true));
        assert_eq!((sum(&daemon, "eth5"), sum(&daemon, "usb0")), (None, all("usb0")));
        send("usb0", 500, 2);
        rename("usb0", "eth5");
        named(&daemon, "eth5");
        send("eth5", 400, 1);
        daemon.collect();
        assert_eq!((sum(&daemon, "usb0"), sum(&daemon, "eth5")), (None, all("eth5")), "renamed back");
        daemon.kill();
        // Renamed while nobody looks, and counted all the same.
        rename("eth5", "usb0");
        let daemon = Daemon::start(&dir, &CALM);
        daemon.ticks(1);
        send("usb0", 300, 3);
        daemon.collect();
        // The crash came before the new name was saved.
        assert_eq!(sum(&daemon, "usb0"), all("usb0"), "after a restart");
        assert_eq!(number_of_events(&daemon, "merged"), 1);
        daemon.stop();
        let daemon = Daemon::start(&dir, &CALM);
        daemon.ticks(1);
        assert_eq!((sum(&daemon, "eth5"), sum(&daemon, "usb0")), (None, all("usb0")), "after a quiet restart");
    });
}
