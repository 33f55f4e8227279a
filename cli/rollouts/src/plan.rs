//! What a canary would do and whether it may: checked against the platform, changing nothing.

use crate::analysis::bound;
use crate::forecast::{Present, StepForecast, forecast};
use crate::schedule::ScheduleError;
use crate::spec::Spec;
use opsctl_platform::run::{RunError, lock};
use opsctl_platform::{Field, Platform, PlatformError, Weight};
use serde::Serialize;
use serde_json::Value;

/// Why a canary cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The steps cannot be used.
    #[error("the steps cannot be used")]
    Schedule(#[from] ScheduleError),
    /// The service has no stable version to compare with.
    #[error("`{service}` has no stable version: start it first")]
    NoStable {
        /// The service.
        service: String,
    },
    /// The stable version is another one than the one that the specification was made for.
    #[error("`{service}` runs {actual} as its stable version, not {expected}")]
    StableChanged {
        /// The service.
        service: String,
        /// What the specification says.
        expected: String,
        /// What runs.
        actual: String,
    },
    /// The stable version is not whole: a comparison with it would be worth nothing, and it could not take the traffic back.
    #[error("the stable version of `{service}` has {ready} of {desired} instances ready")]
    StableNotReady {
        /// The service.
        service: String,
        /// Ready instances.
        ready: u32,
        /// Desired instances.
        desired: u32,
    },
    /// A criterion of the service cannot be asked.
    #[error("the criterion `{name}` of `{service}` cannot be asked")]
    Criterion {
        /// The service.
        service: String,
        /// The criterion.
        name: String,
        /// What is wrong with its query.
        #[source]
        source: PlatformError,
    },
    /// The service is held down.
    #[error("`{service}` is held down: {reason}")]
    Held {
        /// The service.
        service: String,
        /// Why.
        reason: String,
    },
    /// Another canary of the service has a share.
    #[error("`{service}` has a canary already: {version} at {percent} % (run {run})")]
    CanaryExists {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// Its share.
        percent: u8,
        /// Its run.
        run: String,
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

/// One change that the run will make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What is changed.
    pub field: String,
    /// What it is now.
    pub before: Option<Value>,
    /// What it will be.
    pub after: Option<Value>,
    /// What it is for, in words.
    pub what: String,
}

/// What a canary would do, schema `opsctl.canary-plan/v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// `opsctl.canary-plan/v1`.
    pub schema: &'static str,
    /// The specification; also the `spec` of the run's record.
    pub spec: Spec,
    /// True when the version is the stable one already: nothing to do.
    pub nothing_to_do: bool,
    /// The changes in order, undone backwards.
    pub changes: Vec<Change>,
    /// About how many canary requests a pass needs with 0, 1 and 2 errors; empty when the objective allows none.
    pub requests_for_a_pass: Vec<u64>,
    /// The traffic that there is; absent when it was not measured, or nobody can tell.
    pub traffic: Option<Present>,
    /// What each step needs for a verdict, in order.
    pub steps: Vec<StepForecast>,
    /// Versions that run beside the stable one and belong to no run; they are taken away at the start.
    pub leftovers: Vec<String>,
}

/// Checks a specification against the platform and says what would be done.
pub async fn plan(platform: &dyn Platform, spec: Spec) -> Result<Plan, PlanError> {
    spec.schedule.check()?;
    let state = platform.service(&spec.service).await?;
    let service = || spec.service.clone();
    let Some(stable) = state.stable_version.clone() else {
        return Err(PlanError::NoStable { service: service() });
    };
    if stable == spec.version.version {
        return Ok(Plan::of(spec, true, Vec::new()));
    }
    if stable != spec.stable {
        return Err(PlanError::StableChanged {
            service: service(),
            expected: spec.stable.clone(),
            actual: stable,
        });
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
    if let Some(weight) = state.canary {
        return Err(PlanError::CanaryExists {
            service: service(),
            version: weight.version,
            percent: weight.percent,
            run: weight.holder,
        });
    }
    let ready = state
        .instances
        .iter()
        .filter(|i| i.ready && i.version == stable)
        .count() as u32;
    if state.replicas == 0 || ready < state.replicas {
        return Err(PlanError::StableNotReady {
            service: service(),
            ready,
            desired: state.replicas,
        });
    }
    // A mistake in a query is told now; that nobody answers is the judge's business.
    for criterion in &spec.criteria {
        if let Err(source @ PlatformError::Refused { .. }) = platform.number(&spec.service, &criterion.query).await {
            return Err(PlanError::Criterion {
                service: service(),
                name: criterion.name.clone(),
                source,
            });
        }
    }
    let leftovers: Vec<String> = state
        .versions
        .into_iter()
        .map(|v| v.version)
        .filter(|v| *v != stable)
        .collect();
    Ok(Plan::of(spec, false, leftovers))
}

impl Plan {
    /// Asks the platform whether it would take every change, and changes nothing: what cannot be is told before anything is
    /// made, and not by a canary that waits for its share.
    ///
    /// Errors: [`PlanError::Platform`] with what the platform says.
    pub async fn rehearse(&self, platform: &dyn Platform) -> Result<(), PlanError> {
        if self.nothing_to_do {
            return Ok(());
        }
        let Spec { service, version, .. } = &self.spec;
        // Whoever changes something meanwhile is met by the run's own compare-and-set.
        //
        // What is left of another canary stands where this one will, until the run takes it away.
        if self.leftovers.is_empty() {
            let field = Field::version(service, &version.version);
            let _ = platform.rehearse(&field, None, Some(&version.value())).await?;
        }
        for step in &self.spec.schedule.steps {
            let share = Weight::value(&version.version, step.percent, "rehearsal");
            let _ = platform.rehearse(&Field::canary(service), None, share.as_ref()).await?;
        }
        Ok(())
    }

    fn of(spec: Spec, nothing_to_do: bool, leftovers: Vec<String>) -> Self {
        let changes = if nothing_to_do { Vec::new() } else { changes(&spec) };
        let needs = |bad| bound::requests_needed(spec.errors_allowed_ratio, bad, spec.settings.pass_alpha);
        Self {
            schema: "opsctl.canary-plan/v1",
            nothing_to_do,
            changes,
            requests_for_a_pass: (0..3).filter_map(needs).collect(),
            traffic: None,
            steps: forecast(&spec, None),
            leftovers,
            spec,
        }
    }

    /// The same plan with times, at the traffic that there is.
    #[must_use]
    pub fn at(self, traffic: Option<Present>) -> Self {
        Self {
            steps: forecast(&self.spec, traffic.as_ref()),
            traffic,
            ..self
        }
    }
}

fn changes(spec: &Spec) -> Vec<Change> {
    let (service, version) = (&spec.service, &spec.version.version);
    let change = |field: Field, before, after, what: String| Change {
        field: field.to_string(),
        before,
        after,
        what,
    };
    let mut changes = vec![change(
        Field::version(service, version),
        None,
        Some(spec.version.value()),
        format!("start {} instances of {version} without traffic", spec.version.replicas),
    )];
    let mut before = None;
    for step in &spec.schedule.steps {
        let after = Some(Value::from(step.percent));
        let what = format!(
            "send {} % of the traffic to {version} for {}",
            step.percent,
            humantime::format_duration(step.duration)
        );
        changes.push(change(Field::canary(service), before, after.clone(), what));
        before = after;
    }
    if spec.schedule.promote {
        changes.push(change(
            Field::stable_version(service),
            Some(spec.stable.clone().into()),
            Some(version.clone().into()),
            format!(
                "on a pass, make {version} the stable version and keep {} for {}",
                spec.stable,
                humantime::format_duration(spec.bake)
            ),
        ));
    }
    changes
}
