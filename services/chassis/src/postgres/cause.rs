//! What the server or the client library said, in the one line that may be logged: without the DETAIL of the server's
//! message, which holds values of rows.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::SqlState;

use super::PostgresError;

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    text: String,
}

impl Cause {
    pub(super) fn told(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {}

impl From<&tokio_postgres::Error> for Cause {
    fn from(error: &tokio_postgres::Error) -> Self {
        if let Some(told) = error.as_db_error() {
            return Self::told(format!("{} ({})", told.message(), told.code().code()));
        }
        Self::told(match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        let cause = Cause::from(&error);
        match error.code() {
            Some(code) => of_server(code, cause),
            None => of_client(&error, cause),
        }
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn of_server(code: &SqlState, cause: Cause) -> PostgresError {
    match code.code() {
        "40001" | "40P01" | "55P03" => PostgresError::Conflict(cause),
        "53100" => PostgresError::Full(cause),
        "53300" | "53400" => PostgresError::Overloaded,
        "57014" => PostgresError::Slow(cause),
        // Starting up, ending, crashed; a session that was ended; a standby, or one that became one.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "25006" => PostgresError::Away(cause),
        // No such database, no right to use it.
        "3D000" | "42501" => PostgresError::Refused(cause),
        class if class.starts_with("28") => PostgresError::Refused(cause),
        class if class.starts_with("08") => PostgresError::Away(cause),
        _ => PostgresError::Statement(cause),
    }
}

/// The client keeps the kind of its errors to itself: what it has is their source and their texts.
fn of_client(error: &tokio_postgres::Error, cause: Cause) -> PostgresError {
    let is_io = error.source().is_some_and(<dyn Error>::is::<std::io::Error>);
    if error.is_closed() || is_io || cause.text.starts_with("timeout") {
        return PostgresError::Away(cause);
    }
    let refused = [
        "authentication error",
        "invalid configuration",
        "error performing TLS handshake",
    ];
    if refused.iter().any(|text| cause.text.starts_with(text)) {
        PostgresError::Refused(cause)
    } else {
        PostgresError::Statement(cause)
    }
}

/// An error with all its causes, on one line.
pub(super) fn chain(error: &PostgresError) -> String {
    let causes: Vec<String> = crate::database::causes(error).map(ToString::to_string).collect();
    causes.join(": ")
}
