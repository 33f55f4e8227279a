//! The bulkhead: so many calls at one time, so many waiting, the rest refused at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{BuildError, By, Rejected};

/// Limits calls at one time. Clones share.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    limit: usize,
    queue: usize,
    places: Arc<Semaphore>,
    queued: AtomicUsize,
    rejected: AtomicU64,
}

impl Bulkhead {
    /// `limit` calls at one time and `queue` more waiting.
    ///
    /// # Errors
    /// A limit of zero, or more than tokio's semaphore can count.
    pub fn new(name: impl Into<Arc<str>>, limit: usize, queue: usize) -> Result<Self, BuildError> {
        let name = name.into();
        if limit == 0 || limit > Semaphore::MAX_PERMITS {
            return Err(BuildError::new(&name, "bulkhead.limit", "must be at least 1"));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                name,
                limit,
                queue,
                places: Arc::new(Semaphore::new(limit)),
                queued: AtomicUsize::new(0),
                rejected: AtomicU64::new(0),
            }),
        })
    }

    /// Takes a place, in the order of arrival; it is free again when the result is dropped. A waiting call that is
    /// dropped leaves the queue.
    ///
    /// # Errors
    /// When all places and the queue are taken.
    pub async fn enter(&self) -> Result<Place, Rejected> {
        if let Ok(permit) = Arc::clone(&self.inner.places).try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let waiting = Waiting::join(&self.inner).ok_or_else(|| self.refuse())?;
        let permit = Arc::clone(&self.inner.places).acquire_owned().await;
        drop(waiting);
        // The semaphore is never closed.
        permit
            .map(|permit| Place { _permit: permit })
            .map_err(|_| self.refuse())
    }

    fn refuse(&self) -> Rejected {
        self.inner.rejected.fetch_add(1, Ordering::Relaxed);
        Rejected {
            by: By::Bulkhead,
            name: Arc::clone(&self.inner.name),
            retry_after: None,
        }
    }

    /// What is inside, waiting and was refused.
    pub fn snapshot(&self) -> BulkheadSnapshot {
        BulkheadSnapshot {
            limit: self.inner.limit,
            in_flight: self.inner.limit - self.inner.places.available_permits().min(self.inner.limit),
            queued: self.inner.queued.load(Ordering::Relaxed),
            rejected: self.inner.rejected.load(Ordering::Relaxed),
        }
    }
}

/// A place in a bulkhead.
#[derive(Debug)]
#[must_use]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn join(inner: &'a Inner) -> Option<Self> {
        inner
            .queued
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |queued| {
                (queued < inner.queue).then_some(queued + 1)
            })
            .ok()
            .map(|_| Self(inner))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Figures of a bulkhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct BulkheadSnapshot {
    /// Places.
    pub limit: usize,
    /// Calls inside.
    pub in_flight: usize,
    /// Calls waiting.
    pub queued: usize,
    /// Calls refused since the start.
    pub rejected: u64,
}
