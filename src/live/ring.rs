//! The rates of the latest seconds, while somebody looks at them.

use std::collections::VecDeque;

use crate::sorted::Map;

/// How many seconds of one-second rates are kept.
pub const RING_SECONDS: usize = 300;
/// Sampling at one second goes on for this long after somebody last asked for the ring.
const WATCH_MS: u64 = 10_000;
/// What the ring's rates take at the most: 72 interfaces for all of its time, and more of them for less.
pub const RING_BYTES: usize = 512 * 1024;

type Rates = Option<(u64, u64)>;

/// Rates of one second, of the interfaces that are watched.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Rises with every second kept; what `since` of the API means.
    pub next: u64,
    /// UTC seconds, as the machine believes them.
    pub times: VecDeque<i64>,
    /// ifindex → rx and tx in bytes per second, as long as `times`; `None` where the interface was not there.
    pub rates: Map<u32, VecDeque<Rates>>,
    /// Monotonic; 0 for never.
    pub watched_until_ms: u64,
    /// How often somebody has begun to look.
    pub(super) watches: u64,
}

impl Ring {
    /// Somebody looks: it is turned for a while.
    pub fn watch(&mut self, mono_ms: u64) {
        if self.watched_until_ms <= mono_ms {
            self.watches += 1;
        }
        self.watched_until_ms = mono_ms.saturating_add(WATCH_MS);
    }

    /// One more second.
    pub fn push(&mut self, unix: i64, watched: impl Iterator<Item = (u32, Rates)> + Clone) {
        // Those that have gone are in it for as long as it reaches back.
        let bytes = watched.clone().count().max(self.rates.len()) * size_of::<Rates>();
        let seconds = (RING_BYTES / bytes.max(1)).clamp(1, RING_SECONDS);
        while self.times.len() >= seconds {
            self.times.pop_front();
            for rates in self.rates.values_mut() {
                rates.pop_front();
            }
        }
        let length = self.times.len();
        self.times.push_back(unix);
        self.next += 1;
        for (ifindex, rate) in watched {
            let rates = self.rates.entry(ifindex).or_default();
            if rates.capacity() == 0 {
                rates.reserve_exact(seconds);
            }
            // A link that came later has nothing to show for the time before.
            rates.resize(length, None);
            rates.push_back(rate);
        }
        for rates in self.rates.values_mut() {
            rates.resize(length + 1, None);
            if rates.capacity() > 2 * seconds {
                rates.shrink_to(seconds);
            }
        }
        self.rates.retain(|_, rates| rates.iter().any(Option::is_some));
    }

    /// What was not asked for in all the time that it reaches back is of no interest any more.
    pub fn forget(&mut self, mono_ms: u64) {
        if !self.times.is_empty() && mono_ms > self.watched_until_ms.saturating_add(RING_SECONDS as u64 * 1000) {
            (self.times, self.rates) = Default::default();
        }
    }
}
