//! What passed between two moments, memory and disk together: the only place that joins the two. `Snapshot` is one moment,
//! with all that can be asked of it; `History` asks on the thread that reads the disk, and waits for it no longer than it
//! may. What a range is made of is handed on bucket by bucket, so that memory does not grow with it.

mod buckets;
mod cells;
pub mod disk;
mod events;
mod export;
mod names;
mod samples;
mod snapshot;
#[cfg(test)]
mod tests;
mod today;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Zone;
use crate::error::{Error, ErrorKind, Result};
use crate::live::{Database, Live, State};
use crate::model::Batch;
use crate::store::{Copier, Facts, Reader};

pub use buckets::Totals;
pub use disk::{Disk, PATIENCE};
pub use events::EventFilter;
pub use export::{Steps, Walk};
pub use names::Names;
pub use samples::{Cursor, Filter, Point};
pub use snapshot::{Snapshot, Unsaved};
pub use today::Sums;

pub struct History {
    live: Arc<Live>,
    disk: Disk,
    /// What passed today, by interface, and of which tick that was.
    today: Arc<Mutex<Option<today::Today>>>,
    /// What the history held when it could last be read.
    facts: Arc<Mutex<Facts>>,
}

/// What memory has.
#[derive(Clone)]
struct Memory {
    unsaved: [Arc<Batch>; 2],
    zone: Arc<Zone>,
    /// Its numbers of interfaces and ticks are those of the disk.
    joined: bool,
}

impl Memory {
    fn of(state: &mut State) -> Memory {
        let joined = state.health.database == Database::Joined;
        Memory { unsaved: state.unsaved.batches(), zone: state.zone.clone(), joined }
    }

    fn alone(&self) -> Snapshot<'_> {
        Snapshot::of_memory(&self.zone, &self.unsaved)
    }

    fn with<'a>(&'a self, reader: &'a mut Reader) -> Result<Snapshot<'a>> {
        reader.follow()?;
        Snapshot::of(reader, &self.zone, &self.unsaved)
    }
}

/// What memory has, with the names to go with it. Taken before the disk is read: what is saved in between is then seen
/// twice, which `Snapshot` sorts out, and not never.
pub struct Moment {
    memory: Memory,
    pub names: Names,
    /// Of all that is read of the disk until something is written of it.
    deadline: Instant,
}

impl Moment {
    pub fn zone(&self) -> Arc<Zone> {
        self.memory.zone.clone()
    }

    /// A client may have taken its time with what it was sent before.
    pub fn renew(&mut self) {
        self.deadline = Instant::now() + PATIENCE;
    }
}

/// What the disk will not give (health tells of it) is as good as not there: memory is answered all the same.
fn is_passable(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Io)
}

impl History {
    /// `reader`: `None` while there is no database that can be read.
    pub fn new(live: Arc<Live>, reader: Option<Reader>) -> History {
        History { live, disk: Disk::new(reader), today: Arc::default(), facts: Arc::default() }
    }

    /// From now on it is read from here; `false` where the old reader was not closed within `patience`.
    pub fn set_reader(&self, reader: Option<Reader>, patience: Duration) -> bool {
        self.disk.set_reader(reader, patience)
    }

    /// The thread that reads, for whatever else may take as long as the disk likes.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    pub fn moment(&self) -> Moment {
        let mut state = self.live.lock();
        Moment { memory: Memory::of(&mut state), names: Names::of(&state), deadline: Instant::now() + PATIENCE }
    }

    /// What `look` finds. A disk that does not answer at all may do so later: that is an error.
    pub fn read<T: Send + 'static>(
        &self,
        moment: &Moment,
        look: impl Fn(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.look(moment, is_passable, look)
    }

    /// The same for what must not look whole when it is not.
    pub fn read_strictly<T: Send + 'static>(
        &self,
        moment: &Moment,
        look: impl Fn(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.look(moment, |_| false, look)
    }

    fn look<T: Send + 'static>(
        &self,
        moment: &Moment,
        passable: fn(&Error) -> bool,
        look: impl Fn(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let memory = moment.memory.clone();
        if !memory.joined {
            return look(&memory.alone());
        }
        self.disk.ask(moment.deadline, move |reader| {
            let Some(reader) = reader else { return look(&memory.alone()) };
            match memory.with(reader).and_then(|now| look(&now)) {
                Err(error) if passable(&error) => {
                    log::debug!("answering from memory: {error}");
                    look(&memory.alone())
                }
                found => found,
            }
        })?
    }

    /// Makes copies of the whole; `None` where there is no database.
    pub fn copier(&self) -> Result<Option<Copier>> {
        self.disk.ask(Instant::now() + PATIENCE, |reader| {
            let Some(reader) = reader else { return Ok(None) };
            reader.follow()?;
            Ok(Some(reader.copier()))
        })?
    }

    /// How much there is on disk. Of a disk that is slow, the latest figures; with them, why it could not be counted.
    pub fn facts(&self) -> (Facts, Option<Error>) {
        let keep = self.facts.clone();
        let counted = self.disk.glance(move |reader| {
            let Some(reader) = reader else { return Ok(Facts::default()) };
            reader.follow()?;
            let facts = reader.view()?.facts()?;
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = facts;
            Ok(facts)
        });
        match counted {
            Ok(Ok(facts)) => (facts, None),
            Ok(Err(error)) => (Facts::default(), Some(error)),
            Err(_) => (*self.facts.lock().unwrap_or_else(PoisonError::into_inner), None),
        }
    }
}
