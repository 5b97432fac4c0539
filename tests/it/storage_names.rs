//! Where the database and the files beside it may be, and what may already exist under their names.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::common::disk::*;
use crate::common::*;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

fn command(database: &str) -> Command {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", database, "--interval", "1", "--flush", "1"]);
    command
}

fn assert_saves(daemon: &Daemon) {
    let before = stored_samples(daemon);
    wait_until("samples are saved", || stored_samples(daemon) > before);
    assert_eq!((database_status(daemon), database_error(daemon)), ("healthy".to_string(), String::new()));
}

#[test]
fn the_database_is_created_behind_a_link_to_a_missing_file() {
    let dir = Dir::new();
    let at = |name: &str| dir.join(name);
    symlink("far/relative-target.db", at("relative.db")).expect("a file of the test");
    symlink(at("absolute-target.db"), at("absolute.db")).expect("a file of the test");
    symlink(at("second.db"), at("first.db")).expect("a file of the test");
    symlink("far/chain-target.db", at("second.db")).expect("a file of the test");
    symlink("not/yet", at("directory")).expect("a file of the test");
    for (link, target) in [
        ("relative.db", "far/relative-target.db"),
        ("absolute.db", "absolute-target.db"),
        ("first.db", "far/chain-target.db"),
        ("directory/net-pulse.db", "not/yet/net-pulse.db"),
    ] {
        for start in ["first", "second"] {
            let daemon = Daemon::spawn(command(&at(link)));
            assert_saves(&daemon);
            assert!(fs::symlink_metadata(at(target)).is_ok_and(|found| found.is_file()), "{start} at {link}");
            assert!(Path::new(&at(&format!("{target}.guard"))).exists(), "the guard file is beside the database");
            assert!(!Path::new(&at(&format!("{link}.guard"))).exists() || link.starts_with("directory"));
            let second = finish(command(&at(target)));
            assert_eq!(second.code, Some(1), "{link}: {}", second.err);
            daemon.stop();
        }
        assert_eq!(check_with_sqlite(&at(target)).0, "ok");
    }

    symlink("b.db", at("a.db")).expect("a file of the test");
    symlink("a.db", at("b.db")).expect("a file of the test");
    let daemon = Daemon::spawn(command(&at("a.db")));
    wait_until("the fault is reported", || database_status(&daemon) == "degraded");
    let error = database_error(&daemon);
    assert!(error.contains(&at("a.db")) && error.contains("symbolic links"), "{error}");
    // After the repair the daemon uses the file.
    fs::remove_file(at("a.db")).expect("a file of the test");
    signal(daemon.pid(), Signal::SIGHUP);
    assert_saves(&daemon);
    daemon.stop();
    assert_eq!(check_with_sqlite(&at("a.db")).0, "ok");
}

/// If the path of the guard file leads to something else, the error says what it is. The daemon leaves that unchanged,
/// and writes nothing through it.
#[test]
fn a_guard_file_of_another_type_is_named_in_the_error() {
    let dir = Dir::new();
    let (file, guard, target) = (dir.join("net-pulse.db"), dir.join("net-pulse.db.guard"), dir.join("target"));
    type Make<'a> = (&'a str, &'a dyn Fn());
    let makes: [Make; 6] = [
        ("is a directory", &|| fs::create_dir(&guard).expect("a file of the test")),
        ("is a FIFO", &|| mkfifo(guard.as_str(), Mode::S_IRUSR | Mode::S_IWUSR).expect("a file of the test")),
        ("is a symbolic link", &|| symlink(&target, &guard).expect("a file of the test")),
        ("is a socket", &|| drop(std::os::unix::net::UnixListener::bind(&guard).expect("a file of the test"))),
        // A link to an existing file: nothing may be written to it.
        ("is a symbolic link", &|| {
            fs::write(&target, "somebody else's").expect("a file of the test");
            symlink(&target, &guard).expect("a file of the test");
        }),
        ("has another name too", &|| fs::hard_link(&target, &guard).expect("a file of the test")),
    ];
    for (words, make) in makes {
        make();
        let daemon = Daemon::spawn(command(&file));
        wait_until("the fault is reported", || database_status(&daemon) == "unhealthy");
        let error = database_error(&daemon);
        assert!(error.contains(&guard) && error.contains(words) && error.contains("remove it"), "{error}");
        assert!(!Path::new(&file).exists());
        assert_eq!(fs::read(&target).unwrap_or_default().len(), if Path::new(&target).exists() { 15 } else { 0 });
        let again = fs::symlink_metadata(&guard).expect("the daemon leaves it there");
        if again.is_dir() { fs::remove_dir(&guard) } else { fs::remove_file(&guard) }.expect("a file of the test");
        signal(daemon.pid(), Signal::SIGHUP);
        assert_saves(&daemon);
        daemon.stop();
        [&file, &guard].iter().for_each(|name| fs::remove_file(name).expect("a file of the test"));
    }
}

#[test]
fn a_directory_in_the_way_of_a_copy_is_named_in_the_error() {
    let dir = Dir::new();
    let (file, backup, anew) =
        (dir.join("net-pulse.db"), dir.join("net-pulse.db.backup"), dir.join("net-pulse.db.anew"));
    for name in [&backup, &anew] {
        fs::create_dir(name).expect("a file of the test");
        fs::write(format!("{name}/inside"), "untouched").expect("a file of the test");
    }
    let daemon = Daemon::spawn(command(&file));
    assert_saves(&daemon);
    let answer = daemon.request("POST", "/api/backup", None);
    assert!((500..600).contains(&answer.status), "{}", answer.status);
    assert!(answer.text().contains(&format!("{backup} is a directory")), "{}", answer.text());
    fs::remove_file(&file).expect("a file of the test");
    wait_until("the fault is reported", || database_error(&daemon).contains(&format!("{anew} is a directory")));
    fs::remove_dir_all(&anew).expect("a file of the test");
    signal(daemon.pid(), Signal::SIGHUP);
    assert_saves(&daemon);
    fs::remove_dir_all(&backup).expect("a file of the test");
    assert_eq!(daemon.request("POST", "/api/backup", None).status, 200);
    daemon.stop();
    assert_eq!(check_with_sqlite(&file).0, "ok");
}

#[test]
fn a_name_that_is_not_utf_8_is_refused() {
    let dir = Dir::new();
    let odd = OsString::from_vec([dir.path().as_os_str().as_encoded_bytes(), b"/\xff\xfe.db"].concat());
    let refuses = |mut command: Command, words: &str| {
        let ended = finish({
            command.args(["--host", "127.0.0.1", "--port", "0"]);
            command
        });
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains(words) && !ended.err.contains("panicked"), "{words}: {}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    };
    let new = || net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    for argument in ["--database", "--timezone", "--interface"] {
        let mut command = new();
        command.arg(argument).arg(&odd);
        refuses(command, "argument 2 is not UTF-8");
    }
    for name in ["NETPULSE_DATABASE", "NETPULSE_PORT", "NETPULSE_UNITS", "HOME", "XDG_STATE_HOME"] {
        let mut command = new();
        command.env(name, &odd);
        refuses(command, &format!("{name} is not UTF-8"));
    }
    fs::create_dir(&odd).expect("file names need not be UTF-8");
    let mut command = new();
    command.current_dir(&odd).args(["--database", "net-pulse.db"]);
    refuses(command, "the current directory is not UTF-8");
    // Variables of other programs are not checked.
    let mut command = new();
    command.env("LESS", &odd).arg("--version");
    assert_eq!(finish(command).code, Some(0));
    assert_eq!(fs::read_dir(&odd).expect("the directory exists").count(), 0);
    // The path of the link is UTF-8, its target is not.
    let link = dir.join("link.db");
    let target = OsString::from_vec([odd.as_encoded_bytes(), b"/net-pulse.db"].concat());
    symlink(&target, &link).expect("a file of the test");
    let daemon = Daemon::spawn(self::command(&link));
    wait_until("the fault is reported", || database_error(&daemon).contains("not valid UTF-8"));
    daemon.stop();
    assert_eq!(fs::read_dir(&odd).expect("the directory exists").count(), 0);
}
