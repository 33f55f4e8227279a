//! A store in memory: the twin of [`LocalStore`](super::LocalStore) for tests and rehearsals.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{Entry, Page, Store, StoreError, StoreKey};
use crate::clock;

/// Objects in a sorted map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<StoreKey, (Bytes, Timestamp)>>,
    ahead: Mutex<SignedDuration>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts bytes where they are, whatever was there: how tests make damage.
    pub fn overwrite(&self, key: StoreKey, body: impl Into<Bytes>) {
        self.objects().insert(key, (body.into(), self.now()));
    }

    /// Puts the store's clock forward: what is there is older by that much.
    pub fn advance(&self, time: SignedDuration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }

    fn now(&self) -> Timestamp {
        clock::now() + *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<StoreKey, (Bytes, Timestamp)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn absent(key: &StoreKey) -> StoreError {
    StoreError::NotFound { key: key.to_string() }
}

#[async_trait]
impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn put(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Err(StoreError::Exists { key: key.to_string() });
        }
        objects.insert(key.clone(), (body, self.now()));
        Ok(())
    }

    async fn get(&self, key: &StoreKey) -> Result<Bytes, StoreError> {
        self.objects()
            .get(key)
            .map(|(body, _)| body.clone())
            .ok_or_else(|| absent(key))
    }

    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let body = self.get(key).await?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
        let end = start
            .saturating_add(usize::try_from(length).unwrap_or(usize::MAX))
            .min(body.len());
        Ok(body.slice(start..end))
    }

    async fn stat(&self, key: &StoreKey) -> Result<Entry, StoreError> {
        let objects = self.objects();
        let (body, modified) = objects.get(key).ok_or_else(|| absent(key))?;
        Ok(Entry {
            key: key.clone(),
            size: body.len() as u64,
            modified: Some(*modified),
        })
    }

    async fn list(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, StoreError> {
        let objects = self.objects();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut matching = objects
            .range((start, Bound::Unbounded))
            .filter(|(key, _)| key.as_str().starts_with(prefix));
        let entries: Vec<Entry> = matching
            .by_ref()
            .take(limit.max(1))
            .map(|(key, (body, modified))| Entry {
                key: key.clone(),
                size: body.len() as u64,
                modified: Some(*modified),
            })
            .collect();
        let next = matching
            .next()
            .and_then(|_| entries.last().map(|entry| entry.key.clone()));
        Ok(Page { entries, next })
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.objects().remove(key);
        Ok(())
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        Ok(self.now())
    }
}
