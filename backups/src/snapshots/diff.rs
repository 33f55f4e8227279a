//! What differs between two snapshots: items, and what the difference costs in the repository. Directories that are equal
//! are opened only to find out that a blob which seems new (or gone) is in them, too.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Damage, Error, Object};
use crate::repo::{BlobKind, Id, Node, NodeKind, Reader, Repository, Snapshot, Tree};

use super::{MAX_DEPTH, Room};

/// One difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path inside the snapshots.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Whether it is (or was) a directory.
    pub is_directory: bool,
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
    /// Only its mode, owner, time or extended attributes differ.
    Metadata,
    /// It became something else (a file a directory).
    Type,
}

/// What differs between two snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the order of paths. What lies in a directory that was added or removed is listed with it.
    pub changes: Vec<Change>,
    /// Files whose content differs.
    pub changed_files: u64,
    /// What is only in the second.
    pub added: Totals,
    /// What is only in the first.
    pub removed: Totals,
}

/// What one of two snapshots has and the other has not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, devices, pipes, sockets.
    pub others: u64,
    /// Blobs of content.
    pub data_blobs: u64,
    /// Blobs of directories.
    pub tree_blobs: u64,
    /// Bytes of these blobs, before compression.
    pub bytes: u64,
}

/// Compares two snapshots.
pub async fn diff(repository: &Repository, before: &Snapshot, after: &Snapshot) -> Result<Difference, Error> {
    let reader = repository.reader().await?;
    let mut comparison = Comparison {
        reader,
        difference: Difference::default(),
        before: HashSet::new(),
        after: HashSet::new(),
        equal: Vec::new(),
        room: Room::default(),
    };
    comparison
        .trees(Some(before.tree), Some(after.tree), PathBuf::new(), 0)
        .await?;
    comparison.conclude().await
}

type Blobs = HashSet<(BlobKind, Id)>;

struct Comparison {
    reader: Reader,
    difference: Difference,
    /// Blobs of what was looked at, in the first snapshot and in the second.
    before: Blobs,
    after: Blobs,
    /// Directories that both have.
    equal: Vec<Id>,
    room: Room,
}

impl Comparison {
    async fn trees(
        &mut self,
        before: Option<Id>,
        after: Option<Id>,
        folder: PathBuf,
        depth: usize,
    ) -> Result<(), Error> {
        self.before.extend(before.map(|id| (BlobKind::Tree, id)));
        self.after.extend(after.map(|id| (BlobKind::Tree, id)));
        if before == after {
            self.equal.extend(before);
            return Ok(());
        }
        if depth > MAX_DEPTH {
            let deepest = after.or(before).unwrap_or(Id::from_bytes([0; 32]));
            return Err(Error::damaged(Object::tree(deepest), Damage::TooDeep));
        }
        let (before, after) = (self.load(before, &folder).await?, self.load(after, &folder).await?);
        let (mut before, mut after) = (before.nodes.iter().peekable(), after.nodes.iter().peekable());
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.as_bytes().cmp(new.name.as_bytes()),
            };
            let old = if order == Ordering::Greater {
                None
            } else {
                before.next()
            };
            let new = if order == Ordering::Less { None } else { after.next() };
            let Some(name) = old.or(new).map(|node| &node.name) else {
                return Ok(());
            };
            let path = folder.join(name);
            self.items(&path, old, new);
            let subtree = |node: Option<&Node>| {
                node.filter(|node| node.kind == NodeKind::Dir)
                    .and_then(|node| node.subtree)
            };
            Box::pin(self.trees(subtree(old), subtree(new), path, depth + 1)).await?;
        }
    }

    async fn load(&mut self, id: Option<Id>, folder: &Path) -> Result<Tree, Error> {
        let Some(id) = id else { return Ok(Tree::default()) };
        let mut tree = self.reader.tree(&id).await?;
        self.room.take(&id, &tree, folder)?;
        tree.nodes.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Ok(tree)
    }

    fn items(&mut self, path: &Path, old: Option<&Node>, new: Option<&Node>) {
        for (node, blobs) in [(old, &mut self.before), (new, &mut self.after)] {
            let content = node.and_then(|node| node.content.as_deref()).unwrap_or_default();
            blobs.extend(content.iter().map(|id| (BlobKind::Data, *id)));
        }
        let Some(change) = change(path, old, new) else { return };
        let (added, removed) = (&mut self.difference.added, &mut self.difference.removed);
        match change.kind {
            ChangeKind::Added => added.count(new),
            ChangeKind::Removed => removed.count(old),
            ChangeKind::Type => {
                added.count(new);
                removed.count(old);
            }
            ChangeKind::Modified => {
                let is_file = new.is_some_and(|node| node.kind == NodeKind::File);
                self.difference.changed_files += u64::from(is_file);
            }
            ChangeKind::Metadata => {}
        }
        self.difference.changes.push(change);
    }

    /// Counts the blobs that only one of them has.
    async fn conclude(mut self) -> Result<Difference, Error> {
        let of_both: Vec<_> = self.before.intersection(&self.after).copied().collect();
        for blob in of_both {
            self.before.remove(&blob);
            self.after.remove(&blob);
        }
        let mut seen = HashSet::new();
        while let Some(id) = self.equal.pop() {
            if self.before.is_empty() && self.after.is_empty() {
                break;
            }
            if !seen.insert(id) {
                continue;
            }
            for node in self.reader.tree(&id).await?.nodes {
                let content = node.content.iter().flatten().map(|id| (BlobKind::Data, *id));
                for blob in content.chain(node.subtree.map(|id| (BlobKind::Tree, id))) {
                    self.before.remove(&blob);
                    self.after.remove(&blob);
                }
                self.equal.extend(node.subtree);
            }
        }
        let index = self.reader.index();
        let sides = [
            (&self.before, &mut self.difference.removed),
            (&self.after, &mut self.difference.added),
        ];
        for (blobs, totals) in sides {
            for (kind, id) in blobs {
                *(match kind {
                    BlobKind::Data => &mut totals.data_blobs,
                    BlobKind::Tree => &mut totals.tree_blobs,
                }) += 1;
                let length = index.find(*kind, id).next().map(|at| at.blob.plain_length());
                totals.bytes += length.unwrap_or_default();
            }
        }
        Ok(self.difference)
    }
}

impl Totals {
    fn count(&mut self, node: Option<&Node>) {
        *(match node.map(|node| node.kind) {
            Some(NodeKind::File) => &mut self.files,
            Some(NodeKind::Dir) => &mut self.directories,
            Some(_) => &mut self.others,
            None => return,
        }) += 1;
    }
}

fn change(path: &Path, old: Option<&Node>, new: Option<&Node>) -> Option<Change> {
    let kind = match (old, new) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        (Some(old), Some(new)) if old.kind != new.kind => ChangeKind::Type,
        (Some(old), Some(new)) if content(old) != content(new) => ChangeKind::Modified,
        (Some(old), Some(new)) if metadata(old) != metadata(new) => ChangeKind::Metadata,
        _ => return None,
    };
    let size = |node: Option<&Node>| node.filter(|node| node.kind == NodeKind::File).map(|node| node.size);
    let is_directory = [old, new].iter().flatten().any(|node| node.kind == NodeKind::Dir);
    Some(Change {
        path: path.to_owned(),
        kind,
        is_directory,
        size_bytes: (size(old), size(new)),
    })
}

fn content(node: &Node) -> impl PartialEq + '_ {
    (node.content.as_deref(), node.link_target(), node.device)
}

/// Times of directories change with every file in them; that says nothing of its own.
fn metadata(node: &Node) -> impl PartialEq + '_ {
    (
        &node.extended_attributes,
        node.mode,
        node.uid,
        node.gid,
        (node.kind != NodeKind::Dir).then_some(node.mtime),
    )
}
