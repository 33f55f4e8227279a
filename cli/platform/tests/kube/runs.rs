//! Runs on Kubernetes: what they change is undone, whoever is lost; what others changed stays.

use std::sync::Arc;
use std::time::Duration;

use opsctl_platform::kube::{KubePlatform, record_name};
use opsctl_platform::run::{
    Control, Journal, Outcome, Recovered, Run, RunError, RunRecord, StepResult, WatchOptions, Watched, lock, orphans,
    recover, watch,
};
use opsctl_platform::{Cas, Fence, Field, Hold, KillMode, LeaseHolder, Platform, PlatformError};
use serde_json::{Value, json};

use crate::stage::{Shop, Stage, until};

/// Short, so that a loss shows soon; far more than an answer takes on a busy machine.
const TTL: Duration = Duration::from_secs(4);

fn holder(run: &str, pid: u32) -> LeaseHolder {
    LeaseHolder {
        run: run.to_owned(),
        // Another machine: only its lease says whether it lives.
        host: "elsewhere".to_owned(),
        pid,
        start_ticks: 1,
    }
}

fn record(platform: &KubePlatform, id: &str) -> RunRecord {
    let mut record = RunRecord::new(id, "drill/test", "service/orders", Value::Null, platform.now());
    record.locks = vec![lock::name_for_service("orders")];
    record
}

async fn begin(platform: &KubePlatform, id: &str) -> Result<Run, RunError> {
    let platform_ref = Arc::new(platform.clone());
    Run::begin(
        platform_ref,
        record(platform, id),
        holder(id, 1),
        TTL,
        Journal::memory(id),
    )
    .await
}

fn hold(run: &str) -> Value {
    Hold {
        holder: run.to_owned(),
        reason: "a test".to_owned(),
        retry_after_seconds: 1,
    }
    .value()
}

/// What a run may change of a Deployment and must put back: everything but what the server counts.
async fn told(stage: &Stage, shop: &Shop) -> Value {
    let mut object = stage.object(&shop.namespace, "deployment/orders").await;
    let annotations = object["metadata"]["annotations"].take();
    let mut kept = annotations.as_object().cloned().unwrap_or_default();
    kept.retain(|key, _| key != "kubectl.kubernetes.io/last-applied-configuration");
    json!({ "spec": object["spec"], "annotations": kept })
}

async fn undone(shop: &Shop, id: &str) -> Box<RunRecord> {
    let recovered = recover(&shop.platform, id, &Journal::memory(id)).await.unwrap();
    match recovered {
        Recovered::Closed { record, .. } => record,
        other => panic!("it needed recovery: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_lost_everything_is_as_before() {
    let Some(stage) = Stage::new("whoever_is_lost_everything_is_as_before").await else {
        return;
    };
    a_run_leaves_nothing(&stage).await;
    a_watchdog_undoes_a_lost_run(&stage).await;
    a_record_that_is_gone_is_made_anew(&stage).await;
    what_others_changed_is_left_alone(&stage).await;
    nothing_changes_once_an_epoch_was_claimed(&stage).await;
    a_lost_lease_stops_the_worker(&stage).await;
    two_homes_exclude_each_other(&stage).await;
    a_namespace_that_is_deleted_ends_its_runs(&stage).await;
    only_the_last_records_are_kept(&stage).await;
}

async fn a_run_leaves_nothing(stage: &Stage) {
    let shop = stage.shop().await;
    let before = told(stage, &shop).await;
    let mut run = begin(&shop.platform, "r1").await.unwrap();
    run.change(&Field::replicas("orders", "v1"), Some(json!(3)))
        .await
        .unwrap();
    run.change(&Field::hold("orders"), Some(hold("r1"))).await.unwrap();
    shop.until("it is down", |service| service.instances.is_empty()).await;
    let held = stage.object(&shop.namespace, "deployment/orders").await;
    let notes = held["metadata"]["annotations"]["opsctl.dev/undo"].as_str().unwrap();
    assert!(notes.contains("\"r1\"") && notes.contains("/hold"), "{notes}");
    assert!(run.undo().await.unwrap().complete());
    run.close(Outcome::Passed, "done").await.unwrap();
    assert_eq!(told(stage, &shop).await, before);
    let map = stage
        .object(&shop.namespace, &format!("configmap/{}", record_name("r1")))
        .await;
    assert_eq!(map["metadata"]["labels"]["app.kubernetes.io/managed-by"], "opsctl");
    assert_eq!(map["metadata"]["labels"]["opsctl.dev/run"], "r1");
    assert_eq!(shop.platform.lease("service-orders").await.unwrap(), None);
}

async fn a_watchdog_undoes_a_lost_run(stage: &Stage) {
    let shop = stage.shop().await;
    let before = told(stage, &shop).await;
    let mut run = begin(&shop.platform, "r2").await.unwrap();
    let watchdog = tokio::spawn(watch(
        Arc::new(shop.platform.clone()),
        "r2",
        holder("r2", 2),
        &*Box::leak(Box::new(Journal::memory("r2"))),
        &*Box::leak(Box::new(WatchOptions::default())),
    ));
    run.change(&Field::hold("orders"), Some(hold("r2"))).await.unwrap();
    drop(run);
    let Watched::Undone(record) = watchdog.await.unwrap().unwrap() else {
        panic!("the worker was lost");
    };
    assert_eq!(record.outcome, Some(Outcome::Lost));
    assert_eq!(told(stage, &shop).await, before);
    assert!(orphans(&shop.platform).await.unwrap().is_empty());
}

async fn a_record_that_is_gone_is_made_anew(stage: &Stage) {
    let shop = stage.shop().await;
    let before = told(stage, &shop).await;
    let mut run = begin(&shop.platform, "r3").await.unwrap();
    run.change(&Field::replicas("orders", "v1"), Some(json!(1)))
        .await
        .unwrap();
    run.change(&Field::hold("orders"), Some(hold("r3"))).await.unwrap();
    // Of the cluster, not of the namespace.
    let cordon = Field::unschedulable("kwok-0");
    run.change(&cordon, Some(json!(true))).await.unwrap();
    let name = record_name("r3");
    let delete = ["delete", "configmap", &name, "--namespace", &shop.namespace];
    stage.plane.kubectl(&delete, "").await.unwrap();
    assert_eq!(run.stopped().await, Control::Fenced);
    drop(run);
    let strays = shop.platform.strays().await.unwrap();
    assert_eq!(
        strays.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(),
        ["r3"]
    );
    assert!(shop.platform.strays().await.unwrap().is_empty(), "it is known now");
    assert_eq!(orphans(&shop.platform).await.unwrap().len(), 1);
    assert_eq!(undone(&shop, "r3").await.outcome, Some(Outcome::Lost));
    assert_eq!(told(stage, &shop).await, before);
    assert_eq!(shop.platform.get(&cordon).await.unwrap(), None);
    let node = stage.object(&shop.namespace, "node/kwok-0").await;
    assert!(!node["metadata"].to_string().contains("opsctl.dev/"), "{node}");
}

async fn what_others_changed_is_left_alone(stage: &Stage) {
    let shop = stage.shop().await;
    let mut run = begin(&shop.platform, "r4").await.unwrap();
    run.change(&Field::replicas("orders", "v1"), Some(json!(1)))
        .await
        .unwrap();
    let scale = [
        "scale",
        "deployment/orders",
        "--replicas=5",
        "--namespace",
        &shop.namespace,
    ];
    stage.plane.kubectl(&scale, "").await.unwrap();
    let report = run.undo().await.unwrap();
    let conflict = StepResult::Conflict { actual: Some(json!(5)) };
    assert_eq!(report.steps[0].result, Some(conflict));
    run.close(Outcome::Passed, "done").await.unwrap();
    let now = stage.object(&shop.namespace, "deployment/orders").await;
    assert_eq!(now["spec"]["replicas"], 5);
    // Another object of that name is another object.
    let before = told(stage, &shop).await;
    let field = Field::replicas("orders", "v1");
    let stale = shop
        .platform
        .compare_and_set(None, &field, Some(&json!(1)), Some(&json!(2)))
        .await;
    assert_eq!(stale.unwrap(), Cas::Conflict { actual: Some(json!(5)) });
    assert_eq!(told(stage, &shop).await, before);
}

async fn nothing_changes_once_an_epoch_was_claimed(stage: &Stage) {
    let shop = stage.shop().await;
    let field = Field::replicas("orders", "v1");
    for round in 0..5 {
        let mut record = record(&shop.platform, &format!("race-{round}"));
        record.plan_change(field.clone(), Some(json!(2)), Some(json!(1)), 0);
        record.revision = shop.platform.create_record(&record).await.unwrap();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(change_until_fenced(
                    shop.platform.clone(),
                    record.fence(),
                    field.clone(),
                ))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(30 * round)).await;
        record.epoch += 1;
        record.revision = shop.platform.update_record(&record).await.unwrap();
        shop.platform.claim(&record.fence(), &field).await.unwrap();
        let at_once = shop.platform.get(&field).await.unwrap();
        for worker in workers {
            worker.await.unwrap();
        }
        assert_eq!(shop.platform.get(&field).await.unwrap(), at_once);
        let back = shop
            .platform
            .compare_and_set(None, &field, at_once.as_ref(), Some(&json!(2)))
            .await;
        assert!(back.unwrap().applied());
    }
}

/// What a worker does that does not know that it was replaced.
async fn change_until_fenced(platform: KubePlatform, fence: Fence, field: Field) {
    loop {
        let now = platform.get(&field).await.unwrap();
        let new = json!(if now == Some(json!(1)) { 2 } else { 1 });
        match platform
            .compare_and_set(Some(&fence), &field, now.as_ref(), Some(&new))
            .await
        {
            Ok(_) | Err(PlatformError::Refused { .. }) => {}
            Err(PlatformError::Fenced { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn a_lost_lease_stops_the_worker(stage: &Stage) {
    let shop = stage.shop().await;
    let mut run = begin(&shop.platform, "r5").await.unwrap();
    run.change(&Field::replicas("orders", "v1"), Some(json!(1)))
        .await
        .unwrap();
    let delete = [
        "delete",
        "lease",
        "opsctl-service-orders",
        "--namespace",
        &shop.namespace,
    ];
    stage.plane.kubectl(&delete, "").await.unwrap();
    assert_eq!(run.stopped().await, Control::Fenced);
    assert!(matches!(run.undo().await, Err(RunError::Fenced { .. })));
    drop(run);
    undone(&shop, "r5").await;
    assert_eq!(
        shop.platform.get(&Field::replicas("orders", "v1")).await.unwrap(),
        Some(json!(2))
    );
}

async fn two_homes_exclude_each_other(stage: &Stage) {
    let shop = stage.shop().await;
    let other = stage.platform("admin", &shop.namespace).await;
    let run = begin(&shop.platform, "r6").await.unwrap();
    let refused = begin(&other, "r7").await;
    assert!(matches!(refused.err(), Some(RunError::Locked { lease }) if lease.holder.run == "r6"));
    run.close(Outcome::Passed, "done").await.unwrap();
    begin(&other, "r8")
        .await
        .unwrap()
        .close(Outcome::Passed, "done")
        .await
        .unwrap();
}

async fn a_namespace_that_is_deleted_ends_its_runs(stage: &Stage) {
    let shop = stage.shop().await;
    let mut run = begin(&shop.platform, "r9").await.unwrap();
    run.change(&Field::hold("orders"), Some(hold("r9"))).await.unwrap();
    stage
        .plane
        .kubectl(&["delete", "namespace", &shop.namespace], "")
        .await
        .unwrap();
    assert_eq!(run.stopped().await, Control::Fenced);
    assert_eq!(shop.platform.records().await.unwrap(), []);
    assert_eq!(shop.platform.strays().await.unwrap(), []);
    let refused = begin(&shop.platform, "r10").await;
    let Some(RunError::Platform(PlatformError::Missing { what })) = refused.err() else {
        panic!("nothing can be made there");
    };
    assert!(what.contains(&shop.namespace), "{what}");
    let state = shop.platform.service("orders").await.unwrap();
    assert_eq!((state.stable_version, state.instances.len()), (None, 0));
}

async fn only_the_last_records_are_kept(stage: &Stage) {
    let shop = stage.shop().await;
    let mut run = begin(&shop.platform, "first").await.unwrap();
    let field = Field::replicas("orders", "v1");
    run.change(&field, Some(json!(3))).await.unwrap();
    run.keep(&field).await.unwrap();
    run.close(Outcome::Passed, "done").await.unwrap();
    for number in 0..21 {
        let run = begin(&shop.platform, &format!("r-{number}")).await.unwrap();
        run.close(Outcome::Passed, "done").await.unwrap();
    }
    let kept = shop.platform.records().await.unwrap();
    assert_eq!((kept.len(), kept[0].id.as_str()), (21, "r-0"));
    assert_eq!(shop.platform.strays().await.unwrap(), [], "what is kept is no stray");
    assert_eq!(shop.platform.get(&field).await.unwrap(), Some(json!(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_finds_the_run_again() {
    let Some(mut stage) = Stage::new("a_server_that_comes_back_finds_the_run_again").await else {
        return;
    };
    let shop = stage.shop().await;
    let before = told(&stage, &shop).await;
    let mut run = begin(&shop.platform, "r1").await.unwrap();
    run.change(&Field::hold("orders"), Some(hold("r1"))).await.unwrap();

    // Killed, and soon there again: the run goes on.
    stage.plane.server().kill();
    let error = shop.platform.service("orders").await.unwrap_err();
    assert!(
        matches!(
            error,
            PlatformError::Unreachable { .. } | PlatformError::TimedOut { .. }
        ),
        "{error}"
    );
    stage.plane.server().start_again().await.unwrap();
    let report = loop {
        match run.undo().await {
            Ok(report) if report.complete() => break Some(report),
            Err(RunError::Fenced { .. }) => break None,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    match report {
        Some(_) => drop(run.close(Outcome::Passed, "done").await.unwrap()),
        // A slow machine: it was away for longer than the lease.
        None => drop((drop(run), undone(&shop, "r1").await)),
    }
    assert_eq!(told(&stage, &shop).await, before);

    // Silent for longer than the lease: the worker stops before it may be replaced, the watchdog undoes afterwards.
    let mut run = begin(&shop.platform, "r2").await.unwrap();
    run.change(&Field::hold("orders"), Some(hold("r2"))).await.unwrap();
    let lease = shop.platform.lease("service-orders").await.unwrap().unwrap();
    stage.plane.server().pause();
    assert_eq!(run.stopped().await, Control::Fenced);
    assert!(
        shop.platform.now() < lease.expires_at + TTL / 3,
        "it stopped before its lease was over"
    );
    drop(run);
    tokio::time::sleep(TTL / 2).await;
    stage.plane.server().resume();
    until("the run is undone", async || {
        matches!(
            recover(&shop.platform, "r2", &Journal::memory("r2")).await,
            Ok(Recovered::Closed { .. } | Recovered::Nothing)
        )
    })
    .await;
    assert_eq!(told(&stage, &shop).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_keeps_a_pod_alive() {
    let Some(stage) = Stage::new("a_budget_keeps_a_pod_alive").await else {
        return;
    };
    let shop = stage.shop().await;
    stage
        .apply(&json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": { "name": "orders", "namespace": shop.namespace },
            "spec": { "minAvailable": 2, "selector": { "matchLabels": { "app.kubernetes.io/name": "orders" } } },
        }))
        .await;
    until("the budget is counted", async || {
        let budget = stage.object(&shop.namespace, "poddisruptionbudget/orders").await;
        budget["status"]["currentHealthy"] == 2
    })
    .await;
    let run = begin(&shop.platform, "r1").await.unwrap();
    let victim = shop.platform.service("orders").await.unwrap().instances.remove(0);
    let evict = KillMode::Evict { patience_seconds: 2 };
    let refused = shop.platform.kill(&run.fence(), &victim, evict).await;
    let Err(PlatformError::Refused { why, .. }) = refused else {
        panic!("the budget forbids it: {refused:?}");
    };
    assert!(why.contains("disruption budget orders"), "{why}");
    shop.until("both live", |service| {
        service.ready().any(|pod| pod.uid == victim.uid) && service.ready_of("v1") == 2
    })
    .await;
    let delete = KillMode::Delete { grace_seconds: 0 };
    shop.platform.kill(&run.fence(), &victim, delete).await.unwrap();
    shop.until("it was replaced", |service| {
        service.ready_of("v1") == 2 && service.instances.iter().all(|pod| pod.uid != victim.uid)
    })
    .await;
    run.close(Outcome::Passed, "done").await.unwrap();
}
