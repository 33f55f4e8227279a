//! A decorator that fails on purpose, so that tests can ask what is left when a store fails at any one write.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{Entry, Page, Store, StoreError, StoreKey};

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written; the answer is an error.
    Refuse,
    /// Nothing is written, for want of space.
    Full,
    /// The object is written, and the answer is lost.
    LoseAnswer,
    /// The answer never comes; the object is not written.
    Hang,
}

/// Lets `allowed` writes through and fails each later one, deletions included.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    allowed: usize,
    fault: Fault,
    writes: AtomicUsize,
}

impl FaultyStore {
    /// Fails from write `allowed` (counted from 0) on.
    pub fn new(inner: Arc<dyn Store>, allowed: usize, fault: Fault) -> Self {
        Self {
            inner,
            allowed,
            fault,
            writes: AtomicUsize::new(0),
        }
    }

    /// How many writes were asked for.
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    async fn strike(&self, action: &'static str, key: &StoreKey) -> Option<StoreError> {
        if self.writes.fetch_add(1, Ordering::SeqCst) < self.allowed {
            return None;
        }
        match self.fault {
            Fault::Hang => std::future::pending().await,
            Fault::Full => Some(StoreError::Full {
                location: self.location(),
            }),
            Fault::Refuse | Fault::LoseAnswer => Some(StoreError::Io {
                action,
                key: key.to_string(),
                source: std::io::Error::other("injected fault"),
            }),
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        match self.strike("write", key).await {
            None => self.inner.put(key, body).await,
            Some(error) => {
                if self.fault == Fault::LoseAnswer {
                    self.inner.put(key, body).await?;
                }
                Err(error)
            }
        }
    }

    async fn get(&self, key: &StoreKey) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, offset, length).await
    }

    async fn stat(&self, key: &StoreKey) -> Result<Entry, StoreError> {
        self.inner.stat(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        match self.strike("delete", key).await {
            None => self.inner.delete(key).await,
            Some(error) => {
                if self.fault == Fault::LoseAnswer {
                    self.inner.delete(key).await?;
                }
                Err(error)
            }
        }
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.inner.time().await
    }

    fn transfers(&self) -> usize {
        self.inner.transfers()
    }

    async fn sweep(&self, age: SignedDuration) -> Result<u64, StoreError> {
        self.inner.sweep(age).await
    }
}
