//! A copy of the whole database while it is in use: consistent, compact, and never in memory.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::connection::{BUSY, PAGE_BYTES, connection, pragma, set};
use super::files::{beside, io_error, no_other, private, sync_directory, unused};
use super::site::{Site, current};
use crate::error::{Error, ErrorKind, Result};
use crate::system::{errno, room};

const SUFFIX: &str = ".backup";
/// Of the history that will be the database itself.
pub(super) const ANEW: &str = ".anew";
/// Of a copy that will be kept, until it is whole.
const KEPT: &str = ".keeping";
/// What a copy leaves free for everybody else, the next saves among them.
const SPARE_BYTES: u64 = 1 << 20;

/// Makes copies on a connection of its own, so that nobody waits for them.
pub struct Copier {
    pub(super) current: Arc<Mutex<Arc<Site>>>,
}

/// What an end in the middle of a copy has left.
pub(super) fn clear(path: &Path) {
    for suffix in [SUFFIX, ANEW, KEPT] {
        remove(&beside(path, suffix));
    }
}

/// A file that was being made.
pub(super) fn remove(target: &Path) {
    for name in [target, &beside(target, "-journal")] {
        let _ = fs::remove_file(name);
    }
}

/// Everything that `conn` reads, in a new file with an id of its own: put in place of its original, it must not get the
/// original's log. Not synced.
pub(super) fn write_all(conn: &Connection, target: &Path, file_system: Option<&str>) -> Result<File> {
    remove(target);
    no_other(target)?;
    // SQLite takes an empty file, and would make it readable for all.
    let file = private(OpenOptions::new().read(true).write(true).create_new(true))
        .open(target)
        .map_err(|cause| io_error(target, cause))?;
    errno::forget();
    conn.execute("VACUUM INTO ?1", [target.to_str()])?;
    let conn = connection(target, file_system, BUSY)?;
    set(&conn, "synchronous", "OFF")?;
    set(&conn, "journal_mode", "MEMORY")?;
    conn.execute("UPDATE meta SET value = hex(randomblob(8)) WHERE key = 'file'", [])?;
    Ok(file)
}

/// What a migration leaves for an older program.
pub(super) enum Kept {
    As(PathBuf),
    Not(Error),
}

impl Kept {
    pub fn sentence(&self, path: &Path, from: i64, to: i64) -> String {
        let begin = format!("{} goes from schema {from} to {to}, which older versions refuse", path.display());
        match self {
            Kept::As(copy) => format!(
                "{begin}: as it was it is kept as {}, to be put in its place with the older version; remove it when that is not \
                 wanted any more",
                copy.display()
            ),
            Kept::Not(why) => format!("{begin}: no copy of it as it was is kept: {why}"),
        }
    }

    /// Nothing has changed, so it is of no use.
    pub fn discard(&self) {
        if let Kept::As(copy) = self {
            remove(copy);
        }
    }
}

/// A copy beside the database that stays, of a file with this schema. Beside it there is as much room left as the history
/// takes, so that a small disk is not full with it.
pub(super) fn keep(conn: &Connection, path: &Path, file_system: Option<&str>, schema: i64) -> Kept {
    let unfinished = beside(path, KEPT);
    let made = try_to_keep(conn, path, file_system, &format!("schema-{schema}"), &unfinished);
    made.unwrap_or_else(|error| {
        remove(&unfinished);
        Kept::Not(error)
    })
}

fn try_to_keep(
    conn: &Connection,
    path: &Path,
    file_system: Option<&str>,
    suffix: &str,
    unfinished: &Path,
) -> Result<Kept> {
    let pages = pragma(conn, "page_count")? as u64;
    let bytes = (pages - (pragma(conn, "freelist_count")? as u64).min(pages)) * PAGE_BYTES;
    if let Some((_, free)) = room::of(path).filter(|(_, free)| *free < bytes + pages * PAGE_BYTES + SPARE_BYTES) {
        let sentence = format!("it has {bytes} bytes and should leave as much again, of {free} that are free");
        return Err(Error::new(ErrorKind::Full, sentence));
    }
    let plain = beside(path, &format!(".{suffix}"));
    let kept = if fs::symlink_metadata(&plain).is_err() { plain } else { unused(path, suffix) };
    let file = write_all(conn, unfinished, file_system)?;
    file.sync_all().and_then(|()| fs::rename(unfinished, &kept)).map_err(|cause| io_error(&kept, cause))?;
    sync_directory(&kept);
    Ok(Kept::As(kept))
}

impl Copier {
    /// A file beside the database that has no name any more: its room is free again when it is closed, whatever becomes
    /// of the program. `free`: bytes that are left there, where that is known.
    pub fn copy(&self, free: Option<u64>) -> Result<File> {
        let site = current(&self.current);
        let conn = site.connect()?;
        // Should this be the last connection at the end of the program: taking in the log is the writer's, who syncs.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // Of a file that is gone when it is closed, nothing needs to reach the flash.
        set(&conn, "synchronous", "OFF")?;
        let bytes = (pragma(&conn, "page_count")? - pragma(&conn, "freelist_count")?) as u64 * PAGE_BYTES;
        if free.is_some_and(|free| free < bytes + SPARE_BYTES) {
            let sentence = format!("the copy has {bytes} bytes, and there is room for {}", free.unwrap_or(0));
            return Err(Error::new(ErrorKind::Full, sentence));
        }
        let target = beside(&site.path, SUFFIX);
        let made = write_all(&conn, &target, site.file_system);
        remove(&target);
        // After the connection: the site goes last.
        drop(conn);
        made
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::history::Filter;
    use crate::model::Batch;
    use crate::store::Store;
    use crate::store::testing::{OPTIONS, Place, T};

    #[test]
    fn a_copy_has_everything_and_leaves_nothing() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        for at in 0..200 {
            opened.save(&Batch::steady(1 + 10 * at, T + 30 + 300 * at as i64, 10)).unwrap();
        }
        let reader = opened.store.reader().unwrap();
        let copier = reader.copier();
        let mut file = copier.copy(Some(u64::MAX)).unwrap();
        // The original goes on meanwhile, and the copy does not change with it.
        opened.save(&Batch::steady(2001, T + 30 + 300 * 200, 10)).unwrap();
        let names = || fs::read_dir(place.path()).unwrap().count();
        assert_eq!(names(), 3, "the database, its log and its guard");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();

        let other = Place::new();
        fs::write(other.file(), &bytes).unwrap();
        let copy = Store::open(&other.file(), &OPTIONS).unwrap();
        assert!(copy.events.is_empty(), "{:?}", copy.events);
        assert_eq!(copy.newest, Some(T + 30 + 300 * 199 + 270));
        let points =
            |reader: &crate::store::Reader| reader.now().oldest(&Filter::default(), None, usize::MAX).unwrap().0;
        let all = points(&reader);
        assert_eq!(points(&copy.store.reader().unwrap()), all[..2000]);
    }

    #[test]
    fn e39_what_does_not_fit_is_not_begun() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        opened.save(&Batch::steady(1, T + 30, 10)).unwrap();
        // As an end in the middle has left it.
        fs::write(place.path().join("net-pulse.db.backup"), b"half").unwrap();
        let copier = opened.store.reader().unwrap().copier();
        assert_eq!(copier.copy(Some(1 << 20)).unwrap_err().kind, ErrorKind::Full);
        drop(opened);
        let opened = Store::open(&place.file(), &OPTIONS);
        assert!(opened.is_err(), "whoever copies keeps other processes away");
        drop(copier);
        let _opened = Store::open(&place.file(), &OPTIONS).unwrap();
        assert!(!place.path().join("net-pulse.db.backup").exists());
    }
}
