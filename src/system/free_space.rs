//! Size and free space of the file system that holds a path.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Returns (total bytes, bytes free for users other than root) from statvfs(3). Where `path` does not exist, the
/// nearest existing directory above it counts. `None` where the call fails. The casts are needed because the field
/// types of statvfs differ between targets.
#[allow(clippy::unnecessary_cast)]
pub fn total_and_free(path: &Path) -> Option<(u64, u64)> {
    let mut dirs = path.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let stat = dirs.find_map(|dir| statvfs(dir).ok())?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size() as u64);
    Some((bytes(stat.blocks() as u64), bytes(stat.blocks_available() as u64)))
}
