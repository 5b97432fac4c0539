//! The wiring, as one ordered script: understand, bind, start the threads, wait, stop in reverse. The database is opened on
//! the writer's thread: the start waits for it a while, and whatever is wrong with it, counting goes on.

mod desk;
mod listening;
mod zone;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, rlim_t};
use nix::sys::signal::{SigSet, Signal};

use crate::clock::{Clock, SystemClock, Zone};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::history::{Disk, History};
use crate::http::{self, Context, Serving};
use crate::live::{Live, State};
use crate::sampler::{Reopen, Sampler};
use crate::source::{self, Choice, Wake, Woken};
use crate::store::Opened;
use crate::text::plural;
use crate::thread::{self, Mailbox};
use crate::writer::{self, Writer};
use desk::{Desk, Word};
use listening::Watch;

pub use zone::look_up as look_up_zone;

/// After a signal to end: what is not on disk by then stays unsaved.
const LAST_SAVE: Duration = Duration::from_secs(2);

/// After a signal to end: should the main thread wait for something by then, it is not waited for.
const LAST_MOMENT: Duration = Duration::from_millis(2200);
/// What is saved then all the same has so long for it...
const LAST_RESORT: Duration = Duration::from_millis(300);
/// ... and after that the log.
pub const LAST_LINES: Duration = Duration::from_millis(200);
/// Of which closing what is read from may take so much.
const CLOSING: Duration = Duration::from_millis(250);
/// A save that hangs is looked for so often.
const WATCH_S: (u32, u32) = (5, 60);

/// What is open at rest, but for the listeners and what the parent left open, is 13; one request after the other, exports
/// among them, takes eight more while the history is saved, and two more of them at once another two.
const DESCRIPTORS: usize = 13 + 10;
/// As many listeners as there are without `--host`.
const LISTENERS: usize = 2;
const STANDARD_STREAMS: usize = 3;

/// Runs until a signal says stop. `typed`: what stood on the command line, by key. `leave` ends the process at once.
pub fn run(typed: &[(&'static str, String)], leave: fn()) -> Result<()> {
    let signals = block_signals()?;
    let told = Mailbox::default();
    let begun: Arc<OnceLock<Arc<Live>>> = Arc::default();
    spawn("signals", {
        let (tell, begun) = (told.clone(), begun.clone());
        move || desk::hear_signals(&signals, &tell, LAST_MOMENT, || give_up(&begun, leave))
    })?;
    let inherited = open_descriptors();
    enough_descriptors(inherited, LISTENERS)?;

    let Understood { config, zone, database } = understand(typed)?;
    let choice = Choice::named(config.text("source"));
    let (mut source, note) = source::open(choice)?;
    let bound = http::bind(&config.list("host"), config.integer("port") as u16).map_err(|error| match error.kind {
        ErrorKind::Usage => error.context(config.said_by("host")),
        _ => error,
    })?;
    enough_descriptors(inherited, bound.listeners.len())?;
    let addresses: Vec<IpAddr> = source.addresses().unwrap_or_default().into_iter().map(|address| address.ip).collect();
    if let Some(note) = &note {
        log::warn!("counters come from {}: {note}", source.name());
    }

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (max_size, allowed_hosts) = (config.size("max_size"), config.list("allowed_host"));
    let live = Arc::new(Live::new(config, zone));
    live.lock().inventory.source_note = note;
    let wake = Wake::new()?;
    let waker = wake.clone();
    live.wake_sampler_by(move || waker.call());
    let watch = told.clone();
    live.wake_main_by(move || watch.put(Word::Watch));
    let _ = begun.set(live.clone());

    let writing = start_writer(&live, &clock, desk::attempt(database.clone(), max_size, told.clone()), told.clone())?;
    let mut desk = Desk::new(told, live.clone(), database.clone());
    let opened = desk.wait_for_database()?;
    log::info!("{} is the page of net-pulse {}", url(&bound.addresses, &addresses), env!("CARGO_PKG_VERSION"));
    let mut reader = None;
    opened.into_iter().for_each(|outcome| desk.opened(outcome, clock.now(), |opened| reader = Some(opened)));
    let reopen: Reopen = Box::new(move || source::open(choice));
    let mut sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), source::stack());
    // The first answer already knows the interfaces.
    sampler.step(Woken::default());

    // The machine's name, not the disk's state: that one may be slow.
    let own_names = move || http::own_names(&source::machine(Path::new("/")).hostname, &allowed_hosts);
    let names = own_names();
    let context = Arc::new(Context {
        history: History::new(live.clone(), reader),
        live,
        copying: Disk::named("copy"),
        clock,
        guard: desk.guard(),
        machine: Arc::new({
            let database = database.clone();
            move || source::machine(&database)
        }),
        find_zone: Arc::new(zone::find),
        database,
        listening: bound.addresses,
        notes: http::Notes::new(bound.waiting),
    });
    let sampling = spawn("sampler", move || sampler.run(&wake))?;
    http::count_panics(context.clone());
    let serving = http::serve(context.clone(), bound.listeners, names)?;

    wait_for_the_end(&mut desk, &context, &serving, own_names);
    stop(&mut desk, &context, serving, sampling, writing)
}

/// Before anything else: what the first process of a container neither blocks nor handles, the kernel throws away. And
/// before the first thread: every thread inherits the mask, and only one takes signals.
fn block_signals() -> Result<SigSet> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|cause| Error::system("blocking signals", io::Error::from(cause)))?;
    Ok(signals)
}

/// What was asked for, as far as it can be judged before anything is opened.
struct Understood {
    config: Config,
    zone: Zone,
    database: PathBuf,
}

/// From here on there is a log.
fn understand(typed: &[(&'static str, String)]) -> Result<Understood> {
    let environment = |name: &str| std::env::var(name).ok();
    let config = Config::new(typed, environment)?;
    crate::log::start(config.text("log_level"), config.text("syslog"));
    let zone = zone::find(config.text("timezone")).map_err(|error| error.context(config.said_by("timezone")))?;
    let database = config.database(nix::unistd::geteuid().is_root(), environment)?;
    if std::path::absolute(&database).is_ok_and(|path| path.to_str().is_none()) {
        let what = "the current directory is not UTF-8; start elsewhere, or give a whole path with --database";
        return Err(Error::usage(what));
    }
    Ok(Understood { config, zone, database })
}

/// Opens the database, and then saves.
fn start_writer(
    live: &Arc<Live>,
    clock: &Arc<dyn Clock>,
    attempt: impl FnMut() -> Result<Opened> + Send + 'static,
    told: Mailbox<Word>,
) -> Result<JoinHandle<()>> {
    let (live, clock) = (live.clone(), clock.clone());
    spawn("writer", move || {
        let tell = |past| told.put(Word::Database(past));
        let Some(store) = writer::open(&live, &*clock, attempt, tell) else { return };
        writer::guarded(&live, &*clock, || {
            let mut writer = Writer::new(live.clone(), store, clock.clone());
            writer.run();
            live.wait_for_last_sample();
            writer.finish();
        });
    })
}

/// Does what the main thread is told, and looks after saving and the addresses, until a signal says stop.
fn wait_for_the_end(desk: &mut Desk, context: &Context, serving: &Serving, own_names: impl Fn() -> Vec<String>) {
    let mut watch = Watch::default();
    while !desk.ending {
        let now = context.clock.now();
        let (trouble, flush_s) = {
            let mut state = context.live.lock();
            (state.watch_saving(now.mono_ms), state.tuning.flush_s)
        };
        trouble.iter().for_each(|trouble| log::error!("{trouble}"));
        let patience = Duration::from_secs(flush_s.clamp(WATCH_S.0, WATCH_S.1).into());
        let patience = patience.min(watch.look(context, serving, Instant::now()));
        let Some(word) = desk.told.take(patience) else { continue };
        let again = matches!(word, Word::Signal(Signal::SIGHUP));
        hear(desk, context, word);
        if again {
            serving.rename(own_names());
        }
    }
}

/// A database that opens after the start is taken in like any other.
fn hear(desk: &mut Desk, context: &Context, word: Word) {
    let Some(outcome) = desk.hear(word) else { return desk.tell_of_token() };
    let ending = desk.ending;
    desk.opened(outcome, context.clock.now(), |reader| {
        context.history.set_reader(Some(reader).filter(|_| !ending), Duration::ZERO);
    });
}

/// In reverse: no more answers, the last sample, the last save.
fn stop(
    desk: &mut Desk,
    context: &Context,
    serving: Serving,
    sampling: JoinHandle<()>,
    writing: JoinHandle<()>,
) -> Result<()> {
    let deadline = Instant::now() + LAST_SAVE;
    let live = &context.live;
    live.lock().wishes.stopping = true;
    serving.stop();
    // The connection that is closed last takes in the log, which is slow where saving is: the writer's.
    context.history.set_reader(None, CLOSING);
    let mut ends = |thread: &JoinHandle<()>| {
        while !thread.is_finished() && Instant::now() < deadline {
            if let Some(word) = desk.told.take(Duration::from_millis(5)) {
                hear(desk, context, word);
            }
        }
        thread.is_finished()
    };
    let sampled = ends(&sampling);
    live.lock().wishes.sampled_out = sampled;
    let finished = ends(&writing);
    tell_what_is_left(&live.lock(), context.clock.now().mono_ms, finished);
    if [(sampled, sampling), (finished, writing)].into_iter().any(|(over, thread)| over && thread.join().is_err()) {
        return Err(Error::system("stopping", "a thread had panicked; see the log above"));
    }
    Ok(())
}

/// With fewer descriptors than are needed each request would fail by itself, at one place or another.
fn enough_descriptors(inherited: usize, listeners: usize) -> Result<()> {
    let needed = (inherited + DESCRIPTORS + listeners.max(LISTENERS)) as rlim_t;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft < needed => {
            let what = format!("{soft} are allowed and {needed} are needed; raise the limit (ulimit -n, LimitNOFILE=)");
            Err(Error::system("too few open files", what))
        }
        _ => Ok(()),
    }
}

fn open_descriptors() -> usize {
    // One of them is the directory's own.
    let listed = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"));
    listed.map_or(STANDARD_STREAMS, |listed| listed.count().saturating_sub(1))
}

/// The main thread waits for something that hangs: what the others can still save is saved, and it ends.
fn give_up(begun: &OnceLock<Arc<Live>>, leave: fn()) {
    if let Some(live) = begun.get() {
        live.try_lock().into_iter().for_each(|mut state| state.wishes.save_now = true);
        std::thread::sleep(LAST_RESORT);
        if let Some(state) = live.try_lock() {
            tell_what_is_left(&state, SystemClock.now().mono_ms, false);
        }
    }
    leave();
}

/// A commit can take minutes on a worn card, and a supervisor kills what does not end: the process goes while it lasts,
/// which does no more harm than a power cut.
fn tell_what_is_left(state: &State, mono_ms: u64, finished: bool) {
    let unsaved = [&*state.unsaved.saving_batch, &state.unsaved.batch];
    let samples: usize = unsaved.iter().map(|batch| batch.samples.len()).sum();
    if let Some(oldest) = unsaved.iter().find_map(|batch| batch.ticks.first()) {
        let seconds = mono_ms.saturating_sub(oldest.mono_ms) / 1000;
        let cause = match &state.health.saving.error {
            Some(error) => error,
            None if finished => "the clock has not been right so far",
            None => "the disk takes too long",
        };
        log::error!("{}", left_unsaved(samples as u64, seconds, cause));
    }
}

fn left_unsaved(samples: u64, seconds: u64, cause: &str) -> String {
    let [many, stay] = [("sample", "samples"), ("stays", "stay")].map(|(one, many)| plural(samples, one, many));
    format!(
        "{samples} {many} of the last {seconds} s {stay} unsaved ({cause}); \
         what passed since the history ends is booked at the next start, unless the machine is restarted before"
    )
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::spawn(name, 0, Box::new(run))
}

/// An address that a browser on the LAN can use, where there is one: of those that are listened on, one that is there.
fn url(listening: &[SocketAddr], addresses: &[IpAddr]) -> String {
    let port = listening.first().map_or(0, SocketAddr::port);
    let reachable = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(_) => false,
    };
    let named: Vec<IpAddr> = listening.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
    let elsewhere = named.iter().find(|ip| !ip.is_loopback() && addresses.contains(ip));
    let here = named.iter().find(|ip| ip.is_loopback());
    let host = match elsewhere.or(here).or(named.first()) {
        Some(ip) => *ip,
        None => addresses.iter().find(reachable).copied().unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    format!("http://{}/", SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_stays_and_two_stay() {
        let check = |samples, expect: &str| {
            let said = left_unsaved(samples, 30, "the disk takes too long");
            assert!(said.starts_with(expect), "{said}");
        };
        check(1, "1 sample of the last 30 s stays unsaved (the disk takes too long); what passed");
        check(2, "2 samples of the last 30 s stay unsaved (the disk takes too long); what passed");
    }

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
        check(&["10.0.0.1:1", "10.0.0.2:1"], &["10.0.0.2"], "http://10.0.0.2:1/");
        check(&["10.0.0.1:1", "127.0.0.1:1"], &["10.0.0.2"], "http://127.0.0.1:1/");
        check(&["127.0.0.1:1", "10.0.0.1:1", "[fd00::1]:1"], &["fd00::1", "10.0.0.1"], "http://10.0.0.1:1/");
        check(&["127.0.0.1:1", "10.0.0.1:1"], &["127.0.0.1"], "http://127.0.0.1:1/");
    }
}
