//! One row of the table of what is answered here.

use super::params::Param;
use super::{Answer, Call, Context, Fault};

/// What a request asks of the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Memory has what it asks for.
    Light,
    /// The disk is read for it, perhaps years of history; or what it changes is to be on disk before it is answered.
    Costly,
    /// Its answer may be longer than the kernel holds for us: a worker is bound to the client until it has read it.
    Long,
}

pub type Handler = fn(&Context, &Call) -> Result<Answer, Fault>;

pub struct Route {
    pub method: &'static str,
    /// Whole segments may be `{name}`.
    pub path: &'static str,
    pub handler: Handler,
    pub weight: Weight,
    pub summary: &'static str,
    pub params: &'static [Param],
    /// What a 200 holds: a type of `json`, or a media type.
    pub answers: &'static [&'static str],
    /// Statuses of `json::Problem` besides those that follow from the rest: see `openapi::problems`.
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
