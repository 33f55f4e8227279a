//! A small service with everything that this crate offers: checks, probes over HTTP and gRPC, and an end in order. Run it
//! with `cargo run -p health --example lifecycle`; `ADDR` and the variables of `Settings::from_env` change where and how.
//! The tests of the life cycle start it and end it with signals.
#![expect(clippy::print_stdout, reason = "what a service says of itself is its log")]

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use health::{Health, Lifecycle, Settings};

#[tokio::main]
#[cfg_attr(test, expect(dead_code, reason = "the tests call `run` themselves"))]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await
}

/// The service from its first to its last moment.
pub async fn run() -> Result<(), Box<dyn Error>> {
    // First, so that a signal that comes early is an end in order too.
    let settings = Settings::default().from_env()?;
    let life = Lifecycle::install(settings.drain)?;
    println!("service: installed");
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let wait = std::env::var("SLOW_START_MS").map_or(0, |text| text.parse().unwrap_or(0));
    life.starting(tokio::time::sleep(Duration::from_millis(wait))).await?;
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("service: listening {}", listener.local_addr()?);

    let health = Health::builder()
        .critical("always", || async {})
        .settings(settings)
        .build()?;
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        "done\n"
    };
    let never = || async { std::future::pending::<&str>().await };
    let upload = |body: String| async move { format!("{}\n", body.len()) };
    // Accepts an upload and never reads it.
    let ignored = |_body: Body| async { std::future::pending::<&str>().await };
    let grpc = tonic::service::Routes::new(health.grpc_service()).into_axum_router();
    let app = Router::new()
        .route("/slow", get(slow))
        .route("/never", get(never))
        .route("/upload", post(upload))
        .route("/ignored", post(ignored))
        .merge(health.http_router())
        .fallback_service(grpc);
    let flush = |limit: Duration| async move {
        println!("service: flushing for {} ms", limit.as_millis());
    };
    let ended = life.run(&health, life.serve(listener, app), flush).await;
    println!("service: {}", if ended.servers.is_some() { "finished" } else { "cut" });
    Ok(())
}
