//! What is changed in the past: two histories made one, many that are gone made one, or one forgotten. Every level in one
//! transaction, so that all of them tell the same before and after, whenever the power goes.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::Store;
use super::block::{Columns, Packed};
use super::keep::{SPARE_PAGES, make_room};
use super::levels::{block_at, put_block, remove_block};
use super::rows::{Cells, pack_samples, unpack_cells, unpack_samples};
use super::state::State;
use super::window::settle;
use super::write::{join_same, put_events};
use crate::clock::Zone;
use crate::error::Result;
use crate::level::{Level, coarser};
use crate::model::{Edit, Event, IfaceId, Kind};

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
        for level in coarser() {
            for key in keys(&tx, &format!("SELECT start FROM {}", level.table))? {
                rewrite_cells(&tx, level, key, edit)?;
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

fn rewrite_cells(conn: &Connection, level: &Level, key: i64, edit: &Edit) -> Result<()> {
    let Some((block, bytes)) = block_at(conn, level, key)?.filter(|(_, bytes)| holds(bytes, edit)) else {
        return Ok(());
    };
    let length_s = level.cell_s(block);
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
    for (into, (at, cell)) in moved.into_iter().filter_map(|cell| Some((edit.into()?, cell))) {
        let both = cells.entry((into, at)).or_default();
        both.add(&cell);
        // Two that were there at the same time have been looked at once in each second, not twice.
        *both = both.within(length_s);
    }
    if cells.is_empty() { remove_block(conn, level, key) } else { put_block(conn, level, block, &cells) }
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
    use crate::history::Filter;
    use crate::level::Resolution;
    use crate::model::{Anchor, Batch, COUNTERS, Counters, Mark};
    use crate::store::testing::{KEEP, LOAD_IFACES, Load, OPTIONS, Place, T, record};
    use crate::store::{Flush, Opened, Reader};

    const LEVELS: [Resolution; 4] = [Resolution::Sample, Resolution::FiveMinutes, Resolution::Hour, Resolution::Day];

    fn sums(reader: &Reader, iface: IfaceId) -> [u128; LEVELS.len()] {
        LEVELS.map(|level| {
            let buckets = reader.now().buckets(level, iface, 0, i64::MAX).unwrap();
            buckets.iter().map(|bucket| bucket.cell.sum.0.iter().map(|value| u128::from(*value)).sum::<u128>()).sum()
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
        let points = reader.now().newest(&Filter { iface: Some(1), ..Filter::default() }, 0, usize::MAX).unwrap();
        assert!(points.is_sorted_by(|newer, older| newer.seq > older.seq));
        // Two that were there at once have been looked at once.
        let cells = reader.now().buckets(Resolution::FiveMinutes, 1, 0, i64::MAX).unwrap();
        assert!(cells.iter().all(|cell| cell.cell.covered + cell.cell.blind <= 300));
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
        let samples = reader.view().unwrap().facts().unwrap().samples;
        opened.store.edit(&Edit::Forget { id: 2, name: "eth2".to_string() }, None, &Zone::UTC).unwrap();
        assert_eq!(reader.view().unwrap().facts().unwrap().samples, samples - 4_200);
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
