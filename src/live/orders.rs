//! What people want of an interface's identity, and what that comes to in settings. All that a request asks for is judged
//! together: of what is refused nothing happens.

use super::{Iface, State};
use crate::config::{Changes, Refused, can_be_listed};

/// The sampler's to carry out: it gives interfaces their numbers, and has samples that no other thread has yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Alter(Alteration),
    Forget { name: String },
}

/// What is not asked for stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alteration {
    pub name: String,
    /// An interface that is not there any more, whose history becomes part of this one's.
    pub merge: Option<String>,
    pub alias: Option<String>,
    /// `None` within leaves it to the rules.
    pub monitored: Option<Option<bool>>,
    pub primary: Option<bool>,
}

/// Why an order was not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Unknown(String),
    /// It is there: its history goes on.
    Present(String),
    /// The database is not open: the numbers of interfaces are not known.
    NotYet,
    /// The chosen headline is always watched.
    Headline(String),
    /// To be the headline and not to be watched.
    Contradiction,
    Setting(Refused),
}

impl Alteration {
    pub fn is_empty(&self) -> bool {
        *self == Alteration { name: self.name.clone(), ..Alteration::default() }
    }

    /// Settings alone can be changed without one.
    pub fn needs_history(&self) -> bool {
        self.merge.is_some() || self.alias.is_some()
    }

    fn chooses(&self) -> bool {
        self.monitored.is_some() || self.primary.is_some()
    }
}

impl State {
    /// What an alteration comes to in settings, which flags and the environment may own. Entries are written under the
    /// interface's own name, and those under its altnames go.
    pub fn changes(&self, alteration: &Alteration) -> Result<Changes, Refusal> {
        let unknown = |name: &str| Refusal::Unknown(name.to_string());
        let name = alteration.name.as_str();
        let iface = self.inventory.interface(name).ok_or_else(|| unknown(name))?;
        let Some(gone) = alteration.merge.as_deref() else {
            let changes = choice(self, iface, alteration, Vec::new())?;
            return self.config.allows(&changes).map(|()| changes).map_err(Refusal::Setting);
        };
        if self.inventory.interface(gone).ok_or_else(|| unknown(gone))?.present() {
            return Err(Refusal::Present(gone.to_string()));
        }
        let mut outcome = Ok(Changes::new());
        // A list may have no room for the successor's name.
        for successor in [Some(name), None] {
            let changes = choice(self, iface, alteration, self.handed_on(gone, successor))?;
            match self.config.allows(&changes) {
                Ok(()) => return Ok(changes),
                Err(refused) if alteration.chooses() => outcome = Err(Refusal::Setting(refused)),
                // A merge was asked for, and that can be had.
                Err(_) => {}
            }
        }
        outcome
    }

    /// Settings that name an interface which is gone name its successor from then on, or no interface. What flags and the
    /// environment own stays as they have it.
    pub fn handed_on(&self, gone: &str, successor: Option<&str>) -> Changes {
        let mut changes = Changes::new();
        if self.tuning.primary == gone {
            changes.push(("primary", successor.map(str::to_string)));
        }
        for key in ["interfaces", "ignore"] {
            let before = self.config.list(key);
            // That the other was left out is no reason to leave out its successor.
            let kept = |item: &str| key == "interfaces" || item.starts_with('!');
            let after = renamed(&before, gone, successor.filter(|name| can_be_listed(name)), kept);
            // Nothing named would mean everything.
            if after != before && !(key == "interfaces" && after.is_empty()) {
                changes.push((key, (!after.is_empty()).then(|| after.join(","))));
            }
        }
        changes.retain(|(key, _)| self.config.owner(key).is_none());
        changes
    }
}

/// Adds what `monitored` and `primary` come to.
fn choice(state: &State, iface: &Iface, asked: &Alteration, mut changes: Changes) -> Result<Changes, Refusal> {
    let name = iface.name.as_str();
    let said = |key: &str| changes.iter().find(|(known, _)| *known == key).map(|(_, text)| text.clone());
    let before = match said("ignore") {
        Some(text) => text.iter().flat_map(|text| text.split(',')).map(str::to_string).collect(),
        None => state.tuning.ignored.clone(),
    };
    let chosen = said("primary").map_or(state.tuning.primary.clone(), Option::unwrap_or_default);
    let mut ignored = before.clone();
    if let Some(monitored) = asked.monitored {
        let headline = iface.is_called(&chosen) || asked.merge.as_ref() == Some(&chosen);
        match asked.primary {
            Some(true) if monitored == Some(false) => return Err(Refusal::Contradiction),
            None if monitored == Some(false) && headline => return Err(Refusal::Headline(name.to_string())),
            _ => {}
        }
        ignored.retain(|pattern| !iface.is_called(pattern.strip_prefix('!').unwrap_or(pattern)));
        match monitored {
            Some(true) => ignored.push(format!("!{name}")),
            Some(false) => ignored.push(name.to_string()),
            None => {}
        }
    } else if asked.primary == Some(true) && state.config.owner("ignore").is_none() {
        // Its choice is the later word.
        ignored.retain(|pattern| !iface.is_called(pattern));
    }
    let mut change = |key: &'static str, text: Option<String>| {
        changes.retain(|(known, _)| *known != key);
        changes.push((key, text));
    };
    if asked.monitored.is_some() || ignored != before {
        change("ignore", (!ignored.is_empty()).then(|| ignored.join(",")));
    }
    match asked.primary {
        Some(true) => change("primary", Some(name.to_string())),
        Some(false) if iface.is_called(&chosen) => change("primary", None),
        _ => {}
    }
    Ok(changes)
}

/// A list with one name in the place of another. An entry that the successor has already stays.
fn renamed(list: &[String], gone: &str, successor: Option<&str>, kept: impl Fn(&str) -> bool) -> Vec<String> {
    let bare = |item: &str| item.strip_prefix('!').unwrap_or(item).to_string();
    let said = |name: &str| list.iter().any(|item| bare(item) == name);
    let successor = successor.filter(|name| !said(name));
    let item = |item: &String| match bare(item) == gone {
        true => successor.filter(|_| kept(item)).map(|name| item.replacen(gone, name, 1)),
        false => Some(item.clone()),
    };
    list.iter().filter_map(item).collect()
}
