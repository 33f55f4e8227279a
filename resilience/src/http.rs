//! HTTP: what a response says, which requests may be repeated, `Retry-After`, and a body that can be sent again.
//! It sends nothing by itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use crate::verdict::{Classify, Kind, Safety, SafetyOf, Verdict};

/// Classifies `http::Response`s by status and errors by their chain of sources.
///
/// 408, 425, 500, 502, 503, 504 are failures that may pass; 429, and 503 with `Retry-After`, are overload; other 5xx are
/// failures for good; everything else is an answer. GET, HEAD, OPTIONS, TRACE, PUT, DELETE and whatever carries an
/// `Idempotency-Key` may be repeated.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpClassify;

/// The verdict on a status with its headers.
pub fn verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match status.as_u16() {
        429 => Verdict::Overload {
            hint: retry_after(headers),
        },
        503 => match retry_after(headers) {
            Some(hint) => Verdict::Overload { hint: Some(hint) },
            None => Verdict::Failure(Kind::Transient),
        },
        408 | 425 | 500 | 502 | 504 => Verdict::Failure(Kind::Transient),
        501 | 505..=599 => Verdict::Failure(Kind::Permanent),
        400..=499 => Verdict::Ignore,
        _ => Verdict::Success,
    }
}

/// Whether a request may be repeated.
pub fn safety(method: &Method, headers: &HeaderMap) -> Safety {
    let safe = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ];
    if safe.contains(method) || headers.contains_key("idempotency-key") {
        Safety::Idempotent
    } else {
        Safety::Unsafe
    }
}

/// `Retry-After` in seconds. (The form with a date needs a wall clock and is not read yet.)
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The kind of a transport error, from its chain of sources: refused connections were never processed.
pub fn error_kind(error: &(dyn std::error::Error + 'static)) -> Kind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return Kind::NotSent,
                std::io::ErrorKind::TimedOut => return Kind::Timeout,
                _ => {}
            }
        }
        next = error.source();
    }
    Kind::Transient
}

impl<B, E: std::error::Error + 'static> Classify<Response<B>, E> for HttpClassify {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Verdict {
        match result {
            Ok(response) => verdict(response.status(), response.headers()),
            Err(error) => Verdict::Failure(error_kind(error)),
        }
    }
}

impl<B> SafetyOf<Request<B>> for HttpClassify {
    fn safety(&self, request: &Request<B>) -> Safety {
        safety(request.method(), request.headers())
    }
}

/// A body in memory; a clone sends the same bytes again, so requests with it can be repeated.
#[derive(Debug, Clone, Default)]
pub struct ReplayBody(Bytes);

impl ReplayBody {
    /// A body of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }
}

impl<T: Into<Bytes>> From<T> for ReplayBody {
    fn from(bytes: T) -> Self {
        Self::new(bytes)
    }
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
