//! The objects of a hop, made from the Service before which it stands. Nothing is asked here.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::super::outpost::{Duty, HOP};
use super::{FAULT, Front};
use crate::Fault;

/// Where a port comes in that pods know by a name.
const NAMED_PORTS: u16 = 20_000;

/// What is created for a hop.
pub(super) struct Objects {
    pub(super) deployment: Deployment,
    pub(super) origin: Service,
    pub(super) secret: Secret,
}

/// The objects of the hop before `service`. An error says why there cannot be one.
///
/// With `database`, a variable of a container, it can end the sessions of that role.
pub(super) fn of(
    front: &Front,
    service: &Service,
    image: &str,
    fault: &Fault,
    database: Option<&Value>,
) -> Result<Objects, String> {
    let spec = service.spec.as_ref().ok_or("the Service has no spec")?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err("it is a name of something outside the cluster, which no hop can stand before".to_owned());
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() {
        return Err("the Service has no ports".to_owned());
    }
    if let Some(port) = ports
        .iter()
        .find(|port| port.protocol.as_deref().is_some_and(|of| of != "TCP"))
    {
        return Err(format!("port {} is not TCP", port.port));
    }
    let (hop, origin) = (front.hop(), front.origin());
    let mut args = Vec::new();
    let mut container_ports = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let (number, name) = inner(port, index);
        args.extend([
            "--forward".to_owned(),
            format!("0.0.0.0:{number}={origin}:{}", port.port),
        ]);
        let mut declared = json!({ "containerPort": number });
        if let Some(name) = name {
            declared["name"] = name.into();
        }
        container_ports.push(declared);
    }
    let (deployment, secret) = hop.objects(Duty {
        image,
        part_of: &front.service,
        annotations: json!({ FAULT: fault.value().to_string() }),
        args,
        ports: container_ports,
        sessions: database.map(|database| (database, format!("{origin}:{}", ports[0].port))),
    });
    let copied: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut copy = json!({ "port": port.port, "protocol": "TCP" });
            if let Some(name) = &port.name {
                copy["name"] = name.clone().into();
            }
            if let Some(target) = &port.target_port {
                copy["targetPort"] = json!(target);
            }
            copy
        })
        .collect();
    let mut of_origin = json!({ "ports": copied });
    if let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) {
        of_origin["selector"] = json!(selector);
    }
    let origin = json!({
        "metadata": { "name": origin, "namespace": front.namespace, "labels": hop.labels(&front.service) },
        "spec": of_origin,
    });
    Ok(Objects {
        deployment,
        origin: serde_json::from_value(origin).expect("it is a Service"),
        secret,
    })
}

/// Where the Service leads a port in its pods: a number, and the name if that is how it says so.
pub(super) fn inner(port: &ServicePort, index: usize) -> (u16, Option<String>) {
    let number = |number: i32| u16::try_from(number).unwrap_or_default();
    match &port.target_port {
        None => (number(port.port), None),
        Some(IntOrString::Int(target)) => (number(*target), None),
        Some(IntOrString::String(name)) => (NAMED_PORTS + index as u16, Some(name.clone())),
    }
}

/// The selector of the hop's pods.
pub(super) fn selector(front: &Front) -> Value {
    json!({ HOP: front.hop().name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FaultKind;

    fn front() -> Front {
        Front {
            namespace: "shop".to_owned(),
            service: "payments".to_owned(),
        }
    }

    fn fault() -> Fault {
        Fault {
            holder: "run-1".to_owned(),
            kind: FaultKind::Reset,
            percent: 100.0,
            sessions_of: None,
        }
    }

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({ "spec": spec })).expect("a Service")
    }

    #[test]
    fn a_hop_takes_every_port_as_the_service_leads_it() {
        let service = service(json!({
            "selector": { "app": "payments" },
            "ports": [
                { "name": "http", "port": 80, "targetPort": "web" },
                { "name": "grpc", "port": 9090 },
                { "name": "admin", "port": 81, "targetPort": 8081 },
            ],
        }));
        let made = of(&front(), &service, "opsctl:1", &fault(), None).expect("a hop");
        let pod = serde_json::to_value(&made.deployment.spec.expect("a spec").template.spec).expect("JSON");
        let args: Vec<&str> = pod["containers"][0]["args"]
            .as_array()
            .expect("args")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(args.contains(&"0.0.0.0:20000=payments-origin:80"), "{args:?}");
        assert!(args.contains(&"0.0.0.0:9090=payments-origin:9090"), "{args:?}");
        assert!(args.contains(&"0.0.0.0:8081=payments-origin:81"), "{args:?}");
        assert_eq!(pod["containers"][0]["ports"][1]["name"], "web");
        let origin = made.origin.spec.expect("a spec");
        assert_eq!(origin.selector.expect("a selector")["app"], "payments");
        assert_eq!(origin.ports.expect("ports").len(), 3);
    }

    #[test]
    fn what_no_hop_can_stand_before_is_said() {
        let refused = |spec| {
            of(&front(), &service(spec), "opsctl:1", &fault(), None)
                .err()
                .expect("a refusal")
        };
        assert!(refused(json!({ "type": "ExternalName", "externalName": "db.example" })).contains("outside"));
        assert!(refused(json!({ "ports": [{ "port": 53, "protocol": "UDP" }] })).contains("not TCP"));
        assert!(refused(json!({})).contains("no ports"));
    }
}
