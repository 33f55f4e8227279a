//! What differs between two snapshots. Directories that are equal are not opened.

use std::cmp::Ordering;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Damage, Error, Object};
use crate::repo::{Id, Node, NodeKind, Reader, Repository, Snapshot, Tree};

use super::MAX_DEPTH;

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
    /// Only its mode, owner or time differ.
    Metadata,
    /// It became something else (a file a directory).
    Type,
}

/// What differs between two snapshots, in the order of paths. What lies in a directory that was added or removed is
/// listed with it.
pub async fn diff(repository: &Repository, before: &Snapshot, after: &Snapshot) -> Result<Vec<Change>, Error> {
    let reader = repository.reader().await?;
    let mut changes = Vec::new();
    compare(
        &reader,
        Some(before.tree),
        Some(after.tree),
        PathBuf::new(),
        0,
        &mut changes,
    )
    .await?;
    Ok(changes)
}

async fn compare(
    reader: &Reader,
    before: Option<Id>,
    after: Option<Id>,
    folder: PathBuf,
    depth: usize,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    if before == after {
        return Ok(());
    }
    if depth > MAX_DEPTH {
        let deepest = after.or(before).unwrap_or(Id::from_bytes([0; 32]));
        return Err(Error::damaged(Object::tree(deepest), Damage::Malformed));
    }
    let (before, after) = (load(reader, before).await?, load(reader, after).await?);
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
        changes.extend(change(&path, old, new));
        let subtree = |node: Option<&Node>| {
            node.filter(|node| node.kind == NodeKind::Dir)
                .and_then(|node| node.subtree)
        };
        Box::pin(compare(reader, subtree(old), subtree(new), path, depth + 1, changes)).await?;
    }
}

async fn load(reader: &Reader, id: Option<Id>) -> Result<Tree, Error> {
    match id {
        Some(id) => {
            let mut tree = reader.tree(&id).await?;
            tree.nodes.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
            Ok(tree)
        }
        None => Ok(Tree::default()),
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
fn metadata(node: &Node) -> impl PartialEq {
    (
        node.mode,
        node.uid,
        node.gid,
        (node.kind != NodeKind::Dir).then_some(node.mtime),
    )
}
