//! Database calls as spans and durations, pools, and the runtime: what is told, and what never is.
#![expect(clippy::float_cmp, reason = "whole numbers, which floats hold exactly")]

#[path = "support/exposition.rs"]
mod exposition;

use std::time::Duration;

use telemetry::{CapturedSpan, PoolFigures, Telemetry, catalogue};
use tracing::Instrument as _;

const SECONDS: &str = "db_client_operation_duration_seconds";

/// How many calls there were of an operation, with an error or an empty text.
fn calls(telemetry: &Telemetry, operation: &str, error: &str) -> Option<f64> {
    let labels = [
        ("db_system_name", "sqlite"),
        ("db_operation_name", operation),
        ("db_collection_name", "orders"),
        ("error_type", error),
    ];
    let scraped = exposition::openmetrics(&telemetry.metrics().encode_openmetrics());
    scraped
        .sample(&format!("{SECONDS}_count"), &labels)
        .map(|sample| sample.value)
}

fn attribute<'a>(span: &'a CapturedSpan, name: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn a_call_is_a_client_span_below_the_requests_and_a_duration() {
    let telemetry = Telemetry::test();
    let database = telemetry.database("sqlite", "shop");
    let request = tracing::info_span!("request");
    let answer = database
        .run("INSERT orders", async { Ok::<_, String>(7) }, |_| Some("wrong"))
        .instrument(request.clone())
        .await;
    assert_eq!(answer, Ok(7));
    drop(request);
    let spans = telemetry.spans();
    let [call, request] = spans.as_slice() else {
        panic!("{spans:?}")
    };
    assert_eq!(
        (call.name.as_str(), call.kind, call.is_error),
        ("INSERT orders", 3, false)
    );
    assert_eq!(
        (&call.trace_id, &call.parent_span_id),
        (&request.trace_id, &request.span_id)
    );
    for (name, value) in [
        ("db.system.name", "sqlite"),
        ("db.namespace", "shop"),
        ("db.operation.name", "INSERT"),
        ("db.collection.name", "orders"),
        ("db.query.summary", "INSERT orders"),
    ] {
        assert_eq!(attribute(call, name), Some(value), "{name}");
    }
    assert_eq!(attribute(call, "error.type"), None);
    assert_eq!(calls(&telemetry, "INSERT", ""), Some(1.0));
    let scraped = exposition::openmetrics(&telemetry.metrics().encode_openmetrics());
    let (_, exemplar) = scraped.exemplars().next().expect("the trace beside the duration");
    assert_eq!(exemplar.labels["trace_id"], call.trace_id);
}

#[tokio::test(start_paused = true)]
async fn failures_have_a_class_and_what_is_given_up_is_cancelled() {
    let telemetry = Telemetry::test();
    let database = telemetry.database("sqlite", "shop");
    let class = |error: &&str| (*error != "refused").then_some("locked");
    let work = async {
        for error in ["the file is locked", "refused"] {
            let answer = database
                .run("UPDATE orders", async { Err::<(), _>(error) }, class)
                .await;
            assert_eq!(answer, Err(error));
        }
        let hangs = database.run("UPDATE orders", std::future::pending::<Result<(), &str>>(), class);
        assert!(tokio::time::timeout(Duration::from_secs(1), hangs).await.is_err());
    };
    work.instrument(tracing::info_span!("request")).await;
    let spans = telemetry.spans();
    let errors: Vec<_> = spans[..3]
        .iter()
        .map(|span| (span.is_error, attribute(span, "error.type")))
        .collect();
    assert_eq!(
        errors,
        [(true, Some("locked")), (false, None), (true, Some("cancelled"))]
    );
    for (error, count) in [("locked", 1.0), ("", 1.0), ("cancelled", 1.0)] {
        assert_eq!(calls(&telemetry, "UPDATE", error), Some(count), "{error}");
    }
    assert!(
        spans
            .iter()
            .all(|span| !format!("{span:?}").contains("the file is locked")),
        "no text of an error"
    );
}

#[tokio::test]
async fn a_call_outside_of_any_span_is_measured_and_begins_no_trace() {
    let telemetry = Telemetry::test();
    let database = telemetry.database("sqlite", "shop");
    let answer = database
        .run("SELECT orders", async { Ok::<_, String>(7) }, |_| None)
        .await;
    assert_eq!(answer, Ok(7));
    database.begin("SELECT orders").end(None);
    assert_eq!(telemetry.spans(), []);
    assert_eq!(calls(&telemetry, "SELECT", ""), Some(2.0));
}

#[test]
fn a_pool_tells_how_it_stands_at_each_scrape() {
    let telemetry = Telemetry::test();
    let waiting = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(2));
    let seen = std::sync::Arc::clone(&waiting);
    telemetry.watch_pool("shop", move || PoolFigures {
        used: 3,
        idle: 1,
        max: 8,
        waiters: seen.load(std::sync::atomic::Ordering::Relaxed),
        timeouts: 5,
    });
    let waits = telemetry.metrics().histogram(catalogue::DB_POOL_WAIT_SECONDS, ["shop"]);
    waits.observe_duration(Duration::from_millis(3));
    let scrape = || exposition::classic(&telemetry.metrics().encode());
    let (first, pool) = (scrape(), [("pool", "shop")]);
    assert_eq!(
        first.value("db_pool_connections", &[("pool", "shop"), ("state", "used")]),
        3.0
    );
    assert_eq!(
        first.value("db_pool_connections", &[("pool", "shop"), ("state", "idle")]),
        1.0
    );
    assert_eq!(first.value("db_pool_connections_max", &pool), 8.0);
    assert_eq!(first.value("db_pool_waiters", &pool), 2.0);
    assert_eq!(first.value("db_pool_timeouts_total", &pool), 5.0);
    assert_eq!(first.value("db_pool_wait_seconds_count", &pool), 1.0);
    waiting.store(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(scrape().value("db_pool_waiters", &pool), 0.0);
}

#[test]
fn a_runtime_tells_of_its_workers_and_tasks() {
    let telemetry = Telemetry::test();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    telemetry.watch_runtime("jobs", runtime.handle());
    runtime.spawn(std::future::pending::<()>());
    let scraped = exposition::classic(&telemetry.metrics().encode());
    let name = [("runtime", "jobs")];
    assert_eq!(scraped.value("tokio_workers", &name), 2.0);
    assert_eq!(scraped.value("tokio_alive_tasks", &name), 1.0);
    assert!(scraped.sample("tokio_global_queue_depth", &name).is_some());
    for worker in ["0", "1"] {
        let labels = [("runtime", "jobs"), ("worker", worker)];
        assert!(scraped.sample("tokio_worker_busy_seconds_total", &labels).is_some());
        assert!(scraped.sample("tokio_worker_parks_total", &labels).is_some());
    }
}
