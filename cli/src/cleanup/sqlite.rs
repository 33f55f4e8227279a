//! Rows of a SQLite file. Each batch is one IMMEDIATE transaction; foreign keys hold, and a name that is no column is an
//! error, where SQLite by itself would take it for a string.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{
    Batch, PATIENCE, Preview, SAMPLE, check_columns, failed, identifier, locked, no_table, qualified, shortened,
};
use crate::config::{Cleanup, Datastore, What, filled};
use crate::error::Failure;
use crate::exit::Exit;

/// An open database and what is done to it.
pub(super) struct Sqlite {
    cleanup: Cleanup,
    connection: Arc<Mutex<Connection>>,
    plan: Plan,
}

/// The SQL of a job.
#[derive(Debug, Clone)]
struct Plan {
    /// Deletes one batch; `:batch` stands for how many rows.
    delete: String,
    /// Counts and shows; none for statements of the user's.
    shows: Option<(String, String)>,
    /// A batch that is not full is the last one.
    short_is_last: bool,
}

impl Sqlite {
    /// Opens the file, which must be there, and looks at the table.
    pub(super) async fn open(cleanup: &Cleanup, store: &Datastore, cutoff: Option<String>) -> Result<Self, Failure> {
        let (cleanup, store) = (cleanup.clone(), store.clone());
        blocking(move || {
            let path = store.path.clone().unwrap_or_default();
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags).map_err(|error| {
                Failure::usage("source_failed", failed(&cleanup))
                    .cause(format!("could not open `{}`", path.display()))
                    .because(&error)
                    .help("is the `path` in opsctl.toml right? `opsctl config show datastore`")
            })?;
            let prepared = || -> rusqlite::Result<()> {
                connection.busy_timeout(PATIENCE)?;
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
                connection.pragma_update(None, "foreign_keys", true)
            };
            prepared().map_err(|error| told(&cleanup, &error))?;
            let plan = plan(&cleanup, &store, &connection, cutoff)?;
            Ok(Self {
                cleanup,
                connection: Arc::new(Mutex::new(connection)),
                plan,
            })
        })
        .await
    }

    /// Deletes a batch.
    pub(super) async fn batch(&self, limit: u64) -> Result<Batch, Failure> {
        let sql = filled(&self.plan.delete, &[("batch", limit.to_string())]);
        let short_is_last = self.plan.short_is_last;
        self.with(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let rows = transaction.execute(&sql, [])? as u64;
            transaction.commit()?;
            Ok(Batch {
                rows,
                last: if short_is_last { rows < limit } else { rows == 0 },
            })
        })
        .await
    }

    /// Counts and shows, or plays a statement and takes it back.
    pub(super) async fn preview(&self) -> Result<Preview, Failure> {
        let (plan, limit) = (self.plan.clone(), self.cleanup.batch);
        self.with(move |connection| {
            let how = filled(&plan.delete, &[("batch", limit.to_string())]);
            let Some((count, show)) = plan.shows else {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let rows = transaction.execute(&how, [])? as u64;
                transaction.rollback()?;
                return Ok(Preview {
                    rows: Some(rows),
                    sample: Vec::new(),
                    how,
                });
            };
            let rows: i64 = connection.query_row(&count, [], |row| row.get(0))?;
            let mut statement = connection.prepare(&show)?;
            let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let sample = statement
                .query_map([], |row| {
                    let cells = names
                        .iter()
                        .enumerate()
                        .map(|(at, name)| Ok(format!("{name}={}", value(row.get_ref(at)?))));
                    Ok(cells.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Preview {
                rows: u64::try_from(rows).ok(),
                sample,
                how,
            })
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (connection, cleanup) = (self.connection.clone(), self.cleanup.clone());
        blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection).map_err(|error| told(&cleanup, &error))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::bug("a cleanup ended unexpectedly").because(&error)))
}

fn told(cleanup: &Cleanup, error: &rusqlite::Error) -> Failure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => locked(cleanup, "others write to the database"),
        Some(ErrorCode::DiskFull) => Failure::new(Exit::Failed, "disk_full", failed(cleanup))
            .because(error)
            .help("free some space: deleting rows needs some, too"),
        _ => Failure::new(Exit::Failed, "cleanup_failed", failed(cleanup))
            .because(error)
            .help(format!("it is declared at {}", cleanup.origin)),
    }
}

fn value(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => shortened(&String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => format!("({} bytes)", bytes.len()),
    }
}

fn plan(
    cleanup: &Cleanup,
    store: &Datastore,
    connection: &Connection,
    cutoff: Option<String>,
) -> Result<Plan, Failure> {
    let values: Vec<(&str, String)> = cutoff.map(|cutoff| ("cutoff", cutoff)).into_iter().collect();
    let rows = match &cleanup.what {
        What::Statement(statement) => {
            return Ok(Plan {
                delete: filled(&statement.sql, &values),
                shows: None,
                short_is_last: false,
            });
        }
        What::Rows(rows) => rows,
        What::Call(_) => return Err(Failure::bug("a call is not made to a file")),
    };
    let (schema, name) = match rows.table.as_slice() {
        [schema, name] => (schema.as_str(), name.as_str()),
        [name] => ("main", name.as_str()),
        _ => return Err(Failure::bug("a table has a name")),
    };
    let columns = columns(connection, schema, name).map_err(|error| told(cleanup, &error))?;
    if columns.is_empty() {
        return Err(no_table(cleanup, store, name));
    }
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    check_columns(cleanup, name, &rows.condition, &names)?;
    let key = key(connection, schema, name, &columns).map_err(|error| told(cleanup, &error))?;
    let (table, condition) = (qualified(&rows.table), filled(&rows.condition, &values));
    let select = format!("FROM {table} WHERE ({condition})");
    let many = if key.len() == 1 {
        key[0].clone()
    } else {
        format!("({})", key.join(", "))
    };
    Ok(Plan {
        delete: format!(
            "DELETE FROM {table} WHERE {many} IN (SELECT {} {select} LIMIT :batch)",
            key.join(", ")
        ),
        shows: Some((
            format!("SELECT count(*) {select}"),
            format!("SELECT * {select} LIMIT {SAMPLE}"),
        )),
        short_is_last: true,
    })
}

struct Column {
    name: String,
    /// Its place in the primary key, from 1; 0 when it is not in it.
    key: i64,
}

fn columns(connection: &Connection, schema: &str, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection.prepare("SELECT name, pk FROM pragma_table_info(?1, ?2)")?;
    let rows = statement.query_map([table, schema], |row| {
        Ok(Column {
            name: row.get(0)?,
            key: row.get(1)?,
        })
    })?;
    rows.collect()
}

/// What tells a row from every other: the row id, or the primary key of a table WITHOUT ROWID.
fn key(connection: &Connection, schema: &str, table: &str, columns: &[Column]) -> rusqlite::Result<Vec<String>> {
    let without: bool = connection.query_row(
        "SELECT coalesce(max(wr), 0) FROM pragma_table_list WHERE schema = ?1 AND name = ?2 COLLATE NOCASE",
        [schema, table],
        |row| row.get(0),
    )?;
    // A column may have one of these names, and then hides the row id.
    let row_id = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(name)));
    if let (false, Some(row_id)) = (without, row_id) {
        return Ok(vec![row_id.to_owned()]);
    }
    let mut key: Vec<&Column> = columns.iter().filter(|column| column.key > 0).collect();
    key.sort_by_key(|column| column.key);
    Ok(key.into_iter().map(|column| identifier(&column.name)).collect())
}
