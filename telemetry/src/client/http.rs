//! [`HttpClient`] around reqwest and [`HttpClientLayer`] around any other HTTP client: spans and context for requests. A
//! request ends with the head of its answer; how long the body takes is the caller's matter.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::{HeaderMap, Request, Response, StatusCode, Uri};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::Hosts;
use crate::metrics::{Exemplar, Metrics};
use crate::propagation::inject_span;
use crate::red::http::{HttpClientRed, method_label};

/// A reqwest client whose requests have spans and carry context. Clones share connections.
///
/// ```
/// # async fn example() -> Result<(), reqwest::Error> {
/// # telemetry::init_tls();
/// let ours = telemetry::client::Hosts::only(["identity", "*.shop.internal"]);
/// let client = telemetry::HttpClient::new(reqwest::Client::new()).inject_to(ours);
/// let keys = client.send(client.plain().get("http://identity:8080/.well-known/jwks.json")).await?;
/// # drop(keys);
/// # Ok(()) }
/// ```
///
/// Under a policy, let each attempt go through it: `policy.call(|_| client.send(request()))`. Around
/// `resilience::reqwest::Client`, which sends by itself, [`HttpClient::around`] makes one span for the call and all its
/// attempts.
#[derive(Debug, Clone)]
pub struct HttpClient {
    inner: reqwest::Client,
    layer: HttpClientLayer,
}

impl HttpClient {
    /// Puts spans and context around `inner`.
    pub fn new(inner: reqwest::Client) -> Self {
        let layer = HttpClientLayer::new();
        Self { inner, layer }
    }

    /// Counts requests as `http_client_request_duration_seconds`, too.
    #[must_use]
    pub fn measured(mut self, metrics: &Metrics) -> Self {
        self.layer = self.layer.measured(metrics);
        self
    }

    /// Sends context to these hosts alone.
    #[must_use]
    pub fn inject_to(mut self, hosts: Hosts) -> Self {
        self.layer = self.layer.inject_to(hosts);
        self
    }

    /// The client within, to describe requests with.
    pub fn plain(&self) -> &reqwest::Client {
        &self.inner
    }

    /// Sends what was described with [`HttpClient::plain`].
    ///
    /// # Errors
    /// reqwest's.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, reqwest::Error> {
        self.execute(request.build()?).await
    }

    /// Sends a request.
    ///
    /// # Errors
    /// reqwest's.
    pub async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, reqwest::Error> {
        self.around(request, |request| self.inner.execute(request)).await
    }

    /// Sends a request in another way: `client.around(request, |request| resilient.execute(request))`.
    ///
    /// # Errors
    /// Those of `send`.
    pub async fn around<F, E>(
        &self,
        mut request: reqwest::Request,
        send: impl FnOnce(reqwest::Request) -> F,
    ) -> Result<reqwest::Response, E>
    where
        F: Future<Output = Result<reqwest::Response, E>>,
    {
        let url = request.url();
        let host = url.host_str().map(str::to_owned);
        let mut call = Call::begin(
            request.method(),
            host.as_deref(),
            url.port_or_known_default(),
            // The query and the user may be secrets, the path is what was asked for.
            &format!("{}://{}{}", url.scheme(), authority(url), url.path()),
            self.layer.red.as_ref(),
        );
        if self.layer.hosts.has(host.as_deref()) {
            inject_span(&call.span, request.headers_mut());
        }
        let sent = send(request).instrument(call.span.clone()).await;
        call.end(sent.as_ref().ok().map(reqwest::Response::status));
        sent
    }
}

fn authority(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The same around a tower service of HTTP requests, such as hyper's client.
#[derive(Debug, Clone, Default)]
pub struct HttpClientLayer {
    hosts: Hosts,
    red: Option<Arc<HttpClientRed>>,
}

impl HttpClientLayer {
    /// Spans and context for all requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`HttpClient::measured`].
    #[must_use]
    pub fn measured(mut self, metrics: &Metrics) -> Self {
        self.red = Some(Arc::new(HttpClientRed::new(metrics.clone())));
        self
    }

    /// As [`HttpClient::inject_to`].
    #[must_use]
    pub fn inject_to(mut self, hosts: Hosts) -> Self {
        self.hosts = hosts;
        self
    }
}

impl<S> Layer<S> for HttpClientLayer {
    type Service = HttpClientService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpClientService {
            inner,
            layer: self.clone(),
        }
    }
}

/// Service of [`HttpClientLayer`].
#[derive(Debug, Clone)]
pub struct HttpClientService<S> {
    inner: S,
    layer: HttpClientLayer,
}

impl<S, B, R> Service<Request<B>> for HttpClientService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = HttpClientFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let uri = request.uri();
        let host = uri.host().or_else(|| host_header(request.headers()));
        let red = self.layer.red.as_ref();
        let call = Call::begin(request.method(), host, port(uri), &shown(uri), red);
        if self.layer.hosts.has(host) {
            inject_span(&call.span, request.headers_mut());
        }
        let inner = {
            let _entered = call.span.enter();
            self.inner.call(request)
        };
        HttpClientFuture { inner, call }
    }
}

fn host_header(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(http::header::HOST)?.to_str().ok()?;
    Some(host.rsplit_once(':').map_or(host, |(host, _)| host))
}

fn port(uri: &Uri) -> Option<u16> {
    uri.port_u16().or(match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })
}

/// Without query and user.
fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let host = uri.host().unwrap_or_default();
    match uri.port_u16() {
        Some(port) => format!("{scheme}://{host}:{port}{}", uri.path()),
        None => format!("{scheme}://{host}{}", uri.path()),
    }
}

/// One request under way. Dropped before its answer, it was cancelled.
#[derive(Debug)]
struct Call {
    span: Span,
    ended: bool,
    measured: Option<Measured>,
}

/// A request that is counted.
#[derive(Debug)]
struct Measured {
    red: Arc<HttpClientRed>,
    method: &'static str,
    host: Box<str>,
    started: Instant,
}

impl Measured {
    fn end(&self, status: Option<StatusCode>, error: &str, span: &Span) {
        let exemplar = if self.red.metrics().has_exemplars() {
            Exemplar::of(span)
        } else {
            None
        };
        let status = status.map(|status| status.as_u16());
        let took = self.started.elapsed();
        self.red.finish(self.method, &self.host, status, error, took, exemplar);
    }
}

impl Call {
    fn begin(
        method: &http::Method,
        host: Option<&str>,
        port: Option<u16>,
        url: &str,
        red: Option<&Arc<HttpClientRed>>,
    ) -> Self {
        let method = method_label(method);
        let span = tracing::info_span!(
            target: crate::SPAN_TARGET,
            "http_call",
            otel.name = method,
            otel.kind = "client",
            http.request.method = method,
            url.full = url,
            server.address = host,
            server.port = port,
            http.response.status_code = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        );
        Self {
            span,
            ended: false,
            measured: red.map(|red| Measured {
                red: Arc::clone(red),
                method,
                host: host.unwrap_or_default().into(),
                started: Instant::now(),
            }),
        }
    }

    /// `None` when there is no answer.
    fn end(&mut self, status: Option<StatusCode>) {
        self.ended = true;
        let Some(code) = status else {
            self.tell(None, "transport");
            return;
        };
        self.span.record("http.response.status_code", code.as_u16());
        // For who calls, a refusal is an error too.
        let is_error = code.is_client_error() || code.is_server_error();
        self.tell(status, if is_error { code.as_str() } else { "" });
    }

    fn tell(&self, status: Option<StatusCode>, error: &str) {
        if let Some(measured) = &self.measured {
            measured.end(status, error, &self.span);
        }
        if !error.is_empty() {
            self.span.record("error.type", error);
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(None, "cancelled");
        }
    }
}

pin_project! {
    /// Future of [`HttpClientService`].
    #[derive(Debug)]
    pub struct HttpClientFuture<F> {
        #[pin]
        inner: F,
        call: Call,
    }
}

impl<F, R, E> Future for HttpClientFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = {
            let _entered = this.call.span.enter();
            ready!(this.inner.poll(task))
        };
        this.call.end(result.as_ref().ok().map(Response::status));
        Poll::Ready(result)
    }
}
