//! What happens to the cluster while a run is on: its API server hangs or dies, others take a lock away, change what the
//! run changed, or delete the namespace. The state returns, or what is in the way is said; nothing else is touched.

use std::time::Duration;

use serde_json::{Value, json};

use crate::shop::Shop;
use crate::turn::EVERYTHING;

/// As long as the API server is away.
const AWAY: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_api_server_that_hangs_or_dies_delays_the_way_back_and_does_not_lose_it() {
    let test = "an_api_server_that_hangs_or_dies_delays_the_way_back_and_does_not_lose_it";
    let Some(shop) = Shop::open(test, EVERYTHING).await else {
        return;
    };
    let before = [shop.state("notifications").await, shop.state("identity").await];
    let reads = shop.reads("60/s");
    let image = Shop::image("identity", "v1-next");
    let canary = [
        &["deploy", "canary", "identity", "--image", &image],
        &crate::sandbox::HELD[..],
    ]
    .concat();
    let held = shop.start(&canary);
    let drill = shop.start(&["drill", "service-down", "notifications", "--for", "8s", "--yes"]);
    shop.until("the canary's share", async || shop.share("identity").await == 30)
        .await;
    shop.until("the service is away", async || {
        shop.deployment("notifications").await["spec"]["replicas"] == 0
    })
    .await;
    shop.cluster.pause("kube-apiserver");
    tokio::time::sleep(AWAY).await;
    shop.cluster.resume("kube-apiserver");
    shop.settles("notifications", &before[0]).await;
    println!(
        "a drill whose API server hung for {AWAY:?} ended with {}",
        drill.exit().await
    );

    let drill = shop.start(&["drill", "service-down", "notifications", "--for", "8s", "--yes"]);
    shop.until("the service is away again", async || {
        shop.deployment("notifications").await["spec"]["replicas"] == 0
    })
    .await;
    shop.cluster.kill("kube-apiserver");
    let mended = peers::cluster::up(0, |_, what| println!("{what}")).await;
    if let Err(error) = mended {
        panic!("the API server comes back: {error}");
    }
    shop.settles("notifications", &before[0]).await;
    println!("a drill whose API server died ended with {}", drill.exit().await);

    shop.opsctl(&["deploy", "abort", "identity"]).await.ended(0);
    held.exit().await;
    shop.settles("identity", &before[1]).await;
    assert_eq!(
        reads.failures(),
        Vec::<String>::new(),
        "the gateway goes on with what it knows"
    );
}

#[tokio::test]
async fn what_others_do_meanwhile_is_respected_and_told() {
    let Some(shop) = Shop::open(
        "what_others_do_meanwhile_is_respected_and_told",
        &["notifications", "payments"],
    )
    .await
    else {
        return;
    };
    let before = [shop.state("notifications").await, shop.state("payments").await];
    spare(&shop).await;
    let away = async |service: &str| {
        shop.until("the service is away", async || {
            shop.deployment(service).await["spec"]["replicas"] == 0
        })
        .await;
    };

    // Somebody takes the lock away: whoever had it stops and puts back what it changed.
    let lost = async {
        let drill = ["drill", "service-down", "notifications", "--for", "60s", "--yes"];
        let drill = shop.opsctl(&drill);
        let taken = async {
            away("notifications").await;
            let lock = shop.lock("notifications").await.expect("the drill has its lock");
            shop.kubectl(&["delete", "lease", &lock, "--namespace=shop"]).await;
        };
        let (drill, ()) = tokio::join!(drill, taken);
        shop.settles("notifications", &before[0]).await;
        println!(
            "a drill whose lock was taken away ended with {}: {}",
            drill.code,
            drill.stderr.trim()
        );
    };
    // Somebody decides how many pods there are: that stays, and is told.
    let changed = async {
        let drill = ["drill", "service-down", "payments", "--for", "8s", "--yes"];
        let drill = shop.opsctl(&drill);
        let taken = async {
            away("payments").await;
            shop.kubectl(&["scale", "deployment/payments", "--replicas=3", "--namespace=shop"])
                .await;
        };
        let (drill, ()) = tokio::join!(drill, taken);
        assert_eq!(
            shop.deployment("payments").await["spec"]["replicas"],
            3,
            "theirs stays: {drill:?}"
        );
        assert_eq!(drill.code, 9, "{drill:?}");
        assert!(drill.stdout.contains("the hold"), "{drill:?}");
        shop.kubectl(&["scale", "deployment/payments", "--replicas=2", "--namespace=shop"])
            .await;
        let recovered = shop.opsctl(&["recover"]).await;
        println!(
            "after theirs was put back, recover ended with {}: {}",
            recovered.code,
            recovered.stderr.trim()
        );
        shop.settles("payments", &before[1]).await;
    };
    // Somebody deletes the namespace: there is nothing left to put back, and no other namespace is touched.
    let gone = async {
        let drill = ["drill", "service-down", "spare", "--for", "60s", "--yes"];
        let drill = shop.opsctl(&drill);
        let taken = async {
            shop.until("the spare service is away", async || {
                shop.get("/apis/apps/v1/namespaces/spare/deployments/spare").await["spec"]["replicas"] == 0
            })
            .await;
            shop.kubectl(&["delete", "namespace", "spare", "--wait=false"]).await;
        };
        let (drill, ()) = tokio::join!(drill, taken);
        println!(
            "a drill whose namespace was deleted ended with {}: {}",
            drill.code,
            drill.stderr.trim()
        );
        assert_ne!(drill.code, 0, "{drill:?}");
        shop.until("the namespace is gone", async || {
            shop.get("/api/v1/namespaces/spare").await["kind"] != "Namespace"
        })
        .await;
    };
    tokio::join!(lost, changed, gone);
    shop.recover().await;
}

/// A service in a namespace of its own, whose pods do nothing. Its front door is another's, so that it has a steady state.
async fn spare(shop: &Shop) {
    let mut catalogue = std::fs::read_to_string(shop.sandbox.path("opsctl.toml")).expect("the catalogue");
    catalogue.push_str(
        "[service.spare]\nkubernetes = { namespace = \"spare\", host = \"identity.shop.local\" }\n\
         probe = { http = \"/.well-known/jwks.json\", rate = \"20/s\" }\n",
    );
    shop.sandbox.write("opsctl.toml", &catalogue);
    shop.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "spare" } }))
        .await;
    let labels = json!({ "app.kubernetes.io/name": "spare", "app.kubernetes.io/version": "v1" });
    let deployment: Value = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "spare", "namespace": "spare" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app.kubernetes.io/name": "spare" } },
            "template": { "metadata": { "labels": labels }, "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "spare", "image": "docker.io/opsctl/pause:1", "imagePullPolicy": "Never" }],
            } },
        },
    });
    shop.apply(&deployment).await;
    shop.until("the spare service is ready", async || {
        shop.get("/apis/apps/v1/namespaces/spare/deployments/spare").await["status"]["readyReplicas"] == 1
    })
    .await;
}
