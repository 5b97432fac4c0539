//! The file beside the database, `.guard`. Its lock keeps other processes out. Its content outlives the database: that the
//! file beside it is ours, whatever it looks like, and which file that is. By the latter a log (`-wal`, `-journal`) is known
//! that belongs to another file, because a copy was put in place of the database; `open` looks at it and renews it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::files::{Inode, beside, in_the_way, io_error, no_other, private, sort};
use crate::error::{Error, ErrorKind, Result};
use crate::system::lock::{Lock, Refusal, UNFOLLOWED};

/// How long another process may take to let go of the database.
pub(super) const HANDOVER: Duration = Duration::from_secs(1);

/// Older versions write nothing else, and look for no more than that something is there.
const SIGN: &str = "net-pulse";
/// More than is ever written.
const READ_BYTES: usize = 256;

/// What a database file is known by: each opening gives it another, and so does each copy of it that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId([u8; 16]);

impl FileId {
    /// Of a file that has none: it is new, or no version that knows of ids has opened it.
    pub const NONE: FileId = FileId([b'0'; 16]);

    /// Sixteen hexadecimal digits.
    pub fn parse(text: &str) -> Option<FileId> {
        let digits = text.as_bytes().try_into().ok()?;
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(FileId(digits))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Keeps other processes away from the directory's database for as long as anything of it is open here.
pub(super) struct Guard {
    /// Not locked where its file system has no locks.
    file: std::result::Result<Lock, File>,
    /// Of the database.
    path: PathBuf,
    name: PathBuf,
    said: Mutex<Said>,
}

/// What its file says.
#[derive(Clone, Copy)]
struct Said {
    /// The database was ours before, whatever it looks like now.
    known: bool,
    /// The database has one of these.
    ids: Option<[FileId; 2]>,
}

impl Guard {
    pub fn take(path: &Path) -> Result<Guard> {
        // Not ".lock": that is the name of the unix-dotfile lock, which is a directory.
        let name = beside(path, ".guard");
        let file = match lock(open(&name)?) {
            Ok(lock) => Ok(lock),
            Err((_, Refusal::Taken)) => return Err(in_use(path)),
            Err((file, refusal)) => {
                let cause = refusal.cause();
                log::warn!("cannot lock {}: {cause}; a second net-pulse would not be noticed", name.display());
                Err(file)
            }
        };
        let said = Mutex::new(Said { known: false, ids: None });
        let guard = Guard { file, path: path.to_path_buf(), name, said };
        let content = guard.read();
        *guard.said() = Said { known: !content.is_empty(), ids: ids_in(&content) };
        Ok(guard)
    }

    /// Where the database should be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its file still has its name: it may have been removed, alone or with its directory.
    pub fn stands(&self) -> bool {
        self.file().metadata().is_ok_and(|found| Inode::at(&self.name) == Some(Inode::of(&found)))
    }

    pub fn known(&self) -> bool {
        self.said().known
    }

    /// The database beside it has one of these, unless another file was put in its place. `None` where that is not known.
    pub fn ids(&self) -> Option<[FileId; 2]> {
        self.said().ids
    }

    /// Writes down which file the database is, durably if asked to. `false` where that fails: then the guard says
    /// what it said before, or nothing that can be read.
    pub fn note(&self, ids: &[FileId; 2], synced: bool) -> bool {
        let written = self.write(&content(ids)).and_then(|()| if synced { self.file().sync_data() } else { Ok(()) });
        if let Err(cause) = &written {
            log::debug!("{}: {cause}", self.name.display());
        }
        self.said().ids = Some(*ids).filter(|_| written.is_ok());
        written.is_ok()
    }

    /// The database beside it is ours: should its header be smashed one day, it is not taken for somebody else's file.
    pub fn sign(&self) {
        let Said { known, ids } = *self.said();
        if !known {
            // Without it everything works, but for that day.
            let signed = ids.is_some() || self.write(&format!("{SIGN}\n")).is_ok();
            self.said().known = signed;
        }
    }

    /// Leaves nothing beside a file that is not ours.
    pub fn withdraw(self) {
        if !self.known() {
            let _ = fs::remove_file(&self.name);
        }
    }

    /// Each change is one assignment: a panic leaves nothing half done.
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> &File {
        self.file.as_ref().map_or_else(|file| file, Lock::file)
    }

    /// What cannot be read is nothing, and decides nothing.
    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; READ_BYTES];
        let length = self.file().read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(length);
        bytes
    }

    fn write(&self, text: &str) -> io::Result<()> {
        self.file().write_all_at(text.as_bytes(), 0)
    }
}

/// Always as long. The ids stand there twice: what a power cut has left of a write is not taken for others.
fn content(ids: &[FileId; 2]) -> String {
    let line = format!("{} {}\n", ids[0].text(), ids[1].text());
    format!("{SIGN}\n{line}{line}")
}

fn ids_in(bytes: &[u8]) -> Option<[FileId; 2]> {
    let mut lines = std::str::from_utf8(bytes).ok()?.split_inclusive('\n').map(|line| line.strip_suffix('\n'));
    let (sign, line, again) = (lines.next()??, lines.next()??, lines.next()??);
    if sign != SIGN || line != again {
        return None;
    }
    let (one, other) = line.split_once(' ')?;
    Some([FileId::parse(one)?, FileId::parse(other)?])
}

/// In a directory where others may write, a link of that name could lead to any file, and a FIFO takes no notes.
fn open(name: &Path) -> Result<File> {
    no_other(name)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(UNFOLLOWED);
    let file = private(&mut options).open(name).map_err(|cause| io_error(name, cause))?;
    let found = file.metadata().map_err(|cause| io_error(name, cause))?;
    match sort(&found) {
        Some(what) => Err(in_the_way(name, what)),
        // What is written into it would be written into a file of another name.
        None if found.nlink() > 1 => Err(in_the_way(name, "a file that has another name too")),
        None => Ok(file),
    }
}

/// The one before may be at its last save: a supervisor starts the next as soon as it likes.
fn lock(file: File) -> std::result::Result<Lock, (File, Refusal)> {
    patiently(file, Lock::take)
}

pub(super) fn patiently<T>(
    mut file: File,
    take: impl Fn(File) -> std::result::Result<T, (File, Refusal)>,
) -> std::result::Result<T, (File, Refusal)> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        match take(file) {
            Err((unlocked, Refusal::Taken)) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
                file = unlocked;
            }
            outcome => return outcome,
        }
    }
}

pub(super) fn in_use(path: &Path) -> Error {
    let sentence = format!("another net-pulse uses {}; stop it, or name another file with --database", path.display());
    Error::new(ErrorKind::Taken, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Guard {
        /// As on a disk that is full or read-only.
        pub fn that_takes_nothing(path: &Path) -> Guard {
            let name = beside(path, ".guard");
            let file = Err(File::open(&name).unwrap());
            Guard { file, path: path.to_path_buf(), name, said: Mutex::new(Said { known: true, ids: None }) }
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let ids = ["0123456789ABCDEF", "FEDCBA9876543210"].map(|text| FileId::parse(text).unwrap());
        let (old, new) = (content(&[FileId::NONE, ids[0]]), content(&ids));
        assert_eq!(ids_in(new.as_bytes()), Some(ids));
        assert_eq!((old.len(), ids_in(format!("{new}more").as_bytes())), (new.len(), Some(ids)));
        for other in ["", "net-pulse\n", "net-pulse", "something else\n", &new[..new.len() - 1], &new[1..]] {
            assert_eq!(ids_in(other.as_bytes()), None, "{other:?}");
        }
        // Written over the older one, up to some byte.
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
