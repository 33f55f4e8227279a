//! `drill db-down` and `drill latency` on real pods: a hop of opsctl stands before a Service for a while, before one with a
//! selector and before PostgreSQL on the host, which has none; and the conditions of a steady state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peers::http;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kills::everybody;
use crate::shop::{LIMIT, Shop, order, unlike};
use crate::traffic::Traffic;

/// What a hop changes, or makes.
const KINDS: &str = "deployments,services,endpointslices,secrets,pods";
/// What is another test's meanwhile, by how its objects are called.
const OTHERS: [&str; 2] = ["identity", "warehouse"];
/// The Service before PostgreSQL.
const DATABASE: &str = "postgres";
/// How much later answers come.
const DELAY: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_hop_plays_its_fault_and_leaves_nothing_behind() {
    let Some(shop) = Shop::open(
        "a_hop_plays_its_fault_and_leaves_nothing_behind",
        &["notifications", "orders", "payments"],
    )
    .await
    else {
        return;
    };
    shop.apply(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "nowhere", "namespace": "shop" },
        "spec": { "ports": [{ "port": 5432 }] },
    }))
    .await;
    let before = whole(&shop).await;
    let token = shop.sign_in().await;
    let orders = shop.orders(token.clone(), "20/s");
    a_database_that_is_away_is_outlived(&shop, &token, &orders, &before).await;
    answers_come_late_for_a_while(&shop, &orders, &before).await;
    shop.kubectl(&["delete", "service", "nowhere", "--namespace=shop"])
        .await;
}

async fn a_database_that_is_away_is_outlived(
    shop: &Shop,
    token: &str,
    orders: &Traffic,
    before: &BTreeMap<String, Value>,
) {
    let first = place(shop, token, "first").await.expect("orders are taken");
    let down = ["drill", "db-down", "orders", "--at", DATABASE];
    let reset = [&down[..], &["--for", "3s", "--json"]].concat();
    let drill = shop.opsctl(&reset);
    let (drill, ()) = tokio::join!(drill, degraded(shop, token));
    let report = drill.ended(0).json();
    assert_eq!(report["verdict"], "pass", "{report:#}");
    shop.until("orders can be placed again", async || {
        place(shop, token, "second").await.is_some()
    })
    .await;
    returns(shop, before).await;
    let failed = orders.failures();
    assert!(!failed.is_empty(), "nothing was stored while the database was away");
    println!(
        "db-down: effective after {} s, whole again after {} s; {} orders failed ({:?}), {} were taken",
        report["recovery"]["time_to_detect_seconds"],
        report["recovery"]["time_to_recovery_seconds"],
        failed.len(),
        BTreeSet::from_iter(failed),
        orders.answered(),
    );

    // A network that swallows everything, and nobody is left who could end it.
    let blackhole = [&down[..], &["--mode", "blackhole", "--for", "2m"]].concat();
    let drill = shop.start(&blackhole);
    degraded(shop, token).await;
    drill.kill();
    everybody(&shop.sandbox.path(".").display().to_string());
    let since = Instant::now();
    // Who was killed still has the lock for the rest of its lease.
    shop.until("recover puts it back", async || {
        shop.opsctl(&["recover"]).await.code == 0
    })
    .await;
    shop.until("orders can be placed once more", async || {
        place(shop, token, "third").await.is_some()
    })
    .await;
    println!("db-down: put back {:.1?} after everybody was killed", since.elapsed());
    returns(shop, before).await;

    // What was stored before is there.
    let path = format!("/orders/{first}");
    let read = ask(shop, token, "GET", &path, &[], "").await;
    assert_eq!(read.map(|answer| answer.json()["id"].clone()), Some(first.into()));
}

async fn answers_come_late_for_a_while(shop: &Shop, orders: &Traffic, before: &BTreeMap<String, Value>) {
    // What failed without the database is known.
    orders.failures();
    let quick = took(shop).await;
    assert!(quick < DELAY / 2, "payments took {quick:?}");

    let address = shop.get("/api/v1/namespaces/shop/services/orders").await["spec"]["clusterIP"].clone();
    let address = address.as_str().expect("an address");
    let serves = format!("grpc://{address}:9090");
    let page = format!("http://{address}:8080/health/ready");
    let scraped = r#"prom:count(up{namespace="shop", service="orders"} == 1) >= 2"#;
    let steady = ["--steady", &serves, "--steady", &page, "--steady", scraped];
    let late = [
        "drill", "latency", "payments", "--delay", "400ms", "--for", "3s", "--json",
    ];
    let planned = shop
        .opsctl(&["drill", "latency", "payments", "--dry-run"])
        .await
        .ended(0);
    assert!(
        planned.stdout.contains("waits up to"),
        "for connections that are old: {planned:?}"
    );
    let late = [&late[..], &steady].concat();
    let unknown = format!("{serves}/nobody.has.this");
    let unmet = ["drill", "pod-kill", "orders", "--json", "--steady", &unknown];
    let nowhere = ["drill", "db-down", "notifications", "--at", "nowhere", "--json"];
    let seen = async {
        let mut worst = quick;
        shop.until("payments is slow", async || {
            worst = worst.max(took(shop).await);
            worst >= DELAY
        })
        .await;
        worst
    };
    let (late, unmet, nowhere, worst) =
        tokio::join!(shop.opsctl(&late), shop.opsctl(&unmet), shop.opsctl(&nowhere), seen);

    let report = unmet.ended(9).json();
    assert_eq!(report["status"], "not_steady", "{report:#}");
    assert!(
        report["reasons"][0].as_str().is_some_and(|why| why.contains(&unknown)),
        "{report:#}"
    );

    let report = nowhere.ended(5).json();
    assert_eq!(report["status"], "refused", "{report:#}");

    let report = late.ended(0).json();
    assert_eq!(report["verdict"], "pass", "{report:#}");
    let slow = |stretch: &str| {
        let part = |key: &str| report[stretch][key].as_u64().unwrap_or(0);
        (part("slow"), part("requests"))
    };
    let (steady, during) = (slow("steady_probe"), slow("fault_probe"));
    assert!(steady.0 * 10 <= steady.1, "{steady:?} were slow before");
    // The time in which the hop comes up is a part of it.
    assert!(during.0 * 4 >= during.1, "{during:?} were slow meanwhile");
    let conditions = report["conditions"].as_array().expect("conditions");
    assert_eq!(conditions.len(), 3, "{report:#}");
    for condition in conditions {
        assert_eq!(condition["holds"], true, "{condition:#}");
        assert!(condition["held"].as_u64() > Some(5), "{condition:#}");
    }
    returns(shop, before).await;
    let after = took(shop).await;
    assert!(after < DELAY / 2, "payments takes {after:?}");
    let failed = orders.failures();
    println!(
        "latency: {quick:.1?} before, {worst:.1?} meanwhile, {after:.1?} afterwards; effective after {} s; {} of {} answers \
         to the probe were slow; {} orders failed ({:?})",
        report["recovery"]["time_to_detect_seconds"],
        during.0,
        during.1,
        failed.len(),
        BTreeSet::from_iter(&failed),
    );
}

/// Waits until `orders` takes none because its database is away: it says so in time, and answers what it can.
async fn degraded(shop: &Shop, token: &str) {
    shop.until("orders does without its database", async || {
        let answer = ask(shop, token, "GET", "/orders", &[], "").await;
        answer.is_some_and(|answer| answer.status == 503)
    })
    .await;
    let ready = shop.asks("orders", "/health/ready").await.expect("the gateway answers");
    assert_eq!(ready.status, 200, "{}", ready.body);
}

/// The time that an answer of `payments` takes through the gateway.
async fn took(shop: &Shop) -> Duration {
    let begin = Instant::now();
    let answer = shop
        .asks("payments", "/health/live")
        .await
        .expect("the gateway answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
    begin.elapsed()
}

/// Places an order, and returns its id once it was taken.
async fn place(shop: &Shop, token: &str, key: &str) -> Option<String> {
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    let placed = ask(shop, token, "POST", "/orders", &headers, &order(700).to_string()).await?;
    placed.json()["id"].as_str().map(str::to_owned)
}

/// Asks `orders` for something, as a customer.
async fn ask(
    shop: &Shop,
    token: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<http::Answer> {
    let headers = [&[("Host", "orders.shop.local"), ("Authorization", token)], headers].concat();
    let answer = http::send(shop.cluster.gateway(), method, path, &headers, body).await;
    answer.ok()
}

/// Every object of the services that a hop may touch or leave behind, without what changes by itself.
async fn whole(shop: &Shop) -> BTreeMap<String, Value> {
    let listed = shop.kubectl(&["get", KINDS, "--namespace=shop", "--output=json"]).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let items = listed["items"].as_array().expect("items").iter();
    let items = items.filter(|object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        !OTHERS.iter().any(|other| name.starts_with(other))
    });
    // A pod that ends lets connections finish that it has.
    let stay = items.filter(|object| object["metadata"]["deletionTimestamp"].is_null());
    stay.map(|object| {
        let (kind, metadata) = (&object["kind"], &object["metadata"]);
        let mut name = &metadata["name"];
        let says = if kind == "EndpointSlice" {
            // Their names are made up.
            name = &metadata["labels"]["kubernetes.io/service-name"];
            let endpoints = object["endpoints"].as_array().into_iter().flatten();
            let stay = endpoints.filter(|endpoint| endpoint["conditions"]["terminating"] != true);
            let mut addresses: Vec<String> = stay.map(|endpoint| endpoint["addresses"].to_string()).collect();
            addresses.sort();
            json!({ "addresses": addresses, "ports": object["ports"] })
        } else if kind == "Pod" {
            let containers = object["status"]["containerStatuses"].as_array().into_iter().flatten();
            let restarts: Vec<&Value> = containers.map(|container| &container["restartCount"]).collect();
            json!({ "uid": metadata["uid"], "restarts": restarts })
        } else {
            let notes = &metadata["annotations"];
            json!({ "uid": metadata["uid"], "notes": notes, "spec": object["spec"], "data": object["data"] })
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            format!("{}/{}", text(kind), text(name)),
            json!({ "labels": metadata["labels"], "says": says }),
        )
    })
    .collect()
}

/// Waits until everything is as it was.
async fn returns(shop: &Shop, before: &BTreeMap<String, Value>) {
    let mut last = None;
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        last = unlike(before, &whole(shop).await);
        if last.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("it is not as it was: {}", last.unwrap_or_default());
}
