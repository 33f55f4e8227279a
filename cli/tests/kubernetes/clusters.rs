//! How a cluster is chosen and what is told when it cannot be used; status, runs, drills.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::sandbox::Sandbox;
use crate::stage::{Stage, ended};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_used_is_one_clear_error() {
    let Some(stage) = Stage::new("a_cluster_that_cannot_be_used_is_one_clear_error").await else {
        return;
    };
    let (plane, sandbox) = (&stage.plane, &stage.sandbox);
    let (good, url) = (plane.kubeconfig(), plane.url());

    // Not the cluster that is meant.
    stage.catalogue(&good, "admin", "https://eu.internal", "");
    stage
        .run(&["status"])
        .await
        .ended(5)
        .says("leads to")
        .says("https://eu.internal");
    // No such context, and the current one is never used.
    stage.catalogue(&good, "prod", &url, "");
    stage
        .run(&["status"])
        .await
        .ended(2)
        .says("no context `prod`")
        .says("admin");
    // No kubeconfig at all, here and in the home.
    stage.catalogue(&sandbox.path("nowhere"), "admin", &url, "");
    stage.run(&["status"]).await.ended(2).says("kubeconfig cannot be used");
    let text = std::fs::read_to_string(sandbox.path("opsctl.toml")).expect("the catalogue");
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("kubeconfig")).collect();
    sandbox.write("opsctl.toml", &without.join("\n"));
    let mut command = sandbox.command(&["status"]);
    command.env_remove("KUBECONFIG").env("HOME", sandbox.path(""));
    ended(command).await.ended(2).says("KUBECONFIG is not set");
    // KUBECONFIG is used where the catalogue names no file.
    let mut command = sandbox.command(&["status", "--json"]);
    command.env("KUBECONFIG", &good);
    assert_eq!(ended(command).await.ended(0).json()["healthy"], true);
    // A certificate whose time is over, a user who may nothing, a server that is not there.
    let expired = plane.kubeconfig_expired().expect("a kubeconfig");
    stage.catalogue(&expired, "expired", &url, "");
    stage.run(&["status"]).await.ended(2).says("expired");
    let nobody = plane.kubeconfig_of("nobody", &[]).expect("a kubeconfig");
    stage.catalogue(&nobody, "nobody", &url, "");
    stage
        .run(&["status"])
        .await
        .ended(5)
        .says("not allowed to list")
        .says("opsctl rbac");
    let text = std::fs::read_to_string(&good)
        .expect("readable")
        .replace(&url, "https://127.0.0.1:1");
    sandbox.write("gone.kubeconfig", &text);
    stage.catalogue(&sandbox.path("gone.kubeconfig"), "admin", "https://127.0.0.1:1", "");
    let ran = stage.run(&["status", "--json"]).await.ended(7);
    let error: Value = serde_json::from_str(&ran.stderr).expect("one document");
    assert_eq!(error["code"], "unreachable");
    // What only the local platform can do is told before anything is asked.
    for words in [["up"], ["down"]] {
        stage.run(&words).await.ended(2).says("is for the local platform");
    }
    assert_eq!(
        stage
            .get("/api/v1/namespaces/shop/configmaps?labelSelector=opsctl.dev/run")
            .await["items"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_take_all_clusters_and_changes_one() {
    let Some(stage) = Stage::new("reads_take_all_clusters_and_changes_one").await else {
        return;
    };
    let ran = stage.run(&["status"]).await.ended(0);
    assert!(
        ran.stdout.lines().all(|line| line.chars().count() <= 80),
        "{}",
        ran.stdout
    );
    insta::assert_snapshot!("status", ran.stdout);
    a_pod_on_its_way_out_does_not_count(&stage, &ran.stdout).await;
    stage.catalogue(
        &stage.plane.kubeconfig(),
        "admin",
        &stage.plane.url(),
        &format!(
            "[cluster.us]\ncontext = \"admin\"\nkubeconfig = {:?}\n",
            stage.plane.kubeconfig().display().to_string()
        ),
    );
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    stage
        .sandbox
        .write("opsctl.toml", &text.replace("[\"eu\"]", "[\"eu\", \"us\"]"));
    let document = stage.run(&["status", "--json"]).await.ended(0).json();
    assert_eq!(document["schema"], "opsctl.status/v1");
    assert_eq!(document["services"].as_array().map(Vec::len), Some(4));
    assert_eq!(document["services"][0]["cluster"], "eu");
    let document = stage
        .run(&["status", "--json", "--cluster", "us"])
        .await
        .ended(0)
        .json();
    assert_eq!(document["services"].as_array().map(Vec::len), Some(2));
    let ran = stage.run(&["drill", "pod-kill", "orders", "--dry-run"]).await.ended(2);
    ran.says("is on several clusters").says("--cluster NAME");
    stage
        .run(&["status", "--cluster", "usa"])
        .await
        .ended(2)
        .says("did you mean `us`?");
    // One of several that is away is told, and the others are shown.
    let text = text.replace("[\"eu\"]", "[\"eu\", \"us\"]");
    let broken = text.replacen(&stage.plane.url(), "https://127.0.0.1:1", 1);
    stage.sandbox.write("opsctl.toml", &broken);
    stage.run(&["status"]).await.ended(5).says("leads to");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_gateway_a_service_is_asked_for_by_the_name_of_its_route() {
    let test = "behind_a_gateway_a_service_is_asked_for_by_the_name_of_its_route";
    let Some(stage) = Stage::new(test).await else {
        return;
    };
    let Some(()) = stage.gateway(test).await else { return };
    let patch = r#"{"spec":{"hostnames":["*.shop.local","orders.shop.local"]}}"#;
    let words = [
        "patch",
        "httproute/orders",
        "--namespace=shop",
        "--type=merge",
        "--patch",
        patch,
    ];
    stage.plane.kubectl(&words, "").await.expect("kubectl takes it");
    let front = async || {
        let status = stage.run(&["status", "--json"]).await.ended(0).json();
        status["services"][0]["front"].clone()
    };
    assert_eq!(front().await["host"], Value::Null, "there is no gateway to ask");

    let gateway = played_gateway().await;
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    let catalogue = text.replace(
        "[cluster.eu]\n",
        &format!("[cluster.eu]\ngateway_url = \"{}\"\n", gateway.url),
    );
    stage.sandbox.write("opsctl.toml", &catalogue);
    assert_eq!(front().await["host"], "orders.shop.local");
    // Load asks by it, too.
    let load = stage
        .run(&["load", "run", "orders/", "--rate", "20/s", "--for", "1s", "--json"])
        .await;
    // 9: on a busy machine it may say that it was late itself.
    assert!([0, 9].contains(&load.code), "{}{}", load.stdout, load.stderr);
    assert_eq!(gateway.asked_for(), ["orders.shop.local"]);

    // The catalogue stands above the route; an address of its own is no gateway's.
    let kubernetes = "[service.orders]\nkubernetes = { namespace = \"shop\", ";
    let named = catalogue.replace("[service.orders]\n", &format!("{kubernetes}host = \"o.example\" }}\n"));
    stage.sandbox.write("opsctl.toml", &named);
    assert_eq!(front().await["host"], "o.example");
    let own = catalogue.replace(
        "[service.orders]\n",
        &format!("{kubernetes}url = \"http://o.example\" }}\n"),
    );
    stage.sandbox.write("opsctl.toml", &own);
    assert_eq!(front().await["host"], Value::Null);
}

/// `before` is what the status is without it. It takes as long as its grace period, or as its finalizers want.
async fn a_pod_on_its_way_out_does_not_count(stage: &Stage, before: &str) {
    let pods = stage
        .get("/api/v1/namespaces/shop/pods?labelSelector=app.kubernetes.io/name=orders")
        .await;
    let name = |pod: usize| pods["items"][pod]["metadata"]["name"].as_str().expect("a name");
    let (leaving, staying) = (format!("pod/{}", name(0)), name(1));
    let keep = async |finalizers: Value| {
        let patch = json!({ "metadata": { "finalizers": finalizers } }).to_string();
        let words = ["patch", &leaving, "--namespace=shop", "--type=merge", "--patch", &patch];
        stage.plane.kubectl(&words, "").await.expect("kubectl takes it");
    };
    keep(json!(["opsctl.dev/test"])).await;
    let delete = ["delete", &leaving, "--namespace=shop", "--wait=false"];
    stage.plane.kubectl(&delete, "").await.expect("kubectl takes it");
    stage
        .until("another pod is there", async |plane| {
            let pods = plane.get("/api/v1/namespaces/shop/pods").await;
            pods.is_ok_and(|pods| pods.json()["items"].as_array().is_some_and(|pods| pods.len() == 4))
        })
        .await;
    stage.ready("orders", 2).await;
    assert_eq!(stage.run(&["status"]).await.ended(0).stdout, before);
    let asked = stage.run(&["health", "check", "orders"]).await;
    assert!(asked.stdout.contains(staying), "{asked:?}");
    assert!(!asked.stdout.contains(name(0)), "{asked:?}");
    keep(Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_works_here_and_what_it_tells_lies_in_the_cluster() {
    let Some(stage) = Stage::new("a_drill_works_here_and_what_it_tells_lies_in_the_cluster").await else {
        return;
    };
    let words = ["drill", "pod-kill", "orders", "--no-probe", "--for", "2s", "--json"];
    let dry = stage.run(&[&words[..], &["--dry-run"]].concat()).await.ended(0);
    assert!(dry.stdout.contains("orders-"), "{}", dry.stdout);
    let before = stage
        .get("/api/v1/namespaces/shop/configmaps?labelSelector=opsctl.dev/run")
        .await;
    assert_eq!(before["items"], json!([]), "a dry run leaves nothing");
    // Nothing counts the requests: it cannot tell.
    let report = stage.run(&words).await.ended(9).json();
    assert_eq!(report["service"], "orders");
    let run = report["run"].as_str().expect("its run").to_owned();
    let record = stage
        .get(&format!("/api/v1/namespaces/shop/configmaps/opsctl-run-{run}"))
        .await;
    let record: Value = serde_json::from_str(record["data"]["record"].as_str().expect("text")).expect("JSON");
    assert_eq!((&record["phase"], &record["cluster"]), (&json!("closed"), &json!("eu")));
    stage.ready("orders", 2).await;

    // Another folder, as on another machine, knows it all the same.
    let elsewhere = Sandbox::new();
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    elsewhere.write("opsctl.toml", &text);
    let shown = ended(elsewhere.command(&["run", "show", &run, "--json"]))
        .await
        .ended(0)
        .json();
    assert_eq!(shown["report"]["run"], run.as_str());
    let kinds: Vec<&str> = shown["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert!(
        kinds.contains(&"run_taken") && kinds.contains(&"run_closed"),
        "{kinds:?}"
    );
    ended(elsewhere.command(&["recover"]))
        .await
        .ended(0)
        .says("nothing to do");
}

/// A gateway that answers everything, and knows by which names it was asked.
struct PlayedGateway {
    url: String,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl PlayedGateway {
    fn asked_for(&self) -> Vec<String> {
        self.names
            .lock()
            .expect("nobody panics with it")
            .iter()
            .cloned()
            .collect()
    }
}

async fn played_gateway() -> PlayedGateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let names: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let seen = Arc::clone(&names);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                    let end = line.trim().is_empty();
                    if let Some((name, value)) = line.split_once(':')
                        && name.eq_ignore_ascii_case("host")
                    {
                        seen.lock()
                            .expect("nobody panics with it")
                            .insert(value.trim().to_owned());
                    }
                    line.clear();
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    if end && stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    PlayedGateway { url, names }
}
