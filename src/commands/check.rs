//! `net-pulse check`: everything that can be looked at without changing it, a line for each. Nothing is made, locked or
//! written, and a history that hangs is not waited for.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::unistd::{AccessFlags, access};

use super::health::{ask, judge};
use super::{PATIENCE, database, settings};
use crate::clock::Found;
use crate::config::{Config, Origin, SETTINGS, SMALLEST_SIZE};
use crate::detect::{fits, kind};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{self, Choice};
use crate::text::{counted, printable};
use crate::thread::{Mailbox, spawn};
use crate::{store, system, token};

/// Where time zones are found.
pub type FindZone = fn(&str) -> Result<Found>;

enum Outcome {
    Well(String),
    /// Nothing is wrong, but somebody may want to know.
    Note(String),
}
use Outcome::{Note, Well};

type Look = fn(&Config, FindZone) -> Result<Outcome>;

const LOOKS: [(&str, Look); 6] = [
    ("settings", given),
    ("time zone", zone),
    ("interfaces", interfaces),
    ("history", history),
    ("access token", access_token),
    ("net-pulse", daemon),
];

/// What to print, and how much of it is wrong.
pub struct Report {
    pub lines: String,
    faults: u64,
}

impl Report {
    pub fn verdict(&self) -> Result<()> {
        match self.faults {
            0 => Ok(()),
            faults => Err(Error::system("check", format!("{} found", counted(faults, "fault", "faults")))),
        }
    }
}

pub fn run(typed: &[(&'static str, String)], find_zone: FindZone) -> Result<Report> {
    let config = Arc::new(settings(typed)?);
    let mut answers = Vec::new();
    for (_, look) in LOOKS {
        // Threads end with the process: what one of them waits for keeps nothing else back.
        let there = Mailbox::default();
        answers.push(there.clone());
        let config = config.clone();
        spawn("check", 0, Box::new(move || there.put(look(&config, find_zone))))?;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut report = Report { lines: String::new(), faults: 0 };
    for ((name, _), answer) in LOOKS.iter().zip(answers) {
        let late = || Error::new(ErrorKind::Transient, format!("no answer within {} s", PATIENCE.as_secs()));
        let outcome = answer.take(deadline.saturating_duration_since(Instant::now()));
        let (word, text) = match outcome.unwrap_or_else(|| Err(late())) {
            Ok(Well(text)) => ("ok", text),
            Ok(Note(text)) => ("note", text),
            Err(error) => {
                report.faults += 1;
                ("fault", error.to_string())
            }
        };
        report.lines += &format!("{word:5} {name}: {text}\n");
    }
    Ok(report)
}

/// What was set on the page is in the history, which is not read here.
fn given(config: &Config, _: FindZone) -> Result<Outcome> {
    let given = SETTINGS.iter().filter(|setting| config.origin(setting.key) > Origin::Default);
    let given: Vec<&str> = given.map(|setting| config.said_by(setting.key)).collect();
    let given = if given.is_empty() { "no flag and no variable is given".to_string() } else { given.join(", ") };
    let log = config.text("syslog");
    let is_socket = |path: &str| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if log.is_empty() || is_socket(log) {
        return Ok(Well(given));
    }
    Ok(Note(format!("{given}; {} is no socket of a log: lines go to standard error", printable(log, 200))))
}

fn zone(config: &Config, find: FindZone) -> Result<Outcome> {
    let wanted = config.text("timezone");
    let found = find(wanted).map_err(|error| error.context(config.said_by("timezone")))?;
    let zone = found.zone.name().to_string();
    Ok(if found.warnings.is_empty() { Well(zone) } else { Note(format!("{zone}: {}", found.warnings.join("; "))) })
}

fn interfaces(config: &Config, _: FindZone) -> Result<Outcome> {
    let (mut source, note) = source::open(Choice::named(config.text("source")))?;
    let links = source.links()?;
    let there = |pattern: &str| links.iter().any(|link| fits(pattern, &link.name, &link.altnames, kind(link)));
    let asked = ["interfaces", "primary"].into_iter().flat_map(|key| {
        let missing = config.list(key).into_iter().filter(|pattern| !there(pattern));
        missing.map(move |pattern| config.naming(key, &pattern)).collect::<Vec<_>>()
    });
    let missing: Vec<String> = asked.collect();
    let seen = format!("{}, read by {}", counted(links.len() as u64, "interface", "interfaces"), source.name());
    if !missing.is_empty() {
        return Ok(Note(format!("{seen}; nothing that is there matches {}", missing.join(", "))));
    }
    Ok(note.map_or_else(|| Well(seen.clone()), |note| Note(format!("{seen}: {note}"))))
}

fn history(config: &Config, _: FindZone) -> Result<Outcome> {
    let path = database(config)?;
    let free = source::machine(&path).disk_free;
    let parents = path.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    if path.exists() {
        may_write(&path)?;
    }
    let Some(bytes) = store::examine(&path)? else {
        // What is missing of its directories is made at the start.
        let place = parents.into_iter().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        may_write(place)?;
        return Ok(Note(format!("{} is not there yet; {} are free for it", path.display(), size(free))));
    };
    parents.into_iter().take(1).try_for_each(may_write)?;
    let there = format!("{}, {}, and {} are free", path.display(), size(bytes), size(free));
    Ok(match (bytes, free < SMALLEST_SIZE) {
        (0, _) => Note(format!("{} is empty: the start makes a history of it", path.display())),
        (_, true) => Note(there),
        (_, false) => Well(there),
    })
}

/// In the unit in which it has at most four digits.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut at) = (bytes / 1024, 0);
    while amount >= 10_000 && at + 1 < UNITS.len() {
        (amount, at) = (amount / 1024, at + 1);
    }
    format!("{amount} {}", UNITS[at])
}

fn may_write(path: &Path) -> Result<()> {
    access(path, AccessFlags::R_OK | AccessFlags::W_OK).map_err(|errno| {
        let what = format!("{}; or ask as the user that net-pulse has", system::closed::remedy(path));
        Error::system(path.display(), std::io::Error::from(errno)).next(what)
    })
}

fn access_token(config: &Config, _: FindZone) -> Result<Outcome> {
    let file = token::file(&database(config)?);
    Ok(match token::read(&file)? {
        Some(_) => Well(format!("in {}", file.display())),
        None => Note(format!("there is none in {} yet; the start makes one", file.display())),
    })
}

fn daemon(config: &Config, _: FindZone) -> Result<Outcome> {
    let (address, answer) = ask(config, "/api/system/health")?;
    let verdict = judge(&answer).map_err(|fault| Error::system(address, fault))?;
    let own = std::path::absolute(database(config)?).unwrap_or_default();
    // A relative one is told from the directory in which the daemon was started, which is not known here.
    let another = |path: &Path| path.is_absolute() && path != own;
    if let Some(other) = verdict.database.filter(|other| another(Path::new(other))) {
        return Ok(Note(format!(
            "the one at {address} has another history, {other}; give its --database, or its --port"
        )));
    }
    let zone = verdict.zone.map_or(String::new(), |zone| format!("; its days are those of {zone}"));
    let word = if verdict.healthy { "healthy" } else { "degraded" };
    Ok(match verdict.reason {
        Some(reason) => Note(format!("{word}: {reason}{zone}")),
        None => Well(format!("{word}{zone}")),
    })
}
