//! Bad disks for the real binary: strace injects errors and delays into its system calls, small file systems are
//! mounted in the test's own mount namespace, and a plain SQLite checks the database afterwards.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;

use super::{Daemon, Dir, sleep_ms, wait_until};

/// Injects errors or delays into system calls with strace, until this value is dropped. `what` is in strace's syntax of
/// `inject=`, such as `error=ENOSPC`.
pub struct InjectedFault {
    strace: Child,
}

impl InjectedFault {
    /// Injects into every write of SQLite. Only SQLite uses pwrite64 here.
    pub fn on_sqlite_writes(daemon: &Daemon, what: &str) -> InjectedFault {
        InjectedFault::of(daemon, "pwrite64", what)
    }

    /// Injects into calls of all threads.
    pub fn of(daemon: &Daemon, calls: &str, what: &str) -> InjectedFault {
        InjectedFault::attached(&["-f", "-p", &daemon.pid().to_string()], daemon, "writer", calls, what)
    }

    /// Injects into calls of the main thread only.
    pub fn of_main(daemon: &Daemon, calls: &str, what: &str) -> InjectedFault {
        InjectedFault::attached(&["-p", &daemon.pid().to_string()], daemon, "net-pulse", calls, what)
    }

    /// Injects into calls of the writer's thread only.
    pub fn of_writer(daemon: &Daemon, calls: &str, what: &str) -> InjectedFault {
        let writer = daemon.thread("writer").expect("a thread named writer");
        InjectedFault::attached(&["-p", &writer.to_string()], daemon, "writer", calls, what)
    }

    /// Injects into calls of the sampler's thread only.
    pub fn of_sampler(daemon: &Daemon, calls: &str, what: &str) -> InjectedFault {
        let sampler = daemon.thread("sampler").expect("a thread named sampler");
        InjectedFault::attached(&["-p", &sampler.to_string()], daemon, "sampler", calls, what)
    }

    /// Injects into calls of the thread that reads the database for requests.
    pub fn of_reader(daemon: &Daemon, calls: &str, what: &str) -> InjectedFault {
        // The first request for history starts that thread.
        wait_until("the history is read", || {
            daemon.get("/api/events");
            daemon.thread("reader").is_some()
        });
        let reader = daemon.thread("reader").expect("just seen");
        InjectedFault::attached(&["-p", &reader.to_string()], daemon, "reader", calls, what)
    }

    /// Injects into calls of the HTTP worker threads and the threads that they start.
    pub fn of_workers(daemon: &Daemon, calls: &str, what: &str) -> InjectedFault {
        let workers = (1..).map_while(|number| daemon.thread(&format!("http-{number}")));
        let ids: Vec<String> = workers.map(|id| id.to_string()).collect();
        let mut to = vec!["-f"];
        to.extend(ids.iter().flat_map(|id| ["-p", id]));
        InjectedFault::attached(&to, daemon, &format!("http-{}", ids.len()), calls, what)
    }

    /// Attaches strace with the options `to`, and waits until it traces the thread with the name `thread`.
    fn attached(to: &[&str], daemon: &Daemon, thread: &str, calls: &str, what: &str) -> InjectedFault {
        let pid = daemon.pid();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{what}"));
        let mut strace = Command::new("strace");
        strace.args(["-q", "-o", "/dev/null", "-e", &trace, "-e", &inject]).args(to);
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let strace = strace.spawn().expect("strace starts");
        let traced = |id: String| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{id}/status")).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|id| id.trim() != "0"))
        };
        let fault = InjectedFault { strace };
        let thread = daemon.thread(thread).expect("a thread of that name");
        wait_until("strace has attached", || traced(thread.to_string()));
        fault
    }
}

impl Drop for InjectedFault {
    fn drop(&mut self) {
        // On SIGINT strace detaches, so that an interrupted write completes. It does not react while it delays a call,
        // so it is killed after a while.
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        sleep_ms(300);
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Mounts a tmpfs of `bytes` bytes, for this thread and its children only. Use it in a namespace. It is unmounted when
/// the value is dropped.
pub fn small_disk(at: &str, bytes: usize) -> Mounted {
    fs::create_dir_all(at).expect("a directory of the test");
    let size = format!("size={bytes}");
    mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("a tmpfs");
    Mounted(at.to_string())
}

/// A mount point, unmounted when this value is dropped; otherwise its directory could not be removed.
pub struct Mounted(String);

impl Mounted {
    pub fn at(path: &str) -> Mounted {
        Mounted(path.to_string())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(self.0.as_str(), MntFlags::MNT_DETACH);
    }
}

pub fn remount(at: &str, read_only: bool) {
    let flags = if read_only { MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY } else { MsFlags::MS_REMOUNT };
    // EBUSY: between its fork and its exec, a child of another test still has our descriptors open.
    for _ in 0..50 {
        match mount(None::<&str>, at, None::<&str>, flags, None::<&str>) {
            Err(Errno::EBUSY) => sleep_ms(20),
            result => return result.expect("a mounted file system"),
        }
    }
    panic!("a file at {at} stays open for writing");
}

/// Fills the file system with one file.
pub fn fill(file: &str) {
    use std::io::Write;
    let mut file = fs::File::create(file).expect("space for an empty file");
    while file.write_all(&[1; 4096]).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
}

/// Checks a copy of the database with its WAL or journal, with a plain SQLite. Returns the result of `integrity_check`
/// ("ok" or the error) and the number of samples.
pub fn check_with_sqlite(database: &str) -> (String, u64) {
    let dir = Dir::new();
    let copy = dir.join("copy.db");
    for part in ["", "-wal", "-journal"] {
        let from = format!("{database}{part}");
        if Path::new(&from).exists() {
            fs::copy(&from, format!("{copy}{part}")).expect("a copy");
        }
    }
    let check = || -> rusqlite::Result<(String, u64)> {
        let conn = Connection::open(&copy)?;
        let verdict = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let count = conn.query_row("SELECT coalesce(sum(n), 0) FROM sample", [], |row| row.get::<_, i64>(0))?;
        Ok((verdict, count as u64))
    };
    check().unwrap_or_else(|error| (error.to_string(), 0))
}

pub fn database_status(daemon: &Daemon) -> String {
    daemon.get("/api/system/health")["database_status"].as_str().unwrap_or_default().to_string()
}

/// The database error that `/api/system/health` reports; empty if there is none.
pub fn database_error(daemon: &Daemon) -> String {
    daemon.get("/api/system/health")["details"]["database"]["error"].as_str().unwrap_or_default().to_string()
}

/// Number of samples on disk, as the program reports it.
pub fn stored_samples(daemon: &Daemon) -> u64 {
    let health = daemon.get("/api/system/health");
    let count = |key: &str| health["details"]["database"][key].as_u64().expect("a number");
    count("traffic_data_records") - count("unsaved_records")
}

/// Number of samples not saved yet, as the program reports it.
pub fn unsaved_samples(daemon: &Daemon) -> u64 {
    let health = daemon.get("/api/system/health");
    health["details"]["database"]["unsaved_records"].as_u64().expect("a number")
}

/// Sends a request to a program that may end before it has answered. An incomplete answer is an error.
pub fn try_request(daemon: &Daemon, method: &str, path: &str) -> std::io::Result<super::Answer> {
    super::ask(([127, 0, 0, 1], daemon.port()).into(), method, path, "application/json", None)
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("the program runs");
}

/// The process ID of the only child of a wrapper such as unshare or strace.
pub fn child_of(pid: u32) -> u32 {
    let mut child = None;
    wait_until("the wrapper has a child", || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        child = children.split_whitespace().next().and_then(|id| id.parse().ok());
        child.is_some()
    });
    child.expect("just seen")
}

impl Daemon {
    /// Stops the program with SIGSTOP, and waits until every thread is stopped: one on another processor may run a
    /// little longer.
    pub fn freeze(&self) {
        let pid = self.pid();
        signal(pid, Signal::SIGSTOP);
        wait_until("every thread is stopped", || {
            fs::read_dir(format!("/proc/{pid}/task")).expect("the program runs").flatten().all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                status.lines().any(|line| line.starts_with("State:") && line.contains("(stopped)"))
            })
        });
    }

    /// Whether the program has ended; it may still be a zombie.
    pub fn has_ended(&self) -> bool {
        let pid = self.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status")).unwrap_or_default();
        !status.lines().any(|line| line.starts_with("State:") && !line.contains("(zombie)"))
    }

    /// Waits until the program ends by itself; returns its exit code and log. Fails the test after `longest`.
    pub fn ended_within(mut self, longest: Duration) -> (Option<i32>, Vec<String>) {
        let started = Instant::now();
        let status = super::wait(&mut self.child, longest);
        let Some(status) = status else { panic!("the program still runs after {longest:?}: {:#?}", self.log()) };
        // Wait until the log does not grow any more: the last lines may still be in the pipe.
        let mut length = usize::MAX;
        while started.elapsed() < longest + Duration::from_secs(1) && self.log().len() != length {
            length = self.log().len();
            sleep_ms(50);
        }
        (status.code(), self.log())
    }
}
