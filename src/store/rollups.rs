//! The tables of the roll-ups: blocks of cells. A save only adds to cells, except that after a change of the time zone
//! it cuts the newest local day again. `resolution.rs` lists the roll-ups.

use crate::sorted::Map;

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::block::Columns;
use super::codec::{Cells, pack_cells, unpack_cells};
use super::split;
use crate::clock::Zone;
use crate::error::Result;
use crate::model::{Cell, IfaceId};
use crate::resolution::{Bucketing, DAY_S, FIVE_MINUTES_S, Resolution, ResolutionSpec, rollups};

/// A stored block of cells; `start` and `until` are UTC seconds.
pub struct CellBlock<'a> {
    spec: &'a ResolutionSpec,
    pub start: i64,
    pub until: i64,
    bytes: &'a [u8],
}

impl CellBlock<'_> {
    pub fn bounds(&self) -> (i64, i64) {
        (self.start, self.until)
    }

    /// Calls `each` with the cells of one interface, or of all (`None`), each with its start, in ascending order of
    /// interface and time. Where the block is damaged, logs an error and stops.
    pub fn each_cell(&self, only: Option<IfaceId>, columns: &mut Columns, each: &mut dyn FnMut(IfaceId, i64, &Cell)) {
        let cell_s = self.spec.cell_s(self.bounds());
        let read = unpack_cells(self.bytes, cell_s, only, columns, &mut |iface, at, cell| {
            each(iface, self.start + i64::from(at) * cell_s, cell);
        });
        if let Err(error) = read {
            log::error!("history around {} (UTC seconds) is skipped: {error}", self.start);
        }
    }
}

impl ResolutionSpec {
    /// SQL for the end of a block.
    fn until_sql(&self) -> String {
        match self.bucketing {
            Bucketing::FixedLength { block_s } => format!("start + {block_s}"),
            _ => "until".to_string(),
        }
    }

    /// SQL for the blocks that satisfy a condition, as (start, until, data).
    fn select_sql(&self, condition: &str) -> String {
        format!("SELECT start, {}, data FROM {} WHERE {condition}", self.until_sql(), self.table)
    }

    fn put_sql(&self) -> String {
        match self.bucketing {
            Bucketing::FixedLength { .. } => {
                format!("INSERT OR REPLACE INTO {} (start, data) VALUES (?1, ?3)", self.table)
            }
            _ => format!("INSERT OR REPLACE INTO {} (start, until, data) VALUES (?1, ?2, ?3)", self.table),
        }
    }
}

/// Calls `each` with the stored blocks that overlap `[from, to)`, ascending.
pub(super) fn each_cell_block(
    conn: &Connection,
    spec: &ResolutionSpec,
    (from, to): (i64, i64),
    each: &mut dyn FnMut(&CellBlock),
) -> Result<()> {
    let mut statement = conn.prepare_cached(&spec.select_sql("start > ?1 AND start < ?2 ORDER BY start"))?;
    let mut rows = statement.query([from.saturating_sub(spec.max_block_s()), to])?;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let stored = CellBlock { spec, start: row.get(0)?, until: row.get(1)?, bytes };
        if stored.until > from {
            each(&stored);
        }
    }
    Ok(())
}

/// Start of the first stored block that ends after `from`.
pub(super) fn first_after(conn: &Connection, spec: &ResolutionSpec, from: i64) -> Result<Option<i64>> {
    let sql = format!("SELECT min(start) FROM {} WHERE start > ?1 AND {} > ?2", spec.table, spec.until_sql());
    Ok(conn.prepare_cached(&sql)?.query_row([from.saturating_sub(spec.max_block_s()), from], |row| row.get(0))?)
}

/// Start of the oldest stored cell.
pub(super) fn oldest(conn: &Connection, spec: &ResolutionSpec) -> Result<Option<i64>> {
    let mut oldest = None;
    if let Some(start) = first_after(conn, spec, i64::MIN)? {
        if spec.bucketing == Bucketing::LocalDays {
            return Ok(Some(start));
        }
        each_cell_block(conn, spec, (start, start + 1), &mut |stored| {
            let end = stored.until - spec.step_s;
            let mut first = end;
            stored.each_cell(None, &mut Columns::default(), &mut |_, at, _| first = first.min(at));
            oldest = Some(first);
        })?;
    }
    Ok(oldest)
}

/// Adds five-minute cells of one six-hour block to every roll-up.
pub(super) fn add_to_rollups(conn: &Connection, block_start: i64, cells: &Cells, zone: &Zone) -> Result<()> {
    let cells = cells.iter().map(|((iface, at), cell)| (*iface, block_start + i64::from(*at) * FIVE_MINUTES_S, cell));
    rollups().iter().try_for_each(|spec| add_to_rollup(conn, spec, cells.clone(), zone))
}

/// Adds five-minute cells to the blocks of one roll-up.
pub(super) fn add_to_rollup<'a>(
    conn: &Connection,
    spec: &'static ResolutionSpec,
    cells: impl Iterator<Item = (IfaceId, i64, &'a Cell)> + Clone,
    zone: &Zone,
) -> Result<()> {
    let starts = cells.clone().map(|(_, start, _)| start);
    let (Some(from), Some(to)) = (starts.clone().min(), starts.max()) else { return Ok(()) };
    let mut bounds = BlockBounds::load(Some(conn), spec, from, to)?;
    let mut blocks: Map<(i64, i64), Cells> = Map::new();
    for (iface, start, cell) in cells {
        let block = bounds.block_at(start, zone);
        let at = ((start - block.0) / spec.cell_s(block)) as u16;
        blocks.entry(block).or_default().entry((iface, at)).or_default().add(cell);
    }
    for (block, mut cells) in blocks {
        if let Some((_, bytes)) = stored_block(conn, spec, block.0)? {
            add_stored_cells(&mut cells, &bytes, spec.cell_s(block));
        }
        put_block(conn, spec, block, &cells)?;
    }
    Ok(())
}

/// Bounds and packed cells of a stored block.
type BlockBytes = ((i64, i64), Vec<u8>);

/// The stored block that begins at `start`.
pub(super) fn stored_block(conn: &Connection, spec: &ResolutionSpec, start: i64) -> Result<Option<BlockBytes>> {
    let mut statement = conn.prepare_cached(&spec.select_sql("start = ?1"))?;
    Ok(statement.query_row([start], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?))).optional()?)
}

pub(super) fn put_block(conn: &Connection, spec: &ResolutionSpec, block: (i64, i64), cells: &Cells) -> Result<()> {
    let packed = pack_cells(cells, spec.cells_per_block(), spec.cell_s(block));
    conn.prepare_cached(&spec.put_sql())?.execute(params![block.0, block.1, packed])?;
    Ok(())
}

pub(super) fn remove_block(conn: &Connection, spec: &ResolutionSpec, start: i64) -> Result<()> {
    conn.prepare_cached(&format!("DELETE FROM {} WHERE start = ?1", spec.table))?.execute([start])?;
    Ok(())
}

/// Adds the readable cells of a stored block.
fn add_stored_cells(cells: &mut Cells, bytes: &[u8], cell_s: i64) {
    let read = unpack_cells(bytes, cell_s, None, &mut Columns::default(), &mut |iface, at, cell| {
        cells.entry((iface, at)).or_default().add(cell);
    });
    if let Err(error) = read {
        log::error!("stored history is lost: {error}");
    }
}

/// Bounds of the blocks of a roll-up. Stored local days keep the bounds that they were cut with; other local days
/// follow the time zone, within the bounds of their stored neighbours.
pub struct BlockBounds {
    spec: &'static ResolutionSpec,
    /// Ascending. Also has the blocks that `block_at` has computed.
    stored: Vec<(i64, i64)>,
    /// Index of the block that `block_at` returned last: the next time is often in the same block.
    last_used: usize,
}

impl BlockBounds {
    /// Loads the stored bounds around `[from, to]`; none without a database.
    pub(super) fn load(
        conn: Option<&Connection>,
        spec: &'static ResolutionSpec,
        from: i64,
        to: i64,
    ) -> Result<BlockBounds> {
        let mut stored = Vec::new();
        if let Some(conn) = conn.filter(|_| spec.bucketing == Bucketing::LocalDays) {
            let (from, to) = (from - spec.max_block_s(), to + spec.max_block_s());
            each_cell_block(conn, spec, (from, to), &mut |block| stored.push(block.bounds()))?;
        }
        Ok(BlockBounds { spec, stored, last_used: 0 })
    }

    /// Bounds without any stored block.
    pub fn without_stored(spec: &'static ResolutionSpec) -> BlockBounds {
        BlockBounds { spec, stored: Vec::new(), last_used: 0 }
    }

    /// Ignores the stored block that begins at `start`.
    pub fn ignore_stored(&mut self, start: i64) {
        self.stored.retain(|(from, _)| *from != start);
    }

    /// Bounds of the block that contains `unix`.
    pub fn block_at(&mut self, unix: i64, zone: &Zone) -> (i64, i64) {
        if let Bucketing::FixedLength { block_s } = self.spec.bucketing {
            let start = split::floor(unix, block_s);
            return (start, start + block_s);
        }
        match self.stored.get(self.last_used) {
            Some(&(start, until)) if start <= unix && unix < until => return (start, until),
            _ => {}
        }
        let next = self.stored.partition_point(|(start, _)| *start <= unix);
        self.last_used = next;
        let mut block = zone.days(unix, self.spec.step_s / DAY_S);
        if let Some(before) = next.checked_sub(1) {
            if unix < self.stored[before].1 {
                self.last_used = before;
                return self.stored[before];
            }
            block.0 = block.0.max(self.stored[before].1);
        }
        if let Some((start, _)) = self.stored.get(next) {
            block.1 = block.1.min(*start);
        }
        // Whatever the zone returns, the block contains `unix`.
        let block = (block.0.min(unix), block.1.max(unix + 1));
        self.stored.insert(next, block);
        block
    }
}

/// After a change of the time zone: cuts the local day of the newest tick again, from its five-minute cells. Earlier
/// days keep their bounds.
pub(super) fn recut_newest_day(conn: &Connection, newest: Option<i64>, zone: &Zone) -> Result<()> {
    rollups()
        .iter()
        .filter(|spec| spec.bucketing == Bucketing::LocalDays)
        .try_for_each(|spec| recut_rollup(conn, spec, newest, zone))
}

fn recut_rollup(conn: &Connection, spec: &'static ResolutionSpec, newest: Option<i64>, zone: &Zone) -> Result<()> {
    let Some((start, until)) = newest_block(conn, spec, newest)? else { return Ok(()) };
    let mut unexplained = Cells::new();
    each_cell_block(conn, spec, (start, until), &mut |stored| {
        stored.each_cell(None, &mut Columns::default(), &mut |iface, _, cell| {
            unexplained.insert((iface, 0), *cell);
        })
    })?;
    let mut cells = Vec::new();
    each_cell(conn, None, (start, until), &mut |iface, at, cell| cells.push((iface, at, *cell)))?;
    for (iface, _, cell) in &cells {
        let unexplained = unexplained.entry((*iface, 0)).or_default();
        for (unexplained, found) in unexplained.sum.0.iter_mut().zip(cell.sum.0) {
            *unexplained = unexplained.wrapping_sub(found);
        }
    }
    if !unexplained.values().all(|cell| cell.sum.is_zero()) {
        // The five-minute cells are already deleted (a very small --max-size): the block keeps its bounds.
        return Ok(());
    }
    remove_block(conn, spec, start)?;
    add_to_rollup(conn, spec, cells.iter().map(|(iface, at, cell)| (*iface, *at, cell)), zone)
}

/// Bounds of the stored block that contains the newest tick.
pub(super) fn newest_block(
    conn: &Connection,
    spec: &ResolutionSpec,
    newest: Option<i64>,
) -> Result<Option<(i64, i64)>> {
    let Some(newest) = newest else { return Ok(None) };
    let block: Option<(i64, i64)> = conn
        .prepare_cached(&spec.select_sql("start < ?1 ORDER BY start DESC LIMIT 1"))?
        .query_row([newest], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(block.filter(|(_, until)| newest < *until))
}

/// Calls `each` with the stored five-minute cells that start in `[from, to)`.
pub(super) fn each_cell(
    conn: &Connection,
    only: Option<IfaceId>,
    (from, to): (i64, i64),
    each: &mut dyn FnMut(IfaceId, i64, &Cell),
) -> Result<()> {
    let mut columns = Columns::default();
    each_cell_block(conn, Resolution::FiveMinutes.spec(), (from, to), &mut |stored| {
        stored.each_cell(only, &mut columns, &mut |iface, at, cell| {
            if at >= from && at < to {
                each(iface, at, cell);
            }
        });
    })
}
