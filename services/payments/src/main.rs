//! The `payments` service's process: settings in, exit code out. What it does is the library's matter.

use std::process::ExitCode;

use chassis::{Listeners, Ports};
use clap::Parser as _;
use health::{Health, Lifecycle, Settings};
use payments::store;
use proto::payments::v1::PAYMENTS_METHODS;
use proto::payments::v1::payments_server;
use resilience::grpc::DeadlineLayer;
use telemetry::Telemetry;
use tonic::service::Routes;

/// Where it listens when nobody says.
const PORTS: Ports = Ports { http: 8082, grpc: 9082 };

/// Charges orders once and refunds charges once
#[derive(Debug, clap::Parser)]
#[command(name = "payments", version)]
struct Arguments {
    #[command(flatten)]
    chassis: chassis::Args,
}

#[tokio::main]
async fn main() -> ExitCode {
    chassis::start::exit("payments", run(Arguments::parse().chassis).await)
}

async fn run(args: chassis::Args) -> anyhow::Result<()> {
    let settings = Settings::default().from_env()?;
    let life = Lifecycle::install(settings.drain)?;
    let telemetry = Telemetry::builder("payments")
        .from_env()
        .version(&args.version_label)
        .init()?;
    let listeners = Listeners::bind(&args, PORTS).await?;
    let (store, health) = life
        .starting(store::open(args.place("payments")?, &telemetry, Health::builder()))
        .await??;
    let health = health
        .grpc_name("opsctl.payments.v1.Payments")
        .settings(settings)
        .build()?;
    telemetry.watch_health(&health);
    let _admin = telemetry.admin().merge(health.details_router()).serve_from_env()?;

    let http = telemetry.metrics_router().merge(health.http_router());
    let grpc = Routes::new(payments::grpc::server(store, telemetry.metrics()))
        .add_service(health.grpc_service())
        .into_axum_router()
        .layer(args.fault.grpc())
        .layer(DeadlineLayer)
        .layer(chassis::grpc_layer(
            &telemetry,
            payments_server::SERVICE_NAME,
            PAYMENTS_METHODS,
        ));
    let servers = listeners.serve(http, grpc, &life);
    let ended = life.run(&health, servers, |limit| telemetry.shutdown(limit)).await;

    chassis::start::tell_losses("payments", ended.flushed.as_ref());
    Ok(())
}
