//! How much is kept, and what goes when there is no room for it.

use rusqlite::Connection;

use super::fold::{WINDOW_S, window_of};
use super::samples::BLOCK_S;
use super::state::State;
use super::window::settle;
use crate::clock::Zone;
use crate::error::Result;

/// Pages that a flush may need beside those of its samples: rows of the coarser levels, their parents, the interfaces.
pub(super) const SPARE_PAGES: i64 = 24;

/// How much is kept of each level, counted in rows and not in time: where a clock was ahead for a while, or the machine off
/// for a month, nothing real is thrown away for it.
const KEPT: [(&str, i64); 2] = [
    // 90 days.
    (
        "DELETE FROM five_minutes WHERE start <= (SELECT start FROM five_minutes ORDER BY start DESC LIMIT 1 OFFSET ?1)",
        360,
    ),
    // 5 years.
    ("DELETE FROM hour WHERE start <= (SELECT start FROM hour ORDER BY start DESC LIMIT 1 OFFSET ?1)", 1_827),
];
/// 7 days, beside the open window.
pub(super) const WINDOWS_OF_SAMPLES: usize = 28;
/// A step of the oldest rows, up to an edge.
const OLDEST_SAMPLES: &str = "DELETE FROM sample WHERE first <= ?1 AND first <= (SELECT min(first) FROM sample) + ?2";
const OLDEST_CELLS: &str =
    "DELETE FROM five_minutes WHERE start < ?1 AND start <= (SELECT min(start) FROM five_minutes) + ?2";

/// Throws away what is older than each level is kept. Runs when a window closes: each step writes a few pages.
pub(super) fn prune(conn: &Connection, state: &State) -> Result<()> {
    for (sql, rows) in KEPT {
        conn.execute(sql, [rows])?;
    }
    let mut edge = i64::MAX;
    for _ in 0..=WINDOWS_OF_SAMPLES {
        match newest_before(conn, edge)? {
            Some(first) => edge = window_of(first),
            None => return Ok(()),
        }
    }
    // The open window's samples are nowhere else.
    let edge = edge.min(state.window.unwrap_or(edge));
    conn.execute("DELETE FROM sample WHERE first <= ?1", [edge])?;
    Ok(())
}

fn newest_before(conn: &Connection, edge: i64) -> Result<Option<i64>> {
    Ok(conn.prepare_cached("SELECT max(first) FROM sample WHERE first <= ?1")?.query_row([edge], |row| row.get(0))?)
}

/// Frees pages for a flush when the file is near its largest size: samples first, if need be those of the open window too,
/// then five-minute cells. Pages are used again; the file does not shrink. Says whether the tallies must be written, because
/// blocks went that would tell them.
pub(super) fn make_room(conn: &Connection, state: &mut State, zone: &Zone, pages: u64, needed: i64) -> Result<bool> {
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let free = || -> Result<i64> { Ok(pages as i64 - pragma("page_count")? + pragma("freelist_count")?) };
    if free()? >= needed {
        return Ok(false);
    }
    let Some(window) = state.window else { return Ok(false) };
    // Some more than needed, so that not every flush has to do it.
    let until_enough = |sql: &str, edge: i64, step: i64| -> Result<bool> {
        loop {
            if free()? >= needed + SPARE_PAGES {
                return Ok(true);
            }
            if conn.execute(sql, [edge, step])? == 0 {
                return Ok(false);
            }
        }
    };
    if until_enough(OLDEST_SAMPLES, window, WINDOW_S - 1)? {
        return Ok(false);
    }
    // Very many interfaces at a very short interval: not even six hours of samples fit.
    settle(conn, state, zone)?;
    let newest = newest_before(conn, i64::MAX)?.unwrap_or(window);
    if !until_enough(OLDEST_SAMPLES, newest - 1, BLOCK_S - 1)? && !until_enough(OLDEST_CELLS, window, WINDOW_S - 1)? {
        log::warn!("the database is at its largest size, and holds nothing more that can be thrown away");
    }
    Ok(true)
}
