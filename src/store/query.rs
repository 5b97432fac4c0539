//! What readers find on disk: the SQL of one read transaction. Each is short, so that a slow client never keeps the
//! write-ahead log from being taken in. What is in memory is added by `history`.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, Row, Transaction};

use super::levels::{self, Borders, Stored};
use super::samples::{self, EachBlock, Order, Span};
use super::site::{self, Site};
use super::state::State;
use super::{Copier, open};
use crate::clock::Zone;
use crate::error::Result;
use crate::level::{Cut, Level};
use crate::model::{Cell, Event, EventKind, IfaceId};

/// A connection of its own for readers.
pub struct Reader {
    pub(super) conn: Connection,
    /// After the connection: it goes last.
    pub(super) site: Arc<Site>,
    pub(super) current: Arc<Mutex<Arc<Site>>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub samples: u64,
    pub settings: u64,
    pub size_bytes: u64,
}

impl Reader {
    /// To where the database is now; before each query, and after it is known what is unsaved.
    pub fn follow(&mut self) -> Result<()> {
        let site = site::current(&self.current);
        site.is_sound()?;
        if !Arc::ptr_eq(&site, &self.site) {
            *self = open::reader(&site, &self.current)?;
        }
        Ok(())
    }

    /// One moment of the history.
    pub fn view(&self) -> Result<View<'_>> {
        let tx = self.conn.unchecked_transaction()?;
        let marks = State::marks(&tx)?;
        Ok(View { tx, marks })
    }

    pub fn copier(&self) -> Copier {
        Copier { current: self.current.clone() }
    }
}

pub struct View<'a> {
    tx: Transaction<'a>,
    marks: State,
}

impl View<'_> {
    /// The window whose samples are in no coarser level yet, from tick number `since` on.
    pub fn window(&self) -> Option<i64> {
        self.marks.window
    }

    pub fn since(&self) -> u64 {
        self.marks.since
    }

    /// The number of the newest tick: what is unsaved begins behind it.
    pub fn newest_seq(&self) -> Result<u64> {
        let Some(window) = self.marks.window else { return Ok(0) };
        let mut newest = self.marks.since.saturating_sub(1);
        self.each_block(Span::window(window), Order::Ascending, &mut |block, _| {
            newest = newest.max(block.seq);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(newest)
    }

    /// The time of the newest tick.
    fn newest_time(&self) -> Result<Option<i64>> {
        let Some(window) = self.marks.window else { return Ok(None) };
        let mut newest = (0, None);
        self.each_block(Span::window(window), Order::Ascending, &mut |block, samples| {
            let moments = samples.open(&block.packed()?)?;
            if block.seq > newest.0 {
                newest = (block.seq, moments.iter().max_by_key(|moment| moment.seq).map(|moment| moment.unix));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(newest.1)
    }

    pub fn each_block(&self, span: Span, order: Order, each: EachBlock) -> Result<()> {
        samples::each_block(&self.tx, span, order, each)
    }

    /// The blocks of a coarser level that overlap a range, ascending.
    pub fn each_stored(&self, level: &Level, range: (i64, i64), each: &mut dyn FnMut(&Stored)) -> Result<()> {
        levels::each_stored(&self.tx, level, range, each)
    }

    /// The five-minute cells that start in a range.
    pub fn each_cell(
        &self,
        only: Option<IfaceId>,
        range: (i64, i64),
        each: &mut dyn FnMut(IfaceId, i64, &Cell),
    ) -> Result<()> {
        levels::each_cell(&self.tx, only, range, each)
    }

    /// Where the blocks of a level lie around some time.
    pub fn borders(&self, level: &'static Level, (from, to): (i64, i64)) -> Result<Borders> {
        Borders::load(Some(&self.tx), level, from, to)
    }

    /// The local block that is to be cut again: the zone was changed a moment ago, the writer will do so with its next flush,
    /// and readers do so now.
    pub fn cut_otherwise(&self, level: &Level, zone: &Zone) -> Result<Option<(i64, i64)>> {
        if level.cut != Cut::Local || self.marks.zone.as_deref() == Some(zone.name()) {
            return Ok(None);
        }
        levels::open_block(&self.tx, level, self.newest_time()?)
    }

    /// The start of the first block of a coarser level that ends after `from`.
    pub fn first_after(&self, level: &Level, from: i64) -> Result<Option<i64>> {
        levels::first_after(&self.tx, level, from)
    }

    /// The start of the oldest cell of a coarser level.
    pub fn oldest(&self, level: &Level) -> Result<Option<i64>> {
        levels::oldest(&self.tx, level)
    }

    /// There are a thousand at the most: they are looked at one by one, newest first, until `each` says that it has enough.
    pub fn each_event(&self, each: &mut dyn FnMut(Event) -> ControlFlow<()>) -> Result<()> {
        let mut statement =
            self.tx.prepare_cached("SELECT unix, kind, interface, detail FROM event ORDER BY id DESC")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if each(event(row)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub fn facts(&self) -> Result<Facts> {
        let one = |sql: &str| -> Result<u64> { Ok(self.tx.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64) };
        Ok(Facts {
            samples: one("SELECT coalesce(sum(n), 0) FROM sample")?,
            settings: one("SELECT count(*) FROM setting")?,
            size_bytes: one("PRAGMA page_count")? * one("PRAGMA page_size")?,
        })
    }
}

fn event(row: &Row) -> Result<Event> {
    let name: String = row.get(1)?;
    let kind = EventKind::NAMES.iter().find(|(_, known)| *known == name);
    Ok(Event {
        unix: row.get(0)?,
        // The file does not know the monotonic clock.
        mono_ms: 0,
        kind: kind.map_or(EventKind::Storage, |(kind, _)| *kind),
        interface: row.get(2)?,
        detail: row.get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use crate::model::Batch;
    use crate::store::Store;
    use crate::store::testing::{OPTIONS, Place, T};

    #[test]
    fn facts_count_what_is_stored() {
        let place = Place::new();
        let mut opened = Store::open(&place.file(), &OPTIONS).unwrap();
        opened.save(&Batch::steady(1, T + 30, 30)).unwrap();
        let facts = opened.store.reader().unwrap().view().unwrap().facts().unwrap();
        assert_eq!((facts.samples, facts.settings), (30, 0));
        assert!(facts.size_bytes > 0 && facts.size_bytes % 4_096 == 0);
    }
}
