//! Reports names and patterns in the settings that match no present interface, from the start on, so that the user sees
//! a typing mistake. The log lines are limited, so that a modem that comes and goes does not fill the log.

use log::Level;

use super::inventory::{Tracked, had_traffic};
use super::{Sampler, find_link};
use crate::clock::Now;
use crate::detect::{self, WatchSettings};
use crate::live::{Unmatched, unmatched_sentences};
use crate::model::Record;

/// At most this many log lines per pattern in `PERIOD_MS`. Further changes are not logged before the period ends; then
/// one line logs the state at that time, if it differs.
const MAX_LINES: u32 = 6;
const PERIOD_MS: u64 = 600_000;

/// A name or pattern in the settings, and the state that was logged last.
struct ConfiguredName {
    /// Reported while no link matches.
    unmatched: Unmatched,
    present: bool,
    /// The value of `present` that the log has. It begins with `true`, so an interface that is present at the start is
    /// not logged.
    reported_present: bool,
    /// Log lines since `since_ms`.
    lines: u32,
    since_ms: u64,
}

impl ConfiguredName {
    fn new(key: &'static str, pattern: &str) -> ConfiguredName {
        let unmatched = Unmatched { key, pattern: pattern.to_string(), known: false };
        ConfiguredName { unmatched, present: true, reported_present: true, lines: 0, since_ms: 0 }
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

    /// Monotonic time when a change is due to be logged; `None` without a change.
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
pub(super) struct ConfiguredNames {
    /// The settings that `names` was made from.
    watch_settings: WatchSettings,
    names: Vec<ConfiguredName>,
}

impl ConfiguredNames {
    /// Monotonic time when the next postponed change is due to be logged.
    pub fn next_ms(&self) -> Option<u64> {
        self.names.iter().filter_map(ConfiguredName::report_due_ms).min()
    }

    pub fn is_due(&self, watch_settings: &WatchSettings, now: Now) -> bool {
        self.watch_settings != *watch_settings || self.next_ms().is_some_and(|due| now.mono_ms >= due)
    }

    /// Takes over new settings. Entries that did not change keep their state.
    fn update(&mut self, watch_settings: &WatchSettings) {
        self.watch_settings = watch_settings.clone();
        let mut before = std::mem::take(&mut self.names);
        let primary = Some(&watch_settings.primary).filter(|name| !name.is_empty());
        let lists = watch_settings.interfaces.iter().map(|pattern| ("interfaces", pattern));
        for (key, pattern) in lists.chain(primary.map(|name| ("primary", name))) {
            let same = |known: &ConfiguredName| known.unmatched.key == key && known.unmatched.pattern == *pattern;
            if !self.names.iter().any(same) {
                let known = before.iter().position(same).map(|at| before.swap_remove(at));
                self.names.push(known.unwrap_or_else(|| ConfiguredName::new(key, pattern)));
            }
        }
    }
}

impl Sampler {
    /// Called when the links or the settings have changed, and when a postponed change is due.
    pub(super) fn check_unmatched(&mut self, now: Now) {
        // The lock is released before logging: writing to standard error may block.
        for (level, line) in self.unmatched_log_lines(now) {
            log::log!(level, "{line}");
        }
    }

    /// Publishes what is unmatched. Returns the lines to log.
    pub(super) fn unmatched_log_lines(&mut self, now: Now) -> Vec<(Level, String)> {
        if self.configured_names.watch_settings != self.watch_settings {
            self.configured_names.update(&self.watch_settings);
        }
        // Every machine has a loopback interface: if there are no links, listing them has failed.
        if self.links.is_empty() {
            return Vec::new();
        }
        let (mut gone, mut lines) = (Vec::new(), Vec::new());
        let live = self.live.clone();
        let mut state = live.lock();
        state.inventory.unmatched.clear();
        for entry in &mut self.configured_names.names {
            let found = entry.find(&self.links);
            entry.present = found.is_some();
            let has_history = |record: &Record| record.name == entry.unmatched.pattern && had_traffic(record);
            entry.unmatched.known = self.records.iter().any(has_history);
            if found.is_none() {
                state.inventory.unmatched.push(entry.unmatched.clone());
            }
            if entry.report_due_ms().is_none_or(|due| now.mono_ms < due) {
                continue;
            }
            match found {
                Some(found) => {
                    let Unmatched { key, pattern, .. } = &entry.unmatched;
                    let line = format!("{} matches {} now", state.config.describe(key, pattern), found.link.name);
                    lines.push((Level::Info, line));
                }
                None => gone.push(entry.unmatched.clone()),
            }
            entry.mark_reported(now);
        }
        let gone = unmatched_sentences(&gone, &state.config);
        lines.extend(gone.into_iter().map(|line| (Level::Warn, line)));
        lines
    }
}
