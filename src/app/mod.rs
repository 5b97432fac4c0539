//! Starts, runs and stops the whole program, as one script in order: read the settings, bind, start the threads, wait
//! for a signal, stop the threads in reverse order. The writer's thread opens the database. The start waits a few
//! seconds for it; if opening fails or takes longer, the program counts traffic without it.

mod control_loop;
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
use crate::history::{DiskThread, History};
use crate::http::{self, Context, HttpServer};
use crate::live::{Live, State};
use crate::sampler::{Reopen, Sampler};
use crate::source::{self, SourceChoice, Wake, Woken};
use crate::store::Opened;
use crate::text::plural;
use crate::thread::{self, Queue};
use crate::writer::{self, Writer};
use control_loop::{ControlEvent, ControlLoop};
use listening::AddressWatch;

pub use zone::find as find_zone;

/// Time for the last sample and the last save, after SIGTERM or SIGINT. Data not on disk after that stays unsaved.
const SAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The exit is forced this long after SIGTERM or SIGINT, if the main thread has not ended the program before.
const EXIT_TIMEOUT: Duration = Duration::from_millis(2200);
/// Time for a last save at a forced exit.
const FORCED_SAVE_TIMEOUT: Duration = Duration::from_millis(300);
/// Time for writing the log at a forced exit, after that save.
pub const LOG_TIMEOUT: Duration = Duration::from_millis(200);
/// Part of `SAVE_TIMEOUT` that closing the readers of the database may take.
const CLOSE_READER_TIMEOUT: Duration = Duration::from_millis(250);
/// The longest time between two checks for a hanging save is the flush interval, limited to this range (seconds).
const SAVE_CHECK_RANGE_S: (u32, u32) = (5, 60);

/// File descriptors needed besides the listeners and the inherited ones. 13 are always open. While a save runs, one
/// request at a time, exports included, needs 8 more; two further requests at the same time need 2 more.
const DESCRIPTORS: usize = 13 + 10;
/// Number of listeners without `--host`: one for IPv4 and one for IPv6.
const DEFAULT_LISTENERS: usize = 2;
const STANDARD_STREAMS: usize = 3;

/// Runs the program until SIGTERM or SIGINT. `flags`: settings from the command line, as (key, value). `exit_now` ends
/// the process at once.
pub fn run(flags: &[(&'static str, String)], exit_now: fn()) -> Result<()> {
    let signals = block_signals()?;
    let inbox = Queue::default();
    let live_once: Arc<OnceLock<Arc<Live>>> = Arc::default();
    spawn("signals", {
        let (inbox, live_once) = (inbox.clone(), live_once.clone());
        move || control_loop::forward_signals(&signals, &inbox, EXIT_TIMEOUT, || force_exit(&live_once, exit_now))
    })?;
    let inherited = open_descriptors();
    check_descriptor_limit(inherited, DEFAULT_LISTENERS)?;

    let Startup { config, zone, database } = read_settings(flags)?;
    let choice = SourceChoice::by_name(config.text("source"));
    let (mut source, note) = source::open(choice)?;
    let bound = http::bind(&config.list("host"), config.integer("port") as u16).map_err(|error| match error.kind {
        ErrorKind::Usage => error.context(config.set_by("host")),
        _ => error,
    })?;
    check_descriptor_limit(inherited, bound.listeners.len())?;
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
    live.set_sampler_waker(move || waker.call());
    let sender = inbox.clone();
    live.set_main_waker(move || sender.put(ControlEvent::SettingsChanged));
    let _ = live_once.set(live.clone());

    let writer_thread = start_writer(
        &live,
        &clock,
        control_loop::database_opener(database.clone(), max_size, inbox.clone()),
        inbox.clone(),
    )?;
    let mut control = ControlLoop::new(inbox, live.clone(), database.clone());
    let open_result = control.wait_for_database()?;
    log::info!("{} is the page of net-pulse {}", page_url(&bound.addresses, &addresses), env!("CARGO_PKG_VERSION"));
    let mut reader = None;
    open_result
        .into_iter()
        .for_each(|result| control.handle_open_result(result, clock.now(), |new_reader| reader = Some(new_reader)));
    let reopen: Reopen = Box::new(move || source::open(choice));
    let mut sampler = Sampler::new(source, reopen, live.clone(), clock.clone(), source::stack());
    // The first step lists the interfaces before the first request is answered.
    sampler.step(Woken::default());

    // Only the host name is used, so any path will do. The path of the database may be on a slow disk.
    let own_names = move || http::own_host_names(&source::machine(Path::new("/")).hostname, &allowed_hosts);
    let names = own_names();
    let context = Arc::new(Context {
        history: History::new(live.clone(), reader),
        live,
        backup_thread: DiskThread::named("copy"),
        clock,
        auth: control.auth(),
        machine: Arc::new({
            let database = database.clone();
            move || source::machine(&database)
        }),
        find_zone: Arc::new(zone::find_and_log),
        database,
        listen_addresses: bound.addresses,
        server_state: http::ServerState::new(bound.unbound),
    });
    let sampler_thread = spawn("sampler", move || sampler.run(&wake))?;
    http::count_panics(context.clone());
    let server = http::serve(context.clone(), bound.listeners, names)?;

    run_until_signal(&mut control, &context, &server, own_names);
    stop(&mut control, &context, server, sampler_thread, writer_thread)
}

/// Blocks the signals that the signal thread waits for. Runs first of all: the kernel discards signals that process 1
/// of a container neither blocks nor handles. It also runs before the first thread starts, because threads inherit the
/// mask.
fn block_signals() -> Result<SigSet> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().map_err(|cause| Error::system("blocking signals", io::Error::from(cause)))?;
    Ok(signals)
}

/// The settings, and the time zone and database path derived from them.
struct Startup {
    config: Config,
    zone: Zone,
    database: PathBuf,
}

/// Reads and checks the settings, and starts the log.
fn read_settings(flags: &[(&'static str, String)]) -> Result<Startup> {
    let environment = |name: &str| std::env::var(name).ok();
    let config = Config::new(flags, environment)?;
    crate::log::start(config.text("log_level"), config.text("syslog"));
    let zone = zone::find_and_log(config.text("timezone")).map_err(|error| error.context(config.set_by("timezone")))?;
    let database = config.database_path(nix::unistd::geteuid().is_root(), environment)?;
    if std::path::absolute(&database).is_ok_and(|path| path.to_str().is_none()) {
        let message =
            "the current directory is not UTF-8; start net-pulse elsewhere, or give an absolute path with --database";
        return Err(Error::usage(message));
    }
    Ok(Startup { config, zone, database })
}

/// Starts the writer's thread, which opens the database with `open_database` and then saves.
fn start_writer(
    live: &Arc<Live>,
    clock: &Arc<dyn Clock>,
    open_database: impl FnMut() -> Result<Opened> + Send + 'static,
    inbox: Queue<ControlEvent>,
) -> Result<JoinHandle<()>> {
    let (live, clock) = (live.clone(), clock.clone());
    spawn("writer", move || {
        let report = |result| inbox.put(ControlEvent::Database(result));
        let Some(store) = writer::open(&live, &*clock, open_database, report) else { return };
        writer::run_reporting_panic(&live, &*clock, || {
            let mut writer = Writer::new(live.clone(), store, clock.clone());
            writer.run();
            live.wait_for_last_sample();
            writer.finish();
        });
    })
}

/// The control loop: handles events, and checks for a hanging save and unreachable addresses, until SIGTERM or SIGINT.
fn run_until_signal(
    control: &mut ControlLoop,
    context: &Context,
    server: &HttpServer,
    own_names: impl Fn() -> Vec<String>,
) {
    let mut watch = AddressWatch::default();
    while !control.ending {
        let now = context.clock.now();
        let (problem, flush_s) = {
            let mut state = context.live.lock();
            (state.check_saving(now.mono_ms), state.active.flush_s)
        };
        problem.iter().for_each(|problem| log::error!("{problem}"));
        let timeout = Duration::from_secs(flush_s.clamp(SAVE_CHECK_RANGE_S.0, SAVE_CHECK_RANGE_S.1).into());
        let timeout = timeout.min(watch.check(context, server, Instant::now()));
        let Some(event) = control.inbox.take(timeout) else { continue };
        let reload = matches!(event, ControlEvent::Signal(Signal::SIGHUP));
        handle(control, context, event);
        if reload {
            server.set_host_names(own_names());
        }
    }
}

/// Handles one event after the start. If the database opens only now, the sampler rejoins its history as at the start.
fn handle(control: &mut ControlLoop, context: &Context, event: ControlEvent) {
    let Some(result) = control.handle(event) else { return control.log_new_token() };
    let ending = control.ending;
    control.handle_open_result(result, context.clock.now(), |reader| {
        // While the program ends, the writer must close the last connection, see `stop`.
        context.history.set_reader(Some(reader).filter(|_| !ending), Duration::ZERO);
    });
}

/// Stops the threads: first HTTP, then the sampler after a last sample, then the writer after a last save.
fn stop(
    control: &mut ControlLoop,
    context: &Context,
    server: HttpServer,
    sampler_thread: JoinHandle<()>,
    writer_thread: JoinHandle<()>,
) -> Result<()> {
    let deadline = Instant::now() + SAVE_TIMEOUT;
    let live = &context.live;
    live.lock().pending.stopping = true;
    server.stop();
    // Close the readers first: closing the last connection makes SQLite checkpoint the WAL, which can be slow. The
    // writer must close the last connection.
    context.history.set_reader(None, CLOSE_READER_TIMEOUT);
    // Waits until the thread has ended, at most until the deadline.
    let mut wait_for_end = |thread: &JoinHandle<()>| {
        while !thread.is_finished() && Instant::now() < deadline {
            if let Some(event) = control.inbox.take(Duration::from_millis(5)) {
                handle(control, context, event);
            }
        }
        thread.is_finished()
    };
    let sampler_ended = wait_for_end(&sampler_thread);
    live.lock().pending.sampler_ended = sampler_ended;
    let writer_ended = wait_for_end(&writer_thread);
    log_unsaved(&live.lock(), context.clock.now().mono_ms, writer_ended);
    if [(sampler_ended, sampler_thread), (writer_ended, writer_thread)]
        .into_iter()
        .any(|(ended, thread)| ended && thread.join().is_err())
    {
        return Err(Error::system("stopping", "a thread panicked; see the log above"));
    }
    Ok(())
}

/// Fails at the start where the limit of open files is too low. Otherwise single requests would fail later, each in
/// another place.
fn check_descriptor_limit(inherited: usize, listeners: usize) -> Result<()> {
    let needed = (inherited + DESCRIPTORS + listeners.max(DEFAULT_LISTENERS)) as rlim_t;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft < needed => {
            let cause =
                format!("{soft} are allowed and {needed} are needed; raise the limit (ulimit -n, LimitNOFILE=)");
            Err(Error::system("too few open files", cause))
        }
        _ => Ok(()),
    }
}

/// Number of file descriptors that this process has open, inherited ones included.
fn open_descriptors() -> usize {
    // One of the entries is the descriptor of the listed directory itself.
    let listed = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"));
    listed.map_or(STANDARD_STREAMS, |listed| listed.count().saturating_sub(1))
}

/// Ends the process although the main thread is blocked: gives the writer a short time for a last save, and logs what
/// stays unsaved.
fn force_exit(live_once: &OnceLock<Arc<Live>>, exit_now: fn()) {
    if let Some(live) = live_once.get() {
        live.try_lock().into_iter().for_each(|mut state| state.pending.save_now = true);
        std::thread::sleep(FORCED_SAVE_TIMEOUT);
        if let Some(state) = live.try_lock() {
            log_unsaved(&state, SystemClock.now().mono_ms, false);
        }
    }
    exit_now();
}

/// Logs how many samples stay unsaved, and why. A COMMIT can take minutes on a worn SD card, but a supervisor kills a
/// process that does not end soon. So the process exits during the COMMIT; that does no more harm than a power cut.
fn log_unsaved(state: &State, mono_ms: u64, writer_ended: bool) {
    let unsaved = [&*state.unsaved.saving_batch, &state.unsaved.batch];
    let samples: usize = unsaved.iter().map(|batch| batch.samples.len()).sum();
    if let Some(oldest) = unsaved.iter().find_map(|batch| batch.ticks.first()) {
        let seconds = mono_ms.saturating_sub(oldest.mono_ms) / 1000;
        let cause = match &state.health.saving.error {
            Some(error) => error,
            None if writer_ended => "the clock has not been set yet",
            None => "the disk takes too long",
        };
        log::error!("{}", unsaved_message(samples as u64, seconds, cause));
    }
}

fn unsaved_message(samples: u64, seconds: u64, cause: &str) -> String {
    let [noun, verb] = [("sample", "samples"), ("stays", "stay")].map(|(one, many)| plural(samples, one, many));
    format!(
        "{samples} {noun} of the last {seconds} s {verb} unsaved ({cause}); \
         the next start counts the traffic since the last save, unless the machine is restarted before"
    )
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::spawn(name, 0, Box::new(run))
}

/// URL of the page, if possible with an address that a browser on the LAN can use. `listening`: the addresses
/// to listen on; `addresses`: the addresses that this machine has now.
fn page_url(listening: &[SocketAddr], addresses: &[IpAddr]) -> String {
    let port = listening.first().map_or(0, SocketAddr::port);
    let reachable = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(_) => false,
    };
    let configured: Vec<IpAddr> = listening.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
    let on_network = configured.iter().find(|ip| !ip.is_loopback() && addresses.contains(ip));
    let loopback = configured.iter().find(|ip| ip.is_loopback());
    let host = match on_network.or(loopback).or(configured.first()) {
        Some(ip) => *ip,
        None => addresses.iter().find(reachable).copied().unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    format!("http://{}/", SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_about_unsaved_samples_has_a_singular_and_a_plural() {
        let check = |samples, expect: &str| {
            let message = unsaved_message(samples, 30, "the disk takes too long");
            assert!(message.starts_with(expect), "{message}");
        };
        check(1, "1 sample of the last 30 s stays unsaved (the disk takes too long); the next start");
        check(2, "2 samples of the last 30 s stay unsaved (the disk takes too long); the next start");
    }

    #[test]
    fn the_url_has_an_address_that_a_browser_can_use() {
        let check = |listening: &[&str], addresses: &[&str], expect: &str| {
            let listening: Vec<SocketAddr> = listening.iter().map(|text| text.parse().unwrap()).collect();
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(page_url(&listening, &addresses), expect);
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
