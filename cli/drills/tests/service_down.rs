//! The service-down drill against the platform's twin in memory, on a paused clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "support/scene.rs"]
mod scene;

use std::time::Duration;

use opsctl_drills::kinds::service_down::{Down, plan};
use opsctl_drills::report::Status;
use opsctl_drills::{PlanError, Verdict};
use opsctl_platform::run::Outcome;
use opsctl_platform::{Field, Platform};
use scene::{Scene, World};

async fn planned(scene: &Scene, unharmed: bool) -> Result<opsctl_platform::run::RunRecord, PlanError> {
    let plan = plan(scene.platform.as_ref(), scene.terms.clone(), Down { unharmed }).await?;
    Ok(plan.record("run-1", scene.platform.now()))
}

#[tokio::test(start_paused = true)]
async fn a_dependant_that_degrades_and_stands_passes_and_one_that_must_be_unharmed_fails() {
    for (unharmed, verdict) in [(false, Verdict::Pass), (true, Verdict::Fail)] {
        let scene = Scene::with_caller(World {
            caller_errors_without: 0.3,
            ..World::default()
        });
        let report = scene.work(planned(&scene, unharmed).await.unwrap()).await;
        assert_eq!(
            (report.status, report.verdict),
            (Status::Completed, verdict),
            "{:?}",
            report.reasons
        );
        let caller = &report.others[0];
        assert_eq!((caller.service.as_str(), caller.ready_lowest), ("caller", Some(2)));
        assert!(
            caller.during.clients.errors > 100 && caller.after.clients.errors < 10,
            "{caller:?}"
        );
        let (from, to) = (report.injected_seconds.unwrap(), report.undone_seconds.unwrap());
        assert!((10.0..11.0).contains(&(to - from)), "{from} to {to}");
        let seconds = report.recovery.time_to_recovery_seconds.unwrap();
        assert!((1.7..3.0).contains(&seconds), "a start takes two seconds: {seconds}");
        assert_eq!(scene.platform.get(&Field::hold("orders")).await.unwrap(), None);
        assert_eq!(scene.platform.service("orders").await.unwrap().ready().count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dependant_that_falls_with_it_fails_the_drill() {
    let scene = Scene::with_caller(World::default());
    let record = planned(&scene, false).await.unwrap();
    let platform = scene.platform.clone();
    let journal = scene.journal.clone();
    let running = tokio::spawn(scene.work_in_background(record).await);
    scene::until(&journal, "effective").await;
    platform.crash_instance("caller", "caller-1");
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(
        report.reasons[0].starts_with("instances (caller): 1 at the least"),
        "{:?}",
        report.reasons
    );
}

#[tokio::test(start_paused = true)]
async fn it_refuses_a_service_that_is_held_or_not_whole() {
    let scene = Scene::with_caller(World::default());
    scene.platform.crash_instance("orders", "orders-1");
    assert!(matches!(
        planned(&scene, false).await,
        Err(PlanError::NotReady { ready: 1, .. })
    ));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let hold = serde_json::json!({ "holder": "x", "reason": "a restore", "retry_after_seconds": 5 });
    let field = Field::hold("orders");
    assert!(
        scene
            .platform
            .compare_and_set(None, &field, None, Some(&hold))
            .await
            .unwrap()
            .applied()
    );
    assert!(matches!(planned(&scene, false).await, Err(PlanError::Held { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_abort_brings_the_service_back() {
    let scene = Scene::with_caller(World::default());
    let record = planned(&scene, false).await.unwrap();
    let (platform, journal) = (scene.platform.clone(), scene.journal.clone());
    let running = tokio::spawn(scene.work_in_background(record).await);
    scene::until(&journal, "effective").await;
    scene::abort(platform.as_ref()).await;
    let report = running.await.unwrap().unwrap();
    assert_eq!(
        (report.status, report.verdict),
        (Status::Aborted, Verdict::Inconclusive)
    );
    assert_eq!(platform.get(&Field::hold("orders")).await.unwrap(), None);
    assert_eq!(scene::outcome(platform.as_ref()).await, Some(Outcome::Aborted));
}

#[tokio::test(start_paused = true)]
async fn a_worker_lost_after_any_change_leaves_nothing() {
    let places = scene::lose_the_worker_everywhere(|| async {
        let scene = Scene::with_caller(World::default());
        let record = planned(&scene, false).await.unwrap();
        (scene, record)
    })
    .await;
    assert!(places >= 8, "{places}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_somebody_else_changed_is_left_alone_and_told() {
    let scene = Scene::with_caller(World::default());
    let record = planned(&scene, false).await.unwrap();
    let (platform, journal) = (scene.platform.clone(), scene.journal.clone());
    let running = tokio::spawn(scene.work_in_background(record).await);
    scene::until(&journal, "effective").await;
    let field = Field::hold("orders");
    let ours = platform.get(&field).await.unwrap();
    let theirs = serde_json::json!({ "holder": "someone", "reason": "a restore", "retry_after_seconds": 9 });
    let changed = platform
        .compare_and_set(None, &field, ours.as_ref(), Some(&theirs))
        .await;
    assert!(changed.unwrap().applied());
    let report = running.await.unwrap().unwrap();
    assert!(
        report.reasons.iter().any(|reason| reason.contains("somebody else")),
        "{:?}",
        report.reasons
    );
    assert_eq!(scene::outcome(platform.as_ref()).await, Some(Outcome::UndoIncomplete));
    assert_eq!(platform.get(&field).await.unwrap(), Some(theirs));
}
