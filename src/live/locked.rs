//! The lock of the shared state. When a caller releases it, the guard wakes the threads that the caller's change
//! concerns: it compares the present numbers of `WakeCounters` with those at the time of locking. So no caller has to
//! wake a thread.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use super::{Live, State};

/// Guard of the locked state.
pub struct Locked<'a> {
    // Fields drop in this order: the lock is free before a woken thread tries to take it.
    state: MutexGuard<'a, State>,
    wakeups: Wakeups<'a>,
}

impl Locked<'_> {
    #[inline(never)]
    pub(super) fn new<'a>(live: &'a Live, state: MutexGuard<'a, State>) -> Locked<'a> {
        let before = WakeCounters::of(&state);
        Locked { state, wakeups: Wakeups { live, before, after: before } }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        self.wakeups.after = WakeCounters::of(&self.state);
    }
}

/// Numbers that each thread waits for. A thread is woken when one of its numbers has risen.
#[derive(Clone, Copy)]
struct WakeCounters {
    sampler: [u64; 8],
    writer: [u64; 3],
    /// Threads that wait for an answer, and the writer, which waits for the sampler to rejoin the stored history.
    waiting: [u64; 5],
    main: [u64; 1],
}

impl WakeCounters {
    // Not inlined: about a hundred places take the lock, and inlining there adds 47 KB to the binary.
    #[inline(never)]
    fn of(state: &State) -> WakeCounters {
        let State { pending, unsaved, inventory, health, .. } = state;
        let (stopping, database) = (u64::from(pending.stopping), health.database as u64);
        WakeCounters {
            sampler: [
                pending.collect.newest(),
                pending.refresh.newest(),
                pending.command_tickets.newest(),
                inventory.ring.watch_starts,
                u64::from(pending.stored_history.is_some()),
                state.active_revision,
                stopping,
                database,
            ],
            writer: [u64::from(pending.save_now), stopping, u64::from(pending.sampler_ended)],
            waiting: [
                pending.collect.served(),
                pending.refresh.served(),
                pending.command_tickets.served(),
                unsaved.save_tickets.served(),
                database,
            ],
            main: [state.active_revision],
        }
    }
}

/// Wakes the threads in its `drop`.
struct Wakeups<'a> {
    live: &'a Live,
    before: WakeCounters,
    after: WakeCounters,
}

impl Drop for Wakeups<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        let Wakeups { live, before, after } = self;
        let rose = |before: &[u64], after: &[u64]| before.iter().zip(after).any(|(before, after)| after > before);
        if rose(&before.sampler, &after.sampler) {
            live.wake_sampler.get().into_iter().for_each(|wake| wake());
        }
        if rose(&before.writer, &after.writer) {
            live.work.notify_all();
        }
        if rose(&before.waiting, &after.waiting) {
            live.done.notify_all();
        }
        if rose(&before.main, &after.main) {
            live.wake_main.get().into_iter().for_each(|wake| wake());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use crate::clock::Zone;
    use crate::config::Config;
    use crate::live::{Database, InterfaceCommand, Live, State};

    type Change = fn(&mut State);
    type Sleep = fn(&Live, Duration);

    /// Each change wakes exactly the threads that need it. Reading, or writing the same value again, wakes none.
    #[test]
    fn a_change_wakes_only_the_threads_that_need_it() {
        let live = Arc::new(Live::new(Config::default(), Zone::UTC));
        let (sampler, main) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        // The lock is free when the callback runs.
        let count = |counter: &Arc<AtomicU32>| {
            let (counter, live) = (counter.clone(), live.clone());
            move || {
                assert!(live.state.try_lock().is_ok());
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        live.set_sampler_waker(count(&sampler));
        live.set_main_waker(count(&main));
        let wakeups = || (sampler.swap(0, Ordering::Relaxed), main.swap(0, Ordering::Relaxed));
        let check = |change: Change, expect: (u32, u32)| {
            change(&mut live.lock());
            assert_eq!(wakeups(), expect);
        };
        check(|_| (), (0, 0));
        check(|state| state.change(vec![("flush", Some("60".to_string()))]).unwrap(), (1, 1));
        check(|state| state.inventory.ring.watch(1_000), (1, 0));
        check(|state| state.inventory.ring.watch(2_000), (0, 0));
        check(|state| state.inventory.ring.watch(60_000), (1, 0));
        check(|state| state.health.polls.total += 1, (0, 0));
        check(|state| state.pending.stored_history = Some(Default::default()), (1, 0));
        check(|state| state.pending.stored_history = None, (0, 0));
        check(|state| state.health.database = Database::Rejoined, (1, 0));
        check(|state| state.pending.save_now = true, (0, 0));
        check(|state| state.pending.stopping = true, (1, 0));
        check(|state| state.pending.stopping = true, (0, 0));
        assert!(live.collect(Duration::ZERO).is_none());
        assert_eq!(wakeups(), (1, 0));
        assert!(!live.refresh(Duration::ZERO));
        assert_eq!(wakeups(), (1, 0));
        assert!(live.submit_command(InterfaceCommand::Forget { name: "eth0".to_string() }, Duration::ZERO).is_none());
        assert_eq!(wakeups(), (1, 0));
    }

    /// A change of the value that a thread waits for wakes it long before its timeout.
    #[test]
    fn a_change_of_state_wakes_waiting_threads() {
        let live = Arc::new(Live::new(Config::default(), Zone::UTC));
        let hour = Duration::from_secs(3600);
        let changes: [(Sleep, Change); 5] = [
            (|live, hour| live.wait_for_work(hour), |state| state.pending.save_now = true),
            (|live, _| assert!(live.wait_for_rejoin()), |state| state.health.database = Database::Rejoined),
            (|live, _| live.wait_for_last_sample(), |state| state.pending.sampler_ended = true),
            (|live, hour| assert!(live.collect(hour).is_some()), |state| state.pending.collect.serve(1)),
            (|live, hour| assert!(live.save(hour)), |state| state.unsaved.save_tickets.serve(1)),
        ];
        for (sleep, change) in changes {
            let sleeper = std::thread::spawn({
                let live = live.clone();
                move || sleep(&live, hour)
            });
            std::thread::sleep(Duration::from_millis(50));
            assert!(!sleeper.is_finished());
            change(&mut live.lock());
            let begun = Instant::now();
            while !sleeper.is_finished() {
                assert!(begun.elapsed() < Duration::from_secs(30), "the thread still sleeps");
                std::thread::sleep(Duration::from_millis(1));
            }
            sleeper.join().unwrap();
        }
    }
}
