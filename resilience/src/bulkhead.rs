//! The bulkhead: so many calls at one time, so many waiting, the rest refused at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::{BuildError, By, Rejected};
use crate::gate::{MAX_LIMIT, Ticket};
use crate::places::Places;

/// Limits calls at one time. Clones share.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    places: Places,
    queue: AtomicUsize,
    /// In nanoseconds, [`FOR_EVER`] for no limit.
    max_wait: AtomicU64,
    rejected: AtomicU64,
}

const FOR_EVER: u64 = u64::MAX;

/// How many may be inside and wait. By default 100 and 100, for as long as it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct BulkheadSettings {
    /// Calls at one time, from 1 to 2³¹ - 1.
    pub limit: usize,
    /// Calls waiting.
    pub queue: usize,
    /// The longest wait for a place.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::optional_length"))]
    pub max_wait: Option<Duration>,
}

impl Default for BulkheadSettings {
    fn default() -> Self {
        Self {
            limit: 100,
            queue: 100,
            max_wait: None,
        }
    }
}

impl BulkheadSettings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// A limit of zero or above 2³¹ - 1; a longest wait of zero, or one for a queue without places.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let refuse = |key, problem| Err(BuildError::new(name, key, problem));
        match (self.limit, self.max_wait) {
            (0, _) => refuse("bulkhead.limit", "must be at least 1"),
            (limit, _) if limit > MAX_LIMIT => refuse("bulkhead.limit", "must be below 2147483648"),
            (_, Some(Duration::ZERO)) => refuse("bulkhead.max_wait", "must be above zero"),
            (_, Some(_)) if self.queue == 0 => refuse("bulkhead.max_wait", "needs a bulkhead.queue above zero"),
            _ => Ok(()),
        }
    }

    fn max_wait_nanos(&self) -> u64 {
        self.max_wait
            .and_then(|wait| u64::try_from(wait.as_nanos()).ok())
            .unwrap_or(FOR_EVER)
    }
}

impl Bulkhead {
    /// `limit` calls at one time and `queue` more waiting, for as long as it takes.
    ///
    /// # Errors
    /// A limit of zero or above 2³¹ - 1.
    pub fn new(name: impl Into<Arc<str>>, limit: usize, queue: usize) -> Result<Self, BuildError> {
        let max_wait = None;
        Self::from_settings(name, &BulkheadSettings { limit, queue, max_wait })
    }

    /// As the settings say.
    ///
    /// # Errors
    /// Those of [`BulkheadSettings::check`].
    pub fn from_settings(name: impl Into<Arc<str>>, settings: &BulkheadSettings) -> Result<Self, BuildError> {
        let name = name.into();
        settings.check(&name)?;
        Ok(Self {
            inner: Arc::new(Inner {
                name,
                places: Places::new(settings.limit),
                queue: AtomicUsize::new(settings.queue),
                max_wait: AtomicU64::new(settings.max_wait_nanos()),
                rejected: AtomicU64::new(0),
            }),
        })
    }

    /// Changes the settings. Whoever is inside or waits stays, and those who wait enter when there is more room now.
    ///
    /// # Errors
    /// Those of [`BulkheadSettings::check`]; nothing is changed then.
    pub fn reload(&self, settings: &BulkheadSettings) -> Result<(), BuildError> {
        settings.check(&self.inner.name)?;
        self.inner.queue.store(settings.queue, Ordering::Relaxed);
        self.inner.max_wait.store(settings.max_wait_nanos(), Ordering::Relaxed);
        self.inner.places.set_limit(settings.limit);
        Ok(())
    }

    /// Takes a place, in the order of arrival; it is free again when the result is dropped. A waiting call that is
    /// dropped leaves the queue.
    ///
    /// # Errors
    /// When all places and the queue are taken, or the longest wait is over.
    pub async fn enter(&self) -> Result<Place, Rejected> {
        if !self.try_enter() {
            let waiting = self.wait()?;
            match self.max_wait() {
                None => waiting.await,
                Some(limit) => tokio::time::timeout(limit, waiting).await.map_err(|_| self.refuse())?,
            }
        }
        Ok(Place { bulkhead: self.clone() })
    }

    /// Takes a place if one is free and nobody waits for it. [`Bulkhead::leave`] is owed then.
    pub(crate) fn try_enter(&self) -> bool {
        self.inner.places.try_enter()
    }

    /// A turn in the queue. Once it resolves, [`Bulkhead::leave`] is owed; dropped before, it gives everything back.
    pub(crate) fn wait(&self) -> Result<Waiting, Rejected> {
        match self.inner.places.join(self.inner.queue.load(Ordering::Relaxed)) {
            Some(ticket) => Ok(Waiting {
                inner: Arc::clone(&self.inner),
                ticket: Some(ticket),
            }),
            None => Err(self.refuse()),
        }
    }

    /// Gives a place back that was taken without a [`Place`].
    pub(crate) fn leave(&self) {
        self.inner.places.leave();
    }

    /// The longest wait; whoever awaits [`Bulkhead::wait`] sees to it, and calls [`Bulkhead::refuse`] when it is over.
    pub(crate) fn max_wait(&self) -> Option<Duration> {
        match self.inner.max_wait.load(Ordering::Relaxed) {
            FOR_EVER => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Counts a refusal.
    pub(crate) fn refuse(&self) -> Rejected {
        self.inner.rejected.fetch_add(1, Ordering::Relaxed);
        Rejected {
            by: By::Bulkhead,
            name: Arc::clone(&self.inner.name),
            retry_after: None,
        }
    }

    /// What is inside, waiting and was refused.
    pub fn snapshot(&self) -> BulkheadSnapshot {
        let count = self.inner.places.count();
        BulkheadSnapshot {
            limit: count.limit,
            in_flight: count.in_flight,
            queued: self.inner.places.queued(),
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
            if self.inner.places.poll(ticket, context).is_pending() {
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
            self.inner.places.cancel(ticket);
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
