//! When wall time can be believed. Pure. Routers without a battery clock start in 1970, at the time of some old file, or
//! in 2033, and are put right minutes later, or never: what was counted meanwhile must neither be lost nor be written
//! under a wrong date, and a clock that stays wrong must not stop the counting for ever.

use super::Now;

/// A change of the difference of the two clocks beyond this is a step. Slewing runs at 500 ppm or moves both clocks alike,
/// and a suspend moves both alike where the monotonic one is CLOCK_BOOTTIME.
const STEP_MS: i64 = 2_000;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// An NTP daemon that sets the clock back by less than this makes rows overlap a little, which harms nobody.
const SLACK_MS: i64 = 120_000;
/// A machine may lie in a drawer for this long. The absurd clocks that boards start with are years off.
const DRAWER_MS: i64 = 400 * DAY_MS;
/// How far after the build a first start is nothing strange. Boards that start in 2033 must lie beyond.
const FIRST_START_MS: i64 = 5 * 365 * DAY_MS;

/// How long a clock has to stay where it is before it is believed, all by the monotonic clock.
///
/// It lies at most a day after the newest row: nothing to wait for.
const NEAR_MS: u64 = 0;
/// It lies weeks after it. So it does after a holiday, but a wrong belief would have the store prune what only seems
/// old, and a time daemon that starts together with us needs about this long.
const LATER_MS: u64 = 2 * MINUTE_MS;
/// It lies elsewhere, but somebody set it there before our eyes.
const SET_MS: u64 = 10 * MINUTE_MS;
/// It lies elsewhere, and has only run on since the boot: that it stays says little, for a modem can take half an hour
/// until the network is there to set it. A clock before the build date is known to be wrong, whoever set it.
const WRONG_MS: u64 = 60 * MINUTE_MS;
/// A clock that never stays anywhere is believed after this, as it happens to stand.
const LONGEST_MS: u64 = 6 * 60 * MINUTE_MS;

/// Follows the difference of the two clocks from tick to tick.
#[derive(Clone, Debug)]
pub struct Keeper {
    floor_ms: i64,
    /// The row that was written last.
    newest_ms: Option<i64>,
    /// Wall minus monotonic time at the last tick.
    last: Option<i64>,
    /// A step was seen: somebody takes care of this clock.
    set: bool,
    hold: Option<Hold>,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    offset: i64,
    /// Since when the difference has been that, and since when there has been no belief at all; monotonic.
    since_ms: u64,
    dark_since_ms: u64,
}

/// What a tick's reading of the clocks meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// UTC milliseconds at monotonic zero; `None` while the wall clock cannot be believed. Add `mono_ms` to place a moment:
    /// this tick, and every earlier one that is still unplaced.
    pub offset_ms: Option<i64>,
    /// The wall clock moved against the monotonic one by this much since the last tick (slewing is not a step).
    pub stepped_ms: Option<i64>,
}

impl Keeper {
    /// `floor`: the build date; `newest`: the row that was written last, which need not be the one with the greatest time.
    pub fn new(floor: i64, newest: Option<i64>) -> Keeper {
        Keeper {
            floor_ms: floor.saturating_mul(1000),
            newest_ms: newest.map(|unix| unix.saturating_mul(1000)),
            last: None,
            set: false,
            hold: None,
        }
    }

    /// For a restart on the same boot: both clocks at the newest row. A difference that was believed then is believed
    /// now, however long the pause, and a step during the pause is seen.
    pub fn resume(&mut self, newest: Now) {
        self.last = Some(difference(newest));
        self.newest_ms = Some(newest.unix_ms);
    }

    /// To be called with every tick.
    pub fn observe(&mut self, now: Now) -> Step {
        let offset = difference(now);
        let resumed = self.last.is_some();
        let stepped_ms =
            self.last.map(|last| offset.saturating_sub(last)).filter(|moved| moved.unsigned_abs() > STEP_MS as u64);
        self.last = Some(offset);
        self.set |= stepped_ms.is_some();

        if self.hold.is_none() && (!resumed || stepped_ms.is_some()) {
            self.hold = Some(Hold { offset, since_ms: now.mono_ms, dark_since_ms: now.mono_ms });
        }
        if let Some(hold) = &mut self.hold {
            if offset.saturating_sub(hold.offset).unsigned_abs() > STEP_MS as u64 {
                *hold = Hold { offset, since_ms: now.mono_ms, ..*hold };
            }
            let (stayed, dark) =
                (now.mono_ms.saturating_sub(hold.since_ms), now.mono_ms.saturating_sub(hold.dark_since_ms));
            if stayed >= self.patience_ms(now.unix_ms) || dark >= LONGEST_MS {
                self.hold = None;
            }
        }
        Step { offset_ms: self.hold.is_none().then_some(offset), stepped_ms }
    }

    /// A tick has got its place at this second. That may be earlier than the one before: rows from a time that was wrong
    /// say nothing about the present.
    pub fn placed(&mut self, unix: i64) {
        self.newest_ms = Some(unix.saturating_mul(1000));
    }

    fn patience_ms(&self, unix_ms: i64) -> u64 {
        if unix_ms < self.floor_ms {
            return WRONG_MS;
        }
        let elsewhere = if self.set { SET_MS } else { WRONG_MS };
        let Some(newest_ms) = self.newest_ms else {
            let after = unix_ms.saturating_sub(self.floor_ms);
            return if after < FIRST_START_MS { NEAR_MS } else { elsewhere };
        };
        match unix_ms.saturating_sub(newest_ms) {
            after if after < -SLACK_MS => elsewhere,
            after if after <= DAY_MS => NEAR_MS,
            after if after <= DRAWER_MS => LATER_MS,
            _ => elsewhere,
        }
    }
}

fn difference(now: Now) -> i64 {
    now.unix_ms.saturating_sub(i64::try_from(now.mono_ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{BUILD_FLOOR, Zone, parse_time, rfc3339};

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    /// A moment after the floor at which all is well.
    const NOON: i64 = BUILD_FLOOR + 100 * DAY;

    /// A machine with a keeper, a tick every 30 s, and the rows that a caller would write.
    struct Rig {
        keeper: Keeper,
        mono_ms: u64,
        wall_ms: i64,
        unplaced: Vec<u64>,
        rows: Vec<i64>,
        steps: Vec<i64>,
    }

    impl Rig {
        /// Twenty seconds after the boot, the wall clock saying `wall`.
        fn boot(wall: i64, newest: Option<i64>) -> Rig {
            Rig {
                keeper: Keeper::new(BUILD_FLOOR, newest),
                mono_ms: 20_000,
                wall_ms: wall * 1000,
                unplaced: Vec::new(),
                rows: Vec::new(),
                steps: Vec::new(),
            }
        }

        fn tick(&mut self) -> &mut Rig {
            let step = self.keeper.observe(Now { mono_ms: self.mono_ms, unix_ms: self.wall_ms });
            self.unplaced.push(self.mono_ms);
            if let Some(offset) = step.offset_ms {
                self.rows.extend(self.unplaced.drain(..).map(|mono| (offset + mono as i64).div_euclid(1000)));
                self.keeper.placed(self.rows[self.rows.len() - 1]);
            }
            self.steps.extend(step.stepped_ms.map(|moved| moved / 1000));
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

        /// `(placed ticks, unplaced ticks)`, with every row where the true time has it: 30 s apart up to now.
        fn check_true(&self, placed: usize, unplaced: usize) {
            assert_eq!((self.rows.len(), self.unplaced.len()), (placed, unplaced));
            for (back, row) in self.rows.iter().rev().enumerate() {
                let expect = self.wall_ms / 1000 - 30 * back as i64;
                assert_eq!(rfc3339(*row), rfc3339(expect), "{back} ticks ago");
            }
        }

        fn check(&self, placed: usize, unplaced: usize) {
            assert_eq!((self.rows.len(), self.unplaced.len()), (placed, unplaced));
        }
    }

    #[test]
    fn an_ordinary_start_is_believed_at_once() {
        Rig::boot(NOON, None).tick().run(300).check_true(11, 0);
        Rig::boot(NOON, Some(NOON - 60)).tick().run(300).check_true(11, 0);
        Rig::boot(NOON, Some(NOON - 20 * HOUR)).tick().run(300).check_true(11, 0);
        Rig::boot(NOON, Some(NOON + 60)).tick().run(300).check_true(11, 0);
    }

    #[test]
    fn a_weekend_switched_off_costs_two_minutes() {
        let mut rig = Rig::boot(NOON, Some(NOON - 3 * DAY));
        rig.tick().run(90).check(0, 4);
        rig.run(30).check_true(5, 0);
        let mut rig = Rig::boot(NOON, Some(NOON - 300 * DAY));
        rig.tick().run(120).check_true(5, 0);
    }

    #[test]
    fn e20_boot_in_1970_until_the_network_is_there() {
        for newest in [None, Some(NOON - 300)] {
            let mut rig = Rig::boot(20, newest);
            rig.tick().run(300).check(0, 11);
            rig.set_to(NOON).run(30).check_true(12, 0);
            assert_eq!(rig.steps, [NOON - 20 - 300]);
        }
    }

    #[test]
    fn e20_boot_in_2033_until_the_network_is_there() {
        let absurd = parse_time("2033-04-05T12:00:00Z", &Zone::UTC).unwrap();
        for newest in [None, Some(NOON - 300)] {
            let mut rig = Rig::boot(absurd, newest);
            rig.tick().run(30 * 60).check(0, 61);
            rig.set_to(NOON).run(30).check_true(62, 0);
        }
    }

    #[test]
    fn e20_boot_nine_hours_behind() {
        let mut rig = Rig::boot(NOON - 9 * HOUR, Some(NOON - 300));
        rig.tick().run(30 * 60).check(0, 61);
        rig.set_by(9 * HOUR).run(30).check_true(62, 0);
        assert_eq!(rig.steps, [9 * HOUR]);
    }

    #[test]
    fn e20_boot_past_2038_until_the_network_is_there() {
        let mut rig = Rig::boot(1 << 32, Some(NOON - 300));
        rig.tick().run(300).check(0, 11);
        rig.set_to(NOON).run(30).check_true(12, 0);
    }

    #[test]
    fn e21_a_clock_that_nobody_sets_is_believed_in_the_end() {
        for wall in [-5 * YEAR, 20, BUILD_FLOOR - 1000, NOON - 9 * HOUR, NOON + 30 * YEAR] {
            let mut rig = Rig::boot(wall, Some(NOON));
            rig.tick().run(59 * 60).check(0, 119);
            rig.run(60).check_true(121, 0);
            // And from then on it is as good as any.
            rig.run(300).check_true(131, 0);
        }
    }

    #[test]
    fn e21_a_clock_that_never_stays_anywhere_is_believed_in_the_end() {
        let mut rig = Rig::boot(20, Some(NOON));
        rig.tick();
        for turn in 0..719 {
            rig.set_by(if turn % 2 == 0 { 1000 } else { -900 }).run(30);
        }
        rig.check(0, 720);
        rig.run(30).check_true(721, 0);
    }

    #[test]
    fn e21_rows_from_2033_do_not_stop_the_present() {
        let absurd = parse_time("2033-04-05T12:00:00Z", &Zone::UTC).unwrap();
        let mut rig = Rig::boot(absurd, Some(NOON - 300));
        rig.tick().run(2 * HOUR);
        let wrong = rig.rows.len();
        rig.set_to(NOON).run(10 * 60).check(wrong, 20);
        rig.run(30).check(wrong + 21, 0);
        assert!(rig.rows[wrong..].iter().all(|row| (NOON..NOON + 700).contains(row)));
        // A later step is judged by the present, not by 2033.
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
    fn e22_an_hour_forward_is_believed_at_once() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(HOUR).run(30).check(12, 0);
        assert_eq!((rig.rows[11] - rig.rows[10], &rig.steps[..]), (HOUR + 30, &[HOUR][..]));
    }

    #[test]
    fn e22_an_hour_back_is_believed_when_it_stays() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(-HOUR).run(600).check(11, 20);
        rig.run(30).check(32, 0);
        assert_eq!((rig.rows[11] - rig.rows[10], &rig.steps[..]), (30 - HOUR, &[-HOUR][..]));
        assert!(rig.rows[11..].windows(2).all(|pair| pair[1] - pair[0] == 30));
    }

    #[test]
    fn e22_an_hour_back_and_forth_leaves_no_trace() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(-HOUR).run(300).set_by(HOUR).run(30).check_true(22, 0);
        assert_eq!(rig.steps, [-HOUR, HOUR]);
    }

    #[test]
    fn e22_eight_years_and_back_leave_no_trace() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(8 * YEAR).run(570).check(11, 19);
        rig.set_by(-8 * YEAR).run(30).check_true(31, 0);
        assert_eq!(rig.steps, [8 * YEAR, -8 * YEAR]);
    }

    #[test]
    fn e22_eight_years_that_stay_are_believed() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(8 * YEAR).run(600).check(11, 20);
        rig.run(30).check(32, 0);
        assert!(rig.rows[11..].iter().all(|row| *row > NOON + 8 * YEAR));
    }

    #[test]
    fn e22_seconds_back_are_believed_at_once() {
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_by(-90).run(30).check(12, 0);
        assert_eq!(rig.steps, [-90]);
    }

    #[test]
    fn e23_the_build_date_is_a_floor() {
        let mut rig = Rig::boot(BUILD_FLOOR - 1, None);
        rig.tick().check(0, 1);
        // Reached while running, it is passed.
        rig.run(30).check_true(2, 0);
        let mut rig = Rig::boot(NOON, None);
        rig.tick().run(300).set_to(BUILD_FLOOR - DAY).run(3600).check(11, 120);
        rig.run(30).check(132, 0);
    }

    #[test]
    fn e12_a_restart_on_the_same_boot_goes_on() {
        fn check(pause: i64, set_by: i64, expect: (usize, &[i64])) {
            let mut first = Rig::boot(NOON, None);
            first.tick();
            let newest = Now { mono_ms: first.mono_ms, unix_ms: first.wall_ms / 1000 * 1000 };
            let mut rig = Rig { keeper: Keeper::new(BUILD_FLOOR, Some(NOON)), ..first };
            rig.rows.clear();
            rig.wall_ms += 999;
            rig.keeper.resume(newest);
            rig.pass(pause).set_by(set_by).tick();
            assert_eq!((rig.rows.len(), &rig.steps[..]), expect, "{pause} {set_by}");
        }
        check(10, 0, (1, &[]));
        check(30 * DAY, 0, (1, &[]));
        check(3000 * DAY, 0, (1, &[]));
        check(10, 60, (1, &[60]));
        check(10, -HOUR, (0, &[1 - HOUR]));
    }

    #[test]
    fn no_reading_is_too_strange() {
        let strange = [i64::MIN, i64::MIN + 1, -1, 0, i64::from(i32::MAX), i64::MAX - 1, i64::MAX];
        for newest in [None, Some(i64::MIN), Some(NOON), Some(i64::MAX)] {
            let mut keeper = Keeper::new(BUILD_FLOOR, newest);
            for unix_ms in strange {
                for mono_ms in [0, u64::MAX, 1, u64::MAX / 2] {
                    keeper.observe(Now { mono_ms, unix_ms });
                    keeper.placed(unix_ms);
                }
            }
            keeper.resume(Now { mono_ms: u64::MAX, unix_ms: i64::MIN });
            keeper.observe(Now { mono_ms: 0, unix_ms: i64::MAX });
        }
    }
}
