//! Parses the head of an HTTP request: finds its end, checks it, and writes the head that the gate sends upstream.
//! Pure.
//!
//! The checks are stricter than RFC 9112: they refuse a head that two parsers could understand differently. No byte of
//! a request appears in a refusal.

use std::borrow::Cow;
use std::net::IpAddr;

/// Maximum size of a head in bytes, with its empty line.
pub const HEAD_LIMIT: usize = 8 * 1024;
/// Maximum size of a body in bytes. The largest request of the API lists the names of a thousand interfaces. A higher
/// limit would cost memory: parsed JSON takes several times as much.
pub const BODY_LIMIT: usize = 16 * 1024;

/// Headers that the gate sends upstream, in lower case, and how often each may appear. The gate drops all other
/// headers: connection headers (RFC 9110, section 7.6.1), because the connection ends at the gate; cookies, because
/// they belong to other services on the same machine; the rest, because nothing here uses them. The gate writes
/// `content-length` itself.
const PASSED_HEADERS: [(&str, Repeat); 20] = [
    ("accept", Repeat::Any),
    ("accept-encoding", Repeat::Any),
    ("accept-language", Repeat::Any),
    ("authorization", Repeat::Once),
    ("content-type", Repeat::Once),
    ("forwarded", Repeat::Any),
    ("host", Repeat::Once),
    ("if-modified-since", Repeat::Once),
    ("if-none-match", Repeat::Any),
    ("origin", Repeat::Once),
    ("range", Repeat::Once),
    ("sec-fetch-dest", Repeat::Once),
    ("sec-fetch-mode", Repeat::Once),
    ("sec-fetch-site", Repeat::Once),
    ("user-agent", Repeat::Any),
    ("via", Repeat::Any),
    ("x-forwarded-for", Repeat::Any),
    ("x-forwarded-host", Repeat::Any),
    ("x-forwarded-proto", Repeat::Any),
    ("x-requested-with", Repeat::Any),
];

/// How often a header may appear.
#[derive(Clone, Copy, PartialEq)]
enum Repeat {
    Once,
    Any,
}

/// Why the gate answers a request itself: the status and the `detail` of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRefusal {
    pub status: u16,
    pub detail: &'static str,
}

const fn refusal(status: u16, detail: &'static str) -> RequestRefusal {
    RequestRefusal { status, detail }
}

pub const BARE_CR: RequestRefusal = refusal(400, "a carriage return without a line feed in the head");
pub const BARE_LF: RequestRefusal = refusal(400, "a line feed without a carriage return in the head");
pub const CONTROL: RequestRefusal = refusal(400, "a control character in the head");
pub const FOLDED_LINE: RequestRefusal = refusal(400, "a folded header line: send it as one line");
pub const NOT_HTTP: RequestRefusal = refusal(400, "not an HTTP/1.1 request: this port takes plain HTTP, without TLS");
pub const TARGET: RequestRefusal = refusal(400, "the request target must be a path in printable ASCII");
pub const VERSION: RequestRefusal = refusal(400, "only HTTP/1.0 and HTTP/1.1 are supported");
pub const HEADER_LINE: RequestRefusal = refusal(400, "a header line must be a name, a colon and a value in ASCII");
pub const HOST: RequestRefusal = refusal(400, "the request must have exactly one Host header");
pub const DUPLICATE_HEADER: RequestRefusal = refusal(400, "a header that is allowed once appears twice");
pub const CONTENT_LENGTH: RequestRefusal = refusal(400, "only one Content-Length header is allowed, a decimal number");
pub const BODY_TOO_LARGE: RequestRefusal = refusal(413, "the body is too large: the limit is 16 KiB");
pub const TRANSFER_ENCODING: RequestRefusal =
    refusal(400, "Transfer-Encoding is not supported: send the body with its Content-Length");
pub const EXPECT: RequestRefusal = refusal(417, "Expect is not supported: send the body at once");
pub const LONG_TARGET: RequestRefusal = refusal(414, "the request target is too long");
pub const LONG_HEAD: RequestRefusal = refusal(431, "the request headers are too long");

/// Finds the end of a head. Scans each byte once, even if the head arrives in small pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    scanned: usize,
    line_start: usize,
    after_cr: bool,
    past_first_line: bool,
}

impl Scan {
    /// `bytes`: everything received so far, from the first byte on. Returns the length of the head once its end has
    /// arrived. Refuses at the first byte that no head can contain, so that a TLS client gets its answer at once and
    /// not after a timeout.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, RequestRefusal> {
        for (at, byte) in bytes.iter().copied().enumerate().skip(self.scanned) {
            if at >= HEAD_LIMIT {
                return Err(self.too_long());
            }
            let first_of_line = at == self.line_start;
            match byte {
                b'\n' if !self.after_cr => return Err(BARE_LF),
                b'\n' => {
                    // The line has only its carriage return.
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
                b' ' | b'\t' if first_of_line && self.past_first_line => return Err(FOLDED_LINE),
                _ if self.past_first_line => {
                    if byte < b' ' && byte != b'\t' || byte == 0x7f {
                        return Err(CONTROL);
                    }
                }
                _ if first_of_line && !is_token_byte(byte) => return Err(NOT_HTTP),
                b' '..=b'~' => {}
                _ => return Err(TARGET),
            }
            self.scanned = at + 1;
        }
        if bytes.len() >= HEAD_LIMIT { Err(self.too_long()) } else { Ok(None) }
    }

    fn too_long(&self) -> RequestRefusal {
        if self.past_first_line { LONG_HEAD } else { LONG_TARGET }
    }
}

/// A head that passed the checks.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    pub method: &'a str,
    /// Path and query, still percent-encoded, whatever form of target the client sent.
    pub target: Cow<'a, str>,
    /// The version is HTTP/1.0, not HTTP/1.1.
    pub is_http_1_0: bool,
    /// The host of the target if the target names one, else the Host header. Only an HTTP/1.0 request may have
    /// neither.
    pub host: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub fetch_site: Option<&'a str>,
    /// The request has a header that proxies add. Clients can send such a header too.
    pub forwarded: bool,
    /// Value of Content-Length, in bytes.
    pub length: Option<usize>,
    /// The headers that go upstream: name in lower case, value.
    headers: Vec<(&'a str, &'a str)>,
}

/// Result of scanning a request head.
#[derive(Clone, Debug)]
pub enum ScannedHead<'a> {
    Incomplete,
    /// The complete head and its length in bytes.
    Complete(Head<'a>, usize),
    Refused(RequestRefusal),
}

/// Scans and parses at once. `bytes`: everything received so far, from the first byte on.
pub fn parse(bytes: &[u8]) -> ScannedHead<'_> {
    match Scan::default().end(bytes) {
        Ok(None) => ScannedHead::Incomplete,
        Ok(Some(end)) => match bytes.get(..end).ok_or(NOT_HTTP).and_then(Head::read) {
            Ok(head) => ScannedHead::Complete(head, end),
            Err(refusal) => ScannedHead::Refused(refusal),
        },
        Err(refusal) => ScannedHead::Refused(refusal),
    }
}

impl<'a> Head<'a> {
    /// Parses and checks `bytes`: one complete head, of the length that `Scan` returned.
    pub fn read(bytes: &'a [u8]) -> Result<Head<'a>, RequestRefusal> {
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
        let is_http_1_0 = match version {
            "HTTP/1.0" => true,
            "HTTP/1.1" => false,
            _ => return Err(VERSION),
        };
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TARGET);
        }
        let (authority, target) = split_target(target).ok_or(TARGET)?;

        let mut head = Head {
            method,
            target,
            is_http_1_0,
            host: None,
            origin: None,
            fetch_site: None,
            forwarded: false,
            length: None,
            headers: Vec::new(),
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            head.add_line(line)?;
        }
        head.host = head.header("host");
        // HTTP/1.1 requires Host (RFC 9112, section 3.2).
        if head.host.is_none() && !is_http_1_0 {
            return Err(HOST);
        }
        if let Some(authority) = authority {
            head.headers.retain(|(name, _)| *name != "host");
            head.headers.push(("host", authority));
            head.host = Some(authority);
        }
        head.origin = head.header("origin");
        head.fetch_site = head.header("sec-fetch-site");
        Ok(head)
    }

    /// Checks one header line and keeps it if it goes upstream.
    fn add_line(&mut self, line: &'a [u8]) -> Result<(), RequestRefusal> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(HEADER_LINE)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) {
            return Err(HEADER_LINE);
        }
        let name = std::str::from_utf8(name).map_err(|_| HEADER_LINE)?;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("transfer-encoding") {
            return Err(TRANSFER_ENCODING);
        }
        if is("expect") {
            return Err(EXPECT);
        }
        if is("content-length") {
            let length = length(value)?;
            return if self.length.replace(length).is_some() { Err(CONTENT_LENGTH) } else { Ok(()) };
        }
        self.forwarded |= is_proxy_header(name);
        let Some((name, repeat)) = PASSED_HEADERS.iter().find(|(known, _)| is(known)) else { return Ok(()) };
        if *repeat == Repeat::Once && self.header(name).is_some() {
            return Err(if *name == "host" { HOST } else { DUPLICATE_HEADER });
        }
        // Only headers that the gate sends upstream must be ASCII: a cookie of another service may contain other bytes.
        let value = std::str::from_utf8(value).ok().filter(|value| value.is_ascii()).ok_or(HEADER_LINE)?;
        self.headers.push((name, value));
        Ok(())
    }

    /// Value of the first header of this name among those that go upstream. `name`: in lower case.
    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The head that the gate sends upstream. If the request came through a proxy, the new head always shows that.
    pub fn to_upstream(&self, from: IpAddr) -> Vec<u8> {
        let version = if self.is_http_1_0 { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut text = format!("{} {} {version}\r\n", self.method, self.target);
        let mut line = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        };
        for (name, value) in &self.headers {
            line(name, value);
        }
        if self.forwarded && self.header("forwarded").is_none() {
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

/// Headers that common proxies add. Any one of them marks a request as forwarded. Without the rare ones, the clients of
/// a proxy that adds only its own header would look like local users.
const PROXY_HEADERS: [&str; 15] = [
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
const PROXY_HEADER_PREFIXES: [&str; 4] = ["x-forwarded", "x-original-", "x-envoy-", "cf-"];

/// Header with the slot number of the request. A worker needs the number for `Upstream::client_left`. The gate drops
/// this header if a client sends it.
pub const SLOT_HEADER: &str = "x-slot";
/// Header of a request that needs no token. The gate drops this header if a client sends it.
pub const TRUSTED_HEADER: &str = "x-trusted";

/// Adds `SLOT_HEADER`, and `TRUSTED_HEADER` if `trusted`, to a head that goes upstream.
pub fn add_gate_headers(request: &mut Vec<u8>, slot: usize, trusted: bool) {
    if let Some(end) = request.iter().position(|byte| *byte == b'\n') {
        let trusted = if trusted { format!("{TRUSTED_HEADER}: 1\r\n") } else { String::new() };
        request.splice(end + 1..end + 1, format!("{SLOT_HEADER}: {slot}\r\n{trusted}").into_bytes());
    }
}

fn is_proxy_header(name: &str) -> bool {
    let starts = |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    PROXY_HEADER_PREFIXES.iter().any(starts) || PROXY_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Splits a target into its host, which only the absolute form has, and its path with query (RFC 9112, sections 3.2.1
/// and 3.2.2).
fn split_target(target: &str) -> Option<(Option<&str>, Cow<'_, str>)> {
    if target.starts_with('/') {
        return Some((None, target.into()));
    }
    let (scheme, rest) = target.split_once("://")?;
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // Only `http`, because the port has no TLS. User names are not allowed in a target (RFC 9110, section 4.2.4).
    if !scheme.eq_ignore_ascii_case("http") || host.is_empty() || host.contains('@') {
        return None;
    }
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
    Some((Some(host), path))
}

/// Value of a Content-Length header, in bytes.
fn length(value: &[u8]) -> Result<usize, RequestRefusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(CONTENT_LENGTH);
    }
    let mut length: usize = 0;
    for digit in value {
        length = length * 10 + usize::from(digit - b'0');
        if length > BODY_LIMIT {
            return Err(BODY_TOO_LARGE);
        }
    }
    Ok(length)
}

/// Characters of a token (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a head. `|` stands for a line end.
    fn text(head: &str) -> Vec<u8> {
        head.replace('|', "\r\n").into_bytes()
    }

    #[track_caller]
    fn refused(head: &str, expect: RequestRefusal) {
        refused_bytes(&text(head), expect);
    }

    #[track_caller]
    fn refused_bytes(bytes: &[u8], expect: RequestRefusal) {
        match parse(bytes) {
            ScannedHead::Refused(refusal) => assert_eq!(refusal, expect, "{:?}", String::from_utf8_lossy(bytes)),
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
        }
        // The same result if each byte arrives alone.
        let mut scan = Scan::default();
        let found = (1..=bytes.len()).find_map(|end| scan.end(&bytes[..end]).transpose());
        let found = found.expect("an end").and_then(|end| Head::read(&bytes[..end]).map(|_| ()));
        assert_eq!(found, Err(expect), "byte by byte");
    }

    #[track_caller]
    fn check_upstream(head: &str, expect: &str) {
        let bytes = text(head);
        let ScannedHead::Complete(head, end) = parse(&bytes) else { panic!("{head:?}: {:?}", parse(&bytes)) };
        assert_eq!(end, bytes.len());
        let sent = head.to_upstream([192, 0, 2, 7].into());
        assert_eq!(String::from_utf8(sent).expect("text"), expect.replace('|', "\r\n"));
    }

    #[test]
    fn the_head_that_the_gate_sends_upstream() {
        check_upstream("GET / HTTP/1.1|Host: a||", "GET / HTTP/1.1|host: a|x-real-ip: 192.0.2.7|connection: close||");
        check_upstream(
            "GET /?a=%00&b HTTP/1.0|HOST:\ta \t||",
            "GET /?a=%00&b HTTP/1.0|host: a|x-real-ip: 192.0.2.7|connection: close||",
        );
        check_upstream("GET /health HTTP/1.0||", "GET /health HTTP/1.0|x-real-ip: 192.0.2.7|connection: close||");
        check_upstream(
            "POST /x HTTP/1.1|Host: a|Connection: keep-alive, Authorization|Keep-Alive: 5|Upgrade: h2c|Cookie: x|Content-Length: 007|Authorization: Bearer t||",
            "POST /x HTTP/1.1|host: a|authorization: Bearer t|content-length: 7|x-real-ip: 192.0.2.7|connection: close||",
        );
        check_upstream(
            "GET / HTTP/1.1|Host: a|Accept: a|accept: b|X-Empty:|Te: trailers||",
            "GET / HTTP/1.1|host: a|accept: a|accept: b|x-real-ip: 192.0.2.7|connection: close||",
        );
    }

    #[test]
    fn targets_in_absolute_form() {
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
            check_upstream(&format!("GET {target} HTTP/1.1|Host: a|Accept: x||"), &expect);
        }
        check_upstream("GET http://[::1]:80/x HTTP/1.0||", &format!("GET /x HTTP/1.0|host: [::1]:80|{tail}"));
        refused("GET http://a/ HTTP/1.1||", HOST);
        refused("GET http://a/ HTTP/1.1|Host: a|Host: a||", HOST);
    }

    #[test]
    fn the_gate_adds_headers_that_no_client_can_send() {
        for (trusted, expect) in [(false, ""), (true, "x-trusted: 1|")] {
            let mut request = text("GET / HTTP/1.1|host: a||body");
            add_gate_headers(&mut request, 3, trusted);
            assert_eq!(request, text(&format!("GET / HTTP/1.1|x-slot: 3|{expect}host: a||body")));
        }
        check_upstream(
            "GET / HTTP/1.1|Host: a|X-Slot: 1|X-Trusted: 1|x-trusted:1||",
            "GET / HTTP/1.1|host: a|x-real-ip: 192.0.2.7|connection: close||",
        );
    }

    #[test]
    fn a_client_can_neither_choose_its_address_nor_hide_a_proxy() {
        let tail = "x-real-ip: 192.0.2.7|connection: close||";
        for (name, header) in [
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
            let expect = format!("GET / HTTP/1.1|host: a|{header}forwarded: for=unknown|{tail}");
            check_upstream(&format!("GET / HTTP/1.1|Host: a|{name}||"), &expect);
            check_upstream(&format!("GET / HTTP/1.1|Host: a|{name}|Connection: {}||", &name[..9]), &expect);
        }
        check_upstream(
            "GET / HTTP/1.1|Host: a|Forwarded: for=x||",
            &format!("GET / HTTP/1.1|host: a|forwarded: for=x|{tail}"),
        );
    }

    #[test]
    fn ipv4_mapped_addresses_become_ipv4() {
        let bytes = text("GET / HTTP/1.1|Host: a||");
        let ScannedHead::Complete(head, _) = parse(&bytes) else { panic!("a good head") };
        let sent = head.to_upstream("::ffff:127.0.0.1".parse().expect("an address"));
        assert!(String::from_utf8_lossy(&sent).contains("\r\nx-real-ip: 127.0.0.1\r\n"));
    }

    #[test]
    fn requests_that_are_not_http() {
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
        refused("GET / HTTP/1.1|Host: a| folded||", FOLDED_LINE);
        refused("GET / HTTP/1.1|\tHost: a||", FOLDED_LINE);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", CONTROL);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\x0bb\r\n\r\n", CONTROL);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\x7fb\r\n\r\n", CONTROL);
    }

    #[test]
    fn header_lines() {
        refused("GET / HTTP/1.1|Host: a|nothing||", HEADER_LINE);
        refused("GET / HTTP/1.1|Host: a|: x||", HEADER_LINE);
        refused("GET / HTTP/1.1|Host : a||", HEADER_LINE);
        refused("GET / HTTP/1.1|Ho st: a||", HEADER_LINE);
        refused("GET / HTTP/1.1|Host: a|\u{e4}: x||", HEADER_LINE);
        refused("GET / HTTP/1.1|Host: \u{e4}||", HEADER_LINE);
        refused_bytes(b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: \xff\r\n\r\n", HEADER_LINE);
        refused("GET / HTTP/1.1||", HOST);
        refused("GET / HTTP/1.0|Host: a|Host: a||", HOST);
        refused("GET / HTTP/1.1|Host: a|Host: a||", HOST);
        refused("GET / HTTP/1.1|Host: a|hOST: b||", HOST);
        refused("GET / HTTP/1.1|Host: a|Origin: http://a|Origin: http://b||", DUPLICATE_HEADER);
        refused("GET / HTTP/1.1|Host: a|Authorization: x|authorization: y||", DUPLICATE_HEADER);
        refused("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||", TRANSFER_ENCODING);
        refused("POST / HTTP/1.1|Host: a|transfer-encoding:||", TRANSFER_ENCODING);
        refused("POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding: identity||", TRANSFER_ENCODING);
        refused("POST / HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 5||", EXPECT);
        refused("POST / HTTP/1.1|Host: a|Expect: nonsense||", EXPECT);
    }

    #[test]
    fn non_ascii_values_of_dropped_headers_are_allowed() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: x=\xc3\xa4\xff\r\n\r\n";
        let ScannedHead::Complete(head, _) = parse(bytes) else { panic!("refused") };
        assert!(head.to_upstream([127, 0, 0, 1].into()).is_ascii());
    }

    #[test]
    fn content_lengths() {
        let with = |value: &str| format!("POST / HTTP/1.1|Host: a|Content-Length:{value}||");
        for value in ["+5", "-5", "5x", "x5", "0x5", "", " ", "5 5", "5,5", "5, 5", "5.0", "1e3", "\u{665}"] {
            refused(&with(value), CONTENT_LENGTH);
        }
        for value in
            ["16385", "65536", "9000000000000000000", "18446744073709551615", "18446744073709551616", "4294967296"]
        {
            refused(&with(value), BODY_TOO_LARGE);
        }
        refused(&with(&"9".repeat(4000)), BODY_TOO_LARGE);
        refused("POST / HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 5||", CONTENT_LENGTH);
        refused("POST / HTTP/1.1|Host: a|Content-Length: 5|content-length: 6||", CONTENT_LENGTH);
        for (value, expect) in [("0", 0), (" 5 ", 5), ("16384", 16384), ("0000000000000000000000000000005", 5)] {
            let bytes = text(&with(value));
            let ScannedHead::Complete(head, _) = parse(&bytes) else { panic!("{value}") };
            assert_eq!(head.length, Some(expect));
        }
    }

    #[test]
    fn size_limits() {
        refused(&format!("GET /{} HTTP/1.1|Host: a||", "a".repeat(HEAD_LIMIT)), LONG_TARGET);
        refused(&format!("GET / HTTP/1.1|Host: a|X: {}||", "a".repeat(HEAD_LIMIT)), LONG_HEAD);
        refused(&format!("GET / HTTP/1.1|Host: a|{}|", "X: y|".repeat(HEAD_LIMIT / 5)), LONG_HEAD);
        let start = "GET / HTTP/1.1|Host: a|X: ";
        let room = HEAD_LIMIT - text(start).len() - 4;
        let fits = text(&format!("{start}{}||", "a".repeat(room)));
        assert_eq!(fits.len(), HEAD_LIMIT);
        assert!(matches!(parse(&fits), ScannedHead::Complete(_, HEAD_LIMIT)));
        refused(&format!("{start}{}||", "a".repeat(room + 1)), LONG_HEAD);
    }

    #[test]
    fn bytes_after_the_head_are_not_touched() {
        let bytes = text("GET /1 HTTP/1.1|Host: a||GET /2 HTTP/1.1|Host: a||\0\n");
        let ScannedHead::Complete(head, end) = parse(&bytes) else { panic!("refused") };
        assert_eq!((&*head.target, end), ("/1", 28));
        for end in 0..28 {
            assert!(matches!(parse(&bytes[..end]), ScannedHead::Incomplete), "{end}");
        }
    }

    /// The head that the gate sends upstream parses again, and has the same meaning.
    #[test]
    fn mutated_heads_are_refused_or_mean_the_same_upstream() {
        let seed = text("POST /api/x?y=1 HTTP/1.1|Host: a:80|Content-Length: 5|Origin: http://a|X-Real-IP: 1||");
        let mut random = 0x2545_f491_u32;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as usize % below
        };
        let (mut passed_count, mut refused_count) = (0, 0);
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
                ScannedHead::Incomplete => {}
                ScannedHead::Refused(refusal) => {
                    assert!((400..500).contains(&refusal.status));
                    refused_count += 1;
                }
                ScannedHead::Complete(head, _) => {
                    let sent = head.to_upstream([127, 0, 0, 1].into());
                    let ScannedHead::Complete(again, end) = parse(&sent) else {
                        panic!("{:?}", String::from_utf8_lossy(&sent))
                    };
                    assert_eq!(end, sent.len());
                    assert_eq!((again.method, again.target, again.length), (head.method, head.target, head.length));
                    passed_count += 1;
                }
            }
        }
        assert!(passed_count > 1000 && refused_count > 1000, "{passed_count} passed, {refused_count} refused");
    }
}
