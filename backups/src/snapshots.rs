//! Reading what snapshots hold: list, find, show, ls, diff, dump.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::repo::{Id, Node, Repository, Snapshot};

/// A snapshot and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotRecord {
    /// The name.
    pub id: Id,
    /// What it says.
    pub snapshot: Snapshot,
}

/// Which snapshots; everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// The machine.
    pub host: Option<String>,
    /// Labels that it must all have.
    pub tags: Vec<String>,
    /// Paths of which it must have saved each.
    pub paths: Vec<String>,
}

/// One line of `ls`.
#[derive(Debug, Clone, PartialEq)]
pub struct LsEntry {
    /// Its path inside the snapshot, without a leading `/`.
    pub path: PathBuf,
    /// What it is.
    pub node: Node,
}

/// One difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path inside the snapshots.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its size before and after, in bytes, for files.
    pub size_bytes: (Option<u64>, Option<u64>),
}

/// What happened to an item from one snapshot to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is only in the second.
    Added,
    /// It is only in the first.
    Removed,
    /// Its content differs.
    Modified,
    /// Only its mode, owner or time differ.
    Metadata,
    /// It became something else (a file a directory).
    Type,
}

/// All snapshots that fit, oldest first.
pub async fn list(repository: &Repository, filter: &SnapshotFilter) -> Result<Vec<SnapshotRecord>, Error> {
    let _ = (repository, filter);
    unimplemented!()
}

/// The snapshot whose id begins with `wanted`, or the `latest` of those that fit.
pub async fn find(repository: &Repository, wanted: &str, filter: &SnapshotFilter) -> Result<SnapshotRecord, Error> {
    let _ = (repository, filter, wanted);
    unimplemented!()
}

/// What lies under `path` (empty: everything), in order; directories before what they hold.
pub async fn ls(repository: &Repository, snapshot: &Snapshot, path: &Path, recursive: bool) -> Result<Vec<LsEntry>, Error> {
    let _ = (repository, snapshot, path, recursive);
    unimplemented!()
}

/// What differs between two snapshots.
pub async fn diff(repository: &Repository, before: &Snapshot, after: &Snapshot) -> Result<Vec<Change>, Error> {
    let _ = (repository, before, after);
    unimplemented!()
}

/// Writes a file's content, or a directory as a tar archive.
pub async fn dump(repository: &Repository, snapshot: &Snapshot, path: &Path, out: &mut (dyn Write + Send)) -> Result<(), Error> {
    let _ = (repository, snapshot, path, out);
    unimplemented!()
}
