//! `drill db-down --mode policy`: the cluster takes NetworkPolicies, and no plugin of it enforces them. That is found out,
//! and nothing stays. Where somebody does enforce ours, for a while, the drill takes its course.

use std::process::Command;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::shop::{SERVICES, Shop};

const CUT: [&str; 8] = [
    "drill", "db-down", "orders", "--at", "postgres", "--mode", "policy", "--yes",
];
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";

#[tokio::test]
async fn a_policy_that_nobody_enforces_is_found_out_and_one_that_somebody_does_works() {
    let test = "a_policy_that_nobody_enforces_is_found_out_and_one_that_somebody_does_works";
    let Some(shop) = Shop::open(test, &["orders"]).await else {
        return;
    };
    let all = shop.get(POLICIES).await;
    let own = names(&all);
    assert!(own.len() > SERVICES.len(), "the chart has policies: {own:?}");
    let refused = shop.opsctl(&CUT).await.ended(5);
    assert!(own.iter().any(|name| refused.stderr.contains(name)), "{refused:?}");
    assert_eq!(names(&shop.get(POLICIES).await), own);

    let delete = ["delete", "networkpolicies", "--all", "--namespace=shop"];
    shop.kubectl(&delete).await;
    let before = shop.state("orders").await;
    let customers = shop.customers("10/s").await;
    let began = Instant::now();
    let drill = shop.opsctl(&CUT).await.ended(9);
    let took = began.elapsed();
    assert!(drill.stdout.contains("not enforced"), "{drill:?}");
    nothing_is_left(&shop).await;
    shop.settles("orders", &before).await;
    println!(
        "that nobody enforces policies was known after {took:?}: {}",
        drill.stdout.trim()
    );

    let words = [&CUT[..], &["--for", "5s"]].concat();
    let drill = shop.opsctl(&words);
    let (drill, ()) = tokio::join!(drill, enforce(&shop));
    println!("one that is enforced: {}", drill.stdout.trim());
    drill.ended(0);
    nothing_is_left(&shop).await;
    shop.settles("orders", &before).await;
    drop(customers);
    for policy in all["items"].as_array().into_iter().flatten() {
        shop.apply(&again(policy)).await;
    }
}

/// What makes an object that was deleted once more.
fn again(object: &Value) -> Value {
    let of = |key: &str| object["metadata"][key].clone();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": of("name"),
            "namespace": of("namespace"),
            "labels": of("labels"),
            "annotations": of("annotations"),
        },
        "spec": object["spec"],
    })
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|object| object["metadata"]["name"].as_str())
        .map(str::to_owned)
        .collect()
}

async fn nothing_is_left(shop: &Shop) {
    assert_eq!(names(&shop.get(POLICIES).await), Vec::<String>::new());
    let runs = shop
        .opsctl(&["run", "list", "--active", "--json"])
        .await
        .ended(0)
        .json();
    let mut runs = runs["runs"].as_array().into_iter().flatten();
    // Drills of others probe orders too.
    let ours = runs.find(|run| run["target"].as_str().is_some_and(|target| target.contains("orders")));
    assert_eq!(ours, None);
}

/// Plays the network plugin: as long as there is a policy, what the pods of orders send to the database is lost.
async fn enforce(shop: &Shop) {
    let there = async || !names(&shop.get(POLICIES).await).is_empty();
    shop.until("there is a policy", there).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dpostgres";
    let port = shop.get(slices).await["items"][0]["ports"][0]["port"].to_string();
    let pods = shop
        .get("/api/v1/namespaces/shop/pods?labelSelector=app.kubernetes.io%2Fname%3Dorders")
        .await;
    let addresses = pods["items"].as_array().into_iter().flatten();
    let lost: Vec<Lost> = addresses
        .filter_map(|pod| pod["status"]["podIP"].as_str())
        .map(|address| Lost::from(address, &port))
        .collect();
    assert!(!lost.is_empty(), "orders has pods");
    shop.until("the policy is gone", async || !there().await).await;
}

/// A rule of the node, until dropped.
struct Lost(Vec<String>);

impl Lost {
    fn from(address: &str, port: &str) -> Self {
        let rule = [
            "INPUT",
            "--source",
            address,
            "--protocol",
            "tcp",
            "--dport",
            port,
            "--jump",
            "DROP",
        ];
        let lost = Self(rule.map(str::to_owned).to_vec());
        assert!(lost.set("--insert"), "iptables takes the rule");
        lost
    }

    fn set(&self, what: &str) -> bool {
        let ran = Command::new("iptables").args(["--wait", what]).args(&self.0).status();
        ran.is_ok_and(|status| status.success())
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        self.set("--delete");
    }
}
