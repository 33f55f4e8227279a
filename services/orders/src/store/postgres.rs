//! The store on PostgreSQL: one database, shared by all replicas of the service. How it is reached, migrated and waited
//! for is `chassis::postgres`'s matter.
//!
//! What keeps replicas apart: whoever decides about an order holds its row until the transaction ends; whoever claims
//! passes over rows that others hold; and a row is looked at again once it is held, so that what was true before and is
//! not any more is not acted on.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use chassis::postgres::{Database, Migration, PostgresError, Row, Session, Settings, column};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Backlog, Cancelled, Claim, Claimed, ClaimedEvent, Create, Created, DeadEvent, Lease, Orphan, Recorded, Settled,
    StepRecord, Store, StoreError,
};
use crate::domain::{Order, OrderId};
use crate::saga::Outcome;

mod events;
mod orders;

/// Orders, sagas and outbox in one PostgreSQL database. Clones share the connections.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pub(super) database: Database,
}

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "orders, steps, outbox, idempotency keys, orphans",
    sql: include_str!("../../migrations/postgres/0001_orders.sql"),
    usable_from: 1,
}];

impl PostgresStore {
    /// Opens the database, migrated as needed.
    pub async fn open(settings: Settings) -> Result<Self, PostgresError> {
        Ok(Self {
            database: Database::open(settings, MIGRATIONS).await?,
        })
    }

    /// Whether a query finds anything.
    async fn any(&self, summary: &'static str, sql: &'static str, now: Timestamp) -> Result<bool, StoreError> {
        let look = |db: Session| async move { db.first(sql, &[&millis(now)]).await };
        Ok(self.database.read(summary, look).await?.is_some())
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn create(&self, create: Create) -> Result<Created, StoreError> {
        self.database
            .write("INSERT orders", |db| orders::create(db, &create))
            .await
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let work = |db| async move { orders::order(&db, id).await };
        self.database.read("SELECT orders", work).await
    }

    async fn orders(&self, customer: &str, after: Option<OrderId>, limit: usize) -> Result<Vec<Order>, StoreError> {
        self.database
            .read("SELECT orders", |db| orders::orders(db, customer, after, limit))
            .await
    }

    async fn steps(&self, id: OrderId) -> Result<Vec<StepRecord>, StoreError> {
        self.database.read("SELECT steps", |db| orders::steps(db, id)).await
    }

    async fn cancel(&self, id: OrderId, customer: &str, now: Timestamp) -> Result<Cancelled, StoreError> {
        self.database
            .write("UPDATE orders", |db| orders::cancel(db, id, customer, now))
            .await
    }

    async fn claim_sagas(&self, lease: Lease, limit: usize) -> Result<Vec<Claimed>, StoreError> {
        // Mostly nothing is due: a look is cheaper than a transaction.
        if !self.any("SELECT orders", orders::ANY_DUE, lease.now).await? {
            return Ok(Vec::new());
        }
        self.database
            .write("UPDATE orders", |db| orders::claim(db, &lease, limit))
            .await
    }

    async fn hand_back(&self, owner: &str, now: Timestamp) -> Result<usize, StoreError> {
        self.database
            .write("UPDATE orders", |db| orders::hand_back(db, owner, now))
            .await
    }

    async fn record(
        &self,
        claim: Claim,
        outcome: Outcome,
        lease: Lease,
        retry_after: Duration,
    ) -> Result<Recorded, StoreError> {
        self.database
            .write("UPDATE orders", |db| {
                orders::record(db, claim, &outcome, &lease, retry_after)
            })
            .await
    }

    async fn claim_events(&self, lease: Lease, limit: usize) -> Result<Vec<ClaimedEvent>, StoreError> {
        if !self.any("SELECT outbox", events::ANY_DUE, lease.now).await? {
            return Ok(Vec::new());
        }
        self.database
            .write("UPDATE outbox", |db| events::claim(db, &lease, limit))
            .await
    }

    async fn settle_events(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), StoreError> {
        self.database
            .write("UPDATE outbox", |db| events::settle(db, &settled, now))
            .await
    }

    async fn dead_events(&self, limit: usize) -> Result<Vec<DeadEvent>, StoreError> {
        self.database.read("SELECT outbox", |db| events::dead(db, limit)).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        self.database.read("SELECT outbox", |db| events::backlog(db, now)).await
    }

    async fn known(&self, ids: Vec<OrderId>) -> Result<HashSet<OrderId>, StoreError> {
        let ids: &Vec<Uuid> = &ids.into_iter().map(OrderId::uuid).collect();
        let work = |db: Session| async move { db.query("SELECT id FROM orders WHERE id = ANY($1)", &[ids]).await };
        let rows = self.database.read("SELECT orders", work).await?;
        rows.iter().map(|row| id(row, 0)).collect()
    }

    async fn save_orphans(&self, mut orphans: Vec<Orphan>) -> Result<(), StoreError> {
        // Replicas find the same ones at the same time: in one order, they wait for each other and do not lock up.
        orphans.sort_unstable_by(|one, other| one.charge_id.cmp(&other.charge_id));
        let orphans = &orphans;
        let work = |db: Session| async move {
            for orphan in orphans {
                save_orphan(&db, orphan).await?;
            }
            Ok(())
        };
        self.database.write("INSERT orphans", work).await
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, StoreError> {
        let work = |db: Session| async move {
            db.query(
                "SELECT charge_id, order_id, amount_cents, currency, charged_at, found_at, refunded_at, error
                 FROM orphans ORDER BY found_at, charge_id",
                &[],
            )
            .await
        };
        let rows = self.database.read("SELECT orphans", work).await?;
        let orphan = |row: &Row| {
            Ok(Orphan {
                charge_id: column::get(row, 0)?,
                order_id: column::get(row, 1)?,
                amount_cents: column::get(row, 2)?,
                currency: column::get(row, 3)?,
                charged_at: column::get(row, 4)?,
                found_at: column::get(row, 5)?,
                refunded_at: column::get(row, 6)?,
                error: column::get(row, 7)?,
            })
        };
        rows.iter().map(orphan).collect()
    }

    async fn forget(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let work = |db: Session| async move {
            let keys = db
                .execute(
                    "DELETE FROM idempotency WHERE (customer, key) IN
                         (SELECT customer, key FROM idempotency WHERE created_at < $1 LIMIT $2
                          FOR UPDATE SKIP LOCKED)",
                    &[&millis(before), &rows_of(limit)],
                )
                .await?;
            Ok(keys as usize + events::forget(&db, before, limit).await?)
        };
        self.database.write("DELETE idempotency", work).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(self.database.ping().await?)
    }
}

async fn save_orphan(db: &Session, orphan: &Orphan) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO orphans AS known
             (charge_id, order_id, amount_cents, currency, charged_at, found_at, refunded_at, error)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (charge_id) DO UPDATE
         SET refunded_at = coalesce(known.refunded_at, excluded.refunded_at), error = excluded.error",
        &[
            &column::text(&orphan.charge_id),
            &column::text(&orphan.order_id),
            &orphan.amount_cents,
            &column::text(&orphan.currency),
            &column::text(&orphan.charged_at),
            &millis(orphan.found_at),
            &orphan.refunded_at.map(millis),
            &orphan.error.as_deref().map(column::text),
        ],
    )
    .await?;
    Ok(())
}

/// `time` as every store of orders keeps it: in milliseconds.
fn millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// An order's id in a column.
fn id(row: &Row, column: usize) -> Result<OrderId, StoreError> {
    Ok(OrderId::from_uuid(column::get(row, column)?))
}

/// A number of rows, as `LIMIT` takes it.
fn rows_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A number that is never negative.
fn count(row: &Row, column: usize) -> Result<u32, StoreError> {
    u32::try_from(column::get::<i64>(row, column)?).map_err(corrupt)
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests {
    use chassis::trial::{database_settings, new_database};
    use peers::servers::Postgres;

    use super::*;
    use crate::store::contract;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let Some(server) = Postgres::shared("orders::store::postgres::keeps_the_contract").await else {
            return;
        };
        contract::check(async || {
            let url = new_database(&server.url("postgres")).await;
            let open = || PostgresStore::open(database_settings(&url));
            let (one, two) = tokio::join!(open(), open());
            (one.unwrap(), two.unwrap())
        })
        .await;
    }
}
