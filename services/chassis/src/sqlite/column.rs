//! Columns whose text or number stands for something else. What this code never wrote is an error, never a guess.

use std::error::Error;

use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;
use uuid::Uuid;

/// A UUID that is stored as text.
pub fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error: uuid::Error| strange(column, error))
}

/// A point in time that is stored as microseconds since 1970.
pub fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_microsecond(row.get(column)?).map_err(|error| strange(column, error))
}

/// The same where there may be none.
pub fn optional_timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let micros: Option<i64> = row.get(column)?;
    micros.map(|_| timestamp(row, column)).transpose()
}

/// A value that the service never wrote.
pub fn strange(column: usize, why: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into())
}
