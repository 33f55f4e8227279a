//! The bulkhead: so many calls at one time, so many waiting, the rest refused at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use crate::error::{BuildError, By, Rejected};
use crate::gate::{Gate, MAX_LIMIT, Ticket};

/// Limits calls at one time. Clones share.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    gate: Gate,
    queue: AtomicUsize,
    rejected: AtomicU64,
}

impl Bulkhead {
    /// `limit` calls at one time and `queue` more waiting.
    ///
    /// # Errors
    /// A limit of zero or above 2³¹ - 1.
    pub fn new(name: impl Into<Arc<str>>, limit: usize, queue: usize) -> Result<Self, BuildError> {
        let name = name.into();
        if limit == 0 || limit > MAX_LIMIT {
            return Err(BuildError::new(&name, "bulkhead.limit", "must be at least 1"));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                name,
                gate: Gate::new(limit),
                queue: AtomicUsize::new(queue),
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
        if !self.try_enter() {
            self.wait()?.await;
        }
        Ok(Place {
            bulkhead: self.clone(),
        })
    }

    /// Takes a place if one is free and nobody waits for it. [`Bulkhead::leave`] is owed then.
    pub(crate) fn try_enter(&self) -> bool {
        self.inner.gate.try_enter()
    }

    /// A turn in the queue. Once it resolves, [`Bulkhead::leave`] is owed; dropped before, it gives everything back.
    pub(crate) fn wait(&self) -> Result<Waiting, Rejected> {
        match self.inner.gate.join(self.inner.queue.load(Ordering::Relaxed)) {
            Some(ticket) => Ok(Waiting {
                inner: Arc::clone(&self.inner),
                ticket: Some(ticket),
            }),
            None => Err(self.refuse()),
        }
    }

    /// Gives a place back that was taken without a [`Place`].
    pub(crate) fn leave(&self) {
        self.inner.gate.leave();
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
        let count = self.inner.gate.count();
        BulkheadSnapshot {
            limit: count.limit,
            in_flight: count.in_flight,
            queued: self.inner.gate.queued(),
            rejected: self.inner.rejected.load(Ordering::Relaxed),
        }
    }
}

/// A place in a bulkhead.
#[derive(Debug)]
#[must_use]
pub struct Place {
    bulkhead: Bulkhead,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bulkhead.leave();
    }
}

/// Waits for a place.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Waiting {
    inner: Arc<Inner>,
    /// Gone once the place is there.
    ticket: Option<Ticket>,
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(ticket) = &self.ticket {
            if self.inner.gate.poll(ticket, context).is_pending() {
                return Poll::Pending;
            }
            self.ticket = None;
        }
        Poll::Ready(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            self.inner.gate.cancel(ticket);
        }
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
