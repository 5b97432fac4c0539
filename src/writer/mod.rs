//! The writer: the thread that saves. It takes the unsaved ticks, events, records and settings from `live`, and the
//! store writes them in one transaction. The memory is released only after the COMMIT. A failed save loses nothing: the
//! writer tries again, after growing pauses. A COMMIT may be slow, because no other thread waits for this one.
//! Before the first save, `opening` opens the database.

mod opening;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Now, Zone};
use crate::error::{ErrorKind, Result};
use crate::live::{Live, Locked, ReportedProblem, State, Unsaved, Written};
use crate::model::{Anchor, Batch, Event, EventKind, HistoryEdit, IfaceId, Record};
use crate::resolution::Retention;
use crate::source;
use crate::store::{SaveRequest, Store};

pub use opening::{OpenedHistory, open, report_open_failure};

/// First and longest pause after a failed attempt.
const FIRST_RETRY_MS: u64 = 2_000;
const LONGEST_RETRY_MS: u64 = 300_000;
/// How often a failed edit of the history is tried again, unless the error is one of `DISK_ERRORS`.
const EDIT_RETRIES: u32 = 5;
/// While saving fails, each attempt also takes the records that changed since, until there are this many.
const MAX_RECORDS: usize = 512;
/// Errors of the disk or the system. An edit that fails with one of them is tried again without limit.
const DISK_ERRORS: [ErrorKind; 6] =
    [ErrorKind::Busy, ErrorKind::Full, ErrorKind::Io, ErrorKind::ReadOnly, ErrorKind::System, ErrorKind::Transient];
/// Longest sleep, so that the writer notices a changed flush interval.
const LONGEST_SLEEP_MS: u64 = 60_000;

/// Contents of one save, kept until they are on disk. Until then readers find the ticks in `Unsaved::saving_batch` and
/// the events in `Unsaved::events`.
#[derive(Default)]
struct SaveContents {
    batch: Arc<Batch>,
    anchors: Vec<Anchor>,
    events: Vec<Event>,
    records: Vec<Record>,
    settings: Vec<(String, Option<String>)>,
    /// The newest save request (`Unsaved::save_tickets`) that this save serves.
    ticket: u64,
}

impl SaveContents {
    fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.events.is_empty() && self.records.is_empty() && self.settings.is_empty()
    }
}

/// Pause before the next attempt: doubled after each failure, up to `LONGEST_RETRY_MS`.
struct Backoff {
    next_ms: u64,
}

impl Backoff {
    fn new() -> Backoff {
        Backoff { next_ms: FIRST_RETRY_MS }
    }

    /// The pause after a failure, in ms.
    fn failed(&mut self) -> u64 {
        let longer_ms = (self.next_ms * 2).min(LONGEST_RETRY_MS);
        std::mem::replace(&mut self.next_ms, longer_ms)
    }
}

/// The writer with an open database.
pub struct Writer {
    live: Arc<Live>,
    store: Store,
    clock: Arc<dyn Clock>,
    contents: SaveContents,
    /// An empty batch with its allocated memory, exchanged for the batch to save, so that the sampler need not
    /// allocate.
    spare: Batch,
    backoff: Backoff,
    /// Monotonic time of the last save, or of the start.
    saved_ms: u64,
    /// Edits of the history in the order of execution, each with the event that reports it.
    edits: VecDeque<(HistoryEdit, Option<Event>)>,
    /// How often the first edit has failed.
    edit_failures: u32,
    edit_backoff: Backoff,
    /// Monotonic time at which the first edit is tried again at the latest.
    edit_due_ms: Option<u64>,
    /// Bytes that this thread had written when `run` began; `None` where the kernel does not count them.
    written_at_start: Option<Written>,
}

impl Writer {
    pub fn new(live: Arc<Live>, store: Store, clock: Arc<dyn Clock>) -> Writer {
        let saved_ms = clock.now().mono_ms;
        let (contents, spare) = (SaveContents::default(), Batch::default());
        Writer {
            live,
            store,
            clock,
            contents,
            spare,
            backoff: Backoff::new(),
            saved_ms,
            edits: VecDeque::new(),
            edit_failures: 0,
            edit_backoff: Backoff::new(),
            edit_due_ms: None,
            written_at_start: None,
        }
    }

    /// Saves at each flush interval and on request, until the program stops. The caller then waits for the sampler's
    /// last sample and calls `finish`.
    pub fn run(&mut self) {
        let began_ms = self.clock.now().mono_ms;
        self.written_at_start = source::bytes_written().map(|bytes| Written { bytes, since_mono_ms: began_ms });
        self.live.lock().health.saving.succeeded_mono_ms = Some(began_ms);
        let mut retry_due_ms = None;
        loop {
            let (flush_ms, save_now) = {
                let state = self.live.lock();
                if state.pending.stopping {
                    return;
                }
                (u64::from(state.active.flush_s) * 1000, state.pending.save_now)
            };
            let now_ms = self.clock.now().mono_ms;
            let next_ms = || (self.saved_ms + flush_ms).min(self.edit_due_ms.unwrap_or(u64::MAX));
            let due_ms = retry_due_ms.unwrap_or_else(next_ms);
            if !save_now && now_ms < due_ms {
                self.live.wait_for_work(Duration::from_millis((due_ms - now_ms).min(LONGEST_SLEEP_MS)));
            } else if self.save().is_ok() {
                retry_due_ms = None;
            } else {
                retry_due_ms = Some(self.clock.now().mono_ms + self.backoff.failed());
            }
        }
    }

    /// Makes the last saves, then closes the database. Closing the last connection makes SQLite checkpoint the WAL,
    /// which is slow where saving is slow.
    pub fn finish(mut self) {
        // The first save repeats a failed one, if there was one; the next saves newer data.
        while self.save().is_ok() && is_savable(&self.live.lock()) {}
    }

    /// Saves all ticks that have a wall time, with everything else that is unsaved, in one transaction. Then executes
    /// the edits of the history, each in a transaction of its own.
    pub fn save(&mut self) -> Result<()> {
        self.live.lock().health.saving.saving_since_mono_ms = Some(self.clock.now().mono_ms);
        let result = self.save_all();
        self.live.lock().health.saving.saving_since_mono_ms = None;
        result
    }

    fn save_all(&mut self) -> Result<()> {
        let (zone, retention) = self.fill_contents();
        let SaveContents { batch, anchors, events, records, settings, .. } = &self.contents;
        let request = SaveRequest { batch, anchors, records, events, settings, retention, zone: &zone };
        let result = if self.contents.is_empty() { self.store.ensure_in_place() } else { self.store.save(&request) };
        let now = self.clock.now();
        let written = self.written_at_start.and_then(|start| {
            let bytes = source::bytes_written()?.saturating_sub(start.bytes);
            Some(Written { bytes, ..start })
        });
        let mut state = self.live.lock();
        state.health.saving.written = written;
        state.health.saving.wrong_file_warning = self.store.location_warning();
        self.store.take_events().into_iter().for_each(|event| state.unsaved.add_event(event));
        match &result {
            Ok(()) => {
                state.health.saving.last_saved = Some(now.unix_ms.div_euclid(1000));
                state.health.saving.succeeded_mono_ms = Some(now.mono_ms);
                state.health.saving.woken_mono_ms = None;
                state.unsaved.saving_batch = Arc::default();
                let ticket = self.contents.ticket;
                state.unsaved.remove_saved_events();
                drop(state);
                self.release_contents();
                self.backoff = Backoff::new();
                self.saved_ms = now.mono_ms;
                if self.execute_edits(&zone) {
                    self.report_success(ticket);
                }
            }
            Err(error) => {
                // Report a fault once. Report damage to the file even while another fault lasts.
                let is_corruption = error.kind == ErrorKind::Corrupt;
                let same = |known: &String| !is_corruption || *known == error.to_string();
                let is_new = !state.health.saving.error.as_ref().is_some_and(same);
                let message = is_new.then(|| format!("saving failed, samples stay in memory: {error}"));
                report_fault(state, now, error.to_string(), message);
            }
        }
        result
    }

    /// For a successful save after which no edits are left: marks the ticket as served, and logs the end of a fault.
    fn report_success(&self, ticket: u64) {
        let mut state = self.live.lock();
        let reported = std::mem::take(&mut state.health.saving.reported);
        let recovered = state.health.saving.error.take().is_some() || reported > ReportedProblem::Nothing;
        let coarsened = std::mem::take(&mut state.health.saving.coarsened);
        state.unsaved.save_tickets.serve(ticket);
        // Save at once the ticks that were taken while the fault lasted.
        state.pending.save_now |= recovered;
        drop(state);
        match (recovered, coarsened) {
            (true, false) => log::info!("saving works again; nothing was lost"),
            (true, true) => log::info!("saving works again; no byte was lost, but older samples became coarser"),
            (false, _) => {}
        }
    }

    /// Executes the edits of the history, each in its own transaction, so that a failed edit does not stop saving.
    /// `true` when no edit is left.
    fn execute_edits(&mut self, zone: &Zone) -> bool {
        while let Some((edit, event)) = self.edits.front() {
            let timed = event.as_ref().filter(|event| event.unix.is_some());
            let result = self.store.edit(edit, timed, zone);
            let now = self.clock.now();
            if let Err(error) = result {
                self.edit_failures += 1;
                let gives_up = self.edit_failures > EDIT_RETRIES && !DISK_ERRORS.contains(&error.kind);
                let message = match gives_up {
                    true => Some(format!("given up: {error}")),
                    false => (self.edit_failures == 1).then(|| format!("trying again: {error}")),
                };
                report_fault(self.live.lock(), now, error.to_string(), message);
                if gives_up {
                    self.drop_first_edit();
                }
                self.edit_due_ms = Some(now.mono_ms + self.edit_backoff.failed());
                return false;
            }
            {
                let mut state = self.live.lock();
                state.unsaved.apply_edit(edit);
                // An event without a wall time stays unsaved until the clock is trusted.
                event
                    .iter()
                    .filter(|event| event.unix.is_none())
                    .for_each(|event| state.unsaved.add_event(event.clone()));
            }
            self.drop_first_edit();
        }
        self.edit_due_ms = None;
        true
    }

    fn drop_first_edit(&mut self) {
        self.edits.pop_front();
        (self.edit_failures, self.edit_backoff) = (0, Backoff::new());
    }

    /// Fills `contents` from `live` with all ticks that have a wall time. After a failed save the batch stays the same:
    /// readers hold it, and it may be on disk in spite of the failure. In that case this takes no edits and no ticket,
    /// because they must come after ticks that are not in this batch. It takes everything else even then, except
    /// records that must wait (see below). That is small: one record for each interface, one value for each setting,
    /// and the events, whose number `live` limits.
    fn fill_contents(&mut self) -> (Arc<Zone>, Retention) {
        let live = self.live.clone();
        let mut state = live.lock();
        state.pending.save_now = false;
        let (zone, retention, ticket) =
            (state.zone.clone(), state.active.retention, state.unsaved.save_tickets.newest());
        state.unsaved.copy_events(&mut self.contents.events);
        let Unsaved { batch, anchors, records, settings, edits, highest_taken_id: highest_id, .. } = &mut state.unsaved;
        let contents = &mut self.contents;
        let new_batch = contents.batch.is_empty();
        if new_batch {
            self.edits.extend(edits.drain(..));
            contents.ticket = ticket;
            contents.batch = Arc::new(take_timed(batch, &mut self.spare));
        }
        let newest = contents.batch.ticks.last().map(|tick| tick.seq);
        move_matching(anchors, &mut contents.anchors, |anchor| newest.is_some_and(|seq| anchor.seq <= seq));
        // Records wait until no anchors are left unsaved: a record without its anchor would give the next start on this
        // boot a wrong baseline. The limit keeps records of short-lived links from piling up while saving fails.
        if anchors.is_empty() && contents.records.len() < MAX_RECORDS {
            append_replacing(&mut contents.records, std::mem::take(records), |one, other| one.id == other.id);
        }
        append_replacing(&mut contents.settings, std::mem::take(settings), |one, other| one.0 == other.0);
        let samples = contents.batch.samples.iter().map(|sample| sample.iface);
        let anchored = contents.anchors.iter().map(|anchor| anchor.iface);
        let taken = samples.chain(anchored).chain(contents.records.iter().map(|record| record.id));
        *highest_id = taken.fold(*highest_id, IfaceId::max);
        if new_batch {
            state.unsaved.saving_batch = contents.batch.clone();
        }
        (zone, retention)
    }

    /// Releases the saved data after the COMMIT and keeps the memory of the batch as `spare`, unless a reader still
    /// holds it.
    fn release_contents(&mut self) {
        let saved = std::mem::take(&mut self.contents);
        if let Ok(mut batch) = Arc::try_unwrap(saved.batch) {
            batch.clear();
            if batch.samples.capacity() > self.spare.samples.capacity() {
                self.spare = batch;
            }
        }
    }
}

/// Runs the writer's thread, `run`. If it panics, reports that nothing is saved any more, and continues the panic.
pub fn run_reporting_panic(live: &Live, clock: &dyn Clock, run: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return };
    {
        let mut state = live.lock();
        state.health.saving.writer_ended = true;
        let message = "nothing is saved any more: the writer thread has crashed, which is a bug; restart net-pulse";
        report_fault(state, clock.now(), message.to_string(), Some(message.to_string()));
    }
    resume_unwind(panic);
}

/// Reports a fault: `error` is in the health and on the page while the fault lasts; `message`, if any, goes to the log
/// and the events once.
fn report_fault(mut state: Locked, now: Now, error: String, message: Option<String>) {
    state.health.saving.failures += 1;
    state.health.saving.error = Some(error);
    let Some(detail) = message else { return };
    let (unix, mono_ms, kind) = (None, now.mono_ms, EventKind::Storage);
    state.unsaved.add_event(Event { unix, mono_ms, kind, interface: String::new(), detail: detail.clone() });
    drop(state);
    log::error!("{detail}");
}

/// Appends the newer items; each replaces the items that `same` equates with it.
fn append_replacing<T>(kept: &mut Vec<T>, newer: Vec<T>, same: impl Fn(&T, &T) -> bool) {
    for item in newer {
        kept.retain(|known| !same(known, &item));
        kept.push(item);
    }
}

/// Whether another save would save anything. Ticks and events without a wall time do not count, nor do records that
/// must be saved with anchors (see `fill_contents`).
fn is_savable(state: &State) -> bool {
    state.unsaved.batch.ticks.first().is_some_and(|tick| tick.unix.is_some())
        || state.unsaved.events.front().is_some_and(|event| event.unix.is_some())
        || (!state.unsaved.records.is_empty() && state.unsaved.anchors.is_empty())
        || !state.unsaved.settings.is_empty()
        || !state.unsaved.edits.is_empty()
}

/// Takes the ticks before the first one without a wall time.
fn take_timed(batch: &mut Batch, spare: &mut Batch) -> Batch {
    let timed = batch.ticks.iter().take_while(|tick| tick.unix.is_some()).count();
    if timed == batch.ticks.len() {
        return std::mem::replace(batch, std::mem::take(spare));
    }
    let end = timed.checked_sub(1).map_or(0, |last| batch.ticks[last].end);
    let taken = Batch { ticks: batch.ticks[..timed].to_vec(), samples: batch.samples[..end].to_vec() };
    batch.drop_front(timed);
    taken
}

/// Moves the items for which `is_wanted` is true.
fn move_matching<T: Copy>(from: &mut Vec<T>, to: &mut Vec<T>, is_wanted: impl Fn(&T) -> bool) {
    to.extend(from.iter().filter(|item| is_wanted(item)).copied());
    from.retain(|item| !is_wanted(item));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::{COUNTERS, Counters, Sample, SampleQuality, Tick};

    fn batch(ticks: &[(Option<i64>, usize)]) -> Batch {
        let mut batch = Batch::default();
        for (at, (unix, count)) in ticks.iter().enumerate() {
            for iface in 0..*count {
                let delta = Counters([at as u64; COUNTERS]);
                batch.samples.push(Sample { iface: iface as u32, quality: SampleQuality::Plain, span_ms: 1, delta });
            }
            batch.ticks.push(Tick { seq: at as u64, mono_ms: 0, unix: *unix, end: batch.samples.len() });
        }
        batch
    }

    #[test]
    fn only_ticks_with_a_wall_time_are_taken() {
        let check = |ticks: &[(Option<i64>, usize)], taken: usize, samples: usize| {
            let (mut from, mut spare) = (batch(ticks), Batch::default());
            let whole = from.clone();
            let got = take_timed(&mut from, &mut spare);
            assert_eq!((got.ticks.len(), got.samples.len()), (taken, samples));
            let rejoined: Vec<Sample> = got.samples.iter().chain(&from.samples).copied().collect();
            assert_eq!(rejoined, whole.samples);
            let counts: Vec<usize> = from.iter().map(|(_, samples)| samples.len()).collect();
            assert_eq!(counts, ticks[taken..].iter().map(|(_, count)| *count).collect::<Vec<_>>());
        };
        check(&[], 0, 0);
        check(&[(Some(1), 2), (Some(2), 3)], 2, 5);
        check(&[(Some(1), 2), (None, 3), (Some(3), 1)], 1, 2);
        check(&[(None, 2), (Some(2), 3)], 0, 0);
    }

    /// If it did wait, the shutdown would make empty saves until its time limit.
    #[test]
    fn e21_the_end_does_not_wait_for_ticks_without_a_wall_time() {
        let live = Live::new(Config::default(), Zone::UTC);
        let mut state = live.lock();
        assert!(!is_savable(&state));
        state.unsaved.records.push(Record { id: 1, ifindex: 1, ..Record::default() });
        assert!(is_savable(&state), "a record without anchors");
        state.unsaved.anchors.push(Anchor { seq: 0, iface: 1, raw: Counters::ZERO });
        state.unsaved.batch = batch(&[(None, 1)]);
        assert!(!is_savable(&state), "its tick has no wall time yet");
        state.unsaved.batch = batch(&[(Some(1), 1)]);
        assert!(is_savable(&state), "it has one now");
    }

    #[test]
    fn a_panic_of_the_writer_is_reported() {
        let live = Live::new(Config::default(), Zone::UTC);
        let panics = || run_reporting_panic(&live, &crate::clock::SystemClock, || panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        let state = live.lock();
        assert!(
            state.health.saving.writer_ended
                && state.health.saving.problem(0, 300).is_some_and(|it| it.contains("has ended"))
        );
        assert!(state.unsaved.events[0].detail.starts_with("nothing is saved any more: the writer thread has crashed"));
    }

    #[test]
    fn the_newer_record_of_an_interface_replaces_the_older() {
        let mut kept = vec![(1, 'a'), (2, 'b')];
        append_replacing(&mut kept, vec![(3, 'c'), (1, 'd'), (3, 'e')], |one, other| one.0 == other.0);
        assert_eq!(kept, [(2, 'b'), (1, 'd'), (3, 'e')]);
    }
}
