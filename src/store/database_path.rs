//! The open database file, and whether its path still leads to it. An open file still works after it was removed,
//! renamed or replaced: every save succeeds, and the next start finds nothing.
//!
//! SQLite opens files by name. So this module makes no further connection while the path leads elsewhere: that would
//! open another file, and SQLite would apply the log that it finds beside it.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind::{NotADirectory, NotFound, UnexpectedEof};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::connection::{BUSY_TIMEOUT, connection};
use super::files::{Inode, io_error, with_suffix};
use super::guard_file::{GuardFile, in_use_error, retry_while_taken};
use crate::error::{Error, ErrorKind, Result};
use crate::system::lock::{ByteLock, FileLock, LockError, has_byte_locks};

/// State of the path of a database that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathStatus {
    InPlace,
    /// No file is at the path: it was removed or renamed, or its directory was.
    Missing,
    /// Another file is at the path.
    Replaced,
    /// The file is there, but its log is not: a crash would lose the latest saves.
    WithoutLog,
}

/// Our own descriptor of the database file, besides SQLite's; locked where possible. The lock also keeps out a second
/// net-pulse that opens the file by another name (a hard link), and so finds another guard file. The lock may be taken
/// before or after SQLite opens the file, and is released last.
pub(super) enum HeldFile {
    ByteLocked(ByteLock),
    Locked(FileLock),
    /// Protected by the guard file only.
    Unlocked(File),
}

impl HeldFile {
    /// `None` when the file cannot be opened; SQLite reports the reason.
    pub fn take(path: &Path) -> Result<Option<HeldFile>> {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(None) };
        let refusal = match retry_while_taken(file, ByteLock::take) {
            Ok(lock) => return Ok(Some(HeldFile::ByteLocked(lock))),
            // This system lacks the lock (Linux before 3.15, or not Linux) but has the locks that SQLite uses: flock(2)
            // could conflict with those.
            Err((file, LockError::Failed(_))) if has_byte_locks(&file) => return Ok(Some(HeldFile::Unlocked(file))),
            // This file system has no fcntl locks, so SQLite uses none on it that could conflict with flock(2).
            Err((file, LockError::Failed(_))) => match retry_while_taken(file, FileLock::take) {
                Ok(lock) => return Ok(Some(HeldFile::Locked(lock))),
                Err((file, LockError::Failed(_))) => return Ok(Some(HeldFile::Unlocked(file))),
                Err((_, refusal)) => refusal,
            },
            Err((_, refusal)) => refusal,
        };
        match refusal {
            LockError::Taken => Err(in_use_error(path)),
            _ => Err(Error::new(ErrorKind::Busy, format!("another program has locked {}", path.display()))),
        }
    }

    fn file(&self) -> &File {
        match self {
            HeldFile::ByteLocked(lock) => lock.file(),
            HeldFile::Locked(lock) => lock.file(),
            HeldFile::Unlocked(file) => file,
        }
    }
}

/// Length and header of the file. The header has SQLite's change counter (<https://www.sqlite.org/fileformat2.html>).
#[derive(PartialEq, Eq)]
struct Fingerprint {
    length: u64,
    header: [u8; 100],
}

/// The open database, shared by all its users. Each of them drops it after its connection.
pub(super) struct DatabaseFile {
    pub path: PathBuf,
    /// SQLite's name for its interface to the file system (<https://www.sqlite.org/vfs.html>); `None` for the default.
    pub vfs: Option<&'static str>,
    inode: Inode,
    /// Inode of the write-ahead log; `None` without one.
    log: Option<Inode>,
    /// The open file and its path had the same inode at the opening. On some file systems they differ, and then inodes
    /// prove nothing.
    inode_is_stable: bool,
    held: HeldFile,
    /// Recorded after our latest write; `None` where it could not be read, or without a write-ahead log.
    fingerprint: Mutex<Option<Fingerprint>>,
    /// Another program has written into the file: it is not ours any more.
    overwritten: AtomicBool,
    pub guard: Arc<GuardFile>,
}

impl DatabaseFile {
    /// `conn` must have written to the database already: then the log file exists, and its inode can be recorded.
    pub fn new(
        path: PathBuf,
        vfs: Option<&'static str>,
        held: Option<HeldFile>,
        guard: Arc<GuardFile>,
        conn: &Connection,
    ) -> Result<DatabaseFile> {
        let held = match held.map_or_else(|| HeldFile::take(&path), |held| Ok(Some(held)))? {
            Some(held) => held,
            None => return Err(Error::new(ErrorKind::Io, format!("{} can no longer be opened", path.display()))),
        };
        let inode = Inode::of(&held.file().metadata().map_err(|cause| io_error(&path, cause))?);
        let journal: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let log = Inode::at(&with_suffix(&path, "-wal")).filter(|_| journal == "wal");
        let inode_is_stable = Inode::at(&path) == Some(inode);
        let (fingerprint, overwritten) = (Mutex::default(), AtomicBool::new(false));
        let database = DatabaseFile { path, vfs, inode, log, inode_is_stable, held, fingerprint, overwritten, guard };
        database.record_fingerprint();
        Ok(database)
    }

    /// The writer calls this after each write. Without a write-ahead log it records nothing: a reader may roll back a
    /// failed save, and that changes our file legitimately.
    pub fn record_fingerprint(&self) {
        let fingerprint = if self.log.is_some() { self.read_fingerprint() } else { None };
        *self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner) = fingerprint;
    }

    /// Whether another program has written into the file. The writer calls this before each write. A copy over the open
    /// file keeps its inode and changes its content, so only the fingerprint shows it.
    pub fn check_overwritten(&self) -> bool {
        let recorded = self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*recorded, self.read_fingerprint()) {
            (Some(recorded), Some(fingerprint)) if *recorded != fingerprint => {
                self.overwritten.store(true, Ordering::Relaxed)
            }
            _ => {}
        }
        self.overwritten.load(Ordering::Relaxed)
    }

    fn read_fingerprint(&self) -> Option<Fingerprint> {
        let (file, mut header) = (self.held.file(), [0; 100]);
        let length = file.metadata().ok()?.len();
        // A file that is shorter than a header is no database either.
        match file.read_exact_at(&mut header, 0) {
            Err(cause) if cause.kind() != UnexpectedEof => None,
            _ => Some(Fingerprint { length, header }),
        }
    }

    pub fn path_status(&self) -> PathStatus {
        match fs::symlink_metadata(&self.path) {
            Err(cause) if matches!(cause.kind(), NotFound | NotADirectory) => PathStatus::Missing,
            // Also a link to our file: the next start would look for the log beside the target of the link.
            Ok(found) if found.is_symlink() => PathStatus::Replaced,
            Ok(found) if self.inode_is_stable && Inode::of(&found) != self.inode => PathStatus::Replaced,
            Ok(_) if self.inode_is_stable && self.log.is_some() && self.current_log() != self.log => {
                PathStatus::WithoutLog
            }
            // A path that cannot be examined counts as unchanged.
            _ => PathStatus::InPlace,
        }
    }

    fn current_log(&self) -> Option<Inode> {
        Inode::at(&with_suffix(&self.path, "-wal"))
    }

    /// Removes the log. Call it once its content is in the database or in a copy. A log of another file stays.
    pub fn remove_log(&self) {
        if self.log.is_some() && self.current_log() == self.log {
            let _ = fs::remove_file(with_suffix(&self.path, "-wal"));
        }
    }

    /// Opens a further connection.
    pub fn connect(&self) -> Result<Connection> {
        self.check_path()?;
        let conn = connection(&self.path, self.vfs, BUSY_TIMEOUT)?;
        // The file may have been replaced in between.
        self.check_path()?;
        Ok(conn)
    }

    /// Fails when another program has written into the file.
    pub fn ensure_not_overwritten(&self) -> Result<()> {
        if !self.overwritten.load(Ordering::Relaxed) {
            return Ok(());
        }
        let what = "was overwritten while it was in use; restart net-pulse to use its new content";
        Err(Error::new(ErrorKind::Corrupt, format!("{} {what}", self.path.display())))
    }

    fn check_path(&self) -> Result<()> {
        self.ensure_not_overwritten()?;
        match self.path_status() {
            PathStatus::InPlace => Ok(()),
            _ => {
                let what = "is no longer the file that is in use; the next save writes the database again";
                Err(Error::new(ErrorKind::Busy, format!("{} {what}", self.path.display())))
            }
        }
    }
}

/// The database file that the store uses now.
pub(super) fn current_file(shared: &Mutex<Arc<DatabaseFile>>) -> Arc<DatabaseFile> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
