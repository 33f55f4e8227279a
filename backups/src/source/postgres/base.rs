//! A physical base backup: the server sends all files of the cluster as tar archives, they are stored file by file, and
//! count once the server has said that all was sent, each file is what the server's manifest says, and the log that makes
//! them consistent is in the archive. A connection that breaks before leaves no snapshot.
//!
//! One task reads from the server, one takes the archives apart, hashes the files and cuts them (`intake`), the threads of
//! the writer seal. What is checked at the end (`check`) are hashes that were computed on the way.

mod check;
mod error;
mod folders;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod intake;
mod keep;
mod log;
mod manifest;
mod record;
mod restore;
mod tar;
mod verify;

pub use error::{BaseError, FileProblem};
pub use keep::InArchive;
pub use log::{KeepLog, LogOf, LogSpan};
pub use manifest::ManifestFault;
pub use record::{Base, BaseTablespace, DATA, Pages, TABLESPACES, read_base};
pub use restore::{BaseRestore, Owner, RestoredBase, TablespaceMap, Unfinished, restore_base};
pub use tar::TarFault;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use replication::{Address, BaseBackup, BaseBackupStream, Checkpoint, Connection, Part, Position, SegmentSize};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::progress::Phase;
use crate::repo::{Tree, Writer};
use crate::source::stream::{MANIFEST, stream_node};
use crate::source::{Source, Verification, Written};
use crate::threads::{blocking, ended};
use crate::{Error, clock};
use folders::Look;
use intake::Intake;

/// So many parts lie between the task that reads and the one that takes apart. The server sends 32 KiB at a time.
const PARTS_AHEAD: usize = 256;
/// So many are taken together.
const PARTS_AT_ONCE: usize = 32;

/// How to take a base backup.
pub struct BaseOptions {
    /// The server: a primary, or a standby.
    pub address: Address,
    /// The datastore's name; the snapshot's path is `/` and this.
    pub name: String,
    /// How soon the server begins.
    pub checkpoint: Checkpoint,
    /// What becomes of a backup in which pages do not fit their checksums.
    pub corrupt_pages: CorruptPages,
}

/// What becomes of a backup of a cluster with damaged pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CorruptPages {
    /// It fails, and names the files.
    #[default]
    Refuse,
    /// They are saved as they are: the server does not look. For whoever knows of the damage and wants what is left.
    Save,
}

/// A PostgreSQL cluster, as a whole.
pub struct BaseSource {
    options: BaseOptions,
    log: Arc<dyn KeepLog>,
}

impl BaseSource {
    /// The cluster of the server at this address. `log` keeps the log meanwhile, and says when it is safe.
    pub fn new(options: BaseOptions, log: Arc<dyn KeepLog>) -> Self {
        Self { options, log }
    }

    async fn begin(&self, connection: Connection, pages: Pages) -> Result<BaseBackupStream, Error> {
        let options = BaseBackup {
            label: format!("opsctl {}", self.options.name),
            checkpoint: self.options.checkpoint,
            verify_checksums: pages == Pages::Verified,
            // A restore makes the links to the tablespaces by itself, where it is told to.
            tablespace_map: false,
        };
        Ok(connection.base_backup(&options).await?)
    }

    fn pages(&self, data_checksums: &str) -> Pages {
        match (data_checksums, self.options.corrupt_pages) {
            ("on", CorruptPages::Refuse) => Pages::Verified,
            ("on", CorruptPages::Save) => Pages::Unverified,
            _ => Pages::Unprotected,
        }
    }
}

#[async_trait]
impl Source for BaseSource {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![Path::new("/").join(&self.options.name)]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let started_at = clock::now();
        let mut connection = Connection::open(&self.options.address, "opsctl backup").await?;
        let version = connection.server_version();
        if version.major() < 13 {
            return Err(BaseError::TooOld(version).into());
        }
        let identity = connection.identify().await?;
        let segment_size = connection.show("wal_segment_size").await?;
        let segment_size =
            SegmentSize::of_setting(&segment_size).map_err(|error| BaseError::Inconsistent(error.to_string()))?;
        let pages = self.pages(&connection.show("data_checksums").await?);
        let log = LogOf {
            system: identity.system,
            timeline: identity.timeline,
            segment_size,
            written: identity.flushed,
        };
        self.log.begin(&log).await?;

        into.progress().phase(Phase::Copying, None, None);
        let stream = self.begin(connection, pages).await?;
        let start = stream.start();
        let tablespaces = stream.tablespaces().iter().filter_map(|tablespace| {
            Some(BaseTablespace {
                oid: tablespace.oid?,
                location: tablespace.location.clone().into(),
            })
        });
        let tablespaces: Vec<_> = tablespaces.collect();
        let expected = stream.tablespaces().iter().map(|tablespace| tablespace.size);
        into.progress().phase(Phase::Saving, expected.sum(), None);

        let (received, end) = receive(into, stream).await?;
        if end.timeline != start.timeline || end.lsn < start.lsn {
            let what = format!(
                "the backup begins at {} of timeline {} and ends at {} of timeline {}",
                start.lsn, start.timeline, end.lsn, end.timeline
            );
            return Err(BaseError::Inconsistent(what).into());
        }
        let finished_at = clock::now();
        let (files, bytes) = check::whole(&received, identity.system, &tablespaces, start, end)?;

        let span = LogSpan {
            system: identity.system,
            timeline: start.timeline,
            segment_size,
            start: start.lsn,
            end: end.lsn,
        };
        let base = Base {
            schema: record::SCHEMA.to_owned(),
            kind: self.kind().to_owned(),
            method: record::METHOD.to_owned(),
            tool_version: concat!("opsctl ", env!("CARGO_PKG_VERSION")).to_owned(),
            system: identity.system,
            server_version: version.to_string(),
            server_version_num: version.0,
            segment_bytes: segment_size.bytes(),
            timeline: start.timeline,
            start: start.lsn,
            end: end.lsn,
            pages,
            tablespaces,
            files,
            bytes,
            started_at,
            finished_at,
        };
        let root = store(into, received, &base).await?;
        self.log.held(&span).await?;
        Ok(Written {
            root,
            skipped: Vec::new(),
            changed: Vec::new(),
        })
    }

    async fn verify(&self, restored: &Path) -> Result<Verification, Error> {
        let (data, tablespaces) = (restored.join(DATA), restored.join(TABLESPACES));
        let checks = blocking(move || verify::files(&data, |oid| tablespaces.join(oid.to_string())));
        Ok(Verification { checks: checks.await? })
    }
}

/// Stores what the server sends, to its end, and returns where that is.
async fn receive(into: &Writer<'_>, stream: BaseBackupStream) -> Result<(intake::Received, Position), Error> {
    let (sender, mut parts) = mpsc::channel(PARTS_AHEAD);
    let reading = AbortOnDropHandle::new(tokio::spawn(read(stream, sender)));
    let mut intake = Intake::new(into);
    let mut together = Vec::with_capacity(PARTS_AT_ONCE);
    while parts.recv_many(&mut together, PARTS_AT_ONCE).await > 0 {
        into.still_wanted()?;
        for part in together.drain(..) {
            intake.take(part).await?;
        }
    }
    // What the server says at the end decides, whatever has come by then.
    match reading.await.map_err(ended)? {
        Ok(end) => Ok((intake.finish().await?, end)),
        Err(error) => Err(explain(error)),
    }
}

/// Reads from the server until it has said that all was sent.
async fn read(mut stream: BaseBackupStream, parts: mpsc::Sender<Part>) -> Result<Position, replication::Error> {
    while let Some(part) = stream.next().await? {
        if parts.send(part).await.is_err() {
            // Nobody takes it any more, and nobody asks for what is returned.
            std::future::pending::<()>().await;
        }
    }
    drop(parts);
    Ok(stream.finish().await?.0)
}

/// Writes the trees, with the record in the root.
async fn store(into: &Writer<'_>, received: intake::Received, base: &Base) -> Result<Tree, Error> {
    let json = serde_json::to_vec_pretty(base).map_err(|_| Error::Internal("a record is always valid JSON"))?;
    let json = into.save_bytes(json).await?;
    into.count(|summary| {
        summary.files_new += 1;
        summary.total_files_processed += 1;
        summary.total_bytes_processed += json.size;
    });
    let before = match into.parent() {
        Some(parent) => into.parent_tree(&parent.tree).await,
        None => None,
    };
    let otherwise = Look::ours(base.finished_at);
    let mut nodes = received
        .root
        .nodes(into, &received.blobs, before.as_ref(), otherwise)
        .await?;
    nodes.push(stream_node(MANIFEST.into(), json, base.finished_at));
    Ok(Tree::new(nodes))
}

/// The server's error, or what it means: which files have damaged pages stands in its warnings, and those in the detail.
fn explain(error: replication::Error) -> Error {
    const DATA_CORRUPTED: &str = "XX001";
    let said = error.server().filter(|said| said.code == DATA_CORRUPTED);
    let files = said.map(|said| damaged_files(&said.detail)).unwrap_or_default();
    if files.is_empty() {
        error.into()
    } else {
        BaseError::CorruptPages { files }.into()
    }
}

/// The files that the server warned of, each once. Its words are those of `sendFile`, in the language of its messages: what
/// stands between quotation marks is the file, with one warning a page and up to five for a file.
fn damaged_files(warnings: &str) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for file in warnings
        .split('"')
        .skip(1)
        .step_by(2)
        .map(|file| file.trim_start_matches("./"))
    {
        if !file.is_empty() && !files.iter().any(|known| known == file) {
            files.push(file.to_owned());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_named_once_each() {
        let warnings = "checksum verification failed in file \"./base/5/16384\", block 0: calculated 9F but expected 1; \
             checksum verification failed in file \"./base/5/16384\", block 1: calculated 9F but expected 1; \
             file \"./global/1262\" has a total of 2 checksum verification failures";
        assert_eq!(damaged_files(warnings), ["base/5/16384", "global/1262"]);
        assert_eq!(damaged_files(""), Vec::<String>::new());
        assert_eq!(damaged_files("cut in the name of \"base/5/1"), ["base/5/1"]);
    }
}
