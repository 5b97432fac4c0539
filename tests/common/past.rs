//! A history for the program to find at its start. Written by the program's own store: what it looks like on disk is that
//! one's affair.

use std::time::{SystemTime, UNIX_EPOCH};

use net_pulse::clock::Zone;
use net_pulse::config::Config;
use net_pulse::live::Tuning;
use net_pulse::model::{Batch, Counters, Kind, Mark, Record, Sample, Tick};
use net_pulse::store::{Flush, Options, Store};

#[derive(Clone, Copy)]
pub enum Past {
    /// Two days of twelve interfaces: enough to export.
    Days,
    /// Twelve weeks of two dozen: a chart of it takes a while.
    Weeks,
}

impl Past {
    /// Interfaces, days, seconds between two samples.
    fn size(self) -> (u32, u64, u64) {
        match self {
            Past::Days => (12, 2, 30),
            Past::Weeks => (24, 84, 300),
        }
    }
}

pub fn unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() as i64
}

pub fn fill(path: &str, past: Past) {
    const FLUSH: u64 = 120;
    let (interfaces, days, step) = past.size();
    let until = unix() - 60;
    let mut store = Store::open(path.as_ref(), &Options { max_bytes: 32 << 20 }).expect("a new history").store;
    let records: Vec<Record> = (1..=interfaces)
        .map(|id| Record {
            id,
            name: format!("lan{id}"),
            kind: Kind::Ethernet,
            alias: String::new(),
            ifindex: 1000 + id,
            boot: "another".to_string(),
            first_seen: until - days as i64 * 86_400,
            last_seen: until,
            raw: Counters::ZERO,
            lifetime: Counters::ZERO,
            mono_ms: 0,
        })
        .collect();
    let mut random = Random(0x2545_f491);
    let ticks = days * 86_400 / step;
    for window in 0..ticks / FLUSH {
        let mut batch = Batch::default();
        for at in 0..FLUSH {
            let seq = window * FLUSH + at + 1;
            for iface in 1..=interfaces {
                let delta =
                    Counters([100_000_000, 10_000_000, 9000, 9000, 1, 1, 1, 1].map(|most| random.below(most) as u64));
                batch.samples.push(Sample { iface, mark: Mark::Plain, span_ms: step * 1000, delta });
            }
            let unix = Some(until - ((ticks - seq) * step) as i64);
            batch.ticks.push(Tick { seq, mono_ms: seq * step * 1000, unix, end: batch.samples.len() });
        }
        let records = if window == 0 { &records[..] } else { &[] };
        let flush = Flush {
            batch: &batch,
            anchors: &[],
            records,
            events: &[],
            settings: &[],
            keep: Tuning::of(&Config::default()).keep,
            zone: &Zone::UTC,
        };
        store.flush(&flush).expect("room on the disk");
    }
}

pub struct Random(pub u32);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound
    }
}
