//! The resolutions of history, in one table: samples, 5 minutes, hours, days. Roll-up, retention, edits of history,
//! queries, charts, exports and settings read this table. A new resolution needs a row here and a migration that
//! creates and fills its table (`store/migrate.rs`).

/// Length of the finest cells. The cells of all coarser resolutions are sums of these: in every time zone in use, local
/// midnight is a multiple of five minutes in UTC.
pub const FIVE_MINUTES_S: i64 = 300;
/// Length of one block of five-minute cells, and of the open block (see `store/open_block.rs`).
pub const OPEN_BLOCK_S: i64 = 21_600;
pub const HOUR_S: i64 = 3_600;
pub const DAY_S: i64 = 86_400;

/// Resolution of history, from fine to coarse; the number of a variant is its index in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    Sample,
    FiveMinutes,
    Hour,
    Day,
}

/// How a resolution divides time into cells, and cells into stored blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucketing {
    /// No cells: the ticks as sampled, one or more blocks per save.
    Ticks,
    /// Cells of one length; a block covers `block_s` seconds.
    FixedLength { block_s: i64 },
    /// Cells from local midnight to local midnight, one per block. A stored block keeps its bounds when the time zone
    /// changes.
    LocalDays,
}

/// One row of the table of resolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolutionSpec {
    pub resolution: Resolution,
    /// Name in the API.
    pub name: &'static str,
    /// Length of a cell in seconds. 0 for samples: their length is the polling interval. Local days may be longer or
    /// shorter.
    pub step_s: i64,
    pub bucketing: Bucketing,
    /// Table in the database.
    pub table: &'static str,
    /// The setting for the retention in days; `None` means forever.
    pub retention_setting: Option<&'static str>,
}

/// From fine to coarse.
pub const RESOLUTIONS: [ResolutionSpec; 4] = [
    ResolutionSpec {
        resolution: Resolution::Sample,
        name: "sample",
        step_s: 0,
        bucketing: Bucketing::Ticks,
        table: "sample",
        retention_setting: Some("keep_samples_days"),
    },
    ResolutionSpec {
        resolution: Resolution::FiveMinutes,
        name: "5min",
        step_s: FIVE_MINUTES_S,
        bucketing: Bucketing::FixedLength { block_s: OPEN_BLOCK_S },
        table: "five_minutes",
        retention_setting: Some("keep_5min_days"),
    },
    ResolutionSpec {
        resolution: Resolution::Hour,
        name: "hour",
        step_s: HOUR_S,
        bucketing: Bucketing::FixedLength { block_s: DAY_S },
        table: "hour",
        retention_setting: Some("keep_hours_days"),
    },
    ResolutionSpec {
        resolution: Resolution::Day,
        name: "day",
        step_s: DAY_S,
        bucketing: Bucketing::LocalDays,
        table: "day",
        retention_setting: None,
    },
];

/// The names in the API, from fine to coarse.
pub const NAMES: [&str; RESOLUTIONS.len()] = {
    let mut names = [""; RESOLUTIONS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = RESOLUTIONS[at].name;
        at += 1;
    }
    names
};

/// The roll-ups: the resolutions that are computed from samples.
pub fn rollups() -> &'static [ResolutionSpec] {
    &RESOLUTIONS[1..]
}

/// The resolution with this name in the API.
pub fn by_name(name: &str) -> Option<&'static ResolutionSpec> {
    RESOLUTIONS.iter().find(|spec| spec.name == name)
}

impl ResolutionSpec {
    /// Length in seconds of a cell in the block with these bounds.
    pub fn cell_s(&self, (start, until): (i64, i64)) -> i64 {
        if self.bucketing == Bucketing::LocalDays { until - start } else { self.step_s }
    }

    /// Number of cells in a block.
    pub fn cells_per_block(&self) -> usize {
        match self.bucketing {
            Bucketing::FixedLength { block_s } => (block_s / self.step_s) as usize,
            _ => 1,
        }
    }

    /// Upper bound in seconds for the length of a block. For local days it includes two days of reserve: a change of
    /// the time zone can lengthen a day, and readers also need the neighbouring days.
    pub fn max_block_s(&self) -> i64 {
        match self.bucketing {
            Bucketing::FixedLength { block_s } => block_s,
            _ => self.step_s + 2 * DAY_S,
        }
    }
}

impl Resolution {
    pub fn spec(self) -> &'static ResolutionSpec {
        &RESOLUTIONS[self as usize]
    }
}

/// Retention in days, by index in the table of resolutions. `u32::MAX` means forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention([u32; RESOLUTIONS.len()]);

impl Retention {
    pub const FOREVER: Retention = Retention([u32::MAX; RESOLUTIONS.len()]);

    /// `days` returns the value of a setting.
    pub fn from_settings(days: impl Fn(&'static str) -> u32) -> Retention {
        Retention(RESOLUTIONS.map(|spec| spec.retention_setting.map_or(u32::MAX, &days)))
    }

    pub const fn with(mut self, resolution: Resolution, days: u32) -> Retention {
        self.0[resolution as usize] = days;
        self
    }

    pub fn days(&self, resolution: Resolution) -> u32 {
        self.0[resolution as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_from_fine_to_coarse() {
        for (at, spec) in RESOLUTIONS.iter().enumerate() {
            assert_eq!((spec.resolution as usize, spec.resolution.spec()), (at, spec));
            assert_eq!(by_name(spec.name), Some(spec));
            if let Bucketing::FixedLength { block_s } = spec.bucketing {
                assert!(block_s % spec.step_s == 0 && block_s % OPEN_BLOCK_S == 0, "{}", spec.name);
            }
            if spec.bucketing == Bucketing::LocalDays {
                assert_eq!(spec.step_s % DAY_S, 0, "{}", spec.name);
            }
        }
        assert!(RESOLUTIONS.is_sorted_by_key(|spec| spec.step_s));
        assert_eq!(
            (RESOLUTIONS[0].bucketing, RESOLUTIONS[1].step_s, RESOLUTIONS[1].bucketing),
            (Bucketing::Ticks, FIVE_MINUTES_S, Bucketing::FixedLength { block_s: OPEN_BLOCK_S })
        );
    }
}
