//! Calendar buckets: local hours, days, weeks, months and years as ranges of UTC seconds, and sums over them. Pure.
use crate::clock::Zone;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
    Cycle,
}

impl Period {
    pub const NAMES: [(Period, &'static str); 6] = [
        (Period::Hour, "hour"),
        (Period::Day, "day"),
        (Period::Week, "week"),
        (Period::Month, "month"),
        (Period::Year, "year"),
        (Period::Cycle, "cycle"),
    ];

    /// The period that `unix` lies in, as `[from, to)`. Weeks begin on Monday; a cycle is a month until there are plans.
    pub fn around(self, _unix: i64, _zone: &Zone) -> (i64, i64) {
        todo!()
    }
}
