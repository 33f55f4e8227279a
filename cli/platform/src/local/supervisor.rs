//! The supervisor: one detached process per state folder that makes what runs match `desired.json`. Its death harms
//! nobody: services write their own logs, the proxy is a process of its own, and the next supervisor adopts both.

mod adopt;
pub mod backoff;
mod front;
mod plan;
mod probe;
mod request;
pub mod rotate;
mod slot;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use jiff::Timestamp;
use opsctl_proxy_control::{Backend, RouteConfig, socket};
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::desired::{Desired, DesiredService};
use super::launcher::Launcher;
use super::observed::{Observed, ObservedService, process_of};
use super::state_dir::{StateDir, read_json, write_json};
use crate::process::Process;
use crate::run::message_of;
use crate::{End, Instance, PlatformError, Result};
use front::{Entry, Front};
use plan::Existing;
use slot::{News, Phase, Slot, Stopping};

pub(super) use adopt::scan;
pub(super) use request::{Request, ask};

/// How often it looks around without being asked.
const TICK: Duration = Duration::from_millis(500);
/// How soon it tries again to tell the proxy.
const RETRY_PUSH: Duration = Duration::from_millis(25);
/// How long the proxy may take to end.
const PROXY_END: Duration = Duration::from_secs(5);
/// `Retry-After` and objective when nothing else is said.
const DEFAULT_OBJECTIVE_SECONDS: f64 = 1.0;

/// Runs until `desired.json` says stop and everything has ended. Services that run already are adopted.
///
/// Errors: [`PlatformError::Busy`] when another supervisor has the folder; whatever keeps it from reading its files.
pub async fn run(state: StateDir, launcher: Launcher) -> Result<()> {
    crate::process::detach();
    let _only_one = state.lock_file("supervisor.lock", Duration::ZERO).await?;
    let path = state.supervisor_socket();
    let listener = socket::bind(&path)
        .await
        .map_err(super::state_dir::failed("listen on", &path))?;
    let (ask, asked) = mpsc::channel(64);
    let server = tokio::spawn(request::serve(listener, ask));
    let result = Supervisor::new(state.clone(), launcher).await?.run(asked).await;
    server.abort();
    let _ = fs::remove_file(&path);
    result
}

struct Supervisor {
    state: StateDir,
    launcher: Launcher,
    me: Process,
    desired: Desired,
    /// Inode and change time of the file that was read.
    stamp: Option<(u64, i64, i64)>,
    slots: Vec<Slot>,
    routed: BTreeMap<String, String>,
    front: Front,
    tell: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    written: Option<Observed>,
    retry_push: Option<Instant>,
    next_chores: Instant,
}

impl Supervisor {
    async fn new(state: StateDir, launcher: Launcher) -> Result<Self> {
        let (tell, news) = mpsc::channel(256);
        let mut supervisor = Self {
            front: Front::new(&state, None),
            state,
            launcher,
            me: Process::current(),
            desired: Desired::empty(""),
            stamp: None,
            slots: Vec::new(),
            routed: BTreeMap::new(),
            tell,
            news,
            written: None,
            retry_push: None,
            next_chores: Instant::now(),
        };
        supervisor.reload()?;
        supervisor.adopt().await;
        Ok(supervisor)
    }

    async fn run(mut self, mut asked: mpsc::Receiver<request::Asked>) -> Result<()> {
        let mut answers: Vec<oneshot::Sender<request::Answer>> = Vec::new();
        loop {
            if let Err(error) = self.reload() {
                tracing::error!(error = %message_of(&error), "could not read what is desired");
            }
            self.reconcile().await;
            for answer in answers.drain(..) {
                let _ = answer.send(request::Answer {
                    supervisor: self.me,
                    revision: self.desired.revision,
                });
            }
            if self.desired.stop && self.slots.is_empty() {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                Some(news) = self.news.recv() => {
                    self.hear(news);
                    while let Ok(news) = self.news.try_recv() {
                        self.hear(news);
                    }
                }
                Some(request::Asked { request, answer }) = asked.recv() => match request {
                    Request::Ping => {
                        let _ = answer.send(request::Answer { supervisor: self.me, revision: self.desired.revision });
                    }
                    Request::Reconcile => answers.push(answer),
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.front.stop(PROXY_END).await;
        let _ = fs::remove_file(self.state.proxy_socket());
        self.routed.clear();
        self.write_observed();
        Ok(())
    }

    /// Reads `desired.json` when it is another file than last time.
    fn reload(&mut self) -> Result<()> {
        let path = self.state.path("desired.json");
        let stamp = fs::metadata(&path)
            .ok()
            .map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec()));
        if stamp.is_none() || stamp != self.stamp {
            self.desired = read_json(&path)?.unwrap_or_else(|| Desired::empty(""));
            self.stamp = stamp;
        }
        Ok(())
    }

    /// Takes over what a dead supervisor left running.
    async fn adopt(&mut self) {
        let before: Option<Observed> = read_json(&self.state.path("instances.json")).ok().flatten();
        let known: Vec<&Instance> = before
            .iter()
            .flat_map(|observed| observed.services.values())
            .flat_map(|s| &s.instances)
            .collect();
        for (name, service) in before.iter().flat_map(|observed| &observed.services) {
            if let Some(version) = &service.routed_version {
                self.routed.insert(name.clone(), version.clone());
            }
        }
        let mut proxy = before
            .as_ref()
            .and_then(|observed| observed.proxy)
            .filter(|process| process.alive());
        for found in scan(self.state.root()) {
            let Some(name) = &found.service else {
                if proxy.is_none() && found.leader {
                    proxy = Some(found.process);
                }
                continue;
            };
            if !found.leader {
                continue;
            }
            let known = known.iter().copied().find(|i| process_of(i) == Some(found.process));
            let id = found.environment.get("INSTANCE_ID");
            let version = found.environment.get("SERVICE_VERSION");
            let taken = |id: &str| self.slots.iter().any(|slot| slot.id == id);
            let adopted = match (self.desired.services.get(name), id, version) {
                (Some(service), Some(id), Some(version)) if !taken(id) => {
                    let running = slot::adopt(service, found.process, &found.environment, known, &self.tell).await;
                    running.map(|running| (id.clone(), version.clone(), running))
                }
                _ => None,
            };
            let Some((id, version, running)) = adopted else {
                tracing::warn!(pid = found.process.pid, service = %name, "ending a process that nothing wants");
                let _ = found.process.signal_group(Signal::TERM);
                continue;
            };
            tracing::info!(instance = %id, pid = found.process.pid, "adopted");
            let mut slot = Slot::new(name, plan::number(&id), &version, Instant::now());
            slot.restarts = known.map_or(0, |known| known.restarts);
            slot.last_exit = known.and_then(|known| known.last_exit.clone());
            slot.last_end = known.and_then(|known| known.last_end);
            slot.phase = Phase::Running(Box::new(running));
            self.slots.push(slot);
        }
        self.front = Front::new(&self.state, proxy);
    }

    fn hear(&mut self, news: News) {
        let process = match &news {
            News::Ended { process, .. } | News::Ready { process, .. } => *process,
        };
        let now = Instant::now();
        let position = self
            .slots
            .iter()
            .position(|slot| slot.running().is_some_and(|running| running.process == process));
        let Some(position) = position else { return };
        let slot = &mut self.slots[position];
        let Phase::Running(running) = &mut slot.phase else {
            return;
        };
        match news {
            News::Ready { ready, .. } => {
                running.ready = ready;
                running.was_ready |= ready;
                running.ready_since = ready.then_some(running.ready_since.unwrap_or(now));
                tracing::info!(instance = %slot.id, ready, "readiness changed");
            }
            News::Ended { how, .. } => {
                sweep(&self.state, &slot.service, &slot.id);
                let ready_for = running.ready_since.map_or(Duration::ZERO, |since| now - since);
                let too_slow = running.stopping.is_some_and(|stopping| stopping.gives_up);
                let (how, end) = if too_slow {
                    ("was not ready in time".to_owned(), End::NeverReady)
                } else {
                    (how, End::Ended)
                };
                tracing::info!(instance = %slot.id, pid = process.pid, %how, "ended");
                if running.stopping.is_some() && !too_slow {
                    self.slots.remove(position);
                    return;
                }
                slot.last_exit = Some(how);
                slot.last_end = Some(end);
                slot.restarts += 1;
                slot.phase = Phase::Waiting {
                    until: now + slot.backoff.ended(ready_for),
                };
            }
        }
    }

    async fn reconcile(&mut self) {
        let now = Instant::now();
        self.front.keep_alive(&self.launcher, &self.state, now);
        let names: BTreeSet<String> = self
            .desired
            .services
            .keys()
            .cloned()
            .chain(self.slots.iter().map(|slot| slot.service.clone()))
            .collect();
        for name in &names {
            self.plan_service(name, now);
        }
        self.start_due(now);
        let wanted = self.wanted();
        let told = self.front.push(&wanted).await;
        self.retry_push = (!told).then(|| now + RETRY_PUSH);
        for slot in &mut self.slots {
            if let Phase::Running(running) = &mut slot.phase {
                slot::tell_to_stop(running);
                slot::enforce(running, now);
            }
        }
        if now >= self.next_chores {
            self.next_chores = now + TICK * 4;
            self.front.check().await;
            self.rotate_logs();
        }
        self.write_observed();
    }

    fn plan_service(&mut self, name: &str, now: Instant) {
        let Some(service) = self.desired.services.get(name) else {
            for slot in self.slots.iter_mut().filter(|slot| slot.service == name) {
                begin_stop(slot, now, Duration::from_secs(10));
            }
            self.slots
                .retain(|slot| slot.service != name || slot.running().is_some());
            return;
        };
        // When everything stops, callers end before those whom they call.
        let called = self.desired.services.iter().any(|(other, theirs)| {
            other != name
                && theirs.depends_on.iter().any(|dependency| dependency == name)
                && !service.depends_on.contains(other)
                && self.slots.iter().any(|slot| slot.service == *other)
        });
        let stop_all = self.desired.stop && !called;
        let digest = |slot: &Slot| {
            let spec = service.versions.get(&slot.version)?;
            Some(slot::spec_digest(&self.desired, service, spec))
        };
        let existing: Vec<Existing> = self
            .slots
            .iter()
            .filter(|slot| slot.service == name)
            .map(|slot| Existing {
                id: slot.id.clone(),
                version: slot.version.clone(),
                current: slot
                    .running()
                    .is_none_or(|running| digest(slot).is_none_or(|digest| digest == running.spec)),
                ready: slot.ready(),
                stopping: slot.stopping(),
            })
            .collect();
        let plan = plan::plan(service, &existing, self.routed.get(name).map(String::as_str), stop_all);
        let drain = Duration::from_secs_f64(service.drain_seconds.clamp(0.0, 3600.0));
        for id in &plan.stop {
            for slot in self.slots.iter_mut().filter(|slot| slot.id == *id) {
                begin_stop(slot, now, drain);
            }
            self.slots.retain(|slot| slot.id != *id || slot.running().is_some());
        }
        if !self.desired.stop {
            for version in &plan.start {
                let number = (1..=self.slots.len() as u32 + 1)
                    .find(|number| self.slots.iter().all(|slot| slot.id != format!("{name}-{number}")))
                    .unwrap_or_default();
                self.slots.push(Slot::new(name, number, version, now));
            }
        }
        self.routed.insert(name.to_owned(), plan.routed);
    }

    fn start_due(&mut self, now: Instant) {
        for slot in &mut self.slots {
            let Some(service) = self.desired.services.get(&slot.service) else {
                continue;
            };
            match &mut slot.phase {
                Phase::Waiting { until } if *until <= now => {
                    let Some(spec) = service.versions.get(&slot.version) else {
                        continue;
                    };
                    sweep(&self.state, &slot.service, &slot.id);
                    match slot::spawn(&self.state, &self.desired, service, spec, slot, &self.tell) {
                        Ok(running) => {
                            tracing::info!(instance = %slot.id, pid = running.process.pid, "started");
                            slot.phase = Phase::Running(Box::new(running));
                        }
                        Err(error) => {
                            let message = message_of(&error);
                            tracing::error!(instance = %slot.id, error = %message, "could not start");
                            slot.last_exit = Some(message);
                            slot.last_end = Some(End::NotStarted);
                            slot.restarts += 1;
                            slot.phase = Phase::Waiting {
                                until: now + slot.backoff.ended(Duration::ZERO),
                            };
                        }
                    }
                }
                Phase::Running(running) => {
                    let limit = Duration::from_secs_f64(service.start_seconds.clamp(0.1, 86_400.0));
                    if !running.was_ready && running.stopping.is_none() && now - running.started > limit {
                        tracing::warn!(instance = %slot.id, "not ready in time");
                        running.stopping = Some(Stopping {
                            kill_at: now,
                            told: true,
                            killed: false,
                            gives_up: true,
                        });
                    }
                }
                Phase::Waiting { .. } => {}
            }
        }
    }

    /// What the proxy shall know.
    fn wanted(&self) -> BTreeMap<String, Entry> {
        self.desired
            .services
            .iter()
            .map(|(name, service)| (name.clone(), self.entry(name, service)))
            .collect()
    }

    fn entry(&self, name: &str, service: &DesiredService) -> Entry {
        let mut backends: Vec<Backend> = self
            .slots
            .iter()
            .filter(|slot| slot.service == name)
            .filter_map(|slot| {
                let running = slot.running()?;
                Some(Backend {
                    instance: slot.id.clone(),
                    version: slot.version.clone(),
                    http: service.http_listen.and(running.addresses.http),
                    grpc: service.grpc_listen.and(running.addresses.grpc),
                    ready: slot.ready(),
                })
            })
            .collect();
        backends.sort_by(|a, b| a.instance.cmp(&b.instance));
        let objective = service.objectives.latency_seconds.unwrap_or(DEFAULT_OBJECTIVE_SECONDS);
        let listens = service.http_listen.is_some() || service.grpc_listen.is_some();
        let ready = backends.iter().any(|backend| backend.ready);
        let hold = |hold: &crate::Hold| opsctl_proxy_control::Hold {
            retry_after_seconds: hold.retry_after_seconds.into(),
            reason: hold.reason.clone(),
        };
        let hold = match &service.hold {
            Some(held) => Some(hold(held)),
            // A hold that ends stands until somebody can answer.
            None if !ready => self.front.hold(name),
            None => None,
        };
        Entry {
            route: listens.then(|| RouteConfig {
                service: name.to_owned(),
                http_listen: service.http_listen,
                grpc_listen: service.grpc_listen,
                stable_version: self.routed.get(name).unwrap_or(&service.stable_version).clone(),
                latency_objective_ms: (objective * 1000.0).round() as u64,
                response_timeout_ms: opsctl_proxy_control::DEFAULT_RESPONSE_TIMEOUT_MS,
                rules: Vec::new(),
            }),
            backends,
            hold,
        }
    }

    fn write_observed(&mut self) {
        let mut observed = Observed::empty(self.me, Timestamp::now());
        observed.proxy = self.front.process();
        for (name, service) in &self.desired.services {
            let mut instances: Vec<Instance> = self
                .slots
                .iter()
                .filter(|slot| slot.service == *name)
                .map(Slot::instance)
                .collect();
            instances.sort_by_key(|instance| plan::number(&instance.id));
            observed.services.insert(
                name.clone(),
                ObservedService {
                    instances,
                    routed_version: self.routed.get(name).cloned(),
                    revision: service.revision,
                    front_error: self.front.error(name).map(|error| error.message.clone()),
                    front_port_taken: self.front.error(name).is_some_and(|error| error.port_taken),
                },
            );
        }
        if self.written.as_ref().is_some_and(|written| {
            Observed {
                at: written.at,
                ..observed.clone()
            } == *written
        }) {
            return;
        }
        match write_json(&self.state.path("instances.json"), &observed, false) {
            Ok(()) => self.written = Some(observed),
            Err(error) => tracing::error!(error = %message_of(&error), "could not write what runs"),
        }
    }

    fn rotate_logs(&self) {
        let logs = self.slots.iter().flat_map(|slot| {
            let (service, id) = (&slot.service, &slot.id);
            [self.state.log(service, id), self.state.spans(service, id)]
        });
        let own = ["supervisor.log", "proxy.log"].map(|name| self.state.path("logs").join(name));
        for log in logs.chain(own) {
            if let Err(error) = rotate::rotate(&log, rotate::LIMIT_BYTES, rotate::KEPT) {
                tracing::warn!(log = %log.display(), %error, "could not rotate a log");
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let mut next = Instant::now() + TICK;
        for slot in &self.slots {
            let at = match &slot.phase {
                Phase::Waiting { until } => Some(*until),
                Phase::Running(running) => running
                    .stopping
                    .filter(|stopping| !stopping.killed)
                    .map(|stopping| stopping.kill_at),
            };
            next = next.min(at.unwrap_or(next));
        }
        next.min(self.retry_push.unwrap_or(next))
    }
}

/// Marks an instance for its end; it is told after the proxy was.
fn begin_stop(slot: &mut Slot, now: Instant, drain: Duration) {
    if let Phase::Running(running) = &mut slot.phase
        && running.stopping.is_none()
    {
        // A little longer than the service itself takes, so that it can end in order.
        let kill_at = now + drain + Duration::from_secs(1);
        running.stopping = Some(Stopping {
            kill_at,
            told: false,
            killed: false,
            gives_up: false,
        });
    }
}

/// Ends what an instance left behind: children that outlived it.
fn sweep(state: &StateDir, service: &str, id: &str) {
    for found in scan(state.root()) {
        if found.service.as_deref() == Some(service) && found.environment.get("INSTANCE_ID").is_some_and(|i| i == id) {
            let _ = found.process.signal(Signal::KILL);
        }
    }
}

/// That the supervisor cannot be used because of `error`: it is dead, hung, or not ours.
pub(super) fn is_absent(error: &PlatformError) -> bool {
    matches!(error, PlatformError::Unreachable { .. })
}
