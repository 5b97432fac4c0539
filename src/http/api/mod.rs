//! Request handlers, by subject. A handler holds the lock of `live` only while it copies what it needs, never while it
//! reads the database or writes the answer.

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

use super::json::{FlatCounters, Name, Record, Time};
use super::{Context, HttpError};
use crate::history::{DatedSample, InterfaceNames};
use crate::live::{Database, Iface, State};

/// How long to wait for a change to be on disk. After that the answer says that it is not saved yet.
const SAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for a new reading. After that the latest known figures are used.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

fn record(point: &DatedSample, names: &InterfaceNames) -> Record {
    Record {
        id: point.id(),
        timestamp: Time(point.unix),
        interface_name: Name(names.name(point.sample.iface)),
        counters: FlatCounters(point.sample.delta),
        created_at: Time(point.unix),
        others: FlatCounters(point.sample.delta),
    }
}

fn interface_not_found(name: &str) -> HttpError {
    HttpError::new(404, format!("Interface '{name}' not found"))
}

/// Finds an interface by its name or an altname.
fn find_interface<'a>(state: &'a State, name: &str) -> Result<&'a Iface, HttpError> {
    state.inventory.interface(name).ok_or_else(|| match state.health.database {
        // Absent interfaces are unknown before the rejoin.
        Database::Rejoined => interface_not_found(name),
        _ => history_not_open(),
    })
}

fn history_not_open() -> HttpError {
    HttpError::new(503, "the database is not open yet: see /api/system/health, and try again later")
}

fn link_state(iface: &Iface) -> &'static str {
    if iface.up && iface.present() { "up" } else { "down" }
}

/// Seconds as text, always with a decimal point: `1.0`.
fn seconds(ms: u32) -> String {
    crate::config::format_decimal(f64::from(ms) / 1000.0)
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
