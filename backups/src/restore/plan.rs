//! What a restore has to make: the snapshot's trees, laid out flat. Names that lead elsewhere are refused here.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::{DamagedFile, RestoreOptions};
use crate::error::{Error, Object, TreeName};
use crate::repo::{Id, Node, NodeKind, Reader, Snapshot, Tree};
use crate::snapshots::MAX_DEPTH;
use crate::source::Skipped;

/// Everything to make, each list in the order of the trees.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) folders: Vec<(PathBuf, Node)>,
    pub(super) files: Vec<(PathBuf, Node)>,
    /// Further names of a file, by its place in `files`.
    pub(super) links: Vec<(PathBuf, usize)>,
    /// Symbolic links, pipes, devices.
    pub(super) specials: Vec<(PathBuf, Node)>,
    /// Directories that cannot be read.
    pub(super) damaged: Vec<DamagedFile>,
    pub(super) skipped: Vec<Skipped>,
}

impl Plan {
    /// Reads the trees of a snapshot as far as they are wanted.
    pub(super) async fn make(
        reader: &Reader,
        id: &Id,
        snapshot: &Snapshot,
        options: &RestoreOptions,
    ) -> Result<Self, Error> {
        let mut includes = options
            .include
            .iter()
            .map(|path| Include::new(path))
            .collect::<Result<Vec<_>, _>>()?;
        let mut plan = Self::default();
        let mut inodes = HashMap::new();
        // A root that cannot be read leaves nothing to restore.
        let root = match reader.tree(&snapshot.tree).await {
            Err(Error::Damaged {
                object: Object::Tree(name),
                damage,
            }) => {
                let root_of = Some(*id);
                return Err(Error::damaged(Object::Tree(TreeName { root_of, ..name }), damage));
            }
            root => root?,
        };
        let mut open = vec![(root.nodes.into_iter(), PathBuf::new())];
        while let Some((nodes, folder)) = open.last_mut() {
            let Some(node) = nodes.next() else {
                open.pop();
                continue;
            };
            let path = folder.join(&node.name);
            if !node.has_safe_name() {
                let reason = "its name leads out of its directory".to_owned();
                plan.skipped.push(Skipped { path, reason });
                continue;
            }
            if !Include::wants(&mut includes, &path, node.kind) {
                continue;
            }
            if let Some(tree) = plan.add(reader, &mut inodes, options, path.clone(), node).await? {
                if open.len() >= MAX_DEPTH {
                    plan.damaged.push(DamagedFile {
                        path,
                        reason: "directories are nested too deeply".to_owned(),
                    });
                } else {
                    open.push((tree.nodes.into_iter(), path));
                }
            }
        }
        match includes.into_iter().find(|include| !include.found) {
            Some(missing) => Err(Error::PathNotFound { path: missing.path }),
            None => Ok(plan),
        }
    }

    /// Adds a node; a directory's tree is returned.
    async fn add(
        &mut self,
        reader: &Reader,
        inodes: &mut HashMap<(u64, u64), usize>,
        options: &RestoreOptions,
        path: PathBuf,
        node: Node,
    ) -> Result<Option<Tree>, Error> {
        let mut skip = |path, reason: &str| {
            self.skipped.push(Skipped {
                path,
                reason: reason.to_owned(),
            });
        };
        match node.kind {
            NodeKind::Dir => {
                let tree = match &node.subtree {
                    Some(id) => reader.tree(id).await,
                    None => Ok(Tree::default()),
                };
                self.folders.push((path.clone(), node));
                match tree {
                    Ok(tree) => return Ok(Some(tree)),
                    Err(error @ Error::Damaged { .. }) => {
                        self.damaged.push(DamagedFile {
                            path,
                            reason: error.to_string(),
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
            NodeKind::File => {
                let first = if node.links > 1 {
                    inodes.get(&(node.device_id, node.inode))
                } else {
                    None
                };
                if let Some(first) = first {
                    self.links.push((path, *first));
                    return Ok(None);
                }
                if node.links > 1 {
                    inodes.insert((node.device_id, node.inode), self.files.len());
                }
                self.files.push((path, node));
            }
            NodeKind::Symlink if node.link_target().is_empty() => skip(path, "a symbolic link to nowhere"),
            NodeKind::Symlink | NodeKind::Fifo => self.specials.push((path, node)),
            NodeKind::Dev | NodeKind::Chardev if options.devices => self.specials.push((path, node)),
            NodeKind::Dev | NodeKind::Chardev => skip(path, "device nodes are restored on request only"),
            NodeKind::Socket => skip(path, "sockets belong to the process that listens"),
            NodeKind::Unknown => skip(path, "of an unknown kind"),
        }
        Ok(None)
    }
}

/// A path that is wanted, with everything under it.
struct Include {
    path: PathBuf,
    found: bool,
}

impl Include {
    fn new(path: &Path) -> Result<Self, Error> {
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::RootDir | Component::CurDir => {}
                _ => return Err(Error::PathNotFound { path: path.to_owned() }),
            }
        }
        Ok(Self {
            path: clean,
            found: false,
        })
    }

    /// Whether anybody wants the item, or (for a directory) something in it.
    fn wants(includes: &mut [Self], path: &Path, kind: NodeKind) -> bool {
        if includes.is_empty() {
            return true;
        }
        includes.iter_mut().fold(false, |wanted, include| {
            let under = path.starts_with(&include.path);
            include.found |= under;
            wanted | under | (kind == NodeKind::Dir && include.path.starts_with(path))
        })
    }
}
