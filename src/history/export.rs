//! History of any length, in constant memory: read in short pieces, each of which is a moment of its own. What was unsaved
//! may have been saved between two of them.

use super::History;
use super::names::Names;
use super::samples::{Cursor, Filter, Point};
use crate::error::Result;
use crate::level::{CELL_S, Resolution};
use crate::model::{Bucket, IfaceId};

/// Samples of one piece.
const PIECE: usize = 500;
/// Buckets of one piece, of all interfaces together.
const BUCKETS: usize = 900;
/// What lies in the future was written while the clock was wrong; a year of it is looked at.
const AHEAD_S: i64 = 366 * 86_400;

/// A walk through the samples.
pub struct Walk {
    /// `None` at the end, and for an interface that nothing is known of.
    filter: Option<Filter>,
    after: Option<Cursor>,
}

impl Walk {
    pub fn new(filter: Option<Filter>) -> Walk {
        Walk { filter, after: None }
    }

    pub fn next(&mut self, history: &History) -> Result<Option<(Vec<Point>, Names)>> {
        let Some(filter) = self.filter else { return Ok(None) };
        let moment = history.moment();
        let after = self.after;
        let (points, after) = history.read_strictly(&moment, move |now| now.oldest(&filter, after, PIECE))?;
        self.filter = after.and(self.filter);
        self.after = after;
        Ok(Some((points, moment.names)))
    }
}

type Stretch = (Vec<(IfaceId, Bucket)>, Names);

/// A walk through the buckets of a level: stretches of time, each for all interfaces.
pub struct Steps {
    resolution: Resolution,
    ifaces: Vec<IfaceId>,
    from: i64,
    to: i64,
    at: i64,
    /// The latest stretch had nothing to tell.
    barren: bool,
}

impl Steps {
    /// What there is up to a year from `now`.
    pub fn new(history: &History, resolution: Resolution, filter: Option<Filter>, now: i64) -> Result<Steps> {
        let moment = history.moment();
        let Some(filter) = filter else {
            return Ok(Steps { resolution, ifaces: Vec::new(), from: 0, to: 0, at: 0, barren: false });
        };
        let ifaces = filter.iface.map_or_else(|| moment.names.ids().collect(), |iface| vec![iface]);
        let beginning = history.read_strictly(&moment, move |now| now.next_of(resolution, 0))?;
        let from = filter.from.unwrap_or(i64::MIN).max(beginning.unwrap_or(i64::MAX));
        let to = filter.to.unwrap_or(i64::MAX).min(now.saturating_add(AHEAD_S));
        Ok(Steps { resolution, ifaces, from, to, at: from, barren: false })
    }

    /// Buckets in the order of time, then of interfaces; `None` at the end.
    pub fn next(&mut self, history: &History) -> Result<Option<Stretch>> {
        if self.at >= self.to || self.ifaces.is_empty() {
            return Ok(None);
        }
        let moment = history.moment();
        let (resolution, ifaces, barren) = (self.resolution, self.ifaces.clone(), self.barren);
        let (from, to, beginning) = (self.at, self.to, self.from);
        let length = resolution.level().step_s.max(CELL_S);
        let stride = (BUCKETS / ifaces.len()).max(1) as i64 * length;
        let (mut rows, at) = history.read_strictly(&moment, move |now| {
            let mut from = from;
            if barren {
                // A clock that was in 1970 for an hour has left a row there, and half a century of nothing behind it.
                let next = now.next_of(resolution, from)?;
                from = next.map_or(to, |next| from.max(next - next.rem_euclid(length)));
            }
            let until = to.min(from.saturating_add(stride));
            let mut rows = Vec::new();
            for iface in &ifaces {
                now.each_bucket(resolution, *iface, (from, until), &mut |bucket| {
                    // One that began in the stretch before was told of there.
                    if bucket.from >= from || from == beginning {
                        rows.push((*iface, *bucket));
                    }
                })?;
            }
            Ok((rows, until))
        })?;
        self.at = at;
        self.barren = rows.is_empty();
        rows.sort_unstable_by_key(|(iface, bucket)| (bucket.from, *iface));
        Ok(Some((rows, moment.names)))
    }
}
