//! A control plane whose only node is played, two services on it, and a project folder whose environment is there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use peers::servers::{ControlPlane, Kubernetes};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::sandbox::{Ran, Sandbox};

/// How long anything may take to show.
const LIMIT: Duration = Duration::from_mins(1);

/// A control plane, and a project folder whose environment `staging` is on it.
pub struct Stage {
    pub plane: ControlPlane,
    pub sandbox: Sandbox,
}

impl Stage {
    /// `None` after saying that the test is skipped because Kubernetes is not installed.
    pub async fn new(test: &str) -> Option<Self> {
        let plane = ControlPlane::start_with(Kubernetes::default().nodes(1), test).await?;
        let stage = Self {
            sandbox: Sandbox::new(),
            plane,
        };
        stage.catalogue(&stage.plane.kubeconfig(), "admin", &stage.plane.url(), "");
        stage
            .apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }))
            .await;
        stage
            .until("the service account is there", async |plane| {
                let account = plane.get("/api/v1/namespaces/shop/serviceaccounts/default").await;
                account.is_ok_and(|answer| answer.status == 200)
            })
            .await;
        for (name, replicas) in [("orders", 2), ("payments", 1)] {
            stage.apply(&deployment(name, replicas)).await;
            stage.apply(&service(name)).await;
        }
        stage.ready("orders", 2).await;
        stage.ready("payments", 1).await;
        Some(stage)
    }

    /// Gives `orders` a route of the Gateway API, whose definitions the control plane learns.
    pub async fn gateway(&self, test: &str) -> Option<()> {
        let definitions = peers::peer("gateway-api", test)?;
        let definitions = definitions.display().to_string();
        let learned = ["apply", "--server-side", "--filename", &definitions];
        self.plane.kubectl(&learned, "").await.expect("kubectl takes them");
        let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
        self.plane
            .kubectl(&established, "")
            .await
            .expect("they are established");
        self.apply(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": { "name": "orders", "namespace": "shop" },
            "spec": { "rules": [{ "backendRefs": [{ "name": "orders", "port": 80 }] }] },
        }))
        .await;
        Some(())
    }

    /// Gives `orders` the address of a database, outside of the cluster behind the Service `postgres`.
    pub async fn database(&self) {
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "postgres", "namespace": "shop" },
            "spec": { "ports": [{ "port": 5432 }] },
        }))
        .await;
        self.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "postgres",
                "namespace": "shop",
                "labels": { "kubernetes.io/service-name": "postgres" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["192.0.2.7"] }],
            "ports": [{ "port": 5432 }],
        }))
        .await;
        let mut orders = deployment("orders", 2);
        orders["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{ "name": "DATABASE_URL", "value": "postgres://orders@postgres/orders" }]);
        self.apply(&orders).await;
        self.rolled_out("orders").await;
    }

    pub fn catalogue(&self, kubeconfig: &Path, context: &str, server: &str, more: &str) {
        self.sandbox.write(
            "opsctl.toml",
            &format!(
                "version = 1\n[env.staging]\nplatform = \"kubernetes\"\nclusters = [\"eu\"]\n{more}\n[cluster.eu]\n\
                 context = {context:?}\nserver = {server:?}\nkubeconfig = {:?}\n[defaults.service]\n\
                 kubernetes = {{ namespace = \"shop\" }}\nobjectives = {{ availability = \"99%\" }}\n\
                 [service.orders]\ndepends_on = [\"payments\"]\n[service.payments]\n",
                kubeconfig.display().to_string()
            ),
        );
    }

    pub async fn apply(&self, object: &Value) {
        let applied = self
            .plane
            .kubectl(&["apply", "--filename=-"], &object.to_string())
            .await;
        applied.expect("kubectl takes it");
    }

    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut(&ControlPlane) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done(&self.plane).await {
            assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn ready(&self, name: &str, replicas: u64) {
        let path = format!("/apis/apps/v1/namespaces/shop/deployments/{name}");
        self.until(&format!("{name} is ready"), async |plane| {
            let answer = plane.get(&path).await;
            answer.is_ok_and(|answer| answer.json()["status"]["readyReplicas"] == replicas)
        })
        .await;
    }

    /// Waits until all pods of a Deployment are as it says now.
    async fn rolled_out(&self, name: &str) {
        let path = format!("/apis/apps/v1/namespaces/shop/deployments/{name}");
        self.until(&format!("{name} is rolled out"), async |plane| {
            let Ok(answer) = plane.get(&path).await else {
                return false;
            };
            let deployment = answer.json();
            let (metadata, status) = (&deployment["metadata"], &deployment["status"]);
            let wanted = &deployment["spec"]["replicas"];
            status["observedGeneration"] == metadata["generation"]
                && [
                    &status["replicas"],
                    &status["updatedReplicas"],
                    &status["readyReplicas"],
                ]
                .iter()
                .all(|count| *count == wanted)
        })
        .await;
    }

    pub async fn get(&self, path: &str) -> Value {
        self.plane.get(path).await.expect("the API server answers").json()
    }

    /// Runs in the folder while the control plane goes on.
    pub async fn run(&self, words: &[&str]) -> Ran {
        let command = self.sandbox.command(words);
        ended(command).await
    }
}

pub async fn ended(mut command: Command) -> Ran {
    let output = tokio::task::spawn_blocking(move || command.output());
    Ran::of(output.await.expect("it does not panic").expect("opsctl starts"))
}

fn deployment(name: &str, replicas: u32) -> Value {
    let selector = json!({ "app.kubernetes.io/name": name, "opsctl.dev/track": "stable" });
    let mut labels = selector.clone();
    labels["app.kubernetes.io/version"] = "1.4.0".into();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": selector },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": name, "image": format!("opsctl/{name}:1.4.0") }],
                },
            },
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": {
            "selector": { "app.kubernetes.io/name": name, "opsctl.dev/track": "stable" },
            "ports": [{ "port": 80 }],
        },
    })
}
