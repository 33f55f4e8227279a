//! Both forms are well formed, and the same.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::rendered::{ENVIRONMENTS, EVERYTHING, Judges, KUBERNETES, Objects, deployed, objects, printed};

#[test]
fn helm_lints_the_chart_and_its_schema_refuses_what_nobody_would_read() {
    let Some(judges) = Judges::of("helm_lints_the_chart_and_its_schema_refuses_what_nobody_would_read") else {
        return;
    };
    for environment in ENVIRONMENTS {
        let chart = deployed("chart");
        let mut lint = Command::new(&judges.helm);
        lint.args(["lint", "--strict", "--kube-version", KUBERNETES, "--values"])
            .arg(chart.join(format!("values-{environment}.yaml")))
            .arg(&chart);
        let words = printed(&lint.output().unwrap());
        assert!(words.contains("1 chart(s) linted, 0 chart(s) failed"), "{words}");
    }
    for (mistake, named) in [
        ("image.pulPolicy=Never", "pulPolicy"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.tag=a/b", "tag"),
        ("services.orders.replicas=many", "replicas"),
        ("services.orders.resources.limits.cpu=1", "cpu"),
        ("services.orders.keys.secret=orders-keys", "keys"),
        ("services.orders.database.url=postgres://shop", "url"),
    ] {
        let output = judges.render("production", &[mistake]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{mistake} was not seen");
        assert!(words.contains(named), "{mistake}: {words}");
    }
}

#[test]
fn kubeconform_takes_what_helm_makes() {
    const TEST: &str = "kubeconform_takes_what_helm_makes";
    let (Some(judges), Some(kubeconform), Some(schemas), Some(definitions)) = (
        Judges::of(TEST),
        peers::peer("kubeconform", TEST),
        peers::peer("kubernetes-schemas", TEST),
        peers::peer("gateway-api", TEST),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    schemas_of_kubernetes(&schemas.join("v1.36.0-local-strict"), folder.path());
    schemas_of_gateways(&definitions, folder.path());
    let judge = |text: &str| {
        let file = folder.path().join("objects.yaml");
        fs::write(&file, text).unwrap();
        let schemas = folder.path().join("{{.ResourceKind}}{{.KindSuffix}}.json");
        let mut judge = Command::new(&kubeconform);
        judge
            .args(["-strict", "-summary", "-schema-location"])
            .arg(schemas)
            .arg(file);
        judge.output().unwrap()
    };
    for environment in ENVIRONMENTS {
        for settings in [&[][..], EVERYTHING] {
            let summary = printed(&judge(&judges.rendered(environment, settings)));
            assert!(summary.contains("Invalid: 0, Errors: 0, Skipped: 0"), "{summary}");
        }
    }
    let right = judges.rendered("production", &[]);
    for (right_word, wrong_word) in [
        ("containerPort:", "port:"),
        ("hostnames:", "hosts:"),
        ("backendRefs:", "backends:"),
    ] {
        let wrong = right.replace(right_word, wrong_word);
        assert_ne!(wrong, right);
        let words = String::from_utf8_lossy(&judge(&wrong).stdout).into_owned();
        assert!(!words.contains("Invalid: 0"), "{wrong_word} was not seen: {words}");
    }
}

/// Puts the definitions that the schemas share into each, since kubeconform looks for them nowhere else.
fn schemas_of_kubernetes(schemas: &Path, into: &Path) {
    let shared = fs::read_to_string(schemas.join("_definitions.json")).unwrap();
    let shared: Value = serde_json::from_str(&shared).unwrap();
    for kind in [
        "deployment-apps-v1",
        "horizontalpodautoscaler-autoscaling-v2",
        "networkpolicy-networking-v1",
        "poddisruptionbudget-policy-v1",
        "service-v1",
        "serviceaccount-v1",
    ] {
        let name = format!("{kind}.json");
        let schema = fs::read_to_string(schemas.join(&name)).unwrap();
        let mut schema: Value = serde_json::from_str(&schema.replace("/api/_definitions.json#", "#")).unwrap();
        schema["$defs"] = shared["$defs"].clone();
        fs::write(into.join(name), schema.to_string()).unwrap();
    }
}

/// Makes schemas of the definitions of the Gateway API's own kinds.
fn schemas_of_gateways(definitions: &Path, into: &Path) {
    for (kind, file) in [("httproute", "httproutes"), ("grpcroute", "grpcroutes")] {
        let text = fs::read_to_string(definitions.join(format!("gateway.networking.k8s.io_{file}.yaml"))).unwrap();
        let definition: Value = serde_saphyr::from_str(&text).unwrap();
        let versions = definition["spec"]["versions"].as_array().unwrap();
        let version = versions.iter().find(|version| version["name"] == "v1").unwrap();
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        refuse_the_unknown(&mut schema);
        // These have a schema of their own.
        schema["properties"]["metadata"] = json!({ "type": "object" });
        fs::write(into.join(format!("{kind}-gateway-v1.json")), schema.to_string()).unwrap();
    }
}

fn refuse_the_unknown(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            if entries.contains_key("properties") {
                entries.insert("additionalProperties".to_owned(), false.into());
            }
            entries.values_mut().for_each(refuse_the_unknown);
        }
        Value::Array(items) => items.iter_mut().for_each(refuse_the_unknown),
        _ => {}
    }
}

#[test]
fn kustomize_and_helm_give_the_same_objects() {
    let Some(judges) = Judges::of("kustomize_and_helm_give_the_same_objects") else {
        return;
    };
    for environment in ENVIRONMENTS {
        let read = |text: &str| -> Objects {
            let mut objects = objects(text);
            objects.values_mut().for_each(forget_who_made_it);
            objects
        };
        let helm = read(&judges.rendered(environment, &[]));
        let kustomize = read(&judges.kustomized(environment));
        let names = |objects: &Objects| objects.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&helm), names(&kustomize), "{environment}");
        for (name, object) in &helm {
            assert_eq!(*object, kustomize[name], "{name:?} of {environment}");
        }
    }
}

/// The one label in which the forms may differ.
fn forget_who_made_it(object: &mut Value) {
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        if let Some(Value::Object(labels)) = object.pointer_mut(labels) {
            assert!(labels.remove("app.kubernetes.io/managed-by").is_some(), "{labels:?}");
        }
    }
}
