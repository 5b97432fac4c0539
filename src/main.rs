//! Parse, run, exit code: 0 when it ended as it should, 2 for what the user typed, 1 for everything else.

use std::io::Write;
use std::process::ExitCode;

use net_pulse::cli::{self, Command};
use net_pulse::error::{Error, ErrorKind};
use net_pulse::{app, commands, log};
use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    // A limit on the size of files is as a full disk then: the write fails, and no more than that.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    let command = match cli::texts(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(arguments) => cli::parse(&arguments),
        Err(sentence) => Command::Wrong(sentence),
    };
    match command {
        Command::Say(text) => say(&text),
        Command::Wrong(sentence) => fail(&Error::usage(sentence)),
        Command::Token(typed) => match commands::token::run(&typed) {
            Ok(said) => {
                said.note.iter().for_each(|note| log::remark(note));
                say(&said.token)
            }
            Err(error) => fail(&error),
        },
        Command::Check(typed) => match commands::check::run(&typed, app::look_up_zone) {
            Ok(report) => {
                let said = say(report.lines.trim_end());
                report.verdict().map_or_else(|error| fail(&error), |()| said)
            }
            Err(error) => fail(&error),
        },
        Command::Health(typed) => commands::health::run(&typed).map_or_else(|error| fail(&error), |line| say(&line)),
        Command::Run(typed) => {
            let leave = || {
                log::finish(app::LAST_LINES);
                std::process::exit(0)
            };
            let ended = app::run(&typed, leave);
            let code = ended.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS);
            log::finish(log::LAST_WORDS);
            code
        }
    }
}

fn say(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        // `net-pulse --help | head -1` is no fault; a full disk behind `net-pulse token >file` is one.
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => fail(&Error::system("standard output", cause)),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: &Error) -> ExitCode {
    log::last_words(&error.to_string());
    ExitCode::from(if error.kind == ErrorKind::Usage { 2 } else { 1 })
}
