//! Pending requests of one thread to another, and their answers.

use std::collections::VecDeque;

use super::{CommandRefusal, InterfaceCommand};
use crate::model::Record;
use crate::sorted::Map;

/// Answers of interface commands that are kept for the waiting threads: more than there are HTTP workers.
const MAX_ANSWERS: usize = 16;

#[derive(Default)]
pub struct Pending {
    /// Requests the writer to save at once.
    pub save_now: bool,
    pub stopping: bool,
    /// The sampler has taken its last sample and ended.
    pub sampler_ended: bool,
    /// Contents of the database that the sampler has to rejoin.
    pub stored_history: Option<StoredHistory>,
    /// Requests to take a sample now, and the result of the latest one.
    pub collect: Tickets,
    pub collected: Collected,
    /// Requests to read the counters now.
    pub refresh: Tickets,
    commands: VecDeque<(u64, InterfaceCommand)>,
    pub(super) command_tickets: Tickets,
    answers: VecDeque<(u64, Result<u64, CommandRefusal>)>,
}

/// Contents of the database from earlier runs.
#[derive(Clone, Default)]
pub struct StoredHistory {
    pub records: Vec<Record>,
    pub settings: Map<String, String>,
    /// Number of the next tick; 0 or 1 for a new history.
    pub next_seq: u64,
    /// UTC seconds of the sample that was stored last; `None` for a new history.
    pub newest: Option<i64>,
}

/// Result of the latest requested sample.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    pub interfaces: usize,
    pub errors: Vec<String>,
}

/// Numbers requests, so that threads can wait for them. Serving a ticket serves all earlier ones too.
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

    /// The newest ticket, served or not.
    pub fn newest(&self) -> u64 {
        self.given
    }

    pub fn served(&self) -> u64 {
        self.served
    }

    /// The newest ticket that is not served yet. Serving it answers every waiting thread.
    pub fn newest_waiting(&self) -> Option<u64> {
        (self.given > self.served).then_some(self.given)
    }

    pub fn serve(&mut self, ticket: u64) {
        self.served = self.served.max(ticket);
    }
}

impl Pending {
    pub(super) fn add_command(&mut self, command: InterfaceCommand) -> u64 {
        let ticket = self.command_tickets.take();
        self.commands.push_back((ticket, command));
        ticket
    }

    /// For the sampler: takes the oldest command.
    pub fn next_command(&mut self) -> Option<(u64, InterfaceCommand)> {
        self.commands.pop_front()
    }

    /// `answer` holds the ticket of the save that puts the command's effect on disk.
    pub(super) fn answer(&mut self, ticket: u64, answer: Result<u64, CommandRefusal>) {
        self.answers.push_back((ticket, answer));
        if self.answers.len() > MAX_ANSWERS {
            self.answers.pop_front();
        }
        self.command_tickets.serve(ticket);
    }

    pub(super) fn answer_to(&self, ticket: u64) -> Option<Result<u64, CommandRefusal>> {
        self.answers.iter().find(|(known, _)| *known == ticket).map(|(_, answer)| answer.clone())
    }
}
