//! A state folder of its own with services that are the `twin` example; leaves nothing, also when a test panics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opsctl_platform::local::down::{DownOptions, DownOutcome, down, leftovers};
use opsctl_platform::local::up::{FrontDoor, ServiceSpec, UpOptions, UpOutcome, up};
use opsctl_platform::local::{Launcher, LocalPlatform, StateDir};
use opsctl_platform::process::Process;
use opsctl_platform::{Health, Objectives, Platform, ServiceState, VersionSpec};
use rustix::process::Signal;

pub(crate) struct Stage {
    pub(crate) platform: Arc<LocalPlatform>,
    folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::below("")
    }

    /// With the state folder below `path` in a temporary folder.
    pub(crate) fn below(path: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path().join(path).join(".opsctl")).unwrap();
        let platform = Arc::new(LocalPlatform::new(state, Some(Launcher::new(twin()))));
        Self { platform, folder }
    }

    pub(crate) fn state(&self) -> &StateDir {
        self.platform.state()
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn up(&self, specs: &[ServiceSpec]) -> UpOutcome {
        let options = UpOptions {
            limit: Duration::from_secs(30),
            ..UpOptions::default()
        };
        up(&self.platform, specs, &options, |_| {}).await.unwrap()
    }

    /// As [`Stage::up`], and all is ready.
    pub(crate) async fn up_well(&self, specs: &[ServiceSpec]) -> UpOutcome {
        let outcome = self.up(specs).await;
        assert_eq!(outcome.failed, [], "{}", self.supervisor_log());
        outcome
    }

    pub(crate) async fn down(&self) -> DownOutcome {
        down(&self.platform, &DownOptions::default()).await.unwrap()
    }

    pub(crate) async fn service(&self, name: &str) -> ServiceState {
        self.platform.service(name).await.unwrap()
    }

    pub(crate) async fn front(&self, name: &str) -> SocketAddr {
        self.service(name).await.front.http.unwrap()
    }

    pub(crate) fn supervisor(&self) -> Process {
        self.state().lock_holder("supervisor.lock").expect("a supervisor runs")
    }

    pub(crate) fn supervisor_log(&self) -> String {
        std::fs::read_to_string(self.state().path("logs/supervisor.log")).unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for record in std::fs::read_dir(self.state().path("runs"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = std::fs::read_to_string(record.path().join("record.json")).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            for process in [&record["worker"]["process"], &record["watchdog"]] {
                if let Ok(process) = serde_json::from_value::<Process>(process.clone())
                    && process != Process::current()
                {
                    let _ = process.signal(Signal::KILL);
                }
            }
        }
        // The supervisor first, or it would start them again.
        for process in leftovers(self.state()) {
            let _ = process.signal(Signal::KILL);
        }
        for process in leftovers(self.state()) {
            let _ = process.signal(Signal::KILL);
        }
    }
}

/// The example that stands in for opsctl; cargo builds it with the tests.
pub(crate) fn twin() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let twin = test.parent().unwrap().parent().unwrap().join("examples/twin");
    assert!(twin.exists(), "{} is missing: build the examples", twin.display());
    twin
}

pub(crate) fn spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        command: vec![twin().display().to_string(), "service".to_owned()],
        copy: false,
        version: Some("v1".to_owned()),
        cwd: "/".into(),
        data_dir: None,
        env: BTreeMap::new(),
        replicas: 2,
        depends_on: Vec::new(),
        health: Health {
            http: Some("/health/ready".to_owned()),
            grpc: None,
        },
        probe: None,
        objectives: Objectives::default(),
        http: FrontDoor::Remembered,
        grpc: FrontDoor::Closed,
        drain: Duration::from_secs(5),
        start_limit: Duration::from_secs(20),
    }
}

pub(crate) fn with_mode(mut spec: ServiceSpec, mode: &str) -> ServiceSpec {
    spec.env.insert("TWIN_MODE".to_owned(), mode.to_owned());
    spec
}

pub(crate) fn second() -> VersionSpec {
    VersionSpec {
        version: "v2".to_owned(),
        command: spec("orders").command,
        image: None,
        env: BTreeMap::new(),
        replicas: 1,
    }
}

/// One request on a connection of its own: status and body.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(addr).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {text:?}")))?;
        Ok((status, text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await?
}

pub(crate) async fn until<F, Fut>(what: &str, done: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let limit = Duration::from_secs(20);
    let deadline = tokio::time::Instant::now() + limit;
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
