//! [`GrpcClientLayer`]: spans and context for calls over a tonic channel. A call ends with its trailers.

use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::{HeaderMap, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;
use tracing::field::Empty;

use super::Hosts;
use crate::metrics::{Exemplar, Metrics};
use crate::propagation::inject_span;
use crate::red::grpc::{GrpcCall, GrpcRed};

/// Put it around a channel, below what repeats calls:
///
/// ```
/// # async fn example() -> Result<(), tonic::transport::Error> {
/// use tower::ServiceBuilder;
/// # let endpoint = tonic::transport::Endpoint::from_static("http://127.0.0.1:1");
/// let channel = ServiceBuilder::new()
///     // .layer(resilience::grpc::GrpcLayer::new(policy))
///     .layer(telemetry::GrpcClientLayer::new().to(endpoint.uri()))
///     .service(endpoint.connect_lazy());
/// # drop(channel);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct GrpcClientLayer {
    server: Option<(String, u16)>,
    hosts: Hosts,
    red: Option<GrpcRed>,
}

impl GrpcClientLayer {
    /// Spans and context for all calls.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says where the channel leads, for `server.address` and `server.port`: a call has only a path.
    #[must_use]
    pub fn to(mut self, server: &Uri) -> Self {
        let default = if server.scheme_str() == Some("https") { 443 } else { 80 };
        self.server = server
            .host()
            .map(|host| (host.to_owned(), server.port_u16().unwrap_or(default)));
        self
    }

    /// The layer around `channel`.
    pub fn around<S>(&self, channel: S) -> GrpcClientService<S> {
        self.layer(channel)
    }

    /// Counts calls as `grpc_client_*`, too.
    #[must_use]
    pub fn measured(mut self, metrics: &Metrics) -> Self {
        self.red = Some(GrpcRed::client(metrics.clone()));
        self
    }

    /// Sends context to these hosts alone, by what [`GrpcClientLayer::to`] said.
    #[must_use]
    pub fn inject_to(mut self, hosts: Hosts) -> Self {
        self.hosts = hosts;
        self
    }
}

impl<S> Layer<S> for GrpcClientLayer {
    type Service = GrpcClientService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcClientService {
            inner,
            layer: self.clone(),
        }
    }
}

/// Service of [`GrpcClientLayer`].
#[derive(Debug, Clone)]
pub struct GrpcClientService<S> {
    inner: S,
    layer: GrpcClientLayer,
}

impl<S, B, R> Service<Request<B>> for GrpcClientService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<GrpcClientBody<R>>;
    type Error = S::Error;
    type Future = GrpcClientFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let measured = self.layer.red.as_ref().map(|red| Measured::begin(red, path));
        let call = Call::begin(path, self.layer.server.as_ref(), measured);
        let host = self.layer.server.as_ref().map(|(host, _)| host.as_str());
        if self.layer.hosts.has(host) {
            inject_span(&call.span, request.headers_mut());
        }
        let inner = {
            let _entered = call.span.enter();
            self.inner.call(request)
        };
        GrpcClientFuture {
            inner,
            call: Some(call),
        }
    }
}

/// One call under way.
#[derive(Debug)]
struct Call {
    span: Span,
    ended: bool,
    measured: Option<Measured>,
}

/// A call that is counted.
#[derive(Debug)]
struct Measured {
    red: GrpcRed,
    call: GrpcCall,
    started: Instant,
}

impl Measured {
    fn begin(red: &GrpcRed, path: &str) -> Self {
        Self {
            call: red.begin(path),
            red: red.clone(),
            started: Instant::now(),
        }
    }

    fn end(&self, code: u16, span: &Span) {
        let exemplar = if self.red.metrics().has_exemplars() {
            Exemplar::of(span)
        } else {
            None
        };
        self.red.finish(&self.call, code, self.started.elapsed(), exemplar);
    }
}

impl Call {
    fn begin(path: &str, server: Option<&(String, u16)>, measured: Option<Measured>) -> Self {
        let name = path.trim_start_matches('/');
        let (service, method) = name.split_once('/').unwrap_or((name, ""));
        let span = tracing::info_span!(
            target: crate::SPAN_TARGET,
            "grpc_call",
            otel.name = name,
            otel.kind = "client",
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            server.address = server.map(|(host, _)| host.as_str()),
            server.port = server.map(|(_, port)| *port),
            rpc.grpc.status_code = Empty,
            error.type = Empty,
            otel.status_code = Empty,
        );
        Self {
            span,
            ended: false,
            measured,
        }
    }

    /// The server said how it ended.
    fn status(&mut self, headers: &HeaderMap) -> bool {
        let Some(code) = headers
            .get("grpc-status")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<u16>().ok())
        else {
            return false;
        };
        self.end(code);
        true
    }

    fn end(&mut self, code: u16) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(measured) = &self.measured {
            measured.end(code, &self.span);
        }
        self.span.record("rpc.grpc.status_code", code);
        // For who calls, everything but OK is an error.
        if code != 0 {
            self.span.record("otel.status_code", "ERROR");
        }
    }

    /// There was no answer.
    fn fail(&mut self, why: &'static str) {
        if !self.ended {
            self.span.record("error.type", why);
            self.end(UNAVAILABLE);
        }
    }
}

const CANCELLED: u16 = 1;
const UNKNOWN: u16 = 2;
const UNAVAILABLE: u16 = 14;

impl Drop for Call {
    fn drop(&mut self) {
        // Nobody waits for the end any more.
        self.end(CANCELLED);
    }
}

pin_project! {
    /// Future of [`GrpcClientService`].
    #[derive(Debug)]
    pub struct GrpcClientFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, R, E> Future for GrpcClientFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<GrpcClientBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = {
            let _entered = this.call.as_ref().map(|call| call.span.enter());
            ready!(this.inner.poll(task))
        };
        let mut call = this.call.take();
        Poll::Ready(match result {
            Err(error) => {
                if let Some(call) = &mut call {
                    call.fail("transport");
                }
                Err(error)
            }
            Ok(response) => {
                // A reply of headers alone carries its status there.
                call.take_if(|call| call.status(response.headers()));
                Ok(response.map(|inner| GrpcClientBody { inner, call }))
            }
        })
    }
}

pin_project! {
    /// Body of [`GrpcClientService`]'s responses.
    #[derive(Debug, Default)]
    pub struct GrpcClientBody<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
    }
}

impl<B: Body> Body for GrpcClientBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(task));
        if let Some(call) = this.call {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref()
                        && !call.status(trailers)
                    {
                        call.end(UNKNOWN);
                    }
                }
                Some(Err(_)) => call.fail("connection"),
                // An answer without a status is a broken one.
                None => call.end(UNKNOWN),
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
