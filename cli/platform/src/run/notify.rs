//! Telling a webhook how runs start and end, and what happened beside any run. Bounded in time, never fatal: a failure is
//! an event in the journal of the run, or what [`Notifier::incident`] returns.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::undo::message_of;
use super::{Journal, Notify, Outcome, RunRecord};

/// Posts one JSON document (schema `opsctl.notification/v1`) per event to the URL. Does not follow redirects, and asks no
/// proxy of the environment. Over `https://` the system's certificate authorities decide.
#[derive(Debug, Clone)]
pub struct Notifier {
    url: reqwest::Url,
    client: reqwest::Client,
    limit: Duration,
}

/// Why a webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Not an `http://host…` or `https://host…` URL.
    #[error("a webhook must be an http:// or https:// URL with a host")]
    Url,
    /// There is no TLS here, such as without certificate authorities.
    #[error("a client for webhooks cannot be made")]
    Client(#[source] reqwest::Error),
}

/// Why a webhook does not know what it should.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// It took too long.
    #[error("the webhook did not answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// It answered with something else than success.
    #[error("the webhook answered {0}")]
    Status(reqwest::StatusCode),
    /// Nobody answered. The URL of a webhook is often its secret: it is taken off the error.
    #[error("the webhook cannot be reached")]
    Unreachable(#[source] reqwest::Error),
}

/// Something that somebody must hear of and that is no run.
#[derive(Debug, Clone, Copy)]
pub struct Incident<'a> {
    /// What noticed it, in the place of a run's kind.
    pub kind: &'a str,
    /// What it is about, as runs name their targets: `datastore/pg-main`.
    pub target: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// Who runs what noticed it.
    pub actor: &'a str,
    /// In words.
    pub message: &'a str,
}

impl Notifier {
    /// How long one delivery may take.
    pub const LIMIT: Duration = Duration::from_secs(3);

    /// Checks the URL; sends nothing.
    pub fn new(notify: &Notify) -> Result<Self, NotifyError> {
        // `Url` alone would mend `http:///path` to a host named `path`.
        let uri: http::Uri = notify.webhook.parse().map_err(|_| NotifyError::Url)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(NotifyError::Url);
        }
        let url: reqwest::Url = notify.webhook.parse().map_err(|_| NotifyError::Url)?;
        // An error says that one is installed already: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(NotifyError::Client)?;
        Ok(Self {
            url,
            client,
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
        let _ = match self.deliver(document.to_string()).await {
            Ok(()) => journal.append(now, "notified", json!({ "event": event })),
            Err(error) => journal.append(
                now,
                "notify_failed",
                json!({ "event": event, "error": message_of(&error) }),
            ),
        };
    }

    /// Delivers an incident, or that it is over: `event` is its name. The document is that of a run, without one.
    ///
    /// # Errors
    /// [`DeliveryError`]: nobody was told.
    pub async fn incident(&self, event: &str, incident: &Incident<'_>, now: Timestamp) -> Result<(), DeliveryError> {
        let document = json!({
            "schema": "opsctl.notification/v1",
            "event": event,
            "at": now,
            "run": null,
            "kind": incident.kind,
            "target": incident.target,
            "environment": incident.environment,
            "actor": incident.actor,
            "reason": null,
            "outcome": null,
            "message": incident.message,
        });
        self.deliver(document.to_string()).await
    }

    async fn deliver(&self, body: String) -> Result<(), DeliveryError> {
        let answered = tokio::time::timeout(self.limit, self.post(body)).await;
        answered.unwrap_or(Err(DeliveryError::TimedOut(self.limit)))
    }

    async fn post(&self, body: String) -> Result<(), DeliveryError> {
        let request = self
            .client
            .post(self.url.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        let response = request
            .send()
            .await
            .map_err(|error| DeliveryError::Unreachable(error.without_url()))?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(DeliveryError::Status(response.status()))
        }
    }
}
