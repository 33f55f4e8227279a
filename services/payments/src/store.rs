//! Where charges are kept. Every implementation gives the same answers: `contract` says which, for all of them.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::{DatabaseError, Place};
use health::HealthBuilder;
use jiff::Timestamp;
use telemetry::Telemetry;

use crate::charge::{Charge, Outcome, Request, Target};

mod memory;
mod postgres;
mod sqlite;

#[cfg(test)]
mod contract;

pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Keeps charges and refunds. What is answered is durable. Instances share what they store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores `outcome` for `request`, or finds what was stored for its key.
    ///
    /// Errors: [`StoreError::KeyReused`], [`StoreError::OrderCharged`].
    async fn charge(&self, request: Request, outcome: Outcome, now: Timestamp) -> Result<Answer, StoreError>;

    /// Gives the money of a charge back, once.
    ///
    /// Errors: [`StoreError::NotFound`], [`StoreError::NothingTaken`], [`StoreError::KeyReused`].
    async fn refund(&self, target: Target, key: String, now: Timestamp) -> Result<Answer, StoreError>;

    /// Lists charges in the order in which they were stored.
    async fn list(&self, query: Query) -> Result<Page, StoreError>;

    /// Answers when the store can be used.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For [`Store::charge`]: as first stored, so without a later refund. For [`Store::refund`]: refunded.
    pub charge: Charge,
    /// True when an earlier request had done it.
    pub replayed: bool,
}

impl Answer {
    /// The answer to a request whose key was used before, for `charge`.
    fn replay(request: &Request, charge: Charge) -> Result<Self, StoreError> {
        if !request.asks_for(&charge) {
            return Err(StoreError::KeyReused);
        }
        Ok(Self {
            charge: Charge {
                refunded_at: None,
                ..charge
            },
            replayed: true,
        })
    }
}

/// Which charges to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Only those stored after this place in the list; 0 for all.
    pub after: u64,
    /// At most this many, at least 1.
    pub limit: usize,
    /// Only those of this order.
    pub order_id: Option<String>,
    /// Only those that stand so.
    pub standing: Option<Standing>,
}

/// Where a charge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The money was taken and is still here.
    Charged,
    /// Nothing was taken.
    Declined,
    /// The money was given back.
    Refunded,
}

impl Standing {
    /// Where `charge` stands.
    pub fn of(charge: &Charge) -> Self {
        match (charge.outcome, charge.refunded_at) {
            (Outcome::Declined(_), _) => Self::Declined,
            (Outcome::Charged, Some(_)) => Self::Refunded,
            (Outcome::Charged, None) => Self::Charged,
        }
    }
}

/// Some charges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Oldest first.
    pub charges: Vec<Charge>,
    /// Place of the last one in the list; `None` when there is none.
    pub last: Option<u64>,
    /// True when more follow.
    pub more: bool,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The idempotency key stands for another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The order was charged under another key.
    #[error("the order has been charged under another idempotency key")]
    OrderCharged,
    /// No such charge.
    #[error("there is no such charge")]
    NotFound,
    /// The charge was declined.
    #[error("the charge was declined: nothing was taken")]
    NothingTaken,
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
            store.database.watch(telemetry, "payments");
            let health = store.database.checks(health);
            (Arc::new(store), health)
        }
        Place::Server(settings) => {
            let store = PostgresStore::open(settings).await?;
            store.database.watch(telemetry, "payments");
            let health = store.database.checks(health);
            (Arc::new(store), health)
        }
    })
}

/// `time` as databases keep it.
fn to_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
