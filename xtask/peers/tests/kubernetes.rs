//! A control plane for tests: it is soon there, knows who asks, keeps what it was told over a kill, and plays nodes.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::{path::Path, time::Duration};

use peers::servers::{ControlPlane, Kubernetes};
use tokio::time::{Instant, sleep};

/// A kubectl of its own, as someone else would use it.
async fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> std::process::Output {
    let kubectl = peers::Peer::named("kubectl").unwrap().program("kubectl").unwrap();
    let mut command = tokio::process::Command::new(kubectl);
    let cache = kubeconfig.with_file_name("kubectl");
    command
        .arg("--cache-dir")
        .arg(cache)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments);
    command.output().await.unwrap()
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition().await {
        assert!(Instant::now() < deadline, "never seen: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn it_knows_who_asks_and_keeps_what_it_was_told_over_a_kill() {
    let test = "it_knows_who_asks_and_keeps_what_it_was_told_over_a_kill";
    let Some(mut plane) = ControlPlane::start(test).await else {
        return;
    };
    plane.kubectl(&["create", "namespace", "shop"], "").await.unwrap();
    let viewer = plane.kubeconfig_of("viewer", &["readers"]).unwrap();
    let role = [
        "create",
        "clusterrole",
        "readers",
        "--verb=get,list",
        "--resource=configmaps",
    ];
    plane.kubectl(&role, "").await.unwrap();
    let binding = [
        "create",
        "clusterrolebinding",
        "readers",
        "--clusterrole=readers",
        "--group=readers",
    ];
    plane.kubectl(&binding, "").await.unwrap();
    eventually("the viewer reads", async || {
        kubectl(&viewer, &["get", "configmaps", "-n", "shop"])
            .await
            .status
            .success()
    })
    .await;
    let refused = kubectl(&viewer, &["create", "configmap", "mine", "-n", "shop"]).await;
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(complaint.contains("\"viewer\" cannot create resource"), "{complaint}");
    let expired = kubectl(&plane.kubeconfig_expired().unwrap(), &["get", "namespaces"]).await;
    assert!(!expired.status.success(), "a certificate that ended is refused");

    plane.server().kill();
    plane.server().start_again().await.unwrap();
    let found = plane.kubectl(&["get", "namespace", "shop", "--output=name"], "").await;
    assert_eq!(found.unwrap().trim(), "namespace/shop");
}

#[tokio::test]
async fn a_deployment_gets_its_pods_on_nodes_that_are_played() {
    let test = "a_deployment_gets_its_pods_on_nodes_that_are_played";
    let Some(plane) = ControlPlane::start_with(Kubernetes::default().nodes(3), test).await else {
        return;
    };
    let create = [
        "create",
        "deployment",
        "orders",
        "--image=opsctl/orders:1",
        "--replicas=6",
    ];
    plane.kubectl(&create, "").await.unwrap();
    plane
        .kubectl(&["rollout", "status", "deployment/orders", "--timeout=60s"], "")
        .await
        .unwrap();
    let nodes = ["get", "pods", "--output=jsonpath={.items[*].spec.nodeName}"];
    let nodes = plane.kubectl(&nodes, "").await.unwrap();
    assert_eq!(
        nodes.split(' ').filter(|node| node.starts_with("kwok-")).count(),
        6,
        "{nodes}"
    );
}
