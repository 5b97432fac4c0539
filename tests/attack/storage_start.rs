//! A start with an unusable database. The daemon sets a damaged one aside, begins a new one, and reports it. It leaves
//! alone a file of another program, of a newer version, or without write permission (`storage_rejoin` tests how it
//! continues).

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use crate::common::disk::*;
use crate::common::*;
use net_pulse::clock::Zone;
use net_pulse::config::Config;
use net_pulse::live::ActiveSettings;
use net_pulse::model::{Batch, Counters, Sample, SampleQuality, Tick};
use net_pulse::store::{Options, SaveRequest, Store};
use nix::sys::signal::Signal;
use rusqlite::Connection;

/// 15 January 2026, 0:00 UTC.
const START_UNIX: i64 = 1_768_435_200;
/// Number of samples in the database that `filled` makes.
const FILLED_SAMPLES: u64 = 40 * 29;

fn database(dir: &Dir) -> String {
    dir.join("data/net-pulse.db")
}

fn command(database: &str) -> std::process::Command {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", database, "--interval", "1", "--flush", "1"]);
    command
}

/// Paths and contents of everything below a directory.
fn contents(at: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let Ok(entries) = fs::read_dir(at) else { return all };
    for entry in entries.flatten() {
        let path = entry.path().to_str().expect("a plain path").to_string();
        if entry.path().is_dir() {
            all.push((path.clone(), Vec::new()));
            all.append(&mut contents(&path));
        } else {
            all.push((path.clone(), fs::read(&path).expect("the test runs as root")));
        }
    }
    all.sort();
    all
}

/// Checks that the daemon runs in memory, logs one sentence with these words, and changes no file.
fn assert_left_alone(command: std::process::Command, at: &str, words: &[&str]) {
    let before = contents(at);
    let daemon = Daemon::spawn(command);
    wait_until("health reports the fault", || database_status(&daemon) == "unhealthy");
    daemon.wait_for_ticks(1);
    signal(daemon.pid(), Signal::SIGTERM);
    let (code, log) = daemon.ended_within(Duration::from_secs(3));
    assert_eq!(code, Some(0), "{log:#?}");
    let sentences: Vec<&String> = log.iter().filter(|line| line.contains("the history cannot be opened")).collect();
    assert_eq!(sentences.len(), 1, "{log:#?}");
    words.iter().for_each(|word| assert!(sentences[0].contains(word), "no {word} in: {}", sentences[0]));
    assert_eq!(contents(at), before, "a file was changed");
}

/// Makes a database with a month of history, more than sixty pages.
fn filled(dir: &Dir) -> String {
    filled_at(database(dir))
}

fn filled_at(database: String) -> String {
    let mut opened = Store::open(Path::new(&database), &Options { max_bytes: 32 << 20 }).expect("a new database");
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
            batch.samples.push(Sample { iface, quality: SampleQuality::Plain, span_ms: 21_600_000, delta });
        }
        let mono_ms = 1000 * at * 21_600;
        batch.ticks.push(Tick {
            seq: at + 1,
            mono_ms,
            unix: Some(START_UNIX + 21_600 * at as i64),
            end: batch.samples.len(),
        });
        let zone = Zone::UTC;
        let request = SaveRequest {
            batch: &batch,
            anchors: &[],
            records: &[],
            events: &[],
            settings: &[],
            retention: ActiveSettings::of(&Config::default()).retention,
            zone: &zone,
        };
        opened.store.save(&request).expect("enough disk space");
    }
    drop(opened);
    // A week of samples, and the roll-ups of the whole month.
    assert_eq!(check_with_sqlite(&database), ("ok".to_string(), FILLED_SAMPLES));
    assert!(fs::metadata(&database).expect("the file exists").len() > 60 * 4096, "too small for the damage");
    database
}

#[test]
fn an_unusable_database_is_left_alone() {
    let dir = Dir::new();
    let db_path = database(&dir);
    fs::create_dir_all(&db_path).expect("a file of the test");
    fs::write(format!("{db_path}/inside"), "untouched").expect("a file of the test");
    assert_left_alone(
        command(&db_path),
        dir.path().to_str().expect("a plain path"),
        &[&db_path, "is a directory", "--database"],
    );

    // A text file of another program.
    let at = dir.path().to_str().expect("a plain path");
    let foreign = dir.join("letter.txt");
    fs::write(&foreign, "Dear Ada,\n".repeat(500)).expect("a file of the test");
    assert_left_alone(command(&foreign), at, &[&foreign, "is not a database of net-pulse", "--database"]);
    // The second start leaves it alone, too.
    assert_left_alone(command(&foreign), at, &[&foreign, "is not a database of net-pulse"]);

    let newer = filled_at(dir.join("newer/net-pulse.db"));
    Connection::open(&newer).and_then(|conn| conn.pragma_update(None, "user_version", 97)).expect("a file of the test");
    assert_left_alone(command(&newer), &dir.join("newer"), &[&newer, "schema 97", "knows up to "]);
}

#[test]
fn a_database_without_permission_is_reported() {
    in_namespace(|| {
        let dir = Dir::new();
        let binary = dir.join("net-pulse");
        fs::copy(env!("CARGO_BIN_EXE_net-pulse"), &binary).expect("a copy");
        let forbidden = filled(&dir);
        let mut command = net_pulse(&binary);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &forbidden, "--interval", "1"]);
        command.uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID).current_dir("/");
        assert_left_alone(command, &dir.join("data"), &["ermission denied", &forbidden]);
    });
}

#[test]
fn a_read_only_file_system_is_reported() {
    in_namespace(|| {
        let dir = Dir::new();
        let _disk = small_disk(&dir.join("data"), 4 << 20);
        let db_path = filled(&dir);
        remount(&dir.join("data"), true);
        assert_left_alone(command(&db_path), &dir.join("data"), &["ead-only", &db_path]);
        remount(&dir.join("data"), false);
        let daemon = Daemon::spawn(command(&db_path));
        wait_until("all samples are there again", || stored_samples(&daemon) >= FILLED_SAMPLES);
        daemon.stop();
        remount(&dir.join("data"), true);
        // No file and no directory can be created there either.
        assert_left_alone(command(&dir.join("data/new.db")), &dir.join("data"), &["ead-only"]);
        assert_left_alone(command(&dir.join("data/deeper/new.db")), &dir.join("data"), &["ead-only"]);
    });
}

/// Damages a filled database. The real binary starts all the same, sets the file aside unchanged, reports it in its log
/// and in an event, and saves a history again.
fn assert_set_aside_after(name: &str, damage: impl Fn(&mut Vec<u8>)) {
    let dir = Dir::new();
    let db_path = filled(&dir);
    let mut bytes = fs::read(&db_path).expect("the file exists");
    damage(&mut bytes);
    fs::write(&db_path, &bytes).expect("a file of the test");
    let daemon = Daemon::spawn(command(&db_path));
    daemon.wait_for_ticks(2);
    let log = daemon.log();
    let line = log.iter().find(|line| line.contains("set aside as"));
    let line = line.unwrap_or_else(|| panic!("{name}: not reported: {log:#?}"));
    let aside: Vec<String> = contents(&dir.join("data"))
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.contains(".corrupt-"))
        .collect();
    assert_eq!(aside.len(), 1, "{name}");
    assert!(line.contains(&aside[0]), "{name}: {line}");
    assert_eq!(fs::read(&aside[0]).expect("the file exists"), bytes, "{name}: the damaged file is kept unchanged");
    let events = daemon.get("/api/events");
    assert!(
        events.as_array().expect("a list").iter().any(|event| {
            event["kind"] == "storage" && event["detail"].as_str().is_some_and(|text| text.contains(&aside[0]))
        }),
        "{name}: {events}"
    );
    assert_eq!(database_status(&daemon), "healthy", "{name}");
    daemon.stop();
    let (verdict, _) = check_with_sqlite(&db_path);
    assert_eq!(verdict, "ok", "{name}");
}

#[test]
fn e40_a_damaged_database_is_set_aside() {
    assert_set_aside_after("40 damaged pages", |bytes| bytes[10 * 4096..50 * 4096].fill(0x5a));
    assert_set_aside_after("every other page gone", |bytes| {
        bytes.chunks_mut(4096).skip(1).step_by(2).for_each(|page| page.fill(0));
    });
    assert_set_aside_after("a damaged header", |bytes| bytes[..100].fill(0x5a));
    assert_set_aside_after("a header of zeros", |bytes| bytes[..4096].fill(0));
    assert_set_aside_after("the rest of the first page", |bytes| bytes[16..4096].fill(0xff));
    assert_set_aside_after("cut in half", |bytes| bytes.truncate(bytes.len() / 2 / 4096 * 4096));
    assert_set_aside_after("cut within a page", |bytes| bytes.truncate(4096 * 20 + 1000));
    assert_set_aside_after("cut within the header", |bytes| bytes.truncate(60));
}

#[test]
fn e40_an_empty_file_becomes_a_new_history() {
    let dir = Dir::new();
    let db_path = database(&dir);
    fs::create_dir(dir.join("data")).expect("a file of the test");
    fs::write(&db_path, "").expect("a file of the test");
    let daemon = Daemon::spawn(command(&db_path));
    daemon.wait_for_ticks(1);
    assert!(daemon.log().iter().any(|line| line.contains("empty")), "{:#?}", daemon.log());
    daemon.stop();
    assert_eq!(check_with_sqlite(&db_path).0, "ok");
}

/// Garbage in `-wal` and `-journal` files beside the database has no effect.
#[test]
fn e40_a_stray_log_has_no_effect() {
    for log in [vec![0x5a; 40_000], vec![0; 40_000], b"x".to_vec()] {
        let dir = Dir::new();
        let db_path = filled(&dir);
        for part in ["-wal", "-journal"] {
            fs::write(format!("{db_path}{part}"), &log).expect("a file of the test");
        }
        let daemon = Daemon::spawn(command(&db_path));
        wait_until("all samples are there", || stored_samples(&daemon) >= FILLED_SAMPLES);
        assert!(!daemon.log().iter().any(|line| line.contains("set aside")), "{:#?}", daemon.log());
        daemon.stop();
        assert_eq!(check_with_sqlite(&db_path).0, "ok");
    }
}

/// Saves `count` times, so that the log has data that the database file does not have.
fn save_frames(daemon: &Daemon, count: usize) {
    for _ in 0..count {
        send("wan0", 700, 1);
        daemon.collect();
        let before = stored_samples(daemon);
        signal(daemon.pid(), Signal::SIGHUP);
        wait_until("the ticks are saved", || stored_samples(daemon) > before);
    }
}

fn sent(daemon: &Daemon) -> u64 {
    daemon.interface("wan0")["lifetime_tx_bytes"].as_u64().expect("a number")
}

/// A backup is copied over the database of a killed daemon, whose log is still beside it. The daemon opens the backup,
/// sets the log of the other file aside unchanged, and reports it.
#[test]
fn a_backup_over_the_database_of_a_killed_daemon_is_opened_without_its_log() {
    in_namespace(|| {
        let dir = Dir::new();
        let db_path = database(&dir);
        cable("wan0", "lan0");
        let start = || {
            let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &db_path]);
            command.args(["--interval", "3600", "--flush", "3600"]);
            let daemon = Daemon::spawn(command);
            daemon.get("/health");
            daemon
        };
        let logs = || fs::read(format!("{db_path}-wal")).unwrap_or_default();

        // A copy of the file of a stopped daemon, and a backup from a running one.
        let daemon = start();
        save_frames(&daemon, 5);
        let cold = (sent(&daemon), dir.join("cold.db"));
        daemon.stop();
        fs::copy(&db_path, &cold.1).expect("a copy");
        let daemon = start();
        save_frames(&daemon, 5);
        let warm = (sent(&daemon), dir.join("warm.db"));
        let answer = daemon.request("POST", "/api/backup", None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        fs::write(&warm.1, &answer.body).expect("enough disk space");
        save_frames(&daemon, 20);
        let last = sent(&daemon);
        daemon.kill();
        ip("link del wan0");
        assert!(cold.0 < warm.0 && warm.0 < last && logs().len() > 4096, "{cold:?} {warm:?} {last}");
        let crashed = contents(&dir.join("data"));

        for (expect, copy) in [cold, warm] {
            for (path, bytes) in &crashed {
                fs::write(path, bytes).expect("a file of the test");
            }
            let log = logs();
            fs::copy(&copy, &db_path).expect("a copy");
            let daemon = start();
            assert_eq!(sent(&daemon), expect, "what {copy} has");
            let asides: Vec<(String, Vec<u8>)> =
                contents(&dir.join("data")).into_iter().filter(|(path, _)| path.contains(".foreign-")).collect();
            assert_eq!(asides.len(), 1, "{:?}", daemon.log());
            let (aside, bytes) = &asides[0];
            assert!(aside.starts_with(&format!("{db_path}-wal.")) && *bytes == log, "{aside}");
            let log = daemon.log();
            let log = log.iter().find(|line| line.contains(aside)).unwrap_or_else(|| panic!("not reported: {log:?}"));
            assert!(log.starts_with("error: "), "{log}");
            let events = daemon.get("/api/events?kind=storage");
            let events = events.as_array().expect("a list");
            assert!(events.iter().any(|event| event["detail"].as_str().is_some_and(|text| text.contains(aside))));
            // From here on the log belongs to the database again, and a kill loses nothing.
            daemon.put("/api/config/max-retries", serde_json::json!({ "max_retries": 7 }));
            wait_until("the setting is in the log", || logs().len() > 4096);
            daemon.kill();
            let daemon = start();
            assert_eq!(daemon.get("/api/config/max-retries")["max_retries"], 7, "{:?}", daemon.log());
            assert_eq!(sent(&daemon), expect, "after a kill");
            assert!(!daemon.log().iter().any(|line| line.contains("set aside")), "{:?}", daemon.log());
            daemon.stop();
            assert_eq!(check_with_sqlite(&db_path).0, "ok");
            fs::remove_file(aside).expect("a file of the test");
        }
    });
}

/// A second instance reports the conflict. The first one is not disturbed.
#[test]
fn a_second_instance_is_refused() {
    let dir = Dir::new();
    let db_path = database(&dir);
    let daemon = Daemon::spawn(command(&db_path));
    daemon.wait_for_ticks(1);
    for _ in 0..3 {
        let ended = finish(command(&db_path));
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        assert!(ended.err.lines().last().is_some_and(|line| line.contains("another net-pulse uses")), "{}", ended.err);
        assert!(!ended.err.contains("http://"), "an address without a listener: {}", ended.err);
    }
    // The same file by another path.
    let link = dir.join("link");
    std::os::unix::fs::symlink(dir.join("data"), &link).expect("a file of the test");
    let ended = finish(command(&format!("{link}/net-pulse.db")));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("another net-pulse uses"), "{}", ended.err);
    daemon.wait_for_ticks(1);
    assert_eq!(database_status(&daemon), "healthy");
    daemon.stop();
    assert_eq!(check_with_sqlite(&db_path).0, "ok");
}
