//! Isolation for attack tests: one test at a time, enough file descriptors, and a process of its own for a test that
//! measures its own process.

use std::any::type_name;
use std::env;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Environment variable that marks the process of a single test.
const ALONE: &str = "NET_PULSE_TEST_ALONE";
/// Enough for thousands of connections, and for the files of other tests that run at the same time.
const DESCRIPTORS: u64 = 8192;

/// A test holds this lock while it attacks: two attacks at once would falsify each other's measurements.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Raises the limit of open files. Never lowers it, because other tests run in the same process.
pub fn raise_descriptor_limit() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if soft < DESCRIPTORS {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS), hard).expect("a higher descriptor limit");
    }
}

/// Whether this test runs in a process of its own. If not, runs the test in a new process, waits for its end and
/// returns false: descriptors, threads, memory and limits of the shared process belong to all running tests.
pub fn in_own_process<Test: Fn()>(_: Test) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let _lock = one_at_a_time();
    // The harness names a test by the path of its function without the crate.
    let (_, name) = type_name::<Test>().split_once("::").expect("a path");
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", name, "--nocapture", "--test-threads", "2"]).env(ALONE, "1").stdin(Stdio::null());
    let output = command.output().expect("the test binary starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{name} in its own process: {text}");
    print!("{text}");
    false
}
