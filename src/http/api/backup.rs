//! Backup of the database. The copy is complete before the first byte is sent, so it is consistent. It lies beside the
//! database, but its name is removed before it is sent: nothing remains when the client leaves or the power fails. The
//! next opening of the database removes an incomplete copy.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::ErrorKind;
use crate::http::json::Out;
use crate::http::{Answer, Call, Context, HttpError, SQLITE};

/// How long to wait for a save of the newest figures before the copy.
const SAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of the copy; less than the gate's timeout for an answer (60 s).
const COPY_TIMEOUT: Duration = Duration::from_secs(45);
const CHUNK_BYTES: usize = 8 * 1024;

/// Held during a backup. Only one at a time, because each copy needs as much space as the database.
struct BackupLock(Arc<AtomicBool>);

impl BackupLock {
    fn take(busy: &Arc<AtomicBool>) -> Option<BackupLock> {
        (!busy.swap(true, Ordering::AcqRel)).then(|| BackupLock(busy.clone()))
    }
}

impl Drop for BackupLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

pub fn backup(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let Some(lock) = BackupLock::take(&context.server_state.backup_running) else {
        return Err(HttpError::new(503, "another backup is under way: try again when it is over"));
    };
    let Some(copier) = context.history.copier()? else {
        return Err(HttpError::new(503, "there is no database to copy: see /api/system/health"));
    };
    if !context.live.save(SAVE_TIMEOUT) {
        log::warn!("the backup will lack the newest figures: they could not be saved");
    }
    let machine = context.machine()?;
    let free = (machine.disk_total > 0).then_some(machine.disk_free);
    // On a thread of its own, so that a disk that hangs blocks an HTTP worker no longer than `COPY_TIMEOUT`.
    let copy = context.backup_thread.run(Instant::now() + COPY_TIMEOUT, move |_| (copier.copy(free), lock));
    let too_slow = |_| HttpError::new(503, "the disk is too slow for a backup: see /api/system/health");
    let (file, lock) = copy.map_err(too_slow)?;
    let file = file.map_err(|error| match error.kind {
        ErrorKind::Full => HttpError::new(
            507,
            format!("not enough space for a copy beside the database: {error}; free some space there"),
        ),
        _ => HttpError::from(error),
    })?;
    let today = context.live.lock().zone.civil(call.unix());
    let name = format!("net-pulse-{:04}-{:02}-{:02}.db", today.year, today.month, today.day);
    let mut answer = Answer::stream(SQLITE, move |_, out| {
        let sent = send(file, out);
        drop(lock);
        sent
    });
    answer.header("Content-Disposition", format!("attachment; filename={name}"));
    Ok(answer)
}

fn send(mut file: File, out: Out) -> io::Result<()> {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => out.write_all(&chunk[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
