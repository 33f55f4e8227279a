//! What a base backup says of itself: which cluster it is of, which log makes it consistent, where its tablespaces were.
//! It lies as `manifest.json` in the root of the snapshot, beside `data/` and `tablespaces/<number>/`.

use std::ffi::OsStr;
use std::path::PathBuf;

use jiff::Timestamp;
use replication::{Lsn, SegmentSize, ServerVersion, SystemId, Timeline};
use serde::{Deserialize, Serialize};

use super::BaseError;
use crate::Error;
use crate::repo::{BlobKind, Id, Node, NodeKind, Reader, Repository, Tree};
use crate::source::stream::MANIFEST;

/// The folder of the cluster's files in the snapshot.
pub const DATA: &str = "data";
/// The folder of the tablespaces in the snapshot, each under its number.
pub const TABLESPACES: &str = "tablespaces";

pub(super) const SCHEMA: &str = "opsctl.source/v1";
/// What tells it from other ways of saving a server.
pub(super) const METHOD: &str = "base";
/// No record is longer. A cluster has some tablespaces, not thousands.
const LONGEST: u64 = 4 << 20;

/// A physical base backup in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// `opsctl.source/v1`.
    pub schema: String,
    /// `postgres`.
    pub kind: String,
    /// `base`.
    pub method: String,
    /// The program that wrote it.
    pub tool_version: String,
    /// The cluster.
    pub system: SystemId,
    /// The server's version, such as `15.6`. Only the same major version can run the files.
    pub server_version: String,
    /// The same as a number: 150006.
    pub server_version_num: u32,
    /// How long each file of the log is, in bytes.
    pub segment_bytes: u64,
    /// The timeline that it was taken on, from its start to its end.
    pub timeline: Timeline,
    /// Recovery needs the log from here on.
    pub start: Lsn,
    /// And up to here, at least: before, the files do not fit each other.
    pub end: Lsn,
    /// Whether the server held each page against its checksum while it was read.
    pub pages: Pages,
    /// Where the tablespaces were.
    pub tablespaces: Vec<BaseTablespace>,
    /// How many files the cluster has.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// When it was begun, by our clock.
    pub started_at: Timestamp,
    /// When its last byte had come and the server had said that it was whole, by our clock.
    pub finished_at: Timestamp,
}

/// A tablespace of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseTablespace {
    /// Its number, under which it lies in the snapshot and in `pg_tblspc`.
    pub oid: u32,
    /// Its folder on the server.
    pub location: PathBuf,
}

/// What is known of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pages {
    /// Each fits its checksum.
    Verified,
    /// The cluster keeps no checksums (`data_checksums` is off).
    Unprotected,
    /// They were not looked at, since damaged pages were to be saved as well.
    Unverified,
}

impl Base {
    /// How long each file of the log is.
    pub fn segment_size(&self) -> Result<SegmentSize, Error> {
        SegmentSize::new(self.segment_bytes).map_err(|_| malformed("its size of segments"))
    }

    /// The server's version.
    pub fn version(&self) -> ServerVersion {
        ServerVersion(self.server_version_num)
    }
}

/// A base backup in a snapshot, as far as it takes to restore it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) base: Base,
    /// The tree of the cluster's files.
    pub(super) data: Id,
    /// The trees of the tablespaces.
    pub(super) tablespaces: Vec<(BaseTablespace, Id)>,
}

/// Reads what a snapshot says of the base backup that it holds.
///
/// # Errors
/// [`Error::Cluster`] with [`BaseError::NoBase`] if it holds none, or one that makes no sense.
pub async fn read_base(repository: &Repository, snapshot: &Id) -> Result<Base, Error> {
    Ok(read_stored(repository, snapshot).await?.base)
}

pub(super) async fn read_stored(repository: &Repository, snapshot: &Id) -> Result<Stored, Error> {
    let content = repository.snapshot(snapshot).await?;
    let reader = repository.reader().await?;
    let root = reader.tree(&content.tree).await?;
    let node = root.find(MANIFEST.as_ref()).filter(|node| node.kind == NodeKind::File);
    let node = node.ok_or_else(|| malformed("it has no manifest.json"))?;
    let base: Base =
        serde_json::from_slice(&read(&reader, node).await?).map_err(|error| malformed(&error.to_string()))?;
    if (&*base.schema, &*base.kind, &*base.method) != (SCHEMA, "postgres", METHOD) {
        return Err(malformed("its manifest.json is of another kind"));
    }
    base.segment_size()?;
    if base.start > base.end || base.timeline.0 == 0 {
        return Err(malformed("it ends before it begins"));
    }
    let data = subtree(&root, DATA.as_ref()).ok_or_else(|| malformed("it has no folder `data`"))?;
    let mut tablespaces = Vec::with_capacity(base.tablespaces.len());
    if !base.tablespaces.is_empty() {
        let folder = subtree(&root, TABLESPACES.as_ref()).ok_or_else(|| malformed("it has no folder `tablespaces`"))?;
        let folder = reader.tree(&folder).await?;
        for tablespace in &base.tablespaces {
            let tree = subtree(&folder, tablespace.oid.to_string().as_ref());
            let tree = tree.ok_or_else(|| malformed("one of its tablespaces is missing"))?;
            if tablespaces
                .iter()
                .any(|(other, _): &(BaseTablespace, Id)| other.oid == tablespace.oid)
            {
                return Err(malformed("it names a tablespace twice"));
            }
            tablespaces.push((tablespace.clone(), tree));
        }
    }
    Ok(Stored {
        base,
        data,
        tablespaces,
    })
}

fn subtree(tree: &Tree, name: &OsStr) -> Option<Id> {
    let node = tree.find(name).filter(|node| node.kind == NodeKind::Dir);
    node.and_then(|node| node.subtree)
}

async fn read(reader: &Reader, node: &Node) -> Result<Vec<u8>, Error> {
    if node.size > LONGEST {
        return Err(malformed("its manifest.json is too long"));
    }
    let mut bytes = Vec::new();
    for id in node.content.iter().flatten() {
        bytes.extend(reader.blob(BlobKind::Data, id).await?);
        if bytes.len() as u64 > LONGEST {
            return Err(malformed("its manifest.json is too long"));
        }
    }
    Ok(bytes)
}

fn malformed(why: &str) -> Error {
    Error::Cluster(BaseError::NoBase(why.to_owned()))
}
