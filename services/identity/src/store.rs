//! Where users are kept. Every implementation gives the same answers: `contract` says which, for all of them.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::{DatabaseError, Place};
use health::HealthBuilder;
use jiff::Timestamp;
use telemetry::Telemetry;
use uuid::Uuid;

use crate::account::Email;

mod memory;
mod postgres;
mod sqlite;

#[cfg(test)]
mod contract;

pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Keeps users. What is answered is durable. Instances share what they store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Adds a user. Errors: [`StoreError::Exists`].
    async fn add(&self, user: User) -> Result<(), StoreError>;

    /// The user with that address.
    async fn find(&self, email: &Email) -> Result<Option<User>, StoreError>;

    /// Answers when the store can be used.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// A registered user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// UUID version 7.
    pub id: Uuid,
    /// No two users have the same.
    pub email: Email,
    /// As `password::Hasher` makes it.
    pub password_hash: String,
    /// When, to the microsecond.
    pub created_at: Timestamp,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody has that address.
    #[error("this address is registered already")]
    Exists,
    /// The database failed.
    #[error("the store failed")]
    Database(#[source] DatabaseError),
}

impl<E: Into<DatabaseError>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// Opens the store in `place`, told of by `telemetry` and asked after by `health`.
pub async fn open(
    place: Place,
    telemetry: &Telemetry,
    health: HealthBuilder,
) -> Result<(Arc<dyn Store>, HealthBuilder), DatabaseError> {
    Ok(match place {
        Place::File(path) => {
            let store = SqliteStore::open(path).await?;
            store.database.watch(telemetry, "identity");
            let health = store.database.checks(health);
            (Arc::new(store), health)
        }
        Place::Server(settings) => {
            let store = PostgresStore::open(settings).await?;
            store.database.watch(telemetry, "identity");
            let health = store.database.checks(health);
            (Arc::new(store), health)
        }
    })
}
