//! From an older schema to this one. A step is a statement of SQL, or work on rows that takes many short transactions: each
//! notes how far it is, so that memory and log stay small, and a kill costs no more than one of them. The version in the
//! file is raised by the first: an older program refuses what is half done, and the note says that it is.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::block::{Bytes, damaged, first_byte};
use super::connection::{PAGE_BYTES, pragma, set};
use super::window::put_mark;
use crate::error::{Error, ErrorKind, Result};
use crate::model::COUNTERS;
use crate::text::counted;

/// "NPls": marks the file as ours, so that another program's is never taken for it.
pub(super) const APPLICATION_ID: i32 = 0x4e50_6c73;

enum Step {
    Sql(&'static str),
    Rows(Work),
}
use Step::{Rows, Sql};

/// Does some of a step, about so many pages of it, and moves the cursor. Says whether it is over.
type Work = fn(&Connection, &mut Cursor, u64) -> Result<bool>;

/// Step `n` brings a file from version `n` to `n + 1`; `user_version` is how far it is. Behind each step stands how many counters
/// rows may have from there on.
const STEPS: [(Step, usize); 3] = [
    (Sql(include_str!("schema/001.sql")), schema_2::COUNTERS),
    (Sql(include_str!("schema/002.sql")), schema_2::COUNTERS),
    (Rows(blocks_say_their_columns), schema_2::COUNTERS),
];
const _: () = assert!(
    STEPS[STEPS.len() - 1].1 == COUNTERS,
    "a further counter takes a step, if only (Sql(\"\"), 9): an older program must not open what it cannot read"
);
pub(super) const SCHEMA: i64 = STEPS.len() as i64;

/// The tables that a version has, empty.
pub(super) fn make_tables(conn: &Connection, version: i64) -> Result<()> {
    let steps = STEPS.iter().take(version.max(0) as usize);
    steps.filter_map(|(step, _)| if let Sql(text) = step { Some(text) } else { None }).try_for_each(|text| {
        conn.execute_batch(text)?;
        Ok(())
    })
}

/// What one transaction writes at most, or little more: the log is taken into the file after as much.
pub(super) const PAGES_AT_ONCE: u64 = 64;

/// Keys of `meta`: where a step stands that is not over, and what is to be told.
const NOTE: &str = "migration";
const TOLD: &str = "migration_told";

/// Where a step stands: in which of its parts, and behind which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    part: i64,
    after: i64,
    /// Rows that could not be read, and stay as they are.
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
            _ => Err(Error::new(ErrorKind::Corrupt, "it is half migrated, and how far cannot be read")),
        }
    }
}

fn noted(conn: &Connection, key: &str) -> Result<Option<String>> {
    Ok(conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?)
}

fn forget(conn: &Connection, key: &str) -> Result<()> {
    conn.execute("DELETE FROM meta WHERE key = ?1", [key])?;
    Ok(())
}

/// The schema that a file has that holds something, where a migration is about to begin: none has so far.
pub(super) fn about_to_leave(conn: &Connection) -> Result<Option<i64>> {
    let version = pragma(conn, "user_version")?;
    if !(1..SCHEMA).contains(&version) || noted(conn, NOTE)?.is_some() {
        return Ok(None);
    }
    const HOLDS: &str = "SELECT EXISTS (SELECT 1 FROM interface) OR EXISTS (SELECT 1 FROM sample)
                         OR EXISTS (SELECT 1 FROM day) OR EXISTS (SELECT 1 FROM setting)";
    let holds: bool = conn.query_row(HOLDS, [], |row| row.get(0))?;
    Ok(holds.then_some(version))
}

pub(super) fn is_over(conn: &Connection) -> Result<bool> {
    Ok(pragma(conn, "user_version")? == SCHEMA && noted(conn, NOTE)?.is_none())
}

/// Has a sentence told, until it is among the events on disk.
pub(super) fn have_told(conn: &Connection, sentence: &str) -> Result<()> {
    let before = noted(conn, TOLD)?.map_or(String::new(), |before| before + "\n");
    put_mark(conn, TOLD, before + sentence)
}

/// What is to be told, some of it perhaps since an earlier run.
pub(super) fn to_be_told(conn: &Connection) -> Result<Vec<String>> {
    Ok(noted(conn, TOLD)?.iter().flat_map(|told| told.lines()).map(str::to_string).collect())
}

/// Events were saved, and these sentences among them.
pub(super) fn was_told(conn: &Connection) -> Result<()> {
    forget(conn, TOLD)
}

/// About so many pages in one transaction; `conn` is in one. Says whether all is done.
pub(super) fn some(conn: &Connection, pages: u64) -> Result<bool> {
    let version = pragma(conn, "user_version")?.max(0);
    let mut note = if version > 0 { noted(conn, NOTE)? } else { None };
    let mut at = if note.is_some() { version - 1 } else { version };
    while let Some((step, _)) = STEPS.get(at as usize) {
        at += 1;
        match step {
            Sql(text) => conn.execute_batch(text)?,
            Rows(work) => {
                let mut cursor = note.take().map_or(Ok(Cursor::START), |text| Cursor::parse(&text))?;
                if !work(conn, &mut cursor, pages)? {
                    put_mark(conn, NOTE, cursor.text())?;
                    raise(conn, version, at)?;
                    return Ok(false);
                }
                forget(conn, NOTE)?;
                if cursor.damaged > 0 {
                    let rows = counted(cursor.damaged as u64, "row is", "rows are");
                    let sentence = format!("{rows} in no form that is known, and left as found: not in the answers");
                    log::error!("{sentence}");
                    have_told(conn, &sentence)?;
                }
            }
        }
    }
    raise(conn, version, at)?;
    Ok(true)
}

/// The first page with it: not written where it has the version.
fn raise(conn: &Connection, from: i64, to: i64) -> Result<()> {
    if from == to {
        return Ok(());
    }
    set(conn, "application_id", &APPLICATION_ID.to_string())?;
    set(conn, "user_version", &to.to_string())
}

/// A table whose rows are made anew one by one, in the order of their keys.
struct Table {
    name: &'static str,
    key: &'static str,
    column: &'static str,
    anew: fn(&mut Vec<u8>) -> Result<()>,
}

impl Table {
    /// The next row behind a key.
    fn next(&self) -> String {
        let Table { name, key, column, .. } = self;
        format!("SELECT {key}, {column} FROM {name} WHERE {key} > ?1 AND {column} NOT NULL ORDER BY {key} LIMIT 1")
    }

    fn put(&self) -> String {
        let Table { name, key, column, .. } = self;
        format!("UPDATE {name} SET {column} = ?2 WHERE {key} = ?1")
    }
}

/// What cannot be made anew stays.
fn some_rows(conn: &Connection, tables: &[Table], cursor: &mut Cursor, pages: u64) -> Result<bool> {
    let mut written = 0;
    while let Some(table) = tables.get(cursor.part as usize) {
        let row = conn.prepare_cached(&table.next())?.query_row([cursor.after], |row| {
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
        match (table.anew)(&mut bytes) {
            Ok(()) => drop(conn.prepare_cached(&table.put())?.execute(params![key, bytes])?),
            Err(error) => {
                log::debug!("row {key} of {} stays as it is: {error}", table.name);
                cursor.damaged += 1;
            }
        }
        if written >= pages {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Up to schema 2 the first byte of every block was a 1, and each had eight counters, as had each tally. What follows the
/// first byte is as it was. Nothing is unpacked: a block that is damaged further on answers as much as it did.
mod schema_2 {
    pub const FORMAT: u8 = 1;
    pub const COUNTERS: usize = 8;
    pub const SAMPLE_COLUMNS: usize = COUNTERS + 2;
    pub const CELL_COLUMNS: usize = COUNTERS + 6;
    /// Numbers of a tally.
    pub const TALLY: usize = 2 * COUNTERS + 4;
}

const SAMPLES: fn(&mut Vec<u8>) -> Result<()> = |bytes| block_anew(bytes, schema_2::SAMPLE_COLUMNS);
const CELLS: fn(&mut Vec<u8>) -> Result<()> = |bytes| block_anew(bytes, schema_2::CELL_COLUMNS);

const BLOCKS: [Table; 5] = [
    Table { name: "interface", key: "id", column: "tally", anew: tally_anew },
    Table { name: "sample", key: "first", column: "data", anew: SAMPLES },
    Table { name: "five_minutes", key: "start", column: "data", anew: CELLS },
    Table { name: "hour", key: "start", column: "data", anew: CELLS },
    Table { name: "day", key: "start", column: "data", anew: CELLS },
];

fn blocks_say_their_columns(conn: &Connection, cursor: &mut Cursor, pages: u64) -> Result<bool> {
    some_rows(conn, &BLOCKS, cursor, pages)
}

fn block_anew(bytes: &mut [u8], columns: usize) -> Result<()> {
    match bytes.first_mut() {
        Some(first) if *first == schema_2::FORMAT => {
            *first = first_byte(columns);
            Ok(())
        }
        _ => Err(damaged("its format is unknown")),
    }
}

fn tally_anew(bytes: &mut Vec<u8>) -> Result<()> {
    let mut numbers = Bytes(bytes);
    (0..schema_2::TALLY).try_for_each(|_| numbers.leb().map(drop))?;
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
    use crate::store::rows::unpack_samples;
    use crate::store::state::Tally;
    use crate::store::testing::{KEEP, OPTIONS, Place};
    use crate::store::{Flush, Opened, Store};

    /// A file of schema 2 that a version of then has written (`tests/it/history.rs`).
    fn older() -> Place {
        let place = Place::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history/schema-2.db");
        fs::copy(from, place.file()).unwrap();
        place
    }

    fn connect(place: &Place) -> Connection {
        Connection::open(place.file()).unwrap()
    }

    /// Some pages of it, and then it is killed.
    fn turn(conn: &mut Connection, pages: u64) -> bool {
        let tx = conn.transaction().unwrap();
        let done = some(&tx, pages).unwrap();
        tx.commit().unwrap();
        done
    }

    fn told(opened: &Opened) -> Vec<String> {
        assert!(opened.events.iter().all(|event| event.kind == EventKind::Storage));
        opened.events.iter().map(|event| event.detail.clone()).collect()
    }

    fn open(place: &Place) -> Vec<String> {
        told(&Store::open(&place.file(), &OPTIONS).unwrap())
    }

    /// Until its events are saved.
    fn run(place: &Place) -> Vec<String> {
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        let (batch, keep, zone) = (&Batch::default(), KEEP, &Zone::UTC);
        let (anchors, records, settings) = (&[], &[], &[]);
        opened.store.flush(&Flush { batch, anchors, records, events: &opened.events, settings, keep, zone }).unwrap();
        told(&opened)
    }

    fn copies(place: &Place) -> usize {
        let names = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().contains(".schema-2")).count()
    }

    /// Everything in all tables, but for what each opening changes.
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

    fn expected() -> Vec<String> {
        let place = older();
        open(&place);
        content(&connect(&place))
    }

    #[test]
    fn killed_after_any_of_its_transactions_it_comes_to_the_same_end() {
        const PAGES: u64 = 3;
        let expect = expected();
        let all = {
            let (place, mut turns) = (older(), 1);
            let mut conn = connect(&place);
            while !turn(&mut conn, PAGES) {
                turns += 1;
            }
            assert_eq!(content(&conn), expect);
            turns
        };
        assert!(all > 20, "{all}");
        for killed in 1..all {
            let place = older();
            let mut conn = connect(&place);
            (0..killed).for_each(|_| assert!(!turn(&mut conn, PAGES)));
            assert!(pragma(&conn, "user_version").unwrap() > 2, "an older program refuses it");
            assert!(!is_over(&conn).unwrap());
            drop(conn);
            assert_eq!(open(&place), [""; 0]);
            let conn = connect(&place);
            assert!(is_over(&conn).unwrap());
            assert_eq!(content(&conn), expect, "killed after {killed} of {all}");
            assert_eq!(copies(&place), 0, "it would be one of what is half done");
        }
    }

    /// One transaction writes little, whatever the file has.
    #[test]
    fn a_transaction_ends_with_its_pages() {
        let place = older();
        let mut conn = connect(&place);
        conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").unwrap();
        let log = || fs::metadata(place.path().join("net-pulse.db-wal")).unwrap().len();
        let mut before = log();
        loop {
            let over = turn(&mut conn, 4);
            // Its pages, the last row's, the one with the version and the one with the note.
            assert!(log() - before <= 10 * (PAGE_BYTES + 24) + 32, "{} bytes", log() - before);
            before = log();
            if over {
                return;
            }
        }
    }

    #[test]
    fn the_file_is_kept_as_it_was() {
        let place = older();
        let before = content(&connect(&place));
        let told = open(&place);
        let kept = place.path().join("net-pulse.db.schema-2");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains(&format!("from schema 2 to {SCHEMA}")) && told[0].contains(kept.to_str().unwrap()),
            "{told:?}"
        );
        let conn = Connection::open(&kept).unwrap();
        assert_eq!((pragma(&conn, "user_version").unwrap(), content(&conn)), (2, before));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&kept).unwrap().permissions()) & 0o777, 0o600);
        drop(conn);
        // Back to it and on again: the first copy is not lost.
        let first = fs::read(&kept).unwrap();
        fs::copy(&kept, place.file()).unwrap();
        open(&place);
        assert_eq!(fs::read(&kept).unwrap(), first);
        assert_eq!(content(&connect(&place)), expected());
        assert_eq!(copies(&place), 2);
        // What an attempt that was killed has left goes.
        fs::write(place.path().join("net-pulse.db.keeping"), "half").unwrap();
        open(&place);
        assert!(!place.path().join("net-pulse.db.keeping").exists());
    }

    #[test]
    fn an_empty_file_needs_no_copy() {
        let place = Place::new();
        assert_eq!(open(&place), [""; 0]);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_damaged_stays_as_it_is_and_is_told_of_once() {
        let place = older();
        let conn = connect(&place);
        conn.execute_batch(
            "UPDATE sample SET data = CAST(x'5a' || substr(data, 2) AS BLOB) WHERE first = (SELECT min(first) FROM sample);
             UPDATE hour SET data = x'' WHERE start = (SELECT min(start) FROM hour);
             UPDATE interface SET tally = substr(tally, 1, length(tally) - 1) WHERE id = 3;",
        )
        .unwrap();
        let odd = |conn: &Connection| -> Vec<Vec<u8>> {
            [
                "SELECT data FROM sample ORDER BY first",
                "SELECT data FROM hour ORDER BY start",
                "SELECT tally FROM interface WHERE id = 3",
            ]
            .map(|query| conn.query_row(&format!("{query} LIMIT 1"), [], |row| row.get(0)).unwrap())
            .into()
        };
        let before = odd(&conn);
        drop(conn);
        let told = open(&place);
        assert!(told.len() == 2 && told[1].starts_with("3 rows are in no form that is known"), "{told:?}");
        assert_eq!(odd(&connect(&place)), before);
        run(&place);
        assert_eq!(open(&place), [""; 0]);
    }

    /// Whatever its first byte was: what could not be made anew is not taken for new.
    #[test]
    fn an_old_tally_is_never_read_as_a_new_one() {
        let rest: Vec<u8> = (0..19).map(|at| at + 1).collect();
        for first in [0x80_u8, 0x82, 0x87, 0x88, 0x89, 0xff] {
            for (ends, lacking) in [(&rest[..], 0), (&rest[..18], 1), (&rest[..3], 16)] {
                let old: Vec<u8> = [&[first, 1][..], ends].concat();
                assert!(lacking == 0 || Tally::unpack(&old).is_err(), "{first:x} without {lacking}");
                let mut new = old.clone();
                assert_eq!(tally_anew(&mut new).is_ok(), lacking == 0);
                assert!(lacking > 0 || Tally::unpack(&new).is_ok());
            }
        }
    }

    #[test]
    fn what_was_not_saved_is_told_again() {
        let place = older();
        for _ in 0..3 {
            let opened = Store::open(&place.file(), &OPTIONS).unwrap();
            assert_eq!((told(&opened).len(), copies(&place)), (1, 1));
        }
        assert_eq!(run(&place).len(), 1);
        assert_eq!(open(&place), [""; 0]);
    }

    /// Nothing is longer than it was but a tally, by one byte.
    #[test]
    fn blocks_keep_their_length_and_their_content() {
        let place = older();
        let blocks = |conn: &Connection| -> Vec<Vec<u8>> {
            let mut statement = conn.prepare("SELECT data FROM sample ORDER BY first").unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(|row| row.unwrap()).collect()
        };
        let tally = |conn: &Connection| -> Vec<u8> {
            conn.query_row("SELECT tally FROM interface WHERE id = 1", [], |row| row.get(0)).unwrap()
        };
        let (before, old_tally) = (blocks(&connect(&place)), tally(&connect(&place)));
        open(&place);
        let after = blocks(&connect(&place));
        assert_eq!((before.len(), before[0][0], after[0][0]), (after.len(), 1, 0x80 | 10));
        for (old, new) in before.iter().zip(&after) {
            assert_eq!(old[1..], new[1..]);
            assert!(unpack_samples(old).is_err() && unpack_samples(new).is_ok());
        }
        let new_tally = tally(&connect(&place));
        assert_eq!((new_tally[0], &new_tally[1..]), (0x80 | 8, &old_tally[..]));
        assert!(Tally::unpack(&new_tally).is_ok());
    }

    #[test]
    fn a_note_that_cannot_be_read_is_damage() {
        let place = older();
        let mut conn = connect(&place);
        assert!(!turn(&mut conn, 1));
        conn.execute("UPDATE meta SET value = 'elsewhere' WHERE key = ?1", [NOTE]).unwrap();
        assert_eq!(some(&conn, 1).unwrap_err().kind, ErrorKind::Corrupt);
    }
}
