//! Tests of queries over memory and database together.

use std::sync::Arc;

use super::{DatedSample, EventFilter, SampleFilter, Snapshot, TotalsQuery, UnsavedBatches};
use crate::clock::Zone;
use crate::model::{Batch, Bucket, Event, EventKind, IfaceId, Sample};
use crate::resolution::{RESOLUTIONS, Resolution};
use crate::store::testing::{LOAD_IFACES, Load, OPTIONS, RETENTION, T, TempDir, record};
use crate::store::{Reader, SaveRequest, Store};
use crate::totals::Period;

#[test]
fn unsaved_samples_count_once_and_those_without_a_time_are_left_out() {
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    let reader = opened.store.reader().unwrap();
    let saving = Arc::new(Batch::steady(1, T + 30, 10));
    let mut next = Batch::steady(11, T + 330, 5);
    next.ticks[4].unix = None;
    let unsaved = [saving.clone(), Arc::new(next)];
    let check = |reader: &Reader| {
        let points = reader.snapshot(&Zone::UTC, &unsaved).newest(&SampleFilter::default(), 0, 99).unwrap();
        assert_eq!(points.iter().map(|point| point.seq).collect::<Vec<_>>(), (1..15).rev().collect::<Vec<_>>());
        let cells = reader.snapshot(&Zone::UTC, &unsaved).buckets(Resolution::FiveMinutes, 1, T, T + 900).unwrap();
        let got: Vec<_> =
            cells.iter().map(|cell| (cell.from - T, cell.cell.sum.rx_bytes(), cell.cell.plain_s)).collect();
        assert_eq!(got, [(0, 3_000, 300), (300, 1_200, 120)]);
        let samples = reader.snapshot(&Zone::UTC, &unsaved).buckets(Resolution::Sample, 1, T, T + 900).unwrap();
        assert_eq!((samples.len(), samples[0].from, samples[0].cell.rx_peak), (14, T, 10));
    };
    check(&reader);
    // The batch is in memory and on disk.
    opened.save_batch(&saving).unwrap();
    check(&reader);
}

#[test]
fn a_walk_returns_every_sample_once_while_batches_are_saved() {
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    let reader = opened.store.reader().unwrap();
    let batches = [Arc::new(Batch::steady(1, T + 30, 100)), Arc::new(Batch::steady(101, T + 3_030, 100))];
    let (mut seqs, mut cursor) = (Vec::new(), None);
    for round in 0.. {
        let (points, next) = reader.snapshot(&Zone::UTC, &batches).oldest(&SampleFilter::default(), cursor, 7).unwrap();
        seqs.extend(points.iter().map(|point| point.seq));
        cursor = next;
        if cursor.is_none() {
            break;
        }
        if round == 5 || round == 20 {
            opened.save_batch(&batches[round / 20]).unwrap();
        }
    }
    assert_eq!(seqs, (1..201).collect::<Vec<_>>());
}

#[test]
fn large_blocks_are_unpacked_in_steps() {
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    let reader = opened.store.reader().unwrap();
    let mut load = Load::new();
    // Two stored blocks of 2,880 samples. Then the clock is set back by half an hour, so the third batch, which is not
    // saved, lies in the time of the second block.
    let batches = [120, 120, 40].map(|ticks| load.batch(ticks));
    batches[..2].iter().for_each(|batch| opened.save_batch(batch).unwrap());
    let mut last = batches[2].clone();
    last.ticks.iter_mut().for_each(|tick| tick.unix = tick.unix.map(|unix| unix - 1_800));
    let unsaved = [Arc::new(Batch::default()), Arc::new(last)];

    for iface in [None, Some(5)] {
        let within = SampleFilter { iface, from: Some(T + 1_000), to: Some(T + 6_500) };
        for filter in [SampleFilter { iface, ..SampleFilter::default() }, within] {
            let mut expected = Vec::new();
            let ticks = batches[..2].iter().chain([&*unsaved[1]]).flat_map(|batch| batch.iter());
            for (tick, samples) in ticks {
                let point = |sample: &Sample| DatedSample { seq: tick.seq, unix: tick.unix.unwrap(), sample: *sample };
                expected.extend(samples.iter().map(point).filter(|point| filter.matches(point)));
            }
            expected.sort_by_key(order);
            let (mut walked, mut after) = (Vec::new(), None);
            loop {
                let (mut points, next) = reader.snapshot(&Zone::UTC, &unsaved).oldest(&filter, after, 500).unwrap();
                assert!(points.len() < 500 + LOAD_IFACES as usize);
                walked.append(&mut points);
                after = next;
                if after.is_none() {
                    break;
                }
            }
            assert!(walked == expected);
            expected.reverse();
            for (offset, limit) in [(0, 1), (0, 1_000), (7, 1_000), (1_030, 50), (3_000, 2_000), (0, 99_999)] {
                let got = reader.snapshot(&Zone::UTC, &unsaved).newest(&filter, offset as u64, limit).unwrap();
                let rest = expected.iter().skip(offset).take(limit);
                assert!(got.iter().eq(rest), "{offset} {limit} {filter:?}");
            }
        }
    }
}

/// An unsaved gap may cover stored buckets and months without any.
#[test]
fn e12_an_unsaved_gap_is_in_every_resolution() {
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    let reader = opened.store.reader().unwrap();
    let days = 50;
    opened.save_batch(&Batch::steady(1, T + 30, 100)).unwrap();
    let mut gap = Batch::default();
    gap.push_tick(101, T + days * 86_400, (days * 86_400 - 3_000) as u64 * 1_000, &[(1, 7_000_000)]);
    let check = |unsaved: &UnsavedBatches| -> Vec<Vec<Bucket>> {
        let resolutions = [Resolution::FiveMinutes, Resolution::Hour, Resolution::Day];
        let all = resolutions
            .map(|resolution| reader.snapshot(&Zone::UTC, unsaved).buckets(resolution, 1, 0, i64::MAX).unwrap());
        for (buckets, per_day) in all.iter().zip([288, 24, 1]) {
            assert_eq!(buckets.len() as i64, days * per_day);
            assert_eq!(buckets.iter().map(|bucket| bucket.cell.sum.rx_bytes()).sum::<u64>(), 7_030_000);
            assert!(buckets.windows(2).all(|pair| pair[0].to == pair[1].from));
        }
        all.into()
    };
    let unsaved = check(&[Arc::new(gap.clone())]);
    opened.save_batch(&gap).unwrap();
    assert!(check(&[]) == unsaved);
}

/// Ticks that could not be saved for long become one sample. A query finds it from any part of its span.
#[test]
fn a_range_inside_a_long_sample_returns_it() {
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    let reader = opened.store.reader().unwrap();
    let hours = 20;
    opened.save_batch(&Batch::steady(1, T + 30, 120)).unwrap();
    let mut long = Batch::default();
    long.push_tick(121, T + 3_600 * (hours + 1), 3_600_000 * hours as u64, &[(1, 72_000), (2, 5)]);
    opened.save_batch(&long).unwrap();
    // Interface 2 has no samples from here on.
    opened.save_batch(&Batch::steady(122, T + 3_600 * (hours + 1) + 30, 500)).unwrap();
    for hour in 0..hours + 3 {
        let at = T + 3_600 * hour + 600;
        let spans = |iface: IfaceId| -> Vec<i64> {
            let buckets = reader.stored_snapshot().buckets(Resolution::Sample, iface, at, at + 60).unwrap();
            buckets.iter().map(|bucket| bucket.to - bucket.from).collect()
        };
        let within = (1..=hours).contains(&hour);
        assert_eq!(spans(1), if within { vec![3_600 * hours] } else { vec![30, 30] }, "hour {hour}");
        assert_eq!(spans(2), if within { vec![3_600 * hours] } else { vec![] }, "hour {hour}");
    }
}

#[test]
fn e43_events_are_bounded_and_newest_first() {
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    let batch = Batch::default();
    for at in 0..13 {
        let events: Vec<Event> = (0..100)
            .map(|more| Event {
                unix: (more > 0).then_some(T + more),
                mono_ms: 5,
                kind: EventKind::Reset,
                interface: "eth0".into(),
                detail: format!("{}", at * 100 + more),
            })
            .collect();
        let request = SaveRequest {
            batch: &batch,
            anchors: &[],
            records: &[],
            events: &events,
            settings: &[],
            retention: RETENTION,
            zone: &Zone::UTC,
        };
        opened.store.save(&request).unwrap();
    }
    let reader = opened.store.reader().unwrap();
    let events = reader.stored_snapshot().events(&EventFilter::default(), &[], 2_000, 0).unwrap();
    assert_eq!((events.len(), events[0].detail.as_str(), events[999].detail.as_str()), (1_000, "1299", "300"));
    assert_eq!((events[0].unix, events[0].kind, events[999].unix), (Some(T + 99), EventKind::Reset, None));
    assert_eq!(reader.stored_snapshot().events(&EventFilter::default(), &[], 5, 10).unwrap()[0].detail, "1289");
}

#[test]
fn e25_days_have_their_local_length_and_closed_days_keep_it() {
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    // 28 to 31 March 2026 in Central Europe, where summer time begins on the 29th; from local midnight to local
    // midnight.
    let cet = Zone::parse("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let start = 1_774_652_400;
    let mut seq = 0;
    let mut save = |hours: i64, zone: &Zone| {
        let mut batch = Batch::default();
        for _ in 0..hours {
            seq += 1;
            batch.push_tick(seq, start + 3_600 * seq as i64, 3_600_000, &[(1, 3_600)]);
        }
        let records = [record(1)];
        let request = SaveRequest {
            batch: &batch,
            anchors: &[],
            records: &records,
            events: &[],
            settings: &[],
            retention: RETENTION,
            zone,
        };
        opened.store.save(&request).unwrap();
        let days = opened.store.reader().unwrap().snapshot(zone, &[]).buckets(Resolution::Day, 1, 0, i64::MAX).unwrap();
        days.iter().map(|day| ((day.to - day.from) / 3_600, day.cell.sum.rx_bytes() / 3_600)).collect::<Vec<_>>()
    };
    assert_eq!(save(57, &cet), [(24, 24), (23, 23), (24, 10)]);
    // Two hours further west: the open day begins where the last closed one ended, and ends at the new midnight.
    let azores = Zone::parse("<-01>1").unwrap();
    assert_eq!(save(0, &azores), [(24, 24), (23, 23), (3, 3), (24, 7)]);
    assert_eq!(save(24, &azores), [(24, 24), (23, 23), (3, 3), (24, 24), (24, 7)]);
}

#[test]
fn oldest_time_of_each_resolution() {
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    let reader = opened.store.reader().unwrap();
    let resolutions = [Resolution::Sample, Resolution::FiveMinutes, Resolution::Hour, Resolution::Day];
    assert_eq!(resolutions.map(|resolution| reader.stored_snapshot().oldest_time(resolution).unwrap()), [None; 4]);
    opened.save_batch(&Batch::steady(1, T + 4_000, 3)).unwrap();
    let expected = [T + 3_970, T + 3_900, T + 3_600, T + 3_970].map(Some);
    assert_eq!(resolutions.map(|resolution| reader.stored_snapshot().oldest_time(resolution).unwrap()), expected);
    opened.save_batch(&Batch::steady(4, T + 40_000, 3)).unwrap();
    let expected = [T + 3_970, T + 3_900, T + 3_600, T].map(Some);
    assert_eq!(resolutions.map(|resolution| reader.stored_snapshot().oldest_time(resolution).unwrap()), expected);
}

fn order(point: &DatedSample) -> (i64, u64, IfaceId) {
    (point.unix, point.seq, point.sample.iface)
}

/// Some days of a router, with a gap, a step of the clock and a link that disappears. Memory alone, the database alone
/// and any division between the two give the same answers.
#[test]
fn memory_and_database_give_the_same_answers() {
    let zone = Zone::parse("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0").unwrap();
    let mut load = Load::new();
    let mut batches: Vec<Batch> = (0..6).map(|_| load.batch(100)).collect();
    batches[2].ticks.iter_mut().for_each(|tick| tick.unix = tick.unix.map(|unix| unix - 4_000));
    batches[3].samples[0].span_ms = 30 * 3_600_000;
    batches[4].samples.retain(|sample| sample.iface != 3);
    let mut end = 0;
    for tick in &mut batches[4].ticks {
        end += LOAD_IFACES as usize - 1;
        tick.end = end;
    }
    let now = T + 86_400;
    let answers = |snapshot: &Snapshot| {
        let filter = SampleFilter { iface: Some(3), ..SampleFilter::default() };
        let (oldest, after) = snapshot.oldest(&SampleFilter::default(), None, 7_777).unwrap();
        let (rest, end) = snapshot.oldest(&SampleFilter::default(), after, usize::MAX).unwrap();
        let buckets: Vec<Vec<Bucket>> = (1..=4)
            .flat_map(|iface| RESOLUTIONS.map(|spec| (spec.resolution, iface)))
            .map(|(resolution, iface)| snapshot.buckets(resolution, iface, T - 86_400 * 9, i64::MAX).unwrap())
            .collect();
        let totals = [Period::Hour, Period::Day, Period::Week].map(|period| {
            let query = TotalsQuery { period, from: T - 86_400 * 9, to: now, limit: 1_000, now };
            snapshot.totals(3, &query).unwrap()
        });
        let newest = snapshot.newest(&filter, 33, 444).unwrap();
        ((oldest, rest, end), newest, buckets, totals, snapshot.day(T + 9_000).unwrap())
    };
    let unsaved: Vec<Arc<Batch>> = batches.iter().cloned().map(Arc::new).collect();
    let from_memory = answers(&Snapshot::of_memory(&zone, &unsaved));
    assert!(
        from_memory.2.iter().all(|buckets| !buckets.is_empty()) && from_memory.3.iter().all(|rows| !rows.is_empty())
    );
    let dir = TempDir::new();
    let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
    for (saved, batch) in batches.iter().enumerate() {
        let reader = opened.store.reader().unwrap();
        assert!(answers(&reader.snapshot(&zone, &unsaved)) == from_memory, "{saved} saved, all in memory");
        assert!(answers(&reader.snapshot(&zone, &unsaved[saved..])) == from_memory, "{saved} saved");
        let records = Load::records();
        let (anchors, events, settings) = (&[], &[], &[]);
        let request =
            SaveRequest { batch, anchors, records: &records, events, settings, retention: RETENTION, zone: &zone };
        opened.store.save(&request).unwrap();
    }
    assert!(answers(&opened.store.reader().unwrap().snapshot(&zone, &[])) == from_memory);
}
