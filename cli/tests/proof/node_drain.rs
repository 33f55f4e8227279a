//! `drill node-drain`: nodes that kwok plays, and their pods, under a disruption budget.

use serde_json::{Value, json};

use crate::shop::Shop;

/// Pods of the Deployment that leaves its node.
const PODS: u64 = 6;

#[tokio::test]
async fn a_node_is_emptied_within_its_budgets_and_left_as_it_was() {
    let Some(shop) = Shop::open(
        "a_node_is_emptied_within_its_budgets_and_left_as_it_was",
        &["warehouse"],
    )
    .await
    else {
        return;
    };
    if let Err(error) = peers::cluster::up(2, |_, _| {}).await {
        panic!("two nodes are played: {error}");
    }
    for object in warehouse() {
        shop.apply(&object).await;
    }
    let mut catalogue = std::fs::read_to_string(shop.sandbox.path("opsctl.toml")).expect("the catalogue");
    // Pods that are played answer nobody, so its front door is another's.
    catalogue.push_str(
        "[service.warehouse]\nkubernetes = { host = \"identity.shop.local\" }\n\
         probe = { http = \"/.well-known/jwks.json\", rate = \"20/s\" }\n",
    );
    shop.sandbox.write("opsctl.toml", &catalogue);
    shop.until("its pods are ready", async || {
        shop.deployment("warehouse").await["status"]["readyReplicas"] == PODS
    })
    .await;
    let nodes = shop.get("/api/v1/nodes?labelSelector=type%3Dkwok").await;
    let names = nodes["items"].as_array().expect("nodes").iter();
    let names: Vec<String> = names
        .map(|node| node["metadata"]["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");

    // Not more than one may be away, at no time.
    let words = ["drill", "node-drain", &names[0], "--for", "3s", "--json"];
    let drill = shop.opsctl(&words);
    tokio::pin!(drill);
    let mut lowest = PODS;
    let drill = loop {
        tokio::select! {
            ran = &mut drill => break ran,
            found = shop.deployment("warehouse") => {
                lowest = lowest.min(found["status"]["availableReplicas"].as_u64().unwrap_or(0));
            }
        }
    };
    let report = drill.ended(0).json();
    let left = report["drained"].as_array().map_or(0, Vec::len);
    assert!(left >= 2, "{report:#}");
    assert!(lowest >= PODS - 1, "{lowest} of {PODS} pods were available");
    assert_eq!(on(&shop, &names[0]).await, 0, "all of them are elsewhere");
    let schedulable = async |name: &str| {
        let node: Value = shop.get(&format!("/api/v1/nodes/{name}")).await;
        node["spec"]["unschedulable"] != true && node["metadata"]["annotations"]["opsctl.dev/undo"].is_null()
    };
    assert!(schedulable(&names[0]).await, "it takes pods again");

    // What took nothing new before takes nothing new afterwards.
    shop.kubectl(&["cordon", &names[1]]).await;
    let words = ["drill", "node-drain", &names[1], "--for", "1s", "--json"];
    let report = shop.opsctl(&words).await.ended(0).json();
    assert_eq!(
        report["drained"].as_array().map(Vec::len),
        Some(PODS as usize),
        "{report:#}"
    );
    assert_eq!(on(&shop, &names[1]).await, 0, "all of them are elsewhere again");
    assert!(!schedulable(&names[1]).await, "it was cordoned before");
    shop.kubectl(&["uncordon", &names[1]]).await;
    shop.kubectl(&[
        "delete",
        "deployment,poddisruptionbudget",
        "warehouse",
        "--namespace=shop",
    ])
    .await;
    println!("node-drain: {left} pods left, never fewer than {lowest} of {PODS} pods were available");
}

/// How many pods of the Deployment are on a node.
async fn on(shop: &Shop, node: &str) -> usize {
    let selector = "labelSelector=app.kubernetes.io%2Fname%3Dwarehouse";
    let path = format!("/api/v1/namespaces/shop/pods?{selector}&fieldSelector=spec.nodeName%3D{node}");
    shop.get(&path).await["items"].as_array().map_or(0, Vec::len)
}

/// A Deployment on played nodes, and what it may lose at one time.
fn warehouse() -> [Value; 2] {
    let labels = json!({ "app.kubernetes.io/name": "warehouse", "app.kubernetes.io/version": "v1" });
    let selector = json!({ "matchLabels": { "app.kubernetes.io/name": "warehouse" } });
    let metadata = json!({ "name": "warehouse", "namespace": "shop" });
    [
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": PODS,
                "selector": selector,
                "template": { "metadata": { "labels": labels }, "spec": {
                    "nodeSelector": { "type": "kwok" },
                    // This taint alone: who tolerates every one comes back to a node that takes nothing new.
                    "tolerations": [{ "key": "kwok.x-k8s.io/node", "operator": "Exists" }],
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": "warehouse", "image": "warehouse:v1" }],
                } },
            },
        }),
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata,
            "spec": { "maxUnavailable": 1, "selector": selector },
        }),
    ]
}
