//! State and event handling of the main thread's control loop. Other threads send it signals, the access token, the
//! opened database and changes of settings through its inbox, in any order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::zone;
use crate::clock::Now;
use crate::config::MIN_SIZE_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::http;
use crate::live::{Live, StoredHistory};
use crate::source;
use crate::store::{Opened, Options, Reader, Store};
use crate::thread::Queue;
use crate::token::{self, Token};
use crate::writer::{self, OpenedHistory};

/// How long the start waits for the database, so that the first answer includes the history. After that the program
/// runs without the history until the database opens.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// An event for the control loop.
pub enum ControlEvent {
    Signal(Signal),
    /// The token from the file beside the database, and whether it is new. `None` where the database could not be
    /// opened, and the token does not exist or cannot be read.
    Token(Result<Option<(Token, bool)>>),
    /// The database was opened, or the first attempt failed.
    Database(Result<OpenedHistory>),
    /// The active settings changed. Only wakes the loop, so that it uses the new flush interval at once.
    SettingsChanged,
}

/// State of the main thread.
pub struct ControlLoop {
    pub inbox: Queue<ControlEvent>,
    live: Arc<Live>,
    database: PathBuf,
    token: Option<Token>,
    /// The token was created in this run, and the log line about it is not written yet.
    new_token: bool,
    /// A signal asked the program to end.
    pub ending: bool,
}

impl ControlLoop {
    pub fn new(inbox: Queue<ControlEvent>, live: Arc<Live>, database: PathBuf) -> ControlLoop {
        ControlLoop { inbox, live, database, token: None, new_token: false, ending: false }
    }

    /// Handles events until the database is open or the first attempt has failed, for at most `OPEN_TIMEOUT`. Returns
    /// the result of opening: after the timeout an error, `None` when the program must end. Fails where another
    /// net-pulse uses the database: while that one runs, this one could save nothing.
    pub fn wait_for_database(&mut self) -> Result<Option<Result<OpenedHistory>>> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        while !self.ending {
            let Some(event) = self.inbox.take(deadline.saturating_duration_since(Instant::now())) else { break };
            match self.handle(event) {
                None => {}
                Some(Err(error)) if error.kind == ErrorKind::Taken => return Err(error),
                Some(result) => return Ok(Some(result)),
            }
        }
        let message = || format!("opening {} takes more than {} s", self.database.display(), OPEN_TIMEOUT.as_secs());
        Ok((!self.ending).then(|| Err(Error::new(ErrorKind::Transient, message()))))
    }

    /// Handles one event; returns the result of opening the database if that is the event. SIGHUP reads the time zone
    /// again and saves; SIGTERM and SIGINT end the program.
    pub fn handle(&mut self, event: ControlEvent) -> Option<Result<OpenedHistory>> {
        match event {
            ControlEvent::Database(result) => return Some(result),
            ControlEvent::Token(Ok(Some((token, new)))) => (self.token, self.new_token) = (Some(token), new),
            ControlEvent::Token(Ok(None)) | ControlEvent::SettingsChanged => {}
            ControlEvent::Token(Err(error)) => {
                log::warn!("no access token: {error}; other machines can change nothing, unless --open is set")
            }
            ControlEvent::Signal(Signal::SIGHUP) => {
                self.read_zone();
                self.live.lock().pending.save_now = true;
                log::info!("read the time zone and the host name again; saving now");
            }
            ControlEvent::Signal(signal) => {
                log::info!("{signal}: saving and ending");
                self.ending = true;
            }
        }
        None
    }

    /// Handles the result of opening the database, at the start or later. `set_reader` stores the reader; it is not
    /// used before the sampler has rejoined the stored history.
    pub fn handle_open_result(&mut self, result: Result<OpenedHistory>, now: Now, set_reader: impl FnOnce(Reader)) {
        match result {
            Err(error) => writer::report_open_failure(&self.live, now, &error),
            Ok((stored, reader)) => {
                log::info!("history in {}", self.database.display());
                set_reader(reader);
                self.apply_stored_history(stored);
            }
        }
    }

    /// Applies the saved settings, and passes the stored history to the sampler.
    fn apply_stored_history(&mut self, stored: StoredHistory) {
        let (warnings, zone_changed) = {
            let mut state = self.live.lock();
            let before = state.config.text("timezone").to_string();
            (state.apply_stored_history(stored), state.config.text("timezone") != before)
        };
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        if zone_changed {
            self.read_zone();
        }
    }

    /// Reads the time zone of the settings again; keeps the previous one where that fails.
    fn read_zone(&self) {
        let configured = self.live.lock().config.text("timezone").to_string();
        match zone::find_and_log(&configured) {
            Ok(zone) => self.live.lock().zone = Arc::new(zone),
            Err(error) => log::warn!("{error}; keeping the previous time zone"),
        }
    }

    /// Builds the authorisation for HTTP requests. Without a token the program runs too, but then only root and the
    /// user of this process, on this machine, may change anything, unless the setting `open` is on.
    pub fn auth(&mut self) -> http::Auth {
        self.log_new_token();
        let [private, open] = {
            let config = &self.live.lock().config;
            ["private", "open"].map(|key| config.switch(key).then(|| config.set_by(key)))
        };
        if let (Some(private), Some(open)) = (private, open) {
            log::warn!("{open} has no effect while {private} is set");
        }
        let (private, open) = (private.is_some(), open.is_some());
        http::Auth::new(token::path_for(&self.database), self.token.take(), private, open)
    }

    /// Logs once that a token was created in this run.
    pub fn log_new_token(&mut self) {
        if std::mem::take(&mut self.new_token) {
            let file = token::path_for(&self.database);
            log::info!("created an access token in {}; `net-pulse token` prints it", file.display());
        }
    }
}

/// Returns a function that opens the database, then reads or creates the token beside it, and sends the token to
/// `inbox`. It runs on the writer's thread because the disk may be slow. It creates a token only where the database
/// could be opened, so that no file is left beside a database of another program.
pub fn database_opener(
    database: PathBuf,
    max_bytes: u64,
    inbox: Queue<ControlEvent>,
) -> impl FnMut() -> Result<Opened> + Send {
    move || {
        let options = Options { max_bytes: size_limit(max_bytes, &database) };
        let opened = Store::open(&database, &options);
        let file = token::path_for(&database);
        let token = match opened {
            Ok(_) => token::read_or_create(&file).map(Some),
            // Ignore errors of the token file: the error of the database, which is reported, usually has the same
            // cause.
            Err(_) => Ok(token::read(&file).ok().flatten().map(|token| (token, false))),
        };
        inbox.put(ControlEvent::Token(token));
        opened
    }
}

/// Sends each signal to the inbox. After SIGTERM or SIGINT it waits for `timeout`, then calls `force_exit`: the main
/// thread may be blocked by a hanging disk.
pub fn forward_signals(signals: &SigSet, inbox: &Queue<ControlEvent>, timeout: Duration, force_exit: impl FnOnce()) {
    loop {
        let signal = match signals.wait() {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => {
                log::error!("waiting for signals failed: {}; net-pulse ends now", io::Error::from(error));
                Signal::SIGTERM
            }
            Ok(signal) => signal,
        };
        inbox.put(ControlEvent::Signal(signal));
        if signal != Signal::SIGHUP {
            thread::sleep(timeout);
            return force_exit();
        }
    }
}

/// Size limit of the database in bytes: the configured limit, but at most the present size plus half of the free space,
/// and at least `MIN_SIZE_BYTES`. If the free space is 0 or unknown: the configured limit.
fn size_limit(configured: u64, database: &Path) -> u64 {
    let present = std::fs::metadata(database).map_or(0, |file| file.len());
    let existing = database.ancestors().skip(1).find(|path| path.is_dir()).unwrap_or(Path::new("."));
    match source::machine(existing).disk_free {
        0 => configured,
        free => configured.min(present.saturating_add(free / 2)).max(MIN_SIZE_BYTES),
    }
}
