//! Damaged blocks of history, as a worn SD card may return them: unpacking gives an error or some numbers, in limited
//! time and memory.

use net_pulse::store::codec::block::{self, ByteReader, Columns, MAX_ROWS, Packed};
use net_pulse::store::codec::{self, LAST_SEQ, LAST_UNIX, SampleDecoder};

pub fn unpack(bytes: &[u8]) {
    let _ = ByteReader(bytes).leb();
    if let Ok(rows) = codec::unpack_samples(bytes) {
        assert!(!rows.is_empty() && rows.len() <= MAX_ROWS);
        for row in &rows {
            assert!((0..=LAST_UNIX).contains(&row.time.unix) && row.time.seq <= LAST_SEQ);
        }
        let count = rows.iter().map(|row| row.samples.len()).sum::<usize>();
        let packed = Packed::open(bytes).expect("it was unpacked");
        assert_eq!(codec::count_samples(&packed, None).ok(), Some(count));

        // The result can be packed again, because the next save may merge into this block.
        assert_eq!(codec::unpack_samples(&codec::pack_samples(&rows)).ok().as_ref(), Some(&rows));
        let (mut samples, mut found) = (SampleDecoder::default(), 0);
        samples.decode_ticks(&packed).expect("it was unpacked");
        samples.each_sample(&packed, None, 0..packed.rows, &mut |_, _| found += 1).expect("it was unpacked");
        assert_eq!(found, count);
    }
    if let Ok(packed) = Packed::open(bytes) {
        let _ = packed.find(1);
        for (_, body) in packed.groups().flatten() {
            let _ = block::present_rows(body, packed.rows);
        }
    }
    let mut columns = Columns::default();
    for (rows, length_s) in [(72, 300), (24, 3600), (1, 82_800)] {
        let _ = columns.read(bytes, rows, 3);
        assert!(columns.present.len() <= rows);
        let mut cells = codec::Cells::new();
        let result = codec::unpack_cells(bytes, length_s, None, &mut columns, &mut |iface, at, cell| {
            cells.insert((iface, at), *cell);
        });
        if result.is_ok() {
            for cell in cells.values() {
                let _ = cell.clamped_to(length_s);
            }
        }
    }
}
