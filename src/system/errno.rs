//! Why the last system call of this thread failed. SQLite keeps that to itself: it says "disk I/O error" of a quota that is
//! used up as of a broken disk.

use std::io;

use nix::errno::Errno;

/// From here on `last` speaks of what comes.
pub fn forget() {
    Errno::clear();
}

pub fn last() -> io::Error {
    io::Error::last_os_error()
}
