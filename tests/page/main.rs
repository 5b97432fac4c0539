//! The page in a real Chromium. That takes minutes and a browser, so plain `cargo test` leaves it out; `tests/all` runs
//! it: `cargo test --test page`.

#[path = "../common/mod.rs"]
mod common;

mod browser;
mod home;

mod controls;
mod loading;
mod speed;
mod views;
