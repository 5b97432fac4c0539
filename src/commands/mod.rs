//! Commands that do their work and end.

pub mod check;
pub mod health;
pub mod token;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::error::{Error, Result};

/// For everything together that a command asks: a disk may hang, and a server may send byte by byte.
const PATIENCE: Duration = Duration::from_secs(5);

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The file of the history that these settings stand for.
fn database(config: &Config) -> Result<PathBuf> {
    config.database(nix::unistd::geteuid().is_root(), environment)
}

/// Those that a daemon can be found by.
fn settings(typed: &[(&'static str, String)]) -> Result<Config> {
    let config = Config::new(typed, environment)?;
    if config.integer("port") == 0 {
        let what = "0 stands for any port that is free; give the one that net-pulse says in its log";
        return Err(Error::usage(what).context(config.said_by("port")));
    }
    Ok(config)
}
