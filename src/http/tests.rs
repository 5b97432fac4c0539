//! The service as clients see it: real sockets, a real `Live`, a real database in a temporary directory, and a clock
//! that stands still. The callback that wakes the sampler does at once what the sampler and the writer would do.

mod page;
mod requests;
mod resolutions;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gate;
use super::openapi;
use super::route::Route;
use super::routes::ROUTES;
use super::{Auth, Context, DiskThread, HttpRequest, HttpServer, answer, assets, bind, serve};
use crate::clock::{Clock, Now, Zone};
use crate::config::{Config, SETTINGS};
use crate::history::History;
use crate::live::{ActiveSettings, Database, Iface, InterfaceCommand, Live, State, Unmatched};
use crate::model::{
    Address, Batch, Counters, Event, EventKind, InterfaceKind, Machine, Record, Sample, SampleQuality, Tick,
};
use crate::resolution::Resolution;
use crate::store::{Options, Reader, SaveRequest, Store};

/// 2026-01-15T10:30:00Z
const NOW: i64 = 1_768_473_000;

fn default_settings() -> ActiveSettings {
    ActiveSettings::of(&Config::default())
}

/// A `Live` without a sampler and a writer.
pub fn idle_live() -> Live {
    let live = Live::new(Config::default(), Zone::UTC);
    live.lock().health.database = Database::Rejoined;
    live
}

/// A context without a database, for tests of single functions.
pub fn idle_context() -> Context {
    let live = Arc::new(idle_live());
    Context {
        live: live.clone(),
        history: History::new(live, None),
        backup_thread: DiskThread::named("copy"),
        clock: Arc::new(FixedClock),
        database: PathBuf::new(),
        machine: Arc::new(machine),
        find_zone: Arc::new(|name| Ok(Zone::find(Some(name), None, |_| None)?.zone)),
        listen_addresses: Vec::new(),
        auth: Auth::new(PathBuf::new(), None, false, false),
        server_state: Default::default(),
    }
}

pub fn iface(name: &str, ifindex: u32) -> Iface {
    Iface {
        id: Some(ifindex),
        ifindex,
        name: name.to_string(),
        altnames: Vec::new(),
        kind: InterfaceKind::Ethernet,
        mac: "02:00:00:00:00:01".to_string(),
        mtu: 1500,
        speed: Some(1000),
        up: true,
        alias: String::new(),
        addresses: Vec::new(),
        parent: None,
        monitored: true,
        ignored_because: None,
        raw: Counters::ZERO,
        rates: None,
        lifetime: Counters::ZERO,
    }
}

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Now {
        Now { mono_ms: 1_000_000, unix_ms: NOW * 1000 + 500 }
    }
}

fn machine() -> Machine {
    Machine {
        hostname: "router".to_string(),
        os: "Linux 6.6.52 mips".to_string(),
        uptime_s: 1000,
        cpu_count: 2,
        memory_total: 64 << 20,
        memory_available: 16 << 20,
        cpu_busy: 250,
        cpu_total: 1000,
        disk_total: 8 << 20,
        disk_free: 6 << 20,
        rss_bytes: 4 << 20,
        cpu_ms: 1234,
    }
}

struct TestServer {
    context: Arc<Context>,
    http_server: Option<HttpServer>,
    address: SocketAddr,
    /// Removed when the server is dropped.
    directory: PathBuf,
    /// How often the sampler was woken.
    woken: Arc<AtomicU32>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(http_server) = self.http_server.take() {
            http_server.stop();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("net-pulse-http-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

/// Saves a hundred ticks, the newest a minute ago, and returns a reader of them.
fn reader_of_saved_history(directory: &Path) -> Reader {
    let opened = Store::open(&directory.join("net-pulse.db"), &Options { max_bytes: 32 << 20 }).unwrap();
    let mut store = opened.store;
    let record = |(id, name): (u32, &str)| Record {
        id,
        name: name.to_string(),
        kind: InterfaceKind::Ethernet,
        ifindex: id,
        first_seen: NOW - 3600,
        last_seen: NOW,
        ..Record::default()
    };
    let event = Event {
        unix: Some(NOW - 3000),
        mono_ms: 0,
        kind: EventKind::Appeared,
        interface: "eth0".to_string(),
        detail: "plugged in".to_string(),
    };
    let request = SaveRequest {
        batch: &ticks(1, 100, NOW - 60),
        anchors: &[],
        records: &[(2, "eth0"), (3, "=odd, \"one\"")].map(record),
        events: &[event],
        settings: &[("interval".to_string(), Some("30".to_string()))],
        retention: default_settings().retention,
        zone: &Zone::UTC,
    };
    store.save(&request).unwrap();
    store.reader().unwrap()
}

/// `count` ticks of two interfaces, thirty seconds apart, the newest at `until`.
fn ticks(first_seq: u64, count: u64, until: i64) -> Batch {
    let mut batch = Batch::default();
    for at in 0..count {
        for iface in [2, 3] {
            let n = first_seq + at;
            let delta = Counters::of([n * 100, n * 10, n, n, 0, 0, u64::from(iface), 0]);
            batch.samples.push(Sample { iface, quality: SampleQuality::Plain, span_ms: 30_000, delta });
        }
        let ago = (count - 1 - at) as i64 * 30;
        batch.ticks.push(Tick {
            seq: first_seq + at,
            mono_ms: 1_000_000_u64.saturating_sub(ago as u64 * 1000),
            unix: Some(until - ago),
            end: batch.samples.len(),
        });
    }
    batch
}

fn fill_live(live: &Live) {
    let mut state = live.lock();
    let mut eth0 = iface("eth0", 2);
    eth0.altnames = ["enp3s0", "wan/1"].map(str::to_string).to_vec();
    eth0.addresses = vec![
        Address { ifindex: 2, ip: "192.0.2.1".parse().unwrap(), prefix: 24, broadcast: Some([192, 0, 2, 255].into()) },
        Address { ifindex: 2, ip: "fe80::1".parse().unwrap(), prefix: 64, broadcast: None },
    ];
    eth0.raw = Counters::of([u64::MAX, 2000, 30, 40, 1, 2, 3, 4]);
    eth0.rates = Some((1000, 100));
    eth0.lifetime = Counters::of([5000, 6000, 0, 0, 0, 0, 0, 0]);
    let mut odd = iface("=odd, \"one\"", 3);
    odd.kind = InterfaceKind::Vlan;
    odd.up = false;
    odd.speed = None;
    odd.mac = String::new();
    odd.parent = Some("eth0".to_string());
    odd.alias = "Büro".to_string();
    let mut lo = iface("lo", 1);
    lo.id = None;
    lo.kind = InterfaceKind::Loopback;
    lo.monitored = false;
    lo.ignored_because = Some("loopback".to_string());
    let mut gone = iface("wg0", 0);
    gone.id = Some(4);
    gone.kind = InterfaceKind::Vpn;
    gone.monitored = false;
    state.inventory.interfaces = vec![odd, eth0, lo, gone];
    state.inventory.primary = Some("eth0".to_string());
    state.inventory.source = "getstats";
    state.health.clock_trusted = true;
    state.health.polls.total = 12;
    state.health.polls.successful = 11;
    state.health.polls.failed = 1;
    state.health.polls.errors = 1;
    state.health.polls.last = Some(NOW);
    state.health.polls.last_successful = Some(NOW);
    state.health.polls.started_mono_ms = 400_000;
    state.health.polls.sampled_mono_ms = Some(1_000_000);
    state.health.saving.last_saved = Some(NOW - 60);
    state.inventory.ring.next = 3;
    state.inventory.ring.times = [NOW - 2, NOW - 1, NOW].into();
    state.inventory.ring.rates.insert(2, [None, Some((10, 20)), Some((30, 40))].into());
    state.unsaved.add_event(Event {
        unix: None,
        mono_ms: 900_000,
        kind: EventKind::Start,
        interface: String::new(),
        detail: "started".to_string(),
    });
    state.unsaved.add_event(Event {
        unix: Some(NOW - 30),
        mono_ms: 970_000,
        kind: EventKind::Reset,
        interface: "eth0".to_string(),
        detail: "the counters began again".to_string(),
    });
    state.unsaved.batch = ticks(101, 2, NOW);
}

impl TestServer {
    fn new() -> TestServer {
        TestServer::with(|_| {}, machine)
    }

    fn with(change: impl FnOnce(&Live), machine: impl Fn() -> Machine + Send + Sync + 'static) -> TestServer {
        let directory = directory();
        let reader = reader_of_saved_history(&directory);
        TestServer::start(directory, Some(reader), change, machine)
    }

    fn without_store() -> TestServer {
        TestServer::start(directory(), None, |_| {}, machine)
    }

    fn start(
        directory: PathBuf,
        reader: Option<Reader>,
        change: impl FnOnce(&Live),
        machine: impl Fn() -> Machine + Send + Sync + 'static,
    ) -> TestServer {
        let live = Arc::new(idle_live());
        fill_live(&live);
        change(&live);
        let weak = Arc::downgrade(&live);
        let woken = Arc::new(AtomicU32::new(0));
        let count = woken.clone();
        live.set_sampler_waker(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let Some(live) = weak.upgrade() else { return };
            while let Some((ticket, command)) = { live.lock().pending.next_command() } {
                let outcome = match &command {
                    InterfaceCommand::Edit(edit) => {
                        let mut state = live.lock();
                        state.setting_changes(edit).map(|changes| state.change(changes).unwrap())
                    }
                    InterfaceCommand::Forget { .. } => Ok(()),
                };
                live.finish_command(ticket, outcome);
            }
            let mut state = live.lock();
            state.pending.collected.interfaces = 2;
            let State { unsaved, pending, .. } = &mut *state;
            for tickets in [&mut unsaved.save_tickets, &mut pending.collect, &mut pending.refresh] {
                tickets.serve(tickets.newest());
            }
        });
        let context = Arc::new(Context {
            live: live.clone(),
            history: History::new(live.clone(), reader),
            backup_thread: DiskThread::named("copy"),
            clock: Arc::new(FixedClock),
            database: PathBuf::from("/var/lib/net-pulse/net-pulse.db"),
            machine: Arc::new(machine),
            find_zone: Arc::new(|name| Ok(Zone::find(Some(name), None, |_| None)?.zone)),
            listen_addresses: Vec::new(),
            auth: Auth::new(PathBuf::new(), None, false, false),
            server_state: Default::default(),
        });
        let listeners = bind(&["127.0.0.1".to_string()], 0).unwrap().listeners;
        let address = listeners[0].local_addr().unwrap();
        let http_server = Some(serve(context.clone(), listeners, vec!["x".to_string()]).unwrap());
        TestServer { context, http_server, address, directory, woken }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends the bytes of one request on a new connection.
    fn raw(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Reply::parse(&bytes)
    }

    fn send(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Reply {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n").into_bytes();
        request.extend_from_slice(body);
        self.raw(&request)
    }

    fn get(&self, target: &str) -> Reply {
        self.send("GET", target, "", b"")
    }

    fn put(&self, target: &str, body: &str) -> Reply {
        self.send("PUT", target, "Content-Type: application/json\r\n", body.as_bytes())
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    /// Whether the body is chunked and its last chunk is missing.
    truncated: bool,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Reply {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(headers.insert(name.to_ascii_lowercase(), value.to_string()).is_none(), "{name} twice");
        }
        let mut rest = &bytes[end + 4..];
        let mut reply = Reply { status, headers, body: Vec::new(), truncated: false };
        if reply.header("transfer-encoding") != Some("chunked") {
            reply.body = rest.to_vec();
            return reply;
        }
        while !rest.is_empty() {
            let line = rest.windows(2).position(|two| two == b"\r\n").unwrap();
            let Ok(length) = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16) else { break };
            reply.body.extend_from_slice(&rest[line + 2..line + 2 + length]);
            rest = &rest[line + 2 + length + 2..];
            if length == 0 {
                assert!(rest.is_empty());
                return reply;
            }
        }
        reply.truncated = true;
        reply
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_string()
    }

    /// `loc: msg (input)` of each error.
    fn flaws(&self) -> Vec<String> {
        assert_eq!(self.status, 422);
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let flaw = |flaw: &Value| {
            let location: Vec<String> = flaw["loc"].as_array().unwrap().iter().map(text).collect();
            format!("{}: {} ({})", location.join("."), text(&flaw["msg"]), text(&flaw["input"]))
        };
        self.json()["detail"].as_array().unwrap().iter().map(flaw).collect()
    }
}

/// The OpenAPI document, as a client gets it.
fn document() -> Value {
    TestServer::new().get("/openapi.json").json()
}

/// Errors of a value against a schema, in the subset of JSON Schema that the document uses. Members that the schema
/// does not name are errors.
fn schema_errors(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere"));
        return schema_errors(document, target, value, at);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let all: Vec<_> = choices.iter().map(|choice| schema_errors(document, choice, value, at)).collect();
        return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
    }
    if let Some(words) = schema["enum"].as_array() {
        return if words.contains(value) { Vec::new() } else { vec![format!("{at}: {value} is not an allowed word")] };
    }
    let mut found = Vec::new();
    let has_type = match schema["type"].as_str().expect("a type") {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                found.extend(schema_errors(document, &schema["items"], item, &format!("{at}[{index}]")));
            }
            value.is_array()
        }
        "object" => {
            for name in schema["required"].as_array().into_iter().flatten() {
                if value.get(name.as_str().unwrap()).is_none() {
                    found.push(format!("{at}.{name} is missing"));
                }
            }
            for (name, member) in value.as_object().into_iter().flatten() {
                let inner = match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Null) => {
                        found.push(format!("{at}.{name} is not described"));
                        continue;
                    }
                    (Value::Null, inner) | (inner, _) => inner,
                };
                found.extend(schema_errors(document, inner, member, &format!("{at}.{name}")));
            }
            value.is_object()
        }
        other => panic!("type {other}"),
    };
    if !has_type {
        found.push(format!("{at}: {value} is no {}", schema["type"]));
    }
    if schema["minimum"].as_f64().zip(value.as_f64()).is_some_and(|(low, value)| value < low) {
        found.push(format!("{at}: {value} is too small"));
    }
    if schema["format"] == "date-time" && !value.as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 20) {
        found.push(format!("{at}: {value} is no time"));
    }
    found
}

/// Replaces values that differ between machines.
fn mask_variable_parts(name: &str, body: &mut Value) {
    if name == "system_health" {
        body["details"]["database"]["database_size_bytes"] = json!(0);
    }
}

/// Checks that the document describes the answer.
fn check_documented(document: &Value, method: &str, path: &str, reply: &Reply) {
    let responses = &document["paths"][path][method.to_ascii_lowercase()]["responses"];
    let mut response = &responses[reply.status.to_string()];
    assert!(response.is_object(), "{method} {path}: {} is not documented", reply.status);
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(&reference[1..]).unwrap();
    }
    let media = reply.header("content-type").unwrap().split(';').next().unwrap();
    let schema = &response["content"][media]["schema"];
    assert!(schema.is_object(), "{method} {path}: {media} is not documented");
    if media == "application/json" && path != "/openapi.json" {
        let found = schema_errors(document, schema, &reply.json(), "");
        assert!(found.is_empty(), "{method} {path}: {found:#?}");
    }
}

fn golden(name: &str, reply: &Reply) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let mut body = match reply.header("content-type") {
        Some(media) if media.starts_with("application/json") => reply.json(),
        _ => Value::String(String::from_utf8_lossy(&reply.body).into_owned()),
    };
    mask_variable_parts(name.trim_end_matches(".json"), &mut body);
    let mut headers = reply.headers.clone();
    // The length changes with every word of the body, and the body itself is compared.
    headers.remove("content-length");
    let mut got = serde_json::to_string_pretty(&json!({"status": reply.status, "headers": headers, "body": body}))
        .unwrap()
        .replace(env!("CARGO_PKG_VERSION"), "VERSION");
    got.push('\n');
    // `UPDATE_GOLDEN` is 1 for all files, or the beginning of file names.
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|which| which == "1" || name.starts_with(&which)) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &got).unwrap();
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        got == expect,
        "{name} differs from its golden file; UPDATE_GOLDEN=1 renews it\n--- golden\n{expect}\n--- now\n{got}"
    );
}

/// Golden file, method, path in the route table, target, body.
#[rustfmt::skip]
const REQUESTS: [(&str, &str, &str, &str, &str); 53] = [
    ("root", "GET", "/", "/", ""),
    ("health", "GET", "/health", "/health", ""),
    ("collector_status", "GET", "/collector/status", "/collector/status", ""),
    ("collector_start", "POST", "/collector/start", "/collector/start", ""),
    ("collector_stop", "POST", "/collector/stop", "/collector/stop", ""),
    ("collector_collect", "POST", "/collector/collect", "/collector/collect", ""),
    ("interfaces", "GET", "/api/interfaces", "/api/interfaces", ""),
    ("interface", "GET", "/api/interfaces/{name}", "/api/interfaces/eth0", ""),
    ("interface_odd", "GET", "/api/interfaces/{name}", "/api/interfaces/%3Dodd%2C%20%22one%22", ""),
    ("interface_patch", "PATCH", "/api/interfaces/{name}", "/api/interfaces/eth0", r#"{"alias":"Internet","monitored":true,"primary":true}"#),
    ("interface_forget", "DELETE", "/api/interfaces/{name}", "/api/interfaces/wg0", ""),
    ("interface_stats", "GET", "/api/interfaces/{name}/stats", "/api/interfaces/eth0/stats", ""),
    ("history", "GET", "/api/traffic/history", "/api/traffic/history?limit=5", ""),
    ("history_filtered", "GET", "/api/traffic/history", "/api/traffic/history?interface_name=eth0&start_time=2026-01-15T10:30:00Z&end_time=2026-01-15T11:30:00%2B01:00&limit=1&unknown=1", ""),
    ("history_offset", "GET", "/api/traffic/history", "/api/traffic/history?offset=3&limit=2", ""),
    ("history_of_unknown", "GET", "/api/traffic/history", "/api/traffic/history?interface_name=nope", ""),
    ("latest", "GET", "/api/traffic/latest", "/api/traffic/latest?limit=1", ""),
    ("summary", "GET", "/api/traffic/summary", "/api/traffic/summary", ""),
    ("live", "GET", "/api/traffic/live", "/api/traffic/live?since=1", ""),
    ("series", "GET", "/api/traffic/series", "/api/traffic/series?points=12&from=2026-01-15T08:30:00Z&to=2026-01-15T10:30:00Z&interface=eth0&interface=wg0&interface=eth0", ""),
    ("series_of_primary", "GET", "/api/traffic/series", "/api/traffic/series?points=2", ""),
    ("series_of_unknown", "GET", "/api/traffic/series", "/api/traffic/series?interface=nope", ""),
    ("totals", "GET", "/api/traffic/totals", "/api/traffic/totals", ""),
    ("totals_hours", "GET", "/api/traffic/totals", "/api/traffic/totals?by=hour&interface=eth0&from=1970-01-01&limit=2", ""),
    ("totals_of_unknown", "GET", "/api/traffic/totals", "/api/traffic/totals?interface=nope", ""),
    ("config", "GET", "/api/config", "/api/config", ""),
    ("config_patch", "PATCH", "/api/config", "/api/config", r#"{"interval":7,"prefixes":"iec","timezone":"<+0530>-5:30"}"#),
    ("config_interfaces", "GET", "/api/config/interfaces", "/api/config/interfaces", ""),
    ("config_interfaces_put", "PUT", "/api/config/interfaces", "/api/config/interfaces", r#"{"interfaces":["eth0","lo","eth0"]}"#),
    ("config_interfaces_all", "PUT", "/api/config/interfaces", "/api/config/interfaces", r#"{"interfaces":[]}"#),
    ("config_interval", "GET", "/api/config/collection-interval", "/api/config/collection-interval", ""),
    ("config_interval_put", "PUT", "/api/config/collection-interval", "/api/config/collection-interval", r#"{"collection_interval":10}"#),
    ("config_retries", "GET", "/api/config/max-retries", "/api/config/max-retries", ""),
    ("config_retries_put", "PUT", "/api/config/max-retries", "/api/config/max-retries", r#"{"max_retries":100}"#),
    ("config_delay", "GET", "/api/config/retry-delay", "/api/config/retry-delay", ""),
    ("config_delay_put", "PUT", "/api/config/retry-delay", "/api/config/retry-delay", r#"{"retry_delay":0.25}"#),
    ("system_info", "GET", "/api/system/info", "/api/system/info", ""),
    ("system_health", "GET", "/api/system/health", "/api/system/health", ""),
    ("system_metrics", "GET", "/api/system/metrics", "/api/system/metrics", ""),
    ("export_json", "GET", "/api/export/traffic", "/api/export/traffic?limit=3", ""),
    ("export_csv", "GET", "/api/export/traffic", "/api/export/traffic?format=csv&start_time=2026-01-15T10:29:00Z", ""),
    ("export_csv_hours", "GET", "/api/export/traffic", "/api/export/traffic?format=csv&resolution=hour", ""),
    ("export_json_days", "GET", "/api/export/traffic", "/api/export/traffic?resolution=day", ""),
    ("export_csv_cells", "GET", "/api/export/traffic", "/api/export/traffic?format=csv&resolution=5min&interface_name=eth0&start_time=2026-01-15T10:20:00Z", ""),
    ("export_csv_spreadsheet", "GET", "/api/export/traffic", "/api/export/traffic?format=csv&resolution=hour&bom=1&separator=;&time=local", ""),
    ("export_csv_local", "GET", "/api/export/traffic", "/api/export/traffic?format=csv&limit=2&time=local", ""),
    ("export_of_unknown", "GET", "/api/export/traffic", "/api/export/traffic?interface_name=nope", ""),
    ("events", "GET", "/api/events", "/api/events", ""),
    ("events_offset", "GET", "/api/events", "/api/events?limit=1&offset=1", ""),
    ("events_filtered", "GET", "/api/events", "/api/events?kind=reset&interface=eth0&from=2026-01-15&to=2026-01-16T00:00:00Z", ""),
    ("backup", "POST", "/api/backup", "/api/backup", ""),
    ("openapi_paths", "GET", "/openapi.json", "/openapi.json", ""),
    ("missing_interface", "GET", "/api/interfaces/{name}", "/api/interfaces/nope", ""),
];

#[test]
fn every_route_answers_as_documented() {
    let document = document();
    for (name, method, path, target, body) in REQUESTS {
        // A new server for each: some requests change settings.
        let server = TestServer::new();
        let reply = server.send(method, target, "", body.as_bytes());
        check_documented(&document, method, path, &reply);
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{target}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{target}");
        if !["openapi_paths", "backup"].contains(&name) {
            golden(&format!("{name}.json"), &reply);
        }
        if method == "GET" {
            let head = server.send("HEAD", target, "", b"");
            assert_eq!((head.status, head.body.len()), (reply.status, 0), "HEAD {target}");
            assert_eq!(head.header("content-type"), reply.header("content-type"), "HEAD {target}");
        }
    }
    for Route { method, path, .. } in ROUTES {
        assert!(
            REQUESTS.iter().any(|case| (case.1, case.2) == (*method, *path)),
            "{method} {path} has no request in REQUESTS"
        );
    }
}

#[test]
fn every_path_lists_its_methods() {
    let server = TestServer::new();
    for route in ROUTES {
        let target = route.path.replace("{name}", "eth0");
        let mut expect: Vec<&str> =
            ROUTES.iter().filter(|other| other.path == route.path).map(|other| other.method).collect();
        if expect.contains(&"GET") {
            expect.push("HEAD");
        }
        expect.push("OPTIONS");
        let expect = expect.join(", ");
        let reply = server.send("OPTIONS", &target, "", b"");
        assert_eq!((reply.status, reply.header("allow")), (204, Some(expect.as_str())), "{target}");
        assert_eq!((reply.header("content-length"), reply.body.len()), (None, 0));
        for method in ["DELETE", "TRACE", "BREW", "get"] {
            if expect.split(", ").any(|known| known == method) {
                continue;
            }
            let reply = server.send(method, &target, "", b"");
            assert_eq!((reply.status, reply.header("allow")), (405, Some(expect.as_str())), "{method} {target}");
            assert_eq!(reply.json(), json!({"detail": "Method Not Allowed"}));
        }
    }
    assert_eq!(server.send("PUT", "/style.css", "", b"").header("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(server.send("OPTIONS", "/nowhere", "", b"").status, 404);
}

#[test]
fn unknown_paths_are_404() {
    let server = TestServer::new();
    for target in
        ["/nope", "/health/", "//", "/api", "/api/interfaces/", "/%ff", "/%", "/..%2f..%2fetc%2fpasswd", "/a%00"]
    {
        let reply = server.get(target);
        assert_eq!((reply.status, reply.json()), (404, json!({"detail": "Not Found"})), "{target}");
    }
    assert_eq!(server.get("/api/interfaces/%ff").detail(), "Not Found");
    assert_eq!(server.get("/api/interfaces/no%0d%0ape").detail(), "Interface 'no\r\npe' not found");
    // wg0 has a history, but no link and so no counters.
    assert_eq!(server.get("/api/interfaces/wg0").status, 200);
    assert_eq!(server.get("/api/interfaces/wg0/stats").detail(), "Interface 'wg0' not found");
}

#[test]
fn all_errors_of_a_request_are_reported_at_once() {
    let server = TestServer::new();
    let document = document();
    let reply = server.get("/api/traffic/history?limit=0&offset=-1&start_time=yesterday&interface_name=%ff");
    check_documented(&document, "GET", "/api/traffic/history", &reply);
    assert_eq!(
        reply.flaws(),
        [
            "query.interface_name: must be UTF-8 (\u{fffd})",
            "query.start_time: must be a time from 1970 to 9999: 2026-01-15T10:30:00Z, 2026-01-15, or Unix seconds or milliseconds (yesterday)",
            "query.limit: must be a whole number from 1 to 1000 (0)",
            "query.offset: must be a whole number, 0 or more (-1)",
        ]
    );
    assert_eq!(
        serde_json::to_value(reply.json()["detail"][2].clone()).unwrap(),
        json!({"loc": ["query", "limit"], "msg": "must be a whole number from 1 to 1000", "input": "0"})
    );
    for target in [
        "/api/traffic/history?limit=1001",
        "/api/traffic/latest?limit=101",
        "/api/traffic/latest?limit=",
        "/api/export/traffic?format=xml",
        "/api/export/traffic?resolution=minute",
        "/api/export/traffic?limit=0",
        "/api/traffic/series?points=721",
        "/api/traffic/totals?by=decade",
        "/api/traffic/totals?by=cycle",
        "/api/traffic/live?since=-1",
        "/api/events?limit=1001",
    ] {
        assert_eq!(server.get(target).flaws().len(), 1, "{target}");
    }
    let query = "interface=eth0&".repeat(33);
    let flaws = server.get(&format!("/api/traffic/series?{query}")).flaws();
    assert_eq!(flaws, ["query.interface: must be a list of at most 32 texts (33 of them)"]);
}

#[test]
fn invalid_bodies_are_refused() {
    let server = TestServer::new();
    let document = document();
    let deep = "[".repeat(16_000);
    for (path, member) in [
        ("/api/config/collection-interval", "collection_interval"),
        ("/api/config/max-retries", "max_retries"),
        ("/api/config/retry-delay", "retry_delay"),
        ("/api/config/interfaces", "interfaces"),
    ] {
        for value in
            ["0", "-1", "true", "null", "\"10\"", "1e99", "1e999", "NaN", "{}", "[1]", "99999999999999999999", &deep]
        {
            let reply = server.put(path, &format!("{{\"{member}\":{value}}}"));
            check_documented(&document, "PUT", path, &reply);
            let flaws = reply.flaws();
            assert_eq!(flaws.len(), 1, "{path} {value}");
            assert!(flaws[0].starts_with(&format!("body.{member}: ")), "{flaws:?}");
        }
        for body in ["", "{}", "[]", "10", "{", "\u{0}"] {
            assert_eq!(server.put(path, body).flaws().len(), 1, "{path} {body}");
        }
        assert_eq!(server.send("PUT", path, "", b"{\"\xff\":1}").flaws().len(), 1);
        let reply = server.send("PUT", path, "", &vec![b' '; 65 * 1024]);
        assert_eq!(reply.status, 413);
        check_documented(&document, "PUT", path, &reply);
    }
    let state = server.context.live.lock();
    assert_eq!(state.active, default_settings());
    assert!(state.unsaved.settings.is_empty());
}

#[test]
fn the_gate_refuses_chunked_and_large_bodies() {
    let server = TestServer::new();
    for (headers, status) in [
        ("Transfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 65537\r\n", 413),
        ("Content-Length: 9000000000000000000\r\n", 413),
        ("Content-Length: 18446744073709551615\r\n", 413),
    ] {
        let request = format!("PUT /api/config/max-retries HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let reply = server.raw(request.as_bytes());
        assert_eq!(reply.status, status, "{headers}");
        assert!(!reply.detail().is_empty());
    }
}

#[test]
fn only_own_host_names_and_own_pages_are_accepted() {
    let server = TestServer::new();
    let ask = |method: &str, headers: &str| {
        server.raw(format!("{method} /health HTTP/1.1\r\n{headers}\r\n").as_bytes()).status
    };
    assert_eq!(ask("GET", "Host: x:8000\r\n"), 200);
    assert_eq!(ask("GET", "Host: 192.0.2.1\r\n"), 200);
    assert_eq!(ask("GET", "Host: evil.example\r\n"), 421);
    assert_eq!(ask("GET", "Host: x\r\nOrigin: http://evil.example\r\n"), 200);
    assert_eq!(ask("POST", "Host: x\r\nOrigin: http://evil.example\r\n"), 403);
    assert_eq!(ask("POST", "Host: x\r\nOrigin: http://x\r\n"), 405);
    assert_eq!(ask("GET", ""), 400);
}

#[test]
fn statuses_of_the_gate_are_documented_for_every_route() {
    let (server, document) = (TestServer::new(), document());
    let long = "a".repeat(9000);
    for Route { method, path, .. } in ROUTES {
        let target = path.replace("{name}", "eth0");
        for (request, status) in [
            (format!("{method} {target} HTTP/1.1\r\n\r\n"), 400),
            (format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 16385\r\n\r\n"), 413),
            (format!("{method} {target}?{long}"), 414),
            (format!("{method} {target} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n"), 417),
            (format!("{method} {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 421),
            (format!("{method} {target} HTTP/1.1\r\nHost: x\r\nX: {long}"), 431),
        ] {
            let reply = server.raw(request.as_bytes());
            assert_eq!(reply.status, status, "{method} {path}");
            check_documented(&document, method, path, &reply);
        }
        let responses = &document["paths"][path][method.to_ascii_lowercase()]["responses"];
        for status in gate::STATUSES {
            let documented = responses[status.to_string()].is_object();
            assert_eq!(documented, status != 403 || *method != "GET", "{method} {path}: {status}");
        }
    }
}

/// Old monitoring tools send no Host. The headers of browsers and proxies are still checked.
#[test]
fn e47_http_1_0_requests_need_no_host() {
    let server = TestServer::new();
    let ask =
        |request: &str, headers: &str| server.raw(format!("{request} HTTP/1.0\r\n{headers}\r\n").as_bytes()).status;
    let plain = server.raw(b"GET /health HTTP/1.0\r\n\r\n");
    assert_eq!((plain.status, plain.json()), (200, json!({"status": "healthy"})));
    assert_eq!(ask("HEAD /health", ""), 200);
    // Reading is allowed. A change needs the token: an old proxy also forwards other clients' requests as HTTP/1.0.
    assert_eq!(ask("POST /collector/stop", ""), 401);
    assert_eq!(ask("GET /health", "Host: x\r\n"), 200);
    assert_eq!(ask("GET /health", "Host: evil.example\r\n"), 421);
    assert_eq!(ask("GET /health", "Host:\r\n"), 421);
    assert_eq!(ask("GET /health", "Origin: http://evil.example\r\n"), 400);
    assert_eq!(ask("GET /health", "Via: 1.0 proxy\r\n"), 400);
    assert_eq!(ask("POST /collector/stop", "X-Forwarded-For: 10.0.0.1\r\n"), 400);
    assert!(server.context.live.lock().active.running);
}

#[test]
fn settings_take_effect_and_are_saved() {
    let server = TestServer::new();
    assert_eq!(server.put("/api/config/collection-interval", r#"{"collection_interval":7}"#).status, 200);
    assert_eq!(server.put("/api/config/max-retries", r#"{"max_retries":9}"#).status, 200);
    assert_eq!(server.put("/api/config/retry-delay", r#"{"retry_delay":2}"#).status, 200);
    assert_eq!(server.put("/api/config/interfaces", r#"{"interfaces":["lo","eth0"]}"#).status, 200);
    assert_eq!(server.send("POST", "/collector/stop", "", b"").json()["status"], "stopped");
    {
        let state = server.context.live.lock();
        let active = &state.active;
        assert_eq!((active.interval_s, active.max_retries, active.retry_delay_ms), (7, 9, 2000));
        assert_eq!((active.interfaces.join(" ").as_str(), active.running), ("lo eth0", false));
        let saved: Vec<_> =
            state.unsaved.settings.iter().map(|(key, text)| (key.as_str(), text.as_deref().unwrap())).collect();
        let expect = [
            ("interval", "7"),
            ("max_retries", "9"),
            ("retry_delay", "2.0"),
            ("interfaces", "lo,eth0"),
            ("running", "false"),
        ];
        assert_eq!(saved, expect);
    }
    let config = server.get("/collector/status").json()["configuration"].clone();
    assert_eq!(config["monitored_interfaces"], "lo,eth0");
    assert_eq!(
        (&config["polling_interval"], &config["max_retries"], &config["retry_delay"]),
        (&json!("7"), &json!("9"), &json!("2.0"))
    );
    // A second stop is no error.
    assert_eq!(server.send("POST", "/collector/stop", "", b"").json()["message"], "Collector is already stopped");
    assert_eq!(server.send("POST", "/collector/start", "", b"").json()["message"], "Collector started");
    assert_eq!(server.put("/api/config/interfaces", r#"{"interfaces":[]}"#).status, 200);
    let state = server.context.live.lock();
    assert!(
        state.unsaved.settings.contains(&("interfaces".to_string(), None)),
        "an empty list is the default, which is not saved"
    );
}

#[test]
fn unknown_interfaces_are_refused() {
    let server = TestServer::with(|live| live.lock().inventory.interfaces.push(iface("a,b", 9)), machine);
    let reply = server.put("/api/config/interfaces", r#"{"interfaces":["eth0","nope","no\r\npe","nope"]}"#);
    assert_eq!((reply.status, reply.detail().as_str()), (400, "Invalid interfaces: nope, no\r\npe"));
    assert_eq!(server.put("/api/config/interfaces", r#"{"interfaces":["nope"]}"#).detail(), "Invalid interfaces: nope");
    // In the saved list, the comma would separate two names.
    assert_eq!(server.put("/api/config/interfaces", r#"{"interfaces":["a,b"]}"#).status, 400);
    assert!(server.context.live.lock().unsaved.settings.is_empty());
}

#[test]
fn settings_that_a_flag_or_variable_fixes_cannot_be_changed() {
    let document = document();
    for (owner, value, method, path, body) in [
        ("NETPULSE_INTERVAL", "30", "PUT", "/api/config/collection-interval", r#"{"collection_interval":7}"#),
        ("NETPULSE_MAX_RETRIES", "3", "PUT", "/api/config/max-retries", r#"{"max_retries":7}"#),
        ("NETPULSE_RETRY_DELAY", "1", "PUT", "/api/config/retry-delay", r#"{"retry_delay":7}"#),
        ("NETPULSE_INTERFACE", "eth0", "PUT", "/api/config/interfaces", r#"{"interfaces":[]}"#),
        ("NETPULSE_MEDIA", "disk", "PATCH", "/api/config", r#"{"interval":7,"media":"disk"}"#),
        ("NETPULSE_MEDIA", "disk", "PATCH", "/api/config", r#"{"interval":7,"flush":7}"#),
        ("NETPULSE_TIMEZONE", "UTC", "PATCH", "/api/config", r#"{"interval":7,"timezone":null}"#),
    ] {
        let config = Config::new(&[], |name| (name == owner).then(|| value.to_string())).unwrap();
        let before = ActiveSettings::of(&config);
        let server = TestServer::with(|live| live.lock().config = config, machine);
        let reply = server.send(method, path, "", body.as_bytes());
        assert_eq!(reply.status, 409, "{path}");
        assert!(reply.detail().contains(&format!("can only be set by {owner}")), "{}", reply.detail());
        check_documented(&document, method, path, &reply);
        let state = server.context.live.lock();
        assert_eq!(ActiveSettings::of(&state.config), before);
        assert!(state.unsaved.settings.is_empty());
    }
}

#[test]
fn several_settings_change_in_one_request() {
    let server = TestServer::new();
    let document = document();
    let patch = |body: &str| server.send("PATCH", "/api/config", "", body.as_bytes());
    let all = server.get("/api/config");
    let keys: Vec<String> =
        serde_json::from_slice::<Value>(&all.body).unwrap()["settings"].as_object().unwrap().keys().cloned().collect();
    // serde_json sorts the members that it reads, so the order is checked in the bytes.
    let text = String::from_utf8(all.body.clone()).unwrap();
    let positions: Vec<_> =
        SETTINGS.iter().filter_map(|setting| text.find(&format!("\"{}\":{{", setting.key))).collect();
    assert!(positions.is_sorted() && positions.len() == keys.len(), "{keys:?}");
    assert!(!keys.contains(&"primary_found".to_string()));

    let reply = patch(
        r#"{"interval":10.0,"media":"flash","retry_delay":2,"ignore":["a*"," b "],"timezone":"CET-1CEST,M3.5.0,M10.5.0/3",
        "keep_samples_days":1,"units":"bytes","running":false,"primary":"wg0"}"#,
    );
    check_documented(&document, "PATCH", "/api/config", &reply);
    let body = reply.json();
    assert_eq!((reply.status, &body["saved"]), (200, &json!(true)));
    let value = |key: &str| body["settings"][key]["value"].clone();
    for (key, expect) in [
        ("interval", json!(10)),
        ("media", json!("flash")),
        ("flush", json!(3600)),
        ("retry_delay", json!(2.0)),
        ("ignore", json!(["a*", "b"])),
        ("keep_samples_days", json!(1)),
        ("units", json!("bytes")),
        ("running", json!(false)),
        ("max_size", json!(32 << 20)),
        ("host", json!([])),
        ("database", json!("")),
    ] {
        assert_eq!(value(key), expect, "{key}");
    }
    assert_eq!(
        (&body["settings"]["interval"]["origin"], &body["settings"]["port"]["origin"]),
        (&json!("saved"), &json!("default"))
    );
    {
        let state = server.context.live.lock();
        assert_eq!((state.active.interval_s, state.active.flush_s, state.active.running), (10, 3600, false));
        assert_eq!(
            [Resolution::Sample, Resolution::Hour].map(|resolution| state.active.retention.days(resolution)),
            [1, 1826]
        );
        assert_eq!(state.active.ignored, ["a*", "b"]);
        assert_eq!(state.zone.offset_at(NOW), 3600);
        assert!(state.unsaved.settings.contains(&("ignore".to_string(), Some("a*,b".to_string()))));
    }
    let back = patch(r#"{"interval":null,"ignore":[],"timezone":"","primary":null,"running":null}"#).json();
    assert_eq!(back["settings"]["interval"]["value"], 30);
    assert_eq!(back["settings"]["ignore"]["origin"], "default");
    let state = server.context.live.lock();
    assert!(state.unsaved.settings.contains(&("ignore".to_string(), None)), "{:?}", state.unsaved.settings);
    assert!(state.unsaved.settings.contains(&("timezone".to_string(), None)));
    assert_eq!((state.zone.offset_at(NOW), state.active.interval_s, state.active.running), (0, 30, true));
}

#[test]
fn an_invalid_change_reports_all_errors_and_changes_nothing() {
    let server = TestServer::new();
    let document = document();
    let patch = |body: &str| server.send("PATCH", "/api/config", "", body.as_bytes());
    let reply = patch(
        r#"{"interval":0,"media":"paper","timezone":"Nowhere/At all","ignore":["a,b"],"keep_5min_days":0,"running":1,
        "units":null,"port":80,"primary_found":"x","retry_delay":1e999}"#,
    );
    assert_eq!(reply.flaws().len(), 1, "no JSON: {:?}", reply.flaws());
    let reply = patch(
        r#"{"interval":0,"media":"paper","timezone":"Nowhere/At all","ignore":["a,b"],"keep_5min_days":0,"running":1,
        "units":null,"port":80,"primary_found":"x","retry_delay":"1","primary":"a\nb"}"#,
    );
    check_documented(&document, "PATCH", "/api/config", &reply);
    let flaws = reply.flaws();
    for (key, part) in [
        ("interval", "from 1 to 3600"),
        ("media", "one of disk, flash"),
        ("timezone", "a time zone"),
        ("ignore", "a list"),
        ("keep_5min_days", "from 1 to 3660"),
        ("running", "true or false"),
        ("primary_found", "can be changed"),
        ("retry_delay", "from 0.1 to 300"),
        ("primary", "on one line"),
    ] {
        let reported = flaws.iter().any(|flaw| flaw.starts_with(&format!("body.{key}: ")) && flaw.contains(part));
        assert!(reported, "{key}: {flaws:?}");
    }
    assert_eq!(flaws.len(), 9);
    // These settings exist but cannot change at run time. The daemon does not check their values.
    for (key, value, flag) in [("port", "1", "--port"), ("host", "null", "--host"), ("max_size", "[]", "--max-size")] {
        let reply = patch(&format!(r#"{{"interval":5,"{key}":{value}}}"#));
        check_documented(&document, "PATCH", "/api/config", &reply);
        assert_eq!((reply.status, reply.detail().contains(flag)), (409, true), "{key}: {}", reply.detail());
    }
    let schema = &document["paths"]["/api/config"]["patch"]["requestBody"]["content"]["application/json"]["schema"];
    assert!(schema["properties"]["port"].is_null(), "the schema has only settings that can be changed");
    // The last two are out of range, although rounding would bring them into it.
    for body in ["", "[]", "null", "{", "7", r#"{"retry_delay":300.0004}"#, r#"{"retry_delay":0.0996}"#] {
        assert_eq!(patch(body).flaws().len(), 1, "{body}");
    }
    let state = server.context.live.lock();
    assert_eq!(state.active, default_settings());
    assert!(state.unsaved.settings.is_empty());
    drop(state);
    // An empty change writes nothing.
    assert_eq!(patch("{}").json()["saved"], true);
    assert_eq!(server.context.live.lock().unsaved.save_tickets.newest(), 0);
}

#[test]
fn events_are_filtered_by_kind_interface_and_time() {
    let server = TestServer::new();
    let kinds = |query: &str| {
        let body = server.get(&format!("/api/events?{query}")).json();
        body.as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(""), ["reset", "start", "appeared"]);
    assert_eq!(kinds("kind=reset"), ["reset"]);
    assert_eq!(kinds("kind=reset&kind=appeared&kind=gap"), ["reset", "appeared"]);
    assert_eq!(kinds("kind=reset&kind=appeared&offset=1"), ["appeared"]);
    assert_eq!(kinds("kind=reset&kind=appeared&limit=1"), ["reset"]);
    assert_eq!(kinds("interface=eth0"), ["reset", "appeared"]);
    assert_eq!(kinds("interface=nope"), [""; 0]);
    // Events without a time are in no range.
    assert_eq!(kinds(&format!("from={}", NOW - 3000)), ["reset", "appeared"]);
    assert_eq!(kinds(&format!("from={}", NOW - 2999)), ["reset"]);
    assert_eq!(kinds(&format!("to={}", NOW - 30)), ["appeared"]);
    assert_eq!(kinds(&format!("from={}&to={}", NOW - 30, NOW - 29)), ["reset"]);
    assert_eq!(server.get("/api/events?kind=reset&kind=holiday").flaws().len(), 1);
}

/// Events that the writer is saving stay in memory until it knows that they are on disk.
#[test]
fn events_are_complete_during_a_save() {
    let event = |detail: &str, unix: i64| Event {
        unix: Some(unix),
        mono_ms: 0,
        kind: EventKind::Gap,
        interface: "eth0".to_string(),
        detail: detail.to_string(),
    };
    // Two equal events within a second, then others.
    let stored = ["a", "b", "b", "c", "d"].map(|detail| event(detail, NOW - 900));
    let directory = directory();
    let mut store = Store::open(&directory.join("net-pulse.db"), &Options { max_bytes: 32 << 20 }).unwrap().store;
    let (retention, batch) = (default_settings().retention, Batch::default());
    let request = SaveRequest {
        batch: &batch,
        anchors: &[],
        records: &[],
        events: &stored,
        settings: &[],
        retention,
        zone: &Zone::UTC,
    };
    store.save(&request).unwrap();
    let server = TestServer::start(directory, Some(store.reader().unwrap()), |_| {}, machine);
    let details = |query: &str| -> Vec<String> {
        let body = server.get(&format!("/api/events?kind=gap&{query}")).json();
        body.as_array().unwrap().iter().map(|it| it["detail"].as_str().unwrap().to_string()).collect()
    };
    let all = ["f", "e", "d", "c", "b", "b", "a"];
    // Memory still has the last `in_memory` of the stored events, and newer ones after them.
    for in_memory in 0..=stored.len() {
        let mut held: Vec<Event> = stored[stored.len() - in_memory..].to_vec();
        held.extend([event("e", NOW - 60), event("f", NOW - 30)]);
        server.context.live.lock().unsaved.events = held.into();
        for limit in 1..=all.len() {
            for offset in 0..=all.len() {
                let expect: Vec<&str> = all.iter().skip(offset).take(limit).copied().collect();
                assert_eq!(details(&format!("limit={limit}&offset={offset}")), expect, "{in_memory} {limit} {offset}");
            }
        }
    }
}

#[test]
fn monitored_and_primary_are_saved_as_settings() {
    let server = TestServer::new();
    let document = document();
    let patch = |name: &str, body: &str| {
        let reply = server.send("PATCH", &format!("/api/interfaces/{name}"), "", body.as_bytes());
        check_documented(&document, "PATCH", "/api/interfaces/{name}", &reply);
        reply
    };
    let ignored = || server.context.live.lock().active.ignored.join(" ");
    for (name, body, expect) in [
        ("lo", r#"{"monitored":true}"#, "!lo"),
        ("eth0", r#"{"monitored":false}"#, "!lo eth0"),
        ("eth0", r#"{"monitored":true}"#, "!lo !eth0"),
        ("eth0", r#"{"monitored":null}"#, "!lo"),
        ("lo", r#"{"monitored":null}"#, ""),
    ] {
        assert_eq!((patch(name, body).status, ignored().as_str()), (200, expect), "{name} {body}");
    }
    // A PUT of the list of interfaces removes entries of `ignore` that would override it.
    patch("lo", r#"{"monitored":true}"#);
    patch("eth0", r#"{"monitored":false}"#);
    assert_eq!(server.put("/api/config/interfaces", r#"{"interfaces":["eth0"]}"#).status, 200);
    assert_eq!(ignored(), "");

    assert_eq!(patch("eth0", r#"{"primary":true}"#).json()["saved"], true);
    assert_eq!(server.context.live.lock().active.primary, "eth0");
    patch("lo", r#"{"primary":false}"#);
    assert_eq!(server.context.live.lock().active.primary, "eth0", "another interface was the primary one");
    patch("eth0", r#"{"primary":false}"#);
    assert_eq!(server.context.live.lock().active.primary, "");

    // The chosen primary interface is monitored, and an entry of `ignore` against it is removed.
    patch("eth0", r#"{"monitored":false}"#);
    assert_eq!(patch("eth0", r#"{"primary":true,"monitored":false}"#).status, 409);
    assert_eq!((patch("eth0", r#"{"primary":true}"#).status, ignored().as_str()), (200, ""));
    let reply = patch("eth0", r#"{"monitored":false,"alias":"no"}"#);
    assert_eq!((reply.status, reply.detail().contains("primary")), (409, true), "{}", reply.detail());
    assert_eq!(patch("eth0", r#"{"monitored":false,"primary":false}"#).status, 200);
    assert_eq!((ignored().as_str(), server.context.live.lock().active.primary.as_str()), ("eth0", ""));
    patch("eth0", r#"{"monitored":null}"#);

    for (name, body, status) in [
        ("nope", r#"{"alias":"x"}"#, 404),
        ("eth0", r#"{"merge":"nope"}"#, 404),
        ("eth0", r#"{"merge":"lo"}"#, 409),
        ("eth0", r#"{"merge":"eth0"}"#, 422),
        ("eth0", r#"{"alias":null}"#, 422),
        ("eth0", r#"{"alias":"a\nb"}"#, 422),
        ("eth0", r#"{"primary":null}"#, 422),
        ("eth0", r#"{"colour":"red"}"#, 422),
        ("%3Dodd%2C%20%22one%22", r#"{"monitored":true}"#, 422),
        ("eth0", "[]", 422),
    ] {
        assert_eq!(patch(name, body).status, status, "{name} {body}");
    }
    assert_eq!(patch("eth0", r#"{"alias":7,"monitored":"yes","colour":"red"}"#).flaws().len(), 3);
    for (name, status) in [("nope", 404), ("eth0", 409), ("wg0", 200)] {
        let reply = server.send("DELETE", &format!("/api/interfaces/{name}"), "", b"");
        check_documented(&document, "DELETE", "/api/interfaces/{name}", &reply);
        assert_eq!(reply.status, status, "{name}");
    }
}

#[test]
fn requests_by_altname_return_the_interface_name() {
    let server = TestServer::new();
    for target in [
        "/api/interfaces/NAME",
        "/api/interfaces/NAME/stats",
        "/api/traffic/series?interface=NAME",
        "/api/traffic/series?interface=eth0&interface=NAME",
        "/api/traffic/totals?interface=NAME",
        "/api/traffic/history?interface_name=NAME",
        "/api/traffic/latest",
        "/api/export/traffic?interface_name=NAME",
        "/api/export/traffic?interface_name=NAME&format=csv&resolution=hour",
        "/api/events?interface=NAME",
    ] {
        let by = |name: &str| server.get(&target.replace("NAME", name));
        let expect = by("eth0");
        assert_eq!(expect.status, 200, "{target}");
        for altname in ["enp3s0", "wan%2F1"] {
            let reply = by(altname);
            assert_eq!((reply.status, &reply.body), (200, &expect.body), "{target} by {altname}");
        }
    }
    assert!(rows(&server.get("/api/traffic/history?interface_name=enp3s0"), "interface_name")[0].0 == "eth0");
    assert_eq!(server.get("/api/interfaces/enp3").status, 404);

    // An interface with that name comes first, although it is absent.
    server.context.live.lock().inventory.interfaces[3].name = "enp3s0".to_string();
    assert_eq!(server.get("/api/interfaces/enp3s0").json()["present"], false);
    assert_eq!(rows(&server.get("/api/traffic/history?interface_name=enp3s0"), "interface_name"), []);
    assert_eq!(server.get("/api/interfaces/wan%2F1").json()["name"], "eth0");
}

#[test]
fn changes_by_altname_use_the_interface_name() {
    let server = TestServer::new();
    let patch = |name: &str, body: &str| server.send("PATCH", &format!("/api/interfaces/{name}"), "", body.as_bytes());
    let lists = || {
        let state = server.context.live.lock();
        [state.active.interfaces.join(" "), state.active.ignored.join(" "), state.active.primary.clone()]
    };
    let set = |key, text: &str| server.context.live.lock().change(vec![(key, Some(text.to_string()))]).unwrap();
    assert_eq!(patch("enp3s0", r#"{"monitored":false,"alias":"x"}"#).json()["name"], "eth0");
    assert_eq!(lists(), ["", "eth0", ""]);
    // The request replaces entries under any name of the interface.
    for (body, expect) in [(r#"{"monitored":true}"#, "a* !eth0"), (r#"{"monitored":null}"#, "a*")] {
        for before in ["enp3s0", "!wan/1", "!eth0"] {
            set("ignore", &format!("a*,{before}"));
            assert_eq!(patch("eth0", body).status, 200);
            assert_eq!(lists()[1], expect, "{before}");
        }
    }
    set("primary", "enp3s0");
    assert_eq!(patch("eth0", r#"{"monitored":false}"#).status, 409, "eth0 is the primary interface");
    assert_eq!((patch("eth0", r#"{"primary":false}"#).status, lists()[2].as_str()), (200, ""));
    assert_eq!((patch("wan%2F1", r#"{"primary":true}"#).status, lists()[2].as_str()), (200, "eth0"));

    set("ignore", "wan/1,b*");
    let reply = server.put("/api/config/interfaces", r#"{"interfaces":["enp3s0","lo","eth0"]}"#);
    assert_eq!(reply.json()["interfaces"], json!(["eth0", "lo"]));
    assert_eq!(lists(), ["eth0 lo", "b*", "eth0"]);
    let reply = server.put("/api/config/interfaces", r#"{"interfaces":["enp3s0","enp4s0"]}"#);
    assert_eq!((reply.status, reply.detail().as_str()), (400, "Invalid interfaces: enp4s0"));

    assert_eq!(patch("eth0", r#"{"merge":"enp3s0"}"#).status, 422, "both names are of one interface");
    for reply in [patch("lo", r#"{"merge":"enp3s0"}"#), server.send("DELETE", "/api/interfaces/enp3s0", "", b"")] {
        assert_eq!((reply.status, reply.detail().starts_with("eth0 is present")), (409, true), "{}", reply.detail());
    }
    assert_eq!(patch("enp3s0", r#"{"merge":"wg0"}"#).json()["name"], "eth0");
}

#[test]
fn a_list_that_the_next_start_would_refuse_is_refused() {
    let full = (0..512).map(|at| format!("veth{at:03}")).collect::<Vec<_>>();
    let server = TestServer::with(|live| live.lock().change(vec![("ignore", Some(full.join(",")))]).unwrap(), machine);
    let reply = server.send("PATCH", "/api/interfaces/eth0", "", br#"{"monitored":false}"#);
    assert_eq!(reply.status, 409);
    let detail = reply.detail();
    assert!(
        detail.starts_with("ignore ") && detail.contains("4096 bytes") && detail.contains("one pattern with *"),
        "{detail}"
    );
    assert_eq!(server.context.live.lock().active.ignored, full);
    let long: Vec<String> = (0..300).map(|at| format!("interface-{at:04}")).collect();
    server.context.live.lock().inventory.interfaces = long.iter().map(|name| iface(name, 1)).collect();
    assert_eq!(server.put("/api/config/interfaces", &json!({ "interfaces": long }).to_string()).status, 409);
    let reply = server.send("PATCH", "/api/config", "", json!({ "interfaces": long }).to_string().as_bytes());
    assert!(reply.flaws()[0].contains("4096 bytes"), "{:?}", reply.flaws());
}

/// Each of several simultaneous requests makes one change. No request may undo the change of another one.
#[test]
fn simultaneous_changes_are_all_made() {
    const CLIENTS: usize = 16;
    let names: Vec<String> = (0..CLIENTS).map(|at| format!("eth{at}")).collect();
    let server = TestServer::with(
        |live| {
            live.lock().inventory.interfaces = (1..).zip(&names).map(|(ifindex, name)| iface(name, ifindex)).collect()
        },
        machine,
    );
    let ask = |method: &str, target: &str, body: &str| {
        let request =
            HttpRequest { method, target, trusted: true, body: Some(body.as_bytes()), ..HttpRequest::default() };
        assert_eq!(answer(&server.context, &request).status, 200, "{target}");
    };
    for round in 0..200 {
        let start = Barrier::new(CLIENTS);
        std::thread::scope(|scope| {
            for (at, name) in names.iter().enumerate() {
                let (start, ask) = (&start, &ask);
                scope.spawn(move || {
                    start.wait();
                    match at {
                        0 => ask("PUT", "/api/config/interfaces", r#"{"interfaces":["eth0"]}"#),
                        _ => ask("PATCH", &format!("/api/interfaces/{name}"), r#"{"monitored":false}"#),
                    }
                });
            }
        });
        let state = server.context.live.lock();
        let mut ignored = state.active.ignored.clone();
        ignored.sort();
        let mut expect = names[1..].to_vec();
        expect.sort();
        assert_eq!(ignored, expect, "round {round}");
        let saved: Vec<_> = state.unsaved.settings.iter().filter(|(key, _)| key == "ignore").collect();
        assert_eq!(
            saved,
            [&("ignore".to_string(), Some(state.active.ignored.join(",")))],
            "the saved value is the active one"
        );
        drop(state);
        ask("PATCH", "/api/config", r#"{"ignore":["eth0","!lo"],"interfaces":[]}"#);
    }
}

#[test]
fn today_begins_at_local_midnight() {
    let today = |zone: &str| {
        let server = TestServer::with(|live| live.lock().zone = Arc::new(Zone::parse(zone).unwrap()), machine);
        let one = server.get("/api/interfaces/eth0").json()["today_rx_bytes"].as_u64().unwrap();
        let all = server.get("/api/interfaces").json();
        assert_eq!(all["eth0"]["today_rx_bytes"], one);
        assert_eq!((&all["wg0"]["today_rx_bytes"], &all["lo"]["today_rx_bytes"]), (&json!(0), &json!(0)));
        let rows = rows(&server.get("/api/traffic/totals?interface=eth0&by=day&limit=1"), "from");
        assert_eq!(rows[0].1, one, "{zone}");
        one
    };
    assert_eq!(today("UTC"), (1..=102).map(|n| n * 100).sum::<u64>());
    // In that zone, local midnight was half an hour ago.
    assert!(today("<+14>-14") < today("UTC"));
}

#[test]
fn one_backup_at_a_time_and_only_with_enough_space() {
    let document = document();
    let backup = |server: &TestServer| {
        let reply = server.send("POST", "/api/backup", "", b"");
        check_documented(&document, "POST", "/api/backup", &reply);
        reply
    };
    let server = TestServer::new();
    let reply = backup(&server);
    assert_eq!((reply.status, reply.truncated), (200, false));
    assert_eq!(reply.header("content-disposition"), Some("attachment; filename=net-pulse-2026-01-15.db"));
    assert!(reply.body.starts_with(b"SQLite format 3\0"));
    server.context.server_state.backup_running.store(true, Ordering::Relaxed);
    let reply = backup(&server);
    assert_eq!(reply.status, 503);
    assert!(reply.detail().contains("under way"));
    server.context.server_state.backup_running.store(false, Ordering::Relaxed);
    assert_eq!(backup(&server).status, 200);
    // Each backup clears its flag when it ends.
    assert!(!server.context.server_state.backup_running.load(Ordering::Relaxed));

    let full = TestServer::with(|_| {}, || Machine { disk_free: 100_000, ..machine() });
    for _ in 0..2 {
        let reply = backup(&full);
        assert_eq!(reply.status, 507);
        assert!(reply.detail().contains("not enough space"), "{}", reply.detail());
    }
    assert_eq!(backup(&TestServer::without_store()).status, 503);
}

#[test]
fn a_chart_of_several_interfaces() {
    let server = TestServer::new();
    let both = server.get("/api/traffic/series?interface=eth0&interface=%3Dodd%2C%20%22one%22&points=3").json();
    assert_eq!(both["interfaces"].as_object().unwrap().len(), 2);
    assert_eq!(both["interfaces"]["eth0"]["rx"].as_array().unwrap().len(), both["t"].as_array().unwrap().len());
}

#[test]
fn a_chart_covers_the_requested_range() {
    let server = TestServer::new();
    for points in [1, 2, 7, 100, 719, 720] {
        for (from, to) in [(NOW - 3601, NOW - 1), (NOW - 100_000, NOW), (NOW - 40_000_000, NOW + 7), (NOW - 1, NOW)] {
            let body = server.get(&format!("/api/traffic/series?points={points}&from={from}&to={to}")).json();
            let edge = |name: &str| crate::clock::parse_time(body[name].as_str().unwrap(), &Zone::UTC).unwrap();
            assert!(edge("from") <= from && edge("to") >= to, "{points} {from} {to}: {body}");
            let starts: Vec<i64> = body["t"].as_array().unwrap().iter().map(|it| it.as_i64().unwrap()).collect();
            assert!(starts.len() <= points && starts.is_sorted() && starts[0] == edge("from"), "{starts:?}");
        }
    }
}

#[test]
fn an_unhealthy_service_reports_it() {
    let fail = |live: &Live| {
        let mut state = live.lock();
        state.health.polls.consecutive_failures = 5;
        state.health.polls.last_successful = Some(NOW - 90);
        state.health.polls.sampled_mono_ms = Some(910_000);
        state.health.polls.last_error = Some("no such device".to_string());
    };
    let server = TestServer::with(fail, machine);
    let reply = server.get("/health");
    check_documented(&document(), "GET", "/health", &reply);
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["status"], "unhealthy");
    assert!(reply.json()["reason"].as_str().unwrap().contains("no such device"));
    let health = server.get("/api/system/health");
    assert_eq!((health.status, &health.json()["collector_status"]), (200, &json!("unhealthy")));
}

#[test]
fn missing_interfaces_are_reported_without_changing_the_status() {
    let set = |live: &Live| {
        let mut state = live.lock();
        state.change(vec![("interfaces", Some("eth*,nope*,ppp7".to_string()))]).unwrap();
        let unmatched = [("interfaces", "nope*"), ("interfaces", "ppp7"), ("primary", "ppp7")];
        state.inventory.unmatched =
            unmatched.map(|(key, name)| Unmatched { key, pattern: name.to_string(), known: true }).to_vec();
    };
    let server = TestServer::with(set, machine);
    assert_eq!(server.get("/health").json(), json!({"status": "healthy"}));
    let health = server.get("/api/system/health");
    check_documented(&document(), "GET", "/api/system/health", &health);
    let health = health.json();
    assert_eq!((&health["status"], &health["interfaces_status"]), (&json!("healthy"), &json!("healthy")));
    assert_eq!(health["details"]["interfaces"]["unmatched"], json!(["nope*", "ppp7"]));
    let reason = "the interfaces setting nope*, ppp7 match no interface now: counting continues when they appear; \
                  the primary setting ppp7 matches no interface now: it becomes the primary interface when it appears";
    assert_eq!(health["reason"], reason);
    // Degradations come before these notes.
    server.context.live.lock().active.running = false;
    let health = server.get("/api/system/health").json();
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["reason"], format!("collection is stopped; {reason}"));
    assert_eq!(server.get("/health").json()["reason"], "collection is stopped");
}

/// Bytes that a new connection can carry in one round trip (ten segments): the limit for everything that a view needs.
const MAX_FIRST_VIEW_BYTES: usize = 14_336;
/// Limit for all compressed files of the page together.
const MAX_PAGE_BYTES: usize = 27 * 1024;

#[test]
fn the_first_view_fits_into_one_round_trip() {
    let server = TestServer::new();
    let length = |target: &str| {
        let mut stream = server.connect();
        // As browsers do, without `Connection: close`.
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nAccept-Encoding: gzip\r\n\r\n")
            .unwrap();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = stream.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "{target}: the connection ended");
            bytes.extend_from_slice(&chunk[..count]);
            let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let reply = Reply::parse(&bytes);
            let body: usize = reply.header("content-length").unwrap().parse().unwrap();
            if bytes.len() == head + 4 + body {
                println!("{target}: {} + {body}", head + 4);
                return bytes.len();
            }
        }
    };
    let first: usize = ["/", "/style.css", "/app.js", "/icon.svg"].map(length).iter().sum();
    assert!(first <= MAX_FIRST_VIEW_BYTES, "the first view needs {first} bytes");
    // Any other view loads its script, the shared script and the shared style sheet at the same time.
    let shared: usize = ["/elements.js", "/views.css"].map(length).iter().sum();
    for view in assets::ASSETS.iter().filter(|asset| asset.path.ends_with(".js")) {
        let bytes = shared + length(view.path);
        assert!(bytes <= MAX_FIRST_VIEW_BYTES, "{}: the view needs {bytes} bytes", view.path);
    }
    let all: usize = assets::ASSETS.iter().map(|asset| asset.packed.len()).sum();
    println!("first view {first} bytes, all files packed {all}");
    assert!(all <= MAX_PAGE_BYTES, "{all} bytes of the page are in the binary");
}

#[test]
fn a_panic_fails_only_its_request() {
    let server = TestServer::with(|_| {}, || panic!("deliberate panic"));
    for round in 1..=10 {
        let reply = server.get("/api/system/info");
        assert_eq!(reply.status, 500);
        assert_eq!(server.get("/api/system/health").json()["details"]["http"]["panics"], round);
    }
    check_documented(&document(), "GET", "/api/system/info", &server.get("/api/system/info"));
}

#[test]
fn live_requests_wake_the_sampler_once() {
    let server = TestServer::new();
    assert_eq!(server.context.live.lock().inventory.ring.watched_until_ms, 0);
    for _ in 0..3 {
        server.get("/api/traffic/live");
        assert_eq!(server.context.live.lock().inventory.ring.watched_until_ms, 1_010_000);
    }
    assert_eq!(server.woken.load(Ordering::Relaxed), 1);
}

#[test]
fn e50_absent_interfaces_keep_their_history() {
    // The database's second interface is unplugged.
    let server = TestServer::with(|live| live.lock().inventory.interfaces[0].ifindex = 0, machine);
    let name = "%3Dodd%2C%20%22one%22";
    assert_eq!(rows(&server.get(&format!("/api/traffic/totals?interface={name}")), "from")[0].1, 525_300);
    assert_eq!(rows(&server.get(&format!("/api/traffic/history?interface_name={name}&limit=3")), "timestamp").len(), 3);
    let iface = server.get(&format!("/api/interfaces/{name}")).json();
    assert_eq!((&iface["present"], &iface["status"]), (&json!(false), &json!("down")));
    assert_eq!(server.get(&format!("/api/interfaces/{name}/stats")).status, 404);
    assert_eq!(server.get("/api/traffic/summary").json()["total_interfaces"], 2);
}

#[test]
fn long_answers_are_chunked() {
    let server = TestServer::new();
    let reply = server.get("/api/export/traffic");
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!((reply.header("content-length"), reply.truncated), (None, false));
    let rows = reply.json();
    let ids: Vec<u64> = rows.as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), 204);
    assert!(ids.is_sorted_by(|one, next| one < next), "oldest first");

    let reply = server.get("/api/export/traffic?format=csv&limit=50&interface_name=eth0");
    assert_eq!(reply.header("content-disposition"), Some("attachment; filename=traffic_data.csv"));
    let text = String::from_utf8(reply.body).unwrap();
    assert_eq!(text.lines().count(), 51);
    assert!(text.starts_with("id,timestamp,interface_name,rx_bytes,"));

    let newest = server.get("/api/traffic/history?limit=1000").json();
    let mut newest: Vec<u64> = newest.as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect();
    newest.reverse();
    assert_eq!(newest, ids, "the history has the same samples, newest first");
}

/// The rows of an answer: the value of the member `first`, and `rx_bytes`.
fn rows(reply: &Reply, first: &str) -> Vec<(String, u64)> {
    let body = reply.json();
    let row = |row: &Value| (row[first].as_str().unwrap().to_string(), row["rx_bytes"].as_u64().unwrap());
    body.as_array().unwrap().iter().map(row).collect()
}

#[test]
fn every_endpoint_gives_the_same_sum() {
    let server = TestServer::new();
    let expect: u64 = (1..=102).map(|n| n * 100).sum();
    let sum = |target: &str| rows(&server.get(target), "from").iter().map(|row| row.1).sum::<u64>();
    for by in ["hour", "day", "week", "month", "year"] {
        assert_eq!(sum(&format!("/api/traffic/totals?by={by}")), expect, "{by}");
        assert_eq!(sum(&format!("/api/traffic/totals?by={by}&from=0&to=253402300799999")), expect, "{by}");
        assert_eq!(sum(&format!("/api/traffic/totals?by={by}&to=1970-01-02")), 0, "{by}");
        assert_eq!(sum(&format!("/api/traffic/totals?by={by}&from=2030-01-01&to=2020-01-01")), 0, "{by}");
    }
    for resolution in ["5min", "hour", "day"] {
        assert_eq!(
            sum(&format!("/api/export/traffic?resolution={resolution}&interface_name=eth0")),
            expect,
            "{resolution}"
        );
    }
    let samples = rows(&server.get("/api/export/traffic?interface_name=eth0"), "timestamp");
    assert_eq!(samples.iter().map(|row| row.1).sum::<u64>(), expect);
    for points in [1, 2, 7, 12, 100, 720] {
        let body = server.get(&format!("/api/traffic/series?points={points}&from=2026-01-15T09:00:00Z")).json();
        let columns = &body["interfaces"]["eth0"];
        let length = body["t"].as_array().unwrap().len();
        assert!(length <= points, "{length} of {points}");
        for name in ["rx", "tx", "rx_peak", "tx_peak"] {
            assert_eq!(columns[name].as_array().unwrap().len(), length, "{points} {name}");
        }
    }
}

#[test]
fn without_a_database_answers_come_from_memory() {
    let server = TestServer::without_store();
    assert_eq!(server.get("/health").json()["status"], "degraded");
    assert_eq!(rows(&server.get("/api/traffic/history?interface_name=eth0"), "timestamp").len(), 2);
    assert_eq!(server.get("/api/traffic/history?offset=3").json()[0]["id"], 101_u64 << 20 | 2);
    assert_eq!(server.get("/api/export/traffic").json().as_array().unwrap().len(), 4);
    assert_eq!(rows(&server.get("/api/traffic/totals"), "from"), [("2026-01-15T00:00:00Z".to_string(), 20_300)]);
    let series = server.get("/api/traffic/series?points=1").json();
    assert!(series["interfaces"]["eth0"]["rx"][0].is_u64(), "{series}");
    assert_eq!(server.get("/api/events").json().as_array().unwrap().len(), 2);
}

#[test]
fn huge_ranges_are_answered_quickly() {
    let server = TestServer::new();
    for target in [
        "/api/traffic/series?from=0&to=253402300799999",
        "/api/traffic/series?from=0&to=253402300799999&points=1",
        "/api/traffic/series?from=253402300799999&to=0",
        "/api/traffic/series?from=0&to=0",
        "/api/traffic/totals?by=hour&from=0&to=253402300799999&limit=1000",
        "/api/traffic/totals?by=hour&from=253402300799999",
        "/api/traffic/totals?by=year&limit=1000",
        "/api/traffic/totals?by=year&limit=1000&to=0",
        "/api/traffic/history?start_time=0&end_time=253402300799999&offset=9007199254740991",
        "/api/traffic/history?start_time=253402300799999&end_time=0",
        "/api/export/traffic?resolution=5min&start_time=0&end_time=253402300799999",
        "/api/export/traffic?resolution=day&start_time=253402300799999",
        "/api/events?offset=9007199254740991",
        "/api/traffic/live?since=9007199254740991",
    ] {
        let start = Instant::now();
        let reply = server.get(target);
        assert_eq!((reply.status, reply.truncated), (200, false), "{target}");
        // Visiting every bucket of such a range would take minutes.
        assert!(start.elapsed() < Duration::from_secs(20), "{target}");
    }
}

#[test]
fn http_1_0_clients_get_no_chunks() {
    let server = TestServer::new();
    for connection_header in ["", "Connection: keep-alive\r\n"] {
        let long =
            server.raw(format!("GET /api/export/traffic HTTP/1.0\r\nHost: x\r\n{connection_header}\r\n").as_bytes());
        assert_eq!(
            (long.status, long.header("transfer-encoding"), long.header("connection")),
            (200, None, Some("close"))
        );
        assert_eq!(long.json().as_array().unwrap().len(), 204);
    }
}

#[test]
fn only_the_first_of_pipelined_requests_is_answered() {
    let server = TestServer::new();
    let mut stream = server.connect();
    for target in ["/health", "/api/system/info", "/nope"] {
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    }
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let reply = Reply::parse(&bytes);
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert_eq!(reply.json(), json!({"status": "healthy"}));
}

#[test]
fn garbage_requests_do_no_harm() {
    let server = TestServer::new();
    let mut seed = 7_u32;
    for round in 0..300 {
        let mut bytes =
            b"GET /api/traffic/history?limit=1&start_time=2026-01-15 HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n"
                .to_vec();
        for _ in 0..=round % 8 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (seed >> 8) as usize % (bytes.len() - 8);
            bytes[at] = (seed >> 24) as u8;
        }
        let mut stream = server.connect();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/api/system/health").json()["details"]["http"]["panics"], 0);
}

#[test]
fn stopping_does_not_wait_for_idle_clients() {
    let mut server = TestServer::new();
    let _idle = server.connect();
    let mut half = server.connect();
    half.write_all(b"GET /health HTT").unwrap();
    let mut kept = server.connect();
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    kept.read_exact(&mut [0; 12]).unwrap();
    let start = Instant::now();
    server.http_server.take().unwrap().stop();
    // The server's own limit is one second; the rest allows for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn the_openapi_document_is_complete() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
        assert!(operation["summary"].is_string(), "{}", route.path);
        for status in openapi::problem_statuses(route) {
            assert!(operation["responses"][status.to_string()].is_object(), "{} {status}", route.path);
        }
    }
    // Every reference has a target.
    fn walk(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref") {
                    assert!(document.pointer(&target.as_str().unwrap()[1..]).is_some(), "{target}");
                }
                members.values().for_each(|member| walk(document, member));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
            _ => {}
        }
    }
    walk(&document, &document);
}
