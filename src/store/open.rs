//! Opening the database: look before touching, keep others out, fall back where the file system lacks something, set a
//! damaged file aside. Everything odd that happens here is told loudly, in the log and as an event.
//!
//! While the database is in use nobody may `open()` its path outside SQLite: closing any descriptor of a file drops all
//! POSIX locks that the process holds on it (https://www.sqlite.org/howtocorrupt.html, 2.2). So the look at the
//! header comes before SQLite, and the guard against a second process has a file of its own.

use crate::sorted::Map;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::copy;
use super::state::State;
use super::{Opened, Options, Reader, Store};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Event, EventKind, Kind, Record, Stack};
use crate::system::lock::{Lock, Refusal};

/// Step `n` brings a file from version `n` to `n + 1`; `user_version` is how far it is.
const MIGRATIONS: [&str; 2] = [include_str!("schema/001.sql"), include_str!("schema/002.sql")];
/// "NPls": marks the file as ours, so that another program's is never taken for it.
const APPLICATION_ID: i32 = 0x4e50_6c73;
pub(super) const PAGE_BYTES: u64 = 4096;
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

/// For every connection.
const PRAGMAS: [(&str, &str); 3] = [
    // 256 KiB: the pages of one flush or of one chart; the operating system caches the rest.
    ("cache_size", "-256"),
    // A container without /tmp has nowhere else.
    ("temp_store", "MEMORY"),
    // An I/O error in a mapped page is a SIGBUS.
    ("mmap_size", "0"),
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

/// Only for file systems without a write-ahead log: there a reader can meet the writer.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// How long another process may take to let go of the database.
const HANDOVER: Duration = Duration::from_secs(1);

/// Keeps other processes away from the directory's database for as long as anything of it is open here.
pub(super) struct Guard {
    file: Option<Lock>,
    /// The database itself, locked too where it can be: by another of its names, a hard link, one comes to another guard
    /// file. Opened before SQLite opens it or after, and closed last of all.
    held: Option<std::result::Result<Lock, File>>,
    name: PathBuf,
    /// Its file says that the database was ours before, whatever it looks like now.
    known: bool,
}

impl Guard {
    fn take(path: &Path) -> Result<Guard> {
        // Not ".lock": that is the name of the unix-dotfile lock, which is a directory.
        let name = beside(path, ".guard");
        let file = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&name)
            .map_err(|cause| io_error(&name, cause))?;
        let known = file.metadata().is_ok_and(|facts| facts.len() > 0);
        match lock(file) {
            Ok(lock) => Ok(Guard { file: Some(lock), held: None, name, known }),
            Err((_, Refusal::Taken)) => Err(in_use(path)),
            Err((_, Refusal::Failed(cause))) => {
                log::warn!("cannot lock {}: {cause}; a second net-pulse would not be noticed", name.display());
                Ok(Guard { file: None, held: None, name, known })
            }
        }
    }

    /// Once the file is there. What keeps it from being opened is told by SQLite.
    fn hold(&mut self, path: &Path) -> Result<()> {
        if self.held.is_some() {
            return Ok(());
        }
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(()) };
        self.held = match lock(file) {
            Err((_, Refusal::Taken)) => return Err(in_use(path)),
            Err((file, Refusal::Failed(_))) => Some(Err(file)),
            Ok(lock) => Some(Ok(lock)),
        };
        Ok(())
    }

    /// The database beside it is ours: should its header be smashed one day, it is not taken for somebody else's file.
    fn sign(&mut self) {
        match &mut self.file {
            // Without it everything works, but for that day.
            Some(file) if !self.known => self.known = file.write_all(b"net-pulse\n").is_ok(),
            _ => {}
        }
    }

    /// Leaves nothing beside a file that is not ours.
    fn withdraw(self) {
        if !self.known {
            let _ = fs::remove_file(&self.name);
        }
    }
}

/// The one before may be at its last save: a supervisor starts the next as soon as it likes.
fn lock(mut file: File) -> std::result::Result<Lock, (File, Refusal)> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        match Lock::take(file) {
            Err((unlocked, Refusal::Taken)) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
                file = unlocked;
            }
            outcome => return outcome,
        }
    }
}

fn in_use(path: &Path) -> Error {
    let sentence = format!("another net-pulse uses {}; stop it, or name another file with --database", path.display());
    Error::new(ErrorKind::Taken, sentence)
}

pub(super) fn open(path: &Path, options: &Options) -> Result<Opened> {
    // Absolute also because SQLite takes a name like "file:x?mode=memory" for an URI.
    let path = std::path::absolute(path).map_err(|cause| io_error(path, cause))?;
    if path.exists() && !path.is_file() {
        let what = if path.is_dir() { "a directory" } else { "no ordinary file" };
        let sentence = format!("{} is {what}; name a file with --database", path.display());
        return Err(Error::new(ErrorKind::Foreign, sentence));
    }
    if let Some(parent) = path.parent() {
        private_directory(parent).map_err(|cause| io_error(parent, cause))?;
    }
    // The guard stands beside the file itself, whatever link leads there.
    let path = fs::canonicalize(&path).unwrap_or(path);
    let mut guard = Guard::take(&path)?;
    if let Err(error) = guard.hold(&path) {
        guard.withdraw();
        return Err(error);
    }
    copy::clear(&path);
    let mut events = Vec::new();
    let pages = (options.max_bytes / PAGE_BYTES).max(LEAST_PAGES);
    let opened = inspect(&path, guard.known).and_then(|()| connect(&path, pages, &mut events));
    let opened = opened.map_err(|error| if is_unknown_schema(&error) { unknown_schema(&path, &error) } else { error });
    let (conn, file_system, state, records) = match opened {
        Err(error) if error.kind == ErrorKind::Corrupt => {
            set_aside(&path, &error, &mut events)?;
            guard.held = None;
            connect(&path, pages, &mut events)?
        }
        Err(error) => {
            guard.withdraw();
            return Err(error);
        }
        Ok(connected) => connected,
    };
    guard.hold(&path)?;
    guard.sign();
    let settings = settings(&conn)?;
    let (next_seq, newest) = (state.next_seq(), state.newest);
    let guard = Arc::new(guard);
    let store = Store { path, file_system, pages, conn, state, kept: None, doubtful: false, room: 1, guard };
    Ok(Opened { store, records, settings, next_seq, newest, events })
}

pub(super) fn reader(store: &Store) -> Result<Reader> {
    let conn = connection(&store.path, store.file_system, BUSY)?;
    // Not opened read-only: the log could not be recovered then.
    set(&conn, "query_only", "1")?;
    // A chart reads each page once, and the operating system has it anyway.
    set(&conn, "cache_size", "-64")?;
    let (path, file_system) = (store.path.clone(), store.file_system);
    Ok(Reader { conn, path, file_system, guard: store.guard.clone() })
}

/// Looks at the file's header, before SQLite has it open. `known`: a database of ours was here before.
fn inspect(path: &Path, known: bool) -> Result<()> {
    let mut header = [0; 100];
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
    let version = i32::from_be_bytes([header[60], header[61], header[62], header[63]]);
    refuse_newer(path, version)
}

fn refuse_newer(path: &Path, version: i32) -> Result<()> {
    let known = MIGRATIONS.len() as i32;
    if version <= known {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Newer,
        format!(
            "{} was written by a newer net-pulse (schema {version}, this one knows up to {known}); \
             install that version again, or name another file with --database",
            path.display()
        ),
    ))
}

/// What another program has added can be more than the SQLite that is built in knows: a newer SQLite has more words. That is
/// no damage, which has other messages.
fn is_unknown_schema(error: &Error) -> bool {
    let text = error.to_string();
    error.kind == ErrorKind::Corrupt
        && text.starts_with("malformed database schema (")
        && text.contains(") - ")
        && !["invalid rootpage", "orphan index"].iter().any(|damage| text.contains(damage))
}

fn unknown_schema(path: &Path, error: &Error) -> Error {
    let what = "has something that another program has added, and this one cannot read";
    Error::new(ErrorKind::Foreign, format!("{} {what} ({error}); remove that with sqlite3", path.display()))
}

fn foreign(path: &Path) -> Error {
    let sentence = format!("{} is not a database of net-pulse; name another file with --database", path.display());
    Error::new(ErrorKind::Foreign, sentence)
}

type Connected = (Connection, Option<&'static str>, State, Vec<Record>);

fn connect(path: &Path, pages: u64, events: &mut Vec<Event>) -> Result<Connected> {
    let mut first = None;
    for file_system in FILE_SYSTEMS {
        match connect_by(path, file_system, pages, events) {
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
    let mut conn = connection(path, file_system, HANDOVER)?;
    let (version, owner) = (pragma(&conn, "user_version")? as i32, pragma(&conn, "application_id")? as i32);
    let tables: i32 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(foreign(path));
    }
    refuse_newer(path, version)?;
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
    set(&conn, "max_page_count", &pages.min(u64::from(u32::MAX - 1)).to_string())?;
    writable(&mut conn, version, events)?;
    let state = State::load(&conn)?;
    let records = records(&conn, &state)?;
    conn.busy_timeout(BUSY)?;
    Ok((conn, state, records))
}

pub(super) fn connection(path: &Path, file_system: Option<&str>, busy: Duration) -> Result<Connection> {
    // Each connection stays with one thread at a time, so that SQLite's own mutexes are idle weight.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match file_system {
        Some(name) => Connection::open_with_flags_and_vfs(path, flags, name)?,
        None => Connection::open_with_flags(path, flags)?,
    };
    conn.busy_timeout(busy)?;
    for (name, value) in PRAGMAS {
        set(&conn, name, value)?;
    }
    Ok(conn)
}

pub(super) fn pragma(conn: &Connection, name: &str) -> Result<i64> {
    Ok(conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
}

pub(super) fn set(conn: &Connection, name: &str, value: &str) -> Result<()> {
    Ok(conn.execute_batch(&format!("PRAGMA {name}={value}"))?)
}

/// Chooses a journal and proves it by writing: some file systems agree to a write-ahead log and fail at the first page.
fn writable(conn: &mut Connection, version: i32, events: &mut Vec<Event>) -> Result<()> {
    let mut first = None;
    for journal in JOURNALS {
        let tried = conn
            .query_row(&format!("PRAGMA journal_mode={journal}"), [], |row| row.get::<_, String>(0))
            .map_err(Error::from)
            .and_then(|reply| {
                if reply.eq_ignore_ascii_case(journal) {
                    return migrate(conn, version);
                }
                Err(Error::new(ErrorKind::Io, format!("journal_mode={journal} was answered with {reply}")))
            });
        match tried {
            Ok(()) => {
                if let Some(error) = first {
                    tell(events, format!("no write-ahead log here ({error}): more is written to the disk"));
                }
                return Ok(());
            }
            // Nothing wrong with the file: it can be read, and written to once there is room.
            Err(error) if error.kind == ErrorKind::Full && version as usize == MIGRATIONS.len() => {
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

/// Brings the schema up to date. Writes something in any case.
fn migrate(conn: &mut Connection, version: i32) -> Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in MIGRATIONS.iter().skip(version.max(0) as usize) {
        tx.execute_batch(step)?;
    }
    set(&tx, "application_id", &APPLICATION_ID.to_string())?;
    set(&tx, "user_version", &MIGRATIONS.len().to_string())?;
    tx.execute("INSERT INTO meta VALUES ('opened', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1", [])?;
    Ok(tx.commit()?)
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
    let mut unix = SystemClock.now().unix_ms.div_euclid(1000);
    let mut aside = beside(path, &format!(".corrupt-{unix}"));
    while aside.exists() {
        unix += 1;
        aside = beside(path, &format!(".corrupt-{unix}"));
    }
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

fn tell(events: &mut Vec<Event>, detail: String) {
    log::error!("{detail}");
    let mono_ms = SystemClock.now().mono_ms;
    events.push(Event { unix: None, mono_ms, kind: EventKind::Storage, interface: String::new(), detail });
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn io_error(path: &Path, cause: io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::System,
    };
    Error::new(kind, format!("{}: {cause}", path.display()))
}

/// Opened files are for their owner only.
pub(super) fn private(options: &mut OpenOptions) -> &OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
    builder.recursive(true).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Batch;
    use crate::store::testing::{OPTIONS, Place, T};

    fn points(opened: &Opened) -> u64 {
        opened.store.reader().unwrap().facts().unwrap().samples
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
        conn.execute_batch(MIGRATIONS[0]).unwrap();
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
        refuses(&place, ErrorKind::Newer, &["schema 97", "up to 2"]);
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

    /// `unix-dotfile` has no write-ahead log: the real thing refuses, and the other journal takes over.
    #[test]
    #[cfg(unix)]
    fn e36_e37_without_a_write_ahead_log_the_other_journal_is_used() {
        let place = Place::new();
        let mut events = Vec::new();
        // What a power cut leaves of its lock.
        fs::create_dir(beside(&place.file(), ".lock")).unwrap();
        let (conn, state, _) = connect_by(&place.file(), Some("unix-dotfile"), 1_000, &mut events).unwrap();
        assert_eq!(events.len(), 1);
        assert!(events[0].detail.contains("no write-ahead log"), "{events:?}");
        let journal: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(journal, "truncate");
        let guard = Arc::new(Guard::take(&place.file()).unwrap());
        let mut store = Store {
            path: place.file(),
            file_system: Some("unix-dotfile"),
            pages: 1_000,
            conn,
            state,
            kept: None,
            doubtful: false,
            room: 1,
            guard,
        };
        let reader = store.reader().unwrap();
        for at in 0..5 {
            store.save(&Batch::steady(1 + 3 * at, T + 90 * at as i64, 3)).unwrap();
            assert_eq!(reader.facts().unwrap().samples, 3 * (at + 1));
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
            ("user_version", 2),
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
            let facts = reader.facts().unwrap();
            assert_eq!((facts.samples, facts.settings), (3, 0));
            reader
        })
        .join()
        .unwrap();
        conn.execute_batch("COMMIT").unwrap();
        let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        assert_eq!((reader.facts().unwrap().samples, reader.facts().unwrap().settings), (3, 1));

        // A reader in the middle of its read keeps its view, and does not stop the writer.
        let before = reader.conn.unchecked_transaction().unwrap();
        let count = || -> i64 { before.query_row("SELECT sum(n) FROM sample", [], |row| row.get(0)).unwrap() };
        assert_eq!(count(), 3);
        (1..200).for_each(|at| opened.save(&Batch::steady(1 + 3 * at, T + 90 * at as i64, 3)).unwrap());
        assert_eq!(count(), 3);
        drop(before);
        assert_eq!(reader.facts().unwrap().samples, 600);
    }
}
