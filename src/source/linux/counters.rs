//! Where the kernel has the counters of the model.

use std::ffi::CStr;

use crate::model::COUNTERS;

/// A counter's file below a link in /sys/class/net, and its place in `rtnl_link_stats` and `rtnl_link_stats64`.
pub struct Place {
    pub file: &'static CStr,
    pub field: usize,
}

const fn place(file: &'static CStr, field: usize) -> Place {
    Place { file, field }
}

/// In the order of the model.
pub const PLACES: [Place; COUNTERS] = [
    place(c"statistics/rx_bytes", 2),
    place(c"statistics/tx_bytes", 3),
    place(c"statistics/rx_packets", 0),
    place(c"statistics/tx_packets", 1),
    place(c"statistics/rx_errors", 4),
    place(c"statistics/tx_errors", 5),
    place(c"statistics/rx_dropped", 6),
    place(c"statistics/tx_dropped", 7),
];

/// Added to `rx_drops`.
pub const RX_MISSED: Place = place(c"statistics/rx_missed_errors", 15);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::COUNTER_NAMES;

    /// The fields that every kernel has, as `linux/if_link.h` orders them.
    const FIELDS: [&str; 23] = [
        "rx_packets",
        "tx_packets",
        "rx_bytes",
        "tx_bytes",
        "rx_errors",
        "tx_errors",
        "rx_dropped",
        "tx_dropped",
        "multicast",
        "collisions",
        "rx_length_errors",
        "rx_over_errors",
        "rx_crc_errors",
        "rx_frame_errors",
        "rx_fifo_errors",
        "rx_missed_errors",
        "tx_aborted_errors",
        "tx_carrier_errors",
        "tx_fifo_errors",
        "tx_heartbeat_errors",
        "tx_window_errors",
        "rx_compressed",
        "tx_compressed",
    ];

    #[test]
    fn both_sources_read_the_same_counter() {
        for (place, name) in PLACES.iter().zip(COUNTER_NAMES).chain([(&RX_MISSED, &"rx_missed_errors")]) {
            let field = FIELDS[place.field];
            assert_eq!(place.file.to_str().unwrap(), format!("statistics/{field}"));
            let told = name.replace("drops", "dropped");
            assert!(told == field || told == format!("rx_{field}"), "{name} is the kernel's {field}");
        }
    }
}
