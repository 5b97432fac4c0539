//! The HTTP server behind the gate: four worker threads. tiny_http reads the requests. This module writes the answers
//! itself, because tiny_http's writer keeps a streamed answer in memory for an HTTP/1.0 client, ends a failed answer
//! like a complete one, and cannot omit the length of a 204.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Request};

use super::gate::head::{BODY_LIMIT, SLOT_HEADER, TRUSTED_HEADER};
use super::gate::upstream::Upstream;
use super::gate::{Gate, GateConfig, Limits};
use super::routes::weight;
use super::status::reason;
use super::{Answer, Body, Context, HttpError, HttpRequest, answer};
use crate::clock::Zone;
use crate::error::Result;
use crate::text::printable;
use crate::thread::spawn;

const WORKERS: usize = 4;
/// Handlers need little stack: another thread reads the history.
const WORKER_STACK: usize = 256 * 1024;
/// Streamed answers shorter than this are sent at once with Content-Length; longer ones in chunks of about this size.
const CHUNK_BYTES: usize = 8 * 1024;
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

pub fn printable_short(text: &str) -> String {
    printable(text, 60)
}

/// The running server. Dropping it without `stop` leaves its threads running until the process ends.
pub struct HttpServer {
    gate: Gate,
    upstream: Arc<Upstream>,
    workers: Vec<JoinHandle<()>>,
}

/// Starts the server. `names`: the host names that requests may use for this machine.
pub fn serve(context: Arc<Context>, listeners: Vec<TcpListener>, names: Vec<String>) -> Result<HttpServer> {
    let (upstream, connector) = Upstream::open(socket_directories(&context.database), WORKERS)?;
    let private = context.auth.private();
    let mut workers = Vec::new();
    for number in 1..=WORKERS {
        let (context, upstream) = (context.clone(), upstream.clone());
        let run = Box::new(move || worker_loop(&context, &upstream));
        workers.push(spawn(&format!("http-{number}"), WORKER_STACK, run)?);
    }
    let limits = Limits { slots: WORKERS, ..Limits::default() };
    let gate = Gate::open(listeners, Box::new(connector), GateConfig { names, private, limits, weigh: weight })?;
    Ok(HttpServer { gate, upstream, workers })
}

/// Directories for the socket between the gate and tiny_http, best first. The directory of the database comes last,
/// because it may be on flash.
fn socket_directories(database: &Path) -> Vec<PathBuf> {
    let runtime_directory = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from).filter(|path| path.is_absolute());
    let beside = database.parent().map(Path::to_path_buf);
    runtime_directory
        .into_iter()
        .chain(["/run".into(), std::env::temp_dir(), "/dev/shm".into()])
        .chain(beside)
        .collect()
}

impl HttpServer {
    /// Replaces the host names that requests may use for this machine.
    pub fn set_host_names(&self, names: Vec<String>) {
        self.gate.set_host_names(names);
    }

    /// Accepts connections on these listeners too.
    pub fn add_listeners(&self, listeners: Vec<TcpListener>) {
        self.gate.add_listeners(listeners);
    }

    /// Accepts no more requests and waits up to 1 s for the running ones. Slow clients get no more than that, because
    /// the last save needs the time that remains before the exit.
    pub fn stop(self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.gate.stop();
        self.upstream.close();
        while !self.workers.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        for worker in self.workers {
            if worker.is_finished() {
                let _ = worker.join();
            }
        }
    }
}

fn worker_loop(context: &Context, upstream: &Upstream) {
    while let Some(request) = upstream.next() {
        let target = printable_short(request.url());
        match catch_unwind(AssertUnwindSafe(|| handle(context, upstream, request))) {
            Ok(Ok(())) => {}
            // The client closed the connection.
            Ok(Err(error)) => log::debug!("{target}: {error}"),
            Err(panic) => record_panic(context, &target, &*panic),
        }
    }
}

/// Counts panics in threads without a name: only tiny_http has such threads. `record_panic` counts the panics of
/// requests.
pub fn count_panics(context: Arc<Context>) {
    let previous_hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().name().is_none() {
            context.server_state.panics.fetch_add(1, Ordering::Relaxed);
        }
        previous_hook(panic);
    }));
}

fn record_panic(context: &Context, target: &str, panic: &(dyn Any + Send)) {
    context.server_state.panics.fetch_add(1, Ordering::Relaxed);
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    log::error!("{target}: net-pulse is at fault: {text}");
}

fn handle(context: &Context, upstream: &Upstream, mut request: Request) -> io::Result<()> {
    let header = |request: &Request, name: &'static str| {
        request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str().to_string())
    };
    let accept = header(&request, "Accept");
    // A proxy may have added a second header.
    let accept_encoding = request.headers().iter().filter(|header| header.field.equiv("Accept-Encoding"));
    let accept_encoding = accept_encoding.map(|header| header.value.as_str()).collect::<Vec<_>>().join(",");
    let if_none_match = header(&request, "If-None-Match");
    let authorization = header(&request, "Authorization");
    // Only the gate sets these headers: it removes them from what a client sends.
    let from = header(&request, "X-Real-IP").and_then(|address| address.parse().ok());
    let trusted = header(&request, TRUSTED_HEADER).is_some();
    let slot = header(&request, SLOT_HEADER).and_then(|slot| slot.parse().ok());
    let method = request.method().as_str().to_string();
    let target = request.url().to_string();
    let http_1_0 = *request.http_version() < HTTPVersion(1, 1);
    let body = match method.as_str() {
        "GET" | "HEAD" | "OPTIONS" => Some(Vec::new()),
        _ => read_body(&mut request)?,
    };
    let mut writer = ClientWriter { out: request.into_writer(), upstream, slot };
    // If the client left while the gate sent the request, the body is incomplete.
    writer.fail_if_left()?;

    let http_request = HttpRequest {
        method: &method,
        target: &target,
        accept: accept.as_deref(),
        accept_encoding: Some(&accept_encoding),
        if_none_match: if_none_match.as_deref(),
        authorization: authorization.as_deref(),
        client_ip: from,
        trusted,
        body: body.as_deref(),
    };
    let answer = catch_unwind(AssertUnwindSafe(|| answer(context, &http_request))).unwrap_or_else(|panic| {
        record_panic(context, &printable_short(&target), &*panic);
        HttpError::new(500, "net-pulse is at fault: its log says why").answer()
    });

    let framing = Framing { head_only: method == "HEAD", http_1_0 };
    send(context, &mut writer, answer, framing)?;
    writer.flush()
}

/// Writes to the client. Fails once the client has left, so that the handler does not compute the rest of the answer.
struct ClientWriter<'a> {
    out: Box<dyn Write + Send>,
    upstream: &'a Upstream,
    slot: Option<usize>,
}

impl ClientWriter<'_> {
    fn fail_if_left(&self) -> io::Result<()> {
        if self.upstream.client_left(self.slot) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl Write for ClientWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.fail_if_left()?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// `None` when the body is larger than `BODY_LIMIT`; the gate refuses such requests before.
fn read_body(request: &mut Request) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    request.as_reader().take(BODY_LIMIT as u64 + 1).read_to_end(&mut body)?;
    Ok((body.len() <= BODY_LIMIT).then_some(body))
}

/// How to send an answer.
#[derive(Clone, Copy)]
struct Framing {
    head_only: bool,
    /// HTTP/1.0, which has no chunked encoding.
    http_1_0: bool,
}

fn head(context: &Context, answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    // Without a trusted wall clock there is no Date header (RFC 9110, 6.6.1).
    if context.live.lock().health.clock_trusted {
        head.push_str(&date(context.clock.now().unix_ms.div_euclid(1000)));
    }
    for (name, value) in &answer.headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("Connection: close\r\n");
    head.into_bytes()
}

/// The Date header in the only format that may be generated (RFC 9110, 5.6.7).
fn date(unix: i64) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let time = Zone::UTC.civil(unix);
    let (day, month) = (DAYS.get(usize::from(time.weekday())), MONTHS.get(usize::from(time.month).wrapping_sub(1)));
    let (Some(day), Some(month)) = (day, month) else { return String::new() };
    format!(
        "Date: {day}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT\r\n",
        time.day, time.year, time.hour, time.minute, time.second
    )
}

fn send(context: &Context, out: &mut dyn Write, answer: Answer, framing: Framing) -> io::Result<()> {
    let head = head(context, &answer);
    let send_whole = |out: &mut dyn Write, mut head: Vec<u8>, body: &[u8]| {
        if !matches!(answer.status, 204 | 304) {
            head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        out.write_all(&head)?;
        if framing.head_only { Ok(()) } else { out.write_all(body) }
    };
    let stream = match answer.body {
        Body::Empty => return send_whole(out, head, b""),
        Body::Static(bytes) => return send_whole(out, head, bytes),
        Body::Bytes(bytes) => return send_whole(out, head, &bytes),
        // HEAD of a streamed answer: the length is unknown and may be omitted.
        Body::Stream(_) if framing.head_only => {
            let mut head = head;
            head.extend_from_slice(b"\r\n");
            return out.write_all(&head);
        }
        Body::Stream(stream) => stream,
    };

    let mut body_writer = BodyWriter {
        out,
        head: Some(head),
        buffer: Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4),
        framing,
        client_gone: false,
    };
    let result = catch_unwind(AssertUnwindSafe(|| stream(context, &mut body_writer)))
        .unwrap_or_else(|panic| {
            record_panic(context, "a streamed answer", &*panic);
            Err(io::Error::other("net-pulse is at fault: its log says why"))
        })
        .and_then(|()| body_writer.finish());
    let Err(error) = result else { return Ok(()) };
    if body_writer.client_gone {
        return Err(error);
    }
    if body_writer.head.is_some() {
        let fault = HttpError::new(500, format!("the answer could not be made: {error}")).answer();
        return send(context, body_writer.out, fault, framing);
    }
    // The status is already sent. Text that is not a valid chunk follows, so that no HTTP/1.1 client takes half a file
    // for a complete one.
    log::warn!("an answer ended early: {error}");
    body_writer.out.write_all(b"broken off\r\n\r\n")
}

/// Writes a streamed body in chunks. A body that ends before the first chunk is full is sent with Content-Length.
struct BodyWriter<'a> {
    out: &'a mut dyn Write,
    /// The head, until it is sent.
    head: Option<Vec<u8>>,
    buffer: Vec<u8>,
    framing: Framing,
    /// Writing to the client failed.
    client_gone: bool,
}

impl BodyWriter<'_> {
    fn write_to_client(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).inspect_err(|_| self.client_gone = true)
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        if let Some(mut head) = self.head.take() {
            head.extend_from_slice(if self.framing.http_1_0 { b"\r\n" } else { b"Transfer-Encoding: chunked\r\n\r\n" });
            self.write_to_client(&head)?;
        }
        let buffer = std::mem::take(&mut self.buffer);
        if !self.framing.http_1_0 {
            self.write_to_client(format!("{:x}\r\n", buffer.len()).as_bytes())?;
        }
        self.write_to_client(&buffer)?;
        if !self.framing.http_1_0 {
            self.write_to_client(b"\r\n")?;
        }
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(mut head) = self.head.take() {
            head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.buffer.len()).as_bytes());
            self.write_to_client(&head)?;
            let buffer = std::mem::take(&mut self.buffer);
            return self.write_to_client(&buffer);
        }
        if !self.buffer.is_empty() {
            self.send_chunk()?;
        }
        if self.framing.http_1_0 { Ok(()) } else { self.write_to_client(b"0\r\n\r\n") }
    }
}

impl Write for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.send_chunk()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::idle_context;

    #[test]
    fn date_header() {
        let check = |unix, expect| assert_eq!(date(unix), expect);
        check(784_111_777, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        check(0, "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
        check(1_709_210_096, "Date: Thu, 29 Feb 2024 12:34:56 GMT\r\n");
    }

    fn sent(answer: Answer, framing: Framing) -> String {
        let mut out = Vec::new();
        send(&idle_context(), &mut out, answer, framing).unwrap();
        String::from_utf8(out).unwrap()
    }

    const HTTP_1_1: Framing = Framing { head_only: false, http_1_0: false };

    #[test]
    fn a_short_stream_has_a_length() {
        let text = sent(Answer::stream("text/plain", |_, out| out.write_all(b"abc")), HTTP_1_1);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
        );
    }

    #[test]
    fn a_stream_that_fails_never_looks_complete() {
        let failing_answer = |before: usize| {
            Answer::stream("text/plain", move |_, out| {
                out.write_all(&vec![b'x'; before])?;
                Err(io::Error::other("the disk is gone"))
            })
        };
        let early = sent(failing_answer(10), HTTP_1_1);
        assert!(early.starts_with("HTTP/1.1 500 ") && early.contains("the disk is gone"), "{early}");
        let late = sent(failing_answer(2 * CHUNK_BYTES), HTTP_1_1);
        assert!(late.starts_with("HTTP/1.1 200 ") && late.ends_with("x\r\nbroken off\r\n\r\n"));
        assert!(!late.contains("\r\n0\r\n"));
        let panics = |before: usize| {
            Answer::stream("text/plain", move |_, out| {
                out.write_all(&vec![b'x'; before])?;
                panic!("a fault on purpose")
            })
        };
        assert!(sent(panics(0), HTTP_1_1).starts_with("HTTP/1.1 500 "));
        assert!(sent(panics(2 * CHUNK_BYTES), HTTP_1_1).ends_with("broken off\r\n\r\n"));
    }

    #[test]
    fn a_client_that_left_stops_its_answer() {
        struct ClosedWriter;
        impl Write for ClosedWriter {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let endless = Answer::stream("text/plain", |_, out| {
            loop {
                out.write_all(b"more")?;
            }
        });
        let error = send(&idle_context(), &mut ClosedWriter, endless, HTTP_1_1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
