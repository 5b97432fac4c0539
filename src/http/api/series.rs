//! Series for charts and totals by calendar period. `history`, `series` and `totals` compute them.

use std::io;
use std::sync::Arc;

use super::find_interface;
use crate::history::{Query, TotalsQuery};
use crate::http::json::{Date, Out, SeriesColumns, Time, Total, write, write_list};
use crate::http::{Answer, Call, Context, HttpError, JSON};
use crate::live::State;
use crate::model::{Cell, IfaceId, RX_PACKETS, TX_PACKETS};
use crate::resolution::DAY_S;
use crate::series::{Grid, rate_seconds, rates};
use crate::totals::{Period, PeriodTotal};

/// Maximum number of interfaces in one chart: each one is a query of its own.
pub const MAX_INTERFACES: usize = 32;

/// Name and id of a requested interface; no id when it has no stored history.
type Requested = (String, Option<IfaceId>);

fn find(state: &State, name: &str) -> Result<Requested, HttpError> {
    let iface = find_interface(state, name)?;
    Ok((iface.name.clone(), iface.id))
}

pub fn series(context: &Context, call: &Call) -> Result<Answer, HttpError> {
    let to = call.values.integer("to").unwrap_or_else(|| call.unix());
    let from = call.values.integer("from").unwrap_or_else(|| to.saturating_sub(DAY_S));
    let points = call.values.count("points") as usize;

    let (requested, interval_s) = {
        let state = context.live.lock();
        let mut requested: Vec<Requested> = Vec::new();
        for name in call.values.texts("interface") {
            let found = find(&state, name)?;
            if !requested.iter().any(|(known, _)| *known == found.0) {
                requested.push(found);
            }
        }
        if requested.is_empty() {
            requested.extend(state.inventory.primary.as_deref().and_then(|name| find(&state, name).ok()));
        }
        (requested, i64::from(state.active.interval_s))
    };
    // Read the first interface before the answer begins, so that a database error becomes a status and not half an
    // answer. Only one interface's columns are in memory at a time.
    let mut requested = requested.into_iter();
    let first = requested.next();
    let mut query = context.history.start_query();
    let iface = first.as_ref().and_then(|(_, iface)| *iface);
    let (grid, cells) = context.history.read(&query, move |snapshot| {
        let grid = snapshot.grid(from, to, points, interval_s)?;
        let cells = iface.map_or(Ok(grid.empty()), |iface| snapshot.chart(&grid, iface))?;
        Ok((Arc::new(grid), cells))
    })?;
    Ok(Answer::stream(JSON, move |context, out| {
        let starts = grid.edges.split_last().map_or(&[][..], |(_, starts)| starts);
        let [start, end] = [grid.edges.first(), grid.edges.last()].map(|edge| Time(edge.copied().unwrap_or_default()));
        out.write_all(b"{\"from\":")?;
        write(out, &start)?;
        out.write_all(b",\"to\":")?;
        write(out, &end)?;
        write!(out, ",\"step\":{},\"first_day\":", grid.step)?;
        write(out, &grid.first_day.map(Date))?;
        out.write_all(b",\"t\":")?;
        write(out, starts)?;
        out.write_all(b",\"interfaces\":{")?;
        if let Some((name, _)) = first {
            write_member(out, &name, &cells)?;
        }
        for (name, iface) in requested {
            // The client may have read the previous interface slowly.
            query.extend_deadline();
            let cells = read_cells(context, &query, &grid, iface).map_err(io::Error::other)?;
            out.write_all(b",")?;
            write_member(out, &name, &cells)?;
        }
        out.write_all(b"}}")
    }))
}

fn write_member(out: Out, name: &str, cells: &[Cell]) -> io::Result<()> {
    let [mut rx, mut tx, mut rx_peak, mut tx_peak] = [const { Vec::new() }; 4];
    for cell in cells {
        let columns = [&mut rx, &mut tx, &mut rx_peak, &mut tx_peak];
        columns.into_iter().zip(rates(cell)).for_each(|(column, rate)| column.push(rate));
    }
    let columns = SeriesColumns { observed: cells.iter().map(rate_seconds).collect(), rx, tx, rx_peak, tx_peak };
    write(out, name)?;
    out.write_all(b":")?;
    write(out, &columns)
}

fn read_cells(
    context: &Context,
    query: &Query,
    grid: &Arc<Grid>,
    iface: Option<IfaceId>,
) -> Result<Vec<Cell>, HttpError> {
    let Some(iface) = iface else { return Ok(grid.empty()) };
    let grid = grid.clone();
    Ok(context.history.read(query, move |snapshot| snapshot.chart(&grid, iface))?)
}

pub fn totals(context: &Context, call: &Call) -> Result<Answer, HttpError> {
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
    let query = context.history.start_query();
    let (zone, now) = (query.zone(), call.unix());
    let to = call.values.integer("to").unwrap_or(now);
    let from = call.values.integer("from");
    let from = from.unwrap_or_else(|| period.step(to.saturating_sub(1), 1 - limit as i64, &zone));
    // Newest first.
    let rows = match iface {
        Some(iface) => {
            let requested = TotalsQuery { period, from, to, limit, now };
            context.history.read(&query, move |snapshot| snapshot.totals(iface, &requested))?
        }
        None => Vec::new(),
    };
    let row = move |row: &PeriodTotal| {
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
