//! Attacks, injected faults, kills and long histories. These tests take minutes, so plain `cargo test` leaves them out;
//! `tests/all` runs them with `cargo test --test attack`.

#[path = "../common/mod.rs"]
mod common;
mod isolation;
mod stored_history;

mod attack;
mod attack_gate;
mod e2e_access;
mod e2e_clock;
mod e2e_links;
mod e2e_proxy;
mod e2e_reading;
mod e2e_signals;
mod memory;
mod storage_edits;
mod storage_faults;
mod storage_hang;
mod storage_kill;
mod storage_power;
mod storage_rejoin;
mod storage_schema;
mod storage_start;
