//! Writes a snapshot, or parts of it, into a directory. It believes nothing that the repository says before it is
//! checked, goes on past damage and lists it, and never writes outside the directory.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::progress::Progress;
use crate::repo::{Id, Repository};
use crate::source::Skipped;

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only these paths inside the snapshot, with what lies under them; empty means everything.
    pub include: Vec<PathBuf>,
    /// Restore the setuid and setgid bits.
    pub setuid: bool,
    /// Restore device nodes (needs privileges).
    pub devices: bool,
    /// Restore user and group (needs privileges).
    pub owners: bool,
}

/// What was restored.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Files written.
    pub files: u64,
    /// Files that were there already, with the right content.
    pub unchanged: u64,
    /// Directories made or kept.
    pub directories: u64,
    /// Bytes in the files written.
    pub bytes: u64,
    /// Files that are not there, because some of their data is damaged.
    pub damaged: Vec<DamagedFile>,
    /// Items that were not restored for another reason: refused names, device nodes, permissions.
    pub skipped: Vec<Skipped>,
}

impl RestoreReport {
    /// Something is missing from the target.
    pub fn is_partial(&self) -> bool {
        !self.damaged.is_empty() || !self.skipped.is_empty()
    }
}

/// A file that could not be restored.
#[derive(Debug)]
#[derive(Clone)]
pub struct DamagedFile {
    /// Its path inside the snapshot.
    pub path: PathBuf,
    /// What is damaged.
    pub reason: String,
}

/// Restores into `target`, which is created if need be. Files there that the snapshot does not name stay; those that it
/// names are replaced, each in one step.
pub async fn restore(
    repository: &Repository,
    snapshot: &Id,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RestoreReport, Error> {
    let _ = (repository, snapshot, target, options, progress, cancel);
    unimplemented!()
}
