//! Limits the number of records. Where containers, tunnels or modems get a new name each time, the number of records of
//! gone interfaces would grow without end. Above the limit, the sampler merges those with the least traffic into one
//! record, "others", so the sums stay exact.

use super::Sampler;
use super::inventory::queue_record;
use crate::clock::Now;
use crate::live::State;
use crate::model::{Counters, HistoryEdit, IfaceId, InterfaceKind, NetworkStack, Record};

/// Limit on the number of records. "others" is not included.
pub(super) const MAX_RECORDS: usize = 256;
/// At least this many records of gone links are kept, however many links are present: a link that is away for a moment
/// finds its own record again.
const MIN_GONE_RECORDS: usize = 64;
/// The writer merges at least this many records at once, because rewriting the stored history costs as much as several
/// saves. As long as there are fewer excess records, they are kept.
pub(super) const MIN_DISK_MERGE: usize = 16;
/// Records of earlier runs are not merged until this time after the rejoin: a modem or a tunnel takes a while to come
/// up.
const GRACE_MS: u64 = 600_000;
const OTHERS_NAME: &str = "others";
/// Used while a link or the record of a gone link is called "others". No link can have this name: the kernel allows no
/// colon.
const OTHERS_FALLBACK_NAME: &str = "others:";

fn lifetime_bytes(record: &Record) -> u64 {
    record.lifetime.rx_bytes().saturating_add(record.lifetime.tx_bytes())
}

/// Protects the records of earlier runs while their links may still appear.
pub(super) struct GracePeriod {
    /// Records up to this id are protected; 0 after the end of the period.
    last_id: IfaceId,
    until_ms: u64,
}

impl GracePeriod {
    pub fn new(records: &[Record], now: Now) -> GracePeriod {
        let last_id = records.iter().map(|record| record.id).max().unwrap_or(0);
        GracePeriod { last_id, until_ms: now.mono_ms + GRACE_MS }
    }

    /// Returns `true` only once: at the first call after the end of the period.
    pub fn just_ended(&mut self, now: Now) -> bool {
        let just_ended = self.last_id > 0 && now.mono_ms >= self.until_ms;
        self.last_id = if just_ended { 0 } else { self.last_id };
        just_ended
    }
}

impl Sampler {
    /// Merges the excess records. Never merges the record of a present link, of the primary interface, or of an
    /// interface that has an alias or that a setting names.
    pub(super) fn merge_excess(&mut self) {
        if self.records.len() <= MAX_RECORDS || self.listed_ms.is_none() {
            return;
        }
        let is_present = |id: IfaceId| self.links.iter().any(|tracked| tracked.id == Some(id));
        let is_gone = |record: &&Record| record.kind != InterfaceKind::Others && !is_present(record.id);
        let gone = self.records.iter().filter(is_gone).count();
        let present = self.links.iter().filter(|tracked| tracked.id.is_some()).count();
        let excess = gone.saturating_sub(MAX_RECORDS.saturating_sub(present).max(MIN_GONE_RECORDS));
        if excess == 0 {
            return;
        }
        let primary = self.primary.name();
        let may_merge = |record: &&Record| {
            is_gone(record)
                && record.id > self.grace.last_id
                && record.alias.is_empty()
                && record.name != primary
                && !self.watch_settings.mentions(&record.name)
                && !self.pinned_by_altname.contains(&record.id)
        };
        let mut gone: Vec<(u64, IfaceId)> =
            self.records.iter().filter(may_merge).map(|record| (lifetime_bytes(record), record.id)).collect();
        gone.sort_unstable();
        gone.truncate(excess);
        let live = self.live.clone();
        let mut state = live.lock();
        let (mut on_disk, in_memory): (Vec<IfaceId>, Vec<IfaceId>) =
            gone.into_iter().map(|(_, id)| id).partition(|id| *id <= state.unsaved.highest_taken_id);
        if on_disk.len() < MIN_DISK_MERGE {
            on_disk.clear();
        }
        if !on_disk.is_empty() || !in_memory.is_empty() {
            self.merge_into_others(on_disk, in_memory, &mut state);
        }
    }

    /// Merges both groups of records in memory. `in_memory` are the records of which the writer has taken nothing:
    /// their samples are merged here too. The writer merges the stored samples of `on_disk`. For these this requests a
    /// save at once: until then "others" in memory includes their bytes, and on disk their own records still have them.
    fn merge_into_others(&mut self, on_disk: Vec<IfaceId>, in_memory: Vec<IfaceId>, state: &mut State) {
        let ids: Vec<IfaceId> = on_disk.iter().chain(&in_memory).copied().collect();
        let (into, into_name) = self.others_record(&ids, state);
        for id in &ids {
            if let Some(gone) = self.records.iter().find(|record| record.id == *id).cloned() {
                self.add_history(&gone, into);
            }
        }
        let memory_edit = HistoryEdit::MergeIntoOthers { ids: in_memory, into, into_name: into_name.clone() };
        state.unsaved.apply_edit(&memory_edit);
        self.drop_removed(&memory_edit);
        if on_disk.is_empty() {
            return;
        }
        state.unsaved.merging_into_others.extend(&on_disk);
        let disk_edit = HistoryEdit::MergeIntoOthers { ids: on_disk, into, into_name };
        self.drop_removed(&disk_edit);
        state.unsaved.edits.push((disk_edit, None));
        state.pending.save_now = true;
    }

    fn others_record(&mut self, ids: &[IfaceId], state: &mut State) -> (IfaceId, String) {
        if let Some(known) = self.records.iter().find(|record| record.kind == InterfaceKind::Others) {
            return (known.id, known.name.clone());
        }
        let first = self.records.iter().filter(|record| ids.contains(&record.id)).map(|record| record.first_seen).min();
        let id = self.new_id();
        let record = Record {
            id,
            name: self.others_name().to_string(),
            kind: InterfaceKind::Others,
            alias: String::new(),
            // No link has this identity, so no link continues the record.
            ifindex: 0,
            stack: NetworkStack::default(),
            mac: String::new(),
            inode: 0,
            first_seen: first.unwrap_or_default(),
            last_seen: 0,
            raw: Counters::ZERO,
            lifetime: Counters::ZERO,
            mono_ms: 0,
        };
        let name = record.name.clone();
        queue_record(state, record.clone());
        self.records.push(record);
        (id, name)
    }

    fn others_name(&self) -> &'static str {
        let is_link_name = self.links.iter().any(|tracked| tracked.link.name == OTHERS_NAME);
        let is_record_name =
            self.records.iter().any(|record| record.kind != InterfaceKind::Others && record.name == OTHERS_NAME);
        if is_link_name || is_record_name { OTHERS_FALLBACK_NAME } else { OTHERS_NAME }
    }

    /// Renames the record "others" if a link or another record has taken that name or has given it up. Called before
    /// the inventory is published.
    pub(super) fn rename_others(&mut self) {
        let name = self.others_name();
        if let Some(others) =
            self.records.iter_mut().find(|record| record.kind == InterfaceKind::Others && record.name != name)
        {
            others.name = name.to_string();
            queue_record(&mut self.live.lock(), others.clone());
        }
    }
}
