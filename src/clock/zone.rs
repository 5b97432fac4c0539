//! POSIX time zones, read by ourselves: a static musl binary ignores /etc/TZ.
use crate::error::Result;

/// A rule for local time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {}

/// A local date and time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil {
    pub year: i32,
    /// 1..=12
    pub month: u8,
    /// 1..=31
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Zone {
    pub const UTC: Zone = Zone {};

    /// A POSIX TZ string (`CET-1CEST,M3.5.0,M10.5.0/3`, `<+03>-3`).
    pub fn parse(_text: &str) -> Result<Zone> {
        todo!()
    }

    /// What it was made from, for people.
    pub fn name(&self) -> &str {
        todo!()
    }

    /// Seconds to add to UTC at that instant.
    pub fn offset_at(&self, _unix: i64) -> i32 {
        todo!()
    }

    pub fn civil(&self, _unix: i64) -> Civil {
        todo!()
    }

    /// The instant of a local time: the first one where it happens twice, the end of the gap where it never happens.
    pub fn unix(&self, _civil: Civil) -> i64 {
        todo!()
    }

    /// The first instant of the local day that `unix` lies in, and of the next one.
    pub fn day(&self, _unix: i64) -> (i64, i64) {
        todo!()
    }
}
