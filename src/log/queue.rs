//! Queue of log lines for the log thread, whose writes may block. Adding a line never blocks: when the queue is full,
//! the line is lost and counted.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Line;

/// Highest number of lines in the queue.
const CAPACITY: usize = 64;

#[derive(Default)]
pub struct LineQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<Line>,
    /// Lines dropped since the last report because the queue was full.
    lost: u32,
    /// The log thread is writing lines that it has taken out of `lines`.
    writing: bool,
}

impl LineQueue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; counts it as lost when the queue is full.
    pub fn put(&self, line: Line) {
        let mut state = self.state();
        match state.lines.len() {
            CAPACITY.. => state.lost = state.lost.saturating_add(1),
            _ => state.lines.push_back(line),
        }
        self.changed.notify_all();
    }

    /// Passes each line to `write`, and reports lost lines with the reason `why`. Never returns.
    pub fn run(&self, write: &mut dyn FnMut(&Line), why: &str) {
        loop {
            let empty = |state: &mut QueueState| state.lines.is_empty();
            let waited = self.changed.wait_while(self.state(), empty);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            state.writing = true;
            let (lines, lost) = (std::mem::take(&mut state.lines), std::mem::take(&mut state.lost));
            drop(state);
            let lost = (lost > 0).then(|| Line::lost(lost, why));
            lines.iter().chain(&lost).for_each(&mut *write);
            self.state().writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits until every line was written, at most `timeout`. `false` after the timeout.
    pub fn wait_until_written(&self, timeout: Duration) -> bool {
        let busy = |state: &mut QueueState| state.writing || !state.lines.is_empty();
        let waited = self.changed.wait_timeout_while(self.state(), timeout, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use log::Level;

    use super::*;

    #[test]
    fn a_full_queue_drops_lines_and_never_blocks() {
        let queue = Arc::new(LineQueue::default());
        (0..CAPACITY + 7).for_each(|at| queue.put(Line::new(Level::Info, "", &at.to_string())));
        queue.wait_until_written(Duration::from_millis(1));
        let (sender, received) = mpsc::channel();
        let other = queue.clone();
        std::thread::spawn(move || {
            other.run(&mut |line| sender.send((line.level, line.text.clone())).unwrap(), "the disk was too slow")
        });
        queue.wait_until_written(Duration::from_secs(20));
        let received: Vec<_> = received.try_iter().collect();
        let expect = |at: usize| (Level::Info, at.to_string());
        assert_eq!(received[..CAPACITY], (0..CAPACITY).map(expect).collect::<Vec<_>>());
        assert_eq!(received[CAPACITY..], [(Level::Warn, "7 lines were lost: the disk was too slow".to_string())]);
    }
}
