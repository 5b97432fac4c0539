//! Connects this run's memory to the stored history once the database is open. Until then interfaces and ticks have ids
//! of this run only. The rejoin renumbers everything in memory as if the history had been known from the start: each
//! interface gets the id of its stored history, ticks follow the last stored tick, and traffic between the stored
//! history and this run is added to this run's first tick. Usually the database opens before anything is counted, and
//! there is nothing to renumber. Nothing here waits for the disk.

use super::identity::{self, BootCheck, Continuation, LinkIdentity, NewestLink, Resume, StartPoint, ThisRun};
use super::inventory::{fresh_start_detail, had_traffic, queue_record};
use super::others::GracePeriod;
use super::{Sampler, change_event, clock_step_detail, quality_and_delta, unix_at, watch_settings};
use crate::clock::{BUILD_FLOOR, Now, WallClock};
use crate::coarsen;
use crate::counter::{Baseline, Comparison, ReadingInterval};
use crate::live::{Database, State, StoredHistory};
use crate::model::{Batch, Counters, Event, EventKind, IfaceId, InterfaceKind, Reading, Record, SampleQuality};
use crate::model::{Sample, Tick, Width};

/// First reading of an interface in this run. It only set the baseline: whether traffic before it counts is decided
/// later.
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
    pub boot_check: BootCheck,
}

/// The stored interface that an interface of this run becomes.
struct Renumbering {
    run_id: IfaceId,
    stored_id: IfaceId,
    /// Lifetime of the stored interface, with the traffic from its latest stored sample to this run's first reading.
    lifetime: Counters,
    had_traffic: bool,
}

/// Traffic between the latest stored sample and this run's first reading.
struct MissedSample {
    seq: u64,
    mono_ms: u64,
    sample: Sample,
}

/// Settings that one run saves for the next one; the user does not set them.
const NEXT_RUN_SETTINGS: [&str; 2] = ["primary_found", "newest_link"];

/// After the wall clock was judged again, a wall time that is wrong by more than this is corrected.
const MAX_TIME_ERROR_S: u64 = 2;

impl Sampler {
    pub(super) fn first_reading(&self, at: usize, reading: &Reading, now: Now, seq: u64) -> Option<FirstReading> {
        let tracked = &self.links[at];
        Some(FirstReading {
            id: tracked.id?,
            ifindex: reading.ifindex,
            counters: reading.counters,
            width: reading.width,
            speed_mbit: tracked.link.speed,
            mono_ms: now.mono_ms,
            seq,
        })
    }

    /// Decides whether the undecided first readings are counted from zero, once the wall clock is trusted.
    pub(super) fn decide_first_readings(&mut self, now: Now, state: &mut State) {
        let Some(offset_ms) = self.offset_ms.filter(|_| !self.undecided.is_empty()) else { return };
        let (boot_unix, now_unix) = (unix_at(0, offset_ms), unix_at(now.mono_ms, offset_ms));
        let mut missed = Vec::new();
        for UndecidedReading { first, boot_check } in std::mem::take(&mut self.undecided) {
            let Some(name) = self.records.iter().find(|record| record.id == first.id).map(|it| it.name.clone()) else {
                continue;
            };
            if let Some(why) = boot_check.fresh_start_reason(boot_unix, now_unix) {
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

    /// Adds an event with an earlier time: it was not known when it happened.
    fn insert_past_event(&self, state: &mut State, mono_ms: u64, kind: EventKind, interface: &str, detail: String) {
        let unix = self.offset_ms.map(|offset_ms| unix_at(mono_ms, offset_ms));
        state.unsaved.insert_event(Event { unix, mono_ms, kind, interface: interface.to_string(), detail });
    }

    /// Computes the traffic between a start point and a first reading. Adds it to `missed` as a sample, and reports
    /// what is unusual about it as an event.
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
            // This run already uses the reading as a baseline, so its zeros are taken as real: the second comparison
            // with the same reading decides.
            Comparison::AllZero => baseline.advance(&counters, &between),
            change => change,
        };
        if start.uncertain && !matches!(change, Comparison::Plain(_)) {
            self.report_fresh_start(name, "its counters have fallen since the latest sample", mono_ms, state);
            return Counters::ZERO;
        }
        let (quality, delta) = quality_and_delta(&change, start.quality);
        missed.push(MissedSample { seq, mono_ms, sample: Sample { iface: id, quality, span_ms, delta } });
        if let Some((kind, detail)) = change_event(&change, quality, span_ms, u64::from(self.active.interval_s) * 1000)
        {
            self.messages.push(format!("{name}: {detail}"));
            self.insert_past_event(state, mono_ms, kind, name, detail);
        }
        delta
    }

    /// Connects this run to the stored history. If the history is known at the start, there is nothing in memory to
    /// connect yet.
    pub(super) fn rejoin(&mut self, stored: StoredHistory, now: Now) {
        let live = self.live.clone();
        let StoredHistory { records, settings, next_seq, newest } = stored;
        let [primary_found, newest_link] = NEXT_RUN_SETTINGS.map(|key| settings.get(key).cloned().unwrap_or_default());
        let wall_clock = wall_clock(newest, &records, &self.stack.boot);
        let seq_shift = next_seq.saturating_sub(1);
        {
            let mut guard = live.lock();
            let state = &mut *guard;
            // If the stored settings say that collection is stopped, this run's samples are discarded, unless the user
            // has started or stopped collection in this run.
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
            let renumberings: Vec<Renumbering> = run_records
                .into_iter()
                .zip(continuations.by_ref())
                .map(|(record, continuation)| {
                    self.continue_record(record, continuation, state, &mut missed, &mut undecided)
                })
                .collect();
            self.insert_missed_samples(missed, state);
            self.renumber(&renumberings, seq_shift, state);
            for UndecidedReading { first, boot_check } in undecided {
                let id = renumberings.iter().find(|it| it.run_id == first.id).map_or(first.id, |it| it.stored_id);
                self.undecided.push(UndecidedReading {
                    first: FirstReading { id, seq: first.seq + seq_shift, ..first },
                    boot_check,
                });
            }
            let have_id: Vec<bool> = self.links.iter().map(|tracked| tracked.id.is_some()).collect();
            for (at, has_id) in have_id.into_iter().enumerate() {
                match has_id {
                    true => self.bind_record(at, state),
                    false => self.continue_link(at, continuations.next().flatten(), state),
                }
            }
            self.watch_settings = watch_settings(&state.active);
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
        // From now on ids are the same in memory and on disk, so readers may use both.
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

    /// Returns the stored history that each record of this run continues, followed by that of each link without a
    /// record. The rules are the same as at a start.
    fn continuations(&self, run_records: &[Record]) -> Vec<Option<Continuation>> {
        let first_reading = |id: IfaceId| self.first_readings.iter().find(|first_reading| first_reading.id == id);
        let known = run_records.iter().map(|record| LinkIdentity {
            ifindex: first_reading(record.id).map(|first_reading| first_reading.ifindex),
            // "others" belongs to no link, so it must not match a stored record by name.
            name: if record.kind == InterfaceKind::Others { "" } else { &record.name },
            mac: &record.mac,
            inode: record.inode,
        });
        let unnumbered = self.links.iter().filter(|tracked| tracked.id.is_none());
        let identities: Vec<LinkIdentity> =
            known.chain(unnumbered.map(|tracked| LinkIdentity::of(&tracked.link, tracked.arrival_seen))).collect();
        let records: Vec<&Record> = self.records.iter().collect();
        let this_run = ThisRun {
            stack: &self.stack,
            mono_ms: self.started_at.map_or(0, |started_at| started_at.mono_ms),
            newest: self.stored_newest_link,
            listed_ms: None,
            last_seen: self.last_seen,
        };
        identity::assign_histories(&identities, &records, &this_run)
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
            let renumbering =
                Renumbering { run_id: run_record.id, stored_id, lifetime: Counters::ZERO, had_traffic: false };
            let record = Record { id: stored_id, ..run_record };
            queue_record(state, record.clone());
            self.records.push(record);
            return renumbering;
        };
        let mut lifetime = stored.lifetime;
        // An interface that never had traffic has nothing to count.
        if let Some(first) = first_reading.filter(|first| had_traffic(&stored) || !first.counters.is_zero()) {
            if let Some(detail) = address_change.filter(|_| !matches!(resume, Resume::FreshStart(_))) {
                self.insert_past_event(state, first.mono_ms, EventKind::HardwareAddress, &run_record.name, detail);
            }
            match resume {
                Resume::From(start) => lifetime.add(&self.missed_delta(&first, &run_record.name, start, state, missed)),
                Resume::SinceBoot(boot_check) => undecided.push(UndecidedReading { first, boot_check }),
                Resume::FreshStart(why) => self.report_fresh_start(&run_record.name, why, first.mono_ms, state),
            }
        }
        if counters_from.name != run_record.name {
            let detail = format!("{} is now called {}", counters_from.name, run_record.name);
            self.insert_past_event(state, run_record.mono_ms, EventKind::Renamed, &run_record.name, detail);
        }
        let renumbering =
            Renumbering { run_id: run_record.id, stored_id: stored.id, lifetime, had_traffic: had_traffic(&stored) };
        lifetime.add(&run_record.lifetime);
        let Record { id, alias, first_seen, .. } = stored;
        let record = Record { id, alias, first_seen, lifetime, ..run_record };
        queue_record(state, record.clone());
        self.records.retain(|known| known.id != id);
        self.records.push(record);
        renumbering
    }

    /// Connects a link that has no id yet: it was not read so far, it is ignored, or collection is stopped.
    fn continue_link(&mut self, at: usize, continuation: Option<Continuation>, state: &mut State) {
        let Some(Continuation { record: stored, resume, .. }) = continuation else { return };
        let paused = self.paused;
        let tracked = &mut self.links[at];
        (tracked.id, tracked.anchored) = (Some(stored.id), false);
        tracked.had_traffic |= had_traffic(&stored);
        tracked.lifetime = stored.lifetime;
        if let Some(baseline) = &tracked.baseline {
            tracked.quality = Some(if baseline.counters.is_zero() { SampleQuality::Reset } else { SampleQuality::Gap });
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

    /// Adds each missed sample to the tick of its first reading, or to the next tick in memory: coarsening may have
    /// merged the tick into that one.
    fn insert_missed_samples(&mut self, mut missed: Vec<MissedSample>, state: &mut State) {
        if missed.is_empty() {
            return;
        }
        missed.sort_by_key(|missed| missed.seq);
        let mut missed = missed.into_iter().peekable();
        let mut merged = Batch::default();
        for (tick, samples) in state.unsaved.batch.iter() {
            let start = merged.samples.len();
            merged.samples.extend(samples);
            while let Some(MissedSample { sample, .. }) = missed.next_if(|missed| missed.seq <= tick.seq) {
                match merged.samples[start..].iter_mut().find(|known| known.iface == sample.iface) {
                    Some(known) => coarsen::merge_sample(known, &sample),
                    None => merged.samples.push(sample),
                }
            }
            merged.ticks.push(Tick { end: merged.samples.len(), ..*tick });
        }
        if let Some(mono_ms) = missed.peek().map(|missed| missed.mono_ms) {
            // No tick in memory follows the first reading, for example because the link was gone before its next
            // sample.
            merged.samples.extend(missed.map(|missed| missed.sample));
            let end = merged.samples.len();
            merged.ticks.push(Tick { seq: self.next_seq, mono_ms, unix: None, end });
            self.next_seq += 1;
        }
        state.unsaved.batch = merged;
    }

    /// Discards everything that this run has counted, and stops collection.
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

    /// Replaces the ids of this run by those on disk, and adds `seq_shift` to its tick numbers.
    fn renumber(&mut self, renumberings: &[Renumbering], seq_shift: u64, state: &mut State) {
        let find = |id: IfaceId| renumberings.iter().find(|renumbering| renumbering.run_id == id);
        let replace_id = |id: &mut IfaceId| *id = find(*id).map_or(*id, |renumbering| renumbering.stored_id);
        state.unsaved.batch.samples.iter_mut().for_each(|sample| replace_id(&mut sample.iface));
        state.unsaved.batch.ticks.iter_mut().for_each(|tick| tick.seq += seq_shift);
        for anchor in &mut state.unsaved.anchors {
            replace_id(&mut anchor.iface);
            anchor.seq += seq_shift;
        }
        for tracked in &mut self.links {
            let Some(renumbering) = tracked.id.and_then(find) else { continue };
            tracked.id = Some(renumbering.stored_id);
            tracked.had_traffic |= renumbering.had_traffic;
            let mut lifetime = renumbering.lifetime;
            lifetime.add(&tracked.lifetime);
            tracked.lifetime = lifetime;
            // The inventory may be read before it is published again.
            if let Some(iface) = state.inventory.interfaces.get_mut(tracked.inventory_index) {
                (iface.id, iface.lifetime) = (tracked.id, lifetime);
            }
        }
        for iface in state.inventory.interfaces.iter_mut().filter(|iface| !iface.present()) {
            iface.id.iter_mut().for_each(replace_id);
        }
        self.next_seq += seq_shift;
        self.final_tick_seq = None;
    }
}

/// Builds the wall clock from what earlier runs stored. On the same boot, the newest sample gives the wall time at a
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
    state.health.clock_trusted = offset_ms.is_some();
    let correct = |unix: &mut Option<i64>, mono_ms: u64| {
        let right = offset_ms.map(|offset_ms| unix_at(mono_ms, offset_ms));
        // A smaller difference does not matter: times that readers may have seen stay.
        let is_close = unix.zip(right).is_some_and(|(one, other)| one.abs_diff(other) <= MAX_TIME_ERROR_S);
        if !is_close {
            *unix = right;
        }
    };
    state.unsaved.batch.ticks.iter_mut().for_each(|tick| correct(&mut tick.unix, tick.mono_ms));
    state.unsaved.events.iter_mut().for_each(|event| correct(&mut event.unix, event.mono_ms));
}
