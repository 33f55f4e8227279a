//! Deadlines as `grpc-timeout`: out of clients, and into servers' handlers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Request, Status};
use tower_layer::Layer;

use crate::deadline::{Deadline, DeadlineService};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

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
pub fn deadline_in(headers: &HeaderMap) -> Option<Deadline> {
    timeout_in(headers).map(Deadline::after)
}

fn timeout_in(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Says in `headers` that the answer is awaited until `deadline`, or for what they say already if that is less.
pub(super) fn deadline_within(deadline: Deadline, headers: &mut HeaderMap) {
    let remaining = deadline.remaining();
    let limit = timeout_in(headers).map_or(remaining, |own| own.min(remaining));
    headers.insert(GRPC_TIMEOUT, timeout_out(limit));
}

/// At most eight digits and the finest unit in which they suffice, rounded down, but never nothing.
fn timeout_out(limit: Duration) -> HeaderValue {
    let nanos = limit.as_nanos().max(1);
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let fits = units.into_iter().find(|(unit, _)| nanos / unit <= 99_999_999);
    let text = fits.map_or_else(
        || "99999999H".to_owned(),
        |(unit, letter)| format!("{}{letter}", nanos / unit),
    );
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("99999999H"))
}

/// Server layer: the caller's `grpc-timeout` becomes the current [`Deadline`] of the handler, so that its own calls
/// never outlast it.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService::new(inner, deadline_in)
    }
}
