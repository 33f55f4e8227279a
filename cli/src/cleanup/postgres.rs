//! Rows of a PostgreSQL. Each batch is one statement, and so one transaction; rows that somebody else has locked are left
//! for the next run, so that nobody waits for us nor we for them.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config as Address, NoTls, SimpleQueryMessage};

use super::{Batch, PATIENCE, Preview, SAMPLE, check_columns, failed, locked, no_table, qualified, shortened};
use crate::config::{Cleanup, Datastore, What, filled};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;

/// A connection and what is done over it.
pub(super) struct Postgres {
    cleanup: Cleanup,
    client: Client,
    delete: String,
    shows: Option<(String, String)>,
}

impl Postgres {
    /// Connects and looks at the table.
    pub(super) async fn open(
        context: &Context,
        cleanup: &Cleanup,
        store: &Datastore,
        cutoff: Option<String>,
    ) -> Result<Self, Failure> {
        let what = failed(cleanup);
        let source = store.dsn.as_ref().ok_or_else(|| {
            Failure::usage(
                "config_invalid",
                format!("{what}: datastore `{}` has no `dsn`", store.name),
            )
        })?;
        let dsn = source.fetch(context, &format!("the `dsn` of datastore `{}`", store.name))?;
        if asks_for_tls(dsn.expose()) {
            return Err(Failure::usage(
                "no_tls",
                format!("{what}: the `dsn` of datastore `{}` asks for TLS", store.name),
            )
            .cause("this opsctl speaks to PostgreSQL without it")
            .help("say `sslmode=disable` where the way to the server is safe, such as a socket or a tunnel"));
        }
        // What is wrong with an address is not told: it may hold a password.
        let mut address: Address = dsn.expose().parse().map_err(|_| {
            Failure::usage(
                "config_invalid",
                format!("the `dsn` of datastore `{}` is no address", store.name),
            )
            .help("expected for example postgres://user@host/database")
        })?;
        if address.get_connect_timeout().is_none() {
            address.connect_timeout(PATIENCE);
        }
        address.application_name(format!("opsctl cleanup {}", cleanup.name));
        let (client, connection) = address.connect(NoTls).await.map_err(|error| {
            let reached = error.as_db_error().is_some();
            let exit = if reached { Exit::Failed } else { Exit::Unreachable };
            Failure::new(exit, "unreachable", what.clone())
                .cause(format!("could not connect to datastore `{}`", store.name))
                .because(&error)
        })?;
        // It ends with the client.
        tokio::spawn(connection);
        client
            .batch_execute(&format!("SET lock_timeout = {}", PATIENCE.as_millis()))
            .await
            .map_err(|error| told(cleanup, &error))?;

        let values: Vec<(&str, String)> = cutoff.map(|cutoff| ("cutoff", cutoff)).into_iter().collect();
        let (delete, shows) = match &cleanup.what {
            What::Statement(statement) => (filled(&statement.sql, &values), None),
            What::Rows(rows) => {
                let table = qualified(&rows.table);
                look(cleanup, store, &client, &table, &rows.condition).await?;
                let select = format!("FROM {table} WHERE ({})", filled(&rows.condition, &values));
                let delete = format!(
                    "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid {select} LIMIT :batch FOR UPDATE SKIP LOCKED))"
                );
                let shows = (
                    format!("SELECT count(*) {select}"),
                    format!("SELECT * {select} LIMIT {SAMPLE}"),
                );
                (delete, Some(shows))
            }
            What::Call(_) => return Err(Failure::bug("a call is not made to a database")),
        };
        Ok(Self {
            cleanup: cleanup.clone(),
            client,
            delete,
            shows,
        })
    }

    /// Deletes a batch.
    pub(super) async fn batch(&self, limit: u64) -> Result<Batch, Failure> {
        let sql = filled(&self.delete, &[("batch", limit.to_string())]);
        let rows = self
            .client
            .execute(&sql, &[])
            .await
            .map_err(|error| told(&self.cleanup, &error))?;
        Ok(Batch {
            rows,
            last: if self.shows.is_some() { rows < limit } else { rows == 0 },
        })
    }

    /// Counts and shows, or plays a statement and takes it back.
    pub(super) async fn preview(&self) -> Result<Preview, Failure> {
        let how = filled(&self.delete, &[("batch", self.cleanup.batch.to_string())]);
        let wrong = |error| told(&self.cleanup, &error);
        let Some((count, show)) = &self.shows else {
            self.client.batch_execute("BEGIN").await.map_err(wrong)?;
            let rows = self.client.execute(&how, &[]).await;
            self.client.batch_execute("ROLLBACK").await.map_err(wrong)?;
            return Ok(Preview {
                rows: Some(rows.map_err(wrong)?),
                sample: Vec::new(),
                how,
            });
        };
        let rows: i64 = self.client.query_one(count, &[]).await.map_err(wrong)?.get(0);
        // The simple protocol has every value as text, whatever its type.
        let sample = self.client.simple_query(show).await.map_err(wrong)?;
        let sample = sample
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .map(|row| {
                let cells: Vec<String> = row
                    .columns()
                    .iter()
                    .enumerate()
                    .map(|(at, column)| format!("{}={}", column.name(), shortened(row.get(at).unwrap_or("NULL"))))
                    .collect();
                cells.join(" ")
            })
            .collect();
        Ok(Preview {
            rows: u64::try_from(rows).ok(),
            sample,
            how,
        })
    }
}

async fn look(
    cleanup: &Cleanup,
    store: &Datastore,
    client: &Client,
    table: &str,
    condition: &str,
) -> Result<(), Failure> {
    let columns = client
        .query(
            "SELECT a.attname::text, c.relkind::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
             WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped",
            &[&table],
        )
        .await
        .map_err(|error| told(cleanup, &error))?;
    let Some(first) = columns.first() else {
        return Err(no_table(cleanup, store, table));
    };
    if first.get::<_, String>(1) != "r" {
        return Err(Failure::usage(
            "unknown_table",
            format!("{}: {table} is no plain table", failed(cleanup)),
        )
        .help("name its partitions in cleanups of their own, or write the statement in `sql`"));
    }
    let names: Vec<String> = columns.iter().map(|row| row.get(0)).collect();
    check_columns(cleanup, table, condition, &names)
}

fn told(cleanup: &Cleanup, error: &tokio_postgres::Error) -> Failure {
    match error.code() {
        Some(code) if [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) => {
            locked(cleanup, "others hold locks on the table")
        }
        _ if error.is_closed() => Failure::new(Exit::Unreachable, "unreachable", failed(cleanup)).because(error),
        _ => Failure::new(Exit::Failed, "cleanup_failed", failed(cleanup))
            .because(error)
            .help(format!("it is declared at {}", cleanup.origin)),
    }
}

/// Whether an address wants a connection that is encrypted or none.
fn asks_for_tls(dsn: &str) -> bool {
    let modes = dsn.split("sslmode").skip(1);
    let mut modes = modes.map(|rest| rest.trim_start_matches([' ', '=', '\'']));
    modes.any(|mode| mode.starts_with("require") || mode.starts_with("verify"))
}

#[cfg(test)]
mod tests {
    use super::asks_for_tls;

    #[test]
    fn an_address_that_asks_for_tls_is_known() {
        for dsn in [
            "postgres://shop@db/orders?sslmode=require",
            "postgres://shop@db/orders?connect_timeout=3&sslmode=verify-full",
            "host=db user=shop sslmode = 'verify-ca'",
        ] {
            assert!(asks_for_tls(dsn), "{dsn}");
        }
        for dsn in [
            "postgres://shop@db/orders",
            "postgres://shop@db/orders?sslmode=prefer",
            "host=db sslmode=disable",
        ] {
            assert!(!asks_for_tls(dsn), "{dsn}");
        }
    }
}
