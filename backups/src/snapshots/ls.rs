//! What lies in a snapshot.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::room::Room;
use crate::error::{Damage, Error, Object};
use crate::repo::{Id, Node, NodeKind, Reader, Repository, Snapshot};

/// No sound file system nests deeper; a repository that does is out to exhaust us.
pub(crate) const MAX_DEPTH: usize = 1000;

/// One line of `ls`.
#[derive(Debug, Clone, PartialEq)]
pub struct LsEntry {
    /// Its path inside the snapshot, without a leading `/`.
    pub path: PathBuf,
    /// What it is.
    pub node: Node,
}

/// What lies at and under `path` (empty: everything), directories before what they hold. Without `recursive`, the
/// entries of one directory.
pub async fn ls(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &Path,
    recursive: bool,
) -> Result<Vec<LsEntry>, Error> {
    let reader = repository.reader().await?;
    let start = node_at(&reader, snapshot, path).await?;
    let mut entries = Vec::new();
    let tree = match start {
        None => Some(snapshot.tree),
        Some((path, node)) => {
            let subtree = node.subtree;
            entries.push(LsEntry { path, node });
            subtree
        }
    };
    let base = entries.first().map(|entry| entry.path.clone()).unwrap_or_default();
    if let Some(tree) = tree {
        collect(&reader, tree, &base, recursive, &mut entries).await?;
    }
    Ok(entries)
}

async fn collect(
    reader: &Reader,
    tree: Id,
    base: &Path,
    recursive: bool,
    entries: &mut Vec<LsEntry>,
) -> Result<(), Error> {
    let mut room = Room::default();
    let mut nodes_of = async |tree: Id, path: &Path| {
        let nodes = reader.tree(&tree).await?;
        room.take(&tree, &nodes, path)?;
        Ok::<_, Error>(nodes.nodes.into_iter())
    };
    // Directories still to be listed, the next one last.
    let mut open = vec![(nodes_of(tree, base).await?, base.to_owned())];
    while let Some((nodes, folder)) = open.last_mut() {
        let Some(node) = nodes.next() else {
            open.pop();
            continue;
        };
        let path = folder.join(&node.name);
        let subtree = node.subtree.filter(|_| recursive && node.kind == NodeKind::Dir);
        entries.push(LsEntry {
            path: path.clone(),
            node,
        });
        if let Some(id) = subtree {
            if open.len() >= MAX_DEPTH {
                return Err(Error::damaged(Object::tree(id), Damage::TooDeep));
            }
            open.push((nodes_of(id, &path).await?, path));
        }
    }
    Ok(())
}

/// The node at a path, with the path as entries have it; `None` for the root itself.
pub(crate) async fn node_at(
    reader: &Reader,
    snapshot: &Snapshot,
    path: &Path,
) -> Result<Option<(PathBuf, Node)>, Error> {
    let absent = || Error::PathNotFound { path: path.to_owned() };
    let mut names: Vec<&OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(absent()),
        }
    }
    let mut tree = Some(snapshot.tree);
    let mut found = None;
    for name in &names {
        let id = tree.ok_or_else(absent)?;
        let node = reader.tree(&id).await?.find(name).cloned().ok_or_else(absent)?;
        tree = node.subtree;
        found = Some(node);
    }
    Ok(found.map(|node| (names.iter().collect(), node)))
}
