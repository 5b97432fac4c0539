//! How saving goes, and when that is a trouble: a disk that hangs returns no error, so that time is what it is judged by.
//! Pure.

use std::fmt;

use crate::model::Counters;

/// How saving goes. Times are UTC seconds, but for those that say otherwise.
#[derive(Clone, Debug, Default)]
pub struct Saving {
    pub last_saved: Option<i64>,
    /// Monotonic: when saving last succeeded, or the thread that saves began.
    pub succeeded_mono_ms: Option<u64>,
    /// Monotonic: since when a save has been under way.
    pub saving_since_mono_ms: Option<u64>,
    /// Monotonic: when a thread that was too late to save was called.
    pub called_mono_ms: Option<u64>,
    /// How much of a trouble that has not ended was told to the log and the events.
    pub told: Told,
    pub failures: u64,
    /// Set while the newest attempt failed.
    pub error: Option<String>,
    /// What to tell while it works, but into another file than the settings name.
    pub elsewhere: Option<String>,
    /// While there is no database: what keeps it from being opened lasts until a person has changed something.
    pub refused: bool,
    /// Nothing is saved any more in this run.
    pub lost: bool,
    /// Since it last worked, samples were merged in memory.
    pub compacted: bool,
    /// `None` where the kernel does not count.
    pub written: Option<Written>,
}

/// How far a trouble of saving has come, in the order in which it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    #[default]
    Nothing,
    /// Nothing is saved, though nothing failed: a disk that does not answer.
    Silence,
    /// Memory is full of what could not be saved.
    Full,
}

/// Nothing saved for so many flush intervals is a trouble,
const MISSED_SAVES: u64 = 3;
/// and so is one save that takes as long as this, whatever the interval.
const LONGEST_SAVE_S: u64 = 300;
/// On a worn card a save takes seconds, and that is no trouble.
const SHORTEST_SILENCE_S: u64 = 10;
/// The thread that saves looks up once a minute; when the machine or the process was asleep it is late without a fault, and
/// is called before anything is told of it.
const LATE_S: u64 = 120;
const CALLED_S: u64 = 10;

impl Saving {
    /// What is wrong with it, for as long as it lasts.
    pub fn trouble(&self, mono_ms: u64, flush_s: u32) -> Option<String> {
        let silence = || {
            let seconds = self.silence_s(mono_ms, flush_s)?;
            let cause = match self.saving_since_mono_ms {
                Some(_) => "the disk does not answer",
                None => "the thread that saves does not run",
            };
            Some(format!("nothing could be saved for {seconds} s: {cause}"))
        };
        match &self.error {
            _ if self.lost => Some("the thread that saves has ended: the program is at fault".to_string()),
            Some(error) => Some(format!("the newest figures are in memory only: {error}")),
            None => silence(),
        }
    }

    /// No save is under way, and one should have been.
    pub fn is_late(&self, mono_ms: u64, flush_s: u32) -> bool {
        let silence = |at: u64| mono_ms.saturating_sub(at) / 1000;
        let missed = MISSED_SAVES * u64::from(flush_s) + LATE_S;
        self.saving_since_mono_ms.is_none() && self.succeeded_mono_ms.is_some_and(|at| silence(at) >= missed)
    }

    /// For how long nothing was saved, where that is too long.
    fn silence_s(&self, mono_ms: u64, flush_s: u32) -> Option<u64> {
        let since = |at: u64| mono_ms.saturating_sub(at) / 1000;
        let silence = since(self.succeeded_mono_ms?);
        let missed = (MISSED_SAVES * u64::from(flush_s)).max(SHORTEST_SILENCE_S);
        let too_long = match self.saving_since_mono_ms.map(since) {
            // A save that has just begun may be done at once, however late it is.
            Some(lasts) => lasts >= LONGEST_SAVE_S || silence >= missed && lasts >= SHORTEST_SILENCE_S / 2,
            None => self.is_late(mono_ms, flush_s) && self.called_mono_ms.is_some_and(|at| since(at) >= CALLED_S),
        };
        too_long.then_some(silence)
    }
}

/// What a power cut would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtRisk {
    pub seconds: u64,
    pub samples: usize,
    /// UTC seconds, where the clock was right.
    pub since: Option<i64>,
    /// What passed on the primary meanwhile.
    pub of_primary: Counters,
}

/// What follows the sentence about a trouble: nothing where nothing would be lost.
impl fmt::Display for AtRisk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.samples, self.seconds) {
            (0, _) | (_, 0) => Ok(()),
            (_, seconds) => write!(out, "; a power cut now would lose the last {seconds} s"),
        }
    }
}

/// What the writer has handed to the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    pub since_mono_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_that_hangs_is_a_trouble_in_time() {
        // Seconds since saving last succeeded, and since the present save began.
        let check = |flush_s, success: u64, save: Option<u64>, expect: Option<u64>| {
            let now_ms = 100_000_000;
            let ago = |seconds: u64| now_ms - seconds * 1000;
            let (succeeded_mono_ms, saving_since_mono_ms) = (Some(ago(success)), save.map(ago));
            let called_mono_ms = Some(ago(10));
            let saving = Saving { succeeded_mono_ms, saving_since_mono_ms, called_mono_ms, ..Saving::default() };
            assert_eq!(saving.silence_s(now_ms, flush_s), expect, "{flush_s} {success} {save:?}");
            assert_eq!(saving.trouble(now_ms, flush_s).is_some(), expect.is_some());
        };
        // Three missed saves, or five minutes in one, whichever is first.
        check(2, 9, Some(7), None);
        check(2, 10, Some(8), Some(10));
        check(60, 179, Some(119), None);
        check(60, 180, Some(120), Some(180));
        check(300, 599, Some(299), None);
        check(300, 600, Some(300), Some(600));
        check(3600, 3900, Some(300), Some(3900));
        // After a sleep, and after the interval was shortened, the save that is late has just begun.
        check(300, 30_000, Some(1), None);
        check(300, 30_000, Some(5), Some(30_000));
        // Without a save under way the thread is to blame, which looks up once a minute.
        check(300, 1019, None, None);
        check(300, 1020, None, Some(1020));
        assert_eq!(Saving::default().trouble(u64::MAX, 1), None, "not begun");
    }
}
