//! What one thread wants of another, and what came of it.

use std::collections::VecDeque;

use super::{Order, Refusal};
use crate::model::Record;
use crate::sorted::Map;

/// The latest answers are kept for who waits for them: more than there are workers.
const ANSWERS_HELD: usize = 16;

#[derive(Default)]
pub struct Wishes {
    /// Asks the writer to save at once.
    pub save_now: bool,
    pub stopping: bool,
    /// The sampler has ended, with a last sample: nothing more will come.
    pub sampled_out: bool,
    /// What the database remembers, for the sampler to join.
    pub earlier: Option<Earlier>,
    /// "Take a sample now", and what came of the latest.
    pub collect: Tickets,
    pub collected: Collected,
    /// "Read the counters now."
    pub read: Tickets,
    orders: VecDeque<(u64, Order)>,
    pub(super) order_tickets: Tickets,
    answers: VecDeque<(u64, Result<u64, Refusal>)>,
}

/// What earlier runs have left in the database.
#[derive(Clone, Default)]
pub struct Earlier {
    pub records: Vec<Record>,
    pub settings: Map<String, String>,
    /// Where ticks go on; 0 and 1 for a new history.
    pub next_seq: u64,
    /// UTC seconds of the newest sample.
    pub newest: Option<i64>,
}

/// The result of the latest sample that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    pub interfaces: usize,
    pub errors: Vec<String>,
}

/// Numbers for those who wait. What serves a ticket has served all before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tickets {
    given: u64,
    served: u64,
}

impl Tickets {
    pub fn take(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    /// The newest, whether it was served or not.
    pub fn given(&self) -> u64 {
        self.given
    }

    pub fn served(&self) -> u64 {
        self.served
    }

    /// The ticket that is served when all who wait now have what they asked for.
    pub fn pending(&self) -> Option<u64> {
        (self.given > self.served).then_some(self.given)
    }

    pub fn serve(&mut self, ticket: u64) {
        self.served = self.served.max(ticket);
    }
}

impl Wishes {
    pub(super) fn order(&mut self, order: Order) -> u64 {
        let ticket = self.order_tickets.take();
        self.orders.push_back((ticket, order));
        ticket
    }

    /// For the sampler: what is to be done next.
    pub fn next_order(&mut self) -> Option<(u64, Order)> {
        self.orders.pop_front()
    }

    /// `answer`: the ticket that says when it is on disk.
    pub(super) fn answer(&mut self, ticket: u64, answer: Result<u64, Refusal>) {
        self.answers.push_back((ticket, answer));
        if self.answers.len() > ANSWERS_HELD {
            self.answers.pop_front();
        }
        self.order_tickets.serve(ticket);
    }

    pub(super) fn answer_to(&self, ticket: u64) -> Option<Result<u64, Refusal>> {
        self.answers.iter().find(|(known, _)| *known == ticket).map(|(_, answer)| answer.clone())
    }
}
