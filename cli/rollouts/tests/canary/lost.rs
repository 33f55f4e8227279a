//! Every place where a judge can be lost, and what another one or an undo makes of it.

use std::time::Duration;

use opsctl_platform::Platform as _;
use opsctl_platform::run::{Outcome, Phase, Recovered, recover};
use opsctl_rollouts::report::Status;
use opsctl_rollouts::{Cause, Options, WorkError, work};

use super::scene::{Scene, World};

#[tokio::test(start_paused = true)]
async fn a_lost_judge_lets_the_share_lapse_and_another_goes_on_with_its_evidence() {
    let mut scene = Scene::new("10:60s,50:15s,100", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    running.abort();
    let _ = running.await;
    let before = scene.report().await.evidence.unwrap();
    assert!(before.metrics[0].canary.requests > 100);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(
        scene.platform.service("orders").await.unwrap().canary,
        None,
        "the lease is over"
    );
    let report = work(scene.take().await, Options::default()).await.unwrap();
    assert_eq!(report.status, Status::Promoted);
    let after = report.evidence.unwrap();
    assert!(after.looks > before.looks && after.skipped > 3, "{before:?} {after:?}");
    // The minute of the first step was not shortened by the absence.
    let first = report.series.iter().filter(|point| point.percent == 10).count();
    assert!((50..65).contains(&first), "{first}");
    assert_eq!(scene.assert_clean().await, "v2");
}

#[tokio::test(start_paused = true)]
async fn a_judge_lost_after_any_change_leaves_one_whole_version() {
    for (schedule, errors) in [("10:5s,50:15s,100", 0.0), ("10:5s,50:15s,100", 0.3)] {
        let mut stables = Vec::new();
        for changes in 0.. {
            let scene = Scene::new(schedule, World::with_errors(errors));
            let run = scene.begin().await;
            scene.platform.crash_after(Some(changes));
            let worked = work(run, Options::default()).await;
            scene.platform.crash_after(None);
            if worked.is_ok() {
                break;
            }
            scene.platform.bury(scene.pid);
            let recovered = recover(scene.platform.as_ref(), "run-1", &scene.journal).await.unwrap();
            match recovered {
                Recovered::Closed { report, .. } => assert!(report.complete(), "after {changes}: {report:?}"),
                Recovered::Nothing => {}
                Recovered::Running(_) => panic!("its worker is dead"),
            }
            if scene.platform.lease("service-orders").await.unwrap().is_some() {
                let holder = scene.holder();
                scene.platform.release_lease("service-orders", &holder).await.unwrap();
            }
            stables.push(scene.assert_clean().await);
        }
        println!(
            "{} places, v2 in {}",
            stables.len(),
            stables.iter().filter(|s| *s == "v2").count()
        );
        assert!(stables.len() > 20);
        assert_eq!(stables.contains(&"v2".to_owned()), errors == 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_judge_lost_after_any_change_can_be_followed_by_another() {
    for changes in (0..200).step_by(3) {
        let mut scene = Scene::new("10:5s,50:15s,100", World::with_errors(0.0));
        let run = scene.begin().await;
        scene.platform.crash_after(Some(changes));
        let worked = work(run, Options::default()).await;
        scene.platform.crash_after(None);
        if worked.is_ok() || scene.stored().await.phase == Phase::Closed {
            break;
        }
        let report = work(scene.take().await, Options::default()).await.unwrap();
        assert_eq!(report.status, Status::Promoted, "after {changes}: {:?}", report.reasons);
        assert_eq!(scene.assert_clean().await, "v2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_judge_that_follows_on_half_an_undo_goes_on_or_calls_it_lost() {
    for lost_after in ["share_granted", "promoted"] {
        let mut causes = Vec::new();
        for changes in 0.. {
            let mut scene = Scene::new("10:10s,100", World::with_errors(0.0));
            let running = tokio::spawn(work(scene.begin().await, Options::default()));
            scene.until(lost_after).await;
            running.abort();
            scene.platform.bury(scene.pid);
            scene.platform.crash_after(Some(changes));
            let undone = recover(scene.platform.as_ref(), "run-1", &scene.journal).await;
            scene.platform.crash_after(None);
            if undone.is_ok() || scene.stored().await.phase == Phase::Closed {
                break;
            }
            let report = work(scene.take().await, Options::default()).await.unwrap();
            let stable = scene.assert_clean().await;
            let expected = match report.cause {
                None => ("v2", Some(Outcome::Passed)),
                Some(_) => ("v1", Some(Outcome::Lost)),
            };
            assert_eq!((stable.as_str(), scene.stored().await.outcome), expected);
            causes.push(report.cause);
        }
        assert!(
            causes.contains(&None) && causes.contains(&Some(Cause::Undone)),
            "{lost_after}: {causes:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_replaced_changes_nothing_any_more() {
    let mut scene = Scene::new("10:10m,100", World::with_errors(0.0));
    let running = tokio::spawn(work(scene.begin().await, Options::default()));
    scene.until("share_granted").await;
    let second = scene.take().await;
    let first = running.await.unwrap();
    assert!(matches!(first, Err(WorkError::Run(_))), "{first:?}");
    drop(second);
}
