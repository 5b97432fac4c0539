//! The coarser levels: rows of cells that only ever grow by addition.

use crate::sorted::Map;

use rusqlite::{Connection, OptionalExtension, params};

use super::block::Columns;
use super::fold::{self, CELL_S, Cell, DAY_S, HOUR_S, WINDOW_S};
use super::rows::{Cells, pack_cells, unpack_cells};
use crate::clock::Zone;
use crate::error::Result;
use crate::model::IfaceId;

/// A level whose rows have one length.
pub(super) struct Level {
    pub row_s: i64,
    pub cell_s: i64,
    pub range: &'static str,
    one: &'static str,
    put: &'static str,
}

pub(super) const FIVE_MINUTES: Level = Level {
    row_s: WINDOW_S,
    cell_s: CELL_S,
    range: "SELECT start, data FROM five_minutes WHERE start >= ?1 AND start < ?2 ORDER BY start",
    one: "SELECT data FROM five_minutes WHERE start = ?1",
    put: "INSERT OR REPLACE INTO five_minutes VALUES (?1, ?2)",
};

pub(super) const HOURS: Level = Level {
    row_s: DAY_S,
    cell_s: HOUR_S,
    range: "SELECT start, data FROM hour WHERE start >= ?1 AND start < ?2 ORDER BY start",
    one: "SELECT data FROM hour WHERE start = ?1",
    put: "INSERT OR REPLACE INTO hour VALUES (?1, ?2)",
};
/// Adds five-minute cells of one window to every coarser level.
pub(super) fn put_window(conn: &Connection, window: i64, cells: &Cells, zone: &Zone) -> Result<()> {
    if cells.is_empty() {
        return Ok(());
    }
    add_to(conn, &FIVE_MINUTES, window, cells)?;
    let day = fold::floor(window, DAY_S);
    let mut hours = Cells::new();
    for ((iface, at), cell) in cells {
        let hour = (window - day + i64::from(*at) * CELL_S) / HOUR_S;
        hours.entry((*iface, hour as u16)).or_default().add(cell);
    }
    add_to(conn, &HOURS, day, &hours)?;
    add_days(conn, zone, cells.iter().map(|((iface, at), cell)| (*iface, window + i64::from(*at) * CELL_S, cell)))
}

fn add_to(conn: &Connection, level: &Level, start: i64, more: &Cells) -> Result<()> {
    let mut cells = more.clone();
    if let Some(bytes) = conn.prepare_cached(level.one)?.query_row([start], |row| row.get(0)).optional()? {
        add_stored(&mut cells, bytes, level.cell_s);
    }
    let packed = pack_cells(&cells, (level.row_s / level.cell_s) as usize, level.cell_s);
    conn.prepare_cached(level.put)?.execute(params![start, packed])?;
    Ok(())
}

/// What of a stored row can be read is added.
fn add_stored(cells: &mut Cells, bytes: Vec<u8>, cell_s: i64) {
    let mut columns = Columns::default();
    let read = unpack_cells(&bytes, cell_s, None, &mut columns, &mut |iface, at, cell| {
        cells.entry((iface, at)).or_default().add(cell);
    });
    if let Err(error) = read {
        log::error!("history is lost: {error}");
    }
}

/// Adds five-minute cells to the rows of their local days.
fn add_days<'a>(
    conn: &Connection,
    zone: &Zone,
    cells: impl Iterator<Item = (IfaceId, i64, &'a Cell)> + Clone,
) -> Result<()> {
    let starts = cells.clone().map(|(_, start, _)| start);
    let (Some(from), Some(to)) = (starts.clone().min(), starts.max()) else { return Ok(()) };
    let mut days = Days::load(Some(conn), from, to)?;
    let mut sums: Map<(i64, i64), Cells> = Map::new();
    for (iface, start, cell) in cells {
        let day = days.of(start, zone);
        sums.entry(day).or_default().entry((iface, 0)).or_default().add(cell);
    }
    for ((start, until), mut cells) in sums {
        let stored = conn.prepare_cached("SELECT data FROM day WHERE start = ?1")?.query_row([start], |row| row.get(0));
        if let Some(bytes) = stored.optional()? {
            add_stored(&mut cells, bytes, until - start);
        }
        conn.prepare_cached("INSERT OR REPLACE INTO day VALUES (?1, ?2, ?3)")?.execute(params![
            start,
            until,
            pack_cells(&cells, 1, until - start)
        ])?;
    }
    Ok(())
}

/// The local days around some time: those that have a row keep the borders they were cut with, and the others are cut
/// in the zone, within what those leave.
pub(super) struct Days {
    rows: Vec<(i64, i64)>,
    latest: usize,
}

impl Days {
    /// Far enough around for the neighbours, whatever the zone.
    pub const AROUND_S: i64 = 3 * DAY_S;

    /// Without a database no day has a row.
    pub fn load(conn: Option<&Connection>, from: i64, to: i64) -> Result<Days> {
        let Some(conn) = conn else { return Ok(Days { rows: Vec::new(), latest: 0 }) };
        let mut statement =
            conn.prepare_cached("SELECT start, until FROM day WHERE start > ?1 AND start < ?2 ORDER BY start")?;
        let rows = statement
            .query_map([from - Days::AROUND_S, to + Days::AROUND_S], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Days { rows, latest: 0 })
    }

    /// As though the day from `start` had no row.
    pub fn forget(&mut self, start: i64) {
        self.rows.retain(|(from, _)| *from != start);
    }

    pub fn of(&mut self, unix: i64, zone: &Zone) -> (i64, i64) {
        match self.rows.get(self.latest) {
            Some(&(start, until)) if start <= unix && unix < until => return (start, until),
            _ => {}
        }
        let next = self.rows.partition_point(|(start, _)| *start <= unix);
        self.latest = next;
        let mut day = zone.day(unix);
        if let Some(before) = next.checked_sub(1) {
            if unix < self.rows[before].1 {
                self.latest = before;
                return self.rows[before];
            }
            day.0 = day.0.max(self.rows[before].1);
        }
        if let Some((start, _)) = self.rows.get(next) {
            day.1 = day.1.min(*start);
        }
        // Whatever a zone says, a moment lies in its own day.
        let day = (day.0.min(unix), day.1.max(unix + 1));
        self.rows.insert(next, day);
        day
    }
}

/// The zone has changed: the day that is not over yet is cut anew, from its five-minute cells. Closed days stay.
pub(super) fn cut_again(conn: &Connection, newest: Option<i64>, zone: &Zone) -> Result<()> {
    let Some((start, until, mut stored)) = open_day(conn, newest)? else { return Ok(()) };
    let mut cells = Vec::new();
    each_cell(conn, None, start, until, &mut |iface, at, cell| cells.push((iface, at, *cell)))?;
    for (iface, _, cell) in &cells {
        let left = stored.entry((*iface, 0)).or_default();
        for (left, part) in left.sum.0.iter_mut().zip(cell.sum.0) {
            *left = left.wrapping_sub(part);
        }
    }
    if !stored.values().all(|cell| cell.sum.is_zero()) {
        // The cells are gone already (a very small --max-size): the day keeps its borders.
        return Ok(());
    }
    conn.execute("DELETE FROM day WHERE start = ?1", [start])?;
    add_days(conn, zone, cells.iter().map(|(iface, at, cell)| (*iface, *at, cell)))
}

/// The row of the day that the newest tick lies in.
pub(super) fn open_day(conn: &Connection, newest: Option<i64>) -> Result<Option<(i64, i64, Cells)>> {
    let Some(newest) = newest else { return Ok(None) };
    let row = conn
        .prepare_cached("SELECT start, until, data FROM day WHERE start < ?1 ORDER BY start DESC LIMIT 1")?
        .query_row([newest], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(row.filter(|(_, until, _)| newest < *until).map(|(start, until, bytes)| {
        let mut cells = Cells::new();
        add_stored(&mut cells, bytes, until - start);
        (start, until, cells)
    }))
}

/// The stored five-minute cells that start in `[from, to)`.
pub(super) fn each_cell(
    conn: &Connection,
    iface: Option<IfaceId>,
    from: i64,
    to: i64,
    each: &mut dyn FnMut(IfaceId, i64, &Cell),
) -> Result<()> {
    let level = &FIVE_MINUTES;
    let mut columns = Columns::default();
    let mut statement = conn.prepare_cached(level.range)?;
    let mut rows = statement.query([fold::floor(from, level.row_s), to])?;
    while let Some(row) = rows.next()? {
        let start: i64 = row.get(0)?;
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let read = unpack_cells(bytes, level.cell_s, iface, &mut columns, &mut |iface, at, cell| {
            let at = start + i64::from(at) * level.cell_s;
            if at >= from && at < to {
                each(iface, at, cell);
            }
        });
        if let Err(error) = read {
            log::error!("history around {start} is passed over: {error}");
        }
    }
    Ok(())
}
