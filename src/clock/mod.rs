//! Both clocks, read together and passed on as an argument; when wall time can be believed; time zones.
//! Nothing else in the program reads a clock.

mod format;
mod keeper;
mod zone;

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

pub use format::{date, local_time, parse_time, rfc3339};
pub use keeper::{Keeper, Step};
pub use zone::{Civil, Found, Zone, footer};

/// 2026-11-01: no clock that is right says anything earlier. Raised by hand at each release, because a build that asks
/// its own machine's clock cannot be reproduced.
pub const BUILD_FLOOR: i64 = 1_793_491_200;

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

/// The machine's own clocks. Never `SystemTime::now`: it panics past 2038 on 32-bit musl, and routers do start there.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mono_ms = monotonic().unwrap_or(0);
        // On 32-bit musl a wall clock past 2038 is an error (EOVERFLOW). It is passed on as a machine that booted in
        // 1970: known to be wrong, and not stepping from tick to tick.
        let unix_ms = read(ClockId::CLOCK_REALTIME).unwrap_or(mono_ms);
        Now { mono_ms: u64::try_from(mono_ms).unwrap_or(0), unix_ms }
    }
}

/// CLOCK_MONOTONIC stands still during a suspend, which then looks like a step; it is there where CLOCK_BOOTTIME is
/// refused (kernels before 2.6.39, seccomp filters of old containers).
#[cfg(target_os = "linux")]
fn monotonic() -> Option<i64> {
    read(ClockId::CLOCK_BOOTTIME).or_else(|| read(ClockId::CLOCK_MONOTONIC))
}

/// Elsewhere CLOCK_MONOTONIC either goes on through a suspend or is the best there is.
#[cfg(not(target_os = "linux"))]
fn monotonic() -> Option<i64> {
    read(ClockId::CLOCK_MONOTONIC)
}

/// The kernel keeps time in signed 64-bit nanoseconds, so milliseconds cannot overflow.
fn read(clock: ClockId) -> Option<i64> {
    clock_gettime(clock).ok().map(|time| time.num_milliseconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_date_it_says() {
        assert_eq!(rfc3339(BUILD_FLOOR), "2026-11-01T00:00:00Z");
    }

    #[test]
    fn e22_the_monotonic_clock_counts_from_the_boot() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        assert!(first.mono_ms > 0 && first.mono_ms <= second.mono_ms);
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime_s: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!(SystemClock.now().mono_ms as f64 >= uptime_s * 1000.0);
        assert!(first.mono_ms as f64 <= uptime_s * 1000.0 + 20.0);
    }
}
