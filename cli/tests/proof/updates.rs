//! The chart on real pods: what it keeps in PostgreSQL, a rolling update under traffic, and an autoscaler under load.

use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::shop::Shop;
use crate::turn::EVERYTHING;

/// As many pods as the autoscaler may make.
const MOST: u64 = 4;
/// The percentage of its CPU request from which a pod is busy: 5 m of 100 m. On a fast machine the reads of this test take
/// hardly 100 m in all; the most pods are wanted from 16 m on, and an idle pod takes about one.
const BUSY: u32 = 5;
/// How long it may take for them to be ready under load.
const SCALED: Duration = Duration::from_mins(2);

#[tokio::test]
async fn the_chart_keeps_orders_in_postgresql_rolls_without_a_failed_request_and_scales() {
    let test = "the_chart_keeps_orders_in_postgresql_rolls_without_a_failed_request_and_scales";
    let (Some(shop), Some(helm)) = (Shop::open(test, EVERYTHING).await, peers::peer("helm", test)) else {
        return;
    };
    // Pods of an earlier test may still be ending.
    shop.until("the shop is healthy", async || shop.opsctl(&["status"]).await.code == 0)
        .await;
    for service in ["identity", "orders", "payments", "notifications"] {
        shop.opsctl(&["health", "check", service]).await.ended(0);
    }

    let customers = shop.customers("20/s").await;
    let reads = shop.reads("200/s");
    shop.until("orders are taken", async || customers.answered() > 20).await;
    let begin = Instant::now();
    shop.install(&helm, &["image.tag=v1-next"]).await;
    println!(
        "rolling update of four services: {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    assert_eq!(reads.failures(), Vec::<String>::new(), "through a rolling update");
    assert_eq!(customers.failures(), Vec::<String>::new(), "through a rolling update");
    let told = shop.opsctl(&["logs", "orders"]).await.ended(0);
    assert!(told.stdout.contains("order placed"), "the new pods' lines are there");
    let placed = customers.stop();
    println!("{placed:?}");
    assert!(rows(&shop, "orders", "SELECT count(*) FROM orders") > 20);

    shop.install(
        &helm,
        &[
            "image.tag=v1-next",
            "services.identity.autoscaling.enabled=true",
            &format!("services.identity.autoscaling.cpu={BUSY}"),
            "services.identity.autoscaling.maxReplicas=4",
        ],
    )
    .await;
    drop(reads);
    let load = shop.reads("300/s");
    let begin = Instant::now();
    shop.until("the autoscaler makes as many pods as it may", async || {
        shop.deployment("identity").await["status"]["readyReplicas"] == MOST
    })
    .await;
    let took = begin.elapsed();
    println!(
        "autoscaler: {MOST} pods ready {:.1} s after the load began, {} of their CPU in use",
        took.as_secs_f64(),
        shop.get("/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/identity")
            .await["status"]["currentMetrics"]
    );
    assert!(took < SCALED, "{took:?}");
    assert_eq!(load.failures(), Vec::<String>::new(), "while pods were added");
    drop(load);
    shop.install(&helm, &[]).await;
}

/// One number from the database of a service.
fn rows(shop: &Shop, database: &str, query: &str) -> u64 {
    let variables = shop.cluster.environment();
    let (_, url) = variables
        .iter()
        .find(|(name, _)| *name == "POSTGRES_URL")
        .expect("the superuser's address");
    let (address, _) = url.rsplit_once('/').expect("a database in it");
    let psql = peers::Peer::named("postgres")
        .and_then(|peer| peer.program("psql"))
        .expect("psql");
    let asked = Command::new(psql)
        .args([
            &format!("{address}/{database}"),
            "--tuples-only",
            "--no-align",
            "--command",
            query,
        ])
        .output()
        .expect("psql starts");
    let told = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    told.parse().unwrap_or_else(|_| panic!("{asked:?}"))
}
