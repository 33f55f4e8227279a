//! What `opsctl rbac` prints is enough for every command, and no verb of it is too many: without any one of them a drill
//! or a canary names it, and changes nothing.

use std::process::Stdio;

use opsctl_platform::kube::Provider;
use opsctl_platform::kube::access::{Access, Command, needed};
use serde_json::{Value, json};

use crate::stage::Stage;

const CANARY: [&str; 6] = [
    "deploy",
    "canary",
    "orders",
    "--image",
    "opsctl/orders:1.5.0",
    "--weight",
];
const CUT: [&str; 10] = [
    "drill",
    "db-down",
    "orders",
    "--at",
    "postgres",
    "--mode",
    "policy",
    "--no-probe",
    "--for",
    "1s",
];
const DRILL: [&str; 6] = ["drill", "pod-kill", "orders", "--no-probe", "--for", "1s"];

/// A stage on which the user `oncall` may what the role says that `rbac` prints for `what`.
async fn stage(test: &str, what: &str) -> Option<(Stage, Vec<Value>)> {
    let stage = Stage::new(test).await?;
    stage.gateway(test).await?;
    let oncall = stage.plane.kubeconfig_of("oncall", &[]).expect("a kubeconfig");
    stage.catalogue(&oncall, "oncall", &stage.plane.url(), "");
    let text = std::fs::read_to_string(stage.sandbox.path("opsctl.toml")).expect("the catalogue");
    let text = text.replace(
        "[cluster.eu]\n",
        "[cluster.eu]\nimage = \"registry.example/opsctl:1\"\n",
    );
    stage.sandbox.write("opsctl.toml", &text);
    let printed = stage.run(&["rbac", "--for", what, "--user", "oncall"]).await.ended(0);
    // As people use it: what is printed is what is applied.
    let applied = stage.plane.kubectl(&["apply", "--filename=-"], &printed.stdout).await;
    applied.unwrap_or_else(|error| panic!("{error}\n{}", printed.stdout));
    let document = stage
        .run(&["rbac", "--for", what, "--user", "oncall", "--json"])
        .await
        .ended(0)
        .json();
    let objects = document["objects"].as_array().expect("objects").clone();
    allowed(&stage, "list", "pods", true).await;
    Some((stage, objects))
}

/// Waits until the API server has heard whether `oncall` may.
pub async fn allowed(stage: &Stage, verb: &str, resource: &str, yes: bool) {
    stage
        .until(&format!("{verb} {resource}: {yes}"), async |plane| {
            // kubectl takes what stands behind a `/` for a name.
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let sub = format!("--subresource={sub}");
            let question = ["auth", "can-i", verb, resource, &sub, "--as=oncall", "--namespace=shop"];
            plane.kubectl(&question, "").await.is_ok() == yes
        })
        .await;
}

async fn nothing_was_stored(stage: &Stage) {
    for path in [
        "/api/v1/namespaces/shop/configmaps?labelSelector=opsctl.dev/run",
        "/apis/batch/v1/namespaces/shop/jobs",
        "/apis/coordination.k8s.io/v1/namespaces/shop/leases",
    ] {
        assert_eq!(stage.get(path).await["items"], json!([]), "{path}");
    }
}

/// The printed role without one verb of one resource.
pub fn without(role: &Value, group: &str, resource: &str, verb: &str) -> Value {
    let mut role = role.clone();
    let mut rules = Vec::new();
    for rule in role["rules"].as_array().expect("rules") {
        let listed = rule["resources"]
            .as_array()
            .expect("resources")
            .contains(&json!(resource));
        if rule["apiGroups"] != json!([group]) || !listed {
            rules.push(rule.clone());
            continue;
        }
        let keep = |list: &Value, but: &str| -> Vec<Value> {
            list.as_array()
                .into_iter()
                .flatten()
                .filter(|one| **one != but)
                .cloned()
                .collect()
        };
        let (others, verbs) = (keep(&rule["resources"], resource), keep(&rule["verbs"], verb));
        if !others.is_empty() {
            rules.push(json!({ "apiGroups": [group], "resources": others, "verbs": rule["verbs"] }));
        }
        if !verbs.is_empty() {
            rules.push(json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs }));
        }
    }
    role["rules"] = rules.into();
    role
}

/// Takes each verb of `rows` away, one after the other: the command is refused, names it, and stores nothing.
async fn each_verb_is_needed(stage: &Stage, objects: &[Value], rows: &[Access], words: &[&str]) {
    let role = objects.iter().find(|object| object["kind"] == "Role").expect("a role");
    let mut asked = 0;
    for row in rows {
        for verb in row.verbs {
            let full = match (row.group, row.resource.split_once('/')) {
                ("", _) => row.resource.to_owned(),
                (group, Some((resource, sub))) => format!("{resource}.{group}/{sub}"),
                (group, None) => format!("{}.{group}", row.resource),
            };
            stage.apply(&without(role, row.group, row.resource, verb)).await;
            allowed(stage, verb, &full, false).await;
            let ran = stage.run(words).await;
            assert_eq!(ran.code, 5, "without {verb} {full}:\n{}\n{}", ran.stdout, ran.stderr);
            assert!(
                ran.stderr.contains(&format!("{verb} {full}")),
                "{verb} {full}:\n{}",
                ran.stderr
            );
            nothing_was_stored(stage).await;
            stage.apply(role).await;
            allowed(stage, verb, &full, true).await;
            asked += 1;
        }
    }
    assert!(asked > 15, "{asked} verbs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_works_with_the_printed_role_and_with_no_verb_less() {
    let Some((stage, objects)) = stage("a_drill_works_with_the_printed_role_and_with_no_verb_less", "drill").await
    else {
        return;
    };
    let rows = needed(&[Command::Status, Command::PodKill], &[Provider::Gateway]);
    each_verb_is_needed(&stage, &objects, &rows, &DRILL).await;
    stage.run(&["status"]).await.ended(0);
    // Nothing counts the requests: it works, and cannot tell.
    stage.run(&DRILL).await.ended(9);
    let listed = stage.run(&["run", "list", "--json"]).await.ended(0).json();
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1));
    stage.run(&["run", "show"]).await.ended(0);
    stage.run(&["recover"]).await.ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_policy_is_made_with_the_printed_role_and_with_no_verb_less() {
    let test = "a_network_policy_is_made_with_the_printed_role_and_with_no_verb_less";
    let Some((stage, objects)) = stage(test, "drill").await else {
        return;
    };
    stage.database().await;
    stage.run(&[&CUT[..], &["--dry-run"]].concat()).await.ended(0);
    let rows = needed(&[Command::Status, Command::Cut], &[Provider::Gateway]);
    each_verb_is_needed(&stage, &objects, &rows, &CUT).await;
    let policies = stage
        .get("/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies")
        .await;
    assert_eq!(policies["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_works_with_the_printed_role_and_with_no_verb_less() {
    let test = "a_canary_works_with_the_printed_role_and_with_no_verb_less";
    let Some((stage, objects)) = stage(test, "canary").await else {
        return;
    };
    let words = [&CANARY[..], &["10"]].concat();
    let rows = needed(&[Command::Status, Command::Canary, Command::Job], &[Provider::Gateway]);
    each_verb_is_needed(&stage, &objects, &rows, &words).await;
    stage.run(&[&words[..], &["--dry-run"]].concat()).await.ended(0);
    nothing_was_stored(&stage).await;

    // The node is played, so that the Job's pod says that it runs, and nobody works on the run: a Ctrl-C ends it whole.
    let mut command = stage.sandbox.command(&words);
    let mut terminal = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("opsctl starts");
    stage
        .until("the Job is there", async |plane| {
            let jobs = plane.get("/apis/batch/v1/namespaces/shop/jobs").await;
            jobs.is_ok_and(|jobs| jobs.json()["items"].as_array().is_some_and(|jobs| jobs.len() == 1))
        })
        .await;
    let job = stage.get("/apis/batch/v1/namespaces/shop/jobs").await["items"][0].clone();
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "registry.example/opsctl:1");
    assert_eq!(pod["serviceAccountName"], "opsctl");
    let pid = rustix::process::Pid::from_child(&terminal);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our own child");
    let ended = tokio::task::spawn_blocking(move || terminal.wait())
        .await
        .expect("it does not panic");
    assert_eq!(ended.expect("our own child").code(), Some(130));
    stage
        .until("the Job is gone", async |plane| {
            let jobs = plane.get("/apis/batch/v1/namespaces/shop/jobs").await;
            jobs.is_ok_and(|jobs| jobs.json()["items"] == json!([]))
        })
        .await;
    let listed = stage.run(&["run", "list", "--json", "--active"]).await.ended(0).json();
    assert_eq!(listed["runs"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_names_who_where_and_what() {
    let Some((stage, _)) = stage("what_is_printed_names_who_where_and_what", "status").await else {
        return;
    };
    stage.run(&["status"]).await.ended(0);
    stage
        .run(&DRILL)
        .await
        .ended(5)
        .says("create configmaps in namespace `shop`")
        .says("opsctl rbac");
    nothing_was_stored(&stage).await;
    let words = [
        "rbac",
        "--for",
        "policy,status",
        "--secret",
        "orders-admin",
        "--group",
        "oncall",
    ];
    insta::assert_snapshot!("rbac", stage.run(&words).await.ended(0).stdout);
    let wide = stage
        .run(&["rbac", "--for", "drill", "--cluster-role-for", "node-drain"])
        .await
        .ended(0);
    assert!(
        wide.stdout.contains("kind: ClusterRole\n") && wide.stdout.contains("nodes"),
        "{}",
        wide.stdout
    );
}
