//! `net-pulse check`: everything that can be looked at without changing it, a line for each. Nothing is made, locked or
//! written, and a history that hangs is not waited for.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::unistd::{AccessFlags, access, geteuid};

use super::check::{PATIENCE, ask, environment, settings};
use crate::clock::Found;
use crate::config::{Config, Origin, SETTINGS, SMALLEST_SIZE};
use crate::detect::{fits, kind};
use crate::error::{Error, Result};
use crate::plural::counted;
use crate::source::{self, Choice};
use crate::thread::{Mailbox, spawn};
use crate::{store, token};

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
        let (word, text) = match answer.take(deadline.saturating_duration_since(Instant::now())) {
            Some(Ok(Well(text))) => ("ok", text),
            Some(Ok(Note(text))) => ("note", text),
            Some(Err(error)) => ("fault", error.to_string()),
            None => ("fault", format!("no answer within {} s", PATIENCE.as_secs())),
        };
        report.faults += u64::from(word == "fault");
        report.lines += &format!("{word:5} {name}: {text}\n");
    }
    Ok(report)
}

fn given(config: &Config, _: FindZone) -> Result<Outcome> {
    let given = SETTINGS.iter().filter(|setting| config.origin(setting.key) > Origin::Default);
    let given: Vec<&str> = given.map(|setting| config.said_by(setting.key)).collect();
    Ok(Well(if given.is_empty() { "none are given: all have their defaults".to_string() } else { given.join(", ") }))
}

fn zone(config: &Config, find: FindZone) -> Result<Outcome> {
    let wanted = config.text("timezone");
    let found = find(wanted).map_err(|error| error.context(config.said_by("timezone")))?;
    let zone = found.zone.name().to_string();
    Ok(if found.warnings.is_empty() { Well(zone) } else { Note(format!("{zone}: {}", found.warnings.join("; "))) })
}

fn interfaces(config: &Config, _: FindZone) -> Result<Outcome> {
    let word = config.text("source");
    let choice = Choice::NAMES.iter().find(|(_, name)| *name == word).map_or(Choice::Auto, |(choice, _)| *choice);
    let (mut source, note) = source::open(choice)?;
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
    let path = config.database(geteuid().is_root(), environment)?;
    let free = source::machine(&path).disk_free / 1024;
    let parents = path.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let Some(bytes) = store::look(&path)? else {
        // What is missing of its directories is made at the start.
        let place = parents.into_iter().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        may_write(place)?;
        return Ok(Note(format!("{} is not there yet; {free} KiB are free for it", path.display())));
    };
    may_write(&path)?;
    parents.into_iter().take(1).try_for_each(may_write)?;
    let there = format!("{}, {} KiB, and {free} KiB are free", path.display(), bytes / 1024);
    Ok(if free * 1024 < SMALLEST_SIZE { Note(there) } else { Well(there) })
}

fn may_write(path: &Path) -> Result<()> {
    access(path, AccessFlags::R_OK | AccessFlags::W_OK).map_err(|errno| {
        let what = format!("{}; ask as the user that net-pulse has, or as root", std::io::Error::from(errno));
        Error::system(path.display(), what)
    })
}

fn access_token(config: &Config, _: FindZone) -> Result<Outcome> {
    let file = token::file(&config.database(geteuid().is_root(), environment)?);
    Ok(match token::read(&file)? {
        Some(_) => Well(format!("in {}", file.display())),
        None => Note(format!("there is none in {} yet; the start makes one", file.display())),
    })
}

fn daemon(config: &Config, _: FindZone) -> Result<Outcome> {
    let said = ask(config)?;
    Ok(if said == "healthy" { Well(said) } else { Note(said) })
}
