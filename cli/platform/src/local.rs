//! The local platform: services as processes of this machine, one supervisor and one proxy per state folder `.opsctl/`.
//!
//! Desired state is a file that every opsctl may change under a lock; the supervisor makes it real. So every change, and
//! every undo, works while the supervisor is dead, and takes effect when the next one starts.
//!
//! [`up`](up::up), [`down`](down::down), [`LocalPlatform::status`] and [`logs`] are what the command line calls;
//! [`supervisor::run`] is what `internal supervisor` calls. The proxy itself lives elsewhere.

mod desired;
pub mod down;
mod launcher;
pub mod logs;
mod observed;
pub mod ports;
mod records;
pub mod releases;
pub mod retention;
pub mod state_dir;
mod status;
pub mod supervisor;
pub mod up;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use opsctl_proxy_control::{Client, ControlError};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::Process;
use crate::run::RunRecord;
use crate::{
    Cas, Counts, Fault, Fence, Field, Info, Instance, InstanceTraffic, KillMode, Lease, LeaseHolder, LeaseOutcome,
    Platform, PlatformError, Result, ServiceState, Traffic, VersionTraffic, Weight,
};
use desired::{Desired, service_of};
use observed::{Observed, process_of};
use records::Locked;
use state_dir::{read_json, write_json};
use supervisor::Request;

pub use launcher::{Launcher, Role};
pub use state_dir::StateDir;
pub use status::Status;

/// How long the state lock is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How long the proxy may take to answer.
const PROXY_LIMIT: Duration = Duration::from_secs(2);
/// How long the supervisor may take to answer.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(2);
/// How long a new supervisor may take to answer for the first time.
const SUPERVISOR_START: Duration = Duration::from_secs(10);
/// How long a canary's share lives that was set without a lease of its own (only an undo does that).
const DEFAULT_WEIGHT_LEASE_SECONDS: u64 = 30;
/// How long a fault lives that nobody keeps up.
const FAULT_TTL: Duration = Duration::from_secs(30);

/// The local platform over one state folder.
#[derive(Debug, Clone)]
pub struct LocalPlatform {
    state: StateDir,
    launcher: Option<Launcher>,
}

impl LocalPlatform {
    /// The platform over `state`. Without a launcher it changes what is desired but starts no supervisor.
    pub fn new(state: StateDir, launcher: Option<Launcher>) -> Self {
        Self { state, launcher }
    }

    /// The state folder.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// How it starts processes of ours.
    pub fn launcher(&self) -> Option<&Launcher> {
        self.launcher.as_ref()
    }

    /// The proxy's control client.
    pub fn proxy(&self) -> Client {
        Client::new(self.state.proxy_socket()).with_timeout(PROXY_LIMIT)
    }

    /// Makes sure that a supervisor runs; returns it.
    ///
    /// Errors: [`PlatformError::TimedOut`] when it does not come up or hangs.
    pub async fn ensure_supervisor(&self) -> Result<Process> {
        let path = self.state.supervisor_socket();
        match supervisor::ask(&path, Request::Ping, SUPERVISOR_LIMIT).await {
            Ok(answer) => return Ok(answer.supervisor),
            Err(error) if !supervisor::is_absent(&error) => return Err(error),
            Err(_) => {}
        }
        let Some(launcher) = &self.launcher else {
            return Err(PlatformError::Unreachable {
                what: "the supervisor".to_owned(),
                source: "it does not run, and nothing may start it here".into(),
            });
        };
        let mut started = launcher.spawn(Role::Supervisor, &self.state)?;
        let (deadline, mut more) = (tokio::time::Instant::now() + SUPERVISOR_START, 2);
        loop {
            match supervisor::ask(&path, Request::Ping, SUPERVISOR_LIMIT).await {
                Ok(answer) => return Ok(answer.supervisor),
                Err(error) => {
                    // Ours may have lost a race against another start; then that one answers soon.
                    let gone = !started.alive() && self.state.lock_holder("supervisor.lock").is_none();
                    if gone && more > 0 {
                        // Or against one that was killed and still held the lock while it died.
                        more -= 1;
                        started = launcher.spawn(Role::Supervisor, &self.state)?;
                    } else if gone || tokio::time::Instant::now() >= deadline {
                        return Err(PlatformError::Unreachable {
                            what: "the supervisor that was just started".to_owned(),
                            source: crate::run::message_of(&error).into(),
                        });
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Has the supervisor act upon `desired.json` now. Best effort: a missing one is started, and reads the file anyway.
    async fn poke(&self) {
        let path = self.state.supervisor_socket();
        if supervisor::ask(&path, Request::Reconcile, SUPERVISOR_LIMIT)
            .await
            .is_ok()
            || self.launcher.is_none()
        {
            return;
        }
        if let Err(error) = self.ensure_supervisor().await {
            tracing::warn!(error = %crate::run::message_of(&error), "the supervisor could not be started");
        }
    }

    async fn locked(&self) -> Result<Locked<'_>> {
        let lock = match self.state.lock(LOCK_LIMIT).await {
            Err(PlatformError::Busy { what, holder }) => {
                // A process of ours that was stopped (SIGSTOP) within a change would block every undo. Its change is one
                // rename: killing it leaves the old or the new file.
                match self.state.lock_holder("state.lock").filter(|holder| holder.stopped()) {
                    Some(stopped) => {
                        tracing::warn!(pid = stopped.pid, "killing a stopped process that holds the state lock");
                        let _ = stopped.signal(Signal::KILL);
                        self.state.lock(LOCK_LIMIT).await?
                    }
                    None => return Err(PlatformError::Busy { what, holder }),
                }
            }
            other => other?,
        };
        Ok(Locked {
            state: &self.state,
            _lock: lock,
            now: self.now(),
        })
    }

    fn desired(&self) -> Result<Desired> {
        Ok(read_json(&self.state.path("desired.json"))?.unwrap_or_else(|| Desired::empty("local")))
    }

    fn observed(&self) -> Result<Option<Observed>> {
        read_json(&self.state.path("instances.json"))
    }

    /// The share in effect, and what the proxy expects a change to be made from. No proxy, no share.
    async fn weight(&self, service: &str) -> Result<(Option<Weight>, Option<(String, u8)>)> {
        match self.proxy().weight(service).await {
            Ok(None) | Err(ControlError::UnknownService { .. } | ControlError::Unreachable { .. }) => Ok((None, None)),
            Ok(Some(weight)) => {
                let expect = Some((weight.version.clone(), weight.percent));
                let now = (weight.percent > 0).then_some(Weight {
                    version: weight.version,
                    percent: weight.percent,
                    holder: weight.holder,
                });
                Ok((now, expect))
            }
            Err(error) => Err(from_control(error)),
        }
    }

    async fn set_weight(
        &self,
        service: &str,
        expect: Option<(String, u8)>,
        new: Option<Weight>,
        ttl_seconds: u64,
    ) -> Result<Option<Cas>> {
        let new = new.map(|weight| opsctl_proxy_control::Weight {
            version: weight.version,
            percent: weight.percent,
            ttl_seconds,
            holder: weight.holder,
            lapsed_percent: None,
        });
        let expect = expect.as_ref().map(|(version, percent)| (version.as_str(), *percent));
        match self.proxy().compare_and_set_weight(service, expect, new).await {
            Ok(()) => Ok(Some(Cas::Applied)),
            Err(ControlError::Conflict { .. }) => Ok(None),
            Err(error) => Err(from_control(error)),
        }
    }

    /// Compare-and-set of the canary's share. The proxy's own compare guards against its lease lapsing in between.
    async fn cas_weight(
        &self,
        service: &str,
        expect: Option<&Value>,
        new: Option<Weight>,
        ttl_seconds: u64,
    ) -> Result<Cas> {
        loop {
            let (now, at) = self.weight(service).await?;
            let actual = now.and_then(|weight| Weight::value(&weight.version, weight.percent, &weight.holder));
            if actual.as_ref() != expect {
                return Ok(Cas::Conflict { actual });
            }
            if at.is_none() && new.is_none() {
                return Ok(Cas::Applied);
            }
            if let Some(cas) = self.set_weight(service, at, new.clone(), ttl_seconds).await? {
                return Ok(cas);
            }
        }
    }
}

/// Faults live in the proxy, which lets them lapse.
impl LocalPlatform {
    /// The fault on a service. No proxy, no fault.
    async fn fault(&self, service: &str) -> Result<Option<Fault>> {
        self.desired()?.service(service)?;
        match self.proxy().faults(service).await {
            Ok(faults) => Ok(faults.into_iter().next().map(|fault| Fault {
                holder: fault.run,
                kind: fault.kind,
                percent: fault.percent,
                sessions_of: None,
            })),
            Err(ControlError::UnknownService { .. } | ControlError::Unreachable { .. }) => Ok(None),
            Err(error) => Err(from_control(error)),
        }
    }

    async fn put_fault(&self, service: &str, fault: Fault, ttl: Duration) -> Result<()> {
        let fault = opsctl_proxy_control::Fault {
            id: fault.holder.clone(),
            service: service.to_owned(),
            kind: fault.kind,
            percent: fault.percent,
            ttl_seconds: (ttl.as_secs_f64().ceil() as u64).clamp(1, opsctl_proxy_control::MAX_FAULT_TTL_SECONDS),
            run: fault.holder,
            version: None,
        };
        self.proxy().put_fault(&fault).await.map_err(from_control)
    }

    async fn cas_fault(&self, field: &Field, expect: Option<&Value>, new: Option<&Value>) -> Result<Cas> {
        let service = service_of(field)?;
        let now = self.fault(service).await?;
        let actual = now.as_ref().map(Fault::value);
        if actual.as_ref() != expect {
            return Ok(Cas::Conflict { actual });
        }
        match (new, now) {
            (Some(new), _) => {
                let fault: Fault =
                    serde_json::from_value(new.clone()).map_err(|error| PlatformError::InvalidValue {
                        field: field.clone(),
                        reason: error.to_string(),
                    })?;
                self.put_fault(service, fault, FAULT_TTL).await?;
            }
            (None, Some(old)) => self.proxy().delete_fault(&old.holder).await.map_err(from_control)?,
            (None, None) => {}
        }
        Ok(Cas::Applied)
    }
}

#[async_trait]
impl Platform for LocalPlatform {
    async fn info(&self) -> Result<Info> {
        Ok(Info {
            kind: "local".to_owned(),
            environment: self.desired()?.environment,
            place: crate::process::host(),
        })
    }

    /// The wall clock: the one place where this crate reads it for anything that is stored or compared.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn services(&self) -> Result<Vec<String>> {
        Ok(self.desired()?.services.into_keys().collect())
    }

    async fn service(&self, name: &str) -> Result<ServiceState> {
        let desired = self.desired()?;
        let service = desired.service(name)?;
        let (canary, _) = self.weight(name).await?;
        Ok(status::service_state(name, service, self.observed()?.as_ref(), canary))
    }

    async fn get(&self, field: &Field) -> Result<Option<Value>> {
        if field.pointer == "/fault" {
            return Ok(self.fault(service_of(field)?).await?.as_ref().map(Fault::value));
        }
        if field.pointer != "/canary" {
            return self.desired()?.get(field);
        }
        let name = service_of(field)?;
        self.desired()?.service(name)?;
        let (weight, _) = self.weight(name).await?;
        Ok(weight.and_then(|weight| Weight::value(&weight.version, weight.percent, &weight.holder)))
    }

    async fn compare_and_set(
        &self,
        by: Option<&Fence>,
        field: &Field,
        expect: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Cas> {
        let locked = self.locked().await?;
        locked.admit(by)?;
        if field.pointer == "/fault" {
            return self.cas_fault(field, expect, new).await;
        }
        let mut desired = self.desired()?;
        if field.pointer == "/canary" {
            let name = service_of(field)?;
            desired.service(name)?;
            let new = new
                .map(|value| serde_json::from_value(value.clone()))
                .transpose()
                .map_err(|error| PlatformError::InvalidValue {
                    field: field.clone(),
                    reason: error.to_string(),
                })?;
            return self.cas_weight(name, expect, new, DEFAULT_WEIGHT_LEASE_SECONDS).await;
        }
        let actual = desired.get(field)?;
        if actual.as_ref() != expect {
            return Ok(Cas::Conflict { actual });
        }
        desired.set(field, new)?;
        write_json(&self.state.path("desired.json"), &desired, true)?;
        if field.pointer == "/stable_version" {
            promote(&self.state, &desired, service_of(field)?, locked.now)?;
        }
        drop(locked);
        self.poke().await;
        Ok(Cas::Applied)
    }

    async fn grant_weight(
        &self,
        by: &Fence,
        service: &str,
        version: &str,
        expect_percent: u8,
        percent: u8,
        lease: Duration,
    ) -> Result<Cas> {
        let locked = self.locked().await?;
        locked.admit(Some(by))?;
        let desired = self.desired()?;
        if percent > 100 || !desired.service(service)?.versions.contains_key(version) {
            let reason = "it must be 0 to 100 of a version that runs".to_owned();
            return Err(PlatformError::InvalidValue {
                field: Field::canary(service),
                reason,
            });
        }
        let expect = Weight::value(version, expect_percent, &by.run);
        let new = (percent > 0).then(|| Weight {
            version: version.to_owned(),
            percent,
            holder: by.run.clone(),
        });
        self.cas_weight(service, expect.as_ref(), new, seconds(lease)).await
    }

    async fn renew_weight(&self, by: &Fence, service: &str, lease: Duration) -> Result<()> {
        let locked = self.locked().await?;
        locked.admit(Some(by))?;
        match self.proxy().renew_weight(service, &by.run, seconds(lease)).await {
            Ok(()) => Ok(()),
            Err(ControlError::Conflict { .. } | ControlError::UnknownService { .. }) => {
                Err(PlatformError::WeightLost {
                    service: service.to_owned(),
                })
            }
            Err(error) => Err(from_control(error)),
        }
    }

    async fn renew_fault(&self, by: &Fence, field: &Field, ttl: Duration) -> Result<()> {
        let service = service_of(field)?;
        let locked = self.locked().await?;
        locked.admit(Some(by))?;
        match self.fault(service).await? {
            // The same fault again, with its time from now.
            Some(fault) if fault.holder == by.run => self.put_fault(service, fault, ttl).await,
            _ => Err(PlatformError::FaultLost {
                object: field.object.clone(),
            }),
        }
    }

    async fn kill(&self, by: &Fence, instance: &Instance, _mode: KillMode) -> Result<Timestamp> {
        let locked = self.locked().await?;
        locked.admit(Some(by))?;
        let gone = || PlatformError::Gone {
            instance: instance.id.clone(),
            uid: instance.uid.clone(),
        };
        let observed = self.observed()?.ok_or_else(gone)?;
        let known = observed
            .services
            .get(&instance.service)
            .is_some_and(|service| service.instances.iter().any(|known| known.uid == instance.uid));
        let process = process_of(instance).filter(|_| known).ok_or_else(gone)?;
        let at = self.now();
        match process.signal_group(Signal::KILL) {
            Ok(true) => Ok(at),
            Ok(false) => Err(gone()),
            Err(source) => Err(PlatformError::Unreachable {
                what: format!("process {}", process.pid),
                source: source.into(),
            }),
        }
    }

    async fn traffic(&self, service: &str) -> Result<Traffic> {
        let counters = self.proxy().counters(service).await.map_err(from_control)?;
        macro_rules! counts {
            ($from:expr) => {
                Counts {
                    requests: $from.requests,
                    errors: $from.errors,
                    over_objective: $from.over_objective,
                    in_flight: $from.in_flight,
                    probe_requests: $from.probe_requests,
                    probe_errors: $from.probe_errors,
                    probe_over_objective: $from.probe_over_objective,
                }
            };
        }
        Ok(Traffic {
            at: counters.at,
            boot_id: counters.boot_id,
            stable_version: Some(counters.stable_version),
            versions: counters
                .versions
                .into_iter()
                .map(|v| VersionTraffic {
                    counts: counts!(v),
                    version: v.version,
                })
                .collect(),
            instances: counters
                .instances
                .into_iter()
                .map(|i| InstanceTraffic {
                    counts: counts!(i),
                    instance: i.instance,
                    version: i.version,
                })
                .collect(),
            held_rejections: counters.held_rejections,
            unrouted_errors: counters.unrouted_errors,
            probe_held_rejections: counters.probe_held_rejections,
            probe_unrouted_errors: counters.probe_unrouted_errors,
        })
    }

    async fn create_record(&self, record: &RunRecord) -> Result<u64> {
        self.locked().await?.create_record(record)
    }

    async fn update_record(&self, record: &RunRecord) -> Result<u64> {
        self.locked().await?.update_record(record)
    }

    async fn record(&self, id: &str) -> Result<Option<RunRecord>> {
        records::record(&self.state, id)
    }

    async fn records(&self) -> Result<Vec<RunRecord>> {
        records::records(&self.state)
    }

    async fn acquire_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        self.locked().await?.acquire(name, holder, ttl)
    }

    async fn replace_lease(&self, old: &Lease, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        self.locked().await?.replace(old, holder, ttl)
    }

    async fn renew_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<Lease> {
        self.locked().await?.renew(name, holder, ttl)
    }

    async fn release_lease(&self, name: &str, holder: &LeaseHolder) -> Result<()> {
        self.locked().await?.release(name, holder)
    }

    async fn lease(&self, name: &str) -> Result<Option<Lease>> {
        records::lease(&self.state, name)
    }

    fn holder_alive(&self, holder: &LeaseHolder) -> Option<bool> {
        crate::process::holder_alive(holder)
    }
}

/// Notes that a version became stable, for the next [`up::up`].
fn promote(state: &StateDir, desired: &Desired, name: &str, now: Timestamp) -> Result<()> {
    let service = desired.service(name)?;
    if let Some(spec) = service.versions.get(&service.stable_version) {
        let mut releases = releases::Releases::load(state)?;
        let promoted = releases::Promoted {
            spec: spec.clone(),
            at: now,
        };
        releases.services.insert(name.to_owned(), promoted);
        releases.save(state)?;
    }
    Ok(())
}

fn seconds(lease: Duration) -> u64 {
    (lease.as_secs_f64().ceil() as u64).clamp(1, opsctl_proxy_control::MAX_WEIGHT_TTL_SECONDS)
}

fn from_control(error: ControlError) -> PlatformError {
    match error {
        ControlError::UnknownService { .. } => PlatformError::Unreachable {
            what: "the service's route".to_owned(),
            source: Box::new(error),
        },
        ControlError::PortTaken { addr } => ports::taken(addr.port()),
        error => PlatformError::Unreachable {
            what: "the proxy".to_owned(),
            source: Box::new(error),
        },
    }
}
