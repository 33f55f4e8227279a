//! `deploy canary` through the gateway, judged in the cluster from what Prometheus counted.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::sandbox::Ran;
use crate::shop::Shop;

/// Requests that a service with a graceful shutdown has to answer through promotion, bake and rollback, none failing.
const REQUESTS: u64 = 50_000;

#[tokio::test]
async fn versions_are_promoted_or_taken_away_on_evidence_and_no_request_fails() {
    let test = "versions_are_promoted_or_taken_away_on_evidence_and_no_request_fails";
    let Some(shop) = Shop::open(test, &["identity", "notifications", "payments"]).await else {
        return;
    };
    let reads = shop.reads("380/s");
    let customers = shop.customers("20/s").await;
    let before = [shop.state("payments").await, shop.state("notifications").await];

    let image = Shop::image("identity", "v1-next");
    let good = [
        "deploy",
        "canary",
        "identity",
        "--image",
        &image,
        "--steps",
        "20:12s,50:12s,100",
        "--bake",
        "12s",
        "--max",
        "5m",
        "--interval",
        "2s",
        "--yes",
        "--json",
    ];
    let image = Shop::image("notifications", "v1-next");
    let unseen = [
        "deploy",
        "canary",
        "notifications",
        "--image",
        &image,
        "--weight",
        "20",
        "--for",
        "10s",
        "--interval",
        "2s",
        "--on-inconclusive",
        "rollback",
        "--json",
    ];
    let (good, frozen, unseen) = tokio::join!(
        shop.opsctl(&good),
        judged_without_its_client(&shop),
        shop.opsctl(&unseen)
    );
    told("a good version", &good, 0, "promoted");
    assert_eq!(shop.version("identity").await, "v1-next");
    assert_eq!(frozen, 4, "a version whose requests fail");
    assert_eq!(shop.version("payments").await, "v1");
    told("a version that nobody asks", &unseen, 9, "rolled_back");
    shop.settles("payments", &before[0]).await;
    shop.settles("notifications", &before[1]).await;
    assert_eq!(reads.failures(), Vec::<String>::new(), "through promotion and bake");

    let promoted = shop.state("identity").await;
    for (name, object) in &promoted {
        assert_eq!(
            object["notes"],
            json!({}),
            "{name}: a run that is over has nothing to undo"
        );
    }
    let image = Shop::image("identity", "v1-slow");
    let slow = [
        "deploy",
        "canary",
        "identity",
        "--image",
        &image,
        "--weight",
        "30",
        "--for",
        "60s",
        "--interval",
        "2s",
        "--json",
    ];
    told("a slow version", &shop.opsctl(&slow).await, 4, "rolled_back");
    shop.settles("identity", &promoted).await;
    assert_eq!(reads.failures(), Vec::<String>::new(), "through a rollback");

    let image = Shop::image("identity", "v1");
    let blind = [
        "deploy",
        "canary",
        "identity",
        "--image",
        &image,
        "--weight",
        "20",
        "--for",
        "12s",
        "--interval",
        "2s",
        "--on-inconclusive",
        "rollback",
        "--json",
    ];
    let measured = async {
        shop.until("its share", async || shop.share("identity").await == 20)
            .await;
        shop.cluster.pause("prometheus");
        // Afterwards it may tell that no request is under way any more, which is waited for.
        shop.until("its share is taken", async || shop.share("identity").await == 0)
            .await;
        shop.cluster.resume("prometheus");
    };
    let (blind, ()) = tokio::join!(shop.opsctl(&blind), measured);
    told("a version while nobody measures", &blind, 9, "rolled_back");
    shop.settles("identity", &promoted).await;

    shop.until("enough reads", async || reads.answered() >= REQUESTS).await;
    let failures = reads.failures();
    println!(
        "canaries: {} of {} reads failed; {} orders were taken, {} were not",
        failures.len(),
        reads.answered(),
        customers.answered(),
        customers.failures().len(),
    );
    assert_eq!(failures, Vec::<String>::new());
}

/// How much longer `opsctl` is frozen in a soak than it takes until all is back.
const LONG: Duration = Duration::from_mins(10);

/// Starts the canary of a version with errors and freezes `opsctl`, so that the cluster is alone with it; returns what it
/// ended with once it goes on.
async fn judged_without_its_client(shop: &Shop) -> i32 {
    let image = Shop::image("payments", "v1-bad");
    let client = shop.start(&[
        "deploy",
        "canary",
        "payments",
        "--image",
        &image,
        "--weight",
        "40",
        "--for",
        "150s",
        "--interval",
        "2s",
    ]);
    shop.until("the bad version's share", async || shop.share("payments").await == 40)
        .await;
    client.signal(Signal::STOP);
    let gone = async || shop.deployment("payments-canary").await["kind"] != "Deployment";
    shop.until("the bad version is gone, and nobody here did it", gone)
        .await;
    if std::env::var_os("OPSCTL_SOAK").is_some() {
        tokio::time::sleep(LONG).await;
    }
    assert_eq!(shop.share("payments").await, 0);
    client.signal(Signal::CONT);
    client.exit().await
}

/// Checks the exit code and how it ended, and prints why the judge decided so.
#[track_caller]
fn told(what: &str, canary: &Ran, code: i32, status: &str) {
    assert_eq!(canary.code, code, "{what}: {canary:?}");
    let report: Value =
        serde_json::from_str(canary.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {canary:?}"));
    assert_eq!(report["status"], status, "{what}: {canary:?}");
    println!(
        "{what}: {} after {} s, {}",
        report["status"], report["elapsed_seconds"], report["reasons"]
    );
}
