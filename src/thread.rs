//! Threads, made in one way and named for whoever looks into `top`, and what they hand to each other. The standard
//! library's channels would do as well, for 8 KB of the binary per type that goes through them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::error::{Error, Result};

/// `stack_bytes`: 0 takes the system's own.
pub fn spawn(name: &str, stack_bytes: usize, run: Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>> {
    let mut thread = Builder::new().name(name.to_string());
    if stack_bytes > 0 {
        thread = thread.stack_size(stack_bytes);
    }
    thread.spawn(run).map_err(|cause| Error::system(format!("starting {name}"), cause))
}

/// Whoever has it can put something in and take something out, in that order.
pub struct Mailbox<T>(Arc<Inside<T>>);

struct Inside<T> {
    letters: Mutex<VecDeque<T>>,
    arrived: Condvar,
}

impl<T> Mailbox<T> {
    pub fn put(&self, letter: T) {
        self.0.letters.lock().unwrap_or_else(PoisonError::into_inner).push_back(letter);
        self.0.arrived.notify_one();
    }

    /// The oldest; `None` when nothing has come by then.
    pub fn take(&self, patience: Duration) -> Option<T> {
        let letters = self.0.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.arrived.wait_timeout_while(letters, patience, |letters| letters.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Mailbox<T> {
        Mailbox(Arc::new(Inside { letters: Mutex::default(), arrived: Condvar::new() }))
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Mailbox<T> {
        Mailbox(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_arrive_in_order_and_wake_who_waits() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.take(Duration::ZERO), None);
        let other = mailbox.clone();
        let sender = spawn("sender", 0, Box::new(move || (1..=100).for_each(|letter| other.put(letter)))).unwrap();
        let taken: Vec<u32> = (0..100).filter_map(|_| mailbox.take(Duration::from_secs(10))).collect();
        assert_eq!(taken, (1..=100).collect::<Vec<_>>());
        assert_eq!(mailbox.take(Duration::from_millis(1)), None);
        assert!(sender.join().is_ok());
    }

    #[test]
    fn a_thread_has_its_name() {
        let mailbox = Mailbox::default();
        let other = mailbox.clone();
        let run = Box::new(move || other.put(std::thread::current().name().map(str::to_string)));
        spawn("gate", 64 << 10, run).unwrap().join().unwrap();
        assert_eq!(mailbox.take(Duration::ZERO), Some(Some("gate".to_string())));
    }
}
