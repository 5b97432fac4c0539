//! Keeps the list of present links up to date from listings and notifications. `identity` decides which stored history
//! each link continues. After a rename the history continues under the new name.

use std::net::IpAddr;

use crate::clock::Now;
use crate::counter::Baseline;
use crate::detect::{self, LinkRole};
use crate::live::Iface;
use crate::model::{Address, Counters, EventKind, IfaceId, InterfaceKind, Link, Reading, Record, SampleQuality};

use super::identity::{self, BootCheck, Continuation, LinkIdentity, Resume, StartPoint, ThisRun};
use super::{LISTING_INTERVAL_MS, SHORTEST_RATE_MS, Sampler, State};

/// A link is gone if it is missing from this many incomplete listings in a row, or from one complete listing.
const MAX_MISSING_LISTINGS: u8 = 3;
/// Minimum time between two events about falling counters of one interface.
const DIP_EVENT_INTERVAL_MS: u64 = 3_600_000;

/// A present link with the state of its counting.
pub(super) struct Tracked {
    pub link: Link,
    pub kind: InterfaceKind,
    pub id: Option<IfaceId>,
    /// Why the link is not watched, as text for the user; `None` if it is watched.
    pub ignored_because: Option<String>,
    pub role: LinkRole,
    /// Number of consecutive listings without the link; a complete listing counts `MAX_MISSING_LISTINGS`.
    pub missing_listings: u8,
    /// A notification announced the link, so its counters at that moment are known. They are not counted.
    pub arrival_seen: bool,
    /// At least one of its counters was seen above zero, in this run or in an earlier one.
    pub had_traffic: bool,
    /// The next reading is compared with it; `None` if the next reading only sets it.
    pub baseline: Option<Baseline>,
    /// Monotonic time of the baseline.
    pub baseline_ms: u64,
    /// It is not known whether the baseline belongs to this link and this boot. A counter that fell proves that it does
    /// not.
    pub uncertain: bool,
    /// Set if the first reading may have to be counted from zero.
    pub since_boot: Option<BootCheck>,
    /// This run has queued an anchor, so the next save gives the record this link's identity and counters.
    pub anchored: bool,
    /// Quality of the next sample, if it is known in advance.
    pub quality: Option<SampleQuality>,
    /// Monotonic time of the latest event about a fallen counter.
    pub dip_reported_ms: Option<u64>,
    pub lifetime: Counters,
    /// Counters and monotonic time of the reading that the next rate is computed from.
    pub last_reading: Option<(Counters, u64)>,
    /// Received and sent bytes per second.
    pub rates: Option<(u64, u64)>,
    /// Length of the time over which `rates` is the mean.
    pub rates_span_ms: u64,
    /// Index in `Inventory::interfaces`.
    pub inventory_index: usize,
}

impl Tracked {
    pub fn watched(&self) -> bool {
        self.ignored_because.is_none()
    }

    /// Compares the device too: the kernel can give the ifindex to another device between two listings. An unknown
    /// device matches any.
    fn is_same_link(&self, link: &Link) -> bool {
        let [one, other] = [self.link.inode, link.inode];
        self.link.ifindex == link.ifindex && (one == other || one == 0 || other == 0)
    }

    pub fn set_baseline(&mut self, counters: Counters, now: Now) {
        self.baseline = Some(Baseline::new(counters));
        self.baseline_ms = now.mono_ms;
        self.had_traffic |= !counters.is_zero();
    }

    /// Limits the events about fallen counters, so that a counter that jumps to and fro does not push all other events
    /// out of the list.
    pub fn may_report_dip(&mut self, now: Now) -> bool {
        let allowed = self.dip_reported_ms.is_none_or(|reported_ms| now.mono_ms >= reported_ms + DIP_EVENT_INTERVAL_MS);
        if allowed {
            self.dip_reported_ms = Some(now.mono_ms);
        }
        allowed
    }

    /// Stops counting until the next reading sets a new baseline.
    pub fn clear_baseline(&mut self) {
        (self.baseline, self.quality, self.uncertain, self.since_boot) = (None, None, false, None);
    }

    /// Sets the baseline as `identity` decided. Returns the reason if counting makes a fresh start.
    pub fn resume(&mut self, resume: &Resume) -> Option<&'static str> {
        match *resume {
            Resume::From(StartPoint { counters, mono_ms, quality, uncertain }) => {
                (self.baseline, self.baseline_ms) = (Some(Baseline::new(counters)), mono_ms);
                (self.quality, self.uncertain) = (Some(quality), uncertain);
            }
            Resume::SinceBoot(boot_check) => self.since_boot = Some(boot_check),
            Resume::FreshStart(why) => return Some(why),
        }
        None
    }

    pub fn update_rate(&mut self, reading: &Reading, now: Now) {
        let Some((before, at_ms)) = self.last_reading else {
            self.last_reading = Some((reading.counters, now.mono_ms));
            return;
        };
        let elapsed_ms = now.mono_ms.saturating_sub(at_ms);
        if elapsed_ms < SHORTEST_RATE_MS {
            return;
        }
        self.rates_span_ms = elapsed_ms;
        let rate = |before: u64, after: u64| {
            let bytes = u128::from(after.saturating_sub(before));
            u64::try_from(bytes * 1000 / u128::from(elapsed_ms)).unwrap_or(u64::MAX)
        };
        let after = reading.counters;
        self.rates = Some((rate(before.rx_bytes(), after.rx_bytes()), rate(before.tx_bytes(), after.tx_bytes())));
        self.last_reading = Some((after, now.mono_ms));
    }
}

impl Sampler {
    /// Lists all links again and updates the inventory.
    pub(super) fn list_links(&mut self, now: Now) {
        let mut links = match self.source.links() {
            Ok(links) => links,
            Err(error) => {
                log::warn!("listing interfaces failed: {error}");
                self.listing_due_ms = Some(now.mono_ms + 10 * LISTING_INTERVAL_MS);
                return;
            }
        };
        let complete = self.source.is_complete();
        self.read_addresses_and_route();
        if self.listed_ms.is_none_or(|listed_ms| now.mono_ms >= listed_ms + LISTING_INTERVAL_MS) {
            self.immediate_listings = 0;
        }
        // A notification that the kernel sent before the listing may not be read yet. It tells the counters with which
        // a new link started, so all notifications are read now. Links that have gone since the listing are dropped
        // from it.
        let had_notifications = self.take_notifications(now);
        links.retain(|link| !self.gone_ifindexes.contains(&link.ifindex));
        self.listing_due_ms = (had_notifications || !complete).then_some(now.mono_ms + LISTING_INTERVAL_MS);
        for tracked in &mut self.links {
            let is_listed = links.iter().any(|link| tracked.is_same_link(link));
            tracked.missing_listings =
                if is_listed { 0 } else { tracked.missing_listings + if complete { MAX_MISSING_LISTINGS } else { 1 } };
        }
        while let Some(at) = self.links.iter().position(|tracked| tracked.missing_listings >= MAX_MISSING_LISTINGS) {
            self.remove_link(at, now);
        }
        let first_listing = self.live.lock().inventory.interfaces.is_empty() && self.links.is_empty();
        let mut new = Vec::new();
        for link in links {
            match self.links.iter().position(|tracked| tracked.is_same_link(&link)) {
                Some(at) => self.update_link(at, link, now),
                None => new.push(link),
            }
        }
        let has_prior_counters = self.add_links(new, now, first_listing);
        self.listed_ms = Some(now.mono_ms);
        // Whether a link is watched also depends on the links listed after it.
        self.update_watched_all();
        // A link that was announced after the listing stays in `new_links` until the next listing.
        let links = &self.links;
        self.new_links.retain(|new_link| !links.iter().any(|tracked| tracked.link.ifindex == new_link.ifindex));
        self.notifications_lost = false;
        self.links.sort_by_key(|tracked| tracked.link.ifindex);
        self.save_newest_link();
        if has_prior_counters {
            // `newest_link` is saved at once: after a crash, the next run must not take the link for one that was
            // created after the latest sample.
            self.live.lock().pending.save_now = true;
        }
        self.primary.set_default_route(self.route, now);
        self.publish();
    }

    /// Reads which links have addresses and the default route.
    fn read_addresses_and_route(&mut self) {
        self.addresses = self.source.addresses().unwrap_or_else(|error| {
            log::debug!("listing addresses failed: {error}");
            Vec::new()
        });
        self.route = self.source.default_route().unwrap_or_else(|error| {
            log::debug!("reading the default route failed: {error}");
            None
        });
    }

    /// Saves the newest link, so that the next run can tell which links were created later.
    fn save_newest_link(&mut self) {
        let before = self.newest_link.unwrap_or_default();
        let newest = self.links.iter().fold(before, |newest, tracked| newest.max(&tracked.link));
        if self.newest_link != Some(newest) {
            self.newest_link = Some(newest);
            let text = newest.to_text(&self.stack);
            self.live.lock().unsaved.queue_setting("newest_link", Some(text));
        }
    }

    fn update_link(&mut self, at: usize, link: Link, now: Now) {
        let renamed = self.links[at].link.name != link.name;
        let before = std::mem::replace(&mut self.links[at].link, link);
        self.links[at].kind = detect::kind(&self.links[at].link);
        if renamed {
            self.rename(at, &before.name, now);
        }
        let Tracked { id, ref link, .. } = self.links[at];
        if before.mac != link.mac {
            let (mac, ifindex) = (link.mac.clone(), link.ifindex);
            let has_identity = |record: &&mut Record| Some(record.id) == id && record.ifindex == ifindex;
            if let Some(record) = self.records.iter_mut().find(has_identity) {
                record.mac = mac;
                queue_record(&mut self.live.lock(), record.clone());
            }
        }
    }

    /// Follows a rename. If an absent interface with history has the new name, the link continues that history: a modem
    /// that is called `eth1` for a second at every boot, until udev renames it, must not start a new history each time.
    fn rename(&mut self, at: usize, before: &str, now: Now) {
        let after = self.links[at].link.name.clone();
        let present: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let is_absent = |record: &Record| record.kind != InterfaceKind::Others && !present.contains(&record.id);
        let existing = self.records.iter().position(|record| record.name == after && is_absent(record));
        let current = self.links[at].id.and_then(|id| self.records.iter_mut().find(|record| record.id == id));
        if let Some(found) = existing {
            if let Some(previous) = current {
                // The old record keeps the link's identity until the other record gets the link's counters too: see
                // `bind_record`.
                previous.lifetime = self.links[at].lifetime;
                queue_record(&mut self.live.lock(), previous.clone());
            }
            let record = &self.records[found];
            (self.links[at].id, self.links[at].anchored) = (Some(record.id), false);
            self.links[at].lifetime = record.lifetime;
            self.links[at].quality.get_or_insert(SampleQuality::Gap);
        } else if let Some(record) = current {
            record.name.clone_from(&after);
            queue_record(&mut self.live.lock(), record.clone());
        }
        self.report_rename(at, before, now);
    }

    fn report_rename(&mut self, at: usize, before: &str, now: Now) {
        let message = format!("{before} is now called {}", self.links[at].link.name);
        self.report_link_event(at, now, EventKind::Renamed, &message, message.clone());
    }

    /// Adds links that are new since the last listing. Returns whether one of them already had counters above zero when
    /// it was announced.
    pub(super) fn add_links(&mut self, new: Vec<Link>, now: Now, first_listing: bool) -> bool {
        let all_notified = !self.notifications_lost;
        let arrival = |link: &Link| {
            let new_link = self.new_links.iter().find(|new_link| new_link.is_link(link, all_notified))?;
            Some((new_link.ifindex, new_link.counters, new_link.mono_ms))
        };
        let arrivals: Vec<_> = new.iter().map(arrival).collect();
        let taken: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let free: Vec<&Record> = self.records.iter().filter(|record| !taken.contains(&record.id)).collect();
        let identities: Vec<LinkIdentity> =
            new.iter().zip(&arrivals).map(|(link, arrival)| LinkIdentity::of(link, arrival.is_some())).collect();
        let this_run = ThisRun {
            stack: &self.stack,
            mono_ms: now.mono_ms,
            newest: if self.listed_ms.is_some() { self.newest_link } else { self.stored_newest_link },
            listed_ms: self.listed_ms,
            last_seen: self.last_seen,
        };
        let continuations = identity::assign_histories(&identities, &free, &this_run);
        let has_prior_counters = arrivals.iter().flatten().any(|(_, counters, _)| !counters.is_zero());
        let from = self.links.len();
        for ((link, arrival), continuation) in new.into_iter().zip(&arrivals).zip(&continuations) {
            let record = continuation.as_ref().map(|continuation| &continuation.record);
            self.links.push(Tracked {
                kind: detect::kind(&link),
                role: LinkRole::default(),
                missing_listings: 0,
                id: record.map(|record| record.id),
                ignored_because: None,
                arrival_seen: arrival.is_some(),
                had_traffic: record.is_some_and(had_traffic),
                baseline: None,
                baseline_ms: now.mono_ms,
                uncertain: false,
                since_boot: None,
                anchored: false,
                quality: None,
                dip_reported_ms: None,
                lifetime: record.map_or(Counters::ZERO, |record| record.lifetime),
                last_reading: None,
                rates: None,
                rates_span_ms: 0,
                inventory_index: 0,
                link,
            });
        }
        for (at, (arrival, continuation)) in (from..).zip(arrivals.into_iter().zip(continuations)) {
            self.start_link(at, arrival, continuation, now, first_listing);
        }
        has_prior_counters
    }

    fn start_link(
        &mut self,
        at: usize,
        arrival: Option<(u32, Counters, u64)>,
        continuation: Option<Continuation>,
        now: Now,
        first_listing: bool,
    ) {
        let mut why = None;
        let tracked = &mut self.links[at];
        match (arrival, &continuation) {
            _ if self.paused => {}
            // The counters are zero for a link that was just created, above zero for one that came from another
            // namespace.
            (Some((_, counters, arrived_ms)), _) => {
                (tracked.baseline, tracked.baseline_ms) = (Some(Baseline::new(counters)), arrived_ms);
                tracked.quality = continuation
                    .as_ref()
                    .map(|_| if counters.is_zero() { SampleQuality::Reset } else { SampleQuality::Gap });
            }
            (None, Some(continuation)) => why = tracked.resume(&continuation.resume),
            (None, None) => {}
        }
        self.update_watched(at);
        let Tracked { ref link, kind, arrival_seen, .. } = self.links[at];
        let name = link.name.clone();
        let address_change = continuation
            .as_ref()
            .filter(|_| !arrival_seen && why.is_none())
            .and_then(|continuation| continuation.address_change(&link.mac));
        if !first_listing {
            self.report_link_event(
                at,
                now,
                EventKind::Appeared,
                &format!("{name} appeared"),
                format!("a link of kind {}", kind.name()),
            );
        }
        if let Some(why) = why.filter(|_| self.links[at].watched()) {
            self.report_link_event(at, now, EventKind::Gap, &format!("{name}: {why}"), fresh_start_detail(why));
        }
        if let Some(detail) = address_change {
            self.report_link_event(at, now, EventKind::HardwareAddress, &format!("{name}: {detail}"), detail.clone());
        }
        let Some(Continuation { counters_from, record: history, .. }) = continuation else { return };
        if counters_from.id != history.id {
            self.links[at].quality.get_or_insert(SampleQuality::Gap);
        } else if let Some(record) =
            self.records.iter_mut().find(|record| record.id == history.id && record.name != name)
        {
            record.name = name.clone();
            queue_record(&mut self.live.lock(), record.clone());
        }
        if counters_from.name != name {
            self.report_rename(at, &counters_from.name, now);
        }
    }

    /// Gives the link's present identity to its record and removes it from any other record. Called only for a link
    /// whose anchor is queued too: on disk the identity tells which link the raw counters belong to, so a record with
    /// the counters of an earlier boot or link must not have it.
    pub(super) fn bind_record(&mut self, at: usize, state: &mut State) {
        let Tracked { id: Some(id), ref link, kind, .. } = self.links[at] else { return };
        for record in &mut self.records {
            let same = record.ifindex == link.ifindex && record.stack == self.stack;
            if record.id == id && !(same && record.kind == kind && record.mac == link.mac && record.inode == link.inode)
            {
                record.ifindex = link.ifindex;
                record.stack.clone_from(&self.stack);
                record.mac.clone_from(&link.mac);
                record.inode = link.inode;
                record.kind = kind;
            } else if record.id != id
                && identity::may_have_counters_of(record, &LinkIdentity::of(link, false), &self.stack)
            {
                record.ifindex = 0;
            } else {
                continue;
            }
            queue_record(state, record.clone());
        }
    }

    pub(super) fn remove_link(&mut self, at: usize, now: Now) {
        let name = self.links[at].link.name.clone();
        let detail = "the link is gone; its history is kept".to_string();
        self.report_link_event(at, now, EventKind::Vanished, &format!("{name} vanished"), detail);
        let tracked = self.links.remove(at);
        if let Some(record) = tracked.id.and_then(|id| self.records.iter_mut().find(|record| record.id == id)) {
            record.lifetime = tracked.lifetime;
            record.raw = tracked.baseline.map_or(Counters::ZERO, |baseline| baseline.counters);
            record.mono_ms = tracked.baseline_ms;
            // The kernel may give the ifindex to another link, which must not continue this record's counters.
            record.ifindex = 0;
            queue_record(&mut self.live.lock(), record.clone());
            self.pinned_by_altname.retain(|id| *id != record.id);
            if tracked.link.altnames.iter().any(|name| self.watch_settings.mentions(name)) {
                self.pinned_by_altname.push(record.id);
            }
        }
    }

    /// Logs what happened to a link, and adds an event if the link is watched or has a record. Guest links come and go
    /// by the hundred a day and must not push other events out of the list.
    fn report_link_event(&mut self, at: usize, now: Now, kind: EventKind, message: &str, detail: String) {
        const LIMITED: [EventKind; 3] = [EventKind::Appeared, EventKind::Vanished, EventKind::Renamed];
        let tracked = &self.links[at];
        let is_reported = tracked.watched() || tracked.id.is_some();
        if is_reported && (!LIMITED.contains(&kind) || self.event_limiter.allows(now)) {
            log::info!("{message}");
            self.add_event(now, kind, &tracked.link.name, detail);
        } else {
            log::debug!("{message}");
        }
    }

    /// Returns the link's interface id. Creates its record if there is none, even without traffic: the next run must
    /// know that the counters were zero at this time.
    pub(super) fn ensure_id(&mut self, at: usize, state: &mut State, now: Now) -> IfaceId {
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
            inode: tracked.link.inode,
            first_seen: now.unix_ms.div_euclid(1000),
            last_seen: 0,
            raw: Counters::ZERO,
            lifetime: Counters::ZERO,
            mono_ms: now.mono_ms,
        };
        if let Some(iface) = state.inventory.interfaces.get_mut(tracked.inventory_index) {
            iface.id = Some(id);
        }
        queue_record(state, record.clone());
        self.records.push(record);
        self.needs_save = true;
        id
    }

    pub(super) fn new_id(&mut self) -> IfaceId {
        self.highest_id = self.records.iter().map(|record| record.id).fold(self.highest_id, IfaceId::max) + 1;
        self.highest_id
    }

    pub(super) fn update_watched_all(&mut self) {
        for at in 0..self.links.len() {
            self.update_watched(at);
        }
    }

    fn update_watched(&mut self, at: usize) {
        let Link { ifindex, master, .. } = self.links[at].link;
        let is_other_port = |other: &Tracked| other.link.master == master && other.link.ifindex != ifindex;
        let has_other_ports = master != 0 && self.links.iter().any(is_other_port);
        let is_routable = |address: &Address| address.ifindex == ifindex && !is_link_local(address.ip);
        let is_endpoint_now = self.route == Some(ifindex) || self.addresses.iter().any(is_routable);
        let tracked = &mut self.links[at];
        let before = tracked.watched();
        // An endpoint stays one: an address may disappear for a moment, and counting must not stop for that.
        tracked.role =
            LinkRole { is_endpoint: is_endpoint_now || tracked.role.is_endpoint, shares_bridge: has_other_ports };
        tracked.ignored_because =
            detect::ignored_because(&tracked.link, tracked.kind, tracked.role, &self.watch_settings);
        if before && !tracked.watched() {
            // If the link is watched again later, counting starts then.
            tracked.clear_baseline();
        }
        self.newly_watched |= !before && self.links[at].watched();
    }

    pub(super) fn clear_baselines(&mut self) {
        self.links.iter_mut().for_each(Tracked::clear_baseline);
    }

    /// Publishes the inventory for readers.
    pub(super) fn publish(&mut self) {
        self.merge_excess();
        self.rename_others();
        let mut shown: Vec<Iface> = self.links.iter().map(|tracked| self.to_iface(tracked, &self.addresses)).collect();
        let present: Vec<IfaceId> = self.links.iter().filter_map(|tracked| tracked.id).collect();
        let is_shown = |record: &&Record| !present.contains(&record.id) && had_traffic(record);
        shown.extend(self.records.iter().filter(is_shown).map(absent_iface));
        shown.sort_by(|one, other| one.name.cmp(&other.name).then(other.ifindex.cmp(&one.ifindex)));
        for tracked in &mut self.links {
            let index = shown.iter().position(|iface| iface.ifindex == tracked.link.ifindex);
            tracked.inventory_index = index.unwrap_or(usize::MAX);
        }
        self.live.lock().inventory.interfaces = shown;
    }

    fn to_iface(&self, tracked: &Tracked, addresses: &[Address]) -> Iface {
        let link = &tracked.link;
        let parent_ifindex = if link.master != 0 { link.master } else { link.lower };
        let parent = self.links.iter().find(|other| parent_ifindex != 0 && other.link.ifindex == parent_ifindex);
        let record = tracked.id.and_then(|id| self.records.iter().find(|record| record.id == id));
        let alias = record.map(|record| &record.alias).filter(|alias| !alias.is_empty()).unwrap_or(&link.alias);
        let no_traffic = (tracked.watched() && !tracked.had_traffic)
            .then(|| "no traffic yet: counted from its first byte on".to_string());
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
            monitored: tracked.watched() && tracked.had_traffic,
            ignored_because: tracked.ignored_because.clone().or(no_traffic),
            raw: tracked.last_reading.map_or(Counters::ZERO, |(counters, _)| counters),
            rates: tracked.rates,
            lifetime: tracked.lifetime,
        }
    }
}

/// Whether an address is link-local. Such an address does not make a link an endpoint: every IPv6 link that is up has
/// one.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn absent_iface(record: &Record) -> Iface {
    let why = match record.kind {
        InterfaceKind::Others => "sum of many interfaces that are gone",
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

pub(super) fn fresh_start_detail(why: &str) -> String {
    format!("counting makes a fresh start, and earlier traffic is not counted: {why}")
}

/// Whether the interface had traffic, in this run or in an earlier one.
pub(super) fn had_traffic(record: &Record) -> bool {
    !(record.raw.is_zero() && record.lifetime.is_zero())
}

/// Queues a record for the writer; it replaces an older version that still waits.
pub(super) fn queue_record(state: &mut State, record: Record) {
    state.unsaved.records.retain(|known| known.id != record.id);
    state.unsaved.records.push(record);
}
