//! What is checked of every input, one function for each fuzz target. `cargo test` runs them over the inputs that fuzzing
//! has kept (`tests/it/corpus.rs`).

mod head;
mod netlink;
mod pack;
mod procfs;
mod request;
mod unpack;
mod zone;

pub use head::head;
pub use netlink::netlink;
pub use pack::pack;
pub use procfs::procfs;
pub use request::request;
pub use unpack::unpack;
pub use zone::zone;
