//! Opens the database: checks the header first, keeps other processes out, falls back where the file system lacks a
//! feature, and sets aside a damaged file or a log that belongs to another file. Reports everything unusual in the log
//! and as an event.
//!
//! While SQLite has the database open, no other code may open and close the file: closing any descriptor of a file
//! drops all POSIX locks that the process holds on it (<https://www.sqlite.org/howtocorrupt.html>, 2.2). So `open`
//! checks the header before SQLite opens the file, and locks the guard file against a second process. The one
//! descriptor of our own (`HeldFile`) is closed last.

use crate::sorted::Map;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::connection::{BUSY_TIMEOUT, PAGE_BYTES, connection, pragma, prepare, set, unprepared_connection};
use super::copy;
use super::database_path::{DatabaseFile, HeldFile};
use super::files::{file_type_name, io_error, private, resolve, sync_directory, unused_name, with_suffix};
use super::guard_file::{FileId, GuardFile, HANDOVER_TIMEOUT};
use super::migrate::{self, APPLICATION_ID, PAGES_AT_ONCE, SCHEMA};
use super::open_block::put_meta;
use super::watermarks::Watermarks;
use super::{Opened, Options, Reader, Store};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Event, EventKind, InterfaceKind, NetworkStack, Record};

/// Type of a leaf page of a table, the first byte of page 1 after the file header. In an empty database the number of
/// its cells, three bytes further on, is 0 (<https://www.sqlite.org/fileformat2.html>).
const TABLE_LEAF_PAGE: u8 = 13;
/// Fewer pages do not hold the schema and one open block.
const MIN_PAGES: u64 = 64;

/// Names of SQLite's interfaces to the file system, best first (<https://www.sqlite.org/vfs.html>).
const VFS_CHOICES: [Option<&str>; 3] = [
    // Keeps the index of the write-ahead log on the heap: no -shm file, which jffs2 cannot map and whose dirty pages
    // would double the bytes written. All connections of this process share it; other processes are kept out.
    Some("unix-excl"),
    // For file systems where fcntl locks fail (overlayfs on jffs2 has returned EINVAL). Has no write-ahead log.
    Some("unix-dotfile"),
    // For systems that have neither.
    None,
];

/// Pragmas of the writer's connection.
const WRITER_PRAGMAS: [(&str, &str); 3] = [
    // With a write-ahead log SQLite then syncs at checkpoints, not at commits: a power cut may lose the latest minutes,
    // but never damages the file.
    ("synchronous", "NORMAL"),
    // Pages. The log stays below 300 KB, and a page that several saves change is copied to the database once.
    ("wal_autocheckpoint", "64"),
    // Bytes. Shrinks the log again after a large transaction, such as the save of a gap of months.
    ("journal_size_limit", "1048576"),
];

/// Journal modes, best first. The write-ahead log writes each page once and syncs rarely; `truncate` works everywhere.
const JOURNALS: [&str; 2] = ["wal", "truncate"];

pub(super) fn open(path: &Path, options: &Options) -> Result<Opened> {
    // Absolute, also because SQLite takes a name like "file:x?mode=memory" for a URI.
    let requested_path = std::path::absolute(path).map_err(|cause| io_error(path, cause))?;
    // The guard file is beside the file itself, whatever link leads there.
    let path = resolve(&requested_path).map_err(|cause| io_error(path, cause))?;
    check_usable(&path)?;
    if let Some(parent) = path.parent() {
        private_directory(parent).map_err(|cause| io_error(parent, cause))?;
    }
    let guard = GuardFile::take(&path)?;
    let mut held = match HeldFile::take(&path) {
        Ok(held) => held,
        Err(error) => {
            guard.remove_if_new();
            return Err(error);
        }
    };
    copy::remove_unfinished(&path);
    let mut events = Vec::new();
    let max_pages = (options.max_bytes / PAGE_BYTES).max(MIN_PAGES);
    let opened = check_header(&path, guard.had_database())
        .and_then(|()| set_foreign_log_aside(&path, &guard, &mut events))
        .and_then(|()| connect(&path, max_pages, &guard, &mut events));
    let (conn, vfs, watermarks, records) = match opened {
        Err(error) if error.kind == ErrorKind::Corrupt => {
            set_aside(&path, &error, &mut events)?;
            held = None;
            connect(&path, max_pages, &guard, &mut events)?
        }
        Err(error) => {
            guard.remove_if_new();
            return Err(error);
        }
        Ok(connected) => connected,
    };
    guard.mark_as_ours();
    let settings = settings(&conn).map_err(|error| error.context(format!("cannot use {}", path.display())))?;
    let (next_seq, newest) = (watermarks.next_seq(), watermarks.newest);
    let database = Arc::new(DatabaseFile::new(path, vfs, held, Arc::new(guard), &conn)?);
    let store = store(requested_path, database, max_pages, conn, watermarks);
    Ok(Opened { store, records, settings, next_seq, newest_unix: newest, events })
}

fn store(
    requested_path: PathBuf,
    database: Arc<DatabaseFile>,
    max_pages: u64,
    conn: Connection,
    watermarks: Watermarks,
) -> Store {
    let current = Arc::new(Mutex::new(database.clone()));
    let (pruned_with, commit_uncertain, spare_factor, recreated, abandoned, events) =
        (None, false, 1, None, false, Vec::new());
    let requested_path_moved = false;
    Store {
        requested_path,
        requested_path_moved,
        max_pages,
        conn,
        watermarks,
        pruned_with,
        commit_uncertain,
        spare_factor,
        recreated,
        abandoned,
        events,
        database,
        current,
    }
}

/// Fails where the path cannot be a database: it is not UTF-8, or not a regular file.
pub(super) fn check_usable(path: &Path) -> Result<()> {
    let refuse = |what: &str| {
        let sentence = format!("{} {what}; name a file with --database", path.display());
        Err(Error::new(ErrorKind::Foreign, sentence))
    };
    if path.to_str().is_none() {
        return refuse("is not valid UTF-8");
    }
    match fs::metadata(path).ok().as_ref().and_then(file_type_name) {
        Some(what) => refuse(&format!("is {what}")),
        None => Ok(()),
    }
}

pub(super) fn reader(database: &Arc<DatabaseFile>, current: &Arc<Mutex<Arc<DatabaseFile>>>) -> Result<Reader> {
    let conn = database.connect()?;
    // The checkpoint is the writer's task.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Not opened read-only: then SQLite could not recover the log.
    set(&conn, "query_only", "1")?;
    // KiB. A chart reads each page once, and the operating system caches it anyway.
    set(&conn, "cache_size", "-64")?;
    Ok(Reader { conn, database: database.clone(), current: current.clone() })
}

/// Checks the file's header before SQLite opens the file. `had_database`: a database of ours was here before.
pub(super) fn check_header(path: &Path, had_database: bool) -> Result<()> {
    let mut header = [0; 105];
    let mut file = match File::open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|cause| io_error(path, cause))?,
    };
    let length = file.metadata().map_err(|cause| io_error(path, cause))?.len();
    match file.read_exact(&mut header) {
        Err(_) if length == 0 => {
            log::warn!("{} is empty; it becomes the database of a new history", path.display());
            return Ok(());
        }
        Err(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => return Err(io_error(path, cause)),
        _ => {}
    }
    // On many file systems a power cut leaves zeros: the file is ours, but lost.
    if header[..16] == [0; 16] {
        return Err(Error::new(ErrorKind::Corrupt, "its first page is all zeros"));
    }
    if !header.starts_with(b"SQLite format 3\0") {
        let damaged = || Error::new(ErrorKind::Corrupt, "its header is damaged");
        return Err(if had_database { damaged() } else { foreign_error(path) });
    }
    let number = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (version, owner) = (number(60), number(68));
    // A new file has neither an application id nor a table: both are still in its log.
    let is_new = owner == 0 && header[100] == TABLE_LEAF_PAGE && header[103..105] == [0, 0];
    if owner != APPLICATION_ID && !is_new && !had_database {
        return Err(foreign_error(path));
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

/// Sets aside a log that belongs to another file. SQLite applies any log that has the right name, also the log of a
/// killed program to a copy that has replaced its database. Then the content of the log wins, or the file looks
/// damaged. The guard file records which database the log belongs to. Without that record, or where the database
/// cannot be read without its log, the log stays: after a crash it holds the latest saves.
pub(super) fn set_foreign_log_aside(path: &Path, guard: &GuardFile, events: &mut Vec<Event>) -> Result<()> {
    let logs = ["-wal", "-journal"].map(|part| with_suffix(path, part));
    let mut logs = logs.iter().filter(|log| fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0)).peekable();
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
        let aside = unused_name(log, "foreign");
        fs::rename(log, &aside).map_err(|cause| io_error(log, cause))?;
        let (file, log, aside) = (path.display(), log.display(), aside.display());
        report(events, format!("{log} belongs to an earlier file at {file}: set aside as {aside}"));
    }
    // After a power cut the log must not have its old name again beside a file with a new id.
    sync_directory(path);
    Ok(())
}

/// Whether the file is a complete database of ours with none of the ids of the guard file. Reads it without its log
/// and without locks, before SQLite opens it for use.
fn is_other_file(path: &Path, ids: &[FileId; 2]) -> Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(immutable_uri(path), flags)?;
    prepare(&conn)?;
    if pragma(&conn, "application_id")? as i32 != APPLICATION_ID {
        return Ok(false);
    }
    match file_id(&conn)? {
        Some(id) if !ids.contains(&id) => {}
        _ => return Ok(false),
    }
    // After an interrupted checkpoint the file has old and new pages, so its id may be the wrong one.
    Ok(conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))? == "ok")
}

/// URI that makes SQLite read the file alone, without its log (<https://www.sqlite.org/uri.html>).
fn immutable_uri(path: &Path) -> OsString {
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

/// The id in the file: `FileId::NONE` if the file has none, `None` if the value is not an id that net-pulse writes.
fn file_id(conn: &Connection) -> Result<Option<FileId>> {
    let id = conn
        .query_row("SELECT value FROM meta WHERE key = 'file'", [], |row| {
            Ok(row.get_ref(0)?.as_str().map(FileId::parse)?)
        })
        .optional()?;
    Ok(id.unwrap_or(Some(FileId::NONE)))
}

/// Replaces the error `Corrupt` if the schema is not damaged, but has SQL that the built-in SQLite is too old to parse:
/// another program may have added a table or a view.
fn explain_schema_error(path: &Path, vfs: Option<&str>, error: Error) -> Error {
    if error.kind != ErrorKind::Corrupt {
        return error;
    }
    match has_unknown_sql(path, vfs) {
        Ok(true) => {
            let what = "has something that another program has added and net-pulse cannot read";
            let before = format!("{} {what} (", path.display());
            Error::caused(ErrorKind::Foreign, error).wrap(before, "); remove that with sqlite3")
        }
        Err(foreign) if matches!(foreign.kind, ErrorKind::Foreign | ErrorKind::Newer) => foreign,
        _ => error,
    }
}

/// Whether the schema has all our tables unchanged, and another entry that the built-in SQLite cannot parse.
fn has_unknown_sql(path: &Path, vfs: Option<&str>) -> Result<bool> {
    let conn = &unprepared_connection(path, vfs)?;
    // Lets SQLite read the rows of the schema that it cannot parse.
    set(conn, "writable_schema", "1")?;
    let (version, owner) = (pragma(conn, "user_version")? as i32, pragma(conn, "application_id")? as i32);
    let found = schema_statements(conn)?;
    if !found.is_empty() && owner != APPLICATION_ID {
        return Err(foreign_error(path));
    }
    refuse_newer(path, version)?;
    let model = Connection::open_in_memory()?;
    migrate::make_tables(&model, version.into())?;
    let ours = schema_statements(&model)?;
    if !ours.iter().all(|statement| found.contains(statement)) {
        return Ok(false);
    }
    let mut others = found.iter().filter(|statement| !ours.contains(statement));
    // Runs each entry in the model where possible: a later entry may need an earlier one.
    Ok(others.any(|statement| model.prepare(statement).map(|mut known| known.execute([])).is_err()))
}

/// The statements of the schema, without what SQLite adds by itself.
fn schema_statements(conn: &Connection) -> Result<Vec<String>> {
    let query =
        "SELECT sql FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid";
    let mut statement = conn.prepare(query)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn foreign_error(path: &Path) -> Error {
    let sentence = format!("{} is not a database of net-pulse; name another file with --database", path.display());
    Error::new(ErrorKind::Foreign, sentence)
}

pub(super) type Connected = (Connection, Option<&'static str>, Watermarks, Vec<Record>);

pub(super) fn connect(path: &Path, max_pages: u64, guard: &GuardFile, events: &mut Vec<Event>) -> Result<Connected> {
    let mut first_error = None;
    for vfs in VFS_CHOICES {
        match connect_with_vfs(path, vfs, max_pages, guard, events) {
            Ok((conn, watermarks, records)) => {
                if let Some(error) = first_error {
                    report(
                        events,
                        format!("{error}: using another way to lock the file ({})", vfs.unwrap_or("default")),
                    );
                }
                return Ok((conn, vfs, watermarks, records));
            }
            Err(error) if matches!(error.kind, ErrorKind::Io | ErrorKind::System) => {
                first_error = first_error.or(Some(error))
            }
            // These explain themselves, or the caller handles them.
            Err(error) if matches!(error.kind, ErrorKind::Foreign | ErrorKind::Newer | ErrorKind::Corrupt) => {
                return Err(error);
            }
            Err(error) => {
                first_error = Some(error);
                break;
            }
        }
    }
    let error = first_error.unwrap_or_else(|| Error::new(ErrorKind::System, "no way to open it"));
    Err(error.context(format!("cannot use {}", path.display())))
}

fn connect_with_vfs(
    path: &Path,
    vfs: Option<&'static str>,
    max_pages: u64,
    guard: &GuardFile,
    events: &mut Vec<Event>,
) -> Result<(Connection, Watermarks, Vec<Record>)> {
    if vfs == Some("unix-dotfile") {
        // Left by a run that a power cut ended. No other net-pulse holds this lock, because we hold the lock of the
        // guard file (unless locks fail here).
        let _ = fs::remove_dir(with_suffix(path, ".lock"));
    }
    if !path.exists() {
        // SQLite would create the file readable for all users. The log gets the mode of the file.
        private(OpenOptions::new().write(true).create_new(true)).open(path).map_err(|cause| io_error(path, cause))?;
    }
    // A short timeout: no connection of this process can block this one, and a start must not wait long for others.
    let mut conn = connection(path, vfs, HANDOVER_TIMEOUT).map_err(|error| explain_schema_error(path, vfs, error))?;
    let (version, owner) = (pragma(&conn, "user_version")? as i32, pragma(&conn, "application_id")? as i32);
    let tables: i32 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(foreign_error(path));
    }
    refuse_newer(path, version)?;
    if tables > 0 && version <= 0 {
        let what = "has tables of net-pulse but no schema number: another program has changed it";
        let next = "replace it with a backup, or name another file with --database";
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
    choose_journal(&mut conn, &Target { path, vfs, guard }, events)?;
    // Set after the migration, which may need more pages than this limit leaves.
    set(&conn, "max_page_count", &max_pages.min(u64::from(u32::MAX - 1)).to_string())?;
    let watermarks = Watermarks::load(&conn)?;
    let records = records(&conn, &watermarks)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok((conn, watermarks, records))
}

/// The database to open: its path, its VFS and its guard file.
struct Target<'a> {
    path: &'a Path,
    vfs: Option<&'static str>,
    guard: &'a GuardFile,
}

/// Chooses a journal mode and tests it by writing: some file systems accept a write-ahead log and fail at its first
/// page.
fn choose_journal(conn: &mut Connection, target: &Target, events: &mut Vec<Event>) -> Result<()> {
    let mut first_error = None;
    for journal in JOURNALS {
        let tried = conn
            .query_row(&format!("PRAGMA journal_mode={journal}"), [], |row| row.get::<_, String>(0))
            .map_err(Error::from)
            .and_then(|reply| {
                if reply.eq_ignore_ascii_case(journal) {
                    return migrate_with_copy(conn, target);
                }
                Err(Error::new(ErrorKind::Io, format!("SQLite answers journal_mode={journal} with {reply}")))
            });
        match tried {
            Ok(notices) => {
                notices.into_iter().for_each(|sentence| push_event(events, sentence));
                if let Some(error) = first_error {
                    report(events, format!("no write-ahead log here ({error}): each save writes more to the disk"));
                }
                return Ok(());
            }
            // Open it all the same: reading works now, and saving will work once there is space.
            Err(error) if error.kind == ErrorKind::Full && migrate::is_complete(conn).unwrap_or(false) => {
                report(events, format!("the disk is full: {error}"));
                return Ok(());
            }
            Err(error) if matches!(error.kind, ErrorKind::Io | ErrorKind::Busy | ErrorKind::System) => {
                first_error = first_error.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(ErrorKind::Io, "no journal mode works")))
}

/// Migrates the schema. First copies a file that has history, because an older program cannot open it after the
/// migration. Returns notices for the user.
fn migrate_with_copy(conn: &mut Connection, target: &Target) -> Result<Vec<String>> {
    let Target { path, vfs, guard } = *target;
    let Some(schema) = migrate::schema_to_copy(conn)? else { return migrate(conn, guard, None) };
    // Fails where the database cannot be written. Then the migration cannot run, and needs no copy.
    drop(conn.transaction_with_behavior(TransactionBehavior::Immediate)?);
    let copied = copy::copy_before_migration(conn, path, vfs, schema);
    let sentence = copied.sentence(path, schema, SCHEMA);
    migrate(conn, guard, Some(sentence)).inspect_err(|_| {
        if migrate::schema_to_copy(conn).is_ok_and(|schema| schema.is_some()) {
            copied.discard();
        }
    })
}

/// Migrates the schema in transactions, and always writes something, which tests the journal mode. The first
/// transaction sets the new id: from then on an older copy of the file counts as another file.
fn migrate(conn: &mut Connection, guard: &GuardFile, sentence: Option<String>) -> Result<Vec<String>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some(sentence) = &sentence {
        migrate::add_notice(&tx, sentence)?;
    }
    // Migrate as little as possible in the first transaction: the disk may be nearly full.
    let mut done = migrate::run_steps(&tx, 1)?;
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
        confirm_id(conn, guard, id);
    }
    let (mut pages, mut log_is_empty) = (PAGES_AT_ONCE, false);
    while !done {
        done = match migrate_once(conn, pages) {
            // A checkpoint frees space, and a smaller transaction needs less.
            Err(error) if error.kind == ErrorKind::Full && !(log_is_empty && pages == 1) => {
                conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                (pages, log_is_empty) = (if log_is_empty { 1 } else { pages }, true);
                continue;
            }
            outcome => outcome?,
        };
        log_is_empty = false;
    }
    migrate::notices(conn)
}

fn migrate_once(conn: &mut Connection, pages: u64) -> Result<bool> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = migrate::run_steps(&tx, pages)?;
    tx.commit()?;
    Ok(done)
}

/// Gives the database a new id, so that every earlier copy counts as another file. The guard file gets both ids before
/// the database can have the new one, so its ids are right whenever the power fails.
fn renew_id(conn: &Connection, guard: &GuardFile) -> Result<Option<FileId>> {
    let old = file_id(conn)?.unwrap_or(FileId::NONE);
    let new: String = conn.query_row("SELECT hex(randomblob(8))", [], |row| row.get(0))?;
    let new = FileId::parse(&new).filter(|new| guard.write_ids(&[old, *new], true));
    if let Some(id) = new {
        put_meta(conn, "file", id.text())?;
    }
    Ok(new)
}

/// Checkpoints the log, so that the file has the new id even without it. Then the guard file drops the old id, which
/// copies may have. Until that succeeds, both ids are valid.
fn confirm_id(conn: &Connection, guard: &GuardFile, id: FileId) {
    let checkpoint = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    if checkpoint.is_ok_and(|blocked| blocked == 0) {
        // Without sync: after a power cut the guard file may have both ids again, and the new id is one of them.
        guard.write_ids(&[id, id], false);
    }
}

fn records(conn: &Connection, watermarks: &Watermarks) -> Result<Vec<Record>> {
    let mut statement = conn.prepare(
        "SELECT id, name, kind, alias, ifindex, boot, first_seen, machine, namespace, mac, node FROM interface
         ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let first_seen = row.get(6)?;
        let tally = watermarks.tally(id);
        records.push(Record {
            id,
            name: row.get(1)?,
            kind: InterfaceKind::from_name(&row.get::<_, String>(2)?),
            alias: row.get(3)?,
            ifindex: row.get(4)?,
            stack: NetworkStack { machine: row.get(7)?, boot: row.get(5)?, namespace: row.get::<_, i64>(8)? as u64 },
            mac: row.get(9)?,
            inode: row.get::<_, i64>(10)? as u64,
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

/// Renames a damaged database together with its log, so that both can be examined together.
fn set_aside(path: &Path, why: &Error, events: &mut Vec<Event>) -> Result<()> {
    let aside = unused_name(path, "corrupt");
    fs::rename(path, &aside).map_err(|cause| io_error(path, cause))?;
    for part in ["-wal", "-journal"] {
        let from = with_suffix(path, part);
        if from.exists() {
            fs::rename(&from, with_suffix(&aside, part)).map_err(|cause| io_error(&from, cause))?;
        }
    }
    report(
        events,
        format!("the database was damaged ({why}): set aside as {}, starting a new database", aside.display()),
    );
    Ok(())
}

pub(super) fn report(events: &mut Vec<Event>, detail: String) {
    log::error!("{detail}");
    push_event(events, detail);
}

/// Adds an event without a line in the log.
fn push_event(events: &mut Vec<Event>, detail: String) {
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
    use crate::store::testing::{OPTIONS, Random, T, TempDir};

    fn sample_count(opened: &Opened) -> u64 {
        opened.store.reader().unwrap().view().unwrap().stats().unwrap().samples
    }

    /// A closed database with three samples.
    fn filled(dir: &TempDir) {
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T + 30, 3)).unwrap();
        assert_eq!((sample_count(&opened), opened.events.len()), (3, 0));
    }

    fn names(dir: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn closing_leaves_the_database_and_its_guard_file() {
        let dir = TempDir::new();
        filled(&dir);
        assert_eq!(names(&dir), ["net-pulse.db", "net-pulse.db.guard"]);
        assert_eq!(sample_count(&Store::open(&dir.file(), &OPTIONS).unwrap()), 3);
    }

    #[test]
    #[cfg(unix)]
    fn files_are_private_and_directories_are_created() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let path = dir.path().join("a/b/net-pulse.db");
        let mut opened = Store::open(&path, &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T + 30, 3)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for part in ["", "-wal", ".guard"] {
            assert_eq!(mode(&with_suffix(&path, part)), 0o600, "{part}");
        }
        assert_eq!(mode(&dir.path().join("a/b")) & 0o027, 0);
        assert!(!with_suffix(&path, "-shm").exists());
    }

    #[test]
    fn a_second_opening_is_refused_while_any_connection_is_open() {
        let dir = TempDir::new();
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let reader = opened.store.reader().unwrap();
        let refused = || Store::open(&dir.file(), &OPTIONS).err().unwrap();
        assert_eq!(refused().kind, ErrorKind::Taken);
        assert!(refused().to_string().contains("another net-pulse uses"));
        drop(opened);
        // The database is in use while any connection is open.
        assert_eq!(refused().kind, ErrorKind::Taken);
        drop(reader);
        Store::open(&dir.file(), &OPTIONS).unwrap();
    }

    /// Opening fails with this kind and these words, and leaves the file unchanged.
    fn refuses(dir: &TempDir, kind: ErrorKind, words: &[&str]) {
        let before = fs::read(dir.file()).ok();
        let error = Store::open(&dir.file(), &OPTIONS).err().unwrap();
        assert_eq!(error.kind, kind, "{error}");
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
        assert_eq!(fs::read(dir.file()).ok(), before);
        assert!(names(dir).iter().all(|name| !name.contains("corrupt")));
    }

    /// As `refuses`, for a file that was never ours: no guard file stays beside it either.
    fn refuses_foreign(dir: &TempDir, words: &[&str]) {
        let before = names(dir);
        refuses(dir, ErrorKind::Foreign, words);
        assert_eq!(names(dir), before);
    }

    #[test]
    fn a_foreign_file_is_left_unchanged() {
        let dir = TempDir::new();
        fs::create_dir(dir.file()).unwrap();
        refuses_foreign(&dir, &["is a directory", "--database"]);
        fs::remove_dir(dir.file()).unwrap();

        for text in [&b"hello"[..], &[b'x'; 9_000]] {
            fs::write(dir.file(), text).unwrap();
            refuses_foreign(&dir, &["is not a database of net-pulse", "--database"]);
        }
        fs::remove_file(dir.file()).unwrap();
        Connection::open(dir.file()).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
        refuses_foreign(&dir, &["is not a database of net-pulse"]);
    }

    /// The built-in SQLite knows every kind of SQL statement, so it can read tables and views of another program.
    #[test]
    fn additions_of_another_program_are_kept() {
        let dir = TempDir::new();
        filled(&dir);
        let conn = Connection::open(dir.file()).unwrap();
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
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        assert_eq!((sample_count(&opened), opened.events.len()), (3, 0));
        opened.save_batch(&Batch::steady(100, T + 3_000, 3)).unwrap();
        assert_eq!(sample_count(&opened), 6);
        assert!(opened.store.reader().unwrap().copier().copy(None).is_ok());
        drop(opened);
        let conn = Connection::open(dir.file()).unwrap();
        assert_eq!(conn.query_row("SELECT b FROM w", [], |row| row.get::<_, String>(0)).unwrap(), "161");
        assert_eq!(conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");

        let conn = Connection::open(dir.file()).unwrap();
        conn.execute_batch(
            "PRAGMA writable_schema=ON;
             INSERT INTO sqlite_schema VALUES ('table', 'n', 'n', 2, 'CREATE TABLE n (a NEWLY INVENTED (WORDS) FOR IT)');",
        )
        .unwrap();
        drop(conn);
        let bytes = fs::read(dir.file()).unwrap();
        refuses_foreign(&dir, &["another program has added", "sqlite3"]);
        assert_eq!(fs::read(dir.file()).unwrap(), bytes);
    }

    /// Unknown SQL in the schema does not hide damage to our tables, and damage alone is not taken for unknown SQL.
    #[test]
    fn a_damaged_schema_is_not_taken_for_unknown_sql() {
        let edit = |dir: &TempDir, statement: &str| {
            let conn = Connection::open(dir.file()).unwrap();
            conn.execute_batch(&format!("PRAGMA writable_schema=ON; {statement}")).unwrap();
        };
        let unknown =
            "INSERT INTO sqlite_schema VALUES ('view', 'n', 'n', 0, 'CREATE VIEW n AS SELECT NEWLY INVENTED WORDS');";
        for change in [
            "UPDATE sqlite_schema SET rootpage = 0 WHERE name = 'interface';",
            "UPDATE sqlite_schema SET sql = replace(sql, 'CREATE TABLE', 'CREATE TABKE') WHERE name = 'interface';",
            "UPDATE sqlite_schema SET sql = NULL WHERE name = 'interface';",
            &format!("UPDATE sqlite_schema SET sql = NULL WHERE name = 'interface'; {unknown}"),
        ] {
            set_aside_after(|path| {
                let conn = Connection::open(path).unwrap();
                conn.execute_batch(&format!("PRAGMA writable_schema=ON; {change}")).unwrap();
            });
        }
        let dir = TempDir::new();
        filled(&dir);
        edit(&dir, "INSERT INTO sqlite_schema VALUES ('view', 'm', 'm', 0, 'CREATE VIEW m AS SELECT 1');");
        edit(&dir, unknown);
        refuses_foreign(&dir, &["another program has added", "(malformed database schema (n) - ", "sqlite3"]);
        edit(&dir, "DELETE FROM sqlite_schema WHERE name = 'n';");
        assert_eq!(sample_count(&Store::open(&dir.file(), &OPTIONS).unwrap()), 3);

        edit(&dir, unknown);
        edit(&dir, "PRAGMA user_version = 97;");
        refuses(&dir, ErrorKind::Newer, &["schema 97"]);
        edit(&dir, &format!("PRAGMA user_version = {}; PRAGMA application_id = 97;", SCHEMA));
        refuses(&dir, ErrorKind::Foreign, &["is not a database of net-pulse"]);
    }

    /// `.cargo/config.toml` lists what SQLite is built without. A migration may use every kind of statement. A
    /// statement that needs a missing function fails at the latest when it calls the function. `tests/it/layers.rs`
    /// checks that our own SQL does not name these functions.
    #[test]
    fn features_that_sqlite_is_built_without_are_refused() {
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
        assert_eq!(number("SELECT count(*) FROM a"), 1, "EXPLAIN does not run the DELETE");
        assert_eq!(number("SELECT added FROM a"), 16);
        assert_eq!(number("SELECT twice FROM b"), 2, "the trigger ran");
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

    /// A file of version 0.1.
    #[test]
    fn an_older_schema_keeps_its_history_and_has_no_machine_or_namespace() {
        let dir = TempDir::new();
        let conn = Connection::open(dir.file()).unwrap();
        conn.execute_batch(include_str!("schema/001.sql")).unwrap();
        conn.execute("INSERT INTO interface VALUES (4, 'eth0', 'ethernet', 'the WAN', 2, 'b0075', 77, NULL)", [])
            .unwrap();
        conn.pragma_update(None, "user_version", 1).unwrap();
        conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        drop(conn);
        for _ in 0..2 {
            let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
            let [record] = &opened.records[..] else { panic!("{:?}", opened.records) };
            let stack = NetworkStack { boot: "b0075".into(), ..NetworkStack::default() };
            assert_eq!((record.id, record.name.as_str(), record.alias.as_str()), (4, "eth0", "the WAN"));
            assert_eq!((record.ifindex, &record.stack, record.mac.as_str()), (2, &stack, ""));
        }
    }

    #[test]
    fn a_newer_schema_is_refused_naming_both_versions() {
        let dir = TempDir::new();
        filled(&dir);
        Connection::open(dir.file()).unwrap().pragma_update(None, "user_version", 97).unwrap();
        refuses(&dir, ErrorKind::Newer, &["schema 97", "knows up to "]);
    }

    /// Damages a filled database; expects a new one, the old one beside it, and an event that names it.
    fn set_aside_after(damage: impl Fn(&Path)) {
        let dir = TempDir::new();
        {
            let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
            (0..40).for_each(|at| opened.save_batch(&Batch::steady(1 + 10 * at, T + 300 * at as i64, 10)).unwrap());
        }
        damage(&dir.file());
        let damaged = fs::read(dir.file()).unwrap();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let aside: Vec<String> = names(&dir).into_iter().filter(|name| name.contains(".corrupt-")).collect();
        assert_eq!(aside.len(), 1);
        assert_eq!(fs::read(dir.path().join(&aside[0])).unwrap(), damaged);
        assert_eq!(opened.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Storage]);
        assert!(opened.events[0].detail.contains(&aside[0]));
        assert_eq!((sample_count(&opened), opened.next_seq), (0, 1));
        opened.save_batch(&Batch::steady(1, T + 30, 3)).unwrap();
        assert_eq!(sample_count(&opened), 3);
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
        // Without its header the file looks foreign; only the guard file shows that it is ours.
        set_aside_after(|path| overwrite(path, 0, 100, 0x5a));
        set_aside_after(|path| overwrite(path, 0, usize::MAX, 0x5a));
        set_aside_after(|path| OpenOptions::new().write(true).open(path).unwrap().set_len(3 * 4_096).unwrap());
    }

    #[test]
    fn e40_the_log_is_set_aside_with_its_database() {
        let dir = TempDir::new();
        fs::write(dir.file(), [0; 8_192]).unwrap();
        fs::write(with_suffix(&dir.file(), "-wal"), b"the log").unwrap();
        Store::open(&dir.file(), &OPTIONS).unwrap();
        let log = names(&dir).into_iter().find(|name| name.contains(".corrupt-") && name.ends_with("-wal")).unwrap();
        assert_eq!(fs::read(dir.path().join(log)).unwrap(), b"the log");
    }

    #[test]
    fn e40_an_empty_file_becomes_a_new_database() {
        let dir = TempDir::new();
        fs::write(dir.file(), b"").unwrap();
        filled(&dir);
    }

    #[test]
    fn e40_damaged_databases_do_not_overwrite_each_other() {
        let dir = TempDir::new();
        filled(&dir);
        for _ in 0..3 {
            overwrite(&dir.file(), 0, 100, 0);
            drop(Store::open(&dir.file(), &OPTIONS).unwrap());
        }
        assert_eq!(names(&dir).iter().filter(|name| name.contains(".corrupt-")).count(), 3);
    }

    /// Content of files. The key is the part of the file name after "net-pulse.db".
    type Files = BTreeMap<String, Vec<u8>>;

    /// The files that a crash at this moment leaves.
    fn files(dir: &TempDir) -> Files {
        let content = |name: String| {
            let bytes = fs::read(dir.path().join(&name)).unwrap();
            (name.strip_prefix("net-pulse.db").unwrap().to_string(), bytes)
        };
        names(dir).into_iter().map(content).collect()
    }

    fn dir_with(files: &Files) -> TempDir {
        let dir = TempDir::new();
        files.iter().for_each(|(part, bytes)| fs::write(with_suffix(&dir.file(), part), bytes).unwrap());
        dir
    }

    /// Opens the database and saves `count` samples, each in a six-hour block of its own, so that rows of all tables
    /// change.
    fn saved(dir: &TempDir, count: u64) -> Opened {
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let start = opened.newest_unix.unwrap_or(T);
        for at in 0..count {
            let batch = Batch::steady(opened.next_seq + at, start + 21_600 * (at as i64 + 1), 1);
            opened.save_batch(&batch).unwrap();
        }
        opened
    }

    /// The files of a program that is killed after it has saved `count` samples.
    fn killed(dir: &TempDir, count: u64) -> Files {
        let opened = saved(dir, count);
        let files = files(dir);
        assert!(files["-wal"].len() > 4_096, "the latest samples are in the log alone");
        drop(opened);
        files
    }

    /// Opens the files; expects this number of samples and no event.
    fn opens_with(files: &Files, expect: u64, what: &str) {
        let dir = dir_with(files);
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(opened.events.is_empty(), "{what}: {:?}", opened.events);
        assert_eq!(sample_count(&opened), expect, "{what}");
    }

    /// Opens the files; expects this number of samples, and that this log is set aside unchanged and reported.
    fn opens_without(files: &Files, log: &str, expect: u64) {
        let dir = dir_with(files);
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let asides: Vec<String> = names(&dir).into_iter().filter(|name| name.contains(".foreign-")).collect();
        assert_eq!(asides.len(), 1, "{asides:?}");
        assert!(asides[0].starts_with(&format!("net-pulse.db{log}.foreign-")), "{asides:?}");
        assert_eq!(fs::read(dir.path().join(&asides[0])).unwrap(), files[log]);
        assert_eq!(opened.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Storage]);
        assert!(opened.events[0].detail.contains(&asides[0]), "{:?}", opened.events);
        assert_eq!(sample_count(&opened), expect);
        drop(opened);
        // From now on the file has a log of its own.
        let mut files = killed(&dir, 2);
        files.remove(&asides[0]["net-pulse.db".len()..]);
        opens_with(&files, expect + 2, "after a kill");
    }

    fn copied(opened: &Opened) -> Vec<u8> {
        let mut bytes = Vec::new();
        opened.store.reader().unwrap().copier().copy(None).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_log_of_a_replaced_database_is_set_aside() {
        let dir = TempDir::new();
        drop(saved(&dir, 3));
        let closed_3 = fs::read(dir.file()).unwrap();
        drop(saved(&dir, 2));
        let closed_5 = fs::read(dir.file()).unwrap();
        let opened = saved(&dir, 1);
        let copied_6 = copied(&opened);
        drop(opened);
        // Two copies made in one run: their ids differ from the original's and from each other's.
        let opened = saved(&dir, 4);
        let (copied_10, copied_10_again) = (copied(&opened), copied(&opened));
        assert_ne!(copied_10, copied_10_again);
        drop(opened);
        let closed_10 = fs::read(dir.file()).unwrap();
        let crash = killed(&dir, 5);
        opens_with(&crash, 15, "as it was");
        for (copy, expect) in
            [(closed_3, 3), (closed_5, 5), (copied_6, 6), (copied_10, 10), (copied_10_again, 10), (closed_10, 10)]
        {
            let mut files = crash.clone();
            files.insert(String::new(), copy);
            opens_without(&files, "-wal", expect);
        }
    }

    /// One copy has an id that this guard file never had, the other has no id, as in older versions.
    #[test]
    fn a_log_beside_a_copy_of_another_database_is_set_aside() {
        let dir = TempDir::new();
        let crash = killed(&dir, 5);
        let other = TempDir::new();
        drop(saved(&other, 2));
        let mut files = crash.clone();
        files.insert(String::new(), fs::read(other.file()).unwrap());
        opens_without(&files, "-wal", 2);
        Connection::open(other.file()).unwrap().execute("DELETE FROM meta WHERE key = 'file'", []).unwrap();
        files.insert(String::new(), fs::read(other.file()).unwrap());
        opens_without(&files, "-wal", 2);
    }

    /// The files in the middle of a transaction without a write-ahead log.
    fn with_a_hot_journal(dir: &TempDir) -> Files {
        let conn = Connection::open(dir.file()).unwrap();
        conn.execute_batch(
            "PRAGMA journal_mode=TRUNCATE; PRAGMA cache_size=1; BEGIN IMMEDIATE; UPDATE sample SET n = 1000;
             CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(100000));",
        )
        .unwrap();
        let files = files(dir);
        assert!(files["-journal"].len() > 4_096, "the journal has pages");
        files
    }

    #[test]
    fn a_hot_journal_is_rolled_back_into_its_own_file_only() {
        let dir = TempDir::new();
        drop(saved(&dir, 3));
        let closed_3 = fs::read(dir.file()).unwrap();
        drop(saved(&dir, 4));
        let mut files = with_a_hot_journal(&dir);
        opens_with(&files, 7, "as it was");
        files.insert(String::new(), closed_3);
        opens_without(&files, "-journal", 3);
        // A write-ahead log and a journal at once.
        let journal = files.insert("-wal".into(), vec![0x5a; 9_000]).or(files.get("-journal").cloned()).unwrap();
        let dir = dir_with(&files);
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        assert_eq!((sample_count(&opened), opened.events.len()), (3, 2));
        let aside = |part: &str| {
            let name = names(&dir).into_iter().find(|name| name.contains(&format!("{part}.foreign-"))).unwrap();
            fs::read(dir.path().join(name)).unwrap()
        };
        assert!(aside("-journal") == journal && aside("-wal") == files["-wal"]);
    }

    #[test]
    fn a_log_is_kept_when_the_guard_file_has_no_valid_ids() {
        let dir = TempDir::new();
        let mut files = killed(&dir, 5);
        // From an older version, empty, overwritten, zeros, cut off.
        let half = files[".guard"][..60].to_vec();
        for guard in [&b"net-pulse\n"[..], b"", &[0x5a; 78], &[0; 78], &half] {
            files.insert(".guard".into(), guard.to_vec());
            opens_with(&files, 5, "another guard");
        }
        files.remove(".guard");
        opens_with(&files, 5, "no guard");
        // An older version has opened the file since, and was killed.
        let dir = TempDir::new();
        drop(saved(&dir, 2));
        let guard = GuardFile::take(&dir.file()).unwrap();
        let conn = connection(&dir.file(), None, HANDOVER_TIMEOUT).unwrap();
        conn.execute_batch("UPDATE meta SET value = value + 1 WHERE key = 'opened'").unwrap();
        opens_with(&files_without_shm(&dir), 2, "an older version");
        drop((guard, conn));
    }

    fn files_without_shm(dir: &TempDir) -> Files {
        let mut files = files(dir);
        files.remove("-shm");
        assert!(files["-wal"].len() > 4_096);
        files
    }

    /// The first `at` bytes of `new`, and the rest of `old`.
    fn torn(new: &[u8], old: &[u8], at: usize) -> Vec<u8> {
        [&new[..at], old.get(at..).unwrap_or_default()].concat()
    }

    /// Calls `each` with the content that a power cut may leave in a file during a write: sectors are written in order,
    /// or pages in any order.
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
    fn e40_a_log_is_kept_after_an_interrupted_checkpoint() {
        let dir = TempDir::new();
        drop(saved(&dir, 3));
        let opened = saved(&dir, 5);
        let mut files = files(&dir);
        let old = files[""].clone();
        opened.store.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        let new = fs::read(dir.file()).unwrap();
        drop(opened);
        assert_ne!(old, new);
        each_torn(&new, &old, |bytes| {
            files.insert(String::new(), bytes);
            opens_with(&files, 8, "torn");
        });
    }

    #[test]
    fn a_file_without_a_schema_number_is_left_unchanged() {
        let version = |dir: &TempDir, number: i64| {
            Connection::open(dir.file()).unwrap().pragma_update(None, "user_version", number).unwrap();
        };
        for number in [0, -1] {
            let dir = TempDir::new();
            Store::open(&dir.file(), &OPTIONS).unwrap().save_batch(&Batch::steady(1, T + 30, 3)).unwrap();
            version(&dir, number);
            refuses(&dir, ErrorKind::Foreign, &["no schema number", "--database"]);
            version(&dir, SCHEMA);
            assert_eq!(sample_count(&Store::open(&dir.file(), &OPTIONS).unwrap()), 3);
        }
    }

    /// Opening the database of a killed program changes the id, the log and the guard file one after the other. After
    /// each step, and within it, the three fit together.
    #[test]
    fn e40_a_power_cut_at_any_step_of_an_opening_keeps_the_log() {
        let dir = TempDir::new();
        drop(saved(&dir, 3));
        let mut stages = vec![("killed", killed(&dir, 5))];
        let dir = dir_with(&stages[0].1);
        {
            let guard = GuardFile::take(&dir.file()).unwrap();
            let mut conn = connection(&dir.file(), Some("unix-excl"), HANDOVER_TIMEOUT).unwrap();
            WRITER_PRAGMAS.iter().for_each(|(name, value)| set(&conn, name, value).unwrap());
            set(&conn, "journal_mode", "wal").unwrap();
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
            let id = renew_id(&tx, &guard).unwrap().unwrap();
            stages.push(("the guard has both ids", files(&dir)));
            tx.commit().unwrap();
            stages.push(("the log has the new id", files(&dir)));
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            stages.push(("the file has the new id", files(&dir)));
            confirm_id(&conn, &guard, id);
            stages.push(("the guard has the new id alone", files(&dir)));
        }
        let part = |stage: usize, part: &str| stages[stage].1[part].clone();
        assert!(part(0, ".guard") != part(1, ".guard") && part(1, ".guard") != part(4, ".guard"));
        assert!(part(2, "") != part(3, "") && part(4, "-wal").is_empty());
        for (what, files) in &stages {
            opens_with(files, 8, what);
        }
        // The guard file is synced before the transaction is written: with a torn log it has both ids.
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
        // The checkpoint copies the log into the file, and keeps the log until the file is synced.
        let mut files = stages[2].1.clone();
        each_torn(&part(3, ""), &part(2, ""), |bytes| {
            files.insert(String::new(), bytes);
            opens_with(&files, 8, "within the file");
        });
        // Truncating the log and the last write of the guard file are not synced: any part of them may be on the disk.
        let mut files = stages[4].1.clone();
        for log in [part(3, "-wal"), Vec::new()] {
            files.insert("-wal".into(), log);
            for at in 0..=part(4, ".guard").len() {
                files.insert(".guard".into(), torn(&part(4, ".guard"), &part(3, ".guard"), at));
                opens_with(&files, 8, "within the last write of the guard");
            }
        }
    }

    /// Where the guard file cannot be written, the database keeps its id, and all else works as before.
    #[test]
    fn the_id_stays_when_the_guard_file_cannot_be_written() {
        let dir = TempDir::new();
        drop(saved(&dir, 3));
        let id = |dir: &TempDir| file_id(&Connection::open(dir.file()).unwrap()).unwrap().unwrap();
        let (before, file) = (id(&dir), fs::read(with_suffix(&dir.file(), ".guard")).unwrap());
        let mut events = Vec::new();
        let guard = GuardFile::unwritable(&dir.file());
        drop(connect_with_vfs(&dir.file(), None, 1_000, &guard, &mut events).unwrap());
        drop(guard);
        assert_eq!((id(&dir), events.len()), (before, 0));
        assert_eq!(fs::read(with_suffix(&dir.file(), ".guard")).unwrap(), file);
        opens_with(&killed(&dir, 2), 5, "after it");
        assert_ne!(id(&dir), before);
    }

    /// A file of any name, passed to SQLite as a URI.
    #[test]
    fn a_database_of_any_name_is_read_without_its_log() {
        let dir = TempDir::new();
        let directory = dir.path().join("50% of a?b#c&d=e ü");
        fs::create_dir(&directory).unwrap();
        let path = directory.join("net pulse+%41.db");
        drop(Store::open(&path, &OPTIONS).unwrap());
        let ids = GuardFile::take(&path).unwrap().ids().unwrap();
        assert_eq!(ids[0], ids[1]);
        assert!(!is_other_file(&path, &ids).unwrap());
        assert!(is_other_file(&path, &[FileId::NONE; 2]).unwrap());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "no file is created beside it");
    }

    /// The real `unix-dotfile` refuses a write-ahead log, and the other journal mode is used.
    #[test]
    #[cfg(unix)]
    fn e36_e37_without_a_write_ahead_log_the_other_journal_mode_is_used() {
        let dir = TempDir::new();
        let mut events = Vec::new();
        // A lock as a power cut leaves it.
        fs::create_dir(with_suffix(&dir.file(), ".lock")).unwrap();
        let guard = GuardFile::take(&dir.file()).unwrap();
        let (conn, watermarks, _) =
            connect_with_vfs(&dir.file(), Some("unix-dotfile"), 1_000, &guard, &mut events).unwrap();
        assert_eq!(events.len(), 1);
        assert!(events[0].detail.contains("no write-ahead log"), "{events:?}");
        let journal: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(journal, "truncate");
        let database = DatabaseFile::new(dir.file(), Some("unix-dotfile"), None, Arc::new(guard), &conn).unwrap();
        let mut store = store(database.path.clone(), Arc::new(database), 1_000, conn, watermarks);
        let reader = store.reader().unwrap();
        for at in 0..5 {
            store.save_batch(&Batch::steady(1 + 3 * at, T + 90 * at as i64, 3)).unwrap();
            assert_eq!(reader.view().unwrap().stats().unwrap().samples, 3 * (at + 1));
            // A reader that rolls back a failed save changes the file too. The file is still ours.
            store.conn.execute_batch("CREATE TABLE passing (x); DROP TABLE passing").unwrap();
        }
        drop((store, reader));
        assert_eq!(sample_count(&Store::open(&dir.file(), &OPTIONS).unwrap()), 15);
    }

    #[test]
    fn the_pragmas_are_set() {
        let dir = TempDir::new();
        let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let value = |name: &str| -> i64 { opened.store.conn.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
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
            assert_eq!(value(name), expect, "{name}");
        }
        let reader = opened.store.reader().unwrap();
        assert!(reader.conn.execute("DELETE FROM sample", []).is_err());
    }

    #[test]
    fn e38_readers_work_during_a_transaction_and_after_a_checkpoint() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T + 30, 3)).unwrap();
        let reader = opened.store.reader().unwrap();
        let conn = &opened.store.conn;
        conn.execute_batch("BEGIN IMMEDIATE; INSERT INTO setting VALUES ('a', 'b')").unwrap();
        let reader = std::thread::spawn(move || {
            let stats = reader.view().unwrap().stats().unwrap();
            assert_eq!((stats.samples, stats.settings), (3, 0));
            reader
        })
        .join()
        .unwrap();
        conn.execute_batch("COMMIT").unwrap();
        let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        let stats = reader.view().unwrap().stats().unwrap();
        assert_eq!((stats.samples, stats.settings), (3, 1));

        // A reader in the middle of a transaction keeps its view, and does not block the writer.
        let before = reader.view().unwrap();
        let count = |view: &View| view.stats().unwrap().samples;
        assert_eq!(count(&before), 3);
        (1..200).for_each(|at| opened.save_batch(&Batch::steady(1 + 3 * at, T + 90 * at as i64, 3)).unwrap());
        assert_eq!(count(&before), 3);
        drop(before);
        assert_eq!(reader.view().unwrap().stats().unwrap().samples, 600);
    }
}
