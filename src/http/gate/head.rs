//! The head of a request as bytes: where it ends, whether it is one, and what of it is passed on. Stricter than RFC 9112
//! asks for: whatever two readers could understand differently is refused. Pure; no byte of a request reaches an answer.

use std::borrow::Cow;
use std::net::IpAddr;

/// A whole head, its empty line included.
pub const HEAD_LIMIT: usize = 8 * 1024;
/// The largest body that any route could want: the names of a thousand interfaces. JSON takes a multiple of it in memory.
pub const BODY_LIMIT: usize = 16 * 1024;

/// What is passed on, in lower case, and how often it may come. Everything else is dropped: connection-level headers
/// (RFC 9110, 7.6.1) because this connection ends here, cookies because they are those of other services on the same
/// machine, the rest because nobody asks for it. `content-length` is written anew.
const KEPT: [(&str, Times); 20] = [
    ("accept", Times::Any),
    ("accept-encoding", Times::Any),
    ("accept-language", Times::Any),
    ("authorization", Times::Once),
    ("content-type", Times::Once),
    ("forwarded", Times::Any),
    ("host", Times::Once),
    ("if-modified-since", Times::Once),
    ("if-none-match", Times::Any),
    ("origin", Times::Once),
    ("range", Times::Once),
    ("sec-fetch-dest", Times::Once),
    ("sec-fetch-mode", Times::Once),
    ("sec-fetch-site", Times::Once),
    ("user-agent", Times::Any),
    ("via", Times::Any),
    ("x-forwarded-for", Times::Any),
    ("x-forwarded-host", Times::Any),
    ("x-forwarded-proto", Times::Any),
    ("x-requested-with", Times::Any),
];

#[derive(Clone, Copy, PartialEq)]
enum Times {
    Once,
    Any,
}

/// Why a request is not answered by the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub detail: &'static str,
}

const fn refusal(status: u16, detail: &'static str) -> Refusal {
    Refusal { status, detail }
}

pub const BARE_CR: Refusal = refusal(400, "a carriage return without a line feed in the head");
pub const BARE_LF: Refusal = refusal(400, "a line feed without a carriage return in the head");
pub const CONTROL: Refusal = refusal(400, "a control character in the head");
pub const FOLDED: Refusal = refusal(400, "a folded header line: write it on one line");
pub const NOT_HTTP: Refusal = refusal(400, "this is not HTTP/1.1: the port speaks plain HTTP, without TLS");
pub const TARGET: Refusal = refusal(400, "the request's target has to be a path, in visible ASCII");
pub const VERSION: Refusal = refusal(400, "only HTTP/1.0 and HTTP/1.1 are spoken here");
pub const HEADER: Refusal = refusal(400, "a header line has to be a name, a colon and a value in ASCII");
pub const HOST: Refusal = refusal(400, "there has to be exactly one Host header");
pub const TWICE: Refusal = refusal(400, "a header that may come once came twice");
pub const LENGTH: Refusal = refusal(400, "there may be one Content-Length header, and it has to be a number in digits");
pub const TOO_MUCH: Refusal = refusal(413, "the body is larger than anything that is asked for here");
pub const TRANSFER: Refusal = refusal(400, "Transfer-Encoding is not taken: send the body with its Content-Length");
pub const EXPECT: Refusal = refusal(417, "Expect is not taken: send the body at once");
pub const LONG_TARGET: Refusal = refusal(414, "the request's target is too long");
pub const LONG_HEAD: Refusal = refusal(431, "the request's headers are too long");

/// Looks at every byte once, however small the pieces are in which they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    seen: usize,
    line_start: usize,
    after_cr: bool,
    past_first_line: bool,
}

impl Scan {
    /// `bytes` is what has come so far, from the first byte on. Says where the head ends once that is known, and refuses
    /// at the first byte that no head can have, so that a TLS client does not wait for its time to run out.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        for (at, byte) in bytes.iter().copied().enumerate().skip(self.seen) {
            if at >= HEAD_LIMIT {
                return Err(self.too_long());
            }
            let first_of_line = at == self.line_start;
            match byte {
                b'\n' if !self.after_cr => return Err(BARE_LF),
                b'\n' => {
                    // A line that consists of the carriage return alone.
                    let empty = at == self.line_start + 1;
                    if empty {
                        return if self.past_first_line { Ok(Some(at + 1)) } else { Err(NOT_HTTP) };
                    }
                    self.past_first_line = true;
                    self.line_start = at + 1;
                    self.after_cr = false;
                }
                _ if self.after_cr => return Err(BARE_CR),
                b'\r' => self.after_cr = true,
                b' ' | b'\t' if first_of_line && self.past_first_line => return Err(FOLDED),
                _ if self.past_first_line => {
                    if byte < b' ' && byte != b'\t' || byte == 0x7f {
                        return Err(CONTROL);
                    }
                }
                _ if first_of_line && !is_token_byte(byte) => return Err(NOT_HTTP),
                b' '..=b'~' => {}
                _ => return Err(TARGET),
            }
            self.seen = at + 1;
        }
        if bytes.len() >= HEAD_LIMIT { Err(self.too_long()) } else { Ok(None) }
    }

    fn too_long(&self) -> Refusal {
        if self.past_first_line { LONG_HEAD } else { LONG_TARGET }
    }
}

/// A head that passed.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    pub method: &'a str,
    /// Path and query, still encoded, in whichever form they came.
    pub target: Cow<'a, str>,
    /// HTTP/1.0.
    pub old: bool,
    /// Only a client of HTTP/1.0 may leave it out. What the target names goes before what the header does.
    pub host: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub fetch_site: Option<&'a str>,
    /// Some proxy had it in its hands, or somebody pretends so.
    pub forwarded: bool,
    pub length: Option<usize>,
    kept: Vec<(&'a str, &'a str)>,
    /// It named a `X-Real-IP` of its own, which is not passed on.
    claimed: bool,
}

/// What is to be said about some bytes that came from a client.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    More,
    /// The head, and how many bytes it took.
    Head(Head<'a>, usize),
    Refused(Refusal),
}

/// From the first byte on.
pub fn parse(bytes: &[u8]) -> Progress<'_> {
    match Scan::default().end(bytes) {
        Ok(None) => Progress::More,
        Ok(Some(end)) => match bytes.get(..end).ok_or(NOT_HTTP).and_then(Head::read) {
            Ok(head) => Progress::Head(head, end),
            Err(refusal) => Progress::Refused(refusal),
        },
        Err(refusal) => Progress::Refused(refusal),
    }
}

impl<'a> Head<'a> {
    /// `bytes` is one whole head as `Scan` found it.
    pub fn read(bytes: &'a [u8]) -> Result<Head<'a>, Refusal> {
        let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = lines.next().and_then(|line| std::str::from_utf8(line).ok()).ok_or(NOT_HTTP)?;
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(NOT_HTTP);
        };
        if !is_token(method.as_bytes()) {
            return Err(NOT_HTTP);
        }
        let old = match version {
            "HTTP/1.0" => true,
            "HTTP/1.1" => false,
            _ => return Err(VERSION),
        };
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TARGET);
        }
        let (named, target) = split_target(target).ok_or(TARGET)?;

        let mut head = Head {
            method,
            target,
            old,
            host: None,
            origin: None,
            fetch_site: None,
            forwarded: false,
            length: None,
            kept: Vec::new(),
            claimed: false,
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            head.take(line)?;
        }
        head.host = head.kept("host");
        // RFC 9112, 3.2.
        if head.host.is_none() && !old {
            return Err(HOST);
        }
        if let Some(named) = named {
            head.kept.retain(|(name, _)| *name != "host");
            head.kept.push(("host", named));
            head.host = Some(named);
        }
        head.origin = head.kept("origin");
        head.fetch_site = head.kept("sec-fetch-site");
        Ok(head)
    }

    fn take(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(HEADER)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) {
            return Err(HEADER);
        }
        let name = std::str::from_utf8(name).map_err(|_| HEADER)?;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("transfer-encoding") {
            return Err(TRANSFER);
        }
        if is("expect") {
            return Err(EXPECT);
        }
        if is("content-length") {
            let length = length(value)?;
            return if self.length.replace(length).is_some() { Err(LENGTH) } else { Ok(()) };
        }
        if is("x-real-ip") {
            self.claimed = true;
        }
        self.forwarded |= tells_of_a_proxy(name);
        let Some((name, times)) = KEPT.iter().find(|(known, _)| is(known)) else { return Ok(()) };
        if *times == Times::Once && self.kept(name).is_some() {
            return Err(if *name == "host" { HOST } else { TWICE });
        }
        // Bytes beyond ASCII are allowed where nobody reads them: other services' cookies have them.
        let value = std::str::from_utf8(value).ok().filter(|value| value.is_ascii()).ok_or(HEADER)?;
        self.kept.push((name, value));
        Ok(())
    }

    fn kept(&self, name: &str) -> Option<&'a str> {
        self.kept.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The head as it is passed on. That it came through a proxy is never lost on the way.
    pub fn onward(&self, from: IpAddr) -> Vec<u8> {
        let version = if self.old { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut text = format!("{} {} {version}\r\n", self.method, self.target);
        let mut line = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        };
        for (name, value) in &self.kept {
            line(name, value);
        }
        if self.forwarded && self.kept("forwarded").is_none() {
            line("forwarded", "for=unknown");
        }
        if let Some(length) = self.length {
            line("content-length", &length.to_string());
        }
        line("x-real-ip", &from.to_canonical().to_string());
        line("connection", "close");
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// What the proxies in common use add, one of which is enough: a proxy that was told to add only its own would otherwise
/// pass for a local user.
const PROXY_NAMES: [&str; 15] = [
    "forwarded",
    "via",
    "x-real-ip",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-addr",
    "x-remote-ip",
    "true-client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "cdn-loop",
    "x-proxyuser-ip",
    "x-appengine-user-ip",
    "x-azure-clientip",
];
const PROXY_PREFIXES: [&str; 4] = ["x-forwarded", "x-original-", "x-envoy-", "cf-"];

/// Where the inside keeps its word on whether the client is still there. No client's own gets through.
pub const PLACE: &str = "x-place";
/// The gate has found that this request needs no token. No client's own gets through.
pub const TRUSTED: &str = "x-trusted";

/// Writes both into a head that is to be passed on.
pub fn note(request: &mut Vec<u8>, place: usize, trusted: bool) {
    if let Some(end) = request.iter().position(|byte| *byte == b'\n') {
        let trusted = if trusted { format!("{TRUSTED}: 1\r\n") } else { String::new() };
        request.splice(end + 1..end + 1, format!("{PLACE}: {place}\r\n{trusted}").into_bytes());
    }
}

fn tells_of_a_proxy(name: &str) -> bool {
    let starts = |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    PROXY_PREFIXES.iter().any(starts) || PROXY_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The host, if the target names one as it does to a proxy, and the path with its query (RFC 9112, 3.2.1 and 3.2.2).
fn split_target(target: &str) -> Option<(Option<&str>, Cow<'_, str>)> {
    if target.starts_with('/') {
        return Some((None, target.into()));
    }
    let (scheme, rest) = target.split_once("://")?;
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // There is no TLS here, and no user has a name (RFC 9110, 4.2.4).
    if !scheme.eq_ignore_ascii_case("http") || host.is_empty() || host.contains('@') {
        return None;
    }
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
    Some((Some(host), path))
}

fn length(value: &[u8]) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(LENGTH);
    }
    let mut length: usize = 0;
    for digit in value {
        length = length * 10 + usize::from(digit - b'0');
        if length > BODY_LIMIT {
            return Err(TOO_MUCH);
        }
    }
    Ok(length)
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(head: &str) -> Vec<u8> {
        head.replace('|', "\r\n").into_bytes()
    }

    /// `|` is a line end.
    #[track_caller]
    fn refused(head: &str, expect: Refusal) {
        refused_bytes(&text(head), expect);
    }

    #[track_caller]
    fn refused_bytes(bytes: &[u8], expect: Refusal) {
        match parse(bytes) {
            Progress::Refused(refusal) => assert_eq!(refusal, expect, "{:?}", String::from_utf8_lossy(bytes)),
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
        }
        // The same in pieces of one byte.
        let mut scan = Scan::default();
        let found = (1..=bytes.len()).find_map(|end| scan.end(&bytes[..end]).transpose());
        let found = found.expect("an end").and_then(|end| Head::read(&bytes[..end]).map(|_| ()));
        assert_eq!(found, Err(expect), "byte by byte");
    }

    #[track_caller]
    fn onward(head: &str, expect: &str) {
        let bytes = text(head);
        let Progress::Head(head, end) = parse(&bytes) else { panic!("{head:?}: {:?}", parse(&bytes)) };
        assert_eq!(end, bytes.len());
        let sent = head.onward([192, 0, 2, 7].into());
        assert_eq!(String::from_utf8(sent).expect("text"), expect.replace('|', "\r\n"));
    }

    #[test]
    fn what_is_passed_on() {
        onward("GET / HTTP/1.1|Host: a||", "GET / HTTP/1.1|host: a|x-real-ip: 192.0.2.7|connection: close||");
        onward(
            "GET /?a=%00&b HTTP/1.0|HOST:\ta \t||",
            "GET /?a=%00&b HTTP/1.0|host: a|x-real-ip: 192.0.2.7|connection: close||",
        );
        onward("GET /health HTTP/1.0||", "GET /health HTTP/1.0|x-real-ip: 192.0.2.7|connection: close||");
        onward(
            "POST /x HTTP/1.1|Host: a|Connection: keep-alive, Authorization|Keep-Alive: 5|Upgrade: h2c|Cookie: x|Content-Length: 007|Authorization: Bearer t||",
            "POST /x HTTP/1.1|host: a|authorization: Bearer t|content-length: 7|x-real-ip: 192.0.2.7|connection: close||",
        );
        onward(
            "GET / HTTP/1.1|Host: a|Accept: a|accept: b|X-Empty:|Te: trailers||",
            "GET / HTTP/1.1|host: a|accept: a|accept: b|x-real-ip: 192.0.2.7|connection: close||",
        );
    }

    #[test]
    fn targets_as_they_are_sent_to_a_proxy() {
        let tail = "x-real-ip: 192.0.2.7|connection: close||";
        for (target, path) in [
            ("http://b/", "/"),
            ("HTTP://b", "/"),
            ("http://b/x?y", "/x?y"),
            ("http://b?y=http://c/", "/?y=http://c/"),
            ("http://b#x", "/#x"),
            ("http://b//c/", "//c/"),
        ] {
            let expect = format!("GET {path} HTTP/1.1|accept: x|host: b|{tail}");
            onward(&format!("GET {target} HTTP/1.1|Host: a|Accept: x||"), &expect);
        }
        onward("GET http://[::1]:80/x HTTP/1.0||", &format!("GET /x HTTP/1.0|host: [::1]:80|{tail}"));
        refused("GET http://a/ HTTP/1.1||", HOST);
        refused("GET http://a/ HTTP/1.1|Host: a|Host: a||", HOST);
    }

    #[test]
    fn what_the_gate_notes_are_headers_of_its_own() {
        for (trusted, expect) in [(false, ""), (true, "x-trusted: 1|")] {
            let mut request = text("GET / HTTP/1.1|host: a||body");
            note(&mut request, 3, trusted);
            assert_eq!(request, text(&format!("GET / HTTP/1.1|x-place: 3|{expect}host: a||body")));
        }
        onward(
            "GET / HTTP/1.1|Host: a|X-Place: 1|X-Trusted: 1|x-trusted:1||",
            "GET / HTTP/1.1|host: a|x-real-ip: 192.0.2.7|connection: close||",
        );
    }

    #[test]
    fn a_client_cannot_name_its_own_address_nor_hide_a_proxy() {
        let tail = "x-real-ip: 192.0.2.7|connection: close||";
        for (name, kept) in [
            ("X-Real-IP: 127.0.0.1", ""),
            ("x-real-ip: 127.0.0.1", ""),
            ("X-Forwarded-Port: 80", ""),
            ("X-Forwarded: x", ""),
            ("CF-Connecting-IP: 10.0.0.1", ""),
            ("True-Client-IP: 10.0.0.1", ""),
            ("X-Client-IP: 10.0.0.1", ""),
            ("X-Cluster-Client-IP: 10.0.0.1", ""),
            ("X-Original-Forwarded-For: 10.0.0.1", ""),
            ("X-ProxyUser-Ip: 10.0.0.1", ""),
            ("X-Original-Host: a", ""),
            ("Fastly-Client-IP: 10.0.0.1", ""),
            ("X-Forwarded-For: 10.0.0.1", "x-forwarded-for: 10.0.0.1|"),
            ("Via: 1.1 p", "via: 1.1 p|"),
        ] {
            let expect = format!("GET / HTTP/1.1|host: a|{kept}forwarded: for=unknown|{tail}");
            onward(&format!("GET / HTTP/1.1|Host: a|{name}||"), &expect);
            onward(&format!("GET / HTTP/1.1|Host: a|{name}|Connection: {}||", &name[..9]), &expect);
        }
        onward("GET / HTTP/1.1|Host: a|Forwarded: for=x||", &format!("GET / HTTP/1.1|host: a|forwarded: for=x|{tail}"));
    }

    #[test]
    fn mapped_addresses_are_told_as_what_they_are() {
        let bytes = text("GET / HTTP/1.1|Host: a||");
        let Progress::Head(head, _) = parse(&bytes) else { panic!("a good head") };
        let sent = head.onward("::ffff:127.0.0.1".parse().expect("an address"));
        assert!(String::from_utf8_lossy(&sent).contains("\r\nx-real-ip: 127.0.0.1\r\n"));
    }

    #[test]
    fn what_is_no_http() {
        refused_bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NOT_HTTP);
        refused("PRI * HTTP/2.0||SM||", VERSION);
        refused("||GET / HTTP/1.1|Host: a||", NOT_HTTP);
        refused("|GET / HTTP/1.1|Host: a||", NOT_HTTP);
        refused(" GET / HTTP/1.1|Host: a||", NOT_HTTP);
        refused("GET /|Host: a||", NOT_HTTP);
        refused("GET  / HTTP/1.1|Host: a||", NOT_HTTP);
        refused("GET / HTTP/1.1 |Host: a||", NOT_HTTP);
        refused("GET / x HTTP/1.1|Host: a||", NOT_HTTP);
        refused("G(T / HTTP/1.1|Host: a||", NOT_HTTP);
        refused("G:T / HTTP/1.1|Host: a||", NOT_HTTP);
        refused("GET|Host: a||", NOT_HTTP);
        refused_bytes(b"\0GET / HTTP/1.1\r\n", NOT_HTTP);
        refused_bytes(b"\xffGET / HTTP/1.1\r\n", NOT_HTTP);
    }

    #[test]
    fn targets_and_versions() {
        refused("GET * HTTP/1.1|Host: a||", TARGET);
        refused("OPTIONS * HTTP/1.1|Host: a||", TARGET);
        for target in
            ["http:/a", "http://", "http:///a", "http://?a", "http://u@a/", "https://a/", "ftp://a/", "://a/", "a"]
        {
            refused(&format!("GET {target} HTTP/1.1|Host: a||"), TARGET);
        }
        refused("CONNECT a:80 HTTP/1.1|Host: a||", TARGET);
        refused("GET a HTTP/1.1|Host: a||", TARGET);
        refused_bytes(b"GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", TARGET);
        refused_bytes(b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", TARGET);
        refused_bytes(b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", TARGET);
        refused_bytes("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(), TARGET);
        refused_bytes(b"GET /\xc3\x28 HTTP/1.1\r\nHost: a\r\n\r\n", TARGET);
        for version in
            ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/2", "http/1.1", "HTTP/1.10", "HTTP/11", "HTTP/1.1x", "X"]
        {
            refused(&format!("GET / {version}|Host: a||"), VERSION);
        }
    }

    #[test]
    fn line_ends() {
        refused_bytes(b"GET / HTTP/1.1\nHost: a\n\n", BARE_LF);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\n\r\n", BARE_LF);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\n", BARE_LF);
        refused_bytes(b"GET / HTTP/1.1\rHost: a\r\n\r\n", BARE_CR);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", BARE_CR);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BARE_CR);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", BARE_CR);
        refused("GET / HTTP/1.1|Host: a| folded||", FOLDED);
        refused("GET / HTTP/1.1|\tHost: a||", FOLDED);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", CONTROL);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\x0bb\r\n\r\n", CONTROL);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\x7fb\r\n\r\n", CONTROL);
    }

    #[test]
    fn header_lines() {
        refused("GET / HTTP/1.1|Host: a|nothing||", HEADER);
        refused("GET / HTTP/1.1|Host: a|: x||", HEADER);
        refused("GET / HTTP/1.1|Host : a||", HEADER);
        refused("GET / HTTP/1.1|Ho st: a||", HEADER);
        refused("GET / HTTP/1.1|Host: a|\u{e4}: x||", HEADER);
        refused("GET / HTTP/1.1|Host: \u{e4}||", HEADER);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: \xff\r\n\r\n", HEADER);
        refused("GET / HTTP/1.1||", HOST);
        refused("GET / HTTP/1.0|Host: a|Host: a||", HOST);
        refused("GET / HTTP/1.1|Host: a|Host: a||", HOST);
        refused("GET / HTTP/1.1|Host: a|hOST: b||", HOST);
        refused("GET / HTTP/1.1|Host: a|Origin: http://a|Origin: http://b||", TWICE);
        refused("GET / HTTP/1.1|Host: a|Authorization: x|authorization: y||", TWICE);
        refused("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||", TRANSFER);
        refused("POST / HTTP/1.1|Host: a|transfer-encoding:||", TRANSFER);
        refused("POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding: identity||", TRANSFER);
        refused("POST / HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 5||", EXPECT);
        refused("POST / HTTP/1.1|Host: a|Expect: nonsense||", EXPECT);
    }

    #[test]
    fn strange_bytes_where_nobody_looks_are_dropped() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: x=\xc3\xa4\xff\r\n\r\n";
        let Progress::Head(head, _) = parse(bytes) else { panic!("refused") };
        assert!(head.onward([127, 0, 0, 1].into()).is_ascii());
    }

    #[test]
    fn lengths() {
        let with = |value: &str| format!("POST / HTTP/1.1|Host: a|Content-Length:{value}||");
        for value in ["+5", "-5", "5x", "x5", "0x5", "", " ", "5 5", "5,5", "5, 5", "5.0", "1e3", "\u{665}"] {
            refused(&with(value), LENGTH);
        }
        for value in
            ["16385", "65536", "9000000000000000000", "18446744073709551615", "18446744073709551616", "4294967296"]
        {
            refused(&with(value), TOO_MUCH);
        }
        refused(&with(&"9".repeat(4000)), TOO_MUCH);
        refused("POST / HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 5||", LENGTH);
        refused("POST / HTTP/1.1|Host: a|Content-Length: 5|content-length: 6||", LENGTH);
        for (value, expect) in [("0", 0), (" 5 ", 5), ("16384", 16384), ("0000000000000000000000000000005", 5)] {
            let bytes = text(&with(value));
            let Progress::Head(head, _) = parse(&bytes) else { panic!("{value}") };
            assert_eq!(head.length, Some(expect));
        }
    }

    #[test]
    fn sizes() {
        refused(&format!("GET /{} HTTP/1.1|Host: a||", "a".repeat(HEAD_LIMIT)), LONG_TARGET);
        refused(&format!("GET / HTTP/1.1|Host: a|X: {}||", "a".repeat(HEAD_LIMIT)), LONG_HEAD);
        refused(&format!("GET / HTTP/1.1|Host: a|{}|", "X: y|".repeat(HEAD_LIMIT / 5)), LONG_HEAD);
        let start = "GET / HTTP/1.1|Host: a|X: ";
        let room = HEAD_LIMIT - text(start).len() - 4;
        let fits = text(&format!("{start}{}||", "a".repeat(room)));
        assert_eq!(fits.len(), HEAD_LIMIT);
        assert!(matches!(parse(&fits), Progress::Head(_, HEAD_LIMIT)));
        refused(&format!("{start}{}||", "a".repeat(room + 1)), LONG_HEAD);
    }

    #[test]
    fn what_follows_is_left_alone() {
        let bytes = text("GET /1 HTTP/1.1|Host: a||GET /2 HTTP/1.1|Host: a||\0\n");
        let Progress::Head(head, end) = parse(&bytes) else { panic!("refused") };
        assert_eq!((&*head.target, end), ("/1", 28));
        for end in 0..28 {
            assert!(matches!(parse(&bytes[..end]), Progress::More), "{end}");
        }
    }

    /// Whatever passes is one head again when it is read on the inside, and says the same there.
    #[test]
    fn mutations_are_refused_or_read_the_same_twice() {
        let seed = text("POST /api/x?y=1 HTTP/1.1|Host: a:80|Content-Length: 5|Origin: http://a|X-Real-IP: 1||");
        let mut random = 0x2545_f491_u32;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as usize % below
        };
        let (mut passed, mut stopped) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = seed.clone();
            for _ in 0..1 + next(3) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes[at] = next(256) as u8,
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b"\r\n\0 :\t/aH5+"[next(11)]),
                    _ => bytes[at] ^= 0x20,
                }
            }
            match parse(&bytes) {
                Progress::More => {}
                Progress::Refused(refusal) => {
                    assert!((400..500).contains(&refusal.status));
                    stopped += 1;
                }
                Progress::Head(head, _) => {
                    let sent = head.onward([127, 0, 0, 1].into());
                    let Progress::Head(again, end) = parse(&sent) else {
                        panic!("{:?}", String::from_utf8_lossy(&sent))
                    };
                    assert_eq!(end, sent.len());
                    assert_eq!((again.method, again.target, again.length), (head.method, head.target, head.length));
                    passed += 1;
                }
            }
        }
        assert!(passed > 1000 && stopped > 1000, "{passed} passed, {stopped} stopped");
    }
}
