//! Numbers of pods as the one who splits, where nothing else can: pods of the canary join the stable Service by its labels,
//! as many of them as make the share. For the whole traffic the Service selects the canary's pods instead.
//!
//! A share that the pods there are cannot make within three points is refused, with the share that they can make and the
//! pods that it would need.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::json;

use super::{BASE, Carriers, Shift};
use crate::field::escape;
use crate::kube::edit::{Patch, Patched, Target, annotation};
use crate::kube::state::{is_ready, owner};
use crate::kube::versions::manifest::{apart, texts};
use crate::kube::{KubePlatform, Workload};
use crate::{PlatformError, Result};

/// So many points may the real share be off.
const TOLERANCE: f64 = 3.0;
const SELECTOR: &str = "/spec/selector";

/// The stable Service is the lead.
pub(super) async fn find(platform: &KubePlatform, workload: &Workload) -> Result<Carriers> {
    let lead = Target::of::<Service>(&workload.namespace, &workload.service);
    let object = platform.read(&lead).await?.ok_or_else(|| PlatformError::Missing {
        what: format!("Service `{}` in namespace `{}`", workload.service, workload.namespace),
    })?;
    Ok(Carriers {
        lead,
        object,
        followers: Vec::new(),
    })
}

/// Whether the share can be made. Errors: [`PlatformError::Refused`] with what could be.
pub(super) async fn check(platform: &KubePlatform, workload: &Workload, percent: u8, dry_run: bool) -> Result<()> {
    let pods = Pods::read(platform, workload).await?;
    let ready = match pods.canary.iter().filter(|pod| pod.ready).count() {
        // Before there is a canary: it gets as many pods as the stable version has.
        0 if dry_run => pods.stable,
        ready => ready,
    };
    let refused = |why| PlatformError::Refused {
        what: format!("{percent} % of the traffic of `{}` by numbers of pods", workload.name),
        why,
    };
    makes(percent, pods.stable, ready).map_err(refused)
}

/// Lets the Service select the canary's pods for the whole traffic, and its own for any other share; false when it does.
pub(super) fn put(object: &DynamicObject, patch: &mut Patch<'_>, percent: u8) -> bool {
    let base = annotation(object, BASE);
    match (
        percent,
        base.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(text).ok()),
    ) {
        (100, None) => {
            let stable = texts(object.data.pointer(SELECTOR));
            let mut canary = stable.clone();
            canary.extend(apart(&stable));
            patch.set(SELECTOR, json!(canary));
            patch.annotate(BASE, Some(&json!(stable).to_string()));
        }
        (0..100, Some(stable)) => {
            patch.set(SELECTOR, json!(stable));
            patch.annotate(BASE, None);
        }
        _ => return false,
    }
    true
}

/// Before the Service selects the canary's pods, they must have the labels by which it will.
pub(super) async fn prepare(shift: &Shift<'_>) -> Result<()> {
    if shift.percent == 100 {
        join(shift, 0).await
    } else {
        Ok(())
    }
}

/// Lets as many pods join the Service as make the share; new pods of the canary join at the next renewal.
pub(super) async fn follow(shift: &Shift<'_>) -> Result<()> {
    // The Service selects all of them.
    let percent = if shift.percent == 100 { 0 } else { shift.percent };
    join(shift, percent).await
}

async fn join(shift: &Shift<'_>, percent: u8) -> Result<()> {
    let object = shift.platform.read(&shift.carriers.lead).await?;
    let Some(object) = object else { return Ok(()) };
    let base = annotation(&object, BASE).and_then(|text| serde_json::from_str(text).ok());
    let stable: BTreeMap<String, String> = base.unwrap_or_else(|| texts(object.data.pointer(SELECTOR)));
    let outside = apart(&stable);
    let mut pods = Pods::read(shift.platform, shift.workload).await?;
    let is_inside = |pod: &One| outside.keys().all(|key| pod.labels.get(key) == stable.get(key));
    pods.canary
        .sort_by_key(|pod| (!pod.ready, !is_inside(pod), pod.name.clone()));
    let ready = pods.canary.iter().filter(|pod| pod.ready).count();
    let wanted = if percent == 0 {
        0
    } else {
        nearest(percent, pods.stable, ready).0
    };
    for (number, pod) in pods.canary.iter().enumerate() {
        let labels = outside.iter().map(|(key, value)| {
            let value = if number < wanted {
                stable.get(key).unwrap_or(value)
            } else {
                value
            };
            (key, value)
        });
        let labels: Vec<_> = labels
            .filter(|(key, value)| pod.labels.get(*key) != Some(value))
            .collect();
        let target = Target::of::<Pod>(&shift.workload.namespace, &pod.name);
        while !labels.is_empty()
            && let Some(object) = shift.platform.read(&target).await?
        {
            shift.platform.admit(shift.by).await?;
            let mut patch = Patch::new(&object);
            for (key, value) in &labels {
                patch.set(&format!("/metadata/labels/{}", escape(key)), value.as_str());
            }
            match shift.platform.patch(&target, patch.into_ops(), shift.dry_run).await? {
                Patched::Done | Patched::Gone => break,
                Patched::Raced => {}
            }
        }
    }
    Ok(())
}

/// The pods of a service.
struct Pods {
    /// Ready ones of the stable Deployment.
    stable: usize,
    canary: Vec<One>,
}

struct One {
    name: String,
    ready: bool,
    labels: BTreeMap<String, String>,
}

impl Pods {
    async fn read(platform: &KubePlatform, workload: &Workload) -> Result<Self> {
        let api: Api<Pod> = Api::namespaced(platform.clients.calls.clone(), &workload.namespace);
        let of_canary = workload.canary_deployment();
        let mut pods = Self {
            stable: 0,
            canary: Vec::new(),
        };
        let listed = platform.each(&api, ListParams::default(), |pod: &Pod| {
            let owner = owner(pod);
            if owner.as_deref() == Some(&workload.deployment) {
                pods.stable += usize::from(is_ready(pod));
            } else if owner.as_deref() == Some(&of_canary) {
                pods.canary.push(One {
                    name: pod.name_any(),
                    ready: is_ready(pod),
                    labels: pod.labels().clone(),
                });
            }
        });
        listed.await?;
        Ok(pods)
    }
}

/// Whether pods can make a share within the tolerance. Errors: the nearest share, and what the wanted one needs.
fn makes(percent: u8, stable: usize, canary: usize) -> Result<(), String> {
    if canary == 0 {
        return Err("no pod of the canary is ready".to_owned());
    }
    let (_, real) = nearest(percent, stable, canary);
    if percent == 100 || (real - f64::from(percent)).abs() <= TOLERANCE {
        return Ok(());
    }
    let share = f64::from(percent) / 100.0;
    let more = (share * stable as f64 / (1.0 - share)).round().max(1.0);
    let of_more = 100.0 * more / (stable as f64 + more);
    let needed = if (of_more - f64::from(percent)).abs() <= TOLERANCE {
        format!("{more} pods of the canary")
    } else {
        let all = (100.0 / f64::from(percent)).ceil();
        format!("{all} pods in all, {} of them stable", all - 1.0)
    };
    Err(format!(
        "with {stable} stable pods and {canary} of the canary the nearest share is {real:.0} %; it needs {needed}"
    ))
}

/// The number of canary pods whose share is nearest, of those there are, and that share in percent. At least one: a share
/// that was asked for is not nothing.
fn nearest(percent: u8, stable: usize, canary: usize) -> (usize, f64) {
    let real = |pods: usize| 100.0 * pods as f64 / (stable + pods) as f64;
    let off = |pods: usize| (real(pods) - f64::from(percent)).abs();
    let best = (1..=canary).min_by(|a, b| off(*a).total_cmp(&off(*b)));
    best.map_or((0, 0.0), |pods| (pods, real(pods)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_kept_within_three_points_or_refused_with_what_it_needs() {
        assert_eq!(makes(10, 9, 1), Ok(()));
        assert_eq!(makes(10, 7, 1), Ok(()), "12.5 %");
        assert_eq!(
            makes(10, 3, 1).unwrap_err(),
            "with 3 stable pods and 1 of the canary the nearest share is 25 %; it needs 10 pods in all, 9 of them stable"
        );
        assert_eq!(
            makes(50, 4, 1).unwrap_err(),
            "with 4 stable pods and 1 of the canary the nearest share is 20 %; it needs 4 pods of the canary"
        );
        assert_eq!(makes(50, 4, 4), Ok(()));
        assert_eq!(makes(100, 4, 1), Ok(()), "the Service selects the canary alone");
        assert!(makes(10, 9, 0).is_err());
    }

    #[test]
    fn of_many_pods_as_many_join_as_are_needed() {
        assert_eq!(nearest(10, 9, 5).0, 1);
        assert_eq!(nearest(50, 4, 5).0, 4);
        assert_eq!(nearest(1, 1, 2).0, 1);
        assert_eq!(nearest(10, 9, 0).0, 0);
    }
}
