//! The page's controls in a real Chromium: each is used as a person would, and the API is asked whether it did what it
//! says. What the page shows is calculated here once more, from the API's answers.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use common::browser::*;
use common::past::{Random, unix};
use common::*;
use net_pulse::clock::Zone;
use net_pulse::config::Config;
use net_pulse::live::Tuning;
use net_pulse::model::{Batch, Counters, Event, EventKind, Kind, Mark, Record, Sample, Tick};
use net_pulse::store::{Flush, Options, Store};
use serde_json::{Value, json};

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

// What there is to see: a past, and a kernel's present.

/// Of `wan0` and `lan0`: 400 days, the last one minute by minute, with a hole of three hours eight hours ago. Marks in the
/// last two hours, and more of what is no mark than is asked for at once.
fn past(dir: &Dir) {
    let until = unix() - 90;
    let hole = until - 11 * HOUR..until - 8 * HOUR;
    let mut store = Store::open(dir.join("net-pulse.db").as_ref(), &Options { max_bytes: 32 << 20 }).unwrap().store;
    let mut records: Vec<Record> = [(1, "wan0"), (2, "lan0")]
        .map(|(id, name)| Record {
            id,
            name: name.to_string(),
            kind: Kind::Veth,
            alias: String::new(),
            ifindex: 1000 + id,
            boot: "another".to_string(),
            first_seen: until - 400 * DAY,
            last_seen: until,
            raw: Counters::ZERO,
            lifetime: Counters::ZERO,
            mono_ms: 0,
        })
        .to_vec();
    let event = |unix, kind, interface: &str, detail: &str| Event {
        unix: Some(unix),
        mono_ms: 0,
        kind,
        interface: interface.to_string(),
        detail: detail.to_string(),
    };
    let mut events = vec![
        event(until - 5000, EventKind::ClockStep, "", "the clock was set forward by 5 s"),
        event(until - 4000, EventKind::Reset, "wan0", "the counters began again from zero"),
        event(until - 3000, EventKind::Gap, "wan0", "nobody looked for 60 s"),
        event(until - 2000, EventKind::Implausible, "lan0", "more than a link can carry"),
    ];
    events.extend((0..300).map(|n| event(until - 1000 + n, EventKind::Appeared, "tun0", "it came")));
    let mut random = Random(0x2545_f491);
    let (mut batch, mut seq, mut time) = (Batch::default(), 0, until - 400 * DAY);
    while time < until {
        let step = if time < until - DAY { HOUR } else { 60 };
        time += step;
        seq += 1;
        if !hole.contains(&time) {
            for iface in [1, 2] {
                let mut most = |rate: usize| random.below(rate * step as usize) as u64;
                let delta = Counters([most(900_000), most(90_000), 900, 90, 1, 1, 1, 1]);
                batch.samples.push(Sample { iface, mark: Mark::Plain, span_ms: step as u64 * 1000, delta });
            }
        }
        batch.ticks.push(Tick {
            seq,
            mono_ms: (time + 400 * DAY - until + 1000) as u64 * 1000,
            unix: Some(time),
            end: batch.samples.len(),
        });
        if batch.ticks.len() == 120 || time >= until {
            let keep = Tuning::of(&Config::default()).keep;
            let (records, events) = (std::mem::take(&mut records), std::mem::take(&mut events));
            let (batch, zone) = (&mut batch, &Zone::UTC);
            let flush = Flush { batch, anchors: &[], records: &records, events: &events, settings: &[], keep, zone };
            store.flush(&flush).expect("room on the disk");
            batch.clear();
        }
    }
}

/// Nothing is booked while a test looks.
const STILL: [&str; 4] = ["--interval", "3600", "--primary", "wan0"];
const FAST: [&str; 2] = ["--interval", "1"];

fn daemon_at(dir: &Dir, address: SocketAddr, more: &[&str], environment: &[(&str, &str)]) -> Daemon {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    command.args(["--host", &host, "--port", &port, "--database", &dir.join("net-pulse.db")]).args(more);
    command.envs(environment.iter().copied());
    Daemon::spawn(command)
}

// What the page should say, calculated from what the API says.

const BITS: [(&str, f64); 4] = [("kbit/s", 125.0), ("Mbit/s", 125e3), ("Gbit/s", 125e6), ("Tbit/s", 125e9)];
const BYTES: [(&str, f64); 4] = [("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)];

/// With so many digits, and halves upwards.
fn fixed(value: f64, digits: usize) -> String {
    format!("{:.digits$}", value * (1.0 + 1e-14))
}

/// Values that stand together have the unit of the greatest.
fn together(values: &[Option<f64>], units: [(&str, f64); 4]) -> Vec<String> {
    let most = values.iter().flatten().fold(0.0, |most: f64, value| most.max(*value));
    let (name, size) = units.iter().rev().find(|(_, size)| most >= *size).unwrap_or(&units[0]);
    let digits = if most / size < 100.0 { 2 } else { 1 };
    let text =
        |value: &Option<f64>| value.map_or("–".into(), |value| format!("{} {name}", fixed(value / size, digits)));
    values.iter().map(text).collect()
}

fn amounts(values: &[&Value]) -> Vec<String> {
    together(&values.iter().map(|value| value.as_f64()).collect::<Vec<_>>(), BYTES)
}

/// In a column of rates.
fn megabits(value: Option<f64>) -> String {
    match value.map(|value| value / 125e3) {
        None => "–".to_string(),
        Some(value) if value > 0.0 && value < 0.005 => "<0.01".to_string(),
        Some(value) => fixed(value, 2),
    }
}

fn span(seconds: i64) -> String {
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, size) in [("d", DAY), ("h", HOUR), ("min", 60), ("s", 1)] {
        let count = rest / size;
        rest -= count * size;
        if count > 0 || !parts.is_empty() {
            parts.push(if count > 0 { format!("{count} {name}") } else { String::new() });
        }
    }
    parts.truncate(2);
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { "0 s".to_string() } else { parts.join(" ") }
}

/// The API's times.
fn seconds(value: &Value) -> i64 {
    let Some(text) = value.as_str() else { return value.as_i64().unwrap_or_else(|| panic!("no time: {value}")) };
    let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("a number");
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    // Days since 1970 of the proleptic calendar, counted from March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    days * DAY + part(11..13) * HOUR + part(14..16) * 60 + part(17..19)
}

/// As the browser writes it: `Sun Nov 22 2026`, `13:05` or `13:05:07`.
fn date(browser: &Browser, unix: i64) -> String {
    browser.run(&format!("return new Date({unix}000).toDateString()")).as_str().unwrap().to_string()
}

fn clock(browser: &Browser, unix: i64, exact: bool) -> String {
    let length = if exact { 8 } else { 5 };
    let text = browser.run(&format!("return new Date({unix}000).toTimeString().slice(0, {length})"));
    text.as_str().unwrap().to_string()
}

fn moment(browser: &Browser, unix: i64, step: i64) -> String {
    format!("{} {}", date(browser, unix), clock(browser, unix, step < 60))
}

const SIDES: [&str; 4] = ["rx", "tx", "rx_peak", "tx_peak"];

/// What the cursor reads out on bucket `at` of a series.
fn read_out(browser: &Browser, series: &Value, names: &[&str], at: usize) -> String {
    let (step, time) = (series["step"].as_i64().unwrap(), seconds(&series["t"][at]));
    let when = if step < DAY { moment(browser, time, step) } else { date(browser, time + step / 2) };
    let lines = names.iter().map(|name| {
        let texts = together(&SIDES.map(|side| series["interfaces"][name][side][at].as_f64()), BITS);
        let name = if names.len() > 1 { name } else { "" };
        format!("{name} ↓ {} ↑ {}\npeak ↓ {} ↑ {}", texts[0], texts[1], texts[2], texts[3])
    });
    std::iter::once(when).chain(lines).collect::<Vec<_>>().join("\n")
}

fn text_of(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector({})?.textContent ?? ''", json!(selector));
    browser.run(&script).as_str().unwrap().to_string()
}

/// Rows of cells.
fn cells(browser: &Browser, rows: &str) -> Vec<Vec<String>> {
    let script = format!(
        "return [...document.querySelectorAll({})].map((row) => [...row.children].map((cell) => cell.textContent))",
        json!(rows)
    );
    serde_json::from_value(browser.run(&script)).expect("texts")
}

/// Pairs of a list of facts.
fn facts(browser: &Browser, card: &str) -> Vec<(String, String)> {
    let script = format!(
        "const card = [...document.querySelectorAll('.more .card')].find((card) => \
         card.querySelector('h2').textContent === {});
         return [...card.querySelectorAll('.facts > div')].map((row) => [...row.children].map((cell) => \
         cell.children.length > 1 && cell.querySelector('span') ? [...cell.children].map((part) => \
         part.textContent).join(' | ') : cell.textContent))",
        json!(card)
    );
    serde_json::from_value(browser.run(&script)).expect("pairs")
}

fn fact(browser: &Browser, card: &str, term: &str) -> Option<String> {
    facts(browser, card).into_iter().find(|(known, _)| known == term).map(|(_, text)| text)
}

#[track_caller]
fn says(browser: &Browser, card: &str, term: &str, expect: &str) {
    let mut found = None;
    for _ in 0..200 {
        found = fact(browser, card, term);
        if found.as_deref() == Some(expect) {
            return;
        }
        rest(50);
    }
    panic!("{card}, {term}: {found:?}, not {expect:?}; {:?}", facts(browser, card));
}

/// Until the text is this one.
#[track_caller]
fn reads(browser: &Browser, selector: &str, expect: &str) {
    let mut found = String::new();
    for _ in 0..200 {
        found = text_of(browser, selector);
        if found == expect {
            return;
        }
        rest(50);
    }
    panic!("{selector}: {found:?}, not {expect:?}; {:#?}", browser.complaints());
}

// Ways to use the page.

fn open(daemon: &Daemon, browser: &Browser, hash: &str) {
    browser.visit("about:blank");
    browser.open(daemon, &format!("/{hash}"));
    browser.wait("an answer", "return ['live', 'stopped'].includes(document.querySelector('#state').textContent)");
}

fn hash(browser: &Browser) -> String {
    browser.address().split_once('#').map_or(String::new(), |(_, hash)| format!("#{hash}"))
}

fn parameter(hash: &str, name: &str) -> Option<i64> {
    let query = hash.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// From when to when, by the hash.
#[track_caller]
fn ends(browser: &Browser) -> (i64, i64) {
    let hash = hash(browser);
    let end = |name| parameter(&hash, name).unwrap_or_else(|| panic!("{name} is not in {hash}"));
    (end("from"), end("to"))
}

/// The newest of the requests for this, once there is one.
#[track_caller]
fn asked(browser: &Browser, path: &str) -> String {
    for _ in 0..200 {
        if let Some(last) = requests(browser).into_iter().rfind(|target| target.starts_with(path)) {
            return last;
        }
        rest(50);
    }
    panic!("{path} is never asked for; {:#?}", browser.complaints());
}

/// Targets of the requests since the last look.
fn requests(browser: &Browser) -> Vec<String> {
    let events = browser.network();
    let sent = events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
    let url = |event: &Value| event["params"]["request"]["url"].as_str().unwrap().to_string();
    sent.map(url).filter_map(|url| Some(format!("/{}", url.strip_prefix("http://")?.split_once('/')?.1))).collect()
}

/// Left, top, width and height, in sight.
fn frame(browser: &Browser, selector: &str) -> [i64; 4] {
    let script = format!(
        "const node = document.querySelector({});
         node.scrollIntoView({{ block: 'center' }});
         const {{ x, y, width, height }} = node.getBoundingClientRect();
         return [x, y, width, height].map(Math.round)",
        json!(selector)
    );
    serde_json::from_value(browser.run(&script)).expect("four numbers")
}

fn press(browser: &Browser, key: &str, shift: bool) {
    for kind in ["rawKeyDown", "keyUp"] {
        let modifiers = if shift { 8 } else { 0 };
        let event = json!({ "type": kind, "key": key, "code": key, "modifiers": modifiers });
        browser.devtools("Input.dispatchKeyEvent", event);
    }
}

fn mouse(browser: &Browser, kind: &str, x: i64, y: i64, clicks: u32) {
    let button = if kind == "mouseMoved" { "none" } else { "left" };
    let event = json!({ "type": kind, "x": x, "y": y, "button": button, "clickCount": clicks });
    browser.devtools("Input.dispatchMouseEvent", event);
}

fn double_click(browser: &Browser, x: i64, y: i64) {
    for clicks in [1, 2] {
        mouse(browser, "mousePressed", x, y, clicks);
        mouse(browser, "mouseReleased", x, y, clicks);
    }
}

/// A finger along these points.
fn touch(browser: &Browser, points: &[(i64, i64)]) {
    for (at, (x, y)) in points.iter().enumerate() {
        let kind = if at == 0 { "touchStart" } else { "touchMove" };
        browser.devtools("Input.dispatchTouchEvent", json!({ "type": kind, "touchPoints": [{ "x": x, "y": y }] }));
    }
    browser.devtools("Input.dispatchTouchEvent", json!({ "type": "touchEnd", "touchPoints": [] }));
}

fn pick(browser: &Browser, select: &str, value: &str) {
    browser.click(&format!("{select} option[value=\"{value}\"]"));
}

/// The control of this name, among those of the further views.
fn control(browser: &Browser, label: &str) -> String {
    let script = format!(
        "const label = [...document.querySelectorAll('label.field')].find((label) => \
         label.firstChild.textContent.trim() === {});
         label.lastElementChild.id = 'control';
         document.querySelectorAll('#control').forEach((node) => node === label.lastElementChild || \
         node.removeAttribute('id'));
         return true",
        json!(label)
    );
    browser.wait(label, &script);
    "#control".to_string()
}

fn no_complaints(browser: &Browser) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// A desktop's browser on a past of 400 days.
fn chart(body: impl FnOnce(&Dir, &Daemon, &Browser) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        past(&dir);
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &STILL);
        let Some(browser) = Browser::start(&dir) else { return };
        browser.wear(DESKTOP, Theme::Light);
        body(&dir, &daemon, &browser);
        no_complaints(&browser);
    });
}

const CHART_READY: &str = "return /^averages/.test(document.querySelector('#step').textContent) \
                           && document.querySelectorAll('#who button').length === 2 \
                           && !document.querySelector('#empty').textContent";

// The chart.

#[test]
fn each_range_and_grouping_is_asked_for_and_stated() {
    chart(|_, daemon, browser| {
        open(daemon, browser, "#/");
        browser.wait("the chart", CHART_READY);
        let ranges =
            [("1h", HOUR), ("6h", 6 * HOUR), ("24h", DAY), ("7d", 7 * DAY), ("30d", 30 * DAY), ("1y", 365 * DAY)];
        for (word, length) in ranges {
            requests(browser);
            browser.click_text("#ranges button", word);
            let target = asked(browser, "/api/traffic/series");
            assert_eq!(hash(browser), format!("#/?range={word}"));
            let (series, now) = (daemon.get(&target), unix());
            let (from, to) = (parameter(&target, "from").unwrap(), parameter(&target, "to").unwrap());
            let step = series["step"].as_i64().unwrap();
            assert!(from <= now - length && from > now - length - 2 * step - 5, "{word}: {target} at {now}");
            assert!(to >= now - 5 && to <= now + step + HOUR, "{word}: {target} at {now}");
            let count = series["t"].as_array().unwrap().len();
            assert!((12..=720).contains(&count), "{word}: {count} buckets");
            reads(browser, "#step", &format!("averages of {}, pale: peaks", span(step)));
            let pressed =
                "return [...document.querySelectorAll('#ranges [aria-pressed=true]')].map(b => b.textContent)";
            assert_eq!(browser.run(pressed), json!([word]));
            stated(browser, "wan0", now - length, now);
            assert!(requests(browser).iter().all(|target| !target.starts_with("/api/traffic/series")), "once");
        }

        for (word, step) in [("5 min", 300), ("hour", HOUR), ("day", DAY), ("auto", 0)] {
            browser.click_text("#ranges button", if step == 300 { "24h" } else { "7d" });
            browser.wait(
                word,
                &format!(
                    "return [...document.querySelectorAll('#tools option')] \
                .some((option) => option.textContent === '{word}' && !option.disabled)"
                ),
            );
            requests(browser);
            browser.click_text("#tools option", word);
            let target = asked(browser, "/api/traffic/series");
            let found = daemon.get(&target)["step"].as_i64().unwrap();
            assert_eq!(found, if step == 0 { 1800 } else { step }, "{target}");
            reads(browser, "#step", &format!("averages of {}, pale: peaks", span(found)));
            assert_eq!(browser.run("return document.querySelector('#tools select').value"), word);
        }
        // What would be too many or too few is not offered.
        let offered = "return [...document.querySelectorAll('#tools option')].map((o) => o.disabled)";
        for (range, expect) in [("1h", [false, false, true, true]), ("1y", [false, true, true, false])] {
            browser.click_text("#ranges button", range);
            let script = format!(
                "return ({offered_fn})().join() === '{}'",
                expect.map(|it| it.to_string()).join(","),
                offered_fn = format_args!("() => {{ {offered} }}")
            );
            browser.wait(range, &script);
        }

        // The latest five minutes are here already.
        requests(browser);
        browser.click_text("#ranges button", "5m");
        reads(browser, "#step", "averages of 1 s");
        stated(browser, "wan0", unix() - 300, unix());
        assert!(requests(browser).iter().all(|target| !target.starts_with("/api/traffic/series")));
        // Back is back.
        browser.back();
        browser.wait(
            "1y again",
            "return location.hash.includes('range=1y') \
            && document.querySelector('#ranges [aria-pressed=true]').textContent === '1y'",
        );
    });
}

/// The range that the chart says it shows, to the minute.
#[track_caller]
fn stated(browser: &Browser, names: &str, from: i64, to: i64) {
    let script = format!(
        "const words = (unix) => new Date(unix * 1000).toDateString().slice(0, 10) + ' ' \
         + new Date(unix * 1000).toTimeString().slice(0, 5);
         const label = document.querySelector('#chart').ariaLabel;
         return [-60, -3, 0, 3, 60].some((off) => label === \
         `Traffic of {names} from ${{words({from} + off)}} to ${{words({to} + off)}}`) || label"
    );
    for _ in 0..60 {
        if browser.run(&script) == true {
            return;
        }
        rest(50);
    }
    panic!("{} is stated, not {from} to {to}", browser.run(&script));
}

#[test]
fn the_chart_is_zoomed_and_moved_by_hand() {
    chart(|_, daemon, browser| {
        open(daemon, browser, "#/");
        browser.wait("the chart", CHART_READY);
        let [x, y, width, height] = frame(browser, "#chart");
        let middle = y + height / 2;
        let back = "return document.querySelector('#tools button:nth-child(5)').disabled";
        assert_eq!(browser.run(back), true, "there is nothing to go back to");

        // By dragging: what lay between the two places of the cursor.
        let (one, other) = (x + width / 2, x + width * 3 / 4);
        let at = |place: i64| {
            point_at(browser, place, middle);
            let text = text_of(browser, "#read");
            let line = json!(text.lines().next().unwrap());
            browser.run(&format!("return Date.parse({line}) / 1000")).as_i64().unwrap()
        };
        let bounds = [at(one), at(other)];
        requests(browser);
        browser.drag(&[(one, middle), (one + 60, middle), (other, middle)]);
        browser.wait("zoomed", "return location.hash.includes('from=')");
        let target = asked(browser, "/api/traffic/series");
        let zoomed = ends(browser);
        let step = daemon.get("/api/traffic/series?points=400")["step"].as_i64().unwrap();
        for (end, bucket) in [(zoomed.0, bounds[0]), (zoomed.1, bounds[1])] {
            assert!((bucket - 1..=bucket + step + 1).contains(&end), "{end} is not in {bucket} + {step}");
        }
        stated(browser, "wan0", zoomed.0, zoomed.1);
        let series = daemon.get(&target);
        assert!(seconds(&series["t"][0]) <= zoomed.0 && parameter(&target, "to") >= Some(zoomed.1), "{target}");
        assert_eq!(browser.run(back), false);

        // By steps, which are one place to come back from.
        let length = zoomed.1 - zoomed.0;
        let buttons = [("→", 0.5, 1.0), ("←", -0.5, 1.0), ("←", -0.5, 1.0), ("−", -0.5, 2.0), ("+", 0.5, 0.5)];
        for (word, by, factor) in buttons {
            let before = ends(browser);
            browser.click_text("#tools button", word);
            browser.wait(word, &format!("return !location.hash.includes('from={}&')", before.0));
            let (after, long) = (ends(browser), (before.1 - before.0) as f64);
            let expect = match factor {
                1.0 => (before.0 as f64 + by * long, before.1 as f64 + by * long),
                _ => {
                    let middle = (before.0 + before.1) as f64 / 2.0;
                    (middle - long * factor / 2.0, middle + long * factor / 2.0)
                }
            };
            let near = |found: i64, wanted: f64| (found as f64 - wanted).abs() <= 1.0;
            assert!(near(after.0, expect.0) && near(after.1, expect.1), "{word}: {before:?} to {after:?}");
            stated(browser, "wan0", after.0, after.1);
        }
        browser.back();
        browser.wait("whole", "return !location.hash.includes('from=')");
        browser.wait("24 h", "return document.querySelector('#ranges [aria-pressed=true]')?.textContent === '24h'");

        // By keys.
        browser.run("document.querySelector('#chart').focus()");
        let whole = unix();
        press(browser, "+", false);
        browser.wait("zoomed", "return location.hash.includes('from=')");
        let half = ends(browser);
        assert!((half.1 - half.0 - DAY / 2).abs() <= 2 && (half.1 - (whole - DAY / 4)).abs() <= 5, "{half:?}");
        press(browser, "ArrowLeft", true);
        browser.wait("moved", &format!("return !location.hash.includes('from={}&')", half.0));
        assert!((ends(browser).0 - (half.0 - DAY / 8)).abs() <= 2, "{half:?} {:?}", ends(browser));
        press(browser, "-", false);
        browser.wait("wider", &format!("return !location.hash.includes('from={}&')", half.0 - DAY / 8));
        assert!((ends(browser).1 - ends(browser).0 - DAY).abs() <= 4);
        press(browser, "Escape", false);
        browser.wait("whole", "return !location.hash.includes('from=')");

        // By moving it: with the button, or with Shift held.
        browser.click_text("#tools button", "Move");
        assert_eq!(browser.run("return document.querySelector('#tools button:nth-child(6)').ariaPressed"), "true");
        let now = unix();
        browser.drag(&[(one, middle), (one + 50, middle), (one + 200, middle)]);
        browser.wait("moved", "return location.hash.includes('from=')");
        let moved = ends(browser);
        // Axis labels take a part of the width.
        let by = |plot: i64| 200 * DAY / plot;
        let back_by = now - moved.1;
        assert!((by(width - 20) - 60..=by(width - 100) + 60).contains(&back_by), "{back_by} for 200 of {width}");
        assert!((moved.1 - moved.0 - DAY).abs() <= 2, "{moved:?}");
        let seen = ends(browser);
        touch_screen(browser, true);
        touch(browser, &[(one, middle), (one - 40, middle), (one - 100, middle)]);
        browser.wait("moved by a finger", &format!("return !location.hash.includes('from={}&')", seen.0));
        let finger = ends(browser);
        assert!((finger.0 - seen.0 - back_by / 2).abs() <= back_by / 40, "{seen:?} {finger:?} {back_by}");
        browser.click_text("#tools button", "Move");
        touch(browser, &[(one, middle), (one + 40, middle), (one + 100, middle)]);
        browser.wait("a finger picks", &format!("return !location.hash.includes('from={}&')", finger.0));
        let picked = ends(browser);
        assert!(picked.0 > finger.0 && picked.1 < finger.1, "{finger:?} {picked:?}");
        touch_screen(browser, false);

        // Both ways back.
        double_click(browser, one, middle);
        browser.wait("whole", "return !location.hash.includes('from=')");
        browser.drag(&[(one, middle), (other, middle)]);
        browser.wait("zoomed", "return location.hash.includes('from=')");
        browser.click_text("#tools button", "Whole");
        browser.wait("whole", "return !location.hash.includes('from=')");
        assert_eq!(length, zoomed.1 - zoomed.0);

        // Mirrored, what is sent has its place below what is received; laid over each other, both stand on one floor.
        browser.hover(5, 5);
        for over in [false, true, false] {
            let script = format!(
                "return location.hash.includes('over') === {over} \
                 && document.querySelector('#tools button:nth-child(7)').ariaPressed === '{over}' \
                 && {RECEIVED}.reduce((low, y) => Math.max(low, y), 0) / canvas.height > 0.9 === {over}"
            );
            browser.wait(&format!("overlaid: {over}"), &script);
            browser.click_text("#tools button", "Overlay");
        }
    });
}

/// For each pixel column of the chart's right half, how far down there is the colour of what is received; -1 for nowhere.
/// Text is as blue in places, but higher up or farther left.
const RECEIVED: &str = "(() => {
    window.canvas = document.querySelector('#chart');
    const { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, width, height);
    return Array.from({ length: width >> 1 }, (_, column) => {
        let lowest = -1;
        for (let y = 30; y < height - 26; y++) {
            const at = 4 * (y * width + (width >> 1) + column);
            if (data[at + 2] - data[at] > 34) lowest = y;
        }
        return lowest;
    });
})()";

/// The first move over the chart only loads what follows.
fn point_at(browser: &Browser, x: i64, y: i64) {
    wait_until("the cursor is there", || {
        browser.hover(x - 1, y);
        browser.hover(x, y);
        browser.run("return !document.querySelector('#read').hidden") == true
    });
}

fn touch_screen(browser: &Browser, on: bool) {
    browser.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": on }));
}

#[test]
fn the_cursor_and_the_table_say_what_the_api_says() {
    chart(|_, daemon, browser| {
        open(daemon, browser, "#/");
        browser.wait("the chart", CHART_READY);
        browser.click_text("#ranges button", "24h");
        let target = asked(browser, "/api/traffic/series");
        let series = daemon.get(&target);
        let [x, y, width, height] = frame(browser, "#chart");
        let middle = y + height / 2;
        let t: Vec<i64> = series["t"].as_array().unwrap().iter().map(seconds).collect();
        let end = t.len() - 1;
        let (mut before, mut holes) = (0, 0);
        let all_marks = marks(daemon, &["wan0"]);
        let expect = |series: &Value, names: &[&str], at: usize| {
            let (from, step) = (seconds(&series["t"][at]), series["step"].as_i64().unwrap());
            let marked = marks(daemon, names).into_iter().filter(|(time, _)| (from..from + step).contains(time));
            let lines = std::iter::once(read_out(browser, series, names, at)).chain(marked.map(|(_, text)| text));
            lines.collect::<Vec<_>>().join("\n")
        };
        for eighth in 1..=15 {
            let place = x + width * eighth / 16;
            point_at(browser, place, middle);
            let text = text_of(browser, "#read");
            let at = browser.run("return document.querySelector('#chart').ariaValueNow");
            let at: usize = at.as_str().unwrap().parse().unwrap();
            assert_eq!(text, expect(&series, &["wan0"], at), "bucket {at}");
            assert_eq!(browser.run("return document.querySelector('#chart').ariaValueText"), json!(text));
            // The axis takes between 30 and 100 pixels.
            let part = |axis: i64| (width * eighth / 16 - axis) * DAY / (width - axis);
            let time = t[at] - (t[end] - DAY);
            assert!((part(100) - 600..=part(30) + 600).contains(&time), "{eighth}/16: {time} s");
            assert!(at > before, "{at} after {before}");
            before = at;
            holes += usize::from(text.contains("– ↑ –"));
        }
        assert!(holes >= 1, "the hole was looked at");

        // By keys: to the end, and back bucket by bucket.
        browser.hover(5, 5);
        browser.wait("no cursor", "return document.querySelector('#read').hidden");
        browser.run("document.querySelector('#chart').focus()");
        let mut seen = Vec::new();
        for (key, at) in [("ArrowLeft", end), ("ArrowLeft", end - 1), ("ArrowLeft", end - 2), ("ArrowRight", end - 1)] {
            press(browser, key, false);
            browser.wait(key, &format!("return document.querySelector('#chart').ariaValueNow === '{at}'"));
            reads(browser, "#read", &expect(&series, &["wan0"], at));
            seen.push(at);
        }
        assert_eq!(browser.run("return document.querySelector('#chart').ariaValueMax"), end.to_string());
        // Where something is marked, it is said what.
        assert_eq!(all_marks.iter().filter(|(_, text)| text.contains("began again")).count(), 2, "{all_marks:?}");
        let marked = t.iter().rposition(|from| *from <= all_marks.last().unwrap().0).unwrap();
        for _ in marked..end - 1 {
            press(browser, "ArrowLeft", false);
        }
        browser.wait("there", &format!("return document.querySelector('#chart').ariaValueNow === '{marked}'"));
        reads(browser, "#read", &expect(&series, &["wan0"], marked));
        assert!(text_of(browser, "#read").contains("the clock was set forward by 5 s"));
        browser.run("document.querySelector('#chart').blur()");
        browser.wait("no cursor", "return document.querySelector('#read').hidden");

        // By a finger that taps.
        touch_screen(browser, true);
        touch(browser, &[(x + width / 2, middle)]);
        browser.wait("a cursor", "return !document.querySelector('#read').hidden");
        let at = browser.run("return document.querySelector('#chart').ariaValueNow");
        reads(browser, "#read", &expect(&series, &["wan0"], at.as_str().unwrap().parse().unwrap()));
        touch_screen(browser, false);

        // The hole is a hole in the picture too, and the only one.
        let columns: Vec<i64> = serde_json::from_value(browser.run(&format!("return {RECEIVED}"))).unwrap();
        let mut runs: Vec<(bool, usize)> = Vec::new();
        for bare in columns.iter().map(|lowest| *lowest < 0) {
            match runs.last_mut() {
                Some((last, count)) if *last == bare => *count += 1,
                _ => runs.push((bare, 1)),
            }
        }
        let wide: Vec<usize> =
            runs.iter().filter(|(bare, count)| *bare && *count > 20).map(|(_, count)| *count).collect();
        let hole = (width - 60) as usize * 3 / 24;
        assert!(wide.len() == 1 && wide[0].abs_diff(hole) <= 12, "{wide:?}, {hole}; {runs:?}");
        // Each mark is a line over the whole height.
        let lines = "const canvas = document.querySelector('#chart');
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, canvas.height >> 1, canvas.width, 1);
            return Array.from({ length: canvas.width }, (_, x) => data.slice(4 * x, 4 * x + 3).join())
                .filter((colour) => colour === '163,22,29').length";
        let drawn = browser.run(lines).as_u64().unwrap() as usize;
        // Two that are next to each other are one.
        assert!(drawn + 1 >= all_marks.len() && drawn <= all_marks.len() && drawn >= 3, "{drawn} of {all_marks:?}");

        // As a table: what is written there, and what is marked.
        browser.click("#figures summary");
        browser.wait("the table", "return document.querySelectorAll('#table tr').length > 10");
        table(daemon, browser, &series, &["wan0"]);

        // Two of them, one upon the other.
        requests(browser);
        browser.click_text("#who button", "lan0");
        let target = asked(browser, "/api/traffic/series");
        assert_eq!(hash(browser), "#/?range=24h&i=wan0&i=lan0");
        let series = daemon.get(&target);
        let both = ["wan0", "lan0"];
        assert_eq!(series["interfaces"].as_object().unwrap().len(), 2);
        browser.wait("both", "return document.querySelector('#chart').ariaLabel.startsWith('Traffic of wan0, lan0 ')");
        browser.wait("both", "return document.querySelectorAll('#table tr:nth-child(2) th').length === 9");
        table(daemon, browser, &series, &both);
        point_at(browser, x + width / 4, middle);
        let at = browser.run("return document.querySelector('#chart').ariaValueNow");
        reads(browser, "#read", &expect(&series, &both, at.as_str().unwrap().parse().unwrap()));
        let pressed = "return [...document.querySelectorAll('#who button')].map((chip) => chip.ariaPressed)";
        assert_eq!(browser.run(pressed), json!(["true", "true"]));
        browser.click_text("#who button", "wan0");
        browser.wait("one", "return document.querySelector('#chart').ariaLabel.startsWith('Traffic of lan0 from')");
        assert_eq!(hash(browser), "#/?range=24h&i=lan0");
    });
}

/// What the chart marks of these, newest first: when, and the words.
fn marks(daemon: &Daemon, names: &[&str]) -> Vec<(i64, String)> {
    let kinds = "kind=reset&kind=gap&kind=implausible&kind=clock_step";
    let events = daemon.get(&format!("/api/events?limit=1000&from={}&{kinds}", unix() - DAY));
    let ours = |event: &&Value| event["interface"] == "" || names.contains(&event["interface"].as_str().unwrap());
    let words =
        |event: &Value| format!("{} {}", event["interface"].as_str().unwrap(), event["detail"].as_str().unwrap());
    let events = events.as_array().unwrap().clone();
    events.iter().filter(ours).map(|event| (seconds(&event["time"]), words(event))).collect()
}

/// The table behind the chart: at most 24 rows of neighbouring buckets, and then the marks.
#[track_caller]
fn table(daemon: &Daemon, browser: &Browser, series: &Value, names: &[&str]) {
    let found = cells(browser, "#table tr");
    let head = |side: &str, name: &str| if names.len() > 1 { format!("{name} {side}") } else { format!(" {side}") };
    let sides = ["↓", "↑", "peak ↓", "peak ↑"];
    let mut expect = vec![vec!["From".to_string()]];
    expect[0].extend(names.iter().flat_map(|name| sides.map(|side| head(side, name))));
    let (t, step) = (series["t"].as_array().unwrap(), series["step"].as_i64().unwrap());
    let size = t.len().div_ceil(24);
    for from in (0..t.len()).step_by(size) {
        let mut row = vec![moment(browser, seconds(&t[from]), step)];
        for name in names {
            for side in SIDES {
                let part = &series["interfaces"][name][side].as_array().unwrap()[from..(from + size).min(t.len())];
                let known: Vec<f64> = part.iter().filter_map(Value::as_f64).collect();
                let value = match side.len() {
                    2 => known.iter().sum::<f64>() / known.len() as f64,
                    _ => known.iter().fold(0.0, |most: f64, value| most.max(*value)),
                };
                row.push(megabits((!known.is_empty()).then_some(value)));
            }
        }
        expect.push(row);
    }
    for (time, text) in marks(daemon, names) {
        expect.push(vec![moment(browser, time, step), text]);
    }
    assert_eq!(found, expect);
}
