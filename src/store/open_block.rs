//! The open block, and how a save closes it.
//!
//! The open block is the six hours that the latest tick lies in. Its samples from tick number `first_open_seq` on are
//! stored only as samples; all other samples are in all roll-ups too. A tick in another six-hour block closes the open
//! block: the same transaction adds its samples to the roll-ups. Parts of a sample that lie outside the open block (a
//! gap reaches back over days) go to the roll-ups at once. So every roll-up is exact after each COMMIT, whatever the
//! clock does. A step back into a closed block opens that block again. A clock that was in the year 2033 for a while
//! leaves rows of that year.

use std::ops::ControlFlow;

use crate::sorted::Set;

use rusqlite::{Connection, params};

use super::codec::{Cells, TickRow};
use super::rollups::add_to_rollups;
use super::samples::{BlockRange, Order, each_block};
use super::split::{self, six_hour_block_of};
use super::watermarks::Watermarks;
use crate::clock::Zone;
use crate::error::Result;
use crate::model::Sample;
use crate::resolution::{FIVE_MINUTES_S, OPEN_BLOCK_S};

pub(super) fn put_meta(conn: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<()> {
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![key, value])?;
    Ok(())
}

/// Makes the six hours of the newest tick the open block, and adds the samples outside it to the roll-ups. Returns
/// whether the open block has changed.
pub(super) fn move_open_block(
    conn: &Connection,
    rows: &[TickRow],
    watermarks: &mut Watermarks,
    zone: &Zone,
) -> Result<bool> {
    let Some(last) = rows.last() else { return Ok(false) };
    let open_block = six_hour_block_of(last.time.unix);
    let in_block = rows.iter().rev().take_while(|row| six_hour_block_of(row.time.unix) == open_block).count();
    let moved = in_block < rows.len() || watermarks.open_block != Some(open_block);
    // All samples of `closed_rows` go to the roll-ups; of `open_rows` only the parts outside the open block.
    let (closed_rows, open_rows) = rows.split_at(rows.len() - in_block);
    let closed_block = watermarks.open_block.filter(|_| moved);

    let mut touched: Set<i64> = closed_block.into_iter().collect();
    for (rows, skipped) in [(closed_rows, None), (open_rows, Some(open_block))] {
        for row in rows {
            for sample in &row.samples {
                let (from, to) = split::range(row.time.unix, sample);
                let mut at = split::floor(from, OPEN_BLOCK_S);
                while at < to {
                    if Some(at) != skipped {
                        touched.insert(at);
                    }
                    at += OPEN_BLOCK_S;
                }
            }
        }
    }
    // One six-hour block at a time: the cells of a gap of months do not fit into the memory of a small machine.
    for at in touched {
        let mut cells = Cells::new();
        if closed_block == Some(at) {
            add_stored_samples(conn, at, watermarks.first_open_seq, rows[0].time.seq, &mut cells)?;
        }
        let open_rows = if at == open_block { &[] } else { open_rows };
        for row in closed_rows.iter().chain(open_rows) {
            row.samples.iter().for_each(|sample| add_sample(&mut cells, at, row.time.unix, sample));
        }
        add_to_rollups(conn, at, &cells, zone)?;
    }
    if moved {
        watermarks.open_block = Some(open_block);
        watermarks.first_open_seq = open_rows.first().map_or(last.time.seq, |row| row.time.seq);
        put_watermarks(conn, watermarks)?;
    }
    Ok(moved)
}

/// Adds the samples of the open block to the roll-ups, so that the samples can be deleted.
pub(super) fn roll_up_open_block(conn: &Connection, watermarks: &mut Watermarks, zone: &Zone) -> Result<()> {
    let Some(open_block) = watermarks.open_block else { return Ok(()) };
    let mut cells = Cells::new();
    add_stored_samples(conn, open_block, watermarks.first_open_seq, watermarks.seq + 1, &mut cells)?;
    add_to_rollups(conn, open_block, &cells, zone)?;
    watermarks.first_open_seq = watermarks.seq + 1;
    put_watermarks(conn, watermarks)
}

fn put_watermarks(conn: &Connection, watermarks: &Watermarks) -> Result<()> {
    put_meta(conn, "window", watermarks.open_block)?;
    put_meta(conn, "since", watermarks.first_open_seq as i64)
}

/// Adds to `cells` the part of the stored ticks `[from_seq, before_seq)` that lies in the six hours from `start` on.
fn add_stored_samples(conn: &Connection, start: i64, from_seq: u64, before_seq: u64, cells: &mut Cells) -> Result<()> {
    each_block(conn, BlockRange::six_hours(start), Order::Ascending, &mut |block, decoder| {
        let packed = block.packed()?;
        decoder.decode_ticks(&packed)?;
        decoder.each_sample(&packed, None, 0..packed.rows, &mut |tick_time, sample| {
            if tick_time.seq >= from_seq && tick_time.seq < before_seq {
                add_sample(cells, start, tick_time.unix, sample);
            }
        })?;
        Ok(ControlFlow::Continue(()))
    })
}

fn add_sample(cells: &mut Cells, block_start: i64, unix: i64, sample: &Sample) {
    split::pieces(unix, sample, block_start, block_start + OPEN_BLOCK_S, &mut |start, cell| {
        cells.entry((sample.iface, ((start - block_start) / FIVE_MINUTES_S) as u16)).or_default().add(cell);
    });
}
