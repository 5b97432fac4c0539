//! Examines the database from outside, for `net-pulse check`, while a daemon may be using it. Takes no lock and writes
//! nothing. Does not open the file with SQLite, which would checkpoint the log.

use std::fs;
use std::io;
use std::path::Path;

use super::files::{io_error, resolve, with_suffix};
use super::open::{check_header, check_usable};
use crate::error::Result;

/// Size of the file in bytes; `None` when there is no file yet. Fails if the header shows that a start would refuse the
/// file, or set it aside as damaged.
pub fn examine(path: &Path) -> Result<Option<u64>> {
    let requested_path = std::path::absolute(path).map_err(|cause| io_error(path, cause))?;
    let path = resolve(&requested_path).map_err(|cause| io_error(path, cause))?;
    check_usable(&path)?;
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(io_error(&path, cause)),
    };
    let had_database = fs::metadata(with_suffix(&path, ".guard")).is_ok_and(|guard| guard.len() > 0);
    check_header(&path, had_database)?;
    Ok(Some(length))
}
