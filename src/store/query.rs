//! Reads the stored history. The read transactions are short, so that a slow client never keeps SQLite from
//! checkpointing the log. `history` adds the unsaved ticks.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, Row, Transaction};

use super::database_path::{self, DatabaseFile};
use super::rollups::{self, BlockBounds, CellBlock};
use super::samples::{self, BlockRange, EachBlock, Order};
use super::watermarks::Watermarks;
use super::{Copier, open};
use crate::clock::Zone;
use crate::error::Result;
use crate::model::{Cell, Event, EventKind, IfaceId};
use crate::resolution::{Bucketing, ResolutionSpec};

/// A separate connection for reading.
pub struct Reader {
    pub(super) conn: Connection,
    /// Declared after `conn`, so that `conn` is dropped first.
    pub(super) database: Arc<DatabaseFile>,
    /// The file that the store uses now.
    pub(super) current: Arc<Mutex<Arc<DatabaseFile>>>,
}

/// Number of stored samples and settings, and the size of the file in bytes without its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub samples: u64,
    pub settings: u64,
    pub size_bytes: u64,
}

impl Reader {
    /// Reopens the connection when the store now uses another file. Call it before each query, after reading the
    /// unsaved ticks. Fails when another program has overwritten the database.
    pub fn reopen_if_moved(&mut self) -> Result<()> {
        let database = database_path::current_file(&self.current);
        database.ensure_not_overwritten()?;
        if !Arc::ptr_eq(&database, &self.database) {
            *self = open::reader(&database, &self.current)?;
        }
        Ok(())
    }

    /// Begins a read transaction: one consistent state of the history.
    pub fn view(&self) -> Result<View<'_>> {
        let tx = self.conn.unchecked_transaction()?;
        let watermarks = Watermarks::load_meta(&tx)?;
        Ok(View { tx, watermarks })
    }

    pub fn copier(&self) -> Copier {
        Copier { current: self.current.clone() }
    }
}

/// One read transaction.
pub struct View<'a> {
    tx: Transaction<'a>,
    watermarks: Watermarks,
}

impl View<'_> {
    /// Start of the open block, whose latest samples are in no roll-up yet.
    pub fn open_block(&self) -> Option<i64> {
        self.watermarks.open_block
    }

    /// Number of the first tick in the open block whose samples are in no roll-up.
    pub fn first_open_seq(&self) -> u64 {
        self.watermarks.first_open_seq
    }

    /// Number of the newest stored tick. Unsaved ticks have higher numbers.
    pub fn newest_seq(&self) -> Result<u64> {
        let Some(open_block) = self.watermarks.open_block else { return Ok(0) };
        let mut newest = self.watermarks.first_open_seq.saturating_sub(1);
        self.each_block(BlockRange::six_hours(open_block), Order::Ascending, &mut |block, _| {
            newest = newest.max(block.seq);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(newest)
    }

    /// UTC seconds of the newest stored tick.
    fn newest_time(&self) -> Result<Option<i64>> {
        let Some(open_block) = self.watermarks.open_block else { return Ok(None) };
        let mut newest = (0, None);
        self.each_block(BlockRange::six_hours(open_block), Order::Ascending, &mut |block, decoder| {
            let tick_times = decoder.decode_ticks(&block.packed()?)?;
            if block.seq > newest.0 {
                newest = (
                    block.seq,
                    tick_times.iter().max_by_key(|tick_time| tick_time.seq).map(|tick_time| tick_time.unix),
                );
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(newest.1)
    }

    pub fn each_block(&self, range: BlockRange, order: Order, each: EachBlock) -> Result<()> {
        samples::each_block(&self.tx, range, order, each)
    }

    /// Calls `each` with the blocks of a roll-up that overlap a range, ascending.
    pub fn each_cell_block(
        &self,
        spec: &ResolutionSpec,
        range: (i64, i64),
        each: &mut dyn FnMut(&CellBlock),
    ) -> Result<()> {
        rollups::each_cell_block(&self.tx, spec, range, each)
    }

    /// Calls `each` with the five-minute cells that start in a range.
    pub fn each_cell(
        &self,
        only: Option<IfaceId>,
        range: (i64, i64),
        each: &mut dyn FnMut(IfaceId, i64, &Cell),
    ) -> Result<()> {
        rollups::each_cell(&self.tx, only, range, each)
    }

    /// Bounds of the blocks of a roll-up around a range.
    pub fn block_bounds(&self, spec: &'static ResolutionSpec, (from, to): (i64, i64)) -> Result<BlockBounds> {
        BlockBounds::load(Some(&self.tx), spec, from, to)
    }

    /// Bounds of the local day to cut again after a change of the time zone. The writer cuts it again with its next
    /// save; until then each reader does so for its own answer.
    pub fn day_to_recut(&self, spec: &ResolutionSpec, zone: &Zone) -> Result<Option<(i64, i64)>> {
        if spec.bucketing != Bucketing::LocalDays || self.watermarks.zone.as_deref() == Some(zone.name()) {
            return Ok(None);
        }
        rollups::newest_block(&self.tx, spec, self.newest_time()?)
    }

    /// Start of the first block of a roll-up that ends after `from`.
    pub fn first_block_ending_after(&self, spec: &ResolutionSpec, from: i64) -> Result<Option<i64>> {
        rollups::first_after(&self.tx, spec, from)
    }

    /// Start of the oldest cell of a roll-up.
    pub fn oldest_cell_start(&self, spec: &ResolutionSpec) -> Result<Option<i64>> {
        rollups::oldest(&self.tx, spec)
    }

    /// Calls `each` with the stored events, newest first, until it returns `Break`. There are at most 1000.
    pub fn each_event(&self, each: &mut dyn FnMut(Event) -> ControlFlow<()>) -> Result<()> {
        let mut statement =
            self.tx.prepare_cached("SELECT unix, kind, interface, detail FROM event ORDER BY id DESC")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if each(event(row)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub fn stats(&self) -> Result<StoreStats> {
        let one = |sql: &str| -> Result<u64> { Ok(self.tx.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64) };
        Ok(StoreStats {
            samples: one("SELECT coalesce(sum(n), 0) FROM sample")?,
            settings: one("SELECT count(*) FROM setting")?,
            size_bytes: one("PRAGMA page_count")? * one("PRAGMA page_size")?,
        })
    }
}

fn event(row: &Row) -> Result<Event> {
    let name: String = row.get(1)?;
    let kind = EventKind::NAMES.iter().find(|(_, known)| *known == name);
    Ok(Event {
        unix: row.get(0)?,
        // The database does not store monotonic times.
        mono_ms: 0,
        kind: kind.map_or(EventKind::Storage, |(kind, _)| *kind),
        interface: row.get(2)?,
        detail: row.get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use crate::model::Batch;
    use crate::store::Store;
    use crate::store::testing::{OPTIONS, T, TempDir};

    #[test]
    fn stats_count_stored_rows() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T + 30, 30)).unwrap();
        let stats = opened.store.reader().unwrap().view().unwrap().stats().unwrap();
        assert_eq!((stats.samples, stats.settings), (30, 0));
        assert!(stats.size_bytes > 0 && stats.size_bytes % 4_096 == 0);
    }
}
