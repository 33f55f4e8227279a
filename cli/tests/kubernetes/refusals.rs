//! What cannot be done is one clear error with its exit code, and the objects of the namespace are as they were. How a
//! cluster that cannot be used is told is `clusters.rs`'s business, missing rights are `rights.rs`'s.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::sandbox::Ran;
use crate::stage::Stage;

const CANARY: [&str; 6] = [
    "deploy",
    "canary",
    "orders",
    "--image",
    "opsctl/orders:9.9.9",
    "--weight",
];
const SHOP: &str = "namespaces/shop";

/// Every object of the namespace that somebody means, with the version that each write changes. What a run keeps of itself
/// is apart.
async fn objects(stage: &Stage) -> Vec<String> {
    let mut all = Vec::new();
    for (group, kinds) in [
        ("api/v1", &["services", "pods", "endpoints"][..]),
        ("apis/apps/v1", &["deployments", "replicasets"]),
        ("apis/networking.k8s.io/v1", &["ingresses"]),
        ("apis/gateway.networking.k8s.io/v1", &["httproutes", "grpcroutes"]),
    ] {
        for kind in kinds {
            // Absent where the Gateway API is not known.
            let listed = stage.get(&format!("/{group}/{SHOP}/{kind}")).await;
            for object in listed["items"].as_array().into_iter().flatten() {
                let meta = &object["metadata"];
                all.push(format!("{kind}/{} {}", meta["name"], meta["resourceVersion"]));
            }
        }
    }
    all.sort();
    all
}

/// Nothing of runs either: refused before anything was stored.
async fn runs(stage: &Stage) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        format!("/api/v1/{SHOP}/configmaps?labelSelector=opsctl.dev/run"),
        format!("/apis/batch/v1/{SHOP}/jobs"),
        format!("/apis/coordination.k8s.io/v1/{SHOP}/leases"),
    ] {
        all.extend(stage.get(&path).await["items"].as_array().cloned().unwrap_or_default());
    }
    all
}

/// A canary at `weight` percent is refused, asked for and rehearsed alike, and nothing is changed.
async fn refused(stage: &Stage, weight: &str, code: i32, says: &[&str]) {
    let before = objects(stage).await;
    for more in [&["--dry-run"][..], &[]] {
        let words = [&CANARY[..], &[weight], more].concat();
        let mut ran = stage.run(&words).await;
        assert_eq!(ran.code, code, "{says:?}:\n{}\n{}", ran.stdout, ran.stderr);
        let errors = ran.stderr.lines().filter(|line| line.starts_with("error")).count();
        assert_eq!(errors, 1, "{}", ran.stderr);
        for text in says {
            ran = ran.says(text);
        }
        let machine = stage.run(&[&words[..], &["--json"]].concat()).await.ended(code);
        let error: Value = serde_json::from_str(&machine.stderr).expect("one document");
        assert!(error["help"].is_string(), "what to do is told: {error}");
        assert_eq!(objects(stage).await, before, "{says:?}");
        assert_eq!(runs(stage).await, Vec::<Value>::new(), "{says:?}");
    }
}

/// Replaces text in the catalogue.
fn edit(stage: &Stage, old: &str, new: &str) {
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    assert!(text.contains(old), "{old:?} is not in:\n{text}");
    stage.sandbox.write("opsctl.toml", &text.replace(old, new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_cannot_be_is_one_clear_error_and_nothing_is_changed() {
    let test = "a_canary_that_cannot_be_is_one_clear_error_and_nothing_is_changed";
    let Some(stage) = Stage::new(test).await else {
        return;
    };
    edit(
        &stage,
        "[cluster.eu]\n",
        "[cluster.eu]\nimage = \"registry.example/opsctl:1\"\n",
    );

    // A file that is no kubeconfig.
    let good = stage.plane.kubeconfig().display().to_string();
    stage.sandbox.write("torn.kubeconfig", "clusters: [{name: torn");
    let torn = stage.sandbox.path("torn.kubeconfig").display().to_string();
    edit(&stage, &good, &torn);
    refused(&stage, "10", 2, &["the kubeconfig cannot be used", "[cluster.NAME]"]).await;
    edit(&stage, &torn, &good);

    // Nobody who splits the traffic: the definitions are missing, then a route.
    refused(&stage, "10", 2, &["the Gateway API", "does not exist", "opsctl.toml"]).await;
    let Some(()) = stage.gateway(test).await else { return };
    let route = stage
        .get(&format!("/apis/gateway.networking.k8s.io/v1/{SHOP}/httproutes/orders"))
        .await;
    delete(&stage, "httproute/orders").await;
    refused(
        &stage,
        "10",
        2,
        &["an HTTPRoute or GRPCRoute", "leads to the Service `orders`"],
    )
    .await;

    // Two of them, and nobody says which.
    for name in ["orders", "orders-too"] {
        stage
            .apply(&json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": { "name": name, "namespace": "shop" },
                "spec": route["spec"],
            }))
            .await;
    }
    let two = [
        "two objects lead to the Service `orders`",
        "routes = [\"HTTPRoute/orders",
    ];
    refused(&stage, "10", 5, &two).await;
    delete(&stage, "httproute/orders-too").await;

    // No Deployment of that name.
    edit(
        &stage,
        "[service.orders]",
        "[service.orders]\nkubernetes = { namespace = \"shop\", deployment = \"ordres\" }",
    );
    refused(&stage, "10", 2, &["has no stable version", "which Deployment"]).await;

    // A share that no number of pods makes.
    edit(&stage, "deployment = \"ordres\"", "provider = \"replicas\"");
    let rounded = ["with 2 stable pods", "the nearest share is 33 %", "10 pods in all"];
    refused(&stage, "10", 5, &rounded).await;
    stage.run(&[&CANARY[..], &["33", "--dry-run"]].concat()).await.ended(0);

    // An image that does not have the name of one.
    let before = objects(&stage).await;
    let words = ["deploy", "canary", "orders", "--image", "no image", "--weight", "33"];
    stage.run(&words).await.ended(2).says("is no image");
    let words = [
        "deploy",
        "canary",
        "orders",
        "--image",
        "orders:2",
        "--version",
        "a/b",
        "--weight",
        "33",
    ];
    stage.run(&words).await.ended(5).says("cannot be the value of a label");
    assert_eq!(objects(&stage).await, before);

    // A Service that says nothing of its pods.
    edit(
        &stage,
        "kubernetes = { namespace = \"shop\", provider = \"replicas\" }\n",
        "",
    );
    let patch = r#"[{"op":"remove","path":"/spec/selector"}]"#;
    let unselect = [
        "patch",
        "service/orders",
        "--namespace=shop",
        "--type=json",
        "--patch",
        patch,
    ];
    stage.plane.kubectl(&unselect, "").await.expect("kubectl takes it");
    refused(&stage, "10", 5, &["the Service `orders` has no selector"]).await;
}

async fn delete(stage: &Stage, object: &str) {
    let words = ["delete", object, "--namespace=shop", "--wait=true"];
    stage.plane.kubectl(&words, "").await.expect("kubectl deletes it");
}

/// What the kubelet says of a container that does not stay up.
struct Ill {
    reason: &'static str,
    restarts: u32,
    ended: Option<i32>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_does_not_stay_up_is_taken_back_with_the_reason() {
    let test = "a_canary_that_does_not_stay_up_is_taken_back_with_the_reason";
    let Some(stage) = Stage::new(test).await else {
        return;
    };
    let Some(()) = stage.gateway(test).await else { return };
    edit(
        &stage,
        "[cluster.eu]\n",
        "[cluster.eu]\nimage = \"registry.example/opsctl:1\"\n",
    );
    // Pods from here on are nobody's, so that this test says how they are.
    stage
        .plane
        .kubectl(&["cordon", "kwok-0"], "")
        .await
        .expect("kubectl does");
    let before = objects(&stage).await;
    let pulled = Ill {
        reason: "ImagePullBackOff",
        restarts: 0,
        ended: None,
    };
    taken_back(&stage, &pulled).await.says("ImagePullBackOff");
    let crashed = Ill {
        reason: "CrashLoopBackOff",
        restarts: 2,
        ended: Some(3),
    };
    taken_back(&stage, &crashed).await.says("exited with status 3");
    // What runs is touched by nobody; the pod of each run's judge is the Job's.
    let judges = |object: &String| !object.starts_with("pods/\"opsctl-run-");
    let after: Vec<String> = objects(&stage).await.into_iter().filter(judges).collect();
    assert_eq!(after, before);
    let status = stage.run(&["status", "--json"]).await.ended(0).json();
    assert_eq!(status["services"][0]["stable_version"], "1.4.0");
    stage.run(&["recover"]).await.ended(0).says("nothing to do");
}

/// A canary whose pods are ill: its exit code is that of a canary that was rolled back.
async fn taken_back(stage: &Stage, ill: &Ill) -> Ran {
    let canary = stage
        .sandbox
        .command(&[&CANARY[..], &["10", "--interval", "1s"]].concat());
    let terminal = tokio::task::spawn_blocking(move || {
        let mut canary = canary;
        canary.output()
    });
    let mut worker = judge(stage).await;
    stage
        .until("the canary's pods are ill", async |plane| {
            let pods = format!("/api/v1/{SHOP}/pods?labelSelector=opsctl.dev/track=canary");
            let Ok(pods) = plane.get(&pods).await else { return false };
            let pods = pods.json()["items"].as_array().cloned().unwrap_or_default();
            for pod in &pods {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                let patch = json!({ "status": { "containerStatuses": [status(ill)] } }).to_string();
                let target = format!("pod/{name}");
                let words = [
                    "patch",
                    &target,
                    "--namespace=shop",
                    "--subresource=status",
                    "--patch",
                    &patch,
                ];
                // It may be gone again.
                let _ = plane.kubectl(&words, "").await;
            }
            !pods.is_empty()
        })
        .await;
    let ran = terminal.await.expect("it does not panic").expect("opsctl starts");
    let ran = Ran::of(ran).ended(4).says("end again and again, or never start");
    tokio::task::spawn_blocking(move || worker.wait())
        .await
        .expect("it does not panic")
        .expect("our own child");
    ran
}

/// How the container of a canary's pod is.
fn status(ill: &Ill) -> Value {
    let last = ill.ended.map_or_else(
        || json!({}),
        |code| json!({ "terminated": { "exitCode": code, "reason": "Error", "startedAt": null, "finishedAt": null } }),
    );
    json!({
        "name": "orders",
        "image": "opsctl/orders:9.9.9",
        "imageID": "",
        "ready": false,
        "started": false,
        "restartCount": ill.restarts,
        "state": { "waiting": { "reason": ill.reason } },
        "lastState": last,
    })
}

/// Does what the kubelet would: starts the judge of the run whose Job is there. It runs here, with the rights of `admin`.
async fn judge(stage: &Stage) -> Child {
    let mut run = String::new();
    stage
        .until("a run is stored", async |plane| {
            let path = format!("/api/v1/{SHOP}/configmaps?labelSelector=opsctl.dev/run");
            let Ok(maps) = plane.get(&path).await else { return false };
            let record = |map: &Value| -> Option<Value> { serde_json::from_str(map["data"]["record"].as_str()?).ok() };
            let maps = maps.json();
            let mut records = maps["items"].as_array().into_iter().flatten().filter_map(record);
            let waiting = records.rfind(|record| record["phase"] == "preparing");
            run = waiting
                .and_then(|record| Some(record["id"].as_str()?.to_owned()))
                .unwrap_or_default();
            !run.is_empty()
        })
        .await;
    let catalogue = stage.sandbox.path("opsctl.toml").display().to_string();
    let state = stage.sandbox.path(".opsctl").display().to_string();
    let mut command: Command = stage.sandbox.command(&[
        "internal",
        "--env",
        "staging",
        "--cluster",
        "eu",
        "--config",
        &catalogue,
        "judge",
        "--state",
        &state,
        "--run",
        &run,
    ]);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts")
}
