//! The time zone that is wanted, from wherever this system keeps it.

use std::io::Read;
use std::path::Path;

use crate::clock::{Found, Zone};
use crate::error::Result;

/// The log hears what is odd about it.
pub fn find(wanted: &str) -> Result<Zone> {
    let found = look_up(wanted)?;
    for warning in &found.warnings {
        log::warn!("{warning}");
    }
    Ok(found.zone)
}

pub fn look_up(wanted: &str) -> Result<Found> {
    let wanted = (!wanted.is_empty()).then_some(wanted);
    Zone::find(wanted, std::env::var("TZ").ok().as_deref(), file)
}

/// A time zone's name may be the path of anything: only a file is read, and of that no more than a zone can take.
fn file(path: &Path) -> Option<Vec<u8>> {
    const LONGEST: u64 = 256 * 1024;
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
