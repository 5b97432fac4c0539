//! JSON and status codes, and nothing else: what is known comes from `live` and `store`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::clock::Clock;
use crate::live::Live;
use crate::model::Machine;
use crate::store::Reader;

/// Everything a handler may ask.
pub struct Context {
    pub live: Arc<Live>,
    /// `None` when the database cannot be read: answers come from memory.
    pub reader: Mutex<Option<Reader>>,
    pub clock: Arc<dyn Clock>,
    pub database: PathBuf,
    /// Reads the machine's facts now.
    pub machine: Box<dyn Fn() -> Machine + Send + Sync>,
    pub listening: Vec<SocketAddr>,
}
