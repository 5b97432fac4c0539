//! The database is removed, renamed or replaced while the daemon runs. Saving to the open file would still succeed, but
//! the next start would not find that file. So the daemon must notice this, report it, and keep the history that still
//! exists. It leaves unchanged what was put in the place of the database.

use std::fs;
use std::path::Path;

use crate::common::disk::*;
use crate::common::*;
use nix::mount::{MsFlags, mount};
use rusqlite::Connection;
use serde_json::Value;

const FLAGS: [&str; 4] = ["--interval", "1", "--flush", "1"];

/// A daemon with some history on disk, in a directory below the test's own.
struct Case {
    daemon: Option<Daemon>,
    /// A mount on the directory. Declared before `dir`, because a directory with a mount on it cannot be removed.
    _mounted: Option<Mounted>,
    dir: Dir,
    file: String,
    /// The kernel's counters before the first sample.
    base: Counters,
}

fn start(file: &str) -> Daemon {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", file]).args(FLAGS);
    Daemon::spawn(command)
}

/// Sends traffic, and waits until it is counted and saved.
fn send_and_save(daemon: &Daemon, frames: usize) {
    send("wan0", 1000, frames);
    daemon.collect();
    let before = stored_samples(daemon);
    wait_until("samples are saved", || unsaved_samples(daemon) == 0 || stored_samples(daemon) > before);
}

impl Case {
    fn begin(dir: Dir) -> Case {
        Case::begin_on(None, dir)
    }

    /// Starts a daemon with its database in the directory `data`, on which the caller may have mounted something.
    fn begin_on(mounted: Option<Mounted>, dir: Dir) -> Case {
        cable("wan0", "lan0");
        send("wan0", 1000, 1);
        let file = dir.join("data/net-pulse.db");
        let daemon = start(&file);
        daemon.wait_for_ticks(1);
        let base = minus(kernel_counters("wan0"), daemon.exported_sum("wan0"));
        for frames in 1..4 {
            send_and_save(&daemon, frames);
        }
        Case { daemon: Some(daemon), _mounted: mounted, dir, file, base }
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon runs")
    }

    /// All rows, once they are on disk.
    fn rows(&self) -> Vec<Value> {
        let rows = self.daemon().export("wan0");
        wait_until("all rows are saved", || unsaved_samples(self.daemon()) == 0);
        rows
    }

    /// Checks that every row of `before` still exists unchanged.
    fn assert_unchanged(&self, before: &[Value]) {
        let after = self.daemon().export("wan0");
        let other = before.iter().zip(&after).find(|(before, after)| before != after);
        let log = self.daemon().log();
        assert!(
            other.is_none() && before.len() <= after.len(),
            "{} of {}: {other:?} {log:#?}",
            after.len(),
            before.len()
        );
    }

    /// Waits for a log line with all these words.
    fn wait_for_log(&self, words: &[&str]) -> String {
        let mut found = None;
        wait_until(&format!("{words:?} in {:#?}", self.daemon().log()), || {
            let log = self.daemon().log();
            found = log.into_iter().find(|line| words.iter().all(|word| line.contains(word)));
            found.is_some()
        });
        found.expect("just seen")
    }

    /// Kills the daemon, so that it cannot repair anything at its end, and starts it again. Checks that every earlier
    /// row still exists, and that every byte is counted once.
    fn assert_kept_after_kill(&mut self) {
        send_and_save(self.daemon(), 5);
        wait_until("the database is healthy", || database_status(self.daemon()) == "healthy");
        let before = self.rows();
        self.daemon.take().expect("the daemon runs").kill();
        assert_eq!(check_with_sqlite(&self.file).0, "ok");
        send("wan0", 1000, 7);
        let daemon = self.daemon.insert(start(&self.file));
        daemon.wait_for_ticks(1);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), minus(kernel_counters("wan0"), self.base), "{:#?}", daemon.log());
        assert!(!daemon.log().iter().any(|line| line.contains("set aside")), "{:#?}", daemon.log());
        self.assert_unchanged(&before);
    }

    fn end(mut self) {
        self.daemon.take().expect("the daemon runs").stop();
        assert_eq!(check_with_sqlite(&self.file).0, "ok");
        ip("link del wan0");
        let left: Vec<String> = names(&self.dir.join("data"));
        assert!(left.iter().all(|name| !name.ends_with(".anew") && !name.ends_with("-journal")), "{left:?}");
    }
}

fn names(at: &str) -> Vec<String> {
    let names = fs::read_dir(at).expect("a directory of the test").flatten().map(|entry| entry.file_name());
    names.map(|name| name.into_string().expect("a UTF-8 name")).collect()
}

fn remove(file: &str) {
    fs::remove_file(file).unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// Loses the database in several ways, one after the other, on one file system.
fn lose_in_every_way(mut case: Case) {
    let file = case.file.clone();
    let before = case.rows();

    remove(&file);
    case.wait_for_log(&["error", &file, "was removed or renamed", "now in"]);
    case.assert_kept_after_kill();

    ["", "-wal", ".guard"].iter().for_each(|part| remove(&format!("{file}{part}")));
    case.wait_for_log(&["error", &file, "was removed or renamed", "now in"]);
    case.assert_kept_after_kill();
    // The recreated guard file keeps out a second net-pulse.
    let mut second = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    second.args(["--host", "127.0.0.1", "--port", "0", "--database", &file]);
    assert_eq!(finish(second).code, Some(1));

    remove(&format!("{file}-wal"));
    case.wait_for_log(&["error", &file, "has lost its log", "now in"]);
    case.assert_kept_after_kill();

    let moved = case.dir.join("data/moved.db");
    let stored_before = stored_samples(case.daemon());
    fs::rename(&file, &moved).expect("the same file system");
    case.wait_for_log(&["error", &file, "was removed or renamed", "now in"]);
    let (verdict, samples) = check_with_sqlite(&moved);
    assert!(
        verdict == "ok" && samples >= stored_before,
        "the renamed file has its samples: {verdict}, {samples} of {stored_before}"
    );
    case.assert_kept_after_kill();
    remove(&moved);

    case.assert_unchanged(&before);
    let events = case.daemon().get("/api/events?kind=storage");
    assert_eq!(events.as_array().expect("a list").len(), 4, "{events}");
    case.end();
}

#[test]
fn a_removed_or_renamed_database_is_recreated() {
    in_namespace(|| lose_in_every_way(Case::begin(Dir::new())));
}

#[test]
fn a_database_removed_from_an_overlay_is_recreated() {
    in_namespace(|| {
        let dir = Dir::new();
        let [disk, data] = ["disk", "data"].map(|name| dir.join(name));
        fs::create_dir(&data).expect("a file of the test");
        // The layers need a file system of their own: if /tmp is an overlay, it cannot hold the upper layer of a second
        // overlay.
        let under = small_disk(&disk, 8 << 20);
        for name in ["lower", "upper", "work"] {
            fs::create_dir(format!("{disk}/{name}")).expect("a file of the test");
        }
        // The file is in the lower layer at first. A write copies it up.
        let lower = format!("{disk}/lower/net-pulse.db");
        start(&lower).stop();
        fs::remove_file(format!("{lower}.guard")).expect("a file of the test");
        let layers = format!("lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work");
        let options = Some(layers.as_str());
        if let Err(error) = mount(Some("none"), data.as_str(), Some("overlay"), MsFlags::empty(), options) {
            drop(under);
            return skip(&format!("no overlay: {error}"));
        }
        // Detaches the mount at once. The file system exists for as long as the overlay uses it.
        drop(under);
        lose_in_every_way(Case::begin_on(Some(Mounted::at(&data)), dir));
    });
}

#[test]
fn a_database_removed_from_a_bind_mount_is_recreated() {
    in_namespace(|| {
        let dir = Dir::new();
        let [real, data] = ["real", "data"].map(|name| dir.join(name));
        [&real, &data].iter().for_each(|name| fs::create_dir(name).expect("a file of the test"));
        mount(Some(real.as_str()), data.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("the test runs as root");
        let mut case = Case::begin_on(Some(Mounted::at(&data)), dir);
        remove(&case.file);
        case.wait_for_log(&["error", "was removed or renamed", "now in"]);
        case.assert_kept_after_kill();
        case.end();
    });
}

#[test]
fn a_removed_or_renamed_directory_is_recreated() {
    in_namespace(|| {
        let mut case = Case::begin(Dir::new());
        let data = case.dir.join("data");
        fs::remove_dir_all(&data).expect("a file of the test");
        case.wait_for_log(&["error", "was removed or renamed", "now in"]);
        case.assert_kept_after_kill();
        fs::rename(&data, case.dir.join("elsewhere")).expect("a file of the test");
        case.wait_for_log(&["error", "was removed or renamed", "now in"]);
        case.assert_kept_after_kill();
        assert_eq!(check_with_sqlite(&case.dir.join("elsewhere/net-pulse.db")).0, "ok");
        case.end();
    });
}

/// An easy mistake: a backup is put in place of the database without stopping the daemon. No data of either is lost.
#[test]
fn a_file_put_in_place_of_the_database_is_left_unchanged() {
    in_namespace(|| {
        let mut case = Case::begin(Dir::new());
        let (file, backup) = (case.file.clone(), case.dir.join("backup.db"));
        let backup_rows = case.rows();
        let answer = case.daemon().request("POST", "/api/backup", None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        fs::write(&backup, &answer.body).expect("enough space");
        send_and_save(case.daemon(), 4);
        fs::rename(&backup, &file).expect("the same file system");

        let line = case.wait_for_log(&["error", &file, "was replaced by another file", "now in"]);
        let aside = names(&case.dir.join("data")).into_iter().find(|name| name.contains(".replaced-"));
        let aside = case.dir.join(&format!("data/{}", aside.expect("a file of that name").trim_end_matches("-wal")));
        assert!(line.contains(&aside), "{line}");
        send_and_save(case.daemon(), 5);
        assert_eq!(unsaved_samples(case.daemon()), 0);
        assert_eq!(database_status(case.daemon()), "degraded");
        let error = database_error(case.daemon());
        assert!(error.contains(&aside) && error.contains("restart net-pulse"), "{error}");
        // A backup still works.
        let copy = case.daemon().request("POST", "/api/backup", None);
        assert_eq!(copy.status, 200, "{}", copy.text());
        let before = case.rows();
        case.daemon().wait_for_ticks(1);
        case.daemon.take().expect("the daemon runs").kill();
        assert_eq!(fs::read(&file).expect("the file exists"), answer.body, "byte for byte");

        // After the restart, the daemon uses the file that was put there, and continues from the counters stored in it.
        let daemon = case.daemon.insert(start(&file));
        daemon.wait_for_ticks(1);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), minus(kernel_counters("wan0"), case.base));
        assert!(!daemon.log().iter().any(|line| line.contains("set aside")), "{:#?}", daemon.log());
        case.assert_unchanged(&backup_rows);
        case.daemon.take().expect("the daemon runs").stop();
        // The other file has everything that was counted in between.
        case.daemon = Some(start(&aside));
        case.assert_unchanged(&before);
        case.end();
    });
}

/// `cp` instead of `mv`: the inode stays, and the old content is lost. The daemon leaves the new content unchanged.
#[test]
fn a_file_copied_over_the_database_is_left_unchanged() {
    in_namespace(|| {
        let mut case = Case::begin(Dir::new());
        let file = case.file.clone();
        let backup_rows = case.rows();
        let answer = case.daemon().request("POST", "/api/backup", None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        for end in ["kill", "stop"] {
            send_and_save(case.daemon(), 4);
            fs::write(&file, &answer.body).expect("enough space");
            case.wait_for_log(&["error", &file, "was overwritten", "aside as", ".foreign-"]);
            wait_until("the fault is reported", || database_status(case.daemon()) == "degraded");
            let error = database_error(case.daemon());
            assert!(error.contains("was overwritten") && error.contains("restart net-pulse"), "{error}");
            send("wan0", 1000, 2);
            case.daemon().collect();
            assert!(case.daemon().get("/api/traffic/latest").is_array(), "answered from memory");
            if end == "stop" {
                let refused = case.daemon().request("POST", "/api/backup", None).status;
                assert!(refused >= 500, "{refused}");
            }
            let daemon = case.daemon.take().expect("the daemon runs");
            if end == "kill" {
                daemon.kill()
            } else {
                drop(daemon.stop())
            }
            assert_eq!(fs::read(&file).expect("the file exists"), answer.body, "byte for byte, after a {end}");
            let daemon = case.daemon.insert(start(&file));
            daemon.wait_for_ticks(1);
            daemon.collect();
            assert_eq!(daemon.exported_sum("wan0"), minus(kernel_counters("wan0"), case.base), "{:#?}", daemon.log());
            case.assert_unchanged(&backup_rows);
            let asides = names(&case.dir.join("data")).into_iter().filter(|name| name.contains(".foreign-"));
            asides.for_each(|name| remove(&case.dir.join(&format!("data/{name}"))));
        }
        case.end();
    });
}

/// As in `a_file_put_in_place_of_the_database_is_left_unchanged`, for a file that is not a database.
#[test]
fn a_foreign_file_in_place_of_the_database_is_left_unchanged() {
    in_namespace(|| {
        let mut case = Case::begin(Dir::new());
        let file = case.file.clone();
        fs::remove_file(&file).expect("a file of the test");
        fs::write(&file, "Dear Ada,\n").expect("a file of the test");
        case.wait_for_log(&["error", &file, "now in"]);
        send_and_save(case.daemon(), 4);
        case.daemon.take().expect("the daemon runs").stop();
        assert_eq!(fs::read(&file).expect("the file exists"), b"Dear Ada,\n");
        remove(&file);
        let data = case.dir.join("data");
        let aside = names(&data).into_iter().find(|name| name.contains(".replaced-")).expect("a file of that name");
        assert!(!aside.ends_with("-wal"), "the file was not closed cleanly: {:?}", names(&data));
        // Moved back by hand, the file is the history again.
        fs::rename(format!("{data}/{aside}"), &file).expect("a file of the test");
        case.daemon = Some(start(&file));
        case.daemon().wait_for_ticks(1);
        case.assert_kept_after_kill();
        case.end();
    });
}

/// The database is moved and a link put in its place. At the next start, SQLite would look for the write-ahead log
/// beside the target of the link.
#[test]
fn a_link_in_place_of_the_database_loses_nothing() {
    in_namespace(|| {
        let mut case = Case::begin(Dir::new());
        let (before, file, moved) = (case.rows(), case.file.clone(), case.dir.join("data/moved.db"));
        fs::rename(&file, &moved).expect("a file of the test");
        std::os::unix::fs::symlink("moved.db", &file).expect("a file of the test");
        case.wait_for_log(&["error", &file, "was replaced by another file", "net-pulse.db.replaced-"]);
        case.daemon.take().expect("the daemon runs").kill();
        case.daemon = Some(start(&file));
        case.daemon().wait_for_ticks(1);
        case.daemon().collect();
        case.assert_unchanged(&before);
        assert_eq!(case.daemon().exported_sum("wan0"), minus(kernel_counters("wan0"), case.base));
        case.daemon.take().expect("the daemon runs").stop();
    });
}

/// The path in the settings is a link. The daemon also checks where it leads.
#[test]
fn a_link_that_no_longer_leads_to_the_database_is_reported() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        send("wan0", 1000, 1);
        let (link, real) = (dir.join("net-pulse.db"), dir.join("real.db"));
        std::os::unix::fs::symlink("real.db", &link).expect("a file of the test");
        let daemon = start(&link);
        send_and_save(&daemon, 3);
        assert_eq!(database_status(&daemon), "healthy");
        remove(&link);
        wait_until("the fault is reported", || database_status(&daemon) == "degraded");
        let expected = format!("{link} no longer leads to the database: net-pulse saves to {real}");
        assert!(database_error(&daemon).contains(&expected), "{}", database_error(&daemon));
        assert!(daemon.log().iter().any(|line| line.contains(&expected)), "{:#?}", daemon.log());
        std::os::unix::fs::symlink("real.db", &link).expect("a file of the test");
        wait_until("the database is healthy again", || database_status(&daemon) == "healthy");
        daemon.stop();
    });
}

/// There is no space for a second copy of the history: the daemon reports that and tries again. The test injects the
/// error, because on a disk that is really full, a checkpoint may free enough space.
#[test]
fn a_full_disk_delays_recreation_and_loses_nothing() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let mut case = Case::begin(Dir::new());
        let fault = InjectedFault::on_sqlite_writes(case.daemon(), "error=ENOSPC");
        remove(&case.file);
        wait_until("the fault is reported", || database_error(case.daemon()).contains("was removed or renamed"));
        let error = database_error(case.daemon());
        assert!(error.contains("full"), "{error}");
        assert_eq!(database_status(case.daemon()), "degraded");
        assert!(!Path::new(&case.file).exists());
        send("wan0", 1000, 6);
        case.daemon().wait_for_ticks(2);
        drop(fault);
        case.wait_for_log(&["error", "now in", &case.file]);
        case.assert_kept_after_kill();
        case.end();
    });
}

/// Readers and copies never open a file that another program has put there: SQLite would apply our write-ahead log to
/// it.
#[test]
fn a_copy_is_never_made_of_another_file() {
    in_namespace(|| {
        let dir = Dir::new();
        let file = dir.join("data/net-pulse.db");
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &file, "--interval", "1"]);
        // No save happens in between, except the one that a backup requests.
        let daemon = {
            command.args(["--flush", "3600"]);
            Daemon::spawn(command)
        };
        daemon.wait_for_ticks(1);
        let other = dir.join("other.db");
        Connection::open(&other).and_then(|conn| conn.execute_batch("CREATE TABLE a (b)")).expect("a database");
        let bytes = fs::read(&other).expect("the file exists");
        fs::rename(&other, &file).expect("the same file system");
        let copy = daemon.request("POST", "/api/backup", None);
        assert_eq!(copy.status, 200, "{}", copy.text());
        assert!(copy.body.windows(9).any(|word| word == b"interface") && copy.body.len() > bytes.len());
        assert_eq!(fs::read(&file).expect("the file exists"), bytes);
        daemon.stop();
        assert_eq!(fs::read(&file).expect("the file exists"), bytes);
    });
}

/// The last save notices the loss. The shutdown waits for the new file as for any save.
#[test]
fn a_database_removed_before_the_end_is_recreated_at_the_end() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let mut case = Case::begin(Dir::new());
        let (before, base, file) = (case.rows(), case.base, case.file.clone());
        case.daemon.take().expect("the daemon runs").stop();
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &file, "--interval", "1", "--flush", "3600"]);
        let daemon = Daemon::spawn(command);
        daemon.wait_for_ticks(1);
        // The fsync of the new file and that of its directory take one second together.
        let fault = InjectedFault::of(&daemon, "fsync", "delay_enter=500000:when=1..2");
        fs::remove_file(&file).expect("a file of the test");
        send("wan0", 1000, 9);
        let log = daemon.stop();
        drop(fault);
        assert!(log.iter().any(|line| line.contains("was removed or renamed")), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("unsaved")), "{log:#?}");
        case.daemon = Some(start(&file));
        case.assert_unchanged(&before);
        case.daemon().collect();
        assert_eq!(case.daemon().exported_sum("wan0"), minus(kernel_counters("wan0"), base));
        case.end();
    });
}
