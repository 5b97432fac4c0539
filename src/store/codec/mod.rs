//! Packs ticks with their samples, and the cells of the roll-ups, into the blobs of the database, and unpacks them.
//! Pure. This file defines the columns of a block; `block` has the byte format.

use crate::sorted::Set;
use std::collections::BTreeMap;
use std::ops::Range;

pub mod block;

use self::block::{
    ByteReader, Columns, MAX_COLUMNS, Packed, Packer, damaged, present_rows, put_columns, put_leb, unzigzag, zigzag,
};
use crate::error::Result;
use crate::model::{COUNTERS, Cell, Counters, IfaceId, Sample, SampleQuality};

/// End of the year 9999, UTC seconds. Later times are damage; the limit also keeps sums of times from overflowing.
pub const LAST_UNIX: i64 = 253_402_300_799;
/// Highest tick number with which `DatedSample::id` stays below 2^53: 270 years at one tick per second. A higher number
/// is damage: the next start would continue from it.
pub const LAST_SEQ: u64 = (1 << 33) - 1;

/// Number and times of a tick: UTC seconds, and CLOCK_BOOTTIME in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TickTime {
    pub seq: u64,
    pub unix: i64,
    pub mono_ms: u64,
}

/// A tick with its samples, at most one per interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickRow {
    pub time: TickTime,
    pub samples: Vec<Sample>,
}

/// Columns of the ticks, as differences from the previous tick `p`: `seq - p.seq - 1`; `step = mono_ms - p.mono_ms`;
/// `unix - p.unix - step`, with `step` rounded to seconds.
const HEAD_COLUMNS: usize = 3;
/// Columns of a sample after its counters: its quality as a number, and its span. Nearly all of their values are zero,
/// and a column of zeros takes no bytes.
const QUALITY: usize = 0;
/// The span of the sample minus the time since the previous tick, in ms.
const SPAN: usize = 1;
const SAMPLE_EXTRA: usize = 2;

/// Number of counters in a block; their columns come first. A block from before a counter was added has fewer.
fn counter_count(packed: &Packed, extra: usize) -> Result<usize> {
    match packed.columns.checked_sub(extra) {
        Some(counters @ ..=COUNTERS) => Ok(counters),
        Some(_) => Err(damaged("it has unknown columns")),
        None => Err(damaged("it lacks columns")),
    }
}

/// Columns of all counters; empty for a counter that the block lacks.
fn counter_columns(columns: &Columns, counters: usize) -> [&[u64]; COUNTERS] {
    std::array::from_fn(|at| if at < counters { columns.column(at) } else { &[] })
}

/// Counters of one row; zero for a counter that the block lacks.
fn counters_at(columns: &[&[u64]; COUNTERS], at: usize) -> Counters {
    Counters(columns.map(|column| column.get(at).copied().unwrap_or(0)))
}

/// Packs ticks. The caller passes them in the order of their wall times.
pub fn pack_samples(rows: &[TickRow]) -> Vec<u8> {
    let mut packer = Packer::new(COUNTERS + SAMPLE_EXTRA, rows.len());
    let steps = put_head(packer.head(), rows);
    let ifaces: Set<IfaceId> = rows.iter().flat_map(|row| row.samples.iter().map(|sample| sample.iface)).collect();
    for iface in ifaces {
        let mut present = Vec::with_capacity(rows.len());
        let mut columns = vec![Vec::new(); COUNTERS + SAMPLE_EXTRA];
        for (at, row) in rows.iter().enumerate() {
            let Some(sample) = row.samples.iter().find(|sample| sample.iface == iface) else { continue };
            present.push(at as u16);
            columns.iter_mut().zip(sample.delta.0).for_each(|(column, value)| column.push(value));
            columns[COUNTERS + QUALITY].push(sample.quality as u64);
            columns[COUNTERS + SPAN].push(zigzag(sample.span_ms.wrapping_sub(steps[at]) as i64));
        }
        packer.add_group(iface, &present, &columns);
    }
    packer.finish()
}

/// Packs the times of the ticks. Returns the expected span of the samples of each tick in ms: the time since the
/// previous tick, and for the first tick a span that the block stores.
fn put_head(out: &mut Vec<u8>, rows: &[TickRow]) -> Vec<u64> {
    let Some(first) = rows.first() else { return Vec::new() };
    let typical = first.samples.iter().find(|sample| sample.quality == SampleQuality::Plain).or(first.samples.first());
    let mut steps = vec![typical.map_or(0, |sample| sample.span_ms)];
    put_leb(out, first.time.seq);
    put_leb(out, zigzag(first.time.unix));
    put_leb(out, first.time.mono_ms);
    put_leb(out, steps[0]);
    let mut columns = vec![Vec::new(); HEAD_COLUMNS];
    for pair in rows.windows(2) {
        let (before, now) = (&pair[0].time, &pair[1].time);
        let step = now.mono_ms.wrapping_sub(before.mono_ms);
        columns[0].push(zigzag(now.seq.wrapping_sub(before.seq).wrapping_sub(1) as i64));
        columns[1].push(zigzag(step as i64));
        columns[2].push(zigzag(now.unix.wrapping_sub(before.unix).wrapping_sub(round_to_seconds(step))));
        steps.push(step);
    }
    let all: Vec<u16> = (1..rows.len() as u16).collect();
    put_columns(out, all.len(), &all, &columns);
    steps
}

fn round_to_seconds(step_ms: u64) -> i64 {
    (step_ms as i64 / 1000).wrapping_add(i64::from(step_ms % 1000 >= 500))
}

/// Unpacks blocks of samples one after another, with reused buffers.
#[derive(Default)]
pub struct SampleDecoder {
    tick_times: Vec<TickTime>,
    steps: Vec<u64>,
    columns: Columns,
}

impl SampleDecoder {
    /// Decodes the ticks of a block. `each_sample` on the same block needs this first.
    pub fn decode_ticks(&mut self, packed: &Packed) -> Result<&[TickTime]> {
        let mut bytes = ByteReader(packed.head);
        let mut now = TickTime { seq: bytes.leb()?, unix: unzigzag(bytes.leb()?), mono_ms: bytes.leb()? };
        let mut step = bytes.leb()?;
        self.columns.read(bytes.0, packed.rows - 1, HEAD_COLUMNS)?;
        if self.columns.present.len() != packed.rows - 1 {
            return Err(damaged("ticks are missing"));
        }
        self.tick_times.clear();
        self.steps.clear();
        for at in 0..packed.rows {
            if at > 0 {
                let column = |column| unzigzag(self.columns.column(column)[at - 1]);
                step = column(1) as u64;
                now.seq = now.seq.wrapping_add(1).wrapping_add(column(0) as u64);
                now.mono_ms = now.mono_ms.wrapping_add(step);
                now.unix = now.unix.wrapping_add(round_to_seconds(step)).wrapping_add(column(2));
            }
            if !(0..=LAST_UNIX).contains(&now.unix) || now.seq > LAST_SEQ {
                return Err(damaged("the time or the number of a tick is out of range"));
            }
            self.tick_times.push(now);
            self.steps.push(step);
        }
        Ok(&self.tick_times)
    }

    /// The ticks of the block that was decoded last.
    pub fn tick_times(&self) -> &[TickTime] {
        &self.tick_times
    }

    /// Calls `each` with the samples of one interface, or of all (`None`), interface by interface. `packed` is the
    /// block that was decoded last; `rows` selects ticks by their index in it.
    pub fn each_sample(
        &mut self,
        packed: &Packed,
        iface: Option<IfaceId>,
        rows: Range<usize>,
        each: &mut dyn FnMut(&TickTime, &Sample),
    ) -> Result<()> {
        if let Some(iface) = iface {
            return packed.find(iface)?.map_or(Ok(()), |body| self.decode_group(packed, iface, body, rows, each));
        }
        for group in packed.groups() {
            let (iface, body) = group?;
            self.decode_group(packed, iface, body, rows.clone(), each)?;
        }
        Ok(())
    }

    fn decode_group(
        &mut self,
        packed: &Packed,
        iface: IfaceId,
        body: &[u8],
        rows: Range<usize>,
        each: &mut dyn FnMut(&TickTime, &Sample),
    ) -> Result<()> {
        let counters = counter_count(packed, SAMPLE_EXTRA)?;
        self.columns.read(body, packed.rows, packed.columns)?;
        let deltas = counter_columns(&self.columns, counters);
        let (qualities, spans) = (self.columns.column(counters + QUALITY), self.columns.column(counters + SPAN));
        let present = &self.columns.present;
        let first = present.partition_point(|row| usize::from(*row) < rows.start);
        for (at, row) in present.iter().enumerate().skip(first) {
            let row = usize::from(*row);
            if row >= rows.end {
                break;
            }
            let sample = Sample {
                iface,
                quality: SampleQuality::from_code(qualities[at]),
                span_ms: self.steps[row].wrapping_add(unzigzag(spans[at]) as u64),
                delta: counters_at(&deltas, at),
            };
            each(&self.tick_times[row], &sample);
        }
        Ok(())
    }
}

/// Unpacks a whole block of samples.
pub fn unpack_samples(bytes: &[u8]) -> Result<Vec<TickRow>> {
    let packed = Packed::open(bytes)?;
    let mut decoder = SampleDecoder::default();
    let tick_times = decoder.decode_ticks(&packed)?;
    let mut rows: Vec<TickRow> =
        tick_times.iter().map(|tick_time| TickRow { time: *tick_time, samples: Vec::new() }).collect();
    for group in packed.groups() {
        let (iface, body) = group?;
        decoder.columns.read(body, packed.rows, packed.columns)?;
        let present = decoder.columns.present.clone();
        let mut present = present.iter();
        decoder.decode_group(&packed, iface, body, 0..packed.rows, &mut |_, sample| {
            if let Some(row) = present.next() {
                rows[usize::from(*row)].samples.push(*sample);
            }
        })?;
    }
    Ok(rows)
}

/// Number of samples in a block, without unpacking them.
pub fn count_samples(packed: &Packed, iface: Option<IfaceId>) -> Result<usize> {
    let mut count = 0;
    for group in packed.groups() {
        let (found, body) = group?;
        if iface.is_none_or(|iface| iface == found) {
            count += present_rows(body, packed.rows)?;
        }
    }
    Ok(count)
}

/// Cells of one database row, by interface and position in the row.
pub type Cells = BTreeMap<(IfaceId, u16), Cell>;

/// Columns of a cell after its counters: its length minus `plain_s`; `gap_s`; then both peaks in two forms, as values
/// and as excess over the average rate. Each peak of an interface has the shorter form; the columns of the other form
/// are zeros.
const NOT_PLAIN_S: usize = 0;
const GAP_S: usize = 1;
const PEAKS: usize = 2;
const EXCESS: usize = 4;
const CELL_EXTRA: usize = 6;
const _: () = assert!(COUNTERS + CELL_EXTRA <= MAX_COLUMNS);

/// Packs the cells of one database row. `rows`: number of positions in it; `length_s`: seconds of one cell.
pub fn pack_cells(cells: &Cells, rows: usize, length_s: i64) -> Vec<u8> {
    let mut packer = Packer::new(COUNTERS + CELL_EXTRA, rows);
    let mut cells = cells.iter().peekable();
    while let Some(((iface, _), _)) = cells.peek() {
        let iface = *iface;
        let mut present = Vec::with_capacity(rows);
        let mut columns = vec![Vec::new(); COUNTERS + CELL_EXTRA];
        while let Some(((_, at), cell)) = cells.next_if(|((next, _), _)| *next == iface) {
            present.push(*at);
            columns.iter_mut().zip(cell.sum.0).for_each(|(column, value)| column.push(value));
            let extra = &mut columns[COUNTERS..];
            extra[NOT_PLAIN_S].push(zigzag(length_s - i64::from(cell.plain_s)));
            extra[GAP_S].push(cell.gap_s.into());
            for (at, peak) in [cell.rx_peak, cell.tx_peak].into_iter().enumerate() {
                extra[PEAKS + at].push(peak);
                extra[EXCESS + at].push(zigzag(peak.wrapping_sub(average_rate(cell, at)) as i64));
            }
        }
        for at in 0..2 {
            let (peak, excess) = (COUNTERS + PEAKS + at, COUNTERS + EXCESS + at);
            // To a reader, an excess column of zeros means that the block has the peaks as values. So where every
            // excess is zero, store the values.
            let by_excess = packed_bytes(&columns[excess], rows) < packed_bytes(&columns[peak], rows)
                && columns[excess].iter().any(|value| *value != 0);
            columns[if by_excess { peak } else { excess }].fill(0);
        }
        packer.add_group(iface, &present, &columns);
    }
    packer.finish()
}

fn packed_bytes(column: &Vec<u64>, rows: usize) -> usize {
    let mut out = Vec::new();
    let present: Vec<u16> = (0..column.len() as u16).collect();
    put_columns(&mut out, rows, &present, std::slice::from_ref(column));
    out.len()
}

fn average_rate(cell: &Cell, counter: usize) -> u64 {
    cell.sum.0[counter] / (u64::from(cell.plain_s) + u64::from(cell.gap_s)).max(1)
}

/// Calls `each` with the cells of one interface, or of all (`None`), in ascending order of interface and position.
pub fn unpack_cells(
    bytes: &[u8],
    length_s: i64,
    only: Option<IfaceId>,
    columns: &mut Columns,
    each: &mut dyn FnMut(IfaceId, u16, &Cell),
) -> Result<()> {
    let packed = Packed::open(bytes)?;
    let counters = counter_count(&packed, CELL_EXTRA)?;
    let mut decode_group = |iface, body: &[u8]| {
        columns.read(body, packed.rows, packed.columns)?;
        let sums = counter_columns(columns, counters);
        let extra: [&[u64]; CELL_EXTRA] = std::array::from_fn(|at| columns.column(counters + at));
        let by_excess = [0, 1].map(|at| extra[EXCESS + at].iter().any(|value| *value != 0));
        for (at, row) in columns.present.iter().enumerate() {
            let mut cell = Cell {
                sum: counters_at(&sums, at),
                rx_peak: extra[PEAKS][at],
                tx_peak: extra[PEAKS + 1][at],
                plain_s: u32::try_from(length_s.wrapping_sub(unzigzag(extra[NOT_PLAIN_S][at])))
                    .map_err(|_| damaged("the observed seconds of a cell are out of range"))?,
                gap_s: u32::try_from(extra[GAP_S][at])
                    .map_err(|_| damaged("the observed seconds of a cell are out of range"))?,
            };
            let averages = [average_rate(&cell, 0), average_rate(&cell, 1)];
            for (which, peak) in [&mut cell.rx_peak, &mut cell.tx_peak].into_iter().enumerate() {
                if by_excess[which] {
                    *peak = averages[which].wrapping_add(unzigzag(extra[EXCESS + which][at]) as u64);
                }
            }
            each(iface, *row, &cell);
        }
        Ok(())
    };
    match only {
        Some(iface) => packed.find(iface)?.map_or(Ok(()), |body| decode_group(iface, body)),
        None => packed.groups().try_for_each(|found| {
            let (iface, body) = found?;
            decode_group(iface, body)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::model::{RX_BYTES, TX_BYTES};
    use crate::store::codec::block::first_byte;
    use crate::store::testing::Random;

    const T: i64 = 1_768_435_200;

    fn row(seq: u64, unix: i64, mono_ms: u64, samples: &[(IfaceId, u64)]) -> TickRow {
        let samples = samples
            .iter()
            .map(|(iface, rx)| Sample {
                iface: *iface,
                quality: SampleQuality::Plain,
                span_ms: 30_000,
                delta: Counters::of([*rx, 2, 3, 4, 0, 0, 0, 0]),
            })
            .collect();
        TickRow { time: TickTime { seq, unix, mono_ms }, samples }
    }

    fn check(rows: &[TickRow]) -> usize {
        let bytes = pack_samples(rows);
        assert_eq!(unpack_samples(&bytes).unwrap(), rows);
        let packed = Packed::open(&bytes).unwrap();
        let count: usize = rows.iter().map(|row| row.samples.len()).sum();
        assert_eq!(count_samples(&packed, None).unwrap(), count);
        let ones = rows.iter().flat_map(|row| &row.samples).filter(|sample| sample.iface == 1).count();
        assert_eq!(count_samples(&packed, Some(1)).unwrap(), ones);
        bytes.len()
    }

    #[test]
    fn samples_round_trip() {
        check(&[row(1, T, 5, &[])]);
        check(&[row(LAST_SEQ, 0, u64::MAX, &[(0, u64::MAX)])]);
        check(&[row(9, LAST_UNIX, 0, &[(1, 1), (u32::MAX, 2)]), row(3, LAST_UNIX, 0, &[(1, 0)])]);
        check(&[
            row(1, T, 1000, &[(1, 5), (2, 0)]),
            row(2, T + 30, 31_000, &[(2, 1)]),
            row(3, T + 31, 32_000, &[(1, 0), (2, 1)]),
        ]);
        // The clock was set back: merged rows are in the order of their times, not of their numbers.
        check(&[row(7, T, 90_000, &[(1, 5)]), row(2, T + 5, 31_000, &[(1, 1)]), row(8, T + 5, 99_000, &[(1, 1)])]);
        let mut not_plain = row(1, T, 5, &[(1, 7), (2, 7)]);
        not_plain.samples[0].quality = SampleQuality::Gap;
        not_plain.samples[0].span_ms = u64::MAX;
        not_plain.samples[1].quality = SampleQuality::Reset;
        check(&[not_plain]);
    }

    #[test]
    fn an_idle_interface_costs_three_bytes_and_a_steady_tick_none() {
        let idle = |ifaces: &[(IfaceId, u64)], ticks: u64| -> Vec<TickRow> {
            (0..ticks)
                .map(|at| {
                    let mut row = row(at + 1, T + 30 * at as i64, 30_000 * at, ifaces);
                    row.samples.iter_mut().for_each(|sample| sample.delta = Counters::ZERO);
                    row
                })
                .collect()
        };
        let one = check(&idle(&[(1, 0)], 10));
        assert_eq!(check(&idle(&[(1, 0), (2, 0)], 10)), one + 3);
        assert_eq!(check(&idle(&[(1, 0)], 100)), one);
        assert!(one < 30, "{one}");
    }

    #[test]
    fn cells_round_trip() {
        let mut random = Random(7);
        for round in 0..200u64 {
            let (rows, length) = [(72, 300), (24, 3600), (1, 82_800)][round as usize % 3];
            let mut cells = Cells::new();
            for iface in 0..5 {
                for at in 0..rows {
                    if random.below(10) < round % 10 {
                        continue;
                    }
                    let mut cell = Cell { plain_s: length as u32 - random.below(3) as u32, ..Cell::default() };
                    if random.below(3) > 0 {
                        cell.sum = Counters(std::array::from_fn(|_| random.small()));
                        cell.rx_peak = cell.sum.0[RX_BYTES] / length as u64 + random.below(20);
                        cell.tx_peak = cell.sum.0[TX_BYTES] / length as u64;
                    }
                    if random.below(20) == 0 {
                        cell = Cell {
                            sum: Counters([u64::MAX; COUNTERS]),
                            rx_peak: random.next(),
                            tx_peak: u64::MAX,
                            plain_s: random.next() as u32,
                            gap_s: u32::MAX,
                        };
                    }
                    cells.insert((iface, at), cell);
                }
            }
            let bytes = pack_cells(&cells, usize::from(rows), length);
            let mut columns = Columns::default();
            for only in [None, Some(0), Some(3), Some(9)] {
                let mut got = Cells::new();
                unpack_cells(&bytes, length, only, &mut columns, &mut |iface, at, cell| {
                    got.insert((iface, at), *cell);
                })
                .unwrap();
                let mut expect = cells.clone();
                expect.retain(|(iface, _), _| only.is_none_or(|only| only == *iface));
                assert_eq!(got, expect);
            }
        }
    }

    /// A block as a version with more or fewer counters packs it.
    fn packed_with(columns: usize, counters: usize) -> Vec<u8> {
        let mut packer = Packer::new(columns, 1);
        let head = pack_samples(&[row(7, T, 5, &[(1, 0)])]);
        packer.head().extend_from_slice(Packed::open(&head).unwrap().head);
        let value = |at: usize| if at < counters { 100 + at as u64 } else { 0 };
        packer.add_group(1, &[0], &(0..columns).map(|at| vec![value(at)]).collect::<Vec<_>>());
        packer.finish()
    }

    #[test]
    fn missing_counters_read_as_zero() {
        for counters in 0..=COUNTERS {
            let expect = Counters(std::array::from_fn(|at| if at < counters { 100 + at as u64 } else { 0 }));
            let rows = unpack_samples(&packed_with(counters + SAMPLE_EXTRA, counters)).unwrap();
            assert_eq!((rows[0].samples[0].delta, rows[0].samples[0].quality), (expect, SampleQuality::Plain));
            let mut cells = Vec::new();
            let bytes = packed_with(counters + CELL_EXTRA, counters);
            unpack_cells(&bytes, 300, None, &mut Columns::default(), &mut |_, _, cell| cells.push(*cell)).unwrap();
            assert_eq!(cells, [Cell { sum: expect, plain_s: 300, ..Cell::default() }]);
        }
    }

    #[test]
    fn a_block_with_an_unknown_number_of_columns_is_damaged() {
        let check = |columns: usize, word: &str| {
            let samples = unpack_samples(&packed_with(columns, columns)).unwrap_err();
            assert_eq!(samples.kind, ErrorKind::Corrupt);
            assert!(samples.to_string().contains(word), "{samples}");
        };
        check(COUNTERS + SAMPLE_EXTRA + 1, "unknown columns");
        check(MAX_COLUMNS, "unknown columns");
        check(SAMPLE_EXTRA - 1, "lacks columns");
        for first in [0xff, 0x80 | 32, 1] {
            let mut bytes = packed_with(COUNTERS + SAMPLE_EXTRA, COUNTERS);
            bytes[0] = first;
            assert_eq!(unpack_samples(&bytes).unwrap_err().kind, ErrorKind::Corrupt);
            let cells = unpack_cells(&bytes, 300, None, &mut Columns::default(), &mut |_, _, _| ());
            assert_eq!(cells.unwrap_err().kind, ErrorKind::Corrupt);
        }
    }

    /// A worn flash card may return any bytes: an error is fine, a panic or an allocation of a gigabyte is not.
    #[test]
    fn e40_damaged_blocks_give_an_error_or_numbers_and_no_panic() {
        let mut random = Random(11);
        let rows: Vec<TickRow> = (0..20)
            .map(|at| row(at + 1, T + 30 * at as i64, 30_000 * at, &[(1, random.below(1 << 24)), (2, at % 2), (40, 0)]))
            .collect();
        let mut cells = Cells::new();
        for at in 0..72 {
            cells.insert((3, at), Cell { sum: Counters([random.small(); COUNTERS]), rx_peak: 77, ..Cell::default() });
        }
        let mut columns = Columns::default();
        let mut read = |bytes: &[u8]| {
            let samples = unpack_samples(bytes).is_ok();
            let cells = unpack_cells(bytes, 300, None, &mut columns, &mut |_, _, _| ()).is_ok();
            (samples, cells)
        };
        let (whole, other) = (pack_samples(&rows), pack_cells(&cells, 72, 300));
        assert_eq!((read(&whole).0, read(&other).1), (true, true));
        for whole in [whole, other] {
            for length in 0..whole.len() {
                read(&whole[..length]);
            }
            for _ in 0..20_000 {
                let mut bytes = whole.clone();
                for _ in 0..=random.below(3) {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] = random.next() as u8;
                }
                read(&bytes);
            }
        }
        for _ in 0..20_000 {
            let extra = [SAMPLE_EXTRA, CELL_EXTRA][random.below(2) as usize];
            let mut bytes = vec![first_byte(COUNTERS + extra)];
            bytes.extend((0..random.below(60)).map(|_| random.next() as u8 >> random.below(8)));
            read(&bytes);
        }
    }
}
