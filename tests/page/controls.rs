//! Tests each control of the page in Chromium: uses it as a user does, and checks the effect through the API. The
//! expected texts are calculated here from the answers of the API.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use crate::browser::*;
use crate::common::disk::InjectedFault;
use crate::common::stored_history::{Random, record, save, unix_now};
use crate::common::*;
use crate::home::event;
use net_pulse::clock::Zone;
use net_pulse::model::{Batch, COUNTERS, Counters, EventKind, InterfaceKind, Record, Sample, SampleQuality, Tick};
use net_pulse::store::{Options, Store};
use serde_json::{Value, json};

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

// Test data: a stored history, and links in the kernel.

/// Writes a history of `wan0` and `lan0`: 400 days, the last one in steps of a minute, with a gap of three hours that
/// ended eight hours ago. Events with marks in the last two hours, and more other events than the page requests at
/// once.
fn write_history(dir: &Dir, zone: &str) {
    let until = unix_now() - 90;
    let hole = until - 11 * HOUR..until - 8 * HOUR;
    let zone = Zone::parse(zone).expect("a zone");
    let mut store = Store::open(dir.join("net-pulse.db").as_ref(), &Options { max_bytes: 32 << 20 }).unwrap().store;
    let mut records: Vec<Record> = [(1, "wan0"), (2, "lan0")]
        .map(|(id, name)| record(id, name, InterfaceKind::Veth, until - 400 * DAY, until))
        .to_vec();
    let mut events = vec![
        event(until - 5000, EventKind::ClockStep, "", "the clock was set forward by 5 s"),
        event(until - 4000, EventKind::Reset, "wan0", "the counters restarted from zero"),
        event(until - 3000, EventKind::Gap, "wan0", "no reading for 60 s"),
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
                let delta = Counters::of([most(900_000), most(90_000), 900, 90, 1, 1, 1, 1]);
                batch.samples.push(Sample { iface, quality: SampleQuality::Plain, span_ms: step as u64 * 1000, delta });
            }
        }
        batch.ticks.push(Tick {
            seq,
            mono_ms: (time + 400 * DAY - until + 1000) as u64 * 1000,
            unix: Some(time),
            end: batch.samples.len(),
        });
        if batch.ticks.len() == 120 || time >= until {
            save(&mut store, &mut batch, &mut records, &std::mem::take(&mut events), &[], &zone);
        }
    }
}

/// No new samples while a test compares values.
const STILL: [&str; 4] = ["--interval", "3600", "--primary", "wan0"];
const FAST: [&str; 2] = ["--interval", "1"];

fn daemon_at(dir: &Dir, address: SocketAddr, more: &[&str], environment: &[(&str, &str)]) -> Daemon {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    command.args(["--host", &host, "--port", &port, "--database", &dir.join("net-pulse.db")]).args(more);
    command.envs(environment.iter().copied());
    Daemon::spawn(command)
}

// Expected texts of the page, calculated from answers of the API.

const BITS: [(&str, f64); 4] = [("kbit/s", 125.0), ("Mbit/s", 125e3), ("Gbit/s", 125e6), ("Tbit/s", 125e9)];
const BYTES: [(&str, f64); 4] = [("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)];

/// Formats with a number of digits; rounds halves up, as JavaScript does.
fn fixed(value: f64, digits: usize) -> String {
    format!("{:.digits$}", value * (1.0 + 1e-14))
}

/// Formats values that are shown together, in the unit of the greatest.
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

/// A rate in a column of rates.
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

/// A time of the API as Unix seconds.
fn seconds(value: &Value) -> i64 {
    let Some(text) = value.as_str() else { return value.as_i64().unwrap_or_else(|| panic!("no time: {value}")) };
    let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("a number");
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    days * DAY + part(11..13) * HOUR + part(14..16) * 60 + part(17..19)
}

/// A date as the browser formats it: `Sun Nov 22 2026`.
fn date(browser: &Browser, unix: i64) -> String {
    browser.run(&format!("return new Date({unix}000).toDateString()")).as_str().unwrap().to_string()
}

/// A date of the API plus `later` days, as the page formats it.
fn day_of(browser: &Browser, first: &Value, later: i64) -> String {
    let (first, later) = (first.as_str().expect("a date"), later * DAY * 1000);
    let script = format!(
        "return new Date(Date.parse('{first}') + {later}).toLocaleDateString('en', {{ timeZone: 'UTC', weekday: 'short', \
         month: 'short', day: '2-digit', year: 'numeric' }}).replace(/,/g, '')"
    );
    browser.run(&script).as_str().unwrap().to_string()
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

/// The text of the cursor at bucket `at` of a series.
fn cursor_text(browser: &Browser, series: &Value, names: &[&str], at: usize) -> String {
    let (step, time) = (series["step"].as_i64().unwrap(), seconds(&series["t"][at]));
    let when = match &series["first_day"] {
        Value::Null => moment(browser, time, step),
        first => day_of(browser, first, at as i64 * step / DAY),
    };
    let lines = names.iter().map(|name| {
        let texts = together(&SIDES.map(|side| series["interfaces"][name][side][at].as_f64()), BITS);
        let title = if names.len() > 1 { name } else { "" };
        let observed = series["interfaces"][name]["observed"][at].as_i64().unwrap();
        let known = match observed * 100 < step * 99 {
            true => format!("\nmeasured {} of {}", span(observed), span(step)),
            false => String::new(),
        };
        format!("{title} ↓ {} ↑ {}\npeak ↓ {} ↑ {}{known}", texts[0], texts[1], texts[2], texts[3])
    });
    std::iter::once(when).chain(lines).collect::<Vec<_>>().join("\n")
}

fn text_of(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector({})?.textContent ?? ''", json!(selector));
    browser.run(&script).as_str().unwrap().to_string()
}

/// The texts of a table, by rows and cells.
fn cells(browser: &Browser, rows: &str) -> Vec<Vec<String>> {
    let script = format!(
        "return [...document.querySelectorAll({})].map((row) => [...row.children].map((cell) => cell.textContent))",
        json!(rows)
    );
    serde_json::from_value(browser.run(&script)).expect("texts")
}

/// The labels and values of a list of facts.
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

/// Waits until a fact has this value.
#[track_caller]
fn expect_fact(browser: &Browser, card: &str, term: &str, expect: &str) {
    let mut found = None;
    for _ in 0..200 {
        found = fact(browser, card, term);
        if found.as_deref() == Some(expect) {
            return;
        }
        sleep_ms(50);
    }
    panic!("{card}, {term}: {found:?}, not {expect:?}; {:?}", facts(browser, card));
}

/// Waits until an element has this text.
#[track_caller]
fn expect_text(browser: &Browser, selector: &str, expect: &str) {
    let mut found = String::new();
    for _ in 0..200 {
        found = text_of(browser, selector);
        if found == expect {
            return;
        }
        sleep_ms(50);
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

/// The range in the hash.
#[track_caller]
fn ends(browser: &Browser) -> (i64, i64) {
    let hash = hash(browser);
    let end = |name| parameter(&hash, name).unwrap_or_else(|| panic!("{name} is not in {hash}"));
    (end("from"), end("to"))
}

/// Waits until the chart shows the range in the hash, and returns it.
#[track_caller]
fn shown(browser: &Browser) -> (i64, i64) {
    let (from, to) = ends(browser);
    expect_range(browser, "wan0", from, to);
    (from, to)
}

/// True when the chart shows a whole range that ends now.
const WHOLE: &str = "return !location.hash.includes('from=') && document.querySelector('#ranges [aria-pressed=true]')";

/// Waits for a request whose path begins with `path`, and returns the latest one.
#[track_caller]
fn latest_request(browser: &Browser, path: &str) -> String {
    for _ in 0..200 {
        if let Some(last) = requests(browser).into_iter().rfind(|target| target.starts_with(path)) {
            return last;
        }
        sleep_ms(50);
    }
    panic!("no request for {path}; {:#?}", browser.complaints());
}

/// Targets of the requests since the last call.
fn requests(browser: &Browser) -> Vec<String> {
    let events = browser.network();
    let sent = events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
    let url = |event: &Value| event["params"]["request"]["url"].as_str().unwrap().to_string();
    sent.map(url).filter_map(|url| Some(format!("/{}", url.strip_prefix("http://")?.split_once('/')?.1))).collect()
}

/// Scrolls an element into view and returns its left, top, width and height.
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

/// Moves a finger along these points.
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

/// Waits for the field with this label, and returns a selector of its control.
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

/// Runs a test in a desktop browser with a history of 400 days.
fn chart(body: impl FnOnce(&Dir, &Daemon, &Browser) + Send) {
    chart_in("UTC0", body);
}

fn chart_in(zone: &str, body: impl FnOnce(&Dir, &Daemon, &Browser) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        write_history(&dir, zone);
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &[&STILL[..], &["--timezone", zone]].concat());
        let Some(browser) = Browser::start(&dir) else { return };
        browser.emulate(DESKTOP, Theme::Light);
        body(&dir, &daemon, &browser);
        no_complaints(&browser);
    });
}

const CHART_READY: &str = "return /^averages/.test(document.querySelector('#step').textContent) \
                           && document.querySelectorAll('#who button').length === 2 \
                           && !document.querySelector('#empty').textContent";

// The chart.

#[test]
fn each_range_and_grouping_is_requested_and_shown() {
    chart(|_, daemon, browser| {
        open(daemon, browser, "#/");
        browser.wait("the chart", CHART_READY);
        let ranges =
            [("1h", HOUR), ("6h", 6 * HOUR), ("24h", DAY), ("7d", 7 * DAY), ("30d", 30 * DAY), ("1y", 365 * DAY)];
        for (word, length) in ranges {
            requests(browser);
            let before = unix_now();
            browser.click_text("#ranges button", word);
            let target = latest_request(browser, "/api/traffic/series");
            assert_eq!(hash(browser), format!("#/?range={word}"));
            let (series, now) = (daemon.get(&target), unix_now());
            let (from, to) = (parameter(&target, "from").unwrap(), parameter(&target, "to").unwrap());
            let step = series["step"].as_i64().unwrap();
            let clocks = format!("{word}: {target} between {before} and {now}");
            assert!(from <= now - length && from > before - length - 2 * step - 5, "{clocks}");
            assert!(to >= before - 5 && to <= now + step + HOUR, "{clocks}");
            let count = series["t"].as_array().unwrap().len();
            assert!((12..=720).contains(&count), "{word}: {count} buckets");
            expect_text(browser, "#step", &format!("averages of {}, pale: peaks", span(step)));
            let pressed =
                "return [...document.querySelectorAll('#ranges [aria-pressed=true]')].map(b => b.textContent)";
            assert_eq!(browser.run(pressed), json!([word]));
            expect_range(browser, "wan0", now - length, now);
            // One request, until a new bucket is possible.
            let again = requests(browser).into_iter().find(|target| target.starts_with("/api/traffic/series"));
            assert!(again.is_none() || unix_now() - before >= step.max(10), "{again:?} after {target}");
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
            let step = if step == 0 { 1800 } else { step };
            // The request of the range before may appear only now.
            wait_until(word, || daemon.get(&latest_request(browser, "/api/traffic/series"))["step"] == step);
            expect_text(browser, "#step", &format!("averages of {}, pale: peaks", span(step)));
            assert_eq!(browser.run("return document.querySelector('#tools select').value"), word);
        }
        // Groupings with too many or too few buckets are disabled.
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

        // The page already has the latest five minutes.
        requests(browser);
        browser.click_text("#ranges button", "5m");
        expect_text(browser, "#step", "averages of 1 s");
        expect_range(browser, "wan0", unix_now() - 300, unix_now());
        assert!(requests(browser).iter().all(|target| !target.starts_with("/api/traffic/series")));
        // The browser's back button.
        browser.back();
        browser.wait(
            "1y again",
            "return location.hash.includes('range=1y') \
            && document.querySelector('#ranges [aria-pressed=true]').textContent === '1y'",
        );
    });
}

/// Waits until the chart's label has this range, to the minute.
#[track_caller]
fn expect_range(browser: &Browser, names: &str, from: i64, to: i64) {
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
        sleep_ms(50);
    }
    panic!("the label is {}, not {from} to {to}", browser.run(&script));
}

#[test]
fn mouse_keys_and_touch_zoom_and_move_the_chart() {
    chart(|_, daemon, browser| {
        open(daemon, browser, "#/");
        browser.wait("the chart", CHART_READY);
        let [x, y, width, height] = frame(browser, "#chart");
        let middle = y + height / 2;
        let back = "return document.querySelector('#tools button:nth-child(5)').disabled";
        assert_eq!(browser.run(back), true, "the whole range is shown already");

        // Dragging selects the range between two positions of the cursor.
        let (one, other) = (x + width / 2, x + width * 3 / 4);
        let at = |place: i64| {
            point_at(browser, place, middle);
            let text = text_of(browser, "#read");
            let line = json!(text.lines().next().unwrap());
            browser.run(&format!("return Date.parse({line}) / 1000")).as_i64().unwrap()
        };
        let began = unix_now();
        let bounds = [at(one), at(other)];
        requests(browser);
        browser.drag(&[(one, middle), (one + 60, middle), (other, middle)]);
        browser.wait("zoomed", "return location.hash.includes('from=')");
        let target = latest_request(browser, "/api/traffic/series");
        let zoomed = shown(browser);
        let step = daemon.get("/api/traffic/series?points=400")["step"].as_i64().unwrap();
        // The time at a position advances with the clock.
        let passed = unix_now() - began;
        for (end, bucket) in [(zoomed.0, bounds[0]), (zoomed.1, bounds[1])] {
            let late = bucket + step + passed + 1;
            assert!((bucket - 1..=late).contains(&end), "{end} is not in {bucket} + {step}, {passed} s later");
        }
        expect_range(browser, "wan0", zoomed.0, zoomed.1);
        let series = daemon.get(&target);
        assert!(seconds(&series["t"][0]) <= zoomed.0 && parameter(&target, "to") >= Some(zoomed.1), "{target}");
        assert_eq!(browser.run(back), false);

        // Steps by buttons, which are one entry in the browser's history.
        let length = zoomed.1 - zoomed.0;
        let buttons = [("→", 0.5, 1.0), ("←", -0.5, 1.0), ("←", -0.5, 1.0), ("−", -0.5, 2.0), ("+", 0.5, 0.5)];
        for (word, by, factor) in buttons {
            let before = shown(browser);
            browser.click_text("#tools button", word);
            browser.wait(word, &format!("return !location.hash.includes('from={}&')", before.0));
            let (after, long) = (shown(browser), (before.1 - before.0) as f64);
            let expect = match factor {
                1.0 => (before.0 as f64 + by * long, before.1 as f64 + by * long),
                _ => {
                    let middle = (before.0 + before.1) as f64 / 2.0;
                    (middle - long * factor / 2.0, middle + long * factor / 2.0)
                }
            };
            let near = |found: i64, wanted: f64| (found as f64 - wanted).abs() <= 1.0;
            assert!(near(after.0, expect.0) && near(after.1, expect.1), "{word}: {before:?} to {after:?}");
            expect_range(browser, "wan0", after.0, after.1);
        }
        browser.back();
        browser.wait("whole", WHOLE);

        // Keys.
        browser.run("document.querySelector('#chart').focus()");
        let whole = unix_now();
        press(browser, "+", false);
        browser.wait("zoomed", "return location.hash.includes('from=')");
        let half = shown(browser);
        assert!((half.1 - half.0 - DAY / 2).abs() <= 2, "{half:?}");
        assert!((whole - 5..=unix_now() + 5).contains(&(half.1 + DAY / 4)), "{half:?}, of a whole until {whole}");
        press(browser, "ArrowLeft", true);
        browser.wait("moved", &format!("return !location.hash.includes('from={}&')", half.0));
        assert!((shown(browser).0 - (half.0 - DAY / 8)).abs() <= 2, "{half:?} {:?}", shown(browser));
        press(browser, "-", false);
        browser.wait("wider", &format!("return !location.hash.includes('from={}&')", half.0 - DAY / 8));
        assert!((shown(browser).1 - shown(browser).0 - DAY).abs() <= 4);
        press(browser, "Escape", false);
        browser.wait("whole", WHOLE);

        // Moving: with the button, or with Shift.
        browser.click_text("#tools button", "Move");
        assert_eq!(browser.run("return document.querySelector('#tools button:nth-child(6)').ariaPressed"), "true");
        let now = unix_now();
        browser.drag(&[(one, middle), (one + 50, middle), (one + 200, middle)]);
        browser.wait("moved", "return location.hash.includes('from=')");
        let moved = shown(browser);
        // The labels of the axis take a part of the width.
        let by = |plot: i64| 200 * DAY / plot;
        let back_by = now - moved.1;
        assert!((by(width - 20) - 60..=by(width - 100) + 60).contains(&back_by), "{back_by} for 200 of {width}");
        assert!((moved.1 - moved.0 - DAY).abs() <= 2, "{moved:?}");
        let seen = shown(browser);
        touch_screen(browser, true);
        touch(browser, &[(one, middle), (one - 40, middle), (one - 100, middle)]);
        browser.wait("moved by a finger", &format!("return !location.hash.includes('from={}&')", seen.0));
        let finger = shown(browser);
        assert!((finger.0 - seen.0 - back_by / 2).abs() <= back_by / 40, "{seen:?} {finger:?} {back_by}");
        browser.click_text("#tools button", "Move");
        touch(browser, &[(one, middle), (one + 40, middle), (one + 100, middle)]);
        browser.wait("a finger picks", &format!("return !location.hash.includes('from={}&')", finger.0));
        let picked = shown(browser);
        assert!(picked.0 > finger.0 && picked.1 < finger.1, "{finger:?} {picked:?}");
        touch_screen(browser, false);

        // The chart does not move into the future.
        let far = shown(browser);
        for _ in 0..2 * DAY / (far.1 - far.0) {
            browser.click_text("#tools button", "→");
        }
        browser.wait("now", &format!("return Math.abs(+/to=(.*)/.exec(location.hash)[1] - {}) < 10", unix_now()));
        let latest = shown(browser);
        assert!((latest.1 - latest.0 - (far.1 - far.0)).abs() <= 30, "{far:?} {latest:?}");
        // With Shift, a drag moves it too.
        for (kind, place) in
            [("mouseMoved", one), ("mousePressed", one), ("mouseMoved", one + 100), ("mouseReleased", one + 100)]
        {
            let button = if kind == "mouseMoved" && place == one { "none" } else { "left" };
            let event = json!({ "type": kind, "x": place, "y": middle, "button": button, "buttons": 1, "clickCount": 1,
                "modifiers": 8 });
            browser.devtools("Input.dispatchMouseEvent", event);
        }
        browser.wait("moved", &format!("return !location.hash.includes('from={}&')", latest.0));
        let shifted = shown(browser);
        assert!(shifted.1 < latest.1 && (shifted.1 - shifted.0 - (latest.1 - latest.0)).abs() <= 2, "{shifted:?}");

        // Both ways to reset.
        double_click(browser, one, middle);
        browser.wait("whole", WHOLE);
        browser.drag(&[(one, middle), (other, middle)]);
        browser.wait("zoomed", "return location.hash.includes('from=')");
        browser.click_text("#tools button", "Whole");
        browser.wait("whole", WHOLE);
        assert_eq!(length, zoomed.1 - zoomed.0);

        // Mirrored, sent traffic is below received traffic; overlaid, both begin at the same line.
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

/// For each pixel column of the chart's right half, the lowest pixel with the colour of received traffic; -1 if none.
/// Blue text is higher up or further left.
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

/// Moves the mouse until the cursor is shown: the first move only loads explore.js.
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
fn the_cursor_and_the_table_have_the_values_of_the_api() {
    chart(|_, daemon, browser| {
        let all_marks = marks(daemon, &["wan0"]);
        let expect = |series: &Value, names: &[&str], at: usize| {
            let (from, step) = (seconds(&series["t"][at]), series["step"].as_i64().unwrap());
            let marked = marks(daemon, names).into_iter().filter(|(time, _)| (from..from + step).contains(time));
            let lines = std::iter::once(cursor_text(browser, series, names, at)).chain(marked.map(|(_, text)| text));
            lines.collect::<Vec<_>>().join("\n")
        };
        // The bucket and the text of the cursor, at the same moment.
        let cursor = || -> (usize, String) {
            let both = browser.run(
                "const { ariaValueNow, ariaValueText } = document.querySelector('#chart');
                 return [ariaValueNow, ariaValueText, document.querySelector('#read').textContent]",
            );
            let text = |at: usize| both[at].as_str().unwrap().to_string();
            assert_eq!(text(1), text(2));
            (text(0).parse().unwrap(), text(2))
        };

        // The latest day advances with each bucket, and the page requests it again: the latest request is what it
        // shows.
        open(daemon, browser, "#/");
        browser.wait("the chart", CHART_READY);
        let [x, y, width, height] = frame(browser, "#chart");
        let middle = y + height / 2;
        let mut target = String::new();
        wait_until("the latest day is what the API says", || {
            point_at(browser, x + width / 2, middle);
            let (at, text) = cursor();
            let asked = requests(browser).into_iter().rfind(|target| target.starts_with("/api/traffic/series"));
            target = asked.unwrap_or(std::mem::take(&mut target));
            let series = daemon.get(&target);
            at < series["t"].as_array().unwrap().len() && text == expect(&series, &["wan0"], at)
        });

        // A day with fixed ends does not advance during the test.
        let (from, to) = (unix_now() - DAY, unix_now());
        open(daemon, browser, &format!("#/?from={from}&to={to}"));
        browser.wait("the chart", CHART_READY);
        let series = daemon.get(&latest_request(browser, "/api/traffic/series"));
        let [x, y, width, height] = frame(browser, "#chart");
        let middle = y + height / 2;
        let t: Vec<i64> = series["t"].as_array().unwrap().iter().map(seconds).collect();
        let end = t.len() - 1;
        let (mut before, mut holes) = (0, 0);
        for eighth in 1..=15 {
            let place = x + width * eighth / 16;
            point_at(browser, place, middle);
            let (at, text) = cursor();
            assert_eq!(text, expect(&series, &["wan0"], at), "bucket {at}");
            // The axis takes 30 to 100 pixels.
            let part = |axis: i64| (width * eighth / 16 - axis) * DAY / (width - axis);
            let time = t[at] - from;
            assert!((part(100) - 600..=part(30) + 600).contains(&time), "{eighth}/16: {time} s");
            assert!(at > before, "{at} after {before}");
            before = at;
            holes += usize::from(text.contains("– ↑ –"));
        }
        assert!(holes >= 1, "the cursor was in the gap");

        // Keys: to the end, and back by buckets.
        browser.hover(5, 5);
        browser.wait("no cursor", "return document.querySelector('#read').hidden");
        browser.run("document.querySelector('#chart').focus()");
        let mut seen = Vec::new();
        for (key, at) in [("ArrowLeft", end), ("ArrowLeft", end - 1), ("ArrowLeft", end - 2), ("ArrowRight", end - 1)] {
            press(browser, key, false);
            browser.wait(key, &format!("return document.querySelector('#chart').ariaValueNow === '{at}'"));
            expect_text(browser, "#read", &expect(&series, &["wan0"], at));
            seen.push(at);
        }
        assert_eq!(browser.run("return document.querySelector('#chart').ariaValueMax"), end.to_string());
        // At a mark, the cursor shows its event.
        // The history is of another boot; when this boot began depends on the machine.
        let marks = |words: &str| all_marks.iter().filter(|(_, text)| text.contains(words)).count();
        let (resets, fresh_starts) = (marks("restarted from zero"), marks("counting makes a fresh start"));
        assert!(resets >= 1 && resets + fresh_starts == 2, "{all_marks:?}");
        let marked = t.iter().rposition(|from| *from <= all_marks.last().unwrap().0).unwrap();
        for _ in marked..end - 1 {
            press(browser, "ArrowLeft", false);
        }
        browser.wait("there", &format!("return document.querySelector('#chart').ariaValueNow === '{marked}'"));
        expect_text(browser, "#read", &expect(&series, &["wan0"], marked));
        assert!(text_of(browser, "#read").contains("the clock was set forward by 5 s"));
        browser.run("document.querySelector('#chart').blur()");
        browser.wait("no cursor", "return document.querySelector('#read').hidden");

        // A tap of a finger.
        touch_screen(browser, true);
        touch(browser, &[(x + width / 2, middle)]);
        browser.wait("a cursor", "return !document.querySelector('#read').hidden");
        let at = browser.run("return document.querySelector('#chart').ariaValueNow");
        expect_text(browser, "#read", &expect(&series, &["wan0"], at.as_str().unwrap().parse().unwrap()));
        touch_screen(browser, false);

        // The canvas shows the gap, and no other.
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
        // Adjacent pixels are one line.
        assert!(drawn + 1 >= all_marks.len() && drawn <= all_marks.len() && drawn >= 3, "{drawn} of {all_marks:?}");

        // The table: values and marks.
        browser.click("#figures summary");
        browser.wait("the table", "return document.querySelectorAll('#table tr').length > 10");
        table(daemon, browser, &series, &["wan0"]);

        // Two interfaces, stacked.
        requests(browser);
        browser.click_text("#who button", "lan0");
        let target = latest_request(browser, "/api/traffic/series");
        assert_eq!(hash(browser), format!("#/?from={from}&to={to}&i=wan0&i=lan0"));
        let series = daemon.get(&target);
        let both = ["wan0", "lan0"];
        assert_eq!(series["interfaces"].as_object().unwrap().len(), 2);
        browser.wait("both", "return document.querySelector('#chart').ariaLabel.startsWith('Traffic of wan0, lan0 ')");
        browser.wait("both", "return document.querySelectorAll('#table tr:nth-child(2) th').length === 9");
        table(daemon, browser, &series, &both);
        point_at(browser, x + width / 4, middle);
        let at = browser.run("return document.querySelector('#chart').ariaValueNow");
        expect_text(browser, "#read", &expect(&series, &both, at.as_str().unwrap().parse().unwrap()));
        let pressed = "return [...document.querySelectorAll('#who button')].map((chip) => chip.ariaPressed)";
        assert_eq!(browser.run(pressed), json!(["true", "true"]));
        browser.click_text("#who button", "wan0");
        browser.wait("one", "return document.querySelector('#chart').ariaLabel.startsWith('Traffic of lan0 from')");
        assert_eq!(hash(browser), format!("#/?from={from}&to={to}&i=lan0"));
    });
}

/// Time and text of the chart's marks for these interfaces, newest first.
fn marks(daemon: &Daemon, names: &[&str]) -> Vec<(i64, String)> {
    let kinds = "kind=reset&kind=gap&kind=implausible&kind=clock_step";
    let events = daemon.get(&format!("/api/events?limit=1000&from={}&{kinds}", unix_now() - DAY));
    let ours = |event: &&Value| event["interface"] == "" || names.contains(&event["interface"].as_str().unwrap());
    let words =
        |event: &Value| format!("{} {}", event["interface"].as_str().unwrap(), event["detail"].as_str().unwrap());
    let events = events.as_array().unwrap().clone();
    events.iter().filter(ours).map(|event| (seconds(&event["time"]), words(event))).collect()
}

/// Checks the table below the chart: at most 24 rows of adjacent buckets, then the marks.
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
                let part = |column: &str| {
                    &series["interfaces"][name][column].as_array().unwrap()[from..(from + size).min(t.len())]
                };
                let seconds = part("observed").iter().map(|seconds| seconds.as_f64().unwrap());
                let known: Vec<(f64, f64)> = part(side)
                    .iter()
                    .zip(seconds)
                    .filter_map(|(value, seconds)| Some((value.as_f64()?, seconds)))
                    .collect();
                let value = match side.len() {
                    2 => {
                        let bytes: f64 = known.iter().map(|(rate, seconds)| rate * seconds).sum();
                        bytes / known.iter().map(|(_, seconds)| seconds).sum::<f64>()
                    }
                    _ => known.iter().fold(0.0, |most: f64, (value, _)| most.max(*value)),
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

/// Events while the page is open: a stop of collection, and a link that is created again.
#[test]
fn current_events_are_marked_and_live_values_match_the_api() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        cable("opt0", "far0");
        let daemon = Daemon::start(&dir, &["--interval", "1", "--primary", "opt0"]);
        let Some(browser) = Browser::start(&dir) else { return };
        browser.emulate(DESKTOP, Theme::Light);
        open(&daemon, &browser, "#/?range=5m");
        for count in 1..=4 {
            send("opt0", 1000, 100 * count);
            send("far0", 900, 100);
            daemon.wait_for_ticks(1);
        }
        daemon.post("/collector/stop");
        open(&daemon, &browser, "#/?range=5m");
        browser.wait("the notice", "return !document.querySelector('#stopped').hidden");
        browser.click_text("#stopped button", "Start it");
        wait_until("it runs", || daemon.get("/collector/status")["is_running"] == true);
        browser.wait("no notice", "return document.querySelector('#stopped').hidden");
        ip("link del opt0");
        wait_until("it is gone", || daemon.interface("opt0")["present"] == false);
        cable("opt0", "far0");
        wait_until("it is there", || daemon.interface("opt0")["present"] == true);
        wait_until("both events", || marks(&daemon, &["opt0"]).len() >= 2);
        wait_until("it is measured", || {
            send("opt0", 1000, 100);
            let live = daemon.get("/api/traffic/live");
            live["interfaces"]["opt0"]["tx"]
                .as_array()
                .is_some_and(|tx| tx.iter().any(|rate| rate.as_f64() > Some(0.0)))
        });

        // Opening the view again requests everything again.
        open(&daemon, &browser, "#/?range=5m");
        browser.wait(
            "the marks",
            "const { onclick } = document.querySelector('#chart');
            document.querySelector('#history').dispatchEvent(new Event('focusin'));
            document.querySelector('#figures').open = true;
            return document.querySelectorAll('#table td[colspan]').length >= 2",
        );
        let marked = marks(&daemon, &["opt0"]);
        let found = cells(&browser, "#table tr:has([colspan])");
        let expect: Vec<Vec<String>> =
            marked.iter().map(|(time, text)| vec![moment(&browser, *time, 1), text.clone()]).collect();
        assert_eq!(found, expect);
        let of = |part: &str| marked.iter().any(|(_, text)| text.contains(part));
        assert!(of("collection was started again") && of("restarted from zero"), "{marked:?}");

        // Each second of the last minute.
        browser.run("document.querySelector('#chart').focus()");
        let mut busy = 0;
        for _ in 0..25 {
            press(&browser, "ArrowLeft", false);
            let text = text_of(&browser, "#read");
            let line = json!(text.lines().next().unwrap_or_default());
            let time = browser.run(&format!("return Date.parse({line}) / 1000")).as_i64().unwrap_or_default();
            let live = daemon.get("/api/traffic/live");
            let at = live["t"].as_array().unwrap().iter().position(|t| seconds(t) == time);
            let at = at.unwrap_or_else(|| panic!("{text} is not one of {}", live["t"]));
            let rates = ["rx", "tx"].map(|side| live["interfaces"]["opt0"][side][at].as_f64());
            let texts = together(&rates, BITS);
            let lines = format!(" ↓ {} ↑ {}", texts[0], texts[1]);
            assert_eq!(text.lines().nth(1), Some(lines.as_str()), "at {time}");
            busy += usize::from(rates[1] > Some(0.0));
        }
        assert!(busy > 0, "the live values contain traffic");
        no_complaints(&browser);
    });
}

// Usage.

#[test]
fn usage_per_period_matches_the_api() {
    chart(|_, daemon, browser| {
        open(daemon, browser, "#/");
        browser.click_text("nav a", "Usage");
        browser.wait("the rows", USAGE_READY);
        assert_eq!(hash(browser), "#/usage");
        let cuts = [("day", 31), ("hour", 48), ("week", 26), ("month", 24), ("year", 12)];
        for (by, limit) in cuts {
            browser.click_text(".usage nav a", &format!("{by}s"));
            browser.wait(
                by,
                &format!(
                    "return document.querySelector('.usage caption')?.textContent === 'By the {by}' \
                && document.querySelector('.usage nav [aria-current]').textContent === '{by}s'"
                ),
            );
            assert_eq!(hash(browser), format!("#/usage?by={by}&i=wan0"));
            let rows = daemon.get(&format!("/api/traffic/totals?by={by}&limit={limit}&interface=wan0"));
            usage(browser, &rows, by);
            let first = rows.as_array().unwrap().len();
            assert!(first >= 2, "{by}: {first} rows");
        }

        // The pointer on a bar shows its values.
        browser.click_text(".usage nav a", "months");
        browser.wait("months", "return document.querySelector('.usage caption')?.textContent === 'By the month'");
        let rows = daemon.get("/api/traffic/totals?by=month&limit=24&interface=wan0");
        let last = rows.as_array().unwrap().last().unwrap();
        let (rx, tx) = (last["rx_bytes"].as_f64().unwrap(), last["tx_bytes"].as_f64().unwrap());
        let texts = together(&[Some(rx), Some(tx), Some(rx + tx)], BYTES);
        let [x, y, width, height] = frame(browser, ".bars > div:last-child");
        browser.hover(x + width / 2, y + height - 3);
        let month = &date(browser, (seconds(&last["from"]) + seconds(&last["to"])) / 2)[4..];
        let name = format!("{} {}", &month[..3], &month[7..]);
        let expect = format!(" · {name}{}: ↓ {} ↑ {} = {}", note(last), texts[0], texts[1], texts[2]);
        expect_text(browser, ".bars + .soft span", &expect);

        // The same rows by URL, and the rows before them.
        open(daemon, browser, "#/usage?by=month&i=lan0");
        browser.wait("the rows", USAGE_READY);
        let months = daemon.get("/api/traffic/totals?by=month&limit=24&interface=lan0");
        usage(browser, &months, "month");
        browser.click(".usage tbody tr:nth-child(2) a");
        browser.wait("days", "return document.querySelector('.usage caption')?.textContent === 'By the day'");
        let month = &months.as_array().unwrap()[months.as_array().unwrap().len() - 2];
        let (from, to) = (seconds(&month["from"]), seconds(&month["to"]));
        assert_eq!(hash(browser), format!("#/usage?by=day&i=lan0&from={from}&to={to}"));
        let days = daemon.get(&format!("/api/traffic/totals?by=day&limit=1000&interface=lan0&from={from}&to={to}"));
        assert!(days.as_array().unwrap().len() >= 28, "{days}");
        usage(browser, &days, "day");
        browser.click(".usage tbody tr:last-child a");
        browser.wait("hours", "return document.querySelector('.usage caption')?.textContent === 'By the hour'");
        let hours =
            daemon.get(&format!("/api/traffic/totals?by=hour&limit=1000&interface=lan0&from={from}&to={}", from + DAY));
        assert_eq!(hours.as_array().unwrap().len(), 24);
        usage(browser, &hours, "hour");
        browser.click(".usage tbody tr:last-child a");
        browser.wait("the curve", "return !document.querySelector('#home').hidden");
        assert_eq!(hash(browser), format!("#/?i=lan0&from={from}&to={}", from + HOUR));
        expect_range(browser, "lan0", from, from + HOUR);
        for (by, rows) in [("hour", &hours), ("day", &days), ("month", &months)] {
            browser.back();
            browser
                .wait(by, &format!("return document.querySelector('.usage caption')?.textContent === 'By the {by}'"));
            usage(browser, rows, by);
        }

        let days = daemon.get("/api/traffic/totals?by=day&limit=31&interface=lan0");
        browser.click_text(".usage nav a", "days");
        browser.wait("days", "return document.querySelector('.usage caption')?.textContent === 'By the day'");
        browser.click_text("a.button", "‹ Earlier");
        browser.wait("earlier", "return location.hash.includes('to=')");
        let before = seconds(&days[0]["from"]);
        let earlier = daemon.get(&format!("/api/traffic/totals?by=day&limit=31&interface=lan0&to={before}"));
        assert_ne!(earlier, days);
        usage(browser, &earlier, "day");
        pick(browser, "[aria-label=Interface]", "wan0");
        browser.wait("the other", "return location.hash === '#/usage?by=day&i=wan0'");
        usage(browser, &daemon.get("/api/traffic/totals?by=day&limit=31&interface=wan0"), "day");

        // The tiles.
        let today = daemon.interface("wan0");
        tile(browser, "Today", &today["today_rx_bytes"], &today["today_tx_bytes"]);
        let days = daemon.get("/api/traffic/totals?by=day&limit=366&interface=wan0");
        let days = days.as_array().unwrap();
        let yesterday = days.iter().rfind(|day| seconds(&day["to"]) <= unix_now()).unwrap();
        tile(browser, "Yesterday", &yesterday["rx_bytes"], &yesterday["tx_bytes"]);
        let month = daemon.get("/api/traffic/totals?by=month&limit=1&interface=wan0")[0].take();
        tile(browser, "This month", &month["rx_bytes"], &month["tx_bytes"]);
        let (from, to, now) = (seconds(&month["from"]), seconds(&month["to"]), unix_now());
        let pace = |side: &str| {
            let used = month[side].as_f64().unwrap();
            used + used / (now - from) as f64 * (to - now) as f64
        };
        let shown = text_of(browser, ".tile:nth-child(4) b");
        if now - from < (to - from) / 10 {
            assert_eq!(shown, "too early");
        } else {
            let (rx, tx) = (pace("rx_bytes"), pace("tx_bytes"));
            let number = |text: &str| text.split(' ').next().unwrap().parse::<f64>().unwrap();
            let expect = number(&together(&[Some(rx), Some(tx), Some(rx + tx)], BYTES)[2]);
            assert!((number(&shown) / expect - 1.0).abs() < 0.01, "{shown}, {expect}");
        }

        // The ten days with the most traffic.
        let mut most: Vec<&Value> = days.iter().collect();
        let sum = |day: &Value| day["rx_bytes"].as_u64().unwrap() + day["tx_bytes"].as_u64().unwrap();
        most.sort_by_key(|day| std::cmp::Reverse(sum(day)));
        let most: Vec<Value> = most.into_iter().take(10).cloned().collect();
        expect_rows(browser, ".usage > section:last-child tbody tr", &most);
        let links = "return [...document.querySelectorAll('.usage > section:last-child tbody a')].map((a) => a.hash)";
        let expect: Vec<String> = most
            .iter()
            .map(|day| format!("#/usage?by=hour&i=wan0&from={}&to={}", seconds(&day["from"]), seconds(&day["to"])))
            .collect();
        assert_eq!(browser.run(links), json!(expect));
    });
}

const USAGE_READY: &str = "return document.querySelectorAll('.usage tbody tr').length > 1 \
                           && document.querySelectorAll('.bars i').length > 1";

fn tile(browser: &Browser, title: &str, rx: &Value, tx: &Value) {
    let (down, up) = (rx.as_f64().unwrap(), tx.as_f64().unwrap());
    let texts = together(&[Some(down), Some(up), Some(down + up)], BYTES);
    let script = format!(
        "const tile = [...document.querySelectorAll('.tile')].find((tile) => tile.firstChild.textContent.startsWith('{title}'));
         return [...tile.querySelectorAll('span, b')].map((node) => node.textContent).join() === '{},{},{}'",
        texts[2], texts[0], texts[1]
    );
    browser.wait(&format!("{title} {texts:?}"), &script);
}

/// Checks down, up and total of each row, all in one unit.
#[track_caller]
fn expect_rows(browser: &Browser, selector: &str, rows: &[Value]) {
    let value = |row: &Value, side: &str| row[side].as_f64().unwrap();
    let values: Vec<Option<f64>> = rows
        .iter()
        .map(|row| (value(row, "rx_bytes"), value(row, "tx_bytes")))
        .flat_map(|(rx, tx)| [Some(rx), Some(tx), Some(rx + tx)])
        .collect();
    let expect: Vec<Vec<String>> = together(&values, BYTES).chunks(3).map(<[String]>::to_vec).collect();
    let mut found = Vec::new();
    for _ in 0..100 {
        found = cells(browser, selector).into_iter().map(|row| row[1..].to_vec()).collect::<Vec<_>>();
        if found == expect {
            return;
        }
        sleep_ms(50);
    }
    assert_eq!(found, expect);
}

/// The expected note of a row.
fn note(row: &Value) -> &'static str {
    let now = unix_now();
    let length = now - seconds(&row["from"]);
    // The latest two readings may be missing; the interval of `STILL` is an hour.
    let missed = length - row["observed"].as_i64().unwrap() > length / 100 + 2 * HOUR;
    match seconds(&row["to"]) > now {
        true if missed => " so far, incomplete",
        true => " so far",
        false if row["complete"] == true => "",
        false => " incomplete",
    }
}

/// Checks the figures (newest first) and the heights of the bars against these rows.
#[track_caller]
fn usage(browser: &Browser, rows: &Value, by: &str) {
    let rows = rows.as_array().unwrap();
    let newest: Vec<Value> = rows.iter().rev().cloned().collect();
    expect_rows(browser, ".beside tbody tr", &newest);
    let heads = cells(browser, ".beside tbody tr");
    for (row, head) in newest.iter().zip(&heads) {
        let note = note(row);
        assert!(head[0].ends_with(note), "{row}: {head:?}");
        assert_eq!(head[0].contains("so far") || head[0].contains("incomplete"), !note.is_empty(), "{row}: {head:?}");
        let middle = match by {
            "hour" => date(browser, (seconds(&row["from"]) + seconds(&row["to"])) / 2),
            _ => day_of(browser, &row["first_day"], 0),
        };
        let words: Vec<&str> = middle.split(' ').collect();
        let (month, day, year) = (words[1], words[2], words[3]);
        let start = match by {
            "year" => year.to_string(),
            "month" => format!("{month} {year}"),
            "day" => format!("{} {month} {day}", words[0]),
            "hour" => format!("{} {month} {day}", words[0]),
            _ => middle[4..10].to_string(),
        };
        assert!(head[0].replace('\u{a0}', " ").starts_with(&start), "{start}: {head:?}");
    }

    let bars = browser.run(
        "return [...document.querySelectorAll('.bars > div')].filter((bar) => bar.children.length)
            .map((bar) => ['.in', '.out'].map((side) => parseFloat(bar.querySelector(side)?.style.height ?? '0')))",
    );
    let bars: Vec<[f64; 2]> = serde_json::from_value(bars).unwrap();
    // The value and the height of a tick give the value of the whole height.
    let tick = browser.run(
        "const tick = document.querySelector('.bars > span');
        return [tick.textContent, parseFloat(tick.style.bottom)]",
    );
    let (words, at) = (tick[0].as_str().unwrap(), tick[1].as_f64().unwrap());
    let (number, unit) = words.split_once(' ').unwrap();
    let size = BYTES.iter().find(|(name, _)| *name == unit).unwrap().1;
    let whole = number.parse::<f64>().unwrap() * size / at * 100.0;
    assert_eq!(bars.len(), rows.len());
    for (bar, row) in bars.iter().zip(rows) {
        for (height, side) in bar.iter().zip(["rx_bytes", "tx_bytes"]) {
            let bytes = row[side].as_f64().unwrap();
            assert!((height / 100.0 * whole - bytes).abs() <= whole / 500.0, "{by} {row}: {height} % of {whole}");
        }
    }
}

// One interface.

#[test]
fn the_view_of_an_interface_shows_and_changes_it() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        cable("old0", "far0");
        cable("old1", "far1");
        ip("addr add 192.0.2.1/24 dev wan0");
        ip("link set wan0 mtu 1400");
        fs::write("/proc/sys/net/ipv6/conf/wan0/disable_ipv6", "0").unwrap();
        ip("addr add 2001:db8::1/64 dev wan0 nodad");
        let tunnel = Tunnel::new("vx0");
        let daemon = Daemon::start(&dir, &FAST);
        let Some(browser) = Browser::start(&dir) else { return };
        browser.emulate(DESKTOP, Theme::Dark);
        for name in ["old0", "old1"] {
            send(name, 700, 30);
        }
        tunnel.burst(20);
        daemon.wait_for_ticks(2);
        let moved = tunnel.burst(3);
        daemon.collect();
        for name in ["old0", "old1"] {
            ip(&format!("link del {name}"));
            wait_until("it is gone", || daemon.interface(name)["present"] == false);
        }

        // The facts, compared with the kernel.
        open(&daemon, &browser, "#/interface/wan0");
        let link: Value = serde_json::from_str(&output("ip", "-j addr show wan0")).unwrap();
        expect_fact(&browser, "Link", "MAC", link[0]["address"].as_str().unwrap());
        expect_fact(&browser, "Link", "MTU", "1400");
        let expect: Vec<String> = link[0]["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| format!("{}/{}", one["local"].as_str().unwrap(), one["prefixlen"]))
            .collect();
        assert!(expect.contains(&"192.0.2.1/24".to_string()) && expect.len() >= 2, "{link}");
        let shown = || -> Vec<String> {
            let facts = facts(&browser, "Link").into_iter().filter(|(term, _)| term.starts_with("IPv"));
            facts.map(|(_, text)| text).collect()
        };
        wait_until("all addresses are there", || expect.iter().all(|one| shown().contains(one)));
        expect_text(&browser, ".interface h2:nth-of-type(2)", "wan0");
        expect_text(&browser, ".interface .soft", "veth · up · 10 Gbit/s");
        assert_eq!(browser.run("return document.title"), "wan0 · Net-Pulse");

        // Counters, and their recent increase.
        open(&daemon, &browser, "#/interface/vx0");
        let raw = kernel_counters("vx0");
        let grouped = |number: u64| {
            let digits = number.to_string();
            let pieces: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().map(|piece| std::str::from_utf8(piece).unwrap()).collect();
            pieces.join(",")
        };
        for (at, term) in ["bytes", "packets", "errors", "drops"].iter().enumerate() {
            let both = format!("{} | {}", grouped(raw[2 * at]), grouped(raw[2 * at + 1]));
            expect_fact(&browser, "Counters", term, &both);
        }
        let lately = facts(&browser, "Counters");
        let recent: Vec<&str> =
            lately.iter().filter(|(term, _)| term.starts_with("in the last")).map(|(_, text)| text.as_str()).collect();
        let sums = daemon.exported_sum("vx0");
        assert!(sums[4] >= moved[4], "{sums:?} {moved:?}");
        assert_eq!(recent, [format!("{} | {}", sums[4], sums[5]), format!("{} | {}", sums[6], sums[7])]);
        let iface = daemon.interface("vx0");
        let pair = |rx: &str, tx: &str| amounts(&[&iface[rx], &iface[tx]]).join(" | ");
        expect_fact(&browser, "", "Today", &pair("today_rx_bytes", "today_tx_bytes"));
        expect_fact(&browser, "", "Total", &pair("lifetime_rx_bytes", "lifetime_tx_bytes"));

        // The alias.
        open(&daemon, &browser, "#/interface/wan0");
        browser.fill(&control(&browser, "Alias"), "Büro ü. Glas");
        browser.click_text(".interface form button", "Save");
        wait_until("it has the name", || daemon.interface("wan0")["alias"] == "Büro ü. Glas");
        expect_text(&browser, ".interface h2:nth-of-type(2)", "wan0 · Büro ü. Glas");
        expect_text(&browser, "section:has(form) .result", "Done.");

        // Whether it is watched; afterwards the page shows the active state.
        for (value, monitored, ignore) in
            [("false", false, json!(["wan0"])), ("true", true, json!(["!wan0"])), ("null", true, json!([]))]
        {
            pick(&browser, &control(&browser, "Watch"), value);
            wait_until(value, || daemon.get("/api/config")["settings"]["ignore"]["value"] == ignore);
            assert_eq!(daemon.interface("wan0")["monitored"], monitored, "{value}");
            expect_text(&browser, "section:has(form) .result", "Done.");
            open(&daemon, &browser, "#/interface/wan0");
            let select = control(&browser, "Watch");
            let script = format!("return document.querySelector('{select}').value === '{value}'");
            browser.wait(value, &script);
            let not = fact(&browser, "Link", "Not watched");
            assert_eq!(not.is_some(), !monitored, "{not:?}");
        }

        // The primary interface: selected, and automatic again.
        let primary = || daemon.get("/api/config")["settings"]["primary"]["value"].clone();
        for name in ["wan0", "vx0"] {
            open(&daemon, &browser, &format!("#/interface/{name}"));
            let now = daemon.interface(name)["primary"] == true;
            browser.wait("the state", "return document.querySelector('.interface dd')");
            let shown = browser.run(
                "return ![...document.querySelectorAll('.interface button')]
                .find((button) => /primary/.test(button.textContent)).hidden",
            );
            assert_eq!(shown, !now, "{name}: no button if it is the primary interface already");
            if now {
                continue;
            }
            browser.click_text(".interface button", "Make it primary");
            wait_until("it is", || daemon.interface(name)["primary"] == true && primary() == name);
            browser.click_text(".interface button", "Choose the primary by traffic");
            wait_until("the setting is empty", || primary() == "");
            browser.wait(
                "the other button is gone",
                "return ![...document.querySelectorAll('.interface button')]
                .some((button) => button.textContent === 'Choose the primary by traffic')",
            );
        }

        // Absent interfaces: merge and forget, both only after a confirmation.
        open(&daemon, &browser, "#/interface/wan0");
        let absent = || daemon.request("GET", "/api/interfaces/old0", None).status == 404;
        let before = daemon.interface("wan0")["lifetime_tx_bytes"].as_u64().unwrap();
        let more = daemon.interface("old0")["lifetime_tx_bytes"].as_u64().unwrap();
        assert_eq!(more, 21_000);
        pick(&browser, "[aria-label='Absent interface']", "old0");
        browser.click_text(".interface button", "Merge");
        assert_eq!(browser.confirm(false), "Merge old0 into wan0? This cannot be undone.");
        assert!(!absent());
        browser.click_text(".interface button", "Merge");
        browser.confirm(true);
        wait_until("it is merged", absent);
        assert!(daemon.interface("wan0")["lifetime_tx_bytes"].as_u64().unwrap() >= before + more);
        expect_text(&browser, "section:has(form) .result", "Done.");

        open(&daemon, &browser, "#/interface/old1");
        expect_text(&browser, ".interface .soft", "veth · absent");
        let events = daemon.get("/api/events?limit=50&interface=old1");
        let expect: Vec<String> = events
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["interface"] == "old1")
            .map(|event| {
                format!("{} {}", event["kind"].as_str().unwrap().replace('_', " "), event["detail"].as_str().unwrap())
            })
            .collect();
        assert!(!expect.is_empty(), "{events}");
        let shown_events =
            || cells(&browser, ".log > div").into_iter().map(|row| row[1].trim().to_string()).collect::<Vec<_>>();
        wait_until("the events are shown", || shown_events() == expect);
        browser.click_text(".interface button", "Forget old1");
        assert_eq!(browser.confirm(false), "Forget old1 and its history? This cannot be undone.");
        assert_eq!(daemon.interface("old1")["present"], false);
        browser.click_text(".interface button", "Forget old1");
        browser.confirm(true);
        wait_until("it is forgotten", || daemon.request("GET", "/api/interfaces/old1", None).status == 404);
        browser.wait("home", "return location.hash === '#/'");
        open(&daemon, &browser, "#/interface/old1");
        expect_text(&browser, ".interface .soft", "There is no such interface.");
        no_complaints(&browser);

        // If a flag overrides the change, the page shows the error and the active value.
        drop(daemon);
        let daemon = Daemon::start(&dir, &["--interval", "1", "--ignore", "x*"]);
        open(&daemon, &browser, "#/interface/wan0");
        let select = control(&browser, "Watch");
        pick(&browser, &select, "false");
        let refused = daemon.request("PATCH", "/api/interfaces/wan0", Some(json!({"monitored": false}).to_string()));
        assert_eq!(refused.status, 409);
        assert!(refused.json()["detail"].as_str().unwrap().contains("--ignore"), "{}", refused.text());
        expect_text(&browser, "section:has(form) .result", refused.json()["detail"].as_str().unwrap());
        browser.wait("back", &format!("return document.querySelector('{select}').value === 'null'"));
    });
}

fn output(program: &str, words: &str) -> String {
    let output = std::process::Command::new(program).args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {words}");
    String::from_utf8(output.stdout).unwrap()
}

// The system, and collection.

#[test]
fn the_system_view_shows_the_state_and_controls_collection() {
    chart(|dir, daemon, browser| {
        open(daemon, browser, "#/system");
        let health = || daemon.get("/api/system/health");
        expect_text(browser, ".system p", "All is well.");
        expect_fact(browser, "Status", "Reading", "healthy, every 1 h");
        expect_fact(browser, "Status", "Saving", "healthy");
        expect_fact(browser, "Status", "Interfaces", "healthy, 2 watched");
        let status = daemon.get("/collector/status");
        expect_fact(browser, "Status", "Source", status["source"].as_str().unwrap());
        expect_fact(browser, "History", "File", &dir.join("net-pulse.db"));
        let database = health()["details"]["database"].clone();
        expect_fact(browser, "History", "Size", &amounts(&[&database["database_size_bytes"]])[0]);
        let size = fs::metadata(dir.join("net-pulse.db")).unwrap().len();
        assert!(database["database_size_bytes"].as_u64() >= Some(size), "{database}");
        expect_fact(browser, "History", "Saved every", "5 min");
        expect_fact(browser, "History", "Written in a day", "known after an hour");
        let info = daemon.get("/api/system/info");
        expect_fact(browser, "Machine", "Net-Pulse", info["version"].as_str().unwrap());
        expect_fact(browser, "Machine", "Time zone", health()["details"]["clock"]["timezone"].as_str().unwrap());
        let memory = fact(browser, "Machine", "Memory free").unwrap();
        assert!(memory.ends_with(&amounts(&[&info["memory_total"]])[0]), "{memory} {info}");
        let events = daemon.get("/api/events?limit=200");
        let log = cells(browser, ".log > div");
        assert_eq!(log.len(), events.as_array().unwrap().len());
        for (row, event) in log.iter().zip(events.as_array().unwrap()) {
            let kind = event["kind"].as_str().unwrap().replace('_', " ");
            let parts = [&kind, event["interface"].as_str().unwrap(), event["detail"].as_str().unwrap()];
            assert_eq!(
                row[1],
                format!("{} {}{}{}", parts[0], parts[1], if parts[1].is_empty() { "" } else { " " }, parts[2])
            );
        }

        // A power cut would lose the unsaved traffic; after a save, nothing.
        send("wan0", 1000, 50);
        daemon.collect();
        open(daemon, browser, "#/system");
        let unsaved = health()["details"]["database"].clone();
        assert!(unsaved["unsaved_tx_bytes"].as_u64() >= Some(50_000), "{unsaved}");
        let both = amounts(&[&unsaved["unsaved_rx_bytes"], &unsaved["unsaved_tx_bytes"]]).join(" | ");
        expect_fact(browser, "History", "of the primary", &both);
        let lose = fact(browser, "History", "A power cut now would lose").unwrap();
        assert!(lose.starts_with("the last "), "{lose}");
        let saved = daemon.request("PATCH", "/api/config", Some(json!({"max_retries": 4}).to_string()));
        assert_eq!(saved.json()["saved"], true);
        wait_until("it is saved", || health()["details"]["database"]["unsaved_samples"] == 0);
        open(daemon, browser, "#/system");
        expect_fact(browser, "History", "A power cut now would lose", "nothing");
        assert!(fact(browser, "History", "Last saved").unwrap().contains(" ago, "));

        // Stop, start, and collect once.
        browser.click_text("nav a", "Settings");
        let running = || daemon.get("/collector/status")["is_running"] == true;
        browser.click_text(".settings button", "Stop");
        wait_until("it stops", || !running());
        browser.wait(
            "the error",
            "return !document.querySelector('#stopped').hidden \
            && document.querySelector('#state').textContent === 'stopped'",
        );
        browser.click_text("nav a", "System");
        expect_text(browser, ".system p", "Collection is stopped.");
        browser.click_text("nav a", "Settings");
        browser.click_text(".settings button", "Start");
        wait_until("it runs", running);
        browser.wait("all is well", "return document.querySelector('#stopped').hidden");
        let before = daemon.exported_sum("wan0")[1];
        let polls = daemon.polls();
        send("wan0", 1000, 7);
        browser.click_text(".settings button", "Collect now");
        browser.wait(
            "the text",
            "return [...document.querySelectorAll('.result')]
            .some((node) => node.textContent === 'Interfaces read: 2.')",
        );
        assert!(daemon.polls() > polls);
        assert_eq!(daemon.exported_sum("wan0")[1], before + 7000);
    });
}

// Settings.

/// Key, text to type or option to pick, and the resulting value in the API.
fn settings() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("interfaces", "wan*, vx0", json!(["wan*", "vx0"])),
        ("ignore", "tun*, !lo", json!(["tun*", "!lo"])),
        ("primary", "wan0", json!("wan0")),
        ("interval", "2", json!(2)),
        ("max_retries", "5", json!(5)),
        ("retry_delay", "2.5", json!(2.5)),
        ("media", "flash", json!("flash")),
        ("flush", "60", json!(60)),
        ("keep_samples_days", "3", json!(3)),
        ("keep_5min_days", "30", json!(30)),
        ("keep_hours_days", "400", json!(400)),
        ("timezone", "<+0530>-5:30", json!("<+0530>-5:30")),
        ("units", "bytes", json!("bytes")),
        ("prefixes", "iec", json!("iec")),
    ]
}

fn input(key: &str) -> String {
    format!("[aria-describedby=about-{key}]")
}

/// Types the text or picks the option.
fn set(browser: &Browser, key: &str, text: &str) {
    let input = input(key);
    if browser.run(&format!("return document.querySelector('{input}').tagName")) == "SELECT" {
        pick(browser, &input, text);
    } else {
        browser.fill(&input, text);
    }
}

fn typed(browser: &Browser, key: &str) -> String {
    let value = browser.run(&format!("return document.querySelector('{}').value", input(key)));
    value.as_str().unwrap().to_string()
}

fn open_settings(daemon: &Daemon, browser: &Browser) {
    open(daemon, browser, "#/settings");
    browser.wait("the fields", &format!("return document.querySelector('{}')", input("interval")));
}

#[test]
fn each_setting_is_changed_saved_and_restored() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let address = free_address();
        let daemon = daemon_at(&dir, address, &[], &[]);
        let Some(browser) = Browser::start(&dir) else { return };
        browser.emulate(DESKTOP, Theme::Light);
        open_settings(&daemon, &browser);
        let document = || daemon.get("/api/config")["settings"].clone();

        // All changeable settings are shown, with their help.
        let all = document();
        let changeable = all.as_object().unwrap().iter().filter(|(_, setting)| setting["changeable"] == true);
        let keys: Vec<&str> = changeable.map(|(key, _)| key.as_str()).filter(|key| *key != "running").collect();
        let mut known: Vec<&str> = settings().iter().map(|(key, ..)| *key).collect();
        known.sort_unstable();
        assert_eq!(
            {
                let mut keys = keys.clone();
                keys.sort_unstable();
                keys
            },
            known,
            "a new setting: add it to `settings` in this file"
        );
        for key in &keys {
            let about = text_of(&browser, &format!("#about-{key}"));
            assert!(about.contains(all[key]["help"].as_str().unwrap()), "{key}: {about}");
            let default = &all[key]["default"];
            let shown = browser.run(&format!(
                "const {{ placeholder, value }} = document.querySelector('{}');
                return value || placeholder",
                input(key)
            ));
            let same = match default.as_f64() {
                Some(number) => shown.as_str().unwrap().parse() == Ok(number),
                None => shown == *default || (shown == "" && *default == json!([])),
            };
            assert!(same, "{key}: {shown} {default}");
        }

        // Each setting alone: the API has the new value, and the others do not change.
        let save = "return !document.querySelector('.chief').disabled";
        assert_eq!(browser.run(save), false, "there is nothing to save");
        for (key, text, value) in settings() {
            set(&browser, key, text);
            browser.wait(key, save);
            browser.click(".chief");
            wait_until(key, || document()[key]["origin"] == "saved");
            assert_eq!(document()[key]["value"], value, "{key}");
            browser.wait(
                key,
                "return document.querySelector('form .result:not(:empty)')?.textContent === 'Done.' \
                && document.querySelector('.chief').disabled",
            );
            assert_eq!(typed(&browser, key), text);
        }
        let saved = document();
        let all_there = |settings: &Value| settings_differ(settings, &saved);
        // They are active.
        assert_eq!(daemon.get("/collector/status")["configuration"]["polling_interval"], "2");
        assert_eq!(daemon.get("/api/system/health")["details"]["clock"]["timezone"], "<+0530>-5:30");
        assert_eq!(daemon.get("/api/system/health")["details"]["database"]["flush_interval_seconds"], 60);
        assert_eq!(daemon.interface("lan0")["monitored"], false, "it matches neither wan* nor vx0");
        assert_eq!(daemon.interface("wan0")["primary"], true);
        // Units change without a reload.
        browser.click_text("nav a", "Now");
        expect_text(&browser, "#rates .unit", "MiB/s");
        browser.wait("amounts", "return /^Today ↓ [0-9.]+ .i?B/.test(document.querySelector('#today').textContent)");

        // After a reload.
        open_settings(&daemon, &browser);
        for (key, text, _) in settings() {
            assert_eq!(typed(&browser, key), text, "{key}");
        }
        // After a restart of the program, the page reconnects. Typed text stays, and a change by another user appears.
        set(&browser, "keep_5min_days", "33");
        change(&daemon, json!({"keep_hours_days": 500}));
        drop(daemon.stop());
        browser.wait(
            "no answer",
            "return document.querySelector('#state').textContent === 'no answer' \
            && /^No answer since .* The page continues/.test(document.querySelector('#trouble').textContent)",
        );
        let daemon = daemon_at(&dir, address, &[], &[]);
        browser.wait(
            "it is back",
            "return document.querySelector('#state').textContent !== 'no answer' \
            && document.querySelector('#trouble').textContent.startsWith('The interfaces setting vx0 matches no interface')",
        );
        let document = || daemon.get("/api/config")["settings"].clone();
        let follows = format!("return document.querySelector('{}').value === '500'", input("keep_hours_days"));
        browser.wait("the other change", &follows);
        assert_eq!(typed(&browser, "keep_5min_days"), "33");
        assert_eq!(all_there(&document()), ["keep_hours_days"]);
        change(&daemon, json!({"keep_hours_days": 400}));
        open_settings(&daemon, &browser);
        for (key, text, _) in settings() {
            assert_eq!(typed(&browser, key), text, "{key}");
        }
        // Discards the console's messages about failed requests.
        browser.complaints();

        // Invalid values: each gets an error, no setting changes, and no typed text is lost.
        let wrong = [
            ("interval", "0", json!(0)),
            ("max_retries", "1e9", json!(1e9)),
            ("retry_delay", "soon", json!("soon")),
            ("flush", "-5", json!(-5)),
            ("keep_samples_days", "367", json!(367)),
            ("timezone", "Nowhere/At_all", json!("Nowhere/At_all")),
        ];
        let body: serde_json::Map<String, Value> =
            wrong.iter().map(|(key, _, value)| (key.to_string(), value.clone())).collect();
        let refused = daemon.request("PATCH", "/api/config", Some(Value::Object(body).to_string()));
        assert_eq!(refused.status, 422);
        for (key, text, _) in &wrong {
            set(&browser, key, text);
        }
        set(&browser, "keep_5min_days", "31");
        browser.click(".chief");
        expect_text(&browser, "form > section .result", "Not saved: see the errors.");
        let faults = refused.json()["detail"].as_array().unwrap().clone();
        assert_eq!(faults.len(), wrong.len());
        for fault in &faults {
            let key = fault["loc"][1].as_str().unwrap();
            assert_eq!(text_of(&browser, &format!("#about-{key} .bad")), fault["msg"].as_str().unwrap(), "{key}");
            let marked = format!("return document.querySelector('{}').ariaInvalid", input(key));
            assert_eq!(browser.run(&marked), "true", "{key}");
        }
        let focused = browser.run("return document.activeElement.getAttribute('aria-describedby')");
        assert_eq!(focused, "about-interval", "the first error has the focus");
        for (key, text, _) in &wrong {
            assert_eq!(typed(&browser, key), *text, "{key}");
        }
        assert_eq!(typed(&browser, "keep_5min_days"), "31");
        assert_eq!(all_there(&document()), Vec::<String>::new());
        browser.click_text("button", "Undo");
        assert_eq!(typed(&browser, "keep_5min_days"), "30");
        assert_eq!(typed(&browser, "timezone"), "<+0530>-5:30");
        // The console has a message about the status 422.
        assert!(browser.complaints().iter().all(|line| line.contains("422")));

        // An empty field restores the default, and so does a choice that equals the default.
        for (key, ..) in settings() {
            let default = document()[key]["default"].clone();
            let choice = ["media", "units", "prefixes"].contains(&key);
            set(&browser, key, if choice { default.as_str().unwrap() } else { "" });
        }
        browser.wait("something to save", save);
        browser.click(".chief");
        wait_until("all have their defaults", || {
            let now = document();
            keys.iter().all(|key| now[key]["origin"] == "default")
        });
        let placeholder = format!("return document.querySelector('{}').placeholder === '300'", input("flush"));
        browser.wait("the default is shown", &placeholder);
        assert_eq!(typed(&browser, "flush"), "");
        no_complaints(&browser);
    });
}

/// Changes settings through the API, as another client.
fn change(daemon: &Daemon, body: Value) {
    let answer = daemon.request("PATCH", "/api/config", Some(body.to_string()));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Keys of settings with different values.
fn settings_differ(one: &Value, other: &Value) -> Vec<String> {
    let differ = |key: &&str| one[key]["value"] != other[key]["value"] || one[key]["origin"] != "saved";
    settings().iter().map(|(key, ..)| *key).filter(differ).map(str::to_string).collect()
}

#[test]
fn settings_of_flags_and_variables_are_locked() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let environment = [("NETPULSE_UNITS", "bytes"), ("NETPULSE_MAX_RETRIES", "9"), ("NETPULSE_IGNORE", "x*,y*")];
        let daemon = daemon_at(&dir, free_address(), &["--interval", "7", "--media", "flash"], &environment);
        let Some(browser) = Browser::start(&dir) else { return };
        browser.emulate(SMALL_PHONE, Theme::Light);
        open_settings(&daemon, &browser);
        let owned = [
            ("interval", "7", "--interval"),
            ("media", "flash", "--media"),
            // `flush` follows from `media`, so its owner is --media.
            ("flush", "3600", "--media"),
            ("units", "bytes", "NETPULSE_UNITS"),
            ("max_retries", "9", "NETPULSE_MAX_RETRIES"),
            ("ignore", "x*, y*", "NETPULSE_IGNORE"),
        ];
        for (key, ..) in settings() {
            let owner = owned.iter().find(|(known, ..)| *known == key);
            let disabled = browser.run(&format!("return document.querySelector('{}').disabled", input(key)));
            let about = text_of(&browser, &format!("#about-{key}"));
            assert_eq!(disabled, owner.is_some(), "{key}");
            match owner {
                Some((_, text, owner)) => {
                    assert_eq!(typed(&browser, key), *text);
                    assert!(about.starts_with(&format!("Set by {owner}: ")), "{about}");
                }
                None => assert!(!about.contains("Set by"), "{about}"),
            }
        }
        // The others can be changed.
        set(&browser, "retry_delay", "3");
        browser.wait("something to save", "return !document.querySelector('.chief').disabled");
        browser.click(".chief");
        wait_until("it is saved", || daemon.get("/api/config")["settings"]["retry_delay"]["value"] == 3.0);
        no_complaints(&browser);
    });
}

#[test]
fn colours_change_at_once_and_are_stored() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &FAST);
        let Some(browser) = Browser::start(&dir) else { return };
        let ground = || browser.run("return getComputedStyle(document.body).backgroundColor");
        const LIGHT: &str = "rgb(242, 244, 247)";
        const DARK: &str = "rgb(14, 19, 24)";
        for (system, choice, expect) in [
            (Theme::Light, "", LIGHT),
            (Theme::Light, "dark", DARK),
            (Theme::Dark, "light", LIGHT),
            (Theme::Dark, "dark", DARK),
            (Theme::Dark, "", DARK),
        ] {
            browser.emulate(PHONE, system);
            open_settings(&daemon, &browser);
            pick(&browser, &control(&browser, "Colours"), choice);
            assert_eq!(ground(), expect, "{choice} where the system has {system:?}");
            open_settings(&daemon, &browser);
            assert_eq!(ground(), expect, "{choice} where the system has {system:?}, after a reload");
            let select = control(&browser, "Colours");
            assert_eq!(browser.run(&format!("return document.querySelector('{select}').value")), choice);
        }
        // It follows the system while the page is open.
        browser.emulate(PHONE, Theme::Light);
        assert_eq!(ground(), LIGHT);
        no_complaints(&browser);
    });
}

/// Times are in the reader's zone, days in the router's. If they differ, the page says so.
#[test]
fn days_are_in_the_routers_time_zone() {
    chart_in("<+0530>-5:30", |_, daemon, browser| {
        open(daemon, browser, "#/usage?by=day&i=wan0");
        browser.wait("the rows", USAGE_READY);
        browser.wait(
            "the text",
            "return [...document.querySelectorAll('.usage .soft')]
            .some((p) => p.textContent === \"Days are in the router's time zone (<+0530>-5:30), times in yours.\")",
        );
        let days = daemon.get("/api/traffic/totals?by=day&limit=31&interface=wan0");
        let today = days.as_array().unwrap().last().unwrap();
        assert!(today["from"].as_str().unwrap().ends_with("T18:30:00Z"), "{today}");
        usage(browser, &days, "day");
        tile(browser, "Today", &today["rx_bytes"], &today["tx_bytes"]);

        // The cursor shows the router's date of a day.
        requests(browser);
        open(daemon, browser, "#/?i=wan0&range=30d&by=day");
        browser.wait("the chart", CHART_READY);
        let series = daemon.get(&latest_request(browser, "/api/traffic/series"));
        let step = series["step"].as_i64().unwrap();
        assert!(step >= DAY, "{step}");
        browser.run("document.querySelector('#history').dispatchEvent(new Event('focusin'))");
        browser.wait("the keys", "return document.querySelector('#chart').onkeydown");
        browser.run("document.querySelector('#chart').focus()");
        wait_until("there is something under the cursor", || {
            press(browser, "ArrowLeft", false);
            browser.run("return !document.querySelector('#read').hidden") == true
        });
        let last = series["t"].as_array().unwrap().len() - 1;
        let expect = day_of(browser, &series["first_day"], last as i64 * step / DAY);
        assert_eq!(text_of(browser, "#read").lines().next(), Some(expect.as_str()));
        assert_ne!(expect, date(browser, seconds(&series["t"][last])));

        // In the same zone there is no note.
        browser.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": "Asia/Kolkata" }));
        open(daemon, browser, "#/usage?by=day&i=wan0");
        browser.wait("the rows", USAGE_READY);
        sleep_ms(300);
        assert!(!text_of(browser, ".usage").contains("times in yours"));
    });
}

// The access token.

const ELSEWHERE: &str = "10.9.0.1";

/// Runs a test in a browser that connects from another address than loopback, so that changes need the token.
pub fn from_other_address(more: &[&str], body: impl FnOnce(&Dir, &Daemon, &Browser, &str) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        ip(&format!("addr add {ELSEWHERE}/24 dev wan0"));
        send("wan0", 1000, 1);
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--host", ELSEWHERE, "--port", "0", "--interval", "1", "--database", &dir.join("net-pulse.db")]);
        let daemon = Daemon::spawn({
            command.args(more);
            command
        });
        let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
        command.args(["--database", &dir.join("net-pulse.db"), "token"]);
        let token = finish(command).out.trim().to_string();
        assert!(token.len() >= 16, "{token}");
        let Some(browser) = Browser::start(&dir) else { return };
        browser.emulate(SMALL_PHONE, Theme::Dark);
        body(&dir, &daemon, &browser, &token);
    });
}

pub fn visit(daemon: &Daemon, browser: &Browser, hash: &str) {
    browser.visit("about:blank");
    browser.visit(&format!("http://{ELSEWHERE}:{}/{hash}", daemon.port()));
}

pub fn answer_dialog(browser: &Browser, token: &str) {
    browser.fill("dialog input", token);
    browser.click_text("dialog button", "OK");
}

const NO_DIALOG: &str = "return !document.querySelector('dialog')";

#[test]
fn the_first_change_asks_for_the_token_once() {
    from_other_address(&[], |_, daemon, browser, token| {
        let retries = || daemon.get("/api/config")["settings"]["max_retries"]["value"].clone();
        visit(daemon, browser, "#/settings");
        browser.wait("the fields", &format!("return document.querySelector('{}')", input("interval")));
        assert_eq!(browser.run(NO_DIALOG), true, "reading needs no token");
        browser.fill(&input("max_retries"), "8");
        browser.fill(&input("retry_delay"), "4");
        browser.wait("something to save", "return !document.querySelector('.chief').disabled");
        browser.click(".chief");
        browser.wait("the question", "return document.querySelector('dialog')?.open");
        // The dialog fits on a small phone, and its controls are large enough for a finger.
        let sizes = browser.run(
            "const { left, right, top, bottom } = document.querySelector('dialog').getBoundingClientRect();
             const thumbs = [...document.querySelectorAll('dialog :is(button, input)')].map((node) => node.clientHeight);
             return [left, top, innerWidth - right, innerHeight - bottom, Math.min(...thumbs) - 40,
                 innerWidth - document.documentElement.scrollWidth]",
        );
        assert!(sizes.as_array().unwrap().iter().all(|size| size.as_f64() >= Some(0.0)), "{sizes}");
        assert!(browser.text("dialog").contains("net-pulse token"), "it names the command that prints the token");
        fs::write(album().join("token-360.png"), browser.screenshot()).unwrap();

        // Cancel: typed text stays, and the page says why nothing changed.
        browser.click_text("dialog button", "Cancel");
        browser.wait("it is gone", NO_DIALOG);
        browser.wait(
            "the text",
            "return /access token/.test(document.querySelector('form > section .result').textContent)",
        );
        assert_eq!((typed(browser, "max_retries"), typed(browser, "retry_delay")), ("8".to_string(), "4".to_string()));
        assert_eq!(browser.run("return localStorage.token ?? null"), Value::Null);

        // A wrong token gives an error, and the dialog opens again.
        browser.click(".chief");
        browser.wait("the question", "return document.querySelector('dialog')?.open");
        assert_eq!(text_of(browser, "dialog .bad"), "", "no error in the first dialog");
        // Several times; at last the API answers 429.
        for attempt in 0..7 {
            answer_dialog(browser, &format!("0123456789abcde{attempt}"));
            browser.wait(
                "it says so",
                "return document.querySelector('dialog .bad')?.textContent \
                && !document.querySelector('dialog input').value",
            );
            assert_eq!(browser.run("return document.querySelectorAll('dialog').length"), 1);
        }
        answer_dialog(browser, &format!(" {token} "));
        expect_text(browser, "form > section .result", "Done.");
        assert_eq!(browser.run(NO_DIALOG), true);
        let settings = daemon.get("/api/config")["settings"].clone();
        assert_eq!((&settings["max_retries"]["value"], &settings["retry_delay"]["value"]), (&json!(8), &json!(4.0)));
        assert_eq!(browser.run("return localStorage.token"), token);

        // The token is stored: no dialog for the next change, after a reload, and in another view.
        browser.fill(&input("max_retries"), "9");
        browser.wait("something to save", "return !document.querySelector('.chief').disabled");
        browser.click(".chief");
        wait_until("it is changed", || retries() == 9);
        visit(daemon, browser, "#/interface/wan0");
        browser.wait("the page", "return document.querySelector('.interface dd')");
        browser.fill(&control(browser, "Alias"), "Uplink");
        browser.click_text(".interface form button", "Save");
        wait_until("it has the name", || daemon.interface("wan0")["alias"] == "Uplink");
        assert_eq!(browser.run(NO_DIALOG), true);

        // After "forget", the dialog opens again; a token that was replaced meanwhile is wrong.
        visit(daemon, browser, "#/settings");
        browser.click_text("button", "Forget the access token");
        browser.wait("forgotten", "return localStorage.token == null");
        browser.click_text(".settings button", "Collect now");
        browser.wait("the question", "return document.querySelector('dialog')?.open");
        answer_dialog(browser, token);
        browser.wait(
            "the text",
            "return [...document.querySelectorAll('.result')]
            .some((node) => /^Interfaces read: \\d/.test(node.textContent))",
        );
        browser.run("localStorage.token = 'of another router'");
        browser.click_text(".settings button", "Stop");
        browser.wait("the question", "return document.querySelector('dialog')?.open");
        assert_eq!(text_of(browser, "dialog .bad"), "Wrong token.");
        // The Escape key.
        browser.keys("\u{E00C}");
        browser.wait("it is gone", NO_DIALOG);
        assert_eq!(daemon.get("/collector/status")["is_running"], true);
        let complaints = browser.complaints();
        assert!(complaints.iter().all(|line| line.contains("401") || line.contains("429")), "{complaints:?}");
        assert!(complaints.iter().any(|line| line.contains("429")));
    });
}

#[test]
fn a_private_service_asks_for_the_token_once() {
    from_other_address(&["--private"], |_, daemon, browser, token| {
        visit(daemon, browser, "");
        browser.wait("the question", "return document.querySelector('dialog')?.open");
        sleep_ms(1500);
        assert_eq!(browser.run("return document.querySelectorAll('dialog').length"), 1, "one dialog for all requests");
        answer_dialog(browser, token);
        browser.wait(
            "it is there",
            "return document.querySelector('#state').textContent === 'live' \
            && document.querySelector('#watched tr') && !document.querySelector('dialog')",
        );
        visit(daemon, browser, "#/system");
        browser
            .wait("the token is stored", "return /All is well/.test(document.querySelector('.system p')?.textContent)");
        assert_eq!(browser.run(NO_DIALOG), true);

        // After "Cancel", the dialog does not open again.
        browser.run("delete localStorage.token");
        visit(daemon, browser, "");
        browser.wait("the question", "return document.querySelector('dialog')?.open");
        browser.click_text("dialog button", "Cancel");
        browser.wait("the reason", "return /access token/.test(document.querySelector('#trouble').textContent)");
        sleep_ms(2500);
        assert_eq!(browser.run(NO_DIALOG), true);
        assert!(browser.complaints().iter().all(|line| line.contains("401")));
    });
}

#[test]
fn a_missing_interface_of_a_setting_gives_a_notice() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        send("wan0", 1000, 1);
        let words = ["--interval", "1", "--interface", "wan0", "--interface", "<b>nope*"];
        let daemon = Daemon::start(&dir, &words);
        let Some(browser) = Browser::start(&dir) else { return };
        browser.emulate(SMALL_PHONE, Theme::Light);
        browser.open(&daemon, "/");
        browser.wait("the notice", "return document.querySelector('#trouble').checkVisibility()");
        let notice = browser.text("#trouble");
        assert_eq!(notice, "--interface <b>nope* matches no interface now: counting starts when one appears.");
        browser.wait("it is live", "return document.querySelector('#state').textContent === 'live'");
        assert_eq!(browser.run("return document.querySelector('#state').className"), "");
        let wide = "return document.scrollingElement.scrollWidth > document.scrollingElement.clientWidth";
        assert_eq!(browser.run(wide), false);

        ip("link add <b>nope1 type bridge");
        ip("link property add dev wan0 altname the-line");
        wait_until("it is there", || daemon.get("/api/system/health")["reason"].is_null());
        browser.visit("about:blank");
        browser.open(&daemon, "/#/system");
        browser.wait("all is well", "return /All is well/.test(document.querySelector('.system p')?.textContent)");
        assert_eq!(browser.run("return document.querySelector('#trouble').checkVisibility()"), false);
        // Selected by an altname, the interface is shown as selected.
        let chosen = json!({"primary": "the-line"}).to_string();
        assert_eq!(daemon.request("PATCH", "/api/config", Some(chosen)).status, 200);
        browser.visit("about:blank");
        browser.open(&daemon, "/#/interface/wan0");
        browser.wait("its altname", "return /the-line/.test(document.querySelector('.interface').textContent)");
        browser.click_text("button", "Choose the primary by traffic");
        wait_until("the setting is empty", || daemon.get("/api/config")["settings"]["primary"]["value"] == "");
        assert_eq!(browser.complaints(), Vec::<String>::new());
    });
}

/// While a disk hangs, rates and totals continue, and the page says what a power cut would lose.
#[test]
fn the_page_reports_a_save_that_hangs() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &["--interval", "1", "--flush", "2", "--interface", "wan0"]);
        daemon.get("/health");
        send("wan0", 1000, 1);
        let Some(browser) = Browser::start(&dir) else { return };
        browser.emulate(SMALL_PHONE, Theme::Light);
        browser.open(&daemon, "/");
        browser.wait("it is live", "return document.querySelector('#state').textContent === 'live'");
        let fault = InjectedFault::of_writer(&daemon, "pwrite64,fdatasync,fsync,ftruncate", "delay_enter=60000000");
        send("wan0", 1000, 5);
        // The page requests health every 15 seconds.
        wait_until_within("the notice", Duration::from_secs(60), || {
            browser.run("return document.querySelector('#trouble').checkVisibility()") == true
        });
        let notice = browser.text("#trouble");
        for part in ["(nothing could be saved for ", "the disk does not answer; a power cut now would lose the last "] {
            assert!(notice.contains(part), "{notice}");
        }
        fs::write(album().join("hanging-disk-360.png"), browser.screenshot()).unwrap();
        assert_eq!(browser.run("return document.querySelector('#state').textContent"), "degraded");
        drop(fault);
        wait_until_within("the notice is gone", Duration::from_secs(60), || {
            browser.run("return document.querySelector('#trouble').checkVisibility()") == false
        });
        assert_eq!(browser.complaints(), Vec::<String>::new());
    });
}

// Downloads.

fn downloads(browser: &Browser, folder: &str) {
    fs::create_dir_all(folder).unwrap();
    browser.devtools("Browser.setDownloadBehavior", json!({ "behavior": "allow", "downloadPath": folder }));
}

/// Waits for a downloaded file; returns its name and contents, and deletes it.
#[track_caller]
fn downloaded(folder: &str) -> (String, Vec<u8>) {
    // A hidden file is a download in progress.
    let plain = |path: &std::path::PathBuf| !path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let there =
        || -> Vec<_> { fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(plain).collect() };
    // An incomplete download has another extension.
    wait_until("a file comes", || {
        let files = there();
        files.len() == 1 && files[0].extension().is_none_or(|ending| ending != "crdownload")
    });
    let path = there().remove(0);
    let found = (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(&path).unwrap());
    fs::remove_file(&path).unwrap();
    found
}

#[test]
fn exports_and_backups_match_the_api() {
    chart(|dir, daemon, browser| {
        let folder = dir.join("downloads");
        downloads(browser, &folder);
        open_settings(daemon, browser);
        let today = browser.run("return new Date().toJSON().slice(0, 10)");
        let day =
            |days: i64| browser.run(&format!("return new Date({}000).toJSON().slice(0, 10)", unix_now() - days * DAY));
        let (first, last) = (day(3), day(2));
        let (first, last) = (first.as_str().unwrap(), last.as_str().unwrap());
        for (resolution, format, name, range) in [
            ("5min", "csv", "", false),
            ("sample", "json", "wan0", true),
            ("hour", "csv", "lan0", true),
            ("day", "json", "", false),
            ("day", "csv", "wan0", true),
        ] {
            pick(browser, &control(browser, "Interface"), name);
            pick(browser, &control(browser, "A row for"), resolution);
            pick(browser, &control(browser, "Format"), format);
            for (label, date) in [("From", first), ("To", last)] {
                let field = control(browser, label);
                let date = if range { date } else { "" };
                browser.run(&format!("const field = document.querySelector('{field}'); field.value = '{date}';"));
            }
            requests(browser);
            browser.click_text("button", "Export");
            let (file, bytes) = downloaded(&folder);
            // The API names this file in Content-Disposition, which overrides the page's name.
            let csv = "traffic_data.csv".to_string();
            assert_eq!(file, if format == "csv" { csv } else { format!("net-pulse-{}.json", today.as_str().unwrap()) });
            let mut path = format!("/api/export/traffic?resolution={resolution}&format={format}");
            if !name.is_empty() {
                path += &format!("&interface_name={name}");
            }
            if range {
                path += &format!("&start_time={first}&end_time={last}T23:59:59");
            }
            let expect = daemon.request("GET", &path, None);
            assert_eq!(expect.status, 200);
            assert_eq!(bytes.len(), expect.body.len(), "{path}");
            assert!(bytes == expect.body, "{path}");
            let lines = String::from_utf8(bytes).unwrap();
            assert!(lines.matches("wan0").count() + lines.matches("lan0").count() >= 2, "{path}: {lines}");
            if range && format == "csv" {
                assert!(lines.contains(first) && lines.contains(last) && !lines.contains(day(5).as_str().unwrap()));
            }
        }

        browser.click_text("button", "Backup");
        let (file, bytes) = downloaded(&folder);
        assert_eq!(file, format!("net-pulse-{}.db", today.as_str().unwrap()));
        let other = Dir::new();
        let path = other.join("net-pulse.db");
        fs::write(&path, &bytes).unwrap();
        {
            let database = rusqlite::Connection::open(&path).unwrap();
            let word: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(word, "ok");
            let tables: i64 = database
                .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get(0))
                .unwrap();
            assert!(tables >= 4, "{tables}");
        }
        // The backup is complete: another daemon with it has the same values for all past days.
        let all = format!("/api/export/traffic?resolution=day&format=csv&end_time={}", unix_now() / DAY * DAY - 1);
        let expect = daemon.request("GET", &all, None).text();
        let copy = Daemon::start(&other, &STILL);
        wait_until("it is opened", || copy.request("GET", &all, None).text().lines().count() >= expect.lines().count());
        assert_eq!(copy.request("GET", &all, None).text(), expect);
    });
}

/// A plain link cannot send the token.
#[test]
fn exports_of_a_private_service_carry_the_token() {
    from_other_address(&["--private"], |dir, daemon, browser, token| {
        let folder = dir.join("downloads");
        downloads(browser, &folder);
        visit(daemon, browser, "#/settings");
        browser.wait("the question", "return document.querySelector('dialog')?.open");
        answer_dialog(browser, token);
        browser.wait("the fields", &format!("return document.querySelector('{}')", input("interval")));
        send("wan0", 1000, 5);
        for format in ["csv", "json"] {
            pick(browser, &control(browser, "A row for"), "day");
            pick(browser, &control(browser, "Format"), format);
            browser.click_text("button", "Export");
            let (_, bytes) = downloaded(&folder);
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains("wan0") && text.contains("rx_peak"), "{text}");
            assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), format == "json", "{text}");
        }
    });
}

// The frame.

#[test]
fn each_view_has_a_url_and_the_back_button_works() {
    chart(|_, daemon, browser| {
        let views = [
            ("#/", "Now", "return !document.querySelector('#home').hidden"),
            ("#/usage", "Usage", "return document.querySelector('.usage .tiles')"),
            ("#/system", "System", "return document.querySelector('.system .facts')"),
            ("#/settings", "Settings", "return document.querySelector('.settings .chief')"),
        ];
        let current = |word: &str| {
            let script = "return [...document.querySelectorAll('nav [aria-current]')].map((link) => link.textContent)";
            browser.run(script)[0] == word
        };
        for (hash, word, there) in views {
            open(daemon, browser, hash);
            browser.wait(word, there);
            wait_until(word, || current(word));
        }
        for (hash, word, there) in views {
            browser.click_text("header nav a", word);
            browser.wait(word, there);
            assert_eq!(self::hash(browser), hash);
        }
        for (hash, word, there) in views.iter().rev().skip(1) {
            browser.back();
            browser.wait(word, there);
            assert_eq!(self::hash(browser), *hash);
            wait_until(word, || current(word));
        }
        // From a row to its interface, then to its history and usage, and back.
        browser.click_text("#watched a", "lan0");
        expect_text(browser, ".interface h2:nth-of-type(2)", "lan0");
        assert_eq!(hash(browser), "#/interface/lan0");
        browser.click_text("a.button", "History");
        browser.wait(
            "its curve",
            "return document.querySelector('#chart').ariaLabel.startsWith('Traffic of lan0 ') \
            && location.hash === '#/?i=lan0'",
        );
        browser.back();
        browser.wait("it", "return document.querySelector('.interface')");
        browser.click_text("a.button", "Usage");
        browser.wait("its usage", "return document.querySelector('.usage [aria-label=Interface]')?.value === 'lan0'");

        // A range has a URL too.
        let (from, to) = (unix_now() - 5 * DAY, unix_now() - 4 * DAY);
        open(daemon, browser, &format!("#/?i=lan0&i=wan0&from={from}&to={to}&over=1&by=hour"));
        browser.wait("the chart", CHART_READY);
        expect_range(browser, "lan0, wan0", from, to);
        expect_text(browser, "#step", "averages of 1 h, pale: peaks");
        let state = "return [document.querySelector('#tools button:nth-child(7)').ariaPressed,
            document.querySelector('#tools select').value, document.querySelectorAll('#ranges [aria-pressed=true]').length]";
        assert_eq!(browser.run(state), json!(["true", "hour", 0]));
        // An unknown URL shows the first view, without an error.
        for hash in ["#/nowhere", "#nonsense", "#/?range=3y&i=nobody&from=x&by=year"] {
            open(daemon, browser, hash);
            browser.wait(hash, CHART_READY);
        }
        // Names with special characters.
        open(daemon, browser, "#/interface/no%2Fsuch%20one");
        expect_text(browser, ".interface h2:nth-of-type(2)", "no/such one");
        expect_text(browser, ".interface .soft", "There is no such interface.");
    });
}

/// With the maximum number of absent links.
#[test]
fn rows_in_a_closed_list_are_not_created() {
    const GONE: u32 = 256;
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let until = unix_now() - 90;
        let mut store = Store::open(dir.join("net-pulse.db").as_ref(), &Options { max_bytes: 32 << 20 }).unwrap().store;
        let name = |id: u32| format!("job{id}");
        let mut records: Vec<Record> =
            (1..=GONE).map(|id| record(id, &name(id), InterfaceKind::Veth, until - DAY, until)).collect();
        let mut batch = Batch::default();
        let one =
            |iface| Sample { iface, quality: SampleQuality::Plain, span_ms: 1000, delta: Counters([5000; COUNTERS]) };
        batch.samples.extend((1..=GONE).map(one));
        batch.ticks.push(Tick { seq: 1, mono_ms: 1000, unix: Some(until), end: batch.samples.len() });
        save(&mut store, &mut batch, &mut records, &[], &[], &Zone::UTC);
        drop(store);
        let daemon = Daemon::start(&dir, &FAST);
        let Some(browser) = Browser::start(&dir) else { return };
        open(&daemon, &browser, "#/");
        browser.wait("they are counted", "return parseInt(document.querySelector('#fold summary').textContent) > 250");
        let nodes = browser.run("return document.querySelectorAll('*').length").as_u64().unwrap();
        assert!(nodes < 2_000, "{nodes} nodes");
        assert_eq!(browser.run("return document.querySelectorAll('#ignored tr').length"), 0);
        browser.click("#fold summary");
        let all = "const rows = document.querySelectorAll('#ignored tr').length;
            return rows > 250 && `${rows} ignored` === document.querySelector('#fold summary').textContent";
        browser.wait("they are seen", all);
        no_complaints(&browser);
    });
}

#[test]
fn a_hidden_tab_sends_no_requests() {
    in_namespace(|| {
        let dir = Dir::new();
        cable("wan0", "lan0");
        let daemon = Daemon::start(&dir, &FAST);
        let Some(browser) = Browser::start(&dir) else { return };
        open(&daemon, &browser, "#/");
        let busy = || requests(&browser).iter().filter(|target| target.starts_with("/api/")).count();
        busy();
        sleep_ms(2500);
        assert!(busy() >= 2, "it requests rates every second");
        let other = browser.devtools("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        browser.wait("it is hidden", "return document.hidden");
        // Requests in progress end.
        sleep_ms(1000);
        busy();
        sleep_ms(4000);
        assert_eq!(busy(), 0);
        browser.devtools("Target.closeTarget", json!({ "targetId": other }));
        browser.wait("it is seen", "return !document.hidden");
        wait_until("it sends requests again", || busy() >= 1);
        browser.wait("live", "return document.querySelector('#state').textContent === 'live'");
        no_complaints(&browser);
    });
}
