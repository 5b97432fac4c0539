//! Two readings of one interface's counters, and what happened between them. Pure: no clock, no kernel, no names.
//!
//! The kernel's counters only rise. When all of them fall, the interface was made anew (PPPoE, Wi-Fi, a VPN) and counts
//! from zero. When one falls and the others rise, a driver or a modem has reported nonsense for a moment. Booking a
//! rollover in either case is how other monitors come by their phantom +4 GiB: a rollover is believed only where it is
//! proven.

use crate::model::{COUNTER_NAMES, COUNTERS, Counters, RX_BYTES, RX_PACKETS, TX_BYTES, TX_PACKETS, Width};

/// What the second reading means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The counters rose, or stood still.
    Plain(Counters),
    /// At least one counter went past its top; the others rose.
    Wrap(Counters),
    /// The counters began again from zero; this is what has passed since.
    Reset(Counters),
    /// Some counters fell while others rose, by no rollover. Nothing is booked for the fall: a counter that stands at or
    /// above its old value at the next reading goes on from there, another from where it has fallen to.
    Dip { delta: Counters, fell: [bool; COUNTERS] },
    /// Everything reads zero for the first time: some drivers do so for one reading and recover. Keep the previous
    /// reading and look again.
    Held,
    /// More than any link could have carried, as after a virtual machine's migration: nothing can be said of the time
    /// between, and counting goes on from here. The bytes that were not booked.
    Implausible(u64),
}

/// What is known of the time between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    pub elapsed_ms: u64,
    /// What the link says of itself, often wrong: 10 on a tun that carries a gigabit. It decides only what is ambiguous.
    pub speed_mbit: Option<u32>,
    pub width: Width,
}

/// No link reaches 1 Tbit/s; bond drivers were seen to report 471.
const CEILING_MBIT: u64 = 1_000_000;
/// For links of unknown speed, where a number has to be taken for what may have passed since a reset.
const ORDINARY_MBIT: u64 = 10_000;
/// A 64-bit counter wraps only if it stood this close below its top.
const LAST_STRETCH: u64 = 1 << 40;
const SMALLEST_FRAME: u64 = 14;
/// What counts as one packet: after GRO up to 64 KiB, with BIG TCP up to eight times that (`GSO_MAX_SIZE` in
/// include/linux/netdevice.h).
const LARGEST_FRAME: u64 = 8 * 65_536;

/// Each direction's bytes and packets: what a link that carries anything counts.
const DIRECTIONS: [(usize, usize); 2] = [(RX_BYTES, RX_PACKETS), (TX_BYTES, TX_PACKETS)];

/// What the next reading is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    pub counters: Counters,
    /// Counters that fell at the latest reading, and what they fell to. `counters` still has their old values.
    fell: [bool; COUNTERS],
    low: Counters,
    /// Everything read zero at the latest reading.
    zero: bool,
}

impl Baseline {
    pub fn new(counters: Counters) -> Baseline {
        Baseline { counters, fell: [false; COUNTERS], low: Counters::ZERO, zero: false }
    }

    /// Whether the bytes of the latest reading are uncertain: one of them is held.
    pub fn is_blind(&self) -> bool {
        self.fell[RX_BYTES] || self.fell[TX_BYTES]
    }

    /// Compares with a later reading, and goes on from that.
    pub fn advance(&mut self, after: &Counters, between: &Between) -> Change {
        let mut before = self.counters;
        for at in 0..COUNTERS {
            if self.fell[at] && after.0[at] < before.0[at] {
                before.0[at] = self.low.0[at];
            }
        }
        let change = compare(&before, after, between, self.zero);
        match change {
            Change::Held => self.zero = true,
            Change::Dip { fell, .. } => {
                let counters = Counters(std::array::from_fn(|at| if fell[at] { before.0[at] } else { after.0[at] }));
                *self = Baseline { counters, fell, low: *after, zero: false };
            }
            _ => *self = Baseline::new(*after),
        }
        change
    }
}

/// `zero`: the reading before this one was zero throughout, and was held back.
fn compare(before: &Counters, after: &Counters, between: &Between, zero: bool) -> Change {
    let mut fell: [bool; COUNTERS] = std::array::from_fn(|at| after.0[at] < before.0[at]);
    let mut delta = after.since(before);
    if !fell.contains(&true) {
        return carried(delta, between).map_or(Change::Plain(delta), Change::Implausible);
    }
    if after.is_zero() && !zero {
        return Change::Held;
    }
    let whole = fell;
    for (at, fell) in fell.iter_mut().enumerate() {
        if let Some(passed) = wrapped(before, after, &whole, at, between) {
            (delta.0[at], *fell) = (passed, false);
        }
    }
    if !fell.contains(&true) {
        return Change::Wrap(delta);
    }
    if began_anew(before, after, &whole, between) {
        let ceiling = bytes_at(ORDINARY_MBIT.max(2 * speed(between)), between.elapsed_ms);
        return excess(after, ceiling).map_or(Change::Reset(*after), Change::Implausible);
    }
    carried(delta, between).map_or(Change::Dip { delta, fell }, Change::Implausible)
}

/// The names of the counters that fell, for people.
pub fn names(fell: &[bool; COUNTERS]) -> String {
    let names: Vec<&str> = COUNTER_NAMES.iter().zip(fell).filter(|(_, fell)| **fell).map(|(name, _)| *name).collect();
    names.join(", ")
}

fn speed(between: &Between) -> u64 {
    between.speed_mbit.map_or(0, u64::from)
}

/// Bytes that a link of this speed carries in this time, and in one second more: readings are not taken at the instant
/// that their clock says.
fn bytes_at(mbit: u64, elapsed_ms: u64) -> u64 {
    (mbit * 125).saturating_mul(elapsed_ms.saturating_add(1000))
}

fn excess(delta: &Counters, ceiling: u64) -> Option<u64> {
    let most = delta.rx_bytes().max(delta.tx_bytes());
    (most > ceiling).then_some(most)
}

/// The bytes of a rise that no link can have carried.
fn carried(delta: Counters, between: &Between) -> Option<u64> {
    excess(&delta, bytes_at(CEILING_MBIT.max(4 * speed(between)), between.elapsed_ms))
}

/// Whether all counters began again from zero. None that had a value may still stand there, but for one that is small
/// enough to have been counted since: then at least two others must have fallen. And one must have fallen by more than a
/// tenth: a new link does not begin just below the old one.
fn began_anew(before: &Counters, after: &Counters, fell: &[bool; COUNTERS], between: &Between) -> bool {
    let counted = || DIRECTIONS.into_iter().flat_map(|(bytes, packets)| [bytes, packets]);
    let fallen = counted().filter(|at| fell[*at]).count();
    if !counted().any(|at| fell[at] && after.0[at] < before.0[at] / 10 * 9) {
        return false;
    }
    let mut standing = counted().filter(|at| before.0[*at] > 0 && !fell[*at]);
    let Some(first) = standing.next() else { return fallen > 0 };
    let since = bytes_at(ORDINARY_MBIT.max(2 * speed(between)), between.elapsed_ms);
    standing.next().is_none() && fallen >= 2 && after.0[first] <= since
}

/// What has passed if the fall of this counter is a proven rollover.
fn wrapped(before: &Counters, after: &Counters, fell: &[bool; COUNTERS], at: usize, between: &Between) -> Option<u64> {
    if !fell[at] {
        return None;
    }
    // Wrapping subtraction and not "top - before + after", which is one short.
    let wide = after.0[at].wrapping_sub(before.0[at]);
    let narrow = u64::from((after.0[at] as u32).wrapping_sub(before.0[at] as u32));
    let passed = if before.0[at] >= u64::MAX - LAST_STRETCH {
        wide
    } else if before.0[at] <= u64::from(u32::MAX) && survived(before, after, fell, at, between.width) {
        // That a driver counts to 32 bits behind a 64-bit field is a guess: it takes more than a fall. A small one would be a
        // turn through nearly all of them.
        let half = u64::from(u32::MAX / 2);
        if between.width == Width::Bits64 && (before.0[at] < half || narrow > half) {
            return None;
        }
        narrow
    } else {
        return None;
    };
    (passed <= most(before, after, fell, at, between)).then_some(passed)
}

/// The most that one counter can have counted: by the link's speed, and by what the other counter of its direction says.
/// A counter of packets that has never moved says nothing: some drivers do not count them.
fn most(before: &Counters, after: &Counters, fell: &[bool; COUNTERS], at: usize, between: &Between) -> u64 {
    let mbit = match between.speed_mbit {
        Some(mbit) => u64::from(mbit) + u64::from(mbit) / 4,
        None => ORDINARY_MBIT,
    };
    let bytes = bytes_at(mbit, between.elapsed_ms);
    let moved = |other: usize| match fell[other] && before.0[other] < u64::MAX - LAST_STRETCH {
        true => u64::from((after.0[other] as u32).wrapping_sub(before.0[other] as u32)),
        false => after.0[other].wrapping_sub(before.0[other]),
    };
    let counted = |other: usize| after.0[other] > 0 || before.0[other] > 0;
    match DIRECTIONS.into_iter().find(|(bytes, packets)| [*bytes, *packets].contains(&at)) {
        Some((_, packets)) if at != packets && counted(packets) => {
            bytes.min(moved(packets).saturating_mul(LARGEST_FRAME))
        }
        Some((_, packets)) if at != packets => bytes,
        Some((other, _)) if counted(other) => bytes.min(moved(other)) / SMALLEST_FRAME,
        Some(_) => bytes / SMALLEST_FRAME,
        // Errors and drops: a small fall must not pass for a turn through nearly all of 32 bits.
        None => (bytes / SMALLEST_FRAME).min(u64::from(u32::MAX / 2)),
    }
}

/// Whether something shows that the interface is still the one it was. A new one has all its counters near zero, so a
/// counter that had a value and did not fall is the proof.
fn survived(before: &Counters, after: &Counters, fell: &[bool; COUNTERS], at: usize, width: Width) -> bool {
    let stands = |other: usize| !fell[other] && before.0[other] > 0;
    match width {
        // The counters are known to be narrow: any other counter will do, and where there is no other, so will its absence.
        Width::Bits32 => (0..COUNTERS).any(stands) || (0..COUNTERS).all(|other| other == at || before.0[other] == 0),
        // A narrow driver behind 64-bit fields: the frames of the same direction must have risen with the bytes.
        Width::Bits64 => DIRECTIONS
            .into_iter()
            .any(|(bytes, packets)| bytes == at && stands(packets) && after.0[packets] > before.0[packets]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP32: u64 = u32::MAX as u64;
    const HALF_MINUTE: Between = Between { elapsed_ms: 30_000, speed_mbit: None, width: Width::Bits64 };
    const NARROW: Between = Between { width: Width::Bits32, ..HALF_MINUTE };

    /// Bytes and packets of both directions.
    fn four(rx: u64, tx: u64, rx_packets: u64, tx_packets: u64) -> Counters {
        Counters::of([rx, tx, rx_packets, tx_packets, 0, 0, 0, 0])
    }

    fn check(before: Counters, after: Counters, between: Between, expect: Change) {
        let change = Baseline::new(before).advance(&after, &between);
        assert_eq!(change, expect, "{before:?} -> {after:?} in {between:?}");
    }

    /// Readings one after another, and what each means after the first.
    fn follow(first: Counters, readings: &[(Counters, Change)]) {
        let mut baseline = Baseline::new(first);
        for (at, (after, expect)) in readings.iter().enumerate() {
            assert_eq!(baseline.advance(after, &HALF_MINUTE), *expect, "reading {at} of {readings:?}");
        }
    }

    fn dip(delta: Counters, fell: &[usize]) -> Change {
        Change::Dip { delta, fell: std::array::from_fn(|at| fell.contains(&at)) }
    }

    #[test]
    fn all_eight_rise() {
        let before = Counters::of([1, 2, 3, 4, 5, 6, 7, 8]);
        let after = Counters::of([11, 22, 33, 44, 55, 66, 77, 88]);
        check(before, after, HALF_MINUTE, Change::Plain(Counters::of([10, 20, 30, 40, 50, 60, 70, 80])));
        check(before, before, HALF_MINUTE, Change::Plain(Counters::ZERO));
    }

    #[test]
    fn e1_decrease_is_a_reset_and_not_four_gibibytes() {
        let fresh = four(1000, 500, 5, 4);
        check(four(3_000_000_000, 9, 9000, 9), fresh, HALF_MINUTE, Change::Reset(fresh));
        // Plausible for the link, and every counter fell: still a reset, even where counters are narrow.
        check(four(TOP32 - 100, 4000, 9000, 40), fresh, NARROW, Change::Reset(fresh));
        let gigabit = Between { speed_mbit: Some(1000), ..NARROW };
        check(four(TOP32 - 100, 4000, 9000, 40), fresh, gigabit, Change::Reset(fresh));
    }

    #[test]
    fn e2_no_64_bit_wrap_without_proof() {
        // 8 EiB on a tap that was made anew.
        check(four(1 << 63, 7, 8, 9), four(10, 1, 1, 1), HALF_MINUTE, Change::Reset(four(10, 1, 1, 1)));
        check(four(u64::MAX - 999, 0, 0, 0), four(500, 0, 0, 0), HALF_MINUTE, Change::Wrap(four(1500, 0, 0, 0)));
        // In the last stretch, but more than the link can carry.
        let slow = Between { speed_mbit: Some(10), ..HALF_MINUTE };
        let after = four(50_000_000, 0, 1, 0);
        check(four(u64::MAX - (1 << 39), 0, 0, 0), after, slow, Change::Reset(after));
    }

    #[test]
    fn e3_known_32_bit_counter_wraps() {
        check(four(TOP32 - 99, 10, 7, 1), four(200, 10, 9, 1), NARROW, Change::Wrap(four(300, 0, 2, 0)));
        // Bytes and packets in one interval: transmission stands as the witness.
        check(four(TOP32 - 99, 10, TOP32, 1), four(200, 10, 0, 1), NARROW, Change::Wrap(four(300, 0, 1, 0)));
        // More than the link can carry in the time is none.
        let slow = Between { speed_mbit: Some(10), ..NARROW };
        let before = four(TOP32 - 99, 10, 7, 1);
        check(before, four(100_000_000, 20, 900, 2), slow, dip(four(0, 10, 893, 1), &[0]));
        // Nor are ten packets four gigabytes, GRO and BIG TCP included.
        let hour = Between { elapsed_ms: 3_600_000, ..NARROW };
        let dipped = four(3_717_611_343, 9_000_002_000, 120, 120);
        let before = four(3_717_616_438, 9_000_001_000, 110, 110);
        check(before, dipped, hour, dip(four(0, 1000, 10, 10), &[0]));
        let after = four(4_000_000, 10, 7 + 8, 1);
        check(four(TOP32 - 99, 10, 7, 1), after, hour, Change::Wrap(four(4_000_100, 0, 8, 0)));
        let after = four(4_300_000, 10, 7 + 8, 1);
        check(four(TOP32 - 99, 10, 7, 1), after, hour, dip(four(0, 0, 8, 0), &[0]));
        // A driver that counts no packets at all is judged by speed and time alone.
        check(four(TOP32 - 99, 10, 0, 0), four(200, 10, 0, 0), NARROW, Change::Wrap(four(300, 0, 0, 0)));
        // A count of packets that fell back is not a turn through all of 32 bits either.
        check(four(9_000, 9_000, 120, 90), four(9_900, 9_000, 110, 90), hour, dip(four(900, 0, 0, 0), &[2]));
        let drops = |count| Counters::of([5000, 5000, 50, 50, 0, 0, count, 0]);
        check(drops(50), drops(0), hour, dip(Counters::ZERO, &[6]));
        check(drops(TOP32), drops(4), hour, Change::Wrap(Counters::of([0, 0, 0, 0, 0, 0, 5, 0])));
    }

    #[test]
    fn e4_narrow_driver_behind_a_64_bit_field() {
        let before = four(TOP32 - 1000, 5, 3_000_000, 7);
        check(before, four(1500, 5, 3_000_002, 7), HALF_MINUTE, Change::Wrap(four(2501, 0, 2, 0)));
        // Once past 32 bits it cannot be narrow.
        let past = four(TOP32 + 1000, 5, 3_000_000, 7);
        check(past, four(1500, 5, 3_000_002, 7), HALF_MINUTE, dip(four(0, 0, 2, 0), &[0]));
        // Nor does a fall from the lower half prove it, or one by a little, however many packets there were.
        let low = four(1_000_000_000, 1_000_000_000, 1_000_000, 1_000_000);
        let after = four(999_999_999, 1_000_001_000, 1_090_000, 1_000_010);
        check(low, after, HALF_MINUTE, dip(four(0, 1000, 90_000, 10), &[0]));
        let high = four(4_000_000_000, 5, 1_000_000, 7);
        check(high, four(3_999_999_999, 5, 1_090_000, 7), HALF_MINUTE, dip(four(0, 0, 90_000, 0), &[0]));
        // Without a frame there are no bytes.
        check(before, four(1500, 5, 3_000_000, 7), HALF_MINUTE, dip(Counters::ZERO, &[0]));
    }

    #[test]
    fn one_counter_falls_while_the_others_rise() {
        let before = four(5_000_000, 900, 4000, 8);
        // It recovers: what passed since the old value is booked, and nothing for the fall.
        follow(
            before,
            &[
                (four(4_990_000, 1000, 4010, 9), dip(four(0, 100, 10, 1), &[0])),
                (four(5_000_700, 1100, 4020, 10), Change::Plain(four(700, 100, 10, 1))),
            ],
        );
        // It does not: it goes on from where it has fallen to.
        follow(
            before,
            &[
                (four(300, 1000, 4010, 9), dip(four(0, 100, 10, 1), &[0])),
                (four(500, 1100, 4020, 10), Change::Plain(four(200, 100, 10, 1))),
                (four(900, 1100, 4020, 10), Change::Plain(four(400, 0, 0, 0))),
            ],
        );
        // It falls again, and another one with it.
        follow(
            before,
            &[
                (four(300, 1000, 4010, 9), dip(four(0, 100, 10, 1), &[0])),
                (four(200, 1100, 4005, 10), dip(four(0, 100, 0, 1), &[0, 2])),
                (four(250, 1200, 4011, 11), Change::Plain(four(50, 100, 1, 1))),
            ],
        );
        // Counters of drops that somebody has zeroed.
        let drops = |bytes, count| Counters::of([bytes, bytes, 9, 9, 0, 0, count, 0]);
        follow(
            drops(2_000_000_000, 50),
            &[
                (drops(2_000_001_000, 0), dip(Counters::of([1000, 1000, 0, 0, 0, 0, 0, 0]), &[6])),
                (drops(2_000_002_000, 3), Change::Plain(Counters::of([1000, 1000, 0, 0, 0, 0, 3, 0]))),
            ],
        );
    }

    #[test]
    fn a_fall_by_a_little_is_no_reset_though_nothing_else_counts() {
        let before = four(5_000_000_000, 0, 4_000_000, 0);
        let low = four(4_999_999_900, 0, 3_999_999, 0);
        let next = four(5_000_000_500, 0, 4_000_001, 0);
        follow(before, &[(low, dip(Counters::ZERO, &[0, 2])), (next, Change::Plain(four(500, 0, 1, 0)))]);
    }

    #[test]
    fn a_rollover_and_a_fall_in_one_reading_are_told_apart() {
        let before = Counters::of([TOP32 - 1000, 5, 3_000_000, 7, 0, 0, 50, 0]);
        let after = Counters::of([1500, 5, 3_000_002, 7, 0, 0, 0, 0]);
        check(before, after, HALF_MINUTE, dip(Counters::of([2501, 0, 2, 0, 0, 0, 0, 0]), &[6]));
    }

    #[test]
    fn a_rise_is_never_cut_by_the_count_of_packets() {
        let stands_still = four(1_000_000_000, 0, 5, 0);
        check(four(1000, 0, 5, 0), stands_still, HALF_MINUTE, Change::Plain(four(999_999_000, 0, 0, 0)));
    }

    #[test]
    fn e6_sudden_zero_is_held_once() {
        let before = four(5000, 600, 7, 8);
        let then = |after, expect| follow(before, &[(Counters::ZERO, Change::Held), (after, expect)]);
        then(four(5100, 600, 8, 8), Change::Plain(four(100, 0, 1, 0)));
        then(four(40, 0, 1, 0), Change::Reset(four(40, 0, 1, 0)));
        then(Counters::ZERO, Change::Reset(Counters::ZERO));
        check(Counters::ZERO, Counters::ZERO, HALF_MINUTE, Change::Plain(Counters::ZERO));
    }

    #[test]
    fn e7_kernel_nonsense_is_implausible() {
        // 471 Tbit/s for one second.
        let second = Between { elapsed_ms: 1000, ..HALF_MINUTE };
        check(Counters::ZERO, four(471 * 125_000_000_000, 0, 1, 0), second, Change::Implausible(471 * 125_000_000_000));
        // A virtual machine that is set back to a snapshot shows a smaller number, but not one that was carried since.
        let snapshot = four(500_000_000_000, 0, 400_000_000, 0);
        let before = four(900_000_000_000, 0, 800_000_000, 0);
        check(before, snapshot, HALF_MINUTE, Change::Implausible(500_000_000_000));
        check(Counters::ZERO, four(u64::MAX, 0, 1, 0), HALF_MINUTE, Change::Implausible(u64::MAX));
    }

    #[test]
    fn e8_a_wrong_link_speed_eats_no_traffic() {
        // A tun that calls itself 10 Mbit/s, at one gigabit for half a minute.
        let tun = Between { speed_mbit: Some(10), ..HALF_MINUTE };
        let delta = four(3_750_000_000, 0, 2_500_000, 0);
        check(Counters::ZERO, delta, tun, Change::Plain(delta));
        // And one that was made anew meanwhile.
        check(four(9_000_000_000, 1, 9_000_000, 1), delta, tun, Change::Reset(delta));
    }

    #[test]
    fn e9_unknown_speed_is_no_limit_of_zero() {
        let delta = four(30_000_000_000, 0, 20_000_000, 0);
        check(Counters::ZERO, delta, HALF_MINUTE, Change::Plain(delta));
        check(Counters::ZERO, delta, Between { speed_mbit: Some(0), ..HALF_MINUTE }, Change::Plain(delta));
    }

    #[test]
    fn e10_wraps_are_exact_to_the_byte() {
        check(four(TOP32, 1, 1, 1), four(0, 1, 2, 1), NARROW, Change::Wrap(four(1, 0, 1, 0)));
        check(four(u64::MAX, 1, 1, 1), four(0, 1, 2, 1), HALF_MINUTE, Change::Wrap(four(1, 0, 1, 0)));
    }

    #[test]
    fn e12_long_gap_is_no_reason_to_drop() {
        let week = Between { elapsed_ms: 7 * 86_400_000, ..HALF_MINUTE };
        let delta = four(2_000_000_000_000, 5, 6, 7);
        check(Counters::ZERO, delta, week, Change::Plain(delta));
        check(Counters::ZERO, delta, Between { elapsed_ms: u64::MAX, ..HALF_MINUTE }, Change::Plain(delta));
    }
}
