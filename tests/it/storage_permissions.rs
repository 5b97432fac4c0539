//! The database's directory is not accessible to the daemon's user. The error names the owner, the user and the
//! remedy.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::common::disk::*;
use crate::common::*;

/// A data directory that the test can give to another user, for a daemon that runs as an unprivileged user.
struct Case {
    dir: Dir,
}

impl Case {
    fn new() -> Case {
        let case = Case { dir: Dir::new() };
        cable("wan0", "lan0");
        send("wan0", 1000, 1);
        fs::set_permissions(case.dir.path(), Permissions::from_mode(0o755)).expect("a directory of the test");
        fs::copy(env!("CARGO_BIN_EXE_net-pulse"), case.dir.join("net-pulse")).expect("a copy");
        fs::create_dir(case.data()).expect("a directory of the test");
        case.chown(UNPRIVILEGED_UID, 0o755);
        case
    }

    fn data(&self) -> String {
        self.dir.join("data")
    }

    fn chown(&self, owner: u32, mode: u32) {
        nix::unistd::chown(Path::new(&self.data()), Some(owner.into()), Some(owner.into()))
            .expect("the test runs as root");
        fs::set_permissions(self.data(), Permissions::from_mode(mode)).expect("the test runs as root");
    }

    fn start(&self) -> Daemon {
        let mut command = net_pulse(&self.dir.join("net-pulse"));
        command.args(["--host", "127.0.0.1", "--port", "0", "--interval", "1", "--flush", "1", "--database"]);
        command
            .arg(format!("{}/net-pulse.db", self.data()))
            .uid(UNPRIVILEGED_UID)
            .gid(UNPRIVILEGED_UID)
            .current_dir("/");
        Daemon::spawn(command)
    }
}

fn wait_for_save(daemon: &Daemon) {
    let before = stored_samples(daemon);
    wait_until("samples are saved", || stored_samples(daemon) > before);
}

#[test]
fn a_directory_taken_from_the_running_daemon_is_reported() {
    in_namespace(|| {
        let case = Case::new();
        let daemon = case.start();
        wait_for_save(&daemon);
        assert_eq!(database_status(&daemon), "healthy");
        case.chown(0, 0o700);
        wait_until("the fault is reported", || database_status(&daemon) == "degraded");
        let (data, error) = (case.data(), database_error(&daemon));
        let expected = format!(
            "{data}/net-pulse.db can no longer be reached, and a restart could not open it: {data} belongs to user 0, \
             and this program runs as user 65534; let user 65534 write there; net-pulse keeps saving until it is restarted"
        );
        assert_eq!(error, expected);
        assert!(daemon.log().iter().any(|line| line.contains(&expected)), "{:#?}", daemon.log());
        wait_for_save(&daemon);
        case.chown(UNPRIVILEGED_UID, 0o755);
        wait_until("the database is healthy again", || database_status(&daemon) == "healthy");
        daemon.stop();
    });
}

#[test]
fn a_directory_of_the_daemons_user_without_write_permission_is_reported() {
    in_namespace(|| {
        let case = Case::new();
        case.chown(UNPRIVILEGED_UID, 0o555);
        let daemon = case.start();
        wait_until("the fault is reported", || database_status(&daemon) == "unhealthy");
        let (data, error) = (case.data(), database_error(&daemon));
        let expected = format!(
            "{data} belongs to user 65534, as which this program runs, but is not writable; run chmod u+rwX {data}"
        );
        assert!(error.contains(&expected), "{error}");
        // The error warns of a power cut only if samples are unsaved, and never says that it would lose "nothing".
        assert!(!error.contains("nothing"), "{error}");
        case.chown(UNPRIVILEGED_UID, 0o755);
        wait_for_save(&daemon);
        daemon.stop();
    });
}
