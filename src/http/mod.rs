//! JSON and status codes, and nothing else: what is known comes from `live` and `store`. A request becomes an `Answer`
//! here without a socket in sight; `server` has the sockets.

pub mod accept;
pub mod api;
pub mod assets;
pub mod client;
mod csv;
pub mod gate;
pub mod guard;
mod inflate;
pub mod json;
mod listen;
pub mod openapi;
pub mod params;
pub mod route;
pub mod routes;
pub mod server;
mod status;
#[cfg(test)]
mod strip;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde::Serialize;

use crate::clock::{Clock, Now, Zone};
use crate::config::Refused;
use crate::error::{Error, ErrorKind};
use crate::history::{Disk, History, PATIENCE};
use crate::live::Live;
use crate::model::Machine;
use crate::text::counted;

pub use gate::access::own_names;
pub use guard::Guard;
pub use listen::{Bound, Unreachable, Waiting, bind, resolve};
pub use server::{Serving, count_panics, serve};

pub type FindZone = Arc<dyn Fn(&str) -> crate::error::Result<Zone> + Send + Sync>;

/// Everything a handler may ask.
pub struct Context {
    pub live: Arc<Live>,
    /// Without one to be read, answers come from memory.
    pub history: History,
    /// Makes copies of it.
    pub copying: Disk,
    pub clock: Arc<dyn Clock>,
    pub database: PathBuf,
    /// Reads the machine's facts now, those of the disk among them.
    pub machine: Arc<dyn Fn() -> Machine + Send + Sync>,
    /// What a time zone's name means here; nothing stands for the system's own.
    pub find_zone: FindZone,
    /// All addresses that it is to listen on.
    pub listening: Vec<SocketAddr>,
    pub guard: guard::Guard,
    pub notes: Notes,
}

/// What one request leaves for the next.
#[derive(Default)]
pub struct Notes {
    /// Busy jiffies and all of them when they were last asked for: a percentage needs two readings, and nobody wants to
    /// wait for the second.
    jiffies: Mutex<(u64, u64)>,
    /// Requests that ended in a panic, and threads of tiny_http that did.
    panics: AtomicU32,
    /// A copy of the database is being made or sent.
    copy_taken: Arc<AtomicBool>,
    /// Of those that it is to listen on, what it does not so far.
    waiting: Mutex<Vec<Waiting>>,
}

impl Notes {
    pub fn new(waiting: Vec<Waiting>) -> Notes {
        Notes { waiting: Mutex::new(waiting), ..Notes::default() }
    }
}

impl Context {
    pub fn machine(&self) -> Result<Machine, Fault> {
        let machine = self.machine.clone();
        Ok(self.history.disk().ask(Instant::now() + PATIENCE, move |_| machine())?)
    }

    pub fn zone(&self, name: &str) -> crate::error::Result<Zone> {
        let (find, name) = (self.find_zone.clone(), name.to_string());
        self.history.disk().ask(Instant::now() + PATIENCE, move |_| find(&name))?
    }

    /// Tries once more to listen where that was not possible before.
    pub fn listen_again(&self) -> Vec<TcpListener> {
        listen::bind_again(&mut self.waiting())
    }

    pub fn all_listen(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Where it cannot be reached now of what was asked for.
    pub fn unreachable(&self) -> Vec<Unreachable> {
        listen::unreachable(&self.listening, &self.waiting(), &self.live.lock())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.notes.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A request as it came, as far as anybody here looks at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    pub method: &'a str,
    /// Path and query, still encoded.
    pub target: &'a str,
    pub accept: Option<&'a str>,
    pub accept_encoding: Option<&'a str>,
    pub if_none_match: Option<&'a str>,
    pub authorization: Option<&'a str>,
    /// Who asks, as the gate saw it.
    pub from: Option<IpAddr>,
    /// It comes from root or our own user on this machine, as far as the gate could find out, and through no proxy.
    pub trusted: bool,
    /// `None` when it is larger than anything that is asked for here.
    pub body: Option<&'a [u8]>,
}

/// A request after its route was found and its parameters were read.
pub struct Call<'a> {
    pub ask: &'a Ask<'a>,
    pub values: params::Values,
    pub now: Now,
}

impl Call<'_> {
    /// UTC seconds.
    pub fn unix(&self) -> i64 {
        self.now.unix_ms.div_euclid(1000)
    }
}

/// Writes a body while it is being made. Nothing is locked between two writes: a client may take its time.
pub type Stream = Box<dyn FnOnce(&Context, json::Out) -> io::Result<()> + Send>;

pub enum Body {
    Empty,
    Static(&'static [u8]),
    Bytes(Vec<u8>),
    Stream(Stream),
}

impl Body {
    /// All of it, for who asks without a socket. Only for what is known to be small.
    pub fn whole(self, context: &Context) -> io::Result<Vec<u8>> {
        match self {
            Body::Empty => Ok(Vec::new()),
            Body::Static(bytes) => Ok(bytes.to_vec()),
            Body::Bytes(bytes) => Ok(bytes),
            Body::Stream(stream) => {
                let mut bytes = Vec::new();
                stream(context, &mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// What goes back. No header may carry anything that a stranger named: neither end checks them for line breaks.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: Body,
}

pub const JSON: &str = "application/json";
pub const SQLITE: &str = "application/vnd.sqlite3";

impl Answer {
    pub fn new(status: u16, media: &'static str, body: Body) -> Answer {
        Answer { status, headers: vec![("Content-Type", media.into())], body }
    }

    pub fn empty(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Body::Empty }
    }

    /// For small values: what may be large is streamed. All JSON ends with its line: curl shows a prompt behind it.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Answer, Fault> {
        Answer::json_with(200, value)
    }

    pub fn json_with(status: u16, value: &(impl Serialize + ?Sized)) -> Result<Answer, Fault> {
        match json::bytes(value) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                Ok(Answer::new(status, JSON, Body::Bytes(bytes)))
            }
            Err(error) => Err(Fault::new(500, format!("the answer cannot be written as JSON: {error}"))),
        }
    }

    pub fn stream(
        media: &'static str,
        stream: impl FnOnce(&Context, json::Out) -> io::Result<()> + Send + 'static,
    ) -> Answer {
        let stream = move |context: &Context, out: json::Out| {
            stream(context, out)?;
            out.write_all(if media == JSON { b"\n" } else { b"" })
        };
        Answer::new(200, media, Body::Stream(Box::new(stream)))
    }

    pub fn header(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.headers.push((name, value.into()));
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| *known == name)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Fault {
    pub status: u16,
    pub detail: Detail,
}

#[derive(Debug)]
pub enum Detail {
    Sentence(String),
    Flaws(Vec<json::Flaw>),
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Detail::Sentence(sentence) => out.write_str(sentence),
            Detail::Flaws(flaws) => out.write_str(&counted(flaws.len() as u64, "fault", "faults")),
        }
    }
}

impl std::error::Error for Fault {}

impl Fault {
    pub fn new(status: u16, detail: impl Into<String>) -> Fault {
        Fault { status, detail: Detail::Sentence(detail.into()) }
    }

    pub fn flaws(flaws: Vec<json::Flaw>) -> Fault {
        Fault { status: 422, detail: Detail::Flaws(flaws) }
    }

    pub fn not_found() -> Fault {
        Fault::new(404, "Not Found")
    }

    fn answer(self) -> Answer {
        let answer = match self.detail {
            Detail::Sentence(detail) => Answer::json_with(self.status, &json::Problem { detail }),
            Detail::Flaws(detail) => Answer::json_with(self.status, &json::Problems { detail }),
        };
        answer.unwrap_or_else(|_| Answer::empty(500))
    }
}

/// What the history could not do is not the client's fault, and passes.
impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        const STATUSES: [(ErrorKind, u16); 7] = [
            (ErrorKind::Busy, 503),
            (ErrorKind::Full, 503),
            (ErrorKind::Io, 503),
            (ErrorKind::ReadOnly, 503),
            (ErrorKind::Corrupt, 503),
            (ErrorKind::Newer, 503),
            (ErrorKind::Transient, 503),
        ];
        let status = STATUSES.iter().find(|(kind, _)| *kind == error.kind).map_or(500, |(_, status)| *status);
        Fault::new(status, format!("the history cannot be read: {error}; see /api/system/health"))
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        let detail = match refused {
            Refused::Owned { key, owner } => {
                format!("{} is set by {owner}: change it there and restart", key.replace('_', " "))
            }
            Refused::Unfit { key, why } => format!("{key} cannot be kept like that: {why}"),
        };
        Fault::new(409, detail)
    }
}

/// The whole of the service as a function.
pub fn answer(context: &Context, ask: &Ask) -> Answer {
    let mut answer = match context.guard.refuses(ask, context.history.disk(), context.clock.now().mono_ms) {
        Some(answer) => answer,
        None => routes::dispatch(context, ask).unwrap_or_else(Fault::answer),
    };
    if !answer.has("Cache-Control") {
        answer.header("Cache-Control", "no-store");
    }
    answer.header("X-Content-Type-Options", "nosniff");
    answer
}

#[cfg(test)]
mod tests;
