//! Files at and beside the path of the database: names, modes, types, and the kinds of their errors.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
pub(super) use crate::system::with_suffix;

/// The kernel too follows at most 40 symbolic links in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A free name beside `path`, made of the reason and the time in UTC seconds.
pub(super) fn unused_name(path: &Path, why: &str) -> PathBuf {
    let mut unix = SystemClock.now().unix_ms.div_euclid(1000);
    loop {
        let name = with_suffix(path, &format!(".{why}-{unix}"));
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

/// Only the owner may read and write the file.
pub(super) fn private(options: &mut OpenOptions) -> &OpenOptions {
    options.mode(0o600)
}

/// Resolves all symbolic links in a path, also when the file or the target of a link does not exist yet.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
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
    Err(io::Error::other("too many symbolic links in one path"))
}

type NamedType = (fn(&FileType) -> bool, &'static str);

const NAMED_TYPES: [NamedType; 6] = [
    (FileType::is_dir, "a directory"),
    (FileType::is_symlink, "a symbolic link"),
    (FileType::is_fifo, "a FIFO"),
    (FileType::is_socket, "a socket"),
    (FileType::is_block_device, "a device"),
    (FileType::is_char_device, "a device"),
];

/// The type of a file in words; `None` for a regular file.
pub(super) fn file_type_name(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    NAMED_TYPES.iter().find(|(is, _)| is(&kind)).map(|(_, name)| *name)
}

/// Fails when anything but a regular file has this name, for example a symbolic link. For names of our own files; does
/// not touch what it finds.
pub(super) fn refuse_other_types(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path).ok().as_ref().and_then(file_type_name) {
        Some(what) => Err(name_taken_error(path, what)),
        None => Ok(()),
    }
}

pub(super) fn name_taken_error(path: &Path, what: &str) -> Error {
    let sentence =
        format!("{} is {what}, and net-pulse needs the name for a file of its own; remove it", path.display());
    Error::new(ErrorKind::Foreign, sentence)
}

/// Syncs the directory of the file `of`, so that a new or changed name survives a power cut. Ignores errors: some file
/// systems cannot sync a directory.
pub(super) fn sync_directory(of: &Path) {
    if let Some(Ok(directory)) = of.parent().map(File::open) {
        let _ = directory.sync_all();
    }
}

/// Identity of a file, whatever its name is: device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode(u64, u64);

impl Inode {
    pub fn of(found: &Metadata) -> Inode {
        Inode(found.dev(), found.ino())
    }

    /// `None` when there is no file, or none that can be examined.
    pub fn at(path: &Path) -> Option<Inode> {
        fs::metadata(path).ok().as_ref().map(Inode::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::TempDir;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_to_missing_files_are_resolved() {
        let dir = TempDir::new();
        let at = fs::canonicalize(dir.path()).unwrap();
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
    fn anything_but_a_regular_file_is_refused_by_type() {
        let dir = TempDir::new();
        let at = dir.path().join("there");
        assert!(refuse_other_types(&at).is_ok());
        fs::create_dir(&at).unwrap();
        assert!(refuse_other_types(&at).unwrap_err().to_string().contains("is a directory"));
        fs::remove_dir(&at).unwrap();
        symlink("nowhere", &at).unwrap();
        assert!(refuse_other_types(&at).unwrap_err().to_string().contains("is a symbolic link"));
        fs::remove_file(&at).unwrap();
        fs::write(&at, "").unwrap();
        assert!(refuse_other_types(&at).is_ok());
        assert!(refuse_other_types(Path::new("/dev/null")).unwrap_err().to_string().contains("is a device"));
    }
}
