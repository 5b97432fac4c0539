//! The whole shared state, and operations that concern more than one part of it.

use std::sync::Arc;

use super::{ActiveSettings, AtRisk, Health, Inventory, Pending, ReportedProblem, StoredHistory, Unsaved};
use crate::clock::Zone;
use crate::coarsen::{self, MAX_UNSAVED_BYTES};
use crate::config::{Config, SettingChanges, SettingsRefusal};
use crate::model::{Counters, Event, EventKind};

/// One lock guards all parts, so that a reader sees samples, names and ids of the same moment. A thread holds it only
/// to copy data.
pub struct State {
    pub config: Config,
    /// The active settings, parsed from `config`.
    pub active: ActiveSettings,
    pub zone: Arc<Zone>,
    /// Number of changes of the active settings.
    pub(super) active_revision: u64,
    pub inventory: Inventory,
    pub unsaved: Unsaved,
    pub pending: Pending,
    pub health: Health,
}

impl State {
    pub(super) fn new(config: Config, zone: Zone) -> State {
        State {
            active: ActiveSettings::of(&config),
            config,
            zone: Arc::new(zone),
            active_revision: 0,
            inventory: Inventory::default(),
            unsaved: Unsaved::default(),
            pending: Pending::default(),
            health: Health::default(),
        }
    }

    /// Call this after each tick. Keeps the unsaved ticks within `MAX_UNSAVED_BYTES`. Requests a save at three quarters
    /// of that, so that nothing is coarsened while the disk works.
    pub fn limit_memory(&mut self) {
        let used_bytes = coarsen::size_bytes(&self.unsaved.batch, &self.unsaved.anchors);
        if used_bytes > MAX_UNSAVED_BYTES {
            coarsen::coarsen(&mut self.unsaved.batch, &mut self.unsaved.anchors, MAX_UNSAVED_BYTES / 2);
            self.health.saving.coarsened = true;
        }
        let has_wall_time = self.unsaved.batch.ticks.first().is_some_and(|tick| tick.unix.is_some());
        self.pending.save_now |=
            used_bytes > MAX_UNSAVED_BYTES / 4 * 3 && has_wall_time && self.health.saving.error.is_none();
    }

    pub fn at_risk(&self, mono_ms: u64) -> AtRisk {
        let unsaved = [&*self.unsaved.saving_batch, &self.unsaved.batch];
        let oldest = unsaved.iter().find_map(|batch| batch.ticks.first());
        let primary = self.inventory.primary.as_deref().and_then(|name| self.inventory.interface(name)?.id);
        let mut of_primary = Counters::ZERO;
        let samples = unsaved.iter().flat_map(|batch| &batch.samples);
        samples.filter(|sample| Some(sample.iface) == primary).for_each(|sample| of_primary.add(&sample.delta));
        AtRisk {
            seconds: oldest.map_or(0, |tick| mono_ms.saturating_sub(tick.mono_ms) / 1000),
            samples: unsaved.iter().map(|batch| batch.samples.len()).sum(),
            since: oldest.and_then(|tick| tick.unix),
            of_primary,
        }
    }

    /// Checks for a save that hangs, which returns no error by itself. The main thread calls this regularly. Returns a
    /// sentence for the log, once for each stage of a problem, and adds the event.
    pub fn check_saving(&mut self, mono_ms: u64) -> Option<String> {
        if self.health.saving.is_late(mono_ms, self.active.flush_s) && self.health.saving.woken_mono_ms.is_none() {
            self.health.saving.woken_mono_ms = Some(mono_ms);
            self.pending.save_now = true;
        }
        let trouble = self.health.saving.problem(mono_ms, self.active.flush_s)?;
        let stage = match self.health.saving.error {
            _ if self.health.saving.coarsened => ReportedProblem::MemoryFull,
            // The writer reports a failed save itself.
            Some(_) if !self.health.saving.writer_ended => return None,
            _ => ReportedProblem::Stalled,
        };
        if self.health.saving.reported >= stage {
            return None;
        }
        self.health.saving.reported = stage;
        let consequence = match stage {
            ReportedProblem::MemoryFull => "memory is full: older samples become coarser until saving works",
            _ => "samples stay in memory",
        };
        let detail = format!("{trouble}; {consequence}{}", self.at_risk(mono_ms));
        self.unsaved.add_event(Event {
            unix: None,
            mono_ms,
            kind: EventKind::Storage,
            interface: String::new(),
            detail: detail.clone(),
        });
        Some(detail)
    }

    /// Changes settings: all of them or none. They are active at once.
    pub fn change(&mut self, changes: SettingChanges) -> Result<(), SettingsRefusal> {
        if changes.is_empty() {
            return Ok(());
        }
        self.config.change(&changes)?;
        self.update_active();
        for (key, value) in changes {
            self.unsaved.queue_setting(key, value);
        }
        Ok(())
    }

    /// Applies the stored settings, except those that were changed in this run and are not saved yet. The sampler
    /// rejoins the rest of the stored history. Returns a message for each stored setting that is not valid.
    pub fn apply_stored_history(&mut self, stored: StoredHistory) -> Vec<String> {
        let mut settings = stored.settings.clone();
        for (key, value) in &self.unsaved.settings {
            match value {
                Some(value) => settings.insert(key.clone(), value.clone()),
                None => settings.remove(key),
            };
        }
        let refused = self.config.apply_saved(&settings);
        self.update_active();
        self.pending.stored_history = Some(stored);
        refused
    }

    fn update_active(&mut self) {
        self.active = ActiveSettings::of(&self.config);
        self.active_revision += 1;
    }

    /// Requests a save. Returns the ticket that is served when everything that is unsaved now is on disk.
    pub(super) fn request_save(&mut self) -> u64 {
        self.pending.save_now = true;
        self.unsaved.save_tickets.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Live, Saving};
    use crate::model::{Anchor, COUNTERS, HistoryEdit, Record, Sample, SampleQuality, Tick};

    /// After a suspend of the machine the writer may wake up to a minute late.
    #[test]
    fn a_late_writer_is_woken_before_it_is_reported() {
        let live = live();
        let mut state = live.lock();
        state.health.saving.succeeded_mono_ms = Some(0);
        state.pending.save_now = false;
        assert_eq!((state.check_saving(1_019_000), state.pending.save_now), (None, false));
        assert_eq!((state.check_saving(50_000_000), state.pending.save_now), (None, true));
        assert_eq!(state.health.saving.problem(50_009_000, 300), None);
        assert!(state.check_saving(50_010_000).unwrap().contains("the writer thread does not run"));
    }

    #[test]
    fn each_stage_of_a_saving_problem_is_reported_once() {
        let live = live();
        let mut state = live.lock();
        state.health.saving.succeeded_mono_ms = Some(0);
        state.health.saving.saving_since_mono_ms = Some(300_000);
        add_tick(&mut state, 1, Some(1000));
        assert_eq!(state.check_saving(599_999), None);
        let problem = state.check_saving(600_000).unwrap();
        assert!(
            problem.starts_with("nothing could be saved for 600 s: the disk does not answer; samples stay in memory"),
            "{problem}"
        );
        assert_eq!((state.check_saving(700_000), state.unsaved.events.len()), (None, 1));
        assert_eq!(state.unsaved.events[0].detail, problem);
        state.health.saving.coarsened = true;
        let problem = state.check_saving(800_000).unwrap();
        assert!(problem.contains("memory is full: older samples become coarser"), "{problem}");
        assert_eq!(state.check_saving(900_000), None);
        // The writer reports failures itself.
        state.health.saving = Saving { error: Some("no room".to_string()), ..Saving::default() };
        assert_eq!(state.check_saving(900_000), None);
        state.health.saving.writer_ended = true;
        assert!(state.check_saving(900_000).unwrap().starts_with("the writer thread has ended"));
    }

    fn live() -> Live {
        Live::new(Config::default(), Zone::UTC)
    }

    /// Adds a tick with 100 samples. Returns whether that requested a save.
    fn add_tick(state: &mut State, seq: u64, unix: Option<i64>) -> bool {
        for iface in 0..100 {
            state.unsaved.batch.samples.push(Sample {
                iface,
                quality: SampleQuality::Plain,
                span_ms: 1_000,
                delta: Counters([1; COUNTERS]),
            });
        }
        let end = state.unsaved.batch.samples.len();
        state.unsaved.batch.ticks.push(Tick { seq, mono_ms: seq * 1_000, unix, end });
        let before = state.pending.save_now;
        state.limit_memory();
        state.pending.save_now && !before
    }

    #[test]
    fn concurrent_readers_share_one_copy_of_the_unsaved_batch() {
        let live = live();
        let mut state = live.lock();
        add_tick(&mut state, 1, None);
        let [_, first] = state.unsaved.batches_for_readers();
        assert!(Arc::ptr_eq(&first, &state.unsaved.batches_for_readers()[1]));
        // The tick got its wall time: the copy is outdated although no tick was added.
        state.unsaved.batch.ticks[0].unix = Some(5);
        assert_eq!(state.unsaved.batches_for_readers()[1].ticks, state.unsaved.batch.ticks);
        add_tick(&mut state, 2, Some(6));
        assert_eq!((first.ticks.len(), state.unsaved.batches_for_readers()[1].ticks.len()), (1, 2));
    }

    /// Ticks without wall time cannot be saved, but an edit of the history applies to them too.
    #[test]
    fn an_edit_also_changes_samples_that_cannot_be_saved_yet() {
        let live = live();
        let mut state = live.lock();
        add_tick(&mut state, 1, None);
        for iface in [3, 4] {
            state.unsaved.anchors.push(Anchor { seq: 1, iface, raw: Counters::ZERO });
        }
        let name = String::new;
        let record = |id| Record { id, ifindex: id, ..Record::default() };
        state.unsaved.records.extend([3, 4].map(record));
        state.unsaved.apply_edit(&HistoryEdit::Merge { id: 3, name: name(), into: 4, into_name: name() });
        state.unsaved.apply_edit(&HistoryEdit::Forget { id: 5, name: name() });
        let of = |iface| state.unsaved.batch.samples.iter().find(|sample| sample.iface == iface);
        assert_eq!((of(3), of(5), of(4).map(|sample| sample.delta)), (None, None, Some(Counters([2; COUNTERS]))));
        assert_eq!(of(4).map(|sample| sample.span_ms), Some(1_000), "at the same time");
        assert_eq!((state.unsaved.batch.samples.len(), state.unsaved.batch.ticks[0].end), (98, 98));
        assert_eq!(state.unsaved.anchors.iter().map(|anchor| anchor.iface).collect::<Vec<_>>(), [4]);
        assert_eq!(state.unsaved.records.iter().map(|record| record.id).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn a_save_is_requested_before_samples_are_coarsened() {
        let live = live();
        let mut state = live.lock();
        let requested = (1..).find(|seq| add_tick(&mut state, *seq, Some(*seq as i64))).unwrap();
        assert!(state.pending.save_now && !state.health.saving.coarsened);
        assert_eq!(state.unsaved.batch.ticks.len() as u64, requested);
        // One request is enough, however long the writer takes.
        assert!((requested + 1..requested + 1_000).all(|seq| !add_tick(&mut state, seq, Some(seq as i64))));
        assert!(state.health.saving.coarsened);
        assert!(coarsen::size_bytes(&state.unsaved.batch, &state.unsaved.anchors) <= MAX_UNSAVED_BYTES);
        let sum: u64 = state.unsaved.batch.samples.iter().map(|sample| sample.delta.0[7]).sum();
        assert_eq!(sum, (requested + 999) * 100);
    }

    #[test]
    fn e21_ticks_without_wall_time_are_bounded_too() {
        let live = live();
        let mut state = live.lock();
        for seq in 1..2_000 {
            assert!(!add_tick(&mut state, seq, None), "there is nothing to save");
            assert!(coarsen::size_bytes(&state.unsaved.batch, &state.unsaved.anchors) <= MAX_UNSAVED_BYTES);
        }
        let sum: u64 = state.unsaved.batch.samples.iter().map(|sample| sample.delta.0[0]).sum();
        assert_eq!(sum, 1_999 * 100);
    }
}
