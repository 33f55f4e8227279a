//! The platform's twin in memory: services are numbers, time is tokio's clock (paused and advanced by tests), and every
//! call can be made to fail. For tests of what builds on [`Platform`]; it runs no process and serves no request.

mod nodes;
mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use timed::Timed;

use crate::run::RunRecord;
use crate::{
    Addresses, Cas, End, Fault, Fence, Field, Health, Hold, Info, Instance, InstanceState, KillMode, Lease,
    LeaseHolder, LeaseOutcome, Node, Objectives, Platform, PlatformError, Probe, Result, ServiceState, Tenant, Traffic,
    Usage, VersionSpec, VersionState, Weight,
};

/// Shared by all clones.
#[derive(Clone)]
pub struct MemoryPlatform {
    inner: Arc<Mutex<Inner>>,
    origin: Instant,
}

/// What a traffic source sees when it is asked.
#[derive(Debug, Clone)]
pub struct TrafficView {
    /// Time since the platform was made.
    pub elapsed: Duration,
    /// The fault that is played on the service.
    pub fault: Option<Fault>,
    /// The service as it is now.
    pub service: ServiceState,
}

type Source = Box<dyn FnMut(&TrafficView) -> Traffic + Send>;
type Numbers = Box<dyn FnMut(&TrafficView, &str) -> Option<f64> + Send>;

struct Inner {
    services: BTreeMap<String, Service>,
    records: BTreeMap<String, RunRecord>,
    leases: BTreeMap<String, Lease>,
    /// Where instances are.
    nodes: nodes::Nodes,
    /// Bumped whenever a lease or service changes.
    revision: u64,
    next_pid: u32,
    dead: BTreeSet<u32>,
    failures: BTreeMap<String, u32>,
    crash_after: Option<u32>,
    changes: u32,
}

struct Service {
    stable: Option<String>,
    versions: BTreeMap<String, VersionSpec>,
    hold: Option<Hold>,
    weight: Timed<Weight>,
    fault: Timed<Fault>,
    instances: Vec<Slot>,
    objectives: Objectives,
    depends_on: Vec<String>,
    restart_delay: Duration,
    /// Whether killed instances come back.
    restarts: bool,
    source: Option<Source>,
    numbers: Option<Numbers>,
    usage: Vec<Usage>,
    revision: u64,
}

/// One instance; `ready_at` in the future means starting or waiting for its restart.
struct Slot {
    instance: Instance,
    ready_at: Option<Instant>,
    node: Option<String>,
}

impl Default for MemoryPlatform {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryPlatform {
    /// No services. Its clock begins at 2026-01-01T00:00:00Z and follows tokio's.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                services: BTreeMap::new(),
                records: BTreeMap::new(),
                leases: BTreeMap::new(),
                nodes: nodes::Nodes::default(),
                revision: 0,
                next_pid: 1000,
                dead: BTreeSet::new(),
                failures: BTreeMap::new(),
                crash_after: None,
                changes: 0,
            })),
            origin: Instant::now(),
        }
    }

    /// Adds a service whose stable version has `replicas` ready instances. Killed instances come back after one second.
    #[must_use]
    pub fn with_service(self, name: &str, version: &str, replicas: u32) -> Self {
        let spec = VersionSpec {
            version: version.to_owned(),
            command: vec![format!("/bin/{name}")],
            image: None,
            env: BTreeMap::new(),
            replicas,
        };
        {
            let mut inner = self.lock();
            inner.services.insert(
                name.to_owned(),
                Service {
                    stable: Some(version.to_owned()),
                    versions: BTreeMap::from([(version.to_owned(), spec)]),
                    hold: None,
                    weight: Timed::default(),
                    fault: Timed::default(),
                    instances: Vec::new(),
                    objectives: Objectives {
                        availability_ratio: Some(0.99),
                        latency_seconds: Some(0.3),
                        latency_ratio: Some(0.95),
                    },
                    depends_on: Vec::new(),
                    restart_delay: Duration::from_secs(1),
                    restarts: true,
                    source: None,
                    numbers: None,
                    usage: Vec::new(),
                    revision: 1,
                },
            );
            inner.settle(name, Instant::now(), true);
        }
        self
    }

    /// What the service promises.
    #[must_use]
    pub fn with_objectives(self, service: &str, objectives: Objectives) -> Self {
        self.edit(service, |s| s.objectives = objectives);
        self
    }

    /// The services that it calls.
    #[must_use]
    pub fn with_dependencies(self, service: &str, depends_on: &[&str]) -> Self {
        self.edit(service, |s| {
            s.depends_on = depends_on.iter().map(|name| (*name).to_owned()).collect();
        });
        self
    }

    /// How long a killed or new instance takes until it is ready; `None`: it never comes back.
    #[must_use]
    pub fn with_restart_delay(self, service: &str, delay: Option<Duration>) -> Self {
        self.edit(service, |s| {
            s.restarts = delay.is_some();
            s.restart_delay = delay.unwrap_or_default();
        });
        self
    }

    /// Where the service's counters come from: called at each [`Platform::traffic`].
    #[must_use]
    pub fn with_traffic(self, service: &str, source: impl FnMut(&TrafficView) -> Traffic + Send + 'static) -> Self {
        self.edit(service, |s| s.source = Some(Box::new(source)));
        self
    }

    /// What a Prometheus would answer: called at each [`Platform::number`] with the query.
    #[must_use]
    pub fn with_numbers(
        self,
        service: &str,
        numbers: impl FnMut(&TrafficView, &str) -> Option<f64> + Send + 'static,
    ) -> Self {
        self.edit(service, |s| s.numbers = Some(Box::new(numbers)));
        self
    }

    /// What its instances use.
    #[must_use]
    pub fn with_usage(self, service: &str, usage: Vec<Usage>) -> Self {
        self.edit(service, |s| s.usage = usage);
        self
    }

    /// The next `times` calls of the method `method` fail as unreachable.
    pub fn fail(&self, method: &str, times: u32) {
        self.lock().failures.insert(method.to_owned(), times);
    }

    /// After `changes` more calls that change anything, every call fails: the caller's process is as good as dead.
    /// `None` ends it.
    pub fn crash_after(&self, changes: Option<u32>) {
        let mut inner = self.lock();
        inner.crash_after = changes;
        inner.changes = 0;
    }

    /// Makes a process dead for [`Platform::holder_alive`].
    pub fn bury(&self, pid: u32) {
        self.lock().dead.insert(pid);
    }

    /// Kills an instance from outside, as a crash would.
    pub fn crash_instance(&self, service: &str, id: &str) {
        let now = Instant::now();
        let mut inner = self.lock();
        let pid = inner.next_pid();
        let s = inner.services.get_mut(service).expect("a service of this test");
        s.kill(id, now, pid);
    }

    fn edit(&self, service: &str, change: impl FnOnce(&mut Service)) {
        change(self.lock().services.get_mut(service).expect("a service of this test"));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless this call was to fail.
    fn enter(&self, method: &str, changes: bool) -> Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        let planned = inner.failures.get_mut(method).is_some_and(|left| {
            let fail = *left > 0;
            *left = left.saturating_sub(1);
            fail
        });
        let crashed = inner.crash_after.is_some_and(|limit| inner.changes >= limit);
        if planned || crashed {
            return Err(PlatformError::Unreachable {
                what: "the memory platform".to_owned(),
                source: format!("{method} was made to fail").into(),
            });
        }
        if changes {
            inner.changes += 1;
        }
        Ok(inner)
    }
}

impl Inner {
    fn next_pid(&mut self) -> u32 {
        self.next_pid += 1;
        self.next_pid
    }

    fn service(&mut self, name: &str) -> Result<&mut Service> {
        self.services
            .get_mut(name)
            .ok_or_else(|| PlatformError::UnknownService {
                service: name.to_owned(),
            })
    }

    fn check(&self, by: Option<&Fence>) -> Result<()> {
        match by {
            Some(fence) if !self.records.get(&fence.run).is_some_and(|record| record.admits(fence)) => {
                Err(PlatformError::Fenced { run: fence.run.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Starts and stops instances so that they match what is desired.
    fn settle(&mut self, name: &str, now: Instant, at_once: bool) {
        let mut pid = self.next_pid;
        let open = self.open_node();
        let Some(s) = self.services.get_mut(name) else { return };
        let held = s.hold.is_some();
        for (version, spec) in &s.versions {
            let want = if held { 0 } else { spec.replicas as usize };
            while s
                .instances
                .iter()
                .filter(|slot| slot.instance.version == *version)
                .count()
                < want
            {
                pid += 1;
                let number = (1..=s.instances.len() as u32 + 1)
                    .find(|n| s.instances.iter().all(|slot| slot.instance.id != format!("{name}-{n}")))
                    .expect("one more than there are is free");
                s.instances.push(Slot {
                    instance: instance(name, number, version, pid),
                    ready_at: s.restarts.then(|| if at_once { now } else { now + s.restart_delay }),
                    node: open.clone(),
                });
            }
            let mut kept = 0;
            s.instances.retain(|slot| {
                kept += usize::from(slot.instance.version == *version);
                slot.instance.version != *version || kept <= want
            });
        }
        s.instances
            .retain(|slot| s.versions.contains_key(&slot.instance.version));
        self.next_pid = pid;
    }
}

fn instance(service: &str, number: u32, version: &str, pid: u32) -> Instance {
    Instance {
        id: format!("{service}-{number}"),
        uid: format!("{pid}:{pid}"),
        service: service.to_owned(),
        version: version.to_owned(),
        ready: false,
        state: InstanceState::Starting,
        started_at: None,
        restarts: 0,
        pid: Some(pid),
        addresses: Addresses::default(),
        last_exit: None,
        last_end: None,
        labels: BTreeMap::new(),
    }
}

impl Service {
    fn kill(&mut self, id: &str, now: Instant, pid: u32) {
        let (restarts, delay) = (self.restarts, self.restart_delay);
        if let Some(slot) = self.instances.iter_mut().find(|slot| slot.instance.id == id) {
            slot.instance.uid = format!("{pid}:{pid}");
            slot.instance.pid = Some(pid);
            slot.instance.restarts += 1;
            slot.instance.last_exit = Some("killed by signal 9".to_owned());
            slot.instance.last_end = Some(End::Ended);
            slot.ready_at = restarts.then_some(now + delay);
        }
    }

    fn view(&self, name: &str, origin: Instant, now: Instant) -> TrafficView {
        TrafficView {
            elapsed: now - origin,
            fault: self.fault.at(now).cloned(),
            service: self.state(name, now, &|at| timestamp(origin, at)),
        }
    }

    fn state(&self, name: &str, now: Instant, at: &dyn Fn(Instant) -> Timestamp) -> ServiceState {
        let instances: Vec<Instance> = self
            .instances
            .iter()
            .map(|slot| {
                let ready = slot.ready_at.is_some_and(|ready| ready <= now);
                let mut instance = slot.instance.clone();
                instance.ready = ready;
                instance.state = match (ready, instance.restarts) {
                    (true, _) => InstanceState::Ready,
                    (false, 0) => InstanceState::Starting,
                    (false, _) => InstanceState::Backoff,
                };
                instance.started_at = slot.ready_at.filter(|_| ready).map(at);
                instance
            })
            .collect();
        let ready = |version: &str| instances.iter().filter(|i| i.ready && i.version == version).count() as u32;
        ServiceState {
            name: name.to_owned(),
            stable_version: self.stable.clone(),
            replicas: self
                .stable
                .as_ref()
                .and_then(|v| self.versions.get(v))
                .map_or(0, |spec| spec.replicas),
            versions: self
                .versions
                .values()
                .map(|spec| VersionState {
                    version: spec.version.clone(),
                    replicas: spec.replicas,
                    ready: ready(&spec.version),
                })
                .collect(),
            canary: self.weight.at(now).cloned(),
            hold: self.hold.clone(),
            objectives: self.objectives.clone(),
            front: Addresses::default(),
            health: Health::default(),
            probe: Some(Probe {
                http: "/health/ready".to_owned(),
                rate: "20/s".to_owned(),
            }),
            depends_on: self.depends_on.clone(),
            revision: self.revision,
            instances,
        }
    }

    fn get(&self, field: &Field, now: Instant) -> Result<Option<Value>> {
        let parts = field.parts();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(match parts.as_slice() {
            ["stable_version"] => self.stable.clone().map(Value::from),
            ["versions", version] => self.versions.get(*version).map(VersionSpec::value),
            ["versions", version, "replicas"] => self.versions.get(*version).map(|spec| spec.replicas.into()),
            ["canary"] => self
                .weight
                .at(now)
                .and_then(|w| Weight::value(&w.version, w.percent, &w.holder)),
            ["hold"] => self.hold.as_ref().map(Hold::value),
            ["fault"] => self.fault.at(now).map(Fault::value),
            _ => return Err(PlatformError::UnknownField { field: field.clone() }),
        })
    }

    fn set(&mut self, field: &Field, new: Option<&Value>, until: Instant) -> Result<()> {
        let invalid = |reason: &str| PlatformError::InvalidValue {
            field: field.clone(),
            reason: reason.to_owned(),
        };
        let parts = field.parts();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (parts.as_slice(), new) {
            (["stable_version"], Some(Value::String(version))) if self.versions.contains_key(version) => {
                self.stable = Some(version.clone());
            }
            (["stable_version"], _) => return Err(invalid("it must be a version that runs")),
            (["versions", version], None) => {
                if self.stable.as_deref() == Some(version) {
                    return Err(invalid("the stable version cannot be removed"));
                }
                self.versions.remove(*version);
            }
            (["versions", version], Some(value)) => {
                let spec: VersionSpec =
                    serde_json::from_value(value.clone()).map_err(|error| invalid(&error.to_string()))?;
                if spec.version != *version {
                    return Err(invalid("its version is not the field's"));
                }
                self.versions.insert((*version).to_owned(), spec);
            }
            (["versions", version, "replicas"], Some(value)) => {
                let replicas = value.as_u64().and_then(|n| u32::try_from(n).ok());
                let replicas = replicas.ok_or_else(|| invalid("it must be a small whole number"))?;
                self.versions
                    .get_mut(*version)
                    .ok_or_else(|| invalid("there is no such version"))?
                    .replicas = replicas;
            }
            (["versions", _, "replicas"], None) => return Err(invalid("it cannot be absent")),
            (["canary"], None) => self.weight = Timed::default(),
            (["canary"], Some(value)) => {
                let weight = serde_json::from_value(value.clone()).map_err(|error| invalid(&error.to_string()))?;
                self.weight = Timed::until(until, weight);
            }
            (["fault"], None) => self.fault = Timed::default(),
            (["fault"], Some(value)) => {
                let fault = serde_json::from_value(value.clone()).map_err(|error| invalid(&error.to_string()))?;
                self.fault = Timed::until(until, fault);
            }
            (["hold"], None) => self.hold = None,
            (["hold"], Some(value)) => {
                self.hold = Some(serde_json::from_value(value.clone()).map_err(|error| invalid(&error.to_string()))?);
            }
            _ => return Err(PlatformError::UnknownField { field: field.clone() }),
        }
        self.revision += 1;
        Ok(())
    }
}

/// How long a share set without a lease of its own lives.
const DEFAULT_WEIGHT_LEASE: Duration = Duration::from_secs(30);

fn unknown_service(field: &Field) -> PlatformError {
    PlatformError::UnknownField { field: field.clone() }
}

#[async_trait]
impl Platform for MemoryPlatform {
    async fn info(&self) -> Result<Info> {
        Ok(Info {
            kind: "memory".to_owned(),
            environment: "test".to_owned(),
            place: "memory".to_owned(),
        })
    }

    fn now(&self) -> Timestamp {
        timestamp(self.origin, Instant::now())
    }

    async fn services(&self) -> Result<Vec<String>> {
        Ok(self.enter("services", false)?.services.keys().cloned().collect())
    }

    async fn service(&self, name: &str) -> Result<ServiceState> {
        let origin = self.origin;
        let mut inner = self.enter("service", false)?;
        Ok(inner
            .service(name)?
            .state(name, Instant::now(), &|at| timestamp(origin, at)))
    }

    async fn get(&self, field: &Field) -> Result<Option<Value>> {
        let mut inner = self.enter("get", false)?;
        if let Some(node) = field.node() {
            return inner.node(node, field);
        }
        let service = field.service().ok_or_else(|| unknown_service(field))?;
        inner.service(service)?.get(field, Instant::now())
    }

    async fn compare_and_set(
        &self,
        by: Option<&Fence>,
        field: &Field,
        expect: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Cas> {
        let now = Instant::now();
        let mut inner = self.enter("compare_and_set", true)?;
        inner.check(by)?;
        if let Some(node) = field.node() {
            let actual = inner.node(node, field)?;
            if actual.as_ref() != expect {
                return Ok(Cas::Conflict { actual });
            }
            inner
                .nodes
                .closed
                .insert(node.to_owned(), new == Some(&Value::Bool(true)));
            return Ok(Cas::Applied);
        }
        let name = field.service().ok_or_else(|| unknown_service(field))?;
        let service = inner.service(name)?;
        let actual = service.get(field, now)?;
        if actual.as_ref() != expect {
            return Ok(Cas::Conflict { actual });
        }
        service.set(field, new, now + DEFAULT_WEIGHT_LEASE)?;
        inner.settle(name, now, false);
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
        let now = Instant::now();
        let field = Field::canary(service);
        let mut inner = self.enter("grant_weight", true)?;
        inner.check(Some(by))?;
        let s = inner.service(service)?;
        let actual = s.get(&field, now)?;
        if actual != Weight::value(version, expect_percent, &by.run) {
            return Ok(Cas::Conflict { actual });
        }
        if percent > 100 || !s.versions.contains_key(version) {
            let reason = "it must be 0 to 100 of a version that runs".to_owned();
            return Err(PlatformError::InvalidValue { field, reason });
        }
        s.set(&field, Weight::value(version, percent, &by.run).as_ref(), now + lease)?;
        Ok(Cas::Applied)
    }

    async fn renew_weight(&self, by: &Fence, service: &str, lease: Duration) -> Result<()> {
        let now = Instant::now();
        let mut inner = self.enter("renew_weight", true)?;
        inner.check(Some(by))?;
        let weight = &mut inner.service(service)?.weight;
        let lost = || PlatformError::WeightLost {
            service: service.to_owned(),
        };
        weight
            .prolong(now, lease, |weight| weight.holder == by.run)
            .ok_or_else(lost)
    }

    async fn renew_fault(&self, by: &Fence, field: &Field, ttl: Duration) -> Result<()> {
        let now = Instant::now();
        let mut inner = self.enter("renew_fault", true)?;
        inner.check(Some(by))?;
        let name = field.service().ok_or_else(|| unknown_service(field))?;
        let fault = &mut inner.service(name)?.fault;
        let lost = || PlatformError::FaultLost {
            object: field.object.clone(),
        };
        fault.prolong(now, ttl, |fault| fault.holder == by.run).ok_or_else(lost)
    }

    async fn kill(&self, by: &Fence, instance: &Instance, _mode: KillMode) -> Result<Timestamp> {
        let now = Instant::now();
        let mut inner = self.enter("kill", true)?;
        inner.check(Some(by))?;
        let pid = inner.next_pid();
        let service = inner.service(&instance.service)?;
        let present = service
            .instances
            .iter()
            .any(|slot| slot.instance.uid == instance.uid && slot.ready_at.is_some_and(|ready| ready <= now));
        if !present {
            return Err(PlatformError::Gone {
                instance: instance.id.clone(),
                uid: instance.uid.clone(),
            });
        }
        service.kill(&instance.id, now, pid);
        Ok(self.now())
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(self.enter("nodes", false)?.list_nodes())
    }

    async fn tenants(&self, node: &str) -> Result<Vec<Tenant>> {
        Ok(self.enter("tenants", false)?.tenants(node))
    }

    async fn evict(&self, by: &Fence, tenant: &Tenant) -> Result<Timestamp> {
        let mut inner = self.enter("evict", true)?;
        inner.check(Some(by))?;
        inner.evict(tenant, Instant::now())?;
        Ok(self.now())
    }

    async fn traffic(&self, service: &str) -> Result<Traffic> {
        let now = Instant::now();
        let origin = self.origin;
        let at = timestamp(origin, now);
        let mut inner = self.enter("traffic", false)?;
        let s = inner.service(service)?;
        let view = s.view(service, origin, now);
        Ok(match &mut s.source {
            Some(source) => source(&view),
            None => Traffic {
                at,
                boot_id: "memory".to_owned(),
                stable_version: s.stable.clone(),
                versions: Vec::new(),
                instances: Vec::new(),
                held_rejections: 0,
                unrouted_errors: 0,
                probe_held_rejections: 0,
                probe_unrouted_errors: 0,
            },
        })
    }

    async fn number(&self, service: &str, query: &str) -> Result<Option<f64>> {
        let now = Instant::now();
        let origin = self.origin;
        let mut inner = self.enter("number", false)?;
        let s = inner.service(service)?;
        let view = s.view(service, origin, now);
        match &mut s.numbers {
            Some(numbers) => Ok(numbers(&view, query)),
            None => Err(PlatformError::NoTraffic {
                service: service.to_owned(),
                why: "no Prometheus is configured".to_owned(),
            }),
        }
    }

    async fn usage(&self, service: &str) -> Result<Vec<Usage>> {
        Ok(self.enter("usage", false)?.service(service)?.usage.clone())
    }

    async fn create_record(&self, record: &RunRecord) -> Result<u64> {
        let mut inner = self.enter("create_record", true)?;
        if inner.records.contains_key(&record.id) {
            return Err(PlatformError::RecordExists { run: record.id.clone() });
        }
        let stored = RunRecord {
            revision: 1,
            updated_at: self.now(),
            ..record.clone()
        };
        inner.records.insert(record.id.clone(), stored);
        Ok(1)
    }

    async fn update_record(&self, record: &RunRecord) -> Result<u64> {
        let mut inner = self.enter("update_record", true)?;
        let stored = inner
            .records
            .get_mut(&record.id)
            .ok_or_else(|| PlatformError::RecordMissing { run: record.id.clone() })?;
        if stored.revision != record.revision {
            return Err(PlatformError::RecordConflict { run: record.id.clone() });
        }
        *stored = RunRecord {
            revision: record.revision + 1,
            updated_at: self.now(),
            ..record.clone()
        };
        Ok(stored.revision)
    }

    async fn record(&self, id: &str) -> Result<Option<RunRecord>> {
        Ok(self.enter("record", false)?.records.get(id).cloned())
    }

    async fn records(&self) -> Result<Vec<RunRecord>> {
        let mut records: Vec<_> = self.enter("records", false)?.records.values().cloned().collect();
        records.sort_by_key(|record| (record.started_at, record.id.clone()));
        Ok(records)
    }

    async fn acquire_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        let now = self.now();
        let mut inner = self.enter("acquire_lease", true)?;
        if let Some(lease) = inner.leases.get(name)
            && lease.holder != *holder
        {
            return Ok(LeaseOutcome::Held(lease.clone()));
        }
        Ok(LeaseOutcome::Acquired(inner.put_lease(name, holder, ttl, now)))
    }

    async fn replace_lease(&self, old: &Lease, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        let now = self.now();
        let mut inner = self.enter("replace_lease", true)?;
        if let Some(lease) = inner.leases.get(&old.name)
            && lease.revision != old.revision
        {
            return Ok(LeaseOutcome::Held(lease.clone()));
        }
        inner.leases.remove(&old.name);
        Ok(LeaseOutcome::Acquired(inner.put_lease(&old.name, holder, ttl, now)))
    }

    async fn renew_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<Lease> {
        let now = self.now();
        let mut inner = self.enter("renew_lease", true)?;
        match inner.leases.get(name) {
            Some(lease) if lease.holder == *holder => Ok(inner.put_lease(name, holder, ttl, now)),
            _ => Err(PlatformError::LeaseLost { name: name.to_owned() }),
        }
    }

    async fn release_lease(&self, name: &str, holder: &LeaseHolder) -> Result<()> {
        let mut inner = self.enter("release_lease", true)?;
        if inner.leases.get(name).is_some_and(|lease| lease.holder == *holder) {
            inner.leases.remove(name);
        }
        Ok(())
    }

    async fn lease(&self, name: &str) -> Result<Option<Lease>> {
        Ok(self.enter("lease", false)?.leases.get(name).cloned())
    }

    fn holder_alive(&self, holder: &LeaseHolder) -> Option<bool> {
        Some(!self.lock().dead.contains(&holder.pid))
    }
}

impl Inner {
    fn put_lease(&mut self, name: &str, holder: &LeaseHolder, ttl: Duration, now: Timestamp) -> Lease {
        self.revision += 1;
        let lease = Lease {
            name: name.to_owned(),
            holder: holder.clone(),
            acquired_at: self.leases.get(name).map_or(now, |lease| lease.acquired_at),
            renewed_at: now,
            expires_at: now + ttl,
            revision: self.revision,
        };
        self.leases.insert(name.to_owned(), lease.clone());
        lease
    }
}

fn timestamp(origin: Instant, at: Instant) -> Timestamp {
    let base = Timestamp::constant(1_767_225_600, 0);
    base + at.saturating_duration_since(origin)
}
