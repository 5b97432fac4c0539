//! Opens the database on the writer's thread. While the disk is full, slow, read-only or not mounted yet, or the file
//! is locked, net-pulse counts in memory, and this module tries again, after growing pauses, until the database is open
//! or the program ends. Then the sampler connects the data in memory to the stored history (rejoin); nothing is saved
//! before that.

use std::time::Duration;

use super::{Backoff, LONGEST_SLEEP_MS, report_fault};
use crate::clock::{Clock, Now};
use crate::error::{Error, ErrorKind, Result};
use crate::live::{Database, Live, StoredHistory};
use crate::store::{Opened, Reader, Store};

/// The stored history, and a reader for queries.
pub type OpenedHistory = (StoredHistory, Reader);

/// The next step for the user, for errors that do not name it themselves.
const NEXT_STEPS: [(ErrorKind, &str); 5] = [
    (ErrorKind::Full, "free some space there"),
    (ErrorKind::Busy, "end the program that has it open"),
    (ErrorKind::Io, "check the disk, or name another file with --database"),
    (ErrorKind::System, "check the disk, or name another file with --database"),
    (ErrorKind::Transient, "a disk that stays that slow is worn out or overloaded"),
];

/// Errors that last until the user does something. Other errors may pass by themselves: the disk is full, slow or
/// failing, or the file is locked.
const PERMANENT_ERRORS: [ErrorKind; 3] = [ErrorKind::ReadOnly, ErrorKind::Foreign, ErrorKind::Newer];

/// Opens the database and waits until the sampler has rejoined its history. Calls `report` with the first failure,
/// which the caller handles, and with the success. Returns `None` if the program ends before the rejoin. Even then
/// there is one last attempt after the request to stop, because a user who has repaired the disk often restarts the
/// machine next.
pub fn open(
    live: &Live,
    clock: &dyn Clock,
    mut open_database: impl FnMut() -> Result<Opened>,
    report: impl Fn(Result<OpenedHistory>),
) -> Option<Store> {
    let mut backoff = Backoff::new();
    let mut first = true;
    loop {
        let last = {
            let mut state = live.lock();
            state.pending.save_now = false;
            state.pending.stopping
        };
        match open_database().and_then(|opened| Ok((opened.store.reader()?, opened))) {
            Ok((reader, opened)) => {
                let Opened { store, records, settings, next_seq, newest_unix: newest, events } = opened;
                events.into_iter().for_each(|event| live.lock().unsaved.add_event(event));
                report(Ok((StoredHistory { records, settings, next_seq, newest }, reader)));
                return live.wait_for_rejoin().then_some(store);
            }
            Err(error) if first => report(Err(error)),
            Err(error) => report_open_failure(live, clock.now(), &error),
        }
        first = false;
        if last {
            live.lock().health.database = Database::NeverOpened;
            return None;
        }
        wait_for_retry(live, clock, backoff.failed());
    }
}

/// Sleeps until the next attempt is due, a save is requested, or the program stops.
fn wait_for_retry(live: &Live, clock: &dyn Clock, retry_ms: u64) {
    let due_ms = clock.now().mono_ms + retry_ms;
    loop {
        let left_ms = due_ms.saturating_sub(clock.now().mono_ms);
        let requested = {
            let state = live.lock();
            state.pending.save_now || state.pending.stopping
        };
        if requested || left_ms == 0 {
            return;
        }
        live.wait_for_work(Duration::from_millis(left_ms.min(LONGEST_SLEEP_MS)));
    }
}

/// Reports that the database cannot be opened. The log and the events get only errors that differ from the last one.
pub fn report_open_failure(live: &Live, now: Now, error: &Error) {
    let permanent = PERMANENT_ERRORS.contains(&error.kind);
    let next = NEXT_STEPS.iter().find(|(kind, _)| *kind == error.kind);
    let error = next.map_or_else(|| error.to_string(), |(_, step)| format!("{error}; {step}"));
    let mut state = live.lock();
    state.health.saving.open_error_is_permanent = permanent;
    let changed = state.health.saving.error.as_ref() != Some(&error);
    let message = changed.then(|| format!("the history cannot be opened, samples stay in memory: {error}"));
    report_fault(state, now, error, message);
}
