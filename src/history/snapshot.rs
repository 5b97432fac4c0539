//! [`Snapshot`]: the history at one moment, from the database and from memory. It holds one read transaction and the
//! ticks that are not saved. A save stores a tick together with all ticks before it, so the highest tick number (`seq`)
//! on disk tells which ticks in memory are saved. Without a database the same code answers from memory alone.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::clock::Zone;
use crate::error::Result;
use crate::model::{Batch, Sample};
use crate::resolution::{Bucketing, OPEN_BLOCK_S, Resolution, ResolutionSpec};
use crate::store::codec::LAST_UNIX;
use crate::store::{BlockBounds, BlockRange, Order, Reader, View, split};

/// Ticks in memory, oldest first: the batch that the writer may be saving, then the newer ones. [`Snapshot`] skips the
/// ticks that are on disk.
pub type UnsavedBatches = [Arc<Batch>];

/// The longest polling interval, in seconds. A sample begins at most this long before its tick, unless it is a gap.
pub(super) const LONGEST_INTERVAL_S: i64 = 3_600;

/// The history at one moment, with the methods that query it.
pub struct Snapshot<'a> {
    pub(super) stored: Option<View<'a>>,
    pub(super) zone: &'a Zone,
    unsaved: &'a UnsavedBatches,
    /// Highest tick number on disk; 0 without a database.
    saved_seq: u64,
}

impl<'a> Snapshot<'a> {
    pub fn of(reader: &'a Reader, zone: &'a Zone, unsaved: &'a UnsavedBatches) -> Result<Snapshot<'a>> {
        let view = reader.view()?;
        let saved_seq = view.newest_seq()?;
        Ok(Snapshot { stored: Some(view), zone, unsaved, saved_seq })
    }

    pub fn of_memory(zone: &'a Zone, unsaved: &'a UnsavedBatches) -> Snapshot<'a> {
        Snapshot { stored: None, zone, unsaved, saved_seq: 0 }
    }

    /// Calls `each` with the tick number, the time and each sample that is only in memory. Skips ticks that have no
    /// wall time yet.
    pub(super) fn each_unsaved(&self, each: &mut dyn FnMut(u64, i64, &'a Sample)) {
        for batch in self.unsaved {
            for (tick, samples) in batch.iter() {
                let Some(unix) = tick.unix.filter(|_| tick.seq > self.saved_seq) else { continue };
                let unix = unix.clamp(1, LAST_UNIX);
                samples.iter().for_each(|sample| each(tick.seq, unix, sample));
            }
        }
    }

    /// Start of the open block: the six hours whose samples are not rolled up on disk. `None` without a database and
    /// before the first saved tick.
    pub(super) fn open_block(&self) -> Option<i64> {
        self.stored.as_ref()?.open_block()
    }

    /// Bounds of the stored blocks of a resolution around `range`, and the local day to cut again after a change of the
    /// time zone. The bounds do not contain that day.
    pub(super) fn block_bounds(
        &self,
        spec: &'static ResolutionSpec,
        range: (i64, i64),
    ) -> Result<(BlockBounds, Option<(i64, i64)>)> {
        let Some(stored) = &self.stored else { return Ok((BlockBounds::without_stored(spec), None)) };
        let mut bounds = stored.block_bounds(spec, range)?;
        let day_to_recut = stored.day_to_recut(spec, self.zone)?;
        day_to_recut.iter().for_each(|(start, _)| bounds.ignore_stored(*start));
        Ok((bounds, day_to_recut))
    }

    /// Time at which a walk over the buckets of a resolution can start, or continue if it found nothing before `from`.
    /// No further bucket lies before this time, but the next one may lie some days after it. `None` when there are no
    /// more buckets.
    pub fn next_start(&self, resolution: Resolution, from: i64) -> Result<Option<i64>> {
        let spec = match resolution {
            Resolution::Sample => Resolution::FiveMinutes.spec(),
            _ => resolution.spec(),
        };
        let mut first = None;
        let mut find = |start: i64| first = Some(first.map_or(start, |first: i64| first.min(start)));
        if let Some(stored) = &self.stored {
            stored.first_block_ending_after(spec, from)?.into_iter().for_each(&mut find);
        }
        // Parts of the open block's samples that lie before it are in stored blocks already.
        self.open_block().into_iter().filter(|start| start + OPEN_BLOCK_S > from).for_each(&mut find);
        self.each_unsaved(&mut |_, unix, sample| {
            let (start, end) = split::range(unix, sample);
            if end > from {
                find(start);
            }
        });
        // A local day begins before the first data in it.
        Ok(first.map(|first| first - Resolution::Day.spec().max_block_s()))
    }

    /// Oldest time for which a resolution has data on disk. A walk must start at [`Snapshot::next_start`], which may
    /// lie earlier.
    pub fn oldest_time(&self, resolution: Resolution) -> Result<Option<i64>> {
        let Some(stored) = &self.stored else { return Ok(None) };
        let spec = resolution.spec();
        if spec.bucketing != Bucketing::Ticks {
            if let Some(oldest) = stored.oldest_cell_start(spec)? {
                return Ok(Some(oldest));
            }
        }
        // Once there are roll-ups, older samples may be deleted. One interface's first sample may still reach far back
        // (a gap), while the others lack that time. So take the latest start among the samples of the first tick.
        let may_be_pruned = spec.bucketing == Bucketing::Ticks
            && stored.first_block_ending_after(Resolution::FiveMinutes.spec(), i64::MIN)?.is_some();
        let mut oldest = None;
        stored.each_block(BlockRange::overlapping(0, i64::MAX), Order::Ascending, &mut |block, decoder| {
            let packed = block.packed()?;
            decoder.decode_ticks(&packed)?;
            let (rows, mut latest, mut earliest) = (if may_be_pruned { 1 } else { packed.rows }, None, block.first);
            decoder.each_sample(&packed, None, 0..rows, &mut |tick, sample| {
                let (begin, _) = split::range(tick.unix, sample);
                latest = latest.max(Some(begin));
                earliest = earliest.min(begin);
            })?;
            oldest = Some(match may_be_pruned {
                true => latest.unwrap_or(block.first).max(block.first - LONGEST_INTERVAL_S),
                false => earliest,
            });
            Ok(ControlFlow::Break(()))
        })?;
        Ok(oldest.map(|oldest: i64| match spec.bucketing {
            Bucketing::FixedLength { .. } => split::floor(oldest, spec.step_s),
            _ => oldest,
        }))
    }
}
