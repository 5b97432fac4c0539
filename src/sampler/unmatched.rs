//! Names and patterns in the settings that match no present interface. They are reported from the start, so that a
//! typing mistake is seen. The log is limited, so that a modem that comes and goes does not fill it.

use log::Level;

use super::inventory::{Tracked, was_active};
use super::{Sampler, find_link};
use crate::clock::Now;
use crate::detect::{self, WatchSettings};
use crate::live::{Unmatched, unmatched_sentences};
use crate::model::Record;

/// At most this many log lines per pattern in `PERIOD_MS`. After that the state at the end of the period is logged.
const MAX_LINES: u32 = 6;
const PERIOD_MS: u64 = 600_000;

/// A name or pattern in the settings, and what was logged about it.
struct Requested {
    /// What to report while nothing matches.
    unmatched: Unmatched,
    present: bool,
    /// What the log says so far. An interface that is present from the start is not logged.
    reported_present: bool,
    /// Log lines since `since_ms`.
    lines: u32,
    since_ms: u64,
}

impl Requested {
    fn new(key: &'static str, pattern: &str) -> Requested {
        let unmatched = Unmatched { key, pattern: pattern.to_string(), known: false };
        Requested { unmatched, present: true, reported_present: true, lines: 0, since_ms: 0 }
    }

    fn find<'a>(&self, links: &'a [Tracked]) -> Option<&'a Tracked> {
        let pattern = &self.unmatched.pattern;
        match self.unmatched.key {
            // A name, not a pattern: `*` has no special meaning.
            "primary" => find_link(links, pattern),
            _ => links.iter().find(|tracked| {
                detect::matches_link(pattern, &tracked.link.name, &tracked.link.altnames, tracked.kind)
            }),
        }
    }

    /// When a change is due to be logged; `None` without a change.
    fn report_due_ms(&self) -> Option<u64> {
        let wait_ms = if self.lines < MAX_LINES { 0 } else { PERIOD_MS };
        (self.present != self.reported_present).then_some(self.since_ms + wait_ms)
    }

    fn mark_reported(&mut self, now: Now) {
        if now.mono_ms >= self.since_ms + PERIOD_MS {
            (self.lines, self.since_ms) = (0, now.mono_ms);
        }
        self.lines += 1;
        self.reported_present = self.present;
    }
}

/// The names and patterns in the settings `interfaces` and `primary`.
#[derive(Default)]
pub(super) struct RequestedNames {
    /// The settings that `names` comes from.
    wanted: WatchSettings,
    names: Vec<Requested>,
}

impl RequestedNames {
    /// When the next postponed change is due to be logged.
    pub fn next_ms(&self) -> Option<u64> {
        self.names.iter().filter_map(Requested::report_due_ms).min()
    }

    pub fn is_due(&self, wanted: &WatchSettings, now: Now) -> bool {
        self.wanted != *wanted || self.next_ms().is_some_and(|due| now.mono_ms >= due)
    }

    /// Takes over new settings. Entries that did not change keep their state.
    fn update(&mut self, wanted: &WatchSettings) {
        self.wanted = wanted.clone();
        let mut before = std::mem::take(&mut self.names);
        let primary = Some(&wanted.primary).filter(|name| !name.is_empty());
        let lists = wanted.interfaces.iter().map(|pattern| ("interfaces", pattern));
        for (key, pattern) in lists.chain(primary.map(|name| ("primary", name))) {
            let same = |one: &Requested| one.unmatched.key == key && one.unmatched.pattern == *pattern;
            if !self.names.iter().any(same) {
                let known = before.iter().position(same).map(|at| before.swap_remove(at));
                self.names.push(known.unwrap_or_else(|| Requested::new(key, pattern)));
            }
        }
    }
}

impl Sampler {
    /// Called when the links or the settings have changed, and when a postponed change is due.
    pub(super) fn check_unmatched(&mut self, now: Now) {
        // The lock is free here: writing to standard error may block.
        for (level, line) in self.unmatched_log_lines(now) {
            log::log!(level, "{line}");
        }
    }

    /// Publishes what is unmatched. Returns the lines to log.
    pub(super) fn unmatched_log_lines(&mut self, now: Now) -> Vec<(Level, String)> {
        if self.requested.wanted != self.wanted {
            self.requested.update(&self.wanted);
        }
        // Every machine has a loopback interface: without links, listing them has failed.
        if self.links.is_empty() {
            return Vec::new();
        }
        let (mut gone, mut lines) = (Vec::new(), Vec::new());
        let live = self.live.clone();
        let mut state = live.lock();
        state.inventory.unmatched.clear();
        for one in &mut self.requested.names {
            let found = one.find(&self.links);
            one.present = found.is_some();
            let kept = |record: &Record| record.name == one.unmatched.pattern && was_active(record);
            one.unmatched.known = self.records.iter().any(kept);
            if found.is_none() {
                state.inventory.unmatched.push(one.unmatched.clone());
            }
            if one.report_due_ms().is_none_or(|due| now.mono_ms < due) {
                continue;
            }
            match found {
                Some(found) => {
                    let Unmatched { key, pattern, .. } = &one.unmatched;
                    let line = format!("{} matches {} now", state.config.describe(key, pattern), found.link.name);
                    lines.push((Level::Info, line));
                }
                None => gone.push(one.unmatched.clone()),
            }
            one.mark_reported(now);
        }
        let gone = unmatched_sentences(&gone, &state.config);
        lines.extend(gone.into_iter().map(|line| (Level::Warn, line)));
        lines
    }
}
