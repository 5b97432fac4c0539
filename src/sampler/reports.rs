//! What the kernel reports between two looks at all links: which have come, and with which counters, and which have gone.
//! A link that has come and gone before anybody looked is known from its reports alone.

use super::{RELINK_MS, Sampler};
use crate::clock::Now;
use crate::model::{Counters, Link};
use crate::source::{EVENTS_AT_ONCE, LinkEvent};

/// So many looks may follow each other at once; in a flood the next ones are a second apart.
const HURRIED: u32 = 3;
/// More reports than these wait for the next turn.
const ROUNDS: usize = 16;

/// A link that was reported to have come, and has not been looked at so far.
pub(super) struct Birth {
    pub ifindex: u32,
    /// As it came: they tell a link that was just made from one that was moved in with a past.
    pub counters: Counters,
    pub mono_ms: u64,
    /// As the reports describe it.
    pub link: Option<Box<Link>>,
}

impl Birth {
    /// `sure`: every report was heard. Else the number may have gone to another link meanwhile.
    pub fn is_of(&self, link: &Link, sure: bool) -> bool {
        let alike = |known: &Link| known.mac == link.mac || known.name == link.name;
        self.ifindex == link.ifindex && (sure || self.link.as_deref().is_none_or(alike))
    }
}

impl Sampler {
    /// Takes in what the kernel reported, and says whether there was anything. In `left` are the links that went.
    pub(super) fn hear(&mut self, now: Now) -> bool {
        let mut reports = std::mem::take(&mut self.reports);
        self.left.clear();
        let (mut heard, mut born) = (false, false);
        for _ in 0..ROUNDS {
            reports.clear();
            if let Err(error) = self.source.events(&mut reports) {
                log::warn!("link events: {error}");
            }
            heard |= !reports.is_empty();
            let more = reports.len() >= EVENTS_AT_ONCE;
            let mut described = None;
            for report in reports.drain(..) {
                match report {
                    LinkEvent::Described(link) => {
                        described = Some(link);
                        continue;
                    }
                    LinkEvent::Seen { ifindex, counters } => {
                        born |= self.came(ifindex, counters, described.take(), now)
                    }
                    LinkEvent::Changed { ifindex } => self.describe(ifindex, described.take()),
                    LinkEvent::Gone { ifindex, last } => self.went(ifindex, last, described.take(), now),
                    LinkEvent::Lost => self.lost_reports(now),
                    LinkEvent::Addresses => {}
                }
                described = None;
            }
            if !more {
                break;
            }
        }
        self.reports = reports;
        let calm_ms = self.looked_ms.map_or(0, |looked_ms| looked_ms + RELINK_MS);
        let due_ms = if born && self.hurried < HURRIED {
            // Something new: looked at now, so that its first sample is not late.
            self.hurried += 1;
            now.mono_ms
        } else {
            now.mono_ms.max(calm_ms)
        };
        self.relink_due_ms = Some(due_ms.min(self.relink_due_ms.unwrap_or(due_ms)));
        self.fold_excess();
        heard
    }

    fn came(&mut self, ifindex: u32, counters: Counters, link: Option<Box<Link>>, now: Now) -> bool {
        self.left.retain(|left| *left != ifindex);
        let known = self.links.iter().any(|link| link.link.ifindex == ifindex)
            || self.births.iter().any(|birth| birth.ifindex == ifindex);
        if !known {
            self.births.push(Birth { ifindex, counters, mono_ms: now.mono_ms, link });
        }
        !known
    }

    /// A cable is often known by the bridge that it became a port of, which it has left again when it goes.
    fn describe(&mut self, ifindex: u32, link: Option<Box<Link>>) {
        let Some(birth) = self.births.iter_mut().find(|birth| birth.ifindex == ifindex) else { return };
        let Some(mut link) = link else { return };
        if let Some(before) = birth.link.take().filter(|_| link.master == 0) {
            (link.master, link.master_driver) = (before.master, before.master_driver);
        }
        birth.link = Some(link);
    }

    fn went(&mut self, ifindex: u32, last: Option<Counters>, link: Option<Box<Link>>, now: Now) {
        self.left.push(ifindex);
        if let Some(at) = self.links.iter().position(|link| link.link.ifindex == ifindex) {
            if let Some(counters) = last {
                self.book_last(at, counters, now);
            }
            self.vanish(at, now);
        } else if let Some(counters) = last {
            self.describe(ifindex, link);
            self.came_and_went(ifindex, counters, now);
        }
        self.births.retain(|birth| birth.ifindex != ifindex);
    }

    /// What it carried is booked as that of any other link. One that carried nothing leaves nothing behind.
    fn came_and_went(&mut self, ifindex: u32, last: Counters, now: Now) {
        let birth = self.births.iter().find(|birth| birth.ifindex == ifindex && birth.counters != last);
        let Some(link) = birth.and_then(|birth| birth.link.as_deref()).cloned() else { return };
        self.appear(vec![link], now, false);
        let at = self.links.len() - 1;
        self.book_last(at, last, now);
        self.vanish(at, now);
    }

    /// What came and went unheard is nowhere: people are told.
    fn lost_reports(&mut self, now: Now) {
        if self.source.limits().is_some() {
            // It has no reports, and has said so.
            return;
        }
        self.missed_reports = true;
        let mut state = self.live.lock();
        state.inventory.reports_lost += 1;
        state.inventory.reports_lost_ms = now.mono_ms;
    }
}
