//! What the user typed. It only collects texts: `config` says what they mean.

use std::ffi::OsString;

use argh::{FromArgs, SubCommands};

use crate::config::{Kind, SETTINGS};
use crate::near::suggestion;
use crate::text::printable;

/// Tells where your bandwidth went: samples the network interfaces, keeps the history, serves an API and a page.
#[derive(FromArgs, Debug, Default)]
struct Typed {
    /// address to listen on, there already or not; repeatable (default: all, IPv4 and IPv6)
    #[argh(option, arg_name = "address")]
    host: Vec<String>,
    /// port to listen on (default 8000); 0 picks one and the log says which
    #[argh(option, arg_name = "number")]
    port: Option<String>,
    /// further name that browsers may use for this machine; repeatable (default: its host name and addresses)
    #[argh(option, arg_name = "name")]
    allowed_host: Vec<String>,
    /// ask for the access token for reading too, not for changes alone
    #[argh(switch)]
    private: bool,
    /// let everybody who can reach the port change things, without the access token
    #[argh(switch)]
    open: bool,
    /// file of the history (default: /var/lib/net-pulse/net-pulse.db for root, else in $XDG_STATE_HOME/net-pulse)
    #[argh(option, arg_name = "path")]
    database: Option<String>,
    /// seconds between two samples (default 30)
    #[argh(option, arg_name = "seconds")]
    interval: Option<String>,
    /// what the history lies on: disk (saved every 5 minutes, the default) or flash (hourly)
    #[argh(option, arg_name = "kind")]
    media: Option<String>,
    /// seconds between two saves, in place of what --media means
    #[argh(option, arg_name = "seconds")]
    flush: Option<String>,
    /// the history never grows past this (default 32M); the finest is given up first
    #[argh(option, arg_name = "size")]
    max_size: Option<String>,
    /// POSIX zone or a zoneinfo name, for days and months (default: the system's)
    #[argh(option, arg_name = "zone")]
    timezone: Option<String>,
    /// error, warn, info (default), debug or trace
    #[argh(option, arg_name = "level")]
    log_level: Option<String>,
    /// where counters are read: auto (default), getstats, getlink or sysfs, which knows no altnames
    #[argh(option, arg_name = "name")]
    source: Option<String>,
    /// interface to watch, * allowed, or kind:veth for all of a kind; repeatable, beats the ignore rules (default: all that matter)
    #[argh(option, arg_name = "pattern")]
    interface: Vec<String>,
    /// interface to leave out, * or kind:veth allowed, or with ! in front to keep whatever the rules say; repeatable
    #[argh(option, arg_name = "pattern")]
    ignore: Vec<String>,
    /// interface of the headline figure, always watched (default: found by its traffic)
    #[argh(option, arg_name = "name")]
    primary: Option<String>,
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

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The settings given, by key.
    Run(Vec<(&'static str, String)>),
    /// Print the access token; the settings given say whose.
    Token(Vec<(&'static str, String)>),
    /// Look at everything that the settings given speak of.
    Check(Vec<(&'static str, String)>),
    /// Ask the daemon how it is; the settings given say where it listens.
    Health(Vec<(&'static str, String)>),
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
    let ordered = match ordered(arguments) {
        Ok(ordered) => ordered,
        Err(sentence) => return Command::Wrong(sentence),
    };
    let borrowed: Vec<&str> = ordered.iter().map(String::as_str).collect();
    match Typed::from_args(&["net-pulse"], &borrowed) {
        Ok(typed) if typed.version => Command::Say(format!("net-pulse {}", env!("CARGO_PKG_VERSION"))),
        Ok(typed) => match typed.command {
            Some(Sub::Token(_)) => Command::Token(typed.settings()),
            Some(Sub::Check(Check { health: true })) => Command::Health(typed.settings()),
            Some(Sub::Check(Check { health: false })) => Command::Check(typed.settings()),
            None => Command::Run(typed.settings()),
        },
        Err(early) if early.status.is_ok() => Command::Say(with_short(early.output.trim_end())),
        Err(early) => Command::Wrong(one_sentence(&early.output)),
    }
}

impl Typed {
    fn settings(self) -> Vec<(&'static str, String)> {
        let one = |key, value: Option<String>| value.map(|value| (key, value)).into_iter().collect::<Vec<_>>();
        let switch = |key, given: bool| given.then(|| (key, "true".to_string())).into_iter().collect::<Vec<_>>();
        let many = |key, values: Vec<String>| values.into_iter().map(|value| (key, value)).collect();
        [
            many("host", self.host),
            one("port", self.port),
            many("allowed_host", self.allowed_host),
            switch("private", self.private),
            switch("open", self.open),
            one("database", self.database),
            one("interval", self.interval),
            one("media", self.media),
            one("flush", self.flush),
            one("max_size", self.max_size),
            one("timezone", self.timezone),
            one("log_level", self.log_level),
            one("source", self.source),
            many("interfaces", self.interface),
            many("ignore", self.ignore),
            one("primary", self.primary),
        ]
        .concat()
    }
}

/// The arguments as argh takes them: options before the command, values behind their options, `--help` in full.
fn ordered(arguments: &[String]) -> Result<Vec<String>, String> {
    let (mut options, mut rest) = (Vec::new(), Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.push(word.clone());
            rest.extend(words.cloned());
            break;
        }
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        match SETTINGS.iter().find(|setting| setting.flag == Some(name)) {
            Some(setting) if setting.kind == Kind::Switch => match value {
                Some(_) => {
                    return Err(format!("{name} takes no value: leave out what follows it; see net-pulse --help"));
                }
                None => options.push(name.to_string()),
            },
            Some(setting) if setting.kind != Kind::List && options.iter().any(|known| known == name) => {
                return Err(format!("{name} is given twice; see net-pulse --help"));
            }
            Some(_) => {
                let value = value.map(str::to_string).or_else(|| words.next().cloned());
                // Where a command stands before it, argh would take that for the value.
                let value =
                    value.ok_or_else(|| format!("no value provided for option '{name}'; see net-pulse --help"))?;
                options.extend([name.to_string(), value]);
            }
            None if word == "--version" => options.push(word.clone()),
            None if word == "-h" => rest.push(HELP.to_string()),
            None => rest.push(word.clone()),
        }
    }
    options.append(&mut rest);
    Ok(options)
}

const HELP: &str = "--help";

/// argh knows nothing of `-h`, and so its help does not.
fn with_short(help: &str) -> String {
    help.replace("--help, help      ", "--help, -h, help  ")
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
        for setting in &SETTINGS {
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

    /// The help says of each flag what the table says, and its default.
    #[test]
    fn the_help_says_what_the_table_says() {
        fn bare(text: &str) -> String {
            let mut words = String::new();
            let mut rest = text;
            while let Some(at) = rest.find("(default") {
                words.push_str(&rest[..at]);
                rest = rest[at..].split_once(')').map_or("", |(_, after)| after);
            }
            words.push_str(rest);
            let words = words.replace(", the default", "");
            words.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ;", ";").replace(" ,", ",")
        }
        let Command::Say(help) = words("--help") else { panic!("no help") };
        let options = help.split("Options:").nth(1).expect("a list of options");
        let told: Vec<String> = options
            .split("\n  -")
            .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter_map(|part| Some(format!("--{}", part.strip_prefix('-')?)))
            .collect();
        for setting in &SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let line = told.iter().find(|line| line.split(' ').next() == Some(flag));
            let line = line.unwrap_or_else(|| panic!("{flag} is not in the help: {told:?}"));
            assert!(bare(line).ends_with(&bare(setting.help)), "{flag}: {line}\n{}", setting.help);
            let said = setting.default.is_empty() || setting.kind == Kind::Switch || setting.key == "flush";
            assert!(said || line.contains(setting.default) || line.contains("the default"), "{line}");
        }
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
        for setting in &SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let doubled = format!("{flag}{}", &flag[flag.len() - 1..]);
            near(&doubled, &doubled, flag);
        }
        assert_eq!(words("--version"), Command::Say(format!("net-pulse {}", env!("CARGO_PKG_VERSION"))));
    }
}
