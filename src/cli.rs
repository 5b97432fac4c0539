//! What the user typed. It only collects texts: `config` says what they mean. The settings are taken out of the arguments,
//! and described in the help, by the table of `config`; the commands and the rest of the help are argh's.

use std::ffi::OsString;

use argh::{FromArgs, SubCommands};

use crate::config::{Kind, SETTINGS, Setting};
use crate::near::suggestion;
use crate::text::printable;

/// Tells where your bandwidth went: samples the network interfaces, keeps the history, serves an API and a page.
#[derive(FromArgs, Debug, Default)]
struct Typed {
    /// print the version and end
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Sub>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Sub {
    Token(Token),
    Check(Check),
}

/// Prints the access token, which changes from other machines need; makes one where there is none.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "token")]
struct Token {}

/// Looks at the settings, the interfaces, the history and the net-pulse that runs, and changes nothing; ends with 0 when nothing is wrong, else with 1. It takes the options that net-pulse was started with.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
struct Check {
    /// only ask the net-pulse that runs whether it reads and keeps what passes
    #[argh(switch)]
    health: bool,
}

/// The settings that were typed, by key.
type Given = Vec<(&'static str, String)>;

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run(Given),
    /// Print the access token; the settings given say whose.
    Token(Given),
    /// Look at everything that the settings given speak of.
    Check(Given),
    /// Ask the daemon how it is; the settings given say where it listens.
    Health(Given),
    /// Something to print, and be done.
    Say(String),
    /// Not understood: one sentence.
    Wrong(String),
}

/// Variables that say where something is, beside our own.
const PLACES: [&str; 2] = ["HOME", "XDG_STATE_HOME"];

/// The arguments as text, unless they or what is asked of the environment are none: made text with question marks in it, a
/// path would be that of another file. The sentence says which.
pub fn texts(
    arguments: impl Iterator<Item = OsString>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<String>, String> {
    let refused = |what: &str, value: &OsString| {
        let shown = printable(&value.to_string_lossy(), usize::MAX);
        format!("{what} is not UTF-8: '{shown}'; rename what it stands for")
    };
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let asked = name.starts_with("NETPULSE_") || PLACES.contains(&&*name);
        if asked && value.to_str().is_none() {
            return Err(refused(&name, &value));
        }
    }
    let numbered = arguments.enumerate();
    numbered
        .map(|(at, word)| word.into_string().map_err(|word| refused(&format!("argument {}", at + 1), &word)))
        .collect()
}

pub fn parse(arguments: &[String]) -> Command {
    let (given, rest) = match separated(arguments) {
        Ok(separated) => separated,
        Err(sentence) => return Command::Wrong(sentence),
    };
    let borrowed: Vec<&str> = rest.iter().map(String::as_str).collect();
    match Typed::from_args(&["net-pulse"], &borrowed) {
        Ok(typed) if typed.version => Command::Say(format!("net-pulse {}", env!("CARGO_PKG_VERSION"))),
        Ok(typed) => match typed.command {
            Some(Sub::Token(_)) => Command::Token(given),
            Some(Sub::Check(Check { health: true })) => Command::Health(given),
            Some(Sub::Check(Check { health: false })) => Command::Check(given),
            None => Command::Run(given),
        },
        Err(early) if early.status.is_ok() => Command::Say(whole_help(early.output.trim_end())),
        Err(early) => Command::Wrong(one_sentence(&early.output)),
    }
}

/// The settings, on whichever side of a command they stand, and what is left for argh: `--version` before the command,
/// `--help` in full.
fn separated(arguments: &[String]) -> Result<(Given, Vec<String>), String> {
    let (mut given, mut version, mut rest) = (Given::new(), Vec::new(), Vec::new());
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
                "--version" => version.push(word.clone()),
                "-h" => rest.push(HELP.to_string()),
                _ => rest.push(word.clone()),
            }
            continue;
        };
        let again = given.iter().any(|(key, _)| *key == setting.key);
        match (setting.kind, value) {
            (Kind::Switch, Some(_)) => {
                return Err(format!("{name} takes no value: leave out what follows it; see net-pulse --help"));
            }
            (Kind::Switch, None) if again => {}
            (Kind::Switch, None) => given.push((setting.key, "true".to_string())),
            (kind, _) if again && kind != Kind::List => {
                return Err(format!("{name} is given twice; see net-pulse --help"));
            }
            (_, value) => {
                // Whatever stands there is the value, a command's name too.
                let value = value.map(str::to_string).or_else(|| words.next().cloned());
                let value =
                    value.ok_or_else(|| format!("no value provided for option '{name}'; see net-pulse --help"))?;
                given.push((setting.key, value));
            }
        }
    }
    version.append(&mut rest);
    Ok((given, version))
}

const HELP: &str = "--help";

/// argh knows nothing of the settings and of `-h`, and so its help does not. That of a command has no settings either.
fn whole_help(help: &str) -> String {
    const USAGE: &str = "Usage: net-pulse";
    const OPTIONS: &str = "Options:\n";
    let help = help.replace("--help, help      ", "--help, -h, help  ");
    if !help.starts_with(&format!("{USAGE} [--version]")) {
        return help;
    }
    let flags = || SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag?)));
    let usage: String = flags().map(|(setting, flag)| usage_of(setting, flag)).collect();
    let options: String = flags().map(|(setting, flag)| described(flag, &setting.help_with_default())).collect();
    help.replacen(USAGE, &format!("{USAGE}{usage}"), 1).replacen(OPTIONS, &format!("{OPTIONS}{options}"), 1)
}

/// ` [--port <number>]`
fn usage_of(setting: &Setting, flag: &str) -> String {
    match setting.kind {
        Kind::Switch => format!(" [{flag}]"),
        Kind::List => format!(" [{flag} <{}...>]", setting.argument),
        _ => format!(" [{flag} <{}>]", setting.argument),
    }
}

/// As argh has it: the text begins in column 20, and lines have 80.
fn described(flag: &str, text: &str) -> String {
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

/// argh answers in several lines, and may repeat its usage: the first says what is wrong.
fn one_sentence(output: &str) -> String {
    let first = output.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("arguments not understood");
    let first = first.trim_end_matches('.');
    let mut lowered = first.chars();
    let head = lowered.next().map(|letter| letter.to_ascii_lowercase());
    let meant = first.split_once("argument: ").and_then(|(_, word)| meant(word));
    let meant = meant.map_or(String::new(), |word| format!("did you mean {word}? "));
    format!("{}{}; {meant}see net-pulse --help", head.map(String::from).unwrap_or_default(), lowered.as_str())
}

fn meant(word: &str) -> Option<&'static str> {
    const OTHERS: [(&str, &str); 3] = [("--version", "--version"), (HELP, HELP), ("--health", "check --health")];
    if let Some((_, said)) = OTHERS.iter().find(|(name, said)| *name == word && name != said) {
        return Some(said);
    }
    let flags = SETTINGS.iter().filter_map(|setting| setting.flag);
    let commands = Sub::COMMANDS.iter().map(|command| command.name);
    let found = suggestion(word, flags.chain(commands).chain(OTHERS.map(|(name, _)| name)))?;
    Some(OTHERS.iter().find(|(name, _)| *name == found).map_or(found, |(_, said)| said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Command {
        parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(b"/tmp/\xff\x1b.db".to_vec());
        let said = |arguments: Vec<OsString>, variable: &str| {
            texts(arguments.into_iter(), [(OsString::from(variable), odd())].into_iter())
        };
        assert_eq!(said(vec!["--port".into(), "80".into()], "LANG"), Ok(vec!["--port".into(), "80".into()]));
        let refused = said(vec!["--database".into(), odd()], "LANG").unwrap_err();
        assert_eq!(refused, "argument 2 is not UTF-8: '/tmp/\u{fffd}?.db'; rename what it stands for");
        for name in ["NETPULSE_DATABASE", "HOME", "XDG_STATE_HOME"] {
            assert!(said(Vec::new(), name).unwrap_err().starts_with(&format!("{name} is not UTF-8")));
        }
    }

    #[test]
    fn every_flag_of_the_table_is_understood_and_no_other() {
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let (line, value) = match setting.kind {
                Kind::Switch => (flag.to_string(), "true"),
                _ => (format!("{flag} x"), "x"),
            };
            assert_eq!(words(&line), Command::Run(vec![(setting.key, value.to_string())]));
        }
        let Command::Say(help) = words("--help") else { panic!("no help") };
        let known = |flag: &str| {
            ["--version", "--help"].contains(&flag) || SETTINGS.iter().any(|setting| setting.flag == Some(flag))
        };
        let flags =
            help.split_whitespace().filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches([']', ',']));
        // A help text may name another flag in its sentence: that one has to exist too.
        let unknown: Vec<_> = flags.filter(|flag| !known(flag)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    /// The help says of each flag what the table says, and its default, as argh would.
    #[test]
    fn the_help_says_what_the_table_says() {
        let Command::Say(help) = words("--help") else { panic!("no help") };
        let (usage, options) =
            (help.lines().next().unwrap(), help.split("Options:\n").nth(1).expect("a list of options"));
        let flags = SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag?)));
        let mut lines = options.lines();
        for (setting, flag) in flags.clone() {
            let first = lines.next().expect("a line");
            assert_eq!(first[..20].trim(), flag);
            let more = lines.clone().take_while(|line| line.starts_with(&" ".repeat(20))).map(|line| &line[20..]);
            let told: Vec<&str> = [&first[20..]].into_iter().chain(more).collect();
            assert_eq!(told.join(" "), setting.help_with_default());
            lines.by_ref().take(told.len() - 1).for_each(drop);
            let said = setting.default.is_empty() || setting.kind == Kind::Switch || setting.key == "flush";
            assert!(said || ["default", setting.default].iter().all(|word| told.join(" ").contains(word)), "{told:?}");
        }
        // What argh itself says, in the same columns.
        assert_eq!(lines.next(), Some("  --version         print the version and end"));
        assert_eq!(lines.next(), Some("  --help, -h, help  display usage information"));
        assert!(options.lines().all(|line| line.len() <= 80), "{options}");
        let expect: String = flags.map(|(setting, flag)| usage_of(setting, flag)).collect();
        assert_eq!(usage, format!("Usage: net-pulse{expect} [--version] [<command>] [<args>]"));
        assert!(usage.starts_with("Usage: net-pulse [--host <address...>] [--port <number>] "), "{usage}");
        assert!(usage.contains(" [--private] [--open] [--database <path>] "), "{usage}");
    }

    #[test]
    fn what_is_no_list_is_said_once() {
        let twice = "--port is given twice; see net-pulse --help";
        for line in ["--port 80 --port 81", "--port=80 check --port=81", "--port 80 --help --port 81"] {
            assert_eq!(words(line), Command::Wrong(twice.to_string()), "{line}");
        }
        // A value is no flag, whatever it looks like.
        let both = vec![("primary", "--port".to_string()), ("port", "80".to_string())];
        assert_eq!(words("--primary --port --port 80"), Command::Run(both));
        assert_eq!(words("--open --open"), Command::Run(vec![("open", "true".to_string())]));
    }

    #[test]
    fn options_stand_before_a_command_or_behind_it() {
        let database = || vec![("database", "x".to_string())];
        let port = || vec![("port", "80".to_string())];
        assert_eq!(words("token"), Command::Token(vec![]));
        assert_eq!(words("--database x token"), Command::Token(database()));
        assert_eq!(words("token --database x"), Command::Token(database()));
        assert_eq!(words("token --database=x"), Command::Token(database()));
        // The value of an option, whatever it is called.
        assert_eq!(words("--database token"), Command::Run(vec![("database", "token".to_string())]));
        assert_eq!(words("check --database check"), Command::Check(vec![("database", "check".to_string())]));
        assert_eq!(words("check"), Command::Check(vec![]));
        assert_eq!(words("check --health"), Command::Health(vec![]));
        for line in ["--port 80 check --health", "check --port 80 --health", "check --health --port=80"] {
            assert_eq!(words(line), Command::Health(port()), "{line}");
        }
        let both = [port(), vec![("private", "true".to_string())], database()].concat();
        assert_eq!(words("--port 80 check --private --database x"), Command::Check(both));
        let order = vec![("host", "::1".to_string()), ("host", "127.0.0.1".to_string())];
        assert_eq!(words("--host ::1 check --host 127.0.0.1"), Command::Check(order));
        assert_eq!(words("--port="), Command::Run(vec![("port", String::new())]));
        assert_eq!(words("--database=a=b"), Command::Run(vec![("database", "a=b".to_string())]));
    }

    #[test]
    fn help_is_where_it_is_looked_for() {
        let said = |line| match words(line) {
            Command::Say(help) => help,
            other => panic!("{line}: {other:?}"),
        };
        assert!(said("--help").contains("--help, -h, help  display usage information"));
        for line in ["-h", "help", "--port 80 -h", "-h --port 80"] {
            assert_eq!(said(line), said("--help"), "{line}");
        }
        assert!(said("token --help").contains("access token") && said("check --help").contains("--health"));
        for line in ["check -h", "check --port 80 -h", "--port 80 check -h"] {
            assert_eq!(said(line), said("check --help"), "{line}");
        }
        assert_eq!(said("check --version"), said("--version"));
        assert_eq!(words("--database -h"), Command::Run(vec![("database", "-h".to_string())]));
    }

    #[test]
    fn repeats_are_kept_in_order() {
        let expect = vec![("host", "::1".to_string()), ("host", "127.0.0.1".to_string())];
        assert_eq!(words("--host ::1 --host 127.0.0.1"), Command::Run(expect));
    }

    #[test]
    fn wrong_words_are_one_sentence() {
        let check = |line: &str, expect: &str| assert_eq!(words(line), Command::Wrong(expect.to_string()));
        check("--port", "no value provided for option '--port'; see net-pulse --help");
        check("check --port", "no value provided for option '--port'; see net-pulse --help");
        check("--private yes", "unrecognized argument: yes; see net-pulse --help");
        check("--private=yes", "--private takes no value: leave out what follows it; see net-pulse --help");
        check("token surplus", "unrecognized argument: surplus; see net-pulse --help");
        check("surplus", "unrecognized argument: surplus; see net-pulse --help");
        let near = |line: &str, wrong: &str, meant: &str| {
            check(line, &format!("unrecognized argument: {wrong}; did you mean {meant}? see net-pulse --help"));
        };
        near("--prot 80", "--prot", "--port");
        near("-port 80", "-port", "--port");
        near("--Port=80", "--Port=80", "--port");
        near("--ports 80", "--ports", "--port");
        near("chekc", "chekc", "check");
        near("check --prot 80", "--prot", "--port");
        near("check --wealth", "--wealth", "check --health");
        near("--health", "--health", "check --health");
        near("--verison", "--verison", "--version");
        near("--token", "--token", "token");
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let doubled = format!("{flag}{}", &flag[flag.len() - 1..]);
            near(&doubled, &doubled, flag);
        }
        assert_eq!(words("--version"), Command::Say(format!("net-pulse {}", env!("CARGO_PKG_VERSION"))));
    }
}
