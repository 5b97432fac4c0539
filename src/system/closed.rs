//! What keeps a file from being written, and what to do about it: its file system is mounted read-only, or the file or its
//! directory is another user's. A container's volume mostly is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, geteuid};

/// Why this process may not write the file, as far as the system tells, and what to do.
pub fn remedy(file: &Path) -> String {
    let user = geteuid().as_raw();
    let Some((path, errno)) = refused(file) else { return format!("let user {user} write there") };
    let (place, owner) = (path.display(), fs::metadata(path).map_or(user, |found| found.uid()));
    if errno == Errno::EROFS {
        format!("{place} lies on a file system that is mounted read-only; mount it for writing")
    } else if owner == user {
        format!("{place} belongs to user {user}, as which net-pulse runs, and may not be written; chmod u+rwX {place}")
    } else {
        format!("{place} belongs to user {owner}, and net-pulse runs as user {user}; let user {user} write there")
    }
}

/// Which of the file, and what is there above it, may not be written to.
fn refused(file: &Path) -> Option<(&Path, Errno)> {
    let there = |path: &&Path| !path.as_os_str().is_empty() && fs::metadata(path).is_ok();
    let above = file.parent().and_then(|parent| parent.ancestors().find(there));
    let places = [Some(file).filter(there), above].into_iter().flatten();
    places.filter_map(|path| Some((path, access(path, AccessFlags::W_OK).err()?))).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_written_is_not_blamed() {
        let directory = std::env::temp_dir();
        let sentence = format!("let user {} write there", geteuid());
        assert_eq!(remedy(&directory.join("not-there/net-pulse.db")), sentence);
        assert_eq!(remedy(Path::new("net-pulse.db")), sentence);
    }
}
