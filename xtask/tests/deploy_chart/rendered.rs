//! What Helm and kustomize make of the files.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

pub const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];
/// Of the cluster that Helm is to think of.
pub const KUBERNETES: &str = "1.36.3";

/// The programs that the chart is held against.
pub struct Judges {
    pub helm: PathBuf,
    pub kubectl: PathBuf,
}

impl Judges {
    pub fn of(test: &str) -> Option<Self> {
        Some(Self {
            helm: peers::peer("helm", test)?,
            kubectl: peers::peer("kubectl", test)?,
        })
    }

    /// What Helm makes of the chart for an environment, with more settings.
    pub fn render(&self, environment: &str, settings: &[&str]) -> Output {
        let chart = deployed("chart");
        let mut helm = Command::new(&self.helm);
        helm.args(["template", "shop", "--namespace", "shop", "--kube-version", KUBERNETES])
            .arg(&chart)
            .arg("--values")
            .arg(chart.join(format!("values-{environment}.yaml")));
        for setting in settings {
            helm.args(["--set", setting]);
        }
        helm.output().unwrap()
    }

    pub fn rendered(&self, environment: &str, settings: &[&str]) -> String {
        printed(&self.render(environment, settings))
    }

    pub fn kustomized(&self, environment: &str) -> String {
        let overlay = deployed("kustomize/overlays").join(environment);
        printed(
            &Command::new(&self.kubectl)
                .arg("kustomize")
                .arg(overlay)
                .output()
                .unwrap(),
        )
    }
}

pub fn deployed(name: &str) -> PathBuf {
    peers::workspace_root().join("services/deploy").join(name)
}

pub fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Objects by kind and name.
pub type Objects = BTreeMap<(String, String), Value>;

pub fn objects(text: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let named = |object: Value| ((text(&object["kind"]), text(&object["metadata"]["name"])), object);
    documents
        .into_iter()
        .filter(|object| !object.is_null())
        .map(named)
        .collect()
}

pub fn of_kind<'a>(objects: &'a Objects, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let found = objects.iter().filter(move |((this, _), _)| this == kind);
    found.map(|((_, name), object)| (name.as_str(), object))
}

/// What no environment asks for by itself.
pub const EVERYTHING: &[&str] = &[
    "image.pullSecrets[0].name=registry",
    "services.orders.autoscaling.enabled=true",
    "services.orders.autoscaling.requestsPerSecond=50",
    "services.orders.autoscaling.queueSize=100",
    "services.orders.calls.payments.gateway=true",
    "services.orders.hostAliases[0].ip=10.0.0.1",
    "services.orders.hostAliases[0].hostnames[0]=payments.shop.local",
    "services.orders.env.ORDERS_LEASE=5s",
    "services.orders.admin.secret=orders-admin",
    "services.orders.tag=1.2.3",
];
