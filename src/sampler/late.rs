//! A history that could not be opened when counting began. Until it turns up, interfaces and ticks have numbers of this
//! run's own. Then everything in memory goes on with what is on disk as if it had been known from the beginning: each
//! interface under the number of its history, behind its last tick, and with what passed between the two booked into the
//! first tick. Nothing here waits for the disk.

use super::inventory::{Tracked, end_of, past_of, remember, was_active};
use super::{Sampler, Start, account, outcome, step_detail, unix_at, wanted};
use crate::clock::Now;
use crate::compact;
use crate::counter::{self, Between};
use crate::live::{Database, State};
use crate::model::{Batch, Counters, Event, EventKind, IfaceId, Mark, Reading, Record, Sample, Tick, Width};

/// What turned up.
pub struct Late {
    pub start: Start,
    /// Collection had been stopped, and nobody has started it since: what was counted here was not wanted.
    pub stopped: bool,
}

/// The first reading of an interface that nothing was known of, so that it was only a beginning.
pub(super) struct Beginning {
    id: IfaceId,
    ifindex: u32,
    counters: Counters,
    width: Width,
    speed_mbit: Option<u32>,
    mono_ms: u64,
    seq: u64,
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

/// A clock that has moved by more than this between two samples has been set.
const STEP_S: u64 = 2;

impl Sampler {
    pub(super) fn begin(&mut self, at: usize, reading: &Reading, now: Now, seq: u64) {
        let link = &self.links[at];
        let Some(id) = link.id else { return };
        self.beginnings.push(Beginning {
            id,
            ifindex: reading.ifindex,
            counters: reading.counters,
            width: reading.width,
            speed_mbit: link.link.speed,
            mono_ms: now.mono_ms,
            seq,
        });
    }

    pub(super) fn join(&mut self, late: Late) {
        let now = self.clock.now();
        let live = self.live.clone();
        let Start { records, next_seq, keeper, primary_found, .. } = late.start;
        let shift = next_seq.saturating_sub(1);
        {
            let mut guard = live.lock();
            let state = &mut *guard;
            if late.stopped {
                self.forget_all(state);
            }
            self.joined = true;
            state.records.clear();
            let mine = std::mem::replace(&mut self.records, records);
            let mut unseen = Vec::new();
            let links: Vec<Link> = mine.into_iter().map(|record| self.go_on(record, state, &mut unseen)).collect();
            self.book_unseen(unseen, state);
            self.renumber(&links, shift, state);
            for at in 0..self.links.len() {
                match self.links[at].id {
                    Some(_) => self.adopt(at, state),
                    None => self.take_up(at, state),
                }
            }
            self.wanted = wanted(&state.tuning);
            if self.primary.recall(state.tuning.primary.clone(), primary_found) {
                state.settings.retain(|(key, _)| key != "primary_found");
            }
            if let Some(started_at) = self.started_at.filter(|_| shift > 0) {
                // As it would have judged from the beginning, with what it knows now.
                self.keeper = keeper;
                let step = self.keeper.observe(started_at);
                if let Some(stepped_ms) = step.stepped_ms {
                    tell(state, started_at.mono_ms, EventKind::ClockStep, "", step_detail(stepped_ms));
                }
                self.offset_ms = self.keeper.observe(now).offset_ms;
                place_again(state, self.offset_ms);
            }
            state.bound();
        }
        self.beginnings = Vec::new();
        self.judge_all();
        self.publish();
        let detail = "the history could be opened: what was counted without it goes on with it";
        self.event(now, EventKind::Storage, "", detail.to_string());
        // Only now do numbers mean the same in memory and on disk for whoever asks both.
        live.lock().save_now = true;
        live.set_database(Database::Joined);
    }

    /// Finds the history of one of this run's records by the rules of a start, and makes one of both.
    fn go_on(&mut self, mine: Record, state: &mut State, unseen: &mut Vec<Unseen>) -> Link {
        let beginning = self.beginnings.iter().find(|beginning| beginning.id == mine.id);
        let Some((end, past)) = self.find(beginning.map(|beginning| beginning.ifindex), &mine.name, state) else {
            let theirs = self.records.iter().map(|record| record.id).max().unwrap_or(0) + 1;
            let link = Link { mine: mine.id, theirs, lifetime: Counters::ZERO, active: false };
            let record = Record { id: theirs, ..mine };
            remember(state, record.clone());
            self.records.push(record);
            return link;
        };
        let mut lifetime = past.lifetime;
        // Where nothing has ever moved there is nothing to keep.
        if let Some(beginning) = beginning.filter(|one| was_active(&past) || !one.counters.is_zero()) {
            let (base, base_ms, mark) = end_of(&end, &self.boot, beginning.ifindex);
            let span_ms = beginning.mono_ms.saturating_sub(base_ms);
            let Beginning { speed_mbit, width, .. } = *beginning;
            let between = Between { elapsed_ms: span_ms, speed_mbit, width, held: true };
            let change = counter::compare(&base, &beginning.counters, &between);
            let (mark, delta) = outcome(&change, mark);
            lifetime.add(&delta);
            let sample = Sample { iface: mine.id, mark, span_ms, delta };
            unseen.push(Unseen { seq: beginning.seq, mono_ms: beginning.mono_ms, sample });
            if let Some((kind, detail)) = account(&change, mark, span_ms, u64::from(self.tuning.interval_s) * 1000) {
                self.messages.push(format!("{}: {detail}", mine.name));
                tell(state, beginning.mono_ms, kind, &mine.name, detail);
            }
        }
        if past.name != mine.name {
            let detail = format!("{} is now called {}", past.name, mine.name);
            tell(state, mine.mono_ms, EventKind::Renamed, &mine.name, detail);
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

    /// The history that a link of this run goes on with, behind the one that its counters go on with. They differ for a
    /// link that was renamed to what has a history of its own. `ifindex`: `None` where it was seen to be made.
    fn find(&self, ifindex: Option<u32>, name: &str, state: &State) -> Option<(Record, Record)> {
        // What is on its way to the disk belongs to somebody.
        let free = self.records.iter().filter(|record| !state.records.iter().any(|taken| taken.id == record.id));
        let same_link = ifindex.map(|ifindex| (self.boot.as_str(), ifindex));
        let end = past_of(free.clone(), same_link, name)?;
        let past = past_of(free, None, name).filter(|_| end.name != name).unwrap_or(end);
        Some((end.clone(), past.clone()))
    }

    /// A link that has no number yet: it was not looked at, nothing has moved on it, or nobody wants to know.
    fn take_up(&mut self, at: usize, state: &mut State) {
        let Tracked { born, ref link, .. } = self.links[at];
        let ifindex = link.ifindex;
        let Some((end, past)) = self.find((!born).then_some(ifindex), &link.name, state) else { return };
        let tracked = &mut self.links[at];
        tracked.id = Some(past.id);
        tracked.active |= was_active(&past);
        tracked.lifetime = past.lifetime;
        if let Some(base) = &tracked.base {
            tracked.mark = Some(if base.is_zero() { Mark::Reset } else { Mark::Gap });
        } else if !self.paused && !born && tracked.watched() {
            let (base, base_ms, mark) = end_of(&end, &self.boot, ifindex);
            (tracked.base, tracked.base_ms, tracked.mark) = (Some(base), base_ms, Some(mark));
        }
        if let Some(record) = self.records.iter_mut().find(|record| record.id == past.id) {
            record.name.clone_from(&tracked.link.name);
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
        for (tick, samples) in state.batch.iter() {
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
        state.batch = whole;
    }

    /// Nothing of this run was wanted.
    fn forget_all(&mut self, state: &mut State) {
        self.paused = true;
        self.forget_bases();
        for tracked in &mut self.links {
            (tracked.id, tracked.lifetime) = (None, Counters::ZERO);
        }
        state.interfaces.iter_mut().for_each(|iface| iface.id = None);
        state.batch.clear();
        state.anchors.clear();
        self.records.clear();
        self.beginnings.clear();
        self.gone.clear();
    }

    /// Numbers of this run become numbers on disk.
    fn renumber(&mut self, links: &[Link], shift: u64, state: &mut State) {
        let find = |id: IfaceId| links.iter().find(|link| link.mine == id);
        let number = |id: &mut IfaceId| *id = find(*id).map_or(*id, |link| link.theirs);
        state.batch.samples.iter_mut().for_each(|sample| number(&mut sample.iface));
        state.batch.ticks.iter_mut().for_each(|tick| tick.seq += shift);
        for anchor in &mut state.anchors {
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
            if let Some(iface) = state.interfaces.get_mut(tracked.slot) {
                (iface.id, iface.lifetime) = (tracked.id, lifetime);
            }
        }
        for iface in state.interfaces.iter_mut().filter(|iface| !iface.present()) {
            iface.id.iter_mut().for_each(number);
        }
        self.gone.iter_mut().for_each(|(id, _)| number(id));
        self.next_seq += shift;
    }
}

/// Something that happened when it could not be told yet.
fn tell(state: &mut State, mono_ms: u64, kind: EventKind, interface: &str, detail: String) {
    state.earlier_event(Event { unix: None, mono_ms, kind, interface: interface.to_string(), detail });
}

/// Gives every tick and event the time that it has by a clock that is known better now.
fn place_again(state: &mut State, offset_ms: Option<i64>) {
    state.clock_believed = offset_ms.is_some();
    let place = |unix: &mut Option<i64>, mono_ms: u64| {
        let right = offset_ms.map(|offset_ms| unix_at(mono_ms, offset_ms));
        // A second of difference is none: what was shown once stays as it was.
        let near = unix.zip(right).is_some_and(|(one, other)| one.abs_diff(other) <= STEP_S);
        if !near {
            *unix = right;
        }
    };
    state.batch.ticks.iter_mut().for_each(|tick| place(&mut tick.unix, tick.mono_ms));
    state.events.iter_mut().for_each(|event| place(&mut event.unix, event.mono_ms));
}
