//! `drill pod-kill` on real pods.

use serde_json::Value;

use crate::shop::Shop;

/// A path of the JSON merge patch that lets a budget forbid every eviction.
const NOBODY: &str = r#"{"spec":{"maxUnavailable":0}}"#;
/// And back.
const ONE: &str = r#"{"spec":{"maxUnavailable":1}}"#;

#[tokio::test]
async fn a_killed_pod_is_replaced_and_a_budget_that_forbids_it_is_honoured() {
    let test = "a_killed_pod_is_replaced_and_a_budget_that_forbids_it_is_honoured";
    let Some(shop) = Shop::open(test, &["identity", "notifications", "payments"]).await else {
        return;
    };
    let before = shop.state("identity").await;
    let customers = shop.customers("20/s").await;
    let reads = shop.reads("100/s");
    shop.until("orders are taken", async || customers.answered() > 10).await;
    let evicted = ["drill", "pod-kill", "identity", "--for", "12s", "--json"];
    let killed = [
        "drill", "pod-kill", "payments", "--mode", "delete", "--for", "12s", "--json",
    ];
    let container = [
        "drill",
        "pod-kill",
        "notifications",
        "--mode",
        "container",
        "--for",
        "12s",
        "--json",
    ];
    let (evicted, killed, container) =
        tokio::join!(shop.opsctl(&evicted), shop.opsctl(&killed), shop.opsctl(&container));
    // The images hold one program and no `kill`.
    assert_eq!(
        (container.code, &report(&container)["status"]),
        (5, &"refused".into()),
        "{container:?}"
    );
    for (drill, service) in [(&evicted, "identity"), (&killed, "payments")] {
        let report = report(drill);
        assert_eq!(report["service"], service);
        assert_eq!(report["killed"].as_array().map(Vec::len), Some(1), "{report:#}");
        let recovery = &report["recovery"];
        for time in [
            "time_to_detect_seconds",
            "time_to_recovery_seconds",
            "resolution_seconds",
        ] {
            assert!(
                recovery[time].as_f64().is_some_and(|time| time > 0.0),
                "{service}: {recovery:#}"
            );
        }
        println!(
            "pod-kill {service}: {}, detected after {} s, recovered after {} s (± {}), {} of {} requests failed",
            report["verdict"],
            recovery["time_to_detect_seconds"],
            recovery["time_to_recovery_seconds"],
            recovery["resolution_seconds"],
            report["clients"]["errors"],
            report["clients"]["requests"],
        );
    }
    // A pod that is evicted drains: nobody notices.
    assert_eq!((evicted.code, reads.failures()), (0, Vec::new()), "{evicted:?}");
    assert_eq!(report(&evicted)["verdict"], "pass");

    let budget = |patch: &'static str| {
        [
            "patch",
            "poddisruptionbudget",
            "identity",
            "--namespace=shop",
            "--type=merge",
            "--patch",
            patch,
        ]
    };
    shop.kubectl(&budget(NOBODY)).await;
    let pods = shop.pods("identity").await;
    let words = [
        "drill",
        "pod-kill",
        "identity",
        "--for",
        "12s",
        "--patience",
        "1s",
        "--json",
    ];
    let refused = shop.opsctl(&words).await;
    assert_eq!(shop.pods("identity").await, pods, "nothing was changed");
    let planned = shop.opsctl(&["drill", "pod-kill", "identity", "--dry-run"]).await;
    shop.kubectl(&budget(ONE)).await;
    assert!(refused.stdout.contains("disruption budget identity"), "{refused:?}");
    refused.ended(5);
    planned.ended(5);
    shop.settles("identity", &before).await;
    println!(
        "pod-kill: {} orders and {} reads answered",
        customers.answered(),
        reads.answered()
    );
}

/// The report that a drill printed.
fn report(drill: &crate::sandbox::Ran) -> Value {
    let last = drill.stdout.trim().lines().next_back().unwrap_or_default();
    let whole = serde_json::from_str(drill.stdout.trim());
    whole
        .or_else(|_| serde_json::from_str(last))
        .unwrap_or_else(|error| panic!("{error}: {drill:?}"))
}
