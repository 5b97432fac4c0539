//! The state that all threads share: the inventory of interfaces with their latest counters and rates, the ring of
//! one-second rates, the unsaved samples, and the requests of `http` to the sampler and the writer. One lock guards it.
//! A thread holds it only to copy data: never while it reads the kernel, the disk or the network.

mod active_settings;
mod commands;
mod health;
mod inventory;
mod locked;
mod pending;
mod ring;
mod saving;
mod state;
mod unsaved;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Zone;
use crate::config::{Config, SettingChanges, SettingsRefusal};

pub use active_settings::ActiveSettings;
pub use commands::{CommandRefusal, InterfaceCommand, InterfaceEdit};
pub use health::{Database, Health, Polls};
pub use inventory::{Iface, Inventory, Unmatched, unmatched_sentences};
pub use locked::Locked;
pub use pending::{Collected, Pending, StoredHistory, Tickets};
pub use ring::{RING_BYTES, RING_SECONDS, Ring};
pub use saving::{AtRisk, ReportedProblem, Saving, Written};
pub use state::State;
pub use unsaved::Unsaved;

type Waker = Box<dyn Fn() + Send + Sync>;

pub struct Live {
    state: Mutex<State>,
    /// Signalled when the sampler has answered a request, when the writer has saved, or when the state of the database
    /// changes.
    done: Condvar,
    /// Signalled when the writer has something to do before its next save is due, and when the sampler has ended.
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

    /// Sets the function that interrupts the sampler's sleep. Called once, at start-up.
    pub fn set_sampler_waker(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake_sampler.set(Box::new(wake));
    }

    /// Sets the function that wakes the main thread after a change of settings. Called once, at start-up.
    pub fn set_main_waker(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake_main.set(Box::new(wake));
    }

    /// Takes the lock. When the guard is dropped, the threads that the change concerns are woken.
    pub fn lock(&self) -> Locked<'_> {
        Locked::new(self, self.lock_read_only())
    }

    /// For shutdown, which must not wait for the lock.
    pub fn try_lock(&self) -> Option<Locked<'_>> {
        Some(Locked::new(self, self.state.try_lock().ok()?))
    }

    /// Takes the lock without waking threads afterwards, for callers that only read. A poisoned lock is taken all the
    /// same: a panic leaves plain numbers behind, at worst one tick old, and that is better than ending every other
    /// thread.
    fn lock_read_only(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample now, whatever the interval. `None` if the sampler did not do so within `timeout`.
    pub fn collect(&self, timeout: Duration) -> Option<Collected> {
        let ticket = self.lock().pending.collect.take();
        self.wait(timeout, |State { pending, .. }| {
            (pending.collect.served() >= ticket).then(|| pending.collected.clone())
        })
    }

    /// Reads the counters now, without a sample. `false` if the sampler did not do so within `timeout`: then the
    /// counters in memory are those of an earlier reading.
    pub fn refresh(&self, timeout: Duration) -> bool {
        let ticket = self.lock().pending.refresh.take();
        self.wait(timeout, |state| (state.pending.refresh.served() >= ticket).then_some(())).is_some()
    }

    /// Changes settings: all of them or none. They are active at once. Returns `true` once they are on disk, and
    /// `false` if the writer did not save them within `timeout`; the writer then keeps trying. `zone` is the parsed
    /// time zone if that setting changes. `plan` computes the changes from the state; the lock is held meanwhile, so no
    /// other change comes in between.
    pub fn change<E: From<SettingsRefusal>>(
        &self,
        zone: Option<Zone>,
        timeout: Duration,
        plan: impl FnOnce(&State) -> Result<SettingChanges, E>,
    ) -> Result<bool, E> {
        let ticket = {
            let mut state = self.lock();
            let changes = plan(&state)?;
            if changes.is_empty() {
                // An empty change needs no save.
                return Ok(true);
            }
            state.change(changes)?;
            if let Some(zone) = zone {
                state.zone = Arc::new(zone);
            }
            state.request_save()
        };
        Ok(self.wait_until_saved(ticket, timeout))
    }

    /// Saves everything that can be saved now. `false` if that was not done within `timeout`.
    pub fn save(&self, timeout: Duration) -> bool {
        let ticket = self.lock().request_save();
        self.wait_until_saved(ticket, timeout)
    }

    /// Asks the sampler to run an interface command. Returns the ticket for [`Live::wait_until_saved`], or why the
    /// sampler refused the command. `None` if the sampler did not answer within `timeout`; it still runs the command
    /// later.
    pub fn submit_command(&self, command: InterfaceCommand, timeout: Duration) -> Option<Result<u64, CommandRefusal>> {
        let ticket = self.lock().pending.add_command(command);
        self.wait(timeout, |state| state.pending.answer_to(ticket))
    }

    /// For the sampler: reports the result of an interface command.
    pub fn finish_command(&self, ticket: u64, outcome: Result<(), CommandRefusal>) {
        let mut state = self.lock();
        let answer = outcome.map(|()| state.request_save());
        state.pending.answer(ticket, answer);
    }

    /// Waits until everything that the ticket covers is on disk. `false` after `timeout`, or at once if a problem with
    /// saving is already reported.
    pub fn wait_until_saved(&self, ticket: u64, timeout: Duration) -> bool {
        let reported = self.lock_read_only().health.saving.reported;
        let timeout = if reported > ReportedProblem::Nothing { Duration::ZERO } else { timeout };
        self.wait(timeout, |state| (state.unsaved.save_tickets.served() >= ticket).then_some(())).is_some()
    }

    /// For the writer: sleeps until there is work, at most for `longest`.
    pub fn wait_for_work(&self, longest: Duration) {
        let state = self.lock_read_only();
        if !state.pending.save_now && !state.pending.stopping {
            drop(self.work.wait_timeout(state, longest));
        }
    }

    /// For the writer: waits until the sampler has rejoined the stored history. `false` if the program ended before.
    pub fn wait_for_rejoin(&self) -> bool {
        let not_open = |state: &mut State| state.health.database == Database::NotRejoined;
        let state = self.done.wait_while(self.lock_read_only(), not_open).unwrap_or_else(PoisonError::into_inner);
        state.health.database == Database::Rejoined
    }

    /// For the writer: waits until the sampler has ended.
    pub fn wait_for_last_sample(&self) {
        drop(self.work.wait_while(self.lock_read_only(), |state| !state.pending.sampler_ended));
    }

    fn wait<T>(&self, timeout: Duration, mut ready: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock_read_only();
        loop {
            if let Some(answer) = ready(&state) {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
