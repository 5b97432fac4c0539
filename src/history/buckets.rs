//! Charts and calendar totals, computed from the buckets of a snapshot. The buckets themselves are not kept: a range
//! may have half a million.

use super::snapshot::Snapshot;
use crate::error::Result;
use crate::model::{Bucket, Cell, IfaceId};
use crate::resolution::{Bucketing, HOUR_S, RESOLUTIONS, Resolution, ResolutionSpec};
use crate::series::{ChartCells, Grid, StoredResolution, choose};
use crate::store::split;
use crate::totals::{HourTotals, Period, PeriodTotal, PeriodTotals};

/// Periods per read. A year of hours is read in pieces of about four days.
const PERIODS_PER_READ: i64 = 100;
/// A clock that was ahead may have left data in the future. Totals read at most a year (366 days) of it.
const MAX_FUTURE_S: i64 = 366 * 86_400;

/// Which totals to return.
#[derive(Clone, Copy, Debug)]
pub struct TotalsQuery {
    pub period: Period,
    /// Range `[from, to)` in UTC seconds; a period that overlaps it counts in full.
    pub from: i64,
    pub to: i64,
    /// Returns at most this many rows, the newest ones.
    pub limit: usize,
    pub now: i64,
}

impl Snapshot<'_> {
    /// Calls `each` with the buckets of one resolution that overlap `[from, to)` and have data. They come in ascending
    /// order, except samples from before and after the clock was set back. Days that are not on disk yet are cut in the
    /// active time zone. For samples, each sample is one bucket that begins where the sample begins.
    pub fn each_bucket(
        &self,
        resolution: Resolution,
        iface: IfaceId,
        (from, to): (i64, i64),
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        // Leaves room for the additions below: no overflow at the ends of i64.
        let range = (from.max(0), to.min(i64::MAX / 4));
        let spec = resolution.spec();
        match spec.bucketing {
            _ if range.0 >= range.1 => Ok(()),
            Bucketing::Ticks => self.each_sample(iface, range, each),
            _ => self.each_cell_bucket(spec, iface, range, each),
        }
    }

    /// The same buckets as a sorted list; only for short ranges.
    pub fn buckets(&self, resolution: Resolution, iface: IfaceId, from: i64, to: i64) -> Result<Vec<Bucket>> {
        let mut buckets = Vec::new();
        self.each_bucket(resolution, iface, (from, to), &mut |bucket| buckets.push(*bucket))?;
        buckets.sort_by_key(|bucket| (bucket.to, bucket.from));
        Ok(buckets)
    }

    /// The columns of a chart of `[from, to)` with at most `points` buckets. `interval_s` is the polling interval.
    pub fn grid(&self, from: i64, to: i64, points: usize, interval_s: i64) -> Result<Grid> {
        let stored_resolution = |spec: &'static ResolutionSpec| {
            let step = if spec.bucketing == Bucketing::Ticks { interval_s } else { spec.step_s };
            Ok(StoredResolution { spec, step, oldest: self.oldest_time(spec.resolution)? })
        };
        let stored: Vec<StoredResolution> = RESOLUTIONS.iter().map(stored_resolution).collect::<Result<_>>()?;
        Ok(choose(from, to, points, self.zone, &stored))
    }

    /// One cell for each bucket of the chart.
    pub fn chart(&self, grid: &Grid, iface: IfaceId) -> Result<Vec<Cell>> {
        let [from, to] = [grid.edges.first(), grid.edges.last()].map(|edge| edge.copied().unwrap_or(0));
        let mut chart_cells = ChartCells::new(grid.resolution, &grid.edges);
        // One second more, because the sample before the range decides where the first one begins.
        self.each_bucket(grid.resolution, iface, (from - 1, to), &mut |bucket| chart_cells.add(bucket))?;
        Ok(chart_cells.cells())
    }

    /// Totals by period, newest first.
    pub fn totals(&self, iface: IfaceId, query: &TotalsQuery) -> Result<Vec<PeriodTotal>> {
        let TotalsQuery { period, from, to, limit, now } = *query;
        let mut rows = Vec::new();
        let to = to.min(now.saturating_add(MAX_FUTURE_S));
        let from = from.max(self.first_start(period)?.unwrap_or(i64::MAX));
        if from >= to {
            return Ok(rows);
        }
        let (start, mut end) = period.cover(from, to, self.zone);
        while rows.len() < limit && start < end {
            let begin = period.step(end - 1, 1 - PERIODS_PER_READ, self.zone).max(start);
            // A bucket across the border is read for both chunks; `totals` counts it in one of them.
            let mut totals = PeriodTotals::new(period, self.zone, now, (begin, end));
            let chunk = if period == Period::Hour {
                let range = (split::floor(begin, HOUR_S), split::ceil(end, HOUR_S));
                let mut hours = HourTotals::new(totals);
                self.each_bucket(Resolution::Hour, iface, range, &mut |bucket| hours.add(bucket))?;
                self.each_bucket(Resolution::FiveMinutes, iface, range, &mut |bucket| hours.add(bucket))?;
                hours.rows()
            } else {
                self.each_bucket(Resolution::Day, iface, (begin, end), &mut |bucket| totals.add(bucket))?;
                totals.rows()
            };
            rows.extend(chunk.into_iter().rev().take(limit - rows.len()));
            end = begin;
        }
        Ok(rows)
    }

    /// A time not later than the first bucket that totals of `period` use.
    fn first_start(&self, period: Period) -> Result<Option<i64>> {
        if period != Period::Hour {
            return self.next_start(Resolution::Day, 0);
        }
        let finer = self.next_start(Resolution::FiveMinutes, 0)?;
        Ok(self.next_start(Resolution::Hour, 0)?.into_iter().chain(finer).min())
    }
}
