//! Writes a history for the program to find at its start. It uses the program's own store, so no test depends on the
//! format on disk.

use std::time::{SystemTime, UNIX_EPOCH};

use net_pulse::clock::Zone;
use net_pulse::config::Config;
use net_pulse::live::ActiveSettings;
use net_pulse::model::{Batch, Event, InterfaceKind, NetworkStack, Record};
use net_pulse::store::{SaveRequest, Store};

/// The time now, in UTC seconds.
pub fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() as i64
}

/// A record of another boot, so the program does not compare its counters with those of a present link.
pub fn record(id: u32, name: &str, kind: InterfaceKind, first_seen: i64, last_seen: i64) -> Record {
    Record {
        id,
        name: name.to_string(),
        kind,
        ifindex: 1000 + id,
        stack: NetworkStack { boot: "another".to_string(), ..NetworkStack::default() },
        first_seen,
        last_seen,
        ..Record::default()
    }
}

/// Saves everything in one transaction, then empties the batch and the records.
pub fn save(
    store: &mut Store,
    batch: &mut Batch,
    records: &mut Vec<Record>,
    events: &[Event],
    settings: &[(String, Option<String>)],
    zone: &Zone,
) {
    let retention = ActiveSettings::of(&Config::default()).retention;
    let request = SaveRequest { batch, anchors: &[], records, events, settings, retention, zone };
    store.save(&request).expect("space on the disk");
    batch.clear();
    records.clear();
}

/// A random number generator (xorshift) with its state; the seed must not be 0.
pub struct Random(pub u32);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound
    }
}
