//! A look at the database from outside, for `net-pulse check`, while a daemon may be using it: it takes no lock, writes
//! nothing and opens nothing by SQLite, which would take in the log.

use std::fs;
use std::io;
use std::path::Path;

use super::files::{beside, io_error, resolve};
use super::open::{inspect, usable};
use crate::error::Result;

/// Bytes of the file; `None` where there is none yet. Fails where a start could not use it.
pub fn examine(path: &Path) -> Result<Option<u64>> {
    let asked = std::path::absolute(path).map_err(|cause| io_error(path, cause))?;
    let path = resolve(&asked).map_err(|cause| io_error(path, cause))?;
    usable(&path)?;
    let length = match fs::metadata(&path) {
        Ok(facts) => facts.len(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(io_error(&path, cause)),
    };
    let known = fs::metadata(beside(&path, ".guard")).is_ok_and(|guard| guard.len() > 0);
    inspect(&path, known)?;
    Ok(Some(length))
}
