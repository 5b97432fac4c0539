//! Handles the link notifications that the kernel sends between two listings: which links are new, with which counters,
//! and which are gone. A link that comes and goes between two listings is known from its notifications alone.

use super::{LISTING_INTERVAL_MS, Sampler};
use crate::clock::Now;
use crate::model::{Counters, Link};
use crate::source::{LinkNotification, NOTIFICATIONS_AT_ONCE};

/// At most this many listings in a row are made at once after a notification. In a flood, the later ones are
/// `LISTING_INTERVAL_MS` apart.
const MAX_IMMEDIATE_LISTINGS: u32 = 3;
/// At most this many reads of notifications in a row; each returns about `NOTIFICATIONS_AT_ONCE` at most. The next turn
/// or listing reads the rest.
const MAX_READS: usize = 16;

/// A link that a notification announced and that is not listed yet.
pub(super) struct NewLink {
    pub ifindex: u32,
    /// Counters when the link was announced: zero for a link that was just created, more for one that was moved in from
    /// another namespace.
    pub counters: Counters,
    /// Monotonic time of the announcement.
    pub mono_ms: u64,
    /// Description of the link in the latest notification.
    pub link: Option<Box<Link>>,
}

impl NewLink {
    /// Whether a listed link is the announced one. `all_notified`: no notification was lost. Otherwise another link may
    /// have the ifindex now, so the hardware address or the name must agree.
    pub fn is_link(&self, link: &Link, all_notified: bool) -> bool {
        let alike = |known: &Link| known.mac == link.mac || known.name == link.name;
        self.ifindex == link.ifindex && (all_notified || self.link.as_deref().is_none_or(alike))
    }
}

impl Sampler {
    /// Handles the waiting notifications, fills `gone_ifindexes` and schedules a listing. Returns whether there were
    /// any notifications.
    pub(super) fn take_notifications(&mut self, now: Now) -> bool {
        let mut notifications = std::mem::take(&mut self.notifications);
        self.gone_ifindexes.clear();
        let (mut any, mut any_new) = (false, false);
        for _ in 0..MAX_READS {
            notifications.clear();
            if let Err(error) = self.source.notifications(&mut notifications) {
                log::warn!("reading link notifications failed: {error}");
            }
            any |= !notifications.is_empty();
            let more = notifications.len() >= NOTIFICATIONS_AT_ONCE;
            let mut described = None;
            for notification in notifications.drain(..) {
                match notification {
                    LinkNotification::Described(link) => {
                        described = Some(link);
                        continue;
                    }
                    LinkNotification::Added { ifindex, counters } => {
                        any_new |= self.link_added(ifindex, counters, described.take(), now)
                    }
                    LinkNotification::Changed { ifindex } => self.describe(ifindex, described.take()),
                    LinkNotification::Gone { ifindex, last } => self.link_gone(ifindex, last, described.take(), now),
                    LinkNotification::Lost => self.note_lost_notifications(now),
                    LinkNotification::Addresses => {}
                }
                described = None;
            }
            if !more {
                break;
            }
        }
        self.notifications = notifications;
        let earliest_ms = self.listed_ms.map_or(0, |listed_ms| listed_ms + LISTING_INTERVAL_MS);
        let due_ms = if any_new && self.immediate_listings < MAX_IMMEDIATE_LISTINGS {
            // A new link is listed at once, so that its first sample is not late.
            self.immediate_listings += 1;
            now.mono_ms
        } else {
            now.mono_ms.max(earliest_ms)
        };
        self.listing_due_ms = Some(due_ms.min(self.listing_due_ms.unwrap_or(due_ms)));
        self.merge_excess();
        any
    }

    fn link_added(&mut self, ifindex: u32, counters: Counters, link: Option<Box<Link>>, now: Now) -> bool {
        self.gone_ifindexes.retain(|gone| *gone != ifindex);
        let known = self.links.iter().any(|link| link.link.ifindex == ifindex)
            || self.new_links.iter().any(|new_link| new_link.ifindex == ifindex);
        if !known {
            self.new_links.push(NewLink { ifindex, counters, mono_ms: now.mono_ms, link });
        }
        !known
    }

    /// Updates the description of a new link. If the link has left its bridge, the old bridge stays in the description:
    /// a guest link is often recognised by its bridge, and leaves it before it is deleted.
    fn describe(&mut self, ifindex: u32, link: Option<Box<Link>>) {
        let Some(new_link) = self.new_links.iter_mut().find(|new_link| new_link.ifindex == ifindex) else { return };
        let Some(mut link) = link else { return };
        if let Some(before) = new_link.link.take().filter(|_| link.master == 0) {
            (link.master, link.master_driver) = (before.master, before.master_driver);
        }
        new_link.link = Some(link);
    }

    fn link_gone(&mut self, ifindex: u32, last: Option<Counters>, link: Option<Box<Link>>, now: Now) {
        self.gone_ifindexes.push(ifindex);
        if let Some(at) = self.links.iter().position(|link| link.link.ifindex == ifindex) {
            if let Some(counters) = last {
                self.add_final_sample(at, counters, now);
            }
            self.remove_link(at, now);
        } else if let Some(counters) = last {
            self.describe(ifindex, link);
            self.link_came_and_went(ifindex, counters, now);
        }
        self.new_links.retain(|new_link| new_link.ifindex != ifindex);
    }

    /// Counts the traffic of a link that came and went between two listings. A link without traffic gets no record.
    fn link_came_and_went(&mut self, ifindex: u32, last: Counters, now: Now) {
        let new_link = self.new_links.iter().find(|new_link| new_link.ifindex == ifindex && new_link.counters != last);
        let Some(link) = new_link.and_then(|new_link| new_link.link.as_deref()).cloned() else { return };
        self.add_links(vec![link], now, false);
        let at = self.links.len() - 1;
        self.add_final_sample(at, last, now);
        self.remove_link(at, now);
    }

    /// Links that came and went while notifications were lost are not counted, so `/api/system/health` reports the
    /// loss.
    fn note_lost_notifications(&mut self, now: Now) {
        if self.source.limitations().is_some() {
            // This source has no notifications at all; its `limitations` say so.
            return;
        }
        self.notifications_lost = true;
        let mut state = self.live.lock();
        state.inventory.notifications_lost += 1;
        state.inventory.notifications_lost_mono_ms = now.mono_ms;
    }
}
