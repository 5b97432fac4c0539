//! The open window, and how it closes.
//!
//! One window of six hours is *open*: the one that the latest tick lies in. What passed in it since tick number
//! `since` is in the blocks of samples only; everything else is in all coarser levels too. When a tick comes that
//! lies in another window, the open one is closed: its samples are added to the rows of the coarser levels, in the
//! same transaction. A piece of a sample that lies outside the open window (a gap reaches back over days) is added
//! there at once. So at each commit every level is exact, and it does not matter which way the clock goes: a step
//! back into a closed window opens that one again, and a clock that was in the year 2033 for a while leaves one odd
//! row behind, nothing more.

use std::ops::ControlFlow;

use crate::sorted::Set;

use rusqlite::{Connection, params};

use super::fold::{self, window_of};
use super::levels::put_window;
use super::rows::{Cells, Row};
use super::samples::{Order, Span, each_block};
use super::state::State;
use crate::clock::Zone;
use crate::error::Result;
use crate::level::{CELL_S, WINDOW_S};
use crate::model::Sample;

pub(super) fn put_mark(conn: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<()> {
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![key, value])?;
    Ok(())
}

/// Moves the open window to where the newest tick is, and adds to the coarser levels what lies outside it. Says whether
/// it has moved.
pub(super) fn advance(conn: &Connection, rows: &[Row], state: &mut State, zone: &Zone) -> Result<bool> {
    let Some(last) = rows.last() else { return Ok(false) };
    let window = window_of(last.moment.unix);
    let stays = rows.iter().rev().take_while(|row| window_of(row.moment.unix) == window).count();
    let moved = stays < rows.len() || state.window != Some(window);
    // The samples of these rows go wherever they belong; of the others only what lies outside the window.
    let (gone, open) = rows.split_at(rows.len() - stays);
    let closed = state.window.filter(|_| moved);

    let mut touched: Set<i64> = closed.into_iter().collect();
    for (rows, skip) in [(gone, None), (open, Some(window))] {
        for row in rows {
            for sample in &row.samples {
                let (from, to) = fold::range(row.moment.unix, sample);
                let mut at = fold::floor(from, WINDOW_S);
                while at < to {
                    if Some(at) != skip {
                        touched.insert(at);
                    }
                    at += WINDOW_S;
                }
            }
        }
    }
    // One window at a time: a gap of months would not fit into a small machine's memory at once.
    for at in touched {
        let mut cells = Cells::new();
        if closed == Some(at) {
            add_stored(conn, at, state.since, rows[0].moment.seq, &mut cells)?;
        }
        let open = if at == window { &[] } else { open };
        for row in gone.iter().chain(open) {
            row.samples.iter().for_each(|sample| add(&mut cells, at, row.moment.unix, sample));
        }
        put_window(conn, at, &cells, zone)?;
    }
    if moved {
        state.window = Some(window);
        state.since = open.first().map_or(last.moment.seq, |row| row.moment.seq);
        put_marks(conn, state)?;
    }
    Ok(moved)
}

/// Adds to the coarser levels what the open window holds so far, so that its blocks may go.
pub(super) fn settle(conn: &Connection, state: &mut State, zone: &Zone) -> Result<()> {
    let Some(window) = state.window else { return Ok(()) };
    let mut cells = Cells::new();
    add_stored(conn, window, state.since, state.seq + 1, &mut cells)?;
    put_window(conn, window, &cells, zone)?;
    state.since = state.seq + 1;
    put_marks(conn, state)
}

fn put_marks(conn: &Connection, state: &State) -> Result<()> {
    put_mark(conn, "window", state.window)?;
    put_mark(conn, "since", state.since as i64)
}

/// What stored ticks with numbers from `since` to before `before` have put into a window.
fn add_stored(conn: &Connection, window: i64, since: u64, before: u64, cells: &mut Cells) -> Result<()> {
    each_block(conn, Span::window(window), Order::Ascending, &mut |block, samples| {
        let packed = block.packed()?;
        samples.open(&packed)?;
        samples.some(&packed, None, 0..packed.rows, &mut |moment, sample| {
            if moment.seq >= since && moment.seq < before {
                add(cells, window, moment.unix, sample);
            }
        })?;
        Ok(ControlFlow::Continue(()))
    })
}

fn add(cells: &mut Cells, window: i64, unix: i64, sample: &Sample) {
    fold::pieces(unix, sample, window, window + WINDOW_S, &mut |start, cell| {
        cells.entry((sample.iface, ((start - window) / CELL_S) as u16)).or_default().add(cell);
    });
}
