//! Roll-ups in a snapshot: the stored cells, and cells computed from samples that are not rolled up on disk.

use std::ops::ControlFlow;

use super::snapshot::Snapshot;
use crate::error::Result;
use crate::model::{Bucket, Cell, Counters, IfaceId};
use crate::resolution::{Bucketing, FIVE_MINUTES_S, OPEN_BLOCK_S, Resolution, ResolutionSpec};
use crate::sorted::{Map, Set};
use crate::store::codec::block::Columns;
use crate::store::{BlockRange, Order, split};

/// Data of one interface that no stored block of a resolution has, as five-minute cells.
struct NotRolledUp<'a> {
    snapshot: &'a Snapshot<'a>,
    iface: IfaceId,
    /// Cells of stored samples in the open block, and of the local day to cut again after a change of the time zone.
    open_cells: Map<i64, Cell>,
}

impl NotRolledUp<'_> {
    /// Calls `each` with the spans of time that have such data, in no order.
    fn each_range(&self, each: &mut dyn FnMut(i64, i64)) {
        self.open_cells.keys().for_each(|at| each(*at, at + FIVE_MINUTES_S));
        self.snapshot.each_unsaved(&mut |_, unix, sample| {
            if sample.iface == self.iface {
                let (start, end) = split::range(unix, sample);
                each(start, end);
            }
        });
    }

    /// Calls `each` with the cells in a range, in no order. The unsaved ones are computed each time and not kept: an
    /// unsaved gap of months is tens of thousands of cells.
    fn each_cell(&self, (from, to): (i64, i64), each: &mut dyn FnMut(i64, &Cell)) {
        self.open_cells.range(from..to).for_each(|(at, cell)| each(*at, cell));
        self.snapshot.each_unsaved(&mut |_, unix, sample| {
            if sample.iface == self.iface {
                split::pieces(unix, sample, from, to, each);
            }
        });
    }
}

/// The range of five-minute cells that contains every bucket which overlaps the given range.
fn widen(spec: &ResolutionSpec, (from, to): (i64, i64)) -> (i64, i64) {
    match spec.bucketing {
        Bucketing::FixedLength { .. } => (split::floor(from, spec.step_s), split::ceil(to, spec.step_s)),
        _ => (
            split::floor(from - spec.max_block_s(), FIVE_MINUTES_S),
            split::ceil(to + spec.max_block_s(), FIVE_MINUTES_S),
        ),
    }
}

/// The range of the five-minute cells that belong to a block, limited to another range.
fn cells_within((start, until): (i64, i64), (from, to): (i64, i64)) -> (i64, i64) {
    (split::ceil(start, FIVE_MINUTES_S).max(from), split::ceil(until, FIVE_MINUTES_S).min(to))
}

impl Snapshot<'_> {
    /// Calls `each` with five-minute cells of the stored samples in the open block that are not rolled up, within a
    /// range. A cell may come in several parts.
    fn each_open_cell(
        &self,
        only: Option<IfaceId>,
        (from, to): (i64, i64),
        each: &mut dyn FnMut(IfaceId, i64, &Cell),
    ) -> Result<()> {
        let (Some(stored), Some(open_block)) = (&self.stored, self.open_block()) else { return Ok(()) };
        let (from, to) = (from.max(open_block), to.min(open_block + OPEN_BLOCK_S));
        if from >= to {
            return Ok(());
        }
        let range = BlockRange::beginning(open_block, open_block + OPEN_BLOCK_S, from + 1);
        stored.each_block(range, Order::Ascending, &mut |block, decoder| {
            let packed = block.packed()?;
            decoder.decode_ticks(&packed)?;
            decoder.each_sample(&packed, only, 0..packed.rows, &mut |tick, sample| {
                if tick.seq >= stored.first_open_seq() {
                    split::pieces(tick.unix, sample, from, to, &mut |at, cell| each(sample.iface, at, cell));
                }
            })?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Buckets of a roll-up that overlap a range, in ascending order, block by block.
    pub(super) fn each_cell_bucket(
        &self,
        spec: &'static ResolutionSpec,
        iface: IfaceId,
        range: (i64, i64),
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        let cell_range = widen(spec, range);
        let (mut bounds, day_to_recut) = self.block_bounds(spec, cell_range)?;
        let mut not_rolled_up = NotRolledUp { snapshot: self, iface, open_cells: Map::new() };
        let mut add = |_, at: i64, cell: &Cell| not_rolled_up.open_cells.entry(at).or_default().add(cell);
        self.each_open_cell(Some(iface), cell_range, &mut add)?;
        if let (Some(stored), Some(block)) = (&self.stored, day_to_recut) {
            stored.each_cell(Some(iface), cells_within(block, cell_range), &mut add)?;
        }
        // The blocks that lack data which is not rolled up.
        let mut pending_blocks = Set::new();
        not_rolled_up.each_range(&mut |start, end| {
            let mut at = split::floor(start.max(cell_range.0), FIVE_MINUTES_S);
            while at < end.min(cell_range.1) {
                let block = bounds.block_at(at, self.zone);
                pending_blocks.insert(block);
                at = split::ceil(block.1, FIVE_MINUTES_S);
            }
        });

        let mut cells: Vec<(i64, Cell)> = Vec::new();
        let mut emit = |block: (i64, i64), cells: &mut Vec<(i64, Cell)>, has_pending: bool| {
            let cell_s = spec.cell_s(block);
            if has_pending {
                not_rolled_up.each_cell(cells_within(block, cell_range), &mut |at, cell| {
                    let start = block.0 + split::floor(at - block.0, cell_s);
                    match cells.binary_search_by_key(&start, |(start, _)| *start) {
                        Ok(found) => cells[found].1.add(cell),
                        Err(index) => cells.insert(index, (start, *cell)),
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
            stored.each_cell_block(spec, range, &mut |cell_block| {
                let block = cell_block.bounds();
                if day_to_recut == Some(block) {
                    return;
                }
                pending_blocks.drain_below(&block).for_each(|block| emit(block, &mut cells, true));
                cell_block.each_cell(Some(iface), &mut columns, &mut |_, at, cell| cells.push((at, *cell)));
                emit(block, &mut cells, pending_blocks.remove(&block));
            })?;
        }
        pending_blocks.into_iter().for_each(|block| emit(block, &mut cells, true));
        Ok(())
    }

    /// Sums of the local day that contains `unix`. All interfaces in one walk: a walk per interface would unpack the
    /// open block each time.
    pub fn day(&self, unix: i64) -> Result<Map<IfaceId, Counters>> {
        let spec = Resolution::Day.spec();
        let (mut bounds, day_to_recut) = self.block_bounds(spec, (unix, unix + 1))?;
        let day = bounds.block_at(unix, self.zone);
        let range = (split::ceil(day.0, FIVE_MINUTES_S), split::ceil(day.1, FIVE_MINUTES_S));
        let mut sums: Map<IfaceId, Counters> = Map::new();
        let mut add = |iface: IfaceId, _, cell: &Cell| sums.entry(iface).or_default().add(&cell.sum);
        if let Some(stored) = &self.stored {
            if let Some(block) = day_to_recut {
                stored.each_cell(None, cells_within(block, range), &mut add)?;
            }
            stored.each_cell_block(spec, day, &mut |cell_block| {
                if cell_block.bounds() == day && day_to_recut != Some(day) {
                    cell_block.each_cell(None, &mut Columns::default(), &mut add);
                }
            })?;
        }
        self.each_open_cell(None, range, &mut add)?;
        self.each_unsaved(&mut |_, unix, sample| {
            split::pieces(unix, sample, range.0, range.1, &mut |at, cell| add(sample.iface, at, cell));
        });
        Ok(sums)
    }
}
