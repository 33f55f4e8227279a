//! One server that is read over HTTP: its address, who asks, and the policy under which reads are repeated. It knows no
//! path and no format.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use reqwest::{Client, RequestBuilder, Url};
use resilience::{Breaker, Pipeline, Retry, Safety, Verdict};

use super::{Access, PrometheusError, answer};

/// Longer answers are refused: a query that matches too much, or another server.
const LARGEST: usize = 16 << 20;
/// One attempt, and what Prometheus itself is asked to keep to.
pub(super) const ATTEMPT: Duration = Duration::from_secs(5);
/// All attempts of one read.
const TOTAL: Duration = Duration::from_secs(12);

/// A server. Clones share connections and policy.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// What it is, for errors.
    name: &'static str,
    base: Url,
    client: Client,
    access: Access,
    policy: Pipeline,
}

impl Server {
    /// The server below `url`; sends nothing.
    pub(super) fn new(
        name: &'static str,
        url: &str,
        mut access: Access,
        authority: Option<&[u8]>,
    ) -> Result<Self, PrometheusError> {
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
        let called = name.to_lowercase();
        let policy = Pipeline::builder(called.as_str())
            .total_timeout(TOTAL)
            .attempt_timeout(ATTEMPT)
            .retry(
                Retry::default()
                    .max(2)
                    .backoff(Duration::from_millis(100), Duration::from_secs(1)),
            )
            .breaker(Breaker::builder(called.as_str()).open(Duration::from_secs(1), Duration::from_secs(10)))
            .build()
            .map_err(|error| PrometheusError::Client(error.into()))?;
        Ok(Self {
            name,
            base,
            client: builder.build().map_err(client_error)?,
            access,
            policy,
        })
    }

    /// The address, without credentials.
    pub(super) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The address of a path of ours.
    pub(super) fn url(&self, path: &str) -> Url {
        self.base.join(path).expect("a path of ours joins any HTTP address")
    }

    /// What `read` makes of the answer at a path.
    pub(super) async fn get<T>(
        &self,
        path: &str,
        read: impl FnOnce(&[u8]) -> serde_json::Result<T>,
    ) -> Result<T, PrometheusError> {
        let url = self.url(path);
        let reply = self.read(|client| client.get(url.clone()), "").await?;
        read(&reply).map_err(|source| self.foreign(source))
    }

    /// It answered something else than what it is would.
    pub(super) fn foreign(&self, source: serde_json::Error) -> PrometheusError {
        PrometheusError::Foreign {
            server: self.name,
            at: self.address().to_owned(),
            source,
        }
    }

    /// The body of a good answer; reads may always be repeated, whatever their method.
    pub(super) async fn read(
        &self,
        make: impl Fn(&Client) -> RequestBuilder,
        query: &str,
    ) -> Result<Bytes, PrometheusError> {
        let attempt = |_| async {
            let request = make(&self.client);
            fetch(match &self.access {
                Access::Open => request,
                Access::Bearer(token) => request.bearer_auth(token.trim()),
                Access::Basic { username, password } => request.basic_auth(username, Some(password)),
            })
            .await
        };
        let reply = self.policy.call_with(Safety::Idempotent, &verdict, attempt).await;
        let (server, at) = (self.name, self.address().to_owned());
        let reply = match reply {
            Ok(reply) => reply,
            Err(resilience::Error::Timeout { limit, .. }) => {
                return Err(PrometheusError::TimedOut { server, at, limit });
            }
            Err(resilience::Error::Inner(FetchError::TooLarge)) => {
                return Err(PrometheusError::TooLarge {
                    server,
                    at,
                    limit: LARGEST,
                });
            }
            Err(resilience::Error::Inner(FetchError::Transport(error))) => {
                return Err(PrometheusError::Unreachable {
                    server,
                    at,
                    source: error.without_url().into(),
                });
            }
            Err(error @ resilience::Error::Rejected(_)) => {
                return Err(PrometheusError::Unreachable {
                    server,
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
                server,
                at,
                status: reply.status,
            },
            (_, "bad_data" | "execution") => PrometheusError::BadQuery {
                query: query.to_owned(),
                message,
            },
            _ => PrometheusError::Failed {
                server,
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
