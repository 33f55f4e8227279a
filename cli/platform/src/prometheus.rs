//! Asking a Prometheus: the latest raw samples of counters, what it scrapes, its rules and alerts, who it is; and the
//! Alertmanager that it tells. Reads only, each bounded in time and size, repeated under a budget (`prometheus/server.rs`).
//! What the numbers mean is the caller's business; `prometheus/answer.rs` and `prometheus/alerts.rs` read them.

mod alertmanager;
mod alerts;
mod answer;
mod server;

pub use alertmanager::{Alertmanager, Received};
pub use alerts::{ActiveAlert, AlertRule, AlertState, RecordingRule, Rules};
pub use answer::{Answer, BuildInfo, Sample, Series, Target, duration};
use endpoint::Method;
pub use endpoint::{Access, EndpointError};
use server::{ATTEMPT, Server};

/// Why a Prometheus, or an Alertmanager, gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// It cannot be asked, or does not answer as it should.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The query makes no sense to it, or asks for too much.
    #[error("Prometheus refuses the query `{query}`: {message}")]
    BadQuery {
        /// The query.
        query: String,
        /// Its words.
        message: String,
    },
    /// Some of the data is missing, by its own words.
    #[error("the answer of Prometheus is not complete: {}", .warnings.join("; "))]
    Partial {
        /// Its warnings.
        warnings: Vec<String>,
    },
}

/// A client of one Prometheus, or of what speaks its HTTP API (Thanos, Mimir, VictoriaMetrics). Clones share connections
/// and policy.
#[derive(Debug, Clone)]
pub struct Prometheus {
    server: Server,
}

impl Prometheus {
    /// A client for the server below `url`, whose user and password are taken where `access` is open; sends nothing.
    /// `authority` is a PEM certificate that is trusted beside those of the system.
    ///
    /// # Errors
    /// [`EndpointError::Address`], [`EndpointError::Client`].
    pub fn new(url: &str, access: Access, authority: Option<&[u8]>) -> Result<Self, EndpointError> {
        let server = Server::new("Prometheus", url, access, authority)?;
        Ok(Self { server })
    }

    /// Evaluates a query now. A range selector (`up[1m]`) gives the raw samples with their own times.
    ///
    /// # Errors
    /// Any but [`PrometheusError::Partial`], which [`Answer::complete`] makes of warnings.
    pub async fn query(&self, query: &str) -> Result<Answer, PrometheusError> {
        let timeout = format!("{}s", ATTEMPT.as_secs());
        let form = [("query", query), ("timeout", &timeout)];
        let endpoint = &self.server.endpoint;
        let make = || endpoint.ask(Method::POST, endpoint.url("api/v1/query")).form(&form);
        let body = self.server.read(make, query).await?;
        Ok(answer::query(&body).map_err(|error| endpoint.foreign(error))?)
    }

    /// Which version it is.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub async fn build_info(&self) -> Result<BuildInfo, PrometheusError> {
        self.server.get("api/v1/status/buildinfo", answer::build_info).await
    }

    /// What it scrapes, and how often.
    ///
    /// # Errors
    /// As [`Prometheus::query`]; what only answers queries (Thanos, Mimir) has none: [`EndpointError::Refused`] with 404.
    pub async fn targets(&self) -> Result<Vec<Target>, PrometheusError> {
        self.server.get("api/v1/targets?state=active", answer::targets).await
    }

    /// The rules that it evaluates, in order.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub async fn rules(&self) -> Result<Rules, PrometheusError> {
        self.server.get("api/v1/rules", alerts::rules).await
    }

    /// What is pending or firing.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub async fn alerts(&self) -> Result<Vec<ActiveAlert>, PrometheusError> {
        self.server.get("api/v1/alerts", alerts::active).await
    }

    /// The addresses of the Alertmanagers that it tells, without their API's path.
    ///
    /// # Errors
    /// As [`Prometheus::targets`].
    pub async fn alertmanagers(&self) -> Result<Vec<String>, PrometheusError> {
        self.server.get("api/v1/alertmanagers", alerts::alertmanagers).await
    }

    /// The address, without credentials.
    pub fn address(&self) -> &str {
        self.server.endpoint.address()
    }
}
