//! An Alertmanager of our own for the length of a test, and the webhooks that it tells: on loopback, in a private
//! folder, gone with the value. Decides nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::RoutingError;
use super::config::{self, TEST};
use crate::live::{Access, Alertmanager};
use crate::test::Labels;

/// How long it may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether something has come to pass.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How many ports are tried where another program is quicker.
const ATTEMPTS: usize = 5;

/// A running Alertmanager.
#[derive(Debug)]
pub(super) struct Running {
    pub client: Alertmanager,
    pub told: Told,
    // Dropped before the folder that it runs in.
    _process: Child,
    _webhooks: Webhooks,
    _folder: tempfile::TempDir,
}

/// What the webhooks were told: the route, and the alert's labels.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<BTreeSet<(usize, Labels)>>>);

impl Told {
    pub fn has(&self, route: usize, alert: &Labels) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.contains(&(route, alert.clone()))
    }
}

#[derive(Debug)]
struct Webhooks(JoinHandle<()>);

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the webhooks, then an Alertmanager with what `configure` makes of their address.
pub(super) async fn start(program: &Path, configure: impl Fn(&str) -> String) -> Result<Running, RoutingError> {
    let told = Told::default();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(RoutingError::Scratch)?;
    let hooks = listener.local_addr().map_err(RoutingError::Scratch)?;
    let router = Router::new()
        .route("/{route}", post(receive))
        .layer(DefaultBodyLimit::max(16 << 20))
        .with_state(told.clone());
    let webhooks = Webhooks(tokio::spawn(async move {
        // It ends when it is dropped.
        let _ = axum::serve(listener, router).await;
    }));
    let folder = tempfile::Builder::new()
        .prefix("opsctl-routes-")
        .tempdir()
        .map_err(RoutingError::Scratch)?;
    let file = folder.path().join("alertmanager.yaml");
    std::fs::write(&file, configure(&format!("http://{hooks}"))).map_err(RoutingError::Scratch)?;
    let mut words = String::new();
    for _ in 0..ATTEMPTS {
        // The number is free now; whether it still is when the program asks for it, the program says.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .and_then(|port| port.local_addr());
        let address = address.map_err(RoutingError::Scratch)?;
        let mut process = spawn(program, folder.path(), address)?;
        let client = Alertmanager::new(&format!("http://{address}"), Access::Open, None)
            .map_err(RoutingError::Asked)?
            .limit(Duration::from_secs(5));
        let deadline = Instant::now() + START_WITHIN;
        loop {
            if process.try_wait().map_err(RoutingError::Scratch)?.is_some() {
                break;
            }
            // Until its files are read it listens, but does not answer this.
            if let Ok(Ok(_)) = timeout(Duration::from_secs(1), client.receivers()).await {
                return Ok(Running {
                    client,
                    told,
                    _process: process,
                    _webhooks: webhooks,
                    _folder: folder,
                });
            }
            if Instant::now() > deadline {
                return Err(RoutingError::Silent {
                    words: tail(folder.path()),
                });
            }
            sleep(LOOK_EVERY).await;
        }
        words = tail(folder.path());
        if !words.contains("address already in use") {
            break;
        }
    }
    Err(RoutingError::Refused { words })
}

fn spawn(program: &Path, folder: &Path, address: SocketAddr) -> Result<Child, RoutingError> {
    let log = File::create(folder.join("log")).map_err(RoutingError::Scratch)?;
    let both = log.try_clone().map_err(RoutingError::Scratch)?;
    Command::new(program)
        .arg(format!("--config.file={}", folder.join("alertmanager.yaml").display()))
        .arg(format!("--storage.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        // Alone: it neither looks for others nor waits for them.
        .args(["--cluster.listen-address=", "--log.level=warn"])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(both)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| RoutingError::Program {
            path: program.to_owned(),
            source,
        })
}

/// The end of what it has written.
fn tail(folder: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(folder.join("log")) {
        let _ = file.take(1 << 20).read_to_string(&mut text);
    }
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

#[derive(Deserialize)]
struct Notification {
    receiver: String,
    alerts: Vec<NotifiedAlert>,
}

#[derive(Deserialize)]
struct NotifiedAlert {
    labels: Labels,
}

async fn receive(State(told): State<Told>, UrlPath(_route): UrlPath<String>, Json(notification): Json<Notification>) {
    // Alerts under test alone are of interest.
    let Some(route) = config::route(&notification.receiver) else {
        return;
    };
    let alerts = notification
        .alerts
        .into_iter()
        .filter(|alert| alert.labels.contains_key(TEST));
    let mut all = told.0.lock().unwrap_or_else(PoisonError::into_inner);
    all.extend(alerts.map(|alert| (route, alert.labels)));
}
