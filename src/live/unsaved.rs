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
        if self.events.len() == EVENTS_HELD {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// One that is told of late. Those that the writer has in hand lie at the front: not to be called while it saves.
    pub fn earlier_event(&mut self, event: Event) {
        if self.events.len() == EVENTS_HELD {
            self.events.pop_front();
        }
        let at = self.events.partition_point(|known| known.mono_ms <= event.mono_ms);
        self.events.insert(at, event);
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
