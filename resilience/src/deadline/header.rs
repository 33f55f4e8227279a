//! Deadlines over HTTP: the header out of clients and into servers. gRPC has a header of its own (`grpc::deadline`).

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::Deadline;

/// The header by which a client says how long it will wait for this attempt: whole milliseconds, at least one. There is
/// no standard name; Envoy's `x-envoy-expected-rq-timeout-ms` means the same.
pub const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// The deadline that a caller sent as [`REQUEST_TIMEOUT`]: digits alone.
pub fn deadline_in(headers: &HeaderMap) -> Option<Deadline> {
    let text = headers.get(REQUEST_TIMEOUT)?.to_str().ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Duration::from_millis).map(Deadline::after)
}

/// Writes what is left until `deadline` as [`REQUEST_TIMEOUT`].
#[cfg(feature = "http")]
pub(crate) fn deadline_out(deadline: Deadline, headers: &mut HeaderMap) {
    let millis = u64::try_from(deadline.remaining().as_millis()).unwrap_or(u64::MAX);
    headers.insert(REQUEST_TIMEOUT, http::HeaderValue::from(millis.max(1)));
}
