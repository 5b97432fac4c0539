//! The guard file: `.guard` beside the database. Its lock keeps other processes out. Its content outlives the
//! database: it records that the database is ours, whatever its header looks like later, and the ids that the database
//! may have. When a user puts a copy in place of the database, the ids differ, and `open` sets aside the log (`-wal`,
//! `-journal`) that belongs to the earlier file. `open` renews the id at each start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::files::{Inode, file_type_name, io_error, name_taken_error, private, refuse_other_types, with_suffix};
use crate::error::{Error, ErrorKind, Result};
use crate::system::lock::{FileLock, LockError, OPEN_NO_FOLLOW};

/// How long another process may take to release the database.
pub(super) const HANDOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// First line of the file. Older versions write only this line, and check only that the file is not empty.
const SIGNATURE: &str = "net-pulse";
/// More than the file ever has.
const MAX_READ_BYTES: usize = 256;

/// Identity of a database file. Each opening gives the file a new one, and each copy that net-pulse makes gets its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId([u8; 16]);

impl FileId {
    /// The id of a file without one: a new file, or a file that only versions without ids have opened.
    pub const NONE: FileId = FileId([b'0'; 16]);

    /// `text`: 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<FileId> {
        let digits = text.as_bytes().try_into().ok()?;
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(FileId(digits))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Keeps other processes away from the database while this process has any part of it open.
pub(super) struct GuardFile {
    /// `Err`: the file without a lock, because locking failed (some file systems have no locks).
    file: std::result::Result<FileLock, File>,
    /// Path of the database.
    database_path: PathBuf,
    guard_path: PathBuf,
    content: Mutex<GuardContent>,
}

/// Content of the guard file.
#[derive(Clone, Copy)]
struct GuardContent {
    /// A database of ours was here before, whatever the file looks like now.
    had_database: bool,
    /// The database has one of these ids; `None` when they are unknown.
    ids: Option<[FileId; 2]>,
}

impl GuardFile {
    pub fn take(path: &Path) -> Result<GuardFile> {
        // Not ".lock": SQLite's unix-dotfile creates a directory of that name as its lock.
        let guard_path = with_suffix(path, ".guard");
        let file = match lock_with_timeout(open(&guard_path)?) {
            Ok(lock) => Ok(lock),
            Err((_, LockError::Taken)) => return Err(in_use_error(path)),
            Err((file, refusal)) => {
                let cause = refusal.into_io_error();
                log::warn!("cannot lock {}: {cause}; a second net-pulse would not be noticed", guard_path.display());
                Err(file)
            }
        };
        let content = Mutex::new(GuardContent { had_database: false, ids: None });
        let guard = GuardFile { file, database_path: path.to_path_buf(), guard_path, content };
        let bytes = guard.read();
        *guard.lock_content() = GuardContent { had_database: !bytes.is_empty(), ids: ids_in(&bytes) };
        Ok(guard)
    }

    /// Path of the database, whether the file is still there or not.
    pub fn database_path(&self) -> &Path {
        &self.database_path
    }

    /// Whether the guard file is still at its path. It may have been removed, alone or with its directory.
    pub fn is_still_linked(&self) -> bool {
        self.file().metadata().is_ok_and(|found| Inode::at(&self.guard_path) == Some(Inode::of(&found)))
    }

    pub fn had_database(&self) -> bool {
        self.lock_content().had_database
    }

    /// The database has one of these ids, unless another file was put in its place. `None` when the ids are unknown.
    pub fn ids(&self) -> Option<[FileId; 2]> {
        self.lock_content().ids
    }

    /// Writes the ids of the database, and syncs the file if `synced`. Returns `false` on failure: then the file has
    /// its old content, the new one, or content that cannot be read.
    pub fn write_ids(&self, ids: &[FileId; 2], synced: bool) -> bool {
        let written =
            self.write(&format_content(ids)).and_then(|()| if synced { self.file().sync_data() } else { Ok(()) });
        if let Err(cause) = &written {
            log::debug!("{}: {cause}", self.guard_path.display());
        }
        self.lock_content().ids = Some(*ids).filter(|_| written.is_ok());
        written.is_ok()
    }

    /// Records that the database is ours. If its header is damaged later, the database is not mistaken for a foreign
    /// file.
    pub fn mark_as_ours(&self) {
        let GuardContent { had_database, ids } = *self.lock_content();
        if !had_database {
            // A failure has no effect until the header is damaged.
            let recorded = ids.is_some() || self.write(&format!("{SIGNATURE}\n")).is_ok();
            self.lock_content().had_database = recorded;
        }
    }

    /// Removes the guard file unless a database of ours was here: leaves nothing beside a foreign file.
    pub fn remove_if_new(self) {
        if !self.had_database() {
            let _ = fs::remove_file(&self.guard_path);
        }
    }

    /// Recovers the mutex after a panic: each change is one assignment, so nothing is half done.
    fn lock_content(&self) -> MutexGuard<'_, GuardContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> &File {
        self.file.as_ref().map_or_else(|file| file, FileLock::file)
    }

    /// Unreadable content counts as empty.
    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; MAX_READ_BYTES];
        let length = self.file().read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(length);
        bytes
    }

    fn write(&self, text: &str) -> io::Result<()> {
        self.file().write_all_at(text.as_bytes(), 0)
    }
}

/// The content always has the same length. It contains the ids twice, so that `ids_in` detects a write that a power cut
/// has torn.
fn format_content(ids: &[FileId; 2]) -> String {
    let line = format!("{} {}\n", ids[0].text(), ids[1].text());
    format!("{SIGNATURE}\n{line}{line}")
}

fn ids_in(bytes: &[u8]) -> Option<[FileId; 2]> {
    let mut lines = std::str::from_utf8(bytes).ok()?.split_inclusive('\n').map(|line| line.strip_suffix('\n'));
    let (signature, line, again) = (lines.next()??, lines.next()??, lines.next()??);
    if signature != SIGNATURE || line != again {
        return None;
    }
    let (one, other) = line.split_once(' ')?;
    Some([FileId::parse(one)?, FileId::parse(other)?])
}

/// Refuses links and special files: where other users may write to the directory, a link of that name could lead to
/// any file, and a FIFO stores nothing.
fn open(guard_path: &Path) -> Result<File> {
    refuse_other_types(guard_path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(OPEN_NO_FOLLOW);
    let file = private(&mut options).open(guard_path).map_err(|cause| io_error(guard_path, cause))?;
    let found = file.metadata().map_err(|cause| io_error(guard_path, cause))?;
    match file_type_name(&found) {
        Some(what) => Err(name_taken_error(guard_path, what)),
        // Writing to a hard link would change a file of another name.
        None if found.nlink() > 1 => {
            Err(name_taken_error(guard_path, "a file that has another name too (a hard link)"))
        }
        None => Ok(file),
    }
}

/// Waits up to `HANDOVER_TIMEOUT`: when a supervisor starts the next process, the previous one may still be saving.
fn lock_with_timeout(file: File) -> std::result::Result<FileLock, (File, LockError)> {
    retry_while_taken(file, FileLock::take)
}

pub(super) fn retry_while_taken<T>(
    mut file: File,
    take: impl Fn(File) -> std::result::Result<T, (File, LockError)>,
) -> std::result::Result<T, (File, LockError)> {
    let deadline = Instant::now() + HANDOVER_TIMEOUT;
    loop {
        match take(file) {
            Err((unlocked, LockError::Taken)) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
                file = unlocked;
            }
            outcome => return outcome,
        }
    }
}

pub(super) fn in_use_error(path: &Path) -> Error {
    let sentence = format!("another net-pulse uses {}; stop it, or name another file with --database", path.display());
    Error::new(ErrorKind::Taken, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl GuardFile {
        /// Like the guard file on a full or read-only disk.
        pub fn unwritable(path: &Path) -> GuardFile {
            let guard_path = with_suffix(path, ".guard");
            let file = Err(File::open(&guard_path).unwrap());
            GuardFile {
                file,
                database_path: path.to_path_buf(),
                guard_path,
                content: Mutex::new(GuardContent { had_database: true, ids: None }),
            }
        }
    }

    #[test]
    fn only_complete_content_is_read_back() {
        let ids = ["0123456789ABCDEF", "FEDCBA9876543210"].map(|text| FileId::parse(text).unwrap());
        let (old, new) = (format_content(&[FileId::NONE, ids[0]]), format_content(&ids));
        assert_eq!(ids_in(new.as_bytes()), Some(ids));
        assert_eq!((old.len(), ids_in(format!("{new}more").as_bytes())), (new.len(), Some(ids)));
        for other in ["", "net-pulse\n", "net-pulse", "something else\n", &new[..new.len() - 1], &new[1..]] {
            assert_eq!(ids_in(other.as_bytes()), None, "{other:?}");
        }
        // New content over the old, up to some byte.
        for cut in 0..new.len() {
            for before in [&old, "net-pulse\n", ""] {
                let torn = format!("{}{}", &new[..cut], before.get(cut..).unwrap_or_default());
                let read = ids_in(torn.as_bytes());
                assert!(read.is_none() || torn == *before || torn == new, "{cut}: {torn:?}");
            }
        }
        assert_eq!(FileId::parse("0123456789ABCDE"), None);
        assert_eq!(FileId::parse("0123456789ABCDEG"), None);
    }
}
