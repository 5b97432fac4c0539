//! The page as people see it, in a real Chromium.

mod common;

use common::browser::*;
use common::*;

#[test]
fn it_opens() {
    in_namespace(|| {
        let dir = Dir::new();
        let daemon = Daemon::start(&dir, &["--interval", "1"]);
        let Some(browser) = Browser::start(&dir) else { return };
        browser.wear(PHONE, Theme::Dark);
        browser.open(&daemon, "/");
        browser.wait("the state", "return document.querySelector('#state').textContent != 'connecting'");
        std::fs::write(album().join("first.png"), browser.screenshot()).unwrap();
        browser.click_text("nav a", "Usage");
        browser.wait("the view", "return location.hash == '#/usage'");
        assert_eq!(browser.complaints(), Vec::<String>::new());
        println!("{:?} {}", browser.hosts(), browser.address());
    });
}
