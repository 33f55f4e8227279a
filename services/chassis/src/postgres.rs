//! One PostgreSQL database as a service uses it: a pool of connections, transactions, migrations, and a server that may
//! be away. It knows nothing of what is stored.
//!
//! The settings and why:
//! - READ COMMITTED, PostgreSQL's own level: what must hold between instances is held by the tables (unique indexes,
//!   triggers) and by locks on the rows that are decided about; each store says which.
//! - Time limits on everything: for a connection, for a statement (by the server, so that it stops working), for a
//!   transaction that nobody ends, and for a whole call (here, for a server that says nothing at all).
//! - A connection lives for a minute by default: it costs a millisecond, and after that time all traffic goes where the
//!   database's name points now.
//! - No TLS: a URL that asks for it is refused.

mod call;
mod cause;
pub mod column;
mod migrations;
mod observed;
mod session;
mod settings;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use health::{HealthBuilder, MigrationCheck, OnDown, PostgresCheck, Spec, Table};
use resilience::Deadline;
use telemetry::Telemetry;
use tokio::time::Instant;
use tokio_postgres::NoTls;

pub use cause::Cause;
pub use session::Session;
pub use settings::Settings;
pub use tokio_postgres::Row;
pub use tokio_postgres::types::ToSql;

pub use crate::migration::Migration;
use observed::Observed;

/// How long a call waits for a connection when all are in use.
const WAIT: Duration = Duration::from_secs(5);
/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A database, open. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    migrations: &'static [Migration],
    /// Whether the schema is known to be what the code expects. Until then nothing is asked of the tables.
    migrated: AtomicBool,
    /// Calls that got no connection in time.
    timeouts: AtomicU64,
    observed: OnceLock<Observed>,
}

/// Why a database could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Nobody answers, the connection was lost, the server is starting or ending, or it takes no writes.
    #[error("the database server is away")]
    Away(#[source] Cause),
    /// The server does not let this service in.
    #[error("the database server refuses this service")]
    Refused(#[source] Cause),
    /// All connections are in use, here or on the server.
    #[error("too many calls wait for the database")]
    Overloaded,
    /// The caller's deadline was over; nothing is stored.
    #[error("the deadline was over before the database's turn")]
    Expired,
    /// A statement took longer than it may, or the server said nothing.
    #[error("the database took too long")]
    Slow(#[source] Cause),
    /// Another transaction was in the way for too long; nothing is stored.
    #[error("another transaction was in the way")]
    Conflict(#[source] Cause),
    /// No room on the server's disk.
    #[error("no room on the disk of the database")]
    Full(#[source] Cause),
    /// The connection was lost while the transaction was committed: it may be stored or not.
    #[error("whether the transaction was committed is unknown")]
    Unknown(#[source] Cause),
    /// The migrations are still to be applied, since the server was away when the service started.
    #[error("the database is not migrated yet")]
    NotMigrated,
    /// A migration failed and was undone.
    #[error("migration {version} ({name}) of the database failed")]
    Migrate {
        /// The migration's number.
        version: u32,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A newer release has changed the database so that this one must not use it.
    #[error("the database needs a release that knows schema version {needs}, this one knows {knows}")]
    TooNew {
        /// The oldest schema version whose code may use the database.
        needs: u32,
        /// The newest schema version that this code knows.
        knows: u32,
    },
    /// A migration was applied with another text than this code's.
    #[error("migration {version} of the database was applied with another text: it may belong to another service")]
    Foreign {
        /// The migration's number.
        version: u32,
    },
    /// Anything else that the server reports.
    #[error("the database refused a statement")]
    Statement(#[source] Cause),
}

impl PostgresError {
    /// True when the same call may well succeed a little later. After [`PostgresError::Unknown`], [`PostgresError::Away`]
    /// and [`PostgresError::Slow`] it must be one that may be made twice.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Away(_)
            | Self::Overloaded
            | Self::Slow(_)
            | Self::Conflict(_)
            | Self::Unknown(_)
            | Self::NotMigrated => true,
            Self::Refused(_)
            | Self::Expired
            | Self::Full(_)
            | Self::Migrate { .. }
            | Self::TooNew { .. }
            | Self::Foreign { .. }
            | Self::Statement(_) => false,
        }
    }

    /// The error in one word, for a metric.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Refused(_) => "refused",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
            Self::Slow(_) => "timeout",
            Self::Conflict(_) => "locked",
            Self::Full(_) => "full",
            Self::Unknown(_) => "commit",
            Self::NotMigrated | Self::Migrate { .. } | Self::TooNew { .. } | Self::Foreign { .. } => "migration",
            Self::Statement(_) => "statement",
        }
    }
}

impl Database {
    /// Makes the pool and applies the migrations that the database lacks; replicas that start at one moment take turns.
    ///
    /// A server that is away does not keep the service from starting: the migrations are then tried again in the
    /// background until they are applied, and until then every call fails with [`PostgresError::NotMigrated`] and the
    /// checks keep the service from being ready. Errors: those that waiting does not mend.
    pub async fn open(settings: Settings, migrations: &'static [Migration]) -> Result<Self, PostgresError> {
        let max_age = settings.max_age;
        let manager = Manager::from_config(
            *settings.config,
            NoTls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(settings.connections)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(CONNECT))
            .pre_recycle(Hook::sync_fn(move |_, metrics| {
                if metrics.age() < max_age {
                    Ok(())
                } else {
                    Err(HookError::message("it is old"))
                }
            }))
            .build()
            .expect("a pool with a runtime can have time limits");
        let database = Self {
            shared: Arc::new(Shared {
                pool,
                migrations,
                migrated: AtomicBool::new(false),
                timeouts: AtomicU64::new(0),
                observed: OnceLock::new(),
            }),
        };
        match database.shared.migrate().await {
            Err(error) if error.is_transient() => {
                migrations::warn(&error);
                tokio::spawn(migrations::keep_trying(Arc::downgrade(&database.shared)));
            }
            result => result?,
        }
        Ok(database)
    }

    /// Tells telemetry of every call from now on, as the database `name`, and of its connections as the pool `name`.
    /// Said once; later calls change nothing.
    pub fn watch(&self, telemetry: &Telemetry, name: &str) {
        Observed::watch(&self.shared, telemetry, name);
    }

    /// Adds the checks `database` (the server answers and takes writes) and `migrations` (its schema is this code's).
    /// Both must pass before the service is ready. They ask over the service's own pool.
    #[must_use]
    pub fn checks(&self, health: HealthBuilder) -> HealthBuilder {
        let embedded = self.shared.migrations.iter().map(|step| health::Migration {
            version: i64::from(step.version),
            checksum: migrations::checksum(step),
        });
        let pool = &self.shared.pool;
        let table = Table::Query(migrations::APPLIED);
        health.critical("database", PostgresCheck::pool(pool).writable()).check(
            Spec::critical("migrations", MigrationCheck::postgres(embedded, pool, table)).on_down(OnDown::NotReady),
        )
    }

    /// Asks for nothing: for whoever wants to know whether the server answers.
    pub async fn ping(&self) -> Result<(), PostgresError> {
        self.read("SELECT schema_migrations", async |db: Session| {
            db.query("SELECT 1 FROM schema_migrations LIMIT 1", &[]).await.map(drop)
        })
        .await
    }
}

impl Shared {
    /// A connection, of which the caller will not have more than the pool allows.
    async fn session(&self) -> Result<Session, PostgresError> {
        let wait = Deadline::current().map_or(WAIT, |deadline| deadline.remaining().min(WAIT));
        if wait.is_zero() {
            return Err(PostgresError::Expired);
        }
        let began = Instant::now();
        let mut limits = self.pool.timeouts();
        limits.wait = Some(wait);
        let lent = self.pool.timeout_get(&limits).await;
        if let Some(observed) = self.observed.get() {
            observed.waited(began.elapsed());
        }
        match lent {
            Ok(connection) => Ok(Session::new(connection)),
            Err(PoolError::Backend(error)) => Err(error.into()),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
                Err(PostgresError::Overloaded)
            }
            Err(other) => Err(PostgresError::Away(Cause::told(other.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests;
