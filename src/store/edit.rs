//! What is changed in the past: two histories made one, many that are gone made one, or one forgotten. Every level in one
//! transaction, so that all of them tell the same before and after, whenever the power goes.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::Store;
use super::block::{Columns, Packed};
use super::keep::{SPARE_PAGES, make_room};
use super::levels::{FIVE_MINUTES, HOURS};
use super::rows::{Cells, pack_cells, pack_samples, unpack_cells, unpack_samples};
use super::state::State;
use super::window::settle;
use super::write::{join_same, put_events};
use crate::clock::Zone;
use crate::error::Result;
use crate::model::{Edit, Event, IfaceId, Kind};

/// A level: its keys, one row with the length of its cells, and how to put it back.
struct Table {
    keys: &'static str,
    one: &'static str,
    put: &'static str,
    delete: &'static str,
    cells: usize,
}

const TABLES: [Table; 3] = [
    Table {
        keys: "SELECT start FROM five_minutes",
        one: "SELECT data, 300 FROM five_minutes WHERE start = ?1",
        put: "UPDATE five_minutes SET data = ?2 WHERE start = ?1",
        delete: "DELETE FROM five_minutes WHERE start = ?1",
        cells: (FIVE_MINUTES.row_s / FIVE_MINUTES.cell_s) as usize,
    },
    Table {
        keys: "SELECT start FROM hour",
        one: "SELECT data, 3600 FROM hour WHERE start = ?1",
        put: "UPDATE hour SET data = ?2 WHERE start = ?1",
        delete: "DELETE FROM hour WHERE start = ?1",
        cells: (HOURS.row_s / HOURS.cell_s) as usize,
    },
    Table {
        keys: "SELECT start FROM day",
        one: "SELECT data, until - start FROM day WHERE start = ?1",
        put: "UPDATE day SET data = ?2 WHERE start = ?1",
        delete: "DELETE FROM day WHERE start = ?1",
        cells: 1,
    },
];

impl Store {
    /// One transaction, with what is told of it. An edit whose outcome was unclear can be repeated.
    pub fn edit(&mut self, edit: &Edit, event: Option<&Event>, zone: &Zone) -> Result<()> {
        let outcome = self.attempt(|store, again| store.rewrite(edit, event, again, zone));
        outcome.map_err(|error| error.context(format!("cannot change the history in {}", self.site.path.display())))
    }

    fn rewrite(&mut self, edit: &Edit, event: Option<&Event>, again: bool, zone: &Zone) -> Result<State> {
        let mut state = self.state.clone();
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        make_room(&tx, &mut state, zone, self.pages, SPARE_PAGES * self.room)?;
        // What the open window holds goes to the coarser levels first: samples of two interfaces become one below, and
        // of one sample nobody could tell what of it was booked where.
        settle(&tx, &mut state, zone)?;
        for table in &TABLES {
            for key in keys(&tx, table.keys)? {
                rewrite_cells(&tx, table, key, edit)?;
            }
        }
        for key in keys(&tx, "SELECT first FROM sample")? {
            rewrite_samples(&tx, key, edit)?;
        }
        match edit {
            Edit::Forget { name, .. } => {
                tx.execute("DELETE FROM event WHERE interface = ?1", [name])?;
            }
            Edit::Merge { id, name, into, into_name } => {
                tx.execute("UPDATE event SET interface = ?2 WHERE interface = ?1", [name, into_name])?;
                merge_row(&tx, &mut state, *id, *into, into_name, None)?;
            }
            Edit::Fold { ids, into, into_name } => {
                for id in ids {
                    merge_row(&tx, &mut state, *id, *into, into_name, Some(Kind::Others))?;
                }
            }
        }
        put_events(&tx, event.map_or(&[], std::slice::from_ref), again)?;
        for id in edit.gone() {
            tx.execute("DELETE FROM interface WHERE id = ?1", [id])?;
            state.tallies.remove(id);
            state.changed.remove(id);
        }
        // Samples that told their tallies may have gone to make room.
        for iface in std::mem::take(&mut state.changed) {
            tx.execute("UPDATE interface SET tally = ?2 WHERE id = ?1", params![iface, state.tally(iface).pack()])?;
        }
        tx.commit()?;
        Ok(state)
    }
}

/// `kind`: of the one that the history goes to, where that is no link's.
fn merge_row(
    conn: &Connection,
    state: &mut State,
    id: IfaceId,
    into: IfaceId,
    into_name: &str,
    kind: Option<Kind>,
) -> Result<()> {
    // Its own row may wait for the anchor that belongs to it.
    conn.execute(
        "INSERT OR IGNORE INTO interface (id, name, kind, alias, ifindex, boot, first_seen)
         SELECT ?1, ?2, ifnull(?4, kind), '', 0, '', first_seen FROM interface WHERE id = ?3",
        params![into, into_name, id, kind.map(Kind::name)],
    )?;
    conn.execute(
        "UPDATE interface SET first_seen = min(interface.first_seen, gone.first_seen),
         alias = iif(interface.alias = '', gone.alias, interface.alias)
         FROM (SELECT first_seen, alias FROM interface WHERE id = ?2) AS gone WHERE interface.id = ?1",
        [into, id],
    )?;
    let tally = state.merge(id, into);
    conn.execute("UPDATE interface SET tally = ?2 WHERE id = ?1", params![into, tally])?;
    Ok(())
}

fn keys(conn: &Connection, sql: &str) -> Result<Vec<i64>> {
    let mut statement = conn.prepare(sql)?;
    let keys = statement.query_map([], |row| row.get(0))?;
    Ok(keys.collect::<rusqlite::Result<_>>()?)
}

/// What cannot be read stays as it is.
fn holds(bytes: &[u8], edit: &Edit) -> bool {
    let found = |packed: Packed| {
        for group in packed.groups() {
            if edit.takes(group?.0) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    Packed::open(bytes).and_then(found).unwrap_or(false)
}

fn rewrite_cells(conn: &Connection, table: &Table, key: i64, edit: &Edit) -> Result<()> {
    let row: Option<(Vec<u8>, i64)> =
        conn.prepare_cached(table.one)?.query_row([key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((bytes, length_s)) = row.filter(|(bytes, _)| holds(bytes, edit)) else { return Ok(()) };
    let mut cells = Cells::new();
    let mut moved = Vec::new();
    let read = unpack_cells(&bytes, length_s, None, &mut Columns::default(), &mut |iface, at, cell| {
        if edit.takes(iface) {
            moved.push((at, *cell));
        } else {
            cells.insert((iface, at), *cell);
        }
    });
    if let Err(error) = read {
        log::error!("history around {key} stays as it was: {error}");
        return Ok(());
    }
    let whole = u32::try_from(length_s).unwrap_or(u32::MAX);
    for (into, (at, cell)) in moved.into_iter().filter_map(|cell| Some((edit.into()?, cell))) {
        let both = cells.entry((into, at)).or_default();
        both.add(&cell);
        // Two that were there at the same time have been looked at once in each second, not twice.
        both.covered = both.covered.min(whole);
        both.blind = both.blind.min(whole - both.covered);
    }
    if cells.is_empty() {
        conn.prepare_cached(table.delete)?.execute([key])?;
    } else {
        conn.prepare_cached(table.put)?.execute(params![key, pack_cells(&cells, table.cells, length_s)])?;
    }
    Ok(())
}

fn rewrite_samples(conn: &Connection, key: i64, edit: &Edit) -> Result<()> {
    let bytes: Option<Vec<u8>> = conn
        .prepare_cached("SELECT data FROM sample WHERE first = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    let Some(bytes) = bytes.filter(|bytes| holds(bytes, edit)) else { return Ok(()) };
    let mut rows = match unpack_samples(&bytes) {
        Ok(rows) => rows,
        Err(error) => {
            log::error!("samples around {key} stay as they were: {error}");
            return Ok(());
        }
    };
    for row in &mut rows {
        match edit.into() {
            Some(into) => {
                let moved = row.samples.iter_mut().filter(|sample| edit.takes(sample.iface));
                moved.for_each(|sample| sample.iface = into);
            }
            None => row.samples.retain(|sample| !edit.takes(sample.iface)),
        }
        join_same(&mut row.samples);
    }
    let n: usize = rows.iter().map(|row| row.samples.len()).sum();
    conn.prepare_cached("UPDATE sample SET data = ?2, n = ?3 WHERE first = ?1")?.execute(params![
        key,
        pack_samples(&rows),
        n as i64
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Anchor, Batch, COUNTERS, Counters, Mark, Resolution};
    use crate::store::testing::{KEEP, LOAD_IFACES, Load, OPTIONS, Place, T, record};
    use crate::store::{Filter, Flush, Opened, Reader};

    const LEVELS: [Resolution; 4] = [Resolution::Sample, Resolution::FiveMinutes, Resolution::Hour, Resolution::Day];

    fn sums(reader: &Reader, iface: IfaceId) -> [u128; LEVELS.len()] {
        LEVELS.map(|level| {
            let buckets = reader.buckets(level, iface, 0, i64::MAX, &Zone::UTC, &[]).unwrap();
            buckets.iter().map(|bucket| bucket.sum.0.iter().map(|value| u128::from(*value)).sum::<u128>()).sum()
        })
    }

    fn flush(opened: &mut Opened, batch: &Batch, anchors: &[Anchor]) {
        let records: Vec<_> = (1..=LOAD_IFACES).map(record).collect();
        let flush =
            Flush { batch, anchors, records: &records, events: &[], settings: &[], keep: KEEP, zone: &Zone::UTC };
        opened.store.flush(&flush).unwrap();
    }

    /// A day and a half of 24 interfaces, with a gap of one of them that reaches back over several windows.
    fn filled(place: &Place) -> Opened {
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let mut load = Load::new();
        for round in 0..42 {
            let mut batch = load.batch(100);
            if round == 40 {
                let last = batch.samples.iter_mut().rfind(|sample| sample.iface == 3).unwrap();
                (last.mark, last.span_ms, last.delta) = (Mark::Gap, 20 * 3_600_000, Counters([7_777_777; COUNTERS]));
            }
            let anchors = [Anchor { seq: batch.ticks[0].seq, iface: 1, raw: Counters([round + 5; COUNTERS]) }];
            flush(&mut opened, &batch, &anchors);
        }
        opened
    }

    fn merge(id: IfaceId, into: IfaceId) -> Edit {
        Edit::Merge { id, name: format!("eth{id}"), into, into_name: format!("eth{into}") }
    }

    #[test]
    fn a_merge_keeps_every_level_to_the_byte() {
        let place = Place::new();
        let mut opened = filled(&place);
        let reader = opened.store.reader().unwrap();
        let before: Vec<_> = (0..=LOAD_IFACES).map(|iface| sums(&reader, iface)).collect();
        let tally = |opened: &Opened, iface: IfaceId| opened.store.state.tally(iface);
        let (one, other) = (tally(&opened, 1), tally(&opened, 3));
        opened.store.edit(&merge(3, 1), None, &Zone::UTC).unwrap();
        let check = |opened: &Opened, reader: &Reader| {
            for iface in 1..=LOAD_IFACES {
                let expect = match iface {
                    1 => std::array::from_fn(|level| before[1][level] + before[3][level]),
                    3 => [0; LEVELS.len()],
                    _ => before[iface as usize],
                };
                assert_eq!(sums(reader, iface), expect, "{iface}");
            }
            let mut lifetime = one.lifetime;
            lifetime.add(&other.lifetime);
            assert_eq!((tally(opened, 1).lifetime, tally(opened, 1).raw), (lifetime, one.raw));
            assert_eq!(tally(opened, 3).lifetime, Counters::ZERO);
        };
        check(&opened, &reader);
        // One point of an interface at a time: history gives each a number of its own.
        let points = reader.newest(&Filter { iface: Some(1), ..Filter::default() }, 0, usize::MAX, &[]).unwrap();
        assert!(points.is_sorted_by(|newer, older| newer.seq > older.seq));
        // Two that were there at once have been looked at once.
        let cells = reader.buckets(Resolution::FiveMinutes, 1, 0, i64::MAX, &Zone::UTC, &[]).unwrap();
        assert!(cells.iter().all(|cell| cell.covered + cell.blind <= 300));
        // Doing it twice does no more, and a restart finds the same.
        opened.store.edit(&merge(3, 1), None, &Zone::UTC).unwrap();
        check(&opened, &reader);
        drop((opened, reader));
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        check(&opened, &reader);
        assert!(opened.records.iter().all(|record| record.id != 3));
        assert_eq!(opened.records[0].lifetime, tally(&opened, 1).lifetime);
    }

    #[test]
    fn many_are_folded_into_one_in_one_transaction() {
        let place = Place::new();
        let mut opened = filled(&place);
        let reader = opened.store.reader().unwrap();
        let before: Vec<_> = (0..=LOAD_IFACES).map(|iface| sums(&reader, iface)).collect();
        let ids: Vec<IfaceId> = (3..=LOAD_IFACES).collect();
        let mut lifetime = Counters::ZERO;
        ids.iter().for_each(|id| lifetime.add(&opened.store.state.tally(*id).lifetime));
        let fold = Edit::Fold { ids: ids.clone(), into: 99, into_name: "others".to_string() };
        // Doing it twice does no more.
        for _ in 0..2 {
            opened.store.edit(&fold, None, &Zone::UTC).unwrap();
            let whole = |level: usize| ids.iter().map(|id| before[*id as usize][level]).sum::<u128>();
            assert_eq!(sums(&reader, 99), std::array::from_fn(whole));
            assert_eq!([1, 2].map(|iface| sums(&reader, iface)), [before[1], before[2]]);
            assert!(ids.iter().all(|id| sums(&reader, *id) == [0; LEVELS.len()]));
        }
        drop((opened, reader));
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let found: Vec<_> = opened.records.iter().map(|record| (record.id, record.kind)).collect();
        assert_eq!((found.len(), found[2]), (3, (99, Kind::Others)));
        assert_eq!((opened.records[2].lifetime, opened.records[2].ifindex), (lifetime, 0));
    }

    #[test]
    fn after_a_merge_counting_goes_on_as_before() {
        let place = Place::new();
        let mut opened = filled(&place);
        opened.store.edit(&merge(1, 9), None, &Zone::UTC).unwrap();
        let (before, seq) = (opened.store.state.tally(9), opened.store.state.seq);
        let mut batch = Batch::default();
        batch.tick(seq + 1, T + 42 * 3_000 + 30, 30_000, &[(9, 1_000)]);
        opened.store.save(&batch).unwrap();
        let reader = opened.store.reader().unwrap();
        let all = sums(&reader, 9);
        assert!(all.iter().all(|sum| *sum == all[0]), "{all:?}");
        drop((opened, reader));
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let after = opened.store.state.tally(9);
        assert_eq!(after.raw.rx_bytes(), before.raw.rx_bytes() + 1_000);
        assert_eq!(after.lifetime.rx_bytes(), before.lifetime.rx_bytes() + 1_000);
    }

    #[test]
    fn what_is_forgotten_is_gone_from_every_level() {
        let place = Place::new();
        let mut opened = filled(&place);
        let reader = opened.store.reader().unwrap();
        let before: Vec<_> = (0..=LOAD_IFACES).map(|iface| sums(&reader, iface)).collect();
        let samples = reader.facts().unwrap().samples;
        opened.store.edit(&Edit::Forget { id: 2, name: "eth2".to_string() }, None, &Zone::UTC).unwrap();
        assert_eq!(reader.facts().unwrap().samples, samples - 4_200);
        drop((opened, reader));
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        for iface in 1..=LOAD_IFACES {
            let expect = if iface == 2 { [0; LEVELS.len()] } else { before[iface as usize] };
            assert_eq!(sums(&reader, iface), expect, "{iface}");
        }
        assert!(opened.records.iter().all(|record| record.id != 2));
        assert_eq!(opened.records.len() as u32, LOAD_IFACES - 1);
    }

    #[test]
    fn one_that_nobody_counted_so_far_takes_a_history_over() {
        let place = Place::new();
        let mut opened = filled(&place);
        let lifetime = opened.store.state.tally(5).lifetime;
        opened.store.edit(&merge(5, 77), None, &Zone::UTC).unwrap();
        drop(opened);
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let found = opened.records.iter().find(|record| record.id == 77).unwrap();
        assert_eq!((found.name.as_str(), found.lifetime, found.first_seen), ("eth77", lifetime, T));
    }
}
