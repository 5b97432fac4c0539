//! Parse, run, exit code: 0 when it ended as it should, 2 for what the user typed, 1 for everything else.

use std::process::ExitCode;

use net_pulse::cli::{self, Command};
use net_pulse::error::ErrorKind;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match cli::parse(&arguments) {
        Command::Say(text) => {
            use std::io::Write;
            // `net-pulse --help | head -1` is no reason to panic.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Command::Wrong(sentence) => fail(&sentence, 2),
        Command::Run(typed) => match net_pulse::app::run(&typed) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.kind == ErrorKind::Usage => fail(&error.to_string(), 2),
            Err(error) => fail(&error.to_string(), 1),
        },
    }
}

fn fail(sentence: &str, code: u8) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "net-pulse: {sentence}");
    ExitCode::from(code)
}
