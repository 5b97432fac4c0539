//! Names of the interfaces that history knows by number.

use std::sync::Arc;

use crate::live::State;
use crate::model::{IfaceId, Kind};
use crate::sorted::Map;

#[derive(Clone, Debug, Default)]
pub struct Names(Map<IfaceId, Arc<str>>);

impl Names {
    pub fn of(state: &State) -> Names {
        let saved = state.unsaved.records.iter().map(|record| (record.id, record.name.as_str().into()));
        // Until the writer has moved it.
        let others = state.inventory.interfaces.iter().find(|iface| iface.kind == Kind::Others);
        let folded =
            others.iter().flat_map(|others| state.unsaved.folding.iter().map(|id| (*id, others.name.as_str().into())));
        let seen = state.inventory.interfaces.iter().filter_map(|iface| Some((iface.id?, iface.name.as_str().into())));
        Names(saved.chain(folded).chain(seen).collect())
    }

    pub fn ids(&self) -> impl Iterator<Item = IfaceId> {
        self.0.keys().copied()
    }

    pub fn name(&self, id: IfaceId) -> Arc<str> {
        // Forgotten while it was being asked for.
        self.0.get(&id).cloned().unwrap_or_else(|| format!("interface-{id}").into())
    }

    pub fn id(&self, name: &str) -> Option<IfaceId> {
        self.0.iter().find(|(_, known)| &***known == name).map(|(id, _)| *id)
    }
}
