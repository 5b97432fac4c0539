//! The checks of the fuzz targets, one function for each target. `cargo test` runs them on the inputs in the corpus too
//! (`tests/it/corpus.rs`).

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
