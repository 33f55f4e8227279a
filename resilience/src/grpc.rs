//! gRPC: what a `tonic::Status` says, `grpc-retry-pushback-ms`, and deadlines as `grpc-timeout` out and in. It makes no
//! channels. Sources: gRFC A6, <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use tower_layer::Layer;
use tower_service::Service;

use crate::deadline::Deadline;
use crate::error::{By, Error};
use crate::verdict::{Classify, Kind, Verdict};

/// Classifies results of tonic clients.
///
/// UNAVAILABLE may pass, and was never processed when the connection was refused; RESOURCE_EXHAUSTED is overload;
/// DEADLINE_EXCEEDED, and tonic's own "Timeout expired", are timeouts; UNKNOWN, INTERNAL, DATA_LOSS are failures for
/// good; everything else is an answer. A pushback that is negative or no number forbids the retry.
#[derive(Debug, Clone, Copy, Default)]
pub struct GrpcClassify;

impl<T> Classify<T, Status> for GrpcClassify {
    fn classify(&self, result: Result<&T, &Status>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(status) => verdict(status),
        }
    }
}

/// The verdict on a status.
pub fn verdict(status: &Status) -> Verdict {
    let pushback = match pushback(status.metadata()) {
        Pushback::None => None,
        Pushback::After(wait) => Some(wait),
        Pushback::Never => {
            return match status.code() {
                Code::Unavailable | Code::ResourceExhausted => Verdict::Failure(Kind::Permanent),
                _ => Verdict::Ignore,
            };
        }
    };
    match status.code() {
        Code::Ok => Verdict::Success,
        Code::Unavailable if pushback.is_some() => Verdict::Overload { hint: pushback },
        Code::Unavailable if is_refused(status) => Verdict::Failure(Kind::NotSent),
        Code::Unavailable => Verdict::Failure(Kind::Transient),
        Code::ResourceExhausted => Verdict::Overload { hint: pushback },
        Code::DeadlineExceeded => Verdict::Failure(Kind::Timeout),
        Code::Cancelled if has_source::<tonic::TimeoutExpired>(status) => Verdict::Failure(Kind::Timeout),
        Code::Unknown | Code::Internal | Code::DataLoss => Verdict::Failure(Kind::Permanent),
        _ => Verdict::Ignore,
    }
}

enum Pushback {
    None,
    After(Duration),
    Never,
}

fn pushback(metadata: &MetadataMap) -> Pushback {
    let mut values = metadata.get_all("grpc-retry-pushback-ms").iter();
    match (values.next(), values.next()) {
        (None, _) => Pushback::None,
        (Some(value), None) => match value.to_str().ok().and_then(|text| text.parse::<i32>().ok()) {
            Some(millis) if millis >= 0 => Pushback::After(Duration::from_millis(u64::from(millis.unsigned_abs()))),
            _ => Pushback::Never,
        },
        (Some(_), Some(_)) => Pushback::Never,
    }
}

fn is_refused(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            if io.kind() == std::io::ErrorKind::ConnectionRefused {
                return true;
            }
        }
        next = error.source();
    }
    false
}

fn has_source<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        next = error.source();
    }
    false
}

impl From<Error<Status>> for Status {
    /// The status to answer with when a call under a policy failed: refusals are UNAVAILABLE, a full bulkhead
    /// RESOURCE_EXHAUSTED, time limits DEADLINE_EXCEEDED.
    fn from(error: Error<Status>) -> Self {
        match error {
            Error::Inner(status) => status,
            Error::Timeout { scope, limit } => {
                Self::deadline_exceeded(format!("no answer within the {scope} time limit of {limit:?}"))
            }
            Error::Rejected(rejected) => {
                let message = rejected.to_string();
                let mut status = match rejected.by {
                    By::Breaker => Self::unavailable(message),
                    By::Deadline => Self::deadline_exceeded(message),
                    By::Bulkhead | By::RateLimit | By::ConcurrencyLimit | By::Shed | By::Throttle => {
                        Self::resource_exhausted(message)
                    }
                };
                if let Some(wait) = rejected.retry_after {
                    let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
                    status.metadata_mut().insert("grpc-retry-pushback-ms", millis.into());
                }
                status
            }
        }
    }
}

/// Writes the current deadline's remaining time as `grpc-timeout`. Works as a tonic interceptor
/// (`Client::with_interceptor(channel, resilience::grpc::deadline_out)`).
///
/// # Errors
/// DEADLINE_EXCEEDED when it is over already.
pub fn deadline_out<T>(mut request: Request<T>) -> Result<Request<T>, Status> {
    if let Some(deadline) = Deadline::current() {
        let remaining = deadline.remaining();
        if remaining.is_zero() {
            return Err(Status::deadline_exceeded("the caller's deadline is over"));
        }
        request.set_timeout(remaining);
    }
    Ok(request)
}

/// The deadline that a caller sent as `grpc-timeout`: at most eight digits and one of `H M S m u n`.
pub fn deadline_in(headers: &http::HeaderMap) -> Option<Deadline> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    };
    Some(Deadline::after(timeout))
}

/// Server layer: the caller's `grpc-timeout` becomes the current [`Deadline`] of the handler, so that its own calls
/// never outlast it.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner }
    }
}

/// Service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
}

impl<S, B> Service<http::Request<B>> for DeadlineService<S>
where
    S: Service<http::Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let deadline = deadline_in(request.headers());
        let future = self.inner.call(request);
        Box::pin(async move {
            match deadline {
                Some(deadline) => deadline.scope(future).await,
                None => future.await,
            }
        })
    }
}
