//! What keeps a file from being written: a directory or a file that is another user's. A container's volume mostly is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access, geteuid};

/// Which of the file, and what is there above it, this process may not write to, and whose it is; nothing where it is our own
/// or may be written.
pub fn to_us(file: &Path) -> Option<String> {
    let there = |path: &&Path| !path.as_os_str().is_empty() && fs::metadata(path).is_ok();
    let above = file.parent()?.ancestors().find(there);
    let mut closed = [Some(file).filter(there), above]
        .into_iter()
        .flatten()
        .filter(|path| access(*path, AccessFlags::W_OK).is_err());
    let path = closed.next()?;
    let (owner, user) = (fs::metadata(path).ok()?.uid(), geteuid().as_raw());
    (owner != user).then(|| format!("{} belongs to user {owner}, and net-pulse runs as user {user}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_our_own_is_not_told_of() {
        let directory = std::env::temp_dir();
        assert_eq!(to_us(&directory.join("not-there/net-pulse.db")), None);
        assert_eq!(to_us(Path::new("/")), None);
        assert_eq!(to_us(Path::new("net-pulse.db")), None);
    }
}
