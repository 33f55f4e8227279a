//! A service is cut off from its database by a NetworkPolicy: made as it should be, and taken away whoever is lost; what
//! others made or changed stays.

use std::sync::Arc;
use std::time::Duration;

use opsctl_platform::run::{Journal, Outcome, Recovered, Run, RunError, RunRecord, StepResult, lock, recover};
use opsctl_platform::{Cas, Cut, Field, LeaseHolder, Platform as _, PlatformError};
use serde_json::{Value, json};

use crate::stage::{Shop, Stage, until};

const POLICY: &str = "networkpolicy/orders-cut";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_cuts_a_service_off_and_never_stays() {
    let Some(stage) = Stage::new("a_policy_cuts_a_service_off_and_never_stays").await else {
        return;
    };
    it_says_what_it_should_and_leaves_nothing(&stage).await;
    a_policy_of_others_is_in_its_way(&stage).await;
    what_somebody_changes_stays_and_what_somebody_deletes_is_gone(&stage).await;
    a_record_that_is_gone_is_made_anew(&stage).await;
    the_policy_goes_with_what_holds_the_field(&stage).await;
}

/// A shop with a database.
async fn shop(stage: &Stage) -> Shop {
    let shop = stage.shop().await;
    let namespace = &shop.namespace;
    stage
        .apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "postgres", "namespace": namespace },
            "spec": { "ports": [{ "port": 5432 }] },
        }))
        .await;
    stage
        .apply(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "postgres-1",
                "namespace": namespace,
                "labels": { "kubernetes.io/service-name": "postgres" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["192.0.2.7"] }],
            "ports": [{ "port": 5432 }],
        }))
        .await;
    let url = "DATABASE_URL=postgres://orders@postgres:5432/orders";
    let with_database = ["set", "env", "deployment/orders", url, "--namespace", namespace];
    stage.plane.kubectl(&with_database, "").await.unwrap();
    shop
}

fn cut(shop: &Shop, run: &str) -> Value {
    Cut {
        holder: run.to_owned(),
        from: format!("{}/postgres", shop.namespace),
    }
    .value()
}

async fn begin(shop: &Shop, id: &str) -> Run {
    let mut record = RunRecord::new(id, "drill/test", "service/orders", Value::Null, shop.platform.now());
    record.locks = vec![lock::name_for_service("orders")];
    let holder = LeaseHolder {
        run: id.to_owned(),
        host: "elsewhere".to_owned(),
        pid: 1,
        start_ticks: 1,
    };
    let platform = Arc::new(shop.platform.clone());
    let run = Run::begin(platform, record, holder, Duration::from_secs(20), Journal::memory(id)).await;
    run.unwrap()
}

async fn there(stage: &Stage, shop: &Shop, kind: &str) -> Vec<String> {
    let listed = stage
        .plane
        .kubectl(&["get", kind, "--output=name", "--namespace", &shop.namespace], "")
        .await;
    listed.unwrap().lines().map(str::to_owned).collect()
}

/// Nothing of a cut is left.
async fn nothing_is_left(stage: &Stage, shop: &Shop) {
    until("nothing is left", async || {
        let all = there(stage, shop, "networkpolicies,deployments,secrets").await;
        all == ["deployment.apps/orders"]
    })
    .await;
    assert_eq!(shop.platform.get(&Field::cut("orders")).await.unwrap(), None);
}

async fn it_says_what_it_should_and_leaves_nothing(stage: &Stage) {
    let shop = shop(stage).await;
    let field = Field::cut("orders");
    let asked = shop.platform.rehearse(&field, None, Some(&cut(&shop, "none"))).await;
    assert_eq!(asked.unwrap(), Cas::Applied);
    nothing_is_left(stage, &shop).await;

    let mut run = begin(&shop, "c1").await;
    run.change(&field, Some(cut(&shop, "c1"))).await.unwrap();
    assert_eq!(shop.platform.get(&field).await.unwrap(), Some(cut(&shop, "c1")));
    let policy = stage.object(&shop.namespace, POLICY).await;
    let orders = stage.object(&shop.namespace, "deployment/orders").await;
    assert_eq!(policy["spec"]["podSelector"], orders["spec"]["selector"]);
    assert_eq!(policy["spec"]["policyTypes"], json!(["Egress"]));
    let postgres = stage.object(&shop.namespace, "service/postgres").await;
    let own = postgres["spec"]["clusterIP"].as_str().unwrap();
    let except = policy["spec"]["egress"][0]["to"][0]["ipBlock"]["except"].to_string();
    assert!(
        except.contains(&format!("{own}/32")) && except.contains("192.0.2.7/32"),
        "{except}"
    );
    let holder = stage.object(&shop.namespace, "deployment/orders-cut").await;
    let notes = holder["metadata"]["annotations"]["opsctl.dev/undo"].as_str().unwrap();
    assert!(notes.contains("\"c1\"") && notes.contains("/cut"), "{notes}");
    let container = &holder["spec"]["template"]["spec"]["containers"][0];
    assert!(
        container["args"]
            .to_string()
            .contains(&format!("\"--sessions-at\",\"postgres.{}:5432\"", shop.namespace))
    );
    assert_eq!(container["env"][0]["name"], "DATABASE_URL");
    // The node is only played, so nobody answers: that is told, and the policy stays until it is undone.
    let unseen = run.end_sessions(&field).await;
    assert!(unseen.is_err(), "{unseen:?}");

    assert!(run.undo().await.unwrap().complete());
    run.close(Outcome::Passed, "done").await.unwrap();
    nothing_is_left(stage, &shop).await;
}

async fn a_policy_of_others_is_in_its_way(stage: &Stage) {
    let shop = shop(stage).await;
    let field = Field::cut("orders");
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": name, "namespace": shop.namespace },
            "spec": spec,
        })
    };
    // Neither says where the pods of orders may connect to.
    stage
        .apply(&policy(
            "inwards",
            json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
        ))
        .await;
    let payments = json!({ "matchLabels": { "app.kubernetes.io/name": "payments" } });
    stage
        .apply(&policy(
            "payments",
            json!({ "podSelector": payments, "policyTypes": ["Egress"] }),
        ))
        .await;
    let ask = async || shop.platform.rehearse(&field, None, Some(&cut(&shop, "none"))).await;
    assert_eq!(ask().await.unwrap(), Cas::Applied);
    stage
        .apply(&policy(
            "everywhere",
            json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] }),
        ))
        .await;
    let refused = ask().await.unwrap_err();
    let PlatformError::Refused { why, .. } = &refused else {
        panic!("{refused}");
    };
    assert!(why.contains("`everywhere`"), "{why}");
    let mut run = begin(&shop, "c2").await;
    let refused = run.change(&field, Some(cut(&shop, "c2"))).await.unwrap_err();
    assert!(
        matches!(refused, RunError::Platform(PlatformError::Refused { .. })),
        "{refused}"
    );
    assert!(run.undo().await.unwrap().complete());
    run.close(Outcome::Refused, "done").await.unwrap();
    let left = there(stage, &shop, "networkpolicies,deployments").await;
    assert_eq!(left.len(), 4, "{left:?}");

    // One that has the name of ours by chance is not ours to take.
    for name in ["everywhere", "payments", "inwards"] {
        let delete = ["delete", "networkpolicy", name, "--namespace", &shop.namespace];
        stage.plane.kubectl(&delete, "").await.unwrap();
    }
    stage
        .apply(&policy(
            "orders-cut",
            json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
        ))
        .await;
    let refused = ask().await.unwrap_err();
    assert!(refused.to_string().contains("already"), "{refused}");
    let mut run = begin(&shop, "c3").await;
    run.change(&field, Some(cut(&shop, "c3"))).await.unwrap_err();
    assert!(run.undo().await.unwrap().complete());
    run.close(Outcome::Refused, "done").await.unwrap();
    assert_eq!(
        there(stage, &shop, "networkpolicies,deployments").await,
        ["networkpolicy.networking.k8s.io/orders-cut", "deployment.apps/orders"]
    );
}

async fn what_somebody_changes_stays_and_what_somebody_deletes_is_gone(stage: &Stage) {
    let shop = shop(stage).await;
    let field = Field::cut("orders");
    let mut run = begin(&shop, "c4").await;
    run.change(&field, Some(cut(&shop, "c4"))).await.unwrap();
    let delete = ["delete", "networkpolicy", "orders-cut", "--namespace", &shop.namespace];
    stage.plane.kubectl(&delete, "").await.unwrap();
    let lost = run.end_sessions(&field).await.unwrap_err();
    assert!(
        matches!(lost, RunError::Platform(PlatformError::FaultLost { .. })),
        "{lost}"
    );
    assert!(run.undo().await.unwrap().complete());
    run.close(Outcome::Passed, "done").await.unwrap();
    nothing_is_left(stage, &shop).await;

    let mut run = begin(&shop, "c5").await;
    run.change(&field, Some(cut(&shop, "c5"))).await.unwrap();
    let theirs = r#"{"spec":{"egress":null}}"#;
    let patch = [
        "patch",
        POLICY,
        "--type=merge",
        "--patch",
        theirs,
        "--namespace",
        &shop.namespace,
    ];
    stage.plane.kubectl(&patch, "").await.unwrap();
    let lost = run.end_sessions(&field).await.unwrap_err();
    assert!(
        matches!(lost, RunError::Platform(PlatformError::FaultLost { .. })),
        "{lost}"
    );
    let report = run.undo().await.unwrap();
    assert!(
        matches!(&report.steps[0].result, Some(StepResult::Conflict { actual: Some(actual) }) if actual["networkpolicy"].is_object()),
        "{:?}",
        report.steps
    );
    run.close(Outcome::Passed, "done").await.unwrap();
    assert_eq!(
        stage.object(&shop.namespace, POLICY).await["spec"]["egress"],
        Value::Null
    );
}

async fn a_record_that_is_gone_is_made_anew(stage: &Stage) {
    let shop = shop(stage).await;
    let mut run = begin(&shop, "c6").await;
    run.change(&Field::cut("orders"), Some(cut(&shop, "c6"))).await.unwrap();
    let name = opsctl_platform::kube::record_name("c6");
    let delete = ["delete", "configmap", &name, "--namespace", &shop.namespace];
    stage.plane.kubectl(&delete, "").await.unwrap();
    run.stopped().await;
    drop(run);
    let strays = shop.platform.strays().await.unwrap();
    assert_eq!(
        strays.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(),
        ["c6"]
    );
    let recovered = recover(&shop.platform, "c6", &Journal::memory("c6")).await.unwrap();
    assert!(matches!(recovered, Recovered::Closed { .. }), "{recovered:?}");
    nothing_is_left(stage, &shop).await;
}

async fn the_policy_goes_with_what_holds_the_field(stage: &Stage) {
    let shop = shop(stage).await;
    let mut run = begin(&shop, "c7").await;
    run.change(&Field::cut("orders"), Some(cut(&shop, "c7"))).await.unwrap();
    let delete = ["delete", "deployment", "orders-cut", "--namespace", &shop.namespace];
    stage.plane.kubectl(&delete, "").await.unwrap();
    until("the policy is gone", async || {
        there(stage, &shop, "networkpolicies").await.is_empty()
    })
    .await;
    let _ = run.undo().await.unwrap();
    run.close(Outcome::Passed, "done").await.unwrap();
}
