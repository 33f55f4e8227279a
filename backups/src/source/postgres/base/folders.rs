//! Puts the files of a base backup together to folders, in whatever order they come. Nothing here knows what they are.
//!
//! A cluster may have a million files, and all of them are here until the last has come: a file keeps where its blobs
//! stand in one list, and no path but its own name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::tar::Entry;
use crate::Error;
use crate::repo::{Id, Node, NodeKind, Tree, Writer, host};

/// A folder whose content comes bit by bit.
#[derive(Debug, Default)]
pub(super) struct Folder {
    look: Option<Look>,
    items: BTreeMap<OsString, Item>,
}

/// What is restored of an item besides its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    mode: u32,
    uid: u32,
    gid: u32,
    modified: Timestamp,
}

impl Look {
    /// Of what we add ourselves.
    pub(super) fn ours(modified: Timestamp) -> Self {
        let (uid, gid) = host::user();
        Self {
            mode: 0o600,
            uid,
            gid,
            modified,
        }
    }
}

impl From<&Entry> for Look {
    fn from(entry: &Entry) -> Self {
        Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            modified: entry.modified,
        }
    }
}

#[derive(Debug)]
enum Item {
    Folder(Folder),
    File(FileItem),
    Link { look: Look, target: OsString },
}

/// A file whose content was read to its end.
#[derive(Debug)]
pub(super) struct FileItem {
    pub(super) look: Look,
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
    /// Which blobs of the backup's list are its own.
    pub(super) blobs: Range<usize>,
}

/// Something lies at this place already.
#[derive(Debug)]
pub(super) struct Taken;

impl Folder {
    /// Adds a file.
    pub(super) fn add_file(&mut self, path: &Path, file: FileItem) -> Result<(), Taken> {
        self.add(path, Item::File(file))
    }

    /// Adds a symbolic link.
    pub(super) fn add_link(&mut self, path: &Path, look: Look, target: OsString) -> Result<(), Taken> {
        self.add(path, Item::Link { look, target })
    }

    /// Adds a folder, or says how one looks that has come to be by what lies in it.
    pub(super) fn add_folder(&mut self, path: &Path, look: Look) -> Result<(), Taken> {
        self.folder(path)?.look = Some(look);
        Ok(())
    }

    /// The file at this path.
    pub(super) fn file(&self, path: &Path) -> Option<&FileItem> {
        let mut names = path.components();
        let last = names.next_back()?;
        let mut folder = self;
        for name in names {
            folder = match folder.items.get(name.as_os_str())? {
                Item::Folder(folder) => folder,
                _ => return None,
            };
        }
        match folder.items.get(last.as_os_str())? {
            Item::File(file) => Some(file),
            _ => None,
        }
    }

    /// All files, with their paths.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let mut open = vec![(PathBuf::new(), self.items.iter())];
        std::iter::from_fn(move || {
            while let Some((path, items)) = open.last_mut() {
                match items.next() {
                    None => drop(open.pop()),
                    Some((name, Item::File(_))) => return Some(path.join(name)),
                    Some((_, Item::Link { .. })) => {}
                    Some((name, Item::Folder(folder))) => {
                        let path = path.join(name);
                        open.push((path, folder.items.iter()));
                    }
                }
            }
            None
        })
    }

    /// The symbolic links in the folder at this path, and where they lead.
    pub(super) fn links(&self, path: &Path) -> Vec<(&OsString, &OsString)> {
        let mut folder = self;
        for name in path.components() {
            let Some(Item::Folder(inner)) = folder.items.get(name.as_os_str()) else {
                return Vec::new();
            };
            folder = inner;
        }
        let links = folder.items.iter().filter_map(|(name, item)| match item {
            Item::Link { target, .. } => Some((name, target)),
            _ => None,
        });
        links.collect()
    }

    fn add(&mut self, path: &Path, item: Item) -> Result<(), Taken> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Taken);
        };
        let folder = self.folder(parent)?;
        if folder.items.contains_key(name) {
            return Err(Taken);
        }
        folder.items.insert(name.to_owned(), item);
        Ok(())
    }

    /// The folder at a path of plain names, made with what it lies in if it is not there.
    fn folder(&mut self, path: &Path) -> Result<&mut Self, Taken> {
        let mut folder = self;
        for component in path.components() {
            let Component::Normal(name) = component else {
                return Err(Taken);
            };
            if !folder.items.contains_key(name) {
                folder.items.insert(name.to_owned(), Item::Folder(Self::default()));
            }
            folder = match folder.items.get_mut(name) {
                Some(Item::Folder(inner)) => inner,
                _ => return Err(Taken),
            };
        }
        Ok(folder)
    }

    /// Stores what lies in the folder, the innermost folders first, and counts what differs from the parent snapshot.
    /// `blobs` is the list that the files' ranges are of, `otherwise` what a folder looks like of which nothing was said.
    pub(super) fn nodes<'a>(
        self,
        into: &'a Writer<'_>,
        blobs: &'a [Id],
        before: Option<&'a Tree>,
        otherwise: Look,
    ) -> BoxFuture<'a, Result<Vec<Node>, Error>> {
        async move {
            let mut nodes = Vec::with_capacity(self.items.len());
            for (name, item) in self.items {
                let known = before.and_then(|tree| tree.find(&name));
                nodes.push(match item {
                    Item::Folder(folder) => folder.node(into, name, blobs, known, otherwise).await?,
                    Item::File(file) => file.node(into, name, blobs, known)?,
                    Item::Link { look, target } => {
                        let mut node = node(name, NodeKind::Symlink, 0o777, look);
                        node.set_link_target(&target);
                        node
                    }
                });
            }
            Ok(nodes)
        }
        .boxed()
    }

    async fn node(
        self,
        into: &Writer<'_>,
        name: OsString,
        blobs: &[Id],
        known: Option<&Node>,
        otherwise: Look,
    ) -> Result<Node, Error> {
        let look = self.look.unwrap_or(otherwise);
        let before = known.and_then(|known| known.subtree);
        let tree = match &before {
            Some(id) => into.parent_tree(id).await,
            None => None,
        };
        let nodes = self.nodes(into, blobs, tree.as_ref(), otherwise).await?;
        let id = into.save_tree(&Tree::new(nodes)).await?;
        into.count(|summary| match before {
            None => summary.dirs_new += 1,
            Some(before) if before == id => summary.dirs_unmodified += 1,
            Some(_) => summary.dirs_changed += 1,
        });
        // Whoever restores must be able to write into it.
        let mut node = node(name, NodeKind::Dir, look.mode & 0o777 | 0o700, look);
        node.subtree = Some(id);
        Ok(node)
    }
}

impl FileItem {
    fn node(self, into: &Writer<'_>, name: OsString, blobs: &[Id], known: Option<&Node>) -> Result<Node, Error> {
        let content = blobs.get(self.blobs).ok_or(Error::Internal("a file has its blobs"))?;
        into.count(|summary| {
            match known {
                None => summary.files_new += 1,
                Some(known) if known.content.as_deref() == Some(content) => summary.files_unmodified += 1,
                Some(_) => summary.files_changed += 1,
            }
            summary.total_files_processed += 1;
            summary.total_bytes_processed += self.size;
        });
        let mut node = node(name, NodeKind::File, self.look.mode & 0o777 | 0o600, self.look);
        node.size = self.size;
        node.content = Some(content.to_vec());
        Ok(node)
    }
}

fn node(name: OsString, kind: NodeKind, mode: u32, look: Look) -> Node {
    let mut node = Node::new(name, kind, mode);
    (node.uid, node.gid, node.links) = (look.uid, look.gid, 1);
    (node.mtime, node.atime, node.ctime) = (look.modified, look.modified, look.modified);
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> FileItem {
        FileItem {
            look: Look::ours(Timestamp::UNIX_EPOCH),
            size,
            sha256: [0; 32],
            blobs: 0..0,
        }
    }

    #[test]
    fn what_comes_in_any_order_lies_where_it_belongs() {
        let look = Look::ours(Timestamp::UNIX_EPOCH);
        let mut root = Folder::default();
        root.add_file(Path::new("base/5/1259"), file(1)).unwrap();
        root.add_folder(Path::new("base/5"), look).unwrap();
        root.add_folder(Path::new("base/5"), look).unwrap();
        root.add_file(Path::new("PG_VERSION"), file(3)).unwrap();
        root.add_link(Path::new("pg_tblspc/16385"), look, "/srv/fast".into())
            .unwrap();
        root.add_file(Path::new("base/5/1247"), file(2)).unwrap();
        let files: Vec<_> = root.files().collect();
        assert_eq!(files, ["PG_VERSION", "base/5/1247", "base/5/1259"].map(PathBuf::from));
        assert_eq!(root.file(Path::new("base/5/1247")).map(|file| file.size), Some(2));
        for nothing in ["", "base", "base/5", "base/6/1247", "PG_VERSION/x", "pg_tblspc/16385"] {
            assert!(root.file(Path::new(nothing)).is_none(), "{nothing}");
        }
        let links = root.links(Path::new("pg_tblspc"));
        assert_eq!(links, [(&OsString::from("16385"), &OsString::from("/srv/fast"))]);
        assert!(root.links(Path::new("nowhere")).is_empty());
    }

    #[test]
    fn nothing_takes_the_place_of_something_else() {
        let look = Look::ours(Timestamp::UNIX_EPOCH);
        let mut root = Folder::default();
        root.add_file(Path::new("a/file"), file(1)).unwrap();
        for taken in ["a/file", "a", "a/file/inside", "../up", "/a", ""] {
            assert!(root.add_file(Path::new(taken), file(2)).is_err(), "{taken}");
        }
        assert!(root.add_folder(Path::new("a/file"), look).is_err());
        assert!(root.add_link(Path::new("a"), look, "b".into()).is_err());
        assert_eq!(root.files().collect::<Vec<_>>(), [PathBuf::from("a/file")]);
    }
}
