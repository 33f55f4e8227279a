//! What is wrong with a log, each with its position.

use replication::{Lsn, SystemId, Timeline};

/// Why bytes are not the log that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is another cluster's.
    #[error("the log at {at} is of the cluster {found}, not of {expected}")]
    System {
        /// The page.
        at: Lsn,
        /// The cluster it is of.
        found: SystemId,
        /// The cluster it should be of.
        expected: SystemId,
    },
    /// It is another timeline's.
    #[error("the log at {at} is of timeline {found}, where timeline {expected} belongs")]
    Timeline {
        /// The page.
        at: Lsn,
        /// The timeline it is of.
        found: Timeline,
        /// The one that it should be of; without a history, the closest to it that would do.
        expected: Timeline,
    },
    /// It belongs elsewhere: a file that was used again, and not yet written over.
    #[error("the page at {at} says that it belongs at {found}, as in a file that was used before")]
    Address {
        /// The page.
        at: Lsn,
        /// The position that it was written for.
        found: Lsn,
    },
    /// It is no log that is known.
    #[error("the page at {at} begins with {found:#06X}, which is no log of PostgreSQL 14 to 18")]
    Magic {
        /// The page.
        at: Lsn,
        /// Its first two bytes as a number.
        found: u16,
    },
    /// The version changed, which a log never does.
    #[error("the page at {at} is of PostgreSQL {found}, and those before it are of {expected}")]
    Version {
        /// The page.
        at: Lsn,
        /// Its major version.
        found: u32,
        /// That of the first page.
        expected: u32,
    },
    /// The segments have another size.
    #[error("the log at {at} has segments of {found} bytes, not of {expected}")]
    SegmentSize {
        /// The page.
        at: Lsn,
        /// As it says, in bytes.
        found: u32,
        /// As it should be, in bytes.
        expected: u64,
    },
    /// The server was built with pages of another size, which is not supported.
    #[error("the log at {at} has pages of {found} bytes, and only 8192 are supported")]
    PageSize {
        /// The page.
        at: Lsn,
        /// As it says, in bytes.
        found: u32,
    },
    /// No page of a log has these flags there.
    #[error("the page at {at} has the flags {found:#06X}, which none has there")]
    Flags {
        /// The page.
        at: Lsn,
        /// The flags.
        found: u16,
    },
    /// The page does not go on with the record before it.
    #[error("the page at {at} goes on with {found} bytes of a record, where {expected} belong")]
    Continuation {
        /// The page.
        at: Lsn,
        /// How many bytes of a record are still to come, as it says.
        found: u32,
        /// How many there are.
        expected: u32,
    },
    /// No record has this length. None at all where there should be a record is the end of a log.
    #[error("the record at {at} would be {found} bytes long")]
    Length {
        /// The record.
        at: Lsn,
        /// As it says, in bytes.
        found: u32,
    },
    /// The record does not follow on the one before it.
    #[error("the record at {at} says that it follows the one at {found}, not at {expected}")]
    Link {
        /// The record.
        at: Lsn,
        /// The record before it, as it says.
        found: Lsn,
        /// The record before it, or at least a position after it.
        expected: Lsn,
    },
    /// The record is damaged.
    #[error("the record at {at} is damaged: its checksum is another")]
    Checksum {
        /// The record.
        at: Lsn,
    },
    /// The log ends too early.
    #[error("the log ends at {at}, and should go on to {until}")]
    Truncated {
        /// Its end.
        at: Lsn,
        /// Where it should end.
        until: Lsn,
    },
    /// The file is longer than a segment.
    #[error("the segment ends at {at}, and its file goes on to {until}")]
    TooLong {
        /// The end of the segment.
        at: Lsn,
        /// The end of the file.
        until: Lsn,
    },
}

impl Fault {
    /// Where it is.
    pub fn at(&self) -> Lsn {
        match self {
            Self::System { at, .. }
            | Self::Timeline { at, .. }
            | Self::Address { at, .. }
            | Self::Magic { at, .. }
            | Self::Version { at, .. }
            | Self::SegmentSize { at, .. }
            | Self::PageSize { at, .. }
            | Self::Flags { at, .. }
            | Self::Continuation { at, .. }
            | Self::Length { at, .. }
            | Self::Link { at, .. }
            | Self::Checksum { at }
            | Self::Truncated { at, .. }
            | Self::TooLong { at, .. } => *at,
        }
    }
}
