//! What the user typed. It only collects texts: `config` says what they mean.

use argh::FromArgs;

/// Tells where your bandwidth went: samples the network interfaces, keeps the history, serves an API and a page.
#[derive(FromArgs, Debug, Default)]
struct Typed {
    /// address to listen on; repeatable (default: all, IPv4 and IPv6)
    #[argh(option, arg_name = "address")]
    host: Vec<String>,
    /// port to listen on (default 8000); 0 picks one and the log says which
    #[argh(option, arg_name = "number")]
    port: Option<String>,
    /// further name that browsers may use for this machine; repeatable (default: its host name and addresses)
    #[argh(option, arg_name = "name")]
    allowed_host: Vec<String>,
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
    /// where counters are read: auto (default), getstats, getlink or sysfs
    #[argh(option, arg_name = "name")]
    source: Option<String>,
    /// interface to watch, * allowed; repeatable, beats the ignore rules (default: all that matter)
    #[argh(option, arg_name = "pattern")]
    interface: Vec<String>,
    /// interface to leave out, * allowed; repeatable
    #[argh(option, arg_name = "pattern")]
    ignore: Vec<String>,
    /// interface of the headline figure (default: found by its traffic)
    #[argh(option, arg_name = "name")]
    primary: Option<String>,
    /// print the version and end
    #[argh(switch)]
    version: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The settings given, by key.
    Run(Vec<(&'static str, String)>),
    /// Something to print, and be done.
    Say(String),
    /// Not understood: one sentence.
    Wrong(String),
}

pub fn parse(arguments: &[String]) -> Command {
    let borrowed: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match Typed::from_args(&["net-pulse"], &borrowed) {
        Ok(typed) if typed.version => Command::Say(format!("net-pulse {}", env!("CARGO_PKG_VERSION"))),
        Ok(typed) => Command::Run(typed.settings()),
        Err(early) if early.status.is_ok() => Command::Say(early.output.trim_end().to_string()),
        Err(early) => Command::Wrong(one_sentence(&early.output)),
    }
}

impl Typed {
    fn settings(self) -> Vec<(&'static str, String)> {
        let one = |key, value: Option<String>| value.map(|value| (key, value)).into_iter().collect::<Vec<_>>();
        let many = |key, values: Vec<String>| values.into_iter().map(|value| (key, value)).collect();
        [
            many("host", self.host),
            one("port", self.port),
            many("allowed_host", self.allowed_host),
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

/// argh answers in several lines, and may repeat its usage: the first says what is wrong.
fn one_sentence(output: &str) -> String {
    let first = output.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("arguments not understood");
    let first = first.trim_end_matches('.');
    let mut lowered = first.chars();
    let head = lowered.next().map(|letter| letter.to_ascii_lowercase());
    format!("{}{}; see net-pulse --help", head.map(String::from).unwrap_or_default(), lowered.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn words(line: &str) -> Command {
        parse(&line.split_whitespace().map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn every_flag_of_the_table_is_understood_and_no_other() {
        for setting in &SETTINGS {
            let Some(flag) = setting.flag else { continue };
            assert_eq!(words(&format!("{flag} x")), Command::Run(vec![(setting.key, "x".to_string())]));
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

    #[test]
    fn repeats_are_kept_in_order() {
        let expect = vec![("host", "::1".to_string()), ("host", "127.0.0.1".to_string())];
        assert_eq!(words("--host ::1 --host 127.0.0.1"), Command::Run(expect));
    }

    #[test]
    fn wrong_words_are_one_sentence() {
        let check = |line, expect: &str| assert_eq!(words(line), Command::Wrong(expect.to_string()));
        check("--prot 80", "unrecognized argument: --prot; see net-pulse --help");
        check("--port", "no value provided for option '--port'; see net-pulse --help");
        check("surplus", "unrecognized argument: surplus; see net-pulse --help");
        assert_eq!(words("--version"), Command::Say(format!("net-pulse {}", env!("CARGO_PKG_VERSION"))));
    }
}
