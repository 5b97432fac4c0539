//! Unsaved history that must not outgrow its memory: while nothing can be saved, the oldest ticks are merged into coarser
//! ones. Sums stay exact, and so does what the anchors say; what is given up is resolution and, with it, peaks. Pure.

use crate::model::{Anchor, Batch, IfaceId, Mark, Sample, Tick};

/// What waits for the writer takes no more than this, and what the writer has in hand no more than this again: 6,500
/// samples, at 24 interfaces and 30 s two hours. The floor is a tick with a sample of every interface.
pub const HELD_BYTES: usize = 512 * 1024;

/// Seconds that a tick stands for, one after the other: the cells of the finest level of history first, then hours, its
/// rows, days, and in the end whatever there is. A router without a disk for a year keeps its sums.
const STEPS_S: [i64; 5] = [300, 3_600, 21_600, 86_400, i64::MAX];

pub fn bytes(batch: &Batch, anchors: &[Anchor]) -> usize {
    size_of_val(&batch.ticks[..]) + size_of_val(&batch.samples[..]) + size_of_val(anchors)
}

/// Merges ticks, the oldest first and no more of them than it takes, until `most` bytes are enough. The newest quarter
/// stays as it is for as long as anything else helps.
///
/// Ticks that wait for a place in time are merged among themselves: they may be hours away from those that have one.
pub fn compact(batch: &mut Batch, anchors: &mut Vec<Anchor>, most: usize) {
    anchors.sort_by_key(|anchor| anchor.seq);
    let newest = newest(batch, most / 4);
    for step_s in STEPS_S {
        // Each pass leaves fewer.
        let old = batch.ticks.len() - newest;
        merge(batch, anchors, step_s, old, most);
    }
    merge(batch, anchors, i64::MAX, usize::MAX, most);
}

/// How many ticks from the end fit into so many bytes.
fn newest(batch: &Batch, bytes: usize) -> usize {
    let size = |samples: &[Sample]| size_of::<Tick>() + size_of_val(samples);
    let mut held = 0;
    let mut fits = |samples: &[Sample]| {
        held += size(samples);
        held <= bytes
    };
    batch.iter().rev().map(|(_, samples)| samples).take_while(|samples| fits(samples)).count()
}

/// One pass with one length. In place: memory is what is short.
fn merge(batch: &mut Batch, anchors: &mut Vec<Anchor>, step_s: i64, old: usize, most: usize) {
    let mut excess = bytes(batch, anchors).saturating_sub(most);
    if excess == 0 {
        return;
    }
    let Batch { ticks, samples } = batch;
    // Ticks and samples that are done with, at the front.
    let (mut ticks_done, mut samples_done) = (0, 0);
    let (mut at, mut start) = (0, 0);
    let mut group = Vec::new();
    while at < ticks.len() {
        let same = |tick: &&Tick| bucket(tick, step_s) == bucket(&ticks[at], step_s);
        let length = match excess {
            0 => 1,
            _ => ticks[at..].iter().take(old.saturating_sub(at)).take_while(same).count().max(1),
        };
        let (last, end) = (ticks[at + length - 1], ticks[at + length - 1].end);
        if length == 1 {
            samples.copy_within(start..end, samples_done);
            samples_done += end - start;
        } else {
            let before = anchors.len();
            move_anchors(anchors, &ticks[at..at + length], start, samples);
            group.clear();
            samples[start..end].iter().for_each(|sample| join(&mut group, sample));
            samples[samples_done..samples_done + group.len()].copy_from_slice(&group);
            samples_done += group.len();
            let saved = (end - start - group.len()) * size_of::<Sample>()
                + (length - 1) * size_of::<Tick>()
                + (before - anchors.len()) * size_of::<Anchor>();
            excess = excess.saturating_sub(saved);
        }
        ticks[ticks_done] = Tick { end: samples_done, ..last };
        ticks_done += 1;
        (at, start) = (at + length, end);
    }
    ticks.truncate(ticks_done);
    samples.truncate(samples_done);
}

/// A tick on the border belongs to what ends there. Without a place in time, the monotonic clock does as well.
fn bucket(tick: &Tick, step_s: i64) -> (bool, i64) {
    let s = tick.unix.unwrap_or(i64::try_from(tick.mono_ms / 1000).unwrap_or(i64::MAX));
    (tick.unix.is_some(), s.saturating_sub(1).div_euclid(step_s))
}

/// Adds a sample to those of its group, which are in the order of their interfaces.
fn join(group: &mut Vec<Sample>, sample: &Sample) {
    match group.binary_search_by_key(&sample.iface, |known| known.iface) {
        Err(at) => group.insert(at, *sample),
        Ok(at) => absorb(&mut group[at], sample),
    }
}

/// Two samples of one interface as one.
pub fn absorb(sum: &mut Sample, sample: &Sample) {
    sum.delta.add(&sample.delta);
    sum.span_ms = sum.span_ms.saturating_add(sample.span_ms);
    // The chart shows nothing where anything odd has happened.
    sum.mark = match (sum.mark, sample.mark) {
        (one, Mark::Plain) => one,
        (Mark::Plain, other) => other,
        (one, other) if one == other => one,
        _ => Mark::Gap,
    };
}

/// An anchor holds as of the end of its tick. Where that tick becomes a part of a longer one, the anchor moves to the end
/// of that, by what has passed in between; of several of one interface the latest is enough.
fn move_anchors(anchors: &mut Vec<Anchor>, ticks: &[Tick], start: usize, samples: &[Sample]) {
    let (Some(first), Some(last)) = (ticks.first(), ticks.last()) else { return };
    let from = anchors.partition_point(|anchor| anchor.seq < first.seq);
    let to = anchors.partition_point(|anchor| anchor.seq <= last.seq);
    if from == to {
        return;
    }
    let mut moved: Vec<Anchor> = Vec::new();
    for anchor in &anchors[from..to] {
        moved.retain(|known| known.iface != anchor.iface);
        moved.push(*anchor);
    }
    for anchor in &mut moved {
        let after = ticks.partition_point(|tick| tick.seq <= anchor.seq);
        let passed = if after == 0 { start } else { ticks[after - 1].end };
        add_passed(anchor, anchor.iface, &samples[passed..last.end]);
        anchor.seq = last.seq;
    }
    anchors.splice(from..to, moved);
}

fn add_passed(anchor: &mut Anchor, iface: IfaceId, samples: &[Sample]) {
    for sample in samples.iter().filter(|sample| sample.iface == iface) {
        for (raw, delta) in anchor.raw.0.iter_mut().zip(sample.delta.0) {
            *raw = raw.wrapping_add(delta);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Counters;

    const T: i64 = 1_768_435_200; // midnight in UTC

    /// Repeatable noise.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % limit
        }
    }

    fn sample(iface: IfaceId, mark: Mark, span_ms: u64, rx: u64) -> Sample {
        Sample { iface, mark, span_ms, delta: Counters::of([rx, 1, 0, 0, 0, 0, 0, 0]) }
    }

    fn push(batch: &mut Batch, seq: u64, unix: Option<i64>, mono_s: i64, samples: &[Sample]) {
        batch.samples.extend(samples);
        batch.ticks.push(Tick { seq, mono_ms: mono_s as u64 * 1000, unix, end: batch.samples.len() });
    }

    /// (seq, unix, [(iface, mark, span, rx)])
    type Row = (u64, Option<i64>, Vec<(IfaceId, Mark, u64, u64)>);

    fn rows(batch: &Batch) -> Vec<Row> {
        let of = |sample: &Sample| (sample.iface, sample.mark, sample.span_ms, sample.delta.rx_bytes());
        batch.iter().map(|(tick, samples)| (tick.seq, tick.unix, samples.iter().map(of).collect())).collect()
    }

    #[test]
    fn neighbours_become_one_tick_and_borders_belong_to_the_left() {
        use Mark::{Gap, Plain, Reset};
        let mut batch = Batch::default();
        for (at, (mark, rx)) in [(Plain, 1), (Plain, 10), (Reset, 100), (Plain, 1000), (Gap, 7)].iter().enumerate() {
            let unix = T + 100 * (at as i64 + 1);
            let both = [sample(2, *mark, 100_000, *rx), sample(1, Plain, 100_000, 5)];
            push(&mut batch, 10 + at as u64, Some(unix), unix - T, &both[..if at == 1 { 1 } else { 2 }]);
        }
        let whole = batch.clone();
        merge(&mut batch, &mut Vec::new(), 300, 4, 0);
        let expect: [Row; 3] = [
            (12, Some(T + 300), vec![(1, Plain, 200_000, 10), (2, Reset, 300_000, 111)]),
            (13, Some(T + 400), vec![(2, Plain, 100_000, 1000), (1, Plain, 100_000, 5)]),
            (14, Some(T + 500), vec![(2, Gap, 100_000, 7), (1, Plain, 100_000, 5)]),
        ];
        assert_eq!(rows(&batch), expect);

        let mut batch = whole.clone();
        merge(&mut batch, &mut Vec::new(), i64::MAX, usize::MAX, 0);
        assert_eq!(rows(&batch), [(14, Some(T + 500), vec![(1, Plain, 400_000, 20), (2, Gap, 500_000, 1118)])]);

        // No more than it takes.
        let mut batch = whole.clone();
        let most = bytes(&batch, &[]) - 1;
        merge(&mut batch, &mut Vec::new(), 100, 5, most);
        assert_eq!(rows(&batch), rows(&whole));
        merge(&mut batch, &mut Vec::new(), 200, 5, most);
        assert_eq!(batch.ticks.iter().map(|tick| tick.seq).collect::<Vec<_>>(), [11, 12, 13, 14]);
    }

    #[test]
    fn what_has_no_place_in_time_stays_by_itself() {
        let mut batch = Batch::default();
        for at in 0..6 {
            let unix = (at < 2).then_some(T + at);
            push(&mut batch, at as u64, unix, 1_000 * at, &[sample(1, Mark::Plain, 1, 1)]);
        }
        compact(&mut batch, &mut Vec::new(), 0);
        assert_eq!(
            rows(&batch),
            [(1, Some(T + 1), vec![(1, Mark::Plain, 2, 2)]), (5, None, vec![(1, Mark::Plain, 4, 4)])]
        );
    }

    #[test]
    fn anchors_move_to_the_end_of_their_tick() {
        let raw = |rx: u64| Counters::of([rx, 0, 0, 0, 0, 0, 0, 0]);
        let mut batch = Batch::default();
        for at in 1..=4 {
            let counted = Sample { delta: raw(at), ..sample(1, Mark::Plain, 1, 0) };
            push(&mut batch, at, Some(T + at as i64), at as i64, &[counted]);
        }
        let anchor = |seq, iface, rx| Anchor { seq, iface, raw: raw(rx) };
        let mut anchors = vec![anchor(1, 1, 50), anchor(2, 1, 100), anchor(3, 2, 9), anchor(4, 3, 1)];
        merge(&mut batch, &mut anchors, 300, 3, 0);
        assert_eq!(anchors, [anchor(3, 1, 103), anchor(3, 2, 9), anchor(4, 3, 1)]);
        assert_eq!(batch.ticks.iter().map(|tick| tick.seq).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn an_hour_ahead_of_the_clock_does_not_mix_with_the_hour_after() {
        let mut batch = Batch::default();
        for (at, unix) in [T + 10, T + 20, T - 3_590, T - 3_580].into_iter().enumerate() {
            push(&mut batch, at as u64, Some(unix), at as i64, &[sample(1, Mark::Plain, 10_000, 1)]);
        }
        merge(&mut batch, &mut Vec::new(), 3_600, 4, 0);
        assert_eq!(batch.ticks.iter().map(|tick| tick.unix.unwrap()).collect::<Vec<_>>(), [T + 20, T - 3_580]);
    }

    /// Raw counters and sums as a reader of all of it finds them.
    fn outcome(batch: &Batch, anchors: &[Anchor]) -> BTreeMap<IfaceId, (u64, u64, u64)> {
        let mut all: BTreeMap<IfaceId, (u64, u64, u64)> = BTreeMap::new();
        for (tick, samples) in batch.iter() {
            for sample in samples {
                let entry = all.entry(sample.iface).or_default();
                entry.0 = entry.0.wrapping_add(sample.delta.rx_bytes());
                entry.1 += sample.delta.rx_bytes();
                entry.2 += sample.span_ms;
            }
            for anchor in anchors.iter().filter(|anchor| anchor.seq == tick.seq) {
                all.entry(anchor.iface).or_default().0 = anchor.raw.rx_bytes();
            }
        }
        all
    }

    #[test]
    fn e39_a_year_without_a_disk_fits_and_adds_up() {
        let mut random = Random(0x1234_5678_9abc_def1);
        for (ifaces, step_s, ticks, placed) in
            [(24, 30, 20_000, true), (3, 1, 30_000, true), (24, 3_600, 9_000, true), (24, 30, 20_000, false)]
        {
            let (mut batch, mut anchors) = (Batch::default(), Vec::new());
            let (mut all, mut all_anchors) = (Batch::default(), Vec::new());
            let mut highest = 0;
            for seq in 1..=ticks {
                let mono_s = seq as i64 * step_s;
                let mut samples = Vec::new();
                for iface in 1..=ifaces {
                    if random.below(10) > 0 {
                        let mark = if random.below(100) == 0 { Mark::Gap } else { Mark::Plain };
                        samples.push(sample(iface, mark, step_s as u64 * 1000, random.below(1 << 30)));
                    }
                    if random.below(500) == 0 {
                        let anchor =
                            Anchor { seq, iface, raw: Counters::of([random.below(1 << 40), 0, 0, 0, 0, 0, 0, 0]) };
                        anchors.push(anchor);
                        all_anchors.push(anchor);
                    }
                }
                let unix = placed.then_some(T + mono_s);
                push(&mut batch, seq, unix, mono_s, &samples);
                push(&mut all, seq, unix, mono_s, &samples);
                if bytes(&batch, &anchors) > HELD_BYTES {
                    compact(&mut batch, &mut anchors, HELD_BYTES / 2);
                    assert!(bytes(&batch, &anchors) <= HELD_BYTES / 2);
                }
                highest = highest.max(bytes(&batch, &anchors));
            }
            assert!(highest <= HELD_BYTES, "{highest}");
            assert_eq!(outcome(&batch, &anchors), outcome(&all, &all_anchors));
            assert!(anchors.iter().all(|anchor| batch.ticks.iter().any(|tick| tick.seq == anchor.seq)));
            // The newest are as they were taken, and every tick ends where it says.
            let newest = batch.ticks.len() - 10..;
            assert!(batch.ticks[newest].windows(2).all(|two| two[0].seq + 1 == two[1].seq));
            assert_eq!(batch.ticks.last().unwrap().end, batch.samples.len());
            assert!(batch.ticks.windows(2).all(|two| two[0].end <= two[1].end && two[0].seq < two[1].seq));
        }
    }

    #[test]
    fn more_interfaces_than_fit_still_fit_into_one_tick() {
        let mut batch = Batch::default();
        let wide = |n: u32| (0..n).map(|iface| sample(iface, Mark::Plain, 1, 1)).collect::<Vec<_>>();
        for seq in 1..=5 {
            push(&mut batch, seq, Some(T + seq as i64), seq as i64, &wide(100));
        }
        compact(&mut batch, &mut Vec::new(), 1_000);
        assert_eq!((batch.ticks.len(), batch.samples.len()), (1, 100));
        assert!(batch.samples.iter().all(|sample| sample.delta.rx_bytes() == 5));
        compact(&mut Batch::default(), &mut Vec::new(), 0);
    }
}
