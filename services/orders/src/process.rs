//! The process put together: what it is told, its parts, their start and their end. What it does is in the parts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chassis::start::Misconfigured;
use chassis::{Listeners, Policies, Ports, breaker_check};
use health::{GrpcCheck, Health, HttpCheck, Lifecycle, Settings as HealthSettings};
use proto::orders::v1::ORDERS_METHODS;
use proto::orders::v1::orders_server::{self, OrdersServer};
use telemetry::Telemetry;
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::auth::Verifier;
use crate::clock;
use crate::delivery::Warehouse;
use crate::metrics::OrderMetrics;
use crate::orchestrator::{Orchestrator, Settings};
use crate::peers::{GrpcNotifications, GrpcPayments, POLICIES, channel};
use crate::ports::Payments;
use crate::reconcile::Reconciler;
use crate::relay::Relay;
use crate::rest::{self, App};
use crate::rpc::Rpc;
use crate::service::Orders;
use crate::store;

/// Where it listens when nobody says.
pub const PORTS: Ports = Ports { http: 8081, grpc: 9081 };

/// Accepts orders and sees each through payment and delivery
#[derive(Debug, clap::Parser)]
#[command(name = "orders", version)]
pub struct Arguments {
    #[command(flatten)]
    chassis: chassis::Args,
    /// This instance's name in leases and logs [default: a fresh one]
    #[arg(long, env = "INSTANCE_ID", value_name = "NAME")]
    instance_id: Option<String>,
    /// Where identity answers HTTP: its keys verify access tokens
    #[arg(
        long,
        env = "IDENTITY_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    identity_url: String,
    /// Where payments answers gRPC
    #[arg(
        long,
        env = "PAYMENTS_GRPC_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:9082"
    )]
    payments_grpc_url: String,
    /// Where notifications answers gRPC
    #[arg(
        long,
        env = "NOTIFICATIONS_GRPC_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:9083"
    )]
    notifications_grpc_url: String,
    /// TOML with a [policy.NAME] for each peer: payments, notifications, identity [default: compiled in]
    #[arg(long, env = "POLICIES_FILE", value_name = "FILE")]
    policies: Option<PathBuf>,
    /// Pieces of one article that delivery has for one order; it refuses more
    #[arg(long, env = "ORDERS_STOCK", value_name = "PIECES", default_value_t = Warehouse::STOCK)]
    stock: u32,
    /// After how long another instance takes over what a silent one had begun
    #[arg(long, env = "ORDERS_LEASE", value_name = "TIME", default_value = "10s", value_parser = lease)]
    lease: Duration,
}

fn lease(text: &str) -> Result<Duration, String> {
    let time: Duration = text
        .parse::<humantime::Duration>()
        .map_err(|error| error.to_string())?
        .into();
    let bounds = Duration::from_secs(1)..=Duration::from_mins(10);
    if bounds.contains(&time) {
        Ok(time)
    } else {
        Err("a lease lasts between 1s and 10m".to_owned())
    }
}

/// Runs the service until it is told to stop.
pub async fn run(args: Arguments) -> anyhow::Result<()> {
    let instance = args
        .instance_id
        .clone()
        .unwrap_or_else(|| format!("orders-{}", uuid::Uuid::new_v4()));
    let settings = HealthSettings::default().from_env()?;
    let life = Lifecycle::install(settings.drain)?;
    let telemetry = Telemetry::builder("orders")
        .from_env()
        .version(&args.chassis.version_label)
        .instance(&instance)
        .init()?;
    telemetry::init_tls();
    let listeners = Listeners::bind(&args.chassis, PORTS).await?;
    let place = args.chassis.place("orders")?;
    let (store, health) = life
        .starting(store::open(place, &telemetry, Health::builder()))
        .await?
        .context("open the orders database")?;

    let payments_channel = connect("PAYMENTS_GRPC_URL", &args.payments_grpc_url)?;
    let notifications_channel = connect("NOTIFICATIONS_GRPC_URL", &args.notifications_grpc_url)?;
    let policies = Policies::read(&telemetry, POLICIES, args.policies.as_deref())?;
    let payments_policy = policies.policy("payments")?;
    let notifications_policy = policies.policy("notifications")?;
    let identity_policy = policies.policy("identity")?;
    for policy in [&payments_policy, &notifications_policy, &identity_policy] {
        telemetry.watch_policy(policy);
    }
    let verifier = Verifier::new(&args.identity_url, identity_policy.clone(), telemetry.metrics())
        .map_err(|error| Misconfigured(format!("IDENTITY_URL={}: {error}", args.identity_url)))?;

    let identity = HttpCheck::get(&format!("{}/health/live", args.identity_url.trim_end_matches('/')))
        .map_err(|failure| Misconfigured(format!("IDENTITY_URL={}: {failure:?}", args.identity_url)))?;
    let health = health
        .degraded("identity", identity)
        .degraded("payments", GrpcCheck::new(payments_channel.clone(), "liveness"))
        .degraded(
            "notifications",
            GrpcCheck::new(notifications_channel.clone(), "liveness"),
        )
        .check(breaker_check(&payments_policy))
        .check(breaker_check(&notifications_policy))
        .check(breaker_check(&identity_policy))
        .grpc_name("opsctl.orders.v1.Orders")
        .settings(settings)
        .build()?;
    telemetry.watch_health(&health);
    let _admin = telemetry.admin().merge(health.details_router()).serve_from_env()?;

    let metrics = OrderMetrics::new(telemetry.metrics());
    let payments: Arc<dyn Payments> = Arc::new(GrpcPayments::new(
        payments_channel,
        payments_policy,
        telemetry.metrics(),
    ));
    let wake = Arc::new(Notify::new());
    let orchestrator = Orchestrator::new(
        Settings {
            lease: args.lease,
            ..Settings::new(&instance)
        },
        store.clone(),
        payments.clone(),
        Arc::new(Warehouse { stock: args.stock }),
        metrics.clone(),
        wake.clone(),
    );
    let (left, owner) = (store.clone(), instance.clone());
    let reconciler = Reconciler::new(store.clone(), payments, metrics.clone());
    let relay = Relay {
        instance,
        store: store.clone(),
        publisher: Arc::new(GrpcNotifications::new(
            notifications_channel,
            notifications_policy,
            telemetry.metrics(),
        )),
        metrics: metrics.clone(),
        wake: wake.clone(),
        clock: clock::now,
    };
    let orders = Orders::new(store, orchestrator.clone(), reconciler.clone(), metrics, wake);

    let http = rest::router(App {
        orders: orders.clone(),
        verifier: verifier.clone(),
    })
    .fallback(rest::not_found)
    .layer(args.chassis.fault.http())
    .layer(telemetry.http_layer())
    .merge(telemetry.metrics_router())
    .merge(health.http_router());
    let grpc = Routes::new(OrdersServer::new(Rpc {
        orders: orders.clone(),
        verifier: verifier.clone(),
    }))
    .add_service(health.grpc_service())
    .into_axum_router()
    .layer(resilience::grpc::DeadlineLayer)
    .layer(args.chassis.fault.grpc())
    .layer(chassis::grpc_layer(
        &telemetry,
        orders_server::SERVICE_NAME,
        ORDERS_METHODS,
    ));

    // While draining, requests still come in and are answered; what they begin, another instance goes on with.
    let background = {
        let (orchestrator, orders, life) = (orchestrator.clone(), orders.clone(), life.clone());
        tokio::spawn(async move {
            tokio::join!(
                orchestrator.run(life.draining()),
                relay.run(life.draining()),
                reconciler.run(life.draining()),
                orders.keep_house(life.draining()),
            );
        })
    };
    let keys = {
        let verifier = verifier.clone();
        tokio::spawn(async move { verifier.fetch_first().await })
    };
    let servers = listeners.serve(http, grpc, &life);
    let work = async { tokio::join!(servers, background) };
    let flush = async |limit| {
        keys.abort();
        // What it cannot give back either is taken over when its lease ends.
        match left.hand_back(&owner, clock::now()).await {
            Ok(0) => {}
            Ok(sagas) => tracing::warn!(sagas, "sagas that have not ended are left to other instances"),
            Err(error) => tracing::warn!(%error, "cannot give sagas back before their leases end"),
        }
        telemetry.shutdown(limit).await
    };
    let ended = life.run(&health, work, flush).await;
    chassis::start::tell_losses("orders", ended.flushed.as_ref());
    Ok(())
}

fn connect(name: &str, url: &str) -> Result<tonic::transport::Channel, Misconfigured> {
    channel(url).map_err(|error| Misconfigured(format!("{name}={url}: {error}")))
}
