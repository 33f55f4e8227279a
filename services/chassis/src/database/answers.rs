//! What a caller is told when the database failed: enough to know whether to come back, nothing of the inside, which goes
//! to the log.

use std::error::Error as _;
use std::time::Duration;

use axum::http::StatusCode;

use super::DatabaseError;
use crate::postgres::PostgresError;
use crate::problem::Problem;
use crate::sqlite::SqliteError;

/// When it is worth asking again after a moment of overload.
const SOON: Duration = Duration::from_secs(1);

/// What a failure means for who asked.
enum Meaning {
    /// There was no time left.
    TooLate,
    /// Others are before.
    Overload,
    /// No room on the disk.
    Full,
    /// It passes.
    Passing,
    /// It does not.
    Broken,
}

impl DatabaseError {
    fn meaning(&self) -> Meaning {
        match self {
            Self::Sqlite(SqliteError::Expired) | Self::Postgres(PostgresError::Expired) => Meaning::TooLate,
            Self::Sqlite(SqliteError::Overloaded) | Self::Postgres(PostgresError::Overloaded) => Meaning::Overload,
            Self::Sqlite(SqliteError::Full(_)) | Self::Postgres(PostgresError::Full(_)) => Meaning::Full,
            error if error.is_transient() => Meaning::Passing,
            _ => Meaning::Broken,
        }
    }

    fn log(&self) {
        let cause = self.source().map(ToString::to_string).unwrap_or_default();
        if matches!(self.meaning(), Meaning::Full | Meaning::Broken) {
            tracing::error!(error = %self, cause, "database");
        } else {
            tracing::warn!(error = %self, cause, "database");
        }
    }
}

impl From<DatabaseError> for tonic::Status {
    /// DEADLINE_EXCEEDED as it says, RESOURCE_EXHAUSTED for a full queue or disk, UNAVAILABLE for what passes (a lock that
    /// was held too long, a server that is away), else INTERNAL.
    fn from(error: DatabaseError) -> Self {
        error.log();
        match error.meaning() {
            Meaning::TooLate => Self::deadline_exceeded("the deadline was over before the work began"),
            Meaning::Overload => Self::resource_exhausted("too many requests wait for the database"),
            Meaning::Full => Self::resource_exhausted("the disk of the database is full"),
            Meaning::Passing => Self::unavailable("the database is busy or away"),
            Meaning::Broken => Self::internal("the database failed"),
        }
    }
}

impl From<DatabaseError> for Problem {
    /// 503 with `Retry-After` for what passes, 504 for a deadline that was over, 507 for a full disk, else 500.
    fn from(error: DatabaseError) -> Self {
        error.log();
        match error.meaning() {
            Meaning::TooLate => Self::new(StatusCode::GATEWAY_TIMEOUT, "too_late", "there was no time left"),
            Meaning::Overload | Meaning::Passing => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the database is busy or away").retry_after(SOON)
            }
            Meaning::Full => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "the disk of the database is full",
            ),
            Meaning::Broken => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the database failed"),
        }
    }
}
