//! A service `orders` with two instances and a service `caller` that depends on it, on the platform's twin in memory; and
//! the worker of a drill, to be carried through, aborted and lost.

#![allow(dead_code, reason = "each test file uses its part")]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opsctl_drills::kinds::work;
use opsctl_drills::{Report, Terms, With, WorkError};
use opsctl_platform::memory::{MemoryPlatform, TrafficView};
use opsctl_platform::run::{
    Cancel, Journal, Outcome, Phase, Reason, Recovered, Run, RunRecord, recover, request_cancel,
};
use opsctl_platform::{Counts, LeaseHolder, Platform, Traffic, VersionTraffic};

const TTL: Duration = Duration::from_secs(15);

/// What clients do and see.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Requests a second to each service.
    pub rate: f64,
    /// The share of requests to `caller` that fails while `orders` has no instance.
    pub caller_errors_without: f64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            rate: 200.0,
            caller_errors_without: 0.0,
        }
    }
}

pub struct Scene {
    pub platform: Arc<MemoryPlatform>,
    pub world: Arc<Mutex<World>>,
    pub journal: Journal,
    pub terms: Terms,
}

impl Scene {
    pub fn with_caller(world: World) -> Self {
        let world = Arc::new(Mutex::new(world));
        let down = Arc::new(Mutex::new(false));
        let (told, heard) = (Arc::clone(&down), down);
        let (rate, shared) = (Arc::clone(&world), Arc::clone(&world));
        let platform = MemoryPlatform::new()
            .with_service("orders", "v1", 2)
            .with_service("caller", "v1", 2)
            .with_dependencies("caller", &["orders"])
            .with_restart_delay("orders", Some(Duration::from_secs(2)))
            .with_traffic(
                "orders",
                counting(move |view| {
                    let none = view.service.ready().count() == 0;
                    *told.lock().unwrap() = none;
                    (rate.lock().unwrap().rate, if none { 1.0 } else { 0.0 })
                }),
            )
            .with_traffic(
                "caller",
                counting(move |_| {
                    let world = *shared.lock().unwrap();
                    let down = *heard.lock().unwrap();
                    (world.rate, if down { world.caller_errors_without } else { 0.0 })
                }),
            );
        Self {
            platform: Arc::new(platform),
            world,
            journal: Journal::memory("run-1"),
            terms: Terms {
                send_probe: false,
                duration: Duration::from_secs(10),
                recovery_within: Duration::from_secs(20),
                ..Terms::new("orders")
            },
        }
    }

    pub async fn begin(&self, record: RunRecord) -> Run {
        let platform = Arc::clone(&self.platform) as Arc<dyn Platform>;
        Run::begin(platform, record, holder(), TTL, self.journal.clone())
            .await
            .unwrap()
    }

    pub async fn work(&self, record: RunRecord) -> Report {
        work(self.begin(record).await, With::default()).await.unwrap()
    }

    pub async fn work_in_background(
        &self,
        record: RunRecord,
    ) -> impl Future<Output = Result<Report, WorkError>> + Send + 'static {
        work(self.begin(record).await, With::default())
    }
}

pub fn holder() -> LeaseHolder {
    LeaseHolder {
        run: "run-1".to_owned(),
        host: "here".to_owned(),
        pid: 100,
        start_ticks: 1,
    }
}

/// How the run ended; it is over, and its lock is free.
pub async fn outcome(platform: &MemoryPlatform) -> Option<Outcome> {
    let record = platform.record("run-1").await.unwrap().unwrap();
    assert_eq!(record.phase, Phase::Closed);
    assert_eq!(platform.lease("service-orders").await.unwrap(), None);
    record.outcome
}

pub async fn abort(platform: &MemoryPlatform) {
    let cancel = Cancel {
        by: "tester".to_owned(),
        at: platform.now(),
        reason: Reason::Interrupt,
    };
    request_cancel(platform, "run-1", cancel).await.unwrap();
}

/// Waits for an event of the journal.
pub async fn until(journal: &Journal, kind: &str) {
    let wait = async {
        while !journal.events().unwrap().iter().any(|event| event.kind == kind) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), wait).await.unwrap();
}

/// Loses the worker after its first change, its second, and so on until it gets through; each time `recover` has to
/// leave no undo step, no lock, and as many instances as before. How many places there were.
pub async fn lose_the_worker_everywhere<F: Future<Output = (Scene, RunRecord)>>(make: impl Fn() -> F) -> u32 {
    for changes in 0.. {
        let (scene, record) = make().await;
        let platform = &scene.platform;
        let run = scene.begin(record).await;
        platform.crash_after(Some(changes));
        let worked = work(run, With::default()).await;
        platform.crash_after(None);
        if worked.is_ok() {
            return changes;
        }
        assert!(matches!(worked, Err(WorkError::Run(_))), "{worked:?}");
        platform.bury(100);
        match recover(platform.as_ref(), "run-1", &scene.journal).await.unwrap() {
            Recovered::Closed { report, .. } => assert!(report.complete(), "{report:?}"),
            Recovered::Nothing => {}
            Recovered::Running(_) => panic!("its worker is dead"),
        }
        let _ = platform.release_lease("service-orders", &holder()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let state = platform.service("orders").await.unwrap();
        assert!(
            state.settled() && state.hold.is_none(),
            "after {changes} changes: {state:?}"
        );
        outcome(platform).await;
    }
    unreachable!("it gets through at last")
}

/// Counters that grow by what `ask` says: requests a second, and the share of errors among them.
fn counting(
    ask: impl Fn(&TrafficView) -> (f64, f64) + Send + 'static,
) -> impl FnMut(&TrafficView) -> Traffic + Send + 'static {
    let (mut requests, mut errors, mut last) = (0.0, 0.0, 0.0);
    move |view| {
        let (rate, ratio) = ask(view);
        let now = view.elapsed.as_secs_f64();
        let new = rate * (now - last);
        last = now;
        requests += new;
        errors += new * ratio;
        traffic(view.elapsed, requests as u64, errors as u64)
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
