//! Canaries against the platform's twin in memory, on a paused clock: every way through the judge.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "canary/criteria.rs"]
mod criteria;
#[path = "canary/lost.rs"]
mod lost;
#[path = "canary/scene.rs"]
mod scene;
#[path = "canary/traffic.rs"]
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use opsctl_platform::run::{Outcome, Phase, Reason, Recovered, Run, recover, request_cancel};
use opsctl_platform::{Field, LeaseHolder, Platform, VersionSpec, Weight};
use opsctl_rollouts::analysis::Verdict;
use opsctl_rollouts::report::Status;
use opsctl_rollouts::{
    Cause, OnInconclusive, Options, PlanError, Schedule, Spec, WorkError, forecast, history, plan, request_promote,
    rollback, work,
};
use proptest::prelude::*;
use scene::{Scene, TTL, World, v2};

#[tokio::test(start_paused = true)]
async fn a_good_canary_is_promoted_on_evidence() {
    let scene = Scene::new("10:5s,50:15s,100", World::with_errors(0.0));
    let report = scene.work().await;
    assert_eq!((report.status, report.verdict), (Status::Promoted, Verdict::Pass));
    assert_eq!(scene.assert_clean().await, "v2");
    // Steps 5 s and 15 s, bake 5 s, start 1 s and a few looks.
    assert!(
        (25.0..35.0).contains(&report.elapsed_seconds),
        "{}",
        report.elapsed_seconds
    );
    let evidence = report.evidence.unwrap();
    assert!(evidence.metrics[0].canary.requests >= 370, "{evidence:?}");
    assert!(report.share.verified, "{:?}", report.share);
    assert!(!report.bake.is_empty() && report.series.len() > 20);
    assert_eq!(scene.stored().await.outcome, Some(Outcome::Passed));
    let known = history(scene.platform.as_ref(), Some("orders")).await.unwrap();
    assert_eq!(known.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bad_canary_is_rolled_back_in_order() {
    let scene = Scene::new("10:5s,50:15s,100", World::with_errors(0.2));
    let report = scene.work().await;
    assert_eq!((report.status, report.cause), (Status::RolledBack, Some(Cause::Worse)));
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(report.elapsed_seconds < 15.0, "{}", report.elapsed_seconds);
    assert_eq!(scene.assert_clean().await, "v1");
    let kinds = scene.kinds();
    let place = |kind: &str| {
        kinds
            .iter()
            .position(|k| k == kind)
            .unwrap_or_else(|| panic!("{kind} in {kinds:?}"))
    };
    assert!(place("rolling_back") < place("share_removed"));
    assert!(place("share_removed") < place("drained"));
    assert!(place("drained") < place("undone"));
    assert!(
        report.reasons.iter().any(|r| r.contains("worse than stable")),
        "{:?}",
        report.reasons
    );
}

#[tokio::test(start_paused = true)]
async fn a_shared_outage_does_not_roll_back() {
    let world = World {
        stable_errors: 0.3,
        ..World::with_errors(0.3)
    };
    let scene = Scene::new("10:5s,50:15s,100", world);
    let report = scene.work().await;
    // As bad as the stable version, before the promotion and after it: going back would cure nothing.
    assert_eq!(
        (report.cause, report.verdict),
        (None, Verdict::Pass),
        "{:?}",
        report.reasons
    );
    assert_eq!(scene.assert_clean().await, "v2");
}

#[tokio::test(start_paused = true)]
async fn after_a_shared_outage_a_version_may_be_as_bad_as_the_old_one_was_and_no_worse() {
    let world = World {
        stable_errors: 0.1,
        ..World::with_errors(0.1)
    };
    let scene = Scene::new("10:5s,50:15s,100", world);
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("promoted").await;
    scene.world.lock().unwrap().canary_errors = 0.3;
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.cause, Some(Cause::ObjectiveMissed));
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_never_becomes_ready_is_taken_away() {
    let scene = Scene::new("10:5s,100", World::with_errors(0.0));
    let platform = scene.platform.as_ref().clone().with_restart_delay("orders", None);
    let scene = Scene {
        platform: Arc::new(platform),
        ..scene
    };
    let report = scene.work().await;
    assert_eq!((report.cause, report.verdict), (Some(Cause::NeverReady), Verdict::Fail));
    assert!(
        (60.0..75.0).contains(&report.elapsed_seconds),
        "{}",
        report.elapsed_seconds
    );
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_dies_again_and_again_is_taken_away() {
    let scene = Scene::new("10:60s,100", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("share_granted").await;
    for _ in 0..3 {
        let state = scene.platform.service("orders").await.unwrap();
        let canary = state.instances.iter().find(|i| i.version == "v2").unwrap();
        scene.platform.crash_instance("orders", &canary.id);
    }
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.cause, report.verdict), (Some(Cause::Died), Verdict::Fail));
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn without_traffic_nothing_is_promoted() {
    let mut scene = Scene::new(
        "10:5s,50:15s,100",
        World {
            requests_per_second: 0.0,
            ..World::with_errors(0.0)
        },
    );
    scene.spec.on_inconclusive = OnInconclusive::Rollback;
    let report = scene.work().await;
    assert_eq!(
        (report.cause, report.verdict),
        (Some(Cause::Inconclusive), Verdict::Inconclusive)
    );
    assert_eq!(scene.stored().await.outcome, Some(Outcome::Inconclusive));
    assert!(
        (40.0..50.0).contains(&report.elapsed_seconds),
        "twice the steps: {}",
        report.elapsed_seconds
    );
    assert_eq!(scene.assert_clean().await, "v1");
    assert!(
        report.reasons.contains(&"the canary had no requests".to_owned()),
        "{:?}",
        report.reasons
    );
}

#[tokio::test(start_paused = true)]
async fn an_undecided_canary_is_held_and_ends_after_the_longest_hold() {
    let mut scene = Scene::new(
        "10:5s,100",
        World {
            requests_per_second: 5.0,
            ..World::with_errors(0.0)
        },
    );
    scene.spec.max_hold = Duration::from_hours(1);
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("held").await;
    let held = scene.report().await;
    assert_eq!((held.status, held.verdict), (Status::Held, Verdict::Inconclusive));
    assert!(
        held.more_requests_needed.is_some_and(|more| (300..370).contains(&more)),
        "{held:?}"
    );
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.cause, Some(Cause::HeldTooLong));
    assert!(report.elapsed_seconds > 3600.0, "{}", report.elapsed_seconds);
    assert!(report.series.len() <= 600);
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn one_weight_holds_until_somebody_promotes() {
    let mut scene = Scene::new("10:60s", World::with_errors(0.0));
    scene.spec.schedule = Schedule::hold(10, Duration::from_mins(15)).unwrap();
    scene.spec.max = Duration::from_mins(30);
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("held").await;
    let held = scene.report().await;
    assert_eq!((held.status, held.verdict), (Status::Held, Verdict::Pass));
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(scene.report().await.status, Status::Held);
    let asker = LeaseHolder {
        pid: 9,
        ..scene.holder()
    };
    request_promote(scene.platform.as_ref(), "run-1", &asker).await.unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.status, Status::Promoted);
    assert_eq!(scene.assert_clean().await, "v2");
}

#[tokio::test(start_paused = true)]
async fn an_abort_takes_the_canary_away_at_once() {
    let scene = Scene::new("10:10m,100", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("share_granted").await;
    request_cancel(scene.platform.as_ref(), "run-1", scene.abort(Reason::Abort))
        .await
        .unwrap();
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.status, report.cause), (Status::Aborted, Some(Cause::Requested)));
    assert_eq!(scene.assert_clean().await, "v1");
    let again = request_cancel(scene.platform.as_ref(), "run-1", scene.abort(Reason::Abort))
        .await
        .unwrap();
    assert_eq!(again, None, "nothing is left to abort");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_turns_bad_after_its_promotion_goes_back() {
    let scene = Scene::new("10:5s,50:15s,100", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("promoted").await;
    scene.world.lock().unwrap().canary_errors = 0.1;
    let report = running.await.unwrap().unwrap();
    assert_eq!(
        (report.cause, report.verdict),
        (Some(Cause::ObjectiveMissed), Verdict::Fail)
    );
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_held_rolls_back() {
    let scene = Scene::new("10:5s", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("held").await;
    scene.world.lock().unwrap().canary_errors = 0.2;
    let report = running.await.unwrap().unwrap();
    assert_eq!((report.status, report.cause), (Status::RolledBack, Some(Cause::Worse)));
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_not_honoured_is_no_pass() {
    let mut scene = Scene::new(
        "10:5s,50:15s,100",
        World {
            honoured: 0.3,
            ..World::with_errors(0.0)
        },
    );
    scene.spec.on_inconclusive = OnInconclusive::Rollback;
    let report = scene.work().await;
    assert_eq!(report.cause, Some(Cause::Inconclusive));
    assert!(!report.share.verified);
    assert!(
        report.reasons.iter().any(|r| r.contains("share of the traffic")),
        "{:?}",
        report.reasons
    );
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changed_is_left_alone_and_reported() {
    let scene = Scene::new("10:10m,100", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("share_granted").await;
    let field = Field::canary("orders");
    let now = scene.platform.get(&field).await.unwrap();
    let theirs = Weight::value("v2", 77, "somebody");
    let cas = scene
        .platform
        .compare_and_set(None, &field, now.as_ref(), theirs.as_ref())
        .await
        .unwrap();
    assert!(cas.applied());
    let report = running.await.unwrap().unwrap();
    assert_eq!(
        (report.cause, report.status),
        (Some(Cause::Interference), Status::UndoIncomplete)
    );
    // Theirs stays for as long as its own lease does; ours is gone.
    let record = scene.stored().await;
    assert!(
        record
            .undo
            .iter()
            .any(|step| matches!(step.result, Some(opsctl_platform::run::StepResult::Conflict { .. })))
    );
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_does_not_answer_for_a_while_is_a_gap_not_an_end() {
    let scene = Scene::new("10:5s,50:15s,100", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("share_granted").await;
    scene.platform.fail("traffic", 3);
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.status, Status::Promoted);
    assert!(report.evidence.unwrap().skipped >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_share_taken_away_for_a_moment_does_not_count_as_refused() {
    let mut scene = Scene::new("40:20s", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("held").await;
    running.abort();
    let _ = running.await;
    // What a watchdog does at once: the share goes, the canary stays.
    let field = Field::canary("orders");
    let now = scene.platform.get(&field).await.unwrap();
    let taken = scene
        .platform
        .compare_and_set(None, &field, now.as_ref(), None)
        .await
        .unwrap();
    assert!(taken.applied());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let running = tokio::spawn(work(scene.take().await, Options::default()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let report = scene.report().await;
    assert_eq!((report.status, report.verdict), (Status::Held, Verdict::Pass));
    assert!(report.share.verified, "{:?}", report.share);
    request_cancel(scene.platform.as_ref(), "run-1", scene.abort(Reason::Abort))
        .await
        .unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_traffic_and_no_counters_are_unknown() {
    let quiet = Scene::new(
        "10:15m,100",
        World {
            requests_per_second: 0.0,
            ..World::with_errors(0.0)
        },
    );
    let present = forecast::measure(quiet.platform.as_ref(), "orders", "v1")
        .await
        .unwrap();
    assert!(present.requests_per_second.abs() < f64::EPSILON, "{present:?}");
    assert_eq!(forecast::measure(quiet.platform.as_ref(), "nobody", "v1").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_plan_checks_and_changes_nothing() {
    let scene = Scene::new("10:15m,50:15m,100", World::with_errors(0.0));
    let platform = scene.platform.as_ref();
    let planned = plan(platform, scene.spec.clone()).await.unwrap();
    assert_eq!(planned.changes.len(), 4);
    assert!(!planned.nothing_to_do && planned.leftovers.is_empty());
    assert_eq!(planned.requests_for_a_pass, [369, 646, 849]);
    assert_eq!((planned.traffic, planned.steps[0].pass_requests), (None, Some(369)));
    // At the traffic that there is: 200 requests per second, of which 20 are the canary's.
    let present = forecast::measure(platform, "orders", "v1").await.unwrap();
    assert!((present.requests_per_second - 200.0).abs() < 5.0, "{present:?}");
    assert!((3.0..6.0).contains(&present.window_seconds), "{present:?}");
    let timed = planned.at(Some(present)).steps[0].pass_seconds.unwrap();
    assert!((18.0..22.0).contains(&timed), "{timed} s, of which 1 s is the warm-up");
    let same = Spec {
        version: VersionSpec {
            version: "v1".to_owned(),
            ..v2()
        },
        ..scene.spec.clone()
    };
    assert!(plan(platform, same).await.unwrap().nothing_to_do);
    let other = Spec {
        stable: "v0".to_owned(),
        ..scene.spec.clone()
    };
    assert!(matches!(
        plan(platform, other).await,
        Err(PlanError::StableChanged { .. })
    ));
    platform.crash_instance("orders", "orders-1");
    assert!(matches!(
        plan(platform, scene.spec.clone()).await,
        Err(PlanError::StableNotReady { ready: 1, .. })
    ));
    assert!(platform.records().await.unwrap().is_empty());
    let _run = scene.begin().await;
    assert!(matches!(
        plan(platform, scene.spec.clone()).await,
        Err(PlanError::Locked { .. })
    ));
}

fn back(scene: &Scene, to: &str) -> rollback::Spec {
    let to = VersionSpec {
        version: to.to_owned(),
        ..v2()
    };
    rollback::Spec {
        drain_timeout: Duration::from_secs(5),
        ..rollback::Spec::new(&scene.spec.service, "v1", to)
    }
}

#[tokio::test(start_paused = true)]
async fn going_back_waits_for_capacity_before_traffic() {
    let scene = Scene::new("10:5s,100", World::with_errors(0.0));
    let record = rollback::record("run-1", &back(&scene, "v0"), scene.platform.now());
    let run = Run::begin(scene.platform(), record, scene.holder(), TTL, scene.journal.clone())
        .await
        .unwrap();
    let report = rollback::work(run, None, None).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Passed));
    assert_eq!(scene.assert_clean().await, "v0");
    let events = scene.journal.events().unwrap();
    let at = |kind: &str| events.iter().find(|event| event.kind == kind).unwrap().ts;
    let waited = at("switched").duration_since(at("started")).as_secs_f64();
    assert!(waited >= 0.9, "instances take a second: {waited}");
}

#[tokio::test(start_paused = true)]
async fn going_back_to_what_does_not_start_changes_nothing() {
    let scene = Scene::new("10:5s,100", World::with_errors(0.0));
    let platform = scene.platform.as_ref().clone().with_restart_delay("orders", None);
    let scene = Scene {
        platform: Arc::new(platform),
        ..scene
    };
    let record = rollback::record("run-1", &back(&scene, "v0"), scene.platform.now());
    let run = Run::begin(scene.platform(), record, scene.holder(), TTL, scene.journal.clone())
        .await
        .unwrap();
    let report = rollback::work(run, None, None).await.unwrap();
    assert_eq!(report.outcome, Some(Outcome::Failed));
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn going_back_can_be_lost_after_any_change() {
    let mut stables = Vec::new();
    for changes in 0.. {
        let scene = Scene::new("10:5s,100", World::with_errors(0.0));
        let record = rollback::record("run-1", &back(&scene, "v0"), scene.platform.now());
        let run = Run::begin(scene.platform(), record, scene.holder(), TTL, scene.journal.clone())
            .await
            .unwrap();
        scene.platform.crash_after(Some(changes));
        let worked = rollback::work(run, None, None).await;
        scene.platform.crash_after(None);
        if worked.is_ok() {
            break;
        }
        scene.platform.bury(scene.pid);
        if let Recovered::Closed { report, .. } =
            recover(scene.platform.as_ref(), "run-1", &scene.journal).await.unwrap()
        {
            assert!(report.complete(), "after {changes}: {report:?}");
        }
        let _ = scene.platform.release_lease("service-orders", &scene.holder()).await;
        stables.push(scene.assert_clean().await);
    }
    assert!(stables.len() > 5 && stables.contains(&"v1".to_owned()), "{stables:?}");
}

/// Something that happens to a canary.
#[derive(Debug, Clone)]
enum Happening {
    Wait(u64),
    CanaryErrors(f64),
    Requests(f64),
    CrashCanary,
    Abort,
    Promote,
    LoseJudge,
    Unreachable(u32),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1_u64..20).prop_map(Happening::Wait),
        2 => prop_oneof![Just(0.0), Just(0.01), Just(0.3), Just(1.0)].prop_map(Happening::CanaryErrors),
        1 => prop_oneof![Just(0.0), Just(5.0), Just(200.0)].prop_map(Happening::Requests),
        1 => Just(Happening::CrashCanary),
        1 => Just(Happening::Abort),
        1 => Just(Happening::Promote),
        2 => Just(Happening::LoseJudge),
        1 => (1_u32..6).prop_map(Happening::Unreachable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever happens, in the end there is one version, whole, and no share.
    #[test]
    fn whatever_happens_nothing_is_left(happenings in proptest::collection::vec(happening(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut scene = Scene::new("10:5s,50:15s,100", World::with_errors(0.0));
            scene.spec.max_hold = Duration::from_mins(10);
            let mut running = tokio::spawn(work(scene.begin().await, Options::default()));
            for happening in happenings {
                match happening {
                    Happening::Wait(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                    Happening::CanaryErrors(ratio) => scene.world.lock().unwrap().canary_errors = ratio,
                    Happening::Requests(rate) => scene.world.lock().unwrap().requests_per_second = rate,
                    Happening::CrashCanary => {
                        let state = scene.platform.service("orders").await;
                        let canary = state.ok().and_then(|s| s.instances.into_iter().find(|i| i.version == "v2"));
                        if let Some(instance) = canary {
                            scene.platform.crash_instance("orders", &instance.id);
                        }
                    }
                    Happening::Abort => {
                        let _ = request_cancel(scene.platform.as_ref(), "run-1", scene.abort(Reason::Abort)).await;
                    }
                    Happening::Promote => {
                        let asker = LeaseHolder { pid: 9, ..scene.holder() };
                        let _ = request_promote(scene.platform.as_ref(), "run-1", &asker).await;
                    }
                    Happening::LoseJudge if !running.is_finished() => {
                        running.abort();
                        let _ = running.await;
                        if scene.stored().await.phase == Phase::Closed {
                            running = tokio::spawn(async { Err(WorkError::Run(opsctl_platform::run::RunError::Fenced { run: String::new() })) });
                        } else {
                            running = tokio::spawn(work(scene.take().await, Options::default()));
                        }
                    }
                    Happening::LoseJudge => {}
                    Happening::Unreachable(times) => scene.platform.fail("traffic", times),
                }
            }
            scene.world.lock().unwrap().requests_per_second = 200.0;
            let _ = tokio::time::timeout(Duration::from_hours(30), running).await;
            scene.platform.fail("traffic", 0);
            scene.platform.bury(scene.pid);
            let recovered = recover(scene.platform.as_ref(), "run-1", &scene.journal).await.unwrap();
            if let Recovered::Closed { report, .. } = recovered {
                assert!(report.complete(), "{report:?}");
            }
            let _ = scene.platform.release_lease("service-orders", &scene.holder()).await;
            scene.assert_clean().await;
        });
    }
}
