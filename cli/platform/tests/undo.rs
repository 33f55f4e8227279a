//! Undo as a property: whatever prefix of a run's changes was made when its worker died, and whatever others changed
//! meanwhile, every field is as before, or is reported as a conflict and has the others' value.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails is a failed test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opsctl_platform::memory::MemoryPlatform;
use opsctl_platform::run::{
    Cancel, Control, Journal, Outcome, Phase, Reason, Recovered, Run, RunError, RunRecord, StepResult, WatchOptions,
    Watched, Worker, lock, recover, request_cancel, watch,
};
use opsctl_platform::{Field, Hold, LeaseHolder, Platform, VersionSpec, Weight};
use proptest::prelude::*;
use serde_json::{Value, json};

const TTL: Duration = Duration::from_secs(15);

fn holder(run: &str, pid: u32) -> LeaseHolder {
    LeaseHolder {
        run: run.to_owned(),
        host: "h".to_owned(),
        pid,
        start_ticks: 1,
    }
}

fn record(platform: &MemoryPlatform, id: &str) -> RunRecord {
    let mut record = RunRecord::new(id, "test", "service/orders", Value::Null, platform.now());
    record.locks = vec![lock::name_for_service("orders")];
    record
}

async fn begin(platform: &MemoryPlatform, id: &str, pid: u32) -> Result<Run, RunError> {
    let record = record(platform, id);
    Run::begin(
        Arc::new(platform.clone()),
        record,
        holder(id, pid),
        TTL,
        Journal::memory(id),
    )
    .await
}

fn second() -> VersionSpec {
    VersionSpec {
        version: "v2".to_owned(),
        command: vec!["/bin/orders".to_owned()],
        image: None,
        env: BTreeMap::new(),
        replicas: 1,
    }
}

/// One change of a run.
#[derive(Debug, Clone)]
enum Change {
    Replicas(u32),
    Hold(bool),
    StartSecond,
    StopSecond,
    Weight(u8),
    MakeStable(bool),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0u32..5).prop_map(Change::Replicas),
        any::<bool>().prop_map(Change::Hold),
        Just(Change::StartSecond),
        Just(Change::StopSecond),
        (0u8..=100).prop_map(Change::Weight),
        any::<bool>().prop_map(Change::MakeStable),
    ]
}

fn fields() -> [Field; 5] {
    [
        Field::replicas("orders", "v1"),
        Field::hold("orders"),
        Field::version("orders", "v2"),
        Field::canary("orders"),
        Field::stable_version("orders"),
    ]
}

async fn snapshot(platform: &MemoryPlatform) -> BTreeMap<Field, Option<Value>> {
    let mut values = BTreeMap::new();
    for field in fields() {
        values.insert(field.clone(), platform.get(&field).await.unwrap());
    }
    values
}

async fn apply(run: &mut Run, change: &Change) -> Result<(), RunError> {
    let hold = Hold {
        holder: run.id().to_owned(),
        reason: "a test".to_owned(),
        retry_after_seconds: 1,
    };
    match change {
        Change::Replicas(replicas) => {
            run.change(&Field::replicas("orders", "v1"), Some(json!(replicas)))
                .await
        }
        Change::Hold(on) => run.change(&Field::hold("orders"), on.then(|| hold.value())).await,
        Change::StartSecond => {
            run.change(&Field::version("orders", "v2"), Some(second().value()))
                .await
        }
        Change::StopSecond => run.change(&Field::version("orders", "v2"), None).await,
        Change::MakeStable(second) => {
            let version = if *second { "v2" } else { "v1" };
            run.change(&Field::stable_version("orders"), Some(json!(version))).await
        }
        Change::Weight(percent) => {
            let now = run
                .platform()
                .service("orders")
                .await?
                .canary
                .map_or(0, |weight| weight.percent);
            run.grant_weight("orders", "v2", now, *percent, Duration::from_secs(30))
                .await
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_prefix_of_changes_is_undone_or_reported(
        changes in prop::collection::vec(change(), 0..12),
        crash_after in 0u32..40,
        meddle in prop::option::of((0usize..3, 1u32..9)),
        wait in 0u64..60,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
            let before = snapshot(&platform).await;
            let mut run = begin(&platform, "r", 1).await.unwrap();
            platform.crash_after(Some(crash_after));
            for change in &changes {
                // Refused values and the crash end nothing: a worker may go on after an error.
                let _ = apply(&mut run, change).await;
            }
            drop(run);
            platform.crash_after(None);
            platform.bury(1);
            // Somebody changes a field by hand.
            let mut theirs = None;
            if let Some((which, replicas)) = meddle {
                let field = fields()[which].clone();
                let value = match which {
                    0 => Some(json!(replicas + 10)),
                    1 => Some(json!({ "holder": "them", "reason": "x", "retry_after_seconds": replicas })),
                    _ => Some(VersionSpec { replicas: replicas + 10, ..second() }.value()),
                };
                let now = platform.get(&field).await.unwrap();
                if platform.compare_and_set(None, &field, now.as_ref(), value.as_ref()).await.unwrap().applied() {
                    theirs = Some((field, value));
                }
            }
            tokio::time::advance(Duration::from_secs(wait)).await;
            let recovered = recover(&platform, "r", &Journal::memory("r")).await.unwrap();
            let Recovered::Closed { record, report } = recovered else { panic!("{recovered:?}") };
            let after = snapshot(&platform).await;
            for field in fields() {
                let by_them = theirs.as_ref().filter(|(changed, _)| *changed == field);
                match by_them {
                    Some((_, value)) => assert_eq!(&after[&field], value, "{field} is left alone"),
                    None if report.steps.iter().any(|s| s.field == field && s.result != Some(StepResult::Undone)) => {
                        // Only what another's change makes impossible: the version that they changed is stable.
                        assert!(theirs.is_some(), "{field}: {report:?}");
                    }
                    None => assert_eq!(after[&field], before[&field], "{field}: {report:?}"),
                }
            }
            let complete = report.complete();
            assert_eq!(record.outcome, Some(if complete { Outcome::Lost } else { Outcome::UndoIncomplete }));
            assert!(theirs.is_some() || complete, "{report:?}");
            assert_eq!(platform.lease(&lock::name_for_service("orders")).await.unwrap(), None);
            let _again = recover(&platform, "r", &Journal::memory("r")).await.unwrap();
            assert_eq!(snapshot(&platform).await, after, "idempotent");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_that_lapsed_meanwhile_is_no_conflict() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let mut run = begin(&platform, "r", 1).await.unwrap();
    run.change(&Field::version("orders", "v2"), Some(second().value()))
        .await
        .unwrap();
    run.grant_weight("orders", "v2", 0, 10, Duration::from_secs(30))
        .await
        .unwrap();
    run.grant_weight("orders", "v2", 10, 50, Duration::from_secs(30))
        .await
        .unwrap();
    tokio::time::advance(Duration::from_secs(31)).await;
    let report = run.undo().await.unwrap();
    assert!(report.complete(), "{report:?}");
    assert_eq!(
        run.close(Outcome::Passed, "").await.unwrap().outcome,
        Some(Outcome::Passed)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_not_undone_and_what_is_forgotten_makes_it_incomplete() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let field = Field::replicas("orders", "v1");
    let mut run = begin(&platform, "kept", 1).await.unwrap();
    run.change(&field, Some(json!(3))).await.unwrap();
    run.keep(&field).await.unwrap();
    assert!(run.undo().await.unwrap().complete());
    assert_eq!(
        run.close(Outcome::Passed, "").await.unwrap().outcome,
        Some(Outcome::Passed)
    );
    assert_eq!(platform.get(&field).await.unwrap(), Some(json!(3)));

    let mut run = begin(&platform, "forgotten", 1).await.unwrap();
    run.change(&field, Some(json!(4))).await.unwrap();
    assert_eq!(
        run.close(Outcome::Passed, "").await.unwrap().outcome,
        Some(Outcome::UndoIncomplete)
    );
}

#[tokio::test(start_paused = true)]
async fn a_watchdog_that_dies_is_replaced_while_its_worker_lives() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let mut run = begin(&platform, "r", 1).await.unwrap();
    let journal = Journal::memory("r");
    // The watchdogs have the process ids 100, 101 …; the third one dies before it has come up.
    let watchdogs = Arc::new(Mutex::new(Vec::new()));
    let start = {
        let (platform, journal, watchdogs) = (platform.clone(), journal.clone(), Arc::clone(&watchdogs));
        move || {
            let mut watchdogs = watchdogs.lock().unwrap();
            let pid = 100 + u32::try_from(watchdogs.len()).unwrap();
            let (platform, journal) = (Arc::new(platform.clone()), journal.clone());
            watchdogs.push(tokio::spawn(async move {
                if pid != 102 {
                    let _ = watch(platform, "r", holder("r", pid), &journal, &WatchOptions::default()).await;
                }
            }));
            Ok(())
        }
    };
    run.keep_watched(start).unwrap();
    run.await_watchdog(Duration::from_secs(5)).await.unwrap();
    run.change(&Field::replicas("orders", "v1"), Some(json!(1)))
        .await
        .unwrap();
    let watched_by = async || platform.record("r").await.unwrap().unwrap().watchdog.unwrap().pid;
    assert_eq!(watched_by().await, 100);
    for (dies, within, next) in [(100, 1, 101), (101, 4, 103)] {
        watchdogs.lock().unwrap()[dies - 100].abort();
        platform.bury(u32::try_from(dies).unwrap());
        tokio::time::sleep(Duration::from_secs(within)).await;
        assert_eq!(watched_by().await, next);
    }
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(watchdogs.lock().unwrap().len(), 4, "one that lives is not replaced");
    assert_eq!(run.control(), Control::Run);
    drop(run);
    platform.bury(1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        platform.get(&Field::replicas("orders", "v1")).await.unwrap(),
        Some(json!(2))
    );
    let record = platform.record("r").await.unwrap().unwrap();
    assert_eq!(record.outcome, Some(Outcome::Lost));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_no_lock_yet_is_not_lost() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let entered = |id: &str| {
        let mut entered = record(&platform, id);
        entered.worker = Some(Worker {
            process: holder(id, 1),
            lease_seconds: TTL.as_secs_f64(),
        });
        entered
    };
    // A worker that stands between its two steps: it is in the record, and takes the lock next.
    platform.create_record(&entered("r")).await.unwrap();
    let journal = Journal::memory("r");
    let options = WatchOptions::default();
    let watched = watch(Arc::new(platform.clone()), "r", holder("r", 2), &journal, &options);
    tokio::pin!(watched);
    assert!(
        tokio::time::timeout(TTL / 4, &mut watched).await.is_err(),
        "it is waited for"
    );
    let phase = platform.record("r").await.unwrap().unwrap().phase;
    assert_ne!(phase, Phase::Undoing);
    // One that never goes on is.
    let end = tokio::time::timeout(TTL, watched)
        .await
        .expect("it is given up")
        .unwrap();
    assert!(matches!(end, Watched::Undone(record) if record.outcome == Some(Outcome::Lost)));
}

#[tokio::test(start_paused = true)]
async fn a_second_watchdog_leaves_the_watch_to_the_first() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let mut run = begin(&platform, "r", 1).await.unwrap();
    let journal = Journal::memory("r");
    let first = tokio::spawn({
        let (platform, journal) = (Arc::new(platform.clone()), journal.clone());
        async move { watch(platform, "r", holder("r", 2), &journal, &WatchOptions::default()).await }
    });
    run.await_watchdog(Duration::from_secs(5)).await.unwrap();
    let shared = Arc::new(platform.clone());
    let second = watch(shared, "r", holder("r", 3), &journal, &WatchOptions::default()).await;
    assert_eq!(second.unwrap(), Watched::Relieved);
    run.close(Outcome::Passed, "").await.unwrap();
    assert_eq!(first.await.unwrap().unwrap(), Watched::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_waits_for_another_worker_before_it_undoes_slow_steps() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let mut run = begin(&platform, "r", 1).await.unwrap();
    let grace = Duration::from_mins(10);
    run.change_slowly(&Field::version("orders", "v2"), Some(second().value()), grace)
        .await
        .unwrap();
    run.grant_weight("orders", "v2", 0, 10, Duration::from_secs(30))
        .await
        .unwrap();
    let journal = Journal::memory("r");
    let watchdog = tokio::spawn({
        let (platform, journal) = (Arc::new(platform.clone()), journal.clone());
        async move { watch(platform, "r", holder("r", 2), &journal, &WatchOptions::default()).await }
    });
    run.await_watchdog(Duration::from_secs(5)).await.unwrap();
    drop(run);
    platform.bury(1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let service = platform.service("orders").await.unwrap();
    assert_eq!(
        (service.canary, service.versions.len()),
        (None, 2),
        "no traffic, but still there"
    );
    assert!(
        matches!(begin(&platform, "other", 3).await, Err(RunError::Locked { .. })),
        "the lock is kept"
    );

    // Another worker takes it up, and is lost as well; then the time runs from there.
    tokio::time::sleep(Duration::from_mins(5)).await;
    let shared = Arc::new(platform.clone());
    let mut run = Run::take(shared, "r", holder("r", 4), TTL, Journal::memory("r"))
        .await
        .unwrap();
    run.grant_weight("orders", "v2", 0, 20, Duration::from_secs(30))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_mins(8)).await;
    assert_eq!(run.control(), Control::Run);
    assert!(!watchdog.is_finished());
    drop(run);
    platform.bury(4);
    tokio::time::sleep(Duration::from_mins(9)).await;
    assert_eq!(platform.service("orders").await.unwrap().versions.len(), 2);
    tokio::time::sleep(Duration::from_mins(2)).await;
    let Watched::Undone(record) = watchdog.await.unwrap().unwrap() else {
        panic!("it undid")
    };
    assert_eq!(record.outcome, Some(Outcome::Lost));
    assert_eq!(platform.service("orders").await.unwrap().versions.len(), 1);
    let losses = journal
        .events()
        .unwrap()
        .iter()
        .filter(|event| event.kind == "worker_lost")
        .count();
    assert_eq!(losses, 2);
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_tries_failing_steps_again_and_gives_up_as_incomplete() {
    for (failures, outcome) in [(3, Outcome::Lost), (u32::MAX, Outcome::UndoIncomplete)] {
        let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
        let mut run = begin(&platform, "r", 1).await.unwrap();
        run.change(&Field::replicas("orders", "v1"), Some(json!(1)))
            .await
            .unwrap();
        drop(run);
        platform.bury(1);
        platform.fail("compare_and_set", failures);
        let shared = Arc::new(platform.clone());
        let watched = watch(
            shared,
            "r",
            holder("r", 2),
            &Journal::memory("r"),
            &WatchOptions::default(),
        )
        .await
        .unwrap();
        let Watched::Undone(record) = watched else {
            panic!("{watched:?}")
        };
        assert_eq!(record.outcome, Some(outcome));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_renew_stops_itself_before_its_lease_is_over() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let mut run = begin(&platform, "r", 1).await.unwrap();
    platform.fail("renew_lease", u32::MAX);
    let began = tokio::time::Instant::now();
    assert_eq!(run.stopped().await, Control::Fenced);
    assert!(began.elapsed() < TTL, "{:?}", began.elapsed());
    let refused = run.change(&Field::replicas("orders", "v1"), Some(json!(1))).await;
    assert!(matches!(refused, Err(RunError::Fenced { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_hears_a_cancel_and_keeps_what_others_wrote_into_the_record() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let mut run = begin(&platform, "r", 1).await.unwrap();
    let cancel = Cancel {
        by: "somebody".to_owned(),
        at: platform.now(),
        reason: Reason::Abort,
    };
    request_cancel(&platform, "r", cancel.clone()).await.unwrap();
    assert_eq!(run.stopped().await, Control::Cancelled(cancel.clone()));
    run.step("stopping").await.unwrap();
    let stored = platform.record("r").await.unwrap().unwrap();
    assert_eq!((stored.step.as_str(), stored.cancel), ("stopping", Some(cancel)));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_somebody_else_was_faster_with_is_a_conflict() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let mut run = begin(&platform, "r", 1).await.unwrap();
    run.change(&Field::version("orders", "v2"), Some(second().value()))
        .await
        .unwrap();
    let theirs = Weight::value("v2", 30, "them");
    let field = Field::canary("orders");
    assert!(
        platform
            .compare_and_set(None, &field, None, theirs.as_ref())
            .await
            .unwrap()
            .applied()
    );
    let conflict = run.grant_weight("orders", "v2", 0, 10, Duration::from_secs(30)).await;
    assert!(matches!(conflict, Err(RunError::Conflict { .. })), "{conflict:?}");
    let report = run.undo().await.unwrap();
    assert_eq!(report.conflicts().map(|step| &step.field).collect::<Vec<_>>(), [&field]);
    assert_eq!(platform.get(&field).await.unwrap(), theirs);
}

#[tokio::test(start_paused = true)]
async fn a_living_run_cannot_be_taken_and_a_closed_one_neither() {
    let platform = MemoryPlatform::new().with_service("orders", "v1", 2);
    let run = begin(&platform, "r", 1).await.unwrap();
    let take = |pid| {
        Run::take(
            Arc::new(platform.clone()),
            "r",
            holder("r", pid),
            TTL,
            Journal::memory("r"),
        )
    };
    assert!(matches!(take(2).await, Err(RunError::Running { pid: 1, .. })));
    let record = run.close(Outcome::Passed, "").await.unwrap();
    assert_eq!(record.phase, Phase::Closed);
    assert!(matches!(take(2).await, Err(RunError::Fenced { .. })));
}
