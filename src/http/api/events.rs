//! What happened: from memory and from the store, without telling anything twice.

use std::time::Instant;

use super::ask;
use crate::http::disk::PATIENCE;
use crate::http::json::{EventRecord, Time, write_list};
use crate::http::{Answer, Call, Context, Fault, JSON};
use crate::model::{Event, EventKind};
use crate::store::EventFilter;

pub fn events(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let limit = call.values.count("limit") as usize;
    let offset = call.values.count("offset");
    let kind = |word: &str| EventKind::NAMES.iter().find(|(_, name)| *name == word).map(|(kind, _)| *kind);
    let named = |name: &str| {
        let state = context.live.lock();
        state.interface(name).map_or(name, |iface| &iface.name).to_string()
    };
    let filter = EventFilter {
        kinds: call.values.texts("kind").filter_map(kind).collect(),
        interface: call.values.text("interface").map(named),
        from: call.values.integer("from"),
        to: call.values.integer("to"),
    };
    let unsaved: Vec<Event> =
        context.live.lock().events.iter().rev().filter(|event| filter.takes(event)).cloned().collect();

    let in_memory = unsaved.len() as u64;
    let mut found: Vec<Event> = unsaved.iter().skip(offset.min(in_memory) as usize).take(limit).cloned().collect();
    let wanted = limit - found.len();
    if wanted > 0 {
        // What is being saved at this moment is in both places.
        let skip = offset.saturating_sub(in_memory);
        let stored = ask(context, Instant::now() + PATIENCE, move |reader| reader.events(&filter, wanted, skip))?;
        found.extend(stored.unwrap_or_default().into_iter().filter(|event| !unsaved.iter().any(|it| same(it, event))));
    }
    Ok(Answer::stream(JSON, move |_, out| write_list(out, found.iter().map(describe))))
}

fn same(one: &Event, other: &Event) -> bool {
    let when = one.unix.is_none() || one.unix == other.unix;
    when && one.kind == other.kind && one.interface == other.interface && one.detail == other.detail
}

fn describe(event: &Event) -> EventRecord {
    EventRecord {
        time: event.unix.map(Time),
        kind: event.kind.name(),
        interface: event.interface.clone(),
        detail: event.detail.clone(),
    }
}
