//! The first policy: who has the places inside. A place goes to the request whose address had least of the time inside
//! lately, and a reader that keeps its place waiting gives it up to such a request; but what takes long never has all
//! places, and no address two of those for long answers. Pure.

use std::time::{Duration, Instant};

use super::Limits;
use super::client::{Client, Held};
use crate::http::route::Weight;
use crate::sorted::Map;

/// One part in so many of the time that passes is forgiven.
const FORGIVEN: u32 = 8;
/// What is held against an address at most: a minute later it is as good as any other.
const MOST: Duration = Duration::from_secs(8);
/// Short requests are free: on a busy machine they take as long as they are kept waiting by others.
const FREE: Duration = Duration::from_millis(50);
/// No request is charged more. A long answer is not a heavy load on anything but its reader.
const DEAREST: Duration = Duration::from_secs(1);
/// What a request that has just gone in counts in the choice of the next one: as long as most of them take.
const LEAST_TURN: Duration = FREE;
/// Addresses that are known at a time; of more of them the one that used least is forgotten.
const KNOWN: usize = 256;

/// What each address had of the time inside lately.
#[derive(Default)]
pub struct Shares(Map<u64, (Duration, Instant)>);

impl Shares {
    fn used(&self, kin: u64, now: Instant) -> Duration {
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

/// All places at one moment.
pub struct Places<'a> {
    pub limits: &'a Limits,
    pub shares: &'a Shares,
    pub held: Vec<Held>,
    pub now: Instant,
}

impl Places<'_> {
    /// The time inside that an address had lately, with what it has at the moment.
    fn used(&self, kin: u64) -> Duration {
        let turn = |held: &Held| self.now.saturating_duration_since(held.since).clamp(LEAST_TURN, DEAREST);
        let turns: Duration = self.held.iter().filter(|held| held.kin == kin).map(turn).sum();
        self.shares.used(kin, self.now) + turns
    }

    /// Whether there is a place for a request, if the place `given_up` were free. One is only for what memory can answer,
    /// so that a disk that hangs keeps no such request waiting.
    fn admits(&self, kin: u64, weight: Weight, given_up: Option<usize>) -> bool {
        let Limits { active, heavy, .. } = *self.limits;
        let held =
            |least: Weight| self.held.iter().filter(move |held| held.weight >= least && Some(held.place) != given_up);
        let bounds = [(Weight::Light, active), (Weight::Costly, active - 1), (Weight::Long, heavy)];
        bounds.iter().all(|(kind, most)| weight < *kind || held(*kind).count() < *most)
            && (weight < Weight::Long || held(Weight::Long).all(|held| held.kin != kin))
    }

    /// The request that goes in next, and its place. Of two of the same address the one that waited longer.
    pub fn next(&self, clients: &[Client]) -> Option<(usize, usize)> {
        let place = (0..self.limits.active).find(|place| self.held.iter().all(|held| held.place != *place))?;
        let waiting = clients.iter().enumerate().filter(|(_, client)| client.waiting());
        let admitted = waiting.filter(|(_, client)| self.admits(client.kin(), client.weight, None));
        let next = admitted.min_by_key(|(_, client)| (self.used(client.kin()), client.since));
        next.map(|(at, _)| (at, place))
    }

    /// The reader that has to give its place up: to any request, where it reads nothing at all; where it reads slowly, to
    /// one whose address had less.
    pub fn given_up(&self, clients: &[Client]) -> Option<usize> {
        let (now, stall) = (self.now, self.limits.stall);
        let readers = clients.iter().enumerate().filter(|(_, client)| client.unread());
        let slow = readers.filter_map(|(at, reader)| {
            let (place, used) = (reader.held()?.place, self.used(reader.kin()));
            let yields_to = |other: &Client| {
                self.admits(other.kin(), other.weight, Some(place))
                    && (reader.stalled(now, stall) || reader.slow(now, stall) && self.used(other.kin()) < used)
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

    /// Which kinds of request this address may send in, with those inside.
    fn admitted(held: &[(u64, Weight)], kin: u64, given_up: Option<usize>) -> Vec<Weight> {
        let (limits, shares, now) = (Limits::default(), Shares::default(), Instant::now());
        let held = held.iter().enumerate().map(|(place, (kin, weight))| Held {
            place,
            kin: *kin,
            weight: *weight,
            since: now,
        });
        let places = Places { limits: &limits, shares: &shares, held: held.collect(), now };
        ALL.into_iter().filter(|weight| places.admits(kin, *weight, given_up)).collect()
    }

    #[test]
    fn what_takes_long_never_has_all_places() {
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
    fn long_answers_have_two_places_for_two_addresses() {
        use Weight::{Costly, Light, Long};
        assert_eq!(admitted(&[(2, Long)], 1, None), ALL);
        assert_eq!(admitted(&[(2, Long)], 2, None), [Light, Costly]);
        assert_eq!(admitted(&[(2, Long)], 2, Some(0)), ALL);
        assert_eq!(admitted(&[(2, Long), (3, Long)], 1, None), [Light, Costly]);
        assert_eq!(admitted(&[(2, Long), (3, Long)], 1, Some(0)), ALL);
    }

    #[test]
    fn what_is_inside_counts_before_it_is_charged() {
        let (limits, shares, start) = (Limits::default(), Shares::default(), Instant::now());
        let used = |age: Duration| {
            let held = [1, 1, 2].map(|kin| Held { place: 0, kin, weight: Weight::Light, since: start });
            let places = Places { limits: &limits, shares: &shares, held: held.into(), now: start + age };
            [1, 2, 3].map(|kin| places.used(kin))
        };
        assert_eq!(used(Duration::ZERO), [100 * MS, 50 * MS, Duration::ZERO]);
        assert_eq!(used(300 * MS), [600 * MS, 300 * MS, Duration::ZERO]);
        assert_eq!(used(9000 * MS), [2000 * MS, 1000 * MS, Duration::ZERO]);
    }

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
    fn nothing_is_held_against_an_address_for_ever() {
        let (mut shares, start) = (Shares::default(), Instant::now());
        shares.charge(1, Duration::from_secs(3600), start);
        assert_eq!(shares.used(1, start), DEAREST - FREE);
        (0..100).for_each(|_| shares.charge(1, DEAREST, start));
        assert_eq!(shares.used(1, start), MOST);
        assert_eq!(shares.used(1, start + MOST * FORGIVEN), Duration::ZERO);
    }

    #[test]
    fn a_crowd_of_addresses_does_not_hide_the_greediest() {
        let (mut shares, start) = (Shares::default(), Instant::now());
        shares.charge(0, DEAREST, start);
        (1..10_000).for_each(|kin| shares.charge(kin, 60 * MS, start));
        assert_eq!(shares.used(0, start), DEAREST - FREE);
        assert_eq!(shares.0.len(), KNOWN);
    }
}
