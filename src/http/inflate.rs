//! Unpacks gzip (DEFLATE, RFC 1951) for clients that do not accept it. The only input is what `build.rs` packed.
//! Invalid input gives `None`; the checksum is not verified, because the data is part of the program.

/// Length of a gzip header without a file name and other optional fields (RFC 1952, 2.3).
const HEADER_BYTES: usize = 10;
const END_OF_BLOCK: usize = 256;
/// Order of the code lengths for the code length alphabet (RFC 1951, 3.2.7).
const CODE_LENGTH_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

pub fn gunzip(compressed: &[u8]) -> Option<Vec<u8>> {
    // The last four bytes are the unpacked size (RFC 1952, 2.3.1).
    let (stream, end) = compressed.get(HEADER_BYTES..)?.split_last_chunk()?;
    let mut bits = Bits { bytes: stream, at: 0 };
    let mut out = Output { bytes: Vec::new(), size: u32::from_le_bytes(*end) as usize };
    out.bytes.try_reserve_exact(out.size).ok()?;
    let mut last = false;
    while !last {
        last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored_block(&mut bits, &mut out)?,
            1 => huffman_block(&mut bits, &mut out, &fixed_code(), &Code::from_lengths(&[5; 30]))?,
            2 => {
                let (symbols, distances) = dynamic_codes(&mut bits)?;
                huffman_block(&mut bits, &mut out, &symbols, &distances)?;
            }
            _ => return None,
        }
    }
    (out.bytes.len() == out.size).then_some(out.bytes)
}

fn stored_block(bits: &mut Bits, out: &mut Output) -> Option<()> {
    bits.at = bits.at.next_multiple_of(8);
    let length = bits.take(16)?;
    let check = bits.take(16)?;
    for _ in 0..length {
        out.put(bits.take(8)? as u8)?;
    }
    (length ^ check == 0xffff).then_some(())
}

fn huffman_block(bits: &mut Bits, out: &mut Output, symbols: &Code, distances: &Code) -> Option<()> {
    loop {
        match symbols.read(bits)? {
            END_OF_BLOCK => return Some(()),
            literal if literal < END_OF_BLOCK => out.put(literal as u8)?,
            symbol => {
                let length = 3 + match symbol - END_OF_BLOCK - 1 {
                    28 => 255,
                    symbol @ ..28 => with_extra_bits(bits, symbol, 2)?,
                    _ => return None,
                };
                let symbol = distances.read(bits)?;
                let distance = 1 + with_extra_bits(bits, symbol, 1)?;
                for _ in 0..length {
                    let at = out.bytes.len().checked_sub(distance)?;
                    out.put(*out.bytes.get(at)?)?;
                }
            }
        }
    }
}

/// Reads a length or a distance. Each further group of two or four symbols (`shift` 1 or 2) doubles the range, and
/// extra bits give the position in it. RFC 1951, 3.2.5, shows this as two tables.
fn with_extra_bits(bits: &mut Bits, symbol: usize, shift: u32) -> Option<usize> {
    let steps = 1 << shift;
    if symbol < steps {
        return Some(symbol);
    }
    let extra_bits = (symbol >> shift) as u32 - 1;
    Some(((steps + symbol % steps) << extra_bits) + bits.take(extra_bits)?)
}

fn fixed_code() -> Code {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Code::from_lengths(&lengths)
}

/// Reads the two codes of a block with dynamic Huffman codes (RFC 1951, 3.2.7).
fn dynamic_codes(bits: &mut Bits) -> Option<(Code, Code)> {
    let literals = 257 + bits.take(5)?;
    let total = literals + 1 + bits.take(5)?;
    let mut lengths = [0; 19];
    let count = 4 + bits.take(4)?;
    for index in CODE_LENGTH_ORDER.iter().take(count) {
        lengths[*index] = bits.take(3)? as u8;
    }
    let code = Code::from_lengths(&lengths);
    let mut lengths: Vec<u8> = Vec::with_capacity(total);
    while lengths.len() < total {
        let (length, times) = match code.read(bits)? {
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    Some((Code::from_lengths(&lengths[..literals]), Code::from_lengths(lengths.get(literals..total)?)))
}

/// A canonical Huffman code, defined by the lengths of its symbols (RFC 1951, 3.2.2).
struct Code {
    /// Number of symbols of each length.
    counts: [usize; 16],
    /// Symbols ordered by length, then by value.
    symbols: Vec<u16>,
}

impl Code {
    fn from_lengths(lengths: &[u8]) -> Code {
        let mut code = Code { counts: [0; 16], symbols: Vec::with_capacity(lengths.len()) };
        for length in 1..16 {
            let symbols = lengths.iter().zip(0..).filter(|(each, _)| **each == length).map(|(_, symbol)| symbol);
            let skipped = code.symbols.len();
            code.symbols.extend(symbols);
            code.counts[usize::from(length)] = code.symbols.len() - skipped;
        }
        code
    }

    fn read(&self, bits: &mut Bits) -> Option<usize> {
        let (mut code, mut first, mut skipped) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return self.symbols.get((skipped + code).checked_sub(first)?).map(|symbol| usize::from(*symbol));
            }
            skipped += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// A bit reader; bits of a byte are read from the lowest one up.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Position in bits.
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<usize> {
        let mut taken = 0;
        for index in 0..count {
            let bit = self.bytes.get(self.at / 8)? >> (self.at % 8) & 1;
            taken |= usize::from(bit) << index;
            self.at += 1;
        }
        Some(taken)
    }
}

/// The unpacked bytes so far, at most `size`.
struct Output {
    bytes: Vec<u8>,
    size: usize,
}

impl Output {
    fn put(&mut self, byte: u8) -> Option<()> {
        (self.bytes.len() < self.size).then(|| self.bytes.push(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::assets::ASSETS;

    #[test]
    fn every_asset_unpacks_to_its_source() {
        for asset in ASSETS {
            let path = format!("{}{}", env!("OUT_DIR"), asset.path);
            assert_eq!(gunzip(asset.packed), Some(std::fs::read(path).unwrap()), "{}", asset.path);
        }
    }

    fn compressed(stream: &[u8], length: u32) -> Vec<u8> {
        [&[0; HEADER_BYTES], stream, &[0; 4], &length.to_le_bytes()].concat()
    }

    /// Streams made by Python's zlib. The files of the page have the third block type, dynamic codes.
    #[test]
    fn stored_blocks_and_fixed_codes() {
        let check = |stream: &[u8], expect: &[u8]| {
            let compressed = compressed(stream, expect.len() as u32);
            assert_eq!(gunzip(&compressed).as_deref(), Some(expect));
        };
        check(&[3, 0], b"");
        check(&[1, 3, 0, 0xfc, 0xff, b'a', b'b', b'c'], b"abc");
        // Fixed, with the longest match: 258 bytes.
        check(&[0x4b, 0x4c, 0x1c, 0x05, 0xa3, 0x60, 0x14, 0x10, 0x06, 0x00], &[b'a'; 1 + 3 * 258 + 35]);
    }

    /// Such input never occurs, but an error in the program must end one answer and not the thread.
    #[test]
    fn truncated_or_changed_input_gives_none_or_the_right_size() {
        let whole = ASSETS.iter().map(|asset| asset.packed).min_by_key(|compressed| compressed.len()).unwrap();
        let end = whole.len() - 8;
        for at in HEADER_BYTES..end {
            assert_eq!(gunzip(&[&whole[..at], &whole[end..]].concat()), None);
            for bit in 0..8 {
                let mut changed = whole.to_vec();
                changed[at] ^= 1 << bit;
                let size = gunzip(whole).unwrap().len();
                assert!(gunzip(&changed).is_none_or(|plain| plain.len() == size));
            }
        }
        assert_eq!((gunzip(&[]), gunzip(&whole[..HEADER_BYTES]), gunzip(&compressed(&[7], 0))), (None, None, None));
    }
}
