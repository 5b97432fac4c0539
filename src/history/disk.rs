//! The thread that reads the disk for requests. A disk that hangs takes the thread that reads it along, for minutes: that
//! is this one, and none of those that answer. A request waits for it as long as it can, and is answered without it then.
//!
//! One question at a time, in the order in which they came, but for those that can wait only for a moment: they go first.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::store::Reader;
use crate::thread::{Mailbox, spawn};

/// For what cannot be answered without the history. What waits at the front door meanwhile has more of it.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// For what memory can answer nearly as well.
const GLANCE: Duration = Duration::from_millis(250);
/// So many of these are kept for a disk that is slow.
const GLANCES: usize = 8;
/// A disk that has been silent for so long is told of, and asked nothing more.
const SILENCE: Duration = Duration::from_secs(5);
/// And one that was too slow for the latest request, for so long after it.
const LATELY: Duration = Duration::from_secs(60);
/// SQLite needs most of it.
const STACK: usize = 256 * 1024;

type Question = Box<dyn FnOnce(Option<&mut Reader>) + Send>;

enum Task {
    /// Not asked any more once it is not awaited.
    Ask {
        question: Question,
        awaited: Arc<AtomicBool>,
    },
    Glance(Question),
    /// The old connection is closed, which may take long.
    Replace(Option<Reader>),
    End,
}

pub struct Disk(Arc<Desk>);

/// Where questions are left for the thread.
struct Desk {
    /// Of the thread.
    name: &'static str,
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// It is started by the first task.
    started: bool,
    /// There is a history to be read.
    present: bool,
    /// Since when it has been at work on the present task.
    since: Option<Instant>,
    /// When a request had to go without the history, unless a later one had it.
    late: Option<Instant>,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut reader = None;
        loop {
            let waited = self.came.wait_while(self.state(), |state| state.tasks.is_empty());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            state.since = Some(Instant::now());
            let task = state.tasks.pop_front();
            drop(state);
            match task {
                Some(Task::Ask { question, awaited }) if awaited.load(Ordering::Relaxed) => question(reader.as_mut()),
                Some(Task::Glance(question)) => question(reader.as_mut()),
                Some(Task::Replace(other)) => reader = other,
                Some(Task::End) => return,
                Some(Task::Ask { .. }) | None => {}
            }
            self.state().since = None;
        }
    }
}

impl State {
    fn silence(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn put(&mut self, task: Task, desk: &Arc<Desk>) -> Result<()> {
        if !self.started {
            let desk = desk.clone();
            spawn(desk.name, STACK, Box::new(move || desk.run()))?;
            self.started = true;
        }
        // Behind a connection that was replaced, for who asks then is to be answered from the new one.
        let replaced = |task: &Task| matches!(task, Task::Replace(_));
        match task {
            Task::Glance(_) => {
                self.tasks.insert(self.tasks.iter().rposition(replaced).map_or(0, |last| last + 1), task)
            }
            _ => self.tasks.push_back(task),
        }
        desk.came.notify_one();
        Ok(())
    }
}

impl Disk {
    /// `None` while there is no database that can be read.
    pub fn new(reader: Option<Reader>) -> Disk {
        let disk = Disk::named("reader");
        disk.set_reader(reader, Duration::ZERO);
        disk
    }

    /// One more thread, for what takes longer than anything that is read. It has no history of its own.
    pub fn named(name: &'static str) -> Disk {
        Disk(Arc::new(Desk { name, state: Mutex::default(), came: Condvar::new() }))
    }

    /// From now on the history is read from here; `false` where the old one was not closed within `patience`.
    pub fn set_reader(&self, reader: Option<Reader>, patience: Duration) -> bool {
        {
            let mut state = self.0.state();
            state.present = reader.is_some();
            if reader.is_none() && !state.started {
                return true;
            }
            if state.put(Task::Replace(reader), &self.0).is_err() {
                return false;
            }
        }
        let task = |question| Task::Ask { question, awaited: Arc::new(AtomicBool::new(true)) };
        self.put(SILENCE, usize::MAX, |_| (), task).is_ok_and(|closed| closed.take(patience).is_some())
    }

    /// Why the history cannot be read now.
    pub fn trouble(&self) -> Option<String> {
        let state = self.0.state();
        let silence = state.silence();
        match state.present {
            false => Some("the database cannot be read: answering from memory".to_string()),
            true if silence >= SILENCE => Some(format!("the history cannot be read: {}", silent(silence))),
            true if state.late.is_some_and(|at| at.elapsed() < LATELY) => {
                Some("the history cannot be read: the disk is too slow".to_string())
            }
            true => None,
        }
    }

    /// What the thread finds by then. A disk that has not answered anybody for long is not asked.
    pub fn ask<T: Send + 'static>(
        &self,
        deadline: Instant,
        question: impl FnOnce(Option<&mut Reader>) -> T + Send + 'static,
    ) -> Result<T> {
        let awaited = Arc::new(AtomicBool::new(true));
        let task = |question| Task::Ask { question, awaited: awaited.clone() };
        let answer = self.put(SILENCE, usize::MAX, question, task)?;
        let answer = answer.take(deadline.saturating_duration_since(Instant::now()));
        awaited.store(false, Ordering::Relaxed);
        self.0.state().late = answer.is_none().then(Instant::now);
        answer.map_or_else(|| Err(silent(self.0.state().silence().max(PATIENCE))), take)
    }

    /// The same at once, or not at all. The question is asked in any case, so that it can leave its answer for the next.
    pub fn glance<T: Send + 'static>(
        &self,
        question: impl FnOnce(Option<&mut Reader>) -> T + Send + 'static,
    ) -> Result<T> {
        let answer = self.put(GLANCE, GLANCES, question, Task::Glance)?;
        answer.take(GLANCE).map_or_else(|| Err(silent(GLANCE)), take)
    }

    fn put<T: Send + 'static>(
        &self,
        longest_silence: Duration,
        most: usize,
        question: impl FnOnce(Option<&mut Reader>) -> T + Send + 'static,
        task: impl FnOnce(Question) -> Task,
    ) -> Result<Mailbox<thread::Result<T>>> {
        let mut state = self.0.state();
        let silence = state.silence();
        if silence > longest_silence || state.tasks.len() >= most {
            return Err(silent(silence));
        }
        let answer = Mailbox::default();
        let found = answer.clone();
        let ask = move |reader: Option<&mut Reader>| {
            found.put(catch_unwind(AssertUnwindSafe(|| question(reader))));
        };
        state.put(task(Box::new(ask)), &self.0)?;
        Ok(answer)
    }
}

/// A panic is the fault of the request that asked, and is told of where that ends.
fn take<T>(answer: thread::Result<T>) -> Result<T> {
    answer.map_or_else(|panic| resume_unwind(panic), Ok)
}

/// The connection is closed with it, unless the disk hangs.
impl Drop for Disk {
    fn drop(&mut self) {
        self.set_reader(None, GLANCE);
        let mut state = self.0.state();
        if state.started {
            let _ = state.put(Task::End, &self.0);
        }
    }
}

fn silent(silence: Duration) -> Error {
    let seconds = silence.as_secs_f32().ceil();
    Error::new(ErrorKind::Transient, format!("the disk has not answered for {seconds} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn asked(disk: &Disk) -> Option<u32> {
        disk.ask(soon(), |_| 7).ok()
    }

    /// A question that lasts until it is told to end, and has begun.
    fn hang(disk: &Disk) -> Mailbox<()> {
        let (end, begun): (Mailbox<()>, Mailbox<()>) = Default::default();
        let (ended, beginning) = (end.clone(), begun.clone());
        let question = move |_: Option<&mut Reader>| {
            beginning.put(());
            ended.take(Duration::from_secs(20));
        };
        disk.0.state().put(Task::Glance(Box::new(question)), &disk.0).unwrap();
        assert_eq!(begun.take(Duration::from_secs(20)), Some(()));
        end
    }

    #[test]
    fn a_disk_that_hangs_is_not_waited_for_beyond_the_deadline() {
        let disk = Disk::named("reader");
        assert_eq!(asked(&disk), Some(7));
        let end = hang(&disk);
        let error = disk.ask(Instant::now(), |_| ()).err().unwrap();
        assert_eq!(
            (error.kind, error.to_string().as_str()),
            (ErrorKind::Transient, "the disk has not answered for 8 s")
        );
        assert!(disk.glance(|_| ()).is_err());
        // It has been silent for longer than anything that must be soon can wait.
        let asked_at = Instant::now();
        assert!(disk.glance(|_| ()).is_err() && asked_at.elapsed() < GLANCE / 2);
        disk.0.state().present = true;
        assert_eq!(disk.trouble().unwrap(), "the history cannot be read: the disk is too slow");
        end.put(());
        assert_eq!(asked(&disk), Some(7));
        assert_eq!(disk.trouble(), None);
    }

    #[test]
    fn what_waits_for_a_moment_only_goes_first_and_what_is_not_awaited_goes_nowhere() {
        let disk = Disk::named("reader");
        let (end, said): (_, Mailbox<char>) = (hang(&disk), Mailbox::default());
        for (letter, glance, awaited) in
            [('a', false, true), ('b', true, true), ('c', false, false), ('d', true, true), ('e', false, true)]
        {
            let said = said.clone();
            let question: Question = Box::new(move |_| said.put(letter));
            let awaited = Arc::new(AtomicBool::new(awaited));
            let task = if glance { Task::Glance(question) } else { Task::Ask { question, awaited } };
            disk.0.state().put(task, &disk.0).unwrap();
        }
        end.put(());
        assert_eq!(asked(&disk), Some(7));
        let order: String = (0..5).filter_map(|_| said.take(Duration::ZERO)).collect();
        assert_eq!(order, "dbae");
    }

    #[test]
    fn a_slow_disk_does_not_collect_questions() {
        let disk = Disk::named("reader");
        let end = hang(&disk);
        disk.0.state().since = None;
        (0..4 * GLANCES).for_each(|_| {
            let _ = disk.put(GLANCE, GLANCES, |_| (), Task::Glance);
        });
        assert_eq!(disk.0.state().tasks.len(), GLANCES);
        end.put(());
        assert_eq!(asked(&disk), Some(7));
    }

    #[test]
    fn a_panic_is_the_askers_and_ends_nothing() {
        let disk = Disk::named("reader");
        let panic = catch_unwind(AssertUnwindSafe(|| disk.ask(soon(), |_| panic!("on purpose")))).err().unwrap();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
        assert_eq!(asked(&disk), Some(7));
    }
}
