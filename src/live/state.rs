//! All parts together, and what concerns more than one of them.

use std::sync::Arc;

use super::{AtRisk, Earlier, Health, Inventory, Told, Tuning, Unsaved, Wishes};
use crate::clock::Zone;
use crate::compact::{self, HELD_BYTES};
use crate::config::{Changes, Config, Refused};
use crate::model::{Counters, Event, EventKind};

/// One lock for all of it: a reader has to see samples, names and numbers of the same moment, and it is held for copying only.
pub struct State {
    pub config: Config,
    /// What `config` means.
    pub tuning: Tuning,
    pub zone: Arc<Zone>,
    /// Counts changes of `tuning`.
    pub(super) tuned: u64,
    pub inventory: Inventory,
    pub unsaved: Unsaved,
    pub wishes: Wishes,
    pub health: Health,
}

impl State {
    pub(super) fn new(config: Config, zone: Zone) -> State {
        State {
            tuning: Tuning::of(&config),
            config,
            zone: Arc::new(zone),
            tuned: 0,
            inventory: Inventory::default(),
            unsaved: Unsaved::default(),
            wishes: Wishes::default(),
            health: Health::default(),
        }
    }

    /// After each tick: what waits for the writer stays within its memory. It is saved before the time, so that nothing has
    /// to become coarser while the disk is well.
    pub fn bound(&mut self) {
        let held = compact::bytes(&self.unsaved.batch, &self.unsaved.anchors);
        if held > HELD_BYTES {
            compact::compact(&mut self.unsaved.batch, &mut self.unsaved.anchors, HELD_BYTES / 2);
            self.health.saving.compacted = true;
        }
        let placed = self.unsaved.batch.ticks.first().is_some_and(|tick| tick.unix.is_some());
        self.wishes.save_now |= held > HELD_BYTES / 4 * 3 && placed && self.health.saving.error.is_none();
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

    /// A save that hangs tells nothing of itself. To be called now and then: the sentence for the log, once for each
    /// trouble; the event is made of it here.
    pub fn watch_saving(&mut self, mono_ms: u64) -> Option<String> {
        if self.health.saving.is_late(mono_ms, self.tuning.flush_s) && self.health.saving.called_mono_ms.is_none() {
            self.health.saving.called_mono_ms = Some(mono_ms);
            self.wishes.save_now = true;
        }
        let trouble = self.health.saving.trouble(mono_ms, self.tuning.flush_s)?;
        let stage = match self.health.saving.error {
            _ if self.health.saving.compacted => Told::Full,
            // A failure was told of where it came up.
            Some(_) if !self.health.saving.lost => return None,
            _ => Told::Silence,
        };
        if self.health.saving.told >= stage {
            return None;
        }
        self.health.saving.told = stage;
        let consequence = match stage {
            Told::Full => "memory is full: older samples become coarser until saving works",
            _ => "going on in memory",
        };
        let detail = format!("{trouble}; {consequence}{}", self.at_risk(mono_ms));
        self.unsaved.event(Event {
            unix: None,
            mono_ms,
            kind: EventKind::Storage,
            interface: String::new(),
            detail: detail.clone(),
        });
        Some(detail)
    }

    /// Changes settings, all of them or none, with effect at once.
    pub fn change(&mut self, changes: Changes) -> Result<(), Refused> {
        if changes.is_empty() {
            return Ok(());
        }
        self.config.change(&changes)?;
        self.tune();
        for (key, value) in changes {
            self.unsaved.keep_setting(key, value);
        }
        Ok(())
    }

    /// What the database remembers takes effect, but for what was changed while it was not there: that is on its way to
    /// it. The rest is the sampler's to join. Says which settings are no use.
    pub fn recall(&mut self, earlier: Earlier) -> Vec<String> {
        let mut settings = earlier.settings.clone();
        for (key, value) in &self.unsaved.settings {
            match value {
                Some(value) => settings.insert(key.clone(), value.clone()),
                None => settings.remove(key),
            };
        }
        let refused = self.config.take_saved(&settings);
        self.tune();
        self.wishes.earlier = Some(earlier);
        refused
    }

    fn tune(&mut self) {
        self.tuning = Tuning::of(&self.config);
        self.tuned += 1;
    }

    /// Gives the ticket that is served when what is here now is on disk.
    pub(super) fn ask_to_save(&mut self) -> u64 {
        self.wishes.save_now = true;
        self.unsaved.saves.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Live, Saving};
    use crate::model::{Anchor, COUNTERS, Edit, Mark, Record, Sample, Tick};

    /// After a sleep of the machine the thread that saves may look up a minute later.
    #[test]
    fn a_thread_that_is_late_is_called_before_it_is_blamed() {
        let live = live();
        let mut state = live.lock();
        state.health.saving.succeeded_mono_ms = Some(0);
        state.wishes.save_now = false;
        assert_eq!((state.watch_saving(1_019_000), state.wishes.save_now), (None, false));
        assert_eq!((state.watch_saving(50_000_000), state.wishes.save_now), (None, true));
        assert_eq!(state.health.saving.trouble(50_009_000, 300), None);
        assert!(state.watch_saving(50_010_000).unwrap().contains("the thread that saves does not run"));
    }

    #[test]
    fn a_trouble_is_told_once_and_its_end_is_not_missed() {
        let live = live();
        let mut state = live.lock();
        state.health.saving.succeeded_mono_ms = Some(0);
        state.health.saving.saving_since_mono_ms = Some(300_000);
        tick(&mut state, 1, Some(1000));
        assert_eq!(state.watch_saving(599_999), None);
        let told = state.watch_saving(600_000).unwrap();
        assert!(
            told.starts_with("nothing could be saved for 600 s: the disk does not answer; going on in memory"),
            "{told}"
        );
        assert_eq!((state.watch_saving(700_000), state.unsaved.events.len()), (None, 1));
        assert_eq!(state.unsaved.events[0].detail, told);
        state.health.saving.compacted = true;
        let told = state.watch_saving(800_000).unwrap();
        assert!(told.contains("memory is full: older samples become coarser"), "{told}");
        assert_eq!(state.watch_saving(900_000), None);
        // What fails is told of by the writer.
        state.health.saving = Saving { error: Some("no room".to_string()), ..Saving::default() };
        assert_eq!(state.watch_saving(900_000), None);
        state.health.saving.lost = true;
        assert!(state.watch_saving(900_000).unwrap().starts_with("the thread that saves has ended"));
    }

    fn live() -> Live {
        Live::new(Config::default(), Zone::UTC)
    }

    fn tick(state: &mut State, seq: u64, unix: Option<i64>) -> bool {
        for iface in 0..100 {
            state.unsaved.batch.samples.push(Sample {
                iface,
                mark: Mark::Plain,
                span_ms: 1_000,
                delta: Counters([1; COUNTERS]),
            });
        }
        let end = state.unsaved.batch.samples.len();
        state.unsaved.batch.ticks.push(Tick { seq, mono_ms: seq * 1_000, unix, end });
        let before = state.wishes.save_now;
        state.bound();
        state.wishes.save_now && !before
    }

    #[test]
    fn those_who_ask_at_once_share_one_copy_of_the_unsaved() {
        let live = live();
        let mut state = live.lock();
        tick(&mut state, 1, None);
        let [_, first] = state.unsaved.batches();
        assert!(Arc::ptr_eq(&first, &state.unsaved.batches()[1]));
        // Placed meanwhile: another truth, though nothing was added.
        state.unsaved.batch.ticks[0].unix = Some(5);
        assert_eq!(state.unsaved.batches()[1].ticks, state.unsaved.batch.ticks);
        tick(&mut state, 2, Some(6));
        assert_eq!((first.ticks.len(), state.unsaved.batches()[1].ticks.len()), (1, 2));
    }

    /// While the clock waits to be believed nothing of it can be saved, and its history is changed all the same.
    #[test]
    fn what_cannot_be_saved_yet_follows_its_history() {
        let live = live();
        let mut state = live.lock();
        tick(&mut state, 1, None);
        for iface in [3, 4] {
            state.unsaved.anchors.push(Anchor { seq: 1, iface, raw: Counters::ZERO });
        }
        let name = String::new;
        let record = |id| Record { id, ifindex: id, ..Record::default() };
        state.unsaved.records.extend([3, 4].map(record));
        state.unsaved.edited(&Edit::Merge { id: 3, name: name(), into: 4, into_name: name() });
        state.unsaved.edited(&Edit::Forget { id: 5, name: name() });
        let of = |iface| state.unsaved.batch.samples.iter().find(|sample| sample.iface == iface);
        assert_eq!((of(3), of(5), of(4).map(|sample| sample.delta)), (None, None, Some(Counters([2; COUNTERS]))));
        assert_eq!(of(4).map(|sample| sample.span_ms), Some(1_000), "at the same time");
        assert_eq!((state.unsaved.batch.samples.len(), state.unsaved.batch.ticks[0].end), (98, 98));
        assert_eq!(state.unsaved.anchors.iter().map(|anchor| anchor.iface).collect::<Vec<_>>(), [4]);
        assert_eq!(state.unsaved.records.iter().map(|record| record.id).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn saving_is_asked_for_before_anything_becomes_coarser() {
        let live = live();
        let mut state = live.lock();
        let asked = (1..).find(|seq| tick(&mut state, *seq, Some(*seq as i64))).unwrap();
        assert!(state.wishes.save_now && !state.health.saving.compacted);
        assert_eq!(state.unsaved.batch.ticks.len() as u64, asked);
        // Once is enough, and the writer takes its time.
        assert!((asked + 1..asked + 1_000).all(|seq| !tick(&mut state, seq, Some(seq as i64))));
        assert!(state.health.saving.compacted);
        assert!(compact::bytes(&state.unsaved.batch, &state.unsaved.anchors) <= HELD_BYTES);
        let sum: u64 = state.unsaved.batch.samples.iter().map(|sample| sample.delta.0[7]).sum();
        assert_eq!(sum, (asked + 999) * 100);
    }

    #[test]
    fn e21_what_waits_for_the_clock_is_bounded_too() {
        let live = live();
        let mut state = live.lock();
        for seq in 1..2_000 {
            assert!(!tick(&mut state, seq, None), "there is nothing to save");
            assert!(compact::bytes(&state.unsaved.batch, &state.unsaved.anchors) <= HELD_BYTES);
        }
        let sum: u64 = state.unsaved.batch.samples.iter().map(|sample| sample.delta.0[0]).sum();
        assert_eq!(sum, 1_999 * 100);
    }
}
