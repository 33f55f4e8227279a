//! A restored copy that has to be brought to life before it can be asked: a server with the data in it. What is asked of
//! it changes nothing, takes no longer than it may, and is answered in the terms of every other copy.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::assertion::Refused;
use super::judge::Value;
use super::record::Check;
use crate::Error;

/// Makes of restored files something that can be asked.
#[async_trait]
pub trait Revive: fmt::Debug + Send + Sync {
    /// Brings to life what is in `folder`. What is wrong with the data is in the checks; an error means that it could
    /// not be tried. Dropping the future leaves nothing running.
    async fn revive(&self, folder: &Path) -> Result<Revived, Error>;
}

/// What came to life.
pub struct Revived {
    /// What was found on the way.
    pub checks: Vec<Check>,
    /// What can be asked now, if it came that far.
    pub live: Option<Box<dyn Live>>,
}

/// A server that runs as long as this is not dropped.
#[async_trait]
pub trait Live: Send + Sync {
    /// How a database of it is connected to; without a name the one that is meant, or why none is.
    fn address(&self, database: Option<&str>) -> Result<tokio_postgres::Config, String>;

    /// Its version, for the record.
    fn version(&self) -> String;

    /// Ends it.
    async fn stop(self: Box<Self>) -> Result<(), Error>;
}

/// A server that is asked: a connection a question, since each may be about another database.
pub(super) struct Server {
    pub(super) live: Box<dyn Live>,
    pub(super) limit: Duration,
}

impl Server {
    /// The first column of the first row of a query.
    pub(super) async fn ask(&self, query: &str, database: Option<&str>) -> Result<Value, Refused> {
        let address = self.live.address(database).map_err(Refused::Failed)?;
        let (client, connection) = address.connect(NoTls).await.map_err(|error| self.refused(&error))?;
        let served = tokio::spawn(connection);
        let answer = self.first_value(&client, query).await;
        drop(client);
        let _ = served.await;
        answer
    }

    async fn first_value(&self, client: &Client, query: &str) -> Result<Value, Refused> {
        let refused = |error: tokio_postgres::Error| self.refused(&error);
        let limit = self.limit.as_millis().max(1);
        client
            .batch_execute(&format!(
                "SET statement_timeout = {limit}; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET bytea_output = 'hex'; BEGIN READ ONLY"
            ))
            .await
            .map_err(refused)?;
        // That it is one statement, and what it answers with.
        let statement = client.prepare(query).await.map_err(refused)?;
        let Some(column) = statement.columns().first() else {
            return Err(Refused::Failed(
                "this is no query: it asks for nothing, or would change something".to_owned(),
            ));
        };
        let kind = column.type_().clone();
        // One row of however many.
        let query = query.trim_end().trim_end_matches(';');
        client
            .batch_execute(&format!("DECLARE opsctl NO SCROLL CURSOR FOR {query}\n"))
            .await
            .map_err(refused)?;
        let answer = client.simple_query("FETCH 1 FROM opsctl").await.map_err(refused)?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(row
            .and_then(|row| row.get(0))
            .map_or(Value::Nothing, |text| value(&kind, text)))
    }

    fn refused(&self, error: &tokio_postgres::Error) -> Refused {
        if error.code() == Some(&SqlState::QUERY_CANCELED) {
            return Refused::TimedOut(self.limit);
        }
        let told = error.as_db_error().map(ToString::to_string);
        Refused::Failed(told.unwrap_or_else(|| error.to_string()))
    }
}

/// What PostgreSQL writes, by its type.
fn value(kind: &Type, text: &str) -> Value {
    let whole = || text.parse().ok().map(Value::Integer);
    let real = || text.parse().ok().map(Value::Real);
    let known = match *kind {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => whole(),
        Type::NUMERIC => whole().or_else(real),
        Type::FLOAT4 | Type::FLOAT8 => real(),
        Type::BOOL => Some(Value::Integer(i64::from(text == "t"))),
        Type::BYTEA => Some(Value::Bytes(text.len().saturating_sub(2) / 2)),
        Type::TIMESTAMPTZ => text
            .strip_suffix("+00")
            .map(|utc| Value::Text(format!("{}Z", utc.replace(' ', "T")))),
        _ => None,
    };
    known.unwrap_or_else(|| Value::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::judge::time_of;

    #[test]
    fn answers_are_what_they_are_in_every_other_copy() {
        for (kind, text, expected) in [
            (Type::INT8, "42", Value::Integer(42)),
            (Type::NUMERIC, "12", Value::Integer(12)),
            (Type::NUMERIC, "1.5", Value::Real(1.5)),
            (
                Type::NUMERIC,
                "123456789012345678901",
                Value::Real(123_456_789_012_345_678_901.0),
            ),
            (Type::BOOL, "t", Value::Integer(1)),
            (Type::BOOL, "f", Value::Integer(0)),
            (Type::BYTEA, "\\x00ff", Value::Bytes(2)),
            (Type::TEXT, "42", Value::Text("42".to_owned())),
            (Type::TIMESTAMPTZ, "infinity", Value::Text("infinity".to_owned())),
        ] {
            assert_eq!(value(&kind, text), expected, "{kind} {text}");
        }
        let time = value(&Type::TIMESTAMPTZ, "2026-03-01 12:00:05.25+00");
        assert_eq!(
            time_of(&time).map(|time| time.to_string()).as_deref(),
            Some("2026-03-01T12:00:05.25Z")
        );
    }
}
