//! Settings that all connections to the database share.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::Result;
use crate::system::errno;

pub(super) const PAGE_BYTES: u64 = 4096;

const PRAGMAS: [(&str, &str); 3] = [
    // Negative: KiB. Room for the pages of one save; the operating system caches the rest. A `Reader` sets less.
    ("cache_size", "-256"),
    // A container may have no /tmp.
    ("temp_store", "MEMORY"),
    // An I/O error in a mapped page raises SIGBUS.
    ("mmap_size", "0"),
];

/// Without a write-ahead log a reader and the writer can block each other. With one, only a checkpoint that empties the
/// log waits for readers.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn connection(path: &Path, vfs: Option<&str>, busy_timeout: Duration) -> Result<Connection> {
    let conn = unprepared_connection(path, vfs)?;
    conn.busy_timeout(busy_timeout)?;
    prepare(&conn)?;
    Ok(conn)
}

/// A connection that has not read the file yet.
pub(super) fn unprepared_connection(path: &Path, vfs: Option<&str>) -> Result<Connection> {
    errno::clear();
    // One thread at a time uses a connection, so SQLite needs no mutexes.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(match vfs {
        Some(name) => Connection::open_with_flags_and_vfs(path, flags, name)?,
        None => Connection::open_with_flags(path, flags)?,
    })
}

/// Sets what every connection needs, however it was opened.
pub(super) fn prepare(conn: &Connection) -> Result<()> {
    PRAGMAS.iter().try_for_each(|(name, value)| set(conn, name, value))
}

pub(super) fn pragma(conn: &Connection, name: &str) -> Result<i64> {
    Ok(conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
}

pub(super) fn set(conn: &Connection, name: &str, value: &str) -> Result<()> {
    Ok(conn.execute_batch(&format!("PRAGMA {name}={value}"))?)
}
