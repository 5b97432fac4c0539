//! Who may do what, asked of the real binary: from the loopback, from another machine at the end of a cable (a second
//! network namespace), and through what pretends to be a proxy.

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
/// An account without rights, on every Debian.
const NOBODY: u32 = 65534;
const INTERVAL: &str = "/api/config/collection-interval";

/// The machine at the other end of the cable.
struct Stranger(File);

impl Stranger {
    /// Its end has 10.7.0.2 and fd07::2, this end has 10.7.0.1 and fd07::1.
    fn new() -> Stranger {
        let far = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may");
            File::open("/proc/thread-self/ns/net").expect("a namespace")
        });
        let far = Stranger(far.join().expect("a thread"));
        ip("link add near0 type veth peer name far0");
        ip(&format!("link set far0 netns /proc/{}/fd/{}", std::process::id(), far.0.as_raw_fd()));
        // A namespace starts with the defaults of the kernel, this one with IPv6 off.
        let ends = |name: &str, host: u8| {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            if Path::new(&path).exists() {
                fs::write(&path, "0").expect("a namespace of our own");
            }
            ip(&format!("address add 10.7.0.{host}/24 dev {name}"));
            ip(&format!("address add fd07::{host}/64 dev {name} nodad"));
            ip(&format!("link set {name} up"));
        };
        far.does(|| ends("far0", 2));
        ends("near0", 1);
        far
    }

    fn does<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let there = || {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("root may");
                what()
            };
            scope.spawn(there).join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A daemon that listens everywhere, and who asks it.
struct Site {
    dir: Dir,
    daemon: Daemon,
    stranger: Stranger,
    token: String,
}

fn command(dir: &Dir, more: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = net_pulse(BINARY);
    command.args(["--port", "0", "--database", &dir.join("net-pulse.db")]).args(more);
    command.envs(environment.iter().copied());
    command
}

/// `net-pulse token` for the database in `dir`.
fn token_of(dir: &Dir) -> Ended {
    let mut command = net_pulse(BINARY);
    command.args(["--database", &dir.join("net-pulse.db"), "token"]);
    finish(command)
}

fn token_file(dir: &Dir) -> String {
    dir.join("net-pulse.db.token")
}

fn at_site(more: &[&str], environment: &[(&str, &str)], body: impl FnOnce(&Site) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        let stranger = Stranger::new();
        let daemon = Daemon::spawn(command(&dir, more, environment));
        wait_until("it answers", || ask(at("127.0.0.1", &daemon), "GET", "/health", "*/*", None).is_ok());
        let token = token_of(&dir).out.trim_end().to_string();
        let site = Site { dir, daemon, stranger, token };
        body(&site);
        let log = site.daemon.stop().join("\n");
        assert!(!log.contains(&site.token), "the token is in the log: {log}");
        assert!(!log.contains("panicked") && !log.contains("at fault"), "{log}");
    });
}

fn at(host: &str, daemon: &Daemon) -> SocketAddr {
    format!("{host}:{}", daemon.port()).parse().expect("an address")
}

fn says(daemon: &Daemon, words: &str) {
    wait_until(words, || daemon.log().iter().any(|line| line.contains(words)));
}

type Headers<'a> = &'a [(&'a str, &'a str)];

fn sent(to: SocketAddr, method: &str, path: &str, headers: Headers, body: Option<&Value>) -> Answer {
    let answer = ask_with(to, method, path, headers, body.map(Value::to_string));
    answer.unwrap_or_else(|error| panic!("{method} {path} {headers:?}: {error}"))
}

impl Site {
    /// From this machine.
    fn here(&self, method: &str, path: &str, headers: Headers) -> Answer {
        sent(at("127.0.0.1", &self.daemon), method, path, headers, None)
    }

    /// From the other one.
    fn there(&self, method: &str, path: &str, headers: Headers) -> Answer {
        self.stranger.does(|| sent(at("10.7.0.1", &self.daemon), method, path, headers, None))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// From the other one, with the right token.
    fn known(&self, method: &str, path: &str, more: Headers) -> Answer {
        let bearer = self.bearer();
        self.there(method, path, &[&[("Authorization", bearer.as_str())], more].concat())
    }

    fn interval(&self) -> Value {
        self.daemon.get(INTERVAL)["collection_interval_seconds"].clone()
    }

    fn change(&self, to: SocketAddr, headers: Headers, seconds: u32) -> Answer {
        sent(to, "PUT", INTERVAL, headers, Some(&json!({ "collection_interval": seconds })))
    }
}

/// 401 as it should be: how to ask, and one sentence that says what to do.
fn unauthorized(answer: &Answer, why: &str) {
    assert_eq!(answer.status, 401, "{why}: {}", answer.text());
    let how = answer.header("www-authenticate").unwrap_or_default();
    assert!(how.starts_with("Bearer realm="), "{why}: {how}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    let detail = body["detail"].as_str().expect("a sentence");
    assert!(detail.contains("`net-pulse token`") && detail.contains("router"), "{detail}");
}

#[test]
fn reading_is_open_and_changing_needs_the_token() {
    at_site(&[], &[], |site| {
        for path in ["/", "/health", INTERVAL, "/api/interfaces", "/openapi.json", "/app.js"] {
            assert_eq!(site.there("GET", path, &[]).status, 200, "{path}");
            assert_eq!(site.there("HEAD", path, &[]).status, 200, "{path}");
        }
        let options = site.there("OPTIONS", "/collector/stop", &[]);
        assert_eq!((options.status, options.header("allow")), (204, Some("POST, OPTIONS")));
        assert_eq!(site.there("OPTIONS", "/nowhere", &[]).status, 404);

        // Whatever is no reading is a change, and whether the path exists is not told first.
        for method in ["POST", "PUT", "PATCH", "DELETE", "post", "get", "BREW", "TRACE"] {
            for path in ["/collector/stop", "/health", "/nowhere"] {
                unauthorized(&site.there(method, path, &[]), &format!("{method} {path}"));
            }
        }
        let lan = at("10.7.0.1", &site.daemon);
        unauthorized(&site.stranger.does(|| site.change(lan, &[], 7)), "PUT");
        // By its own address on the LAN this machine is one of those on the LAN.
        unauthorized(&site.change(lan, &[], 7), "PUT from its own address");
        assert_eq!(site.interval(), 30, "a refused change changed it");
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);

        let bearer = site.bearer();
        let right: Headers = &[("Authorization", &bearer)];
        assert_eq!(site.stranger.does(|| site.change(lan, right, 7)).status, 200);
        assert_eq!(site.interval(), 7);
        assert_eq!(site.change(at("127.0.0.1", &site.daemon), &[], 8).status, 200);
        assert_eq!(site.interval(), 8);
        assert_eq!(site.here("POST", "/collector/collect", &[]).status, 200);
        assert_eq!(site.known("POST", "/collector/stop", &[]).status, 200);
        assert_eq!(site.daemon.get("/collector/status")["is_running"], false);
        assert_eq!(site.known("POST", "/health", &[]).status, 405);
        assert_eq!(site.known("POST", "/nowhere", &[]).status, 404);

        // The same over IPv6.
        let lan = at("[fd07::1]", &site.daemon);
        unauthorized(&site.stranger.does(|| site.change(lan, &[], 9)), "IPv6");
        assert_eq!(site.stranger.does(|| site.change(lan, right, 9)).status, 200);
        fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0").expect("a namespace of our own");
        assert_eq!(site.change(at("[::1]", &site.daemon), &[], 10).status, 200);
        assert_eq!(site.change(at("127.0.0.99", &site.daemon), &[], 11).status, 200);
    });
}

/// A proxy on the same machine opens nothing, and nobody becomes local by saying so.
#[test]
fn proxies_and_pretenders_need_the_token() {
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
    at_site(&[], &[], |site| {
        let path = "/collector/collect";
        for header in HEADERS {
            let why = format!("{header:?}");
            unauthorized(&site.here("POST", path, &[header]), &why);
            unauthorized(&site.there("POST", path, &[header]), &why);
            unauthorized(&site.there("POST", path, &[header, ("Host", "localhost")]), &why);
            assert_eq!(site.here("GET", "/health", &[header]).status, 200, "{why}");
            let bearer = site.bearer();
            assert_eq!(site.here("POST", path, &[header, ("Authorization", &bearer)]).status, 200, "{why}");
            assert_eq!(site.known("POST", path, &[header]).status, 200, "{why}");
        }
        // Announced as belonging to the connection, it would be dropped by a careless reader.
        let hop = [("X-Forwarded-For", "10.0.0.1"), ("Connection", "X-Forwarded-For")];
        unauthorized(&site.here("POST", path, &hop), "hop by hop");
        for host in ["localhost", "127.0.0.1", "[::1]:8000"] {
            unauthorized(&site.there("POST", path, &[("Host", host)]), host);
        }
    });
}

#[test]
fn what_is_nearly_the_token_is_not() {
    at_site(&[], &[], |site| {
        let token = site.token.clone();
        let lan = at("10.7.0.1", &site.daemon);
        let try_out = |headers: Headers| site.stranger.does(|| site.change(lan, headers, 7));
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
            let answer = try_out(&[("Authorization", value)]);
            if number < 5 {
                unauthorized(&answer, value);
                let how = answer.header("www-authenticate").unwrap_or_default();
                assert!(how.contains("error=\"invalid_token\""), "{how}");
            } else {
                assert_eq!(answer.status, 429, "{value}");
            }
        }
        // No token in the right place: nothing to count, so that a page that has none yet is not locked out.
        for value in ["Bearer", "Bearer ", "", &format!("Basic {token}"), &format!("Token {token}"), &token] {
            unauthorized(&try_out(&[("Authorization", value)]), value);
        }
        unauthorized(&try_out(&[("Cookie", &format!("token={token}"))]), "a cookie");
        unauthorized(&try_out(&[("X-Token", &token)]), "another header");
        unauthorized(
            &site.there("POST", &format!("/collector/stop?token={token}&access_token={token}"), &[]),
            "a query",
        );
        let bearer = site.bearer();
        assert_eq!(try_out(&[("Authorization", &bearer), ("authorization", &bearer)]).status, 400);
        assert_eq!(try_out(&[("Authorization", "Bearer x"), ("Authorization", &bearer)]).status, 400);
        assert_eq!(site.interval(), 30);

        for (seconds, value) in
            [(7, format!("Bearer {token}")), (8, format!("bearer {token}")), (9, format!("BEARER   {token}  "))]
        {
            let answer = site.stranger.does(|| site.change(lan, &[("Authorization", &value)], seconds));
            assert_eq!(answer.status, 200, "{value}");
            assert_eq!(site.interval(), seconds);
        }
    });
}

#[test]
fn ten_thousand_guesses_cost_nothing() {
    at_site(&[], &[], |site| {
        let lan = at("10.7.0.1", &site.daemon);
        let guess = |number: u32| {
            let value = format!("Bearer guess{number:024}");
            sent(lan, "POST", "/collector/stop", &[("Authorization", &value)], None)
        };
        site.there("GET", "/health", &[]);
        let (before, began) = (site.daemon.resident(), Instant::now());
        site.stranger.does(|| {
            let mut free = 0;
            for number in 0..10_000 {
                let answer = guess(number);
                if answer.status == 401 {
                    free += 1;
                    continue;
                }
                assert_eq!(answer.status, 429, "{number}: {}", answer.text());
                let wait: u64 = answer.header("retry-after").and_then(|text| text.parse().ok()).expect("a number");
                assert!((1..=60).contains(&wait), "{wait}");
            }
            let minutes = 1 + began.elapsed().as_secs() / 60;
            assert!((5..=5 * (minutes + 1)).contains(&free), "{free} guesses were free in {minutes} minutes");
        });
        let grown = site.daemon.resident().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes more");
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);
        // Nobody else is made to wait, and who knows the token never is.
        unauthorized(
            &site.here("POST", "/collector/collect", &[("Via", "x"), ("Authorization", "Bearer x")]),
            "another",
        );
        assert_eq!(site.known("POST", "/collector/collect", &[]).status, 200);
        assert_eq!(site.there("GET", "/health", &[]).status, 200);
        unauthorized(&site.there("POST", "/collector/collect", &[]), "without a token");
        says(&site.daemon, "the last one came from 10.7.0.2");
        let log = site.daemon.log();
        let lines = log.iter().filter(|line| line.contains("wrong access token")).count() as u64;
        let most = 1 + began.elapsed().as_secs() / 60;
        assert!((1..=most).contains(&lines), "{lines} lines: {log:?}");
        assert!(!log.iter().any(|line| line.contains("guess0")), "{log:?}");
    });
}

#[test]
fn private_asks_for_reading_too() {
    let check = |site: &Site| {
        let browser: Headers = &[("Accept", "text/html,*/*;q=0.8")];
        // The page itself is there to ask for the token.
        for path in ["/", "/index.html", "/app.js", "/style.css", "/icon.svg", "/favicon.ico"] {
            for method in ["GET", "HEAD"] {
                let answer = site.there(method, path, browser);
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
        let document = site.daemon_document();
        let paths = document["paths"].as_object().expect("paths");
        assert!(paths.len() > 20);
        let mut asked = 0;
        for (path, operations) in paths {
            if operations.get("get").is_none() {
                continue;
            }
            asked += 1;
            let path = path.replace("{name}", "lo");
            unauthorized(&site.there("GET", &path, &[("Accept", "application/json")]), &path);
            assert_eq!(site.there("HEAD", &path, &[("Accept", "*/*")]).status, 401, "{path}");
            if path != "/" {
                unauthorized(&site.there("GET", &path, browser), &path);
            }
            assert_eq!(site.here("GET", &path, &[]).status, 200, "{path} from here");
            unauthorized(&site.here("GET", &path, &[("X-Forwarded-For", "10.0.0.1")]), &path);
            assert_eq!(site.known("GET", &path, &[]).status, 200, "{path} with the token");
        }
        assert!(asked > 15, "{asked}");
        for path in ["/nowhere", "/app.jsx", "/%2findex.html", "//", "/health/../app.js", "/api/interfaces/app.js"] {
            unauthorized(&site.there("GET", path, browser), path);
        }
        assert_eq!(site.there("OPTIONS", "/health", &[]).status, 204);
        unauthorized(&site.there("POST", "/collector/collect", &[]), "a change");
        unauthorized(&site.there("POST", "/app.js", &[]), "a change");
    };
    at_site(&["--private"], &[], check);
    at_site(&[], &[("NETPULSE_PRIVATE", "1")], |site| {
        unauthorized(&site.there("GET", "/health", &[]), "environment");
        assert_eq!(site.known("GET", "/health", &[]).status, 200);
    });
    at_site(&[], &[("NETPULSE_PRIVATE", "0")], |site| assert_eq!(site.there("GET", "/health", &[]).status, 200));
}

impl Site {
    fn daemon_document(&self) -> Value {
        self.here("GET", "/openapi.json", &[]).json()
    }
}

#[test]
fn open_lifts_the_demand_and_nothing_else() {
    at_site(&["--open"], &[], |site| {
        assert_eq!(site.there("POST", "/collector/collect", &[]).status, 200);
        assert_eq!(site.there("POST", "/collector/collect", &[("Authorization", "Bearer wrong")]).status, 200);
        assert_eq!(site.here("POST", "/collector/collect", &[("X-Forwarded-For", "10.0.0.1")]).status, 200);
        assert_eq!(site.there("POST", "/collector/stop", &[("Origin", "http://evil.example")]).status, 403);
        assert_eq!(site.there("POST", "/collector/stop", &[("Host", "evil.example")]).status, 421);
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);
    });
    at_site(&["--open", "--private"], &[], |site| {
        unauthorized(&site.there("GET", "/health", &[]), "reading");
        unauthorized(&site.there("POST", "/collector/collect", &[]), "changing");
        says(&site.daemon, "--open does nothing where --private is set");
    });
}

/// A page whose name was made to point here sends that name.
#[test]
fn e47_only_names_of_this_machine_are_answered() {
    at_site(&["--allowed-host", "Pulse.example.org", "--allowed-host", "other"], &[], |site| {
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
            assert_eq!(site.there("GET", "/health", &[("Host", host)]).status, 200, "{host}");
            assert_eq!(site.here("POST", "/collector/collect", &[("Host", host)]).status, 200, "{host}");
        }
        for host in
            ["evil.example", "example.org", "pulse.example.org.evil", "127.0.0.1.nip.io", "a@127.0.0.1", "127.1"]
        {
            for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT"] {
                let header = ("Host", host);
                assert_eq!(site.here(method, "/collector/status", &[header]).status, 421, "{method} {host}");
                assert_eq!(site.known(method, "/collector/status", &[header]).status, 421, "{method} {host}");
            }
            let same = [("Host", host), ("Origin", &format!("http://{host}")), ("Sec-Fetch-Site", "same-origin")];
            assert_eq!(site.here("POST", "/collector/stop", &same).status, 421, "{host}");
        }
        let refused = site.here("GET", "/", &[("Host", "evil.example"), ("Accept", "text/html")]);
        assert!(refused.json()["detail"].as_str().expect("a sentence").contains("--allowed-host"));
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);
    });
    at_site(&[], &[("NETPULSE_ALLOWED_HOST", "a.example,b.example")], |site| {
        for (host, status) in [("a.example", 200), ("b.example", 200), ("a.example,b.example", 421), ("other", 421)] {
            assert_eq!(site.there("GET", "/health", &[("Host", host)]).status, status, "{host}");
        }
    });
}

/// A browser that is used on this machine, or has been given the token, is no tool for other people's pages.
#[test]
fn e47_other_origins_change_nothing() {
    at_site(&[], &[], |site| {
        let here = format!("127.0.0.1:{}", site.daemon.port());
        for foreign in [
            &[("Origin", "http://evil.example")][..],
            &[("Origin", "null")],
            &[("Origin", "http://127.0.0.1")],
            &[("Origin", "http://localhost:8000")],
            &[("Sec-Fetch-Site", "cross-site")],
            &[("Origin", &format!("http://{here}")), ("Sec-Fetch-Site", "cross-site")],
            &[("Origin", "http://evil.example"), ("Content-Type", "text/plain")],
        ] {
            for method in ["POST", "PUT", "DELETE"] {
                assert_eq!(site.here(method, "/collector/stop", foreign).status, 403, "{method} {foreign:?}");
                assert_eq!(site.known(method, "/collector/stop", foreign).status, 403, "{method} {foreign:?}");
            }
            let read = site.here("GET", "/api/interfaces", foreign);
            assert_eq!(read.status, 200, "{foreign:?}");
            // It is answered, but the page does not get to see it.
            assert!(!read.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{:?}", read.headers);
            let asked = site.here("OPTIONS", "/collector/stop", foreign);
            assert!(!asked.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{:?}", asked.headers);
        }
        assert_eq!(site.daemon.get("/collector/status")["is_running"], true);
        for own in [
            &[("Origin", &*format!("http://{here}"))][..],
            &[("Origin", &format!("http://{here}")), ("Sec-Fetch-Site", "same-origin")],
            &[("Sec-Fetch-Site", "none")],
        ] {
            assert_eq!(site.here("POST", "/collector/collect", own).status, 200, "{own:?}");
        }
        let lan = format!("http://10.7.0.1:{}", site.daemon.port());
        assert_eq!(site.known("POST", "/collector/collect", &[("Origin", &lan)]).status, 200);
        unauthorized(&site.there("POST", "/collector/collect", &[("Origin", &lan)]), "its own page, without the token");
    });
}

#[test]
fn the_token_is_in_its_file_and_nowhere_else() {
    at_site(&["--log-level", "trace"], &[], |site| {
        let file = token_file(&site.dir);
        let found = fs::metadata(&file).expect("it was made");
        assert_eq!(found.permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(&file).expect("text"), format!("{}\n", site.token));
        assert!(site.token.len() >= 26 && site.token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        for _ in 0..2 {
            let said = token_of(&site.dir);
            assert_eq!((said.code, said.out, said.err), (Some(0), format!("{}\n", site.token), String::new()));
        }
        let paths: Vec<String> = site.daemon_document()["paths"].as_object().expect("paths").keys().cloned().collect();
        for path in paths {
            let answer = site.known("GET", &path.replace("{name}", "lo"), &[]);
            assert!(!answer.text().contains(&site.token), "{path}");
        }
        assert_eq!(site.known("POST", "/collector/collect", &[]).status, 200);
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
    at_site(&[], &[], |site| {
        let answer = |token: &str| {
            site.there("POST", "/collector/collect", &[("Authorization", &format!("Bearer {token}"))]).status
        };
        assert_eq!(answer(&site.token), 200);
        let file = token_file(&site.dir);
        let own = "a-token-of.somebody_own~";
        fs::write(&file, format!("{own}\n")).expect("it is ours");
        assert_eq!(answer(&site.token), 401, "the old one, without a restart");
        assert_eq!(answer(own), 200);
        // What is no token changes nothing, and is told.
        fs::write(&file, "short\n").expect("it is ours");
        assert_eq!(answer(own), 200);
        says(&site.daemon, &format!("the previous access token stays valid: {file}: it holds no token"));
        fs::remove_file(&file).expect("it is ours");
        assert_eq!(answer(own), 200);
        let made = token_of(&site.dir);
        assert_eq!((made.code, made.err.as_str()), (Some(0), ""));
        assert_eq!((answer(own), answer(made.out.trim_end())), (401, 200));
        fs::write(&file, format!("{}\n", site.token)).expect("it is ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    });
    let dir = Dir::new();
    Daemon::start(&dir, &[]).stop();
    let first = fs::read_to_string(token_file(&dir)).expect("it was made");
    fs::set_permissions(token_file(&dir), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let daemon = Daemon::start(&dir, &[]);
    daemon.get("/health");
    says(&daemon, "mode 644");
    daemon.stop();
    assert_eq!(fs::read_to_string(token_file(&dir)).expect("it is there"), first);
    assert_eq!(fs::metadata(token_file(&dir)).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_token_is_made_by_whoever_asks_first() {
    let dir = Dir::new();
    let database = dir.join("made/here/net-pulse.db");
    let print = || {
        let mut command = net_pulse(BINARY);
        command.env("NETPULSE_DATABASE", &database).arg("token");
        finish(command)
    };
    let said: Vec<Ended> = thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(print)).collect();
        asking.into_iter().map(|one| one.join().expect("a thread")).collect()
    });
    for one in &said {
        assert_eq!((one.code, &one.out), (Some(0), &said[0].out));
    }
    // That it opens nothing yet is said beside it.
    assert!(said.iter().any(|one| one.err.lines().count() == 1 && one.err.contains(&database)), "{}", said[0].err);
    let below = Path::new(&database).parent().expect("a directory");
    assert_eq!(fs::read_dir(below).expect("it was made").count(), 1);
    assert_eq!(fs::metadata(below).expect("it was made").permissions().mode() & 0o027, 0);

    let daemon = Daemon::spawn({
        let mut command = net_pulse(BINARY);
        command.args(["--host", "127.0.0.1", "--port", "0", "--database", &database]);
        command
    });
    let headers = [("Via", "x"), ("Authorization", &*format!("Bearer {}", said[0].out.trim_end()))];
    assert_eq!(sent(at("127.0.0.1", &daemon), "POST", "/collector/collect", &headers, None).status, 200);
    daemon.stop();
}

#[test]
fn a_token_that_cannot_be_had_is_one_sentence() {
    let check = |ended: Ended, code: i32, words: &[&str]| {
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
        words.iter().for_each(|word| assert!(ended.err.contains(word), "no '{word}' in {}", ended.err));
    };
    let asked = |arguments: &[&str]| {
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
        asked(&["--database", &dir.join("a-file/net-pulse.db"), "token"]),
        1,
        &[&dir.join("a-file/net-pulse.db.token")],
    );
    check(asked(&["--port", "x", "token"]), 2, &["--port"]);
    check(asked(&["token", "x"]), 2, &["unrecognized argument: x"]);

    in_namespace(|| {
        // The build directory may lie where this account cannot go.
        let binary = dir.join("net-pulse");
        fs::copy(BINARY, &binary).expect("a copy");
        let as_nobody = |database: &str| {
            let mut command = net_pulse(&binary);
            command.args(["--database", database, "token"]).uid(NOBODY).gid(NOBODY).current_dir("/");
            finish(command)
        };
        assert_eq!(token_of(&dir).code, Some(0));
        check(as_nobody(&dir.join("net-pulse.db")), 1, &[&token_file(&dir), "permission denied", "as root"]);
        check(as_nobody(&dir.join("new.db")), 1, &[&dir.join("new.db.token"), "permission denied"]);

        // Root may ask before the service's own user ever ran: the file is that user's.
        fs::create_dir(dir.join("service")).expect("it is ours");
        chown(dir.join("service"), Some(NOBODY), Some(NOBODY)).expect("root may");
        let database = dir.join("service/net-pulse.db");
        let by_root = asked(&["--database", &database, "token"]);
        let file = fs::metadata(dir.join("service/net-pulse.db.token")).expect("it was made");
        assert_eq!((file.uid(), file.permissions().mode() & 0o777), (NOBODY, 0o600));
        let by_service = as_nobody(&database);
        assert_eq!((by_service.code, by_service.out), (Some(0), by_root.out));
    });
}

/// In a directory where everybody may write, anybody can choose the token of a daemon that has not started yet, or point
/// to a file of root's that everybody can read.
#[test]
fn a_token_from_somebody_else_is_not_taken() {
    const PLANTED: &str = "attackerattackerattacker1";
    in_namespace(|| {
        let dir = Dir::new();
        let stranger = Stranger::new();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).expect("it is ours");
        let file = token_file(&dir);
        let of_root = dir.join("readable");
        fs::write(&of_root, "0123456789abcdef0123456789abcdef\n").expect("it is ours");
        fs::set_permissions(&of_root, fs::Permissions::from_mode(0o644)).expect("it is ours");
        let check = |token: &str| {
            let said = token_of(&dir);
            assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.err);
            assert!(said.err.contains(&file) && said.err.contains("belongs to user 65534"), "{}", said.err);
            let daemon = Daemon::spawn(command(&dir, &[], &[]));
            wait_until("it answers", || ask(at("127.0.0.1", &daemon), "GET", "/health", "*/*", None).is_ok());
            let post = |headers: Headers| sent(at("10.7.0.1", &daemon), "POST", "/collector/collect", headers, None);
            let bearer = format!("Bearer {token}");
            unauthorized(&stranger.does(|| post(&[("Authorization", &bearer)])), token);
            says(&daemon, "belongs to user 65534");
            // Not in the warnings about modes, nor anywhere.
            assert!(!daemon.log().iter().any(|line| line.contains(token)), "{:#?}", daemon.log());
            // Whoever removes it gets one of their own, at once.
            fs::remove_file(&file).expect("root may");
            let good = format!("Bearer {}", token_of(&dir).out.trim_end());
            assert_eq!(stranger.does(|| post(&[("Authorization", &good)])).status, 200);
            // And the other way round: no later file of somebody else's takes its place.
            fs::remove_file(&file).expect("root may");
            fs::write(&file, format!("{PLANTED}\n")).expect("root may");
            chown(&file, Some(NOBODY), Some(NOBODY)).expect("root may");
            unauthorized(&stranger.does(|| post(&[("Authorization", &format!("Bearer {PLANTED}"))])), "planted later");
            assert_eq!(stranger.does(|| post(&[("Authorization", &good)])).status, 200);
            daemon.stop();
            fs::remove_file(&file).expect("root may");
        };
        for mode in [0o600, 0o644] {
            fs::write(&file, format!("{PLANTED}\n")).expect("it is ours");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("it is ours");
            chown(&file, Some(NOBODY), Some(NOBODY)).expect("root may");
            check(PLANTED);
        }
        std::os::unix::fs::symlink(&of_root, &file).expect("it is ours");
        std::os::unix::fs::lchown(&file, Some(NOBODY), Some(NOBODY)).expect("root may");
        check("0123456789abcdef0123456789abcdef");
        assert_eq!(fs::metadata(&of_root).expect("it is there").permissions().mode() & 0o777, 0o644, "left alone");
        // A link of root's own is as good as a file.
        std::os::unix::fs::symlink(&of_root, &file).expect("it is ours");
        assert_eq!(token_of(&dir).out, "0123456789abcdef0123456789abcdef\n");
    });
}

/// Measuring comes first.
#[test]
fn without_a_token_only_this_machine_changes_anything() {
    in_namespace(|| {
        let dir = Dir::new();
        let stranger = Stranger::new();
        fs::create_dir(token_file(&dir)).expect("it is ours");
        let daemon = Daemon::spawn(command(&dir, &[], &[]));
        let post = |host: &str, headers: Headers| sent(at(host, &daemon), "POST", "/collector/collect", headers, None);
        wait_until("it answers", || ask(at("127.0.0.1", &daemon), "GET", "/health", "*/*", None).is_ok());
        assert_eq!(post("127.0.0.1", &[]).status, 200);
        for value in ["", "Bearer", "Bearer ", "Bearer x"] {
            unauthorized(&stranger.does(|| post("10.7.0.1", &[("Authorization", value)])), value);
        }
        assert_eq!(stranger.does(|| sent(at("10.7.0.1", &daemon), "GET", "/health", &[], None)).status, 200);
        says(&daemon, &format!("no access token: {}", token_file(&dir)));
        // And when it can be had, it is.
        fs::remove_dir(token_file(&dir)).expect("it is ours");
        let bearer = format!("Bearer {}", token_of(&dir).out.trim_end());
        assert_eq!(stranger.does(|| post("10.7.0.1", &[("Authorization", &bearer)])).status, 200);
        daemon.stop();
    });
}
