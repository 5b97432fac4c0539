//! Packs columns of integers into one blob, and unpacks them. Pure. This file defines rows, groups and columns; `codec`
//! defines what their values mean. A group holds the columns of one interface. A directory in front of the groups lets
//! a reader unpack one group and skip the others.
//!
//! ```text
//! 0x80 + columns of a group | row count | head length | directory length | group count | head | directory | body*
//! directory: (id step, length of the body)*, where id step = id - previous id - 1; the first one is the id itself
//! body: modes | presence runs, if rows are missing | column*
//! modes: bit 0 = rows are missing, then two bits for each column
//! ```
//! The first byte and the width of a column are single bytes; every other number is an unsigned LEB128. Each column
//! uses the shortest of three encodings:
//!
//! - no bytes, when all values are zero (most columns: errors, drops, idle links);
//! - LEB128 with run-length encoded zeros, for intermittent traffic;
//! - the smallest value, the width, and for each value its distance from the smallest one in that number of bits, for
//!   steady traffic, where LEB128 takes a quarter more.
//!
//! Unpacking accepts any bytes: it returns an error or numbers, in bounded time and memory.

use crate::error::{Error, ErrorKind, Result};

/// The first byte is this plus the number of columns. Up to schema 2 it was 1, and the number of columns was fixed.
const FORMAT: u8 = 0x80;
/// `modes` has no bits for more.
pub const MAX_COLUMNS: usize = 31;
/// Limits the memory that a damaged block can make a reader allocate.
pub const MAX_ROWS: usize = 65_535;
/// Maximum bits per value: the 64-bit buffer also holds up to 7 bits of the previous value. A column with wider values
/// uses LEB128.
const MAX_WIDTH: u32 = 56;

const MODE_ZERO: u64 = 0;
const MODE_ZERO_RUNS: u64 = 1;
const MODE_BITS: u64 = 2;

pub fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a block of history is damaged: {what}"))
}

/// First byte of a block or a tally with this number of columns.
pub fn first_byte(columns: usize) -> u8 {
    FORMAT | columns as u8
}

/// Number of columns from the first byte. Fails on an unknown format.
pub fn column_count(first: u8) -> Result<usize> {
    let columns = usize::from(first & !FORMAT);
    match first & FORMAT {
        // A newer version that writes more columns also raises the schema number, and such a file is not opened.
        FORMAT if columns <= MAX_COLUMNS => Ok(columns),
        _ => Err(damaged("its format is unknown")),
    }
}

pub fn put_leb(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn leb_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Maps small numbers of either sign to small numbers: 0, -1, 1, -2 become 0, 1, 2, 3.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads bytes from the front.
#[derive(Clone, Copy)]
pub struct ByteReader<'a>(pub &'a [u8]);

impl<'a> ByteReader<'a> {
    pub fn leb(&mut self) -> Result<u64> {
        let mut value = 0;
        for (at, &byte) in self.0.iter().enumerate().take(10) {
            let part = u64::from(byte & 0x7f);
            if at == 9 && part > 1 {
                break;
            }
            value |= part << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(damaged("a number is too long"))
    }

    pub fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| damaged("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Builds one block. The caller adds the groups in ascending order of their ids.
pub struct Packer {
    columns: usize,
    rows: usize,
    head: Vec<u8>,
    directory: Vec<u8>,
    bodies: Vec<u8>,
    groups: u64,
    next_id: u64,
}

impl Packer {
    /// `columns`: number of columns in each group.
    pub fn new(columns: usize, rows: usize) -> Packer {
        Packer { columns, rows, head: Vec::new(), directory: Vec::new(), bodies: Vec::new(), groups: 0, next_id: 0 }
    }

    /// The bytes in front of the groups. The caller fills them.
    pub fn head(&mut self) -> &mut Vec<u8> {
        &mut self.head
    }

    /// `present`: the rows that the group has, ascending. Each column has one value per present row.
    pub fn add_group(&mut self, id: u32, present: &[u16], columns: &[Vec<u64>]) {
        let id = u64::from(id);
        let start = self.bodies.len();
        put_columns(&mut self.bodies, self.rows, present, columns);
        put_leb(&mut self.directory, id - self.next_id);
        put_leb(&mut self.directory, (self.bodies.len() - start) as u64);
        self.groups += 1;
        self.next_id = id + 1;
    }

    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.head.len() + self.directory.len() + self.bodies.len());
        out.push(first_byte(self.columns));
        put_leb(&mut out, self.rows as u64);
        put_leb(&mut out, self.head.len() as u64);
        put_leb(&mut out, self.directory.len() as u64);
        put_leb(&mut out, self.groups);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.directory);
        out.extend_from_slice(&self.bodies);
        out
    }
}

/// A block whose header is parsed and whose groups are still packed.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    pub columns: usize,
    pub rows: usize,
    pub head: &'a [u8],
    groups: u64,
    directory: ByteReader<'a>,
    bodies: ByteReader<'a>,
}

impl<'a> Packed<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Packed<'a>> {
        let mut bytes = ByteReader(bytes);
        let columns = column_count(bytes.take(1)?[0])?;
        let rows = bytes.leb()? as usize;
        if rows == 0 || rows > MAX_ROWS {
            return Err(damaged("its number of rows is out of range"));
        }
        let head = bytes.leb()?;
        let directory = bytes.leb()?;
        let groups = bytes.leb()?;
        let head = bytes.take(head)?;
        let directory = ByteReader(bytes.take(directory)?);
        Ok(Packed { columns, rows, head, groups, directory, bodies: bytes })
    }

    /// The groups, in ascending order of their ids.
    pub fn groups(&self) -> Groups<'a> {
        Groups { left: self.groups, next_id: 0, directory: self.directory, bodies: self.bodies }
    }

    pub fn find(&self, id: u32) -> Result<Option<&'a [u8]>> {
        for group in self.groups() {
            let (found, body) = group?;
            if found >= id {
                return Ok((found == id).then_some(body));
            }
        }
        Ok(None)
    }
}

pub struct Groups<'a> {
    left: u64,
    next_id: u64,
    directory: ByteReader<'a>,
    bodies: ByteReader<'a>,
}

impl<'a> Groups<'a> {
    fn read_group(&mut self) -> Result<(u32, &'a [u8])> {
        let step = self.directory.leb()?;
        let length = self.directory.leb()?;
        let id = self.next_id.checked_add(step).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| damaged("an interface number is too large"))?;
        self.next_id = u64::from(id) + 1;
        Ok((id, self.bodies.take(length)?))
    }
}

impl<'a> Iterator for Groups<'a> {
    type Item = Result<(u32, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let group = self.read_group();
        if group.is_err() {
            self.left = 0;
        }
        Some(group)
    }
}

/// One unpacked group. Reuse it from block to block, so that a long read allocates once.
#[derive(Default)]
pub struct Columns {
    /// The rows that the group has, ascending.
    pub present: Vec<u16>,
    values: Vec<u64>,
}

impl Columns {
    /// Values of one column, one per entry of `present`.
    pub fn column(&self, at: usize) -> &[u64] {
        let count = self.present.len();
        &self.values[at * count..][..count]
    }

    pub fn read(&mut self, body: &[u8], rows: usize, columns: usize) -> Result<()> {
        let mut bytes = ByteReader(body);
        let modes = bytes.leb()?;
        self.present.clear();
        self.values.clear();
        if rows > MAX_ROWS || columns > MAX_COLUMNS || modes >> (1 + 2 * columns) != 0 {
            return Err(damaged("its number of columns is wrong"));
        }
        if modes & 1 == 0 {
            self.present.extend(0..rows as u16);
        } else {
            each_presence_run(&mut bytes, rows, |from, to| self.present.extend(from as u16..to as u16))?;
        }
        let count = self.present.len();
        self.values.resize(columns * count, 0);
        for (at, values) in self.values.chunks_exact_mut(count.max(1)).enumerate() {
            match modes >> (1 + 2 * at) & 3 {
                MODE_ZERO => {}
                MODE_ZERO_RUNS => read_zero_runs(&mut bytes, values)?,
                MODE_BITS => read_bits(&mut bytes, values)?,
                _ => return Err(damaged("a column has an unknown encoding")),
            }
        }
        Ok(())
    }
}

/// Number of rows that a group has, without unpacking it.
pub fn present_rows(body: &[u8], rows: usize) -> Result<usize> {
    let mut bytes = ByteReader(body);
    if bytes.leb()? & 1 == 0 {
        return Ok(rows);
    }
    let mut count = 0;
    each_presence_run(&mut bytes, rows, |from, to| count += to - from)?;
    Ok(count)
}

/// Calls `run` with each run of present rows as `[from, to)`. The block stores the runs as pairs (number of missing
/// rows, number of present rows), up to the last present row.
fn each_presence_run(bytes: &mut ByteReader, rows: usize, mut run: impl FnMut(usize, usize)) -> Result<()> {
    let runs = bytes.leb()?;
    let mut at = 0;
    for _ in 0..runs {
        let absent = bytes.leb()?;
        let present = bytes.leb()?;
        if absent > rows as u64 || present == 0 || present > rows as u64 {
            return Err(damaged("a run of rows is out of range"));
        }
        let from = at + absent as usize;
        at = from + present as usize;
        if at > rows {
            return Err(damaged("a run of rows is too long"));
        }
        run(from, at);
    }
    Ok(())
}

/// Packs the columns of one group; `Columns::read` unpacks them.
pub fn put_columns(out: &mut Vec<u8>, rows: usize, present: &[u16], columns: &[Vec<u64>]) {
    let complete = present.len() == rows;
    let mut modes = u64::from(!complete);
    for (at, column) in columns.iter().enumerate() {
        modes |= best_mode(column) << (1 + 2 * at);
    }
    put_leb(out, modes);
    if !complete {
        put_presence_runs(out, present);
    }
    for (at, column) in columns.iter().enumerate() {
        match modes >> (1 + 2 * at) & 3 {
            MODE_ZERO_RUNS => put_zero_runs(out, column),
            MODE_BITS => put_bits(out, column),
            _ => {}
        }
    }
}

fn put_presence_runs(out: &mut Vec<u8>, present: &[u16]) {
    let mut runs = Vec::new();
    let mut end = 0;
    for run in present.chunk_by(|one, next| *next == one + 1) {
        runs.push((run[0] - end, run.len()));
        end = run[0].saturating_add(run.len() as u16);
    }
    put_leb(out, runs.len() as u64);
    for (absent, present) in runs {
        put_leb(out, u64::from(absent));
        put_leb(out, present as u64);
    }
}

fn best_mode(values: &[u64]) -> u64 {
    if values.iter().all(|value| *value == 0) {
        return MODE_ZERO;
    }
    let zero_runs_bytes: usize = values
        .chunk_by(|one, next| *one == 0 && *next == 0)
        .map(|run| if run[0] == 0 { 1 + leb_length(run.len() as u64) } else { leb_length(run[0]) })
        .sum();
    let (least, width) = smallest_and_width(values);
    let bits_bytes = leb_length(least) + 1 + (values.len() * width as usize).div_ceil(8);
    if width <= MAX_WIDTH && bits_bytes < zero_runs_bytes { MODE_BITS } else { MODE_ZERO_RUNS }
}

/// The smallest value, and the bits that the largest distance from it needs.
fn smallest_and_width(values: &[u64]) -> (u64, u32) {
    let least = values.iter().copied().min().unwrap_or(0);
    let most = values.iter().copied().max().unwrap_or(0);
    (least, 64 - (most - least).leading_zeros())
}

/// Writes a run of zeros as a zero byte and the length of the run. No LEB128 of another number begins with a zero
/// byte.
fn put_zero_runs(out: &mut Vec<u8>, values: &[u64]) {
    for run in values.chunk_by(|one, next| *one == 0 && *next == 0) {
        put_leb(out, run[0]);
        if run[0] == 0 {
            put_leb(out, run.len() as u64);
        }
    }
}

fn read_zero_runs(bytes: &mut ByteReader, values: &mut [u64]) -> Result<()> {
    let mut at = 0;
    while at < values.len() {
        let value = bytes.leb()?;
        if value == 0 {
            let run = bytes.leb()?;
            if run == 0 || run > (values.len() - at) as u64 {
                return Err(damaged("a run of zeros is out of range"));
            }
            at += run as usize;
        } else {
            values[at] = value;
            at += 1;
        }
    }
    Ok(())
}

fn put_bits(out: &mut Vec<u8>, values: &[u64]) {
    let (least, width) = smallest_and_width(values);
    put_leb(out, least);
    out.push(width as u8);
    let (mut buffer, mut held) = (0u64, 0);
    for value in values {
        buffer |= (value - least) << held;
        held += width;
        while held >= 8 {
            out.push(buffer as u8);
            buffer >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        out.push(buffer as u8);
    }
}

fn read_bits(bytes: &mut ByteReader, values: &mut [u64]) -> Result<()> {
    let least = bytes.leb()?;
    let width = u32::from(bytes.take(1)?[0]);
    if width > MAX_WIDTH {
        return Err(damaged("a column is too wide"));
    }
    let mut packed = bytes.take((values.len() as u64 * u64::from(width)).div_ceil(8))?.iter();
    let mask = (1u64 << width) - 1;
    let (mut buffer, mut held) = (0u64, 0);
    for value in values {
        while held < width {
            buffer |= u64::from(*packed.next().ok_or_else(|| damaged("a column is cut off"))?) << held;
            held += 8;
        }
        *value = least.checked_add(buffer & mask).ok_or_else(|| damaged("a value is too large"))?;
        buffer >>= width;
        held -= width;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs one column, compares its length with `length` unless that is 0, and unpacks it again.
    fn check(values: &[u64], length: usize) {
        let present: Vec<u16> = (0..values.len() as u16).collect();
        let mut out = Vec::new();
        put_columns(&mut out, values.len(), &present, &[values.to_vec()]);
        if length > 0 {
            assert_eq!(out.len(), length, "{values:?} as {out:?}");
        }
        let mut columns = Columns::default();
        columns.read(&out, values.len(), 1).unwrap();
        assert_eq!(columns.column(0), values);
        assert_eq!(columns.present, present);
    }

    #[test]
    fn columns_round_trip() {
        check(&[0; 10], 1);
        check(&[0], 1);
        check(&[7], 2);
        check(&[1, 2, 3, 4], 1 + 2 + 1);
        check(&[30_000; 10], 1 + 3 + 1);
        check(&[0, 0, 0, 0, 200, 0, 0, 0, 0, 0], 1 + 2 + 2 + 2);
        check(&[u64::MAX], 0);
        check(&[u64::MAX, 0, u64::MAX], 0);
        check(&[u64::MAX, u64::MAX - 1, u64::MAX - 3], 0);
        check(&[1 << 56, 0, 1], 0);
        check(&[(1 << 56) - 1, 0, (1 << 55) + 1, 12345, 1 << 54], 0);
        check(&[127, 128, 16_383, 16_384, 1], 0);
        for width in 0..64 {
            let values: Vec<u64> =
                (0..17).map(|at| (1u64 << width) + ((at * 0x9e37_79b9) & ((1 << width) - 1))).collect();
            check(&values, 0);
        }
    }

    #[test]
    fn leb128_lengths() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_leb(&mut out, value);
            assert_eq!((out.len(), ByteReader(&out).leb().unwrap()), (leb_length(value), value));
        }
        assert!(ByteReader(&[0x80; 10]).leb().is_err());
        assert!(ByteReader(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).leb().is_err());
    }

    #[test]
    fn zigzag_round_trips() {
        for (value, expect) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (i64::MAX, u64::MAX - 1), (i64::MIN, u64::MAX)] {
            assert_eq!((zigzag(value), unzigzag(expect)), (expect, value));
        }
    }

    #[test]
    fn groups_are_found_and_missing_rows_stay_missing() {
        let mut packer = Packer::new(2, 6);
        packer.head().extend_from_slice(b"head");
        packer.add_group(0, &[0, 1, 2, 3, 4, 5], &[vec![1, 2, 3, 4, 5, 6], vec![0; 6]]);
        packer.add_group(3, &[1, 2, 5], &[vec![10, 11, 12], vec![0, 9, 0]]);
        packer.add_group(u32::MAX, &[], &[vec![], vec![]]);
        let bytes = packer.finish();
        let packed = Packed::open(&bytes).unwrap();
        assert_eq!((packed.columns, packed.rows, packed.head), (2, 6, &b"head"[..]));
        assert_eq!(packed.groups().map(|group| group.unwrap().0).collect::<Vec<_>>(), [0, 3, u32::MAX]);
        let mut columns = Columns::default();
        for (id, present, first, second) in [
            (0, &[0, 1, 2, 3, 4, 5][..], &[1, 2, 3, 4, 5, 6][..], &[0; 6][..]),
            (3, &[1, 2, 5], &[10, 11, 12], &[0, 9, 0]),
        ] {
            let body = packed.find(id).unwrap().unwrap();
            columns.read(body, packed.rows, packed.columns).unwrap();
            assert_eq!((&columns.present[..], columns.column(0), columns.column(1)), (present, first, second));
            assert_eq!(present_rows(body, packed.rows).unwrap(), present.len());
        }
        let body = packed.find(u32::MAX).unwrap().unwrap();
        columns.read(body, packed.rows, packed.columns).unwrap();
        assert_eq!((columns.present.len(), columns.column(1).len()), (0, 0));
        assert!(packed.find(2).unwrap().is_none());
        assert!(packed.find(4).unwrap().is_none());
    }
}
