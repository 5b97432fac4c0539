//! The timer thread. It wakes on the monotonic clock without drift, reads every interface's counters once, and hands
//! what passed to `live`. It never waits for the disk or for a reader, and in the steady state allocates nothing.
//!
//! `step` is one turn: what is due is decided from the clock's reading alone, so that a test can run a year of turns.

mod identity;
mod inventory;
mod late;
mod missing;
mod orders;
mod others;
mod primary;
mod quiet;
mod reports;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BUILD_FLOOR, Clock, Keeper, Now};
use crate::counter::{self, Baseline, Between, Change};
use crate::detect::Wanted;
use crate::error::{Error, ErrorKind, Result};
use crate::live::{Collected, Database, Live, State, Tuning};
use crate::model::{Address, Anchor, Counters, Event, EventKind, IfaceId, Mark, Reading, Record};
use crate::model::{Sample, Stack, Tick, Width};
use crate::source::{LinkEvent, Source, Wake, Woken};

use identity::Newest;
use inventory::{Tracked, anew_detail};
use late::{Beginning, Waiting};
use missing::Missing;
use others::Remembered;
use primary::Primary;
use quiet::Quiet;
use reports::Birth;

/// One-second readings while somebody watches.
const FAST_MS: u64 = 1000;
/// With nothing due the sampler looks around this often at the least.
const LONGEST_SLEEP_MS: u64 = 3_600_000;
/// A flood of link events costs one look at all links a second.
const RELINK_MS: u64 = 1000;
/// The rate of a stretch shorter than this would be noise.
const SHORTEST_RATE_MS: u64 = 200;

/// Opens a source again after the one in use broke.
pub type Reopen = Box<dyn FnMut() -> Result<(Box<dyn Source>, Option<String>)> + Send>;

pub struct Sampler {
    source: Box<dyn Source>,
    reopen: Reopen,
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    keeper: Keeper,
    wanted: Wanted,
    stack: Stack,
    /// The time of the history's latest sample; the newest link as of that, and as of this run's looks.
    last_seen: i64,
    newest_before: Option<Newest>,
    noted: Option<Newest>,
    /// Present links, by ifindex.
    links: Vec<Tracked>,
    /// All interfaces that have a history, present or not.
    records: Vec<Record>,
    /// Links that were reported and not yet looked at.
    births: Vec<Birth>,
    /// Looks that did not wait their time, since the latest that did.
    hurried: u32,
    /// Links that the latest reports had go.
    left: Vec<u32>,
    /// Since the latest look, reports were lost.
    missed_reports: bool,
    /// As of the latest look.
    addresses: Vec<Address>,
    route: Option<u32>,
    quiet: Quiet,
    remembered: Remembered,
    /// Histories of links that are gone, of whose altnames a setting says something.
    spoken_of: Vec<IfaceId>,
    primary: Primary,
    missing: Missing,
    /// The disk's histories are known, and numbers are theirs.
    joined: bool,
    /// Until then: how each history of this run began.
    beginnings: Vec<Beginning>,
    /// First readings of which it is not decided whether they are booked: when the machine was started is not known yet.
    waiting: Vec<Waiting>,
    /// The clocks at the first turn.
    started_at: Option<Now>,
    next_seq: u64,
    /// The latest tick of links that have gone.
    last_words: Option<u64>,
    /// The highest number that a history of this run was given: those of forgotten ones are not given again, because
    /// what was said about them may still be on its way to the disk.
    last_id: IfaceId,
    readings: Vec<Reading>,
    reports: Vec<LinkEvent>,
    tuning: Tuning,
    /// Monotonic times; `None` for never.
    due_ms: Option<u64>,
    fast_due_ms: Option<u64>,
    relink_due_ms: Option<u64>,
    /// The latest look at all links; `None` before the first.
    looked_ms: Option<u64>,
    last_sample_ms: Option<u64>,
    /// The longest interval that has counted since that sample, at which one counted too.
    longest_interval_ms: u64,
    /// UTC milliseconds at monotonic zero, while the wall clock can be believed.
    offset_ms: Option<i64>,
    messages: Vec<String>,
    /// A beginning was made (a base, a history) that no sum on disk leads to.
    fresh: bool,
    /// A link that was left out is watched from now on: it has got another name, or people think otherwise of it.
    newly_watched: bool,
    /// Failed attempts at the sample that is due.
    attempts: u32,
    paused: bool,
}

impl Sampler {
    /// It begins with memory alone: what earlier runs have left is joined when it is there.
    pub fn new(
        source: Box<dyn Source>,
        reopen: Reopen,
        live: Arc<Live>,
        clock: Arc<dyn Clock>,
        stack: Stack,
    ) -> Sampler {
        let remembered = Remembered::new(&[], clock.now());
        let tuning = live.lock().tuning.clone();
        Sampler {
            source,
            reopen,
            live,
            clock,
            keeper: Keeper::new(BUILD_FLOOR, None),
            wanted: wanted(&tuning),
            stack,
            last_seen: 0,
            newest_before: None,
            noted: None,
            links: Vec::new(),
            records: Vec::new(),
            births: Vec::new(),
            hurried: 0,
            left: Vec::new(),
            missed_reports: false,
            addresses: Vec::new(),
            route: None,
            quiet: Quiet::default(),
            remembered,
            spoken_of: Vec::new(),
            primary: Primary::new(tuning.primary.clone()),
            missing: Missing::default(),
            joined: false,
            beginnings: Vec::new(),
            waiting: Vec::new(),
            started_at: None,
            next_seq: 1,
            last_words: None,
            last_id: 0,
            readings: Vec::new(),
            reports: Vec::new(),
            paused: !tuning.running,
            tuning,
            due_ms: None,
            fast_due_ms: None,
            relink_due_ms: None,
            looked_ms: None,
            last_sample_ms: None,
            longest_interval_ms: 0,
            offset_ms: None,
            messages: Vec::new(),
            fresh: false,
            newly_watched: false,
            attempts: 0,
        }
    }

    /// Turns until `live` says stop; then one last sample, so that a shutdown loses nothing. A history may still be opened
    /// at the end.
    pub fn run(mut self, wake: &Wake) {
        let mut woken = Woken::default();
        while !self.is_over() {
            let sleep = self.step(woken);
            woken = self.source.wait(sleep, wake);
        }
        let now = self.clock.now();
        if self.tuning.running && self.read().is_ok() {
            self.take_sample(now, None);
        }
    }

    fn is_over(&self) -> bool {
        let state = self.live.lock();
        state.wishes.stopping && state.health.database != Database::Absent
    }

    /// One turn; returns how long nothing is due.
    pub fn step(&mut self, woken: Woken) -> Duration {
        let now = self.clock.now();
        let earlier = self.live.lock().wishes.earlier.take();
        if let Some(earlier) = earlier {
            self.join(earlier, now);
        }
        self.keep_time(now);
        let first = self.started_at.is_none();
        if first {
            self.start(now);
        }
        if self.remembered.settles(now) {
            self.publish();
        }
        if woken.changed {
            self.hear(now);
        }
        if let Some(sentence) = self.quiet.sentence(now) {
            log::info!("{sentence}");
            self.event(now, EventKind::Appeared, "", sentence);
        }
        let passed = |due: Option<u64>| due.is_some_and(|due| now.mono_ms >= due);
        // A sample has the links that have come before it, also in a flood.
        let samples = passed(self.due_ms) || self.live.lock().wishes.collect.pending().is_some();
        let relinks = passed(self.relink_due_ms) || (samples && !self.births.is_empty());
        if relinks {
            self.relink(now);
        }
        let (collect, read, watched) = {
            let mut state = self.live.lock();
            state.inventory.ring.forget(now.mono_ms);
            (
                state.wishes.collect.pending(),
                state.wishes.read.pending(),
                state.inventory.ring.watched_until_ms > now.mono_ms,
            )
        };
        self.follow(now);
        self.obey_all(now);
        if first || relinks {
            self.take_the_only_one(now);
            self.show_primary();
        }
        if first || relinks || self.missing.is_due(&self.wanted, now) {
            self.look_for_missing(now);
        }
        self.fast_due_ms = watched.then(|| self.fast_due_ms.unwrap_or(now.mono_ms));

        let scheduled = passed(self.due_ms);
        // Counting begins now, and not with the next sample, which may be an hour away.
        let begins = std::mem::take(&mut self.newly_watched) && self.tuning.running;
        let sample_due = scheduled || begins || collect.is_some();
        let fast_due = passed(self.fast_due_ms);
        let primary_due = self.primary.due(now);
        if sample_due || fast_due || primary_due || read.is_some() {
            match self.read() {
                Ok(()) => {
                    self.observe(now, fast_due);
                    if sample_due {
                        self.take_sample(now, collect);
                        self.attempts = 0;
                        self.due_ms = self.next_due(now, !scheduled);
                    }
                    self.consider_primary(now);
                }
                Err(error) => self.failed(error, now, scheduled, collect.is_some()),
            }
            if collect.is_some() || read.is_some() {
                let wishes = &mut self.live.lock().wishes;
                wishes.collect.serve(collect.unwrap_or_default());
                wishes.read.serve(read.unwrap_or_default());
            }
        }
        if fast_due {
            let due = self.fast_due_ms.unwrap_or(now.mono_ms) + FAST_MS;
            self.fast_due_ms = Some(if due > now.mono_ms { due } else { now.mono_ms + FAST_MS });
        }
        self.sleep(now)
    }

    fn start(&mut self, now: Now) {
        self.started_at = Some(now);
        self.due_ms = self.tuning.running.then_some(now.mono_ms);
        self.primary.begin(now);
        {
            let mut state = self.live.lock();
            state.health.polls.started_mono_ms = now.mono_ms;
            state.inventory.source = self.source.name();
            let note = state.inventory.source_note.take();
            state.inventory.source_note = source_note(&self.stack, note);
            state.inventory.unknown = identity::unknown(&self.stack);
        }
        self.event(now, EventKind::Start, "", format!("net-pulse {} started", env!("CARGO_PKG_VERSION")));
        self.relink(now);
    }

    /// Deadlines follow each other by the interval, whatever the turn itself took; those that were slept through
    /// (a suspend) are left out.
    fn next_due(&self, now: Now, keep: bool) -> Option<u64> {
        if !self.tuning.running {
            return None;
        }
        let interval = self.interval_ms();
        let due = self.due_ms.unwrap_or(now.mono_ms);
        if keep {
            return Some(due);
        }
        let missed = now.mono_ms.saturating_sub(due) / interval;
        Some(due + (missed + 1) * interval)
    }

    fn interval_ms(&self) -> u64 {
        u64::from(self.tuning.interval_s) * 1000
    }

    /// What may lie between two samples by the schedule. An interval that was changed meanwhile counts, as does one that
    /// was changed and changed back.
    fn ordinary_ms(&self) -> u64 {
        self.interval_ms().max(self.longest_interval_ms)
    }

    fn sleep(&self, now: Now) -> Duration {
        let dues = [self.due_ms, self.fast_due_ms, self.relink_due_ms];
        let told = [self.primary.next_ms(), self.missing.next_ms(), self.quiet.next_ms()];
        let until = dues.into_iter().chain(told).flatten().min().unwrap_or(u64::MAX);
        Duration::from_millis(until.saturating_sub(now.mono_ms).min(LONGEST_SLEEP_MS))
    }

    /// Settings changed while running: in force from this turn on.
    fn follow(&mut self, now: Now) {
        let tuning = {
            let state = self.live.lock();
            if state.tuning == self.tuning {
                return;
            }
            state.tuning.clone()
        };
        let before = std::mem::replace(&mut self.tuning, tuning);
        self.longest_interval_ms = self.ordinary_ms();
        let others = wanted(&before) != wanted(&self.tuning);
        if others {
            // What was watched until now is booked; what is watched from now on begins now.
            if before.running && self.read().is_ok() {
                self.take_sample(now, None);
            }
            self.wanted = wanted(&self.tuning);
            self.judge_all();
            self.publish();
            self.due_ms = self.tuning.running.then_some(now.mono_ms);
        }
        if before.primary != self.tuning.primary {
            self.primary.choose(self.tuning.primary.clone(), now);
        }
        if others {
            self.consider_primary(now);
        }
        if before.running && !self.tuning.running {
            // What passed until now is booked; what passes from now on is not.
            if self.read().is_ok() {
                self.take_sample(now, None);
            }
            self.paused = true;
            self.forget_bases();
            self.due_ms = None;
            self.event(
                now,
                EventKind::Stop,
                "",
                "collection was stopped: nothing is booked until it is started".into(),
            );
        } else if !before.running && self.tuning.running {
            self.paused = false;
            self.due_ms = Some(now.mono_ms);
            self.live.lock().health.polls.sampled_mono_ms = Some(now.mono_ms);
            self.event(now, EventKind::Gap, "", "collection was started again: the pause is not booked".into());
        } else if before.interval_s != self.tuning.interval_s && self.tuning.running {
            self.due_ms = Some(self.last_sample_ms.unwrap_or(now.mono_ms) + self.interval_ms());
            self.attempts = 0;
        }
    }

    fn read(&mut self) -> Result<()> {
        let error = match self.source.read(&mut self.readings) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.kind != ErrorKind::Unsupported {
            return Err(error);
        }
        log::warn!("{}: {error}; looking for another source", self.source.name());
        let (source, note) = (self.reopen)()?;
        self.source = source;
        {
            let mut state = self.live.lock();
            state.inventory.source = self.source.name();
            state.inventory.source_note = source_note(&self.stack, Some(note.unwrap_or_else(|| error.to_string())));
        }
        self.relink_due_ms = Some(0);
        self.source.read(&mut self.readings)
    }

    /// A scheduled sample has further attempts. One that somebody asked for has its answer, and the schedule stays.
    fn failed(&mut self, error: Error, now: Now, scheduled: bool, asked: bool) {
        let again = scheduled && self.attempts < self.tuning.max_retries;
        if again {
            self.attempts += 1;
            self.due_ms = Some(now.mono_ms + u64::from(self.tuning.retry_delay_ms));
        } else if scheduled {
            self.attempts = 0;
            self.due_ms = self.next_due(now, false);
        }
        let mut state = self.live.lock();
        let polls = &mut state.health.polls;
        polls.errors += 1;
        polls.last_error = Some(error.to_string());
        if !asked && (again || !scheduled) {
            return;
        }
        polls.total += 1;
        polls.failed += 1;
        polls.consecutive_failures += 1;
        polls.last = Some(now.unix_ms.div_euclid(1000));
        let failures = polls.consecutive_failures;
        if asked {
            state.wishes.collected = Collected { interfaces: 0, errors: vec![error.to_string()] };
        }
        drop(state);
        // Once is news; the rest is in the health answer.
        if failures == 1 {
            log::error!("reading counters from {} failed: {error}", self.source.name());
        }
    }

    /// The latest counters and rates, for whoever looks; nothing of it is kept.
    fn observe(&mut self, now: Now, ring: bool) {
        let mut state = self.live.lock();
        let state = &mut *state;
        let mut at = 0;
        for reading in &self.readings {
            while at < self.links.len() && self.links[at].link.ifindex < reading.ifindex {
                at += 1;
            }
            let Some(tracked) = self.links.get_mut(at).filter(|link| link.link.ifindex == reading.ifindex) else {
                continue;
            };
            tracked.observe(reading, now);
            if let Some(iface) = state.inventory.interfaces.get_mut(tracked.slot) {
                iface.raw = reading.counters;
                iface.rates = tracked.rates;
            }
        }
        if ring {
            let unix = now.unix_ms.div_euclid(1000);
            // The mean since some time ago is not the rate of this second.
            let fresh = |tracked: &&Tracked| tracked.rates.filter(|_| tracked.rates_ms <= 2 * FAST_MS);
            let watched = self.links.iter().filter(|tracked| tracked.watched());
            state.inventory.ring.push(unix, watched.map(|tracked| (tracked.link.ifindex, fresh(&tracked))));
        }
    }

    /// Follows the clocks; what waited for a believable wall time gets it.
    fn keep_time(&mut self, now: Now) {
        let step = self.keeper.observe(now);
        self.offset_ms = step.offset_ms;
        if let Some(stepped) = step.stepped_ms {
            let detail = step_detail(stepped);
            log::warn!("{detail}");
            self.event(now, EventKind::ClockStep, "", detail);
        }
        let live = self.live.clone();
        let mut state = live.lock();
        state.health.clock_believed = step.offset_ms.is_some();
        if let Some(offset_ms) = step.offset_ms {
            self.book_since_boot(now, &mut state);
            place(&mut state, offset_ms);
        }
    }

    /// UTC seconds, where they can be believed.
    fn unix(&self, now: Now) -> Option<i64> {
        self.offset_ms.map(|offset_ms| unix_at(now.mono_ms, offset_ms))
    }

    /// Books what passed since the previous sample.
    fn take_sample(&mut self, now: Now, collect: Option<u64>) {
        let ordinary_ms = self.ordinary_ms();
        let unix = self.unix(now);
        let live = self.live.clone();
        let mut guard = live.lock();
        let state = &mut *guard;
        let seq = self.next_seq;
        let (samples_before, anchors_before) = (state.unsaved.batch.samples.len(), state.unsaved.anchors.len());
        let mut taken = 0;
        let mut at = 0;
        for index in 0..self.readings.len() {
            let reading = self.readings[index];
            while at < self.links.len() && self.links[at].link.ifindex < reading.ifindex {
                at += 1;
            }
            let there = self.links.get(at).is_some_and(|link| link.link.ifindex == reading.ifindex);
            if there && !self.paused {
                taken += usize::from(self.book(at, &reading, now, seq, ordinary_ms, state));
            }
        }
        if state.unsaved.batch.samples.len() > samples_before || state.unsaved.anchors.len() > anchors_before {
            let end = state.unsaved.batch.samples.len();
            state.unsaved.batch.ticks.push(Tick { seq, mono_ms: now.mono_ms, unix, end });
            self.next_seq += 1;
        }
        self.book_since_boot(now, state);
        state.bound();
        let polls = &mut state.health.polls;
        // A beginning is on disk at once: after a crash the same-boot rule counts from there.
        let save = std::mem::take(&mut self.fresh);
        polls.total += 1;
        polls.successful += 1;
        polls.consecutive_failures = 0;
        polls.last_error = None;
        polls.last = Some(now.unix_ms.div_euclid(1000));
        polls.last_successful = polls.last;
        polls.sampled_mono_ms = Some(now.mono_ms);
        if collect.is_some() {
            let errors =
                if self.paused { vec!["collection is stopped: nothing was booked".to_string()] } else { Vec::new() };
            state.wishes.collected = Collected { interfaces: taken, errors };
        }
        state.wishes.save_now |= save;
        drop(guard);
        if save {
            self.fold_excess();
        }
        if let Some(unix) = unix {
            self.keeper.placed(unix);
        }
        self.longest_interval_ms = self.interval_ms();
        self.last_sample_ms = Some(now.mono_ms);
        for message in self.messages.drain(..) {
            log::info!("{message}");
        }
    }

    /// One interface at one tick. True if it is watched and was there.
    fn book(&mut self, at: usize, reading: &Reading, now: Now, seq: u64, ordinary_ms: u64, state: &mut State) -> bool {
        if !self.links[at].watched() {
            return false;
        }
        let tracked = &mut self.links[at];
        let Some(base) = &mut tracked.base else {
            let new = tracked.id.is_none();
            let since_boot = tracked.since_boot.take();
            tracked.rebase(reading.counters, now);
            self.fresh = true;
            self.show_active(at, state);
            self.anchor(at, seq, state);
            if new && !self.joined {
                self.beginnings.extend(self.beginning(at, reading, now, seq));
            }
            if let (Some(boot), Some(first)) = (since_boot, self.beginning(at, reading, now, seq)) {
                self.waiting.push(Waiting { first, boot });
            }
            return true;
        };
        let elapsed_ms = now.mono_ms.saturating_sub(tracked.base_ms);
        let between = Between { elapsed_ms, speed_mbit: tracked.link.speed, width: reading.width };
        let (before, was_blind) = (base.counters, base.is_blind());
        let change = base.advance(&reading.counters, &between);
        if change == Change::Held {
            return true;
        }
        // One that fell is another link's, or of an earlier boot.
        let foreign = std::mem::take(&mut tracked.unsure) && !matches!(change, Change::Plain(_));
        if foreign {
            *base = Baseline::new(reading.counters);
        }
        let blind = was_blind || base.is_blind();
        let after = base.counters;
        let mark = match tracked.mark.take() {
            Some(mark) => mark,
            None if elapsed_ms > ordinary_ms * 5 / 2 || blind => Mark::Gap,
            None => Mark::Plain,
        };
        let first = !tracked.active;
        tracked.base_ms = now.mono_ms;
        tracked.active |= !after.is_zero();
        if first && !tracked.active {
            // Nothing has ever moved here: nothing to keep, but that it stood at zero, for a start that finds it moved.
            if !tracked.anchored {
                self.fresh = true;
                self.anchor(at, seq, state);
            }
            return true;
        }
        let (mark, delta) = if foreign { (Mark::Gap, Counters::ZERO) } else { outcome(&change, mark) };
        let sum = Counters(std::array::from_fn(|at| before.0[at].wrapping_add(delta.0[at])));
        let anchored = first || mark != Mark::Plain || sum != after;
        if first {
            self.show_active(at, state);
        }
        let id = self.identify(at, state, now);
        let tracked = &mut self.links[at];
        tracked.lifetime.add(&delta);
        state.unsaved.batch.samples.push(Sample { iface: id, mark, span_ms: elapsed_ms, delta });
        if let Some(iface) = state.inventory.interfaces.get_mut(tracked.slot) {
            iface.lifetime = tracked.lifetime;
        }
        let told = match foreign {
            true => Some((EventKind::Gap, anew_detail("its counters have fallen since the latest sample"))),
            false => account(&change, mark, elapsed_ms, ordinary_ms),
        };
        let mut is_news = |kind: EventKind| match kind {
            EventKind::Dip => tracked.tells_dip(now),
            // One of many that come and go under the same name.
            EventKind::Reset if tracked.born => self.quiet.tells(now),
            _ => true,
        };
        if let Some((kind, detail)) = told.filter(|(kind, _)| is_news(*kind)) {
            // Logged once the lock is free: standard error may block.
            let interface = tracked.link.name.clone();
            self.messages.push(format!("{interface}: {detail}"));
            state.unsaved.event(Event { unix: self.unix(now), mono_ms: now.mono_ms, kind, interface, detail });
        }
        if anchored {
            self.anchor(at, seq, state);
        }
        true
    }

    /// The last that the kernel told of a link: what has passed since its latest sample.
    pub(super) fn book_last(&mut self, at: usize, counters: Counters, now: Now) {
        if self.paused {
            return;
        }
        // What falls now, and not by a rollover, falls because the link is being taken apart (one end of a veth counts at the
        // other): no reset.
        let tracked = &self.links[at];
        let base = tracked.base.unwrap_or(Baseline::new(counters));
        let elapsed_ms = now.mono_ms.saturating_sub(tracked.base_ms);
        let between = Between { elapsed_ms, speed_mbit: tracked.link.speed, width: Width::Bits64 };
        let counters = match base.clone().advance(&counters, &between) {
            Change::Wrap(_) => counters,
            _ => Counters(std::array::from_fn(|at| counters.0[at].max(base.counters.0[at]))),
        };
        let reading = Reading { ifindex: self.links[at].link.ifindex, counters, width: Width::Bits64 };
        let unix = self.unix(now);
        let live = self.live.clone();
        let mut state = live.lock();
        let before = state.unsaved.batch.samples.len();
        // What begins and ends here is nothing that a start after a crash could go on with.
        let fresh = self.fresh;
        // A tick for each of a thousand links a second would take more memory than what they carried.
        let id = self.id_of(at);
        let same = state.unsaved.batch.ticks.last().copied().filter(|tick| self.is_joined_by(tick, now));
        let alone = |tick: &Tick| {
            let from = state.unsaved.batch.ticks.len().checked_sub(2).map_or(0, |at| state.unsaved.batch.ticks[at].end);
            !state.unsaved.batch.samples[from..tick.end].iter().any(|sample| Some(sample.iface) == id)
        };
        let same = same.filter(alone);
        let seq = same.map_or(self.next_seq, |tick| tick.seq);
        self.book(at, &reading, now, seq, self.ordinary_ms(), &mut state);
        self.fresh = fresh;
        let end = state.unsaved.batch.samples.len();
        match state.unsaved.batch.ticks.last_mut().filter(|_| same.is_some()) {
            Some(tick) => tick.end = end,
            None if end > before => {
                state.unsaved.batch.ticks.push(Tick { seq, mono_ms: now.mono_ms, unix, end });
                self.last_words = Some(seq);
                self.next_seq += 1;
            }
            None => {}
        }
        state.bound();
    }

    /// The latest tick is one of last words too, and of this second.
    fn is_joined_by(&self, tick: &Tick, now: Now) -> bool {
        self.last_words == Some(tick.seq) && now.mono_ms < tick.mono_ms + 1000
    }

    fn show_active(&self, at: usize, state: &mut State) {
        let tracked = &self.links[at];
        if let Some(iface) = state.inventory.interfaces.get_mut(tracked.slot).filter(|_| tracked.active) {
            iface.monitored = true;
            iface.ignored_because = None;
        }
    }

    fn anchor(&mut self, at: usize, seq: u64, state: &mut State) {
        let now = Now { mono_ms: self.links[at].base_ms, unix_ms: 0 };
        let iface = self.identify(at, state, now);
        self.adopt(at, state);
        self.links[at].anchored = true;
        let raw = self.links[at].base.map_or(Counters::ZERO, |base| base.counters);
        state.unsaved.anchors.push(Anchor { seq, iface, raw });
    }

    fn event(&self, now: Now, kind: EventKind, interface: &str, detail: String) {
        let event = self.told(now, kind, interface, detail);
        self.live.lock().unsaved.event(event);
    }

    fn told(&self, now: Now, kind: EventKind, interface: &str, detail: String) -> Event {
        Event { unix: self.unix(now), mono_ms: now.mono_ms, kind, interface: interface.to_string(), detail }
    }

    fn id_of(&self, at: usize) -> Option<IfaceId> {
        self.links[at].id
    }
}

fn wanted(tuning: &Tuning) -> Wanted {
    let Tuning { interfaces, ignored, primary, .. } = tuning;
    Wanted { interfaces: interfaces.clone(), ignored: ignored.clone(), primary: primary.clone() }
}

/// The link of this name. An altname serves where no link has that for its own name.
fn find<'a>(links: &'a [Tracked], name: &str) -> Option<&'a Tracked> {
    let own = links.iter().find(|tracked| tracked.link.name == name);
    own.or_else(|| links.iter().find(|tracked| tracked.link.altnames.iter().any(|altname| altname == name)))
}

/// What is booked for a change that nothing else is known of than `mark`.
fn outcome(change: &Change, mark: Mark) -> (Mark, Counters) {
    match *change {
        Change::Plain(delta) | Change::Wrap(delta) | Change::Dip { delta, .. } => (mark, delta),
        Change::Reset(delta) => (Mark::Reset, delta),
        Change::Implausible(_) | Change::Held => (Mark::Gap, Counters::ZERO),
    }
}

/// What to tell of a sample that is more than a difference.
fn account(change: &Change, mark: Mark, elapsed_ms: u64, ordinary_ms: u64) -> Option<(EventKind, String)> {
    let seconds = elapsed_ms / 1000;
    match (change, mark) {
        (Change::Wrap(_), _) => Some((EventKind::Wrap, "a counter went past its top and on from zero".to_string())),
        (Change::Dip { fell, .. }, _) => {
            let names = counter::names(fell);
            Some((
                EventKind::Dip,
                format!("{names} fell, and the link was not made anew: nothing is booked for the fall"),
            ))
        }
        (Change::Reset(_), _) | (_, Mark::Reset) => {
            Some((EventKind::Reset, "the counters began again from zero".to_string()))
        }
        (Change::Implausible(bytes), _) => {
            let detail = format!("{bytes} bytes in {seconds} s are more than a link can carry: not booked");
            Some((EventKind::Implausible, detail))
        }
        // A restart within the interval has missed nothing.
        (_, Mark::Gap) if elapsed_ms > ordinary_ms => {
            Some((EventKind::Gap, format!("nobody looked for {seconds} s; what passed is booked to that time")))
        }
        _ => None,
    }
}

/// Why not a better source, and what is not known of the machine.
fn source_note(stack: &Stack, note: Option<String>) -> Option<String> {
    let notes: Vec<String> = note.into_iter().chain(identity::unknown(stack).map(str::to_string)).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

fn step_detail(stepped_ms: i64) -> String {
    let direction = if stepped_ms < 0 { "back" } else { "forward" };
    format!("the clock was set {direction} by {} s", stepped_ms.unsigned_abs() / 1000)
}

fn unix_at(mono_ms: u64, offset_ms: i64) -> i64 {
    i64::try_from(mono_ms).unwrap_or(i64::MAX).saturating_add(offset_ms).div_euclid(1000)
}

/// Gives every tick and event that has none its wall time.
fn place(state: &mut State, offset_ms: i64) {
    for tick in state.unsaved.batch.ticks.iter_mut().filter(|tick| tick.unix.is_none()) {
        tick.unix = Some(unix_at(tick.mono_ms, offset_ms));
    }
    // The writer has events too: one without a time may lie before one that has it.
    for event in state.unsaved.events.iter_mut().filter(|event| event.unix.is_none()) {
        event.unix = Some(unix_at(event.mono_ms, offset_ms));
    }
}
