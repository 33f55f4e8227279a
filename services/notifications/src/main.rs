//! The `notifications` service's process: settings in, exit code out. What it does is the library's matter.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chassis::{Fault, Listeners, Ports};
use clap::Parser as _;
use health::{Health, Heartbeat, Lifecycle, Settings};
use notifications::event::Retry;
use notifications::store::{self, StoreError};
use notifications::worker::{self, Bell, Faulty};
use proto::notifications::v1::NOTIFICATIONS_METHODS;
use proto::notifications::v1::notifications_server;
use resilience::grpc::DeadlineLayer;
use telemetry::{Telemetry, catalogue};
use tonic::service::Routes;

/// Where it listens when nobody says.
const PORTS: Ports = Ports { http: 8083, grpc: 9083 };

/// Turns events into notifications, each exactly once
#[derive(Debug, clap::Parser)]
#[command(name = "notifications", version)]
struct Arguments {
    #[command(flatten)]
    chassis: chassis::Args,
    /// Attempts before an event becomes a dead letter
    #[arg(long, env = "MAX_ATTEMPTS", value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: u32,
    /// Wait after an event's first failure; doubles with each, up to 30s
    #[arg(long, env = "RETRY_BASE", value_name = "TIME", default_value = "200ms", value_parser = humantime::parse_duration)]
    retry_base: Duration,
    /// A share of attempts to give an event its effect fails
    #[arg(long, env = "CHANNEL_FAULT", value_name = "errors=2%", default_value = "")]
    channel_fault: Fault,
}

#[tokio::main]
async fn main() -> ExitCode {
    chassis::start::exit("notifications", run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let args = arguments.chassis;
    let settings = Settings::default().from_env()?;
    let life = Lifecycle::install(settings.drain)?;
    let telemetry = Telemetry::builder("notifications")
        .from_env()
        .version(&args.version_label)
        .init()?;
    let listeners = Listeners::bind(&args, PORTS).await?;
    let (store, health) = life
        .starting(store::open(args.place("notifications")?, &telemetry, Health::builder()))
        .await??;
    let (bell, heartbeat) = (Bell::default(), Heartbeat::new(worker::STUCK));

    let (counted, dead_letters) = (store.clone(), telemetry.metrics().gauge(catalogue::DEAD_LETTERS, []));
    let beat = heartbeat.clone();
    let health = health
        .informative("dead-letters", move || {
            let (store, dead_letters) = (counted.clone(), dead_letters.clone());
            async move {
                dead_letters.set(store.stats().await?.dead as f64);
                Ok::<_, StoreError>(())
            }
        })
        .liveness("worker", move || beat.check())
        .grpc_name("opsctl.notifications.v1.Notifications")
        .settings(settings)
        .build()?;
    telemetry.watch_health(&health);
    let _admin = telemetry.admin().merge(health.details_router()).serve_from_env()?;

    let retry = Retry {
        attempts: arguments.max_attempts,
        base: arguments.retry_base,
        ..Retry::default()
    };
    let handler = Arc::new(Faulty {
        fault: arguments.channel_fault,
    });
    let worker = tokio::spawn(worker::run(
        store.clone(),
        handler,
        retry,
        bell.clone(),
        heartbeat,
        telemetry.metrics().clone(),
    ));
    let http = telemetry.metrics_router().merge(health.http_router());
    let grpc = Routes::new(notifications::grpc::server(store, bell, telemetry.metrics()))
        .add_service(health.grpc_service())
        .into_axum_router()
        .layer(args.fault.grpc())
        .layer(DeadlineLayer)
        .layer(chassis::grpc_layer(
            &telemetry,
            notifications_server::SERVICE_NAME,
            NOTIFICATIONS_METHODS,
        ));
    let servers = listeners.serve(http, grpc, &life);
    let ended = life.run(&health, servers, |limit| telemetry.shutdown(limit)).await;

    worker.abort();
    chassis::start::tell_losses("notifications", ended.flushed.as_ref());
    Ok(())
}
