//! What one thread wants of another, and what came of it.

use std::collections::VecDeque;

use super::{Order, Refusal};

/// The latest answers are kept for who waits for them: more than there are workers.
pub(super) const ANSWERS_HELD: usize = 16;

#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Asks the writer to save at once.
    pub save_now: bool,
    pub stopping: bool,
    /// The sampler has ended, with a last sample: nothing more will come.
    pub sampled_out: bool,
    pub collected: Collected,
    pub(super) orders: VecDeque<(u64, Order)>,
    pub(super) orders_asked: u64,
    /// The ticket that says when it is on disk.
    pub(super) answers: VecDeque<(u64, Result<u64, Refusal>)>,
    /// Tickets handed out and served, for "take a sample now" and "read the counters now".
    pub(super) collect_asked: u64,
    pub(super) collect_done: u64,
    pub(super) read_asked: u64,
    pub(super) read_done: u64,
}

/// The result of the latest sample that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    pub interfaces: usize,
    pub errors: Vec<String>,
}
