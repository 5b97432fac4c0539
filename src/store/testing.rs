//! Helpers that the tests of `store` and `history` share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Opened, Options, Reader, SaveRequest, Store};
use crate::clock::Zone;
use crate::error::Result;
use crate::history::{Snapshot, UnsavedBatches};
use crate::model::{Batch, Counters, IfaceId, InterfaceKind, NetworkStack, Record, Sample, SampleQuality, Tick};
use crate::resolution::{Resolution, Retention};

/// Midnight in UTC, 15 January 2026.
pub const T: i64 = 1_768_435_200;
pub const RETENTION: Retention =
    Retention::FOREVER.with(Resolution::Sample, 7).with(Resolution::FiveMinutes, 90).with(Resolution::Hour, 1_826);
pub const OPTIONS: Options = Options { max_bytes: 32 << 20 };

/// Reproducible random numbers (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit.max(1)
    }

    /// Numbers of at most 40 bits; each magnitude is equally frequent, so most are small.
    pub fn small(&mut self) -> u64 {
        let bits = self.below(40);
        self.next() >> (63 - bits)
    }
}

/// A directory that is removed at the end of its test.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("net-pulse-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("net-pulse.db")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Opened {
    /// Saves ticks and nothing else.
    pub fn save_batch(&mut self, batch: &Batch) -> Result<()> {
        self.store.save_batch(batch)
    }
}

impl Store {
    pub fn save_batch(&mut self, batch: &Batch) -> Result<()> {
        self.save_batch_with(batch, RETENTION)
    }

    pub fn save_batch_with(&mut self, batch: &Batch, retention: Retention) -> Result<()> {
        let request =
            SaveRequest { batch, anchors: &[], records: &[], events: &[], settings: &[], retention, zone: &Zone::UTC };
        self.save(&request)
    }
}

impl Reader {
    /// The stored history alone.
    pub fn stored_snapshot(&self) -> Snapshot<'_> {
        self.snapshot(&Zone::UTC, &[])
    }

    pub fn snapshot<'a>(&'a self, zone: &'a Zone, unsaved: &'a UnsavedBatches) -> Snapshot<'a> {
        Snapshot::of(self, zone, unsaved).unwrap()
    }
}

impl Batch {
    /// Adds a tick with samples as (interface, received bytes), each over `span_ms`.
    pub fn push_tick(&mut self, seq: u64, unix: i64, span_ms: u64, samples: &[(IfaceId, u64)]) {
        self.samples.extend(samples.iter().map(|(iface, rx)| Sample {
            iface: *iface,
            quality: SampleQuality::Plain,
            span_ms,
            delta: Counters::of([*rx, 0, 0, 0, 0, 0, 0, 0]),
        }));
        let mono_ms = (unix - T + 1_000_000) as u64 * 1000;
        self.ticks.push(Tick { seq, mono_ms, unix: Some(unix), end: self.samples.len() });
    }

    /// `count` ticks of 30 s, the first at `unix`. In each one interface 1 receives 300 bytes.
    pub fn steady(seq: u64, unix: i64, count: u64) -> Batch {
        let mut batch = Batch::default();
        (0..count).for_each(|at| batch.push_tick(seq + at, unix + 30 * at as i64, 30_000, &[(1, 300)]));
        batch
    }
}

pub fn record(id: IfaceId) -> Record {
    Record {
        id,
        name: format!("eth{id}"),
        kind: InterfaceKind::Ethernet,
        alias: String::new(),
        ifindex: id + 1,
        stack: NetworkStack { machine: "6d6163".into(), boot: "b0075".into(), namespace: 7 },
        mac: "02:00:00:00:00:01".into(),
        inode: 1 << 40,
        first_seen: T,
        last_seen: T,
        raw: Counters::ZERO,
        lifetime: Counters::ZERO,
        mono_ms: 0,
    }
}

pub const LOAD_IFACES: u32 = 24;

/// The load of a router: 24 interfaces, a tick every 30 s. 2 interfaces carry 1 MB/s with noise in each direction, 4
/// carry 20 KB/s, 6 carry 200 B/s now and then, and 12 are idle.
pub struct Load {
    random: Random,
    seq: u64,
    unix: i64,
    mono_ms: u64,
}

impl Load {
    pub fn new() -> Load {
        Load { random: Random(42), seq: 0, unix: T, mono_ms: 0 }
    }

    pub fn records() -> Vec<Record> {
        (1..=LOAD_IFACES).map(record).collect()
    }

    /// The next `count` ticks.
    pub fn batch(&mut self, count: usize) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..count {
            self.seq += 1;
            self.unix += 30;
            let before = self.mono_ms;
            self.mono_ms = self.seq * 30_000 + self.random.below(3);
            let (mono_ms, span_ms) = (self.mono_ms, self.mono_ms - before);
            for iface in 1..=LOAD_IFACES {
                let delta = self.delta(iface);
                batch.samples.push(Sample { iface, quality: SampleQuality::Plain, span_ms, delta });
            }
            batch.ticks.push(Tick { seq: self.seq, mono_ms, unix: Some(self.unix), end: batch.samples.len() });
        }
        batch
    }

    fn delta(&mut self, iface: IfaceId) -> Counters {
        let rate = match iface {
            1..=2 => 1_000_000,
            3..=6 => 20_000,
            7..=12 if self.random.below(4) == 0 => 200,
            _ => return Counters::ZERO,
        };
        let mut noisy = || 30 * rate * (70 + self.random.below(60)) / 100 + self.random.below(rate);
        let (rx, tx) = (noisy(), noisy());
        let rx_packets = rx / (600 + self.random.below(600)) + 1;
        Counters::of([
            rx,
            tx,
            rx_packets,
            tx / (100 + self.random.below(400)) + 1,
            0,
            0,
            u64::from(self.random.below(500) == 0),
            0,
        ])
    }
}
