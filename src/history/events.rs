//! What happened: from memory and from the disk, without telling anything twice.

use std::ops::ControlFlow;

use super::History;
use super::snapshot::Snapshot;
use crate::error::Result;
use crate::model::{Event, EventKind};

/// A save falls between the look at memory and that at the disk now and then, and hardly ever twice.
const ATTEMPTS: usize = 3;

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Empty for all.
    pub kinds: Vec<EventKind>,
    pub interface: Option<String>,
    /// `[from, to)`; what happened while the clock could not be believed is in no range.
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl EventFilter {
    pub fn takes(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.interface.as_ref().is_none_or(|name| *name == event.interface)
            && self.from.is_none_or(|from| event.unix.is_some_and(|unix| unix >= from))
            && self.to.is_none_or(|to| event.unix.is_some_and(|unix| unix < to))
    }
}

/// What had no time in memory yet has been given one on disk.
fn same(in_memory: &Event, stored: &Event) -> bool {
    let when = in_memory.unix.is_none() || in_memory.unix == stored.unix;
    when && in_memory.kind == stored.kind
        && in_memory.interface == stored.interface
        && in_memory.detail == stored.detail
}

impl Snapshot<'_> {
    /// Those on disk, newest first, and without those that are in memory too: what is being saved at this moment is in both
    /// places.
    pub fn events(&self, filter: &EventFilter, in_memory: &[Event], limit: usize, offset: u64) -> Result<Vec<Event>> {
        let (mut events, mut skip) = (Vec::new(), offset);
        let mut in_memory: Vec<&Event> = in_memory.iter().collect();
        let Some(stored) = &self.stored else { return Ok(events) };
        stored.each_event(&mut |event| {
            if events.len() >= limit {
                return ControlFlow::Break(());
            }
            if !filter.takes(&event) {
                return ControlFlow::Continue(());
            }
            // Each hides one only: the same may happen twice within a second.
            if let Some(at) = in_memory.iter().position(|known| same(known, &event)) {
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
    /// Newest first.
    pub fn events(&self, filter: &EventFilter, limit: usize, offset: u64) -> Result<Vec<Event>> {
        // They go by names: what is on disk is told of before its numbers are those of memory too.
        let mut moment = self.moment();
        moment.memory.joined = true;
        let mut found = Vec::new();
        for _ in 0..ATTEMPTS {
            let (in_memory, save) = {
                let state = self.live.lock();
                let taken = state.unsaved.events.iter().rev().filter(|event| filter.takes(event)).cloned();
                (taken.collect::<Vec<Event>>(), state.health.saving.succeeded_mono_ms)
            };
            let count = in_memory.len() as u64;
            found = in_memory.iter().skip(offset.min(count) as usize).take(limit).cloned().collect();
            let wanted = limit - found.len();
            if wanted == 0 {
                break;
            }
            let (filter, skip) = (filter.clone(), offset.saturating_sub(count));
            found.extend(self.read(&moment, move |now| now.events(&filter, &in_memory, wanted, skip))?);
            // What came up and was saved meanwhile would stand behind what is older.
            if self.live.lock().health.saving.succeeded_mono_ms == save {
                break;
            }
        }
        Ok(found)
    }
}
