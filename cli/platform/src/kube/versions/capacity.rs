//! The capacity of the stable pods while they have no traffic. An autoscaler would take them away during a bake, and the way
//! back would overwhelm what is left: so its minimum is raised for that time, and where that is not allowed, the traffic
//! comes back in steps.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;
use tokio::time::Instant;

use super::{both, manifest::REPLACES};
use crate::kube::edit::{Patch, Patched, Target, annotation};
use crate::kube::{KubePlatform, Workload, traffic};
use crate::{Fence, PlatformError, Result};

/// On an autoscaler whose minimum is raised: what it was.
const MINIMUM: &str = "opsctl.dev/min-replicas";
const MIN_REPLICAS: &str = "/spec/minReplicas";
/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// How long the way back waits for pods; then the traffic comes whatever there is.
const PATIENCE: Duration = Duration::from_mins(1);
/// With more errors than this, few pods of the old version are better than all of the new one.
const SEVERE_RATIO: f64 = 0.2;
/// Requests that such a ratio is believed of.
const SEVERE_REQUESTS: u64 = 20;

/// Keeps the autoscaler of the stable Deployment from taking pods away, as far as that is allowed.
pub(in crate::kube) async fn hold(platform: &KubePlatform, by: Option<&Fence>, workload: &Workload) -> Result<()> {
    let Some(ready) = ready(platform, workload).await? else {
        return Ok(());
    };
    each_autoscaler(platform, by, workload, |object, patch| {
        let now = minimum(object);
        if annotation(object, MINIMUM).is_none() && now < u64::from(ready) {
            patch.annotate(MINIMUM, Some(&now.to_string()));
            patch.set(MIN_REPLICAS, ready);
            return true;
        }
        false
    })
    .await
}

/// Gives the autoscaler its minimum back. One that somebody has changed since stays.
pub(in crate::kube) async fn release(platform: &KubePlatform, by: Option<&Fence>, workload: &Workload) -> Result<()> {
    each_autoscaler(platform, by, workload, |object, patch| {
        let Some(before) = annotation(object, MINIMUM).and_then(|text| text.parse::<u32>().ok()) else {
            return false;
        };
        patch.annotate(MINIMUM, None);
        if minimum(object) > u64::from(before) {
            patch.set(MIN_REPLICAS, before);
        }
        true
    })
    .await
}

/// Whether the stable Deployment has fewer ready pods than when the canary was made.
pub(in crate::kube) async fn is_short(platform: &KubePlatform, workload: &Workload) -> Result<bool> {
    let needed = both(platform, workload)
        .await?
        .noted(REPLACES)
        .map_or(0, |spec| spec.replicas);
    let ready = ready(platform, workload).await?.unwrap_or_default();
    // Without any pod half of the traffic would be lost, with the other half on its way.
    Ok(ready > 0 && ready < needed)
}

/// Waits until it has as many again; not for longer than [`PATIENCE`], and not while the new version fails severely.
pub(in crate::kube) async fn regain(platform: &KubePlatform, workload: &Workload) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut first = None;
    while Instant::now() < until && is_short(platform, workload).await? {
        if let Ok(traffic) = traffic::read(platform, workload).await {
            let mut now = (0, 0);
            for version in &traffic.versions {
                now = (now.0 + version.counts.requests, now.1 + version.counts.errors);
            }
            let (requests, errors) = *first.get_or_insert(now);
            if is_severe(now.0.saturating_sub(requests), now.1.saturating_sub(errors)) {
                break;
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn is_severe(requests: u64, errors: u64) -> bool {
    requests >= SEVERE_REQUESTS && errors as f64 >= requests as f64 * SEVERE_RATIO
}

/// Ready pods of the stable Deployment.
async fn ready(platform: &KubePlatform, workload: &Workload) -> Result<Option<u32>> {
    let deployment: Option<Deployment> = platform.deployment(workload, &workload.deployment).await?;
    let status = deployment.and_then(|deployment| deployment.status);
    Ok(status.map(|status| status.ready_replicas.unwrap_or_default().unsigned_abs()))
}

/// Patches every autoscaler of the stable Deployment for which `write` says so. Where that is not allowed, or there is no
/// such kind, nothing happens: the way back goes in steps then.
async fn each_autoscaler(
    platform: &KubePlatform,
    by: Option<&Fence>,
    workload: &Workload,
    write: impl Fn(&DynamicObject, &mut Patch<'_>) -> bool,
) -> Result<()> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(platform.clients.calls.clone(), &workload.namespace);
    let mut names = Vec::new();
    let listed = platform
        .each(&api, ListParams::default(), |scaler: &HorizontalPodAutoscaler| {
            let target = scaler.spec.as_ref().map(|spec| &spec.scale_target_ref);
            if target.is_some_and(|target| target.kind == "Deployment" && target.name == workload.deployment) {
                names.extend(scaler.metadata.name.clone());
            }
        })
        .await;
    if !allowed(listed)? {
        return Ok(());
    }
    for name in names {
        let target = Target::of::<HorizontalPodAutoscaler>(&workload.namespace, &name);
        while let Some(object) = platform.read(&target).await? {
            platform.admit(by).await?;
            let mut patch = Patch::new(&object);
            if !write(&object, &mut patch) {
                break;
            }
            match platform.patch(&target, patch.into_ops(), false).await {
                Ok(Patched::Raced) => {}
                Ok(Patched::Done | Patched::Gone) => break,
                Err(error) => {
                    allowed(Err(error))?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Whether a call was; an error only if it failed for another reason.
fn allowed(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(
            error @ (PlatformError::Forbidden { .. } | PlatformError::Missing { .. } | PlatformError::Refused { .. }),
        ) => {
            tracing::warn!(error = %error, "the autoscaler is left alone");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn minimum(object: &DynamicObject) -> u64 {
    object.data.pointer(MIN_REPLICAS).and_then(Value::as_u64).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_errors_are_not_severe() {
        assert!(!is_severe(19, 19));
        assert!(!is_severe(100, 19));
        assert!(is_severe(100, 20));
    }
}
