//! Parses the command line. The flags of settings, and their part of `--help`, come from the table in `config`; argh
//! parses the subcommands and writes the rest of the help. The values stay text here: `config` checks them.

use std::ffi::OsString;

use argh::{FromArgs, SubCommands};

use crate::config::{SETTINGS, Setting, SettingType};
use crate::suggest::suggestion;
use crate::text::printable;

/// Samples the traffic of the network interfaces, keeps its history, and serves an HTTP API and a page.
#[derive(FromArgs, Debug, Default)]
struct Arguments {
    /// print the version and exit
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<ParsedSubcommand>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum ParsedSubcommand {
    Token(Token),
    Check(Check),
}

/// Prints the access token, which is needed for changes from other machines; creates it if there is none.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "token")]
struct Token {}

/// Checks the settings, the interfaces, the history and the running net-pulse, and changes nothing. The exit status is
/// 0 when nothing is wrong, 1 for a fault, 2 for a wrong option. Give it the options that net-pulse was started with.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
struct Check {
    /// only ask the running net-pulse for its health; exit status 0 if healthy or degraded
    #[argh(switch)]
    health: bool,
}

/// The settings given as flags: pairs of setting key and value, in the order of the command line.
type Flags = Vec<(&'static str, String)>;

/// Action that the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the daemon.
    Run(Flags),
    /// `net-pulse token`: print the access token.
    Token(Flags),
    /// `net-pulse check`: check the settings, the system and the running daemon.
    Check(Flags),
    /// `net-pulse check --health`: ask the running daemon for its health.
    Health(Flags),
    /// Print this text (help or version) and exit.
    Print(String),
    /// The command line is wrong: the error message.
    Invalid(String),
}

/// Environment variables from which the default database path is derived.
const PATH_VARIABLES: [&str; 2] = ["HOME", "XDG_STATE_HOME"];

/// Returns the arguments as text. Fails with a message where an argument, a variable `NETPULSE_*` or one of
/// `PATH_VARIABLES` is not UTF-8: replacing the invalid bytes would turn a path into the path of another file.
pub fn utf8_arguments(
    arguments: impl Iterator<Item = OsString>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<String>, String> {
    let not_utf8 = |what: &str, value: &OsString| {
        let shown = printable(&value.to_string_lossy(), usize::MAX);
        format!("{what} is not UTF-8: '{shown}'; give it in UTF-8")
    };
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let checked = name.starts_with("NETPULSE_") || PATH_VARIABLES.contains(&&*name);
        if checked && value.to_str().is_none() {
            return Err(not_utf8(&name, &value));
        }
    }
    let numbered = arguments.enumerate();
    numbered
        .map(|(at, word)| word.into_string().map_err(|word| not_utf8(&format!("argument {}", at + 1), &word)))
        .collect()
}

/// Parses the arguments without the program name.
pub fn parse(arguments: &[String]) -> Action {
    let (flags, rest) = match split_flags(arguments) {
        Ok(split) => split,
        Err(message) => return Action::Invalid(message),
    };
    let borrowed: Vec<&str> = rest.iter().map(String::as_str).collect();
    match Arguments::from_args(&["net-pulse"], &borrowed) {
        Ok(parsed) if parsed.version => Action::Print(format!("net-pulse {}", env!("CARGO_PKG_VERSION"))),
        Ok(parsed) => match parsed.command {
            Some(ParsedSubcommand::Token(_)) => Action::Token(flags),
            Some(ParsedSubcommand::Check(Check { health: true })) => Action::Health(flags),
            Some(ParsedSubcommand::Check(Check { health: false })) => Action::Check(flags),
            None => Action::Run(flags),
        },
        Err(exit) if exit.status.is_ok() => Action::Print(full_help(exit.output.trim_end())),
        Err(exit) => Action::Invalid(parse_error(&exit.output)),
    }
}

/// Separates the flags of settings, before and after a subcommand, from the other arguments. Returns the flags, and the
/// other arguments for argh: with `--version` first, because argh accepts it only before the subcommand, and with
/// `--help` for `-h`.
fn split_flags(arguments: &[String]) -> Result<(Flags, Vec<String>), String> {
    let (mut flags, mut for_argh, mut rest) = (Flags::new(), Vec::new(), Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.push(word.clone());
            rest.extend(words.cloned());
            break;
        }
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let Some(setting) = SETTINGS.iter().find(|setting| setting.flag == Some(name)) else {
            match word.as_str() {
                "--version" => for_argh.push(word.clone()),
                "-h" => rest.push(HELP.to_string()),
                _ => rest.push(word.clone()),
            }
            continue;
        };
        let repeated = flags.iter().any(|(key, _)| *key == setting.key);
        match (setting.kind, value) {
            (SettingType::Switch, Some(_)) => {
                return Err(format!(
                    "{name} takes no value: leave out the = and the text after it; see net-pulse --help"
                ));
            }
            (SettingType::Switch, None) if repeated => {}
            (SettingType::Switch, None) => flags.push((setting.key, "true".to_string())),
            (kind, _) if repeated && kind != SettingType::List => {
                return Err(format!("{name} is given twice; see net-pulse --help"));
            }
            (_, value) => {
                // The next argument is the value, even if it looks like a flag or a subcommand.
                let value = value.map(str::to_string).or_else(|| words.next().cloned());
                let value =
                    value.ok_or_else(|| format!("no value provided for option '{name}'; see net-pulse --help"))?;
                flags.push((setting.key, value));
            }
        }
    }
    for_argh.append(&mut rest);
    Ok((flags, for_argh))
}

const HELP: &str = "--help";

/// Adds `-h` to the help that argh writes, and the flags of all settings to the main help. The help of a subcommand
/// does not list the settings.
fn full_help(help: &str) -> String {
    const USAGE: &str = "Usage: net-pulse";
    const OPTIONS: &str = "Options:\n";
    let help = help.replace("--help, help      ", "--help, -h, help  ");
    if !help.starts_with(&format!("{USAGE} [--version]")) {
        return help;
    }
    let flags = || SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag?)));
    let usage: String = flags().map(|(setting, flag)| flag_usage(setting, flag)).collect();
    let options: String = flags().map(|(setting, flag)| flag_help(flag, &setting.help_with_default())).collect();
    help.replacen(USAGE, &format!("{USAGE}{usage}"), 1).replacen(OPTIONS, &format!("{OPTIONS}{options}"), 1)
}

/// The flag in the usage line, such as ` [--port <number>]`.
fn flag_usage(setting: &Setting, flag: &str) -> String {
    match setting.kind {
        SettingType::Switch => format!(" [{flag}]"),
        SettingType::List => format!(" [{flag} <{}...>]", setting.argument),
        _ => format!(" [{flag} <{}>]", setting.argument),
    }
}

/// The flag in the list of options, in the layout of argh: the text begins after 20 columns, and lines have at most 80
/// columns.
fn flag_help(flag: &str, text: &str) -> String {
    let (mut lines, mut line) = (String::new(), format!("  {flag:<17}"));
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > 80 {
            lines = lines + &line + "\n";
            line = " ".repeat(19);
        }
        line = line + " " + word;
    }
    lines + &line + "\n"
}

/// Turns the output of argh into one error message: its first line, with a suggestion where the argument resembles
/// a known word.
fn parse_error(output: &str) -> String {
    let first = output.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("arguments not understood");
    let first = first.trim_end_matches('.');
    let mut rest = first.chars();
    let initial = rest.next().map(|letter| letter.to_ascii_lowercase());
    let suggested = first.split_once("argument: ").and_then(|(_, word)| probably_meant(word));
    let suggested = suggested.map_or(String::new(), |word| format!("did you mean {word}? "));
    format!("{}{}; {suggested}see net-pulse --help", initial.map(String::from).unwrap_or_default(), rest.as_str())
}

/// The flag or subcommand that the user probably meant by the unknown argument `word`.
fn probably_meant(word: &str) -> Option<&'static str> {
    // A word that the user may type, and the text that the message suggests for it.
    const SPECIAL: [(&str, &str); 3] = [("--version", "--version"), (HELP, HELP), ("--health", "check --health")];
    if let Some((_, text)) = SPECIAL.iter().find(|(name, text)| *name == word && name != text) {
        return Some(text);
    }
    let flags = SETTINGS.iter().filter_map(|setting| setting.flag);
    let commands = ParsedSubcommand::COMMANDS.iter().map(|command| command.name);
    let found = suggestion(word, flags.chain(commands).chain(SPECIAL.map(|(name, _)| name)))?;
    Some(SPECIAL.iter().find(|(name, _)| *name == found).map_or(found, |(_, text)| text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Action {
        parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_that_are_not_utf8_are_refused_by_name() {
        use std::os::unix::ffi::OsStringExt;
        let invalid = || OsString::from_vec(b"/tmp/\xff\x1b.db".to_vec());
        let parse_with = |arguments: Vec<OsString>, variable: &str| {
            utf8_arguments(arguments.into_iter(), [(OsString::from(variable), invalid())].into_iter())
        };
        assert_eq!(parse_with(vec!["--port".into(), "80".into()], "LANG"), Ok(vec!["--port".into(), "80".into()]));
        let refused = parse_with(vec!["--database".into(), invalid()], "LANG").unwrap_err();
        assert_eq!(refused, "argument 2 is not UTF-8: '/tmp/\u{fffd}?.db'; give it in UTF-8");
        for name in ["NETPULSE_DATABASE", "HOME", "XDG_STATE_HOME"] {
            assert!(parse_with(Vec::new(), name).unwrap_err().starts_with(&format!("{name} is not UTF-8")));
        }
    }

    #[test]
    fn every_flag_of_the_table_is_accepted_and_no_other() {
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let (line, value) = match setting.kind {
                SettingType::Switch => (flag.to_string(), "true"),
                _ => (format!("{flag} x"), "x"),
            };
            assert_eq!(parse_line(&line), Action::Run(vec![(setting.key, value.to_string())]));
        }
        let Action::Print(help) = parse_line("--help") else { panic!("no help") };
        let known = |flag: &str| {
            ["--version", "--help"].contains(&flag) || SETTINGS.iter().any(|setting| setting.flag == Some(flag))
        };
        let flags =
            help.split_whitespace().filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches([']', ',']));
        // A help text may mention other flags; these must exist too.
        let unknown: Vec<_> = flags.filter(|flag| !known(flag)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    /// The help lists each flag with its text and default from the table of settings, in the layout of argh.
    #[test]
    fn the_help_lists_the_settings_of_the_table() {
        let Action::Print(help) = parse_line("--help") else { panic!("no help") };
        let (usage, options) =
            (help.lines().next().unwrap(), help.split("Options:\n").nth(1).expect("a list of options"));
        let flags = SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag?)));
        let mut lines = options.lines();
        for (setting, flag) in flags.clone() {
            let first = lines.next().expect("a line");
            assert_eq!(first[..20].trim(), flag);
            let more = lines.clone().take_while(|line| line.starts_with(&" ".repeat(20))).map(|line| &line[20..]);
            let text: Vec<&str> = [&first[20..]].into_iter().chain(more).collect();
            assert_eq!(text.join(" "), setting.help_with_default());
            lines.by_ref().take(text.len() - 1).for_each(drop);
            let no_default =
                setting.default.is_empty() || setting.kind == SettingType::Switch || setting.key == "flush";
            assert!(
                no_default || ["default", setting.default].iter().all(|word| text.join(" ").contains(word)),
                "{text:?}"
            );
        }
        // The flags that argh adds are in the same columns.
        assert_eq!(lines.next(), Some("  --version         print the version and exit"));
        assert_eq!(lines.next(), Some("  --help, -h, help  display usage information"));
        assert!(options.lines().all(|line| line.len() <= 80), "{options}");
        let expect: String = flags.map(|(setting, flag)| flag_usage(setting, flag)).collect();
        assert_eq!(usage, format!("Usage: net-pulse{expect} [--version] [<command>] [<args>]"));
        assert!(usage.starts_with("Usage: net-pulse [--host <address...>] [--port <number>] "), "{usage}");
        assert!(usage.contains(" [--private] [--open] [--database <path>] "), "{usage}");
    }

    #[test]
    fn only_lists_may_be_given_twice() {
        let twice = "--port is given twice; see net-pulse --help";
        for line in ["--port 80 --port 81", "--port=80 check --port=81", "--port 80 --help --port 81"] {
            assert_eq!(parse_line(line), Action::Invalid(twice.to_string()), "{line}");
        }
        // A value may look like a flag.
        let both = vec![("primary", "--port".to_string()), ("port", "80".to_string())];
        assert_eq!(parse_line("--primary --port --port 80"), Action::Run(both));
        assert_eq!(parse_line("--open --open"), Action::Run(vec![("open", "true".to_string())]));
    }

    #[test]
    fn options_may_stand_before_or_after_a_subcommand() {
        let database = || vec![("database", "x".to_string())];
        let port = || vec![("port", "80".to_string())];
        assert_eq!(parse_line("token"), Action::Token(vec![]));
        assert_eq!(parse_line("--database x token"), Action::Token(database()));
        assert_eq!(parse_line("token --database x"), Action::Token(database()));
        assert_eq!(parse_line("token --database=x"), Action::Token(database()));
        // The value of an option may be the name of a subcommand.
        assert_eq!(parse_line("--database token"), Action::Run(vec![("database", "token".to_string())]));
        assert_eq!(parse_line("check --database check"), Action::Check(vec![("database", "check".to_string())]));
        assert_eq!(parse_line("check"), Action::Check(vec![]));
        assert_eq!(parse_line("check --health"), Action::Health(vec![]));
        for line in ["--port 80 check --health", "check --port 80 --health", "check --health --port=80"] {
            assert_eq!(parse_line(line), Action::Health(port()), "{line}");
        }
        let both = [port(), vec![("private", "true".to_string())], database()].concat();
        assert_eq!(parse_line("--port 80 check --private --database x"), Action::Check(both));
        let order = vec![("host", "::1".to_string()), ("host", "127.0.0.1".to_string())];
        assert_eq!(parse_line("--host ::1 check --host 127.0.0.1"), Action::Check(order));
        assert_eq!(parse_line("--port="), Action::Run(vec![("port", String::new())]));
        assert_eq!(parse_line("--database=a=b"), Action::Run(vec![("database", "a=b".to_string())]));
    }

    #[test]
    fn help_is_printed_for_every_usual_spelling() {
        let help = |line| match parse_line(line) {
            Action::Print(text) => text,
            other => panic!("{line}: {other:?}"),
        };
        assert!(help("--help").contains("--help, -h, help  display usage information"));
        for line in ["-h", "help", "--port 80 -h", "-h --port 80"] {
            assert_eq!(help(line), help("--help"), "{line}");
        }
        assert!(help("token --help").contains("access token") && help("check --help").contains("--health"));
        for line in ["check -h", "check --port 80 -h", "--port 80 check -h"] {
            assert_eq!(help(line), help("check --help"), "{line}");
        }
        assert_eq!(help("check --version"), help("--version"));
        assert_eq!(parse_line("--database -h"), Action::Run(vec![("database", "-h".to_string())]));
    }

    #[test]
    fn the_values_of_a_list_keep_their_order() {
        let expect = vec![("host", "::1".to_string()), ("host", "127.0.0.1".to_string())];
        assert_eq!(parse_line("--host ::1 --host 127.0.0.1"), Action::Run(expect));
    }

    #[test]
    fn a_wrong_argument_gives_one_sentence() {
        let check = |line: &str, expect: &str| assert_eq!(parse_line(line), Action::Invalid(expect.to_string()));
        check("--port", "no value provided for option '--port'; see net-pulse --help");
        check("check --port", "no value provided for option '--port'; see net-pulse --help");
        check("--private yes", "unrecognized argument: yes; see net-pulse --help");
        check("--private=yes", "--private takes no value: leave out the = and the text after it; see net-pulse --help");
        check("token surplus", "unrecognized argument: surplus; see net-pulse --help");
        check("surplus", "unrecognized argument: surplus; see net-pulse --help");
        let suggested = |line: &str, wrong: &str, meant: &str| {
            check(line, &format!("unrecognized argument: {wrong}; did you mean {meant}? see net-pulse --help"));
        };
        suggested("--prot 80", "--prot", "--port");
        suggested("-port 80", "-port", "--port");
        suggested("--Port=80", "--Port=80", "--port");
        suggested("--ports 80", "--ports", "--port");
        suggested("chekc", "chekc", "check");
        suggested("check --prot 80", "--prot", "--port");
        suggested("check --wealth", "--wealth", "check --health");
        suggested("--health", "--health", "check --health");
        suggested("--verison", "--verison", "--version");
        suggested("--token", "--token", "token");
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let doubled = format!("{flag}{}", &flag[flag.len() - 1..]);
            suggested(&doubled, &doubled, flag);
        }
        assert_eq!(parse_line("--version"), Action::Print(format!("net-pulse {}", env!("CARGO_PKG_VERSION"))));
    }
}
