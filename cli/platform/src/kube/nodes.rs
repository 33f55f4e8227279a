//! Nodes: which there are, what runs on one, whether it takes new pods, and having a pod leave. Who is made to leave, and in
//! which order, is decided elsewhere.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as KubeNode, Pod};
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::Value;

use super::KubePlatform;
use super::edit::{Change, Patch, Target};
use super::field::invalid;
use crate::{Cas, Fence, Field, Instance, Keeper, Node, Result, Tenant};

/// The annotation of pods that the node itself runs.
const MIRROR: &str = "kubernetes.io/config.mirror";
const POINTER: &str = "/spec/unschedulable";

fn target(node: &str) -> Target {
    Target {
        resource: ApiResource::erase::<KubeNode>(&()),
        namespace: None,
        name: node.to_owned(),
    }
}

/// The objects that a node's field lives in.
pub(super) fn targets(node: &str) -> Vec<Target> {
    vec![target(node)]
}

fn unschedulable(object: &DynamicObject) -> Option<Value> {
    let set = object.data.pointer(POINTER) == Some(&Value::Bool(true));
    set.then_some(Value::Bool(true))
}

pub(super) async fn get(on: &KubePlatform, node: &str, field: &Field) -> Result<Option<Value>> {
    match on.read(&target(node)).await? {
        Some(object) => Ok(unschedulable(&object)),
        None => Err(crate::PlatformError::UnknownField { field: field.clone() }),
    }
}

/// Cordons and uncordons.
pub(super) async fn set(on: &KubePlatform, node: &str, change: &Change<'_>) -> Result<Cas> {
    if !matches!(change.new, None | Some(Value::Bool(true))) {
        return Err(invalid(change.field, "it is `true` or absent"));
    }
    let write = |object: &DynamicObject, patch: &mut Patch<'_>| {
        match change.new {
            Some(_) => patch.set(POINTER, true),
            None if object.data.pointer(POINTER).is_some() => patch.remove(POINTER),
            None => {}
        }
        Ok(())
    };
    on.edit(&target(node), change, unschedulable, write).await
}

impl KubePlatform {
    pub(super) async fn list_nodes(&self) -> Result<Vec<Node>> {
        let api: Api<KubeNode> = Api::all(self.clients.calls.clone());
        let listed = api.list(&ListParams::default()).await;
        let mut nodes: Vec<Node> = listed
            .map_err(|error| self.error(error))?
            .items
            .into_iter()
            .map(|node| {
                let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
                Node {
                    name: node.metadata.name.unwrap_or_default(),
                    ready: conditions
                        .iter()
                        .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
                    unschedulable: node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
                }
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    pub(super) async fn list_tenants(&self, node: &str) -> Result<Vec<Tenant>> {
        let api: Api<Pod> = Api::all(self.clients.calls.clone());
        let there = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = api.list(&there).await.map_err(|error| self.error(error))?;
        let known = self.all_states().await?;
        let service_of = |uid: &str| {
            let mut states = known.iter();
            let state = states.find(|state| state.instances.iter().any(|instance| instance.uid == uid));
            state.map(|state| state.name.clone())
        };
        let mut tenants = Vec::new();
        for pod in pods.items {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            // What has ended, and what is about to.
            if matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            tenants.push(Tenant {
                kept_by: keeper(&pod),
                local_data: volumes.into_iter().any(|volume| volume.empty_dir.is_some()),
                namespace: pod.metadata.namespace.unwrap_or_default(),
                name: pod.metadata.name.unwrap_or_default(),
                service: service_of(&uid),
                uid,
            });
        }
        Ok(tenants)
    }

    pub(super) async fn evict_tenant(&self, by: &Fence, tenant: &Tenant) -> Result<Timestamp> {
        self.admit(Some(by)).await?;
        let instance = Instance {
            id: tenant.name.clone(),
            uid: tenant.uid.clone(),
            ..nobody()
        };
        self.evict(Some(by), &tenant.namespace, &instance, Duration::ZERO, false)
            .await
    }
}

/// An instance of which nothing is known but what the caller adds.
fn nobody() -> Instance {
    Instance {
        id: String::new(),
        uid: String::new(),
        service: String::new(),
        version: String::new(),
        ready: false,
        state: crate::InstanceState::Ready,
        started_at: None,
        restarts: 0,
        pid: None,
        addresses: crate::Addresses::default(),
        last_exit: None,
        last_end: None,
        labels: std::collections::BTreeMap::new(),
    }
}

fn keeper(pod: &Pod) -> Keeper {
    let annotations = pod.metadata.annotations.as_ref();
    if annotations.is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return Keeper::Node;
    }
    let mut owners = pod.metadata.owner_references.iter().flatten();
    match owners
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.kind.as_str())
    {
        Some("DaemonSet") => Keeper::Daemon,
        Some(_) => Keeper::Controller,
        None => Keeper::Nobody,
    }
}
