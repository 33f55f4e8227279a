//! Why a base backup was not taken, does not count, or was not restored.

use std::path::PathBuf;

use replication::ServerVersion;

use super::manifest::ManifestFault;
use super::tar::TarFault;
use crate::Error;
use crate::pitr::postgres::archive::ArchiveError;
use crate::source::SourceError;

/// Why a base backup was not taken, does not count, or was not restored.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The server could not be asked, refused, or the connection broke.
    #[error("the server did not send all of the backup")]
    Server(#[source] replication::Error),
    /// It is too old: it makes no manifest, without which nothing proves that all files came as they were.
    #[error("PostgreSQL {0} makes no manifest of a base backup; it takes version 13")]
    TooOld(ServerVersion),
    /// Pages of the cluster are damaged on the server.
    #[error("pages of {} are damaged on the server", .files.join(", "))]
    CorruptPages {
        /// Files with damaged pages, in the order in which they were found, relative to the data folder: the last ones, where
        /// there are many.
        files: Vec<String>,
    },
    /// An archive that the server sent makes no sense.
    #[error("the archive of {archive} makes no sense")]
    Archive {
        /// `the data folder` or `tablespace 16385`.
        archive: String,
        /// Why.
        #[source]
        source: TarFault,
    },
    /// The manifest that the server sent does not count.
    #[error("the manifest of the backup does not count")]
    Manifest(#[from] ManifestFault),
    /// A file is not what the manifest says.
    #[error("{} {problem}", path.display())]
    File {
        /// The file, relative to the data folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// What the server sent does not fit together.
    #[error("what the server sent does not fit together: {0}")]
    Inconsistent(String),
    /// The log of the backup is not in the archive.
    #[error("the log of the backup is not in the archive: {0}")]
    NoLog(String),
    /// The archive refused the log of the backup, or what it holds makes no sense.
    #[error("the log of the backup cannot be archived")]
    LogArchive(#[source] Box<ArchiveError>),
    /// A snapshot holds no base backup.
    #[error("the snapshot holds no base backup of PostgreSQL: {0}")]
    NoBase(String),
    /// Where a cluster is to be restored something lies already.
    #[error("{} is not empty", .0.display())]
    Occupied(PathBuf),
    /// Where tablespaces are to be restored makes no sense.
    #[error("{0}")]
    Tablespaces(String),
    /// Not all of the cluster could be restored, so that no server can be started on it.
    #[error("{count} files of the cluster were not restored, the first one {}: {reason}", first.display())]
    Incomplete {
        /// How many.
        count: usize,
        /// One of them.
        first: PathBuf,
        /// Why it was not.
        reason: String,
    },
}

impl From<BaseError> for Error {
    fn from(error: BaseError) -> Self {
        Self::Source(SourceError::Base(error))
    }
}

impl From<replication::Error> for Error {
    fn from(error: replication::Error) -> Self {
        BaseError::Server(error).into()
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileProblem {
    /// The manifest names it, and it did not come.
    Missing,
    /// It came, and the manifest does not name it.
    Unlisted,
    /// It came twice.
    Twice,
    /// It has another length.
    Size {
        /// As it came.
        is: u64,
        /// As the manifest says.
        listed: u64,
    },
    /// It has other bytes.
    Hash,
}

impl std::fmt::Display for FileProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("is named by the manifest and is missing"),
            Self::Unlisted => f.write_str("is not named by the manifest"),
            Self::Twice => f.write_str("was sent twice"),
            Self::Size { is, listed } => write!(f, "has {is} bytes, and the manifest says {listed}"),
            Self::Hash => f.write_str("has other bytes than the manifest says"),
        }
    }
}
