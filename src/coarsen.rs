//! Limits the memory of unsaved history: while the writer cannot save, the oldest ticks are merged into longer ones.
//! Sums and anchors stay exact; resolution and peaks are lost. Pure.

use crate::model::{Anchor, Batch, IfaceId, Sample, SampleQuality, Tick};

/// Limit for unsaved ticks. The batch that the writer is saving may use the same amount again. 512 KiB hold 6,500
/// samples: two hours of 24 interfaces at an interval of 30 s. One tick with a sample of every interface is always
/// kept, even above this limit.
pub const MAX_UNSAVED_BYTES: usize = 512 * 1024;

/// Lengths of merged ticks in seconds, tried one after the other: five-minute cells, hours, six-hour blocks, days, and
/// finally one tick for everything. A router without a disk for a year keeps its sums.
const STEPS_S: [i64; 5] = [300, 3_600, 21_600, 86_400, i64::MAX];

/// Memory that ticks, samples and anchors use.
pub fn size_bytes(batch: &Batch, anchors: &[Anchor]) -> usize {
    size_of_val(&batch.ticks[..]) + size_of_val(&batch.samples[..]) + size_of_val(anchors)
}

/// Merges ticks, the oldest first and as few as possible, until the batch and the anchors fit into `max_bytes`. The
/// newest ticks, up to a quarter of `max_bytes`, are merged last.
///
/// Ticks without a wall time are only merged with each other: they may be hours apart from the ticks that have one.
pub fn coarsen(batch: &mut Batch, anchors: &mut Vec<Anchor>, max_bytes: usize) {
    anchors.sort_by_key(|anchor| anchor.seq);
    let newest = count_newest(batch, max_bytes / 4);
    for step_s in STEPS_S {
        // Computed again, because each pass shortens the list.
        let old = batch.ticks.len() - newest;
        merge(batch, anchors, step_s, old, max_bytes);
    }
    merge(batch, anchors, i64::MAX, usize::MAX, max_bytes);
}

/// The number of ticks, counted from the newest, that fit into `max_bytes`.
fn count_newest(batch: &Batch, max_bytes: usize) -> usize {
    let size = |samples: &[Sample]| size_of::<Tick>() + size_of_val(samples);
    let mut sum = 0;
    let mut fits = |samples: &[Sample]| {
        sum += size(samples);
        sum <= max_bytes
    };
    batch.iter().rev().map(|(_, samples)| samples).take_while(|samples| fits(samples)).count()
}

/// Merges the first `old` ticks into ticks of `step_s` seconds, until they fit into `max_bytes`. Works in place,
/// because memory is short here.
fn merge(batch: &mut Batch, anchors: &mut Vec<Anchor>, step_s: i64, old: usize, max_bytes: usize) {
    let mut excess = size_bytes(batch, anchors).saturating_sub(max_bytes);
    if excess == 0 {
        return;
    }
    let Batch { ticks, samples } = batch;
    // Lengths of the finished parts at the front of both vectors.
    let (mut ticks_done, mut samples_done) = (0, 0);
    let (mut at, mut start) = (0, 0);
    let mut group = Vec::new();
    while at < ticks.len() {
        let same_bucket = |tick: &&Tick| bucket(tick, step_s) == bucket(&ticks[at], step_s);
        let length = match excess {
            0 => 1,
            _ => ticks[at..].iter().take(old.saturating_sub(at)).take_while(same_bucket).count().max(1),
        };
        let (last, end) = (ticks[at + length - 1], ticks[at + length - 1].end);
        if length == 1 {
            samples.copy_within(start..end, samples_done);
            samples_done += end - start;
        } else {
            let before = anchors.len();
            move_anchors(anchors, &ticks[at..at + length], start, samples);
            group.clear();
            samples[start..end].iter().for_each(|sample| add_to_group(&mut group, sample));
            samples[samples_done..samples_done + group.len()].copy_from_slice(&group);
            samples_done += group.len();
            let freed = (end - start - group.len()) * size_of::<Sample>()
                + (length - 1) * size_of::<Tick>()
                + (before - anchors.len()) * size_of::<Anchor>();
            excess = excess.saturating_sub(freed);
        }
        ticks[ticks_done] = Tick { end: samples_done, ..last };
        ticks_done += 1;
        (at, start) = (at + length, end);
    }
    ticks.truncate(ticks_done);
    samples.truncate(samples_done);
}

/// The bucket of a tick; a tick on the border belongs to the bucket that ends there. Ticks without a wall time get
/// their bucket from the monotonic clock.
fn bucket(tick: &Tick, step_s: i64) -> (bool, i64) {
    let seconds = tick.unix.unwrap_or(i64::try_from(tick.mono_ms / 1000).unwrap_or(i64::MAX));
    (tick.unix.is_some(), seconds.saturating_sub(1).div_euclid(step_s))
}

/// Adds a sample to a group that is sorted by interface and has one sample per interface.
fn add_to_group(group: &mut Vec<Sample>, sample: &Sample) {
    match group.binary_search_by_key(&sample.iface, |known| known.iface) {
        Err(at) => group.insert(at, *sample),
        Ok(at) => merge_sample(&mut group[at], sample),
    }
}

/// Merges a sample into another one of the same interface: adds deltas and spans.
pub fn merge_sample(sum: &mut Sample, sample: &Sample) {
    sum.delta.add(&sample.delta);
    sum.span_ms = sum.span_ms.saturating_add(sample.span_ms);
    // Only two plain samples make a plain one: the chart has no rate for a merged gap or reset.
    sum.quality = match (sum.quality, sample.quality) {
        (quality, SampleQuality::Plain) => quality,
        (SampleQuality::Plain, quality) => quality,
        (quality, other) if quality == other => quality,
        _ => SampleQuality::Gap,
    };
}

/// Moves the anchors inside a merged tick to its end, because an anchor is valid at the end of a tick only. Adds the
/// deltas from the anchor to that end. Of several anchors of one interface only the latest is kept.
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
        let first = if after == 0 { start } else { ticks[after - 1].end };
        add_deltas(anchor, anchor.iface, &samples[first..last.end]);
        anchor.seq = last.seq;
    }
    anchors.splice(from..to, moved);
}

fn add_deltas(anchor: &mut Anchor, iface: IfaceId, samples: &[Sample]) {
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

    /// Xorshift generator: the same numbers in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % limit
        }
    }

    fn sample(iface: IfaceId, quality: SampleQuality, span_ms: u64, rx: u64) -> Sample {
        Sample { iface, quality, span_ms, delta: Counters::of([rx, 1, 0, 0, 0, 0, 0, 0]) }
    }

    fn push(batch: &mut Batch, seq: u64, unix: Option<i64>, mono_s: i64, samples: &[Sample]) {
        batch.samples.extend(samples);
        batch.ticks.push(Tick { seq, mono_ms: mono_s as u64 * 1000, unix, end: batch.samples.len() });
    }

    /// (seq, unix, [(iface, quality, span, rx)])
    type Row = (u64, Option<i64>, Vec<(IfaceId, SampleQuality, u64, u64)>);

    fn rows(batch: &Batch) -> Vec<Row> {
        let of = |sample: &Sample| (sample.iface, sample.quality, sample.span_ms, sample.delta.rx_bytes());
        batch.iter().map(|(tick, samples)| (tick.seq, tick.unix, samples.iter().map(of).collect())).collect()
    }

    #[test]
    fn neighbours_are_merged_and_a_tick_on_the_border_belongs_to_the_earlier_bucket() {
        use SampleQuality::{Gap, Plain, Reset};
        let mut batch = Batch::default();
        for (at, (quality, rx)) in [(Plain, 1), (Plain, 10), (Reset, 100), (Plain, 1000), (Gap, 7)].iter().enumerate() {
            let unix = T + 100 * (at as i64 + 1);
            let both = [sample(2, *quality, 100_000, *rx), sample(1, Plain, 100_000, 5)];
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

        // As few as possible.
        let mut batch = whole.clone();
        let max_bytes = size_bytes(&batch, &[]) - 1;
        merge(&mut batch, &mut Vec::new(), 100, 5, max_bytes);
        assert_eq!(rows(&batch), rows(&whole));
        merge(&mut batch, &mut Vec::new(), 200, 5, max_bytes);
        assert_eq!(batch.ticks.iter().map(|tick| tick.seq).collect::<Vec<_>>(), [11, 12, 13, 14]);
    }

    #[test]
    fn ticks_without_a_wall_time_are_merged_with_each_other_only() {
        let mut batch = Batch::default();
        for at in 0..6 {
            let unix = (at < 2).then_some(T + at);
            push(&mut batch, at as u64, unix, 1_000 * at, &[sample(1, SampleQuality::Plain, 1, 1)]);
        }
        coarsen(&mut batch, &mut Vec::new(), 0);
        assert_eq!(
            rows(&batch),
            [(1, Some(T + 1), vec![(1, SampleQuality::Plain, 2, 2)]), (5, None, vec![(1, SampleQuality::Plain, 4, 4)])]
        );
    }

    #[test]
    fn anchors_move_to_the_end_of_the_merged_tick() {
        let raw = |rx: u64| Counters::of([rx, 0, 0, 0, 0, 0, 0, 0]);
        let mut batch = Batch::default();
        for at in 1..=4 {
            let counted = Sample { delta: raw(at), ..sample(1, SampleQuality::Plain, 1, 0) };
            push(&mut batch, at, Some(T + at as i64), at as i64, &[counted]);
        }
        let anchor = |seq, iface, rx| Anchor { seq, iface, raw: raw(rx) };
        let mut anchors = vec![anchor(1, 1, 50), anchor(2, 1, 100), anchor(3, 2, 9), anchor(4, 3, 1)];
        merge(&mut batch, &mut anchors, 300, 3, 0);
        assert_eq!(anchors, [anchor(3, 1, 103), anchor(3, 2, 9), anchor(4, 3, 1)]);
        assert_eq!(batch.ticks.iter().map(|tick| tick.seq).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn ticks_before_and_after_a_clock_step_are_not_merged() {
        let mut batch = Batch::default();
        for (at, unix) in [T + 10, T + 20, T - 3_590, T - 3_580].into_iter().enumerate() {
            push(&mut batch, at as u64, Some(unix), at as i64, &[sample(1, SampleQuality::Plain, 10_000, 1)]);
        }
        merge(&mut batch, &mut Vec::new(), 3_600, 4, 0);
        assert_eq!(batch.ticks.iter().map(|tick| tick.unix.unwrap()).collect::<Vec<_>>(), [T + 20, T - 3_580]);
    }

    /// Raw counter, sum of deltas and sum of spans per interface, computed from all ticks and anchors.
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
    fn e39_a_year_without_a_disk_fits_and_keeps_its_sums() {
        let mut random = Random(0x1234_5678_9abc_def1);
        for (ifaces, step_s, ticks, dated) in
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
                        let quality = if random.below(100) == 0 { SampleQuality::Gap } else { SampleQuality::Plain };
                        samples.push(sample(iface, quality, step_s as u64 * 1000, random.below(1 << 30)));
                    }
                    if random.below(500) == 0 {
                        let anchor =
                            Anchor { seq, iface, raw: Counters::of([random.below(1 << 40), 0, 0, 0, 0, 0, 0, 0]) };
                        anchors.push(anchor);
                        all_anchors.push(anchor);
                    }
                }
                let unix = dated.then_some(T + mono_s);
                push(&mut batch, seq, unix, mono_s, &samples);
                push(&mut all, seq, unix, mono_s, &samples);
                if size_bytes(&batch, &anchors) > MAX_UNSAVED_BYTES {
                    coarsen(&mut batch, &mut anchors, MAX_UNSAVED_BYTES / 2);
                    assert!(size_bytes(&batch, &anchors) <= MAX_UNSAVED_BYTES / 2);
                }
                highest = highest.max(size_bytes(&batch, &anchors));
            }
            assert!(highest <= MAX_UNSAVED_BYTES, "{highest}");
            assert_eq!(outcome(&batch, &anchors), outcome(&all, &all_anchors));
            assert!(anchors.iter().all(|anchor| batch.ticks.iter().any(|tick| tick.seq == anchor.seq)));
            // The newest ticks are not merged, and `end` of each tick is right.
            let newest = batch.ticks.len() - 10..;
            assert!(batch.ticks[newest].windows(2).all(|two| two[0].seq + 1 == two[1].seq));
            assert_eq!(batch.ticks.last().unwrap().end, batch.samples.len());
            assert!(batch.ticks.windows(2).all(|two| two[0].end <= two[1].end && two[0].seq < two[1].seq));
        }
    }

    #[test]
    fn one_tick_is_kept_even_if_it_exceeds_the_limit() {
        let mut batch = Batch::default();
        let wide = |n: u32| (0..n).map(|iface| sample(iface, SampleQuality::Plain, 1, 1)).collect::<Vec<_>>();
        for seq in 1..=5 {
            push(&mut batch, seq, Some(T + seq as i64), seq as i64, &wide(100));
        }
        coarsen(&mut batch, &mut Vec::new(), 1_000);
        assert_eq!((batch.ticks.len(), batch.samples.len()), (1, 100));
        assert!(batch.samples.iter().all(|sample| sample.delta.rx_bytes() == 5));
        coarsen(&mut Batch::default(), &mut Vec::new(), 0);
    }
}
