//! The HTTP paths of probes. Answers come from memory; nothing here waits. Servers and listeners are the caller's.

use axum::Router;
use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{MethodRouter, get};

use crate::board::Probe;
use crate::health::Health;
use crate::state::Status;

/// Routes without details, for everybody; with details only where a token guards them.
pub(crate) fn public<S: Clone + Send + Sync + 'static>(health: &Health) -> Router<S> {
    let paths = [
        ("/healthz", Probe::Live),
        ("/health/live", Probe::Live),
        ("/readyz", Probe::Ready),
        ("/health/ready", Probe::Ready),
        ("/health/startup", Probe::Startup),
        ("/health", Probe::Whole),
    ];
    let mut router = Router::new();
    for (path, probe) in paths {
        router = router.route(path, route(probe));
    }
    for (index, group) in health.board.groups.iter().enumerate() {
        router = router.route(&format!("/health/{}", group.name), route(Probe::Group(index)));
    }
    if let Some(token) = &health.board.token {
        router = router.merge(crate::details::guarded(token));
    }
    router.with_state(health.clone())
}

fn route(probe: Probe) -> MethodRouter<Health> {
    get(move |Extract(health): Extract<Health>| {
        let status = health.board.status(probe);
        async move { answer(status) }
    })
}

/// 200 for `pass` and `warn`, 503 for `fail`, in the shape of draft-inadarei-api-health-check-06.
fn answer(status: Status) -> Response {
    let body = match status {
        Status::Pass => r#"{"status":"pass"}"#,
        Status::Warn => r#"{"status":"warn"}"#,
        Status::Fail => r#"{"status":"fail"}"#,
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code(status);
    mark(response.headers_mut());
    response
}

/// The HTTP status of a health status.
pub(crate) fn code(status: Status) -> StatusCode {
    match status {
        Status::Pass | Status::Warn => StatusCode::OK,
        Status::Fail => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Says what the body is, and that nobody may keep it.
pub(crate) fn mark(headers: &mut HeaderMap) {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/health+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
