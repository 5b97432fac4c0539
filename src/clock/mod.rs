//! Both clocks, read together and passed on as an argument; when wall time can be believed; time zones.
//! Nothing else in the program reads a clock.

mod format;
mod keeper;
mod zone;

pub use format::{parse_time, rfc3339};
pub use keeper::{Keeper, Step};
pub use zone::{Civil, Found, Zone, footer};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME: never steps, and goes on through a suspend.
    pub mono_ms: u64,
    /// CLOCK_REALTIME: whatever the machine believes.
    pub unix_ms: i64,
}

pub trait Clock: Send + Sync {
    fn now(&self) -> Now;
}

/// The machine's own clocks.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        todo!()
    }
}
