//! What is asked of any drill, and what is looked at before one may start. Nothing is done here.

use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::run::{RunError, RunRecord, lock};
use opsctl_platform::{Field, Instance, KillMode, Platform, PlatformError, ServiceState, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Kind;
use crate::condition::Condition;
use crate::expectation::Expected;
use crate::probe::ProbeSpec;

/// What every drill is told: on which service, and how it is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The service.
    pub service: String,
    /// How long the service is watched before.
    #[serde(rename = "steady_seconds", with = "seconds")]
    pub steady_for: Duration,
    /// How long the fault stays; after a blow: how long it is watched.
    #[serde(rename = "for_seconds", with = "seconds")]
    pub duration: Duration,
    /// How long the recovery may take; after a blow, if that is longer.
    #[serde(rename = "recovery_within_seconds", with = "seconds")]
    pub recovery_within: Duration,
    /// Time between two samples.
    #[serde(rename = "sample_seconds", with = "seconds")]
    pub sample_every: Duration,
    /// Send the service's probe.
    pub send_probe: bool,
    /// What is sent; chosen by [`survey`] from the service's `probe` and front door unless given.
    pub probe: Option<ProbeSpec>,
    /// Services that are watched beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
    /// What else must hold before, and again afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The Prometheus that conditions ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<String>,
    /// Alerts that it must make fire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<Expected>,
    /// The Alertmanager that they have to reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alertmanager: Option<String>,
    /// Names of leases that the run needs beside that of the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
}

/// A service that is watched beside the one that is drilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its name.
    pub service: String,
    /// What it is sent.
    pub probe: Option<ProbeSpec>,
}

/// What is sent to a service that declares no probe.
const DEFAULT_RATE: &str = "20/s";

impl Terms {
    /// Watched for 5 s before and 30 s after, with the service's probe.
    pub fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            steady_for: Duration::from_secs(5),
            duration: Duration::from_secs(30),
            recovery_within: Duration::from_mins(1),
            sample_every: Duration::from_millis(250),
            send_probe: true,
            probe: None,
            others: Vec::new(),
            conditions: Vec::new(),
            prometheus: None,
            expected: Vec::new(),
            alertmanager: None,
            locks: Vec::new(),
        }
    }

    /// How long it may last at the most before it is undone: an alert that is expected may take longer than what was asked for.
    pub fn lasts_at_most(&self) -> Duration {
        let alerts = self.expected.iter().map(|expected| expected.within);
        alerts.fold(self.duration, Duration::max)
    }

    /// Every service that is watched and what it is sent; first the one that is drilled.
    pub fn watched(&self) -> impl Iterator<Item = (&str, Option<&ProbeSpec>)> {
        let others = self.others.iter();
        std::iter::once((self.service.as_str(), self.probe.as_ref()))
            .chain(others.map(|other| (other.service.as_str(), other.probe.as_ref())))
    }
}

/// The specification of one drill, as stored in its record: what every drill is told, and what its kind is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec<F> {
    /// What every drill is told.
    #[serde(flatten)]
    pub terms: Terms,
    /// What this kind is told.
    #[serde(flatten)]
    pub fault: F,
}

/// What a drill would do, schema `opsctl.drill-plan/v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan<F> {
    /// `opsctl.drill-plan/v1`.
    pub schema: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The specification, complete; also the `spec` of the run's record.
    pub spec: Spec<F>,
    /// Ready instances now.
    pub ready: u32,
    /// Ready instances right after the fault.
    pub ready_after: u32,
    /// What would be changed, in order.
    pub mutations: Vec<Mutation>,
    /// What is worth knowing before, one line each.
    pub notes: Vec<String>,
}

/// One change that a drill makes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mutation {
    /// What is done, in words.
    pub does: String,
    /// How it is undone, in words; absent where there is nothing to undo.
    pub undo: Option<String>,
    /// Whether the platform would do it: absent before it was asked.
    pub accepted: Option<bool>,
    /// Why it would not.
    pub refusal: Option<String>,
    #[serde(skip)]
    change: Change,
}

/// What a mutation is for a platform.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Field(Field, Option<Value>),
    Kill(Box<Instance>, KillMode),
}

impl Mutation {
    fn of(does: String, undo: Option<String>, change: Change) -> Self {
        Self {
            does,
            undo,
            accepted: None,
            refusal: None,
            change,
        }
    }

    /// A field is set, and set back.
    pub fn set(field: Field, new: Value, before: Option<&Value>) -> Self {
        let back = before.map_or_else(|| "absent".to_owned(), Value::to_string);
        let does = format!("sets {field} to {new}");
        Self::of(
            does,
            Some(format!("{field} is {back} again")),
            Change::Field(field, Some(new)),
        )
    }

    /// An instance is killed.
    pub fn kill(instance: &Instance, mode: KillMode) -> Self {
        let how = match mode {
            KillMode::Evict { .. } => "evicts",
            KillMode::Delete { .. } => "deletes",
            KillMode::Container => "ends the main container of",
        };
        let does = format!("{how} {} ({})", instance.id, instance.uid);
        Self::of(does, None, Change::Kill(Box::new(instance.clone()), mode))
    }

    /// A tenant is evicted.
    pub fn evict(tenant: &Tenant) -> Self {
        let does = format!("evicts {} ({})", tenant.name, tenant.uid);
        let field = Field::new(format!("instance/{}", tenant.name), "");
        Self {
            does,
            ..Self::of(String::new(), None, Change::Field(field, None))
        }
    }

    /// Asks the platform whether it would do it.
    async fn rehearse(&mut self, platform: &dyn Platform) {
        let asked = match &self.change {
            // What a budget allows is known when it is asked for.
            Change::Field(_, None) => return,
            Change::Field(field, new) => match platform.get(field).await {
                Ok(now) => platform
                    .rehearse(field, now.as_ref(), new.as_ref())
                    .await
                    .map(|cas| cas.applied()),
                Err(error) => Err(error),
            },
            Change::Kill(instance, mode) => platform.rehearse_kill(instance, *mode).await.map(|()| true),
        };
        self.accepted = Some(matches!(asked, Ok(true)));
        self.refusal = asked.err().map(|error| error.to_string());
    }
}

impl<F> Plan<F> {
    /// The same with what would be changed.
    #[must_use]
    pub fn with(mut self, mutations: impl IntoIterator<Item = Mutation>) -> Self {
        self.mutations.extend(mutations);
        self
    }

    /// Asks the platform, for every change, whether it would make it. Nothing is changed.
    pub async fn rehearse(&mut self, platform: &dyn Platform) {
        for mutation in &mut self.mutations {
            mutation.rehearse(platform).await;
        }
    }

    /// A plan of `kind` over what was found.
    pub fn new(kind: Kind, terms: Terms, fault: F, ground: Ground, ready_after: u32) -> Self {
        Self {
            schema: "opsctl.drill-plan/v1",
            kind,
            ready: ground.ready,
            ready_after,
            mutations: Vec::new(),
            notes: needs(&ground, &terms).into_iter().chain(ground.notes).collect(),
            spec: Spec { terms, fault },
        }
    }
}

impl<F: Serialize> Plan<F> {
    /// A record for the drill, not stored yet; the caller adds actor, reason and environment.
    pub fn record(&self, id: &str, now: Timestamp) -> RunRecord {
        let spec = serde_json::to_value(&self.spec).expect("a struct of strings and finite numbers is JSON");
        let service = &self.spec.terms.service;
        let mut record = RunRecord::new(id, self.kind.record_kind(), format!("service/{service}"), spec, now);
        record.locks = vec![lock::name_for_service(service)];
        record.locks.extend(self.spec.terms.locks.iter().cloned());
        record
    }
}

/// Why a drill may not be started.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nothing to kill.
    #[error("at least one instance has to be killed")]
    NoneToKill,
    /// No ready instance has those labels.
    #[error("no ready instance of `{service}` has {selector}")]
    NoneMatch {
        /// The service.
        service: String,
        /// The labels, as `key=value`.
        selector: String,
    },
    /// The guard: no instance would be left.
    #[error("`{service}` has {ready} ready {}: killing {count} would leave none", if *ready == 1 { "instance" } else { "instances" })]
    LastInstance {
        /// The service.
        service: String,
        /// Ready instances.
        ready: u32,
        /// How many were to be killed.
        count: u32,
    },
    /// The service is not whole: a drill would only make it worse and show nothing.
    #[error("`{service}` has {ready} of {desired} instances ready: it is not in steady state")]
    NotReady {
        /// The service.
        service: String,
        /// Ready instances.
        ready: u32,
        /// Desired instances.
        desired: u32,
    },
    /// The service is held down.
    #[error("`{service}` is held down: {reason}")]
    Held {
        /// The service.
        service: String,
        /// Why.
        reason: String,
    },
    /// The service is locked by another run.
    #[error("`{service}` is locked by run {run}")]
    Locked {
        /// The service.
        service: String,
        /// That run.
        run: String,
    },
    /// What was asked for cannot be done.
    #[error("{why}")]
    Unfit {
        /// Why.
        why: String,
    },
    /// It cannot be done here, or not now.
    #[error("{why}")]
    Impossible {
        /// Why.
        why: String,
    },
    /// Data would be lost.
    #[error("`{tenant}` keeps data on the node, which would be lost")]
    LocalData {
        /// What has the data.
        tenant: String,
    },
    /// A condition asks a Prometheus, and none is known.
    #[error("no Prometheus is known that could be asked")]
    NoPrometheus,
    /// The service does not call that one.
    #[error("`{service}` does not depend on `{dependency}`")]
    NoDependency {
        /// The service.
        service: String,
        /// What it was said to call.
        dependency: String,
    },
    /// Another run plays a fault there.
    #[error("`{object}` has a fault of run {run}")]
    Faulted {
        /// What it is played on.
        object: String,
        /// That run.
        run: String,
    },
    /// Nothing there plays faults.
    #[error("nothing here can play faults on `{object}`")]
    NoFaults {
        /// What it was to be played on.
        object: String,
    },
    /// Nobody would see whether it had an effect.
    #[error("nobody would see the effect on `{service}`: {why}")]
    Unseen {
        /// The service.
        service: String,
        /// Why.
        why: String,
    },
    /// The platform failed.
    #[error("the platform failed")]
    Platform(#[from] PlatformError),
    /// The lock could not be asked.
    #[error("the lock of the service cannot be read")]
    Lock(#[source] RunError),
}

/// A service as it was found before a drill.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The service.
    pub state: ServiceState,
    /// Ready instances of its stable version.
    pub ready: u32,
    /// What is worth knowing, one line each.
    pub notes: Vec<String>,
}

impl Ground {
    /// The ready instances of the stable version.
    pub fn candidates(&self) -> impl Iterator<Item = &Instance> {
        let stable = self.state.stable_version.as_ref();
        self.state
            .ready()
            .filter(move |instance| Some(&instance.version) == stable)
    }

    /// Refuses a service that is not whole.
    pub fn whole(&self) -> Result<(), PlanError> {
        if self.ready < self.state.replicas {
            return Err(PlanError::NotReady {
                service: self.state.name.clone(),
                ready: self.ready,
                desired: self.state.replicas,
            });
        }
        Ok(())
    }
}

/// Looks at the service that is to be drilled: whether anybody else works on it, and what its probe is.
pub async fn survey(platform: &dyn Platform, terms: &mut Terms) -> Result<Ground, PlanError> {
    if terms.prometheus.is_none() && terms.conditions.iter().any(Condition::needs_prometheus) {
        return Err(PlanError::NoPrometheus);
    }
    let state = platform.service(&terms.service).await?;
    unlocked(platform, &terms.service).await?;
    let service = || terms.service.clone();
    if let Some(hold) = &state.hold {
        return Err(PlanError::Held {
            service: service(),
            reason: hold.reason.clone(),
        });
    }
    let mut notes = Vec::new();
    if !terms.send_probe {
        terms.probe = None;
        notes.push("no probe is sent: without other traffic nothing can be concluded".to_owned());
    } else if terms.probe.is_none() {
        terms.probe = probe_of(&state);
        if terms.probe.is_none() {
            notes.push("the service has no HTTP front door to probe".to_owned());
        }
    }
    let mut ground = Ground { state, ready: 0, notes };
    ground.ready = ground.candidates().count() as u32;
    Ok(ground)
}

/// What a verdict needs, if the objectives say.
fn needs(ground: &Ground, terms: &Terms) -> Option<String> {
    let allowed = 1.0 - ground.state.objectives.availability_ratio?;
    if allowed <= 0.0 || allowed >= 1.0 {
        return None;
    }
    let needed = (1.0 / allowed).ceil() as u64;
    let watched = (terms.lasts_at_most() + terms.recovery_within).as_secs();
    Some(format!(
        "with fewer than {needed} requests a single error fails it; it is watched for {watched} s at the most"
    ))
}

/// Refuses a service that another run works on.
async fn unlocked(platform: &dyn Platform, service: &str) -> Result<String, PlanError> {
    let name = lock::name_for_service(service);
    match lock::busy(platform, &name).await.map_err(PlanError::Lock)? {
        None => Ok(name),
        Some(lease) => Err(PlanError::Locked {
            service: service.to_owned(),
            run: lease.holder.run,
        }),
    }
}

/// Has the run lock another service, too; refuses one that another run works on.
pub async fn also_lock(platform: &dyn Platform, service: &str, terms: &mut Terms) -> Result<(), PlanError> {
    let name = unlocked(platform, service).await?;
    terms.locks.push(name);
    Ok(())
}

/// The services that call `service`, each with what it is sent meanwhile; not the one that is drilled.
pub async fn dependants(platform: &dyn Platform, service: &str, terms: &Terms) -> Result<Vec<Other>, PlanError> {
    let mut found = Vec::new();
    for name in platform.services().await? {
        let state = platform.service(&name).await?;
        if name != terms.service && state.depends_on.iter().any(|called| called == service) {
            found.push(other(&state, terms));
        }
    }
    Ok(found)
}

/// A service to be watched beside the one that is drilled.
pub async fn beside(platform: &dyn Platform, service: &str, terms: &Terms) -> Result<Other, PlanError> {
    Ok(other(&platform.service(service).await?, terms))
}

fn other(state: &ServiceState, terms: &Terms) -> Other {
    Other {
        service: state.name.clone(),
        probe: probe_of(state).filter(|_| terms.send_probe),
    }
}

/// What a service is sent when nobody else sends it anything; none when it has no HTTP front door.
fn probe_of(state: &ServiceState) -> Option<ProbeSpec> {
    let declared = state.probe.as_ref();
    let path = declared.map(|probe| &probe.http).or(state.health.http.as_ref())?;
    let (door, host) = state.front.door()?;
    Some(ProbeSpec {
        url: format!("{door}{path}"),
        host,
        rate: declared.map_or_else(|| DEFAULT_RATE.to_owned(), |probe| probe.rate.clone()),
    })
}

/// Durations as seconds in JSON.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
