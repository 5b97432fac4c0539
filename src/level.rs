//! The levels at which history is kept, in one table. Roll-up, retention, changes of the past, queries, charts, exports and
//! settings follow it: a new level is a row here and a migration that makes its table (`store/schema`).

/// Lengths in seconds. Every coarser level is a sum of five-minute cells: local midnight lies on a five-minute border in
/// every zone in use, half-hour ones included.
pub const CELL_S: i64 = 300;
/// One block of five-minute cells. Also what is open: see `store/window.rs`.
pub const WINDOW_S: i64 = 21_600;
pub const HOUR_S: i64 = 3_600;
pub const DAY_S: i64 = 86_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    Sample,
    FiveMinutes,
    Hour,
    Day,
}

/// How a level cuts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Not at all: ticks as they came, a block for each save.
    Ticks,
    /// Into cells of one length, as many in a block as fit into these seconds.
    Even { block_s: i64 },
    /// At local midnights, a block for each piece, which keeps the bounds that it was cut with.
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub resolution: Resolution,
    /// In the API.
    pub name: &'static str,
    /// Seconds of one cell. 0 for samples, which have the polling interval; local days may be longer or shorter.
    pub step_s: i64,
    pub cut: Cut,
    /// In the database.
    pub table: &'static str,
    /// The setting that says for how many days it is kept; without one, for ever.
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

/// As they are called in the API.
pub const NAMES: [&str; LEVELS.len()] = {
    let mut names = [""; LEVELS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = LEVELS[at].name;
        at += 1;
    }
    names
};

/// The levels that are made of samples.
pub fn coarser() -> &'static [Level] {
    &LEVELS[1..]
}

/// By its name in the API.
pub fn named(name: &str) -> Option<&'static Level> {
    LEVELS.iter().find(|level| level.name == name)
}

impl Level {
    /// Of one cell of a block.
    pub fn cell_s(&self, (start, until): (i64, i64)) -> i64 {
        if self.cut == Cut::Local { until - start } else { self.step_s }
    }

    /// How many cells a block has.
    pub fn cells(&self) -> usize {
        match self.cut {
            Cut::Even { block_s } => (block_s / self.step_s) as usize,
            _ => 1,
        }
    }

    /// No block is longer than this. Local days have room for what a zone may do to them, and for their neighbours.
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

/// For how many days each level is kept, by its place in `LEVELS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep([u32; LEVELS.len()]);

impl Keep {
    pub const FOR_EVER: Keep = Keep([u32::MAX; LEVELS.len()]);

    /// `days` reads a setting.
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
    fn each_level_stands_at_its_place_and_is_coarser_than_the_one_before() {
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
