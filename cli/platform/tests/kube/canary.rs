//! Canaries on a real API server: weights in real routes, copies of real Deployments, and what is refused.

use std::time::Duration;

use opsctl_platform::kube::{KubePlatform, config};
use opsctl_platform::run::{Outcome, Phase, RunRecord, StepResult, recover};
use opsctl_platform::{Cas, Fence, Field, Platform as _, PlatformError, VersionSpec, Weight};
use serde_json::{Value, json};

use crate::stage::{Shop, Stage, second, settings, until};

const LONG: Duration = Duration::from_mins(1);

/// A run that may change things.
async fn run(shop: &Shop, id: &str) -> Fence {
    let mut record = RunRecord::new(id, "canary", "service/orders", Value::Null, shop.platform.now());
    record.revision = shop.platform.create_record(&record).await.unwrap();
    record.fence()
}

async fn canary(shop: &Shop, by: &Fence) {
    let started = shop
        .platform
        .start_version(Some(by), "orders", &second())
        .await
        .unwrap();
    assert_eq!(started, Cas::Applied);
    shop.until("the canary is ready", |service| service.ready_of("v2") == 1)
        .await;
}

async fn grant(shop: &Shop, by: &Fence, from: u8, to: u8) {
    let granted = shop
        .platform
        .grant_weight(by, "orders", "v2", from, to, LONG)
        .await
        .unwrap();
    assert_eq!(granted, Cas::Applied, "{from} to {to}");
}

async fn set(shop: &Shop, by: Option<&Fence>, field: &Field, new: Option<Value>) -> Cas {
    let now = shop.platform.get(field).await.unwrap();
    shop.platform
        .compare_and_set(by, field, now.as_ref(), new.as_ref())
        .await
        .unwrap()
}

/// Names and weights of all backends of both routes.
async fn backends(stage: &Stage, shop: &Shop) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for route in ["httproute/orders", "grpcroute/orders"] {
        let route = stage.object(&shop.namespace, route).await;
        for rule in route["spec"]["rules"].as_array().unwrap() {
            for one in rule["backendRefs"].as_array().unwrap() {
                all.push((
                    one["name"].as_str().unwrap().to_owned(),
                    one["weight"].as_u64().unwrap(),
                ));
            }
        }
    }
    all
}

fn shares(stable: u64, canary: u64) -> Vec<(String, u64)> {
    let both = [("orders".to_owned(), stable), ("orders-canary".to_owned(), canary)];
    [both.clone(), both.clone(), both].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_changes_every_rule_and_leaves_no_trace() {
    let Some(stage) = Stage::with_routes("a_share_changes_every_rule_and_leaves_no_trace").await else {
        return;
    };
    let shop = stage.shop().await;
    let platform = &shop.platform;
    let before = stage.object(&shop.namespace, "httproute/orders").await;
    let by = run(&shop, "r1").await;
    canary(&shop, &by).await;
    assert_eq!(
        backends(&stage, &shop).await.len(),
        3,
        "a canary begins without traffic"
    );

    grant(&shop, &by, 0, 10).await;
    assert_eq!(backends(&stage, &shop).await, shares(90, 10));
    grant(&shop, &by, 10, 100).await;
    assert_eq!(backends(&stage, &shop).await, shares(0, 100));
    assert_eq!(
        platform.get(&Field::canary("orders")).await.unwrap(),
        Weight::value("v2", 100, "r1")
    );
    let states = platform.states().await.unwrap();
    assert_eq!(states[0].front.host, None, "the catalogue says nothing of a gateway");
    assert_eq!(states[0].canary.as_ref().map(|weight| weight.percent), Some(100));

    // While it has traffic it cannot be removed.
    let version = Field::version("orders", "v2");
    let now = platform.get(&version).await.unwrap();
    let removed = platform.compare_and_set(Some(&by), &version, now.as_ref(), None).await;
    assert!(
        matches!(removed, Err(PlatformError::InvalidValue { .. })),
        "{removed:?}"
    );

    assert_eq!(
        set(&shop, Some(&by), &Field::canary("orders"), None).await,
        Cas::Applied
    );
    let after = stage.object(&shop.namespace, "httproute/orders").await;
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(set(&shop, Some(&by), &version, None).await, Cas::Applied);
    assert_eq!(
        stage.marks(&shop.namespace, "httproute/orders").await,
        Vec::<String>::new()
    );
    assert_eq!(
        stage.marks(&shop.namespace, "grpcroute/orders").await,
        Vec::<String>::new()
    );
    for gone in ["deployment/orders-canary", "service/orders-canary"] {
        let shown = stage
            .plane
            .kubectl(&["get", gone, "--namespace", &shop.namespace, "--ignore-not-found"], "")
            .await;
        assert_eq!(shown.unwrap(), "", "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_whose_lease_is_over_is_taken_by_whoever_looks() {
    let Some(stage) = Stage::with_routes("a_share_whose_lease_is_over_is_taken_by_whoever_looks").await else {
        return;
    };
    let shop = stage.shop().await;
    let by = run(&shop, "r1").await;
    canary(&shop, &by).await;
    let second = Duration::from_secs(1);
    let granted = shop
        .platform
        .grant_weight(&by, "orders", "v2", 0, 10, second)
        .await
        .unwrap();
    assert_eq!(granted, Cas::Applied);
    shop.platform.lapse("orders").await.unwrap();
    assert_eq!(backends(&stage, &shop).await, shares(90, 10), "its lease is not over");
    until("the share is over", async || {
        shop.platform.lapse("orders").await.unwrap();
        backends(&stage, &shop).await.len() == 3
    })
    .await;
    let renewed = shop.platform.renew_weight(&by, "orders", LONG).await;
    assert!(matches!(renewed, Err(PlatformError::WeightLost { .. })), "{renewed:?}");

    // Nor on a route that follows the one that says who has which share.
    grant(&shop, &by, 0, 10).await;
    let follows = |weight: u8| {
        let changed = json!([{ "op": "replace", "path": "/spec/rules/0/backendRefs/1/weight", "value": weight }]);
        let changed = changed.to_string();
        let namespace = shop.namespace.clone();
        let plane = &stage.plane;
        async move {
            let patch = [
                "patch",
                "grpcroute/orders",
                "--namespace",
                &namespace,
                "--type=json",
                "--patch",
                &changed,
            ];
            plane.kubectl(&patch, "").await.unwrap();
        }
    };
    follows(40).await;
    let renewed = shop.platform.renew_weight(&by, "orders", LONG).await;
    assert!(matches!(renewed, Err(PlatformError::WeightLost { .. })), "{renewed:?}");
    let gone = set(&shop, Some(&by), &Field::canary("orders"), None).await;
    assert!(matches!(gone, Cas::Conflict { .. }), "{gone:?}");
    let route = stage.object(&shop.namespace, "grpcroute/orders").await;
    assert_eq!(
        route["spec"]["rules"][0]["backendRefs"][1]["weight"], 40,
        "theirs stays"
    );
    follows(10).await;
    shop.platform.renew_weight(&by, "orders", LONG).await.unwrap();
    assert_eq!(
        set(&shop, Some(&by), &Field::canary("orders"), None).await,
        Cas::Applied
    );

    // Somebody else's weights are no share of ours, and not ours to set.
    grant(&shop, &by, 0, 10).await;
    let stable = json!([{ "name": "orders", "port": 80 }]);
    let both =
        json!([{ "name": "orders", "port": 80, "weight": 60 }, { "name": "orders-canary", "port": 80, "weight": 40 }]);
    for (weights, left) in [(both, Weight::value("v2", 40, "r1")), (stable, None)] {
        let changed = json!([{ "op": "replace", "path": "/spec/rules/0/backendRefs", "value": weights },
                             { "op": "replace", "path": "/spec/rules/1/backendRefs", "value": weights }]);
        let patch = [
            "patch",
            "httproute/orders",
            "--namespace",
            &shop.namespace,
            "--type=json",
            "--patch",
            &changed.to_string(),
        ];
        stage.plane.kubectl(&patch, "").await.unwrap();
        assert_eq!(shop.platform.get(&Field::canary("orders")).await.unwrap(), left);
        let renewed = shop.platform.renew_weight(&by, "orders", LONG).await;
        assert!(matches!(renewed, Err(PlatformError::WeightLost { .. })), "{renewed:?}");
        for expect in [0, 10, 40] {
            let again = shop.platform.grant_weight(&by, "orders", "v2", expect, 50, LONG).await;
            assert_eq!(again.unwrap(), Cas::Conflict { actual: left.clone() });
        }
        assert_eq!(shop.platform.get(&Field::canary("orders")).await.unwrap(), left);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_ends_with_the_stable_objects_alone_whoever_ends_it() {
    let Some(stage) = Stage::with_routes("a_promotion_ends_with_the_stable_objects_alone_whoever_ends_it").await else {
        return;
    };
    let shop = stage.shop().await;
    let platform = &shop.platform;
    let before = stage.object(&shop.namespace, "httproute/orders").await;
    let by = run(&shop, "r1").await;
    canary(&shop, &by).await;
    grant(&shop, &by, 0, 100).await;
    let stable = Field::stable_version("orders");
    assert_eq!(set(&shop, Some(&by), &stable, Some("v2".into())).await, Cas::Applied);
    assert_eq!(
        set(&shop, Some(&by), &Field::canary("orders"), None).await,
        Cas::Applied
    );
    assert_eq!(
        backends(&stage, &shop).await,
        shares(0, 100),
        "the bake: all traffic, and the old pods stay"
    );
    let state = platform.service("orders").await.unwrap();
    assert_eq!((state.stable_version.as_deref(), state.ready_of("v1")), (Some("v2"), 2));

    // Back and forth: the way back is one patch.
    assert_eq!(set(&shop, Some(&by), &stable, Some("v1".into())).await, Cas::Applied);
    let back = stage.object(&shop.namespace, "httproute/orders").await;
    assert_eq!(back["spec"], before["spec"]);
    assert_eq!(set(&shop, Some(&by), &stable, Some("v2".into())).await, Cas::Applied);

    // A worker that dies while the old version is taken away …
    let old = Field::version("orders", "v1");
    let value = platform.get(&old).await.unwrap();
    let mut record = platform.record("r1").await.unwrap().unwrap();
    record.plan_change(old.clone(), None, value.clone(), 0);
    record.revision = platform.update_record(&record).await.unwrap();
    let interrupted = platform.compare_and_set(Some(&by), &old, value.as_ref(), None);
    let interrupted = tokio::time::timeout(Duration::from_millis(300), interrupted).await;
    assert!(
        interrupted.is_err(),
        "it waits for the roll-out and for the canary's last requests"
    );
    // … is followed by one that finds the old version as it was, and goes on.
    assert_eq!(platform.get(&old).await.unwrap(), value);
    let ended = platform
        .compare_and_set(Some(&by), &old, value.as_ref(), None)
        .await
        .unwrap();
    assert_eq!(ended, Cas::Applied);
    assert_eq!(platform.get(&old).await.unwrap(), None);
    shop.until("two pods of the new version, and no others", |service| {
        service.instances.len() == 2 && service.ready_of("v2") == 2
    })
    .await;
    let deployment = stage.object(&shop.namespace, "deployment/orders").await;
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"][0]["image"],
        "opsctl/orders:v2"
    );
    let after = stage.object(&shop.namespace, "httproute/orders").await;
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(platform.get(&stable).await.unwrap(), Some("v2".into()));
    let shown = stage
        .plane
        .kubectl(
            &[
                "get",
                "deployments,services",
                "--namespace",
                &shop.namespace,
                "--output=name",
            ],
            "",
        )
        .await;
    assert_eq!(
        shown.unwrap().lines().collect::<Vec<_>>(),
        ["deployment.apps/orders", "service/orders"]
    );

    // Until the run is over, the Deployment says what it would have to do; then it says nothing.
    let marks = async || stage.marks(&shop.namespace, "deployment/orders").await;
    assert!(marks().await.contains(&"opsctl.dev/undo".to_owned()));
    for step in &mut record.undo {
        step.result = Some(StepResult::Undone);
    }
    record.phase = Phase::Closed;
    record.outcome = Some(Outcome::Passed);
    platform.update_record(&record).await.unwrap();
    assert_eq!(marks().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_canary_is_recovered_with_everything_it_changed() {
    let Some(stage) = Stage::with_routes("a_lost_canary_is_recovered_with_everything_it_changed").await else {
        return;
    };
    let shop = stage.shop().await;
    let before = stage.object(&shop.namespace, "httproute/orders").await;
    let mut record = RunRecord::new("r1", "canary", "service/orders", Value::Null, shop.platform.now());
    let spec = second();
    record.plan_change(Field::version("orders", "v2"), None, Some(spec.value()), 0);
    record.plan_change(Field::canary("orders"), None, Weight::value("v2", 10, "r1"), 0);
    record.cancel = Some(opsctl_platform::run::Cancel {
        by: "test".to_owned(),
        at: shop.platform.now(),
        reason: opsctl_platform::run::Reason::Abort,
    });
    record.revision = shop.platform.create_record(&record).await.unwrap();
    let by = record.fence();
    canary(&shop, &by).await;
    grant(&shop, &by, 0, 10).await;

    let folder = tempfile::tempdir().unwrap();
    let journal = opsctl_platform::run::Journal::open(folder.path().join("events.ndjson"), "r1").unwrap();
    let recovered = recover(&shop.platform, "r1", &journal).await.unwrap();
    let opsctl_platform::run::Recovered::Closed { report, .. } = recovered else {
        panic!("{recovered:?}");
    };
    assert!(report.complete(), "{report:?}");
    let after = stage.object(&shop.namespace, "httproute/orders").await;
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(shop.platform.get(&Field::version("orders", "v2")).await.unwrap(), None);
    // Its worker wakes up and can change nothing.
    let late = shop.platform.grant_weight(&by, "orders", "v2", 0, 50, LONG).await;
    assert!(matches!(late, Err(PlatformError::Fenced { .. })), "{late:?}");
}

/// What a change is refused with.
async fn refusal(shop: &Shop, by: &Fence) -> String {
    let error = shop
        .platform
        .grant_weight(by, "orders", "v2", 0, 10, LONG)
        .await
        .unwrap_err();
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_split_is_refused_and_nothing_is_changed() {
    let Some(stage) = Stage::with_routes("what_cannot_be_split_is_refused_and_nothing_is_changed").await else {
        return;
    };
    let shop = stage.shop().await;
    let by = run(&shop, "r1").await;
    canary(&shop, &by).await;
    let before = backends(&stage, &shop).await;

    // What GitOps keeps is refused, unless it is taken over.
    let label = |value: &str| {
        vec![
            "label".to_owned(),
            "httproute/orders".to_owned(),
            "--namespace".to_owned(),
            shop.namespace.clone(),
            value.to_owned(),
        ]
    };
    let kubectl = async |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        stage.plane.kubectl(&arguments, "").await.unwrap()
    };
    kubectl(&label("kustomize.toolkit.fluxcd.io/name=apps")).await;
    let text = refusal(&shop, &by).await;
    assert!(
        text.contains("Flux (`apps`)") && text.contains("HTTPRoute `orders`"),
        "{text}"
    );
    let file = stage.plane.folder().join("admin.kubeconfig");
    let config = config::context(Some(&file), "admin", Some(&stage.plane.url()))
        .await
        .unwrap();
    let mut taken = settings(&shop.namespace, &["orders"]);
    taken.services[0].take_ownership = true;
    let other = KubePlatform::connect(taken, &config).unwrap();
    let granted = other.grant_weight(&by, "orders", "v2", 0, 10, LONG).await.unwrap();
    assert_eq!(granted, Cas::Applied);
    assert_eq!(
        set(&shop, None, &Field::canary("orders"), None).await,
        Cas::Applied,
        "an undo asks nobody"
    );
    kubectl(&label("kustomize.toolkit.fluxcd.io/name-")).await;
    assert_eq!(backends(&stage, &shop).await, before);

    // Two routes of a kind.
    let mut double = stage.object(&shop.namespace, "httproute/orders").await;
    double["metadata"] = json!({ "name": "orders-old", "namespace": shop.namespace });
    stage.apply(&double).await;
    let text = refusal(&shop, &by).await;
    assert!(text.contains("HTTPRoute `orders` and HTTPRoute `orders-old`"), "{text}");
    assert_eq!(backends(&stage, &shop).await, before);
    // Unless it is said which one is meant.
    let mut named = settings(&shop.namespace, &["orders"]);
    named.services[0].routes = vec!["HTTPRoute/orders".to_owned()];
    let other = KubePlatform::connect(named, &config).unwrap();
    let granted = other.grant_weight(&by, "orders", "v2", 0, 10, LONG).await.unwrap();
    assert_eq!(granted, Cas::Applied);
    assert_eq!(
        set(
            &Shop {
                platform: other,
                namespace: shop.namespace.clone()
            },
            None,
            &Field::canary("orders"),
            None
        )
        .await,
        Cas::Applied
    );

    // A rehearsal sees the same and changes nothing.
    let rehearsed = shop
        .platform
        .rehearse(&Field::canary("orders"), None, Weight::value("v2", 10, "r1").as_ref())
        .await;
    assert!(rehearsed.unwrap_err().to_string().contains("orders-old"));
    for route in ["httproute/orders", "httproute/orders-old", "grpcroute/orders"] {
        kubectl(&["delete", route, "--namespace", &shop.namespace].map(str::to_owned)).await;
    }
    let text = refusal(&shop, &by).await;
    assert!(
        text.contains("an HTTPRoute or GRPCRoute") && text.contains("leads to the Service `orders`"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_cannot_be_is_refused_and_nothing_is_made() {
    let Some(stage) = Stage::new("a_canary_that_cannot_be_is_refused_and_nothing_is_made").await else {
        return;
    };
    let shop = stage.shop().await;
    let by = run(&shop, "r1").await;
    let error = |spec: VersionSpec| {
        let (platform, by) = (shop.platform.clone(), by.clone());
        async move {
            platform
                .start_version(Some(&by), "orders", &spec)
                .await
                .unwrap_err()
                .to_string()
        }
    };
    let rehearsed = shop
        .platform
        .rehearse(&Field::version("orders", "v2"), None, Some(&second().value()))
        .await
        .unwrap();
    assert_eq!(rehearsed, Cas::Applied);
    let bad = VersionSpec {
        version: "feature/x".to_owned(),
        ..second()
    };
    assert!(error(bad).await.contains("`feature/x` cannot be the value of a label"));
    // Without the Gateway API there is nobody to split the traffic.
    canary(&shop, &by).await;
    let text = refusal(&shop, &by).await;
    assert!(text.contains("the Gateway API on this cluster"), "{text}");
    assert_eq!(
        set(&shop, Some(&by), &Field::version("orders", "v2"), None).await,
        Cas::Applied
    );

    // Somebody else's objects under our names stay theirs.
    let foreign = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "orders-canary", "namespace": shop.namespace },
                          "spec": { "selector": { "app": "theirs" }, "ports": [{ "port": 80 }] } });
    stage.apply(&foreign).await;
    assert!(
        error(second())
            .await
            .contains("there is one already that opsctl did not make")
    );
    let there = stage.object(&shop.namespace, "service/orders-canary").await;
    assert_eq!(there["spec"]["selector"], json!({ "app": "theirs" }));
    let delete = ["delete", "service/orders-canary", "--namespace", &shop.namespace];
    stage.plane.kubectl(&delete, "").await.unwrap();

    let unselect = [
        "patch",
        "service/orders",
        "--namespace",
        &shop.namespace,
        "--type=json",
        "--patch",
        r#"[{"op":"remove","path":"/spec/selector"}]"#,
    ];
    stage.plane.kubectl(&unselect, "").await.unwrap();
    assert!(error(second()).await.contains("the Service `orders` has no selector"));
    let shown = stage
        .plane
        .kubectl(
            &[
                "get",
                "deployments,services",
                "--namespace",
                &shop.namespace,
                "--output=name",
            ],
            "",
        )
        .await;
    assert_eq!(
        shown.unwrap().lines().collect::<Vec<_>>(),
        ["deployment.apps/orders", "service/orders"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_pods_keep_their_number_or_the_traffic_comes_back_in_steps() {
    let Some(stage) = Stage::with_routes("the_old_pods_keep_their_number_or_the_traffic_comes_back_in_steps").await
    else {
        return;
    };
    let shop = stage.shop().await;
    let platform = &shop.platform;
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "orders", "namespace": shop.namespace },
        "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "orders" }, "minReplicas": 1, "maxReplicas": 5 },
    });
    stage.apply(&scaler).await;
    let minimum = async || {
        let scaler = stage.object(&shop.namespace, "hpa/orders").await;
        (
            scaler["spec"]["minReplicas"].as_u64(),
            stage.marks(&shop.namespace, "hpa/orders").await.len(),
        )
    };
    let by = run(&shop, "r1").await;
    canary(&shop, &by).await;
    let stable = Field::stable_version("orders");
    assert_eq!(set(&shop, Some(&by), &stable, Some("v2".into())).await, Cas::Applied);
    assert_eq!(minimum().await, (Some(2), 1), "it may not take the old pods away");
    assert_eq!(set(&shop, Some(&by), &stable, Some("v1".into())).await, Cas::Applied);
    assert_eq!(minimum().await, (Some(1), 0));

    // Somebody takes a pod away all the same.
    assert_eq!(set(&shop, Some(&by), &stable, Some("v2".into())).await, Cas::Applied);
    let delete = ["delete", "hpa/orders", "--namespace", &shop.namespace];
    stage.plane.kubectl(&delete, "").await.unwrap();
    let scale = async |pods: usize| {
        let replicas = format!("--replicas={pods}");
        let scale = ["scale", "deployment/orders", "--namespace", &shop.namespace, &replicas];
        stage.plane.kubectl(&scale, "").await.unwrap();
        shop.until("that many old pods", |service| service.ready_of("v1") == pods)
            .await;
    };
    scale(1).await;
    let back = {
        let (platform, by, stable) = (platform.clone(), by.clone(), stable.clone());
        tokio::spawn(async move {
            let (from, to) = (json!("v2"), json!("v1"));
            platform
                .compare_and_set(Some(&by), &stable, Some(&from), Some(&to))
                .await
        })
    };
    until("half of the traffic is back", async || {
        backends(&stage, &shop).await == shares(50, 50)
    })
    .await;
    assert_eq!(
        platform.get(&stable).await.unwrap(),
        Some("v2".into()),
        "it is not over"
    );
    scale(2).await;
    assert_eq!(back.await.unwrap().unwrap(), Cas::Applied);
    assert_eq!(backends(&stage, &shop).await.len(), 3);
    assert_eq!(platform.get(&stable).await.unwrap(), Some("v1".into()));
}
