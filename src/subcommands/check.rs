//! `net-pulse check`: checks the settings, the time zone, the interfaces, the database, the token and the running
//! daemon, and prints one line for each. It creates, locks and writes nothing, and it does not wait for a hanging disk.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::unistd::{AccessFlags, access};

use super::health::{parse_health, request};
use super::{TIMEOUT, database_path, read_settings};
use crate::clock::FoundZone;
use crate::config::{Config, MIN_SIZE_BYTES, Origin, SETTINGS};
use crate::detect::{kind, matches_link};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{self, SourceChoice};
use crate::text::{counted, printable};
use crate::thread::{Queue, spawn};
use crate::{store, system, token};

/// Finds the time zone of a name.
pub type ZoneLookup = fn(&str) -> Result<FoundZone>;

/// Result of a check that found no fault.
enum Outcome {
    /// Printed as `ok`.
    Fine(String),
    /// Printed as `note`: nothing is wrong, but the user may want to know it.
    Note(String),
}
use Outcome::{Fine, Note};

type Check = fn(&Config, ZoneLookup) -> Result<Outcome>;

/// The checks, by the name in the output.
const CHECKS: [(&str, Check); 6] = [
    ("settings", check_settings),
    ("time zone", check_zone),
    ("interfaces", check_interfaces),
    ("history", check_history),
    ("access token", check_token),
    ("net-pulse", check_daemon),
];

/// The lines to print, and the number of faults in them.
pub struct Report {
    pub lines: String,
    faults: u64,
}

impl Report {
    /// An error where there are faults.
    pub fn verdict(&self) -> Result<()> {
        match self.faults {
            0 => Ok(()),
            faults => Err(Error::system("check", format!("{} found", counted(faults, "fault", "faults")))),
        }
    }
}

/// Runs the checks at the same time, each in its own thread.
pub fn run(flags: &[(&'static str, String)], find_zone: ZoneLookup) -> Result<Report> {
    let config = Arc::new(read_settings(flags)?);
    let mut results = Vec::new();
    for (_, check) in CHECKS {
        // The threads end with the process, so a check that hangs does not hold up the others.
        let queue = Queue::default();
        results.push(queue.clone());
        let config = config.clone();
        spawn("check", 0, Box::new(move || queue.put(check(&config, find_zone))))?;
    }
    let deadline = Instant::now() + TIMEOUT;
    let mut report = Report { lines: String::new(), faults: 0 };
    for ((name, _), result) in CHECKS.iter().zip(results) {
        let timed_out = || Error::new(ErrorKind::Transient, format!("no answer within {} s", TIMEOUT.as_secs()));
        let outcome = result.take(deadline.saturating_duration_since(Instant::now()));
        let (word, text) = match outcome.unwrap_or_else(|| Err(timed_out())) {
            Ok(Fine(text)) => ("ok", text),
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

/// Lists the flags and environment variables that are set, and checks that the log socket exists. It does not read the
/// settings that were changed on the page: these are in the database.
fn check_settings(config: &Config, _: ZoneLookup) -> Result<Outcome> {
    let given = SETTINGS.iter().filter(|setting| config.origin(setting.key) > Origin::Default);
    let given: Vec<&str> = given.map(|setting| config.set_by(setting.key)).collect();
    let given =
        if given.is_empty() { "no flags and no environment variables are set".to_string() } else { given.join(", ") };
    let log = config.text("syslog");
    let is_socket = |path: &str| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if log.is_empty() || is_socket(log) {
        return Ok(Fine(given));
    }
    Ok(Note(format!("{given}; {} is not a log socket; the log goes to standard error", printable(log, 200))))
}

fn check_zone(config: &Config, find: ZoneLookup) -> Result<Outcome> {
    let wanted = config.text("timezone");
    let found = find(wanted).map_err(|error| error.context(config.set_by("timezone")))?;
    let zone = found.zone.name().to_string();
    Ok(if found.warnings.is_empty() { Fine(zone) } else { Note(format!("{zone}: {}", found.warnings.join("; "))) })
}

fn check_interfaces(config: &Config, _: ZoneLookup) -> Result<Outcome> {
    let (mut source, note) = source::open(SourceChoice::by_name(config.text("source")))?;
    let links = source.links()?;
    let matched =
        |pattern: &str| links.iter().any(|link| matches_link(pattern, &link.name, &link.altnames, kind(link)));
    let unmatched = ["interfaces", "primary"].into_iter().flat_map(|key| {
        let missing = config.list(key).into_iter().filter(|pattern| !matched(pattern));
        missing.map(move |pattern| config.describe(key, &pattern)).collect::<Vec<_>>()
    });
    let missing: Vec<String> = unmatched.collect();
    let found = format!("{}, read by {}", counted(links.len() as u64, "interface", "interfaces"), source.name());
    if !missing.is_empty() {
        return Ok(Note(format!("{found}; no interface matches {}", missing.join(", "))));
    }
    Ok(note.map_or_else(|| Fine(found.clone()), |note| Note(format!("{found}: {note}"))))
}

fn check_history(config: &Config, _: ZoneLookup) -> Result<Outcome> {
    let path = database_path(config)?;
    let free = source::machine(&path).disk_free;
    let parents = path.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    if path.exists() {
        may_write(&path)?;
    }
    let Some(bytes) = store::examine(&path)? else {
        // The start creates missing directories, so check the nearest existing one.
        let place = parents.into_iter().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        may_write(place)?;
        return Ok(Note(format!("{} does not exist yet; {} are free there", path.display(), size(free))));
    };
    parents.into_iter().take(1).try_for_each(may_write)?;
    let text = format!("{}, {}, and {} are free", path.display(), size(bytes), size(free));
    Ok(match (bytes, free < MIN_SIZE_BYTES) {
        (0, _) => Note(format!("{} is empty; net-pulse creates the history in it when it starts", path.display())),
        (_, true) => Note(text),
        (_, false) => Fine(text),
    })
}

/// The size in the smallest unit, from KiB on, that needs at most four digits.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut at) = (bytes / 1024, 0);
    while amount >= 10_000 && at + 1 < UNITS.len() {
        (amount, at) = (amount / 1024, at + 1);
    }
    format!("{amount} {}", UNITS[at])
}

/// Fails with the reason and a remedy where this process may not read and write the path.
fn may_write(path: &Path) -> Result<()> {
    access(path, AccessFlags::R_OK | AccessFlags::W_OK).map_err(|errno| {
        let hint = format!("{}; or run this as the user that net-pulse runs as", system::not_writable::remedy(path));
        Error::system(path.display(), std::io::Error::from(errno)).with_hint(hint)
    })
}

fn check_token(config: &Config, _: ZoneLookup) -> Result<Outcome> {
    let file = token::path_for(&database_path(config)?);
    Ok(match token::read(&file)? {
        Some(_) => Fine(format!("in {}", file.display())),
        None => Note(format!("{} does not exist yet; net-pulse creates it when it starts", file.display())),
    })
}

fn check_daemon(config: &Config, _: ZoneLookup) -> Result<Outcome> {
    let (address, answer) = request(config, "/api/system/health")?;
    let health = parse_health(&answer).map_err(|reason| Error::system(address, reason))?;
    let own = std::path::absolute(database_path(config)?).unwrap_or_default();
    // A relative path depends on the directory in which the daemon was started, which is not known here.
    let differs = |path: &Path| path.is_absolute() && path != own;
    if let Some(other) = health.database.filter(|other| differs(Path::new(other))) {
        return Ok(Note(format!(
            "the net-pulse at {address} uses another database, {other}; give its --database, or another --port"
        )));
    }
    let zone = health.zone.map_or(String::new(), |zone| format!("; time zone {zone}"));
    let state = if health.healthy { "healthy" } else { "degraded" };
    Ok(match health.reason {
        Some(reason) => Note(format!("{state}: {reason}{zone}")),
        None => Fine(format!("{state}{zone}")),
    })
}
