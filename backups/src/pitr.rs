//! Going back to a point in time: what is shipped between snapshots, so that a restore reaches any second and not only
//! the snapshots. One module a kind of datastore; not the snapshots themselves, which are [`crate::backup()`]'s.
//!
//! What is shipped lies beside restic's folders, never in its packs: one object each, sealed with the repository's key.

mod datastore;
pub mod postgres;
mod sealed;
pub mod sqlite;

pub use datastore::Datastore;
