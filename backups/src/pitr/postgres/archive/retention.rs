//! Which log serves no restore any more. Pure, but for [`sweep`], which asks and deletes.
//!
//! Every way through the log begins at a base backup and only ever goes on. So what lies before the segment in which the
//! oldest kept base begins is read by nobody. Log of a timeline that is newer than every base stays, whatever its
//! position: a base backup of it may be about to be taken. A cluster without any kept base keeps all of its log.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use replication::{Lsn, Segment, SegmentSize, SystemId, Timeline};

use super::file::File;
use super::{Archive, ArchiveError, KIND, place};
use crate::error::Error;
use crate::pitr::Datastore;
use crate::repo::layout::FileKind;
use crate::repo::{Id, NodeKind, Repository};
use crate::source::MANIFEST;
use crate::source::postgres::base::{DATA, read_base};
use crate::store::{Store, StoreError, StoreKey, list_all};

/// A base backup that is kept: where a restore may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBase {
    /// The cluster.
    pub system: SystemId,
    /// The timeline that it began on.
    pub timeline: Timeline,
    /// Where recovery begins to read.
    pub start: Lsn,
}

/// The files of one cluster that serve no restore any more: log that no kept base leads to, the beginnings of segments
/// of which more is held, and standing records that others have overtaken. In an order in which they can be deleted one
/// by one: what is left at any time still has no hole.
pub fn unneeded(files: &[File], size: SegmentSize, bases: &[KeptBase]) -> Vec<File> {
    let first = |base: &KeptBase| Segment::containing(base.timeline, base.start, size).number;
    let oldest = bases.iter().map(first).min();
    let newest = bases.iter().map(|base| base.timeline).max();
    let is_before = |segment: &Segment| {
        let before = oldest.is_some_and(|oldest| segment.number < oldest);
        before && newest.is_some_and(|newest| segment.timeline <= newest)
    };
    let whole: BTreeSet<Segment> = files.iter().filter_map(segment_of).collect();
    let mut furthest = BTreeMap::<Segment, Lsn>::new();
    let mut standing = BTreeMap::new();
    for file in files {
        match file {
            File::Partial { segment, until } => {
                let known = furthest.entry(*segment).or_insert(*until);
                *known = *until.max(known);
            }
            File::Standing(record) => {
                let known = standing.entry(record.timeline).or_insert(*record);
                if place(known) < place(record) {
                    *known = *record;
                }
            }
            _ => {}
        }
    }
    let is_unneeded = |file: &&File| match file {
        File::Segment(segment) => is_before(segment),
        File::Partial { segment, until } => {
            let more = furthest.get(segment).is_some_and(|furthest| until < furthest);
            more || whole.contains(segment) || is_before(segment)
        }
        File::Standing(record) => standing.get(&record.timeline) != Some(record),
        // They are small, and tell of the past.
        File::History(_) | File::Gap(_) => false,
    };
    let mut gone: Vec<File> = files.iter().filter(is_unneeded).copied().collect();
    gone.sort_by_key(|file| match file {
        File::Segment(segment) | File::Partial { segment, .. } => (segment.number, segment.timeline),
        _ => (0, Timeline(0)),
    });
    gone
}

fn segment_of(file: &File) -> Option<Segment> {
    match file {
        File::Segment(segment) => Some(*segment),
        _ => None,
    }
}

/// Whether a repository holds no log of any datastore.
pub(crate) async fn is_empty(repository: &Repository) -> Result<bool, Error> {
    let page = repository.store().list(&format!("{KIND}/"), None, 1).await?;
    Ok(page.entries.is_empty() && page.next.is_none())
}

/// Every base backup of the repository. None at all where one of them cannot be read: then nobody knows where its log
/// begins, and all log is kept.
///
/// # Errors
/// The store's.
pub async fn kept_bases(repository: &Repository) -> Result<Vec<KeptBase>, Error> {
    let mut bases = Vec::new();
    for (id, _) in repository.list(FileKind::Snapshot).await? {
        match kept_base(repository, &id).await {
            Ok(Some(base)) => bases.push(base),
            Ok(None) => {}
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, snapshot = %id, "no archived log is deleted: this may be a base backup");
                return Ok(Vec::new());
            }
        }
    }
    Ok(bases)
}

async fn kept_base(repository: &Repository, id: &Id) -> Result<Option<KeptBase>, Error> {
    let snapshot = repository.snapshot(id).await?;
    match read_base(repository, id).await {
        Ok(base) => Ok(Some(KeptBase {
            system: base.system,
            timeline: base.timeline,
            start: base.start,
        })),
        // Of a later version, perhaps: what looks like one counts as one.
        Err(error @ Error::Cluster(_)) => {
            let root = repository.reader().await?.tree(&snapshot.tree).await?;
            let has = |name: &str, kind| root.find(name.as_ref()).is_some_and(|node| node.kind == kind);
            let alike = has(DATA, NodeKind::Dir) && has(MANIFEST, NodeKind::File);
            if alike { Err(error) } else { Ok(None) }
        }
        Err(error) => Err(error),
    }
}

async fn delete(store: &dyn Store, key: StoreKey) -> Result<(), StoreError> {
    store.delete(&key).await
}

/// Deletes what serves no restore any more, of every datastore; returns how many objects. `bases` are all base backups
/// that are kept in this repository: whoever leaves one out deletes its log. Belongs beside a prune, under its lock: who
/// may only write cannot do it, and a base backup that is being taken must not be overlooked.
///
/// # Errors
/// The store's. Log that cannot be understood is left alone.
pub async fn sweep(repository: &Repository, bases: &[KeptBase]) -> Result<u64, Error> {
    let store = repository.store();
    let mut names = BTreeSet::new();
    for entry in list_all(&*store, &format!("{KIND}/")).await? {
        names.extend(entry.key.as_str().split('/').nth(1).map(str::to_owned));
    }
    let mut deleted = 0;
    for name in names {
        let archive = Archive::new(repository, Datastore::new(name)?);
        let listings = match archive.listings().await {
            Ok(listings) => listings,
            Err(ArchiveError::Repository(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, datastore = %archive.datastore, "the archived log is not understood, and kept");
                continue;
            }
        };
        for listing in listings {
            let bases: Vec<_> = bases
                .iter()
                .filter(|base| base.system == listing.system)
                .copied()
                .collect();
            let files: Vec<File> = listing.files.iter().map(|(file, _)| *file).collect();
            let gone = unneeded(&files, listing.size, &bases);
            let keys: Result<Vec<_>, _> = gone
                .iter()
                .map(|file| archive.key(listing.system, &file.name(listing.size)))
                .collect();
            let Ok(keys) = keys else { continue };
            deleted += keys.len() as u64;
            let deleting = stream::iter(keys).map(|key| delete(&*store, key)).boxed();
            deleting.buffered(store.transfers()).try_collect::<()>().await?;
        }
    }
    Ok(deleted)
}
