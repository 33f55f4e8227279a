//! Which blobs snapshots need, found by reading their directories, each once.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};

use crate::error::{Damage, Error};
use crate::progress::Progress;
use crate::repo::{BlobKind, Id, NodeKind, Reader, Tree};
use crate::restore::DamagedFile;
use crate::snapshots::shown_below;
use crate::transfer::BlobName;

/// So many directories are read at once.
const AT_ONCE: usize = 8;

/// A walk through the snapshots of a source, for a target that has some of it.
pub(super) struct Walk<'a> {
    source: &'a Reader,
    target: &'a Reader,
    progress: &'a dyn Progress,
    /// Trees that are whole, with everything under them.
    seen: HashSet<Id>,
    /// Blobs that some snapshot of the plan needs.
    needed: HashSet<BlobName>,
}

/// What one snapshot needs beyond the earlier ones.
#[derive(Default)]
pub(super) struct Found {
    pub(super) needs: Vec<BlobName>,
    pub(super) damaged: Vec<DamagedFile>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a Reader, target: &'a Reader, progress: &'a dyn Progress) -> Self {
        Self {
            source,
            target,
            progress,
            seen: HashSet::new(),
            needed: HashSet::new(),
        }
    }

    /// Walks through one snapshot. If something of it cannot be read, nothing of it counts as needed.
    pub(super) async fn snapshot(&mut self, root: Id) -> Result<Found, Error> {
        let (mut found, mut trees) = (Found::default(), Vec::new());
        let mut open = vec![(root, PathBuf::new())];
        while !open.is_empty() {
            let next = open.split_off(open.len().saturating_sub(AT_ONCE));
            let fresh: Vec<_> = next.into_iter().filter(|(id, _)| self.seen.insert(*id)).collect();
            trees.extend(fresh.iter().map(|(id, _)| *id));
            let reading = stream::iter(fresh).map(|(id, path)| {
                let tree = self.tree(id);
                async move { (id, path, tree.await) }
            });
            let read: Vec<_> = reading.buffered(AT_ONCE).collect().await;
            for (id, path, tree) in read {
                match tree {
                    Ok(tree) => {
                        let _ = self.need((BlobKind::Tree, id), &path, &mut found);
                        self.look_into(&tree, &path, &mut found, &mut open);
                    }
                    Err(error @ Error::Damaged { .. }) => found.damage(&path, &error),
                    Err(error) => return Err(error),
                }
            }
        }
        if !found.damaged.is_empty() {
            for id in trees {
                self.seen.remove(&id);
            }
            for blob in found.needs.drain(..) {
                self.needed.remove(&blob);
            }
        }
        Ok(found)
    }

    /// A directory, from the target if the source's is damaged.
    async fn tree(&self, id: Id) -> Result<Tree, Error> {
        let tree = self.source.tree(&id).await;
        self.progress.file_done();
        match tree {
            Err(Error::Damaged { .. }) if self.target.index().contains(BlobKind::Tree, &id) => {
                self.target.tree(&id).await
            }
            tree => tree,
        }
    }

    fn look_into(&mut self, tree: &Tree, path: &Path, found: &mut Found, open: &mut Vec<(Id, PathBuf)>) {
        for node in &tree.nodes {
            let path = shown_below(path, &node.name);
            match (node.kind, node.subtree) {
                (NodeKind::Dir, Some(subtree)) if !self.seen.contains(&subtree) => open.push((subtree, path.clone())),
                (NodeKind::Dir, None) => found.malformed(&path),
                (NodeKind::File, _) if node.content.is_none() => found.malformed(&path),
                _ => {}
            }
            // The first blob that is missing says enough of a file.
            let mut blobs = node.content.iter().flatten();
            let _ = blobs.try_for_each(|id| self.need((BlobKind::Data, *id), &path, found));
        }
    }

    fn need(&mut self, (kind, id): BlobName, path: &Path, found: &mut Found) -> Result<(), ()> {
        if self.target.index().contains(kind, &id) {
            return Ok(());
        }
        if !self.source.index().contains(kind, &id) {
            found.damage(path, &Error::damaged(kind.object(id), Damage::Missing));
            return Err(());
        }
        if self.needed.insert((kind, id)) {
            found.needs.push((kind, id));
        }
        Ok(())
    }
}

impl Found {
    fn damage(&mut self, path: &Path, error: &Error) {
        self.damaged.push(DamagedFile {
            path: path.to_owned(),
            reason: error.to_string(),
        });
    }

    fn malformed(&mut self, path: &Path) {
        self.damaged.push(DamagedFile {
            path: path.to_owned(),
            reason: Damage::Malformed.to_string(),
        });
    }
}

/// What of a snapshot is among the blobs that could not be read.
pub(super) async fn touched(
    source: &Reader,
    target: &Reader,
    root: Id,
    lost: &HashMap<BlobName, Damage>,
) -> Result<Vec<DamagedFile>, Error> {
    let (mut found, mut seen) = (Found::default(), HashSet::new());
    let mut open = vec![(root, PathBuf::new())];
    while let Some((id, path)) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let tree = match source.tree(&id).await {
            // What the source lost the target may have.
            Err(Error::Damaged { .. }) => target.tree(&id).await,
            tree => tree,
        };
        let tree = match tree {
            Ok(_) if lost.contains_key(&(BlobKind::Tree, id)) => {
                found.damage(&path, &Error::damaged(BlobKind::Tree.object(id), Damage::Missing));
                continue;
            }
            Err(error @ Error::Damaged { .. }) => {
                found.damage(&path, &error);
                continue;
            }
            tree => tree?,
        };
        for node in tree.nodes {
            let path = shown_below(&path, &node.name);
            open.extend(node.subtree.map(|subtree| (subtree, path.clone())));
            let mut blobs = node.content.iter().flatten();
            let first = blobs.find_map(|id| Some((id, lost.get(&(BlobKind::Data, *id))?)));
            if let Some((id, damage)) = first {
                found.damage(&path, &Error::damaged(BlobKind::Data.object(*id), *damage));
            }
        }
    }
    Ok(found.damaged)
}
