//! What every [`Platform`] must do, as checks that any implementation runs against itself (feature `contract`). They
//! panic where it does not. Waiting is by tokio's clock, which a memory platform may pause.

use std::time::Duration;

use serde_json::{Value, json};

use crate::run::{Phase, RunRecord};
use crate::{
    Cas, Fence, Field, Hold, KillMode, LeaseHolder, LeaseOutcome, Platform, PlatformError, ServiceState, VersionSpec,
    Weight,
};

/// What the checks work with: a fresh platform with one service whose stable version `v1` has two ready instances.
pub struct Subject {
    /// The platform.
    pub platform: std::sync::Arc<dyn Platform>,
    /// The service's name.
    pub service: String,
    /// Another version, with one instance, that can be started.
    pub second: VersionSpec,
    /// Whether an instance that was killed comes back under its name, counted as a restart; else another one comes.
    pub keeps_names: bool,
    /// Whether a fault on the service can be played here; on Kubernetes that takes real pods.
    pub plays_faults: bool,
}

/// How long anything may take to show.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs all checks, each on a subject of its own from `make`.
pub async fn check<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    what_does_not_exist_is_an_error(make().await).await;
    a_change_needs_the_value_it_expects(make().await).await;
    a_lost_worker_can_change_nothing(make().await).await;
    a_version_comes_and_goes(make().await).await;
    a_share_is_a_lease(make().await).await;
    a_fault_ends_unless_its_run_prolongs_it(make().await).await;
    a_kill_hits_one_very_instance(make().await).await;
    a_hold_stops_and_ends(make().await).await;
    records_are_compared_and_set(make().await).await;
    leases_have_one_holder(make().await).await;
}

async fn what_does_not_exist_is_an_error(subject: Subject) {
    let platform = subject.platform.as_ref();
    assert!(matches!(
        platform.service("no-such").await,
        Err(PlatformError::UnknownService { .. })
    ));
    let field = Field::hold("no-such");
    assert!(matches!(
        platform.get(&field).await,
        Err(PlatformError::UnknownService { .. })
    ));
    let field = Field::new(format!("service/{}", subject.service), "/nonsense");
    assert!(matches!(
        platform.get(&field).await,
        Err(PlatformError::UnknownField { .. })
    ));
    let field = Field::replicas(&subject.service, "no-such");
    assert_eq!(platform.get(&field).await.expect("an absent version is absent"), None);
    assert!(
        platform
            .services()
            .await
            .expect("it lists services")
            .contains(&subject.service)
    );
}

async fn a_change_needs_the_value_it_expects(subject: Subject) {
    let platform = subject.platform.as_ref();
    let field = Field::replicas(&subject.service, "v1");
    let conflict = platform
        .compare_and_set(None, &field, Some(&json!(7)), Some(&json!(1)))
        .await;
    assert_eq!(
        conflict.expect("a conflict is no error"),
        Cas::Conflict { actual: Some(json!(2)) }
    );
    assert_eq!(platform.get(&field).await.expect("readable"), Some(json!(2)));
    let applied = platform
        .compare_and_set(None, &field, Some(&json!(2)), Some(&json!(3)))
        .await;
    assert_eq!(applied.expect("the expected value is there"), Cas::Applied);
    assert_eq!(platform.get(&field).await.expect("readable"), Some(json!(3)));
    let nonsense = platform
        .compare_and_set(None, &field, Some(&json!(3)), Some(&json!("many")))
        .await;
    assert!(
        matches!(nonsense, Err(PlatformError::InvalidValue { .. })),
        "{nonsense:?}"
    );
    until(&subject, "three are ready", |service| service.ready_of("v1") == 3).await;
    let stable = Field::stable_version(&subject.service);
    let missing = platform
        .compare_and_set(None, &stable, Some(&json!("v1")), Some(&json!("no-such")))
        .await;
    assert!(
        matches!(missing, Err(PlatformError::InvalidValue { .. })),
        "{missing:?}"
    );
}

async fn a_lost_worker_can_change_nothing(subject: Subject) {
    let platform = subject.platform.as_ref();
    let mut record = RunRecord::new("contract-1", "test", "service/x", Value::Null, platform.now());
    record.revision = platform.create_record(&record).await.expect("a new record");
    let old = record.fence();
    let field = Field::replicas(&subject.service, "v1");
    let cas = platform
        .compare_and_set(Some(&old), &field, Some(&json!(2)), Some(&json!(1)))
        .await;
    assert_eq!(cas.expect("its epoch is today's"), Cas::Applied);
    record.epoch += 1;
    record.revision = platform.update_record(&record).await.expect("its revision is today's");
    let instance = platform
        .service(&subject.service)
        .await
        .expect("known")
        .instances
        .remove(0);
    let lease = Duration::from_secs(30);
    let refused = [
        platform
            .compare_and_set(Some(&old), &field, Some(&json!(1)), Some(&json!(2)))
            .await
            .map(drop),
        platform
            .grant_weight(&old, &subject.service, "v1", 0, 10, lease)
            .await
            .map(drop),
        platform.renew_weight(&old, &subject.service, lease).await,
        platform.kill(&old, &instance, KillMode::default()).await.map(drop),
        platform
            .compare_and_set(
                Some(&Fence::new("no-such", 1)),
                &field,
                Some(&json!(1)),
                Some(&json!(2)),
            )
            .await
            .map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(PlatformError::Fenced { .. })), "{result:?}");
    }
    let new = record.fence();
    record.phase = Phase::Closed;
    platform.update_record(&record).await.expect("its revision is today's");
    let closed = platform
        .compare_and_set(Some(&new), &field, Some(&json!(1)), Some(&json!(2)))
        .await;
    assert!(matches!(closed, Err(PlatformError::Fenced { .. })), "{closed:?}");
    assert_eq!(platform.get(&field).await.expect("readable"), Some(json!(1)));
}

async fn a_version_comes_and_goes(subject: Subject) {
    let platform = subject.platform.as_ref();
    let (service, version) = (&subject.service, &subject.second.version);
    let started = platform.start_version(None, service, &subject.second).await;
    assert_eq!(started.expect("it did not run"), Cas::Applied);
    let again = platform
        .start_version(None, service, &subject.second)
        .await
        .expect("a conflict is no error");
    assert!(!again.applied(), "it runs already");
    let read = platform.get(&Field::version(service, version)).await.expect("readable");
    assert_eq!(read, Some(subject.second.value()));
    until(&subject, "the second version is ready", |service| {
        service.ready_of(version) == 1
    })
    .await;
    assert_eq!(
        platform
            .service(service)
            .await
            .expect("known")
            .stable_version
            .as_deref(),
        Some("v1")
    );
    let stable = Field::version(service, "v1");
    let spec = platform.get(&stable).await.expect("readable");
    let removed = platform.compare_and_set(None, &stable, spec.as_ref(), None).await;
    assert!(
        matches!(removed, Err(PlatformError::InvalidValue { .. })),
        "{removed:?}"
    );
    for _ in 0..2 {
        assert_eq!(
            platform.stop_version(None, service, version).await.expect("idempotent"),
            Cas::Applied
        );
    }
    until(&subject, "the second version is gone", |service| {
        service.instances.iter().all(|i| i.version == "v1")
    })
    .await;
}

async fn a_share_is_a_lease(subject: Subject) {
    let platform = subject.platform.as_ref();
    let (service, version) = (&subject.service, subject.second.version.as_str());
    let mut record = RunRecord::new("contract-2", "test", "service/x", Value::Null, platform.now());
    record.revision = platform.create_record(&record).await.expect("a new record");
    let by = record.fence();
    let long = Duration::from_mins(1);
    let unknown = platform.grant_weight(&by, service, version, 0, 10, long).await;
    assert!(
        matches!(unknown, Err(PlatformError::InvalidValue { .. })),
        "{unknown:?}"
    );
    assert!(
        platform
            .start_version(Some(&by), service, &subject.second)
            .await
            .expect("it did not run")
            .applied()
    );
    until(&subject, "the second version is ready", |service| {
        service.ready_of(version) == 1
    })
    .await;
    assert!(matches!(
        platform.renew_weight(&by, service, long).await,
        Err(PlatformError::WeightLost { .. })
    ));
    assert!(
        platform
            .grant_weight(&by, service, version, 0, 10, long)
            .await
            .expect("no share yet")
            .applied()
    );
    let field = Field::canary(service);
    assert_eq!(
        platform.get(&field).await.expect("readable"),
        Weight::value(version, 10, &by.run)
    );
    let wrong = platform
        .grant_weight(&by, service, version, 20, 50, long)
        .await
        .expect("a conflict is no error");
    assert_eq!(
        wrong,
        Cas::Conflict {
            actual: Weight::value(version, 10, &by.run)
        }
    );
    platform
        .renew_weight(&by, service, long)
        .await
        .expect("it holds the share");
    assert!(
        platform
            .grant_weight(&by, service, version, 10, 50, Duration::from_secs(1))
            .await
            .expect("10 %")
            .applied()
    );
    let shown = platform.service(service).await.expect("known").canary;
    assert_eq!(shown.map(|weight| weight.percent), Some(50));
    until(&subject, "the share has lapsed", |service| service.canary.is_none()).await;
    assert_eq!(platform.get(&field).await.expect("readable"), None);
    assert!(matches!(
        platform.renew_weight(&by, service, long).await,
        Err(PlatformError::WeightLost { .. })
    ));
    assert!(
        platform
            .grant_weight(&by, service, version, 0, 5, long)
            .await
            .expect("no share now")
            .applied()
    );
    let now = platform.get(&field).await.expect("readable");
    assert!(
        platform
            .compare_and_set(None, &field, now.as_ref(), None)
            .await
            .expect("taken back")
            .applied()
    );
    assert_eq!(platform.get(&field).await.expect("readable"), None);
}

async fn a_fault_ends_unless_its_run_prolongs_it(subject: Subject) {
    let platform = subject.platform.as_ref();
    let field = Field::fault(&format!("service/{}", subject.service));
    if !subject.plays_faults {
        return;
    }
    let mut fences = Vec::new();
    for id in ["contract-7", "contract-8"] {
        let mut record = RunRecord::new(id, "test", "service/x", Value::Null, platform.now());
        record.revision = platform.create_record(&record).await.expect("a new record");
        fences.push(record.fence());
    }
    let (by, other) = (&fences[0], &fences[1]);
    let long = Duration::from_mins(1);
    let lost = async |by| {
        matches!(
            platform.renew_fault(by, &field, long).await,
            Err(PlatformError::FaultLost { .. })
        )
    };
    assert!(lost(by).await, "there is none yet");
    let fault = json!({ "holder": by.run, "kind": "latency", "ms": 1, "percent": 100.0 });
    assert!(
        platform
            .compare_and_set(Some(by), &field, None, Some(&fault))
            .await
            .expect("no fault yet")
            .applied()
    );
    let shown = platform.get(&field).await.expect("readable");
    assert!(lost(other).await, "it is not that run's");
    platform.renew_fault(by, &field, long).await.expect("it is its own");
    assert_eq!(platform.get(&field).await.expect("readable"), shown, "it is the same");
    // Its time counts from now, so that it may be shorter, too.
    let short = Duration::from_secs(1);
    platform
        .renew_fault(by, &field, short)
        .await
        .expect("it is still there");
    wait("the fault has ended", async || {
        platform.get(&field).await.expect("readable").is_none()
    })
    .await;
    assert!(lost(by).await, "what has ended is not prolonged");
}

async fn a_kill_hits_one_very_instance(subject: Subject) {
    let platform = subject.platform.as_ref();
    let mut record = RunRecord::new("contract-3", "test", "service/x", Value::Null, platform.now());
    record.revision = platform.create_record(&record).await.expect("a new record");
    let before = platform.service(&subject.service).await.expect("known");
    let victim = before.instances[0].clone();
    platform
        .kill(&record.fence(), &victim, KillMode::default())
        .await
        .expect("it runs");
    until(&subject, "another process has its place", |service| {
        service.ready_of("v1") == 2 && service.instances.iter().all(|instance| instance.uid != victim.uid)
    })
    .await;
    let again = platform.kill(&record.fence(), &victim, KillMode::default()).await;
    assert!(matches!(again, Err(PlatformError::Gone { .. })), "{again:?}");
    let after = platform.service(&subject.service).await.expect("known");
    let restarts = after.instances.iter().map(|instance| instance.restarts).sum::<u32>();
    let named = after.instances.iter().any(|instance| instance.id == victim.id);
    assert_eq!(
        (restarts, named),
        if subject.keeps_names { (1, true) } else { (0, false) }
    );
}

async fn a_hold_stops_and_ends(subject: Subject) {
    let platform = subject.platform.as_ref();
    let field = Field::hold(&subject.service);
    let hold = Hold {
        holder: "contract".to_owned(),
        reason: "a restore".to_owned(),
        retry_after_seconds: 3,
    }
    .value();
    assert!(
        platform
            .compare_and_set(None, &field, None, Some(&hold))
            .await
            .expect("not held")
            .applied()
    );
    until(&subject, "nothing runs", |service| {
        service.instances.is_empty() && service.hold.is_some()
    })
    .await;
    assert!(
        platform
            .compare_and_set(None, &field, Some(&hold), None)
            .await
            .expect("held")
            .applied()
    );
    until(&subject, "all run again", |service| {
        service.ready_of("v1") == 2 && service.settled()
    })
    .await;
}

async fn records_are_compared_and_set(subject: Subject) {
    let platform = subject.platform.as_ref();
    let mut record = RunRecord::new(
        "contract-4",
        "test",
        "service/x",
        json!({ "a": [1, null] }),
        platform.now(),
    );
    assert_eq!(platform.record("contract-4").await.expect("readable"), None);
    assert!(matches!(
        platform.update_record(&record).await,
        Err(PlatformError::RecordMissing { .. })
    ));
    record.revision = platform.create_record(&record).await.expect("a new record");
    assert!(matches!(
        platform.create_record(&record).await,
        Err(PlatformError::RecordExists { .. })
    ));
    let stale = record.clone();
    "one".clone_into(&mut record.step);
    record.plan_change(Field::hold("x"), None, Some(json!({ "b": "ü" })), 3);
    record.revision = platform.update_record(&record).await.expect("its revision is today's");
    assert!(matches!(
        platform.update_record(&stale).await,
        Err(PlatformError::RecordConflict { .. })
    ));
    let mut read = platform.record("contract-4").await.expect("readable").expect("stored");
    read.updated_at = record.updated_at;
    assert_eq!(read, record);
    let mut later = RunRecord::new("contract-0", "test", "service/x", Value::Null, platform.now());
    later.started_at = record.started_at + Duration::from_secs(1);
    platform.create_record(&later).await.expect("a new record");
    let ids: Vec<String> = platform
        .records()
        .await
        .expect("readable")
        .into_iter()
        .map(|record| record.id)
        .collect();
    assert_eq!(ids, ["contract-4", "contract-0"]);
}

async fn leases_have_one_holder(subject: Subject) {
    let platform = subject.platform.as_ref();
    let holder = |run: &str, pid| LeaseHolder {
        run: run.to_owned(),
        host: "h".to_owned(),
        pid,
        start_ticks: 1,
    };
    let (a, b) = (holder("a", 1), holder("b", 2));
    let short = Duration::from_millis(50);
    assert_eq!(platform.lease("l").await.expect("readable"), None);
    let LeaseOutcome::Acquired(first) = platform.acquire_lease("l", &a, short).await.expect("free") else {
        panic!("a free lease is given");
    };
    assert!(matches!(
        platform.acquire_lease("l", &a, short).await.expect("ours"),
        LeaseOutcome::Acquired(_)
    ));
    let renewed = platform.renew_lease("l", &a, short).await.expect("ours");
    assert!(renewed.revision > first.revision && renewed.acquired_at == first.acquired_at);
    assert!(matches!(
        platform.renew_lease("l", &b, short).await,
        Err(PlatformError::LeaseLost { .. })
    ));
    wait("the lease is over", || async { renewed.expired(platform.now()) }).await;
    let LeaseOutcome::Held(seen) = platform.acquire_lease("l", &b, short).await.expect("readable") else {
        panic!("an expired lease is not taken without being replaced");
    };
    assert_eq!(seen.holder, a);
    assert!(matches!(
        platform.replace_lease(&first, &b, short).await.expect("readable"),
        LeaseOutcome::Held(_)
    ));
    assert!(matches!(
        platform.replace_lease(&seen, &b, short).await.expect("unchanged"),
        LeaseOutcome::Acquired(_)
    ));
    assert!(matches!(
        platform.renew_lease("l", &a, short).await,
        Err(PlatformError::LeaseLost { .. })
    ));
    platform.release_lease("l", &a).await.expect("not ours, untouched");
    assert_eq!(
        platform.lease("l").await.expect("readable").map(|lease| lease.holder),
        Some(b.clone())
    );
    for _ in 0..2 {
        platform.release_lease("l", &b).await.expect("idempotent");
    }
    assert_eq!(platform.lease("l").await.expect("readable"), None);
}

async fn until(subject: &Subject, what: &str, done: impl Fn(&ServiceState) -> bool) {
    wait(what, || async {
        // As a watchdog does; most platforms have nothing to do for it.
        subject
            .platform
            .lapse(&subject.service)
            .await
            .expect("it can look for shares that lapse");
        let service = subject
            .platform
            .service(&subject.service)
            .await
            .expect("the service is known");
        done(&service)
    })
    .await;
}

async fn wait<F, Fut>(what: &str, done: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
