//! The bound of what is remembered of interfaces: where containers, tunnels or modems get a new name each time, those that
//! are gone would be without end. Above the bound the ones that carried least are folded into one history, "others", so
//! that sums stay exact and little is lost to the eye.

use super::Sampler;
use super::inventory::remember;
use crate::clock::Now;
use crate::live::State;
use crate::model::{Counters, Edit, IfaceId, Kind, Record, Stack};

/// So many histories are kept beside "others".
pub(super) const RECORDS: usize = 256;
/// Of links that are gone so many at the least, however many there are: one that is away for a moment comes back to its own.
const GONE: usize = 64;
/// So many are folded on disk at once: a rewrite of the past costs as much as several saves. Fewer are kept until then.
pub(super) const FOLDS: usize = 16;
/// Nothing that is remembered of an earlier run is folded before: a modem or a tunnel takes a while to come up.
const SETTLING_MS: u64 = 600_000;
const OTHERS: &str = "others";
/// While a link has that name. No link can have this one: the kernel allows no colon.
const OTHERS_STILL: &str = "others:";

fn bytes(record: &Record) -> u64 {
    record.lifetime.rx_bytes().saturating_add(record.lifetime.tx_bytes())
}

/// What is known of an earlier run, whose links may still be on their way.
pub(super) struct Remembered {
    /// Its numbers end there; 0 once all that is gone is known to be gone.
    last: IfaceId,
    until_ms: u64,
}

impl Remembered {
    pub fn new(records: &[Record], now: Now) -> Remembered {
        let last = records.iter().map(|record| record.id).max().unwrap_or(0);
        Remembered { last, until_ms: now.mono_ms + SETTLING_MS }
    }

    /// Whether it has just become known.
    pub fn settles(&mut self, now: Now) -> bool {
        let settles = self.last > 0 && now.mono_ms >= self.until_ms;
        self.last = if settles { 0 } else { self.last };
        settles
    }
}

impl Sampler {
    /// Folds what is too much. Never a link that is there, nor one that people speak of: by an alias, by a pattern or as the
    /// headline.
    pub(super) fn fold_excess(&mut self) {
        if self.records.len() <= RECORDS || self.looked_ms.is_none() {
            return;
        }
        let is_present = |id: IfaceId| self.links.iter().any(|tracked| tracked.id == Some(id));
        let is_gone = |record: &&Record| record.kind != Kind::Others && !is_present(record.id);
        let gone = self.records.iter().filter(is_gone).count();
        let present = self.links.iter().filter(|tracked| tracked.id.is_some()).count();
        let excess = gone.saturating_sub(RECORDS.saturating_sub(present).max(GONE));
        if excess == 0 {
            return;
        }
        let headline = self.primary.name();
        let is_free = |record: &&Record| {
            is_gone(record)
                && record.id > self.remembered.last
                && record.alias.is_empty()
                && record.name != headline
                && !self.wanted.speaks_of(&record.name)
                && !self.spoken_of.contains(&record.id)
        };
        let mut gone: Vec<(u64, IfaceId)> =
            self.records.iter().filter(is_free).map(|record| (bytes(record), record.id)).collect();
        gone.sort_unstable();
        gone.truncate(excess);
        let live = self.live.clone();
        let mut state = live.lock();
        let (mut taken, ours): (Vec<IfaceId>, Vec<IfaceId>) =
            gone.into_iter().map(|(_, id)| id).partition(|id| *id <= state.unsaved.taken_id);
        if taken.len() < FOLDS {
            taken.clear();
        }
        if !taken.is_empty() || !ours.is_empty() {
            self.fold(taken, ours, &mut state);
        }
    }

    /// `ours`: what the writer has taken nothing of is only here, and is folded here. The rest is the writer's to fold, at
    /// once, for its bytes are in two places until then.
    fn fold(&mut self, taken: Vec<IfaceId>, ours: Vec<IfaceId>, state: &mut State) {
        let ids: Vec<IfaceId> = taken.iter().chain(&ours).copied().collect();
        let (into, into_name) = self.others(&ids, state);
        for id in &ids {
            if let Some(gone) = self.records.iter().find(|record| record.id == *id).cloned() {
                self.take_over(&gone, into);
            }
        }
        let here = Edit::Fold { ids: ours, into, into_name: into_name.clone() };
        state.unsaved.edited(&here);
        self.disown_all(&here);
        if taken.is_empty() {
            return;
        }
        state.unsaved.folding.extend(&taken);
        let there = Edit::Fold { ids: taken, into, into_name };
        self.disown_all(&there);
        state.unsaved.edits.push((there, None));
        state.wishes.save_now = true;
    }

    fn others(&mut self, ids: &[IfaceId], state: &mut State) -> (IfaceId, String) {
        if let Some(known) = self.records.iter().find(|record| record.kind == Kind::Others) {
            return (known.id, known.name.clone());
        }
        let first = self.records.iter().filter(|record| ids.contains(&record.id)).map(|record| record.first_seen).min();
        let id = self.new_id();
        let record = Record {
            id,
            name: self.free_name().to_string(),
            kind: Kind::Others,
            alias: String::new(),
            // No link's: none is ever taken for it.
            ifindex: 0,
            stack: Stack::default(),
            mac: String::new(),
            node: 0,
            first_seen: first.unwrap_or_default(),
            last_seen: 0,
            raw: Counters::ZERO,
            lifetime: Counters::ZERO,
            mono_ms: 0,
        };
        let name = record.name.clone();
        remember(state, record.clone());
        self.records.push(record);
        (id, name)
    }

    fn free_name(&self) -> &'static str {
        let link = self.links.iter().any(|tracked| tracked.link.name == OTHERS);
        let record = self.records.iter().any(|record| record.kind != Kind::Others && record.name == OTHERS);
        if link || record { OTHERS_STILL } else { OTHERS }
    }

    /// Before the inventory is shown: a link may have come that is called so.
    pub(super) fn name_others(&mut self) {
        let name = self.free_name();
        if let Some(others) = self.records.iter_mut().find(|it| it.kind == Kind::Others && it.name != name) {
            others.name = name.to_string();
            remember(&mut self.live.lock(), others.clone());
        }
    }
}
