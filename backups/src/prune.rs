//! Gives back the space of what no snapshot needs: marks, and deletes after a grace.
//!
//! A pack that nothing needs is taken out of the index and listed in it under `packs_to_delete`, with the time, exactly
//! as rustic does; restic passes that list over. A later prune deletes it once the grace is over, after looking again: if
//! a snapshot needs it by now, because a backup was away while it was marked, it is brought back. Packs that no index
//! names, what killed backups leave, wait as long from when they were written. All times are the store's.
//!
//! Under the exclusive lock the order of writes is: new packs, new index files, old index files deleted, packs deleted.
//! Cut anywhere, every snapshot stays whole, and the next prune does the rest.

mod choose;
#[cfg(test)]
mod large;
mod needed;
mod repack;
mod rewrite;
mod table;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::{Damage, Error, Object};
use crate::pitr;
use crate::progress::{Phase, Progress};
use crate::repo::layout::FileKind;
use crate::repo::{Id, Lock, LockMode, Repository};
use choose::{Fate, choose};
use table::Table;

/// How to prune.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PruneOptions {
    /// What our clock says; compared with the store's.
    pub now: Timestamp,
    /// How long a pack stays after nothing needs it any more. None at all is safe only while nobody else writes.
    pub grace: SignedDuration,
    /// How much waste may stay in packs that are needed in part.
    pub max_unused: MaxUnused,
    /// At most so many bytes are stored anew.
    pub max_repack: Option<u64>,
}

impl PruneOptions {
    /// What is right where nothing else is said: a day of grace, 5 % of waste.
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            grace: SignedDuration::from_hours(24),
            max_unused: MaxUnused::Share(0.05),
            max_repack: None,
        }
    }
}

/// A limit on waste.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxUnused {
    /// This share of the repository, 0 to 1.
    Share(f64),
    /// So many bytes.
    Bytes(u64),
    /// No limit: nothing is stored anew because of waste.
    Unlimited,
}

/// Packs and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub packs: u64,
    /// Their length.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What a prune does, in figures. Bytes are those of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneFigures {
    /// Snapshots whose needs were looked at.
    pub snapshots: u64,
    /// Packs that stay as they are.
    pub kept: Amount,
    /// Marked packs that are needed again, and go back into the index.
    pub recovered: Amount,
    /// Packs whose needed part is stored anew; then they are marked.
    pub repacked: Amount,
    /// Bytes that are stored anew.
    pub rewritten: u64,
    /// Packs that nothing needs, marked now.
    pub marked: Amount,
    /// Packs that were marked before, and whose grace is not over.
    pub waiting: Amount,
    /// Packs that are deleted now.
    pub deleted: Amount,
    /// Packs that no index names and that are too young to be deleted.
    pub unindexed: Amount,
    /// Packs that the index names, that are gone, and that nothing needs.
    pub missing: u64,
    /// Waste that stays in packs that are needed in part.
    pub unused: u64,
    /// Index files that are replaced.
    pub index_files: u64,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// As planned, or as it came.
    pub figures: PruneFigures,
    /// Packs that were written.
    pub new_packs: Amount,
    /// Packs that could not be stored anew because they are damaged: they stay.
    pub damaged: Vec<Id>,
    /// The store had no room for what was to be stored anew: those packs stay, too.
    pub no_room: bool,
    /// Objects that were deleted of what was shipped after snapshots that are gone, and of log that leads from none.
    pub changes: u64,
    /// Unfinished uploads that were taken out of the store.
    pub uploads: u64,
}

/// What a prune would do. Takes a lock for reading, so that backups go on beside it.
pub async fn preview(
    repository: &Repository,
    options: &PruneOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<PruneFigures, Error> {
    let work = async { Ok(look(repository, options, progress).await?.figures) };
    Lock::while_reading(repository, cancel, Box::pin(work)).await
}

/// What a prune will do. The exclusive lock is held until it is applied, or dropped.
pub struct PrunePlan {
    repository: Repository,
    lock: Lock,
    looked: Looked,
}

/// Finds out what is needed, and what is to be done.
pub async fn plan(
    repository: &Repository,
    options: &PruneOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<PrunePlan, Error> {
    if repository.version() == 1 {
        return Err(Error::ReadOnlyVersion);
    }
    let locked = async {
        // Snapshots are read after the lock is there: nobody adds one from here on.
        let lock = Lock::acquire(repository, LockMode::Exclusive, clock::now()).await?;
        match look(repository, options, progress).await {
            Ok(looked) => Ok(PrunePlan {
                repository: repository.clone(),
                lock,
                looked,
            }),
            Err(error) => {
                lock.release().await;
                Err(error)
            }
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        planned = locked => planned,
    }
}

impl PrunePlan {
    /// What it will do.
    pub fn figures(&self) -> &PruneFigures {
        &self.looked.figures
    }

    /// Does not do it.
    pub async fn abandon(self) {
        self.lock.release().await;
    }

    /// Does it. After an error, or when the future is dropped, every snapshot is whole, and the next prune goes on.
    pub async fn apply(self, progress: &dyn Progress, cancel: &CancellationToken) -> Result<PruneReport, Error> {
        let Self {
            repository,
            lock,
            looked,
        } = self;
        let applied = async {
            let applied = async {
                let mut report = rewrite::apply(&repository, &lock, looked, progress).await?;
                report.changes = pitr::sqlite::sweep(&repository).await? + archived_log(&repository).await?;
                report.uploads = repository.store().sweep(UNFINISHED).await?;
                Ok(report)
            };
            let applied = applied.await;
            lock.release().await;
            applied
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            applied = applied => applied,
        }
    }
}

/// Deletes the log of PostgreSQL that no base backup needs any more.
async fn archived_log(repository: &Repository) -> Result<u64, Error> {
    if pitr::postgres::archive::is_empty(repository).await? {
        return Ok(0);
    }
    let bases = pitr::postgres::archive::kept_bases(repository).await?;
    pitr::postgres::archive::sweep(repository, &bases).await
}

/// What was not finished after this long never will be.
const UNFINISHED: SignedDuration = SignedDuration::from_hours(24);

/// Clocks that differ by more than this are not trusted with what is deleted for its age.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What was found, and what is to be done.
struct Looked {
    table: Table,
    /// What becomes of each pack of the table.
    fates: Vec<Fate>,
    /// Packs that no index names and whose grace is over.
    orphans: Vec<(Id, u64)>,
    /// The store's time.
    now: Timestamp,
    /// Whether packs are deleted as soon as nothing needs them.
    no_grace: bool,
    figures: PruneFigures,
}

async fn look(repository: &Repository, options: &PruneOptions, progress: &dyn Progress) -> Result<Looked, Error> {
    let now = repository.store().time().await?;
    // Asking takes time, too: our clock is read again rather than trusted to be from just now.
    let ours = options.now;
    if now.duration_since(ours).abs() > MAX_SKEW {
        return Err(Error::ClockSkew { ours, theirs: now });
    }
    progress.phase(Phase::FindingNeeded, None, None);
    let snapshots = needed::snapshots(repository).await?;
    let (mut table, trees) = Table::load(repository).await?;
    let stray = table.find_packs(repository).await?;
    let roots = needed::roots(repository, snapshots).await?;
    let snapshots = roots.len() as u64;
    needed::mark(repository, &mut table, trees, roots, progress).await?;
    table.settle()?;
    let fates = choose(&table.packs, now, options);
    let is_over = |since: Timestamp| now.duration_since(since) >= options.grace;
    let mut figures = PruneFigures {
        snapshots,
        ..PruneFigures::default()
    };
    let mut orphans = Vec::new();
    for (id, size, modified) in stray {
        // Whose age is not known is not old.
        if modified.is_some_and(is_over) {
            figures.deleted.add(size);
            orphans.push((id, size));
        } else {
            figures.unindexed.add(size);
        }
    }
    for (pack, fate) in table.packs.iter().zip(&fates) {
        let size = pack.size.unwrap_or(0);
        match fate {
            Fate::Keep => figures.kept.add(size),
            Fate::Recover => figures.recovered.add(size),
            Fate::Repack => {
                figures.repacked.add(size);
                figures.rewritten += pack.kept_bytes;
            }
            Fate::Mark => figures.marked.add(size),
            Fate::Wait(_) => figures.waiting.add(size),
            Fate::Delete => figures.deleted.add(size),
            Fate::Drop => figures.missing += 1,
        }
        if matches!(fate, Fate::Keep | Fate::Recover) {
            figures.unused += pack.unused_bytes();
        }
    }
    figures.index_files = table.changed_files(&fates).iter().filter(|changed| **changed).count() as u64;
    Ok(Looked {
        table,
        fates,
        orphans,
        now,
        no_grace: options.grace <= SignedDuration::ZERO,
        figures,
    })
}

/// A pack that is damaged in this way.
fn bad_pack(id: Id, damage: Damage) -> Error {
    Error::damaged(FileKind::Pack.object(id), damage)
}

/// A blob that a snapshot needs and that is nowhere.
fn lost(object: Object) -> Error {
    Error::damaged(object, Damage::Missing)
}
