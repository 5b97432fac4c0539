//! HTTP requests against every route, with a history in memory and without a socket. Input: one byte for the method,
//! the target up to a line feed, then the body.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use net_pulse::clock::{Clock, Now, Zone};
use net_pulse::config::Config;
use net_pulse::history::{DiskThread, History};
use net_pulse::http::params::{self, ParamKind, ParamLocation, RawParams, ZoneSource};
use net_pulse::http::routes::ROUTES;
use net_pulse::http::{self, Auth, Context, HttpRequest, ServerState};
use net_pulse::live::{Database, Iface, Live};
use net_pulse::model::{Batch, COUNTERS, Counters, InterfaceKind, Machine, Sample, SampleQuality, Tick};

const NOW: i64 = 1_800_000_000;
const METHODS: [&str; 8] = ["GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "POST", "get"];

/// A clock that always shows the same time.
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Now {
        Now { mono_ms: 1_000_000_000, unix_ms: NOW * 1000 }
    }
}

fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let zone = Zone::parse("LHST-10:30LHDT-11,M10.1.0,M4.1.0/2").expect("a valid zone");
        let live = Arc::new(Live::new(Config::default(), zone));
        {
            let mut state = live.lock();
            state.health.database = Database::Rejoined;
            for (id, name) in [(1, "eth0"), (2, "=1+2\"<&"), (3, "a b/%")] {
                state.inventory.interfaces.push(Iface {
                    id: Some(id),
                    ifindex: id,
                    name: name.to_string(),
                    altnames: vec![format!("{name}/alt")],
                    kind: InterfaceKind::Ethernet,
                    mac: String::new(),
                    mtu: 1500,
                    speed: None,
                    up: true,
                    alias: "@home".to_string(),
                    addresses: Vec::new(),
                    parent: None,
                    monitored: true,
                    ignored_because: None,
                    raw: Counters([u64::MAX; COUNTERS]),
                    rates: Some((1, 2)),
                    lifetime: Counters([u64::MAX; COUNTERS]),
                });
            }
            state.inventory.primary = Some("eth0".to_string());
            let mut batch = Batch::default();
            for seq in 1..=20 {
                for iface in 1..=3 {
                    let delta = Counters([seq * 1000; COUNTERS]);
                    batch.samples.push(Sample { iface, quality: SampleQuality::Plain, span_ms: 30_000, delta });
                }
                let unix = Some(NOW - 600 + 30 * seq as i64);
                batch.ticks.push(Tick { seq, mono_ms: 30_000 * seq, unix, end: batch.samples.len() });
            }
            state.unsaved.batch = batch;
        }
        Context {
            live: live.clone(),
            history: History::new(live, None),
            backup_thread: DiskThread::named("copy"),
            clock: Arc::new(StoppedClock),
            database: PathBuf::from("/nowhere/net-pulse.db"),
            machine: Arc::new(Machine::default),
            find_zone: Arc::new(|name| Ok(Zone::find(Some(name), None, |_| None)?.zone)),
            listen_addresses: Vec::new(),
            auth: Auth::new(PathBuf::from("/nowhere/token"), None, false, true),
            server_state: ServerState::default(),
        }
    })
}

/// Reads every parameter of every route from the input, and checks that accepted values are in their range.
fn check_params(query: &str, body: &[u8]) {
    for route in ROUTES {
        let path: Vec<(&'static str, String)> = route
            .params
            .iter()
            .filter(|param| param.location == ParamLocation::Path)
            .map(|param| (param.name, query.to_string()))
            .collect();
        let given = RawParams { path: &path, query, body };
        let zones = ZoneSource { active: &|| Arc::new(Zone::UTC), find: &Zone::parse };
        let Ok(values) = params::read(route.params, &given, &zones) else { continue };
        for param in route.params {
            match param.kind {
                ParamKind::Integer { low, high, .. } => {
                    assert!(values.integer(param.name).is_none_or(|value| (low..=high).contains(&value)))
                }
                ParamKind::Decimal { low, high } => {
                    assert!(values.decimal(param.name).is_none_or(|value| (low..=high).contains(&value)))
                }
                ParamKind::Word(words) => assert!(values.texts(param.name).all(|word| words.contains(&word))),
                ParamKind::Time => assert!(values.integer(param.name).is_none_or(|unix| unix >= 0)),
                ParamKind::Words(words) => assert!(values.texts(param.name).all(|word| words.contains(&word))),
                ParamKind::ShortText { max_chars } => {
                    let valid = |text: &str| text.chars().count() <= max_chars && !text.contains(char::is_control);
                    assert!(values.texts(param.name).all(valid))
                }
                ParamKind::Texts { max_items } => {
                    assert!(max_items.is_none_or(|max_items| values.texts(param.name).count() <= max_items))
                }
                ParamKind::Setting(setting) => {
                    assert!(values.texts(param.name).all(|text| setting.check(text).is_ok()))
                }
                ParamKind::Text | ParamKind::Switch => {}
            }
        }
    }
}

pub fn request(bytes: &[u8]) {
    let Some((&method, rest)) = bytes.split_first() else { return };
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (target, body) = (&rest[..at], rest.get(at + 1..).unwrap_or(&[]));
    // The gate accepts only visible ASCII, so a target that is not UTF-8 is not tested.
    let Ok(target) = std::str::from_utf8(target) else { return };
    for plus in [false, true] {
        if let Ok(text) = params::decode(target, plus) {
            assert!(text.len() <= target.len());
        }
    }
    check_params(target.split_once('?').map_or(target, |(_, query)| query), body);

    let context = context();
    let method = METHODS[usize::from(method) % METHODS.len()];
    let client_ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let request = HttpRequest { method, target, client_ip, body: Some(body), ..HttpRequest::default() };
    let answer = http::answer(context, &request);
    assert!((200..600).contains(&answer.status) && answer.status != 500, "{method} {target}: {}", answer.status);
    let json = answer.headers.iter().any(|(name, value)| *name == "Content-Type" && value == "application/json");
    for (name, value) in &answer.headers {
        assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{name}: {value:?}");
    }
    let body = answer.body.into_bytes(context).expect("memory does not fail");
    if json {
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&body);
        assert!(parsed.is_ok(), "{method} {target}: {}", String::from_utf8_lossy(&body));
    }
}
