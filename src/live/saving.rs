//! State of saving, and when it counts as a problem. A disk that hangs returns no error, so the elapsed time decides.
//! Pure.

use std::fmt;

use crate::model::Counters;

/// State of saving. Times are UTC seconds unless the field name ends in `_mono_ms` (monotonic milliseconds).
#[derive(Clone, Debug, Default)]
pub struct Saving {
    pub last_saved: Option<i64>,
    /// When a save last succeeded; before the first one, when the writer started.
    pub succeeded_mono_ms: Option<u64>,
    /// Start of the save that is running.
    pub saving_since_mono_ms: Option<u64>,
    /// When the main thread woke a writer that was too late.
    pub woken_mono_ms: Option<u64>,
    /// What the log and the events already say about the current problem.
    pub reported: ReportedProblem,
    pub failures: u64,
    /// Error of the latest attempt, if it failed.
    pub error: Option<String>,
    /// A warning that saving works, but writes to another file than the settings name.
    pub wrong_file_warning: Option<String>,
    /// The database cannot be opened until the user changes something.
    pub open_error_is_permanent: bool,
    /// The writer thread has panicked: nothing is saved any more in this run.
    pub writer_ended: bool,
    /// Samples were coarsened in memory since the last successful save.
    pub coarsened: bool,
    /// `None` where the kernel does not count it.
    pub written: Option<Written>,
}

/// Stages of a saving problem, in the order in which they are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReportedProblem {
    #[default]
    Nothing,
    /// Nothing is saved although no save failed: the disk does not answer, or the writer thread does not run.
    Stalled,
    /// Unsaved ticks have filled their memory.
    MemoryFull,
}

/// Saving is stalled if nothing was saved for this many flush intervals.
const MISSED_SAVES: u64 = 3;
/// Saving is also stalled if one save takes this long, whatever the interval.
const LONGEST_SAVE_S: u64 = 300;
/// A save on a worn flash card takes seconds; a shorter time is never reported.
const MIN_STALL_S: u64 = 10;
/// A writer without a running save is late once `MISSED_SAVES` intervals and this time have passed: it wakes at least
/// once a minute.
const LATE_AFTER_S: u64 = 120;
/// After a suspend of the machine or the process the writer is late without a fault. So the main thread first wakes a
/// late writer, and reports it only if it has not saved within this time.
const WAKE_GRACE_S: u64 = 10;

impl Saving {
    /// Describes the current problem; `None` if saving works.
    pub fn problem(&self, mono_ms: u64, flush_s: u32) -> Option<String> {
        let stalled = || {
            let seconds = self.stalled_s(mono_ms, flush_s)?;
            let cause = match self.saving_since_mono_ms {
                Some(_) => "the disk does not answer",
                None => "the writer thread does not run",
            };
            Some(format!("nothing could be saved for {seconds} s: {cause}"))
        };
        match &self.error {
            _ if self.writer_ended => {
                Some("the writer thread has ended, which is a bug: restart net-pulse".to_string())
            }
            Some(error) => Some(format!("the newest figures are in memory only: {error}")),
            None => stalled(),
        }
    }

    /// No save is running although one is overdue.
    pub fn is_late(&self, mono_ms: u64, flush_s: u32) -> bool {
        let since = |at: u64| mono_ms.saturating_sub(at) / 1000;
        let missed = MISSED_SAVES * u64::from(flush_s) + LATE_AFTER_S;
        self.saving_since_mono_ms.is_none() && self.succeeded_mono_ms.is_some_and(|at| since(at) >= missed)
    }

    /// Seconds without a successful save, if that is too long.
    fn stalled_s(&self, mono_ms: u64, flush_s: u32) -> Option<u64> {
        let since = |at: u64| mono_ms.saturating_sub(at) / 1000;
        let stalled = since(self.succeeded_mono_ms?);
        let missed = (MISSED_SAVES * u64::from(flush_s)).max(MIN_STALL_S);
        let too_long = match self.saving_since_mono_ms.map(since) {
            // A save that has just begun may end soon, however late it began.
            Some(lasts) => lasts >= LONGEST_SAVE_S || stalled >= missed && lasts >= MIN_STALL_S / 2,
            None => self.is_late(mono_ms, flush_s) && self.woken_mono_ms.is_some_and(|at| since(at) >= WAKE_GRACE_S),
        };
        too_long.then_some(stalled)
    }
}

/// Traffic that a power cut would lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtRisk {
    pub seconds: u64,
    pub samples: usize,
    /// UTC seconds of the oldest unsaved tick, if the clock was trusted.
    pub since: Option<i64>,
    /// Unsaved traffic of the primary interface.
    pub of_primary: Counters,
}

/// The end of a sentence about a problem; empty if a power cut would lose nothing.
impl fmt::Display for AtRisk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.samples, self.seconds) {
            (0, _) | (_, 0) => Ok(()),
            (_, seconds) => write!(out, "; a power cut now would lose the last {seconds} s"),
        }
    }
}

/// Bytes that the writer has written to the file system since `since_mono_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    pub since_mono_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_that_hangs_is_reported() {
        // Seconds since the last successful save, and since the running save began.
        let check = |flush_s, success: u64, save: Option<u64>, expect: Option<u64>| {
            let now_ms = 100_000_000;
            let ago = |seconds: u64| now_ms - seconds * 1000;
            let (succeeded_mono_ms, saving_since_mono_ms) = (Some(ago(success)), save.map(ago));
            let woken_ms = Some(ago(10));
            let saving =
                Saving { succeeded_mono_ms, saving_since_mono_ms, woken_mono_ms: woken_ms, ..Saving::default() };
            assert_eq!(saving.stalled_s(now_ms, flush_s), expect, "{flush_s} {success} {save:?}");
            assert_eq!(saving.problem(now_ms, flush_s).is_some(), expect.is_some());
        };
        // Three missed saves, or five minutes in one save, whichever comes first.
        check(2, 9, Some(7), None);
        check(2, 10, Some(8), Some(10));
        check(60, 179, Some(119), None);
        check(60, 180, Some(120), Some(180));
        check(300, 599, Some(299), None);
        check(300, 600, Some(300), Some(600));
        check(3600, 3900, Some(300), Some(3900));
        // After a suspend, or after the interval was shortened, a late save has only just begun.
        check(300, 30_000, Some(1), None);
        check(300, 30_000, Some(5), Some(30_000));
        // Without a running save the writer is late; it wakes once a minute.
        check(300, 1019, None, None);
        check(300, 1020, None, Some(1020));
        assert_eq!(Saving::default().problem(u64::MAX, 1), None, "not begun");
    }
}
