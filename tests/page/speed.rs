//! Measures the speed of the page in Chromium with the release binary. Times are printed, not asserted. Run on an idle
//! machine: `cargo test --test page speed:: -- --ignored --nocapture --test-threads 1`. NETPULSE_TEST_SECONDS sets how
//! long the page stays open.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::browser::*;
use crate::common::*;
use crate::home::{HOME, fill_home};
use serde_json::{Value, json};

/// Script that runs before the page's scripts: notes the time of the first curve, and the script time of each frame.
const WATCH: &str = r#"
    window.frames_ms = [];
    const stroke = CanvasRenderingContext2D.prototype.stroke;
    CanvasRenderingContext2D.prototype.stroke = function (...all) {
        if (this.canvas.id === "chart") window.drawn_ms ??= performance.now();
        return stroke.apply(this, all);
    };
    const ask = requestAnimationFrame;
    window.requestAnimationFrame = (call) => ask((time) => {
        const before = performance.now();
        call(time);
        window.frames_ms.push(performance.now() - before);
    });
"#;

/// Runs the release binary with a household's year and traffic on the first link, and measures in a browser.
fn household(measure: impl FnOnce(&Daemon, &Browser) + Send) {
    in_namespace(|| {
        let dir = Dir::new();
        let Some(binary) = release_binary() else {
            return skip("no target/release/net-pulse newer than the source; run `cargo build --release`");
        };
        fill_home(&dir.join("net-pulse.db"), 0);
        for (name, ..) in HOME {
            cable(name, &format!("veth-{name}"));
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let wire = RawSocket::of(&format!("veth-{}", HOME[0].0));
                while !over.load(Ordering::Relaxed) {
                    wire.send([0xff; 6], 0x88b5, 1400, 20);
                    sleep_ms(100);
                }
            });
            let daemon = Daemon::start_binary(binary.to_str().expect("a plain path"), &dir, &["--source", "sysfs"]);
            if let Some(browser) = Browser::start(&dir) {
                browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WATCH }));
                browser.devtools("Network.setCacheDisabled", json!({ "cacheDisabled": true }));
                browser.emulate(DESKTOP, Theme::Light);
                measure(&daemon, &browser);
            }
            over.store(true, Ordering::Relaxed);
        });
    });
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

#[test]
#[ignore = "a measurement"]
fn time_from_navigation_to_the_chart() {
    household(|daemon, browser| {
        let times = |what: &str| {
            let turns = (0..7).map(|_| {
                browser.visit("about:blank");
                browser.open(daemon, "/");
                number(&browser.wait("a curve", "return window.drawn_ms"))
            });
            let all = sorted(turns.collect());
            eprintln!("{what}: median {:.0} ms, range {:.0} to {:.0} ms", all[3], all[0], all[6]);
        };
        times("from navigation to a drawn chart");
        let slow =
            json!({ "offline": false, "latency": 100, "downloadThroughput": 50_000, "uploadThroughput": 50_000 });
        browser.devtools("Network.emulateNetworkConditions", slow);
        times("the same with 50 KB/s and 100 ms");
    });
}

#[test]
#[ignore = "a measurement"]
fn frame_times_while_a_years_chart_is_dragged() {
    household(|daemon, browser| {
        for names in [vec![HOME[0].0], HOME.iter().take(4).map(|(name, ..)| *name).collect()] {
            let query: String = names.iter().map(|name| format!("&i={name}")).collect();
            browser.visit("about:blank");
            browser.open(daemon, &format!("/#/?range=1y{query}"));
            browser.wait("a curve", "return window.drawn_ms");
            browser.hover(500, 500);
            sleep_ms(500);
            browser.click_text("#tools button", "Move");
            browser.run("window.frames_ms = []");
            let points: Vec<(i64, i64)> = (0..120).map(|at| (400 + (at * 7) % 300, 500)).collect();
            browser.drag(&points);
            let frames = browser.run("return window.frames_ms");
            let all = sorted(frames.as_array().expect("a list").iter().map(number).collect());
            let (middle, late) = (all[all.len() / 2], all[all.len() * 95 / 100]);
            let count = names.len();
            eprintln!("{count} interfaces, {} frames: median {middle:.1} ms, 95 % within {late:.1} ms", all.len());
        }
    });
}

#[test]
#[ignore = "a measurement"]
fn memory_and_cpu_of_a_page_that_stays_open() {
    household(|daemon, browser| {
        let seconds = std::env::var("NETPULSE_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
        browser.open(daemon, "/");
        browser.wait("a curve", "return window.drawn_ms");
        // The page keeps five minutes of live data; after that, its memory should not grow.
        let settled = if seconds > 600 { 310_000 } else { 10_000 };
        sleep_ms(settled);
        let heap = || {
            browser.run("window.frames_ms = []");
            browser.devtools("HeapProfiler.collectGarbage", json!({}));
            number(&browser.devtools("Runtime.getHeapUsage", json!({}))["usedSize"])
        };
        let (before, busy) = (heap(), processor_time(daemon));
        thread::sleep(Duration::from_secs(seconds));
        let (after, worked) = (heap(), processor_time(daemon) - busy);
        let grown = (after - before) / 1024.0;
        eprintln!("{seconds} updates: the heap grew by {grown:.0} KiB, from {:.0} KiB", before / 1024.0);
        let share = 100.0 * worked.as_secs_f64() / seconds as f64;
        eprintln!("the program used {share:.2} % of a core meanwhile");
    });
}

/// CPU time of the daemon in user and kernel mode, all threads.
fn processor_time(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("our own child");
    let (_, fields) = stat.rsplit_once(')').expect("its name");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
