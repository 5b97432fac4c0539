//! History in one SQLite file: the only SQL of the program. It keeps and finds; it decides nothing about interfaces or
//! time, and never names `source`.
//!
//! `block` packs numbers, `rows` knows what the blocks hold, `fold` spreads samples over time: all three pure.
//! `open`, `write` and `query` are the edges, each a caller's way in; `guard` is the file beside the database that keeps
//! others out and knows whose the log is, `site` knows which file the database is, and `anew` writes it again where it was
//! removed; `files` has the names and modes of such files; `samples` and `levels` keep the tables, `window` moves samples
//! from the one to the others, `keep` throws away, `state` is what the writer remembers.

mod anew;
pub mod block;
mod connection;
mod copy;
mod edit;
mod examine;
mod files;
pub mod fold;
mod guard;
mod keep;
mod levels;
mod migrate;
mod open;

mod query;
pub mod rows;
mod samples;
mod site;
mod state;
#[cfg(test)]
pub(crate) mod testing;
mod window;
mod write;

use crate::sorted::Map;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, ErrorCode};

pub use copy::Copier;
pub use examine::examine;
pub use levels::{Borders, Stored};
pub use query::{Facts, Reader, View};
pub use samples::{Block, Order, Span};
use site::{Site, Standing};

use crate::clock::Zone;
use crate::error::{Error, ErrorKind, Result};
use crate::level::Keep;
use crate::model::{Anchor, Batch, Event, Record};
use crate::system::{closed, errno};

pub struct Options {
    /// The file never grows past this; samples are pruned first, then five-minute cells.
    pub max_bytes: u64,
}

/// The writer's side: one connection, one owner.
pub struct Store {
    /// As the settings name it.
    asked: PathBuf,
    /// That name leads elsewhere by now.
    astray: bool,
    /// The largest size of the file.
    pages: u64,
    conn: Connection,
    state: state::State,
    /// What was pruned by; `None` before the first time.
    kept: Option<Keep>,
    /// A transaction failed: `state` may be older than the file.
    doubtful: bool,
    /// How many times the usual spare pages the next flush asks for; rises while the file is full.
    room: i64,
    /// What was written anew and could not be opened so far.
    made: Option<anew::Made>,
    /// It is not ours any more, and was told of.
    parted: bool,
    /// What happened since the opening that its user should know.
    events: Vec<Event>,
    /// After the connection: it goes last.
    site: Arc<Site>,
    /// The same, for readers.
    current: Arc<Mutex<Arc<Site>>>,
}

/// What an opened database remembers.
pub struct Opened {
    pub store: Store,
    pub records: Vec<Record>,
    pub settings: Map<String, String>,
    pub next_seq: u64,
    /// UTC seconds of the newest sample.
    pub newest: Option<i64>,
    /// What happened while opening that its user should know (a damaged file set aside, a fall-back journal mode).
    pub events: Vec<Event>,
}

/// Everything one transaction takes. All ticks are placed (`unix` is `Some`).
pub struct Flush<'a> {
    pub batch: &'a Batch,
    pub anchors: &'a [Anchor],
    /// Identities that are new or changed (name, kind, alias, ifindex, boot, first_seen); their `raw` and `lifetime`
    /// are ignored: those follow from `anchors` and the batch.
    pub records: &'a [Record],
    pub events: &'a [Event],
    /// `None` deletes.
    pub settings: &'a [(String, Option<String>)],
    pub keep: Keep,
    pub zone: &'a Zone,
}

impl Store {
    pub fn open(path: &Path, options: &Options) -> Result<Opened> {
        open::open(path, options).map_err(|error| match error.kind {
            ErrorKind::ReadOnly => {
                let remedy = closed::remedy(path);
                error.next(format_args!("{remedy}, or name another file with --database"))
            }
            _ => error,
        })
    }

    /// One transaction: all of it or nothing. Closes windows, prunes. Ticks that are on disk already are left out, so
    /// that a flush whose outcome was unclear can be repeated.
    pub fn flush(&mut self, flush: &Flush) -> Result<()> {
        self.stay()?;
        self.write(flush).map_err(|error| error.context(format!("cannot save to {}", self.site.path.display())))?;
        // Before the caller lets go of what may be in a removed file only.
        self.stay()
    }

    /// The database is where it should be, or is from here on: where it was removed or renamed while it was in use, it is
    /// written anew there, and where another file was put in its place, beside that one. Fails while it is not, and for
    /// good where something else was written into it.
    pub fn stay(&mut self) -> Result<()> {
        if self.site.is_overwritten() {
            return anew::part(self);
        }
        match self.site.standing() {
            Standing::Here => self.look_at_name(),
            standing => anew::write(self, standing)?,
        }
        Ok(())
    }

    /// The name in the settings may be a link, or lead through one, and lead elsewhere by now.
    fn look_at_name(&mut self) {
        let leads_here = files::resolve(&self.asked).is_ok_and(|path| path == self.site.guard.path());
        if !leads_here && !self.astray {
            let sentence = self.astray_sentence();
            open::tell(&mut self.events, sentence);
        }
        self.astray = !leads_here;
    }

    fn astray_sentence(&self) -> String {
        let (asked, path) = (self.asked.display(), self.site.path.display());
        // The file that is open goes on working.
        if files::resolve(&self.asked).is_err_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied) {
            let remedy = closed::remedy(&self.asked);
            return format!(
                "{asked} cannot be reached any more, and a restart could not open it: {remedy}; until then saving goes on"
            );
        }
        format!("{asked} leads elsewhere now, or nowhere: the history goes on in {path} until net-pulse is restarted")
    }

    /// What to tell while the history is kept beside a file that was put in its site.
    pub fn beside_another(&self) -> Option<String> {
        let (wanted, path) = (self.site.guard.path().display(), &self.site.path);
        let replaced = (self.site.guard.path() != path).then(|| {
            let path = path.display();
            format!("another file was put in place of {wanted}: the history goes on in {path}; restart net-pulse to use the other")
        });
        replaced.or_else(|| self.astray.then(|| self.astray_sentence()))
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A connection of its own for readers.
    pub fn reader(&self) -> Result<Reader> {
        open::reader(&self.site, &self.current)
    }
}

/// Whoever is still making a copy at the end of the program does it for nobody.
impl Drop for Store {
    fn drop(&mut self) {
        copy::clear(&self.site.path);
    }
}

/// What SQLite's refusals mean to the caller. Everything else is the system's.
const REFUSALS: [(ErrorCode, ErrorKind); 10] = [
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

/// What SQLite calls an I/O error, and the system has a better name for.
const CAUSES: [(io::ErrorKind, ErrorKind, &str); 3] = [
    (io::ErrorKind::QuotaExceeded, ErrorKind::Full, "the disk quota is used up"),
    (io::ErrorKind::FileTooLarge, ErrorKind::Full, "a file may not grow further here: see the limits (ulimit -f)"),
    (io::ErrorKind::StaleNetworkFileHandle, ErrorKind::Io, "its file server has forgotten it (stale file handle)"),
];

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let code = error.sqlite_error_code();
        let kind = REFUSALS.iter().find(|(known, _)| Some(*known) == code).map_or(ErrorKind::System, |(_, kind)| *kind);
        let cause = errno::last().kind();
        match CAUSES.iter().find(|(known, ..)| *known == cause && kind == ErrorKind::Io) {
            Some((_, kind, sentence)) => Error::new(*kind, *sentence),
            None => Error::caused(kind, error),
        }
    }
}
