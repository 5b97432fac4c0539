//! Interfaces that the settings ask for by name or pattern and that are not there: a typing mistake is told from the first
//! moment on, and a modem that comes and goes does not fill the log.

use log::Level;

use super::inventory::{Tracked, was_active};
use super::{Sampler, find};
use crate::clock::Now;
use crate::detect::{self, Wanted};
use crate::live::{Unmatched, unmatched_sentences};
use crate::model::Record;

/// So many lines about one pattern in so long a time are news. What comes and goes more often has its last word at the end
/// of that time.
const LINES: u32 = 6;
const QUIET_MS: u64 = 600_000;

struct Asked {
    /// What there is to tell while nothing matches.
    unmatched: Unmatched,
    there: bool,
    /// As the log has it by now. What is there from the beginning is no news.
    told_there: bool,
    /// Lines since `since_ms`.
    lines: u32,
    since_ms: u64,
}

impl Asked {
    fn new(key: &'static str, pattern: &str) -> Asked {
        let unmatched = Unmatched { key, pattern: pattern.to_string(), known: false };
        Asked { unmatched, there: true, told_there: true, lines: 0, since_ms: 0 }
    }

    fn find<'a>(&self, links: &'a [Tracked]) -> Option<&'a Tracked> {
        let pattern = &self.unmatched.pattern;
        match self.unmatched.key {
            // A name: a star in it stands for itself.
            "primary" => find(links, pattern),
            _ => links
                .iter()
                .find(|tracked| detect::fits(pattern, &tracked.link.name, &tracked.link.altnames, tracked.kind)),
        }
    }

    /// When its news are told; `None` without news.
    fn tell_ms(&self) -> Option<u64> {
        let wait_ms = if self.lines < LINES { 0 } else { QUIET_MS };
        (self.there != self.told_there).then_some(self.since_ms + wait_ms)
    }

    fn told(&mut self, now: Now) {
        if now.mono_ms >= self.since_ms + QUIET_MS {
            (self.lines, self.since_ms) = (0, now.mono_ms);
        }
        self.lines += 1;
        self.told_there = self.there;
    }
}

#[derive(Default)]
pub(super) struct Missing {
    /// What `asked` was made of.
    wanted: Wanted,
    asked: Vec<Asked>,
}

impl Missing {
    /// When news are told that were held back.
    pub fn next_ms(&self) -> Option<u64> {
        self.asked.iter().filter_map(Asked::tell_ms).min()
    }

    pub fn is_due(&self, wanted: &Wanted, now: Now) -> bool {
        self.wanted != *wanted || self.next_ms().is_some_and(|due| now.mono_ms >= due)
    }

    /// What is asked for as before keeps what was told of it.
    fn follow(&mut self, wanted: &Wanted) {
        self.wanted = wanted.clone();
        let mut before = std::mem::take(&mut self.asked);
        let primary = Some(&wanted.primary).filter(|name| !name.is_empty());
        let lists = wanted.interfaces.iter().map(|pattern| ("interfaces", pattern));
        for (key, pattern) in lists.chain(primary.map(|name| ("primary", name))) {
            let same = |asked: &Asked| asked.unmatched.key == key && asked.unmatched.pattern == *pattern;
            if !self.asked.iter().any(same) {
                let known = before.iter().position(same).map(|at| before.swap_remove(at));
                self.asked.push(known.unwrap_or_else(|| Asked::new(key, pattern)));
            }
        }
    }
}

impl Sampler {
    /// After the links or the lists have changed, and when news were held back long enough.
    pub(super) fn look_for_missing(&mut self, now: Now) {
        // The lock is free by then: standard error may block.
        for (level, line) in self.news_of_missing(now) {
            log::log!(level, "{line}");
        }
    }

    /// Shows what is missing, and gives what the log has to say of it.
    pub(super) fn news_of_missing(&mut self, now: Now) -> Vec<(Level, String)> {
        if self.missing.wanted != self.wanted {
            self.missing.follow(&self.wanted);
        }
        // Every machine has a loopback: they could not be listed.
        if self.links.is_empty() {
            return Vec::new();
        }
        let (mut gone, mut lines) = (Vec::new(), Vec::new());
        let live = self.live.clone();
        let mut state = live.lock();
        state.inventory.unmatched.clear();
        for asked in &mut self.missing.asked {
            let found = asked.find(&self.links);
            asked.there = found.is_some();
            let kept = |record: &Record| record.name == asked.unmatched.pattern && was_active(record);
            asked.unmatched.known = self.records.iter().any(kept);
            if found.is_none() {
                state.inventory.unmatched.push(asked.unmatched.clone());
            }
            if asked.tell_ms().is_none_or(|due| now.mono_ms < due) {
                continue;
            }
            match found {
                Some(found) => {
                    let Unmatched { key, pattern, .. } = &asked.unmatched;
                    let line = format!("{} matches {} now", state.config.naming(key, pattern), found.link.name);
                    lines.push((Level::Info, line));
                }
                None => gone.push(asked.unmatched.clone()),
            }
            asked.told(now);
        }
        let gone = unmatched_sentences(&gone, &state.config);
        lines.extend(gone.into_iter().map(|line| (Level::Warn, line)));
        lines
    }
}
