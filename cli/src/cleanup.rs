//! Cleanup jobs: deleting what is not needed any more, a batch at a time, each batch in a transaction of its own, so that
//! nobody waits long for a lock and a kill loses nothing. What may go is declared in `[cleanup.NAME]`; how rows of a kind
//! of database go is in the files below.

mod call;
mod postgres;
mod sqlite;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Cleanup, Config, Cutoff, CutoffKind, Datastore, DatastoreKind, What};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Swept {
    /// Rows that went.
    pub(crate) rows: u64,
    /// Transactions.
    pub(crate) batches: u64,
    /// How long it took.
    pub(crate) elapsed_seconds: f64,
    /// What ended it before everything was gone.
    pub(crate) stopped_by: Option<StoppedBy>,
}

/// Why a run ended although more may have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoppedBy {
    /// `max_rows`.
    MaxRows,
    /// `max_time`.
    MaxTime,
    /// Somebody.
    Interrupted,
}

/// What would go.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Preview {
    /// How many rows, where that can be known.
    pub(crate) rows: Option<u64>,
    /// Some of them, `column=value`.
    pub(crate) sample: Vec<String>,
    /// What would be done, in words or SQL.
    pub(crate) how: String,
}

/// Rows of a preview.
const SAMPLE: usize = 5;

/// One batch.
struct Batch {
    rows: u64,
    /// Nothing is left that could go.
    last: bool,
}

/// Who deletes.
enum Sweeper {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
    Call(call::Calls),
}

impl Sweeper {
    async fn open(context: &Context, config: &Config, cleanup: &Cleanup, now: Timestamp) -> Result<Self, Failure> {
        let (datastore, cutoff) = match &cleanup.what {
            What::Rows(rows) => (&rows.datastore, rows.cutoff),
            What::Statement(statement) => (&statement.datastore, statement.cutoff),
            What::Call(call) => return call::Calls::open(config, cleanup, call).map(Self::Call),
        };
        let store = config
            .datastores
            .get(datastore)
            .ok_or_else(|| Failure::usage("unknown_target", format!("there is no datastore `{datastore}`")))?;
        let cutoff = cutoff.map(|cutoff| literal(cutoff, now));
        if store.kind == DatastoreKind::Postgres {
            let postgres = postgres::Postgres::open(context, cleanup, store, cutoff).await?;
            return Ok(Self::Postgres(postgres));
        }
        sqlite::Sqlite::open(cleanup, store, cutoff).await.map(Self::Sqlite)
    }

    async fn batch(&mut self, limit: u64) -> Result<Batch, Failure> {
        match self {
            Self::Sqlite(sqlite) => sqlite.batch(limit).await,
            Self::Postgres(postgres) => postgres.batch(limit).await,
            Self::Call(calls) => calls.batch().await,
        }
    }
}

/// Deletes until nothing is left that may go, or a limit is reached, or `cancel`: then after the batch that runs.
pub(crate) async fn run(
    context: &Context,
    config: &Config,
    cleanup: &Cleanup,
    now: Timestamp,
    cancel: &CancellationToken,
) -> Result<Swept, (Swept, Failure)> {
    let began = Instant::now();
    let mut swept = Swept::default();
    let mut sweeper = Sweeper::open(context, config, cleanup, now)
        .await
        .map_err(|failure| (swept.clone(), failure))?;
    let progress = context.out.progress(format!("cleaning up {}", cleanup.name));
    loop {
        let stopped = if cancel.is_cancelled() {
            Some(StoppedBy::Interrupted)
        } else if swept.rows >= cleanup.max_rows {
            Some(StoppedBy::MaxRows)
        } else if began.elapsed() >= cleanup.max_time {
            Some(StoppedBy::MaxTime)
        } else {
            None
        };
        swept.elapsed_seconds = began.elapsed().as_secs_f64();
        if stopped.is_some() {
            swept.stopped_by = stopped;
            return Ok(swept);
        }
        let limit = u64::from(cleanup.batch).min(cleanup.max_rows - swept.rows);
        let batch = match sweeper.batch(limit).await {
            Ok(batch) => batch,
            Err(failure) => {
                swept.elapsed_seconds = began.elapsed().as_secs_f64();
                let told = swept.rows;
                return Err((swept, after(failure, told)));
            }
        };
        swept.rows += batch.rows;
        swept.batches += u64::from(batch.rows > 0);
        swept.elapsed_seconds = began.elapsed().as_secs_f64();
        progress.amount(crate::output::Amount {
            done: swept.rows,
            ..crate::output::Amount::default()
        });
        if batch.last {
            return Ok(swept);
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(cleanup.pause.min(cleanup.max_time.saturating_sub(began.elapsed()))) => {}
        }
    }
}

fn after(failure: Failure, rows: u64) -> Failure {
    if rows == 0 {
        return failure;
    }
    failure.cause(format!("{rows} rows were deleted before that, and stay so"))
}

/// What would go; changes nothing.
pub(crate) async fn preview(
    context: &Context,
    config: &Config,
    cleanup: &Cleanup,
    now: Timestamp,
) -> Result<Preview, Failure> {
    match Sweeper::open(context, config, cleanup, now).await? {
        Sweeper::Sqlite(sqlite) => sqlite.preview().await,
        Sweeper::Postgres(postgres) => postgres.preview().await,
        Sweeper::Call(calls) => Ok(calls.preview()),
    }
}

/// `:cutoff` as a constant of SQL. It is made here of a number alone, so that nothing can be slipped in.
fn literal(cutoff: Cutoff, now: Timestamp) -> String {
    let back = SignedDuration::try_from(cutoff.older_than).unwrap_or(SignedDuration::MAX);
    let instant = now.checked_sub(back).unwrap_or(Timestamp::MIN);
    match cutoff.kind {
        CutoffKind::Timestamp => format!("TIMESTAMPTZ '{}'", instant.strftime("%Y-%m-%d %H:%M:%S%.6f+00")),
        CutoffKind::Seconds => instant.as_second().to_string(),
        CutoffKind::Milliseconds => instant.as_millisecond().to_string(),
        CutoffKind::Microseconds => instant.as_microsecond().to_string(),
        CutoffKind::Text => format!("'{}'", instant.strftime("%Y-%m-%d %H:%M:%S")),
    }
}

/// A name as SQL has it, whatever stands in it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn qualified(table: &[String]) -> String {
    let parts: Vec<String> = table.iter().map(|part| identifier(part)).collect();
    parts.join(".")
}

/// A condition that names no column of the table chooses nothing.
fn check_columns(cleanup: &Cleanup, table: &str, condition: &str, columns: &[String]) -> Result<(), Failure> {
    let named = crate::config::columns_of(condition);
    if named
        .iter()
        .any(|name| columns.iter().any(|column| column.eq_ignore_ascii_case(name)))
    {
        return Ok(());
    }
    Err(Failure::refused(
        "no_condition",
        format!("cleanup `{}` names no column of `{table}` in `where`", cleanup.name),
    )
    .cause(format!("it has {}", columns.join(", ")))
    .help(format!("it is declared at {}", cleanup.origin)))
}

fn no_table(cleanup: &Cleanup, store: &Datastore, table: &str) -> Failure {
    Failure::usage(
        "unknown_table",
        format!("datastore `{}` has no table `{table}`", store.name),
    )
    .help(format!("cleanup `{}` is declared at {}", cleanup.name, cleanup.origin))
}

fn failed(cleanup: &Cleanup) -> String {
    format!("could not clean up `{}`", cleanup.name)
}

fn locked(cleanup: &Cleanup, what: &str) -> Failure {
    Failure::new(Exit::Locked, "database_locked", failed(cleanup))
        .cause(what)
        .help("others hold it for long; the next run goes on")
}

/// How long a lock of others is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A value of a sample, short.
fn shortened(value: &str) -> String {
    const MOST: usize = 40;
    if value.chars().count() <= MOST {
        return value.to_owned();
    }
    let mut text: String = value.chars().take(MOST).collect();
    text.push('…');
    text
}
