//! Connects this run's memory to the stored history once the database is open. Until then interfaces and ticks have ids
//! of this run only. Then everything in memory is renumbered as if the history had been known from the start: each
//! interface gets the id of its stored history, ticks follow the last stored tick, and traffic between the stored
//! history and this run is added to this run's first tick. At most starts the database is open before anything is
//! counted. Nothing here waits for the disk.

use super::identity::{self, Boot, Candidate, Continuation, NewestLink, Resume, StartPoint, ThisRun};
use super::inventory::{fresh_start_detail, queue_record, was_active};
use super::others::GracePeriod;
use super::{Sampler, change_event, clock_step_detail, mark_and_delta, unix_at, wanted};
use crate::clock::{BUILD_FLOOR, Now, WallClock};
use crate::coarsen;
use crate::counter::{Baseline, Comparison, ReadingInterval};
use crate::live::{Database, State, StoredHistory};
use crate::model::{Batch, Counters, Event, EventKind, IfaceId, InterfaceKind, Mark, Reading, Record};
use crate::model::{Sample, Tick, Width};

/// First reading of an interface without a known history. It only set the baseline.
#[derive(Clone, Copy)]
pub(super) struct FirstReading {
    pub id: IfaceId,
    ifindex: u32,
    counters: Counters,
    width: Width,
    speed_mbit: Option<u32>,
    mono_ms: u64,
    seq: u64,
}

/// A first reading that may have to be counted from zero.
pub(super) struct UndecidedReading {
    pub first: FirstReading,
    pub boot: Boot,
}

/// The stored interface that an interface of this run becomes.
struct Renumbering {
    run_id: IfaceId,
    stored_id: IfaceId,
    /// Lifetime of the stored interface, with the traffic since it was last sampled.
    lifetime: Counters,
    active: bool,
}

/// Traffic between the latest stored sample and this run's first reading.
struct MissedSample {
    seq: u64,
    mono_ms: u64,
    sample: Sample,
}

/// Settings that one run saves for the next.
const NEXT_RUN_SETTINGS: [&str; 2] = ["primary_found", "newest_link"];

/// A wall time that is wrong by more than this is corrected.
const MIN_STEP_S: u64 = 2;

impl Sampler {
    pub(super) fn first_reading(&self, at: usize, reading: &Reading, now: Now, seq: u64) -> Option<FirstReading> {
        let link = &self.links[at];
        Some(FirstReading {
            id: link.id?,
            ifindex: reading.ifindex,
            counters: reading.counters,
            width: reading.width,
            speed_mbit: link.link.speed,
            mono_ms: now.mono_ms,
            seq,
        })
    }

    /// Decides whether the undecided first readings are counted from zero, once the wall clock is trusted.
    pub(super) fn decide_first_readings(&mut self, now: Now, state: &mut State) {
        let Some(offset_ms) = self.offset_ms.filter(|_| !self.undecided.is_empty()) else { return };
        let (boot_unix, now_unix) = (unix_at(0, offset_ms), unix_at(now.mono_ms, offset_ms));
        let mut missed = Vec::new();
        for UndecidedReading { first, boot } in std::mem::take(&mut self.undecided) {
            let Some(name) = self.records.iter().find(|record| record.id == first.id).map(|it| it.name.clone()) else {
                continue;
            };
            if let Some(why) = boot.fresh_start_reason(boot_unix, now_unix) {
                self.report_fresh_start(&name, why, first.mono_ms, state);
                continue;
            }
            let delta = self.missed_delta(&first, &name, StartPoint::zero(0), state, &mut missed);
            if let Some(record) = self.records.iter_mut().find(|record| record.id == first.id) {
                record.lifetime.add(&delta);
            }
            if let Some(tracked) = self.links.iter_mut().find(|tracked| tracked.id == Some(first.id)) {
                tracked.lifetime.add(&delta);
            }
            if let Some(iface) = state.inventory.interfaces.iter_mut().find(|iface| iface.id == Some(first.id)) {
                iface.lifetime.add(&delta);
            }
        }
        self.insert_missed_samples(missed, state);
    }

    fn report_fresh_start(&mut self, name: &str, why: &str, mono_ms: u64, state: &mut State) {
        let detail = fresh_start_detail(why);
        self.messages.push(format!("{name}: {detail}"));
        self.insert_past_event(state, mono_ms, EventKind::Gap, name, detail);
    }

    /// Adds an event of an earlier time, which could not be known then.
    fn insert_past_event(&self, state: &mut State, mono_ms: u64, kind: EventKind, interface: &str, detail: String) {
        let unix = self.offset_ms.map(|offset_ms| unix_at(mono_ms, offset_ms));
        state.unsaved.insert_event(Event { unix, mono_ms, kind, interface: interface.to_string(), detail });
    }

    /// Computes the traffic between a start point and a first reading.
    fn missed_delta(
        &mut self,
        first: &FirstReading,
        name: &str,
        start: StartPoint,
        state: &mut State,
        missed: &mut Vec<MissedSample>,
    ) -> Counters {
        let FirstReading { id, counters, width, speed_mbit, mono_ms, seq, .. } = *first;
        let span_ms = mono_ms.saturating_sub(start.mono_ms);
        let between = ReadingInterval { elapsed_ms: span_ms, speed_mbit, width };
        let mut baseline = Baseline::new(start.counters);
        let change = match baseline.advance(&counters, &between) {
            // Later readings exist, so the zero was not a momentary one.
            Comparison::Held => baseline.advance(&counters, &between),
            change => change,
        };
        if start.uncertain && !matches!(change, Comparison::Plain(_)) {
            self.report_fresh_start(name, "its counters have fallen since the latest sample", mono_ms, state);
            return Counters::ZERO;
        }
        let (mark, delta) = mark_and_delta(&change, start.mark);
        missed.push(MissedSample { seq, mono_ms, sample: Sample { iface: id, mark, span_ms, delta } });
        if let Some((kind, detail)) = change_event(&change, mark, span_ms, u64::from(self.active.interval_s) * 1000) {
            self.messages.push(format!("{name}: {detail}"));
            self.insert_past_event(state, mono_ms, kind, name, detail);
        }
        delta
    }

    /// Connects this run to the stored history. If that is known at the start, there is nothing in memory to connect
    /// yet.
    pub(super) fn rejoin(&mut self, earlier: StoredHistory, now: Now) {
        let live = self.live.clone();
        let StoredHistory { records, settings, next_seq, newest } = earlier;
        let [primary_found, newest_link] = NEXT_RUN_SETTINGS.map(|key| settings.get(key).cloned().unwrap_or_default());
        let wall_clock = wall_clock(newest, &records, &self.stack.boot);
        let shift = next_seq.saturating_sub(1);
        {
            let mut guard = live.lock();
            let state = &mut *guard;
            // Collection was stopped in the stored settings. Unless the user started it in this run, this run's samples
            // are discarded.
            let stopped = settings.get("running").is_some_and(|running| running == "false");
            if !state.active.running && !state.unsaved.settings.iter().any(|(key, _)| key == "running") {
                self.discard_run(state);
            }
            self.rejoined = true;
            state.unsaved.records.clear();
            state.unsaved.highest_taken_id = records.iter().map(|record| record.id).max().unwrap_or(0);
            (self.stored_newest_link, self.last_seen) =
                (NewestLink::from_text(&newest_link, &self.stack), newest.unwrap_or(0));
            self.grace = GracePeriod::new(&records, now);
            let run_records = std::mem::replace(&mut self.records, records);
            let mut continuations = self.continuations(&run_records);
            if stopped {
                const WHY: &str = "collection was stopped, and started again before the history was open";
                continuations
                    .iter_mut()
                    .flatten()
                    .for_each(|continuation| continuation.resume = Resume::FreshStart(WHY));
            }
            let mut continuations = continuations.into_iter();
            let (mut missed, mut undecided) = (Vec::new(), Vec::new());
            let links: Vec<Renumbering> = run_records
                .into_iter()
                .zip(continuations.by_ref())
                .map(|(record, continuation)| {
                    self.continue_record(record, continuation, state, &mut missed, &mut undecided)
                })
                .collect();
            self.insert_missed_samples(missed, state);
            self.renumber(&links, shift, state);
            for UndecidedReading { first, boot } in undecided {
                let id = links.iter().find(|link| link.run_id == first.id).map_or(first.id, |link| link.stored_id);
                self.undecided
                    .push(UndecidedReading { first: FirstReading { id, seq: first.seq + shift, ..first }, boot });
            }
            let numbered: Vec<bool> = self.links.iter().map(|tracked| tracked.id.is_some()).collect();
            for (at, numbered) in numbered.into_iter().enumerate() {
                match numbered {
                    true => self.bind_record(at, state),
                    false => self.continue_link(at, continuations.next().flatten(), state),
                }
            }
            self.wanted = wanted(&state.active);
            if self.primary.restore(state.active.primary.clone(), primary_found) {
                state.unsaved.settings.retain(|(key, _)| key != "primary_found");
            }
            if newest.is_some() {
                self.wall_clock = wall_clock;
                self.recheck_wall_clock(now, state);
            }
            self.decide_first_readings(now, state);
            state.limit_memory();
        }
        self.first_readings = Vec::new();
        let opened_late = self.started_at.is_some();
        if opened_late {
            self.update_watched_all();
            self.publish();
            let detail = "the history is open now: traffic counted before was added to it";
            self.add_event(now, EventKind::Storage, "", detail.to_string());
        }
        // From now on ids mean the same in memory and on disk, for readers that use both.
        let mut state = live.lock();
        state.pending.save_now |= opened_late;
        state.health.database = Database::Rejoined;
    }

    /// Judges the wall clock again, as if the stored history had been known at the start.
    fn recheck_wall_clock(&mut self, now: Now, state: &mut State) {
        let Some(started_at) = self.started_at else { return };
        let step = self.wall_clock.observe(started_at);
        if let Some(stepped_ms) = step.stepped_ms {
            self.insert_past_event(state, started_at.mono_ms, EventKind::ClockStep, "", clock_step_detail(stepped_ms));
        }
        self.offset_ms = self.wall_clock.observe(now).offset_ms;
        correct_wall_times(state, self.offset_ms);
    }

    /// The stored history that each record of this run continues, by the rules of a start, and then the one of each
    /// link without a record.
    fn continuations(&self, run_records: &[Record]) -> Vec<Option<Continuation>> {
        let first_reading = |id: IfaceId| self.first_readings.iter().find(|first_reading| first_reading.id == id);
        let known = run_records.iter().map(|record| Candidate {
            ifindex: first_reading(record.id).map(|first_reading| first_reading.ifindex),
            // "others" belongs to no link: it must not match a stored record by name.
            name: if record.kind == InterfaceKind::Others { "" } else { &record.name },
            mac: &record.mac,
            node: record.node,
        });
        let unnumbered = self.links.iter().filter(|tracked| tracked.id.is_none());
        let candidates: Vec<Candidate> =
            known.chain(unnumbered.map(|tracked| Candidate::of(&tracked.link, tracked.arrival_seen))).collect();
        let records: Vec<&Record> = self.records.iter().collect();
        let this_run = ThisRun {
            stack: &self.stack,
            mono_ms: self.started_at.map_or(0, |started_at| started_at.mono_ms),
            newest: self.stored_newest_link,
            listed_ms: None,
            last_seen: self.last_seen,
        };
        identity::assign_histories(&candidates, &records, &this_run)
    }

    /// Connects a record of this run to its stored record.
    fn continue_record(
        &mut self,
        run_record: Record,
        continuation: Option<Continuation>,
        state: &mut State,
        missed: &mut Vec<MissedSample>,
        undecided: &mut Vec<UndecidedReading>,
    ) -> Renumbering {
        let first_reading = self.first_readings.iter().find(|first_reading| first_reading.id == run_record.id).copied();
        let others_record = || self.records.iter().find(|record| record.kind == InterfaceKind::Others);
        let continuation = match others_record().filter(|_| run_record.kind == InterfaceKind::Others).cloned() {
            Some(record) => {
                Some(Continuation { counters_from: record.clone(), record, resume: Resume::FreshStart("") })
            }
            None => continuation,
        };
        let address_change =
            continuation.as_ref().and_then(|continuation| continuation.address_change(&run_record.mac));
        let Some(Continuation { counters_from, record: stored, resume }) = continuation else {
            let stored_id = self.records.iter().map(|record| record.id).max().unwrap_or(0) + 1;
            let link = Renumbering { run_id: run_record.id, stored_id, lifetime: Counters::ZERO, active: false };
            let record = Record { id: stored_id, ..run_record };
            queue_record(state, record.clone());
            self.records.push(record);
            return link;
        };
        let mut lifetime = stored.lifetime;
        // An interface that never had traffic has nothing to count.
        if let Some(first) = first_reading.filter(|first| was_active(&stored) || !first.counters.is_zero()) {
            if let Some(detail) = address_change.filter(|_| !matches!(resume, Resume::FreshStart(_))) {
                self.insert_past_event(state, first.mono_ms, EventKind::HardwareAddress, &run_record.name, detail);
            }
            match resume {
                Resume::From(start) => lifetime.add(&self.missed_delta(&first, &run_record.name, start, state, missed)),
                Resume::SinceBoot(boot) => undecided.push(UndecidedReading { first, boot }),
                Resume::FreshStart(why) => self.report_fresh_start(&run_record.name, why, first.mono_ms, state),
            }
        }
        if counters_from.name != run_record.name {
            let detail = format!("{} is now called {}", counters_from.name, run_record.name);
            self.insert_past_event(state, run_record.mono_ms, EventKind::Renamed, &run_record.name, detail);
        }
        let link = Renumbering { run_id: run_record.id, stored_id: stored.id, lifetime, active: was_active(&stored) };
        lifetime.add(&run_record.lifetime);
        let Record { id, alias, first_seen, .. } = stored;
        let record = Record { id, alias, first_seen, lifetime, ..run_record };
        queue_record(state, record.clone());
        self.records.retain(|known| known.id != id);
        self.records.push(record);
        link
    }

    /// Connects a link that has no id yet: it was not read, had no traffic, or is ignored.
    fn continue_link(&mut self, at: usize, continuation: Option<Continuation>, state: &mut State) {
        let Some(Continuation { record: stored, resume, .. }) = continuation else { return };
        let paused = self.paused;
        let tracked = &mut self.links[at];
        (tracked.id, tracked.anchored) = (Some(stored.id), false);
        tracked.active |= was_active(&stored);
        tracked.lifetime = stored.lifetime;
        if let Some(baseline) = &tracked.baseline {
            tracked.mark = Some(if baseline.counters.is_zero() { Mark::Reset } else { Mark::Gap });
        } else if !paused && !tracked.arrival_seen && tracked.watched() {
            if let Some(why) = tracked.resume(&resume) {
                let name = tracked.link.name.clone();
                self.report_fresh_start(&name, why, self.started_at.map_or(0, |started_at| started_at.mono_ms), state);
            }
        }
        let name = &self.links[at].link.name;
        if let Some(record) = self.records.iter_mut().find(|record| record.id == stored.id) {
            record.name.clone_from(name);
            queue_record(state, record.clone());
        }
    }

    /// Adds the missed samples to the tick of each first reading, or to the tick that contains it after coarsening.
    fn insert_missed_samples(&mut self, mut missed: Vec<MissedSample>, state: &mut State) {
        if missed.is_empty() {
            return;
        }
        missed.sort_by_key(|missed| missed.seq);
        let mut missed = missed.into_iter().peekable();
        let mut whole = Batch::default();
        for (tick, samples) in state.unsaved.batch.iter() {
            let start = whole.samples.len();
            whole.samples.extend(samples);
            while let Some(MissedSample { sample, .. }) = missed.next_if(|missed| missed.seq <= tick.seq) {
                match whole.samples[start..].iter_mut().find(|known| known.iface == sample.iface) {
                    Some(known) => coarsen::merge_sample(known, &sample),
                    None => whole.samples.push(sample),
                }
            }
            whole.ticks.push(Tick { end: whole.samples.len(), ..*tick });
        }
        if let Some(mono_ms) = missed.peek().map(|missed| missed.mono_ms) {
            // The interface was gone before its next sample.
            whole.samples.extend(missed.map(|missed| missed.sample));
            let end = whole.samples.len();
            whole.ticks.push(Tick { seq: self.next_seq, mono_ms, unix: None, end });
            self.next_seq += 1;
        }
        state.unsaved.batch = whole;
    }

    /// Discards everything that was counted in this run.
    fn discard_run(&mut self, state: &mut State) {
        self.paused = true;
        self.clear_baselines();
        for tracked in &mut self.links {
            (tracked.id, tracked.anchored, tracked.lifetime) = (None, false, Counters::ZERO);
        }
        state.inventory.interfaces.iter_mut().for_each(|iface| iface.id = None);
        state.unsaved.batch.clear();
        state.unsaved.anchors.clear();
        self.records.clear();
        self.first_readings.clear();
    }

    /// Replaces the ids and tick numbers of this run by those on disk.
    fn renumber(&mut self, links: &[Renumbering], shift: u64, state: &mut State) {
        let find = |id: IfaceId| links.iter().find(|link| link.run_id == id);
        let number = |id: &mut IfaceId| *id = find(*id).map_or(*id, |link| link.stored_id);
        state.unsaved.batch.samples.iter_mut().for_each(|sample| number(&mut sample.iface));
        state.unsaved.batch.ticks.iter_mut().for_each(|tick| tick.seq += shift);
        for anchor in &mut state.unsaved.anchors {
            number(&mut anchor.iface);
            anchor.seq += shift;
        }
        for tracked in &mut self.links {
            let Some(link) = tracked.id.and_then(find) else { continue };
            tracked.id = Some(link.stored_id);
            tracked.active |= link.active;
            let mut lifetime = link.lifetime;
            lifetime.add(&tracked.lifetime);
            tracked.lifetime = lifetime;
            // For readers that ask before the inventory is published again.
            if let Some(iface) = state.inventory.interfaces.get_mut(tracked.slot) {
                (iface.id, iface.lifetime) = (tracked.id, lifetime);
            }
        }
        for iface in state.inventory.interfaces.iter_mut().filter(|iface| !iface.present()) {
            iface.id.iter_mut().for_each(number);
        }
        self.next_seq += shift;
        self.final_tick_seq = None;
    }
}

/// The trust in the wall clock that earlier runs justify. On the same boot the newest sample gives the wall time at a
/// known monotonic time.
fn wall_clock(newest: Option<i64>, records: &[Record], boot: &str) -> WallClock {
    let mut wall_clock = WallClock::new(BUILD_FLOOR, newest);
    let same_boot = |record: &&Record| !boot.is_empty() && record.stack.boot == boot && record.last_seen > 0;
    let same_boot = records.iter().filter(same_boot);
    if let Some(newest) = same_boot.max_by_key(|record| record.mono_ms) {
        wall_clock.resume(Now { mono_ms: newest.mono_ms, unix_ms: newest.last_seen * 1000 });
    }
    wall_clock
}

/// Sets the wall time of each tick and event again, after the clock was judged again.
fn correct_wall_times(state: &mut State, offset_ms: Option<i64>) {
    state.health.clock_believed = offset_ms.is_some();
    let place = |unix: &mut Option<i64>, mono_ms: u64| {
        let right = offset_ms.map(|offset_ms| unix_at(mono_ms, offset_ms));
        // A difference of a second or two does not matter: times that were already shown stay.
        let near = unix.zip(right).is_some_and(|(one, other)| one.abs_diff(other) <= MIN_STEP_S);
        if !near {
            *unix = right;
        }
    };
    state.unsaved.batch.ticks.iter_mut().for_each(|tick| place(&mut tick.unix, tick.mono_ms));
    state.unsaved.events.iter_mut().for_each(|event| place(&mut event.unix, event.mono_ms));
}
