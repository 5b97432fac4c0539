//! The HTTP API: JSON and status codes. Figures come from `live` and `history`; this module reads no database and no
//! counters itself. The function [`answer`] needs no socket; [`server`] owns the sockets.

pub mod accept;
pub mod api;
pub mod assets;
pub mod auth;
pub mod client;
mod csv;
pub mod gate;
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
use crate::config::SettingsRefusal;
use crate::error::{Error, ErrorKind};
use crate::history::{DiskThread, History, READ_TIMEOUT};
use crate::live::Live;
use crate::model::Machine;
use crate::text::counted;

pub use auth::Auth;
pub use gate::access::own_host_names;
pub use listen::{Bound, UnboundAddress, Unreachable, bind, resolve};
pub use server::{HttpServer, count_panics, serve};

/// Finds a time zone by name.
pub type ZoneFinder = Arc<dyn Fn(&str) -> crate::error::Result<Zone> + Send + Sync>;

/// The shared state and services that handlers use.
pub struct Context {
    pub live: Arc<Live>,
    /// Answers from memory while no database can be read.
    pub history: History,
    /// The thread that makes backups.
    pub backup_thread: DiskThread,
    pub clock: Arc<dyn Clock>,
    pub database: PathBuf,
    /// Reads the facts about the machine, free disk space included. May block on the disk.
    pub machine: Arc<dyn Fn() -> Machine + Send + Sync>,
    /// Finds a time zone by name; an empty name means the system's own zone.
    pub find_zone: ZoneFinder,
    /// All addresses to listen on, also those that are not bound yet.
    pub listen_addresses: Vec<SocketAddr>,
    pub auth: auth::Auth,
    pub server_state: ServerState,
}

/// State that requests share.
#[derive(Default)]
pub struct ServerState {
    /// Busy and total jiffies at the previous request for metrics. A percentage needs two readings, and no request
    /// waits for the second one.
    jiffies: Mutex<(u64, u64)>,
    /// Number of panics in requests and in threads of tiny_http.
    panics: AtomicU32,
    /// A backup is being made or sent.
    backup_running: Arc<AtomicBool>,
    /// Addresses to listen on that are not bound yet.
    unbound: Mutex<Vec<UnboundAddress>>,
}

impl ServerState {
    pub fn new(unbound: Vec<UnboundAddress>) -> ServerState {
        ServerState { unbound: Mutex::new(unbound), ..ServerState::default() }
    }
}

impl Context {
    /// Facts about the machine, read on the disk thread within `READ_TIMEOUT`.
    pub fn machine(&self) -> Result<Machine, HttpError> {
        let machine = self.machine.clone();
        Ok(self.history.disk().run(Instant::now() + READ_TIMEOUT, move |_| machine())?)
    }

    /// Finds a time zone by name, on the disk thread within `READ_TIMEOUT`.
    pub fn zone(&self, name: &str) -> crate::error::Result<Zone> {
        let (find, name) = (self.find_zone.clone(), name.to_string());
        self.history.disk().run(Instant::now() + READ_TIMEOUT, move |_| find(&name))?
    }

    /// Tries again to bind the addresses that are not bound yet. Returns the new listeners.
    pub fn retry_bind(&self) -> Vec<TcpListener> {
        listen::bind_again(&mut self.unbound())
    }

    pub fn all_bound(&self) -> bool {
        self.unbound().is_empty()
    }

    /// Addresses to listen on at which clients cannot reach the server now.
    pub fn unreachable(&self) -> Vec<Unreachable> {
        listen::unreachable(&self.listen_addresses, &self.unbound(), &self.live.lock())
    }

    fn unbound(&self) -> MutexGuard<'_, Vec<UnboundAddress>> {
        self.server_state.unbound.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A request as handlers see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpRequest<'a> {
    pub method: &'a str,
    /// Path and query, percent-encoded.
    pub target: &'a str,
    pub accept: Option<&'a str>,
    pub accept_encoding: Option<&'a str>,
    pub if_none_match: Option<&'a str>,
    pub authorization: Option<&'a str>,
    /// Address of the client, as the gate saw it.
    pub client_ip: Option<IpAddr>,
    /// The gate found that root or the user of this process sent it, on this machine and through no proxy. The gate
    /// looks only if the request needs authorisation.
    pub trusted: bool,
    /// `None` when it is larger than `BODY_LIMIT`.
    pub body: Option<&'a [u8]>,
}

/// A request whose route was found and whose parameters were read.
pub struct Call<'a> {
    pub request: &'a HttpRequest<'a>,
    pub values: params::Values,
    pub now: Now,
}

impl Call<'_> {
    /// UTC seconds.
    pub fn unix(&self) -> i64 {
        self.now.unix_ms.div_euclid(1000)
    }
}

/// Writes a body in pieces. It must hold no lock between two writes, because a client may read slowly.
pub type Stream = Box<dyn FnOnce(&Context, json::Out) -> io::Result<()> + Send>;

pub enum Body {
    Empty,
    Static(&'static [u8]),
    Bytes(Vec<u8>),
    Stream(Stream),
}

impl Body {
    /// The whole body; only for bodies that are known to be small.
    pub fn into_bytes(self, context: &Context) -> io::Result<Vec<u8>> {
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

/// An answer. Header values must not contain text from outside: neither `server` nor `gate` checks them for line
/// breaks.
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

    /// For small values; large ones are streamed. All JSON ends with a newline, so that a shell prompt after curl's
    /// output is on its own line.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Answer, HttpError> {
        Answer::json_with(200, value)
    }

    pub fn json_with(status: u16, value: &(impl Serialize + ?Sized)) -> Result<Answer, HttpError> {
        match json::bytes(value) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                Ok(Answer::new(status, JSON, Body::Bytes(bytes)))
            }
            Err(error) => Err(HttpError::new(500, format!("the answer cannot be written as JSON: {error}"))),
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
        self.headers.iter().any(|(existing, _)| *existing == name)
    }
}

/// An error answer.
#[derive(Debug)]
pub struct HttpError {
    pub status: u16,
    pub detail: Detail,
}

#[derive(Debug)]
pub enum Detail {
    Sentence(String),
    Flaws(Vec<json::Flaw>),
}

impl fmt::Display for HttpError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Detail::Sentence(sentence) => out.write_str(sentence),
            Detail::Flaws(flaws) => out.write_str(&counted(flaws.len() as u64, "error", "errors")),
        }
    }
}

impl std::error::Error for HttpError {}

impl HttpError {
    pub fn new(status: u16, detail: impl Into<String>) -> HttpError {
        HttpError { status, detail: Detail::Sentence(detail.into()) }
    }

    pub fn flaws(flaws: Vec<json::Flaw>) -> HttpError {
        HttpError { status: 422, detail: Detail::Flaws(flaws) }
    }

    pub fn not_found() -> HttpError {
        HttpError::new(404, "Not Found")
    }

    fn answer(self) -> Answer {
        let answer = match self.detail {
            Detail::Sentence(detail) => Answer::json_with(self.status, &json::Problem { detail }),
            Detail::Flaws(detail) => Answer::json_with(self.status, &json::Problems { detail }),
        };
        answer.unwrap_or_else(|_| Answer::empty(500))
    }
}

/// Database errors are not the client's fault: 503 if the request may succeed once the disk or the file is in order
/// again, else 500.
impl From<Error> for HttpError {
    fn from(error: Error) -> HttpError {
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
        HttpError::new(status, format!("the history cannot be read: {error}; see /api/system/health"))
    }
}

impl From<SettingsRefusal> for HttpError {
    fn from(refused: SettingsRefusal) -> HttpError {
        let detail = match refused {
            SettingsRefusal::Owned { key, owner } => {
                format!("{} can only be set by {owner}: change it there and restart", key.replace('_', " "))
            }
            SettingsRefusal::Invalid { key, why } => format!("{key} cannot be saved: {why}"),
        };
        HttpError::new(409, detail)
    }
}

/// Answers a request: checks authorisation, calls the handler, and adds the headers that every answer has.
pub fn answer(context: &Context, request: &HttpRequest) -> Answer {
    let mut answer = match context.auth.refusal(request, context.history.disk(), context.clock.now().mono_ms) {
        Some(answer) => answer,
        None => routes::dispatch(context, request).unwrap_or_else(HttpError::answer),
    };
    if !answer.has("Cache-Control") {
        answer.header("Cache-Control", "no-store");
    }
    answer.header("X-Content-Type-Options", "nosniff");
    answer
}

#[cfg(test)]
mod tests;
