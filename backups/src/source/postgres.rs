//! PostgreSQL. One file a way of saving it.

pub mod base;
pub(crate) mod dump;
pub mod manifest;

pub use base::{BaseOptions, BaseSource};
pub use dump::{DumpOptions, DumpSource};
