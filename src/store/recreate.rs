//! Writes the whole history to a new file when the open database was removed, renamed or replaced, or has lost its log:
//! the next start would not find the history, or not the latest saves. Never changes a file that another program has
//! put there.

use std::fs::{self, OpenOptions};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rusqlite::config::DbConfig;

use super::Store;
use super::copy::{RECREATED_SUFFIX, remove_partial, write_copy};
use super::database_path::{DatabaseFile, PathStatus};
use super::files::{Inode, io_error, private, sync_directory, unused_name, with_suffix};
use super::guard_file::GuardFile;
use super::open::{connect, private_directory, report, set_foreign_log_aside};
use crate::error::Result;

/// A complete new database at its path that is not open yet.
pub(super) struct NewFile {
    path: PathBuf,
    inode: Inode,
    guard: Arc<GuardFile>,
    /// Text of the event: what happened, and where the history is now.
    sentence: String,
}

pub(super) fn recreate(store: &mut Store, status: PathStatus) -> Result<()> {
    let what = match status {
        PathStatus::Replaced => "was replaced by another file",
        PathStatus::WithoutLog => "has lost its log",
        PathStatus::Missing | PathStatus::InPlace => "was removed or renamed",
    };
    let what = format!("{} {what} while it was in use", store.database.path.display());
    // An earlier attempt may have written the file and failed only to open it.
    let written = store.recreated.take().filter(|new_file| Inode::at(&new_file.path) == Some(new_file.inode));
    let outcome = written.map_or_else(|| write_new_file(store, status, &what), Ok).and_then(|new_file| {
        let switched = switch_to(store, &new_file);
        match &switched {
            Ok(()) => report(&mut store.events, new_file.sentence),
            Err(_) => store.recreated = Some(new_file),
        }
        switched
    });
    outcome.map_err(|error| error.context(format!("{what}, and net-pulse does not save to a new file yet")))
}

fn write_new_file(store: &Store, status: PathStatus, what: &str) -> Result<NewFile> {
    let old = &store.database;
    let path = if status == PathStatus::Replaced {
        unused_name(old.guard.database_path(), "replaced")
    } else {
        old.path.clone()
    };
    let guard = match status {
        // The directory may be gone too. If another net-pulse has started in a new directory, it has the guard file,
        // and this fails.
        PathStatus::Missing if !old.guard.is_still_linked() => {
            if let Some(parent) = path.parent() {
                private_directory(parent).map_err(|cause| io_error(parent, cause))?;
            }
            Arc::new(GuardFile::take(&path)?)
        }
        _ => old.guard.clone(),
    };
    let checkpoint = || {
        let _ = store.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        old.record_fingerprint();
    };
    // Without its log no checkpoint: a kill in the middle of it would leave a file that only the log can repair.
    if status != PathStatus::WithoutLog {
        // Completes the old file, which the user may only have renamed.
        checkpoint();
    }
    let temporary = with_suffix(&path, RECREATED_SUFFIX);
    let new_file = write_copy(&store.conn, &temporary, old.vfs).and_then(|file| {
        let finish = || {
            file.sync_all()?;
            move_into_place(&temporary, &path, status == PathStatus::WithoutLog)?;
            file.metadata()
        };
        finish().map_err(|cause| io_error(&path, cause))
    });
    remove_partial(&temporary);
    if new_file.is_err() && status == PathStatus::WithoutLog {
        // The old file stays the database for now. The checkpoint copies the saves of the lost log into it.
        checkpoint();
    }
    let inode = Inode::of(&new_file?);
    sync_directory(&path);
    old.remove_log();
    let mut sentence = format!("{what}: the whole history is now in a new file, {}", path.display());
    if status == PathStatus::Replaced {
        sentence += "; net-pulse saves there until it is restarted, and then opens the other file";
    }
    Ok(NewFile { path, inode, guard, sentence })
}

/// Stops using a file that another program has overwritten; the earlier content is lost. Nothing is written to it from
/// now on, and its log is set aside, because SQLite would apply it to the new content. Returns the error to report.
pub(super) fn abandon(store: &mut Store) -> Result<()> {
    if !mem::replace(&mut store.abandoned, true) {
        let _ = store.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        let log = with_suffix(&store.database.path, "-wal");
        let aside = unused_name(&log, "foreign");
        if fs::rename(&log, &aside).is_ok() {
            let (path, log, aside) = (store.database.path.display(), log.display(), aside.display());
            report(
                &mut store.events,
                format!("{path} was overwritten while it was in use: set its write-ahead log {log} aside as {aside}"),
            );
        }
    }
    store.database.ensure_not_overwritten()
}

/// Moves the new file to its path. Fails if a file is there, unless that file is `ours`.
fn move_into_place(temporary: &Path, path: &Path, ours: bool) -> io::Result<()> {
    if ours {
        return fs::rename(temporary, path);
    }
    match fs::hard_link(temporary, path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {}
        linked => return linked,
    }
    // A file system without hard links: creating the file reserves its name, or fails if the name is taken.
    private(OpenOptions::new().write(true).create_new(true)).open(path)?;
    fs::rename(temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn switch_to(store: &mut Store, new_file: &NewFile) -> Result<()> {
    let mut events = Vec::new();
    set_foreign_log_aside(&new_file.path, &new_file.guard, &mut events)?;
    let (conn, vfs, watermarks, _) = connect(&new_file.path, store.max_pages, &new_file.guard, &mut events)?;
    let database = Arc::new(DatabaseFile::new(new_file.path.clone(), vfs, None, new_file.guard.clone(), &conn)?);
    new_file.guard.mark_as_ours();
    store.events.append(&mut events);
    store.watermarks = watermarks;
    // In this order: close a connection before its `DatabaseFile`.
    drop(mem::replace(&mut store.conn, conn));
    let old = mem::replace(&mut store.database, database.clone());
    *store.current.lock().unwrap_or_else(PoisonError::into_inner) = database;
    drop(old);
    Ok(())
}
