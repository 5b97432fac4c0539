//! The coarser levels: blocks of cells that only ever grow by addition. Which levels there are is said in `level.rs`.

use crate::sorted::Map;

use rusqlite::{Connection, OptionalExtension, params};

use super::block::Columns;
use super::fold;
use super::rows::{Cells, pack_cells, unpack_cells};
use crate::clock::Zone;
use crate::error::Result;
use crate::level::{CELL_S, Cut, DAY_S, Level, Resolution, coarser};
use crate::model::{Cell, IfaceId};

/// A stored block, from its start to its end.
pub struct Stored<'a> {
    level: &'a Level,
    pub start: i64,
    pub until: i64,
    bytes: &'a [u8],
}

impl Stored<'_> {
    pub fn bounds(&self) -> (i64, i64) {
        (self.start, self.until)
    }

    /// The cells of one interface or of all, each with its start, in ascending order of interface and time. A block that
    /// is damaged is passed over, loudly.
    pub fn each_cell(&self, only: Option<IfaceId>, columns: &mut Columns, each: &mut dyn FnMut(IfaceId, i64, &Cell)) {
        let cell_s = self.level.cell_s(self.bounds());
        let read = unpack_cells(self.bytes, cell_s, only, columns, &mut |iface, at, cell| {
            each(iface, self.start + i64::from(at) * cell_s, cell);
        });
        if let Err(error) = read {
            log::error!("history around {} is passed over: {error}", self.start);
        }
    }
}

impl Level {
    /// The end of a block, in SQL.
    fn until(&self) -> String {
        match self.cut {
            Cut::Even { block_s } => format!("start + {block_s}"),
            _ => "until".to_string(),
        }
    }

    /// All blocks that satisfy a condition, as (start, until, data).
    fn select(&self, condition: &str) -> String {
        format!("SELECT start, {}, data FROM {} WHERE {condition}", self.until(), self.table)
    }

    fn put(&self) -> String {
        match self.cut {
            Cut::Even { .. } => format!("INSERT OR REPLACE INTO {} (start, data) VALUES (?1, ?3)", self.table),
            _ => format!("INSERT OR REPLACE INTO {} (start, until, data) VALUES (?1, ?2, ?3)", self.table),
        }
    }
}

/// Hands over the stored blocks that overlap `[from, to)`, ascending.
pub(super) fn each_stored(
    conn: &Connection,
    level: &Level,
    (from, to): (i64, i64),
    each: &mut dyn FnMut(&Stored),
) -> Result<()> {
    let mut statement = conn.prepare_cached(&level.select("start > ?1 AND start < ?2 ORDER BY start"))?;
    let mut rows = statement.query([from.saturating_sub(level.reach_s()), to])?;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let stored = Stored { level, start: row.get(0)?, until: row.get(1)?, bytes };
        if stored.until > from {
            each(&stored);
        }
    }
    Ok(())
}

/// The start of the first stored block that ends after `from`.
pub(super) fn first_after(conn: &Connection, level: &Level, from: i64) -> Result<Option<i64>> {
    let sql = format!("SELECT min(start) FROM {} WHERE start > ?1 AND {} > ?2", level.table, level.until());
    Ok(conn.prepare_cached(&sql)?.query_row([from.saturating_sub(level.reach_s()), from], |row| row.get(0))?)
}

/// The start of the oldest cell that is stored.
pub(super) fn oldest(conn: &Connection, level: &Level) -> Result<Option<i64>> {
    let mut oldest = None;
    if let Some(start) = first_after(conn, level, i64::MIN)? {
        if level.cut == Cut::Local {
            return Ok(Some(start));
        }
        each_stored(conn, level, (start, start + 1), &mut |stored| {
            let end = stored.until - level.step_s;
            let mut first = end;
            stored.each_cell(None, &mut Columns::default(), &mut |_, at, _| first = first.min(at));
            oldest = Some(first);
        })?;
    }
    Ok(oldest)
}

/// Adds five-minute cells of one window to every coarser level.
pub(super) fn put_window(conn: &Connection, window: i64, cells: &Cells, zone: &Zone) -> Result<()> {
    let cells = cells.iter().map(|((iface, at), cell)| (*iface, window + i64::from(*at) * CELL_S, cell));
    coarser().iter().try_for_each(|level| add(conn, level, cells.clone(), zone))
}

/// Adds five-minute cells to the blocks of one level.
pub(super) fn add<'a>(
    conn: &Connection,
    level: &'static Level,
    cells: impl Iterator<Item = (IfaceId, i64, &'a Cell)> + Clone,
    zone: &Zone,
) -> Result<()> {
    let starts = cells.clone().map(|(_, start, _)| start);
    let (Some(from), Some(to)) = (starts.clone().min(), starts.max()) else { return Ok(()) };
    let mut borders = Borders::load(Some(conn), level, from, to)?;
    let mut blocks: Map<(i64, i64), Cells> = Map::new();
    for (iface, start, cell) in cells {
        let block = borders.around(start, zone);
        let at = ((start - block.0) / level.cell_s(block)) as u16;
        blocks.entry(block).or_default().entry((iface, at)).or_default().add(cell);
    }
    for (block, mut cells) in blocks {
        if let Some((_, bytes)) = block_at(conn, level, block.0)? {
            add_stored(&mut cells, &bytes, level.cell_s(block));
        }
        put_block(conn, level, block, &cells)?;
    }
    Ok(())
}

type Block = ((i64, i64), Vec<u8>);

pub(super) fn block_at(conn: &Connection, level: &Level, start: i64) -> Result<Option<Block>> {
    let mut statement = conn.prepare_cached(&level.select("start = ?1"))?;
    Ok(statement.query_row([start], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?))).optional()?)
}

pub(super) fn put_block(conn: &Connection, level: &Level, block: (i64, i64), cells: &Cells) -> Result<()> {
    let packed = pack_cells(cells, level.cells(), level.cell_s(block));
    conn.prepare_cached(&level.put())?.execute(params![block.0, block.1, packed])?;
    Ok(())
}

pub(super) fn remove_block(conn: &Connection, level: &Level, start: i64) -> Result<()> {
    conn.prepare_cached(&format!("DELETE FROM {} WHERE start = ?1", level.table))?.execute([start])?;
    Ok(())
}

/// Adds what can be read of a stored block.
fn add_stored(cells: &mut Cells, bytes: &[u8], cell_s: i64) {
    let read = unpack_cells(bytes, cell_s, None, &mut Columns::default(), &mut |iface, at, cell| {
        cells.entry((iface, at)).or_default().add(cell);
    });
    if let Err(error) = read {
        log::error!("history is lost: {error}");
    }
}

/// Where the blocks of a level begin and end. Local ones that are stored keep the borders that they were cut with, and
/// the others are cut in the zone, within what those leave.
pub struct Borders {
    level: &'static Level,
    stored: Vec<(i64, i64)>,
    latest: usize,
}

impl Borders {
    /// Around some time. Without a database nothing is stored.
    pub(super) fn load(conn: Option<&Connection>, level: &'static Level, from: i64, to: i64) -> Result<Borders> {
        let mut stored = Vec::new();
        if let Some(conn) = conn.filter(|_| level.cut == Cut::Local) {
            let (from, to) = (from - level.reach_s(), to + level.reach_s());
            each_stored(conn, level, (from, to), &mut |block| stored.push(block.bounds()))?;
        }
        Ok(Borders { level, stored, latest: 0 })
    }

    /// Without anything that is stored.
    pub fn unstored(level: &'static Level) -> Borders {
        Borders { level, stored: Vec::new(), latest: 0 }
    }

    /// As though the block from `start` were not stored.
    pub fn forget(&mut self, start: i64) {
        self.stored.retain(|(from, _)| *from != start);
    }

    /// The block that a moment lies in.
    pub fn around(&mut self, unix: i64, zone: &Zone) -> (i64, i64) {
        if let Cut::Even { block_s } = self.level.cut {
            let start = fold::floor(unix, block_s);
            return (start, start + block_s);
        }
        match self.stored.get(self.latest) {
            Some(&(start, until)) if start <= unix && unix < until => return (start, until),
            _ => {}
        }
        let next = self.stored.partition_point(|(start, _)| *start <= unix);
        self.latest = next;
        let mut block = zone.days(unix, self.level.step_s / DAY_S);
        if let Some(before) = next.checked_sub(1) {
            if unix < self.stored[before].1 {
                self.latest = before;
                return self.stored[before];
            }
            block.0 = block.0.max(self.stored[before].1);
        }
        if let Some((start, _)) = self.stored.get(next) {
            block.1 = block.1.min(*start);
        }
        // Whatever a zone says, a moment lies in its own day.
        let block = (block.0.min(unix), block.1.max(unix + 1));
        self.stored.insert(next, block);
        block
    }
}

/// The zone has changed: local blocks that are not over yet are cut anew, from their five-minute cells. Closed ones stay.
pub(super) fn cut_again(conn: &Connection, newest: Option<i64>, zone: &Zone) -> Result<()> {
    coarser().iter().filter(|level| level.cut == Cut::Local).try_for_each(|level| cut_level(conn, level, newest, zone))
}

fn cut_level(conn: &Connection, level: &'static Level, newest: Option<i64>, zone: &Zone) -> Result<()> {
    let Some((start, until)) = open_block(conn, level, newest)? else { return Ok(()) };
    let mut left = Cells::new();
    each_stored(conn, level, (start, until), &mut |stored| {
        stored.each_cell(None, &mut Columns::default(), &mut |iface, _, cell| {
            left.insert((iface, 0), *cell);
        })
    })?;
    let mut cells = Vec::new();
    each_cell(conn, None, (start, until), &mut |iface, at, cell| cells.push((iface, at, *cell)))?;
    for (iface, _, cell) in &cells {
        let left = left.entry((*iface, 0)).or_default();
        for (left, part) in left.sum.0.iter_mut().zip(cell.sum.0) {
            *left = left.wrapping_sub(part);
        }
    }
    if !left.values().all(|cell| cell.sum.is_zero()) {
        // The cells are gone already (a very small --max-size): the block keeps its borders.
        return Ok(());
    }
    remove_block(conn, level, start)?;
    add(conn, level, cells.iter().map(|(iface, at, cell)| (*iface, *at, cell)), zone)
}

/// The stored block that the newest tick lies in.
pub(super) fn open_block(conn: &Connection, level: &Level, newest: Option<i64>) -> Result<Option<(i64, i64)>> {
    let Some(newest) = newest else { return Ok(None) };
    let block: Option<(i64, i64)> = conn
        .prepare_cached(&level.select("start < ?1 ORDER BY start DESC LIMIT 1"))?
        .query_row([newest], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(block.filter(|(_, until)| newest < *until))
}

/// The stored five-minute cells that start in `[from, to)`.
pub(super) fn each_cell(
    conn: &Connection,
    only: Option<IfaceId>,
    (from, to): (i64, i64),
    each: &mut dyn FnMut(IfaceId, i64, &Cell),
) -> Result<()> {
    let mut columns = Columns::default();
    each_stored(conn, Resolution::FiveMinutes.level(), (from, to), &mut |stored| {
        stored.each_cell(only, &mut columns, &mut |iface, at, cell| {
            if at >= from && at < to {
                each(iface, at, cell);
            }
        });
    })
}
