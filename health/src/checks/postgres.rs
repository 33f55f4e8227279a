//! PostgreSQL through the application's own pool: borrow a connection, ask, give it back. A full pool is a warning and not
//! an outage: the server may be well, and taking more of its connections would make things worse.

use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError, TimeoutType, Timeouts};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::Asking;
use crate::check::{Check, Failure, Outcome, Reason};

/// `SELECT 1` over a connection of the application's pool.
#[derive(Debug, Clone)]
pub struct PostgresCheck {
    pool: Pool,
    reserved: Option<Pool>,
    acquire: Duration,
    writable: bool,
}

impl PostgresCheck {
    /// Asks over `pool`.
    pub fn pool(pool: &Pool) -> Self {
        Self {
            pool: pool.clone(),
            reserved: None,
            acquire: Duration::from_millis(300),
            writable: false,
        }
    }

    /// How long a full pool is waited for before it is called `saturated`. Default 300 ms; it must be less than the
    /// check's timeout, which would call it `timeout`.
    #[must_use]
    pub fn acquire_within(mut self, limit: Duration) -> Self {
        self.acquire = limit;
        self
    }

    /// While the pool is full, asks over this one, best of a single connection. Without it a pool that is full because
    /// the server hangs cannot be told from one that is merely busy.
    #[must_use]
    pub fn reserved(mut self, pool: &Pool) -> Self {
        self.reserved = Some(pool.clone());
        self
    }

    /// Fails on a server that takes no writes: a standby, or one that is read-only by default.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    async fn ask(&self) -> Outcome {
        match borrow(&self.pool, self.acquire).await {
            Ok(connection) => self.question(connection).await,
            Err(Missing::Full) => {
                let status = self.pool.status();
                let detail = format!(
                    "all {} connections are in use, {} wait",
                    status.max_size, status.waiting
                );
                let full = Failure::new(Reason::Saturated, detail);
                let Some(reserved) = &self.reserved else {
                    return Outcome::Warn(full);
                };
                match borrow(reserved, self.acquire).await {
                    Ok(connection) => match self.question(connection).await {
                        Outcome::Pass => Outcome::Warn(full),
                        other => other,
                    },
                    Err(Missing::Full) => Outcome::Warn(full),
                    Err(Missing::Failed(failure)) => Outcome::Fail(failure),
                }
            }
            Err(Missing::Failed(failure)) => Outcome::Fail(failure),
        }
    }

    async fn question(&self, connection: Object) -> Outcome {
        let question = if self.writable {
            "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool"
        } else {
            "SELECT 1"
        };
        match Borrowed(Some(connection)).query(question).await {
            Ok(rows) if self.writable && !is_false(&rows) => {
                Outcome::Fail(Failure::new(Reason::Protocol, "the server takes no writes"))
            }
            Ok(_) => Outcome::Pass,
            Err(error) => Outcome::Fail(failure(error)),
        }
    }
}

impl Check for PostgresCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(self.ask())
    }

    fn component_type(&self) -> &'static str {
        "datastore"
    }
}

fn is_false(rows: &[SimpleQueryMessage]) -> bool {
    rows.iter()
        .any(|row| matches!(row, SimpleQueryMessage::Row(row) if row.get(0) == Some("f")))
}

/// Why there is no connection.
pub(super) enum Missing {
    /// All are in use.
    Full,
    Failed(Failure),
}

/// A connection of `pool`; waits `wait` for one that is free.
pub(super) async fn borrow(pool: &Pool, wait: Duration) -> Result<Object, Missing> {
    let wait_only = |wait| Timeouts {
        wait: Some(wait),
        create: None,
        recycle: None,
    };
    let borrowed = match pool.timeout_get(&wait_only(wait)).await {
        // A pool that was built without a runtime can tell whether it is full, and cannot wait.
        Err(PoolError::NoRuntimeSpecified) => pool.timeout_get(&wait_only(Duration::ZERO)).await,
        other => other,
    };
    borrowed.map_err(|error| match error {
        PoolError::Timeout(TimeoutType::Wait) => Missing::Full,
        PoolError::Timeout(_) => Missing::Failed(Failure::new(Reason::Timeout, error.to_string())),
        PoolError::Backend(error) => Missing::Failed(failure(error)),
        other => Missing::Failed(Failure::new(Reason::Error, other.to_string())),
    })
}

/// A borrowed connection. Dropped while its answer is still to come, it is closed instead of given back: the next
/// borrower would have to wait for that answer.
pub(super) struct Borrowed(pub(super) Option<Object>);

impl Borrowed {
    /// Sends `question`, one round trip, and gives the connection back.
    pub(super) async fn query(mut self, question: &str) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
        let Some(connection) = &self.0 else {
            return Ok(Vec::new());
        };
        let answer = connection.simple_query(question).await;
        drop(self.0.take());
        answer
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(unanswered) = self.0.take() {
            drop(Object::take(unanswered));
        }
    }
}

/// What an error of the client or the server means.
pub(super) fn failure(error: tokio_postgres::Error) -> Failure {
    let told = match error.code() {
        Some(code) => Some(of_server(code)),
        None if error.is_closed() => Some(Reason::Refused),
        None => of_client(&error.to_string()),
    };
    let mut failure = Failure::from(error);
    if let Some(reason) = told {
        failure.reason = reason;
    }
    failure
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn of_server(code: &SqlState) -> Reason {
    match code.code() {
        "42501" => Reason::Auth,
        "53100" | "53200" | "53300" => Reason::Saturated,
        "57014" => Reason::Timeout,
        // Starting up, shutting down, crashed.
        "57P01" | "57P02" | "57P03" => Reason::Refused,
        class if class.starts_with("28") => Reason::Auth,
        class if class.starts_with("08") => Reason::Refused,
        _ => Reason::Protocol,
    }
}

/// The client keeps the kind of its errors to itself; these are their texts.
fn of_client(text: &str) -> Option<Reason> {
    if text.starts_with("error performing TLS handshake") {
        Some(Reason::Tls)
    } else if text.starts_with("authentication error") || text.starts_with("invalid configuration: password") {
        Some(Reason::Auth)
    } else if text.starts_with("timeout") {
        Some(Reason::Timeout)
    } else {
        None
    }
}
