//! Canaries that a service's own criteria judge, too.

use std::sync::Arc;

use opsctl_platform::Usage;
use opsctl_rollouts::analysis::Verdict;
use opsctl_rollouts::report::Status;
use opsctl_rollouts::{Cause, Criterion, OnInconclusive, PlanError, Report, plan};

use super::scene::{Scene, World};

/// A scene whose service wants at most 0.3 of what the query `depth` gives. Numbers are told by seconds since the start.
fn scene(schedule: &str, numbers: impl Fn(f64) -> Option<f64> + Send + 'static) -> Scene {
    let scene = Scene::new(schedule, World::with_errors(0.0));
    let platform = scene.platform.as_ref().clone();
    let platform = platform.with_numbers("orders", move |view, query| {
        assert_eq!(query, "depth");
        numbers(view.elapsed.as_secs_f64())
    });
    let mut spec = scene.spec.clone();
    spec.criteria = vec![Criterion {
        name: "queue depth".to_owned(),
        query: "depth".to_owned(),
        max: Some(0.3),
        min: None,
    }];
    Scene {
        platform: Arc::new(platform),
        spec,
        ..scene
    }
}

fn told(report: &Report) -> String {
    format!("{:?}\n{:?}", report.reasons, report.timeline)
}

#[tokio::test(start_paused = true)]
async fn a_number_within_its_bound_is_no_hindrance() {
    let report = scene("10:5s,50:15s,100", |_| Some(0.3)).work().await;
    assert_eq!(
        (report.status, report.verdict),
        (Status::Promoted, Verdict::Pass),
        "{}",
        told(&report)
    );
    let criterion = &report.criteria[0];
    assert_eq!((criterion.verdict, criterion.seen.worst), (Verdict::Pass, Some(0.3)));
    assert!(criterion.seen.looks > 20, "in the steps and in the bake: {criterion:?}");
}

#[tokio::test(start_paused = true)]
async fn a_number_beyond_its_bound_is_confirmed_and_rolls_back() {
    // Once beyond is a spike.
    let spike = |at: f64| Some(if (8.0..9.0).contains(&at) { 5.0 } else { 0.1 });
    assert_eq!(scene("10:5s,50:15s,100", spike).work().await.status, Status::Promoted);

    let scene = scene("10:5s,50:15s,100", |at| Some(if at < 6.0 { 0.1 } else { 0.4 }));
    let report = scene.work().await;
    assert_eq!(
        (report.cause, report.verdict),
        (Some(Cause::CriterionMissed), Verdict::Fail)
    );
    assert_eq!(report.status, Status::RolledBack);
    assert_eq!(scene.assert_clean().await, "v1");
    assert!(report.elapsed_seconds < 20.0, "{}", report.elapsed_seconds);
    assert!(
        report
            .reasons
            .iter()
            .any(|reason| reason.contains("queue depth: 0.4000, good is at most 0.3, beyond that for 3 looks")),
        "{}",
        told(&report)
    );
    let moments: Vec<_> = report
        .timeline
        .iter()
        .filter(|moment| moment.kind == "criterion")
        .collect();
    assert_eq!(moments.len(), 3, "within, beyond, confirmed: {}", told(&report));
}

#[tokio::test(start_paused = true)]
async fn a_number_that_goes_beyond_after_the_promotion_rolls_back_too() {
    // Bakes for five seconds after 21.
    let scene = scene("10:5s,50:15s,100", |at| Some(if at < 23.0 { 0.1 } else { 0.4 }));
    let report = scene.work().await;
    assert_eq!(report.cause, Some(Cause::CriterionMissed), "{}", told(&report));
    assert!(report.timeline.iter().any(|moment| moment.kind == "promoted"));
    assert_eq!(scene.assert_clean().await, "v1");
}

#[tokio::test(start_paused = true)]
async fn without_a_number_nothing_is_proven() {
    let mut scene = scene("10:5s,50:15s,100", |_| None);
    scene.spec.on_inconclusive = OnInconclusive::Rollback;
    let report = scene.work().await;
    assert_eq!(
        (report.cause, report.verdict),
        (Some(Cause::Inconclusive), Verdict::Inconclusive)
    );
    assert!(
        report
            .reasons
            .iter()
            .any(|reason| reason.contains("queue depth: no number")),
        "{}",
        told(&report)
    );
    assert_eq!(
        report.evidence.as_ref().map(|evidence| evidence.verdict),
        Some(Verdict::Pass),
        "errors are judged apart"
    );
}

#[tokio::test(start_paused = true)]
async fn what_pods_use_is_told_and_judges_nothing() {
    let pod = |version: &str, cpu: f64, memory: f64| Usage {
        instance: format!("{version}-{cpu}"),
        version: version.to_owned(),
        cpu_cores: Some(cpu),
        memory_bytes: Some(memory),
    };
    let scene = Scene::new("10:5s,50:15s,100", World::with_errors(0.0));
    let usage = vec![pod("v1", 0.1, 1e6), pod("v1", 0.2, 2e6), pod("v2", 4.0, 9e9)];
    let platform = scene.platform.as_ref().clone().with_usage("orders", usage);
    let scene = Scene {
        platform: Arc::new(platform),
        ..scene
    };
    let report = scene.work().await;
    assert_eq!(report.status, Status::Promoted, "{}", told(&report));
    let resources = report.resources.unwrap();
    assert_eq!(
        (resources.stable.pods, resources.stable.memory_bytes_median),
        (2, Some(1.5e6))
    );
    assert_eq!(resources.canary.cpu_cores_max, Some(4.0));
}

#[tokio::test(start_paused = true)]
async fn that_nobody_answers_is_the_judges_business_and_not_the_plans() {
    // No numbers at all: there is no Prometheus.
    let mut scene = Scene::new("10:5s,100", World::with_errors(0.0));
    scene.spec.criteria = vec![Criterion {
        name: "depth".to_owned(),
        query: "depth".to_owned(),
        max: Some(1.0),
        min: None,
    }];
    let planned: Result<_, PlanError> = plan(scene.platform.as_ref(), scene.spec.clone()).await;
    assert_eq!(planned.unwrap().spec.criteria.len(), 1);
}
