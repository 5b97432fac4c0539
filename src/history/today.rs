//! Sums of the current local day, for all interfaces. They are cached until the next tick or requested save, because a
//! small machine needs a while to read a day of many interfaces. No request waits longer than 250 ms for a slow disk:
//! then the answer is the cached sums plus the traffic since, or what memory has if no sums are cached.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::{History, Memory, can_answer_from_memory};
use crate::error::Result;
use crate::live::{Live, State};
use crate::model::{Counters, IfaceId};
use crate::sorted::Map;

pub type Sums = Map<IfaceId, Counters>;

/// Sums of a day, kept for the next request.
#[derive(Clone)]
pub(super) struct CachedToday {
    key: Key,
    sums: Arc<Sums>,
    /// Lifetime totals at the time of `sums`.
    lifetimes: Sums,
}

/// Number of ticks, newest save request that is served (a merge or forget command ends with one), start of the local
/// day.
type Key = (u64, u64, i64);

/// The data in memory that the sums of today need.
struct MemoryToday {
    key: Key,
    memory: Memory,
    lifetimes: Sums,
    /// Times of the last save and of the start of the save under way.
    saves: (Option<u64>, Option<u64>),
}

impl MemoryToday {
    fn of(live: &Live, unix: i64) -> MemoryToday {
        let mut state = live.lock();
        let memory = Memory::of(&mut state);
        MemoryToday {
            key: (state.health.polls.total, state.unsaved.save_tickets.served(), memory.zone.day(unix).0),
            memory,
            lifetimes: state
                .inventory
                .interfaces
                .iter()
                .filter_map(|iface| Some((iface.id?, iface.lifetime)))
                .collect(),
            saves: saves(&state),
        }
    }
}

fn saves(state: &State) -> (Option<u64>, Option<u64>) {
    (state.health.saving.succeeded_mono_ms, state.health.saving.saving_since_mono_ms)
}

impl History {
    /// Sums by interface, for the local day that contains `unix`.
    pub fn today(&self, unix: i64) -> Result<Arc<Sums>> {
        let memory_today = MemoryToday::of(&self.live, unix);
        let from_memory = || Ok(Arc::new(memory_today.memory.snapshot().day(unix)?));
        let cached = self.cached_today().clone().filter(|cached| cached.key.2 == memory_today.key.2);
        if let Some(cached) = cached.as_ref().filter(|cached| cached.key == memory_today.key) {
            return Ok(cached.sums.clone());
        }
        if !memory_today.memory.rejoined {
            return from_memory();
        }
        let (live, today) = (self.live.clone(), self.today.clone());
        let result = self.disk.run_quick(move |reader| {
            let Some(reader) = reader else { return Ok(None) };
            // The job may have waited in the queue: read memory again.
            let memory_today = MemoryToday::of(&live, unix);
            let sums = Arc::new(memory_today.memory.snapshot_with(reader)?.day(unix)?);
            // With a save in between, `sums` could contain ticks that `lifetimes` does not: do not cache.
            if saves(&live.lock()) == memory_today.saves {
                let cached =
                    CachedToday { key: memory_today.key, sums: sums.clone(), lifetimes: memory_today.lifetimes };
                *today.lock().unwrap_or_else(PoisonError::into_inner) = Some(cached);
            }
            Ok(Some(sums))
        });
        match (result, cached) {
            (Ok(Ok(Some(sums))), _) => Ok(sums),
            (Ok(Err(error)), _) if !can_answer_from_memory(&error) => Err(error),
            (Err(_), Some(cached)) => {
                let mut sums = (*cached.sums).clone();
                for (id, lifetime) in memory_today.lifetimes.iter() {
                    let before = cached.lifetimes.get(id).copied().unwrap_or_default();
                    sums.entry(*id).or_default().add(&lifetime.since(&before));
                }
                Ok(Arc::new(sums))
            }
            // The disk cannot be read, or it is slow and nothing is cached for today.
            _ => from_memory(),
        }
    }

    fn cached_today(&self) -> MutexGuard<'_, Option<CachedToday>> {
        self.today.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
