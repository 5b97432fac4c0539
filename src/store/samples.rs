//! The table of samples: blocks in the order of time that never overlap.

use std::ops::ControlFlow;

use rusqlite::{Connection, Row as Stored, params};

use super::block::Packed;
use super::rows::{Row, Samples, pack_samples, unpack_samples};
use crate::error::Result;
use crate::level::WINDOW_S;

/// A block spans no more than this, so that a reader knows how far back from its key one can begin...
const BLOCK_S: i64 = 3_600;
/// ... and holds about so many samples at most, to be unpacked at once on a small machine.
const BLOCK_SAMPLES: usize = 8_192;

/// Which blocks, by the times of their first and last ticks.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Of the first tick: above the one, and not above the other.
    after: i64,
    up_to: i64,
    /// The last tick is not before this.
    reach: i64,
}

impl Span {
    /// Those that have ticks in `[from, to)`.
    pub fn of(from: i64, to: i64) -> Span {
        Span { after: from.saturating_sub(BLOCK_S + 1), up_to: to.saturating_sub(1), reach: from }
    }

    /// Those that begin in `(after, up_to]`, and have ticks from `reach` on.
    pub fn beginning(after: i64, up_to: i64, reach: i64) -> Span {
        Span { after, up_to, reach }
    }

    /// Those of one window.
    pub fn window(window: i64) -> Span {
        Span::beginning(window, window + WINDOW_S, i64::MIN)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// A stored block. Its samples are read from the disk when they are asked for.
pub struct Block<'a> {
    stored: &'a Stored<'a>,
    /// Times of its first and last ticks, the highest number of a tick, and how many samples it has.
    pub first: i64,
    pub last: i64,
    pub seq: u64,
    pub n: u64,
}

impl Block<'_> {
    fn bytes(&self) -> Result<&[u8]> {
        Ok(self.stored.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?)
    }

    pub fn packed(&self) -> Result<Packed<'_>> {
        Packed::open(self.bytes()?)
    }
}

/// What is done with a block; `Break` when there are enough.
pub type EachBlock<'a> = &'a mut dyn FnMut(&Block, &mut Samples) -> Result<ControlFlow<()>>;

/// The one walk over blocks. A damaged one is passed over, loudly.
pub(super) fn each_block(conn: &Connection, span: Span, order: Order, each: EachBlock) -> Result<()> {
    let mut samples = Samples::default();
    let mut statement = conn.prepare_cached(match order {
        Order::Ascending => {
            "SELECT first, last, seq, n, data FROM sample WHERE first > ?1 AND first <= ?2 AND last >= ?3 ORDER BY first"
        }
        Order::Descending => {
            "SELECT first, last, seq, n, data FROM sample WHERE first > ?1 AND first <= ?2 AND last >= ?3
             ORDER BY first DESC"
        }
    })?;
    let mut rows = statement.query([span.after, span.up_to, span.reach])?;
    while let Some(stored) = rows.next()? {
        let number = |column| stored.get::<_, i64>(column);
        let (first, last) = (number(0)?, number(1)?);
        let block = Block { stored, first, last, seq: number(2)? as u64, n: number(3)? as u64 };
        match each(&block, &mut samples) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => log::error!("samples around {first} are passed over: {error}"),
        }
    }
    Ok(())
}

/// Stores ticks of one window that are in the order of time. Where they lie among ticks that are stored already (the
/// clock was set back), those blocks are made anew, so that blocks never overlap and readers can walk them in order.
pub(super) fn put_run(conn: &Connection, run: &[Row]) -> Result<()> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
    let (from, to) = (first.moment.unix, last.moment.unix);
    let mut rows = run.to_vec();
    let mut met = Vec::new();
    each_block(conn, Span::of(from, to + 1), Order::Ascending, &mut |block, _| {
        met.push(block.first);
        match block.bytes().and_then(unpack_samples) {
            Ok(mut older) => rows.append(&mut older),
            Err(error) => log::error!("samples are lost: {error}"),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !met.is_empty() {
        rows.sort_by_key(|row| (row.moment.unix, row.moment.seq));
    }
    for key in met {
        conn.prepare_cached("DELETE FROM sample WHERE first = ?1")?.execute([key])?;
    }
    let mut start = 0;
    let mut held = 0;
    for at in 0..rows.len() {
        held += rows[at].samples.len();
        let full = rows.get(at + 1).is_none_or(|next| {
            let next = next.moment.unix;
            // Ticks of the same second stay together: the second is the key.
            next > rows[at].moment.unix && (held >= BLOCK_SAMPLES || next - rows[start].moment.unix > BLOCK_S)
        });
        if full {
            put_block(conn, &rows[start..=at], held)?;
            (start, held) = (at + 1, 0);
        }
    }
    Ok(())
}

fn put_block(conn: &Connection, rows: &[Row], n: usize) -> Result<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let seq = rows.iter().map(|row| row.moment.seq).max().unwrap_or(0);
    conn.prepare_cached("INSERT INTO sample (first, last, seq, n, data) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![first.moment.unix, last.moment.unix, seq as i64, n as i64, pack_samples(rows)])?;
    Ok(())
}
