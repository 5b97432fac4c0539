//! The transaction that saves a batch.

use std::mem;

use rusqlite::{Connection, TransactionBehavior, params};

use super::codec::{LAST_UNIX, TickRow, TickTime};
use super::migrate;
use super::open_block::{move_open_block, put_meta};
use super::retention::{SPARE_PAGES, free_up_pages, prune};
use super::rollups::recut_newest_day;
use super::samples::put_ticks;
use super::split::six_hour_block_of;
use super::watermarks::Watermarks;
use super::{SaveRequest, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Batch, Event, Record, Sample, SampleQuality};
use crate::system::errno;

const MAX_EVENTS: i64 = 1_000;

impl Store {
    pub(super) fn write(&mut self, request: &SaveRequest) -> Result<()> {
        self.run_transaction(|store, retry| store.transact(request, retry))?;
        self.pruned_with = Some(request.retention);
        Ok(())
    }

    /// Runs one transaction. `work` returns the watermarks after it. Its second argument is `true` when the
    /// previous transaction returned an error: that one may have been committed all the same.
    pub(super) fn run_transaction(&mut self, work: impl FnOnce(&mut Store, bool) -> Result<Watermarks>) -> Result<()> {
        let retry = self.commit_uncertain;
        errno::clear();
        if self.commit_uncertain {
            // Only the file shows whether the failed transaction was committed.
            self.watermarks = Watermarks::load(&self.conn)?;
            self.commit_uncertain = false;
        }
        let outcome = work(self, retry);
        self.database.record_fingerprint();
        match outcome {
            Ok(watermarks) => {
                self.watermarks = watermarks;
                self.spare_factor = 1;
                Ok(())
            }
            Err(error) => {
                self.commit_uncertain = true;
                if error.kind == ErrorKind::Full {
                    self.spare_factor = (self.spare_factor * 2).min(64);
                }
                Err(error)
            }
        }
    }

    fn transact(&mut self, request: &SaveRequest, retry: bool) -> Result<Watermarks> {
        let mut watermarks = self.watermarks.clone();
        let rows = new_rows(request.batch, watermarks.seq)?;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Estimate: one page for 200 packed samples.
        let needed_pages = SPARE_PAGES * self.spare_factor + request.batch.samples.len() as i64 / 200;
        let rolled_up = free_up_pages(&tx, &mut watermarks, request.zone, self.max_pages, needed_pages)?;
        put_settings(&tx, request.settings)?;
        put_events(&tx, request.events, retry)?;
        if !request.events.is_empty() {
            migrate::clear_notices(&tx)?;
        }
        put_records(&tx, request.records, &mut watermarks)?;
        add_unknown_interfaces(&tx, &rows, &mut watermarks)?;
        if watermarks.zone.as_deref() != Some(request.zone.name()) {
            recut_newest_day(&tx, watermarks.newest, request.zone)?;
            watermarks.zone = Some(request.zone.name().to_string());
            put_meta(&tx, "zone", request.zone.name())?;
        }
        for ticks in rows.chunk_by(|one, next| {
            one.time.unix <= next.time.unix && six_hour_block_of(one.time.unix) == six_hour_block_of(next.time.unix)
        }) {
            put_ticks(&tx, ticks)?;
        }
        let mut tallies_to_write = watermarks.apply(&rows, request.anchors);
        let moved = move_open_block(&tx, &rows, &mut watermarks, request.zone)?;
        if moved || self.pruned_with != Some(request.retention) {
            prune(&tx, &watermarks, &request.retention)?;
        }
        if moved || rolled_up {
            tallies_to_write.extend(mem::take(&mut watermarks.stale_tallies));
        }
        for iface in tallies_to_write {
            tx.prepare_cached("UPDATE interface SET tally = ?2 WHERE id = ?1")?
                .execute(params![iface, watermarks.tally(iface).pack()])?;
            watermarks.stale_tallies.remove(&iface);
        }
        tx.commit()?;
        Ok(watermarks)
    }
}

/// The ticks of a batch that are not stored yet, each with at most one sample per interface, ordered by interface.
/// Fails on a tick without a wall time.
fn new_rows(batch: &Batch, seq: u64) -> Result<Vec<TickRow>> {
    let mut rows = Vec::with_capacity(batch.ticks.len());
    for (tick, samples) in batch.iter().filter(|(tick, _)| tick.seq > seq) {
        let Some(unix) = tick.unix else {
            return Err(Error::new(
                ErrorKind::System,
                format!("tick {} has no time yet: it cannot be saved", tick.seq),
            ));
        };
        let tick_time = TickTime { seq: tick.seq, unix: unix.clamp(1, LAST_UNIX), mono_ms: tick.mono_ms };
        let mut samples = samples.to_vec();
        merge_same_interface(&mut samples);
        rows.push(TickRow { time: tick_time, samples });
    }
    Ok(rows)
}

/// Merges the samples of each interface into one, and sorts by interface.
pub(super) fn merge_same_interface(samples: &mut Vec<Sample>) {
    samples.sort_by_key(|sample| sample.iface);
    samples.dedup_by(|other, first| {
        let same = other.iface == first.iface;
        if same {
            first.delta.add(&other.delta);
            first.quality = if first.quality == other.quality { first.quality } else { SampleQuality::Gap };
            first.span_ms = first.span_ms.max(other.span_ms);
        }
        same
    });
}

fn put_settings(conn: &Connection, settings: &[(String, Option<String>)]) -> Result<()> {
    for (key, value) in settings {
        match value {
            Some(value) => {
                conn.execute("INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)", params![key, value])?
            }
            None => conn.execute("DELETE FROM setting WHERE key = ?1", [key])?,
        };
    }
    Ok(())
}

/// `retry`: an earlier attempt failed, and may have been committed all the same. Then skips an event that is already
/// stored; events have no number, so it compares the stored fields.
pub(super) fn put_events(conn: &Connection, events: &[Event], retry: bool) -> Result<()> {
    for event in events {
        conn.prepare_cached(
            "INSERT INTO event (unix, kind, interface, detail) SELECT ?1, ?2, ?3, ?4 WHERE NOT (?5 AND EXISTS
             (SELECT 1 FROM event WHERE unix = ?1 AND kind = ?2 AND interface = ?3 AND detail = ?4))",
        )?
        .execute(params![event.unix, event.kind.name(), event.interface, event.detail, retry])?;
    }
    if !events.is_empty() {
        conn.execute("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?1", [MAX_EVENTS])?;
    }
    Ok(())
}

fn put_records(conn: &Connection, records: &[Record], watermarks: &mut Watermarks) -> Result<()> {
    for record in records {
        conn.prepare_cached(
            "INSERT INTO interface (id, name, kind, alias, ifindex, boot, first_seen, machine, namespace, mac, node)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, alias = excluded.alias,
             ifindex = excluded.ifindex, boot = excluded.boot, first_seen = excluded.first_seen,
             machine = excluded.machine, namespace = excluded.namespace, mac = excluded.mac, node = excluded.node",
        )?
        .execute(params![
            record.id,
            record.name,
            record.kind.name(),
            record.alias,
            record.ifindex,
            record.stack.boot,
            record.first_seen,
            record.stack.machine,
            record.stack.namespace as i64,
            record.mac,
            record.inode as i64
        ])?;
        watermarks.tallies.entry(record.id).or_default();
    }
    Ok(())
}

/// Adds a row for each interface that has samples and no record, so that its tally can be stored.
fn add_unknown_interfaces(conn: &Connection, rows: &[TickRow], watermarks: &mut Watermarks) -> Result<()> {
    for row in rows {
        for sample in row.samples.iter() {
            if watermarks.tallies.contains_key(&sample.iface) {
                continue;
            }
            let name = format!("unknown-{}", sample.iface);
            log::warn!("samples of an unknown interface are kept as {name}");
            conn.execute(
                "INSERT OR IGNORE INTO interface (id, name, kind, alias, ifindex, boot, first_seen)
                 VALUES (?1, ?2, 'other', '', 0, '', ?3)",
                params![sample.iface, name, row.time.unix],
            )?;
            watermarks.tallies.entry(sample.iface).or_default();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::clock::Zone;
    use crate::history::{DatedSample, EventFilter, SampleFilter};
    use crate::model::{Anchor, COUNTERS, Counters, IfaceId, Sample};
    use crate::model::{Bucket, Cell, Tick};
    use crate::resolution::Resolution;
    use crate::store::open_block::roll_up_open_block;
    use crate::store::retention::BLOCKS_PER_DAY;
    use crate::store::split;
    use crate::store::testing::{LOAD_IFACES, Load, OPTIONS, RETENTION, Random, T, TempDir, record};
    use crate::store::watermarks::{SEQ_MARGIN, Tally};
    use crate::store::{Opened, Reader};

    const ALL: (i64, i64) = (0, i64::MAX);
    const ZONES: [&str; 4] =
        ["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "<+0530>-5:30", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"];

    fn sums(buckets: &[Bucket]) -> [u128; COUNTERS] {
        let mut sums = [0; COUNTERS];
        for bucket in buckets {
            sums.iter_mut().zip(bucket.cell.sum.0).for_each(|(sum, value)| *sum += u128::from(value));
        }
        sums
    }

    /// A simple model of everything that was saved.
    #[derive(Default)]
    struct Model {
        points: Vec<DatedSample>,
        cells: BTreeMap<(IfaceId, i64), Cell>,
        tallies: BTreeMap<IfaceId, Tally>,
        zone_changed: bool,
    }

    impl Model {
        /// Splits a sample second by second.
        fn push(&mut self, point: DatedSample) {
            self.points.push(point);
            let length = split::seconds(point.sample.span_ms).max(1);
            let observed = point.sample.span_ms >= 500;
            let plain = point.sample.quality == SampleQuality::Plain;
            let mut assigned = [0; COUNTERS];
            for elapsed in 1..=length {
                let second = point.unix - length + elapsed - 1;
                let cell = self.cells.entry((point.sample.iface, second - second % 300)).or_default();
                *if plain { &mut cell.plain_s } else { &mut cell.gap_s } += u32::from(observed);
                if elapsed < length && (second + 1) % 300 != 0 {
                    continue;
                }
                for (at, assigned) in assigned.iter_mut().enumerate() {
                    let due = (u128::from(point.sample.delta.0[at]) * elapsed as u128 / length as u128) as u64;
                    cell.sum.0[at] += due - *assigned;
                    *assigned = due;
                }
                if plain && observed {
                    let rate = |at: usize| {
                        (u128::from(point.sample.delta.0[at]) * 1000 / u128::from(point.sample.span_ms)) as u64
                    };
                    cell.rx_peak = cell.rx_peak.max(rate(0));
                    cell.tx_peak = cell.tx_peak.max(rate(1));
                }
            }
        }

        /// Five-minute cells of one interface.
        fn cells(&self, iface: IfaceId) -> BTreeMap<i64, Cell> {
            self.cells.range((iface, 0)..(iface + 1, 0)).map(|((_, at), cell)| (*at, *cell)).collect()
        }

        fn check(&self, reader: &Reader, zone: &Zone, ifaces: u32, unsaved: &[Arc<Batch>]) {
            let mut points = self.points.clone();
            points.sort_by_key(|point| (point.unix, point.seq, point.sample.iface));
            let all = SampleFilter::default();
            let mut walked = Vec::new();
            let mut cursor = None;
            loop {
                let (mut page, next) = reader.snapshot(&Zone::UTC, unsaved).oldest(&all, cursor, 700).unwrap();
                walked.append(&mut page);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(walked, points);
            self.check_ranges(reader, zone, &points, unsaved);
            points.reverse();
            assert_eq!(reader.snapshot(&Zone::UTC, unsaved).newest(&all, 0, usize::MAX).unwrap(), points);
            for iface in 0..ifaces {
                let filter = SampleFilter { iface: Some(iface), ..all };
                points.retain(|point| point.sample.iface >= iface);
                let of_iface = points.iter().filter(|point| point.sample.iface == iface).copied();
                let of_iface: Vec<DatedSample> = of_iface.skip(77).take(99).collect();
                assert_eq!(reader.snapshot(&Zone::UTC, unsaved).newest(&filter, 77, 99).unwrap(), of_iface);

                let mut cells = self.cells(iface);
                for (resolution, length) in [(Resolution::FiveMinutes, 300), (Resolution::Hour, 3600)] {
                    let mut coarser: BTreeMap<i64, Cell> = BTreeMap::new();
                    cells.iter().for_each(|(at, cell)| coarser.entry(at - at % length).or_default().add(cell));
                    cells = coarser;
                    let expect: Vec<Bucket> =
                        cells.iter().map(|(at, cell)| Bucket::new(*at, at + length, cell)).collect();
                    let got = reader.snapshot(zone, unsaved).buckets(resolution, iface, ALL.0, ALL.1).unwrap();
                    assert_eq!(got, expect, "{resolution:?} of {iface}");
                }
                let days = reader.snapshot(zone, unsaved).buckets(Resolution::Day, iface, ALL.0, ALL.1).unwrap();
                assert!(days.is_sorted_by(|one, next| one.from < one.to && one.to <= next.from), "{days:?}");
                if self.zone_changed {
                    let hours = reader.snapshot(zone, unsaved).buckets(Resolution::Hour, iface, ALL.0, ALL.1).unwrap();
                    assert_eq!(sums(&days), sums(&hours));
                } else {
                    let mut expect: BTreeMap<(i64, i64), Cell> = BTreeMap::new();
                    for (at, cell) in self.cells(iface) {
                        expect.entry(zone.day(at)).or_default().add(&cell);
                    }
                    let expect: Vec<Bucket> =
                        expect.iter().map(|(day, cell)| Bucket::new(day.0, day.1, cell)).collect();
                    assert_eq!(days, expect, "days of {iface}");
                }
                let samples = reader.snapshot(zone, unsaved).buckets(Resolution::Sample, iface, ALL.0, ALL.1).unwrap();
                assert_eq!(sums(&samples), sums(&days));
            }
        }

        /// Compares parts of the history; `points` is all of it.
        fn check_ranges(&self, reader: &Reader, zone: &Zone, points: &[DatedSample], unsaved: &[Arc<Batch>]) {
            let Some(last) = points.len().checked_sub(1) else { return };
            for (from, to) in [(0, last / 2), (last / 4, last / 2), (last / 3, last), (last, last)] {
                let (from, to) = (points[from].unix, points[to].unix);
                for iface in [None, Some(0)] {
                    let filter = SampleFilter { iface, from: Some(from), to: Some(to) };
                    let mut expect: Vec<DatedSample> =
                        points.iter().filter(|point| filter.matches(point)).copied().collect();
                    assert_eq!(
                        reader.snapshot(&Zone::UTC, unsaved).oldest(&filter, None, usize::MAX).unwrap(),
                        (expect.clone(), None)
                    );
                    expect.reverse();
                    for offset in [0, expect.len() / 3, expect.len()] {
                        let got = reader.snapshot(&Zone::UTC, unsaved).newest(&filter, offset as u64, 50).unwrap();
                        assert_eq!(got, expect.iter().skip(offset).take(50).copied().collect::<Vec<_>>());
                    }
                }
                if from == to {
                    continue;
                }
                for resolution in [Resolution::FiveMinutes, Resolution::Hour, Resolution::Day] {
                    let mut expect = reader.snapshot(zone, unsaved).buckets(resolution, 0, ALL.0, ALL.1).unwrap();
                    expect.retain(|bucket| bucket.from < to && bucket.to > from);
                    assert_eq!(
                        reader.snapshot(zone, unsaved).buckets(resolution, 0, from, to).unwrap(),
                        expect,
                        "{resolution:?}"
                    );
                }
                let mut expect = reader.snapshot(zone, unsaved).buckets(Resolution::Sample, 0, ALL.0, ALL.1).unwrap();
                expect.retain(|bucket| bucket.to > from && bucket.to <= to);
                let mut got = reader.snapshot(zone, unsaved).buckets(Resolution::Sample, 0, from, to).unwrap();
                assert!(got.iter().all(|bucket| bucket.from < to && bucket.to > from));
                got.retain(|bucket| bucket.to <= to);
                assert_eq!(got, expect);
            }
        }

        fn check_records(&self, opened: &Opened) {
            for record in &opened.records {
                let tally = self.tallies[&record.id];
                assert_eq!((record.raw, record.lifetime), (tally.raw, tally.lifetime), "{}", record.name);
                assert_eq!((record.mono_ms, Some(record.last_seen)), (tally.mono_ms, tally.last_seen));
            }
            if let Some(newest) = self.points.iter().max_by_key(|point| point.seq) {
                assert!(opened.next_seq > newest.seq + SEQ_MARGIN);
            }
        }
    }

    /// Random histories: steps of the clock, gaps, resets, interfaces that come and go, restarts, changes of the time
    /// zone. Before every seventh save each resolution must equal the simple model, with the unsaved ticks; after it,
    /// with these ticks and without.
    #[test]
    fn every_resolution_is_exact_at_every_commit() {
        for round in 0..16 {
            check_random_history(&mut Random(0x9e37_79b9_7f4a_7c15 ^ (round * 77 + 1)), round);
        }
    }

    fn check_random_history(random: &mut Random, round: u64) {
        // Around the changes of summer time in Europe and on Lord Howe Island, and an ordinary day.
        let start = [1_774_746_000, 1_792_890_000, 1_775_314_800, T][round as usize % 4];
        let mut zone = Zone::parse(ZONES[round as usize / 4 % 4]).unwrap();
        let ifaces = 1 + random.below(5) as u32;
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let mut reader = opened.store.reader().unwrap();
        let mut model = Model::default();
        let (mut seq, mut mono_ms, mut offset) = (1, random.below(1 << 40), start);
        let began = mono_ms;
        let mut raws = vec![Counters::ZERO; ifaces as usize];
        let mut last_ms = vec![mono_ms; ifaces as usize];
        let interval = [1, 30, 30, 300][random.below(4) as usize];
        let mut blocks = BTreeSet::new();
        for save_number in 0..60 {
            let mut batch = Batch::default();
            let mut anchors = Vec::new();
            if random.below(12) == 0 {
                let max_step_s = [60, 4_000, 30_000, 100_000][random.below(4) as usize];
                offset += random.below(2 * max_step_s) as i64 - max_step_s as i64;
            }
            for _ in 0..random.below(25) {
                mono_ms += match random.below(40) {
                    0 => random.below(40_000_000),
                    1 => random.below(900),
                    _ => interval * 1000 + random.below(5),
                };
                let unix = offset + ((mono_ms - began) / 1000) as i64;
                blocks.insert(six_hour_block_of(unix));
                for iface in 0..ifaces {
                    if random.below(20) == 0 {
                        continue;
                    }
                    let at = iface as usize;
                    let kind = random.below(30);
                    let delta =
                        Counters(std::array::from_fn(|_| if random.below(3) == 0 { random.small() } else { 0 }));
                    let quality =
                        [SampleQuality::Reset, SampleQuality::Gap, SampleQuality::Plain][kind.min(2) as usize];
                    let span_ms = if kind == 3 { random.below(3_000_000) } else { mono_ms - last_ms[at] };
                    last_ms[at] = mono_ms;
                    let sample = Sample { iface, quality, span_ms, delta };
                    batch.samples.push(sample);
                    model.push(DatedSample { seq, unix, sample });
                    let tally = model.tallies.entry(iface).or_default();
                    tally.lifetime.add(&delta);
                    (tally.mono_ms, tally.last_seen) = (mono_ms, Some(unix));
                    for (raw, delta) in raws[at].0.iter_mut().zip(delta.0) {
                        *raw = raw.wrapping_add(delta);
                    }
                    if quality == SampleQuality::Reset {
                        raws[at] = Counters(std::array::from_fn(|_| random.small()));
                        anchors.push(Anchor { seq, iface, raw: raws[at] });
                    }
                    tally.raw = raws[at];
                }
                batch.ticks.push(Tick { seq, mono_ms, unix: Some(unix), end: batch.samples.len() });
                seq += 1;
            }
            // The retention could now delete samples, and the model never does.
            if blocks.len() > (7 * BLOCKS_PER_DAY) as usize {
                return;
            }
            if random.below(25) == 0 {
                zone = Zone::parse(ZONES[random.below(4) as usize]).unwrap();
                model.zone_changed = true;
            }
            let records: Vec<Record> = (0..ifaces).map(record).collect();
            let unsaved = [Arc::new(batch), Arc::default()];
            let check = save_number % 7 == 6;
            if check {
                model.check(&reader, &zone, ifaces, &unsaved);
            }
            let records = if save_number == 0 { &records[..] } else { &[] };
            let request = SaveRequest {
                batch: &unsaved[0],
                anchors: &anchors,
                records,
                events: &[],
                settings: &[],
                retention: RETENTION,
                zone: &zone,
            };
            opened.store.save(&request).unwrap();
            if random.below(15) == 0 {
                roll_up_open_block(&opened.store.conn, &mut opened.store.watermarks, &zone).unwrap();
                opened.store.database.record_fingerprint();
            }
            if random.below(10) == 0 {
                // The result of the save was unknown: save again.
                opened.store.commit_uncertain = true;
                opened.store.save(&request).unwrap();
            }
            if check {
                model.check(&reader, &zone, ifaces, &[]);
                model.check(&reader, &zone, ifaces, &unsaved);
            }
            if random.below(6) == 0 {
                drop((opened, reader));
                opened = Store::open(&dir.file(), &OPTIONS).unwrap();
                assert!(opened.events.is_empty());
                reader = opened.store.reader().unwrap();
                model.check_records(&opened);
                if opened.newest_unix.is_some() {
                    seq = opened.next_seq;
                }
            }
        }
    }

    fn save(opened: &mut Opened, batch: &Batch, anchors: &[Anchor], records: &[Record]) {
        let request =
            SaveRequest { batch, anchors, records, events: &[], settings: &[], retention: RETENTION, zone: &Zone::UTC };
        opened.store.save(&request).unwrap();
    }

    fn reopen(opened: Opened, dir: &TempDir) -> Opened {
        drop(opened);
        Store::open(&dir.file(), &OPTIONS).unwrap()
    }

    #[test]
    fn raw_counters_and_totals_survive_a_restart() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        assert_eq!((opened.next_seq, opened.newest_unix), (1, None));
        let raw = |bytes| Counters::of([bytes, 0, 0, 0, 0, 0, 0, 0]);
        // (ticks with their bytes, anchors with their bytes, expected raw counter, expected lifetime)
        type Pairs = &'static [(u64, u64)];
        let steps: [(Pairs, Pairs, u64, u64); 7] = [
            // A first reading: a baseline, no traffic.
            (&[(1, 0)], &[(1, 1_000)], 1_000, 0),
            (&[(2, 10), (3, 10), (4, 10)], &[], 1_030, 30),
            // A reset in the middle of a batch: later traffic is added to the new baseline.
            (&[(5, 1), (6, 5), (7, 7)], &[(6, 5)], 12, 43),
            // An anchor after the last tick sets the raw counter; a sample of the anchor's own tick adds nothing to it.
            (&[(8, 1)], &[(9, 100)], 100, 44),
            (&[(9, 50)], &[], 100, 94),
            (&[(10, 1)], &[], 101, 95),
            // A wrap of a 64-bit counter.
            (&[(11, 20)], &[(11, u64::MAX)], u64::MAX, 115),
        ];
        for (ticks, anchors, expect_raw, expect_lifetime) in steps {
            let mut batch = Batch::default();
            ticks.iter().for_each(|(seq, bytes)| batch.push_tick(*seq, T + 30 * *seq as i64, 30_000, &[(1, *bytes)]));
            let anchors: Vec<Anchor> =
                anchors.iter().map(|(seq, bytes)| Anchor { seq: *seq, iface: 1, raw: raw(*bytes) }).collect();
            save(&mut opened, &batch, &anchors, &[record(1)]);
            opened = reopen(opened, &dir);
            let last = batch.ticks[batch.ticks.len() - 1];
            let expect = Record {
                raw: raw(expect_raw),
                lifetime: raw(expect_lifetime),
                mono_ms: last.mono_ms,
                last_seen: last.unix.unwrap(),
                ..record(1)
            };
            assert_eq!(opened.records, [expect]);
            assert_eq!((opened.next_seq, opened.newest_unix), (last.seq + 1 + SEQ_MARGIN, last.unix));
        }
    }

    #[test]
    fn an_anchor_without_a_sample_sets_the_time_of_its_tick() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let mut batch = Batch::default();
        batch.push_tick(1, T + 30, 30_000, &[]);
        let anchor = Anchor { seq: 1, iface: 1, raw: Counters([7; COUNTERS]) };
        save(&mut opened, &batch, &[anchor], &[record(1)]);
        let opened = reopen(opened, &dir);
        let record = &opened.records[0];
        assert_eq!((record.raw, record.mono_ms, record.last_seen), (anchor.raw, batch.ticks[0].mono_ms, T + 30));
        assert_eq!(opened.newest_unix, Some(T + 30));
    }

    #[test]
    fn samples_of_an_unknown_interface_are_kept() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T + 30, 3)).unwrap();
        opened = reopen(opened, &dir);
        assert_eq!((opened.records[0].name.as_str(), opened.records[0].lifetime.rx_bytes()), ("unknown-1", 900));
        save(&mut opened, &Batch::default(), &[], &[record(1)]);
        opened = reopen(opened, &dir);
        assert_eq!((opened.records[0].name.as_str(), opened.records[0].lifetime.rx_bytes()), ("eth1", 900));
    }

    #[test]
    fn a_tick_without_a_wall_time_is_refused_with_its_whole_batch() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let mut batch = Batch::steady(1, T + 30, 3);
        batch.ticks[1].unix = None;
        assert!(opened.save_batch(&batch).is_err());
        assert_eq!(opened.store.reader().unwrap().view().unwrap().stats().unwrap().samples, 0);
        batch.ticks[1].unix = Some(T + 60);
        opened.save_batch(&batch).unwrap();
        assert_eq!(opened.store.reader().unwrap().view().unwrap().stats().unwrap().samples, 3);
    }

    #[test]
    fn e24_saves_within_one_second_share_a_block() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        for seq in 1..6 {
            let mut batch = Batch::default();
            batch.push_tick(seq, T + 30, 100, &[(1, seq)]);
            opened.save_batch(&batch).unwrap();
        }
        let points = opened.store.reader().unwrap().stored_snapshot().newest(&SampleFilter::default(), 0, 9).unwrap();
        assert_eq!(points.iter().map(|point| point.seq).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    }

    #[test]
    fn e21_a_clock_that_was_years_ahead_costs_no_history() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T, 2_000)).unwrap();
        opened.save_batch(&Batch::steady(3_000, T + 7 * 365 * 86_400, 2_000)).unwrap();
        opened.save_batch(&Batch::steady(6_000, T + 2_000 * 30, 2_000)).unwrap();
        assert_eq!(opened.store.watermarks.newest, Some(T + 3_999 * 30));
        let reader = opened.store.reader().unwrap();
        for resolution in [Resolution::Sample, Resolution::FiveMinutes, Resolution::Hour, Resolution::Day] {
            let buckets = reader.stored_snapshot().buckets(resolution, 1, ALL.0, ALL.1).unwrap();
            assert_eq!(sums(&buckets)[0], 6_000 * 300, "{resolution:?}");
        }
    }

    #[test]
    fn e12_a_gap_of_months_is_in_every_resolution() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T + 30, 10)).unwrap();
        let mut batch = Batch::default();
        batch.push_tick(11, T + 200 * 86_400, 200 * 86_400_000, &[(1, 1 << 40), (2, 3)]);
        batch.samples.iter_mut().for_each(|sample| sample.quality = SampleQuality::Gap);
        opened.save_batch(&batch).unwrap();
        let reader = opened.store.reader().unwrap();
        for (iface, sum) in [(1, (1 << 40) + 3_000), (2, 3)] {
            for resolution in [Resolution::Hour, Resolution::Day] {
                let buckets = reader.stored_snapshot().buckets(resolution, iface, ALL.0, ALL.1).unwrap();
                assert_eq!(sums(&buckets)[0], sum, "{resolution:?} of {iface}");
            }
        }
        let cells = reader.stored_snapshot().buckets(Resolution::FiveMinutes, 1, T + 110 * 86_400, ALL.1).unwrap();
        assert_eq!((cells.len(), sums(&cells)[0]), (90 * 288, 1 << 40));
    }

    #[test]
    fn a_retry_does_not_save_an_event_twice() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let event = |unix| Event {
            unix: Some(unix),
            mono_ms: 1,
            kind: crate::model::EventKind::Reset,
            interface: "eth0".into(),
            detail: "again from zero".into(),
        };
        let mut save = |events: &[Event], commit_uncertain| {
            opened.store.commit_uncertain = commit_uncertain;
            let (batch, zone) = (Batch::default(), Zone::UTC);
            let request = SaveRequest {
                batch: &batch,
                anchors: &[],
                records: &[],
                events,
                settings: &[],
                retention: RETENTION,
                zone: &zone,
            };
            opened.store.save(&request).unwrap();
            opened.store.reader().unwrap().stored_snapshot().events(&EventFilter::default(), &[], 10, 0).unwrap().len()
        };
        assert_eq!(save(&[event(T)], false), 1);
        assert_eq!(save(&[event(T), event(T + 1)], true), 2);
        // Without a failed attempt, two equal events in one second are two events.
        assert_eq!(save(&[event(T + 1)], false), 3);
    }

    #[test]
    fn settings_are_saved_and_deleted() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let mut set = |settings: &[(String, Option<String>)]| {
            let batch = Batch::default();
            let request = SaveRequest {
                batch: &batch,
                anchors: &[],
                records: &[],
                events: &[],
                settings,
                retention: RETENTION,
                zone: &Zone::UTC,
            };
            opened.store.save(&request).unwrap();
        };
        set(&[("a".into(), Some("1".into())), ("b".into(), Some("2".into()))]);
        set(&[("a".into(), None), ("b".into(), Some("3".into()))]);
        let opened = reopen(opened, &dir);
        assert_eq!(opened.settings.into_iter().collect::<Vec<_>>(), [("b".to_string(), "3".to_string())]);
    }

    /// 60 days of the load that the documented sizes refer to.
    #[test]
    fn sixty_days_add_up_in_every_resolution() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let mut load = Load::new();
        let mut expect = [[0u128; COUNTERS]; LOAD_IFACES as usize + 1];
        save(&mut opened, &Batch::default(), &[], &Load::records());
        for _ in 0..60 * 288 {
            let batch = load.batch(10);
            for sample in &batch.samples {
                let sums = &mut expect[sample.iface as usize];
                sums.iter_mut().zip(sample.delta.0).for_each(|(sum, value)| *sum += u128::from(value));
            }
            save(&mut opened, &batch, &[], &[]);
        }
        let (blocks, bytes): (u64, u64) = opened
            .store
            .conn
            .query_row("SELECT count(*), sum(length(data)) FROM sample", [], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
            })
            .unwrap();
        assert!(bytes / blocks <= 1_000, "{} bytes in a block of ten ticks", bytes / blocks);
        let reader = opened.store.reader().unwrap();
        for iface in 1..=LOAD_IFACES {
            for resolution in [Resolution::FiveMinutes, Resolution::Hour, Resolution::Day] {
                let buckets = reader.stored_snapshot().buckets(resolution, iface, ALL.0, ALL.1).unwrap();
                assert_eq!(sums(&buckets), expect[iface as usize], "{resolution:?} of {iface}");
                let covered: u64 = buckets.iter().map(|bucket| u64::from(bucket.cell.plain_s)).sum();
                assert_eq!(covered, 60 * 86_400);
            }
        }
        drop(reader);
        for record in reopen(opened, &dir).records {
            assert_eq!(record.lifetime.0.map(u128::from), expect[record.id as usize]);
        }
    }

    const CHILD: &str = "NETPULSE_TEST_WRITES";

    /// Counts the bytes that the saves of a day pass to write calls, in the first week and later, when old blocks are
    /// deleted too. A separate process counts them, because other tests of this process write at the same time.
    #[test]
    #[cfg(target_os = "linux")]
    fn e44_a_day_writes_less_than_three_and_a_half_megabytes() {
        if std::env::var_os(CHILD).is_some() {
            return print_bytes_written_on_twelve_days();
        }
        let name = "store::write::tests::e44_a_day_writes_less_than_three_and_a_half_megabytes";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        let days: Vec<u64> = output
            .lines()
            .filter_map(|line| line.split_once("bytes written: "))
            .map(|(_, bytes)| bytes.parse().unwrap())
            .collect();
        assert_eq!(days.len(), 12, "{output}");
        assert!(days[..7].iter().all(|bytes| *bytes < 2_600_000), "{days:?}");
        assert!(days[7..].iter().all(|bytes| *bytes < 3_500_000), "{days:?}");
    }

    #[cfg(target_os = "linux")]
    fn print_bytes_written_on_twelve_days() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let mut load = Load::new();
        save(&mut opened, &Batch::default(), &[], &Load::records());
        let bytes_written = || -> u64 {
            let io = std::fs::read_to_string("/proc/self/io").unwrap();
            io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
        };
        for _ in 0..12 {
            let before = bytes_written();
            for _ in 0..288 {
                save(&mut opened, &load.batch(10), &[], &[]);
            }
            println!("bytes written: {}", bytes_written() - before);
        }
    }
}
