//! The sockets: listening, four workers behind the gate, and answers as bytes. tiny_http reads requests; answers are
//! written here, because its own writer keeps a streamed answer in memory for an HTTP/1.0 client, ends a failed one as
//! though it were whole, and cannot leave the length out of a 204.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, listen, setsockopt, socket, sockopt,
};
use tiny_http::{HTTPVersion, Request};

use super::gate::head::{BODY_LIMIT, PLACE, TRUSTED};
use super::gate::inner::Inner;
use super::gate::{Gate, Limits};
use super::{Answer, Ask, Body, Context, Fault, answer};
use crate::clock::Zone;
use crate::error::{Error, Result};
use crate::thread::spawn;

const WORKERS: usize = 4;
/// Who finds it full is asked to come again after a second: a flood should not fill it before the gate has had its turn.
const BACKLOG: i32 = 512;
/// A handler is shallow; SQLite is what needs most of this.
const WORKER_STACK: usize = 256 * 1024;
/// Answers of up to this size go out whole, with their length; longer ones in chunks of about this size.
const CHUNK: usize = 8 * 1024;
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Listens on `hosts`, or on all addresses where none is named: IPv4 and IPv6 each on a socket of its own, so that
/// neither depends on how the system thinks of the other. Port 0 picks one that is free for all of them.
pub fn bind(hosts: &[String], port: u16) -> Result<Vec<TcpListener>> {
    let everywhere = hosts.is_empty();
    let addresses = resolve(hosts)?;
    // With port 0, what is free for the first address may be taken for the next.
    for last_try in (0..if port == 0 { 16 } else { 1 }).rev().map(|left| left == 0) {
        match bind_all(&addresses, port, everywhere) {
            Err((_, Errno::EADDRINUSE)) if !last_try => {}
            Err((address, errno)) => return Err(refusal(address, errno)),
            Ok(listeners) => return Ok(listeners),
        }
    }
    Err(Error::system("cannot listen", "no port is free on all addresses"))
}

/// The addresses that `hosts` mean, each once.
pub fn resolve(hosts: &[String]) -> Result<Vec<IpAddr>> {
    if hosts.is_empty() {
        return Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    }
    let names = std::fs::read("/etc/hosts").unwrap_or_default();
    let names = String::from_utf8_lossy(&names);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for host in hosts {
        let found = look_up(host, &names);
        if found.is_empty() {
            return Err(Error::usage(format!(
                "{}: no such address; give an IP address, or a name that stands in /etc/hosts",
                shown(host)
            )));
        }
        for ip in found {
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
    Ok(addresses)
}

/// `names` is as /etc/hosts. Nobody else is asked: where to listen cannot wait for a name server, least of all on the
/// machine that is one, and the C library's resolver is 20 KB.
fn look_up(host: &str, names: &str) -> Vec<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse() {
        return vec![ip];
    }
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(ip)
    };
    let found: Vec<IpAddr> = names.lines().filter_map(line).collect();
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    found
}

fn bind_all(
    addresses: &[IpAddr],
    mut port: u16,
    everywhere: bool,
) -> std::result::Result<Vec<TcpListener>, (SocketAddr, Errno)> {
    let mut listeners = Vec::new();
    for ip in addresses {
        let address = SocketAddr::new(*ip, port);
        let spare = everywhere || *ip == Ipv6Addr::LOCALHOST && addresses.contains(&Ipv4Addr::LOCALHOST.into());
        match bind_one(address) {
            Ok(listener) => {
                port = listener.local_addr().map_or(port, |address| address.port());
                listeners.push(listener);
            }
            // Routers often have IPv6 compiled out or switched off.
            Err(errno @ (Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EINVAL)) if spare && ip.is_ipv6() => {
                log::info!("no IPv6 here ({}): listening on IPv4 only", io::Error::from(errno));
            }
            Err(errno) => return Err((address, errno)),
        }
    }
    Ok(listeners)
}

/// The standard library sets SO_REUSEADDR, but gives no chance to set IPV6_V6ONLY before binding.
fn bind_one(address: SocketAddr) -> std::result::Result<TcpListener, Errno> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket: OwnedFd = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    // nix allows no more than the C library's own constant, and musl's is 128: there -1 stands for what the kernel allows.
    let backlog = Backlog::new(BACKLOG).or_else(|_| Backlog::new(-1)).unwrap_or(Backlog::MAXCONN);
    listen(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

fn refusal(address: SocketAddr, errno: Errno) -> Error {
    let port = address.port();
    match errno {
        Errno::EADDRINUSE => Error::system(
            format!("port {port} is in use"),
            format!("choose another with --port, or stop what listens on {address}"),
        ),
        Errno::EACCES => Error::system(
            format!("port {port} needs more rights than this user has"),
            "choose one above 1023 with --port",
        ),
        Errno::EADDRNOTAVAIL => {
            Error::system(format!("{} is no address of this machine", address.ip()), "choose another with --host")
        }
        other => Error::system(format!("cannot listen on {address}"), io::Error::from(other)),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(60).map(|each| if each.is_control() { '?' } else { each }).collect()
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
    let gate = Gate::open(listeners, Box::new(road), names, private, limits)?;
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

const REASONS: [(u16, &str); 14] = [
    (200, "OK"),
    (204, "No Content"),
    (304, "Not Modified"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (409, "Conflict"),
    (413, "Content Too Large"),
    (422, "Unprocessable Content"),
    (429, "Too Many Requests"),
    (500, "Internal Server Error"),
    (503, "Service Unavailable"),
    (507, "Insufficient Storage"),
];

fn head(context: &Context, answer: &Answer) -> Vec<u8> {
    let reason = REASONS.iter().find(|(status, _)| *status == answer.status).map_or("", |(_, reason)| reason);
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", answer.status);
    // A machine that does not know the time does not tell it (RFC 9110, 6.6.1).
    if context.live.lock().clock_believed {
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
    fn e48_both_families_have_one_port() {
        let listeners = bind(&[], 0).unwrap();
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert_ne!(addresses[0].port(), 0);
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port()), "{addresses:?}");
        assert!(addresses[0].is_ipv4());
        // A machine without IPv6 has the one.
        assert!(addresses.len() == 1 || addresses[1].is_ipv6());
    }

    #[test]
    fn hosts_as_they_are_written() {
        let check = |hosts: &[&str], expect: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| host.to_string()).collect();
            let listeners = bind(&hosts, 0).unwrap();
            let ips: Vec<String> = listeners.iter().map(|it| it.local_addr().unwrap().ip().to_string()).collect();
            assert_eq!(ips, expect);
        };
        check(&["127.0.0.1"], &["127.0.0.1"]);
        check(&["127.0.0.1", "127.0.0.1"], &["127.0.0.1"]);
        check(&["127.0.0.1", "127.0.0.2"], &["127.0.0.1", "127.0.0.2"]);
        if TcpListener::bind("[::1]:0").is_ok() {
            check(&["[::1]"], &["::1"]);
            check(&["::1", "127.0.0.1"], &["::1", "127.0.0.1"]);
            check(&["0.0.0.0", "::"], &["0.0.0.0", "::"]);
        }
    }

    #[test]
    fn a_name_is_one_of_the_hosts_file() {
        let names =
            "127.0.0.1 localhost\n192.168.1.1\tRouter.lan router # the box\nfd00::1 router\n# 10.0.0.1 gone\nwrong x\n";
        let check = |host, expect: &[&str]| {
            let got: Vec<String> = look_up(host, names).iter().map(IpAddr::to_string).collect();
            assert_eq!(got, expect, "{host}");
        };
        check("192.0.2.7", &["192.0.2.7"]);
        check("[::1]", &["::1"]);
        check("::", &["::"]);
        check("LocalHost", &["127.0.0.1"]);
        assert_eq!(look_up("localhost", "").len(), 2);
        check("router", &["192.168.1.1", "fd00::1"]);
        check("router.LAN", &["192.168.1.1"]);
        check("box", &[]);
        check("gone", &[]);
        check("x", &[]);
        check("", &[]);
        check("300.1.1.1", &[]);
    }

    #[test]
    fn refusals_name_the_thing_and_the_next_step() {
        let taken = bind(&["127.0.0.1".to_string()], 0).unwrap();
        let port = taken[0].local_addr().unwrap().port();
        let check = |host: &str, port, parts: &[&str]| {
            let error = bind(&[host.to_string()], port).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        };
        check("127.0.0.1", port, &[&format!("port {port} is in use"), "--port"]);
        check("192.0.2.7", 0, &["192.0.2.7 is no address of this machine", "--host"]);
        check("no such\u{1b}[2J host", 0, &["no such?[2J host: no such address"]);
    }

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
