//! Compares two readings of one interface's counters and classifies the difference. Pure: no clock and no kernel.
//!
//! The kernel's counters only rise. When all of them fall, the link was destroyed and created again (PPPoE, Wi-Fi, a
//! VPN) and counts from zero. When one falls and the others rise, a driver or a modem reported nonsense for a moment.
//! Monitors that take either case for a wrap (a counter that passed its maximum) record 4 GiB that were never sent.
//! This module accepts a wrap only where the other counters prove it.

use crate::model::{COUNTER_NAMES, COUNTERS, Counters, RX_BYTES, RX_PACKETS, TX_BYTES, TX_PACKETS, Width};

/// Result of comparing a reading with the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// No counter fell. Contains the delta.
    Plain(Counters),
    /// At least one counter passed its maximum and started again from zero; no other counter fell. Contains the delta.
    Wrap(Counters),
    /// All counters started again from zero. Contains the delta since then, which is the new reading itself.
    Reset(Counters),
    /// Some counters fell, and neither a wrap nor a reset explains it. `delta` is zero for the counters in `fell`.
    /// If such a counter is back at its old value or above at the next reading, that reading is compared with the old
    /// value, otherwise with the value it fell to.
    Dip { delta: Counters, fell: [bool; COUNTERS] },
    /// All counters read zero, and at least one was above zero at the previous reading. Some drivers do this for one
    /// reading and recover, so the baseline stays and the next reading decides.
    AllZero,
    /// The rise is more than any link can carry, for example after the migration of a virtual machine; or all counters
    /// fell, but to more than this link can have carried since. The delta is unknown; the reading becomes the baseline.
    /// Contains the rise of the bytes received or of the bytes sent, whichever is larger. Neither is counted.
    Implausible(u64),
}

/// Facts about the time between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadingInterval {
    pub elapsed_ms: u64,
    /// Speed that the link reports. Often wrong: 10 on a tun device that carries a gigabit. Used where the counters
    /// alone are ambiguous, and to raise the limit above which a rise is implausible.
    pub speed_mbit: Option<u32>,
    pub width: Width,
}

/// 1 Tbit/s: faster than any link. Counters of bonds were seen to rise at 471 Tbit/s.
const MAX_LINK_MBIT: u64 = 1_000_000;
/// Speed assumed for a link of unknown speed; after a restart from zero, also for one that reports a lower speed.
const ASSUMED_MBIT: u64 = 10_000;
/// The fall of a 64-bit counter can only be a wrap if the counter was at most this far below its maximum.
const WRAP_MARGIN: u64 = 1 << 40;
/// An Ethernet header without payload.
const MIN_FRAME_BYTES: u64 = 14;
/// The largest unit that counts as one packet: up to 64 KiB after GRO, with BIG TCP up to eight times that
/// (`GSO_MAX_SIZE` in include/linux/netdevice.h).
const MAX_PACKET_BYTES: u64 = 8 * 65_536;

/// Indexes of the byte and the packet counter of each direction. Every driver counts bytes; some count no packets.
const DIRECTIONS: [(usize, usize); 2] = [(RX_BYTES, RX_PACKETS), (TX_BYTES, TX_PACKETS)];

/// The previous reading of an interface, from which the next delta is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// For a counter in `fell`: its value before it fell.
    pub counters: Counters,
    /// Counters that fell at the latest reading.
    fell: [bool; COUNTERS],
    /// The latest reading; only used for the counters in `fell`.
    latest: Counters,
    /// All counters read zero at the latest reading.
    was_zero: bool,
}

impl Baseline {
    pub fn new(counters: Counters) -> Baseline {
        Baseline { counters, fell: [false; COUNTERS], latest: Counters::ZERO, was_zero: false }
    }

    /// Whether a byte counter fell at the latest reading, so that the bytes since then are uncertain.
    pub fn bytes_fell(&self) -> bool {
        self.fell[RX_BYTES] || self.fell[TX_BYTES]
    }

    /// Compares with a later reading, which then becomes the baseline. After `AllZero` the old baseline stays.
    pub fn advance(&mut self, after: &Counters, between: &ReadingInterval) -> Comparison {
        let mut before = self.counters;
        for at in 0..COUNTERS {
            if self.fell[at] && after.0[at] < before.0[at] {
                before.0[at] = self.latest.0[at];
            }
        }
        let change = compare(&before, after, between, self.was_zero);
        match change {
            Comparison::AllZero => self.was_zero = true,
            Comparison::Dip { fell, .. } => {
                let counters = Counters(std::array::from_fn(|at| if fell[at] { before.0[at] } else { after.0[at] }));
                *self = Baseline { counters, fell, latest: *after, was_zero: false };
            }
            _ => *self = Baseline::new(*after),
        }
        change
    }
}

/// `was_zero`: all counters were zero at the reading before `after`, and the result for it was `AllZero`.
fn compare(before: &Counters, after: &Counters, between: &ReadingInterval, was_zero: bool) -> Comparison {
    let mut fell: [bool; COUNTERS] = std::array::from_fn(|at| after.0[at] < before.0[at]);
    let mut delta = after.since(before);
    if !fell.contains(&true) {
        return impossible_bytes(delta, between).map_or(Comparison::Plain(delta), Comparison::Implausible);
    }
    if after.is_zero() && !was_zero {
        return Comparison::AllZero;
    }
    let fell_or_wrapped = fell;
    for (at, fell) in fell.iter_mut().enumerate() {
        if let Some(rise) = wrap_rise(before, after, &fell_or_wrapped, at, between) {
            (delta.0[at], *fell) = (rise, false);
        }
    }
    if !fell.contains(&true) {
        return Comparison::Wrap(delta);
    }
    if restarted(before, after, &fell_or_wrapped, between) {
        let limit = bytes_at(ASSUMED_MBIT.max(2 * speed(between)), between.elapsed_ms);
        return bytes_above(after, limit).map_or(Comparison::Reset(*after), Comparison::Implausible);
    }
    impossible_bytes(delta, between).map_or(Comparison::Dip { delta, fell }, Comparison::Implausible)
}

/// The names of the counters that fell, separated by commas, for an event text.
pub fn counter_names(fell: &[bool; COUNTERS]) -> String {
    let names: Vec<&str> = COUNTER_NAMES.iter().zip(fell).filter(|(_, fell)| **fell).map(|(name, _)| *name).collect();
    names.join(", ")
}

fn speed(between: &ReadingInterval) -> u64 {
    between.speed_mbit.map_or(0, u64::from)
}

/// Bytes that a link of this speed carries in this time plus one second: the kernel reads the counters slightly before
/// or after the moment that the clock shows.
fn bytes_at(mbit: u64, elapsed_ms: u64) -> u64 {
    (mbit * 125).saturating_mul(elapsed_ms.saturating_add(1000))
}

/// The bytes received or the bytes sent, whichever are more, if they exceed the limit.
fn bytes_above(delta: &Counters, limit: u64) -> Option<u64> {
    let larger = delta.rx_bytes().max(delta.tx_bytes());
    (larger > limit).then_some(larger)
}

/// The bytes of a rise that no link can have carried.
fn impossible_bytes(delta: Counters, between: &ReadingInterval) -> Option<u64> {
    bytes_above(&delta, bytes_at(MAX_LINK_MBIT.max(4 * speed(between)), between.elapsed_ms))
}

/// Whether all counters started again from zero: each byte and packet counter that was above zero has fallen. One
/// exception is allowed if at least two others fell and its new value is no more than the link can carry since the
/// previous reading. At least one must have fallen by more than a tenth: a new link does not start just below the old
/// values.
fn restarted(before: &Counters, after: &Counters, fell: &[bool; COUNTERS], between: &ReadingInterval) -> bool {
    let bytes_and_packets = || DIRECTIONS.into_iter().flat_map(|(bytes, packets)| [bytes, packets]);
    let fallen = bytes_and_packets().filter(|at| fell[*at]).count();
    if !bytes_and_packets().any(|at| fell[at] && after.0[at] < before.0[at] / 10 * 9) {
        return false;
    }
    let mut unfallen = bytes_and_packets().filter(|at| before.0[*at] > 0 && !fell[*at]);
    let Some(first) = unfallen.next() else { return fallen > 0 };
    let limit = bytes_at(ASSUMED_MBIT.max(2 * speed(between)), between.elapsed_ms);
    unfallen.next().is_none() && fallen >= 2 && after.0[first] <= limit
}

/// The rise of counter `at`, if it fell and its fall is a proven wrap.
fn wrap_rise(
    before: &Counters,
    after: &Counters,
    fell: &[bool; COUNTERS],
    at: usize,
    between: &ReadingInterval,
) -> Option<u64> {
    if !fell[at] {
        return None;
    }
    // Wrapping subtraction: "maximum - before + after" would be one too low.
    let rise_64 = after.0[at].wrapping_sub(before.0[at]);
    let rise_32 = u64::from((after.0[at] as u32).wrapping_sub(before.0[at] as u32));
    let rise = if before.0[at] >= u64::MAX - WRAP_MARGIN {
        rise_64
    } else if before.0[at] <= u64::from(u32::MAX) && link_persists(before, after, fell, at, between.width) {
        // It is only a guess that a driver counts with 32 bits behind a 64-bit field, so a fall alone does not prove a
        // wrap. If a small fall were taken for one, the rise would be nearly 2^32.
        let half = u64::from(u32::MAX / 2);
        if between.width == Width::Bits64 && (before.0[at] < half || rise_32 > half) {
            return None;
        }
        rise_32
    } else {
        return None;
    };
    (rise <= max_rise(before, after, fell, at, between)).then_some(rise)
}

/// The most that counter `at` can have risen, judged by the link's speed and by the other counter of its direction.
/// Some drivers do not count packets: a packet counter that never moved sets no limit.
fn max_rise(before: &Counters, after: &Counters, fell: &[bool; COUNTERS], at: usize, between: &ReadingInterval) -> u64 {
    let mbit = match between.speed_mbit {
        Some(mbit) => u64::from(mbit) + u64::from(mbit) / 4,
        None => ASSUMED_MBIT,
    };
    let bytes = bytes_at(mbit, between.elapsed_ms);
    let rise = |other: usize| match fell[other] && before.0[other] < u64::MAX - WRAP_MARGIN {
        true => u64::from((after.0[other] as u32).wrapping_sub(before.0[other] as u32)),
        false => after.0[other].wrapping_sub(before.0[other]),
    };
    let counted = |other: usize| after.0[other] > 0 || before.0[other] > 0;
    match DIRECTIONS.into_iter().find(|(bytes, packets)| [*bytes, *packets].contains(&at)) {
        Some((_, packets)) if at != packets && counted(packets) => {
            bytes.min(rise(packets).saturating_mul(MAX_PACKET_BYTES))
        }
        Some((_, packets)) if at != packets => bytes,
        Some((other, _)) if counted(other) => bytes.min(rise(other)) / MIN_FRAME_BYTES,
        Some(_) => bytes / MIN_FRAME_BYTES,
        // Errors and drops: if a small fall were taken for a wrap, the rise would be nearly 2^32.
        None => (bytes / MIN_FRAME_BYTES).min(u64::from(u32::MAX / 2)),
    }
}

/// Whether the other counters show that the link is still the same one. All counters of a new link are near zero, so a
/// counter that was above zero and did not fall proves that it is the old one.
fn link_persists(before: &Counters, after: &Counters, fell: &[bool; COUNTERS], at: usize, width: Width) -> bool {
    let unfallen = |other: usize| !fell[other] && before.0[other] > 0;
    match width {
        // The counters are known to have 32 bits: any other counter is proof enough. If no other counter was ever above
        // zero, none is needed.
        Width::Bits32 => (0..COUNTERS).any(unfallen) || (0..COUNTERS).all(|other| other == at || before.0[other] == 0),
        // A 32-bit driver behind 64-bit fields: the packets of the same direction must have risen with the bytes.
        Width::Bits64 => DIRECTIONS
            .into_iter()
            .any(|(bytes, packets)| bytes == at && unfallen(packets) && after.0[packets] > before.0[packets]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX32: u64 = u32::MAX as u64;
    const HALF_MINUTE: ReadingInterval = ReadingInterval { elapsed_ms: 30_000, speed_mbit: None, width: Width::Bits64 };
    const HALF_MINUTE_32: ReadingInterval = ReadingInterval { width: Width::Bits32, ..HALF_MINUTE };

    /// Bytes and packets of both directions.
    fn four(rx: u64, tx: u64, rx_packets: u64, tx_packets: u64) -> Counters {
        Counters::of([rx, tx, rx_packets, tx_packets, 0, 0, 0, 0])
    }

    fn check(before: Counters, after: Counters, between: ReadingInterval, expect: Comparison) {
        let change = Baseline::new(before).advance(&after, &between);
        assert_eq!(change, expect, "{before:?} -> {after:?} in {between:?}");
    }

    /// Compares the readings one after another, beginning with `first` as the baseline.
    fn check_sequence(first: Counters, readings: &[(Counters, Comparison)]) {
        let mut baseline = Baseline::new(first);
        for (at, (after, expect)) in readings.iter().enumerate() {
            assert_eq!(baseline.advance(after, &HALF_MINUTE), *expect, "reading {at} of {readings:?}");
        }
    }

    fn dip(delta: Counters, fell: &[usize]) -> Comparison {
        Comparison::Dip { delta, fell: std::array::from_fn(|at| fell.contains(&at)) }
    }

    #[test]
    fn all_eight_rise() {
        let before = Counters::of([1, 2, 3, 4, 5, 6, 7, 8]);
        let after = Counters::of([11, 22, 33, 44, 55, 66, 77, 88]);
        check(before, after, HALF_MINUTE, Comparison::Plain(Counters::of([10, 20, 30, 40, 50, 60, 70, 80])));
        check(before, before, HALF_MINUTE, Comparison::Plain(Counters::ZERO));
    }

    #[test]
    fn e1_a_decrease_is_a_reset_and_not_four_gibibytes() {
        let fresh = four(1000, 500, 5, 4);
        check(four(3_000_000_000, 9, 9000, 9), fresh, HALF_MINUTE, Comparison::Reset(fresh));
        // The link could carry it, but every counter fell: still a reset, even with 32-bit counters.
        check(four(MAX32 - 100, 4000, 9000, 40), fresh, HALF_MINUTE_32, Comparison::Reset(fresh));
        let gigabit = ReadingInterval { speed_mbit: Some(1000), ..HALF_MINUTE_32 };
        check(four(MAX32 - 100, 4000, 9000, 40), fresh, gigabit, Comparison::Reset(fresh));
    }

    #[test]
    fn e2_no_64_bit_wrap_without_proof() {
        // 8 EiB on a tap device that was created again.
        check(four(1 << 63, 7, 8, 9), four(10, 1, 1, 1), HALF_MINUTE, Comparison::Reset(four(10, 1, 1, 1)));
        check(four(u64::MAX - 999, 0, 0, 0), four(500, 0, 0, 0), HALF_MINUTE, Comparison::Wrap(four(1500, 0, 0, 0)));
        // Within the wrap margin, but more than the link can carry.
        let slow = ReadingInterval { speed_mbit: Some(10), ..HALF_MINUTE };
        let after = four(50_000_000, 0, 1, 0);
        check(four(u64::MAX - (1 << 39), 0, 0, 0), after, slow, Comparison::Reset(after));
    }

    #[test]
    fn e3_a_known_32_bit_counter_wraps() {
        check(four(MAX32 - 99, 10, 7, 1), four(200, 10, 9, 1), HALF_MINUTE_32, Comparison::Wrap(four(300, 0, 2, 0)));
        // Bytes and packets wrap in one interval: the tx counters prove that the link is the same.
        check(
            four(MAX32 - 99, 10, MAX32, 1),
            four(200, 10, 0, 1),
            HALF_MINUTE_32,
            Comparison::Wrap(four(300, 0, 1, 0)),
        );
        // A rise above what the link can carry in the time is no wrap.
        let slow = ReadingInterval { speed_mbit: Some(10), ..HALF_MINUTE_32 };
        let before = four(MAX32 - 99, 10, 7, 1);
        check(before, four(100_000_000, 20, 900, 2), slow, dip(four(0, 10, 893, 1), &[0]));
        // Ten packets cannot carry four gigabytes, even with GRO and BIG TCP.
        let hour = ReadingInterval { elapsed_ms: 3_600_000, ..HALF_MINUTE_32 };
        let dipped = four(3_717_611_343, 9_000_002_000, 120, 120);
        let before = four(3_717_616_438, 9_000_001_000, 110, 110);
        check(before, dipped, hour, dip(four(0, 1000, 10, 10), &[0]));
        let after = four(4_000_000, 10, 7 + 8, 1);
        check(four(MAX32 - 99, 10, 7, 1), after, hour, Comparison::Wrap(four(4_000_100, 0, 8, 0)));
        let after = four(4_300_000, 10, 7 + 8, 1);
        check(four(MAX32 - 99, 10, 7, 1), after, hour, dip(four(0, 0, 8, 0), &[0]));
        // For a driver that counts no packets, only speed and time limit the rise.
        check(four(MAX32 - 99, 10, 0, 0), four(200, 10, 0, 0), HALF_MINUTE_32, Comparison::Wrap(four(300, 0, 0, 0)));
        // A small fall of a packet counter is no wrap either.
        check(four(9_000, 9_000, 120, 90), four(9_900, 9_000, 110, 90), hour, dip(four(900, 0, 0, 0), &[2]));
        let drops = |count| Counters::of([5000, 5000, 50, 50, 0, 0, count, 0]);
        check(drops(50), drops(0), hour, dip(Counters::ZERO, &[6]));
        check(drops(MAX32), drops(4), hour, Comparison::Wrap(Counters::of([0, 0, 0, 0, 0, 0, 5, 0])));
    }

    #[test]
    fn e4_a_32_bit_driver_behind_a_64_bit_field_wraps() {
        let before = four(MAX32 - 1000, 5, 3_000_000, 7);
        check(before, four(1500, 5, 3_000_002, 7), HALF_MINUTE, Comparison::Wrap(four(2501, 0, 2, 0)));
        // A counter above 32 bits cannot be a 32-bit counter.
        let past = four(MAX32 + 1000, 5, 3_000_000, 7);
        check(past, four(1500, 5, 3_000_002, 7), HALF_MINUTE, dip(four(0, 0, 2, 0), &[0]));
        // A fall from the lower half of the range or a small fall proves no wrap, with any number of packets.
        let low = four(1_000_000_000, 1_000_000_000, 1_000_000, 1_000_000);
        let after = four(999_999_999, 1_000_001_000, 1_090_000, 1_000_010);
        check(low, after, HALF_MINUTE, dip(four(0, 1000, 90_000, 10), &[0]));
        let high = four(4_000_000_000, 5, 1_000_000, 7);
        check(high, four(3_999_999_999, 5, 1_090_000, 7), HALF_MINUTE, dip(four(0, 0, 90_000, 0), &[0]));
        // No packet arrived, so no bytes can have.
        check(before, four(1500, 5, 3_000_000, 7), HALF_MINUTE, dip(Counters::ZERO, &[0]));
    }

    #[test]
    fn one_counter_falls_while_the_others_rise() {
        let before = four(5_000_000, 900, 4000, 8);
        // The counter recovers: its delta is the rise above the old value.
        check_sequence(
            before,
            &[
                (four(4_990_000, 1000, 4010, 9), dip(four(0, 100, 10, 1), &[0])),
                (four(5_000_700, 1100, 4020, 10), Comparison::Plain(four(700, 100, 10, 1))),
            ],
        );
        // It does not recover: its delta is the rise above the value it fell to.
        check_sequence(
            before,
            &[
                (four(300, 1000, 4010, 9), dip(four(0, 100, 10, 1), &[0])),
                (four(500, 1100, 4020, 10), Comparison::Plain(four(200, 100, 10, 1))),
                (four(900, 1100, 4020, 10), Comparison::Plain(four(400, 0, 0, 0))),
            ],
        );
        // It falls again, together with another counter.
        check_sequence(
            before,
            &[
                (four(300, 1000, 4010, 9), dip(four(0, 100, 10, 1), &[0])),
                (four(200, 1100, 4005, 10), dip(four(0, 100, 0, 1), &[0, 2])),
                (four(250, 1200, 4011, 11), Comparison::Plain(four(50, 100, 1, 1))),
            ],
        );
        // A driver resets its drop counter.
        let drops = |bytes, count| Counters::of([bytes, bytes, 9, 9, 0, 0, count, 0]);
        check_sequence(
            drops(2_000_000_000, 50),
            &[
                (drops(2_000_001_000, 0), dip(Counters::of([1000, 1000, 0, 0, 0, 0, 0, 0]), &[6])),
                (drops(2_000_002_000, 3), Comparison::Plain(Counters::of([1000, 1000, 0, 0, 0, 0, 3, 0]))),
            ],
        );
    }

    #[test]
    fn a_small_fall_is_no_reset_even_if_no_other_counter_is_above_zero() {
        let before = four(5_000_000_000, 0, 4_000_000, 0);
        let low = four(4_999_999_900, 0, 3_999_999, 0);
        let next = four(5_000_000_500, 0, 4_000_001, 0);
        check_sequence(before, &[(low, dip(Counters::ZERO, &[0, 2])), (next, Comparison::Plain(four(500, 0, 1, 0)))]);
    }

    #[test]
    fn a_wrap_and_a_fall_in_one_reading_are_distinguished() {
        let before = Counters::of([MAX32 - 1000, 5, 3_000_000, 7, 0, 0, 50, 0]);
        let after = Counters::of([1500, 5, 3_000_002, 7, 0, 0, 0, 0]);
        check(before, after, HALF_MINUTE, dip(Counters::of([2501, 0, 2, 0, 0, 0, 0, 0]), &[6]));
    }

    #[test]
    fn packets_do_not_limit_a_rise() {
        let no_packets = four(1_000_000_000, 0, 5, 0);
        check(four(1000, 0, 5, 0), no_packets, HALF_MINUTE, Comparison::Plain(four(999_999_000, 0, 0, 0)));
    }

    #[test]
    fn e6_the_first_all_zero_reading_is_no_reset() {
        let before = four(5000, 600, 7, 8);
        let check_next =
            |after, expect| check_sequence(before, &[(Counters::ZERO, Comparison::AllZero), (after, expect)]);
        check_next(four(5100, 600, 8, 8), Comparison::Plain(four(100, 0, 1, 0)));
        check_next(four(40, 0, 1, 0), Comparison::Reset(four(40, 0, 1, 0)));
        check_next(Counters::ZERO, Comparison::Reset(Counters::ZERO));
        check(Counters::ZERO, Counters::ZERO, HALF_MINUTE, Comparison::Plain(Counters::ZERO));
    }

    #[test]
    fn e7_kernel_nonsense_is_implausible() {
        // 471 Tbit/s for one second.
        let second = ReadingInterval { elapsed_ms: 1000, ..HALF_MINUTE };
        check(
            Counters::ZERO,
            four(471 * 125_000_000_000, 0, 1, 0),
            second,
            Comparison::Implausible(471 * 125_000_000_000),
        );
        // A virtual machine is set back to a snapshot: all counters fall, but to more than the link can carry.
        let snapshot = four(500_000_000_000, 0, 400_000_000, 0);
        let before = four(900_000_000_000, 0, 800_000_000, 0);
        check(before, snapshot, HALF_MINUTE, Comparison::Implausible(500_000_000_000));
        check(Counters::ZERO, four(u64::MAX, 0, 1, 0), HALF_MINUTE, Comparison::Implausible(u64::MAX));
    }

    #[test]
    fn e8_a_wrong_link_speed_loses_no_traffic() {
        // A tun device that reports 10 Mbit/s carries 1 Gbit/s for half a minute.
        let tun = ReadingInterval { speed_mbit: Some(10), ..HALF_MINUTE };
        let delta = four(3_750_000_000, 0, 2_500_000, 0);
        check(Counters::ZERO, delta, tun, Comparison::Plain(delta));
        // The same after it was created again.
        check(four(9_000_000_000, 1, 9_000_000, 1), delta, tun, Comparison::Reset(delta));
    }

    #[test]
    fn e9_an_unknown_speed_is_not_a_limit_of_zero() {
        let delta = four(30_000_000_000, 0, 20_000_000, 0);
        check(Counters::ZERO, delta, HALF_MINUTE, Comparison::Plain(delta));
        check(Counters::ZERO, delta, ReadingInterval { speed_mbit: Some(0), ..HALF_MINUTE }, Comparison::Plain(delta));
    }

    #[test]
    fn e10_wraps_are_exact_to_the_byte() {
        check(four(MAX32, 1, 1, 1), four(0, 1, 2, 1), HALF_MINUTE_32, Comparison::Wrap(four(1, 0, 1, 0)));
        check(four(u64::MAX, 1, 1, 1), four(0, 1, 2, 1), HALF_MINUTE, Comparison::Wrap(four(1, 0, 1, 0)));
    }

    #[test]
    fn e12_a_long_gap_keeps_its_traffic() {
        let week = ReadingInterval { elapsed_ms: 7 * 86_400_000, ..HALF_MINUTE };
        let delta = four(2_000_000_000_000, 5, 6, 7);
        check(Counters::ZERO, delta, week, Comparison::Plain(delta));
        check(Counters::ZERO, delta, ReadingInterval { elapsed_ms: u64::MAX, ..HALF_MINUTE }, Comparison::Plain(delta));
    }
}
