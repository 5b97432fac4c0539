//! Samples as they were taken, of one moment: newest first, oldest first, and as buckets.

use std::ops::{ControlFlow, Range};

use super::snapshot::{LONGEST_S, Snapshot};
use crate::error::Result;
use crate::level::{CELL_S, Resolution};
use crate::model::{Bucket, IfaceId, Sample};
use crate::store::block::Packed;
use crate::store::rows::{Moment, Samples, count_samples};
use crate::store::{Block, Order, Span, fold};

/// About so many points of a block are unpacked at once: whole blocks of a busy machine are a megabyte of them.
const STRETCH: usize = 1_024;

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

    fn order(&self) -> (i64, u64, IfaceId) {
        (self.unix, self.seq, self.sample.iface)
    }
}

/// Which samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    pub iface: Option<IfaceId>,
    /// `[from, to)`
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl Filter {
    fn from(&self) -> i64 {
        self.from.unwrap_or(0)
    }

    fn to(&self) -> i64 {
        self.to.unwrap_or(i64::MAX)
    }

    pub fn takes(&self, point: &Point) -> bool {
        let wanted = self.iface.is_none_or(|iface| iface == point.sample.iface);
        wanted && point.unix >= self.from() && point.unix < self.to()
    }
}

/// Where a walk through history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub unix: i64,
    pub seq: u64,
}

/// What points are walked for.
trait Take {
    /// The next point of the walk. `false` when there are enough.
    fn take(&mut self, point: Point) -> bool;

    /// `true` where so many points may be left out, unseen.
    fn pass_over(&mut self, count: u64) -> bool;
}

/// Points with the first ones left out.
struct Page {
    skip: u64,
    limit: usize,
    points: Vec<Point>,
}

impl Take for Page {
    fn take(&mut self, point: Point) -> bool {
        match self.skip {
            0 => self.points.push(point),
            _ => self.skip -= 1,
        }
        self.points.len() < self.limit
    }

    fn pass_over(&mut self, count: u64) -> bool {
        let left = self.skip.checked_sub(count);
        self.skip = left.unwrap_or(self.skip);
        left.is_some()
    }
}

/// Points in whole ticks, so that the cursor says where to go on.
struct Piece {
    after: Option<Cursor>,
    limit: usize,
    points: Vec<Point>,
    /// There were more.
    next: Option<Cursor>,
}

impl Take for Piece {
    fn take(&mut self, point: Point) -> bool {
        if self.after.is_some_and(|after| (point.unix, point.seq) <= (after.unix, after.seq)) {
            return true;
        }
        match self.points.last() {
            Some(last) if self.points.len() >= self.limit && (last.unix, last.seq) != (point.unix, point.seq) => {
                self.next = Some(Cursor { unix: last.unix, seq: last.seq });
            }
            _ => self.points.push(point),
        }
        self.next.is_none()
    }

    fn pass_over(&mut self, _count: u64) -> bool {
        false
    }
}

/// A point that is in memory anyway: what is unsaved may be half a megabyte.
struct Pending<'a> {
    unix: i64,
    seq: u64,
    sample: &'a Sample,
}

impl Pending<'_> {
    fn point(&self) -> Point {
        Point { seq: self.seq, unix: self.unix, sample: *self.sample }
    }
}

/// One walk over what is stored and what is not.
struct Walk<'a> {
    filter: &'a Filter,
    order: Order,
    /// What is in memory only, the next one last.
    pending: Vec<Pending<'a>>,
    /// Of the block at hand, to be handed over.
    points: Vec<Point>,
    take: &'a mut dyn Take,
    enough: bool,
}

impl Walk<'_> {
    fn backwards(&self) -> bool {
        self.order == Order::Descending
    }

    /// The next of those in memory, where it is `wanted`.
    fn next_pending(&mut self, wanted: impl Fn(i64) -> bool) -> Option<Point> {
        let next = self.pending.last().filter(|pending| wanted(pending.unix))?.point();
        self.pending.pop();
        Some(next)
    }

    fn hand_over(&mut self) {
        self.points.sort_unstable_by_key(Point::order);
        if self.backwards() {
            self.points.reverse();
        }
        self.enough |= !self.points.drain(..).all(|point| self.take.take(point));
    }

    fn block(&mut self, block: &Block, samples: &mut Samples) -> Result<()> {
        self.points.clear();
        // What lies between the blocks before and this one.
        let (first, last, backwards) = (block.first, block.last, self.backwards());
        while let Some(point) = self.next_pending(|unix| if backwards { unix > last } else { unix < first }) {
            self.points.push(point);
        }
        self.hand_over();
        if self.enough {
            return Ok(());
        }
        let alone = self
            .pending
            .last()
            .is_none_or(|pending| if backwards { pending.unix < first } else { pending.unix > last });
        let whole = alone && first >= self.filter.from() && last < self.filter.to();
        if whole && self.filter.iface.is_none() && self.take.pass_over(block.n) {
            return Ok(());
        }
        let packed = block.packed()?;
        if whole && self.take.pass_over(count_samples(&packed, self.filter.iface)? as u64) {
            return Ok(());
        }
        let moments = samples.open(&packed)?;
        let mut start = moments.partition_point(|moment| moment.unix < self.filter.from());
        let mut end = moments.partition_point(|moment| moment.unix < self.filter.to());
        while start < end && !self.enough {
            let length = stretch(&packed, self.filter);
            let stretch = match backwards {
                true => before(samples.moments(), end, length)..end,
                false => start..behind(samples.moments(), start, length),
            };
            let edges = (samples.moments()[stretch.start].unix, samples.moments()[stretch.end - 1].unix);
            self.unpack(samples, &packed, stretch.clone())?;
            while let Some(point) = self.next_pending(|unix| if backwards { unix >= edges.0 } else { unix <= edges.1 })
            {
                self.points.push(point);
            }
            self.hand_over();
            (start, end) = if backwards { (start, stretch.start) } else { (stretch.end, end) };
        }
        Ok(())
    }

    /// The points of some ticks of the block that was opened.
    fn unpack(&mut self, samples: &mut Samples, packed: &Packed, rows: Range<usize>) -> Result<()> {
        samples.some(packed, self.filter.iface, rows, &mut |moment, sample| {
            let point = Point { seq: moment.seq, unix: moment.unix, sample: *sample };
            if self.filter.takes(&point) {
                self.points.push(point);
            }
        })
    }
}

/// How many ticks make a stretch.
fn stretch(packed: &Packed, filter: &Filter) -> usize {
    let groups = if filter.iface.is_some() { 1 } else { packed.groups().count() };
    (STRETCH / groups.max(1)).max(1)
}

/// Where the stretch begins that ends before `end`. Ticks of one second stay together, for what is unsaved may lie
/// among them.
fn before(moments: &[Moment], end: usize, length: usize) -> usize {
    let mut start = end.saturating_sub(length);
    while start > 0 && moments[start - 1].unix == moments[start].unix {
        start -= 1;
    }
    start
}

/// The end of the stretch from `start` on.
fn behind(moments: &[Moment], start: usize, length: usize) -> usize {
    let mut end = (start + length).min(moments.len());
    while end < moments.len() && moments[end].unix == moments[end - 1].unix {
        end += 1;
    }
    end
}

impl Snapshot<'_> {
    /// Newest first.
    pub fn newest(&self, filter: &Filter, offset: u64, limit: usize) -> Result<Vec<Point>> {
        let mut page = Page { skip: offset, limit, points: Vec::new() };
        self.walk(filter, Order::Descending, &mut page)?;
        Ok(page.points)
    }

    /// Oldest first, at most about `limit` points behind the cursor `after`; `None` as the next cursor at the end.
    pub fn oldest(&self, filter: &Filter, after: Option<Cursor>, limit: usize) -> Result<(Vec<Point>, Option<Cursor>)> {
        let from = after.map_or(filter.from(), |after| after.unix.max(filter.from()));
        let mut piece = Piece { after, limit, points: Vec::new(), next: None };
        self.walk(&Filter { from: Some(from), ..*filter }, Order::Ascending, &mut piece)?;
        Ok((piece.points, piece.next))
    }

    fn walk(&self, filter: &Filter, order: Order, take: &mut dyn Take) -> Result<()> {
        let mut pending = Vec::new();
        self.each_unsaved(&mut |seq, unix, sample| {
            let one = Pending { unix, seq, sample };
            pending.extend(filter.takes(&one.point()).then_some(one));
        });
        pending.sort_unstable_by_key(|pending| (pending.unix, pending.seq, pending.sample.iface));
        if order == Order::Ascending {
            pending.reverse();
        }
        let mut walk = Walk { filter, order, pending, points: Vec::new(), take, enough: false };
        if let Some(stored) = &self.stored {
            stored.each_block(Span::of(filter.from(), filter.to()), order, &mut |block, samples| {
                walk.block(block, samples)?;
                Ok(if walk.enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        while !walk.enough {
            let Some(point) = walk.next_pending(|_| true) else { break };
            walk.enough = !walk.take.take(point);
        }
        Ok(())
    }

    /// Samples as buckets, in order but for a clock that was set back.
    pub(super) fn each_sample(
        &self,
        iface: IfaceId,
        (from, to): (i64, i64),
        each: &mut dyn FnMut(&Bucket),
    ) -> Result<()> {
        // One that ends after the range is the last that begins in it: the next one begins there.
        let mut past_end = false;
        let mut add = |unix: i64, sample: &Sample| {
            let (start, end) = fold::range(unix, sample);
            past_end |= end >= to;
            if start < to && end > from {
                each(&Bucket::new(start, end, &fold::whole(sample)));
            }
            past_end
        };
        // So far beyond the end one may end that began inside.
        let near = to + LONGEST_S;
        if !self.each_stored_sample(iface, Span::of(from + 1, near + 1), &mut add)? {
            // A gap is as long as it likes. Without one, the interface was not there any more.
            let cell = fold::floor(to, CELL_S);
            let mut goes_on = false;
            let level = Resolution::FiveMinutes.level();
            self.each_cell_bucket(level, iface, (cell, cell + CELL_S), &mut |_| goes_on = true)?;
            if goes_on {
                self.each_stored_sample(iface, Span::beginning(near, i64::MAX, from + 1), &mut add)?;
            }
        }
        self.each_unsaved(&mut |_, unix, sample| {
            if sample.iface == iface {
                add(unix, sample);
            }
        });
        Ok(())
    }

    /// The stored samples of one interface, block by block, until `add` says that it has enough. Says whether it did.
    fn each_stored_sample(
        &self,
        iface: IfaceId,
        span: Span,
        add: &mut dyn FnMut(i64, &Sample) -> bool,
    ) -> Result<bool> {
        let Some(stored) = &self.stored else { return Ok(false) };
        let mut enough = false;
        stored.each_block(span, Order::Ascending, &mut |block, samples| {
            let packed = block.packed()?;
            samples.open(&packed)?;
            samples.some(&packed, Some(iface), 0..packed.rows, &mut |moment, sample| {
                enough = add(moment.unix, sample);
            })?;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(enough)
    }
}
