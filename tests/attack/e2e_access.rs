//! Tests of the access rules with the real binary: requests over the loopback, from another machine (a second network
//! namespace, connected by a veth pair), and with the headers of a proxy.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::common::*;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");
const INTERVAL_PATH: &str = "/api/config/collection-interval";

/// Another machine: a second network namespace at the other end of a veth pair.
struct OtherMachine(File);

impl OtherMachine {
    /// The other machine has 10.7.0.2 and fd07::2, this one 10.7.0.1 and fd07::1.
    fn new() -> OtherMachine {
        let other = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may");
            File::open("/proc/thread-self/ns/net").expect("a namespace")
        });
        let other = OtherMachine(other.join().expect("a thread"));
        ip("link add near0 type veth peer name far0");
        ip(&format!("link set far0 netns /proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd()));
        // A new namespace has the defaults of the kernel. The namespace of the test has IPv6 off.
        let set_up_end = |name: &str, host: u8| {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            if Path::new(&path).exists() {
                fs::write(&path, "0").expect("a namespace of our own");
            }
            ip(&format!("address add 10.7.0.{host}/24 dev {name}"));
            ip(&format!("address add fd07::{host}/64 dev {name} nodad"));
            ip(&format!("link set {name} up"));
        };
        other.run(|| set_up_end("far0", 2));
        set_up_end("near0", 1);
        other
    }

    fn run<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let in_its_namespace = || {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("root may");
                what()
            };
            scope.spawn(in_its_namespace).join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A daemon that listens on all addresses, and another machine.
struct TwoMachines {
    dir: Dir,
    daemon: Daemon,
    other_machine: OtherMachine,
    token: String,
}

fn command(dir: &Dir, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = net_pulse(BINARY);
    command.args(["--port", "0", "--database", &dir.join("net-pulse.db")]).args(arguments);
    command.envs(environment.iter().copied());
    command
}

/// Runs `net-pulse token` for the database in `dir`.
fn token_of(dir: &Dir) -> FinishedRun {
    let mut command = net_pulse(BINARY);
    command.args(["--database", &dir.join("net-pulse.db"), "token"]);
    finish(command)
}

fn token_file(dir: &Dir) -> String {
    dir.join("net-pulse.db.token")
}

fn with_two_machines(arguments: &[&str], environment: &[(&str, &str)], body: impl FnOnce(&TwoMachines) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        let other_machine = OtherMachine::new();
        let daemon = Daemon::spawn(command(&dir, arguments, environment));
        wait_until("it answers", || ask(address_of("127.0.0.1", &daemon), "GET", "/health", "*/*", None).is_ok());
        let token = token_of(&dir).out.trim_end().to_string();
        let site = TwoMachines { dir, daemon, other_machine, token };
        body(&site);
        let log = site.daemon.stop().join("\n");
        assert!(!log.contains(&site.token), "the token is in the log: {log}");
        assert!(!log.contains("panicked") && !log.contains("at fault"), "{log}");
    });
}

fn address_of(host: &str, daemon: &Daemon) -> SocketAddr {
    format!("{host}:{}", daemon.port()).parse().expect("an address")
}

fn wait_for_log(daemon: &Daemon, text: &str) {
    wait_until(text, || daemon.log().iter().any(|line| line.contains(text)));
}

type Headers<'a> = &'a [(&'a str, &'a str)];

fn send_request(to: SocketAddr, method: &str, path: &str, headers: Headers, body: Option<&Value>) -> Answer {
    let answer = ask_with(to, method, path, headers, body.map(Value::to_string));
    answer.unwrap_or_else(|error| panic!("{method} {path} {headers:?}: {error}"))
}

impl TwoMachines {
    /// Sends a request from this machine.
    fn request_here(&self, method: &str, path: &str, headers: Headers) -> Answer {
        send_request(address_of("127.0.0.1", &self.daemon), method, path, headers, None)
    }

    /// Sends a request from the other machine.
    fn request_from_other(&self, method: &str, path: &str, headers: Headers) -> Answer {
        self.other_machine.run(|| send_request(address_of("10.7.0.1", &self.daemon), method, path, headers, None))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Sends a request from the other machine, with the right token.
    fn request_from_other_with_token(&self, method: &str, path: &str, more: Headers) -> Answer {
        let bearer = self.bearer();
        self.request_from_other(method, path, &[&[("Authorization", bearer.as_str())], more].concat())
    }

    fn interval(&self) -> Value {
        self.daemon.get(INTERVAL_PATH)["collection_interval_seconds"].clone()
    }

    fn change_interval(&self, to: SocketAddr, headers: Headers, seconds: u32) -> Answer {
        send_request(to, "PUT", INTERVAL_PATH, headers, Some(&json!({ "collection_interval": seconds })))
    }
}

/// Checks a 401: its WWW-Authenticate header, and a detail that says what to do.
fn check_unauthorized(answer: &Answer, context: &str) {
    assert_eq!(answer.status, 401, "{context}: {}", answer.text());
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer realm="), "{context}: {challenge}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    let detail = body["detail"].as_str().expect("a sentence");
    assert!(detail.contains("`net-pulse token` on "), "the detail names the machine: {detail}");
}

#[test]
fn reading_is_open_and_changing_needs_the_token() {
    with_two_machines(&[], &[], |site| {
        for path in ["/", "/health", INTERVAL_PATH, "/api/interfaces", "/openapi.json", "/app.js"] {
            assert_eq!(site.request_from_other("GET", path, &[]).status, 200, "{path}");
            assert_eq!(site.request_from_other("HEAD", path, &[]).status, 200, "{path}");
        }
        let options = site.request_from_other("OPTIONS", "/collector/stop", &[]);
        assert_eq!((options.status, options.header("allow")), (204, Some("POST, OPTIONS")));
        assert_eq!(site.request_from_other("OPTIONS", "/nowhere", &[]).status, 404);

        // Every method that does not read counts as a change. The answer does not tell whether the path exists.
        for method in ["POST", "PUT", "PATCH", "DELETE", "post", "get", "BREW", "TRACE"] {
            for path in ["/collector/stop", "/health", "/nowhere"] {
                check_unauthorized(&site.request_from_other(method, path, &[]), &format!("{method} {path}"));
            }
        }
        let lan = address_of("10.7.0.1", &site.daemon);
        check_unauthorized(&site.other_machine.run(|| site.change_interval(lan, &[], 7)), "PUT");
        // Over its LAN address, this machine counts as a machine on the LAN.
        check_unauthorized(&site.change_interval(lan, &[], 7), "PUT from its own address");
        assert_eq!(site.interval(), 30, "a refused change changed it");
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);

        let bearer = site.bearer();
        let right: Headers = &[("Authorization", &bearer)];
        assert_eq!(site.other_machine.run(|| site.change_interval(lan, right, 7)).status, 200);
        assert_eq!(site.interval(), 7);
        assert_eq!(site.change_interval(address_of("127.0.0.1", &site.daemon), &[], 8).status, 200);
        assert_eq!(site.interval(), 8);
        assert_eq!(site.request_here("POST", "/collector/collect", &[]).status, 200);
        assert_eq!(site.request_from_other_with_token("POST", "/collector/stop", &[]).status, 200);
        assert_eq!(site.daemon.get("/collector/status")["is_running"], false);
        assert_eq!(site.request_from_other_with_token("POST", "/health", &[]).status, 405);
        assert_eq!(site.request_from_other_with_token("POST", "/nowhere", &[]).status, 404);

        // The same over IPv6.
        let lan = address_of("[fd07::1]", &site.daemon);
        check_unauthorized(&site.other_machine.run(|| site.change_interval(lan, &[], 9)), "IPv6");
        assert_eq!(site.other_machine.run(|| site.change_interval(lan, right, 9)).status, 200);
        fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").expect("a namespace of our own");
        assert_eq!(site.change_interval(address_of("[::1]", &site.daemon), &[], 10).status, 200);
        assert_eq!(site.change_interval(address_of("127.0.0.99", &site.daemon), &[], 11).status, 200);
    });
}

/// A proxy on this machine gives no access without the token, and no header makes a client local.
#[test]
fn requests_with_proxy_headers_need_the_token() {
    const HEADERS: [(&str, &str); 16] = [
        ("Forwarded", "for=127.0.0.1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-For", ""),
        ("x-forwarded-proto", "http"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Anything", "x"),
        ("X-Real-IP", "127.0.0.1"),
        ("x-real-ip", "::1"),
        ("Via", "1.1 proxy"),
        ("CF-Connecting-IP", "127.0.0.1"),
        ("True-Client-IP", "127.0.0.1"),
        ("X-Client-IP", "127.0.0.1"),
        ("x-cluster-client-ip", "127.0.0.1"),
        ("X-Original-Forwarded-For", "127.0.0.1"),
        ("X-Original-Host", "localhost"),
        ("Fastly-Client-IP", "127.0.0.1"),
    ];
    with_two_machines(&[], &[], |site| {
        let path = "/collector/collect";
        for header in HEADERS {
            let context = format!("{header:?}");
            check_unauthorized(&site.request_here("POST", path, &[header]), &context);
            check_unauthorized(&site.request_from_other("POST", path, &[header]), &context);
            check_unauthorized(&site.request_from_other("POST", path, &[header, ("Host", "localhost")]), &context);
            assert_eq!(site.request_here("GET", "/health", &[header]).status, 200, "{context}");
            let bearer = site.bearer();
            assert_eq!(site.request_here("POST", path, &[header, ("Authorization", &bearer)]).status, 200, "{context}");
            assert_eq!(site.request_from_other_with_token("POST", path, &[header]).status, 200, "{context}");
        }
        // A careless parser would drop the header, because Connection names it.
        let hop = [("X-Forwarded-For", "10.0.0.1"), ("Connection", "X-Forwarded-For")];
        check_unauthorized(&site.request_here("POST", path, &hop), "hop by hop");
        for host in ["localhost", "127.0.0.1", "[::1]:8000"] {
            check_unauthorized(&site.request_from_other("POST", path, &[("Host", host)]), host);
        }
    });
}

#[test]
fn values_similar_to_the_token_are_refused() {
    with_two_machines(&[], &[], |site| {
        let token = site.token.clone();
        let lan = address_of("10.7.0.1", &site.daemon);
        let try_headers = |headers: Headers| site.other_machine.run(|| site.change_interval(lan, headers, 7));
        let without_last = &token[..token.len() - 1];
        let wrong = [
            format!("Bearer {}", token.to_ascii_uppercase()),
            format!("Bearer {token}0"),
            format!("Bearer {without_last}"),
            format!("Bearer {} {}", &token[..9], &token[9..]),
            format!("Bearer \"{token}\""),
            format!("Bearer {without_last}%{:02x}", token.as_bytes()[token.len() - 1]),
            format!("Bearer {token},{token}"),
            format!("Bearer {}", "0".repeat(token.len())),
        ];
        for (number, value) in wrong.iter().enumerate() {
            let answer = try_headers(&[("Authorization", value)]);
            // Five wrong tokens a minute get 401, further ones 429.
            if number < 5 {
                check_unauthorized(&answer, value);
                let challenge = answer.header("www-authenticate").unwrap_or_default();
                assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
            } else {
                assert_eq!(answer.status, 429, "{value}");
            }
        }
        // These carry no token, so they do not count as guesses: a page that has no token yet is not locked out.
        for value in ["Bearer", "Bearer ", "", &format!("Basic {token}"), &format!("Token {token}"), &token] {
            check_unauthorized(&try_headers(&[("Authorization", value)]), value);
        }
        check_unauthorized(&try_headers(&[("Cookie", &format!("token={token}"))]), "a cookie");
        check_unauthorized(&try_headers(&[("X-Token", &token)]), "another header");
        check_unauthorized(
            &site.request_from_other("POST", &format!("/collector/stop?token={token}&access_token={token}"), &[]),
            "a query",
        );
        let bearer = site.bearer();
        assert_eq!(try_headers(&[("Authorization", &bearer), ("authorization", &bearer)]).status, 400);
        assert_eq!(try_headers(&[("Authorization", "Bearer x"), ("Authorization", &bearer)]).status, 400);
        assert_eq!(site.interval(), 30);

        for (seconds, value) in
            [(7, format!("Bearer {token}")), (8, format!("bearer {token}")), (9, format!("BEARER   {token}  "))]
        {
            let answer = site.other_machine.run(|| site.change_interval(lan, &[("Authorization", &value)], seconds));
            assert_eq!(answer.status, 200, "{value}");
            assert_eq!(site.interval(), seconds);
        }
    });
}

#[test]
fn ten_thousand_guesses_are_limited_and_use_no_memory() {
    with_two_machines(&[], &[], |site| {
        let lan = address_of("10.7.0.1", &site.daemon);
        let guess = |number: u32| {
            let value = format!("Bearer guess{number:024}");
            send_request(lan, "POST", "/collector/stop", &[("Authorization", &value)], None)
        };
        site.request_from_other("GET", "/health", &[]);
        let (before, began) = (site.daemon.resident(), Instant::now());
        site.other_machine.run(|| {
            let mut unauthorized_answers = 0;
            for number in 0..10_000 {
                let answer = guess(number);
                if answer.status == 401 {
                    unauthorized_answers += 1;
                    continue;
                }
                assert_eq!(answer.status, 429, "{number}: {}", answer.text());
                let wait: u64 = answer.header("retry-after").and_then(|text| text.parse().ok()).expect("a number");
                assert!((1..=60).contains(&wait), "{wait}");
            }
            let minutes = 1 + began.elapsed().as_secs() / 60;
            assert!(
                (5..=5 * (minutes + 1)).contains(&unauthorized_answers),
                "{unauthorized_answers} guesses got 401 in {minutes} minutes"
            );
        });
        let grown = site.daemon.resident().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes more");
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);
        // Other clients are not limited, and a client with the right token never is.
        check_unauthorized(
            &site.request_here("POST", "/collector/collect", &[("Via", "x"), ("Authorization", "Bearer x")]),
            "another",
        );
        assert_eq!(site.request_from_other_with_token("POST", "/collector/collect", &[]).status, 200);
        assert_eq!(site.request_from_other("GET", "/health", &[]).status, 200);
        check_unauthorized(&site.request_from_other("POST", "/collector/collect", &[]), "without a token");
        wait_for_log(&site.daemon, "the last one came from 10.7.0.2");
        let log = site.daemon.log();
        let lines = log.iter().filter(|line| line.contains("wrong access token")).count() as u64;
        let max_lines = 1 + began.elapsed().as_secs() / 60;
        assert!((1..=max_lines).contains(&lines), "{lines} lines: {log:?}");
        assert!(!log.iter().any(|line| line.contains("guess0")), "{log:?}");
    });
}

#[test]
fn private_needs_the_token_for_reading_too() {
    let check = |site: &TwoMachines| {
        let browser: Headers = &[("Accept", "text/html,*/*;q=0.8")];
        // The page itself needs no token, because it asks the user for it.
        for path in ["/", "/index.html", "/app.js", "/style.css", "/icon.svg", "/favicon.ico"] {
            for method in ["GET", "HEAD"] {
                let answer = site.request_from_other(method, path, browser);
                assert_eq!(answer.status, 200, "{method} {path}");
                let header = |name| answer.header(name).unwrap_or_else(|| panic!("{path} has no {name}"));
                assert_eq!(header("x-content-type-options"), "nosniff");
                if !header("content-type").starts_with("text/html") {
                    continue;
                }
                let policy = header("content-security-policy");
                assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'self'"), "{policy}");
                assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
                assert_eq!(header("referrer-policy"), "no-referrer");
            }
        }
        let document = site.openapi_document();
        let paths = document["paths"].as_object().expect("paths");
        assert!(paths.len() > 20);
        let mut requests = 0;
        for (path, operations) in paths {
            if operations.get("get").is_none() {
                continue;
            }
            requests += 1;
            let path = path.replace("{name}", "lo");
            check_unauthorized(&site.request_from_other("GET", &path, &[("Accept", "application/json")]), &path);
            assert_eq!(site.request_from_other("HEAD", &path, &[("Accept", "*/*")]).status, 401, "{path}");
            if path != "/" {
                check_unauthorized(&site.request_from_other("GET", &path, browser), &path);
            }
            assert_eq!(site.request_here("GET", &path, &[]).status, 200, "{path} from here");
            check_unauthorized(&site.request_here("GET", &path, &[("X-Forwarded-For", "10.0.0.1")]), &path);
            assert_eq!(site.request_from_other_with_token("GET", &path, &[]).status, 200, "{path} with the token");
        }
        assert!(requests > 15, "{requests}");
        for path in ["/nowhere", "/app.jsx", "/%2findex.html", "//", "/health/../app.js", "/api/interfaces/app.js"] {
            check_unauthorized(&site.request_from_other("GET", path, browser), path);
        }
        assert_eq!(site.request_from_other("OPTIONS", "/health", &[]).status, 204);
        check_unauthorized(&site.request_from_other("POST", "/collector/collect", &[]), "a change");
        check_unauthorized(&site.request_from_other("POST", "/app.js", &[]), "a change");
    };
    with_two_machines(&["--private"], &[], check);
    with_two_machines(&[], &[("NETPULSE_PRIVATE", "1")], |site| {
        check_unauthorized(&site.request_from_other("GET", "/health", &[]), "environment");
        assert_eq!(site.request_from_other_with_token("GET", "/health", &[]).status, 200);
    });
    with_two_machines(&[], &[("NETPULSE_PRIVATE", "0")], |site| {
        assert_eq!(site.request_from_other("GET", "/health", &[]).status, 200)
    });
}

impl TwoMachines {
    fn openapi_document(&self) -> Value {
        self.request_here("GET", "/openapi.json", &[]).json()
    }
}

#[test]
fn open_needs_no_token_but_keeps_the_other_checks() {
    with_two_machines(&["--open"], &[], |site| {
        assert_eq!(site.request_from_other("POST", "/collector/collect", &[]).status, 200);
        assert_eq!(
            site.request_from_other("POST", "/collector/collect", &[("Authorization", "Bearer wrong")]).status,
            200
        );
        assert_eq!(site.request_here("POST", "/collector/collect", &[("X-Forwarded-For", "10.0.0.1")]).status, 200);
        assert_eq!(
            site.request_from_other("POST", "/collector/stop", &[("Origin", "http://evil.example")]).status,
            403
        );
        assert_eq!(site.request_from_other("POST", "/collector/stop", &[("Host", "evil.example")]).status, 421);
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);
    });
    with_two_machines(&["--open", "--private"], &[], |site| {
        check_unauthorized(&site.request_from_other("GET", "/health", &[]), "reading");
        check_unauthorized(&site.request_from_other("POST", "/collector/collect", &[]), "changing");
        wait_for_log(&site.daemon, "--open has no effect while --private is set");
    });
}

/// DNS rebinding: a page whose name resolves to this machine sends that name as Host.
#[test]
fn e47_only_host_names_of_this_machine_are_accepted() {
    with_two_machines(&["--allowed-host", "Pulse.example.org", "--allowed-host", "other"], &[], |site| {
        let name = nix::unistd::gethostname().expect("a name").into_string().expect("text");
        let bare = name.split('.').next().unwrap_or_default().to_string();
        let port = site.daemon.port();
        let mut good: Vec<String> =
            ["localhost", "LOCALHOST.", "127.0.0.1", "10.7.0.1", "192.0.2.200", "[::1]", "other"]
                .map(str::to_string)
                .into();
        good.extend(["", ".lan", ".local", ".home.arpa"].map(|suffix| format!("{bare}{suffix}")));
        good.extend([name, "pulse.EXAMPLE.org".to_string(), format!("localhost:{port}"), "other:443".to_string()]);
        for host in &good {
            assert_eq!(site.request_from_other("GET", "/health", &[("Host", host)]).status, 200, "{host}");
            assert_eq!(site.request_here("POST", "/collector/collect", &[("Host", host)]).status, 200, "{host}");
        }
        for host in
            ["evil.example", "example.org", "pulse.example.org.evil", "127.0.0.1.nip.io", "a@127.0.0.1", "127.1"]
        {
            for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT"] {
                let header = ("Host", host);
                assert_eq!(site.request_here(method, "/collector/status", &[header]).status, 421, "{method} {host}");
                assert_eq!(
                    site.request_from_other_with_token(method, "/collector/status", &[header]).status,
                    421,
                    "{method} {host}"
                );
            }
            let same = [("Host", host), ("Origin", &format!("http://{host}")), ("Sec-Fetch-Site", "same-origin")];
            assert_eq!(site.request_here("POST", "/collector/stop", &same).status, 421, "{host}");
        }
        let refused = site.request_here("GET", "/", &[("Host", "evil.example"), ("Accept", "text/html")]);
        assert!(refused.json()["detail"].as_str().expect("a sentence").contains("--allowed-host"));
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);
    });
    with_two_machines(&[], &[("NETPULSE_ALLOWED_HOST", "a.example,b.example")], |site| {
        for (host, status) in [("a.example", 200), ("b.example", 200), ("a.example,b.example", 421), ("other", 421)] {
            assert_eq!(site.request_from_other("GET", "/health", &[("Host", host)]).status, status, "{host}");
        }
    });
}

/// Pages of other origins cannot use a browser on this machine, or one that has the token.
#[test]
fn e47_other_origins_change_nothing() {
    with_two_machines(&[], &[], |site| {
        let own_authority = format!("127.0.0.1:{}", site.daemon.port());
        for foreign in [
            &[("Origin", "http://evil.example")][..],
            &[("Origin", "null")],
            &[("Origin", "http://127.0.0.1")],
            &[("Origin", "http://localhost:8000")],
            &[("Sec-Fetch-Site", "cross-site")],
            &[("Origin", &format!("http://{own_authority}")), ("Sec-Fetch-Site", "cross-site")],
            &[("Origin", "http://evil.example"), ("Content-Type", "text/plain")],
        ] {
            for method in ["POST", "PUT", "DELETE"] {
                assert_eq!(site.request_here(method, "/collector/stop", foreign).status, 403, "{method} {foreign:?}");
                assert_eq!(
                    site.request_from_other_with_token(method, "/collector/stop", foreign).status,
                    403,
                    "{method} {foreign:?}"
                );
            }
            let read = site.request_here("GET", "/api/interfaces", foreign);
            assert_eq!(read.status, 200, "{foreign:?}");
            // The request is answered, but the browser does not show the answer to the page.
            assert!(!read.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{:?}", read.headers);
            let options = site.request_here("OPTIONS", "/collector/stop", foreign);
            assert!(
                !options.headers.iter().any(|(name, _)| name.starts_with("access-control-")),
                "{:?}",
                options.headers
            );
        }
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);
        for own in [
            &[("Origin", &*format!("http://{own_authority}"))][..],
            &[("Origin", &format!("http://{own_authority}")), ("Sec-Fetch-Site", "same-origin")],
            &[("Sec-Fetch-Site", "none")],
        ] {
            assert_eq!(site.request_here("POST", "/collector/collect", own).status, 200, "{own:?}");
        }
        let lan = format!("http://10.7.0.1:{}", site.daemon.port());
        assert_eq!(site.request_from_other_with_token("POST", "/collector/collect", &[("Origin", &lan)]).status, 200);
        check_unauthorized(
            &site.request_from_other("POST", "/collector/collect", &[("Origin", &lan)]),
            "its own page, without the token",
        );
    });
}

#[test]
fn the_token_is_only_in_its_file() {
    with_two_machines(&["--log-level", "trace"], &[], |site| {
        let file = token_file(&site.dir);
        let found = fs::metadata(&file).expect("it was made");
        assert_eq!(found.permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(&file).expect("text"), format!("{}\n", site.token));
        assert!(site.token.len() >= 26 && site.token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        for _ in 0..2 {
            let output = token_of(&site.dir);
            assert_eq!((output.code, output.out, output.err), (Some(0), format!("{}\n", site.token), String::new()));
        }
        let paths: Vec<String> = site.openapi_document()["paths"].as_object().expect("paths").keys().cloned().collect();
        for path in paths {
            let answer = site.request_from_other_with_token("GET", &path.replace("{name}", "lo"), &[]);
            assert!(!answer.text().contains(&site.token), "{path}");
        }
        assert_eq!(site.request_from_other_with_token("POST", "/collector/collect", &[]).status, 200);
        for entry in fs::read_dir(site.dir.path()).expect("it is ours").map(|entry| entry.expect("an entry")) {
            let name = entry.file_name().into_string().expect("a plain name");
            let bytes = fs::read(entry.path()).expect("a file");
            let holds = bytes.windows(site.token.len()).any(|part| part == site.token.as_bytes());
            assert_eq!(holds, name == "net-pulse.db.token", "{name}");
        }
    });
}

#[test]
fn a_restart_keeps_the_token_and_another_file_replaces_it() {
    with_two_machines(&[], &[], |site| {
        let answer = |token: &str| {
            site.request_from_other("POST", "/collector/collect", &[("Authorization", &format!("Bearer {token}"))])
                .status
        };
        assert_eq!(answer(&site.token), 200);
        let file = token_file(&site.dir);
        let own = "a-token-of.somebody_own~";
        fs::write(&file, format!("{own}\n")).expect("it is ours");
        assert_eq!(answer(&site.token), 401, "the old one, without a restart");
        assert_eq!(answer(own), 200);
        // A file without a valid token changes nothing, and the log says so.
        fs::write(&file, "short\n").expect("it is ours");
        assert_eq!(answer(own), 200);
        wait_for_log(&site.daemon, &format!("the previous access token stays valid: {file}: it holds no token"));
        fs::remove_file(&file).expect("it is ours");
        assert_eq!(answer(own), 200);
        let new_token = token_of(&site.dir);
        assert_eq!((new_token.code, new_token.err.as_str()), (Some(0), ""));
        assert_eq!((answer(own), answer(new_token.out.trim_end())), (401, 200));
        fs::write(&file, format!("{}\n", site.token)).expect("it is ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    });
    let dir = Dir::new();
    Daemon::start(&dir, &[]).stop();
    let first = fs::read_to_string(token_file(&dir)).expect("it was made");
    fs::set_permissions(token_file(&dir), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let daemon = Daemon::start(&dir, &[]);
    daemon.get("/health");
    wait_for_log(&daemon, "mode 644");
    daemon.stop();
    assert_eq!(fs::read_to_string(token_file(&dir)).expect("it is there"), first);
    assert_eq!(fs::metadata(token_file(&dir)).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_first_process_that_needs_the_token_creates_it() {
    let dir = Dir::new();
    let database = dir.join("made/here/net-pulse.db");
    let print = || {
        let mut command = net_pulse(BINARY);
        command.env("NETPULSE_DATABASE", &database).arg("token");
        finish(command)
    };
    let outputs: Vec<FinishedRun> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(print)).collect();
        threads.into_iter().map(|output| output.join().expect("a thread")).collect()
    });
    for output in &outputs {
        assert_eq!((output.code, &output.out), (Some(0), &outputs[0].out));
    }
    // The process that created the token notes on standard error that there is no database yet.
    assert!(
        outputs.iter().any(|output| output.err.lines().count() == 1 && output.err.contains(&database)),
        "{}",
        outputs[0].err
    );
    let directory = Path::new(&database).parent().expect("a directory");
    assert_eq!(fs::read_dir(directory).expect("it was made").count(), 1);
    assert_eq!(fs::metadata(directory).expect("it was made").permissions().mode() & 0o027, 0);

    let daemon = Daemon::spawn({
        let mut command = net_pulse(BINARY);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &database]);
        command
    });
    let headers = [("Via", "x"), ("Authorization", &*format!("Bearer {}", outputs[0].out.trim_end()))];
    assert_eq!(
        send_request(address_of("127.0.0.1", &daemon), "POST", "/collector/collect", &headers, None).status,
        200
    );
    daemon.stop();
}

#[test]
fn a_missing_token_gives_an_error_of_one_line() {
    let check = |ended: FinishedRun, code: i32, texts: &[&str]| {
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
        texts.iter().for_each(|text| assert!(ended.err.contains(text), "no '{text}' in {}", ended.err));
    };
    let run_net_pulse = |arguments: &[&str]| {
        let mut command = net_pulse(BINARY);
        command.args(arguments);
        finish(command)
    };
    let dir = Dir::new();
    fs::write(token_file(&dir), "too short\n").expect("it is ours");
    check(token_of(&dir), 1, &[&token_file(&dir), "remove it"]);
    fs::remove_file(token_file(&dir)).expect("it is ours");
    fs::write(dir.join("a-file"), "").expect("it is ours");
    check(
        run_net_pulse(&["--database", &dir.join("a-file/net-pulse.db"), "token"]),
        1,
        &[&dir.join("a-file/net-pulse.db.token")],
    );
    check(run_net_pulse(&["--port", "x", "token"]), 2, &["--port"]);
    check(run_net_pulse(&["token", "x"]), 2, &["unrecognized argument: x"]);

    in_namespace(|| {
        // This user may have no access to the build directory.
        let binary = dir.join("net-pulse");
        fs::copy(BINARY, &binary).expect("a copy");
        let as_unprivileged = |database: &str| {
            let mut command = net_pulse(&binary);
            command
                .args(["--database", database, "token"])
                .uid(UNPRIVILEGED_UID)
                .gid(UNPRIVILEGED_UID)
                .current_dir("/");
            finish(command)
        };
        assert_eq!(token_of(&dir).code, Some(0));
        check(as_unprivileged(&dir.join("net-pulse.db")), 1, &[&token_file(&dir), "permission denied", "as root"]);
        check(as_unprivileged(&dir.join("new.db")), 1, &[&dir.join("new.db.token"), "permission denied"]);

        // Root may run `net-pulse token` before the first start of the service. The file then belongs to the user of
        // the service.
        fs::create_dir(dir.join("service")).expect("it is ours");
        chown(dir.join("service"), Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).expect("root may");
        let database = dir.join("service/net-pulse.db");
        let root_output = run_net_pulse(&["--database", &database, "token"]);
        let file = fs::metadata(dir.join("service/net-pulse.db.token")).expect("it was made");
        assert_eq!((file.uid(), file.permissions().mode() & 0o777), (UNPRIVILEGED_UID, 0o600));
        let service_output = as_unprivileged(&database);
        assert_eq!((service_output.code, service_output.out), (Some(0), root_output.out));
    });
}

/// In a directory that everybody may write to, another user can create the token file before the daemon starts, or
/// make it a symbolic link to a readable file of root.
#[test]
fn a_token_file_of_another_user_is_refused() {
    const PLANTED: &str = "attackerattackerattacker1";
    in_namespace(|| {
        let dir = Dir::new();
        let other_machine = OtherMachine::new();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).expect("it is ours");
        let file = token_file(&dir);
        let root_file = dir.join("readable");
        fs::write(&root_file, "0123456789abcdef0123456789abcdef\n").expect("it is ours");
        fs::set_permissions(&root_file, fs::Permissions::from_mode(0o644)).expect("it is ours");
        let check = |token: &str| {
            let output = token_of(&dir);
            assert_eq!((output.code, output.out.as_str()), (Some(1), ""), "{}", output.err);
            assert!(output.err.contains(&file) && output.err.contains("belongs to user 65534"), "{}", output.err);
            let daemon = Daemon::spawn(command(&dir, &[], &[]));
            wait_until("it answers", || ask(address_of("127.0.0.1", &daemon), "GET", "/health", "*/*", None).is_ok());
            let post = |headers: Headers| {
                send_request(address_of("10.7.0.1", &daemon), "POST", "/collector/collect", headers, None)
            };
            let bearer = format!("Bearer {token}");
            check_unauthorized(&other_machine.run(|| post(&[("Authorization", &bearer)])), token);
            wait_for_log(&daemon, "belongs to user 65534");
            // The token appears nowhere in the log, not even in warnings about the mode of its file.
            assert!(!daemon.log().iter().any(|line| line.contains(token)), "{:#?}", daemon.log());
            // After the file is removed, a new token is created at once.
            fs::remove_file(&file).expect("root may");
            let good = format!("Bearer {}", token_of(&dir).out.trim_end());
            assert_eq!(other_machine.run(|| post(&[("Authorization", &good)])).status, 200);
            // A later file of another user does not replace the token.
            fs::remove_file(&file).expect("root may");
            fs::write(&file, format!("{PLANTED}\n")).expect("root may");
            chown(&file, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).expect("root may");
            check_unauthorized(
                &other_machine.run(|| post(&[("Authorization", &format!("Bearer {PLANTED}"))])),
                "planted later",
            );
            assert_eq!(other_machine.run(|| post(&[("Authorization", &good)])).status, 200);
            daemon.stop();
            fs::remove_file(&file).expect("root may");
        };
        for mode in [0o600, 0o644] {
            fs::write(&file, format!("{PLANTED}\n")).expect("it is ours");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("it is ours");
            chown(&file, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).expect("root may");
            check(PLANTED);
        }
        std::os::unix::fs::symlink(&root_file, &file).expect("it is ours");
        std::os::unix::fs::lchown(&file, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).expect("root may");
        check("0123456789abcdef0123456789abcdef");
        assert_eq!(fs::metadata(&root_file).expect("it is there").permissions().mode() & 0o777, 0o644, "left alone");
        // A symbolic link that belongs to root works like a file.
        std::os::unix::fs::symlink(&root_file, &file).expect("it is ours");
        assert_eq!(token_of(&dir).out, "0123456789abcdef0123456789abcdef\n");
    });
}

/// Without a token file the daemon still measures.
#[test]
fn without_a_token_file_only_this_machine_may_change_anything() {
    in_namespace(|| {
        let dir = Dir::new();
        let other_machine = OtherMachine::new();
        fs::create_dir(token_file(&dir)).expect("it is ours");
        let daemon = Daemon::spawn(command(&dir, &[], &[]));
        let post = |host: &str, headers: Headers| {
            send_request(address_of(host, &daemon), "POST", "/collector/collect", headers, None)
        };
        wait_until("it answers", || ask(address_of("127.0.0.1", &daemon), "GET", "/health", "*/*", None).is_ok());
        assert_eq!(post("127.0.0.1", &[]).status, 200);
        for value in ["", "Bearer", "Bearer ", "Bearer x"] {
            check_unauthorized(&other_machine.run(|| post("10.7.0.1", &[("Authorization", value)])), value);
        }
        assert_eq!(
            other_machine.run(|| send_request(address_of("10.7.0.1", &daemon), "GET", "/health", &[], None)).status,
            200
        );
        wait_for_log(&daemon, &format!("no access token: {}", token_file(&dir)));
        // When the file can be created, the daemon uses it.
        fs::remove_dir(token_file(&dir)).expect("it is ours");
        let bearer = format!("Bearer {}", token_of(&dir).out.trim_end());
        assert_eq!(other_machine.run(|| post("10.7.0.1", &[("Authorization", &bearer)])).status, 200);
        daemon.stop();
    });
}
