//! [`GrpcLayer`]: a pipeline around a gRPC channel. The verdict for a retry falls with the headers, that for the breaker
//! with the trailers.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;

use super::body::{GrpcBody, NO_STATUS};
use super::channel::GrpcChannel;
use super::deadline::deadline_within;
use super::verdict;
use crate::deadline::{Deadline, soonest};
use crate::http::{Outgoing, REPLAY_CAP, ReplayBody, Sending, final_verdict};
use crate::pipeline::{Attempt, Call, Inner, Op, Pipeline, Unsettled};
use crate::verdict::{Classify, Safety, Verdict};

/// The most attempts of a call, the first included, whatever the pipeline says (gRFC A6).
pub const MAX_ATTEMPTS: u32 = 5;

/// Puts a pipeline around a tonic channel: `Client::new(ServiceBuilder::new().layer(GrpcLayer::new(policy)).service(channel))`.
/// All services that it makes share the pipeline.
///
/// - A call is repeated only when its method is listed in [`GrpcLayer::idempotent_methods`], or the server says by a
///   hint or a refusal that it did nothing; at most [`MAX_ATTEMPTS`] times, and once more, uncounted, when the peer
///   refused the stream.
/// - Response headers commit the call (gRFC A6): what fails later is not repeated. So does a request longer than
///   [`GrpcLayer::replay_up_to`].
/// - A call counts once, by its trailers: breaker, throttle, concurrency limit and bulkhead wait for them, and slow calls
///   are timed to there. An answer that is dropped before its trailers says that the call was cancelled.
/// - Every attempt carries its remaining time as `grpc-timeout`, so a server may end its answer by then. Here the answer
///   may last until the deadline of the whole call. Give streams that live longer a pipeline without time limits.
/// - Errors are `tonic::Status`; a refusal by the pipeline is turned into one.
#[derive(Debug, Clone)]
pub struct GrpcLayer {
    policy: Pipeline,
    idempotent: Arc<HashSet<Box<str>>>,
    cap: usize,
}

impl GrpcLayer {
    /// A layer over `policy` under which no method may be repeated.
    pub fn new(policy: Pipeline) -> Self {
        Self {
            policy,
            idempotent: Arc::default(),
            cap: REPLAY_CAP,
        }
    }

    /// Methods that may be repeated, as `package.Service/Method`.
    #[must_use]
    pub fn idempotent_methods<I>(mut self, methods: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let methods = methods.into_iter();
        self.idempotent = Arc::new(
            methods
                .map(|method| method.as_ref().trim_start_matches('/').into())
                .collect(),
        );
        self
    }

    /// The most bytes of a request that are kept for another attempt. Default [`REPLAY_CAP`].
    #[must_use]
    pub fn replay_up_to(mut self, bytes: usize) -> Self {
        self.cap = bytes;
        self
    }
}

impl<S> Layer<S> for GrpcLayer {
    type Service = GrpcService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcService {
            inner,
            layer: self.clone(),
        }
    }
}

/// Service of [`GrpcLayer`].
#[derive(Debug, Clone)]
pub struct GrpcService<S> {
    inner: S,
    layer: GrpcLayer,
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl<S, B, R> Service<Request<B>> for GrpcService<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Response = Response<GrpcBody<R>>;
    type Error = Status;
    type Future = GrpcFuture<S, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner
            .poll_ready(context)
            .map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let layer = &self.layer;
        let request = request.map(|body| ReplayBody::stream_up_to(body, layer.cap));
        let method = request.uri().path().trim_start_matches('/');
        let safety = if layer.idempotent.contains(method) {
            Safety::Idempotent
        } else {
            Safety::Unsafe
        };
        let outgoing = Arc::new(Outgoing::new(
            request,
            Some(deadline_within),
            UntilTheTrailers::default(),
        ));
        // The service that was polled ready makes the first attempt; a clone waits for the next call.
        let spare = self.inner.clone();
        let attempts = GrpcAttempts {
            ready: Some(std::mem::replace(&mut self.inner, spare.clone())),
            spare,
            outgoing: Arc::clone(&outgoing),
        };
        GrpcFuture {
            call: layer.policy.start(safety, outgoing, attempts),
        }
    }
}

/// The verdicts of one call, as its headers give them.
#[derive(Debug, Default)]
pub struct UntilTheTrailers {
    /// The number of the attempt that began last.
    attempt: AtomicU32,
}

impl<R: Body> Classify<Response<R>, Status> for UntilTheTrailers {
    fn classify(&self, result: Result<&Response<R>, &Status>) -> Verdict {
        let attempt = self.attempt.load(Ordering::Relaxed);
        if attempt > MAX_ATTEMPTS {
            return Verdict::LocalReject;
        }
        let verdict = match result {
            Ok(response) => match header_status(response) {
                Some(status) => verdict(&status),
                None if response.body().is_end_stream() => NO_STATUS,
                None => Verdict::Begun,
            },
            Err(status) => verdict(status),
        };
        // RESOURCE_EXHAUSTED may be a quota that returns tomorrow: only a hint makes it worth another attempt.
        if attempt == MAX_ATTEMPTS || verdict == (Verdict::Overload { hint: None }) {
            final_verdict(verdict)
        } else {
            verdict
        }
    }
}

/// Makes the attempts of one call.
pub struct GrpcAttempts<S, B> {
    ready: Option<S>,
    spare: S,
    outgoing: Arc<Outgoing<B, UntilTheTrailers>>,
}

impl<S, B> fmt::Debug for GrpcAttempts<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcAttempts").finish_non_exhaustive()
    }
}

impl<S, B, R> Op for GrpcAttempts<S, B>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Value = Response<GrpcBody<R>>;
    type Error = Status;
    type Future = GrpcAttempt<S, B>;

    fn start(&mut self, attempt: Attempt) -> Self::Future {
        self.outgoing
            .classify
            .attempt
            .store(attempt.number(), Ordering::Relaxed);
        let sending = (attempt.number() <= MAX_ATTEMPTS).then(|| {
            let service = self.ready.take().unwrap_or_else(|| self.spare.clone());
            Sending::new(GrpcChannel(service), attempt, Arc::clone(&self.outgoing))
        });
        GrpcAttempt {
            sending,
            body_end: soonest(attempt.total_deadline(), Deadline::current()),
        }
    }

    fn begun(&mut self, response: &mut Self::Value, unsettled: Unsettled) {
        response.body_mut().watch(unsettled);
    }
}

pin_project! {
    /// One attempt; its answer is a body with a deadline.
    #[must_use = "futures do nothing unless polled"]
    pub struct GrpcAttempt<S, B>
    where
        GrpcChannel<S>: Service<Request<ReplayBody<B>>>,
    {
        // Absent in an attempt too many.
        #[pin]
        sending: Option<Sending<GrpcChannel<S>, B, UntilTheTrailers>>,
        body_end: Option<Deadline>,
    }
}

impl<S, B, R> Future for GrpcAttempt<S, B>
where
    GrpcChannel<S>: Service<Request<ReplayBody<B>>, Response = Response<R>, Error = Status>,
{
    type Output = Result<Response<GrpcBody<R>>, Status>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(sending) = this.sending.as_pin_mut() else {
            return Poll::Ready(Err(Status::deadline_exceeded("no answer in time in any attempt")));
        };
        let mut response = ready!(sending.poll(context))?;
        drop_broken_details(response.headers_mut());
        let end = *this.body_end;
        Poll::Ready(Ok(response.map(|body| GrpcBody::new(body, end))))
    }
}

pin_project! {
    /// Future of [`GrpcService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct GrpcFuture<S, B>
    where
        GrpcAttempts<S, B>: Op,
    {
        #[pin]
        call: Call<Arc<Inner>, Arc<Outgoing<B, UntilTheTrailers>>, GrpcAttempts<S, B>>,
    }
}

impl<S, B, R> Future for GrpcFuture<S, B>
where
    GrpcAttempts<S, B>: Op<Value = Response<GrpcBody<R>>, Error = Status>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<GrpcBody<R>>, Status>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(context).map_err(Status::from)
    }
}

impl<S, B> fmt::Debug for GrpcFuture<S, B>
where
    GrpcAttempts<S, B>: Op,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcFuture").finish_non_exhaustive()
    }
}

/// The status of a response that ended with its headers: `grpc-status` there, or no gRPC response at all.
fn header_status<B>(response: &Response<B>) -> Option<Status> {
    status_in(response.headers()).or_else(|| {
        let code = match response.status() {
            StatusCode::OK => return None,
            // https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
            StatusCode::BAD_REQUEST => Code::Internal,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::Unimplemented,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
            _ => Code::Unknown,
        };
        Some(Status::new(code, "the answer is no gRPC response"))
    })
}

/// The status that headers or trailers hold. They must have gone through [`drop_broken_details`].
pub(super) fn status_in(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

/// Takes `grpc-status-details-bin` out when it is no base64: tonic 0.14 panics when it meets such a value.
pub(super) fn drop_broken_details(headers: &mut HeaderMap) {
    const DETAILS: &str = "grpc-status-details-bin";
    let Some(value) = headers.get(DETAILS) else {
        return;
    };
    let mut alone = HeaderMap::with_capacity(1);
    alone.insert(DETAILS, value.clone());
    let alone = MetadataMap::from_headers(alone);
    if alone.get_bin(DETAILS).is_none_or(|value| value.to_bytes().is_err()) {
        headers.remove(DETAILS);
    }
}
