//! The counting against a real Prometheus that scrapes pods which a test plays.

use std::fmt::Write as _;
use std::time::Duration;

use peers::{Server, servers};
use tokio::time::Instant;

use super::*;
use crate::{Addresses, Health, Instance, InstanceState, Objectives};

#[path = "../../../tests/prometheus/exporter.rs"]
mod exporter;
use exporter::Exporter;

const PODS: [(&str, &str); 3] = [
    ("orders-7d9-a", "v1"),
    ("orders-7d9-b", "v1"),
    ("orders-canary-5c4-a", "v2"),
];

fn orders(objective: f64) -> Workload {
    Workload {
        name: "orders".to_owned(),
        namespace: "shop".to_owned(),
        deployment: "orders".to_owned(),
        service: "orders".to_owned(),
        objectives: Objectives {
            latency_seconds: Some(objective),
            latency_ratio: Some(0.95),
            ..Objectives::default()
        },
        ..Workload::default()
    }
}

fn state() -> ServiceState {
    let instance = |(id, version): (&str, &str)| Instance {
        id: id.to_owned(),
        uid: id.to_owned(),
        service: "orders".to_owned(),
        version: version.to_owned(),
        ready: true,
        state: InstanceState::Ready,
        started_at: Some("2026-03-14T09:26:53Z".parse().unwrap()),
        restarts: 0,
        pid: None,
        addresses: Addresses::default(),
        last_exit: None,
        last_end: None,
        labels: std::collections::BTreeMap::new(),
    };
    ServiceState {
        name: "orders".to_owned(),
        stable_version: Some("v1".to_owned()),
        replicas: 2,
        versions: Vec::new(),
        instances: PODS.map(instance).to_vec(),
        canary: None,
        hold: None,
        objectives: Objectives::default(),
        front: Addresses::default(),
        health: Health::default(),
        probe: None,
        depends_on: Vec::new(),
        revision: 1,
    }
}

/// The page of a service of ours: requests that went well, of them within 0.3 s, and requests that failed.
fn page(good: u32, fast: u32, failed: u32) -> String {
    let series = |code: u32, count: u32, fast: u32| {
        let labels =
            format!("http_request_method=\"GET\",http_route=\"/orders/{{id}}\",http_response_status_code=\"{code}\"");
        format!(
            "http_server_request_duration_seconds_bucket{{{labels},le=\"0.25\"}} 0\n\
             http_server_request_duration_seconds_bucket{{{labels},le=\"0.3\"}} {fast}\n\
             http_server_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}\n\
             http_server_request_duration_seconds_sum{{{labels}}} 1\n\
             http_server_request_duration_seconds_count{{{labels}}} {count}\n"
        )
    };
    let mut text = "# TYPE http_server_request_duration_seconds histogram\n".to_owned();
    text += &series(200, good, fast);
    if failed > 0 {
        text += &series(500, failed, failed);
    }
    // The kubelet's questions are no traffic.
    text + "http_server_request_duration_seconds_count{http_route=\"/health/ready\",http_response_status_code=\"200\"} 999\n"
        + "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 3\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 4096\n"
}

fn configuration(pods: &[Exporter]) -> String {
    let mut text =
        "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: pods\n    static_configs:\n".to_owned();
    for ((pod, version), exporter) in PODS.iter().zip(pods) {
        let address = exporter.address;
        let labels = format!("{{namespace: shop, pod: {pod}, version: {version}}}");
        writeln!(text, "      - targets: [\"{address}\"]\n        labels: {labels}").expect("memory takes it");
    }
    text
}

struct Scene {
    pods: Vec<Exporter>,
    server: Server,
    prometheus: Prometheus,
    count: Count,
}

impl Scene {
    async fn start(test: &str, folder: &tempfile::TempDir) -> Option<Self> {
        let mut pods = Vec::new();
        for _ in PODS {
            pods.push(Exporter::start(&page(100, 100, 0)).await);
        }
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, configuration(&pods)).unwrap();
        let server = Server::start(servers::Prometheus::default().configuration(file), test).await?;
        let prometheus = Prometheus::new(&server.url("http"), Access::Open, None).unwrap();
        Some(Self {
            pods,
            server,
            prometheus,
            count: Count::default(),
        })
    }

    /// Looks until `done` says so of the answer.
    async fn until(&mut self, objective: f64, what: &str, done: impl Fn(&Result<Traffic>) -> bool) -> Result<Traffic> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let looked = self
                .count
                .look(&self.prometheus, &orders(objective), &state(), &Backends::default())
                .await;
            let looked = looked.map(|()| self.count.traffic(&state(), Timestamp::UNIX_EPOCH));
            if done(&looked) {
                return looked;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: {looked:?}\n{}",
                self.server.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Pods are found one after another.
fn has_all(looked: &Result<Traffic>) -> bool {
    looked
        .as_ref()
        .is_ok_and(|traffic| traffic.instances.len() == PODS.len())
}

fn counts(traffic: &Traffic, version: &str) -> (u64, u64, u64) {
    let counts = traffic.version(version);
    (counts.requests, counts.errors, counts.over_objective)
}

#[tokio::test]
async fn counters_of_pods_become_sums_of_versions() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut scene) = Scene::start("counters_of_pods_become_sums_of_versions", &folder).await else {
        return;
    };
    let first = scene.until(0.3, "a look at all pods", has_all).await.unwrap();
    assert_eq!(
        (counts(&first, "v1"), counts(&first, "v2")),
        ((0, 0, 0), (0, 0, 0)),
        "the past is not counted"
    );

    // 20 more at each stable pod, one of them too slow; 10 more at the canary, and its first two errors.
    scene.pods[0].set(&page(120, 119, 0));
    scene.pods[1].set(&page(120, 120, 0));
    scene.pods[2].set(&page(110, 110, 2));
    let is = |v1, v2| {
        move |looked: &Result<Traffic>| {
            looked
                .as_ref()
                .is_ok_and(|traffic| counts(traffic, "v1") == v1 && counts(traffic, "v2") == v2)
        }
    };
    let traffic = scene.until(0.3, "the rise", is((40, 0, 1), (12, 2, 0))).await.unwrap();
    assert_eq!(traffic.boot_id, first.boot_id);
    let of_pod = traffic
        .instances
        .iter()
        .find(|one| one.instance == "orders-7d9-a")
        .unwrap();
    assert_eq!((of_pod.counts.requests, of_pod.counts.over_objective), (20, 1));

    // The canary's process restarts: what it counts is new.
    scene.pods[2].set(&page(5, 3, 0));
    scene
        .until(0.3, "the restart", is((40, 0, 1), (17, 2, 2)))
        .await
        .unwrap();

    // Nothing rises any more: the canary counts as idle.
    let idle = |looked: &Result<Traffic>| {
        looked
            .as_ref()
            .is_ok_and(|traffic| traffic.version("v2").in_flight == 0)
    };
    scene.until(0.3, "the end of its traffic", idle).await.unwrap();

    // A pod that is not scraped is no pod without requests.
    let gone = scene.pods.pop().unwrap();
    drop(gone);
    let missing = |looked: &Result<Traffic>| matches!(looked, Err(PlatformError::NoTraffic { why, .. }) if why.contains("1 of 1 pods of version v2"));
    let error = scene.until(0.3, "the lost pod", missing).await.unwrap_err();
    assert!(error.to_string().contains("orders-canary-5c4-a"), "{error}");

    scene.server.kill();
    let unreachable = |looked: &Result<Traffic>| matches!(looked, Err(PlatformError::NoTraffic { why, .. }) if why.contains("cannot be reached"));
    scene.until(0.3, "the lost Prometheus", unreachable).await.unwrap_err();
}

#[tokio::test]
async fn an_objective_that_is_no_bound_of_the_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut scene) = Scene::start("an_objective_that_is_no_bound_of_the_data_is_refused", &folder).await else {
        return;
    };
    let refused = |looked: &Result<Traffic>| matches!(looked, Err(PlatformError::Refused { .. }));
    let error = scene.until(0.28, "the refusal", refused).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the nearest are 0.25 s and 0.3 s"), "{text}");
    // The same Prometheus counts it where it can.
    scene.until(0.3, "a look at all pods", has_all).await.unwrap();

    // Without cAdvisor the processes' own figures tell what a pod uses.
    let memory = scene
        .prometheus
        .query(&source::memory_query(&orders(0.3)))
        .await
        .unwrap();
    let pods: Vec<_> = memory
        .series
        .iter()
        .map(|series| (series.label("pod"), series.samples[0].value))
        .collect();
    assert_eq!(pods.len(), 3);
    assert!(pods.contains(&("orders-canary-5c4-a", Some(4096.0))), "{pods:?}");
    let cpu = scene
        .prometheus
        .query(&source::cpu_query(&orders(0.3), "1m"))
        .await
        .unwrap();
    assert!(cpu.complete().is_ok());
}
