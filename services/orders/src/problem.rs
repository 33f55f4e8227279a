//! Errors as HTTP answers: `application/problem+json` (RFC 9457) with a `code` for machines. One exhaustive mapping.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::auth::AuthError;
use crate::domain::FieldError;
use crate::orchestrator::chain;
use crate::service::ServiceError;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// A word for machines; never changes once released.
    pub code: &'static str,
    /// A sentence for people.
    pub detail: String,
    /// What is wrong with which field.
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// An error answer about the request as a whole.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("type".into(), json!(format!("urn:opsctl:problem:{}", self.code)));
        body.insert("title".into(), json!(self.status.canonical_reason().unwrap_or("Error")));
        body.insert("status".into(), json!(self.status.as_u16()));
        body.insert("code".into(), json!(self.code));
        body.insert("detail".into(), json!(self.detail));
        if !self.errors.is_empty() {
            body.insert("errors".into(), json!(self.errors));
        }
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, content_type, Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match &error {
            ServiceError::Invalid(errors) => Self {
                errors: errors.clone(),
                ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", error.to_string())
            },
            ServiceError::NotFound => Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string()),
            ServiceError::TooLate(_) => Self::new(StatusCode::CONFLICT, "too_late", error.to_string()),
            ServiceError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                error.to_string(),
            ),
            ServiceError::Store(store) if store.is_transient() => {
                tracing::warn!(error = %chain(&error), "a request was turned away");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "overloaded",
                    "too much to do, try again",
                )
            }
            ServiceError::Store(_) => {
                tracing::error!(error = %chain(&error), "a request failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "the request failed, and not by your fault",
                )
            }
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let (status, code) = match error {
            AuthError::Missing | AuthError::Invalid(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            AuthError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "identity_unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}
