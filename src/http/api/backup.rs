//! The whole history as a file. It is made beside the database before the first byte goes out, so that it is one moment's,
//! and has no name from then on: nothing is left of it when the client goes away, or the power.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::ErrorKind;
use crate::http::json::Out;
use crate::http::{Answer, Call, Context, Fault, SQLITE};

/// How long a last save may take before the copy is made without it.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);
/// Before the front door loses its own patience.
const COPY_PATIENCE: Duration = Duration::from_secs(45);
const PIECE: usize = 8 * 1024;

/// One copy at a time: each takes as much room as the history.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(taken: &Arc<AtomicBool>) -> Option<Turn> {
        (!taken.swap(true, Ordering::AcqRel)).then(|| Turn(taken.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

pub fn backup(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let Some(turn) = Turn::take(&context.notes.copy_taken) else {
        return Err(Fault::new(503, "another backup is under way: try again when it is over"));
    };
    let Some(copier) = context.history.copier()? else {
        return Err(Fault::new(503, "there is no database to copy: see /api/system/health"));
    };
    if !context.live.flush(FLUSH_PATIENCE) {
        log::warn!("a backup is made without the newest figures: they could not be saved");
    }
    let machine = context.machine()?;
    let free = (machine.disk_total > 0).then_some(machine.disk_free);
    // A disk that hangs must not take along one of the threads that answer.
    let made = context.copying.ask(Instant::now() + COPY_PATIENCE, move |_| (copier.copy(free), turn));
    let slow = |_| Fault::new(503, "the disk takes too long to make a copy: see /api/system/health");
    let (file, turn) = made.map_err(slow)?;
    let file = file.map_err(|error| match error.kind {
        ErrorKind::Full => Fault::new(507, format!("no room for a copy beside the database: {error}; make room there")),
        _ => Fault::from(error),
    })?;
    let today = context.live.lock().zone.civil(call.unix());
    let name = format!("net-pulse-{:04}-{:02}-{:02}.db", today.year, today.month, today.day);
    let mut answer = Answer::stream(SQLITE, move |_, out| {
        let sent = send(file, out);
        drop(turn);
        sent
    });
    answer.header("Content-Disposition", format!("attachment; filename={name}"));
    Ok(answer)
}

fn send(mut file: File, out: Out) -> io::Result<()> {
    let mut piece = [0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => out.write_all(&piece[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
