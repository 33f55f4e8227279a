//! The end of a promotion: the stable Deployment takes the new version, gets the traffic back when it has its capacity, and
//! the canary goes. Every step may have been done by a worker that was lost, and none is without a way on.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::time::Instant;

use super::manifest::{self, SPEC};
use super::{Both, both, conflict, container, delete, described, json, names};
use crate::kube::edit::{Change, Patch, Target};
use crate::kube::state::Desired;
use crate::kube::{KubePlatform, Workload, split, traffic};
use crate::{Cas, Fence, Field, PlatformError, Result};

/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// How long a roll-out may take: what Deployments themselves allow by default.
const ROLL_OUT: Duration = Duration::from_mins(10);
/// Gateways take new weights in within seconds; no pod goes before.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the last requests of the canary are waited for.
const DRAIN: Duration = Duration::from_mins(1);

/// Takes the old version away for good. `field` is its [`Field::version`](crate::Field::version).
pub(super) async fn finish(
    platform: &KubePlatform,
    by: Option<&Fence>,
    workload: &Workload,
    field: &Field,
    dry_run: bool,
) -> Result<Cas> {
    let found = both(platform, workload).await?;
    let (stable, canary, service) = names(workload);
    let (Some(new), Some(old), Some(of_canary)) = (found.noted(SPEC), old_version(field), &found.canary) else {
        return Ok(conflict(None));
    };
    let refused = |why: String| PlatformError::Refused {
        what: format!(
            "the roll-out of version {} to Deployment `{}`",
            new.version, stable.name
        ),
        why,
    };

    // The stable Deployment takes the new version.
    let (from, to) = (Value::from(old), Value::from(new.version.as_str()));
    let change = Change {
        by,
        field,
        expect: Some(&from),
        new: Some(&to),
        dry_run,
    };
    let read = |object: &DynamicObject| described(workload, object).map(|spec| Value::from(spec.version));
    let write = |object: &DynamicObject, patch: &mut Patch<'_>| {
        let values = manifest::promotion(&json(object), &json(of_canary), &container(workload, object), &new);
        for (pointer, value) in values.map_err(refused)? {
            patch.set(&pointer, value);
        }
        Ok(())
    };
    match platform.edit(&stable, &change, read, write).await? {
        Cas::Conflict { actual } if actual.as_ref() != Some(&to) => return Ok(Cas::Conflict { actual }),
        _ if dry_run => return Ok(Cas::Applied),
        _ => {}
    }
    rolled_out(platform, workload).await?;

    // It has its capacity: the traffic goes back to it.
    platform.admit(by).await?;
    if split::read(platform, workload).await?.stable_version.is_some() {
        let version = Some(new.version.as_str());
        let cas = split::set_stable(platform, by, workload, version, version, false).await?;
        if !cas.applied() {
            return Ok(cas);
        }
    }
    idle(platform, workload, &found).await;

    platform.admit(by).await?;
    delete(platform, &service, false).await?;
    delete(platform, &canary, false).await?;
    Ok(Cas::Applied)
}

fn old_version(field: &Field) -> Option<String> {
    field.parts().into_iter().nth(1)
}

/// Waits until every pod of the stable Deployment is of its present template and available.
async fn rolled_out(platform: &KubePlatform, workload: &Workload) -> Result<()> {
    let what = format!("the roll-out of Deployment `{}`", workload.deployment);
    let until = Instant::now() + ROLL_OUT;
    loop {
        let deployment = platform.deployment(workload, &workload.deployment).await?;
        let deployment = deployment.ok_or_else(|| PlatformError::Missing {
            what: format!(
                "Deployment `{}` in namespace `{}`",
                workload.deployment, workload.namespace
            ),
        })?;
        if is_rolled_out(&deployment) {
            return Ok(());
        }
        if let Some(why) = stuck(&deployment) {
            return Err(PlatformError::Refused { what, why });
        }
        if Instant::now() >= until {
            return Err(PlatformError::TimedOut { what, limit: ROLL_OUT });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a service's pods are as its stable Deployment says.
pub(super) async fn stable_is_rolled_out(platform: &KubePlatform, workload: &Workload) -> Result<bool> {
    let target = Target::of::<Deployment>(&workload.namespace, &workload.deployment);
    let object = platform.read(&target).await?;
    let deployment = object.and_then(|object| object.try_parse::<Deployment>().ok());
    let deployment = deployment.ok_or_else(|| PlatformError::Missing {
        what: format!(
            "Deployment `{}` in namespace `{}`",
            workload.deployment, workload.namespace
        ),
    })?;
    match stuck(&deployment) {
        _ if is_rolled_out(&deployment) => Ok(true),
        Some(why) => Err(PlatformError::Refused {
            what: format!("the roll-out of `{}`", workload.deployment),
            why,
        }),
        None => Ok(false),
    }
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = Desired::of(deployment, None).replicas;
    let Some(status) = &deployment.status else {
        return wanted == 0;
    };
    let is = |count: Option<i32>| count.unwrap_or_default().unsigned_abs();
    status.observed_generation >= deployment.metadata.generation
        && is(status.updated_replicas) >= wanted
        && is(status.replicas) <= is(status.updated_replicas)
        && is(status.available_replicas) >= wanted
}

/// Why a roll-out will not come to its end by itself, in the controller's words.
fn stuck(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_deref()?;
    let failed = conditions
        .iter()
        .find(|one| one.type_ == "Progressing" && one.reason.as_deref() == Some("ProgressDeadlineExceeded"))?;
    let current = deployment.status.as_ref()?.observed_generation >= deployment.metadata.generation;
    current.then(|| failed.message.clone().unwrap_or_default())
}

/// Waits until the canary's pods get no requests, as far as somebody counts them.
async fn idle(platform: &KubePlatform, workload: &Workload, found: &Both) {
    tokio::time::sleep(SETTLE).await;
    let Some(canary) = found.canary.as_ref().and_then(|canary| canary.metadata.name.as_deref()) else {
        return;
    };
    let of_canary = format!("{canary}-");
    let until = Instant::now() + DRAIN;
    while Instant::now() < until {
        match traffic::read(platform, workload).await {
            Ok(traffic) => {
                let mut pods = traffic
                    .instances
                    .iter()
                    .filter(|one| one.instance.starts_with(&of_canary));
                if pods.all(|one| one.counts.in_flight == 0) {
                    return;
                }
            }
            // Nobody counts: the time above, and the pods' own grace, must do.
            Err(PlatformError::NoTraffic { .. } | PlatformError::Refused { .. }) => return,
            Err(_) => {}
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "generation": 3 },
            "spec": { "replicas": 2, "selector": {}, "template": {} },
            "status": status,
        }))
        .expect("a Deployment")
    }

    #[test]
    fn a_roll_out_is_over_when_all_pods_are_new_and_available() {
        let status = json!({ "observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2 });
        assert!(is_rolled_out(&deployment(&status)));
        for (key, value) in [
            ("observedGeneration", 2),
            ("replicas", 3),
            ("updatedReplicas", 1),
            ("availableReplicas", 1),
        ] {
            let mut status = status.clone();
            status[key] = value.into();
            assert!(!is_rolled_out(&deployment(&status)), "{key}");
        }
    }

    #[test]
    fn a_roll_out_that_is_stuck_says_why() {
        let mut status = json!({ "observedGeneration": 3, "conditions": [{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"orders-5\" has timed out progressing." }] });
        assert!(stuck(&deployment(&status)).is_some_and(|why| why.contains("timed out")));
        // It says so of the template before.
        status["observedGeneration"] = 2.into();
        assert_eq!(stuck(&deployment(&status)), None);
    }
}
