//! What a Prometheus tells of itself: rules, targets, alerts, its Alertmanagers, answers to queries. Judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use endpoint::{Access, Endpoint, EndpointError};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::client::Client;
use crate::duration;

/// A Prometheus.
#[derive(Debug, Clone)]
pub struct Prometheus {
    client: Client,
}

/// A group of rules as it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadedGroup {
    /// Its name.
    pub name: String,
    /// The file on the server.
    pub file: String,
    /// Seconds between two evaluations.
    pub interval: f64,
    /// Seconds that the last evaluation took.
    pub evaluation_time: f64,
    /// When it was; absent before the first.
    #[serde(deserialize_with = "instant")]
    pub last_evaluation: Option<Timestamp>,
    /// Its rules.
    pub rules: Vec<LoadedRule>,
}

/// A rule as it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadedRule {
    /// `alerting` or `recording`.
    pub r#type: String,
    /// Its name.
    pub name: String,
    /// Its expression, as Prometheus prints it.
    pub query: String,
    /// Seconds of `for`.
    pub duration: f64,
    /// Seconds of `keep_firing_for`.
    pub keep_firing_for: f64,
    /// Labels that it sets.
    pub labels: BTreeMap<String, String>,
    /// Annotations, not expanded.
    pub annotations: BTreeMap<String, String>,
    /// `ok`, `err` or `unknown`.
    pub health: String,
    /// Why it is not well.
    pub last_error: String,
}

impl LoadedRule {
    /// Whether it makes alerts.
    pub fn alerts(&self) -> bool {
        self.r#type == "alerting"
    }
}

/// Something that is scraped.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    /// The labels that its series get.
    pub labels: BTreeMap<String, String>,
    /// `up`, `down` or `unknown`.
    pub health: String,
    /// What was wrong with the last scrape.
    pub last_error: String,
}

/// An alert as Prometheus sees it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ActiveAlert {
    /// Its labels, its name among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// `pending` or `firing`.
    pub state: String,
    /// Since when its expression holds.
    #[serde(deserialize_with = "instant")]
    pub active_at: Option<Timestamp>,
    /// The expression's value, as text.
    pub value: String,
}

/// One series of an instant query's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value; of a histogram NaN.
    pub value: f64,
}

/// Which version it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct BuildInfo {
    /// Such as `3.7.2`.
    pub version: String,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

impl Prometheus {
    /// A client for the server below `url`, also of what speaks its API; sends nothing. `authority` is a PEM certificate
    /// that is trusted beside those of the system.
    ///
    /// # Errors
    /// [`EndpointError::Address`], [`EndpointError::Client`].
    pub fn new(url: &str, access: Access, authority: Option<&[u8]>) -> Result<Self, EndpointError> {
        let client = Client(Endpoint::new("Prometheus", url, access, authority)?);
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

    /// Which version it is.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn build_info(&self) -> Result<BuildInfo, EndpointError> {
        self.data("api/v1/status/buildinfo").await
    }

    /// The groups of rules that it has loaded, without their alerts.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn rules(&self) -> Result<Vec<LoadedGroup>, EndpointError> {
        #[derive(Deserialize)]
        struct Groups {
            groups: Vec<LoadedGroup>,
        }
        let Groups { groups } = self.data("api/v1/rules?exclude_alerts=true").await?;
        Ok(groups)
    }

    /// What it scrapes.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn targets(&self) -> Result<Vec<Target>, EndpointError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Targets {
            active_targets: Vec<Target>,
        }
        let Targets { active_targets } = self.data("api/v1/targets?state=active").await?;
        Ok(active_targets)
    }

    /// What is pending and what fires.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn alerts(&self) -> Result<Vec<ActiveAlert>, EndpointError> {
        #[derive(Deserialize)]
        struct Alerts {
            alerts: Vec<ActiveAlert>,
        }
        let Alerts { alerts } = self.data("api/v1/alerts").await?;
        Ok(alerts)
    }

    /// The addresses of the Alertmanagers that it sends to, without the path of their API.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn alertmanagers(&self) -> Result<Vec<String>, EndpointError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Alertmanagers {
            #[serde(default)]
            active_alertmanagers: Vec<Alertmanager>,
        }
        #[derive(Deserialize)]
        struct Alertmanager {
            url: String,
        }
        let Alertmanagers { active_alertmanagers } = self.data("api/v1/alertmanagers").await?;
        let address = |one: Alertmanager| one.url.trim_end_matches("/api/v2/alerts").to_owned();
        Ok(active_alertmanagers.into_iter().map(address).collect())
    }

    /// Evaluates a query now.
    ///
    /// # Errors
    /// [`EndpointError`]; [`EndpointError::Foreign`] also where the answer is no vector.
    pub async fn query(&self, query: &str) -> Result<Vec<Series>, EndpointError> {
        #[derive(Deserialize)]
        struct Data {
            result: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            #[serde(default)]
            metric: BTreeMap<String, String>,
            value: Option<(f64, String)>,
        }
        let Envelope { data } = self
            .client
            .form::<Envelope<Data>>("api/v1/query", &[("query", query)])
            .await?;
        let series = data.result.into_iter().map(|one| Series {
            labels: one.metric,
            value: one.value.and_then(|(_, text)| text.parse().ok()).unwrap_or(f64::NAN),
        });
        Ok(series.collect())
    }

    async fn data<T: DeserializeOwned>(&self, path: &str) -> Result<T, EndpointError> {
        Ok(self.client.get::<Envelope<T>>(path).await?.data)
    }
}

/// Go's zero time stands for "never".
fn instant<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
    let at = Option::<Timestamp>::deserialize(input)?;
    Ok(at.filter(|at| at.as_second() > 0))
}

/// Seconds as Prometheus' API gives them, in the notation of rule files.
pub(super) fn seconds(seconds: f64) -> String {
    duration::show((seconds.max(0.0) * 1000.0).round() as u64)
}
