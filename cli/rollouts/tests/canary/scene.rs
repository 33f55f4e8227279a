//! A canary against the platform's twin in memory: clients, versions and clocks are simulated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opsctl_platform::memory::MemoryPlatform;
use opsctl_platform::run::{Cancel, Journal, Phase, Reason, Run, RunRecord};
use opsctl_platform::{LeaseHolder, Objectives, Platform, VersionSpec};
use opsctl_rollouts::{Options, Report, Spec, record, work};

use super::traffic;

pub(crate) const TTL: Duration = Duration::from_secs(15);

/// What the simulated clients and versions do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    pub(crate) requests_per_second: f64,
    pub(crate) canary_errors: f64,
    pub(crate) stable_errors: f64,
    /// Share of the granted weight that really arrives.
    pub(crate) honoured: f64,
}

impl World {
    pub(crate) fn with_errors(canary_errors: f64) -> Self {
        Self {
            requests_per_second: 200.0,
            canary_errors,
            stable_errors: 0.0,
            honoured: 1.0,
        }
    }
}

pub(crate) struct Scene {
    pub(crate) platform: Arc<MemoryPlatform>,
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) journal: Journal,
    pub(crate) spec: Spec,
    pub(crate) pid: u32,
}

pub(crate) fn objectives() -> Objectives {
    Objectives {
        availability_ratio: Some(0.99),
        latency_seconds: None,
        latency_ratio: None,
    }
}

pub(crate) fn v2() -> VersionSpec {
    VersionSpec {
        version: "v2".to_owned(),
        command: vec!["/bin/orders".to_owned()],
        image: None,
        env: BTreeMap::new(),
        replicas: 2,
    }
}

impl Scene {
    pub(crate) fn new(schedule: &str, world: World) -> Self {
        let world = Arc::new(Mutex::new(world));
        let shared = Arc::clone(&world);
        let mut counts: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        let mut last = 0.0;
        let platform = MemoryPlatform::new()
            .with_service("orders", "v1", 2)
            .with_objectives("orders", objectives())
            .with_traffic("orders", move |view| {
                let world = *shared.lock().unwrap();
                let now = view.elapsed.as_secs_f64();
                let all = world.requests_per_second * (now - last);
                last = now;
                let stable = view.service.stable_version.clone().unwrap();
                let mut rest = all;
                if let Some(weight) = &view.service.canary
                    && weight.version != stable
                {
                    let part = all * f64::from(weight.percent) / 100.0 * world.honoured;
                    rest -= part;
                    count(&mut counts, &weight.version, part, &world);
                }
                count(&mut counts, &stable, rest, &world);
                traffic::traffic(view.elapsed, &stable, &counts)
            });
        let spec = Spec::new("orders", "v1", v2(), schedule.parse().unwrap(), &objectives())
            .looking_every(Duration::from_secs(1));
        let spec = Spec {
            bake: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            ..spec
        };
        Self {
            platform: Arc::new(platform),
            world,
            journal: Journal::memory("run-1"),
            spec,
            pid: 100,
        }
    }

    pub(crate) fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    pub(crate) fn holder(&self) -> LeaseHolder {
        LeaseHolder {
            run: "run-1".to_owned(),
            host: "here".to_owned(),
            pid: self.pid,
            start_ticks: 1,
        }
    }

    pub(crate) async fn begin(&self) -> Run {
        let record = record("run-1", &self.spec, self.platform.now());
        Run::begin(self.platform(), record, self.holder(), TTL, self.journal.clone())
            .await
            .unwrap()
    }

    pub(crate) async fn take(&mut self) -> Run {
        self.platform.bury(self.pid);
        self.pid += 1;
        Run::take(self.platform(), "run-1", self.holder(), TTL, self.journal.clone())
            .await
            .unwrap()
    }

    pub(crate) async fn work(&self) -> Report {
        work(self.begin().await, Options::default()).await.unwrap()
    }

    pub(crate) async fn stored(&self) -> RunRecord {
        self.platform.record("run-1").await.unwrap().unwrap()
    }

    pub(crate) async fn report(&self) -> Report {
        Report::new(&self.stored().await, &self.journal.events().unwrap()).unwrap()
    }

    pub(crate) fn abort(&self, reason: Reason) -> Cancel {
        Cancel {
            by: "tester".to_owned(),
            at: self.platform.now(),
            reason,
        }
    }

    /// Polls until the journal has an event of this kind.
    pub(crate) async fn until(&self, kind: &str) {
        let wait = async {
            while !self.journal.events().unwrap().iter().any(|event| event.kind == kind) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let limit = Duration::from_hours(100);
        assert!(
            tokio::time::timeout(limit, wait).await.is_ok(),
            "no `{kind}`: {:#?}",
            self.kinds()
        );
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        let events = self.journal.events().unwrap();
        events
            .into_iter()
            .map(|event| event.kind)
            .filter(|kind| kind != "look")
            .collect()
    }

    /// Exactly one version, stable, no share, no lock, run closed.
    pub(crate) async fn assert_clean(&self) -> String {
        let state = self.platform.service("orders").await.unwrap();
        assert_eq!(state.canary, None);
        let versions: Vec<String> = state.versions.iter().map(|v| v.version.clone()).collect();
        let stable = state.stable_version.unwrap();
        assert_eq!(versions, std::slice::from_ref(&stable), "events: {:#?}", self.kinds());
        assert!(state.instances.iter().all(|instance| instance.version == stable));
        assert_eq!(state.replicas, 2);
        assert_eq!(self.platform.lease("service-orders").await.unwrap(), None);
        assert_eq!(self.stored().await.phase, Phase::Closed);
        stable
    }
}

pub(crate) fn count(counts: &mut BTreeMap<String, (f64, f64)>, version: &str, requests: f64, world: &World) {
    let errors = if version == "v2" {
        world.canary_errors
    } else {
        world.stable_errors
    };
    let entry = counts.entry(version.to_owned()).or_default();
    entry.0 += requests;
    entry.1 += requests * errors;
}
