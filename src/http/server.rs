//! Four workers behind the gate, and answers as bytes. tiny_http reads requests; answers are
//! written here, because its own writer keeps a streamed answer in memory for an HTTP/1.0 client, ends a failed one as
//! though it were whole, and cannot leave the length out of a 204.

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

use super::gate::head::{BODY_LIMIT, PLACE, TRUSTED};
use super::gate::inner::Inner;
use super::gate::{Gate, Limits, Terms};
use super::routes::weight;
use super::status::reason;
use super::{Answer, Ask, Body, Context, Fault, answer};
use crate::clock::Zone;
use crate::error::Result;
use crate::text::printable;
use crate::thread::spawn;

const WORKERS: usize = 4;
/// A handler is shallow: history is read on a thread of its own.
const WORKER_STACK: usize = 256 * 1024;
/// Answers of up to this size go out whole, with their length; longer ones in chunks of about this size.
const CHUNK: usize = 8 * 1024;
const STOP_PATIENCE: Duration = Duration::from_secs(1);

pub fn shown(text: &str) -> String {
    printable(text, 60)
}

/// The running server. Dropping it without `stop` leaves its threads to the end of the process.
pub struct Serving {
    gate: Gate,
    inner: Arc<Inner>,
    workers: Vec<JoinHandle<()>>,
}

/// `names` are those under which this machine may be asked.
pub fn serve(context: Arc<Context>, listeners: Vec<TcpListener>, names: Vec<String>) -> Result<Serving> {
    let (inner, road) = Inner::open(places(&context.database), WORKERS)?;
    let private = context.guard.private();
    let mut workers = Vec::new();
    for number in 1..=WORKERS {
        let (context, inner) = (context.clone(), inner.clone());
        let run = Box::new(move || work(&context, &inner));
        workers.push(spawn(&format!("http-{number}"), WORKER_STACK, run)?);
    }
    let limits = Limits { active: WORKERS, ..Limits::default() };
    let gate = Gate::open(listeners, Box::new(road), Terms { names, private, limits, weigh: weight })?;
    Ok(Serving { gate, inner, workers })
}

/// Where the socket between the gate and tiny_http may be made: in memory rather than on flash, and on flash rather than
/// nowhere.
fn places(database: &Path) -> Vec<PathBuf> {
    let given = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from).filter(|path| path.is_absolute());
    let beside = database.parent().map(Path::to_path_buf);
    given.into_iter().chain(["/run".into(), std::env::temp_dir(), "/dev/shm".into()]).chain(beside).collect()
}

impl Serving {
    /// From now on this machine may be asked under these names and no others.
    pub fn rename(&self, names: Vec<String>) {
        self.gate.rename(names);
    }

    /// Takes connections here too.
    pub fn listen(&self, listeners: Vec<TcpListener>) {
        self.gate.listen(listeners);
    }

    /// Takes no more requests and waits for those under way, but not for clients that do not read: whoever stops has the
    /// last save before it.
    pub fn stop(self) {
        let deadline = Instant::now() + STOP_PATIENCE;
        self.gate.stop();
        self.inner.close();
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

fn work(context: &Context, inner: &Inner) {
    while let Some(request) = inner.next() {
        let target = shown(request.url());
        match catch_unwind(AssertUnwindSafe(|| handle(context, inner, request))) {
            Ok(Ok(())) => {}
            // Whoever asked has gone; that is their right.
            Ok(Err(error)) => log::debug!("{target}: {error}"),
            Err(panic) => blame(context, &target, &*panic),
        }
    }
}

/// Counts the panics of threads that nobody here has started: those of tiny_http, which have no names. Whatever ours do
/// is caught and counted where it happens.
pub fn count_panics(context: Arc<Context>) {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().name().is_none() {
            context.notes.panics.fetch_add(1, Ordering::Relaxed);
        }
        tell(panic);
    }));
}

fn blame(context: &Context, target: &str, panic: &(dyn Any + Send)) {
    context.notes.panics.fetch_add(1, Ordering::Relaxed);
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    log::error!("{target}: the program is at fault: {text}");
}

fn handle(context: &Context, inner: &Inner, mut request: Request) -> io::Result<()> {
    let header = |request: &Request, name: &'static str| {
        request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str().to_string())
    };
    let accept = header(&request, "Accept");
    // A proxy may have added a line of its own.
    let accept_encoding = request.headers().iter().filter(|header| header.field.equiv("Accept-Encoding"));
    let accept_encoding = accept_encoding.map(|header| header.value.as_str()).collect::<Vec<_>>().join(",");
    let if_none_match = header(&request, "If-None-Match");
    let authorization = header(&request, "Authorization");
    // These are the gate's own words: what a client claims of these does not get through it.
    let from = header(&request, "X-Real-IP").and_then(|address| address.parse().ok());
    let trusted = header(&request, TRUSTED).is_some();
    let place = header(&request, PLACE).and_then(|place| place.parse().ok());
    let method = request.method().as_str().to_string();
    let target = request.url().to_string();
    let old = *request.http_version() < HTTPVersion(1, 1);
    let body = match method.as_str() {
        "GET" | "HEAD" | "OPTIONS" => Some(Vec::new()),
        _ => read_body(&mut request)?,
    };
    let mut writer = Awaited { out: request.into_writer(), inner, place };
    // Of a request that was left in the middle the rest never comes.
    writer.check()?;

    let ask = Ask {
        method: &method,
        target: &target,
        accept: accept.as_deref(),
        accept_encoding: Some(&accept_encoding),
        if_none_match: if_none_match.as_deref(),
        authorization: authorization.as_deref(),
        from,
        trusted,
        body: body.as_deref(),
    };
    let answer = catch_unwind(AssertUnwindSafe(|| answer(context, &ask))).unwrap_or_else(|panic| {
        blame(context, &shown(&target), &*panic);
        Fault::new(500, "the program is at fault: its log has more").answer()
    });

    let manner = Manner { without_body: method == "HEAD", old };
    send(context, &mut writer, answer, manner)?;
    writer.flush()
}

/// The way to a client as long as there is one: what nobody waits for is not made to its end.
struct Awaited<'a> {
    out: Box<dyn Write + Send>,
    inner: &'a Inner,
    place: Option<usize>,
}

impl Awaited<'_> {
    fn check(&self) -> io::Result<()> {
        if self.inner.has_left(self.place) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl Write for Awaited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// `None` when there is more than anybody wants: the gate has seen to that already.
fn read_body(request: &mut Request) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    request.as_reader().take(BODY_LIMIT as u64 + 1).read_to_end(&mut body)?;
    Ok((body.len() <= BODY_LIMIT).then_some(body))
}

/// How the client wants its answer.
#[derive(Clone, Copy)]
struct Manner {
    without_body: bool,
    /// HTTP/1.0, which knows no chunks.
    old: bool,
}

fn head(context: &Context, answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    // A machine that does not know the time does not tell it (RFC 9110, 6.6.1).
    if context.live.lock().health.clock_believed {
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

/// The Date header, in the one form that is still to be written (RFC 9110, 5.6.7).
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

fn send(context: &Context, out: &mut dyn Write, answer: Answer, manner: Manner) -> io::Result<()> {
    let head = head(context, &answer);
    let whole = |out: &mut dyn Write, mut head: Vec<u8>, body: &[u8]| {
        if !matches!(answer.status, 204 | 304) {
            head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        out.write_all(&head)?;
        if manner.without_body { Ok(()) } else { out.write_all(body) }
    };
    let stream = match answer.body {
        Body::Empty => return whole(out, head, b""),
        Body::Static(bytes) => return whole(out, head, bytes),
        Body::Bytes(bytes) => return whole(out, head, &bytes),
        // Of what is not made, the length is not known, and need not be told.
        Body::Stream(_) if manner.without_body => {
            let mut head = head;
            head.extend_from_slice(b"\r\n");
            return out.write_all(&head);
        }
        Body::Stream(stream) => stream,
    };

    let mut pipe = Pipe { out, head: Some(head), buffer: Vec::with_capacity(CHUNK + CHUNK / 4), manner, gone: false };
    let made = catch_unwind(AssertUnwindSafe(|| stream(context, &mut pipe)))
        .unwrap_or_else(|panic| {
            blame(context, "a streamed answer", &*panic);
            Err(io::Error::other("the program is at fault: its log has more"))
        })
        .and_then(|()| pipe.finish());
    let Err(error) = made else { return Ok(()) };
    if pipe.gone {
        return Err(error);
    }
    if pipe.head.is_some() {
        let fault = Fault::new(500, format!("the answer could not be made: {error}")).answer();
        return send(context, pipe.out, fault, manner);
    }
    // The status is gone already. What follows is no chunk, so that nobody takes half a file for a whole one.
    log::warn!("an answer broke off: {error}");
    pipe.out.write_all(b"broken off\r\n\r\n")
}

/// Collects a streamed body into chunks. If it ends before the first chunk is full, it goes out with its length.
struct Pipe<'a> {
    out: &'a mut dyn Write,
    /// Not yet sent.
    head: Option<Vec<u8>>,
    buffer: Vec<u8>,
    manner: Manner,
    /// The client cannot be written to.
    gone: bool,
}

impl Pipe<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).inspect_err(|_| self.gone = true)
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        if let Some(mut head) = self.head.take() {
            head.extend_from_slice(if self.manner.old { b"\r\n" } else { b"Transfer-Encoding: chunked\r\n\r\n" });
            self.put(&head)?;
        }
        let buffer = std::mem::take(&mut self.buffer);
        if !self.manner.old {
            self.put(format!("{:x}\r\n", buffer.len()).as_bytes())?;
        }
        self.put(&buffer)?;
        if !self.manner.old {
            self.put(b"\r\n")?;
        }
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(mut head) = self.head.take() {
            head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.buffer.len()).as_bytes());
            self.put(&head)?;
            let buffer = std::mem::take(&mut self.buffer);
            return self.put(&buffer);
        }
        if !self.buffer.is_empty() {
            self.send_chunk()?;
        }
        if self.manner.old { Ok(()) } else { self.put(b"0\r\n\r\n") }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
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
    use crate::http::tests::quiet_context;

    #[test]
    fn dates() {
        let check = |unix, expect| assert_eq!(date(unix), expect);
        check(784_111_777, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        check(0, "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
        check(1_709_210_096, "Date: Thu, 29 Feb 2024 12:34:56 GMT\r\n");
    }

    fn sent(answer: Answer, manner: Manner) -> String {
        let mut out = Vec::new();
        send(&quiet_context(), &mut out, answer, manner).unwrap();
        String::from_utf8(out).unwrap()
    }

    const NEW: Manner = Manner { without_body: false, old: false };

    #[test]
    fn a_short_stream_has_a_length() {
        let text = sent(Answer::stream("text/plain", |_, out| out.write_all(b"abc")), NEW);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
        );
    }

    #[test]
    fn a_stream_that_breaks_off_never_looks_whole() {
        let broken = |before: usize| {
            Answer::stream("text/plain", move |_, out| {
                out.write_all(&vec![b'x'; before])?;
                Err(io::Error::other("the disk is gone"))
            })
        };
        let early = sent(broken(10), NEW);
        assert!(early.starts_with("HTTP/1.1 500 ") && early.contains("the disk is gone"), "{early}");
        let late = sent(broken(2 * CHUNK), NEW);
        assert!(late.starts_with("HTTP/1.1 200 ") && late.ends_with("x\r\nbroken off\r\n\r\n"));
        assert!(!late.contains("\r\n0\r\n"));
        let panics = |before: usize| {
            Answer::stream("text/plain", move |_, out| {
                out.write_all(&vec![b'x'; before])?;
                panic!("a fault on purpose")
            })
        };
        assert!(sent(panics(0), NEW).starts_with("HTTP/1.1 500 "));
        assert!(sent(panics(2 * CHUNK), NEW).ends_with("broken off\r\n\r\n"));
    }

    #[test]
    fn a_client_that_went_away_stops_the_making() {
        struct Gone;
        impl Write for Gone {
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
        let error = send(&quiet_context(), &mut Gone, endless, NEW).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
