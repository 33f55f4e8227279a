//! Limits for HTTP servers, axum's and every other that is a tower service of `http::Request`: 429 or 503 with
//! `Retry-After`, never an error, so that `Router::layer` and `route_layer` take them as they are. It needs nothing of
//! axum's.
//!
//! A request is inside until its response's body has ended or was dropped: a stream keeps its place.
//!
//! ```
//! use resilience::{ShedSettings, Shedder};
//!
//! # fn main() -> Result<(), resilience::BuildError> {
//! let shedder = Shedder::new("api", &ShedSettings { limit: Some(200), ..ShedSettings::default() })?;
//! let app: axum::Router = axum::Router::new()
//!     .route("/orders", axum::routing::get(async || "none"))
//!     .layer(resilience::axum::shed(&shedder))
//!     .layer(resilience::axum::DeadlineLayer);
//! # Ok(()) }
//! ```

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};

use tower_layer::Layer;

#[cfg(doc)]
use crate::Deadline;
use crate::adaptive::AdaptiveLimit;
pub use crate::deadline::{DeadlineFuture, DeadlineService, REQUEST_TIMEOUT, deadline_in};
use crate::error::{By, Rejected};
use crate::server::{Admit, Protocol, ServerLayer, ShedBy, ShedByHeader, priority};
use crate::shed::{Priority, Shedder};
use crate::verdict::{Kind, Verdict};

/// Sheds load by the priority that the header `x-priority` asks for (see [`priority`]).
pub fn shed(shedder: &Shedder) -> ServerLayer<ShedByHeader, Http> {
    shed_by(shedder, priority)
}

/// Sheds load by a priority that is found in another way: by path, or by who asks.
pub fn shed_by<F: Fn(&Parts) -> Priority>(shedder: &Shedder, priority: F) -> ServerLayer<ShedBy<F>, Http> {
    ServerLayer::new(ShedBy::new(shedder, priority))
}

/// Lets in as many requests at one time as can be answered without delay.
pub fn concurrency(limit: &AdaptiveLimit) -> ServerLayer<AdaptiveLimit, Http> {
    ServerLayer::new(limit.clone())
}

/// Lets in what a function lets in, such as a rate limit by client:
/// `limit(move |request: &Parts| clients.try_acquire(client_of(request)))`.
pub fn limit<F, G>(admit: F) -> ServerLayer<F, Http>
where
    F: Fn(&Parts) -> Result<G, Rejected> + Admit,
{
    ServerLayer::new(admit)
}

/// Refuses with 429 where the client is over its rate, 504 where its deadline is over, else 503, each with a
/// `Retry-After` of at least a second and a line of text. The text names no policy: clients need not know ours.
#[derive(Debug, Clone, Copy)]
pub struct Http;

impl Protocol for Http {
    fn refusal(rejected: &Rejected) -> (Response<()>, Bytes) {
        let (status, text) = match rejected.by {
            By::RateLimit | By::Throttle => (StatusCode::TOO_MANY_REQUESTS, "too many requests\n"),
            By::Deadline => (StatusCode::GATEWAY_TIMEOUT, "the time for this request is over\n"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "too much to do at the moment\n"),
        };
        let wait = rejected.retry_after.unwrap_or_default();
        // Whole seconds, and not a moment too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let mut response = Response::new(());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, plain);
        (response, Bytes::from_static(text.as_bytes()))
    }

    fn verdict<B>(response: &Response<B>) -> Verdict {
        match response.status() {
            StatusCode::SERVICE_UNAVAILABLE => Verdict::Overload { hint: None },
            StatusCode::GATEWAY_TIMEOUT => Verdict::Failure(Kind::Timeout),
            // Said at once, whatever the load.
            StatusCode::TOO_MANY_REQUESTS => Verdict::LocalReject,
            status if status.is_server_error() => Verdict::Failure(Kind::Transient),
            _ => Verdict::Success,
        }
    }
}

/// The client's `x-request-timeout-ms` becomes the current [`Deadline`] of the handler, so that its own calls never
/// outlast it. The handler itself is not cut off.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService::new(inner, deadline_in)
    }
}
