//! A service for tests that calls a peer under the policy `peer`: `GET /call` answers 200, or 503 when the policy refuses.
//! It tells and takes what the libraries offer, `/metrics` and the admin listener; the peer itself always answers.
//! `--bare` opens no admin listener.

use std::convert::Infallible;
use std::error::Error;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use resilience::Pipeline;
use telemetry::Telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = Telemetry::builder("shop").from_env().init()?;
    let policy = Pipeline::standard("peer").build()?;
    telemetry.watch_policy(&policy);
    telemetry.watch_policy(&Pipeline::builder("plain").build()?);
    let _admin = if std::env::args().any(|arg| arg == "--bare") {
        None
    } else {
        telemetry.admin().serve_from_env()?
    };
    let call = move || {
        let policy = policy.clone();
        async move {
            match policy.call(|_| async { Ok::<_, Infallible>(()) }).await {
                Ok(()) => StatusCode::OK,
                Err(_) => StatusCode::SERVICE_UNAVAILABLE,
            }
        }
    };
    let app = Router::new()
        .route("/healthz", get(|| async {}))
        .route("/call", get(call))
        .merge(telemetry.metrics_router());
    let listener = tokio::net::TcpListener::bind(std::env::var("HTTP_ADDR")?).await?;
    axum::serve(listener, app).await?;
    Ok(())
}
