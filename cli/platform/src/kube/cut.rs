//! Cutting a service off from what is behind a Service, by a NetworkPolicy of ours that lets its pods reach everything but
//! that. Policies only add to each other, so there is none where another one governs where those pods may connect to. What
//! a policy says is in `policy`.
//!
//! An [`Outpost`] beside the service holds the field's value, and ends the sessions of its role: nobody says whether a
//! policy is enforced, or what becomes of connections that were open before, so whoever cuts looks who comes back. The
//! policy belongs to the outpost's Deployment and goes with it, should a worker that was replaced make one too late.

mod policy;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};
use serde_json::{Value, json};

use super::edit::{Change, Target, annotation};
use super::field::invalid;
use super::outpost::{Duty, Outpost, creating, database_url};
use super::{KubePlatform, Workload};
use crate::run::RunRecord;
use crate::{Cas, Cut, Fence, Field, PlatformError, Result};

/// The cut, on the outpost's Deployment and on the policy.
const CUT: &str = "opsctl.dev/cut";
/// A hop passes at least one port on; nobody is led to this one.
const UNUSED_PORT: u16 = 20_000;

/// What belongs to a cut of a service.
pub(super) fn outpost(workload: &Workload) -> Outpost {
    Outpost {
        namespace: workload.namespace.clone(),
        name: format!("{}-cut", workload.deployment),
    }
}

pub(super) async fn get(on: &KubePlatform, workload: &Workload) -> Result<Option<Value>> {
    let holder = on.read(&outpost(workload).deployment()).await?;
    let text = holder.as_ref().and_then(|holder| annotation(holder, CUT));
    let cut = text.and_then(|text| serde_json::from_str::<Cut>(text).ok());
    Ok(cut.map(|cut| cut.value()))
}

pub(super) async fn set(on: &KubePlatform, workload: &Workload, change: &Change<'_>) -> Result<Cas> {
    let parsed = change.new.map(|new| serde_json::from_value::<Cut>(new.clone()));
    let new = parsed
        .transpose()
        .map_err(|error| invalid(change.field, &error.to_string()))?;
    let record = on.admit(change.by).await?;
    let actual = get(on, workload).await?;
    if actual.as_ref() != change.expect {
        return Ok(Cas::Conflict { actual });
    }
    match (change.expect, new) {
        (None, None) => Ok(Cas::Applied),
        (None, Some(cut)) => begin(on, workload, change, record.as_ref(), &cut).await,
        (Some(_), Some(_)) => Err(invalid(
            change.field,
            "it is cut off from one thing at a time: end that first",
        )),
        (Some(cut), None) => end(on, workload, change.dry_run, cut).await,
    }
}

/// Brings the outpost up, and makes the policy when somebody is there to see what it does.
async fn begin(
    on: &KubePlatform,
    workload: &Workload,
    change: &Change<'_>,
    record: Option<&RunRecord>,
    cut: &Cut,
) -> Result<Cas> {
    let refused = |why: String| PlatformError::Refused {
        what: format!("cutting `{}` off by a NetworkPolicy", workload.name),
        why,
    };
    let image = on.settings.image.as_ref().ok_or_else(|| {
        refused("no image of opsctl is known to see what it does: `image` of the cluster in opsctl.toml".to_owned())
    })?;
    let (namespace, name) = cut
        .from
        .split_once('/')
        .ok_or_else(|| invalid(change.field, "it has no namespace"))?;
    let (service, slices) = behind(on, namespace, name).await?;
    let walled = policy::walled(namespace, &service, &slices).map_err(refused)?;
    let target = Target::of::<Deployment>(&workload.namespace, &workload.deployment);
    let pods = on.read(&target).await?.ok_or_else(|| PlatformError::Missing {
        what: format!(
            "the Deployment `{}` in namespace `{}`",
            workload.deployment, workload.namespace
        ),
    })?;
    if let Some(other) = governing(on, workload, &pods.data["spec"]["template"]["metadata"]["labels"]).await? {
        return Err(refused(format!(
            "the NetworkPolicy `{other}` says already where its pods may connect to, and policies only add to each other: \
             it may let them reach `{}`, and ours would let them reach what it forbids",
            cut.from
        )));
    }
    let database = database_url(on, &workload.namespace, &workload.name).await?;
    let outpost = outpost(workload);
    let at = format!("{name}.{namespace}:{}", walled.port);
    let (deployment, secret) = outpost.objects(Duty {
        image,
        part_of: &workload.deployment,
        annotations: json!({ CUT: cut.value().to_string() }),
        args: vec!["--forward".to_owned(), format!("0.0.0.0:{UNUSED_PORT}={at}")],
        ports: Vec::new(),
        sessions: Some((&database, at)),
    });
    let Some(holder) = outpost.create_holder(on, change, record, deployment).await? else {
        let actual = get(on, workload).await?;
        return Ok(Cas::Conflict { actual });
    };
    let ours = walled.policy(&outpost, workload, &pods.data["spec"]["selector"], &holder, CUT, cut);
    let began = async {
        outpost.create_secret(on, change, &secret).await?;
        if !change.dry_run {
            outpost.ready(on, change.by).await?;
            on.admit(change.by).await?;
        }
        let policies: Api<NetworkPolicy> = Api::namespaced(on.clients.calls.clone(), &workload.namespace);
        match policies.create(&creating(change), &ours).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Err(refused(format!("there is a NetworkPolicy `{}` already", outpost.name)))
            }
            other => other.map(drop).map_err(|error| on.error(error)),
        }
    };
    let began = began.await;
    if let Err(error) = began {
        if !change.dry_run
            && let Err(error) = end(on, workload, false, &cut.value()).await
        {
            // What cannot be removed now, the undo removes.
            tracing::warn!(service = %workload.name, error = %crate::run::message_of(&error), "could not end a cut");
        }
        return Err(error);
    }
    Ok(Cas::Applied)
}

/// Deletes the policy, and what belongs to it. One that somebody has changed stays, and all the rest.
async fn end(on: &KubePlatform, workload: &Workload, dry_run: bool, cut: &Value) -> Result<Cas> {
    let outpost = outpost(workload);
    let policies: Api<NetworkPolicy> = Api::namespaced(on.clients.calls.clone(), &outpost.namespace);
    while let Some(policy) = ours(&policies, on, &outpost, cut).await? {
        if changed(&policy) {
            let actual = Some(json!({ "networkpolicy": policy.spec }));
            return Ok(Cas::Conflict { actual });
        }
        if dry_run {
            break;
        }
        let as_it_was = DeleteParams::background().preconditions(Preconditions {
            uid: policy.metadata.uid,
            resource_version: policy.metadata.resource_version,
        });
        match policies.delete(&outpost.name, &as_it_was).await {
            Ok(_) => break,
            // It is not as it was: look again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(on.error(error)),
        }
    }
    if !dry_run {
        outpost.close(on).await?;
    }
    Ok(Cas::Applied)
}

/// The policy that makes a cut, if it is there.
async fn ours(
    policies: &Api<NetworkPolicy>,
    on: &KubePlatform,
    outpost: &Outpost,
    cut: &Value,
) -> Result<Option<NetworkPolicy>> {
    let found = policies.get_opt(&outpost.name).await.map_err(|error| on.error(error))?;
    Ok(found.filter(|policy| {
        let annotations = policy.metadata.annotations.as_ref();
        let text = annotations.and_then(|annotations| annotations.get(CUT));
        let noted = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
        policy.metadata.deletion_timestamp.is_none() && noted.as_ref() == Some(cut)
    }))
}

/// Whether somebody has changed what it says since it was made.
fn changed(policy: &NetworkPolicy) -> bool {
    policy.metadata.generation.is_some_and(|generation| generation > 1)
}

/// A Service and its addresses.
async fn behind(on: &KubePlatform, namespace: &str, name: &str) -> Result<(Service, Vec<EndpointSlice>)> {
    let services: Api<Service> = Api::namespaced(on.clients.calls.clone(), namespace);
    let service = services.get_opt(name).await.map_err(|error| on.error(error))?;
    let service = service.ok_or_else(|| PlatformError::Missing {
        what: format!("the Service `{name}` in namespace `{namespace}`"),
    })?;
    let slices: Api<EndpointSlice> = Api::namespaced(on.clients.calls.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let slices = slices.list(&of_service).await.map_err(|error| on.error(error))?;
    Ok((service, slices.items))
}

/// A policy that says where pods with these labels may connect to.
async fn governing(on: &KubePlatform, workload: &Workload, labels: &Value) -> Result<Option<String>> {
    let labels = serde_json::from_value(labels.clone()).unwrap_or_default();
    let policies: Api<NetworkPolicy> = Api::namespaced(on.clients.calls.clone(), &workload.namespace);
    let policies = policies.list(&ListParams::default()).await;
    let mut policies = policies.map_err(|error| on.error(error))?.items.into_iter();
    let found = policies.find(|policy| policy.spec.as_ref().is_some_and(|spec| policy::governs(spec, &labels)));
    Ok(found.and_then(|policy| policy.metadata.name))
}

impl KubePlatform {
    pub(super) async fn end_sessions_of(&self, by: &Fence, field: &Field) -> Result<u64> {
        let service = field.service().filter(|_| field.pointer == "/cut");
        let service = service.ok_or_else(|| PlatformError::UnknownField { field: field.clone() })?;
        let workload = self.workload(service)?;
        self.admit(Some(by)).await?;
        let outpost = outpost(workload);
        let lost = || PlatformError::FaultLost {
            object: field.object.clone(),
        };
        let cut = get(self, workload)
            .await?
            .filter(|cut| cut["holder"] == by.run.as_str());
        let cut = cut.ok_or_else(lost)?;
        let policies: Api<NetworkPolicy> = Api::namespaced(self.clients.calls.clone(), &outpost.namespace);
        let policy = ours(&policies, self, &outpost, &cut).await?;
        policy.filter(|policy| !changed(policy)).ok_or_else(lost)?;
        outpost.end_sessions(self).await
    }
}
