//! The lock, and which threads are woken when it is let go of. No caller has to think of that: what each thread
//! looks at when it wakes is compared with what it was. Never inlined: at each of a hundred places that lock, that would
//! be 47 KB of the binary.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use super::{Live, State};

/// The state, for as long as it is locked.
pub struct Locked<'a> {
    // In this order: by the time the others are woken the lock is free for them.
    state: MutexGuard<'a, State>,
    calls: Calls<'a>,
}

impl Locked<'_> {
    #[inline(never)]
    pub(super) fn new<'a>(live: &'a Live, state: MutexGuard<'a, State>) -> Locked<'a> {
        let before = Causes::of(&state);
        Locked { state, calls: Calls { live, before, after: before } }
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
        self.calls.after = Causes::of(&self.state);
    }
}

/// For each thread what makes it wake: a number that has risen.
#[derive(Clone, Copy)]
struct Causes {
    sampler: [u64; 8],
    writer: [u64; 3],
    /// Those who wait for an answer, and the writer, which waits for the join.
    waiting: [u64; 5],
    main: [u64; 1],
}

impl Causes {
    // Once, and not at each of a hundred locks.
    #[inline(never)]
    fn of(state: &State) -> Causes {
        let State { wishes, unsaved, inventory, health, .. } = state;
        let (stopping, database) = (u64::from(wishes.stopping), health.database as u64);
        Causes {
            sampler: [
                wishes.collect.given(),
                wishes.read.given(),
                wishes.order_tickets.given(),
                inventory.ring.watches,
                u64::from(wishes.earlier.is_some()),
                state.tuned,
                stopping,
                database,
            ],
            writer: [u64::from(wishes.save_now), stopping, u64::from(wishes.sampled_out)],
            waiting: [
                wishes.collect.served(),
                wishes.read.served(),
                wishes.order_tickets.served(),
                unsaved.saves.served(),
                database,
            ],
            main: [state.tuned],
        }
    }
}

/// Wakes the threads that the changes concern, at its end.
struct Calls<'a> {
    live: &'a Live,
    before: Causes,
    after: Causes,
}

impl Drop for Calls<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        let Calls { live, before, after } = self;
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
    use crate::live::{Database, Live, Order, State};

    type Change = fn(&mut State);
    type Sleep = fn(&Live, Duration);

    /// Each change is followed by exactly the calls that it needs; what is only looked at, or set to what it was, by none.
    #[test]
    fn a_change_wakes_the_threads_that_it_concerns() {
        let live = Arc::new(Live::new(Config::default(), Zone::UTC));
        let (sampler, main) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        // By then the lock is free.
        let count = |counter: &Arc<AtomicU32>| {
            let (counter, live) = (counter.clone(), live.clone());
            move || {
                assert!(live.state.try_lock().is_ok());
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        live.wake_sampler_by(count(&sampler));
        live.wake_main_by(count(&main));
        let calls = || (sampler.swap(0, Ordering::Relaxed), main.swap(0, Ordering::Relaxed));
        let check = |change: Change, expect: (u32, u32)| {
            change(&mut live.lock());
            assert_eq!(calls(), expect);
        };
        check(|_| (), (0, 0));
        check(|state| state.change(vec![("flush", Some("60".to_string()))]).unwrap(), (1, 1));
        check(|state| state.inventory.ring.watch(1_000), (1, 0));
        check(|state| state.inventory.ring.watch(2_000), (0, 0));
        check(|state| state.inventory.ring.watch(60_000), (1, 0));
        check(|state| state.health.polls.total += 1, (0, 0));
        check(|state| state.wishes.earlier = Some(Default::default()), (1, 0));
        check(|state| state.wishes.earlier = None, (0, 0));
        check(|state| state.health.database = Database::Joined, (1, 0));
        check(|state| state.wishes.save_now = true, (0, 0));
        check(|state| state.wishes.stopping = true, (1, 0));
        check(|state| state.wishes.stopping = true, (0, 0));
        assert!(live.collect(Duration::ZERO).is_none());
        assert_eq!(calls(), (1, 0));
        assert!(!live.refresh(Duration::ZERO));
        assert_eq!(calls(), (1, 0));
        assert!(live.order(Order::Forget { name: "eth0".to_string() }, Duration::ZERO).is_none());
        assert_eq!(calls(), (1, 0));
    }

    /// Threads that sleep are woken by a plain change of what they wait for, long before their time.
    #[test]
    fn sleepers_wake_without_being_called() {
        let live = Arc::new(Live::new(Config::default(), Zone::UTC));
        let hour = Duration::from_secs(3600);
        let changes: [(Sleep, Change); 5] = [
            (|live, hour| live.wait_for_work(hour), |state| state.wishes.save_now = true),
            (|live, _| assert!(live.wait_for_join()), |state| state.health.database = Database::Joined),
            (|live, _| live.wait_for_last_sample(), |state| state.wishes.sampled_out = true),
            (|live, hour| assert!(live.collect(hour).is_some()), |state| state.wishes.collect.serve(1)),
            (|live, hour| assert!(live.flush(hour)), |state| state.unsaved.saves.serve(1)),
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
                assert!(begun.elapsed() < Duration::from_secs(30), "it sleeps on");
                std::thread::sleep(Duration::from_millis(1));
            }
            sleeper.join().unwrap();
        }
    }
}
