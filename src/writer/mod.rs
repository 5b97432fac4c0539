//! The thread that saves. It takes what `live` has pending, hands it to the store in one transaction, and lets go of
//! it only after the COMMIT; a failure keeps everything and is tried again, at growing distances. A commit may take as
//! long as it likes: nobody waits for this thread. `opening` is what it does before: getting at the database.

mod opening;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Now, Zone};
use crate::error::{ErrorKind, Result};
use crate::level::Keep;
use crate::live::{Live, Locked, State, Told, Unsaved, Written};
use crate::model::{Anchor, Batch, Edit, Event, EventKind, IfaceId, Record};
use crate::source;
use crate::store::{Flush, Store};

pub use opening::{Past, cannot_open, open};

/// Between two attempts after a failure.
const FIRST_RETRY_MS: u64 = 2_000;
const LONGEST_RETRY_MS: u64 = 300_000;
/// Attempts at a change of the past after the first, where it is not the disk that is at fault.
const EDIT_RETRIES: u32 = 5;
/// Identities that wait for a save that fails.
const RECORDS_HELD: usize = 512;
/// What may be better later.
const PASSING: [ErrorKind; 6] =
    [ErrorKind::Busy, ErrorKind::Full, ErrorKind::Io, ErrorKind::ReadOnly, ErrorKind::System, ErrorKind::Transient];
/// How long a sleep lasts at the most, so that a changed flush interval is noticed.
const LONGEST_SLEEP_MS: u64 = 60_000;

/// What one transaction takes, until it is on disk. The ticks are in `State::saving_batch`, where readers find them; the
/// events stay in `State::events` until then.
#[derive(Default)]
struct Cargo {
    batch: Arc<Batch>,
    anchors: Vec<Anchor>,
    events: Vec<Event>,
    records: Vec<Record>,
    settings: Vec<(String, Option<String>)>,
    saves: u64,
}

impl Cargo {
    fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.events.is_empty() && self.records.is_empty() && self.settings.is_empty()
    }
}

/// How long to the next attempt: ever longer while none succeeds.
struct Backoff {
    next_ms: u64,
}

impl Backoff {
    fn new() -> Backoff {
        Backoff { next_ms: FIRST_RETRY_MS }
    }

    fn failed(&mut self) -> u64 {
        let longer_ms = (self.next_ms * 2).min(LONGEST_RETRY_MS);
        std::mem::replace(&mut self.next_ms, longer_ms)
    }
}

pub struct Writer {
    live: Arc<Live>,
    store: Store,
    clock: Arc<dyn Clock>,
    cargo: Cargo,
    /// Emptied, its memory kept: taking a batch must not make the sampler allocate.
    spare: Batch,
    backoff: Backoff,
    saved_ms: u64,
    /// Changes of the past, in their order.
    edits: VecDeque<(Edit, Option<Event>)>,
    /// How often the first of them has failed, and when it is tried again at the latest.
    edit_failures: u32,
    edit_backoff: Backoff,
    edit_due_ms: Option<u64>,
    /// When this thread began to save.
    written_before: Option<Written>,
}

impl Writer {
    pub fn new(live: Arc<Live>, store: Store, clock: Arc<dyn Clock>) -> Writer {
        let saved_ms = clock.now().mono_ms;
        let (cargo, spare) = (Cargo::default(), Batch::default());
        Writer {
            live,
            store,
            clock,
            cargo,
            spare,
            backoff: Backoff::new(),
            saved_ms,
            edits: VecDeque::new(),
            edit_failures: 0,
            edit_backoff: Backoff::new(),
            edit_due_ms: None,
            written_before: None,
        }
    }

    /// Saves when it is time until `live` says stop; `finish` is the caller's, after the sampler's last sample.
    pub fn run(&mut self) {
        let began_ms = self.clock.now().mono_ms;
        self.written_before = source::written().map(|bytes| Written { bytes, since_mono_ms: began_ms });
        self.live.lock().health.saving.succeeded_mono_ms = Some(began_ms);
        let mut retry_due_ms = None;
        loop {
            let (flush_ms, save_now) = {
                let state = self.live.lock();
                if state.wishes.stopping {
                    return;
                }
                (u64::from(state.tuning.flush_s) * 1000, state.wishes.save_now)
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

    /// The last saves, and the end of the database: closing it takes in the log, which is slow where saving is.
    pub fn finish(mut self) {
        // What a failed attempt has left goes by itself; then there is what came since.
        while self.save().is_ok() && is_savable(&self.live.lock()) {}
    }

    /// Everything that has a place in time, in one transaction; then what its user wants changed in the past.
    pub fn save(&mut self) -> Result<()> {
        self.live.lock().health.saving.saving_since_mono_ms = Some(self.clock.now().mono_ms);
        let outcome = self.save_all();
        self.live.lock().health.saving.saving_since_mono_ms = None;
        outcome
    }

    fn save_all(&mut self) -> Result<()> {
        let (zone, keep) = self.load();
        let Cargo { batch, anchors, events, records, settings, .. } = &self.cargo;
        let flush = Flush { batch, anchors, records, events, settings, keep, zone: &zone };
        let outcome = if self.cargo.is_empty() { self.store.stay() } else { self.store.flush(&flush) };
        let now = self.clock.now();
        let written = self.written_before.and_then(|before| {
            let bytes = source::written()?.saturating_sub(before.bytes);
            Some(Written { bytes, ..before })
        });
        let mut state = self.live.lock();
        state.health.saving.written = written;
        state.health.saving.elsewhere = self.store.beside_another();
        self.store.take_events().into_iter().for_each(|event| state.unsaved.event(event));
        match &outcome {
            Ok(()) => {
                state.health.saving.last_saved = Some(now.unix_ms.div_euclid(1000));
                state.health.saving.succeeded_mono_ms = Some(now.mono_ms);
                state.health.saving.called_mono_ms = None;
                state.unsaved.saving_batch = Arc::default();
                let asked = self.cargo.saves;
                state.unsaved.events_saved();
                drop(state);
                self.let_go();
                self.backoff = Backoff::new();
                self.saved_ms = now.mono_ms;
                if self.edit(&zone) {
                    self.all_is_well(asked);
                }
            }
            Err(error) => {
                // A fault that does not pass is told of also where one was before that would have.
                let lasts = error.kind == ErrorKind::Corrupt;
                let same = |known: &String| !lasts || *known == error.to_string();
                let news = !state.health.saving.error.as_ref().is_some_and(same);
                let sentence = news.then(|| format!("saving failed, going on in memory: {error}"));
                complain(state, now, error.to_string(), sentence);
            }
        }
        outcome
    }

    fn all_is_well(&self, asked: u64) {
        let mut state = self.live.lock();
        let told = std::mem::take(&mut state.health.saving.told);
        let recovered = state.health.saving.error.take().is_some() || told > Told::Nothing;
        let compacted = std::mem::take(&mut state.health.saving.compacted);
        state.unsaved.saves.serve(asked);
        // What came during the fault has waited long enough.
        state.wishes.save_now |= recovered;
        drop(state);
        match (recovered, compacted) {
            (true, false) => log::info!("saving works again; nothing was lost"),
            (true, true) => log::info!("saving works again; no byte was lost, but older samples became coarser"),
            (false, _) => {}
        }
    }

    /// Each change by itself: whatever is wrong with one, saving goes on. Says whether nothing is left to be done.
    fn edit(&mut self, zone: &Zone) -> bool {
        while let Some((edit, event)) = self.edits.front() {
            let placed = event.as_ref().filter(|event| event.unix.is_some());
            let outcome = self.store.edit(edit, placed, zone);
            let now = self.clock.now();
            if let Err(error) = outcome {
                self.edit_failures += 1;
                let given_up = self.edit_failures > EDIT_RETRIES && !PASSING.contains(&error.kind);
                let sentence = match given_up {
                    true => Some(format!("given up: {error}")),
                    false => (self.edit_failures == 1).then(|| format!("trying again: {error}")),
                };
                complain(self.live.lock(), now, error.to_string(), sentence);
                if given_up {
                    self.done_with_first();
                }
                self.edit_due_ms = Some(now.mono_ms + self.edit_backoff.failed());
                return false;
            }
            {
                let mut state = self.live.lock();
                state.unsaved.edited(edit);
                // One that has no time yet waits for it as all do.
                event.iter().filter(|event| event.unix.is_none()).for_each(|event| state.unsaved.event(event.clone()));
            }
            self.done_with_first();
        }
        self.edit_due_ms = None;
        true
    }

    fn done_with_first(&mut self) {
        self.edits.pop_front();
        (self.edit_failures, self.edit_backoff) = (0, Backoff::new());
    }

    /// Takes from `live` what is placed in time. What a failed attempt has left goes first, and by itself: a batch that
    /// is on its way is never changed, since readers hold it, and since it may be on disk in spite of the failure; and
    /// no change of the past and no ticket is taken along, for what they come after is not.
    /// The rest is small: a record for each interface, a value for each setting, as many events as `live` keeps.
    fn load(&mut self) -> (Arc<Zone>, Keep) {
        let live = self.live.clone();
        let mut state = live.lock();
        state.wishes.save_now = false;
        let (zone, keep, asked) = (state.zone.clone(), state.tuning.keep, state.unsaved.saves.given());
        state.unsaved.take_events(&mut self.cargo.events);
        let Unsaved { batch, anchors, records, settings, edits, taken_id, .. } = &mut state.unsaved;
        let cargo = &mut self.cargo;
        let fresh = cargo.batch.is_empty();
        if fresh {
            self.edits.extend(edits.drain(..));
            cargo.saves = asked;
            cargo.batch = Arc::new(take_placed(batch, &mut self.spare));
        }
        let newest = cargo.batch.ticks.last().map(|tick| tick.seq);
        move_some(anchors, &mut cargo.anchors, |anchor| newest.is_some_and(|seq| anchor.seq <= seq));
        // An identity without the counters that belong to it would have the next start on this boot count from others.
        // Links that come and go while nothing can be saved must not pile up here.
        if anchors.is_empty() && cargo.records.len() < RECORDS_HELD {
            replace_all(&mut cargo.records, std::mem::take(records), |one, other| one.id == other.id);
        }
        replace_all(&mut cargo.settings, std::mem::take(settings), |one, other| one.0 == other.0);
        let samples = cargo.batch.samples.iter().map(|sample| sample.iface);
        let anchored = cargo.anchors.iter().map(|anchor| anchor.iface);
        let taken = samples.chain(anchored).chain(cargo.records.iter().map(|record| record.id));
        *taken_id = taken.fold(*taken_id, IfaceId::max);
        if fresh {
            state.unsaved.saving_batch = cargo.batch.clone();
        }
        (zone, keep)
    }

    /// After the COMMIT. A reader may still hold the batch: then its memory goes when the reader is done.
    fn let_go(&mut self) {
        let cargo = std::mem::take(&mut self.cargo);
        if let Ok(mut batch) = Arc::try_unwrap(cargo.batch) {
            batch.clear();
            if batch.samples.capacity() > self.spare.samples.capacity() {
                self.spare = batch;
            }
        }
    }
}

/// Runs the thread that saves. If it panics, nothing is saved any more, which has to be told.
pub fn guarded(live: &Live, clock: &dyn Clock, run: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return };
    {
        let mut state = live.lock();
        state.health.saving.lost = true;
        let sentence =
            "nothing is saved any more: the thread that saves has ended, the program is at fault; restart it";
        complain(state, clock.now(), sentence.to_string(), Some(sentence.to_string()));
    }
    resume_unwind(panic);
}

/// Health and the page have a fault for as long as it lasts; the log and the events are told once, in a `sentence`.
fn complain(mut state: Locked, now: Now, error: String, sentence: Option<String>) {
    state.health.saving.failures += 1;
    state.health.saving.error = Some(error);
    let Some(detail) = sentence else { return };
    let (unix, mono_ms, kind) = (None, now.mono_ms, EventKind::Storage);
    state.unsaved.event(Event { unix, mono_ms, kind, interface: String::new(), detail: detail.clone() });
    drop(state);
    log::error!("{detail}");
}

/// The later one of two that stand for the same thing is the one to keep.
fn replace_all<T>(kept: &mut Vec<T>, newer: Vec<T>, same: impl Fn(&T, &T) -> bool) {
    for item in newer {
        kept.retain(|known| !same(known, &item));
        kept.push(item);
    }
}

/// Whether a further save would take anything. What waits for a right clock is none of it, nor are the identities that
/// `load` leaves with the counters that they belong to.
fn is_savable(state: &State) -> bool {
    state.unsaved.batch.ticks.first().is_some_and(|tick| tick.unix.is_some())
        || state.unsaved.events.front().is_some_and(|event| event.unix.is_some())
        || (!state.unsaved.records.is_empty() && state.unsaved.anchors.is_empty())
        || !state.unsaved.settings.is_empty()
        || !state.unsaved.edits.is_empty()
}

/// The ticks up to the first that waits for a wall time.
fn take_placed(batch: &mut Batch, spare: &mut Batch) -> Batch {
    let placed = batch.ticks.iter().take_while(|tick| tick.unix.is_some()).count();
    if placed == batch.ticks.len() {
        return std::mem::replace(batch, std::mem::take(spare));
    }
    let end = placed.checked_sub(1).map_or(0, |last| batch.ticks[last].end);
    let taken = Batch { ticks: batch.ticks[..placed].to_vec(), samples: batch.samples[..end].to_vec() };
    batch.drop_front(placed);
    taken
}

fn move_some<T: Copy>(from: &mut Vec<T>, to: &mut Vec<T>, which: impl Fn(&T) -> bool) {
    to.extend(from.iter().filter(|item| which(item)).copied());
    from.retain(|item| !which(item));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::{COUNTERS, Counters, Mark, Sample, Tick};

    fn batch(ticks: &[(Option<i64>, usize)]) -> Batch {
        let mut batch = Batch::default();
        for (at, (unix, count)) in ticks.iter().enumerate() {
            for iface in 0..*count {
                let delta = Counters([at as u64; COUNTERS]);
                batch.samples.push(Sample { iface: iface as u32, mark: Mark::Plain, span_ms: 1, delta });
            }
            batch.ticks.push(Tick { seq: at as u64, mono_ms: 0, unix: *unix, end: batch.samples.len() });
        }
        batch
    }

    #[test]
    fn only_what_is_placed_is_taken() {
        let check = |ticks: &[(Option<i64>, usize)], taken: usize, samples: usize| {
            let (mut from, mut spare) = (batch(ticks), Batch::default());
            let whole = from.clone();
            let got = take_placed(&mut from, &mut spare);
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

    /// Or the end would be spent on saving nothing, again and again, until its time is up.
    #[test]
    fn e21_what_waits_for_the_clock_is_not_waited_for_at_the_end() {
        let live = Live::new(Config::default(), Zone::UTC);
        let mut state = live.lock();
        assert!(!is_savable(&state));
        state.unsaved.records.push(Record { id: 1, ifindex: 1, ..Record::default() });
        assert!(is_savable(&state), "an identity by itself");
        state.unsaved.anchors.push(Anchor { seq: 0, iface: 1, raw: Counters::ZERO });
        state.unsaved.batch = batch(&[(None, 1)]);
        assert!(!is_savable(&state), "its first counters have no time yet");
        state.unsaved.batch = batch(&[(Some(1), 1)]);
        assert!(is_savable(&state), "they have one now");
    }

    #[test]
    fn a_thread_that_saves_no_more_is_told_of() {
        let live = Live::new(Config::default(), Zone::UTC);
        let panics = || guarded(&live, &crate::clock::SystemClock, || panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        let state = live.lock();
        assert!(
            state.health.saving.lost && state.health.saving.trouble(0, 300).is_some_and(|it| it.contains("has ended"))
        );
        assert!(
            state.unsaved.events[0].detail.starts_with("nothing is saved any more: the thread that saves has ended")
        );
    }

    #[test]
    fn the_later_record_of_an_interface_stays() {
        let mut kept = vec![(1, 'a'), (2, 'b')];
        replace_all(&mut kept, vec![(3, 'c'), (1, 'd'), (3, 'e')], |one, other| one.0 == other.0);
        assert_eq!(kept, [(2, 'b'), (1, 'd'), (3, 'e')]);
    }
}
