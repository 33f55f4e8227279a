//! Tower layers for servers: one span, one trace context, one correlation id, and the RED metrics of each request.
//! [`HttpLayer`] goes on axum routers (`Router::layer`), [`GrpcLayer`] on `tonic::transport::Server::layer` or on
//! routers that hold tonic services. They decide nothing about a request.

mod pending;
mod response;

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use crate::metrics::Metrics;
use crate::propagation::extract;
use crate::red::grpc::{self, GrpcRed};
pub use crate::red::grpc::{GrpcType, RpcNames};
use crate::red::http::{HttpRed, Route, method_label};
use pending::{Pending, What};
pub use response::{MeasuredBody, ResponseFuture};

/// Paths that are neither measured nor traced: probes and scrapes. All below `/health/` are too.
const EXCLUDED: [&str; 5] = ["/healthz", "/readyz", "/health", "/metrics", "/favicon.ico"];

/// Layer for axum; made by `Telemetry::http_layer`.
#[derive(Debug, Clone)]
#[must_use]
pub struct HttpLayer {
    metrics: Metrics,
    traced: bool,
}

impl HttpLayer {
    /// Counts in this registry; `Telemetry::http_layer` counts in its own.
    pub fn on(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            traced: true,
        }
    }

    /// Measures alone: no span, no trace context and no correlation id, for an application that makes its own. Exemplars
    /// are of the span in which the request arrives.
    pub fn metrics_only(mut self) -> Self {
        self.traced = false;
        self
    }
}

/// Layer for tonic; made by `Telemetry::grpc_layer`.
#[derive(Debug, Clone)]
#[must_use]
pub struct GrpcLayer {
    red: GrpcRed,
    traced: bool,
}

impl GrpcLayer {
    /// Counts in this registry; `Telemetry::grpc_layer` counts in its own.
    pub fn on(metrics: &Metrics) -> Self {
        Self {
            red: GrpcRed::server(metrics.clone()),
            traced: true,
        }
    }

    /// Exports calls under OpenTelemetry's names too.
    pub fn rpc_names(mut self, names: RpcNames) -> Self {
        self.red.export_as(names);
        self
    }

    /// Announces a service's methods: their series exist from the start, so that `rate()` sees the first error, and
    /// carry the right type. A method that is not announced counts as `_unmatched` until a first call of it went well,
    /// then as unary: what a caller made up makes no series.
    pub fn methods(mut self, service: &str, methods: &[(&str, GrpcType)]) -> Self {
        self.red.announce(service, methods);
        self
    }

    /// As [`HttpLayer::metrics_only`].
    pub fn metrics_only(mut self) -> Self {
        self.traced = false;
        self
    }
}

impl<S> Layer<S> for HttpLayer {
    type Service = ServerService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        ServerService {
            inner,
            red: Arc::new(Red::Http(HttpRed::new(self.metrics.clone()))),
            traced: self.traced,
        }
    }
}

impl<S> Layer<S> for GrpcLayer {
    type Service = ServerService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        ServerService {
            inner,
            red: Arc::new(Red::Grpc(self.red.clone())),
            traced: self.traced,
        }
    }
}

/// Where requests are counted.
#[derive(Debug)]
enum Red {
    Http(HttpRed),
    Grpc(GrpcRed),
}

impl Red {
    fn metrics(&self) -> &Metrics {
        match self {
            Self::Http(red) => red.metrics(),
            Self::Grpc(red) => red.metrics(),
        }
    }

    /// Whether requests of this path are let through untouched.
    fn excludes(&self, path: &str) -> bool {
        match self {
            Self::Http(_) => path.starts_with("/health/") || EXCLUDED.contains(&path),
            Self::Grpc(_) => path.starts_with("/grpc.health.v1."),
        }
    }
}

/// Service of [`HttpLayer`] and [`GrpcLayer`].
#[derive(Debug, Clone)]
pub struct ServerService<S> {
    inner: S,
    red: Arc<Red>,
    traced: bool,
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
        if self.red.excludes(request.uri().path()) {
            return ResponseFuture::untouched(self.inner.call(request));
        }
        let what = What::of(&self.red, &request);
        if !self.traced {
            let pending = Pending::begin(&self.red, what, Span::current());
            return ResponseFuture::measured(self.inner.call(request), Span::none(), pending, None);
        }
        let extracted = extract(request.headers());
        for name in &extracted.refused {
            self.red
                .metrics()
                .counter(catalogue::TELEMETRY_PROPAGATION_INVALID_TOTAL, [name])
                .inc();
        }
        let span = extracted.scope(|| span(&what, &request));
        let pending = Pending::begin(&self.red, what, span.clone());
        let inner = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        ResponseFuture::measured(inner, span, pending, Some(extracted.correlation_id))
    }
}

/// The span of a request, which is what the work on it happens in.
fn span<B>(what: &What, request: &Request<B>) -> Span {
    match what {
        What::Http { method, route, .. } => tracing::info_span!(
            target: crate::SPAN_TARGET,
            parent: None,
            "http_request",
            otel.name = format!("{method} {}", route.as_str()),
            otel.kind = "server",
            http.request.method = method,
            http.route = route.as_str(),
            url.path = request.uri().path(),
            http.response.status_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        ),
        What::Grpc { .. } => {
            let (service, method) = grpc::split(request.uri().path()).unwrap_or(("_unmatched", "_unmatched"));
            tracing::info_span!(
                target: crate::SPAN_TARGET,
                parent: None,
                "grpc_request",
                otel.name = format!("{service}/{method}"),
                otel.kind = "server",
                rpc.system = "grpc",
                rpc.service = service,
                rpc.method = method,
                rpc.grpc.status_code = tracing::field::Empty,
                otel.status_code = tracing::field::Empty,
            )
        }
    }
}

impl What {
    fn of<B>(red: &Red, request: &Request<B>) -> Self {
        match red {
            Red::Http(_) => Self::Http {
                method: method_label(request.method()),
                route: Route::of(request),
                status: None,
            },
            Red::Grpc(red) => Self::Grpc {
                call: red.begin(request.uri().path()),
                code: None,
            },
        }
    }
}
