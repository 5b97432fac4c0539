//! Migrates a database from an older schema. A step is a file of SQL statements, or a conversion of rows in many short
//! transactions. Each of these saves the progress, so that memory and log stay small and a kill loses one transaction
//! at most. The first transaction raises the version in the file: an older program refuses a half-migrated file, and
//! the saved progress shows that it is half migrated.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::codec::block::{ByteReader, damaged, first_byte};
use super::connection::{PAGE_BYTES, pragma, set};
use super::open_block::put_meta;
use crate::error::{Error, ErrorKind, Result};
use crate::model::COUNTERS;
use crate::text::counted;

/// "NPls" in ASCII. SQLite's `application_id` tells our files from those of other programs.
pub(super) const APPLICATION_ID: i32 = 0x4e50_6c73;

/// One step from a version to the next.
enum Step {
    Sql(&'static str),
    Convert(ConvertRows),
}
use Step::{Convert, Sql};

/// Converts rows until it has written about this number of pages, and moves the cursor. Returns whether the step is
/// complete.
type ConvertRows = fn(&Connection, &mut Cursor, u64) -> Result<bool>;

/// Step `n` migrates from version `n` to `n + 1`; `user_version` is the number of steps that are complete or begun.
/// The second value: the highest number of counters in a row of version `n + 1`.
const STEPS: [(Step, usize); 3] = [
    (Sql(include_str!("schema/001.sql")), schema_2::COUNTERS),
    (Sql(include_str!("schema/002.sql")), schema_2::COUNTERS),
    (Convert(add_column_counts), schema_2::COUNTERS),
];
const _: () = assert!(
    STEPS[STEPS.len() - 1].1 == COUNTERS,
    "a new counter needs a step, even an empty one, (Sql(\"\"), 9): an older program must refuse the new rows"
);
pub(super) const SCHEMA: i64 = STEPS.len() as i64;

/// Creates the empty tables of a version.
pub(super) fn make_tables(conn: &Connection, version: i64) -> Result<()> {
    let steps = STEPS.iter().take(version.max(0) as usize);
    steps.filter_map(|(step, _)| if let Sql(text) = step { Some(text) } else { None }).try_for_each(|text| {
        conn.execute_batch(text)?;
        Ok(())
    })
}

/// Approximate limit of pages per transaction. The log is checkpointed after the same number (`wal_autocheckpoint`).
pub(super) const PAGES_AT_ONCE: u64 = 64;

/// Keys of `meta`: the progress of an unfinished step, and notices that are not saved as events yet.
const PROGRESS_KEY: &str = "migration";
const NOTICES_KEY: &str = "migration_told";

/// Progress of a step: its current part (the index of a table in `TABLES`), and the key of the last row done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    part: i64,
    after: i64,
    /// Rows that could not be read. They stay unchanged.
    damaged: i64,
}

impl Cursor {
    const START: Cursor = Cursor { part: 0, after: i64::MIN, damaged: 0 };

    fn text(&self) -> String {
        format!("{} {} {}", self.part, self.after, self.damaged)
    }

    fn parse(text: &str) -> Result<Cursor> {
        let mut numbers = text.split(' ').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        match (next(), next(), next()) {
            (Some(part), Some(after), Some(damaged)) => Ok(Cursor { part, after, damaged }),
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                "it is half migrated, and the progress of the migration cannot be read",
            )),
        }
    }
}

fn read_meta(conn: &Connection, key: &str) -> Result<Option<String>> {
    Ok(conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?)
}

fn delete_meta(conn: &Connection, key: &str) -> Result<()> {
    conn.execute("DELETE FROM meta WHERE key = ?1", [key])?;
    Ok(())
}

/// The schema of a file that holds history and whose migration has not begun; `None` for any other file.
pub(super) fn schema_to_copy(conn: &Connection) -> Result<Option<i64>> {
    let version = pragma(conn, "user_version")?;
    if !(1..SCHEMA).contains(&version) || read_meta(conn, PROGRESS_KEY)?.is_some() {
        return Ok(None);
    }
    const HAS_HISTORY: &str = "SELECT EXISTS (SELECT 1 FROM interface) OR EXISTS (SELECT 1 FROM sample)
                         OR EXISTS (SELECT 1 FROM day) OR EXISTS (SELECT 1 FROM setting)";
    let has_history: bool = conn.query_row(HAS_HISTORY, [], |row| row.get(0))?;
    Ok(has_history.then_some(version))
}

pub(super) fn is_complete(conn: &Connection) -> Result<bool> {
    Ok(pragma(conn, "user_version")? == SCHEMA && read_meta(conn, PROGRESS_KEY)?.is_none())
}

/// Adds a notice for the user. It stays in the file until it is saved as an event.
pub(super) fn add_notice(conn: &Connection, sentence: &str) -> Result<()> {
    let before = read_meta(conn, NOTICES_KEY)?.map_or(String::new(), |before| before + "\n");
    put_meta(conn, NOTICES_KEY, before + sentence)
}

/// Notices that are not saved as events yet; some may be from an earlier run.
pub(super) fn notices(conn: &Connection) -> Result<Vec<String>> {
    Ok(read_meta(conn, NOTICES_KEY)?.iter().flat_map(|notices| notices.lines()).map(str::to_string).collect())
}

/// Removes the notices: events were saved, and the notices are among them.
pub(super) fn clear_notices(conn: &Connection) -> Result<()> {
    delete_meta(conn, NOTICES_KEY)
}

/// Migrates until it has written about this number of pages. `conn` is in a transaction. Returns whether the migration
/// is complete.
pub(super) fn run_steps(conn: &Connection, pages: u64) -> Result<bool> {
    let version = pragma(conn, "user_version")?.max(0);
    let mut progress = if version > 0 { read_meta(conn, PROGRESS_KEY)? } else { None };
    let mut at = if progress.is_some() { version - 1 } else { version };
    while let Some((step, _)) = STEPS.get(at as usize) {
        at += 1;
        match step {
            Sql(text) => conn.execute_batch(text)?,
            Convert(convert) => {
                let mut cursor = progress.take().map_or(Ok(Cursor::START), |text| Cursor::parse(&text))?;
                if !convert(conn, &mut cursor, pages)? {
                    put_meta(conn, PROGRESS_KEY, cursor.text())?;
                    set_version(conn, version, at)?;
                    return Ok(false);
                }
                delete_meta(conn, PROGRESS_KEY)?;
                if cursor.damaged > 0 {
                    let rows = counted(cursor.damaged as u64, "row has", "rows have");
                    let sentence = format!("{rows} an unknown format: left unchanged, and not shown");
                    log::error!("{sentence}");
                    add_notice(conn, &sentence)?;
                }
            }
        }
    }
    set_version(conn, version, at)?;
    Ok(true)
}

/// Writes the version into the first page, unless it is already there.
fn set_version(conn: &Connection, from: i64, to: i64) -> Result<()> {
    if from == to {
        return Ok(());
    }
    set(conn, "application_id", &APPLICATION_ID.to_string())?;
    set(conn, "user_version", &to.to_string())
}

/// A table whose rows are converted one by one, in the order of their keys.
struct Table {
    name: &'static str,
    key: &'static str,
    column: &'static str,
    convert: fn(&mut Vec<u8>) -> Result<()>,
}

impl Table {
    /// SQL for the first row after a key.
    fn next_sql(&self) -> String {
        let Table { name, key, column, .. } = self;
        format!("SELECT {key}, {column} FROM {name} WHERE {key} > ?1 AND {column} NOT NULL ORDER BY {key} LIMIT 1")
    }

    fn put_sql(&self) -> String {
        let Table { name, key, column, .. } = self;
        format!("UPDATE {name} SET {column} = ?2 WHERE {key} = ?1")
    }
}

/// Converts rows of several tables. A row that cannot be converted stays unchanged.
fn convert_rows(conn: &Connection, tables: &[Table], cursor: &mut Cursor, pages: u64) -> Result<bool> {
    let mut written = 0;
    while let Some(table) = tables.get(cursor.part as usize) {
        let row = conn.prepare_cached(&table.next_sql())?.query_row([cursor.after], |row| {
            let bytes = match row.get_ref(1)? {
                ValueRef::Blob(bytes) => bytes.to_vec(),
                _ => Vec::new(),
            };
            Ok((row.get::<_, i64>(0)?, bytes))
        });
        let Some((key, mut bytes)) = row.optional()? else {
            *cursor = Cursor { part: cursor.part + 1, after: i64::MIN, ..*cursor };
            continue;
        };
        cursor.after = key;
        written += 1 + bytes.len() as u64 / PAGE_BYTES;
        match (table.convert)(&mut bytes) {
            Ok(()) => drop(conn.prepare_cached(&table.put_sql())?.execute(params![key, bytes])?),
            Err(error) => {
                log::debug!("row {key} of {} is not converted: {error}", table.name);
                cursor.damaged += 1;
            }
        }
        if written >= pages {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Formats up to schema 2: the first byte of every block was 1, a tally had no such byte, and both had eight counters.
/// All other bytes are the same now. The conversion unpacks no block, so a damaged block stays as readable as before.
mod schema_2 {
    pub const FORMAT: u8 = 1;
    pub const COUNTERS: usize = 8;
    pub const SAMPLE_COLUMNS: usize = COUNTERS + 2;
    pub const CELL_COLUMNS: usize = COUNTERS + 6;
    /// Number of values in a tally.
    pub const TALLY_VALUES: usize = 2 * COUNTERS + 4;
}

const CONVERT_SAMPLES: fn(&mut Vec<u8>) -> Result<()> = |bytes| convert_block(bytes, schema_2::SAMPLE_COLUMNS);
const CONVERT_CELLS: fn(&mut Vec<u8>) -> Result<()> = |bytes| convert_block(bytes, schema_2::CELL_COLUMNS);

const TABLES: [Table; 5] = [
    Table { name: "interface", key: "id", column: "tally", convert: convert_tally },
    Table { name: "sample", key: "first", column: "data", convert: CONVERT_SAMPLES },
    Table { name: "five_minutes", key: "start", column: "data", convert: CONVERT_CELLS },
    Table { name: "hour", key: "start", column: "data", convert: CONVERT_CELLS },
    Table { name: "day", key: "start", column: "data", convert: CONVERT_CELLS },
];

fn add_column_counts(conn: &Connection, cursor: &mut Cursor, pages: u64) -> Result<bool> {
    convert_rows(conn, &TABLES, cursor, pages)
}

fn convert_block(bytes: &mut [u8], columns: usize) -> Result<()> {
    match bytes.first_mut() {
        Some(first) if *first == schema_2::FORMAT => {
            *first = first_byte(columns);
            Ok(())
        }
        _ => Err(damaged("its format is unknown")),
    }
}

fn convert_tally(bytes: &mut Vec<u8>) -> Result<()> {
    let mut numbers = ByteReader(bytes);
    (0..schema_2::TALLY_VALUES).try_for_each(|_| numbers.leb().map(drop))?;
    bytes.insert(0, first_byte(schema_2::COUNTERS));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::clock::Zone;
    use crate::model::Batch;
    use crate::model::EventKind;
    use crate::store::codec::unpack_samples;
    use crate::store::testing::{OPTIONS, RETENTION, TempDir};
    use crate::store::watermarks::Tally;
    use crate::store::{Opened, SaveRequest, Store};

    /// A file that a program with schema 2 has written; see `tests/it/history.rs`.
    fn schema_2_file() -> TempDir {
        let dir = TempDir::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history/schema-2.db");
        fs::copy(from, dir.file()).unwrap();
        dir
    }

    fn connect(dir: &TempDir) -> Connection {
        Connection::open(dir.file()).unwrap()
    }

    /// Runs one transaction of about this number of pages.
    fn run_some_steps(conn: &mut Connection, pages: u64) -> bool {
        let tx = conn.transaction().unwrap();
        let done = run_steps(&tx, pages).unwrap();
        tx.commit().unwrap();
        done
    }

    fn event_texts(opened: &Opened) -> Vec<String> {
        assert!(opened.events.iter().all(|event| event.kind == EventKind::Storage));
        opened.events.iter().map(|event| event.detail.clone()).collect()
    }

    fn open(dir: &TempDir) -> Vec<String> {
        event_texts(&Store::open(&dir.file(), &OPTIONS).unwrap())
    }

    /// Opens the file and saves the events.
    fn open_and_save(dir: &TempDir) -> Vec<String> {
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        let (batch, retention, zone) = (&Batch::default(), RETENTION, &Zone::UTC);
        let (anchors, records, settings) = (&[], &[], &[]);
        opened
            .store
            .save(&SaveRequest { batch, anchors, records, events: &opened.events, settings, retention, zone })
            .unwrap();
        event_texts(&opened)
    }

    fn copies(dir: &TempDir) -> usize {
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().contains(".schema-2")).count()
    }

    /// All rows of all tables, without the values that each opening changes.
    fn content(conn: &Connection) -> Vec<String> {
        let mut all = Vec::new();
        for table in ["meta", "setting", "interface", "sample", "five_minutes", "hour", "day", "event"] {
            let mut statement = conn.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<_> = (0..columns).map(|at| row.get_ref(at).unwrap()).collect();
                if !matches!(values[0], ValueRef::Text(b"opened" | b"file" | b"migration_told")) {
                    all.push(format!("{table} {values:?}"));
                }
            }
        }
        all
    }

    fn expected_content() -> Vec<String> {
        let dir = schema_2_file();
        open(&dir);
        content(&connect(&dir))
    }

    #[test]
    fn a_kill_after_any_transaction_leads_to_the_same_result() {
        const PAGES: u64 = 3;
        let expect = expected_content();
        let all = {
            let (dir, mut transactions) = (schema_2_file(), 1);
            let mut conn = connect(&dir);
            while !run_some_steps(&mut conn, PAGES) {
                transactions += 1;
            }
            assert_eq!(content(&conn), expect);
            transactions
        };
        assert!(all > 20, "{all}");
        for killed in 1..all {
            let dir = schema_2_file();
            let mut conn = connect(&dir);
            (0..killed).for_each(|_| assert!(!run_some_steps(&mut conn, PAGES)));
            assert!(pragma(&conn, "user_version").unwrap() > 2, "an older program refuses it");
            assert!(!is_complete(&conn).unwrap());
            drop(conn);
            assert_eq!(open(&dir), [""; 0]);
            let conn = connect(&dir);
            assert!(is_complete(&conn).unwrap());
            assert_eq!(content(&conn), expect, "killed after {killed} of {all}");
            assert_eq!(copies(&dir), 0, "no copy is made of a half-migrated file");
        }
    }

    /// The size of a transaction does not depend on the size of the file.
    #[test]
    fn a_transaction_stays_within_its_pages() {
        let dir = schema_2_file();
        let mut conn = connect(&dir);
        conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").unwrap();
        let log = || fs::metadata(dir.path().join("net-pulse.db-wal")).unwrap().len();
        let mut before = log();
        loop {
            let done = run_some_steps(&mut conn, 4);
            // The 4 pages, those of the last row, the page with the version and the page with the progress.
            assert!(log() - before <= 10 * (PAGE_BYTES + 24) + 32, "{} bytes", log() - before);
            before = log();
            if done {
                return;
            }
        }
    }

    #[test]
    fn a_copy_of_the_old_file_is_kept() {
        let dir = schema_2_file();
        let before = content(&connect(&dir));
        let event_texts = open(&dir);
        let kept = dir.path().join("net-pulse.db.schema-2");
        assert_eq!(event_texts.len(), 1, "{event_texts:?}");
        assert!(
            event_texts[0].contains(&format!("from schema 2 to {SCHEMA}"))
                && event_texts[0].contains(kept.to_str().unwrap()),
            "{event_texts:?}"
        );
        let conn = Connection::open(&kept).unwrap();
        assert_eq!((pragma(&conn, "user_version").unwrap(), content(&conn)), (2, before));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&kept).unwrap().permissions()) & 0o777, 0o600);
        drop(conn);
        // Put the copy back and migrate again: the first copy stays.
        let first = fs::read(&kept).unwrap();
        fs::copy(&kept, dir.file()).unwrap();
        open(&dir);
        assert_eq!(fs::read(&kept).unwrap(), first);
        assert_eq!(content(&connect(&dir)), expected_content());
        assert_eq!(copies(&dir), 2);
        // The next opening removes what a killed attempt has left.
        fs::write(dir.path().join("net-pulse.db.keeping"), "half").unwrap();
        open(&dir);
        assert!(!dir.path().join("net-pulse.db.keeping").exists());
    }

    #[test]
    fn a_new_file_needs_no_copy() {
        let dir = TempDir::new();
        assert_eq!(open(&dir), [""; 0]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn damaged_rows_stay_unchanged_and_are_reported_once() {
        let dir = schema_2_file();
        let conn = connect(&dir);
        conn.execute_batch(
            "UPDATE sample SET data = CAST(x'5a' || substr(data, 2) AS BLOB) WHERE first = (SELECT min(first) FROM sample);
             UPDATE hour SET data = x'' WHERE start = (SELECT min(start) FROM hour);
             UPDATE interface SET tally = substr(tally, 1, length(tally) - 1) WHERE id = 3;",
        )
        .unwrap();
        let damaged_rows = |conn: &Connection| -> Vec<Vec<u8>> {
            [
                "SELECT data FROM sample ORDER BY first",
                "SELECT data FROM hour ORDER BY start",
                "SELECT tally FROM interface WHERE id = 3",
            ]
            .map(|query| conn.query_row(&format!("{query} LIMIT 1"), [], |row| row.get(0)).unwrap())
            .into()
        };
        let before = damaged_rows(&conn);
        drop(conn);
        let event_texts = open(&dir);
        assert!(
            event_texts.len() == 2 && event_texts[1].starts_with("3 rows have an unknown format"),
            "{event_texts:?}"
        );
        assert_eq!(damaged_rows(&connect(&dir)), before);
        open_and_save(&dir);
        assert_eq!(open(&dir), [""; 0]);
    }

    #[test]
    fn an_unconverted_tally_is_never_read_as_converted() {
        let values: Vec<u8> = (0..19).map(|at| at + 1).collect();
        for first in [0x80_u8, 0x82, 0x87, 0x88, 0x89, 0xff] {
            for (stored, missing) in [(&values[..], 0), (&values[..18], 1), (&values[..3], 16)] {
                let old: Vec<u8> = [&[first, 1][..], stored].concat();
                assert!(missing == 0 || Tally::unpack(&old).is_err(), "{first:x} without {missing}");
                let mut new = old.clone();
                assert_eq!(convert_tally(&mut new).is_ok(), missing == 0);
                assert!(missing > 0 || Tally::unpack(&new).is_ok());
            }
        }
    }

    #[test]
    fn an_unsaved_notice_is_repeated() {
        let dir = schema_2_file();
        for _ in 0..3 {
            let opened = Store::open(&dir.file(), &OPTIONS).unwrap();
            assert_eq!((event_texts(&opened).len(), copies(&dir)), (1, 1));
        }
        assert_eq!(open_and_save(&dir).len(), 1);
        assert_eq!(open(&dir), [""; 0]);
    }

    /// Only a tally gets longer, by one byte.
    #[test]
    fn blocks_keep_their_length_and_their_content() {
        let dir = schema_2_file();
        let blocks = |conn: &Connection| -> Vec<Vec<u8>> {
            let mut statement = conn.prepare("SELECT data FROM sample ORDER BY first").unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(|row| row.unwrap()).collect()
        };
        let tally = |conn: &Connection| -> Vec<u8> {
            conn.query_row("SELECT tally FROM interface WHERE id = 1", [], |row| row.get(0)).unwrap()
        };
        let (before, old_tally) = (blocks(&connect(&dir)), tally(&connect(&dir)));
        open(&dir);
        let after = blocks(&connect(&dir));
        assert_eq!((before.len(), before[0][0], after[0][0]), (after.len(), 1, 0x80 | 10));
        for (old, new) in before.iter().zip(&after) {
            assert_eq!(old[1..], new[1..]);
            assert!(unpack_samples(old).is_err() && unpack_samples(new).is_ok());
        }
        let new_tally = tally(&connect(&dir));
        assert_eq!((new_tally[0], &new_tally[1..]), (0x80 | 8, &old_tally[..]));
        assert!(Tally::unpack(&new_tally).is_ok());
    }

    #[test]
    fn unreadable_progress_is_damage() {
        let dir = schema_2_file();
        let mut conn = connect(&dir);
        assert!(!run_some_steps(&mut conn, 1));
        conn.execute("UPDATE meta SET value = 'elsewhere' WHERE key = ?1", [PROGRESS_KEY]).unwrap();
        assert_eq!(run_steps(&conn, 1).unwrap_err().kind, ErrorKind::Corrupt);
    }
}
