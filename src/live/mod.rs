//! What both sides meet in: the inventory of interfaces, the latest counters and rates, the one-second ring, the samples
//! that are not yet saved, and what `http` asks of the sampler and the writer. One lock, held for copying only: nobody
//! reads the kernel, the disk or the network while holding it.

mod health;
mod inventory;
mod locked;
mod orders;
mod ring;
mod saving;
mod tuning;
mod unsaved;
mod wishes;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Zone;
use crate::compact::{self, HELD_BYTES};
use crate::config::{Changes, Config, Refused};
use crate::model::{Counters, Event, EventKind};

pub use health::{Database, Health, Polls};
pub use inventory::{Iface, Inventory, Unmatched, unmatched_sentences};
pub use locked::Locked;
pub use orders::{Alteration, Order, Refusal};
pub use ring::{RING_BYTES, RING_SECONDS, Ring, WATCH_MS};
pub use saving::{AtRisk, Saving, Told, Written};
pub use tuning::Tuning;
pub use unsaved::Unsaved;
pub use wishes::{Collected, Earlier, Tickets, Wishes};

/// One lock for all of it: a reader has to see samples, names and numbers of the same moment, and it is held for copying only.
pub struct State {
    pub config: Config,
    /// What `config` means.
    pub tuning: Tuning,
    pub zone: Arc<Zone>,
    /// Counts changes of `tuning`.
    tuned: u64,
    pub inventory: Inventory,
    pub unsaved: Unsaved,
    pub wishes: Wishes,
    pub health: Health,
}

impl State {
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
    fn ask_to_save(&mut self) -> u64 {
        self.wishes.save_now = true;
        self.unsaved.saves.take()
    }
}

type Waker = Box<dyn Fn() + Send + Sync>;

pub struct Live {
    state: Mutex<State>,
    /// The sampler has served a wish, or the writer has saved.
    done: Condvar,
    /// The writer has something to do before its time.
    work: Condvar,
    wake_sampler: OnceLock<Waker>,
    wake_main: OnceLock<Waker>,
}

impl Live {
    pub fn new(config: Config, zone: Zone) -> Live {
        Live {
            state: Mutex::new(State {
                tuning: Tuning::of(&config),
                config,
                zone: Arc::new(zone),
                tuned: 0,
                inventory: Inventory::default(),
                unsaved: Unsaved::default(),
                wishes: Wishes::default(),
                health: Health::default(),
            }),
            done: Condvar::new(),
            work: Condvar::new(),
            wake_sampler: OnceLock::new(),
            wake_main: OnceLock::new(),
        }
    }

    /// How to interrupt the sampler's sleep; set once, while wiring.
    pub fn wake_sampler_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake_sampler.set(Box::new(wake));
    }

    /// How to have the main thread look again, after a change of settings; set once, while wiring.
    pub fn wake_main_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake_main.set(Box::new(wake));
    }

    /// Who has to know of what is changed is woken when it is let go of.
    pub fn lock(&self) -> Locked<'_> {
        Locked::new(self, self.look())
    }

    /// For the end, which waits for nothing.
    pub fn try_lock(&self) -> Option<Locked<'_>> {
        Some(Locked::new(self, self.state.try_lock().ok()?))
    }

    /// Only to look. A panic elsewhere while the lock was held leaves plain numbers behind, at worst one tick old: going on
    /// is better than taking every thread down with it.
    fn look(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample now, whatever the interval. `None` when the sampler did not get to it within `patience`.
    pub fn collect(&self, patience: Duration) -> Option<Collected> {
        let ticket = self.lock().wishes.collect.take();
        self.wait(patience, |State { wishes, .. }| {
            (wishes.collect.served() >= ticket).then(|| wishes.collected.clone())
        })
    }

    /// Has the counters read now, without a sample. `false` when it did not happen within `patience`: what is there is
    /// at most one interval old.
    pub fn refresh(&self, patience: Duration) -> bool {
        let ticket = self.lock().wishes.read.take();
        self.wait(patience, |state| (state.wishes.read.served() >= ticket).then_some(())).is_some()
    }

    /// Changes settings, all of them or none, with effect at once, and on disk when this returns `true`; `false` when the
    /// disk was not done within `patience`, in which case the writer goes on trying. `zone`: what a changed time zone
    /// means. `plan`: what is to be changed, as things stand: nothing else is changed meanwhile.
    pub fn change<E: From<Refused>>(
        &self,
        zone: Option<Zone>,
        patience: Duration,
        plan: impl FnOnce(&State) -> Result<Changes, E>,
    ) -> Result<bool, E> {
        let ticket = {
            let mut state = self.lock();
            let changes = plan(&state)?;
            if changes.is_empty() {
                // No reason to write.
                return Ok(true);
            }
            state.change(changes)?;
            if let Some(zone) = zone {
                state.zone = Arc::new(zone);
            }
            state.ask_to_save()
        };
        Ok(self.saved(ticket, patience))
    }

    /// Has everything that can be saved saved now; `false` when that was not done within `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let ticket = self.lock().ask_to_save();
        self.saved(ticket, patience)
    }

    /// Has an interface's identity changed by the sampler; gives the ticket for `saved`. `None` when the sampler did not
    /// get to it within `patience`: it will.
    pub fn order(&self, order: Order, patience: Duration) -> Option<Result<u64, Refusal>> {
        let ticket = self.lock().wishes.order(order);
        self.wait(patience, |state| state.wishes.answer_to(ticket))
    }

    /// For the sampler: what came of an order.
    pub fn obeyed(&self, ticket: u64, outcome: Result<(), Refusal>) {
        let mut state = self.lock();
        let answer = outcome.map(|()| state.ask_to_save());
        state.wishes.answer(ticket, answer);
    }

    /// Whether all that a ticket stands for is on disk, waiting for it a while; not for a save that hangs.
    pub fn saved(&self, ticket: u64, patience: Duration) -> bool {
        let told = self.look().health.saving.told;
        let patience = if told > Told::Nothing { Duration::ZERO } else { patience };
        self.wait(patience, |state| (state.unsaved.saves.served() >= ticket).then_some(())).is_some()
    }

    /// For the writer: sleeps until there is work or `longest` has passed.
    pub fn wait_for_work(&self, longest: Duration) {
        let state = self.look();
        if !state.wishes.save_now && !state.wishes.stopping {
            drop(self.work.wait_timeout(state, longest));
        }
    }

    /// For the writer: until the sampler has joined its figures to those on disk. `false` if it came to nothing.
    pub fn wait_for_join(&self) -> bool {
        let absent = |state: &mut State| state.health.database == Database::Absent;
        let state = self.done.wait_while(self.look(), absent).unwrap_or_else(PoisonError::into_inner);
        state.health.database == Database::Joined
    }

    /// For the writer: until the sampler has ended.
    pub fn wait_for_last_sample(&self) {
        drop(self.work.wait_while(self.look(), |state| !state.wishes.sampled_out));
    }

    fn wait<T>(&self, patience: Duration, mut ready: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut state = self.look();
        loop {
            if let Some(answer) = ready(&state) {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Anchor, Edit, Mark, Record, Sample, Tick};

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
                delta: Counters([1; 8]),
            });
        }
        let end = state.unsaved.batch.samples.len();
        state.unsaved.batch.ticks.push(Tick { seq, mono_ms: seq * 1_000, unix, end });
        let before = state.wishes.save_now;
        state.bound();
        state.wishes.save_now && !before
    }

    #[test]
    fn what_is_not_there_is_told_in_a_sentence_for_each_setting() {
        let typed = [("interfaces", "a".to_string())];
        let flag = Config::new(&typed, |_| None).unwrap();
        let saved = Config::saved(&[("interfaces", "a"), ("primary", "wan")]);
        let check = |config: &Config, asked: &[(&'static str, &str, bool)], expect: &[&str]| {
            let unmatched: Vec<Unmatched> = asked
                .iter()
                .map(|(key, pattern, known)| Unmatched { key, pattern: pattern.to_string(), known: *known })
                .collect();
            assert_eq!(unmatched_sentences(&unmatched, config), expect);
        };
        let of = |pattern, known| ("interfaces", pattern, known);
        check(&flag, &[], &[]);
        let one = "--interface ppp7 matches no interface now: its figures";
        check(&flag, &[of("ppp7", false)], &[&format!("{one} begin when it appears")]);
        check(&flag, &[of("ppp7", true)], &[&format!("{one} go on when it appears")]);
        let one = "--interface nope* matches no interface now: its figures begin when one appears";
        check(&flag, &[of("nope*", false)], &[one]);
        check(
            &saved,
            &[("primary", "wan", false), of("a", true), of("b*", false)],
            &[
                "the interfaces setting a, b* match no interface now: their figures begin when they appear",
                "the primary setting wan matches no interface now: it is the headline once it is there",
            ],
        );
        let many = ["a", "b", "c", "d", "e", "f", "g"].map(|name| of(name, true));
        let all = "--interface a, b, c, d, e and 2 more match no interface now: their figures go on when they appear";
        check(&flag, &many, &[all]);
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
        assert_eq!((of(3), of(5), of(4).map(|sample| sample.delta)), (None, None, Some(Counters([2; 8]))));
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
