//! What each address had of the time inside lately, so that the next place goes to whoever had least. Pure.

use crate::sorted::Map;
use std::time::{Duration, Instant};

/// One part in so many of the time that passes is forgiven.
const FORGIVEN: u32 = 8;
/// What is held against an address at most: a minute later it is as good as any other.
const MOST: Duration = Duration::from_secs(8);
/// Short requests are free: on a busy machine they take as long as they are kept waiting by others.
const FREE: Duration = Duration::from_millis(50);
/// Nobody is charged more for one request. A long answer is not a heavy load on anybody but its reader.
pub const DEAREST: Duration = Duration::from_secs(1);
/// Addresses that are known at a time; of more of them the one that used least is forgotten.
const KNOWN: usize = 256;

#[derive(Default)]
pub struct Shares(Map<u64, (Duration, Instant)>);

impl Shares {
    pub fn used(&self, kin: u64, now: Instant) -> Duration {
        let left =
            |(used, at): &(Duration, Instant)| used.saturating_sub(now.saturating_duration_since(*at) / FORGIVEN);
        self.0.get(&kin).map_or(Duration::ZERO, left)
    }

    pub fn charge(&mut self, kin: u64, time: Duration, now: Instant) {
        let used = (self.used(kin, now) + time.min(DEAREST).saturating_sub(FREE)).min(MOST);
        if used.is_zero() {
            return;
        }
        self.0.insert(kin, (used, now));
        if self.0.len() <= KNOWN {
            return;
        }
        if let Some(least) = self.0.keys().copied().min_by_key(|kin| self.used(*kin, now)) {
            self.0.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_used_is_forgiven_in_time() {
        let (mut shares, start) = (Shares::default(), Instant::now());
        shares.charge(1, 150 * MS, start);
        assert_eq!(shares.used(1, start), 100 * MS);
        assert_eq!(shares.used(2, start), Duration::ZERO);
        assert_eq!(shares.used(1, start + 400 * MS), 50 * MS);
        assert_eq!(shares.used(1, start + 800 * MS), Duration::ZERO);
        shares.charge(1, 150 * MS, start + 400 * MS);
        assert_eq!(shares.used(1, start + 400 * MS), 150 * MS);
    }

    #[test]
    fn short_requests_are_free() {
        let (mut shares, start) = (Shares::default(), Instant::now());
        (0..1000).for_each(|_| shares.charge(1, FREE, start));
        assert_eq!((shares.used(1, start), shares.0.len()), (Duration::ZERO, 0));
    }

    #[test]
    fn nothing_is_held_against_anybody_for_ever() {
        let (mut shares, start) = (Shares::default(), Instant::now());
        shares.charge(1, Duration::from_secs(3600), start);
        assert_eq!(shares.used(1, start), DEAREST - FREE);
        (0..100).for_each(|_| shares.charge(1, DEAREST, start));
        assert_eq!(shares.used(1, start), MOST);
        assert_eq!(shares.used(1, start + MOST * FORGIVEN), Duration::ZERO);
    }

    #[test]
    fn a_crowd_of_addresses_makes_nobody_forget_the_greediest() {
        let (mut shares, start) = (Shares::default(), Instant::now());
        shares.charge(0, DEAREST, start);
        (1..10_000).for_each(|kin| shares.charge(kin, 60 * MS, start));
        assert_eq!(shares.used(0, start), DEAREST - FREE);
        assert_eq!(shares.0.len(), KNOWN);
    }
}
