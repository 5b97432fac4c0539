//! Requests as tools send them: Grafana with milliseconds, a spreadsheet that reads CSV, clients that cannot unpack
//! gzip, curl in a terminal. And the log line that counts wrong access tokens.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::*;

const BINARY: &str = env!("CARGO_BIN_EXE_net-pulse");

fn daemon(dir: &Dir, settings: &[&str]) -> Daemon {
    let mut command = net_pulse(BINARY);
    command.args(["--host", "127.0.0.1", "--port", "0", "--database", &dir.join("net-pulse.db")]).args(settings);
    let daemon = Daemon::spawn(command);
    // The first reading comes after the first log line and before the first answer, so the daemon counts all traffic
    // from here on.
    assert!([200, 401].contains(&daemon.request("GET", "/api/interfaces", None).status));
    daemon
}

fn address(daemon: &Daemon) -> SocketAddr {
    ([127, 0, 0, 1], daemon.port()).into()
}

/// Everything that curl prints. `None` if curl is not installed.
fn curl(daemon: &Daemon, arguments: &[&str], path: &str) -> Option<Vec<u8>> {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10"]).args(arguments).arg(format!("http://127.0.0.1:{}{path}", daemon.port()));
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
            Some(output.stdout)
        }
        Err(_) => {
            skip("curl is not installed: its output is not tested");
            None
        }
    }
}

#[test]
fn grafana_sends_milliseconds() {
    in_namespace(|| {
        cable("wan0", "far0");
        let dir = Dir::new();
        let daemon = daemon(&dir, &["--interface", "wan0"]);
        send("far0", 500, 4);
        daemon.collect();
        let now = stored_history::unix_now();
        let received_bytes = |from: String, to: String| {
            let path = format!("/api/export/traffic?interface_name=wan0&start_time={from}&end_time={to}");
            let Value::Array(rows) = daemon.get(&path) else { panic!("{path} is no list") };
            rows.iter().map(|row| counters_of(row)[0]).sum::<u64>()
        };
        assert_eq!(received_bytes(format!("{}000", now - 3600), format!("{}999", now + 60)), 2000);
        assert_eq!(received_bytes((now - 3600).to_string(), (now + 60).to_string()), 2000);
        assert_eq!(received_bytes(format!("{}000", now - 7200), format!("{}000", now - 3600)), 0);
        let series = daemon.get(&format!("/api/traffic/series?interface=wan0&from={}123&to={now}456", now - 600));
        let same = daemon.get(&format!("/api/traffic/series?interface=wan0&from={}&to={now}", now - 600));
        assert_eq!((&series["from"], &series["to"]), (&same["from"], &same["to"]));
        assert_eq!(daemon.request("GET", "/api/events?from=9999999999999999", None).status, 422);
    });
}

/// Python's csv module: a parser that is independent of this project.
const READ_TABLE: &str = "
import csv, sys, datetime
text = sys.stdin.buffer.read()
assert text.startswith(b'\\xef\\xbb\\xbf'), text[:20]
head, *rows = list(csv.reader(text.decode('utf-8-sig').splitlines(), delimiter=';'))
assert rows and all(len(row) == len(head) for row in rows), rows
for row in rows:
    row = dict(zip(head, row))
    local = datetime.datetime.strptime(row[sys.argv[1]], '%Y-%m-%d %H:%M:%S')
    utc = local - datetime.timedelta(seconds=int(row[sys.argv[2]]))
    print(row['interface_name'], row['rx_bytes'], utc.strftime('%Y-%m-%dT%H:%M:%SZ'))
";

#[test]
fn a_spreadsheet_reads_the_export() {
    in_namespace(|| {
        cable("=1+2;3", "far0");
        let dir = Dir::new();
        // Four and a half hours behind UTC, without summer time: no other zone gives the same result by accident.
        let daemon = daemon(&dir, &["--interface", "=1+2;3", "--timezone", "<-0430>4:30"]);
        send("far0", 600, 5);
        daemon.collect();
        for (resolution, time, offset) in [
            ("sample", "timestamp", "utc_offset_seconds"),
            ("5min", "from", "from_utc_offset_seconds"),
            ("hour", "from", "from_utc_offset_seconds"),
            ("day", "to", "to_utc_offset_seconds"),
        ] {
            let path = format!("/api/export/traffic?resolution={resolution}");
            let table = daemon.request("GET", &format!("{path}&format=csv&bom=1&separator=;&time=local"), None);
            let mut python = Command::new("python3")
                .args(["-c", READ_TABLE, time, offset])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3, as for tests/docs");
            python.stdin.take().expect("a pipe").write_all(&table.body).expect("Python reads");
            let read = python.wait_with_output().expect("Python ends");
            assert!(read.status.success(), "{resolution}: {}", table.text());
            let Value::Array(rows) = daemon.get(&path) else { panic!("{path} is no list") };
            let expect: String = rows
                .iter()
                .map(|row| format!("'=1+2;3 {} {}\n", row["rx_bytes"], row[time].as_str().expect("a time")))
                .collect();
            assert_eq!(String::from_utf8_lossy(&read.stdout), expect, "{resolution}");
            assert!(expect.contains(" 3000 ") || resolution == "sample", "{expect}");
        }
    });
}

#[test]
fn a_page_for_clients_without_gzip() {
    let dir = Dir::new();
    let daemon = daemon(&dir, &[]);
    let html = ["-H", "Accept: text/html"];
    let Some(shown) = curl(&daemon, &html, "/") else { return };
    assert!(shown.starts_with(b"<!doctype html>") && shown.ends_with(b"</html>\n"));
    for refused in ["identity", "gzip;q=0", "*;q=0, identity"] {
        let header = format!("Accept-Encoding: {refused}");
        assert_eq!(curl(&daemon, &[&html[..], &["-H", &header]].concat(), "/"), Some(shown.clone()), "{refused}");
    }
    // curl unpacks the files of the page with zlib. Some files are sent only as a part of others.
    let names = fs::read_dir("www").expect("the page").map(|entry| entry.expect("an entry").file_name());
    let mut paths: Vec<String> = names.map(|name| format!("/{}", name.to_str().expect("a plain name"))).collect();
    paths.retain(|path| !path.ends_with(".md"));
    let status = |path: &str| daemon.request("GET", path, None).status;
    let (sent, parts): (Vec<&str>, Vec<&str>) = paths.iter().map(String::as_str).partition(|path| status(path) == 200);
    assert!(parts.iter().all(|path| path.ends_with(".js") && status(path) == 404), "{parts:?}");
    assert!(sent.len() > 10 && sent.contains(&"/app.js"), "{sent:?}");
    for path in sent.into_iter().chain(["/"]) {
        let accept = if path == "/" { "Accept: text/html" } else { "Accept: */*" };
        let plain = curl(&daemon, &["-H", accept], path);
        assert_eq!(plain, curl(&daemon, &["--compressed", "-H", accept], path), "{path}");
        let head =
            curl(&daemon, &["-I", "-H", "Accept-Encoding: gzip", "-H", accept], path).expect("curl is installed");
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(head.contains("content-encoding: gzip") && head.contains("accept-encoding\r\n"), "{head}");
    }
}

#[test]
fn json_ends_with_a_newline() {
    let dir = Dir::new();
    let daemon = daemon(&dir, &[]);
    for path in [
        "/",
        "/health",
        "/openapi.json",
        "/api/interfaces",
        "/api/traffic/latest",
        "/api/traffic/series",
        "/api/export/traffic",
        "/api/export/traffic?resolution=day",
        "/api/nothing",
        "/api/events?limit=0",
    ] {
        let Some(shown) = curl(&daemon, &[], path) else { return };
        let text = String::from_utf8_lossy(&shown);
        assert!(text.ends_with("\n") && !text.trim_end_matches('\n').is_empty(), "{path}: {text}");
        assert!(text.ends_with(['}', ']', '\n']) && !text.ends_with("\n\n"), "{path}: {text}");
        serde_json::from_slice::<Value>(&shown).unwrap_or_else(|error| panic!("{path}: {error} in {text}"));
    }
    // A refusal by the gate.
    let refused = ask_with(address(&daemon), "GET", "/", &[("Host", "evil.example")], None).expect("an answer");
    assert!(refused.status == 421 && refused.text().ends_with("}\n"), "{}", refused.text());
}

#[test]
fn one_wrong_token_is_logged_in_the_singular() {
    let dir = Dir::new();
    let daemon = daemon(&dir, &["--private"]);
    wait_until("there is a token", || fs::exists(dir.join("net-pulse.db.token")).unwrap_or(false));
    let headers = [("Authorization", "Bearer 0123456789abcdefghjkmnpq"), ("X-Forwarded-For", "192.0.2.7")];
    let answer = ask_with(address(&daemon), "GET", "/api/interfaces", &headers, None).expect("an answer");
    assert_eq!(answer.status, 401);
    wait_until("the log reports the wrong token", || {
        daemon.log().iter().any(|line| line.contains("wrong access token"))
    });
    let log = daemon.stop().join("\n");
    assert!(log.contains(" 1 wrong access token; the last one came from "), "{log}");
}
