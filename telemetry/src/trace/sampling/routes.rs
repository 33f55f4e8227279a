//! `/sampling` of the admin listener: what is sampled, and its change for a time.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::Sampling;

/// How long a change lasts when nobody says.
const TTL: Duration = Duration::from_secs(600);

/// The routes: GET, PUT `{"ratio":0.5,"ttl":"10m"}`, DELETE.
pub(crate) fn router(sampling: Sampling) -> Router {
    Router::new()
        .route("/sampling", get(show).put(set).delete(reset))
        .with_state(sampling)
}

async fn show(State(sampling): State<Sampling>) -> Response {
    axum::Json(sampling.status()).into_response()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    ratio: f64,
    ttl: Option<String>,
}

async fn set(State(sampling): State<Sampling>, body: axum::body::Bytes) -> Response {
    let refuse = |text: String| (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response();
    let wanted: Set = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(error.to_string()),
    };
    let ttl = match wanted.ttl.as_deref().map(humantime::parse_duration).transpose() {
        Ok(ttl) => ttl.unwrap_or(TTL),
        Err(error) => return refuse(format!("ttl: {error}")),
    };
    match sampling.set(wanted.ratio, ttl) {
        Ok(()) => {
            tracing::warn!(target: "audit", ratio = wanted.ratio, ttl_seconds = ttl.as_secs_f64(), "sampling");
            axum::Json(sampling.status()).into_response()
        }
        Err(error) => refuse(error.to_string()),
    }
}

async fn reset(State(sampling): State<Sampling>) -> Response {
    sampling.reset();
    tracing::warn!(target: "audit", ratio = sampling.status().ratio, "sampling returned");
    axum::Json(sampling.status()).into_response()
}
