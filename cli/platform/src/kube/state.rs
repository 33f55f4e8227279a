//! What services are meant to be and what they are: read from Deployments, pods and routes. All services at once cost one
//! list of each per namespace, in pages that are boiled down as they come.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};

use super::split::{self, Split};
use super::{KubePlatform, PAGE, Workload};
use crate::{Addresses, End, Hold, Instance, InstanceState, PlatformError, Result, ServiceState, VersionState};

/// On a Deployment that is held down: a [`Held`].
pub(super) const HOLD: &str = "opsctl.dev/hold";
/// On pods: their version.
pub(super) const VERSION: &str = "app.kubernetes.io/version";

/// Why a Deployment has no pods, and how many it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) hold: Hold,
    pub(super) replicas: u32,
}

/// What one Deployment is meant to be.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) replicas: u32,
    pub(super) held: Option<Held>,
    pub(super) selector: String,
    pub(super) generation: i64,
}

impl Desired {
    pub(super) fn of(deployment: &Deployment, container: Option<&str>) -> Self {
        let spec = deployment.spec.as_ref();
        let template = spec.map(|spec| &spec.template);
        let labels = template
            .and_then(|template| template.metadata.as_ref())
            .and_then(|meta| meta.labels.as_ref());
        let containers = template
            .and_then(|template| template.spec.as_ref())
            .map_or(&[][..], |pod| &pod.containers);
        let name = deployment.name_any();
        let held = deployment
            .annotations()
            .get(HOLD)
            .and_then(|text| serde_json::from_str::<Held>(text).ok());
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1).try_into().unwrap_or(0);
        Self {
            version: version_of(labels, container_of(containers, container, &name)),
            replicas: held.as_ref().map_or(replicas, |held| held.replicas),
            held,
            selector: spec.map(|spec| selector(&spec.selector)).unwrap_or_default(),
            generation: deployment.metadata.generation.unwrap_or_default(),
            name,
        }
    }
}

impl KubePlatform {
    /// One Deployment of a service.
    pub(super) async fn deployment(&self, workload: &Workload, name: &str) -> Result<Option<Deployment>> {
        let api: Api<Deployment> = Api::namespaced(self.clients.calls.clone(), &workload.namespace);
        api.get_opt(name).await.map_err(|error| self.error(error))
    }

    pub(super) async fn desired(&self, workload: &Workload, name: &str) -> Result<Option<Desired>> {
        let deployment = self.deployment(workload, name).await?;
        Ok(deployment.map(|deployment| Desired::of(&deployment, workload.container.as_deref())))
    }

    pub(super) async fn state_of(&self, workload: &Workload) -> Result<ServiceState> {
        let canary = workload.canary_deployment();
        let (stable, canary, split) = tokio::try_join!(
            self.desired(workload, &workload.deployment),
            self.desired(workload, &canary),
            split::read(self, workload),
        )?;
        let mut instances = Vec::new();
        for deployment in [&stable, &canary].into_iter().flatten() {
            self.pods(&workload.namespace, Some(&deployment.selector), |pod| {
                if owner(pod).as_deref() == Some(&deployment.name) {
                    instances.extend(instance(pod, workload));
                }
            })
            .await?;
        }
        Ok(assemble(workload, stable, canary, split, instances))
    }

    pub(super) async fn all_states(&self) -> Result<Vec<ServiceState>> {
        let mut states = Vec::new();
        for namespace in self.settings.namespaces() {
            let here: Vec<&Workload> = self
                .settings
                .services
                .iter()
                .filter(|workload| workload.namespace == namespace)
                .collect();
            if !here.is_empty() {
                states.extend(self.states_in(namespace, &here).await?);
            }
        }
        states.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(states)
    }

    async fn states_in(&self, namespace: &str, workloads: &[&Workload]) -> Result<Vec<ServiceState>> {
        let mut by_deployment: BTreeMap<String, &Workload> = BTreeMap::new();
        for workload in workloads {
            by_deployment.insert(workload.deployment.clone(), workload);
            by_deployment.insert(workload.canary_deployment(), workload);
        }
        let mut desired: BTreeMap<String, Desired> = BTreeMap::new();
        let mut instances: BTreeMap<&str, Vec<Instance>> = BTreeMap::new();
        let deployments = self.deployments(namespace, |deployment| {
            if let Some(workload) = by_deployment.get(&deployment.name_any()) {
                let one = Desired::of(deployment, workload.container.as_deref());
                desired.insert(one.name.clone(), one);
            }
        });
        let pods = self.pods(namespace, None, |pod| {
            if let Some(workload) = owner(pod).and_then(|owner| by_deployment.get(&owner)) {
                let all = instances.entry(&workload.name).or_default();
                all.extend(instance(pod, workload));
            }
        });
        let ((), (), mut splits) = tokio::try_join!(deployments, pods, split::read_all(self, namespace, workloads))?;
        Ok(workloads
            .iter()
            .map(|workload| {
                assemble(
                    workload,
                    desired.remove(&workload.deployment),
                    desired.remove(&workload.canary_deployment()),
                    splits.remove(&workload.name).unwrap_or_default(),
                    instances.remove(workload.name.as_str()).unwrap_or_default(),
                )
            })
            .collect())
    }

    async fn deployments(&self, namespace: &str, each: impl FnMut(&Deployment)) -> Result<()> {
        let api: Api<Deployment> = Api::namespaced(self.clients.calls.clone(), namespace);
        self.each(&api, ListParams::default(), each).await
    }

    async fn pods(&self, namespace: &str, selector: Option<&str>, each: impl FnMut(&Pod)) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.clients.calls.clone(), namespace);
        let mut list = ListParams::default();
        if let Some(selector) = selector {
            list = list.labels(selector);
        }
        self.each(&api, list, each).await
    }

    /// Calls `each` for every object, page by page; no page outlives the next.
    pub(super) async fn each<K>(&self, api: &Api<K>, list: ListParams, mut each: impl FnMut(&K)) -> Result<()>
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let mut list = list.limit(PAGE);
        loop {
            let page = api.list(&list).await.map_err(|error| self.error(error))?;
            page.items.iter().for_each(&mut each);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => list = list.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// A service by name.
    pub(super) fn workload(&self, service: &str) -> Result<&Workload> {
        self.settings
            .workload(service)
            .ok_or_else(|| PlatformError::UnknownService {
                service: service.to_owned(),
            })
    }
}

fn assemble(
    workload: &Workload,
    stable: Option<Desired>,
    canary: Option<Desired>,
    split: Split,
    mut instances: Vec<Instance>,
) -> ServiceState {
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    let ready = |version: &str| {
        let ready = instances.iter().filter(|i| i.ready && i.version == version);
        ready.count().try_into().unwrap_or(u32::MAX)
    };
    let mut versions: Vec<VersionState> = Vec::new();
    for deployment in [&stable, &canary].into_iter().flatten() {
        match versions.iter_mut().find(|known| known.version == deployment.version) {
            // The end of a promotion: both run the new version.
            Some(known) => known.replicas += deployment.replicas,
            None => versions.push(VersionState {
                version: deployment.version.clone(),
                replicas: deployment.replicas,
                ready: ready(&deployment.version),
            }),
        }
    }
    let stable_version = split
        .stable_version
        .or_else(|| stable.as_ref().map(|deployment| deployment.version.clone()));
    let replicas = versions
        .iter()
        .find(|version| Some(&version.version) == stable_version.as_ref())
        .map_or(0, |version| version.replicas);
    let hostname = split.hostname.filter(|_| workload.by_hostname);
    let generations = [&stable, &canary]
        .into_iter()
        .flatten()
        .map(|d| d.generation)
        .sum::<i64>();
    ServiceState {
        name: workload.name.clone(),
        stable_version,
        replicas,
        versions,
        instances,
        canary: split.canary,
        hold: stable.and_then(|deployment| deployment.held).map(|held| held.hold),
        objectives: workload.objectives.clone(),
        front: Addresses {
            url: workload.url.clone(),
            host: workload.host.clone().or(hostname),
            ..Addresses::default()
        },
        health: workload.health.clone(),
        probe: workload.probe.clone(),
        depends_on: workload.depends_on.clone(),
        revision: generations.try_into().unwrap_or_default(),
    }
}

/// The Deployment that a pod belongs to: its ReplicaSet's name without the hash of the template.
pub(super) fn owner(pod: &Pod) -> Option<String> {
    let set = pod.owner_references().iter().find(|owner| owner.kind == "ReplicaSet")?;
    let hash = pod.labels().get("pod-template-hash")?;
    let name = set.name.strip_suffix(hash)?.strip_suffix('-')?;
    Some(name.to_owned())
}

/// A pod as an instance; none when it has ended for good.
fn instance(pod: &Pod, workload: &Workload) -> Option<Instance> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return None;
    }
    let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
    let main = container_of(containers, workload.container.as_deref(), &workload.deployment);
    let statuses = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let of_main = main.and_then(|main| statuses.iter().find(|status| status.name == main.name));
    let draining = pod.metadata.deletion_timestamp.is_some();
    let condition = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "Ready");
    let ready = !draining && condition.is_some_and(|condition| condition.status == "True");
    let running = |status: &ContainerStatus| {
        let running = status.state.as_ref()?.running.as_ref()?;
        running.started_at.as_ref().map(|time| time.0)
    };
    let started_at = of_main.and_then(running);
    let was_ready = condition
        .and_then(|condition| condition.last_transition_time.as_ref())
        .zip(started_at)
        .is_some_and(|(changed, started)| changed.0 > started);
    let waiting = statuses
        .iter()
        .find_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    let state = match (draining, ready, waiting) {
        (true, ..) => InstanceState::Draining,
        (_, true, _) => InstanceState::Ready,
        (_, _, Some(reason)) if hopeless(reason) => InstanceState::CrashLoop,
        _ if statuses.iter().any(has_ended) => InstanceState::Backoff,
        _ if was_ready => InstanceState::Unready,
        _ => InstanceState::Starting,
    };
    let (last_exit, last_end) = last_end(of_main, waiting);
    Some(Instance {
        id: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        service: workload.name.clone(),
        version: version_of(pod.metadata.labels.as_ref(), main),
        ready,
        state,
        started_at,
        restarts: statuses
            .iter()
            .map(|status| u32::try_from(status.restart_count).unwrap_or_default())
            .sum(),
        pid: None,
        addresses: Addresses::default(),
        last_exit,
        last_end,
        labels: pod.metadata.labels.clone().unwrap_or_default(),
    })
}

fn hopeless(reason: &str) -> bool {
    matches!(
        reason,
        "CrashLoopBackOff"
            | "ImagePullBackOff"
            | "ErrImagePull"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "CreateContainerConfigError"
            | "CreateContainerError"
            | "RunContainerError"
    )
}

fn has_ended(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.terminated.is_some())
}

/// How the main container ended last, or why it cannot start.
fn last_end(status: Option<&ContainerStatus>, waiting: Option<&str>) -> (Option<String>, Option<End>) {
    let ended = status.and_then(|status| {
        let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        now.or_else(|| status.last_state.as_ref().and_then(|state| state.terminated.as_ref()))
    });
    if let Some(ended) = ended {
        let how = match (ended.signal.filter(|signal| *signal > 0), ended.reason.as_deref()) {
            (_, Some("OOMKilled")) => "killed: out of memory".to_owned(),
            (Some(signal), _) => format!("killed by signal {signal}"),
            (None, _) if ended.exit_code > 128 => format!("killed by signal {}", ended.exit_code - 128),
            (None, _) => format!("exited with status {}", ended.exit_code),
        };
        return (Some(how), Some(End::Ended));
    }
    match waiting.filter(|reason| hopeless(reason)) {
        Some(reason) => (Some(reason.to_owned()), Some(End::NotStarted)),
        None => (None, None),
    }
}

/// Whether a pod takes requests, and is to go on.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .unwrap_or_default()
            .iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
}

/// The container that runs the service's program.
pub(super) fn container_of<'a>(
    containers: &'a [Container],
    named: Option<&str>,
    deployment: &str,
) -> Option<&'a Container> {
    let by_name = |name: &str| containers.iter().find(|container| container.name == name);
    match named {
        Some(name) => by_name(name),
        None => by_name(deployment).or(containers.first()),
    }
}

/// A version's label: what the pods' label says, else the image's tag, else the start of its digest.
pub(super) fn version_of(labels: Option<&BTreeMap<String, String>>, container: Option<&Container>) -> String {
    if let Some(label) = labels.and_then(|labels| labels.get(VERSION)).filter(|l| !l.is_empty()) {
        return label.clone();
    }
    let image = container.and_then(|container| container.image.as_deref());
    version_of_image(image.unwrap_or_default())
}

/// The tag of an image, else the start of its digest, else `latest`, which is what that means.
pub fn version_of_image(image: &str) -> String {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => tag.to_owned(),
        (None, Some(digest)) => {
            let hex = digest.rsplit(':').next().unwrap_or(digest);
            hex.chars().take(12).collect()
        }
        (None, None) => "latest".to_owned(),
    }
}

/// A label selector as a query has it.
fn selector(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        parts.push(format!("{key}={value}"));
    }
    for rule in selector.match_expressions.iter().flatten() {
        let values = rule.values.iter().flatten().cloned().collect::<Vec<_>>().join(",");
        parts.push(match rule.operator.as_str() {
            "In" => format!("{} in ({values})", rule.key),
            "NotIn" => format!("{} notin ({values})", rule.key),
            "Exists" => rule.key.clone(),
            _ => format!("!{}", rule.key),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_names_its_version() {
        for (image, version) in [
            ("opsctl/orders:1.2", "1.2"),
            ("host:5000/orders", "latest"),
            ("host:5000/orders:v3@sha256:0123456789abcdef", "v3"),
            ("orders@sha256:0123456789abcdef", "0123456789ab"),
        ] {
            assert_eq!(version_of_image(image), version, "{image}");
        }
    }
}
