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
fn database(config: &Config) -> Result<PathBuf> {
    config.database(nix::unistd::geteuid().is_root(), environment)
}

/// The settings from flags and environment, with which the running daemon can be found. Port 0 is refused: it means a
/// different port at each start.
fn settings(flags: &[(&'static str, String)]) -> Result<Config> {
    let config = Config::new(flags, environment)?;
    if config.integer("port") == 0 {
        let what = "0 means any free port; give the port that net-pulse shows in its log";
        return Err(Error::usage(what).context(config.set_by("port")));
    }
    Ok(config)
}
