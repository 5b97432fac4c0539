//! The thread that reads the database for requests. A disk that hangs can block a thread for minutes: it blocks this
//! one and no HTTP worker. A worker waits for this thread until a deadline. Then the request fails, or the worker
//! answers from memory if memory can answer too.
//!
//! The thread runs one job at a time, in the order of arrival. Quick jobs go first, the newest one before the others,
//! because their callers wait only 250 ms.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::store::Reader;
use crate::thread::{Queue, spawn};

/// Timeout of a read that a request needs for its answer. Shorter than the gate's queue timeout (10 s), so that a read
/// that times out does not make the requests behind it time out too.
pub const READ_TIMEOUT: Duration = Duration::from_secs(8);
/// Timeout of a quick job: memory can answer nearly as well.
const QUICK_TIMEOUT: Duration = Duration::from_millis(250);
/// With this many tasks in the queue, further quick jobs are refused.
const MAX_QUICK_TASKS: usize = 8;
/// A task that takes longer than this is a problem for `/health`, and no new job is accepted.
const HANG_AFTER: Duration = Duration::from_secs(5);
/// How long a read that timed out stays a problem for `/health`, unless a later read succeeds.
const TIMEOUT_REPORTED_FOR: Duration = Duration::from_secs(60);
/// SQLite needs most of this stack.
const STACK_BYTES: usize = 256 * 1024;

type Job = Box<dyn FnOnce(Option<&mut Reader>) + Send>;

enum Task {
    /// Skipped when its caller has given up.
    Run {
        job: Job,
        wanted: Arc<AtomicBool>,
    },
    /// Runs even when its caller has given up: its result is for the next caller too.
    Quick(Job),
    /// Replaces the connection. Closing the old one may take long.
    Replace(Option<Reader>),
    End,
}

/// A thread with a queue of jobs. `DiskThread::new` makes the one that reads the database.
pub struct DiskThread(Arc<Shared>);

/// Shared by the callers and the thread.
struct Shared {
    name: &'static str,
    queue: Mutex<TaskQueue>,
    task_added: Condvar,
}

#[derive(Default)]
struct TaskQueue {
    tasks: VecDeque<Task>,
    /// The thread runs; the first task starts it.
    started: bool,
    /// There is a database to read.
    has_reader: bool,
    /// Start of the present task.
    busy_since: Option<Instant>,
    /// Time of the last read if it timed out.
    timed_out_at: Option<Instant>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, TaskQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut reader = None;
        loop {
            let waited = self.task_added.wait_while(self.queue(), |queue| queue.tasks.is_empty());
            let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
            queue.busy_since = Some(Instant::now());
            let task = queue.tasks.pop_front();
            drop(queue);
            match task {
                Some(Task::Run { job, wanted }) if wanted.load(Ordering::Relaxed) => job(reader.as_mut()),
                Some(Task::Quick(job)) => job(reader.as_mut()),
                Some(Task::Replace(other)) => reader = other,
                Some(Task::End) => return,
                Some(Task::Run { .. }) | None => {}
            }
            self.queue().busy_since = None;
        }
    }
}

impl TaskQueue {
    /// How long the present task has been running.
    fn busy_for(&self) -> Duration {
        self.busy_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn push(&mut self, task: Task, shared: &Arc<Shared>) -> Result<()> {
        if !self.started {
            let shared = shared.clone();
            spawn(shared.name, STACK_BYTES, Box::new(move || shared.run()))?;
            self.started = true;
        }
        // A quick job goes first, but never before a `Replace`: it must read from the new connection.
        let is_replace = |task: &Task| matches!(task, Task::Replace(_));
        match task {
            Task::Quick(_) => {
                self.tasks.insert(self.tasks.iter().rposition(is_replace).map_or(0, |last| last + 1), task)
            }
            _ => self.tasks.push_back(task),
        }
        shared.task_added.notify_one();
        Ok(())
    }
}

impl DiskThread {
    /// `reader`: `None` while no database can be read.
    pub fn new(reader: Option<Reader>) -> DiskThread {
        let disk = DiskThread::named("reader");
        disk.set_reader(reader, Duration::ZERO);
        disk
    }

    /// Another such thread, for jobs that take longer than any read. It has no database connection.
    pub fn named(name: &'static str) -> DiskThread {
        DiskThread(Arc::new(Shared { name, queue: Mutex::default(), task_added: Condvar::new() }))
    }

    /// Replaces the database connection. Waits up to `timeout` for the old one to close; `false` if it did not.
    pub fn set_reader(&self, reader: Option<Reader>, timeout: Duration) -> bool {
        {
            let mut queue = self.0.queue();
            queue.has_reader = reader.is_some();
            if reader.is_none() && !queue.started {
                return true;
            }
            if queue.push(Task::Replace(reader), &self.0).is_err() {
                return false;
            }
        }
        let task = |job| Task::Run { job, wanted: Arc::new(AtomicBool::new(true)) };
        self.push(HANG_AFTER, usize::MAX, |_| (), task).is_ok_and(|closed| closed.take(timeout).is_some())
    }

    /// Why the database cannot be read now, for `/health`.
    pub fn read_problem(&self) -> Option<String> {
        let queue = self.0.queue();
        let busy_for = queue.busy_for();
        match queue.has_reader {
            false => Some("the database cannot be read: answering from memory".to_string()),
            true if busy_for >= HANG_AFTER => Some(format!("the history cannot be read: {}", not_answering(busy_for))),
            true if queue.timed_out_at.is_some_and(|at| at.elapsed() < TIMEOUT_REPORTED_FOR) => {
                Some("the history cannot be read: the disk is too slow".to_string())
            }
            true => None,
        }
    }

    /// Runs `job` on the thread and returns its result. Fails at `deadline`, and at once when the disk hangs. A panic
    /// of the job continues in the caller.
    pub fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        job: impl FnOnce(Option<&mut Reader>) -> T + Send + 'static,
    ) -> Result<T> {
        let wanted = Arc::new(AtomicBool::new(true));
        let task = |job| Task::Run { job, wanted: wanted.clone() };
        let result = self.push(HANG_AFTER, usize::MAX, job, task)?;
        let result = result.take(deadline.saturating_duration_since(Instant::now()));
        wanted.store(false, Ordering::Relaxed);
        self.0.queue().timed_out_at = result.is_none().then(Instant::now);
        result.map_or_else(|| Err(not_answering(self.0.queue().busy_for().max(READ_TIMEOUT))), unwrap_panic)
    }

    /// Like `run`, but waits only 250 ms. The job runs even after that, so that it can store its result for the next
    /// caller.
    pub fn run_quick<T: Send + 'static>(
        &self,
        job: impl FnOnce(Option<&mut Reader>) -> T + Send + 'static,
    ) -> Result<T> {
        let result = self.push(QUICK_TIMEOUT, MAX_QUICK_TASKS, job, Task::Quick)?;
        result.take(QUICK_TIMEOUT).map_or_else(|| Err(not_answering(QUICK_TIMEOUT)), unwrap_panic)
    }

    /// Adds a job, unless the thread has been busy for longer than `max_busy` or the queue has `max_tasks` tasks.
    fn push<T: Send + 'static>(
        &self,
        max_busy: Duration,
        max_tasks: usize,
        job: impl FnOnce(Option<&mut Reader>) -> T + Send + 'static,
        task: impl FnOnce(Job) -> Task,
    ) -> Result<Queue<thread::Result<T>>> {
        let mut queue = self.0.queue();
        let busy_for = queue.busy_for();
        if busy_for > max_busy || queue.tasks.len() >= max_tasks {
            return Err(not_answering(busy_for));
        }
        let result = Queue::default();
        let sender = result.clone();
        let run = move |reader: Option<&mut Reader>| {
            sender.put(catch_unwind(AssertUnwindSafe(|| job(reader))));
        };
        queue.push(task(Box::new(run)), &self.0)?;
        Ok(result)
    }
}

/// Continues a panic of the job in the caller: the HTTP worker counts and logs it.
fn unwrap_panic<T>(result: thread::Result<T>) -> Result<T> {
    result.map_or_else(|panic| resume_unwind(panic), Ok)
}

/// Closes the connection, unless the disk hangs.
impl Drop for DiskThread {
    fn drop(&mut self) {
        self.set_reader(None, QUICK_TIMEOUT);
        let mut queue = self.0.queue();
        if queue.started {
            let _ = queue.push(Task::End, &self.0);
        }
    }
}

fn not_answering(busy_for: Duration) -> Error {
    let seconds = busy_for.as_secs_f32().ceil();
    Error::new(ErrorKind::Transient, format!("the disk has not answered for {seconds} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_20_s() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn run_7(disk: &DiskThread) -> Option<u32> {
        disk.run(in_20_s(), |_| 7).ok()
    }

    /// Starts a job that blocks the thread until the returned queue gets an item.
    fn block(disk: &DiskThread) -> Queue<()> {
        let (unblock, started): (Queue<()>, Queue<()>) = Default::default();
        let (unblocked, start) = (unblock.clone(), started.clone());
        let job = move |_: Option<&mut Reader>| {
            start.put(());
            unblocked.take(Duration::from_secs(20));
        };
        disk.0.queue().push(Task::Quick(Box::new(job)), &disk.0).unwrap();
        assert_eq!(started.take(Duration::from_secs(20)), Some(()));
        unblock
    }

    #[test]
    fn a_read_from_a_disk_that_hangs_fails_at_its_deadline() {
        let disk = DiskThread::named("reader");
        assert_eq!(run_7(&disk), Some(7));
        let unblock = block(&disk);
        let error = disk.run(Instant::now(), |_| ()).err().unwrap();
        assert_eq!(
            (error.kind, error.to_string().as_str()),
            (ErrorKind::Transient, "the disk has not answered for 8 s")
        );
        assert!(disk.run_quick(|_| ()).is_err());
        // The thread has been busy for longer than a quick job may wait: it is refused at once.
        let start = Instant::now();
        assert!(disk.run_quick(|_| ()).is_err() && start.elapsed() < QUICK_TIMEOUT / 2);
        disk.0.queue().has_reader = true;
        assert_eq!(disk.read_problem().unwrap(), "the history cannot be read: the disk is too slow");
        unblock.put(());
        assert_eq!(run_7(&disk), Some(7));
        assert_eq!(disk.read_problem(), None);
    }

    #[test]
    fn quick_jobs_go_first_and_jobs_without_a_caller_are_skipped() {
        let disk = DiskThread::named("reader");
        let (unblock, done): (_, Queue<char>) = (block(&disk), Queue::default());
        for (name, quick, wanted) in
            [('a', false, true), ('b', true, true), ('c', false, false), ('d', true, true), ('e', false, true)]
        {
            let done = done.clone();
            let job: Job = Box::new(move |_| done.put(name));
            let wanted = Arc::new(AtomicBool::new(wanted));
            let task = if quick { Task::Quick(job) } else { Task::Run { job, wanted } };
            disk.0.queue().push(task, &disk.0).unwrap();
        }
        unblock.put(());
        assert_eq!(run_7(&disk), Some(7));
        let order: String = (0..5).filter_map(|_| done.take(Duration::ZERO)).collect();
        assert_eq!(order, "dbae");
    }

    #[test]
    fn the_queue_is_bounded_while_the_disk_is_slow() {
        let disk = DiskThread::named("reader");
        let unblock = block(&disk);
        disk.0.queue().busy_since = None;
        (0..4 * MAX_QUICK_TASKS).for_each(|_| {
            let _ = disk.push(QUICK_TIMEOUT, MAX_QUICK_TASKS, |_| (), Task::Quick);
        });
        assert_eq!(disk.0.queue().tasks.len(), MAX_QUICK_TASKS);
        unblock.put(());
        assert_eq!(run_7(&disk), Some(7));
    }

    #[test]
    fn a_panic_of_a_job_continues_in_its_caller_and_the_thread_goes_on() {
        let disk = DiskThread::named("reader");
        let panic = catch_unwind(AssertUnwindSafe(|| disk.run(in_20_s(), |_| panic!("on purpose")))).err().unwrap();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
        assert_eq!(run_7(&disk), Some(7));
    }
}
