//! What passed in the local day so far, of all interfaces. Counted anew when there may be something new: on a small machine a
//! day of many interfaces takes a while to read. Nothing waits for a disk that is slow: then the latest figures go on with
//! what has passed since.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::{History, Memory, is_passable};
use crate::error::Result;
use crate::live::{Live, State};
use crate::model::{Counters, IfaceId};
use crate::sorted::Map;

pub type Sums = Map<IfaceId, Counters>;

/// Figures that were counted, for who asks next.
#[derive(Clone)]
pub(super) struct Today {
    key: Key,
    sums: Arc<Sums>,
    /// What had passed altogether by then.
    lifetimes: Sums,
}

/// Ticks so far, changes that reached the disk, the beginning of the day.
type Key = (u64, u64, i64);

/// What memory knows of today.
struct Now {
    key: Key,
    memory: Memory,
    lifetimes: Sums,
    /// When something was last saved, and when the save under way began.
    saves: (Option<u64>, Option<u64>),
}

impl Now {
    fn of(live: &Live, unix: i64) -> Now {
        let mut state = live.lock();
        let memory = Memory::of(&mut state);
        Now {
            key: (state.health.polls.total, state.unsaved.saves.served(), memory.zone.day(unix).0),
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
    /// By interface, around a moment.
    pub fn today(&self, unix: i64) -> Result<Arc<Sums>> {
        let now = Now::of(&self.live, unix);
        let from_memory = || Ok(Arc::new(now.memory.alone().day(unix)?));
        let known = self.counted_today().clone().filter(|known| known.key.2 == now.key.2);
        if let Some(known) = known.as_ref().filter(|known| known.key == now.key) {
            return Ok(known.sums.clone());
        }
        if !now.memory.joined {
            return from_memory();
        }
        let (live, today) = (self.live.clone(), self.today.clone());
        let asked = self.disk.glance(move |reader| {
            let Some(reader) = reader else { return Ok(None) };
            // Its turn may come late.
            let now = Now::of(&live, unix);
            let sums = Arc::new(now.memory.with(reader)?.day(unix)?);
            // What was saved meanwhile may be among the sums, and is none of the lifetimes.
            if saves(&live.lock()) == now.saves {
                let counted = Today { key: now.key, sums: sums.clone(), lifetimes: now.lifetimes };
                *today.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
            }
            Ok(Some(sums))
        });
        match (asked, known) {
            (Ok(Ok(Some(sums))), _) => Ok(sums),
            (Ok(Err(error)), _) if !is_passable(&error) => Err(error),
            (Err(_), Some(known)) => {
                let mut sums = (*known.sums).clone();
                for (id, lifetime) in now.lifetimes.iter() {
                    let before = known.lifetimes.get(id).copied().unwrap_or_default();
                    sums.entry(*id).or_default().add(&lifetime.since(&before));
                }
                Ok(Arc::new(sums))
            }
            // A disk that cannot be read, or has answered nothing today.
            _ => from_memory(),
        }
    }

    fn counted_today(&self) -> MutexGuard<'_, Option<Today>> {
        self.today.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
