//! The objects mean what they should: who may do what, who talks to whom, what belongs together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::{Value, json};

use crate::rendered::{ENVIRONMENTS, EVERYTHING, Judges, Objects, deployed, objects, of_kind, printed};

#[test]
fn pods_have_no_privileges_no_secrets_and_no_limit_of_cpu() {
    let Some(judges) = Judges::of("pods_have_no_privileges_no_secrets_and_no_limit_of_cpu") else {
        return;
    };
    for environment in ENVIRONMENTS {
        let objects = objects(&judges.rendered(environment, &[]));
        assert_eq!(of_kind(&objects, "Secret").count(), 0);
        assert_eq!(of_kind(&objects, "Deployment").count(), 4);
        for (name, deployment) in of_kind(&objects, "Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert_eq!(pod["serviceAccountName"], name);
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for word in ["hostPath", "hostNetwork", "hostPID", "privileged"] {
                assert!(!pod.to_string().contains(word), "{name} says {word}");
            }
            let container = &pod["containers"][0];
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
            let resources = &container["resources"];
            assert_eq!(resources["limits"]["memory"], resources["requests"]["memory"]);
            assert!(resources["limits"].get("cpu").is_none() && resources["requests"]["cpu"].is_string());
            // The URL holds a password: it comes from a Secret.
            let variable = |wanted: &str| {
                let variables = container["env"].as_array().unwrap();
                variables.iter().find(|variable| variable["name"] == wanted).unwrap()
            };
            let from = &variable("DATABASE_URL")["valueFrom"]["secretKeyRef"];
            assert_eq!(*from, json!({ "name": format!("{name}-database"), "key": "url" }));
            // By the probes of services/*: startup, ready, live.
            for (probe, path) in [("startup", "startup"), ("readiness", "ready"), ("liveness", "live")] {
                let asked = &container[format!("{probe}Probe")]["httpGet"];
                assert_eq!(*asked, json!({ "path": format!("/health/{path}"), "port": "http" }));
            }
            // What a service may take to drain, and what it is told that it has.
            let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
            assert_eq!(variable("DRAIN_GRACE")["value"], format!("{grace}s"));
            assert!(grace > 27, "a service may drain for 27 s");
        }
    }
}

#[test]
fn an_admin_listener_is_there_with_its_secret_alone_and_for_the_pod_itself() {
    let Some(judges) = Judges::of("an_admin_listener_is_there_with_its_secret_alone_and_for_the_pod_itself") else {
        return;
    };
    let pod = |settings: &[&str], service: &str| {
        let objects = objects(&judges.rendered("production", settings));
        let found = of_kind(&objects, "Deployment").find(|(name, _)| *name == service);
        found.unwrap().1["spec"]["template"]["spec"].clone()
    };
    let settings = [
        "services.orders.admin.secret=orders-admin",
        "services.orders.admin.key=secret",
    ];
    for without in [pod(&[], "orders"), pod(&settings, "payments")] {
        assert!(!without.to_string().contains("ADMIN_"), "{without}");
        assert!(!without.to_string().contains("orders-admin"), "{without}");
    }
    let with = pod(&settings, "orders");
    let container = &with["containers"][0];
    let variable = |wanted: &str| {
        let variables = container["env"].as_array().unwrap();
        let found = variables.iter().find(|variable| variable["name"] == wanted);
        found.map(|variable| variable["value"].as_str().unwrap().to_owned())
    };
    // On a loopback it is neither a port of the Service nor for other pods.
    assert_eq!(variable("ADMIN_ADDR").as_deref(), Some("127.0.0.1:9901"));
    assert_eq!(variable("ADMIN_WRITES").as_deref(), Some("true"));
    assert!(!container["ports"].to_string().contains("9901"));
    let file = variable("ADMIN_TOKEN_FILE").unwrap();
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == "admin").unwrap();
    let folder = mount["mountPath"].as_str().unwrap();
    assert_eq!(
        (file.as_str(), &mount["readOnly"]),
        (&*format!("{folder}/token"), &json!(true))
    );
    // The service takes a token that root owns and its own group alone may read: fsGroup is that group.
    let volume = with["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|volume| volume["name"] == "admin");
    let secret = &volume.unwrap()["secret"];
    assert_eq!(
        *secret,
        json!({
            "secretName": "orders-admin",
            "items": [{ "key": "secret", "path": "token" }],
            "defaultMode": 0o440,
        })
    );
    assert_eq!(
        with["securityContext"]["fsGroup"],
        with["securityContext"]["runAsGroup"]
    );
    let read_only = pod(
        &[&settings[..], &["services.orders.admin.writes=false"]].concat(),
        "orders",
    );
    assert!(
        read_only
            .to_string()
            .contains(r#"{"name":"ADMIN_WRITES","value":"false"}"#),
        "{read_only}"
    );
}

/// What the catalogue says that each service calls.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(peers::workspace_root().join("opsctl.toml")).unwrap();
    let catalogue: toml::Value = toml::from_str(&text).unwrap();
    let services = catalogue["service"].as_table().unwrap();
    let of = |service: &toml::Value| {
        let list = service.get("depends_on").and_then(toml::Value::as_array);
        let names = list.into_iter().flatten().map(|name| name.as_str().unwrap().to_owned());
        names.collect()
    };
    services
        .iter()
        .map(|(name, service)| (name.clone(), of(service)))
        .collect()
}

/// Whether the labels of a pod meet a selector.
fn selects(selector: &Value, pod: &Value) -> bool {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let lists = selector["matchExpressions"].as_array().into_iter().flatten();
    exact.into_iter().all(|(key, value)| pod[key] == *value)
        && lists.into_iter().all(|expression| {
            assert_eq!(expression["operator"], "In");
            let values = expression["values"].as_array().unwrap();
            values.contains(&pod[expression["key"].as_str().unwrap()])
        })
}

/// The labels of a service's pods, released or of a canary.
fn pod_labels(objects: &Objects, service: &str, track: &str) -> Value {
    let deployment = &objects[&("Deployment".to_owned(), service.to_owned())];
    let mut labels = deployment["spec"]["template"]["metadata"]["labels"].clone();
    labels["opsctl.dev/track"] = track.into();
    labels
}

#[test]
fn policies_let_services_talk_to_whom_they_depend_on_and_to_no_other() {
    let Some(judges) = Judges::of("policies_let_services_talk_to_whom_they_depend_on_and_to_no_other") else {
        return;
    };
    let objects = objects(&judges.rendered("production", &[]));
    let policies: Vec<&Value> = of_kind(&objects, "NetworkPolicy")
        .map(|(_, policy)| &policy["spec"])
        .collect();
    let dependencies = dependencies();
    let names: Vec<&String> = dependencies.keys().collect();
    // Whether a policy of one's pods has a rule for the other's.
    let allows = |one: &Value, direction: &str, side: &str, other: &Value| {
        let of_one = policies.iter().filter(|policy| selects(&policy["podSelector"], one));
        let rules = of_one.flat_map(|policy| policy[direction].as_array().into_iter().flatten());
        let peers = rules.flat_map(|rule| rule[side].as_array().unwrap());
        let ours = peers.filter(|peer| peer.get("namespaceSelector").is_none() && peer.get("podSelector").is_some());
        ours.into_iter().any(|peer| selects(&peer["podSelector"], other))
    };
    for track in ["stable", "canary"] {
        for from in &names {
            for to in &names {
                let (caller, called) = (pod_labels(&objects, from, track), pod_labels(&objects, to, track));
                let wanted = dependencies[*from].contains(*to);
                assert_eq!(allows(&caller, "egress", "to", &called), wanted, "{from} out to {to}");
                assert_eq!(
                    allows(&called, "ingress", "from", &caller),
                    wanted,
                    "{to} in from {from}"
                );
            }
        }
    }
    for (name, track) in names.iter().flat_map(|name| [(name, "stable"), (name, "canary")]) {
        let pod = pod_labels(&objects, name, track);
        let denied = policies.iter().any(|policy| {
            let silent = policy.get("ingress").is_none() && policy.get("egress").is_none();
            silent && policy["policyTypes"] == json!(["Ingress", "Egress"]) && selects(&policy["podSelector"], &pod)
        });
        assert!(denied, "nothing denies by default what {name} does");
    }
}

#[test]
fn what_belongs_together_finds_itself_and_a_canary_stays_beside() {
    let Some(judges) = Judges::of("what_belongs_together_finds_itself_and_a_canary_stays_beside") else {
        return;
    };
    let objects = objects(&judges.rendered("production", &[]));
    for (name, deployment) in of_kind(&objects, "Deployment") {
        let find = |kind: &str| &objects[&(kind.to_owned(), name.to_owned())]["spec"];
        let (stable, canary) = (
            pod_labels(&objects, name, "stable"),
            pod_labels(&objects, name, "canary"),
        );
        let service = json!({ "matchLabels": find("Service")["selector"] });
        for selector in [&deployment["spec"]["selector"], &service] {
            assert!(
                selects(selector, &stable) && !selects(selector, &canary),
                "{name}: {selector}"
            );
        }
        // A canary is kept from evictions with the others.
        let budget = &find("PodDisruptionBudget")["selector"];
        assert!(selects(budget, &stable) && selects(budget, &canary));
        let target = &find("HorizontalPodAutoscaler")["scaleTargetRef"];
        assert_eq!((&target["kind"], &target["name"]), (&json!("Deployment"), &json!(name)));
        assert!(
            deployment["spec"].get("replicas").is_none(),
            "the autoscaler says how many"
        );
        let mut hosts = BTreeSet::new();
        for kind in ["HTTPRoute", "GRPCRoute"] {
            let Some(route) = objects.get(&(kind.to_owned(), name.to_owned())) else {
                assert_eq!((kind, name), ("GRPCRoute", "identity"));
                continue;
            };
            let backend = &route["spec"]["rules"][0]["backendRefs"][0];
            let ports = find("Service")["ports"].as_array().unwrap();
            assert_eq!(backend["name"], name);
            assert!(ports.iter().any(|port| port["port"] == backend["port"]));
            assert!(
                hosts.insert(route["spec"]["hostnames"].to_string()),
                "routes of two kinds share a host"
            );
        }
        let labels = deployment["metadata"]["labels"].as_object().unwrap();
        for label in ["project", "owner", "service", "environment", "cost-center"] {
            assert!(labels.contains_key(&format!("opsctl.dev/{label}")), "{label}");
        }
    }
}

#[test]
fn a_value_sends_calls_through_the_gateway_and_opens_the_way() {
    let Some(judges) = Judges::of("a_value_sends_calls_through_the_gateway_and_opens_the_way") else {
        return;
    };
    let of = |settings: &[&str]| {
        let objects = objects(&judges.rendered("production", settings));
        let of_orders = |kind: &str| objects[&(kind.to_owned(), "orders".to_owned())]["spec"].clone();
        let deployment = of_orders("Deployment");
        let variables = deployment["template"]["spec"]["containers"][0]["env"]
            .as_array()
            .unwrap()
            .clone();
        let url = variables
            .iter()
            .find(|variable| variable["name"] == "PAYMENTS_GRPC_URL")
            .unwrap();
        (
            url["value"].as_str().unwrap().to_owned(),
            of_orders("NetworkPolicy")["egress"].to_string(),
        )
    };
    let (url, egress) = of(&[]);
    assert_eq!(url, "http://payments:9090");
    assert!(!egress.contains("opsctl"), "{egress}");
    let (url, egress) = of(&["services.orders.calls.payments.gateway=true", "gateway.port=8000"]);
    assert_eq!(url, "http://payments-grpc.shop.local:8000");
    assert!(egress.contains("opsctl"), "{egress}");
}

#[test]
fn what_autoscalers_ask_for_is_what_the_adapter_tells() {
    const TEST: &str = "what_autoscalers_ask_for_is_what_the_adapter_tells";
    let (Some(judges), Some(promtool)) = (Judges::of(TEST), peers::peer("promtool", TEST)) else {
        return;
    };
    let text = fs::read_to_string(deployed("prometheus-adapter.yaml")).unwrap();
    let adapter: Value = serde_saphyr::from_str(&text).unwrap();
    let [pods, external] = ["rules", "externalRules"].map(|rules| &adapter[rules][0]);
    let objects = objects(&judges.rendered("production", EVERYTHING));
    let asked = &objects[&("HorizontalPodAutoscaler".to_owned(), "orders".to_owned())]["spec"]["metrics"];
    let of_type = |kind: &str| {
        asked
            .as_array()
            .unwrap()
            .iter()
            .find(|metric| metric["type"] == kind)
            .unwrap()
    };
    assert_eq!(of_type("Pods")["pods"]["metric"]["name"], pods["name"]["as"]);
    assert_eq!(
        of_type("External")["external"]["metric"]["name"],
        external["name"]["as"]
    );

    // Filled as the adapter fills them, they are rules for Prometheus.
    let rule = |name: &str, of: &Value| {
        let query = of["metricsQuery"].as_str().unwrap();
        let query = query
            .replace("<<.LabelMatchers>>", "namespace=\"shop\"")
            .replace("<<.GroupBy>>", "pod");
        json!({ "record": name, "expr": query })
    };
    let rules = json!({ "groups": [{ "name": "adapter", "rules": [rule("pods", pods), rule("external", external)] }] });
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    fs::write(file.path(), rules.to_string()).unwrap();
    let words = printed(
        &Command::new(promtool)
            .args(["check", "rules"])
            .arg(file.path())
            .output()
            .unwrap(),
    );
    assert!(words.contains("2 rules found"), "{words}");
}
