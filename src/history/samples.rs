//! Walks over samples: newest first, oldest first, and as one bucket per sample.

use std::ops::{ControlFlow, Range};

use super::snapshot::{LONGEST_INTERVAL_S, Snapshot};
use crate::error::Result;
use crate::model::{Bucket, IfaceId, Sample};
use crate::resolution::{FIVE_MINUTES_S, Resolution};
use crate::store::codec::block::Packed;
use crate::store::codec::{SampleDecoder, TickTime, count_samples};
use crate::store::{BlockRange, Order, SampleBlock, split};

/// About this many samples of a block are unpacked at once. A whole block of a busy machine is a megabyte when
/// unpacked.
const SAMPLES_PER_STEP: usize = 1_024;

/// One sample with the number and time of its tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatedSample {
    pub seq: u64,
    pub unix: i64,
    pub sample: Sample,
}

impl DatedSample {
    /// Public id: stable and unique. Below 2^53 for the first 2^33 ticks, so that every JSON reader keeps it exact.
    pub fn id(&self) -> u64 {
        self.seq << 20 | u64::from(self.sample.iface)
    }

    fn order(&self) -> (i64, u64, IfaceId) {
        (self.unix, self.seq, self.sample.iface)
    }
}

/// Which samples to return.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleFilter {
    pub iface: Option<IfaceId>,
    /// Range `[from, to)` in UTC seconds of the tick.
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl SampleFilter {
    fn from(&self) -> i64 {
        self.from.unwrap_or(0)
    }

    fn to(&self) -> i64 {
        self.to.unwrap_or(i64::MAX)
    }

    pub fn matches(&self, point: &DatedSample) -> bool {
        let iface_matches = self.iface.is_none_or(|iface| iface == point.sample.iface);
        iface_matches && point.unix >= self.from() && point.unix < self.to()
    }
}

/// Position of a walk: the last tick that was returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub unix: i64,
    pub seq: u64,
}

/// Receives the samples of a walk.
trait Sink {
    /// Takes the next sample of the walk. Returns `false` when it needs no more.
    fn take(&mut self, point: DatedSample) -> bool;

    /// Skips `count` samples without unpacking them. Returns `false` when it cannot skip that many; then nothing is
    /// skipped.
    fn skip_points(&mut self, count: u64) -> bool;
}

/// Collects `limit` samples after skipping `skip`.
struct Page {
    skip: u64,
    limit: usize,
    points: Vec<DatedSample>,
}

impl Sink for Page {
    fn take(&mut self, point: DatedSample) -> bool {
        match self.skip {
            0 => self.points.push(point),
            _ => self.skip -= 1,
        }
        self.points.len() < self.limit
    }

    fn skip_points(&mut self, count: u64) -> bool {
        let left = self.skip.checked_sub(count);
        self.skip = left.unwrap_or(self.skip);
        left.is_some()
    }
}

/// Collects about `limit` samples in whole ticks, so that a cursor names the position.
struct Piece {
    after: Option<Cursor>,
    limit: usize,
    points: Vec<DatedSample>,
    /// The last tick in `points`, set when there are more samples.
    next: Option<Cursor>,
}

impl Sink for Piece {
    fn take(&mut self, point: DatedSample) -> bool {
        if self.after.is_some_and(|after| (point.unix, point.seq) <= (after.unix, after.seq)) {
            return true;
        }
        match self.points.last() {
            Some(last) if self.points.len() >= self.limit && (last.unix, last.seq) != (point.unix, point.seq) => {
                self.next = Some(Cursor { unix: last.unix, seq: last.seq });
            }
            _ => self.points.push(point),
        }
        self.next.is_none()
    }

    fn skip_points(&mut self, _count: u64) -> bool {
        false
    }
}

/// A sample that is only in memory, by reference: all unsaved samples together may be half a megabyte.
struct UnsavedPoint<'a> {
    unix: i64,
    seq: u64,
    sample: &'a Sample,
}

impl UnsavedPoint<'_> {
    fn point(&self) -> DatedSample {
        DatedSample { seq: self.seq, unix: self.unix, sample: *self.sample }
    }
}

/// One walk over stored and unsaved samples.
struct Walk<'a> {
    filter: &'a SampleFilter,
    order: Order,
    /// Samples that are only in memory; the next one is last.
    unsaved: Vec<UnsavedPoint<'a>>,
    /// Samples to pass to the sink, in any order.
    points: Vec<DatedSample>,
    sink: &'a mut dyn Sink,
    done: bool,
}

impl Walk<'_> {
    fn descending(&self) -> bool {
        self.order == Order::Descending
    }

    /// Removes and returns the next unsaved sample, if its time satisfies `wanted`.
    fn next_unsaved(&mut self, wanted: impl Fn(i64) -> bool) -> Option<DatedSample> {
        let next = self.unsaved.last().filter(|unsaved| wanted(unsaved.unix))?.point();
        self.unsaved.pop();
        Some(next)
    }

    /// Passes the collected samples to the sink, in order.
    fn deliver(&mut self) {
        self.points.sort_unstable_by_key(DatedSample::order);
        if self.descending() {
            self.points.reverse();
        }
        self.done |= !self.points.drain(..).all(|point| self.sink.take(point));
    }

    fn visit_block(&mut self, block: &SampleBlock, decoder: &mut SampleDecoder) -> Result<()> {
        self.points.clear();
        // Unsaved samples between the last block and this one.
        let (first, last, descending) = (block.first, block.last, self.descending());
        while let Some(point) = self.next_unsaved(|unix| if descending { unix > last } else { unix < first }) {
            self.points.push(point);
        }
        self.deliver();
        if self.done {
            return Ok(());
        }
        let no_unsaved_inside = self
            .unsaved
            .last()
            .is_none_or(|unsaved| if descending { unsaved.unix < first } else { unsaved.unix > last });
        let whole = no_unsaved_inside && first >= self.filter.from() && last < self.filter.to();
        if whole && self.filter.iface.is_none() && self.sink.skip_points(block.sample_count) {
            return Ok(());
        }
        let packed = block.packed()?;
        if whole && self.sink.skip_points(count_samples(&packed, self.filter.iface)? as u64) {
            return Ok(());
        }
        let tick_times = decoder.decode_ticks(&packed)?;
        let mut start = tick_times.partition_point(|tick| tick.unix < self.filter.from());
        let mut end = tick_times.partition_point(|tick| tick.unix < self.filter.to());
        while start < end && !self.done {
            let length = ticks_per_step(&packed, self.filter);
            let step = match descending {
                true => step_start(decoder.tick_times(), end, length)..end,
                false => start..step_end(decoder.tick_times(), start, length),
            };
            let edges = (decoder.tick_times()[step.start].unix, decoder.tick_times()[step.end - 1].unix);
            self.unpack(decoder, &packed, step.clone())?;
            while let Some(point) = self.next_unsaved(|unix| if descending { unix >= edges.0 } else { unix <= edges.1 })
            {
                self.points.push(point);
            }
            self.deliver();
            (start, end) = if descending { (start, step.start) } else { (step.end, end) };
        }
        Ok(())
    }

    /// Adds the matching samples of some ticks of a block; `rows` are the indices of the ticks.
    fn unpack(&mut self, decoder: &mut SampleDecoder, packed: &Packed, rows: Range<usize>) -> Result<()> {
        decoder.each_sample(packed, self.filter.iface, rows, &mut |tick, sample| {
            let point = DatedSample { seq: tick.seq, unix: tick.unix, sample: *sample };
            if self.filter.matches(&point) {
                self.points.push(point);
            }
        })
    }
}

/// How many ticks to unpack at once.
fn ticks_per_step(packed: &Packed, filter: &SampleFilter) -> usize {
    let groups = if filter.iface.is_some() { 1 } else { packed.groups().count() };
    (SAMPLES_PER_STEP / groups.max(1)).max(1)
}

/// Start of the step that ends before `end`. Ticks of one second stay in one step, because unsaved samples may lie
/// among them.
fn step_start(tick_times: &[TickTime], end: usize, length: usize) -> usize {
    let mut start = end.saturating_sub(length);
    while start > 0 && tick_times[start - 1].unix == tick_times[start].unix {
        start -= 1;
    }
    start
}

/// End of the step that begins at `start`.
fn step_end(tick_times: &[TickTime], start: usize, length: usize) -> usize {
    let mut end = (start + length).min(tick_times.len());
    while end < tick_times.len() && tick_times[end].unix == tick_times[end - 1].unix {
        end += 1;
    }
    end
}

impl Snapshot<'_> {
    /// Samples newest first: skips `offset`, returns at most `limit`.
    pub fn newest(&self, filter: &SampleFilter, offset: u64, limit: usize) -> Result<Vec<DatedSample>> {
        let mut page = Page { skip: offset, limit, points: Vec::new() };
        self.walk(filter, Order::Descending, &mut page)?;
        Ok(page.points)
    }

    /// Samples oldest first, after the cursor `after`: about `limit`, in whole ticks. Also returns the next cursor,
    /// `None` at the end.
    pub fn oldest(
        &self,
        filter: &SampleFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<DatedSample>, Option<Cursor>)> {
        let from = after.map_or(filter.from(), |after| after.unix.max(filter.from()));
        let mut piece = Piece { after, limit, points: Vec::new(), next: None };
        self.walk(&SampleFilter { from: Some(from), ..*filter }, Order::Ascending, &mut piece)?;
        Ok((piece.points, piece.next))
    }

    fn walk(&self, filter: &SampleFilter, order: Order, sink: &mut dyn Sink) -> Result<()> {
        let mut unsaved = Vec::new();
        self.each_unsaved(&mut |seq, unix, sample| {
            let point = UnsavedPoint { unix, seq, sample };
            unsaved.extend(filter.matches(&point.point()).then_some(point));
        });
        unsaved.sort_unstable_by_key(|unsaved| (unsaved.unix, unsaved.seq, unsaved.sample.iface));
        if order == Order::Ascending {
            unsaved.reverse();
        }
        let mut walk = Walk { filter, order, unsaved, points: Vec::new(), sink, done: false };
        if let Some(stored) = &self.stored {
            stored.each_block(BlockRange::overlapping(filter.from(), filter.to()), order, &mut |block, decoder| {
                walk.visit_block(block, decoder)?;
                Ok(if walk.done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        while !walk.done {
            let Some(point) = walk.next_unsaved(|_| true) else { break };
            walk.done = !walk.sink.take(point);
        }
        Ok(())
    }

    /// Calls `each` with one bucket per sample that overlaps the range, in time order except where the clock was set
    /// back.
    pub(super) fn each_sample(
        &self,
        iface: IfaceId,
        (from, to): (i64, i64),
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        // The first sample that ends at or after `to` is the last one that can overlap the range: the next sample
        // begins where it ends.
        let mut reached_end = false;
        let mut add = |unix: i64, sample: &Sample| {
            let (start, end) = split::range(unix, sample);
            reached_end |= end >= to;
            if start < to && end > from {
                each(&Bucket::new(start, end, &split::whole(sample)));
            }
            reached_end
        };
        // A sample that begins before `to` ends at most this late, unless it is a gap.
        let last_end = to + LONGEST_INTERVAL_S;
        if !self.each_stored_sample(iface, BlockRange::overlapping(from + 1, last_end + 1), &mut add)? {
            // A gap may be longer. If a five-minute cell at `to` has data, look for the sample that covers it;
            // otherwise the interface was not there any more.
            let cell = split::floor(to, FIVE_MINUTES_S);
            let mut continues = false;
            let spec = Resolution::FiveMinutes.spec();
            self.each_cell_bucket(spec, iface, (cell, cell + FIVE_MINUTES_S), &mut |_| continues = true)?;
            if continues {
                self.each_stored_sample(iface, BlockRange::beginning(last_end, i64::MAX, from + 1), &mut add)?;
            }
        }
        self.each_unsaved(&mut |_, unix, sample| {
            if sample.iface == iface {
                add(unix, sample);
            }
        });
        Ok(())
    }

    /// Calls `add` with the stored samples of one interface, block by block, until it returns `true`. Returns whether
    /// it did.
    fn each_stored_sample(
        &self,
        iface: IfaceId,
        range: BlockRange,
        add: &mut dyn FnMut(i64, &Sample) -> bool,
    ) -> Result<bool> {
        let Some(stored) = &self.stored else { return Ok(false) };
        let mut done = false;
        stored.each_block(range, Order::Ascending, &mut |block, decoder| {
            let packed = block.packed()?;
            decoder.decode_ticks(&packed)?;
            decoder.each_sample(&packed, Some(iface), 0..packed.rows, &mut |tick, sample| {
                done = add(tick.unix, sample);
            })?;
            Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(done)
    }
}
