//! What people want of an interface's identity: a name of their own, two histories made one, one forgotten. Here, because
//! the sampler gives interfaces their numbers, and has samples that nobody else has yet.

use super::Sampler;
use super::inventory::{remember, was_active};
use crate::clock::Now;
use crate::config::Refused;
use crate::counter::Baseline;
use crate::live::{Alteration, Order, Refusal};
use crate::model::{Anchor, Counters, Edit, Event, EventKind, IfaceId, Record, Stack};

/// Its counters are nobody's: what a link has counted by a restart is not compared with them.
fn disown(record: &mut Record) {
    record.ifindex = 0;
    record.stack = Stack::default();
}

impl Sampler {
    pub(super) fn obey_all(&mut self, now: Now) {
        while let Some((ticket, order)) = self.next_order() {
            let possible = self.joined || matches!(&order, Order::Alter(asked) if !asked.needs_history());
            let outcome = if possible { self.obey(order, now) } else { Err(Refusal::NotYet) };
            if outcome.is_ok() {
                self.publish();
            }
            self.live.obeyed(ticket, outcome);
        }
    }

    fn next_order(&self) -> Option<(u64, Order)> {
        self.live.lock().wishes.next_order()
    }

    fn obey(&mut self, order: Order, now: Now) -> Result<(), Refusal> {
        match order {
            Order::Alter(asked) => self.alter(asked, now)?,
            Order::Forget { name } => {
                // More than one may have borne the name.
                let mut gone = self.absent(&name)?;
                loop {
                    self.drop_history(Edit::Forget { id: gone.id, name: name.clone() }, None);
                    match self.absent(&name) {
                        Ok(next) => gone = next,
                        Err(_) => break,
                    }
                }
                let event = self.told(now, EventKind::Forgotten, "", format!("{name} and its history were forgotten"));
                if let Some((_, last)) = self.live.lock().unsaved.edits.last_mut() {
                    *last = Some(event);
                }
                {
                    let mut state = self.live.lock();
                    let changes = state.handed_on(&name, None);
                    if let Err(refused) = state.change(changes) {
                        let (Refused::Owned { key, .. } | Refused::Unfit { key, .. }) = refused;
                        log::warn!("the {key} setting still names {name}");
                    }
                }
                self.follow(now);
                self.hand_on_primary(&name, None, now);
            }
        }
        Ok(())
    }

    fn alter(&mut self, asked: Alteration, now: Now) -> Result<(), Refusal> {
        let Alteration { name, merge, alias, .. } = &asked;
        let gone = merge.as_deref().map(|from| self.absent(from)).transpose()?;
        if gone.is_some() && merge.as_ref() == Some(name) {
            return Err(Refusal::Unknown(name.clone()));
        }
        if !self.links.iter().any(|tracked| tracked.link.name == *name) {
            self.absent(name)?;
        }
        {
            let mut state = self.live.lock();
            let changes = state.changes(&asked)?;
            state.change(changes).map_err(Refusal::Setting)?;
        }
        // Nothing can be refused any more.
        if let Some(gone) = &gone {
            self.merge(gone, name, now)?;
        } else {
            self.follow(now);
        }
        if let Some(alias) = alias {
            let id = self.number_of(name, now)?;
            self.change_record(id, |record| record.alias.clone_from(alias));
        }
        Ok(())
    }

    fn merge(&mut self, gone: &Record, into: &str, now: Now) -> Result<(), Refusal> {
        let id = self.number_of(into, now)?;
        self.take_over(gone, id);
        self.anchor_again(id);
        let detail = format!("the history of {} became part of this one", gone.name);
        let event = self.told(now, EventKind::Merged, into, detail);
        self.follow(now);
        self.hand_on_primary(&gone.name, Some(into), now);
        let edit = Edit::Merge { id: gone.id, name: gone.name.clone(), into: id, into_name: into.to_string() };
        self.drop_history(edit, Some(event));
        Ok(())
    }

    /// The record of a name that no link bears or goes on with.
    fn absent(&self, name: &str) -> Result<Record, Refusal> {
        if self.links.iter().any(|tracked| tracked.link.name == name) {
            return Err(Refusal::Present(name.to_string()));
        }
        let free = |record: &&Record| !self.links.iter().any(|tracked| tracked.id == Some(record.id));
        let named = self.records.iter().filter(free).find(|record| record.name == name);
        named.cloned().ok_or_else(|| Refusal::Unknown(name.to_string()))
    }

    /// The number of an interface's history, which begins here if there is none. A link that is not counted has nothing
    /// that its counters could be compared with after a restart: its record belongs to no boot.
    fn number_of(&mut self, name: &str, now: Now) -> Result<IfaceId, Refusal> {
        let Some(at) = self.links.iter().position(|tracked| tracked.link.name == name) else {
            return Ok(self.absent(name)?.id);
        };
        if let Some(id) = self.links[at].id {
            return Ok(id);
        }
        let live = self.live.clone();
        let id = self.identify(at, &mut live.lock(), now);
        if self.links[at].base.is_none() {
            self.change_record(id, disown);
        }
        Ok(id)
    }

    fn change_record(&mut self, id: IfaceId, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.iter_mut().find(|record| record.id == id) {
            change(record);
            remember(&mut self.live.lock(), record.clone());
        }
    }

    /// All that an interface has ever been becomes another's, but for its counters. The writer does the same on disk, in
    /// one with the histories.
    pub(super) fn take_over(&mut self, gone: &Record, id: IfaceId) {
        let present = self.links.iter_mut().find(|tracked| tracked.id == Some(id));
        let add = |lifetime: &mut Counters| lifetime.add(&gone.lifetime);
        if let Some(tracked) = present {
            add(&mut tracked.lifetime);
            tracked.active |= was_active(gone);
        }
        if let Some(record) = self.records.iter_mut().find(|record| record.id == id) {
            add(&mut record.lifetime);
            record.first_seen = record.first_seen.min(gone.first_seen);
            if record.alias.is_empty() {
                record.alias.clone_from(&gone.alias);
            }
        }
    }

    /// Samples of another come among its own: adding them up does not give its counters any more.
    fn anchor_again(&mut self, id: IfaceId) {
        let Some(tracked) = self.links.iter().find(|tracked| tracked.id == Some(id)) else { return };
        let Some(Baseline { counters: raw, .. }) = tracked.base else {
            // Nobody counts it at present: a restart has nothing to go on from.
            return self.change_record(id, disown);
        };
        let mut state = self.live.lock();
        if let Some(seq) = state.unsaved.batch.ticks.last().map(|tick| tick.seq) {
            state.unsaved.anchors.push(Anchor { seq, iface: id, raw });
        }
    }

    /// What was counted of it stays its own until the writer has changed the history on disk: whenever the power goes,
    /// all of it is in one place.
    fn drop_history(&mut self, edit: Edit, event: Option<Event>) {
        self.disown_all(&edit);
        self.live.lock().unsaved.edits.push((edit, event));
    }

    /// Here nothing is known any more of the interfaces that are gone afterwards.
    pub(super) fn disown_all(&mut self, edit: &Edit) {
        self.records.retain(|record| !edit.takes(record.id));
        self.waiting.retain(|waiting| !edit.takes(waiting.first.id));
        self.beginnings.retain(|beginning| !edit.takes(beginning.id));
        self.last_id = edit.gone().iter().copied().fold(self.last_id, IfaceId::max);
    }
}
