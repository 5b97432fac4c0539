//! The coarser levels of one moment: what is in their blocks, and what is in none yet.

use std::ops::ControlFlow;

use super::snapshot::Snapshot;
use crate::error::Result;
use crate::level::{CELL_S, Cut, Level, Resolution, WINDOW_S};
use crate::model::{Bucket, Cell, Counters, IfaceId};
use crate::sorted::{Map, Set};
use crate::store::block::Columns;
use crate::store::{Order, Span, fold};

/// What no block of a level has yet of one interface, as five-minute cells.
struct Recent<'a> {
    snapshot: &'a Snapshot<'a>,
    iface: IfaceId,
    /// As far as it is stored at all.
    open: Map<i64, Cell>,
}

impl Recent<'_> {
    /// The time that it reaches over, piece by piece, in no order.
    fn each_range(&self, each: &mut dyn FnMut(i64, i64)) {
        self.open.keys().for_each(|at| each(*at, at + CELL_S));
        self.snapshot.each_unsaved(&mut |_, unix, sample| {
            if sample.iface == self.iface {
                let (start, end) = fold::range(unix, sample);
                each(start, end);
            }
        });
    }

    /// Its cells in a range, in no order. Never kept: an unsaved gap of months is tens of thousands of them.
    fn each_cell(&self, (from, to): (i64, i64), each: &mut dyn FnMut(i64, &Cell)) {
        self.open.range(from..to).for_each(|(at, cell)| each(*at, cell));
        self.snapshot.each_unsaved(&mut |_, unix, sample| {
            if sample.iface == self.iface {
                fold::pieces(unix, sample, from, to, each);
            }
        });
    }
}

/// From border to border of five-minute cells, all that is needed for the buckets of a level that overlap a range.
fn outwards(level: &Level, (from, to): (i64, i64)) -> (i64, i64) {
    match level.cut {
        Cut::Even { .. } => (fold::floor(from, level.step_s), fold::ceil(to, level.step_s)),
        _ => (fold::floor(from - level.reach_s(), CELL_S), fold::ceil(to + level.reach_s(), CELL_S)),
    }
}

fn inside((start, until): (i64, i64), (from, to): (i64, i64)) -> (i64, i64) {
    (fold::ceil(start, CELL_S).max(from), fold::ceil(until, CELL_S).min(to))
}

impl Snapshot<'_> {
    /// What stored ticks have put into the open window and into no coarser level, as pieces of five-minute cells in a range.
    fn each_open(
        &self,
        only: Option<IfaceId>,
        (from, to): (i64, i64),
        each: &mut dyn FnMut(IfaceId, i64, &Cell),
    ) -> Result<()> {
        let (Some(stored), Some(window)) = (&self.stored, self.window()) else { return Ok(()) };
        let (from, to) = (from.max(window), to.min(window + WINDOW_S));
        if from >= to {
            return Ok(());
        }
        let span = Span::beginning(window, window + WINDOW_S, from + 1);
        stored.each_block(span, Order::Ascending, &mut |block, samples| {
            let packed = block.packed()?;
            samples.open(&packed)?;
            samples.some(&packed, only, 0..packed.rows, &mut |moment, sample| {
                if moment.seq >= stored.since() {
                    fold::pieces(moment.unix, sample, from, to, &mut |at, cell| each(sample.iface, at, cell));
                }
            })?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Buckets of a coarser level that overlap a range, ascending, block by block.
    pub(super) fn each_cell_bucket(
        &self,
        level: &'static Level,
        iface: IfaceId,
        range: (i64, i64),
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        let reach = outwards(level, range);
        let (mut borders, again) = self.borders(level, reach)?;
        let mut recent = Recent { snapshot: self, iface, open: Map::new() };
        let mut add = |_, at: i64, cell: &Cell| recent.open.entry(at).or_default().add(cell);
        self.each_open(Some(iface), reach, &mut add)?;
        if let (Some(stored), Some(block)) = (&self.stored, again) {
            stored.each_cell(Some(iface), inside(block, reach), &mut add)?;
        }
        let mut fresh = Set::new();
        recent.each_range(&mut |start, end| {
            let mut at = fold::floor(start.max(reach.0), CELL_S);
            while at < end.min(reach.1) {
                let block = borders.around(at, self.zone);
                fresh.insert(block);
                at = fold::ceil(block.1, CELL_S);
            }
        });

        let mut cells: Vec<(i64, Cell)> = Vec::new();
        let mut tell = |block: (i64, i64), cells: &mut Vec<(i64, Cell)>, fresh: bool| {
            let cell_s = level.cell_s(block);
            if fresh {
                recent.each_cell(inside(block, reach), &mut |at, cell| {
                    let start = block.0 + fold::floor(at - block.0, cell_s);
                    match cells.binary_search_by_key(&start, |(start, _)| *start) {
                        Ok(found) => cells[found].1.add(cell),
                        Err(place) => cells.insert(place, (start, *cell)),
                    }
                });
            }
            for (start, cell) in cells.drain(..) {
                if start < range.1 && start + cell_s > range.0 {
                    each(&Bucket::new(start, start + cell_s, &cell));
                }
            }
        };
        if let Some(stored) = &self.stored {
            let mut columns = Columns::default();
            stored.each_stored(level, range, &mut |stored| {
                let block = stored.bounds();
                if again == Some(block) {
                    return;
                }
                fresh.drain_below(&block).for_each(|block| tell(block, &mut cells, true));
                stored.each_cell(Some(iface), &mut columns, &mut |_, at, cell| cells.push((at, *cell)));
                tell(block, &mut cells, fresh.remove(&block));
            })?;
        }
        fresh.into_iter().for_each(|block| tell(block, &mut cells, true));
        Ok(())
    }

    /// What passed in the local day around a moment. All interfaces in one walk: each by itself would unpack the open
    /// window as many times.
    pub fn day(&self, unix: i64) -> Result<Map<IfaceId, Counters>> {
        let level = Resolution::Day.level();
        let (mut borders, again) = self.borders(level, (unix, unix + 1))?;
        let day = borders.around(unix, self.zone);
        let range = (fold::ceil(day.0, CELL_S), fold::ceil(day.1, CELL_S));
        let mut sums: Map<IfaceId, Counters> = Map::new();
        let mut add = |iface: IfaceId, _, cell: &Cell| sums.entry(iface).or_default().add(&cell.sum);
        if let Some(stored) = &self.stored {
            if let Some(block) = again {
                stored.each_cell(None, inside(block, range), &mut add)?;
            }
            stored.each_stored(level, day, &mut |stored| {
                if stored.bounds() == day && again != Some(day) {
                    stored.each_cell(None, &mut Columns::default(), &mut add);
                }
            })?;
        }
        self.each_open(None, range, &mut add)?;
        self.each_unsaved(&mut |_, unix, sample| {
            fold::pieces(unix, sample, range.0, range.1, &mut |at, cell| add(sample.iface, at, cell));
        });
        Ok(sums)
    }
}
