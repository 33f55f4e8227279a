//! Columns that hold what this code wrote. What it never wrote is an error, never a guess.

use std::borrow::Cow;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::{Cause, PostgresError};

/// The value of a column.
pub fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, PostgresError> {
    Ok(row.try_get(column)?)
}

/// `text` as a column can hold it: the one character that PostgreSQL does not store, U+0000, as U+FFFD. For texts that come
/// from elsewhere and are for people.
pub fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A value that the service never wrote.
pub fn strange(row: &Row, column: usize) -> PostgresError {
    let name = row.columns().get(column).map_or("?", |column| column.name());
    PostgresError::Statement(Cause::told(format!(
        "column {name} holds what this release never wrote"
    )))
}
