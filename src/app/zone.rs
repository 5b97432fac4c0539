//! Finds the time zone of the settings, or of the system where the settings name none.

use std::io::Read;
use std::path::Path;

use crate::clock::{FoundZone, Zone};
use crate::error::Result;

/// Finds the zone, and logs its warnings.
pub fn find_and_log(wanted: &str) -> Result<Zone> {
    let found = find(wanted)?;
    for warning in &found.warnings {
        log::warn!("{warning}");
    }
    Ok(found.zone)
}

/// Finds the zone and its warnings, without logging. `wanted`: a zone name or POSIX TZ string; empty for the system's
/// zone.
pub fn find(wanted: &str) -> Result<FoundZone> {
    let wanted = (!wanted.is_empty()).then_some(wanted);
    Zone::find(wanted, std::env::var("TZ").ok().as_deref(), read_file)
}

/// Reads a zone file. A zone name may be the path of any file, so only regular files are read, up to a size that no
/// zone reaches.
fn read_file(path: &Path) -> Option<Vec<u8>> {
    const MAX_BYTES: u64 = 256 * 1024;
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
