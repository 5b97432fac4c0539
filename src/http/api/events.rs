//! What happened: from memory and from the store, without telling anything twice.

use std::time::Instant;

use super::ask;
use crate::http::disk::PATIENCE;
use crate::http::json::{EventRecord, Time, write_list};
use crate::http::{Answer, Call, Context, Fault, JSON};
use crate::model::{Event, EventKind};
use crate::store::{EventFilter, Reader};

/// A save falls between the look at memory and that at the disk now and then, and hardly ever twice.
const ATTEMPTS: usize = 3;

pub fn events(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let limit = call.values.count("limit") as usize;
    let offset = call.values.count("offset");
    let kind = |word: &str| EventKind::NAMES.iter().find(|(_, name)| *name == word).map(|(kind, _)| *kind);
    let named = |name: &str| {
        let state = context.live.lock();
        state.inventory.interface(name).map_or(name, |iface| &iface.name).to_string()
    };
    let filter = EventFilter {
        kinds: call.values.texts("kind").filter_map(kind).collect(),
        interface: call.values.text("interface").map(named),
        from: call.values.integer("from"),
        to: call.values.integer("to"),
    };
    let deadline = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    for _ in 0..ATTEMPTS {
        let (in_memory, save) = {
            let state = context.live.lock();
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
        let read = move |reader: &Reader| reader.events(&filter, &in_memory, wanted, skip);
        found.extend(ask(context, deadline, read)?.unwrap_or_default());
        // What came up and was saved meanwhile would stand behind what is older.
        if context.live.lock().health.saving.succeeded_mono_ms == save {
            break;
        }
    }
    Ok(Answer::stream(JSON, move |_, out| write_list(out, found.iter().map(describe))))
}

fn describe(event: &Event) -> EventRecord {
    EventRecord {
        time: event.unix.map(Time),
        kind: event.kind.name(),
        interface: event.interface.clone(),
        detail: event.detail.clone(),
    }
}
