//! Who may do what, as pure questions: whether a name is ours, whether a change comes from a page that is not ours, and
//! whether the token is asked for. The answers are given elsewhere.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{PoisonError, RwLock};

use super::head::{HOST, Head, Refusal};

pub const NOT_US: Refusal = Refusal {
    status: 421,
    detail: "this machine is not known by that name: use its address, or start with --allowed-host and the name",
};
pub const FOREIGN: Refusal = Refusal { status: 403, detail: "a page of another origin may not change anything here" };

/// What a router's DNS and mDNS make of a bare host name.
const SUFFIXES: [&str; 4] = ["", ".lan", ".local", ".home.arpa"];

/// The names under which this machine may be asked, which can change while it runs.
pub struct Names(RwLock<Vec<String>>);

impl Names {
    /// Those of `own_names`.
    pub fn new(names: Vec<String>) -> Names {
        Names(RwLock::new(names))
    }

    pub fn set(&self, names: Vec<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    pub fn wrong_host(&self, head: &Head) -> Option<Refusal> {
        wrong_host(head, &self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// In lower case.
pub fn own_names(host_name: &str, allowed: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_string()];
    let mut add = |name: String| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    };
    let bare = host_name.split('.').next().unwrap_or_default();
    if !bare.is_empty() {
        SUFFIXES.iter().for_each(|suffix| add(format!("{bare}{suffix}")));
    }
    add(host_name.to_string());
    allowed.iter().for_each(|name| add(name.clone()));
    names
}

/// A page whose name was made to point here (DNS rebinding) gives itself away by its Host. An old client that sends none
/// is no browser; a proxy that lost it could have one behind it.
fn wrong_host(head: &Head, names: &[String]) -> Option<Refusal> {
    let browser = head.origin.is_some() || head.fetch_site.is_some();
    match head.host {
        Some(host) => (!allowed_host(host, names)).then_some(NOT_US),
        None => (browser || head.forwarded).then_some(HOST),
    }
}

/// An address cannot be rebound, so every address will do.
pub fn allowed_host(host: &str, names: &[String]) -> bool {
    let Some((name, _)) = split_port(host) else { return false };
    if let Some(inner) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = inner.split('%').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<Ipv4Addr>().is_ok() || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Host and port, if that is what it is.
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

pub fn changes_something(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// A browser says where a changing request comes from; whoever says nothing is no browser, or comes from here. A proxy
/// has to leave the Host as it was.
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
    let place = |text| split_port(text).map(|(name, port)| (name.to_ascii_lowercase(), port.unwrap_or(default)));
    match (place(authority), head.host.and_then(place)) {
        (Some(origin), Some(own)) => origin != own,
        _ => true,
    }
}

/// `trusted`: the gate knows that it comes from root or our own user on this machine. `private` asks for the token for
/// reading too, `open` for nothing, and where both are set the narrower one counts.
pub fn needs_token(method: &str, trusted: bool, private: bool, open: bool) -> bool {
    let wanted = asks_for_rights(method, private) && (private || !open);
    wanted && !trusted
}

/// Whether it matters who sends it.
fn asks_for_rights(method: &str, private: bool) -> bool {
    private || !matches!(method, "GET" | "HEAD")
}

/// Whether the user behind the socket decides: a request from the loopback that no proxy has told of. In HTTP/1.0 comes
/// what old proxies pass on, nginx among them, which add no header unless they are told to.
pub fn may_be_trusted(head: &Head, from: IpAddr, private: bool) -> bool {
    from.to_canonical().is_loopback() && !head.forwarded && !head.old && asks_for_rights(head.method, private)
}

/// The token in the value of an Authorization header.
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Takes as long for a near miss as for a wild guess. The length is no secret.
pub fn same_secret(given: &[u8], expect: &[u8]) -> bool {
    if given.len() != expect.len() || expect.is_empty() {
        return false;
    }
    let differing = given.iter().zip(expect).fold(0, |sum, (one, other)| black_box(sum | (one ^ other)));
    black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::super::head::{Progress, parse};
    use super::*;

    #[track_caller]
    fn host(host: &str, expect: bool) {
        let names = own_names("Router", &["pulse.example.org".to_string()]);
        assert_eq!(allowed_host(host, &names), expect, "{host}");
    }

    #[test]
    fn e47_names_of_this_machine() {
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
            host(good, true);
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
            host(bad, false);
        }
    }

    #[test]
    fn names_of_a_machine_without_one() {
        assert_eq!(own_names("", &[]), ["localhost"]);
        assert_eq!(
            own_names("Pi.Example.org", &["X.".to_string(), "x".to_string()]),
            ["localhost", "pi", "pi.lan", "pi.local", "pi.home.arpa", "pi.example.org", "x"]
        );
    }

    #[test]
    fn e47_without_a_name_nobody_else_can_be_meant() {
        #[track_caller]
        fn check(head: &str, expect: Option<Refusal>) {
            let text = head.replace('|', "\r\n");
            let Progress::Head(head, _) = parse(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(wrong_host(&head, &own_names("router", &[])), expect, "{text}");
        }
        check("GET / HTTP/1.0||", None);
        check("GET / HTTP/1.0|User-Agent: check_http/1.4||", None);
        check("POST / HTTP/1.0||", None);
        check("GET / HTTP/1.0|Host: router||", None);
        check("GET / HTTP/1.0|Host: evil.example||", Some(NOT_US));
        check("GET / HTTP/1.0|Host:||", Some(NOT_US));
        check("GET / HTTP/1.0|Origin: http://evil.example||", Some(HOST));
        check("GET / HTTP/1.0|Sec-Fetch-Site: same-origin||", Some(HOST));
        // What the target names is what counts, whatever the header says.
        check("GET http://router/ HTTP/1.1|Host: evil.example||", None);
        check("GET http://evil.example/ HTTP/1.1|Host: router||", Some(NOT_US));
        check("GET http://evil.example/ HTTP/1.0||", Some(NOT_US));
        for proxy in
            ["Via: 1.0 old", "X-Forwarded-Host: evil.example", "Forwarded: host=evil.example", "X-Real-IP: ::1"]
        {
            check(&format!("GET / HTTP/1.0|{proxy}||"), Some(HOST));
            check(&format!("GET / HTTP/1.0|Host: router|{proxy}||"), None);
        }
    }

    #[track_caller]
    fn origin(host: &str, lines: &str, expect: bool) {
        let text = format!("POST / HTTP/1.1\r\nHost: {host}\r\n{}\r\n", lines.replace('|', "\r\n"));
        let Progress::Head(head, _) = parse(text.as_bytes()) else { panic!("{text}") };
        assert_eq!(foreign_origin(&head), expect, "{text}");
    }

    #[test]
    fn e47_changes_from_pages_of_others() {
        origin("a:8000", "", false);
        origin("a:8000", "Origin: http://a:8000|", false);
        origin("A:8000", "Origin: http://a:8000|Sec-Fetch-Site: same-origin|", false);
        origin("a", "Origin: http://a:80|", false);
        origin("a:443", "Origin: https://a|", false);
        origin("[::1]:8000", "Origin: http://[::1]:8000|", false);
        origin("a:8000", "Sec-Fetch-Site: none|", false);
        origin("a:8000", "Sec-Fetch-Site: cross-site|", true);
        origin("a:8000", "Origin: http://a:8000|Sec-Fetch-Site: Cross-Site|", true);
        origin("a:8000", "Origin: http://a|", true);
        origin("a:8000", "Origin: https://a|", true);
        origin("a:8000", "Origin: http://a:8001|", true);
        origin("a:8000", "Origin: http://b:8000|", true);
        origin("a:8000", "Origin: http://a:8000.evil|", true);
        origin("a:8000", "Origin: null|", true);
        origin("a:8000", "Origin:|", true);
        origin("a:8000", "Origin: file://a:8000|", true);
        origin("a:8000", "Origin: http://b@a:8000|", true);
    }

    #[test]
    fn who_is_asked_for_the_token() {
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
                assert!(!needs_token(method, true, private, open), "{method} of somebody trusted");
            }
        }
    }

    #[test]
    fn whose_socket_is_looked_at() {
        #[track_caller]
        fn check(head: &str, from: &str, private: bool, expect: bool) {
            let text = head.replace('|', "\r\n");
            let Progress::Head(head, _) = parse(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(may_be_trusted(&head, from.parse().expect("an address"), private), expect, "{text} {from}");
        }
        let post = "POST / HTTP/1.1|Host: a||";
        for near in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check(post, near, false, true);
            check(post, near, true, true);
            check("GET / HTTP/1.1|Host: a||", near, false, false);
            check("GET / HTTP/1.1|Host: a||", near, true, true);
            check("POST / HTTP/1.0|Host: a||", near, false, false);
            check("POST / HTTP/1.0||", near, false, false);
            check("POST / HTTP/1.1|Host: a|Via: 1.1 p||", near, false, false);
            check("POST / HTTP/1.1|Host: a|X-Real-IP: 127.0.0.1||", near, false, false);
        }
        for far in ["192.168.1.7", "fe80::1", "0.0.0.0", "::"] {
            check(post, far, false, false);
            check(post, far, true, false);
        }
    }

    #[test]
    fn tokens() {
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
        assert!(!same_secret(b"", b""), "no token is not an empty one");
    }
}
