//! One instance of a service: its process, its readiness, its end. Not the decision when it starts or stops.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::probe::{self, Target};
use crate::local::desired::{Desired, DesiredService};
use crate::local::launcher::{SERVICE_VARIABLE, STATE_VARIABLE};
use crate::local::ports;
use crate::local::state_dir::{StateDir, append_to, failed, make_dir};
use crate::process::Process;
use crate::{Addresses, End, Instance, InstanceState, PlatformError, Result, VersionSpec};

/// The variable that names the digest of the command and environment that an instance was started with.
const SPEC_VARIABLE: &str = "SUPERVISOR_SPEC";

/// An instance, running or waiting.
pub(super) struct Slot {
    pub(super) id: String,
    pub(super) service: String,
    pub(super) version: String,
    pub(super) phase: Phase,
    pub(super) restarts: u32,
    pub(super) backoff: Backoff,
    pub(super) last_exit: Option<String>,
    pub(super) last_end: Option<End>,
}

/// Where an instance is.
pub(super) enum Phase {
    /// Starts at this time.
    Waiting { until: Instant },
    /// Its process runs.
    Running(Box<Running>),
}

/// A running process and the tasks that watch it.
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) spec: String,
    pub(super) started_at: Timestamp,
    pub(super) started: Instant,
    pub(super) addresses: Addresses,
    pub(super) ready: bool,
    pub(super) ready_since: Option<Instant>,
    /// Was ready at least once.
    pub(super) was_ready: bool,
    /// SIGTERM was sent; SIGKILL follows at this time.
    pub(super) stopping: Option<Stopping>,
    tasks: [JoinHandle<()>; 2],
}

/// An end under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopping {
    pub(super) kill_at: Instant,
    pub(super) told: bool,
    pub(super) killed: bool,
    /// It was never ready; another try follows.
    pub(super) gives_up: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// News from the tasks that watch a process.
pub(super) enum News {
    /// It ended, in words.
    Ended { process: Process, how: String },
    /// Its readiness changed.
    Ready { process: Process, ready: bool },
}

impl Slot {
    pub(super) fn new(service: &str, number: u32, version: &str, now: Instant) -> Self {
        Self {
            id: format!("{service}-{number}"),
            service: service.to_owned(),
            version: version.to_owned(),
            phase: Phase::Waiting { until: now },
            restarts: 0,
            backoff: Backoff::default(),
            last_exit: None,
            last_end: None,
        }
    }

    pub(super) fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Running(running) => Some(running),
            Phase::Waiting { .. } => None,
        }
    }

    pub(super) fn ready(&self) -> bool {
        self.running()
            .is_some_and(|running| running.ready && running.stopping.is_none())
    }

    pub(super) fn stopping(&self) -> bool {
        self.running().is_some_and(|running| running.stopping.is_some())
    }

    /// What is shown of it.
    pub(super) fn instance(&self) -> Instance {
        let running = self.running();
        let state = match running {
            Some(running) if running.stopping.is_some() => InstanceState::Draining,
            Some(running) if running.ready => InstanceState::Ready,
            Some(running) if running.was_ready => InstanceState::Unready,
            _ if self.backoff.crash_loop() => InstanceState::CrashLoop,
            Some(_) => InstanceState::Starting,
            None if self.restarts == 0 && self.last_exit.is_none() => InstanceState::Starting,
            None => InstanceState::Backoff,
        };
        Instance {
            id: self.id.clone(),
            uid: running.map(|running| running.process.uid()).unwrap_or_default(),
            service: self.service.clone(),
            version: self.version.clone(),
            ready: self.ready(),
            state,
            started_at: running.map(|running| running.started_at),
            restarts: self.restarts,
            pid: running.map(|running| running.process.pid),
            addresses: running.map(|running| running.addresses.clone()).unwrap_or_default(),
            last_exit: self.last_exit.clone(),
            last_end: self.last_end,
            labels: BTreeMap::new(),
        }
    }
}

/// The environment of a version's instances that is the same for all of them.
pub(super) fn environment(desired: &Desired, service: &DesiredService, spec: &VersionSpec) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([
        ("DATA_DIR".to_owned(), service.data_dir.display().to_string()),
        ("SERVICE_VERSION".to_owned(), spec.version.clone()),
        // The proxy has forgotten the instance before it is told to stop, so no balancer needs time to notice.
        ("DRAIN_DELAY".to_owned(), "50ms".to_owned()),
        ("DRAIN_TIMEOUT".to_owned(), format!("{}", service.drain_seconds)),
        // All of it must be over when it would be killed, a second after the time-out.
        ("DRAIN_FLUSH".to_owned(), "800ms".to_owned()),
        ("DRAIN_GRACE".to_owned(), format!("{}", service.drain_seconds + 1.0)),
    ]);
    for name in &service.depends_on {
        let Some(dependency) = desired.services.get(name) else {
            continue;
        };
        let prefix = name.to_uppercase().replace('-', "_");
        if let Some(addr) = dependency.http_listen {
            environment.insert(format!("{prefix}_URL"), format!("http://{addr}"));
        }
        if let Some(addr) = dependency.grpc_listen {
            environment.insert(format!("{prefix}_GRPC_URL"), format!("http://{addr}"));
        }
    }
    environment.extend(service.env.clone());
    environment.extend(spec.env.clone());
    environment
}

/// The digest of all that an instance is started with.
pub(super) fn spec_digest(desired: &Desired, service: &DesiredService, spec: &VersionSpec) -> String {
    let mut hasher = Sha256::new();
    let all = (&spec.command, &service.cwd, environment(desired, service, spec));
    hasher.update(serde_json::to_vec(&all).unwrap_or_default());
    hex::encode(&hasher.finalize()[..6])
}

/// Starts an instance: own process group, output appended to its log, passing ports.
pub(super) fn spawn(
    state: &StateDir,
    desired: &Desired,
    service: &DesiredService,
    spec: &VersionSpec,
    slot: &Slot,
    news: &mpsc::Sender<News>,
) -> Result<Running> {
    let (program, arguments) = spec.command.split_first().ok_or_else(|| PlatformError::Spawn {
        program: slot.service.clone(),
        source: std::io::Error::other("it has no command"),
    })?;
    let http = ports::loopback(ports::passing()?);
    let grpc = ports::loopback(ports::passing()?);
    let (admin, token_file) = admin_address(state, &slot.id)?;
    let log = state.log(&slot.service, &slot.id);
    if let Some(folder) = log.parent() {
        make_dir(folder)?;
    }
    make_dir(&service.data_dir)?;
    let output = append_to(&log)?;
    let errors = output.try_clone().map_err(failed("open", &log))?;
    let digest = spec_digest(desired, service, spec);
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .current_dir(&service.cwd)
        .envs(environment(desired, service, spec))
        .env("HTTP_ADDR", http.to_string())
        .env("GRPC_ADDR", grpc.to_string())
        .env("ADMIN_ADDR", &admin)
        .env("INSTANCE_ID", &slot.id)
        .env("TRACES_FILE", state.spans(&slot.service, &slot.id))
        .env(STATE_VARIABLE, state.root())
        .env(SERVICE_VARIABLE, &slot.service)
        .env(SPEC_VARIABLE, &digest)
        .env_remove("ADMIN_TOKEN_FILE")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .kill_on_drop(false);
    if let Some(token_file) = token_file {
        command.env("ADMIN_TOKEN_FILE", token_file);
    }
    let spawn = |source| PlatformError::Spawn {
        program: program.clone(),
        source,
    };
    let mut child = command.spawn().map_err(spawn)?;
    let pid = child
        .id()
        .ok_or_else(|| spawn(std::io::Error::other("it ended at once")))?;
    let process = Process {
        pid,
        start_ticks: crate::process::stat(pid).map_or(0, |stat| stat.start_ticks),
    };
    let tell = news.clone();
    let waiter = tokio::spawn(async move {
        let how = match child.wait().await {
            Ok(status) => crate::process::describe(status),
            Err(error) => format!("ended unseen ({error})"),
        };
        let _ = tell.send(News::Ended { process, how }).await;
    });
    let addresses = Addresses {
        http: Some(http),
        grpc: Some(grpc),
        admin: Some(admin),
        url: None,
        host: None,
    };
    let prober = watch_readiness(service, process, http, grpc, false, news.clone());
    Ok(Running {
        process,
        spec: digest,
        started_at: Timestamp::now(),
        started: Instant::now(),
        addresses,
        ready: false,
        ready_since: None,
        was_ready: false,
        stopping: None,
        tasks: [waiter, prober],
    })
}

/// Takes over a process that another supervisor started. Asks it first, so that no request is refused meanwhile.
pub(super) async fn adopt(
    service: &DesiredService,
    process: Process,
    environment: &BTreeMap<String, String>,
    known: Option<&Instance>,
    news: &mpsc::Sender<News>,
) -> Option<Running> {
    let address = |name: &str| environment.get(name)?.parse::<SocketAddr>().ok();
    let (http, grpc) = (address("HTTP_ADDR")?, address("GRPC_ADDR")?);
    let ready = known.is_some_and(|known| known.ready) || probe::ready(&target(service, http, grpc)).await;
    let tell = news.clone();
    let waiter = tokio::spawn(async move {
        wait_for_stranger(process).await;
        let how = "ended (not seen how, it was adopted)".to_owned();
        let _ = tell.send(News::Ended { process, how }).await;
    });
    let prober = watch_readiness(service, process, http, grpc, ready, news.clone());
    let now = Instant::now();
    Some(Running {
        process,
        spec: environment.get(SPEC_VARIABLE).cloned().unwrap_or_default(),
        started_at: known.and_then(|known| known.started_at).unwrap_or_else(Timestamp::now),
        started: now,
        addresses: Addresses {
            http: Some(http),
            grpc: Some(grpc),
            admin: environment.get("ADMIN_ADDR").cloned(),
            url: None,
            host: None,
        },
        ready,
        ready_since: ready.then_some(now),
        was_ready: ready,
        stopping: None,
        tasks: [waiter, prober],
    })
}

/// Waits for the end of a process that is not our child.
pub(super) async fn wait_for_stranger(process: Process) {
    // A pidfd is no pipe, but is waited for like one: readable means ended (pidfd_open(2)).
    if let Ok(Some(pidfd)) = process.open()
        && let Ok(pidfd) = pipe::Receiver::from_owned_fd_unchecked(pidfd)
    {
        let _ = pidfd.readable().await;
        return;
    }
    while process.alive() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Questions in a row that must fail before a ready instance counts as unready.
const FAILURES_UNTIL_UNREADY: u32 = 2;

fn watch_readiness(
    service: &DesiredService,
    process: Process,
    http: SocketAddr,
    grpc: SocketAddr,
    mut ready: bool,
    news: mpsc::Sender<News>,
) -> JoinHandle<()> {
    let target = target(service, http, grpc);
    tokio::spawn(async move {
        let mut failures = 0;
        loop {
            let answer = probe::ready(&target).await;
            failures = if answer { 0 } else { failures + 1 };
            if answer != ready && (answer || failures >= FAILURES_UNTIL_UNREADY) {
                ready = answer;
                if news.send(News::Ready { process, ready }).await.is_err() {
                    return;
                }
            }
            let pause = if ready {
                Duration::from_millis(500)
            } else {
                Duration::from_millis(25)
            };
            tokio::time::sleep(pause).await;
        }
    })
}

fn target(service: &DesiredService, http: SocketAddr, grpc: SocketAddr) -> Target {
    let mut connect = Vec::new();
    if service.http_listen.is_some() || service.grpc_listen.is_none() {
        connect.push(http);
    }
    if service.grpc_listen.is_some() {
        connect.push(grpc);
    }
    Target {
        health: service.health.clone(),
        http,
        grpc,
        connect,
    }
}

/// Ends the instance: SIGTERM to its group; SIGKILL is sent later by [`enforce`].
pub(super) fn tell_to_stop(running: &mut Running) {
    if let Some(stopping) = &mut running.stopping
        && !stopping.told
    {
        stopping.told = true;
        if let Err(error) = running.process.signal_group(Signal::TERM) {
            tracing::warn!(pid = running.process.pid, %error, "could not send SIGTERM");
        }
    }
}

/// Sends SIGKILL when the time to drain is over.
pub(super) fn enforce(running: &mut Running, now: Instant) {
    if let Some(stopping) = &mut running.stopping
        && now >= stopping.kill_at
        && !stopping.killed
    {
        stopping.killed = true;
        if let Err(error) = running.process.signal_group(Signal::KILL) {
            tracing::warn!(pid = running.process.pid, %error, "could not send SIGKILL");
        }
    }
}

/// Where the instance's admin listener goes: a socket, or loopback with a token when the socket's path would be too long
/// (`sockaddr_un` holds 107 bytes).
fn admin_address(state: &StateDir, instance: &str) -> Result<(String, Option<std::path::PathBuf>)> {
    let folder = state.make("admin")?;
    let socket = folder.join(format!("{instance}.sock"));
    if socket.as_os_str().len() <= 100 {
        return Ok((format!("unix:{}", socket.display()), None));
    }
    let token_file = folder.join(format!("{instance}.token"));
    let token = hex::encode(rand::random::<[u8; 32]>());
    crate::local::state_dir::write_file(&token_file, token.as_bytes(), false)?;
    Ok((ports::loopback(ports::passing()?).to_string(), Some(token_file)))
}
