//! The archive as a recovery is fed from it.

use std::error::Error;

use async_trait::async_trait;
use bytes::Bytes;
use replication::{SegmentSize, SystemId, Timeline};

use super::super::archive::{Archive, ArchivedLog, File};
use super::super::reach::Piece;
use super::super::search::Log as _;
use super::super::serve::Supply;

/// The log of one cluster in an archive.
#[derive(Clone)]
pub struct FromArchive {
    archive: Archive,
    log: ArchivedLog,
    system: SystemId,
    size: SegmentSize,
}

impl FromArchive {
    /// The log of this cluster, whose segments have this size.
    pub fn new(archive: &Archive, system: SystemId, size: SegmentSize) -> Self {
        Self {
            archive: archive.clone(),
            log: archive.log(system, size),
            system,
            size,
        }
    }
}

#[async_trait]
impl Supply for FromArchive {
    async fn piece(&self, piece: &Piece, _size: SegmentSize) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
        Ok(self.log.read(piece).await?)
    }

    async fn history(&self, timeline: Timeline) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
        Ok(self
            .archive
            .get(self.system, &File::History(timeline), self.size)
            .await?)
    }
}
