//! Bad disks for the real binary: strace answers its system calls in the kernel's place, small file systems are mounted
//! where only the test's own thread sees them, and what is left on disk is judged by a plain SQLite.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;

use super::{Daemon, Dir, rest, wait_until};

/// While it lives, the calls named are answered as it says.
pub struct Fault {
    strace: Child,
}

impl Fault {
    /// Every write of SQLite: nothing else here writes at a position.
    pub fn on(daemon: &Daemon, what: &str) -> Fault {
        Fault::of(daemon, "pwrite64", what)
    }

    pub fn of(daemon: &Daemon, calls: &str, what: &str) -> Fault {
        Fault::attached(&["-f", "-p", &daemon.pid().to_string()], daemon, "writer", calls, what)
    }

    /// Calls of the main thread, and of no other.
    pub fn of_main(daemon: &Daemon, calls: &str, what: &str) -> Fault {
        Fault::attached(&["-p", &daemon.pid().to_string()], daemon, "net-pulse", calls, what)
    }

    /// Calls of the thread that saves, and of no other.
    pub fn of_writer(daemon: &Daemon, calls: &str, what: &str) -> Fault {
        let writer = daemon.thread("writer").expect("a thread named writer");
        Fault::attached(&["-p", &writer.to_string()], daemon, "writer", calls, what)
    }

    /// Calls of the thread that reads counters, and of no other.
    pub fn of_sampler(daemon: &Daemon, calls: &str, what: &str) -> Fault {
        let sampler = daemon.thread("sampler").expect("a thread named sampler");
        Fault::attached(&["-p", &sampler.to_string()], daemon, "sampler", calls, what)
    }

    /// Calls of the thread that reads history for requests, and of no other.
    pub fn of_reader(daemon: &Daemon, calls: &str, what: &str) -> Fault {
        // It is started by the first request that asks the history.
        wait_until("the history is read", || {
            daemon.get("/api/events");
            daemon.thread("reader").is_some()
        });
        let reader = daemon.thread("reader").expect("just seen");
        Fault::attached(&["-p", &reader.to_string()], daemon, "reader", calls, what)
    }

    /// Calls of the threads that answer and of those that they start, and of no other.
    pub fn of_workers(daemon: &Daemon, calls: &str, what: &str) -> Fault {
        let workers = (1..).map_while(|number| daemon.thread(&format!("http-{number}")));
        let ids: Vec<String> = workers.map(|id| id.to_string()).collect();
        let mut to = vec!["-f"];
        to.extend(ids.iter().flat_map(|id| ["-p", id]));
        Fault::attached(&to, daemon, &format!("http-{}", ids.len()), calls, what)
    }

    /// `thread` is one of those that have to be traced before anything counts.
    fn attached(to: &[&str], daemon: &Daemon, thread: &str, calls: &str, what: &str) -> Fault {
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
        let fault = Fault { strace };
        let thread = daemon.thread(thread).expect("a thread of that name");
        wait_until("strace has attached", || traced(thread.to_string()));
        fault
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets go of the program on the way out, so that a write in its hands ends as it should; but not while it
        // sits out a delay.
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        rest(300);
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// A file system in memory that is full at so many bytes, seen by this thread and its children only. To be used in a
/// namespace; it goes with the value.
pub fn small_disk(at: &str, bytes: usize) -> Mounted {
    fs::create_dir_all(at).expect("it is ours");
    let size = format!("size={bytes}");
    mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("a tmpfs");
    Mounted(at.to_string())
}

/// A directory that something is mounted on cannot be removed.
pub struct Mounted(String);

impl Mounted {
    pub fn at(place: &str) -> Mounted {
        Mounted(place.to_string())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(self.0.as_str(), MntFlags::MNT_DETACH);
    }
}

pub fn remount(at: &str, read_only: bool) {
    let flags = if read_only { MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY } else { MsFlags::MS_REMOUNT };
    // A child of another test holds the descriptors of this process, between its fork and its exec.
    for _ in 0..50 {
        match mount(None::<&str>, at, None::<&str>, flags, None::<&str>) {
            Err(Errno::EBUSY) => rest(20),
            outcome => return outcome.expect("it is mounted"),
        }
    }
    panic!("a file at {at} stays open for writing");
}

/// Takes all the room there is.
pub fn fill(file: &str) {
    use std::io::Write;
    let mut file = fs::File::create(file).expect("an entry still fits");
    while file.write_all(&[1; 4096]).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
}

/// What a SQLite that knows nothing of the program says of a copy, log included: "ok", or what is wrong. The number of
/// samples in it comes along.
pub fn judge(database: &str) -> (String, u64) {
    let dir = Dir::new();
    let copy = dir.join("copy.db");
    for part in ["", "-wal", "-journal"] {
        let from = format!("{database}{part}");
        if Path::new(&from).exists() {
            fs::copy(&from, format!("{copy}{part}")).expect("a copy");
        }
    }
    let ask = || -> rusqlite::Result<(String, u64)> {
        let conn = Connection::open(&copy)?;
        let verdict = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let count = conn.query_row("SELECT coalesce(sum(n), 0) FROM sample", [], |row| row.get::<_, i64>(0))?;
        Ok((verdict, count as u64))
    };
    ask().unwrap_or_else(|error| (error.to_string(), 0))
}

pub fn database_status(daemon: &Daemon) -> String {
    daemon.get("/api/system/health")["database_status"].as_str().unwrap_or_default().to_string()
}

/// What is said to be wrong with the database; empty for nothing.
pub fn database_error(daemon: &Daemon) -> String {
    daemon.get("/api/system/health")["details"]["database"]["error"].as_str().unwrap_or_default().to_string()
}

/// Samples that are on disk, by the program's own word.
pub fn stored(daemon: &Daemon) -> u64 {
    let health = daemon.get("/api/system/health");
    let count = |key: &str| health["details"]["database"][key].as_u64().expect("a number");
    count("traffic_data_records") - count("unsaved_records")
}

pub fn unsaved(daemon: &Daemon) -> u64 {
    let health = daemon.get("/api/system/health");
    health["details"]["database"]["unsaved_records"].as_u64().expect("a number")
}

/// Of a program that may be gone before it has answered. Half an answer is none.
pub fn ask_quietly(daemon: &Daemon, method: &str, path: &str) -> std::io::Result<super::Answer> {
    super::ask(([127, 0, 0, 1], daemon.port()).into(), method, path, "application/json", None)
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("it runs");
}

/// The one child of a wrapper: unshare, strace.
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
    /// Until it is told to go on. The signal alone is no promise: a thread on another processor runs for a while yet.
    pub fn freeze(&self) {
        let pid = self.pid();
        signal(pid, Signal::SIGSTOP);
        wait_until("every thread is stopped", || {
            fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten().all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                status.lines().any(|line| line.starts_with("State:") && line.contains("(stopped)"))
            })
        });
    }

    /// It has ended, and waits for whoever looks after it.
    pub fn is_over(&self) -> bool {
        let pid = self.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status")).unwrap_or_default();
        !status.lines().any(|line| line.starts_with("State:") && !line.contains("(zombie)"))
    }

    /// Its exit code and what it said, if it ends within that time.
    pub fn ended_within(mut self, longest: Duration) -> (Option<i32>, Vec<String>) {
        let started = Instant::now();
        let status = super::wait(&mut self.child, longest);
        let Some(status) = status else { panic!("it runs on after {longest:?}: {:#?}", self.log()) };
        // The last line may still be in the pipe.
        let mut length = usize::MAX;
        while started.elapsed() < longest + Duration::from_secs(1) && self.log().len() != length {
            length = self.log().len();
            rest(50);
        }
        (status.code(), self.log())
    }
}
