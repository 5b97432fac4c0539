//! Which links are there. Whose history each goes on with is decided in `identity`; the name follows a rename.

use std::net::IpAddr;

use crate::clock::Now;
use crate::counter::Baseline;
use crate::detect::{self, Standing};
use crate::live::Iface;
use crate::model::{Address, Counters, EventKind, IfaceId, Kind, Link, Mark, Reading, Record};

use super::identity::{self, Boot, Candidate, End, Past, Present, Resume};
use super::{RELINK_MS, SHORTEST_RATE_MS, Sampler, State};

/// A link that is missing in so many looks is gone, even if none of them was whole.
const MISSED: u8 = 3;
/// A counter that falls again within this time is no news.
const DIP_QUIET_MS: u64 = 3_600_000;

/// A present link.
pub(super) struct Tracked {
    pub link: Link,
    pub kind: Kind,
    pub id: Option<IfaceId>,
    pub ignored: Option<String>,
    pub standing: Standing,
    /// In so many looks that were not whole, one after another, it was missing.
    pub missed: u8,
    /// It was seen to come: what it had counted before is known, and not ours.
    pub born: bool,
    /// Any of its counters was ever seen to be other than zero.
    pub active: bool,
    /// What the next reading is compared with; `None` when the next reading is only a beginning.
    pub base: Option<Baseline>,
    pub base_ms: u64,
    /// Whether this is the link and the boot that the base is of is not known: a counter that fell proves that it is not.
    pub unsure: bool,
    /// The first reading may be booked from zero.
    pub since_boot: Option<Boot>,
    /// Its history has its identity and its counters, from this run.
    pub anchored: bool,
    /// How to mark the next sample, where that is known beforehand.
    pub mark: Option<Mark>,
    /// When it was told that one of its counters fell.
    pub dip_told_ms: Option<u64>,
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

    /// A number can be given to another device before anybody has looked.
    fn is(&self, link: &Link) -> bool {
        let [one, other] = [self.link.node, link.node];
        self.link.ifindex == link.ifindex && (one == other || one == 0 || other == 0)
    }

    pub fn rebase(&mut self, counters: Counters, now: Now) {
        self.base = Some(Baseline::new(counters));
        self.base_ms = now.mono_ms;
        self.active |= !counters.is_zero();
    }

    /// Once in a while: a counter that goes to and fro must not push all else out of the list of events.
    pub fn tells_dip(&mut self, now: Now) -> bool {
        let tells = self.dip_told_ms.is_none_or(|told_ms| now.mono_ms >= told_ms + DIP_QUIET_MS);
        if tells {
            self.dip_told_ms = Some(now.mono_ms);
        }
        tells
    }

    /// Counting begins with the next reading.
    pub fn forget_base(&mut self) {
        (self.base, self.mark, self.unsure, self.since_boot) = (None, None, false, None);
    }

    /// Gives the reason where counting begins anew.
    pub fn resume(&mut self, resume: &Resume) -> Option<&'static str> {
        match *resume {
            Resume::From(End { counters, mono_ms, mark, unsure }) => {
                (self.base, self.base_ms) = (Some(Baseline::new(counters)), mono_ms);
                (self.mark, self.unsure) = (Some(mark), unsure);
            }
            Resume::SinceBoot(boot) => self.since_boot = Some(boot),
            Resume::Anew(why) => return Some(why),
        }
        None
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
    /// Looks at all links again.
    pub(super) fn relink(&mut self, now: Now) {
        let mut links = match self.source.links() {
            Ok(links) => links,
            Err(error) => {
                log::warn!("listing interfaces: {error}");
                self.relink_due_ms = Some(now.mono_ms + 10 * RELINK_MS);
                return;
            }
        };
        let whole = self.source.is_whole();
        self.ask_where();
        if self.looked_ms.is_none_or(|looked_ms| now.mono_ms >= looked_ms + RELINK_MS) {
            self.hurried = 0;
        }
        // A link in this list was reported before the list was made: without its report, which may have come since the
        // last look, it would seem to have no beginning. One that has gone since was dealt with.
        let heard = self.hear(now);
        links.retain(|link| !self.left.contains(&link.ifindex));
        self.relink_due_ms = (heard || !whole).then_some(now.mono_ms + RELINK_MS);
        for tracked in &mut self.links {
            let there = links.iter().any(|link| tracked.is(link));
            tracked.missed = if there { 0 } else { tracked.missed + if whole { MISSED } else { 1 } };
        }
        while let Some(at) = self.links.iter().position(|tracked| tracked.missed >= MISSED) {
            self.vanish(at, now);
        }
        let first_look = self.live.lock().inventory.interfaces.is_empty() && self.links.is_empty();
        let mut new = Vec::new();
        for link in links {
            match self.links.iter().position(|tracked| tracked.is(&link)) {
                Some(at) => self.update(at, link, now),
                None => new.push(link),
            }
        }
        let brought = self.appear(new, now, first_look);
        self.looked_ms = Some(now.mono_ms);
        // How each stands depends on those that came after it.
        self.judge_all();
        // A link that was reported after the list was made has its turn at the next look.
        let links = &self.links;
        self.births.retain(|birth| !links.iter().any(|tracked| tracked.link.ifindex == birth.ifindex));
        self.missed_reports = false;
        self.links.sort_by_key(|tracked| tracked.link.ifindex);
        self.note_newest();
        if brought {
            // A start after a crash must not take it for one that was made since the latest sample.
            self.live.lock().wishes.save_now = true;
        }
        self.primary.default_route(self.route, now);
        self.publish();
    }

    /// Which links carry addresses and the default route.
    fn ask_where(&mut self) {
        self.addresses = self.source.addresses().unwrap_or_else(|error| {
            log::debug!("listing addresses: {error}");
            Vec::new()
        });
        self.route = self.source.default_route().unwrap_or_else(|error| {
            log::debug!("default route: {error}");
            None
        });
    }

    /// Kept, so that the next start knows which links were made after this run.
    fn note_newest(&mut self) {
        let before = self.noted.unwrap_or_default();
        let newest = self.links.iter().fold(before, |newest, tracked| newest.or(&tracked.link));
        if self.noted != Some(newest) {
            self.noted = Some(newest);
            let text = newest.to_text(&self.stack);
            self.live.lock().unsaved.keep_setting("newest_link", Some(text));
        }
    }

    fn update(&mut self, at: usize, link: Link, now: Now) {
        let renamed = self.links[at].link.name != link.name;
        let before = std::mem::replace(&mut self.links[at].link, link);
        self.links[at].kind = detect::kind(&self.links[at].link);
        if renamed {
            self.rename(at, &before.name, now);
        }
        let Tracked { id, ref link, .. } = self.links[at];
        if before.mac != link.mac {
            let (mac, ifindex) = (link.mac.clone(), link.ifindex);
            let own = |record: &&mut Record| Some(record.id) == id && record.ifindex == ifindex;
            if let Some(record) = self.records.iter_mut().find(own) {
                record.mac = mac;
                remember(&mut self.live.lock(), record.clone());
            }
        }
    }

    /// History goes on under the new name. Where that name already has a history, it goes on with that one: a modem
    /// that is `eth1` for a second at every boot before udev names it must not start a new history each time.
    fn rename(&mut self, at: usize, before: &str, now: Now) {
        let after = self.links[at].link.name.clone();
        let present: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let free = |record: &Record| record.kind != Kind::Others && !present.contains(&record.id);
        let waiting = self.records.iter().position(|record| record.name == after && free(record));
        let current = self.links[at].id.and_then(|id| self.records.iter_mut().find(|record| record.id == id));
        if let Some(found) = waiting {
            if let Some(left) = current {
                // It keeps the link's identity until the other has its counters too: see `adopt`.
                left.lifetime = self.links[at].lifetime;
                remember(&mut self.live.lock(), left.clone());
            }
            let record = &self.records[found];
            (self.links[at].id, self.links[at].anchored) = (Some(record.id), false);
            self.links[at].lifetime = record.lifetime;
            self.links[at].mark.get_or_insert(Mark::Gap);
        } else if let Some(record) = current {
            record.name.clone_from(&after);
            remember(&mut self.live.lock(), record.clone());
        }
        self.tell_of_rename(at, before, now);
    }

    fn tell_of_rename(&mut self, at: usize, before: &str, now: Now) {
        let message = format!("{before} is now called {}", self.links[at].link.name);
        self.tell(at, now, EventKind::Renamed, &message, message.clone());
    }

    /// Links that were not there at the last look. Says whether one of them has brought a past along.
    pub(super) fn appear(&mut self, new: Vec<Link>, now: Now, first_look: bool) -> bool {
        let sure = !self.missed_reports;
        let birth = |link: &Link| {
            let birth = self.births.iter().find(|birth| birth.is_of(link, sure))?;
            Some((birth.ifindex, birth.counters, birth.mono_ms))
        };
        let births: Vec<_> = new.iter().map(birth).collect();
        let taken: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let free: Vec<&Record> = self.records.iter().filter(|record| !taken.contains(&record.id)).collect();
        let candidates: Vec<Candidate> =
            new.iter().zip(&births).map(|(link, birth)| Candidate::of(link, birth.is_some())).collect();
        let present = Present {
            stack: &self.stack,
            mono_ms: now.mono_ms,
            newest: if self.looked_ms.is_some() { self.noted } else { self.newest_before },
            looked_ms: self.looked_ms,
            last_seen: self.last_seen,
        };
        let pasts = identity::find(&candidates, &free, &present);
        let brought = births.iter().flatten().any(|(_, counters, _)| !counters.is_zero());
        let from = self.links.len();
        for ((link, birth), past) in new.into_iter().zip(&births).zip(&pasts) {
            let record = past.as_ref().map(|past| &past.record);
            self.links.push(Tracked {
                kind: detect::kind(&link),
                standing: Standing::default(),
                missed: 0,
                id: record.map(|record| record.id),
                ignored: None,
                born: birth.is_some(),
                active: record.is_some_and(was_active),
                base: None,
                base_ms: now.mono_ms,
                unsure: false,
                since_boot: None,
                anchored: false,
                mark: None,
                dip_told_ms: None,
                lifetime: record.map_or(Counters::ZERO, |record| record.lifetime),
                seen: None,
                rates: None,
                rates_ms: 0,
                slot: 0,
                link,
            });
        }
        for (at, (birth, past)) in (from..).zip(births.into_iter().zip(pasts)) {
            self.begin_link(at, birth, past, now, first_look);
        }
        brought
    }

    fn begin_link(
        &mut self,
        at: usize,
        birth: Option<(u32, Counters, u64)>,
        past: Option<Past>,
        now: Now,
        first_look: bool,
    ) {
        let mut why = None;
        let tracked = &mut self.links[at];
        match (birth, &past) {
            _ if self.paused => {}
            // Zero if it was made just now, what it brought along if it came from another namespace.
            (Some((_, counters, born_ms)), _) => {
                (tracked.base, tracked.base_ms) = (Some(Baseline::new(counters)), born_ms);
                tracked.mark = past.as_ref().map(|_| if counters.is_zero() { Mark::Reset } else { Mark::Gap });
            }
            (None, Some(past)) => why = tracked.resume(&past.resume),
            (None, None) => {}
        }
        self.judge(at);
        let Tracked { ref link, kind, born, .. } = self.links[at];
        let name = link.name.clone();
        let readdressed = past.as_ref().filter(|_| !born && why.is_none()).and_then(|past| past.readdressed(&link.mac));
        if !first_look {
            self.tell(at, now, EventKind::Appeared, &format!("{name} appeared"), format!("a {} link", kind.name()));
        }
        if let Some(why) = why.filter(|_| self.links[at].watched()) {
            self.tell(at, now, EventKind::Gap, &format!("{name}: {why}"), anew_detail(why));
        }
        if let Some(detail) = readdressed {
            self.tell(at, now, EventKind::HardwareAddress, &format!("{name}: {detail}"), detail.clone());
        }
        let Some(Past { end, record: past, .. }) = past else { return };
        if end.id != past.id {
            self.links[at].mark.get_or_insert(Mark::Gap);
        } else if let Some(record) = self.records.iter_mut().find(|record| record.id == past.id && record.name != name)
        {
            record.name = name.clone();
            remember(&mut self.live.lock(), record.clone());
        }
        if end.name != name {
            self.tell_of_rename(at, &end.name, now);
        }
    }

    /// The record takes on the link's present identity, and no other keeps it. Only together with an anchor: on disk
    /// an identity says whose counters `raw` are, and those of an earlier boot or link are not its.
    pub(super) fn adopt(&mut self, at: usize, state: &mut State) {
        let Tracked { id: Some(id), ref link, kind, .. } = self.links[at] else { return };
        for record in &mut self.records {
            let same = record.ifindex == link.ifindex && record.stack == self.stack;
            if record.id == id && !(same && record.kind == kind && record.mac == link.mac && record.node == link.node) {
                record.ifindex = link.ifindex;
                record.stack.clone_from(&self.stack);
                record.mac.clone_from(&link.mac);
                record.node = link.node;
                record.kind = kind;
            } else if record.id != id && identity::may_be(record, &Candidate::of(link, false), &self.stack) {
                record.ifindex = 0;
            } else {
                continue;
            }
            remember(state, record.clone());
        }
    }

    pub(super) fn vanish(&mut self, at: usize, now: Now) {
        let name = self.links[at].link.name.clone();
        let detail = "the link is gone; its history stays".to_string();
        self.tell(at, now, EventKind::Vanished, &format!("{name} vanished"), detail);
        let tracked = self.links.remove(at);
        if let Some(record) = tracked.id.and_then(|id| self.records.iter_mut().find(|record| record.id == id)) {
            record.lifetime = tracked.lifetime;
            record.raw = tracked.base.map_or(Counters::ZERO, |base| base.counters);
            record.mono_ms = tracked.base_ms;
            // The number may be given to another link, which this history must not take for its own.
            record.ifindex = 0;
            remember(&mut self.live.lock(), record.clone());
            self.spoken_of.retain(|id| *id != record.id);
            if tracked.link.altnames.iter().any(|name| self.wanted.speaks_of(name)) {
                self.spoken_of.push(record.id);
            }
        }
    }

    /// The cables of containers come and go by the hundred a day: what nobody watches must not push out of the bounded
    /// list what somebody does.
    fn tell(&mut self, at: usize, now: Now, kind: EventKind, message: &str, detail: String) {
        const MANY: [EventKind; 3] = [EventKind::Appeared, EventKind::Vanished, EventKind::Renamed];
        let tracked = &self.links[at];
        let counts = tracked.watched() || tracked.id.is_some();
        if counts && (!MANY.contains(&kind) || self.quiet.tells(now)) {
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
        let id = self.new_id();
        let tracked = &mut self.links[at];
        tracked.id = Some(id);
        let record = Record {
            id,
            name: tracked.link.name.clone(),
            kind: tracked.kind,
            alias: String::new(),
            ifindex: tracked.link.ifindex,
            stack: self.stack.clone(),
            mac: tracked.link.mac.clone(),
            node: tracked.link.node,
            first_seen: now.unix_ms.div_euclid(1000),
            last_seen: 0,
            raw: Counters::ZERO,
            lifetime: Counters::ZERO,
            mono_ms: now.mono_ms,
        };
        if let Some(iface) = state.inventory.interfaces.get_mut(tracked.slot) {
            iface.id = Some(id);
        }
        remember(state, record.clone());
        self.records.push(record);
        self.fresh = true;
        id
    }

    pub(super) fn new_id(&mut self) -> IfaceId {
        self.last_id = self.records.iter().map(|record| record.id).fold(self.last_id, IfaceId::max) + 1;
        self.last_id
    }

    pub(super) fn judge_all(&mut self) {
        for at in 0..self.links.len() {
            self.judge(at);
        }
    }

    fn judge(&mut self, at: usize) {
        let Link { ifindex, master, .. } = self.links[at].link;
        let beside = |other: &Tracked| other.link.master == master && other.link.ifindex != ifindex;
        let beside_others = master != 0 && self.links.iter().any(beside);
        let leads_on = |address: &Address| address.ifindex == ifindex && !is_local(address.ip);
        let is_end = self.route == Some(ifindex) || self.addresses.iter().any(leads_on);
        let tracked = &mut self.links[at];
        let before = tracked.watched();
        // An address may go for a moment: that is no reason to stop counting.
        tracked.standing = Standing { is_end: is_end || tracked.standing.is_end, beside_others };
        tracked.ignored = detect::ignored_because(&tracked.link, tracked.kind, tracked.standing, &self.wanted);
        if before && !tracked.watched() {
            // Should it be watched again, counting begins then.
            tracked.forget_base();
        }
        self.newly_watched |= !before && self.links[at].watched();
    }

    pub(super) fn forget_bases(&mut self) {
        self.links.iter_mut().for_each(Tracked::forget_base);
    }

    /// Shows the inventory to the readers.
    pub(super) fn publish(&mut self) {
        self.fold_excess();
        self.name_others();
        let mut shown: Vec<Iface> = self.links.iter().map(|tracked| self.show(tracked, &self.addresses)).collect();
        let present: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let kept = |record: &&Record| !present.contains(&record.id) && was_active(record);
        shown.extend(self.records.iter().filter(kept).map(absent));
        shown.sort_by(|one, other| one.name.cmp(&other.name).then(other.ifindex.cmp(&one.ifindex)));
        for tracked in &mut self.links {
            let slot = shown.iter().position(|iface| iface.ifindex == tracked.link.ifindex);
            tracked.slot = slot.unwrap_or(usize::MAX);
        }
        self.live.lock().inventory.interfaces = shown;
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

/// An address that leads nowhere beyond the link: every link that is up has one in IPv6.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn absent(record: &Record) -> Iface {
    let why = match record.kind {
        Kind::Others => "what many interfaces that are gone have carried",
        _ => "not there now; its history is kept",
    };
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
        ignored_because: Some(why.to_string()),
        raw: Counters::ZERO,
        rates: None,
        lifetime: record.lifetime,
    }
}

pub(super) fn anew_detail(why: &str) -> String {
    format!("counting begins anew, and nothing is booked for the time before: {why}")
}

/// Something was seen to move on it, now or in an earlier run.
pub(super) fn was_active(record: &Record) -> bool {
    !(record.raw.is_zero() && record.lifetime.is_zero())
}

/// Has the writer save an identity.
pub(super) fn remember(state: &mut State, record: Record) {
    state.unsaved.records.retain(|known| known.id != record.id);
    state.unsaved.records.push(record);
}
