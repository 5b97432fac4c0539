//! Export of any length in constant memory. Each piece is read with a snapshot of its own, so a save may happen between
//! two pieces.

use super::History;
use super::names::InterfaceNames;
use super::samples::{Cursor, DatedSample, SampleFilter};
use crate::error::Result;
use crate::model::{Bucket, IfaceId};
use crate::resolution::{FIVE_MINUTES_S, Resolution};

/// Target number of samples per piece; a piece contains whole ticks.
const SAMPLES_PER_PIECE: usize = 500;
/// Most buckets per piece, all interfaces together.
const BUCKETS_PER_PIECE: usize = 900;
/// A clock that was ahead may have left data in the future. The export reads at most a year (366 days) of it.
const MAX_FUTURE_S: i64 = 366 * 86_400;

/// Reads samples piece by piece, oldest first.
pub struct SampleExport {
    /// `None` at the end, and when the interface is unknown.
    filter: Option<SampleFilter>,
    after: Option<Cursor>,
}

impl SampleExport {
    pub fn new(filter: Option<SampleFilter>) -> SampleExport {
        SampleExport { filter, after: None }
    }

    pub fn next(&mut self, history: &History) -> Result<Option<(Vec<DatedSample>, InterfaceNames)>> {
        let Some(filter) = self.filter else { return Ok(None) };
        let query = history.start_query();
        let after = self.after;
        let (points, after) =
            history.read_strictly(&query, move |snapshot| snapshot.oldest(&filter, after, SAMPLES_PER_PIECE))?;
        self.filter = after.and(self.filter);
        self.after = after;
        Ok(Some((points, query.names)))
    }
}

type BucketPiece = (Vec<(IfaceId, Bucket)>, InterfaceNames);

/// Reads the buckets of one resolution piece by piece. A piece is a span of time, for all interfaces.
pub struct BucketExport {
    resolution: Resolution,
    ifaces: Vec<IfaceId>,
    from: i64,
    to: i64,
    /// Start of the next piece.
    position: i64,
    /// The last piece was empty.
    last_was_empty: bool,
}

impl BucketExport {
    /// Exports buckets up to a year after `now`. `filter` is `None` when the interface is unknown.
    pub fn new(
        history: &History,
        resolution: Resolution,
        filter: Option<SampleFilter>,
        now: i64,
    ) -> Result<BucketExport> {
        let query = history.start_query();
        let Some(filter) = filter else {
            return Ok(BucketExport {
                resolution,
                ifaces: Vec::new(),
                from: 0,
                to: 0,
                position: 0,
                last_was_empty: false,
            });
        };
        let ifaces = filter.iface.map_or_else(|| query.names.ids().collect(), |iface| vec![iface]);
        let start = history.read_strictly(&query, move |snapshot| snapshot.next_start(resolution, 0))?;
        let from = filter.from.unwrap_or(i64::MIN).max(start.unwrap_or(i64::MAX));
        let to = filter.to.unwrap_or(i64::MAX).min(now.saturating_add(MAX_FUTURE_S));
        Ok(BucketExport { resolution, ifaces, from, to, position: from, last_was_empty: false })
    }

    /// The next piece, ordered by time, then by interface; `None` at the end.
    pub fn next(&mut self, history: &History) -> Result<Option<BucketPiece>> {
        if self.position >= self.to || self.ifaces.is_empty() {
            return Ok(None);
        }
        let query = history.start_query();
        let (resolution, ifaces, last_was_empty) = (self.resolution, self.ifaces.clone(), self.last_was_empty);
        let (from, to, start) = (self.position, self.to, self.from);
        let cell_s = resolution.spec().step_s.max(FIVE_MINUTES_S);
        let piece_s = (BUCKETS_PER_PIECE / ifaces.len()).max(1) as i64 * cell_s;
        let (mut rows, position) = history.read_strictly(&query, move |snapshot| {
            let mut from = from;
            if last_was_empty {
                // Skip long empty spans: a clock that once stood at 1970 leaves a bucket there and 50 empty years after
                // it.
                let next = snapshot.next_start(resolution, from)?;
                from = next.map_or(to, |next| from.max(next - next.rem_euclid(cell_s)));
            }
            let until = to.min(from.saturating_add(piece_s));
            let mut rows = Vec::new();
            for iface in &ifaces {
                snapshot.each_bucket(resolution, *iface, (from, until), &mut |bucket| {
                    // A bucket that began in the piece before was part of that piece.
                    if bucket.from >= from || from == start {
                        rows.push((*iface, *bucket));
                    }
                })?;
            }
            Ok((rows, until))
        })?;
        self.position = position;
        self.last_was_empty = rows.is_empty();
        rows.sort_unstable_by_key(|(iface, bucket)| (bucket.from, *iface));
        Ok(Some((rows, query.names)))
    }
}
