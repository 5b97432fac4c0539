//! Getting at the database. A disk that is full, slow, locked, read-only or not there yet is no reason not to count: it is
//! tried again, at growing distances, until it works or the program ends. What is in memory by then is the sampler's to
//! join to what is on disk; nothing is saved before it has.

use std::time::Duration;

use super::{Backoff, LONGEST_SLEEP_MS, complain};
use crate::clock::{Clock, Now};
use crate::error::{Error, ErrorKind, Result};
use crate::live::{Database, Earlier, Live};
use crate::store::{Opened, Reader, Store};

/// What a database remembers, and a way to ask it.
pub type Past = (Earlier, Reader);

/// What to do about it, where the error does not say so itself.
const NEXT_STEPS: [(ErrorKind, &str); 5] = [
    (ErrorKind::Full, "make room there"),
    (ErrorKind::Busy, "end the program that has it open"),
    (ErrorKind::Io, "look at the disk, or name another file with --database"),
    (ErrorKind::System, "look at the disk, or name another file with --database"),
    (ErrorKind::Transient, "a disk that stays that slow is worn out or overloaded"),
];

/// What does not pass by itself. Full, slow and locked disks do, and so may one that fails.
const LASTING: [ErrorKind; 3] = [ErrorKind::ReadOnly, ErrorKind::Foreign, ErrorKind::Newer];

/// Tries until it is open and joined. `tell` hears of the first failure, whose consequences are the caller's, and of the
/// success. `None` when the end came first; then there was one more attempt after everybody was asked to stop, for
/// whoever has put the disk right may well restart the machine next.
pub fn open(
    live: &Live,
    clock: &dyn Clock,
    mut attempt: impl FnMut() -> Result<Opened>,
    tell: impl Fn(Result<Past>),
) -> Option<Store> {
    let mut backoff = Backoff::new();
    let mut first = true;
    loop {
        let last = {
            let mut state = live.lock();
            state.wishes.save_now = false;
            state.wishes.stopping
        };
        match attempt().and_then(|opened| Ok((opened.store.reader()?, opened))) {
            Ok((reader, opened)) => {
                let Opened { store, records, settings, next_seq, newest, events } = opened;
                events.into_iter().for_each(|event| live.lock().unsaved.event(event));
                tell(Ok((Earlier { records, settings, next_seq, newest }, reader)));
                return live.wait_for_join().then_some(store);
            }
            Err(error) if first => tell(Err(error)),
            Err(error) => cannot_open(live, clock.now(), &error),
        }
        first = false;
        if last {
            live.lock().health.database = Database::GivenUp;
            return None;
        }
        rest(live, clock, backoff.failed());
    }
}

/// Until it is time to try again, or somebody asks for it.
fn rest(live: &Live, clock: &dyn Clock, retry_ms: u64) {
    let due_ms = clock.now().mono_ms + retry_ms;
    loop {
        let left_ms = due_ms.saturating_sub(clock.now().mono_ms);
        let asked = {
            let state = live.lock();
            state.wishes.save_now || state.wishes.stopping
        };
        if asked || left_ms == 0 {
            return;
        }
        live.wait_for_work(Duration::from_millis(left_ms.min(LONGEST_SLEEP_MS)));
    }
}

/// Said again only when it has become another fault.
pub fn cannot_open(live: &Live, now: Now, error: &Error) {
    let refused = LASTING.contains(&error.kind);
    let next = NEXT_STEPS.iter().find(|(kind, _)| *kind == error.kind);
    let error = next.map_or_else(|| error.to_string(), |(_, step)| format!("{error}; {step}"));
    let mut state = live.lock();
    state.health.saving.refused = refused;
    let news = state.health.saving.error.as_ref() != Some(&error);
    let sentence = news.then(|| format!("the history cannot be opened, going on in memory: {error}"));
    complain(state, now, error, sentence);
}
