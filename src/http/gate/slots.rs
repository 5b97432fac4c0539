//! Fair use of the worker slots: which waiting request starts next, and which slow reader loses its slot.
//!
//! A free slot goes to the request whose address group has used the least worker time lately. A client that reads its
//! answer too slowly loses its slot if a waiting request can use it. Costly requests never take all slots, and one
//! address group has at most one slot for long answers. Pure.

use std::time::{Duration, Instant};

use super::Limits;
use super::client::{Client, OccupiedSlot};
use crate::http::route::Weight;
use crate::sorted::Map;

/// The used time of a group decreases by one eighth of the elapsed time.
const DECAY_DIVISOR: u32 = 8;
/// Most used time of one group. It decays to nothing in about a minute.
const MAX_USED: Duration = Duration::from_secs(8);
/// Part of each request's worker time that is not charged: on a busy machine even a short request takes this long,
/// because it waits for other work.
const FREE_PER_REQUEST: Duration = Duration::from_millis(50);
/// Worker time of one request beyond this is not charged: a worker with a long answer mostly waits for the client that
/// reads it.
const MAX_CHARGE: Duration = Duration::from_secs(1);
/// When the next request is chosen, each running request counts at least this much, the usual time of a request.
const MIN_IN_PROGRESS: Duration = FREE_PER_REQUEST;
/// Most groups in the table. If there are more, the group with the least used time is removed.
const MAX_GROUPS: usize = 256;

/// Worker time per client address group, decaying. The value is the used time and the moment when it was computed.
#[derive(Default)]
pub struct FairQueue(Map<u64, (Duration, Instant)>);

impl FairQueue {
    /// Used time of a group at `now`.
    fn used(&self, group: u64, now: Instant) -> Duration {
        let decayed =
            |(used, at): &(Duration, Instant)| used.saturating_sub(now.saturating_duration_since(*at) / DECAY_DIVISOR);
        self.0.get(&group).map_or(Duration::ZERO, decayed)
    }

    /// Adds the worker time of a request that has ended.
    pub fn charge(&mut self, group: u64, time: Duration, now: Instant) {
        let used = (self.used(group, now) + time.min(MAX_CHARGE).saturating_sub(FREE_PER_REQUEST)).min(MAX_USED);
        if used.is_zero() {
            return;
        }
        self.0.insert(group, (used, now));
        if self.0.len() <= MAX_GROUPS {
            return;
        }
        if let Some(least_used) = self.0.keys().copied().min_by_key(|group| self.used(*group, now)) {
            self.0.remove(&least_used);
        }
    }
}

/// The slots at one moment.
pub struct Slots<'a> {
    pub limits: &'a Limits,
    pub fair_queue: &'a FairQueue,
    pub occupied: Vec<OccupiedSlot>,
    pub now: Instant,
}

impl Slots<'_> {
    /// Worker time that a group has used lately, with its running requests.
    fn used(&self, group: u64) -> Duration {
        let in_progress =
            |slot: &OccupiedSlot| self.now.saturating_duration_since(slot.since).clamp(MIN_IN_PROGRESS, MAX_CHARGE);
        let in_progress_sum: Duration = self.occupied.iter().filter(|slot| slot.group == group).map(in_progress).sum();
        self.fair_queue.used(group, self.now) + in_progress_sum
    }

    /// Whether a request may start now, or after slot `freed` is free. Costly requests leave one slot for requests
    /// that memory can answer, so that a hanging disk does not block those.
    fn admits(&self, group: u64, weight: Weight, freed: Option<usize>) -> bool {
        let Limits { slots, long_answers, .. } = *self.limits;
        let occupied = |min_weight: Weight| {
            self.occupied.iter().filter(move |slot| slot.weight >= min_weight && Some(slot.number) != freed)
        };
        let caps = [(Weight::Light, slots), (Weight::Costly, slots - 1), (Weight::Long, long_answers)];
        caps.iter().all(|(min_weight, max)| weight < *min_weight || occupied(*min_weight).count() < *max)
            && (weight < Weight::Long || occupied(Weight::Long).all(|slot| slot.group != group))
    }

    /// Index of the waiting client that starts next, and its slot. Within a group the client that waited longest goes
    /// first.
    pub fn next(&self, clients: &[Client]) -> Option<(usize, usize)> {
        let number = (0..self.limits.slots).find(|number| self.occupied.iter().all(|slot| slot.number != *number))?;
        let waiting = clients.iter().enumerate().filter(|(_, client)| client.waiting());
        let admitted = waiting.filter(|(_, client)| self.admits(client.address_group(), client.weight, None));
        let next = admitted.min_by_key(|(_, client)| (self.used(client.address_group()), client.since));
        next.map(|(at, _)| (at, number))
    }

    /// Index of the client that must give up its slot. A client that reads nothing gives way to any waiting request
    /// that may use the slot; one that reads slowly gives way only to a group that has used less time.
    pub fn reader_to_evict(&self, clients: &[Client]) -> Option<usize> {
        let (now, stall) = (self.now, self.limits.stall);
        let readers = clients.iter().enumerate().filter(|(_, client)| client.unread());
        let slow = readers.filter_map(|(at, reader)| {
            let (number, used) = (reader.slot()?.number, self.used(reader.address_group()));
            let yields_to = |other: &Client| {
                self.admits(other.address_group(), other.weight, Some(number))
                    && (reader.stalled(now, stall)
                        || reader.slow(now, stall) && self.used(other.address_group()) < used)
            };
            let yields = clients.iter().any(|other| other.waiting() && yields_to(other));
            yields.then_some((used, now.saturating_duration_since(reader.since), at))
        });
        slow.max().map(|(.., at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ALL: [Weight; 3] = [Weight::Light, Weight::Costly, Weight::Long];

    /// The weights with which a request of this group may start now, with these slots in use.
    fn admitted(occupied: &[(u64, Weight)], group: u64, freed: Option<usize>) -> Vec<Weight> {
        let (limits, fair_queue, now) = (Limits::default(), FairQueue::default(), Instant::now());
        let occupied = occupied.iter().enumerate().map(|(number, (group, weight))| OccupiedSlot {
            number,
            group: *group,
            weight: *weight,
            since: now,
        });
        let slots = Slots { limits: &limits, fair_queue: &fair_queue, occupied: occupied.collect(), now };
        ALL.into_iter().filter(|weight| slots.admits(group, *weight, freed)).collect()
    }

    #[test]
    fn costly_requests_never_take_all_slots() {
        use Weight::{Costly, Light, Long};
        assert_eq!(admitted(&[], 1, None), ALL);
        assert_eq!(admitted(&[(2, Costly), (2, Costly)], 1, None), ALL);
        assert_eq!(admitted(&[(2, Costly), (2, Costly), (2, Costly)], 1, None), [Light]);
        assert_eq!(admitted(&[(2, Costly), (2, Costly), (3, Long)], 1, None), [Light]);
        assert_eq!(admitted(&[(2, Costly), (2, Costly), (2, Costly)], 1, Some(1)), ALL);
        assert_eq!(admitted(&[(2, Light), (2, Light), (2, Light)], 1, None), ALL);
        assert_eq!(admitted(&[(2, Light), (2, Light), (2, Light), (2, Light)], 1, None), []);
        assert_eq!(admitted(&[(2, Light), (2, Costly), (2, Light), (2, Costly)], 1, Some(0)), ALL);
    }

    #[test]
    fn long_answers_use_at_most_two_slots_and_one_per_address() {
        use Weight::{Costly, Light, Long};
        assert_eq!(admitted(&[(2, Long)], 1, None), ALL);
        assert_eq!(admitted(&[(2, Long)], 2, None), [Light, Costly]);
        assert_eq!(admitted(&[(2, Long)], 2, Some(0)), ALL);
        assert_eq!(admitted(&[(2, Long), (3, Long)], 1, None), [Light, Costly]);
        assert_eq!(admitted(&[(2, Long), (3, Long)], 1, Some(0)), ALL);
    }

    #[test]
    fn a_request_counts_while_it_runs() {
        let (limits, fair_queue, start) = (Limits::default(), FairQueue::default(), Instant::now());
        let used = |age: Duration| {
            let occupied =
                [1, 1, 2].map(|group| OccupiedSlot { number: 0, group, weight: Weight::Light, since: start });
            let slots = Slots { limits: &limits, fair_queue: &fair_queue, occupied: occupied.into(), now: start + age };
            [1, 2, 3].map(|group| slots.used(group))
        };
        assert_eq!(used(Duration::ZERO), [100 * MS, 50 * MS, Duration::ZERO]);
        assert_eq!(used(300 * MS), [600 * MS, 300 * MS, Duration::ZERO]);
        assert_eq!(used(9000 * MS), [2000 * MS, 1000 * MS, Duration::ZERO]);
    }

    #[test]
    fn used_time_decays() {
        let (mut fair_queue, start) = (FairQueue::default(), Instant::now());
        fair_queue.charge(1, 150 * MS, start);
        assert_eq!(fair_queue.used(1, start), 100 * MS);
        assert_eq!(fair_queue.used(2, start), Duration::ZERO);
        assert_eq!(fair_queue.used(1, start + 400 * MS), 50 * MS);
        assert_eq!(fair_queue.used(1, start + 800 * MS), Duration::ZERO);
        fair_queue.charge(1, 150 * MS, start + 400 * MS);
        assert_eq!(fair_queue.used(1, start + 400 * MS), 150 * MS);
    }

    #[test]
    fn short_requests_are_free() {
        let (mut fair_queue, start) = (FairQueue::default(), Instant::now());
        (0..1000).for_each(|_| fair_queue.charge(1, FREE_PER_REQUEST, start));
        assert_eq!((fair_queue.used(1, start), fair_queue.0.len()), (Duration::ZERO, 0));
    }

    #[test]
    fn used_time_is_capped_and_decays() {
        let (mut fair_queue, start) = (FairQueue::default(), Instant::now());
        fair_queue.charge(1, Duration::from_secs(3600), start);
        assert_eq!(fair_queue.used(1, start), MAX_CHARGE - FREE_PER_REQUEST);
        (0..100).for_each(|_| fair_queue.charge(1, MAX_CHARGE, start));
        assert_eq!(fair_queue.used(1, start), MAX_USED);
        assert_eq!(fair_queue.used(1, start + MAX_USED * DECAY_DIVISOR), Duration::ZERO);
    }

    #[test]
    fn many_addresses_do_not_displace_the_heaviest_user() {
        let (mut fair_queue, start) = (FairQueue::default(), Instant::now());
        fair_queue.charge(0, MAX_CHARGE, start);
        (1..10_000).for_each(|group| fair_queue.charge(group, 60 * MS, start));
        assert_eq!(fair_queue.used(0, start), MAX_CHARGE - FREE_PER_REQUEST);
        assert_eq!(fair_queue.0.len(), MAX_GROUPS);
    }
}
