//! Locks files against other processes. `FileLock` locks a whole file with flock(2), `ByteLock` a single byte with
//! fcntl(2). The standard library offers the first kind too, but only from Rust 1.89 on, and Debian 13 has 1.85.
//!
//! On network file systems, and on BSD with any file system, flock(2) conflicts with the locks of fcntl(2). SQLite
//! locks its files with fcntl(2), so use `FileLock` on a file of SQLite only where `has_byte_locks` is false.

use std::fs::File;
use std::io;

use nix::errno::Errno;
#[cfg(any(target_os = "linux", target_os = "android"))]
use nix::fcntl::{FcntlArg, fcntl};
use nix::fcntl::{Flock, FlockArg, OFlag};
#[cfg(any(target_os = "linux", target_os = "android"))]
use nix::libc;

/// Why a file could not be locked.
pub enum LockError {
    /// Another open file description holds the lock, in another process or in this one.
    Taken,
    /// Another program holds a lock on a range that is not exactly our byte but includes it.
    Conflict,
    /// The system call failed, for example because the file system has no locks.
    Failed(io::Error),
}

impl LockError {
    /// The error of the system call, or `WouldBlock`.
    pub fn into_io_error(self) -> io::Error {
        match self {
            LockError::Failed(cause) => cause,
            LockError::Taken | LockError::Conflict => io::ErrorKind::WouldBlock.into(),
        }
    }
}

/// Flags for open(2) where another user could have replaced the file: open fails on a symbolic link (O_NOFOLLOW), and
/// does not wait on a FIFO (O_NONBLOCK).
pub const OPEN_NO_FOLLOW: i32 = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).bits();

/// An open file, locked with flock(2) until this value is dropped.
pub struct FileLock(Option<Flock<File>>);

impl FileLock {
    /// Locks the file without waiting. On failure it returns the file, still open, with the reason.
    pub fn take(file: File) -> Result<FileLock, (File, LockError)> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(FileLock(Some(lock))),
            Err((file, Errno::EWOULDBLOCK)) => Err((file, LockError::Taken)),
            Err((file, errno)) => Err((file, LockError::Failed(errno.into()))),
        }
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        self.0.as_ref().expect("only drop takes the lock out")
    }
}

impl Drop for FileLock {
    /// `Flock` panics on drop where unlocking fails. So this unlocks first, and leaves such a file open: the kernel
    /// unlocks it when the process ends.
    fn drop(&mut self) {
        if let Some(Err((lock, _))) = self.0.take().map(Flock::unlock) {
            std::mem::forget(lock);
        }
    }
}

/// An open file with one byte locked until this value is dropped. The lock does not disturb SQLite: SQLite locks 512
/// bytes from offset 2^30 on (<https://www.sqlite.org/fileformat2.html>, "The Lock-Byte Page"), and this byte is behind
/// them. The lock is advisory, so it stops no write.
pub struct ByteLock(File);

impl ByteLock {
    /// Locks the byte without waiting, with an open file description lock (F_OFD_SETLK). Unlike other locks of
    /// fcntl(2), it conflicts with locks of other opens in this process, and closing another descriptor of the file
    /// does not release it. `Failed` before Linux 3.15, and on systems other than Linux and Android.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn take(file: File) -> Result<ByteLock, (File, LockError)> {
        let mut holder = write_lock();
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&write_lock())) {
            Ok(_) => return Ok(ByteLock(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(errno) => return Err((file, LockError::Failed(errno.into()))),
        }
        match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut holder)) {
            Err(errno) => Err((file, LockError::Failed(errno.into()))),
            Ok(_) => Err((file, refusal(&holder))),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn take(file: File) -> Result<ByteLock, (File, LockError)> {
        Err((file, LockError::Failed(io::ErrorKind::Unsupported.into())))
    }

    /// The file with the locked byte.
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// Why the byte could not be locked, judged by the lock that F_OFD_GETLK found. If it found none, the other lock was
/// released between the two calls; the caller then tries again, as for a lock on the same byte.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn refusal(found: &libc::flock) -> LockError {
    match found.l_type == UNLOCKED || (found.l_start, found.l_len) == (BYTE_OFFSET, 1) {
        true => LockError::Taken,
        false => LockError::Conflict,
    }
}

/// Whether the file system of the file supports locks of fcntl(2). Some overlay file systems do not.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn has_byte_locks(file: &File) -> bool {
    fcntl(file, FcntlArg::F_GETLK(&mut write_lock())).is_ok()
}

/// Not tested on other systems: assumes that there are locks.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn has_byte_locks(_file: &File) -> bool {
    true
}

/// Offset of the locked byte: behind the bytes that SQLite locks, and within 31 bits.
#[cfg(any(target_os = "linux", target_os = "android"))]
const BYTE_OFFSET: libc::off_t = 0x4000_1000;
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNLOCKED: libc::c_short = libc::F_UNLCK as libc::c_short;

/// A write lock on the byte, for fcntl(2).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn write_lock() -> libc::flock {
    let (l_type, l_whence) = (libc::F_WRLCK as libc::c_short, libc::SEEK_SET as libc::c_short);
    libc::flock { l_type, l_whence, l_start: BYTE_OFFSET, l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_has_one_lock_at_a_time() {
        let path = std::env::temp_dir().join(format!("net-pulse-lock-{}", std::process::id()));
        let open = || File::options().append(true).create(true).open(&path).unwrap();
        let lock = FileLock::take(open()).ok().unwrap();
        lock.file().write_all(b"here").unwrap();
        let (file, error) = FileLock::take(open()).err().unwrap();
        assert!(matches!(error, LockError::Taken));
        drop(lock);
        assert!(FileLock::take(file).is_ok());
        assert_eq!(std::fs::read(&path).unwrap(), b"here");
        std::fs::remove_file(&path).unwrap();
    }

    /// A lock of flock(2) does not conflict with a `ByteLock`. A lock of fcntl(2) on the whole file gives `Conflict`.
    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn a_byte_has_one_lock_at_a_time() {
        let path = std::env::temp_dir().join(format!("net-pulse-byte-lock-{}", std::process::id()));
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let lock = ByteLock::take(open()).ok().unwrap();
        assert!(matches!(ByteLock::take(open()), Err((_, LockError::Taken))));
        let whole = FileLock::take(open());
        assert!(whole.is_ok(), "flock(2) does not conflict with fcntl(2) on this file system");
        drop(lock);
        let lock = ByteLock::take(open()).ok().unwrap();
        drop(lock);
        let mut all = write_lock();
        (all.l_start, all.l_len) = (0, 0);
        let other = open();
        fcntl(&other, FcntlArg::F_OFD_SETLK(&all)).unwrap();
        assert!(matches!(ByteLock::take(open()), Err((_, LockError::Conflict))));
        assert!(has_byte_locks(&other));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn a_lock_that_was_just_released_is_tried_again() {
        let found = |l_type: i32, l_start, l_len| {
            refusal(&libc::flock { l_type: l_type as libc::c_short, l_start, l_len, ..write_lock() })
        };
        assert!(matches!(found(libc::F_UNLCK, BYTE_OFFSET, 1), LockError::Taken));
        assert!(matches!(found(libc::F_UNLCK, 0, 0), LockError::Taken));
        assert!(matches!(found(libc::F_WRLCK, BYTE_OFFSET, 1), LockError::Taken));
        assert!(matches!(found(libc::F_WRLCK, 0, 0), LockError::Conflict));
        assert!(matches!(found(libc::F_RDLCK, BYTE_OFFSET, 2), LockError::Conflict));
    }
}
