//! Times as text.
use super::Zone;
use crate::error::Result;

/// `2026-01-15T10:30:00Z`
pub fn rfc3339(_unix: i64) -> String {
    todo!()
}

/// RFC 3339 with `Z` or an offset, a local date-time without one (read in `zone`), a bare date, or integer Unix seconds.
pub fn parse_time(_text: &str, _zone: &Zone) -> Result<i64> {
    todo!()
}
