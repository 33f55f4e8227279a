//! A connection that one call uses. Only a call that came to its end gives it back to the pool: a connection whose call
//! was dropped half-way is closed, which undoes the transaction, and no other call has to wait for its answer.

use std::sync::Arc;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresError;

/// A connection, lent to the work of one call. Statements are prepared once for each connection.
#[derive(Debug, Clone)]
pub struct Session {
    lent: Arc<Lent>,
}

#[derive(Debug)]
struct Lent(Option<Object>);

impl Session {
    pub(super) fn new(connection: Object) -> Self {
        Self {
            lent: Arc::new(Lent(Some(connection))),
        }
    }

    /// The rows that a statement answers.
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PostgresError> {
        let connection = self.connection();
        let statement = connection.prepare_cached(sql).await?;
        Ok(connection.query(&statement, values).await?)
    }

    /// The first row that a statement answers, if any.
    pub async fn first(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, PostgresError> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// How many rows a statement changed.
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, PostgresError> {
        let connection = self.connection();
        let statement = connection.prepare_cached(sql).await?;
        Ok(connection.execute(&statement, values).await?)
    }

    /// Statements without values and without answers.
    pub async fn batch(&self, sql: &str) -> Result<(), PostgresError> {
        Ok(self.connection().batch_execute(sql).await?)
    }

    /// Back to the pool, unless the work has kept it.
    pub(super) fn give_back(self) {
        if let Some(mut lent) = Arc::into_inner(self.lent) {
            drop(lent.0.take());
        }
    }

    fn connection(&self) -> &Object {
        self.lent.0.as_ref().expect("it is taken out only at the end")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(unfinished) = self.0.take() {
            drop(Object::take(unfinished));
        }
    }
}
