//! The thread that reads the disk for requests. A disk that hangs takes the thread that reads it along, for minutes: that
//! is this one, and none of those that answer. A request waits for it as long as it can, and is answered without it then.
//!
//! One question at a time, in the order in which they came, but for those that can wait only for a moment: they go first.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::store::Reader;
use crate::thread::{Mailbox, spawn};

/// For what cannot be answered without the history. Who waits at the front door meanwhile has more of it.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// For what memory can answer nearly as well.
pub const GLANCE: Duration = Duration::from_millis(250);
/// SQLite needs most of it.
const STACK: usize = 256 * 1024;

type Question = Box<dyn FnOnce(Option<&mut Reader>) + Send>;

enum Task {
    Answer(Question),
    /// The old connection is closed, which may take long.
    Replace(Option<Reader>),
    End,
}

pub struct Disk {
    /// There is a history to be read.
    present: Mutex<bool>,
    desk: Arc<Desk>,
}

/// Where questions are left for the thread.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// Since when it has been at work on the present task.
    since: Option<Instant>,
    /// It is started by the first task.
    started: bool,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut reader = None;
        loop {
            let task = {
                let waited = self.came.wait_while(self.state(), |state| state.tasks.is_empty());
                let mut state = waited.unwrap_or_else(PoisonError::into_inner);
                state.since = Some(Instant::now());
                state.tasks.pop_front()
            };
            match task {
                Some(Task::Answer(question)) => question(reader.as_mut()),
                Some(Task::Replace(other)) => reader = other,
                Some(Task::End) => return,
                None => {}
            }
            self.state().since = None;
        }
    }
}

impl Disk {
    /// `None` while there is no database that can be read.
    pub fn new(reader: Option<Reader>) -> Disk {
        let disk = Disk { present: Mutex::new(false), desk: Arc::default() };
        if reader.is_some() {
            disk.set_reader(reader, Duration::ZERO);
        }
        disk
    }

    /// From now on the history is read from here; `false` where the old one was not closed within `patience`.
    pub fn set_reader(&self, reader: Option<Reader>, patience: Duration) -> bool {
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = reader.is_some();
        if reader.is_none() && !self.desk.state().started {
            return true;
        }
        self.put(Task::Replace(reader), false).is_ok() && self.ask(patience, |_| ()).is_ok()
    }

    pub fn has_reader(&self) -> bool {
        *self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the present question has been waiting for the disk.
    pub fn silence(&self) -> Duration {
        self.desk.state().since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What the thread found. Whether or not that came within `patience`, it is found: `question` can leave it somewhere.
    /// A disk that has been silent for longer than `patience` is not asked.
    pub fn ask<T: Send + 'static>(
        &self,
        patience: Duration,
        question: impl FnOnce(Option<&mut Reader>) -> T + Send + 'static,
    ) -> Result<T> {
        let silence = self.silence();
        if silence > patience {
            return Err(silent(silence));
        }
        let answer: Mailbox<thread::Result<T>> = Mailbox::default();
        let found = answer.clone();
        let question: Question = Box::new(move |reader| found.put(catch_unwind(AssertUnwindSafe(|| question(reader)))));
        self.put(Task::Answer(question), patience <= GLANCE)?;
        match answer.take(patience) {
            Some(Ok(answer)) => Ok(answer),
            // It is this request's fault, and is told of where it ends.
            Some(Err(panic)) => resume_unwind(panic),
            None => Err(silent(self.silence().max(patience))),
        }
    }

    /// The same of the history, wherever that is by now; `None` where there is none. Two things can fail: the disk does not
    /// answer in time, or not well.
    pub fn read<T: Send + 'static>(
        &self,
        patience: Duration,
        query: impl FnOnce(&Reader) -> Result<T> + Send + 'static,
    ) -> Result<Result<Option<T>>> {
        if !self.has_reader() {
            return Ok(Ok(None));
        }
        self.ask(patience, |reader| {
            let Some(reader) = reader else { return Ok(None) };
            reader.follow()?;
            query(reader).map(Some)
        })
    }

    fn put(&self, task: Task, first: bool) -> Result<()> {
        let mut state = self.desk.state();
        if !state.started {
            let desk = self.desk.clone();
            spawn("reader", STACK, Box::new(move || desk.run()))?;
            state.started = true;
        }
        // A connection that is replaced is so for whoever asks afterwards, and no earlier.
        let at = state.tasks.iter().rposition(|task| !matches!(task, Task::Answer(_))).map_or(0, |last| last + 1);
        match first {
            true => state.tasks.insert(at, task),
            false => state.tasks.push_back(task),
        }
        self.desk.came.notify_one();
        Ok(())
    }
}

/// The connection is closed with it, unless the disk hangs.
impl Drop for Disk {
    fn drop(&mut self) {
        self.set_reader(None, GLANCE);
        let mut state = self.desk.state();
        state.tasks.push_back(Task::End);
        self.desk.came.notify_one();
    }
}

fn silent(silence: Duration) -> Error {
    let seconds = silence.as_secs_f32().ceil();
    Error::new(ErrorKind::Transient, format!("the disk has not answered for {seconds} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A question that lasts until it is told to end, and has begun.
    fn hang(disk: &Disk) -> Mailbox<()> {
        let (end, begun): (Mailbox<()>, Mailbox<()>) = Default::default();
        let (ended, beginning) = (end.clone(), begun.clone());
        let question = move |_: Option<&mut Reader>| {
            beginning.put(());
            ended.take(LONG);
        };
        disk.put(Task::Answer(Box::new(question)), false).unwrap();
        assert_eq!(begun.take(LONG), Some(()));
        end
    }

    #[test]
    fn a_disk_that_hangs_is_waited_for_once() {
        let disk = Disk::new(None);
        assert_eq!(disk.ask(LONG, |reader| reader.is_none()).ok(), Some(true));
        let end = hang(&disk);
        thread::sleep(Duration::from_millis(5));
        let error = disk.ask(Duration::from_millis(1), |_| ()).err().unwrap();
        assert_eq!(
            (error.kind, error.to_string().as_str()),
            (ErrorKind::Transient, "the disk has not answered for 1 s")
        );
        assert!(disk.silence() > Duration::ZERO);
        end.put(());
        assert_eq!(disk.ask(LONG, |_| 7).ok(), Some(7));
    }

    #[test]
    fn what_waits_for_a_moment_only_goes_first() {
        let disk = Disk::new(None);
        let (end, said): (_, Mailbox<char>) = (hang(&disk), Mailbox::default());
        for (letter, first) in [('a', false), ('b', true), ('c', false), ('d', true)] {
            let said = said.clone();
            disk.put(Task::Answer(Box::new(move |_| said.put(letter))), first).unwrap();
        }
        end.put(());
        let order: Vec<char> = (0..4).filter_map(|_| said.take(LONG)).collect();
        assert_eq!(order, ['d', 'b', 'a', 'c']);
    }

    #[test]
    fn a_panic_is_the_askers_and_ends_nothing() {
        let disk = Disk::new(None);
        let panic = catch_unwind(AssertUnwindSafe(|| disk.ask(LONG, |_| panic!("on purpose")))).err().unwrap();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
        assert_eq!(disk.ask(LONG, |_| 7).ok(), Some(7));
    }
}
