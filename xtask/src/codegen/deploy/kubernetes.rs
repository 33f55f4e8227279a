//! The deployment as Kubernetes manifests, which any namespace takes: no privileges, no access to the host, no service
//! account.

use serde_json::{Map, Value, json};

use super::stack::{Container, Probes, Stack};

/// The documents. `text_of` says what a configuration file holds.
pub fn manifests(stack: &Stack, text_of: impl Fn(&str) -> String) -> Vec<Value> {
    // Who takes another server of the same kind applies it by itself.
    let containers = stack.containers.iter().filter(|container| !container.optional);
    containers.flat_map(|container| objects(container, &text_of)).collect()
}

fn objects(container: &Container, text_of: &impl Fn(&str) -> String) -> Vec<Value> {
    let mut objects = Vec::new();
    if let Some((file, _)) = container.configuration {
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(container),
            "data": { file: text_of(file) },
        }));
    }
    if container.data.is_some() {
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata(container),
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
        }));
    }
    objects.push(deployment(container));
    objects.extend([service(container, false), service(container, true)]);
    objects
}

fn metadata(container: &Container) -> Value {
    json!({ "name": container.name, "labels": labels(container) })
}

fn labels(container: &Container) -> Value {
    json!({ "app.kubernetes.io/name": container.name, "app.kubernetes.io/part-of": "opsctl-services" })
}

fn selector(container: &Container) -> Value {
    json!({ "app.kubernetes.io/name": container.name })
}

fn deployment(container: &Container) -> Value {
    let keeps_data = container.data.is_some();
    // Two pods on two nodes cannot share a disk.
    let (replicas, strategy) = if keeps_data {
        (1, "Recreate")
    } else {
        (container.replicas, "RollingUpdate")
    };
    let mut volumes = vec![json!({ "name": "tmp", "emptyDir": {} })];
    let mut mounts = vec![json!({ "name": "tmp", "mountPath": "/tmp" })];
    if let Some(path) = container.data {
        volumes.push(json!({ "name": "data", "persistentVolumeClaim": { "claimName": container.name } }));
        mounts.push(json!({ "name": "data", "mountPath": path }));
    }
    if let Some((file, path)) = container.configuration {
        volumes.push(json!({ "name": "configuration", "configMap": { "name": container.name } }));
        mounts.push(json!({ "name": "configuration", "mountPath": path, "subPath": file, "readOnly": true }));
    }
    let fixed = container
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let environment = fixed
        .chain(container.choices.iter().copied())
        .map(|(name, value)| json!({ "name": name, "value": value }));
    let ports = container
        .ports
        .iter()
        .map(|port| json!({ "name": port.name, "containerPort": port.number }));
    let mut program = Map::new();
    let mut set = |name: &str, value: Value| program.insert(name.to_owned(), value);
    set("name", json!(container.name));
    set("image", json!(container.image));
    set("args", json!(container.arguments));
    set("env", environment.collect());
    set("ports", ports.collect());
    set("resources", resources(container));
    set(
        "securityContext",
        json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        }),
    );
    set("volumeMounts", json!(mounts));
    for (name, value) in probes(&container.probes) {
        set(name, value);
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(container),
        "spec": {
            "replicas": replicas,
            "strategy": { "type": strategy },
            "selector": { "matchLabels": selector(container) },
            "template": {
                "metadata": { "labels": labels(container) },
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": container.user,
                        "runAsGroup": container.user,
                        "fsGroup": container.user,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [program],
                    "volumes": volumes,
                },
            },
        },
    })
}

fn resources(container: &Container) -> Value {
    let memory = format!("{}Mi", container.memory_mib);
    json!({ "requests": { "cpu": "50m", "memory": memory }, "limits": { "memory": memory } })
}

fn probes(probes: &Probes) -> Vec<(&'static str, Value)> {
    let ask = |path: &str, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": probes.port },
            "periodSeconds": 5,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        })
    };
    let mut all = vec![
        ("startupProbe", ask(probes.startup, 60)),
        ("readinessProbe", ask(probes.ready, 2)),
    ];
    all.extend(probes.live.map(|path| ("livenessProbe", ask(path, 6))));
    all
}

/// The name that clients use, or the one that resolves to every instance.
fn service(container: &Container, every_pod: bool) -> Value {
    let ports = container
        .ports
        .iter()
        .map(|port| json!({ "name": port.name, "port": port.number }));
    let ports: Vec<Value> = ports.collect();
    let (name, address) = if every_pod {
        (format!("{}-pods", container.name), json!({ "clusterIP": "None" }))
    } else {
        (container.name.clone(), json!({}))
    };
    let mut spec = json!({ "selector": selector(container), "ports": ports });
    if let (Value::Object(spec), Value::Object(address)) = (&mut spec, address) {
        spec.extend(address);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "labels": labels(container) },
        "spec": spec,
    })
}
