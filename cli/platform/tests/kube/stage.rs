//! A control plane with one played node, and namespaces on it with a service each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use opsctl_platform::kube::{KubePlatform, Settings, Workload, config};
use opsctl_platform::{Platform as _, ServiceState, VersionSpec};
use peers::servers::{ControlPlane, Kubernetes};
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long anything may take to show.
const LIMIT: Duration = Duration::from_secs(30);

/// What the tests of one test function share.
pub struct Stage {
    pub plane: ControlPlane,
    next: AtomicU32,
    /// Whether it knows routes of the Gateway API.
    routes: bool,
}

impl Stage {
    /// `None` after saying that the test is skipped because Kubernetes is not installed.
    pub async fn new(test: &str) -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plane = ControlPlane::start_with(Kubernetes::default().nodes(1), test).await?;
        Some(Self {
            plane,
            next: AtomicU32::new(1),
            routes: false,
        })
    }

    /// One that knows routes of the Gateway API; each service has an HTTPRoute and a GRPCRoute.
    pub async fn with_routes(test: &str) -> Option<Self> {
        let definitions = peers::peer("standard", test)?;
        let stage = Self::new(test).await?;
        // They are too large for the annotation that `apply` leaves by itself.
        let apply = ["apply", "--server-side", "--filename", definitions.to_str().unwrap()];
        stage.plane.kubectl(&apply, "").await.unwrap();
        until("routes are known", async || {
            let kinds = stage.plane.get("/apis/gateway.networking.k8s.io/v1").await;
            kinds.is_ok_and(|answer| answer.body.contains("\"GRPCRoute\"") && answer.body.contains("\"HTTPRoute\""))
        })
        .await;
        Some(Self { routes: true, ..stage })
    }

    /// A namespace of its own with the service `orders`: version `v1`, two ready pods.
    pub async fn shop(&self) -> Shop {
        let namespace = format!("shop-{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }))
            .await;
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        until("the service account is there", async || {
            self.plane.get(&account).await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        self.apply(&deployment(&namespace, "orders", "v1", 2)).await;
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "orders", "namespace": namespace },
            "spec": {
                "selector": { "app.kubernetes.io/name": "orders", "opsctl.dev/track": "stable" },
                "ports": [{ "port": 80 }],
            },
        }))
        .await;
        if self.routes {
            for route in routes(&namespace) {
                self.apply(&route).await;
            }
        }
        let shop = Shop {
            platform: self.platform("admin", &namespace).await,
            namespace,
        };
        shop.until("two pods are ready", |service| service.ready_of("v1") == 2)
            .await;
        shop
    }

    /// Another opsctl, with the same settings.
    pub async fn platform(&self, context: &str, namespace: &str) -> KubePlatform {
        let file = self.plane.folder().join(format!("{context}.kubeconfig"));
        let config = config::context(Some(&file), context, Some(&self.plane.url()))
            .await
            .unwrap();
        KubePlatform::connect(settings(namespace, &["orders"]), &config).unwrap()
    }

    pub async fn apply(&self, object: &Value) {
        self.plane
            .kubectl(&["apply", "--filename=-"], &object.to_string())
            .await
            .unwrap();
    }

    /// An object as `kubectl get --output=json` has it.
    pub async fn object(&self, namespace: &str, name: &str) -> Value {
        let shown = self
            .plane
            .kubectl(&["get", name, "--namespace", namespace, "--output=json"], "")
            .await;
        serde_json::from_str(&shown.unwrap()).unwrap()
    }

    /// The names of our annotations on an object.
    pub async fn marks(&self, namespace: &str, name: &str) -> Vec<String> {
        let object = self.object(namespace, name).await;
        let all = object["metadata"]["annotations"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        all.keys()
            .filter(|key| key.starts_with("opsctl.dev/"))
            .cloned()
            .collect()
    }
}

/// One namespace with the service `orders`.
pub struct Shop {
    pub platform: KubePlatform,
    pub namespace: String,
}

impl Shop {
    pub async fn until(&self, what: &str, done: impl Fn(&ServiceState) -> bool) {
        until(what, async || {
            self.platform
                .service("orders")
                .await
                .is_ok_and(|service| done(&service))
        })
        .await;
    }
}

pub fn settings(namespace: &str, services: &[&str]) -> Settings {
    Settings {
        environment: "test".to_owned(),
        cluster: "played".to_owned(),
        namespace: namespace.to_owned(),
        image: Some("opsctl/opsctl:v1".to_owned()),
        services: services
            .iter()
            .map(|name| Workload {
                name: (*name).to_owned(),
                namespace: namespace.to_owned(),
                deployment: (*name).to_owned(),
                service: (*name).to_owned(),
                ..Workload::default()
            })
            .collect(),
        ..Settings::default()
    }
}

pub fn deployment(namespace: &str, name: &str, version: &str, replicas: u32) -> Value {
    let selector = json!({ "app.kubernetes.io/name": name, "opsctl.dev/track": "stable" });
    let mut labels = selector.clone();
    labels["app.kubernetes.io/version"] = version.into();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": selector },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": name, "image": format!("opsctl/{name}:{version}") }],
                },
            },
        },
    })
}

/// The routes to `orders`: two rules over HTTP, the first of them with filters, and one over gRPC.
fn routes(namespace: &str) -> [Value; 2] {
    let route = |kind: &str, rules: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": kind,
            "metadata": { "name": "orders", "namespace": namespace },
            "spec": { "parentRefs": [{ "name": "gateway", "namespace": "opsctl" }], "hostnames": ["orders.shop.local"], "rules": rules },
        })
    };
    let orders = json!({ "name": "orders", "port": 80 });
    [
        route(
            "HTTPRoute",
            json!([
                {
                    "matches": [{ "path": { "type": "PathPrefix", "value": "/orders" } }],
                    "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "x-shop", "value": "1" }] } }],
                    "backendRefs": [orders],
                },
                { "backendRefs": [orders] },
            ]),
        ),
        route("GRPCRoute", json!([{ "backendRefs": [orders] }])),
    ]
}

/// Another version of `orders`.
pub fn second() -> VersionSpec {
    VersionSpec {
        version: "v2".to_owned(),
        command: Vec::new(),
        image: Some("opsctl/orders:v2".to_owned()),
        env: BTreeMap::new(),
        replicas: 1,
    }
}

pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done().await {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
