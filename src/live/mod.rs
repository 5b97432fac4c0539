//! What both sides meet in: the inventory of interfaces, the latest counters and rates, the one-second ring, the samples
//! that are not yet saved, and what `http` asks of the sampler and the writer. One lock, held for copying only: nobody
//! reads the kernel, the disk or the network while holding it.

mod orders;
mod saving;

use crate::sorted::Map;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::clock::Zone;
use crate::compact::{self, HELD_BYTES};
use crate::config::{Changes, Config, Refused};
use crate::model::{Address, Anchor, Batch, Counters, Edit, Event, EventKind, IfaceId, Keep, Kind, Record};

pub use orders::{Alteration, Order, Refusal};
pub use saving::{AtRisk, Saving, Told, Written};

/// How many seconds of one-second rates are kept.
pub const RING_SECONDS: usize = 300;
/// Sampling at one second goes on for this long after somebody last asked for the ring.
pub const WATCH_MS: u64 = 10_000;
/// Unsaved events beyond this many are dropped, oldest first.
const EVENTS_HELD: usize = 200;

/// Settings that the sampler and the writer go by, read out of `Config` so that nobody parses texts every tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    pub interval_s: u32,
    pub max_retries: u32,
    pub retry_delay_ms: u32,
    /// Patterns to monitor; empty for all that `detect` does not ignore.
    pub interfaces: Vec<String>,
    /// Patterns to leave out.
    pub ignored: Vec<String>,
    /// The user's choice; empty for none.
    pub primary: String,
    /// Collection goes on; `false` survives a restart.
    pub running: bool,
    pub flush_s: u32,
    pub keep: Keep,
}

impl Tuning {
    pub fn of(config: &Config) -> Tuning {
        let number = |key| u32::try_from(config.integer(key)).unwrap_or(u32::MAX);
        Tuning {
            interval_s: number("interval"),
            max_retries: number("max_retries"),
            retry_delay_ms: (config.decimal("retry_delay") * 1000.0).round() as u32,
            interfaces: config.list("interfaces"),
            ignored: config.list("ignore"),
            primary: config.text("primary").to_string(),
            running: config.switch("running"),
            flush_s: config.flush_s(),
            keep: Keep {
                samples_days: number("keep_samples_days"),
                five_minutes_days: number("keep_5min_days"),
                hours_days: number("keep_hours_days"),
            },
        }
    }
}

/// One interface as its readers see it.
#[derive(Clone, Debug)]
pub struct Iface {
    /// `None` while nothing was ever stored of it.
    pub id: Option<IfaceId>,
    /// 0 while it is absent.
    pub ifindex: u32,
    pub name: String,
    pub altnames: Vec<String>,
    pub kind: Kind,
    pub mac: String,
    pub mtu: u32,
    pub speed: Option<u32>,
    pub up: bool,
    pub alias: String,
    pub addresses: Vec<Address>,
    /// Names of the bridge or bond it is a port of, else of the link below it.
    pub parent: Option<String>,
    pub monitored: bool,
    pub ignored_because: Option<String>,
    /// Raw kernel counters at the latest reading.
    pub raw: Counters,
    /// Bytes per second over the latest reading but one; `None` before the second.
    pub rates: Option<(u64, u64)>,
    pub lifetime: Counters,
}

impl Iface {
    pub fn present(&self) -> bool {
        self.ifindex != 0
    }

    /// By its own name or by an altname.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|altname| altname == name)
    }
}

/// Something that a setting asks for by name or pattern, while no interface that is there has such a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// `interfaces` or `primary`.
    pub key: &'static str,
    pub pattern: String,
    /// The name of an interface that was there once.
    pub known: bool,
}

/// What to tell of it: a sentence for each setting, without its full stop.
pub fn unmatched_sentences(unmatched: &[Unmatched], config: &Config) -> Vec<String> {
    const NAMED: usize = 5;
    let mut sentences = Vec::new();
    for key in ["interfaces", "primary"] {
        let of: Vec<&Unmatched> = unmatched.iter().filter(|one| one.key == key).collect();
        let mut names = of.iter().take(NAMED).map(|one| one.pattern.as_str()).collect::<Vec<_>>().join(", ");
        if of.len() > NAMED {
            names += &format!(" and {} more", of.len() - NAMED);
        }
        let begin = if of.iter().all(|one| one.known) { "go on" } else { "begin" };
        let rest = match of[..] {
            [] => continue,
            [_] if key == "primary" => "matches no interface now: it is the headline once it is there".to_string(),
            [one] => {
                let which = if one.pattern.contains('*') { "one" } else { "it" };
                format!("matches no interface now: its figures {begin} when {which} appears")
            }
            _ => format!("match no interface now: their figures {begin} when they appear"),
        };
        sentences.push(format!("{} {rest}", config.naming(key, &names)));
    }
    sentences
}

/// The collector's own bookkeeping. Times are UTC seconds.
#[derive(Clone, Debug, Default)]
pub struct Polls {
    pub total: u64,
    pub successful: u64,
    pub failed: u64,
    pub consecutive_failures: u64,
    pub errors: u64,
    pub last: Option<i64>,
    pub last_successful: Option<i64>,
    pub last_error: Option<String>,
    /// Monotonic, of the start of the sampler.
    pub started_mono_ms: u64,
    /// Monotonic, of the latest sample; what health goes by, for a sampler that hangs counts no failures.
    pub sampled_mono_ms: Option<u64>,
}

/// Where the database stands. While it is absent, the numbers of interfaces and ticks are those of memory alone, and
/// mean nothing on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// Not opened so far.
    Absent,
    /// What is in memory goes on with what is on disk.
    Joined,
    /// Not opened until the end.
    GivenUp,
}

/// What the ring's rates take at the most: 72 interfaces for all of its time, and more of them for less.
pub const RING_BYTES: usize = 512 * 1024;

type Rates = Option<(u64, u64)>;

/// Rates of one second, of the interfaces that are watched.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Rises with every second kept; what `since` of the API means.
    pub next: u64,
    /// UTC seconds, as the machine believes them.
    pub times: VecDeque<i64>,
    /// ifindex → rx and tx in bytes per second, as long as `times`; `None` where the interface was not there.
    pub rates: Map<u32, VecDeque<Rates>>,
    /// Monotonic; 0 for never.
    pub watched_until_ms: u64,
}

impl Ring {
    /// One more second.
    pub fn push(&mut self, unix: i64, watched: impl Iterator<Item = (u32, Rates)> + Clone) {
        // Those that have gone are in it for as long as it reaches back.
        let bytes = watched.clone().count().max(self.rates.len()) * size_of::<Rates>();
        let seconds = (RING_BYTES / bytes.max(1)).clamp(1, RING_SECONDS);
        while self.times.len() >= seconds {
            self.times.pop_front();
            for rates in self.rates.values_mut() {
                rates.pop_front();
            }
        }
        let length = self.times.len();
        self.times.push_back(unix);
        self.next += 1;
        for (ifindex, rate) in watched {
            let rates = self.rates.entry(ifindex).or_default();
            if rates.capacity() == 0 {
                rates.reserve_exact(seconds);
            }
            // A link that came later has nothing to show for the time before.
            rates.resize(length, None);
            rates.push_back(rate);
        }
        for rates in self.rates.values_mut() {
            rates.resize(length + 1, None);
            if rates.capacity() > 2 * seconds {
                rates.shrink_to(seconds);
            }
        }
        self.rates.retain(|_, rates| rates.iter().any(Option::is_some));
    }

    /// What was not asked for in all the time that it reaches back is of no interest any more.
    pub fn forget(&mut self, mono_ms: u64) {
        if !self.times.is_empty() && mono_ms > self.watched_until_ms.saturating_add(RING_SECONDS as u64 * 1000) {
            (self.times, self.rates) = Default::default();
        }
    }
}

/// The latest answers are kept for who waits for them: more than there are workers.
const ANSWERS_HELD: usize = 16;

/// A one-off wish of `http`, answered by the sampler.
#[derive(Clone, Debug, Default)]
struct Wishes {
    orders: VecDeque<(u64, Order)>,
    orders_asked: u64,
    /// The ticket that says when it is on disk.
    answers: VecDeque<(u64, Result<u64, Refusal>)>,
    /// Tickets handed out and served, for "take a sample now" and "read the counters now".
    collect_asked: u64,
    collect_done: u64,
    read_asked: u64,
    read_done: u64,
}

/// The result of the latest sample that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    pub interfaces: usize,
    pub errors: Vec<String>,
}

pub struct State {
    pub config: Config,
    /// What `config` means.
    pub tuning: Tuning,
    pub zone: Arc<Zone>,
    /// Sorted by name, absent ones with history included.
    pub interfaces: Vec<Iface>,
    /// Name of the interface of the headline figure.
    pub primary: Option<String>,
    pub unmatched: Vec<Unmatched>,
    /// How often the kernel has dropped reports of links, and when it last did, by the monotonic clock.
    pub reports_lost: u64,
    pub reports_lost_ms: u64,
    /// `getstats`, `getlink` or `sysfs`, and why not a better one.
    pub source: &'static str,
    pub source_note: Option<String>,
    /// What cannot be told of the machine, so that a start may have to leave something out.
    pub unknown: Option<&'static str>,
    /// The wall clock can be believed.
    pub clock_believed: bool,
    pub polls: Polls,
    pub database: Database,
    pub saving: Saving,
    pub ring: Ring,
    pub collected: Collected,
    /// Ticks since the batch in `saving_batch`.
    pub batch: Batch,
    /// The batch that the writer is busy with; emptied only after its COMMIT.
    pub saving_batch: Arc<Batch>,
    /// What readers have of `batch`: up to half a megabyte, and those who ask at the same time share it.
    copied: Weak<Batch>,
    pub anchors: Vec<Anchor>,
    pub events: VecDeque<Event>,
    pub records: Vec<Record>,
    pub settings: Vec<(String, Option<String>)>,
    /// For the writer, in this order, after everything that was counted before; with what is told of it when it is done.
    pub edits: Vec<(Edit, Option<Event>)>,
    /// The interfaces of folds that the writer has not done yet.
    pub folding: Vec<IfaceId>,
    /// The highest number of an interface that the writer has taken anything of: what is of higher ones is here and
    /// nowhere else.
    pub taken_id: IfaceId,
    /// Counts changes of `settings` and other wishes to save, and how far they are on disk.
    pub settings_asked: u64,
    pub settings_saved: u64,
    /// Asks the writer to save at once.
    pub save_now: bool,
    pub stopping: bool,
    /// The sampler has ended, with a last sample: nothing more will come.
    pub sampled_out: bool,
    wishes: Wishes,
}

impl State {
    pub fn event(&mut self, event: Event) {
        if self.events.len() == EVENTS_HELD {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// One that is told of late. Those that the writer has in hand lie at the front: not to be called while it saves.
    pub fn earlier_event(&mut self, event: Event) {
        if self.events.len() == EVENTS_HELD {
            self.events.pop_front();
        }
        let at = self.events.partition_point(|known| known.mono_ms <= event.mono_ms);
        self.events.insert(at, event);
    }

    /// After each tick: what waits for the writer stays within its memory. Says whether to save before the time, so that
    /// nothing has to become coarser while the disk is well.
    pub fn bound(&mut self) -> bool {
        let held = compact::bytes(&self.batch, &self.anchors);
        if held > HELD_BYTES {
            compact::compact(&mut self.batch, &mut self.anchors, HELD_BYTES / 2);
            self.saving.compacted = true;
        }
        let placed = self.batch.ticks.first().is_some_and(|tick| tick.unix.is_some());
        let early = held > HELD_BYTES / 4 * 3 && placed && self.saving.error.is_none() && !self.save_now;
        self.save_now |= early;
        early
    }

    pub fn at_risk(&self, mono_ms: u64) -> AtRisk {
        let unsaved = [&*self.saving_batch, &self.batch];
        let oldest = unsaved.iter().find_map(|batch| batch.ticks.first());
        let primary = self.primary.as_deref().and_then(|name| self.interface(name)?.id);
        let mut of_primary = Counters::ZERO;
        let samples = unsaved.iter().flat_map(|batch| &batch.samples);
        samples.filter(|sample| Some(sample.iface) == primary).for_each(|sample| of_primary.add(&sample.delta));
        AtRisk {
            seconds: oldest.map_or(0, |tick| mono_ms.saturating_sub(tick.mono_ms) / 1000),
            samples: unsaved.iter().map(|batch| batch.samples.len()).sum(),
            since: oldest.and_then(|tick| tick.unix),
            of_primary,
        }
    }

    /// A save that hangs tells nothing of itself. To be called now and then: the sentence for the log, once for each
    /// trouble; the event is made of it here.
    fn watch_saving(&mut self, mono_ms: u64) -> Option<String> {
        if self.saving.is_late(mono_ms, self.tuning.flush_s) && self.saving.called_mono_ms.is_none() {
            self.saving.called_mono_ms = Some(mono_ms);
            self.save_now = true;
        }
        let trouble = self.saving.trouble(mono_ms, self.tuning.flush_s)?;
        let stage = match self.saving.error {
            _ if self.saving.compacted => Told::Full,
            // A failure was told of where it came up.
            Some(_) if !self.saving.lost => return None,
            _ => Told::Silence,
        };
        if self.saving.told >= stage {
            return None;
        }
        self.saving.told = stage;
        let consequence = match stage {
            Told::Full => "memory is full: older samples become coarser until saving works",
            _ => "going on in memory",
        };
        let detail = format!("{trouble}; {consequence}{}", self.at_risk(mono_ms));
        self.event(Event {
            unix: None,
            mono_ms,
            kind: EventKind::Storage,
            interface: String::new(),
            detail: detail.clone(),
        });
        Some(detail)
    }

    /// A history was changed on disk: what is still here of it goes the same way.
    pub fn edited(&mut self, edit: &Edit) {
        self.batch.edit(edit, |known, sample| {
            let longest_ms = known.span_ms.max(sample.span_ms);
            compact::absorb(known, sample);
            // Of the same time, not one after the other.
            known.span_ms = longest_ms;
        });
        self.anchors.retain(|anchor| !edit.takes(anchor.iface));
        self.records.retain(|record| !edit.takes(record.id));
        self.folding.retain(|id| !edit.takes(*id));
    }

    /// Changes settings, all of them or none: in force at once.
    pub fn change(&mut self, changes: Changes) -> Result<(), Refused> {
        self.config.change(&changes)?;
        self.tuning = Tuning::of(&self.config);
        for (key, value) in changes {
            self.keep_setting(key, value);
        }
        Ok(())
    }

    /// For the writer.
    pub fn keep_setting(&mut self, key: &str, value: Option<String>) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_string(), value));
    }

    /// Gives the ticket that `settings_saved` reaches when what is here now is on disk.
    fn ask_to_save(&mut self) -> u64 {
        self.settings_asked += 1;
        self.save_now = true;
        self.settings_asked
    }

    /// The samples that no query of the store can have yet, oldest first.
    pub fn unsaved(&mut self) -> [Arc<Batch>; 2] {
        let same = |copy: &Arc<Batch>| copy.ticks == self.batch.ticks && copy.samples == self.batch.samples;
        let copy = self.copied.upgrade().filter(same).unwrap_or_else(|| Arc::new(self.batch.clone()));
        self.copied = Arc::downgrade(&copy);
        [self.saving_batch.clone(), copy]
    }

    /// By its name. An altname serves where no interface, present or absent, has that for its own name.
    pub fn interface(&self, name: &str) -> Option<&Iface> {
        let own = self.interfaces.iter().find(|iface| iface.name == name);
        own.or_else(|| self.interfaces.iter().find(|iface| iface.is_called(name)))
    }
}

pub struct Live {
    state: Mutex<State>,
    /// The sampler has served a wish, or the writer has saved.
    done: Condvar,
    /// The writer has something to do before its time.
    work: Condvar,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    wake_watch: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Live {
    pub fn new(config: Config, zone: Zone) -> Live {
        Live {
            state: Mutex::new(State {
                tuning: Tuning::of(&config),
                config,
                zone: Arc::new(zone),
                interfaces: Vec::new(),
                primary: None,
                unmatched: Vec::new(),
                reports_lost: 0,
                reports_lost_ms: 0,
                source: "",
                source_note: None,
                unknown: None,
                clock_believed: false,
                polls: Polls::default(),
                database: Database::Joined,
                saving: Saving::default(),
                ring: Ring::default(),
                collected: Collected::default(),
                batch: Batch::default(),
                saving_batch: Arc::default(),
                copied: Weak::new(),
                anchors: Vec::new(),
                events: VecDeque::new(),
                records: Vec::new(),
                settings: Vec::new(),
                edits: Vec::new(),
                folding: Vec::new(),
                taken_id: 0,
                settings_asked: 0,
                settings_saved: 0,
                save_now: false,
                stopping: false,
                sampled_out: false,
                wishes: Wishes::default(),
            }),
            done: Condvar::new(),
            work: Condvar::new(),
            wake: OnceLock::new(),
            wake_watch: OnceLock::new(),
        }
    }

    /// How to interrupt the sampler's sleep; set once, while wiring.
    pub fn set_wake(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// How to have `watch_saving` called anew; set once, while wiring.
    pub fn set_wake_watch(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake_watch.set(Box::new(wake));
    }

    /// A panic elsewhere while the lock was held leaves plain numbers behind, at worst one tick old: going on is better
    /// than taking every thread down with it.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// For the end, which waits for nothing.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock().ok()
    }

    pub fn wake_sampler(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// What there is to tell the log of saving.
    pub fn watch_saving(&self, mono_ms: u64) -> Option<String> {
        let mut state = self.lock();
        let told = state.watch_saving(mono_ms);
        let called = state.saving.called_mono_ms == Some(mono_ms);
        drop(state);
        if called {
            self.wake_writer();
        }
        told
    }

    pub fn wake_writer(&self) {
        self.work.notify_all();
    }

    /// Takes a sample now, whatever the interval. `None` when the sampler did not get to it within `patience`.
    pub fn collect(&self, patience: Duration) -> Option<Collected> {
        let ticket = {
            let mut state = self.lock();
            state.wishes.collect_asked += 1;
            state.wishes.collect_asked
        };
        self.wake_sampler();
        self.wait(patience, |state| (state.wishes.collect_done >= ticket).then(|| state.collected.clone()))
    }

    /// Has the counters read now, without a sample. `false` when it did not happen within `patience`: what is there is
    /// at most one interval old.
    pub fn refresh(&self, patience: Duration) -> bool {
        let ticket = {
            let mut state = self.lock();
            state.wishes.read_asked += 1;
            state.wishes.read_asked
        };
        self.wake_sampler();
        self.wait(patience, |state| (state.wishes.read_done >= ticket).then_some(())).is_some()
    }

    /// Changes settings, all of them or none: in force at once, and on disk when this returns `true`; `false` when the
    /// disk was not done within `patience`, in which case the writer goes on trying. `zone`: what a changed time zone
    /// means. `plan`: what is to be changed, as things stand: nobody else changes anything meanwhile.
    pub fn change<E: From<Refused>>(
        &self,
        zone: Option<Zone>,
        patience: Duration,
        plan: impl FnOnce(&State) -> Result<Changes, E>,
    ) -> Result<bool, E> {
        let ticket = {
            let mut state = self.lock();
            let changes = plan(&state)?;
            if changes.is_empty() {
                // No reason to write.
                return Ok(true);
            }
            let flush_s = state.tuning.flush_s;
            state.change(changes)?;
            if state.tuning.flush_s != flush_s {
                self.wake_watch.get().into_iter().for_each(|wake| wake());
            }
            if let Some(zone) = zone {
                state.zone = Arc::new(zone);
            }
            state.ask_to_save()
        };
        self.wake_sampler();
        Ok(self.saved(ticket, patience))
    }

    /// Has everything that can be saved saved now; `false` when that was not done within `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let ticket = self.lock().ask_to_save();
        self.saved(ticket, patience)
    }

    /// Has an interface's identity changed by the sampler; gives the ticket for `saved`. `None` when the sampler did not
    /// get to it within `patience`: it will.
    pub fn order(&self, order: Order, patience: Duration) -> Option<Result<u64, Refusal>> {
        let ticket = {
            let wishes = &mut self.lock().wishes;
            wishes.orders_asked += 1;
            wishes.orders.push_back((wishes.orders_asked, order));
            wishes.orders_asked
        };
        self.wake_sampler();
        let mine = |(known, _): &&(u64, Result<u64, Refusal>)| *known == ticket;
        self.wait(patience, |state| state.wishes.answers.iter().find(mine).map(|(_, answer)| answer.clone()))
    }

    /// For the sampler: what is to be done next.
    pub fn next_order(&self) -> Option<(u64, Order)> {
        self.lock().wishes.orders.pop_front()
    }

    /// For the sampler: what came of it.
    pub fn obeyed(&self, ticket: u64, outcome: Result<(), Refusal>) {
        {
            let mut state = self.lock();
            let answer = outcome.map(|()| state.ask_to_save());
            let answers = &mut state.wishes.answers;
            answers.push_back((ticket, answer));
            if answers.len() > ANSWERS_HELD {
                answers.pop_front();
            }
        }
        self.done.notify_all();
    }

    /// Whether all that a ticket stands for is on disk, waiting for it a while; not for a save that hangs.
    pub fn saved(&self, ticket: u64, patience: Duration) -> bool {
        let told = self.lock().saving.told;
        self.wake_writer();
        let patience = if told > Told::Nothing { Duration::ZERO } else { patience };
        self.wait(patience, |state| (state.settings_saved >= ticket).then_some(())).is_some()
    }

    /// For the sampler: whether a sample or a reading was asked for, with the tickets to hand to `served`.
    pub fn wishes(state: &State) -> (Option<u64>, Option<u64>) {
        let wishes = &state.wishes;
        (
            (wishes.collect_asked > wishes.collect_done).then_some(wishes.collect_asked),
            (wishes.read_asked > wishes.read_done).then_some(wishes.read_asked),
        )
    }

    /// A wish that waits is a reason for the sampler not to sleep.
    pub fn served(&self, collect: Option<u64>, read: Option<u64>) {
        let mut state = self.lock();
        if let Some(ticket) = collect {
            state.wishes.collect_done = ticket;
        }
        if let Some(ticket) = read.or(collect) {
            state.wishes.read_done = state.wishes.read_done.max(ticket.min(state.wishes.read_asked));
        }
        drop(state);
        self.done.notify_all();
    }

    pub fn tell_done(&self) {
        self.done.notify_all();
    }

    /// For the writer: sleeps until there is work or `longest` has passed.
    pub fn wait_for_work(&self, longest: Duration) {
        let state = self.lock();
        if !state.save_now && !state.stopping {
            drop(self.work.wait_timeout(state, longest));
        }
    }

    /// Tells whoever waits for it.
    pub fn set_database(&self, database: Database) {
        self.lock().database = database;
        self.done.notify_all();
        self.wake_sampler();
    }

    /// For the writer: until the sampler has joined its figures to those on disk. `false` if it came to nothing.
    pub fn wait_for_join(&self) -> bool {
        let mut state = self.lock();
        while state.database == Database::Absent {
            state = self.done.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        state.database == Database::Joined
    }

    /// For the writer: until the sampler has ended.
    pub fn wait_for_last_sample(&self) {
        let mut state = self.lock();
        while !state.sampled_out {
            state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn wait<T>(&self, patience: Duration, mut ready: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(answer) = ready(&state) {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.done.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{COUNTERS, Counters, Mark, Sample, Tick};

    /// After a sleep of the machine the thread that saves may look up a minute later.
    #[test]
    fn a_thread_that_is_late_is_called_before_it_is_blamed() {
        let live = live();
        let mut state = live.lock();
        state.saving.succeeded_mono_ms = Some(0);
        state.save_now = false;
        assert_eq!((state.watch_saving(1_019_000), state.save_now), (None, false));
        assert_eq!((state.watch_saving(50_000_000), state.save_now), (None, true));
        assert_eq!(state.saving.trouble(50_009_000, 300), None);
        assert!(state.watch_saving(50_010_000).unwrap().contains("the thread that saves does not run"));
    }

    #[test]
    fn a_trouble_is_told_once_and_its_end_is_not_missed() {
        let live = live();
        let mut state = live.lock();
        state.saving.succeeded_mono_ms = Some(0);
        state.saving.saving_since_mono_ms = Some(300_000);
        tick(&mut state, 1, Some(1000));
        assert_eq!(state.watch_saving(599_999), None);
        let told = state.watch_saving(600_000).unwrap();
        assert!(
            told.starts_with("nothing could be saved for 600 s: the disk does not answer; going on in memory"),
            "{told}"
        );
        assert_eq!((state.watch_saving(700_000), state.events.len()), (None, 1));
        assert_eq!(state.events[0].detail, told);
        state.saving.compacted = true;
        let told = state.watch_saving(800_000).unwrap();
        assert!(told.contains("memory is full: older samples become coarser"), "{told}");
        assert_eq!(state.watch_saving(900_000), None);
        // What fails is told of by the writer.
        state.saving = Saving { error: Some("no room".to_string()), ..Saving::default() };
        assert_eq!(state.watch_saving(900_000), None);
        state.saving.lost = true;
        assert!(state.watch_saving(900_000).unwrap().starts_with("the thread that saves has ended"));
    }

    fn live() -> Live {
        Live::new(Config::default(), Zone::UTC)
    }

    fn tick(state: &mut State, seq: u64, unix: Option<i64>) -> bool {
        for iface in 0..100 {
            state.batch.samples.push(Sample {
                iface,
                mark: Mark::Plain,
                span_ms: 1_000,
                delta: Counters([1; COUNTERS]),
            });
        }
        let end = state.batch.samples.len();
        state.batch.ticks.push(Tick { seq, mono_ms: seq * 1_000, unix, end });
        state.bound()
    }

    #[test]
    fn what_is_not_there_is_told_in_a_sentence_for_each_setting() {
        let typed = [("interfaces", "a".to_string())];
        let flag = Config::new(&typed, |_| None).unwrap();
        let saved = Config::saved(&[("interfaces", "a"), ("primary", "wan")]);
        let check = |config: &Config, asked: &[(&'static str, &str, bool)], expect: &[&str]| {
            let unmatched: Vec<Unmatched> = asked
                .iter()
                .map(|(key, pattern, known)| Unmatched { key, pattern: pattern.to_string(), known: *known })
                .collect();
            assert_eq!(unmatched_sentences(&unmatched, config), expect);
        };
        let of = |pattern, known| ("interfaces", pattern, known);
        check(&flag, &[], &[]);
        let one = "--interface ppp7 matches no interface now: its figures";
        check(&flag, &[of("ppp7", false)], &[&format!("{one} begin when it appears")]);
        check(&flag, &[of("ppp7", true)], &[&format!("{one} go on when it appears")]);
        let one = "--interface nope* matches no interface now: its figures begin when one appears";
        check(&flag, &[of("nope*", false)], &[one]);
        check(
            &saved,
            &[("primary", "wan", false), of("a", true), of("b*", false)],
            &[
                "the interfaces setting a, b* match no interface now: their figures begin when they appear",
                "the primary setting wan matches no interface now: it is the headline once it is there",
            ],
        );
        let many = ["a", "b", "c", "d", "e", "f", "g"].map(|name| of(name, true));
        let all = "--interface a, b, c, d, e and 2 more match no interface now: their figures go on when they appear";
        check(&flag, &many, &[all]);
    }

    #[test]
    fn those_who_ask_at_once_share_one_copy_of_the_unsaved() {
        let live = live();
        let mut state = live.lock();
        tick(&mut state, 1, None);
        let [_, first] = state.unsaved();
        assert!(Arc::ptr_eq(&first, &state.unsaved()[1]));
        // Placed meanwhile: another truth, though nothing was added.
        state.batch.ticks[0].unix = Some(5);
        assert_eq!(state.unsaved()[1].ticks, state.batch.ticks);
        tick(&mut state, 2, Some(6));
        assert_eq!((first.ticks.len(), state.unsaved()[1].ticks.len()), (1, 2));
    }

    /// While the clock waits to be believed nothing of it can be saved, and its history is changed all the same.
    #[test]
    fn what_cannot_be_saved_yet_follows_its_history() {
        let live = live();
        let mut state = live.lock();
        tick(&mut state, 1, None);
        for iface in [3, 4] {
            state.anchors.push(Anchor { seq: 1, iface, raw: Counters::ZERO });
        }
        let name = String::new;
        let record = |id| Record { id, ifindex: id, ..Record::default() };
        state.records.extend([3, 4].map(record));
        state.edited(&Edit::Merge { id: 3, name: name(), into: 4, into_name: name() });
        state.edited(&Edit::Forget { id: 5, name: name() });
        let of = |iface| state.batch.samples.iter().find(|sample| sample.iface == iface);
        assert_eq!((of(3), of(5), of(4).map(|sample| sample.delta)), (None, None, Some(Counters([2; COUNTERS]))));
        assert_eq!(of(4).map(|sample| sample.span_ms), Some(1_000), "at the same time");
        assert_eq!((state.batch.samples.len(), state.batch.ticks[0].end), (98, 98));
        assert_eq!(state.anchors.iter().map(|anchor| anchor.iface).collect::<Vec<_>>(), [4]);
        assert_eq!(state.records.iter().map(|record| record.id).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn saving_is_asked_for_before_anything_becomes_coarser() {
        let live = live();
        let mut state = live.lock();
        let asked = (1..).find(|seq| tick(&mut state, *seq, Some(*seq as i64))).unwrap();
        assert!(state.save_now && !state.saving.compacted);
        assert_eq!(state.batch.ticks.len() as u64, asked);
        // Once is enough, and the writer takes its time.
        assert!((asked + 1..asked + 1_000).all(|seq| !tick(&mut state, seq, Some(seq as i64))));
        assert!(state.saving.compacted);
        assert!(compact::bytes(&state.batch, &state.anchors) <= HELD_BYTES);
        let sum: u64 = state.batch.samples.iter().map(|sample| sample.delta.0[7]).sum();
        assert_eq!(sum, (asked + 999) * 100);
    }

    #[test]
    fn e21_what_waits_for_the_clock_is_bounded_too() {
        let live = live();
        let mut state = live.lock();
        for seq in 1..2_000 {
            assert!(!tick(&mut state, seq, None), "there is nothing to save");
            assert!(compact::bytes(&state.batch, &state.anchors) <= HELD_BYTES);
        }
        let sum: u64 = state.batch.samples.iter().map(|sample| sample.delta.0[0]).sum();
        assert_eq!(sum, 1_999 * 100);
    }
}
