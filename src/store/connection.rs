//! What every connection to the database has in common.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::Result;
use crate::system::errno;

pub(super) const PAGE_BYTES: u64 = 4096;

const PRAGMAS: [(&str, &str); 3] = [
    // 256 KiB: the pages of one flush or of one chart; the operating system caches the rest.
    ("cache_size", "-256"),
    // A container without /tmp has nowhere else.
    ("temp_store", "MEMORY"),
    // An I/O error in a mapped page is a SIGBUS.
    ("mmap_size", "0"),
];

/// Only for file systems without a write-ahead log: there a reader can meet the writer.
pub(super) const BUSY: Duration = Duration::from_secs(5);

pub(super) fn connection(path: &Path, file_system: Option<&str>, busy: Duration) -> Result<Connection> {
    let conn = bare(path, file_system)?;
    conn.busy_timeout(busy)?;
    prepare(&conn)?;
    Ok(conn)
}

/// What has not looked into the file yet.
pub(super) fn bare(path: &Path, file_system: Option<&str>) -> Result<Connection> {
    errno::forget();
    // Each connection stays with one thread at a time, so that SQLite's own mutexes are idle weight.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(match file_system {
        Some(name) => Connection::open_with_flags_and_vfs(path, flags, name)?,
        None => Connection::open_with_flags(path, flags)?,
    })
}

/// What every connection begins with, however it was opened.
pub(super) fn prepare(conn: &Connection) -> Result<()> {
    PRAGMAS.iter().try_for_each(|(name, value)| set(conn, name, value))
}

pub(super) fn pragma(conn: &Connection, name: &str) -> Result<i64> {
    Ok(conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
}

pub(super) fn set(conn: &Connection, name: &str, value: &str) -> Result<()> {
    Ok(conn.execute_batch(&format!("PRAGMA {name}={value}"))?)
}
