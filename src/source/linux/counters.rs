//! Where the kernel keeps each counter of the model: its file in sysfs and its field in netlink messages.
//!
//! Sources: `include/uapi/linux/if_link.h` (`rtnl_link_stats`, `rtnl_link_stats64`) and
//! `Documentation/ABI/testing/sysfs-class-net-statistics`.

use std::ffi::CStr;

use crate::model::COUNTERS;

/// Location of one counter.
pub struct CounterLocation {
    /// Path below the directory of a link in /sys/class/net.
    pub file: &'static CStr,
    /// Index in `rtnl_link_stats` and `rtnl_link_stats64`, whose fields have the same order.
    pub field: usize,
}

const fn location(file: &'static CStr, field: usize) -> CounterLocation {
    CounterLocation { file, field }
}

/// In the order of `model::COUNTER_NAMES`.
pub const LOCATIONS: [CounterLocation; COUNTERS] = [
    location(c"statistics/rx_bytes", 2),
    location(c"statistics/tx_bytes", 3),
    location(c"statistics/rx_packets", 0),
    location(c"statistics/tx_packets", 1),
    location(c"statistics/rx_errors", 4),
    location(c"statistics/tx_errors", 5),
    location(c"statistics/rx_dropped", 6),
    location(c"statistics/tx_dropped", 7),
];

/// Every backend adds this counter to `rx_drops`.
pub const RX_MISSED: CounterLocation = location(c"statistics/rx_missed_errors", 15);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::COUNTER_NAMES;

    /// The fields that every kernel has, in the order of `include/uapi/linux/if_link.h`.
    const KERNEL_FIELDS: [&str; 23] = [
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
    fn sysfs_and_netlink_read_the_same_counter() {
        for (location, name) in LOCATIONS.iter().zip(COUNTER_NAMES).chain([(&RX_MISSED, &"rx_missed_errors")]) {
            let field = KERNEL_FIELDS[location.field];
            assert_eq!(location.file.to_str().unwrap(), format!("statistics/{field}"));
            let model_name = name.replace("drops", "dropped");
            assert!(model_name == field || model_name == format!("rx_{field}"), "{name} is the kernel's {field}");
        }
    }
}
