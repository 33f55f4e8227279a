//! Versions beside the stable one: a canary Deployment with its Service, made and taken away. What the objects look like is
//! `versions/manifest.rs`'s business, how a promotion ends `versions/finish.rs`'s.
//!
//! The Deployment is made last and deleted last: while it is there, the version is.

pub(super) mod capacity;
mod finish;
pub(super) mod manifest;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use serde_json::Value;

use super::client::doubtful;
use super::edit::{MANAGER, Note, Target, UNDO, annotation};
use super::record::RUN;
use super::split::{self, owners};
use super::state::{Desired, container_of};
use super::{KubePlatform, Provider, Workload, field};
use crate::run::RunRecord;
use crate::{Cas, Fence, Field, PlatformError, Result, VersionSpec};
use manifest::{REPLACES, SPEC};

/// Somebody may be faster so often before we give up.
const ROUNDS: usize = 8;

/// Both Deployments of a service as they are.
struct Both {
    stable: Option<DynamicObject>,
    canary: Option<DynamicObject>,
}

/// Whether a service's pods are as its stable Deployment says.
pub(super) async fn is_rolled_out(platform: &KubePlatform, workload: &Workload) -> Result<bool> {
    finish::stable_is_rolled_out(platform, workload).await
}

/// The spec of a version as [`Field::version`](crate::Field::version) has it; `None` when it does not run.
///
/// A version that a canary replaces is there until the canary's Deployment is gone: until then its end can be gone on with.
pub(super) async fn get(platform: &KubePlatform, workload: &Workload, version: &str) -> Result<Option<VersionSpec>> {
    Ok(both(platform, workload).await?.spec(workload, version))
}

/// Changes [`Field::version`](crate::Field::version): makes or deletes a canary, or ends a promotion.
pub(super) async fn set(
    platform: &KubePlatform,
    by: Option<&Fence>,
    workload: &Workload,
    version: &str,
    expect: Option<&VersionSpec>,
    new: Option<&VersionSpec>,
    dry_run: bool,
) -> Result<Cas> {
    let field = Field::version(&workload.name, version);
    match (expect, new) {
        (None, Some(spec)) => create(platform, by, workload, &field, spec, dry_run).await,
        (Some(expect), None) => {
            let both = both(platform, workload).await?;
            let replaced = both.noted(REPLACES).is_some_and(|replaced| replaced.version == version);
            let promoted = replaced && is_promoted(platform, workload, &both).await?;
            if promoted && both.spec(workload, version).as_ref() == Some(expect) {
                return finish::finish(platform, by, workload, &field, dry_run).await;
            }
            remove(platform, by, workload, &field, expect, dry_run).await
        }
        (expect, new) => {
            platform.admit(by).await?;
            let actual = get(platform, workload, version).await?;
            if actual.as_ref() != expect {
                return Ok(conflict(actual));
            }
            if expect == new {
                return Ok(Cas::Applied);
            }
            Err(field::invalid(&field, "a version that runs cannot become another"))
        }
    }
}

/// The objects that a version consists of: for the fence and the notes of undo.
pub(super) async fn targets(platform: &KubePlatform, workload: &Workload, version: &str) -> Result<Vec<Target>> {
    let both = both(platform, workload).await?;
    let is = |key: &str| both.noted(key).is_some_and(|spec| spec.version == version);
    let (stable, canary, _) = names(workload);
    Ok(if is(SPEC) {
        vec![canary]
    } else if is(REPLACES) {
        vec![canary, stable]
    } else {
        // Also of one that is gone: what took its place has the notes of how it went.
        vec![stable]
    })
}

async fn create(
    platform: &KubePlatform,
    by: Option<&Fence>,
    workload: &Workload,
    field: &Field,
    spec: &VersionSpec,
    dry_run: bool,
) -> Result<Cas> {
    let record = platform.admit(by).await?;
    let both = both(platform, workload).await?;
    if let Some(actual) = both.spec(workload, &spec.version) {
        return Ok(conflict(Some(actual)));
    }
    let refused = |why: String| PlatformError::Refused {
        what: format!("another version of `{}`", workload.name),
        why,
    };
    let (_, canary, canary_service) = names(workload);
    if both.canary.is_some() {
        return Err(refused(format!("the Deployment `{}` is there already", canary.name)));
    }
    let stable = both.stable.as_ref().ok_or_else(|| PlatformError::Missing {
        what: format!(
            "Deployment `{}` in namespace `{}`",
            workload.deployment, workload.namespace
        ),
    })?;
    if by.is_some() || dry_run {
        owners::check(stable, workload.take_ownership, owners::Part::Image)?;
    }
    let service = Target::of::<Service>(&workload.namespace, &workload.service);
    let service = platform.read(&service).await?.ok_or_else(|| PlatformError::Missing {
        what: format!("Service `{}` in namespace `{}`", workload.service, workload.namespace),
    })?;
    let replaces = described(workload, stable).ok_or_else(|| refused("its Deployment cannot be read".to_owned()))?;
    let (deployment, service) = (json(stable), json(&service));
    let source = manifest::Source {
        deployment: &deployment,
        service: &service,
        container: &container(workload, stable),
        joins: workload.provider == Provider::Replicas,
        canary_deployment: &canary.name,
        canary_service: &canary_service.name,
    };
    let run = by.map(|by| by.run.as_str());
    let mut made = manifest::canary(&source, spec, &replaces, run).map_err(refused)?;
    if let Some(notes) = record.as_ref().and_then(|record| notes_of(record, field)) {
        made.deployment["metadata"]["annotations"][UNDO] = notes.into();
    }
    make(platform, &canary_service, &made.service, dry_run).await?;
    match make(platform, &canary, &made.deployment, dry_run).await {
        Ok(()) => Ok(Cas::Applied),
        Err(error) if doubtful(&error) => {
            // Whether it was made can only be seen there.
            match get(platform, workload, &spec.version).await? {
                Some(actual) if actual == *spec => Ok(Cas::Applied),
                _ => Err(error),
            }
        }
        Err(error) => {
            let _ = delete(platform, &canary_service, dry_run).await;
            Err(error)
        }
    }
}

async fn remove(
    platform: &KubePlatform,
    by: Option<&Fence>,
    workload: &Workload,
    field: &Field,
    expect: &VersionSpec,
    dry_run: bool,
) -> Result<Cas> {
    // A share whose lease is over is none, but its weights may be there still.
    split::lapse(platform, workload).await?;
    let (_, canary, service) = names(workload);
    for _ in 0..ROUNDS {
        let both = both(platform, workload).await?;
        platform.admit(by).await?;
        let actual = both.spec(workload, &expect.version);
        if actual.as_ref() != Some(expect) {
            return Ok(conflict(actual));
        }
        if both.noted(SPEC).is_none_or(|spec| spec.version != expect.version) {
            return Err(field::invalid(
                field,
                "it is the stable version, or none that opsctl made",
            ));
        }
        let split = split::read(platform, workload).await?;
        if split.stable_version.as_deref() == Some(&*expect.version) {
            return Err(field::invalid(field, "it is the stable version"));
        }
        if split.canary.is_some_and(|weight| weight.version == expect.version) {
            return Err(field::invalid(field, "it has a share of the traffic"));
        }
        let Some(object) = both.canary else { continue };
        delete(platform, &service, dry_run).await?;
        if delete_exactly(platform, &canary, &object, dry_run).await? {
            return Ok(Cas::Applied);
        }
    }
    Err(PlatformError::Refused {
        what: format!("the change of `{field}`"),
        why: "the object changes all the time".to_owned(),
    })
}

/// Whether the canary's version is the stable one: by the route, or by the stable Deployment already.
async fn is_promoted(platform: &KubePlatform, workload: &Workload, both: &Both) -> Result<bool> {
    let Some(new) = both.noted(SPEC) else { return Ok(false) };
    let stable = both.stable.as_ref().and_then(|stable| described(workload, stable));
    if stable.is_some_and(|stable| stable.version == new.version) {
        return Ok(true);
    }
    let split = split::read(platform, workload).await?;
    Ok(split.stable_version == Some(new.version))
}

impl Both {
    fn spec(&self, workload: &Workload, version: &str) -> Option<VersionSpec> {
        let canary = self.canary.as_ref();
        if let Some(spec) = self.noted(SPEC).filter(|spec| spec.version == version) {
            let replicas = canary
                .and_then(|canary| described(workload, canary))
                .map(|now| now.replicas);
            return Some(VersionSpec {
                replicas: replicas.unwrap_or(spec.replicas),
                ..spec
            });
        }
        if let Some(replaced) = self.noted(REPLACES).filter(|spec| spec.version == version) {
            return Some(replaced);
        }
        let all = [self.stable.as_ref(), canary];
        let mut all = all
            .into_iter()
            .flatten()
            .filter_map(|object| described(workload, object));
        all.find(|spec| spec.version == version)
    }

    /// A spec that the canary's Deployment carries.
    fn noted(&self, key: &str) -> Option<VersionSpec> {
        serde_json::from_str(annotation(self.canary.as_ref()?, key)?).ok()
    }
}

async fn both(platform: &KubePlatform, workload: &Workload) -> Result<Both> {
    let (stable, canary, _) = names(workload);
    let (stable, canary) = tokio::try_join!(platform.read(&stable), platform.read(&canary))?;
    Ok(Both { stable, canary })
}

/// The stable Deployment, the canary's, and the canary's Service.
fn names(workload: &Workload) -> (Target, Target, Target) {
    let namespace = &workload.namespace;
    (
        Target::of::<Deployment>(namespace, &workload.deployment),
        Target::of::<Deployment>(namespace, &workload.canary_deployment()),
        Target::of::<Service>(namespace, &workload.canary_service()),
    )
}

/// The version that a Deployment runs, as far as it can be seen.
fn described(workload: &Workload, object: &DynamicObject) -> Option<VersionSpec> {
    let deployment: Deployment = object.clone().try_parse().ok()?;
    let desired = Desired::of(&deployment, workload.container.as_deref());
    let pod = deployment.spec?.template.spec?;
    let main = container_of(&pod.containers, workload.container.as_deref(), &workload.deployment);
    Some(VersionSpec {
        version: desired.version,
        command: Vec::new(),
        image: main.and_then(|main| main.image.clone()),
        env: std::collections::BTreeMap::new(),
        replicas: desired.replicas,
    })
}

/// The name of the container that runs the program.
fn container(workload: &Workload, object: &DynamicObject) -> String {
    let deployment: Option<Deployment> = object.clone().try_parse().ok();
    let pod = deployment.and_then(|deployment| deployment.spec?.template.spec);
    let containers = pod.map(|pod| pod.containers).unwrap_or_default();
    let main = container_of(&containers, workload.container.as_deref(), &workload.deployment);
    main.map(|main| main.name.clone()).unwrap_or_default()
}

/// The undo steps of a field, as an object carries them.
fn notes_of(record: &RunRecord, field: &Field) -> Option<String> {
    let notes = Note::all(record, field);
    (!notes.is_empty()).then(|| serde_json::to_string(&notes).expect("strings, numbers and JSON are JSON"))
}

/// Makes an object. One of ours that is there already, left by a run that died, is as good.
pub(super) async fn make(platform: &KubePlatform, target: &Target, object: &Value, dry_run: bool) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(|error| PlatformError::Refused {
        what: format!("{} `{}`", target.resource.kind, target.name),
        why: error.to_string(),
    })?;
    let params = PostParams {
        dry_run,
        field_manager: Some(MANAGER.to_owned()),
    };
    match target
        .api(platform.clients.calls.clone())
        .create(&params, &object)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let there = platform.read(target).await?;
            let labelled = |object: &DynamicObject| {
                let labels = object.metadata.labels.as_ref();
                labels
                    .and_then(|labels| labels.get(super::record::MANAGED_BY))
                    .is_some_and(|by| by == MANAGER)
            };
            match there {
                Some(there) if labelled(&there) || annotation(&there, RUN).is_some() => Ok(()),
                _ => Err(PlatformError::Refused {
                    what: format!("{} `{}`", target.resource.kind, target.name),
                    why: "there is one already that opsctl did not make".to_owned(),
                }),
            }
        }
        Err(error) => Err(platform.error(error)),
    }
}

/// Deletes an object of ours, whatever has become of it meanwhile.
pub(super) async fn delete(platform: &KubePlatform, target: &Target, dry_run: bool) -> Result<()> {
    while let Some(object) = platform.read(target).await? {
        if annotation(&object, RUN).is_none()
            && object
                .metadata
                .labels
                .as_ref()
                .and_then(|l| l.get(super::record::MANAGED_BY))
                .is_none_or(|by| by != MANAGER)
        {
            break;
        }
        if delete_exactly(platform, target, &object, dry_run).await? {
            break;
        }
    }
    Ok(())
}

/// Deletes an object if it is the one that was read; false when it has changed.
async fn delete_exactly(
    platform: &KubePlatform,
    target: &Target,
    object: &DynamicObject,
    dry_run: bool,
) -> Result<bool> {
    let params = DeleteParams {
        dry_run,
        preconditions: Some(Preconditions {
            uid: object.metadata.uid.clone(),
            resource_version: object.metadata.resource_version.clone(),
        }),
        ..DeleteParams::background()
    };
    match target
        .api(platform.clients.calls.clone())
        .delete(&target.name, &params)
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(platform.error(error)),
    }
}

fn json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object is JSON")
}

fn conflict(actual: Option<VersionSpec>) -> Cas {
    Cas::Conflict {
        actual: actual.map(|actual| actual.value()),
    }
}
