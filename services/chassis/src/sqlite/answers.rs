//! What a caller is told when the database failed: enough to know whether to come back, nothing of the inside, which goes
//! to the log.

use std::error::Error;
use std::time::Duration;

use axum::http::StatusCode;

use super::SqliteError;
use crate::problem::Problem;

/// When it is worth asking again after a moment of overload.
const SOON: Duration = Duration::from_secs(1);

impl From<SqliteError> for tonic::Status {
    /// DEADLINE_EXCEEDED as it says, RESOURCE_EXHAUSTED for a full queue or disk, UNAVAILABLE for a lock that was held too long, else INTERNAL.
    fn from(error: SqliteError) -> Self {
        log(&error);
        match error {
            SqliteError::Expired => Self::deadline_exceeded("the deadline was over before the work began"),
            SqliteError::Overloaded => Self::resource_exhausted("too many requests wait for the database"),
            SqliteError::Full(_) => Self::resource_exhausted("the disk of the database is full"),
            error if error.is_transient() => Self::unavailable("the database is busy"),
            _ => Self::internal("the database failed"),
        }
    }
}

impl From<SqliteError> for Problem {
    /// 503 with `Retry-After` for what passes, 504 for a deadline that was over, 507 for a full disk, else 500.
    fn from(error: SqliteError) -> Self {
        log(&error);
        match error {
            SqliteError::Full(_) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "the disk of the database is full",
            ),
            SqliteError::Expired => Self::new(StatusCode::GATEWAY_TIMEOUT, "too_late", "there was no time left"),
            error if error.is_transient() => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the database is busy").retry_after(SOON)
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the database failed"),
        }
    }
}

fn log(error: &SqliteError) {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    if error.is_transient() || matches!(error, SqliteError::Expired) {
        tracing::warn!(%error, cause, "database");
    } else {
        tracing::error!(%error, cause, "database");
    }
}
