//! Which object lies under which key of the store: restic's default layout.

use super::Id;
use crate::error::Object;
use crate::store::StoreKey;

/// Kinds of files that are named after ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Key,
    Lock,
    Index,
    Snapshot,
    Pack,
}

impl FileKind {
    /// The folder that holds all of them.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Key => "keys/",
            Self::Lock => "locks/",
            Self::Index => "index/",
            Self::Snapshot => "snapshots/",
            Self::Pack => "data/",
        }
    }

    /// Where one of them lies.
    pub(crate) fn key(self, id: &Id) -> StoreKey {
        let name = match self {
            Self::Pack => format!("data/{}/{id}", hex::encode(&id.as_bytes()[..1])),
            other => format!("{}{id}", other.folder()),
        };
        StoreKey::new(name).expect("folders and hexadecimal digits are sound keys")
    }

    /// No such file is longer, as it is stored or unpacked; restic's index files have a tenth of this. What is longer was
    /// not written by anybody who means well, and is not read into memory.
    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Key | Self::Lock => 1 << 20,
            Self::Index | Self::Snapshot => 128 << 20,
            Self::Pack => super::pack::SIZE_LIMIT as usize,
        }
    }

    /// How messages name it.
    pub(crate) fn object(self, id: Id) -> Object {
        match self {
            Self::Key => Object::Key(id),
            Self::Lock => Object::Lock(id),
            Self::Index => Object::Index(id),
            Self::Snapshot => Object::Snapshot(id),
            Self::Pack => Object::Pack(id),
        }
    }
}

/// Where the config lies.
pub(crate) fn config() -> StoreKey {
    StoreKey::new("config").expect("a sound key")
}
