//! Writes a long stored history with the program's own store, for the daemon to find at its start.

use crate::common::stored_history::{Random, record, save, unix_now};
use net_pulse::clock::Zone;
use net_pulse::model::{Batch, Counters, InterfaceKind, Record, Sample, SampleQuality, Tick};
use net_pulse::store::{Options, Store};

pub const INTERFACES: u32 = 24;

#[derive(Clone, Copy)]
pub enum HistoryLength {
    /// Two days of twelve interfaces: enough for an export.
    Days,
    /// Twelve weeks of 24 interfaces: a chart over them takes a while.
    Weeks,
    /// A hundred days of 24 interfaces, the last eight with a sample every 30 s: longer than the daemon keeps samples
    /// and 5-minute cells.
    Months,
}

impl HistoryLength {
    /// Number of interfaces, and the parts of the history in order: days, and seconds between two samples. Hourly
    /// samples fill the same 5-minute cells as samples every 30 s, for a 120th of the work.
    fn size(self) -> (u32, &'static [(i64, i64)]) {
        match self {
            HistoryLength::Days => (12, &[(2, 30)]),
            HistoryLength::Weeks => (INTERFACES, &[(84, 300)]),
            HistoryLength::Months => (INTERFACES, &[(92, 3600), (8, 30)]),
        }
    }
}

pub fn write_history(path: &str, past: HistoryLength) {
    const TICKS_PER_SAVE: usize = 120;
    let (interfaces, parts) = past.size();
    let until = unix_now() - 60;
    let mut unix = until - parts.iter().map(|(days, _)| days * 86_400).sum::<i64>();
    let mut store = Store::open(path.as_ref(), &Options { max_bytes: 32 << 20 }).expect("a new history").store;
    let mut records: Vec<Record> =
        (1..=interfaces).map(|id| record(id, &format!("lan{id}"), InterfaceKind::Ethernet, unix, until)).collect();
    let mut random = Random(0x2545_f491);
    let (mut batch, mut seq) = (Batch::default(), 0);
    for (days, step) in parts {
        for _ in 0..days * 86_400 / step {
            unix += step;
            seq += 1;
            for iface in 1..=interfaces {
                // Large random values, which the codec cannot pack into few bytes.
                let delta = Counters::of(
                    [100_000_000, 10_000_000, 9000, 9000, 1, 1, 1, 1].map(|most| random.below(most) as u64),
                );
                batch.samples.push(Sample {
                    iface,
                    quality: SampleQuality::Plain,
                    span_ms: *step as u64 * 1000,
                    delta,
                });
            }
            batch.ticks.push(Tick { seq, mono_ms: seq * 30_000, unix: Some(unix), end: batch.samples.len() });
            if batch.ticks.len() == TICKS_PER_SAVE {
                save(&mut store, &mut batch, &mut records, &[], &[], &Zone::UTC);
            }
        }
        save(&mut store, &mut batch, &mut records, &[], &[], &Zone::UTC);
    }
}
