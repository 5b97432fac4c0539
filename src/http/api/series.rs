//! Columns for charts and rows for people.
use crate::http::{Answer, Call, Context, Fault};
pub fn series(_context: &Context, _call: &Call) -> Result<Answer, Fault> {
    todo!()
}
pub fn totals(_context: &Context, _call: &Call) -> Result<Answer, Fault> {
    todo!()
}
