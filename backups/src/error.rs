//! What can go wrong, precise enough that a caller can say what, why and what to do.
//!
//! `Display` never contains the source: walk the chain to tell the whole story.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::pitr::postgres::recovery::RecoveryError;
use crate::pitr::sqlite::ShippingError;
use crate::postgres::PostgresError;
use crate::repo::Id;
use crate::source::SourceError;
use crate::source::postgres::base::BaseError;
use crate::store::StoreError;

/// Why an operation on a repository failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store holds no repository (it has no `config`).
    #[error("there is no repository at {location}")]
    NoRepository {
        /// The store, as it names itself.
        location: String,
    },
    /// `init` found a repository.
    #[error("there is a repository at {location} already")]
    RepositoryExists {
        /// The store, as it names itself.
        location: String,
    },
    /// The key files are sound, and none opens with this password.
    #[error("wrong password: none of {keys} key files opens with it")]
    WrongPassword {
        /// How many sound key files were tried.
        keys: usize,
    },
    /// A format version other than 1 and 2, or a feature that this engine lacks.
    #[error("repository format version {version} is not supported")]
    UnsupportedVersion {
        /// The version of the repository.
        version: u32,
    },
    /// Version 1 is read and checked, never written.
    #[error("repository format version 1 can be read, not written")]
    ReadOnlyVersion,
    /// An object of the repository is damaged or missing.
    #[error("{object} is {damage}")]
    Damaged {
        /// Which object.
        object: Object,
        /// In what way.
        damage: Damage,
    },
    /// Somebody else holds a lock that excludes ours.
    #[error("the repository is locked by {0}")]
    Locked(LockHolder),
    /// The lock could not be renewed in time: others may think us dead, so nothing more is written.
    #[error("our lock on the repository was lost")]
    LockLost,
    /// No snapshot fits.
    #[error("there is no snapshot {wanted:?}")]
    SnapshotNotFound {
        /// What was asked for.
        wanted: String,
    },
    /// A prefix fits several snapshots.
    #[error("{wanted:?} fits {count} snapshots")]
    SnapshotAmbiguous {
        /// What was asked for.
        wanted: String,
        /// How many fit.
        count: usize,
    },
    /// The snapshot holds no such path.
    #[error("the snapshot holds no {}", path.display())]
    PathNotFound {
        /// The path inside the snapshot.
        path: PathBuf,
    },
    /// The path exists, and is not what the operation needs.
    #[error("{} is no {expected}", path.display())]
    WrongType {
        /// The path inside the snapshot.
        path: PathBuf,
        /// What it should have been.
        expected: &'static str,
    },
    /// The source failed as a whole; no snapshot was made.
    #[error("the source could not be read, so no snapshot was made")]
    Source(#[from] SourceError),
    /// Something with PostgreSQL failed.
    #[error("PostgreSQL could not be dealt with")]
    Postgres(#[from] PostgresError),
    /// Nothing can be restored from shipped changes, or not for this time.
    #[error("the shipped changes do not lead there")]
    Shipping(#[from] ShippingError),
    /// A base backup of PostgreSQL could not be restored.
    #[error("the cluster could not be restored")]
    Cluster(#[source] BaseError),
    /// A PostgreSQL cannot be brought to where it was wanted.
    #[error("there is no recovery to there")]
    Recovery(#[source] Box<RecoveryError>),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The target's disk is full; the file being written was removed.
    #[error("the disk is full at {}", path.display())]
    TargetFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The target as a whole cannot be written.
    #[error("cannot {action} {}", path.display())]
    Target {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The caller's output refused bytes.
    #[error("the output could not be written")]
    Output(#[source] std::io::Error),
    /// Somebody changed the repository since the plan was made; nothing was changed by us.
    #[error("the repository at {location} changed since the plan was made")]
    PlanOutdated {
        /// The store, as it names itself.
        location: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The store's clock and ours differ so much that nothing can be deleted for its age.
    #[error("the store's clock says {theirs}, ours {ours}")]
    ClockSkew {
        /// Our clock.
        ours: Timestamp,
        /// The store's clock.
        theirs: Timestamp,
    },
    /// A snapshot that is never removed: the last whole or the last proved one of what was saved.
    #[error("snapshot {} is the last {what} one of {group}", id.short())]
    LastSnapshot {
        /// The snapshot.
        id: Id,
        /// `whole` or `proved`.
        what: &'static str,
        /// What it is a snapshot of.
        group: String,
    },
    /// No key file is called so.
    #[error("there is no key file {wanted:?}")]
    KeyNotFound {
        /// What was asked for.
        wanted: String,
    },
    /// A prefix fits several key files.
    #[error("{wanted:?} fits {count} key files")]
    KeyAmbiguous {
        /// What was asked for.
        wanted: String,
        /// How many fit.
        count: usize,
    },
    /// The key file is the one that the repository was opened with, or the last.
    #[error("key file {} is in use", id.short())]
    KeyInUse {
        /// The key file.
        id: Id,
    },
    /// One key file more might never be tried.
    #[error("there are {count} key files already, and no more are tried")]
    TooManyKeys {
        /// How many there are.
        count: usize,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A defect of this crate.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl Error {
    /// An object that is damaged in this way.
    pub(crate) fn damaged(object: Object, damage: Damage) -> Self {
        Self::Damaged { object, damage }
    }

    /// The store, or the target, has no room left.
    pub fn is_disk_full(&self) -> bool {
        matches!(
            self,
            Self::TargetFull { .. }
                | Self::Store(StoreError::Full { .. })
                | Self::Source(SourceError::StagingFull { .. })
        )
    }
}

/// One object of a repository, as named in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// The configuration.
    Config,
    /// A key file.
    Key(Id),
    /// A lock file.
    Lock(Id),
    /// An index file.
    Index(Id),
    /// A snapshot file.
    Snapshot(Id),
    /// A pack file.
    Pack(Id),
    /// A blob of file content.
    DataBlob(Id),
    /// A directory listing.
    Tree(TreeName),
}

impl Object {
    /// A directory listing, wherever it is reached.
    pub(crate) fn tree(id: Id) -> Self {
        Self::Tree(TreeName { id, root_of: None })
    }
}

/// Which directory listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeName {
    /// The tree.
    pub id: Id,
    /// The snapshot whose root it is, where that is known: then nothing of the snapshot can be reached.
    pub root_of: Option<Id>,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("the repository's config"),
            Self::Key(id) => write!(f, "key file {}", id.short()),
            Self::Lock(id) => write!(f, "lock file {}", id.short()),
            Self::Index(id) => write!(f, "index file {}", id.short()),
            Self::Snapshot(id) => write!(f, "snapshot {}", id.short()),
            Self::Pack(id) => write!(f, "pack file {}", id.short()),
            Self::DataBlob(id) => write!(f, "data blob {}", id.short()),
            Self::Tree(TreeName { id, root_of: None }) => write!(f, "tree {}", id.short()),
            Self::Tree(TreeName {
                id,
                root_of: Some(snapshot),
            }) => write!(f, "tree {}, the root of snapshot {},", id.short(), snapshot.short()),
        }
    }
}

/// In what way an object is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It is shorter or longer than it must be.
    WrongSize,
    /// Its bytes are not those that it is named after.
    WrongHash,
    /// Its authentication code does not fit: changed, or written under another key.
    NotAuthentic,
    /// It cannot be decompressed, or would grow beyond every limit.
    NotDecompressible,
    /// It is authentic, and its content makes no sense.
    Malformed,
    /// Laid out in full it would take more room than anything sound: the same directories stand in it again and again.
    Endless,
    /// Its directories are nested more deeply than those of any file system.
    TooDeep,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::WrongSize => "truncated or of the wrong size",
            Self::WrongHash => "corrupt (its content does not fit its name)",
            Self::NotAuthentic => "corrupt (its authentication code does not fit)",
            Self::NotDecompressible => "corrupt (it cannot be decompressed)",
            Self::Malformed => "malformed",
            Self::Endless => {
                "larger, laid out in full, than anything sound (the same directories stand in it again and again)"
            }
            Self::TooDeep => "nested more deeply than anything sound",
        })
    }
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// The lock file.
    pub id: Id,
    /// The holder's machine.
    pub host: String,
    /// The holder's process on that machine.
    pub pid: u32,
    /// The holder's user.
    pub username: String,
    /// When the lock was made or last renewed.
    pub since: Timestamp,
    /// Whether it excludes everybody.
    pub exclusive: bool,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {} since {}", self.pid, self.host, self.since)
    }
}

/// An error with all of its causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let told: Vec<String> = causes.map(ToString::to_string).collect();
    told.join(": ")
}
