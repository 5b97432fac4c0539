//! The real binary with a wrong wall clock, while real traffic passes: the machine boots in the wrong year and the
//! clock is corrected later, the clock is stepped, the machine is suspended, and the daemon is restarted and killed in
//! between. The history must contain every byte of the kernel counters exactly once, with the true time wherever the
//! clock was corrected before the daemon had to trust it.
//!
//! The clocks of this machine are never changed. A preloaded library adds offsets from a file to the wall clock and the
//! boot clock that the C library returns. A simulated suspend moves both clocks, so the tests need not wait for many
//! minutes until the daemon trusts a doubtful clock. A time namespace of the kernel can shift the boot clock, but not
//! the wall clock. `tests/it/clock_attacks.rs` tests longer sequences of such events on a simulated machine.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::common::disk::{check_with_sqlite, child_of, signal, stored_samples};
use crate::common::*;
use net_pulse::clock::{BUILD_FLOOR, Zone, parse_time, rfc3339};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");
const FAST: [&str; 6] = ["--interval", "1", "--flush", "1", "--timezone", "UTC0"];
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
/// True time at the beginning of each test: long after the build, and independent of the day on which the test runs.
const NOON: i64 = BUILD_FLOOR + 100 * DAY + 12 * HOUR;
/// Wall clocks that boards start with, in UTC seconds: 20 s after the beginning of 1970, a time in 2033, and one beyond
/// 31 bits.
const WRONG_BOOT_CLOCKS: [i64; 3] = [20, 1_996_300_000, 2_210_000_000];

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *shift;

__attribute__((constructor)) static void map_shifts(void) {
    const char *name = getenv("CLOCK_SHIFT");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *at = mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED)
        shift = at;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int outcome = syscall(SYS_clock_gettime, clock, now);
    if (outcome == 0 && shift && clock == CLOCK_REALTIME)
        now->tv_sec += shift[0];
    if (outcome == 0 && shift && clock == CLOCK_BOOTTIME)
        now->tv_sec += shift[1];
    return outcome;
}
"#;

/// A simulated machine in its own namespace: links, a boot id and two clocks. The daemon starts and stops on it.
struct Machine {
    dir: Dir,
    /// The file that the library maps: the offsets of wall clock and boot clock, in seconds. `wall` and `boot` hold the
    /// same numbers.
    shifts: File,
    wall: i64,
    boot: i64,
    /// True time of the test minus the wall clock of the computer that runs it, in seconds.
    truth: i64,
    boots: u32,
    /// Sums of the kernel counters over earlier boots, for each end of the cable.
    before: [Counters; 2],
    /// Times in UTC seconds, each with the bytes that wan0 had sent until then.
    marks: Vec<(i64, u64)>,
    began: i64,
    frames: usize,
}

const ENDS: [&str; 2] = ["wan0", "lan0"];

impl Machine {
    /// Returns a machine that is not yet booted. Where the clocks cannot be shifted, reports a skipped test and returns
    /// `None`.
    fn new() -> Option<Machine> {
        if cfg!(not(target_env = "gnu")) {
            skip("the binary is linked statically: its clocks cannot be shifted");
            return None;
        }
        let dir = Dir::new();
        let (source, library) = (dir.join("shift.c"), dir.join("shift.so"));
        fs::write(&source, LIBRARY).expect("a file of the test");
        let made =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o", &library, &source]).stdin(Stdio::null()).output();
        match made {
            Err(error) => {
                skip(&format!("cc: {error}: the clocks cannot be shifted"));
                return None;
            }
            Ok(made) => assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr)),
        }
        fs::write(dir.join("shifts"), [0; 16]).expect("a file of the test");
        // Never truncated: the daemon has mapped the file.
        let shifts = OpenOptions::new().write(true).open(dir.join("shifts")).expect("a file of the test");
        let truth = NOON - real_wall();
        let (before, marks) = ([[0; 8]; 2], Vec::new());
        Some(Machine { dir, shifts, wall: truth, boot: 0, truth, boots: 0, before, marks, began: NOON, frames: 0 })
    }

    /// A new boot: another boot id, counters from zero, a boot clock at 20 s, and `wall` as the wall clock.
    fn boot(&mut self, wall: i64) {
        if self.boots > 0 {
            self.before = self.total_counters();
            ip("link delete wan0");
        }
        self.boots += 1;
        new_boot(&self.dir, self.boots);
        cable(ENDS[0], ENDS[1]);
        (self.wall, self.boot) = (wall - real_wall(), 20 - real_boot());
        self.write_shifts();
    }

    fn write_shifts(&self) {
        let both = [self.wall.to_ne_bytes(), self.boot.to_ne_bytes()].concat();
        self.shifts.write_all_at(&both, 0).expect("a file of the test");
    }

    fn truth(&self) -> i64 {
        real_wall() + self.truth
    }

    /// Advances the true time and both clocks, as a suspend does.
    fn advance(&mut self, seconds: i64) {
        (self.wall, self.boot, self.truth) = (self.wall + seconds, self.boot + seconds, self.truth + seconds);
        self.write_shifts();
    }

    fn step(&mut self, seconds: i64) {
        self.wall += seconds;
        self.write_shifts();
    }

    fn correct_clock(&mut self) {
        self.wall = self.truth;
        self.write_shifts();
    }

    fn start(&self) -> Daemon {
        let mut command = net_pulse(BINARY);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &self.dir.join("net-pulse.db")]).args(FAST);
        command.env("LD_PRELOAD", self.dir.join("shift.so")).env("CLOCK_SHIFT", self.dir.join("shifts"));
        let daemon = Daemon::spawn(command);
        daemon.get("/health");
        daemon
    }

    /// Sums of the kernel counters over all boots, for each end of the cable.
    fn total_counters(&self) -> [Counters; 2] {
        std::array::from_fn(|at| plus(self.before[at], kernel_counters(ENDS[at])))
    }

    /// Sends a different amount each time.
    fn send(&mut self) {
        self.frames += 1;
        send("wan0", 700, self.frames);
        send("lan0", 90, 2 * self.frames);
    }

    /// Sends over several ticks.
    fn traffic(&mut self, daemon: &Daemon) {
        for _ in 0..3 {
            self.send();
            daemon.wait_for_ticks(1);
        }
    }

    /// Remembers the true time and the bytes sent so far. Later traffic gets a later time.
    fn mark(&mut self, daemon: &Daemon) {
        daemon.collect();
        self.marks.push((self.truth(), self.total_counters()[0][1]));
        sleep_ms(1100);
    }

    fn check(&self, daemon: &Daemon, when: &str) {
        daemon.collect();
        let now = self.truth();
        for (name, expect) in ENDS.iter().zip(self.total_counters()) {
            let why = || format!("{name} {when}: {COUNTERS:?}; {:#?}", daemon.log());
            assert_eq!(daemon.exported_sum(name), expect, "{}", why());
            let facts = daemon.interface(name);
            let lifetime = ["lifetime_rx_bytes", "lifetime_tx_bytes"].map(|key| facts[key].as_u64());
            assert_eq!(lifetime, [Some(expect[0]), Some(expect[1])], "{}", why());
            let rows = sent_samples(daemon, name);
            for (unix, _) in &rows {
                let in_range = (self.began - 5..=now + 5).contains(unix);
                assert!(
                    in_range,
                    "the sample of {} is outside of the test, which is at {}: {}",
                    rfc3339(*unix),
                    rfc3339(now),
                    why()
                );
            }
            for by in ["day", "month"] {
                assert_eq!(totals(daemon, name, by), expect[..2], "by {by}: {}", why());
            }
        }
        let rows = sent_samples(daemon, "wan0");
        for (mark, expect) in &self.marks {
            let sum: u64 = rows.iter().filter(|(unix, _)| unix <= mark).map(|(_, sent)| sent).sum();
            assert_eq!(sum, *expect, "sent until {} {when}: {rows:?}; {:#?}", rfc3339(*mark), daemon.log());
        }
        assert!(!daemon.log().iter().any(|line| line.contains("panicked")), "{:#?}", daemon.log());
    }

    /// Checks everything now, and again after a restart from the stored history alone.
    fn end(self, daemon: Daemon) {
        self.check(&daemon, "at the end");
        daemon.stop();
        let daemon = self.start();
        self.check(&daemon, "from the disk");
        daemon.stop();
        assert_eq!(check_with_sqlite(&self.dir.join("net-pulse.db")).0, "ok");
    }
}

/// Changes the boot id that this thread and its children read.
fn new_boot(dir: &Dir, number: u32) {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    let file = dir.join("boot_id");
    let mounted = Path::new(&file).exists();
    fs::write(&file, format!("00000000-0000-4000-8000-{number:012}\n")).expect("a file of the test");
    if !mounted {
        mount(Some(file.as_str()), BOOT_ID, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a mount");
    }
}

fn real_wall() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() as i64)
}

fn real_boot() -> i64 {
    let text = fs::read_to_string("/proc/uptime").expect("procfs");
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).expect("a number")
}

/// Time (UTC seconds) and sent bytes of each sample.
fn sent_samples(daemon: &Daemon, name: &str) -> Vec<(i64, u64)> {
    let rows = daemon.export(name);
    let time = |row: &Value| parse_time(row["timestamp"].as_str().unwrap_or_default(), &Zone::UTC);
    rows.iter().map(|row| (time(row).expect("a time"), counters_of(row)[1])).collect()
}

fn totals(daemon: &Daemon, name: &str, by: &str) -> [u64; 2] {
    let from = NOON - DAY;
    let answer = daemon.get(&format!("/api/traffic/totals?interface={name}&by={by}&from={from}"));
    let rows = answer.as_array().or_else(|| answer.as_object()?.values().find_map(Value::as_array)).expect("a list");
    ["rx_bytes", "tx_bytes"].map(|key| rows.iter().map(|row| row[key].as_u64().expect("a number")).sum())
}

fn trusted(daemon: &Daemon) -> bool {
    daemon.get("/api/system/health")["details"]["clock"]["believed"] == true
}

/// Details of the events of one kind, oldest first.
fn events(daemon: &Daemon, kind: &str) -> Vec<String> {
    let all = daemon.get("/api/events?limit=200");
    let matching = all.as_array().expect("a list").iter().rev().filter(|event| event["kind"] == kind);
    matching.map(|event| event["detail"].as_str().expect("text").to_string()).collect()
}

/// Reported clock steps in seconds, negative for a step back. The figure may be wrong by one second.
fn steps(daemon: &Daemon) -> Vec<i64> {
    let seconds = |detail: String| {
        let (_, rest) = detail.split_once("the clock was set ").expect("a step");
        let (direction, rest) = rest.split_once(" by ").expect("a step");
        let seconds: i64 = rest.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        if direction == "back" { -seconds } else { seconds }
    };
    events(daemon, "clock_step").into_iter().map(seconds).collect()
}

#[track_caller]
fn assert_steps(daemon: &Daemon, expect: &[i64]) {
    let reported = steps(daemon);
    let matches =
        reported.len() == expect.len() && reported.iter().zip(expect).all(|(one, other)| (one - other).abs() <= 3);
    assert!(matches, "reported {reported:?}, expected {expect:?}: {:#?}", daemon.log());
}

/// Three boots with a wrong clock. Before each the machine is off for a while; `wrong` computes the wall clock from the
/// true time. If not `fresh`, a boot with the right clock comes first and makes a history.
fn boots_with_wrong_clock(fresh: bool, wrong: impl Fn(i64) -> i64 + Send + Sync) {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        if !fresh {
            machine.boot(machine.truth());
            let daemon = machine.start();
            machine.traffic(&daemon);
            assert!(trusted(&daemon));
            machine.mark(&daemon);
            daemon.stop();
        }
        for meanwhile in ["nothing", "SIGTERM", "SIGKILL"] {
            machine.advance(5 * MINUTE);
            machine.boot(wrong(machine.truth()));
            let off = machine.wall - machine.truth;
            if machine.boots > 1 {
                // Traffic before the daemon starts. The daemon counts it on every boot but the very first, where the
                // first reading is the baseline.
                machine.send();
            }
            let mut daemon = machine.start();
            machine.traffic(&daemon);
            assert!(!trusted(&daemon), "a clock that is {off} s off is trusted");
            match meanwhile {
                "SIGTERM" => {
                    let log = daemon.stop().join("\n");
                    assert!(log.contains("stay unsaved (the clock has not been set yet)"), "{log}");
                    machine.send();
                    daemon = machine.start();
                }
                "SIGKILL" => {
                    daemon.kill();
                    machine.send();
                    daemon = machine.start();
                }
                _ => {}
            }
            machine.traffic(&daemon);
            // Still not trusted: no sample may get the wrong time.
            assert!(!trusted(&daemon), "a clock that is {off} s off is trusted");
            let reported = steps(&daemon).len();
            machine.mark(&daemon);
            machine.correct_clock();
            wait_until("the clock is trusted", || trusted(&daemon));
            machine.traffic(&daemon);
            machine.mark(&daemon);
            machine.check(&daemon, meanwhile);
            let all = steps(&daemon);
            assert!(all.len() == reported + 1 && (all[reported] + off).abs() <= 3, "reported {all:?}, off by {off}");
            daemon.stop();
        }
        let daemon = machine.start();
        machine.end(daemon);
    });
}

#[test]
fn e20_boots_in_1970() {
    boots_with_wrong_clock(true, |_| WRONG_BOOT_CLOCKS[0]);
}

#[test]
fn e20_boots_in_2033() {
    boots_with_wrong_clock(true, |_| WRONG_BOOT_CLOCKS[1]);
}

#[test]
fn e20_boots_past_2038() {
    boots_with_wrong_clock(true, |_| WRONG_BOOT_CLOCKS[2]);
}

#[test]
fn e20_boots_nine_hours_behind() {
    boots_with_wrong_clock(false, |truth| truth - 9 * HOUR);
}

#[test]
fn e22_steps_that_are_taken_back_leave_no_wrong_times() {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        machine.boot(machine.truth());
        let mut daemon = machine.start();
        machine.traffic(&daemon);
        machine.mark(&daemon);
        let mut expected = Vec::new();
        for (step, restart) in [(-HOUR, false), (8 * YEAR, false), (-8 * YEAR, false), (8 * YEAR, true), (-HOUR, true)]
        {
            machine.step(step);
            daemon.wait_for_ticks(1);
            machine.traffic(&daemon);
            assert!(!trusted(&daemon), "a step of {step} s is trusted at once");
            if !restart {
                machine.mark(&daemon);
            } else {
                // The next daemon counts the unsaved traffic as a gap that ends at its start.
                daemon.kill();
                machine.send();
                daemon = machine.start();
                daemon.wait_for_ticks(1);
                assert!(!trusted(&daemon), "a step of {step} s is trusted after a restart");
            }
            machine.step(-step);
            wait_until("the clock is trusted", || trusted(&daemon));
            machine.traffic(&daemon);
            machine.mark(&daemon);
            expected.extend([step, -step]);
            machine.check(&daemon, &format!("after {step} s and back"));
            // The next daemon reports a step again if the kill lost its event.
            assert_steps(&daemon, &expected);
        }
        machine.end(daemon);
    });
}

#[test]
fn e22_steps_that_stay() {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        machine.boot(machine.truth());
        let mut daemon = machine.start();
        machine.traffic(&daemon);
        machine.mark(&daemon);
        // The step corrects a clock that was an hour behind from the beginning.
        machine.step(HOUR);
        machine.truth += HOUR;
        daemon.wait_for_ticks(1);
        assert!(trusted(&daemon), "an hour forward");
        machine.traffic(&daemon);
        machine.mark(&daemon);
        machine.check(&daemon, "an hour forward");
        assert_steps(&daemon, &[HOUR]);
        // An hour back: the samples of this hour lie beside samples that are stored already.
        machine.step(-HOUR);
        machine.truth -= HOUR;
        machine.marks.clear();
        machine.began -= HOUR;
        machine.traffic(&daemon);
        assert!(!trusted(&daemon), "an hour back");
        daemon.kill();
        machine.send();
        daemon = machine.start();
        machine.traffic(&daemon);
        assert!(!trusted(&daemon), "an hour back");
        machine.advance(11 * MINUTE);
        wait_until("the clock is trusted", || trusted(&daemon));
        machine.traffic(&daemon);
        // The samples of the wrong hour lie in the future: allow one hour more.
        machine.truth += HOUR;
        machine.check(&daemon, "an hour back");
        assert_steps(&daemon, &[HOUR, -HOUR]);
        machine.end(daemon);
    });
}

#[test]
fn e21_a_clock_that_is_never_set_is_trusted_in_the_end() {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        machine.boot(WRONG_BOOT_CLOCKS[0]);
        let daemon = machine.start();
        machine.traffic(&daemon);
        for _ in 0..5 {
            machine.advance(11 * MINUTE);
            machine.traffic(&daemon);
            assert!(!trusted(&daemon));
        }
        machine.advance(11 * MINUTE);
        wait_until("the clock is trusted", || trusted(&daemon));
        machine.traffic(&daemon);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        assert!(
            sent_samples(&daemon, "wan0").iter().all(|(unix, _)| (WRONG_BOOT_CLOCKS[0] - 5..3 * HOUR).contains(unix))
        );
        // The clock is set after all: from then on samples get the true time.
        machine.correct_clock();
        machine.traffic(&daemon);
        machine.advance(11 * MINUTE);
        wait_until("the clock is trusted", || trusted(&daemon));
        machine.traffic(&daemon);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"));
        let late: u64 =
            sent_samples(&daemon, "wan0").iter().filter(|(unix, _)| *unix > 3 * HOUR).map(|(_, sent)| sent).sum();
        assert!(late > 0 && sent_samples(&daemon, "wan0").iter().all(|(unix, _)| *unix < 3 * HOUR || *unix >= NOON));
        daemon.stop();
        assert_eq!(check_with_sqlite(&machine.dir.join("net-pulse.db")).0, "ok");
    });
}

#[test]
fn e22_a_suspend_is_a_gap_and_not_a_step() {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        machine.boot(machine.truth());
        let mut daemon = machine.start();
        for hours in [8, 100 * 24] {
            machine.traffic(&daemon);
            machine.mark(&daemon);
            machine.advance(hours * HOUR);
            daemon.wait_for_ticks(1);
            assert!(trusted(&daemon), "after {hours} h");
            machine.traffic(&daemon);
            machine.mark(&daemon);
            machine.check(&daemon, &format!("after {hours} h"));
        }
        // The same while no daemon runs.
        daemon.stop();
        machine.advance(8 * HOUR);
        daemon = machine.start();
        machine.traffic(&daemon);
        machine.mark(&daemon);
        assert_steps(&daemon, &[]);
        machine.end(daemon);
    });
}

/// Without the library: the boot clock of the kernel moves while the wall clock stays. A program that used a clock that
/// stops during a suspend would not see it.
#[test]
fn e22_the_daemon_uses_the_boot_clock_of_the_kernel() {
    let supported = Command::new("unshare").args(["--time", "--boottime", "1", "--fork", "true"]).output();
    if !supported.is_ok_and(|output| output.status.success()) {
        return skip("no time namespaces here");
    }
    in_namespace(|| {
        let dir = Dir::new();
        let file = dir.join("net-pulse.db");
        new_boot(&dir, 1);
        cable("wan0", "lan0");
        let start = |offset: i64| {
            let mut command = net_pulse("unshare");
            command.args(["--time", "--boottime", &offset.to_string(), "--fork", BINARY]);
            command.args(["--host", "127.0.0.1", "--port", "0", "--database", &file]).args(FAST);
            let daemon = Daemon::spawn(command);
            daemon.wait_for_ticks(1);
            daemon
        };
        let stop = |daemon: Daemon| {
            wait_until("the ticks are saved", || stored_samples(&daemon) > 0);
            signal(child_of(daemon.pid()), Signal::SIGTERM);
            let (code, log) = daemon.ended_within(TIMEOUT);
            assert_eq!(code, Some(0), "{log:#?}");
        };
        let mut frames = 0;
        let mut traffic = |daemon: &Daemon| {
            for _ in 0..2 {
                frames += 1;
                send("wan0", 700, frames);
                daemon.wait_for_ticks(1);
            }
        };
        // The boot clock moves ahead by eight hours and then to nine years. The wall clock does not, so it falls
        // behind.
        let mut expected = Vec::new();
        let mut before = 0;
        for offset in [0, 8 * HOUR, 300_000_000] {
            let daemon = start(offset);
            traffic(&daemon);
            daemon.collect();
            assert_eq!(daemon.exported_sum("wan0"), kernel_counters("wan0"), "{offset}: {:#?}", daemon.log());
            if offset > 0 {
                expected.push(before - offset);
                let gaps = events(&daemon, "gap");
                let gap = gaps.last().and_then(|detail| detail.split(' ').find_map(|word| word.parse::<i64>().ok()));
                assert!(gap.is_some_and(|gap| (0..60).contains(&(gap - offset + before))), "{offset}: {gaps:?}");
            }
            assert_steps(&daemon, &expected);
            before = offset;
            stop(daemon);
        }
        // A reboot: the boot clock shows less than before.
        let counted = kernel_counters("wan0");
        ip("link delete wan0");
        new_boot(&dir, 2);
        cable("wan0", "lan0");
        send("wan0", 700, 5);
        let daemon = start(20 - real_boot());
        traffic(&daemon);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0"), plus(counted, kernel_counters("wan0")), "{:#?}", daemon.log());
        assert_steps(&daemon, &expected);
        stop(daemon);
        assert_eq!(check_with_sqlite(&file).0, "ok");
    });
}
