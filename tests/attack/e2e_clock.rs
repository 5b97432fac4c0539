//! Clocks that lie to the real binary while real traffic passes: it boots in the wrong year and is put right, it is
//! stepped, suspended, restarted and killed meanwhile. What the kernel counted is in the history once, and at its true
//! time wherever the clock was put right before anybody had to believe it.
//!
//! The machine's own clocks are never touched. A preloaded library shifts what the C library says of both clocks by what
//! stands in a file; a suspend shifts both, and so makes the long waits for a doubtful clock short. The kernel itself
//! can only shift the clock since the boot, in a time namespace. A year of such things is simulated in
//! `tests/it/clock_attacks.rs`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::common::disk::{child_of, judge, signal, stored};
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
/// What the time really is when a test begins: long after the build, and the same whenever it is run.
const NOON: i64 = BUILD_FLOOR + 100 * DAY + 12 * HOUR;
/// Boards start with these. Seconds after 1970; somewhere in 2033; past what 31 bits hold.
const ABSURD: [i64; 3] = [20, 1_996_300_000, 2_210_000_000];

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

__attribute__((constructor)) static void look(void) {
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

/// A machine of its own in a namespace of its own: links, a boot and two clocks. The daemon on it comes and goes.
struct Machine {
    dir: Dir,
    /// Seconds by which wall clock and boot clock are shifted.
    shifts: File,
    wall: i64,
    boot: i64,
    /// By how much the true time is ahead of the real one.
    truth: i64,
    boots: u32,
    /// What earlier boots had counted, of each end of the cable.
    before: [Counters; 2],
    /// What had been sent by when.
    marks: Vec<(i64, u64)>,
    began: i64,
    frames: usize,
}

const ENDS: [&str; 2] = ["wan0", "lan0"];

impl Machine {
    /// Not yet booted. `None`, and said, where the clocks cannot be shifted.
    fn new() -> Option<Machine> {
        if cfg!(not(target_env = "gnu")) {
            skip("the binary is linked statically: its clocks cannot be shifted");
            return None;
        }
        let dir = Dir::new();
        let (source, library) = (dir.join("shift.c"), dir.join("shift.so"));
        fs::write(&source, LIBRARY).expect("it is ours");
        let made =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o", &library, &source]).stdin(Stdio::null()).output();
        match made {
            Err(error) => {
                skip(&format!("cc: {error}: the clocks cannot be shifted"));
                return None;
            }
            Ok(made) => assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr)),
        }
        fs::write(dir.join("shifts"), [0; 16]).expect("it is ours");
        // Never truncated: the daemon has it mapped.
        let shifts = OpenOptions::new().write(true).open(dir.join("shifts")).expect("it is ours");
        let truth = NOON - real_wall();
        let (before, marks) = ([[0; 8]; 2], Vec::new());
        Some(Machine { dir, shifts, wall: truth, boot: 0, truth, boots: 0, before, marks, began: NOON, frames: 0 })
    }

    /// Switched on: a new boot, counters and boot clock from zero, and whatever the wall clock says.
    fn boot(&mut self, wall: i64) {
        if self.boots > 0 {
            self.before = self.carried();
            ip("link delete wan0");
        }
        self.boots += 1;
        new_boot(&self.dir, self.boots);
        cable(ENDS[0], ENDS[1]);
        (self.wall, self.boot) = (wall - real_wall(), 20 - real_boot());
        self.shift();
    }

    fn shift(&self) {
        let both = [self.wall.to_ne_bytes(), self.boot.to_ne_bytes()].concat();
        self.shifts.write_all_at(&both, 0).expect("it is ours");
    }

    fn truth(&self) -> i64 {
        real_wall() + self.truth
    }

    /// Time passes, unseen by everybody.
    fn pass(&mut self, seconds: i64) {
        (self.wall, self.boot, self.truth) = (self.wall + seconds, self.boot + seconds, self.truth + seconds);
        self.shift();
    }

    fn step(&mut self, seconds: i64) {
        self.wall += seconds;
        self.shift();
    }

    fn put_right(&mut self) {
        self.wall = self.truth;
        self.shift();
    }

    fn start(&self) -> Daemon {
        let mut command = net_pulse(BINARY);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &self.dir.join("net-pulse.db")]).args(FAST);
        command.env("LD_PRELOAD", self.dir.join("shift.so")).env("CLOCK_SHIFT", self.dir.join("shifts"));
        let daemon = Daemon::spawn(command);
        daemon.get("/health");
        daemon
    }

    /// What the kernel has counted in all boots.
    fn carried(&self) -> [Counters; 2] {
        std::array::from_fn(|at| plus(self.before[at], kernel(ENDS[at])))
    }

    /// A different amount each time.
    fn send(&mut self) {
        self.frames += 1;
        send("wan0", 700, self.frames);
        send("lan0", 90, 2 * self.frames);
    }

    /// Over several ticks.
    fn traffic(&mut self, daemon: &Daemon) {
        for _ in 0..3 {
            self.send();
            daemon.ticks(1);
        }
    }

    /// What was sent so far was sent by now, and what comes is sent later.
    fn mark(&mut self, daemon: &Daemon) {
        daemon.collect();
        self.marks.push((self.truth(), self.carried()[0][1]));
        rest(1100);
    }

    fn check(&self, daemon: &Daemon, when: &str) {
        daemon.collect();
        let now = self.truth();
        for (name, expect) in ENDS.iter().zip(self.carried()) {
            let why = || format!("{name} {when}: {COUNTERS:?}; {:#?}", daemon.log());
            assert_eq!(daemon.booked(name), expect, "{}", why());
            let facts = daemon.interface(name);
            let lifetime = ["lifetime_rx_bytes", "lifetime_tx_bytes"].map(|key| facts[key].as_u64());
            assert_eq!(lifetime, [Some(expect[0]), Some(expect[1])], "{}", why());
            let rows = times(daemon, name);
            for (unix, _) in &rows {
                let there = (self.began - 5..=now + 5).contains(unix);
                assert!(there, "{} is no time of {}: {}", rfc3339(*unix), rfc3339(now), why());
            }
            for by in ["day", "month"] {
                assert_eq!(totals(daemon, name, by), expect[..2], "by {by}: {}", why());
            }
        }
        let rows = times(daemon, "wan0");
        for (mark, expect) in &self.marks {
            let sum: u64 = rows.iter().filter(|(unix, _)| unix <= mark).map(|(_, sent)| sent).sum();
            assert_eq!(sum, *expect, "sent until {} {when}: {rows:?}; {:#?}", rfc3339(*mark), daemon.log());
        }
        assert!(!daemon.log().iter().any(|line| line.contains("panicked")), "{:#?}", daemon.log());
    }

    /// The rest of a test: the same from the disk alone.
    fn end(self, daemon: Daemon) {
        self.check(&daemon, "at the end");
        daemon.stop();
        let daemon = self.start();
        self.check(&daemon, "from the disk");
        daemon.stop();
        assert_eq!(judge(&self.dir.join("net-pulse.db")).0, "ok");
    }
}

/// Another boot of the kernel, as far as this thread and its children can see.
fn new_boot(dir: &Dir, number: u32) {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    let file = dir.join("boot_id");
    let there = Path::new(&file).exists();
    fs::write(&file, format!("00000000-0000-4000-8000-{number:012}\n")).expect("it is ours");
    if !there {
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

/// When, and how much was sent.
fn times(daemon: &Daemon, name: &str) -> Vec<(i64, u64)> {
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

fn believed(daemon: &Daemon) -> bool {
    daemon.get("/api/system/health")["details"]["clock"]["believed"] == true
}

/// Oldest first.
fn events(daemon: &Daemon, kind: &str) -> Vec<String> {
    let all = daemon.get("/api/events?limit=200");
    let told = all.as_array().expect("a list").iter().rev().filter(|event| event["kind"] == kind);
    told.map(|event| event["detail"].as_str().expect("text").to_string()).collect()
}

/// Steps in seconds, as they were told of. The figure of a tick may be one second beside the truth.
fn steps(daemon: &Daemon) -> Vec<i64> {
    let seconds = |told: String| {
        let (_, rest) = told.split_once("the clock was set ").expect("a step");
        let (direction, rest) = rest.split_once(" by ").expect("a step");
        let seconds: i64 = rest.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        if direction == "back" { -seconds } else { seconds }
    };
    events(daemon, "clock_step").into_iter().map(seconds).collect()
}

#[track_caller]
fn stepped(daemon: &Daemon, expect: &[i64]) {
    let told = steps(daemon);
    let near = told.len() == expect.len() && told.iter().zip(expect).all(|(one, other)| (one - other).abs() <= 3);
    assert!(near, "told of {told:?}, not of {expect:?}: {:#?}", daemon.log());
}

/// In front of each boot the machine was off for a while; `wrong` makes the wall clock of a moment of truth.
fn boots(fresh: bool, wrong: impl Fn(i64) -> i64 + Send + Sync) {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        if !fresh {
            machine.boot(machine.truth());
            let daemon = machine.start();
            machine.traffic(&daemon);
            assert!(believed(&daemon));
            machine.mark(&daemon);
            daemon.stop();
        }
        for meanwhile in ["nothing", "SIGTERM", "SIGKILL"] {
            machine.pass(5 * MINUTE);
            machine.boot(wrong(machine.truth()));
            let off = machine.wall - machine.truth;
            if machine.boots > 1 {
                // Before anybody looked. Only what passed before the very first look is nobody's business.
                machine.send();
            }
            let mut daemon = machine.start();
            machine.traffic(&daemon);
            assert!(!believed(&daemon), "{off} s off is believed");
            match meanwhile {
                "SIGTERM" => {
                    let said = daemon.stop().join("\n");
                    assert!(said.contains("stay unsaved (the clock has not been set yet)"), "{said}");
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
            // What is seen meanwhile has nothing of the wrong time.
            assert!(!believed(&daemon), "{off} s off is believed");
            let told = steps(&daemon).len();
            machine.mark(&daemon);
            machine.put_right();
            wait_until("the clock is believed", || believed(&daemon));
            machine.traffic(&daemon);
            machine.mark(&daemon);
            machine.check(&daemon, meanwhile);
            let all = steps(&daemon);
            assert!(all.len() == told + 1 && (all[told] + off).abs() <= 3, "told of {all:?}, off by {off}");
            daemon.stop();
        }
        let daemon = machine.start();
        machine.end(daemon);
    });
}

#[test]
fn e20_boots_in_1970() {
    boots(true, |_| ABSURD[0]);
}

#[test]
fn e20_boots_in_2033() {
    boots(true, |_| ABSURD[1]);
}

#[test]
fn e20_boots_past_2038() {
    boots(true, |_| ABSURD[2]);
}

#[test]
fn e20_boots_nine_hours_behind() {
    boots(false, |truth| truth - 9 * HOUR);
}

#[test]
fn e22_steps_that_are_taken_back_leave_no_trace() {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        machine.boot(machine.truth());
        let mut daemon = machine.start();
        machine.traffic(&daemon);
        machine.mark(&daemon);
        let mut told = Vec::new();
        for (step, restart) in [(-HOUR, false), (8 * YEAR, false), (-8 * YEAR, false), (8 * YEAR, true), (-HOUR, true)]
        {
            machine.step(step);
            daemon.ticks(1);
            machine.traffic(&daemon);
            assert!(!believed(&daemon), "a step of {step} s is believed at once");
            if !restart {
                machine.mark(&daemon);
            } else {
                // What was in memory alone is booked by the next, as a gap that ends at its start.
                daemon.kill();
                machine.send();
                daemon = machine.start();
                daemon.ticks(1);
                assert!(!believed(&daemon), "a step of {step} s is believed after a restart");
            }
            machine.step(-step);
            wait_until("it is believed", || believed(&daemon));
            machine.traffic(&daemon);
            machine.mark(&daemon);
            told.extend([step, -step]);
            machine.check(&daemon, &format!("after {step} s and back"));
            // What had not been saved when it was killed is told again by the next.
            stepped(&daemon, &told);
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
        // The clock had been wrong all the time.
        machine.step(HOUR);
        machine.truth += HOUR;
        daemon.ticks(1);
        assert!(believed(&daemon), "an hour forward");
        machine.traffic(&daemon);
        machine.mark(&daemon);
        machine.check(&daemon, "an hour forward");
        stepped(&daemon, &[HOUR]);
        // Back again: rows of this hour stand beside those that are there.
        machine.step(-HOUR);
        machine.truth -= HOUR;
        machine.marks.clear();
        machine.began -= HOUR;
        machine.traffic(&daemon);
        assert!(!believed(&daemon), "an hour back");
        daemon.kill();
        machine.send();
        daemon = machine.start();
        machine.traffic(&daemon);
        assert!(!believed(&daemon), "an hour back");
        machine.pass(11 * MINUTE);
        wait_until("it is believed", || believed(&daemon));
        machine.traffic(&daemon);
        // Rows of the hour that was wrong lie ahead.
        machine.truth += HOUR;
        machine.check(&daemon, "an hour back");
        stepped(&daemon, &[HOUR, -HOUR]);
        machine.end(daemon);
    });
}

#[test]
fn e21_a_clock_that_nobody_sets_is_believed_in_the_end() {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        machine.boot(ABSURD[0]);
        let daemon = machine.start();
        machine.traffic(&daemon);
        for _ in 0..5 {
            machine.pass(11 * MINUTE);
            machine.traffic(&daemon);
            assert!(!believed(&daemon));
        }
        machine.pass(11 * MINUTE);
        wait_until("it is believed", || believed(&daemon));
        machine.traffic(&daemon);
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        assert!(times(&daemon, "wan0").iter().all(|(unix, _)| (ABSURD[0] - 5..3 * HOUR).contains(unix)));
        // One day somebody does: from then on it is the present that counts.
        machine.put_right();
        machine.traffic(&daemon);
        machine.pass(11 * MINUTE);
        wait_until("it is believed", || believed(&daemon));
        machine.traffic(&daemon);
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), kernel("wan0"));
        let late: u64 = times(&daemon, "wan0").iter().filter(|(unix, _)| *unix > 3 * HOUR).map(|(_, sent)| sent).sum();
        assert!(late > 0 && times(&daemon, "wan0").iter().all(|(unix, _)| *unix < 3 * HOUR || *unix >= NOON));
        daemon.stop();
        assert_eq!(judge(&machine.dir.join("net-pulse.db")).0, "ok");
    });
}

#[test]
fn e22_a_suspend_is_a_gap_and_no_step() {
    in_namespace(|| {
        let Some(mut machine) = Machine::new() else { return };
        machine.boot(machine.truth());
        let mut daemon = machine.start();
        for hours in [8, 100 * 24] {
            machine.traffic(&daemon);
            machine.mark(&daemon);
            machine.pass(hours * HOUR);
            daemon.ticks(1);
            assert!(believed(&daemon), "after {hours} h");
            machine.traffic(&daemon);
            machine.mark(&daemon);
            machine.check(&daemon, &format!("after {hours} h"));
        }
        // The same while nobody was there.
        daemon.stop();
        machine.pass(8 * HOUR);
        daemon = machine.start();
        machine.traffic(&daemon);
        machine.mark(&daemon);
        stepped(&daemon, &[]);
        machine.end(daemon);
    });
}

/// Without any library: the kernel's own clock since the boot, moved while the wall clock stays. Whoever looked at a clock
/// that stands still during a suspend would see nothing of it.
#[test]
fn e22_the_boot_clock_is_the_kernels() {
    let there = Command::new("unshare").args(["--time", "--boottime", "1", "--fork", "true"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
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
            daemon.ticks(1);
            daemon
        };
        let stop = |daemon: Daemon| {
            wait_until("it is saved", || stored(&daemon) > 0);
            signal(child_of(daemon.pid()), Signal::SIGTERM);
            let (code, log) = daemon.ended_within(PATIENCE);
            assert_eq!(code, Some(0), "{log:#?}");
        };
        let mut frames = 0;
        let mut traffic = |daemon: &Daemon| {
            for _ in 0..2 {
                frames += 1;
                send("wan0", 700, frames);
                daemon.ticks(1);
            }
        };
        // Slept for eight hours, and for nine years; seen by the boot clock alone, the wall clock fell behind.
        let mut told = Vec::new();
        let mut before = 0;
        for offset in [0, 8 * HOUR, 300_000_000] {
            let daemon = start(offset);
            traffic(&daemon);
            daemon.collect();
            assert_eq!(daemon.booked("wan0"), kernel("wan0"), "{offset}: {:#?}", daemon.log());
            if offset > 0 {
                told.push(before - offset);
                let gaps = events(&daemon, "gap");
                let gap = gaps.last().and_then(|told| told.split(' ').find_map(|word| word.parse::<i64>().ok()));
                assert!(gap.is_some_and(|gap| (0..60).contains(&(gap - offset + before))), "{offset}: {gaps:?}");
            }
            stepped(&daemon, &told);
            before = offset;
            stop(daemon);
        }
        // A reboot: from here on the boot clock says less than it did.
        let counted = kernel("wan0");
        ip("link delete wan0");
        new_boot(&dir, 2);
        cable("wan0", "lan0");
        send("wan0", 700, 5);
        let daemon = start(20 - real_boot());
        traffic(&daemon);
        daemon.collect();
        assert_eq!(daemon.booked("wan0"), plus(counted, kernel("wan0")), "{:#?}", daemon.log());
        stepped(&daemon, &told);
        stop(daemon);
        assert_eq!(judge(&file).0, "ok");
    });
}
