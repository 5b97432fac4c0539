//! What is set, as the sampler and the writer read it.

use crate::config::Config;
use crate::level::Keep;

/// Settings that the sampler and the writer go by, read out of `Config` so that no text is parsed at a tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    pub interval_s: u32,
    pub max_retries: u32,
    pub retry_delay_ms: u32,
    /// Patterns to monitor; empty for all that `detect` does not ignore.
    pub interfaces: Vec<String>,
    /// Patterns to leave out.
    pub ignored: Vec<String>,
    /// The user's choice; empty for none.
    pub primary: String,
    /// Collection goes on; `false` survives a restart.
    pub running: bool,
    pub flush_s: u32,
    pub keep: Keep,
}

impl Tuning {
    pub fn of(config: &Config) -> Tuning {
        let number = |key| u32::try_from(config.integer(key)).unwrap_or(u32::MAX);
        Tuning {
            interval_s: number("interval"),
            max_retries: number("max_retries"),
            retry_delay_ms: (config.decimal("retry_delay") * 1000.0).round() as u32,
            interfaces: config.list("interfaces"),
            ignored: config.list("ignore"),
            primary: config.text("primary").to_string(),
            running: config.switch("running"),
            flush_s: config.flush_s(),
            keep: Keep::by(number),
        }
    }
}
