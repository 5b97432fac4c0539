//! Every setting: its name, range, default, environment variable and help in one table, and what it is in force:
//! flag > environment > saved > default. Validated once, here.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// What a setting's text may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Whole number, both ends included.
    Integer(u64, u64),
    /// Decimal number, both ends included.
    Decimal(f64, f64),
    Word(&'static [&'static str]),
    /// Anything but nothing.
    Text,
    /// Comma-separated or repeated; may be empty.
    List,
    /// Bytes, with K, M or G.
    Size,
    Switch,
}

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub key: &'static str,
    /// `None`: it is changed through the API only.
    pub flag: Option<&'static str>,
    pub environment: Option<&'static str>,
    pub kind: Kind,
    pub default: &'static str,
    /// It may be kept in the database.
    pub saved: bool,
    pub help: &'static str,
}

pub const INTERVAL_S: (u64, u64) = (1, 3600);
pub const MAX_RETRIES: (u64, u64) = (1, 100);
pub const RETRY_DELAY_S: (f64, f64) = (0.1, 300.0);

const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

#[rustfmt::skip]
pub const SETTINGS: [Setting; 18] = [
    Setting { key: "host", flag: Some("--host"), environment: Some("NETPULSE_HOST"), kind: Kind::List, default: "", saved: false, help: "address to listen on; repeatable (default: all, IPv4 and IPv6)" },
    Setting { key: "port", flag: Some("--port"), environment: Some("NETPULSE_PORT"), kind: Kind::Integer(0, 65535), default: "8000", saved: false, help: "port to listen on; 0 picks one and the log says which" },
    Setting { key: "allowed_host", flag: Some("--allowed-host"), environment: Some("NETPULSE_ALLOWED_HOST"), kind: Kind::List, default: "", saved: false, help: "further name that browsers may use for this machine; repeatable (default: its host name and addresses)" },
    Setting { key: "database", flag: Some("--database"), environment: Some("NETPULSE_DATABASE"), kind: Kind::Text, default: "", saved: false, help: "file of the history (default: /var/lib/net-pulse/net-pulse.db for root, else in $XDG_STATE_HOME)" },
    Setting { key: "interval", flag: Some("--interval"), environment: Some("NETPULSE_INTERVAL"), kind: Kind::Integer(INTERVAL_S.0, INTERVAL_S.1), default: "30", saved: true, help: "seconds between two samples" },
    Setting { key: "media", flag: Some("--media"), environment: Some("NETPULSE_MEDIA"), kind: Kind::Word(&["disk", "flash"]), default: "disk", saved: true, help: "what the history lies on: disk (saved every 5 minutes) or flash (hourly)" },
    Setting { key: "flush", flag: Some("--flush"), environment: Some("NETPULSE_FLUSH"), kind: Kind::Integer(1, 86400), default: "300", saved: true, help: "seconds between two saves, in place of what --media means" },
    Setting { key: "max_size", flag: Some("--max-size"), environment: Some("NETPULSE_MAX_SIZE"), kind: Kind::Size, default: "32M", saved: false, help: "the history never grows past this; the finest is given up first" },
    Setting { key: "timezone", flag: Some("--timezone"), environment: Some("NETPULSE_TIMEZONE"), kind: Kind::Text, default: "", saved: true, help: "POSIX zone or a zoneinfo name, for days and months (default: the system's)" },
    Setting { key: "log_level", flag: Some("--log-level"), environment: Some("NETPULSE_LOG_LEVEL"), kind: Kind::Word(LOG_LEVELS), default: "info", saved: false, help: "error, warn, info, debug or trace" },
    Setting { key: "source", flag: Some("--source"), environment: Some("NETPULSE_SOURCE"), kind: Kind::Word(&["auto", "getstats", "getlink", "sysfs"]), default: "auto", saved: false, help: "where counters are read: auto, getstats, getlink or sysfs" },
    Setting { key: "interfaces", flag: Some("--interface"), environment: Some("NETPULSE_INTERFACE"), kind: Kind::List, default: "", saved: true, help: "interface to watch, * allowed; repeatable, beats the ignore rules (default: all that matter)" },
    Setting { key: "ignore", flag: Some("--ignore"), environment: Some("NETPULSE_IGNORE"), kind: Kind::List, default: "", saved: true, help: "interface to leave out, * allowed; repeatable" },
    Setting { key: "primary", flag: Some("--primary"), environment: Some("NETPULSE_PRIMARY"), kind: Kind::Text, default: "", saved: true, help: "interface of the headline figure (default: found by its traffic)" },
    Setting { key: "max_retries", flag: None, environment: Some("NETPULSE_MAX_RETRIES"), kind: Kind::Integer(MAX_RETRIES.0, MAX_RETRIES.1), default: "3", saved: true, help: "further attempts after a failed reading" },
    Setting { key: "retry_delay", flag: None, environment: Some("NETPULSE_RETRY_DELAY"), kind: Kind::Decimal(RETRY_DELAY_S.0, RETRY_DELAY_S.1), default: "1.0", saved: true, help: "seconds between two attempts" },
    Setting { key: "running", flag: None, environment: None, kind: Kind::Switch, default: "true", saved: true, help: "whether samples are taken; stopped and started through the API" },
    // Not for people: which interface was found to be the primary, so that a restart has a headline at once.
    Setting { key: "primary_found", flag: None, environment: None, kind: Kind::Text, default: "", saved: true, help: "the primary as last found" },
];

/// Where a value comes from. Later ones beat earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Default,
    Saved,
    Environment,
    Flag,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::Saved => "saved",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Config {
    /// `typed`: what stood on the command line, by key; repeated flags are several entries.
    pub fn new(typed: &[(&'static str, String)], environment: impl Fn(&str) -> Option<String>) -> Result<Config> {
        let mut values = BTreeMap::new();
        for setting in &SETTINGS {
            let given: Vec<&str> =
                typed.iter().filter(|(key, _)| *key == setting.key).map(|(_, value)| value.as_str()).collect();
            let variable = setting.environment.and_then(|name| Some((name, environment(name)?)));
            let (text, origin) = if !given.is_empty() {
                let flag = setting.flag.unwrap_or(setting.key);
                for value in &given {
                    setting.check(value).map_err(|error| error.context(flag))?;
                }
                (given.join(","), Origin::Flag)
            } else if let Some((name, value)) = variable.filter(|(_, value)| !value.is_empty()) {
                setting.check(&value).map_err(|error| error.context(name))?;
                (value, Origin::Environment)
            } else {
                (setting.default.to_string(), Origin::Default)
            };
            values.insert(setting.key, (text, origin));
        }
        Ok(Config { values })
    }

    /// Takes what the database remembers where neither flag nor environment speaks. What does not validate, from an
    /// older or a newer version, is returned for the log and left at its default.
    pub fn take_saved(&mut self, saved: &BTreeMap<String, String>) -> Vec<String> {
        let mut refused = Vec::new();
        for setting in SETTINGS.iter().filter(|setting| setting.saved) {
            let Some(text) = saved.get(setting.key) else { continue };
            if self.origin(setting.key) > Origin::Saved {
                continue;
            }
            match setting.check(text) {
                Ok(()) => {
                    self.values.insert(setting.key, (text.clone(), Origin::Saved));
                }
                Err(error) => refused.push(format!("saved {}: {error}; using {}", setting.key, setting.default)),
            }
        }
        refused
    }

    pub fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or("", |(text, _)| text)
    }

    pub fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::Default, |(_, origin)| *origin)
    }

    pub fn integer(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or_default()
    }

    pub fn decimal(&self, key: &str) -> f64 {
        self.text(key).parse().unwrap_or_default()
    }

    pub fn switch(&self, key: &str) -> bool {
        self.text(key) == "true"
    }

    pub fn size(&self, key: &str) -> u64 {
        size(self.text(key)).unwrap_or_default()
    }

    pub fn list(&self, key: &str) -> Vec<String> {
        list(self.text(key))
    }

    /// An explicit --flush wins over what --media means, unless --media was set by somebody who has more to say.
    pub fn flush_s(&self) -> u32 {
        const BY_MEDIA: [(&str, u32); 2] = [("disk", 300), ("flash", 3600)];
        if self.origin("flush") > Origin::Default && self.origin("flush") >= self.origin("media") {
            return self.integer("flush") as u32;
        }
        BY_MEDIA.iter().find(|(word, _)| *word == self.text("media")).map_or(300, |(_, seconds)| *seconds)
    }

    /// The settings that cannot be changed while running, with who owns them.
    pub fn owners(&self) -> BTreeMap<&'static str, String> {
        let owned = SETTINGS.iter().filter(|setting| self.origin(setting.key) > Origin::Saved);
        owned.map(|setting| (setting.key, self.said_by(setting.key).to_string())).collect()
    }

    /// Who a fault in this setting is to be blamed on: the flag, the variable, or the saved setting.
    pub fn said_by(&self, key: &str) -> &'static str {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else { return "" };
        match self.origin(key) {
            Origin::Flag => setting.flag.unwrap_or(setting.key),
            Origin::Environment => setting.environment.unwrap_or(setting.key),
            Origin::Saved | Origin::Default => setting.key,
        }
    }
}

impl Setting {
    pub fn check(&self, text: &str) -> Result<()> {
        let wrong = |what: String| Err(Error::usage(format!("'{}' is not {what}", shown(text))));
        match self.kind {
            Kind::Integer(low, high) => match text.parse::<u64>() {
                Ok(number) if (low..=high).contains(&number) => Ok(()),
                _ => wrong(format!("a whole number from {low} to {high}")),
            },
            Kind::Decimal(low, high) => match text.parse::<f64>() {
                Ok(number) if (low..=high).contains(&number) => Ok(()),
                _ => wrong(format!("a number from {low} to {high}")),
            },
            Kind::Word(words) if words.contains(&text) => Ok(()),
            Kind::Word(words) => wrong(format!("one of {}", words.join(", "))),
            Kind::Text if text.trim().is_empty() => wrong("usable: it is empty".to_string()),
            Kind::List if list(text).is_empty() => wrong("usable: it is empty".to_string()),
            Kind::Text | Kind::List => Ok(()),
            Kind::Size => match size(text) {
                Some(bytes) if bytes >= SMALLEST_SIZE => Ok(()),
                _ => wrong("a size of at least 1M, such as 32M".to_string()),
            },
            Kind::Switch if text == "true" || text == "false" => Ok(()),
            Kind::Switch => wrong("true or false".to_string()),
        }
    }
}

/// A year of days and hours of one interface and a week of samples need about this.
pub const SMALLEST_SIZE: u64 = 1 << 20;

fn size(text: &str) -> Option<u64> {
    const UNITS: [(char, u32); 3] = [('K', 10), ('M', 20), ('G', 30)];
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let unit = UNITS.iter().find(|(letter, _)| bare.ends_with(*letter));
    let (digits, shift) = match unit {
        Some((letter, shift)) => (bare.strip_suffix(*letter)?, *shift),
        None => (bare, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_string).collect()
}

/// Enough of what was typed to find it again, and nothing that moves a terminal's cursor.
fn shown(text: &str) -> String {
    text.chars().take(40).map(|each| if each.is_control() { '?' } else { each }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(typed: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Result<Config> {
        let typed: Vec<_> = typed.iter().map(|(key, value)| (*key, value.to_string())).collect();
        Config::new(&typed, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn flag_beats_environment_beats_saved_beats_default() {
        let saved = BTreeMap::from([("interval".to_string(), "7".to_string())]);
        let check =
            |typed: &[(&'static str, &str)], environment: &[(&str, &str)], saved: &BTreeMap<_, _>, expect, origin| {
                let mut config = config(typed, environment).unwrap();
                assert!(config.take_saved(saved).is_empty());
                assert_eq!((config.integer("interval"), config.origin("interval")), (expect, origin));
            };
        let nothing = BTreeMap::new();
        check(&[], &[], &nothing, 30, Origin::Default);
        check(&[], &[], &saved, 7, Origin::Saved);
        check(&[], &[("NETPULSE_INTERVAL", "8")], &saved, 8, Origin::Environment);
        check(&[("interval", "9")], &[("NETPULSE_INTERVAL", "8")], &saved, 9, Origin::Flag);
        check(&[], &[("NETPULSE_INTERVAL", "")], &nothing, 30, Origin::Default);
    }

    #[test]
    fn every_default_is_valid_where_it_is_not_left_open() {
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            assert!(setting.check(setting.default).is_ok(), "{}", setting.key);
        }
    }

    #[test]
    fn faults_name_the_thing_and_the_next_step() {
        let check = |key, value: &str, expect: &str| {
            assert_eq!(config(&[(key, value)], &[]).unwrap_err().to_string(), expect);
        };
        check("interval", "0", "--interval: '0' is not a whole number from 1 to 3600");
        check("interval", "3601", "--interval: '3601' is not a whole number from 1 to 3600");
        check("interval", "ten", "--interval: 'ten' is not a whole number from 1 to 3600");
        check("port", "65536", "--port: '65536' is not a whole number from 0 to 65535");
        check("port", "-1", "--port: '-1' is not a whole number from 0 to 65535");
        check("media", "paper", "--media: 'paper' is not one of disk, flash");
        check("max_size", "1K", "--max-size: '1K' is not a size of at least 1M, such as 32M");
        check("database", "", "--database: '' is not usable: it is empty");
        check("log_level", "loud\u{1b}[2J", "--log-level: 'loud?[2J' is not one of error, warn, info, debug, trace");
        let error = config(&[], &[("NETPULSE_PORT", "x")]).unwrap_err();
        assert_eq!(error.to_string(), "NETPULSE_PORT: 'x' is not a whole number from 0 to 65535");
    }

    #[test]
    fn sizes_and_lists() {
        let check = |text, expect| assert_eq!(size(text), expect, "{text}");
        check("32M", Some(32 << 20));
        check("32MB", Some(32 << 20));
        check("1gib", Some(1 << 30));
        check("4096", Some(4096));
        check("M", None);
        check("-1M", None);
        check("99999999999G", None);
        check("1.5M", None);
        assert_eq!(list(" a, b ,,c"), ["a", "b", "c"]);
        let config = config(&[("interfaces", "eth*"), ("interfaces", "wg0")], &[]).unwrap();
        assert_eq!(config.list("interfaces"), ["eth*", "wg0"]);
    }

    #[test]
    fn flush_follows_media_unless_it_was_said() {
        let check = |typed: &[(&'static str, &str)], expect| assert_eq!(config(typed, &[]).unwrap().flush_s(), expect);
        check(&[], 300);
        check(&[("media", "flash")], 3600);
        check(&[("media", "flash"), ("flush", "60")], 60);
        check(&[("flush", "1")], 1);
    }

    #[test]
    fn a_saved_value_of_another_version_is_refused_and_named() {
        let mut config = config(&[], &[]).unwrap();
        let refused = config.take_saved(&BTreeMap::from([("interval".to_string(), "soon".to_string())]));
        assert_eq!(refused, ["saved interval: 'soon' is not a whole number from 1 to 3600; using 30"]);
        assert_eq!(config.integer("interval"), 30);
    }

    #[test]
    fn owners_are_named() {
        let config = config(&[("interval", "5")], &[("NETPULSE_MAX_RETRIES", "4")]).unwrap();
        let expect = BTreeMap::from([
            ("interval", "--interval".to_string()),
            ("max_retries", "NETPULSE_MAX_RETRIES".to_string()),
        ]);
        assert_eq!(config.owners(), expect);
    }
}
