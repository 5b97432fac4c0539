//! Integration tests that plain `cargo test` runs besides the unit tests: the program from outside, simulated machines
//! and a simulated year, allocations, the fuzz corpus, and rules for the source tree. Attacks and faults that take
//! minutes are in `tests/attack`, tests of the page in a browser in `tests/page`. All files are one crate, because each
//! crate is linked with the whole program and SQLite.

#[path = "../common/mod.rs"]
mod common;
mod counting;
mod simulated;

mod allocations;
mod clock_attacks;
mod corpus;
mod cycles;
mod e2e_answers;
mod e2e_check;
mod e2e_cli;
mod e2e_config;
mod e2e_life;
mod e2e_listen;
mod e2e_log;
mod e2e_names;
mod e2e_requests;
mod e2e_sums;
mod e2e_tick;
mod e2e_wakes;
mod history;
mod identity;
mod layers;
mod source_steady;
mod storage_limits;
mod storage_locks;
mod storage_moved;
mod storage_names;
mod storage_permissions;
mod year;
