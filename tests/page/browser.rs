//! Drives Chromium by WebDriver (W3C) over plain HTTP: reads the page, clicks, types, and records its requests and
//! console messages. Chromium runs in the caller's network namespace, so it can reach only the program under test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{Answer, Daemon, Dir, TIMEOUT, free_address, parse_answer, skip, sleep_ms, wait_until};

/// Key of an element reference in WebDriver's JSON ("web element identifier").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// No background activity: no updates, no sync, no first-run page, no proxy.
const ARGUMENTS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
];

/// Maximum time of a command; asynchronous scripts take longest.
const LONGEST_COMMAND: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Theme {
    Light,
    Dark,
}

/// A screen, in CSS pixels. A phone has touch and two device pixels per CSS pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub phone: bool,
}

pub const DESKTOP: Screen = Screen { width: 1440, height: 900, phone: false };
pub const PHONE: Screen = Screen { width: 390, height: 844, phone: true };
pub const SMALL_PHONE: Screen = Screen { width: 360, height: 740, phone: true };

pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts Chromium. Without chromedriver, prints "skipped" and returns `None`.
    pub fn start(dir: &Dir) -> Option<Browser> {
        // Not port 0: then chromedriver prints only the port of its IPv6 socket, and the namespace may have no IPv6.
        let address = free_address();
        let mut command = Command::new("chromedriver");
        command.args([&format!("--port={}", address.port()), "--log-level=SEVERE"]).env("HOME", dir.path());
        command.env("TMPDIR", dir.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(driver) = command.spawn() else {
            skip("chromium-driver is not installed");
            return None;
        };
        wait_until("chromedriver listens", || TcpStream::connect_timeout(&address, TIMEOUT).is_ok());
        let mut browser = Browser { driver, address, session: String::new() };
        let arguments: Vec<String> = ARGUMENTS
            .map(String::from)
            .into_iter()
            .chain([format!("--user-data-dir={}", dir.join("profile"))])
            .collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments, "perfLoggingPrefs": { "enableNetwork": true } },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let started = browser.call("POST", "/session", wanted);
        browser.session = started["sessionId"].as_str().expect("a session").to_string();
        browser.post("timeouts", json!({ "script": LONGEST_COMMAND.as_millis() as u64 }));
        // Discards the requests of a new tab.
        browser.visit("about:blank");
        browser.network();
        Some(browser)
    }

    /// Sends a request to chromedriver. Not `common::ask`: chromedriver keeps the connection open, so Content-Length
    /// ends the answer.
    fn ask(&self, method: &str, path: &str, body: String) -> io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_read_timeout(Some(LONGEST_COMMAND))?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", self.address);
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            let count = stream.read(&mut piece)?;
            bytes.extend_from_slice(&piece[..count]);
            match parse_answer(&bytes, false) {
                Some(answer) => return Ok(answer),
                None if count == 0 => return Err(io::Error::other("the answer was cut short")),
                None => {}
            }
        }
    }

    fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let body = (method == "POST").then(|| body.to_string());
        let answer = self.ask(method, path, body.unwrap_or_default());
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let value = answer.json()["value"].take();
        assert_eq!(answer.status, 200, "{method} {path}: {} {}", value["error"], value["message"]);
        value
    }

    fn post(&self, path: &str, body: Value) -> Value {
        self.call("POST", &format!("/session/{}/{path}", self.session), body)
    }

    /// Runs a command of the Chrome DevTools Protocol, for functions that WebDriver lacks.
    pub fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": params }))
    }

    /// Sets the size of the viewport and the preferred colours.
    pub fn emulate(&self, screen: Screen, theme: Theme) {
        let scale = if screen.phone { 2 } else { 1 };
        let metrics = json!({ "width": screen.width, "height": screen.height, "deviceScaleFactor": scale,
            "mobile": screen.phone });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        self.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": screen.phone }));
        let theme = if theme == Theme::Dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    pub fn open(&self, daemon: &Daemon, path: &str) {
        self.visit(&format!("http://127.0.0.1:{}{path}", daemon.port()));
    }

    pub fn visit(&self, url: &str) {
        self.post("url", json!({ "url": url }));
    }

    pub fn back(&self) {
        self.post("back", json!({}));
    }

    pub fn address(&self) -> String {
        let value = self.call("GET", &format!("/session/{}/url", self.session), Value::Null);
        value.as_str().expect("a URL").to_string()
    }

    /// Runs a script, the body of a function, and returns its value.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Runs an asynchronous script: it must call its last argument with the result.
    pub fn run_later(&self, script: &str) -> Value {
        self.post("execute/async", json!({ "script": script, "args": [] }))
    }

    /// Repeats a script until its value is not null, false, 0 or empty, and returns the value. Panics after a timeout.
    pub fn wait(&self, what: &str, script: &str) -> Value {
        let attempts = TIMEOUT.as_millis() as u64 / 50;
        for _ in 0..attempts {
            let value = self.run(script);
            let nothing = [Value::Null, json!(false), json!(0), json!("")];
            if !nothing.contains(&value) {
                return value;
            }
            sleep_ms(50);
        }
        panic!("timeout: {what}; complaints: {:#?}; the page: {}", self.complaints(), self.text("body"));
    }

    /// WebDriver's reference to the first element that matches `selector` and, if given, has this `text`.
    fn find(&self, selector: &str, text: Option<&str>) -> String {
        let attempts = TIMEOUT.as_millis() as u64 / 50;
        for _ in 0..attempts {
            let found = self.post("elements", json!({ "using": "css selector", "value": selector }));
            let ids = found.as_array().expect("elements").iter().map(|found| found[ELEMENT].as_str().expect("an id"));
            let of_text = |id: &&str| text.is_none_or(|text| self.property(id, "textContent").trim() == text);
            if let Some(id) = ids.clone().find(of_text) {
                return id.to_string();
            }
            sleep_ms(50);
        }
        panic!("no {selector} with the text {text:?}; the page: {}", self.text("body"));
    }

    fn property(&self, id: &str, name: &str) -> String {
        let path = format!("/session/{}/element/{id}/property/{name}", self.session);
        self.call("GET", &path, Value::Null).as_str().unwrap_or_default().to_string()
    }

    /// Clicks an element; it must be visible and not covered.
    pub fn click(&self, selector: &str) {
        let id = self.find(selector, None);
        self.post(&format!("element/{id}/click"), json!({}));
    }

    pub fn click_text(&self, selector: &str, text: &str) {
        let id = self.find(selector, Some(text));
        self.post(&format!("element/{id}/click"), json!({}));
    }

    /// Replaces the text of a field.
    pub fn fill(&self, selector: &str, text: &str) {
        let id = self.find(selector, None);
        self.post(&format!("element/{id}/clear"), json!({}));
        self.post(&format!("element/{id}/value"), json!({ "text": text }));
    }

    /// Presses keys on the focused element: characters, or WebDriver's code points (`\u{E014}` is the right arrow).
    pub fn keys(&self, keys: &str) {
        let presses = keys.chars().flat_map(|key| {
            let key = key.to_string();
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        });
        let presses: Vec<Value> = presses.collect();
        self.post("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] }));
    }

    /// Drags the mouse from the first point to the last, in CSS pixels of the window.
    pub fn drag(&self, points: &[(i64, i64)]) {
        let go = |point: &(i64, i64)| json!({ "type": "pointerMove", "x": point.0, "y": point.1, "duration": 20 });
        let mut actions = vec![go(&points[0]), json!({ "type": "pointerDown", "button": 0 })];
        actions.extend(points[1..].iter().map(go));
        actions.push(json!({ "type": "pointerUp", "button": 0 }));
        let mouse = json!({ "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" },
            "actions": actions });
        self.post("actions", json!({ "actions": [mouse] }));
    }

    pub fn hover(&self, x: i64, y: i64) {
        let go = json!({ "type": "pointerMove", "x": x, "y": y, "duration": 20 });
        let mouse = json!({ "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" },
            "actions": [go] });
        self.post("actions", json!({ "actions": [mouse] }));
    }

    /// Answers a `confirm` dialog and returns its text.
    pub fn confirm(&self, yes: bool) -> String {
        let path = format!("/session/{}/alert/text", self.session);
        let question = self.call("GET", &path, Value::Null).as_str().expect("a question").to_string();
        self.post(if yes { "alert/accept" } else { "alert/dismiss" }, json!({}));
        question
    }

    /// The visible text of an element.
    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText", json!(selector));
        self.run(&script).as_str().unwrap_or_default().to_string()
    }

    pub fn screenshot(&self) -> Vec<u8> {
        let shot = self.call("GET", &format!("/session/{}/screenshot", self.session), Value::Null);
        decode_base64(shot.as_str().expect("base64"))
    }

    /// A screenshot of the whole page, including the parts below the window.
    pub fn whole_page(&self) -> Vec<u8> {
        let size = self
            .run("const { scrollWidth, scrollHeight } = document.documentElement; return [scrollWidth, scrollHeight]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let shot = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip }));
        decode_base64(shot["data"].as_str().expect("base64"))
    }

    /// Warnings and errors in the console since the last call: from the page, and from the browser about failed
    /// requests and violations of the content security policy.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", json!({ "type": "browser" }));
        let entries = log.as_array().expect("entries").iter();
        let bad = entries.filter(|entry| ["SEVERE", "WARNING"].contains(&entry["level"].as_str().unwrap_or_default()));
        bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_string()).collect()
    }

    /// Network events of the DevTools Protocol since the last call, in order: `Network.requestWillBeSent` and others.
    pub fn network(&self) -> Vec<Value> {
        let log = self.post("se/log", json!({ "type": "performance" }));
        let messages = log.as_array().expect("entries").iter().map(|entry| entry["message"].as_str().expect("text"));
        let events = messages.map(|text| serde_json::from_str::<Value>(text).expect("JSON")["message"].take());
        events.filter(|event| event["method"].as_str().is_some_and(|name| name.starts_with("Network."))).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // No panics here: a second panic during unwinding would abort.
        if !self.session.is_empty() {
            let _ = self.ask("DELETE", &format!("/session/{}", self.session), String::new());
        }
        let _ = killpg(Pid::from_raw(self.driver.id() as i32), Signal::SIGKILL);
        let _ = self.driver.wait();
    }
}

/// Directory of the screenshots. It stays after the test; each run overwrites the files.
pub fn album() -> PathBuf {
    let album = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&album).expect("a folder");
    album
}

fn decode_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
    for value in text.bytes().filter_map(value) {
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
