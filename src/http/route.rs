//! One row of the table of what is answered here.

use super::params::Param;
use super::{Answer, Call, Context, Fault};

pub type Handler = fn(&Context, &Call) -> Result<Answer, Fault>;

pub struct Route {
    pub method: &'static str,
    /// Whole segments may be `{name}`.
    pub path: &'static str,
    pub handler: Handler,
    pub summary: &'static str,
    pub params: &'static [Param],
    /// What a 200 holds: a type of `json`, or a media type.
    pub answers: &'static [&'static str],
    /// Statuses of `json::Problem` besides those that follow from the rest: see `openapi::problems`.
    pub problems: &'static [u16],
}
