//! The `identity` service's process: settings in, exit code out. What it does is the library's matter.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use chassis::start::Misconfigured;
use chassis::{Listeners, Place, Ports};
use clap::Parser as _;
use health::{Health, Lifecycle, Settings};
use identity::http::{Identity, router};
use identity::keys::{self, KeyError, Keys};
use identity::password::Hasher;
use identity::store;
use identity::throttle::Throttle;
use telemetry::{Telemetry, catalogue};
use tonic::service::Routes;

/// Where it listens when nobody says.
const PORTS: Ports = Ports { http: 8081, grpc: 9081 };

/// Registers users, checks passwords, issues tokens
#[derive(Debug, clap::Parser)]
#[command(name = "identity", version)]
struct Arguments {
    #[command(flatten)]
    chassis: chassis::Args,
    /// How long a token is good
    #[arg(long, env = "TOKEN_LIFETIME", value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// Folder whose *.pem files are the signing keys, filled by somebody else: a mounted Secret. Nothing is made there
    /// [default: DATA_DIR/keys, with a key of the service's own making]
    #[arg(long, env = "IDENTITY_KEYS_DIR", value_name = "DIR")]
    keys_dir: Option<PathBuf>,
    /// Print a new signing key, to be put into the Secret under a name after those of the others, and end
    #[arg(long, conflicts_with = "new_key")]
    print_key: bool,
    /// Add a signing key to DATA_DIR/keys, say its file, and end: running instances publish it at once and sign with it
    /// after a minute; remove the old file when its tokens have expired
    #[arg(long)]
    new_key: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    chassis::start::exit("identity", run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let args = arguments.chassis;
    let own_keys = args.data_dir.join("keys");
    if arguments.print_key {
        return write!(std::io::stdout(), "{}", keys::new_pem()?).context("cannot print the key");
    }
    if arguments.new_key {
        if let Some(given) = arguments.keys_dir {
            let text = format!(
                "IDENTITY_KEYS_DIR={} is filled by somebody else: --print-key makes a key for it",
                given.display()
            );
            return Err(Misconfigured(text).into());
        }
        let path = keys::rotate(&own_keys)?;
        return writeln!(std::io::stdout(), "{}", path.display()).context("cannot say where the key is");
    }
    let place = args.place("identity")?;
    let settings = Settings::default().from_env()?;
    let life = Lifecycle::install(settings.drain)?;
    let telemetry = Telemetry::builder("identity")
        .from_env()
        .version(&args.version_label)
        .init()?;
    let listeners = Listeners::bind(&args, PORTS).await?;
    let keys = if let Some(given) = &arguments.keys_dir {
        Keys::given(given).map_err(|error| Misconfigured(format!("IDENTITY_KEYS_DIR: {}", chain(&error))))?
    } else {
        if matches!(place, Place::Server(_)) {
            tracing::warn!("replicas that do not share DATA_DIR have different signing keys: set IDENTITY_KEYS_DIR");
        }
        Keys::open(&own_keys).map_err(usage)?
    };
    let (store, health) = life
        .starting(store::open(place, &telemetry, Health::builder()))
        .await??;
    let health = health.settings(settings).build()?;
    telemetry.watch_health(&health);
    let _admin = telemetry.admin().merge(health.details_router()).serve_from_env()?;

    let reloading = tokio::spawn(reload(keys.clone(), telemetry.metrics().clone()));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let hasher = Hasher::new(processors)?;
    let bulkhead = hasher.bulkhead().clone();
    telemetry.watch("passwords", move || bulkhead.snapshot());
    let http = router(Identity {
        store,
        keys,
        hasher,
        lifetime: arguments.token_lifetime,
        metrics: telemetry.metrics().clone(),
        throttle: Mutex::new(Throttle::default()),
    })
    .layer(args.fault.http())
    .layer(telemetry.http_layer())
    .merge(telemetry.metrics_router())
    .merge(health.http_router());
    let grpc = Routes::new(health.grpc_service()).into_axum_router();
    let servers = listeners.serve(http, grpc, &life);
    let ended = life.run(&health, servers, |limit| telemetry.shutdown(limit)).await;

    reloading.abort();
    chassis::start::tell_losses("identity", ended.flushed.as_ref());
    Ok(())
}

/// Reads the keys again and again. A mistake is told once, until it changes.
async fn reload(keys: Keys, metrics: telemetry::Metrics) {
    let mut told = None;
    loop {
        tokio::time::sleep(keys::RELOAD).await;
        let keys = keys.clone();
        let result = tokio::task::spawn_blocking(move || keys.reload()).await;
        let outcome = match result {
            Ok(Ok(changed)) => {
                if changed {
                    tracing::info!("the signing keys have changed");
                }
                told = None;
                "ok"
            }
            Ok(Err(error)) => {
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the keys stay as they were");
                    told = Some(text);
                }
                "error"
            }
            Err(_) => "error",
        };
        metrics.counter(catalogue::IDENTITY_KEY_RELOADS_TOTAL, [outcome]).inc();
    }
}

/// A key that somebody must repair is a wrong setting.
fn usage(error: KeyError) -> anyhow::Error {
    match error {
        KeyError::Open { .. } | KeyError::Malformed { .. } => Misconfigured(error.to_string()).into(),
        other => other.into(),
    }
}

/// An error and what caused it.
fn chain(error: &KeyError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
