//! History in one SQLite file. All SQL of the program is here. This module stores and reads; it decides nothing about
//! interfaces or time, and does not use `source`.
//!
//! `codec` packs ticks and cells into blobs, and `split` divides a sample among five-minute cells; both are pure.
//! Callers enter through `open`, `write`, `edit` and `query`. `samples` and `rollups` read and write the tables,
//! `open_block` adds the samples of six hours to the roll-ups, `retention` deletes old rows, and `watermarks` records
//! in memory how far the history is saved. `guard_file` is the file beside the database that keeps other processes out
//! and records which database a log belongs to. `database_path` checks that the path still leads to the open file, and
//! `recreate` writes a new file when it does not. `migrate` converts older schemas, `copy` makes backups, and `examine`
//! serves `net-pulse check`. `files` has the names, modes and errors of files, and `connection` has the settings of
//! every SQLite connection.

pub mod codec;
mod connection;
mod copy;
mod database_path;
mod edit;
mod examine;
mod files;
mod guard_file;
mod migrate;
mod open;
mod open_block;
mod query;
mod recreate;
mod retention;
mod rollups;
mod samples;
pub mod split;
#[cfg(test)]
pub(crate) mod testing;
mod watermarks;
mod write;

use crate::sorted::Map;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, ErrorCode};

pub use copy::Copier;
use database_path::{DatabaseFile, PathStatus};
pub use examine::examine;
pub use query::{Reader, StoreStats, View};
pub use rollups::{BlockBounds, CellBlock};
pub use samples::{BlockRange, Order, SampleBlock};

use crate::clock::Zone;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Anchor, Batch, Event, Record};
use crate::resolution::Retention;
use crate::system::{errno, not_writable};

pub struct Options {
    /// Maximum size of the file in bytes. When the file is full, samples are deleted first, then five-minute cells.
    pub max_bytes: u64,
}

/// The writer's side of the database: one connection with one owner.
pub struct Store {
    /// Absolute path from the settings. It may contain symbolic links.
    requested_path: PathBuf,
    /// `requested_path` no longer leads to the open file.
    requested_path_moved: bool,
    /// Maximum size of the file, in pages.
    max_pages: u64,
    conn: Connection,
    watermarks: watermarks::Watermarks,
    /// Retention at the latest pruning; `None` before the first.
    pruned_with: Option<Retention>,
    /// A transaction failed, perhaps after its COMMIT: `watermarks` may be older than the file.
    commit_uncertain: bool,
    /// Factor for the spare pages that the next transaction needs. Doubles, up to 64, each time one fails because the
    /// file or the disk is full; 1 again after a success.
    spare_factor: i64,
    /// A new database file that is written and could not be opened yet.
    recreated: Option<recreate::NewFile>,
    /// Another program has overwritten the file; nothing is written to it any more.
    abandoned: bool,
    /// Events since the opening that the user should see.
    events: Vec<Event>,
    /// Declared after `conn`, so that `conn` is dropped first: closing the file earlier would drop SQLite's locks.
    database: Arc<DatabaseFile>,
    /// The same file, shared with the readers.
    current: Arc<Mutex<Arc<DatabaseFile>>>,
}

/// Result of `Store::open`: the store, and what the database contains.
pub struct Opened {
    pub store: Store,
    pub records: Vec<Record>,
    pub settings: Map<String, String>,
    /// Number for the first tick of this run.
    pub next_seq: u64,
    /// UTC seconds of the tick that was stored last.
    pub newest_unix: Option<i64>,
    /// Events of the opening that the user should see, for example that it set a damaged file aside.
    pub events: Vec<Event>,
}

/// The content of one save. Every tick has a wall time (`unix` is `Some`).
pub struct SaveRequest<'a> {
    pub batch: &'a Batch,
    pub anchors: &'a [Anchor],
    /// New or changed records. Their `raw`, `lifetime`, `mono_ms` and `last_seen` are ignored: these follow from the
    /// anchors and the batch.
    pub records: &'a [Record],
    pub events: &'a [Event],
    /// Settings to store; `None` deletes one.
    pub settings: &'a [(String, Option<String>)],
    /// How long each resolution is kept.
    pub retention: Retention,
    /// Time zone of local days.
    pub zone: &'a Zone,
}

impl Store {
    pub fn open(path: &Path, options: &Options) -> Result<Opened> {
        open::open(path, options).map_err(|error| match error.kind {
            ErrorKind::ReadOnly => {
                let remedy = not_writable::remedy(path);
                error.with_hint(format_args!("{remedy}, or name another file with --database"))
            }
            _ => error,
        })
    }

    /// Saves the request in one transaction: all of it or nothing. Also closes the open block when a tick is in another
    /// six hours. Prunes then, at the first save, and after a change of the retention. Skips ticks that are already
    /// stored, so that the caller can repeat a save whose result is unknown.
    pub fn save(&mut self, request: &SaveRequest) -> Result<()> {
        self.ensure_in_place()?;
        self.write(request)
            .map_err(|error| error.context(format!("cannot save to {}", self.database.path.display())))?;
        // Check again before the caller drops the batch: a batch that is only in a removed file is lost.
        self.ensure_in_place()
    }

    /// Ensures that the database is at its path. Writes the whole history to a new file there when the old file was
    /// removed or renamed, or has lost its log; writes it beside the path when another file is at the path. Fails while
    /// it cannot write that file. Fails for the rest of the run when another program has overwritten the database.
    pub fn ensure_in_place(&mut self) -> Result<()> {
        if self.database.check_overwritten() {
            return recreate::abandon(self);
        }
        match self.database.path_status() {
            PathStatus::InPlace => self.check_requested_path(),
            status => recreate::recreate(self, status)?,
        }
        Ok(())
    }

    /// Adds an event when the path in the settings stops leading to the open file: a symbolic link in it may have
    /// changed.
    fn check_requested_path(&mut self) {
        let leads_here =
            files::resolve(&self.requested_path).is_ok_and(|path| path == self.database.guard.database_path());
        if !leads_here && !self.requested_path_moved {
            let sentence = self.moved_path_warning();
            open::report(&mut self.events, sentence);
        }
        self.requested_path_moved = !leads_here;
    }

    fn moved_path_warning(&self) -> String {
        let (requested_path, path) = (self.requested_path.display(), self.database.path.display());
        // A directory in the path is no longer accessible. The open file still works.
        if files::resolve(&self.requested_path).is_err_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied) {
            let remedy = not_writable::remedy(&self.requested_path);
            return format!(
                "{requested_path} can no longer be reached, and a restart could not open it: {remedy}; \
                 net-pulse keeps saving until it is restarted"
            );
        }
        format!("{requested_path} no longer leads to the database: net-pulse saves to {path} until it is restarted")
    }

    /// Health text while the history is not stored where the settings say; `None` otherwise.
    pub fn location_warning(&self) -> Option<String> {
        let (wanted, path) = (self.database.guard.database_path().display(), &self.database.path);
        let replaced = (self.database.guard.database_path() != path).then(|| {
            let path = path.display();
            format!(
                "another file has replaced {wanted}: net-pulse saves to {path}; restart net-pulse to use the other file"
            )
        });
        replaced.or_else(|| self.requested_path_moved.then(|| self.moved_path_warning()))
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Opens a separate connection for reading.
    pub fn reader(&self) -> Result<Reader> {
        open::reader(&self.database, &self.current)
    }
}

/// Removes a copy that is unfinished when the program ends.
impl Drop for Store {
    fn drop(&mut self) {
        copy::remove_unfinished(&self.database.path);
    }
}

/// Error kinds for SQLite's result codes (<https://www.sqlite.org/rescode.html>). All others become `System`.
const SQLITE_KINDS: [(ErrorCode, ErrorKind); 10] = [
    (ErrorCode::DiskFull, ErrorKind::Full),
    (ErrorCode::DatabaseBusy, ErrorKind::Busy),
    (ErrorCode::DatabaseLocked, ErrorKind::Busy),
    (ErrorCode::FileLockingProtocolFailed, ErrorKind::Busy),
    (ErrorCode::SystemIoFailure, ErrorKind::Io),
    (ErrorCode::CannotOpen, ErrorKind::Io),
    (ErrorCode::ReadOnly, ErrorKind::ReadOnly),
    (ErrorCode::PermissionDenied, ErrorKind::ReadOnly),
    (ErrorCode::DatabaseCorrupt, ErrorKind::Corrupt),
    (ErrorCode::NotADatabase, ErrorKind::Corrupt),
];

/// System errors that SQLite reports as I/O errors, with a more exact kind and text.
const SYSTEM_CAUSES: [(io::ErrorKind, ErrorKind, &str); 3] = [
    (io::ErrorKind::QuotaExceeded, ErrorKind::Full, "the disk quota is used up"),
    (io::ErrorKind::FileTooLarge, ErrorKind::Full, "the limit on the size of a file is reached (ulimit -f)"),
    (io::ErrorKind::StaleNetworkFileHandle, ErrorKind::Io, "its file server no longer knows it (stale file handle)"),
];

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let code = error.sqlite_error_code();
        let kind =
            SQLITE_KINDS.iter().find(|(known, _)| Some(*known) == code).map_or(ErrorKind::System, |(_, kind)| *kind);
        let cause = errno::last().kind();
        match SYSTEM_CAUSES.iter().find(|(known, ..)| *known == cause && kind == ErrorKind::Io) {
            Some((_, kind, sentence)) => Error::new(*kind, *sentence),
            None => Error::caused(kind, error),
        }
    }
}
