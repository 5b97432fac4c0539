//! Two readings of one interface's counters, and what happened between them. Pure: no clock, no kernel, no names.
//!
//! The kernel's counters only rise, so a fall is a reset: the interface was made anew (PPPoE, Wi-Fi, a VPN) and counts
//! from zero. Booking a rollover there instead is how other monitors come by their phantom +4 GiB. A rollover is
//! believed only where it is proven.

use crate::model::{Counters, RX_BYTES, RX_PACKETS, TX_BYTES, TX_PACKETS, Width};

/// What the second reading means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The counters rose, or stood still.
    Plain(Counters),
    /// At least one counter went past its top; the others rose.
    Wrap(Counters),
    /// The counters began again from zero; this is what has passed since.
    Reset(Counters),
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
    /// The previous reading was held back (`Change::Held`) one reading ago.
    pub held: bool,
}

/// No link reaches 1 Tbit/s; bond drivers were seen to report 471.
const CEILING_MBIT: u64 = 1_000_000;
/// For links of unknown speed, where a number has to be taken for what may have passed since a reset.
const ORDINARY_MBIT: u64 = 10_000;
/// A 64-bit counter wraps only if it stood this close below its top.
const LAST_STRETCH: u64 = 1 << 40;

pub fn compare(before: &Counters, after: &Counters, between: &Between) -> Change {
    let fell: [bool; 8] = std::array::from_fn(|at| after.0[at] < before.0[at]);
    if !fell.contains(&true) {
        let delta = Counters(std::array::from_fn(|at| after.0[at] - before.0[at]));
        let ceiling = bytes_at(CEILING_MBIT.max(4 * speed(between)), between.elapsed_ms);
        return match excess(&delta, ceiling) {
            Some(bytes) => Change::Implausible(bytes),
            None => Change::Plain(delta),
        };
    }
    if after.is_zero() && !between.held {
        return Change::Held;
    }
    if let Some(delta) = wrapped(before, after, &fell, between) {
        return Change::Wrap(delta);
    }
    let ceiling = bytes_at(ORDINARY_MBIT.max(2 * speed(between)), between.elapsed_ms);
    match excess(after, ceiling) {
        Some(bytes) => Change::Implausible(bytes),
        None => Change::Reset(*after),
    }
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

/// The differences if every fall is a proven rollover.
fn wrapped(before: &Counters, after: &Counters, fell: &[bool; 8], between: &Between) -> Option<Counters> {
    let mbit = match between.speed_mbit {
        Some(mbit) => u64::from(mbit) + u64::from(mbit) / 4,
        None => ORDINARY_MBIT,
    };
    let most_bytes = bytes_at(mbit, between.elapsed_ms);
    let mut delta = [0; 8];
    for at in 0..8 {
        // Wrapping subtraction and not "top - before + after", which is one short.
        let wide = after.0[at].wrapping_sub(before.0[at]);
        delta[at] = wide;
        if !fell[at] {
            continue;
        }
        // A frame is at least 14 bytes long, so counts of frames are bounded too.
        let most = if at == RX_BYTES || at == TX_BYTES { most_bytes } else { most_bytes / 14 };
        let near_top = before.0[at] >= u64::MAX - LAST_STRETCH;
        if near_top && wide <= most {
            continue;
        }
        let narrow = u64::from((after.0[at] as u32).wrapping_sub(before.0[at] as u32));
        let fits = before.0[at] <= u64::from(u32::MAX) && narrow <= most;
        if !fits || !survived(before, after, fell, at, between.width) {
            return None;
        }
        delta[at] = narrow;
    }
    Some(Counters(delta))
}

/// Whether something shows that the interface is still the one it was. A new one has all its counters near zero, so a
/// counter that had a value and did not fall is the proof.
fn survived(before: &Counters, after: &Counters, fell: &[bool; 8], at: usize, width: Width) -> bool {
    let stands = |other: usize| !fell[other] && before.0[other] > 0;
    match width {
        // The counters are known to be narrow: any other counter will do, and where there is no other, so will its absence.
        Width::Bits32 => (0..8).any(stands) || (0..8).all(|other| other == at || before.0[other] == 0),
        // A narrow driver behind 64-bit fields: the frames of the same direction must have risen with the bytes.
        Width::Bits64 => match at {
            RX_BYTES => stands(RX_PACKETS) && after.0[RX_PACKETS] > before.0[RX_PACKETS],
            TX_BYTES => stands(TX_PACKETS) && after.0[TX_PACKETS] > before.0[TX_PACKETS],
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP32: u64 = u32::MAX as u64;
    const HALF_MINUTE: Between = Between { elapsed_ms: 30_000, speed_mbit: None, width: Width::Bits64, held: false };
    const NARROW: Between = Between { width: Width::Bits32, ..HALF_MINUTE };

    /// Bytes and packets of both directions.
    fn four(rx: u64, tx: u64, rx_packets: u64, tx_packets: u64) -> Counters {
        Counters([rx, tx, rx_packets, tx_packets, 0, 0, 0, 0])
    }

    fn check(before: Counters, after: Counters, between: Between, expect: Change) {
        assert_eq!(compare(&before, &after, &between), expect, "{before:?} -> {after:?} in {between:?}");
    }

    #[test]
    fn all_eight_rise() {
        let before = Counters([1, 2, 3, 4, 5, 6, 7, 8]);
        let after = Counters([11, 22, 33, 44, 55, 66, 77, 88]);
        check(before, after, HALF_MINUTE, Change::Plain(Counters([10, 20, 30, 40, 50, 60, 70, 80])));
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
        // More than the link can carry in the time is a reset.
        let slow = Between { speed_mbit: Some(10), ..NARROW };
        let after = four(3_000_000_000, 20, 3, 2);
        check(
            four(TOP32 - 99, 10, 7, 1),
            after,
            Between { elapsed_ms: 1000, ..slow },
            Change::Implausible(3_000_000_000),
        );
        let after = four(100_000_000, 20, 9, 2);
        check(four(TOP32 - 99, 10, 7, 1), after, slow, Change::Reset(after));
    }

    #[test]
    fn e4_narrow_driver_behind_a_64_bit_field() {
        let before = four(TOP32 - 1000, 5, 3_000_000, 7);
        check(before, four(1500, 5, 3_000_002, 7), HALF_MINUTE, Change::Wrap(four(2501, 0, 2, 0)));
        // Once past 32 bits it cannot be narrow.
        let past = four(TOP32 + 1000, 5, 3_000_000, 7);
        let after = four(1500, 5, 3_000_002, 7);
        check(past, after, HALF_MINUTE, Change::Reset(after));
        // Without a frame there are no bytes.
        let after = four(1500, 5, 3_000_000, 7);
        check(before, after, HALF_MINUTE, Change::Reset(after));
    }

    #[test]
    fn e6_sudden_zero_is_held_once() {
        let before = four(5000, 600, 7, 8);
        check(before, Counters::ZERO, HALF_MINUTE, Change::Held);
        let held = Between { held: true, elapsed_ms: 60_000, ..HALF_MINUTE };
        check(before, four(5100, 600, 8, 8), held, Change::Plain(four(100, 0, 1, 0)));
        check(before, four(40, 0, 1, 0), held, Change::Reset(four(40, 0, 1, 0)));
        check(before, Counters::ZERO, held, Change::Reset(Counters::ZERO));
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
