//! A long history of schema 2 under everything that a start can meet: kills at any moment, a disk that is full or nearly so, one
//! that answers nothing, and the end of the program in the middle. What comes of it is always the same history.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::disk::*;
use crate::common::*;
use nix::sys::signal::Signal;
use rusqlite::Connection;

/// What a version of schema 2 has written, some megabytes of it. Rows of tables are rows, wherever in time they are: more are
/// made by copying.
fn older(dir: &Dir, copies: usize) -> String {
    let path = dir.join("older.db");
    fs::copy("tests/history/schema-2.db", &path).expect("it is there");
    let conn = Connection::open(&path).expect("it is ours");
    conn.execute_batch("BEGIN").expect("it is ours");
    for at in 1..=12 * (copies + 1) {
        let back = 864_000 * at;
        let sql = format!(
            "INSERT OR IGNORE INTO sample SELECT first - {back}, last - {back}, 1, n, data FROM sample WHERE first > 1742857200;
             INSERT OR IGNORE INTO five_minutes SELECT start - {back}, data FROM five_minutes WHERE start > 1742857200;
             INSERT OR IGNORE INTO hour SELECT start - {back}, data FROM hour WHERE start > 1742857200;
             INSERT OR IGNORE INTO day SELECT start - {back}, until - {back}, data FROM day WHERE start >= 1742857200;"
        );
        conn.execute_batch(&sql).expect("there is room");
    }
    conn.execute_batch("COMMIT").expect("there is room");
    path
}

/// Of a database that may be in use.
fn copied(path: &str) -> (Dir, Connection) {
    let dir = Dir::new();
    let copy = dir.join("copy.db");
    for part in ["", "-wal", "-journal"] {
        let _ = fs::copy(format!("{path}{part}"), format!("{copy}{part}"));
    }
    let conn = Connection::open(&copy).expect("a database");
    (dir, conn)
}

/// A hash over every row, but for what each opening changes and for what a run that has not saved anything leaves alone.
pub fn content(path: &str) -> u64 {
    let (_dir, conn) = copied(path);
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a word");
    assert_eq!(verdict, "ok");
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take =
        |bytes: &[u8]| bytes.iter().for_each(|byte| hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    for query in [
        "SELECT first, data FROM sample ORDER BY 1",
        "SELECT start, data FROM five_minutes ORDER BY 1",
        "SELECT start, data FROM hour ORDER BY 1",
        "SELECT start, data FROM day ORDER BY 1",
        "SELECT id, tally FROM interface ORDER BY 1",
    ] {
        let mut statement = conn.prepare(query).expect("a table");
        let mut rows = statement.query([]).expect("a table");
        while let Some(row) = rows.next().expect("a row") {
            take(&row.get::<_, i64>(0).expect("a key").to_ne_bytes());
            take(row.get_ref(1).expect("a value").as_blob_or_null().expect("bytes").unwrap_or_default());
        }
    }
    hash
}

/// What the file says, and whether it is half done.
fn version(path: &str) -> (i64, bool) {
    let (_dir, conn) = copied(path);
    let version = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
    let note = "SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'migration')";
    (version, conn.query_row(note, [], |row| row.get(0)).expect("a number"))
}

fn command(database: &str) -> std::process::Command {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    // No link is watched, so that nothing is saved but what the start itself does.
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", database, "--interface", "none0"]);
    command.args(["--interval", "3600", "--flush", "3600"]);
    command
}

fn opened(daemon: &Daemon) {
    wait_until("the history is open", || database_status(daemon) == "healthy" && stored(daemon) > 0);
}

fn names(dir: &str, word: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it is there").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().expect("plain")).collect();
    names.retain(|name| name.contains(word));
    names.sort();
    names
}

/// In a fresh directory, with the older file under its usual name.
fn place(older: &str) -> (Dir, String) {
    let dir = Dir::new();
    let there = dir.join("net-pulse.db");
    fs::copy(older, &there).expect("a copy");
    (dir, there)
}

#[test]
fn killed_while_it_migrates_it_goes_on_and_comes_to_the_same_end() {
    in_namespace(|| {
        let dir = Dir::new();
        let older = older(&dir, 6);
        let (_keep, there) = place(&older);
        let began = Instant::now();
        let daemon = Daemon::spawn(command(&there));
        opened(&daemon);
        let whole = began.elapsed();
        daemon.stop();
        let expect = content(&there);
        assert!(matches!(version(&there), (3.., false)));
        assert_ne!(content(&older), expect);

        let (mut half, mut before, mut after) = (0, 0, 0);
        let began = Instant::now();
        for life in 0..60 {
            if began.elapsed() > Duration::from_secs(10) {
                break;
            }
            let (dir, there) = place(&older);
            let mut child = command(&there).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            thread::sleep(whole.mul_f64((f64::from(life) * 0.618).fract()));
            child.kill().expect("it runs");
            child.wait().expect("a child of ours");
            match version(&there) {
                (2, _) => before += 1,
                (_, true) => half += 1,
                _ => after += 1,
            }
            let daemon = Daemon::spawn(command(&there));
            opened(&daemon);
            let log = daemon.stop();
            assert_eq!(content(&there), expect, "life {life}: {log:#?}");
            let at = dir.path().to_str().expect("plain");
            let kept = names(at, ".schema-2");
            assert!((1..=2).contains(&kept.len()), "{kept:?}");
            for name in kept {
                assert_eq!(content(&dir.join(&name)), content(&older), "life {life}: {name}");
            }
            assert_eq!(names(at, ".keeping"), [""; 0]);
        }
        println!("killed {before} times before it, {half} within, {after} after; a whole start takes {whole:?}");
        assert!(half > 0, "no kill was within it");
    });
}

/// Counted on a file that is nearly as large as it may be, with all that a start does: no more than a small one takes.
#[test]
fn a_large_file_takes_no_more_memory_than_a_small_one() {
    in_namespace(|| {
        let peak = |copies: usize| {
            let dir = Dir::new();
            let (_keep, there) = place(&older(&dir, copies));
            let length = fs::metadata(&there).expect("it is there").len();
            let daemon = Daemon::spawn(command(&there));
            opened(&daemon);
            let peak = daemon.peak();
            daemon.stop();
            (length, peak)
        };
        let (small, large) = (peak(0), peak(14));
        println!("bytes of the file and of memory at the peak: {small:?} and {large:?}");
        assert!(large.0 > 4 * small.0, "{small:?} {large:?}");
        assert!(large.1 < small.1 + (1 << 20), "{small:?} {large:?}");
    });
}

/// The copy leaves as much room as the history takes. Where there is less it is done without, and told.
#[test]
fn on_a_small_disk_there_is_a_copy_or_a_word() {
    in_namespace(|| {
        let dir = Dir::new();
        let older = older(&dir, 0);
        let length = fs::metadata(&older).expect("it is there").len() as usize;
        let expect = {
            let (_keep, there) = place(&older);
            let daemon = Daemon::spawn(command(&there));
            opened(&daemon);
            daemon.stop();
            content(&there)
        };
        for (room, kept) in [(3 * length + (3 << 20), 1), (2 * length + (1 << 20), 0), (length + (600 << 10), 0)] {
            let at = dir.join("small");
            let _disk = small_disk(&at, room);
            let there = format!("{at}/net-pulse.db");
            fs::copy(&older, &there).expect("it fits");
            let daemon = Daemon::spawn(command(&there));
            opened(&daemon);
            assert_eq!(names(&at, ".schema-2").len(), kept, "{room} bytes");
            let word = if kept == 1 { "is kept as" } else { "no copy of the old file" };
            let events = daemon.get("/api/events?kind=storage");
            let told = events[0]["detail"].as_str().unwrap_or_default().to_string();
            assert!(told.contains("from schema 2 to ") && told.contains(word), "{events}");
            let log = daemon.stop();
            assert_eq!(log.iter().filter(|line| line.contains(word)).count(), 1, "{log:#?}");
            assert_eq!(content(&there), expect);
        }
    });
}

/// Not even the log fits: nothing is changed, and the history is open once there is room.
#[test]
fn on_a_full_disk_it_waits_for_room() {
    in_namespace(|| {
        let dir = Dir::new();
        let older = older(&dir, 0);
        let at = dir.join("full");
        let length = fs::metadata(&older).expect("it is there").len() as usize;
        let _disk = small_disk(&at, length + (2 << 20));
        let there = format!("{at}/net-pulse.db");
        fs::copy(&older, &there).expect("it fits");
        let before = content(&there);
        // What the guard needs is there already.
        fs::write(format!("{there}.guard"), "").expect("it fits");
        let filler = format!("{at}/filler");
        fill(&filler);
        let daemon = Daemon::spawn(command(&there));
        wait_until("it is said", || database_status(&daemon) != "healthy");
        assert!(database_error(&daemon).contains("full"), "{}", database_error(&daemon));
        assert_eq!((content(&there), version(&there).0, names(&at, ".schema-2").len()), (before, 2, 0));
        fs::remove_file(&filler).expect("it is ours");
        wait_until_within("it is open", Duration::from_secs(30), || {
            signal(daemon.pid(), Signal::SIGHUP);
            rest(100);
            database_status(&daemon) == "healthy"
        });
        daemon.stop();
        assert!(matches!(version(&there), (3.., false)));
    });
}

/// There is room for some pages of the log at a time: it takes more turns, and comes to its end.
#[test]
fn on_a_disk_that_is_nearly_full_it_comes_to_its_end() {
    in_namespace(|| {
        let dir = Dir::new();
        let older = older(&dir, 2);
        let at = dir.join("nearly");
        let length = fs::metadata(&older).expect("it is there").len() as usize;
        let _disk = small_disk(&at, length + (3 << 20));
        let there = format!("{at}/net-pulse.db");
        fs::copy(&older, &there).expect("it fits");
        let filler = format!("{at}/filler");
        fill(&filler);
        let file = fs::OpenOptions::new().write(true).open(&filler).expect("it is ours");
        let filled = file.metadata().expect("it is open").len();
        file.set_len(filled - (96 << 10)).expect("it shrinks");
        let daemon = Daemon::spawn(command(&there));
        wait_until_within("it is open", Duration::from_secs(20), || matches!(version(&there), (3.., false)));
        assert_eq!(names(&at, ".schema-2").len(), 0, "there is no room for a copy");
        daemon.stop();
    });
}

/// A slow disk: the start goes on without it, and so does the end.
#[test]
fn a_start_and_an_end_wait_for_no_migration() {
    if !strace_is_there() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let older = older(&dir, 2);
        let (_keep, there) = place(&older);
        // The daemon is the child, strace a process beside it.
        let mut slow = net_pulse("strace");
        slow.args([
            "-D",
            "-f",
            "-q",
            "-o",
            "/dev/null",
            "-e",
            "trace=pwrite64",
            "-e",
            "inject=pwrite64:delay_enter=20000",
        ]);
        let inner = command(&there);
        slow.arg(inner.get_program()).args(inner.get_args());
        let began = Instant::now();
        let daemon = Daemon::spawn(slow);
        assert!(began.elapsed() < Duration::from_secs(8), "it listens: {:?}", began.elapsed());
        assert_eq!(daemon.request("GET", "/health", None).status, 200);
        assert_ne!(database_status(&daemon), "healthy");
        let ended = Instant::now();
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, log) = daemon.ended_within(Duration::from_secs(4));
        assert_eq!(code, Some(0), "{log:#?}");
        println!("it ended {:?} after the signal", ended.elapsed());
        let daemon = Daemon::spawn(command(&there));
        opened(&daemon);
        daemon.stop();
        assert!(matches!(version(&there), (3.., false)));
    });
}
