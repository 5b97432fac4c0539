//! The database's directory is not accessible to the daemon's user. The error names the owner, the user and the
//! remedy.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::common::disk::*;
use crate::common::*;

const NOBODY: u32 = 65_534;

/// A directory that the test can give to another user, and a daemon that runs as an unprivileged user.
struct Case {
    dir: Dir,
}

impl Case {
    fn new() -> Case {
        let case = Case { dir: Dir::new() };
        cable("wan0", "lan0");
        send("wan0", 1000, 1);
        fs::set_permissions(case.dir.path(), Permissions::from_mode(0o755)).expect("it is ours");
        fs::copy(env!("CARGO_BIN_EXE_net-pulse"), case.dir.join("net-pulse")).expect("a copy");
        fs::create_dir(case.data()).expect("it is ours");
        case.chown(NOBODY, 0o755);
        case
    }

    fn data(&self) -> String {
        self.dir.join("data")
    }

    fn chown(&self, owner: u32, mode: u32) {
        nix::unistd::chown(Path::new(&self.data()), Some(owner.into()), Some(owner.into())).expect("root may");
        fs::set_permissions(self.data(), Permissions::from_mode(mode)).expect("root may");
    }

    fn start(&self) -> Daemon {
        let mut command = net_pulse(&self.dir.join("net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--interval", "1", "--flush", "1", "--database"]);
        command.arg(format!("{}/net-pulse.db", self.data())).uid(NOBODY).gid(NOBODY).current_dir("/");
        Daemon::spawn(command)
    }
}

fn saves(daemon: &Daemon) {
    let before = stored(daemon);
    wait_until("it is saved", || stored(daemon) > before);
}

#[test]
fn a_directory_taken_from_the_running_daemon_is_reported() {
    in_namespace(|| {
        let case = Case::new();
        let daemon = case.start();
        saves(&daemon);
        assert_eq!(database_status(&daemon), "healthy");
        case.chown(0, 0o700);
        wait_until("it is reported", || database_status(&daemon) == "degraded");
        let (data, error) = (case.data(), database_error(&daemon));
        let expected = format!(
            "{data}/net-pulse.db can no longer be reached, and a restart could not open it: {data} belongs to user 0, \
             and net-pulse runs as user 65534; let user 65534 write there; until then net-pulse keeps saving"
        );
        assert_eq!(error, expected);
        assert!(daemon.log().iter().any(|line| line.contains(&expected)), "{:#?}", daemon.log());
        saves(&daemon);
        case.chown(NOBODY, 0o755);
        wait_until("it is healthy again", || database_status(&daemon) == "healthy");
        daemon.stop();
    });
}

#[test]
fn its_own_directory_without_write_permission_is_reported() {
    in_namespace(|| {
        let case = Case::new();
        case.chown(NOBODY, 0o555);
        let daemon = case.start();
        wait_until("it is reported", || database_status(&daemon) == "unhealthy");
        let (data, error) = (case.data(), database_error(&daemon));
        let expected = format!(
            "{data} belongs to user 65534, as which net-pulse runs, but is not writable; run chmod u+rwX {data}"
        );
        assert!(error.contains(&expected), "{error}");
        // The error does not warn of a power cut, because nothing would be lost.
        assert!(!error.contains("nothing"), "{error}");
        case.chown(NOBODY, 0o755);
        saves(&daemon);
        daemon.stop();
    });
}
