//! What is made of the buckets of one moment: the columns of a chart, and sums by calendar periods. Nothing is kept of the
//! buckets themselves: a range may have half a million.

use super::snapshot::Snapshot;
use crate::error::Result;
use crate::level::{Cut, HOUR_S, LEVELS, Level, Resolution};
use crate::model::{Bucket, Cell, IfaceId};
use crate::series::{Filling, Grid, Reach, choose};
use crate::store::fold;
use crate::totals::{Hours, Period, Row, Rows};

/// Periods that are read at once: a year of hours lies in pieces of four days.
const STRIDE: i64 = 100;
/// A clock that was wrong may have left something in the future, but all of that is not walked through.
const AHEAD_S: i64 = 366 * 86_400;

/// Which sums.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    pub period: Period,
    /// The last moment that counts is just before `to`.
    pub from: i64,
    pub to: i64,
    /// The newest so many.
    pub limit: usize,
    pub now: i64,
}

impl Snapshot<'_> {
    /// Buckets of one level that overlap `[from, to)`, only those with something known in them, ascending but for samples
    /// from before and after a clock was set back. Of days, those not yet closed are cut in the zone. Of samples, one
    /// bucket each, from the sample's start on.
    pub fn each_bucket(
        &self,
        resolution: Resolution,
        iface: IfaceId,
        (from, to): (i64, i64),
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        // Far enough from the ends of i64 for everything that is added below.
        let range = (from.max(0), to.min(i64::MAX / 4));
        let level = resolution.level();
        match level.cut {
            _ if range.0 >= range.1 => Ok(()),
            Cut::Ticks => self.each_sample(iface, range, each),
            _ => self.each_cell_bucket(level, iface, range, each),
        }
    }

    /// The same, all of them and in order: for ranges that are known to be short.
    pub fn buckets(&self, resolution: Resolution, iface: IfaceId, from: i64, to: i64) -> Result<Vec<Bucket>> {
        let mut buckets = Vec::new();
        self.each_bucket(resolution, iface, (from, to), &mut |bucket| buckets.push(*bucket))?;
        buckets.sort_by_key(|bucket| (bucket.to, bucket.from));
        Ok(buckets)
    }

    /// A chart of `[from, to)` in at most so many points; samples are `interval_s` apart.
    pub fn grid(&self, from: i64, to: i64, points: usize, interval_s: i64) -> Result<Grid> {
        let reach = |level: &'static Level| {
            let step = if level.cut == Cut::Ticks { interval_s } else { level.step_s };
            Ok(Reach { level, step, oldest: self.oldest_of(level.resolution)? })
        };
        let reaches: Vec<Reach> = LEVELS.iter().map(reach).collect::<Result<_>>()?;
        Ok(choose(from, to, points, self.zone, &reaches))
    }

    /// What lies between each two edges of a chart.
    pub fn chart(&self, grid: &Grid, iface: IfaceId) -> Result<Vec<Cell>> {
        let [from, to] = [grid.edges.first(), grid.edges.last()].map(|edge| edge.copied().unwrap_or(0));
        let mut filling = Filling::new(grid.level, &grid.edges);
        // The second before tells how the first sample lies to its neighbour.
        self.each_bucket(grid.level, iface, (from - 1, to), &mut |bucket| filling.add(bucket))?;
        Ok(filling.cells())
    }

    /// Newest first.
    pub fn totals(&self, iface: IfaceId, asked: &Totals) -> Result<Vec<Row>> {
        let Totals { period, from, to, limit, now } = *asked;
        let mut rows = Vec::new();
        let to = to.min(now.saturating_add(AHEAD_S));
        let from = from.max(self.beginning(period)?.unwrap_or(i64::MAX));
        if from >= to {
            return Ok(rows);
        }
        let (start, mut end) = period.cover(from, to, self.zone);
        while rows.len() < limit && start < end {
            let begin = period.step(end - 1, 1 - STRIDE, self.zone).max(start);
            // What reaches over the border is read from both sides, and counted on one.
            let mut sums = Rows::new(period, self.zone, now, (begin, end));
            let older = if period == Period::Hour {
                let range = (fold::floor(begin, HOUR_S), fold::ceil(end, HOUR_S));
                let mut hours = Hours::new(sums);
                self.each_bucket(Resolution::Hour, iface, range, &mut |bucket| hours.add(bucket))?;
                self.each_bucket(Resolution::FiveMinutes, iface, range, &mut |bucket| hours.add(bucket))?;
                hours.rows()
            } else {
                self.each_bucket(Resolution::Day, iface, (begin, end), &mut |bucket| sums.add(bucket))?;
                sums.rows()
            };
            rows.extend(older.into_iter().rev().take(limit - rows.len()));
            end = begin;
        }
        Ok(rows)
    }

    /// Not after the first bucket that the sums of a period are made of.
    fn beginning(&self, period: Period) -> Result<Option<i64>> {
        if period != Period::Hour {
            return self.next_of(Resolution::Day, 0);
        }
        let finer = self.next_of(Resolution::FiveMinutes, 0)?;
        Ok(self.next_of(Resolution::Hour, 0)?.into_iter().chain(finer).min())
    }
}
