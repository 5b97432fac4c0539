//! Samples and cells of any value come back out of their blocks as they went in, and a sample's pieces add up to it.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use net_pulse::model::{Counters, Mark, Sample};
use net_pulse::store::block::{Columns, Packed};
use net_pulse::store::fold::{self, Cell};
use net_pulse::store::rows::{self, Cells, LAST_SEQ, LAST_UNIX, Moment, Row};

/// Numbers of every magnitude, small ones most of all.
fn number(input: &mut Unstructured) -> Result<u64> {
    Ok(match input.int_in_range(0..=7u8)? {
        0..=3 => u64::from(input.arbitrary::<u8>()? / 64),
        4 => u64::from(input.arbitrary::<u16>()?),
        5 => u64::from(input.arbitrary::<u32>()?),
        6 => u64::MAX - u64::from(input.arbitrary::<u8>()?),
        _ => input.arbitrary()?,
    })
}

fn sample(input: &mut Unstructured, iface: u32) -> Result<Sample> {
    let mut counters = [0; 8];
    for counter in &mut counters {
        *counter = number(input)?;
    }
    let mark = Mark::from_code(u64::from(input.arbitrary::<u8>()? % 3));
    Ok(Sample { iface, mark, span_ms: number(input)?, delta: Counters(counters) })
}

fn samples(input: &mut Unstructured) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for _ in 0..input.int_in_range(1..=24)? {
        let moment = Moment {
            seq: number(input)?.min(LAST_SEQ),
            unix: number(input)?.min(LAST_UNIX as u64) as i64,
            mono_ms: number(input)?,
        };
        // One of each interface at most, in their order.
        let ifaces: BTreeMap<u32, ()> =
            (0..input.int_in_range(0..=4)?).map(|_| Ok((number(input)? as u32, ()))).collect::<Result<_>>()?;
        let samples = ifaces.into_keys().map(|iface| sample(input, iface)).collect::<Result<_>>()?;
        rows.push(Row { moment, samples });
    }
    Ok(rows)
}

fn cells(input: &mut Unstructured, rows: u16) -> Result<Cells> {
    let mut cells = Cells::new();
    for _ in 0..input.int_in_range(1..=24)? {
        let at = (input.arbitrary::<u8>()? as u32 % 5, input.arbitrary::<u16>()? % rows);
        let mut cell = Cell { rx_peak: number(input)?, tx_peak: number(input)?, ..Cell::default() };
        for counter in &mut cell.sum.0 {
            *counter = number(input)?;
        }
        cell.covered = number(input)? as u32;
        cell.blind = number(input)? as u32;
        cells.insert(at, cell);
    }
    Ok(cells)
}

fn try_all(bytes: &[u8]) -> Result<()> {
    let input = &mut Unstructured::new(bytes);

    let rows = samples(input)?;
    let packed = rows::pack_samples(&rows);
    assert_eq!(rows::unpack_samples(&packed).expect("it was packed"), rows);
    let opened = Packed::open(&packed).expect("it was packed");
    let count: usize = rows.iter().map(|row| row.samples.len()).sum();
    assert_eq!(rows::count_samples(&opened, None).expect("it was packed"), count);

    let (places, length_s) = *input.choose(&[(72, 300), (24, 3600), (1, 82_800)])?;
    let cells = cells(input, places)?;
    let packed = rows::pack_cells(&cells, usize::from(places), length_s);
    let mut found = Cells::new();
    rows::unpack_cells(&packed, length_s, None, &mut Columns::default(), &mut |iface, at, cell| {
        found.insert((iface, at), *cell);
    })
    .expect("it was packed");
    assert_eq!(found, cells);

    // Pieces at most as many as five-minute cells are kept for would take seconds.
    let mut sample = sample(input, 1)?;
    sample.span_ms %= 7 * 86_400_000;
    let unix = number(input)?.min(LAST_UNIX as u64) as i64;
    let (first, last) = fold::range(unix, &sample);
    let (mut sum, mut seconds) = ([0u128; 8], 0);
    fold::pieces(
        unix,
        &sample,
        fold::floor(first, fold::CELL_S),
        fold::floor(last, fold::CELL_S) + fold::CELL_S,
        &mut |start, cell| {
            assert!(start + fold::CELL_S > first && start < last);
            sum.iter_mut().zip(cell.sum.0).for_each(|(sum, value)| *sum += u128::from(value));
            seconds += i64::from(cell.covered + cell.blind);
        },
    );
    assert_eq!(sum, sample.delta.0.map(u128::from));
    assert_eq!(seconds, fold::seconds(sample.span_ms));
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = try_all(bytes);
});
