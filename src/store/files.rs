//! Files beside the database: their names, their modes, and what their errors mean.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
pub(super) use crate::system::beside;

/// As many as the kernel follows.
const LONGEST_CHAIN: usize = 40;

/// A name beside it that says why and when, and that nothing has yet.
pub(super) fn unused(path: &Path, why: &str) -> PathBuf {
    let mut unix = SystemClock.now().unix_ms.div_euclid(1000);
    loop {
        let name = beside(path, &format!(".{why}-{unix}"));
        if fs::symlink_metadata(&name).is_err() {
            return name;
        }
        unix += 1;
    }
}

pub(super) fn io_error(path: &Path, cause: io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::Full,
        _ => ErrorKind::System,
    };
    Error::caused(kind, cause).context(path.display())
}

/// Opened files are for their owner only.
pub(super) fn private(options: &mut OpenOptions) -> &OpenOptions {
    options.mode(0o600)
}

/// Where a file is or will be: the way there without any link, also where a link leads to what is not there yet.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LONGEST_CHAIN {
        match fs::canonicalize(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path) };
        match fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) => return Ok(resolve(parent)?.join(name)),
        }
    }
    Err(io::Error::other("too many symbolic links, one leading to another"))
}

type Sort = (fn(&FileType) -> bool, &'static str);

const SORTS: [Sort; 6] = [
    (FileType::is_dir, "a directory"),
    (FileType::is_symlink, "a symbolic link"),
    (FileType::is_fifo, "a FIFO"),
    (FileType::is_socket, "a socket"),
    (FileType::is_block_device, "a device"),
    (FileType::is_char_device, "a device"),
];

/// What something is that is no file.
pub(super) fn sort(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    SORTS.iter().find(|(is, _)| is(&kind)).map(|(_, name)| *name)
}

/// Under names of our own there are files of our own: whatever else is there is left alone, links too.
pub(super) fn no_other(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path).ok().as_ref().and_then(sort) {
        Some(what) => Err(in_the_way(path, what)),
        None => Ok(()),
    }
}

pub(super) fn in_the_way(path: &Path, what: &str) -> Error {
    let sentence = format!("{} is {what}, where net-pulse has a file of its own; remove it", path.display());
    Error::new(ErrorKind::Foreign, sentence)
}

/// Entries of a directory are as durable as what it was synced with.
pub(super) fn sync_directory(of: &Path) {
    if let Some(Ok(directory)) = of.parent().map(File::open) {
        let _ = directory.sync_all();
    }
}

/// What a file is known by, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode(u64, u64);

impl Inode {
    pub fn of(found: &Metadata) -> Inode {
        Inode(found.dev(), found.ino())
    }

    /// `None` where nothing is there, or nothing that can be looked at.
    pub fn at(path: &Path) -> Option<Inode> {
        fs::metadata(path).ok().as_ref().map(Inode::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Place;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_to_what_is_not_there_yet() {
        let place = Place::new();
        let at = fs::canonicalize(place.path()).unwrap();
        let check = |name: &str, expect: &str| assert_eq!(resolve(&at.join(name)).unwrap(), at.join(expect), "{name}");
        check("new.db", "new.db");
        check("deep/er/new.db", "deep/er/new.db");
        symlink("target/far.db", at.join("relative.db")).unwrap();
        symlink(at.join("relative.db"), at.join("absolute.db")).unwrap();
        symlink("elsewhere", at.join("directory")).unwrap();
        check("relative.db", "target/far.db");
        check("absolute.db", "target/far.db");
        check("directory/new.db", "elsewhere/new.db");
        fs::create_dir(at.join("target")).unwrap();
        fs::write(at.join("target/far.db"), "").unwrap();
        check("absolute.db", "target/far.db");
        symlink("one.db", at.join("other.db")).unwrap();
        symlink("other.db", at.join("one.db")).unwrap();
        assert!(resolve(&at.join("one.db")).is_err());
        assert!(resolve(&at.join("one.db/below.db")).is_err());
    }

    #[test]
    fn what_is_no_file_has_a_name() {
        let place = Place::new();
        let at = place.path().join("there");
        assert!(no_other(&at).is_ok());
        fs::create_dir(&at).unwrap();
        assert!(no_other(&at).unwrap_err().to_string().contains("is a directory"));
        fs::remove_dir(&at).unwrap();
        symlink("nowhere", &at).unwrap();
        assert!(no_other(&at).unwrap_err().to_string().contains("is a symbolic link"));
        fs::remove_file(&at).unwrap();
        fs::write(&at, "").unwrap();
        assert!(no_other(&at).is_ok());
        assert!(no_other(Path::new("/dev/null")).unwrap_err().to_string().contains("is a device"));
    }
}
