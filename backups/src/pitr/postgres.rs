//! PostgreSQL's write-ahead log: read and checked ([`wal`]), kept in a repository ([`archive`]) by a [`receiver`] or by
//! the server itself ([`push`]), how far what is held ([`contents`]) leads from a base backup ([`reach`]), and which
//! position a moment or a name stands for ([`search`]). What all of it is worth now, [`account`] says. From there it is handed out to a server that recovers
//! ([`serve`]), which [`recovery`] plans and watches.

pub mod account;
pub mod archive;
pub mod contents;
pub mod keep;
pub mod push;
pub mod reach;
pub mod receiver;
pub mod recovery;
pub mod search;
pub mod serve;
pub mod wal;

pub use replication::{Address, Checkpoint, Lsn, SystemId, Timeline};
