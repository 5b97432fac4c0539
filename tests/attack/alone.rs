//! Room for attacks: one at a time, with descriptors enough, and where a test looks at its own process, in one without
//! any other test.

use std::any::type_name;
use std::env;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Set in the process that one test has to itself.
const ALONE: &str = "NET_PULSE_TEST_ALONE";
/// Thousands of connections, and what else the tests beside have open.
const DESCRIPTORS: u64 = 8192;

/// Two attacks at once would spoil what each of them measures: a test holds this while it attacks.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Never less than before: other tests run in the same process.
pub fn room_for_attackers() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if soft < DESCRIPTORS {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS), hard).expect("room for the attackers");
    }
}

/// Whether this test has a process to itself. In the process of all tests it gives the test one, waits for its end, and
/// says no: descriptors, threads, memory and limits there are those of every test that runs at the time.
pub fn is_alone<Test: Fn()>(_: Test) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let _one = one_at_a_time();
    // As the harness calls it: the path of the function without the crate.
    let (_, name) = type_name::<Test>().split_once("::").expect("a path");
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", name, "--nocapture", "--test-threads", "2"]).env(ALONE, "1").stdin(Stdio::null());
    let output = command.output().expect("it starts once more");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{name} in a process of its own: {said}");
    print!("{said}");
    false
}
