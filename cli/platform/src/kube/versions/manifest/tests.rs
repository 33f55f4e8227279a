//! Canaries of Deployments as charts write them.

use super::*;

fn spec(version: &str) -> VersionSpec {
    VersionSpec {
        version: version.to_owned(),
        command: Vec::new(),
        image: Some(format!("registry/orders:{version}")),
        env: BTreeMap::from([("FAULT".to_owned(), "errors=5%".to_owned())]),
        replicas: 2,
    }
}

fn deployment(selector: &Value) -> Value {
    let mut labels = selector.clone();
    labels["app.kubernetes.io/version"] = "1.0.0".into();
    json!({
        "metadata": {
            "name": "orders", "namespace": "shop",
            "labels": { "app.kubernetes.io/name": "orders", "app.kubernetes.io/instance": "shop", "app.kubernetes.io/managed-by": "Helm", "opsctl.dev/project": "shop" },
            "annotations": { "deployment.kubernetes.io/revision": "4" },
        },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": selector },
            "template": {
                "metadata": { "labels": labels, "annotations": { "prometheus.io/scrape": "true", "kubectl.kubernetes.io/restartedAt": "2026-03-14" } },
                "spec": { "containers": [
                    { "name": "sidecar", "image": "envoy:1" },
                    { "name": "orders", "image": "registry/orders:1.0.0", "env": [{ "name": "HTTP_ADDR", "value": ":8080" }, { "name": "FAULT", "value": "" }] },
                ] },
            },
        },
    })
}

fn service(selector: &Value) -> Value {
    json!({
        "metadata": { "name": "orders", "namespace": "shop" },
        "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.7", "selector": selector,
                  "ports": [{ "name": "http", "port": 80, "targetPort": "http", "nodePort": 31000 }], "sessionAffinity": "None" },
    })
}

fn make(deployment: &Value, service: &Value) -> Result<Canary, String> {
    let source = Source {
        deployment,
        service,
        container: "orders",
        joins: false,
        canary_deployment: "orders-canary",
        canary_service: "orders-canary",
    };
    canary(&source, &spec("2.0.0"), &spec("1.0.0"), Some("r1"))
}

/// Whether labels match a selector.
fn matches(selector: &Value, labels: &Value) -> bool {
    selector
        .as_object()
        .unwrap()
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

#[test]
fn pods_of_a_canary_match_neither_stable_selector() {
    let track = json!({ "app.kubernetes.io/name": "orders", "opsctl.dev/track": "stable" });
    let plain = json!({ "app": "orders" });
    let two = json!({ "app": "orders", "tier": "backend" });
    let other = json!({ "run": "orders" });
    for (of_deployment, of_service) in [(&track, &track), (&plain, &plain), (&two, &plain), (&plain, &other)] {
        let mut stable = deployment(of_deployment);
        for (key, value) in of_service.as_object().unwrap() {
            stable["spec"]["template"]["metadata"]["labels"][key] = value.clone();
        }
        let made = make(&stable, &service(of_service)).unwrap();
        let labels = &made.deployment["spec"]["template"]["metadata"]["labels"];
        let stable_labels = &stable["spec"]["template"]["metadata"]["labels"];
        assert!(!matches(of_service, labels), "{of_service} matches {labels}");
        assert!(!matches(of_deployment, labels), "{of_deployment} matches {labels}");
        let (own_service, own_deployment) = (
            &made.service["spec"]["selector"],
            &made.deployment["spec"]["selector"]["matchLabels"],
        );
        assert!(
            matches(own_service, labels) && matches(own_deployment, labels),
            "{labels}"
        );
        assert!(
            !matches(own_service, stable_labels) && !matches(own_deployment, stable_labels),
            "{stable_labels}"
        );
    }
    let made = make(&deployment(&track), &service(&track)).unwrap();
    assert_eq!(
        made.deployment["spec"]["template"]["metadata"]["labels"]["opsctl.dev/track"],
        "canary"
    );
}

#[test]
fn a_pod_that_joins_the_stable_service_stays_its_own_deployments() {
    let selector = json!({ "app": "orders" });
    let (deployment, service) = (deployment(&selector), service(&selector));
    let source = Source {
        deployment: &deployment,
        service: &service,
        container: "orders",
        joins: true,
        canary_deployment: "orders-canary",
        canary_service: "orders-canary",
    };
    let made = canary(&source, &spec("2.0.0"), &spec("1.0.0"), None).unwrap();
    let mut labels = made.deployment["spec"]["template"]["metadata"]["labels"].clone();
    assert!(!matches(&selector, &labels), "it begins without traffic");
    labels["app"] = "orders".into();
    assert!(matches(&selector, &labels));
    assert!(matches(&made.deployment["spec"]["selector"]["matchLabels"], &labels));
}

#[test]
fn a_canary_is_a_copy_with_another_image_and_no_owner() {
    let selector = json!({ "app.kubernetes.io/name": "orders", "opsctl.dev/track": "stable" });
    let made = make(&deployment(&selector), &service(&selector)).unwrap();
    let containers = &made.deployment["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["image"], "envoy:1");
    assert_eq!(containers[1]["image"], "registry/orders:2.0.0");
    assert_eq!(
        containers[1]["env"],
        json!([{ "name": "HTTP_ADDR", "value": ":8080" }, { "name": "FAULT", "value": "errors=5%" }])
    );
    assert_eq!(made.deployment["spec"]["replicas"], 2);
    assert_eq!(
        made.deployment["metadata"]["labels"],
        json!({ "app.kubernetes.io/name": "orders", "app.kubernetes.io/version": "2.0.0", "app.kubernetes.io/managed-by": "opsctl", "opsctl.dev/project": "shop" })
    );
    assert_eq!(
        made.deployment["spec"]["template"]["metadata"]["annotations"],
        json!({ "prometheus.io/scrape": "true" })
    );
    assert_eq!(made.deployment["metadata"]["annotations"]["opsctl.dev/run"], "r1");
    let replaces: VersionSpec = serde_json::from_str(
        made.deployment["metadata"]["annotations"]["opsctl.dev/replaces"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(replaces, spec("1.0.0"));
    // The canary's Service is inside of the cluster only.
    assert_eq!(
        made.service["spec"],
        json!({ "selector": { "app.kubernetes.io/name": "orders", "opsctl.dev/track": "canary" },
                "ports": [{ "name": "http", "port": 80, "targetPort": "http" }], "sessionAffinity": "None" })
    );
}

#[test]
fn what_cannot_be_a_canary_is_refused() {
    let selector = json!({ "app": "orders" });
    let error = make(&deployment(&selector), &service(&json!({}))).unwrap_err();
    assert_eq!(
        error,
        "the Service `orders` has no selector, so nobody can tell its pods from those of a canary; name one that has with `service`"
    );
    let (deployment, service) = (deployment(&selector), service(&selector));
    let source = Source {
        deployment: &deployment,
        service: &service,
        container: "app",
        joins: false,
        canary_deployment: "orders-canary",
        canary_service: "orders-canary",
    };
    assert_eq!(
        canary(&source, &spec("2"), &spec("1"), None).unwrap_err(),
        "there is no container `app`"
    );
    for version in ["", "a/b", "-a", &"x".repeat(64)] {
        let error = canary(&source, &spec(version), &spec("1"), None).unwrap_err();
        assert!(error.ends_with("cannot be the value of a label"), "{error}");
    }
}

#[test]
fn a_promotion_changes_image_environment_and_version_alone() {
    let selector = json!({ "app.kubernetes.io/name": "orders", "opsctl.dev/track": "stable" });
    let stable = deployment(&selector);
    let made = make(&stable, &service(&selector)).unwrap();
    let values = promotion(&stable, &made.deployment, "orders", &spec("2.0.0")).unwrap();
    assert_eq!(
        values,
        [
            (
                "/spec/template/spec/containers/1/image".to_owned(),
                json!("registry/orders:2.0.0")
            ),
            (
                "/spec/template/spec/containers/1/env".to_owned(),
                json!([{ "name": "HTTP_ADDR", "value": ":8080" }, { "name": "FAULT", "value": "errors=5%" }])
            ),
            (
                "/spec/template/metadata/labels/app.kubernetes.io~1version".to_owned(),
                json!("2.0.0")
            ),
        ]
    );
}
