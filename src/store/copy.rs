//! Copies the whole database while it is in use. A copy is consistent and compact, and is never held in memory.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::connection::{BUSY_TIMEOUT, PAGE_BYTES, connection, pragma, set};
use super::database_path::{DatabaseFile, current_file};
use super::files::{io_error, private, refuse_other_types, sync_directory, unused_name, with_suffix};
use crate::error::{Error, ErrorKind, Result};
use crate::system::{errno, free_space};

const BACKUP_SUFFIX: &str = ".backup";
/// Temporary name of a new database file (`recreate`).
pub(super) const RECREATED_SUFFIX: &str = ".anew";
/// Temporary name of the copy that a migration keeps.
const KEEPING_SUFFIX: &str = ".keeping";
/// Bytes that a copy leaves free for everything else, such as the next saves.
const SPARE_BYTES: u64 = 1 << 20;

/// Makes copies on a connection of its own, so that no other thread waits for them.
pub struct Copier {
    pub(super) current: Arc<Mutex<Arc<DatabaseFile>>>,
}

/// Removes the files that an interrupted copy has left.
pub(super) fn remove_unfinished(path: &Path) {
    for suffix in [BACKUP_SUFFIX, RECREATED_SUFFIX, KEEPING_SUFFIX] {
        remove_partial(&with_suffix(path, suffix));
    }
}

/// Removes a partly written file and its journal.
pub(super) fn remove_partial(target: &Path) {
    for name in [target, &with_suffix(target, "-journal")] {
        let _ = fs::remove_file(name);
    }
}

/// Copies the database of `conn` to a new file, and gives the copy another id: if a user puts the copy in place of the
/// original, SQLite must not apply the original's log to it. Does not sync.
pub(super) fn write_copy(conn: &Connection, target: &Path, vfs: Option<&str>) -> Result<File> {
    remove_partial(target);
    refuse_other_types(target)?;
    // `VACUUM INTO` accepts an empty file. SQLite itself would create the file readable for all users.
    let file = private(OpenOptions::new().read(true).write(true).create_new(true))
        .open(target)
        .map_err(|cause| io_error(target, cause))?;
    errno::clear();
    conn.execute("VACUUM INTO ?1", [target.to_str()])?;
    let conn = connection(target, vfs, BUSY_TIMEOUT)?;
    set(&conn, "synchronous", "OFF")?;
    set(&conn, "journal_mode", "MEMORY")?;
    conn.execute("UPDATE meta SET value = hex(randomblob(8)) WHERE key = 'file'", [])?;
    Ok(file)
}

/// Result of copying the database before a migration. With the copy the user can return to an older version.
pub(super) enum MigrationCopy {
    Made(PathBuf),
    Failed(Error),
}

impl MigrationCopy {
    pub fn sentence(&self, path: &Path, from: i64, to: i64) -> String {
        let begin = format!("{} is migrated from schema {from} to {to}, which older versions refuse", path.display());
        match self {
            MigrationCopy::Made(copy) => format!(
                "{begin}: a copy of the old file is kept as {}; put it back to return to the older version, \
                 or remove it when you no longer need it",
                copy.display()
            ),
            MigrationCopy::Failed(why) => format!("{begin}: no copy of the old file is kept: {why}"),
        }
    }

    /// Removes the copy: the migration has changed nothing.
    pub fn discard(&self) {
        if let MigrationCopy::Made(copy) = self {
            remove_partial(copy);
        }
    }
}

/// Copies the database, which has this schema, to a file beside it that stays there. Refuses unless the size of the
/// database and `SPARE_BYTES` stay free after it, so that the copy does not fill a small disk.
pub(super) fn copy_before_migration(conn: &Connection, path: &Path, vfs: Option<&str>, schema: i64) -> MigrationCopy {
    let unfinished = with_suffix(path, KEEPING_SUFFIX);
    let copied = try_copy_before_migration(conn, path, vfs, &format!("schema-{schema}"), &unfinished);
    copied.unwrap_or_else(|error| {
        remove_partial(&unfinished);
        MigrationCopy::Failed(error)
    })
}

fn try_copy_before_migration(
    conn: &Connection,
    path: &Path,
    vfs: Option<&str>,
    suffix: &str,
    unfinished: &Path,
) -> Result<MigrationCopy> {
    let pages = pragma(conn, "page_count")? as u64;
    let bytes = (pages - (pragma(conn, "freelist_count")? as u64).min(pages)) * PAGE_BYTES;
    if let Some((_, free)) =
        free_space::total_and_free(path).filter(|(_, free)| *free < bytes + pages * PAGE_BYTES + SPARE_BYTES)
    {
        let sentence =
            format!("the copy needs {bytes} bytes, at least as many must stay free, and only {free} are free");
        return Err(Error::new(ErrorKind::Full, sentence));
    }
    let plain_path = with_suffix(path, &format!(".{suffix}"));
    let kept_path = if fs::symlink_metadata(&plain_path).is_err() { plain_path } else { unused_name(path, suffix) };
    let file = write_copy(conn, unfinished, vfs)?;
    file.sync_all().and_then(|()| fs::rename(unfinished, &kept_path)).map_err(|cause| io_error(&kept_path, cause))?;
    sync_directory(&kept_path);
    Ok(MigrationCopy::Made(kept_path))
}

impl Copier {
    /// Copies the database to a file beside it, and removes the name of that file: its space is free again when it is
    /// closed, even after a kill. `free`: free bytes on that disk, if known.
    pub fn copy(&self, free: Option<u64>) -> Result<File> {
        let database = current_file(&self.current);
        let conn = database.connect()?;
        // This may be the last connection at the end of the program. The checkpoint is the writer's task, because only
        // the writer syncs.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // The file is gone once it is closed, so it needs no sync.
        set(&conn, "synchronous", "OFF")?;
        let bytes = (pragma(&conn, "page_count")? - pragma(&conn, "freelist_count")?) as u64 * PAGE_BYTES;
        if free.is_some_and(|free| free < bytes + SPARE_BYTES) {
            let sentence = format!("the copy needs {bytes} bytes, but only {} are free", free.unwrap_or(0));
            return Err(Error::new(ErrorKind::Full, sentence));
        }
        let target = with_suffix(&database.path, BACKUP_SUFFIX);
        let copied = write_copy(&conn, &target, database.vfs);
        remove_partial(&target);
        // Close the connection before its `DatabaseFile`.
        drop(conn);
        copied
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::history::SampleFilter;
    use crate::model::Batch;
    use crate::store::Store;
    use crate::store::testing::{OPTIONS, T, TempDir};

    #[test]
    fn a_copy_is_complete_and_leaves_no_file() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        for at in 0..200 {
            opened.save_batch(&Batch::steady(1 + 10 * at, T + 30 + 300 * at as i64, 10)).unwrap();
        }
        let reader = opened.store.reader().unwrap();
        let copier = reader.copier();
        let mut file = copier.copy(Some(u64::MAX)).unwrap();
        // The original changes meanwhile, the copy does not.
        opened.save_batch(&Batch::steady(2001, T + 30 + 300 * 200, 10)).unwrap();
        let names = || fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names(), 3, "the database, its log and its guard");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();

        let other = TempDir::new();
        fs::write(other.file(), &bytes).unwrap();
        let copy = Store::open(&other.file(), &OPTIONS).unwrap();
        assert!(copy.events.is_empty(), "{:?}", copy.events);
        assert_eq!(copy.newest_unix, Some(T + 30 + 300 * 199 + 270));
        let points = |reader: &crate::store::Reader| {
            reader.stored_snapshot().oldest(&SampleFilter::default(), None, usize::MAX).unwrap().0
        };
        let all = points(&reader);
        assert_eq!(points(&copy.store.reader().unwrap()), all[..2000]);
    }

    #[test]
    fn e39_a_copy_that_does_not_fit_is_not_begun() {
        let dir = TempDir::new();
        let mut opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        opened.save_batch(&Batch::steady(1, T + 30, 10)).unwrap();
        // Left by a program that ended in the middle of a copy.
        fs::write(dir.path().join("net-pulse.db.backup"), b"half").unwrap();
        let copier = opened.store.reader().unwrap().copier();
        assert_eq!(copier.copy(Some(1 << 20)).unwrap_err().kind, ErrorKind::Full);
        drop(opened);
        let opened = Store::open(&dir.file(), &OPTIONS);
        assert!(opened.is_err(), "a copier keeps the database locked");
        drop(copier);
        let _opened = Store::open(&dir.file(), &OPTIONS).unwrap();
        assert!(!dir.path().join("net-pulse.db.backup").exists());
    }
}
