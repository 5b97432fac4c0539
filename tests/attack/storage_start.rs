//! Starting with a database that is not as it should be: what is damaged is put aside and something fresh begun, loudly;
//! what is somebody else's, or of a newer version, or cannot be written to, is left alone (`storage_late` has what follows).

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use crate::common::disk::*;
use crate::common::*;
use net_pulse::clock::Zone;
use net_pulse::config::Config;
use net_pulse::live::ActiveSettings;
use net_pulse::model::{Batch, Counters, Mark, Sample, Tick};
use net_pulse::store::{Options, SaveRequest, Store};
use nix::sys::signal::Signal;
use rusqlite::Connection;

const NOBODY: u32 = 65_534;
/// 15 January 2026.
const T: i64 = 1_768_435_200;
/// Samples that `filled` leaves.
const HELD: u64 = 40 * 29;

fn database(dir: &Dir) -> String {
    dir.join("data/net-pulse.db")
}

fn command(database: &str) -> std::process::Command {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", database, "--interval", "1", "--flush", "1"]);
    command
}

/// Names and contents of everything below.
fn contents(at: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let Ok(entries) = fs::read_dir(at) else { return all };
    for entry in entries.flatten() {
        let path = entry.path().to_str().expect("a plain path").to_string();
        if entry.path().is_dir() {
            all.push((path.clone(), Vec::new()));
            all.append(&mut contents(&path));
        } else {
            all.push((path.clone(), fs::read(&path).expect("root may")));
        }
    }
    all.sort();
    all
}

/// Goes on in memory, with one sentence that has these words, and leaves everything as it was.
fn left_alone(command: std::process::Command, at: &str, words: &[&str]) {
    let before = contents(at);
    let daemon = Daemon::spawn(command);
    wait_until("it is said aloud", || database_status(&daemon) == "unhealthy");
    daemon.ticks(1);
    signal(daemon.pid(), Signal::SIGTERM);
    let (code, log) = daemon.ended_within(Duration::from_secs(3));
    assert_eq!(code, Some(0), "{log:#?}");
    let sentences: Vec<&String> = log.iter().filter(|line| line.contains("the history cannot be opened")).collect();
    assert_eq!(sentences.len(), 1, "{log:#?}");
    words.iter().for_each(|word| assert!(sentences[0].contains(word), "no {word} in: {}", sentences[0]));
    assert_eq!(contents(at), before, "something was touched");
}

/// A month of history, some sixty pages of it.
fn filled(dir: &Dir) -> String {
    filled_at(database(dir))
}

fn filled_at(database: String) -> String {
    let mut opened = Store::open(Path::new(&database), &Options { max_bytes: 32 << 20 }).expect("a fresh one");
    let mut noise = 88_172_645_463_325_252_u64;
    for at in 0..120 {
        let mut batch = Batch::default();
        for iface in 1..=40 {
            let delta = Counters(std::array::from_fn(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise >> 24
            }));
            batch.samples.push(Sample { iface, mark: Mark::Plain, span_ms: 21_600_000, delta });
        }
        let mono_ms = 1000 * at * 21_600;
        batch.ticks.push(Tick { seq: at + 1, mono_ms, unix: Some(T + 21_600 * at as i64), end: batch.samples.len() });
        let zone = Zone::UTC;
        let flush = SaveRequest {
            batch: &batch,
            anchors: &[],
            records: &[],
            events: &[],
            settings: &[],
            retention: ActiveSettings::of(&Config::default()).retention,
            zone: &zone,
        };
        opened.store.save(&flush).expect("there is room");
    }
    drop(opened);
    // A week of samples, and all of the coarser levels.
    assert_eq!(judge(&database), ("ok".to_string(), HELD));
    assert!(fs::metadata(&database).expect("it is there").len() > 60 * 4096, "too small to be smashed well");
    database
}

#[test]
fn what_cannot_be_used_is_left_alone() {
    let dir = Dir::new();
    let there = database(&dir);
    fs::create_dir_all(&there).expect("it is ours");
    fs::write(format!("{there}/inside"), "untouched").expect("it is ours");
    left_alone(command(&there), dir.path().to_str().expect("plain"), &[&there, "is a directory", "--database"]);

    // Somebody else's file, whatever is in it.
    let at = dir.path().to_str().expect("plain");
    let letter = dir.join("letter.txt");
    fs::write(&letter, "Dear Ada,\n".repeat(500)).expect("it is ours");
    left_alone(command(&letter), at, &[&letter, "is not a database of net-pulse", "--database"]);
    // Asked twice, it is no more ours than before.
    left_alone(command(&letter), at, &[&letter, "is not a database of net-pulse"]);

    let newer = filled_at(dir.join("newer/net-pulse.db"));
    Connection::open(&newer).and_then(|conn| conn.pragma_update(None, "user_version", 97)).expect("it is ours");
    left_alone(command(&newer), &dir.join("newer"), &[&newer, "schema 97", "knows up to "]);
}

#[test]
fn without_permission_it_says_so() {
    in_namespace(|| {
        let dir = Dir::new();
        let binary = dir.join("net-pulse");
        fs::copy(env!("CARGO_BIN_EXE_net-pulse"), &binary).expect("a copy");
        let closed = filled(&dir);
        let mut command = net_pulse(&binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &closed, "--interval", "1"]);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        left_alone(command, &dir.join("data"), &["ermission denied", &closed]);
    });
}

#[test]
fn on_a_read_only_file_system_it_says_so() {
    in_namespace(|| {
        let dir = Dir::new();
        let _disk = small_disk(&dir.join("data"), 4 << 20);
        let there = filled(&dir);
        remount(&dir.join("data"), true);
        left_alone(command(&there), &dir.join("data"), &["ead-only", &there]);
        remount(&dir.join("data"), false);
        let daemon = Daemon::spawn(command(&there));
        wait_until("it works again", || stored(&daemon) >= HELD);
        daemon.stop();
        remount(&dir.join("data"), true);
        // No file and no directory can be made there either.
        left_alone(command(&dir.join("data/new.db")), &dir.join("data"), &["ead-only"]);
        left_alone(command(&dir.join("data/deeper/new.db")), &dir.join("data"), &["ead-only"]);
    });
}

/// Spoils a filled database. The real binary starts all the same, puts it aside as it was, says so in its log and among
/// the events, and keeps history again.
fn set_aside_after(name: &str, spoil: impl Fn(&mut Vec<u8>)) {
    let dir = Dir::new();
    let there = filled(&dir);
    let mut bytes = fs::read(&there).expect("it is there");
    spoil(&mut bytes);
    fs::write(&there, &bytes).expect("it is ours");
    let daemon = Daemon::spawn(command(&there));
    daemon.ticks(2);
    let log = daemon.log();
    let said = log.iter().find(|line| line.contains("set aside as"));
    let said = said.unwrap_or_else(|| panic!("{name}: not a word: {log:#?}"));
    let aside: Vec<String> = contents(&dir.join("data"))
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.contains(".corrupt-"))
        .collect();
    assert_eq!(aside.len(), 1, "{name}");
    assert!(said.contains(&aside[0]), "{name}: {said}");
    assert_eq!(fs::read(&aside[0]).expect("it is there"), bytes, "{name}: it is what somebody may want to look into");
    let events = daemon.get("/api/events");
    assert!(
        events.as_array().expect("a list").iter().any(|event| {
            event["kind"] == "storage" && event["detail"].as_str().is_some_and(|text| text.contains(&aside[0]))
        }),
        "{name}: {events}"
    );
    assert_eq!(database_status(&daemon), "healthy", "{name}");
    daemon.stop();
    let (verdict, _) = judge(&there);
    assert_eq!(verdict, "ok", "{name}");
}

#[test]
fn e40_what_is_damaged_is_set_aside() {
    set_aside_after("40 smashed pages", |bytes| bytes[10 * 4096..50 * 4096].fill(0x5a));
    set_aside_after("every other page gone", |bytes| {
        bytes.chunks_mut(4096).skip(1).step_by(2).for_each(|page| page.fill(0));
    });
    set_aside_after("a smashed header", |bytes| bytes[..100].fill(0x5a));
    set_aside_after("a header of zeros", |bytes| bytes[..4096].fill(0));
    set_aside_after("the other half of the header", |bytes| bytes[16..4096].fill(0xff));
    set_aside_after("cut in half", |bytes| bytes.truncate(bytes.len() / 2 / 4096 * 4096));
    set_aside_after("cut within a page", |bytes| bytes.truncate(4096 * 20 + 1000));
    set_aside_after("cut within the header", |bytes| bytes.truncate(60));
}

#[test]
fn e40_an_empty_file_is_a_beginning() {
    let dir = Dir::new();
    let there = database(&dir);
    fs::create_dir(dir.join("data")).expect("it is ours");
    fs::write(&there, "").expect("it is ours");
    let daemon = Daemon::spawn(command(&there));
    daemon.ticks(1);
    assert!(daemon.log().iter().any(|line| line.contains("empty")), "{:#?}", daemon.log());
    daemon.stop();
    assert_eq!(judge(&there).0, "ok");
}

/// What a log without its database, of another database or of noise does: nothing.
#[test]
fn e40_a_stray_log_spoils_nothing() {
    for log in [vec![0x5a; 40_000], vec![0; 40_000], b"x".to_vec()] {
        let dir = Dir::new();
        let there = filled(&dir);
        for part in ["-wal", "-journal"] {
            fs::write(format!("{there}{part}"), &log).expect("it is ours");
        }
        let daemon = Daemon::spawn(command(&there));
        wait_until("all is there", || stored(&daemon) >= HELD);
        assert!(!daemon.log().iter().any(|line| line.contains("set aside")), "{:#?}", daemon.log());
        daemon.stop();
        assert_eq!(judge(&there).0, "ok");
    }
}

/// Saves of their own for `count` frames, so that the log has something that the database itself does not.
fn save_frames(daemon: &Daemon, count: usize) {
    for _ in 0..count {
        send("wan0", 700, 1);
        daemon.collect();
        let before = stored(daemon);
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("it is saved", || stored(daemon) > before);
    }
}

fn sent(daemon: &Daemon) -> u64 {
    daemon.interface("wan0")["lifetime_tx_bytes"].as_u64().expect("a number")
}

/// A backup is copied over the database of a program that was killed, whose log still lies beside it: the backup is what is
/// opened, and the log of the other file is set aside as it was, and told of.
#[test]
fn a_backup_over_the_database_of_a_killed_program_is_opened_without_its_log() {
    in_namespace(|| {
        let dir = Dir::new();
        let there = database(&dir);
        cable("wan0", "lan0");
        let start = || {
            let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &there]);
            command.args(["--interval", "3600", "--flush", "3600"]);
            let daemon = Daemon::spawn(command);
            daemon.get("/health");
            daemon
        };
        let logs = || fs::read(format!("{there}-wal")).unwrap_or_default();

        // Made while it was stopped, and asked of it while it ran.
        let daemon = start();
        save_frames(&daemon, 5);
        let cold = (sent(&daemon), dir.join("cold.db"));
        daemon.stop();
        fs::copy(&there, &cold.1).expect("a copy");
        let daemon = start();
        save_frames(&daemon, 5);
        let warm = (sent(&daemon), dir.join("warm.db"));
        let answer = daemon.request("POST", "/api/backup", None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        fs::write(&warm.1, &answer.body).expect("there is room");
        save_frames(&daemon, 20);
        let last = sent(&daemon);
        daemon.kill();
        ip("link del wan0");
        assert!(cold.0 < warm.0 && warm.0 < last && logs().len() > 4096, "{cold:?} {warm:?} {last}");
        let crashed = contents(&dir.join("data"));

        for (expect, copy) in [cold, warm] {
            for (path, bytes) in &crashed {
                fs::write(path, bytes).expect("it is ours");
            }
            let log = logs();
            fs::copy(&copy, &there).expect("a copy");
            let daemon = start();
            assert_eq!(sent(&daemon), expect, "what {copy} has");
            let asides: Vec<(String, Vec<u8>)> =
                contents(&dir.join("data")).into_iter().filter(|(path, _)| path.contains(".foreign-")).collect();
            assert_eq!(asides.len(), 1, "{:?}", daemon.log());
            let (aside, bytes) = &asides[0];
            assert!(aside.starts_with(&format!("{there}-wal.")) && *bytes == log, "{aside}");
            let said = daemon.log();
            let said = said.iter().find(|line| line.contains(aside)).unwrap_or_else(|| panic!("not a word: {said:?}"));
            assert!(said.starts_with("error: "), "{said}");
            let events = daemon.get("/api/events?kind=storage");
            let events = events.as_array().expect("a list");
            assert!(events.iter().any(|event| event["detail"].as_str().is_some_and(|text| text.contains(aside))));
            // From here on the log is its own again, and a kill costs nothing.
            daemon.put("/api/config/max-retries", serde_json::json!({ "max_retries": 7 }));
            wait_until("it is in the log", || logs().len() > 4096);
            daemon.kill();
            let daemon = start();
            assert_eq!(daemon.get("/api/config/max-retries")["max_retries"], 7, "{:?}", daemon.log());
            assert_eq!(sent(&daemon), expect, "after a kill");
            assert!(!daemon.log().iter().any(|line| line.contains("set aside")), "{:?}", daemon.log());
            daemon.stop();
            assert_eq!(judge(&there).0, "ok");
            fs::remove_file(aside).expect("it is ours");
        }
    });
}

/// A second one says so, and the first one never notices.
#[test]
fn a_second_instance_is_refused() {
    let dir = Dir::new();
    let there = database(&dir);
    let daemon = Daemon::spawn(command(&there));
    daemon.ticks(1);
    for _ in 0..3 {
        let ended = finish(command(&there));
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        assert!(ended.err.lines().last().is_some_and(|line| line.contains("another net-pulse uses")), "{}", ended.err);
        assert!(!ended.err.contains("http://"), "an address that nobody answers at: {}", ended.err);
    }
    // By another way to the same place.
    let other = dir.join("link");
    std::os::unix::fs::symlink(dir.join("data"), &other).expect("it is ours");
    let ended = finish(command(&format!("{other}/net-pulse.db")));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("another net-pulse uses"), "{}", ended.err);
    daemon.ticks(1);
    assert_eq!(database_status(&daemon), "healthy");
    daemon.stop();
    assert_eq!(judge(&there).0, "ok");
}
