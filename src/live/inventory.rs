//! Which interfaces there are, what the latest look and reading say of them, and where that comes from.

use super::Ring;
use crate::config::Config;
use crate::model::{Address, Counters, IfaceId, Kind};

#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Sorted by name, absent ones with history included.
    pub interfaces: Vec<Iface>,
    /// Name of the interface of the headline figure.
    pub primary: Option<String>,
    pub unmatched: Vec<Unmatched>,
    /// How often the kernel has dropped reports of links, and when it last did, by the monotonic clock.
    pub reports_lost: u64,
    pub reports_lost_ms: u64,
    /// `getstats`, `getlink` or `sysfs`, and why not a better one.
    pub source: &'static str,
    pub source_note: Option<String>,
    /// What cannot be told of the machine, so that a start may have to leave something out.
    pub unknown: Option<&'static str>,
    pub ring: Ring,
}

impl Inventory {
    /// By its name. An altname serves where no interface, present or absent, has that for its own name.
    pub fn interface(&self, name: &str) -> Option<&Iface> {
        let own = self.interfaces.iter().find(|iface| iface.name == name);
        own.or_else(|| self.interfaces.iter().find(|iface| iface.is_called(name)))
    }
}

/// One interface as its readers see it.
#[derive(Clone, Debug)]
pub struct Iface {
    /// `None` while nothing was ever stored of it.
    pub id: Option<IfaceId>,
    /// 0 while it is absent.
    pub ifindex: u32,
    pub name: String,
    pub altnames: Vec<String>,
    pub kind: Kind,
    pub mac: String,
    pub mtu: u32,
    pub speed: Option<u32>,
    pub up: bool,
    pub alias: String,
    pub addresses: Vec<Address>,
    /// Names of the bridge or bond it is a port of, else of the link below it.
    pub parent: Option<String>,
    pub monitored: bool,
    pub ignored_because: Option<String>,
    /// Raw kernel counters at the latest reading.
    pub raw: Counters,
    /// Bytes per second over the latest reading but one; `None` before the second.
    pub rates: Option<(u64, u64)>,
    pub lifetime: Counters,
}

impl Iface {
    pub fn present(&self) -> bool {
        self.ifindex != 0
    }

    /// By its own name or by an altname.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|altname| altname == name)
    }
}

/// Something that a setting asks for by name or pattern, while no interface that is there has such a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// `interfaces` or `primary`.
    pub key: &'static str,
    pub pattern: String,
    /// The name of an interface that was there once.
    pub known: bool,
}

/// What to tell of it: a sentence for each setting, without its full stop.
pub fn unmatched_sentences(unmatched: &[Unmatched], config: &Config) -> Vec<String> {
    const NAMED: usize = 5;
    let mut sentences = Vec::new();
    for key in ["interfaces", "primary"] {
        let of: Vec<&Unmatched> = unmatched.iter().filter(|one| one.key == key).collect();
        let mut names = of.iter().take(NAMED).map(|one| one.pattern.as_str()).collect::<Vec<_>>().join(", ");
        if of.len() > NAMED {
            names += &format!(" and {} more", of.len() - NAMED);
        }
        let begin = if of.iter().all(|one| one.known) { "go on" } else { "begin" };
        let rest = match of[..] {
            [] => continue,
            [_] if key == "primary" => "matches no interface now: it is the headline once it is there".to_string(),
            [one] => {
                let which = if one.pattern.contains('*') { "one" } else { "it" };
                format!("matches no interface now: its figures {begin} when {which} appears")
            }
            _ => format!("match no interface now: their figures {begin} when they appear"),
        };
        sentences.push(format!("{} {rest}", config.naming(key, &names)));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_in_a_sentence_for_each_setting() {
        let typed = [("interfaces", "a".to_string())];
        let flag = Config::new(&typed, |_| None).unwrap();
        let saved = Config::saved(&[("interfaces", "a"), ("primary", "wan")]);
        let check = |config: &Config, asked: &[(&'static str, &str, bool)], expect: &[&str]| {
            let unmatched: Vec<Unmatched> = asked
                .iter()
                .map(|(key, pattern, known)| Unmatched { key, pattern: pattern.to_string(), known: *known })
                .collect();
            assert_eq!(unmatched_sentences(&unmatched, config), expect);
        };
        let of = |pattern, known| ("interfaces", pattern, known);
        check(&flag, &[], &[]);
        let one = "--interface ppp7 matches no interface now: its figures";
        check(&flag, &[of("ppp7", false)], &[&format!("{one} begin when it appears")]);
        check(&flag, &[of("ppp7", true)], &[&format!("{one} go on when it appears")]);
        let one = "--interface nope* matches no interface now: its figures begin when one appears";
        check(&flag, &[of("nope*", false)], &[one]);
        check(
            &saved,
            &[("primary", "wan", false), of("a", true), of("b*", false)],
            &[
                "the interfaces setting a, b* match no interface now: their figures begin when they appear",
                "the primary setting wan matches no interface now: it is the headline once it is there",
            ],
        );
        let many = ["a", "b", "c", "d", "e", "f", "g"].map(|name| of(name, true));
        let all = "--interface a, b, c, d, e and 2 more match no interface now: their figures go on when they appear";
        check(&flag, &many, &[all]);
    }
}
