//! What earlier runs have left in the database. Until it is there, interfaces and ticks have numbers of this run's own.
//! Then everything in memory goes on with what is on disk as if it had been known from the beginning: each interface under
//! the number of its history, behind its last tick, and with what passed between the two booked into the first tick. At
//! most starts it is there before anything was counted. Nothing here waits for the disk.

use super::identity::{self, Boot, Candidate, End, Newest, Past, Present, Resume};
use super::inventory::{anew_detail, remember, was_active};
use super::others::Remembered;
use super::{Sampler, account, outcome, step_detail, unix_at, wanted};
use crate::clock::{BUILD_FLOOR, Keeper, Now};
use crate::compact;
use crate::counter::{Baseline, Between, Change};
use crate::live::{Database, Earlier, State};
use crate::model::{Batch, Counters, Event, EventKind, IfaceId, Kind, Mark, Reading, Record};
use crate::model::{Sample, Tick, Width};

/// The first reading of an interface that nothing was known of, so that it was only a beginning.
#[derive(Clone, Copy)]
pub(super) struct Beginning {
    pub id: IfaceId,
    ifindex: u32,
    counters: Counters,
    width: Width,
    speed_mbit: Option<u32>,
    mono_ms: u64,
    seq: u64,
}

/// A first reading that may be booked from zero.
pub(super) struct Waiting {
    pub first: Beginning,
    pub boot: Boot,
}

/// What an interface of this run goes on with.
struct Link {
    mine: IfaceId,
    theirs: IfaceId,
    /// What it had before, with what passed unseen.
    lifetime: Counters,
    active: bool,
}

/// What nobody has seen pass, as of this run's first look.
struct Unseen {
    seq: u64,
    mono_ms: u64,
    sample: Sample,
}

/// What a run leaves for the next one.
const OF_A_RUN: [&str; 2] = ["primary_found", "newest_link"];

/// A clock that has moved by more than this between two samples has been set.
const STEP_S: u64 = 2;

impl Sampler {
    pub(super) fn beginning(&self, at: usize, reading: &Reading, now: Now, seq: u64) -> Option<Beginning> {
        let link = &self.links[at];
        Some(Beginning {
            id: link.id?,
            ifindex: reading.ifindex,
            counters: reading.counters,
            width: reading.width,
            speed_mbit: link.link.speed,
            mono_ms: now.mono_ms,
            seq,
        })
    }

    /// Decides on the first readings that wait for it, once the clock can be believed.
    pub(super) fn book_since_boot(&mut self, now: Now, state: &mut State) {
        let Some(offset_ms) = self.offset_ms.filter(|_| !self.waiting.is_empty()) else { return };
        let (boot_unix, now_unix) = (unix_at(0, offset_ms), unix_at(now.mono_ms, offset_ms));
        let mut unseen = Vec::new();
        for Waiting { first, boot } in std::mem::take(&mut self.waiting) {
            let Some(name) = self.records.iter().find(|record| record.id == first.id).map(|it| it.name.clone()) else {
                continue;
            };
            if let Some(why) = boot.refusal(boot_unix, now_unix) {
                self.tell_of_anew(&name, why, first.mono_ms, state);
                continue;
            }
            let delta = self.count_unseen(&first, &name, End::zero(0), state, &mut unseen);
            if let Some(record) = self.records.iter_mut().find(|record| record.id == first.id) {
                record.lifetime.add(&delta);
            }
            if let Some(tracked) = self.links.iter_mut().find(|tracked| tracked.id == Some(first.id)) {
                tracked.lifetime.add(&delta);
            }
            if let Some(iface) = state.inventory.interfaces.iter_mut().find(|iface| iface.id == Some(first.id)) {
                iface.lifetime.add(&delta);
            }
        }
        self.book_unseen(unseen, state);
    }

    fn tell_of_anew(&mut self, name: &str, why: &str, mono_ms: u64, state: &mut State) {
        let detail = anew_detail(why);
        self.messages.push(format!("{name}: {detail}"));
        self.tell_late(state, mono_ms, EventKind::Gap, name, detail);
    }

    /// Something that happened when it could not be told yet.
    fn tell_late(&self, state: &mut State, mono_ms: u64, kind: EventKind, interface: &str, detail: String) {
        let unix = self.offset_ms.map(|offset_ms| unix_at(mono_ms, offset_ms));
        state.unsaved.earlier_event(Event { unix, mono_ms, kind, interface: interface.to_string(), detail });
    }

    /// What passed between the end of a history and a first reading.
    fn count_unseen(
        &mut self,
        first: &Beginning,
        name: &str,
        end: End,
        state: &mut State,
        unseen: &mut Vec<Unseen>,
    ) -> Counters {
        let Beginning { id, counters, width, speed_mbit, mono_ms, seq, .. } = *first;
        let span_ms = mono_ms.saturating_sub(end.mono_ms);
        let between = Between { elapsed_ms: span_ms, speed_mbit, width };
        let mut baseline = Baseline::new(end.counters);
        let change = match baseline.advance(&counters, &between) {
            // There was a reading after this one: it was no zero for a moment.
            Change::Held => baseline.advance(&counters, &between),
            change => change,
        };
        if end.unsure && !matches!(change, Change::Plain(_)) {
            self.tell_of_anew(name, "its counters have fallen since the latest sample", mono_ms, state);
            return Counters::ZERO;
        }
        let (mark, delta) = outcome(&change, end.mark);
        unseen.push(Unseen { seq, mono_ms, sample: Sample { iface: id, mark, span_ms, delta } });
        if let Some((kind, detail)) = account(&change, mark, span_ms, u64::from(self.tuning.interval_s) * 1000) {
            self.messages.push(format!("{name}: {detail}"));
            self.tell_late(state, mono_ms, kind, name, detail);
        }
        delta
    }

    /// At a start that knows its history from the beginning there is nothing yet to be joined to it.
    pub(super) fn join(&mut self, earlier: Earlier, now: Now) {
        let live = self.live.clone();
        let Earlier { records, settings, next_seq, newest } = earlier;
        let [primary_found, newest_link] = OF_A_RUN.map(|key| settings.get(key).cloned().unwrap_or_default());
        let keeper = keeper(newest, &records, &self.stack.boot);
        let shift = next_seq.saturating_sub(1);
        {
            let mut guard = live.lock();
            let state = &mut *guard;
            // Collection had been stopped. Where it was not started since, what was counted here was not wanted either.
            let stopped = settings.get("running").is_some_and(|running| running == "false");
            if !state.tuning.running && !state.unsaved.settings.iter().any(|(key, _)| key == "running") {
                self.forget_all(state);
            }
            self.joined = true;
            state.unsaved.records.clear();
            state.unsaved.taken_id = records.iter().map(|record| record.id).max().unwrap_or(0);
            (self.newest_before, self.last_seen) = (Newest::of_text(&newest_link, &self.stack), newest.unwrap_or(0));
            self.remembered = Remembered::new(&records, now);
            let mine = std::mem::replace(&mut self.records, records);
            let mut pasts = self.pasts(&mine);
            if stopped {
                const WHY: &str = "collection was stopped, and started again before the history was open";
                pasts.iter_mut().flatten().for_each(|past| past.resume = Resume::Anew(WHY));
            }
            let mut pasts = pasts.into_iter();
            let (mut unseen, mut waiting) = (Vec::new(), Vec::new());
            let links: Vec<Link> = mine
                .into_iter()
                .zip(pasts.by_ref())
                .map(|(record, past)| self.go_on(record, past, state, &mut unseen, &mut waiting))
                .collect();
            self.book_unseen(unseen, state);
            self.renumber(&links, shift, state);
            for Waiting { first, boot } in waiting {
                let id = links.iter().find(|link| link.mine == first.id).map_or(first.id, |link| link.theirs);
                self.waiting.push(Waiting { first: Beginning { id, seq: first.seq + shift, ..first }, boot });
            }
            let numbered: Vec<bool> = self.links.iter().map(|tracked| tracked.id.is_some()).collect();
            for (at, numbered) in numbered.into_iter().enumerate() {
                match numbered {
                    true => self.adopt(at, state),
                    false => self.take_up(at, pasts.next().flatten(), state),
                }
            }
            self.wanted = wanted(&state.tuning);
            if self.primary.recall(state.tuning.primary.clone(), primary_found) {
                state.unsaved.settings.retain(|(key, _)| key != "primary_found");
            }
            if newest.is_some() {
                self.keeper = keeper;
                self.judge_clock_again(now, state);
            }
            self.book_since_boot(now, state);
            state.bound();
        }
        self.beginnings = Vec::new();
        let late = self.started_at.is_some();
        if late {
            self.judge_all();
            self.publish();
            let detail = "the history could be opened: what was counted without it goes on with it";
            self.event(now, EventKind::Storage, "", detail.to_string());
        }
        // Only now do numbers mean the same in memory and on disk for those who ask both.
        let mut state = live.lock();
        state.wishes.save_now |= late;
        state.health.database = Database::Joined;
    }

    /// As it would have judged from the beginning, with what it knows now.
    fn judge_clock_again(&mut self, now: Now, state: &mut State) {
        let Some(started_at) = self.started_at else { return };
        let step = self.keeper.observe(started_at);
        if let Some(stepped_ms) = step.stepped_ms {
            self.tell_late(state, started_at.mono_ms, EventKind::ClockStep, "", step_detail(stepped_ms));
        }
        self.offset_ms = self.keeper.observe(now).offset_ms;
        place_again(state, self.offset_ms);
    }

    /// What each of this run's histories goes on with by the rules of a start, and then each link that has none.
    fn pasts(&self, mine: &[Record]) -> Vec<Option<Past>> {
        let beginning = |id: IfaceId| self.beginnings.iter().find(|beginning| beginning.id == id);
        let known = mine.iter().map(|record| Candidate {
            ifindex: beginning(record.id).map(|beginning| beginning.ifindex),
            // No link's: it goes on with none of theirs, whatever that is called.
            name: if record.kind == Kind::Others { "" } else { &record.name },
            mac: &record.mac,
            node: record.node,
        });
        let others = self.links.iter().filter(|tracked| tracked.id.is_none());
        let candidates: Vec<Candidate> =
            known.chain(others.map(|tracked| Candidate::of(&tracked.link, tracked.born))).collect();
        let records: Vec<&Record> = self.records.iter().collect();
        let present = Present {
            stack: &self.stack,
            mono_ms: self.started_at.map_or(0, |started_at| started_at.mono_ms),
            newest: self.newest_before,
            looked_ms: None,
            last_seen: self.last_seen,
        };
        identity::find(&candidates, &records, &present)
    }

    /// Makes one of both.
    fn go_on(
        &mut self,
        mine: Record,
        past: Option<Past>,
        state: &mut State,
        unseen: &mut Vec<Unseen>,
        waiting: &mut Vec<Waiting>,
    ) -> Link {
        let beginning = self.beginnings.iter().find(|beginning| beginning.id == mine.id).copied();
        let others = || self.records.iter().find(|record| record.kind == Kind::Others);
        let past = match others().filter(|_| mine.kind == Kind::Others).cloned() {
            Some(record) => Some(Past { end: record.clone(), record, resume: Resume::Anew("") }),
            None => past,
        };
        let readdressed = past.as_ref().and_then(|past| past.readdressed(&mine.mac));
        let Some(Past { end, record: past, resume }) = past else {
            let theirs = self.records.iter().map(|record| record.id).max().unwrap_or(0) + 1;
            let link = Link { mine: mine.id, theirs, lifetime: Counters::ZERO, active: false };
            let record = Record { id: theirs, ..mine };
            remember(state, record.clone());
            self.records.push(record);
            return link;
        };
        let mut lifetime = past.lifetime;
        // Where nothing has ever moved there is nothing to keep.
        if let Some(first) = beginning.filter(|one| was_active(&past) || !one.counters.is_zero()) {
            if let Some(detail) = readdressed.filter(|_| !matches!(resume, Resume::Anew(_))) {
                self.tell_late(state, first.mono_ms, EventKind::HardwareAddress, &mine.name, detail);
            }
            match resume {
                Resume::From(end) => lifetime.add(&self.count_unseen(&first, &mine.name, end, state, unseen)),
                Resume::SinceBoot(boot) => waiting.push(Waiting { first, boot }),
                Resume::Anew(why) => self.tell_of_anew(&mine.name, why, first.mono_ms, state),
            }
        }
        if end.name != mine.name {
            let detail = format!("{} is now called {}", end.name, mine.name);
            self.tell_late(state, mine.mono_ms, EventKind::Renamed, &mine.name, detail);
        }
        let link = Link { mine: mine.id, theirs: past.id, lifetime, active: was_active(&past) };
        lifetime.add(&mine.lifetime);
        let Record { id, alias, first_seen, .. } = past;
        let record = Record { id, alias, first_seen, lifetime, ..mine };
        remember(state, record.clone());
        self.records.retain(|known| known.id != id);
        self.records.push(record);
        link
    }

    /// A link that has no number yet: it was not looked at, nothing has moved on it, or nobody wants to know.
    fn take_up(&mut self, at: usize, past: Option<Past>, state: &mut State) {
        let Some(Past { record: past, resume, .. }) = past else { return };
        let paused = self.paused;
        let tracked = &mut self.links[at];
        (tracked.id, tracked.anchored) = (Some(past.id), false);
        tracked.active |= was_active(&past);
        tracked.lifetime = past.lifetime;
        if let Some(base) = &tracked.base {
            tracked.mark = Some(if base.counters.is_zero() { Mark::Reset } else { Mark::Gap });
        } else if !paused && !tracked.born && tracked.watched() {
            if let Some(why) = tracked.resume(&resume) {
                let name = tracked.link.name.clone();
                self.tell_of_anew(&name, why, self.started_at.map_or(0, |started_at| started_at.mono_ms), state);
            }
        }
        let name = &self.links[at].link.name;
        if let Some(record) = self.records.iter_mut().find(|record| record.id == past.id) {
            record.name.clone_from(name);
            remember(state, record.clone());
        }
    }

    /// What passed between a history's end and this run's first look goes to the tick of that look, wherever it has come
    /// to lie: ticks are merged when memory is short.
    fn book_unseen(&mut self, mut unseen: Vec<Unseen>, state: &mut State) {
        if unseen.is_empty() {
            return;
        }
        unseen.sort_by_key(|unseen| unseen.seq);
        let mut unseen = unseen.into_iter().peekable();
        let mut whole = Batch::default();
        for (tick, samples) in state.unsaved.batch.iter() {
            let start = whole.samples.len();
            whole.samples.extend(samples);
            while let Some(Unseen { sample, .. }) = unseen.next_if(|unseen| unseen.seq <= tick.seq) {
                match whole.samples[start..].iter_mut().find(|known| known.iface == sample.iface) {
                    Some(known) => compact::absorb(known, &sample),
                    None => whole.samples.push(sample),
                }
            }
            whole.ticks.push(Tick { end: whole.samples.len(), ..*tick });
        }
        if let Some(mono_ms) = unseen.peek().map(|unseen| unseen.mono_ms) {
            // It went before it was looked at again.
            whole.samples.extend(unseen.map(|unseen| unseen.sample));
            let end = whole.samples.len();
            whole.ticks.push(Tick { seq: self.next_seq, mono_ms, unix: None, end });
            self.next_seq += 1;
        }
        state.unsaved.batch = whole;
    }

    /// Nothing of this run was wanted.
    fn forget_all(&mut self, state: &mut State) {
        self.paused = true;
        self.forget_bases();
        for tracked in &mut self.links {
            (tracked.id, tracked.anchored, tracked.lifetime) = (None, false, Counters::ZERO);
        }
        state.inventory.interfaces.iter_mut().for_each(|iface| iface.id = None);
        state.unsaved.batch.clear();
        state.unsaved.anchors.clear();
        self.records.clear();
        self.beginnings.clear();
    }

    /// Numbers of this run become numbers on disk.
    fn renumber(&mut self, links: &[Link], shift: u64, state: &mut State) {
        let find = |id: IfaceId| links.iter().find(|link| link.mine == id);
        let number = |id: &mut IfaceId| *id = find(*id).map_or(*id, |link| link.theirs);
        state.unsaved.batch.samples.iter_mut().for_each(|sample| number(&mut sample.iface));
        state.unsaved.batch.ticks.iter_mut().for_each(|tick| tick.seq += shift);
        for anchor in &mut state.unsaved.anchors {
            number(&mut anchor.iface);
            anchor.seq += shift;
        }
        for tracked in &mut self.links {
            let Some(link) = tracked.id.and_then(find) else { continue };
            tracked.id = Some(link.theirs);
            tracked.active |= link.active;
            let mut lifetime = link.lifetime;
            lifetime.add(&tracked.lifetime);
            tracked.lifetime = lifetime;
            // Whoever asks before the inventory is shown anew finds the right number, too.
            if let Some(iface) = state.inventory.interfaces.get_mut(tracked.slot) {
                (iface.id, iface.lifetime) = (tracked.id, lifetime);
            }
        }
        for iface in state.inventory.interfaces.iter_mut().filter(|iface| !iface.present()) {
            iface.id.iter_mut().for_each(number);
        }
        self.next_seq += shift;
        self.last_words = None;
    }
}

/// What an earlier run knew of the clock. On the same boot the newest sample says what the wall clock was at a moment of
/// the monotonic one.
fn keeper(newest: Option<i64>, records: &[Record], boot: &str) -> Keeper {
    let mut keeper = Keeper::new(BUILD_FLOOR, newest);
    let same_boot = |record: &&Record| !boot.is_empty() && record.stack.boot == boot && record.last_seen > 0;
    let same_boot = records.iter().filter(same_boot);
    if let Some(newest) = same_boot.max_by_key(|record| record.mono_ms) {
        keeper.resume(Now { mono_ms: newest.mono_ms, unix_ms: newest.last_seen * 1000 });
    }
    keeper
}

/// Gives every tick and event the time that it has by a clock that is known better now.
fn place_again(state: &mut State, offset_ms: Option<i64>) {
    state.health.clock_believed = offset_ms.is_some();
    let place = |unix: &mut Option<i64>, mono_ms: u64| {
        let right = offset_ms.map(|offset_ms| unix_at(mono_ms, offset_ms));
        // A second of difference is none: what was shown once stays as it was.
        let near = unix.zip(right).is_some_and(|(one, other)| one.abs_diff(other) <= STEP_S);
        if !near {
            *unix = right;
        }
    };
    state.unsaved.batch.ticks.iter_mut().for_each(|tick| place(&mut tick.unix, tick.mono_ms));
    state.unsaved.events.iter_mut().for_each(|event| place(&mut event.unix, event.mono_ms));
}
