//! The steps that bring a database file to the shape that the code expects, each applied once and recorded in the file.
//! What a step is, is `crate::migration`'s matter.

use rusqlite::{Connection, TransactionBehavior, params};

use super::SqliteError;
use crate::migration::Migration;

/// Applies what is missing. Another instance that does the same waits, then finds nothing left to do.
pub(super) fn apply(connection: &mut Connection, migrations: &[Migration]) -> Result<(), SqliteError> {
    debug_assert!(
        migrations
            .iter()
            .enumerate()
            .all(|(index, step)| step.version as usize == index + 1),
        "migrations are numbered from 1 without gaps"
    );
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
            version INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            usable_from INTEGER NOT NULL,
            applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
        ) STRICT",
    )?;
    let (applied, needs): (u32, u32) = transaction.query_row(
        "SELECT coalesce(max(version), 0), coalesce(max(usable_from), 0) FROM schema_migrations",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let knows = migrations.last().map_or(0, |step| step.version);
    if needs > knows {
        return Err(SqliteError::TooNew { needs, knows });
    }
    for step in migrations.iter().filter(|step| step.version > applied) {
        let failed = |source| SqliteError::Migrate {
            version: step.version,
            name: step.name.to_owned(),
            source,
        };
        transaction.execute_batch(step.sql).map_err(failed)?;
        transaction
            .execute(
                "INSERT INTO schema_migrations (version, name, usable_from) VALUES (?1, ?2, ?3)",
                params![step.version, step.name, step.usable_from],
            )
            .map_err(failed)?;
    }
    transaction.commit()?;
    Ok(())
}
