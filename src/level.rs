//! The resolutions of history, in one table: samples, 5 minutes, hours, days. Roll-up, retention, edits of history,
//! queries, charts, exports and settings read this table. A new resolution needs a row here and a migration that
//! creates its table (`store/migrate.rs`).

/// Length of the finest cells. The cells of all coarser resolutions are sums of these: in every time zone in use, local
/// midnight is a multiple of five minutes in UTC.
pub const CELL_S: i64 = 300;
/// Length of one block of five-minute cells, and of the open block (see `store/open_block.rs`).
pub const WINDOW_S: i64 = 21_600;
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
pub enum Cut {
    /// No cells: the ticks as sampled, one block per save.
    Ticks,
    /// Cells of one length; a block covers `block_s` seconds.
    Even { block_s: i64 },
    /// Cells from local midnight to local midnight, one per block. A stored block keeps its bounds when the time zone
    /// changes.
    Local,
}

/// One row of the table of resolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub resolution: Resolution,
    /// Name in the API.
    pub name: &'static str,
    /// Length of a cell in seconds. 0 for samples: their length is the polling interval. Local days may be longer or
    /// shorter.
    pub step_s: i64,
    pub cut: Cut,
    /// Table in the database.
    pub table: &'static str,
    /// The setting for the retention in days; `None` means forever.
    pub kept_by: Option<&'static str>,
}

/// From fine to coarse.
pub const LEVELS: [Level; 4] = [
    Level {
        resolution: Resolution::Sample,
        name: "sample",
        step_s: 0,
        cut: Cut::Ticks,
        table: "sample",
        kept_by: Some("keep_samples_days"),
    },
    Level {
        resolution: Resolution::FiveMinutes,
        name: "5min",
        step_s: CELL_S,
        cut: Cut::Even { block_s: WINDOW_S },
        table: "five_minutes",
        kept_by: Some("keep_5min_days"),
    },
    Level {
        resolution: Resolution::Hour,
        name: "hour",
        step_s: HOUR_S,
        cut: Cut::Even { block_s: DAY_S },
        table: "hour",
        kept_by: Some("keep_hours_days"),
    },
    Level { resolution: Resolution::Day, name: "day", step_s: DAY_S, cut: Cut::Local, table: "day", kept_by: None },
];

/// The names in the API, from fine to coarse.
pub const NAMES: [&str; LEVELS.len()] = {
    let mut names = [""; LEVELS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = LEVELS[at].name;
        at += 1;
    }
    names
};

/// The roll-ups: the resolutions that are computed from samples.
pub fn coarser() -> &'static [Level] {
    &LEVELS[1..]
}

/// The resolution with this name in the API.
pub fn named(name: &str) -> Option<&'static Level> {
    LEVELS.iter().find(|level| level.name == name)
}

impl Level {
    /// Length in seconds of a cell in the block with these bounds.
    pub fn cell_s(&self, (start, until): (i64, i64)) -> i64 {
        if self.cut == Cut::Local { until - start } else { self.step_s }
    }

    /// Number of cells in a block.
    pub fn cells(&self) -> usize {
        match self.cut {
            Cut::Even { block_s } => (block_s / self.step_s) as usize,
            _ => 1,
        }
    }

    /// Upper bound in seconds for the length of a block. For local days it includes two days of reserve: a change of
    /// the time zone can lengthen a day, and readers also need the neighbouring days.
    pub fn reach_s(&self) -> i64 {
        match self.cut {
            Cut::Even { block_s } => block_s,
            _ => self.step_s + 2 * DAY_S,
        }
    }
}

impl Resolution {
    pub fn level(self) -> &'static Level {
        &LEVELS[self as usize]
    }
}

/// Retention in days, by index in the table of resolutions. `u32::MAX` means forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep([u32; LEVELS.len()]);

impl Keep {
    pub const FOR_EVER: Keep = Keep([u32::MAX; LEVELS.len()]);

    /// `days` returns the value of a setting.
    pub fn by(days: impl Fn(&'static str) -> u32) -> Keep {
        Keep(LEVELS.map(|level| level.kept_by.map_or(u32::MAX, &days)))
    }

    pub const fn with(mut self, resolution: Resolution, days: u32) -> Keep {
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
        for (at, level) in LEVELS.iter().enumerate() {
            assert_eq!((level.resolution as usize, level.resolution.level()), (at, level));
            assert_eq!(named(level.name), Some(level));
            if let Cut::Even { block_s } = level.cut {
                assert!(block_s % level.step_s == 0 && block_s % WINDOW_S == 0, "{}", level.name);
            }
            if level.cut == Cut::Local {
                assert_eq!(level.step_s % DAY_S, 0, "{}", level.name);
            }
        }
        assert!(LEVELS.is_sorted_by_key(|level| level.step_s));
        assert_eq!(
            (LEVELS[0].cut, LEVELS[1].step_s, LEVELS[1].cut),
            (Cut::Ticks, CELL_S, Cut::Even { block_s: WINDOW_S })
        );
    }
}
