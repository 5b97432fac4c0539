//! The active settings of the sampler and the writer.

use crate::config::Config;
use crate::resolution::Retention;

/// Settings parsed once from `Config`, so that the sampler parses no text at a tick.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveSettings {
    pub interval_s: u32,
    pub max_retries: u32,
    pub retry_delay_ms: u32,
    /// Patterns to monitor; empty for everything that `detect` does not ignore.
    pub interfaces: Vec<String>,
    /// Patterns to ignore.
    pub ignored: Vec<String>,
    /// The user's choice of the primary interface; empty for none.
    pub primary: String,
    /// Collection is on. The user can switch it off; that lasts over restarts.
    pub running: bool,
    pub flush_s: u32,
    pub retention: Retention,
}

impl ActiveSettings {
    pub fn of(config: &Config) -> ActiveSettings {
        let number = |key| u32::try_from(config.integer(key)).unwrap_or(u32::MAX);
        ActiveSettings {
            interval_s: number("interval"),
            max_retries: number("max_retries"),
            retry_delay_ms: (config.decimal("retry_delay") * 1000.0).round() as u32,
            interfaces: config.list("interfaces"),
            ignored: config.list("ignore"),
            primary: config.text("primary").to_string(),
            running: config.switch("running"),
            flush_s: config.flush_s(),
            retention: Retention::from_settings(number),
        }
    }
}
