//! Directories: lists of nodes in restic's JSON. Fields that this engine does not know are tolerated when it reads.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Id, name};

/// One directory: nodes sorted by the bytes of their names, no name twice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// What it holds.
    #[serde(deserialize_with = "super::json::null_is_default")]
    pub nodes: Vec<Node>,
}

impl Tree {
    /// Sorts the nodes as trees must be. Of several with one name the first stays.
    pub fn new(mut nodes: Vec<Node>) -> Self {
        nodes.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        nodes.dedup_by(|later, earlier| later.name == earlier.name);
        Self { nodes }
    }

    /// The node of this name.
    pub fn find(&self, name: &OsStr) -> Option<&Node> {
        let found = self
            .nodes
            .binary_search_by(|node| node.name.as_bytes().cmp(name.as_bytes()));
        // Trees of others may be unsorted: look again before saying no.
        found
            .ok()
            .map(|at| &self.nodes[at])
            .or_else(|| self.nodes.iter().find(|node| node.name == name))
    }

    /// Reads what is stored. A large tree whose nodes are shorter than any that a backup writes is refused before room is
    /// made for them: in memory a node takes many times what the shortest one takes as JSON.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        if json.len() > COUNTED_FIRST {
            let Counted { nodes } = serde_json::from_slice(json)?;
            if nodes.0 > json.len() / SHORTEST_NODE {
                return Err(serde::de::Error::custom("nodes that are too short"));
            }
        }
        serde_json::from_slice(json)
    }

    /// Its bytes as they are stored: JSON and a line feed.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Larger trees are looked over before they are read.
const COUNTED_FIRST: usize = 1 << 20;
/// No program writes nodes of fewer bytes on average: three times and what is always there take 140.
const SHORTEST_NODE: usize = 96;

/// A tree of which only the number of nodes is of interest.
#[derive(Deserialize)]
struct Counted {
    #[serde(deserialize_with = "super::json::null_is_default")]
    nodes: Count,
}

/// How many elements a list has. None of them is kept.
#[derive(Default)]
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> serde::de::Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<serde::de::IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Counter)
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Dev,
    /// A character device.
    Chardev,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// Something that restic has and this engine does not know.
    #[serde(other)]
    Unknown,
}

/// One item of a directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name: any bytes, except that what is restored has no `/` and is neither `.` nor `..`.
    #[serde(serialize_with = "quote", deserialize_with = "unquote")]
    pub name: OsString,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: NodeKind,
    /// Permissions and type in the bits of Go's `os.FileMode`; see [`Node::permissions`].
    #[serde(default, skip_serializing_if = "is_zero32")]
    pub mode: u32,
    /// When the content changed.
    #[serde(default = "epoch")]
    pub mtime: Timestamp,
    /// When the content was read; like restic, this engine writes `mtime` here.
    #[serde(default = "epoch")]
    pub atime: Timestamp,
    /// When the metadata changed.
    #[serde(default = "epoch")]
    pub ctime: Timestamp,
    /// The owner's number.
    #[serde(default)]
    pub uid: u32,
    /// The group's number.
    #[serde(default)]
    pub gid: u32,
    /// The owner's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The group's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The inode, which hard links share.
    #[serde(default, skip_serializing_if = "is_zero64")]
    pub inode: u64,
    /// The file system that the inode belongs to.
    #[serde(default, skip_serializing_if = "is_zero64")]
    pub device_id: u64,
    /// The length in bytes.
    #[serde(default, skip_serializing_if = "is_zero64")]
    pub size: u64,
    /// How many names the inode has.
    #[serde(default, skip_serializing_if = "is_zero64")]
    pub links: u64,
    /// Where a symbolic link leads; not UTF-8 is replaced here and exact in `linktarget_raw`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub linktarget: String,
    /// Where a symbolic link leads, if that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "raw_bytes")]
    pub linktarget_raw: Option<Vec<u8>>,
    /// Extended attributes, POSIX ACLs among them, in the order of their names.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::json::null_is_default"
    )]
    pub extended_attributes: Vec<ExtendedAttribute>,
    /// The number of a device node.
    #[serde(default, skip_serializing_if = "is_zero64")]
    pub device: u64,
    /// The blobs of a file's content, in order.
    #[serde(default)]
    pub content: Option<Vec<Id>>,
    /// The tree of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtree: Option<Id>,
}

/// An extended attribute of an item. A POSIX ACL is one, too: `system.posix_acl_access` in the kernel's binary form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendedAttribute {
    /// Its full name, with the namespace before the first dot.
    pub name: String,
    /// Its value: any bytes, also none.
    #[serde(with = "bytes_or_null")]
    pub value: Vec<u8>,
}

/// Bits of Go's `os.FileMode` beyond the nine of permissions.
mod go {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const FIFO: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHARDEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
}

impl Node {
    /// A node without content, of this kind, with Unix permission bits (`0o7777`).
    pub fn new(name: impl Into<OsString>, kind: NodeKind, permissions: u32) -> Self {
        let kind_bits = match kind {
            NodeKind::File | NodeKind::Unknown => 0,
            NodeKind::Dir => go::DIR,
            NodeKind::Symlink => go::SYMLINK,
            NodeKind::Dev => go::DEVICE,
            NodeKind::Chardev => go::DEVICE | go::CHARDEVICE,
            NodeKind::Fifo => go::FIFO,
            NodeKind::Socket => go::SOCKET,
        };
        let special = [(0o4000, go::SETUID), (0o2000, go::SETGID), (0o1000, go::STICKY)];
        let special = special
            .iter()
            .filter(|(unix, _)| permissions & unix != 0)
            .fold(0, |bits, (_, go)| bits | go);
        Self {
            name: name.into(),
            kind,
            mode: kind_bits | special | (permissions & 0o777),
            mtime: epoch(),
            atime: epoch(),
            ctime: epoch(),
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            inode: 0,
            device_id: 0,
            size: 0,
            links: 0,
            linktarget: String::new(),
            linktarget_raw: None,
            extended_attributes: Vec::new(),
            device: 0,
            content: None,
            subtree: None,
        }
    }

    /// The Unix permission bits (`0o7777`).
    pub fn permissions(&self) -> u32 {
        let special = [(0o4000, go::SETUID), (0o2000, go::SETGID), (0o1000, go::STICKY)];
        special
            .iter()
            .filter(|(_, go)| self.mode & go != 0)
            .fold(self.mode & 0o777, |bits, (unix, _)| bits | unix)
    }

    /// Where a symbolic link leads.
    pub fn link_target(&self) -> &OsStr {
        self.linktarget_raw
            .as_deref()
            .map_or(OsStr::new(&self.linktarget), OsStr::from_bytes)
    }

    /// Sets where a symbolic link leads.
    pub fn set_link_target(&mut self, target: &OsStr) {
        self.linktarget = target.to_string_lossy().into_owned();
        self.linktarget_raw = target.to_str().is_none().then(|| target.as_bytes().to_vec());
    }

    /// The name can be restored: it stays inside its directory.
    pub fn has_safe_name(&self) -> bool {
        let name = self.name.as_bytes();
        !name.is_empty()
            && name != b"."
            && name != b".."
            && !name.contains(&b'/')
            && !name.contains(&0)
            && name.len() <= 255
    }
}

fn epoch() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero32(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero64(number: &u64) -> bool {
    *number == 0
}

fn quote<S: Serializer>(name: &OsStr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&name::quote(name))
}

fn unquote<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OsString, D::Error> {
    let quoted = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    name::unquote(&quoted).ok_or_else(|| serde::de::Error::custom("a name that is not quoted"))
}

/// Bytes as Go's JSON has them: base64.
mod raw_bytes {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes
            .as_ref()
            .map(|bytes| BASE64_STANDARD.encode(bytes))
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

/// The same, where Go writes `null` for no bytes.
mod bytes_or_null {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        BASE64_STANDARD.encode(bytes).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        super::raw_bytes::deserialize(deserializer).map(Option::unwrap_or_default)
    }
}
