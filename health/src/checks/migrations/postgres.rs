//! Reading what was applied to a PostgreSQL database, from the tables of the tools that people use.

use deadpool_postgres::Pool;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::super::postgres::{Borrowed, Missing, borrow, failure};
use super::{Applied, Migration, MigrationCheck};
use crate::check::{Failure, Reason};

/// The table of a migration tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// sqlx: `_sqlx_migrations`. The checksum is the SHA-384 of the file, as in `sqlx::migrate::Migration::checksum`.
    Sqlx,
    /// refinery: `refinery_schema_history`. The checksum is the decimal text of `refinery::Migration::checksum()`. It has
    /// no failed migrations: each is applied in a transaction with its row.
    Refinery,
    /// Any other, by a query that answers version, checksum in hexadecimal, and whether it ran to its end.
    Query(&'static str),
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Self::Sqlx => "_sqlx_migrations",
            Self::Refinery => "refinery_schema_history",
            Self::Query(_) => "the applied migrations",
        }
    }

    /// Version, checksum in hexadecimal, success.
    const fn query(self) -> &'static str {
        match self {
            Self::Sqlx => "SELECT version, encode(checksum, 'hex'), success FROM _sqlx_migrations",
            Self::Refinery => {
                "SELECT version, encode(convert_to(checksum, 'UTF8'), 'hex'), true FROM refinery_schema_history"
            }
            Self::Query(query) => query,
        }
    }
}

impl MigrationCheck {
    /// Reads `table` over the application's pool, where the connections' search path finds it. No table means that nothing
    /// was applied.
    pub fn postgres(embedded: impl IntoIterator<Item = Migration>, pool: &Pool, table: Table) -> Self {
        let pool = pool.clone();
        Self::new(embedded, move || read(pool.clone(), table))
    }
}

async fn read(pool: Pool, table: Table) -> Result<Vec<Applied>, Failure> {
    let connection = borrow(&pool, std::time::Duration::from_millis(300)).await;
    let connection = connection.map_err(|missing| match missing {
        Missing::Full => Failure::new(Reason::Saturated, "the pool is full"),
        Missing::Failed(failure) => failure,
    })?;
    let rows = match Borrowed(Some(connection)).query(table.query()).await {
        Ok(rows) => rows,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(Vec::new()),
        Err(error) => return Err(failure(error)),
    };
    rows.iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .map(|row| {
            let applied = || {
                Some(Applied {
                    version: row.get(0)?.parse().ok()?,
                    checksum: from_hex(row.get(1)?)?,
                    success: row.get(2)? == "t",
                })
            };
            let unreadable = || {
                Failure::new(
                    Reason::Protocol,
                    format!("a row of {} is not as expected", table.name()),
                )
            };
            applied().ok_or_else(unreadable)
        })
        .collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}
