//! One SQLite file as a service uses it: a single writer that commits many callers' work at once, readers beside it,
//! migrations, and a file that several instances share. It knows nothing of what is stored.
//!
//! The settings and why:
//! - WAL, so that readers never wait for the writer, nor it for them.
//! - `synchronous=FULL`: a commit is on the disk before it is answered, so that also a power cut loses nothing that was
//!   promised (`NORMAL` is safe against `kill -9` alone). The price is one flush a commit, which the writer shares out
//!   over all who wait: see [`Database::write`]. Measured on a virtual disk (ext4): a commit of one row takes 0.28 ms
//!   (`NORMAL`: 0.02 ms), which is 3,300 rows a second one by one and 48,000 with 20 rows to a commit; on a disk that
//!   flushes in 5 ms that would be 200 and 4,000.
//! - `BEGIN IMMEDIATE` with a busy timeout: two instances wait for each other instead of failing half-way.
//! - Foreign keys on, double-quoted strings off.

pub mod column;
mod migrations;
mod observed;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use health::HealthBuilder;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use observed::Observed;
use telemetry::Telemetry;
use writer::Writer;

pub use crate::migration::Migration;
use crate::private;

/// How long one instance waits for another one's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening may wait for another instance that is opening, migrating or recovering the file.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Reads at the same time.
const READERS: usize = 4;
/// Prepared statements kept per connection.
const STATEMENTS: usize = 64;

/// A SQLite file, open and migrated. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    writer: Writer,
    readers: Semaphore,
    /// Reads that wait for one of them.
    waiting: AtomicU64,
    idle: Mutex<Vec<Connection>>,
    observed: OnceLock<Observed>,
}

/// Why a file could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// The file or its folder cannot be made.
    #[error("cannot make {path}")]
    Create {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be opened as a database.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// A migration failed and was undone.
    #[error("migration {version} ({name}) of the database failed")]
    Migrate {
        /// The migration's number.
        version: u32,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer release has changed the file so that this one must not use it.
    #[error("the database needs a release that knows schema version {needs}, this one knows {knows}")]
    TooNew {
        /// The oldest schema version whose code may use the file.
        needs: u32,
        /// The newest schema version that this code knows.
        knows: u32,
    },
    /// Another instance kept the file locked for longer than the busy timeout.
    #[error("the database stayed locked")]
    Locked(#[source] rusqlite::Error),
    /// No room on the disk.
    #[error("no room on the disk for the database")]
    Full(#[source] rusqlite::Error),
    /// So many writes wait that another one would not be done in time.
    #[error("too many writes wait for the database")]
    Overloaded,
    /// The caller's deadline was over before its turn came; nothing was begun.
    #[error("the deadline was over before the database's turn")]
    Expired,
    /// The database was closed, or the work given to it panicked.
    #[error("the work was not finished: the database was closed, or the work failed in an unforeseen way")]
    Gone,
    /// The transaction that this work shared with others could not be committed; nothing of it was stored.
    #[error("the transaction could not be committed")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// Anything else that SQLite reports.
    #[error("the database refused a statement")]
    Statement(#[source] rusqlite::Error),
}

impl SqliteError {
    /// True when the same call may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Overloaded => true,
            Self::Commit(source) => is_locked(source),
            _ => false,
        }
    }
}

impl SqliteError {
    /// The error in one word, for a metric.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Create { .. } | Self::Open { .. } => "open",
            Self::Migrate { .. } | Self::TooNew { .. } => "migration",
            Self::Locked(_) => "locked",
            Self::Full(_) => "full",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
            Self::Gone => "gone",
            Self::Commit(_) => "commit",
            Self::Statement(_) => "statement",
        }
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked(source),
            Some(ErrorCode::DiskFull) => Self::Full(source),
            _ => Self::Statement(source),
        }
    }
}

/// True for an error that says "another connection holds the lock".
fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

impl Database {
    /// Opens the file, made if it is missing (mode 0600, folders 0700), and applies the migrations that it lacks.
    ///
    /// Instances that open at the same moment wait for each other; one of them migrates. Errors: [`SqliteError::Create`],
    /// [`SqliteError::Open`] (also for a file that is no database), [`SqliteError::Migrate`], [`SqliteError::TooNew`].
    pub async fn open(path: impl Into<PathBuf>, migrations: &'static [Migration]) -> Result<Self, SqliteError> {
        let path = path.into();
        let started = Instant::now();
        let connection = loop {
            let file = path.clone();
            match blocking(move || prepare(&file, migrations)).await {
                // Switching a new file to WAL and recovering one do not honour the busy timeout.
                Err(SqliteError::Open { source, .. } | SqliteError::Migrate { source, .. })
                    if is_locked(&source) && started.elapsed() < OPEN_TIMEOUT =>
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(SqliteError::Locked(_)) if started.elapsed() < OPEN_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                result => break result?,
            }
        };
        Ok(Self {
            shared: Arc::new(Shared {
                writer: Writer::start(connection),
                readers: Semaphore::new(READERS),
                waiting: AtomicU64::new(0),
                idle: Mutex::new(Vec::new()),
                observed: OnceLock::new(),
                path,
            }),
        })
    }

    /// Tells telemetry of every call from now on, as the database `name`, and of its connections as the pools
    /// `name/readers` and `name/writer`. Said once; later calls change nothing.
    pub fn watch(&self, telemetry: &Telemetry, name: &str) {
        Observed::watch(&self.shared, telemetry, name);
    }

    /// Runs `work` in a write transaction, off the runtime, and answers once it is durable.
    ///
    /// `summary` is the work in the words of the program, operation and table (`INSERT orders`): the name of its span.
    ///
    /// All who wait at that moment share one transaction, each within a savepoint of its own: work that answers an error
    /// leaves no trace and does not touch the others. So many small writes cost one flush of the disk together. Should the
    /// common transaction fail, everybody gets [`SqliteError::Commit`] and nothing is stored. Work whose caller has gone,
    /// or whose [`resilience::Deadline`] is over, is not begun; once begun it is finished.
    ///
    /// `work` must not begin or end transactions itself. It sees the writes that went before it in the same transaction.
    pub async fn write<T, E, F>(&self, summary: &'static str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<SqliteError> + std::error::Error + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let call = self.shared.writer.run(work);
        match self.shared.observed.get() {
            Some(observed) => observed.call(summary, call).await,
            None => call.await,
        }
    }

    /// Runs `work` on a connection that cannot write, off the runtime. It sees one state of the file, the newest one,
    /// per statement. `summary` as in [`Database::write`].
    pub async fn read<T, E, F>(&self, summary: &'static str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<SqliteError> + std::error::Error + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let call = Arc::clone(&self.shared).read(work);
        match self.shared.observed.get() {
            Some(observed) => observed.call(summary, call).await,
            None => call.await,
        }
    }

    /// Adds the check `database`: the file answers.
    #[must_use]
    pub fn checks(&self, health: HealthBuilder) -> HealthBuilder {
        let database = self.clone();
        health.critical("database", move || {
            let database = database.clone();
            async move { database.ping().await }
        })
    }

    /// Reads one page: for a health check that wants to know whether the file answers.
    pub async fn ping(&self) -> Result<(), SqliteError> {
        self.read("SELECT schema_migrations", |connection| {
            connection.query_row("SELECT count(*) FROM schema_migrations", [], |_| Ok(()))?;
            Ok(())
        })
        .await
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl Shared {
    async fn read<T, E, F>(self: Arc<Self>, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let _permit = {
            let _waiting = Waiting::one(&self.waiting);
            let began = Instant::now();
            let permit = self.readers.acquire().await.map_err(|_| SqliteError::Gone)?;
            if let Some(observed) = self.observed.get() {
                observed.read_waited(began.elapsed());
            }
            permit
        };
        let shared = Arc::clone(&self);
        let task = tokio::task::spawn_blocking(move || {
            let pooled = shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match pooled {
                Some(connection) => connection,
                None => reader(&shared.path)?,
            };
            let result = work(&connection);
            shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            result
        });
        task.await.unwrap_or_else(|_| Err(SqliteError::Gone.into()))
    }
}

/// Counts one who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn one(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` off the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqliteError> + Send + 'static,
) -> Result<T, SqliteError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(SqliteError::Gone))
}

/// The writer's connection to a file that is there and migrated.
fn prepare(path: &Path, migrations: &[Migration]) -> Result<Connection, SqliteError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        private::folder(folder).map_err(|source| SqliteError::Create {
            path: folder.to_owned(),
            source,
        })?;
    }
    // SQLite gives -wal and -shm the mode of the database itself.
    private::touch(path).map_err(|source| SqliteError::Create {
        path: path.to_owned(),
        source,
    })?;
    let mut connection = writer_connection(path).map_err(|source| SqliteError::Open {
        path: path.to_owned(),
        source,
    })?;
    migrations::apply(&mut connection, migrations)?;
    Ok(connection)
}

fn writer_connection(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    Ok(connection)
}

fn reader(path: &Path) -> Result<Connection, SqliteError> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // No SQLITE_OPEN_CREATE: a file that vanished is an error, never a new and empty database.
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

#[cfg(test)]
mod tests;
