//! Asking an Alertmanager (API v2): what it was told, what it keeps to itself, how it is configured. It changes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::server::Server;
use super::{Access, EndpointError, PrometheusError};

/// A client of one Alertmanager. Clones share connections and policy.
#[derive(Debug, Clone)]
pub struct Alertmanager {
    server: Server,
}

/// An alert that an Alertmanager was told of and that is not resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Its labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// Since when it fires; by Prometheus' clock.
    pub starts_at: Option<Timestamp>,
    /// The silences that keep it from being told.
    pub silenced_by: Vec<String>,
    /// The alerts that keep it from being told.
    pub inhibited_by: Vec<String>,
    /// The times at which nobody is told.
    #[serde(default)]
    pub muted_by: Vec<String>,
    /// Whom it is for.
    pub receivers: Vec<String>,
}

impl Received {
    /// The rule's name.
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }

    /// Whether nobody is told of it.
    pub fn suppressed(&self) -> bool {
        [&self.silenced_by, &self.inhibited_by, &self.muted_by]
            .iter()
            .any(|by| !by.is_empty())
    }
}

impl Alertmanager {
    /// A client for the Alertmanager below `url`: as [`Prometheus::new`](super::Prometheus::new).
    ///
    /// # Errors
    /// [`EndpointError::Address`], [`EndpointError::Client`].
    pub fn new(url: &str, access: Access, authority: Option<&[u8]>) -> Result<Self, EndpointError> {
        let server = Server::new("Alertmanager", url, access, authority)?;
        Ok(Self { server })
    }

    /// What it was told of and is not resolved, silenced and inhibited or not.
    ///
    /// # Errors
    /// As [`Prometheus::query`](super::Prometheus::query).
    pub async fn alerts(&self) -> Result<Vec<Received>, PrometheusError> {
        self.server.get("api/v2/alerts", received).await
    }

    /// Its configuration as YAML, with what is secret left out.
    ///
    /// # Errors
    /// As [`Prometheus::query`](super::Prometheus::query).
    pub async fn configuration(&self) -> Result<String, PrometheusError> {
        self.server.get("api/v2/status", configuration).await
    }

    /// The address, without credentials.
    pub fn address(&self) -> &str {
        self.server.endpoint.address()
    }
}

/// The answer of `/api/v2/alerts`.
fn received(body: &[u8]) -> serde_json::Result<Vec<Received>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Alert {
        labels: BTreeMap<String, String>,
        #[serde(default)]
        starts_at: Option<Timestamp>,
        status: Status,
        #[serde(default)]
        receivers: Vec<Receiver>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(clippy::struct_field_names, reason = "the names are Alertmanager's")]
    struct Status {
        #[serde(default)]
        silenced_by: Vec<String>,
        #[serde(default)]
        inhibited_by: Vec<String>,
        #[serde(default)]
        muted_by: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Receiver {
        name: String,
    }
    let alerts: Vec<Alert> = serde_json::from_slice(body)?;
    Ok(alerts
        .into_iter()
        .map(|alert| Received {
            labels: alert.labels,
            starts_at: alert.starts_at,
            silenced_by: alert.status.silenced_by,
            inhibited_by: alert.status.inhibited_by,
            muted_by: alert.status.muted_by,
            receivers: alert.receivers.into_iter().map(|receiver| receiver.name).collect(),
        })
        .collect())
}

/// The answer of `/api/v2/status`.
fn configuration(body: &[u8]) -> serde_json::Result<String> {
    #[derive(Deserialize)]
    struct Status {
        config: Original,
    }
    #[derive(Deserialize)]
    struct Original {
        original: String,
    }
    serde_json::from_slice::<Status>(body).map(|status| status.config.original)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_an_alert_back_is_told() {
        let body = br#"[{"labels":{"alertname":"Down"},"startsAt":"2026-03-14T09:26:53.5Z","fingerprint":"x",
            "receivers":[{"name":"pay"}],"status":{"state":"suppressed","silencedBy":["s1"],"inhibitedBy":[],"mutedBy":["s1"]}},
            {"labels":{"alertname":"Up"},"receivers":[],"status":{"state":"active","silencedBy":[],"inhibitedBy":[]}}]"#;
        let alerts = received(body).unwrap();
        assert!(alerts[0].suppressed() && !alerts[1].suppressed());
        assert_eq!((alerts[0].name(), alerts[0].receivers[0].as_str()), ("Down", "pay"));
        assert!(
            received(b"{\"status\":\"success\"}").is_err(),
            "that is no Alertmanager"
        );
    }
}
