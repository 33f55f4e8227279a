//! Asking a Prometheus: the latest raw samples of counters, what it scrapes, who it is. Reads only, each bounded in time
//! and size, repeated under a budget. What the numbers mean is the caller's business; `prometheus/answer.rs` reads them.

mod answer;

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Url};
use resilience::{Breaker, Pipeline, Retry, Safety, Verdict};

pub use answer::{Answer, BuildInfo, Sample, Series, Target};

/// Longer answers are refused: a query that matches too much, or no Prometheus at all.
const LARGEST: usize = 16 << 20;
/// One attempt, and what Prometheus itself is asked to keep to.
const ATTEMPT: Duration = Duration::from_secs(5);
/// All attempts of one read.
const TOTAL: Duration = Duration::from_secs(12);

/// Why a Prometheus gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// Not an `http://host…` or `https://host…` URL.
    #[error("the address of a Prometheus must be an http:// or https:// URL with a host")]
    Address,
    /// There is no TLS here, or the certificate authority is none.
    #[error("a client for Prometheus cannot be made")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nobody answered, or the connection broke.
    #[error("Prometheus at {at} cannot be reached")]
    Unreachable {
        /// Its address.
        at: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("Prometheus at {at} took longer than {} s", .limit.as_secs_f64())]
    TimedOut {
        /// Its address.
        at: String,
        /// The limit.
        limit: Duration,
    },
    /// It wants other credentials.
    #[error("Prometheus at {at} refuses the credentials (HTTP {status})")]
    Forbidden {
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
    #[error("Prometheus at {at} failed (HTTP {status}): {message}")]
    Failed {
        /// Its address.
        at: String,
        /// The status.
        status: StatusCode,
        /// Its words; empty when it had none.
        message: String,
    },
    /// The answer is larger than what is read.
    #[error("the answer of Prometheus at {at} is larger than {limit} bytes")]
    TooLarge {
        /// Its address.
        at: String,
        /// The limit.
        limit: usize,
    },
    /// Something answered that is no Prometheus.
    #[error("{at} does not answer as a Prometheus does")]
    Foreign {
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
    base: Url,
    client: reqwest::Client,
    access: Access,
    policy: Pipeline,
}

impl Prometheus {
    /// A client for the server below `url`, whose user and password are taken where `access` is open; sends nothing. `authority` is a PEM certificate that is trusted beside those
    /// of the system.
    ///
    /// # Errors
    /// [`PrometheusError::Address`], [`PrometheusError::Client`].
    pub fn new(url: &str, mut access: Access, authority: Option<&[u8]>) -> Result<Self, PrometheusError> {
        let mut base: Url = url.parse().map_err(|_| PrometheusError::Address)?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
            return Err(PrometheusError::Address);
        }
        base.set_query(None);
        base.set_fragment(None);
        if matches!(access, Access::Open) && !base.username().is_empty() {
            access = Access::Basic {
                username: base.username().to_owned(),
                password: base.password().unwrap_or_default().to_owned(),
            };
        }
        // The address is shown in errors.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        // A prefix such as `/prometheus` is a folder to `Url::join`.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // An error says that one is installed already: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client_error = |error: reqwest::Error| PrometheusError::Client(error.into());
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy();
        if let Some(pem) = authority {
            for certificate in reqwest::Certificate::from_pem_bundle(pem).map_err(client_error)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let policy = Pipeline::builder("prometheus")
            .total_timeout(TOTAL)
            .attempt_timeout(ATTEMPT)
            .retry(
                Retry::default()
                    .max(2)
                    .backoff(Duration::from_millis(100), Duration::from_secs(1)),
            )
            .breaker(Breaker::builder("prometheus").open(Duration::from_secs(1), Duration::from_secs(10)))
            .build()
            .map_err(|error| PrometheusError::Client(error.into()))?;
        Ok(Self {
            base,
            client: builder.build().map_err(client_error)?,
            access,
            policy,
        })
    }

    /// Evaluates a query now. A range selector (`up[1m]`) gives the raw samples with their own times.
    ///
    /// # Errors
    /// Any but [`PrometheusError::Partial`], which [`Answer::complete`] makes of warnings.
    pub async fn query(&self, query: &str) -> Result<Answer, PrometheusError> {
        let mut form = self.base.clone();
        form.query_pairs_mut()
            .append_pair("query", query)
            .append_pair("timeout", &format!("{}s", ATTEMPT.as_secs()));
        let form = form.query().unwrap_or_default().to_owned();
        let url = self.url("api/v1/query");
        let make = || {
            self.client
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone())
        };
        let reply = self.read(make, query).await?;
        answer::query(&reply).map_err(|source| self.foreign(source))
    }

    /// Which version it is.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub async fn build_info(&self) -> Result<BuildInfo, PrometheusError> {
        let url = self.url("api/v1/status/buildinfo");
        let reply = self.read(|| self.client.get(url.clone()), "").await?;
        answer::build_info(&reply).map_err(|source| self.foreign(source))
    }

    /// What it scrapes, and how often.
    ///
    /// # Errors
    /// As [`Prometheus::query`]; what only answers queries (Thanos, Mimir) has none: [`PrometheusError::Failed`] with 404.
    pub async fn targets(&self) -> Result<Vec<Target>, PrometheusError> {
        let url = self.url("api/v1/targets?state=active");
        let reply = self.read(|| self.client.get(url.clone()), "").await?;
        answer::targets(&reply).map_err(|source| self.foreign(source))
    }

    /// The address, without credentials.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    fn url(&self, path: &str) -> Url {
        self.base.join(path).expect("a path of ours joins any HTTP address")
    }

    fn foreign(&self, source: serde_json::Error) -> PrometheusError {
        PrometheusError::Foreign {
            at: self.address().to_owned(),
            source,
        }
    }

    /// The body of a good answer; reads may always be repeated, whatever their method.
    async fn read(&self, make: impl Fn() -> RequestBuilder, query: &str) -> Result<Bytes, PrometheusError> {
        let attempt = |_| async {
            fetch(match &self.access {
                Access::Open => make(),
                Access::Bearer(token) => make().bearer_auth(token.trim()),
                Access::Basic { username, password } => make().basic_auth(username, Some(password)),
            })
            .await
        };
        let reply = self.policy.call_with(Safety::Idempotent, &verdict, attempt).await;
        let at = self.address().to_owned();
        let reply = match reply {
            Ok(reply) => reply,
            Err(resilience::Error::Timeout { limit, .. }) => return Err(PrometheusError::TimedOut { at, limit }),
            Err(resilience::Error::Inner(FetchError::TooLarge)) => {
                return Err(PrometheusError::TooLarge { at, limit: LARGEST });
            }
            Err(resilience::Error::Inner(FetchError::Transport(error))) => {
                return Err(PrometheusError::Unreachable {
                    at,
                    source: error.without_url().into(),
                });
            }
            Err(error @ resilience::Error::Rejected(_)) => {
                return Err(PrometheusError::Unreachable {
                    at,
                    source: error.to_string().into(),
                });
            }
        };
        if reply.status.is_success() {
            return Ok(reply.body);
        }
        let (kind, message) = answer::refusal(&reply.body);
        Err(match (reply.status.as_u16(), kind.as_str()) {
            (401 | 403, _) => PrometheusError::Forbidden {
                at,
                status: reply.status,
            },
            (_, "bad_data" | "execution") => PrometheusError::BadQuery {
                query: query.to_owned(),
                message,
            },
            _ => PrometheusError::Failed {
                at,
                status: reply.status,
                message,
            },
        })
    }
}

/// What came back, read to its end.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the answer is too large")]
    TooLarge,
    #[error("no answer")]
    Transport(#[source] reqwest::Error),
}

fn verdict(result: Result<&Reply, &FetchError>) -> Verdict {
    match result {
        Ok(reply) => resilience::http::verdict(reply.status, &reply.headers),
        Err(FetchError::TooLarge) => Verdict::Ignore,
        Err(FetchError::Transport(error)) => Verdict::Failure(resilience::http::error_kind(error)),
    }
}

async fn fetch(request: RequestBuilder) -> Result<Reply, FetchError> {
    let mut response = request.send().await.map_err(FetchError::Transport)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::Transport)? {
        if body.len() + chunk.len() > LARGEST {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply {
        status: response.status(),
        headers: std::mem::take(response.headers_mut()),
        body: body.freeze(),
    })
}
