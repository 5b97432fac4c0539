//! Writes log lines to standard error or, if the setting `syslog` names a socket, to the system log. simple_logger
//! decides which records to log, by level. It does not print them: its printing panics when standard error is closed,
//! and a daemon outlives its terminal.
//!
//! Logging never blocks the program. For a pipe or terminal, `stream` polls before it writes. Writing to a file on a
//! hanging disk or to a slow system log can block, so a thread named "log" takes those lines from `queue` and writes
//! them.

mod queue;
mod stream;
mod syslog;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::text::{counted, printable};
use crate::thread;
use queue::LineQueue;
use stream::Losses;
use syslog::Syslog;

/// How long a line may wait for room in standard error where losing it is worse than waiting: the reason for a failed
/// run, which a person or a supervisor is about to read, a note, and the lines of the log thread. Also the time for the
/// last lines at the exit.
const FATAL_TIMEOUT_MS: u16 = 500;
pub const FATAL_TIMEOUT: Duration = Duration::from_millis(FATAL_TIMEOUT_MS as u64);
const THREAD_STACK_BYTES: usize = 64 * 1024;

/// Lines for the log thread. Unset where lines are written directly.
static QUEUE: OnceLock<LineQueue> = OnceLock::new();
/// Whether the log thread writes to the system log. If it does, `fatal` can still use standard error.
static TO_SYSLOG: AtomicBool = AtomicBool::new(false);

/// A log line before it is formatted for standard error, the journal or syslog.
struct Line {
    level: Level,
    /// Such as `warning: `. Printed before the text, except in the system log, which has the level anyway.
    prefix: &'static str,
    text: String,
}

impl Line {
    fn new(level: Level, prefix: &'static str, text: &str) -> Line {
        // Interface names and requests come from outside: they must not move the cursor of a terminal or forge a line.
        Line { level, prefix, text: printable(text, usize::MAX) }
    }

    fn from_record(record: &Record) -> Line {
        let prefix = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        Line::new(record.level(), prefix, &record.args().to_string())
    }

    /// The warning that `lines` lines were lost.
    fn lost(lines: u32, why: &str) -> Line {
        Line::new(Level::Warn, "warning: ", &format!("{} lost: {why}", counted(lines.into(), "line was", "lines were")))
    }

    /// The priority of syslog(3): LOG_ERR, LOG_WARNING, LOG_INFO or LOG_DEBUG.
    fn severity(&self) -> u8 {
        match self.level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        }
    }
}

/// The logger behind the macros of the crate `log`.
struct Logger {
    levels: SimpleLogger,
    /// Whether standard error leads to systemd's journal.
    journal: bool,
    /// Locked from poll(2) to the write. Otherwise two threads could both write into room for one.
    losses: Mutex<Losses>,
}

/// Starts logging. Lines have no timestamps: procd and journald add them, and the clock of a router is often wrong
/// during the start. `level`: a level of the crate `log`, such as `info`. `syslog`: path of the system log's socket, or
/// empty.
pub fn start(level: &str, syslog: &str) {
    let level = level.parse().unwrap_or(LevelFilter::Info);
    let levels = SimpleLogger::new().with_level(level);
    let journal = is_journal();
    if !syslog.is_empty() {
        let socket = Syslog::new(PathBuf::from(syslog));
        let missing = Line::new(
            Level::Warn,
            "warning: ",
            &format!("{syslog} is not a log socket; the log goes to standard error"),
        );
        let mut was_accepted = true;
        let write = move |line: &Line| {
            let accepted = socket.send(line);
            if !accepted && was_accepted {
                to_stderr(&missing, journal);
            }
            was_accepted = accepted;
            if !accepted {
                to_stderr(line, journal);
            }
        };
        start_log_thread("the system log did not accept them", Box::new(write));
        TO_SYSLOG.store(QUEUE.get().is_some(), Ordering::Relaxed);
    } else if stream::is_file(&io::stderr()) {
        start_log_thread("the disk was too slow", Box::new(move |line| to_stderr(line, journal)));
    }
    if log::set_boxed_logger(Box::new(Logger { levels, journal, losses: Mutex::default() })).is_ok() {
        log::set_max_level(level);
        // The panic hook of the standard library would block where nothing reads standard error.
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            log::error!("thread '{}' {}", thread.name().unwrap_or("?"), panic.to_string().replace('\n', " "));
        }));
    }
}

/// Starts the log thread, which calls `write`. Where no thread can be started, lines go directly to standard error.
fn start_log_thread(loss_reason: &'static str, mut write: Box<dyn FnMut(&Line) + Send>) {
    let run = move || QUEUE.get_or_init(LineQueue::default).run(&mut write, loss_reason);
    if thread::spawn("log", THREAD_STACK_BYTES, Box::new(run)).is_ok() {
        QUEUE.get_or_init(LineQueue::default);
    }
}

/// Logs why the program ends, whatever the log level is. Where the log goes to the system log, the message is also
/// written to standard error if that is a terminal, or if the system log does not accept it in time.
pub fn fatal(message: &str) {
    write_always(Level::Error, message);
    if TO_SYSLOG.load(Ordering::Relaxed) && (!finish(FATAL_TIMEOUT) || io::stderr().is_terminal()) {
        to_stderr(&Line::new(Level::Error, "net-pulse: ", message), is_journal());
    }
}

/// Logs a note of a subcommand, whatever the log level is. The result of the subcommand goes to standard output.
pub fn notice(message: &str) {
    write_always(Level::Info, message);
}

/// Logs a line, whatever the log level is.
fn write_always(level: Level, message: &str) {
    let line = Line::new(level, "net-pulse: ", message);
    match QUEUE.get() {
        Some(queue) => queue.put(line),
        None => to_stderr(&line, is_journal()),
    }
}

/// Waits until the log thread has written all lines, at most `timeout`. `false` when the time was too short.
pub fn finish(timeout: Duration) -> bool {
    QUEUE.get().is_none_or(|queue| queue.wait_until_written(timeout))
}

/// Writes the line to standard error; it is lost where that takes longer than `FATAL_TIMEOUT_MS`.
fn to_stderr(line: &Line, journal: bool) {
    let _ = stream::write(&mut io::stderr(), stream::format_line(line, journal).as_bytes(), FATAL_TIMEOUT_MS);
}

fn is_journal() -> bool {
    stream::is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), &io::stderr())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.levels.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let line = Line::from_record(record);
            if let Some(queue) = QUEUE.get() {
                return queue.put(line);
            }
            let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
            losses.write(&mut io::stderr(), &line, self.journal);
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_prefix_and_no_control_characters() {
        let check = |level, text: &str, journal, expect: &str| {
            let arguments = format_args!("{text}").to_string();
            let line = Line::from_record(&Record::builder().level(level).args(format_args!("{arguments}")).build());
            assert_eq!(stream::format_line(&line, journal), expect);
        };
        check(Level::Info, "http://127.0.0.1:8000/", false, "http://127.0.0.1:8000/\n");
        check(Level::Info, "http://127.0.0.1:8000/", true, "<6>http://127.0.0.1:8000/\n");
        check(Level::Error, "no", true, "<3>error: no\n");
        check(Level::Warn, "a\nforged\u{1b}[2Jline", false, "warning: a?forged?[2Jline\n");
    }
}
