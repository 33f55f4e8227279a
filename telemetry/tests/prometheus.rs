//! The metrics before real judges: promtool's lint, and a Prometheus that scrapes them and gives the exemplar back.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::body::Body;
use http::Request;
use peers::{Server, http as ask, servers};
use telemetry::{Metrics, Telemetry, catalogue};
use tokio::time::Instant;
use tower::ServiceExt as _;

/// A registry with a series of every metric.
fn everything() -> Metrics {
    let metrics = Metrics::new();
    macro_rules! touch {
        ($($kind:ident $handle:ident [$($value:expr),*];)*) => {
            $(metrics.$kind(catalogue::$handle, [$($value),*]);)*
        };
    }
    touch! {
        histogram HTTP_SERVER_REQUEST_DURATION_SECONDS ["GET", "/orders/{id}", "200"];
        counter GRPC_SERVER_STARTED_TOTAL ["unary", "shop.Orders", "Create"];
        counter GRPC_SERVER_HANDLED_TOTAL ["unary", "shop.Orders", "Create", "OK"];
        histogram GRPC_SERVER_HANDLING_SECONDS ["unary", "shop.Orders", "Create"];
        histogram HTTP_CLIENT_REQUEST_DURATION_SECONDS ["GET", "localhost", "200", ""];
        counter GRPC_CLIENT_HANDLED_TOTAL ["unary", "shop.Orders", "Create", "OK"];
        histogram DB_CLIENT_OPERATION_DURATION_SECONDS ["sqlite", "INSERT", "orders", ""];
        gauge DB_POOL_CONNECTIONS ["shop", "used"];
        gauge DB_POOL_CONNECTIONS_MAX ["shop"];
        gauge DB_POOL_WAITERS ["shop"];
        histogram DB_POOL_WAIT_SECONDS ["shop"];
        counter DB_POOL_TIMEOUTS_TOTAL ["shop"];
        gauge CIRCUIT_BREAKER_STATE ["payments", "open"];
        counter CIRCUIT_BREAKER_CALLS_TOTAL ["payments", "success"];
        gauge CIRCUIT_BREAKER_FAILURE_RATIO ["payments"];
        counter RETRY_ATTEMPTS_TOTAL ["payments", "timeout"];
        gauge HEALTH_STATUS ["ready"];
        gauge HEALTH_CHECK_UP ["disk"];
        gauge HEALTH_CHECK_DURATION_SECONDS ["disk"];
        gauge HEALTH_CHECK_LAST_SUCCESS_TIMESTAMP_SECONDS ["disk"];
        counter HEALTH_TRANSITIONS_TOTAL ["disk", "fail"];
        counter TELEMETRY_LOG_LINES_TOTAL ["INFO"];
        counter TELEMETRY_EMITTED_TOTAL ["loki"];
        counter TELEMETRY_REJECTED_TOTAL ["loki", "too_old"];
        counter TELEMETRY_DROPPED_TOTAL ["loki", "queue_full"];
        counter TELEMETRY_SPOOLED_TOTAL ["loki"];
        gauge TELEMETRY_SPOOL_ITEMS ["loki"];
        gauge TELEMETRY_QUEUE_BYTES ["loki"];
        histogram TELEMETRY_EXPORT_DURATION_SECONDS ["loki"];
        counter TELEMETRY_PROPAGATION_INVALID_TOTAL ["traceparent"];
        counter TOKIO_WORKER_BUSY_SECONDS_TOTAL ["main", "0"];
        gauge TOKIO_ALIVE_TASKS ["main"];
        gauge BUILD_INFO ["orders", "1.0.0"];
        counter PANICS_TOTAL [];
        gauge PROCESS_START_TIME_SECONDS [];
        counter PROCESS_CPU_SECONDS_TOTAL [];
        gauge PROCESS_RESIDENT_MEMORY_BYTES [];
        gauge PROCESS_OPEN_FDS [];
    }
    metrics
}

#[test]
fn promtool_has_nothing_to_say() {
    let Some(promtool) = peers::peer("promtool", "promtool_has_nothing_to_say") else {
        return;
    };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(everything().encode().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// Asks until `wanted` finds something in the answer's data.
async fn until<T>(prometheus: &Server, path: &str, wanted: impl Fn(&serde_json::Value) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask::get(prometheus.address("http"), path).await.unwrap();
        if answer.status == 200
            && let Some(found) = wanted(&answer.json()["data"])
        {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{path}: {}\n{}",
            answer.body,
            prometheus.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn prometheus_scrapes_it_and_gives_the_exemplar_back() {
    let test = "prometheus_scrapes_it_and_gives_the_exemplar_back";
    let telemetry = Telemetry::test();
    let server = telemetry.serve_metrics(([127, 0, 0, 1], 0).into()).unwrap();
    let app: axum::Router = axum::Router::new()
        .route("/orders/{id}", axum::routing::get(|| async { "order" }))
        .layer(telemetry.http_layer());
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = Request::get("/orders/1")
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .body(Body::empty())
        .unwrap();
    drop(app.oneshot(request).await.unwrap());
    let recipe = servers::Prometheus::default().scrape("orders", server.local_addr());
    let Some(prometheus) = Server::start(recipe, test).await else {
        return;
    };
    let name = "http_server_request_duration_seconds";
    let count = format!("/api/v1/query?query={name}_count");
    let value = until(&prometheus, &count, |data| {
        let result = data["result"].get(0)?;
        assert_eq!(result["metric"]["http_route"], "/orders/{id}");
        result["value"][1].as_str().map(str::to_owned)
    });
    assert_eq!(value.await, "1");
    // From an hour ago to an hour ahead, whatever the clocks say.
    let now = jiff::Timestamp::now().as_second();
    let query = format!(
        "/api/v1/query_exemplars?query={name}_bucket&start={}&end={}",
        now - 3600,
        now + 3600
    );
    let labels = until(&prometheus, &query, |data| {
        let exemplar = data.get(0)?["exemplars"].get(0)?;
        Some(exemplar["labels"].clone())
    });
    assert_eq!(labels.await["trace_id"], trace);
    let unit = format!("/api/v1/metadata?metric={name}");
    let metadata = until(&prometheus, &unit, |data| data[name].get(0).cloned()).await;
    assert_eq!(
        (&metadata["type"], &metadata["unit"]),
        (&"histogram".into(), &"seconds".into())
    );
}
