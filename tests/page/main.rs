//! Tests the page in Chromium. They take minutes and need a browser, so plain `cargo test` does not run them;
//! `tests/all` does: `cargo test --test page`.

#[path = "../common/mod.rs"]
mod common;

mod browser;
mod home;

mod controls;
mod loading;
mod speed;
mod views;
