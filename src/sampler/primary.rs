//! The interface of the headline figure: the only one that is watched, else looked for over the first ten seconds and again
//! until one qualifies; followed when the default route moves for good.

use crate::clock::Now;
use crate::detect::{self, Claim};
use crate::model::{Counters, EventKind, RX_PACKETS, TX_PACKETS};

use super::{Sampler, Tracked, find};

/// How long traffic is watched before a choice is made.
const LOOK_MS: u64 = 10_000;
/// A default route that moved (a modem stepped in) has to stay this long before the headline follows.
const SETTLE_MS: u64 = 600_000;

pub(super) struct Primary {
    /// The user's own choice; empty for none.
    chosen: String,
    /// The history of that name was given away, and a flag chooses it all the same: until a link bears it again there is
    /// nothing to be shown of it.
    given_away: bool,
    /// Found by traffic, or because there was no other; empty for none yet.
    found: String,
    /// There was no other: traffic has its say as soon as there is one. Not kept for the next start, which may know more.
    alone: bool,
    /// The one that traffic had found before, and that was not there; empty for none. It is the headline again when it is.
    missed: String,
    route: Option<u32>,
    route_since_ms: u64,
    /// Counters at the beginning of the present look: (ifindex, counters, monotonic time).
    looks: Vec<(u32, Counters, u64)>,
    /// What comes of it, kept for its memory: without traffic every reading ends a look.
    claims: Vec<Claim>,
    next_ms: Option<u64>,
    begun: bool,
}

impl Primary {
    pub fn new(chosen: String) -> Primary {
        Primary {
            chosen,
            given_away: false,
            found: String::new(),
            alone: false,
            missed: String::new(),
            route: None,
            route_since_ms: 0,
            looks: Vec::new(),
            claims: Vec::new(),
            next_ms: None,
            begun: false,
        }
    }

    /// What an earlier run has found beats what was found without knowing of it: a headline does not change for a disk.
    /// `true` if there was something.
    pub fn recall(&mut self, chosen: String, found: String) -> bool {
        let known = !found.is_empty();
        self.chosen = chosen;
        if known && self.alone && found != self.found {
            self.missed = found;
        } else if known {
            (self.found, self.alone) = (found, false);
        }
        known
    }

    /// Looks at once, and at the end of the first ten seconds; after that only when counters are read anyway.
    pub fn begin(&mut self, now: Now) {
        self.next_ms = Some(now.mono_ms);
    }

    /// The user has made another choice, or leaves it to the traffic again: that takes another look.
    pub fn choose(&mut self, chosen: String, now: Now) {
        (self.chosen, self.given_away) = (chosen, false);
        self.look_again(now);
    }

    fn look_again(&mut self, now: Now) {
        self.looks.clear();
        (self.begun, self.next_ms) = (false, Some(now.mono_ms));
    }

    pub fn due(&self, now: Now) -> bool {
        self.next_ms.is_some_and(|next| now.mono_ms >= next)
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.next_ms
    }

    pub fn default_route(&mut self, route: Option<u32>, now: Now) {
        if self.route != route {
            (self.route, self.route_since_ms) = (route, now.mono_ms);
        }
    }

    /// What each link that is watched has moved in this look, where that has lasted long enough.
    fn claim(&mut self, links: &[Tracked], now: Now) {
        self.claims.clear();
        // Those that have gone meanwhile may be many.
        self.looks.retain(|(known, ..)| links.iter().any(|tracked| tracked.link.ifindex == *known));
        for tracked in links.iter().filter(|tracked| tracked.watched()) {
            let Some((after, _)) = tracked.seen else { continue };
            let ifindex = tracked.link.ifindex;
            let Some((_, before, since_ms)) = self.looks.iter().find(|(known, ..)| *known == ifindex) else {
                self.looks.push((ifindex, after, now.mono_ms));
                continue;
            };
            let moved = |at: usize| after.0[at].saturating_sub(before.0[at]);
            let elapsed_ms = now.mono_ms.saturating_sub(*since_ms);
            if elapsed_ms >= LOOK_MS {
                let bytes = moved(0).saturating_add(moved(1));
                let packets = moved(RX_PACKETS).saturating_add(moved(TX_PACKETS));
                self.claims.push(Claim { ifindex, bytes, packets, elapsed_ms });
            }
        }
    }

    fn is_chosen(&self) -> bool {
        !self.chosen.is_empty() && !self.given_away
    }

    pub fn name(&self) -> &str {
        if self.is_chosen() { &self.chosen } else { &self.found }
    }
}

impl Sampler {
    /// After each reading.
    pub(super) fn consider_primary(&mut self, now: Now) {
        let primary = &mut self.primary;
        if primary.due(now) {
            // The first look has just begun, or has just ended: later ones have no deadline of their own.
            primary.next_ms = (!primary.begun).then_some(now.mono_ms + LOOK_MS);
            primary.begun = true;
        }
        primary.given_away &= find(&self.links, &primary.chosen).is_none();
        if find(&self.links, &primary.found).is_some_and(|tracked| !tracked.watched()) {
            // Nobody counts it any more.
            self.find_primary(String::new(), now);
        }
        self.take_the_only_one(now);
        self.show_primary();
        if self.primary.is_chosen() || self.is_settled(now) {
            return;
        }
        self.primary.claim(&self.links, now);
        let primary = &mut self.primary;
        let best = detect::primary(&primary.claims, primary.route);
        let Some(name) = best.and_then(|best| self.links.iter().find(|tracked| tracked.link.ifindex == best)) else {
            return;
        };
        let name = name.link.name.clone();
        primary.looks.clear();
        let alone = std::mem::take(&mut primary.alone);
        if name == primary.found && !alone {
            return;
        }
        if name != primary.found {
            self.found_primary(&name, now, "chosen as the interface of the headline figure");
        }
        self.live.lock().unsaved.keep_setting("primary_found", Some(name));
    }

    /// Traffic has chosen one, and the default route gives no reason to look for another.
    fn is_settled(&self, now: Now) -> bool {
        let primary = &self.primary;
        let current = find(&self.links, primary.name()).filter(|_| !primary.alone);
        current.is_some_and(|tracked| {
            primary.route.is_none_or(|route| route == tracked.link.ifindex)
                || now.mono_ms < primary.route_since_ms + SETTLE_MS
        })
    }

    fn found_primary(&mut self, name: &str, now: Now, why: &str) {
        log::info!("primary interface: {name}");
        self.event(now, EventKind::Primary, name, why.to_string());
        self.primary.found = name.to_string();
        self.show_primary();
    }

    /// Needs no traffic. In the place of one that traffic has found, and that is not there any more, only after a look: a
    /// modem that is made anew is back within seconds.
    pub(super) fn take_the_only_one(&mut self, now: Now) {
        if self.primary.is_chosen() {
            return;
        }
        if self.primary.alone && find(&self.links, &self.primary.missed).is_some_and(Tracked::watched) {
            let missed = std::mem::take(&mut self.primary.missed);
            self.primary.alone = false;
            self.found_primary(&missed, now, "its traffic made it the headline before");
        }
        let primary = &self.primary;
        if find(&self.links, &primary.found).is_some() {
            return;
        }
        let watched = self.links.iter().filter(|tracked| tracked.watched()).map(|tracked| tracked.link.ifindex);
        let Some(only) = detect::only(watched, primary.route) else { return };
        let looked =
            |(ifindex, _, since_ms): &(u32, Counters, u64)| *ifindex == only && now.mono_ms >= since_ms + LOOK_MS;
        if !primary.found.is_empty() && !primary.alone && !primary.looks.iter().any(looked) {
            return;
        }
        let Some(tracked) = self.links.iter().find(|tracked| tracked.link.ifindex == only) else { return };
        let name = tracked.link.name.clone();
        if !std::mem::replace(&mut self.primary.alone, true) {
            self.primary.missed = std::mem::take(&mut self.primary.found);
        }
        self.found_primary(&name, now, "the only interface that is watched: the headline is its figure");
    }

    /// Shown by the name that the kernel has for it, however it was asked for.
    pub(super) fn show_primary(&self) {
        let asked = Some(self.primary.name()).filter(|name| !name.is_empty());
        let known = asked.map(|asked| find(&self.links, asked).map_or(asked, |tracked| &tracked.link.name));
        let name = known.or_else(|| self.provisional());
        let mut state = self.live.lock();
        if state.inventory.primary.as_deref() != name {
            state.inventory.primary = name.map(str::to_string);
        }
    }

    /// The figure at the top need not wait for the end of the first look. Nothing is kept of it, and nothing told.
    fn provisional(&self) -> Option<&str> {
        let watched = self.links.iter().filter(|tracked| tracked.watched());
        let carried = watched.map(|tracked| {
            let bytes = tracked.seen.map_or(0, |(raw, _)| raw.rx_bytes().saturating_add(raw.tx_bytes()));
            (tracked.link.ifindex, bytes)
        });
        let best = detect::provisional(carried, self.primary.route)?;
        self.links.iter().find(|tracked| tracked.link.ifindex == best).map(|tracked| tracked.link.name.as_str())
    }

    /// Whoever has the history now has the headline that went with it.
    pub(super) fn hand_on_primary(&mut self, gone: &str, heir: Option<&str>, now: Now) {
        if self.primary.chosen == gone && find(&self.links, gone).is_none() {
            self.primary.given_away = true;
            let owner = self.live.lock().config.said_by("primary");
            log::warn!(
                "{owner} names {gone}, which is no more: until it is there again the headline is found by traffic"
            );
        }
        if [&self.primary.chosen, &self.primary.found].contains(&&gone.to_string()) {
            self.find_primary(heir.unwrap_or_default().to_string(), now);
        }
        self.consider_primary(now);
    }

    /// Without a name another look begins.
    fn find_primary(&mut self, name: String, now: Now) {
        if name.is_empty() {
            self.primary.look_again(now);
        }
        self.live.lock().unsaved.keep_setting("primary_found", Some(name.clone()).filter(|name| !name.is_empty()));
        (self.primary.found, self.primary.alone) = (name, false);
    }
}
