//! What an Alertmanager tells of itself (API v2): receivers, alerts, silences; and the silences that it is given.

use std::collections::BTreeMap;
use std::time::Duration;

use endpoint::{Access, Endpoint, EndpointError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::delivery::{self, Delivery};

/// An Alertmanager.
#[derive(Debug, Clone)]
pub struct Alertmanager {
    client: Client,
}

/// An alert that Alertmanager has.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceivedAlert {
    /// Its labels, its name among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    pub starts_at: Option<Timestamp>,
    /// Its number, by which others name it.
    pub fingerprint: String,
    /// Who is told.
    pub receivers: Vec<Receiver>,
    /// What keeps it from being told.
    pub status: AlertStatus,
}

/// Who is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Receiver {
    /// Its name.
    pub name: String,
}

/// What keeps an alert from being told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertStatus {
    /// `active`, `suppressed` or `unprocessed`.
    pub state: String,
    /// Silences, by id.
    pub silenced_by: Vec<String>,
    /// Other alerts, by fingerprint.
    pub inhibited_by: Vec<String>,
    /// Time intervals, by name. Told since 0.28, of groups alone.
    pub muted_by: Vec<String>,
}

/// A group of alerts that are told together.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct AlertGroup {
    /// What they have in common.
    pub labels: BTreeMap<String, String>,
    /// Who is told.
    pub receiver: Receiver,
    /// The alerts.
    pub alerts: Vec<ReceivedAlert>,
}

/// A silence.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// Which alerts it hides: those that all of these fit.
    pub matchers: Vec<Matcher>,
    /// From when.
    pub starts_at: Option<Timestamp>,
    /// Until when.
    pub ends_at: Option<Timestamp>,
    /// Who.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// Whether it is in force.
    pub status: SilenceStatus,
}

/// Whether a silence is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct SilenceStatus {
    /// `active`, `pending` or `expired`.
    pub state: String,
}

/// One condition of a silence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// Its value, or a pattern for the whole of it.
    pub value: String,
    /// Whether it is a pattern.
    pub is_regex: bool,
    /// Whether it must fit, and not the opposite.
    #[serde(default = "yes")]
    pub is_equal: bool,
}

fn yes() -> bool {
    true
}

impl std::fmt::Display for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let operator = match (self.is_equal, self.is_regex) {
            (true, false) => "=",
            (false, false) => "!=",
            (true, true) => "=~",
            (false, true) => "!~",
        };
        write!(f, "{}{operator}{:?}", self.name, self.value)
    }
}

/// What a silence is made of; see [`Alertmanager::post_silence`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PostableSilence<'a> {
    pub matchers: &'a [Matcher],
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub created_by: &'a str,
    pub comment: &'a str,
}

impl Alertmanager {
    /// A client for the server below `url`; sends nothing. `authority` is a PEM certificate that is trusted beside those
    /// of the system.
    ///
    /// # Errors
    /// [`EndpointError::Address`], [`EndpointError::Client`].
    pub fn new(url: &str, access: Access, authority: Option<&[u8]>) -> Result<Self, EndpointError> {
        let client = Client(Endpoint::new("Alertmanager", url, access, authority)?);
        Ok(Self { client })
    }

    /// The same with another limit of time for each question.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Self {
        Self {
            client: Client(self.client.0.limit(limit)),
        }
    }

    /// The address, without credentials.
    pub fn address(&self) -> &str {
        self.client.0.address()
    }

    /// Its version.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn version(&self) -> Result<String, EndpointError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Status {
            version_info: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        Ok(self.client.get::<Status>("api/v2/status").await?.version_info.version)
    }

    /// The names of its receivers.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn receivers(&self) -> Result<Vec<String>, EndpointError> {
        let receivers: Vec<Receiver> = self.client.get("api/v2/receivers").await?;
        Ok(receivers.into_iter().map(|receiver| receiver.name).collect())
    }

    /// How many of its requests to receivers failed. `None`: it does not tell, as some that speak its API.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn deliveries(&self) -> Result<Option<Vec<Delivery>>, EndpointError> {
        match self.client.text("metrics", delivery::read).await {
            Err(EndpointError::Refused { status, .. }) if status.as_u16() == 404 => Ok(None),
            told => told.map(Some),
        }
    }

    /// The alerts that it has, hidden or not.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn alerts(&self) -> Result<Vec<ReceivedAlert>, EndpointError> {
        self.client.get("api/v2/alerts").await
    }

    /// The same as they are told, which alone says what a time interval mutes.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn groups(&self) -> Result<Vec<AlertGroup>, EndpointError> {
        self.client.get("api/v2/alerts/groups").await
    }

    /// Its silences, those that are over among them.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn silences(&self) -> Result<Vec<Silence>, EndpointError> {
        self.client.get("api/v2/silences").await
    }

    /// Gives it alerts.
    pub(crate) async fn post_alerts(&self, alerts: &impl Serialize) -> Result<(), EndpointError> {
        self.client.tell("api/v2/alerts", alerts).await
    }

    pub(super) async fn post_silence(&self, silence: &PostableSilence<'_>) -> Result<String, EndpointError> {
        #[derive(Deserialize)]
        struct Posted {
            #[serde(rename = "silenceID")]
            id: String,
        }
        Ok(self.client.post::<Posted>("api/v2/silences", silence).await?.id)
    }

    pub(super) async fn delete_silence(&self, id: &str) -> Result<(), EndpointError> {
        self.client.delete(&format!("api/v2/silence/{id}")).await
    }
}
