//! Events from memory and from the database, each returned once.

use std::ops::ControlFlow;

use super::History;
use super::snapshot::Snapshot;
use crate::error::Result;
use crate::model::{Event, EventKind};

/// A save between the read of memory and the read of the database causes another attempt. Two in a row are rare.
const MAX_ATTEMPTS: usize = 3;

/// Which events to return.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Empty: all kinds.
    pub kinds: Vec<EventKind>,
    pub interface: Option<String>,
    /// Range `[from, to)` in UTC seconds. Events without a time (the wall clock was not trusted) are in no range.
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl EventFilter {
    pub fn matches(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.interface.as_ref().is_none_or(|name| *name == event.interface)
            && self.from.is_none_or(|from| event.unix.is_some_and(|unix| unix >= from))
            && self.to.is_none_or(|to| event.unix.is_some_and(|unix| unix < to))
    }
}

/// Whether both are the same event. An event that has no time in memory may have got one on disk.
fn same_event(in_memory: &Event, stored: &Event) -> bool {
    let same_time = in_memory.unix.is_none() || in_memory.unix == stored.unix;
    same_time
        && in_memory.kind == stored.kind
        && in_memory.interface == stored.interface
        && in_memory.detail == stored.detail
}

impl Snapshot<'_> {
    /// Events in the database, newest first, without the ones in `in_memory`: events that the writer is saving are in
    /// both places.
    pub fn events(&self, filter: &EventFilter, in_memory: &[Event], limit: usize, offset: u64) -> Result<Vec<Event>> {
        let (mut events, mut skip) = (Vec::new(), offset);
        let mut in_memory: Vec<&Event> = in_memory.iter().collect();
        let Some(stored) = &self.stored else { return Ok(events) };
        stored.each_event(&mut |event| {
            if events.len() >= limit {
                return ControlFlow::Break(());
            }
            if !filter.matches(&event) {
                return ControlFlow::Continue(());
            }
            // Each event in memory hides one stored event: two equal events within a second are possible.
            if let Some(at) = in_memory.iter().position(|known| same_event(known, &event)) {
                in_memory.swap_remove(at);
                return ControlFlow::Continue(());
            }
            match skip {
                0 => events.push(event),
                _ => skip -= 1,
            }
            ControlFlow::Continue(())
        })?;
        Ok(events)
    }
}

impl History {
    /// Events from memory and from the database, newest first.
    pub fn events(&self, filter: &EventFilter, limit: usize, offset: u64) -> Result<Vec<Event>> {
        // Events carry interface names, not numbers. So the stored ones can be read before the rejoin.
        let mut query = self.start_query();
        query.memory.rejoined = true;
        let mut found = Vec::new();
        for _ in 0..MAX_ATTEMPTS {
            let (in_memory, last_save) = {
                let state = self.live.lock();
                let taken = state.unsaved.events.iter().rev().filter(|event| filter.matches(event)).cloned();
                (taken.collect::<Vec<Event>>(), state.health.saving.succeeded_mono_ms)
            };
            let count = in_memory.len() as u64;
            found = in_memory.iter().skip(offset.min(count) as usize).take(limit).cloned().collect();
            let missing = limit - found.len();
            if missing == 0 {
                break;
            }
            let (filter, skip) = (filter.clone(), offset.saturating_sub(count));
            found.extend(self.read(&query, move |snapshot| snapshot.events(&filter, &in_memory, missing, skip))?);
            // After a save during the read, newer events could follow older ones in `found`: read again.
            if self.live.lock().health.saving.succeeded_mono_ms == last_save {
                break;
            }
        }
        Ok(found)
    }
}
