//! The subcommands: `token`, `check` and `check --health`. Each prints its result and exits.

pub mod check;
pub mod health;
pub mod token;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, Result};

/// Time limit for a whole check, because a disk may hang, and a server may send its answer byte by byte.
const TIMEOUT: Duration = Duration::from_secs(5);

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Path of the database for these settings.
fn database_path(config: &Config) -> Result<PathBuf> {
    config.database_path(nix::unistd::geteuid().is_root(), environment)
}

/// Reads the settings from flags and environment, as needed to find the running daemon. Refuses port 0: with it the
/// daemon listens on another port after each start.
fn read_settings(flags: &[(&'static str, String)]) -> Result<Config> {
    let config = Config::new(flags, environment)?;
    if config.integer("port") == 0 {
        let message = "0 means any free port; give the port that net-pulse shows in its log";
        return Err(Error::usage(message).context(config.set_by("port")));
    }
    Ok(config)
}
