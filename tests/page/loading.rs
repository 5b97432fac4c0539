//! How the parts of the page arrive that the first view does not need: when they are asked for, in how many requests, and
//! what becomes of a part that could not be loaded.

use crate::browser::*;
use crate::common::*;
use crate::controls::{answer_dialog, neighbour, visit};
use serde_json::{Value, json};

struct View {
    name: String,
    hash: String,
    /// What is there once it is seen.
    there: String,
}

/// Those that the frame links to, and an interface's.
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

/// All that is no answer of the API, with what happened to it, in order: `sent usage.js`, then `begun` or `failed`.
fn files(browser: &Browser) -> Vec<String> {
    told(&browser.network())
}

fn told(events: &[Value]) -> Vec<String> {
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
    rest(300);
}

#[test]
fn a_view_is_loaded_when_it_is_wanted_and_all_of_it_at_once() {
    neighbour(&[], |_, daemon, browser, _| {
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
            // Side by side: none waits for another.
            assert!(own[..3].iter().all(|event| event.starts_with("sent")), "{own:?}");
            sent.sort();
            let mut expect = ["elements.js", &format!("{name}.js"), "views.css"].map(|file| format!("sent {file}"));
            expect.sort();
            assert_eq!(sent, expect);
            assert_eq!(begun.len(), 3, "{own:?}");
        }
        // From there to all others, and once more: a file each, and then none.
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

/// As with a router that reboots: nothing of this name comes any more, or everything again.
fn block(browser: &Browser, file: &str) {
    browser.devtools("Network.enable", json!({}));
    let urls: &[String] = if file.is_empty() { &[] } else { &[format!("*/{file}")] };
    browser.devtools("Network.setBlockedURLs", json!({ "urls": urls }));
}

/// Until it has failed, after which nothing does.
fn failed(browser: &Browser, file: &str) {
    let mut all = Vec::new();
    wait_until("it fails", || {
        all.extend(browser.network());
        told(&all).contains(&format!("failed {file}"))
    });
    block(browser, "");
}

#[test]
fn what_could_not_be_loaded_is_asked_for_by_another_address() {
    neighbour(&[], |_, daemon, browser, token| {
        // A browser may remember that a module failed: then the same address would fail for ever.
        let asked_anew = |file: &str| {
            let all = files(browser);
            assert!(all.contains(&format!("begun {file}?1")), "{all:?}");
            assert!(!all.iter().any(|event| event.ends_with(&format!(" {file}"))), "{all:?}");
        };
        let mut views = views(daemon, browser);
        // What all of them share, with any of them.
        let View { hash, there, .. } = &views[0];
        views.push(View { name: "elements".to_string(), hash: hash.clone(), there: there.clone() });
        for View { name, hash, there } in views {
            let file = format!("{name}.js");
            browser.visit("about:blank");
            block(browser, &file);
            visit(daemon, browser, &hash);
            failed(browser, &file);
            seen(browser, &there);
            asked_anew(&file);
        }

        // A style sheet that failed is not remembered.
        block(browser, "views.css");
        visit(daemon, browser, "#/system");
        failed(browser, "views.css");
        assert_eq!(browser.run("return document.querySelector('.system')"), Value::Null);
        seen(browser, ".system .facts");

        // What a hand wants is asked for anew when it is wanted again.
        block(browser, "explore.js");
        visit(daemon, browser, "#/?range=5m");
        browser.wait("rates", "return document.querySelector('#step').textContent.startsWith('averages')");
        browser.click_text("#tools button", "Overlay");
        failed(browser, "explore.js");
        browser.click_text("#tools button", "Overlay");
        browser.wait("it is overlaid", "return location.hash.includes('over=1')");
        asked_anew("explore.js");

        block(browser, "token.js");
        visit(daemon, browser, "#/settings");
        assert_eq!(browser.complaints(), Vec::<String>::new(), "what is blocked is no fault of the page");
        browser.click_text("button", "Collect now");
        failed(browser, "token.js");
        browser.wait("the fault", "return document.querySelector('.result.bad:not(:empty)')");
        browser.click_text("button", "Collect now");
        answer_dialog(browser, token);
        browser.wait(
            "it is done",
            "return [...document.querySelectorAll('.result')].some((node) => node.textContent.startsWith('Interfaces read'))",
        );
        asked_anew("token.js");
    });
}
