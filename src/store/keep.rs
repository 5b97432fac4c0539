//! How much is kept, and what goes when there is no room for it.

use rusqlite::Connection;

use super::connection::pragma;
use super::fold::window_of;
use super::state::State;
use super::window::settle;
use crate::clock::Zone;
use crate::error::Result;
use crate::level::{Cut, DAY_S, HOUR_S, Keep, LEVELS, Level, Resolution, WINDOW_S};

/// Samples of so much time go at once, where not even a window of them fits.
const STEP_S: i64 = HOUR_S;
/// Pages that a flush may need beside those of its samples: rows of the coarser levels, their parents, the interfaces.
pub(super) const SPARE_PAGES: i64 = 24;

pub(super) const WINDOWS_PER_DAY: u32 = (DAY_S / WINDOW_S) as u32;
/// A step of the oldest blocks, up to an edge.
const OLDEST_SAMPLES: &str = "DELETE FROM sample WHERE first <= ?1 AND first <= (SELECT min(first) FROM sample) + ?2";

fn oldest_cells(level: &Level) -> String {
    let table = level.table;
    format!("DELETE FROM {table} WHERE start < ?1 AND start <= (SELECT min(start) FROM {table}) + ?2")
}

/// Throws away what is older than each level is kept. Runs when a window closes, where each step writes a few pages, and
/// when less is to be kept than before. How much is kept is counted in blocks and not in time: where a clock was ahead for
/// a while, or the machine off for a month, nothing real is thrown away for it.
pub(super) fn prune(conn: &Connection, state: &State, keep: &Keep) -> Result<()> {
    for level in LEVELS.iter().filter(|level| level.kept_by.is_some()) {
        match level.cut {
            Cut::Ticks => prune_samples(conn, state, keep.days(level.resolution))?,
            Cut::Even { block_s } => prune_cells(conn, level, block_s, keep.days(level.resolution))?,
            Cut::Local => prune_cells(conn, level, level.step_s, keep.days(level.resolution))?,
        }
    }
    Ok(())
}

fn prune_cells(conn: &Connection, level: &Level, block_s: i64, days: u32) -> Result<()> {
    // What is longer than a window is not whole yet when one closes.
    let open = i64::from(block_s > WINDOW_S);
    let (blocks, table) = ((i64::from(days) * DAY_S).div_euclid(block_s) + open, level.table);
    let newest = format!("SELECT start FROM {table} ORDER BY start DESC LIMIT 1 OFFSET ?1");
    conn.execute(&format!("DELETE FROM {table} WHERE start <= ({newest})"), [blocks])?;
    Ok(())
}

fn prune_samples(conn: &Connection, state: &State, days: u32) -> Result<()> {
    let mut edge = i64::MAX;
    // Beside the open window.
    for _ in 0..=days.saturating_mul(WINDOWS_PER_DAY) {
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

/// Frees pages for a flush when the file is near its largest size: samples first, if need be those of the open window
/// too, then five-minute cells. Pages are used again; the file does not shrink. Says whether the tallies must be
/// written, because blocks went that would tell them.
pub(super) fn make_room(conn: &Connection, state: &mut State, zone: &Zone, pages: u64, needed: i64) -> Result<bool> {
    let free = || -> Result<i64> { Ok(pages as i64 - pragma(conn, "page_count")? + pragma(conn, "freelist_count")?) };
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
    let cells = oldest_cells(Resolution::FiveMinutes.level());
    if !until_enough(OLDEST_SAMPLES, newest - 1, STEP_S - 1)? && !until_enough(&cells, window, WINDOW_S - 1)? {
        log::warn!("the database is at its largest size, and holds nothing more that can be thrown away");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::history::Filter;
    use crate::level::{Keep, Resolution};
    use crate::model::Batch;
    use crate::store::testing::{KEEP, LOAD_IFACES, Load, OPTIONS, Place, T};
    use crate::store::{Options, Store};

    fn count(store: &Store, table: &str) -> i64 {
        store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    fn kept(samples: u32, five_minutes: u32, hours: u32) -> Keep {
        KEEP.with(Resolution::Sample, samples).with(Resolution::FiveMinutes, five_minutes).with(Resolution::Hour, hours)
    }

    #[test]
    fn e41_old_rows_go_without_a_restart() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        for hour in 0..100 * 24 {
            let mut batch = Batch::default();
            batch.tick(hour + 1, T + 3_600 * (hour + 1) as i64, 3_600_000, &[(1, 3_600)]);
            opened.save(&batch).unwrap();
        }
        let store = &opened.store;
        assert_eq!((count(store, "five_minutes"), count(store, "hour"), count(store, "day")), (360, 100, 100));
        let reader = store.reader().unwrap();
        let oldest = reader.now().oldest(&Filter::default(), None, 1).unwrap().0[0].unix;
        // Seven days, and what the open window has so far.
        assert_eq!(oldest, T + 100 * 86_400 - 7 * 86_400 - 21_600 + 3_600);
        assert_eq!(reader.now().oldest_of(Resolution::FiveMinutes).unwrap(), Some(T + 10 * 86_400 - 21_600));
        assert_eq!(reader.now().oldest_of(Resolution::Day).unwrap(), Some(T));
        let days = reader.now().buckets(Resolution::Day, 1, 0, i64::MAX).unwrap();
        assert_eq!(days.len(), 100);
        assert!(days.iter().all(|day| day.cell.sum.rx_bytes() == 86_400 && day.cell.covered == 86_400));
    }

    #[test]
    fn e41_hours_go_after_five_years_and_days_never() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        for day in 0..1_900 {
            let mut batch = Batch::default();
            batch.tick(day + 1, T + 86_400 * day as i64 + 600, 30_000, &[(1, 1)]);
            opened.save(&batch).unwrap();
        }
        assert_eq!((count(&opened.store, "hour"), count(&opened.store, "day")), (1_827, 1_899));
    }

    /// What is set while running holds from the next flush on, and what is kept longer comes back with time only.
    #[test]
    fn e41_a_shorter_time_acts_at_once_and_touches_no_sum() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let hourly = |opened: &mut crate::store::Opened, hours: std::ops::Range<u64>, keep: Keep| {
            for hour in hours {
                let mut batch = Batch::default();
                batch.tick(hour + 1, T + 3_600 * (hour + 1) as i64, 3_600_000, &[(1, 3_600)]);
                opened.store.save_keeping(&batch, keep).unwrap();
            }
        };
        hourly(&mut opened, 0..30 * 24 + 3, KEEP);
        let rows =
            |opened: &crate::store::Opened| ["five_minutes", "hour", "day"].map(|table| count(&opened.store, table));
        assert_eq!(rows(&opened), [120, 30, 30]);
        let shorter = kept(1, 2, 3);
        // Not even a sample has to come: a change of the settings is enough.
        opened.store.save_keeping(&Batch::default(), shorter).unwrap();
        assert_eq!(rows(&opened), [8, 4, 30]);
        let reader = opened.store.reader().unwrap();
        let oldest = || reader.now().oldest(&Filter::default(), None, 1).unwrap().0[0].unix;
        // A day in whole windows, and the open one.
        assert_eq!(oldest(), T + 29 * 86_400 + 3_600);
        let days = reader.now().buckets(Resolution::Day, 1, 0, i64::MAX).unwrap();
        assert_eq!(days.iter().map(|day| day.cell.sum.rx_bytes()).sum::<u64>(), 3_600 * (30 * 24 + 3));
        hourly(&mut opened, 30 * 24 + 3..34 * 24 + 3, kept(1, 4, 3));
        assert_eq!(rows(&opened), [16, 4, 34]);
        // Over a restart too: the first flush sees to it.
        drop((opened, reader));
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        opened.store.save_keeping(&Batch::default(), kept(1, 1, 3)).unwrap();
        assert_eq!(rows(&opened), [4, 4, 34]);
    }

    #[test]
    fn e41_a_false_future_takes_the_place_of_one_row_however_little_is_kept() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let keep = kept(1, 1, 1);
        for hour in 0..24u64 {
            let mut batch = Batch::default();
            batch.tick(hour + 1, T + 3_600 * (hour + 1) as i64, 3_600_000, &[(1, 3_600)]);
            opened.store.save_keeping(&batch, keep).unwrap();
        }
        let before = ["sample", "five_minutes", "hour"].map(|table| count(&opened.store, table));
        // Seven years ahead, and back again: by time, nothing real would be left. The odd window counts for one of the
        // five that a day of samples has, and so the oldest one goes six hours early.
        opened.store.save_keeping(&Batch::steady(100, T + 7 * 365 * 86_400, 1), keep).unwrap();
        opened.store.save_keeping(&Batch::steady(101, T + 24 * 3_600 + 30, 1), keep).unwrap();
        let after = ["sample", "five_minutes", "hour"].map(|table| count(&opened.store, table));
        assert_eq!(after, [before[0] + 2 - 6, before[1] + 1, before[2] + 1], "{before:?}");
    }

    /// Whatever comes, the file keeps to its budget and the days stay right.
    fn within(max_bytes: u64, days: usize, ticks: usize) {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &Options { max_bytes }).unwrap();
        let mut load = Load::new();
        let mut expect = 0;
        for _ in 0..days * 2_880 / ticks {
            let batch = load.batch(ticks);
            expect += batch.samples.iter().map(|sample| u128::from(sample.delta.rx_bytes())).sum::<u128>();
            opened.save(&batch).unwrap();
        }
        opened.store.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let size = std::fs::metadata(place.file()).unwrap().len();
        assert!(size <= max_bytes, "{size} of {max_bytes}");
        let reader = opened.store.reader().unwrap();
        let sum: u128 = (1..=LOAD_IFACES)
            .flat_map(|iface| reader.now().buckets(Resolution::Day, iface, 0, i64::MAX).unwrap())
            .map(|day| u128::from(day.cell.sum.rx_bytes()))
            .sum();
        assert_eq!(sum, expect);
        drop((opened.store, reader));
        let opened = Store::open(&place.file(), &Options { max_bytes }).unwrap();
        assert_eq!(opened.records.iter().map(|record| u128::from(record.lifetime.rx_bytes())).sum::<u128>(), expect);
    }

    #[test]
    fn e42_pages_are_used_again_and_the_file_keeps_to_its_size() {
        // Samples go.
        within(1_500_000, 12, 10);
        // Five-minute cells go as well, and samples of the open window.
        within(500_000, 12, 10);
        within(500_000, 3, 120);
    }

    fn all_levels(store: &Store, expect: u64) {
        let reader = store.reader().unwrap();
        for level in [Resolution::FiveMinutes, Resolution::Hour, Resolution::Day] {
            let buckets = reader.now().buckets(level, 1, 0, i64::MAX).unwrap();
            assert_eq!(buckets.iter().map(|bucket| bucket.cell.sum.rx_bytes()).sum::<u64>(), expect, "{level:?}");
        }
    }

    #[test]
    fn e39_samples_of_the_open_window_go_when_they_alone_fill_the_file() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        opened.store.pages = 1;
        for at in 0..20 {
            opened.save(&Batch::steady(1 + 10 * at, T + 30 + 300 * at as i64, 10)).unwrap();
            all_levels(&opened.store, 3_000 * (at + 1));
        }
        assert_eq!(count(&opened.store, "sample"), 2);
        drop(opened);
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        assert_eq!(opened.records[0].lifetime.rx_bytes(), 60_000);
        assert_eq!((opened.newest, opened.next_seq), (Some(T + 6_000), 201 + crate::store::state::SEQ_MARGIN));
    }

    #[test]
    fn e41_the_open_window_is_never_thrown_away() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        for at in 0..40 {
            opened.save(&Batch::steady(1 + at, T + 21_600 * (at + 2) as i64, 1)).unwrap();
        }
        // Set back to before all that is kept, and forward again.
        opened.save(&Batch::steady(101, T + 30, 10)).unwrap();
        opened.save(&Batch::steady(111, T + 330, 10)).unwrap();
        all_levels(&opened.store, 60 * 300);
        opened.save(&Batch::steady(121, T + 21_600 * 42, 1)).unwrap();
        all_levels(&opened.store, 61 * 300);
    }

    #[test]
    fn e39_a_full_file_is_said_and_loses_nothing() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        opened.save(&Batch::steady(1, T + 30, 3)).unwrap();
        let pages: i64 = opened.store.conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        opened.store.conn.pragma_update(None, "max_page_count", pages).unwrap();
        let batch = Load::new().batch(500);
        let mut late = batch.clone();
        late.ticks.iter_mut().for_each(|tick| tick.seq += 10);
        assert_eq!(opened.save(&late).unwrap_err().kind, ErrorKind::Full);
        assert_eq!(opened.save(&late).unwrap_err().kind, ErrorKind::Full);
        let reader = opened.store.reader().unwrap();
        assert_eq!(reader.view().unwrap().facts().unwrap().samples, 3);
        opened.store.conn.pragma_update(None, "max_page_count", 1_000).unwrap();
        opened.save(&late).unwrap();
        assert_eq!(reader.view().unwrap().facts().unwrap().samples, 3 + 500 * u64::from(LOAD_IFACES));
    }
}
