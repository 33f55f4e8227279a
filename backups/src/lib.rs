//! Backup and restore: what is saved ([`source`]), how it is kept ([`repo`], restic's format 2) and where ([`store`]).
//!
//! One backup on its way through the crate:
//! [`backup`] asks a [`source::Source`] to write itself into a [`repo::Writer`], which cuts it into chunks, hashes, compresses,
//! encrypts and packs them, and puts the packs into a [`store::Store`]; then the index, and last of all the snapshot.
//! [`restore`] goes the other way and believes nothing: every blob is decrypted, authenticated and hashed again.
//! Between snapshots [`pitr`] ships what changes, so that a restore reaches moments in between.
//!
//! [`schedule`] says when something is due.
//!
//! The crate never prints, prompts or exits. It starts nothing by itself, and knows nothing of services or configuration files.

mod attributes;
mod backup;
mod check;
mod clock;
pub mod copy;
mod error;
pub mod forget;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod pitr;
pub mod postgres;
mod process;
mod progress;
pub mod proof;
pub mod prune;
pub mod repair;
pub mod repo;
mod restore;
pub mod retention;
pub mod schedule;
pub mod snapshots;
pub mod source;
pub mod store;
mod threads;
mod transfer;

pub use attributes::{Namespace, Namespaces};
pub use backup::{BackupOptions, BackupReport, Parent, backup};
pub use check::{CheckOptions, CheckReport, Finding, Problem, ReadData, Severity, check};
pub use clock::now;
pub use error::{Damage, Error, LockHolder, Object, TreeName};
pub use progress::{Phase, Progress, Silent};
pub use repo::{Id, InitOptions, PARTIAL_TAG, Repository};
pub use restore::{DamagedFile, RestoreOptions, RestoreReport, restore};
pub use snapshots::{SnapshotFilter, SnapshotList, SnapshotRecord};
pub use store::{Store, StoreError};
