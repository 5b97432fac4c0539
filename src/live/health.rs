//! How the program itself is: reading, saving, the clock.

use super::Saving;

#[derive(Clone, Debug, Default)]
pub struct Health {
    pub polls: Polls,
    pub saving: Saving,
    pub database: Database,
    /// The wall clock can be believed.
    pub clock_believed: bool,
}

/// The collector's own bookkeeping. Times are UTC seconds.
#[derive(Clone, Debug, Default)]
pub struct Polls {
    pub total: u64,
    pub successful: u64,
    pub failed: u64,
    pub consecutive_failures: u64,
    pub errors: u64,
    pub last: Option<i64>,
    pub last_successful: Option<i64>,
    pub last_error: Option<String>,
    /// Monotonic, of the start of the sampler.
    pub started_mono_ms: u64,
    /// Monotonic, of the latest sample; what health goes by, for a sampler that hangs counts no failures.
    pub sampled_mono_ms: Option<u64>,
}

/// Where the database stands. While it is absent, the numbers of interfaces and ticks are those of memory alone, and
/// mean nothing on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Database {
    /// Not opened so far.
    #[default]
    Absent,
    /// What is in memory goes on with what is on disk.
    Joined,
    /// Not opened until the end.
    GivenUp,
}
