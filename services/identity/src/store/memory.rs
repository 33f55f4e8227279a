//! The store of tests and of a service that need not remember: everything in memory, under one lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Store, StoreError, User};
use crate::account::Email;

/// Users in memory. Clones share them, as instances share a database.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    users: Arc<Mutex<HashMap<Email, User>>>,
}

#[async_trait]
impl Store for MemoryStore {
    async fn add(&self, user: User) -> Result<(), StoreError> {
        match self
            .users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(user.email.clone())
        {
            Entry::Occupied(_) => Err(StoreError::Exists),
            Entry::Vacant(place) => {
                place.insert(user);
                Ok(())
            }
        }
    }

    async fn find(&self, email: &Email) -> Result<Option<User>, StoreError> {
        Ok(self
            .users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(email)
            .cloned())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        super::super::contract::check(|| async {
            let store = MemoryStore::default();
            (store.clone(), store)
        })
        .await;
    }
}
