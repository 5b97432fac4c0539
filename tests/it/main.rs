//! What plain `cargo test` runs beside the tests of each module: the program from outside, a simulated year, what may not
//! be allocated, the inputs that fuzzing has kept, and the rules of the tree itself. Attacks and faults that take minutes
//! are in `tests/attack`, the page in a browser in `tests/page`. One crate and not one per file, because each would be
//! linked with all of the program and its SQLite.

#[path = "../common/mod.rs"]
mod common;
mod counting;
mod simulated;

mod allocations;
mod circles;
mod clock_attacks;
mod corpus;
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
mod floors;
mod history;
mod identity;
mod source_steady;
mod storage_closed;
mod storage_limits;
mod storage_locks;
mod storage_moved;
mod storage_names;
mod year;
