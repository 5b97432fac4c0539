//! All interfaces with their latest facts, counters and rates, and the source that these come from.

use super::Ring;
use crate::config::Config;
use crate::model::{Address, Counters, IfaceId, InterfaceKind};

#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Sorted by name. Includes absent interfaces that have a history.
    pub interfaces: Vec<Iface>,
    /// Name of the primary interface, whose figures the page shows first.
    pub primary: Option<String>,
    pub unmatched: Vec<Unmatched>,
    /// How often the kernel dropped link notifications, and the monotonic time of the latest such loss.
    pub notifications_lost: u64,
    pub notifications_lost_mono_ms: u64,
    /// `getstats`, `getlink` or `sysfs`. The note says why a better source is not used, and includes `boot_id_note`.
    pub source: &'static str,
    pub source_note: Option<String>,
    /// Note that the boot id cannot be read. Without that id, the first sample of a run may miss some traffic.
    pub boot_id_note: Option<&'static str>,
    pub ring: Ring,
}

impl Inventory {
    /// Finds an interface by its name. An altname matches only if no interface, present or absent, has it as its own
    /// name.
    pub fn interface(&self, name: &str) -> Option<&Iface> {
        let own = self.interfaces.iter().find(|iface| iface.name == name);
        own.or_else(|| self.interfaces.iter().find(|iface| iface.has_name(name)))
    }
}

/// One interface as `http` shows it.
#[derive(Clone, Debug)]
pub struct Iface {
    /// `None` for an interface without a record.
    pub id: Option<IfaceId>,
    /// 0 while it is absent.
    pub ifindex: u32,
    pub name: String,
    pub altnames: Vec<String>,
    pub kind: InterfaceKind,
    pub mac: String,
    pub mtu: u32,
    /// Mbit/s.
    pub speed: Option<u32>,
    pub up: bool,
    pub alias: String,
    pub addresses: Vec<Address>,
    /// Name of the bridge or bond that it is a port of, else of the link below it.
    pub parent: Option<String>,
    /// Watched, and had traffic.
    pub monitored: bool,
    pub ignored_because: Option<String>,
    /// Raw kernel counters of the latest reading.
    pub raw: Counters,
    /// Bytes per second (rx, tx) between the latest two readings; `None` before the second reading.
    pub rates: Option<(u64, u64)>,
    pub lifetime: Counters,
}

impl Iface {
    pub fn present(&self) -> bool {
        self.ifindex != 0
    }

    /// Compares with its own name and its altnames.
    pub fn has_name(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|altname| altname == name)
    }
}

/// A name or pattern in the settings that matches no present interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// `interfaces` or `primary`.
    pub key: &'static str,
    pub pattern: String,
    /// An absent interface with history has this name.
    pub known: bool,
}

/// One sentence per setting, without a full stop, for the log and the health answer.
pub fn unmatched_sentences(unmatched: &[Unmatched], config: &Config) -> Vec<String> {
    const MAX_NAMES: usize = 5;
    let mut sentences = Vec::new();
    for key in ["interfaces", "primary"] {
        let patterns: Vec<&Unmatched> = unmatched.iter().filter(|one| one.key == key).collect();
        let mut names = patterns.iter().take(MAX_NAMES).map(|one| one.pattern.as_str()).collect::<Vec<_>>().join(", ");
        if patterns.len() > MAX_NAMES {
            names += &format!(" and {} more", patterns.len() - MAX_NAMES);
        }
        let begin = if patterns.iter().all(|one| one.known) { "continues" } else { "starts" };
        let rest = match patterns[..] {
            [] => continue,
            [_] if key == "primary" => {
                "matches no interface now: it becomes the primary interface when it appears".to_string()
            }
            [one] => {
                let which = if one.pattern.contains('*') { "one" } else { "it" };
                format!("matches no interface now: counting {begin} when {which} appears")
            }
            _ => format!("match no interface now: counting {begin} when they appear"),
        };
        sentences.push(format!("{} {rest}", config.describe(key, &names)));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmatched_patterns_make_one_sentence_per_setting() {
        let typed = [("interfaces", "a".to_string())];
        let flag = Config::new(&typed, |_| None).unwrap();
        let saved = Config::with_saved(&[("interfaces", "a"), ("primary", "wan")]);
        let check = |config: &Config, entries: &[(&'static str, &str, bool)], expect: &[&str]| {
            let unmatched: Vec<Unmatched> = entries
                .iter()
                .map(|(key, pattern, known)| Unmatched { key, pattern: pattern.to_string(), known: *known })
                .collect();
            assert_eq!(unmatched_sentences(&unmatched, config), expect);
        };
        let of = |pattern, known| ("interfaces", pattern, known);
        check(&flag, &[], &[]);
        let one = "--interface ppp7 matches no interface now: counting";
        check(&flag, &[of("ppp7", false)], &[&format!("{one} starts when it appears")]);
        check(&flag, &[of("ppp7", true)], &[&format!("{one} continues when it appears")]);
        let one = "--interface nope* matches no interface now: counting starts when one appears";
        check(&flag, &[of("nope*", false)], &[one]);
        check(
            &saved,
            &[("primary", "wan", false), of("a", true), of("b*", false)],
            &[
                "the interfaces setting a, b* match no interface now: counting starts when they appear",
                "the primary setting wan matches no interface now: it becomes the primary interface when it appears",
            ],
        );
        let many = ["a", "b", "c", "d", "e", "f", "g"].map(|name| of(name, true));
        let all = "--interface a, b, c, d, e and 2 more match no interface now: counting continues when they appear";
        check(&flag, &many, &[all]);
    }
}
