//! The second way into the archive: the server hands each whole segment over itself (`archive_command`). What it brings
//! is believed no more than what a receiver gets: the file must be of its name, of the cluster, and whole.
//!
//! The server repeats a push until it succeeds, and may do so after it succeeded: the same content again is no error,
//! other content under the same name is.

use std::path::Path;

use bytes::Bytes;
use replication::{History, HistoryError, Segment, SegmentSize, SystemId, Timeline};

use super::archive::{Archive, ArchiveError, Put};
use super::contents::Standing;
use super::serve::is_name;
use super::wal::{Expected, Fault, check_segment};
use crate::threads::blocking;

/// What came of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the archive now.
    Stored,
    /// It was there already.
    Present,
    /// No recovery asks for it: the label of a backup, or the torn end of a timeline that was left.
    NotNeeded,
}

/// Why a file was not taken. The server keeps it, and tries again.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It has no name of the log.
    #[error("{0:?} is no name of a file of the log")]
    Name(String),
    /// It has a size that no segment has.
    #[error("{name} has {length} bytes, and no segment does")]
    Size {
        /// The file.
        name: String,
        /// Its length.
        length: u64,
    },
    /// It is not what its name says.
    #[error("{name} is not the log that it should be")]
    Log {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: Fault,
    },
    /// It is no file of history.
    #[error("{name} is no file of history")]
    History {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: HistoryError,
    },
    /// The archive is another cluster's.
    #[error("the archive of {datastore} has the log of the cluster {theirs}, and {name} is of {ours}")]
    OtherCluster {
        /// The datastore.
        datastore: String,
        /// The file.
        name: String,
        /// The cluster that is there.
        theirs: SystemId,
        /// The file's.
        ours: SystemId,
    },
    /// Which cluster it is of is not known: only the log itself and the server's control file say so.
    #[error("of which cluster {0} is cannot be told")]
    NoCluster(String),
    /// It could not be kept.
    #[error("it could not be kept")]
    Archive(#[from] ArchiveError),
}

/// The cluster of a data folder and the size of its segments, as far as its files tell: `global/pg_control` begins with
/// the system identifier, and `pg_wal` is full of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cluster {
    /// The cluster.
    pub system: Option<SystemId>,
    /// How long each segment is.
    pub segment_size: Option<SegmentSize>,
}

impl Cluster {
    /// Reads what lies around a file of the log, `…/pg_wal/NAME`. What is not there is not known.
    pub fn around(file: &Path) -> Self {
        let Some(log) = file.parent() else {
            return Self::default();
        };
        let control = log.parent().map(|data| data.join("global/pg_control"));
        let system = control.and_then(|control| {
            let mut file = std::fs::File::open(control).ok()?;
            let mut system = [0; 8];
            std::io::Read::read_exact(&mut file, &mut system).ok()?;
            Some(SystemId(u64::from_ne_bytes(system))).filter(|system| system.0 != 0)
        });
        let segment = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let named = name.to_str().is_some_and(|name| name.len() == 24 && is_name(name));
            let metadata = entry.metadata().ok().filter(|metadata| named && metadata.is_file())?;
            SegmentSize::new(metadata.len()).ok()
        };
        let segment_size = std::fs::read_dir(log)
            .ok()
            .and_then(|entries| entries.flatten().find_map(segment));
        Self { system, segment_size }
    }
}

/// Puts a file of the log into the archive, after looking at all of it.
///
/// # Errors
/// [`PushError`]; after one nothing was stored, or all of it.
pub async fn push(archive: &Archive, name: &str, content: Bytes, cluster: Cluster) -> Result<Pushed, PushError> {
    if !is_name(name) {
        return Err(PushError::Name(name.to_owned()));
    }
    let put = if let Ok(timeline) = Timeline::of_history_file(name) {
        history(archive, name, timeline, content, cluster).await?
    } else if name.len() == 24 {
        segment(archive, name, content, cluster).await?
    } else {
        return Ok(Pushed::NotNeeded);
    };
    Ok(match put {
        Put::Stored => Pushed::Stored,
        Put::Present => Pushed::Present,
    })
}

async fn segment(archive: &Archive, name: &str, content: Bytes, cluster: Cluster) -> Result<Put, PushError> {
    let length = content.len() as u64;
    let size = SegmentSize::new(length).map_err(|_| PushError::Size {
        name: name.to_owned(),
        length,
    })?;
    let segment = Segment::parse(name, size).map_err(|_| PushError::Name(name.to_owned()))?;
    let expected = Expected {
        system: cluster.system,
        segment_size: size,
        timeline: segment.timeline,
        history: None,
    };
    let bytes = content.clone();
    let checked = blocking(move || check_segment(&bytes, segment, &expected)).await;
    let checked = checked.map_err(ArchiveError::from)?.map_err(|source| PushError::Log {
        name: name.to_owned(),
        source,
    })?;
    same_cluster(archive, name, checked.system).await?;
    let put = archive.put_segment(checked.system, segment, size, content).await?;
    // Nobody else says up to which moment the archive is whole, where nothing but this fills it.
    if let Some((moment, lsn)) = checked.newest {
        let timeline = segment.timeline;
        let standing = Standing { timeline, lsn, moment };
        archive.put_standing(checked.system, size, standing).await?;
    }
    Ok(put)
}

async fn history(
    archive: &Archive,
    name: &str,
    timeline: Timeline,
    content: Bytes,
    cluster: Cluster,
) -> Result<Put, PushError> {
    History::parse(&content).map_err(|source| PushError::History {
        name: name.to_owned(),
        source,
    })?;
    let system = cluster.system.ok_or_else(|| PushError::NoCluster(name.to_owned()))?;
    same_cluster(archive, name, system).await?;
    let size = cluster.segment_size.unwrap_or_default();
    Ok(archive.put_history(system, timeline, size, content).await?)
}

/// Two clusters under one name would be one as much as the other at the next restore.
async fn same_cluster(archive: &Archive, name: &str, ours: SystemId) -> Result<(), PushError> {
    match archive.systems().await?.iter().find(|theirs| **theirs != ours) {
        Some(theirs) => Err(PushError::OtherCluster {
            datastore: archive.datastore().to_string(),
            name: name.to_owned(),
            theirs: *theirs,
            ours,
        }),
        None => Ok(()),
    }
}
