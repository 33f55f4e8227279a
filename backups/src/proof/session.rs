//! A database of a live server that is asked before it takes the place of another. PostgreSQL's own client asks, as with
//! everything else on that server, so that every way there is one; what is asked changes nothing.

use std::time::Duration;

use serde_json::Value as Json;

use super::assertion::{Assertion, Refused, Subject};
use super::judge::Value;
use super::record::Check;
use crate::Error;
use crate::postgres::PostgresError;
use crate::postgres::swap::Server;

/// A database of a server.
pub(super) struct Session {
    server: Server,
    database: String,
    limit: Duration,
}

impl Session {
    /// The first column of the first row of a query.
    pub(super) async fn ask(&self, query: &str) -> Result<Value, Refused> {
        match self.server.first_value(&self.database, query, self.limit).await {
            Ok(answer) if answer.rows == 0 => Ok(Value::Nothing),
            Ok(answer) => Ok(value(&answer.value)),
            Err(PostgresError::Failed { said, .. }) if said.contains("due to statement timeout") => {
                Err(Refused::TimedOut(self.limit))
            }
            Err(PostgresError::Failed { said, .. }) => Err(Refused::Failed(first_line(&said))),
            Err(error) => Err(Refused::Failed(error.to_string())),
        }
    }
}

/// Asks a database of a server what is asserted of it. No query takes longer than `limit`.
pub async fn ask_database(
    server: &Server,
    database: &str,
    assertions: &[&Assertion],
    limit: Duration,
) -> Result<Vec<Check>, Error> {
    let mut subject = Subject::of_session(Session {
        server: server.clone(),
        database: database.to_owned(),
        limit,
    });
    let mut checks = Vec::new();
    for assertion in assertions {
        checks.extend(subject.check(assertion).await?);
    }
    Ok(checks)
}

/// What PostgreSQL says of an error, without where it was in our own words.
fn first_line(said: &str) -> String {
    let line = said.lines().find(|line| line.contains("ERROR:")).unwrap_or(said);
    line.split_once("ERROR:")
        .map_or(line, |(_, rest)| rest)
        .trim()
        .to_owned()
}

/// What PostgreSQL writes as JSON.
fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nothing,
        Json::Bool(truth) => Value::Integer(i64::from(*truth)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, Some(real)) => Value::Real(real),
            (None, None) => Value::Text(number.to_string()),
        },
        Json::String(text) => Value::Text(match text.strip_suffix("+00:00") {
            // A time is told as in every other copy.
            Some(utc) if utc.parse::<jiff::civil::DateTime>().is_ok() => format!("{utc}Z"),
            _ => text.clone(),
        }),
        other => Value::Text(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_what_they_are_in_every_other_copy() {
        for (answer, expected) in [
            (json!(null), Value::Nothing),
            (json!(true), Value::Integer(1)),
            (json!(42), Value::Integer(42)),
            (json!(1.5), Value::Real(1.5)),
            (json!("42"), Value::Text("42".to_owned())),
            (json!("at +00:00"), Value::Text("at +00:00".to_owned())),
            (
                json!("2026-03-01T12:00:05.25+00:00"),
                Value::Text("2026-03-01T12:00:05.25Z".to_owned()),
            ),
        ] {
            assert_eq!(value(&answer), expected, "{answer}");
        }
        assert_eq!(
            first_line("psql:<stdin>:5: ERROR:  relation \"x\" does not exist\nCONTEXT:  SQL statement"),
            "relation \"x\" does not exist"
        );
    }
}
