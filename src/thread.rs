//! Threads, made in one way: named for whoever looks into `top`, and no code made anew for each.

use std::thread::{Builder, JoinHandle};

use crate::error::{Error, Result};

/// `stack_bytes`: 0 takes the system's own.
pub fn spawn(name: &str, stack_bytes: usize, run: Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>> {
    let mut thread = Builder::new().name(name.to_string());
    if stack_bytes > 0 {
        thread = thread.stack_size(stack_bytes);
    }
    thread.spawn(run).map_err(|cause| Error::system(format!("starting {name}"), cause))
}
