//! Saves a source as a snapshot. The order of writes is packs, index, and the snapshot last: cut anywhere, the
//! repository is valid, and no snapshot exists whose data does not.

use std::path::PathBuf;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::Error;
use crate::progress::{Phase, Progress};
use crate::repo::layout::FileKind;
use crate::repo::{Id, Lock, LockMode, PARTIAL_TAG, Repository, Snapshot, Summary, Writer, host};
use crate::snapshots::{self, SnapshotFilter, SnapshotRecord};
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
    /// What changed while it was read: saved, but perhaps half old and half new.
    pub changed: Vec<PathBuf>,
}

impl BackupReport {
    /// Something is missing from the snapshot.
    pub fn is_partial(&self) -> bool {
        !self.skipped.is_empty()
    }
}

/// Saves `source`. After `Ok` everything is durable. After `Err` there is no new snapshot and no lock, and what was
/// stored by then is found again by the next backup; dropping the future does the same.
pub async fn backup(
    repository: &Repository,
    source: &dyn Source,
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BackupReport, Error> {
    let prepared = async {
        let lock = Lock::acquire(repository, LockMode::Shared, clock::now()).await?;
        let stored = store(repository, source, options, progress, cancel).await;
        Ok::<_, Error>((lock, stored))
    };
    let (lock, stored) = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        prepared = prepared => prepared?,
    };
    let report = match stored {
        Ok(stored) => stored.conclude(repository, &lock).await,
        Err(error) => Err(error),
    };
    lock.release().await;
    report
}

/// Everything is stored but the snapshot.
struct Stored {
    snapshot: Snapshot,
    skipped: Vec<Skipped>,
    changed: Vec<PathBuf>,
}

impl Stored {
    /// Writes the snapshot: the one moment at which the backup comes to be.
    async fn conclude(mut self, repository: &Repository, lock: &Lock) -> Result<BackupReport, Error> {
        lock.confirm().await?;
        let summary = self.snapshot.summary.get_or_insert_default();
        summary.backup_end = clock::now().max(summary.backup_start);
        let summary = summary.clone();
        let id = repository.save_file(FileKind::Snapshot, &self.snapshot).await?;
        let parent = self.snapshot.parent;
        Ok(BackupReport {
            snapshot: id,
            parent,
            summary,
            skipped: self.skipped,
            changed: self.changed,
        })
    }
}

async fn store(
    repository: &Repository,
    source: &dyn Source,
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Stored, Error> {
    let paths: Vec<String> = source
        .paths()
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let parent = parent(repository, options, &paths).await?;
    let (parent, parent_snapshot) = parent.map(|record| (record.id, record.snapshot)).unzip();
    let writer = Writer::new(repository, parent_snapshot, progress, cancel).await?;
    progress.phase(Phase::Saving, None, None);
    let written = source.write(&writer).await?;
    let tree = writer.save_tree(&written.root).await?;
    let summary = Summary {
        backup_start: options.now,
        ..writer.finish().await?
    };
    let (uid, gid) = host::user();
    let mut tags = options.tags.clone();
    if !written.skipped.is_empty() && !tags.iter().any(|tag| tag == PARTIAL_TAG) {
        tags.push(PARTIAL_TAG.to_owned());
    }
    let snapshot = Snapshot {
        time: options.now,
        parent,
        tree,
        paths,
        hostname: options.host.clone(),
        username: options.username.clone(),
        uid,
        gid,
        excludes: source.excludes(),
        tags,
        original: None,
        program_version: Some(concat!("opsctl ", env!("CARGO_PKG_VERSION")).to_owned()),
        summary: Some(summary),
    };
    Ok(Stored {
        snapshot,
        skipped: written.skipped,
        changed: written.changed,
    })
}

/// The snapshot to compare with. A damaged one is passed over: its files are simply read again.
async fn parent(
    repository: &Repository,
    options: &BackupOptions,
    paths: &[String],
) -> Result<Option<SnapshotRecord>, Error> {
    match options.parent {
        Parent::None => Ok(None),
        Parent::Snapshot(id) => Ok(Some(SnapshotRecord {
            id,
            snapshot: repository.snapshot(&id).await?,
        })),
        Parent::Latest => {
            let filter = SnapshotFilter {
                host: Some(options.host.clone()),
                ..SnapshotFilter::default()
            };
            let mut snapshots = snapshots::list(repository, &filter).await?.snapshots;
            snapshots.retain(|record| record.snapshot.paths == paths);
            Ok(snapshots.pop())
        }
    }
}
