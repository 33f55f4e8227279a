//! The node-drain drill against the platform's twin in memory, on a paused clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "support/scene.rs"]
mod scene;

use std::sync::Arc;
use std::time::Duration;

use opsctl_drills::kinds::node_drain::{Drain, plan};
use opsctl_drills::report::Status;
use opsctl_drills::{PlanError, Terms, Verdict};
use opsctl_platform::run::{Outcome, RunRecord};
use opsctl_platform::{Field, Platform};
use scene::{Scene, World};
use serde_json::json;

/// Two services of two instances each on two nodes.
fn scene(budget: usize) -> Scene {
    let scene = Scene::with_caller(World::default());
    let platform = scene.platform.as_ref().clone();
    let platform = platform.with_nodes(&["n1", "n2"]).with_budget("orders", budget);
    Scene {
        platform: Arc::new(platform),
        ..scene
    }
}

async fn planned(scene: &Scene, node: &str) -> Result<RunRecord, PlanError> {
    let terms = Terms {
        service: String::new(),
        ..scene.terms.clone()
    };
    let drain = Drain {
        node: node.to_owned(),
        lose_local_data: false,
        evict_within: Duration::from_secs(10),
        leaving: Vec::new(),
    };
    let plan = plan(scene.platform.as_ref(), terms, drain).await?;
    Ok(plan.record("run-1", scene.platform.now()))
}

async fn set(scene: &Scene, expect: Option<bool>, new: Option<bool>) {
    let field = Field::unschedulable("n1");
    let (expect, new) = (expect.map(|v| json!(v)), new.map(|v| json!(v)));
    let cas = scene
        .platform
        .compare_and_set(None, &field, expect.as_ref(), new.as_ref())
        .await;
    assert!(cas.unwrap().applied());
}

#[tokio::test(start_paused = true)]
async fn everything_leaves_is_whole_elsewhere_and_the_node_is_open_again() {
    let scene = scene(1);
    let report = scene.work(planned(&scene, "n1").await.unwrap()).await;
    assert_eq!(
        (report.status, report.verdict),
        (Status::Completed, Verdict::Pass),
        "{:?}",
        report.reasons
    );
    assert_eq!(report.drained.len(), 2);
    assert_eq!(report.others.len(), 1);
    assert!(scene.platform.tenants("n1").await.unwrap().is_empty());
    let field = Field::unschedulable("n1");
    assert_eq!(scene.platform.get(&field).await.unwrap(), None);
    assert_eq!(scene::outcome(&scene.platform).await, Some(Outcome::Passed));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_closed_before_stays_closed() {
    let scene = scene(1);
    set(&scene, None, Some(true)).await;
    let report = scene.work(planned(&scene, "n1").await.unwrap()).await;
    assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.reasons);
    let field = Field::unschedulable("n1");
    assert_eq!(scene.platform.get(&field).await.unwrap(), Some(json!(true)));
}

#[tokio::test(start_paused = true)]
async fn what_a_budget_holds_back_stays_and_fails_the_drill() {
    let scene = scene(2);
    let report = scene.work(planned(&scene, "n1").await.unwrap()).await;
    assert_eq!((report.status, report.verdict), (Status::Completed, Verdict::Fail));
    assert!(report.reasons[0].contains("2 must stay ready"), "{:?}", report.reasons);
    let orders = scene.platform.service("orders").await.unwrap();
    assert!(orders.instances.iter().all(|instance| instance.restarts == 0));
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_to_the_node_is_not_ready_elsewhere() {
    let scene = scene(1);
    let platform = scene.platform.as_ref().clone().with_tolerant("orders");
    let scene = Scene {
        platform: Arc::new(platform),
        ..scene
    };
    let report = scene.work(planned(&scene, "n1").await.unwrap()).await;
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(report.reasons[0].contains("is on the node"), "{:?}", report.reasons);
    let met = |name: &str| {
        report
            .checks
            .iter()
            .find(|check| check.name == name)
            .and_then(|check| check.met)
    };
    assert_eq!(met("ready elsewhere (orders)"), Some(false));
    assert_eq!(met("ready elsewhere (caller)"), Some(true));
}

#[tokio::test(start_paused = true)]
async fn it_refuses_an_unknown_node_the_last_one_and_a_place_without_nodes() {
    let scene = scene(1);
    assert!(matches!(planned(&scene, "n3").await, Err(PlanError::Unfit { .. })));
    set(&scene, None, Some(true)).await;
    assert!(matches!(planned(&scene, "n2").await, Err(PlanError::Impossible { .. })));
    let scene = Scene::with_caller(World::default());
    assert!(matches!(planned(&scene, "n1").await, Err(PlanError::Impossible { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_worker_lost_after_any_change_leaves_no_closed_node() {
    let places = scene::lose_the_worker_everywhere(|| async {
        let scene = scene(1);
        let record = planned(&scene, "n1").await.unwrap();
        (scene, record)
    })
    .await;
    assert!(places >= 8, "{places}");
}
