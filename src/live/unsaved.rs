//! What is not on disk yet, and what readers may see of it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::Tickets;
use crate::compact;
use crate::model::{Anchor, Batch, Edit, Event, IfaceId, Record};

/// Unsaved events beyond this many are dropped, oldest first.
const EVENTS_HELD: usize = 200;

#[derive(Default)]
pub struct Unsaved {
    /// Ticks since the batch in `saving_batch`.
    pub batch: Batch,
    /// The batch that the writer is busy with; emptied only after its COMMIT.
    pub saving_batch: Arc<Batch>,
    /// What readers have of `batch`: up to half a megabyte, and those who ask at the same time share it.
    copied: Weak<Batch>,
    pub anchors: Vec<Anchor>,
    pub events: VecDeque<Event>,
    /// So many of them, at the front, are in the writer's hands.
    saving_events: usize,
    pub records: Vec<Record>,
    pub settings: Vec<(String, Option<String>)>,
    /// For the writer, in this order, after everything that was counted before; with what is told of it when it is done.
    pub edits: Vec<(Edit, Option<Event>)>,
    /// The interfaces of folds that the writer has not done yet.
    pub folding: Vec<IfaceId>,
    /// The highest number of an interface that the writer has taken anything of: what is of higher ones is here and
    /// nowhere else.
    pub taken_id: IfaceId,
    /// For changes of `settings` and other wishes to save; served when they are on disk.
    pub saves: Tickets,
}

impl Unsaved {
    pub fn event(&mut self, event: Event) {
        self.make_room_for_event();
        self.events.push_back(event);
    }

    /// One that is told of late: where it belongs, but never among those that the writer has in hand.
    pub fn earlier_event(&mut self, event: Event) {
        self.make_room_for_event();
        let at = self.events.partition_point(|known| known.mono_ms <= event.mono_ms);
        self.events.insert(at.max(self.saving_events), event);
    }

    fn make_room_for_event(&mut self) {
        if self.events.len() == EVENTS_HELD {
            self.events.pop_front();
            self.saving_events = self.saving_events.saturating_sub(1);
        }
    }

    /// For the writer: those that have a time. They stay here until they are on disk.
    pub fn take_events(&mut self, into: &mut Vec<Event>) {
        into.clear();
        into.extend(self.events.iter().take_while(|event| event.unix.is_some()).cloned());
        self.saving_events = into.len();
    }

    /// Those that the writer has taken are on disk.
    pub fn events_saved(&mut self) {
        self.events.drain(..self.saving_events);
        self.saving_events = 0;
    }

    /// A history was changed on disk: what is still here of it goes the same way.
    pub fn edited(&mut self, edit: &Edit) {
        self.batch.edit(edit, |known, sample| {
            let longest_ms = known.span_ms.max(sample.span_ms);
            compact::absorb(known, sample);
            // Of the same time, not one after the other.
            known.span_ms = longest_ms;
        });
        self.anchors.retain(|anchor| !edit.takes(anchor.iface));
        self.records.retain(|record| !edit.takes(record.id));
        self.folding.retain(|id| !edit.takes(*id));
    }

    /// For the writer.
    pub fn keep_setting(&mut self, key: &str, value: Option<String>) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_string(), value));
    }

    /// The samples that no query of the store can have yet, oldest first.
    pub fn batches(&mut self) -> [Arc<Batch>; 2] {
        let same = |copy: &Arc<Batch>| copy.ticks == self.batch.ticks && copy.samples == self.batch.samples;
        let copy = self.copied.upgrade().filter(same).unwrap_or_else(|| Arc::new(self.batch.clone()));
        self.copied = Arc::downgrade(&copy);
        [self.saving_batch.clone(), copy]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventKind;

    fn event(mono_ms: u64) -> Event {
        let (unix, kind) = (Some(1_000 + mono_ms as i64), EventKind::Gap);
        Event { unix, mono_ms, kind, interface: String::new(), detail: String::new() }
    }

    /// Whatever comes while the writer is busy: what it has taken goes, once, and nothing else.
    #[test]
    fn saved_events_go_and_newer_ones_stay() {
        let check = |held: &[u64], newer: &[u64], late: &[u64], left: &[u64]| {
            let mut unsaved = Unsaved::default();
            held.iter().for_each(|at| unsaved.event(event(*at)));
            let mut taken = Vec::new();
            unsaved.take_events(&mut taken);
            assert_eq!(taken.len(), held.len());
            newer.iter().for_each(|at| unsaved.event(event(*at)));
            late.iter().for_each(|at| unsaved.earlier_event(event(*at)));
            unsaved.events_saved();
            assert_eq!(unsaved.events.iter().map(|event| event.mono_ms).collect::<Vec<_>>(), left);
        };
        check(&[], &[1], &[], &[1]);
        check(&[1, 2], &[3], &[], &[3]);
        check(&[1, 1], &[1], &[], &[1]);
        // Of a time that the writer is just saving.
        check(&[2, 4], &[6], &[3, 5], &[3, 5, 6]);
        check(&[2, 4], &[], &[1], &[1]);
        // Those in hand are the first to go for want of room.
        let full: Vec<u64> = (0..EVENTS_HELD as u64).collect();
        let newer: Vec<u64> = (1_000..1_003).collect();
        check(&full, &newer, &[], &newer);
        let newer: Vec<u64> = (1_000..1_000 + 2 * EVENTS_HELD as u64).collect();
        check(&full, &newer, &[], &newer[EVENTS_HELD..]);
    }

    #[test]
    fn what_has_no_time_yet_is_not_taken_nor_what_follows_it() {
        let mut unsaved = Unsaved::default();
        for (mono_ms, placed) in [(1, true), (2, false), (3, true)] {
            let event = event(mono_ms);
            unsaved.event(Event { unix: event.unix.filter(|_| placed), ..event });
        }
        let mut taken = Vec::new();
        unsaved.take_events(&mut taken);
        unsaved.events_saved();
        assert_eq!((taken.len(), unsaved.events.len()), (1, 2));
    }
}
