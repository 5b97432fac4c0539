//! Systems without a backend yet: everything compiles, and `open` says so.

use std::path::Path;

use super::{Choice, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Machine, Stack};

/// Ends a `Source::wait` from another thread; without a source there is none.
#[derive(Clone)]
pub struct Wake;

impl Wake {
    pub fn new() -> Result<Wake> {
        Ok(Wake)
    }

    pub fn call(&self) {}
}

pub fn open(_choice: Choice) -> Result<(Box<dyn Source>, Option<String>)> {
    Err(Error::new(ErrorKind::Unsupported, "interface counters cannot be read on this operating system yet"))
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
