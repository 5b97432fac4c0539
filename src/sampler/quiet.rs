//! Links that come and go by the thousand must not push all else out of the bounded list of events. Pure.

use crate::clock::Now;
use crate::text::counted;

/// So many are told of in so long a time; the rest is counted, and told of in one sentence at its end.
const TOLD: u32 = 20;
const WINDOW_MS: u64 = 600_000;

#[derive(Default)]
pub(super) struct Quiet {
    since_ms: u64,
    told: u32,
    held_back: u64,
}

impl Quiet {
    /// Whether one more is told of.
    pub fn tells(&mut self, now: Now) -> bool {
        if now.mono_ms >= self.since_ms + WINDOW_MS && self.held_back == 0 {
            (self.since_ms, self.told) = (now.mono_ms, 0);
        }
        let tells = self.told < TOLD;
        self.told += u32::from(tells);
        self.held_back += u64::from(!tells);
        tells
    }

    /// When the sentence is due; `None` where nothing was held back.
    pub fn next_ms(&self) -> Option<u64> {
        (self.held_back > 0).then_some(self.since_ms + WINDOW_MS)
    }

    /// The sentence, once it is due.
    pub fn sentence(&mut self, now: Now) -> Option<String> {
        self.next_ms().filter(|due| now.mono_ms >= *due)?;
        let count = std::mem::take(&mut self.held_back);
        let minutes = now.mono_ms.saturating_sub(self.since_ms) / 60_000;
        (self.since_ms, self.told) = (now.mono_ms, 0);
        let times = counted(count, "time", "times");
        Some(format!("links came, went or were renamed {times} more within {minutes} min: not listed one by one"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_in_one_sentence() {
        let mut quiet = Quiet::default();
        let at = |mono_ms| Now { mono_ms, unix_ms: 0 };
        let told = (0..6_000).filter(|ms| quiet.tells(at(1_000_000 + ms))).count();
        assert_eq!((told, quiet.next_ms()), (20, Some(1_600_000)));
        assert_eq!(quiet.sentence(at(1_599_999)), None);
        let sentence = quiet.sentence(at(1_600_000)).unwrap();
        assert!(sentence.contains("5980 times more within 10 min"), "{sentence}");
        assert_eq!((quiet.next_ms(), quiet.sentence(at(9_000_000))), (None, None));
        assert!(quiet.tells(at(1_600_001)));
        // What comes at leisure is told of one by one.
        assert!((0..100).all(|at_min| quiet.tells(at(2_000_000 + at_min * 60_000))));
        assert_eq!((0..21).filter(|_| quiet.tells(at(9_000_000))).count(), 20);
        let sentence = quiet.sentence(at(9_600_000)).unwrap();
        assert!(sentence.contains(" 1 time more within 10 min"), "{sentence}");
    }
}
