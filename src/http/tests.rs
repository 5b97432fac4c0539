//! What the tests of this room share.
use crate::clock::Zone;
use crate::live::{Iface, Live, Tuning};
use crate::model::{Counters, Kind};

/// Nobody samples and nobody saves.
pub fn quiet() -> Live {
    let tuning = Tuning {
        interval_s: 30,
        max_retries: 3,
        retry_delay_ms: 1000,
        interfaces: Vec::new(),
        running: true,
        flush_s: 300,
    };
    Live::new(tuning, Zone::UTC)
}

pub fn iface(name: &str, ifindex: u32) -> Iface {
    Iface {
        id: Some(ifindex),
        ifindex,
        name: name.to_string(),
        kind: Kind::Ethernet,
        mac: "02:00:00:00:00:01".to_string(),
        mtu: 1500,
        speed: Some(1000),
        up: true,
        alias: String::new(),
        addresses: Vec::new(),
        parent: None,
        monitored: true,
        ignored_because: None,
        raw: Counters::ZERO,
        rates: None,
        lifetime: Counters::ZERO,
    }
}
