//! What a restore has to make, in as little room as can be: snapshots have millions of files, and all of them are here at
//! once. Names lie one behind the other, an item knows the directory that it lies in instead of its path, and of a node
//! stays what the item is given.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::attributes::{self, Namespaces};
use crate::error::Error;
use crate::repo::{ExtendedAttribute, Id, Node, NodeKind};

/// Everything to make, each list in the order of the trees.
#[derive(Default)]
pub(super) struct Items {
    pub(super) folders: Vec<FolderItem>,
    pub(super) files: Vec<FileItem>,
    /// Further names of files.
    pub(super) links: Vec<LinkItem>,
    /// Symbolic links, pipes, devices.
    pub(super) specials: Vec<SpecialItem>,
    /// All names, one behind the other.
    names: Vec<u8>,
    /// The blobs of all files, one file behind the other.
    blobs: Vec<Id>,
    /// The attributes that were kept last.
    attributes: Option<Arc<[ExtendedAttribute]>>,
}

/// A directory, by number: 0 is the target itself, 1 the first of [`Items::folders`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FolderNumber(u32);

impl FolderNumber {
    /// The target itself.
    pub(super) const ROOT: Self = Self(0);
}

/// Where an item belongs: its directory, and where its name is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    folder: FolderNumber,
    /// No safe name is longer.
    length: u8,
    name: usize,
}

/// A directory.
pub(super) struct FolderItem {
    pub(super) place: Place,
    pub(super) metadata: Metadata,
}

/// A regular file.
pub(super) struct FileItem {
    pub(super) place: Place,
    pub(super) metadata: Metadata,
    pub(super) length: u64,
    first_blob: usize,
    blobs: u32,
}

/// A further name of a file.
pub(super) struct LinkItem {
    pub(super) place: Place,
    /// The file, by its number.
    pub(super) first: u32,
}

/// A symbolic link, pipe or device.
pub(super) struct SpecialItem {
    pub(super) place: Place,
    pub(super) metadata: Metadata,
    pub(super) kind: NodeKind,
    pub(super) device: u64,
    pub(super) target: Box<OsStr>,
}

/// What an item is given besides its content.
pub(super) struct Metadata {
    pub(super) mtime: Timestamp,
    pub(super) atime: Timestamp,
    attributes: Option<Arc<[ExtendedAttribute]>>,
    /// The Unix permission bits (`0o7777`).
    pub(super) permissions: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Metadata {
    pub(super) fn attributes(&self) -> &[ExtendedAttribute] {
        self.attributes.as_deref().unwrap_or_default()
    }
}

impl Items {
    /// Adds a directory.
    pub(super) fn add_folder(
        &mut self,
        folder: FolderNumber,
        node: &Node,
        wanted: Namespaces,
    ) -> Result<FolderNumber, Error> {
        let number = number(self.folders.len() + 1)?;
        let item = FolderItem {
            place: self.place(folder, node),
            metadata: self.metadata(node, wanted),
        };
        self.folders.push(item);
        Ok(FolderNumber(number))
    }

    /// Adds a file, and returns its number.
    pub(super) fn add_file(
        &mut self,
        folder: FolderNumber,
        node: &Node,
        length: u64,
        wanted: Namespaces,
    ) -> Result<u32, Error> {
        let file = number(self.files.len())?;
        let content = node.content.as_deref().unwrap_or_default();
        let item = FileItem {
            place: self.place(folder, node),
            metadata: self.metadata(node, wanted),
            length,
            first_blob: self.blobs.len(),
            blobs: number(content.len())?,
        };
        self.blobs.extend_from_slice(content);
        self.files.push(item);
        Ok(file)
    }

    /// Adds a further name of a file.
    pub(super) fn add_link(&mut self, folder: FolderNumber, node: &Node, first: u32) {
        let place = self.place(folder, node);
        self.links.push(LinkItem { place, first });
    }

    /// Adds a symbolic link, pipe or device.
    pub(super) fn add_special(&mut self, folder: FolderNumber, node: &Node, wanted: Namespaces) {
        let item = SpecialItem {
            place: self.place(folder, node),
            metadata: self.metadata(node, wanted),
            kind: node.kind,
            device: node.device,
            target: node.link_target().into(),
        };
        self.specials.push(item);
    }

    /// The blobs of a file.
    pub(super) fn content(&self, file: &FileItem) -> &[Id] {
        &self.blobs[file.first_blob..][..file.blobs as usize]
    }

    /// The path inside the target.
    pub(super) fn path(&self, place: Place) -> PathBuf {
        let mut names = vec![self.name(place)];
        let mut at = place.folder;
        while let Some(folder) = (at.0 as usize).checked_sub(1).map(|number| &self.folders[number]) {
            names.push(self.name(folder.place));
            at = folder.place.folder;
        }
        names.into_iter().rev().collect()
    }

    fn name(&self, place: Place) -> &OsStr {
        OsStr::from_bytes(&self.names[place.name..][..usize::from(place.length)])
    }

    /// Keeps the name of a node, which is a safe one.
    fn place(&mut self, folder: FolderNumber, node: &Node) -> Place {
        let bytes = node.name.as_bytes();
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        let name = self.names.len();
        self.names.extend_from_slice(&bytes[..usize::from(length)]);
        Place { folder, length, name }
    }

    /// Keeps what is restored of a node's metadata. Neighbours often have the same attributes, which are kept once.
    fn metadata(&mut self, node: &Node, wanted: Namespaces) -> Metadata {
        let used = |attribute: &&ExtendedAttribute| attributes::is_used(&attribute.name, wanted);
        let mut used = node.extended_attributes.iter().filter(used).peekable();
        let attributes = used.peek().is_some().then(|| {
            let list: Arc<[_]> = used.cloned().collect();
            match &self.attributes {
                Some(last) if *last == list => Arc::clone(last),
                _ => Arc::clone(self.attributes.insert(list)),
            }
        });
        Metadata {
            mtime: node.mtime,
            atime: node.atime,
            attributes,
            permissions: node.permissions(),
            uid: node.uid,
            gid: node.gid,
        }
    }
}

/// There is memory for fewer than that.
fn number(count: usize) -> Result<u32, Error> {
    u32::try_from(count).map_err(|_| Error::Internal("more items than numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a million files take in memory is this times a million, besides their names and blobs.
    #[test]
    fn items_are_small() {
        assert!(size_of::<FileItem>() <= 104, "{}", size_of::<FileItem>());
        assert!(size_of::<FolderItem>() <= 88, "{}", size_of::<FolderItem>());
        assert!(size_of::<SpecialItem>() <= 120, "{}", size_of::<SpecialItem>());
    }

    #[test]
    fn paths_lead_through_directories() {
        let node = |name: &str, kind| Node::new(name, kind, 0o755);
        let mut items = Items::default();
        let none = Namespaces::default();
        let mut folder = FolderNumber::ROOT;
        for name in ["a", "bc", "d"] {
            folder = items.add_folder(folder, &node(name, NodeKind::Dir), none).unwrap();
        }
        let file = items.add_file(folder, &node("file", NodeKind::File), 0, none).unwrap();
        items
            .add_file(FolderNumber::ROOT, &node("top", NodeKind::File), 0, none)
            .unwrap();
        items.add_link(folder, &node("link", NodeKind::File), file);
        let path = |place| items.path(place).display().to_string();
        assert_eq!(path(items.folders[2].place), "a/bc/d");
        assert_eq!(path(items.files[0].place), "a/bc/d/file");
        assert_eq!(path(items.files[1].place), "top");
        assert_eq!(path(items.links[0].place), "a/bc/d/link");
    }

    #[test]
    fn neighbours_share_their_attributes_and_only_what_is_used_is_kept() {
        let with = |value: &[u8]| {
            let mut node = Node::new("name", NodeKind::File, 0o644);
            for name in ["user.note", "security.selinux"] {
                node.extended_attributes.push(ExtendedAttribute {
                    name: name.to_owned(),
                    value: value.to_owned(),
                });
            }
            node
        };
        let mut items = Items::default();
        let none: Namespaces = std::iter::empty().collect();
        let user = none.with(attributes::Namespace::User);
        for value in [b"a", b"a", b"b"] {
            items.add_file(FolderNumber::ROOT, &with(value), 0, user).unwrap();
        }
        let kept = |file: usize| items.files[file].metadata.attributes.clone().unwrap();
        assert!(Arc::ptr_eq(&kept(0), &kept(1)));
        assert_eq!(kept(0).len(), 1);
        assert_eq!((&*kept(0)[0].name, &*kept(2)[0].value), ("user.note", &b"b"[..]));
        items.add_file(FolderNumber::ROOT, &with(b"a"), 0, none).unwrap();
        assert!(items.files[3].metadata.attributes().is_empty());
    }
}
