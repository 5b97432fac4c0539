//! The whole history once more, from the open file: where the database was removed, renamed or replaced, that file goes with
//! the program. What somebody has put there is not touched.

use std::fs::{self, OpenOptions};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rusqlite::config::DbConfig;

use super::Store;
use super::copy::{ANEW, remove, write_all};
use super::files::{Inode, beside, io_error, private, sync_directory, unused};
use super::guard::Guard;
use super::open::{connect, part_from_foreign_log, private_directory, tell};
use super::site::{Site, Standing};
use crate::error::Result;

/// A file with everything in it, in its place, and not opened so far.
pub(super) struct Made {
    path: PathBuf,
    inode: Inode,
    guard: Arc<Guard>,
    /// Why, and what follows.
    sentence: String,
}

pub(super) fn write(store: &mut Store, standing: Standing) -> Result<()> {
    let what = match standing {
        Standing::Replaced => "was replaced by another file",
        Standing::WithoutLog => "has lost its log",
        Standing::Gone | Standing::Here => "was removed or renamed",
    };
    let what = format!("{} {what} while it was in use", store.site.path.display());
    // What an earlier attempt has made may only be waiting to be opened.
    let waiting = store.made.take().filter(|made| Inode::at(&made.path) == Some(made.inode));
    let outcome = waiting.map_or_else(|| make(store, standing, &what), Ok).and_then(|made| {
        let opened = open(store, &made);
        match &opened {
            Ok(()) => tell(&mut store.events, made.sentence),
            Err(_) => store.made = Some(made),
        }
        opened
    });
    outcome.map_err(|error| error.context(format!("{what}, and its history is not written anew so far")))
}

fn make(store: &Store, standing: Standing, what: &str) -> Result<Made> {
    let old = &store.site;
    let path = if standing == Standing::Replaced { unused(old.guard.path(), "replaced") } else { old.path.clone() };
    let guard = match standing {
        // The directory may be gone as well. Another net-pulse that has begun in a new one has the guard.
        Standing::Gone if !old.guard.stands() => {
            if let Some(parent) = path.parent() {
                private_directory(parent).map_err(|cause| io_error(parent, cause))?;
            }
            Arc::new(Guard::take(&path)?)
        }
        _ => old.guard.clone(),
    };
    let take_in_log = || {
        let _ = store.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        old.remember();
    };
    // A kill in the middle of it would leave a file that only its log can mend.
    if standing != Standing::WithoutLog {
        // What was renamed has everything then.
        take_in_log();
    }
    let temporary = beside(&path, ANEW);
    let made = write_all(&store.conn, &temporary, old.file_system).and_then(|file| {
        let put = || {
            file.sync_all()?;
            put(&temporary, &path, standing == Standing::WithoutLog)?;
            file.metadata()
        };
        put().map_err(|cause| io_error(&path, cause))
    });
    remove(&temporary);
    if made.is_err() && standing == Standing::WithoutLog {
        // It stays the database for now.
        take_in_log();
    }
    let inode = Inode::of(&made?);
    sync_directory(&path);
    old.remove_log();
    let mut sentence = format!("{what}: all of the history is now in {}", path.display());
    if standing == Standing::Replaced {
        sentence += ", and goes on there until net-pulse is restarted, which opens the other file";
    }
    Ok(Made { path, inode, guard, sentence })
}

/// From a file that another program has written into. What was saved is gone with it; nothing is written there from here on,
/// and its log, which would be played into it, is set aside. Fails, with what is to be said.
pub(super) fn part(store: &mut Store) -> Result<()> {
    if !mem::replace(&mut store.parted, true) {
        let _ = store.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        let log = beside(&store.site.path, "-wal");
        let aside = unused(&log, "foreign");
        if fs::rename(&log, &aside).is_ok() {
            let (path, log, aside) = (store.site.path.display(), log.display(), aside.display());
            tell(
                &mut store.events,
                format!("{path} was overwritten while it was in use: set its log {log} aside as {aside}"),
            );
        }
    }
    store.site.is_sound()
}

/// Fails where something is by now, but for `ours`.
fn put(temporary: &Path, path: &Path, ours: bool) -> io::Result<()> {
    if ours {
        return fs::rename(temporary, path);
    }
    match fs::hard_link(temporary, path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {}
        linked => return linked,
    }
    // A file system without links. Making the file takes its name, unless something has it.
    private(OpenOptions::new().write(true).create_new(true)).open(path)?;
    fs::rename(temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn open(store: &mut Store, made: &Made) -> Result<()> {
    let mut events = Vec::new();
    part_from_foreign_log(&made.path, &made.guard, &mut events)?;
    let (conn, file_system, state, _) = connect(&made.path, store.pages, &made.guard, &mut events)?;
    let site = Arc::new(Site::new(made.path.clone(), file_system, None, made.guard.clone(), &conn)?);
    made.guard.sign();
    store.events.append(&mut events);
    store.state = state;
    // In this order: a connection goes before its site.
    drop(mem::replace(&mut store.conn, conn));
    let old = mem::replace(&mut store.site, site.clone());
    *store.current.lock().unwrap_or_else(PoisonError::into_inner) = site;
    drop(old);
    Ok(())
}
