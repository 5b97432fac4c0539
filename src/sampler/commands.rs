//! Runs interface commands: change an interface (alias, watched, primary, merge) or forget it. The sampler does this
//! because it assigns the interface ids and keeps the records and the baselines.

use super::Sampler;
use super::inventory::{had_traffic, queue_record};
use crate::clock::Now;
use crate::config::SettingsRefusal;
use crate::counter::Baseline;
use crate::live::{CommandRefusal, InterfaceCommand, InterfaceEdit};
use crate::model::{Anchor, Counters, Event, EventKind, HistoryEdit, IfaceId, NetworkStack, Record};

/// Marks that the record's counters belong to no link, so the next run does not continue them.
fn clear_identity(record: &mut Record) {
    record.ifindex = 0;
    record.stack = NetworkStack::default();
}

impl Sampler {
    pub(super) fn apply_commands(&mut self, now: Now) {
        while let Some((ticket, command)) = self.next_command() {
            let possible = self.rejoined || matches!(&command, InterfaceCommand::Edit(edit) if !edit.needs_history());
            let outcome = if possible { self.apply_command(command, now) } else { Err(CommandRefusal::HistoryNotOpen) };
            if outcome.is_ok() {
                self.publish();
            }
            self.live.finish_command(ticket, outcome);
        }
    }

    fn next_command(&self) -> Option<(u64, InterfaceCommand)> {
        self.live.lock().pending.next_command()
    }

    fn apply_command(&mut self, command: InterfaceCommand, now: Now) -> Result<(), CommandRefusal> {
        match command {
            InterfaceCommand::Edit(edit) => self.apply_edit(edit, now)?,
            InterfaceCommand::Forget { name } => {
                // Several records may have this name.
                let mut gone = self.absent_record(&name)?;
                loop {
                    self.queue_edit(HistoryEdit::Forget { id: gone.id, name: name.clone() }, None);
                    match self.absent_record(&name) {
                        Ok(next) => gone = next,
                        Err(_) => break,
                    }
                }
                let event =
                    self.new_event(now, EventKind::Forgotten, "", format!("{name} and its history were forgotten"));
                if let Some((_, last)) = self.live.lock().unsaved.edits.last_mut() {
                    *last = Some(event);
                }
                {
                    let mut state = self.live.lock();
                    let changes = state.replace_name(&name, None);
                    if let Err(refused) = state.change(changes) {
                        let (SettingsRefusal::Owned { key, .. } | SettingsRefusal::Invalid { key, .. }) = refused;
                        log::warn!("the {key} setting still names {name}");
                    }
                }
                self.apply_settings(now);
                self.move_primary(&name, None, now);
            }
        }
        Ok(())
    }

    fn apply_edit(&mut self, edit: InterfaceEdit, now: Now) -> Result<(), CommandRefusal> {
        let InterfaceEdit { name, merge, alias, .. } = &edit;
        let gone = merge.as_deref().map(|from| self.absent_record(from)).transpose()?;
        if gone.is_some() && merge.as_ref() == Some(name) {
            return Err(CommandRefusal::Unknown(name.clone()));
        }
        if !self.links.iter().any(|tracked| tracked.link.name == *name) {
            self.absent_record(name)?;
        }
        {
            let mut state = self.live.lock();
            let changes = state.setting_changes(&edit)?;
            state.change(changes).map_err(CommandRefusal::Setting)?;
        }
        // Everything was checked above: from here on the command succeeds.
        if let Some(gone) = &gone {
            self.merge(gone, name, now)?;
        } else {
            self.apply_settings(now);
        }
        if let Some(alias) = alias {
            let id = self.id_of_name(name, now)?;
            self.edit_record(id, |record| record.alias.clone_from(alias));
        }
        Ok(())
    }

    fn merge(&mut self, gone: &Record, into: &str, now: Now) -> Result<(), CommandRefusal> {
        let id = self.id_of_name(into, now)?;
        self.add_history(gone, id);
        self.anchor_again(id);
        let detail = format!("the history of {} was merged into this one", gone.name);
        let event = self.new_event(now, EventKind::Merged, into, detail);
        self.apply_settings(now);
        self.move_primary(&gone.name, Some(into), now);
        let edit = HistoryEdit::Merge { id: gone.id, name: gone.name.clone(), into: id, into_name: into.to_string() };
        self.queue_edit(edit, Some(event));
        Ok(())
    }

    /// Finds the record of an absent interface by name.
    fn absent_record(&self, name: &str) -> Result<Record, CommandRefusal> {
        if self.links.iter().any(|tracked| tracked.link.name == name) {
            return Err(CommandRefusal::Present(name.to_string()));
        }
        let is_absent = |record: &&Record| !self.links.iter().any(|tracked| tracked.id == Some(record.id));
        let named = self.records.iter().filter(is_absent).find(|record| record.name == name);
        named.cloned().ok_or_else(|| CommandRefusal::Unknown(name.to_string()))
    }

    /// Returns the id of an interface; creates its record if there is none. A link without a baseline has no counters
    /// that the next run could continue, so its record gets no identity.
    fn id_of_name(&mut self, name: &str, now: Now) -> Result<IfaceId, CommandRefusal> {
        let Some(at) = self.links.iter().position(|tracked| tracked.link.name == name) else {
            return Ok(self.absent_record(name)?.id);
        };
        if let Some(id) = self.links[at].id {
            return Ok(id);
        }
        let live = self.live.clone();
        let id = self.ensure_id(at, &mut live.lock(), now);
        if self.links[at].baseline.is_none() {
            self.edit_record(id, clear_identity);
        }
        Ok(id)
    }

    fn edit_record(&mut self, id: IfaceId, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.iter_mut().find(|record| record.id == id) {
            change(record);
            queue_record(&mut self.live.lock(), record.clone());
        }
    }

    /// Adds the history of a gone interface to another one, except its raw counters. The writer does the same on disk,
    /// in the transaction that merges the histories.
    pub(super) fn add_history(&mut self, gone: &Record, id: IfaceId) {
        let present = self.links.iter_mut().find(|tracked| tracked.id == Some(id));
        let add = |lifetime: &mut Counters| lifetime.add(&gone.lifetime);
        if let Some(tracked) = present {
            add(&mut tracked.lifetime);
            tracked.had_traffic |= had_traffic(gone);
        }
        if let Some(record) = self.records.iter_mut().find(|record| record.id == id) {
            add(&mut record.lifetime);
            record.first_seen = record.first_seen.min(gone.first_seen);
            if record.alias.is_empty() {
                record.alias.clone_from(&gone.alias);
            }
        }
    }

    /// Adds an anchor after a merge: the samples now include those of another interface, so their sum no longer gives
    /// the raw counters.
    fn anchor_again(&mut self, id: IfaceId) {
        let Some(tracked) = self.links.iter().find(|tracked| tracked.id == Some(id)) else { return };
        let Some(Baseline { counters: raw, .. }) = tracked.baseline else {
            // The interface is not counted now, so the next run has no counters to continue.
            return self.edit_record(id, clear_identity);
        };
        let mut state = self.live.lock();
        if let Some(seq) = state.unsaved.batch.ticks.last().map(|tick| tick.seq) {
            state.unsaved.anchors.push(Anchor { seq, iface: id, raw });
        }
    }

    /// Queues an edit for the writer. The samples keep the id of the gone interface until the writer has changed the
    /// history on disk, so a power cut never leaves them in two places.
    fn queue_edit(&mut self, edit: HistoryEdit, event: Option<Event>) {
        self.drop_removed(&edit);
        self.live.lock().unsaved.edits.push((edit, event));
    }

    /// Removes from the sampler's own lists the interfaces that an edit deletes.
    pub(super) fn drop_removed(&mut self, edit: &HistoryEdit) {
        self.records.retain(|record| !edit.removes(record.id));
        self.undecided.retain(|undecided| !edit.removes(undecided.first.id));
        self.first_readings.retain(|first_reading| !edit.removes(first_reading.id));
        self.highest_id = edit.removed().iter().copied().fold(self.highest_id, IfaceId::max);
    }
}
