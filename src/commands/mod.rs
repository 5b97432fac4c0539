//! What is done and over: subcommands that print something and end.

pub mod check;
pub mod look;
pub mod token;
