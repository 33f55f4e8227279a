//! The connection to an API server: kube's client over a stack of ours. Requests that are safe to repeat are repeated
//! within a budget; a breaker keeps a server that is down from being asked by everybody; every attempt has a time limit.
//! It knows no kind of object.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, header};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use kube::client::ConfigExt;
use resilience::http::{HttpClassify, HttpLayer};
use resilience::{Breaker, Budget, Classify, Pipeline, Retry, Safety, SafetyOf, Verdict};
use tower::{BoxError, ServiceBuilder, ServiceExt};

use super::certificate::Certificate;
use super::errors;
use crate::{PlatformError, Result};

/// Time for one attempt. An API server that is well answers within a second.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Time for a call with all its attempts.
const TOTAL: Duration = Duration::from_secs(15);
/// Beyond this the local clock counts as wrong. The server's says whole seconds.
const TOLERATED: Duration = Duration::from_secs(2);

/// Clients of one API server. They share a clock.
#[derive(Clone)]
pub struct Clients {
    /// For calls that end.
    pub calls: kube::Client,
    /// For what lasts (logs that are followed, exec) and for what must not be asked twice. Only the headers of its
    /// answers have a time limit.
    pub once: kube::Client,
    /// The server, in words.
    pub server: Arc<str>,
    certificate: Option<Certificate>,
    clock: Arc<Clock>,
}

impl Clients {
    /// Clients for `config`; connects with the first request.
    pub fn new(config: &kube::Config) -> Result<Self> {
        let server: Arc<str> = format!("the API server {}", config.cluster_url).into();

        let calls = Pipeline::builder("kube")
            .total_timeout(TOTAL)
            .attempt_timeout(ATTEMPT)
            .retry(
                Retry::default()
                    .max(3)
                    .backoff(Duration::from_millis(100), Duration::from_secs(2))
                    .budget(Budget::new(0.2, 5.0)),
            )
            // Soon closed again: a lease has to be prolonged within seconds of the server's return.
            .breaker(
                Breaker::builder("kube")
                    .consecutive(8)
                    .open(Duration::from_millis(500), Duration::from_secs(2)),
            )
            .build()
            .expect("settings of ours make sense");
        let once = Pipeline::builder("kube-once")
            .attempt_timeout(TOTAL)
            .build()
            .expect("settings of ours make sense");
        let clock = Arc::new(Clock::default());
        Ok(Self {
            calls: client(config, calls, &clock, &server)?,
            once: client(config, once, &clock, &server)?,
            server,
            certificate: Certificate::of(config),
            clock,
        })
    }

    /// What an error of one of the clients means.
    pub fn error(&self, error: kube::Error) -> PlatformError {
        match errors::from_kube(&self.server, error) {
            PlatformError::Unauthorized { .. } if self.certificate.as_ref().is_some_and(Certificate::expired) => {
                PlatformError::Expired {
                    what: "in the kubeconfig".to_owned(),
                }
            }
            error => error,
        }
    }

    /// The local clock, put right by the server's when it is far off.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn client(config: &kube::Config, policy: Pipeline, clock: &Arc<Clock>, server: &str) -> Result<kube::Client> {
    let fail = |error: kube::Error| errors::from_kube(server, error);
    let mut connector = legacy::connect::HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(ATTEMPT));
    let connector = config.rustls_https_connector_with_connector(connector).map_err(fail)?;
    let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let seen = Arc::clone(clock);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(fail)?)
        .layer(config.extra_headers_layer().map_err(fail)?)
        .map_err(BoxError::from)
        .layer(HttpLayer::new(policy).classify(ByPath).without_timeout_header())
        .service(http.map_response(move |response: Response<_>| {
            seen.see(response.headers());
            response
        }));
    Ok(kube::Client::new(service, config.default_namespace.clone()))
}

/// As usual, but a review of access changes nothing although it is a POST.
struct ByPath;

impl<B> SafetyOf<Request<B>> for ByPath {
    fn safety(&self, request: &Request<B>) -> Safety {
        let review = request.method() == Method::POST && request.uri().path().contains("/authorization.k8s.io/");
        if review {
            Safety::Idempotent
        } else {
            HttpClassify.safety(request)
        }
    }
}

impl<B, E: std::error::Error + 'static> Classify<Response<B>, E> for ByPath {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Verdict {
        HttpClassify.classify(result)
    }
}

/// How far the local clock is from the server's, in milliseconds.
#[derive(Default)]
struct Clock(AtomicI64);

impl Clock {
    fn see(&self, headers: &HeaderMap) {
        let date = headers
            .get(header::DATE)
            .and_then(|date| date.to_str().ok())
            .and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        if let Some(date) = date {
            // The date was cut to a whole second.
            let ahead = date.timestamp().as_millisecond() + 500 - local().as_millisecond();
            let wrong = ahead.unsigned_abs() > TOLERATED.as_millis() as u64;
            self.0.store(if wrong { ahead } else { 0 }, Ordering::Relaxed);
        }
    }

    fn now(&self) -> Timestamp {
        let ahead = jiff::SignedDuration::from_millis(self.0.load(Ordering::Relaxed));
        local().checked_add(ahead).unwrap_or_else(|_| local())
    }
}

fn local() -> Timestamp {
    Timestamp::now()
}

/// An error that says nothing of whether the server did what was asked.
pub(super) fn doubtful(error: &PlatformError) -> bool {
    matches!(
        error,
        PlatformError::Unreachable { .. } | PlatformError::TimedOut { .. }
    )
}
