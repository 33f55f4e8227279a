//! A whole service on the three libraries: HTTP and gRPC, logs, metrics, probes, a policy around its backend, and a
//! drain on SIGTERM. Run it with `cargo run -p telemetry --example service`; `HTTP_ADDR`, `GRPC_ADDR`, `ADMIN_ADDR`,
//! `DRAIN_DELAY` and `OTEL_EXPORTER_OTLP_ENDPOINT` change where and how.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use health::{Drain, Health, Lifecycle};
use resilience::Pipeline;
use telemetry::Telemetry;

#[tokio::main]
#[cfg_attr(test, expect(dead_code, reason = "the test calls `run` itself"))]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await
}

/// The service from its first to its last moment.
pub async fn run() -> Result<(), Box<dyn Error>> {
    // All three libraries, in ten lines.
    let life = Lifecycle::install(Drain::from_env()?)?;
    let telemetry = Telemetry::builder("greeter").version("1.0.0").from_env().init()?;
    let policy = Pipeline::standard("backend")
        .listener(telemetry.policy_events())
        .build()?;
    let health = Health::builder()
        .critical("backend", || async { Ok::<(), std::io::Error>(()) })
        .build()?;
    telemetry.watch_policy(&policy);
    telemetry.watch_health(&health);
    let _admin = telemetry.admin().merge(health.details_router()).serve_from_env()?;
    let app = routes(policy)
        .layer(telemetry.http_layer())
        .merge(telemetry.metrics_router())
        .merge(health.http_router());

    // Serving is the program's own.
    let http = tokio::net::TcpListener::bind(address("HTTP_ADDR", "127.0.0.1:8080")?).await?;
    let grpc = tokio::net::TcpListener::bind(address("GRPC_ADDR", "127.0.0.1:8081")?).await?;
    tracing::info!(http = %http.local_addr()?, grpc = %grpc.local_addr()?, "listening");
    let grpc_app = tonic::service::Routes::new(health.grpc_service())
        .into_axum_router()
        .layer(telemetry.grpc_layer());
    let servers = async { tokio::join!(life.serve(http, app), life.serve(grpc, grpc_app)) };
    let ended = life.run(&health, servers, |limit| telemetry.shutdown(limit)).await;
    if ended.flushed.is_some_and(|report| report.is_lossless()) {
        Ok(())
    } else {
        Err("telemetry was lost".into())
    }
}

fn routes(policy: Pipeline) -> Router {
    let greet = move |axum::extract::Path(name): axum::extract::Path<String>| {
        let policy = policy.clone();
        async move {
            // A backend that always answers stands for a client's call.
            let greeting = policy
                .call(|_| async { Ok::<_, std::convert::Infallible>("hello") })
                .await;
            tracing::info!(name, "greeting");
            greeting
                .map(|greeting| format!("{greeting}, {name}\n"))
                .map_err(|error| error.to_string())
        }
    };
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "done\n"
    };
    Router::new()
        .route("/greet/{name}", get(greet))
        .route("/slow", get(slow))
}

fn address(name: &str, default: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    std::env::var(name).unwrap_or_else(|_| default.to_owned()).parse()
}
