//! The HTTP paths of probes. Answers come from memory; nothing here waits. Servers and listeners are the caller's.

use axum::Router;
use axum::extract::State as Extract;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::schedule::Health;
use crate::state::State;

/// Routes without details, for everybody.
pub(crate) fn public<S: Clone + Send + Sync + 'static>(health: &Health) -> Router<S> {
    Router::new()
        .route("/healthz", get(live))
        .route("/health/live", get(live))
        .route("/readyz", get(ready))
        .route("/health/ready", get(ready))
        .route("/health/startup", get(startup))
        .route("/health", get(aggregate))
        .with_state(health.clone())
}

/// Routes with details, for the admin listener.
pub(crate) fn details<S: Clone + Send + Sync + 'static>(health: &Health) -> Router<S> {
    Router::new()
        .route("/health/details", get(all))
        .with_state(health.clone())
}

async fn live(Extract(health): Extract<Health>) -> Response {
    answer(if health.is_alive() { "pass" } else { "fail" })
}

async fn ready(Extract(health): Extract<Health>) -> Response {
    answer(word(health.state()))
}

async fn startup(Extract(health): Extract<Health>) -> Response {
    answer(if health.inner().started() { "pass" } else { "fail" })
}

async fn aggregate(Extract(health): Extract<Health>) -> Response {
    answer(if health.is_alive() {
        word(health.state())
    } else {
        "fail"
    })
}

async fn all(Extract(health): Extract<Health>) -> Response {
    let mut response = axum::Json(health.snapshot()).into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn word(state: State) -> &'static str {
    match state {
        State::Ready => "pass",
        State::Degraded => "warn",
        State::Starting | State::NotReady | State::Draining | State::Stopped => "fail",
    }
}

/// 200 for `pass` and `warn`, 503 for `fail`, in the shape of draft-inadarei-api-health-check-06.
fn answer(status: &'static str) -> Response {
    let (code, body) = match status {
        "pass" => (StatusCode::OK, r#"{"status":"pass"}"#),
        "warn" => (StatusCode::OK, r#"{"status":"warn"}"#),
        _ => (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"fail"}"#),
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/health+json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (code, headers, body).into_response()
}
