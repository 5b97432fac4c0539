//! History in one SQLite file: the only SQL of the program. It keeps and finds; it decides nothing about interfaces or
//! time, and never names `source`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::clock::Zone;
use crate::error::Result;
use crate::model::{Anchor, Batch, Bucket, Event, IfaceId, Record, Resolution, Sample};

pub struct Options {
    /// The file never grows past this; samples are pruned first, then five-minute cells.
    pub max_bytes: u64,
}

/// The writer's side: one connection, one owner.
pub struct Store {}

/// What an opened database remembers.
pub struct Opened {
    pub store: Store,
    pub records: Vec<Record>,
    pub settings: BTreeMap<String, String>,
    pub next_seq: u64,
    /// UTC seconds of the newest sample.
    pub newest: Option<i64>,
    /// What happened while opening that its user should know (a damaged file set aside, a fall-back journal mode).
    pub events: Vec<Event>,
}

/// Everything one transaction takes. All ticks are placed (`unix` is `Some`).
pub struct Flush<'a> {
    pub batch: &'a Batch,
    pub anchors: &'a [Anchor],
    /// Identities that are new or changed (name, kind, alias, ifindex, boot, first_seen); their `raw` and `lifetime` are
    /// ignored: those follow from `anchors` and the batch.
    pub records: &'a [Record],
    pub events: &'a [Event],
    /// `None` deletes.
    pub settings: &'a [(String, Option<String>)],
    pub zone: &'a Zone,
}

impl Store {
    pub fn open(_path: &Path, _options: &Options) -> Result<Opened> {
        todo!()
    }

    /// One transaction: all of it or nothing. Closes windows, prunes.
    pub fn flush(&mut self, _flush: &Flush) -> Result<()> {
        todo!()
    }

    /// A connection of its own for readers.
    pub fn reader(&self) -> Result<Reader> {
        todo!()
    }
}

/// One sample with its place in history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub seq: u64,
    pub unix: i64,
    pub sample: Sample,
}

impl Point {
    /// Stable and unique, below 2^53.
    pub fn id(&self) -> u64 {
        self.seq << 20 | u64::from(self.sample.iface)
    }
}

/// Which samples.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub iface: Option<IfaceId>,
    /// `[from, to)`
    pub from: Option<i64>,
    pub to: Option<i64>,
}

/// The readers' side. Every query is one short read transaction.
pub struct Reader {}

/// Samples that are in memory only, and perhaps being written at this moment: queries take these for what has the same `seq`.
pub type Unsaved = [Arc<Batch>];

impl Reader {
    /// Newest first, what is unsaved included.
    pub fn newest(&self, _filter: &Filter, _offset: u64, _limit: usize, _unsaved: &Unsaved) -> Result<Vec<Point>> {
        todo!()
    }

    /// Oldest first, at most about `limit` points behind the cursor `after`; `None` as the next cursor at the end.
    /// For exports: each call is a read of its own.
    pub fn oldest(
        &self,
        _filter: &Filter,
        _after: Option<Cursor>,
        _limit: usize,
        _unsaved: &Unsaved,
    ) -> Result<(Vec<Point>, Option<Cursor>)> {
        todo!()
    }

    /// Buckets of one level that overlap `[from, to)`, ascending, only those with something known in them. Of days, those
    /// not yet closed are cut in `zone`. For `Sample`, one bucket a sample, `from` being its start.
    pub fn buckets(
        &self,
        _level: Resolution,
        _iface: IfaceId,
        _from: i64,
        _to: i64,
        _zone: &Zone,
        _unsaved: &Unsaved,
    ) -> Result<Vec<Bucket>> {
        todo!()
    }

    /// Newest first.
    pub fn events(&self, _limit: usize, _offset: u64) -> Result<Vec<Event>> {
        todo!()
    }

    /// The oldest moment that a level has anything of.
    pub fn oldest_of(&self, _level: Resolution) -> Result<Option<i64>> {
        todo!()
    }

    pub fn facts(&self) -> Result<Facts> {
        todo!()
    }
}

/// Where a walk through history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub unix: i64,
    pub seq: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub samples: u64,
    pub settings: u64,
    pub size_bytes: u64,
}
