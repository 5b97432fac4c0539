//! Events: resets, gaps, interfaces that appear or vanish, and so on.

use crate::history::EventFilter;
use crate::http::json::{EventRecord, Time, write_list};
use crate::http::{Answer, Call, Context, HttpError, JSON};
use crate::model::{Event, EventKind};

pub fn events(context: &Context, call: &Call) -> Result<Answer, HttpError> {
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
    let found = context.history.events(&filter, limit, offset)?;
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
