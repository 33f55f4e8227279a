//! Applying the steps of `crate::migration`, each exactly once however many replicas start at one moment: who holds the
//! database's advisory lock applies, the others wait and find nothing left to do.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{Cause, PostgresError, Session, Shared};
use crate::migration::Migration;

/// For the health check: what was applied, as version, checksum in hexadecimal, success.
pub(super) const APPLIED: &str = "SELECT version, encode(checksum, 'hex'), true FROM schema_migrations";
/// The lock's name among the advisory locks of the database: "opsctl" in ASCII.
const LOCK: i64 = 0x6f_7073_6374_6c00;
/// Pauses between two attempts while the server is away.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Migrates as soon as the server lets it, for as long as the database is in use.
pub(super) async fn keep_trying(shared: Weak<Shared>) {
    let mut told = String::new();
    for attempt in 0.. {
        tokio::time::sleep(PAUSES[PAUSES.len().min(attempt + 1) - 1]).await;
        let Some(shared) = shared.upgrade() else { return };
        match shared.migrate().await {
            Ok(()) => {
                tracing::info!("the database is there");
                return;
            }
            Err(error) => {
                // Also what waiting does not mend: whoever mends it need not start the service again.
                let text = super::cause::chain(&error);
                if text != told {
                    warn(&error);
                    told = text;
                }
            }
        }
    }
}

pub(super) fn warn(error: &PostgresError) {
    tracing::warn!(error = %super::cause::chain(error), "the database cannot be migrated yet, so that the service is not ready");
}

/// SHA-256 of a step's text.
pub(super) fn checksum(step: &Migration) -> Vec<u8> {
    Sha256::digest(step.sql.as_bytes()).to_vec()
}

impl Shared {
    /// Applies what is missing, all in one transaction.
    pub(super) async fn migrate(&self) -> Result<(), PostgresError> {
        debug_assert!(
            self.migrations
                .iter()
                .enumerate()
                .all(|(index, step)| step.version as usize == index + 1),
            "migrations are numbered from 1 without gaps"
        );
        let session = self.session().await?;
        let applied = apply(&session, self.migrations).await;
        // Dropped on an error, which undoes everything.
        applied?;
        session.give_back();
        self.migrated.store(true, Ordering::Release);
        Ok(())
    }
}

async fn apply(session: &Session, migrations: &[Migration]) -> Result<(), PostgresError> {
    // A step over a large table may take its time, and so may the replica that was first.
    session
        .batch("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        .await?;
    session.query("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    session
        .batch(
            "CREATE TABLE IF NOT EXISTS schema_migrations (
                version integer PRIMARY KEY,
                name text NOT NULL,
                usable_from integer NOT NULL,
                checksum bytea NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now()
            )",
        )
        .await?;
    let rows = session
        .query(
            "SELECT version, usable_from, checksum FROM schema_migrations ORDER BY version",
            &[],
        )
        .await?;
    let number = |row: &tokio_postgres::Row, column| super::column::get::<i32>(row, column).map(i32::unsigned_abs);
    let knows = migrations.last().map_or(0, |step| step.version);
    let mut applied = 0;
    for row in &rows {
        let (version, needs) = (number(row, 0)?, number(row, 1)?);
        if needs > knows {
            return Err(PostgresError::TooNew { needs, knows });
        }
        let ours = migrations.iter().find(|step| step.version == version);
        if ours.is_some_and(|step| row.get::<_, &[u8]>(2) != checksum(step)) {
            return Err(PostgresError::Foreign { version });
        }
        applied = version;
    }
    for step in migrations.iter().filter(|step| step.version > applied) {
        run(session, step).await.map_err(|error| match error {
            PostgresError::Statement(source) | PostgresError::Refused(source) => failed(step, source),
            other => other,
        })?;
    }
    session.batch("COMMIT").await
}

async fn run(session: &Session, step: &Migration) -> Result<(), PostgresError> {
    session.batch(step.sql).await?;
    session
        .execute(
            "INSERT INTO schema_migrations (version, name, usable_from, checksum) VALUES ($1, $2, $3, $4)",
            &[
                &step.version.cast_signed(),
                &step.name,
                &step.usable_from.cast_signed(),
                &checksum(step),
            ],
        )
        .await
        .map(drop)
}

fn failed(step: &Migration, source: Cause) -> PostgresError {
    PostgresError::Migrate {
        version: step.version,
        name: step.name.to_owned(),
        source,
    }
}
