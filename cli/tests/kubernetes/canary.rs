//! What `opsctl deploy canary` refuses before anything is changed, and what of its words reaches the judge in the cluster.

use std::process::{Child, Stdio};

use peers::{Server, servers};
use serde_json::{Value, json};

use crate::stage::{Stage, ended};

const CANARY: [&str; 7] = [
    "deploy",
    "canary",
    "orders",
    "--image",
    "opsctl/orders:1.5.0",
    "--weight",
    "10",
];

/// A stage with a route to `orders`, and an image of opsctl in the catalogue.
async fn stage(test: &str) -> Option<Stage> {
    let stage = Stage::new(test).await?;
    stage.gateway(test).await?;
    rewrite(
        &stage,
        "[cluster.eu]\n",
        "[cluster.eu]\nimage = \"registry.example/opsctl:1\"\n",
    );
    Some(stage)
}

fn rewrite(stage: &Stage, from: &str, to: &str) {
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    assert!(text.contains(from), "{text}");
    stage.sandbox.write("opsctl.toml", &text.replace(from, to));
}

async fn nothing_was_stored(stage: &Stage) {
    let runs = stage.get("/api/v1/namespaces/shop/configmaps?labelSelector=opsctl.dev/run");
    assert_eq!(runs.await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gitops_keeps_is_refused_until_it_is_taken_over() {
    let Some(stage) = stage("what_gitops_keeps_is_refused_until_it_is_taken_over").await else {
        return;
    };
    let label = async |object: &str, label: &str| {
        let words = ["label", object, "--namespace=shop", label];
        stage.plane.kubectl(&words, "").await.expect("kubectl labels it");
    };
    for (object, label_of, text) in [
        (
            "deployment/orders",
            "helm.toolkit.fluxcd.io/name",
            "Deployment `orders`",
        ),
        ("httproute/orders", "argocd.argoproj.io/instance", "HTTPRoute `orders`"),
    ] {
        label(object, &format!("{label_of}=apps")).await;
        for dry in [&[][..], &["--dry-run"]] {
            let ran = stage.run(&[&CANARY[..], dry].concat()).await.ended(5);
            ran.says(text).says("`--take-ownership` changes it all the same");
        }
        nothing_was_stored(&stage).await;
        stage
            .run(&[&CANARY[..], &["--take-ownership", "--dry-run"]].concat())
            .await
            .ended(0);
        label(object, &format!("{label_of}-")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn criteria_are_checked_in_the_catalogue_and_by_the_prometheus_that_answers_them() {
    const TEST: &str = "criteria_are_checked_in_the_catalogue_and_by_the_prometheus_that_answers_them";
    let Some(stage) = stage(TEST).await else { return };
    let Some(prometheus) = Server::start(servers::Prometheus::default(), TEST).await else {
        return;
    };
    let cluster = "[cluster.eu]\n";
    rewrite(
        &stage,
        cluster,
        &format!("{cluster}prometheus = {:?}\n", prometheus.url("http")),
    );
    let criteria = |query: &str, bound: &str| {
        format!("[[service.orders.criteria]]\nname = \"depth\"\nquery = '{query}'\n{bound}\n[service.payments]\n")
    };
    let payments = "[service.payments]\n";
    let good = "sum(depth{version=\"{{canary}}\",namespace=\"{{namespace}}\"}) / vector(2)";
    let mut now = payments.to_owned();
    for (query, bound, why) in [
        (
            "depth{version=\"{{canry}}\"}",
            "max = 0.5",
            "did you mean `{{canary}}`?",
        ),
        ("depth{{", "max = 0.5", "is not closed"),
        (good, "", "needs `max`, `min`, or both"),
        (good, "max = 1\nmin = 2.5", "nothing could meet that"),
        (good, "max = \"much\"", "expected a finite number"),
        // What only Prometheus understands.
        ("sum(depth", "max = 0.5", "parse error"),
    ] {
        let next = criteria(query, bound);
        rewrite(&stage, &now, &next);
        now = next;
        stage.run(&CANARY).await.ended(2).says(why);
    }
    nothing_was_stored(&stage).await;
    rewrite(&stage, &now, &criteria(good, "max = 0.5"));
    let dry = [&CANARY[..], &["--dry-run"]].concat();
    let ran = stage.run(&dry).await.ended(0);
    assert!(
        ran.stdout.contains("would judge depth, too: at most 0.5"),
        "{}",
        ran.stdout
    );
    let plan = stage.run(&[&dry[..], &["--json"]].concat()).await.ended(0).json();
    assert_eq!(
        plan["spec"]["criteria"][0]["query"],
        "sum(depth{version=\"1.5.0\",namespace=\"shop\"}) / vector(2)"
    );
}

/// `hunter2` to a Prometheus, which knows passwords as bcrypt alone.
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_us_ask_prometheus_is_used_here_is_a_secret_there_and_is_shown_nowhere() {
    const TEST: &str = "what_lets_us_ask_prometheus_is_used_here_is_a_secret_there_and_is_shown_nowhere";
    let Some(stage) = stage(TEST).await else { return };
    let Some(prometheus) = Server::start(servers::Prometheus::default().user("reader", HASH), TEST).await else {
        return;
    };
    let known = |more: &str| {
        let url = prometheus.url("http");
        format!("[cluster.eu]\nprometheus = {{ url = {url:?}{more} }}\n")
    };
    // One that lets us in says what is wrong with a query; any other nothing.
    let payments = "[service.payments]\n";
    let criterion = "[[service.orders.criteria]]\nname = \"depth\"\nquery = \"sum(depth\"\nmax = 1\n";
    rewrite(&stage, payments, &format!("{criterion}{payments}"));
    let mut now = "[cluster.eu]\n".to_owned();
    let told = async |now: &mut String, more: &str| {
        let next = known(more);
        rewrite(&stage, now, &next);
        *now = next;
        let dry = [&CANARY[..], &["--dry-run"]].concat();
        let mut command = stage.sandbox.command(&dry);
        command.env("PROMETHEUS_PASSWORD", "hunter2");
        ended(command).await
    };
    stage.sandbox.write("password", "hunter2\n");
    let user = ", user = \"reader\", password";
    told(&mut now, "").await.ended(0);
    told(&mut now, ", token = { file = \"password\" }").await.ended(0);
    told(&mut now, &format!("{user} = {{ file = \"password\" }}"))
        .await
        .ended(2)
        .says("parse error");
    told(&mut now, &format!("{user} = {{ env = \"PROMETHEUS_PASSWORD\" }}"))
        .await
        .ended(2)
        .says("parse error");
    // What does not ask it does not need it.
    let ran = told(&mut now, &format!("{user} = {{ file = \"nowhere\" }}")).await;
    ran.ended(0);
    stage.run(&["status"]).await.ended(0);
    let shown = told(&mut now, ", user = \"reader\"").await.ended(2);
    shown.says("expected either `token`, or `user` and `password`");

    // A Job has what a Secret of its namespace has, or is not started.
    rewrite(&stage, "sum(depth", "depth");
    let next = known(&format!("{user} = {{ file = \"password\" }}"));
    rewrite(&stage, &now, &next);
    let ran = stage.run(&CANARY).await.ended(2);
    ran.says("could not ask its Prometheus").says("`secret = \"…\"`");
    nothing_was_stored(&stage).await;
    rewrite(
        &stage,
        &next,
        &known(&format!(
            "{user} = {{ file = \"password\" }}, secret = \"prometheus-reader\""
        )),
    );
    let shown = stage.run(&["config", "show"]).await.ended(0);
    assert!(!shown.stdout.contains("hunter2"), "{}", shown.stdout);
    let mut terminal = stage
        .sandbox
        .command(&CANARY)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts");
    let job = the_job(&stage).await;
    let volumes = job["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes");
    assert!(
        volumes
            .iter()
            .any(|volume| volume["secret"]["secretName"] == "prometheus-reader"),
        "{volumes:?}"
    );
    let runs = stage.get("/api/v1/namespaces/shop/configmaps?labelSelector=opsctl.dev/run");
    for document in [job, runs.await] {
        assert!(!document.to_string().contains("hunter2"), "{document}");
    }
    interrupt(&mut terminal);
}

/// The only Job, when it is there.
async fn the_job(stage: &Stage) -> Value {
    const JOBS: &str = "/apis/batch/v1/namespaces/shop/jobs";
    stage
        .until("the Job is there", async |plane| {
            let jobs = plane.get(JOBS).await;
            jobs.is_ok_and(|jobs| jobs.json()["items"].as_array().is_some_and(|jobs| jobs.len() == 1))
        })
        .await;
    stage.get(JOBS).await["items"][0].clone()
}

/// Ctrl-C to a terminal that watches a run.
fn interrupt(terminal: &mut Child) {
    let pid = rustix::process::Pid::from_child(terminal);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our own child");
    let ended = tokio::task::block_in_place(|| terminal.wait());
    assert_eq!(ended.expect("our own child").code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_checked_here_and_reaches_the_judge() {
    let Some(stage) = stage("a_mark_is_checked_here_and_reaches_the_judge").await else {
        return;
    };
    for (mark, why) in [
        ("x-canary=k7", "expected header:NAME=VALUE or cookie:NAME=VALUE"),
        ("header:authorization=k7", "taken off all other requests"),
    ] {
        let ran = stage.run(&[&CANARY[..], &["--mark", mark]].concat()).await.ended(2);
        ran.says(why);
    }
    let shop = "kubernetes = { namespace = \"shop\"";
    rewrite(&stage, shop, &format!("{shop}, mark = \"header:host=k7\""));
    stage
        .run(&["config", "check"])
        .await
        .ended(2)
        .says("taken off all other requests");
    rewrite(&stage, "header:host=k7", "cookie:tester=k7");
    let ran = stage.run(&[&CANARY[..], &["--dry-run"]].concat()).await.ended(0);
    // Nothing counts requests here: what a verdict needs is known, and not how long that takes.
    for told in ["present traffic: unknown", "a pass needs about 3", "time unknown"] {
        assert!(ran.stdout.contains(told), "{told}:\n{}", ran.stdout);
    }
    let ran = stage.run(&[&CANARY[..], &["--dry-run", "--json"]].concat()).await;
    let plan = ran.ended(0).json();
    assert_eq!(
        (&plan["traffic"], &plan["steps"][0]["pass_seconds"]),
        (&json!(null), &json!(null))
    );
    assert!(plan["steps"][0]["fail_requests"].is_u64(), "{plan}");
    // What shares by numbers of pods tells no requests apart.
    rewrite(&stage, shop, &format!("{shop}, provider = \"replicas\""));
    stage.run(&CANARY).await.ended(5).says("tell no requests apart");
    nothing_was_stored(&stage).await;
    rewrite(&stage, ", provider = \"replicas\"", "");

    // The word of the command stands above the catalogue's.
    let words = [&CANARY[..], &["--mark", "header:X-Canary=k8", "--take-ownership"]].concat();
    let mut terminal = stage
        .sandbox
        .command(&words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("opsctl starts");
    the_job(&stage).await;
    let runs = stage
        .get("/api/v1/namespaces/shop/configmaps?labelSelector=opsctl.dev/run")
        .await;
    let settings = runs["items"][0]["data"]["platform"].as_str().expect("text");
    let settings: Value = serde_json::from_str(settings).expect("JSON");
    let orders = &settings["services"][0];
    assert_eq!(
        (&orders["mark"], &orders["take_ownership"]),
        (&json!("header:x-canary=k8"), &json!(true))
    );
    assert_eq!(settings["services"][1]["mark"], "cookie:tester=k7");
    interrupt(&mut terminal);
}
