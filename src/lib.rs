//! Net-Pulse samples the traffic counters of network interfaces, keeps years of history, and serves an HTTP API and a
//! page. `ARCHITECTURE.md` describes the modules and how they depend on each other.
#![cfg_attr(target_os = "linux", forbid(unsafe_code))]

pub mod app;
pub mod cli;
pub mod clock;
pub mod coarsen;
pub mod config;
pub mod counter;
pub mod detect;
pub mod error;
pub mod history;
pub mod http;
pub mod live;
pub mod log;
pub mod model;
pub mod resolution;
pub mod sampler;
pub mod series;
pub mod sorted;
pub mod source;
pub mod store;
pub mod subcommands;
pub mod suggest;
pub mod system;
pub mod text;
pub mod thread;
pub mod token;
pub mod totals;
pub mod writer;
