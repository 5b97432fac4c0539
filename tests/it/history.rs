//! A database of an earlier version must give the same answers as with that version, byte for byte. `tests/history` has
//! the database and the answers. That version's `write_files` made both: `cargo test --test it history::write_files --
//! --ignored`. After an intended change, run the test with UPDATE_GOLDEN=1: it writes the answers again, and git shows
//! the differences.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::stored_history::{Random, record};
use crate::common::*;
use net_pulse::clock::Zone;
use net_pulse::config::Config;
use net_pulse::live::ActiveSettings;
use net_pulse::model::{
    Anchor, Batch, COUNTER_NAMES, Counters, Event, EventKind, InterfaceKind, Record, Sample, SampleQuality, Tick,
};
use net_pulse::store::{Options, SaveRequest, Store};
use rusqlite::Connection;

const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
/// 25 March 2025 in UTC, five days before summer time begins.
const START: i64 = 1_742_860_800;
/// No machine has links with such names, so the requests concern stored history only.
const LINKS: [(&str, InterfaceKind); 4] = [
    ("past-wan", InterfaceKind::Ethernet),
    ("past-lan", InterfaceKind::Bridge),
    ("past-air", InterfaceKind::Wifi),
    ("past-vpn", InterfaceKind::Vpn),
];
/// Number of ticks, and seconds from one to the next.
const PARTS: [(usize, i64); 3] = [(160, 3600), (300, 300), (480, 30)];
const TICKS_PER_SAVE: usize = 40;
/// For a longer body, the file has a hash of each piece instead.
const MAX_WHOLE_BYTES: usize = 1_500;
const PIECE_BYTES: usize = 4_096;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history").join(name)
}

/// Steady and irregular traffic, idle links, errors, gaps, resets, a clock that is set back, and values near the
/// maximum.
fn sample(iface: u32, at: usize, step: i64, random: &mut Random) -> Option<Sample> {
    let step_ms = step as u64 * 1000;
    let mut sample = Sample { iface, quality: SampleQuality::Plain, span_ms: step_ms, delta: Counters::ZERO };
    let most = match iface {
        1 => 2_000_000,
        2 => 70_000,
        3 if at % 5 > 2 || at % 100 < 20 => return None,
        3 => 3_000,
        _ if at % 40 == 7 => 500,
        _ => 0,
    };
    let rx = step as u64 * (most / 2 + random.below(most as usize / 64 + 1) as u64);
    let errors = [0, 1, 2, 3].map(|which| u64::from(at % 97 == which * 11 && most > 0) * (which as u64 + 1));
    let values = [rx, rx / 9, rx / 900, rx / 1800, errors[0], errors[1], errors[2], errors[3]];
    sample.delta.0.iter_mut().zip(values).for_each(|(delta, value)| *delta = value);
    match (iface, at % 150) {
        (1, 33) => (sample.quality, sample.span_ms) = (SampleQuality::Gap, 7 * 3_600_000 + 1_234),
        (2, 50) => (sample.quality, sample.span_ms) = (SampleQuality::Reset, step_ms / 2),
        (4, 90) => sample.delta.0[1] = 1 << 60,
        (1, _) => sample.span_ms += random.below(3) as u64,
        _ => {}
    }
    Some(sample)
}

fn event(unix: i64, kind: EventKind, interface: &str, detail: &str) -> Event {
    Event { unix: Some(unix), mono_ms: 0, kind, interface: interface.to_string(), detail: detail.to_string() }
}

/// Fills a new database. Returns the time of the last tick.
fn fill(path: &Path) -> i64 {
    let mut opened = Store::open(path, &Options { max_bytes: 32 << 20 }).expect("a new history");
    let zone = Zone::parse(ZONE).expect("a zone");
    let retention = ActiveSettings::of(&Config::default()).retention;
    let records = LINKS.iter().zip(1..).map(|((name, kind), id)| Record {
        alias: if id == 1 { "The line \"outside\"".to_string() } else { String::new() },
        mac: format!("02:00:00:00:00:0{id}"),
        ..record(id, name, *kind, START, START)
    });
    let mut records: Vec<Record> = records.collect();
    let mut settings = vec![
        ("timezone".to_string(), Some(ZONE.to_string())),
        ("interval".to_string(), Some("3600".to_string())),
        ("flush".to_string(), Some("3600".to_string())),
    ];
    let (mut random, mut batch) = (Random(0x2545_f491), Batch::default());
    let (mut unix, mut mono_ms, mut seq, mut anchors, mut events) = (START, 1_000_000, 0, Vec::new(), Vec::new());
    for (part, (ticks, step)) in PARTS.into_iter().enumerate() {
        for at in 0..ticks {
            seq += 1;
            mono_ms += step as u64 * 1000 + random.below(3) as u64;
            unix += step;
            if (part, at) == (2, 300) {
                unix -= 1_200;
                events.push(event(unix, EventKind::ClockStep, "", "the clock was set back by 1200 s"));
            }
            batch.samples.extend((1..=LINKS.len() as u32).filter_map(|iface| sample(iface, at, step, &mut random)));
            batch.ticks.push(Tick { seq, mono_ms, unix: Some(unix), end: batch.samples.len() });
            if at % 150 == 50 {
                let raw = Counters(std::array::from_fn(|counter| (at + 7 * counter) as u64));
                anchors.push(Anchor { seq, iface: 2, raw });
                events.push(event(unix, EventKind::Reset, "past-lan", "its counters began again"));
            }
            if batch.ticks.len() == TICKS_PER_SAVE || at + 1 == ticks {
                let request = SaveRequest {
                    batch: &batch,
                    anchors: &anchors,
                    records: &records,
                    events: &events,
                    settings: &settings,
                    retention,
                    zone: &zone,
                };
                opened.store.save(&request).expect("enough space");
                batch.clear();
                anchors.clear();
                events.clear();
                records.clear();
                settings.clear();
            }
        }
    }
    unix
}

/// Requests for everything that comes from the database, over ranges that end in the past.
fn requests() -> Vec<String> {
    let days = |count: i64| START + count * 86_400;
    let end = days(9);
    let mut paths = Vec::new();
    for (name, _) in LINKS {
        paths.push(format!("/api/interfaces/{name}"));
        for by in ["hour", "day", "week", "month", "year"] {
            paths.push(format!("/api/traffic/totals?interface={name}&by={by}&from={START}&to={end}&limit=1000"));
        }
        paths.push(format!("/api/traffic/history?interface_name={name}&limit=7&offset=3"));
    }
    let all = LINKS.map(|(name, _)| format!("interface={name}")).join("&");
    for (from, to, points) in [
        (START, end, 720),
        (START, end, 12),
        (days(5), days(6), 48),
        (days(7), days(8), 100),
        (days(7) + 43_200, end, 720),
        (days(7) + 70_000, days(8), 720),
    ] {
        paths.push(format!("/api/traffic/series?{all}&from={from}&to={to}&points={points}"));
    }
    for resolution in ["sample", "5min", "hour", "day"] {
        let export = format!("/api/export/traffic?resolution={resolution}");
        for format in ["format=json", "format=csv", "format=csv&bom=1&separator=;&time=local"] {
            paths.push(format!("{export}&{format}&start_time={START}&end_time={end}"));
        }
        let evening = days(7) + 64_800;
        paths.push(format!("{export}&format=csv&start_time={evening}&end_time={}&limit=8", evening + 3_600));
        paths.push(format!("{export}&format=json&interface_name=past-lan&start_time={}&limit=3", days(4)));
    }
    paths.push(format!("/api/events?from={START}&to={end}&limit=1000"));
    paths.push(format!("/api/traffic/history?start_time={START}&end_time={end}&limit=1000&offset=100"));
    paths
}

/// The FNV-1a hash.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One line per piece, so that a difference can be located.
fn condensed(body: &[u8]) -> String {
    if body.len() <= MAX_WHOLE_BYTES {
        return String::from_utf8_lossy(body).into_owned();
    }
    let mut text = format!("{} bytes, in pieces of {PIECE_BYTES}:", body.len());
    for piece in body.chunks(PIECE_BYTES) {
        let _ = write!(text, "\n{:016x}", hash(piece));
    }
    text
}

/// Sends all requests. Returns for each one the text for the file of answers, and the body of the answer.
fn answers(binary: &str, database: &Path) -> Vec<(String, Vec<u8>)> {
    let mut command = net_pulse(binary);
    command.args(["--host", "127.0.0.1", "--port", "0", "--database"]).arg(database);
    let daemon = Daemon::spawn(command);
    let ask = |path: String| {
        let answer = daemon.request("GET", &path, None);
        let kind = answer.header("content-type").unwrap_or_default();
        let text = format!("== {path}\n{} {kind}\n{}\n", answer.status, condensed(&answer.body));
        (text, answer.body)
    };
    let all = requests().into_iter().map(ask).collect();
    let log = daemon.stop();
    assert!(!log.iter().any(|line| line.contains("damaged") || line.contains("skipped")), "{log:#?}");
    all
}

/// The counters that the next run continues from, and the settings. No API answer shows all of them.
fn stored_state(database: &Path) -> String {
    let opened = Store::open(database, &Options { max_bytes: 32 << 20 }).expect("a file of the test");
    let mut text = String::from("== what is remembered\n");
    let _ = writeln!(text, "next {} newest {:?} settings {:?}", opened.next_seq, opened.newest_unix, opened.settings);
    for record in &opened.records {
        let Record { id, name, kind, alias, mac, mono_ms, last_seen, .. } = record;
        let _ = write!(text, "{id} {name} {} {alias:?} {mac} {mono_ms} {last_seen}", kind.name());
        for (what, counters) in [("raw", &record.raw), ("lifetime", &record.lifetime)] {
            for (name, value) in COUNTER_NAMES.iter().zip(counters.0).filter(|(_, value)| *value > 0) {
                let _ = write!(text, " {what}.{name}={value}");
            }
        }
        text.push('\n');
    }
    text
}

#[test]
fn a_database_of_schema_2_gives_unchanged_answers() {
    assert_unchanged_answers("schema-2");
}

fn assert_unchanged_answers(name: &str) {
    let dir = Dir::new();
    let copy = |to: &str| {
        let to = PathBuf::from(dir.join(to));
        fs::copy(path(&format!("{name}.db")), &to).expect("a copy");
        to
    };
    let expect = fs::read_to_string(path(&format!("{name}.answers"))).expect("the file exists");
    let mut expect = expect.split_inclusive('\n').fold(Vec::<String>::new(), |mut all, line| {
        match all.last_mut().filter(|_| !line.starts_with("== ")) {
            Some(last) => last.push_str(line),
            None => all.push(line.to_string()),
        }
        all
    });
    let state = stored_state(&copy("remembered.db"));
    let database = copy("net-pulse.db");
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|which| which == "1") {
        return write(name, state, &answers(env!("CARGO_BIN_EXE_net-pulse"), &database));
    }
    assert_eq!(state, expect.remove(0));
    // The second start reads what the first one migrated and saved.
    for start in ["first", "second"] {
        let got = answers(env!("CARGO_BIN_EXE_net-pulse"), &database);
        assert_eq!(got.len(), expect.len());
        for ((text, body), expect) in got.iter().zip(&expect) {
            if text != expect {
                let kept = std::env::temp_dir().join(format!("net-pulse-history-{start}"));
                fs::write(&kept, body).expect("enough space");
                panic!("{start} start:\n{text}instead of\n{expect}the body is in {}", kept.display());
            }
        }
    }
}

#[test]
#[ignore = "writes tests/history again, for a new schema"]
fn write_files() {
    let binary = env!("CARGO_BIN_EXE_net-pulse");
    let dir = Dir::new();
    let database = PathBuf::from(dir.join("net-pulse.db"));
    let newest = fill(&database);
    assert!(newest < START + 9 * 86_400, "{newest}");
    let conn = Connection::open(&database).expect("a file of the test");
    let schema: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number");
    conn.execute_batch("VACUUM").expect("enough space");
    drop(conn);
    let name = format!("schema-{schema}");
    fs::create_dir_all(path("")).and_then(|()| fs::copy(&database, path(&format!("{name}.db")))).expect("a copy");
    write(&name, stored_state(&database), &answers(binary, &database));
}

fn write(name: &str, mut text: String, answers: &[(String, Vec<u8>)]) {
    answers.iter().for_each(|(answer, _)| text.push_str(answer));
    fs::write(path(&format!("{name}.answers")), text).expect("enough space");
}
