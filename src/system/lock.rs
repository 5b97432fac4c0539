//! A whole file, locked against other processes by flock(2). The standard library does so too, but from Rust 1.89 on,
//! and Debian 13 has 1.85.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Why a file could not be locked.
pub enum Refusal {
    /// Another opening of it holds the lock: in another process, or in this one.
    Taken,
    /// Its file system has no locks, say.
    Failed(io::Error),
}

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
}
