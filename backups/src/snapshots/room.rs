//! How much room a snapshot may take that is laid out in full. A tree may be named in many places, and each of those in
//! many more: a few kilobytes can stand for more files than there is memory. Sound snapshots share little, since a node
//! has its inode and times; what they share is small beside what they store.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Damage, Error, Object};
use crate::repo::{Id, Node, Tree};

/// So many bytes anything may take.
const FREE: u64 = 64 << 20;
/// And so many times what its trees would take, each once.
const TIMES: u64 = 8;
/// What a visit costs, however small the tree is, and what a node takes with all that is empty.
const VISIT: u64 = 2048;
const NODE: u64 = 400;

/// Longer paths are shown by their end.
const SHOWN: usize = 4096;

/// What was laid out so far, in bytes, roughly.
#[derive(Default)]
pub(crate) struct Room {
    seen: HashSet<Id>,
    stored: u64,
    taken: u64,
}

impl Room {
    /// Takes room for the nodes of a tree at this path. An error says that there is no end to them.
    pub(crate) fn take(&mut self, id: &Id, tree: &Tree, path: &Path) -> Result<(), Error> {
        if self.holds(id, Extent::of(tree), path.as_os_str().len()) {
            Ok(())
        } else {
            Err(Error::damaged(Object::tree(*id), Damage::Endless))
        }
    }

    /// The same for a tree that is not at hand, at a path of this length. Whether there is room for it.
    pub(crate) fn holds(&mut self, id: &Id, extent: Extent, path: usize) -> bool {
        if self.seen.insert(*id) {
            self.stored += extent.own;
        }
        let paths = extent.nodes.saturating_mul(path as u64);
        self.taken = self.taken.saturating_add(VISIT + extent.own).saturating_add(paths);
        self.taken <= FREE.saturating_add(self.stored.saturating_mul(TIMES))
    }
}

/// What a tree takes by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extent {
    own: u64,
    nodes: u64,
}

impl Extent {
    pub(crate) fn of(tree: &Tree) -> Self {
        Self {
            own: tree.nodes.iter().map(weight).sum(),
            nodes: tree.nodes.len() as u64,
        }
    }
}

fn weight(node: &Node) -> u64 {
    let attributes = node.extended_attributes.iter();
    let attributes: usize = attributes.map(|of| 48 + of.name.len() + of.value.len()).sum();
    let content = 32 * node.content.as_ref().map_or(0, Vec::len);
    let texts = node.name.len() + node.user.len() + node.group.len() + 2 * node.linktarget.len();
    NODE + (attributes + content + texts) as u64
}

/// The path of an item as messages show it: no deeper than any that a system takes, else its end.
pub(crate) fn shown_below(folder: &Path, name: &OsStr) -> PathBuf {
    if folder.as_os_str().len() + name.len() < SHOWN {
        folder.join(name)
    } else {
        Path::new("…").join(name)
    }
}
