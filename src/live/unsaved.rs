//! Ticks, events and changes that are not on disk yet, and the copy of the ticks that readers share.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::Tickets;
use crate::coarsen;
use crate::model::{Anchor, Batch, Event, HistoryEdit, IfaceId, Record};

/// Limit on unsaved events; the oldest are dropped.
const MAX_EVENTS: usize = 200;

#[derive(Default)]
pub struct Unsaved {
    /// Ticks after those in `saving_batch`.
    pub batch: Batch,
    /// The batch that the writer is saving; emptied only after its COMMIT.
    pub saving_batch: Arc<Batch>,
    /// The latest copy of `batch` for readers. It has up to half a megabyte, so concurrent readers share it.
    shared_copy: Weak<Batch>,
    pub anchors: Vec<Anchor>,
    pub events: VecDeque<Event>,
    /// How many events at the front the writer is saving.
    saving_events: usize,
    pub records: Vec<Record>,
    pub settings: Vec<(String, Option<String>)>,
    /// Edits of the history for the writer, in this order. The writer runs each after it has saved all samples that
    /// were counted before it. It saves the event together with the edit, or later if the event has no wall time yet.
    pub edits: Vec<(HistoryEdit, Option<Event>)>,
    /// Interfaces that the writer still has to merge into "others".
    pub merging_into_others: Vec<IfaceId>,
    /// Highest interface id in the stored history and in the data that the writer has taken so far. No data of
    /// interfaces with higher ids is on disk or being saved.
    pub highest_taken_id: IfaceId,
    /// Tickets of save requests; one is served when its data is on disk.
    pub save_tickets: Tickets,
}

impl Unsaved {
    pub fn add_event(&mut self, event: Event) {
        self.make_room_for_event();
        self.events.push_back(event);
    }

    /// Inserts an event of an earlier time in order of time, but never before the events that the writer is saving.
    pub fn insert_event(&mut self, event: Event) {
        self.make_room_for_event();
        let at = self.events.partition_point(|known| known.mono_ms <= event.mono_ms);
        self.events.insert(at.max(self.saving_events), event);
    }

    fn make_room_for_event(&mut self) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.saving_events = self.saving_events.saturating_sub(1);
        }
    }

    /// For the writer: copies the events up to the first one without wall time. They stay here until they are on disk.
    pub fn copy_events(&mut self, into: &mut Vec<Event>) {
        into.clear();
        into.extend(self.events.iter().take_while(|event| event.unix.is_some()).cloned());
        self.saving_events = into.len();
    }

    /// Removes the events that the writer has saved.
    pub fn remove_saved_events(&mut self) {
        self.events.drain(..self.saving_events);
        self.saving_events = 0;
    }

    /// Applies an edit, which the writer has made on disk, to the data that is still in memory.
    pub fn apply_edit(&mut self, edit: &HistoryEdit) {
        self.batch.edit(edit, |known, sample| {
            let longest_ms = known.span_ms.max(sample.span_ms);
            coarsen::merge_sample(known, sample);
            // Both samples cover the same time, so the spans do not add up.
            known.span_ms = longest_ms;
        });
        self.anchors.retain(|anchor| !edit.removes(anchor.iface));
        self.records.retain(|record| !edit.removes(record.id));
        self.merging_into_others.retain(|id| !edit.removes(*id));
    }

    /// Queues a setting for the writer. A newer value replaces an older one; `None` deletes the setting.
    pub fn queue_setting(&mut self, key: &str, value: Option<String>) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_string(), value));
    }

    /// The batches that are possibly not in the database yet, the older one first.
    pub fn batches_for_readers(&mut self) -> [Arc<Batch>; 2] {
        let same = |copy: &Arc<Batch>| copy.ticks == self.batch.ticks && copy.samples == self.batch.samples;
        let copy = self.shared_copy.upgrade().filter(same).unwrap_or_else(|| Arc::new(self.batch.clone()));
        self.shared_copy = Arc::downgrade(&copy);
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

    /// Events that arrive during a save stay; those that the writer took are removed, once.
    #[test]
    fn only_saved_events_are_removed() {
        let check = |held: &[u64], newer: &[u64], inserted: &[u64], left: &[u64]| {
            let mut unsaved = Unsaved::default();
            held.iter().for_each(|at| unsaved.add_event(event(*at)));
            let mut taken = Vec::new();
            unsaved.copy_events(&mut taken);
            assert_eq!(taken.len(), held.len());
            newer.iter().for_each(|at| unsaved.add_event(event(*at)));
            inserted.iter().for_each(|at| unsaved.insert_event(event(*at)));
            unsaved.remove_saved_events();
            assert_eq!(unsaved.events.iter().map(|event| event.mono_ms).collect::<Vec<_>>(), left);
        };
        check(&[], &[1], &[], &[1]);
        check(&[1, 2], &[3], &[], &[3]);
        check(&[1, 1], &[1], &[], &[1]);
        // Events of an earlier time than those that the writer is saving.
        check(&[2, 4], &[6], &[3, 5], &[3, 5, 6]);
        check(&[2, 4], &[], &[1], &[1]);
        // When the list is full, the events that the writer is saving are dropped first.
        let full: Vec<u64> = (0..MAX_EVENTS as u64).collect();
        let newer: Vec<u64> = (1_000..1_003).collect();
        check(&full, &newer, &[], &newer);
        let newer: Vec<u64> = (1_000..1_000 + 2 * MAX_EVENTS as u64).collect();
        check(&full, &newer, &[], &newer[MAX_EVENTS..]);
    }

    #[test]
    fn an_event_without_wall_time_and_all_later_ones_are_not_copied() {
        let mut unsaved = Unsaved::default();
        for (mono_ms, has_wall_time) in [(1, true), (2, false), (3, true)] {
            let event = event(mono_ms);
            unsaved.add_event(Event { unix: event.unix.filter(|_| has_wall_time), ..event });
        }
        let mut taken = Vec::new();
        unsaved.copy_events(&mut taken);
        unsaved.remove_saved_events();
        assert_eq!((taken.len(), unsaved.events.len()), (1, 2));
    }
}
