//! Stub for operating systems without a backend: everything compiles, and `open` returns an error.

use std::path::Path;

use super::{Source, SourceChoice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Machine, NetworkStack};

/// Ends a `Source::wait` from another thread. Here nothing waits.
#[derive(Clone)]
pub struct Wake;

impl Wake {
    pub fn new() -> Result<Wake> {
        Ok(Wake)
    }

    pub fn call(&self) {}
}

pub fn open(_choice: SourceChoice) -> Result<(Box<dyn Source>, Option<String>)> {
    Err(Error::new(ErrorKind::Unsupported, "net-pulse cannot read interface counters on this operating system yet"))
}

pub fn stack() -> NetworkStack {
    NetworkStack::default()
}

pub fn bytes_written() -> Option<u64> {
    None
}

pub fn machine(_path: &Path) -> Machine {
    Machine::default()
}
