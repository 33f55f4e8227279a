//! A real API server takes the objects, and its controllers do what they say.

use std::{fs, path::Path, process::Command, time::Duration};

use peers::servers::{ControlPlane, Kubernetes};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::rendered::{ENVIRONMENTS, EVERYTHING, Judges, deployed, objects, printed};

/// The strictest namespace that Kubernetes knows, with the Gateway API's definitions.
async fn strict_namespace(plane: &ControlPlane, definitions: &Path) {
    let folder = definitions.display().to_string();
    plane
        .kubectl(&["apply", "--server-side", "--filename", &folder], "")
        .await
        .unwrap();
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": "shop", "labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted",
        } },
    });
    plane
        .kubectl(&["apply", "--filename=-"], &namespace.to_string())
        .await
        .unwrap();
    let wait = [
        "wait",
        "--for=condition=established",
        "--timeout=30s",
        "--filename",
        &folder,
    ];
    plane.kubectl(&wait, "").await.unwrap();
}

#[tokio::test]
async fn a_real_api_server_takes_both_forms_without_a_warning() {
    const TEST: &str = "a_real_api_server_takes_both_forms_without_a_warning";
    let (Some(judges), Some(definitions)) = (Judges::of(TEST), peers::peer("gateway-api", TEST)) else {
        return;
    };
    let Some(plane) = ControlPlane::start(TEST).await else {
        return;
    };
    strict_namespace(&plane, &definitions).await;
    let folder = tempfile::tempdir().unwrap();
    for environment in ENVIRONMENTS {
        for (form, text) in [
            ("helm", judges.rendered(environment, &[])),
            ("everything", judges.rendered(environment, EVERYTHING)),
            ("kustomize", judges.kustomized(environment)),
        ] {
            let file = folder.path().join("objects.yaml");
            fs::write(&file, &text).unwrap();
            let mut kubectl = Command::new(&judges.kubectl);
            kubectl
                .env("HOME", folder.path())
                .arg("--kubeconfig")
                .arg(plane.kubeconfig())
                .args([
                    "apply",
                    "--dry-run=server",
                    "--validate=strict",
                    "--namespace=shop",
                    "--filename",
                ])
                .arg(&file);
            let output = kubectl.output().unwrap();
            let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
            let taken = printed(&output).lines().count();
            assert_eq!(taken, objects(&text).len(), "{form} of {environment}");
            assert_eq!(warnings, "", "{form} of {environment}");
        }
    }
}

#[tokio::test]
async fn helm_installs_upgrades_without_fewer_pods_and_takes_everything_away() {
    const TEST: &str = "helm_installs_upgrades_without_fewer_pods_and_takes_everything_away";
    let (Some(judges), Some(definitions)) = (Judges::of(TEST), peers::peer("gateway-api", TEST)) else {
        return;
    };
    let Some(plane) = ControlPlane::start_with(Kubernetes::default().nodes(3), TEST).await else {
        return;
    };
    strict_namespace(&plane, &definitions).await;
    let home = tempfile::tempdir().unwrap();
    let helm = |arguments: &[&str]| {
        let mut helm = Command::new(&judges.helm);
        helm.env("HOME", home.path())
            .arg("--kubeconfig")
            .arg(plane.kubeconfig())
            .arg("--namespace=shop");
        printed(&helm.args(arguments).output().unwrap())
    };
    let chart = deployed("chart").display().to_string();
    let values = deployed("chart/values-development.yaml").display().to_string();
    let told = helm(&["install", "shop", &chart, "--values", &values, "--wait", "--timeout=2m"]);
    for line in [
        "Secret orders-database: url is the DATABASE_URL of orders",
        "Secret identity-keys: each file *.pem is a signing key of identity",
        "payments.shop.local",
    ] {
        assert!(told.contains(line), "{told}");
    }
    let pods = [
        "get",
        "pods",
        "--namespace=shop",
        "--output=json",
        "--selector=app.kubernetes.io/part-of=shop",
    ];
    let versions = async |service: &str| {
        let pods: Value = serde_json::from_str(&plane.kubectl(&pods, "").await.unwrap()).unwrap();
        let of_service = pods["items"].as_array().unwrap().iter().filter_map(|pod| {
            let labels = &pod["metadata"]["labels"];
            let version = labels["app.kubernetes.io/version"].as_str()?.to_owned();
            (labels["app.kubernetes.io/name"] == service).then_some(version)
        });
        of_service.collect::<Vec<_>>()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(versions("orders").await, [version, version]);

    helm(&[
        "upgrade",
        "shop",
        &chart,
        "--values",
        &values,
        "--set=services.orders.tag=next",
    ]);
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let path = "/apis/apps/v1/namespaces/shop/deployments/orders";
        let deployment = plane.get(path).await.unwrap().json();
        let (wanted, status) = (&deployment["metadata"]["generation"], &deployment["status"]);
        assert!(status["availableReplicas"].as_u64() >= Some(2), "{status}");
        if status["observedGeneration"] == *wanted && status["updatedReplicas"] == 2 && status["replicas"] == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "not rolled out: {status}");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        versions("payments").await,
        [version, version],
        "only one service has a new tag"
    );
    let budget = [
        "get",
        "pdb",
        "orders",
        "--namespace=shop",
        "--output=jsonpath={.status.disruptionsAllowed}",
    ];
    assert_eq!(plane.kubectl(&budget, "").await.unwrap(), "1");

    helm(&["uninstall", "shop", "--wait", "--timeout=2m"]);
    let kinds = "deployments,services,hpa,pdb,networkpolicies,httproutes,grpcroutes,serviceaccounts";
    let left = [
        "get",
        kinds,
        "--namespace=shop",
        "--output=name",
        "--selector=opsctl.dev/project=shop",
    ];
    assert_eq!(plane.kubectl(&left, "").await.unwrap(), "");
}
