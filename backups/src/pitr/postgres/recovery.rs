//! Back to a moment: from which base backup, through which files of the log, up to which record; everything is decided
//! and looked for before anything is written. What PostgreSQL then does with it is [`run`]'s.
//!
//! A recovery is always given a position. Without one PostgreSQL takes whatever it cannot read for the end of the log,
//! and says that all went well. So a time, a name or "the latest" is turned into the position of a record first, the log
//! must be held up to the end of that record, without a gap and along the history of one timeline, and what was replayed
//! is held against it at the end.

pub mod drill;
mod feed;
mod plan;
pub mod run;
mod supply;

pub use feed::Place;
pub use plan::{BaseBackup, BaseBackups, DamagedBase, Plan, Target, backups_of, plan};
pub use supply::FromArchive;

use jiff::Timestamp;
use replication::{Lsn, SystemId, Timeline};

use super::archive::ArchiveError;
use super::reach::{NoWay, Short};
use super::search::SearchError;
use crate::error::Error;

/// Why there is no recovery to where it was wanted. Nothing was written then, but for the last three.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// There is nothing to begin with.
    #[error("there is no base backup of {datastore}")]
    NoBackup {
        /// The datastore.
        datastore: String,
    },
    /// No log was ever archived of the cluster.
    #[error("no log of {datastore} is archived from the cluster {system}, of which its base backups are")]
    NoLog {
        /// The datastore.
        datastore: String,
        /// The cluster.
        system: SystemId,
    },
    /// No base backup lies on the way to the timeline.
    #[error("no base backup leads to timeline {timeline}")]
    NoWay {
        /// The timeline.
        timeline: Timeline,
        /// Why the newest one does not.
        #[source]
        why: NoWay,
    },
    /// Every base backup is later.
    #[error("{wanted} lies before the first state that can be restored, {earliest}")]
    BeforeFirst {
        /// What was asked for.
        wanted: String,
        /// The end of the earliest base backup that counts.
        earliest: String,
    },
    /// Log is missing on the way, or there is no more of it.
    #[error("the log does not lead to {wanted}")]
    Short {
        /// What was asked for.
        wanted: String,
        /// What is missing.
        #[source]
        why: Short,
    },
    /// The time is later than what is known to be held.
    #[error("{wanted} lies after what is held: {}", told_end(.until.as_ref(), *.lsn, *.timeline))]
    Beyond {
        /// What was asked for.
        wanted: String,
        /// The last moment that can be restored, by the server's clock.
        until: Option<Timestamp>,
        /// The end of the log that is held.
        lsn: Lsn,
        /// Its timeline.
        timeline: Timeline,
    },
    /// The log has no restore point of this name.
    #[error("the log that is held has no restore point {name:?}")]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// What is archived could not be listed.
    #[error("the archive of the log cannot be read")]
    Archive(#[from] ArchiveError),
    /// The log could not be searched.
    #[error("the position of {wanted} could not be found")]
    Search {
        /// What was asked for.
        wanted: String,
        /// Why.
        #[source]
        source: Box<SearchError<ArchiveError>>,
    },
    /// PostgreSQL did not come up, or gave up on its way.
    #[error("PostgreSQL did not recover: {problem}")]
    Failed {
        /// What it said, or what the archive refused to it.
        problem: String,
        /// The end of its log.
        said: String,
    },
    /// It recovered, and not as far as it should have. The data is not what was asked for.
    #[error("PostgreSQL stopped at {reached} of timeline {timeline}, and {wanted} was wanted")]
    Fewer {
        /// Up to where it replayed.
        reached: Lsn,
        /// On which timeline.
        timeline: Timeline,
        /// Up to where it should have.
        wanted: Lsn,
    },
    /// The programs of PostgreSQL that recover are of another version than the cluster.
    #[error("the cluster is of PostgreSQL {wanted}, and the programs here are of {found}")]
    OtherVersion {
        /// The major version of the backup.
        wanted: u32,
        /// The major version of the programs.
        found: u32,
    },
}

fn told_end(until: Option<&Timestamp>, lsn: Lsn, timeline: Timeline) -> String {
    match until {
        Some(until) => format!("it reaches to {until}, position {lsn} of timeline {timeline}"),
        None => format!("it reaches to position {lsn} of timeline {timeline}, and no commit tells its time"),
    }
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Repository(error) => error,
            error => RecoveryError::Archive(error).into(),
        }
    }
}

impl From<RecoveryError> for Error {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(Box::new(error))
    }
}
