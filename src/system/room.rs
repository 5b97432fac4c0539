//! How much room there is on a disk.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Bytes of the file system that holds `path`, or will hold it: all, and those that are free for other users than root.
/// `None` where the system does not say. The types of statvfs differ from target to target.
#[allow(clippy::unnecessary_cast)]
pub fn of(path: &Path) -> Option<(u64, u64)> {
    let mut dirs = path.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let stat = dirs.find_map(|dir| statvfs(dir).ok())?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size() as u64);
    Some((bytes(stat.blocks() as u64), bytes(stat.blocks_available() as u64)))
}
