//! `up`: says what is meant to run, sees that a supervisor makes it so, and waits until it is or cannot be. It builds
//! nothing and prints nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::desired::{Desired, DesiredService};
use super::observed::Observed;
use super::ports::{self, FrontPorts, Ports};
use super::releases::{self, Releases};
use super::state_dir::{failed, read_end, read_json, write_json};
use super::{LocalPlatform, supervisor};
use crate::process::Process;
use crate::{End, Health, InstanceState, Objectives, Platform, PlatformError, Probe, Result, VersionSpec};

/// One service as the catalogue says, all paths absolute.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSpec {
    /// Its name.
    pub name: String,
    /// Program and arguments; the program's path is absolute.
    pub command: Vec<String>,
    /// Run a copy of the program, so that a rebuild does not change what runs. Off for interpreters and programs from PATH.
    pub copy: bool,
    /// The version's label; none: the digest of the program.
    pub version: Option<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// `DATA_DIR`; none: `.opsctl/data/<service>`.
    pub data_dir: Option<PathBuf>,
    /// Environment beside what every service is told.
    pub env: BTreeMap<String, String>,
    /// Instances.
    pub replicas: u32,
    /// Services whose addresses it is told.
    pub depends_on: Vec<String>,
    /// How readiness is asked.
    pub health: Health,
    /// What drills send.
    pub probe: Option<Probe>,
    /// What it promises.
    pub objectives: Objectives,
    /// Its HTTP front door.
    pub http: FrontDoor,
    /// Its gRPC front door.
    pub grpc: FrontDoor,
    /// From SIGTERM to SIGKILL.
    pub drain: Duration,
    /// From the start to readiness.
    pub start_limit: Duration,
}

/// A stable port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontDoor {
    /// None: it does not speak that.
    Closed,
    /// A port chosen once and remembered.
    Remembered,
    /// This port.
    Port(u16),
}

/// How to bring services up.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The environment's name.
    pub environment: String,
    /// How long to wait until all are ready.
    pub limit: Duration,
    /// Run what was built even where another version was promoted.
    pub ignore_promoted: bool,
    /// Give up early when an instance is in a crash loop (5 failures in a row).
    pub stop_at_crash_loop: bool,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            environment: "local".to_owned(),
            limit: Duration::from_mins(1),
            ignore_promoted: false,
            stop_at_crash_loop: true,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpOutcome {
    /// Services that are as they should be.
    pub ready: Vec<Ready>,
    /// Services that are not; they are still tried until [`super::down::stop_services`] or `down`.
    pub failed: Vec<Failed>,
    /// Services that this call added; those to stop again if it is to leave nothing.
    pub added: Vec<String>,
}

/// A service that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Its name.
    pub service: String,
    /// The stable version.
    pub version: String,
    /// Whether that version was promoted, not built.
    pub promoted: bool,
    /// Its front doors.
    pub ports: FrontPorts,
}

/// A service that is not up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Its name.
    pub service: String,
    /// Ready instances.
    pub ready: u32,
    /// Desired instances.
    pub replicas: u32,
    /// Why.
    pub cause: Cause,
    /// The same in words: how its process ended, or that it is not ready.
    pub reason: String,
    /// Where its log is.
    pub log: Option<PathBuf>,
    /// The last lines of that log.
    pub last_lines: Vec<String>,
}

/// Why a service is not up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its process ended by itself.
    Ended,
    /// Its program could not be started.
    NotStarted,
    /// It runs, or ran until it was given up, and did not become ready in time.
    NeverReady,
    /// Another process has its port.
    PortTaken,
    /// The proxy did not open its front door.
    NoFrontDoor,
    /// The supervisor has ended.
    NoSupervisor,
}

impl Cause {
    fn of(end: End) -> Self {
        match end {
            End::Ended => Self::Ended,
            End::NeverReady => Self::NeverReady,
            End::NotStarted => Self::NotStarted,
        }
    }
}

/// How far it is, told to a watcher now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Ready and desired instances by service.
    pub services: BTreeMap<String, (u32, u32)>,
}

/// Lines of a log that are shown.
const LAST_LINES: usize = 12;

/// Brings the services up: those named are made what `specs` say, others stay. Running services keep running; a changed
/// one is replaced without a gap. Returns when all are ready, one fails for good, or the time is over.
///
/// Errors: [`PlatformError::Busy`] while another `up` or `down` works on the folder, [`PlatformError::PortTaken`].
pub async fn up(
    platform: &LocalPlatform,
    specs: &[ServiceSpec],
    options: &UpOptions,
    mut progress: impl FnMut(&Progress) + Send,
) -> Result<UpOutcome> {
    let _only_one = platform.state.lock_file("up.lock", Duration::ZERO).await?;
    let mut plan = write_desired(platform, specs, options).await?;
    let supervisor = platform.ensure_supervisor().await?;
    let socket = platform.state.supervisor_socket();
    supervisor::ask(&socket, supervisor::Request::Reconcile, Duration::from_secs(10)).await?;
    let deadline = tokio::time::Instant::now() + options.limit;
    let mut last = None;
    loop {
        let over = tokio::time::Instant::now() >= deadline;
        let lost = lost_ports(platform, &plan)?;
        if !lost.is_empty() && !over {
            // Somebody took a port between our choice and the proxy's listening: another one will do.
            forget_ports(platform, &lost)?;
            let again = write_desired(platform, specs, options).await?;
            plan = Written {
                added: plan.added,
                ..again
            };
            supervisor::ask(&socket, supervisor::Request::Reconcile, Duration::from_secs(10)).await?;
        }
        let (outcome, hopeless, now) = look(platform, supervisor, specs, &plan).await?;
        if last.as_ref() != Some(&now) {
            progress(&now);
            last = Some(now);
        }
        if outcome.failed.is_empty() || over || (hopeless && options.stop_at_crash_loop) {
            return Ok(outcome);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What [`write_desired`] decided.
struct Written {
    added: Vec<String>,
    promoted: Vec<String>,
    /// Services one of whose ports was chosen just now, and the revision of their desired state.
    chosen: Vec<(String, u64)>,
}

/// Services whose new ports turned out to be taken.
fn lost_ports(platform: &LocalPlatform, written: &Written) -> Result<Vec<String>> {
    let observed: Option<Observed> = read_json(&platform.state.path("instances.json"))?;
    let failed = |(name, revision): &&(String, u64)| {
        let seen = observed.as_ref().and_then(|observed| observed.services.get(name));
        seen.is_some_and(|seen| seen.revision == *revision && seen.front_error.is_some())
    };
    Ok(written
        .chosen
        .iter()
        .filter(failed)
        .map(|(name, _)| name.clone())
        .collect())
}

fn forget_ports(platform: &LocalPlatform, services: &[String]) -> Result<()> {
    let mut remembered = Ports::load(&platform.state)?;
    remembered.services.retain(|name, _| !services.contains(name));
    remembered.save(&platform.state)
}

async fn write_desired(platform: &LocalPlatform, specs: &[ServiceSpec], options: &UpOptions) -> Result<Written> {
    let state = &platform.state;
    let mut chosen = Vec::new();
    let releases = Releases::load(state)?;
    let mut promoted = Vec::new();
    for spec in specs {
        let version = match releases.services.get(&spec.name).filter(|_| !options.ignore_promoted) {
            Some(release)
                if release
                    .spec
                    .command
                    .first()
                    .is_some_and(|program| PathBuf::from(program).exists()) =>
            {
                promoted.push(spec.name.clone());
                VersionSpec {
                    replicas: spec.replicas,
                    ..release.spec.clone()
                }
            }
            _ => built(platform, spec).await?,
        };
        chosen.push(version);
    }
    let locked = platform.locked().await?;
    let path = state.path("desired.json");
    let mut desired: Desired = read_json(&path)?.unwrap_or_else(|| Desired::empty(&options.environment));
    if desired.stop {
        desired.services.clear();
    }
    let (fronts, new_ports) = front_doors(platform, specs, &desired)?;
    let mut newly_chosen = Vec::new();
    let mut added = Vec::new();
    for ((spec, version), front) in specs.iter().zip(chosen).zip(fronts) {
        let old = desired.services.get(&spec.name);
        if old.is_none() {
            added.push(spec.name.clone());
        }
        let data_dir = spec
            .data_dir
            .clone()
            .unwrap_or_else(|| state.path("data").join(&spec.name));
        let mut service = DesiredService {
            stable_version: version.version.clone(),
            versions: BTreeMap::from([(version.version.clone(), version)]),
            cwd: spec.cwd.clone(),
            data_dir,
            env: spec.env.clone(),
            depends_on: spec.depends_on.clone(),
            health: spec.health.clone(),
            probe: spec.probe.clone(),
            objectives: spec.objectives.clone(),
            drain_seconds: spec.drain.as_secs_f64(),
            start_seconds: spec.start_limit.as_secs_f64(),
            http_listen: front.http.map(ports::loopback),
            grpc_listen: front.grpc.map(ports::loopback),
            hold: None,
            revision: 0,
        };
        if let Some(old) = old {
            // What a run has changed stays as it is: only that run may undo it.
            service.hold.clone_from(&old.hold);
            for (name, version) in &old.versions {
                if *name != old.stable_version {
                    service.versions.entry(name.clone()).or_insert_with(|| version.clone());
                }
            }
            service.revision = old.revision;
            if service != *old {
                service.revision += 1;
            }
        }
        if new_ports.contains(&spec.name) {
            newly_chosen.push((spec.name.clone(), service.revision));
        }
        desired.services.insert(spec.name.clone(), service);
    }
    options.environment.clone_into(&mut desired.environment);
    desired.stop = false;
    desired.revision += 1;
    write_json(&path, &desired, true)?;
    drop(locked);
    Ok(Written {
        added,
        promoted,
        chosen: newly_chosen,
    })
}

/// The version that was built: a copy under its digest, or what the command is.
async fn built(platform: &LocalPlatform, spec: &ServiceSpec) -> Result<VersionSpec> {
    let mut command = spec.command.clone();
    let state = platform.state.clone();
    let (name, program) = (spec.name.clone(), command.first().cloned().unwrap_or_default());
    let digest = if spec.copy {
        let copied = tokio::task::spawn_blocking(move || releases::store(&state, &name, program.as_ref())).await;
        let release = copied.map_err(|error| PlatformError::Unreachable {
            what: "the copy of the program".to_owned(),
            source: error.into(),
        })??;
        if let Some(first) = command.first_mut() {
            *first = release.program.display().to_string();
        }
        release.version
    } else {
        if let Some(program) = command.first() {
            std::fs::metadata(program).map_err(failed("find", program.as_ref()))?;
        }
        releases::version_of(&command, &spec.cwd)
    };
    Ok(VersionSpec {
        version: spec.version.clone().unwrap_or(digest),
        command,
        image: None,
        env: BTreeMap::new(),
        replicas: spec.replicas,
    })
}

/// The ports of the front doors, remembered, and the services for which one was chosen now. A port that the service has
/// already is not asked whether it is free.
fn front_doors(
    platform: &LocalPlatform,
    specs: &[ServiceSpec],
    desired: &Desired,
) -> Result<(Vec<FrontPorts>, Vec<String>)> {
    let proxy_lives = read_json::<Observed>(&platform.state.path("instances.json"))?
        .and_then(|observed| observed.proxy)
        .is_some_and(Process::alive);
    let ours: Vec<u16> = desired
        .services
        .values()
        .filter(|_| proxy_lives)
        .flat_map(|service| [service.http_listen, service.grpc_listen])
        .flatten()
        .map(|addr| addr.port())
        .collect();
    let asked: Vec<u16> = specs
        .iter()
        .flat_map(|spec| [spec.http, spec.grpc])
        .filter_map(|door| {
            if let FrontDoor::Port(port) = door {
                Some(port)
            } else {
                None
            }
        })
        .collect();
    let mut remembered = Ports::load(&platform.state)?;
    let mut fronts = Vec::new();
    let mut chosen = Vec::new();
    for spec in specs {
        let old = remembered.services.get(&spec.name).copied().unwrap_or_default();
        let mut front = FrontPorts::default();
        for (door, old, new) in [
            (spec.http, old.http, &mut front.http),
            (spec.grpc, old.grpc, &mut front.grpc),
        ] {
            let usable = |port: u16| ours.contains(&port) || ports::is_free(port);
            *new = match door {
                FrontDoor::Closed => None,
                FrontDoor::Port(port) if usable(port) => Some(port),
                FrontDoor::Port(port) => return Err(ports::taken(port)),
                FrontDoor::Remembered => match old.filter(|port| !asked.contains(port)) {
                    Some(port) if usable(port) => Some(port),
                    Some(port) => return Err(ports::taken(port)),
                    None => {
                        let port = remembered.choose(&platform.state, &asked)?;
                        chosen.push(spec.name.clone());
                        let entry = remembered.services.entry(spec.name.clone()).or_default();
                        // Noted at once, so that the next choice is another.
                        if entry.http.is_none() {
                            entry.http = Some(port);
                        } else {
                            entry.grpc = Some(port);
                        }
                        Some(port)
                    }
                },
            };
        }
        remembered.services.insert(spec.name.clone(), front);
        fronts.push(front);
    }
    remembered.save(&platform.state)?;
    Ok((fronts, chosen))
}

/// How it stands; `hopeless` when an instance is in a crash loop or a front door cannot open.
async fn look(
    platform: &LocalPlatform,
    supervisor: Process,
    specs: &[ServiceSpec],
    written: &Written,
) -> Result<(UpOutcome, bool, Progress)> {
    let mut outcome = UpOutcome {
        ready: Vec::new(),
        failed: Vec::new(),
        added: written.added.clone(),
    };
    let mut progress = Progress {
        services: BTreeMap::new(),
    };
    let mut hopeless = false;
    let observed: Option<Observed> = read_json(&platform.state.path("instances.json"))?;
    for spec in specs {
        let service = platform.service(&spec.name).await?;
        let version = service.stable_version.clone().unwrap_or_default();
        let ready = service.ready_of(&version) as u32;
        progress.services.insert(spec.name.clone(), (ready, service.replicas));
        let seen = observed.as_ref().and_then(|observed| observed.services.get(&spec.name));
        let front_error = seen.and_then(|seen| seen.front_error.clone());
        let told = seen.is_some_and(|seen| seen.routed_version.as_deref() == Some(&version));
        let ports = FrontPorts {
            http: service.front.http.map(|addr| addr.port()),
            grpc: service.front.grpc.map(|addr| addr.port()),
        };
        let open = front_error.is_none() && told && platform_listens(ports);
        if (ready >= service.replicas || service.hold.is_some()) && open {
            let promoted = written.promoted.contains(&spec.name);
            outcome.ready.push(Ready {
                service: spec.name.clone(),
                version,
                promoted,
                ports,
            });
            continue;
        }
        let worst = service
            .instances
            .iter()
            .filter(|instance| !instance.ready)
            .max_by_key(|instance| (instance.state == InstanceState::CrashLoop, instance.restarts));
        hopeless |= worst.is_some_and(|instance| instance.state == InstanceState::CrashLoop) || front_error.is_some();
        let log = worst.map(|instance| platform.state.log(&spec.name, &instance.id));
        let front_cause = if seen.is_some_and(|seen| seen.front_port_taken) {
            Cause::PortTaken
        } else {
            Cause::NoFrontDoor
        };
        let ended = worst.and_then(|instance| Some((Cause::of(instance.last_end?), instance.last_exit.clone()?)));
        let (cause, reason) = front_error
            .map(|error| (front_cause, error))
            .or(ended)
            .or_else(|| (!supervisor.alive()).then(|| (Cause::NoSupervisor, "the supervisor has ended".to_owned())))
            .unwrap_or_else(|| (Cause::NeverReady, "it is not ready yet".to_owned()));
        outcome.failed.push(Failed {
            service: spec.name.clone(),
            ready,
            replicas: service.replicas,
            cause,
            reason,
            last_lines: log.as_deref().map(last_lines).unwrap_or_default(),
            log,
        });
    }
    Ok((outcome, hopeless, progress))
}

/// Whether somebody listens on every front door.
fn platform_listens(front: FrontPorts) -> bool {
    [front.http, front.grpc]
        .into_iter()
        .flatten()
        .all(|port| !ports::is_free(port))
}

fn last_lines(log: &std::path::Path) -> Vec<String> {
    let text = read_end(log, 64 * 1024);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
