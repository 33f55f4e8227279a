//! The store on SQLite: one `orders.db` in WAL mode, shared by all instances of the service. Writes go through one
//! writer thread ([`writer`]) that puts all that waits into one transaction; reads run on their own connections.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Backlog, Cancelled, Claim, Claimed, ClaimedEvent, Create, Created, DeadEvent, Lease, Orphan, Recorded, Settled,
    StepRecord, Store, StoreError,
};
use crate::domain::{Order, OrderId};
use crate::saga::Outcome;

mod events;
mod orders;
mod writer;

/// Orders, sagas and outbox in one SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: writer::Writer,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    connections: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
}

/// Connections that only read.
const READERS: usize = 2;

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

impl SqliteStore {
    /// Opens the file, made with mode 0600 if it is missing, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path)?;
        let mut writing = connect(path)?;
        migrate(&mut writing)?;
        let mut connections = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let connection = connect(path)?;
            connection.pragma_update(None, "query_only", true)?;
            connections.push(Mutex::new(connection));
        }
        Ok(Self {
            writer: writer::Writer::start(writing)?,
            readers: Arc::new(Readers { connections, turn: AtomicUsize::new(0) }),
        })
    }

    /// Runs what waits to be written, then closes the file. Later calls fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        self.writer.close().await;
    }

    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let readers = self.readers.clone();
        let task = tokio::task::spawn_blocking(move || {
            let turn = readers.turn.fetch_add(1, Ordering::Relaxed) % readers.connections.len();
            let connection = readers.connections[turn].lock().unwrap_or_else(PoisonError::into_inner);
            query(&connection)
        });
        task.await.map_err(|_| StoreError::Closed)?
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

fn create_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| StoreError::File { path: PathBuf::from(path), source: error })
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // FULL: what a 201 promised survives a power cut, not only a killed process.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The schema's versions; `PRAGMA user_version` says how many have been applied. Only ever add to it.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/0001_orders.sql")];

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
    }
    transaction.commit()?;
    Ok(())
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, create: Create) -> Result<Created, StoreError> {
        self.writer.try_run(move |db| orders::create(db, &create)).await
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        self.read(move |db| orders::order(db, id)).await
    }

    async fn orders(&self, customer: &str, after: Option<OrderId>, limit: usize) -> Result<Vec<Order>, StoreError> {
        let customer = customer.to_owned();
        self.read(move |db| orders::orders(db, &customer, after, limit)).await
    }

    async fn steps(&self, id: OrderId) -> Result<Vec<StepRecord>, StoreError> {
        self.read(move |db| orders::steps(db, id)).await
    }

    async fn cancel(&self, id: OrderId, customer: &str, now: Timestamp) -> Result<Cancelled, StoreError> {
        let customer = customer.to_owned();
        self.writer.try_run(move |db| orders::cancel(db, id, &customer, now)).await
    }

    async fn claim_sagas(&self, lease: Lease, limit: usize) -> Result<Vec<Claimed>, StoreError> {
        // Mostly nothing is due: a look without the write lock is cheaper than a transaction.
        let now = lease.now;
        if !self.read(move |db| orders::any_due(db, now)).await? {
            return Ok(Vec::new());
        }
        self.writer.run(move |db| orders::claim(db, &lease, limit)).await
    }

    async fn record(
        &self,
        claim: Claim,
        outcome: Outcome,
        lease: Lease,
        retry_after: Duration,
    ) -> Result<Recorded, StoreError> {
        self.writer.run(move |db| orders::record(db, claim, &outcome, &lease, retry_after)).await
    }

    async fn claim_events(&self, lease: Lease, limit: usize) -> Result<Vec<ClaimedEvent>, StoreError> {
        let now = lease.now;
        if !self.read(move |db| events::any_due(db, now)).await? {
            return Ok(Vec::new());
        }
        self.writer.run(move |db| events::claim(db, &lease, limit)).await
    }

    async fn settle_events(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), StoreError> {
        self.writer.run(move |db| events::settle(db, &settled, now)).await
    }

    async fn dead_events(&self, limit: usize) -> Result<Vec<DeadEvent>, StoreError> {
        self.read(move |db| events::dead(db, limit)).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        self.read(move |db| {
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
        self.read(move |db| {
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
        self.writer
            .run(move |db| {
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
        self.read(|db| {
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
        self.writer
            .run(move |db| {
                let keys = db
                    .prepare_cached(
                        "DELETE FROM idempotency WHERE (customer, key) IN
                         (SELECT customer, key FROM idempotency WHERE created_at < ?1 LIMIT ?2)",
                    )?
                    .execute(params![before.as_millisecond(), limit as i64])?;
                Ok(keys + events::forget(db, before, limit)?)
            })
            .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.read(|db| {
            db.prepare_cached("SELECT 1 FROM orders LIMIT 1")?.query_row([], |_| Ok(())).optional()?;
            Ok(())
        })
        .await
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::contract;

    #[tokio::test]
    async fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let number = AtomicUsize::new(0);
        contract::check(async || {
            let path = folder.path().join(format!("{}.db", number.fetch_add(1, Ordering::Relaxed)));
            (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap())
        })
        .await;
    }

    #[tokio::test]
    async fn survives_closing_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.db");
        let store = SqliteStore::open(&path).unwrap();
        let create = contract::create("ann", 0);
        let id = create.id;
        store.create(create).await.unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
        }
        store.close().await;
        assert!(matches!(store.create(contract::create("ann", 0)).await, Err(StoreError::Closed)));
        let again = SqliteStore::open(&path).unwrap();
        assert!(again.order(id).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_newer_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error}");
    }

    #[tokio::test]
    async fn writes_that_wait_share_a_transaction_and_fail_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.db");
        let store = SqliteStore::open(&path).unwrap();
        let twice = contract::create("ann", 0);
        let same = twice.clone();
        let many = (0..200).map(|_| store.create(contract::create("bob", 0)));
        let (first, second, others) =
            tokio::join!(store.create(twice), store.create(same), futures::future::join_all(many));
        assert!(first.is_ok());
        assert!(matches!(second, Err(StoreError::Database(_))), "the id is taken");
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(store.orders("bob", None, 1000).await.unwrap().len(), 200);
    }
}
