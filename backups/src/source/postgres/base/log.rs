//! The log of a base backup. Without the log from its start to its end the files of a backup do not fit each other, and no
//! server starts on them: a backup counts once that log lies where restores take it from. Who keeps it is the caller's
//! business, here is what a backup asks of it.

use async_trait::async_trait;
use replication::{Lsn, SegmentSize, SystemId, Timeline};

use crate::Error;

/// The cluster that is about to be backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOf {
    /// The cluster.
    pub system: SystemId,
    /// Its present timeline.
    pub timeline: Timeline,
    /// How long each file of its log is.
    pub segment_size: SegmentSize,
    /// Up to where its log was written before the backup began: what the backup needs may begin here or later, at the
    /// start of the server's checkpoint.
    pub written: Lsn,
}

/// The log that a base backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSpan {
    /// The cluster.
    pub system: SystemId,
    /// The timeline, from start to end.
    pub timeline: Timeline,
    /// How long each file of the log is.
    pub segment_size: SegmentSize,
    /// From here on.
    pub start: Lsn,
    /// Up to here.
    pub end: Lsn,
}

/// Who keeps the log while a base backup is taken.
#[async_trait]
pub trait KeepLog: Send + Sync {
    /// Called before the server is asked for the backup: what it writes from now on must be kept. A receiver that runs
    /// elsewhere does so anyhow; without one this is where a temporary slot is made and streaming begins.
    async fn begin(&self, log: &LogOf) -> Result<(), Error>;

    /// Waits until all of this log is durable in the archive. An error means that it will not be, or was waited for too
    /// long, and that the backup does not count.
    async fn held(&self, span: &LogSpan) -> Result<(), Error>;
}
