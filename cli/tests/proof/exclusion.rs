//! One workload, one run: whoever starts the second, from wherever.

use crate::sandbox::{HELD, Sandbox};
use crate::shop::Shop;

#[tokio::test]
async fn a_canary_and_a_drill_exclude_each_other_also_from_two_homes() {
    let Some(shop) = Shop::open(
        "a_canary_and_a_drill_exclude_each_other_also_from_two_homes",
        &["identity", "payments"],
    )
    .await
    else {
        return;
    };
    let before = shop.state("identity").await;
    // Another home: nothing is shared but the cluster.
    let elsewhere = Sandbox::new();
    elsewhere.write(
        "opsctl.toml",
        &std::fs::read_to_string(shop.sandbox.path("opsctl.toml")).expect("the catalogue"),
    );
    let image = Shop::image("identity", "v1-next");
    let canary = [&["deploy", "canary", "identity", "--image", &image], &HELD[..]].concat();
    let held = shop.start(&canary);
    shop.until("the canary's share", async || shop.share("identity").await == 30)
        .await;
    let drill = ["drill", "pod-kill", "identity", "--for", "5s"];
    let again = ["deploy", "canary", "identity", "--image", &image, "--weight", "10"];
    for words in [&drill[..], &again[..]] {
        shop.opsctl(words).await.ended(8);
        crate::shop::ended(elsewhere.command(words)).await.ended(8);
    }
    let seen = crate::shop::ended(elsewhere.command(&["run", "list", "--active"]))
        .await
        .ended(0);
    assert!(seen.stdout.contains("canary"), "{seen:?}");
    // Others are free.
    crate::shop::ended(elsewhere.command(&["drill", "pod-kill", "payments", "--for", "5s", "--dry-run"]))
        .await
        .ended(0);
    // Whoever sees it may end it.
    crate::shop::ended(elsewhere.command(&["deploy", "abort", "identity"]))
        .await
        .ended(0);
    held.exit().await;
    shop.settles("identity", &before).await;
}
