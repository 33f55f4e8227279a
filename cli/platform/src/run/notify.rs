//! Telling a webhook how runs start and end. Bounded in time, never fatal: a failure is an event in the journal.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde_json::json;

use super::undo::message_of;
use super::{Journal, Notify, Outcome, RunRecord};

/// Posts one JSON document (schema `opsctl.notification/v1`) per event to the URL. Does not follow redirects.
#[derive(Debug, Clone)]
pub struct Notifier {
    url: http::Uri,
    limit: Duration,
}

/// Why a webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Not an `http://host…` URL.
    #[error("a webhook must be an http:// URL with a host")]
    Url,
}

#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("the webhook did not answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the webhook answered {0}")]
    Status(http::StatusCode),
    #[error("the webhook cannot be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the request cannot be built")]
    Request(#[source] http::Error),
}

impl Notifier {
    /// How long one delivery may take.
    pub const LIMIT: Duration = Duration::from_secs(3);

    /// Checks the URL; sends nothing.
    pub fn new(notify: &Notify) -> Result<Self, NotifyError> {
        let url: http::Uri = notify.webhook.parse().map_err(|_| NotifyError::Url)?;
        if url.scheme_str() != Some("http") || url.host().is_none_or(str::is_empty) {
            return Err(NotifyError::Url);
        }
        Ok(Self {
            url,
            limit: Self::LIMIT,
        })
    }

    /// With another limit than [`Notifier::LIMIT`].
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The event that a closed record's outcome is: `finished`, `failed` or `undo_incomplete`.
    pub fn ending(record: &RunRecord) -> &'static str {
        match record.outcome {
            Some(Outcome::Passed | Outcome::Aborted) => "finished",
            Some(Outcome::UndoIncomplete) => "undo_incomplete",
            _ => "failed",
        }
    }

    /// Delivers one event; notes in the journal whether it arrived.
    pub async fn tell(&self, record: &RunRecord, event: &str, journal: &Journal, now: Timestamp) {
        let document = json!({
            "schema": "opsctl.notification/v1",
            "event": event,
            "at": now,
            "run": record.id,
            "kind": record.kind,
            "target": record.target,
            "environment": record.environment,
            "actor": record.actor,
            "reason": record.reason,
            "outcome": record.outcome,
            "message": record.message,
        });
        let result = match tokio::time::timeout(self.limit, self.post(document.to_string())).await {
            Ok(result) => result,
            Err(_) => Err(DeliveryError::TimedOut(self.limit)),
        };
        let _ = match result {
            Ok(()) => journal.append(now, "notified", json!({ "event": event })),
            Err(error) => journal.append(
                now,
                "notify_failed",
                json!({ "event": event, "error": message_of(&error) }),
            ),
        };
    }

    async fn post(&self, body: String) -> Result<(), DeliveryError> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = http::Request::post(self.url.clone())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(DeliveryError::Request)?;
        let response = client.request(request).await.map_err(DeliveryError::Unreachable)?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(DeliveryError::Status(response.status()))
        }
    }
}
