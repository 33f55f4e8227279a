//! The store on SQLite: one `orders.db`, shared by all instances of the service. How the file is opened, written in
//! groups and read is `chassis::sqlite`'s matter.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use chassis::sqlite::{Database, Migration};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    Backlog, Cancelled, Claim, Claimed, ClaimedEvent, Create, Created, DeadEvent, Lease, Orphan, Recorded, Settled,
    StepRecord, Store, StoreError,
};
use crate::domain::{Order, OrderId};
use crate::saga::Outcome;

mod events;
mod orders;

/// Orders, sagas and outbox in one SQLite file. Clones share the connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pub(super) database: Database,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "orders, steps, outbox, idempotency keys, orphans",
        sql: include_str!("../../migrations/sqlite/0001_orders.sql"),
        usable_from: 1,
    },
    Migration {
        version: 2,
        name: "where orders came from",
        sql: include_str!("../../migrations/sqlite/0002_origin.sql"),
        usable_from: 1,
    },
];

impl SqliteStore {
    /// Opens the file, made with mode 0600 if it is missing, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            database: Database::open(path, MIGRATIONS).await?,
        })
    }

    async fn read<T, F>(&self, summary: &'static str, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.database.read(summary, query).await
    }

    async fn write<T, F>(&self, summary: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.database.write(summary, work).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, create: Create) -> Result<Created, StoreError> {
        self.write("INSERT orders", move |db| orders::create(db, &create)).await
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        self.read("SELECT orders", move |db| orders::order(db, id)).await
    }

    async fn orders(&self, customer: &str, after: Option<OrderId>, limit: usize) -> Result<Vec<Order>, StoreError> {
        let customer = customer.to_owned();
        self.read("SELECT orders", move |db| orders::orders(db, &customer, after, limit))
            .await
    }

    async fn steps(&self, id: OrderId) -> Result<Vec<StepRecord>, StoreError> {
        self.read("SELECT steps", move |db| orders::steps(db, id)).await
    }

    async fn cancel(&self, id: OrderId, customer: &str, now: Timestamp) -> Result<Cancelled, StoreError> {
        let customer = customer.to_owned();
        self.write("UPDATE orders", move |db| orders::cancel(db, id, &customer, now))
            .await
    }

    async fn claim_sagas(&self, lease: Lease, limit: usize) -> Result<Vec<Claimed>, StoreError> {
        // Mostly nothing is due: a look without the write lock is cheaper than a transaction.
        let now = lease.now;
        if !self.read("SELECT orders", move |db| orders::any_due(db, now)).await? {
            return Ok(Vec::new());
        }
        self.write("UPDATE orders", move |db| orders::claim(db, &lease, limit))
            .await
    }

    async fn hand_back(&self, owner: &str, now: Timestamp) -> Result<usize, StoreError> {
        let owner = owner.to_owned();
        self.write("UPDATE orders", move |db| orders::hand_back(db, &owner, now))
            .await
    }

    async fn record(
        &self,
        claim: Claim,
        outcome: Outcome,
        lease: Lease,
        retry_after: Duration,
    ) -> Result<Recorded, StoreError> {
        self.write("UPDATE orders", move |db| {
            orders::record(db, claim, &outcome, &lease, retry_after)
        })
        .await
    }

    async fn claim_events(&self, lease: Lease, limit: usize) -> Result<Vec<ClaimedEvent>, StoreError> {
        let now = lease.now;
        if !self.read("SELECT outbox", move |db| events::any_due(db, now)).await? {
            return Ok(Vec::new());
        }
        self.write("UPDATE outbox", move |db| events::claim(db, &lease, limit))
            .await
    }

    async fn settle_events(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), StoreError> {
        self.write("UPDATE outbox", move |db| events::settle(db, &settled, now))
            .await
    }

    async fn dead_events(&self, limit: usize) -> Result<Vec<DeadEvent>, StoreError> {
        self.read("SELECT outbox", move |db| events::dead(db, limit)).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        self.read("SELECT outbox", move |db| {
            let mut backlog = events::backlog(db, now)?;
            backlog.open_sagas = db
                .prepare_cached("SELECT count(*) FROM orders WHERE step <> 'done'")?
                .query_row([], |row| row.get::<_, i64>(0))?
                .cast_unsigned();
            Ok(backlog)
        })
        .await
    }

    async fn known(&self, ids: Vec<OrderId>) -> Result<HashSet<OrderId>, StoreError> {
        self.read("SELECT orders", move |db| {
            let mut statement = db.prepare_cached("SELECT 1 FROM orders WHERE id = ?")?;
            let mut known = HashSet::new();
            for id in ids {
                if statement.exists([id.to_string()])? {
                    known.insert(id);
                }
            }
            Ok(known)
        })
        .await
    }

    async fn save_orphans(&self, orphans: Vec<Orphan>) -> Result<(), StoreError> {
        self
            .write("INSERT orphans", move |db| {
                let mut statement = db.prepare_cached(
                    "INSERT INTO orphans (charge_id, order_id, amount_cents, currency, charged_at, found_at, refunded_at, error)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                     ON CONFLICT (charge_id) DO UPDATE
                     SET refunded_at = coalesce(refunded_at, excluded.refunded_at), error = excluded.error",
                )?;
                for orphan in &orphans {
                    statement.execute(params![
                        orphan.charge_id,
                        orphan.order_id,
                        orphan.amount_cents,
                        orphan.currency,
                        orphan.charged_at,
                        orphan.found_at.as_millisecond(),
                        orphan.refunded_at.map(Timestamp::as_millisecond),
                        orphan.error,
                    ])?;
                }
                Ok(())
            })
            .await
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, StoreError> {
        self.read("SELECT orphans", |db| {
            let mut statement = db.prepare_cached(
                "SELECT charge_id, order_id, amount_cents, currency, charged_at, found_at, refunded_at, error
                 FROM orphans ORDER BY found_at, charge_id",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(Orphan {
                    charge_id: row.get(0)?,
                    order_id: row.get(1)?,
                    amount_cents: row.get(2)?,
                    currency: row.get(3)?,
                    charged_at: row.get(4)?,
                    found_at: timestamp(row.get(5)?),
                    refunded_at: row.get::<_, Option<i64>>(6)?.map(timestamp),
                    error: row.get(7)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn forget(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write("DELETE idempotency", move |db| {
            let keys = db
                .prepare_cached(
                    "DELETE FROM idempotency WHERE (customer, key) IN
                         (SELECT customer, key FROM idempotency WHERE created_at < ?1 LIMIT ?2)",
                )?
                .execute(params![before.as_millisecond(), limit.cast_signed()])?;
            Ok(keys + events::forget(db, before, limit)?)
        })
        .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(self.database.ping().await?)
    }
}

/// Milliseconds as a point in time; what cannot be one becomes the nearest.
fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::store::contract;

    #[tokio::test]
    async fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let number = AtomicUsize::new(0);
        contract::check(async || {
            let path = folder
                .path()
                .join(format!("{}.db", number.fetch_add(1, Ordering::Relaxed)));
            (
                SqliteStore::open(&path).await.unwrap(),
                SqliteStore::open(&path).await.unwrap(),
            )
        })
        .await;
    }

    #[tokio::test]
    async fn a_write_that_fails_spares_those_it_shares_a_transaction_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let twice = contract::create("ann", 0);
        let same = twice.clone();
        let many = (0..200).map(|_| store.create(contract::create("bob", 0)));
        let (first, second, others) =
            tokio::join!(store.create(twice), store.create(same), futures::future::join_all(many));
        assert!(first.is_ok());
        assert!(matches!(second, Err(StoreError::Database(_))), "the id is taken");
        assert!(others.iter().all(Result::is_ok));
        let again = SqliteStore::open(&path).await.unwrap();
        assert_eq!(again.orders("bob", None, 1000).await.unwrap().len(), 200);
    }
}
