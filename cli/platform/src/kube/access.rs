//! Which rights which command needs, by verb. What `opsctl rbac` prints and what is asked for before anything is changed
//! come from one table ([`ACCESS`]), which holds no verb that is not needed.

use futures::StreamExt as _;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::{KubePlatform, Provider};
use crate::Result;

/// What is done on a cluster, as far as rights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Command {
    /// `status`, `health`, `run list`, and the warning of orphans at every start.
    Status,
    /// `logs`.
    Logs,
    /// `health check` and `health watch`.
    Health,
    /// `policy show`, and `force` and `reset` where a pod's admin listener takes changes.
    Policy,
    /// `drill pod-kill` by eviction.
    PodKill,
    /// `drill pod-kill --mode delete`.
    PodKillDelete,
    /// `drill pod-kill --mode container`.
    PodKillContainer,
    /// `drill service-down`.
    ServiceDown,
    /// `drill node-drain`.
    NodeDrain,
    /// `drill latency` and `drill db-down`, by a proxy in between.
    Hop,
    /// `drill db-down --mode policy`.
    Cut,
    /// `deploy canary`, `deploy promote`, `deploy abort`.
    Canary,
    /// `restore --replace` of a database whose address is in a Secret.
    Restore,
    /// Judge and watchdog in the cluster.
    Job,
}

use Command::{
    Canary, Cut, Health, Hop, Job, Logs, NodeDrain, PodKill, PodKillContainer, PodKillDelete, Policy, Restore,
    ServiceDown, Status,
};

impl Command {
    /// All of them.
    pub const ALL: &[Self] = &[
        Status,
        Logs,
        Health,
        Policy,
        PodKill,
        PodKillDelete,
        PodKillContainer,
        ServiceDown,
        NodeDrain,
        Hop,
        Cut,
        Canary,
        Restore,
        Job,
    ];
    /// Those of `drill`.
    pub const DRILLS: &[Self] = &[
        PodKill,
        PodKillDelete,
        PodKillContainer,
        ServiceDown,
        NodeDrain,
        Hop,
        Cut,
    ];
}

/// One row: the verbs that some commands need of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Plural, with its subresource: `pods/eviction`.
    pub resource: &'static str,
    /// `get`, `list` …
    pub verbs: &'static [&'static str],
    /// Whether it belongs to the cluster and not to a namespace, or is asked for in all of them.
    pub cluster: bool,
    /// Who needs them.
    pub for_: &'static [Command],
    /// Only where this one splits the traffic.
    pub by: Option<Provider>,
}

/// One verb that is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `get`, `patch` …
    pub verb: &'static str,
    /// With its group: `deployments.apps`, `pods/eviction`.
    pub resource: String,
    /// Where; `None` for the whole cluster.
    pub namespace: Option<String>,
}

/// Every command that changes something: record, lock, undo.
const RUNS: &[Command] = &[
    PodKill,
    PodKillDelete,
    PodKillContainer,
    ServiceDown,
    NodeDrain,
    Hop,
    Cut,
    Canary,
    Restore,
];
/// Every command that looks at services.
const LOOKS: &[Command] = &[
    Status,
    Logs,
    Health,
    Policy,
    PodKill,
    PodKillDelete,
    PodKillContainer,
    ServiceDown,
    NodeDrain,
    Hop,
    Cut,
    Canary,
    Restore,
];
use Provider::{Gateway, IngressNginx, Replicas};

const GATEWAY: &str = "gateway.networking.k8s.io";

const fn row(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    for_: &'static [Command],
) -> Access {
    Access {
        group,
        resource,
        verbs,
        cluster: false,
        for_,
        by: None,
    }
}

const fn split(
    by: Provider,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    for_: &'static [Command],
) -> Access {
    Access {
        by: Some(by),
        ..row(group, resource, verbs, for_)
    }
}

const fn everywhere(resource: &'static str, verbs: &'static [&'static str], for_: &'static [Command]) -> Access {
    Access {
        cluster: true,
        ..row("", resource, verbs, for_)
    }
}

/// The least rights, by command.
pub const ACCESS: &[Access] = &[
    // What services are, and how their traffic is split.
    row("apps", "deployments", &["get", "list"], LOOKS),
    row("", "pods", &["get", "list"], LOOKS),
    split(Gateway, GATEWAY, "httproutes", &["list"], LOOKS),
    split(Gateway, GATEWAY, "grpcroutes", &["list"], LOOKS),
    split(IngressNginx, "networking.k8s.io", "ingresses", &["list"], LOOKS),
    // Orphans are seen by their records and locks.
    row("", "configmaps", &["get", "list"], LOOKS),
    row("coordination.k8s.io", "leases", &["get"], LOOKS),
    row("", "pods/log", &["get"], &[Logs]),
    // Over a web socket, which begins as a GET: what is asked for is `get` or `create`, as the server is old or new.
    row("", "pods/portforward", &["get", "create"], &[Health, Policy, Hop, Cut]),
    // The token of an admin listener, or of a hop.
    row("", "secrets", &["get"], &[Policy, Hop, Cut, Restore]),
    // Record, lock, and old records removed.
    row("", "configmaps", &["create", "patch", "delete"], RUNS),
    row("coordination.k8s.io", "leases", &["create", "update", "delete"], RUNS),
    // What a drill does, and its undo.
    row("", "pods/eviction", &["create"], &[PodKill]),
    row("policy", "poddisruptionbudgets", &["list"], &[PodKill]),
    row("", "pods", &["delete"], &[PodKillDelete]),
    row("", "pods/exec", &["create", "get"], &[PodKillContainer]),
    row(
        "apps",
        "deployments",
        &["patch"],
        &[ServiceDown, Hop, Cut, Canary, Restore],
    ),
    row("", "secrets", &["patch"], &[Restore]),
    everywhere("nodes", &["get", "list", "patch"], &[NodeDrain]),
    everywhere("pods", &["list"], &[NodeDrain]),
    everywhere("pods/eviction", &["create"], &[NodeDrain]),
    row("apps", "deployments", &["create", "delete"], &[Hop, Cut, Canary]),
    row("", "services", &["get"], &[Hop, Cut, Canary]),
    row("", "services", &["create", "delete"], &[Hop, Canary]),
    row("", "services", &["patch"], &[Hop]),
    row("", "secrets", &["create", "delete"], &[Hop, Cut]),
    row("discovery.k8s.io", "endpointslices", &["list"], &[Hop, Cut]),
    row(
        "discovery.k8s.io",
        "endpointslices",
        &["get", "create", "patch", "delete"],
        &[Hop],
    ),
    row(
        "networking.k8s.io",
        "networkpolicies",
        &["get", "list", "create", "delete"],
        &[Cut],
    ),
    split(Gateway, GATEWAY, "httproutes", &["get", "patch"], &[Canary]),
    split(Gateway, GATEWAY, "grpcroutes", &["get", "patch"], &[Canary]),
    split(
        IngressNginx,
        "networking.k8s.io",
        "ingresses",
        &["get", "create", "patch", "delete"],
        &[Canary],
    ),
    split(Replicas, "", "services", &["list", "patch"], &[Canary]),
    split(Replicas, "", "pods", &["patch"], &[Canary]),
    // Judge and watchdog in the cluster.
    row("batch", "jobs", &["create", "get", "delete"], &[Job]),
];

/// The rows that `commands` need where `providers` split the traffic.
pub fn needed(commands: &[Command], providers: &[Provider]) -> Vec<Access> {
    let wanted = |row: &&Access| {
        row.by.is_none_or(|by| providers.contains(&by)) && row.for_.iter().any(|command| commands.contains(command))
    };
    ACCESS.iter().filter(wanted).copied().collect()
}

/// Reviews asked for at one time.
const AT_ONCE: usize = 8;

impl KubePlatform {
    /// Which verbs of `rows` are not granted in each of `namespaces`: asks the API server for every one of them.
    pub async fn may(&self, namespaces: &[&str], rows: &[Access]) -> Result<Vec<Refused>> {
        let mut questions = Vec::new();
        for row in rows {
            let places: Vec<Option<&str>> = if row.cluster {
                vec![None]
            } else {
                namespaces.iter().copied().map(Some).collect()
            };
            for place in places {
                questions.extend(row.verbs.iter().map(|verb| (*row, *verb, place)));
            }
        }
        let answers: Vec<Result<Option<Refused>>> = futures::stream::iter(questions)
            .map(|(row, verb, namespace)| self.review(row, verb, namespace))
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut refused = Vec::new();
        for answer in answers {
            refused.extend(answer?.filter(|one| !refused.contains(one)));
        }
        Ok(refused)
    }

    async fn review(&self, row: Access, verb: &'static str, namespace: Option<&str>) -> Result<Option<Refused>> {
        let (resource, subresource) = match row.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (row.resource, None),
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(row.group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    verb: Some(verb.to_owned()),
                    namespace: namespace.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.clients.calls.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| self.error(error))?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        Ok((!allowed).then(|| Refused {
            verb,
            resource: full_name(row.group, row.resource),
            namespace: namespace.map(str::to_owned),
        }))
    }
}

/// `deployments.apps`, `pods/eviction`.
pub(super) fn full_name(group: &str, resource: &str) -> String {
    match (group, resource.split_once('/')) {
        ("", _) => resource.to_owned(),
        (group, Some((resource, sub))) => format!("{resource}.{group}/{sub}"),
        (group, None) => format!("{resource}.{group}"),
    }
}
