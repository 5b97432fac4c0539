//! The handlers, by subject. Each takes what it needs out of `live` under the lock, lets go of it, and only then reads
//! the store or writes an answer.

pub mod backup;
pub mod collector;
pub mod config;
pub mod events;
pub mod export;
pub mod interfaces;
pub mod live;
pub mod series;
pub mod system;
pub mod traffic;

use crate::sorted::Map;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{self, PATIENCE};
use super::json::{Counted, Name, Record, Time};
use super::{Context, Fault};
use crate::error::ErrorKind;
use crate::live::{Database, Iface, State};
use crate::model::{Batch, IfaceId, Kind, Resolution};
use crate::store::{Filter, Point, Reader, Unsaved, Unstored};

/// How long a change may take to reach the disk before it is answered without that.
const SAVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long "now" may take before the latest known is good enough.
const READ_PATIENCE: Duration = Duration::from_secs(1);

/// Names of the interfaces that history knows by number.
#[derive(Clone, Debug, Default)]
struct Names(Map<IfaceId, Arc<str>>);

impl Names {
    fn of(state: &State) -> Names {
        let saved = state.records.iter().map(|record| (record.id, record.name.as_str().into()));
        // Until the writer has moved it.
        let others = state.interfaces.iter().find(|iface| iface.kind == Kind::Others);
        let folded = others.iter().flat_map(|others| state.folding.iter().map(|id| (*id, others.name.as_str().into())));
        let seen = state.interfaces.iter().filter_map(|iface| Some((iface.id?, iface.name.as_str().into())));
        Names(saved.chain(folded).chain(seen).collect())
    }

    fn name(&self, id: IfaceId) -> Name {
        // Forgotten while it was being asked for.
        Name(self.0.get(&id).cloned().unwrap_or_else(|| format!("interface-{id}").into()))
    }

    fn id(&self, name: &str) -> Option<IfaceId> {
        self.0.iter().find(|(_, known)| &***known == name).map(|(id, _)| *id)
    }
}

/// What is in memory only, with the names to go with it. Taken before the store is read: what is saved in between is
/// then seen twice, which the store sorts out, and not never.
struct Memory {
    unsaved: [Arc<Batch>; 2],
    names: Names,
    /// Its numbers of interfaces and ticks are those of the store.
    joined: bool,
    /// Of all that is asked of the store until something is written of it.
    deadline: Instant,
}

impl Memory {
    fn of(context: &Context) -> Memory {
        let mut state = context.live.lock();
        let joined = state.database == Database::Joined;
        Memory { unsaved: state.unsaved(), names: Names::of(&state), joined, deadline: Instant::now() + PATIENCE }
    }

    /// As `ask`, for what goes by numbers: the store is not asked for what memory has by other ones.
    fn ask<T: Send + 'static>(
        &self,
        context: &Context,
        query: impl FnOnce(&Reader, &Unsaved) -> crate::error::Result<T> + Send + 'static,
    ) -> Result<Option<T>, Fault> {
        let unsaved = self.unsaved.clone();
        if self.joined { ask(context, self.deadline, move |reader| query(reader, &unsaved)) } else { Ok(None) }
    }

    fn ask_strictly<T: Send + 'static>(
        &self,
        context: &Context,
        query: impl FnOnce(&Reader, &Unsaved) -> crate::error::Result<T> + Send + 'static,
    ) -> Result<Option<T>, Fault> {
        let unsaved = self.unsaved.clone();
        if self.joined { ask_strictly(context, self.deadline, move |reader| query(reader, &unsaved)) } else { Ok(None) }
    }

    /// Where a walk through a level may begin, what is unsaved included; `None` where there is nothing.
    fn beginning(&self, context: &Context, level: Resolution) -> Result<Option<i64>, Fault> {
        match self.ask(context, move |reader, unsaved| reader.next_of(level, 0, unsaved))? {
            Some(beginning) => Ok(beginning),
            None => Ok(Unstored(&self.unsaved).next_of(level, 0)?),
        }
    }

    /// What there is without a database, oldest first.
    fn points(&self, filter: Filter) -> impl DoubleEndedIterator<Item = Point> {
        let ticks = self.unsaved.iter().flat_map(|batch| batch.iter());
        ticks
            .flat_map(|(tick, samples)| {
                samples.iter().filter_map(|sample| Some(Point { seq: tick.seq, unix: tick.unix?, sample: *sample }))
            })
            .filter(move |point| filter.iface.is_none_or(|iface| iface == point.sample.iface))
            .filter(move |point| filter.from.is_none_or(|from| point.unix >= from))
            .filter(move |point| filter.to.is_none_or(|to| point.unix < to))
    }
}

/// Asks the store, if there is one to ask. What the disk will not give (health tells of it) is as good as not there: what
/// is in memory is answered all the same. A disk that does not answer at all may do so later: that is a fault.
fn ask<T: Send + 'static>(
    context: &Context,
    deadline: Instant,
    query: impl FnOnce(&Reader) -> crate::error::Result<T> + Send + 'static,
) -> Result<Option<T>, Fault> {
    match context.disk.ask(deadline, disk::query(query))? {
        Err(error) if matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Io) => {
            log::debug!("answering from memory: {error}");
            Ok(None)
        }
        other => Ok(other?),
    }
}

/// For what must not look whole when it is not.
fn ask_strictly<T: Send + 'static>(
    context: &Context,
    deadline: Instant,
    query: impl FnOnce(&Reader) -> crate::error::Result<T> + Send + 'static,
) -> Result<Option<T>, Fault> {
    Ok(context.disk.ask(deadline, disk::query(query))??)
}

fn record(point: &Point, names: &Names) -> Record {
    Record {
        id: point.id(),
        timestamp: Time(point.unix),
        interface_name: names.name(point.sample.iface),
        counters: Counted(point.sample.delta),
        created_at: Time(point.unix),
        others: Counted(point.sample.delta),
    }
}

fn no_interface(name: &str) -> Fault {
    Fault::new(404, format!("Interface '{name}' not found"))
}

/// By its name or an altname.
fn known<'a>(state: &'a State, name: &str) -> Result<&'a Iface, Fault> {
    state.interface(name).ok_or_else(|| match state.database {
        // What was there once is known only then.
        Database::Joined => no_interface(name),
        _ => not_open(),
    })
}

fn not_open() -> Fault {
    Fault::new(503, "the history is not open yet: see /api/system/health, and try again then")
}

fn link_word(iface: &Iface) -> &'static str {
    if iface.up && iface.present() { "up" } else { "down" }
}

/// Seconds as text, always with a decimal point: `1.0`.
fn seconds(ms: u32) -> String {
    crate::config::decimal(f64::from(ms) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_a_point() {
        let check = |ms, expect| assert_eq!(seconds(ms), expect);
        check(1000, "1.0");
        check(100, "0.1");
        check(1250, "1.25");
        check(300_000, "300.0");
    }
}
