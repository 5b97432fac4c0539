//! Diagnostics on standard error, one line each. simple_logger decides what is worth a line; the line is written here,
//! because its own way of printing panics when standard error is gone, and a daemon outlives its terminal.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

struct Logger {
    levels: SimpleLogger,
    /// journald takes the urgency from the beginning of the line.
    priorities: bool,
}

/// No timestamps: procd and journald stamp lines themselves, and a router's clock is wrong at this hour.
pub fn start(level: &str, priorities: bool) {
    let level = level.parse().unwrap_or(LevelFilter::Info);
    let logger = Logger { levels: SimpleLogger::new().with_level(level), priorities };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.levels.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            // Nowhere left to complain to.
            let _ = std::io::stderr().write_all(line(record, self.priorities).as_bytes());
        }
    }

    fn flush(&self) {}
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
    use super::*;

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
}
