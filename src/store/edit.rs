//! Edits the stored history: merges two interfaces, merges many into "others", or forgets one. One transaction changes
//! every resolution, so that all of them have the same sums before and after it, even after a power cut.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::Store;
use super::codec::block::{Columns, Packed};
use super::codec::{Cells, pack_samples, unpack_cells, unpack_samples};
use super::open_block::roll_up_open_block;
use super::retention::{SPARE_PAGES, free_up_pages};
use super::rollups::{put_block, remove_block, stored_block};
use super::watermarks::Watermarks;
use super::write::{merge_same_interface, put_events};
use crate::clock::Zone;
use crate::error::Result;
use crate::model::{Event, HistoryEdit, IfaceId, InterfaceKind};
use crate::resolution::{ResolutionSpec, rollups};

impl Store {
    /// Applies an edit and saves its event in one transaction. The caller can repeat an edit whose result is unknown.
    pub fn edit(&mut self, edit: &HistoryEdit, event: Option<&Event>, zone: &Zone) -> Result<()> {
        let outcome = self.run_transaction(|store, retry| store.rewrite(edit, event, retry, zone));
        outcome.map_err(|error| error.context(format!("cannot change the history in {}", self.database.path.display())))
    }

    fn rewrite(&mut self, edit: &HistoryEdit, event: Option<&Event>, retry: bool, zone: &Zone) -> Result<Watermarks> {
        let mut watermarks = self.watermarks.clone();
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        free_up_pages(&tx, &mut watermarks, zone, self.max_pages, SPARE_PAGES * self.spare_factor)?;
        // Roll up the open block first: once the samples of two interfaces are added up below, it is unknown which part
        // of a sum is already in the roll-ups.
        roll_up_open_block(&tx, &mut watermarks, zone)?;
        for spec in rollups() {
            for key in keys(&tx, &format!("SELECT start FROM {}", spec.table))? {
                rewrite_cells(&tx, spec, key, edit)?;
            }
        }
        for key in keys(&tx, "SELECT first FROM sample")? {
            rewrite_samples(&tx, key, edit)?;
        }
        match edit {
            HistoryEdit::Forget { name, .. } => {
                tx.execute("DELETE FROM event WHERE interface = ?1", [name])?;
            }
            HistoryEdit::Merge { id, name, into, into_name } => {
                tx.execute("UPDATE event SET interface = ?2 WHERE interface = ?1", [name, into_name])?;
                merge_row(&tx, &mut watermarks, *id, *into, into_name, None)?;
            }
            HistoryEdit::MergeIntoOthers { ids, into, into_name } => {
                for id in ids {
                    merge_row(&tx, &mut watermarks, *id, *into, into_name, Some(InterfaceKind::Others))?;
                }
            }
        }
        put_events(&tx, event.map_or(&[], std::slice::from_ref), retry)?;
        for id in edit.removed() {
            tx.execute("DELETE FROM interface WHERE id = ?1", [id])?;
            watermarks.tallies.remove(id);
            watermarks.stale_tallies.remove(id);
        }
        // `free_up_pages` may have deleted samples that the stored tallies do not include.
        for iface in std::mem::take(&mut watermarks.stale_tallies) {
            tx.execute(
                "UPDATE interface SET tally = ?2 WHERE id = ?1",
                params![iface, watermarks.tally(iface).pack()],
            )?;
        }
        tx.commit()?;
        Ok(watermarks)
    }
}

/// Merges alias, first_seen and tally of an interface into the row of the target. `kind`: the kind of a new target row;
/// `None` copies the kind of the merged interface.
fn merge_row(
    conn: &Connection,
    watermarks: &mut Watermarks,
    id: IfaceId,
    into: IfaceId,
    into_name: &str,
    kind: Option<InterfaceKind>,
) -> Result<()> {
    // The target may have no row yet: the writer may still hold back the record of a new interface.
    conn.execute(
        "INSERT OR IGNORE INTO interface (id, name, kind, alias, ifindex, boot, first_seen)
         SELECT ?1, ?2, ifnull(?4, kind), '', 0, '', first_seen FROM interface WHERE id = ?3",
        params![into, into_name, id, kind.map(InterfaceKind::name)],
    )?;
    conn.execute(
        "UPDATE interface SET first_seen = min(interface.first_seen, gone.first_seen),
         alias = iif(interface.alias = '', gone.alias, interface.alias)
         FROM (SELECT first_seen, alias FROM interface WHERE id = ?2) AS gone WHERE interface.id = ?1",
        [into, id],
    )?;
    let tally = watermarks.merge(id, into);
    conn.execute("UPDATE interface SET tally = ?2 WHERE id = ?1", params![into, tally])?;
    Ok(())
}

fn keys(conn: &Connection, sql: &str) -> Result<Vec<i64>> {
    let mut statement = conn.prepare(sql)?;
    let keys = statement.query_map([], |row| row.get(0))?;
    Ok(keys.collect::<rusqlite::Result<_>>()?)
}

/// Whether a block has data of an interface that the edit removes. `false` for a block that cannot be read: it stays
/// unchanged.
fn contains_removed(bytes: &[u8], edit: &HistoryEdit) -> bool {
    let found = |packed: Packed| {
        for group in packed.groups() {
            if edit.removes(group?.0) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    Packed::open(bytes).and_then(found).unwrap_or(false)
}

fn rewrite_cells(conn: &Connection, spec: &ResolutionSpec, key: i64, edit: &HistoryEdit) -> Result<()> {
    let Some((block, bytes)) = stored_block(conn, spec, key)?.filter(|(_, bytes)| contains_removed(bytes, edit)) else {
        return Ok(());
    };
    let length_s = spec.cell_s(block);
    let mut cells = Cells::new();
    let mut moved = Vec::new();
    let read = unpack_cells(&bytes, length_s, None, &mut Columns::default(), &mut |iface, at, cell| {
        if edit.removes(iface) {
            moved.push((at, *cell));
        } else {
            cells.insert((iface, at), *cell);
        }
    });
    if let Err(error) = read {
        log::error!("history around {key} (UTC seconds) is not changed: {error}");
        return Ok(());
    }
    for (into, (at, cell)) in moved.into_iter().filter_map(|cell| Some((edit.into()?, cell))) {
        let merged = cells.entry((into, at)).or_default();
        merged.add(&cell);
        // Both interfaces may have observed the same seconds: count these once.
        *merged = merged.clamped_to(length_s);
    }
    if cells.is_empty() { remove_block(conn, spec, key) } else { put_block(conn, spec, block, &cells) }
}

fn rewrite_samples(conn: &Connection, key: i64, edit: &HistoryEdit) -> Result<()> {
    let bytes: Option<Vec<u8>> = conn
        .prepare_cached("SELECT data FROM sample WHERE first = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    let Some(bytes) = bytes.filter(|bytes| contains_removed(bytes, edit)) else { return Ok(()) };
    let mut rows = match unpack_samples(&bytes) {
        Ok(rows) => rows,
        Err(error) => {
            log::error!("samples around {key} (UTC seconds) are not changed: {error}");
            return Ok(());
        }
    };
    for row in &mut rows {
        match edit.into() {
            Some(into) => {
                let moved = row.samples.iter_mut().filter(|sample| edit.removes(sample.iface));
                moved.for_each(|sample| sample.iface = into);
            }
            None => row.samples.retain(|sample| !edit.removes(sample.iface)),
        }
        merge_same_interface(&mut row.samples);
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
    use crate::history::SampleFilter;
    use crate::model::{Anchor, Batch, COUNTERS, Counters, SampleQuality};
    use crate::resolution::Resolution;
    use crate::store::testing::{LOAD_IFACES, Load, OPTIONS, RETENTION, T, TempDir, record};
    use crate::store::{Opened, Reader, SaveRequest};

    const ALL_RESOLUTIONS: [Resolution; 4] =
        [Resolution::Sample, Resolution::FiveMinutes, Resolution::Hour, Resolution::Day];

    fn sums(reader: &Reader, iface: IfaceId) -> [u128; ALL_RESOLUTIONS.len()] {
        ALL_RESOLUTIONS.map(|resolution| {
            let buckets = reader.stored_snapshot().buckets(resolution, iface, 0, i64::MAX).unwrap();
            buckets.iter().map(|bucket| bucket.cell.sum.0.iter().map(|value| u128::from(*value)).sum::<u128>()).sum()
        })
    }

    fn save(opened: &mut Opened, batch: &Batch, anchors: &[Anchor]) {
        let records: Vec<_> = (1..=LOAD_IFACES).map(record).collect();
        let request = SaveRequest {
            batch,
            anchors,
            records: &records,
            events: &[],
            settings: &[],
            retention: RETENTION,
            zone: &Zone::UTC,
        };
        opened.store.save(&request).unwrap();
    }

    /// A day and a half of 24 interfaces. Interface 3 has a gap that reaches back over several six-hour blocks.
    fn filled(dir: &TempDir) -> Opened {
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let mut load = Load::new();
        for round in 0..42 {
            let mut batch = load.batch(100);
            if round == 40 {
                let last = batch.samples.iter_mut().rfind(|sample| sample.iface == 3).unwrap();
                (last.quality, last.span_ms, last.delta) =
                    (SampleQuality::Gap, 20 * 3_600_000, Counters([7_777_777; COUNTERS]));
            }
            let anchors = [Anchor { seq: batch.ticks[0].seq, iface: 1, raw: Counters([round + 5; COUNTERS]) }];
            save(&mut opened, &batch, &anchors);
        }
        opened
    }

    fn merge(id: IfaceId, into: IfaceId) -> HistoryEdit {
        HistoryEdit::Merge { id, name: format!("eth{id}"), into, into_name: format!("eth{into}") }
    }

    #[test]
    fn a_merge_keeps_the_sums_of_every_resolution() {
        let dir = TempDir::new();
        let mut opened = filled(&dir);
        let reader = opened.store.reader().unwrap();
        let before: Vec<_> = (0..=LOAD_IFACES).map(|iface| sums(&reader, iface)).collect();
        let tally = |opened: &Opened, iface: IfaceId| opened.store.watermarks.tally(iface);
        let (one, other) = (tally(&opened, 1), tally(&opened, 3));
        opened.store.edit(&merge(3, 1), None, &Zone::UTC).unwrap();
        let check = |opened: &Opened, reader: &Reader| {
            for iface in 1..=LOAD_IFACES {
                let expect = match iface {
                    1 => std::array::from_fn(|resolution| before[1][resolution] + before[3][resolution]),
                    3 => [0; ALL_RESOLUTIONS.len()],
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
        // At most one sample per interface and tick: the public id of a sample consists of both.
        let points = reader
            .stored_snapshot()
            .newest(&SampleFilter { iface: Some(1), ..SampleFilter::default() }, 0, usize::MAX)
            .unwrap();
        assert!(points.is_sorted_by(|newer, older| newer.seq > older.seq));
        // Seconds that both interfaces observed count once.
        let cells = reader.stored_snapshot().buckets(Resolution::FiveMinutes, 1, 0, i64::MAX).unwrap();
        assert!(cells.iter().all(|cell| cell.cell.plain_s + cell.cell.gap_s <= 300));
        // A second merge changes nothing, and neither does a restart.
        opened.store.edit(&merge(3, 1), None, &Zone::UTC).unwrap();
        check(&opened, &reader);
        drop((opened, reader));
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        check(&opened, &reader);
        assert!(opened.records.iter().all(|record| record.id != 3));
        assert_eq!(opened.records[0].lifetime, tally(&opened, 1).lifetime);
    }

    #[test]
    fn many_interfaces_are_merged_into_others_in_one_transaction() {
        let dir = TempDir::new();
        let mut opened = filled(&dir);
        let reader = opened.store.reader().unwrap();
        let before: Vec<_> = (0..=LOAD_IFACES).map(|iface| sums(&reader, iface)).collect();
        let ids: Vec<IfaceId> = (3..=LOAD_IFACES).collect();
        let mut lifetime = Counters::ZERO;
        ids.iter().for_each(|id| lifetime.add(&opened.store.watermarks.tally(*id).lifetime));
        let edit = HistoryEdit::MergeIntoOthers { ids: ids.clone(), into: 99, into_name: "others".to_string() };
        // A second edit changes nothing.
        for _ in 0..2 {
            opened.store.edit(&edit, None, &Zone::UTC).unwrap();
            let whole = |resolution: usize| ids.iter().map(|id| before[*id as usize][resolution]).sum::<u128>();
            assert_eq!(sums(&reader, 99), std::array::from_fn(whole));
            assert_eq!([1, 2].map(|iface| sums(&reader, iface)), [before[1], before[2]]);
            assert!(ids.iter().all(|id| sums(&reader, *id) == [0; ALL_RESOLUTIONS.len()]));
        }
        drop((opened, reader));
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let found: Vec<_> = opened.records.iter().map(|record| (record.id, record.kind)).collect();
        assert_eq!((found.len(), found[2]), (3, (99, InterfaceKind::Others)));
        assert_eq!((opened.records[2].lifetime, opened.records[2].ifindex), (lifetime, 0));
    }

    #[test]
    fn counting_continues_after_a_merge() {
        let dir = TempDir::new();
        let mut opened = filled(&dir);
        opened.store.edit(&merge(1, 9), None, &Zone::UTC).unwrap();
        let (before, seq) = (opened.store.watermarks.tally(9), opened.store.watermarks.seq);
        let mut batch = Batch::default();
        batch.push_tick(seq + 1, T + 42 * 3_000 + 30, 30_000, &[(9, 1_000)]);
        opened.store.save_batch(&batch).unwrap();
        let reader = opened.store.reader().unwrap();
        let all = sums(&reader, 9);
        assert!(all.iter().all(|sum| *sum == all[0]), "{all:?}");
        drop((opened, reader));
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let after = opened.store.watermarks.tally(9);
        assert_eq!(after.raw.rx_bytes(), before.raw.rx_bytes() + 1_000);
        assert_eq!(after.lifetime.rx_bytes(), before.lifetime.rx_bytes() + 1_000);
    }

    #[test]
    fn a_forgotten_interface_is_gone_from_every_resolution() {
        let dir = TempDir::new();
        let mut opened = filled(&dir);
        let reader = opened.store.reader().unwrap();
        let before: Vec<_> = (0..=LOAD_IFACES).map(|iface| sums(&reader, iface)).collect();
        let samples = reader.view().unwrap().stats().unwrap().samples;
        opened.store.edit(&HistoryEdit::Forget { id: 2, name: "eth2".to_string() }, None, &Zone::UTC).unwrap();
        assert_eq!(reader.view().unwrap().stats().unwrap().samples, samples - 4_200);
        drop((opened, reader));
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        for iface in 1..=LOAD_IFACES {
            let expect = if iface == 2 { [0; ALL_RESOLUTIONS.len()] } else { before[iface as usize] };
            assert_eq!(sums(&reader, iface), expect, "{iface}");
        }
        assert!(opened.records.iter().all(|record| record.id != 2));
        assert_eq!(opened.records.len() as u32, LOAD_IFACES - 1);
    }

    #[test]
    fn a_merge_creates_the_row_of_a_target_without_one() {
        let dir = TempDir::new();
        let mut opened = filled(&dir);
        let lifetime = opened.store.watermarks.tally(5).lifetime;
        opened.store.edit(&merge(5, 77), None, &Zone::UTC).unwrap();
        drop(opened);
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let found = opened.records.iter().find(|record| record.id == 77).unwrap();
        assert_eq!((found.name.as_str(), found.lifetime, found.first_seen), ("eth77", lifetime, T));
    }
}
