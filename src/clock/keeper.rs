//! When wall time can be believed. Pure.
use super::Now;

/// Follows the difference of the two clocks from tick to tick.
#[derive(Clone, Debug)]
pub struct Keeper {}

/// What a tick's reading of the clocks meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// UTC milliseconds at monotonic zero; `None` while the wall clock cannot be believed. Add `mono_ms` to place a moment.
    pub offset_ms: Option<i64>,
    /// The wall clock moved against the monotonic one by this much since the last tick (slewing is not a step).
    pub stepped_ms: Option<i64>,
}

impl Keeper {
    /// `floor`: the build date; `newest`: the newest row of the database.
    pub fn new(_floor: i64, _newest: Option<i64>) -> Keeper {
        todo!()
    }

    pub fn observe(&mut self, _now: Now) -> Step {
        todo!()
    }

    /// The newest second that a tick was placed at.
    pub fn placed(&mut self, _unix: i64) {
        todo!()
    }
}
