//! The sampler thread. It wakes on the monotonic clock without drift, and reads the counters of all links. What the
//! counters of a link have risen since its previous reading becomes a sample in `live`. It never waits for the disk or
//! for a reader, and allocates no memory while links and settings stay the same.
//!
//! `step` is one turn. It reads the clock once and does not sleep, so a test can run a year of turns.

mod commands;
mod event_limit;
mod identity;
mod inventory;
mod notifications;
mod others;
mod primary;
mod rejoin;
#[cfg(test)]
mod tests;
mod unmatched;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BUILD_FLOOR, Clock, Now, WallClock};
use crate::counter::{self, Baseline, Comparison, ReadingInterval};
use crate::detect::WatchSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::live::{ActiveSettings, Collected, Database, Live, State};
use crate::model::{Address, Anchor, Counters, Event, EventKind, IfaceId, Reading, Record, SampleQuality};
use crate::model::{NetworkStack, Sample, Tick, Width};
use crate::source::{LinkNotification, Source, Wake, Woken};

use event_limit::EventLimiter;
use identity::NewestLink;
use inventory::{Tracked, fresh_start_detail};
use notifications::NewLink;
use others::GracePeriod;
use primary::Primary;
use rejoin::{FirstReading, UndecidedReading};
use unmatched::ConfiguredNames;

/// Interval of readings while a client asks for the ring of one-second rates.
const RING_INTERVAL_MS: u64 = 1000;
/// Longest sleep while nothing is due.
const LONGEST_SLEEP_MS: u64 = 3_600_000;
/// In a flood of link notifications the links are listed at most once per this time.
const LISTING_INTERVAL_MS: u64 = 1000;
/// A rate over a shorter time would be noise.
const SHORTEST_RATE_MS: u64 = 200;

/// Opens the best working source after the current one failed for good. The text says why a better one is not used.
pub type Reopen = Box<dyn FnMut() -> Result<(Box<dyn Source>, Option<String>)> + Send>;

/// The sampler and its state between turns.
pub struct Sampler {
    source: Box<dyn Source>,
    reopen: Reopen,
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    wall_clock: WallClock,
    watch_settings: WatchSettings,
    stack: NetworkStack,
    /// UTC seconds of the sample that was stored last; 0 for none.
    last_seen: i64,
    /// The newest link, as an earlier run saved it.
    stored_newest_link: Option<NewestLink>,
    /// The newest link of this run's listings.
    newest_link: Option<NewestLink>,
    /// Present links, sorted by ifindex.
    links: Vec<Tracked>,
    /// Records of all known interfaces, present or absent.
    records: Vec<Record>,
    /// Links that a notification announced and that no listing has shown yet.
    new_links: Vec<NewLink>,
    /// Number of listings in a row that did not wait for `LISTING_INTERVAL_MS`.
    immediate_listings: u32,
    /// ifindexes of the links that the latest notifications reported as gone.
    gone_ifindexes: Vec<u32>,
    /// The kernel dropped notifications since the latest listing.
    notifications_lost: bool,
    /// Addresses and ifindex of the default route, as of the latest listing.
    addresses: Vec<Address>,
    route: Option<u32>,
    event_limiter: EventLimiter,
    grace: GracePeriod,
    /// Records of gone links that a setting names by an altname.
    pinned_by_altname: Vec<IfaceId>,
    primary: Primary,
    configured_names: ConfiguredNames,
    /// The stored history is loaded: ids and tick numbers are those of the database.
    rejoined: bool,
    /// Until `rejoined`: the first reading of each interface of this run.
    first_readings: Vec<FirstReading>,
    /// First readings that may have to be counted from zero. The decision needs the time of the boot, which is known
    /// once the wall clock is trusted.
    undecided: Vec<UndecidedReading>,
    /// Both clocks at the first turn.
    started_at: Option<Now>,
    next_seq: u64,
    /// Number of the latest tick that was made for final samples of gone links.
    final_tick_seq: Option<u64>,
    /// Highest id assigned in this run. Ids of forgotten interfaces are not assigned again, because data with them may
    /// still be on its way to the disk.
    highest_id: IfaceId,
    readings: Vec<Reading>,
    notifications: Vec<LinkNotification>,
    active: ActiveSettings,
    /// Monotonic deadlines of the next sample, reading for the ring, and listing; `None` for never.
    sample_due_ms: Option<u64>,
    ring_due_ms: Option<u64>,
    listing_due_ms: Option<u64>,
    /// Monotonic time of the latest listing; `None` before the first.
    listed_ms: Option<u64>,
    last_sample_ms: Option<u64>,
    /// The longest interval that was active since the latest sample.
    longest_interval_ms: u64,
    /// UTC milliseconds at monotonic zero; `None` while the wall clock is not trusted.
    offset_ms: Option<i64>,
    /// Log lines that wait until the lock of `live` is released.
    messages: Vec<String>,
    /// A first baseline or a new record has to be saved soon: the next run cannot compute it from saved samples.
    needs_save: bool,
    /// A link that was ignored is watched from now on, after a rename or a change of settings.
    newly_watched: bool,
    /// Failed attempts at the sample that is due.
    attempts: u32,
    /// Collection is stopped: readings are taken for rates, but nothing is counted.
    paused: bool,
}

impl Sampler {
    /// Starts with empty memory. `step` rejoins the stored history when the database is open.
    pub fn new(
        source: Box<dyn Source>,
        reopen: Reopen,
        live: Arc<Live>,
        clock: Arc<dyn Clock>,
        stack: NetworkStack,
    ) -> Sampler {
        let grace = GracePeriod::new(&[], clock.now());
        let active = live.lock().active.clone();
        Sampler {
            source,
            reopen,
            live,
            clock,
            wall_clock: WallClock::new(BUILD_FLOOR, None),
            watch_settings: watch_settings(&active),
            stack,
            last_seen: 0,
            stored_newest_link: None,
            newest_link: None,
            links: Vec::new(),
            records: Vec::new(),
            new_links: Vec::new(),
            immediate_listings: 0,
            gone_ifindexes: Vec::new(),
            notifications_lost: false,
            addresses: Vec::new(),
            route: None,
            event_limiter: EventLimiter::default(),
            grace,
            pinned_by_altname: Vec::new(),
            primary: Primary::new(active.primary.clone()),
            configured_names: ConfiguredNames::default(),
            rejoined: false,
            first_readings: Vec::new(),
            undecided: Vec::new(),
            started_at: None,
            next_seq: 1,
            final_tick_seq: None,
            highest_id: 0,
            readings: Vec::new(),
            notifications: Vec::new(),
            paused: !active.running,
            active,
            sample_due_ms: None,
            ring_due_ms: None,
            listing_due_ms: None,
            listed_ms: None,
            last_sample_ms: None,
            longest_interval_ms: 0,
            offset_ms: None,
            messages: Vec::new(),
            needs_save: false,
            newly_watched: false,
            attempts: 0,
        }
    }

    /// Runs turns until another thread requests a stop, then takes a last sample, so that a shutdown loses no traffic.
    /// A stop waits until the attempt to open the database has ended.
    pub fn run(mut self, wake: &Wake) {
        let mut woken = Woken::default();
        while !self.is_finished() {
            let sleep = self.step(woken);
            woken = self.source.wait(sleep, wake);
        }
        let now = self.clock.now();
        if self.active.running && self.read().is_ok() {
            self.take_sample(now, None);
        }
    }

    fn is_finished(&self) -> bool {
        let state = self.live.lock();
        state.pending.stopping && state.health.database != Database::NotRejoined
    }

    /// Runs one turn. Returns the time until something is due.
    pub fn step(&mut self, woken: Woken) -> Duration {
        let now = self.clock.now();
        let stored = self.live.lock().pending.stored_history.take();
        if let Some(stored) = stored {
            self.rejoin(stored, now);
        }
        self.update_wall_clock(now);
        let first = self.started_at.is_none();
        if first {
            self.start(now);
        }
        if self.grace.just_ended(now) {
            self.publish();
        }
        if woken.changed {
            self.take_notifications(now);
        }
        if let Some(summary) = self.event_limiter.summary(now) {
            log::info!("{summary}");
            self.add_event(now, EventKind::Appeared, "", summary);
        }
        let passed = |due: Option<u64>| due.is_some_and(|due| now.mono_ms >= due);
        // New links are listed before a sample, even in a flood, so that the sample includes them.
        let sampling = passed(self.sample_due_ms) || self.live.lock().pending.collect.newest_waiting().is_some();
        let listing_due = passed(self.listing_due_ms) || (sampling && !self.new_links.is_empty());
        if listing_due {
            self.list_links(now);
        }
        let (collect_ticket, refresh_ticket, ring_watched) = {
            let mut state = self.live.lock();
            state.inventory.ring.clear_if_unused(now.mono_ms);
            (
                state.pending.collect.newest_waiting(),
                state.pending.refresh.newest_waiting(),
                state.inventory.ring.watched_until_ms > now.mono_ms,
            )
        };
        self.apply_settings(now);
        self.apply_commands(now);
        if first || listing_due {
            self.choose_only_watched(now);
            self.publish_primary();
        }
        if first || listing_due || self.configured_names.is_due(&self.watch_settings, now) {
            self.check_unmatched(now);
        }
        self.ring_due_ms = ring_watched.then(|| self.ring_due_ms.unwrap_or(now.mono_ms));

        let scheduled = passed(self.sample_due_ms);
        // Counting of newly watched links starts now and not with the next sample, which may be an hour away.
        let starts_counting = std::mem::take(&mut self.newly_watched) && self.active.running;
        let sample_due = scheduled || starts_counting || collect_ticket.is_some();
        let ring_due = passed(self.ring_due_ms);
        let primary_due = self.primary.due(now);
        if sample_due || ring_due || primary_due || refresh_ticket.is_some() {
            match self.read() {
                Ok(()) => {
                    self.update_rates(now, ring_due);
                    if sample_due {
                        self.take_sample(now, collect_ticket);
                        self.attempts = 0;
                        self.sample_due_ms = self.next_due(now, !scheduled);
                    }
                    self.update_primary(now);
                }
                Err(error) => self.read_failed(error, now, scheduled, collect_ticket.is_some()),
            }
            if collect_ticket.is_some() || refresh_ticket.is_some() {
                let pending = &mut self.live.lock().pending;
                pending.collect.serve(collect_ticket.unwrap_or_default());
                pending.refresh.serve(refresh_ticket.unwrap_or_default());
            }
        }
        if ring_due {
            let due = self.ring_due_ms.unwrap_or(now.mono_ms) + RING_INTERVAL_MS;
            self.ring_due_ms = Some(if due > now.mono_ms { due } else { now.mono_ms + RING_INTERVAL_MS });
        }
        self.sleep_time(now)
    }

    fn start(&mut self, now: Now) {
        self.started_at = Some(now);
        self.sample_due_ms = self.active.running.then_some(now.mono_ms);
        self.primary.begin(now);
        {
            let mut state = self.live.lock();
            state.health.polls.started_mono_ms = now.mono_ms;
            state.inventory.source = self.source.name();
            let note = state.inventory.source_note.take();
            state.inventory.source_note = source_note(&self.stack, note);
            state.inventory.boot_id_note = identity::boot_id_note(&self.stack);
        }
        self.add_event(now, EventKind::Start, "", format!("net-pulse {} started", env!("CARGO_PKG_VERSION")));
        self.list_links(now);
    }

    /// The next deadline of a sample. Deadlines are one interval apart, however long the turn takes; deadlines missed
    /// during a suspend are skipped. `keep` leaves the present deadline as it is.
    fn next_due(&self, now: Now, keep: bool) -> Option<u64> {
        if !self.active.running {
            return None;
        }
        let interval = self.interval_ms();
        let due = self.sample_due_ms.unwrap_or(now.mono_ms);
        if keep {
            return Some(due);
        }
        let missed = now.mono_ms.saturating_sub(due) / interval;
        Some(due + (missed + 1) * interval)
    }

    fn interval_ms(&self) -> u64 {
        u64::from(self.active.interval_s) * 1000
    }

    /// The longest interval that was active since the latest sample, so a change of the interval, even one that was
    /// undone, does not look like a gap.
    fn scheduled_interval_ms(&self) -> u64 {
        self.interval_ms().max(self.longest_interval_ms)
    }

    fn sleep_time(&self, now: Now) -> Duration {
        let dues = [self.sample_due_ms, self.ring_due_ms, self.listing_due_ms];
        let more_dues = [self.primary.next_ms(), self.configured_names.next_ms(), self.event_limiter.next_ms()];
        let until = dues.into_iter().chain(more_dues).flatten().min().unwrap_or(u64::MAX);
        Duration::from_millis(until.saturating_sub(now.mono_ms).min(LONGEST_SLEEP_MS))
    }

    /// Applies settings that were changed since the last turn.
    fn apply_settings(&mut self, now: Now) {
        let active = {
            let state = self.live.lock();
            if state.active == self.active {
                return;
            }
            state.active.clone()
        };
        let before = std::mem::replace(&mut self.active, active);
        self.longest_interval_ms = self.scheduled_interval_ms();
        let selection_changed = watch_settings(&before) != watch_settings(&self.active);
        if selection_changed {
            // Takes a last sample with the old settings. Counting of newly watched interfaces starts now.
            if before.running && self.read().is_ok() {
                self.take_sample(now, None);
            }
            self.watch_settings = watch_settings(&self.active);
            self.update_watched_all();
            self.publish();
            self.sample_due_ms = self.active.running.then_some(now.mono_ms);
        }
        if before.primary != self.active.primary {
            self.primary.choose(self.active.primary.clone(), now);
        }
        if selection_changed {
            self.update_primary(now);
        }
        if before.running && !self.active.running {
            // Takes a last sample: the traffic until now is counted, later traffic is not.
            if self.read().is_ok() {
                self.take_sample(now, None);
            }
            self.paused = true;
            self.clear_baselines();
            self.sample_due_ms = None;
            self.add_event(
                now,
                EventKind::Stop,
                "",
                "collection was stopped: traffic is not counted until it is started again".into(),
            );
        } else if !before.running && self.active.running {
            self.paused = false;
            self.sample_due_ms = Some(now.mono_ms);
            self.live.lock().health.polls.sampled_mono_ms = Some(now.mono_ms);
            self.add_event(
                now,
                EventKind::Gap,
                "",
                "collection was started again: traffic during the pause is not counted".into(),
            );
        } else if before.interval_s != self.active.interval_s && self.active.running {
            self.sample_due_ms = Some(self.last_sample_ms.unwrap_or(now.mono_ms) + self.interval_ms());
            self.attempts = 0;
        }
    }

    /// Reads all counters into `readings`. Opens another source if the current one failed for good.
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
        self.listing_due_ms = Some(0);
        self.source.read(&mut self.readings)
    }

    /// Handles a failed reading. A scheduled sample is tried again up to `max_retries` times. A requested sample fails
    /// at once and does not change the schedule.
    fn read_failed(&mut self, error: Error, now: Now, scheduled: bool, requested: bool) {
        let retry = scheduled && self.attempts < self.active.max_retries;
        if retry {
            self.attempts += 1;
            self.sample_due_ms = Some(now.mono_ms + u64::from(self.active.retry_delay_ms));
        } else if scheduled {
            self.attempts = 0;
            self.sample_due_ms = self.next_due(now, false);
        }
        let mut state = self.live.lock();
        let polls = &mut state.health.polls;
        polls.errors += 1;
        polls.last_error = Some(error.to_string());
        if !requested && (retry || !scheduled) {
            return;
        }
        polls.total += 1;
        polls.failed += 1;
        polls.consecutive_failures += 1;
        polls.last = Some(now.unix_ms.div_euclid(1000));
        let failures = polls.consecutive_failures;
        if requested {
            state.pending.collected = Collected { interfaces: 0, errors: vec![error.to_string()] };
        }
        drop(state);
        // Only the first of several failures in a row is logged; `/api/system/health` counts the others.
        if failures == 1 {
            log::error!("reading counters from {} failed: {error}", self.source.name());
        }
    }

    /// Updates the latest counters and rates, which are shown and not stored. `ring`: also adds the rates to the ring.
    fn update_rates(&mut self, now: Now, ring: bool) {
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
            tracked.update_rate(reading, now);
            if let Some(iface) = state.inventory.interfaces.get_mut(tracked.inventory_index) {
                iface.raw = reading.counters;
                iface.rates = tracked.rates;
            }
        }
        if ring {
            let unix = now.unix_ms.div_euclid(1000);
            // A mean over a longer time is not the rate of this second.
            let recent = |tracked: &&Tracked| tracked.rates.filter(|_| tracked.rates_span_ms <= 2 * RING_INTERVAL_MS);
            let watched = self.links.iter().filter(|tracked| tracked.watched());
            state.inventory.ring.push(unix, watched.map(|tracked| (tracked.link.ifindex, recent(&tracked))));
        }
    }

    /// Checks the wall clock. Once it is trusted, ticks and events without a wall time get one.
    fn update_wall_clock(&mut self, now: Now) {
        let step = self.wall_clock.observe(now);
        self.offset_ms = step.offset_ms;
        if let Some(stepped) = step.stepped_ms {
            let detail = clock_step_detail(stepped);
            log::warn!("{detail}");
            self.add_event(now, EventKind::ClockStep, "", detail);
        }
        let live = self.live.clone();
        let mut state = live.lock();
        state.health.clock_trusted = step.offset_ms.is_some();
        if let Some(offset_ms) = step.offset_ms {
            self.decide_first_readings(now, &mut state);
            set_wall_times(&mut state, offset_ms);
        }
    }

    /// UTC seconds; `None` while the wall clock is not trusted.
    fn unix(&self, now: Now) -> Option<i64> {
        self.offset_ms.map(|offset_ms| unix_at(now.mono_ms, offset_ms))
    }

    /// Adds a sample of each watched interface to a new tick. `collect_ticket`: the request of a client for this
    /// sample.
    fn take_sample(&mut self, now: Now, collect_ticket: Option<u64>) {
        let scheduled_interval_ms = self.scheduled_interval_ms();
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
            let is_listed = self.links.get(at).is_some_and(|link| link.link.ifindex == reading.ifindex);
            if is_listed && !self.paused {
                taken += usize::from(self.add_sample(at, &reading, now, seq, scheduled_interval_ms, state));
            }
        }
        if state.unsaved.batch.samples.len() > samples_before || state.unsaved.anchors.len() > anchors_before {
            let end = state.unsaved.batch.samples.len();
            state.unsaved.batch.ticks.push(Tick { seq, mono_ms: now.mono_ms, unix, end });
            self.next_seq += 1;
        }
        self.decide_first_readings(now, state);
        state.limit_memory();
        let polls = &mut state.health.polls;
        // A first baseline is saved at once: after a crash the next run on the same boot continues from it.
        let save = std::mem::take(&mut self.needs_save);
        polls.total += 1;
        polls.successful += 1;
        polls.consecutive_failures = 0;
        polls.last_error = None;
        polls.last = Some(now.unix_ms.div_euclid(1000));
        polls.last_successful = polls.last;
        polls.sampled_mono_ms = Some(now.mono_ms);
        if collect_ticket.is_some() {
            let errors =
                if self.paused { vec!["collection is stopped: nothing was counted".to_string()] } else { Vec::new() };
            state.pending.collected = Collected { interfaces: taken, errors };
        }
        state.pending.save_now |= save;
        drop(guard);
        if save {
            self.merge_excess();
        }
        if let Some(unix) = unix {
            self.wall_clock.tick_dated(unix);
        }
        self.longest_interval_ms = self.interval_ms();
        self.last_sample_ms = Some(now.mono_ms);
        for message in self.messages.drain(..) {
            log::info!("{message}");
        }
    }

    /// Adds the sample of one interface to one tick. Returns whether the interface is watched.
    fn add_sample(
        &mut self,
        at: usize,
        reading: &Reading,
        now: Now,
        seq: u64,
        scheduled_interval_ms: u64,
        state: &mut State,
    ) -> bool {
        if !self.links[at].watched() {
            return false;
        }
        let tracked = &mut self.links[at];
        let Some(baseline) = &mut tracked.baseline else {
            let new = tracked.id.is_none();
            let since_boot = tracked.since_boot.take();
            tracked.set_baseline(reading.counters, now);
            self.needs_save = true;
            self.publish_monitored(at, state);
            self.add_anchor(at, seq, state);
            if new && !self.rejoined {
                self.first_readings.extend(self.first_reading(at, reading, now, seq));
            }
            if let (Some(boot_check), Some(first)) = (since_boot, self.first_reading(at, reading, now, seq)) {
                self.undecided.push(UndecidedReading { first, boot_check });
            }
            return true;
        };
        let elapsed_ms = now.mono_ms.saturating_sub(tracked.baseline_ms);
        let between = ReadingInterval { elapsed_ms, speed_mbit: tracked.link.speed, width: reading.width };
        let (before, bytes_fell_before) = (baseline.counters, baseline.bytes_fell());
        let change = baseline.advance(&reading.counters, &between);
        if change == Comparison::AllZero {
            return true;
        }
        // A change that is not plain proves that an uncertain baseline belongs to another link or an earlier boot.
        let is_foreign = std::mem::take(&mut tracked.uncertain) && !matches!(change, Comparison::Plain(_));
        if is_foreign {
            *baseline = Baseline::new(reading.counters);
        }
        let bytes_uncertain = bytes_fell_before || baseline.bytes_fell();
        let after = baseline.counters;
        // One missed reading makes no gap, two do.
        let quality = match tracked.quality.take() {
            Some(quality) => quality,
            None if elapsed_ms > scheduled_interval_ms * 5 / 2 || bytes_uncertain => SampleQuality::Gap,
            None => SampleQuality::Plain,
        };
        let was_idle = !tracked.had_traffic;
        tracked.baseline_ms = now.mono_ms;
        tracked.had_traffic |= !after.is_zero();
        if was_idle && !tracked.had_traffic {
            // No counter has ever moved, so there is no sample. The anchor tells the next run that the counters were
            // zero here.
            if !tracked.anchored {
                self.needs_save = true;
                self.add_anchor(at, seq, state);
            }
            return true;
        }
        let (quality, delta) =
            if is_foreign { (SampleQuality::Gap, Counters::ZERO) } else { quality_and_delta(&change, quality) };
        let sum = Counters(std::array::from_fn(|at| before.0[at].wrapping_add(delta.0[at])));
        let needs_anchor = was_idle || quality != SampleQuality::Plain || sum != after;
        if was_idle {
            self.publish_monitored(at, state);
        }
        let id = self.ensure_id(at, state, now);
        let tracked = &mut self.links[at];
        tracked.lifetime.add(&delta);
        state.unsaved.batch.samples.push(Sample { iface: id, quality, span_ms: elapsed_ms, delta });
        if let Some(iface) = state.inventory.interfaces.get_mut(tracked.inventory_index) {
            iface.lifetime = tracked.lifetime;
        }
        let event = match is_foreign {
            true => Some((EventKind::Gap, fresh_start_detail("its counters have fallen since the latest sample"))),
            false => change_event(&change, quality, elapsed_ms, scheduled_interval_ms),
        };
        let mut may_report = |kind: EventKind| match kind {
            EventKind::Dip => tracked.may_report_dip(now),
            // A link that is created again and again under the same name must not fill the list of events.
            EventKind::Reset if tracked.arrival_seen => self.event_limiter.allows(now),
            _ => true,
        };
        if let Some((kind, detail)) = event.filter(|(kind, _)| may_report(*kind)) {
            // Logged after the lock is released: writing to standard error may block.
            let interface = tracked.link.name.clone();
            self.messages.push(format!("{interface}: {detail}"));
            state.unsaved.add_event(Event { unix: self.unix(now), mono_ms: now.mono_ms, kind, interface, detail });
        }
        if needs_anchor {
            self.add_anchor(at, seq, state);
        }
        true
    }

    /// Adds the last sample of a link, from the counters in the kernel's notification that the link is gone.
    pub(super) fn add_final_sample(&mut self, at: usize, counters: Counters, now: Now) {
        if self.paused {
            return;
        }
        // A counter that falls here, and not by a wrap, is no reset: the kernel is removing the link. (One end of a
        // veth takes its received bytes from the counters of the other end, which the kernel removes first.)
        let tracked = &self.links[at];
        let baseline = tracked.baseline.unwrap_or(Baseline::new(counters));
        let elapsed_ms = now.mono_ms.saturating_sub(tracked.baseline_ms);
        let between = ReadingInterval { elapsed_ms, speed_mbit: tracked.link.speed, width: Width::Bits64 };
        let counters = match baseline.clone().advance(&counters, &between) {
            Comparison::Wrap(_) => counters,
            _ => Counters(std::array::from_fn(|at| counters.0[at].max(baseline.counters.0[at]))),
        };
        let reading = Reading { ifindex: self.links[at].link.ifindex, counters, width: Width::Bits64 };
        let unix = self.unix(now);
        let live = self.live.clone();
        let mut state = live.lock();
        let before = state.unsaved.batch.samples.len();
        // A link that is gone needs no save at once: after a crash no run can continue its counters.
        let needs_save = self.needs_save;
        // Final samples share a tick. With a thousand links per second, a tick for each sample would take half as much
        // memory again as the samples.
        let id = self.id_of(at);
        let shared_tick = state.unsaved.batch.ticks.last().copied().filter(|tick| self.may_share_tick(tick, now));
        let lacks_link = |tick: &Tick| {
            let from = state.unsaved.batch.ticks.len().checked_sub(2).map_or(0, |at| state.unsaved.batch.ticks[at].end);
            !state.unsaved.batch.samples[from..tick.end].iter().any(|sample| Some(sample.iface) == id)
        };
        let shared_tick = shared_tick.filter(lacks_link);
        let seq = shared_tick.map_or(self.next_seq, |tick| tick.seq);
        self.add_sample(at, &reading, now, seq, self.scheduled_interval_ms(), &mut state);
        self.needs_save = needs_save;
        let end = state.unsaved.batch.samples.len();
        match state.unsaved.batch.ticks.last_mut().filter(|_| shared_tick.is_some()) {
            Some(tick) => tick.end = end,
            None if end > before => {
                state.unsaved.batch.ticks.push(Tick { seq, mono_ms: now.mono_ms, unix, end });
                self.final_tick_seq = Some(seq);
                self.next_seq += 1;
            }
            None => {}
        }
        state.limit_memory();
    }

    /// Whether final samples may be added to the latest tick: it has only such samples and is less than a second old.
    fn may_share_tick(&self, tick: &Tick, now: Now) -> bool {
        self.final_tick_seq == Some(tick.seq) && now.mono_ms < tick.mono_ms + 1000
    }

    fn publish_monitored(&self, at: usize, state: &mut State) {
        let tracked = &self.links[at];
        if let Some(iface) = state.inventory.interfaces.get_mut(tracked.inventory_index).filter(|_| tracked.had_traffic)
        {
            iface.monitored = true;
            iface.ignored_because = None;
        }
    }

    /// Queues the raw counters of a link for its record.
    fn add_anchor(&mut self, at: usize, seq: u64, state: &mut State) {
        let now = Now { mono_ms: self.links[at].baseline_ms, unix_ms: 0 };
        let iface = self.ensure_id(at, state, now);
        self.bind_record(at, state);
        self.links[at].anchored = true;
        let raw = self.links[at].baseline.map_or(Counters::ZERO, |baseline| baseline.counters);
        state.unsaved.anchors.push(Anchor { seq, iface, raw });
    }

    fn add_event(&self, now: Now, kind: EventKind, interface: &str, detail: String) {
        let event = self.new_event(now, kind, interface, detail);
        self.live.lock().unsaved.add_event(event);
    }

    fn new_event(&self, now: Now, kind: EventKind, interface: &str, detail: String) -> Event {
        Event { unix: self.unix(now), mono_ms: now.mono_ms, kind, interface: interface.to_string(), detail }
    }

    fn id_of(&self, at: usize) -> Option<IfaceId> {
        self.links[at].id
    }
}

fn watch_settings(active: &ActiveSettings) -> WatchSettings {
    let ActiveSettings { interfaces, ignored, primary, .. } = active;
    WatchSettings { interfaces: interfaces.clone(), ignored: ignored.clone(), primary: primary.clone() }
}

/// Finds a present link by name. An altname matches only if no link has it as its own name.
fn find_link<'a>(links: &'a [Tracked], name: &str) -> Option<&'a Tracked> {
    let own = links.iter().find(|tracked| tracked.link.name == name);
    own.or_else(|| links.iter().find(|tracked| tracked.link.altnames.iter().any(|altname| altname == name)))
}

/// Quality and delta of the sample for a change. The sample gets `quality` unless the counters restarted or nothing is
/// counted.
fn quality_and_delta(change: &Comparison, quality: SampleQuality) -> (SampleQuality, Counters) {
    match *change {
        Comparison::Plain(delta) | Comparison::Wrap(delta) | Comparison::Dip { delta, .. } => (quality, delta),
        Comparison::Reset(delta) => (SampleQuality::Reset, delta),
        Comparison::Implausible(_) | Comparison::AllZero => (SampleQuality::Gap, Counters::ZERO),
    }
}

/// The event for an unusual sample; `None` for a plain difference of two readings, and for a gap that is not longer
/// than one interval.
fn change_event(
    change: &Comparison,
    quality: SampleQuality,
    elapsed_ms: u64,
    scheduled_interval_ms: u64,
) -> Option<(EventKind, String)> {
    let seconds = elapsed_ms / 1000;
    match (change, quality) {
        (Comparison::Wrap(_), _) => {
            Some((EventKind::Wrap, "a counter reached its maximum and continued from zero".to_string()))
        }
        (Comparison::Dip { fell, .. }, _) => {
            let names = counter::counter_names(fell);
            Some((EventKind::Dip, format!("{names} fell although the link was not recreated: the fall is not counted")))
        }
        (Comparison::Reset(_), _) | (_, SampleQuality::Reset) => {
            Some((EventKind::Reset, "the counters restarted from zero".to_string()))
        }
        (Comparison::Implausible(bytes), _) => {
            let detail = format!("{bytes} bytes in {seconds} s are more than a link can carry: not counted");
            Some((EventKind::Implausible, detail))
        }
        // A shorter gap, from a restart of net-pulse within the interval, missed no sample.
        (_, SampleQuality::Gap) if elapsed_ms > scheduled_interval_ms => {
            Some((EventKind::Gap, format!("no reading for {seconds} s; the traffic is spread over that time")))
        }
        _ => None,
    }
}

/// Joins the reason why a better source is not used and the note that the boot id is unknown.
fn source_note(stack: &NetworkStack, note: Option<String>) -> Option<String> {
    let notes: Vec<String> = note.into_iter().chain(identity::boot_id_note(stack).map(str::to_string)).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

fn clock_step_detail(stepped_ms: i64) -> String {
    let direction = if stepped_ms < 0 { "back" } else { "forward" };
    format!("the clock was set {direction} by {} s", stepped_ms.unsigned_abs() / 1000)
}

fn unix_at(mono_ms: u64, offset_ms: i64) -> i64 {
    i64::try_from(mono_ms).unwrap_or(i64::MAX).saturating_add(offset_ms).div_euclid(1000)
}

/// Sets the wall time of all ticks and events that have none.
fn set_wall_times(state: &mut State, offset_ms: i64) {
    for tick in state.unsaved.batch.ticks.iter_mut().filter(|tick| tick.unix.is_none()) {
        tick.unix = Some(unix_at(tick.mono_ms, offset_ms));
    }
    // All events are checked: the writer adds some too, so the events without a wall time need not be the last ones.
    for event in state.unsaved.events.iter_mut().filter(|event| event.unix.is_none()) {
        event.unix = Some(unix_at(event.mono_ms, offset_ms));
    }
}
