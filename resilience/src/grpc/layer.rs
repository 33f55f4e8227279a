//! [`GrpcLayer`]: a pipeline around a gRPC channel. The verdict for a retry falls with the headers, that for the breaker
//! with the trailers.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;

use super::body::GrpcBody;
use super::deadline::limit_out;
use super::verdict;
use crate::breaker::Breaker;
use crate::http::{GivenUp, REPLAY_CAP, ReplayBody, final_verdict, is_protocol_nack};
use crate::pipeline::Pipeline;
use crate::verdict::{Classify, Safety, Verdict};

/// The most attempts of a call, the first included, whatever the pipeline says (gRFC A6).
pub const MAX_ATTEMPTS: u32 = 5;

/// Puts a pipeline around a tonic channel: `Client::new(ServiceBuilder::new().layer(GrpcLayer::new(policy)).service(channel))`.
/// All services that it makes share the pipeline.
///
/// - A call is repeated only when its method is listed in [`GrpcLayer::idempotent_methods`], or the server says by a
///   hint or a refusal that it did nothing; at most [`MAX_ATTEMPTS`] times, and once more, uncounted, when the peer
///   refused the stream.
/// - Response headers commit the call (gRFC A6): what fails later is not repeated, but the breaker learns it. So does a
///   request longer than [`GrpcLayer::replay_up_to`].
/// - Every attempt carries its remaining time as `grpc-timeout`, and the answer must have ended by then: give streams
///   that live longer a pipeline without time limits.
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
    S: Service<Request<tonic::body::Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<GrpcBody<R>>;
    type Error = Status;
    type Future = GrpcFuture<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner
            .poll_ready(context)
            .map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready makes the first attempt; a clone waits for the next call.
        let spare = self.inner.clone();
        let mut ready = Some(std::mem::replace(&mut self.inner, spare.clone()));
        let policy = self.layer.policy.clone();
        let request = request.map(|body| ReplayBody::stream_up_to(body, self.layer.cap));
        let safety = if self
            .layer
            .idempotent
            .contains(request.uri().path().trim_start_matches('/'))
        {
            Safety::Idempotent
        } else {
            Safety::Unsafe
        };
        let call = Arc::new(Call {
            body: request.body().clone(),
            attempt: AtomicU32::new(0),
            refused: AtomicBool::new(false),
        });
        GrpcFuture(Box::pin(async move {
            let classify = Arc::clone(&call);
            let result = policy
                .call_with(safety, &*classify, move |attempt| {
                    call.attempt.store(attempt.number(), Ordering::Relaxed);
                    let call = Arc::clone(&call);
                    let mut request = request.clone();
                    if let Some(limit) = attempt.timeout() {
                        limit_out(limit, request.headers_mut());
                    }
                    let (ready, spare) = (ready.take(), spare.clone());
                    async move {
                        if attempt.number() > MAX_ATTEMPTS {
                            return Err(Status::deadline_exceeded("no answer in time in any attempt"));
                        }
                        let again = request.clone();
                        let mut result = send(ready, spare.clone(), request).await;
                        if result.as_ref().is_err_and(|error| call.may_send_again(error)) {
                            result = send(None, spare, again).await;
                        }
                        let mut response = result?;
                        drop_broken_details(response.headers_mut());
                        Ok(response.map(|body| GrpcBody::new(body, attempt.deadline())))
                    }
                })
                .await;
            let mut response = result.map_err(Status::from)?;
            if header_status(&response).is_none() {
                // To the pipeline's breaker the attempt was nothing yet; this permit counts it when it ends.
                let permit = policy.breaker().map(Breaker::acquire).and_then(Result::ok);
                response.body_mut().watch(permit);
            }
            Ok(response)
        }))
    }
}

async fn send<S, B, R>(ready: Option<S>, mut spare: S, request: Request<ReplayBody<B>>) -> Result<Response<R>, Status>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    let given_up = GivenUp::of(request.body());
    let request = request.map(tonic::body::Body::new);
    let to_status = |error: S::Error| Status::from_error(error.into());
    let mut service = if let Some(ready) = ready {
        ready
    } else {
        poll_fn(|context| spare.poll_ready(context).map_err(to_status)).await?;
        spare
    };
    let response = service.call(request).await.map_err(to_status)?;
    given_up.forget();
    Ok(response)
}

/// One call, as its classifier: the verdict for the retry, from the headers.
struct Call<B> {
    body: ReplayBody<B>,
    attempt: AtomicU32,
    refused: AtomicBool,
}

impl<B> Call<B> {
    /// Once a call: a peer that refused the stream did nothing, which is no attempt.
    fn may_send_again(&self, error: &Status) -> bool {
        is_protocol_nack(error) && self.body.is_replayable() && !self.refused.swap(true, Ordering::Relaxed)
    }
}

impl<B, R> Classify<Response<R>, Status> for Call<B> {
    fn classify(&self, result: Result<&Response<R>, &Status>) -> Verdict {
        let attempt = self.attempt.load(Ordering::Relaxed);
        if attempt > MAX_ATTEMPTS {
            return Verdict::LocalReject;
        }
        let verdict = match result {
            Ok(response) => match header_status(response) {
                Some(status) => verdict(&status),
                None => return Verdict::Ignore,
            },
            Err(status) => verdict(status),
        };
        let is_last = attempt == MAX_ATTEMPTS || !self.body.is_replayable();
        // RESOURCE_EXHAUSTED may be a quota that returns tomorrow: only a hint makes it worth another attempt.
        if is_last || verdict == (Verdict::Overload { hint: None }) {
            final_verdict(verdict)
        } else {
            verdict
        }
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

/// Future of [`GrpcService`].
#[must_use = "futures do nothing unless polled"]
pub struct GrpcFuture<T>(Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>);

impl<T> fmt::Debug for GrpcFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcFuture").finish_non_exhaustive()
    }
}

impl<T> Future for GrpcFuture<T> {
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}
