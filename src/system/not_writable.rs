//! Explains why net-pulse may not write a file, and what to do: the file system is mounted read-only, or the file or
//! its directory belongs to another user, which is common for the volume of a container.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, geteuid};

/// Message for the user: why this process may not write the file, as far as access(2) tells, and what to do.
pub fn remedy(file: &Path) -> String {
    let user = geteuid().as_raw();
    let Some((path, errno)) = first_not_writable(file) else { return format!("let user {user} write there") };
    let (place, owner) = (path.display(), fs::metadata(path).map_or(user, |metadata| metadata.uid()));
    if errno == Errno::EROFS {
        format!("{place} lies on a file system that is mounted read-only; mount it read-write")
    } else if owner == user {
        format!(
            "{place} belongs to user {user}, as which this program runs, but is not writable; run chmod u+rwX {place}"
        )
    } else {
        format!("{place} belongs to user {owner}, and this program runs as user {user}; let user {user} write there")
    }
}

/// The file if it is not writable, else the nearest existing directory above it if that is not writable.
fn first_not_writable(file: &Path) -> Option<(&Path, Errno)> {
    let exists = |path: &&Path| !path.as_os_str().is_empty() && fs::metadata(path).is_ok();
    let directory = file.parent().and_then(|parent| parent.ancestors().find(exists));
    let paths = [Some(file).filter(exists), directory].into_iter().flatten();
    paths.filter_map(|path| Some((path, access(path, AccessFlags::W_OK).err()?))).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_for_a_writable_path_names_no_cause() {
        let directory = std::env::temp_dir();
        let sentence = format!("let user {} write there", geteuid());
        assert_eq!(remedy(&directory.join("not-there/net-pulse.db")), sentence);
        assert_eq!(remedy(Path::new("net-pulse.db")), sentence);
    }
}
