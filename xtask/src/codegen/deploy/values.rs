//! What may be chosen of the deployment on Kubernetes: the defaults, what an environment has otherwise, and what each
//! value means. The chart's values files and schema and the kustomize overlays are all made from this.

use serde_json::{Map, Value, json};

use super::stack::{Listed, Stack};

/// The environments.
pub const ENVIRONMENTS: &[&str] = &["development", "staging", "production"];

/// The address of the node of `cargo xtask cluster`, where its gateway, Prometheus and PostgreSQL listen.
const NODE: &str = "10.250.0.1";

/// What a service offers beyond what the catalogue says of it.
struct Offer {
    service: &'static str,
    /// Beginnings of the paths that the gateway lets through.
    paths: &'static [&'static str],
    grpc: bool,
    /// Whether it has keys to sign with.
    keys: bool,
    /// Whether it tells how many events wait in its outbox.
    queue: bool,
    /// What a pod may use, and is sure to get.
    memory: &'static str,
}

const MEMORY: &str = "128Mi";

const OFFERS: &[Offer] = &[
    Offer {
        service: "identity",
        paths: &["/register", "/login", "/.well-known", "/health"],
        grpc: false,
        keys: true,
        queue: false,
        // Hashing a password takes 16 MiB, and without a limit of CPU it hashes as many at a time as the node has cores.
        memory: "512Mi",
    },
    Offer {
        service: "orders",
        paths: &["/orders", "/reconciliation", "/outbox", "/openapi.json", "/health"],
        grpc: true,
        keys: false,
        queue: true,
        memory: MEMORY,
    },
    Offer {
        service: "payments",
        paths: &["/health"],
        grpc: true,
        keys: false,
        queue: false,
        memory: MEMORY,
    },
    Offer {
        service: "notifications",
        paths: &["/health"],
        grpc: true,
        keys: false,
        queue: false,
        memory: MEMORY,
    },
];

/// The defaults. `version`: of this project, which its images are tagged with.
pub fn defaults(stack: &Stack, version: &str) -> Value {
    let services: Map<String, Value> = stack
        .services
        .iter()
        .map(|service| (service.name.clone(), of(service, stack)))
        .collect();
    let namespace =
        |name: &str| json!([{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } }]);
    json!({
        "project": "shop",
        "environment": "production",
        "image": { "repository": "opsctl", "tag": version, "pullPolicy": "IfNotPresent", "pullSecrets": [] },
        "rollout": {
            "minReadySeconds": 2,
            "progressDeadlineSeconds": 300,
            "graceSeconds": 30,
            "spreadOverNodes": "ScheduleAnyway",
        },
        "telemetry": {
            "otlp": "http://collector.monitoring:4318",
            "loki": "http://loki.monitoring:3100",
            "sampler": "parentbased_always_on",
        },
        "gateway": { "enabled": true, "name": "gateway", "namespace": "opsctl", "domain": "shop.local", "port": 80 },
        "network": {
            "enabled": true,
            "gateway": { "peers": namespace("opsctl"), "ports": [tcp(8000)] },
            "prometheus": { "peers": namespace("monitoring") },
            "telemetry": { "peers": namespace("monitoring"), "ports": [tcp(4318), tcp(3100)] },
            "database": { "peers": namespace("databases"), "ports": [tcp(5432)] },
            "dns": {
                "peers": [{
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
                    "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
                }],
                "ports": [{ "protocol": "UDP", "port": 53 }, tcp(53)],
            },
        },
        "services": services,
    })
}

fn tcp(port: u16) -> Value {
    json!({ "protocol": "TCP", "port": port })
}

fn of(service: &Listed, stack: &Stack) -> Value {
    let name = &service.name;
    let offer = OFFERS.iter().find(|offer| offer.service == name);
    let callers = stack.services.iter().filter(|other| other.depends_on.contains(name));
    let callers: Vec<&str> = callers.map(|caller| caller.name.as_str()).collect();
    let calls: Map<String, Value> = service
        .depends_on
        .iter()
        .map(|peer| (peer.clone(), json!({ "gateway": false })))
        .collect();
    let memory = offer.map_or(MEMORY, |offer| offer.memory);
    let mut values = json!({
        "owner": service.team,
        "costCenter": service.team,
        "tag": "",
        "replicas": 2,
        "resources": { "requests": { "cpu": "100m", "memory": memory }, "limits": { "memory": memory } },
        "autoscaling": {
            "enabled": true,
            "minReplicas": 2,
            "maxReplicas": 6,
            "cpu": 70,
            "memory": 80,
            "scaleDownSeconds": 300,
            "requestsPerSecond": 0,
        },
        "maxUnavailable": 1,
        "database": { "secret": format!("{name}-database"), "key": "url", "connections": 10 },
        "admin": { "secret": "", "key": "token", "writes": true },
        "grpc": offer.is_some_and(|offer| offer.grpc),
        "paths": offer.map_or(&["/"][..], |offer| offer.paths),
        "calls": calls,
        "callers": callers,
        "hostAliases": [],
        "env": {},
    });
    if offer.is_some_and(|offer| offer.queue) {
        values["autoscaling"]["queueSize"] = 0.into();
    }
    if offer.is_some_and(|offer| offer.keys) {
        values["keys"] = json!({ "secret": format!("{name}-keys") });
    }
    values
}

/// What an environment has otherwise than the defaults.
pub fn of_environment(environment: &str, defaults: &Value) -> Value {
    let each = |values: Value| -> Value {
        let services = defaults["services"].as_object().into_iter().flatten();
        services.map(|(name, _)| (name.clone(), values.clone())).collect()
    };
    match environment {
        // The cluster of `cargo xtask cluster`: images that lie on its node, servers on the node's address, and its own
        // CoreDNS, which knows the gateway's hosts.
        "development" => {
            let node = json!({ "peers": [{ "ipBlock": { "cidr": format!("{NODE}/32") } }] });
            let gateway = json!({ "peers": node["peers"], "ports": [tcp(80)] });
            let names = json!({
                "peers": [{
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
                    "podSelector": { "matchLabels": { "app.kubernetes.io/name": "coredns" } },
                }],
                "ports": [{ "protocol": "UDP", "port": 1053 }, tcp(1053)],
            });
            let mut services = each(json!({ "autoscaling": { "enabled": false } }));
            // So that a canary of payments gets its share of what orders asks.
            services["orders"]["calls"] = json!({ "payments": { "gateway": true } });
            json!({
                "environment": environment,
                "image": { "pullPolicy": "Never" },
                "telemetry": { "otlp": "", "loki": "" },
                "network": { "gateway": gateway, "prometheus": node, "telemetry": node, "database": node, "dns": names },
                "services": services,
            })
        }
        "staging" => json!({
            "environment": environment,
            "services": each(json!({ "autoscaling": { "maxReplicas": 4 } })),
        }),
        _ => json!({
            "environment": environment,
            "rollout": { "spreadOverNodes": "DoNotSchedule" },
            "services": each(json!({ "replicas": 3, "autoscaling": { "minReplicas": 3, "maxReplicas": 12 } })),
        }),
    }
}

/// The values with others over them, as Helm lays files over each other: maps by key, everything else as a whole.
pub fn over(values: &mut Value, others: &Value) {
    match (values, others) {
        (Value::Object(values), Value::Object(others)) => {
            for (key, other) in others {
                over(values.entry(key).or_insert(Value::Null), other);
            }
        }
        (value, other) => *value = other.clone(),
    }
}

/// What each value means; `*` stands for every service.
const MEANINGS: &[(&str, &str)] = &[
    (
        "project",
        "What the services are together: in labels, and in the name of the policy that denies by default",
    ),
    (
        "environment",
        "In labels, and what the services call it in their telemetry",
    ),
    ("image", "REPOSITORY/SERVICE:TAG"),
    ("image.repository", "Registry and folder"),
    (
        "image.tag",
        "Also the label app.kubernetes.io/version; a service may have its own",
    ),
    ("image.pullPolicy", "When nodes ask the registry"),
    ("image.pullSecrets", "Names of Secrets for the registry: [{ name: … }]"),
    ("rollout", "How pods come and go"),
    (
        "rollout.minReadySeconds",
        "How long a new pod must have been ready before the next one is replaced",
    ),
    (
        "rollout.progressDeadlineSeconds",
        "After how long without progress a roll-out counts as failed",
    ),
    (
        "rollout.graceSeconds",
        "From SIGTERM to SIGKILL: more than the 27 s that a service may take to drain (DRAIN_DELAY, DRAIN_TIMEOUT, DRAIN_FLUSH)",
    ),
    (
        "rollout.spreadOverNodes",
        "What to do with a pod that cannot be put onto another node than its siblings",
    ),
    ("telemetry", "Where logs and traces go; nowhere when empty"),
    ("telemetry.otlp", "OTLP over HTTP, for traces"),
    ("telemetry.loki", "Loki, for logs; they are on stdout in any case"),
    (
        "telemetry.sampler",
        "OTEL_TRACES_SAMPLER: the collector must see all spans to keep whole traces",
    ),
    (
        "gateway",
        "The Gateway that routes are attached to; its listener must allow routes from this namespace",
    ),
    ("gateway.enabled", "Whether there are routes"),
    ("gateway.name", "Its name"),
    ("gateway.namespace", "Its namespace"),
    (
        "gateway.domain",
        "Hosts are SERVICE.DOMAIN for HTTP and SERVICE-grpc.DOMAIN for gRPC",
    ),
    (
        "gateway.port",
        "Where services reach it, when they call another service through it",
    ),
    (
        "network",
        "NetworkPolicies: who may talk to the services beside each other, and to whom they may. Peers are those of a NetworkPolicy; ports are those of the pods behind a Service",
    ),
    (
        "network.enabled",
        "Whether there are policies; a network plugin must enforce them",
    ),
    ("network.gateway", "The gateway's pods"),
    ("network.prometheus", "Who scrapes"),
    ("network.telemetry", "The collector and Loki"),
    ("network.database", "PostgreSQL"),
    ("network.dns", "Cluster DNS"),
    ("network.*.peers", "Who; nobody when empty"),
    ("network.*.ports", "Where"),
    ("services", "The services"),
    ("services.*.owner", "The team that answers for it: a label"),
    ("services.*.costCenter", "Who pays for it: a label"),
    ("services.*.tag", "Its own tag, when it is not image.tag"),
    ("services.*.replicas", "Pods, when there is no autoscaling"),
    ("services.*.resources", "A limit of memory, and none of CPU"),
    (
        "services.*.autoscaling",
        "A HorizontalPodAutoscaler: up at once, down one pod a minute",
    ),
    ("services.*.autoscaling.enabled", "Whether there is one"),
    ("services.*.autoscaling.minReplicas", "At least"),
    (
        "services.*.autoscaling.maxReplicas",
        "At most; mind the connections that the database allows",
    ),
    (
        "services.*.autoscaling.cpu",
        "Use of the requested CPU to hold, in percent",
    ),
    (
        "services.*.autoscaling.memory",
        "Use of the requested memory to hold, in percent",
    ),
    (
        "services.*.autoscaling.scaleDownSeconds",
        "How long less must have been enough",
    ),
    (
        "services.*.autoscaling.requestsPerSecond",
        "Requests per second and pod to hold; 0 for none. Needs an adapter for Prometheus",
    ),
    (
        "services.*.autoscaling.queueSize",
        "Events in the outbox per pod to hold; 0 for none. Needs an adapter for Prometheus",
    ),
    (
        "services.*.maxUnavailable",
        "How many pods evictions may take at a time: a PodDisruptionBudget",
    ),
    (
        "services.*.database",
        "The Secret that holds DATABASE_URL (postgres://…)",
    ),
    (
        "services.*.database.connections",
        "At most, of one pod: mind maxReplicas",
    ),
    (
        "services.*.admin",
        "The admin listener, on the pod's loopback alone: `opsctl policy` reaches it through the API server",
    ),
    (
        "services.*.admin.secret",
        "The Secret that holds its token, of 16 characters or more; empty: there is no listener. A pod does not start without its Secret",
    ),
    ("services.*.admin.key", "Where in the Secret"),
    (
        "services.*.admin.writes",
        "Whether policies can be forced and log levels set through it",
    ),
    ("services.*.keys", "The Secret whose files are the signing keys"),
    ("services.*.grpc", "Whether there is a GRPCRoute"),
    (
        "services.*.paths",
        "Beginnings of the paths that the gateway lets through",
    ),
    (
        "services.*.calls",
        "The services that it calls, each directly or through the gateway",
    ),
    ("services.*.callers", "The services that call it"),
    ("services.*.hostAliases", "Names that cluster DNS does not know"),
    ("services.*.env", "More variables of the environment: NAME: text"),
];

/// The meaning of the value at a path.
fn meaning(path: &[&str]) -> Option<&'static str> {
    let matches = |pattern: &str| {
        let parts: Vec<&str> = pattern.split('.').collect();
        parts.len() == path.len() && parts.iter().zip(path).all(|(part, key)| *part == "*" || part == key)
    };
    MEANINGS
        .iter()
        .find(|(pattern, _)| matches(pattern))
        .map(|(_, text)| *text)
}

/// The values with their meanings as comments: what is said of one service is not said again of the others.
pub fn with_comments(values: &Value) -> Value {
    let mut path = Vec::new();
    commented(values, &mut path, true)
}

fn commented<'a>(value: &'a Value, path: &mut Vec<&'a str>, say: bool) -> Value {
    let Value::Object(entries) = value else {
        return value.clone();
    };
    let mut all = Map::new();
    for (position, (key, value)) in entries.iter().enumerate() {
        let first = say && (path.as_slice() != ["services"] || position == 0);
        path.push(key);
        if let Some(text) = meaning(path).filter(|_| first) {
            all.insert(format!("# {text}."), Value::Null);
        }
        all.insert(key.clone(), commented(value, path, first));
        path.pop();
    }
    all.into()
}

/// A JSON schema that takes the values and refuses what nobody would read.
pub fn schema(values: &Value) -> Value {
    let mut schema = described(values, &mut Vec::new());
    let Value::Object(entries) = &mut schema else {
        return schema;
    };
    entries.shift_insert(
        0,
        "$schema".to_owned(),
        "http://json-schema.org/draft-07/schema#".into(),
    );
    // Helm adds this one by itself.
    entries["properties"]["global"] = json!({ "type": "object" });
    schema
}

fn described<'a>(value: &'a Value, path: &mut Vec<&'a str>) -> Value {
    let mut schema = Map::new();
    if let Some(text) = meaning(path) {
        schema.insert("description".to_owned(), text.into());
    }
    let more = match (path.as_slice(), value) {
        (["image", "pullPolicy"], _) => json!({ "enum": ["Always", "IfNotPresent", "Never"] }),
        (["rollout", "spreadOverNodes"], _) => json!({ "enum": ["ScheduleAnyway", "DoNotSchedule"] }),
        // A tag is also a label.
        (["image", "tag"], _) => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,61}[A-Za-z0-9]$|^[A-Za-z0-9]$" })
        }
        (["services", _, "env"], _) => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        (["services", _, "calls", _], _) => json!({
            "type": "object",
            "properties": { "gateway": { "type": "boolean" } },
            "additionalProperties": false,
        }),
        (_, Value::Object(entries)) => {
            let mut properties = Map::new();
            for (key, value) in entries {
                path.push(key);
                properties.insert(key.clone(), described(value, path));
                path.pop();
            }
            json!({ "type": "object", "properties": properties, "additionalProperties": false })
        }
        (_, Value::Array(_)) => json!({ "type": "array" }),
        (_, Value::Number(_)) => json!({ "type": "integer", "minimum": 0 }),
        (_, Value::Bool(_)) => json!({ "type": "boolean" }),
        (_, Value::String(_) | Value::Null) => json!({ "type": "string" }),
    };
    if let Value::Object(more) = more {
        schema.extend(more);
    }
    schema.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every path of the values, with `*` for a service.
    fn paths(value: &Value, path: &str, all: &mut BTreeSet<String>) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let key = if path == "services" { "*" } else { key };
            let path = if path.is_empty() {
                key.to_owned()
            } else {
                format!("{path}.{key}")
            };
            paths(value, &path, all);
            all.insert(path);
        }
    }

    #[test]
    fn a_value_has_a_meaning_and_a_meaning_a_value() {
        let defaults = defaults(&Stack::read().unwrap(), "1");
        let mut all = BTreeSet::new();
        paths(&defaults, "", &mut all);
        for (pattern, _) in MEANINGS {
            let parts: Vec<&str> = pattern.split('.').collect();
            let has = |path: &String| {
                let path: Vec<&str> = path.split('.').collect();
                path.len() == parts.len() && parts.iter().zip(path).all(|(part, key)| *part == "*" || *part == key)
            };
            assert!(all.iter().any(has), "{pattern} means a value that is not there");
        }
        for path in &all {
            let keys: Vec<&str> = path.split('.').collect();
            // These speak for themselves, or are not ours.
            let plain = [
                "services.*",
                "services.*.resources.",
                "services.*.database.",
                "services.*.keys.",
                "services.*.calls.",
            ];
            let plain = plain
                .iter()
                .any(|known| path == known || (known.ends_with('.') && path.starts_with(known)));
            assert!(plain || meaning(&keys).is_some(), "nobody says what {path} means");
        }
    }

    #[test]
    fn files_of_an_environment_say_only_what_there_is() {
        let defaults = defaults(&Stack::read().unwrap(), "1");
        let (mut known, mut named) = (BTreeSet::new(), BTreeSet::new());
        paths(&defaults, "", &mut known);
        for environment in ENVIRONMENTS {
            paths(&of_environment(environment, &defaults), "", &mut named);
        }
        assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
