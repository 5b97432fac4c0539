//! Stub for operating systems without a backend: everything compiles, and `open` returns an error.

use std::path::Path;

use super::{Choice, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Machine, Stack};

/// Ends a `Source::wait` from another thread. Here nothing waits.
#[derive(Clone)]
pub struct Wake;

impl Wake {
    pub fn new() -> Result<Wake> {
        Ok(Wake)
    }

    pub fn call(&self) {}
}

pub fn open(_choice: Choice) -> Result<(Box<dyn Source>, Option<String>)> {
    Err(Error::new(ErrorKind::Unsupported, "net-pulse cannot read interface counters on this operating system yet"))
}

pub fn stack() -> Stack {
    Stack::default()
}

pub fn written() -> Option<u64> {
    None
}

pub fn machine(_path: &Path) -> Machine {
    Machine::default()
}
