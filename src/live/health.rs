//! Health of the sampler, of the writer and of the wall clock. The threads record it here; `http` reports it.

use super::Saving;

#[derive(Clone, Debug, Default)]
pub struct Health {
    pub polls: Polls,
    pub saving: Saving,
    pub database: Database,
    /// The wall clock is trusted: see `clock`.
    pub clock_trusted: bool,
}

/// Counts of the sampler's ticks, and of its failures to read the counters. Times are UTC seconds unless the field name
/// ends in `_mono_ms`.
#[derive(Clone, Debug, Default)]
pub struct Polls {
    pub total: u64,
    pub successful: u64,
    pub failed: u64,
    pub consecutive_failures: u64,
    /// Failed attempts to read, retries included. `failed` counts a tick once, after its last retry.
    pub errors: u64,
    pub last: Option<i64>,
    pub last_successful: Option<i64>,
    pub last_error: Option<String>,
    /// Monotonic, when the sampler started.
    pub started_mono_ms: u64,
    /// Monotonic, of the latest sample. The health check uses it, because a sampler that hangs counts no failures.
    pub sampled_mono_ms: Option<u64>,
}

/// State of the database. Before the rejoin, interface ids and tick numbers are valid in memory only and have no
/// meaning on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Database {
    /// Not open, or open and not rejoined yet.
    #[default]
    NotRejoined,
    /// Open, and the sampler has connected this run's memory to the stored history.
    Rejoined,
    /// The program ended before the database could be opened.
    NeverOpened,
}
