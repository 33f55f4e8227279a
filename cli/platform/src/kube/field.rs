//! Which object a field of a service lives in, and how it is read and set there. Shares of traffic and versions are the
//! business of `split` and `versions`.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::edit::{Change, FENCE, Patch, Patched, Target, annotation};
use super::secret::{self, Place};
use super::state::{Desired, HOLD, Held};
use super::{KubePlatform, Workload, cut, hop, nodes, split, versions};
use crate::{Cas, Fence, Field, Hold, PlatformError, Result, VersionSpec, Weight};

const REPLICAS: &str = "/spec/replicas";
const POD_ANNOTATIONS: &str = "/spec/template/metadata/annotations";
/// What `kubectl rollout restart` sets, and what tools that keep Deployments as they are leave alone.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// What a field of a service is.
enum Part {
    StableVersion,
    Version(String),
    Replicas(String),
    Canary,
    Hold,
    Cut,
    Restarted,
}

impl Part {
    fn of(field: &Field) -> Result<Self> {
        let parts = field.parts();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(match parts.as_slice() {
            ["stable_version"] => Self::StableVersion,
            ["versions", version] => Self::Version((*version).to_owned()),
            ["versions", version, "replicas"] => Self::Replicas((*version).to_owned()),
            ["canary"] => Self::Canary,
            ["hold"] => Self::Hold,
            ["cut"] => Self::Cut,
            ["restarted"] => Self::Restarted,
            _ => return Err(PlatformError::UnknownField { field: field.clone() }),
        })
    }
}

impl KubePlatform {
    /// The service and the part of it that a field is.
    fn part(&self, field: &Field) -> Result<(&Workload, Part)> {
        let service = field
            .service()
            .ok_or_else(|| PlatformError::UnknownField { field: field.clone() })?;
        let workload = self.workload(service)?;
        Ok((workload, Part::of(field)?))
    }

    pub(super) async fn get_field(&self, field: &Field) -> Result<Option<Value>> {
        if let Some(front) = self.front(field) {
            return hop::get(self, &front).await;
        }
        if let Some(node) = field.node() {
            return nodes::get(self, node, field).await;
        }
        if let Some(place) = Place::of(field) {
            return secret::get(self, &place).await;
        }
        let (workload, part) = self.part(field)?;
        Ok(match part {
            Part::StableVersion => {
                let (split, stable) = tokio::try_join!(
                    split::read(self, workload),
                    self.desired(workload, &workload.deployment)
                )?;
                let version = split.stable_version.or(stable.map(|stable| stable.version));
                version.map(Value::from)
            }
            Part::Version(version) => {
                let spec = versions::get(self, workload, &version).await?;
                spec.map(|spec| spec.value())
            }
            Part::Replicas(version) => {
                let target = self.deployment_of(workload, &version).await?;
                target.map(|(_, desired)| desired.replicas.into())
            }
            Part::Canary => {
                let canary = split::read(self, workload).await?.canary;
                canary.and_then(|weight| Weight::value(&weight.version, weight.percent, &weight.holder))
            }
            Part::Hold => {
                let stable = self.desired(workload, &workload.deployment).await?;
                stable.and_then(|stable| stable.held).map(|held| held.hold.value())
            }
            Part::Cut => cut::get(self, workload).await?,
            Part::Restarted => {
                let target = Target::of::<Deployment>(&workload.namespace, &workload.deployment);
                self.read(&target).await?.and_then(|object| restarted(&object))
            }
        })
    }

    pub(super) async fn set_field(&self, change: &Change<'_>) -> Result<Cas> {
        let field = change.field;
        if let Some(front) = self.front(field) {
            // On the heap: of all fields this one has the most to remember.
            return Box::pin(hop::set(self, &front, change)).await;
        }
        if let Some(node) = field.node() {
            return nodes::set(self, node, change).await;
        }
        if let Some(place) = Place::of(field) {
            return secret::set(self, &place, change).await;
        }
        let (workload, part) = self.part(field)?;
        let (by, dry_run) = (change.by, change.dry_run);
        match part {
            Part::StableVersion => {
                // The new version must run, else there is nobody to send traffic to.
                let new = change.new.map(|new| text(field, new)).transpose()?;
                let expect = change.expect.and_then(Value::as_str);
                let new = new.ok_or_else(|| invalid(field, "it cannot be absent"))?;
                if self.deployment_of(workload, new).await?.is_none() {
                    self.admit(by).await?;
                    return Err(invalid(field, "it must be a version that runs"));
                }
                split::set_stable(self, by, workload, expect, Some(new), dry_run).await
            }
            Part::Version(version) => {
                let spec = |value: Option<&Value>| -> Result<Option<VersionSpec>> {
                    let parsed = value.map(|value| serde_json::from_value(value.clone()));
                    parsed.transpose().map_err(|error| invalid(field, &error.to_string()))
                };
                let (expect, new) = (spec(change.expect)?, spec(change.new)?);
                if new.as_ref().is_some_and(|new| new.version != version) {
                    return Err(invalid(field, "its version is not the field's"));
                }
                versions::set(self, by, workload, &version, expect.as_ref(), new.as_ref(), dry_run).await
            }
            Part::Canary => {
                let weight = |value: Option<&Value>| -> Result<Option<Weight>> {
                    let parsed = value.map(|value| serde_json::from_value(value.clone()));
                    parsed.transpose().map_err(|error| invalid(field, &error.to_string()))
                };
                let (expect, new) = (weight(change.expect)?, weight(change.new)?);
                split::set(self, by, workload, expect.as_ref(), new.as_ref(), None, dry_run).await
            }
            Part::Replicas(version) => self.set_replicas(workload, &version, change).await,
            Part::Hold => self.set_hold(workload, change).await,
            Part::Cut => Box::pin(cut::set(self, workload, change)).await,
            Part::Restarted => self.set_restarted(workload, change).await,
        }
    }

    async fn set_replicas(&self, workload: &Workload, version: &str, change: &Change<'_>) -> Result<Cas> {
        let field = change.field;
        let new = change.new.ok_or_else(|| invalid(field, "it cannot be absent"))?;
        let new = new.as_u64().and_then(|n| i32::try_from(n).ok());
        let new = new.ok_or_else(|| invalid(field, "it must be a small whole number"))?;
        let Some((name, _)) = self.deployment_of(workload, version).await? else {
            self.admit(change.by).await?;
            return match change.expect {
                None => Err(invalid(field, "there is no such version")),
                Some(_) => Ok(Cas::Conflict { actual: None }),
            };
        };
        let target = Target::of::<Deployment>(&workload.namespace, &name);
        let read = |object: &DynamicObject| {
            let desired = desired(object, workload).filter(|desired| desired.version == version)?;
            Some(desired.replicas.into())
        };
        let write = |object: &DynamicObject, patch: &mut Patch<'_>| {
            match desired(object, workload).and_then(|desired| desired.held) {
                Some(held) => patch.annotate(HOLD, Some(&note(&held.hold, new.unsigned_abs()))),
                None => patch.set(REPLICAS, new),
            }
            Ok(())
        };
        self.edit(&target, change, read, write).await
    }

    /// Pods of another template are other pods: all are replaced, as the Deployment says.
    async fn set_restarted(&self, workload: &Workload, change: &Change<'_>) -> Result<Cas> {
        let new = match change.new {
            Some(Value::String(new)) => Some(new.as_str()),
            None => None,
            Some(_) => return Err(invalid(change.field, "it is text")),
        };
        let target = Target::of::<Deployment>(&workload.namespace, &workload.deployment);
        let write = |object: &DynamicObject, patch: &mut Patch<'_>| {
            let pointer = format!("{POD_ANNOTATIONS}/{}", crate::field::escape(RESTARTED));
            match new {
                Some(new) => {
                    if object.data.pointer(POD_ANNOTATIONS).is_none() {
                        patch.set(POD_ANNOTATIONS, json!({}));
                    }
                    patch.set(&pointer, new);
                }
                None if object.data.pointer(&pointer).is_some() => patch.remove(&pointer),
                None => {}
            }
            Ok(())
        };
        self.edit(&target, change, restarted, write).await
    }

    /// Holding down is one patch: the number of pods, and beside it why and what it was.
    async fn set_hold(&self, workload: &Workload, change: &Change<'_>) -> Result<Cas> {
        let field = change.field;
        let new: Option<Hold> = change
            .new
            .map(|new| serde_json::from_value(new.clone()))
            .transpose()
            .map_err(|error| invalid(field, &error.to_string()))?;
        let target = Target::of::<Deployment>(&workload.namespace, &workload.deployment);
        let read = |object: &DynamicObject| Some(desired(object, workload)?.held?.hold.value());
        let write = |object: &DynamicObject, patch: &mut Patch<'_>| {
            let now = desired(object, workload).ok_or_else(|| invalid(field, "the Deployment cannot be read"))?;
            let pods = object.data.pointer(REPLICAS).and_then(Value::as_u64);
            if let Some(hold) = &new {
                patch.annotate(HOLD, Some(&note(hold, now.replicas)));
                patch.set(REPLICAS, 0);
            } else {
                patch.annotate(HOLD, None);
                // Somebody who gave it pods meanwhile keeps them.
                if pods == Some(0) {
                    patch.set(REPLICAS, now.replicas);
                }
            }
            Ok(())
        };
        self.edit(&target, change, read, write).await
    }

    /// The Deployment that runs a version: the stable one, else the one beside it.
    pub(super) async fn deployment_of(&self, workload: &Workload, version: &str) -> Result<Option<(String, Desired)>> {
        for name in [workload.deployment.clone(), workload.canary_deployment()] {
            if let Some(desired) = self.desired(workload, &name).await?
                && desired.version == version
            {
                return Ok(Some((name, desired)));
            }
        }
        Ok(None)
    }

    /// The objects that a field lives in.
    pub(super) async fn targets(&self, field: &Field) -> Result<Vec<Target>> {
        if let Some(front) = self.front(field) {
            return Ok(hop::targets(&front));
        }
        if let Some(node) = field.node() {
            return Ok(nodes::targets(node));
        }
        if let Some(place) = Place::of(field) {
            return Ok(vec![place.target()]);
        }
        if field.object.starts_with("datastore/") {
            // Of a run on the cluster, and not in it.
            return Ok(Vec::new());
        }
        let (workload, part) = self.part(field)?;
        let stable = || Target::of::<Deployment>(&workload.namespace, &workload.deployment);
        Ok(match part {
            Part::Canary | Part::StableVersion => split::targets(self, workload).await?,
            Part::Version(version) => versions::targets(self, workload, &version).await?,
            Part::Replicas(version) => match self.deployment_of(workload, &version).await? {
                Some((name, _)) => vec![Target::of::<Deployment>(&workload.namespace, &name)],
                None => Vec::new(),
            },
            Part::Hold | Part::Restarted => vec![stable()],
            Part::Cut => vec![cut::outpost(workload).deployment()],
        })
    }

    /// Touches the objects of a field, so that a patch of an older epoch that is under way fails.
    pub(super) async fn claim_field(&self, by: &Fence, field: &Field) -> Result<()> {
        let mark = format!("{}/{}", by.run, by.epoch);
        for target in self.targets(field).await? {
            // Whoever else changes it meanwhile makes the old patch fail just as well, but not one that starts then.
            while let Some(object) = self.read(&target).await? {
                if annotation(&object, FENCE) == Some(&mark) {
                    break;
                }
                let mut patch = Patch::new(&object);
                patch.annotate(FENCE, Some(&mark));
                match self.patch(&target, patch.into_ops(), false).await? {
                    Patched::Done | Patched::Gone => break,
                    Patched::Raced => {}
                }
            }
        }
        Ok(())
    }
}

fn restarted(object: &DynamicObject) -> Option<Value> {
    let annotations = object.data.pointer(POD_ANNOTATIONS)?;
    annotations.get(RESTARTED).cloned()
}

fn desired(object: &DynamicObject, workload: &Workload) -> Option<Desired> {
    let deployment: Deployment = object.clone().try_parse().ok()?;
    Some(Desired::of(&deployment, workload.container.as_deref()))
}

fn note(hold: &Hold, replicas: u32) -> String {
    let held = Held {
        hold: hold.clone(),
        replicas,
    };
    json!(held).to_string()
}

fn text<'a>(field: &Field, value: &'a Value) -> Result<&'a str> {
    value
        .as_str()
        .ok_or_else(|| invalid(field, "it must be a version's label"))
}

pub(super) fn invalid(field: &Field, reason: &str) -> PlatformError {
    PlatformError::InvalidValue {
        field: field.clone(),
        reason: reason.to_owned(),
    }
}
