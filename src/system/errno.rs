//! Access to `errno`, the error of the last failed system call of this thread. SQLite does not return it: it reports an
//! exhausted quota and a broken disk with the same "disk I/O error".

use std::io;

use nix::errno::Errno;

/// Sets `errno` to 0, so that `last` reports only later failures.
pub fn clear() {
    Errno::clear();
}

/// The error of the last system call of this thread that failed.
pub fn last() -> io::Error {
    io::Error::last_os_error()
}
