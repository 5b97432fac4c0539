//! Parses the command line, runs the program and sets the exit code: 0 for success, 2 for a mistake in the command line
//! or the settings, 1 for every other error.

use std::io::Write;
use std::process::ExitCode;

use net_pulse::cli::{self, Action};
use net_pulse::error::{Error, ErrorKind};
use net_pulse::{app, log, subcommands};
use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    // With SIGXFSZ blocked, a write beyond the file size limit (RLIMIT_FSIZE) returns an error, as on a full disk.
    // Otherwise the signal would kill the process.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    let action = match cli::utf8_arguments(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(arguments) => cli::parse(&arguments),
        Err(message) => Action::Invalid(message),
    };
    match action {
        Action::Print(text) => print(&text),
        Action::Invalid(message) => fail(&Error::usage(message)),
        Action::Token(flags) => match subcommands::token::run(&flags) {
            Ok(output) => {
                output.note.iter().for_each(|note| log::notice(note));
                print(&output.token)
            }
            Err(error) => fail(&error),
        },
        Action::Check(flags) => match subcommands::check::run(&flags, app::find_zone) {
            Ok(report) => {
                let printed = print(report.lines.trim_end());
                report.verdict().map_or_else(|error| fail(&error), |()| printed)
            }
            Err(error) => fail(&error),
        },
        Action::Health(flags) => {
            subcommands::health::run(&flags).map_or_else(|error| fail(&error), |line| print(&line))
        }
        Action::Run(flags) => {
            let exit_now = || {
                log::finish(app::LOG_TIMEOUT);
                std::process::exit(0)
            };
            let result = app::run(&flags, exit_now);
            let code = result.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS);
            log::finish(log::FATAL_TIMEOUT);
            code
        }
    }
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        // A closed pipe (`net-pulse --help | head -1`) is no error; a full disk (`net-pulse token >file`) is one.
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => fail(&Error::system("standard output", cause)),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: &Error) -> ExitCode {
    log::fatal(&error.to_string());
    ExitCode::from(if error.kind == ErrorKind::Usage { 2 } else { 1 })
}
