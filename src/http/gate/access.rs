//! Access rules: whether the Host header names this machine, whether a page of another origin sends the request, and
//! whether the request needs the access token. The gate applies the first two, `http/auth` the third.
//!
//! The rules are pure functions: they decide, and their callers refuse.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{PoisonError, RwLock};

use super::head::{HOST, Head, RequestRefusal};

pub const UNKNOWN_HOST: RequestRefusal = RequestRefusal {
    status: 421,
    detail: "this host name is not allowed: use the IP address, or add the name with --allowed-host",
};
pub const FOREIGN_ORIGIN: RequestRefusal =
    RequestRefusal { status: 403, detail: "a web page of another origin may not change anything here" };

/// Domains that a router's DNS or mDNS adds to a bare host name.
const LOCAL_SUFFIXES: [&str; 4] = ["", ".lan", ".local", ".home.arpa"];

/// Host names under which this machine answers. They can change at run time.
pub struct HostNames(RwLock<Vec<String>>);

impl HostNames {
    /// `names`: as `own_host_names` returns them.
    pub fn new(names: Vec<String>) -> HostNames {
        HostNames(RwLock::new(names))
    }

    /// Replaces all names.
    pub fn set(&self, names: Vec<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// A refusal if the request does not name this machine.
    pub fn wrong_host(&self, head: &Head) -> Option<RequestRefusal> {
        wrong_host(head, &self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Host names of this machine, in lower case: `localhost`; the first label of its host name, alone and with the usual
/// local domains; its full host name; the values of `--allowed-host`.
pub fn own_host_names(host_name: &str, allowed: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_string()];
    let mut add = |name: String| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    };
    let bare = host_name.split('.').next().unwrap_or_default();
    if !bare.is_empty() {
        LOCAL_SUFFIXES.iter().for_each(|suffix| add(format!("{bare}{suffix}")));
    }
    add(host_name.to_string());
    allowed.iter().for_each(|name| add(name.clone()));
    names
}

/// Refuses a Host that does not name this machine. This stops DNS rebinding: the browser sends the name of the
/// attacker's page as Host, although the name resolves to this machine. A request without Host is accepted only if it
/// shows no sign of a browser or a proxy: an old client may leave Host out, but a proxy that lost it may serve a
/// browser.
fn wrong_host(head: &Head, names: &[String]) -> Option<RequestRefusal> {
    let browser = head.origin.is_some() || head.fetch_site.is_some();
    match head.host {
        Some(host) => (!allowed_host(host, names)).then_some(UNKNOWN_HOST),
        None => (browser || head.forwarded).then_some(HOST),
    }
}

/// Whether `host` (with or without a port) names this machine. Every IP address is accepted, because DNS rebinding
/// needs a name.
pub fn allowed_host(host: &str, names: &[String]) -> bool {
    let Some((name, _)) = split_port(host) else { return false };
    if let Some(inner) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = inner.split('%').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<Ipv4Addr>().is_ok() || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Splits `host` or `host:port`. `None` if the port is not a number up to 65535. An empty port counts as none.
fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    let bracket = host.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = host.get(bracket..)?.find(':') else { return Some((host, None)) };
    let (name, port) = (&host[..bracket + colon], &host[bracket + colon + 1..]);
    if port.is_empty() {
        return Some((name, None));
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits)?;
    Some((name, Some(port)))
}

/// Whether the method may change something: every method but GET, HEAD and OPTIONS.
pub fn changes_something(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// Whether a page of another origin makes the browser send this request (CSRF). Browsers send Origin or
/// Sec-Fetch-Site if such a page changes something. So a request with neither header does not come from a browser, or
/// it comes from our own page. The origin is compared with Host, so a reverse proxy must pass Host unchanged.
pub fn foreign_origin(head: &Head) -> bool {
    if head.fetch_site.is_some_and(|site| site.eq_ignore_ascii_case("cross-site")) {
        return true;
    }
    let Some(origin) = head.origin else { return false };
    let Some((scheme, authority)) = origin.split_once("://") else { return true };
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return true,
    };
    let host_and_port =
        |text| split_port(text).map(|(name, port)| (name.to_ascii_lowercase(), port.unwrap_or(default)));
    match (host_and_port(authority), head.host.and_then(host_and_port)) {
        (Some(origin), Some(own)) => origin != own,
        _ => true,
    }
}

/// Whether the request needs the access token. `trusted`: the gate knows that root or this process's own user sends
/// the request, on this machine. `private`: reading needs the token too. `open`: no request needs the token. If both
/// are set, `private` wins.
pub fn needs_token(method: &str, trusted: bool, private: bool, open: bool) -> bool {
    let needed = needs_authorisation(method, private) && (private || !open);
    needed && !trusted
}

/// Whether a request needs authorisation: with `private` every request, otherwise every method but GET and HEAD.
fn needs_authorisation(method: &str, private: bool) -> bool {
    private || !matches!(method, "GET" | "HEAD")
}

/// Whether a trusted owner of the client's socket replaces the token. True for a request that needs authorisation,
/// comes over the loopback and passed no proxy. HTTP/1.0 counts as a proxy: old proxies, and nginx by default, forward
/// requests as HTTP/1.0 without adding a header.
pub fn may_be_trusted(head: &Head, from: IpAddr, private: bool) -> bool {
    from.to_canonical().is_loopback()
        && !head.forwarded
        && !head.is_http_1_0
        && needs_authorisation(head.method, private)
}

/// The token of an `Authorization: Bearer` header (RFC 6750, section 2.1).
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares in constant time, so that the duration does not reveal how many bytes are right. The length is not secret.
/// An empty `expected` matches nothing.
pub fn same_secret(given: &[u8], expected: &[u8]) -> bool {
    if given.len() != expected.len() || expected.is_empty() {
        return false;
    }
    let differing = given.iter().zip(expected).fold(0, |sum, (one, other)| black_box(sum | (one ^ other)));
    black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::super::head::{ScannedHead, parse};
    use super::*;

    #[track_caller]
    fn check_host(host: &str, expect: bool) {
        let names = own_host_names("Router", &["pulse.example.org".to_string()]);
        assert_eq!(allowed_host(host, &names), expect, "{host}");
    }

    #[test]
    fn e47_which_host_values_name_this_machine() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:8000",
            "192.168.1.1",
            "[::1]",
            "[::1]:8000",
            "[fe80::1%25eth0]:8000",
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "router",
            "Router.lan:80",
            "router.local.",
            "router.home.arpa",
            "pulse.example.org",
            "pulse.example.org:443",
            "router:",
        ] {
            check_host(good, true);
        }
        for bad in [
            "",
            ":8000",
            "evil.example",
            "router.evil.example",
            "evil-router",
            "routerx",
            "127.0.0.1.evil.example",
            "127.0.0.1:80:90",
            "127.0.0.1:99999",
            "127.0.0.1:8x",
            "127.0.0.1:+80",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "::1",
            "[::1",
            "[::1]x",
            "[evil.example]",
            "a@127.0.0.1",
            "127.0.0.1/",
            "localhost, evil.example",
            "localhost evil",
            "localhost..",
        ] {
            check_host(bad, false);
        }
    }

    #[test]
    fn host_names_of_this_machine() {
        assert_eq!(own_host_names("", &[]), ["localhost"]);
        assert_eq!(
            own_host_names("Pi.Example.org", &["X.".to_string(), "x".to_string()]),
            ["localhost", "pi", "pi.lan", "pi.local", "pi.home.arpa", "pi.example.org", "x"]
        );
    }

    #[test]
    fn e47_a_missing_host_is_refused_only_from_browsers_and_proxies() {
        #[track_caller]
        fn check(head: &str, expect: Option<RequestRefusal>) {
            let text = head.replace('|', "\r\n");
            let ScannedHead::Complete(head, _) = parse(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(wrong_host(&head, &own_host_names("router", &[])), expect, "{text}");
        }
        check("GET / HTTP/1.0||", None);
        check("GET / HTTP/1.0|User-Agent: check_http/1.4||", None);
        check("POST / HTTP/1.0||", None);
        check("GET / HTTP/1.0|Host: router||", None);
        check("GET / HTTP/1.0|Host: evil.example||", Some(UNKNOWN_HOST));
        check("GET / HTTP/1.0|Host:||", Some(UNKNOWN_HOST));
        check("GET / HTTP/1.0|Origin: http://evil.example||", Some(HOST));
        check("GET / HTTP/1.0|Sec-Fetch-Site: same-origin||", Some(HOST));
        // The host in the request target wins over the Host header.
        check("GET http://router/ HTTP/1.1|Host: evil.example||", None);
        check("GET http://evil.example/ HTTP/1.1|Host: router||", Some(UNKNOWN_HOST));
        check("GET http://evil.example/ HTTP/1.0||", Some(UNKNOWN_HOST));
        for proxy in
            ["Via: 1.0 old", "X-Forwarded-Host: evil.example", "Forwarded: host=evil.example", "X-Real-IP: ::1"]
        {
            check(&format!("GET / HTTP/1.0|{proxy}||"), Some(HOST));
            check(&format!("GET / HTTP/1.0|Host: router|{proxy}||"), None);
        }
    }

    #[track_caller]
    fn check_origin(host: &str, lines: &str, expect: bool) {
        let text = format!("POST / HTTP/1.1\r\nHost: {host}\r\n{}\r\n", lines.replace('|', "\r\n"));
        let ScannedHead::Complete(head, _) = parse(text.as_bytes()) else { panic!("{text}") };
        assert_eq!(foreign_origin(&head), expect, "{text}");
    }

    #[test]
    fn e47_changes_from_pages_of_other_origins() {
        check_origin("a:8000", "", false);
        check_origin("a:8000", "Origin: http://a:8000|", false);
        check_origin("A:8000", "Origin: http://a:8000|Sec-Fetch-Site: same-origin|", false);
        check_origin("a", "Origin: http://a:80|", false);
        check_origin("a:443", "Origin: https://a|", false);
        check_origin("[::1]:8000", "Origin: http://[::1]:8000|", false);
        check_origin("a:8000", "Sec-Fetch-Site: none|", false);
        check_origin("a:8000", "Sec-Fetch-Site: cross-site|", true);
        check_origin("a:8000", "Origin: http://a:8000|Sec-Fetch-Site: Cross-Site|", true);
        check_origin("a:8000", "Origin: http://a|", true);
        check_origin("a:8000", "Origin: https://a|", true);
        check_origin("a:8000", "Origin: http://a:8001|", true);
        check_origin("a:8000", "Origin: http://b:8000|", true);
        check_origin("a:8000", "Origin: http://a:8000.evil|", true);
        check_origin("a:8000", "Origin: null|", true);
        check_origin("a:8000", "Origin:|", true);
        check_origin("a:8000", "Origin: file://a:8000|", true);
        check_origin("a:8000", "Origin: http://b@a:8000|", true);
    }

    #[test]
    fn which_requests_need_the_token() {
        for (method, normal, private, open) in [
            ("GET", false, true, false),
            ("HEAD", false, true, false),
            ("POST", true, true, false),
            ("PUT", true, true, false),
            ("OPTIONS", true, true, false),
            ("get", true, true, false),
        ] {
            assert_eq!(needs_token(method, false, false, false), normal, "{method}");
            assert_eq!(needs_token(method, false, true, false), private, "{method} --private");
            assert_eq!(needs_token(method, false, false, true), open, "{method} --open");
            assert!(needs_token(method, false, true, true), "{method} --private --open");
            for (private, open) in [(false, false), (true, false), (false, true), (true, true)] {
                assert!(!needs_token(method, true, private, open), "{method} of a trusted user");
            }
        }
    }

    #[test]
    fn which_requests_may_be_trusted_without_the_token() {
        #[track_caller]
        fn check(head: &str, from: &str, private: bool, expect: bool) {
            let text = head.replace('|', "\r\n");
            let ScannedHead::Complete(head, _) = parse(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(may_be_trusted(&head, from.parse().expect("an address"), private), expect, "{text} {from}");
        }
        let post = "POST / HTTP/1.1|Host: a||";
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check(post, loopback, false, true);
            check(post, loopback, true, true);
            check("GET / HTTP/1.1|Host: a||", loopback, false, false);
            check("GET / HTTP/1.1|Host: a||", loopback, true, true);
            check("POST / HTTP/1.0|Host: a||", loopback, false, false);
            check("POST / HTTP/1.0||", loopback, false, false);
            check("POST / HTTP/1.1|Host: a|Via: 1.1 p||", loopback, false, false);
            check("POST / HTTP/1.1|Host: a|X-Real-IP: 127.0.0.1||", loopback, false, false);
        }
        for remote in ["192.168.1.7", "fe80::1", "0.0.0.0", "::"] {
            check(post, remote, false, false);
            check(post, remote, true, false);
        }
    }

    #[test]
    fn tokens_are_parsed_and_compared() {
        for (value, expect) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(bearer(value), expect, "{value}");
        }
        assert!(same_secret(b"abc", b"abc"));
        for wrong in ["", "ab", "abcd", "abd", "xbc", "ABC"] {
            assert!(!same_secret(wrong.as_bytes(), b"abc"), "{wrong}");
        }
        assert!(!same_secret(b"", b""), "an empty token never matches");
    }
}
