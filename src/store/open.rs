//! Opening the database: look before touching, keep others out, fall back where the file system lacks something, set a
//! damaged file aside, and a log that belongs to another file. Everything odd that happens here is told loudly, in the
//! log and as an event.
//!
//! While the database is in use nobody may `open()` its path outside SQLite: closing any descriptor of a file drops all
//! POSIX locks that the process holds on it (https://www.sqlite.org/howtocorrupt.html, 2.2). So the look at the
//! header comes before SQLite, and the guard against a second process has a file of its own.

use crate::sorted::Map;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::connection::{BUSY, PAGE_BYTES, bare, connection, pragma, prepare, set};
use super::copy;
use super::files::{beside, io_error, private, resolve, sort, sync_directory, unused};
use super::guard::{FileId, Guard, HANDOVER};
use super::migrate::{self, APPLICATION_ID, PAGES_AT_ONCE, SCHEMA};
use super::site::{Hold, Site};
use super::state::State;
use super::window::put_mark;
use super::{Opened, Options, Reader, Store};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Event, EventKind, Kind, Record, Stack};

/// How the first page of the schema begins, behind the file's header, with the number of its tables two bytes on.
const LEAF_OF_TABLE: u8 = 13;
/// Below this the schema itself and one window would not fit.
const LEAST_PAGES: u64 = 64;

/// Ways to the file system, best first.
const FILE_SYSTEMS: [Option<&str>; 3] = [
    // Keeps the index of the write-ahead log on the heap: no -shm file, which jffs2 cannot map and whose dirty pages
    // would double what is written. All connections of this process share it; other processes are kept out.
    Some("unix-excl"),
    // Where fcntl locks fail (overlayfs on jffs2 has been seen to answer EINVAL). Has no write-ahead log.
    Some("unix-dotfile"),
    // Where there are no unix ones at all.
    None,
];

/// For the writer's.
const WRITER_PRAGMAS: [(&str, &str); 3] = [
    // Syncs at checkpoints, not at commits: a power cut may take the latest minutes, never the consistency.
    ("synchronous", "NORMAL"),
    // The log stays under 300 KB, and pages changed in several flushes go to their place once.
    ("wal_autocheckpoint", "64"),
    // What a long transaction (a lengthy gap) has blown the log up to is given back.
    ("journal_size_limit", "1048576"),
];

/// The write-ahead log writes a page once and syncs rarely; the other works everywhere.
const JOURNALS: [&str; 2] = ["wal", "truncate"];

pub(super) fn open(path: &Path, options: &Options) -> Result<Opened> {
    // Absolute also because SQLite takes a name like "file:x?mode=memory" for an URI.
    let asked = std::path::absolute(path).map_err(|cause| io_error(path, cause))?;
    // The guard stands beside the file itself, whatever link leads there.
    let path = resolve(&asked).map_err(|cause| io_error(path, cause))?;
    usable(&path)?;
    if let Some(parent) = path.parent() {
        private_directory(parent).map_err(|cause| io_error(parent, cause))?;
    }
    let guard = Guard::take(&path)?;
    let mut hold = match Hold::take(&path) {
        Ok(hold) => hold,
        Err(error) => {
            guard.withdraw();
            return Err(error);
        }
    };
    copy::clear(&path);
    let mut events = Vec::new();
    let pages = (options.max_bytes / PAGE_BYTES).max(LEAST_PAGES);
    let opened = inspect(&path, guard.known())
        .and_then(|()| part_from_foreign_log(&path, &guard, &mut events))
        .and_then(|()| connect(&path, pages, &guard, &mut events));
    let (conn, file_system, state, records) = match opened {
        Err(error) if error.kind == ErrorKind::Corrupt => {
            set_aside(&path, &error, &mut events)?;
            hold = None;
            connect(&path, pages, &guard, &mut events)?
        }
        Err(error) => {
            guard.withdraw();
            return Err(error);
        }
        Ok(connected) => connected,
    };
    guard.sign();
    let settings = settings(&conn).map_err(|error| error.context(format!("cannot use {}", path.display())))?;
    let (next_seq, newest) = (state.next_seq(), state.newest);
    let site = Arc::new(Site::new(path, file_system, hold, Arc::new(guard), &conn)?);
    let store = store(asked, site, pages, conn, state);
    Ok(Opened { store, records, settings, next_seq, newest, events })
}

fn store(asked: PathBuf, site: Arc<Site>, pages: u64, conn: Connection, state: State) -> Store {
    let current = Arc::new(Mutex::new(site.clone()));
    let (kept, doubtful, room, made, parted, events) = (None, false, 1, None, false, Vec::new());
    let astray = false;
    Store { asked, astray, pages, conn, state, kept, doubtful, room, made, parted, events, site, current }
}

/// Something that a database can be, or can be made of.
pub(super) fn usable(path: &Path) -> Result<()> {
    let refuse = |what: &str| {
        let sentence = format!("{} {what}; name a file with --database", path.display());
        Err(Error::new(ErrorKind::Foreign, sentence))
    };
    if path.to_str().is_none() {
        return refuse("is no name in UTF-8");
    }
    match fs::metadata(path).ok().as_ref().and_then(sort) {
        Some(what) => refuse(&format!("is {what}")),
        None => Ok(()),
    }
}

pub(super) fn reader(site: &Arc<Site>, current: &Arc<Mutex<Arc<Site>>>) -> Result<Reader> {
    let conn = site.connect()?;
    // Taking in the log is the writer's.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Not opened read-only: the log could not be recovered then.
    set(&conn, "query_only", "1")?;
    // A chart reads each page once, and the operating system has it anyway.
    set(&conn, "cache_size", "-64")?;
    Ok(Reader { conn, site: site.clone(), current: current.clone() })
}

/// Looks at the file's header, before SQLite has it open. `known`: a database of ours was here before.
pub(super) fn inspect(path: &Path, known: bool) -> Result<()> {
    let mut header = [0; 105];
    let mut file = match File::open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|cause| io_error(path, cause))?,
    };
    let length = file.metadata().map_err(|cause| io_error(path, cause))?.len();
    match file.read_exact(&mut header) {
        Err(_) if length == 0 => {
            log::warn!("{} is empty; starting afresh in it", path.display());
            return Ok(());
        }
        Err(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => return Err(io_error(path, cause)),
        _ => {}
    }
    // Zeros are what a power cut leaves of a file on many file systems: ours, but lost.
    if header[..16] == [0; 16] {
        return Err(Error::new(ErrorKind::Corrupt, "its first page is all zeros"));
    }
    if !header.starts_with(b"SQLite format 3\0") {
        let smashed = || Error::new(ErrorKind::Corrupt, "its header is not one");
        return Err(if known { smashed() } else { foreign(path) });
    }
    let number = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (version, owner) = (number(60), number(68));
    // A file that has just been made has neither an id nor a table: both are still in its log.
    let bare = owner == 0 && header[100] == LEAF_OF_TABLE && header[103..105] == [0, 0];
    if owner != APPLICATION_ID && !bare && !known {
        return Err(foreign(path));
    }
    refuse_newer(path, version)
}

fn refuse_newer(path: &Path, version: i32) -> Result<()> {
    if i64::from(version) <= SCHEMA {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Newer,
        format!(
            "{} was written by a newer net-pulse (schema {version}, this one knows up to {SCHEMA}); \
             install that version again, or name another file with --database",
            path.display()
        ),
    ))
}

/// SQLite plays whatever log it finds into the file of that name: also the log of a killed program into a copy that was put
/// in place of its database since. The log's contents win then, or the file is taken for damaged. The guard knows which
/// file the log belongs to. Where it does not, or the file cannot be read without its log, the log is taken for its own:
/// after a crash it holds what was saved last.
pub(super) fn part_from_foreign_log(path: &Path, guard: &Guard, events: &mut Vec<Event>) -> Result<()> {
    let logs = ["-wal", "-journal"].map(|part| beside(path, part));
    let mut logs = logs.iter().filter(|log| fs::metadata(log).is_ok_and(|facts| facts.len() > 0)).peekable();
    let Some(ids) = guard.ids().filter(|_| logs.peek().is_some()) else { return Ok(()) };
    match is_other_file(path, &ids) {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => {
            log::debug!("{} cannot be read without its log: {error}", path.display());
            return Ok(());
        }
    }
    for log in logs {
        let aside = unused(log, "foreign");
        fs::rename(log, &aside).map_err(|cause| io_error(log, cause))?;
        let (file, log, aside) = (path.display(), log.display(), aside.display());
        tell(events, format!("{log} belongs to the file that {file} was before: set aside as {aside}"));
    }
    // After a power cut the log must not have its old name again beside a file that has got a new id meanwhile.
    sync_directory(path);
    Ok(())
}

/// A whole database of ours, but none of those that the guard speaks of. Read without its log and without any locks: it
/// is done before SQLite has it open.
fn is_other_file(path: &Path, ids: &[FileId; 2]) -> Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(immutable(path), flags)?;
    prepare(&conn)?;
    if pragma(&conn, "application_id")? as i32 != APPLICATION_ID {
        return Ok(false);
    }
    match file_id(&conn)? {
        Some(id) if !ids.contains(&id) => {}
        _ => return Ok(false),
    }
    // Cut off while the log was being taken in, its pages are old and new ones, and the id can be anything.
    Ok(conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))? == "ok")
}

/// A name for SQLite that has it read the file as it is and nothing beside it: https://www.sqlite.org/uri.html.
fn immutable(path: &Path) -> OsString {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

/// `None` for something that this program has not written.
fn file_id(conn: &Connection) -> Result<Option<FileId>> {
    let id = conn
        .query_row("SELECT value FROM meta WHERE key = 'file'", [], |row| {
            Ok(row.get_ref(0)?.as_str().map(FileId::parse)?)
        })
        .optional()?;
    Ok(id.unwrap_or(Some(FileId::NONE)))
}

/// What another program has added can be more than the SQLite that is built in knows: a newer SQLite has more words. That is
/// no damage.
fn schema_fault(path: &Path, file_system: Option<&str>, error: Error) -> Error {
    if error.kind != ErrorKind::Corrupt {
        return error;
    }
    match has_unknown_schema(path, file_system) {
        Ok(true) => {
            let what = "has something that another program has added, and this one cannot read";
            let before = format!("{} {what} (", path.display());
            Error::caused(ErrorKind::Foreign, error).within(before, "); remove that with sqlite3")
        }
        Err(stranger) if matches!(stranger.kind, ErrorKind::Foreign | ErrorKind::Newer) => stranger,
        _ => error,
    }
}

/// All that is ours is as we have made it, and something else cannot be prepared as a statement.
fn has_unknown_schema(path: &Path, file_system: Option<&str>) -> Result<bool> {
    let conn = &bare(path, file_system)?;
    // The schema's rows can be read then, also those that cannot be understood.
    set(conn, "writable_schema", "1")?;
    let (version, owner) = (pragma(conn, "user_version")? as i32, pragma(conn, "application_id")? as i32);
    let found = statements(conn)?;
    if !found.is_empty() && owner != APPLICATION_ID {
        return Err(foreign(path));
    }
    refuse_newer(path, version)?;
    let model = Connection::open_in_memory()?;
    migrate::make_tables(&model, version.into())?;
    let ours = statements(&model)?;
    if !ours.iter().all(|statement| found.contains(statement)) {
        return Ok(false);
    }
    let mut others = found.iter().filter(|statement| !ours.contains(statement));
    // Made in the model as far as possible: one may need another.
    Ok(others.any(|statement| model.prepare(statement).map(|mut known| known.execute([])).is_err()))
}

/// Of which the schema consists, but for what SQLite adds by itself.
fn statements(conn: &Connection) -> Result<Vec<String>> {
    let own =
        "SELECT sql FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid";
    let mut statement = conn.prepare(own)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn foreign(path: &Path) -> Error {
    let sentence = format!("{} is not a database of net-pulse; name another file with --database", path.display());
    Error::new(ErrorKind::Foreign, sentence)
}

pub(super) type Connected = (Connection, Option<&'static str>, State, Vec<Record>);

pub(super) fn connect(path: &Path, pages: u64, guard: &Guard, events: &mut Vec<Event>) -> Result<Connected> {
    let mut first = None;
    for file_system in FILE_SYSTEMS {
        match connect_by(path, file_system, pages, guard, events) {
            Ok((conn, state, records)) => {
                if let Some(error) = first {
                    tell(events, format!("{error}: locking by other means ({})", file_system.unwrap_or("default")));
                }
                return Ok((conn, file_system, state, records));
            }
            Err(error) if matches!(error.kind, ErrorKind::Io | ErrorKind::System) => first = first.or(Some(error)),
            // These say it themselves, or are not the last word.
            Err(error) if matches!(error.kind, ErrorKind::Foreign | ErrorKind::Newer | ErrorKind::Corrupt) => {
                return Err(error);
            }
            Err(error) => {
                first = Some(error);
                break;
            }
        }
    }
    let error = first.unwrap_or_else(|| Error::new(ErrorKind::System, "no way to open it"));
    Err(error.context(format!("cannot use {}", path.display())))
}

fn connect_by(
    path: &Path,
    file_system: Option<&'static str>,
    pages: u64,
    guard: &Guard,
    events: &mut Vec<Event>,
) -> Result<(Connection, State, Vec<Record>)> {
    if file_system == Some("unix-dotfile") {
        // Ours from before a power cut: the guard says that nobody else can have it.
        let _ = fs::remove_dir(beside(path, ".lock"));
    }
    if !path.exists() {
        // SQLite would make it readable for all; the log beside it takes over the mode.
        private(OpenOptions::new().write(true).create_new(true)).open(path).map_err(|cause| io_error(path, cause))?;
    }
    // Nobody of this process is in the way, and there is more to do than to wait for others.
    let mut conn = connection(path, file_system, HANDOVER).map_err(|error| schema_fault(path, file_system, error))?;
    let (version, owner) = (pragma(&conn, "user_version")? as i32, pragma(&conn, "application_id")? as i32);
    let tables: i32 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(foreign(path));
    }
    refuse_newer(path, version)?;
    if tables > 0 && version <= 0 {
        let what = "has tables of net-pulse, and no number of their schema: something has changed it";
        let next = "put a copy in its place, or name another file with --database";
        return Err(Error::new(ErrorKind::Foreign, format!("{} {what}; {next}", path.display())));
    }
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Error::new(ErrorKind::Corrupt, verdict));
    }
    if tables == 0 {
        set(&conn, "page_size", &PAGE_BYTES.to_string())?;
    }
    for (name, value) in WRITER_PRAGMAS {
        set(&conn, name, value)?;
    }
    writable(&mut conn, &Target { path, file_system, guard }, events)?;
    // Only now: at its largest size a file has no room for a migration.
    set(&conn, "max_page_count", &pages.min(u64::from(u32::MAX - 1)).to_string())?;
    let state = State::load(&conn)?;
    let records = records(&conn, &state)?;
    conn.busy_timeout(BUSY)?;
    Ok((conn, state, records))
}

/// Where a database is, by which way it is reached, and what keeps others out.
struct Target<'a> {
    path: &'a Path,
    file_system: Option<&'static str>,
    guard: &'a Guard,
}

/// Chooses a journal and proves it by writing: some file systems agree to a write-ahead log and fail at the first page.
fn writable(conn: &mut Connection, target: &Target, events: &mut Vec<Event>) -> Result<()> {
    let mut first = None;
    for journal in JOURNALS {
        let tried = conn
            .query_row(&format!("PRAGMA journal_mode={journal}"), [], |row| row.get::<_, String>(0))
            .map_err(Error::from)
            .and_then(|reply| {
                if reply.eq_ignore_ascii_case(journal) {
                    return begin(conn, target);
                }
                Err(Error::new(ErrorKind::Io, format!("journal_mode={journal} was answered with {reply}")))
            });
        match tried {
            Ok(told) => {
                told.into_iter().for_each(|sentence| note(events, sentence));
                if let Some(error) = first {
                    tell(events, format!("no write-ahead log here ({error}): more is written to the disk"));
                }
                return Ok(());
            }
            // Nothing wrong with the file: it can be read, and written to once there is room.
            Err(error) if error.kind == ErrorKind::Full && migrate::is_over(conn).unwrap_or(false) => {
                tell(events, format!("the disk is full: {error}"));
                return Ok(());
            }
            Err(error) if matches!(error.kind, ErrorKind::Io | ErrorKind::Busy | ErrorKind::System) => {
                first = first.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or_else(|| Error::new(ErrorKind::Io, "no journal works")))
}

/// Brings the schema up to date, and before that makes a copy of a file that an older program could not open any more. Gives
/// what is to be told.
fn begin(conn: &mut Connection, target: &Target) -> Result<Vec<String>> {
    let Target { path, file_system, guard } = *target;
    let Some(schema) = migrate::about_to_leave(conn)? else { return migrate(conn, guard, None) };
    // Where nothing can be written no copy is of use.
    drop(conn.transaction_with_behavior(TransactionBehavior::Immediate)?);
    let kept = copy::keep(conn, path, file_system, schema);
    let sentence = kept.sentence(path, schema, SCHEMA);
    migrate(conn, guard, Some(sentence)).inspect_err(|_| {
        if migrate::about_to_leave(conn).is_ok_and(|schema| schema.is_some()) {
            kept.discard();
        }
    })
}

/// Writes something in any case. The first transaction has the new id: an older copy of the file is another one from then on.
fn migrate(conn: &mut Connection, guard: &Guard, sentence: Option<String>) -> Result<Vec<String>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some(sentence) = &sentence {
        migrate::have_told(&tx, sentence)?;
    }
    // As little as possible of the work: a disk may be nearly full.
    let mut done = migrate::some(&tx, 1)?;
    tx.execute(
        "INSERT INTO meta (key, value) VALUES ('opened', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1",
        [],
    )?;
    let id = renew_id(&tx, guard)?;
    tx.commit()?;
    if let Some(sentence) = sentence {
        log::info!("{sentence}");
    }
    if let Some(id) = id {
        settle_id(conn, guard, id);
    }
    let (mut pages, mut log_is_empty) = (PAGES_AT_ONCE, false);
    while !done {
        done = match turn(conn, pages) {
            // Taking in the log makes room, and less of it needs less.
            Err(error) if error.kind == ErrorKind::Full && !(log_is_empty && pages == 1) => {
                conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                (pages, log_is_empty) = (if log_is_empty { 1 } else { pages }, true);
                continue;
            }
            outcome => outcome?,
        };
        log_is_empty = false;
    }
    migrate::to_be_told(conn)
}

fn turn(conn: &mut Connection, pages: u64) -> Result<bool> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = migrate::some(&tx, pages)?;
    tx.commit()?;
    Ok(done)
}

/// From here on every copy that was made before is another file. The guard has both ids before the file can have the new
/// one: whenever the power goes, it speaks of the file that is found.
fn renew_id(conn: &Connection, guard: &Guard) -> Result<Option<FileId>> {
    let old = file_id(conn)?.unwrap_or(FileId::NONE);
    let new: String = conn.query_row("SELECT hex(randomblob(8))", [], |row| row.get(0))?;
    let new = FileId::parse(&new).filter(|new| guard.note(&[old, *new], true));
    if let Some(id) = new {
        put_mark(conn, "file", id.text())?;
    }
    Ok(new)
}

/// The log is taken in, so that the file has the new id without it too; then the guard forgets the old one, which copies
/// may have. Until that has worked, either is taken.
fn settle_id(conn: &Connection, guard: &Guard, id: FileId) {
    let taken_in = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    if taken_in.is_ok_and(|blocked| blocked == 0) {
        // Not synced: should a power cut bring the old content back, then both are right.
        guard.note(&[id, id], false);
    }
}

fn records(conn: &Connection, state: &State) -> Result<Vec<Record>> {
    let mut statement = conn.prepare(
        "SELECT id, name, kind, alias, ifindex, boot, first_seen, machine, namespace, mac, node FROM interface
         ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let first_seen = row.get(6)?;
        let tally = state.tally(id);
        records.push(Record {
            id,
            name: row.get(1)?,
            kind: Kind::from_name(&row.get::<_, String>(2)?),
            alias: row.get(3)?,
            ifindex: row.get(4)?,
            stack: Stack { machine: row.get(7)?, boot: row.get(5)?, namespace: row.get::<_, i64>(8)? as u64 },
            mac: row.get(9)?,
            node: row.get::<_, i64>(10)? as u64,
            first_seen,
            last_seen: tally.last_seen.unwrap_or(first_seen),
            raw: tally.raw,
            lifetime: tally.lifetime,
            mono_ms: tally.mono_ms,
        });
    }
    Ok(records)
}

fn settings(conn: &Connection) -> Result<Map<String, String>> {
    let mut statement = conn.prepare("SELECT key, value FROM setting")?;
    let settings = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(settings.collect::<rusqlite::Result<_>>()?)
}

/// Renames a damaged database, and what belongs to it so that the two can still be looked at together.
fn set_aside(path: &Path, why: &Error, events: &mut Vec<Event>) -> Result<()> {
    let aside = unused(path, "corrupt");
    fs::rename(path, &aside).map_err(|cause| io_error(path, cause))?;
    for part in ["-wal", "-journal"] {
        let from = beside(path, part);
        if from.exists() {
            fs::rename(&from, beside(&aside, part)).map_err(|cause| io_error(&from, cause))?;
        }
    }
    tell(events, format!("the database was damaged ({why}): set aside as {}, starting afresh", aside.display()));
    Ok(())
}

pub(super) fn tell(events: &mut Vec<Event>, detail: String) {
    log::error!("{detail}");
    note(events, detail);
}

/// What is no fault.
fn note(events: &mut Vec<Event>, detail: String) {
    let mono_ms = SystemClock.now().mono_ms;
    events.push(Event { unix: None, mono_ms, kind: EventKind::Storage, interface: String::new(), detail });
}

pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
    builder.recursive(true).create(path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Batch;
    use crate::store::View;
    use crate::store::testing::{OPTIONS, Place, Random, T};

    fn points(opened: &Opened) -> u64 {
        opened.store.reader().unwrap().view().unwrap().facts().unwrap().samples
    }

    /// A database with three samples, closed.
    fn filled(place: &Place) {
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        opened.save(&Batch::steady(1, T + 30, 3)).unwrap();
        assert_eq!((points(&opened), opened.events.len()), (3, 0));
    }

    fn names(place: &Place) -> Vec<String> {
        let entries = fs::read_dir(place.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn closing_leaves_one_file_and_its_guard() {
        let place = Place::new();
        filled(&place);
        assert_eq!(names(&place), ["net-pulse.db", "net-pulse.db.guard"]);
        assert_eq!(points(&Store::open(&place.file(), &OPTIONS).unwrap()), 3);
    }

    #[test]
    #[cfg(unix)]
    fn files_are_for_their_owner_and_directories_are_made() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new();
        let path = place.path().join("a/b/net-pulse.db");
        let mut opened = Store::open(&path, &OPTIONS).unwrap();
        opened.save(&Batch::steady(1, T + 30, 3)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for part in ["", "-wal", ".guard"] {
            assert_eq!(mode(&beside(&path, part)), 0o600, "{part}");
        }
        assert_eq!(mode(&place.path().join("a/b")) & 0o027, 0);
        assert!(!beside(&path, "-shm").exists());
    }

    #[test]
    fn a_second_process_is_told_who_is_in_its_way() {
        let place = Place::new();
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        let refused = || Store::open(&place.file(), &OPTIONS).err().unwrap();
        assert_eq!(refused().kind, ErrorKind::Taken);
        assert!(refused().to_string().contains("another net-pulse uses"));
        drop(opened);
        // The database is in use while anything of it is open.
        assert_eq!(refused().kind, ErrorKind::Taken);
        drop(reader);
        Store::open(&place.file(), &OPTIONS).unwrap();
    }

    /// Refused with the kind and the words, and left as it was.
    fn refuses(place: &Place, kind: ErrorKind, words: &[&str]) {
        let before = fs::read(place.file()).ok();
        let error = Store::open(&place.file(), &OPTIONS).err().unwrap();
        assert_eq!(error.kind, kind, "{error}");
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
        assert_eq!(fs::read(place.file()).ok(), before);
        assert!(names(place).iter().all(|name| !name.contains("corrupt")));
    }

    /// A guard that has never kept anything of ours is litter.
    fn refuses_a_stranger(place: &Place, words: &[&str]) {
        let before = names(place);
        refuses(place, ErrorKind::Foreign, words);
        assert_eq!(names(place), before);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let place = Place::new();
        fs::create_dir(place.file()).unwrap();
        refuses_a_stranger(&place, &["is a directory", "--database"]);
        fs::remove_dir(place.file()).unwrap();

        for text in [&b"hello"[..], &[b'x'; 9_000]] {
            fs::write(place.file(), text).unwrap();
            refuses_a_stranger(&place, &["is not a database of net-pulse", "--database"]);
        }
        fs::remove_file(place.file()).unwrap();
        Connection::open(place.file()).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
        refuses_a_stranger(&place, &["is not a database of net-pulse"]);
    }

    /// Nothing of the language itself is left out, so what somebody else has added to the file is read as it was meant.
    #[test]
    fn what_another_program_has_added_stays() {
        let place = Place::new();
        filled(&place);
        let conn = Connection::open(place.file()).unwrap();
        conn.execute_batch(
            "PRAGMA auto_vacuum=FULL;
             VACUUM;
             CREATE TABLE g (a DEFAULT 0x10, b AS (a || 1));
             INSERT INTO g DEFAULT VALUES;
             CREATE VIEW w AS SELECT b FROM g;
             CREATE TRIGGER t INSTEAD OF INSERT ON w BEGIN SELECT 1; END;
             PRAGMA writable_schema=ON;
             INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING fts5(x, y)');",
        )
        .unwrap();
        drop(conn);
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        assert_eq!((points(&opened), opened.events.len()), (3, 0));
        opened.save(&Batch::steady(100, T + 3_000, 3)).unwrap();
        assert_eq!(points(&opened), 6);
        assert!(opened.store.reader().unwrap().copier().copy(None).is_ok());
        drop(opened);
        let conn = Connection::open(place.file()).unwrap();
        assert_eq!(conn.query_row("SELECT b FROM w", [], |row| row.get::<_, String>(0)).unwrap(), "161");
        assert_eq!(conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");

        let conn = Connection::open(place.file()).unwrap();
        conn.execute_batch(
            "PRAGMA writable_schema=ON;
             INSERT INTO sqlite_schema VALUES ('table', 'n', 'n', 2, 'CREATE TABLE n (a NEWLY INVENTED (WORDS) FOR IT)');",
        )
        .unwrap();
        drop(conn);
        let bytes = fs::read(place.file()).unwrap();
        refuses_a_stranger(&place, &["another program has added", "sqlite3"]);
        assert_eq!(fs::read(place.file()).unwrap(), bytes);
    }

    /// Something unknown in the schema is no excuse for damage in what is ours, nor is damage alone something unknown.
    #[test]
    fn a_damaged_schema_is_not_taken_for_one_with_more_words() {
        let edit = |place: &Place, statement: &str| {
            let conn = Connection::open(place.file()).unwrap();
            conn.execute_batch(&format!("PRAGMA writable_schema=ON; {statement}")).unwrap();
        };
        let unknown =
            "INSERT INTO sqlite_schema VALUES ('view', 'n', 'n', 0, 'CREATE VIEW n AS SELECT NEWLY INVENTED WORDS');";
        for damage in [
            "UPDATE sqlite_schema SET rootpage = 0 WHERE name = 'interface';",
            "UPDATE sqlite_schema SET sql = replace(sql, 'CREATE TABLE', 'CREATE TABKE') WHERE name = 'interface';",
            "UPDATE sqlite_schema SET sql = NULL WHERE name = 'interface';",
            &format!("UPDATE sqlite_schema SET sql = NULL WHERE name = 'interface'; {unknown}"),
        ] {
            set_aside_after(|path| {
                let conn = Connection::open(path).unwrap();
                conn.execute_batch(&format!("PRAGMA writable_schema=ON; {damage}")).unwrap();
            });
        }
        let place = Place::new();
        filled(&place);
        edit(&place, "INSERT INTO sqlite_schema VALUES ('view', 'm', 'm', 0, 'CREATE VIEW m AS SELECT 1');");
        edit(&place, unknown);
        refuses_a_stranger(&place, &["another program has added", "(malformed database schema (n) - ", "sqlite3"]);
        edit(&place, "DELETE FROM sqlite_schema WHERE name = 'n';");
        assert_eq!(points(&Store::open(&place.file(), &OPTIONS).unwrap()), 3);

        edit(&place, unknown);
        edit(&place, "PRAGMA user_version = 97;");
        refuses(&place, ErrorKind::Newer, &["schema 97"]);
        edit(&place, &format!("PRAGMA user_version = {}; PRAGMA application_id = 97;", SCHEMA));
        refuses(&place, ErrorKind::Foreign, &["is not a database of net-pulse"]);
    }

    /// `.cargo/config.toml` says what SQLite is built without. A migration may use all of the language. Where a function is
    /// missing, a statement fails at the latest when it calls it (`tests/it/floors.rs` holds our own SQL against that).
    #[test]
    fn what_sqlite_is_built_without_is_refused() {
        let conn = Connection::open_in_memory().unwrap();
        for statement in [
            "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, n)",
            "ALTER TABLE a ADD COLUMN added DEFAULT 0x10",
            "ALTER TABLE a RENAME COLUMN n TO m",
            "CREATE TABLE b (of REFERENCES a (id), twice AS (2 * of))",
            "CREATE INDEX c ON a (m)",
            "CREATE VIEW d AS SELECT id FROM a",
            "CREATE TRIGGER e AFTER INSERT ON a BEGIN INSERT INTO b (of) VALUES (new.id); END",
            "INSERT INTO a (m) VALUES (x'00')",
            "EXPLAIN DELETE FROM a",
            "ANALYZE",
            "REINDEX",
        ] {
            conn.execute_batch(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        assert_eq!(conn.query_row("SELECT length(CURRENT_TIMESTAMP)", [], |row| row.get::<_, i64>(0)).unwrap(), 19);
        let number = |query: &str| conn.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT count(*) FROM a"), 1, "EXPLAIN explains");
        assert_eq!(number("SELECT added FROM a"), 16);
        assert_eq!(number("SELECT twice FROM b"), 2, "the trigger acts");
        let refused = |statement: &str| conn.execute_batch(statement).expect_err(statement).to_string();
        assert!(refused("INSERT INTO b (of) VALUES (2)").contains("FOREIGN KEY constraint failed"));
        for (statement, message) in [
            ("SELECT json('1')", "no such function: json"),
            ("SELECT strftime('%Y')", "no such function: strftime"),
            ("SELECT datetime('now')", "no such function: datetime"),
            ("SELECT unixepoch()", "no such function: unixepoch"),
            ("SELECT soundex('x')", "no such function: soundex"),
            ("SELECT load_extension('x')", "no such function: load_extension"),
            ("CREATE VIRTUAL TABLE f USING fts5(x)", "no such module: fts5"),
            ("CREATE VIRTUAL TABLE f USING fts4(x)", "no such module: fts4"),
            ("CREATE VIRTUAL TABLE f USING rtree(x)", "no such module: rtree"),
            ("SELECT * FROM dbstat", "no such table: dbstat"),
            ("SELECT \"a string\"", "no such column"),
        ] {
            assert!(refused(statement).contains(message), "{statement}: {}", refused(statement));
        }
    }

    /// As version 0.1 has left it.
    #[test]
    fn an_older_schema_keeps_its_history_and_does_not_know_whose_counters_it_has() {
        let place = Place::new();
        let conn = Connection::open(place.file()).unwrap();
        conn.execute_batch(include_str!("schema/001.sql")).unwrap();
        conn.execute("INSERT INTO interface VALUES (4, 'eth0', 'ethernet', 'the WAN', 2, 'b0075', 77, NULL)", [])
            .unwrap();
        conn.pragma_update(None, "user_version", 1).unwrap();
        conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        drop(conn);
        for _ in 0..2 {
            let opened = Store::open(&place.file(), &OPTIONS).unwrap();
            let [record] = &opened.records[..] else { panic!("{:?}", opened.records) };
            let stack = Stack { boot: "b0075".into(), ..Stack::default() };
            assert_eq!((record.id, record.name.as_str(), record.alias.as_str()), (4, "eth0", "the WAN"));
            assert_eq!((record.ifindex, &record.stack, record.mac.as_str()), (2, &stack, ""));
        }
    }

    #[test]
    fn a_newer_schema_is_refused_naming_both_versions() {
        let place = Place::new();
        filled(&place);
        Connection::open(place.file()).unwrap().pragma_update(None, "user_version", 97).unwrap();
        refuses(&place, ErrorKind::Newer, &["schema 97", "knows up to "]);
    }

    /// Spoils a filled database, and expects a fresh one with the old one beside it and an event that says so.
    fn set_aside_after(spoil: impl Fn(&Path)) {
        let place = Place::new();
        {
            let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
            (0..40).for_each(|at| opened.save(&Batch::steady(1 + 10 * at, T + 300 * at as i64, 10)).unwrap());
        }
        spoil(&place.file());
        let spoiled = fs::read(place.file()).unwrap();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let aside: Vec<String> = names(&place).into_iter().filter(|name| name.contains(".corrupt-")).collect();
        assert_eq!(aside.len(), 1);
        assert_eq!(fs::read(place.path().join(&aside[0])).unwrap(), spoiled);
        assert_eq!(opened.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Storage]);
        assert!(opened.events[0].detail.contains(&aside[0]));
        assert_eq!((points(&opened), opened.next_seq), (0, 1));
        opened.save(&Batch::steady(1, T + 30, 3)).unwrap();
        assert_eq!(points(&opened), 3);
    }

    fn overwrite(path: &Path, from: usize, to: usize, byte: u8) {
        let mut bytes = fs::read(path).unwrap();
        let to = to.min(bytes.len());
        bytes[from..to].fill(byte);
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn e40_a_damaged_database_is_set_aside() {
        set_aside_after(|path| overwrite(path, 0, 4_096, 0));
        set_aside_after(|path| overwrite(path, 0, usize::MAX, 0));
        set_aside_after(|path| overwrite(path, 16, 4_096, 0xff));
        set_aside_after(|path| overwrite(path, 100, 4_096, 0x5a));
        set_aside_after(|path| overwrite(path, 4_096, 40_960, 0x5a));
        // Without its header it could be anybody's, but for what the guard remembers.
        set_aside_after(|path| overwrite(path, 0, 100, 0x5a));
        set_aside_after(|path| overwrite(path, 0, usize::MAX, 0x5a));
        set_aside_after(|path| OpenOptions::new().write(true).open(path).unwrap().set_len(3 * 4_096).unwrap());
    }

    #[test]
    fn e40_the_log_goes_along_with_its_database() {
        let place = Place::new();
        fs::write(place.file(), [0; 8_192]).unwrap();
        fs::write(beside(&place.file(), "-wal"), b"the log").unwrap();
        Store::open(&place.file(), &OPTIONS).unwrap();
        let log = names(&place).into_iter().find(|name| name.contains(".corrupt-") && name.ends_with("-wal")).unwrap();
        assert_eq!(fs::read(place.path().join(log)).unwrap(), b"the log");
    }

    #[test]
    fn e40_an_empty_file_is_a_fresh_start() {
        let place = Place::new();
        fs::write(place.file(), b"").unwrap();
        filled(&place);
    }

    #[test]
    fn e40_two_damaged_ones_do_not_overwrite_each_other() {
        let place = Place::new();
        filled(&place);
        for _ in 0..3 {
            overwrite(&place.file(), 0, 100, 0);
            drop(Store::open(&place.file(), &OPTIONS).unwrap());
        }
        assert_eq!(names(&place).iter().filter(|name| name.contains(".corrupt-")).count(), 3);
    }

    /// Names, without what they all begin with, and contents.
    type Files = BTreeMap<String, Vec<u8>>;

    /// What a crash at this moment leaves.
    fn files(place: &Place) -> Files {
        let content = |name: String| {
            let bytes = fs::read(place.path().join(&name)).unwrap();
            (name.strip_prefix("net-pulse.db").unwrap().to_string(), bytes)
        };
        names(place).into_iter().map(content).collect()
    }

    fn laid(files: &Files) -> Place {
        let place = Place::new();
        files.iter().for_each(|(part, bytes)| fs::write(beside(&place.file(), part), bytes).unwrap());
        place
    }

    /// Opens it and saves so many samples, one in each window of six hours, so that rows of all tables change.
    fn saved(place: &Place, count: u64) -> Opened {
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let start = opened.newest.unwrap_or(T);
        for at in 0..count {
            let batch = Batch::steady(opened.next_seq + at, start + 21_600 * (at as i64 + 1), 1);
            opened.save(&batch).unwrap();
        }
        opened
    }

    /// The files as they are when a program that has saved so many samples is killed.
    fn killed(place: &Place, count: u64) -> Files {
        let opened = saved(place, count);
        let files = files(place);
        assert!(files["-wal"].len() > 4_096, "the latest samples are in the log alone");
        drop(opened);
        files
    }

    /// Opens the files, expects so many samples and that nothing is told.
    fn opens_with(files: &Files, expect: u64, what: &str) {
        let place = laid(files);
        let opened = Store::open(&place.file(), &OPTIONS).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(opened.events.is_empty(), "{what}: {:?}", opened.events);
        assert_eq!(points(&opened), expect, "{what}");
    }

    /// Opens the files, expects so many samples and that this log is set aside as it is, and told of.
    fn opens_without(files: &Files, log: &str, expect: u64) {
        let place = laid(files);
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let asides: Vec<String> = names(&place).into_iter().filter(|name| name.contains(".foreign-")).collect();
        assert_eq!(asides.len(), 1, "{asides:?}");
        assert!(asides[0].starts_with(&format!("net-pulse.db{log}.foreign-")), "{asides:?}");
        assert_eq!(fs::read(place.path().join(&asides[0])).unwrap(), files[log]);
        assert_eq!(opened.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Storage]);
        assert!(opened.events[0].detail.contains(&asides[0]), "{:?}", opened.events);
        assert_eq!(points(&opened), expect);
        drop(opened);
        // From here on it is a file with a log of its own.
        let mut files = killed(&place, 2);
        files.remove(&asides[0]["net-pulse.db".len()..]);
        opens_with(&files, expect + 2, "after a kill");
    }

    fn copied(opened: &Opened) -> Vec<u8> {
        let mut bytes = Vec::new();
        opened.store.reader().unwrap().copier().copy(None).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_log_of_the_file_that_a_copy_was_put_in_place_of_is_set_aside() {
        let place = Place::new();
        drop(saved(&place, 3));
        let cold = fs::read(place.file()).unwrap();
        drop(saved(&place, 2));
        let later = fs::read(place.file()).unwrap();
        let opened = saved(&place, 1);
        let warm = copied(&opened);
        drop(opened);
        // Of the run that is killed, too: its ids differ from its original's and from each other's.
        let opened = saved(&place, 4);
        let (one, other) = (copied(&opened), copied(&opened));
        assert_ne!(one, other);
        drop(opened);
        let last = fs::read(place.file()).unwrap();
        let crash = killed(&place, 5);
        opens_with(&crash, 15, "as it was");
        for (copy, expect) in [(cold, 3), (later, 5), (warm, 6), (one, 10), (other, 10), (last, 10)] {
            let mut files = crash.clone();
            files.insert(String::new(), copy);
            opens_without(&files, "-wal", expect);
        }
    }

    /// A copy from before files had ids, and one that never was beside this guard.
    #[test]
    fn a_log_beside_a_copy_from_elsewhere_is_set_aside() {
        let place = Place::new();
        let crash = killed(&place, 5);
        let other = Place::new();
        drop(saved(&other, 2));
        let mut files = crash.clone();
        files.insert(String::new(), fs::read(other.file()).unwrap());
        opens_without(&files, "-wal", 2);
        Connection::open(other.file()).unwrap().execute("DELETE FROM meta WHERE key = 'file'", []).unwrap();
        files.insert(String::new(), fs::read(other.file()).unwrap());
        opens_without(&files, "-wal", 2);
    }

    /// In the middle of a transaction without a write-ahead log.
    fn with_a_hot_journal(place: &Place) -> Files {
        let conn = Connection::open(place.file()).unwrap();
        conn.execute_batch(
            "PRAGMA journal_mode=TRUNCATE; PRAGMA cache_size=1; BEGIN IMMEDIATE; UPDATE sample SET n = 1000;
             CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(100000));",
        )
        .unwrap();
        let files = files(place);
        assert!(files["-journal"].len() > 4_096, "it is on its way to the disk");
        files
    }

    #[test]
    fn a_hot_journal_is_rolled_back_into_its_own_file_only() {
        let place = Place::new();
        drop(saved(&place, 3));
        let cold = fs::read(place.file()).unwrap();
        drop(saved(&place, 4));
        let mut files = with_a_hot_journal(&place);
        opens_with(&files, 7, "as it was");
        files.insert(String::new(), cold);
        opens_without(&files, "-journal", 3);
        // Both kinds, whatever has left them.
        let journal = files.insert("-wal".into(), vec![0x5a; 9_000]).or(files.get("-journal").cloned()).unwrap();
        let place = laid(&files);
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        assert_eq!((points(&opened), opened.events.len()), (3, 2));
        let aside = |part: &str| {
            let name = names(&place).into_iter().find(|name| name.contains(&format!("{part}.foreign-"))).unwrap();
            fs::read(place.path().join(name)).unwrap()
        };
        assert!(aside("-journal") == journal && aside("-wal") == files["-wal"]);
    }

    #[test]
    fn a_log_is_kept_where_the_guard_does_not_know_the_file() {
        let place = Place::new();
        let mut files = killed(&place, 5);
        // Of an older version, removed, smashed.
        let half = files[".guard"][..60].to_vec();
        for guard in [&b"net-pulse\n"[..], b"", &[0x5a; 78], &[0; 78], &half] {
            files.insert(".guard".into(), guard.to_vec());
            opens_with(&files, 5, "another guard");
        }
        files.remove(".guard");
        opens_with(&files, 5, "no guard");
        // An older version has opened it meanwhile, and was killed.
        let place = Place::new();
        drop(saved(&place, 2));
        let guard = Guard::take(&place.file()).unwrap();
        let conn = connection(&place.file(), None, HANDOVER).unwrap();
        conn.execute_batch("UPDATE meta SET value = value + 1 WHERE key = 'opened'").unwrap();
        opens_with(&files_without_lock(&place), 2, "an older version");
        drop((guard, conn));
    }

    fn files_without_lock(place: &Place) -> Files {
        let mut files = files(place);
        files.remove("-shm");
        assert!(files["-wal"].len() > 4_096);
        files
    }

    /// The first `from` bytes of one file, and what the other has behind them.
    fn torn(new: &[u8], old: &[u8], at: usize) -> Vec<u8> {
        [&new[..at], old.get(at..).unwrap_or_default()].concat()
    }

    /// What a power cut may leave of a file whose pages are being written: sectors in order, and pages in no order.
    fn each_torn(new: &[u8], old: &[u8], mut each: impl FnMut(Vec<u8>)) {
        (0..=new.len()).step_by(512).for_each(|at| each(torn(new, old, at)));
        let mut random = Random(88_172_645_463_325_252);
        for _ in 0..100 {
            let mut bytes = old.to_vec();
            for (at, page) in new.chunks(4_096).enumerate().filter(|_| random.below(2) == 0) {
                bytes.resize(bytes.len().max(4_096 * at + page.len()), 0);
                bytes[4_096 * at..][..page.len()].copy_from_slice(page);
            }
            each(bytes);
        }
    }

    #[test]
    fn e40_a_log_that_was_being_taken_in_is_kept() {
        let place = Place::new();
        drop(saved(&place, 3));
        let opened = saved(&place, 5);
        let mut files = files(&place);
        let old = files[""].clone();
        opened.store.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        let new = fs::read(place.file()).unwrap();
        drop(opened);
        assert_ne!(old, new);
        each_torn(&new, &old, |bytes| {
            files.insert(String::new(), bytes);
            opens_with(&files, 8, "torn");
        });
    }

    #[test]
    fn a_file_without_the_number_of_its_schema_is_left_alone() {
        let version = |place: &Place, number: i64| {
            Connection::open(place.file()).unwrap().pragma_update(None, "user_version", number).unwrap();
        };
        for number in [0, -1] {
            let place = Place::new();
            Store::open(&place.file(), &OPTIONS).unwrap().save(&Batch::steady(1, T + 30, 3)).unwrap();
            version(&place, number);
            refuses(&place, ErrorKind::Foreign, &["no number of their schema", "--database"]);
            version(&place, SCHEMA);
            assert_eq!(points(&Store::open(&place.file(), &OPTIONS).unwrap()), 3);
        }
    }

    /// The id, the log and the guard change one after the other while a killed program's database is opened. After each
    /// step, and within it, what is there belongs together.
    #[test]
    fn e40_whenever_the_power_goes_at_an_opening_the_log_is_kept() {
        let place = Place::new();
        drop(saved(&place, 3));
        let mut stages = vec![("killed", killed(&place, 5))];
        let place = laid(&stages[0].1);
        {
            let guard = Guard::take(&place.file()).unwrap();
            let mut conn = connection(&place.file(), Some("unix-excl"), HANDOVER).unwrap();
            WRITER_PRAGMAS.iter().for_each(|(name, value)| set(&conn, name, value).unwrap());
            set(&conn, "journal_mode", "wal").unwrap();
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
            let id = renew_id(&tx, &guard).unwrap().unwrap();
            stages.push(("the guard has both ids", files(&place)));
            tx.commit().unwrap();
            stages.push(("the log has the new id", files(&place)));
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            stages.push(("the file has the new id", files(&place)));
            settle_id(&conn, &guard, id);
            stages.push(("the guard has the new id alone", files(&place)));
        }
        let part = |stage: usize, part: &str| stages[stage].1[part].clone();
        assert!(part(0, ".guard") != part(1, ".guard") && part(1, ".guard") != part(4, ".guard"));
        assert!(part(2, "") != part(3, "") && part(4, "-wal").is_empty());
        for (what, files) in &stages {
            opens_with(files, 8, what);
        }
        // The guard is synced before the transaction begins to be written: what is cut off then is found with either log.
        let mut files = stages[1].1.clone();
        for at in (0..=part(2, "-wal").len()).step_by(512) {
            files.insert("-wal".into(), torn(&part(2, "-wal"), &part(1, "-wal"), at));
            opens_with(&files, 8, "within the log");
        }
        let mut files = stages[0].1.clone();
        for at in 0..=part(1, ".guard").len() {
            files.insert(".guard".into(), torn(&part(1, ".guard"), &part(0, ".guard"), at));
            opens_with(&files, 8, "within the first write of the guard");
        }
        // The log is taken in, and kept until the file is synced.
        let mut files = stages[2].1.clone();
        each_torn(&part(3, ""), &part(2, ""), |bytes| {
            files.insert(String::new(), bytes);
            opens_with(&files, 8, "within the file");
        });
        // Cutting off the log and the last write of the guard are not synced: any of it may be there.
        let mut files = stages[4].1.clone();
        for log in [part(3, "-wal"), Vec::new()] {
            files.insert("-wal".into(), log);
            for at in 0..=part(4, ".guard").len() {
                files.insert(".guard".into(), torn(&part(4, ".guard"), &part(3, ".guard"), at));
                opens_with(&files, 8, "within the last write of the guard");
            }
        }
    }

    /// Where the guard cannot be written to, the file keeps its id, and everything is as it was.
    #[test]
    fn a_guard_that_takes_nothing_changes_no_id() {
        let place = Place::new();
        drop(saved(&place, 3));
        let id = |place: &Place| file_id(&Connection::open(place.file()).unwrap()).unwrap().unwrap();
        let (before, file) = (id(&place), fs::read(beside(&place.file(), ".guard")).unwrap());
        let mut events = Vec::new();
        let guard = Guard::that_takes_nothing(&place.file());
        drop(connect_by(&place.file(), None, 1_000, &guard, &mut events).unwrap());
        drop(guard);
        assert_eq!((id(&place), events.len()), (before, 0));
        assert_eq!(fs::read(beside(&place.file(), ".guard")).unwrap(), file);
        opens_with(&killed(&place, 2), 5, "after it");
        assert_ne!(id(&place), before);
    }

    /// Any name, read by SQLite as an URI.
    #[test]
    fn a_database_of_any_name_is_read_alone() {
        let place = Place::new();
        let directory = place.path().join("50% of a?b#c&d=e ü");
        fs::create_dir(&directory).unwrap();
        let path = directory.join("net pulse+%41.db");
        drop(Store::open(&path, &OPTIONS).unwrap());
        let ids = Guard::take(&path).unwrap().ids().unwrap();
        assert_eq!(ids[0], ids[1]);
        assert!(!is_other_file(&path, &ids).unwrap());
        assert!(is_other_file(&path, &[FileId::NONE; 2]).unwrap());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "nothing is made beside it");
    }

    /// `unix-dotfile` has no write-ahead log: the real thing refuses, and the other journal takes over.
    #[test]
    #[cfg(unix)]
    fn e36_e37_without_a_write_ahead_log_the_other_journal_is_used() {
        let place = Place::new();
        let mut events = Vec::new();
        // What a power cut leaves of its lock.
        fs::create_dir(beside(&place.file(), ".lock")).unwrap();
        let guard = Guard::take(&place.file()).unwrap();
        let (conn, state, _) = connect_by(&place.file(), Some("unix-dotfile"), 1_000, &guard, &mut events).unwrap();
        assert_eq!(events.len(), 1);
        assert!(events[0].detail.contains("no write-ahead log"), "{events:?}");
        let journal: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(journal, "truncate");
        let there = Site::new(place.file(), Some("unix-dotfile"), None, Arc::new(guard), &conn).unwrap();
        let mut store = store(there.path.clone(), Arc::new(there), 1_000, conn, state);
        let reader = store.reader().unwrap();
        for at in 0..5 {
            store.save(&Batch::steady(1 + 3 * at, T + 90 * at as i64, 3)).unwrap();
            assert_eq!(reader.view().unwrap().facts().unwrap().samples, 3 * (at + 1));
            // A reader that rolls back what a failed save has left changes the file too: it stays our own.
            store.conn.execute_batch("CREATE TABLE passing (x); DROP TABLE passing").unwrap();
        }
        drop((store, reader));
        assert_eq!(points(&Store::open(&place.file(), &OPTIONS).unwrap()), 15);
    }

    #[test]
    fn the_pragmas_are_in_force() {
        let place = Place::new();
        let opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let ask = |name: &str| -> i64 { opened.store.conn.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
        for (name, expect) in [
            ("page_size", 4_096),
            ("synchronous", 1),
            ("wal_autocheckpoint", 64),
            ("cache_size", -256),
            ("temp_store", 2),
            ("max_page_count", 8_192),
            ("user_version", SCHEMA),
            ("application_id", APPLICATION_ID.into()),
        ] {
            assert_eq!(ask(name), expect, "{name}");
        }
        let reader = opened.store.reader().unwrap();
        assert!(reader.conn.execute("DELETE FROM sample", []).is_err());
    }

    #[test]
    fn e38_readers_go_on_during_a_transaction_and_after_a_checkpoint() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        opened.save(&Batch::steady(1, T + 30, 3)).unwrap();
        let reader = opened.store.reader().unwrap();
        let conn = &opened.store.conn;
        conn.execute_batch("BEGIN IMMEDIATE; INSERT INTO setting VALUES ('a', 'b')").unwrap();
        let reader = std::thread::spawn(move || {
            let facts = reader.view().unwrap().facts().unwrap();
            assert_eq!((facts.samples, facts.settings), (3, 0));
            reader
        })
        .join()
        .unwrap();
        conn.execute_batch("COMMIT").unwrap();
        let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        let facts = reader.view().unwrap().facts().unwrap();
        assert_eq!((facts.samples, facts.settings), (3, 1));

        // A reader in the middle of its read keeps its view, and does not stop the writer.
        let before = reader.view().unwrap();
        let count = |view: &View| view.facts().unwrap().samples;
        assert_eq!(count(&before), 3);
        (1..200).for_each(|at| opened.save(&Batch::steady(1 + 3 * at, T + 90 * at as i64, 3)).unwrap());
        assert_eq!(count(&before), 3);
        drop(before);
        assert_eq!(reader.view().unwrap().facts().unwrap().samples, 600);
    }
}
