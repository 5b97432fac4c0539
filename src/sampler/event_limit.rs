//! Limits the events about links that come and go by the thousand, so that they do not push all other events out of
//! the list. Pure.

use crate::clock::Now;
use crate::text::counted;

/// At most this many events per `PERIOD_MS`. Events above the limit are counted; one event at the end of the period
/// reports their number.
const MAX_EVENTS: u32 = 20;
const PERIOD_MS: u64 = 600_000;

#[derive(Default)]
pub(super) struct EventLimiter {
    /// Monotonic start of the period.
    since_ms: u64,
    allowed: u32,
    held_back: u64,
}

impl EventLimiter {
    /// Counts one more event. Returns whether it is within the limit.
    pub fn allows(&mut self, now: Now) -> bool {
        if now.mono_ms >= self.since_ms + PERIOD_MS && self.held_back == 0 {
            (self.since_ms, self.allowed) = (now.mono_ms, 0);
        }
        let allows = self.allowed < MAX_EVENTS;
        self.allowed += u32::from(allows);
        self.held_back += u64::from(!allows);
        allows
    }

    /// Monotonic time when the summary is due; `None` if no event was held back.
    pub fn next_ms(&self) -> Option<u64> {
        (self.held_back > 0).then_some(self.since_ms + PERIOD_MS)
    }

    /// The summary, once it is due.
    pub fn summary(&mut self, now: Now) -> Option<String> {
        self.next_ms().filter(|due| now.mono_ms >= *due)?;
        let count = std::mem::take(&mut self.held_back);
        let minutes = now.mono_ms.saturating_sub(self.since_ms) / 60_000;
        (self.since_ms, self.allowed) = (now.mono_ms, 0);
        let times = counted(count, "time", "times");
        Some(format!(
            "links appeared, vanished, were renamed or restarted from zero another {times} within {minutes} min; these \
             events are not listed"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_above_the_limit_become_one_summary() {
        let mut event_limiter = EventLimiter::default();
        let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
        let allowed = (0..6_000).filter(|ms| event_limiter.allows(at(1_000_000 + ms))).count();
        assert_eq!((allowed, event_limiter.next_ms()), (20, Some(1_600_000)));
        assert_eq!(event_limiter.summary(at(1_599_999)), None);
        let summary = event_limiter.summary(at(1_600_000)).unwrap();
        assert!(summary.contains("another 5980 times within 10 min"), "{summary}");
        assert_eq!((event_limiter.next_ms(), event_limiter.summary(at(9_000_000))), (None, None));
        assert!(event_limiter.allows(at(1_600_001)));
        // A slow sequence of events is never limited.
        assert!((0..100).all(|minute| event_limiter.allows(at(2_000_000 + minute * 60_000))));
        assert_eq!((0..21).filter(|_| event_limiter.allows(at(9_000_000))).count(), 20);
        let summary = event_limiter.summary(at(9_600_000)).unwrap();
        assert!(summary.contains(" another 1 time within 10 min"), "{summary}");
    }
}
