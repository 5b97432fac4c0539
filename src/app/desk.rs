//! The main thread's desk: signals, the access token and the opened database are told to it, in whatever order they come.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::zone;
use crate::clock::Now;
use crate::config::SMALLEST_SIZE;
use crate::error::{Error, ErrorKind, Result};
use crate::http;
use crate::live::{Earlier, Live};
use crate::source;
use crate::store::{Opened, Options, Reader, Store};
use crate::thread::Mailbox;
use crate::token::{self, Token};
use crate::writer::{self, Past};

/// The start waits so long for its database, so that the first answer knows the history; then it goes on without.
const OPENING: Duration = Duration::from_secs(3);

pub enum Word {
    Signal(Signal),
    /// The token beside the database, and whether it is new; `None` where there is none yet.
    Token(Result<Option<(Token, bool)>>),
    Database(Result<Past>),
    /// Something changed for what the main thread watches over.
    Watch,
}

pub struct Desk {
    pub told: Mailbox<Word>,
    live: Arc<Live>,
    database: PathBuf,
    token: Option<Token>,
    /// It was just made, and nobody was told.
    new_token: bool,
    pub ending: bool,
}

impl Desk {
    pub fn new(told: Mailbox<Word>, live: Arc<Live>, database: PathBuf) -> Desk {
        Desk { told, live, database, token: None, new_token: false, ending: false }
    }

    /// What came of opening the database, so far; `None` when the end came first. Fails where another net-pulse has it: two
    /// of them would each show the half.
    pub fn wait_for_database(&mut self) -> Result<Option<Result<Past>>> {
        let deadline = Instant::now() + OPENING;
        while !self.ending {
            let Some(word) = self.told.take(deadline.saturating_duration_since(Instant::now())) else { break };
            match self.hear(word) {
                None => {}
                Some(Err(error)) if error.kind == ErrorKind::Taken => return Err(error),
                Some(outcome) => return Ok(Some(outcome)),
            }
        }
        let what = || format!("opening {} takes more than {} s", self.database.display(), OPENING.as_secs());
        Ok((!self.ending).then(|| Err(Error::new(ErrorKind::Transient, what()))))
    }

    /// SIGHUP has the zone read again and everything saved; SIGTERM and SIGINT end it. What the database said is given back.
    pub fn hear(&mut self, word: Word) -> Option<Result<Past>> {
        match word {
            Word::Database(outcome) => return Some(outcome),
            Word::Token(Ok(Some((token, new)))) => (self.token, self.new_token) = (Some(token), new),
            Word::Token(Ok(None)) | Word::Watch => {}
            Word::Token(Err(error)) => {
                log::warn!("no access token: {error}; until then nothing can be changed from other machines")
            }
            Word::Signal(Signal::SIGHUP) => {
                self.read_zone();
                self.live.lock().wishes.save_now = true;
                log::info!("read the time zone and the host name again; saving now");
            }
            Word::Signal(signal) => {
                log::info!("{signal}: saving and ending");
                self.ending = true;
            }
        }
        None
    }

    /// At the start and at any time later. `put` has the reader, which is not asked before the sampler has joined.
    pub fn opened(&mut self, outcome: Result<Past>, now: Now, put: impl FnOnce(Reader)) {
        match outcome {
            Err(error) => writer::cannot_open(&self.live, now, &error),
            Ok((earlier, reader)) => {
                log::info!("history in {}", self.database.display());
                put(reader);
                self.take_in(earlier);
            }
        }
    }

    /// What the database remembers takes effect.
    fn take_in(&mut self, earlier: Earlier) {
        let (refused, other_zone) = {
            let mut state = self.live.lock();
            let before = state.config.text("timezone").to_string();
            (state.recall(earlier), state.config.text("timezone") != before)
        };
        refused.iter().for_each(|refused| log::warn!("{refused}"));
        if other_zone {
            self.read_zone();
        }
    }

    fn read_zone(&self) {
        let wanted = self.live.lock().config.text("timezone").to_string();
        match zone::find(&wanted) {
            Ok(zone) => self.live.lock().zone = Arc::new(zone),
            Err(error) => log::warn!("{error}; keeping the zone"),
        }
    }

    /// Without a token it goes on all the same: measuring comes first, and then only this machine may change anything.
    pub fn guard(&mut self) -> http::Guard {
        self.tell_of_token();
        let [private, open] = {
            let config = &self.live.lock().config;
            ["private", "open"].map(|key| config.switch(key).then(|| config.said_by(key)))
        };
        if let (Some(private), Some(open)) = (private, open) {
            log::warn!("{open} does nothing where {private} is set");
        }
        let (private, open) = (private.is_some(), open.is_some());
        http::Guard::new(token::file(&self.database), self.token.take(), private, open)
    }

    pub fn tell_of_token(&mut self) {
        if std::mem::take(&mut self.new_token) {
            let file = token::file(&self.database);
            log::info!("made an access token, in {}: `net-pulse token` prints it", file.display());
        }
    }
}

/// Opens the database, and finds the token beside it, on the writer's thread: both may be slow. A token is made only where
/// the history could be opened: nothing is left beside what is not ours.
pub fn attempt(database: PathBuf, max_bytes: u64, tell: Mailbox<Word>) -> impl FnMut() -> Result<Opened> + Send {
    move || {
        let options = Options { max_bytes: room(max_bytes, &database) };
        let opened = Store::open(&database, &options);
        let file = token::file(&database);
        let token = match opened {
            Ok(_) => token::read_or_make(&file).map(Some),
            // Whatever is wrong with it is wrong with the place, of which the history tells.
            Err(_) => Ok(token::read(&file).ok().flatten().map(|token| (token, false))),
        };
        tell.put(Word::Token(token));
        opened
    }
}

/// `give_up` ends the process, should the main thread not have done so in `time` after it was told to: it may wait for a disk
/// that hangs.
pub fn hear_signals(signals: &SigSet, tell: &Mailbox<Word>, time: Duration, give_up: impl FnOnce()) {
    loop {
        let signal = match signals.wait() {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => {
                log::error!("waiting for signals: {}; ending", io::Error::from(error));
                Signal::SIGTERM
            }
            Ok(signal) => signal,
        };
        tell.put(Word::Signal(signal));
        if signal != Signal::SIGHUP {
            thread::sleep(time);
            return give_up();
        }
    }
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
