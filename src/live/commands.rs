//! Interface commands: requests to edit or forget one interface, and the changes of settings that they cause. A command
//! is checked as a whole: if one part is refused, nothing is changed.

use super::{Iface, State};
use crate::config::{SettingChanges, SettingsRefusal, is_literal_pattern};

/// A command for the sampler, which assigns the interface ids and has the records and baselines of all interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceCommand {
    Edit(InterfaceEdit),
    Forget { name: String },
}

/// Fields that are `None` stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceEdit {
    pub name: String,
    /// Name of an absent interface. Its history becomes part of this interface's history.
    pub merge: Option<String>,
    pub alias: Option<String>,
    /// `Some(None)` leaves the choice to the rules of `detect`.
    pub monitored: Option<Option<bool>>,
    pub primary: Option<bool>,
}

/// Why the sampler refused a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandRefusal {
    Unknown(String),
    /// The interface is present, so its history cannot be merged or forgotten.
    Present(String),
    /// The sampler has not rejoined the stored history yet, so the stored interface ids are not known.
    HistoryNotOpen,
    /// The chosen primary interface is always monitored.
    IsPrimary(String),
    /// The same command chooses the interface as primary and excludes it from monitoring.
    Contradiction,
    Setting(SettingsRefusal),
}

impl InterfaceEdit {
    pub fn is_empty(&self) -> bool {
        *self == InterfaceEdit { name: self.name.clone(), ..InterfaceEdit::default() }
    }

    /// An edit that changes only settings works without the database.
    pub fn needs_history(&self) -> bool {
        self.merge.is_some() || self.alias.is_some()
    }

    fn changes_settings(&self) -> bool {
        self.monitored.is_some() || self.primary.is_some()
    }
}

impl State {
    /// Returns the changes of settings that an edit causes. Refuses to change a setting that a flag or the environment
    /// fixes; an edit that only merges leaves such a setting as it is. List entries use the interface's own name;
    /// entries with one of its altnames are removed.
    pub fn setting_changes(&self, edit: &InterfaceEdit) -> Result<SettingChanges, CommandRefusal> {
        let unknown = |name: &str| CommandRefusal::Unknown(name.to_string());
        let name = edit.name.as_str();
        let iface = self.inventory.interface(name).ok_or_else(|| unknown(name))?;
        let Some(gone) = edit.merge.as_deref() else {
            let changes = add_choices(self, iface, edit, Vec::new())?;
            return self.config.check_changes(&changes).map(|()| changes).map_err(CommandRefusal::Setting);
        };
        if self.inventory.interface(gone).ok_or_else(|| unknown(gone))?.present() {
            return Err(CommandRefusal::Present(gone.to_string()));
        }
        let mut outcome = Ok(SettingChanges::new());
        // The first attempt puts the new name into the lists. If the settings refuse that, the second attempt only
        // removes the old name.
        for successor in [Some(name), None] {
            let changes = add_choices(self, iface, edit, self.replace_name(gone, successor))?;
            match self.config.check_changes(&changes) {
                Ok(()) => return Ok(changes),
                Err(refused) if edit.changes_settings() => outcome = Err(CommandRefusal::Setting(refused)),
                // The edit only merges, and that works without this setting.
                Err(_) => {}
            }
        }
        outcome
    }

    /// Returns the changes of settings that replace the name of a removed interface by its successor's, or remove it if
    /// there is none. Settings that a flag or the environment fixes stay as they are.
    pub fn replace_name(&self, gone: &str, successor: Option<&str>) -> SettingChanges {
        let mut changes = SettingChanges::new();
        if self.active.primary == gone {
            changes.push(("primary", successor.map(str::to_string)));
        }
        for key in ["interfaces", "ignore"] {
            let before = self.config.list(key);
            // An entry that ignores the removed interface is not passed on to its successor.
            let kept = |item: &str| key == "interfaces" || item.starts_with('!');
            let after = replace_in_list(&before, gone, successor.filter(|name| is_literal_pattern(name)), kept);
            // An empty `interfaces` list would mean all interfaces.
            if after != before && !(key == "interfaces" && after.is_empty()) {
                changes.push((key, (!after.is_empty()).then(|| after.join(","))));
            }
        }
        changes.retain(|(key, _)| self.config.owner(key).is_none());
        changes
    }
}

/// Adds the changes that `monitored` and `primary` cause.
fn add_choices(
    state: &State,
    iface: &Iface,
    edit: &InterfaceEdit,
    mut changes: SettingChanges,
) -> Result<SettingChanges, CommandRefusal> {
    let name = iface.name.as_str();
    let queued = |key: &str| changes.iter().find(|(known, _)| *known == key).map(|(_, text)| text.clone());
    let before = match queued("ignore") {
        Some(text) => text.iter().flat_map(|text| text.split(',')).map(str::to_string).collect(),
        None => state.active.ignored.clone(),
    };
    let chosen = queued("primary").map_or(state.active.primary.clone(), Option::unwrap_or_default);
    let mut ignored = before.clone();
    if let Some(monitored) = edit.monitored {
        let is_primary = iface.has_name(&chosen) || edit.merge.as_ref() == Some(&chosen);
        match edit.primary {
            Some(true) if monitored == Some(false) => return Err(CommandRefusal::Contradiction),
            None if monitored == Some(false) && is_primary => return Err(CommandRefusal::IsPrimary(name.to_string())),
            _ => {}
        }
        ignored.retain(|pattern| !iface.has_name(pattern.strip_prefix('!').unwrap_or(pattern)));
        match monitored {
            Some(true) => ignored.push(format!("!{name}")),
            Some(false) => ignored.push(name.to_string()),
            None => {}
        }
    } else if edit.primary == Some(true) && state.config.owner("ignore").is_none() {
        // Choosing an interface as primary overrides an older entry that ignores it.
        ignored.retain(|pattern| !iface.has_name(pattern));
    }
    let mut change = |key: &'static str, text: Option<String>| {
        changes.retain(|(known, _)| *known != key);
        changes.push((key, text));
    };
    if edit.monitored.is_some() || ignored != before {
        change("ignore", (!ignored.is_empty()).then(|| ignored.join(",")));
    }
    match edit.primary {
        Some(true) => change("primary", Some(name.to_string())),
        Some(false) if iface.has_name(&chosen) => change("primary", None),
        _ => {}
    }
    Ok(changes)
}

/// Replaces one name in a list. If the successor is already listed, its entry stays and the old one is removed.
fn replace_in_list(list: &[String], gone: &str, successor: Option<&str>, kept: impl Fn(&str) -> bool) -> Vec<String> {
    let bare = |item: &str| item.strip_prefix('!').unwrap_or(item).to_string();
    let listed = |name: &str| list.iter().any(|item| bare(item) == name);
    let successor = successor.filter(|name| !listed(name));
    let item = |item: &String| match bare(item) == gone {
        true => successor.filter(|_| kept(item)).map(|name| item.replacen(gone, name, 1)),
        false => Some(item.clone()),
    };
    list.iter().filter_map(item).collect()
}
