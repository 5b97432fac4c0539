//! One moment of the history: what is on disk, in one read transaction, and what is in memory only. A tick is on disk with
//! all that went before it, or not at all, so that the newest number on disk parts the two. Without a database the same
//! code answers from memory alone.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::clock::Zone;
use crate::error::Result;
use crate::level::{Cut, Level, Resolution, WINDOW_S};
use crate::model::{Batch, Sample};
use crate::store::rows::LAST_UNIX;
use crate::store::{Borders, Order, Reader, Span, View, fold};

/// Samples that are in memory, and perhaps being written at this moment: those that are on disk already are not taken twice.
pub type Unsaved = [Arc<Batch>];

/// The longest interval, in seconds: so far before its tick a sample may begin.
pub(super) const LONGEST_S: i64 = 3_600;

pub struct Snapshot<'a> {
    pub(super) stored: Option<View<'a>>,
    pub(super) zone: &'a Zone,
    unsaved: &'a Unsaved,
    /// The newest number on disk.
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

    /// Hands over the samples that are in memory only, with the number and time of their tick; those without a time have no
    /// place yet.
    pub(super) fn each_unsaved(&self, each: &mut dyn FnMut(u64, i64, &'a Sample)) {
        for batch in self.unsaved {
            for (tick, samples) in batch.iter() {
                let Some(unix) = tick.unix.filter(|_| tick.seq > self.seq) else { continue };
                let unix = unix.clamp(1, LAST_UNIX);
                samples.iter().for_each(|sample| each(tick.seq, unix, sample));
            }
        }
    }

    /// The window whose samples are in no coarser level on disk.
    pub(super) fn window(&self) -> Option<i64> {
        self.stored.as_ref()?.window()
    }

    /// Where the blocks of a level lie around some time, and the one that is to be cut anew.
    pub(super) fn borders(&self, level: &'static Level, range: (i64, i64)) -> Result<(Borders, Option<(i64, i64)>)> {
        let Some(stored) = &self.stored else { return Ok((Borders::unstored(level), None)) };
        let mut borders = stored.borders(level, range)?;
        let again = stored.cut_otherwise(level, self.zone)?;
        again.iter().for_each(|(start, _)| borders.forget(*start));
        Ok((borders, again))
    }

    /// Where a walk through a level's buckets may begin, or go on that has found nothing up to `from`: there is nothing
    /// before, but there may be nothing for some days after either. `None` when nothing follows.
    pub fn next_of(&self, resolution: Resolution, from: i64) -> Result<Option<i64>> {
        let level = match resolution {
            Resolution::Sample => Resolution::FiveMinutes.level(),
            _ => resolution.level(),
        };
        let mut first = None;
        let mut find = |start: i64| first = Some(first.map_or(start, |first: i64| first.min(start)));
        if let Some(stored) = &self.stored {
            stored.first_after(level, from)?.into_iter().for_each(&mut find);
        }
        // What the samples of the open window have put before it is in blocks already.
        self.window().into_iter().filter(|window| window + WINDOW_S > from).for_each(&mut find);
        self.each_unsaved(&mut |_, unix, sample| {
            let (start, end) = fold::range(unix, sample);
            if end > from {
                find(start);
            }
        });
        // Local days begin before what they hold.
        Ok(first.map(|first| first - Resolution::Day.level().reach_s()))
    }

    /// The oldest moment that a level has anything of on disk; not where a walk through it begins, for that is `next_of`.
    pub fn oldest_of(&self, resolution: Resolution) -> Result<Option<i64>> {
        let Some(stored) = &self.stored else { return Ok(None) };
        let level = resolution.level();
        if level.cut != Cut::Ticks {
            if let Some(oldest) = stored.oldest(level)? {
                return Ok(Some(oldest));
            }
        }
        // Older samples may have been thrown away: that one interface's first one goes far back says nothing of the others.
        let pruned =
            level.cut == Cut::Ticks && stored.first_after(Resolution::FiveMinutes.level(), i64::MIN)?.is_some();
        let mut oldest = None;
        stored.each_block(Span::of(0, i64::MAX), Order::Ascending, &mut |block, samples| {
            let packed = block.packed()?;
            samples.open(&packed)?;
            let (rows, mut latest, mut earliest) = (if pruned { 1 } else { packed.rows }, None, block.first);
            samples.some(&packed, None, 0..rows, &mut |moment, sample| {
                // A sample begins before its tick.
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
