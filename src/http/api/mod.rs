//! The handlers, by subject. Each takes what it needs out of `live` under the lock, lets go of it, and only then reads
//! the store or writes an answer.

pub mod backup;
pub mod collector;
pub mod config;
pub mod events;
pub mod export;
pub mod interfaces;
pub mod live;
pub mod series;
pub mod system;
pub mod traffic;

use std::time::Duration;

use super::json::{Counted, Name, Record, Time};
use super::{Context, Fault};
use crate::history::{Names, Point};
use crate::live::{Database, Iface, State};

/// How long a change may take to reach the disk before it is answered without that.
const SAVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long "now" may take before the latest known is good enough.
const READ_PATIENCE: Duration = Duration::from_secs(1);

fn record(point: &Point, names: &Names) -> Record {
    Record {
        id: point.id(),
        timestamp: Time(point.unix),
        interface_name: Name(names.name(point.sample.iface)),
        counters: Counted(point.sample.delta),
        created_at: Time(point.unix),
        others: Counted(point.sample.delta),
    }
}

fn no_interface(name: &str) -> Fault {
    Fault::new(404, format!("Interface '{name}' not found"))
}

/// By its name or an altname.
fn known<'a>(state: &'a State, name: &str) -> Result<&'a Iface, Fault> {
    state.inventory.interface(name).ok_or_else(|| match state.health.database {
        // What was there once is known only then.
        Database::Joined => no_interface(name),
        _ => not_open(),
    })
}

fn not_open() -> Fault {
    Fault::new(503, "the history is not open yet: see /api/system/health, and try again then")
}

fn link_word(iface: &Iface) -> &'static str {
    if iface.up && iface.present() { "up" } else { "down" }
}

/// Seconds as text, always with a decimal point: `1.0`.
fn seconds(ms: u32) -> String {
    crate::config::decimal(f64::from(ms) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_a_point() {
        let check = |ms, expect| assert_eq!(seconds(ms), expect);
        check(1000, "1.0");
        check(100, "0.1");
        check(1250, "1.25");
        check(300_000, "300.0");
    }
}
