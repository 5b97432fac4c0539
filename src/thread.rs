//! Starts named threads, and provides the queue through which threads pass items to each other. The channels of the
//! standard library would work too, but add 8 KB to the binary for each item type.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::error::{Error, Result};

/// Starts a thread; tools such as `top -H` show its name. `stack_bytes`: stack size, or 0 for the default size.
pub fn spawn(name: &str, stack_bytes: usize, run: Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>> {
    let mut thread = Builder::new().name(name.to_string());
    if stack_bytes > 0 {
        thread = thread.stack_size(stack_bytes);
    }
    thread.spawn(run).map_err(|cause| Error::system(format!("starting {name}"), cause))
}

/// An unbounded first-in, first-out queue. Clones share the same queue.
pub struct Queue<T>(Arc<Inner<T>>);

struct Inner<T> {
    items: Mutex<VecDeque<T>>,
    item_added: Condvar,
}

impl<T> Queue<T> {
    /// Adds an item and wakes one waiting thread.
    pub fn put(&self, item: T) {
        self.0.items.lock().unwrap_or_else(PoisonError::into_inner).push_back(item);
        self.0.item_added.notify_one();
    }

    /// Removes the oldest item, waiting for one at most `timeout`. `None` after the timeout.
    pub fn take(&self, timeout: Duration) -> Option<T> {
        let items = self.0.items.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.item_added.wait_timeout_while(items, timeout, |items| items.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue(Arc::new(Inner { items: Mutex::default(), item_added: Condvar::new() }))
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_arrive_in_order_and_wake_the_waiting_thread() {
        let queue = Queue::default();
        assert_eq!(queue.take(Duration::ZERO), None);
        let other = queue.clone();
        let sender = spawn("sender", 0, Box::new(move || (1..=100).for_each(|item| other.put(item)))).unwrap();
        let taken: Vec<u32> = (0..100).filter_map(|_| queue.take(Duration::from_secs(10))).collect();
        assert_eq!(taken, (1..=100).collect::<Vec<_>>());
        assert_eq!(queue.take(Duration::from_millis(1)), None);
        assert!(sender.join().is_ok());
    }

    #[test]
    fn a_thread_has_its_name() {
        let queue = Queue::default();
        let other = queue.clone();
        let run = Box::new(move || other.put(std::thread::current().name().map(str::to_string)));
        spawn("gate", 64 << 10, run).unwrap().join().unwrap();
        assert_eq!(queue.take(Duration::ZERO), Some(Some("gate".to_string())));
    }
}
