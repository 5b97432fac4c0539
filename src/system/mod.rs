//! What several rooms need of the operating system, so that not each of them has to name it.

pub mod lock;
