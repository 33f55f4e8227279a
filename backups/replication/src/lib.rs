//! A client of PostgreSQL's streaming replication protocol: who a server is, its slots, its base backups, and its
//! write-ahead log as it is written. Source of the protocol: the chapters "Frontend/Backend Protocol" and "Streaming
//! Replication Protocol" of PostgreSQL's documentation, versions 13 to 18.
//!
//! It knows nothing of files, repositories and restores, does not read the environment, and tries nothing twice.

mod address;
mod base;
mod clock;
mod connection;
mod der;
mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod history;
mod lsn;
mod segment;
mod slot;
mod sql;
mod startup;
mod tls;
mod version;
mod wal;
mod wire;

pub use address::{Address, AddressError, Authority, ChannelBinding, Host, SslMode, Wanted};
pub use base::{BaseBackup, BaseBackupStream, Checkpoint, Oid, Part, Tablespace};
pub use connection::{Connection, HistoryFile, Identity, Position};
pub use error::{Error, ServerError};
pub use history::{History, HistoryError, Span, Switch};
pub use lsn::{Lsn, Malformed, SystemId, Timeline};
pub use segment::{Segment, SegmentSize};
pub use slot::{Slot, SlotLifetime, SlotName, SlotState};
pub use sql::Sql;
pub use version::ServerVersion;
pub use wal::{Event, WalStream};
