//! Diagnostics on standard error, one line each. simple_logger decides what is worth a line; the line is written here,
//! because its own way of printing panics when standard error is gone, and a daemon outlives its terminal.
//!
//! The program never waits for its reader: a pipe that is not read would otherwise stop sampling, saving and ending.
//! O_NONBLOCK would be the usual way, but it belongs to the open file, which is shared with the shell or supervisor
//! that started this, and would make their writes fail. So it asks before each write whether there is room. A file on a
//! disk that hangs always says that there is: to a file, a thread of its own writes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use simple_logger::SimpleLogger;

use crate::plural::counted;
use crate::thread;

/// How long the last words of a program that fails may wait: a person, or a supervisor, is about to read them.
const LAST_WORDS_MS: u16 = 500;

/// What a pipe that is writable takes at once: POSIX promises 512 bytes, Linux a page.
const PIPE_BUF: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Lines that a file has not taken so far, at most.
const QUEUED: usize = 64;
const QUEUE_STACK: usize = 64 * 1024;

/// Where standard error is a file.
static QUEUE: OnceLock<Queue> = OnceLock::new();

struct Logger {
    levels: SimpleLogger,
    /// journald takes the urgency from the beginning of the line.
    priorities: bool,
    /// Locked from the question whether there is room to the write, or two threads would share the room of one.
    losses: Mutex<Losses>,
}

/// What standard error has not taken.
#[derive(Default)]
struct Losses {
    lines: u32,
    /// It took the beginning of a line and not its end.
    cut: bool,
}

/// No timestamps: procd and journald stamp lines themselves, and a router's clock is wrong at this hour.
pub fn start(level: &str, priorities: bool) {
    let level = level.parse().unwrap_or(LevelFilter::Info);
    let levels = SimpleLogger::new().with_level(level);
    let logger = Logger { levels, priorities, losses: Mutex::default() };
    if is_file(&io::stderr()) {
        // Without the thread, the file is written to as anything else is.
        let write = move || QUEUE.get_or_init(Queue::default).run(&mut io::stderr(), priorities);
        if thread::spawn("log", QUEUE_STACK, Box::new(write)).is_ok() {
            QUEUE.get_or_init(Queue::default);
        }
    }
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
        // The standard library's own hook would wait for the reader.
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            log::error!("thread '{}' {}", thread.name().unwrap_or("?"), panic.to_string().replace('\n', " "));
        }));
    }
}

/// Why the program ends, whatever the level.
pub fn last_words(sentence: &str) {
    let line = format!("net-pulse: {sentence}\n");
    match QUEUE.get() {
        Some(queue) => queue.put(line),
        None => drop(write(&mut io::stderr(), line.as_bytes(), LAST_WORDS_MS)),
    }
}

/// Before the end: what is still to be written has a moment for it.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.wait(Duration::from_millis(LAST_WORDS_MS.into()));
    }
}

fn is_file(stream: &impl AsFd) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    fstat(stream.as_fd()).is_ok_and(|found| [SFlag::S_IFREG, SFlag::S_IFBLK].contains(&kind(found.st_mode)))
}

/// What a file has not taken so far. Adding to it never waits for the file.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<String>,
    /// Of these none is left: there was no room.
    lost: u32,
    writing: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: String) {
        let mut waiting = self.waiting();
        match waiting.lines.len() {
            QUEUED.. => waiting.lost = waiting.lost.saturating_add(1),
            _ => waiting.lines.push_back(line),
        }
        self.changed.notify_all();
    }

    fn run(&self, to: &mut (impl Write + AsFd), priorities: bool) {
        loop {
            let empty = |waiting: &mut Waiting| waiting.lines.is_empty();
            let waited = self.changed.wait_while(self.waiting(), empty);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
            waiting.writing = true;
            let (lines, lost) = (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.lost));
            drop(waiting);
            let lost = (lost > 0).then(|| lost_lines(lost, priorities, "the disk did not take them"));
            for line in lines.into_iter().chain(lost) {
                let _ = write(to, line.as_bytes(), LAST_WORDS_MS);
            }
            self.waiting().writing = false;
            self.changed.notify_all();
        }
    }

    fn wait(&self, patience: Duration) {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        drop(self.changed.wait_timeout_while(self.waiting(), patience, busy));
    }
}

fn lost_lines(lines: u32, priorities: bool, why: &str) -> String {
    let priority = if priorities { "<4>" } else { "" };
    let lost = counted(lines.into(), "line was", "lines were");
    format!("{priority}warning: {lost} lost: {why}\n")
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.levels.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let line = line(record, self.priorities);
            if let Some(queue) = QUEUE.get() {
                return queue.put(line);
            }
            let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
            losses.write(&mut io::stderr(), &line, self.priorities);
        }
    }

    fn flush(&self) {}
}

impl Losses {
    fn write(&mut self, to: &mut (impl Write + AsFd), line: &str, priorities: bool) {
        if self.lines > 0 {
            let end = if self.cut { "\n" } else { "" };
            let lost = format!("{end}{}", lost_lines(self.lines, priorities, "nobody read them"));
            if write(to, lost.as_bytes(), 0).is_err() {
                self.lines = self.lines.saturating_add(1);
                return;
            }
            *self = Losses::default();
        }
        if let Err(begun) = write(to, line.as_bytes(), 0) {
            *self = Losses { lines: 1, cut: begun };
        }
    }
}

/// All of it, in pieces for which there is room: a pipe that is writable takes PIPE_BUF bytes at once. The error says
/// whether a part is written.
fn write(to: &mut (impl Write + AsFd), text: &[u8], wait_ms: u16) -> Result<(), bool> {
    let mut rest = text;
    while !rest.is_empty() {
        let mut asked = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
        let there = poll(&mut asked, PollTimeout::from(wait_ms));
        if matches!(there, Ok(0)) {
            return Err(rest.len() < text.len());
        }
        match to.write(&rest[..rest.len().min(PIPE_BUF)]) {
            Ok(written) if written > 0 => rest = &rest[written..],
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            // It is gone for good: nowhere left to complain to.
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn line(record: &Record, priorities: bool) -> String {
    let (word, priority) = match record.level() {
        Level::Error => ("error: ", "<3>"),
        Level::Warn => ("warning: ", "<4>"),
        Level::Info => ("", "<6>"),
        Level::Debug | Level::Trace => ("", "<7>"),
    };
    let text = format!("{}{word}{}", if priorities { priority } else { "" }, record.args());
    // Interface names and requests are other people's bytes: they must not move a terminal's cursor or forge a line.
    let mut line: String = text.chars().map(|each| if each.is_control() { '?' } else { each }).collect();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::fcntl::OFlag;

    use super::*;

    /// Not inherited by what other tests start: it would never be at its end. (`io::pipe` takes Rust 1.87.)
    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn lines() {
        let check = |level, text: &str, priorities, expect: &str| {
            let arguments = format_args!("{text}").to_string();
            let got = line(&Record::builder().level(level).args(format_args!("{arguments}")).build(), priorities);
            assert_eq!(got, expect);
        };
        check(Level::Info, "http://127.0.0.1:8000/", false, "http://127.0.0.1:8000/\n");
        check(Level::Error, "no", true, "<3>error: no\n");
        check(Level::Warn, "a\nforged\u{1b}[2Jline", false, "warning: a?forged?[2Jline\n");
    }

    #[test]
    fn a_full_pipe_costs_lines_and_no_time() {
        use std::io::Read;
        let (mut reader, mut writer) = pipe();
        let mut losses = Losses::default();
        let text = format!("{}\n", "x".repeat(1000));
        for _ in 0..200 {
            losses.write(&mut writer, &text, false);
        }
        assert!(losses.lines > 100 && losses.lines < 200, "{}", losses.lines);
        let lost = losses.lines;
        let mut bytes = vec![0; 1001 * (200 - lost as usize)];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 200 - lost as usize, "whole lines");
        losses.write(&mut writer, "again\n", true);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("<4>warning: {lost} lines were lost: nobody read them\nagain\n"));
        assert_eq!(lost_lines(1, false, "why"), "warning: 1 line was lost: why\n");
    }

    #[test]
    fn a_file_on_a_disk_that_hangs_costs_lines_and_no_time() {
        use std::io::Read;
        let (mut reader, mut writer) = pipe();
        let queue = std::sync::Arc::new(Queue::default());
        (0..QUEUED + 7).for_each(|at| queue.put(format!("{at}\n")));
        queue.wait(Duration::from_millis(1));
        let other = queue.clone();
        std::thread::spawn(move || other.run(&mut writer, true));
        queue.wait(Duration::from_secs(20));
        let mut bytes = [0; 1000];
        let length = reader.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]);
        assert!(text.starts_with("0\n1\n2\n"), "{text}");
        assert!(text.ends_with("63\n<4>warning: 7 lines were lost: the disk did not take them\n"), "{text}");
    }

    #[test]
    fn what_is_a_file() {
        let (reader, writer) = pipe();
        assert!(!is_file(&reader) && !is_file(&writer));
        assert!(is_file(&File::open(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_file(&File::open("/dev/null").unwrap()));
    }

    #[test]
    fn a_line_larger_than_the_pipe_is_cut_and_ended() {
        use std::io::Read;
        let (mut reader, mut writer) = pipe();
        let mut losses = Losses::default();
        losses.write(&mut writer, &format!("{}\n", "x".repeat(1 << 20)), false);
        assert!(losses.cut && losses.lines == 1);
        losses.write(&mut writer, "unheard\n", false);
        assert!(losses.cut && losses.lines == 2);
        reader.read_exact(&mut vec![0; PIPE_BUF]).unwrap();
        losses.write(&mut writer, "", false);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.trim_start_matches('x'), "\nwarning: 2 lines were lost: nobody read them\n");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_loss_to_tell_of() {
        let (reader, mut writer) = pipe();
        drop(reader);
        let mut losses = Losses::default();
        losses.write(&mut writer, "nobody\n", false);
        assert_eq!(losses.lines, 0);
    }
}
