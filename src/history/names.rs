//! Names of interfaces, by the number that the history stores.

use std::sync::Arc;

use crate::live::State;
use crate::model::{IfaceId, InterfaceKind};
use crate::sorted::Map;

#[derive(Clone, Debug, Default)]
pub struct InterfaceNames(Map<IfaceId, Arc<str>>);

impl InterfaceNames {
    pub fn of(state: &State) -> InterfaceNames {
        let records = state.unsaved.records.iter().map(|record| (record.id, record.name.as_str().into()));
        // Samples that the writer has not merged into "others" yet still have the ids of the removed interfaces.
        let others = state.inventory.interfaces.iter().find(|iface| iface.kind == InterfaceKind::Others);
        let merging = others
            .iter()
            .flat_map(|others| state.unsaved.merging_into_others.iter().map(|id| (*id, others.name.as_str().into())));
        let listed =
            state.inventory.interfaces.iter().filter_map(|iface| Some((iface.id?, iface.name.as_str().into())));
        InterfaceNames(records.chain(merging).chain(listed).collect())
    }

    pub fn ids(&self) -> impl Iterator<Item = IfaceId> {
        self.0.keys().copied()
    }

    pub fn name(&self, id: IfaceId) -> Arc<str> {
        // The interface was forgotten after the query began.
        self.0.get(&id).cloned().unwrap_or_else(|| format!("interface-{id}").into())
    }

    pub fn id(&self, name: &str) -> Option<IfaceId> {
        self.0.iter().find(|(_, known)| &***known == name).map(|(id, _)| *id)
    }
}
