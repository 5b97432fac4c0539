//! A route: one row of the table in `routes`.

use super::params::Param;
use super::{Answer, Call, Context, HttpError};

/// What a request costs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Answered from memory, perhaps after waiting for the sampler, or for the disk for less than a second.
    Light,
    /// Reads the disk, perhaps years of history, or waits until its change is on disk.
    Costly,
    /// The answer may be longer than the socket buffers: a worker is busy until the client has read it.
    Long,
}

pub type Handler = fn(&Context, &Call) -> Result<Answer, HttpError>;

pub struct Route {
    pub method: &'static str,
    /// Path pattern. A whole segment may be a parameter: `{name}`.
    pub path: &'static str,
    pub handler: Handler,
    pub weight: Weight,
    pub summary: &'static str,
    pub params: &'static [Param],
    /// Content of a 200 answer: names of types in `json`, or media types.
    pub answers: &'static [&'static str],
    /// Statuses with a `json::Problem`, in addition to those that `openapi::problem_statuses` derives.
    pub problems: &'static [u16],
}

impl Route {
    pub const fn new(method: &'static str, path: &'static str, handler: Handler, weight: Weight) -> Route {
        Route { method, path, handler, weight, summary: "", params: &[], answers: &[], problems: &[] }
    }

    pub const fn summary(self, summary: &'static str) -> Route {
        Route { summary, ..self }
    }

    pub const fn params(self, params: &'static [Param]) -> Route {
        Route { params, ..self }
    }

    pub const fn answers(self, answers: &'static [&'static str]) -> Route {
        Route { answers, ..self }
    }

    pub const fn problems(self, problems: &'static [u16]) -> Route {
        Route { problems, ..self }
    }
}
