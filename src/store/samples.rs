//! The table of samples: blocks in the order of time that never overlap.

use rusqlite::{Connection, params};

use super::block::Packed;
use super::fold::WINDOW_S;
use super::rows::{Row, Samples, pack_samples, unpack_samples};
use crate::error::Result;

/// A block spans no more than this, so that a reader knows how far back from its key one can begin...
pub(super) const BLOCK_S: i64 = 3_600;
/// ... and holds about so many samples at most, to be unpacked at once on a small machine.
const BLOCK_SAMPLES: usize = 8_192;

/// Stores ticks of one window that are in the order of time. Where they lie among ticks that are stored already (the
/// clock was set back), those blocks are made anew, so that blocks never overlap and readers can walk them in order.
pub(super) fn put_run(conn: &Connection, run: &[Row]) -> Result<()> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
    let (from, to) = (first.moment.unix, last.moment.unix);
    let mut rows = run.to_vec();
    let mut met = Vec::new();
    {
        let mut statement =
            conn.prepare_cached("SELECT first, last, data FROM sample WHERE first <= ?1 ORDER BY first DESC")?;
        let mut blocks = statement.query([to])?;
        while let Some(block) = blocks.next()? {
            if block.get::<_, i64>(1)? < from {
                break;
            }
            met.push(block.get::<_, i64>(0)?);
            match unpack_samples(block.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?) {
                Ok(mut older) => rows.append(&mut older),
                Err(error) => log::error!("samples are lost: {error}"),
            }
        }
    }
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
    conn.prepare_cached("INSERT INTO sample VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        first.moment.unix,
        last.moment.unix,
        seq as i64,
        n as i64,
        pack_samples(rows)
    ])?;
    Ok(())
}

/// Hands over the blocks of one window, in the order of time. A damaged one is passed over, loudly.
pub(super) fn each_block(
    conn: &Connection,
    window: i64,
    each: &mut dyn FnMut(i64, &Packed, &mut Samples) -> Result<()>,
) -> Result<()> {
    let mut samples = Samples::default();
    let mut statement =
        conn.prepare_cached("SELECT first, seq, data FROM sample WHERE first > ?1 AND first <= ?2 ORDER BY first")?;
    let mut blocks = statement.query([window, window + WINDOW_S])?;
    while let Some(block) = blocks.next()? {
        let bytes = block.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let seq = block.get(1)?;
        if let Err(error) = Packed::open(bytes).and_then(|packed| each(seq, &packed, &mut samples)) {
            log::error!("samples around {} are passed over: {error}", block.get::<_, i64>(0)?);
        }
    }
    Ok(())
}
