//! The wiring, as one ordered script: understand, bind, start the threads, wait, stop in reverse. The database is opened on
//! the writer's thread: the start waits for it a while, and whatever is wrong with it, counting goes on.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::clock::{BUILD_FLOOR, Clock, Keeper, Now, SystemClock, Zone};
use crate::config::{Config, SMALLEST_SIZE};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{self, Context};
use crate::live::{Database, Live, State, Tuning};
use crate::model::Record;
use crate::sampler::{Late, Reopen, Sampler, Start};
use crate::source::{self, Choice, Wake, Woken};
use crate::store::{Opened, Options, Reader, Store};
use crate::token::{self, Token};
use crate::writer::{self, Past, Writer};

/// The start waits so long for its database, so that the first answer knows the history; then it goes on without.
const OPENING: Duration = Duration::from_secs(3);
/// After a signal to end: what is not on disk by then stays unsaved.
const LAST_SAVE: Duration = Duration::from_secs(2);

/// What the main thread is told.
enum Word {
    Signal(Signal),
    /// The token beside the database, and whether it is new; `None` where there is none yet.
    Token(Result<Option<(Token, bool)>>),
    Database(Result<Past>),
}

/// Runs until a signal says stop. `typed`: what stood on the command line, by key.
pub fn run(typed: &[(&'static str, String)]) -> Result<()> {
    // Before anything else: what the first process of a container neither blocks nor handles, the kernel throws away.
    // And before the first thread: every thread inherits the mask, and only this one takes signals.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|cause| Error::system("blocking signals", cause))?;

    let environment = |name: &str| std::env::var(name).ok();
    let config = Config::new(typed, environment)?;
    crate::log::start(config.text("log_level"), environment("JOURNAL_STREAM").is_some());
    let hosts = config.list("host");
    let zone = find_zone(config.text("timezone")).map_err(|error| error.context(config.said_by("timezone")))?;
    let database = config.database(nix::unistd::geteuid().is_root(), environment)?;
    let (tell, told) = mpsc::channel();

    let choice = choice(config.text("source"));
    let (mut source, note) = source::open(choice)?;
    let listeners = http::bind(&hosts, config.integer("port") as u16).map_err(|error| match error.kind {
        ErrorKind::Usage => error.context(config.said_by("host")),
        _ => error,
    })?;
    let listening: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let addresses: Vec<IpAddr> = source.addresses().unwrap_or_default().into_iter().map(|address| address.ip).collect();
    if let Some(note) = &note {
        log::warn!("counters come from {}: {note}", source.name());
    }

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (max_size, allowed_hosts) = (config.size("max_size"), config.list("allowed_host"));
    let live = Arc::new(Live::new(config, zone));
    {
        let mut state = live.lock();
        state.source_note = note;
        state.database = Database::Absent;
    }
    let wake = Wake::new()?;
    let waker = wake.clone();
    live.set_wake(move || waker.call());

    spawn("signals", hear_signals(signals, tell.clone()))?;
    let attempt = attempt(database.clone(), max_size, tell.clone());
    let writing = spawn("writer", {
        let (live, clock) = (live.clone(), clock.clone());
        move || {
            let tell = |past| drop(tell.send(Word::Database(past)));
            if let Some(store) = writer::open(&live, &*clock, attempt, tell) {
                let mut writer = Writer::new(live.clone(), store, clock);
                writer.run();
                live.wait_for_last_sample();
                writer.finish();
            }
        }
    })?;

    let boot = source::boot_id();
    let mut desk = Desk { told, live: live.clone(), boot, token: None, new_token: false, ending: false };
    let opened = desk.wait_for_database(&database)?;
    log::info!("{} is the page of net-pulse {}", url(&listening, &addresses), env!("CARGO_PKG_VERSION"));
    let (start, reader) = match opened {
        Ok(past) => {
            log::info!("history in {}", database.display());
            let (late, reader) = desk.take_in(past);
            live.set_database(Database::Joined);
            (late.start, Some(reader))
        }
        Err(error) => {
            if !desk.ending {
                writer::cannot_open(&live, clock.now(), &error);
            }
            (desk.start(Vec::new(), 1, None), None)
        }
    };
    let reopen: Reopen = Box::new(move || source::open(choice));
    let mut sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), start);
    // The first answer already knows the interfaces.
    sampler.step(Woken::default());

    // The machine's name, not the disk's state: that one may be slow.
    let own_names = move || http::own_names(&source::machine(Path::new("/")).hostname, &allowed_hosts);
    let names = own_names();
    let context = Arc::new(Context {
        live: live.clone(),
        reader: Mutex::new(reader),
        clock: clock.clone(),
        guard: desk.guard(&database),
        machine: Box::new({
            let database = database.clone();
            move || source::machine(&database)
        }),
        find_zone: Box::new(find_zone),
        database,
        listening,
        notes: http::Notes::default(),
    });
    let (hand_over, late) = mpsc::channel();
    let sampling = spawn("sampler", move || sampler.run(&wake, &late))?;
    http::count_panics(context.clone());
    let serving = http::serve(context.clone(), listeners, names)?;

    let late_word = |desk: &mut Desk, word| match desk.hear(word) {
        None => desk.tell_of_token(&context.database),
        Some(Err(error)) => writer::cannot_open(&live, clock.now(), &error),
        Some(Ok(past)) => {
            log::info!("history in {}", context.database.display());
            let (late, reader) = desk.take_in(past);
            // Nobody asks it before the sampler has joined it to what is in memory.
            context.set_reader(Some(reader).filter(|_| !desk.ending));
            let _ = hand_over.send(late);
            live.wake_sampler();
        }
    };
    while !desk.ending {
        match desk.told.recv() {
            Ok(word) => {
                let again = matches!(word, Word::Signal(Signal::SIGHUP));
                late_word(&mut desk, word);
                if again {
                    serving.rename(own_names());
                }
            }
            Err(_) => break,
        }
    }
    let deadline = Instant::now() + LAST_SAVE;
    live.lock().stopping = true;
    live.wake_sampler();
    live.wake_writer();
    serving.stop();
    // The connection that is closed last takes in the log, which is slow where saving is: the writer's.
    context.set_reader(None);
    let mut ends = |thread: &JoinHandle<()>| {
        while !thread.is_finished() && Instant::now() < deadline {
            if let Ok(word) = desk.told.recv_timeout(Duration::from_millis(5)) {
                late_word(&mut desk, word);
            }
        }
        thread.is_finished()
    };
    let sampled = ends(&sampling);
    live.lock().sampled_out = sampled;
    live.wake_writer();
    let finished = ends(&writing);
    tell_what_is_left(&live.lock(), clock.now().mono_ms, finished);
    if [(sampled, sampling), (finished, writing)].into_iter().any(|(over, thread)| over && thread.join().is_err()) {
        return Err(Error::system("stopping", "a thread had panicked; see the log above"));
    }
    Ok(())
}

/// The main thread's own: whatever it is told.
struct Desk {
    told: Receiver<Word>,
    live: Arc<Live>,
    boot: String,
    token: Option<Token>,
    /// It was just made, and nobody was told.
    new_token: bool,
    ending: bool,
}

impl Desk {
    /// Fails where another net-pulse has the database: two of them would each show the half.
    fn wait_for_database(&mut self, database: &Path) -> Result<Result<Past>> {
        let deadline = Instant::now() + OPENING;
        while !self.ending {
            match self.told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(word) => match self.hear(word) {
                    None => {}
                    Some(Err(error)) if error.kind == ErrorKind::Taken => return Err(error),
                    Some(outcome) => return Ok(outcome),
                },
                Err(_) => break,
            }
        }
        let what = format!("opening {} takes more than {} s", database.display(), OPENING.as_secs());
        Ok(Err(Error::new(ErrorKind::Transient, what)))
    }

    /// SIGHUP has the zone read again and everything saved; SIGTERM and SIGINT end it. What the database said is given back.
    fn hear(&mut self, word: Word) -> Option<Result<Past>> {
        match word {
            Word::Database(outcome) => return Some(outcome),
            Word::Token(Ok(Some((token, new)))) => (self.token, self.new_token) = (Some(token), new),
            Word::Token(Ok(None)) => {}
            Word::Token(Err(error)) => {
                log::warn!("no access token: {error}; until then nothing can be changed from other machines")
            }
            Word::Signal(Signal::SIGHUP) => {
                self.read_zone();
                self.live.lock().save_now = true;
                self.live.wake_writer();
                log::info!("read the time zone and the host name again; saving now");
            }
            Word::Signal(signal) => {
                log::info!("{signal}: saving and ending");
                self.ending = true;
            }
        }
        None
    }

    /// What the database remembers takes effect, but for what was changed while it was not there: that is on its way to it.
    fn take_in(&mut self, past: Past) -> (Late, Reader) {
        let Past { records, mut settings, next_seq, newest, reader } = past;
        let found = settings.get("primary_found").cloned().unwrap_or_default();
        let (refused, stopped, other_zone) = {
            let mut guard = self.live.lock();
            let state = &mut *guard;
            let zone_before = state.config.text("timezone").to_string();
            let stopped_here = state.settings.iter().any(|(key, _)| key == "running");
            for (key, value) in state.settings.iter().filter(|(key, _)| key != "primary_found") {
                match value {
                    Some(value) => settings.insert(key.clone(), value.clone()),
                    None => settings.remove(key),
                };
            }
            let refused = state.config.take_saved(&settings);
            state.tuning = Tuning::of(&state.config);
            (refused, !state.tuning.running && !stopped_here, state.config.text("timezone") != zone_before)
        };
        refused.iter().for_each(|refused| log::warn!("{refused}"));
        if other_zone {
            self.read_zone();
        }
        let start = Start { primary_found: found, ..self.start(records, next_seq, newest) };
        (Late { start, stopped }, reader)
    }

    fn start(&self, records: Vec<Record>, next_seq: u64, newest: Option<i64>) -> Start {
        Start {
            keeper: keeper(newest, &records, &self.boot),
            records,
            next_seq,
            boot: self.boot.clone(),
            primary_found: String::new(),
        }
    }

    fn read_zone(&self) {
        let wanted = self.live.lock().config.text("timezone").to_string();
        match find_zone(&wanted) {
            Ok(zone) => self.live.lock().zone = Arc::new(zone),
            Err(error) => log::warn!("{error}; keeping the zone"),
        }
    }

    /// Without a token it goes on all the same: measuring comes first, and then only this machine may change anything.
    fn guard(&mut self, database: &Path) -> http::Guard {
        self.tell_of_token(database);
        let [private, open] = {
            let config = &self.live.lock().config;
            ["private", "open"].map(|key| config.switch(key).then(|| config.said_by(key)))
        };
        if let (Some(private), Some(open)) = (private, open) {
            log::warn!("{open} does nothing where {private} is set");
        }
        let (private, open) = (private.is_some(), open.is_some());
        http::Guard::new(token::file(database), self.token.take(), private, open)
    }

    fn tell_of_token(&mut self, database: &Path) {
        if std::mem::take(&mut self.new_token) {
            let file = token::file(database);
            log::info!("made an access token, in {}: `net-pulse token` prints it", file.display());
        }
    }
}

/// Opens the database, and finds the token beside it, on the writer's thread: both may be slow. A token is made only where
/// the history could be opened: nothing is left beside what is not ours.
fn attempt(database: PathBuf, max_bytes: u64, tell: Sender<Word>) -> impl FnMut() -> Result<Opened> + Send {
    move || {
        let options = Options { max_bytes: room(max_bytes, &database) };
        let opened = Store::open(&database, &options);
        let file = token::file(&database);
        let token = match opened {
            Ok(_) => token::read_or_make(&file).map(Some),
            // Whatever is wrong with it is wrong with the place, of which the history tells.
            Err(_) => Ok(token::read(&file).ok().flatten().map(|token| (token, false))),
        };
        let _ = tell.send(Word::Token(token));
        opened
    }
}

fn hear_signals(signals: SigSet, tell: Sender<Word>) -> impl FnOnce() + Send {
    move || {
        loop {
            let signal = match signals.wait() {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    log::error!("waiting for signals: {error}; ending");
                    let _ = tell.send(Word::Signal(Signal::SIGTERM));
                    return;
                }
                Ok(signal) => signal,
            };
            if tell.send(Word::Signal(signal)).is_err() {
                return;
            }
        }
    }
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
             what passed since the history ends is booked at the next start, unless the machine is restarted before"
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
