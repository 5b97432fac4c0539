//! The table of samples: blocks of ticks in the order of time, which never overlap.

use std::ops::ControlFlow;

use rusqlite::{Connection, Row as SqlRow, params};

use super::codec::block::Packed;
use super::codec::{SampleDecoder, TickRow, pack_samples, unpack_samples};
use crate::error::Result;
use crate::resolution::OPEN_BLOCK_S;

/// Longest time between the first and the last tick of a block. A reader of a range needs it to find the first block
/// that can overlap the range.
const BLOCK_S: i64 = 3_600;
/// Approximate limit of samples per block: a small machine unpacks a whole block at once.
const BLOCK_SAMPLES: usize = 8_192;

/// Selects stored blocks by the times of their first and last ticks, in UTC seconds.
#[derive(Clone, Copy, Debug)]
pub struct BlockRange {
    /// The first tick is in `(after, up_to]`.
    after: i64,
    up_to: i64,
    /// The last tick is at or after this.
    reach: i64,
}

impl BlockRange {
    /// Blocks whose time from the first to the last tick overlaps `[from, to)`.
    pub fn overlapping(from: i64, to: i64) -> BlockRange {
        BlockRange { after: from.saturating_sub(BLOCK_S + 1), up_to: to.saturating_sub(1), reach: from }
    }

    /// Blocks that begin in `(after, up_to]` and end at or after `reach`.
    pub fn beginning(after: i64, up_to: i64, reach: i64) -> BlockRange {
        BlockRange { after, up_to, reach }
    }

    /// Blocks of the six hours that begin at `start`. A tick at `start` itself belongs to the six hours before.
    pub fn six_hours(start: i64) -> BlockRange {
        BlockRange::beginning(start, start + OPEN_BLOCK_S, i64::MIN)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// A stored block of samples. SQLite reads its blob only when `packed` is called.
pub struct SampleBlock<'a> {
    stored: &'a SqlRow<'a>,
    /// Times of the first and last tick (UTC seconds), highest tick number, number of samples.
    pub first: i64,
    pub last: i64,
    pub seq: u64,
    pub sample_count: u64,
}

impl SampleBlock<'_> {
    fn bytes(&self) -> Result<&[u8]> {
        Ok(self.stored.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?)
    }

    pub fn packed(&self) -> Result<Packed<'_>> {
        Packed::open(self.bytes()?)
    }
}

/// Called with each block; `Break` ends the walk.
pub type EachBlock<'a> = &'a mut dyn FnMut(&SampleBlock, &mut SampleDecoder) -> Result<ControlFlow<()>>;

/// Walks over stored blocks. Skips a damaged block and logs an error.
pub(super) fn each_block(conn: &Connection, range: BlockRange, order: Order, each: EachBlock) -> Result<()> {
    let mut decoder = SampleDecoder::default();
    let mut statement = conn.prepare_cached(match order {
        Order::Ascending => {
            "SELECT first, last, seq, n, data FROM sample WHERE first > ?1 AND first <= ?2 AND last >= ?3 ORDER BY first"
        }
        Order::Descending => {
            "SELECT first, last, seq, n, data FROM sample WHERE first > ?1 AND first <= ?2 AND last >= ?3
             ORDER BY first DESC"
        }
    })?;
    let mut rows = statement.query([range.after, range.up_to, range.reach])?;
    while let Some(stored) = rows.next()? {
        let number = |column| stored.get::<_, i64>(column);
        let (first, last) = (number(0)?, number(1)?);
        let block = SampleBlock { stored, first, last, seq: number(2)? as u64, sample_count: number(3)? as u64 };
        match each(&block, &mut decoder) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => log::error!("samples around {first} (UTC seconds) are skipped: {error}"),
        }
    }
    Ok(())
}

/// Stores ticks of one six-hour block, which are in the order of time. Where the ticks overlap stored blocks (the clock
/// was set back), merges both and writes the blocks again: blocks never overlap, so readers can walk them in order.
pub(super) fn put_ticks(conn: &Connection, ticks: &[TickRow]) -> Result<()> {
    let (Some(first), Some(last)) = (ticks.first(), ticks.last()) else { return Ok(()) };
    let (from, to) = (first.time.unix, last.time.unix);
    let mut rows = ticks.to_vec();
    let mut overlapping = Vec::new();
    each_block(conn, BlockRange::overlapping(from, to + 1), Order::Ascending, &mut |block, _| {
        overlapping.push(block.first);
        match block.bytes().and_then(unpack_samples) {
            Ok(mut older) => rows.append(&mut older),
            Err(error) => log::error!("stored samples are lost: {error}"),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !overlapping.is_empty() {
        rows.sort_by_key(|row| (row.time.unix, row.time.seq));
    }
    for key in overlapping {
        conn.prepare_cached("DELETE FROM sample WHERE first = ?1")?.execute([key])?;
    }
    let mut start = 0;
    let mut count = 0;
    for at in 0..rows.len() {
        count += rows[at].samples.len();
        let full = rows.get(at + 1).is_none_or(|next| {
            let next = next.time.unix;
            // Ticks of the same second stay in one block: the second is its key.
            next > rows[at].time.unix && (count >= BLOCK_SAMPLES || next - rows[start].time.unix > BLOCK_S)
        });
        if full {
            put_block(conn, &rows[start..=at], count)?;
            (start, count) = (at + 1, 0);
        }
    }
    Ok(())
}

fn put_block(conn: &Connection, rows: &[TickRow], n: usize) -> Result<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let seq = rows.iter().map(|row| row.time.seq).max().unwrap_or(0);
    conn.prepare_cached("INSERT INTO sample (first, last, seq, n, data) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![first.time.unix, last.time.unix, seq as i64, n as i64, pack_samples(rows)])?;
    Ok(())
}
