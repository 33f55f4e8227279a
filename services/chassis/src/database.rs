//! Where a service keeps what it stores: in PostgreSQL when the environment names a database, else in a SQLite file; and
//! what the failures of either mean. How each is used is the matter of [`crate::postgres`] and [`crate::sqlite`].

mod answers;

use std::error::Error;
use std::path::PathBuf;

use crate::postgres::{PostgresError, Settings};
use crate::sqlite::SqliteError;
use crate::start::Misconfigured;

/// Where a service keeps what it stores.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a file of the folder `DATA_DIR`, shared by the instances on one machine.
    File(PathBuf),
    /// In a database of a PostgreSQL server, shared by instances anywhere.
    Server(Settings),
}

impl Place {
    /// What `read`, a reader of environment variables, says: a server when there is a `DATABASE_URL` (or a file of that
    /// content, `DATABASE_URL_FILE`), else `file`. No error contains the URL, since a password may be part of it.
    pub fn read(
        service: &str,
        file: PathBuf,
        read: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, Misconfigured> {
        Ok(Settings::read(service, read)?.map_or(Self::File(file), Self::Server))
    }
}

/// Why a database did not do what a store asked of it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A SQLite file.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// A PostgreSQL server.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        SqliteError::from(error).into()
    }
}

impl DatabaseError {
    /// True when the same call may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.is_transient(),
            Self::Postgres(error) => error.is_transient(),
        }
    }
}

/// The class of an error in one word, if a database is to blame: what the work itself refused is its matter.
pub(crate) fn class_of(error: &(dyn Error + 'static)) -> Option<&'static str> {
    causes(error).find_map(|cause| {
        let sqlite = match cause.downcast_ref() {
            Some(DatabaseError::Sqlite(error)) => Some(error),
            _ => cause.downcast_ref(),
        };
        sqlite
            .map(SqliteError::class)
            .or_else(|| postgres_of(cause).map(PostgresError::class))
    })
}

/// The PostgreSQL error that `error` is, or stands for.
pub(crate) fn postgres_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a PostgresError> {
    match error.downcast_ref() {
        Some(DatabaseError::Postgres(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

/// `error` and what caused it.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
