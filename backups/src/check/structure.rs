//! The structure: key files, indexes, packs by name and size, snapshots and their trees.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use futures::{StreamExt, stream};

use super::{CheckReport, Finding, Problem, Severity};
use crate::error::{Damage, Error, Object};
use crate::progress::Progress;
use crate::repo::index::Index;
use crate::repo::layout::FileKind;
use crate::repo::pack::{PackedBlob, expected_size};
use crate::repo::{BlobKind, Id, NodeKind, Reader, Repository, Tree, read_within};

/// No path is shown with more bytes than a system takes.
const SHOWN: usize = 4096;

/// What the indexes and the store say of packs.
pub(super) struct Catalogue {
    /// From the indexes: each pack's blobs.
    pub(super) indexed: HashMap<Id, Vec<PackedBlob>>,
    /// From the store: each pack's size.
    pub(super) present: HashMap<Id, u64>,
    /// From the indexes: packs that a prune will delete.
    marked: HashSet<Id>,
    reader: Reader,
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
    let mut marked = HashSet::new();
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
        marked.extend(file.packs_to_delete.iter().map(|pack| pack.id));
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
        let problem = if catalogue.marked.contains(id) {
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
    let lost = |kind: BlobKind, id: &Id| {
        let mut copies = catalogue.reader.index().find(kind, id);
        !copies.any(|location| catalogue.present.contains_key(&location.pack))
    };
    let mut trees = Trees {
        reader: &catalogue.reader,
        seen: HashMap::new(),
    };
    let mut affected: HashMap<(Object, Damage), (PathBuf, Vec<Id>)> = HashMap::new();
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
        for (problem, path) in trees.problems(snapshot.tree, &lost, progress).await? {
            affected.entry(problem).or_insert((path, Vec::new())).1.push(id);
        }
    }
    report.trees = trees.seen.len() as u64;
    for ((object, damage), (path, snapshots)) in affected {
        let (severity, problem) = (Severity::Error, Problem::Damaged(damage));
        report.findings.push(Finding {
            severity,
            object,
            problem,
            snapshots,
            path: Some(path),
        });
    }
    Ok(())
}

/// What one tree is found to be, without what lies under it.
struct Seen {
    subtrees: Vec<(OsString, Id)>,
    problems: Vec<Found>,
}

/// A problem of a tree, and the name in it that the problem is reached by; empty for the tree itself.
struct Found {
    problem: (Object, Damage),
    name: OsString,
}

/// The trees that were read; each is read once.
struct Trees<'a> {
    reader: &'a Reader,
    seen: HashMap<Id, Seen>,
}

/// How a snapshot reaches its trees: each through a subtree, by number, of another; the root through none.
type Ways = HashMap<Id, Option<(Id, usize)>>;

impl Trees<'_> {
    /// Every problem at or under a tree, with a path that leads to it. No tree is visited twice for one snapshot, however
    /// trees refer to each other.
    async fn problems(
        &mut self,
        root: Id,
        lost: &impl Fn(BlobKind, &Id) -> bool,
        progress: &dyn Progress,
    ) -> Result<HashMap<(Object, Damage), PathBuf>, Error> {
        let (mut ways, mut found) = (Ways::new(), HashMap::new());
        let mut open = vec![(root, None)];
        while let Some((id, way)) = open.pop() {
            if ways.contains_key(&id) {
                continue;
            }
            ways.insert(id, way);
            if !self.seen.contains_key(&id) {
                let seen = match self.reader.tree(&id).await {
                    Ok(tree) => look_at(id, &tree, lost),
                    Err(Error::Damaged { object, damage }) => Seen {
                        subtrees: Vec::new(),
                        problems: vec![Found {
                            problem: (object, damage),
                            name: OsString::new(),
                        }],
                    },
                    Err(error) => return Err(error),
                };
                progress.file_done();
                self.seen.insert(id, seen);
            }
            let Some(seen) = self.seen.get(&id) else { continue };
            let subtrees = seen.subtrees.iter().enumerate();
            open.extend(subtrees.map(|(number, (_, subtree))| (*subtree, Some((id, number)))));
            for Found { problem, name } in &seen.problems {
                let path = || self.path(&ways, id, name);
                found.entry(*problem).or_insert_with(path);
            }
        }
        Ok(found)
    }

    /// The path of what a tree calls `name`.
    fn path(&self, ways: &Ways, tree: Id, name: &OsStr) -> PathBuf {
        let (mut names, mut at, mut room) = (vec![name], tree, SHOWN);
        while let Some(Some((parent, number))) = ways.get(&at) {
            if let Some((name, _)) = self.seen.get(parent).and_then(|seen| seen.subtrees.get(*number)) {
                names.push(name);
                room = room.saturating_sub(name.len() + 1);
            }
            if room == 0 {
                names.push(OsStr::new("…"));
                break;
            }
            at = *parent;
        }
        names.into_iter().rev().filter(|name| !name.is_empty()).collect()
    }
}

/// Judges one tree by itself.
fn look_at(id: Id, tree: &Tree, lost: &impl Fn(BlobKind, &Id) -> bool) -> Seen {
    let (mut subtrees, mut problems) = (Vec::new(), Vec::new());
    let mut names = HashSet::new();
    for node in &tree.nodes {
        let complete = match node.kind {
            NodeKind::Dir => node.subtree.is_some(),
            NodeKind::File => node.content.is_some(),
            // It can be restored by nobody who does not know it either; restic says the same.
            NodeKind::Unknown => false,
            _ => true,
        };
        if !complete || !node.has_safe_name() || !names.insert(&node.name) {
            problems.push(Found {
                problem: (Object::tree(id), Damage::Malformed),
                name: OsString::new(),
            });
        }
        // A path that is shown never leads elsewhere.
        let name = || {
            let safe = node.has_safe_name().then(|| node.name.clone());
            safe.unwrap_or_else(|| OsString::from("?"))
        };
        if node.kind == NodeKind::Dir {
            subtrees.extend(node.subtree.map(|subtree| (name(), subtree)));
        }
        let missing = node.content.iter().flatten().filter(|blob| lost(BlobKind::Data, blob));
        problems.extend(missing.map(|blob| Found {
            problem: (Object::DataBlob(*blob), Damage::Missing),
            name: name(),
        }));
    }
    Seen { subtrees, problems }
}
