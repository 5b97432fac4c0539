//! Columns for charts and rows for people. What goes into a bucket is decided in `series` and `totals`.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Memory, known};
use crate::clock::Zone;
use crate::http::disk::PATIENCE;
use crate::http::json::{Date, Out, SeriesColumns, Time, Total, write, write_list};
use crate::http::{Answer, Call, Context, Fault, JSON};
use crate::live::State;
use crate::model::{Bucket, IfaceId, RX_PACKETS, Resolution, TX_PACKETS};
use crate::series::{Columns, Filling, Grid, Level, choose, columns};
use crate::store::Unstored;
use crate::totals::{Hours, Period, Row, Rows};

/// No more in one chart: each is a query of its own, and the one that asks is not the only one.
pub const INTERFACES: usize = 32;
const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// A clock that was wrong may have left something in the future, but nobody walks through all of it.
const AHEAD_S: i64 = 366 * DAY_S;
/// Periods that are read at once: a year of hours lies in pieces of four days.
const STRIDE: i64 = 100;

/// An interface as it was asked for; without a number, nothing was ever stored of it.
type Asked = (String, Option<IfaceId>);

fn find(state: &State, name: &str) -> Result<Asked, Fault> {
    let iface = known(state, name)?;
    Ok((iface.name.clone(), iface.id))
}

/// A level, and from when to when it is read.
type Range = (Resolution, i64, i64);
/// Hands over the buckets of all ranges, one by one.
type Each<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&Bucket)) -> crate::error::Result<()>;

/// What a query of buckets needs besides the range.
struct Past {
    memory: Memory,
    zone: Arc<Zone>,
}

impl Past {
    fn of(context: &Context) -> Past {
        let zone = context.live.lock().zone.clone();
        Past { memory: Memory::of(context), zone }
    }

    /// What `make` makes of the buckets of these ranges. It is called a second time if the first was cut short.
    fn read<T: Send + 'static>(
        &self,
        context: &Context,
        iface: Option<IfaceId>,
        ranges: Vec<Range>,
        make: impl Fn(Each) -> crate::error::Result<T> + Clone + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(iface) = iface else { return Ok(make(&mut |_| Ok(()))?) };
        let stored = self.memory.ask(context, {
            let (ranges, zone, make) = (ranges.clone(), self.zone.clone(), make.clone());
            move |reader, unsaved| {
                make(&mut |add| {
                    let mut ranges = ranges.iter().filter(|(_, from, to)| from < to);
                    ranges.try_for_each(|(level, from, to)| {
                        reader.each_bucket(*level, iface, (*from, *to), &zone, unsaved, add)
                    })
                })
            }
        })?;
        if let Some(made) = stored {
            return Ok(made);
        }
        let made = make(&mut |add| {
            let mut ranges = ranges.iter().filter(|(_, from, to)| from < to);
            ranges.try_for_each(|(level, from, to)| {
                Unstored(&self.memory.unsaved).each_bucket(*level, iface, (*from, *to), &self.zone, add)
            })
        });
        Ok(made?)
    }

    /// Not after the first bucket that the rows of a period are made of.
    fn beginning(&self, context: &Context, period: Period) -> Result<Option<i64>, Fault> {
        if period != Period::Hour {
            return self.memory.beginning(context, Resolution::Day);
        }
        let hours = self.memory.beginning(context, Resolution::Hour)?;
        Ok(hours.into_iter().chain(self.memory.beginning(context, Resolution::FiveMinutes)?).min())
    }
}

pub fn series(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let to = call.values.integer("to").unwrap_or_else(|| call.unix());
    let from = call.values.integer("from").unwrap_or_else(|| to.saturating_sub(DAY_S));
    let points = call.values.count("points") as usize;

    let (asked, interval_s) = {
        let state = context.live.lock();
        let mut asked: Vec<Asked> = Vec::new();
        for name in call.values.texts("interface") {
            let found = find(&state, name)?;
            if !asked.iter().any(|(known, _)| *known == found.0) {
                asked.push(found);
            }
        }
        if asked.is_empty() {
            asked.extend(state.inventory.primary.as_deref().and_then(|name| find(&state, name).ok()));
        }
        (asked, i64::from(state.tuning.interval_s))
    };
    let mut past = Past::of(context);
    let mut levels = Vec::new();
    for (resolution, step) in [
        (Resolution::Sample, interval_s),
        (Resolution::FiveMinutes, 300),
        (Resolution::Hour, 3600),
        (Resolution::Day, DAY_S),
    ] {
        let oldest = past.memory.ask(context, move |reader, _| reader.oldest_of(resolution))?.flatten();
        levels.push(Level { resolution, step, oldest });
    }
    let grid = Arc::new(choose(from, to, points, &past.zone, &levels));

    // The first interface is read here: a history that cannot be read is a status, not half an answer. There are no
    // more than one interface's columns in memory at a time.
    let mut asked = asked.into_iter();
    let first = match asked.next() {
        Some((name, iface)) => Some((name, column(context, &past, &grid, iface)?)),
        None => None,
    };
    Ok(Answer::stream(JSON, move |context, out| {
        let starts = grid.edges.split_last().map_or(&[][..], |(_, starts)| starts);
        let [begin, end] = [grid.edges.first(), grid.edges.last()].map(|edge| Time(edge.copied().unwrap_or_default()));
        out.write_all(b"{\"from\":")?;
        write(out, &begin)?;
        out.write_all(b",\"to\":")?;
        write(out, &end)?;
        write!(out, ",\"step\":{},\"first_day\":", grid.step)?;
        write(out, &grid.first_day.map(Date))?;
        out.write_all(b",\"t\":")?;
        write(out, starts)?;
        out.write_all(b",\"interfaces\":{")?;
        if let Some((name, columns)) = first {
            member(out, &name, &columns)?;
        }
        for (name, iface) in asked {
            // The client may have taken its time with the one before.
            past.memory.deadline = Instant::now() + PATIENCE;
            let columns = column(context, &past, &grid, iface).map_err(io::Error::other)?;
            out.write_all(b",")?;
            member(out, &name, &columns)?;
        }
        out.write_all(b"}}")
    }))
}

fn member(out: Out, name: &str, columns: &SeriesColumns) -> io::Result<()> {
    write(out, name)?;
    out.write_all(b":")?;
    write(out, columns)
}

fn column(context: &Context, past: &Past, grid: &Arc<Grid>, iface: Option<IfaceId>) -> Result<SeriesColumns, Fault> {
    let range = (grid.edges.first().copied().unwrap_or(0), grid.edges.last().copied().unwrap_or(0));
    let grid = grid.clone();
    // The second before tells how the first sample lies to its neighbour.
    let columns = past.read(context, iface, vec![(grid.level, range.0 - 1, range.1)], move |each| {
        let mut filling = Filling::new(grid.level, &grid.edges);
        each(&mut |bucket| filling.add(bucket))?;
        Ok(columns(&filling.cells()))
    })?;
    let Columns { observed, rx, tx, rx_peak, tx_peak } = columns;
    Ok(SeriesColumns { observed, rx, tx, rx_peak, tx_peak })
}

pub fn totals(context: &Context, call: &Call) -> Result<Answer, Fault> {
    let word = call.values.text("by").unwrap_or_default();
    let period = Period::NAMES.iter().find(|(_, name)| *name == word).map_or(Period::Day, |(period, _)| *period);
    let limit = call.values.count("limit") as usize;
    let iface = {
        let state = context.live.lock();
        match call.values.text("interface") {
            Some(name) => find(&state, name)?.1,
            None => state.inventory.primary.as_deref().and_then(|name| find(&state, name).ok()).and_then(|(_, id)| id),
        }
    };
    let past = Past::of(context);
    let to = call.values.integer("to").unwrap_or_else(|| call.unix());
    let back = |from: i64, count: i64| period.step(from, -count, &past.zone);
    // The last moment that counts is just before `to`.
    let from = call.values.integer("from").unwrap_or_else(|| back(to.saturating_sub(1), limit as i64 - 1));

    // Newest first.
    let mut rows = Vec::new();
    let to = to.min(call.unix().saturating_add(AHEAD_S));
    let from = from.max(past.beginning(context, period)?.unwrap_or(i64::MAX));
    if from < to {
        let (start, mut end) = period.cover(from, to, &past.zone);
        while rows.len() < limit && start < end {
            let begin = back(end - 1, STRIDE - 1).max(start);
            // What reaches over the border is read from both sides, and counted on one.
            let (zone, now, wanted) = (past.zone.clone(), call.unix(), (begin, end));
            let older = if period == Period::Hour {
                let (begin, end) = (begin - begin.rem_euclid(HOUR_S), end + (-end).rem_euclid(HOUR_S));
                let ranges = vec![(Resolution::Hour, begin, end), (Resolution::FiveMinutes, begin, end)];
                past.read(context, iface, ranges, move |each| {
                    let mut hours = Hours::new(Rows::new(period, &zone, now, wanted));
                    each(&mut |bucket| hours.add(bucket))?;
                    Ok(hours.rows())
                })?
            } else {
                past.read(context, iface, vec![(Resolution::Day, begin, end)], move |each| {
                    let mut rows = Rows::new(period, &zone, now, wanted);
                    each(&mut |bucket| rows.add(bucket))?;
                    Ok(rows.rows())
                })?
            };
            rows.extend(older.into_iter().rev().take(limit - rows.len()));
            end = begin;
        }
    }
    let zone = past.zone;
    let row = move |row: &Row| {
        let (first_day, last_day) = row.days(&zone);
        Total {
            from: Time(row.from),
            to: Time(row.to),
            first_day: Date(first_day),
            last_day: Date(last_day),
            rx_bytes: row.sum.rx_bytes(),
            tx_bytes: row.sum.tx_bytes(),
            rx_packets: row.sum.0[RX_PACKETS],
            tx_packets: row.sum.0[TX_PACKETS],
            observed: row.observed.unsigned_abs(),
            complete: row.complete,
        }
    };
    Ok(Answer::stream(JSON, move |_, out| write_list(out, rows.iter().rev().map(&row))))
}
