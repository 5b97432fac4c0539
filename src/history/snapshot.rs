//! [`Snapshot`]: the history at one moment, from the database and from memory. It holds one read transaction and the
//! ticks that are not saved. A save stores a tick together with all ticks before it, so the highest tick number (`seq`)
//! on disk tells which ticks in memory are saved. Without a database the same code answers from memory alone.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::clock::Zone;
use crate::error::Result;
use crate::level::{Cut, Level, Resolution, WINDOW_S};
use crate::model::{Batch, Sample};
use crate::store::rows::LAST_UNIX;
use crate::store::{Borders, Order, Reader, Span, View, fold};

/// Ticks in memory, oldest first: the batch that the writer may be saving, then the newer ones. [`Snapshot`] skips the
/// ticks that are on disk.
pub type Unsaved = [Arc<Batch>];

/// The longest polling interval, in seconds. A sample begins at most this long before its tick, unless it is a gap.
pub(super) const LONGEST_S: i64 = 3_600;

/// The history at one moment; has the queries. See the module.
pub struct Snapshot<'a> {
    pub(super) stored: Option<View<'a>>,
    pub(super) zone: &'a Zone,
    unsaved: &'a Unsaved,
    /// Highest tick number on disk; 0 without a database.
    seq: u64,
}

impl<'a> Snapshot<'a> {
    pub fn of(reader: &'a Reader, zone: &'a Zone, unsaved: &'a Unsaved) -> Result<Snapshot<'a>> {
        let view = reader.view()?;
        let seq = view.newest_seq()?;
        Ok(Snapshot { stored: Some(view), zone, unsaved, seq })
    }

    pub fn of_memory(zone: &'a Zone, unsaved: &'a Unsaved) -> Snapshot<'a> {
        Snapshot { stored: None, zone, unsaved, seq: 0 }
    }

    /// Calls `each` with the tick number, the time and each sample that is only in memory. Skips ticks that have no
    /// wall time yet.
    pub(super) fn each_unsaved(&self, each: &mut dyn FnMut(u64, i64, &'a Sample)) {
        for batch in self.unsaved {
            for (tick, samples) in batch.iter() {
                let Some(unix) = tick.unix.filter(|_| tick.seq > self.seq) else { continue };
                let unix = unix.clamp(1, LAST_UNIX);
                samples.iter().for_each(|sample| each(tick.seq, unix, sample));
            }
        }
    }

    /// Start of the open block: the six hours whose samples are not rolled up on disk. `None` without a database and
    /// before the first saved tick.
    pub(super) fn open_block(&self) -> Option<i64> {
        self.stored.as_ref()?.window()
    }

    /// Bounds of the stored blocks of a resolution around `range`, and the block whose data must be split again because
    /// the time zone changed. The bounds do not contain that block.
    pub(super) fn block_bounds(
        &self,
        level: &'static Level,
        range: (i64, i64),
    ) -> Result<(Borders, Option<(i64, i64)>)> {
        let Some(stored) = &self.stored else { return Ok((Borders::unstored(level), None)) };
        let mut borders = stored.borders(level, range)?;
        let resplit = stored.cut_otherwise(level, self.zone)?;
        resplit.iter().for_each(|(start, _)| borders.forget(*start));
        Ok((borders, resplit))
    }

    /// Time at which a walk over the buckets of a resolution can start, or go on after it found nothing before `from`.
    /// No bucket lies before it, but the first one may lie some days after it. `None` when there are no more buckets.
    pub fn next_start(&self, resolution: Resolution, from: i64) -> Result<Option<i64>> {
        let level = match resolution {
            Resolution::Sample => Resolution::FiveMinutes.level(),
            _ => resolution.level(),
        };
        let mut first = None;
        let mut find = |start: i64| first = Some(first.map_or(start, |first: i64| first.min(start)));
        if let Some(stored) = &self.stored {
            stored.first_after(level, from)?.into_iter().for_each(&mut find);
        }
        // Parts of the open block's samples that lie before it are in stored blocks already.
        self.open_block().into_iter().filter(|start| start + WINDOW_S > from).for_each(&mut find);
        self.each_unsaved(&mut |_, unix, sample| {
            let (start, end) = fold::range(unix, sample);
            if end > from {
                find(start);
            }
        });
        // A local day begins before the first data in it.
        Ok(first.map(|first| first - Resolution::Day.level().reach_s()))
    }

    /// Oldest time for which a resolution has data on disk. A walk must start at [`Snapshot::next_start`], which may
    /// lie earlier.
    pub fn oldest_of(&self, resolution: Resolution) -> Result<Option<i64>> {
        let Some(stored) = &self.stored else { return Ok(None) };
        let level = resolution.level();
        if level.cut != Cut::Ticks {
            if let Some(oldest) = stored.oldest(level)? {
                return Ok(Some(oldest));
            }
        }
        // After pruning, one interface's first sample may reach far back (a gap), while the older samples of the others
        // are deleted. Then take the latest start among the samples of the first tick.
        let pruned =
            level.cut == Cut::Ticks && stored.first_after(Resolution::FiveMinutes.level(), i64::MIN)?.is_some();
        let mut oldest = None;
        stored.each_block(Span::of(0, i64::MAX), Order::Ascending, &mut |block, samples| {
            let packed = block.packed()?;
            samples.open(&packed)?;
            let (rows, mut latest, mut earliest) = (if pruned { 1 } else { packed.rows }, None, block.first);
            samples.some(&packed, None, 0..rows, &mut |moment, sample| {
                let (begin, _) = fold::range(moment.unix, sample);
                latest = latest.max(Some(begin));
                earliest = earliest.min(begin);
            })?;
            oldest = Some(match pruned {
                true => latest.unwrap_or(block.first).max(block.first - LONGEST_S),
                false => earliest,
            });
            Ok(ControlFlow::Break(()))
        })?;
        Ok(oldest.map(|oldest: i64| match level.cut {
            Cut::Even { .. } => fold::floor(oldest, level.step_s),
            _ => oldest,
        }))
    }
}
