//! Deletes history that exceeds its retention, and the oldest history when the file is full.

use rusqlite::Connection;

use super::connection::pragma;
use super::open_block::roll_up_open_block;
use super::split::six_hour_block_of;
use super::watermarks::Watermarks;
use crate::clock::Zone;
use crate::error::Result;
use crate::resolution::{Bucketing, DAY_S, HOUR_S, OPEN_BLOCK_S, RESOLUTIONS, Resolution, ResolutionSpec, Retention};

/// Seconds of samples to delete at once when the samples of the open block alone fill the file.
const OPEN_BLOCK_STEP_S: i64 = HOUR_S;
/// Pages that a save may need besides those of its samples: rows of the roll-ups, their parent pages, the interfaces.
pub(super) const SPARE_PAGES: i64 = 24;

pub(super) const BLOCKS_PER_DAY: u32 = (DAY_S / OPEN_BLOCK_S) as u32;
/// SQL that deletes the oldest samples: blocks that begin up to ?2 seconds after the oldest block, but not after ?1.
const OLDEST_SAMPLES: &str = "DELETE FROM sample WHERE first <= ?1 AND first <= (SELECT min(first) FROM sample) + ?2";

fn oldest_cells(spec: &ResolutionSpec) -> String {
    let table = spec.table;
    format!("DELETE FROM {table} WHERE start < ?1 AND start <= (SELECT min(start) FROM {table}) + ?2")
}

/// Deletes the blocks that exceed the retention of their resolution. Runs when the open block closes, so that each run
/// deletes few pages, at the first save, and when the retention has changed. Counts blocks, not time: a month without
/// power deletes nothing, and each block from a time when the clock was ahead costs one real block.
pub(super) fn prune(conn: &Connection, watermarks: &Watermarks, retention: &Retention) -> Result<()> {
    for spec in RESOLUTIONS.iter().filter(|spec| spec.retention_setting.is_some()) {
        match spec.bucketing {
            Bucketing::Ticks => prune_samples(conn, watermarks, retention.days(spec.resolution))?,
            Bucketing::FixedLength { block_s } => prune_cells(conn, spec, block_s, retention.days(spec.resolution))?,
            Bucketing::LocalDays => prune_cells(conn, spec, spec.step_s, retention.days(spec.resolution))?,
        }
    }
    Ok(())
}

fn prune_cells(conn: &Connection, spec: &ResolutionSpec, block_s: i64, days: u32) -> Result<()> {
    // A block of more than six hours is not complete when the open block closes: keep one more.
    let kept_open = i64::from(block_s > OPEN_BLOCK_S);
    let (blocks, table) = ((i64::from(days) * DAY_S).div_euclid(block_s) + kept_open, spec.table);
    let newest_to_delete = format!("SELECT start FROM {table} ORDER BY start DESC LIMIT 1 OFFSET ?1");
    conn.execute(&format!("DELETE FROM {table} WHERE start <= ({newest_to_delete})"), [blocks])?;
    Ok(())
}

fn prune_samples(conn: &Connection, watermarks: &Watermarks, days: u32) -> Result<()> {
    let mut cutoff = i64::MAX;
    // One more than the retention: the open block.
    for _ in 0..=days.saturating_mul(BLOCKS_PER_DAY) {
        match newest_up_to(conn, cutoff)? {
            Some(first) => cutoff = six_hour_block_of(first),
            None => return Ok(()),
        }
    }
    // The samples of the open block are in no roll-up.
    let cutoff = cutoff.min(watermarks.open_block.unwrap_or(cutoff));
    conn.execute("DELETE FROM sample WHERE first <= ?1", [cutoff])?;
    Ok(())
}

fn newest_up_to(conn: &Connection, cutoff: i64) -> Result<Option<i64>> {
    Ok(conn.prepare_cached("SELECT max(first) FROM sample WHERE first <= ?1")?.query_row([cutoff], |row| row.get(0))?)
}

/// Frees pages for a save when the file is near its maximum size. Deletes samples first, also those of the open block
/// if necessary, then five-minute cells. SQLite reuses the pages; the file does not shrink. Returns whether the caller
/// must write the stale tallies, because this deleted samples that the stored tallies lack.
pub(super) fn free_up_pages(
    conn: &Connection,
    watermarks: &mut Watermarks,
    zone: &Zone,
    max_pages: u64,
    needed_pages: i64,
) -> Result<bool> {
    let free_pages =
        || -> Result<i64> { Ok(max_pages as i64 - pragma(conn, "page_count")? + pragma(conn, "freelist_count")?) };
    if free_pages()? >= needed_pages {
        return Ok(false);
    }
    let Some(open_block) = watermarks.open_block else { return Ok(false) };
    // Free more than needed, so that the next saves find free pages.
    let until_enough = |sql: &str, cutoff: i64, step: i64| -> Result<bool> {
        loop {
            if free_pages()? >= needed_pages + SPARE_PAGES {
                return Ok(true);
            }
            if conn.execute(sql, [cutoff, step])? == 0 {
                return Ok(false);
            }
        }
    };
    if until_enough(OLDEST_SAMPLES, open_block, OPEN_BLOCK_S - 1)? {
        return Ok(false);
    }
    // Very many interfaces at a very short interval: not even six hours of samples fit.
    roll_up_open_block(conn, watermarks, zone)?;
    let newest = newest_up_to(conn, i64::MAX)?.unwrap_or(open_block);
    let cells = oldest_cells(Resolution::FiveMinutes.spec());
    if !until_enough(OLDEST_SAMPLES, newest - 1, OPEN_BLOCK_STEP_S - 1)?
        && !until_enough(&cells, open_block, OPEN_BLOCK_S - 1)?
    {
        log::warn!("the database is at its maximum size, and nothing more can be deleted: raise --max-size");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::history::SampleFilter;
    use crate::model::Batch;
    use crate::resolution::{Resolution, Retention};
    use crate::store::testing::{LOAD_IFACES, Load, OPTIONS, RETENTION, T, TempDir};
    use crate::store::{Options, Store};

    fn count(store: &Store, table: &str) -> i64 {
        store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    fn retention(samples: u32, five_minutes: u32, hours: u32) -> Retention {
        RETENTION
            .with(Resolution::Sample, samples)
            .with(Resolution::FiveMinutes, five_minutes)
            .with(Resolution::Hour, hours)
    }

    #[test]
    fn e41_old_rows_are_deleted_without_a_restart() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        for hour in 0..100 * 24 {
            let mut batch = Batch::default();
            batch.push_tick(hour + 1, T + 3_600 * (hour + 1) as i64, 3_600_000, &[(1, 3_600)]);
            opened.save_batch(&batch).unwrap();
        }
        let store = &opened.store;
        assert_eq!((count(store, "five_minutes"), count(store, "hour"), count(store, "day")), (360, 100, 100));
        let reader = store.reader().unwrap();
        let oldest = reader.stored_snapshot().oldest(&SampleFilter::default(), None, 1).unwrap().0[0].unix;
        // Seven days, and the open block so far.
        assert_eq!(oldest, T + 100 * 86_400 - 7 * 86_400 - 21_600 + 3_600);
        assert_eq!(
            reader.stored_snapshot().oldest_time(Resolution::FiveMinutes).unwrap(),
            Some(T + 10 * 86_400 - 21_600)
        );
        assert_eq!(reader.stored_snapshot().oldest_time(Resolution::Day).unwrap(), Some(T));
        let days = reader.stored_snapshot().buckets(Resolution::Day, 1, 0, i64::MAX).unwrap();
        assert_eq!(days.len(), 100);
        assert!(days.iter().all(|day| day.cell.sum.rx_bytes() == 86_400 && day.cell.plain_s == 86_400));
    }

    #[test]
    fn e41_hours_are_deleted_after_five_years_and_days_never() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        for day in 0..1_900 {
            let mut batch = Batch::default();
            batch.push_tick(day + 1, T + 86_400 * day as i64 + 600, 30_000, &[(1, 1)]);
            opened.save_batch(&batch).unwrap();
        }
        assert_eq!((count(&opened.store, "hour"), count(&opened.store, "day")), (1_827, 1_899));
    }

    /// A changed retention applies from the next save on. A longer one does not bring deleted history back.
    #[test]
    fn e41_a_shorter_retention_applies_at_once_and_changes_no_sum() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let hourly = |opened: &mut crate::store::Opened, hours: std::ops::Range<u64>, retention: Retention| {
            for hour in hours {
                let mut batch = Batch::default();
                batch.push_tick(hour + 1, T + 3_600 * (hour + 1) as i64, 3_600_000, &[(1, 3_600)]);
                opened.store.save_batch_with(&batch, retention).unwrap();
            }
        };
        hourly(&mut opened, 0..30 * 24 + 3, RETENTION);
        let rows =
            |opened: &crate::store::Opened| ["five_minutes", "hour", "day"].map(|table| count(&opened.store, table));
        assert_eq!(rows(&opened), [120, 30, 30]);
        let shorter = retention(1, 2, 3);
        // The save needs no samples: a change of the settings is enough.
        opened.store.save_batch_with(&Batch::default(), shorter).unwrap();
        assert_eq!(rows(&opened), [8, 4, 30]);
        let reader = opened.store.reader().unwrap();
        let oldest = || reader.stored_snapshot().oldest(&SampleFilter::default(), None, 1).unwrap().0[0].unix;
        // One day in whole six-hour blocks, and the open block.
        assert_eq!(oldest(), T + 29 * 86_400 + 3_600);
        let days = reader.stored_snapshot().buckets(Resolution::Day, 1, 0, i64::MAX).unwrap();
        assert_eq!(days.iter().map(|day| day.cell.sum.rx_bytes()).sum::<u64>(), 3_600 * (30 * 24 + 3));
        hourly(&mut opened, 30 * 24 + 3..34 * 24 + 3, retention(1, 4, 3));
        assert_eq!(rows(&opened), [16, 4, 34]);
        // After a restart the first save prunes.
        drop((opened, reader));
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.store.save_batch_with(&Batch::default(), retention(1, 1, 3)).unwrap();
        assert_eq!(rows(&opened), [4, 4, 34]);
    }

    #[test]
    fn e41_a_clock_years_ahead_costs_one_block_even_with_a_short_retention() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let retention = retention(1, 1, 1);
        for hour in 0..24u64 {
            let mut batch = Batch::default();
            batch.push_tick(hour + 1, T + 3_600 * (hour + 1) as i64, 3_600_000, &[(1, 3_600)]);
            opened.store.save_batch_with(&batch, retention).unwrap();
        }
        let before = ["sample", "five_minutes", "hour"].map(|table| count(&opened.store, table));
        // The clock is seven years ahead, then right again. Pruning by time would delete everything real. The block
        // from the wrong time counts as one of the five that are kept (a day has four, and the open block), so the
        // oldest block is deleted six hours early.
        opened.store.save_batch_with(&Batch::steady(100, T + 7 * 365 * 86_400, 1), retention).unwrap();
        opened.store.save_batch_with(&Batch::steady(101, T + 24 * 3_600 + 30, 1), retention).unwrap();
        let after = ["sample", "five_minutes", "hour"].map(|table| count(&opened.store, table));
        assert_eq!(after, [before[0] + 2 - 6, before[1] + 1, before[2] + 1], "{before:?}");
    }

    /// The file stays within its size, and the days stay exact.
    fn stays_within(max_bytes: u64, days: usize, ticks: usize) {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &Options { max_bytes }).unwrap();
        let mut load = Load::new();
        let mut expect = 0;
        for _ in 0..days * 2_880 / ticks {
            let batch = load.batch(ticks);
            expect += batch.samples.iter().map(|sample| u128::from(sample.delta.rx_bytes())).sum::<u128>();
            opened.save_batch(&batch).unwrap();
        }
        opened.store.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let size = std::fs::metadata(dir.file()).unwrap().len();
        assert!(size <= max_bytes, "{size} of {max_bytes}");
        let reader = opened.store.reader().unwrap();
        let sum: u128 = (1..=LOAD_IFACES)
            .flat_map(|iface| reader.stored_snapshot().buckets(Resolution::Day, iface, 0, i64::MAX).unwrap())
            .map(|day| u128::from(day.cell.sum.rx_bytes()))
            .sum();
        assert_eq!(sum, expect);
        drop((opened.store, reader));
        let opened = Store::open(&dir.file(), &Options { max_bytes }).unwrap();
        assert_eq!(opened.records.iter().map(|record| u128::from(record.lifetime.rx_bytes())).sum::<u128>(), expect);
    }

    #[test]
    fn e42_pages_are_reused_and_the_file_stays_within_its_size() {
        // Deletes samples.
        stays_within(1_500_000, 12, 10);
        // Deletes five-minute cells and samples of the open block too.
        stays_within(500_000, 12, 10);
        stays_within(500_000, 3, 120);
    }

    fn check_rollups(store: &Store, expect: u64) {
        let reader = store.reader().unwrap();
        for resolution in [Resolution::FiveMinutes, Resolution::Hour, Resolution::Day] {
            let buckets = reader.stored_snapshot().buckets(resolution, 1, 0, i64::MAX).unwrap();
            assert_eq!(buckets.iter().map(|bucket| bucket.cell.sum.rx_bytes()).sum::<u64>(), expect, "{resolution:?}");
        }
    }

    #[test]
    fn e39_samples_of_the_open_block_are_deleted_when_they_alone_fill_the_file() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.store.max_pages = 1;
        for at in 0..20 {
            opened.save_batch(&Batch::steady(1 + 10 * at, T + 30 + 300 * at as i64, 10)).unwrap();
            check_rollups(&opened.store, 3_000 * (at + 1));
        }
        assert_eq!(count(&opened.store, "sample"), 2);
        drop(opened);
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        assert_eq!(opened.records[0].lifetime.rx_bytes(), 60_000);
        assert_eq!(
            (opened.newest_unix, opened.next_seq),
            (Some(T + 6_000), 201 + crate::store::watermarks::SEQ_MARGIN)
        );
    }

    #[test]
    fn e41_retention_never_deletes_the_open_block() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        for at in 0..40 {
            opened.save_batch(&Batch::steady(1 + at, T + 21_600 * (at + 2) as i64, 1)).unwrap();
        }
        // The clock is set back to before all stored history, then forward again.
        opened.save_batch(&Batch::steady(101, T + 30, 10)).unwrap();
        opened.save_batch(&Batch::steady(111, T + 330, 10)).unwrap();
        check_rollups(&opened.store, 60 * 300);
        opened.save_batch(&Batch::steady(121, T + 21_600 * 42, 1)).unwrap();
        check_rollups(&opened.store, 61 * 300);
    }

    #[test]
    fn e39_a_full_file_is_reported_and_loses_nothing() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T + 30, 3)).unwrap();
        let max_pages: i64 = opened.store.conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        opened.store.conn.pragma_update(None, "max_page_count", max_pages).unwrap();
        let batch = Load::new().batch(500);
        let mut later = batch.clone();
        later.ticks.iter_mut().for_each(|tick| tick.seq += 10);
        assert_eq!(opened.save_batch(&later).unwrap_err().kind, ErrorKind::Full);
        assert_eq!(opened.save_batch(&later).unwrap_err().kind, ErrorKind::Full);
        let reader = opened.store.reader().unwrap();
        assert_eq!(reader.view().unwrap().stats().unwrap().samples, 3);
        opened.store.conn.pragma_update(None, "max_page_count", 1_000).unwrap();
        opened.save_batch(&later).unwrap();
        assert_eq!(reader.view().unwrap().stats().unwrap().samples, 3 + 500 * u64::from(LOAD_IFACES));
    }
}
