//! History of the traffic, from memory and from the database: the only module that joins the two. [`Snapshot`] is the
//! history at one moment and has the queries. [`History`] runs them on the thread that reads the disk, with a deadline.
//! Queries pass buckets on one by one, so memory does not grow with the range.

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
use crate::store::{Copier, Reader, StoreStats};

pub use buckets::TotalsQuery;
pub use disk::{DiskThread, READ_TIMEOUT};
pub use events::EventFilter;
pub use export::{BucketExport, SampleExport};
pub use names::InterfaceNames;
pub use samples::{Cursor, DatedSample, SampleFilter};
pub use snapshot::{Snapshot, UnsavedBatches};
pub use today::Sums;

pub struct History {
    live: Arc<Live>,
    disk: DiskThread,
    /// Today's sums by interface, and the state that they were computed for.
    today: Arc<Mutex<Option<today::CachedToday>>>,
    /// Database figures of the last successful read.
    stats: Arc<Mutex<StoreStats>>,
}

/// The part of a query that comes from memory.
#[derive(Clone)]
struct Memory {
    unsaved: [Arc<Batch>; 2],
    zone: Arc<Zone>,
    /// The rejoin is done: interface and tick numbers are the same in memory and in the database.
    rejoined: bool,
}

impl Memory {
    fn of(state: &mut State) -> Memory {
        let rejoined = state.health.database == Database::Rejoined;
        Memory { unsaved: state.unsaved.batches_for_readers(), zone: state.zone.clone(), rejoined }
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Snapshot::of_memory(&self.zone, &self.unsaved)
    }

    fn snapshot_with<'a>(&'a self, reader: &'a mut Reader) -> Result<Snapshot<'a>> {
        reader.reopen_if_moved()?;
        Snapshot::of(reader, &self.zone, &self.unsaved)
    }
}

/// Input of one query: memory, interface names and the deadline for the disk. A query reads memory before the database:
/// ticks saved in between are then in both, and `Snapshot` drops the duplicates. In the other order the query could
/// miss them.
pub struct Query {
    memory: Memory,
    pub names: InterfaceNames,
    /// Deadline for all reads from the disk, until `extend_deadline`.
    deadline: Instant,
}

impl Query {
    pub fn zone(&self) -> Arc<Zone> {
        self.memory.zone.clone()
    }

    /// Restarts the timeout. For streamed answers: the client may have read the first part slowly.
    pub fn extend_deadline(&mut self) {
        self.deadline = Instant::now() + READ_TIMEOUT;
    }
}

/// Whether the answer may come from memory alone after this error. `/api/system/health` reports the error itself.
fn can_answer_from_memory(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Io)
}

impl History {
    /// `reader`: `None` while no database can be read.
    pub fn new(live: Arc<Live>, reader: Option<Reader>) -> History {
        History { live, disk: DiskThread::new(reader), today: Arc::default(), stats: Arc::default() }
    }

    /// Replaces the database connection. Waits up to `timeout` for the old one to close; `false` if it did not.
    pub fn set_reader(&self, reader: Option<Reader>, timeout: Duration) -> bool {
        self.disk.set_reader(reader, timeout)
    }

    /// The thread that reads the disk. It also runs other work that may block on the disk.
    pub fn disk(&self) -> &DiskThread {
        &self.disk
    }

    pub fn start_query(&self) -> Query {
        let mut state = self.live.lock();
        Query {
            memory: Memory::of(&mut state),
            names: InterfaceNames::of(&state),
            deadline: Instant::now() + READ_TIMEOUT,
        }
    }

    /// Runs `read` on a snapshot. If the database is damaged or cannot be read, runs it on memory alone. Fails when the
    /// disk does not answer in time: a later request may succeed.
    pub fn read<T: Send + 'static>(
        &self,
        query: &Query,
        read: impl Fn(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_with(query, can_answer_from_memory, read)
    }

    /// Like `read`, but every error of the database is an error: for exports, which must be complete.
    pub fn read_strictly<T: Send + 'static>(
        &self,
        query: &Query,
        read: impl Fn(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_with(query, |_| false, read)
    }

    fn read_with<T: Send + 'static>(
        &self,
        query: &Query,
        falls_back: fn(&Error) -> bool,
        read: impl Fn(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let memory = query.memory.clone();
        if !memory.rejoined {
            return read(&memory.snapshot());
        }
        self.disk.run(query.deadline, move |reader| {
            let Some(reader) = reader else { return read(&memory.snapshot()) };
            match memory.snapshot_with(reader).and_then(|snapshot| read(&snapshot)) {
                Err(error) if falls_back(&error) => {
                    log::debug!("answering from memory: {error}");
                    read(&memory.snapshot())
                }
                result => result,
            }
        })?
    }

    /// Returns the object that makes backups of the database; `None` without a database.
    pub fn copier(&self) -> Result<Option<Copier>> {
        self.disk.run(Instant::now() + READ_TIMEOUT, |reader| {
            let Some(reader) = reader else { return Ok(None) };
            reader.reopen_if_moved()?;
            Ok(Some(reader.copier()))
        })?
    }

    /// Figures of the database, and the error if it could not be read. On a slow disk: the last known figures.
    pub fn stats(&self) -> (StoreStats, Option<Error>) {
        let latest = self.stats.clone();
        let result = self.disk.run_quick(move |reader| {
            let Some(reader) = reader else { return Ok(StoreStats::default()) };
            reader.reopen_if_moved()?;
            let stats = reader.view()?.stats()?;
            *latest.lock().unwrap_or_else(PoisonError::into_inner) = stats;
            Ok(stats)
        });
        match result {
            Ok(Ok(stats)) => (stats, None),
            Ok(Err(error)) => (StoreStats::default(), Some(error)),
            Err(_) => (*self.stats.lock().unwrap_or_else(PoisonError::into_inner), None),
        }
    }
}
