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
mod testing;
mod window;
mod write;

use crate::sorted::Map;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, ErrorCode};

pub use copy::Copier;
pub use examine::examine;
use site::{Site, Standing};

use crate::clock::Zone;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Anchor, Batch, Bucket, Counters, Event, EventKind, IfaceId, Keep, Record, Resolution, Sample};
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
                Error::new(error.kind, format!("{error}; {remedy}, or name another file with --database"))
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

/// One sample with its place in history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub seq: u64,
    pub unix: i64,
    pub sample: Sample,
}

impl Point {
    /// Stable and unique, below 2^53.
    pub fn id(&self) -> u64 {
        self.seq << 20 | u64::from(self.sample.iface)
    }
}

/// Which samples.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub iface: Option<IfaceId>,
    /// `[from, to)`
    pub from: Option<i64>,
    pub to: Option<i64>,
}

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Empty for all.
    pub kinds: Vec<EventKind>,
    pub interface: Option<String>,
    /// `[from, to)`; what happened while the clock could not be believed is in no range.
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl EventFilter {
    pub fn takes(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.interface.as_ref().is_none_or(|name| *name == event.interface)
            && self.from.is_none_or(|from| event.unix.is_some_and(|unix| unix >= from))
            && self.to.is_none_or(|to| event.unix.is_some_and(|unix| unix < to))
    }
}

/// The readers' side. Every query is one short read transaction.
pub struct Reader {
    conn: Connection,
    /// After the connection: it goes last.
    site: Arc<Site>,
    current: Arc<Mutex<Arc<Site>>>,
}

/// Samples that are in memory only, and perhaps being written at this moment: what is on disk already is not taken
/// twice.
pub type Unsaved = [Arc<Batch>];

impl Reader {
    /// To where the database is now; before each query, and after it is known what is unsaved.
    pub fn follow(&mut self) -> Result<()> {
        let site = site::current(&self.current);
        site.is_sound()?;
        if !Arc::ptr_eq(&site, &self.site) {
            *self = open::reader(&site, &self.current)?;
        }
        Ok(())
    }

    /// Newest first, what is unsaved included.
    pub fn newest(&self, filter: &Filter, offset: u64, limit: usize, unsaved: &Unsaved) -> Result<Vec<Point>> {
        self.newest_points(filter, offset, limit, unsaved)
    }

    /// Oldest first, at most about `limit` points behind the cursor `after`; `None` as the next cursor at the end.
    /// For exports: each call is a read of its own.
    pub fn oldest(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
        unsaved: &Unsaved,
    ) -> Result<(Vec<Point>, Option<Cursor>)> {
        self.oldest_points(filter, after, limit, unsaved)
    }

    /// Buckets of one level that overlap `[from, to)`, only those with something known in them, ascending but for samples
    /// from before and after a clock was set back. Of days, those not yet closed are cut in `zone`. For `Sample`, one
    /// bucket a sample, `from` being its start.
    pub fn each_bucket(
        &self,
        level: Resolution,
        iface: IfaceId,
        range: (i64, i64),
        zone: &Zone,
        unsaved: &Unsaved,
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        self.level(level, iface, range, zone, unsaved, each)
    }

    /// The same, all of them and in order: for ranges that are known to be short.
    pub fn buckets(
        &self,
        level: Resolution,
        iface: IfaceId,
        from: i64,
        to: i64,
        zone: &Zone,
        unsaved: &Unsaved,
    ) -> Result<Vec<Bucket>> {
        let mut buckets = Vec::new();
        self.each_bucket(level, iface, (from, to), zone, unsaved, &mut |bucket| buckets.push(*bucket))?;
        buckets.sort_by_key(|bucket| (bucket.to, bucket.from));
        Ok(buckets)
    }

    /// What passed in the local day around a moment, for all interfaces at once.
    pub fn day(&self, unix: i64, zone: &Zone, unsaved: &Unsaved) -> Result<Map<IfaceId, Counters>> {
        self.day_of_all(unix, zone, unsaved)
    }

    /// Newest first, and without those that are in memory too: what is being saved at this moment is in both places.
    pub fn events(&self, filter: &EventFilter, in_memory: &[Event], limit: usize, offset: u64) -> Result<Vec<Event>> {
        self.newest_events(filter, in_memory, limit, offset)
    }

    /// The oldest moment that a level has anything of on disk; not where a walk through it begins, for that is `next_of`.
    pub fn oldest_of(&self, level: Resolution) -> Result<Option<i64>> {
        self.beginning(level)
    }

    /// Where a walk through a level's buckets may begin, or go on that has found nothing up to `from`: there is nothing
    /// before, but there may be nothing for some days after either. `None` when nothing follows.
    pub fn next_of(&self, level: Resolution, from: i64, unsaved: &Unsaved) -> Result<Option<i64>> {
        self.following(level, from, unsaved)
    }

    pub fn copier(&self) -> Copier {
        Copier { current: self.current.clone() }
    }

    pub fn facts(&self) -> Result<Facts> {
        self.count_facts()
    }
}

/// The same questions where there is no database to ask, with the answers that it would give of these samples.
pub struct Unstored<'a>(pub &'a Unsaved);

impl Unstored<'_> {
    pub fn each_bucket(
        &self,
        level: Resolution,
        iface: IfaceId,
        range: (i64, i64),
        zone: &Zone,
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        query::level(None, level, iface, range, zone, self.0, each)
    }

    pub fn day(&self, unix: i64, zone: &Zone) -> Result<Map<IfaceId, Counters>> {
        query::day_of_all(None, unix, zone, self.0)
    }

    pub fn next_of(&self, level: Resolution, from: i64) -> Result<Option<i64>> {
        query::following(None, level, from, self.0)
    }
}

/// Where a walk through history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub unix: i64,
    pub seq: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub samples: u64,
    pub settings: u64,
    pub size_bytes: u64,
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
            None => Error::new(kind, error.to_string()),
        }
    }
}
