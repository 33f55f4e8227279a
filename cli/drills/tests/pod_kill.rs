//! The pod-kill drill against the platform's twin in memory, on a paused clock; and once with a real probe over a socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opsctl_drills::kinds::pod_kill::{Kill, Plan, plan};
use opsctl_drills::kinds::work;
use opsctl_drills::probe::ProbeSpec;
use opsctl_drills::report::Status;
use opsctl_drills::{PlanError, Report, Spec, Terms, Verdict, With, WorkError};
use opsctl_platform::memory::MemoryPlatform;
use opsctl_platform::run::{Cancel, Journal, Outcome, Phase, Reason, Recovered, Run, recover, request_cancel};
use opsctl_platform::{Counts, LeaseHolder, Objectives, Platform, Traffic, VersionTraffic};

const TTL: Duration = Duration::from_secs(15);

/// What clients do and see: requests a second, and the share of them that fails while not all instances are ready.
#[derive(Debug, Clone, Copy)]
struct World {
    rate: f64,
    errors_when_short: f64,
    errors_always: f64,
}

struct Scene {
    platform: Arc<MemoryPlatform>,
    world: Arc<Mutex<World>>,
    journal: Journal,
    spec: Spec<Kill>,
}

impl Scene {
    fn new(replicas: u32, errors_when_short: f64) -> Self {
        let world = Arc::new(Mutex::new(World {
            rate: 200.0,
            errors_when_short,
            errors_always: 0.0,
        }));
        let shared = Arc::clone(&world);
        let (mut requests, mut errors, mut last) = (0.0, 0.0, 0.0);
        let platform = MemoryPlatform::new()
            .with_service("orders", "v1", replicas)
            .with_objectives(
                "orders",
                Objectives {
                    availability_ratio: Some(0.99),
                    latency_seconds: Some(0.3),
                    latency_ratio: Some(0.95),
                },
            )
            .with_restart_delay("orders", Some(Duration::from_secs(2)))
            .with_traffic("orders", move |view| {
                let world = *shared.lock().unwrap();
                let now = view.elapsed.as_secs_f64();
                let new = world.rate * (now - last);
                last = now;
                requests += new;
                let short = view.service.ready().count() < view.service.replicas as usize;
                let ratio = world.errors_always + if short { world.errors_when_short } else { 0.0 };
                errors += new * ratio;
                traffic(view.elapsed, requests as u64, errors as u64)
            });
        Self {
            platform: Arc::new(platform),
            world,
            journal: Journal::memory("run-1"),
            spec: Spec {
                terms: Terms {
                    send_probe: false,
                    duration: Duration::from_secs(10),
                    recovery_within: Duration::from_secs(20),
                    ..Terms::new("orders")
                },
                fault: Kill::new(1),
            },
        }
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    async fn plan(&self) -> Result<Plan, PlanError> {
        let Spec { terms, fault } = self.spec.clone();
        plan(self.platform.as_ref(), terms, fault).await
    }

    fn holder() -> LeaseHolder {
        LeaseHolder {
            run: "run-1".to_owned(),
            host: "here".to_owned(),
            pid: 100,
            start_ticks: 1,
        }
    }

    async fn begin(&self) -> Run {
        let planned = self.plan().await.unwrap();
        let record = planned.record("run-1", self.platform.now());
        Run::begin(self.platform(), record, Self::holder(), TTL, self.journal.clone())
            .await
            .unwrap()
    }

    async fn work(&self) -> Report {
        work(self.begin().await, With::default()).await.unwrap()
    }

    async fn outcome(&self) -> Option<Outcome> {
        let record = self.platform.record("run-1").await.unwrap().unwrap();
        assert_eq!(record.phase, Phase::Closed);
        assert_eq!(self.platform.lease("service-orders").await.unwrap(), None);
        record.outcome
    }

    async fn until(&self, kind: &str) {
        let wait = async {
            while !self.journal.events().unwrap().iter().any(|event| event.kind == kind) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(5), wait).await.unwrap();
    }
}

fn traffic(elapsed: Duration, requests: u64, errors: u64) -> Traffic {
    Traffic {
        at: jiff::Timestamp::UNIX_EPOCH + elapsed,
        boot_id: "boot".to_owned(),
        stable_version: Some("v1".to_owned()),
        versions: vec![VersionTraffic {
            version: "v1".to_owned(),
            counts: Counts {
                requests,
                errors,
                ..Counts::default()
            },
        }],
        instances: Vec::new(),
        held_rejections: 0,
        unrouted_errors: 0,
        probe_held_rejections: 0,
        probe_unrouted_errors: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_loses_an_instance_without_errors_passes() {
    let scene = Scene::new(2, 0.0);
    let report = scene.work().await;
    assert_eq!(
        (report.status, report.verdict),
        (Status::Completed, Verdict::Pass),
        "{:?}",
        report.reasons
    );
    assert_eq!(report.killed.len(), 1);
    let seconds = report.recovery.time_to_recovery_seconds.unwrap();
    assert!((1.7..2.6).contains(&seconds), "restarts take two seconds: {seconds}");
    assert!((5.0..5.5).contains(&report.injected_seconds.unwrap()));
    assert!(report.clients.requests > 1900 && report.steady_clients.requests > 900);
    assert_eq!(scene.outcome().await, Some(Outcome::Passed));
    let state = scene.platform.service("orders").await.unwrap();
    assert_eq!(
        state.instances.iter().map(|i| i.restarts).sum::<u32>(),
        1,
        "exactly one was killed"
    );
}

#[tokio::test(start_paused = true)]
async fn errors_over_the_objective_fail_the_drill() {
    let scene = Scene::new(2, 0.5);
    let report = scene.work().await;
    assert_eq!((report.status, report.verdict), (Status::Completed, Verdict::Fail));
    assert!(
        report.reasons[0].starts_with("availability (clients): 90"),
        "{:?}",
        report.reasons
    );
    assert!(report.recovery.time_to_recovery_seconds.is_some());
    assert_eq!(scene.outcome().await, Some(Outcome::Failed));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_does_not_come_back_fails_the_drill() {
    let scene = Scene::new(3, 0.0);
    let never = scene.platform.as_ref().clone();
    let platform = never.with_restart_delay("orders", None);
    let scene = Scene {
        platform: Arc::new(platform),
        ..scene
    };
    let report = scene.work().await;
    assert_eq!(report.verdict, Verdict::Fail);
    assert_eq!(report.recovery.time_to_recovery_seconds, None);
    assert!(
        report.elapsed_seconds > 24.0,
        "the whole recovery window: {}",
        report.elapsed_seconds
    );
    assert!(
        report.reasons.iter().any(|r| r.contains("not recovered")),
        "{:?}",
        report.reasons
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_sends_anything_is_inconclusive_and_nothing_is_killed() {
    let scene = Scene::new(2, 0.0);
    scene.world.lock().unwrap().rate = 0.0;
    let report = scene.work().await;
    assert_eq!(
        (report.status, report.verdict),
        (Status::NotSteady, Verdict::Inconclusive)
    );
    assert!(report.killed.is_empty());
    assert_eq!(scene.outcome().await, Some(Outcome::Inconclusive));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_failing_already_is_left_alone() {
    let scene = Scene::new(2, 0.0);
    scene.world.lock().unwrap().errors_always = 0.2;
    let report = scene.work().await;
    assert_eq!(
        (report.status, report.verdict),
        (Status::NotSteady, Verdict::Inconclusive)
    );
    assert!(report.reasons[0].contains("availability"), "{:?}", report.reasons);
    let state = scene.platform.service("orders").await.unwrap();
    assert!(state.instances.iter().all(|instance| instance.restarts == 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_ready_instance_is_never_taken() {
    let scene = Scene::new(1, 0.0);
    assert!(matches!(
        scene.plan().await,
        Err(PlanError::LastInstance { ready: 1, count: 1, .. })
    ));
    let mut scene = Scene::new(2, 0.0);
    scene.spec.fault.count = 2;
    let error = scene.plan().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`orders` has 2 ready instances: killing 2 would leave none"
    );
    scene.spec.fault.count = 0;
    assert!(matches!(scene.plan().await, Err(PlanError::NoneToKill)));
    scene.spec.fault.count = 1;
    scene.platform.crash_instance("orders", "orders-1");
    assert!(matches!(
        scene.plan().await,
        Err(PlanError::LastInstance { ready: 1, .. })
    ));
    assert!(scene.platform.records().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_guard_holds_also_when_the_plan_has_become_old() {
    let scene = Scene::new(2, 0.0);
    let run = scene.begin().await;
    let planned: Spec<Kill> = serde_json::from_value(run.record().spec.clone()).unwrap();
    let other = if planned.fault.victims[0].instance == "orders-1" {
        "orders-2"
    } else {
        "orders-1"
    };
    let running = tokio::spawn(work(run, With::default()));
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.platform.crash_instance("orders", other);
    let report = running.await.unwrap().unwrap();
    assert_eq!(report.verdict, Verdict::Inconclusive);
    assert!(report.killed.is_empty(), "{:?}", report.status);
}

#[tokio::test(start_paused = true)]
async fn a_victim_that_was_replaced_is_not_killed_in_its_place() {
    let mut scene = Scene::new(3, 0.0);
    scene.spec.terms.steady_for = Duration::from_secs(20);
    let run = scene.begin().await;
    let planned: Spec<Kill> = serde_json::from_value(run.record().spec.clone()).unwrap();
    let running = tokio::spawn(work(run, With::default()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene
        .platform
        .crash_instance("orders", &planned.fault.victims[0].instance);
    let report = running.await.unwrap().unwrap();
    assert_eq!(
        (report.status, report.killed.len()),
        (Status::Refused, 0),
        "{:?}",
        report.reasons
    );
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_it_and_a_report_says_what_was_seen() {
    for kind in ["run_taken", "killed"] {
        let scene = Scene::new(2, 0.0);
        let running = tokio::spawn(work(scene.begin().await, With::default()));
        scene.until(kind).await;
        let cancel = Cancel {
            by: "tester".to_owned(),
            at: scene.platform.now(),
            reason: Reason::Interrupt,
        };
        request_cancel(scene.platform.as_ref(), "run-1", cancel).await.unwrap();
        let report = running.await.unwrap().unwrap();
        assert_eq!(
            (report.status, report.verdict),
            (Status::Aborted, Verdict::Inconclusive)
        );
        assert_eq!(scene.outcome().await, Some(Outcome::Aborted));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_lost_after_any_change_leaves_a_whole_service_and_no_lock() {
    let mut places = 0;
    for changes in 0.. {
        let scene = Scene::new(2, 0.0);
        let run = scene.begin().await;
        scene.platform.crash_after(Some(changes));
        let worked = work(run, With::default()).await;
        scene.platform.crash_after(None);
        if worked.is_ok() {
            break;
        }
        assert!(matches!(worked, Err(WorkError::Run(_))), "{worked:?}");
        places += 1;
        scene.platform.bury(100);
        match recover(scene.platform.as_ref(), "run-1", &scene.journal).await.unwrap() {
            Recovered::Closed { report, .. } => assert!(report.complete()),
            Recovered::Nothing => {}
            Recovered::Running(_) => panic!("its worker is dead"),
        }
        let _ = scene.platform.release_lease("service-orders", &Scene::holder()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let state = scene.platform.service("orders").await.unwrap();
        assert_eq!(state.ready().count(), 2);
        assert!(state.instances.iter().map(|i| i.restarts).sum::<u32>() <= 1);
        scene.outcome().await;
    }
    assert!(places >= 5, "{places}");
}

#[tokio::test(start_paused = true)]
async fn a_drill_whose_worker_was_lost_is_not_done_again() {
    let scene = Scene::new(3, 0.0);
    let running = tokio::spawn(work(scene.begin().await, With::default()));
    scene.until("killed").await;
    running.abort();
    let _ = running.await;
    scene.platform.bury(100);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let second = LeaseHolder {
        pid: 101,
        ..Scene::holder()
    };
    let run = Run::take(scene.platform(), "run-1", second, TTL, scene.journal.clone())
        .await
        .unwrap();
    let report = work(run, With::default()).await.unwrap();
    assert_eq!((report.status, report.verdict), (Status::Lost, Verdict::Inconclusive));
    let state = scene.platform.service("orders").await.unwrap();
    assert_eq!(
        state.instances.iter().map(|i| i.restarts).sum::<u32>(),
        1,
        "killed once"
    );
    assert_eq!(scene.outcome().await, Some(Outcome::Inconclusive));
}

#[tokio::test(start_paused = true)]
async fn a_record_keeps_the_victims_by_name() {
    let scene = Scene::new(3, 0.0);
    let planned = scene.plan().await.unwrap();
    assert_eq!((planned.ready, planned.ready_after), (3, 2));
    let json = serde_json::to_value(&planned).unwrap();
    assert_eq!(json["schema"], "opsctl.drill-plan/v1");
    assert!(json["spec"]["victims"][0]["uid"].is_string());
    let read: Spec<Kill> = serde_json::from_value(json["spec"].clone()).unwrap();
    assert_eq!(read, planned.spec);
}

#[tokio::test(start_paused = true)]
async fn a_share_and_labels_choose_among_the_ready_instances() {
    let mut scene = Scene::new(5, 0.0);
    scene.spec.fault.percent = Some(50);
    let planned = scene.plan().await.unwrap();
    assert_eq!((planned.spec.fault.count, planned.ready_after), (2, 3));
    assert_eq!(planned.mutations.len(), 2);
    scene.spec.fault.percent = Some(1);
    assert_eq!(scene.plan().await.unwrap().spec.fault.count, 1);
    scene.spec.fault.selector = BTreeMap::from([("instance".to_owned(), "orders-3".to_owned())]);
    let mut planned = scene.plan().await.unwrap();
    assert_eq!(planned.spec.fault.victims[0].instance, "orders-3");
    planned.rehearse(scene.platform.as_ref()).await;
    assert_eq!(planned.mutations[0].accepted, Some(true));
    scene.spec.fault.selector.insert("version".to_owned(), "v2".to_owned());
    assert!(matches!(scene.plan().await, Err(PlanError::NoneMatch { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_report_is_a_document_rows_and_a_page() {
    let scene = Scene::new(2, 0.5);
    let report = scene.work().await;
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.starts_with("{\"schema\":\"opsctl.drill/v1\""));
    let again: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(again.verdict, report.verdict);
    let rows: BTreeMap<String, String> = report.rows().into_iter().collect();
    assert_eq!(rows["verdict"], "fail");
    assert!(rows["time to recovery"].contains('±'), "{rows:?}");
    let page = report.page();
    assert!(page.contains("<svg") && page.contains("not met") && !page.contains("<script"));
}

/// Answers every request on a loopback port with 200 until it is dropped; gives the port and counts.
fn server() -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let probes = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&probes);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                let Ok(mut stream) = stream else { return };
                let mut text = Vec::new();
                let mut chunk = [0; 2048];
                while let Ok(n) = stream.read(&mut chunk) {
                    if n == 0 {
                        return;
                    }
                    text.extend_from_slice(&chunk[..n]);
                    if text.ends_with(b"\r\n\r\n") {
                        let request = String::from_utf8_lossy(&text).to_lowercase();
                        counted.fetch_add(u32::from(request.contains("x-opsctl-probe: run-1")), Ordering::SeqCst);
                        text.clear();
                        if stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                            .is_err()
                        {
                            return;
                        }
                    }
                }
            });
        }
    });
    (port, probes)
}

#[tokio::test]
async fn the_probe_is_sent_and_counted_apart() {
    let (port, probes) = server();
    let mut scene = Scene::new(2, 0.0);
    scene.world.lock().unwrap().rate = 0.0;
    let platform = scene.platform.as_ref().clone();
    scene.platform = Arc::new(platform.with_restart_delay("orders", Some(Duration::from_millis(200))));
    scene.spec.terms = Terms {
        send_probe: true,
        probe: Some(ProbeSpec {
            url: format!("http://127.0.0.1:{port}/health/ready"),
            host: None,
            rate: "200/s".to_owned(),
        }),
        steady_for: Duration::from_millis(300),
        duration: Duration::from_millis(500),
        sample_every: Duration::from_millis(50),
        ..scene.spec.terms
    };
    let report = scene.work().await;
    assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.reasons);
    assert_eq!(report.clients.requests, 0);
    assert!(report.probe_figures.requests > 20, "{:?}", report.probe_figures);
    let probe = report.probe.unwrap();
    assert_eq!(probe.failed, 0, "{probe:?}");
    assert!(probes.load(Ordering::SeqCst) >= report.probe_figures.requests as u32);
}
