//! Leading a Service to its hop, and back: its selector is swapped, or, where it has none, its EndpointSlices give their
//! addresses to the copy's and one of ours has the hop's. Both by compare-and-set of what was read.
//!
//! A slice stays with its Service: kube-proxy keeps leading a Service to a slice whose label names another by now.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use super::super::KubePlatform;
use super::super::edit::{Change, MANAGER, Patch, Patched, Target, annotation};
use super::super::outpost::{HOP, creating, unless_there};
use super::{Front, objects, refused};
use crate::{Cas, Result};

/// The selector that the Service had, on the Service.
const SELECTOR: &str = "opsctl.dev/selector";
/// The addresses that a slice had, on the slice.
const ADDRESSES: &str = "opsctl.dev/addresses";
/// Which Service a slice is of, and who writes it.
const OF_SERVICE: &str = "kubernetes.io/service-name";
const WRITTEN_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who writes slices from the Endpoints of a Service, and writes them again when somebody else does.
const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
const POINTER: &str = "/spec/selector";

/// Refuses a Service that cannot be led anywhere.
pub(super) async fn possible(on: &KubePlatform, front: &Front, service: &Service) -> Result<()> {
    if selector(service).is_some() {
        return Ok(());
    }
    let theirs = slices(on, front, &front.service).await?;
    if theirs.is_empty() {
        return Err(refused(front, "it has neither a selector nor addresses"));
    }
    if theirs.iter().any(|slice| written_by(slice) == Some(MIRROR)) {
        let why = "its addresses are mirrored from Endpoints, and would be again: give it an EndpointSlice";
        return Err(refused(front, why));
    }
    Ok(())
}

/// The selector of a Service that has one.
fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let selector = service.spec.as_ref()?.selector.as_ref();
    selector.filter(|selector| !selector.is_empty())
}

/// Leads the Service to the hop.
pub(super) async fn there(on: &KubePlatform, front: &Front, change: &Change<'_>, service: &Service) -> Result<Cas> {
    let Some(before) = selector(service) else {
        return slices_there(on, front, change, service).await;
    };
    let before = json!(before);
    swap(on, front, change, &before, &objects::selector(front), Some(&before)).await
}

/// Leads the Service back, however it was led away. A selector that somebody else has set since stays.
pub(super) async fn back(on: &KubePlatform, front: &Front, change: &Change<'_>) -> Result<Cas> {
    slices_back(on, front, change.dry_run).await?;
    let Some(object) = on.read(&front.service()).await? else {
        return Ok(Cas::Applied);
    };
    let Some(before) = annotation(&object, SELECTOR).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Ok(Cas::Applied);
    };
    swap(on, front, change, &objects::selector(front), &before, None).await
}

/// Sets the selector of the Service from `expect` to `new`, and notes beside it what it was.
async fn swap(
    on: &KubePlatform,
    front: &Front,
    change: &Change<'_>,
    expect: &Value,
    new: &Value,
    keep: Option<&Value>,
) -> Result<Cas> {
    // The field's value lives in the hop's Deployment; what this compares is the selector.
    let read = |object: &DynamicObject| {
        let actual = object.data.pointer(POINTER);
        if actual == Some(expect) {
            change.expect.cloned()
        } else if actual == Some(new) {
            change.new.cloned()
        } else {
            Some(json!({ "selector": actual }))
        }
    };
    let write = |_: &DynamicObject, patch: &mut Patch<'_>| {
        patch.set(POINTER, new.clone());
        let kept = keep.map(Value::to_string);
        patch.annotate(SELECTOR, kept.as_deref());
        Ok(())
    };
    match on.edit(&front.service(), change, read, write).await? {
        // It was there already: a try before this one got through.
        Cas::Conflict { actual } if actual.as_ref() == change.new => Ok(Cas::Applied),
        other => Ok(other),
    }
}

/// The slices of a Service.
async fn slices(on: &KubePlatform, front: &Front, service: &str) -> Result<Vec<EndpointSlice>> {
    let api: Api<EndpointSlice> = Api::namespaced(on.clients.calls.clone(), &front.namespace);
    let of_service = ListParams::default().labels(&format!("{OF_SERVICE}={service}"));
    let listed = api.list(&of_service).await.map_err(|error| on.error(error))?;
    Ok(listed.items)
}

/// Who writes a slice.
fn written_by(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(WRITTEN_BY).map(String::as_str)
}

async fn slices_there(on: &KubePlatform, front: &Front, change: &Change<'_>, service: &Service) -> Result<Cas> {
    let theirs = slices(on, front, &front.service).await?;
    if !change.dry_run {
        on.admit(change.by).await?;
        create(on, front, change, &of_hop(on, front, service).await?).await?;
    }
    for slice in theirs {
        // Between the two, both get connections.
        lend(on, front, &slice.metadata.name.unwrap_or_default(), change).await?;
    }
    Ok(Cas::Applied)
}

async fn slices_back(on: &KubePlatform, front: &Front, dry_run: bool) -> Result<()> {
    let of_service = slices(on, front, &front.service).await?;
    for slice in &of_service {
        take_back(on, front, slice.metadata.name.as_deref().unwrap_or_default(), dry_run).await?;
    }
    if dry_run {
        return Ok(());
    }
    let of_origin = slices(on, front, &front.origin()).await?;
    // Those of a copy with a selector are its controller's.
    let ours = of_service.into_iter().chain(of_origin);
    for slice in ours.filter(|slice| written_by(slice) == Some(MANAGER)) {
        let name = slice.metadata.name.unwrap_or_default();
        front
            .hop()
            .remove(on, Target::of::<EndpointSlice>(&front.namespace, &name))
            .await?;
    }
    Ok(())
}

async fn create(on: &KubePlatform, front: &Front, change: &Change<'_>, slice: &EndpointSlice) -> Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(on.clients.calls.clone(), &front.namespace);
    unless_there(api.create(&creating(change), slice).await).map_err(|error| on.error(error))
}

/// Gives the addresses of a slice to one of the copy, and notes on it which they were.
async fn lend(on: &KubePlatform, front: &Front, slice: &str, change: &Change<'_>) -> Result<()> {
    let target = Target::of::<EndpointSlice>(&front.namespace, slice);
    while let Some(object) = on.read(&target).await? {
        if annotation(&object, ADDRESSES).is_some() {
            break;
        }
        let lent = ours(front, &format!("{slice}-origin"), &front.origin(), &object.data);
        if !change.dry_run {
            create(on, front, change, &lent).await?;
        }
        let mut patch = Patch::new(&object);
        patch.annotate(ADDRESSES, Some(&object.data["endpoints"].to_string()));
        patch.set("/endpoints", json!([]));
        match on.patch(&target, patch.into_ops(), change.dry_run).await? {
            Patched::Done | Patched::Gone => break,
            // Other addresses, maybe.
            Patched::Raced if change.dry_run => {}
            Patched::Raced => {
                let copy = lent.metadata.name.unwrap_or_default();
                front
                    .hop()
                    .remove(on, Target::of::<EndpointSlice>(&front.namespace, &copy))
                    .await?;
            }
        }
    }
    Ok(())
}

/// Gives a slice back the addresses that it had; those that somebody else has given it since stay.
async fn take_back(on: &KubePlatform, front: &Front, slice: &str, dry_run: bool) -> Result<()> {
    let target = Target::of::<EndpointSlice>(&front.namespace, slice);
    while let Some(object) = on.read(&target).await? {
        let Some(had) = annotation(&object, ADDRESSES).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            break;
        };
        let mut patch = Patch::new(&object);
        patch.annotate(ADDRESSES, None);
        if object.data["endpoints"].as_array().is_none_or(Vec::is_empty) {
            patch.set("/endpoints", had);
        }
        match on.patch(&target, patch.into_ops(), dry_run).await? {
            Patched::Done | Patched::Gone => break,
            Patched::Raced => {}
        }
    }
    Ok(())
}

/// A slice with the address of the hop.
async fn of_hop(on: &KubePlatform, front: &Front, service: &Service) -> Result<EndpointSlice> {
    let pods: Api<Pod> = Api::namespaced(on.clients.calls.clone(), &front.namespace);
    let hop = front.hop();
    let name = hop.ready_pod(on).await?.unwrap_or_default();
    let pod = pods.get(&name).await.map_err(|error| on.error(error))?;
    let address = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
    let ports: Vec<Value> = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
        .enumerate()
        .map(|(index, port)| {
            let (number, _) = objects::inner(port, index);
            json!({ "name": port.name.clone().unwrap_or_default(), "port": number, "protocol": "TCP" })
        })
        .collect();
    let addresses = json!({
        "addressType": if address.contains(':') { "IPv6" } else { "IPv4" },
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": ports,
    });
    Ok(ours(front, &hop.name, &front.service, &addresses))
}

/// A slice of ours with these addresses.
fn ours(front: &Front, name: &str, service: &str, addresses: &Value) -> EndpointSlice {
    let slice = json!({
        "metadata": {
            "name": name,
            "namespace": front.namespace,
            "labels": { OF_SERVICE: service, WRITTEN_BY: MANAGER, HOP: front.hop().name },
        },
        "addressType": addresses["addressType"],
        "endpoints": addresses["endpoints"],
        "ports": addresses["ports"],
    });
    serde_json::from_value(slice).expect("it is an EndpointSlice")
}
