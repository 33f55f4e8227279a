//! What a restore has to make: the snapshot's trees, laid out flat. Names that lead elsewhere are refused here.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::items::{FolderNumber, Items};
use super::{DamagedFile, RestoreOptions};
use crate::error::{Error, Object, TreeName};
use crate::repo::{BlobKind, Id, Node, NodeKind, Reader, Tree};
use crate::snapshots::{MAX_DEPTH, Room};
use crate::source::{Patterns, Skipped};

/// Everything to make, and what cannot be made.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) items: Items,
    /// Directories that cannot be read.
    pub(super) damaged: Vec<DamagedFile>,
    pub(super) skipped: Vec<Skipped>,
    /// Extended attributes of namespaces that were not asked for.
    pub(super) withheld_attributes: u64,
}

/// A directory whose nodes are being looked at.
struct Folder {
    nodes: std::vec::IntoIter<Node>,
    path: PathBuf,
    number: FolderNumber,
    /// Everything in it is wanted.
    all: bool,
    /// It is only there for what may be wanted in it: how long the plan was when it was entered.
    passed_through: Option<usize>,
}

impl Plan {
    /// Reads the trees of a snapshot from `tree` on, as far as they are wanted.
    pub(super) async fn make(reader: &Reader, id: &Id, tree: Id, options: &RestoreOptions) -> Result<Self, Error> {
        let mut wanted = Wanted::new(options)?;
        let mut plan = Self::default();
        let mut inodes = HashMap::new();
        // A root that cannot be read leaves nothing to restore.
        let root = match reader.tree(&tree).await {
            Err(Error::Damaged {
                object: Object::Tree(name),
                damage,
            }) => {
                let root_of = Some(*id);
                return Err(Error::damaged(Object::Tree(TreeName { root_of, ..name }), damage));
            }
            root => root?,
        };
        let mut room = Room::default();
        room.take(&tree, &root, Path::new(""))?;
        let mut open = vec![Folder {
            nodes: root.nodes.into_iter(),
            path: PathBuf::new(),
            number: FolderNumber::ROOT,
            all: false,
            passed_through: None,
        }];
        while let Some(folder) = open.last_mut() {
            let Some(node) = folder.nodes.next() else {
                let left = open.pop();
                // Nobody wanted what lies in it.
                if left.is_some_and(|folder| folder.passed_through == Some(plan.length())) {
                    plan.items.folders.pop();
                }
                continue;
            };
            let path = folder.path.join(&node.name);
            if !node.has_safe_name() {
                let reason = "its name leads out of its directory".to_owned();
                plan.skipped.push(Skipped { path, reason });
                continue;
            }
            let is_directory = node.kind == NodeKind::Dir;
            if options.exclude.matches(&path, is_directory) {
                continue;
            }
            let all = match wanted.judge(&path, is_directory, folder.all) {
                Want::All => true,
                Want::Perhaps => false,
                Want::Nothing => continue,
            };
            let parent = folder.number;
            if let Some((number, tree)) = plan.add(reader, &mut inodes, options, parent, &path, &node).await? {
                if let Some(id) = node.subtree {
                    room.take(&id, &tree, &path)?;
                }
                if open.len() >= MAX_DEPTH {
                    plan.damaged.push(DamagedFile {
                        path,
                        reason: "directories are nested too deeply".to_owned(),
                    });
                } else {
                    open.push(Folder {
                        nodes: tree.nodes.into_iter(),
                        path,
                        number,
                        all,
                        passed_through: (!all).then(|| plan.length()),
                    });
                }
            }
        }
        match wanted.missing() {
            Some(path) => Err(Error::PathNotFound { path }),
            None => Ok(plan),
        }
    }

    /// How much there is to do and to tell.
    fn length(&self) -> usize {
        let items = &self.items;
        items.folders.len()
            + items.files.len()
            + items.links.len()
            + items.specials.len()
            + self.damaged.len()
            + self.skipped.len()
    }

    /// Adds a node; a directory's number and tree are returned.
    async fn add(
        &mut self,
        reader: &Reader,
        inodes: &mut HashMap<(u64, u64), u32>,
        options: &RestoreOptions,
        parent: FolderNumber,
        path: &Path,
        node: &Node,
    ) -> Result<Option<(FolderNumber, Tree)>, Error> {
        let wanted = options.attributes;
        let withheld = node.extended_attributes.iter();
        self.withheld_attributes += withheld.filter(|attribute| !wanted.takes(&attribute.name)).count() as u64;
        let mut skip = |reason: &str| {
            self.skipped.push(Skipped {
                path: path.to_owned(),
                reason: reason.to_owned(),
            });
        };
        match node.kind {
            NodeKind::Dir => {
                let tree = match &node.subtree {
                    Some(id) => reader.tree(id).await,
                    None => Ok(Tree::default()),
                };
                let number = self.items.add_folder(parent, node, wanted)?;
                match tree {
                    Ok(tree) => return Ok(Some((number, tree))),
                    Err(error @ Error::Damaged { .. }) => {
                        self.damaged.push(DamagedFile {
                            path: path.to_owned(),
                            reason: error.to_string(),
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
            NodeKind::File => {
                let inode = (node.device_id, node.inode);
                let first = inodes.get(&inode).filter(|_| node.links > 1);
                if let Some(first) = first {
                    self.items.add_link(parent, node, *first);
                    return Ok(None);
                }
                let file = self.items.add_file(parent, node, length(reader, node), wanted)?;
                if node.links > 1 {
                    inodes.insert(inode, file);
                }
            }
            NodeKind::Symlink if node.link_target().is_empty() => skip("a symbolic link to nowhere"),
            NodeKind::Symlink | NodeKind::Fifo => self.items.add_special(parent, node, wanted),
            NodeKind::Dev | NodeKind::Chardev if options.devices => self.items.add_special(parent, node, wanted),
            NodeKind::Dev | NodeKind::Chardev => skip("device nodes are restored on request only"),
            NodeKind::Socket => skip("sockets belong to the process that listens"),
            NodeKind::Unknown => skip("of an unknown kind"),
        }
        Ok(None)
    }
}

/// How long a file is, by what the index says of its blobs.
fn length(reader: &Reader, node: &Node) -> u64 {
    let blobs = node.content.iter().flatten();
    let found = blobs.filter_map(|id| reader.index().find(BlobKind::Data, id).next());
    found.map(|found| found.blob.plain_length()).sum()
}

/// What is wanted of the snapshot.
struct Wanted<'a> {
    paths: Vec<(PathBuf, bool)>,
    patterns: &'a Patterns,
    fitted: Vec<bool>,
}

/// How much of an item is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// It, with what lies under it.
    All,
    /// A directory: perhaps something in it.
    Perhaps,
    Nothing,
}

impl<'a> Wanted<'a> {
    fn new(options: &'a RestoreOptions) -> Result<Self, Error> {
        let paths = options.include.iter().map(|path| Ok((clean(path)?, false)));
        Ok(Self {
            paths: paths.collect::<Result<_, Error>>()?,
            patterns: &options.include_patterns,
            fitted: vec![false; options.include_patterns.patterns().len()],
        })
    }

    /// `all`: the directory that the item lies in is wanted as a whole.
    fn judge(&mut self, path: &Path, is_directory: bool, all: bool) -> Want {
        let (mut under, mut above) = (all, false);
        for (wanted, found) in &mut self.paths {
            let fits = path.starts_with(&*wanted);
            *found |= fits;
            under |= fits;
            above |= wanted.starts_with(path);
        }
        for fitting in self.patterns.matching(path, is_directory) {
            self.fitted[fitting] = true;
            under = true;
        }
        if under || (self.paths.is_empty() && self.patterns.is_empty()) {
            Want::All
        } else if is_directory && (above || !self.patterns.is_empty()) {
            Want::Perhaps
        } else {
            Want::Nothing
        }
    }

    /// Something that was asked for and is not there.
    fn missing(self) -> Option<PathBuf> {
        let path = self.paths.into_iter().find(|(_, found)| !found).map(|(path, _)| path);
        let pattern = || {
            Some(
                self.patterns.patterns()[self.fitted.iter().position(|fitted| !fitted)?]
                    .clone()
                    .into(),
            )
        };
        path.or_else(pattern)
    }
}

/// A path inside the snapshot, without a slash at its front.
fn clean(path: &Path) -> Result<PathBuf, Error> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(Error::PathNotFound { path: path.to_owned() }),
        }
    }
    Ok(clean)
}
