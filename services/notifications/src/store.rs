//! Where events and their effects are kept. Every implementation gives the same answers: `contract` says which, for all
//! of them.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::{DatabaseError, Place};
use health::HealthBuilder;
use jiff::Timestamp;
use telemetry::Telemetry;
use uuid::Uuid;

use crate::event::{Event, Handler, Reason, Retry};

mod memory;
mod postgres;
mod sqlite;

#[cfg(test)]
mod contract;

pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Keeps events, and gives each its effect exactly once. What is answered is durable. Instances share what they store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores an event unless its id is known: as pending, or at once as a dead letter when `dead` says why.
    ///
    /// Errors: [`StoreError::IdReused`].
    async fn accept(
        &self,
        event: Event,
        dead: Option<(Reason, String)>,
        now: Timestamp,
    ) -> Result<Accepted, StoreError>;

    /// Tries up to `limit` pending events whose time has come. The effect of an event, a notification, and the event's
    /// new state are stored together or not at all.
    async fn process(
        &self,
        limit: usize,
        handler: Arc<dyn Handler>,
        retry: Retry,
        now: Timestamp,
    ) -> Result<Processed, StoreError>;

    /// Makes a dead letter pending again, with all its attempts ahead of it.
    ///
    /// Errors: [`StoreError::NotFound`], [`StoreError::NotDead`].
    async fn replay(&self, id: Uuid, now: Timestamp) -> Result<(), StoreError>;

    /// Dead letters after a place in the list (0: from the start), oldest event first.
    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Page<DeadLetter>, StoreError>;

    /// Notifications after a place in the list (0: from the start), oldest first.
    async fn notifications(
        &self,
        after: u64,
        limit: usize,
        subject: Option<String>,
    ) -> Result<Page<Notification>, StoreError>;

    /// Counts everything.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Answers when the store can be used.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventState {
    /// Its effect is still to come.
    Pending,
    /// It took effect.
    Processed,
    /// It waits for a replay.
    Dead,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// True when the id was known.
    pub duplicate: bool,
    /// Where the event stands now.
    pub state: EventState,
}

/// What one round of processing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processed {
    /// Events that took effect.
    pub sent: usize,
    /// Events that failed and will be tried again.
    pub retried: usize,
    /// Events that became dead letters.
    pub dead: usize,
    /// When the next pending event is to be tried; `None` when none is pending.
    pub next_due: Option<Timestamp>,
}

/// An event that could not take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// As published.
    pub event: Event,
    /// Why, a word for machines.
    pub reason: String,
    /// What went wrong last.
    pub detail: String,
    /// Attempts since it was published or last replayed.
    pub attempts: u32,
    /// Since when.
    pub dead_since: Timestamp,
}

/// The effect of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// UUID version 7.
    pub id: Uuid,
    /// The event that caused it.
    pub event_id: Uuid,
    /// Its type.
    pub kind: String,
    /// Its subject.
    pub subject: String,
    /// What the customer is told.
    pub text: String,
    /// When.
    pub created_at: Timestamp,
}

/// Some of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Oldest first.
    pub items: Vec<T>,
    /// The place after which to go on; `None` when there is no more.
    pub next: Option<u64>,
}

/// Counts. `events = pending + processed + dead` and `notifications = processed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Different ids.
    pub events: u64,
    /// Still to take effect.
    pub pending: u64,
    /// Took effect.
    pub processed: u64,
    /// Wait for a replay.
    pub dead: u64,
    /// Effects.
    pub notifications: u64,
    /// Publications of an id that was known.
    pub duplicates: u64,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The id stands for another event.
    #[error("the event id was used with another event")]
    IdReused,
    /// No such event.
    #[error("there is no such event")]
    NotFound,
    /// The event is no dead letter.
    #[error("the event is no dead letter")]
    NotDead,
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
            store.database.watch(telemetry, "notifications");
            let health = store.database.checks(health);
            (Arc::new(store), health)
        }
        Place::Server(settings) => {
            let store = PostgresStore::open(settings).await?;
            store.database.watch(telemetry, "notifications");
            let health = store.database.checks(health);
            (Arc::new(store), health)
        }
    })
}

impl EventState {
    /// The word for machines, as stored.
    fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processed => "processed",
            Self::Dead => "dead",
        }
    }

    /// The state that the word stands for.
    fn from_word(word: &str) -> Option<Self> {
        [Self::Pending, Self::Processed, Self::Dead]
            .into_iter()
            .find(|state| state.word() == word)
    }
}

/// The longest detail that is kept, in characters.
const DETAIL: usize = 500;

/// `text` on one line of at most [`DETAIL`] characters.
fn one_line(text: &str) -> String {
    text.chars()
        .take(DETAIL)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
