//! Decides when the wall clock is trusted. Pure. Routers without a battery-backed clock boot in 1970, at the time of
//! some old file, or in 2033; NTP corrects the clock minutes later, or never. Traffic counted before the correction
//! must not be lost and must not get a wrong date. A clock that stays wrong is trusted in the end, so that counting
//! goes on.

use super::Now;

/// The wall clock stepped if its offset from the monotonic clock changed by more than this between two ticks. Slewing
/// stays below it (500 ppm at most), and a suspend advances both clocks equally if the monotonic one is CLOCK_BOOTTIME.
const STEP_MS: i64 = 2_000;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// A wall time up to this far before the newest sample counts as correct: NTP may set the clock back a little. Samples
/// then overlap slightly, which is harmless.
const SLACK_MS: i64 = 120_000;
/// A machine may be switched off for this long between two samples. A clock that is wrong after a boot differs by
/// years.
const MAX_POWER_OFF_MS: i64 = 400 * DAY_MS;
/// Without history, a wall clock up to this long after the build date counts as correct. Must end before 2033, the year
/// that some boards boot with.
const MAX_BUILD_AGE_MS: i64 = 5 * 365 * DAY_MS;

// The wall clock is trusted once it has run without a step for one of these times, measured by the monotonic clock.

/// For a clock from `SLACK_MS` before to a day after the newest sample, or at a plausible date if there is no history.
const WAIT_NEAR_MS: u64 = 0;
/// For a clock up to `MAX_POWER_OFF_MS` after the newest sample, as after a holiday. If Net-Pulse trusted a wrong clock
/// here, the store would delete history that only seems old. A time daemon that starts together with Net-Pulse needs
/// about this long to correct the clock.
const WAIT_LATER_MS: u64 = 2 * MINUTE_MS;
/// For a clock at any other time that stepped since the start: a time daemon or a user has set it.
const WAIT_SET_MS: u64 = 10 * MINUTE_MS;
/// For a clock at any other time that has not stepped: the time daemon may wait for the network, and a modem can take
/// half an hour to connect. Also for a clock before the build date, which is certainly wrong.
const WAIT_WRONG_MS: u64 = 60 * MINUTE_MS;
/// After this long without a trusted clock, the clock is trusted even if it keeps stepping.
const WAIT_MAX_MS: u64 = 6 * 60 * MINUTE_MS;

/// Tracks the offset of the wall clock from the monotonic clock at each tick, and decides whether it is trusted.
#[derive(Clone, Debug)]
pub struct WallClock {
    /// The build date.
    floor_ms: i64,
    /// Wall time of the tick that got its wall time last.
    newest_ms: Option<i64>,
    /// Offset at the last tick; `None` before the first one.
    last_offset_ms: Option<i64>,
    /// The clock stepped since the start: something sets it.
    was_set: bool,
    /// `None` while the clock is trusted, and before the first tick.
    untrusted: Option<Untrusted>,
}

/// State while the clock is not trusted. All times are on the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Untrusted {
    /// Offset at `steady_since_ms`, in milliseconds.
    offset: i64,
    /// Time of the last step, or of the first tick.
    steady_since_ms: u64,
    /// Time of the tick at which the clock was no longer trusted, or of the first tick.
    since_ms: u64,
}

/// The wall clock relative to the monotonic clock at one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallOffset {
    /// UTC milliseconds at monotonic zero; `None` while the wall clock is not trusted. The sum of this and the
    /// `mono_ms` of a tick is its wall time; this is valid for this tick and for every earlier tick without a wall
    /// time.
    pub offset_ms: Option<i64>,
    /// Milliseconds that the wall clock stepped since the last tick, negative if it was set back. `None` without a
    /// step; slewing is not a step.
    pub stepped_ms: Option<i64>,
}

impl WallClock {
    /// `floor`: the build date. `newest`: time of the sample that was saved last, which need not be the latest time in
    /// the history. Both in UTC seconds.
    pub fn new(floor: i64, newest: Option<i64>) -> WallClock {
        WallClock {
            floor_ms: floor.saturating_mul(1000),
            newest_ms: newest.map(|unix| unix.saturating_mul(1000)),
            last_offset_ms: None,
            was_set: false,
            untrusted: None,
        }
    }

    /// For a restart on the same boot: `newest` has the times of both clocks at the newest sample. If their offset is
    /// still the same, the clock is trusted at once, after a pause of any length. A step during the pause is detected.
    pub fn resume(&mut self, newest: Now) {
        self.last_offset_ms = Some(offset_ms(newest));
        self.newest_ms = Some(newest.unix_ms);
    }

    /// Evaluates the clocks; called at every tick.
    pub fn observe(&mut self, now: Now) -> WallOffset {
        let offset = offset_ms(now);
        let has_last = self.last_offset_ms.is_some();
        let stepped_ms = self
            .last_offset_ms
            .map(|last| offset.saturating_sub(last))
            .filter(|moved| moved.unsigned_abs() > STEP_MS as u64);
        self.last_offset_ms = Some(offset);
        self.was_set |= stepped_ms.is_some();

        if self.untrusted.is_none() && (!has_last || stepped_ms.is_some()) {
            self.untrusted = Some(Untrusted { offset, steady_since_ms: now.mono_ms, since_ms: now.mono_ms });
        }
        if let Some(untrusted) = &mut self.untrusted {
            if offset.saturating_sub(untrusted.offset).unsigned_abs() > STEP_MS as u64 {
                *untrusted = Untrusted { offset, steady_since_ms: now.mono_ms, ..*untrusted };
            }
            let (steady_ms, untrusted_ms) =
                (now.mono_ms.saturating_sub(untrusted.steady_since_ms), now.mono_ms.saturating_sub(untrusted.since_ms));
            if steady_ms >= self.wait_ms(now.unix_ms) || untrusted_ms >= WAIT_MAX_MS {
                self.untrusted = None;
            }
        }
        WallOffset { offset_ms: self.untrusted.is_none().then_some(offset), stepped_ms }
    }

    /// Call this when a tick got a wall time; `unix` is that time in UTC seconds. It may be earlier than the previous
    /// one: after a wrong clock is corrected, the clock is no longer compared with the samples of the wrong time.
    pub fn tick_dated(&mut self, unix: i64) {
        self.newest_ms = Some(unix.saturating_mul(1000));
    }

    /// How long the clock must run without a step before it is trusted.
    fn wait_ms(&self, unix_ms: i64) -> u64 {
        if unix_ms < self.floor_ms {
            return WAIT_WRONG_MS;
        }
        let wait_elsewhere_ms = if self.was_set { WAIT_SET_MS } else { WAIT_WRONG_MS };
        let Some(newest_ms) = self.newest_ms else {
            let after = unix_ms.saturating_sub(self.floor_ms);
            return if after < MAX_BUILD_AGE_MS { WAIT_NEAR_MS } else { wait_elsewhere_ms };
        };
        match unix_ms.saturating_sub(newest_ms) {
            after if after < -SLACK_MS => wait_elsewhere_ms,
            after if after <= DAY_MS => WAIT_NEAR_MS,
            after if after <= MAX_POWER_OFF_MS => WAIT_LATER_MS,
            _ => wait_elsewhere_ms,
        }
    }
}

/// Wall minus monotonic time, in milliseconds.
fn offset_ms(now: Now) -> i64 {
    now.unix_ms.saturating_sub(i64::try_from(now.mono_ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{BUILD_FLOOR, Zone, parse_time, rfc3339};

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    /// A plausible time after the build.
    const NOON: i64 = BUILD_FLOOR + 100 * DAY;

    /// A simulated machine: both clocks, a tick every 30 s, and the samples that a caller would save.
    struct Rig {
        wall_clock: WallClock,
        mono_ms: u64,
        wall_ms: i64,
        /// Monotonic times of the ticks without a wall time.
        undated: Vec<u64>,
        /// Wall times of the dated ticks, UTC seconds.
        dated: Vec<i64>,
        steps: Vec<i64>,
    }

    impl Rig {
        /// Twenty seconds after the boot; the wall clock shows `wall`.
        fn boot(wall: i64, newest: Option<i64>) -> Rig {
            Rig {
                wall_clock: WallClock::new(BUILD_FLOOR, newest),
                mono_ms: 20_000,
                wall_ms: wall * 1000,
                undated: Vec::new(),
                dated: Vec::new(),
                steps: Vec::new(),
            }
        }

        fn tick(&mut self) -> &mut Rig {
            let wall_offset = self.wall_clock.observe(Now { mono_ms: self.mono_ms, unix_ms: self.wall_ms });
            self.undated.push(self.mono_ms);
            if let Some(offset) = wall_offset.offset_ms {
                self.dated.extend(self.undated.drain(..).map(|mono| (offset + mono as i64).div_euclid(1000)));
                self.wall_clock.tick_dated(self.dated[self.dated.len() - 1]);
            }
            self.steps.extend(wall_offset.stepped_ms.map(|moved| moved / 1000));
            self
        }

        fn run(&mut self, seconds: i64) -> &mut Rig {
            for _ in 0..seconds / 30 {
                self.pass(30).tick();
            }
            self
        }

        fn pass(&mut self, seconds: i64) -> &mut Rig {
            self.mono_ms += seconds as u64 * 1000;
            self.wall_ms += seconds * 1000;
            self
        }

        fn set_by(&mut self, seconds: i64) -> &mut Rig {
            self.wall_ms += seconds * 1000;
            self
        }

        fn set_to(&mut self, unix: i64) -> &mut Rig {
            self.wall_ms = unix * 1000;
            self
        }

        /// Checks the numbers of dated and undated ticks, and that the dated ones are at their true times: 30 s apart
        /// up to now.
        fn check_true(&self, dated: usize, undated: usize) {
            assert_eq!((self.dated.len(), self.undated.len()), (dated, undated));
            for (back, unix) in self.dated.iter().rev().enumerate() {
                let expect = self.wall_ms / 1000 - 30 * back as i64;
                assert_eq!(rfc3339(*unix), rfc3339(expect), "{back} ticks ago");
            }
        }

        fn check(&self, dated: usize, undated: usize) {
            assert_eq!((self.dated.len(), self.undated.len()), (dated, undated));
        }
    }

    #[test]
    fn a_normal_start_is_trusted_at_once() {
        Rig::boot(NOON, None).tick().run(300).check_true(11, 0);
        Rig::boot(NOON, Some(NOON - 60)).tick().run(300).check_true(11, 0);
        Rig::boot(NOON, Some(NOON - 20 * HOUR)).tick().run(300).check_true(11, 0);
        Rig::boot(NOON, Some(NOON + 60)).tick().run(300).check_true(11, 0);
    }

    #[test]
    fn after_days_switched_off_the_clock_is_trusted_after_two_minutes() {
        let mut rig = Rig::boot(NOON, Some(NOON - 3 * DAY));
        rig.tick().run(90).check(0, 4);
        rig.run(30).check_true(5, 0);
        let mut rig = Rig::boot(NOON, Some(NOON - 300 * DAY));
        rig.tick().run(120).check_true(5, 0);
    }

    #[test]
    fn e20_boot_in_1970_then_ntp() {
        for newest in [None, Some(NOON - 300)] {
            let mut rig = Rig::boot(20, newest);
            rig.tick().run(300).check(0, 11);
            rig.set_to(NOON).run(30).check_true(12, 0);
            assert_eq!(rig.steps, [NOON - 20 - 300]);
        }
    }

    #[test]
    fn e20_boot_in_2033_then_ntp() {
        let absurd = parse_time("2033-04-05T12:00:00Z", &Zone::UTC).unwrap();
        for newest in [None, Some(NOON - 300)] {
            let mut rig = Rig::boot(absurd, newest);
            rig.tick().run(30 * 60).check(0, 61);
            rig.set_to(NOON).run(30).check_true(62, 0);
        }
    }

    #[test]
    fn e20_boot_nine_hours_behind_then_ntp() {
        let mut rig = Rig::boot(NOON - 9 * HOUR, Some(NOON - 300));
        rig.tick().run(30 * 60).check(0, 61);
        rig.set_by(9 * HOUR).run(30).check_true(62, 0);
        assert_eq!(rig.steps, [9 * HOUR]);
    }

    #[test]
    fn e20_boot_past_2038_then_ntp() {
        let mut rig = Rig::boot(1 << 32, Some(NOON - 300));
        rig.tick().run(300).check(0, 11);
        rig.set_to(NOON).run(30).check_true(12, 0);
    }

    #[test]
    fn e21_a_wrong_clock_that_never_steps_is_trusted_after_an_hour() {
        for wall in [-5 * YEAR, 20, BUILD_FLOOR - 1000, NOON - 9 * HOUR, NOON + 30 * YEAR] {
            let mut rig = Rig::boot(wall, Some(NOON));
            rig.tick().run(59 * 60).check(0, 119);
            rig.run(60).check_true(121, 0);
            // From then on it is trusted like any other clock.
            rig.run(300).check_true(131, 0);
        }
    }

    #[test]
    fn e21_a_clock_that_keeps_stepping_is_trusted_after_six_hours() {
        let mut rig = Rig::boot(20, Some(NOON));
        rig.tick();
        for turn in 0..719 {
            rig.set_by(if turn % 2 == 0 { 1000 } else { -900 }).run(30);
        }
        rig.check(0, 720);
        rig.run(30).check_true(721, 0);
    }

    #[test]
    fn e21_samples_dated_2033_do_not_block_correct_ones() {
        let absurd = parse_time("2033-04-05T12:00:00Z", &Zone::UTC).unwrap();
        let mut rig = Rig::boot(absurd, Some(NOON - 300));
        rig.tick().run(2 * HOUR);
        let wrong = rig.dated.len();
        rig.set_to(NOON).run(10 * 60).check(wrong, 20);
        rig.run(30).check(wrong + 21, 0);
        assert!(rig.dated[wrong..].iter().all(|unix| (NOON..NOON + 700).contains(unix)));
        // A later step is compared with the newest sample, not with the samples of 2033.
        rig.set_by(HOUR).run(30).check(wrong + 22, 0);
    }

    #[test]
    fn e22_a_suspend_is_not_a_step() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).pass(8 * HOUR).run(30).pass(100 * DAY).run(30).check(13, 0);
        assert!(rig.steps.is_empty());
    }

    #[test]
    fn e22_slewing_is_not_a_step() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick();
        for _ in 0..10_000 {
            rig.wall_ms += 15;
            rig.run(30);
        }
        rig.check(10_001, 0);
        assert!(rig.steps.is_empty());
    }

    #[test]
    fn e22_an_hour_forward_is_trusted_at_once() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(HOUR).run(30).check(12, 0);
        assert_eq!((rig.dated[11] - rig.dated[10], &rig.steps[..]), (HOUR + 30, &[HOUR][..]));
    }

    #[test]
    fn e22_an_hour_back_is_trusted_if_it_stays() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(-HOUR).run(600).check(11, 20);
        rig.run(30).check(32, 0);
        assert_eq!((rig.dated[11] - rig.dated[10], &rig.steps[..]), (30 - HOUR, &[-HOUR][..]));
        assert!(rig.dated[11..].windows(2).all(|pair| pair[1] - pair[0] == 30));
    }

    #[test]
    fn e22_an_hour_back_and_forth_leaves_no_trace() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(-HOUR).run(300).set_by(HOUR).run(30).check_true(22, 0);
        assert_eq!(rig.steps, [-HOUR, HOUR]);
    }

    #[test]
    fn e22_eight_years_forward_and_back_leave_no_trace() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(8 * YEAR).run(570).check(11, 19);
        rig.set_by(-8 * YEAR).run(30).check_true(31, 0);
        assert_eq!(rig.steps, [8 * YEAR, -8 * YEAR]);
    }

    #[test]
    fn e22_eight_years_forward_are_trusted_if_they_stay() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(8 * YEAR).run(600).check(11, 20);
        rig.run(30).check(32, 0);
        assert!(rig.dated[11..].iter().all(|unix| *unix > NOON + 8 * YEAR));
    }

    #[test]
    fn e22_seconds_back_are_trusted_at_once() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(-90).run(30).check(12, 0);
        assert_eq!(rig.steps, [-90]);
    }

    #[test]
    fn e23_a_clock_before_the_build_date_is_not_trusted() {
        let mut rig = Rig::boot(BUILD_FLOOR - 1, None);
        rig.tick().check(0, 1);
        // The clock passes the floor while the daemon runs.
        rig.run(30).check_true(2, 0);
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_to(BUILD_FLOOR - DAY).run(3600).check(11, 120);
        rig.run(30).check(132, 0);
    }

    #[test]
    fn e12_after_a_restart_on_the_same_boot_the_clock_is_trusted_at_once() {
        fn check(pause: i64, set_by: i64, expect: (usize, &[i64])) {
            let mut first = Rig::boot(NOON, None);
            first.tick();
            let newest = Now { mono_ms: first.mono_ms, unix_ms: first.wall_ms / 1000 * 1000 };
            let mut rig = Rig { wall_clock: WallClock::new(BUILD_FLOOR, Some(NOON)), ..first };
            rig.dated.clear();
            rig.wall_ms += 999;
            rig.wall_clock.resume(newest);
            rig.pass(pause).set_by(set_by).tick();
            assert_eq!((rig.dated.len(), &rig.steps[..]), expect, "{pause} {set_by}");
        }
        check(10, 0, (1, &[]));
        check(30 * DAY, 0, (1, &[]));
        check(3000 * DAY, 0, (1, &[]));
        check(10, 60, (1, &[60]));
        check(10, -HOUR, (0, &[1 - HOUR]));
    }

    #[test]
    fn extreme_readings_do_not_panic() {
        let strange = [i64::MIN, i64::MIN + 1, -1, 0, i64::from(i32::MAX), i64::MAX - 1, i64::MAX];
        for newest in [None, Some(i64::MIN), Some(NOON), Some(i64::MAX)] {
            let mut wall_clock = WallClock::new(BUILD_FLOOR, newest);
            for unix_ms in strange {
                for mono_ms in [0, u64::MAX, 1, u64::MAX / 2] {
                    wall_clock.observe(Now { mono_ms, unix_ms });
                    wall_clock.tick_dated(unix_ms);
                }
            }
            wall_clock.resume(Now { mono_ms: u64::MAX, unix_ms: i64::MIN });
            wall_clock.observe(Now { mono_ms: 0, unix_ms: i64::MAX });
        }
    }
}
