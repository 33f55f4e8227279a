//! One call: a connection, the work, a time limit, and a clear answer to whether it is stored.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resilience::Deadline;
use tokio::time::timeout;

use super::{Cause, Database, PostgresError, Session, Shared};
use crate::database::{causes, postgres_of};

/// How long a call may take: longer than its statements may, which the server itself stops.
const CALL: Duration = Duration::from_secs(15);
/// How often work that lost against another transaction is begun anew.
const ATTEMPTS: u32 = 5;
impl Database {
    /// Runs `work` in a transaction and answers once it is durable; work that answers an error leaves no trace.
    ///
    /// `summary` is the work in the words of the program, operation and table (`INSERT orders`): the name of its span.
    ///
    /// The work is begun anew when the server chose it as the victim of a deadlock. When the connection is lost during
    /// the commit, nobody knows whether it is stored ([`PostgresError::Unknown`]): whoever repeats it must be recognised
    /// by a key of his own. (`pg_xact_status` does not know either: after a crash the server gives the numbers of
    /// transactions that it forgot to others.) Work whose [`Deadline`] is over is not begun.
    pub async fn write<T, E, F, W>(&self, summary: &'static str, work: F) -> Result<T, E>
    where
        E: From<PostgresError> + Error + 'static,
        F: Fn(Session) -> W,
        W: Future<Output = Result<T, E>>,
    {
        self.call(summary, Box::pin(self.shared.write(work))).await
    }

    /// Runs `work`, which only reads, one statement at a time: each sees the newest state. `summary` as in
    /// [`Database::write`].
    pub async fn read<T, E, F, W>(&self, summary: &'static str, work: F) -> Result<T, E>
    where
        E: From<PostgresError> + Error + 'static,
        F: Fn(Session) -> W,
        W: Future<Output = Result<T, E>>,
    {
        self.call(summary, Box::pin(self.shared.read(work))).await
    }

    /// The call comes boxed: with all that a connection's making needs it is large, and it is moved about here.
    async fn call<T, E>(&self, summary: &'static str, call: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        E: From<PostgresError> + Error + 'static,
    {
        let limited = async {
            if !self.shared.migrated.load(Ordering::Acquire) {
                return Err(PostgresError::NotMigrated.into());
            }
            let limit = Deadline::current().map_or(CALL, |deadline| deadline.remaining().min(CALL));
            if limit.is_zero() {
                return Err(PostgresError::Expired.into());
            }
            let silent = || PostgresError::Slow(Cause::told(format!("no answer within {limit:?}")));
            timeout(limit, call).await.unwrap_or_else(|_| Err(silent().into()))
        };
        match self.shared.observed.get() {
            Some(observed) => observed.call(summary, limited).await,
            None => limited.await,
        }
    }
}

impl Shared {
    async fn write<T, E, F, W>(&self, work: F) -> Result<T, E>
    where
        E: From<PostgresError> + Error + 'static,
        F: Fn(Session) -> W,
        W: Future<Output = Result<T, E>>,
    {
        let mut attempt = 1;
        loop {
            let session = self.transaction().await?;
            match work(session.clone()).await {
                Ok(value) => {
                    session.batch("COMMIT").await.map_err(|error| match error {
                        PostgresError::Away(cause) => PostgresError::Unknown(cause),
                        other => other,
                    })?;
                    session.give_back();
                    return Ok(value);
                }
                Err(error) => {
                    if session.batch("ROLLBACK").await.is_ok() {
                        session.give_back();
                    }
                    if attempt == ATTEMPTS || !lost(&error) {
                        return Err(error);
                    }
                    attempt += 1;
                }
            }
        }
    }

    /// A connection with a transaction on it. A connection that died in the pool says so here, when nothing was begun:
    /// then another one is taken.
    async fn transaction(&self) -> Result<Session, PostgresError> {
        let mut left = self.pool.status().max_size;
        loop {
            let session = self.session().await?;
            match session.batch("BEGIN").await {
                Err(PostgresError::Away(_)) if left > 0 => left -= 1,
                begun => return begun.map(|()| session),
            }
        }
    }

    async fn read<T, E, F, W>(&self, work: F) -> Result<T, E>
    where
        E: From<PostgresError> + Error + 'static,
        F: Fn(Session) -> W,
        W: Future<Output = Result<T, E>>,
    {
        let mut left = self.pool.status().max_size;
        loop {
            let session = self.session().await?;
            match work(session.clone()).await {
                // As in a transaction; what only reads may be done again from its beginning.
                Err(error) if left > 0 && is_away(&error) => left -= 1,
                result => {
                    session.give_back();
                    return result;
                }
            }
        }
    }
}

/// Whether another transaction was in the way, so that the same work may succeed at once.
fn lost(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| matches!(postgres_of(cause), Some(PostgresError::Conflict(_))))
}

fn is_away(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| matches!(postgres_of(cause), Some(PostgresError::Away(_))))
}
