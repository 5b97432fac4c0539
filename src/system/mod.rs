//! What several modules need of the operating system, in one place for each thing.

pub mod closed;
pub mod errno;
pub mod lock;
pub mod peer;
pub mod room;
pub mod socket;
