//! A long history of schema 2 under everything that can happen during a start: kills at any moment, a full or nearly
//! full disk, a disk that is slow, and a shutdown in the middle. The result is always the same history.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::disk::*;
use crate::common::*;
use nix::sys::signal::Signal;
use rusqlite::Connection;

/// Makes a database of schema 2 with some megabytes: copies the rows of a small one to earlier times. A larger `copies`
/// makes a larger file.
fn make_older(dir: &Dir, copies: usize) -> String {
    let path = dir.join("older.db");
    fs::copy("tests/history/schema-2.db", &path).expect("the file exists");
    let conn = Connection::open(&path).expect("a file of the test");
    conn.execute_batch("BEGIN").expect("a file of the test");
    for at in 1..=12 * (copies + 1) {
        let back = 864_000 * at;
        let sql = format!(
            "INSERT OR IGNORE INTO sample SELECT first - {back}, last - {back}, 1, n, data FROM sample WHERE first > 1742857200;
             INSERT OR IGNORE INTO five_minutes SELECT start - {back}, data FROM five_minutes WHERE start > 1742857200;
             INSERT OR IGNORE INTO hour SELECT start - {back}, data FROM hour WHERE start > 1742857200;
             INSERT OR IGNORE INTO day SELECT start - {back}, until - {back}, data FROM day WHERE start >= 1742857200;"
        );
        conn.execute_batch(&sql).expect("enough disk space");
    }
    conn.execute_batch("COMMIT").expect("enough disk space");
    path
}

/// Copies a database that may be in use, and opens the copy.
fn copied(path: &str) -> (Dir, Connection) {
    let dir = Dir::new();
    let copy = dir.join("copy.db");
    for part in ["", "-wal", "-journal"] {
        let _ = fs::copy(format!("{path}{part}"), format!("{copy}{part}"));
    }
    let conn = Connection::open(&copy).expect("a database");
    (dir, conn)
}

/// Hash over the samples, the cells and the totals. Leaves out what every opening changes, and what a run that saves
/// nothing does not touch.
pub fn content_hash(path: &str) -> u64 {
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

/// The schema version of the file, and whether a migration is unfinished.
fn version(path: &str) -> (i64, bool) {
    let (_dir, conn) = copied(path);
    let version = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
    let note = "SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'migration')";
    (version, conn.query_row(note, [], |row| row.get(0)).expect("a number"))
}

fn command(database: &str) -> std::process::Command {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    // No link matches, so only the start itself writes to the database.
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", database, "--interface", "none0"]);
    command.args(["--interval", "3600", "--flush", "3600"]);
    command
}

fn wait_until_open(daemon: &Daemon) {
    wait_until("the history is open", || database_status(daemon) == "healthy" && stored_samples(daemon) > 0);
}

fn names_with(dir: &str, word: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the directory exists").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().expect("a plain name")).collect();
    names.retain(|name| name.contains(word));
    names.sort();
    names
}

/// Copies the older file into a new directory, under the usual name.
fn copy_to_new_dir(older: &str) -> (Dir, String) {
    let dir = Dir::new();
    let database = dir.join("net-pulse.db");
    fs::copy(older, &database).expect("a copy");
    (dir, database)
}

#[test]
fn a_migration_that_is_killed_continues_to_the_same_result() {
    in_namespace(|| {
        let dir = Dir::new();
        let older = make_older(&dir, 6);
        let (_dir, database) = copy_to_new_dir(&older);
        let began = Instant::now();
        let daemon = Daemon::spawn(command(&database));
        wait_until_open(&daemon);
        let whole = began.elapsed();
        daemon.stop();
        let expect = content_hash(&database);
        assert!(matches!(version(&database), (3.., false)));
        assert_ne!(content_hash(&older), expect);

        let (mut half, mut before, mut after) = (0, 0, 0);
        let began = Instant::now();
        for run in 0..60 {
            if began.elapsed() > Duration::from_secs(10) {
                break;
            }
            let (dir, database) = copy_to_new_dir(&older);
            let mut child =
                command(&database).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
            thread::sleep(whole.mul_f64((f64::from(run) * 0.618).fract()));
            child.kill().expect("the daemon runs");
            child.wait().expect("a child of the test");
            match version(&database) {
                (2, _) => before += 1,
                (_, true) => half += 1,
                _ => after += 1,
            }
            let daemon = Daemon::spawn(command(&database));
            wait_until_open(&daemon);
            let log = daemon.stop();
            assert_eq!(content_hash(&database), expect, "run {run}: {log:#?}");
            let at = dir.path().to_str().expect("a plain path");
            let kept = names_with(at, ".schema-2");
            assert!((1..=2).contains(&kept.len()), "{kept:?}");
            for name in kept {
                assert_eq!(content_hash(&dir.join(&name)), content_hash(&older), "run {run}: {name}");
            }
            assert_eq!(names_with(at, ".keeping"), [""; 0]);
        }
        println!(
            "kills: {before} before the migration, {half} during it, {after} after it; a whole start takes {whole:?}"
        );
        assert!(half > 0, "no kill came during the migration");
    });
}

/// The peak memory of a whole start is at most 1 MiB higher with a file of 24 MB than with one of 2 MB.
#[test]
fn a_large_file_takes_no_more_memory_than_a_small_one() {
    in_namespace(|| {
        let peak = |copies: usize| {
            let dir = Dir::new();
            let (_dir, database) = copy_to_new_dir(&make_older(&dir, copies));
            let length = fs::metadata(&database).expect("the file exists").len();
            let daemon = Daemon::spawn(command(&database));
            wait_until_open(&daemon);
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

/// The daemon keeps a copy only if at least as much space stays free as the history takes. Otherwise it makes no copy
/// and reports that.
#[test]
fn a_small_disk_gets_a_copy_or_a_message() {
    in_namespace(|| {
        let dir = Dir::new();
        let older = make_older(&dir, 0);
        let length = fs::metadata(&older).expect("the file exists").len() as usize;
        let expect = {
            let (_dir, database) = copy_to_new_dir(&older);
            let daemon = Daemon::spawn(command(&database));
            wait_until_open(&daemon);
            daemon.stop();
            content_hash(&database)
        };
        for (disk_bytes, copies) in
            [(3 * length + (3 << 20), 1), (2 * length + (1 << 20), 0), (length + (600 << 10), 0)]
        {
            let at = dir.join("small");
            let _disk = small_disk(&at, disk_bytes);
            let database = format!("{at}/net-pulse.db");
            fs::copy(&older, &database).expect("enough disk space");
            let daemon = Daemon::spawn(command(&database));
            wait_until_open(&daemon);
            assert_eq!(names_with(&at, ".schema-2").len(), copies, "{disk_bytes} bytes");
            let message = if copies == 1 { "is kept as" } else { "no copy of the old file" };
            let events = daemon.get("/api/events?kind=storage");
            let detail = events[0]["detail"].as_str().unwrap_or_default().to_string();
            assert!(detail.contains("from schema 2 to ") && detail.contains(message), "{events}");
            let log = daemon.stop();
            assert_eq!(log.iter().filter(|line| line.contains(message)).count(), 1, "{log:#?}");
            assert_eq!(content_hash(&database), expect);
        }
    });
}

/// Not even the log fits on the disk: the daemon changes nothing, and opens the history once there is space.
#[test]
fn on_a_full_disk_a_migration_waits_for_space() {
    in_namespace(|| {
        let dir = Dir::new();
        let older = make_older(&dir, 0);
        let at = dir.join("full");
        let length = fs::metadata(&older).expect("the file exists").len() as usize;
        let _disk = small_disk(&at, length + (2 << 20));
        let database = format!("{at}/net-pulse.db");
        fs::copy(&older, &database).expect("enough disk space");
        let before = content_hash(&database);
        // The guard file exists already, because the full disk has no space for it.
        fs::write(format!("{database}.guard"), "").expect("enough disk space");
        let filler = format!("{at}/filler");
        fill(&filler);
        let daemon = Daemon::spawn(command(&database));
        wait_until("health reports the fault", || database_status(&daemon) != "healthy");
        assert!(database_error(&daemon).contains("full"), "{}", database_error(&daemon));
        assert_eq!((content_hash(&database), version(&database).0, names_with(&at, ".schema-2").len()), (before, 2, 0));
        fs::remove_file(&filler).expect("a file of the test");
        wait_until_within("the history is open", Duration::from_secs(30), || {
            signal(daemon.pid(), Signal::SIGHUP);
            sleep_ms(100);
            database_status(&daemon) == "healthy"
        });
        daemon.stop();
        assert!(matches!(version(&database), (3.., false)));
    });
}

/// The disk has space for some pages of the log at a time: the migration takes more transactions, and completes.
#[test]
fn a_migration_completes_on_a_nearly_full_disk() {
    in_namespace(|| {
        let dir = Dir::new();
        let older = make_older(&dir, 2);
        let at = dir.join("nearly");
        let length = fs::metadata(&older).expect("the file exists").len() as usize;
        let _disk = small_disk(&at, length + (3 << 20));
        let database = format!("{at}/net-pulse.db");
        fs::copy(&older, &database).expect("enough disk space");
        let filler = format!("{at}/filler");
        fill(&filler);
        let file = fs::OpenOptions::new().write(true).open(&filler).expect("a file of the test");
        let filled = file.metadata().expect("a file of the test").len();
        file.set_len(filled - (96 << 10)).expect("the file shrinks");
        let daemon = Daemon::spawn(command(&database));
        wait_until_within("the history is open", Duration::from_secs(20), || {
            matches!(version(&database), (3.., false))
        });
        assert_eq!(names_with(&at, ".schema-2").len(), 0, "there is no space for a copy");
        daemon.stop();
    });
}

/// A slow disk: the start continues without the migration, and the shutdown does not wait for it.
#[test]
fn start_and_shutdown_do_not_wait_for_a_migration() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        let older = make_older(&dir, 2);
        let (_dir, database) = copy_to_new_dir(&older);
        // With -D the daemon is the child of the test, and strace runs beside it.
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
        let daemon_command = command(&database);
        slow.arg(daemon_command.get_program()).args(daemon_command.get_args());
        let began = Instant::now();
        let daemon = Daemon::spawn(slow);
        assert!(began.elapsed() < Duration::from_secs(8), "it listened after {:?}", began.elapsed());
        assert_eq!(daemon.request("GET", "/health", None).status, 200);
        assert_ne!(database_status(&daemon), "healthy");
        let ended = Instant::now();
        signal(daemon.pid(), Signal::SIGTERM);
        let (code, log) = daemon.ended_within(Duration::from_secs(4));
        assert_eq!(code, Some(0), "{log:#?}");
        println!("the daemon ended {:?} after the signal", ended.elapsed());
        let daemon = Daemon::spawn(command(&database));
        wait_until_open(&daemon);
        daemon.stop();
        assert!(matches!(version(&database), (3.., false)));
    });
}
