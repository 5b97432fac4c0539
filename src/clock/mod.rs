//! Reads the monotonic clock and the wall clock together; the callers pass the result on as an argument. Submodules
//! decide when the wall clock is trusted, implement POSIX time zones, and format and parse times. No other module reads
//! a clock, except `Instant` for timeouts and durations.

mod format;
mod wall;
mod zone;

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

pub use format::{date, local_time, parse_time, rfc3339};
pub use wall::{WallClock, WallOffset};
pub use zone::{Civil, FoundZone, Zone, tzif_footer};

/// 2026-11-01 as UTC seconds: a correct clock never shows an earlier time. Raised by hand at each release; taking it
/// from the build machine's clock would make builds irreproducible.
pub const BUILD_FLOOR: i64 = 1_793_491_200;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME in milliseconds: never steps, and also counts while the machine is suspended.
    pub mono_ms: u64,
    /// CLOCK_REALTIME in milliseconds since 1970 UTC. May be wrong and may step.
    pub unix_ms: i64,
}

/// Source of the time; tests use a simulated one.
pub trait Clock: Send + Sync {
    fn now(&self) -> Now;
}

/// The kernel's clocks. Does not use `SystemTime::now`, because it panics after 2038 on 32-bit musl, and some routers
/// boot with such a date.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mono_ms = monotonic().unwrap_or(0);
        // On 32-bit musl, clock_gettime fails with EOVERFLOW after 2038. Then the monotonic time also serves as the
        // wall time, like after a boot in 1970: `WallClock` does not trust it, and it has no step at each tick.
        let unix_ms = read(ClockId::CLOCK_REALTIME).unwrap_or(mono_ms);
        Now { mono_ms: u64::try_from(mono_ms).unwrap_or(0), unix_ms }
    }
}

/// Falls back to CLOCK_MONOTONIC where CLOCK_BOOTTIME fails (kernels before 2.6.39, seccomp filters of old containers).
/// CLOCK_MONOTONIC stops during a suspend, so a suspend then looks like a step of the wall clock.
#[cfg(target_os = "linux")]
fn monotonic() -> Option<i64> {
    read(ClockId::CLOCK_BOOTTIME).or_else(|| read(ClockId::CLOCK_MONOTONIC))
}

/// Other systems have no CLOCK_BOOTTIME; there, CLOCK_MONOTONIC is the best available.
#[cfg(not(target_os = "linux"))]
fn monotonic() -> Option<i64> {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Milliseconds. They cannot overflow: the kernel keeps time in signed 64-bit nanoseconds.
fn read(clock: ClockId) -> Option<i64> {
    clock_gettime(clock).ok().map(|time| time.num_milliseconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_floor_matches_its_comment() {
        assert_eq!(rfc3339(BUILD_FLOOR), "2026-11-01T00:00:00Z");
    }

    #[test]
    fn e22_the_monotonic_clock_counts_from_boot() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        assert!(first.mono_ms > 0 && first.mono_ms <= second.mono_ms);
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime_s: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!(SystemClock.now().mono_ms as f64 >= uptime_s * 1000.0);
        assert!(first.mono_ms as f64 <= uptime_s * 1000.0 + 20.0);
    }
}
