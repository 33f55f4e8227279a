//! Tower layers for servers: one span, one trace context, one correlation id, and the RED metrics of each request.
//! [`HttpLayer`] goes on axum routers (`Router::layer`), [`GrpcLayer`] on `tonic::transport::Server::layer` or on
//! routers that hold tonic services. They decide nothing about a request.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::metrics::Metrics;
use crate::propagation::{CORRELATION_ID, CorrelationId, extract};

/// Paths that are neither measured nor traced: probes and scrapes.
const EXCLUDED: [&str; 8] = [
    "/healthz",
    "/readyz",
    "/health",
    "/health/live",
    "/health/ready",
    "/health/startup",
    "/metrics",
    "/favicon.ico",
];

/// Status that stands for a request whose future or body was dropped before its end.
const CLIENT_CLOSED: &str = "499";

/// Layer for axum; made by `Telemetry::http_layer`.
#[derive(Debug, Clone)]
pub struct HttpLayer {
    pub(crate) metrics: Metrics,
}

/// Layer for tonic; made by `Telemetry::grpc_layer`.
#[derive(Debug, Clone)]
pub struct GrpcLayer {
    metrics: Metrics,
    known: Known,
}

/// Paths of announced methods with their types.
type Known = Arc<HashMap<String, GrpcType>>;

/// Type of a gRPC method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcType {
    /// One message each way.
    Unary,
    /// Many messages to the server.
    ClientStream,
    /// Many messages from the server.
    ServerStream,
    /// Many messages both ways.
    BidiStream,
}

impl GrpcType {
    /// The value of the label `grpc_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ClientStream => "client_stream",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

impl GrpcLayer {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            known: Known::default(),
        }
    }

    /// Announces a service's methods: their series exist from the start, so that `rate()` sees the first error, and
    /// carry the right type. Methods that are not announced count as unary, once their first call has ended.
    #[must_use]
    pub fn methods(mut self, service: &str, methods: &[(&str, GrpcType)]) -> Self {
        let known = Arc::make_mut(&mut self.known);
        for (method, kind) in methods {
            known.insert(format!("/{service}/{method}"), *kind);
            let kind = kind.as_str();
            self.metrics
                .counter(catalogue::GRPC_SERVER_STARTED_TOTAL, [kind, service, method]);
            self.metrics
                .histogram(catalogue::GRPC_SERVER_HANDLING_SECONDS, [kind, service, method]);
            for code in 0..=16 {
                let code = grpc_code_name(code);
                self.metrics
                    .counter(catalogue::GRPC_SERVER_HANDLED_TOTAL, [kind, service, method, code]);
            }
        }
        self
    }
}

impl<S> Layer<S> for HttpLayer {
    type Service = ServerService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        ServerService {
            inner,
            metrics: self.metrics.clone(),
            grpc: None,
        }
    }
}

impl<S> Layer<S> for GrpcLayer {
    type Service = ServerService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        ServerService {
            inner,
            metrics: self.metrics.clone(),
            grpc: Some(Arc::clone(&self.known)),
        }
    }
}

/// Service of [`HttpLayer`] and [`GrpcLayer`].
#[derive(Debug, Clone)]
pub struct ServerService<S> {
    inner: S,
    metrics: Metrics,
    /// For gRPC: the announced methods.
    grpc: Option<Known>,
}

impl<S, B, R> Service<Request<B>> for ServerService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<MeasuredBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let excluded = if self.grpc.is_some() {
            path.starts_with("/grpc.health.v1.")
        } else {
            EXCLUDED.contains(&path)
        };
        if excluded {
            return ResponseFuture {
                inner: self.inner.call(request),
                span: Span::none(),
                pending: None,
                id: None,
            };
        }
        let extracted = extract(request.headers());
        for name in &extracted.refused {
            self.metrics
                .counter(catalogue::TELEMETRY_PROPAGATION_INVALID_TOTAL, [name])
                .inc();
        }
        let (span, pending) = match &self.grpc {
            Some(known) => self.begin_grpc(known, &request),
            None => self.begin_http(&request),
        };
        // Fails only when the span is disabled or was entered before, neither of which loses the request.
        let _ = span.set_parent(extracted.context);
        let inner = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        ResponseFuture {
            inner,
            span,
            pending: Some(pending),
            id: Some(extracted.correlation_id),
        }
    }
}

impl<S> ServerService<S> {
    fn begin_http<B>(&self, request: &Request<B>) -> (Span, Pending) {
        let method = method_label(request.method());
        let route = request
            .extensions()
            .get::<axum::extract::MatchedPath>()
            .map_or("_unmatched", axum::extract::MatchedPath::as_str)
            .to_owned();
        let span = tracing::info_span!(
            "http_request",
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            http.request.method = method,
            http.route = route,
            url.path = request.uri().path(),
            http.response.status_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let pending = Pending {
            metrics: self.metrics.clone(),
            span: span.clone(),
            started: Instant::now(),
            what: What::Http {
                method,
                route,
                status: None,
            },
            done: false,
        };
        (span, pending)
    }

    fn begin_grpc<B>(&self, known: &Known, request: &Request<B>) -> (Span, Pending) {
        let (service, method) = match request.uri().path().trim_start_matches('/').split_once('/') {
            Some((service, method)) => (service.to_owned(), method.to_owned()),
            None => ("_unmatched".to_owned(), "_unmatched".to_owned()),
        };
        let kind = known.get(request.uri().path()).copied();
        if let Some(kind) = kind {
            let labels = [kind.as_str(), service.as_str(), method.as_str()];
            self.metrics.counter(catalogue::GRPC_SERVER_STARTED_TOTAL, labels).inc();
        }
        let span = tracing::info_span!(
            "grpc_request",
            otel.name = format!("{service}/{method}"),
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            rpc.grpc.status_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let pending = Pending {
            metrics: self.metrics.clone(),
            span: span.clone(),
            started: Instant::now(),
            what: What::Grpc {
                service,
                method,
                kind,
                code: None,
            },
            done: false,
        };
        (span, pending)
    }
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "CONNECT" => "CONNECT",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "PATCH" => "PATCH",
        _ => "_OTHER",
    }
}

/// One request under way; writes its metrics exactly once, also when it is dropped.
#[derive(Debug)]
struct Pending {
    metrics: Metrics,
    span: Span,
    started: Instant,
    what: What,
    done: bool,
}

#[derive(Debug)]
enum What {
    Http {
        method: &'static str,
        route: String,
        status: Option<u16>,
    },
    Grpc {
        service: String,
        method: String,
        kind: Option<GrpcType>,
        code: Option<u16>,
    },
}

impl Pending {
    fn response_head(&mut self, status: u16, headers: &HeaderMap) {
        match &mut self.what {
            What::Http { status: seen, .. } => *seen = Some(status),
            // A reply of headers alone carries its status there.
            What::Grpc { code, .. } => *code = grpc_status(headers),
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let What::Grpc { code, .. } = &mut self.what {
            *code = grpc_status(trailers).or(*code);
        }
    }

    /// The request ended; `whole` says that the body was sent to its end.
    fn finish(&mut self, whole: bool) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        match &self.what {
            What::Http { method, route, status } => {
                let status = match status {
                    Some(status) if whole => status.to_string(),
                    _ => CLIENT_CLOSED.to_owned(),
                };
                self.span.record("http.response.status_code", status.as_str());
                if status.starts_with('5') {
                    self.span.record("otel.status_code", "ERROR");
                }
                self.metrics
                    .histogram(
                        catalogue::HTTP_SERVER_REQUEST_DURATION_SECONDS,
                        [method, route, &status],
                    )
                    .observe_duration(elapsed);
            }
            What::Grpc {
                service,
                method,
                kind,
                code,
            } => {
                let code = match code {
                    Some(code) => *code,
                    // The end of the body without a status is a broken reply.
                    None if whole => 2,
                    None => 1,
                };
                let name = grpc_code_name(code);
                self.span.record("rpc.grpc.status_code", code);
                if matches!(code, 2 | 4 | 12 | 13 | 14 | 15) {
                    self.span.record("otel.status_code", "ERROR");
                }
                // Unknown paths come from outside and must not make series.
                let (service, method) = if code == 12 && kind.is_none() {
                    ("_unmatched", "_unmatched")
                } else {
                    (&**service, &**method)
                };
                let labels = [kind.unwrap_or(GrpcType::Unary).as_str(), service, method];
                if kind.is_none() {
                    self.metrics.counter(catalogue::GRPC_SERVER_STARTED_TOTAL, labels).inc();
                }
                let [kind, service, method] = labels;
                self.metrics
                    .counter(catalogue::GRPC_SERVER_HANDLED_TOTAL, [kind, service, method, name])
                    .inc();
                self.metrics
                    .histogram(catalogue::GRPC_SERVER_HANDLING_SECONDS, labels)
                    .observe_duration(elapsed);
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.finish(false);
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The name of a gRPC code as go-grpc-prometheus writes it; codes that do not exist count as `Unknown`.
pub(crate) fn grpc_code_name(code: u16) -> &'static str {
    match code {
        0 => "OK",
        1 => "Canceled",
        3 => "InvalidArgument",
        4 => "DeadlineExceeded",
        5 => "NotFound",
        6 => "AlreadyExists",
        7 => "PermissionDenied",
        8 => "ResourceExhausted",
        9 => "FailedPrecondition",
        10 => "Aborted",
        11 => "OutOfRange",
        12 => "Unimplemented",
        13 => "Internal",
        14 => "Unavailable",
        15 => "DataLoss",
        16 => "Unauthenticated",
        _ => "Unknown",
    }
}

pin_project! {
    /// Future of [`ServerService`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        span: Span,
        pending: Option<Pending>,
        id: Option<CorrelationId>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<MeasuredBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = {
            let _entered = this.span.enter();
            ready!(this.inner.poll(task))
        };
        let mut pending = this.pending.take();
        Poll::Ready(match result {
            Err(error) => {
                if let Some(pending) = &mut pending {
                    pending.finish(false);
                }
                Err(error)
            }
            Ok(mut response) => {
                if let Some(id) = this.id.take()
                    && let Ok(value) = HeaderValue::from_str(id.as_str())
                {
                    response.headers_mut().insert(CORRELATION_ID, value);
                }
                if let Some(pending) = &mut pending {
                    pending.response_head(response.status().as_u16(), response.headers());
                    if response.body().is_end_stream() {
                        pending.finish(true);
                    }
                }
                Ok(response.map(|inner| MeasuredBody { inner, pending }))
            }
        })
    }
}

pin_project! {
    /// Body of [`ServerService`]'s responses: the request is over when this is.
    #[derive(Debug)]
    pub struct MeasuredBody<B> {
        #[pin]
        inner: B,
        pending: Option<Pending>,
    }
}

impl<B: Body> Body for MeasuredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = match &this.pending {
            Some(pending) => {
                let _entered = pending.span.enter();
                ready!(this.inner.as_mut().poll_frame(task))
            }
            None => ready!(this.inner.as_mut().poll_frame(task)),
        };
        if let Some(pending) = this.pending {
            match &frame {
                None => pending.finish(true),
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        pending.trailers(trailers);
                        pending.finish(true);
                    } else if this.inner.is_end_stream() {
                        pending.finish(true);
                    }
                }
                Some(Err(_)) => pending.finish(false),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
