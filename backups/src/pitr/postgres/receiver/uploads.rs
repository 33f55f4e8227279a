//! What is on its way into the archive: several files at one time, told as durable in the order of the log. A store that
//! fails is tried again for as long as it takes, since the server keeps what is not confirmed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use replication::{Lsn, SegmentSize, SystemId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::super::archive::{Archive, ArchiveError, File};
use super::status::Status;
use super::{Backoff, ReceiverError, failing, recovered};
use crate::error::Error;
use crate::store::StoreError;
use crate::threads::ended;

/// How long a store may take for a small file. A large one may come as slowly as [`SLOWEST`].
const PUT_LIMIT: Duration = Duration::from_mins(1);
/// Bytes in a second.
const SLOWEST: u64 = 256 << 10;

/// Where files go, and who is told of failures.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) archive: Archive,
    pub(super) system: SystemId,
    pub(super) size: SegmentSize,
    pub(super) status: Arc<watch::Sender<Status>>,
}

impl Keeper {
    /// Keeps a file, however often that takes.
    ///
    /// # Errors
    /// Only what no other try mends.
    pub(super) async fn keep(&self, file: File, content: Bytes) -> Result<(), ArchiveError> {
        let mut backoff = Backoff::new();
        loop {
            match self.once(file, content.clone()).await {
                Ok(()) => {
                    if backoff.failures() > 0 {
                        recovered(&self.status);
                    }
                    return Ok(());
                }
                Err(error) if error.is_passing() => {
                    failing(&self.status, &error);
                    backoff.pause().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn once(&self, file: File, content: Bytes) -> Result<(), ArchiveError> {
        let limit = PUT_LIMIT + Duration::from_secs(content.len() as u64 / SLOWEST);
        let put = self.archive.put(self.system, file, self.size, content);
        let slow = |_| {
            ArchiveError::from(StoreError::Io {
                action: "write",
                key: file.name(self.size),
                source: std::io::ErrorKind::TimedOut.into(),
            })
        };
        tokio::time::timeout(limit, put).await.map_err(slow)?.map(drop)
    }

    /// The same, beside what else there is to do.
    pub(super) fn spawn(&self, file: File, content: Bytes) -> AbortOnDropHandle<Result<(), ArchiveError>> {
        let keeper = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { keeper.keep(file, content).await }))
    }
}

/// Files on their way, in the order of the log.
pub(super) struct Uploads {
    keeper: Keeper,
    queue: FuturesOrdered<Upload>,
    /// Up to here everything is on its way or there.
    queued: Lsn,
}

type Upload = std::pin::Pin<Box<dyn Future<Output = Result<Lsn, ReceiverError>> + Send>>;

impl Uploads {
    /// Everything up to `durable` is there.
    pub(super) fn new(keeper: Keeper, durable: Lsn) -> Self {
        Self {
            keeper,
            queue: FuturesOrdered::new(),
            queued: durable,
        }
    }

    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn queued(&self) -> Lsn {
        self.queued
    }

    /// Sends a file that holds the log up to `until`.
    pub(super) fn send(&mut self, file: File, content: Bytes, until: Lsn) {
        let task = self.keeper.spawn(file, content);
        self.queue.push_back(Box::pin(async move {
            task.await.map_err(|error| ReceiverError::from(ended(error)))??;
            Ok(until)
        }));
        self.queued = self.queued.max(until);
    }

    /// Waits for the next one: then everything up to this position is durable. `None` if there is none.
    pub(super) async fn next(&mut self) -> Option<Result<Lsn, ReceiverError>> {
        self.queue.next().await
    }

    /// Waits until all are there, or the time is over; returns up to where the log is durable now.
    pub(super) async fn drain(&mut self, limit: Duration, mut durable: Lsn) -> Result<Lsn, ReceiverError> {
        let end = Instant::now() + limit;
        while !self.is_empty() {
            match tokio::time::timeout_at(end, self.next()).await {
                Ok(Some(until)) => durable = durable.max(until?),
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!(left = self.len(), "log that was received could not be kept in time");
                    break;
                }
            }
        }
        Ok(durable)
    }
}

impl From<Error> for ReceiverError {
    fn from(error: Error) -> Self {
        Self::Archive(error.into())
    }
}
