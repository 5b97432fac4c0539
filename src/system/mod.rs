//! What several modules need of the operating system, in one place for each thing.

pub mod closed;
pub mod errno;
pub mod lock;
pub mod peer;
pub mod room;
pub mod socket;

use std::path::{Path, PathBuf};

/// A file's neighbour, with a longer name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
