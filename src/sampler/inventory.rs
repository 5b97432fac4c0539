//! Which links are there, and whose history they go on with. Identity is ifindex and boot; the name follows a rename.

use crate::clock::Now;
use crate::detect;
use crate::live::Iface;
use crate::model::{Address, Counters, EventKind, IfaceId, Kind, Link, Mark, Reading, Record};
use crate::source::LinkEvent;

use super::{RELINK_MS, SHORTEST_RATE_MS, Sampler, State};

/// A present link.
pub(super) struct Tracked {
    pub link: Link,
    pub kind: Kind,
    pub id: Option<IfaceId>,
    pub ignored: Option<String>,
    /// It was seen to come: what it had counted before is known, and not ours.
    pub born: bool,
    /// Any of its counters was ever seen to be other than zero.
    pub active: bool,
    /// What the next reading is compared with; `None` when the next reading is only a beginning.
    pub base: Option<Counters>,
    pub base_ms: u64,
    /// How to mark the next sample, where that is known beforehand.
    pub mark: Option<Mark>,
    pub held: bool,
    pub lifetime: Counters,
    pub seen: Option<(Counters, u64)>,
    pub rates: Option<(u64, u64)>,
    /// The stretch that the rates are the mean of.
    pub rates_ms: u64,
    /// Its place in `State::interfaces`.
    pub slot: usize,
}

impl Tracked {
    pub fn watched(&self) -> bool {
        self.ignored.is_none()
    }

    pub fn rebase(&mut self, counters: Counters, now: Now) {
        self.base = Some(counters);
        self.base_ms = now.mono_ms;
        self.active |= !counters.is_zero();
    }

    pub fn observe(&mut self, reading: &Reading, now: Now) {
        let Some((before, at_ms)) = self.seen else {
            self.seen = Some((reading.counters, now.mono_ms));
            return;
        };
        let elapsed_ms = now.mono_ms.saturating_sub(at_ms);
        if elapsed_ms < SHORTEST_RATE_MS {
            return;
        }
        self.rates_ms = elapsed_ms;
        let rate = |before: u64, after: u64| {
            let bytes = u128::from(after.saturating_sub(before));
            u64::try_from(bytes * 1000 / u128::from(elapsed_ms)).unwrap_or(u64::MAX)
        };
        let after = reading.counters;
        self.rates = Some((rate(before.rx_bytes(), after.rx_bytes()), rate(before.tx_bytes(), after.tx_bytes())));
        self.seen = Some((after, now.mono_ms));
    }
}

impl Sampler {
    /// Takes in what the kernel reported. The counters that a new link was reported with are kept at once: they tell a
    /// link that was just made from one that was moved in with a past.
    pub(super) fn hear(&mut self, now: Now) {
        let mut reports = std::mem::take(&mut self.reports);
        reports.clear();
        if let Err(error) = self.source.events(&mut reports) {
            log::warn!("link events: {error}");
        }
        for report in &reports {
            match *report {
                LinkEvent::Seen { ifindex, counters } => {
                    let known = self.links.iter().any(|link| link.link.ifindex == ifindex)
                        || self.births.iter().any(|(known, ..)| *known == ifindex);
                    if !known {
                        self.births.push((ifindex, counters, now.mono_ms));
                    }
                }
                LinkEvent::Gone { ifindex, last } => {
                    self.births.retain(|(known, ..)| *known != ifindex);
                    if let Some(at) = self.links.iter().position(|link| link.link.ifindex == ifindex) {
                        if let Some(counters) = last {
                            self.book_last(at, counters, now);
                        }
                        self.vanish(at, now);
                    }
                }
                LinkEvent::Lost => self.births.clear(),
                LinkEvent::Changed { .. } | LinkEvent::Addresses => {}
            }
        }
        self.reports = reports;
        self.relink_due_ms = Some(now.mono_ms.max(self.relinked_ms + RELINK_MS));
        if self.births.iter().any(|(.., born)| *born == now.mono_ms) {
            // Something new: look now, so that its first sample is not late.
            self.relink_due_ms = Some(now.mono_ms);
        }
    }

    /// Looks at all links again.
    pub(super) fn relink(&mut self, now: Now) {
        self.relinked_ms = now.mono_ms;
        let links = match self.source.links() {
            Ok(links) => links,
            Err(error) => {
                log::warn!("listing interfaces: {error}");
                self.relink_due_ms = Some(now.mono_ms + 10 * RELINK_MS);
                return;
            }
        };
        // A link in this list was reported before the list was made: without its report, which may have come since the
        // last look, it would seem to have no beginning.
        self.hear(now);
        self.relink_due_ms = (!self.reports.is_empty()).then_some(now.mono_ms + RELINK_MS);
        let gone = |links: &[Link], tracked: &Tracked| !links.iter().any(|link| link.ifindex == tracked.link.ifindex);
        while let Some(at) = self.links.iter().position(|tracked| gone(&links, tracked)) {
            self.vanish(at, now);
        }
        let first_look = self.live.lock().interfaces.is_empty() && self.links.is_empty();
        for link in links {
            match self.links.iter().position(|tracked| tracked.link.ifindex == link.ifindex) {
                Some(at) => self.update(at, link, now),
                None => self.appear(link, now, first_look),
            }
        }
        // A link that was reported after the list was made has its turn at the next look.
        let links = &self.links;
        self.births.retain(|(ifindex, ..)| !links.iter().any(|tracked| tracked.link.ifindex == *ifindex));
        self.links.sort_by_key(|tracked| tracked.link.ifindex);
        let route = self.source.default_route().unwrap_or_else(|error| {
            log::debug!("default route: {error}");
            None
        });
        self.primary.default_route(route, now);
        self.publish();
    }

    fn update(&mut self, at: usize, link: Link, now: Now) {
        let renamed = self.links[at].link.name != link.name;
        let before = std::mem::replace(&mut self.links[at].link, link);
        self.links[at].kind = detect::kind(&self.links[at].link);
        self.judge(at);
        if renamed {
            self.rename(at, &before.name, now);
        }
    }

    /// History goes on under the new name. Where that name already has a history, it goes on with that one: a modem
    /// that is `eth1` for a second at every boot before udev names it must not start a new history each time.
    fn rename(&mut self, at: usize, before: &str, now: Now) {
        let after = self.links[at].link.name.clone();
        let present: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let waiting = self.records.iter().position(|record| record.name == after && !present.contains(&record.id));
        let current = self.links[at].id.and_then(|id| self.records.iter_mut().find(|record| record.id == id));
        if let Some(found) = waiting {
            if let Some(left) = current {
                left.lifetime = self.links[at].lifetime;
                left.ifindex = 0;
                remember(&mut self.live.lock(), left.clone());
            }
            let record = &self.records[found];
            self.links[at].id = Some(record.id);
            self.links[at].lifetime = record.lifetime;
            self.links[at].mark.get_or_insert(Mark::Gap);
        } else if let Some(record) = current {
            record.name.clone_from(&after);
            remember(&mut self.live.lock(), record.clone());
        }
        let message = format!("{before} is now called {after}");
        self.tell(at, now, EventKind::Renamed, &message, message.clone());
    }

    /// A link that was not there at the last look.
    fn appear(&mut self, link: Link, now: Now, first_look: bool) {
        let kind = detect::kind(&link);
        let ifindex = link.ifindex;
        let birth = self.births.iter().find(|(ifindex, ..)| *ifindex == link.ifindex).copied();
        let taken: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let free = |record: &&Record| !taken.contains(&record.id);
        let came_back = |record: &Record| self.gone.contains(&(record.id, ifindex));
        let same_link = birth.is_none().then_some((self.boot.as_str(), ifindex));
        let record = past_of(self.records.iter().filter(free), same_link, &link.name);
        let mut tracked = Tracked {
            kind,
            id: record.map(|record| record.id),
            ignored: None,
            born: birth.is_some(),
            active: record.is_some_and(was_active),
            base: None,
            base_ms: now.mono_ms,
            mark: None,
            held: false,
            lifetime: record.map_or(Counters::ZERO, |record| record.lifetime),
            seen: None,
            rates: None,
            rates_ms: 0,
            slot: 0,
            link,
        };
        let renamed = record.filter(|record| record.name != tracked.link.name).map(|record| record.name.clone());
        match (birth, record) {
            // Zero if it was made just now, what it brought along if it came from another namespace.
            (Some((_, counters, born_ms)), _) => {
                (tracked.base, tracked.base_ms) = (Some(counters), born_ms);
                tracked.mark = record.map(|_| if counters.is_zero() { Mark::Reset } else { Mark::Gap });
            }
            // It went and came back as it was: from another namespace, with what it carried there.
            (None, Some(record)) if came_back(record) => {}
            // Nobody has counted it so far.
            (None, Some(record)) if record.boot.is_empty() => {}
            (None, Some(record)) => {
                let (base, base_ms, mark) = end_of(record, &self.boot, ifindex);
                (tracked.base, tracked.base_ms, tracked.mark) = (Some(base), base_ms, Some(mark));
            }
            (None, None) => {}
        }
        if self.paused {
            tracked.base = None;
        }
        if let Some(id) = tracked.id {
            self.gone.retain(|(known, _)| *known != id);
        }
        self.links.push(tracked);
        let at = self.links.len() - 1;
        self.judge(at);
        if !first_look {
            let name = self.links[at].link.name.clone();
            self.tell(at, now, EventKind::Appeared, &format!("{name} appeared"), format!("a {} link", kind.name()));
        }
        if let Some(before) = renamed {
            self.rename(at, &before, now);
        }
    }

    /// The record takes on the link's present identity, and no other keeps it. Only together with an anchor: on disk
    /// an identity says whose counters `raw` are, and those of an earlier boot or link are not its.
    pub(super) fn adopt(&mut self, at: usize, state: &mut State) {
        let Tracked { id: Some(id), ref link, kind, .. } = self.links[at] else { return };
        for record in &mut self.records {
            let same = record.ifindex == link.ifindex && record.boot == self.boot;
            if record.id == id && !(same && record.kind == kind) {
                record.ifindex = link.ifindex;
                record.boot.clone_from(&self.boot);
                record.kind = kind;
            } else if record.id != id && same {
                record.ifindex = 0;
            } else {
                continue;
            }
            remember(state, record.clone());
        }
    }

    fn vanish(&mut self, at: usize, now: Now) {
        let name = self.links[at].link.name.clone();
        let detail = "the link is gone; its history stays".to_string();
        self.tell(at, now, EventKind::Vanished, &format!("{name} vanished"), detail);
        let tracked = self.links.remove(at);
        if let Some(record) = tracked.id.and_then(|id| self.records.iter_mut().find(|record| record.id == id)) {
            record.lifetime = tracked.lifetime;
            record.raw = tracked.base.unwrap_or_default();
            record.mono_ms = tracked.base_ms;
            self.gone.push((record.id, tracked.link.ifindex));
            // The number may be given to another link, which this history must not take for its own.
            record.ifindex = 0;
            remember(&mut self.live.lock(), record.clone());
        }
    }

    /// The cables of containers come and go by the hundred a day: what nobody watches must not push out of the bounded
    /// list what somebody does.
    fn tell(&self, at: usize, now: Now, kind: EventKind, message: &str, detail: String) {
        let tracked = &self.links[at];
        if tracked.watched() || tracked.id.is_some() {
            log::info!("{message}");
            self.event(now, kind, &tracked.link.name, detail);
        } else {
            log::debug!("{message}");
        }
    }

    /// The history's number of a link, made when it is first watched: that it stood at zero is worth knowing after a restart.
    pub(super) fn identify(&mut self, at: usize, state: &mut State, now: Now) -> IfaceId {
        if let Some(id) = self.id_of(at) {
            return id;
        }
        let tracked = &mut self.links[at];
        let id = self.records.iter().map(|record| record.id).max().unwrap_or(0).max(self.last_id) + 1;
        self.last_id = id;
        tracked.id = Some(id);
        let record = Record {
            id,
            name: tracked.link.name.clone(),
            kind: tracked.kind,
            alias: String::new(),
            ifindex: tracked.link.ifindex,
            boot: self.boot.clone(),
            first_seen: now.unix_ms.div_euclid(1000),
            last_seen: 0,
            raw: Counters::ZERO,
            lifetime: Counters::ZERO,
            mono_ms: now.mono_ms,
        };
        if let Some(iface) = state.interfaces.get_mut(tracked.slot) {
            iface.id = Some(id);
        }
        remember(state, record.clone());
        self.records.push(record);
        self.fresh = true;
        id
    }

    pub(super) fn judge_all(&mut self) {
        for at in 0..self.links.len() {
            self.judge(at);
        }
    }

    fn judge(&mut self, at: usize) {
        let tracked = &mut self.links[at];
        let before = tracked.watched();
        let Link { name, altnames, .. } = &tracked.link;
        tracked.ignored = detect::ignored_because(name, altnames, tracked.kind, &self.wanted);
        if before && !tracked.watched() {
            // Should it be watched again, counting begins then.
            (tracked.base, tracked.mark) = (None, None);
        }
        self.newly_watched |= !before && self.links[at].watched();
    }

    pub(super) fn forget_bases(&mut self) {
        for tracked in &mut self.links {
            (tracked.base, tracked.mark, tracked.held) = (None, None, false);
        }
    }

    /// Shows the inventory to the readers.
    pub(super) fn publish(&mut self) {
        let addresses = self.source.addresses().unwrap_or_else(|error| {
            log::debug!("listing addresses: {error}");
            Vec::new()
        });
        let mut shown: Vec<Iface> = self.links.iter().map(|tracked| self.show(tracked, &addresses)).collect();
        let present: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let kept = |record: &&Record| !present.contains(&record.id) && was_active(record);
        shown.extend(self.records.iter().filter(kept).map(absent));
        shown.sort_by(|one, other| one.name.cmp(&other.name).then(other.ifindex.cmp(&one.ifindex)));
        for tracked in &mut self.links {
            let slot = shown.iter().position(|iface| iface.ifindex == tracked.link.ifindex);
            tracked.slot = slot.unwrap_or(usize::MAX);
        }
        self.live.lock().interfaces = shown;
    }

    fn show(&self, tracked: &Tracked, addresses: &[Address]) -> Iface {
        let link = &tracked.link;
        let above = if link.master != 0 { link.master } else { link.lower };
        let parent = self.links.iter().find(|other| above != 0 && other.link.ifindex == above);
        let record = tracked.id.and_then(|id| self.records.iter().find(|record| record.id == id));
        let alias = record.map(|record| &record.alias).filter(|alias| !alias.is_empty()).unwrap_or(&link.alias);
        let waiting =
            (tracked.watched() && !tracked.active).then(|| "no traffic yet: kept from its first byte on".to_string());
        Iface {
            id: tracked.id,
            ifindex: link.ifindex,
            name: link.name.clone(),
            altnames: link.altnames.clone(),
            kind: tracked.kind,
            mac: link.mac.clone(),
            mtu: link.mtu,
            speed: link.speed,
            up: link.up,
            alias: alias.clone(),
            addresses: addresses.iter().filter(|address| address.ifindex == link.ifindex).cloned().collect(),
            parent: parent.map(|other| other.link.name.clone()),
            monitored: tracked.watched() && tracked.active,
            ignored_because: tracked.ignored.clone().or(waiting),
            raw: tracked.seen.map_or(Counters::ZERO, |(counters, _)| counters),
            rates: tracked.rates,
            lifetime: tracked.lifetime,
        }
    }
}

fn absent(record: &Record) -> Iface {
    Iface {
        id: Some(record.id),
        ifindex: 0,
        name: record.name.clone(),
        altnames: Vec::new(),
        kind: record.kind,
        mac: String::new(),
        mtu: 0,
        speed: None,
        up: false,
        alias: record.alias.clone(),
        addresses: Vec::new(),
        parent: None,
        monitored: false,
        ignored_because: Some("not there now; its history is kept".to_string()),
        raw: Counters::ZERO,
        rates: None,
        lifetime: record.lifetime,
    }
}

/// Whose history a link goes on with: the one of the same link (its boot and number), which may have another name by now,
/// else the one of its name.
pub(super) fn past_of<'a>(
    records: impl Iterator<Item = &'a Record> + Clone,
    same_link: Option<(&str, u32)>,
    name: &str,
) -> Option<&'a Record> {
    let same = |record: &&Record| same_link == Some((record.boot.as_str(), record.ifindex));
    let named = |record: &&Record| record.name == name;
    let find = |which: &dyn Fn(&&Record) -> bool| records.clone().find(|record| which(record));
    find(&|record| same(record) && named(record)).or_else(|| find(&same)).or_else(|| find(&named))
}

/// Where a history ends for a link that goes on with it: the counters and the time to compare its next reading with, and
/// what to call the difference.
pub(super) fn end_of(record: &Record, boot: &str, ifindex: u32) -> (Counters, u64, Mark) {
    // The same link on the same boot: what passed while nobody looked is real.
    if record.boot == boot && record.ifindex == ifindex {
        return (record.raw, record.mono_ms, Mark::Gap);
    }
    // Made anew on this boot, or counted from zero since the machine started.
    (Counters::ZERO, if record.boot == boot { record.mono_ms } else { 0 }, Mark::Reset)
}

/// Something was seen to move on it, now or in an earlier run.
pub(super) fn was_active(record: &Record) -> bool {
    !(record.raw.is_zero() && record.lifetime.is_zero())
}

/// Has the writer save an identity.
pub(super) fn remember(state: &mut State, record: Record) {
    state.records.retain(|known| known.id != record.id);
    state.records.push(record);
}
