//! Samples and cells with any values: packing and unpacking give back the same values, and the pieces of a sample add
//! up to the sample.

use std::collections::BTreeSet;

use net_pulse::model::{COUNTERS, Cell, Counters, Sample, SampleQuality};
use net_pulse::resolution::FIVE_MINUTES_S;
use net_pulse::store::codec::block::{Columns, Packed};
use net_pulse::store::codec::{self, Cells, LAST_SEQ, LAST_UNIX, TickRow, TickTime};
use net_pulse::store::split;

/// The rest of the input. After its end it yields zeros, so that every input gives a value.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    /// The next little-endian integer of `bytes` bytes.
    fn integer(&mut self, bytes: usize) -> u64 {
        let (first, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        first.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.integer(1) % bound
    }

    /// A number of any size, most often a small one.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0..=3 => self.integer(1) / 64,
            4 => self.integer(2),
            5 => self.integer(4),
            6 => u64::MAX - self.integer(1),
            _ => self.integer(8),
        }
    }
}

fn sample(input: &mut Input, iface: u32) -> Sample {
    let mut counters = [0; COUNTERS];
    for counter in &mut counters {
        *counter = input.number();
    }
    let quality = SampleQuality::from_code(input.below(3));
    Sample { iface, quality, span_ms: input.number(), delta: Counters(counters) }
}

fn samples(input: &mut Input) -> Vec<TickRow> {
    let mut rows = Vec::new();
    for _ in 0..1 + input.below(24) {
        let tick_time = TickTime {
            seq: input.number().min(LAST_SEQ),
            unix: input.number().min(LAST_UNIX as u64) as i64,
            mono_ms: input.number(),
        };
        // At most one sample of each interface, in ascending order.
        let ifaces: BTreeSet<u32> = (0..input.below(5)).map(|_| input.number() as u32).collect();
        let samples = ifaces.into_iter().map(|iface| sample(input, iface)).collect();
        rows.push(TickRow { time: tick_time, samples });
    }
    rows
}

fn cells(input: &mut Input, rows: u16) -> Cells {
    let mut cells = Cells::new();
    for _ in 0..1 + input.below(24) {
        let at = (input.below(5) as u32, input.integer(2) as u16 % rows);
        let mut cell = Cell { rx_peak: input.number(), tx_peak: input.number(), ..Cell::default() };
        for counter in &mut cell.sum.0 {
            *counter = input.number();
        }
        cell.plain_s = input.number() as u32;
        cell.gap_s = input.number() as u32;
        cells.insert(at, cell);
    }
    cells
}

pub fn pack(bytes: &[u8]) {
    let input = &mut Input(bytes);

    let rows = samples(input);
    let packed = codec::pack_samples(&rows);
    assert_eq!(codec::unpack_samples(&packed).expect("it was packed"), rows);
    let opened = Packed::open(&packed).expect("it was packed");
    let count: usize = rows.iter().map(|row| row.samples.len()).sum();
    assert_eq!(codec::count_samples(&opened, None).expect("it was packed"), count);

    let (cell_rows, length_s) = [(72, 300), (24, 3600), (1, 82_800)][input.below(3) as usize];
    let cells = cells(input, cell_rows);
    let packed = codec::pack_cells(&cells, usize::from(cell_rows), length_s);
    let mut found = Cells::new();
    codec::unpack_cells(&packed, length_s, None, &mut Columns::default(), &mut |iface, at, cell| {
        found.insert((iface, at), *cell);
    })
    .expect("it was packed");
    assert_eq!(found, cells);

    // Limits the span to 7 days: a longer one would give so many 5-minute pieces that one run takes seconds.
    let mut sample = sample(input, 1);
    sample.span_ms %= 7 * 86_400_000;
    let unix = input.number().min(LAST_UNIX as u64) as i64;
    let (first, last) = split::range(unix, &sample);
    let (mut sum, mut seconds) = ([0u128; COUNTERS], 0);
    split::pieces(
        unix,
        &sample,
        split::floor(first, FIVE_MINUTES_S),
        split::floor(last, FIVE_MINUTES_S) + FIVE_MINUTES_S,
        &mut |start, cell| {
            assert!(start + FIVE_MINUTES_S > first && start < last);
            sum.iter_mut().zip(cell.sum.0).for_each(|(sum, value)| *sum += u128::from(value));
            seconds += i64::from(cell.plain_s + cell.gap_s);
        },
    );
    assert_eq!(sum, sample.delta.0.map(u128::from));
    assert_eq!(seconds, split::seconds(sample.span_ms));
}
