//! Power cuts. The writes of the real binary are recorded from its system calls and played again up to each of them, in
//! order and as a disk may reorder what was not synced; at every cut the database is opened, and has to be whole, with
//! everything in it that a sync had made safe.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::disk::*;
use crate::common::*;
use crate::storage_schema::content;
use net_pulse::clock::Zone;
use net_pulse::history::{Cursor, SampleFilter, Snapshot};
use net_pulse::model::Counters;
use net_pulse::store::{Options, Store};
use nix::sys::signal::Signal;

/// What a call did to the file of that name, "" for the database itself, "-wal" and so on.
#[derive(Clone, Debug)]
enum Change {
    Create,
    Write { at: usize, bytes: Vec<u8> },
    Truncate { length: usize },
    Sync,
    Remove,
}

type Step = (String, Change);
type Files = BTreeMap<String, Vec<u8>>;

/// The value of a string as strace has it with -xx: every byte in hexadecimal.
fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes();
    let byte = |four: &[u8]| u8::from_str_radix(std::str::from_utf8(&four[2..]).expect("ASCII"), 16).expect("hex");
    assert!(digits.len() % 4 == 0 && digits.chunks(4).all(|four| four.starts_with(b"\\x")), "no -xx string: {text}");
    digits.chunks(4).map(byte).collect()
}

/// The lines of a trace in the order in which the calls returned, those in two halves put together.
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

/// Keeps the steps that concern the database.
fn steps(trace: &str, database: &str) -> Vec<Step> {
    let ours = |path: &str| {
        let path = String::from_utf8(unhex(path)).ok()?;
        path.strip_prefix(database).map(str::to_string)
    };
    let mut steps = Vec::new();
    for call in calls(trace) {
        // What is said of signals and of threads that ended.
        if call.starts_with(['-', '+']) {
            continue;
        }
        let (name, rest) = call.split_once('(').unwrap_or_else(|| panic!("no call: {call}"));
        // The results of short calls stand in a column of their own.
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or_else(|| panic!("no result: {call}"));
        let arguments = arguments.trim_end().strip_suffix(')').unwrap_or_else(|| panic!("no end: {call}"));
        if result.starts_with('-') {
            continue;
        }
        let behind = |start: &str, end: char| {
            let (_, rest) = arguments.split_once(start)?;
            Some(rest.split(end).next().unwrap_or_default().to_string())
        };
        let numbers = || arguments.rsplit(", ").map_while(|word| word.parse::<usize>().ok()).collect::<Vec<_>>();
        let (path, change) = match name {
            "openat" if arguments.contains("O_CREAT") => (behind("\"", '"'), Change::Create),
            "pwrite64" => {
                let numbers = numbers();
                let bytes = unhex(&behind("\"", '"').expect("what is written"));
                assert_eq!((bytes.len(), result), (numbers[1], numbers[1].to_string().as_str()), "a whole write");
                (behind("<", '>'), Change::Write { at: numbers[0], bytes })
            }
            "ftruncate" => (behind("<", '>'), Change::Truncate { length: numbers()[0] }),
            "fsync" | "fdatasync" => (behind("<", '>'), Change::Sync),
            "unlink" => (behind("\"", '"'), Change::Remove),
            "openat" => continue,
            other => panic!("{other} was not to be recorded"),
        };
        let Some(part) = path.as_deref().and_then(ours) else { continue };
        steps.push((part, change));
    }
    steps
}

fn apply(files: &mut Files, (part, change): &Step) {
    match change {
        Change::Create => drop(files.entry(part.clone()).or_default()),
        Change::Write { at, bytes } => {
            let file = files.entry(part.clone()).or_default();
            file.resize(file.len().max(at + bytes.len()), 0);
            file[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Truncate { length } => files.entry(part.clone()).or_default().resize(*length, 0),
        Change::Remove => drop(files.remove(part)),
        Change::Sync => {}
    }
}

/// What a write leaves of itself when the power goes within it.
fn torn(step: &Step, keep: usize) -> Option<Step> {
    let (part, Change::Write { at, bytes }) = step else { return None };
    Some((part.clone(), Change::Write { at: *at, bytes: bytes[..keep.min(bytes.len())].to_vec() }))
}

/// What is found after a cut.
#[derive(Debug)]
struct Found {
    samples: u64,
    set_aside: bool,
}

fn reopened(dir: &str, files: &Files, what: &str) -> Found {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir(dir).expect("it is ours");
    let database = format!("{dir}/net-pulse.db");
    for (part, bytes) in files {
        fs::write(format!("{database}{part}"), bytes).expect("there is room");
    }
    let opened = Store::open(Path::new(&database), &Options { max_bytes: 32 << 20 });
    let opened = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let set_aside = opened.events.iter().any(|event| event.detail.contains("set aside"));
    assert!(set_aside || opened.events.is_empty(), "{what}: {:?}", opened.events);
    // All that is there agrees: the totals of an interface are the sum of its samples, and they can be walked.
    let reader = opened.store.reader().expect("it is open");
    let mut sums: BTreeMap<u32, Counters> = BTreeMap::new();
    let (mut samples, mut after) = (0, None::<Cursor>);
    loop {
        let (points, next) = Snapshot::of(&reader, &Zone::UTC, &[])
            .unwrap()
            .oldest(&SampleFilter::default(), after, 500)
            .expect("whole");
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
    assert_eq!(reader.view().unwrap().facts().expect("whole").samples, samples, "{what}");
    drop((reader, opened));
    let conn = rusqlite::Connection::open(&database).expect("it is there");
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
    assert_eq!(verdict, "ok", "{what}");
    Found { samples, set_aside }
}

/// The real binary, with its calls written down. Its own process is the child.
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

/// Has the real binary save many times, killed in between, while its calls are written down.
fn record(dir: &Dir) -> Vec<Step> {
    let database = dir.join("net-pulse.db");
    let save = |daemon: &Daemon, program, frames| {
        send("wan0", 900, frames);
        daemon.collect();
        let before = stored(daemon);
        signal(program, Signal::SIGHUP);
        wait_until("it is saved", || stored(daemon) > before);
    };
    let (daemon, program) = traced(&dir.join("trace-1"), &database);
    // The log is taken in every 64 pages: several times in so many saves.
    for turn in 1..120 {
        save(&daemon, program, turn % 7 + 1);
        if turn % 6 == 0 {
            // Pages of another table, and events.
            let answer = daemon.put("/api/config/max-retries", serde_json::json!({ "max_retries": turn % 50 + 1 }));
            assert_eq!(answer.status, 200, "{}", answer.text());
            daemon.post("/collector/stop");
            daemon.post("/collector/start");
        }
    }
    signal(program, Signal::SIGKILL);
    wait_until("it is gone", || daemon.is_over());
    let log = fs::metadata(format!("{database}-wal")).map_or(0, |facts| facts.len());
    assert!(log > 4096, "nothing is in the log alone");

    // The next one takes in the log of the killed one, and its own at the end.
    let (daemon, program) = traced(&dir.join("trace-2"), &database);
    (1..10).for_each(|turn| save(&daemon, program, turn));
    signal(program, Signal::SIGTERM);
    let (code, log) = daemon.ended_within(PATIENCE);
    assert_eq!(code, Some(0), "{log:#?}");
    let traces = ["trace-1", "trace-2"].map(|trace| fs::read_to_string(dir.join(trace)).expect("a trace"));
    let steps = traces.map(|trace| steps(&trace, &database)).concat();
    let notes = steps.iter().filter(|(part, change)| part == ".guard" && matches!(change, Change::Write { .. }));
    assert_eq!(notes.count(), 4, "what file the database is, before and after it becomes another one");
    steps
}

#[test]
fn e40_the_power_goes_at_every_write() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let steps = record(&dir);
        // Thousands of openings with their syncs: not on a disk.
        let _disk = small_disk(&dir.join("replay"), 64 << 20);
        let place = dir.join("replay/cut");
        every_cut(&steps, &place);
    });
}

/// The first start on a file of an older schema: wherever the power goes, the next one comes to the same history.
#[test]
fn the_power_goes_while_an_older_file_is_migrated() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let older =
            fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history/schema-2.db")).expect("it is there");
        let database = dir.join("net-pulse.db");
        fs::write(&database, &older).expect("there is room");
        let (daemon, program) = traced(&dir.join("trace"), &database);
        wait_until("it is open", || stored(&daemon) > 0);
        signal(program, Signal::SIGKILL);
        wait_until("it is gone", || daemon.is_over());
        let expect = content(&database);
        let mut steps = steps(&fs::read_to_string(dir.join("trace")).expect("a trace"), &database);
        // The copy that is kept is whole before anything else is written.
        steps.retain(|(part, _)| ["", "-wal", ".guard"].contains(&part.as_str()));
        let pages =
            steps.iter().filter(|(part, change)| part == "-wal" && matches!(change, Change::Write { .. })).count();
        assert!(pages > 40, "{pages} writes to the log");

        let _disk = small_disk(&dir.join("replay"), 64 << 20);
        let place = dir.join("replay/cut");
        let mut cuts = 0;
        let mut check = |files: &Files, what: &str| {
            cuts += 1;
            let _ = fs::remove_dir_all(&place);
            fs::create_dir(&place).expect("it is ours");
            let database = format!("{place}/net-pulse.db");
            files
                .iter()
                .for_each(|(part, bytes)| fs::write(format!("{database}{part}"), bytes).expect("there is room"));
            let opened = Store::open(Path::new(&database), &Options { max_bytes: 32 << 20 });
            let opened = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(
                !opened.events.iter().any(|event| event.detail.contains("set aside")),
                "{what}: {:?}",
                opened.events
            );
            drop(opened);
            assert_eq!(content(&database), expect, "{what}");
        };
        let (mut all, mut synced) =
            (Files::from([(String::new(), older.clone())]), Files::from([(String::new(), older)]));
        let mut since: Vec<Step> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let what = format!("step {at} of {}, {}", steps.len(), brief(step));
            if let Some(half) = torn(step, 512 * (1 + at % 7)) {
                let mut files = all.clone();
                apply(&mut files, &half);
                check(&files, &format!("within {what}"));
            }
            apply(&mut all, step);
            follow(step, &mut synced, &mut since);
            check(&all, &format!("after {what}"));
            check(&synced_and_entries(&synced, &since), &format!("without the unsynced, after {what}"));
            let mut files = synced_and_entries(&synced, &since);
            since.iter().skip(at % 2).step_by(2).for_each(|step| apply(&mut files, step));
            check(&files, &format!("with some of the unsynced, after {what}"));
        }
        println!("{cuts} cuts");
    });
}

fn every_cut(steps: &[Step], place: &str) {
    let count = |wanted: &str, which: fn(&Change) -> bool| {
        steps.iter().filter(|(part, change)| part == wanted && which(change)).count()
    };
    let is_sync = |change: &Change| matches!(change, Change::Sync);
    let is_write = |change: &Change| matches!(change, Change::Write { .. });
    let syncs = [count("-wal", is_sync), count("", is_sync)];
    assert!(syncs[0] >= 3 && syncs[1] >= 3, "the log was taken in too rarely: {syncs:?}");
    println!("{} steps, {} {}", steps.len(), count("", is_write), count("-wal", is_write));
    assert!(count("", is_write) >= 10 && count("-wal", is_write) >= 200, "too few writes to be cut");

    let mut noise = 88_172_645_463_325_252_u64;
    let mut random = |limit: usize| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        (noise >> 11) as usize % limit
    };
    // Everything so far; what of each file was synced, with the changes since then; what a sync has made safe.
    let (mut all, mut synced) = (Files::new(), Files::new());
    let mut since: Vec<Step> = Vec::new();
    let (mut newest, mut safe, mut cuts) = (0, 0, 0);
    let mut check = |files: &Files, safe: u64, what: &str| {
        cuts += 1;
        let found = reopened(place, files, what);
        assert!(found.samples >= safe, "{what}: {found:?}, and {safe} samples were safe");
        assert!(!found.set_aside || safe == 0, "{what}: {found:?}");
        found
    };
    for (at, step) in steps.iter().enumerate() {
        let what = format!("step {at} of {}, {}", steps.len(), brief(step));
        // In the middle of it, at a sector's border and elsewhere.
        for keep in [512 * (1 + random(7)), 1 + random(4095)] {
            if let Some(half) = torn(step, keep) {
                let mut files = all.clone();
                apply(&mut files, &half);
                check(&files, safe, &format!("within {what}"));
            }
        }
        apply(&mut all, step);
        follow(step, &mut synced, &mut since);
        // In order, as after a crash of the program alone.
        let found = check(&all, safe, &format!("after {what}"));
        assert!(found.set_aside || found.samples >= newest, "after {what}: {found:?}, {newest} were there before");
        newest = found.samples;
        if matches!(step.1, Change::Sync) {
            safe = check(&synced_and_entries(&synced, &since), 0, &format!("only what is synced, after {what}"))
                .samples
                .max(safe);
            continue;
        }
        // What was not synced may be missing, and come in any order.
        check(&synced_and_entries(&synced, &since), safe, &format!("without the unsynced, after {what}"));
        let mut files = synced_and_entries(&synced, &since);
        for step in &since {
            if random(2) == 0 {
                apply(&mut files, step);
            }
        }
        check(&files, safe, &format!("with some of the unsynced, after {what}"));
    }
    assert!(newest >= 60 && safe >= 50, "{newest} samples at the end, {safe} of them safe");
    println!("{cuts} cuts, {newest} samples at the end");
}

/// One more step of what is certainly on the disk, and of what came since. Entries of the directory are not followed: a file
/// that was made or removed before is so by now.
fn follow(step: &Step, synced: &mut Files, since: &mut Vec<Step>) {
    if let (part, Change::Sync) = step {
        since.iter().filter(|(other, _)| other == part).for_each(|step| apply(synced, step));
        since.retain(|(other, _)| other != part);
    } else {
        since.push(step.clone());
    }
}

/// Making and removing files is in order on the file systems that matter, and SQLite syncs the directory where it counts.
fn synced_and_entries(synced: &Files, since: &[Step]) -> Files {
    let mut files = synced.clone();
    for step in since.iter().filter(|(_, change)| matches!(change, Change::Create | Change::Remove)) {
        apply(&mut files, step);
    }
    files
}

fn brief((part, change): &Step) -> String {
    match change {
        Change::Write { at, bytes } => format!("{} bytes at {at} of net-pulse.db{part}", bytes.len()),
        other => format!("{other:?} of net-pulse.db{part}"),
    }
}
