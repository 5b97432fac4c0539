//! What both sides meet in: the inventory of interfaces, the latest counters and rates, the one-second ring, the samples
//! that are not yet saved, and what `http` asks of the sampler and the writer. One lock, held for copying only: nobody
//! reads the kernel, the disk or the network while holding it.

mod health;
mod inventory;
mod locked;
mod orders;
mod ring;
mod saving;
mod state;
mod tuning;
mod unsaved;
mod wishes;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Zone;
use crate::config::{Changes, Config, Refused};

pub use health::{Database, Health, Polls};
pub use inventory::{Iface, Inventory, Unmatched, unmatched_sentences};
pub use locked::Locked;
pub use orders::{Alteration, Order, Refusal};
pub use ring::{RING_BYTES, RING_SECONDS, Ring};
pub use saving::{AtRisk, Saving, Told, Written};
pub use state::State;
pub use tuning::Tuning;
pub use unsaved::Unsaved;
pub use wishes::{Collected, Earlier, Tickets, Wishes};

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
            state: Mutex::new(State::new(config, zone)),
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

    /// The threads that a change concerns are woken when it is let go of.
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
