//! Copies snapshots, and the data that they need, from one repository into another: another store, key, password. Blobs
//! that are there already are not sent; a snapshot appears last, once all its data is durable. What is cut off is taken
//! up again by the next copy.
//!
//! A copy says in `original` which snapshot it is of, and whether one is a copy of another is decided as restic decides
//! it (`cmd/restic/cmd_copy.go`), so that both tools can be used on the same pair.

mod walk;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::{Damage, Error};
use crate::progress::{Phase, Progress};
use crate::repo::layout::FileKind;
use crate::repo::{Id, Lock, LockMode, Repository, Snapshot, Writer};
use crate::restore::DamagedFile;
use crate::snapshots::{self, SnapshotFilter, SnapshotRecord};
use crate::transfer::{BlobName, packed_length, transfer};
use walk::Walk;

/// Snapshots are concluded whenever so many bytes were sent for them, so that a copy that is cut off has something to
/// show.
const BATCH: u64 = 1 << 30;

/// Which snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// These; empty means all that fit the rest.
    pub ids: Vec<Id>,
    /// What they must fit.
    pub filter: SnapshotFilter,
    /// Labels of which they must have at least one; empty means any.
    pub any_tag: Vec<String>,
    /// Of those that fit, only the latest of each host and paths.
    pub latest: bool,
}

/// What would be copied.
#[derive(Debug)]
pub struct Plan {
    /// Snapshots to copy, oldest first.
    pub snapshots: Vec<Planned>,
    /// Snapshots that are there already: ours, and the copy's name there.
    pub present: Vec<(Id, Id)>,
    /// Snapshots that cannot be copied, because something that they need cannot be read.
    pub damaged: Vec<DamagedSnapshot>,
    /// Both repositories cut content alike; see [`Repository::chunks_like`].
    pub same_chunks: bool,
    /// The index files that the plan rests on. Files that are gone took packs with them.
    rests_on: [HashSet<Id>; 2],
}

/// One snapshot to copy.
#[derive(Debug)]
pub struct Planned {
    /// Its name in the source.
    pub id: Id,
    /// What it says.
    pub snapshot: Snapshot,
    /// How many blobs are sent for it that earlier ones of the plan do not need.
    pub blobs: u64,
    /// How many bytes those have in the source's packs.
    pub bytes: u64,
    needs: Vec<BlobName>,
}

/// A snapshot that is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedSnapshot {
    /// Its name in the source.
    pub id: Id,
    /// What of it cannot be read; an empty path is the snapshot itself, or its root.
    pub damaged: Vec<DamagedFile>,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Snapshots: the source's name and the copy's.
    pub copied: Vec<(Id, Id)>,
    /// Snapshots that were there already, in the same way.
    pub present: Vec<(Id, Id)>,
    /// Snapshots that were not copied.
    pub damaged: Vec<DamagedSnapshot>,
    /// Blobs stored.
    pub blobs: u64,
    /// Bytes stored, as they lie in the packs.
    pub bytes: u64,
}

impl Report {
    /// Something that was wanted is not there.
    pub fn is_partial(&self) -> bool {
        !self.damaged.is_empty()
    }
}

/// Plans and applies: what a schedule calls.
pub async fn copy(
    from: &Repository,
    to: &Repository,
    selection: &Selection,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Report, Error> {
    let plan = Box::pin(plan(from, to, selection, progress, cancel)).await?;
    Box::pin(apply(from, to, plan, progress, cancel)).await
}

/// Finds out what has to be sent. Reads every directory of the snapshots that are not there yet, and changes nothing.
pub async fn plan(
    from: &Repository,
    to: &Repository,
    selection: &Selection,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Plan, Error> {
    let work = Box::pin(planned(from, to, selection, progress));
    let work = Box::pin(Lock::while_reading(to, cancel, work));
    Lock::while_reading(from, cancel, work).await
}

async fn planned(
    from: &Repository,
    to: &Repository,
    selection: &Selection,
    progress: &dyn Progress,
) -> Result<Plan, Error> {
    if to.version() == 1 {
        return Err(Error::ReadOnlyVersion);
    }
    progress.phase(Phase::CheckingStructure, None, None);
    let (wanted, mut damaged) = select(from, selection).await?;
    let copies = Copies::load(to).await?;
    let (source, target) = (from.reader().await?, to.reader().await?);
    let mut plan = Plan {
        snapshots: Vec::new(),
        present: Vec::new(),
        damaged: Vec::new(),
        same_chunks: from.chunks_like(to),
        rests_on: [source.index().files().clone(), target.index().files().clone()],
    };
    let mut walk = Walk::new(&source, &target, progress);
    for SnapshotRecord { id, snapshot } in wanted {
        if let Some(copy) = copies.of(&id, &snapshot) {
            plan.present.push((id, copy));
            continue;
        }
        let found = walk.snapshot(snapshot.tree).await?;
        if !found.damaged.is_empty() {
            damaged.push(DamagedSnapshot {
                id,
                damaged: found.damaged,
            });
            continue;
        }
        plan.snapshots.push(Planned {
            id,
            snapshot,
            blobs: found.needs.len() as u64,
            bytes: packed_length(&source, &found.needs),
            needs: found.needs,
        });
    }
    plan.damaged = damaged;
    Ok(plan)
}

/// Sends what the plan says. Fails with [`Error::PlanOutdated`], and changes nothing, if data that the plan rests on was
/// taken away meanwhile. After any error what was sent stays, and the next copy goes on from there.
pub async fn apply(
    from: &Repository,
    to: &Repository,
    plan: Plan,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Report, Error> {
    let work = async {
        let lock = Lock::acquire(to, LockMode::Shared, clock::now()).await?;
        let outcome = Box::pin(applied(from, to, plan, &lock, progress, cancel)).await;
        lock.release().await;
        outcome
    };
    Lock::while_reading(from, cancel, work).await
}

async fn applied(
    from: &Repository,
    to: &Repository,
    plan: Plan,
    lock: &Lock,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Report, Error> {
    let source = from.reader().await?;
    for (repository, then) in [from, to].into_iter().zip(&plan.rests_on) {
        let now = repository.load_index().await?;
        if !then.is_subset(now.files()) {
            return Err(Error::PlanOutdated {
                location: repository.location(),
            });
        }
    }
    let mut report = Report {
        present: plan.present,
        damaged: plan.damaged,
        ..Report::default()
    };
    let expected = plan.snapshots.iter().map(|planned| planned.bytes).sum();
    progress.phase(Phase::Transferring, Some(expected), None);
    let mut lost: HashMap<BlobName, Damage> = HashMap::new();
    let mut waiting = plan.snapshots.into_iter().peekable();
    while waiting.peek().is_some() {
        let (mut batch, mut needs, mut size) = (Vec::new(), Vec::new(), 0);
        while let Some(mut planned) = waiting.next_if(|next| batch.is_empty() || size + next.bytes <= BATCH) {
            size += planned.bytes;
            needs.append(&mut planned.needs);
            batch.push(planned.id);
        }
        let writer = Writer::new(to, None, progress, cancel).await?;
        lost.extend(transfer(&source, needs, &writer, progress).await?);
        let stored = writer.finish().await?;
        report.blobs += (stored.data_blobs + stored.tree_blobs).cast_unsigned();
        report.bytes += stored.data_added_packed;
        for id in batch {
            lock.still_held()?;
            let damaged = if lost.is_empty() {
                Vec::new()
            } else {
                let tree = from.snapshot(&id).await?.tree;
                walk::touched(&source, &to.reader().await?, tree, &lost).await?
            };
            if damaged.is_empty() {
                report.copied.push((id, save(from, to, &id).await?));
            } else {
                report.damaged.push(DamagedSnapshot { id, damaged });
            }
        }
    }
    Ok(report)
}

/// Writes the copy of a snapshot. It is taken over as it is, with fields that we do not know; the parent means nothing
/// there.
async fn save(from: &Repository, to: &Repository, id: &Id) -> Result<Id, Error> {
    let mut json = from.snapshot_json(id).await?;
    json.remove("parent");
    if json.get("original").is_none_or(serde_json::Value::is_null) {
        json.insert("original".to_owned(), id.to_string().into());
    }
    to.save_file(FileKind::Snapshot, &json).await
}

/// The snapshots that are wanted, oldest first, and those that cannot be read.
async fn select(
    from: &Repository,
    selection: &Selection,
) -> Result<(Vec<SnapshotRecord>, Vec<DamagedSnapshot>), Error> {
    let list = snapshots::list(from, &selection.filter).await?;
    let named = |id: &Id| selection.ids.is_empty() || selection.ids.contains(id);
    let tagged = |snapshot: &Snapshot| {
        selection.any_tag.is_empty() || snapshot.tags.iter().any(|tag| selection.any_tag.contains(tag))
    };
    let mut wanted = list.snapshots;
    wanted.retain(|record| named(&record.id) && tagged(&record.snapshot));
    if selection.latest {
        let mut seen = HashSet::new();
        wanted.reverse();
        wanted
            .retain(|SnapshotRecord { snapshot, .. }| seen.insert((snapshot.hostname.clone(), snapshot.paths.clone())));
        wanted.reverse();
    }
    let damaged = list.damaged.iter().filter(|(id, _)| named(id));
    let damaged = damaged.map(|(id, damage)| DamagedSnapshot {
        id: *id,
        damaged: vec![DamagedFile {
            path: PathBuf::new(),
            reason: Error::damaged(FileKind::Snapshot.object(*id), *damage).to_string(),
        }],
    });
    Ok((wanted, damaged.collect()))
}

/// The snapshots of the destination, by what they are and by what they are copies of.
pub(crate) struct Copies {
    by_name: HashMap<Id, Vec<SnapshotRecord>>,
}

impl Copies {
    pub(crate) async fn load(repository: &Repository) -> Result<Self, Error> {
        let mut by_name: HashMap<Id, Vec<SnapshotRecord>> = HashMap::new();
        for record in snapshots::list(repository, &SnapshotFilter::default()).await?.snapshots {
            for name in record.snapshot.original.into_iter().chain([record.id]) {
                by_name.entry(name).or_default().push(record.clone());
            }
        }
        Ok(Self { by_name })
    }

    /// The copy of a snapshot that cannot be read: by name alone, and none from which a repair left something out.
    pub(crate) fn of_unreadable(&self, id: &Id) -> Option<&SnapshotRecord> {
        let mut named = self.named(id).iter();
        named.find(|record| record.id == *id || !record.snapshot.tags.iter().any(|tag| tag == crate::repair::REPAIRED))
    }

    /// Snapshots that say that they are this one, or copies of it.
    fn named(&self, id: &Id) -> &[SnapshotRecord] {
        self.by_name.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The copy of a snapshot: named so, and the same in all that makes a snapshot.
    fn of(&self, id: &Id, snapshot: &Snapshot) -> Option<Id> {
        let named = self.named(&snapshot.original.unwrap_or(*id));
        named
            .iter()
            .find(|record| are_similar(&record.snapshot, snapshot))
            .map(|record| record.id)
    }
}

/// Restic's `similarSnapshots`: everything but parent and original.
fn are_similar(a: &Snapshot, b: &Snapshot) -> bool {
    let has_all = |of: &[String], those: &[String]| of.len() == those.len() && those.iter().all(|one| of.contains(one));
    a.time == b.time
        && a.tree == b.tree
        && (&a.hostname, &a.username, a.uid, a.gid) == (&b.hostname, &b.username, b.uid, b.gid)
        && a.excludes == b.excludes
        && has_all(&a.paths, &b.paths)
        && has_all(&a.tags, &b.tags)
}
