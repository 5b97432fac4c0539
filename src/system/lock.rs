//! Files that are locked against other processes: `Lock` has all of one by flock(2), `Claim` a single byte by fcntl(2).
//! The standard library does the former too, but from Rust 1.89 on, and Debian 13 has 1.85.
//!
//! On network file systems, and on BSD anywhere, flock(2) is a lock on all bytes of the file, which meets those of fcntl(2):
//! a file that SQLite locks by the latter must not be locked by the former.

use std::fs::File;
use std::io;

use nix::errno::Errno;
#[cfg(any(target_os = "linux", target_os = "android"))]
use nix::fcntl::{FcntlArg, fcntl};
use nix::fcntl::{Flock, FlockArg, OFlag};
#[cfg(any(target_os = "linux", target_os = "android"))]
use nix::libc;

/// Why a file could not be locked.
pub enum Refusal {
    /// Another opening of it holds the lock: in another process, or in this one.
    Taken,
    /// Another program has locked more of it than is asked for here.
    InTheWay,
    /// Its file system has no locks, say.
    Failed(io::Error),
}

impl Refusal {
    pub fn cause(self) -> io::Error {
        match self {
            Refusal::Failed(cause) => cause,
            Refusal::Taken | Refusal::InTheWay => io::ErrorKind::WouldBlock.into(),
        }
    }
}

/// For opening a file that others could have put something else in the place of: it fails at a symbolic link, and does not
/// wait at a FIFO.
pub const UNFOLLOWED: i32 = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).bits();

/// An open file, locked until this is dropped.
pub struct Lock(Option<Flock<File>>);

impl Lock {
    /// Does not wait: a file that cannot be locked is handed back, still open.
    pub fn take(file: File) -> Result<Lock, (File, Refusal)> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock(Some(lock))),
            Err((file, Errno::EWOULDBLOCK)) => Err((file, Refusal::Taken)),
            Err((file, errno)) => Err((file, Refusal::Failed(errno.into()))),
        }
    }

    pub fn file(&self) -> &File {
        self.0.as_ref().expect("it is taken out when this is dropped, and no earlier")
    }
}

impl Drop for Lock {
    /// By itself `Flock` panics where the file system cannot unlock. Such a file stays open: the end of the process
    /// unlocks it.
    fn drop(&mut self) {
        if let Some(Err((lock, _))) = self.0.take().map(Flock::unlock) {
            std::mem::forget(lock);
        }
    }
}

/// An open file of which one byte is locked until this is dropped. That byte is in the way of no other use of the file:
/// SQLite locks 512 bytes from 2^30 on (https://www.sqlite.org/fileformat2.html, 1.5), and a lock of this kind stops no write.
pub struct Claim(File);

impl Claim {
    /// Does not wait. The lock belongs to this opening alone, so that it neither meets the locks of others in this process
    /// nor goes with them. `Failed` where there are no such locks: before Linux 3.15, and elsewhere.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn take(file: File) -> Result<Claim, (File, Refusal)> {
        let mut found = byte();
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&byte())) {
            Ok(_) => return Ok(Claim(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(errno) => return Err((file, Refusal::Failed(errno.into()))),
        }
        match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)) {
            Err(errno) => Err((file, Refusal::Failed(errno.into()))),
            Ok(_) if (found.l_start, found.l_len) == (BYTE, 1) && found.l_type != UNLOCKED => {
                Err((file, Refusal::Taken))
            }
            Ok(_) => Err((file, Refusal::InTheWay)),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn take(file: File) -> Result<Claim, (File, Refusal)> {
        Err((file, Refusal::Failed(io::ErrorKind::Unsupported.into())))
    }

    pub fn file(&self) -> &File {
        &self.0
    }
}

/// Whether the file system of an open file knows the locks of fcntl(2) at all. Some overlays do not.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn has_byte_locks(file: &File) -> bool {
    fcntl(file, FcntlArg::F_GETLK(&mut byte())).is_ok()
}

/// Where nothing is known of them, they are taken to be there.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn has_byte_locks(_file: &File) -> bool {
    true
}

/// Behind SQLite's own, and where 31 bits reach.
#[cfg(any(target_os = "linux", target_os = "android"))]
const BYTE: libc::off_t = 0x4000_1000;
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNLOCKED: libc::c_short = libc::F_UNLCK as libc::c_short;

#[cfg(any(target_os = "linux", target_os = "android"))]
fn byte() -> libc::flock {
    let (l_type, l_whence) = (libc::F_WRLCK as libc::c_short, libc::SEEK_SET as libc::c_short);
    libc::flock { l_type, l_whence, l_start: BYTE, l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn one_opening_at_a_time() {
        let path = std::env::temp_dir().join(format!("net-pulse-lock-{}", std::process::id()));
        let open = || File::options().append(true).create(true).open(&path).unwrap();
        let lock = Lock::take(open()).ok().unwrap();
        lock.file().write_all(b"here").unwrap();
        let (file, refusal) = Lock::take(open()).err().unwrap();
        assert!(matches!(refusal, Refusal::Taken));
        drop(lock);
        assert!(Lock::take(file).is_ok());
        assert_eq!(std::fs::read(&path).unwrap(), b"here");
        std::fs::remove_file(&path).unwrap();
    }

    /// And locks of the whole file, of either kind, are told from it.
    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn one_claim_at_a_time() {
        let path = std::env::temp_dir().join(format!("net-pulse-claim-{}", std::process::id()));
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let claim = Claim::take(open()).ok().unwrap();
        assert!(matches!(Claim::take(open()), Err((_, Refusal::Taken))));
        let whole = Lock::take(open());
        assert!(whole.is_ok(), "the other kind, on a file system that has both");
        drop(claim);
        let claim = Claim::take(open()).ok().unwrap();
        drop(claim);
        let mut all = byte();
        (all.l_start, all.l_len) = (0, 0);
        let other = open();
        fcntl(&other, FcntlArg::F_OFD_SETLK(&all)).unwrap();
        assert!(matches!(Claim::take(open()), Err((_, Refusal::InTheWay))));
        assert!(has_byte_locks(&other));
        std::fs::remove_file(&path).unwrap();
    }
}
