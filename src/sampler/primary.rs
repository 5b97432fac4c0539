//! Chooses the primary interface, whose figures the page shows first: the user's choice, or the only watched interface,
//! or what ten seconds of traffic show: the interface of the default route if it has enough traffic, else the busiest.
//! If the default route moves to another interface and stays there, the choice is made again.

use crate::clock::Now;
use crate::detect::{self, PrimaryCandidate};
use crate::model::{Counters, EventKind, RX_PACKETS, TX_PACKETS};

use super::{Sampler, Tracked, find_link};

/// Traffic is observed for at least this time before a choice.
const OBSERVATION_MS: u64 = 10_000;
/// A default route that moved, for example to a backup modem, must stay this long before the primary interface follows.
const ROUTE_SETTLE_MS: u64 = 600_000;

pub(super) struct Primary {
    /// The user's choice; empty for none.
    chosen: String,
    /// The chosen interface was merged or forgotten, but a flag still names it. The choice is ignored until a link has
    /// that name again.
    choice_suspended: bool,
    /// Chosen by traffic, or because it is the only watched interface; empty for none yet.
    found: String,
    /// `found` was chosen without traffic, because it is the only watched interface. As soon as there is another,
    /// traffic decides. Not saved, because the next run may know more.
    is_only_watched: bool,
    /// The absent interface that traffic had chosen before; empty for none. It becomes primary again when it appears.
    previous: String,
    /// ifindex of the link that has the default route, and the monotonic time when this changed last.
    route: Option<u32>,
    route_since_ms: u64,
    /// Start of the present observation: (ifindex, counters, monotonic time).
    observations: Vec<(u32, Counters, u64)>,
    /// Traffic of the present observation. Kept between readings to reuse its memory: after ten seconds without
    /// traffic, it is computed at every reading.
    candidates: Vec<PrimaryCandidate>,
    /// Monotonic time when a reading is needed: at the start and at the end of an observation. `None` if only readings
    /// that are taken anyway are used.
    next_ms: Option<u64>,
    /// The first reading of the observation was taken.
    observing: bool,
}

impl Primary {
    pub fn new(chosen: String) -> Primary {
        Primary {
            chosen,
            choice_suspended: false,
            found: String::new(),
            is_only_watched: false,
            previous: String::new(),
            route: None,
            route_since_ms: 0,
            observations: Vec::new(),
            candidates: Vec::new(),
            next_ms: None,
            observing: false,
        }
    }

    /// Restores the choice of an earlier run, which overrides the one of this run: a slow disk must not change the
    /// primary interface. Returns whether the earlier run had found one.
    pub fn restore(&mut self, chosen: String, found: String) -> bool {
        let known = !found.is_empty();
        self.chosen = chosen;
        if known && self.is_only_watched && found != self.found {
            self.previous = found;
        } else if known {
            (self.found, self.is_only_watched) = (found, false);
        }
        known
    }

    /// Starts the first observation: requests a reading now and one ten seconds later. After these, only readings that
    /// are taken anyway are used.
    pub fn begin(&mut self, now: Now) {
        self.next_ms = Some(now.mono_ms);
    }

    /// The user has changed or removed the choice: a new observation starts.
    pub fn choose(&mut self, chosen: String, now: Now) {
        (self.chosen, self.choice_suspended) = (chosen, false);
        self.restart_observation(now);
    }

    fn restart_observation(&mut self, now: Now) {
        self.observations.clear();
        (self.observing, self.next_ms) = (false, Some(now.mono_ms));
    }

    pub fn due(&self, now: Now) -> bool {
        self.next_ms.is_some_and(|next| now.mono_ms >= next)
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.next_ms
    }

    pub fn set_default_route(&mut self, route: Option<u32>, now: Now) {
        if self.route != route {
            (self.route, self.route_since_ms) = (route, now.mono_ms);
        }
    }

    /// Computes the traffic of each watched link that was observed long enough.
    fn update_candidates(&mut self, links: &[Tracked], now: Now) {
        self.candidates.clear();
        // Links that are gone are removed, or the list would grow with links that come and go.
        self.observations.retain(|(known, ..)| links.iter().any(|tracked| tracked.link.ifindex == *known));
        for tracked in links.iter().filter(|tracked| tracked.watched()) {
            let Some((after, _)) = tracked.last_reading else { continue };
            let ifindex = tracked.link.ifindex;
            let Some((_, before, since_ms)) = self.observations.iter().find(|(known, ..)| *known == ifindex) else {
                self.observations.push((ifindex, after, now.mono_ms));
                continue;
            };
            let rise = |at: usize| after.0[at].saturating_sub(before.0[at]);
            let elapsed_ms = now.mono_ms.saturating_sub(*since_ms);
            if elapsed_ms >= OBSERVATION_MS {
                let bytes = rise(0).saturating_add(rise(1));
                let packets = rise(RX_PACKETS).saturating_add(rise(TX_PACKETS));
                self.candidates.push(PrimaryCandidate { ifindex, bytes, packets, elapsed_ms });
            }
        }
    }

    fn has_choice(&self) -> bool {
        !self.chosen.is_empty() && !self.choice_suspended
    }

    pub fn name(&self) -> &str {
        if self.has_choice() { &self.chosen } else { &self.found }
    }
}

impl Sampler {
    /// Called after each reading, and when a setting or a command may have changed the primary interface.
    pub(super) fn update_primary(&mut self, now: Now) {
        let primary = &mut self.primary;
        if primary.due(now) {
            // The end is scheduled only once. If nothing is found at that time, later readings decide.
            primary.next_ms = (!primary.observing).then_some(now.mono_ms + OBSERVATION_MS);
            primary.observing = true;
        }
        primary.choice_suspended &= find_link(&self.links, &primary.chosen).is_none();
        if find_link(&self.links, &primary.found).is_some_and(|tracked| !tracked.watched()) {
            // The interface is not counted any more.
            self.replace_found_primary(String::new(), now);
        }
        self.choose_only_watched(now);
        self.publish_primary();
        if self.primary.has_choice() || self.is_settled(now) {
            return;
        }
        self.primary.update_candidates(&self.links, now);
        let primary = &mut self.primary;
        let best = detect::primary(&primary.candidates, primary.route);
        let Some(tracked) = best.and_then(|best| self.links.iter().find(|tracked| tracked.link.ifindex == best)) else {
            return;
        };
        let name = tracked.link.name.clone();
        primary.observations.clear();
        let is_only_watched = std::mem::take(&mut primary.is_only_watched);
        if name == primary.found && !is_only_watched {
            return;
        }
        if name != primary.found {
            self.set_found_primary(&name, now, "chosen by its traffic");
        }
        self.live.lock().unsaved.queue_setting("primary_found", Some(name));
    }

    /// Traffic has chosen an interface, and the default route gives no reason to choose again.
    fn is_settled(&self, now: Now) -> bool {
        let primary = &self.primary;
        let current = find_link(&self.links, primary.name()).filter(|_| !primary.is_only_watched);
        current.is_some_and(|tracked| {
            primary.route.is_none_or(|route| route == tracked.link.ifindex)
                || now.mono_ms < primary.route_since_ms + ROUTE_SETTLE_MS
        })
    }

    fn set_found_primary(&mut self, name: &str, now: Now, why: &str) {
        log::info!("primary interface: {name}");
        self.add_event(now, EventKind::Primary, name, why.to_string());
        self.primary.found = name.to_string();
        self.publish_primary();
    }

    /// Chooses the only watched interface, without looking at traffic. If traffic had chosen an interface that is
    /// absent now, an observation must pass first: a modem that reconnects is back within seconds.
    pub(super) fn choose_only_watched(&mut self, now: Now) {
        if self.primary.has_choice() {
            return;
        }
        if self.primary.is_only_watched && find_link(&self.links, &self.primary.previous).is_some_and(Tracked::watched)
        {
            let previous = std::mem::take(&mut self.primary.previous);
            self.primary.is_only_watched = false;
            self.set_found_primary(&previous, now, "chosen earlier by its traffic");
        }
        let primary = &self.primary;
        if find_link(&self.links, &primary.found).is_some() {
            return;
        }
        let watched = self.links.iter().filter(|tracked| tracked.watched()).map(|tracked| tracked.link.ifindex);
        let Some(only) = detect::sole_interface(watched, primary.route) else { return };
        let observed = |(ifindex, _, since_ms): &(u32, Counters, u64)| {
            *ifindex == only && now.mono_ms >= since_ms + OBSERVATION_MS
        };
        if !primary.found.is_empty() && !primary.is_only_watched && !primary.observations.iter().any(observed) {
            return;
        }
        let Some(tracked) = self.links.iter().find(|tracked| tracked.link.ifindex == only) else { return };
        let name = tracked.link.name.clone();
        if !std::mem::replace(&mut self.primary.is_only_watched, true) {
            self.primary.previous = std::mem::take(&mut self.primary.found);
        }
        self.set_found_primary(&name, now, "the only watched interface");
    }

    /// Publishes the kernel's name of the interface, even if the setting names it by an altname.
    pub(super) fn publish_primary(&self) {
        let requested = Some(self.primary.name()).filter(|name| !name.is_empty());
        let known = requested
            .map(|requested| find_link(&self.links, requested).map_or(requested, |tracked| &tracked.link.name));
        let name = known.or_else(|| self.provisional());
        let mut state = self.live.lock();
        if state.inventory.primary.as_deref() != name {
            state.inventory.primary = name.map(str::to_string);
        }
    }

    /// The interface that the page shows first until an observation finds one. It is neither saved nor reported.
    fn provisional(&self) -> Option<&str> {
        let watched = self.links.iter().filter(|tracked| tracked.watched());
        let carried = watched.map(|tracked| {
            let bytes = tracked.last_reading.map_or(0, |(raw, _)| raw.rx_bytes().saturating_add(raw.tx_bytes()));
            (tracked.link.ifindex, bytes)
        });
        let best = detect::provisional_primary(carried, self.primary.route)?;
        self.links.iter().find(|tracked| tracked.link.ifindex == best).map(|tracked| tracked.link.name.as_str())
    }

    /// Called after a merge or a forget. If the removed interface was primary, the one that got its history becomes
    /// primary.
    pub(super) fn move_primary(&mut self, gone: &str, successor: Option<&str>, now: Now) {
        if self.primary.chosen == gone && find_link(&self.links, gone).is_none() {
            self.primary.choice_suspended = true;
            let owner = self.live.lock().config.set_by("primary");
            log::warn!(
                "{owner} names {gone}, which was merged or forgotten: traffic chooses the primary interface until \
                 {gone} appears again"
            );
        }
        if [&self.primary.chosen, &self.primary.found].contains(&&gone.to_string()) {
            self.replace_found_primary(successor.unwrap_or_default().to_string(), now);
        }
        self.update_primary(now);
    }

    /// Replaces and saves the found interface. An empty name removes it and starts a new observation.
    fn replace_found_primary(&mut self, name: String, now: Now) {
        if name.is_empty() {
            self.primary.restart_observation(now);
        }
        self.live.lock().unsaved.queue_setting("primary_found", Some(name.clone()).filter(|name| !name.is_empty()));
        (self.primary.found, self.primary.is_only_watched) = (name, false);
    }
}
