//! Calls to the operating system that several modules need, one file for each topic.

pub mod errno;
pub mod free_space;
pub mod lock;
pub mod not_writable;
pub mod peer;
pub mod socket;

use std::path::{Path, PathBuf};

/// Appends `suffix` to the file name: `net-pulse.db` with `-wal` gives `net-pulse.db-wal`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
