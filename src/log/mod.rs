//! Diagnostics, one line each: on standard error or, where the settings name its socket, in the system's log. simple_logger
//! decides what is worth a line; the line is written here, because its own way of printing panics when standard error is
//! gone, and a daemon outlives its terminal.
//!
//! The program never waits for its reader: `stream` asks before it writes. A file on a disk that hangs, and a system's log
//! that is slow, can only be waited for: for these a thread of its own writes what `queue` keeps.

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
use queue::Queue;
use stream::Losses;
use syslog::Syslog;

/// How long the last words of a program that fails may wait: a person, or a supervisor, is about to read them.
const LAST_WORDS_MS: u16 = 500;
pub const LAST_WORDS: Duration = Duration::from_millis(LAST_WORDS_MS as u64);
const QUEUE_STACK: usize = 64 * 1024;

/// Where a thread of its own writes.
static QUEUE: OnceLock<Queue> = OnceLock::new();
/// That is the system's log: standard error can still be written to.
static SYSTEM: AtomicBool = AtomicBool::new(false);

/// What is told, before it has the form that its reader knows.
struct Line {
    level: Level,
    /// Before the text, where nothing else tells the level.
    word: &'static str,
    text: String,
}

impl Line {
    fn new(level: Level, word: &'static str, text: &str) -> Line {
        // Interface names and requests are other people's bytes: they must not move a terminal's cursor or forge a line.
        Line { level, word, text: printable(text, usize::MAX) }
    }

    fn of(record: &Record) -> Line {
        let word = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        Line::new(record.level(), word, &record.args().to_string())
    }

    fn of_losses(lines: u32, why: &str) -> Line {
        Line::new(Level::Warn, "warning: ", &format!("{} lost: {why}", counted(lines.into(), "line was", "lines were")))
    }

    /// As syslog(3) counts.
    fn severity(&self) -> u8 {
        match self.level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        }
    }
}

struct Logger {
    levels: SimpleLogger,
    journal: bool,
    /// Locked from the question whether there is room to the write, or two threads would share the room of one.
    losses: Mutex<Losses>,
}

/// No timestamps: procd and journald stamp lines themselves, and a router's clock is wrong at this hour. `syslog`: the
/// socket of the system's log, or nothing.
pub fn start(level: &str, syslog: &str) {
    let level = level.parse().unwrap_or(LevelFilter::Info);
    let levels = SimpleLogger::new().with_level(level);
    let journal = is_journal();
    if !syslog.is_empty() {
        let system = Syslog::at(PathBuf::from(syslog));
        let missing = Line::new(Level::Warn, "warning: ", &format!("{syslog} is no socket of a log: lines go here"));
        let mut there = true;
        let write = move |line: &Line| {
            let taken = system.takes(line);
            if !taken && there {
                to_stderr(&missing, journal);
            }
            there = taken;
            if !taken {
                to_stderr(line, journal);
            }
        };
        have_written("the system's log did not take them", Box::new(write));
        SYSTEM.store(QUEUE.get().is_some(), Ordering::Relaxed);
    } else if stream::is_file(&io::stderr()) {
        have_written("the disk did not take them", Box::new(move |line| to_stderr(line, journal)));
    }
    if log::set_boxed_logger(Box::new(Logger { levels, journal, losses: Mutex::default() })).is_ok() {
        log::set_max_level(level);
        // The standard library's own hook would wait for the reader.
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            log::error!("thread '{}' {}", thread.name().unwrap_or("?"), panic.to_string().replace('\n', " "));
        }));
    }
}

/// By a thread of its own. Without one, standard error is written to as anywhere else.
fn have_written(losing: &'static str, mut write: Box<dyn FnMut(&Line) + Send>) {
    let run = move || QUEUE.get_or_init(Queue::default).run(&mut write, losing);
    if thread::spawn("log", QUEUE_STACK, Box::new(run)).is_ok() {
        QUEUE.get_or_init(Queue::default);
    }
}

/// Why the program ends, whatever the level that was asked for. A person at a terminal does not read the system's log, and one
/// that is full takes nothing.
pub fn last_words(sentence: &str) {
    tell(Level::Error, sentence);
    if SYSTEM.load(Ordering::Relaxed) && (!finish(LAST_WORDS) || io::stderr().is_terminal()) {
        to_stderr(&Line::new(Level::Error, "net-pulse: ", sentence), is_journal());
    }
}

/// What a person who has typed a command is told beside its answer.
pub fn remark(sentence: &str) {
    tell(Level::Info, sentence);
}

fn tell(level: Level, sentence: &str) {
    let line = Line::new(level, "net-pulse: ", sentence);
    match QUEUE.get() {
        Some(queue) => queue.put(line),
        None => to_stderr(&line, is_journal()),
    }
}

/// Before the end: what is still to be written has so long for it. Whether that was enough.
pub fn finish(patience: Duration) -> bool {
    QUEUE.get().is_none_or(|queue| queue.wait(patience))
}

/// What it does not take within a moment is lost.
fn to_stderr(line: &Line, journal: bool) {
    let _ = stream::write(&mut io::stderr(), stream::text(line, journal).as_bytes(), LAST_WORDS_MS);
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
            let line = Line::of(record);
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
    fn lines() {
        let check = |level, text: &str, journal, expect: &str| {
            let arguments = format_args!("{text}").to_string();
            let line = Line::of(&Record::builder().level(level).args(format_args!("{arguments}")).build());
            assert_eq!(stream::text(&line, journal), expect);
        };
        check(Level::Info, "http://127.0.0.1:8000/", false, "http://127.0.0.1:8000/\n");
        check(Level::Info, "http://127.0.0.1:8000/", true, "<6>http://127.0.0.1:8000/\n");
        check(Level::Error, "no", true, "<3>error: no\n");
        check(Level::Warn, "a\nforged\u{1b}[2Jline", false, "warning: a?forged?[2Jline\n");
    }
}
