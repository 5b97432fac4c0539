//! Kernel behaviour that makes reading counters hard: sockets that fail, very many links, no links at all, links that
//! change between two readings, and names of arbitrary bytes. Tested from outside.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Child, Command, Stdio};

use crate::common::disk::InjectedFault;
use crate::common::*;
use serde_json::Value;

const FAST: [&str; 4] = ["--interval", "1", "--flush", "2"];

/// Name of the source that the daemon reads its counters from.
fn source(daemon: &Daemon) -> String {
    daemon.get("/collector/status")["source"].as_str().expect("a word").to_string()
}

fn check(daemon: &Daemon, name: &str, expect: Counters) {
    daemon.collect();
    assert_eq!(daemon.exported_sum(name), expect, "{name}: {COUNTERS:?}; log: {:#?}", daemon.log());
}

/// Once reading works again, the daemon counts the bytes that were sent while it failed, whichever source it then uses.
fn survives_read_errors(calls: &str, what: &str) {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        send("wan0", 100, 1);
        let daemon = Daemon::start(&dir, &FAST);
        assert_eq!(daemon.put("/api/config/retry-delay", serde_json::json!({"retry_delay": 0.1})).status, 200);
        daemon.wait_for_ticks(2);
        let base = minus(kernel_counters("wan0"), daemon.exported_sum("wan0"));
        {
            let _fault = InjectedFault::of_sampler(&daemon, calls, what);
            let noticed = |daemon: &Daemon| {
                let errors = daemon.get("/collector/status")["stats"]["total_errors"].as_u64().expect("a number");
                errors > 0 || daemon.log().iter().any(|line| line.contains("another source"))
            };
            for count in 1..=5 {
                send("wan0", 700, count);
                send("lan0", 900, 2 * count);
                sleep_ms(400);
            }
            wait_until("the daemon notices the fault", || noticed(&daemon));
            // The daemon also finds a link that appears while no notification arrives.
            cable("wan1", "lan1");
            send("wan1", 300, 7);
            sleep_ms(1200);
        }
        daemon.wait_for_ticks(2);
        send("lan0", 333, 3);
        check(&daemon, "wan0", minus(kernel_counters("wan0"), base));
        wait_until("the new link is monitored", || daemon.get("/api/interfaces")["wan1"]["monitored"] == true);
        send("wan1", 300, 2);
        daemon.collect();
        assert!(daemon.interface("wan1")["lifetime_tx_bytes"].as_u64().expect("a number") >= 600);
        assert_eq!(daemon.get("/health")["status"], "healthy", "{:?}", daemon.log());
        assert_eq!(daemon.get("/api/system/health")["collector_status"], "healthy");
        daemon.stop();
    });
}

#[test]
fn e17_no_buffer_space_for_a_while() {
    survives_read_errors("recvfrom", "error=ENOBUFS");
}

#[test]
fn e16_the_socket_is_closed_unexpectedly() {
    survives_read_errors("recvfrom", "error=EBADF");
}

#[test]
fn e16_sending_fails() {
    survives_read_errors("sendto,sendmsg", "error=EPERM");
}

#[test]
fn e16_no_new_socket_can_be_opened_either() {
    survives_read_errors("recvfrom,socket", "error=EMFILE");
}

/// Refused from the first request on, as by a seccomp filter or SELinux: the daemon reads sysfs instead.
#[test]
fn e16_refused_from_the_start() {
    if !strace_or_skip() {
        return;
    }
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        send("wan0", 100, 1);
        // With -D the daemon is the child of the test, and strace runs beside it. It traces only the main thread, which
        // sends nothing but its netlink requests: two for each of the two netlink sources.
        let mut strace = net_pulse("strace");
        strace.args(["-D", "-q", "-o", "/dev/null", "-e", "trace=sendto"]);
        strace.args(["-e", "inject=sendto:error=EACCES:when=1..4", env!("CARGO_BIN_EXE_net-pulse")]);
        // A known address: the test waits until the daemon listens there, and not for a line of the log.
        let address = free_address();
        strace.args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
        strace.args(["--database", &dir.join("net-pulse.db")]).args(FAST);
        let daemon = Daemon::spawn_at(strace, address);
        assert_eq!(source(&daemon), "sysfs", "{:?}", daemon.log());
        assert!(daemon.log().iter().any(|line| line.contains("Permission denied")), "{:?}", daemon.log());
        daemon.wait_for_ticks(1);
        let base = minus(kernel_counters("wan0"), daemon.exported_sum("wan0"));
        send("wan0", 700, 3);
        send("lan0", 900, 4);
        check(&daemon, "wan0", minus(kernel_counters("wan0"), base));
        assert_eq!(daemon.get("/health")["status"], "healthy");
        daemon.stop();
    });
}

#[test]
fn e15_a_thousand_interfaces() {
    const PAIRS: usize = 500;
    in_namespace(|| {
        let dir = Dir::new();
        let file = dir.join("batch");
        let mut batch = String::new();
        for pair in 0..PAIRS {
            batch += &format!("link add m{pair}a type veth peer name m{pair}b\n");
            batch += &format!("link set m{pair}a up\nlink set m{pair}b up\n");
        }
        fs::write(&file, batch).expect("a file of the test");
        run("ip", &format!("-batch {file}"));
        wait_until("all have a carrier", || {
            let state = fs::read_to_string(format!("/sys/class/net/m{}a/operstate", PAIRS - 1));
            state.unwrap_or_default().trim() == "up"
        });
        let daemon = Daemon::start(&dir, &[&FAST[..], &["--interface", "*"]].concat());
        assert_eq!(daemon.get("/api/interfaces").as_object().expect("an object").len(), 2 * PAIRS + 1);
        daemon.wait_for_ticks(1);
        for pair in [0, 1, PAIRS / 2, PAIRS - 1] {
            send(&format!("m{pair}a"), 100 + pair, 3);
        }
        let answer = daemon.collect();
        assert!(answer["interfaces_collected"].as_u64().expect("a number") >= 2 * PAIRS as u64, "{answer}");
        for pair in [0, 1, PAIRS / 2, PAIRS - 1] {
            let (sent, one, other) = (3 * (100 + pair) as u64, format!("m{pair}a"), format!("m{pair}b"));
            assert_eq!(daemon.exported_sum(&one)[..4], [0, sent, 0, 3], "{one}");
            assert_eq!(daemon.exported_sum(&other)[..4], [sent, 0, 3, 0], "{other}");
        }
        // Every interface gets traffic, and the export contains every interface.
        for pair in 0..PAIRS {
            send(&format!("m{pair}a"), 60, 1);
        }
        daemon.collect();
        let rows = daemon.get("/api/export/traffic?format=json");
        let mut exported: Vec<&str> =
            rows.as_array().expect("a list").iter().filter_map(|row| row["interface_name"].as_str()).collect();
        exported.sort_unstable();
        exported.dedup();
        assert_eq!(exported.iter().filter(|name| name.starts_with('m')).count(), 2 * PAIRS);
        assert_eq!(daemon.get("/api/traffic/history?limit=1000").as_array().expect("a list").len(), 1000);
        let resident = daemon.resident();
        assert!(resident < 24 << 20, "{resident} bytes with a thousand interfaces");
        // Half of the cables go at once.
        let batch: String = (0..PAIRS / 2).map(|pair| format!("link del m{pair}a\n")).collect();
        fs::write(&file, batch).expect("a file of the test");
        run("ip", &format!("-batch {file}"));
        wait_until("the removed links are absent", || {
            let all = daemon.get("/api/interfaces");
            let here = all
                .as_object()
                .expect("an object")
                .values()
                .filter(|row| row["ifindex"] != 0 && !row["ifindex"].is_null());
            here.count() == PAIRS + 1
        });
        assert_eq!(daemon.exported_sum("m0b")[..4], [360, 0, 4, 0]);
        daemon.stop();
    });
}

/// Runs `ip` with arguments that need not be UTF-8. Returns whether it succeeded.
fn ip_bytes(words: &[&OsStr]) -> bool {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output().expect("ip starts");
    output.status.success()
}

/// Percent-encodes a name for a URL.
fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// The cells of each line, parsed as a spreadsheet does: a doubled quote inside quotes is one quote.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(one) = chars.next() {
        match (one, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut cell)),
            ('\r', false) => {}
            ('\n', false) => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            (other, _) => cell.push(other),
        }
    }
    assert!(!quoted && cell.is_empty() && row.is_empty(), "an incomplete line");
    rows
}

/// The kernel refuses only slashes, colons, white space, per cent signs, `.` and `..` in names.
#[test]
fn e14_names_of_odd_bytes() {
    const ALIASES: [&[u8]; 6] = [
        b"=2+5+cmd|' /C calc'!A0",
        b"@SUM(1,2)\r\nSet-Cookie: a=b",
        b"\t+1",
        b"</script><img src=x onerror=alert(1)>",
        b"\"quoted\", \x1b[31m\x07",
        b"\xff\xfe \xe2\x98\x83",
    ];
    const NAMES: [&[u8]; 12] = [
        b"=1+2",
        b"+cmd|'/C'!A0".split_at(5).0,
        b"-rf",
        b"@SUM(1,2)",
        b"<img_src=x>",
        b"a\"b'c\\d&amp;",
        b"{*~}$`|#?&;!",
        "\u{2603}\u{e9}\u{1f600}.1".as_bytes(),
        b"\xff\x80\xfe",
        b"\x1b[31m\x07\x7f",
        b"fifteen_bytes_x",
        b"x\"\",=1+1",
    ];
    in_namespace(|| {
        let dir = Dir::new();
        for (at, name) in NAMES.iter().enumerate() {
            ip(&format!("link add far{at} type veth peer name here{at}"));
            let name = OsStr::from_bytes(name);
            assert!(
                ip_bytes(
                    &["link", "set", "dev", &format!("here{at}"), "name"]
                        .map(OsStr::new)
                        .iter()
                        .copied()
                        .chain([name])
                        .collect::<Vec<_>>()
                ),
                "{name:?}"
            );
            let far = format!("far{at}");
            let words = ["link", "set", &far, "alias"].map(OsStr::new);
            assert!(ip_bytes(&[&words[..], &[OsStr::from_bytes(ALIASES[at % ALIASES.len()])]].concat()));
            ip(&format!("link set far{at} up"));
            assert!(ip_bytes(&[OsStr::new("link"), OsStr::new("set"), OsStr::new("dev"), name, OsStr::new("up")]));
        }
        let daemon = Daemon::start(&dir, &[&FAST[..], &["--interface", "*"]].concat());
        daemon.wait_for_ticks(1);
        for at in 0..NAMES.len() {
            send(&format!("far{at}"), 1000 + at, 2);
        }
        daemon.collect();

        let listed = daemon.get("/api/interfaces");
        let text = daemon.request("GET", "/api/export/traffic?format=csv", None);
        let table = csv(&text.text());
        for (at, bytes) in NAMES.iter().enumerate() {
            let name = String::from_utf8_lossy(bytes).into_owned();
            let (path, sent) = (encoded(&name), 2 * (1000 + at) as u64);
            assert_eq!(listed[&name]["name"], name.as_str());
            let one = daemon.get(&format!("/api/interfaces/{path}"));
            assert_eq!(one["lifetime_rx_bytes"], sent, "{name:?}");
            assert_eq!(daemon.get(&format!("/api/interfaces/{path}/stats"))["rx_bytes"], sent, "{name:?}");
            let alias = String::from_utf8_lossy(ALIASES[at % ALIASES.len()]);
            assert_eq!(listed[format!("far{at}")]["alias"], alias.as_ref());
            assert_eq!(daemon.interface(&format!("far{at}"))["alias"], alias.as_ref());

            let summed: u64 = ["history?limit=1000&interface_name=", "history?limit=1000&start_time=0&interface_name="]
                .map(|query| {
                    let rows = daemon.get(&format!("/api/traffic/{query}{path}"));
                    let rows = rows.as_array().expect("a list").clone();
                    assert!(rows.iter().all(|row| row["interface_name"] == name.as_str()), "{rows:?}");
                    rows.iter().map(|row| counters_of(row)[0]).sum()
                })
                .iter()
                .sum();
            assert_eq!(summed, 2 * sent, "{name:?}");
            let series = daemon.get(&format!("/api/traffic/series?interface={path}"));
            assert!(series["interfaces"][&name].is_object(), "{name:?}");

            let escaped = if name.starts_with(['=', '+', '-', '@']) { format!("'{name}") } else { name.clone() };
            let received: u64 =
                table.iter().filter(|row| row[2] == escaped).map(|row| row[3].parse::<u64>().expect("a number")).sum();
            assert_eq!(received, sent, "{name:?} in CSV");
        }
        for resolution in ["sample", "5min", "hour", "day"] {
            let path = format!("/api/export/traffic?format=csv&resolution={resolution}");
            let table = csv(&daemon.request("GET", &path, None).text());
            for bytes in NAMES {
                let name = String::from_utf8_lossy(bytes);
                assert!(table.iter().any(|row| row[2].trim_start_matches('\'') == name), "{name:?}: {resolution}");
            }
            for row in &table {
                assert_eq!(row.len(), table[0].len(), "{row:?}");
                assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])), "{row:?}");
            }
        }
        // No answer is one that a browser could take for a page, and no name is in a response header.
        for path in ["/api/interfaces", "/api/events", "/api/export/traffic", "/api/export/traffic?format=csv"] {
            let answer = daemon.request("GET", path, None);
            let content_type = answer.header("content-type").expect("a type");
            assert!(
                content_type.starts_with("application/json") || content_type.starts_with("text/csv"),
                "{path}: {content_type}"
            );
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
            assert_eq!(answer.header("set-cookie"), None, "{path}");
        }
        // Terminals show the log, so it contains no escape sequences.
        assert!(daemon.log().iter().all(|line| !line.contains(['\x1b', '\x07'])), "{:?}", daemon.log());
        // A link with a plain name gets an odd one.
        ip("link set far0 down");
        assert!(ip_bytes(&["link", "set", "dev", "far0", "name", "=9"].map(OsStr::new)));
        wait_until("the new name is known", || daemon.get("/api/interfaces")["=9"]["monitored"] == true);
        let renamed = daemon
            .get("/api/events")
            .as_array()
            .expect("a list")
            .iter()
            .any(|event| event["kind"] == "renamed" && event["interface"] == "=9");
        assert!(renamed);
        daemon.stop();

        // A restart finds all of them again.
        let daemon = Daemon::start(&dir, &[&FAST[..], &["--interface", "*"]].concat());
        for (at, bytes) in NAMES.iter().enumerate() {
            let one = daemon.interface(&encoded(&String::from_utf8_lossy(bytes)));
            assert_eq!(one["lifetime_rx_bytes"], 2 * (1000 + at) as u64);
        }
        daemon.stop();
    });
}

/// No name and no alias can become a part of the page: its scripts never make markup from text.
#[test]
fn the_page_makes_no_markup_from_text() {
    let www = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("www");
    let mut checked = 0;
    for entry in fs::read_dir(www).expect("the page").flatten() {
        let path = entry.path();
        if !path.extension().is_some_and(|extension| extension == "js" || extension == "html") {
            continue;
        }
        checked += 1;
        let text = fs::read_to_string(&path).expect("text");
        for api in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "srcdoc",
            "eval(",
            "setHTML",
        ] {
            assert!(!text.contains(api), "{api} in {}", path.display());
        }
    }
    assert!(checked >= 2);
}

#[test]
fn e11_a_link_recreated_between_two_ticks_loses_no_bytes() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("ppp0x", "isp");
        send("ppp0x", 100, 5);
        let daemon = Daemon::start(&dir, &["--interval", "3600", "--flush", "2"]);
        daemon.collect();
        send("ppp0x", 100, 5);
        daemon.collect();
        assert_eq!(daemon.exported_sum("ppp0x")[1], 500);
        // More bytes than before, so that no counter seems to fall; five times within one interval.
        for turn in 1..=5 {
            ip("link del ppp0x");
            cable("ppp0x", "isp");
            send("ppp0x", 1000, 20 * turn);
            // The notification of the new link may arrive late, and the daemon cannot know bytes that it has not read
            // before the next removal.
            let sent = 20_000 * turn as u64;
            wait_until("the daemon has read the counters", || {
                daemon.collect();
                daemon.interface("ppp0x")["lifetime_tx_bytes"].as_u64().expect("a number") >= 500 + sent
            });
            let all: u64 = (1..=turn as u64).map(|turn| 20_000 * turn).sum();
            assert_eq!(daemon.exported_sum("ppp0x")[1], 500 + all, "log: {:#?}", daemon.log());
        }
        daemon.stop();
    });
}

/// A link moves to another namespace and back. Its traffic there does not count here.
#[test]
fn a_link_that_visits_another_namespace() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        send("wan0", 100, 3);
        let daemon = Daemon::start(&dir, &FAST);
        daemon.wait_for_ticks(1);
        send("wan0", 500, 3);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0")[1], 1500);
        let other = OtherNamespace::new();
        ip(&format!("link set wan0 netns {}", other.pid()));
        wait_until("wan0 is no longer monitored", || daemon.get("/api/interfaces")["wan0"]["monitored"] == false);
        assert_eq!(daemon.interface("wan0")["lifetime_tx_bytes"], 1500);
        // This traffic passes while wan0 is in the other namespace.
        other.ip("link set wan0 up");
        send("lan0", 5000, 2);
        other.ip(&format!("link set wan0 netns {}", daemon.pid()));
        ip("link set wan0 up");
        wait_until("wan0 is monitored again", || daemon.get("/api/interfaces")["wan0"]["monitored"] == true);
        daemon.wait_for_ticks(1);
        send("wan0", 700, 3);
        daemon.collect();
        assert_eq!(daemon.exported_sum("wan0")[..2], [0, 1500 + 2100], "log: {:#?}", daemon.log());
        assert_eq!(daemon.get("/health")["status"], "healthy");
        daemon.stop();
    });
}

/// A network namespace, kept alive by a `sleep` process.
struct OtherNamespace(Child);

impl OtherNamespace {
    fn new() -> OtherNamespace {
        let mut unshare = Command::new("unshare");
        let child = unshare.args(["-n", "sleep", "600"]).stdin(Stdio::null()).spawn().expect("unshare starts");
        let here = fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
        wait_until("the process is in the new namespace", || {
            fs::read_link(format!("/proc/{}/ns/net", child.id())).is_ok_and(|other_netns| other_netns != here)
        });
        OtherNamespace(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn ip(&self, words: &str) {
        run("nsenter", &format!("-n -t {} ip {words}", self.pid()));
    }
}

impl Drop for OtherNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn e18_no_interface_to_monitor() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &[&FAST[..], &["--interface", "later*"]].concat());
        daemon.wait_for_ticks(2);
        assert_eq!(daemon.collect()["interfaces_collected"], 0);
        let (empty_list, null) = (serde_json::json!([]), Value::Null);
        for (path, pointer, expect) in [
            ("/api/traffic/history", "", &empty_list),
            ("/api/traffic/latest", "", &empty_list),
            ("/api/export/traffic?format=json", "", &empty_list),
            ("/api/export/traffic?resolution=day", "", &empty_list),
            ("/api/traffic/summary", "/primary", &null),
            ("/api/traffic/live", "/t", &empty_list),
            ("/api/system/health", "/status", &"healthy".into()),
            ("/health", "/status", &"healthy".into()),
        ] {
            assert_eq!(daemon.get(path).pointer(pointer).unwrap_or(&null), expect, "{path}");
        }
        assert_eq!(daemon.get("/api/interfaces")["lo"]["monitored"], false);
        assert_eq!(daemon.get("/api/traffic/series?points=2")["interfaces"], serde_json::json!({}));
        assert_eq!(daemon.get("/api/traffic/totals"), empty_list);
        assert_eq!(csv(&daemon.request("GET", "/api/export/traffic?format=csv", None).text()).len(), 1);
        assert_eq!(daemon.page("/").status, 200);
        // The daemon finds the first matching link, and counts from its first byte.
        cable("later0", "other");
        send("later0", 100, 5);
        wait_until("the link is monitored", || {
            daemon.collect();
            daemon.get("/api/interfaces")["later0"]["monitored"] == true
        });
        check(&daemon, "later0", [0, 500, 0, 5, 0, 0, 0, 0]);
        daemon.stop();
    });
}

/// Interfaces chosen before they exist: a PPPoE link comes up when the modem does, a dongle when it is plugged in.
#[test]
fn e30_a_chosen_interface_may_appear_later() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let more = ["--interface", "late*", "--primary", "late0"];
        let late = [&FAST[..], &more].concat();
        let daemon = Daemon::start(&dir, &late);
        for _ in 0..2 {
            daemon.wait_for_ticks(1);
            send("wan0", 1000, 50);
        }
        let primary = |daemon: &Daemon| daemon.get("/api/traffic/summary")["primary"].clone();
        // No other interface becomes the primary, however much it carries.
        assert_eq!(
            (primary(&daemon), daemon.get("/api/interfaces")["wan0"]["monitored"].clone()),
            (Value::Null, false.into())
        );
        cable("late0", "isp");
        send("late0", 100, 7);
        wait_until("the link is monitored", || {
            daemon.collect();
            daemon.get("/api/interfaces")["late0"]["monitored"] == true
        });
        check(&daemon, "late0", [0, 700, 0, 7, 0, 0, 0, 0]);
        assert_eq!(primary(&daemon)["name"], "late0");
        daemon.stop();

        // The link is missing at the next start and appears later: the choice and the history are still there.
        ip("link del late0");
        let daemon = Daemon::start(&dir, &late);
        daemon.wait_for_ticks(1);
        assert_eq!(daemon.interface("late0")["lifetime_tx_bytes"], 700);
        cable("late0", "isp");
        send("late0", 100, 2);
        wait_until("late0 has its history again", || {
            daemon.collect();
            daemon.interface("late0")["lifetime_tx_bytes"] == 900
        });
        assert_eq!(primary(&daemon)["name"], "late0");
        daemon.stop();

        // The same for names chosen through the API.
        let daemon = Daemon::start(&dir, &FAST);
        assert_eq!(daemon.put("/api/config/interfaces", serde_json::json!({"interfaces": ["late0"]})).status, 200);
        daemon.stop();
        ip("link del late0");
        let daemon = Daemon::start(&dir, &FAST);
        assert_eq!(daemon.get("/api/config/interfaces")["interfaces"], serde_json::json!(["late0"]));
        assert_eq!(daemon.get("/api/interfaces")["wan0"]["monitored"], false);
        cable("late0", "isp");
        send("late0", 100, 1);
        wait_until("late0 has its history once more", || {
            daemon.collect();
            daemon.interface("late0")["lifetime_tx_bytes"] == 1000
        });
        daemon.stop();
    });
}

/// A bridge and its port see the same bytes. Each has its own history; the primary is one of them, never a sum.
#[test]
fn e34_the_primary_is_one_interface() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("port0", "far0");
        ip("link add br-lan type bridge");
        ip("link set port0 master br-lan");
        ip("link set br-lan up");
        ip("link set far0 up");
        let daemon = Daemon::start(&dir, &[&FAST[..], &["--primary", "br-lan"]].concat());
        daemon.wait_for_ticks(1);
        // With bridge netfilter, a bridge drops frames that claim to be IPv4 and are not: use an unknown protocol.
        let frames = |bytes, count| RawSocket::of("far0").send(BROADCAST, UNKNOWN_ETHERTYPE, bytes, count);
        wait_until("the bridge forwards", || {
            frames(100, 1);
            kernel_counters("br-lan")[2] > 0
        });
        daemon.collect();
        let (port, bridge) = (daemon.exported_sum("port0"), daemon.exported_sum("br-lan"));
        frames(1000, 10);
        daemon.collect();
        assert_eq!(minus(daemon.exported_sum("port0"), port)[..4], [10_000, 0, 10, 0]);
        // A bridge counts the bytes of packets without the 14 bytes of the Ethernet header.
        assert_eq!(minus(daemon.exported_sum("br-lan"), bridge)[..4], [9_860, 0, 10, 0]);
        let all = daemon.get("/api/interfaces");
        assert_eq!((&all["port0"]["parent"], &all["port0"]["primary"]), (&"br-lan".into(), &false.into()));
        assert_eq!((&all["br-lan"]["parent"], &all["br-lan"]["primary"]), (&Value::Null, &true.into()));
        let primary = &daemon.get("/api/traffic/summary")["primary"];
        let counted = kernel_counters("br-lan");
        assert_eq!((&primary["name"], &primary["rx_bytes"]), (&"br-lan".into(), &counted[0].into()));
        assert_eq!(primary["lifetime_rx_bytes"], daemon.exported_sum("br-lan")[0]);
        let series = daemon.get("/api/traffic/series");
        assert_eq!(series["interfaces"].as_object().expect("an object").keys().collect::<Vec<_>>(), ["br-lan"]);
        let days = daemon.get("/api/traffic/totals?by=day");
        let total: u64 = days.as_array().expect("a list").iter().filter_map(|row| row["rx_bytes"].as_u64()).sum();
        assert_eq!(total, daemon.exported_sum("br-lan")[0]);
        daemon.stop();
    });
}

/// An ignored interface is listed with the reason, and is in no history, export or total. The list shows aliases.
#[test]
fn e49_the_api_respects_filters_and_aliases() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        ip("link set wan0 alias Fibre");
        let daemon = Daemon::start(&dir, &[&FAST[..], &["--ignore", "lan*", "--primary", "wan0"]].concat());
        daemon.wait_for_ticks(1);
        send("wan0", 1000, 3);
        send("lan0", 1000, 4);
        daemon.collect();
        let all = daemon.get("/api/interfaces");
        assert_eq!((&all["wan0"]["alias"], &all["wan0"]["monitored"]), (&"Fibre".into(), &true.into()));
        assert_eq!(all["lan0"]["monitored"], false);
        assert!(all["lan0"]["ignored_because"].as_str().expect("a reason").contains("lan*"));
        for path in [
            "/api/traffic/history",
            "/api/traffic/latest",
            "/api/export/traffic",
            "/api/export/traffic?resolution=5min",
        ] {
            let rows = daemon.get(path);
            let rows = rows.as_array().expect("a list");
            assert!(!rows.is_empty() && rows.iter().all(|row| row["interface_name"] == "wan0"), "{path}: {rows:?}");
        }
        let table = csv(&daemon.request("GET", "/api/export/traffic?format=csv", None).text());
        assert!(table[1..].iter().all(|row| row[2] == "wan0"), "{table:?}");
        assert_eq!(daemon.get("/api/traffic/history?interface_name=lan0"), serde_json::json!([]));
        assert_eq!(daemon.get("/api/traffic/totals?by=day&interface=lan0"), serde_json::json!([]));
        let series = daemon.get("/api/traffic/series?interface=lan0&interface=wan0");
        let known = |name: &str| {
            series["interfaces"][name]["rx"].as_array().expect("a column").iter().any(|one| !one.is_null())
        };
        assert!(known("wan0") && !known("lan0"));
        assert_eq!(daemon.get("/api/interfaces/lan0")["lifetime_tx_bytes"], 0);
        ip("link set wan0 alias Copper");
        wait_until("the other alias is known", || daemon.interface("wan0")["alias"] == "Copper");
        daemon.stop();
    });
}

#[test]
fn e26_garbage_for_a_time_zone() {
    let garbage: [&[u8]; 9] = [
        b"\xff\xfe\x80",
        b"../../../../etc/passwd",
        b":/dev/zero",
        b":/proc/self/mem",
        &[b'A'; 4096],
        b"AAA0BBB,0,J365/63",
        b"XXX0YYY,J365/167,0/-167",
        b"CET-1CEST,M13.5.0,M10.5.0",
        b"\x1b]0;owned\x07",
    ];
    for zone in garbage {
        let dir = Dir::new();
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        // A known address: the test waits until the daemon listens there, and not for a line of the log.
        let address = free_address();
        command.args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--database", &dir.join("net-pulse.db")]).args(FAST);
        command.env("TZ", OsString::from_vec(zone.to_vec()));
        let daemon = Daemon::spawn_at(command, address);
        daemon.wait_for_ticks(1);
        daemon.get("/api/traffic/totals?by=day");
        daemon.get("/api/traffic/totals?by=hour");
        assert!(
            daemon.log().iter().all(|line| !line.contains(['\x1b', '\x07']) && line.len() < 500),
            "{:?}",
            daemon.log()
        );
        daemon.stop();
    }
}
