//! Where orders, sagas and the outbox are kept: one trait, a memory twin ([`memory`]), SQLite ([`sqlite`]), PostgreSQL
//! ([`postgres`]), and the contract that all pass (`contract`, in tests).
//!
//! Leases: a claimed saga or event belongs to its claimant until the lease ends, then to whoever claims it next. Every
//! claim has a number; what a claimant records under a number that is no longer the last one changes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chassis::{DatabaseError, Place};
use health::HealthBuilder;
use jiff::Timestamp;
use telemetry::Telemetry;
use uuid::Uuid;

use crate::domain::{EventKind, NewOrder, Order, OrderId};
use crate::origin::Origin;
use crate::saga::{Outcome, Step};

#[cfg(test)]
pub(crate) mod contract;
pub mod memory;
pub mod postgres;
pub mod sqlite;

/// What `orders` keeps. Every call is one transaction; when it returns `Ok`, it is durable.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores an order with its `order.created` event. With `lease` the order's saga is begun and claimed at once.
    async fn create(&self, create: Create) -> Result<Created, StoreError>;

    /// One order.
    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// A customer's orders whose id is greater than `after`, oldest first.
    async fn orders(&self, customer: &str, after: Option<OrderId>, limit: usize) -> Result<Vec<Order>, StoreError>;

    /// What was done for an order, in the order in which the steps were first begun.
    async fn steps(&self, id: OrderId) -> Result<Vec<StepRecord>, StoreError>;

    /// Asks to cancel an order of this customer.
    async fn cancel(&self, id: OrderId, customer: &str, now: Timestamp) -> Result<Cancelled, StoreError>;

    /// Claims sagas that are due, most overdue first, and records that their steps begin.
    async fn claim_sagas(&self, lease: Lease, limit: usize) -> Result<Vec<Claimed>, StoreError>;

    /// Records the outcome of a claimed saga's step, and that the next one begins if there is one; the events follow in
    /// the same transaction. `retry_after` says when an unknown outcome is tried again.
    async fn record(
        &self,
        claim: Claim,
        outcome: Outcome,
        lease: Lease,
        retry_after: Duration,
    ) -> Result<Recorded, StoreError>;

    /// Gives back the sagas that `owner` has claimed and says how many they were: they are due at once, and what is
    /// recorded under the old claims changes nothing. For an instance that ends before its sagas do; its events wait for
    /// the end of their leases.
    async fn hand_back(&self, owner: &str, now: Timestamp) -> Result<usize, StoreError>;

    /// Claims events that are due, oldest first; never one while an earlier one of its order is neither published nor
    /// dead nor in the same batch.
    async fn claim_events(&self, lease: Lease, limit: usize) -> Result<Vec<ClaimedEvent>, StoreError>;

    /// Records what became of claimed events.
    async fn settle_events(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), StoreError>;

    /// Events that nobody accepts, oldest first.
    async fn dead_events(&self, limit: usize) -> Result<Vec<DeadEvent>, StoreError>;

    /// How much is still to be done.
    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError>;

    /// Which of these orders exist.
    async fn known(&self, ids: Vec<OrderId>) -> Result<HashSet<OrderId>, StoreError>;

    /// Remembers charges whose order is missing, or what came of their refund; by charge id.
    async fn save_orphans(&self, orphans: Vec<Orphan>) -> Result<(), StoreError>;

    /// The charges whose order is missing, oldest first.
    async fn orphans(&self) -> Result<Vec<Orphan>, StoreError>;

    /// Forgets published events and idempotency keys older than `before`, at most `limit` of each; says how many went.
    async fn forget(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Whether the store answers: a cheap read.
    async fn probe(&self) -> Result<(), StoreError>;
}

/// A new order with all that is decided before it is stored.
#[derive(Debug, Clone)]
pub struct Create {
    /// Its name.
    pub id: OrderId,
    /// Who orders.
    pub customer: String,
    /// What.
    pub order: NewOrder,
    /// The customer's name for this request, if any.
    pub idempotency_key: Option<String>,
    /// Now.
    pub now: Timestamp,
    /// Claims the saga in the same transaction.
    pub lease: Option<Lease>,
    /// The request that places it.
    pub origin: Origin,
}

/// What came of [`Store::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// Stored; the claim, if one was asked for.
    New(Order, Option<Claim>),
    /// The same request with the same key was stored before: that order as it is now.
    Replayed(Order),
    /// The key came with another request before.
    KeyReused,
}

/// Who claims, from when to when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The instance.
    pub owner: String,
    /// Now.
    pub now: Timestamp,
    /// For how long.
    pub ttl: Duration,
}

impl Lease {
    /// When it ends.
    pub fn until(&self) -> Timestamp {
        later(self.now, self.ttl)
    }
}

/// `now` plus `delay`, in whole milliseconds, never beyond the end of time.
pub(crate) fn later(now: Timestamp, delay: Duration) -> Timestamp {
    let millis = now
        .as_millisecond()
        .saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// How long ago `at` was; zero if it is to come.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> Duration {
    let millis = now.as_millisecond().saturating_sub(at.as_millisecond());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The right to record the outcome of a saga's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whose saga.
    pub order: OrderId,
    /// The claim's number.
    pub number: i64,
    /// The step that was begun.
    pub step: Step,
}

/// A claimed saga: its order, begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The right to record.
    pub claim: Claim,
    /// The order as recorded when the step began.
    pub order: Order,
}

/// What came of [`Store::record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The next step is begun and claimed.
    Continue(Box<Claimed>),
    /// The step will be claimed again later.
    Later,
    /// The order is final.
    Finished(Box<Order>),
    /// Somebody else has the saga, or it is over: nothing was recorded.
    Lost,
}

/// What came of [`Store::cancel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// It is, or will be, cancelled or refunded; the order now.
    Accepted(Box<Order>),
    /// It is delivered or failed; the order now.
    TooLate(Box<Order>),
    /// This customer has no such order.
    Unknown,
}

/// One step of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// Which.
    pub step: Step,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was first begun.
    pub begun_at: Timestamp,
    /// When its last outcome came.
    pub ended_at: Option<Timestamp>,
    /// The last outcome's word.
    pub outcome: Option<String>,
}

/// An event as it is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name; the same event has the same name for ever.
    pub id: Uuid,
    /// What happened.
    pub kind: EventKind,
    /// Version of the payload's shape.
    pub version: u32,
    /// To which order.
    pub order: OrderId,
    /// When.
    pub occurred_at: Timestamp,
    /// JSON; depends only on what of the order never changes, so that it is the same when told again.
    pub payload: String,
    /// The request that placed the order, for the trace; no part of what is told.
    pub origin: Origin,
}

/// Version of every event's payload.
pub const EVENT_VERSION: u32 = 1;

impl Event {
    /// The event that tells of `kind` happening to `order`.
    pub fn new(kind: EventKind, order: &Order, now: Timestamp) -> Self {
        let payload = serde_json::json!({
            "order_id": order.id.to_string(),
            "customer": order.customer,
            "total_cents": order.total_cents,
            "currency": order.currency,
        });
        Self {
            id: kind.event_id(order.id),
            kind,
            version: EVENT_VERSION,
            order: order.id,
            occurred_at: now,
            payload: payload.to_string(),
            origin: order.origin.clone(),
        }
    }
}

/// A claimed event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedEvent {
    /// Its place in the outbox.
    pub seq: i64,
    /// The claim's number.
    pub number: i64,
    /// How often it was refused before.
    pub refusals: u32,
    /// What is to be published.
    pub event: Event,
}

/// What became of a claimed event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Its place in the outbox.
    pub seq: i64,
    /// The claim's number.
    pub number: i64,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The consumer has it.
    Published,
    /// To be tried again.
    Retry {
        /// In how long.
        after: Duration,
        /// Whether the consumer saw it and refused it (counts towards giving up), or was not reached.
        refused: bool,
        /// What was seen.
        error: String,
    },
    /// Given up.
    Dead {
        /// What was seen last.
        error: String,
    },
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadEvent {
    /// The event.
    pub event: Event,
    /// How often the consumer refused it.
    pub refusals: u32,
    /// What it said last.
    pub error: String,
}

/// How much is still to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Events neither published nor dead.
    pub events: u64,
    /// Age of the oldest of them.
    pub oldest_event: Duration,
    /// Dead events.
    pub dead_events: u64,
    /// Orders that are not final.
    pub open_sagas: u64,
}

/// A charge whose order is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Payments' name for the charge.
    pub charge_id: String,
    /// The order that payments knows.
    pub order_id: String,
    /// Hundredths of the currency.
    pub amount_cents: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// When payments took it, RFC 3339.
    pub charged_at: String,
    /// When it was first missed.
    pub found_at: Timestamp,
    /// When it was given back.
    pub refunded_at: Option<Timestamp>,
    /// What went wrong last with the refund.
    pub error: Option<String>,
}

/// Why the store could not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no.
    #[error("the orders database failed")]
    Database(#[source] DatabaseError),
    /// A row holds what this version does not understand.
    #[error("the orders database holds a row that cannot be read: {0}")]
    Corrupt(String),
}

impl<E: Into<DatabaseError>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

impl StoreError {
    /// Whether the same call may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_transient())
    }
}

/// Opens the store in `place`, told of by `telemetry` and asked after by `health`.
pub async fn open(
    place: Place,
    telemetry: &Telemetry,
    health: HealthBuilder,
) -> Result<(Arc<dyn Store>, HealthBuilder), StoreError> {
    Ok(match place {
        Place::File(path) => {
            let store = sqlite::SqliteStore::open(&path).await?;
            store.database.watch(telemetry, "orders");
            let health = store.database.checks(health);
            (Arc::new(store), health)
        }
        Place::Server(settings) => {
            let store = postgres::PostgresStore::open(settings).await?;
            store.database.watch(telemetry, "orders");
            let health = store.database.checks(health);
            (Arc::new(store), health)
        }
    })
}
