//! The structure: key files, indexes, packs by name and size, snapshots; what they lead to is in `trees`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use futures::{StreamExt, stream};
use jiff::Timestamp;

use super::trees::Trees;
use super::{CheckReport, Finding, Problem, Severity};
use crate::error::{Damage, Error, Object};
use crate::progress::Progress;
use crate::repo::index::Index;
use crate::repo::layout::FileKind;
use crate::repo::pack::{PackedBlob, expected_size};
use crate::repo::{BlobKind, Id, Reader, Repository, read_within};

/// What the indexes and the store say of packs.
pub(super) struct Catalogue {
    /// From the indexes: each pack's blobs.
    pub(super) indexed: HashMap<Id, Vec<PackedBlob>>,
    /// From the store: each pack's size.
    pub(super) present: HashMap<Id, u64>,
    /// From the indexes: packs that a prune will delete, and when they were marked.
    marked: HashMap<Id, Option<Timestamp>>,
    pub(super) reader: Reader,
}

/// What is known of where a blob lies.
pub(super) enum Held {
    /// In a pack that stays.
    Stays,
    /// In a pack that is marked to be deleted, and nowhere else.
    Marked(Id, Option<Timestamp>),
    /// In no pack that is there.
    Lost,
}

impl Catalogue {
    /// Where a blob lies.
    pub(super) fn held(&self, kind: BlobKind, id: &Id) -> Held {
        let mut held = Held::Lost;
        let copies = self.reader.index().find(kind, id).map(|location| location.pack);
        for pack in copies.filter(|pack| self.present.contains_key(pack)) {
            match self.marked.get(&pack) {
                Some(since) if !self.indexed.contains_key(&pack) => held = Held::Marked(pack, *since),
                _ => return Held::Stays,
            }
        }
        held
    }
}

/// Key files are named after their content.
pub(super) async fn keys(repository: &Repository, report: &mut CheckReport) -> Result<(), Error> {
    for (id, _) in repository.list(FileKind::Key).await? {
        let (key, limit) = (FileKind::Key.key(&id), FileKind::Key.limit());
        match read_within(&*repository.store(), &key, limit).await {
            // Taken away since it was listed.
            Err(error) if error.is_not_found() => {}
            bytes => match bytes? {
                None => report.damaged(Object::Key(id), Damage::WrongSize),
                Some(bytes) if Id::of(&bytes) != id => report.damaged(Object::Key(id), Damage::WrongHash),
                Some(_) => {}
            },
        }
    }
    Ok(())
}

/// Reads every index file, the damaged ones apart.
pub(super) async fn indexes(repository: &Repository, report: &mut CheckReport) -> Result<Catalogue, Error> {
    let mut index = Index::default();
    let mut indexed: HashMap<Id, Vec<PackedBlob>> = HashMap::new();
    let mut marked = HashMap::new();
    let files = repository.list(FileKind::Index).await?;
    let mut loading = stream::iter(files)
        .map(|(id, _)| async move { (id, repository.load_index_file(&id).await) })
        .buffered(8);
    while let Some((id, loaded)) = loading.next().await {
        let file = match loaded {
            Ok(file) => file,
            Err(Error::Damaged { object, damage }) => {
                report.damaged(object, damage);
                continue;
            }
            Err(error) => return Err(error),
        };
        index.add_file(id, &file);
        for pack in &file.packs {
            let known = indexed.entry(pack.id).or_default();
            if !known.is_empty() {
                report.add(Severity::Note, Object::Pack(pack.id), Problem::InSeveralIndexes);
            }
            known.extend(pack.blobs());
        }
        for pack in &file.packs_to_delete {
            let since: &mut Option<Timestamp> = marked.entry(pack.id).or_default();
            *since = (*since).max(pack.time);
        }
    }
    for blobs in indexed.values_mut() {
        blobs.sort_unstable_by_key(|blob| (blob.offset, blob.kind, blob.id, blob.length, blob.uncompressed));
        blobs.dedup();
    }
    let present = repository.list(FileKind::Pack).await?.into_iter().collect();
    Ok(Catalogue {
        indexed,
        present,
        marked,
        reader: repository.reader_with(index),
    })
}

/// Compares what the indexes name with what is there.
pub(super) fn packs(catalogue: &Catalogue, report: &mut CheckReport) {
    report.packs = catalogue.present.len() as u64;
    for (id, blobs) in &catalogue.indexed {
        match catalogue.present.get(id) {
            None => report.damaged(Object::Pack(*id), Damage::Missing),
            Some(size) if *size != expected_size(blobs) => report.damaged(Object::Pack(*id), Damage::WrongSize),
            Some(_) => {}
        }
    }
    for (kind, id) in catalogue.reader.index().duplicates() {
        report.add(Severity::Note, kind.object(id), Problem::SeveralCopies);
    }
    for id in catalogue
        .present
        .keys()
        .filter(|id| !catalogue.indexed.contains_key(id))
    {
        let problem = if catalogue.marked.contains_key(id) {
            Problem::ToBeDeleted
        } else {
            Problem::Orphan
        };
        report.add(Severity::Note, Object::Pack(*id), problem);
    }
}

/// Reads every snapshot and every tree that one of them leads to.
pub(super) async fn snapshots(
    repository: &Repository,
    catalogue: &Catalogue,
    report: &mut CheckReport,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut trees = Trees::new(catalogue);
    let mut affected: HashMap<(Object, Problem), (PathBuf, Vec<Id>)> = HashMap::new();
    for (id, _) in repository.list(FileKind::Snapshot).await? {
        let snapshot = match repository.snapshot(&id).await {
            Ok(snapshot) => snapshot,
            Err(Error::Damaged { object, damage }) => {
                report.damaged(object, damage);
                continue;
            }
            Err(error) => return Err(error),
        };
        report.snapshots += 1;
        for (problem, path) in trees.problems(snapshot.tree, progress).await? {
            affected.entry(problem).or_insert((path, Vec::new())).1.push(id);
        }
    }
    report.trees = trees.count();
    let mut needed_again = HashSet::new();
    for ((object, problem), (path, snapshots)) in affected {
        let severity = if let Problem::NeededAgain { .. } = problem {
            needed_again.insert(object);
            Severity::Warning
        } else {
            Severity::Error
        };
        report.findings.push(Finding {
            severity,
            object,
            problem,
            snapshots,
            path: Some(path),
        });
    }
    // Those will not be deleted after all.
    report
        .findings
        .retain(|finding| finding.problem != Problem::ToBeDeleted || !needed_again.contains(&finding.object));
    Ok(())
}
