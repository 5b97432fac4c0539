//! Unpacks what `build.rs` has packed, for clients that take no gzip: DEFLATE, RFC 1951. Input that is nothing of the
//! kind ends in `None`; the checksum is not looked at, for it would guard a part of the program from itself.

/// Of gzip, where neither a name nor anything else follows (RFC 1952, 2.3).
const HEAD: usize = 10;
const LITERALS: usize = 256;
/// The order in which the lengths of a block's code for lengths are sent.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

pub fn gunzip(packed: &[u8]) -> Option<Vec<u8>> {
    // The last four bytes say how long it becomes.
    let (stream, end) = packed.get(HEAD..)?.split_last_chunk()?;
    let mut bits = Bits { bytes: stream, at: 0 };
    let mut out = Plain { bytes: Vec::new(), most: u32::from_le_bytes(*end) as usize };
    out.bytes.try_reserve_exact(out.most).ok()?;
    let mut last = false;
    while !last {
        last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out)?,
            1 => block(&mut bits, &mut out, &fixed(), &Code::of(&[5; 30]))?,
            2 => {
                let (symbols, distances) = codes(&mut bits)?;
                block(&mut bits, &mut out, &symbols, &distances)?;
            }
            _ => return None,
        }
    }
    (out.bytes.len() == out.most).then_some(out.bytes)
}

fn stored(bits: &mut Bits, out: &mut Plain) -> Option<()> {
    bits.at = bits.at.next_multiple_of(8);
    let length = bits.take(16)?;
    let check = bits.take(16)?;
    for _ in 0..length {
        out.put(bits.take(8)? as u8)?;
    }
    (length ^ check == 0xffff).then_some(())
}

fn block(bits: &mut Bits, out: &mut Plain, symbols: &Code, distances: &Code) -> Option<()> {
    loop {
        match symbols.read(bits)? {
            LITERALS => return Some(()),
            literal if literal < LITERALS => out.put(literal as u8)?,
            symbol => {
                let length = 3 + match symbol - LITERALS - 1 {
                    28 => 255,
                    symbol @ ..28 => graded(bits, symbol, 2)?,
                    _ => return None,
                };
                let symbol = distances.read(bits)?;
                let distance = 1 + graded(bits, symbol, 1)?;
                for _ in 0..length {
                    let at = out.bytes.len().checked_sub(distance)?;
                    out.put(*out.bytes.get(at)?)?;
                }
            }
        }
    }
}

/// Lengths and distances are sent alike: the range doubles with every two or four symbols (1 or 2 as `shift`), and further
/// bits say where in it. RFC 1951, 3.2.5, has it as two tables.
fn graded(bits: &mut Bits, symbol: usize, shift: u32) -> Option<usize> {
    let steps = 1 << shift;
    if symbol < steps {
        return Some(symbol);
    }
    let further = (symbol >> shift) as u32 - 1;
    Some(((steps + symbol % steps) << further) + bits.take(further)?)
}

fn fixed() -> Code {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Code::of(&lengths)
}

/// The two codes of a block that brings its own.
fn codes(bits: &mut Bits) -> Option<(Code, Code)> {
    let literals = 257 + bits.take(5)?;
    let all = literals + 1 + bits.take(5)?;
    let mut lengths = [0; 19];
    let sent = 4 + bits.take(4)?;
    for place in ORDER.iter().take(sent) {
        lengths[*place] = bits.take(3)? as u8;
    }
    let code = Code::of(&lengths);
    let mut lengths: Vec<u8> = Vec::with_capacity(all);
    while lengths.len() < all {
        let (length, times) = match code.read(bits)? {
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    Some((Code::of(&lengths[..literals]), Code::of(lengths.get(literals..all)?)))
}

/// A Huffman code, known by the lengths of its symbols: those of one length follow each other (RFC 1951, 3.2.2).
struct Code {
    /// How many symbols have each length.
    counts: [usize; 16],
    /// By their lengths, then by themselves.
    symbols: Vec<u16>,
}

impl Code {
    fn of(lengths: &[u8]) -> Code {
        let mut code = Code { counts: [0; 16], symbols: Vec::with_capacity(lengths.len()) };
        for length in 1..16 {
            let symbols = lengths.iter().zip(0..).filter(|(each, _)| **each == length).map(|(_, symbol)| symbol);
            let before = code.symbols.len();
            code.symbols.extend(symbols);
            code.counts[usize::from(length)] = code.symbols.len() - before;
        }
        code
    }

    fn read(&self, bits: &mut Bits) -> Option<usize> {
        let (mut word, mut first, mut before) = (0, 0, 0);
        for count in &self.counts[1..] {
            word |= bits.take(1)?;
            if word < first + count {
                return self.symbols.get((before + word).checked_sub(first)?).map(|symbol| usize::from(*symbol));
            }
            before += count;
            first = (first + count) << 1;
            word <<= 1;
        }
        None
    }
}

/// Read from the lowest bit of each byte on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<usize> {
        let mut taken = 0;
        for place in 0..count {
            let bit = self.bytes.get(self.at / 8)? >> (self.at % 8) & 1;
            taken |= usize::from(bit) << place;
            self.at += 1;
        }
        Some(taken)
    }
}

/// What was packed, as far as it is known.
struct Plain {
    bytes: Vec<u8>,
    most: usize,
}

impl Plain {
    fn put(&mut self, byte: u8) -> Option<()> {
        (self.bytes.len() < self.most).then(|| self.bytes.push(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::assets::ASSETS;

    /// What `build.rs` packs and what comes out of it here.
    #[test]
    fn every_file_of_the_page() {
        for asset in ASSETS {
            let path = format!("{}{}", env!("OUT_DIR"), asset.path);
            assert_eq!(gunzip(asset.packed), Some(std::fs::read(path).unwrap()), "{}", asset.path);
        }
    }

    fn packed(stream: &[u8], length: u32) -> Vec<u8> {
        [&[0; HEAD], stream, &[0; 4], &length.to_le_bytes()].concat()
    }

    /// Made by Python's zlib, which writes each of the three kinds of block.
    #[test]
    fn every_kind_of_block() {
        let check = |stream: &[u8], expect: &[u8]| {
            let packed = packed(stream, expect.len() as u32);
            assert_eq!(gunzip(&packed).as_deref(), Some(expect));
        };
        check(&[3, 0], b"");
        check(&[1, 3, 0, 0xfc, 0xff, b'a', b'b', b'c'], b"abc");
        // Fixed, with the longest match: 258 bytes.
        check(&[0x4b, 0x4c, 0x1c, 0x05, 0xa3, 0x60, 0x14, 0x10, 0x06, 0x00], &[b'a'; 1 + 3 * 258 + 35]);
    }

    /// None of it ever comes, but a fault of the program is to end one answer and not one thread.
    #[test]
    fn every_cut_and_change_is_survived() {
        let whole = ASSETS.iter().map(|asset| asset.packed).min_by_key(|packed| packed.len()).unwrap();
        let end = whole.len() - 8;
        for at in HEAD..end {
            assert_eq!(gunzip(&[&whole[..at], &whole[end..]].concat()), None);
            for bit in 0..8 {
                let mut changed = whole.to_vec();
                changed[at] ^= 1 << bit;
                let most = gunzip(whole).unwrap().len();
                assert!(gunzip(&changed).is_none_or(|plain| plain.len() == most));
            }
        }
        assert_eq!((gunzip(&[]), gunzip(&whole[..HEAD]), gunzip(&packed(&[7], 0))), (None, None, None));
    }
}
