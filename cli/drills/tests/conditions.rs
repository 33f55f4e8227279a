//! Conditions of a steady state, asked of a real page over a socket: what does not hold before keeps the drill from being
//! done, and what does not come back fails it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "support/scene.rs"]
mod scene;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use opsctl_drills::kinds::service_down::{Down, plan};
use opsctl_drills::report::Status;
use opsctl_drills::{PlanError, Report, Terms, Verdict};
use opsctl_platform::Platform as _;
use scene::{Scene, World};

/// A page whose status can be changed.
fn page() -> (String, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/shop", listener.local_addr().unwrap());
    let status = Arc::new(AtomicU16::new(200));
    let says = Arc::clone(&status);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let status = says.load(Ordering::SeqCst);
            let _ = write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
    });
    (url, status)
}

fn scene(condition: &str) -> Scene {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let scene = Scene::with_caller(World::default());
    let platform = scene.platform.as_ref().clone();
    let platform = platform.with_restart_delay("orders", Some(Duration::from_millis(200)));
    Scene {
        platform: Arc::new(platform),
        terms: Terms {
            steady_for: Duration::from_millis(500),
            duration: Duration::from_millis(500),
            recovery_within: Duration::from_secs(4),
            sample_every: Duration::from_millis(50),
            conditions: vec![condition.parse().unwrap()],
            ..scene.terms.clone()
        },
        ..scene
    }
}

async fn drilled(scene: &Scene) -> Report {
    let plan = plan(scene.platform.as_ref(), scene.terms.clone(), Down { unharmed: false }).await;
    scene.work(plan.unwrap().record("run-1", scene.platform.now())).await
}

#[tokio::test]
async fn a_page_that_answers_before_and_after_is_met() {
    let (url, _) = page();
    let report = drilled(&scene(&url)).await;
    assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.reasons);
    assert_eq!(report.conditions[0].asked, report.conditions[0].held);
    assert!(
        report
            .checks
            .iter()
            .any(|check| check.name == format!("steady ({url})"))
    );
    assert!(report.page().contains(&format!("steady ({url})")), "people see it, too");
}

#[tokio::test]
async fn a_page_that_fails_already_keeps_the_drill_from_being_done() {
    let (url, status) = page();
    status.store(503, Ordering::SeqCst);
    let scene = scene(&url);
    let report = drilled(&scene).await;
    assert_eq!(report.status, Status::NotSteady);
    assert!(report.reasons[0].contains("503"), "{:?}", report.reasons);
    assert_eq!(scene.platform.service("orders").await.unwrap().ready().count(), 2);
}

#[tokio::test]
async fn a_page_that_does_not_come_back_fails_the_drill() {
    let (url, status) = page();
    let scene = scene(&url);
    let journal = scene.journal.clone();
    let breaks = tokio::spawn(async move {
        scene::until(&journal, "effective").await;
        status.store(500, Ordering::SeqCst);
    });
    let report = drilled(&scene).await;
    breaks.await.unwrap();
    assert_eq!((report.status, report.verdict), (Status::Completed, Verdict::Fail));
    assert_eq!(report.recovery.recovered_seconds, None);
    assert!(
        report.reasons.iter().any(|reason| reason.starts_with("steady (")),
        "{:?}",
        report.reasons
    );
}

#[tokio::test]
async fn a_query_needs_a_prometheus() {
    let scene = scene("prom:sum(up) >= 1");
    let planned = plan(scene.platform.as_ref(), scene.terms.clone(), Down { unharmed: false }).await;
    assert!(matches!(planned, Err(PlanError::NoPrometheus)));
}
