//! The wiring, as one ordered script: understand, bind, open, start the threads, wait, stop in reverse.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::clock::{BUILD_FLOOR, Clock, Keeper, Now, SystemClock, Zone};
use crate::config::{Config, SMALLEST_SIZE};
use crate::detect::Wanted;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{self, Context};
use crate::live::{Live, State, Tuning};
use crate::model::Record;
use crate::sampler::{Reopen, Sampler, Start};
use crate::source::{self, Choice, Wake, Woken};
use crate::store::{Options, Store};
use crate::token;
use crate::writer::Writer;

/// After a signal to end: what is not on disk by then stays unsaved.
const LAST_SAVE: Duration = Duration::from_secs(2);

/// Runs until a signal says stop. `typed`: what stood on the command line, by key.
pub fn run(typed: &[(&'static str, String)]) -> Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut config = Config::new(typed, environment)?;
    crate::log::start(config.text("log_level"), environment("JOURNAL_STREAM").is_some());
    let hosts = config.list("host");
    let zone_wanted = config.text("timezone").to_string();
    find_zone(&zone_wanted).map_err(|error| error.context(config.said_by("timezone")))?;
    let database = config.database(nix::unistd::geteuid().is_root(), environment)?;

    // Before the first thread: every thread inherits the mask, and only this one takes signals.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|cause| Error::system("blocking signals", cause))?;

    let choice = choice(config.text("source"));
    let (mut source, note) = source::open(choice)?;
    let listeners = http::bind(&hosts, config.integer("port") as u16).map_err(|error| match error.kind {
        ErrorKind::Usage => error.context(config.said_by("host")),
        _ => error,
    })?;
    let listening: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let addresses: Vec<IpAddr> = source.addresses().unwrap_or_default().into_iter().map(|address| address.ip).collect();
    log::info!("{} is the page of net-pulse {}", url(&listening, &addresses), env!("CARGO_PKG_VERSION"));
    if let Some(note) = &note {
        log::warn!("counters come from {}: {note}", source.name());
    }

    let options = Options { max_bytes: room(config.size("max_size"), &database) };
    let opened = Store::open(&database, &options).map_err(|error| error.context(database.display()))?;
    log::info!("history in {}", database.display());
    for refused in config.take_saved(&opened.settings) {
        log::warn!("{refused}");
    }
    let zone = find_zone(config.text("timezone")).unwrap_or_else(|error| {
        log::warn!("{error}; using UTC");
        Zone::UTC
    });

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let live = Arc::new(Live::new(tuning(&config), zone));
    {
        let mut state = live.lock();
        state.owners = config.owners();
        state.source_note = note;
        opened.events.into_iter().for_each(|event| state.event(event));
    }
    let wake = Wake::new()?;
    let waker = wake.clone();
    live.set_wake(move || waker.call());

    let boot = source::boot_id();
    let keeper = keeper(opened.newest, &opened.records, &boot);
    let start = Start {
        records: opened.records,
        next_seq: opened.next_seq,
        keeper,
        wanted: Wanted { interfaces: config.list("interfaces"), ignored: config.list("ignore") },
        boot,
        primary_chosen: config.text("primary").to_string(),
        primary_found: opened.settings.get("primary_found").cloned().unwrap_or_default(),
    };
    let reopen: Reopen = Box::new(move || source::open(choice));
    let mut sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), start);
    // The first answer already knows the interfaces.
    sampler.step(Woken::default());
    let reader = opened.store.reader()?;
    let mut writer = Writer::new(live.clone(), opened.store, clock.clone());

    let names = http::own_names(&source::machine(&database).hostname, &config.list("allowed_host"));
    let guard = guard(&config, &database);
    let path = database.clone();
    let context = Context {
        live: live.clone(),
        reader: Mutex::new(Some(reader)),
        clock: clock.clone(),
        database,
        machine: Box::new(move || source::machine(&path)),
        listening,
        guard,
        notes: http::Notes::default(),
    };
    let sampling = spawn("sampler", move || sampler.run(&wake))?;
    let writing = spawn("writer", move || {
        writer.run();
        // The sampler ends with a last sample, and this thread with a last save.
        let sampled = sampling.join();
        writer.finish();
        sampled
    })?;
    let context = Arc::new(context);
    http::count_panics(context.clone());
    let serving = http::serve(context, listeners, names)?;

    wait(&signals, &live, config.text("timezone"));
    let deadline = Instant::now() + LAST_SAVE;
    live.lock().stopping = true;
    live.wake_sampler();
    live.wake_writer();
    serving.stop();
    while !writing.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let finished = writing.is_finished();
    tell_what_is_left(&live.lock(), clock.now().mono_ms, finished);
    if finished && !matches!(writing.join(), Ok(Ok(()))) {
        return Err(Error::system("stopping", "a thread had panicked; see the log above"));
    }
    Ok(())
}

/// A commit can take minutes on a worn card, and a supervisor kills what does not end: the process goes while it lasts,
/// which does no more harm than a power cut.
fn tell_what_is_left(state: &State, mono_ms: u64, finished: bool) {
    let unsaved = [&*state.saving_batch, &state.batch];
    let samples: usize = unsaved.iter().map(|batch| batch.samples.len()).sum();
    if let Some(oldest) = unsaved.iter().find_map(|batch| batch.ticks.first()) {
        let seconds = mono_ms.saturating_sub(oldest.mono_ms) / 1000;
        let cause = match &state.saving.error {
            Some(error) => error,
            None if finished => "the clock has not been right so far",
            None => "the disk takes too long",
        };
        log::error!(
            "{samples} samples of the last {seconds} s stay unsaved ({cause}); \
             what passed is booked at the next start, unless the machine is restarted before"
        );
    }
}

/// What an earlier run knew of the clock. On the same boot the newest sample says what the wall clock was at a moment of
/// the monotonic one.
pub fn keeper(newest: Option<i64>, records: &[Record], boot: &str) -> Keeper {
    let mut keeper = Keeper::new(BUILD_FLOOR, newest);
    let same_boot = records.iter().filter(|record| record.boot == boot && record.last_seen > 0);
    if let Some(newest) = same_boot.max_by_key(|record| record.mono_ms) {
        keeper.resume(Now { mono_ms: newest.mono_ms, unix_ms: newest.last_seen * 1000 });
    }
    keeper
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<thread::JoinHandle<T>> {
    thread::Builder::new()
        .name(name.to_string())
        .spawn(run)
        .map_err(|cause| Error::system(format!("starting {name}"), cause))
}

/// SIGHUP has the zone read again and everything saved; SIGTERM and SIGINT end it.
fn wait(signals: &SigSet, live: &Live, zone_wanted: &str) {
    loop {
        match signals.wait() {
            Ok(Signal::SIGHUP) => {
                match find_zone(zone_wanted) {
                    Ok(zone) => live.lock().zone = Arc::new(zone),
                    Err(error) => log::warn!("{error}; keeping the zone"),
                }
                live.lock().save_now = true;
                live.wake_writer();
                log::info!("read the time zone again; saving now");
            }
            Ok(signal) => {
                log::info!("{signal}: saving and ending");
                return;
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                log::error!("waiting for signals: {error}; ending");
                return;
            }
        }
    }
}

fn tuning(config: &Config) -> Tuning {
    Tuning {
        interval_s: config.integer("interval") as u32,
        max_retries: config.integer("max_retries") as u32,
        retry_delay_ms: (config.decimal("retry_delay") * 1000.0) as u32,
        interfaces: config.list("interfaces"),
        running: config.switch("running"),
        flush_s: config.flush_s(),
    }
}

/// Without a token it goes on all the same: measuring comes first, and then only this machine may change anything.
fn guard(config: &Config, database: &Path) -> http::Guard {
    let file = token::file(database);
    let token = match token::read_or_make(&file) {
        Ok((token, new)) => {
            if new {
                log::info!("made an access token, in {}: `net-pulse token` prints it", file.display());
            }
            Some(token)
        }
        Err(error) => {
            log::warn!("no access token: {error}; until then nothing can be changed from other machines");
            None
        }
    };
    let (private, open) = (config.switch("private"), config.switch("open"));
    if private && open {
        log::warn!("{} does nothing where {} is set", config.said_by("open"), config.said_by("private"));
    }
    http::Guard::new(file, token, private, open)
}

fn choice(word: &str) -> Choice {
    Choice::NAMES.iter().find(|(_, name)| *name == word).map_or(Choice::Auto, |(choice, _)| *choice)
}

fn find_zone(wanted: &str) -> Result<Zone> {
    let wanted = (!wanted.is_empty()).then_some(wanted);
    let found = Zone::find(wanted, std::env::var("TZ").ok().as_deref(), zone_file)?;
    for warning in &found.warnings {
        log::warn!("{warning}");
    }
    Ok(found.zone)
}

/// A time zone's name may be the path of anything: only a file is read, and of that no more than a zone can take.
fn zone_file(path: &Path) -> Option<Vec<u8>> {
    const LONGEST: u64 = 256 * 1024;
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// What was asked for, and never more than half of what the file system has left.
fn room(wanted: u64, database: &Path) -> u64 {
    let present = std::fs::metadata(database).map_or(0, |file| file.len());
    let existing = database.ancestors().skip(1).find(|path| path.is_dir()).unwrap_or(Path::new("."));
    match source::machine(existing).disk_free {
        0 => wanted,
        free => wanted.min(present.saturating_add(free / 2)).max(SMALLEST_SIZE),
    }
}

/// An address that a browser on the LAN can use, where there is one.
fn url(listening: &[SocketAddr], addresses: &[IpAddr]) -> String {
    let port = listening.first().map_or(0, SocketAddr::port);
    let reachable = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(_) => false,
    };
    let host = match listening.iter().map(SocketAddr::ip).find(|ip| !ip.is_unspecified()) {
        Some(ip) => ip,
        None => addresses.iter().find(reachable).copied().unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    format!("http://{}/", SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_can_be_opened() {
        let check = |listening: &[&str], addresses: &[&str], expect: &str| {
            let listening: Vec<SocketAddr> = listening.iter().map(|text| text.parse().unwrap()).collect();
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(url(&listening, &addresses), expect);
        };
        check(&["0.0.0.0:8000", "[::]:8000"], &["127.0.0.1", "192.168.1.1"], "http://192.168.1.1:8000/");
        check(&["0.0.0.0:81"], &["127.0.0.1", "169.254.3.4", "fe80::1"], "http://127.0.0.1:81/");
        check(&["[::1]:8000"], &["192.168.1.1"], "http://[::1]:8000/");
        check(&["10.0.0.1:1"], &[], "http://10.0.0.1:1/");
    }
}
