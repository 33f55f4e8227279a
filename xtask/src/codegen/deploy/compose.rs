//! The deployment as a compose file, for one machine.

use serde_json::{Map, Value, json};

use super::image;
use super::stack::{Container, Stack};

/// The document.
pub fn file(stack: &Stack) -> Value {
    let named = |of: fn(&Container) -> Option<(String, Value)>| -> Map<String, Value> {
        stack.containers.iter().filter_map(of).collect()
    };
    json!({
        "name": "opsctl-services",
        "services": named(|container| Some((container.name.clone(), service(container)))),
        "configs": named(|container| {
            let (file, _) = container.configuration?;
            Some((container.name.clone(), json!({ "file": format!("./{file}") })))
        }),
        "volumes": named(|container| container.data.map(|_| (volume(container), json!({})))),
    })
}

fn service(container: &Container) -> Value {
    let fixed = container.environment.iter().cloned();
    let chosen = container
        .choices
        .iter()
        .map(|(name, otherwise)| ((*name).to_owned(), format!("${{{name}:-{otherwise}}}")));
    let environment: Map<String, Value> = fixed.chain(chosen).map(|(name, value)| (name, value.into())).collect();
    let published = container.ports.iter().filter(|port| port.published);
    // On this machine only.
    let published: Vec<String> = published
        .map(|port| format!("127.0.0.1:{0}:{0}", port.number))
        .collect();
    let volumes: Vec<String> = container
        .data
        .iter()
        .map(|path| format!("{}:{path}", volume(container)))
        .collect();
    let configs: Vec<Value> = container
        .configuration
        .iter()
        .map(|(_, target)| json!({ "source": container.name, "target": target }))
        .collect();
    let mut service = json!({
        "image": container.image,
        "command": container.arguments,
        "environment": environment,
        "ports": published,
        "volumes": volumes,
        "configs": configs,
        "depends_on": container.needs,
        // Prometheus finds each of several instances by this name.
        "networks": { "default": { "aliases": [format!("{}-pods", container.name)] } },
        "deploy": {
            "replicas": container.replicas,
            "resources": { "limits": { "memory": format!("{}M", container.memory_mib) } },
        },
        "read_only": true,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": "30s",
        "restart": "unless-stopped",
    });
    if let Value::Object(entries) = &mut service {
        entries.retain(|_, value| *value != json!({}) && *value != json!([]));
        if container.image == image::NAME {
            let build = json!({ "context": "../..", "dockerfile": format!("services/deploy/{}", image::FILE) });
            entries.insert("build".to_owned(), build);
        }
        if container.optional {
            entries.insert("profiles".to_owned(), json!([container.name]));
        }
    }
    service
}

fn volume(container: &Container) -> String {
    format!("{}-data", container.name)
}
