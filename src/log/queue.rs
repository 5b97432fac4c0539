//! Lines that were not taken so far, for one thread that may be held up. Adding to them never waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Line;

/// Lines that wait, at most.
const QUEUED: usize = 64;

#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    /// Lines that were dropped, for want of room.
    lost: u32,
    writing: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, line: Line) {
        let mut waiting = self.waiting();
        match waiting.lines.len() {
            QUEUED.. => waiting.lost = waiting.lost.saturating_add(1),
            _ => waiting.lines.push_back(line),
        }
        self.changed.notify_all();
    }

    /// Hands on each line, and how many were `lost` and why.
    pub fn run(&self, write: &mut dyn FnMut(&Line), why: &str) {
        loop {
            let empty = |waiting: &mut Waiting| waiting.lines.is_empty();
            let waited = self.changed.wait_while(self.waiting(), empty);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
            waiting.writing = true;
            let (lines, lost) = (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.lost));
            drop(waiting);
            let lost = (lost > 0).then(|| Line::of_losses(lost, why));
            lines.iter().chain(&lost).for_each(&mut *write);
            self.waiting().writing = false;
            self.changed.notify_all();
        }
    }

    /// Whether all of it was handed on by then.
    pub fn wait(&self, patience: Duration) -> bool {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        let waited = self.changed.wait_timeout_while(self.waiting(), patience, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use log::Level;

    use super::*;

    #[test]
    fn a_reader_that_hangs_costs_lines_and_no_time() {
        let queue = Arc::new(Queue::default());
        (0..QUEUED + 7).for_each(|at| queue.put(Line::new(Level::Info, "", &at.to_string())));
        queue.wait(Duration::from_millis(1));
        let (tell, told) = mpsc::channel();
        let other = queue.clone();
        std::thread::spawn(move || {
            other.run(&mut |line| tell.send((line.level, line.text.clone())).unwrap(), "it did not take them")
        });
        queue.wait(Duration::from_secs(20));
        let told: Vec<_> = told.try_iter().collect();
        let expect = |at: usize| (Level::Info, at.to_string());
        assert_eq!(told[..QUEUED], (0..QUEUED).map(expect).collect::<Vec<_>>());
        assert_eq!(told[QUEUED..], [(Level::Warn, "7 lines were lost: it did not take them".to_string())]);
    }
}
