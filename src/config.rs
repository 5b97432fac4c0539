//! Settings: one table with the name, range, default, environment variable and help of each, and the active values.
//! A flag overrides the environment, the environment overrides the saved value, the saved value overrides the default.
//! This module checks the types and ranges of all values. `clock` checks time zones, `http` the addresses to listen on.

use crate::sorted::Map;
use crate::text::printable;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::{InterfaceKind, KIND_PREFIX};

/// Type of a setting: which texts are valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SettingType {
    /// Whole number, both ends included.
    Integer(u64, u64),
    /// Decimal number, both ends included.
    Decimal(f64, f64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text that is not empty, has at most `MAX_TEXT_BYTES`, and contains no control characters.
    Text,
    /// Time zone. This module checks it like `Text`; `clock` parses it.
    Zone,
    /// Items with commas between them, or a repeated flag. The default may be empty; a given value may not.
    List,
    /// Number of bytes, with an optional suffix K, M or G (powers of 1024).
    Size,
    /// On or off.
    Switch,
}

impl SettingType {
    /// Name in the API and in docs/settings.md.
    pub fn name(self) -> &'static str {
        match self {
            SettingType::Integer(..) => "integer",
            SettingType::Decimal(..) => "decimal",
            SettingType::Word(_) => "word",
            SettingType::Text | SettingType::Zone => "text",
            SettingType::List => "list",
            SettingType::Size => "size",
            SettingType::Switch => "switch",
        }
    }
}

/// Who may change a setting. The database keeps changes that are made while the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedBy {
    /// Only a flag or the environment, at the start.
    FlagOrVariable,
    /// A user through the API, unless a flag or the environment sets it.
    User,
    /// Only the program itself. The API and the documentation do not show it.
    Program,
}

/// One row of the table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub key: &'static str,
    /// `None`: only the environment or the API can set it.
    pub flag: Option<&'static str>,
    /// Name of the flag's value in the help; empty for a switch.
    pub argument: &'static str,
    pub environment: Option<&'static str>,
    pub kind: SettingType,
    pub default: &'static str,
    pub changed_by: ChangedBy,
    pub help: &'static str,
}

pub const INTERVAL_S: (u64, u64) = (1, 3600);
pub const MAX_RETRIES: (u64, u64) = (1, 100);
pub const RETRY_DELAY_S: (f64, f64) = (0.1, 300.0);

const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
/// Maximum length in bytes of a text, or of a whole list including its commas.
pub const MAX_TEXT_BYTES: usize = 4096;

/// The table of settings. After a change here, run `cross/settings`: it updates the documents that are made from it.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    Setting { key: "host", flag: Some("--host"), argument: "address", environment: Some("NETPULSE_HOST"), kind: SettingType::List, default: "", changed_by: ChangedBy::FlagOrVariable, help: "address to listen on; the machine may get it later; repeatable (default: all, IPv4 and IPv6)" },
    Setting { key: "port", flag: Some("--port"), argument: "number", environment: Some("NETPULSE_PORT"), kind: SettingType::Integer(0, 65535), default: "8000", changed_by: ChangedBy::FlagOrVariable, help: "port to listen on; 0 picks a free port, which the log names" },
    Setting { key: "allowed_host", flag: Some("--allowed-host"), argument: "name", environment: Some("NETPULSE_ALLOWED_HOST"), kind: SettingType::List, default: "", changed_by: ChangedBy::FlagOrVariable, help: "additional name of this machine that browsers may use; repeatable (default: its host name and addresses)" },
    Setting { key: "private", flag: Some("--private"), argument: "", environment: Some("NETPULSE_PRIVATE"), kind: SettingType::Switch, default: "false", changed_by: ChangedBy::FlagOrVariable, help: "require the access token for reading too, not only for changes" },
    Setting { key: "open", flag: Some("--open"), argument: "", environment: Some("NETPULSE_OPEN"), kind: SettingType::Switch, default: "false", changed_by: ChangedBy::FlagOrVariable, help: "allow changes without the access token to everyone who can reach the port" },
    Setting { key: "database", flag: Some("--database"), argument: "path", environment: Some("NETPULSE_DATABASE"), kind: SettingType::Text, default: "", changed_by: ChangedBy::FlagOrVariable, help: "database file (default: /var/lib/net-pulse/net-pulse.db for root, else in $XDG_STATE_HOME/net-pulse)" },
    Setting { key: "interval", flag: Some("--interval"), argument: "seconds", environment: Some("NETPULSE_INTERVAL"), kind: SettingType::Integer(INTERVAL_S.0, INTERVAL_S.1), default: "30", changed_by: ChangedBy::User, help: "seconds between two samples" },
    Setting { key: "media", flag: Some("--media"), argument: "kind", environment: Some("NETPULSE_MEDIA"), kind: SettingType::Word(&["disk", "flash"]), default: "disk", changed_by: ChangedBy::User, help: "storage of the database: disk (saved every 5 minutes) or flash (saved every hour)" },
    Setting { key: "flush", flag: Some("--flush"), argument: "seconds", environment: Some("NETPULSE_FLUSH"), kind: SettingType::Integer(1, 86400), default: "300", changed_by: ChangedBy::User, help: "seconds between two saves, instead of the --media default" },
    Setting { key: "max_size", flag: Some("--max-size"), argument: "size", environment: Some("NETPULSE_MAX_SIZE"), kind: SettingType::Size, default: "32M", changed_by: ChangedBy::FlagOrVariable, help: "maximum size of the database; the history of the finest resolution is deleted first" },
    Setting { key: "timezone", flag: Some("--timezone"), argument: "zone", environment: Some("NETPULSE_TIMEZONE"), kind: SettingType::Zone, default: "", changed_by: ChangedBy::User, help: "time zone of days and months: a POSIX TZ string or a zoneinfo name (default: that of the system)" },
    Setting { key: "log_level", flag: Some("--log-level"), argument: "level", environment: Some("NETPULSE_LOG_LEVEL"), kind: SettingType::Word(LOG_LEVELS), default: "info", changed_by: ChangedBy::FlagOrVariable, help: "log verbosity: error, warn, info, debug or trace" },
    Setting { key: "syslog", flag: None, argument: "", environment: Some("NETPULSE_SYSLOG"), kind: SettingType::Text, default: "", changed_by: ChangedBy::FlagOrVariable, help: "socket of the system log, such as /dev/log; while it does not exist, the log goes to standard error" },
    Setting { key: "source", flag: Some("--source"), argument: "name", environment: Some("NETPULSE_SOURCE"), kind: SettingType::Word(&["auto", "getstats", "getlink", "sysfs"]), default: "auto", changed_by: ChangedBy::FlagOrVariable, help: "kernel API to read counters from: auto, getstats, getlink or sysfs (without altnames)" },
    Setting { key: "interfaces", flag: Some("--interface"), argument: "pattern", environment: Some("NETPULSE_INTERFACE"), kind: SettingType::List, default: "", changed_by: ChangedBy::User, help: "interface to watch: a name, a pattern with *, or a kind such as kind:veth; repeatable, overrides the ignore rules (default: all that no rule ignores)" },
    Setting { key: "ignore", flag: Some("--ignore"), argument: "pattern", environment: Some("NETPULSE_IGNORE"), kind: SettingType::List, default: "", changed_by: ChangedBy::User, help: "interface to ignore: a name, a pattern with *, or a kind such as kind:veth; with ! in front it is watched, even if a rule ignores it; repeatable" },
    Setting { key: "primary", flag: Some("--primary"), argument: "name", environment: Some("NETPULSE_PRIMARY"), kind: SettingType::Text, default: "", changed_by: ChangedBy::User, help: "primary interface, shown first on the page and always watched (default: chosen by its traffic)" },
    Setting { key: "max_retries", flag: None, argument: "", environment: Some("NETPULSE_MAX_RETRIES"), kind: SettingType::Integer(MAX_RETRIES.0, MAX_RETRIES.1), default: "3", changed_by: ChangedBy::User, help: "number of retries after a failed reading" },
    Setting { key: "retry_delay", flag: None, argument: "", environment: Some("NETPULSE_RETRY_DELAY"), kind: SettingType::Decimal(RETRY_DELAY_S.0, RETRY_DELAY_S.1), default: "1.0", changed_by: ChangedBy::User, help: "seconds between two attempts" },
    Setting { key: "keep_samples_days", flag: None, argument: "", environment: Some("NETPULSE_KEEP_SAMPLES_DAYS"), kind: SettingType::Integer(1, 366), default: "7", changed_by: ChangedBy::User, help: "days to keep samples; fewer if the database reaches its maximum size" },
    Setting { key: "keep_5min_days", flag: None, argument: "", environment: Some("NETPULSE_KEEP_5MIN_DAYS"), kind: SettingType::Integer(1, 3660), default: "90", changed_by: ChangedBy::User, help: "days to keep 5-minute sums; fewer if the database reaches its maximum size" },
    Setting { key: "keep_hours_days", flag: None, argument: "", environment: Some("NETPULSE_KEEP_HOURS_DAYS"), kind: SettingType::Integer(1, 36600), default: "1826", changed_by: ChangedBy::User, help: "days to keep hourly sums; daily sums are kept forever" },
    Setting { key: "units", flag: None, argument: "", environment: Some("NETPULSE_UNITS"), kind: SettingType::Word(&["bits", "bytes"]), default: "bits", changed_by: ChangedBy::User, help: "unit of rates on the page: bits or bytes per second" },
    Setting { key: "prefixes", flag: None, argument: "", environment: Some("NETPULSE_PREFIXES"), kind: SettingType::Word(&["si", "iec"]), default: "si", changed_by: ChangedBy::User, help: "prefixes of units on the page: si (k = 1000) or iec (Ki = 1024)" },
    Setting { key: "running", flag: None, argument: "", environment: None, kind: SettingType::Switch, default: "true", changed_by: ChangedBy::User, help: "whether Net-Pulse takes samples" },
    // With these two, a restart knows the primary interface at once and recognises links that were created while the
    // program did not run.
    Setting { key: "primary_found", flag: None, argument: "", environment: None, kind: SettingType::Text, default: "", changed_by: ChangedBy::Program, help: "the primary interface that was chosen last" },
    Setting { key: "newest_link", flag: None, argument: "", environment: None, kind: SettingType::Text, default: "", changed_by: ChangedBy::Program, help: "boot, network namespace, ifindex and inode of the newest link" },
];

/// Where the active value of a setting comes from. A later variant overrides an earlier one.
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

/// Active value of each setting, as text, with its origin.
#[derive(Clone, Debug)]
pub struct Config {
    values: Map<&'static str, (String, Origin)>,
}

/// Every setting at its default.
impl Default for Config {
    fn default() -> Config {
        let values = SETTINGS.iter().map(|setting| (setting.key, (setting.default.to_string(), Origin::Default)));
        Config { values: values.collect() }
    }
}

/// Requested changes: setting and new text; `None` restores the default.
pub type SettingChanges = Vec<(&'static str, Option<String>)>;

/// Why a change of settings was refused. In that case no setting changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsRefusal {
    /// A flag or variable (`owner`) sets it and would set it again at the next start, or only `owner` can set it.
    Owned { key: &'static str, owner: &'static str },
    /// The value is not valid; `why` names the value and what is valid.
    Invalid { key: &'static str, why: String },
}

impl Config {
    /// Reads the flags and the environment. `typed` has the arguments of the command line by key; a repeated flag has
    /// several entries. The first invalid value is an error that names its flag or variable.
    pub fn new(typed: &[(&'static str, String)], environment: impl Fn(&str) -> Option<String>) -> Result<Config> {
        let mut values = Map::new();
        for setting in SETTINGS {
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

    /// Applies the values saved in the database to settings that neither a flag nor the environment sets. An invalid
    /// value (saved by another version) leaves the default. Returns a line for the log per invalid or shortened value.
    pub fn apply_saved(&mut self, saved: &Map<String, String>) -> Vec<String> {
        let mut warnings = Vec::new();
        for setting in SETTINGS.iter().filter(|setting| setting.changed_by != ChangedBy::FlagOrVariable) {
            let Some(whole) = saved.get(setting.key) else { continue };
            if self.origin(setting.key) > Origin::Saved {
                continue;
            }
            let text = match setting.kind {
                SettingType::List => shorten_list(whole),
                _ => whole,
            };
            match setting.check(text) {
                Ok(()) => {
                    if text.len() < whole.len() {
                        let rest = quotable(whole[text.len()..].trim_start_matches(','));
                        warnings.push(format!(
                            "saved {} has more than {MAX_TEXT_BYTES} bytes; ignoring the items from '{rest}' on",
                            setting.key
                        ));
                    }
                    self.values.insert(setting.key, (text.to_string(), Origin::Saved));
                }
                Err(error) => {
                    warnings.push(format!("saved {}: {error}; using the default '{}'", setting.key, setting.default))
                }
            }
        }
        warnings
    }

    /// For tests: settings without a database, with these saved values.
    pub fn with_saved(texts: &[(&'static str, &str)]) -> Config {
        let mut config = Config::default();
        let texts = texts.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
        for warning in config.apply_saved(&texts) {
            log::warn!("{warning}");
        }
        config
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
        parse_switch(self.text(key)) == Some(true)
    }

    pub fn size(&self, key: &str) -> u64 {
        parse_size(self.text(key)).unwrap_or_default()
    }

    pub fn list(&self, key: &str) -> Vec<String> {
        split_list(self.text(key))
    }

    /// Path of the database file: the setting, else /var/lib for root, else $XDG_STATE_HOME or ~/.local/state.
    /// `root`: whether the effective user is root. Relative paths in the environment are ignored, as the XDG Base
    /// Directory Specification demands.
    pub fn database_path(&self, root: bool, environment: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
        const FILE: &str = "net-pulse/net-pulse.db";
        let given = self.text("database");
        if !given.is_empty() {
            return Ok(PathBuf::from(given));
        }
        if root {
            return Ok(Path::new("/var/lib").join(FILE));
        }
        let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(state) = absolute("XDG_STATE_HOME") {
            return Ok(state.join(FILE));
        }
        match absolute("HOME") {
            Some(home) => Ok(home.join(".local/state").join(FILE)),
            None => Err(Error::usage("no path for the database: HOME is not set; name a file with --database PATH")),
        }
    }

    /// Seconds between two saves: --flush, unless --media comes from an origin that overrides that of --flush.
    pub fn flush_s(&self) -> u32 {
        if self.origin("flush") > Origin::Default && self.origin("flush") >= self.origin("media") {
            return self.integer("flush") as u32;
        }
        self.media_flush_s()
    }

    /// Flush interval in seconds that the active --media sets.
    pub fn media_flush_s(&self) -> u32 {
        const BY_MEDIA: [(&str, u32); 2] = [("disk", 300), ("flash", 3600)];
        BY_MEDIA.iter().find(|(word, _)| *word == self.text("media")).map_or(300, |(_, seconds)| *seconds)
    }

    /// The flag or variable that sets this setting, if any. The API cannot change a setting with such an owner.
    pub fn owner(&self, key: &str) -> Option<&'static str> {
        let by_media = key == "flush" && self.origin("media") > self.origin("flush");
        let key = if by_media && self.origin("media") > Origin::Saved { "media" } else { key };
        (self.origin(key) > Origin::Saved).then(|| self.set_by(key))
    }

    /// Makes all of these changes. If one of them is refused, makes none and returns the reason.
    pub fn change(&mut self, changes: &SettingChanges) -> std::result::Result<(), SettingsRefusal> {
        self.check_changes(changes)?;
        for (key, text) in changes {
            let Some(setting) = Setting::find(key) else { continue };
            let value = match text {
                Some(text) => (text.clone(), Origin::Saved),
                None => (setting.default.to_string(), Origin::Default),
            };
            self.values.insert(setting.key, value);
        }
        Ok(())
    }

    /// Checks whether [`Config::change`] would make these changes.
    pub fn check_changes(&self, changes: &SettingChanges) -> std::result::Result<(), SettingsRefusal> {
        for (key, text) in changes {
            let Some(setting) = Setting::find(key) else { continue };
            let fixed =
                setting.flag.or(setting.environment).filter(|_| setting.changed_by == ChangedBy::FlagOrVariable);
            if let Some(owner) = self.owner(key).or(fixed) {
                return Err(SettingsRefusal::Owned { key, owner });
            }
            if let Some(Err(error)) = text.as_ref().map(|text| setting.check(text)) {
                return Err(SettingsRefusal::Invalid { key, why: error.to_string() });
            }
        }
        Ok(())
    }

    /// Beginning of a sentence about a setting's value: `--interface ppp7`, `the primary setting wan`.
    pub fn describe(&self, key: &str, value: &str) -> String {
        match self.owner(key) {
            Some(owner) => format!("{owner} {value}"),
            None => format!("the {key} setting {value}"),
        }
    }

    /// Name of this setting for an error message about its value: the flag or variable that set it, otherwise its key.
    pub fn set_by(&self, key: &str) -> &'static str {
        let Some(setting) = Setting::find(key) else { return "" };
        match self.origin(key) {
            Origin::Flag => setting.flag.unwrap_or(setting.key),
            Origin::Environment => setting.environment.unwrap_or(setting.key),
            Origin::Saved | Origin::Default => setting.key,
        }
    }
}

impl Setting {
    pub fn find(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The help with the default inserted: after the word that is the default, else before the first semicolon.
    pub fn help_with_default(&self) -> String {
        let (help, default) = (self.help, self.default);
        match (self.kind, help.split_once(default)) {
            // The help describes an empty default in words. The default of --flush depends on --media.
            _ if default.is_empty() || self.key == "flush" => help.to_string(),
            (SettingType::Switch, _) => help.to_string(),
            (SettingType::Word(_), Some((before, after))) => {
                match after.strip_prefix(" (").and_then(|after| after.split_once(')')) {
                    Some((inside, after)) => format!("{before}{default} ({inside}, the default){after}"),
                    None => format!("{before}{default} (default){after}"),
                }
            }
            _ => {
                let (first, rest) = help.split_at(help.find(';').unwrap_or(help.len()));
                format!("{first} (default {default}){rest}")
            }
        }
    }

    /// Checks a value. The error names the value and what is valid.
    pub fn check(&self, text: &str) -> Result<()> {
        let wrong = |expected: String| Err(Error::usage(format!("'{}' is not {expected}", quotable(text))));
        match self.kind {
            SettingType::Integer(low, high) => match text.parse::<u64>() {
                Ok(number) if (low..=high).contains(&number) => Ok(()),
                _ => wrong(format!("a whole number from {low} to {high}")),
            },
            SettingType::Decimal(low, high) => match text.parse::<f64>() {
                Ok(number) if (low..=high).contains(&number) => Ok(()),
                _ => wrong(format_decimal_range(low, high)),
            },
            SettingType::Word(words) if words.contains(&text) => Ok(()),
            SettingType::Word(words) => wrong(format!("one of {}", words.join(", "))),
            SettingType::Text | SettingType::Zone if text.trim().is_empty() => wrong("usable: it is empty".to_string()),
            SettingType::List if split_list(text).is_empty() => wrong("usable: it is empty".to_string()),
            SettingType::Text | SettingType::Zone | SettingType::List if text.len() > MAX_TEXT_BYTES => {
                let hint =
                    if self.kind == SettingType::List { "; one pattern with * stands for many names" } else { "" };
                wrong(format!("usable: it has more than {MAX_TEXT_BYTES} bytes{hint}"))
            }
            SettingType::Text | SettingType::Zone | SettingType::List if text.contains(char::is_control) => {
                wrong("usable: it has control characters".to_string())
            }
            SettingType::List => match unknown_kind(self.key, text) {
                Some(word) => {
                    let words: Vec<&str> = link_kinds().collect();
                    wrong(format!("usable: '{}' is not a kind; the kinds are {}", quotable(word), words.join(", ")))
                }
                None => Ok(()),
            },
            SettingType::Text | SettingType::Zone => Ok(()),
            SettingType::Size => match parse_size(text) {
                Some(bytes) if bytes >= MIN_SIZE_BYTES => Ok(()),
                _ => wrong("a size of at least 1M: a number with K, M or G, such as 32M".to_string()),
            },
            SettingType::Switch if parse_switch(text).is_some() => Ok(()),
            SettingType::Switch => wrong("1 or 0, true or false".to_string()),
        }
    }
}

fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Minimum of `max_size`, in bytes. It holds about one year of days and hours and one week of samples of one
/// interface.
pub const MIN_SIZE_BYTES: u64 = 1 << 20;

fn parse_size(text: &str) -> Option<u64> {
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

/// Formats a number with up to three decimals and at least one: `1.0`. The standard library's float formatting would
/// add 10 KB to the binary.
pub fn format_decimal(number: f64) -> String {
    let thousandths = (number * 1000.0).round() as u64;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    let bare = text.trim_end_matches('0');
    if bare.ends_with('.') { format!("{bare}0") } else { bare.to_string() }
}

/// The valid range in words, for error messages.
pub fn format_decimal_range(low: f64, high: f64) -> String {
    let [low, high] = [low, high].map(format_decimal);
    format!("a number from {} to {}", low.trim_end_matches(".0"), high.trim_end_matches(".0"))
}

fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_string).collect()
}

/// Whether `ignore` can hold this name literally. It cannot if the name contains a comma or a star, or begins with `!`
/// or with the prefix of a kind.
pub fn is_literal_pattern(name: &str) -> bool {
    !name.contains([',', '*']) && !name.starts_with('!') && !name.starts_with(KIND_PREFIX)
}

/// The first word after `kind:` that is not a kind, in a list of interface patterns. `None` for the lists of other
/// settings.
fn unknown_kind<'a>(key: &str, text: &'a str) -> Option<&'a str> {
    let items = text.split(',').map(str::trim).filter(|_| ["interfaces", "ignore"].contains(&key));
    let mut words = items.filter_map(|item| item.strip_prefix('!').unwrap_or(item).strip_prefix(KIND_PREFIX));
    words.find(|word| link_kinds().all(|known| known != *word))
}

/// The kinds that a link can have. "others" is not one: it is a merged record.
fn link_kinds() -> impl Iterator<Item = &'static str> {
    InterfaceKind::NAMES.iter().filter(|(kind, _)| *kind != InterfaceKind::Others).map(|(_, word)| *word)
}

/// The first items of a list, as many as fit into the maximum length: a part of the list is better than no list. If not
/// even the first item fits, the list stays as it is, and `Setting::check` refuses it.
fn shorten_list(text: &str) -> &str {
    if text.len() <= MAX_TEXT_BYTES {
        return text;
    }
    // Includes the byte after the limit: if it is a comma, the item before it fits exactly.
    let end = text.as_bytes()[..=MAX_TEXT_BYTES].iter().rposition(|byte| *byte == b',');
    end.map_or(text, |end| &text[..end])
}

/// A value for an error message: at most 40 characters, without control characters.
fn quotable(text: &str) -> String {
    printable(text, 40)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolution::RESOLUTIONS;

    fn config(typed: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Result<Config> {
        let typed: Vec<_> = typed.iter().map(|(key, value)| (*key, value.to_string())).collect();
        Config::new(&typed, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn the_retention_of_each_resolution_is_a_setting() {
        let keys = RESOLUTIONS.iter().filter_map(|spec| spec.retention_setting);
        assert!(keys.clone().count() > 0 && keys.clone().all(|key| Config::default().integer(key) > 0));
        let kept = SETTINGS.iter().filter(|setting| setting.key.starts_with("keep_")).count();
        assert_eq!(kept, keys.count(), "a retention setting without a resolution");
    }

    #[test]
    fn flag_beats_environment_beats_saved_beats_default() {
        let saved = Map::from([("interval".to_string(), "7".to_string())]);
        let check =
            |typed: &[(&'static str, &str)], environment: &[(&str, &str)], saved: &Map<_, _>, expect, origin| {
                let mut config = config(typed, environment).unwrap();
                assert!(config.apply_saved(saved).is_empty());
                assert_eq!((config.integer("interval"), config.origin("interval")), (expect, origin));
            };
        let nothing = Map::new();
        check(&[], &[], &nothing, 30, Origin::Default);
        check(&[], &[], &saved, 7, Origin::Saved);
        check(&[], &[("NETPULSE_INTERVAL", "8")], &saved, 8, Origin::Environment);
        check(&[("interval", "9")], &[("NETPULSE_INTERVAL", "8")], &saved, 9, Origin::Flag);
        check(&[], &[("NETPULSE_INTERVAL", "")], &nothing, 30, Origin::Default);
    }

    #[test]
    fn every_default_that_is_not_empty_is_valid() {
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            assert!(setting.check(setting.default).is_ok(), "{}", setting.key);
        }
    }

    #[test]
    fn errors_name_the_setting_and_the_valid_values() {
        let check = |key, value: &str, expect: &str| {
            assert_eq!(config(&[(key, value)], &[]).unwrap_err().to_string(), expect);
        };
        check("interval", "0", "--interval: '0' is not a whole number from 1 to 3600");
        check("interval", "3601", "--interval: '3601' is not a whole number from 1 to 3600");
        check("interval", "ten", "--interval: 'ten' is not a whole number from 1 to 3600");
        check("port", "65536", "--port: '65536' is not a whole number from 0 to 65535");
        check("port", "-1", "--port: '-1' is not a whole number from 0 to 65535");
        check("media", "paper", "--media: 'paper' is not one of disk, flash");
        check("max_size", "1K", "--max-size: '1K' is not a size of at least 1M: a number with K, M or G, such as 32M");
        check("database", "", "--database: '' is not usable: it is empty");
        let kinds = "the kinds are ethernet, wifi, wwan, ppp, vpn, bridge, bond, vlan, veth, container, loopback, \
                     apple, virtual, other";
        let wrong = format!("--interface: 'eth0, kind:vteh' is not usable: 'vteh' is not a kind; {kinds}");
        check("interfaces", "eth0, kind:vteh", &wrong);
        check("ignore", "!kind:", &format!("--ignore: '!kind:' is not usable: '' is not a kind; {kinds}"));
        assert!(config(&[("interfaces", "kind:veth"), ("ignore", "!kind:veth,kind:vpn")], &[]).is_ok());
        assert!(config(&[("allowed_host", "kind:anything")], &[]).is_ok());
        check("log_level", "loud\u{1b}[2J", "--log-level: 'loud?[2J' is not one of error, warn, info, debug, trace");
        let error = config(&[], &[("NETPULSE_PORT", "x")]).unwrap_err();
        assert_eq!(error.to_string(), "NETPULSE_PORT: 'x' is not a whole number from 0 to 65535");
    }

    #[test]
    fn decimals_as_text() {
        let check = |number, expect| assert_eq!(format_decimal(number), expect);
        check(0.0, "0.0");
        check(0.1, "0.1");
        check(1.0, "1.0");
        check(1.05, "1.05");
        check(299.9996, "300.0");
        check(12.3456, "12.346");
        check(100.0, "100.0");
        assert_eq!(format_decimal_range(0.1, 300.0), "a number from 0.1 to 300");
    }

    #[test]
    fn the_help_names_the_default() {
        let check = |key, expect: &str| assert_eq!(Setting::find(key).unwrap().help_with_default(), expect);
        check("port", "port to listen on (default 8000); 0 picks a free port, which the log names");
        check("interval", "seconds between two samples (default 30)");
        check("retry_delay", "seconds between two attempts (default 1.0)");
        check("flush", "seconds between two saves, instead of the --media default");
        check("log_level", "log verbosity: error, warn, info (default), debug or trace");
        check(
            "media",
            "storage of the database: disk (saved every 5 minutes, the default) or flash (saved every hour)",
        );
        check("private", "require the access token for reading too, not only for changes");
        check(
            "primary",
            "primary interface, shown first on the page and always watched (default: chosen by its traffic)",
        );
        // Rows that the table does not have yet: a text with a default, and a default that the help does not name.
        let like = |key| *Setting::find(key).unwrap();
        let text = Setting { help: "name of it; shown", default: "it", ..like("primary") };
        assert_eq!(text.help_with_default(), "name of it (default it); shown");
        assert_eq!(
            Setting { help: "where it lies", ..like("media") }.help_with_default(),
            "where it lies (default disk)"
        );
    }

    #[test]
    fn sizes_and_lists() {
        let check = |text, expect| assert_eq!(parse_size(text), expect, "{text}");
        check("32M", Some(32 << 20));
        check("32MB", Some(32 << 20));
        check("1gib", Some(1 << 30));
        check("4096", Some(4096));
        check("M", None);
        check("-1M", None);
        check("99999999999G", None);
        check("1.5M", None);
        assert_eq!(split_list(" a, b ,,c"), ["a", "b", "c"]);
        let config = config(&[("interfaces", "eth*"), ("interfaces", "wg0")], &[]).unwrap();
        assert_eq!(config.list("interfaces"), ["eth*", "wg0"]);
    }

    #[test]
    fn flush_depends_on_media_unless_it_is_set() {
        let check = |typed: &[(&'static str, &str)], expect| assert_eq!(config(typed, &[]).unwrap().flush_s(), expect);
        check(&[], 300);
        check(&[("media", "flash")], 3600);
        check(&[("media", "flash"), ("flush", "60")], 60);
        check(&[("flush", "1")], 1);
    }

    #[test]
    fn an_invalid_saved_value_is_refused_and_named() {
        let mut config = config(&[], &[]).unwrap();
        let refused = config.apply_saved(&Map::from([("interval".to_string(), "soon".to_string())]));
        assert_eq!(refused, ["saved interval: 'soon' is not a whole number from 1 to 3600; using the default '30'"]);
        assert_eq!(config.integer("interval"), 30);
    }

    #[test]
    fn a_saved_list_that_is_too_long_is_shortened() {
        let check = |saved: String, kept: usize, expect: &str| {
            let mut config = Config::default();
            let refused = config.apply_saved(&Map::from([("ignore".to_string(), saved)]));
            assert_eq!((config.list("ignore").len(), refused.join(" ").contains(expect)), (kept, true), "{refused:?}");
            assert_eq!(refused.is_empty(), expect.is_empty());
        };
        let names = |count: usize| (0..count).map(|at| format!("veth{at:03}")).collect::<Vec<_>>().join(",");
        // Each item takes 8 bytes: seven letters and a comma.
        check(names(512), 512, "");
        check(names(513), 512, "ignoring the items from 'veth512' on");
        check(names(900), 512, "ignoring the items from 'veth512,");
        check(format!("{},ab", names(511)), 512, "");
        check(format!("a{},b", names(512)), 512, "from 'b' on");
        check("ü".repeat(MAX_TEXT_BYTES), 0, "using");
    }

    #[test]
    fn switches_accept_the_usual_words() {
        let check = |value: &str, expect: bool| {
            assert_eq!(config(&[], &[("NETPULSE_PRIVATE", value)]).unwrap().switch("private"), expect, "{value}");
        };
        ["1", "true", "yes", "on", "TRUE"].iter().for_each(|word| check(word, true));
        ["0", "false", "no", "off", ""].iter().for_each(|word| check(word, false));
        let error = config(&[], &[("NETPULSE_PRIVATE", "maybe")]).unwrap_err();
        assert_eq!(error.to_string(), "NETPULSE_PRIVATE: 'maybe' is not 1 or 0, true or false");
    }

    #[test]
    fn the_database_path_follows_setting_user_and_environment() {
        let check = |given: &str, root, environment: &[(&str, &str)], expect: &str| {
            let typed: Vec<_> = Some(("database", given)).filter(|_| !given.is_empty()).into_iter().collect();
            let variable = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|it| it.1.to_string());
            let found = config(&typed, &[]).unwrap().database_path(root, variable);
            assert_eq!(found.map_or_else(|error| error.to_string(), |path| path.display().to_string()), expect);
        };
        check("x.db", true, &[], "x.db");
        check("", true, &[("HOME", "/root")], "/var/lib/net-pulse/net-pulse.db");
        check("", false, &[("HOME", "/home/a")], "/home/a/.local/state/net-pulse/net-pulse.db");
        check("", false, &[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")], "/s/net-pulse/net-pulse.db");
        check(
            "",
            false,
            &[("HOME", "/home/a"), ("XDG_STATE_HOME", "s")],
            "/home/a/.local/state/net-pulse/net-pulse.db",
        );
        check("", false, &[], "no path for the database: HOME is not set; name a file with --database PATH");
    }

    #[test]
    fn owners_are_named() {
        let config = config(&[("interval", "5"), ("media", "disk")], &[("NETPULSE_MAX_RETRIES", "4")]).unwrap();
        let owned: Vec<_> = SETTINGS.iter().filter_map(|it| Some((it.key, config.owner(it.key)?))).collect();
        // --media overrides a saved flush: the flag owns both settings.
        let expect = [
            ("interval", "--interval"),
            ("media", "--media"),
            ("flush", "--media"),
            ("max_retries", "NETPULSE_MAX_RETRIES"),
        ];
        assert_eq!(owned, expect);
    }

    #[test]
    fn changes_are_all_or_none() {
        let mut config = config(&[("interval", "5")], &[]).unwrap();
        let some = |text: &str| Some(text.to_string());
        let refused = config.change(&vec![("max_retries", some("9")), ("interval", some("7"))]);
        assert_eq!(refused, Err(SettingsRefusal::Owned { key: "interval", owner: "--interval" }));
        // Settings that only a flag or the environment can set.
        let refused = config.change(&vec![("max_retries", some("9")), ("port", None)]);
        assert_eq!(refused, Err(SettingsRefusal::Owned { key: "port", owner: "--port" }));
        let refused = config.change(&vec![("syslog", some("/dev/log"))]);
        assert_eq!(refused, Err(SettingsRefusal::Owned { key: "syslog", owner: "NETPULSE_SYSLOG" }));
        // A value that is not valid.
        let long = "name,".repeat(MAX_TEXT_BYTES / 5 + 1);
        let Err(SettingsRefusal::Invalid { key: "ignore", why }) =
            config.change(&vec![("max_retries", some("9")), ("ignore", some(&long))])
        else {
            panic!("a list that is too long was accepted");
        };
        assert!(why.ends_with("has more than 4096 bytes; one pattern with * stands for many names"), "{why}");
        assert_eq!((config.text("max_retries"), config.origin("max_retries")), ("3", Origin::Default));
        config.change(&vec![("max_retries", some("9")), ("media", some("flash"))]).unwrap();
        assert_eq!((config.text("max_retries"), config.origin("max_retries")), ("9", Origin::Saved));
        assert_eq!(config.flush_s(), 3600);
        config.change(&vec![("flush", some("60"))]).unwrap();
        assert_eq!(config.flush_s(), 60);
        config.change(&vec![("flush", None), ("max_retries", None)]).unwrap();
        assert_eq!((config.flush_s(), config.origin("max_retries")), (3600, Origin::Default));
    }

    /// `docs/settings.md` is made from the table. `UPDATE_GOLDEN=1` writes it.
    #[test]
    fn settings_md_matches_the_table() {
        let mut got = String::from(
            "# Settings\n\nA flag overrides the environment variable. The variable overrides the value that was set \
             through the API\n(`PATCH /api/config`) or on the page. That value overrides the default.\nA setting with \
             *yes* can be changed while the program runs: the change acts at once, and the database keeps it.\n\n\
             | setting | flag | environment | default | valid values | changed while running | meaning |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for setting in SETTINGS.iter().filter(|setting| setting.changed_by != ChangedBy::Program) {
            let code = |text: Option<&str>| text.map_or(String::new(), |text| format!("`{text}`"));
            let flag = setting.flag.map(|flag| format!("{flag} {}", setting.argument).trim_end().to_string());
            let range = match setting.kind {
                SettingType::Integer(low, high) => format!("{low} to {high}"),
                SettingType::Decimal(low, high) => format!("{low} to {high}, fractions allowed"),
                SettingType::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
                SettingType::Switch => "`true`, `false`".to_string(),
                other => other.name().to_string(),
            };
            got += &format!(
                "| `{}` | {} | {} | {} | {range} | {} | {} |\n",
                setting.key,
                code(flag.as_deref()),
                code(setting.environment),
                code(Some(setting.default).filter(|text| !text.is_empty())),
                if setting.changed_by == ChangedBy::User { "yes" } else { "" },
                setting.help,
            );
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &got).unwrap();
        }
        let expect = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(got == expect, "docs/settings.md does not match the table; run cross/settings");
    }
}
