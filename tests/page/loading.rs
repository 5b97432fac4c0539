//! Loading of scripts that the first view does not need: when, in how many requests, and after a failure.

use crate::browser::*;
use crate::common::*;
use crate::controls::{answer_dialog, from_other_address, visit};
use serde_json::{Value, json};

struct View {
    name: String,
    hash: String,
    /// Selector of an element that exists once the view is shown.
    there: String,
}

/// The views that the frame links to, and that of an interface.
fn views(daemon: &Daemon, browser: &Browser) -> Vec<View> {
    visit(daemon, browser, "");
    let links = browser.run("return [...document.querySelectorAll('header nav a')].map((link) => link.hash)");
    let links: Vec<String> = serde_json::from_value(links).expect("texts");
    let hashes = links.into_iter().filter(|hash| hash != "#/").chain(["#/interface/wan0".to_string()]);
    let view = |hash: String| {
        let name = hash.split('/').nth(1).expect("a name").to_string();
        View { there: format!(".{name} .card"), name, hash }
    };
    hashes.map(view).collect()
}

/// Events of requests for files since the last call, in order: `sent usage.js`, then `begun` or `failed`. Not of the
/// API.
fn files(browser: &Browser) -> Vec<String> {
    file_events(&browser.network())
}

fn file_events(events: &[Value]) -> Vec<String> {
    let name = |event: &Value| {
        let id = &event["params"]["requestId"];
        let sent = events
            .iter()
            .find(|event| event["method"] == "Network.requestWillBeSent" && event["params"]["requestId"] == *id)?;
        let url = sent["params"]["request"]["url"].as_str().expect("a URL");
        let path = url.strip_prefix("http://")?.split_once('/')?.1;
        (!path.starts_with("api/")).then(|| path.to_string())
    };
    let what = |event: &Value| match event["method"].as_str() {
        Some("Network.requestWillBeSent") => Some("sent"),
        Some("Network.responseReceived") => Some("begun"),
        Some("Network.loadingFailed") => Some("failed"),
        _ => None,
    };
    events.iter().filter_map(|event| Some(format!("{} {}", what(event)?, name(event)?))).collect()
}

fn seen(browser: &Browser, selector: &str) {
    browser.wait(selector, &format!("return document.querySelector('{selector}')?.checkVisibility()"));
    sleep_ms(300);
}

#[test]
fn a_view_is_loaded_on_its_first_use_in_parallel_requests() {
    from_other_address(&[], |_, daemon, browser, _| {
        let first = ["", "app.js", "style.css", "icon.svg"];
        let views = views(daemon, browser);
        assert!(views.len() >= 4);
        for View { name, hash, there } in &views {
            files(browser);
            visit(daemon, browser, hash);
            seen(browser, there);
            let all = files(browser);
            let own: Vec<&str> = all
                .iter()
                .map(String::as_str)
                .filter(|event| !first.contains(&event.split_once(' ').expect("two words").1))
                .collect();
            let (mut sent, begun): (Vec<&str>, Vec<&str>) = own.iter().partition(|event| event.starts_with("sent"));
            // In parallel: no file waits for another.
            assert!(own[..3].iter().all(|event| event.starts_with("sent")), "{own:?}");
            sent.sort();
            let mut expect = ["elements.js", &format!("{name}.js"), "views.css"].map(|file| format!("sent {file}"));
            expect.sort();
            assert_eq!(sent, expect);
            assert_eq!(begun.len(), 3, "{own:?}");
        }
        // Then all other views, twice: one file for each the first time, and none the second time.
        for turn in 1..=2 {
            for View { name, hash, there } in &views {
                browser.run(&format!("location.hash = '{hash}'"));
                seen(browser, there);
                let asked = files(browser);
                let expect = [format!("sent {name}.js"), format!("begun {name}.js")];
                let here = turn == 2 || *name == views.last().expect("some").name;
                assert_eq!(asked, if here { &[][..] } else { &expect[..] }, "{name}, turn {turn}");
            }
        }
        assert_eq!(browser.complaints(), Vec::<String>::new());
    });
}

/// Blocks requests for a file, as if the router rebooted; an empty name allows all again.
fn block(browser: &Browser, file: &str) {
    browser.devtools("Network.enable", json!({}));
    let urls: &[String] = if file.is_empty() { &[] } else { &[format!("*/{file}")] };
    browser.devtools("Network.setBlockedURLs", json!({ "urls": urls }));
}

/// Waits until the request for the file failed, then allows all requests.
fn fail_once(browser: &Browser, file: &str) {
    let mut all = Vec::new();
    wait_until("the request fails", || {
        all.extend(browser.network());
        file_events(&all).contains(&format!("failed {file}"))
    });
    block(browser, "");
}

#[test]
fn a_failed_script_is_requested_again_with_another_url() {
    from_other_address(&[], |_, daemon, browser, token| {
        // A browser may remember that a module failed: then the same URL would fail forever.
        let requested_again = |file: &str| {
            let all = files(browser);
            assert!(all.contains(&format!("begun {file}?1")), "{all:?}");
            assert!(!all.iter().any(|event| event.ends_with(&format!(" {file}"))), "{all:?}");
        };
        let mut views = views(daemon, browser);
        // elements.js, which all views share, with the first view.
        let View { hash, there, .. } = &views[0];
        views.push(View { name: "elements".to_string(), hash: hash.clone(), there: there.clone() });
        for View { name, hash, there } in views {
            let file = format!("{name}.js");
            browser.visit("about:blank");
            block(browser, &file);
            visit(daemon, browser, &hash);
            fail_once(browser, &file);
            seen(browser, &there);
            requested_again(&file);
        }

        // A browser does not remember a failed style sheet.
        block(browser, "views.css");
        visit(daemon, browser, "#/system");
        fail_once(browser, "views.css");
        assert_eq!(browser.run("return document.querySelector('.system')"), Value::Null);
        seen(browser, ".system .facts");

        // The next click on a tool loads its script again.
        block(browser, "explore.js");
        visit(daemon, browser, "#/?range=5m");
        browser.wait("rates", "return document.querySelector('#step').textContent.startsWith('averages')");
        browser.click_text("#tools button", "Overlay");
        fail_once(browser, "explore.js");
        browser.click_text("#tools button", "Overlay");
        browser.wait("the overlay", "return location.hash.includes('over=1')");
        requested_again("explore.js");

        block(browser, "token.js");
        visit(daemon, browser, "#/settings");
        assert_eq!(browser.complaints(), Vec::<String>::new(), "blocked requests are not errors of the page");
        browser.click_text("button", "Collect now");
        fail_once(browser, "token.js");
        browser.wait("the error", "return document.querySelector('.result.bad:not(:empty)')");
        browser.click_text("button", "Collect now");
        answer_dialog(browser, token);
        browser.wait(
            "the result",
            "return [...document.querySelectorAll('.result')].some((node) => node.textContent.startsWith('Interfaces read'))",
        );
        requested_again("token.js");
    });
}
