//! Power cuts. The tests record the writes of the real binary from its system calls, and replay them up to each write:
//! all of them, and without some of the unsynced ones, because a disk may write these in any order. After each cut the
//! database must open intact, with everything that a sync has made safe.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::disk::*;
use crate::common::*;
use crate::storage_schema::content_hash;
use net_pulse::clock::Zone;
use net_pulse::history::{Cursor, SampleFilter, Snapshot};
use net_pulse::model::Counters;
use net_pulse::store::{Options, Store};
use nix::sys::signal::Signal;

/// Effect of a system call on a file. A `Step` pairs it with the suffix of the file: "" for the database itself, "-wal"
/// and so on.
#[derive(Clone, Debug)]
enum FileOp {
    Create,
    Write { at: usize, bytes: Vec<u8> },
    Truncate { length: usize },
    Sync,
    Remove,
}

type Step = (String, FileOp);
type Files = BTreeMap<String, Vec<u8>>;

/// Decodes a string as strace prints it with -xx: every byte in hexadecimal.
fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes();
    let byte = |four: &[u8]| u8::from_str_radix(std::str::from_utf8(&four[2..]).expect("ASCII"), 16).expect("hex");
    assert!(digits.len() % 4 == 0 && digits.chunks(4).all(|four| four.starts_with(b"\\x")), "no -xx string: {text}");
    digits.chunks(4).map(byte).collect()
}

/// The lines of a trace in the order in which the calls returned. Joins the two halves of an interrupted line.
fn calls(trace: &str) -> Vec<String> {
    let mut halves: BTreeMap<&str, &str> = BTreeMap::new();
    let mut whole = Vec::new();
    for line in trace.lines() {
        let Some((id, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            halves.insert(id, first);
        } else if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
            whole.push(format!("{}{rest}", halves.remove(id).expect("a first half")));
        } else {
            whole.push(call.to_string());
        }
    }
    whole
}

/// Extracts the steps that concern the database.
fn steps(trace: &str, database: &str) -> Vec<Step> {
    let suffix_of = |path: &str| {
        let path = String::from_utf8(unhex(path)).ok()?;
        path.strip_prefix(database).map(str::to_string)
    };
    let mut steps = Vec::new();
    for call in calls(trace) {
        // Lines about signals and about threads that ended.
        if call.starts_with(['-', '+']) {
            continue;
        }
        let (name, rest) = call.split_once('(').unwrap_or_else(|| panic!("no call: {call}"));
        // strace aligns the results of short calls in a column.
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("no result: {call}"));
        let arguments = arguments.trim_end().strip_suffix(')').unwrap_or_else(|| panic!("no end: {call}"));
        if result.starts_with('-') {
            continue;
        }
        let text_between = |start: &str, end: char| {
            let (_, rest) = arguments.split_once(start)?;
            Some(rest.split(end).next().unwrap_or_default().to_string())
        };
        let numbers = || arguments.rsplit(", ").map_while(|word| word.parse::<usize>().ok()).collect::<Vec<_>>();
        let (path, op) = match name {
            "openat" if arguments.contains("O_CREAT") => (text_between("\"", '"'), FileOp::Create),
            "pwrite64" => {
                let numbers = numbers();
                let bytes = unhex(&text_between("\"", '"').expect("the bytes written"));
                assert_eq!((bytes.len(), result), (numbers[1], numbers[1].to_string().as_str()), "a whole write");
                (text_between("<", '>'), FileOp::Write { at: numbers[0], bytes })
            }
            "ftruncate" => (text_between("<", '>'), FileOp::Truncate { length: numbers()[0] }),
            "fsync" | "fdatasync" => (text_between("<", '>'), FileOp::Sync),
            "unlink" => (text_between("\"", '"'), FileOp::Remove),
            "openat" => continue,
            other => panic!("unexpected system call in the trace: {other}"),
        };
        let Some(part) = path.as_deref().and_then(suffix_of) else { continue };
        steps.push((part, op));
    }
    steps
}

fn apply(files: &mut Files, (part, op): &Step) {
    match op {
        FileOp::Create => drop(files.entry(part.clone()).or_default()),
        FileOp::Write { at, bytes } => {
            let file = files.entry(part.clone()).or_default();
            file.resize(file.len().max(at + bytes.len()), 0);
            file[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        FileOp::Truncate { length } => files.entry(part.clone()).or_default().resize(*length, 0),
        FileOp::Remove => drop(files.remove(part)),
        FileOp::Sync => {}
    }
}

/// The first bytes of a write, which reach the disk when the power fails during it.
fn torn_write(step: &Step, kept_bytes: usize) -> Option<Step> {
    let (part, FileOp::Write { at, bytes }) = step else { return None };
    Some((part.clone(), FileOp::Write { at: *at, bytes: bytes[..kept_bytes.min(bytes.len())].to_vec() }))
}

/// Result of opening the database after a cut.
#[derive(Debug)]
struct AfterCut {
    samples: u64,
    set_aside: bool,
}

fn reopened(dir: &str, files: &Files, what: &str) -> AfterCut {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir(dir).expect("a file of the test");
    let database = format!("{dir}/net-pulse.db");
    for (part, bytes) in files {
        fs::write(format!("{database}{part}"), bytes).expect("enough disk space");
    }
    let opened = Store::open(Path::new(&database), &Options { max_bytes: 32 << 20 });
    let opened = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let set_aside = opened.events.iter().any(|event| event.detail.contains("set aside"));
    assert!(set_aside || opened.events.is_empty(), "{what}: {:?}", opened.events);
    // All data agrees: the lifetime of an interface is the sum of its samples, and every sample can be read.
    let reader = opened.store.reader().expect("an open database");
    let mut sums: BTreeMap<u32, Counters> = BTreeMap::new();
    let (mut samples, mut after) = (0, None::<Cursor>);
    loop {
        let (points, next) = Snapshot::of(&reader, &Zone::UTC, &[])
            .unwrap()
            .oldest(&SampleFilter::default(), after, 500)
            .expect("a complete history");
        samples += points.len() as u64;
        points.iter().for_each(|point| sums.entry(point.sample.iface).or_default().add(&point.sample.delta));
        after = next;
        if after.is_none() {
            break;
        }
    }
    for record in &opened.records {
        let sum = sums.get(&record.id).copied().unwrap_or_default();
        assert_eq!(record.lifetime, sum, "{what}: the totals of {}", record.name);
    }
    assert_eq!(reader.view().unwrap().stats().expect("a complete history").samples, samples, "{what}");
    drop((reader, opened));
    let conn = rusqlite::Connection::open(&database).expect("the file exists");
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
    assert_eq!(verdict, "ok", "{what}");
    AfterCut { samples, set_aside }
}

/// Starts the real binary under strace. Returns strace as the daemon, and the process id of the binary.
fn traced(trace: &str, database: &str) -> (Daemon, u32) {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-xx", "-s", "100000", "-o", trace]);
    command.args(["-e", "trace=openat,pwrite64,ftruncate,unlink,fsync,fdatasync", "-e", "signal=none"]);
    command.arg(env!("CARGO_BIN_EXE_net-pulse"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--interval", "3600", "--flush", "3600"]);
    command.args(["--database", database]);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let daemon = Daemon::spawn(command);
    let program = child_of(daemon.pid());
    daemon.get("/health");
    (daemon, program)
}

/// Records the calls of the real binary while it saves many times and is killed in between.
fn record(dir: &Dir) -> Vec<Step> {
    let database = dir.join("net-pulse.db");
    let save = |daemon: &Daemon, program, frames| {
        send("wan0", 900, frames);
        daemon.collect();
        let before = stored_samples(daemon);
        signal(program, Signal::SIGHUP);
        wait_until("the ticks are saved", || stored_samples(daemon) > before);
    };
    let (daemon, program) = traced(&dir.join("trace-1"), &database);
    // SQLite checkpoints the log every 64 pages: several times during these saves.
    for turn in 1..120 {
        save(&daemon, program, turn % 7 + 1);
        if turn % 6 == 0 {
            // Writes to pages of another table, and events.
            let answer = daemon.put("/api/config/max-retries", serde_json::json!({ "max_retries": turn % 50 + 1 }));
            assert_eq!(answer.status, 200, "{}", answer.text());
            daemon.post("/collector/stop");
            daemon.post("/collector/start");
        }
    }
    signal(program, Signal::SIGKILL);
    wait_until("the daemon has ended", || daemon.has_ended());
    let log = fs::metadata(format!("{database}-wal")).map_or(0, |facts| facts.len());
    assert!(log > 4096, "nothing is in the log alone");

    // The next daemon checkpoints the log of the killed one, and its own log when it ends.
    let (daemon, program) = traced(&dir.join("trace-2"), &database);
    (1..10).for_each(|turn| save(&daemon, program, turn));
    signal(program, Signal::SIGTERM);
    let (code, log) = daemon.ended_within(TIMEOUT);
    assert_eq!(code, Some(0), "{log:#?}");
    let traces = ["trace-1", "trace-2"].map(|trace| fs::read_to_string(dir.join(trace)).expect("a trace"));
    let steps = traces.map(|trace| steps(&trace, &database)).concat();
    let guard_writes = steps.iter().filter(|(part, op)| part == ".guard" && matches!(op, FileOp::Write { .. }));
    assert_eq!(guard_writes.count(), 4, "the id of the database, before and after each of two openings");
    steps
}

#[test]
fn e40_power_fails_at_every_write() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let steps = record(&dir);
        // Thousands of openings with their syncs: in memory, not on a disk.
        let _disk = small_disk(&dir.join("replay"), 64 << 20);
        let cut_dir = dir.join("replay/cut");
        check_every_cut(&steps, &cut_dir);
    });
}

/// The first start on a file of an older schema: wherever the power fails, the next start arrives at the same history.
#[test]
fn power_fails_while_an_older_file_is_migrated() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let older =
            fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history/schema-2.db")).expect("the file exists");
        let database = dir.join("net-pulse.db");
        fs::write(&database, &older).expect("enough disk space");
        let (daemon, program) = traced(&dir.join("trace"), &database);
        wait_until("the history is open", || stored_samples(&daemon) > 0);
        signal(program, Signal::SIGKILL);
        wait_until("the daemon has ended", || daemon.has_ended());
        let expect = content_hash(&database);
        let mut steps = steps(&fs::read_to_string(dir.join("trace")).expect("a trace"), &database);
        // The daemon completes the copy of the older file before it writes anything else, so the copy needs no cuts.
        steps.retain(|(part, _)| ["", "-wal", ".guard"].contains(&part.as_str()));
        let pages = steps.iter().filter(|(part, op)| part == "-wal" && matches!(op, FileOp::Write { .. })).count();
        assert!(pages > 40, "{pages} writes to the log");

        let _disk = small_disk(&dir.join("replay"), 64 << 20);
        let cut_dir = dir.join("replay/cut");
        let mut cuts = 0;
        let mut check = |files: &Files, what: &str| {
            cuts += 1;
            let _ = fs::remove_dir_all(&cut_dir);
            fs::create_dir(&cut_dir).expect("a file of the test");
            let database = format!("{cut_dir}/net-pulse.db");
            files
                .iter()
                .for_each(|(part, bytes)| fs::write(format!("{database}{part}"), bytes).expect("enough disk space"));
            let opened = Store::open(Path::new(&database), &Options { max_bytes: 32 << 20 });
            let opened = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(
                !opened.events.iter().any(|event| event.detail.contains("set aside")),
                "{what}: {:?}",
                opened.events
            );
            drop(opened);
            assert_eq!(content_hash(&database), expect, "{what}");
        };
        let (mut all, mut synced) =
            (Files::from([(String::new(), older.clone())]), Files::from([(String::new(), older)]));
        let mut since: Vec<Step> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let what = format!("step {at} of {}, {}", steps.len(), describe(step));
            if let Some(half) = torn_write(step, 512 * (1 + at % 7)) {
                let mut files = all.clone();
                apply(&mut files, &half);
                check(&files, &format!("within {what}"));
            }
            apply(&mut all, step);
            track_sync(step, &mut synced, &mut since);
            check(&all, &format!("after {what}"));
            check(&synced_and_entries(&synced, &since), &format!("without the unsynced writes, after {what}"));
            let mut files = synced_and_entries(&synced, &since);
            since.iter().skip(at % 2).step_by(2).for_each(|step| apply(&mut files, step));
            check(&files, &format!("with some of the unsynced writes, after {what}"));
        }
        println!("{cuts} cuts");
    });
}

fn check_every_cut(steps: &[Step], cut_dir: &str) {
    let count = |wanted: &str, which: fn(&FileOp) -> bool| {
        steps.iter().filter(|(part, op)| part == wanted && which(op)).count()
    };
    let is_sync = |op: &FileOp| matches!(op, FileOp::Sync);
    let is_write = |op: &FileOp| matches!(op, FileOp::Write { .. });
    let syncs = [count("-wal", is_sync), count("", is_sync)];
    assert!(syncs[0] >= 3 && syncs[1] >= 3, "too few checkpoints: {syncs:?}");
    println!("{} steps, {} {}", steps.len(), count("", is_write), count("-wal", is_write));
    assert!(count("", is_write) >= 10 && count("-wal", is_write) >= 200, "too few writes");

    let mut noise = 88_172_645_463_325_252_u64;
    let mut random = |limit: usize| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        (noise >> 11) as usize % limit
    };
    // `all`: all steps so far. `synced`: the synced content of each file, and `since`: the steps after that. `safe`:
    // the number of samples that a sync has made safe.
    let (mut all, mut synced) = (Files::new(), Files::new());
    let mut since: Vec<Step> = Vec::new();
    let (mut newest, mut safe, mut cuts) = (0, 0, 0);
    let mut check = |files: &Files, safe: u64, what: &str| {
        cuts += 1;
        let found = reopened(cut_dir, files, what);
        assert!(found.samples >= safe, "{what}: {found:?}, and {safe} samples were safe");
        assert!(!found.set_aside || safe == 0, "{what}: {found:?}");
        found
    };
    for (at, step) in steps.iter().enumerate() {
        let what = format!("step {at} of {}, {}", steps.len(), describe(step));
        // The write is torn at a sector boundary, and at an arbitrary byte.
        for kept_bytes in [512 * (1 + random(7)), 1 + random(4095)] {
            if let Some(half) = torn_write(step, kept_bytes) {
                let mut files = all.clone();
                apply(&mut files, &half);
                check(&files, safe, &format!("within {what}"));
            }
        }
        apply(&mut all, step);
        track_sync(step, &mut synced, &mut since);
        // In order, as after a crash of the program alone.
        let found = check(&all, safe, &format!("after {what}"));
        assert!(found.set_aside || found.samples >= newest, "after {what}: {found:?}, {newest} before");
        newest = found.samples;
        if matches!(step.1, FileOp::Sync) {
            safe = check(&synced_and_entries(&synced, &since), 0, &format!("only what is synced, after {what}"))
                .samples
                .max(safe);
            continue;
        }
        // Unsynced writes may be missing, because the disk may write them in any order.
        check(&synced_and_entries(&synced, &since), safe, &format!("without the unsynced writes, after {what}"));
        let mut files = synced_and_entries(&synced, &since);
        for step in &since {
            if random(2) == 0 {
                apply(&mut files, step);
            }
        }
        check(&files, safe, &format!("with some of the unsynced writes, after {what}"));
    }
    assert!(newest >= 60 && safe >= 50, "{newest} samples at the end, {safe} of them safe");
    println!("{cuts} cuts, {newest} samples at the end");
}

/// Applies a sync to `synced`, or adds any other step to `since`. Does not track the sync of directory entries: see
/// `synced_and_entries`.
fn track_sync(step: &Step, synced: &mut Files, since: &mut Vec<Step>) {
    if let (part, FileOp::Sync) = step {
        since.iter().filter(|(other, _)| other == part).for_each(|step| apply(synced, step));
        since.retain(|(other, _)| other != part);
    } else {
        since.push(step.clone());
    }
}

/// The synced files, with all files created and removed so far. The file systems in use create and remove files in
/// order, and SQLite syncs the directory where it matters.
fn synced_and_entries(synced: &Files, since: &[Step]) -> Files {
    let mut files = synced.clone();
    for step in since.iter().filter(|(_, op)| matches!(op, FileOp::Create | FileOp::Remove)) {
        apply(&mut files, step);
    }
    files
}

fn describe((part, op): &Step) -> String {
    match op {
        FileOp::Write { at, bytes } => format!("{} bytes at {at} of net-pulse.db{part}", bytes.len()),
        other => format!("{other:?} of net-pulse.db{part}"),
    }
}
