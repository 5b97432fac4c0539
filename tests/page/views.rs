//! Tests the layout of the page in Chromium: every view on every screen, and the page without data or without an
//! answer. Screenshots are in target/tmp/page; `cp target/tmp/page/readme.png docs/page.png` updates the one of
//! README.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::browser::*;
use crate::common::stored_history::unix_now;
use crate::common::*;
use crate::home::{HOME, fill_home, posix_zone};
use serde_json::{Value, json};

/// Address of the router, not loopback: from loopback, changes would need no token.
const ROUTER: &str = "10.66.0.1";

/// The links of a household with traffic, and the program with a year of history.
struct Home {
    daemon: Option<Daemon>,
    address: std::net::SocketAddr,
    _traffic: Traffic,
    dir: Dir,
}

impl Home {
    fn new() -> Home {
        let dir = Dir::new();
        fs::copy(a_year(), dir.join("net-pulse.db")).expect("a copy");
        ip(&format!("address add {ROUTER}/32 dev lo"));
        links();
        let traffic = Traffic::begin();
        let address = format!("{ROUTER}:{}", free_address().port()).parse().expect("an address");
        let mut home = Home { daemon: None, address, _traffic: traffic, dir };
        home.start();
        home
    }

    fn start(&mut self) {
        self.daemon = Some(daemon(&self.dir, self.address));
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it runs")
    }

    fn url(&self, hash: &str) -> String {
        format!("http://{}/{hash}", self.address)
    }
}

fn daemon(dir: &Dir, address: std::net::SocketAddr) -> Daemon {
    let mut command = net_pulse(env!("CARGO_BIN_EXE_net-pulse"));
    // With sysfs, the kinds of links come from their names; netlink would report all of them as veth.
    command.args(["--host", ROUTER, "--port", &address.port().to_string(), "--source", "sysfs"]);
    command.args(["--database", &dir.join("net-pulse.db"), "--ignore", "guest*", "--timezone", &posix_zone(ahead())]);
    Daemon::spawn_at(command, address)
}

/// Offset of a time zone, in hours, in which it is about 9 p.m. now: so there is no midnight during a test, and today
/// has traffic.
fn ahead() -> i64 {
    static AHEAD: OnceLock<i64> = OnceLock::new();
    *AHEAD.get_or_init(|| (32 - unix_now().rem_euclid(86_400) / 3600) % 24 - 11)
}

/// The beginning of today in that zone.
fn midnight() -> i64 {
    unix_now() - (unix_now() + ahead() * 3600).rem_euclid(86_400)
}

fn browser(dir: &Dir) -> Option<Browser> {
    let browser = Browser::start(dir)?;
    // The names Etc/GMT±N have the opposite sign.
    let zone = format!("Etc/GMT{:+}", -ahead());
    browser.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": zone }));
    Some(browser)
}

/// The path of the history; it is written once per run, for all tests of this file.
fn a_year() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("year");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a folder");
        let path = dir.join("net-pulse.db");
        fill_home(path.to_str().expect("a plain path"), ahead());
        path
    })
}

/// The links. br-lan is a veth with the name of a bridge: a real bridge would drop the test's frames.
fn links() {
    for (name, ..) in HOME {
        cable(name, &format!("veth-{name}"));
    }
    ip("link add docker0 type bridge");
    ip("link add guest-network1 type bridge");
    ip("address add 203.0.113.7/24 dev wan0");
    ip("address add 192.168.1.1/24 dev br-lan");
}

/// Sends frames in both directions, at varying rates, until it is dropped.
struct Traffic {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Received and sent traffic of each link, in percent of the household's download.
const SHARES: [(usize, usize); 5] = [(100, 13), (14, 103), (5, 61), (9, 42), (2, 1)];

impl Traffic {
    fn begin() -> Traffic {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let thread = thread::spawn(move || {
            let wires = HOME.map(|(name, ..)| [RawSocket::of(&format!("veth-{name}")), RawSocket::of(name)]);
            for turn in 0.. {
                if until.load(Ordering::Relaxed) {
                    return;
                }
                let wave = |length: f64| (f64::from(turn) / length).sin() + 1.0;
                // 1400 bytes per frame, ten rounds per second: about 20 Mbit/s on the first link.
                let down = (40.0 + 45.0 * wave(17.0) + 35.0 * wave(83.0) + 30.0 * wave(3.1)) as usize;
                for ([inwards, outwards], (rx, tx)) in wires.iter().zip(SHARES) {
                    inwards.send(BROADCAST, INVALID_IPV4, 1400, down * rx / 100);
                    outwards.send(BROADCAST, INVALID_IPV4, 1400, down * tx / 100);
                }
                sleep_ms(100);
            }
        });
        Traffic { over, thread: Some(thread) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().expect("it is ended once").join();
    }
}

struct View {
    name: &'static str,
    hash: String,
    /// Requests that must be answered before the view is complete.
    asks: &'static [&'static str],
    /// Script to run then.
    more: &'static str,
}

fn views() -> Vec<View> {
    let view = |name, hash: &str, asks, more| View { name, hash: hash.to_string(), asks, more };
    const CHART: &[&str] = &["api/traffic/series", "api/events", "api/traffic/live"];
    const LIVE: &[&str] = &["api/events", "api/traffic/live"];
    const TOTALS: &[&str] = &["api/traffic/totals"];
    const IFACE: &[&str] = &["/stats", "api/events", "api/traffic/history"];
    const SYSTEM: &[&str] = &["api/system/info", "api/system/metrics", "api/events"];
    let (from, to) = (midnight() - 86_400, midnight());
    let open = "document.querySelectorAll('details').forEach((each) => (each.open = true));
        document.querySelector('#chart').focus({ preventScroll: true })";
    let mut found: Vec<View> = ["24h", "5m", "1h", "6h", "7d", "30d", "1y"]
        .into_iter()
        .map(|range| view(range, &format!("#/?range={range}"), if range == "5m" { LIVE } else { CHART }, ""))
        .collect();
    found.extend([
        view("a-day", &format!("#/?from={from}&to={to}"), CHART, ""),
        view("stacked", "#/?i=wlan0&i=eth1&i=wg0&range=24h", CHART, ""),
        view("overlaid", "#/?over=1&range=7d", CHART, ""),
        view("unfolded", "#/?range=24h&by=hour", CHART, open),
    ]);
    found.extend(["hour", "day", "week", "month", "year"].map(|by| {
        let name: &'static str = Box::leak(format!("usage-{by}").into_boxed_str());
        view(name, &format!("#/usage?by={by}"), TOTALS, "")
    }));
    found.extend([
        view("interface", "#/interface/wan0", IFACE, ""),
        view("interface-bridge", "#/interface/br-lan", IFACE, ""),
        view("interface-absent", "#/interface/wwan0", &["api/events"], ""),
        view("interface-ignored", "#/interface/docker0", &["api/events"], ""),
        view("interface-nobody", "#/interface/none", &[], ""),
        view("system", "#/system", SYSTEM, ""),
        view("settings", "#/settings", &["api/config"], ""),
    ]);
    found
}

impl View {
    fn show(&self, browser: &Browser) {
        browser.run(&format!("performance.clearResourceTimings(); location.hash = {}", json!(self.hash)));
        self.complete(browser);
    }

    fn complete(&self, browser: &Browser) {
        let complete = format!(
            "const seen = performance.getEntriesByType('resource').map(({{ name }}) => name);
             return {}.every((asked) => seen.some((name) => name.includes(asked)))",
            json!(self.asks)
        );
        browser.wait(self.name, &complete);
        if !self.more.is_empty() {
            browser.run(self.more);
            sleep_ms(200);
        }
        settle(browser);
    }
}

/// Waits until the latest answers are drawn.
fn settle(browser: &Browser) {
    browser.run_later(
        "const [done] = arguments; setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 50)",
    );
}

const SCREENS: [(Screen, Theme); 5] = [
    (DESKTOP, Theme::Light),
    (DESKTOP, Theme::Dark),
    (PHONE, Theme::Light),
    (PHONE, Theme::Dark),
    (SMALL_PHONE, Theme::Light),
];

/// Script that returns the layout faults of the current view as texts.
const FAULTS: &str = r##"
const faults = [];
const seen = (selector) => [...document.querySelectorAll(selector)].filter((node) => node.checkVisibility() && node.getBoundingClientRect().width > 1);
const called = (node) => `${node.tagName.toLowerCase()} "${(node.innerText || node.ariaLabel || node.id).slice(0, 30)}"`;
const root = document.scrollingElement;
// On a phone, the viewport grows with wide content.
if (root.scrollWidth > width) {
  const wide = seen("body *").filter((node) => node.getBoundingClientRect().right > width);
  faults.push(`${root.scrollWidth} px wide: ${wide.slice(0, 3).map(called)}`);
}
const touched = matchMedia("(pointer: coarse)").matches;
if (touched)
  for (const node of seen("nav a, .bar a, button, select, input, summary, #list th a, footer a")) {
    const { width, height } = node.getBoundingClientRect();
    if (Math.round(Math.min(width, height)) < 44) faults.push(`${called(node)} is ${width.toFixed(1)} x ${height.toFixed(1)}, too small for a thumb`);
  }
for (const node of seen("td, dd, #rates b, .tile b, #today"))
  if (!getComputedStyle(node).fontVariantNumeric.includes("tabular-nums")) faults.push(`${called(node)}: no tabular figures`);
// Each column must have one unit.
for (const table of seen("table")) {
  const units = new Map();
  for (const { cells } of table.rows)
    [...cells].forEach((cell, i) => {
      const unit = /^[\d.,]+ (\S+)$/.exec(cell.innerText)?.[1];
      if (unit) units.set(i, (units.get(i) ?? new Set()).add(unit));
    });
  for (const [i, found] of units) if (found.size > 1) faults.push(`column ${i} is in ${[...found]}`);
}
const overlap = (texts, what) => texts.forEach(([left, top, right, bottom, text], i) => {
  const other = texts.slice(0, i).find((other) => left < other[2] && right > other[0] && top < other[3] && bottom > other[1]);
  if (other) faults.push(`${what}: "${text}" lies on "${other[4]}"`);
});
overlap(seen(".bars small, .bars > span").map((node) => {
  const { left, top, right, bottom } = node.getBoundingClientRect();
  // The lines of the scale cover the whole width.
  return [left, top, node.tagName === "SPAN" ? left : right, bottom, node.innerText];
}), "bars");
// Redraws the chart, and records its texts.
const texts = new Map();
const { fillText } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  if (this.canvas.id === "chart" && !"▼■".includes(text)) {
    const { width } = this.measureText(text);
    const left = x - width * { left: 0, center: 0.5, right: 1 }[this.textAlign];
    const half = parseFloat(this.font) * 0.4;
    texts.set([x, y, text].join(), [left, y - half, left + width, y + half, text]);
    if (left < 0 || left + width > this.canvas.width + 1) faults.push(`"${text}" is cut off`);
  }
  return fillText.apply(this, arguments);
};
onresize();
const [done] = arguments;
requestAnimationFrame(() => requestAnimationFrame(() => {
  CanvasRenderingContext2D.prototype.fillText = fillText;
  overlap([...texts.values()], "chart");
  if (seen("#chart").length && !texts.size) faults.push("the chart has no text");
  done(faults);
}));
"##;

const AXE: &str = "const [done] = arguments;
    axe.run().then(({ violations }) => done(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target)}`)), (error) => done([String(error)]));";

/// The script of axe-core; `None` if it cannot be downloaded. Call it before entering a namespace without a network.
fn axe() -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/axe");
    let output = Command::new(script).output().expect("bash");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
    if output.status.code() == Some(77) {
        skip(&text);
        return None;
    }
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    Some(fs::read_to_string(text).expect("a script"))
}

/// Checks the shown view, saves a screenshot, and collects faults.
struct Inspector<'a> {
    browser: &'a Browser,
    axe: Option<&'a str>,
    faults: Vec<String>,
}

impl Inspector<'_> {
    fn inspect(&mut self, name: &str, screen: Screen, theme: Theme) {
        let name = format!("{name}-{}-{}", screen.width, if theme == Theme::Dark { "dark" } else { "light" });
        // On the small phone, only the layout is checked.
        if screen != SMALL_PHONE {
            fs::write(album().join(format!("{name}.png")), self.browser.whole_page()).expect("room on the disk");
        }
        let faults = format!("const width = {};{FAULTS}", screen.width);
        let mut found = self.browser.run_later(&faults).as_array().expect("a list").clone();
        if let Some(axe) = self.axe.filter(|_| screen != SMALL_PHONE) {
            if self.browser.run("return typeof axe") == "undefined" {
                self.browser.run(&format!("{axe}; window.axe = axe"));
            }
            found.extend(self.browser.run_later(AXE).as_array().expect("a list").clone());
        }
        self.faults.extend(found.iter().map(|fault| format!("{name}: {}", fault.as_str().expect("a word"))));
    }

    fn close(self) {
        assert!(self.faults.is_empty(), "{:#?}", self.faults);
    }
}

/// Checks that all requests went to the program and succeeded.
fn only_to(browser: &Browser, home: &str) {
    let events = browser.network();
    let mut asked = 0;
    for event in &events {
        let (method, params) = (event["method"].as_str().expect("a name"), &event["params"]);
        let url = params["request"]["url"].as_str().or(params["response"]["url"].as_str()).unwrap_or_default();
        match method {
            "Network.requestWillBeSent" => {
                // data: is an icon of Chromium.
                assert!(url.starts_with(home) || url.starts_with("data:image/svg"), "a request to another host: {url}");
                asked += 1;
            }
            "Network.responseReceived" => {
                assert!(params["response"]["status"].as_u64() < Some(400), "{url}: {}", params["response"]["status"]);
            }
            "Network.loadingFailed" => assert_eq!(params["canceled"], true, "{params}"),
            _ => {}
        }
    }
    assert!(asked > 5, "{events:?}");
}

#[test]
fn every_view_on_every_screen() {
    let axe = axe();
    in_namespace(|| {
        let home = Home::new();
        let Some(browser) = browser(&home.dir) else { return };
        let mut inspector = Inspector { browser: &browser, axe: axe.as_deref(), faults: Vec::new() };
        for (screen, theme) in SCREENS {
            browser.emulate(screen, theme);
            browser.visit(&home.url(""));
            browser.wait("it is live", LIVE);
            for view in views() {
                view.show(&browser);
                inspector.inspect(view.name, screen, theme);
            }
            only_to(&browser, &home.url(""));
            assert_eq!(browser.complaints(), Vec::<String>::new());
        }
        inspector.close();
        picture_of_the_readme(&browser, &home);
    });
}

/// Makes the screenshot of README: a light desktop and a dark phone, side by side.
fn picture_of_the_readme(browser: &Browser, home: &Home) {
    let desktop = Screen { height: 1100, ..DESKTOP };
    let pictures = [(desktop, Theme::Light), (PHONE, Theme::Dark)].map(|(screen, theme)| {
        browser.emulate(screen, theme);
        // Closes opened lists.
        browser.visit("about:blank");
        browser.visit(&home.url("#/?range=24h"));
        browser.wait("it is live", LIVE);
        browser.wait(
            "its chart",
            "return performance.getEntriesByType('resource').some(({ name }) => name.includes('series'))",
        );
        settle(browser);
        let name = format!("readme-{}.png", screen.width);
        fs::write(album().join(&name), browser.screenshot()).expect("room on the disk");
        name
    });
    let page = format!(
        "<!doctype html><style>body {{ margin: 0; padding: 20px; width: 1120px; box-sizing: border-box; display: flex; gap: 20px; align-items: center; background: #fff }}
         img {{ flex: 1; min-width: 0; border-radius: 10px; box-shadow: 0 0 0 1px #ccd3da }} img + img {{ flex: 0 0 250px }}</style>
         <img src={}><img src={}>",
        pictures[0], pictures[1]
    );
    let path = album().join("readme.html");
    fs::write(&path, page).expect("room on the disk");
    browser.emulate(Screen { width: 1120, height: 600, phone: false }, Theme::Light);
    browser.visit(&format!("file://{}", path.display()));
    browser.wait(
        "both pictures",
        "return [...document.images].every(({ complete, naturalWidth }) => complete && naturalWidth)",
    );
    let picture = browser.whole_page();
    assert!(picture.len() < 150_000, "{} bytes for README.md", picture.len());
    fs::write(album().join("readme.png"), picture).expect("room on the disk");
}

const LIVE: &str = "return document.querySelector('#state').textContent == 'live'";

/// From a first visit without data to a router that does not answer for a while.
#[test]
fn the_page_without_data_and_without_an_answer() {
    let axe = axe();
    in_namespace(|| {
        let dir = Dir::new();
        let Some(browser) = browser(&dir) else { return };
        let mut inspector = Inspector { browser: &browser, axe: axe.as_deref(), faults: Vec::new() };
        let everywhere = |inspector: &mut Inspector, name: &str| {
            for (screen, theme) in SCREENS {
                browser.emulate(screen, theme);
                settle(&browser);
                inspector.inspect(name, screen, theme);
            }
        };

        let bare = Daemon::start(&dir, &[]);
        browser.open(&bare, "/");
        let waiting = browser
            .wait("the text without traffic", "return document.querySelector('#waiting:not([hidden])')?.textContent");
        assert!(
            waiting.as_str().is_some_and(|text| text.starts_with("No interface has carried traffic yet.")),
            "{waiting}"
        );
        everywhere(&mut inspector, "first-visit");
        browser.run("location.hash = '#/usage'");
        browser.wait(
            "the text without usage",
            "return document.querySelector('.usage .soft')?.textContent.startsWith('No data for this time')",
        );
        everywhere(&mut inspector, "first-visit-usage");
        assert_eq!(browser.complaints(), Vec::<String>::new());
        drop(bare);
        browser.visit("about:blank");
        browser.complaints();

        let mut home = Home::new();
        let fresh = Dir::new();
        let young = Daemon::start(&fresh, &[]);
        browser.open(&young, "/");
        let words = browser
            .wait("the text without history", "return document.querySelector('#empty:not([hidden])')?.textContent");
        assert!(words.as_str().is_some_and(|text| text.contains("Data appears minutes after")), "{words}");
        browser.wait("a rate", "return /\\d/.test(document.querySelector('#rates b').textContent)");
        everywhere(&mut inspector, "first-minutes");
        assert_eq!(browser.complaints(), Vec::<String>::new());
        drop(young);
        browser.visit("about:blank");
        browser.complaints();

        browser.visit(&home.url("#/settings"));
        browser.click_text("button", "Stop");
        browser.wait("the question for the token", "return document.querySelector('dialog[open]')");
        everywhere(&mut inspector, "token");
        let complaints = browser.complaints();
        assert!(complaints.len() == 1 && complaints[0].contains("401"), "{complaints:#?}");
        let token = fs::read_to_string(home.dir.join("net-pulse.db.token")).expect("a token");
        browser.fill("dialog input", token.trim());
        browser.click_text("dialog button", "OK");
        browser.wait("it is stopped", "return document.querySelector('#stopped').checkVisibility()");
        assert_eq!(browser.text("#state"), "stopped");
        browser.run("location.hash = '#/?range=24h'");
        browser.wait(
            "its chart",
            "return performance.getEntriesByType('resource').some(({ name }) => name.includes('series'))",
        );
        everywhere(&mut inspector, "stopped");
        browser.click("#stopped button");
        browser.wait("it goes on", "return !document.querySelector('#stopped').checkVisibility()");
        assert_eq!(browser.complaints(), Vec::<String>::new());

        // The scripts of the other views are not loaded yet.
        browser.visit("about:blank");
        browser.visit(&home.url("#/?range=24h"));
        let figures =
            "return [...document.querySelectorAll('#rates b, #list td')].map((node) => node.textContent).join()";
        browser.wait("figures", "return /\\d/.test(document.querySelector('#rates b').textContent)");
        home.daemon.take().expect("it ran").kill();
        browser.wait("the bar", "return document.querySelector('#trouble').checkVisibility()");
        assert!(browser.text("#trouble").starts_with("No answer since"), "{}", browser.text("#trouble"));
        assert_eq!(browser.text("#state"), "no answer");
        let last = browser.run(figures);
        everywhere(&mut inspector, "gone");
        let curves = [Theme::Light, Theme::Dark].map(|theme| {
            browser.emulate(DESKTOP, theme);
            settle(&browser);
            browser.run("return document.querySelector('#spark').toDataURL()")
        });
        assert!(curves[0] != curves[1], "the curves change their colours even without an answer");
        // Longer than a rate is shown as current.
        sleep_ms(11_000);
        assert_eq!(browser.run(figures), last, "the last data are still shown");
        assert!(last.as_str().is_some_and(|last| last.starts_with(char::is_numeric)), "{last}");
        browser.click_text("nav a", "System");
        sleep_ms(500);
        home.start();
        browser.wait("it is live again", LIVE);
        browser.wait("no bar", "return !document.querySelector('#trouble').checkVisibility()");
        browser.wait(
            "the view that was asked for",
            "return document.querySelector('.system')?.innerText.includes('All is well')",
        );
        browser.click_text("nav a", "Now");
        browser.wait("other figures", &format!("return (() => {{ {figures} }})() != {last}"));
        for complaint in browser.complaints() {
            // Connection refused, or reset by the end of the program.
            let gone = ["net::ERR_CONNECTION", "net::ERR_EMPTY_RESPONSE"].iter().any(|it| complaint.contains(it));
            assert!(gone, "{complaint}");
        }
        inspector.close();
    });
}

/// Bytes in the first round trip of a new connection: an initial window of 10 segments (RFC 6928).
const FIRST_VIEW_BYTES: f64 = 14_336.0;

#[test]
fn the_first_view_is_one_round_trip_and_does_not_jump() {
    in_namespace(|| {
        let home = Home::new();
        let Some(browser) = browser(&home.dir) else { return };
        browser.emulate(PHONE, Theme::Light);
        browser.devtools("Network.clearBrowserCache", json!({}));
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": "window.shifts = [];
            new PerformanceObserver((list) => shifts.push(...list.getEntries().map(({ value, sources }) => [value, sources.map(({ node }) => node?.id || node?.nodeName).join()])))
                .observe({ type: 'layout-shift', buffered: true })" }));
        browser.visit(&home.url(""));
        browser.wait(
            "its chart",
            "return performance.getEntriesByType('resource').some(({ name }) => name.includes('series'))",
        );
        settle(&browser);
        let mut files: Vec<(String, f64)> = Vec::new();
        let events = browser.network();
        for event in &events {
            if event["method"] != "Network.requestWillBeSent" {
                continue;
            }
            let url = event["params"]["request"]["url"].as_str().expect("a URL");
            let path = url.strip_prefix(&home.url("")).unwrap_or(url);
            let of = |end: &&Value| {
                end["method"] == "Network.loadingFinished" && end["params"]["requestId"] == event["params"]["requestId"]
            };
            if !path.starts_with("api/") {
                let end = events.iter().find(of).unwrap_or_else(|| panic!("{path} has no end"));
                files.push((path.to_string(), end["params"]["encodedDataLength"].as_f64().expect("a number")));
            }
        }
        let total: f64 = files.iter().map(|(_, bytes)| bytes).sum();
        println!("{files:?}: {total}");
        let mut names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        names.sort();
        // Chromium requests the icon again for the tab.
        names.dedup();
        assert_eq!(names, ["", "app.js", "icon.svg", "style.css"]);
        assert!(total > 10_000.0 && total <= FIRST_VIEW_BYTES, "{files:?}: {total}");
        assert_eq!(ask(home.address, "GET", "/favicon.ico", "image/*", None).expect("an answer").status, 200);

        sleep_ms(5000);
        let shifts = browser.run("return shifts");
        let moved: f64 =
            shifts.as_array().expect("a list").iter().map(|shift| shift[0].as_f64().expect("a number")).sum();
        assert!(moved < 0.01, "{shifts}");
        assert_eq!(browser.complaints(), Vec::<String>::new());
    });
}

#[test]
fn urls_and_figures() {
    in_namespace(|| {
        let home = Home::new();
        let Some(browser) = browser(&home.dir) else { return };
        let pressed = |group: &str| {
            browser.run(&format!(
                "return [...document.querySelectorAll('{group} [aria-pressed=true]')].map((node) => node.textContent)"
            ))
        };
        browser.emulate(DESKTOP, Theme::Light);

        browser.visit(&home.url("#/?i=wg0&i=wlan0&range=7d&over=1"));
        browser.wait(
            "its chart",
            "return document.querySelector('#step').textContent == 'averages of 30 min, pale: peaks'",
        );
        assert_eq!(pressed("#ranges"), json!(["7d"]));
        assert_eq!(pressed("#who"), json!(["Office", "Wi-Fi"]));
        assert_eq!(pressed("#tools"), json!(["Overlay"]));
        browser.click_text("#ranges button", "30d");
        browser.wait("a month", "return document.querySelector('#ranges [aria-pressed=true]')?.textContent == '30d'");
        browser.back();
        browser.wait("a week", "return document.querySelector('#ranges [aria-pressed=true]')?.textContent == '7d'");
        browser.click_text("nav a", "Usage");
        browser.click_text(".usage nav a", "months");
        browser.wait("months", "return document.querySelector('.usage nav [aria-current]')?.textContent == 'months'");
        browser.back();
        browser.wait("days", "return document.querySelector('.usage nav [aria-current]')?.textContent == 'days'");
        browser.back();
        browser.wait("the chart", "return document.querySelector('#history').checkVisibility()");
        assert!(browser.address().ends_with("#/?i=wg0&i=wlan0&range=7d&over=1"), "{}", browser.address());
        assert_eq!(pressed("#ranges"), json!(["7d"]));
        browser.visit("about:blank");
        browser.visit(&home.url("#/interface/br-lan"));
        browser.wait(
            "the interface",
            "return document.querySelector('.interface h2:not(:empty)')?.textContent == 'br-lan · Home network'",
        );

        // A past day in hours: the table has the values of the API.
        let midnight = midnight() - 3 * 86_400;
        browser.visit("about:blank");
        browser.visit(&home.url(&format!("#/?from={midnight}&to={}&by=hour", midnight + 86_400)));
        browser.wait("its chart", "return document.querySelector('#step').textContent.startsWith('averages of 1 h')");
        browser.click("#figures summary");
        let shown = browser.wait("its figures", "const rows = [...document.querySelectorAll('#table tr')].map((row) => [...row.cells].map((cell) => cell.textContent));
            return rows.length > 20 && rows.slice(1)");
        let path = format!("/api/traffic/series?interface=wan0&from={midnight}&to={}&points=24", midnight + 86_400);
        let series = home.daemon().get(&path);
        let columns = ["rx", "tx", "rx_peak", "tx_peak"].map(|side| &series["interfaces"]["wan0"][side]);
        let mut expected = Vec::new();
        for hour in 0..24 {
            let cells = columns.map(|column| match column[hour].as_f64() {
                Some(rate) => format!("{:.2}", rate * 8.0 / 1e6),
                None => "–".to_string(),
            });
            expected.push(cells.to_vec());
        }
        let of_day =
            |row: &Value| (1..5).map(|at| row[at].as_str().unwrap_or_default().to_string()).collect::<Vec<_>>();
        let shown: Vec<_> = shown.as_array().expect("rows").iter().map(of_day).collect();
        assert_eq!(shown, expected);
        assert_ne!(shown[2], shown[20]);

        browser.visit(&home.url("#/usage?by=day&i=wan0"));
        let rows = "const rows = [...document.querySelectorAll('.beside tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent));
            return rows.length > 20 && rows";
        let shown = browser.wait("its figures", rows);
        let totals = home.daemon().get("/api/traffic/totals?by=day&interface=wan0&limit=31");
        let totals = totals.as_array().expect("rows");
        let sums = |row: &Value| {
            let [rx, tx] = ["rx_bytes", "tx_bytes"].map(|side| row[side].as_u64().expect("a number"));
            [rx, tx, rx + tx]
        };
        let most = totals.iter().flat_map(sums).max().expect("a row");
        assert!((100_000_000_000..1_000_000_000_000).contains(&most), "{most}");
        // Today's figures increase.
        let expected =
            totals.iter().rev().skip(1).map(|row| sums(row).map(|sum| format!("{:.1} GB", sum as f64 / 1e9)).to_vec());
        let of_day =
            |row: &Value| (1..4).map(|at| row[at].as_str().unwrap_or_default().to_string()).collect::<Vec<_>>();
        let shown: Vec<_> = shown.as_array().expect("rows").iter().skip(1).map(of_day).collect();
        assert_eq!(shown, expected.collect::<Vec<_>>());
    });
}

#[test]
fn a_hidden_tab_sends_no_requests_and_reduced_motion_draws_less() {
    in_namespace(|| {
        let home = Home::new();
        let Some(browser) = browser(&home.dir) else { return };
        let asked = || {
            let events = browser.network();
            events.iter().filter(|event| event["method"] == "Network.requestWillBeSent").count()
        };
        browser.visit(&home.url(""));
        browser.wait("it is live", LIVE);
        let changes = || {
            let mut pictures = Vec::new();
            for _ in 0..6 {
                pictures.push(browser.run("return document.querySelector('#spark').toDataURL()"));
                sleep_ms(1000);
            }
            pictures.dedup();
            pictures.len() - 1
        };
        assert!(changes() >= 3, "the curve moves every second");
        let calm = json!([{ "name": "prefers-reduced-motion", "value": "reduce" }]);
        browser.devtools("Emulation.setEmulatedMedia", json!({ "features": calm }));
        let moved = changes();
        assert!(moved <= 1, "the curve moved {moved} times in six seconds");
        assert_eq!(browser.run("return document.getAnimations().length"), 0);

        assert!(asked() > 3, "a visible tab sends no requests");
        browser.devtools("Target.createTarget", json!({ "url": "about:blank" }));
        browser.wait("it is hidden", "return document.hidden");
        // Requests in progress end.
        sleep_ms(500);
        asked();
        sleep_ms(5000);
        assert_eq!(asked(), 0);
        browser.devtools("Page.bringToFront", json!({}));
        browser.wait("it is seen again", "return !document.hidden");
        wait_until("it asks again", || asked() > 0);
        assert_eq!(browser.complaints(), Vec::<String>::new());
    });
}

#[test]
fn the_keyboard_reaches_everything() {
    in_namespace(|| {
        let home = Home::new();
        let Some(browser) = browser(&home.dir) else { return };
        browser.emulate(DESKTOP, Theme::Light);
        for view in views() {
            if !["unfolded", "usage-day", "interface", "interface-absent", "settings", "system"].contains(&view.name) {
                continue;
            }
            // Starts at the beginning of the document.
            browser.visit("about:blank");
            browser.visit(&home.url(&view.hash));
            browser.wait("it is live", LIVE);
            view.complete(&browser);
            browser.run(
                "document.activeElement.blur();
                 window.reached = new Set();
                 window.unseen = new Set();
                 document.addEventListener('focusin', ({ target }) => {
                   reached.add(target);
                   const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(target);
                   if (outlineStyle === 'none' || parseFloat(outlineWidth) < 2 || outlineColor.includes(', 0)')) unseen.add(target.outerHTML);
                 });",
            );
            let left = "return [...document.querySelectorAll('a[href], button, select, input, summary, [tabindex=\"0\"]')]
                .filter((node) => node.checkVisibility() && !node.disabled && !reached.has(node)).map((node) => node.outerHTML.slice(0, 80))";
            let there =
                browser.run("return document.querySelectorAll('a[href], button, select, input, summary').length");
            // A date field has several focus positions.
            for _ in 0..2 + there.as_u64().expect("a number") / 12 {
                browser.keys(&"\u{E004}".repeat(16));
                if browser.run(left) == json!([]) {
                    break;
                }
            }
            assert_eq!(browser.run(left), json!([]), "{}", view.name);
            assert_eq!(browser.run("return [...unseen]"), json!([]), "{}", view.name);
            assert!(browser.run("return reached.size").as_u64() > Some(5));
        }
    });
}
