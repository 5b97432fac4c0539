//! The ring of one-second rates for the live chart. It is filled only while a client asks for it.

use std::collections::VecDeque;

use crate::sorted::Map;

/// Seconds of rates that the ring keeps.
pub const RING_SECONDS: usize = 300;
/// The sampler reads once per second until this long after the last request for the ring.
const WATCH_MS: u64 = 10_000;
/// Limit on the memory for rates: enough for 72 interfaces over `RING_SECONDS`. With more interfaces the ring covers
/// fewer seconds.
pub const RING_BYTES: usize = 512 * 1024;

type Rates = Option<(u64, u64)>;

/// Rates per second of the monitored interfaces.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Number of seconds pushed so far; the API's `since` refers to it.
    pub next: u64,
    /// UTC seconds of each entry, from the machine's clock, trusted or not.
    pub times: VecDeque<i64>,
    /// By ifindex: (rx, tx) in bytes per second, one entry for each entry of `times`; `None` where there is no rate for
    /// that second, for example because the interface was absent.
    pub rates: Map<u32, VecDeque<Rates>>,
    /// Monotonic; 0 for never.
    pub watched_until_ms: u64,
    /// How often a client started to watch; a rise wakes the sampler.
    pub(super) watch_starts: u64,
}

impl Ring {
    /// Notes a request for the ring: the sampler fills it for the next `WATCH_MS`.
    pub fn watch(&mut self, mono_ms: u64) {
        if self.watched_until_ms <= mono_ms {
            self.watch_starts += 1;
        }
        self.watched_until_ms = mono_ms.saturating_add(WATCH_MS);
    }

    /// Adds one second.
    pub fn push(&mut self, unix: i64, monitored: impl Iterator<Item = (u32, Rates)> + Clone) {
        // An interface that is gone stays in the ring until its last rate is removed.
        let bytes = monitored.clone().count().max(self.rates.len()) * size_of::<Rates>();
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
        for (ifindex, rate) in monitored {
            let rates = self.rates.entry(ifindex).or_default();
            if rates.capacity() == 0 {
                rates.reserve_exact(seconds);
            }
            // An interface that is new has no rates for the earlier seconds.
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

    /// Empties the ring if no client asked for it during the time that it covers.
    pub fn clear_if_unused(&mut self, mono_ms: u64) {
        if !self.times.is_empty() && mono_ms > self.watched_until_ms.saturating_add(RING_SECONDS as u64 * 1000) {
            (self.times, self.rates) = Default::default();
        }
    }
}
