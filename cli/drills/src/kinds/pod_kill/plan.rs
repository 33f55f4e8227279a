//! Who would be killed, and whether that may be: checked, named, nothing done.

use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::run::{RunError, RunRecord, lock};
use opsctl_platform::{Instance, Platform, PlatformError};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::probe::ProbeSpec;

/// An instance that will be killed: this very process and no successor of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Its name.
    pub instance: String,
    /// The process or pod.
    pub uid: String,
    /// The version that it runs.
    pub version: String,
}

/// The specification of one drill, as stored in its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The service.
    pub service: String,
    /// How many instances are killed at once.
    pub count: u32,
    /// Who; chosen by [`plan`].
    #[serde(default)]
    pub victims: Vec<Victim>,
    /// How long the service is watched before.
    #[serde(rename = "steady_seconds", with = "seconds")]
    pub steady_for: Duration,
    /// How long it is watched after the kill.
    #[serde(rename = "for_seconds", with = "seconds")]
    pub duration: Duration,
    /// How long the recovery may take, if that is longer.
    #[serde(rename = "recovery_within_seconds", with = "seconds")]
    pub recovery_within: Duration,
    /// Time between two samples.
    #[serde(rename = "sample_seconds", with = "seconds")]
    pub sample_every: Duration,
    /// Send the service's probe.
    pub send_probe: bool,
    /// What is sent; chosen by [`plan`] from the service's `probe` and front door unless given.
    pub probe: Option<ProbeSpec>,
}

/// What is sent to a service that declares no probe.
const DEFAULT_RATE: &str = "20/s";

impl Spec {
    /// One instance, watched for 5 s before and 30 s after, with the service's probe.
    pub fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            count: 1,
            victims: Vec::new(),
            steady_for: Duration::from_secs(5),
            duration: Duration::from_secs(30),
            recovery_within: Duration::from_mins(1),
            sample_every: Duration::from_millis(250),
            send_probe: true,
            probe: None,
        }
    }
}

/// Why a drill may not be started.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nothing to kill.
    #[error("at least one instance has to be killed")]
    NoneToKill,
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
    /// The platform failed.
    #[error("the platform failed")]
    Platform(#[from] PlatformError),
    /// The lock could not be asked.
    #[error("the lock of the service cannot be read")]
    Lock(#[source] RunError),
}

/// What a drill would do, schema `opsctl.drill-plan/v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// `opsctl.drill-plan/v1`.
    pub schema: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The specification with the victims; also the `spec` of the run's record.
    pub spec: Spec,
    /// Ready instances now.
    pub ready: u32,
    /// Ready instances right after the kill.
    pub ready_after: u32,
    /// What is worth knowing before, one line each.
    pub notes: Vec<String>,
}

/// Chooses the victims, at random among the ready instances of the stable version, and checks the guards.
pub async fn plan(platform: &dyn Platform, mut spec: Spec) -> Result<Plan, PlanError> {
    let state = platform.service(&spec.service).await?;
    let service = || spec.service.clone();
    if spec.count == 0 {
        return Err(PlanError::NoneToKill);
    }
    if let Some(lease) = lock::busy(platform, &lock::name_for_service(&spec.service))
        .await
        .map_err(PlanError::Lock)?
    {
        return Err(PlanError::Locked {
            service: service(),
            run: lease.holder.run,
        });
    }
    if let Some(hold) = state.hold {
        return Err(PlanError::Held {
            service: service(),
            reason: hold.reason,
        });
    }
    let mut candidates: Vec<&Instance> = state
        .instances
        .iter()
        .filter(|instance| instance.ready && Some(&instance.version) == state.stable_version.as_ref())
        .collect();
    let ready = candidates.len() as u32;
    if ready <= spec.count {
        return Err(PlanError::LastInstance {
            service: service(),
            ready,
            count: spec.count,
        });
    }
    if ready < state.replicas {
        return Err(PlanError::NotReady {
            service: service(),
            ready,
            desired: state.replicas,
        });
    }
    candidates.shuffle(&mut rand::rng());
    spec.victims = candidates
        .into_iter()
        .take(spec.count as usize)
        .map(|instance| Victim {
            instance: instance.id.clone(),
            uid: instance.uid.clone(),
            version: instance.version.clone(),
        })
        .collect();
    let mut notes = Vec::new();
    if !spec.send_probe {
        spec.probe = None;
        notes.push("no probe is sent: without other traffic nothing can be concluded".to_owned());
    } else if spec.probe.is_none() {
        let path = state
            .probe
            .as_ref()
            .map(|probe| probe.http.clone())
            .or(state.health.http);
        let rate = state.probe.map_or_else(|| DEFAULT_RATE.to_owned(), |probe| probe.rate);
        match (state.front.http, path) {
            (Some(address), Some(path)) => {
                spec.probe = Some(ProbeSpec {
                    url: format!("http://{address}{path}"),
                    rate,
                });
            }
            _ => notes.push("the service has no HTTP front door to probe".to_owned()),
        }
    }
    Ok(Plan {
        schema: "opsctl.drill-plan/v1",
        kind: Kind::PodKill,
        ready,
        ready_after: ready - spec.count,
        notes,
        spec,
    })
}

/// A record for a drill, not stored yet; the caller adds actor, reason and environment.
pub fn record(id: &str, spec: &Spec, now: Timestamp) -> RunRecord {
    let value = serde_json::to_value(spec).expect("a struct of strings and finite numbers is JSON");
    let target = format!("service/{}", spec.service);
    let mut record = RunRecord::new(id, Kind::PodKill.record_kind(), target, value, now);
    record.locks = vec![lock::name_for_service(&spec.service)];
    record
}

/// Durations as seconds in JSON.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
