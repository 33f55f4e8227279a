//! Every answer of a collector ends in the exact account, also those that never come; and two real receivers find the
//! figures under the names that are scraped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, number_data_point};
use peers::{Server, servers};
use prost::Message as _;
use tokio::time::Instant;

use super::{Push, Sink};
use crate::Metrics;
use crate::otlp::{OtlpSettings, Signal};
use crate::report::{DropReason, RejectReason, SinkCounts};

/// What the collector does with one request of so many points.
enum Reply {
    Take,
    TakeBut(i64),
    Status(u16, Option<&'static str>),
    Hang,
}

/// A collector that answers the n-th request by a script, and what it took.
struct Collector {
    endpoint: String,
    taken: Arc<Mutex<Vec<Metric>>>,
    requests: Arc<AtomicUsize>,
}

impl Collector {
    async fn start(script: impl Fn(usize, usize) -> Reply + Clone + Send + Sync + 'static) -> Self {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::new(AtomicUsize::new(0));
        let (keep, count) = (Arc::clone(&taken), Arc::clone(&requests));
        let take = move |body: Bytes| {
            let (script, keep) = (script.clone(), Arc::clone(&keep));
            let number = count.fetch_add(1, Ordering::SeqCst);
            async move {
                let metrics = metrics_of(&body);
                let rejected = match script(number, metrics.iter().map(points).sum()) {
                    Reply::Take => 0,
                    Reply::TakeBut(rejected) => rejected,
                    Reply::Hang => std::future::pending().await,
                    Reply::Status(status, after) => return refusal(status, after),
                };
                keep.lock().unwrap().extend(metrics);
                accepted(rejected)
            }
        };
        let app = axum::Router::new().route("/v1/metrics", axum::routing::post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            endpoint,
            taken,
            requests,
        }
    }
}

fn metrics_of(body: &[u8]) -> Vec<Metric> {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let of_resource = request.resource_metrics.into_iter();
    of_resource
        .flat_map(|resource| resource.scope_metrics)
        .flat_map(|scope| scope.metrics)
        .collect()
}

fn points(metric: &Metric) -> usize {
    match metric.data.as_ref().unwrap() {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        other => panic!("{other:?}"),
    }
}

fn accepted(rejected: i64) -> Response {
    let partial = ExportMetricsPartialSuccess {
        rejected_data_points: rejected,
        error_message: "too old".to_owned(),
    };
    let response = ExportMetricsServiceResponse {
        partial_success: (rejected > 0).then_some(partial),
    };
    response.encode_to_vec().into_response()
}

fn refusal(status: u16, after: Option<&'static str>) -> Response {
    let mut answer = StatusCode::from_u16(status).unwrap().into_response();
    if let Some(after) = after {
        answer
            .headers_mut()
            .insert("retry-after", HeaderValue::from_static(after));
    }
    answer
}

/// Ten counters and a histogram with an observation.
fn registry() -> Metrics {
    let metrics = Metrics::new();
    for number in 0..10 {
        let name = format!("policy-{number}");
        metrics
            .counter(catalogue::BULKHEAD_REJECTED_TOTAL, [&name])
            .inc_by(number);
    }
    metrics
        .histogram(catalogue::DB_POOL_WAIT_SECONDS, ["shop"])
        .observe(0.3);
    metrics
}

/// Points of [`registry`]: its own, the overflow's counter and the push's own durations.
const POINTS: u64 = 13;

fn start(endpoint: &str, metrics: &Metrics, interval: Duration) -> Arc<Push> {
    let mut settings = OtlpSettings::default();
    settings.all.endpoint = Some(endpoint.to_owned());
    let target = settings.target(Signal::Metrics).unwrap().unwrap();
    Arc::new(Push::start(target, &[("service.name", "shop")], interval, metrics).unwrap())
}

/// Closing blocks.
async fn close(push: &Arc<Push>, limit: Duration) -> SinkCounts {
    let push = Arc::clone(push);
    tokio::task::spawn_blocking(move || push.close(limit)).await.unwrap()
}

/// One push at the end, answered by the script.
async fn pushed(
    script: impl Fn(usize, usize) -> Reply + Clone + Send + Sync + 'static,
    limit: Duration,
) -> (SinkCounts, Collector) {
    let collector = Collector::start(script).await;
    let push = start(&collector.endpoint, &registry(), Duration::from_secs(3600));
    let counts = close(&push, limit).await;
    assert!(counts.is_exact(), "{counts:?}");
    assert_eq!(counts.emitted, POINTS);
    (counts, collector)
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_ends_in_the_account() {
    let (counts, collector) = pushed(|_, _| Reply::Take, 5 * SECOND).await;
    assert_eq!(counts.delivered, POINTS);
    assert_eq!(
        collector.taken.lock().unwrap().iter().map(points).sum::<usize>() as u64,
        POINTS
    );

    let (counts, _) = pushed(|_, _| Reply::TakeBut(4), 5 * SECOND).await;
    assert_eq!(
        (counts.delivered, counts.rejected_because(RejectReason::Partial)),
        (POINTS - 4, 4)
    );
    let (counts, _) = pushed(|_, _| Reply::TakeBut(1_000), 5 * SECOND).await;
    assert_eq!(counts.rejected, POINTS, "a collector that cannot count");

    for (status, reason) in [
        (400, RejectReason::BadRequest),
        (401, RejectReason::Unauthorized),
        (404, RejectReason::Refused),
    ] {
        let (counts, _) = pushed(move |_, _| Reply::Status(status, None), 5 * SECOND).await;
        assert_eq!(counts.rejected_because(reason), POINTS, "{status}");
    }

    let twice_busy = |number: usize, _| match number {
        0 => Reply::Status(503, None),
        1 => Reply::Status(429, Some("0")),
        _ => Reply::Take,
    };
    let (counts, collector) = pushed(twice_busy, 10 * SECOND).await;
    assert_eq!(
        (counts.delivered, collector.requests.load(Ordering::SeqCst)),
        (POINTS, 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_sent_in_parts() {
    let small = |_, points| {
        if points > 5 {
            Reply::Status(413, None)
        } else {
            Reply::Take
        }
    };
    let (counts, collector) = pushed(small, 5 * SECOND).await;
    // A metric is not taken apart: the ten counters are one.
    assert_eq!(
        (counts.delivered, counts.rejected_because(RejectReason::TooLarge)),
        (POINTS - 10, 10)
    );
    assert!(collector.requests.load(Ordering::SeqCst) > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_or_hangs_costs_the_limit_and_no_more() {
    let began = Instant::now();
    let (counts, _) = pushed(|_, _| Reply::Hang, SECOND / 2).await;
    assert_eq!(counts.dropped, POINTS, "{counts:?}");
    let (counts, _) = pushed(|_, _| Reply::Status(503, None), SECOND / 2).await;
    assert_eq!(counts.dropped, POINTS, "{counts:?}");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let push = start(&format!("http://{free}"), &registry(), Duration::from_secs(3600));
    let counts = close(&push, SECOND / 2).await;
    assert!(counts.is_exact());
    // The thread gives up a little before the end; whether it can say so in time is the machine's matter.
    let reasons = [DropReason::Unreachable, DropReason::Unanswered];
    let known: u64 = reasons.iter().map(|reason| counts.dropped_because(*reason)).sum();
    assert_eq!(known, POINTS, "{counts:?}");
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
    let again = close(&push, 60 * SECOND).await;
    assert_eq!(again, counts, "a second end changes nothing and does not wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_interval_says_all_that_a_lost_one_did() {
    let collector = Collector::start(|number, _| {
        if number == 1 {
            Reply::Status(400, None)
        } else {
            Reply::Take
        }
    })
    .await;
    let metrics = registry();
    let push = start(&collector.endpoint, &metrics, Duration::from_millis(100));
    let deadline = Instant::now() + 20 * SECOND;
    while collector.requests.load(Ordering::SeqCst) < 4 {
        metrics.counter(catalogue::BULKHEAD_REJECTED_TOTAL, ["policy-1"]).inc();
        assert!(Instant::now() < deadline, "no pushes");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counts = close(&push, 5 * SECOND).await;
    assert!(counts.is_exact() && counts.rejected == POINTS, "{counts:?}");
    let taken = collector.taken.lock().unwrap();
    let last = taken
        .iter()
        .rev()
        .find(|metric| metric.name == "bulkhead_rejected_total")
        .unwrap();
    let Some(Data::Sum(sum)) = &last.data else {
        panic!("{last:?}")
    };
    assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
    let total: i64 = sum
        .data_points
        .iter()
        .map(|point| match point.value {
            Some(number_data_point::Value::AsInt(count)) => count,
            ref other => panic!("{other:?}"),
        })
        .sum();
    let scraped: f64 = (0..10)
        .map(|number| {
            metrics
                .counter(catalogue::BULKHEAD_REJECTED_TOTAL, [&format!("policy-{number}")])
                .get()
        })
        .sum();
    assert_eq!(total, scraped as i64, "the last push has everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_pushes_now() {
    let collector = Collector::start(|_, _| Reply::Take).await;
    let push = start(&collector.endpoint, &registry(), Duration::from_secs(3600));
    let flushed = Arc::clone(&push);
    tokio::task::spawn_blocking(move || flushed.flush(5 * SECOND))
        .await
        .unwrap();
    assert_eq!(push.counts().delivered, POINTS);
    assert_eq!(close(&push, 5 * SECOND).await.delivered, 2 * POINTS);
}

/// Asks until the text holds what is wanted.
async fn until(text: impl AsyncFn() -> String, wanted: &str) {
    let deadline = Instant::now() + 20 * SECOND;
    loop {
        let seen = text().await;
        if seen.contains(wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "{wanted} is not in {seen}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_takes_them_over_both_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics.json");
    let configuration = format!(
        "exporters: {{file: {{path: '{}', flush_interval: 100ms}}}}\n\
         service: {{pipelines: {{metrics: {{receivers: [otlp], exporters: [file]}}}}}}",
        file.display()
    );
    let test = "a_real_collector_takes_them_over_both_protocols";
    let Some(collector) = Server::start(servers::Collector::new(configuration), test).await else {
        return;
    };
    for (port, protocol, value) in [
        ("http", crate::Protocol::HttpProtobuf, 7),
        ("grpc", crate::Protocol::Grpc, 8),
    ] {
        let metrics = registry();
        metrics
            .counter(catalogue::RATE_LIMIT_OVERFLOWED_TOTAL, ["seen"])
            .inc_by(value);
        let mut settings = OtlpSettings::default();
        settings.all.endpoint = Some(collector.url(port));
        settings.all.protocol = Some(protocol);
        let target = settings.target(Signal::Metrics).unwrap().unwrap();
        let push = Arc::new(Push::start(target, &[("service.name", "shop")], 3600 * SECOND, &metrics).unwrap());
        let counts = close(&push, 10 * SECOND).await;
        assert!(counts.is_exact() && counts.delivered == POINTS + 1, "{counts:?}");
        let written = async || std::fs::read_to_string(&file).unwrap_or_default();
        until(written, &format!("\"asInt\":\"{value}\"")).await;
        until(written, "db_pool_wait_seconds").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_has_them_under_the_names_that_are_scraped() {
    let test = "a_real_prometheus_has_them_under_the_names_that_are_scraped";
    let Some(prometheus) = Server::start(servers::Prometheus::default(), test).await else {
        return;
    };
    let metrics = registry();
    let mut settings = OtlpSettings::default();
    settings.metrics.endpoint = Some(format!("{}/api/v1/otlp/v1/metrics", prometheus.url("http")));
    let target = settings.target(Signal::Metrics).unwrap().unwrap();
    let push = Arc::new(Push::start(target, &[("service.name", "shop")], 3600 * SECOND, &metrics).unwrap());
    let counts = close(&push, 10 * SECOND).await;
    assert!(counts.is_exact() && counts.delivered == POINTS, "{counts:?}");
    for (query, value) in [
        ("bulkhead_rejected_total{name=\"policy-7\"}", "7"),
        ("db_pool_wait_seconds_bucket{pool=\"shop\",le=\"0.5\"}", "1"),
        ("db_pool_wait_seconds_count", "1"),
    ] {
        let path = format!("/api/v1/query?query={}", peers::http::encode(query));
        let ask = async || peers::http::get(prometheus.address("http"), &path).await.unwrap().body;
        until(ask, &format!(",\"{value}\"]")).await;
    }
}
