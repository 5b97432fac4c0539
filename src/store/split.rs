//! Splits samples over five-minute cells. Pure.
//!
//! A sample covers the time `[unix - span, unix)` in whole seconds. `pieces` splits its delta at the cell borders in
//! proportion to time, and the pieces add up to the delta exactly. Every roll-up is a sum of five-minute cells: local
//! midnight lies on a five-minute border in every time zone in use, also where the offset has half an hour.

use crate::model::{Cell, RX_BYTES, Sample, SampleQuality, TX_BYTES};
use crate::resolution::{FIVE_MINUTES_S, OPEN_BLOCK_S};

/// A shorter sample gives no useful rate.
const MIN_PEAK_SPAN_MS: u64 = 500;
/// A longer gap is spread over this time only: the default retention of five-minute cells.
const MAX_SPREAD_S: u64 = 90 * 86_400;

/// Start of the interval of `length` seconds that contains `unix`.
pub fn floor(unix: i64, length: i64) -> i64 {
    unix - unix.rem_euclid(length)
}

/// First border of such intervals at or after `unix`.
pub fn ceil(unix: i64, length: i64) -> i64 {
    unix + (-unix).rem_euclid(length)
}

/// Start of the six-hour block that a tick belongs to. The samples of a tick end at the tick, so a tick on the border
/// belongs to the earlier block.
pub fn six_hour_block_of(unix: i64) -> i64 {
    floor(unix - 1, OPEN_BLOCK_S)
}

/// Seconds that a sample covers, rounded, at most `MAX_SPREAD_S`; 0 for less than half a second. So a sample right
/// after another one (after an API request or a change of settings) does not count as a second.
pub fn seconds(span_ms: u64) -> i64 {
    let rounded = span_ms / 1000 + u64::from(span_ms % 1000 >= 500);
    rounded.min(MAX_SPREAD_S) as i64
}

/// The seconds that get the delta of a sample at `unix`, as `[from, to)`; at least one second.
pub fn range(unix: i64, sample: &Sample) -> (i64, i64) {
    (unix - seconds(sample.span_ms).max(1), unix)
}

/// The whole sample as one cell.
pub fn whole(sample: &Sample) -> Cell {
    let seconds = seconds(sample.span_ms) as u32;
    let rate = |bytes: u64| match (sample.quality, sample.span_ms) {
        // One packet within a millisecond is not a peak.
        (SampleQuality::Plain, MIN_PEAK_SPAN_MS..) => {
            u64::try_from(u128::from(bytes) * 1000 / u128::from(sample.span_ms)).unwrap_or(u64::MAX)
        }
        _ => 0,
    };
    Cell {
        sum: sample.delta,
        rx_peak: rate(sample.delta.0[RX_BYTES]),
        tx_peak: rate(sample.delta.0[TX_BYTES]),
        plain_s: if sample.quality == SampleQuality::Plain { seconds } else { 0 },
        gap_s: if sample.quality == SampleQuality::Plain { 0 } else { seconds },
    }
}

/// Calls `each` with the pieces of a sample that lie in `[from, to)`, ascending, each with the start of its
/// five-minute cell. `from` and `to` must be cell borders.
pub fn pieces(unix: i64, sample: &Sample, from: i64, to: i64, each: &mut dyn FnMut(i64, &Cell)) {
    let all = whole(sample);
    let (start, end) = range(unix, sample);
    let mut at = floor(start, FIVE_MINUTES_S);
    if at == floor(end - 1, FIVE_MINUTES_S) {
        if at >= from && at < to {
            each(at, &all);
        }
        return;
    }
    at = at.max(from);
    while at < end.min(to) {
        let (first, last) = (at.max(start) - start, (at + FIVE_MINUTES_S).min(end) - start);
        let mut piece = all;
        for (part, &delta) in piece.sum.0.iter_mut().zip(&all.sum.0) {
            *part = share(delta, last, end - start) - share(delta, first, end - start);
        }
        piece.plain_s = all.plain_s.min((last - first) as u32);
        piece.gap_s = all.gap_s.min((last - first) as u32);
        each(at, &piece);
        at += FIVE_MINUTES_S;
    }
}

/// The part of `delta` in the first `part` of `whole` seconds.
fn share(delta: u64, part: i64, whole: i64) -> u64 {
    match delta.checked_mul(part as u64) {
        Some(product) => product / whole as u64,
        None => (u128::from(delta) * part as u128 / whole as u128) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{COUNTERS, Counters};
    use crate::resolution::DAY_S;

    const T: i64 = 1_768_435_200; // midnight in UTC

    fn sample(span_ms: u64, quality: SampleQuality, rx: u64) -> Sample {
        Sample { iface: 1, quality, span_ms, delta: Counters::of([rx, rx / 3, 7, 1, 0, u64::MAX, 0, 2]) }
    }

    /// Compares the pieces as (cell start, received bytes, observed seconds), and checks that every counter adds up.
    fn check(unix: i64, sample: Sample, expect: &[(i64, u64, u32)]) {
        let mut got = Vec::new();
        let mut sum = [0u128; COUNTERS];
        pieces(unix, &sample, i64::MIN / 2 / 300 * 300, i64::MAX / 2 / 300 * 300, &mut |start, cell| {
            got.push((start, cell.sum.rx_bytes(), cell.plain_s + cell.gap_s));
            sum.iter_mut().zip(cell.sum.0).for_each(|(sum, value)| *sum += u128::from(value));
        });
        assert_eq!(sum, sample.delta.0.map(u128::from));
        assert_eq!(got, expect);
    }

    #[test]
    fn pieces_add_up_and_a_border_belongs_to_the_earlier_cell() {
        let plain = |span_ms, rx| sample(span_ms, SampleQuality::Plain, rx);
        check(T + 30, plain(30_000, 900), &[(T, 900, 30)]);
        check(T, plain(30_000, 900), &[(T - 300, 900, 30)]);
        check(T + 10, plain(30_000, 900), &[(T - 300, 600, 20), (T, 300, 10)]);
        check(T + 10, plain(30_499, 100), &[(T - 300, 66, 20), (T, 34, 10)]);
        check(T + 1, plain(499, 5), &[(T, 5, 0)]);
        check(T + 1, plain(500, 5), &[(T, 5, 1)]);
        check(T, plain(0, 5), &[(T - 300, 5, 0)]);
        check(T + 600, plain(600_000, 7), &[(T, 3, 300), (T + 300, 4, 300)]);
        check(T + 310, plain(330_000, 330), &[(T - 300, 20, 20), (T, 300, 300), (T + 300, 10, 10)]);
        check(
            T + 10,
            sample(30_000, SampleQuality::Gap, u64::MAX),
            &[
                (T - 300, (u128::from(u64::MAX) * 20 / 30) as u64, 20),
                (T, u64::MAX - (u128::from(u64::MAX) * 20 / 30) as u64, 10),
            ],
        );
    }

    #[test]
    fn e12_a_long_gap_is_spread_over_ninety_days_at_most() {
        let gap = sample(200 * 86_400_000, SampleQuality::Gap, 90 * 288 * 1000);
        let mut cells = 0;
        pieces(T, &gap, 0, i64::MAX / 300 * 300, &mut |start, cell| {
            assert!((T - 90 * DAY_S..T).contains(&start));
            assert_eq!((cell.sum.rx_bytes(), cell.plain_s, cell.gap_s, cell.rx_peak), (1000, 0, 300, 0));
            cells += 1;
        });
        assert_eq!(cells, 90 * 288);
        assert_eq!(seconds(u64::MAX), 90 * 86_400);
    }

    #[test]
    fn clipping_changes_no_other_piece() {
        let sample = sample(1_000_000, SampleQuality::Plain, 1_000_003);
        let (mut all, mut parts) = (Vec::new(), Vec::new());
        pieces(T + 777, &sample, T - 3000, T + 3000, &mut |start, cell| all.push((start, *cell)));
        for from in [T - 600, T - 300, T, T + 300, T + 600] {
            pieces(T + 777, &sample, from, from + 300, &mut |start, cell| parts.push((start, *cell)));
        }
        assert_eq!(all.len(), 4);
        assert_eq!(all, parts);
    }

    #[test]
    fn peaks_come_from_plain_samples_by_the_exact_span() {
        let cell = whole(&sample(1_500, SampleQuality::Plain, 3_000));
        assert_eq!((cell.rx_peak, cell.tx_peak, cell.plain_s), (2_000, 666, 2));
        assert_eq!(whole(&sample(1_500, SampleQuality::Reset, 3_000)).rx_peak, 0);
        assert_eq!(whole(&sample(0, SampleQuality::Plain, 3_000)).rx_peak, 0);
        assert_eq!(whole(&sample(499, SampleQuality::Plain, 3_000)).rx_peak, 0);
        assert_eq!(whole(&sample(500, SampleQuality::Plain, u64::MAX)).rx_peak, u64::MAX);
    }

    #[test]
    fn a_tick_on_the_border_belongs_to_the_earlier_block() {
        assert_eq!(
            [six_hour_block_of(T), six_hour_block_of(T + 1), six_hour_block_of(T + OPEN_BLOCK_S)],
            [T - OPEN_BLOCK_S, T, T]
        );
        assert_eq!(floor(-1, 300), -300);
    }
}
