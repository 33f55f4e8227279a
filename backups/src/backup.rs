//! Saves a source as a snapshot. The order of writes is packs, index, and the snapshot last: cut anywhere, the
//! repository is valid, and no snapshot exists whose data does not.

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::progress::Progress;
use crate::repo::{Id, Repository, Summary};
use crate::source::{Skipped, Source};

/// How to save.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The snapshot's time.
    pub now: Timestamp,
    /// The machine's name in the snapshot.
    pub host: String,
    /// The user's name in the snapshot.
    pub username: String,
    /// Labels of the snapshot.
    pub tags: Vec<String>,
    /// What unchanged files are compared with.
    pub parent: Parent,
}

/// Which snapshot unchanged files are taken from without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parent {
    /// The latest of the same host and paths.
    #[default]
    Latest,
    /// None: read everything.
    None,
    /// This one.
    Snapshot(Id),
}

/// What was saved.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The snapshot.
    pub snapshot: Id,
    /// Its parent, if there was one.
    pub parent: Option<Id>,
    /// Figures.
    pub summary: Summary,
    /// What could not be read; not empty means that the snapshot is partial.
    pub skipped: Vec<Skipped>,
}

impl BackupReport {
    /// Something is missing from the snapshot.
    pub fn is_partial(&self) -> bool {
        !self.skipped.is_empty()
    }
}

/// Saves `source`. After `Ok` everything is durable; after `Err`, and when the future is dropped, there is no new
/// snapshot, no lock is left, and whatever was stored by then is found again by the next backup.
pub async fn backup(
    repository: &Repository,
    source: &dyn Source,
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BackupReport, Error> {
    let _ = (repository, source, options, progress, cancel);
    unimplemented!()
}
