//! Which file the database is, and whether it still is what its path leads to: a file goes on working after it was removed,
//! renamed or replaced, and everything looks saved, until the next start finds nothing.
//!
//! SQLite opens by name. So no further connection is made while the name leads elsewhere: it would be one to a file of
//! somebody else, into which SQLite would play the log that it finds there.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind::{NotADirectory, NotFound, UnexpectedEof};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::connection::{BUSY, connection};
use super::files::{Inode, beside, io_error};
use super::guard::{Guard, in_use, patiently};
use crate::error::{Error, ErrorKind, Result};
use crate::system::lock::{Claim, Lock, Refusal, has_byte_locks};

/// What became of a database that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Here,
    /// Nothing is at its path: it was removed or renamed, or its directory was.
    Gone,
    /// Something else is.
    Replaced,
    /// It is there, but not its log, without which a crash would cost what was saved last.
    WithoutLog,
}

/// The database itself, opened beside SQLite, and locked where it can be: by another of its names, a hard link, a second
/// net-pulse comes to another guard file. Opened before SQLite opens it or after, and closed last of all.
pub(super) enum Hold {
    Claimed(Claim),
    Locked(Lock),
    /// Guarded by its name only.
    Open(File),
}

impl Hold {
    /// `None` where there is nothing to open. What keeps it from being opened is told by SQLite.
    pub fn take(path: &Path) -> Result<Option<Hold>> {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(None) };
        let refusal = match patiently(file, Claim::take) {
            Ok(claim) => return Ok(Some(Hold::Claimed(claim))),
            Err((file, Refusal::Failed(_))) if has_byte_locks(&file) => return Ok(Some(Hold::Open(file))),
            // SQLite has other means here too, so that these cannot meet.
            Err((file, Refusal::Failed(_))) => match patiently(file, Lock::take) {
                Ok(lock) => return Ok(Some(Hold::Locked(lock))),
                Err((file, Refusal::Failed(_))) => return Ok(Some(Hold::Open(file))),
                Err((_, refusal)) => refusal,
            },
            Err((_, refusal)) => refusal,
        };
        match refusal {
            Refusal::Taken => Err(in_use(path)),
            _ => Err(Error::new(ErrorKind::Busy, format!("another program has locked {}", path.display()))),
        }
    }

    fn file(&self) -> &File {
        match self {
            Hold::Claimed(claim) => claim.file(),
            Hold::Locked(lock) => lock.file(),
            Hold::Open(file) => file,
        }
    }
}

/// How long a file is and how it begins. SQLite counts its changes there.
#[derive(PartialEq, Eq)]
struct Face {
    length: u64,
    header: [u8; 100],
}

/// Shared by all that have the database open, who let go of it after their connection.
pub(super) struct Site {
    pub path: PathBuf,
    /// SQLite's name for the way to the file system.
    pub file_system: Option<&'static str>,
    inode: Inode,
    /// Of the write-ahead log, where there is one.
    log: Option<Inode>,
    /// Two openings of one file had the same inode: some file systems make them up.
    told_apart: bool,
    hold: Hold,
    /// When it was last written to from here; `None` where it could not be read.
    face: Mutex<Option<Face>>,
    /// Another program has written into it since: it is not ours any more.
    overwritten: AtomicBool,
    pub guard: Arc<Guard>,
}

impl Site {
    /// Of a database that `conn` has just written to.
    pub fn new(
        path: PathBuf,
        file_system: Option<&'static str>,
        hold: Option<Hold>,
        guard: Arc<Guard>,
        conn: &Connection,
    ) -> Result<Site> {
        let hold = match hold.map_or_else(|| Hold::take(&path), |hold| Ok(Some(hold)))? {
            Some(hold) => hold,
            None => return Err(Error::new(ErrorKind::Io, format!("{} cannot be opened any more", path.display()))),
        };
        let inode = Inode::of(&hold.file().metadata().map_err(|cause| io_error(&path, cause))?);
        let journal: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let log = Inode::at(&beside(&path, "-wal")).filter(|_| journal == "wal");
        let told_apart = Inode::at(&path) == Some(inode);
        let (face, overwritten) = (Mutex::default(), AtomicBool::new(false));
        let site = Site { path, file_system, inode, log, told_apart, hold, face, overwritten, guard };
        site.remember();
        Ok(site)
    }

    /// For the writer, after all that it may have written. Without a write-ahead log a reader may have to roll back what a
    /// failed save has left: then it is our own file that has changed.
    pub fn remember(&self) {
        let face = if self.log.is_some() { self.look() } else { None };
        *self.face.lock().unwrap_or_else(PoisonError::into_inner) = face;
    }

    /// For the writer, before it writes. A copy over the file that is in use leaves it the same file, with other content.
    pub fn is_overwritten(&self) -> bool {
        let known = self.face.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, self.look()) {
            (Some(known), Some(face)) if *known != face => self.overwritten.store(true, Ordering::Relaxed),
            _ => {}
        }
        self.overwritten.load(Ordering::Relaxed)
    }

    fn look(&self) -> Option<Face> {
        let (file, mut header) = (self.hold.file(), [0; 100]);
        let length = file.metadata().ok()?.len();
        // Shorter than that it is no database either.
        match file.read_exact_at(&mut header, 0) {
            Err(cause) if cause.kind() != UnexpectedEof => None,
            _ => Some(Face { length, header }),
        }
    }

    pub fn standing(&self) -> Standing {
        match fs::symlink_metadata(&self.path) {
            Err(cause) if matches!(cause.kind(), NotFound | NotADirectory) => Standing::Gone,
            // Also one that leads to our file: the next start looks for the log beside that.
            Ok(found) if found.is_symlink() => Standing::Replaced,
            Ok(found) if self.told_apart && Inode::of(&found) != self.inode => Standing::Replaced,
            Ok(_) if self.told_apart && self.log.is_some() && self.log_now() != self.log => Standing::WithoutLog,
            // Nor is it known to be elsewhere when it cannot be looked at.
            _ => Standing::Here,
        }
    }

    fn log_now(&self) -> Option<Inode> {
        Inode::at(&beside(&self.path, "-wal"))
    }

    /// Whose content the database has by now, or a copy of it. What is somebody else's stays.
    pub fn remove_log(&self) {
        if self.log.is_some() && self.log_now() == self.log {
            let _ = fs::remove_file(beside(&self.path, "-wal"));
        }
    }

    /// One more connection.
    pub fn connect(&self) -> Result<Connection> {
        self.check()?;
        let conn = connection(&self.path, self.file_system, BUSY)?;
        // It may have been replaced just then.
        self.check()?;
        Ok(conn)
    }

    /// What is read from here is what was written here.
    pub fn is_sound(&self) -> Result<()> {
        if !self.overwritten.load(Ordering::Relaxed) {
            return Ok(());
        }
        let what = "was overwritten while it was in use; restart net-pulse to go on with what is there now";
        Err(Error::new(ErrorKind::Corrupt, format!("{} {what}", self.path.display())))
    }

    fn check(&self) -> Result<()> {
        self.is_sound()?;
        match self.standing() {
            Standing::Here => Ok(()),
            _ => {
                let what = "is not the file that is in use; it is made anew with the next save";
                Err(Error::new(ErrorKind::Busy, format!("{} {what}", self.path.display())))
            }
        }
    }
}

/// Where the database is now, for those that make a connection only now and then.
pub(super) fn current(shared: &Mutex<Arc<Site>>) -> Arc<Site> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
