//! The page as people see it, in a real Chromium: every view on every screen, and what it says when nothing is well.
//! Each picture is kept in target/tmp/page; `cp target/tmp/page/readme.png docs/page.png` renews the one of README.md.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use common::browser::*;
use common::past::{HOME, SPARE, fill_home, unix};
use common::*;
use serde_json::{Value, json};

/// Where the page is looked at from another machine's side of the router: the loopback needs no token.
const ROUTER: &str = "10.66.0.1";

/// A household's links with traffic on them, and the program with a year of their history.
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
    // Links are what their names say where only sysfs is asked; netlink knows that all of them are test cables.
    command.args(["--host", ROUTER, "--port", &address.port().to_string(), "--source", "sysfs"]);
    command.args(["--database", &dir.join("net-pulse.db"), "--ignore", "guest*"]);
    Daemon::spawn_at(command, address)
}

/// The history is made once for all tests of this file.
fn a_year() -> String {
    static MADE: Mutex<Option<Dir>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dir = made.get_or_insert_with(|| {
        let dir = Dir::new();
        fill_home(&dir.join("net-pulse.db"));
        dir
    });
    dir.join("net-pulse.db")
}

/// The router's own address, and its links: one outwards, a bridge of two, a tunnel, and what is ignored.
fn links() {
    for name in ["wan0", "eth1", "wlan0", "wg0"] {
        cable(name, &format!("veth-{name}"));
    }
    ip("link add br-lan type bridge");
    for name in ["eth1", "wlan0"] {
        ip(&format!("link set {name} master br-lan"));
    }
    ip("link set br-lan up");
    ip("link add docker0 type bridge");
    ip("link add guest-network1 type bridge");
    ip("address add 203.0.113.7/24 dev wan0");
    ip("address add 192.168.1.1/24 dev br-lan");
}

/// Frames in both directions, some more and some less, until it is dropped.
struct Traffic {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    fn begin() -> Traffic {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let thread = thread::spawn(move || {
            let wires = ["veth-wan0", "wan0", "veth-eth1", "veth-wlan0", "br-lan"].map(Wire::of);
            for turn in 0.. {
                if until.load(Ordering::Relaxed) {
                    return;
                }
                let wave = |length: f64| (f64::from(turn) / length).sin() + 1.0;
                // 1400 bytes a frame, ten turns a second: some 20 Mbit/s of the first.
                let down = 40.0 + 45.0 * wave(17.0) + 35.0 * wave(83.0) + 30.0 * wave(3.1);
                for (wire, part) in wires.iter().zip([1.0, 0.13, 0.05, 0.09, 1.02]) {
                    wire.send(EVERYBODY, QUIET, 1400, (down * part) as usize);
                }
                rest(100);
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
    /// What has been answered when it is complete.
    asks: &'static [&'static str],
    /// What has to be done to it then.
    more: &'static str,
}

fn views() -> Vec<View> {
    let view = |name, hash: &str, asks, more| View { name, hash: hash.to_string(), asks, more };
    const CHART: &[&str] = &["api/traffic/series", "api/events", "api/traffic/live"];
    const LIVE: &[&str] = &["api/events", "api/traffic/live"];
    const TOTALS: &[&str] = &["api/traffic/totals"];
    const IFACE: &[&str] = &["/stats", "api/events", "api/traffic/history"];
    const SYSTEM: &[&str] = &["api/system/info", "api/system/metrics", "api/events"];
    let noon = unix() / 86_400 * 86_400 - 43_200;
    let open = "document.querySelectorAll('details').forEach((each) => (each.open = true));
        document.querySelector('#chart').focus({ preventScroll: true })";
    let mut found: Vec<View> = ["24h", "5m", "1h", "6h", "7d", "30d", "1y"]
        .into_iter()
        .map(|range| view(range, &format!("#/?range={range}"), if range == "5m" { LIVE } else { CHART }, ""))
        .collect();
    found.extend([
        view("dragged", &format!("#/?from={}&to={}", noon - 5000, noon + 9000), CHART, ""),
        view("stacked", "#/?i=wlan0&i=eth1&i=wg0&range=24h", CHART, ""),
        view("overlaid", "#/?over=1&range=7d", CHART, ""),
        view("unfolded", "#/?range=24h&by=hour", CHART, open),
    ]);
    found.extend(["hour", "day", "week", "month", "year", "cycle"].map(|by| {
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
        let complete = format!(
            "const seen = performance.getEntriesByType('resource').map(({{ name }}) => name);
             return {}.every((asked) => seen.some((name) => name.includes(asked)))",
            json!(self.asks)
        );
        browser.wait(self.name, &complete);
        if !self.more.is_empty() {
            browser.run(self.more);
            rest(200);
        }
        settle(browser);
    }
}

/// Until what was answered is drawn.
fn settle(browser: &Browser) {
    browser.run_later("const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 50)");
}

fn keep(browser: &Browser, name: &str, screen: Screen, theme: Theme) {
    let name = format!("{name}-{}-{}.png", screen.width, if theme == Theme::Dark { "dark" } else { "light" });
    fs::write(album().join(name), browser.whole_page()).expect("room on the disk");
}

const WEARS: [(Screen, Theme); 5] = [
    (DESKTOP, Theme::Light),
    (DESKTOP, Theme::Dark),
    (PHONE, Theme::Light),
    (PHONE, Theme::Dark),
    (SMALL_PHONE, Theme::Light),
];

#[test]
fn every_view_on_every_screen() {
    in_namespace(|| {
        ip(&format!("address add {ROUTER}/32 dev lo"));
        let home = Home::new();
        let Some(browser) = Browser::start(&home.dir) else { return };
        for (screen, theme) in WEARS {
            browser.wear(screen, theme);
            browser.visit(&home.url(""));
            browser.wait("it is live", "return document.querySelector('#state').textContent == 'live'");
            for view in views() {
                view.show(&browser);
                keep(&browser, view.name, screen, theme);
            }
        }
        assert_eq!(browser.complaints(), Vec::<String>::new());
    });
}
