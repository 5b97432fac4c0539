//! Attacks, faults, kills and long histories. They take minutes, so plain `cargo test` leaves them out; `tests/all` runs
//! them: `cargo test --test attack`.

mod alone;
#[path = "../common/mod.rs"]
mod common;
mod past;

mod attack;
mod attack_gate;
mod e2e_access;
mod e2e_clock;
mod e2e_links;
mod e2e_proxy;
mod e2e_reading;
mod memory;
mod storage_edits;
mod storage_faults;
mod storage_hang;
mod storage_kill;
mod storage_late;
mod storage_life;
mod storage_power;
mod storage_schema;
mod storage_start;
