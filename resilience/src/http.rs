//! HTTP: what a response says, which requests may be repeated, `Retry-After`, deadlines in a header, a body that can be
//! sent again, and [`HttpLayer`], which does all of it around a client. It makes no connections.

mod answer;
mod body;
mod ending;
mod layer;
mod replay;
mod sending;

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Request, Response, StatusCode, header};

pub use self::answer::HttpBody;
pub use self::body::{BodyError, LimitedBody};
#[cfg(feature = "grpc")]
pub(crate) use self::ending::Ending;
pub use self::layer::{HttpAttempt, HttpAttempts, HttpFuture, HttpLayer, HttpService, UntilTheEnd};
pub use self::replay::{InMemory, REPLAY_CAP, ReplayBody, ReplayError};
pub use self::sending::{Outgoing, Sending};
pub(crate) use crate::deadline::deadline_out;
pub use crate::deadline::{REQUEST_TIMEOUT, deadline_in};
use crate::verdict::{Classify, Kind, Safety, SafetyOf, Verdict};

/// Classifies `http::Response`s by status and errors by their chain of sources.
///
/// 408, 425, 500, 502, 503, 504 are failures that may pass; 429, and 503 with `Retry-After`, are overload; other 5xx are
/// failures for good; everything else is an answer. GET, HEAD, OPTIONS, TRACE, PUT, DELETE and whatever carries an
/// `Idempotency-Key` may be repeated.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpClassify;

impl<B, E: StdError + 'static> Classify<Response<B>, E> for HttpClassify {
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

/// `Retry-After` (RFC 9110, 10.2.3), in seconds or as a date, as the time to wait from now. What is negative, too large
/// for a number, repeated or unreadable is no hint; a date that has passed means no wait.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    retry_after_at(headers, wall_clock)
}

/// [`retry_after`] with a wall clock of the caller's; it is asked only when the header holds a date.
pub fn retry_after_at(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let mut values = headers.get_all(header::RETRY_AFTER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now()).unwrap_or_default())
}

#[expect(
    clippy::disallowed_methods,
    reason = "an HTTP date means the wall clock; it becomes a delay at once"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The kind of a transport error, from its chain of sources.
///
/// Not sent: a refused connection, a stream that the peer refused (REFUSED_STREAM), or one beyond the last that it will
/// answer before it goes away (GOAWAY with NO_ERROR). Timeout: a time limit of a socket or of tokio. Permanent: a body
/// that could not be sent. Everything else may pass, a reset connection too: what was sent may have been done.
pub fn error_kind(error: &(dyn StdError + 'static)) -> Kind {
    sources(error).find_map(kind_of_one).unwrap_or(Kind::Transient)
}

/// Whether the peer says that it did nothing with the request, so that sending it again is not even a retry
/// (RFC 9113, 8.7; the same signs as reqwest's own `retry` goes by).
pub(crate) fn is_protocol_nack(error: &(dyn StdError + 'static)) -> bool {
    sources(error).any(|error| error.downcast_ref::<h2::Error>().is_some_and(is_unprocessed))
}

fn kind_of_one(error: &(dyn StdError + 'static)) -> Option<Kind> {
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return is_unprocessed(error).then_some(Kind::NotSent);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Kind::NotSent),
            io::ErrorKind::TimedOut => Some(Kind::Timeout),
            _ => None,
        };
    }
    let late = matches!(error.downcast_ref(), Some(BodyError::Timeout));
    if late || error.is::<tokio::time::error::Elapsed>() {
        return Some(Kind::Timeout);
    }
    error.is::<ReplayError>().then_some(Kind::Permanent)
}

fn is_unprocessed(error: &h2::Error) -> bool {
    let goes_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (goes_away || refused)
}

/// Whether an error is an `E`, or was caused by one.
#[cfg(feature = "grpc")]
pub(crate) fn has_cause<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    sources(error).any(<dyn StdError>::is::<E>)
}

/// An error and what caused it, outermost first.
fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// A verdict on an attempt that cannot be repeated, whatever the policy would allow. A failure stays a failure, overload
/// stays overload.
pub(crate) const fn final_verdict(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Failure(_) => Verdict::Failure(Kind::Permanent),
        Verdict::Overload { .. } => Verdict::Overload {
            hint: Some(Verdict::NEVER),
        },
        other => other,
    }
}
