//! Asking a Prometheus: the latest raw samples of counters, what it scrapes, its rules and alerts, who it is; and the
//! Alertmanager that it tells. Reads only, each bounded in time and size, repeated under a budget (`prometheus/server.rs`).
//! What the numbers mean is the caller's business; `prometheus/answer.rs` and `prometheus/alerts.rs` read them.

mod alertmanager;
mod alerts;
mod answer;
mod server;

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use reqwest::header::CONTENT_TYPE;

pub use alertmanager::{Alertmanager, Received};
pub use alerts::{ActiveAlert, AlertRule, AlertState, RecordingRule, Rules};
pub use answer::{Answer, BuildInfo, Sample, Series, Target, duration};
use server::{ATTEMPT, Server};

/// Why a Prometheus, or an Alertmanager, gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// Not an `http://host…` or `https://host…` URL.
    #[error("the address of a server must be an http:// or https:// URL with a host")]
    Address,
    /// There is no TLS here, or the certificate authority is none.
    #[error("a client for HTTP cannot be made")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nobody answered, or the connection broke.
    #[error("{server} at {at} cannot be reached")]
    Unreachable {
        /// What it is.
        server: &'static str,
        /// Its address.
        at: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{server} at {at} took longer than {} s", .limit.as_secs_f64())]
    TimedOut {
        /// What it is.
        server: &'static str,
        /// Its address.
        at: String,
        /// The limit.
        limit: Duration,
    },
    /// It wants other credentials.
    #[error("{server} at {at} refuses the credentials (HTTP {status})")]
    Forbidden {
        /// What it is.
        server: &'static str,
        /// Its address.
        at: String,
        /// 401 or 403.
        status: StatusCode,
    },
    /// The query makes no sense to it, or asks for too much.
    #[error("Prometheus refuses the query `{query}`: {message}")]
    BadQuery {
        /// The query.
        query: String,
        /// Its words.
        message: String,
    },
    /// It says that it cannot answer now.
    #[error("{server} at {at} failed (HTTP {status}): {message}")]
    Failed {
        /// What it is.
        server: &'static str,
        /// Its address.
        at: String,
        /// The status.
        status: StatusCode,
        /// Its words; empty when it had none.
        message: String,
    },
    /// The answer is larger than what is read.
    #[error("the answer of {server} at {at} is larger than {limit} bytes")]
    TooLarge {
        /// What it is.
        server: &'static str,
        /// Its address.
        at: String,
        /// The limit.
        limit: usize,
    },
    /// Something answered that is another server.
    #[error("{at} does not answer as {server} does")]
    Foreign {
        /// What it is.
        server: &'static str,
        /// Its address.
        at: String,
        /// What could not be read.
        #[source]
        source: serde_json::Error,
    },
    /// Some of the data is missing, by its own words.
    #[error("the answer of Prometheus is not complete: {}", .warnings.join("; "))]
    Partial {
        /// Its warnings.
        warnings: Vec<String>,
    },
}

/// Who asks. Secrets are never shown.
#[derive(Clone, Default)]
pub enum Access {
    /// Anybody may.
    #[default]
    Open,
    /// `Authorization: Bearer`.
    Bearer(String),
    /// `Authorization: Basic`.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Bearer(_) => "Bearer",
            Self::Basic { .. } => "Basic",
        })
    }
}

impl Access {
    /// What a folder holds, as a Secret is mounted: `token`, or `username` and `password`. One without any is open.
    ///
    /// # Errors
    /// Why a file that is there cannot be read.
    pub fn of_folder(folder: &Path) -> std::io::Result<Self> {
        let read = |name: &str| match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(match (read("token")?, read("username")?, read("password")?) {
            (Some(token), _, _) => Self::Bearer(token),
            (None, Some(username), Some(password)) => Self::Basic { username, password },
            _ => Self::Open,
        })
    }
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
    /// [`PrometheusError::Address`], [`PrometheusError::Client`].
    pub fn new(url: &str, access: Access, authority: Option<&[u8]>) -> Result<Self, PrometheusError> {
        let server = Server::new("Prometheus", url, access, authority)?;
        Ok(Self { server })
    }

    /// Evaluates a query now. A range selector (`up[1m]`) gives the raw samples with their own times.
    ///
    /// # Errors
    /// Any but [`PrometheusError::Partial`], which [`Answer::complete`] makes of warnings.
    pub async fn query(&self, query: &str) -> Result<Answer, PrometheusError> {
        let url = self.server.url("api/v1/query");
        let mut form = url.clone();
        form.query_pairs_mut()
            .append_pair("query", query)
            .append_pair("timeout", &format!("{}s", ATTEMPT.as_secs()));
        let form = form.query().unwrap_or_default().to_owned();
        let make = |client: &reqwest::Client| {
            client
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone())
        };
        let reply = self.server.read(make, query).await?;
        answer::query(&reply).map_err(|source| self.server.foreign(source))
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
    /// As [`Prometheus::query`]; what only answers queries (Thanos, Mimir) has none: [`PrometheusError::Failed`] with 404.
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
        self.server.address()
    }
}
